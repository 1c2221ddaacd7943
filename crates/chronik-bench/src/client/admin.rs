//! Topics, offsets and producer ids: what a run asks before and after its load.

use std::borrow::Cow;

use chronik_common::{ErrorCode, Uuid};
use chronik_protocol::create_topics::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest, CreateTopicsResponse,
};
use chronik_protocol::delete_topics::{
    DeleteTopicState, DeleteTopicsRequest, DeleteTopicsResponse,
};
use chronik_protocol::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResponse,
};
use chronik_protocol::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use chronik_protocol::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopic,
};
use chronik_protocol::metadata::{MetadataRequest, MetadataRequestTopic, MetadataResponse};
use chronik_protocol::{ApiKey, Request};

use super::Endpoint;
use super::connection::{Connection, refuse_unless_ok};
use super::error::ClientError;

/// Milliseconds that a broker may take for a change of topics.
const CHANGE_TIMEOUT_MS: i32 = 30_000;

/// Timestamp that asks ListOffsets for the log end.
const LATEST: i64 = -1;
/// Timestamp that asks ListOffsets for the log start.
const EARLIEST: i64 = -2;

/// `kind` of a topic in DescribeConfigs.
const TOPIC_RESOURCE: i8 = 2;

/// A topic and where its partitions are led.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Its id; zero from brokers that have none.
    pub id: Uuid,
    /// Its partitions, in ascending order of index.
    pub partitions: Vec<TopicPartition>,
}

/// A partition and its leader.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicPartition {
    /// Index of the partition.
    pub index: i32,
    /// Where its leader listens; `None` while it has none.
    pub leader: Option<Endpoint>,
    /// Replicas that it has.
    pub replicas: usize,
}

/// A topic to be created.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// Number of partitions.
    pub partitions: i32,
    /// Replicas of each.
    pub replication_factor: i16,
    /// Configs, as names and values.
    pub configs: Vec<(String, String)>,
}

impl Connection {
    /// The topic and its leaders; `None` if it does not exist.
    ///
    /// # Errors
    /// Those of [`exchange`](Self::exchange), and a refusal for another reason.
    pub fn topic(&mut self, name: &str) -> Result<Option<Topic>, ClientError> {
        let version = self.version_of(ApiKey::Metadata)?;
        let wanted =
            MetadataRequestTopic { name: Some(name.into()), ..MetadataRequestTopic::default() };
        let request = Request::Metadata(MetadataRequest {
            topics: Some(vec![wanted]),
            allow_auto_topic_creation: version < 4,
            ..MetadataRequest::default()
        });
        let (code, topic) = self.exchange(&request, version, |reader, version| {
            MetadataResponse::decode(reader, version).map(|answer| topic_of(name, &answer))
        })?;
        match code {
            Some(code) if code == ErrorCode::UnknownTopicOrPartition.code() => Ok(None),
            Some(code) => {
                refuse_unless_ok(code, || format!("describe topic {name}"), None)?;
                Ok(Some(topic))
            }
            None => Ok(None),
        }
    }

