//! A produce request read in place: its parts go to a visitor one by one instead of into lists,
//! so that the request that a server sees most often allocates nothing.
//!
//! Reads the same bytes and refuses the same ones as the generated
//! [`ProduceRequest::decode`](crate::produce::ProduceRequest::decode). The budget that follows from
//! the message's length is charged with what the visitor keeps of each part.

use chronik_common::Uuid;

use crate::api_key::ApiKey;
use crate::error::{DecodeError, DecodeReason, ReadError};
use crate::primitive::Reader;

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
    /// Memory that the visitor needs for a topic, in bytes, its name not included.
    const TOPIC_BYTES: usize;

    /// Memory that it needs for records of a partition, in bytes.
    const PARTITION_BYTES: usize;

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

/// Reads the body of a produce request of this version.
///
/// # Errors
///
/// If the bytes are not such a request or want more memory than their length allows, or there is
/// no such version.
pub fn read_produce_request<'a, P: ProduceParts<'a>>(
    reader: &mut Reader<'a>,
    version: i16,
    parts: &mut P,
) -> Result<ProduceHead<'a>, DecodeError> {
    if !API.shown().contains(version) {
        let reason = DecodeReason::Version;
        return Err(DecodeError { api: API, version, field: "message", reason });
    }
    read_message(reader, version, parts).map_err(|error| error.in_message(API, version))
}

fn read_message<'a, P: ProduceParts<'a>>(
    reader: &mut Reader<'a>,
    version: i16,
    parts: &mut P,
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
    reader.charge_bytes("topic_data", topics.saturating_mul(P::TOPIC_BYTES))?;
    for _ in 0..topics {
        read_topic(reader, version, parts)?;
    }
    if flexible {
        reader.skip_tagged_fields("message")?;
    }
    Ok(ProduceHead { transactional_id, acks, timeout_ms })
}

fn read_topic<'a, P: ProduceParts<'a>>(
    reader: &mut Reader<'a>,
    version: i16,
    parts: &mut P,
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
    reader.charge_bytes(field, count.saturating_mul(P::PARTITION_BYTES))?;
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
