//! Indexes: inside a segment (offset and time to position, sparse) and over the segments of a
//! log (the file `offset_index`).
//!
//! Both are derived from frames and are rebuilt when they are missing or damaged; a reader never
//! believes a position without verifying the frame it finds there.

use chronik_common::Lsn;
use prost::Message;

use crate::frame::{read_u32, read_u64};

/// Bytes of frames between two entries of a sparse index.
pub const INDEX_INTERVAL_BYTES: u64 = 32 << 10;

/// One entry of a sparse index: a frame and where it lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IndexEntry {
    /// The frame's position in the log.
    pub lsn: Lsn,
    /// Its base offset, relative to the segment's first offset.
    pub relative_offset: u32,
    /// Where it starts in the file.
    pub position: u32,
    /// Largest record timestamp of all frames *before* this one in the segment; -1 if none.
    pub max_timestamp_before: i64,
}

impl IndexEntry {
    /// Bytes of an encoded entry.
    pub const SIZE: usize = 24;
}

/// Every 32 KiB one frame of a segment, in order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SparseIndex {
    entries: Vec<IndexEntry>,
    last_position: u64,
}

impl SparseIndex {
    /// Adds the frame at `position` if the last entry is far enough away.
    pub fn note(
        &mut self,
        lsn: Lsn,
        relative_offset: u64,
        position: u64,
        max_timestamp_before: i64,
    ) {
        if let Some(last) = self.entries.last() {
            assert!(
                lsn > last.lsn && position > self.last_position,
                "{lsn:?} at {position} is noted behind {last:?}"
            );
            // Lookups are binary searches over both columns.
            assert!(
                relative_offset >= u64::from(last.relative_offset)
                    && max_timestamp_before >= last.max_timestamp_before,
                "offset +{relative_offset}, time {max_timestamp_before} behind {last:?}"
            );
            if position < self.last_position + INDEX_INTERVAL_BYTES {
                return;
            }
        }
        // A segment spans less than 4 GiB; offsets beyond 32 bits are left to scanning.
        let (Ok(relative_offset), Ok(position32)) =
            (u32::try_from(relative_offset), u32::try_from(position))
        else {
            return;
        };
        self.entries.push(IndexEntry {
            lsn,
            relative_offset,
            position: position32,
            max_timestamp_before,
        });
        self.last_position = position;
    }

    /// Drops entries of frames from `lsn` on.
    pub fn truncate(&mut self, lsn: Lsn) {
        self.entries.retain(|entry| entry.lsn < lsn);
        self.last_position = self.entries.last().map_or(0, |entry| u64::from(entry.position));
    }

    /// Where to start scanning for the frame that holds an offset; `None`: at the first frame.
    #[must_use]
    pub fn position_of(&self, relative_offset: u64) -> Option<u64> {
        let after = self
            .entries
            .partition_point(|entry| u64::from(entry.relative_offset) <= relative_offset);
        after.checked_sub(1).map(|index| u64::from(self.entries[index].position))
    }

    /// Relative offset from which to scan for the first record with a timestamp of at least
    /// `timestamp`.
    #[must_use]
    pub fn relative_offset_of_time(&self, timestamp: i64) -> u64 {
        let after = self.entries.partition_point(|entry| entry.max_timestamp_before < timestamp);
        after.checked_sub(1).map_or(0, |index| u64::from(self.entries[index].relative_offset))
    }

    /// The last noted frame that is not behind `lsn`.
    #[must_use]
    pub fn entry_before(&self, lsn: Lsn) -> Option<&IndexEntry> {
        let after = self.entries.partition_point(|entry| entry.lsn <= lsn);
        self.entries.get(after.checked_sub(1)?)
    }

    /// The first noted frame behind `lsn`.
    #[must_use]
    pub fn entry_behind(&self, lsn: Lsn) -> Option<&IndexEntry> {
        self.entries.get(self.entries.partition_point(|entry| entry.lsn <= lsn))
    }

