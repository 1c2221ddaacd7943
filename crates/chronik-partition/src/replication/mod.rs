//! Which set of replicas decides that a record is committed. One trait, one implementation per
//! flavour, chosen when a partition opens; invisible elsewhere.

mod sole_replica;

use chronik_common::Offset;

pub(crate) use sole_replica::SoleReplica;

/// The rule that moves the high watermark.
pub(crate) trait Replication: Send {
    /// This replica's log is durable up to `flushed`, exclusive. Returns the high watermark,
    /// which never goes back.
    fn on_local_flush(&mut self, flushed: Offset) -> Offset;
    /// First offset not yet visible to consumers.
    fn high_watermark(&self) -> Offset;
    /// Replicas that count for acks=all now.
    fn in_sync_replicas(&self) -> usize;
    /// Replicas assigned.
    fn replication_factor(&self) -> usize;
}
