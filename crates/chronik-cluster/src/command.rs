//! Commands of the metadata log. A command carries its full result (ids, replicas, epochs), so
//! that applying it needs nothing but the image. Field numbers are the upgrade story: they are
//! never reused, unknown fields are kept by older releases' logs.

use chronik_common::{TopicId, Uuid};
use prost::Message;

/// One entry of the metadata log.
#[derive(Clone, PartialEq, Message)]
pub struct MetadataCommand {
    /// What changes; `None` is a command of a newer release.
    #[prost(oneof = "Change", tags = "1, 2, 3, 4")]
    pub change: Option<Change>,
}

/// What a command changes.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Change {
    /// A node starts (again).
    #[prost(message, tag = "1")]
    RegisterNode(RegisterNode),
    /// A topic comes into being, with leaders.
    #[prost(message, tag = "2")]
    CreateTopic(CreateTopic),
    /// A topic goes, with its data.
    #[prost(message, tag = "3")]
    DeleteTopic(DeleteTopic),
    /// A node takes a block of producer ids.
    #[prost(message, tag = "4")]
    AllocateProducerIds(AllocateProducerIds),
}

impl From<Change> for MetadataCommand {
    fn from(change: Change) -> Self {
        Self { change: Some(change) }
    }
}

/// A node starts; its incarnation is the position of this command in the log.
#[derive(Clone, PartialEq, Message)]
pub struct RegisterNode {
    /// Id of the node.
    #[prost(int32, tag = "1")]
    pub node_id: i32,
    /// Id of its data directory's life, 16 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub disk_id: Vec<u8>,
    /// Name clients reach it under.
    #[prost(string, tag = "3")]
    pub host: String,
    /// Port clients reach it under.
    #[prost(uint32, tag = "4")]
    pub port: u32,
    /// Rack, empty if none.
    #[prost(string, tag = "5")]
    pub rack: String,
}

/// A topic with all of its partitions placed.
#[derive(Clone, PartialEq, Message)]
pub struct CreateTopic {
    /// Legal topic name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its id, 16 bytes, never used before.
    #[prost(bytes = "vec", tag = "2")]
    pub topic_id: Vec<u8>,
    /// Partitions 0, 1, 2, ...
    #[prost(message, repeated, tag = "3")]
    pub partitions: Vec<NewPartition>,
    /// Validated configs that differ from the defaults.
    #[prost(message, repeated, tag = "4")]
    pub configs: Vec<ChangedConfig>,
}

/// Where one new partition lives.
#[derive(Clone, PartialEq, Message)]
pub struct NewPartition {
    /// Nodes that hold a replica; the first is the preferred leader.
    #[prost(int32, repeated, tag = "1")]
    pub replicas: Vec<i32>,
    /// The first leader.
    #[prost(int32, tag = "2")]
    pub leader: i32,
}

/// One config key and its value.
#[derive(Clone, PartialEq, Message)]
pub struct ChangedConfig {
    /// Kafka's key.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Its value as text.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// A topic is deleted by id, so that a new topic of the same name is never hit.
#[derive(Clone, PartialEq, Message)]
pub struct DeleteTopic {
    /// The topic, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub topic_id: Vec<u8>,
}

/// A node takes the next `count` producer ids.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct AllocateProducerIds {
    /// The node.
    #[prost(int32, tag = "1")]
    pub node_id: i32,
    /// How many.
    #[prost(int64, tag = "2")]
    pub count: i64,
}

/// Reads a 16-byte id of a command; anything else is `None`.
pub(crate) fn read_id(bytes: &[u8]) -> Option<TopicId> {
    bytes.try_into().ok().map(Uuid)
}
