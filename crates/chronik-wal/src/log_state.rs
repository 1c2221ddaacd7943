//! Small durable facts about logs: who they are (`partition.meta`), their opaque state and what
//! is proven durable (`hardstate`), and state snapshots (`snapshot_{lsn}.zst`).

use std::io::Read as _;
use std::path::Path;

use chronik_common::{LeaderEpoch, Lsn, Offset};
use prost::Message;

use crate::envelope;
use crate::epoch_history::{EpochHistory, EpochStart};
use crate::error::{DamageReason, WalError};
use crate::invariants::is_possible_snapshot;
use crate::io::{Disk, read_file, replace_file};
use crate::layout::{parse_snapshot_name, snapshot_name};

/// Magic of `partition.meta`.
pub const PARTITION_META_MAGIC: [u8; 4] = *b"CHP1";
/// Magic of `hardstate`.
pub const HARDSTATE_MAGIC: [u8; 4] = *b"CHH1";
/// Magic of a state snapshot, before compression.
const SNAPSHOT_MAGIC: [u8; 4] = *b"CHN1";

/// Largest snapshot a reader unpacks, in bytes.
const SNAPSHOT_BYTES_MAX: u64 = 256 << 20;
const ZSTD_LEVEL: i32 = 3;
/// Newest snapshots kept per log.
const NEWEST_SNAPSHOTS_KEPT: usize = 2;

/// The file `partition.meta`: identity of a partition directory.
#[derive(Clone, PartialEq, Message)]
pub struct PartitionMeta {
    /// Topic name.
    #[prost(string, tag = "1")]
    pub topic: String,
    /// Topic id, 16 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub topic_id: Vec<u8>,
    /// Partition number.
    #[prost(int32, tag = "3")]
    pub partition: i32,
    /// Local number of the log on this node.
    #[prost(uint32, tag = "4")]
    pub log_id: u32,
    /// Replication mode: 1 isr, 2 raft.
    #[prost(uint32, tag = "5")]
    pub replication_mode: u32,
    /// Id of this replica, unique per partition, node and disk life.
    #[prost(uint64, tag = "6")]
    pub replica_id: u64,
    /// Format level of the directory.
    #[prost(uint32, tag = "7")]
    pub format_level: u32,
}

/// The file `hardstate`: states of all logs and what is proven durable.
#[derive(Clone, PartialEq, Message)]
pub struct HardState {
    /// One row per log.
    #[prost(message, repeated, tag = "1")]
    pub rows: Vec<HardStateRow>,
    /// Log ids below this were given out.
    #[prost(uint32, tag = "2")]
    pub next_log_id: u32,
    /// One row per lane.
    #[prost(message, repeated, tag = "3")]
    pub lanes: Vec<LaneRow>,
}

/// One lane's row in `hardstate`: what the bytes of its ring alone cannot prove.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct LaneRow {
    /// Number of the lane.
    #[prost(uint32, tag = "1")]
    pub lane: u32,
    /// Every group of the ring carries it.
    #[prost(uint32, tag = "2")]
    pub ring_nonce: u32,
    /// Groups below this sequence are not needed any more.
    #[prost(uint64, tag = "3")]
    pub oldest_needed: u64,
    /// Files of the ring, each at least `ring_file_bytes` long.
    #[prost(uint32, tag = "4")]
    pub ring_files: u32,
    /// Bytes per file.
    #[prost(uint64, tag = "5")]
    pub ring_file_bytes: u64,
}

/// One log's row in `hardstate`.
#[derive(Clone, PartialEq, Message)]
pub struct HardStateRow {
    /// The log.
    #[prost(uint32, tag = "1")]
    pub log_id: u32,
    /// Its opaque state.
    #[prost(bytes = "bytes", tag = "2")]
    pub state: prost::bytes::Bytes,
    /// All frames up to here were in segments, synced, when the row was written, or are known
    /// to be lost.
    #[prost(uint64, tag = "3")]
    pub synced_lsn: u64,
    /// Truncations of the log when the row was written.
    #[prost(uint32, tag = "4")]
    pub generation: u32,
    /// True if a hole in the journal may have swallowed frames of this log, until somebody
    /// repairs it: the journal forgets its holes when it wraps.
    #[prost(bool, tag = "5")]
    pub is_damaged: bool,
}

/// Derived state of a log exactly behind one frame, so that a restart replays only what follows.
#[derive(Clone, PartialEq, Message)]
pub struct StateSnapshot {
    /// The last frame the state includes.
    #[prost(uint64, tag = "1")]
    pub lsn: u64,
    /// Chain value of that frame: a snapshot of another history does not match.
    #[prost(uint32, tag = "2")]
    pub chain: u32,
    /// First offset behind that frame.
    #[prost(int64, tag = "3")]
    pub next_offset: i64,
    /// First readable offset.
    #[prost(int64, tag = "4")]
    pub log_start_offset: i64,
    /// Leader epochs.
    #[prost(message, repeated, tag = "5")]
    pub epochs: Vec<EpochRow>,
    /// The owner's state: producer table, metadata image.
    #[prost(bytes = "vec", tag = "6")]
    pub state: Vec<u8>,
}

