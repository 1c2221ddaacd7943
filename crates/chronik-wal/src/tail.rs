//! The newest frames of a log in memory: what consumers at the tail and followers read, and what
//! the background worker has still to write into segments.
//!
//! A frame stays at least until it is in its segment, so reads never touch the journal. After
//! that it stays as long as the node-wide [`TailBudget`] allows.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use chronik_common::{Lsn, Offset};

use crate::frame::FrameHeader;
use crate::invariants::is_next_frame;
use crate::segment::Segment;

/// Memory shared by the tails of all logs of a node.
#[derive(Debug)]
pub struct TailBudget {
    bytes_max: usize,
    used: AtomicUsize,
    unwritten: AtomicUsize,
}

impl TailBudget {
    /// A budget of `bytes_max` bytes of frames.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, used: AtomicUsize::new(0), unwritten: AtomicUsize::new(0) }
    }

    /// True if tails hold more than the budget and should let go of written frames.
    #[must_use]
    pub fn is_exceeded(&self) -> bool {
        self.used.load(Ordering::Relaxed) > self.bytes_max
    }

    /// The budget, in bytes.
    #[must_use]
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// True if flushed frames that are not in their segments yet take more than the budget:
    /// commits must wait for the background worker.
    #[must_use]
    pub fn is_backlogged(&self) -> bool {
        self.unwritten.load(Ordering::Relaxed) > self.bytes_max
    }

    /// Bytes of flushed frames that are not in their segments yet.
    #[must_use]
    pub fn unwritten_bytes(&self) -> usize {
        self.unwritten.load(Ordering::Relaxed)
    }

    /// Bytes of frames in memory.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// One frame in memory.
#[derive(Clone, Debug)]
pub struct TailFrame {
    /// Its header.
    pub header: FrameHeader,
    /// Its body.
    pub body: Bytes,
    /// The segment it belongs to.
    pub segment: Arc<Segment>,
    /// Where it lies (or will lie) in the segment.
    pub position: u64,
    /// True once it was written there.
    pub is_in_segment: bool,
    /// True once it is durable as its topic demands.
    pub is_flushed: bool,
}

/// Memory a frame accounts for, in bytes.
fn cost(frame: &TailFrame) -> usize {
    std::mem::size_of::<TailFrame>() + frame.body.len()
}

/// Takes `bytes` from a counter of the budget. One that fell below zero would hold back every
/// commit of the node for ever.
fn give_back(counter: &AtomicUsize, bytes: usize) {
    let before = counter.fetch_sub(bytes, Ordering::Relaxed);
    assert!(before >= bytes, "{bytes} bytes are given back to a budget that lent {before}");
}

/// The newest frames of one log, oldest first, dense in lsn.
#[derive(Debug)]
pub struct TailRing {
    frames: VecDeque<TailFrame>,
    budget: Arc<TailBudget>,
}

impl TailRing {
    /// An empty tail under `budget`.
    #[must_use]
    pub fn new(budget: Arc<TailBudget>) -> Self {
        Self { frames: VecDeque::new(), budget }
    }

    /// Adds the next frame.
    pub fn push(&mut self, frame: TailFrame) {
        if let Some(last) = self.frames.back() {
            let (previous, next) = (&last.header, &frame.header);
            assert!(
                is_next_frame(previous, next),
                "the tail is dense: {:?} at {:?} after {:?} up to {:?}",
                next.lsn,
                next.base_offset,
                previous.lsn,
                previous.next_offset()
            );
            debug_assert_eq!(next.prev_chain, previous.chain(), "a frame is chained to the last");
            let end = last.position + previous.size();
            assert!(
                !Arc::ptr_eq(&last.segment, &frame.segment) || frame.position == end,
                "{:?} lies at {} in a segment whose frames end at {end}",
                next.lsn,
                frame.position
            );
        }
        assert!(
            !frame.is_flushed && !frame.is_in_segment,
            "{:?} is flushed and written after it was appended",
            frame.header.lsn
        );
        self.budget.used.fetch_add(cost(&frame), Ordering::Relaxed);
        self.frames.push_back(frame);
    }

