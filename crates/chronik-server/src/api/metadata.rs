//! Metadata (key 3), versions 0-13.
//!
//! - Null topics = all (v1+), empty = none; in version 0 empty = all.
//! - Topics by id (v12+): unknown UNKNOWN_TOPIC_ID. Versions 10 and 11 have ids and cannot be
//!   asked by them: INVALID_REQUEST.
//! - A missing topic is created if the request, the configuration and its name allow; the answer
//!   then waits until it is usable, as part of this request.
//! - Leader epochs never go back; without a leader LEADER_NOT_AVAILABLE and leader -1.
//! - Every broker is told under its advertised address.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use chronik_cluster::{MetadataImage, PartitionRow, Topic, check_topic_name};
use chronik_common::{ErrorCode, NodeId};
use chronik_protocol::metadata::{
    MetadataRequest, MetadataResponse, MetadataResponseBroker, MetadataResponsePartition,
    MetadataResponseTopic,
};
use chronik_protocol::{EncodeError, OutputBuffer, Reader};

use super::{CLUSTER_OPERATIONS, CloseReason, RequestId, TOPIC_OPERATIONS, answer_later, error};
use crate::net::connection::Connection;
use crate::node::Node;
use crate::shard::Shard;

/// Versions that carry the cluster's authorized operations.
const CLUSTER_OPERATIONS_VERSIONS: std::ops::RangeInclusive<i16> = 8..=10;
/// "Not asked for" in an authorized-operations field.
const OPERATIONS_OMITTED: i32 = i32::MIN;
/// First version in which an empty list of topics means none.
const EMPTY_IS_NONE_VERSION: i16 = 1;
/// First version that may ask by topic id, and be answered without a topic's name.
const BY_ID_VERSION: i16 = 12;

/// One topic asked for.
enum Asked {
    Name(String),
    Id(chronik_common::TopicId),
}

struct Query {
    topics: Option<Vec<Asked>>,
    may_create: bool,
    wants_cluster_operations: bool,
    wants_topic_operations: bool,
}

/// Says which brokers and topics exist.
pub(crate) fn handle(
    shard: &Rc<Shard>,
    connection: &Rc<Connection>,
    id: RequestId,
    body: &[u8],
) -> Result<(), CloseReason> {
    let request =
        MetadataRequest::decode(&mut Reader::new(body), id.version).map_err(CloseReason::Decode)?;
    let query = Query::new(request, id.version);
    let image = shard.node.metadata.image();
    let missing = query.missing(&image, &shard.node);
    if missing.is_empty() {
        let node = Arc::clone(&shard.node);
        return connection.answer(|out| answer(out, id, &node, &image, &query));
    }
    let node = Arc::clone(&shard.node);
    answer_later(shard, connection, async move {
        for name in missing {
            // A failure shows in the answer: the topic is still missing.
            let _ = node.auto_create(&name).await;
        }
        let mut out = OutputBuffer::new();
        answer(&mut out, id, &node, &node.metadata.image(), &query)?;
        Ok(out)
    });
    Ok(())
}

impl Query {
    fn new(request: MetadataRequest<'_>, version: i16) -> Self {
        let topics = request.topics.map(|topics| {
            topics
                .into_iter()
                .map(|topic| match topic.name {
                    Some(name) if topic.topic_id.is_zero() => Asked::Name(name.into_owned()),
                    Some(_) | None => Asked::Id(topic.topic_id),
                })
                .collect::<Vec<_>>()
        });
        let is_all = version < EMPTY_IS_NONE_VERSION && topics.as_ref().is_some_and(Vec::is_empty);
        Self {
            topics: topics.filter(|_| !is_all),
            may_create: request.allow_auto_topic_creation,
            wants_cluster_operations: request.include_cluster_authorized_operations,
            wants_topic_operations: request.include_topic_authorized_operations,
        }
    }

    /// Names to create before the answer.
    fn missing(&self, image: &MetadataImage, node: &Node) -> Vec<String> {
        if !self.may_create || !node.config.topic.auto_create {
            return Vec::new();
        }
        let names = self.topics.iter().flatten().filter_map(|asked| match asked {
            Asked::Name(name) => Some(name),
            Asked::Id(_) => None,
        });
        let mut missing: Vec<String> = names
            .filter(|name| image.topic(name).is_none() && check_topic_name(name).is_ok())
            .cloned()
            .collect();
        missing.sort_unstable();
        missing.dedup();
        missing
    }
}