/// One leader epoch in a snapshot.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct EpochRow {
    /// The epoch.
    #[prost(int32, tag = "1")]
    pub epoch: i32,
    /// Its first frame.
    #[prost(uint64, tag = "2")]
    pub first_lsn: u64,
    /// Offset of its first record.
    #[prost(int64, tag = "3")]
    pub first_offset: i64,
}

impl StateSnapshot {
    /// The last frame the state includes.
    #[must_use]
    pub fn at(&self) -> Lsn {
        Lsn(self.lsn)
    }

    /// The leader epochs as a history.
    #[must_use]
    pub fn epoch_history(&self) -> EpochHistory {
        EpochHistory::from_rows(self.epochs.iter().map(|row| EpochStart {
            epoch: LeaderEpoch(row.epoch),
            first_lsn: Lsn(row.first_lsn),
            first_offset: Offset(row.first_offset),
        }))
    }

    /// Rows of a history for a snapshot.
    #[must_use]
    pub fn epoch_rows(history: &EpochHistory) -> Vec<EpochRow> {
        let row = |start: &EpochStart| EpochRow {
            epoch: start.epoch.0,
            first_lsn: start.first_lsn.0,
            first_offset: start.first_offset.0,
        };
        history.rows().iter().map(row).collect()
    }
}

/// Stores a snapshot in a log's directory. Of the others stay the newest, and the oldest that
/// knows everything before `first_lsn`, the log's first frame: a truncation may drop all newer
/// ones, and what was trimmed cannot be replayed.
///
/// # Errors
/// A failed disk call; older snapshots are then still there.
pub fn store_snapshot(
    disk: &dyn Disk,
    directory: &Path,
    snapshot: &StateSnapshot,
    first_lsn: Lsn,
) -> Result<(), WalError> {
    assert!(is_possible_snapshot(snapshot), "{:?} contradicts itself", snapshot.at());
    let sealed = envelope::seal(SNAPSHOT_MAGIC, &snapshot.encode_to_vec());
    let packed = zstd::bulk::compress(&sealed, ZSTD_LEVEL).expect("compression into memory");
    replace_file(disk, &directory.join(snapshot_name(snapshot.at())), &packed)?;
    let positions = snapshot_positions(disk, directory)?;
    let covering = positions.iter().find(|lsn| lsn.next() >= first_lsn);
    let superseded = positions.len().saturating_sub(NEWEST_SNAPSHOTS_KEPT);
    for lsn in positions[..superseded].iter().filter(|lsn| Some(*lsn) != covering) {
        disk.remove_file(&directory.join(snapshot_name(*lsn)))?;
    }
    Ok(())
}

/// The newest readable snapshot at or below `end` for which `matches` holds. Unreadable ones are
/// skipped: they only cost replay.
///
/// # Errors
/// A failed disk call.
pub fn load_snapshot(
    disk: &dyn Disk,
    directory: &Path,
    mut matches: impl FnMut(&StateSnapshot) -> bool,
) -> Result<Option<StateSnapshot>, WalError> {
    for lsn in snapshot_positions(disk, directory)?.into_iter().rev() {
        let path = directory.join(snapshot_name(lsn));
        let Some(packed) = read_file(disk, &path, SNAPSHOT_BYTES_MAX)? else { continue };
        match unpack(&packed) {
            Ok(snapshot)
                if snapshot.at() == lsn
                    && is_possible_snapshot(&snapshot)
                    && matches(&snapshot) =>
            {
                return Ok(Some(snapshot));
            }
            Ok(_) => {}
            Err(reason) => {
                tracing::warn!(path = %path.display(), %reason, "skipped an unreadable snapshot");
            }
        }
    }
    Ok(None)
}

/// Removes snapshots at or behind `from`: the frames they include were truncated. The caller
/// syncs the directory.
///
/// # Errors
/// A failed disk call.
pub fn drop_snapshots(disk: &dyn Disk, directory: &Path, from: Lsn) -> Result<(), WalError> {
    for lsn in snapshot_positions(disk, directory)? {
        if lsn >= from {
            disk.remove_file(&directory.join(snapshot_name(lsn)))?;
        }
    }
    Ok(())
}

fn unpack(packed: &[u8]) -> Result<StateSnapshot, DamageReason> {
    let damaged = |_| DamageReason::BodyChecksum;
    let decoder = zstd::stream::Decoder::with_buffer(packed).map_err(damaged)?;
    let mut sealed = Vec::new();
    decoder.take(SNAPSHOT_BYTES_MAX).read_to_end(&mut sealed).map_err(damaged)?;
    let payload = envelope::open(SNAPSHOT_MAGIC, &sealed)?;
    StateSnapshot::decode(payload).map_err(|_| DamageReason::Inconsistent)
}

fn snapshot_positions(disk: &dyn Disk, directory: &Path) -> Result<Vec<Lsn>, WalError> {
    let listing = disk.list(directory)?;
    let mut positions: Vec<Lsn> =
        listing.iter().filter_map(|entry| parse_snapshot_name(&entry.name)).collect();
    positions.sort_unstable();
    Ok(positions)
}
