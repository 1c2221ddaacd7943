//! What must hold of one log: its numbers, the order of its frames and segments, its snapshots.
//!
//! Each rule is written down once. A predicate (`is_...`) is asked twice: by recovery about bytes
//! from disk, where `false` is damage and is reported, and by an assertion before the same bytes
//! are written, where `false` is a bug. A `check_...` is only ever asked about our own reasoning,
//! after everything in it was validated, and panics.

use chronik_common::{Lsn, Offset};

use crate::epoch_history::EpochStart;
use crate::frame::{FRAME_BODY_BYTES_MAX, FrameHeader};
use crate::log_state::StateSnapshot;
use crate::segment::{SEGMENT_HEADER_SIZE, SegmentEnd, SegmentHeader};

/// The numbers of a log at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogNumbers {
    pub(crate) log_start_offset: Offset,
    pub(crate) flushed_offset: Offset,
    pub(crate) log_end_offset: Offset,
    pub(crate) synced_lsn: Lsn,
    pub(crate) written_lsn: Lsn,
    pub(crate) flushed_lsn: Lsn,
    pub(crate) next_lsn: Lsn,
    pub(crate) cut_generation: u32,
    pub(crate) journaled_generation: u32,
    pub(crate) generation: u32,
    /// The oldest frame in memory.
    pub(crate) tail_lsn: Option<Lsn>,
}

impl LogNumbers {
    /// The order that every change of a log keeps.
    pub(crate) fn check(&self) {
        let last = self.next_lsn.previous();
        assert!(
            self.log_start_offset <= self.log_end_offset,
            "the log starts behind its end: {self:?}"
        );
        assert!(
            self.flushed_offset <= self.log_end_offset && self.flushed_lsn <= last,
            "more is flushed than was appended: {self:?}"
        );
        assert!(
            (self.flushed_lsn == last) <= (self.flushed_offset == self.log_end_offset),
            "the last frame is flushed and its offsets are not: {self:?}"
        );
        assert!(
            self.synced_lsn <= self.written_lsn && self.written_lsn <= last,
            "more is synced than was written, or more written than appended: {self:?}"
        );
        assert!(
            self.synced_lsn <= self.flushed_lsn,
            "more is synced in segments than was flushed: {self:?}"
        );
        assert!(
            self.cut_generation <= self.journaled_generation
                && self.journaled_generation <= self.generation,
            "files are cut before the journal knows of it: {self:?}"
        );
        // Reads look into segments below the tail, and the worker writes from the tail alone.
        assert!(
            self.tail_lsn.unwrap_or(self.next_lsn) <= self.written_lsn.next(),
            "a frame that is not in its segment left memory: {self:?}"
        );
    }
}

/// True if a frame's fields are within what a reader accepts.
pub(crate) fn is_possible_frame(header: &FrameHeader) -> bool {
    let next_offset = header
        .base_offset
        .checked_add(i64::from(header.last_offset_delta))
        .and_then(|last| last.checked_add(1));
    header.lsn > Lsn::ZERO
        && header.lsn < Lsn(u64::MAX)
        && header.base_offset >= Offset::ZERO
        && header.last_offset_delta >= -1
        && next_offset.is_some()
        && header.body_len as usize <= FRAME_BODY_BYTES_MAX
}

/// True if `next` has the position and the offset that follow `previous`. Whether it is of the
/// same history is up to its chain value.
pub(crate) fn is_next_frame(previous: &FrameHeader, next: &FrameHeader) -> bool {
    next.lsn.0.checked_sub(1) == Some(previous.lsn.0) && next.base_offset == previous.next_offset()
}

/// True if `end` is an end the segment can have.
pub(crate) fn is_end_of(segment: &SegmentHeader, end: &SegmentEnd) -> bool {
    let is_empty = end.position == SEGMENT_HEADER_SIZE;
    end.position >= SEGMENT_HEADER_SIZE
        && is_empty == (end.last_lsn < segment.first_lsn)
        && end.last_lsn >= segment.first_lsn.previous()
        && end.next_offset >= segment.first_offset
        && end.last_lsn < Lsn(u64::MAX)
}

/// True if `next` is begun where a segment with the header `previous` ends at `end`.
pub(crate) fn is_next_segment(
    previous: &SegmentHeader,
    end: &SegmentEnd,
    next: &SegmentHeader,
) -> bool {
    next.number > previous.number
        && next.generation >= previous.generation
        && next.first_lsn == end.last_lsn.next()
        && next.first_offset == end.next_offset
        && next.prev_chain == end.last_chain
}

/// True if epochs may begin at `previous` and then at `next`.
pub(crate) fn is_next_epoch(previous: &EpochStart, next: &EpochStart) -> bool {
    next.epoch > previous.epoch
        && next.first_lsn > previous.first_lsn
        && next.first_offset >= previous.first_offset
}

/// True if a snapshot does not contradict itself: nothing in it lies behind its last frame.
pub(crate) fn is_possible_snapshot(snapshot: &StateSnapshot) -> bool {
    let epoch = snapshot.epochs.last();
    snapshot.log_start_offset >= 0
        && snapshot.log_start_offset <= snapshot.next_offset
        && epoch.is_none_or(|epoch| {
            epoch.first_lsn <= snapshot.lsn && epoch.first_offset <= snapshot.next_offset
        })
}