    /// Marks the frames `first..=last` as flushed: from here on those that are not in their
    /// segments are the background worker's backlog. Frames that wait for the commit thread are
    /// not, or it would wait for itself.
    pub fn mark_flushed(&mut self, first: Lsn, last: Lsn) {
        let start = self.index_from(first);
        for frame in self.frames.range_mut(start..) {
            if frame.header.lsn > last {
                break;
            }
            if !frame.is_flushed {
                frame.is_flushed = true;
                if !frame.is_in_segment {
                    self.budget.unwritten.fetch_add(cost(frame), Ordering::Relaxed);
                }
            }
        }
    }

    fn forget(&self, frame: &TailFrame) {
        give_back(&self.budget.used, cost(frame));
        if frame.is_flushed && !frame.is_in_segment {
            give_back(&self.budget.unwritten, cost(frame));
        }
    }

    /// Lets go of written frames below `keep_from`, oldest first, while the budget is exceeded.
    pub fn evict(&mut self, keep_from: Lsn) {
        while self.budget.is_exceeded() {
            let Some(front) = self.frames.front() else { return };
            if !front.is_in_segment || front.header.lsn >= keep_from {
                return;
            }
            let front = self.frames.pop_front().expect("just seen");
            self.forget(&front);
        }
    }

    /// Drops frames from `lsn` on.
    pub fn truncate(&mut self, lsn: Lsn) {
        while self.frames.back().is_some_and(|frame| frame.header.lsn >= lsn) {
            let frame = self.frames.pop_back().expect("just seen");
            self.forget(&frame);
        }
    }

    /// Index of the first frame at or behind `lsn`. Not searched for: the tail is dense, and its
    /// frames are too cold to be looked at in passing.
    fn index_from(&self, lsn: Lsn) -> usize {
        let first = self.frames.front().map_or(lsn, |frame| frame.header.lsn);
        let index = usize::try_from(lsn.0.saturating_sub(first.0)).unwrap_or(usize::MAX);
        let index = index.min(self.frames.len());
        assert!(
            self.frames.get(index).is_none_or(|frame| frame.header.lsn == lsn.max(first)),
            "the tail is dense from {first:?} on"
        );
        index
    }

    /// The frame at `lsn`.
    #[must_use]
    pub fn get(&self, lsn: Lsn) -> Option<&TailFrame> {
        let first = self.frames.front()?.header.lsn;
        let frame = self.frames.get(usize::try_from(lsn.0.checked_sub(first.0)?).ok()?)?;
        assert_eq!(frame.header.lsn, lsn, "the tail is dense from {first:?} on");
        Some(frame)
    }

    /// The oldest frame in memory.
    #[must_use]
    pub fn front(&self) -> Option<&TailFrame> {
        self.frames.front()
    }

    /// Frames from the one that holds `offset` (or follows it) on; `None` when that frame may
    /// already have left memory.
    #[must_use]
    pub fn frames_from_offset(
        &self,
        offset: Offset,
    ) -> Option<impl Iterator<Item = &TailFrame> + Clone> {
        if self.frames.front()?.header.base_offset > offset {
            return None;
        }
        let start = self.frames.partition_point(|frame| frame.header.next_offset() <= offset);
        Some(self.frames.range(start..))
    }

    /// Frames from `lsn` on that are in memory.
    pub fn frames_from_lsn(&self, lsn: Lsn) -> impl Iterator<Item = &TailFrame> {
        let start = self.index_from(lsn);
        self.frames.range(start..)
    }

    /// Marks the frames `first..=last` as written to their segments.
    pub fn mark_written(&mut self, first: Lsn, last: Lsn) {
        assert!(first <= last, "written from {first:?} to {last:?}");
        let start = self.index_from(first);
        for frame in self.frames.range_mut(start..) {
            if frame.header.lsn > last {
                break;
            }
            if !frame.is_in_segment {
                frame.is_in_segment = true;
                if frame.is_flushed {
                    give_back(&self.budget.unwritten, cost(frame));
                }
            }
        }
    }

    /// True if no frame is in memory.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }
}

impl Drop for TailRing {
    fn drop(&mut self) {
        for frame in &self.frames {
            self.forget(frame);
        }
    }
}
