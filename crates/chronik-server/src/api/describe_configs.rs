//! DescribeConfigs (key 32), versions 1-4.
//!
//! - Resource 2 topic: every topic config with value, source, type, documentation (v3+) and, when
//!   asked, synonyms. Unknown topic UNKNOWN_TOPIC_OR_PARTITION.
//! - Resource 4 broker: this node's id, or empty for the defaults of the cluster; another id is
//!   INVALID_REQUEST. All values are static and read-only in this release.
//! - Other resources: INVALID_REQUEST.
//! - A list of keys limits the answer to those that exist; an empty one is no limit, like null.

use std::borrow::Cow;
use std::rc::Rc;

use chronik_common::ErrorCode;
use chronik_config::{ConfigSource, TopicConfig, TopicConfigEntry};
use chronik_protocol::Reader;
use chronik_protocol::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult,
    DescribeConfigsResponse, DescribeConfigsResult, DescribeConfigsSynonym,
};

use super::{CloseReason, RequestId};
use crate::net::connection::Connection;
use crate::node::Node;
use crate::shard::Shard;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

/// What the request asks about every value.
#[derive(Clone, Copy)]
struct Wanted {
    synonyms: bool,
    documentation: bool,
}

/// Describes configs of topics and of this broker.
pub(crate) fn handle(
    shard: &Rc<Shard>,
    connection: &Rc<Connection>,
    id: RequestId,
    body: &[u8],
) -> Result<(), CloseReason> {
    let request = DescribeConfigsRequest::decode(&mut Reader::new(body), id.version)
        .map_err(CloseReason::Decode)?;
    let wanted =
        Wanted { synonyms: request.include_synonyms, documentation: request.include_documentation };
    let results = request.resources.iter().map(|resource| {
        let (error_code, error_message, configs) = match describe(&shard.node, resource, wanted) {
            Ok(configs) => (ErrorCode::None, None, configs),
            Err((code, message)) => (code, Some(Cow::Owned(message)), Vec::new()),
        };
        DescribeConfigsResult {
            error_code: error_code.code(),
            error_message,
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.clone(),
            configs,
        }
    });
    let response = DescribeConfigsResponse {
        results: results.collect(),
        ..DescribeConfigsResponse::default()
    };
    connection.answer(|out| id.encode(out, |out| response.encode(out, id.version)))
}

type Described = Result<Vec<DescribeConfigsResourceResult<'static>>, (ErrorCode, String)>;

fn describe(node: &Node, resource: &DescribeConfigsResource<'_>, wanted: Wanted) -> Described {
    let keys = resource.configuration_keys.as_ref().filter(|keys| !keys.is_empty());
    let is_asked = |name: &str| keys.is_none_or(|keys| keys.iter().any(|key| key == name));
    match resource.resource_type {
        TOPIC => {
            let image = node.metadata.image();
            let topic = image.topic(&resource.resource_name).ok_or_else(|| {
                let message = format!("there is no topic {}", resource.resource_name);
                (ErrorCode::UnknownTopicOrPartition, message)
            })?;
            let entries = TopicConfig::describe(&node.config.topic_defaults(), &topic.configs);
            let asked = entries.into_iter().filter(|entry| is_asked(entry.key.name));
            Ok(asked.map(|entry| topic_config(entry, wanted)).collect())
        }
        BROKER => {
            let is_us = resource.resource_name.is_empty()
                || resource.resource_name.parse() == Ok(node.id().0);
            if !is_us {
                let message = format!("this is broker {}; ask the one you mean", node.id());
                return Err((ErrorCode::InvalidRequest, message));
            }
            let entries = node.broker_configs().into_iter();
            let asked = entries.filter(|entry| is_asked(entry.name));
            Ok(asked
                .map(|entry| DescribeConfigsResourceResult {
                    name: Cow::Borrowed(entry.name),
                    value: Some(Cow::Owned(entry.value)),
                    read_only: true,
                    config_source: entry.source.code(),
                    is_sensitive: false,
                    synonyms: Vec::new(),
                    config_type: entry.config_type.code(),
                    documentation: wanted.documentation.then_some(Cow::Owned(entry.doc)),
                })
                .collect())
        }
        other => Err((ErrorCode::InvalidRequest, format!("resource type {other} is not known"))),
    }
}

fn topic_config(entry: TopicConfigEntry, wanted: Wanted) -> DescribeConfigsResourceResult<'static> {
    let synonyms = entry.synonyms.into_iter().filter(|_| wanted.synonyms);
    DescribeConfigsResourceResult {
        name: Cow::Borrowed(entry.key.name),
        value: Some(Cow::Owned(entry.value)),
        read_only: entry.key.is_fixed_at_creation,
        config_source: entry.source.code(),
        is_sensitive: false,
        synonyms: synonyms
            .map(|synonym| DescribeConfigsSynonym {
                name: Cow::Borrowed(synonym.name),
                value: Some(Cow::Owned(synonym.value)),
                source: synonym.source.code(),
            })
            .collect(),
        config_type: entry.key.config_type.code(),
        documentation: wanted.documentation.then(|| Cow::Owned(entry.key.doc())),
    }
}

/// The numbers on the wire are Kafka's `DescribeConfigsResponse.ConfigSource`.
const _: () = assert!(ConfigSource::Default.code() == 5 && ConfigSource::Topic.code() == 1);
