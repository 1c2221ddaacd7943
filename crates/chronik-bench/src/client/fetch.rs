//! Fetch requests as this tool asks them, and what it needs of the answers.

use std::borrow::Cow;

use chronik_common::Uuid;
use chronik_protocol::fetch::{FetchPartition, FetchRequest, FetchResponse, FetchTopic};
use chronik_protocol::{ApiKey, DecodeError, Reader, Request};

use super::connection::{Connection, refuse_unless_ok};
use super::error::ClientError;

/// What one fetch asks for.
#[derive(Clone, Debug)]
pub struct FetchPlan<'a> {
    /// Name of the topic.
    pub topic: &'a str,
    /// Id of the topic, for versions that know topics by id.
    pub topic_id: Uuid,
    /// Milliseconds that the broker may wait for the first byte.
    pub max_wait_ms: i32,
    /// Bytes of the answer at most; the first batch comes even if it is larger.
    pub max_bytes: i32,
    /// Bytes of one partition at most; the first batch comes even if it is larger.
    pub partition_max_bytes: i32,
}

/// One partition of an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchedPartition<'a> {
    /// Index of the partition.
    pub index: i32,
    /// Kafka's error code.
    pub error_code: i16,
    /// Offset behind the last record that consumers may see.
    pub high_watermark: i64,
    /// Whole batches, the last possibly cut off.
    pub records: &'a [u8],
}

/// The request for `positions`, pairs of partition and offset.
#[must_use]
pub fn fetch_request<'a>(plan: &FetchPlan<'a>, positions: &[(i32, i64)]) -> Request<'a> {
    let partition = |(partition, fetch_offset): &(i32, i64)| FetchPartition {
        partition: *partition,
        fetch_offset: *fetch_offset,
        partition_max_bytes: plan.partition_max_bytes,
        ..FetchPartition::default()
    };
    Request::Fetch(FetchRequest {
        max_wait_ms: plan.max_wait_ms,
        min_bytes: 1,
        max_bytes: plan.max_bytes,
        topics: vec![FetchTopic {
            topic: Cow::Borrowed(plan.topic),
            topic_id: plan.topic_id,
            partitions: positions.iter().map(partition).collect(),
        }],
        ..FetchRequest::default()
    })
}

/// Reads an answer: its own error code, and its partitions.
///
/// # Errors
/// If the bytes are no such answer.
pub fn fetched_partitions<'a>(
    reader: &mut Reader<'a>,
    version: i16,
) -> Result<(i16, Vec<FetchedPartition<'a>>), DecodeError> {
    let answer = FetchResponse::decode(reader, version)?;
    let mut partitions = Vec::new();
    for partition in answer.responses.into_iter().flat_map(|topic| topic.partitions) {
        let records = partition.records.as_ref().and_then(|it| it.borrowed()).unwrap_or_default();
        partitions.push(FetchedPartition {
            index: partition.partition_index,
            error_code: partition.error_code,
            high_watermark: partition.high_watermark,
            records,
        });
    }
    Ok((answer.error_code, partitions))
}

impl Connection {
    /// Fetches `positions` and gives each partition of the answer to `take`.
    ///
    /// # Errors
    /// Those of [`exchange`](Self::exchange), and a refusal of the whole request.
    pub fn fetch(
        &mut self,
        plan: &FetchPlan<'_>,
        positions: &[(i32, i64)],
        mut take: impl FnMut(&FetchedPartition<'_>),
    ) -> Result<(), ClientError> {
        let version = self.version_of(ApiKey::Fetch)?;
        let request = fetch_request(plan, positions);
        let code = self.exchange(&request, version, |reader, version| {
            let (code, partitions) = fetched_partitions(reader, version)?;
            partitions.iter().for_each(&mut take);
            Ok(code)
        })?;
        refuse_unless_ok(code, || format!("fetch from {}", plan.topic), None)
    }
}