    /// Creates a topic; one that exists already is no error. True if it was created now.
    ///
    /// # Errors
    /// Those of [`exchange`](Self::exchange), and a refusal.
    pub fn create_topic(&mut self, topic: &NewTopic) -> Result<bool, ClientError> {
        let version = self.version_of(ApiKey::CreateTopics)?;
        let config = |(name, value): &(String, String)| CreatableTopicConfig {
            name: Cow::Owned(name.clone()),
            value: Some(Cow::Owned(value.clone())),
        };
        let request = Request::CreateTopics(CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: Cow::Borrowed(&topic.name),
                num_partitions: topic.partitions,
                replication_factor: topic.replication_factor,
                assignments: Vec::new(),
                configs: topic.configs.iter().map(config).collect(),
            }],
            timeout_ms: CHANGE_TIMEOUT_MS,
            validate_only: false,
        });
        let (code, message) = self.exchange(&request, version, |reader, version| {
            let answer = CreateTopicsResponse::decode(reader, version)?;
            let result = answer.topics.first();
            let message = result.and_then(|it| it.error_message.as_deref().map(str::to_owned));
            Ok((result.map_or(ErrorCode::UnknownServerError.code(), |it| it.error_code), message))
        })?;
        if code == ErrorCode::TopicAlreadyExists.code() {
            return Ok(false);
        }
        refuse_unless_ok(code, || format!("create topic {}", topic.name), message)?;
        Ok(true)
    }

    /// Deletes a topic.
    ///
    /// # Errors
    /// Those of [`exchange`](Self::exchange), and a refusal.
    pub fn delete_topic(&mut self, name: &str) -> Result<(), ClientError> {
        let version = self.version_of(ApiKey::DeleteTopics)?;
        let by_state = version >= 6;
        let state =
            DeleteTopicState { name: Some(Cow::Borrowed(name)), ..DeleteTopicState::default() };
        let request = Request::DeleteTopics(DeleteTopicsRequest {
            topics: if by_state { vec![state] } else { Vec::new() },
            topic_names: if by_state { Vec::new() } else { vec![Cow::Borrowed(name)] },
            timeout_ms: CHANGE_TIMEOUT_MS,
        });
        let code = self.exchange(&request, version, |reader, version| {
            let answer = DeleteTopicsResponse::decode(reader, version)?;
            let unknown = ErrorCode::UnknownServerError.code();
            Ok(answer.responses.first().map_or(unknown, |it| it.error_code))
        })?;
        refuse_unless_ok(code, || format!("delete topic {name}"), None)
    }

    /// The value of a topic's config; `None` if the broker does not know it.
    ///
    /// # Errors
    /// Those of [`exchange`](Self::exchange), and a refusal.
    pub fn topic_config(&mut self, topic: &str, key: &str) -> Result<Option<String>, ClientError> {
        let version = self.version_of(ApiKey::DescribeConfigs)?;
        let request = Request::DescribeConfigs(DescribeConfigsRequest {
            resources: vec![DescribeConfigsResource {
                resource_type: TOPIC_RESOURCE,
                resource_name: Cow::Borrowed(topic),
                configuration_keys: Some(vec![Cow::Borrowed(key)]),
            }],
            ..DescribeConfigsRequest::default()
        });
        let (code, value) = self.exchange(&request, version, |reader, version| {
            let answer = DescribeConfigsResponse::decode(reader, version)?;
            let result = answer.results.first();
            let found = result.and_then(|it| it.configs.iter().find(|config| config.name == key));
            let value = found.and_then(|config| config.value.as_deref().map(str::to_owned));
            Ok((result.map_or(0, |it| it.error_code), value))
        })?;
        refuse_unless_ok(code, || format!("describe the configs of {topic}"), None)?;
        Ok(value)
    }

    /// Log end offsets of partitions led by this broker, exclusive, in the order asked.
    ///
    /// # Errors
    /// Those of [`exchange`](Self::exchange), and a refusal for any of the partitions.
    pub fn log_ends(&mut self, topic: &str, partitions: &[i32]) -> Result<Vec<i64>, ClientError> {
        self.offsets(topic, partitions, LATEST)
    }

    /// Log start offsets of partitions led by this broker, in the order asked.
    ///
    /// # Errors
    /// Those of [`exchange`](Self::exchange), and a refusal for any of the partitions.
    pub fn log_starts(&mut self, topic: &str, partitions: &[i32]) -> Result<Vec<i64>, ClientError> {
        self.offsets(topic, partitions, EARLIEST)
    }

    fn offsets(
        &mut self,
        topic: &str,
        partitions: &[i32],
        timestamp: i64,
    ) -> Result<Vec<i64>, ClientError> {
        let version = self.version_of(ApiKey::ListOffsets)?;
        let partition = |index: &i32| ListOffsetsPartition {
            partition_index: *index,
            timestamp,
            ..ListOffsetsPartition::default()
        };
        let request = Request::ListOffsets(ListOffsetsRequest {
            replica_id: -1,
            topics: vec![ListOffsetsTopic {
                name: Cow::Borrowed(topic),
                partitions: partitions.iter().map(partition).collect(),
            }],
            ..ListOffsetsRequest::default()
        });
        let found = self.exchange(&request, version, |reader, version| {
            let answer = ListOffsetsResponse::decode(reader, version)?;
            let of = |it: &chronik_protocol::list_offsets::ListOffsetsPartitionResponse| {
                (it.partition_index, (it.error_code, it.offset))
            };
            let rows = answer.topics.iter().flat_map(|topic| topic.partitions.iter().map(of));
            Ok(rows.collect::<std::collections::BTreeMap<_, _>>())
        })?;
        let missing = (ErrorCode::UnknownServerError.code(), 0);
        let of = |index: &i32| {
            let (code, offset) = found.get(index).copied().unwrap_or(missing);
            let action = || format!("list the offsets of {topic}-{index}");
            refuse_unless_ok(code, action, None).map(|()| offset)
        };
        partitions.iter().map(of).collect()
    }

    /// A producer id and epoch of its own.
    ///
    /// # Errors
    /// Those of [`exchange`](Self::exchange), and a refusal.
    pub fn init_producer_id(&mut self) -> Result<(i64, i16), ClientError> {
        let version = self.version_of(ApiKey::InitProducerId)?;
        let request = Request::InitProducerId(InitProducerIdRequest {
            transactional_id: None,
            transaction_timeout_ms: i32::MAX,
            producer_id: -1,
            producer_epoch: -1,
        });
        let (code, identity) = self.exchange(&request, version, |reader, version| {
            let answer = InitProducerIdResponse::decode(reader, version)?;
            Ok((answer.error_code, (answer.producer_id, answer.producer_epoch)))
        })?;
        refuse_unless_ok(code, || "hand out a producer id".to_owned(), None)?;
        Ok(identity)
    }
}

/// The error code of topic `name` in `answer`, `None` if it is not there, and what is known of it.
fn topic_of(name: &str, answer: &MetadataResponse<'_>) -> (Option<i16>, Topic) {
    let endpoint_of = |node: i32| {
        let broker = answer.brokers.iter().find(|broker| broker.node_id == node)?;
        let port = u16::try_from(broker.port).ok()?;
        Some(Endpoint { host: broker.host.clone().into_owned(), port })
    };
    let found = answer.topics.iter().find(|topic| topic.name.as_deref() == Some(name));
    let mut partitions: Vec<_> = found
        .iter()
        .flat_map(|topic| &topic.partitions)
        .map(|partition| TopicPartition {
            index: partition.partition_index,
            leader: endpoint_of(partition.leader_id),
            replicas: partition.replica_nodes.len(),
        })
        .collect();
    partitions.sort_by_key(|partition| partition.index);
    let id = found.map_or(Uuid::ZERO, |topic| topic.topic_id);
    (found.map(|topic| topic.error_code), Topic { name: name.to_owned(), id, partitions })
}
