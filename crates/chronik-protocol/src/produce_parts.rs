//! A produce request read in place: its parts go to a visitor one by one instead of into lists,
//! so that the request that a server sees most often allocates nothing.
//!
//! Reads the same bytes and refuses the same ones as the generated
//! [`ProduceRequest::decode`](crate::produce::ProduceRequest::decode), except that it needs no
//! budget for lists.

use chronik_common::Uuid;

use crate::api_key::ApiKey;
use crate::error::{DecodeError, DecodeReason, ReadError};
use crate::primitive::{ARRAY_ELEMENTS_MAX, Reader};

const API: ApiKey = ApiKey::Produce;

/// First version with compact lengths and tagged fields.
const FLEXIBLE_VERSION: i16 = 9;
/// First version with a transactional id.
const TRANSACTIONAL_ID_VERSION: i16 = 3;
/// First version with topic ids instead of names.
const TOPIC_ID_VERSION: i16 = 13;

/// Takes the parts of a produce request in their order.
///
/// What was visited counts only once [`read_produce_request`] has succeeded: the bytes behind it
/// may turn out not to be a request.
pub trait ProduceParts<'a> {
    /// A topic, before its partitions. The name is empty from version 13 on, the id
    /// [`Uuid::ZERO`] before.
    fn topic(&mut self, name: &'a str, topic_id: Uuid);

    /// Records for a partition of the last topic; `None` is null.
    fn partition(&mut self, index: i32, records: Option<&'a [u8]>);
}

/// What a produce request says about all of its parts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProduceHead<'a> {
    /// Versions 3 to 13; nullable.
    pub transactional_id: Option<&'a str>,
    /// Versions 0 to 13.
    pub acks: i16,
    /// Versions 0 to 13.
    pub timeout_ms: i32,
}

/// Reads the body of a produce request of this version. There are at most [`ARRAY_ELEMENTS_MAX`]
/// parts, over all topics.
///
/// # Errors
///
/// If the bytes are not such a request, or there is no such version.
pub fn read_produce_request<'a>(
    reader: &mut Reader<'a>,
    version: i16,
    parts: &mut impl ProduceParts<'a>,
) -> Result<ProduceHead<'a>, DecodeError> {
    if !API.shown().contains(version) {
        let reason = DecodeReason::Version;
        return Err(DecodeError { api: API, version, field: "message", reason });
    }
    read_message(reader, version, parts).map_err(|error| error.in_message(API, version))
}

fn read_message<'a>(
    reader: &mut Reader<'a>,
    version: i16,
    parts: &mut impl ProduceParts<'a>,
) -> Result<ProduceHead<'a>, ReadError> {
    let flexible = version >= FLEXIBLE_VERSION;
    let transactional_id = if version >= TRANSACTIONAL_ID_VERSION {
        reader.optional_string("transactional_id", flexible, true)?
    } else {
        None
    };
    let acks = reader.i16("acks")?;
    let timeout_ms = reader.i32("timeout_ms")?;
    let topics = reader.element_count("topic_data", flexible, if flexible { 3 } else { 6 })?;
    let mut parts_left = ARRAY_ELEMENTS_MAX;
    for _ in 0..topics {
        read_topic(reader, version, &mut parts_left, parts)?;
    }
    if flexible {
        reader.skip_tagged_fields("message")?;
    }
    Ok(ProduceHead { transactional_id, acks, timeout_ms })
}

fn read_topic<'a>(
    reader: &mut Reader<'a>,
    version: i16,
    parts_left: &mut usize,
    parts: &mut impl ProduceParts<'a>,
) -> Result<(), ReadError> {
    let flexible = version >= FLEXIBLE_VERSION;
    let (name, topic_id) = if version >= TOPIC_ID_VERSION {
        ("", reader.uuid("topic_data.topic_id")?)
    } else {
        (reader.string("topic_data.name", flexible)?, Uuid::ZERO)
    };
    parts.topic(name, topic_id);
    let (field, element_bytes_min) = ("topic_data.partition_data", if flexible { 6 } else { 8 });
    let count = reader.element_count(field, flexible, element_bytes_min)?;
    let limit = *parts_left;
    let left = limit.checked_sub(count);
    let reason = DecodeReason::TooManyElements { count, limit };
    *parts_left = left.ok_or(ReadError { field, reason })?;
    for _ in 0..count {
        let index = reader.i32("topic_data.partition_data.index")?;
        let records = reader.optional_bytes("topic_data.partition_data.records", flexible, true)?;
        if flexible {
            reader.skip_tagged_fields("topic_data.partition_data")?;
        }
        parts.partition(index, records);
    }
    if flexible {
        reader.skip_tagged_fields("topic_data")?;
    }
    Ok(())
}
