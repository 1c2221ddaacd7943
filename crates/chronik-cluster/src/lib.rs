//! Metadata of a cluster: which topics, partitions, leaders and nodes exist.
//!
//! ```text
//! request -> placement (decides everything) -> MetadataCommand -> log, committed
//!         -> state_machine::apply (pure)    -> MetadataImage   -> readers
//! ```
//!
//! Every change is a committed command before it is applied or answered, and applying is a total,
//! deterministic function: no clock, no randomness, no lookup. The log that carries commands is
//! the caller's business; so are the partitions' data and client sockets.

mod command;
mod image;
mod placement;
mod state_machine;
mod topic_name;

pub use command::{
    AllocateProducerIds, Change, ChangedConfig, CreateTopic, DeleteTopic, MetadataCommand,
    NewPartition, RegisterNode,
};
pub use image::{MetadataImage, Node, PartitionRow, Topic};
pub use placement::{PlacementError, TopicSpec, place_topic};
pub use state_machine::{Applied, Rejection, apply};
pub use topic_name::{InvalidTopicName, check_topic_name};
