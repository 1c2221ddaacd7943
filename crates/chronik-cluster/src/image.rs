//! The image: everything the metadata log says, as one immutable value.
//!
//! Readers hold an `Arc` of it and never wait. Applying a command makes a new image that shares
//! all topics the command did not touch. Its version is the position of the last command in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use chronik_common::{
    Incarnation, LeaderEpoch, Lsn, NodeId, PartitionEpoch, PartitionIndex, TopicId, Uuid,
};
use prost::Message;

/// A registered node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// Name clients reach it under.
    pub host: String,
    /// Port clients reach it under.
    pub port: u16,
    /// Rack, if it has one.
    pub rack: Option<String>,
    /// Its data directory's life.
    pub disk_id: Uuid,
    /// Position of its last registration.
    pub incarnation: Incarnation,
}

/// One partition's row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionRow {
    /// Nodes that hold a replica; the first is the preferred leader.
    pub replicas: Vec<NodeId>,
    /// Replicas that count for acks=all.
    pub isr: Vec<NodeId>,
    /// The leader; `None` while the partition is offline.
    pub leader: Option<NodeId>,
    /// Grows at every change of leader.
    pub leader_epoch: LeaderEpoch,
    /// Grows at every change of the row.
    pub partition_epoch: PartitionEpoch,
}

/// One topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Topic {
    /// Its id.
    pub id: TopicId,
    /// Its name.
    pub name: Arc<str>,
    /// Partitions 0, 1, 2, ...
    pub partitions: Vec<PartitionRow>,
    /// Configs that differ from the defaults.
    pub configs: BTreeMap<String, String>,
}

impl Topic {
    /// The row of a partition.
    #[must_use]
    pub fn partition(&self, index: PartitionIndex) -> Option<&PartitionRow> {
        self.partitions.get(usize::try_from(index.0).ok()?)
    }
}

/// Everything the metadata log says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MetadataImage {
    /// Position of the last command in the image.
    pub version: Lsn,
    /// Registered nodes.
    pub nodes: BTreeMap<NodeId, Arc<Node>>,
    /// The first producer id nobody has.
    pub next_producer_id: i64,
    pub(crate) topics: BTreeMap<Arc<str>, Arc<Topic>>,
    pub(crate) names: BTreeMap<TopicId, Arc<str>>,
}

impl MetadataImage {
    /// The topic of that name.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(name)
    }

    /// The topic of that id.
    #[must_use]
    pub fn topic_by_id(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.topics.get(self.names.get(&id)?)
    }

    /// All topics in order of name.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.topics.values()
    }

    /// A topic whose name differs from `name` only by `.` against `_`: their metric names would
    /// collide (`org.apache.kafka.common.internals.Topic`).
    #[must_use]
    pub fn colliding_topic(&self, name: &str) -> Option<&Arc<Topic>> {
        let fold = |name: &str| name.replace('.', "_");
        let folded = fold(name);
        self.topics.values().find(|topic| &*topic.name != name && fold(&topic.name) == folded)
    }

    /// The image as bytes, for a snapshot of the metadata log.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let nodes = self.nodes.values().map(|node| StoredNode {
            id: node.id.0,
            host: node.host.clone(),
            port: u32::from(node.port),
            rack: node.rack.clone().unwrap_or_default(),
            disk_id: node.disk_id.0.to_vec(),
            incarnation: node.incarnation.0,
        });
        let topics = self.topics.values().map(|topic| StoredTopic {
            id: topic.id.0.to_vec(),
            name: topic.name.to_string(),
            partitions: topic.partitions.iter().map(StoredPartition::from).collect(),
            configs: topic.configs.clone().into_iter().collect(),
        });
        StoredImage {
            version: self.version.0,
            next_producer_id: self.next_producer_id,
            nodes: nodes.collect(),
            topics: topics.collect(),
        }
        .encode_to_vec()
    }

    /// An image from [`MetadataImage::encode`]; `None` if the bytes are not one.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let stored = StoredImage::decode(bytes).ok()?;
        let mut image = Self {
            version: Lsn(stored.version),
            next_producer_id: stored.next_producer_id,
            ..Self::default()
        };
        for node in stored.nodes {
            let node = Node {
                id: NodeId(node.id),
                host: node.host,
                port: u16::try_from(node.port).ok()?,
                rack: Some(node.rack).filter(|rack| !rack.is_empty()),
                disk_id: Uuid(node.disk_id.as_slice().try_into().ok()?),
                incarnation: Incarnation(node.incarnation),
            };
            image.nodes.insert(node.id, Arc::new(node));
        }
        for topic in stored.topics {
            let topic = Topic {
                id: Uuid(topic.id.as_slice().try_into().ok()?),
                name: topic.name.into(),
                partitions: topic.partitions.iter().map(PartitionRow::from).collect(),
                configs: topic.configs.into_iter().collect(),
            };
            image.names.insert(topic.id, Arc::clone(&topic.name));
            image.topics.insert(Arc::clone(&topic.name), Arc::new(topic));
        }
        Some(image)
    }
}

#[derive(Clone, PartialEq, Message)]
struct StoredImage {
    #[prost(uint64, tag = "1")]
    version: u64,
    #[prost(int64, tag = "2")]
    next_producer_id: i64,
    #[prost(message, repeated, tag = "3")]
    nodes: Vec<StoredNode>,
    #[prost(message, repeated, tag = "4")]
    topics: Vec<StoredTopic>,
}

#[derive(Clone, PartialEq, Message)]
struct StoredNode {
    #[prost(int32, tag = "1")]
    id: i32,
    #[prost(string, tag = "2")]
    host: String,
    #[prost(uint32, tag = "3")]
    port: u32,
    #[prost(string, tag = "4")]
    rack: String,
    #[prost(bytes = "vec", tag = "5")]
    disk_id: Vec<u8>,
    #[prost(uint64, tag = "6")]
    incarnation: u64,
}

#[derive(Clone, PartialEq, Message)]
struct StoredTopic {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, repeated, tag = "3")]
    partitions: Vec<StoredPartition>,
    #[prost(btree_map = "string, string", tag = "4")]
    configs: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
struct StoredPartition {
    #[prost(int32, repeated, tag = "1")]
    replicas: Vec<i32>,
    #[prost(int32, repeated, tag = "2")]
    isr: Vec<i32>,
    #[prost(int32, optional, tag = "3")]
    leader: Option<i32>,
    #[prost(int32, tag = "4")]
    leader_epoch: i32,
    #[prost(int32, tag = "5")]
    partition_epoch: i32,
}

impl From<&PartitionRow> for StoredPartition {
    fn from(row: &PartitionRow) -> Self {
        Self {
            replicas: row.replicas.iter().map(|node| node.0).collect(),
            isr: row.isr.iter().map(|node| node.0).collect(),
            leader: row.leader.map(|node| node.0),
            leader_epoch: row.leader_epoch.0,
            partition_epoch: row.partition_epoch.0,
        }
    }
}

impl From<&StoredPartition> for PartitionRow {
    fn from(row: &StoredPartition) -> Self {
        Self {
            replicas: row.replicas.iter().copied().map(NodeId).collect(),
            isr: row.isr.iter().copied().map(NodeId).collect(),
            leader: row.leader.map(NodeId),
            leader_epoch: LeaderEpoch(row.leader_epoch),
            partition_epoch: PartitionEpoch(row.partition_epoch),
        }
    }
}
