//! One batch to the leader of its partition.

use std::borrow::Cow;

use bytes::Bytes;
use chronik_common::{ErrorCode, ProducerId};
use chronik_protocol::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use chronik_protocol::produce::{
    PartitionProduceData, ProduceRequest, ProduceResponse, TopicProduceData,
};
use chronik_protocol::{ApiKey, Records, Request, VersionRange};
use clap::ValueEnum;

use super::error::{ClientError, KafkaCode};
use super::metadata::{TopicView, Wanted};
use super::{ANY_VERSION, Client, Deadline, Target};

/// First version of Produce that names topics by id.
const TOPIC_IDS: i16 = 13;
/// First version of Produce that may carry zstd.
const ZSTD: i16 = 7;

/// What has to hold before a record counts as sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum Acks {
    /// Every replica in sync has it.
    #[default]
    #[value(alias = "-1")]
    All,
    /// The leader has it.
    #[value(name = "1")]
    Leader,
    /// Nothing: the answer is not waited for, and nobody knows the offset.
    #[value(name = "0")]
    None,
}

impl Acks {
    fn number(self) -> i16 {
        match self {
            Self::All => -1,
            Self::Leader => 1,
            Self::None => 0,
        }
    }
}

/// An idempotent producer: repeated batches of one identity are stored once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProducerIdentity {
    /// Its id.
    pub id: ProducerId,
    /// Its epoch.
    pub epoch: i16,
}

/// A batch on its way.
#[derive(Clone, Debug)]
pub(crate) struct OutgoingBatch<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
    pub(crate) bytes: Bytes,
    pub(crate) acks: Acks,
    pub(crate) is_zstd: bool,
}

impl Client {
    /// Sends a batch and returns the offset of its first record, which nobody knows without
    /// acknowledgement. A batch whose answer is lost is sent again; only a producer identity
    /// keeps it from being stored twice.
    pub(crate) fn produce(
        &mut self,
        batch: &OutgoingBatch<'_>,
    ) -> Result<Option<i64>, ClientError> {
        let deadline = self.deadline();
        self.retry(deadline, |client| client.produce_once(batch, deadline))
    }

    fn produce_once(
        &mut self,
        batch: &OutgoingBatch<'_>,
        deadline: Deadline,
    ) -> Result<Option<i64>, ClientError> {
        let topic = self.known_topic(Wanted::Topic(batch.topic), deadline)?;
        let target = Target::Node(topic.leader(batch.partition)?);
        let min = if batch.is_zstd { ZSTD } else { 0 };
        let max = if topic.id.is_zero() { TOPIC_IDS - 1 } else { i16::MAX };
        let wanted = VersionRange { min, max };
        let timeout_ms = i32::try_from(self.options.timeout.as_millis()).unwrap_or(i32::MAX);
        let request = || produce_request(batch, &topic, timeout_ms);
        if batch.acks == Acks::None {
            return self.on_connection(target, deadline, |connection| {
                let version = connection.version_of(ApiKey::Produce, wanted)?;
                connection.send(&request(), version, deadline).map(|_| None)
            });
        }
        let api = (ApiKey::Produce, wanted);
        let answer = self.call(
            target,
            api,
            deadline,
            |_| request(),
            |reader, version| {
                let response = ProduceResponse::decode(reader, version)?;
                let mut partitions =
                    response.responses.into_iter().flat_map(|it| it.partition_responses);
                Ok(partitions.next().map(|it| {
                    (it.error_code, it.error_message.map(Cow::into_owned), it.base_offset)
                }))
            },
        )?;
        let (code, message, base_offset) =
            answer.unwrap_or((ErrorCode::UnknownServerError.code(), None, -1));
        match KafkaCode::check(code) {
            // An earlier attempt, whose answer was lost, did it.
            Err(code) if code.is(ErrorCode::DuplicateSequenceNumber) => Ok(None),
            Err(code) => {
                let action = format!("produce to {}-{}", batch.topic, batch.partition);
                Err(ClientError::Refused { action, code, message })
            }
            Ok(()) => Ok(Some(base_offset).filter(|offset| *offset >= 0)),
        }
    }

    /// A new identity; `None` if the cluster gives out none to this client.
    ///
    /// # Errors
    /// If the cluster does not answer.
    pub fn producer_identity(&mut self) -> Result<Option<ProducerIdentity>, ClientError> {
        let deadline = self.deadline();
        self.retry(deadline, |client| client.producer_identity_once(deadline))
    }

    fn producer_identity_once(
        &mut self,
        deadline: Deadline,
    ) -> Result<Option<ProducerIdentity>, ClientError> {
        let request = |_| {
            Request::InitProducerId(InitProducerIdRequest {
                transaction_timeout_ms: i32::MAX,
                ..InitProducerIdRequest::default()
            })
        };
        let api = (ApiKey::InitProducerId, ANY_VERSION);
        let answer = self.call(Target::Any, api, deadline, request, |reader, version| {
            let answer = InitProducerIdResponse::decode(reader, version)?;
            let id = ProducerId(answer.producer_id);
            Ok((answer.error_code, ProducerIdentity { id, epoch: answer.producer_epoch }))
        });
        match answer {
            Err(ClientError::Unsupported { .. }) => Ok(None),
            Err(error) => Err(error),
            Ok((code, identity)) => match KafkaCode::check(code) {
                Ok(()) => Ok(Some(identity)),
                Err(code) if code.is(ErrorCode::ClusterAuthorizationFailed) => Ok(None),
                Err(code) => {
                    let action = "get a producer id".to_owned();
                    Err(ClientError::Refused { action, code, message: None })
                }
            },
        }
    }
}

fn produce_request<'a>(
    batch: &OutgoingBatch<'a>,
    topic: &TopicView,
    timeout_ms: i32,
) -> Request<'a> {
    let partition = PartitionProduceData {
        index: batch.partition,
        records: Some(Records::Shared(batch.bytes.clone())),
    };
    Request::Produce(ProduceRequest {
        transactional_id: None,
        acks: batch.acks.number(),
        timeout_ms,
        topic_data: vec![TopicProduceData {
            name: batch.topic.into(),
            topic_id: topic.id,
            partition_data: vec![partition],
        }],
    })
}
