//! Fencing numbers. Each only ever grows; a holder of a smaller one is out of date.

use std::fmt;

/// Kafka's leader epoch of a partition, which is also Raft's term and the `epoch` of a frame.
///
/// Never goes backwards on a replica. On the wire "unknown" is -1 ([`LeaderEpoch::NONE`]).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct LeaderEpoch(pub i32);

impl LeaderEpoch {
    /// "Unknown" on the Kafka wire.
    pub const NONE: Self = Self(-1);

    /// The next epoch.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("a partition sees fewer than 2^31 leader changes"))
    }
}

impl fmt::Display for LeaderEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Version of one partition's row in the metadata image: grows with every change of the row.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct PartitionEpoch(pub i32);

impl PartitionEpoch {
    /// The next version of the row.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("a partition row changes fewer than 2^31 times"))
    }
}

/// One run of one node (Kafka: broker epoch), granted when the node registers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Incarnation(pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
