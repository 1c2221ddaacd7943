//! `[raft]`: timing and sizes of consensus and of replication between nodes.

use crate::key::section;
use crate::kind::{Choice, MIB, Named, Switch, bytes, millis, number};

section! {
    /// Elections, heartbeats, snapshots and calls between nodes.
    RaftConfig at "raft", config => config.raft, {
        /// Silence after which a node asks for an election. Lower values find a dead leader
        /// sooner and take a busy one for dead; three heartbeats are the minimum.
        election_timeout_ms: u64 = 1_000, millis(100, 60_000), reserved();

        /// Time between heartbeats of a leader. Short intervals cost a message per node pair each;
        /// long ones leave no room for a lost message before the election timeout, of which this
        /// can be a third at most.
        heartbeat_interval_ms: u64 = 100, millis(10, 10_000), reserved();

        /// Size of log, in MiB, that makes a snapshot due. Small values write snapshots all the
        /// time; large ones make a node that starts read more log.
        snapshot_max_log_size_mb: u64 = 64, number(1, 65_536),
            aliases(&["raft.snapshots.max_log_size_mb"]),
            variables(&["CHRONIK_RAFT_SNAPSHOT_SIZE_MB"]), reserved();

        /// Entries that must lie between two snapshots, so that a burst of large entries does
        /// not make one snapshot after the other. Very high values keep logs of large entries
        /// longer than the size above says.
        snapshot_min_interval_entries: u64 = 10_000, number(1, 1_000_000_000),
            aliases(&["raft.snapshots.min_interval_entries"]), reserved();

        /// Compression of snapshots, `none` or `zstd`. Snapshots are small and compress well;
        /// without compression they are larger to send and cheaper to write.
        snapshot_compression: SnapshotCompression = SnapshotCompression::Zstd, Choice,
            aliases(&["raft.snapshots.compression"]), reserved();

        /// Deadline of one call between nodes. Below the round trip of the slowest link every
        /// call fails; a long deadline delays the retry after a lost answer.
        rpc_timeout_ms: u64 = 5_000, millis(100, 60_000), reserved();

        /// Append messages on the way to one node before the leader waits for an answer. 1 waits
        /// a round trip per message; large values let a slow node hold that many messages in the
        /// leader's memory.
        max_inflight_messages: u64 = 256, number(1, 65_536), reserved();
    }
    nested {
        /// `[raft.advanced]`.
        advanced: RaftAdvancedConfig;
    }
}

section! {
    /// Lag limits, leadership transfer and batching between nodes.
    RaftAdvancedConfig at "raft.advanced", config => config.raft.advanced, {
        /// Entries a replica may be behind and still count as caught up. Low values make replicas
        /// leave and return under bursts; high ones count a replica as caught up that would lose
        /// much time before it could lead.
        replica_lag_max_entries: u64 = 1_000, number(1, 1_000_000_000), reserved();

        /// Time a replica may be behind before it leaves the in-sync replicas. Until then writes
        /// with acks=all wait for it, so this bounds the pause that a stuck replica causes; below
        /// the pauses of a healthy disk it makes replicas leave for nothing.
        replica_lag_max_ms: u64 = 10_000, millis(100, 3_600_000), reserved();

        /// Move leaderships away before a clean stop. Off, clients wait for an election of every
        /// partition the node led.
        enable_leadership_transfer: bool = true, Switch, reserved();

        /// Longest wait of a stopping node for its leaderships to move; what is left then moves by
        /// election.
        leadership_transfer_timeout_ms: u64 = 5_000, millis(100, 600_000), reserved();

        /// Send entries that are ready together in one message. Off, each entry costs a message,
        /// which is of use only to study the protocol.
        batch_append_entries: bool = true, Switch, reserved();

        /// Upper bound of one append message in bytes; one whole batch always fits. Large messages
        /// delay heartbeats behind them on slow links, small ones cost more calls.
        max_append_entries_size: u64 = MIB, bytes(1 << 10, 64 * MIB), reserved();
    }
}

/// Compression of snapshots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SnapshotCompression {
    /// Stored as they are.
    None,
    /// Zstandard.
    Zstd,
}

impl Named for SnapshotCompression {
    const NAMES: &'static [(&'static str, Self)] = &[("none", Self::None), ("zstd", Self::Zstd)];
}
