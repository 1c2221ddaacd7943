//! CreateTopics (key 19), versions 2-7.
//!
//! - -1 partitions or replicas (v4+, KIP-464) take the defaults; so does null or absent.
//! - Illegal or colliding names INVALID_TOPIC_EXCEPTION, existing ones TOPIC_ALREADY_EXISTS,
//!   duplicates in one request INVALID_REQUEST, configs INVALID_CONFIG with every problem named.
//! - `validate_only` answers as if, and changes nothing.
//! - The answer comes after the topic can be used on this node, or REQUEST_TIMED_OUT.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use chronik_cluster::{MetadataImage, Topic, TopicSpec, check_topic_name};
use chronik_common::{ErrorCode, Uuid};
use chronik_config::TopicConfig;
use chronik_protocol::create_topics::{
    CreatableTopic, CreatableTopicConfigs, CreatableTopicResult, CreateTopicsRequest,
    CreateTopicsResponse,
};
use chronik_protocol::{OutputBuffer, Reader};

use super::{CloseReason, RequestId, answer_later, error};
use crate::net::connection::Connection;
use crate::node::{CreateError, Node};
use crate::shard::Shard;

/// Longest wait for a topic.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// A topic that passed the checks, or the answer that refuses it.
enum Checked {
    Spec(TopicSpec),
    Refused(CreatableTopicResult<'static>),
}

/// Creates topics.
pub(crate) fn handle(
    shard: &Rc<Shard>,
    connection: &Rc<Connection>,
    id: RequestId,
    body: &[u8],
) -> Result<(), CloseReason> {
    let request = CreateTopicsRequest::decode(&mut Reader::new(body), id.version)
        .map_err(CloseReason::Decode)?;
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for topic in &request.topics {
        *counts.entry(&topic.name).or_default() += 1;
    }
    let image = shard.node.metadata.image();
    let mut checked = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        if counts[&*topic.name] > 1 {
            let message = "the request names this topic more than once".to_owned();
            checked.push(Checked::Refused(refused(
                &topic.name,
                ErrorCode::InvalidRequest,
                message,
            )));
        } else {
            checked.push(check(topic, &shard.node, &image));
        }
    }
    let is_dry_run = request.validate_only;
    let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let node = Arc::clone(&shard.node);
    answer_later(shard, connection, async move {
        let mut topics = Vec::with_capacity(checked.len());
        for one in checked {
            topics.push(match one {
                Checked::Refused(result) => result,
                Checked::Spec(spec) => create(&node, spec, is_dry_run, timeout.min(WAIT_MAX)).await,
            });
        }
        let response = CreateTopicsResponse { topics, ..CreateTopicsResponse::default() };
        let mut out = OutputBuffer::new();
        id.encode(&mut out, |out| response.encode(out, id.version))?;
        Ok(out)
    });
    Ok(())
}

