//! `[wal]`: the journal, the segments, and the memory and disk space they may use.

use crate::key::section;
use crate::kind::{Choice, GIB, MIB, Maybe, Named, bytes, micros, millis, number};

section! {
    /// The write-ahead log. A produced batch is appended to the journal, which is synced before
    /// the answer, and moved to its partition's segment in the background.
    WalConfig at "wal", config => config.wal, {
        /// Size of one journal file in bytes. The files are written in full once, when they are
        /// created, and then used again and again. Larger files make checkpoints rarer and
        /// recovery longer: after a crash up to `journal_files` times this size is read.
        journal_file_bytes: u64 = 64 * MIB, bytes(MIB, 4 * GIB);

        /// Number of journal files. With one file left free producers are slowed, with none they
        /// wait until a checkpoint frees one; so few files make writes stutter on a disk whose
        /// segments are slow to sync.
        journal_files: u16 = 4, number(2, 256);

        /// Size in bytes at which a partition starts a new segment, for topics that do not set
        /// `segment.bytes`. Retention removes whole segments only: large ones keep records for
        /// longer than asked, small ones cost files and index entries.
        segment_bytes: u64 = 64 * MIB, bytes(MIB, 2_147_483_647);

        /// Most bytes that one group commit writes with one sync. A larger group saves syncs
        /// under load, and every batch in it waits for all of them. One batch always fits.
        group_bytes_max: u64 = 8 * MIB, bytes(64 << 10, GIB);

        /// Most batches in one group commit. It bounds the work between two syncs when batches
        /// are tiny.
        group_frames_max: u32 = 8_192, number(1, 1_048_576);

        /// Bytes of one partition in one group from which the batches go straight to the segment,
        /// and the journal only points at them. Below it, one sequential journal write is cheaper
        /// than a second file to sync; above it, writing the bytes twice costs more. Measured
        /// break-even points lie between 128 KiB and 256 KiB.
        bypass_bytes: u64 = 256 << 10, bytes(4 << 10, GIB);

        /// Longest time that bytes wait for their segment; where there are enough for large
        /// writes, they go at once. It has no part in durability: the journal holds them already.
        /// A long wait keeps more of the tail budget occupied, at most a quarter.
        write_behind_ms: u64 = 1_000, millis(1, 60_000);

        /// Time between checkpoints, which sync segments and free journal files. A filled journal
        /// file also starts one. Longer intervals make recovery after a crash longer.
        checkpoint_interval_ms: u64 = 10_000, millis(100, 3_600_000);

        /// Memory in bytes, for the whole server, that keeps the newest batches until they are
        /// in their segments and serves consumers that keep up without a disk read. The default
        /// fits a machine with 256 MiB of memory and holds several seconds of a busy small
        /// server; older records come from the page cache. Producers wait when the budget is
        /// full of batches that are not in their segments yet, so it cannot be less than two
        /// group commits.
        tail_bytes_max: u64 = 64 * MIB, bytes(MIB, 1 << 40);

        /// Free disk space in bytes below which produce requests are refused with
        /// KAFKA_STORAGE_ERROR, while fetch, delete and retention go on. Unset means 5 % of the
        /// file system, at most 1 GiB. The reserve is what metadata, journal and
        /// checkpoints need to stay alive; without it a full disk stops the whole server.
        reserve_bytes: Option<u64> = None, Maybe(bytes(0, 1 << 50));

        /// What the server does when a write or a sync of the log fails. `exit`: it stops with
        /// exit code 5 without answering, because after a failed sync nobody knows what is on
        /// the disk; the next start reads what really is there.
        disk_failure_policy: DiskFailurePolicy = DiskFailurePolicy::Exit, Choice;

        /// Delay in microseconds added to every sync of the journal, to measure how latency
        /// follows the disk. Refused outside dev mode.
        debug_sync_delay_us: u64 = 0, micros(0, 10_000_000);
    }
}

impl WalConfig {
    /// Free space in bytes, on a file system of `file_system_bytes`, below which produce
    /// requests are refused: `reserve_bytes`, or else 5 % of the file system, at most 1 GiB.
    #[must_use]
    pub fn disk_floor(&self, file_system_bytes: u64) -> u64 {
        self.reserve_bytes.unwrap_or_else(|| (file_system_bytes / 20).min(GIB))
    }
}

/// What a failed write or sync of the log does to the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiskFailurePolicy {
    /// The process ends.
    Exit,
}

impl Named for DiskFailurePolicy {
    const NAMES: &'static [(&'static str, Self)] = &[("exit", Self::Exit)];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_floor_is_five_percent_up_to_one_gibibyte_or_what_was_set() {
        let mut wal = WalConfig::default();
        assert_eq!(wal.disk_floor(10 * GIB), GIB / 2);
        assert_eq!(wal.disk_floor(20 * GIB), GIB);
        assert_eq!(wal.disk_floor(4_096 * GIB), GIB);
        wal.reserve_bytes = Some(7);
        assert_eq!(wal.disk_floor(4_096 * GIB), 7);
    }
}
