//! Every path and file name below the data directory, in one place.
//!
//! ```text
//! data/LOCK                                held while a server runs on this data
//! data/node.meta                           cluster id, node id, disk id
//! data/clean_shutdown                      present only after a clean stop
//! data/wal/__meta/                         the metadata log: own ring, segments, hardstate
//! data/wal/journal/lane{n}_{k}.wal         ring files of data lane n
//! data/wal/partitions/{topic}-{partition}/ one log
//!     partition.meta  segment_000.wal ...  offset_index  snapshot_{lsn}.zst
//! data/wal/removed/                        logs of deleted topics, until their files are gone
//! data/wal/orphaned/                       logs without a topic, for an operator to look at
//! ```

use std::path::{Path, PathBuf};

use chronik_common::{Lsn, TopicPartition};

/// Names below one data directory.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The layout of the data directory `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The data directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Lock file of a running server.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.root.join("LOCK")
    }

    /// Identity of the node that owns the data.
    #[must_use]
    pub fn node_meta(&self) -> PathBuf {
        self.root.join("node.meta")
    }

    /// Marker of a clean stop.
    #[must_use]
    pub fn clean_shutdown(&self) -> PathBuf {
        self.root.join("clean_shutdown")
    }

    /// Everything the log owns.
    #[must_use]
    pub fn wal(&self) -> PathBuf {
        self.root.join("wal")
    }

    /// Directory of the metadata log and of the table of log states.
    #[must_use]
    pub fn meta(&self) -> PathBuf {
        self.wal().join("__meta")
    }

    /// Table of log states of all logs.
    #[must_use]
    pub fn hardstate(&self) -> PathBuf {
        self.meta().join("hardstate")
    }

    /// Directory of the data lanes' ring files.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.wal().join("journal")
    }

    /// Ring file `file` of the metadata lane.
    #[must_use]
    pub fn meta_ring_file(&self, file: usize) -> PathBuf {
        self.meta().join(format!("lane_{file}.wal"))
    }

    /// Ring file `file` of data lane `lane`.
    #[must_use]
    pub fn ring_file(&self, lane: usize, file: usize) -> PathBuf {
        self.journal().join(format!("lane{lane}_{file}.wal"))
    }

    /// Parent of all partition directories.
    #[must_use]
    pub fn partitions(&self) -> PathBuf {
        self.wal().join("partitions")
    }

    /// Directory of one partition.
    #[must_use]
    pub fn partition(&self, partition: &TopicPartition) -> PathBuf {
        self.partitions().join(partition.to_string())
    }

    /// Where logs without a topic are kept until an operator looks at them.
    #[must_use]
    pub fn orphaned(&self) -> PathBuf {
        self.wal().join("orphaned")
    }

    /// Where directories of deleted topics wait for the removal of their files.
    #[must_use]
    pub fn removed(&self) -> PathBuf {
        self.wal().join("removed")
    }
}

/// Name of segment `number`: at least three digits.
#[must_use]
pub fn segment_name(number: u64) -> String {
    format!("segment_{number:03}.wal")
}

/// Number in a segment's file name; numbers sort as numbers beyond 999.
#[must_use]
pub fn parse_segment_name(name: &str) -> Option<u64> {
    parse_number(name, "segment_", ".wal")
}

/// Name of the state snapshot taken at `lsn`.
#[must_use]
pub fn snapshot_name(lsn: Lsn) -> String {
    format!("snapshot_{lsn}.zst")
}

/// Position in a snapshot's file name.
#[must_use]
pub fn parse_snapshot_name(name: &str) -> Option<Lsn> {
    parse_number(name, "snapshot_", ".zst").map(Lsn)
}

/// File name of a log's identity.
pub const PARTITION_META: &str = "partition.meta";
/// File name of a log's table of segments.
pub const OFFSET_INDEX: &str = "offset_index";

fn parse_number(name: &str, prefix: &str, suffix: &str) -> Option<u64> {
    let digits = name.strip_prefix(prefix)?.strip_suffix(suffix)?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segment_numbers_sort_as_numbers_beyond_999() {
        assert_eq!(segment_name(7), "segment_007.wal");
        assert_eq!(segment_name(1_000), "segment_1000.wal");
        for number in [0, 7, 999, 1_000, u64::MAX] {
            assert_eq!(parse_segment_name(&segment_name(number)), Some(number));
        }
        for foreign in ["segment_.wal", "segment_+1.wal", "segment_1.tmp", "offset_index"] {
            assert_eq!(parse_segment_name(foreign), None, "{foreign}");
        }
    }
}
