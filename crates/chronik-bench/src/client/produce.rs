//! A single message, for tasks that wait for its answer.

use std::borrow::Cow;

use chronik_common::{ErrorCode, Uuid};
use chronik_protocol::produce::{
    PartitionProduceData, ProduceRequest, ProduceResponse, TopicProduceData,
};
use chronik_protocol::{ApiKey, Records, Request};

use super::connection::{Connection, refuse_unless_ok};
use super::error::ClientError;

/// Newest version that names topics by name.
pub const NEWEST_PRODUCE_BY_NAME: i16 = 12;

/// Where a batch goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProducePlan {
    /// Name of the topic.
    pub topic: String,
    /// Id of the topic, for versions that know topics by id.
    pub topic_id: Uuid,
    /// Index of the partition.
    pub partition: i32,
    /// Acknowledgements to wait for; not 0.
    pub acks: i16,
    /// Milliseconds that the broker may wait for replicas.
    pub timeout_ms: i32,
}

impl Connection {
    /// Stores a batch and returns the offset of its first message.
    ///
    /// # Errors
    /// Those of [`exchange`](Self::exchange), and a refusal.
    pub fn produce(&mut self, plan: &ProducePlan, batch: &[u8]) -> Result<i64, ClientError> {
        assert!(plan.acks != 0, "without acknowledgements there is no answer to wait for");
        let version = self
            .version_up_to(ApiKey::Produce, NEWEST_PRODUCE_BY_NAME)
            .or_else(|_| self.version_of(ApiKey::Produce))?;
        let request = Request::Produce(ProduceRequest {
            transactional_id: None,
            acks: plan.acks,
            timeout_ms: plan.timeout_ms,
            topic_data: vec![TopicProduceData {
                name: Cow::Borrowed(&plan.topic),
                topic_id: plan.topic_id,
                partition_data: vec![PartitionProduceData {
                    index: plan.partition,
                    records: Some(Records::Borrowed(batch)),
                }],
            }],
        });
        let (code, offset) = self.exchange(&request, version, |reader, version| {
            let answer = ProduceResponse::decode(reader, version)?;
            let partition =
                answer.responses.first().and_then(|topic| topic.partition_responses.first());
            let unknown = (ErrorCode::UnknownServerError.code(), -1);
            Ok(partition.map_or(unknown, |it| (it.error_code, it.base_offset)))
        })?;
        let place = || format!("store a message in {}-{}", plan.topic, plan.partition);
        refuse_unless_ok(code, place, None).map(|()| offset)
    }
}
