//! Topics, configs and nodes.

use std::borrow::Cow;

use chronik_common::{ErrorCode, Uuid};
use chronik_protocol::create_topics::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest, CreateTopicsResponse,
};
use chronik_protocol::delete_topics::{
    DeleteTopicState, DeleteTopicsRequest, DeleteTopicsResponse,
};
use chronik_protocol::describe_cluster::{DescribeClusterRequest, DescribeClusterResponse};
use chronik_protocol::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResponse,
};
use chronik_protocol::{ApiKey, Request, VersionRange};

use super::error::{ClientError, KafkaCode};
use super::metadata::Wanted;
use super::{ANY_VERSION, Client, Deadline, Target};

/// First version of CreateTopics in which the cluster chooses the numbers (KIP-464).
const DEFAULT_COUNTS: i16 = 4;
/// First version of DeleteTopics whose topics are a list of structs.
const TOPIC_STATES: i16 = 6;

/// A topic to create.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// Number of partitions; the cluster's default if it is not given.
    pub partitions: Option<i32>,
    /// Number of replicas; the cluster's default if it is not given.
    pub replicas: Option<i16>,
    /// Configs under Kafka's names.
    pub configs: Vec<(String, String)>,
}

/// A topic that was created, or would be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreatedTopic {
    /// Its id; zero where the cluster has none, or where it was not created.
    pub id: Uuid,
    /// Number of partitions, if the cluster tells.
    pub partitions: Option<i32>,
    /// Number of replicas, if the cluster tells.
    pub replicas: Option<i16>,
}

/// Whose configs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ConfigResource {
    /// A topic's.
    Topic(String),
    /// A node's.
    Broker(i32),
}

/// One config of a topic or node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigSetting {
    /// Kafka's name.
    pub name: String,
    /// The value; `None` if it is secret or not set.
    pub value: Option<String>,
    /// Where it comes from: `topic`, `dynamic`, `static`, `default`, or a number that has no name
    /// here.
    pub source: String,
    /// True if it cannot be changed while the server runs.
    pub is_read_only: bool,
}

/// Who is in the cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterDescription {
    /// Id of the cluster.
    pub id: String,
    /// Node that decides about topics.
    pub controller: i32,
    /// The nodes.
    pub brokers: Vec<BrokerView>,
}

/// One node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BrokerView {
    /// Its id.
    pub id: i32,
    /// Its name as clients are told.
    pub host: String,
    /// Its port as clients are told.
    pub port: i32,
}

impl Client {
    /// Creates a topic; with `validate_only`, asks whether that would work.
    ///
    /// # Errors
    /// [`ClientError::Refused`], or if the cluster does not answer. A creation whose answer is
    /// lost is not repeated.
    pub fn create_topic(
        &mut self,
        topic: &NewTopic,
        validate_only: bool,
    ) -> Result<CreatedTopic, ClientError> {
        let deadline = self.deadline();
        self.find_controller(deadline)?;
        let has_counts = topic.partitions.is_some() && topic.replicas.is_some();
        let wanted =
            VersionRange { min: if has_counts { 0 } else { DEFAULT_COUNTS }, max: i16::MAX };
        let timeout_ms = millis(deadline);
        let request = |_| Request::CreateTopics(create_request(topic, timeout_ms, validate_only));
        let api = (ApiKey::CreateTopics, wanted);
        let answer = self.call(Target::Controller, api, deadline, request, |reader, version| {
            let response = CreateTopicsResponse::decode(reader, version)?;
            Ok(response.topics.into_iter().next().map(|it| {
                let message = it.error_message.map(Cow::into_owned);
                let created = CreatedTopic {
                    id: it.topic_id,
                    partitions: Some(it.num_partitions).filter(|count| *count > 0),
                    replicas: Some(it.replication_factor).filter(|count| *count > 0),
                };
                (it.error_code, message, created)
            }))
        })?;
        let (code, message, created) = answer.unwrap_or_else(no_answer);
        self.cluster.forget_topics();
        let action = || format!("create topic {}", topic.name);
        refused_unless_ok(code, message, action).map(|()| created)
    }

    /// Deletes a topic with all its records.
    ///
    /// # Errors
    /// [`ClientError::Refused`], or if the cluster does not answer. A deletion whose answer is
    /// lost is not repeated.
    pub fn delete_topic(&mut self, name: &str) -> Result<(), ClientError> {
        let deadline = self.deadline();
        self.find_controller(deadline)?;
        let timeout_ms = millis(deadline);
        let request = |version| {
            let mut request = DeleteTopicsRequest { timeout_ms, ..Default::default() };
            if version >= TOPIC_STATES {
                let name = Some(name.into());
                request.topics = vec![DeleteTopicState { name, ..Default::default() }];
            } else {
                request.topic_names = vec![name.into()];
            }
            Request::DeleteTopics(request)
        };
        let api = (ApiKey::DeleteTopics, ANY_VERSION);
        let answer = self.call(Target::Controller, api, deadline, request, |reader, version| {
            let response = DeleteTopicsResponse::decode(reader, version)?;
            let first = response.responses.into_iter().next();
            Ok(first.map(|it| (it.error_code, it.error_message.map(Cow::into_owned))))
        })?;
        let (code, message) = answer.unwrap_or((ErrorCode::UnknownServerError.code(), None));
        self.cluster.forget_topics();
        if KafkaCode(code).is(ErrorCode::UnknownTopicOrPartition) {
            let topic = name.to_owned();
            return Err(ClientError::NoSuchTopic { address: self.address(), topic });
        }
        refused_unless_ok(code, message, || format!("delete topic {name}"))
    }

