//! One log of this node: assigns positions, keeps the tail in memory, queues frames to its lane,
//! knows its segments, truncates and trims.
//!
//! A `PartitionLog` is a plain value that lives inside its owner's partition mutex; nothing here
//! waits for a sync. Work that does is handed out as data ([`WriteBehind`], [`SyncWork`],
//! [`SealWork`], [`ReadPlan`]) and its result is handed back.
//!
//! Order of the numbers, always: `synced <= written`, `synced <= flushed <= last frame`, and
//! `log_start_offset <= flushed_offset <= log_end_offset`. With `os` durability "flushed" means
//! written to the page cache.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use chronik_common::{LeaderEpoch, Lsn, Offset, TopicId};

use crate::epoch_history::EpochHistory;
use crate::error::{Verdict, WalError};
use crate::frame::{FrameHeader, FrameKind, log_start_of};
use crate::group_commit::{Flushed, JournalMark, LaneHandle, QueuedFrame, QueuedRecord};
use crate::invariants::{LogNumbers, is_end_of, is_next_segment, is_possible_frame};
use crate::io::{Disk, DiskResult};
use crate::journal::LogId;
use crate::log_state::{HardStateRow, StateSnapshot, drop_snapshots};
use crate::nonce::NonceSource;
use crate::offset_index::{SegmentRow, SegmentTable, SparseIndex};
use crate::reader::{self, SegmentRange};
use crate::segment::{SEGMENT_HEADER_SIZE, Segment, SegmentEnd, SegmentHeader};
use crate::tail::{TailBudget, TailFrame, TailRing};

/// When a frame may be acknowledged (topic config `chronik.durability`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Durability {
    /// After the sync of its journal group.
    #[default]
    Fsync,
    /// After the write to the page cache; a power cut may lose it.
    Os,
}

/// Settings of one log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogConfig {
    /// When frames count as flushed.
    pub durability: Durability,
    /// A segment is closed before it grows beyond this many bytes.
    pub segment_bytes: u64,
    /// A segment is closed when its first frame is this old, in milliseconds.
    pub segment_ms: i64,
}

impl LogConfig {
    /// Settings of the metadata log: always synced, segments closed by size alone.
    #[must_use]
    pub const fn metadata() -> Self {
        Self { durability: Durability::Fsync, segment_bytes: 8 << 20, segment_ms: i64::MAX }
    }
}

/// Who a log is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogIdentity {
    /// Local number on this node.
    pub id: LogId,
    /// Topic it belongs to.
    pub topic_id: TopicId,
    /// Partition it belongs to; -1 for the metadata log.
    pub partition: i32,
}

/// A frame to append.
#[derive(Clone, Debug)]
pub struct NewFrame {
    /// What the body is.
    pub kind: FrameKind,
    /// Bit 0: transactional; bit 1: control.
    pub flags: u8,
    /// The leader's epoch; must not be below the log's last one.
    pub epoch: LeaderEpoch,
    /// Records in the body.
    pub record_count: u32,
    /// Offset of the last record relative to the first; -1 without records.
    pub last_offset_delta: i32,
    /// The body, with [`PartitionLog::log_end_offset`] patched in as its base offset.
    pub body: Bytes,
    /// CRC-32C of the body.
    pub body_crc: u32,
    /// Wall-clock time of the append.
    pub append_time_ms: i64,
    /// Largest record timestamp; -1 if none.
    pub max_timestamp: i64,
}

/// One segment as the log sees it.
#[derive(Clone, Debug)]
pub(crate) struct SegmentState {
    pub(crate) segment: Arc<Segment>,
    pub(crate) end: SegmentEnd,
    pub(crate) is_sealed: bool,
    /// Sparse index while the segment is open; sealed ones load theirs from the footer.
    pub(crate) index: SparseIndex,
    /// True if bytes were written since the last sync of the file.
    pub(crate) needs_sync: bool,
}

/// What recovery or creation hands over to build a log. Everything in `segments` is synced.
#[derive(Debug)]
pub(crate) struct LogParts {
    pub(crate) identity: LogIdentity,
    pub(crate) directory: PathBuf,
    pub(crate) generation: u32,
    pub(crate) segments: VecDeque<SegmentState>,
    pub(crate) next_segment_number: u64,
    pub(crate) next_lsn: Lsn,
    pub(crate) log_end_offset: Offset,
    pub(crate) last_chain: u32,
    pub(crate) log_start_offset: Offset,
    pub(crate) epochs: EpochHistory,
    pub(crate) state: Bytes,
    /// The last frame that was durable once; behind the end only if the verdict says so.
    pub(crate) proven_lsn: Lsn,
    pub(crate) verdict: Verdict,
}

/// Collaborators every log of a node shares.
#[derive(Clone)]
pub(crate) struct LogContext {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) lane: LaneHandle,
    pub(crate) budget: Arc<TailBudget>,
    pub(crate) nonces: NonceSource,
    pub(crate) mark_dirty: Arc<dyn Fn(LogId) + Send + Sync>,
}

/// Frames to write into one segment.
#[derive(Debug)]
pub struct WriteBehind {
    segment: Arc<Segment>,
    generation: u32,
    position: u64,
    frames: Vec<(FrameHeader, Bytes)>,
}

impl WriteBehind {
    /// Does the write. Blocks as a buffered write does.
    ///
    /// # Errors
    /// A failed disk call; the log must stop.
    pub fn run(&self) -> DiskResult<()> {
        let frames = self.frames.iter().map(|(header, body)| (header, body));
        self.segment.write_frames(self.position, frames)
    }
}

/// Files of one log to make durable.
pub struct SyncWork {
    generation: u32,
    written_lsn: Lsn,
    cut_generation: u32,
    cuts: Vec<SegmentCut>,
    segments: Vec<Arc<Segment>>,
    disk: Arc<dyn Disk>,
    directory: PathBuf,
}