fn check(topic: &CreatableTopic<'_>, node: &Node, image: &MetadataImage) -> Checked {
    let refuse = |code, message| Checked::Refused(refused(&topic.name, code, message));
    if let Err(invalid) = check_topic_name(&topic.name) {
        return refuse(error::of_topic_name(invalid), invalid.to_string());
    }
    if image.topic(&topic.name).is_some() {
        let message = format!("topic {} exists", topic.name);
        return refuse(ErrorCode::TopicAlreadyExists, message);
    }
    if let Some(other) = image.colliding_topic(&topic.name) {
        let message = format!("the name collides with topic {} ('.' against '_')", other.name);
        return refuse(ErrorCode::InvalidTopicException, message);
    }
    let has_assignments = !topic.assignments.is_empty();
    if has_assignments && (topic.num_partitions != -1 || topic.replication_factor != -1) {
        let message = "with replica assignments, partitions and replication factor must be -1";
        return refuse(ErrorCode::InvalidRequest, message.to_owned());
    }
    let configs: BTreeMap<String, String> = topic
        .configs
        .iter()
        .filter_map(|config| Some((config.name.to_string(), config.value.as_ref()?.to_string())))
        .collect();
    if let Err(problems) = TopicConfig::from_overrides(&node.config.topic_defaults(), &configs) {
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        return refuse(ErrorCode::InvalidConfig, problems.join("; "));
    }
    let defaults = node.topic_spec(&topic.name);
    let assignments = topic
        .assignments
        .iter()
        .map(|assignment| (assignment.partition_index, assignment.broker_ids.clone()));
    let spec = TopicSpec {
        partitions: Some(topic.num_partitions)
            .filter(|count| *count != -1)
            .unwrap_or(defaults.partitions),
        replication_factor: Some(topic.replication_factor)
            .filter(|factor| *factor != -1)
            .unwrap_or(defaults.replication_factor),
        assignments: assignments.collect(),
        configs,
        ..defaults
    };
    if spec.assignments.len() != topic.assignments.len() {
        let message = "a partition is assigned twice".to_owned();
        return refuse(ErrorCode::InvalidReplicaAssignment, message);
    }
    match node.place(&spec, Uuid::ZERO) {
        Ok(_) => Checked::Spec(spec),
        Err(refusal) => refuse(error::of_placement(&refusal), refusal.to_string()),
    }
}

async fn create(
    node: &Node,
    spec: TopicSpec,
    is_dry_run: bool,
    timeout: Duration,
) -> CreatableTopicResult<'static> {
    if is_dry_run {
        let partitions = match spec.assignments.len() {
            0 => spec.partitions,
            assigned => i32::try_from(assigned).unwrap_or(i32::MAX),
        };
        let factor = spec
            .assignments
            .values()
            .next()
            .map_or(spec.replication_factor, |replicas| replicas.len() as i16);
        return created(node, &spec.name, Uuid::ZERO, partitions, factor, &spec.configs);
    }
    let name = spec.name.clone();
    match tokio::time::timeout(timeout, node.create_topic(spec)).await {
        Ok(Ok(topic)) => describe(node, &topic),
        Ok(Err(CreateError::Placement(refusal))) => {
            refused(&name, error::of_placement(&refusal), refusal.to_string())
        }
        Ok(Err(CreateError::Propose(failure))) => {
            refused(&name, error::of_propose(failure), failure.to_string())
        }
        Err(_) => {
            let message = "the topic may still be created".to_owned();
            refused(&name, ErrorCode::RequestTimedOut, message)
        }
    }
}

fn describe(node: &Node, topic: &Topic) -> CreatableTopicResult<'static> {
    let partitions = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
    let factor = topic.partitions.first().map_or(0, |row| row.replicas.len() as i16);
    created(node, &topic.name, topic.id, partitions, factor, &topic.configs)
}

fn created(
    node: &Node,
    name: &str,
    topic_id: Uuid,
    num_partitions: i32,
    replication_factor: i16,
    configs: &BTreeMap<String, String>,
) -> CreatableTopicResult<'static> {
    let described = TopicConfig::describe(&node.config.topic_defaults(), configs);
    let configs = described.into_iter().map(|entry| CreatableTopicConfigs {
        name: Cow::Borrowed(entry.key.name),
        value: Some(Cow::Owned(entry.value)),
        read_only: entry.key.is_fixed_at_creation,
        config_source: entry.source.code(),
        is_sensitive: false,
    });
    CreatableTopicResult {
        name: Cow::Owned(name.to_owned()),
        topic_id,
        error_code: ErrorCode::None.code(),
        num_partitions,
        replication_factor,
        configs: Some(configs.collect()),
        ..CreatableTopicResult::default()
    }
}

fn refused(name: &str, code: ErrorCode, message: String) -> CreatableTopicResult<'static> {
    CreatableTopicResult {
        name: Cow::Owned(name.to_owned()),
        error_code: code.code(),
        error_message: Some(Cow::Owned(message)),
        num_partitions: -1,
        replication_factor: -1,
        configs: Some(Vec::new()),
        ..CreatableTopicResult::default()
    }
}
