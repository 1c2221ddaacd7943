//! Topics, as an administrator handles them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use chronik_common::TopicId;
use chronik_protocol::create_topics::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequest};
use chronik_protocol::describe_configs::{DescribeConfigsRequest, DescribeConfigsResource};
use chronik_protocol::metadata::{MetadataRequest, MetadataRequestTopic};

use crate::client::Client;

/// Resource type of topics.
const TOPIC: i8 = 2;

/// A topic to create.
#[derive(Clone, Copy, Debug)]
pub struct NewTopic<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its partitions; -1 for the server's default.
    pub partitions: i32,
    /// Its configs, under Kafka's names.
    pub configs: &'a [(&'a str, &'a str)],
}

/// Creates a topic and returns its id.
///
/// # Panics
/// If the server refuses.
pub fn create_topic(client: &mut Client, topic: NewTopic<'_>) -> TopicId {
    let configs = topic.configs.iter().map(|(name, value)| CreatableTopicConfig {
        name: Cow::Borrowed(name),
        value: Some(Cow::Borrowed(value)),
    });
    let request = CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: Cow::Borrowed(topic.name),
            num_partitions: topic.partitions,
            replication_factor: -1,
            assignments: Vec::new(),
            configs: configs.collect(),
        }],
        timeout_ms: 30_000,
        validate_only: false,
    };
    let reply = client.call(&request, 7);
    let answer = &reply.body().topics[0];
    assert_eq!(answer.error_code, 0, "{}: {:?}", topic.name, answer.error_message);
    answer.topic_id
}

/// The id of a topic; `None` if there is no such topic. Nothing is created.
pub fn topic_id(client: &mut Client, name: &str) -> Option<TopicId> {
    let topic = MetadataRequestTopic { name: Some(Cow::Borrowed(name)), ..Default::default() };
    let request = MetadataRequest {
        topics: Some(vec![topic]),
        allow_auto_topic_creation: false,
        ..MetadataRequest::default()
    };
    let reply = client.call(&request, 12);
    let answer = &reply.body().topics[0];
    (answer.error_code == 0).then_some(answer.topic_id)
}

/// Every config of a topic, by name.
///
/// # Panics
/// If there is no such topic.
pub fn topic_configs(client: &mut Client, name: &str) -> BTreeMap<String, String> {
    let request = DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: TOPIC,
            resource_name: Cow::Borrowed(name),
            configuration_keys: None,
        }],
        include_synonyms: false,
        include_documentation: false,
    };
    let reply = client.call(&request, 4);
    let answer = &reply.body().results[0];
    assert_eq!(answer.error_code, 0, "{name}: {:?}", answer.error_message);
    let value = |value: &Option<Cow<'_, str>>| value.as_deref().unwrap_or_default().to_owned();
    answer.configs.iter().map(|config| (config.name.to_string(), value(&config.value))).collect()
}