impl SyncWork {
    /// Carries out cuts, then syncs. Blocks.
    ///
    /// # Errors
    /// A failed disk call; the log must stop.
    pub fn run(&self) -> Result<(), WalError> {
        for cut in &self.cuts {
            match cut {
                SegmentCut::Cut { segment, position } => segment.cut(*position)?,
                SegmentCut::Remove(segment) => segment.remove()?,
                SegmentCut::SnapshotsFrom(lsn) => {
                    drop_snapshots(&*self.disk, &self.directory, *lsn)?;
                }
            }
        }
        if !self.cuts.is_empty() {
            // A removed file that came back would stand between the old frames and the new.
            self.disk.sync_directory(&self.directory)?;
        }
        for segment in &self.segments {
            segment.sync()?;
        }
        Ok(())
    }
}

/// A full segment that gets its footer.
#[derive(Debug)]
pub struct SealWork {
    segment: Arc<Segment>,
    generation: u32,
    index: SparseIndex,
    end: SegmentEnd,
}

impl SealWork {
    /// Writes the footer. Blocks.
    ///
    /// # Errors
    /// A failed disk call; the log must stop.
    pub fn run(&self) -> DiskResult<()> {
        self.segment.seal(&self.index, &self.end)
    }
}

#[derive(Debug)]
enum SegmentCut {
    Cut {
        segment: Arc<Segment>,
        position: u64,
    },
    Remove(Arc<Segment>),
    /// State snapshots that include removed frames.
    SnapshotsFrom(Lsn),
}

/// Where the wanted bytes are.
#[derive(Debug)]
pub enum ReadPlan {
    /// Nothing to read below the upper bound.
    Empty,
    /// Bodies straight from memory, whole batches in order.
    Memory(Vec<Bytes>),
    /// In a segment: run it with [`SegmentRange::read`], or piece by piece, outside of any
    /// lock.
    Segment(SegmentRange),
}

/// One log. See the module documentation.
pub struct PartitionLog {
    identity: LogIdentity,
    directory: PathBuf,
    config: LogConfig,
    context: LogContext,
    verdict: Verdict,
    is_failed: bool,

    generation: u32,
    /// Generation whose beginning is in the journal; `<= generation`. Only then may files be
    /// cut: a cut that a crash forgets must not have happened.
    journaled_generation: u32,
    /// Generation whose cut is durable in the segments; `<= journaled_generation`.
    cut_generation: u32,
    /// Truncations behind `cut_generation`, and the last frame each left.
    uncut: Vec<(u32, Lsn)>,
    next_lsn: Lsn,
    log_end_offset: Offset,
    last_chain: u32,
    log_start_offset: Offset,
    /// Log starts in the log that [`PartitionLog::trim_to`] did not apply yet, oldest first. A
    /// snapshot that includes their frames must include them.
    coming_log_starts: Vec<(Lsn, Offset)>,
    epochs: EpochHistory,
    state: Bytes,
    /// True if `state` is newer than what the table of log states was given.
    is_state_stale: bool,

    /// What recovery knew to have been durable; kept as proof while frames of it are missing.
    proven_lsn: Lsn,
    flushed_lsn: Lsn,
    flushed_offset: Offset,
    /// All frames up to here are in their segments' page cache.
    written_lsn: Lsn,
    /// All frames up to here are in their segments, synced.
    synced_lsn: Lsn,

    tail: TailRing,
    segments: VecDeque<SegmentState>,
    /// Never given out twice, so that a file to be removed is never one to be written.
    next_segment_number: u64,
    /// Append time of the open segment's first frame.
    segment_opened_ms: i64,
    must_roll: bool,
    pending: Vec<QueuedRecord>,
    /// With each the generation that begins with it.
    pending_cuts: Vec<(u32, SegmentCut)>,
    removable: Vec<Arc<Segment>>,
    is_table_stale: bool,
    is_marked_dirty: bool,
}

impl std::fmt::Debug for PartitionLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PartitionLog")
            .field("identity", &self.identity)
            .field("log_start_offset", &self.log_start_offset)
            .field("flushed_offset", &self.flushed_offset)
            .field("log_end_offset", &self.log_end_offset)
            .finish_non_exhaustive()
    }
}

/// A place in a log found by time. Getting its offset may read the index of a sealed segment, so
/// that is done without the partition's lock.
#[derive(Debug)]
pub struct TimeLookup {
    segment: Arc<Segment>,
    /// Known already for the open segment.
    relative: Option<u64>,
    timestamp: i64,
    log_start_offset: Offset,
}

impl TimeLookup {
    /// Offset from which to look: no earlier record can match. Blocks on a disk read.
    ///
    /// # Errors
    /// A failed or damaged read of a sealed segment's index.
    pub fn start(&self) -> Result<Offset, WalError> {
        let relative = match self.relative {
            Some(relative) => relative,
            None => self.segment.sealed_index()?.relative_offset_of_time(self.timestamp),
        };
        let offset = self.segment.header.first_offset.plus(relative as i64);
        Ok(offset.max(self.log_start_offset))
    }
}