    /// The last noted frame.
    #[must_use]
    pub fn last(&self) -> Option<&IndexEntry> {
        self.entries.last()
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True if no frame was noted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The bytes of all entries.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.entries.len() * IndexEntry::SIZE);
        for entry in &self.entries {
            bytes.extend_from_slice(&entry.lsn.0.to_le_bytes());
            bytes.extend_from_slice(&entry.relative_offset.to_le_bytes());
            bytes.extend_from_slice(&entry.position.to_le_bytes());
            bytes.extend_from_slice(&entry.max_timestamp_before.to_le_bytes());
        }
        bytes
    }

    /// Entries from bytes whose checksum was verified; a trailing part of an entry is ignored.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Self {
        let entries: Vec<IndexEntry> = bytes
            .chunks_exact(IndexEntry::SIZE)
            .map(|entry| IndexEntry {
                lsn: Lsn(read_u64(entry, 0)),
                relative_offset: read_u32(entry, 8),
                position: read_u32(entry, 12),
                max_timestamp_before: read_u64(entry, 16) as i64,
            })
            .collect();
        let last_position = entries.last().map_or(0, |entry| u64::from(entry.position));
        Self { entries, last_position }
    }
}

/// Magic of the file `offset_index`.
pub const OFFSET_INDEX_MAGIC: [u8; 4] = *b"CHO1";

/// The file `offset_index`: one row per segment, replaced at roll, trim and truncation.
#[derive(Clone, PartialEq, Message)]
pub struct SegmentTable {
    /// Rows in ascending order of number.
    #[prost(message, repeated, tag = "1")]
    pub rows: Vec<SegmentRow>,
    /// Truncations of the log when the table was written.
    #[prost(uint32, tag = "2")]
    pub generation: u32,
}

/// What the table of segments knows about one segment.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct SegmentRow {
    /// Number of the segment.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// First frame.
    #[prost(uint64, tag = "2")]
    pub first_lsn: u64,
    /// Last frame (sealed segments only).
    #[prost(uint64, tag = "3")]
    pub last_lsn: u64,
    /// First offset.
    #[prost(int64, tag = "4")]
    pub first_offset: i64,
    /// First offset behind the segment (sealed segments only).
    #[prost(int64, tag = "5")]
    pub next_offset: i64,
    /// Largest record timestamp, -1 if none (sealed segments only).
    #[prost(int64, tag = "6")]
    pub max_timestamp: i64,
    /// Position behind the last frame (sealed segments only).
    #[prost(uint64, tag = "7")]
    pub frames_end: u64,
    /// True once the segment has its footer and never changes again.
    #[prost(bool, tag = "8")]
    pub is_sealed: bool,
    /// True once the segment is in the object store.
    #[prost(bool, tag = "9")]
    pub is_uploaded: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> SparseIndex {
        let mut index = SparseIndex::default();
        for step in 0..100_u64 {
            let position = 4_096 + step * 10_000;
            index.note(Lsn(step + 1), step * 10, position, step as i64 * 100 - 1);
        }
        index
    }

    #[test]
    fn a_lookup_starts_at_or_before_the_wanted_offset_and_within_one_interval() {
        let index = index();
        for offset in 0..1_000 {
            let position = index.position_of(offset).expect("the first frame is always noted");
            let actual = 4_096 + offset / 10 * 10_000;
            assert!(position <= actual && actual - position < INDEX_INTERVAL_BYTES + 10_000);
        }
    }

    #[test]
    fn a_time_lookup_never_starts_behind_the_first_matching_frame() {
        let index = index();
        // Frame n carries timestamps up to n * 100 + 99.
        for timestamp in 0..9_999 {
            let first_match = timestamp as u64 / 100 * 10;
            assert!(index.relative_offset_of_time(timestamp) <= first_match, "{timestamp}");
        }
    }

    #[test]
    fn encoded_entries_decode_to_the_same_index() {
        let index = index();
        assert_eq!(SparseIndex::decode(&index.encode()), index);
        let mut cut = index.clone();
        cut.truncate(Lsn(50));
        assert!(cut.len() < index.len() && cut.position_of(u64::MAX) < Some(4_096 + 50 * 10_000));
    }
}
