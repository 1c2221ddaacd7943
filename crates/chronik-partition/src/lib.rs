//! One partition on this node: who may append, what is acknowledged, what consumers see.
//!
//! ```text
//! append -> producer state -> offset, epoch patched -> log -> waiter registered -> submit
//! lane: Flushed -> on_flushed -> replication flavour -> high watermark -> acks, fetch wake-ups
//! ```
//!
//! All state of a partition lies behind one short mutex that is never held over a sync. Waiters
//! are registered before anybody can complete them. The high watermark has one writer, the
//! replication flavour; the numbers that other threads look at are published as atomics.
//!
//! Knows no Kafka request types and no sockets.

mod acks;
mod append;
mod error;
mod invariants;
mod partition;
mod producer_state;
mod read;
mod registry;
mod replication;
mod retention;
mod topic_settings;

pub use acks::{Completion, Token};
pub use append::{Acks, Appended, BatchSource, PreparedBatch};
pub use error::{AckError, AppendError, ReadError};
pub use partition::{Partition, PartitionNumbers, StorageFailureHook};
pub use producer_state::ProducerError;
pub use read::{EpochEnd, FetchRead, TimestampedOffset};
pub use registry::{Registry, TopicHandle};
pub use topic_settings::TopicSettings;