impl PartitionLog {
    pub(crate) fn new(context: LogContext, config: LogConfig, parts: LogParts) -> Self {
        let last = parts.next_lsn.previous();
        assert!(
            parts.verdict != Verdict::Ok || parts.proven_lsn <= last,
            "an undamaged log ends at {last:?}, not before the proven {:?}",
            parts.proven_lsn
        );
        let mut before: Option<&SegmentState> = None;
        for state in &parts.segments {
            let header = &state.segment.header;
            assert!(is_end_of(header, &state.end), "{:?} is no end of {header:?}", state.end);
            assert!(
                before.is_none_or(|last| {
                    is_next_segment(&last.segment.header, &last.end, header)
                }),
                "{header:?} does not follow {before:?}"
            );
            before = Some(state);
        }
        assert!(
            before.is_none_or(|state| {
                state.end.last_lsn == last
                    && state.end.next_offset == parts.log_end_offset
                    && state.segment.header.number < parts.next_segment_number
            }),
            "the log ends at {last:?}, {:?}, where its last segment does not: {before:?}",
            parts.log_end_offset
        );
        let must_roll = parts
            .segments
            .back()
            .is_some_and(|state| state.segment.header.generation < parts.generation);
        let tail = TailRing::new(Arc::clone(&context.budget));
        let log = Self {
            identity: parts.identity,
            directory: parts.directory,
            config,
            context,
            verdict: parts.verdict,
            is_failed: false,
            generation: parts.generation,
            journaled_generation: parts.generation,
            cut_generation: parts.generation,
            uncut: Vec::new(),
            next_lsn: parts.next_lsn,
            log_end_offset: parts.log_end_offset,
            last_chain: parts.last_chain,
            log_start_offset: parts.log_start_offset,
            coming_log_starts: Vec::new(),
            epochs: parts.epochs,
            state: parts.state,
            is_state_stale: false,
            proven_lsn: parts.proven_lsn,
            flushed_lsn: last,
            flushed_offset: parts.log_end_offset,
            written_lsn: last,
            synced_lsn: last,
            tail,
            next_segment_number: parts.next_segment_number,
            segments: parts.segments,
            segment_opened_ms: 0,
            must_roll,
            pending: Vec::new(),
            pending_cuts: Vec::new(),
            removable: Vec::new(),
            is_table_stale: true,
            is_marked_dirty: false,
        };
        log.check();
        log
    }

    /// Asserts the order of the log's numbers; called behind every change of one.
    fn check(&self) {
        LogNumbers {
            log_start_offset: self.log_start_offset,
            flushed_offset: self.flushed_offset,
            log_end_offset: self.log_end_offset,
            synced_lsn: self.synced_lsn,
            written_lsn: self.written_lsn,
            flushed_lsn: self.flushed_lsn,
            next_lsn: self.next_lsn,
            cut_generation: self.cut_generation,
            journaled_generation: self.journaled_generation,
            generation: self.generation,
            tail_lsn: self.tail.front().map(|frame| frame.header.lsn),
        }
        .check();
    }

    /// Who the log is.
    #[must_use]
    pub fn identity(&self) -> LogIdentity {
        self.identity
    }

    /// Directory of the log's files.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Settings.
    #[must_use]
    pub fn config(&self) -> LogConfig {
        self.config
    }

    /// Gives the log its topic's settings. Only before anything is appended in this process: a
    /// change of durability under way would let flushed frames overtake queued ones.
    pub fn set_config(&mut self, config: LogConfig) {
        assert!(self.pending.is_empty() && self.tail.is_empty(), "settings change before appends");
        self.config = config;
    }

    /// Lets go of the log's files because the log is deleted: writes on their way to them end
    /// nowhere, and none creates a file again.
    pub fn retire(&mut self) {
        self.fail();
        for state in &self.segments {
            state.segment.retire();
        }
    }

    /// Bytes and largest timestamp of the open segment; `None` if there is none with frames.
    #[must_use]
    pub fn open_segment(&self) -> Option<(u64, i64)> {
        let open = self.segments.back().filter(|state| !state.is_sealed)?;
        (open.end.position > SEGMENT_HEADER_SIZE)
            .then_some((open.end.position, open.end.max_timestamp))
    }

    /// Makes the next frame start a new segment.
    pub fn roll(&mut self) {
        self.must_roll = true;
    }

    /// Asks the background worker to visit the log, for a snapshot that is due.
    pub fn ask_for_visit(&mut self) {
        self.mark_dirty();
    }

    /// The first frame the log still has, or the next one if it has none.
    #[must_use]
    pub fn first_lsn(&self) -> Lsn {
        self.segments.front().map_or(self.next_lsn, |first| first.segment.header.first_lsn)
    }

    /// First readable offset.
    #[must_use]
    pub fn log_start_offset(&self) -> Offset {
        self.log_start_offset
    }

    /// First offset behind the log, exclusive: where the next record goes.
    #[must_use]
    pub fn log_end_offset(&self) -> Offset {
        self.log_end_offset
    }

    /// First offset that is not durable; `<= log_end_offset`.
    #[must_use]
    pub fn flushed_offset(&self) -> Offset {
        self.flushed_offset
    }

    /// Last durable frame.
    #[must_use]
    pub fn flushed_lsn(&self) -> Lsn {
        self.flushed_lsn
    }

    /// Position of the next frame.
    #[must_use]
    pub fn next_lsn(&self) -> Lsn {
        self.next_lsn
    }

    /// Chain value of the last frame.
    #[must_use]
    pub fn last_chain(&self) -> u32 {
        self.last_chain
    }

    /// Leader epochs of the log.
    #[must_use]
    pub fn epochs(&self) -> &EpochHistory {
        &self.epochs
    }

    /// The newest opaque state queued or recovered.
    #[must_use]
    pub fn log_state(&self) -> &Bytes {
        &self.state
    }

    /// What recovery found. Anything but [`Verdict::Ok`] refuses appends.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Marks the log damaged after recovery, because a later look found what recovery did not:
    /// it is read-only from here on.
    pub fn mark_damaged(&mut self, verdict: Verdict) {
        assert_ne!(verdict, Verdict::Ok, "a log is never declared healthy again");
        self.verdict = verdict;
    }