fn answer(
    out: &mut OutputBuffer,
    id: RequestId,
    node: &Node,
    image: &MetadataImage,
    query: &Query,
) -> Result<(), EncodeError> {
    let operations = |wanted, all| if wanted { all } else { OPERATIONS_OMITTED };
    let topic_operations = operations(query.wants_topic_operations, TOPIC_OPERATIONS);
    let topics = match &query.topics {
        None => image.topics().map(|topic| known(topic, node, topic_operations)).collect(),
        Some(asked) => asked
            .iter()
            .map(|asked| find(asked, image, node, topic_operations, id.version))
            .collect(),
    };
    let brokers = image.nodes.values().map(|broker| MetadataResponseBroker {
        node_id: broker.id.0,
        host: Cow::Borrowed(broker.host.as_str()),
        port: i32::from(broker.port),
        rack: broker.rack.as_deref().map(Cow::Borrowed),
    });
    let mut response = MetadataResponse {
        brokers: brokers.collect(),
        cluster_id: Some(Cow::Borrowed(node.cluster_id())),
        controller_id: node.id().0,
        topics,
        ..MetadataResponse::default()
    };
    if CLUSTER_OPERATIONS_VERSIONS.contains(&id.version) {
        response.cluster_authorized_operations =
            operations(query.wants_cluster_operations, CLUSTER_OPERATIONS);
    }
    id.encode(out, |out| response.encode(out, id.version))
}

fn known<'a>(topic: &'a Arc<Topic>, node: &Node, operations: i32) -> MetadataResponseTopic<'a> {
    let partitions = topic.partitions.iter().enumerate().map(|(index, row)| {
        let index = i32::try_from(index).expect("partitions are counted in i32");
        partition(index, row, node)
    });
    MetadataResponseTopic {
        error_code: ErrorCode::None.code(),
        name: Some(Cow::Borrowed(&*topic.name)),
        topic_id: topic.id,
        is_internal: false,
        partitions: partitions.collect(),
        topic_authorized_operations: operations,
    }
}

fn partition(index: i32, row: &PartitionRow, node: &Node) -> MetadataResponsePartition {
    let ids = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect::<Vec<_>>();
    let error = if row.leader.is_some() { ErrorCode::None } else { ErrorCode::LeaderNotAvailable };
    let offline = row.replicas.iter().filter(|replica| **replica != node.id());
    MetadataResponsePartition {
        error_code: error.code(),
        partition_index: index,
        leader_id: row.leader.unwrap_or(NodeId::NONE).0,
        leader_epoch: row.leader_epoch.0,
        replica_nodes: ids(&row.replicas),
        isr_nodes: ids(&row.isr),
        offline_replicas: offline.map(|replica| replica.0).collect(),
    }
}

fn find<'a>(
    asked: &'a Asked,
    image: &'a MetadataImage,
    node: &Node,
    operations: i32,
    version: i16,
) -> MetadataResponseTopic<'a> {
    let (found, name, topic_id, missing) = match asked {
        Asked::Name(name) => {
            let missing = match check_topic_name(name) {
                Err(invalid) => error::of_topic_name(invalid),
                Ok(()) if image.colliding_topic(name).is_some() => ErrorCode::InvalidTopicException,
                Ok(()) => ErrorCode::UnknownTopicOrPartition,
            };
            let name = Some(Cow::Borrowed(name.as_str()));
            (image.topic(name.as_deref().unwrap_or_default()), name, Default::default(), missing)
        }
        Asked::Id(id) if version < BY_ID_VERSION => {
            (None, Some(Cow::Borrowed("")), *id, ErrorCode::InvalidRequest)
        }
        Asked::Id(id) => (image.topic_by_id(*id), None, *id, ErrorCode::UnknownTopicId),
    };
    found.map_or_else(
        || MetadataResponseTopic {
            error_code: missing.code(),
            name,
            topic_id,
            topic_authorized_operations: OPERATIONS_OMITTED,
            ..MetadataResponseTopic::default()
        },
        |topic| known(topic, node, operations),
    )
}