    /// The configs of a topic or node, in order of name; `only` one of them if it is given.
    ///
    /// # Errors
    /// [`ClientError::Refused`], or if the cluster does not answer.
    pub fn describe_configs(
        &mut self,
        resource: &ConfigResource,
        only: Option<&str>,
    ) -> Result<Vec<ConfigSetting>, ClientError> {
        let deadline = self.deadline();
        self.retry(deadline, |client| client.describe_configs_once(resource, only, deadline))
    }

    fn describe_configs_once(
        &mut self,
        resource: &ConfigResource,
        only: Option<&str>,
        deadline: Deadline,
    ) -> Result<Vec<ConfigSetting>, ClientError> {
        self.refresh(Wanted::NodesOnly, deadline)?;
        // A broker knows its own configs only.
        let (target, number, name) = match resource {
            ConfigResource::Topic(name) => (Target::Any, 2, name.clone()),
            ConfigResource::Broker(node) => (Target::Node(*node), 4, node.to_string()),
        };
        let request = |_| {
            let resource = DescribeConfigsResource {
                resource_type: number,
                resource_name: Cow::Borrowed(name.as_str()),
                configuration_keys: only.map(|name| vec![name.into()]),
            };
            let resources = vec![resource];
            Request::DescribeConfigs(DescribeConfigsRequest { resources, ..Default::default() })
        };
        let api = (ApiKey::DescribeConfigs, ANY_VERSION);
        let answer = self.call(target, api, deadline, request, |reader, version| {
            let response = DescribeConfigsResponse::decode(reader, version)?;
            Ok(response.results.into_iter().next().map(|result| {
                let settings: Vec<_> = result.configs.into_iter().map(setting).collect();
                (result.error_code, result.error_message.map(Cow::into_owned), settings)
            }))
        })?;
        let (code, message, mut settings) =
            answer.unwrap_or_else(|| (ErrorCode::UnknownServerError.code(), None, Vec::new()));
        if KafkaCode(code).is(ErrorCode::UnknownTopicOrPartition) {
            return Err(ClientError::NoSuchTopic { address: self.address(), topic: name });
        }
        refused_unless_ok(code, message, || format!("describe the configs of {name}"))?;
        settings.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(settings)
    }

    /// Id and nodes of the cluster.
    ///
    /// # Errors
    /// If the cluster does not answer.
    pub fn describe_cluster(&mut self) -> Result<ClusterDescription, ClientError> {
        let deadline = self.deadline();
        let request = |_| Request::DescribeCluster(DescribeClusterRequest::default());
        self.retry(deadline, |client| {
            let api = (ApiKey::DescribeCluster, ANY_VERSION);
            let (code, message, description) =
                client.call(Target::Any, api, deadline, request, |reader, version| {
                    let response = DescribeClusterResponse::decode(reader, version)?;
                    let broker =
                        |it: &chronik_protocol::describe_cluster::DescribeClusterBroker<'_>| {
                            BrokerView {
                                id: it.broker_id,
                                host: it.host.clone().into_owned(),
                                port: it.port,
                            }
                        };
                    let description = ClusterDescription {
                        id: response.cluster_id.into_owned(),
                        controller: response.controller_id,
                        brokers: response.brokers.iter().map(broker).collect(),
                    };
                    let message = response.error_message.map(Cow::into_owned);
                    Ok((response.error_code, message, description))
                })?;
            let action = || "describe the cluster".to_owned();
            refused_unless_ok(code, message, action).map(|()| description)
        })
    }

    fn find_controller(&mut self, deadline: Deadline) -> Result<(), ClientError> {
        self.retry(deadline, |client| client.refresh(Wanted::NodesOnly, deadline))
    }
}

fn create_request(
    topic: &NewTopic,
    timeout_ms: i32,
    validate_only: bool,
) -> CreateTopicsRequest<'_> {
    let config = |(name, value): &'_ (String, String)| CreatableTopicConfig {
        name: Cow::Owned(name.clone()),
        value: Some(Cow::Owned(value.clone())),
    };
    let creatable = CreatableTopic {
        name: Cow::Borrowed(&topic.name),
        num_partitions: topic.partitions.unwrap_or(-1),
        replication_factor: topic.replicas.unwrap_or(-1),
        assignments: Vec::new(),
        configs: topic.configs.iter().map(config).collect(),
    };
    CreateTopicsRequest { topics: vec![creatable], timeout_ms, validate_only }
}

/// An answer without a result for the one thing that was asked about.
fn no_answer() -> (i16, Option<String>, CreatedTopic) {
    let created = CreatedTopic { id: Uuid::ZERO, partitions: None, replicas: None };
    (ErrorCode::UnknownServerError.code(), None, created)
}

fn refused_unless_ok(
    code: i16,
    message: Option<String>,
    action: impl FnOnce() -> String,
) -> Result<(), ClientError> {
    KafkaCode::check(code).map_err(|code| ClientError::Refused { action: action(), code, message })
}

fn setting(
    config: chronik_protocol::describe_configs::DescribeConfigsResourceResult<'_>,
) -> ConfigSetting {
    let source = match config.config_source {
        1 => "topic".to_owned(),
        2 | 3 => "dynamic".to_owned(),
        4 => "static".to_owned(),
        5 => "default".to_owned(),
        other => other.to_string(),
    };
    ConfigSetting {
        name: config.name.into_owned(),
        value: config.value.map(Cow::into_owned).filter(|_| !config.is_sensitive),
        source,
        is_read_only: config.read_only,
    }
}

/// The time left, for the cluster's own wait.
fn millis(deadline: Deadline) -> i32 {
    let left = deadline.remaining().unwrap_or_default().as_millis();
    i32::try_from(left).unwrap_or(i32::MAX)
}