    /// True if frames may be appended: undamaged and no storage failure so far.
    #[must_use]
    pub fn accepts_appends(&self) -> bool {
        !self.is_failed && self.verdict == Verdict::Ok
    }

    /// Stops the log after a storage failure: nothing is appended or flushed any more.
    pub fn fail(&mut self) {
        self.is_failed = true;
        self.pending.clear();
    }

    /// Bytes of all segments, headers included.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.segments.iter().map(|state| state.end.position).sum()
    }

    /// Appends a frame: it gets the next position and waits for [`PartitionLog::submit`].
    ///
    /// # Errors
    /// [`WalError::Failed`] when the log does not accept appends.
    ///
    /// # Panics
    /// If the epoch goes backwards or offsets overflow.
    pub fn append(&mut self, frame: NewFrame) -> Result<FrameHeader, WalError> {
        if !self.accepts_appends() {
            return Err(WalError::Failed);
        }
        let header = FrameHeader {
            kind: frame.kind,
            flags: frame.flags,
            epoch: frame.epoch,
            lsn: self.next_lsn,
            base_offset: self.log_end_offset,
            last_offset_delta: frame.last_offset_delta,
            body_len: u32::try_from(frame.body.len()).expect("bodies are below 4 GiB"),
            append_time_ms: frame.append_time_ms,
            body_crc: frame.body_crc,
            prev_chain: self.last_chain,
            record_count: frame.record_count,
        };
        assert!(is_possible_frame(&header), "a reader would refuse the frame: {header:?}");
        let starts_segment = self.roll_if_needed(&header);
        let state = self.segments.back_mut().expect("rolled if there was none");
        let segment = Arc::clone(&state.segment);
        let position = state.end.position;
        assert!(
            state.end.last_lsn.next() == header.lsn && state.end.next_offset == header.base_offset,
            "{header:?} is appended to a segment that ends at {:?}",
            state.end
        );
        let relative = (header.base_offset.0 - segment.header.first_offset.0) as u64;
        state.index.note(header.lsn, relative, position, state.end.max_timestamp);
        state.end.position += header.size();
        state.end.last_lsn = header.lsn;
        state.end.next_offset = header.next_offset();
        state.end.max_timestamp = state.end.max_timestamp.max(frame.max_timestamp);
        state.end.last_chain = header.chain();

        if let Some(start) = log_start_of(&header, &frame.body) {
            assert!(
                start <= header.base_offset,
                "a log that ends at {:?} cannot start at {start:?}",
                header.base_offset
            );
            self.coming_log_starts.push((header.lsn, start));
        }
        self.epochs.note(header.epoch, header.lsn, header.base_offset);
        self.next_lsn = header.lsn.next();
        self.log_end_offset = header.next_offset();
        self.last_chain = state.end.last_chain;
        if self.config.durability == Durability::Fsync {
            self.pending.push(QueuedRecord::Frame(QueuedFrame {
                log: self.identity.id,
                generation: self.generation,
                starts_segment,
                header,
                body: frame.body.clone(),
                segment: Arc::clone(&segment),
                position,
                flushed_lsn: self.flushed_lsn,
            }));
        }
        self.tail.push(TailFrame {
            header,
            body: frame.body,
            segment,
            position,
            is_in_segment: false,
            is_flushed: false,
        });
        self.tail.evict(self.flushed_lsn.next());
        self.check();
        Ok(header)
    }

    fn roll_if_needed(&mut self, header: &FrameHeader) -> bool {
        let open = self.segments.back().filter(|state| !state.is_sealed && !self.must_roll);
        let is_empty = |state: &SegmentState| state.end.position == SEGMENT_HEADER_SIZE;
        let fits = open.is_some_and(|state| {
            let age_ms = header.append_time_ms.saturating_sub(self.segment_opened_ms);
            is_empty(state)
                || (state.end.position + header.size() <= self.config.segment_bytes
                    && age_ms < self.config.segment_ms)
        });
        if fits {
            let starts = open.is_some_and(is_empty);
            if starts {
                self.segment_opened_ms = header.append_time_ms;
            }
            return starts;
        }
        self.must_roll = false;
        self.is_table_stale = true;
        self.segment_opened_ms = header.append_time_ms;
        let number = self.next_segment_number;
        self.next_segment_number += 1;
        let segment_header = SegmentHeader {
            topic_id: self.identity.topic_id,
            partition: self.identity.partition,
            number,
            first_lsn: header.lsn,
            first_offset: header.base_offset,
            epoch: header.epoch,
            generation: self.generation,
            prev_chain: header.prev_chain,
            nonce: self.context.nonces.next(),
        };
        if let Some(last) = self.segments.back() {
            assert!(
                is_next_segment(&last.segment.header, &last.end, &segment_header),
                "{segment_header:?} is begun behind {:?} of {:?}",
                last.end,
                last.segment.header
            );
        }
        let segment = Segment::new(
            Arc::clone(&self.context.disk),
            &self.directory,
            segment_header,
            self.config.segment_bytes,
        );
        self.segments.push_back(SegmentState {
            segment: Arc::new(segment),
            end: SegmentEnd::empty(&segment_header),
            is_sealed: false,
            index: SparseIndex::default(),
            needs_sync: false,
        });
        true
    }

    /// Queues a new opaque state (epoch, vote); it is durable when the group that carries it is.
    pub fn set_log_state(&mut self, state: Bytes) {
        self.state = state.clone();
        self.is_state_stale = true;
        self.pending.push(QueuedRecord::LogState {
            log: self.identity.id,
            generation: self.generation,
            state,
        });
    }

    /// Hands everything appended since the last call to the disk: `fsync` frames to the lane,
    /// which reports through its [`crate::group_commit::FlushSink`] to shard `origin`; `os`
    /// frames to the page cache, flushed when this returns. Called once per turn.
    ///
    /// # Errors
    /// [`WalError::Failed`] or a failed write; the log has stopped.
    pub fn submit(&mut self, origin: u16) -> Result<(), WalError> {
        if self.is_failed {
            return Err(WalError::Failed);
        }
        self.mark_dirty();
        if self.config.durability == Durability::Os {
            self.write_unsynced().inspect_err(|_| self.is_failed = true)?;
        }
        if !self.pending.is_empty() {
            self.context.lane.submit(origin, &mut self.pending).inspect_err(|_| {
                self.is_failed = true;
            })?;
        }
        self.check();
        Ok(())
    }

    fn mark_dirty(&mut self) {
        if !self.is_marked_dirty {
            self.is_marked_dirty = true;
            (self.context.mark_dirty)(self.identity.id);
        }
    }

    /// `os` durability: the buffered write of this turn's frames.
    fn write_unsynced(&mut self) -> Result<(), WalError> {
        while let Some(work) = self.write_behind_from(self.written_lsn, self.next_lsn.previous()) {
            work.run()?;
            self.note_written(&work);
        }
        assert_eq!(
            self.written_lsn,
            self.next_lsn.previous(),
            "frames count as flushed once all of them are written"
        );
        self.flushed_lsn = self.next_lsn.previous();
        self.flushed_offset = self.log_end_offset;
        Ok(())
    }

    /// Applies a completion of the lane. Returns `false` when it belongs to an older generation
    /// and was ignored (I16).
    pub fn on_flushed(&mut self, flushed: &Flushed) -> bool {
        if flushed.generation != self.generation || self.is_failed {
            return false;
        }
        assert!(
            flushed.lsn < self.next_lsn,
            "flushed {:?} must lie in the log that ends before {:?}",
            flushed.lsn,
            self.next_lsn
        );
        assert!(
            flushed.first_lsn <= flushed.lsn.next(),
            "a group of {:?} to {:?}",
            flushed.first_lsn,
            flushed.lsn
        );
        self.journaled_generation = flushed.generation;
        if flushed.is_in_segment {
            self.tail.mark_written(flushed.first_lsn, flushed.lsn);
            for state in self.segments.iter_mut().rev() {
                state.needs_sync = true;
                if state.segment.header.first_lsn <= flushed.first_lsn {
                    break;
                }
            }
            self.advance_written();
        }
        if flushed.lsn > self.flushed_lsn {
            self.tail.mark_flushed(self.flushed_lsn.next(), flushed.lsn);
            self.flushed_lsn = flushed.lsn;
            let frame = self.tail.get(flushed.lsn).expect("unflushed frames stay in memory");
            let flushed_offset = frame.header.next_offset();
            assert!(
                flushed_offset >= self.flushed_offset,
                "{flushed_offset:?} is flushed behind {:?}",
                self.flushed_offset
            );
            self.flushed_offset = flushed_offset;
        }
        self.check();
        true
    }

    fn advance_written(&mut self) {
        while self.tail.get(self.written_lsn.next()).is_some_and(|frame| frame.is_in_segment) {
            self.written_lsn = self.written_lsn.next();
        }
    }

    /// Journaled frames that still have to be written to a segment, at most about 1 MiB of one
    /// segment; `None` when there are none.
    #[must_use]
    pub fn take_write_behind(&self) -> Option<WriteBehind> {
        self.write_behind_from(self.written_lsn, self.flushed_lsn)
    }

    fn write_behind_from(&self, written: Lsn, last: Lsn) -> Option<WriteBehind> {
        const BYTES_MAX: u64 = 1 << 20;
        if self.is_failed {
            return None;
        }
        let mut frames = self
            .tail
            .frames_from_lsn(written.next())
            .take_while(|frame| frame.header.lsn <= last)
            .skip_while(|frame| frame.is_in_segment)
            .take_while(|frame| !frame.is_in_segment);
        let first = frames.next()?;
        let mut work = WriteBehind {
            segment: Arc::clone(&first.segment),
            generation: self.generation,
            position: first.position,
            frames: vec![(first.header, first.body.clone())],
        };
        let mut bytes = first.header.size();
        for frame in frames {
            if bytes >= BYTES_MAX || !Arc::ptr_eq(&frame.segment, &work.segment) {
                break;
            }
            assert_eq!(
                frame.position,
                work.position + bytes,
                "{:?} is written right behind the frames before it",
                frame.header.lsn
            );
            bytes += frame.header.size();
            work.frames.push((frame.header, frame.body.clone()));
        }
        Some(work)
    }

    /// Takes note of a finished [`WriteBehind`].
    pub fn finish_write_behind(&mut self, work: &WriteBehind) {
        if work.generation == self.generation {
            self.note_written(work);
            assert!(
                self.written_lsn <= self.flushed_lsn,
                "{:?} reached its segment before the journal, which has {:?}",
                self.written_lsn,
                self.flushed_lsn
            );
            self.check();
        }
    }

    fn note_written(&mut self, work: &WriteBehind) {
        let first = work.frames.first().expect("work is never empty").0.lsn;
        let last = work.frames.last().expect("work is never empty").0.lsn;
        self.tail.mark_written(first, last);
        for state in &mut self.segments {
            if Arc::ptr_eq(&state.segment, &work.segment) {
                state.needs_sync = true;
            }
        }
        self.advance_written();
        self.tail.evict(self.flushed_lsn.next());
    }

    /// Lets go of written frames in memory while the node's budget is exceeded.
    pub fn evict_tail(&mut self) {
        self.tail.evict(self.flushed_lsn.next());
    }

    /// Files to make durable so that the journal can forget this log's frames; `None` when
    /// everything written is synced.
    #[must_use]
    pub fn take_sync_work(&mut self) -> Option<SyncWork> {
        if self.is_failed {
            return None;
        }
        let mut segments = Vec::new();
        for state in self.segments.iter_mut().filter(|state| state.needs_sync) {
            state.needs_sync = false;
            segments.push(Arc::clone(&state.segment));
        }
        let cut_generation = self.journaled_generation;
        let is_journaled = |(generation, _): &mut (u32, SegmentCut)| *generation <= cut_generation;
        let cuts = self.pending_cuts.extract_if(.., is_journaled).map(|(_, cut)| cut);
        let cuts: Vec<SegmentCut> = cuts.collect();
        let is_cut = cuts.is_empty() && cut_generation == self.cut_generation;
        if segments.is_empty() && is_cut && self.synced_lsn == self.written_lsn {
            return None;
        }
        Some(SyncWork {
            generation: self.generation,
            written_lsn: self.written_lsn,
            cut_generation,
            cuts,
            segments,
            disk: Arc::clone(&self.context.disk),
            directory: self.directory.clone(),
        })
    }

    /// Takes note of a finished [`SyncWork`].
    pub fn finish_sync_work(&mut self, work: &SyncWork) {
        self.cut_generation = self.cut_generation.max(work.cut_generation);
        self.uncut.retain(|(generation, _)| *generation > self.cut_generation);
        if work.generation == self.generation {
            self.synced_lsn = self.synced_lsn.max(work.written_lsn);
        }
        self.check();
    }

    /// True if the journal does not need this log's records up to `mark` any more. A log that
    /// failed needs them all: what its files hold is known only after a restart.
    #[must_use]
    pub fn covers(&self, mark: &JournalMark) -> bool {
        // Frames that are being removed are not waited for: the record of their removal may
        // itself wait for room in the journal.
        let later = self.uncut.iter().filter(|(generation, _)| *generation > mark.generation);
        let needed = later.map(|(_, kept)| *kept).fold(mark.lsn, Lsn::min);
        !self.is_failed
            && self.cut_generation >= mark.generation
            && self.synced_lsn >= needed.min(self.next_lsn.previous())
    }

    /// A snapshot of `state`, which the owner derived from all frames appended so far.
    #[must_use]
    pub fn snapshot_of(&self, state: Vec<u8>) -> StateSnapshot {
        let coming = self.coming_log_starts.iter().map(|(_, start)| *start);
        let log_start_offset = coming.fold(self.log_start_offset, Offset::max);
        StateSnapshot {
            lsn: self.next_lsn.previous().0,
            chain: self.last_chain,
            next_offset: self.log_end_offset.0,
            log_start_offset: log_start_offset.0,
            epochs: StateSnapshot::epoch_rows(&self.epochs),
            state,
        }
    }

    /// Everything up to here is durable in segments.
    #[must_use]
    pub fn synced_lsn(&self) -> Lsn {
        self.synced_lsn
    }

    /// Truncations so far.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// What the next recovery has to know about the log.
    pub(crate) fn take_hard_state(&mut self) -> HardStateRow {
        self.is_state_stale = false;
        HardStateRow {
            log_id: self.identity.id.0,
            state: self.state.clone(),
            synced_lsn: self.synced_lsn.max(self.proven_lsn).0,
            generation: self.generation,
            is_damaged: self.verdict == Verdict::JournalDamaged,
        }
    }

    /// True if the log has nothing left to write, sync, seal or store.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let last = self.next_lsn.previous();
        self.is_failed
            || (self.synced_lsn == last
                && self.pending_cuts.is_empty()
                && !self.is_state_stale
                && self.removable.is_empty()
                && !self.is_table_stale
                && self.next_seal().is_none())
    }

    /// Lets the next [`PartitionLog::submit`] report the log as dirty again.
    pub fn clear_dirty_mark(&mut self) {
        self.is_marked_dirty = false;
    }

    /// Files of a damaged log, and files that wait for a cut, stay as they are.
    fn next_seal(&self) -> Option<usize> {
        if self.verdict != Verdict::Ok || !self.pending_cuts.is_empty() {
            return None;
        }
        let full = self.segments.len().saturating_sub(1);
        self.segments
            .range(..full)
            .position(|state| !state.is_sealed && state.end.last_lsn <= self.synced_lsn)
    }

    /// The oldest full segment without a footer.
    #[must_use]
    pub fn take_seal_work(&self) -> Option<SealWork> {
        let state = &self.segments[self.next_seal().filter(|_| !self.is_failed)?];
        Some(SealWork {
            segment: Arc::clone(&state.segment),
            generation: self.generation,
            index: state.index.clone(),
            end: state.end,
        })
    }

    /// Takes note of a finished [`SealWork`]. A truncation meanwhile may have cut the segment:
    /// then the footer goes with the cut that waits for it.
    pub fn finish_seal_work(&mut self, work: &SealWork) {
        if work.generation != self.generation {
            return;
        }
        for state in &mut self.segments {
            if Arc::ptr_eq(&state.segment, &work.segment) {
                assert_eq!(state.end, work.end, "a segment that is sealed does not grow");
                state.is_sealed = true;
                state.index = SparseIndex::default();
                self.is_table_stale = true;
            }
        }
    }

    /// The table of segments, if it changed since the last call.
    pub fn take_segment_table(&mut self) -> Option<SegmentTable> {
        let is_stale = std::mem::take(&mut self.is_table_stale);
        if !is_stale || self.is_failed || self.verdict != Verdict::Ok {
            return None;
        }
        let rows = self.segments.iter().map(|state| SegmentRow {
            number: state.segment.header.number,
            first_lsn: state.segment.header.first_lsn.0,
            first_offset: state.segment.header.first_offset.0,
            last_lsn: if state.is_sealed { state.end.last_lsn.0 } else { 0 },
            next_offset: if state.is_sealed { state.end.next_offset.0 } else { 0 },
            max_timestamp: if state.is_sealed { state.end.max_timestamp } else { -1 },
            frames_end: if state.is_sealed { state.end.position } else { 0 },
            is_sealed: state.is_sealed,
            is_uploaded: false,
        });
        Some(SegmentTable { rows: rows.collect(), generation: self.generation })
    }

    /// Segments whose files may go, now that a table without them is stored; a log that stores
    /// no table keeps its files.
    pub fn take_removable(&mut self) -> Vec<Arc<Segment>> {
        if self.is_failed || self.verdict != Verdict::Ok {
            return Vec::new();
        }
        std::mem::take(&mut self.removable)
    }

    /// Where the bytes from `offset` up to `upper` (exclusive) are. At least one whole batch is
    /// returned even if it is larger than `bytes_max`.
    ///
    /// # Errors
    /// [`WalError::OutOfRange`] below the log start or above the log end.
    pub fn read(
        &self,
        offset: Offset,
        upper: Offset,
        bytes_max: usize,
    ) -> Result<ReadPlan, WalError> {
        if offset < self.log_start_offset || offset > self.log_end_offset {
            return Err(WalError::OutOfRange {
                offset,
                start: self.log_start_offset,
                end: self.log_end_offset,
            });
        }
        if offset >= upper {
            return Ok(ReadPlan::Empty);
        }
        if let Some(frames) = self.tail.frames_from_offset(offset) {
            let (mut taken, mut count, mut bytes) = (0, 0, 0);
            for frame in frames.clone() {
                let is_data = frame.header.kind == FrameKind::Data;
                if frame.header.next_offset() > upper
                    || (count > 0 && bytes + frame.body.len() > bytes_max)
                {
                    break;
                }
                taken += 1;
                count += usize::from(is_data);
                bytes += if is_data { frame.body.len() } else { 0 };
            }
            let mut bodies = Vec::with_capacity(count);
            let data = frames.take(taken).filter(|frame| frame.header.kind == FrameKind::Data);
            bodies.extend(data.map(|frame| frame.body.clone()));
            return Ok(if bodies.is_empty() { ReadPlan::Empty } else { ReadPlan::Memory(bodies) });
        }
        Ok(self.segment_range(offset, upper, bytes_max).map_or(ReadPlan::Empty, ReadPlan::Segment))
    }

    fn segment_range(
        &self,
        offset: Offset,
        upper: Offset,
        bytes_max: usize,
    ) -> Option<SegmentRange> {
        let index = self.segments.partition_point(|state| state.end.next_offset <= offset);
        let state = self.segments.get(index)?;
        Some(SegmentRange {
            segment: Arc::clone(&state.segment),
            start_position: (!state.is_sealed).then(|| {
                let relative = offset.0.saturating_sub(state.segment.header.first_offset.0);
                let position = state.index.position_of(relative.max(0) as u64);
                position.unwrap_or(SEGMENT_HEADER_SIZE)
            }),
            end_position: self.written_end(state),
            offset,
            upper,
            bytes_max,
            is_rest: false,
        })
    }

    /// Position up to which a segment's file holds frames.
    fn written_end(&self, state: &SegmentState) -> u64 {
        let first_unwritten = self
            .tail
            .front()
            .filter(|frame| Arc::ptr_eq(&frame.segment, &state.segment) && !self.tail.is_empty());
        first_unwritten.map_or(state.end.position, |frame| frame.position)
    }

    /// Where to look for the first record with a timestamp of at least `timestamp`; `None` when
    /// no record of the log can match.
    #[must_use]
    pub fn lookup_start_for_time(&self, timestamp: i64) -> Option<TimeLookup> {
        let state = self.segments.iter().find(|state| state.end.max_timestamp >= timestamp)?;
        let relative = (!state.is_sealed).then(|| state.index.relative_offset_of_time(timestamp));
        Some(TimeLookup {
            segment: Arc::clone(&state.segment),
            relative,
            timestamp,
            log_start_offset: self.log_start_offset,
        })
    }

    /// The first offset of the segment that holds the log's largest timestamp; `None` for a log
    /// without records.
    #[must_use]
    pub fn lookup_start_for_max_time(&self) -> Option<(Offset, i64)> {
        let mut best: Option<&SegmentState> = None;
        for state in &self.segments {
            if state.end.max_timestamp >= 0
                && best.is_none_or(|best| state.end.max_timestamp > best.end.max_timestamp)
            {
                best = Some(state);
            }
        }
        best.map(|state| {
            let first = state.segment.header.first_offset.max(self.log_start_offset);
            (first, state.end.max_timestamp)
        })
    }

    /// Removes all frames from `lsn` on. They must not be committed; the caller asserts that.
    /// The journal learns of the cut before any new frame.
    ///
    /// # Errors
    /// A failed read of the segment that is cut; the log has stopped.
    ///
    /// # Panics
    /// If `lsn` lies below the first frame in the log's segments.
    pub fn truncate(&mut self, lsn: Lsn) -> Result<(), WalError> {
        if lsn >= self.next_lsn {
            return Ok(());
        }
        let (kept, end, index) = self.cut_at(lsn).inspect_err(|_| self.is_failed = true)?;
        assert_eq!(end.last_lsn, lsn.previous(), "the log ends right before the cut");
        assert!(
            is_end_of(&self.segments[kept].segment.header, &end),
            "{end:?} is no end of {:?}",
            self.segments[kept].segment.header
        );
        self.generation += 1;
        self.tail.truncate(lsn);
        self.pending.retain(
            |record| !matches!(record, QueuedRecord::Frame(frame) if frame.header.lsn >= lsn),
        );
        self.pending.push(QueuedRecord::Truncated {
            log: self.identity.id,
            generation: self.generation,
            lsn,
        });
        let mut cuts = vec![SegmentCut::SnapshotsFrom(lsn)];
        cuts.extend(
            self.segments.drain(kept + 1..).rev().map(|state| SegmentCut::Remove(state.segment)),
        );
        let last = &mut self.segments[kept];
        let segment = Arc::clone(&last.segment);
        cuts.push(SegmentCut::Cut { segment, position: end.position });
        let generation = self.generation;
        self.pending_cuts.extend(cuts.into_iter().map(|cut| (generation, cut)));
        last.end = end;
        last.index = index;
        last.is_sealed = false;
        last.needs_sync = true;
        self.must_roll = true;
        self.is_table_stale = true;
        self.coming_log_starts.retain(|(coming, _)| *coming < lsn);
        self.epochs.truncate(lsn);
        self.next_lsn = lsn;
        self.log_end_offset = end.next_offset;
        self.last_chain = end.last_chain;
        let last = lsn.previous();
        self.uncut.push((self.generation, last));
        self.written_lsn = self.written_lsn.min(last);
        self.synced_lsn = self.synced_lsn.min(last);
        self.proven_lsn = self.proven_lsn.min(last);
        if self.flushed_lsn > last {
            self.flushed_lsn = last;
            self.flushed_offset = end.next_offset;
        }
        self.check();
        Ok(())
    }

    /// Which segment is the last one once frames from `lsn` on are gone, where it ends then, and
    /// its index. The first segment stays even if it loses all its frames: it says where the
    /// log begins.
    fn cut_at(&self, lsn: Lsn) -> Result<(usize, SegmentEnd, SparseIndex), WalError> {
        let kept = self.segments.partition_point(|state| state.segment.header.first_lsn < lsn);
        let kept = kept.saturating_sub(1);
        let state = &self.segments[kept];
        let header = &state.segment.header;
        assert!(header.first_lsn <= lsn, "{lsn:?} lies below the first segment, {header:?}");
        let mut index = match state.is_sealed {
            true => (*state.segment.sealed_index()?).clone(),
            false => state.index.clone(),
        };
        index.truncate(lsn);
        if let Some(frame) = self.tail.get(lsn.previous()).filter(|_| header.first_lsn < lsn) {
            let end = SegmentEnd {
                last_lsn: frame.header.lsn,
                last_chain: frame.header.chain(),
                next_offset: frame.header.next_offset(),
                max_timestamp: state.end.max_timestamp,
                position: frame.position + frame.header.size(),
            };
            return Ok((kept, end, index));
        }
        let max_timestamp = state.end.max_timestamp;
        let mut end = SegmentEnd { max_timestamp, ..SegmentEnd::empty(header) };
        if header.first_lsn == lsn {
            return Ok((kept, end, index));
        }
        let reached = reader::scan_segment(&state.segment, self.written_end(state), |frame| {
            if frame.header.lsn < lsn {
                end.last_lsn = frame.header.lsn;
                end.last_chain = frame.header.chain();
                end.next_offset = frame.header.next_offset();
                end.position = frame.position + frame.header.size();
            }
            frame.header.lsn < lsn
        })?;
        match reached.damage {
            Some(damage) => Err(damage),
            None => Ok((kept, end, index)),
        }
    }

    /// Raises the first readable offset and drops whole segments below it. The caller has made
    /// the new start durable (a [`FrameKind::LogStart`] frame) and taken a state snapshot behind
    /// the dropped frames.
    pub fn trim_to(&mut self, log_start_offset: Offset) {
        assert!(
            log_start_offset <= self.log_end_offset,
            "log start {log_start_offset:?} must not pass the log end {:?}",
            self.log_end_offset
        );
        self.log_start_offset = self.log_start_offset.max(log_start_offset);
        self.coming_log_starts.retain(|(_, start)| *start > self.log_start_offset);
        while self.segments.len() > 1
            && self.segments[0].is_sealed
            && self.segments[0].end.next_offset <= self.log_start_offset
        {
            let state = self.segments.pop_front().expect("just seen");
            assert!(
                state.end.last_lsn <= self.synced_lsn,
                "the journal still holds frames of a removed segment: {:?}, synced {:?}",
                state.end,
                self.synced_lsn
            );
            self.removable.push(state.segment);
            self.is_table_stale = true;
        }
        self.mark_dirty();
    }

    /// Sealed segments, oldest first: (next offset, bytes, largest timestamp). What retention
    /// decides on.
    pub fn sealed_segments(&self) -> impl Iterator<Item = (Offset, u64, i64)> {
        self.segments
            .iter()
            .take_while(|state| state.is_sealed)
            .map(|state| (state.end.next_offset, state.end.position, state.end.max_timestamp))
    }

    /// Hands every frame from `from` on to `visit`, verified, in order, as far as frames are in
    /// segments. For rebuilding derived state at start. Blocks.
    ///
    /// # Errors
    /// A failed read, or [`WalError::Damaged`].
    pub fn replay(
        &self,
        from: Lsn,
        mut visit: impl FnMut(&FrameHeader, &[u8]),
    ) -> Result<(), WalError> {
        for state in &self.segments {
            if state.end.last_lsn < from || state.end.position == SEGMENT_HEADER_SIZE {
                continue;
            }
            // An open segment was verified when it was written or recovered; of a sealed one the
            // index is in the file.
            let begin = state.index.entry_before(from);
            let end = state.end.position;
            let reached = reader::scan_segment_from(&state.segment, begin, end, |frame| {
                if frame.header.lsn >= from {
                    visit(&frame.header, frame.body);
                }
                true
            })?;
            if let Some(damage) = reached.damage {
                return Err(damage);
            }
        }
        Ok(())
    }
}
