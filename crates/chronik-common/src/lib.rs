//! Vocabulary shared by every Chronik crate: ids, offsets, epochs, Kafka error codes, and the
//! traits through which time and randomness enter the engines.
//!
//! This crate does no I/O and knows no async runtime. Everything here is a value or a trait.

mod clock;
mod epoch;
mod error_code;
mod ids;
mod offset;
pub mod parallel;
mod rng;

pub use clock::{Clock, MonotonicMs, SystemClock, WallMs};
pub use epoch::{Incarnation, LeaderEpoch, PartitionEpoch};
pub use error_code::{ErrorCode, UnknownErrorCode};
pub use ids::{InvalidUuid, NodeId, PartitionIndex, ProducerId, TopicId, TopicPartition, Uuid};
pub use offset::{Lsn, Offset};
pub use rng::{OsRng, Rng, SeededRng};

/// Simulated time and randomness for tests of other crates.
pub mod test_support {
    pub use crate::clock::ManualClock;
}
