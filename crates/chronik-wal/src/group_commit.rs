//! A lane: one queue, one journal ring, one commit thread. Everything queued while a sync runs
//! becomes the next group; there is no timer.
//!
//! ```text
//! any thread --submit--> queue --take all--> group --write, sync--> FlushSink, once per origin
//! ```
//!
//! Owns the order "queued, synced, published". Does not know what a completion means to a
//! partition, and never retries: after a failed write or sync the lane accepts nothing more and
//! publishes nothing more.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::Thread;
use std::time::Duration;

use bytes::Bytes;
use chronik_common::{Clock, Lsn};

use crate::error::WalError;
use crate::frame::{FRAME_HEADER_SIZE, FrameHeader};
use crate::group_buffer::GroupBuffer;
use crate::io::{Disk, DiskError, DiskResult};
use crate::journal::{
    FLAG_STARTS_SEGMENT, GROUP_ALIGNMENT, GroupHeader, LogId, RECORD_HEADER_SIZE, RecordHeader,
    RecordKind, RingPosition, RingWalk, group_size, pack_segment_position,
};
use crate::ring_file::RingFile;
use crate::segment::Segment;
use crate::tail::TailBudget;

/// Completions looked at to merge a frame into its log's completion.
const LOOK_BACK: usize = 8;

/// Records of a group behind which more come at once: many producers wait for answers.
const BUSY_GROUP_RECORDS: usize = 12;

/// How often the commit thread then lets others have its core before it takes the next group.
const TURNS_FOR_OTHERS: usize = 2;

/// How long the commit thread waits for the background worker before it looks again.
const BACKLOG_WAIT: Duration = Duration::from_millis(5);

/// A frame on its way to the disk.
#[derive(Clone, Debug)]
pub struct QueuedFrame {
    /// The log.
    pub log: LogId,
    /// Truncations of the log when it was queued.
    pub generation: u32,
    /// True for the first frame of a segment.
    pub starts_segment: bool,
    /// The frame's header.
    pub header: FrameHeader,
    /// The frame's body.
    pub body: Bytes,
    /// Where the frame belongs.
    pub segment: Arc<Segment>,
    /// Its position there.
    pub position: u64,
    /// What the log knew to be durable when the frame was queued.
    pub flushed_lsn: Lsn,
}

/// Something on its way to the journal.
#[derive(Clone, Debug)]
pub enum QueuedRecord {
    /// A frame.
    Frame(QueuedFrame),
    /// The log was cut: frames from `lsn` on are gone.
    Truncated {
        /// The log.
        log: LogId,
        /// Its generation from now on.
        generation: u32,
        /// First frame removed.
        lsn: Lsn,
    },
    /// New opaque state of a log.
    LogState {
        /// The log.
        log: LogId,
        /// Its generation.
        generation: u32,
        /// The state.
        state: Bytes,
    },
}

impl QueuedRecord {
    fn bytes(&self) -> usize {
        RECORD_HEADER_SIZE
            + match self {
                Self::Frame(frame) => FRAME_HEADER_SIZE + frame.body.len(),
                Self::Truncated { .. } => 0,
                Self::LogState { state, .. } => state.len(),
            }
    }

    fn cuts(&self, of: LogId) -> bool {
        matches!(self, Self::Truncated { log, .. } if *log == of)
    }
}

/// One log's frames became durable, or a cut of it did: then `lsn` is the last frame left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flushed {
    /// The log.
    pub log: LogId,
    /// Generation of the frames; a completion of an older generation must be ignored.
    pub generation: u32,
    /// The last durable frame.
    pub lsn: Lsn,
    /// True if the frames went straight to their segment.
    pub is_in_segment: bool,
    /// First frame of the group.
    pub first_lsn: Lsn,
}

/// Who is told about durable frames. Called on the commit thread: must not block.
pub trait FlushSink: Send + Sync + 'static {
    /// Frames appended by `origin` (a shard number) are durable; one call per group and origin.
    fn flushed(&self, origin: u16, flushed: &[Flushed]);
    /// The lane failed: nothing queued since the last completion is or will be durable.
    fn lane_failed(&self, error: &DiskError);
}

/// Settings of a lane.
#[derive(Clone, Debug)]
pub struct LaneConfig {
    /// Number of the lane, for messages and the group header.
    pub lane: u16,
    /// The ring's files.
    pub ring_files: Vec<PathBuf>,
    /// Bytes per ring file; a multiple of 4 KiB.
    pub ring_file_bytes: u64,
    /// Tells the ring's groups from foreign bytes.
    pub ring_nonce: u32,
    /// Most bytes in one group.
    pub group_bytes_max: usize,
    /// Most records in one group.
    pub group_records_max: usize,
    /// A log with at least this many bytes in one group bypasses the journal; 0 turns it off.
    pub bypass_bytes: usize,
    /// Artificial delay of every sync, for experiments on machines with fast disks.
    pub sync_delay: Duration,
}

/// Counters of a lane since the start.
#[derive(Debug, Default)]
pub struct LaneCounters {
    /// Groups written.
    pub groups: AtomicU64,
    /// Journal syncs.
    pub syncs: AtomicU64,
    /// Frames made durable.
    pub frames: AtomicU64,
    /// Bytes written to the ring, padding included.
    pub journal_bytes: AtomicU64,
    /// Bytes written straight to segments.
    pub bypass_bytes: AtomicU64,
    /// Bytes of frames made durable.
    pub frame_bytes: AtomicU64,
}

#[derive(Default)]
struct Queue {
    records: VecDeque<(u16, QueuedRecord)>,
    is_closed: bool,
    is_failed: bool,
}

/// What the journal holds per log since the last checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JournalMark {
    /// Generation of the newest record.
    pub generation: u32,
    /// Last frame.
    pub lsn: Lsn,
}

#[derive(Debug)]
struct RingUse {
    /// Sequence of the next group.
    next_sequence: u64,
    /// Groups below this are not needed any more.
    oldest_needed: u64,
    /// Per file: last sequence it holds; 0 if none.
    last_sequences: Vec<u64>,
    /// What must be in segments before the groups written so far can be forgotten.
    marks: HashMap<LogId, JournalMark>,
}

struct LaneShared {
    config: LaneConfig,
    queue: Mutex<Queue>,
    /// Bytes in the queue. Changed under its lock, read without: every request asks.
    queued_bytes: AtomicUsize,
    is_asleep: AtomicBool,
    committer: Mutex<Option<Thread>>,
    ring_use: Mutex<RingUse>,
    ring_freed: Condvar,
    counters: LaneCounters,
    budget: Arc<TailBudget>,
    kick_worker: Box<dyn Fn() + Send + Sync>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder of a lane's locks panics")
}

/// Handle to a lane; cheap to clone.
#[derive(Clone)]
pub struct LaneHandle {
    shared: Arc<LaneShared>,
}

impl LaneHandle {
    /// Queues records appended by `origin`, in order, and wakes the commit thread if it sleeps.
    /// `records` is left empty, its memory kept.
    ///
    /// # Errors
    /// [`WalError::Failed`] after a failure or a stop; then nothing was queued.
    pub fn submit(&self, origin: u16, records: &mut Vec<QueuedRecord>) -> Result<(), WalError> {
        {
            let mut queue = lock(&self.shared.queue);
            if queue.is_failed || queue.is_closed {
                records.clear();
                return Err(WalError::Failed);
            }
            for record in records.drain(..) {
                self.shared.queued_bytes.fetch_add(record.bytes(), Ordering::SeqCst);
                queue.records.push_back((origin, record));
            }
        }
        self.wake();
        Ok(())
    }

    fn wake(&self) {
        if self.shared.is_asleep.swap(false, Ordering::SeqCst)
            && let Some(thread) = lock(&self.shared.committer).as_ref()
        {
            thread.unpark();
        }
    }

    /// Stops the commit thread after what is queued now.
    pub fn close(&self) {
        lock(&self.shared.queue).is_closed = true;
        self.wake();
    }

    /// Bytes waiting in the queue.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.shared.queued_bytes.load(Ordering::SeqCst)
    }

    /// Counters since the start.
    #[must_use]
    pub fn counters(&self) -> &LaneCounters {
        &self.shared.counters
    }

    /// What has to be in segments, synced, before [`LaneHandle::finish_checkpoint`] may be
    /// called with the returned sequence.
    #[must_use]
    pub fn begin_checkpoint(&self) -> (u64, Vec<(LogId, JournalMark)>) {
        let ring_use = lock(&self.shared.ring_use);
        let marks = ring_use.marks.iter().map(|(log, mark)| (*log, *mark)).collect();
        (ring_use.next_sequence, marks)
    }

    /// Frees the groups below `sequence`: every mark of the matching
    /// [`LaneHandle::begin_checkpoint`] is synced in its segment.
    pub fn finish_checkpoint(&self, sequence: u64, marks: &[(LogId, JournalMark)]) {
        let mut ring_use = lock(&self.shared.ring_use);
        assert!(
            sequence <= ring_use.next_sequence,
            "groups below {sequence} are freed before group {} is written",
            ring_use.next_sequence
        );
        ring_use.oldest_needed = ring_use.oldest_needed.max(sequence);
        for (log, mark) in marks {
            if ring_use.marks.get(log) == Some(mark) {
                ring_use.marks.remove(log);
            }
        }
        drop(ring_use);
        self.shared.ring_freed.notify_all();
    }

    /// Share of the ring in use, in 0..=1: at 1 the commit thread waits for a checkpoint.
    #[must_use]
    pub fn ring_fill(&self) -> f64 {
        let ring_use = lock(&self.shared.ring_use);
        let needed =
            ring_use.last_sequences.iter().filter(|last| **last >= ring_use.oldest_needed).count();
        needed as f64 / ring_use.last_sequences.len() as f64
    }

    /// Tells the commit thread that the background worker made progress.
    pub fn backlog_shrank(&self) {
        self.shared.ring_freed.notify_all();
    }
}

/// The commit side of a lane: owns the ring. Driven by [`Lane::run`] on its own thread, or step
/// by step by a simulator.
pub struct Lane {
    shared: Arc<LaneShared>,
    sink: Arc<dyn FlushSink>,
    clock: Arc<dyn Clock>,
    files: Vec<RingFile>,
    position: RingPosition,
    taken: Vec<(u16, QueuedRecord)>,
    /// Records of the last group.
    last_group: usize,
    group: GroupBuffer,
    completions: Vec<(u16, Flushed)>,
    published: Vec<Flushed>,
}

impl Lane {
    /// Opens the ring of a lane, whose files exist durably in their full length, and continues it
    /// where recovery's `walk` ended. `kick_worker` asks the background worker for a checkpoint.
    ///
    /// # Errors
    /// A failed disk call.
    pub fn open(
        disk: &Arc<dyn Disk>,
        config: LaneConfig,
        walk: &RingWalk,
        budget: Arc<TailBudget>,
        sink: Arc<dyn FlushSink>,
        clock: Arc<dyn Clock>,
        kick_worker: Box<dyn Fn() + Send + Sync>,
    ) -> DiskResult<(Self, LaneHandle)> {
        assert!(config.ring_files.len() >= 2, "a ring needs a file to write while one is freed");
        let mut files = Vec::with_capacity(config.ring_files.len());
        let position = walk.end;
        assert_eq!(walk.is_used.len(), config.ring_files.len(), "the whole ring was walked");
        assert!(
            position.next_sequence > 0 && position.position.is_multiple_of(GROUP_ALIGNMENT),
            "a ring goes on at a block of its own: {position:?}"
        );
        for (index, path) in config.ring_files.iter().enumerate() {
            // A file is left only when it is full, so all but the current one are written to
            // the end or not at all.
            let used_to = match walk.is_used[index] {
                // Files may have been longer: then the next group goes to the next file.
                _ if index == position.file => position.position.min(config.ring_file_bytes),
                true => config.ring_file_bytes,
                false => 0,
            };
            files.push(RingFile::open(&**disk, path, config.ring_file_bytes, used_to)?);
        }
        let ring_use = RingUse {
            next_sequence: position.next_sequence,
            oldest_needed: position.next_sequence,
            last_sequences: vec![0; files.len()],
            marks: HashMap::new(),
        };
        let shared = Arc::new(LaneShared {
            config,
            queue: Mutex::default(),
            queued_bytes: AtomicUsize::new(0),
            is_asleep: AtomicBool::new(false),
            committer: Mutex::new(None),
            ring_use: Mutex::new(ring_use),
            ring_freed: Condvar::new(),
            counters: LaneCounters::default(),
            budget,
            kick_worker,
        });
        let handle = LaneHandle { shared: Arc::clone(&shared) };
        let lane_epoch = position.lane_epoch.saturating_add(1);
        let position = RingPosition { lane_epoch, ..position };
        let lane = Self {
            shared,
            sink,
            clock,
            files,
            position,
            taken: Vec::new(),
            last_group: 0,
            group: GroupBuffer::default(),
            completions: Vec::new(),
            published: Vec::new(),
        };
        Ok((lane, handle))
    }

    /// Fills the ring with zeros ahead of the groups, on the calling thread, until that is done or
    /// the lane ends. Commits do not depend on it; they are only slower without.
    ///
    /// # Errors
    /// A file cannot be opened once more.
    pub(crate) fn zero_fill(&self, disk: &dyn Disk) -> DiskResult<impl FnOnce() + Send + use<>> {
        let fill = RingFile::zero_fill(disk, &self.files, self.position.file)?;
        let shared = Arc::clone(&self.shared);
        Ok(move || {
            fill.run(|| {
                let queue = lock(&shared.queue);
                queue.is_closed || queue.is_failed
            });
        })
    }

    /// The commit loop; returns when the lane is closed or failed. The calling thread becomes
    /// the commit thread.
    pub fn run(mut self) {
        *lock(&self.shared.committer) = Some(std::thread::current());
        loop {
            self.let_others_add();
            match self.commit_once() {
                Ok(true) => {}
                Ok(false) if self.is_drained_and_closed() => return,
                Ok(false) => self.sleep(),
                Err(error) => {
                    self.fail(&error);
                    return;
                }
            }
        }
    }

    /// The first of many producers has woken this thread. Shards that are ready to run on its core
    /// add theirs before the group is taken: a third fewer syncs where 64 producers share two
    /// cores. If no shard is ready, this costs two system calls.
    fn let_others_add(&self) {
        if self.last_group >= BUSY_GROUP_RECORDS {
            for _ in 0..TURNS_FOR_OTHERS {
                std::thread::yield_now();
            }
        }
    }

    fn is_drained_and_closed(&self) -> bool {
        let queue = lock(&self.shared.queue);
        queue.is_closed && queue.records.is_empty()
    }

    /// Parks until something is queued. `is_asleep` is set before the queue is looked at once
    /// more, so a submitter either sees it and unparks, or its record is seen here.
    fn sleep(&self) {
        self.shared.is_asleep.store(true, Ordering::SeqCst);
        let queue = lock(&self.shared.queue);
        let has_work = !queue.records.is_empty() || queue.is_closed;
        drop(queue);
        if has_work {
            self.shared.is_asleep.store(false, Ordering::SeqCst);
            return;
        }
        while self.shared.is_asleep.load(Ordering::SeqCst) {
            std::thread::park();
        }
    }

    /// Marks the lane failed and tells the sink; queued records are dropped unacknowledged.
    pub fn fail(&self, error: &DiskError) {
        let mut queue = lock(&self.shared.queue);
        queue.is_failed = true;
        queue.records.clear();
        self.shared.queued_bytes.store(0, Ordering::SeqCst);
        drop(queue);
        self.sink.lane_failed(error);
    }

    /// Commits what is queued now as one group; `false` when nothing was queued.
    ///
    /// # Errors
    /// A failed write or sync: the caller must [`Lane::fail`] the lane.
    pub fn commit_once(&mut self) -> DiskResult<bool> {
        self.wait_for_backlog();
        if !self.take() {
            return Ok(false);
        }
        self.last_group = self.taken.len();
        let is_bypassed = self.write_bypassed()?;
        self.assemble(&is_bypassed);
        self.write_group()?;
        self.publish(&is_bypassed);
        Ok(true)
    }

    /// Holds commits back while frames pile up in memory because segments cannot be written as
    /// fast: slow acknowledgements are the backpressure clients understand.
    fn wait_for_backlog(&self) {
        let mut ring_use = lock(&self.shared.ring_use);
        while self.shared.budget.is_backlogged() && !lock(&self.shared.queue).is_closed {
            (self.shared.kick_worker)();
            ring_use = self
                .shared
                .ring_freed
                .wait_timeout(ring_use, BACKLOG_WAIT)
                .expect("no holder of a lane's locks panics")
                .0;
        }
    }

    fn take(&mut self) -> bool {
        let config = &self.shared.config;
        let mut queue = lock(&self.shared.queue);
        self.taken.clear();
        let mut bytes = 0;
        while let Some((_, record)) = queue.records.front() {
            let size = record.bytes();
            let is_full = self.taken.len() >= config.group_records_max
                || bytes + size > config.group_bytes_max;
            if is_full && !self.taken.is_empty() {
                break;
            }
            bytes += size;
            self.taken.push(queue.records.pop_front().expect("just seen"));
        }
        let before = self.shared.queued_bytes.fetch_sub(bytes, Ordering::SeqCst);
        assert!(before >= bytes, "{bytes} bytes leave a queue of {before}");
        assert_eq!(queue.records.is_empty(), before == bytes, "{bytes} of {before} bytes left");
        !self.taken.is_empty()
    }

    /// Writes and syncs the frames of logs with many bytes in this group straight to their
    /// segments; returns those logs.
    fn write_bypassed(&self) -> DiskResult<Vec<LogId>> {
        let threshold = self.shared.config.bypass_bytes;
        let total: usize = self.taken.iter().map(|(_, record)| record.bytes()).sum();
        if threshold == 0 || total < threshold {
            return Ok(Vec::new());
        }
        let mut bytes: HashMap<LogId, usize> = HashMap::new();
        for frame in self.frames() {
            *bytes.entry(frame.log).or_default() += frame.body.len();
        }
        let mut bypassed: Vec<LogId> = bytes
            .into_iter()
            .filter(|(_, bytes)| *bytes >= threshold)
            .map(|(log, _)| log)
            .collect();
        // Nothing of a new history may reach a segment before the cut is in the journal.
        bypassed.retain(|log| !self.taken.iter().any(|(_, record)| record.cuts(*log)));
        bypassed.sort_unstable();
        for log in &bypassed {
            let frames: Vec<&QueuedFrame> =
                self.frames().filter(|frame| frame.log == *log).collect();
            for run in frames.chunk_by(|a, b| {
                Arc::ptr_eq(&a.segment, &b.segment) && a.position + a.header.size() == b.position
            }) {
                let (first, last) = (run[0], run[run.len() - 1]);
                assert!(
                    last.header.lsn.0 - first.header.lsn.0 == run.len() as u64 - 1
                        && first.generation == last.generation,
                    "{} adjacent frames from {:?} to {:?} are of one history",
                    run.len(),
                    first.header.lsn,
                    last.header.lsn
                );
                let segment = &first.segment;
                let frames = run.iter().map(|frame| (&frame.header, &frame.body));
                segment.write_frames(run[0].position, frames)?;
                segment.sync()?;
                let written: u64 = run.iter().map(|frame| frame.header.size()).sum();
                self.shared.counters.bypass_bytes.fetch_add(written, Ordering::Relaxed);
            }
        }
        Ok(bypassed)
    }

    fn frames(&self) -> impl Iterator<Item = &QueuedFrame> {
        self.taken.iter().filter_map(|(_, record)| match record {
            QueuedRecord::Frame(frame) => Some(frame),
            _ => None,
        })
    }

    fn assemble(&mut self, bypassed: &[LogId]) {
        let Self { group, taken, .. } = self;
        group.reset();
        for (_, record) in taken.iter() {
            match record {
                QueuedRecord::Frame(frame) if bypassed.contains(&frame.log) => {
                    let aux = pack_segment_position(frame.segment.header.number, frame.position);
                    let header =
                        frame_record(frame, RecordKind::SegmentRef, FRAME_HEADER_SIZE, aux);
                    group.push_frame(&header, &frame.header, &[]);
                }
                QueuedRecord::Frame(frame) => {
                    let size = FRAME_HEADER_SIZE + frame.body.len();
                    let header = frame_record(frame, RecordKind::Frame, size, frame.flushed_lsn.0);
                    group.push_frame(&header, &frame.header, &frame.body);
                }
                QueuedRecord::Truncated { log, generation, lsn } => {
                    let header = plain_record(RecordKind::Truncated, *log, *generation, *lsn, 0);
                    group.push(&header, &[]);
                }
                QueuedRecord::LogState { log, generation, state } => {
                    let kind = RecordKind::LogState;
                    let header = plain_record(kind, *log, *generation, Lsn::ZERO, state.len());
                    group.push(&header, state);
                }
            }
        }
        assert_eq!(group.record_count() as usize, taken.len(), "every record is in the group");
    }

    fn write_group(&mut self) -> DiskResult<()> {
        let (payload_len, payload_crc) = self.group.finish();
        let size = group_size(payload_len);
        self.make_room(size);
        let oldest_needed = lock(&self.shared.ring_use).oldest_needed;
        assert!(
            oldest_needed <= self.position.next_sequence,
            "group {} is written and said not to be needed: {oldest_needed}",
            self.position.next_sequence
        );
        let header = GroupHeader {
            lane: self.shared.config.lane,
            record_count: self.group.record_count(),
            lane_epoch: self.position.lane_epoch,
            sequence: self.position.next_sequence,
            payload_len: u32::try_from(payload_len).expect("groups are below 4 GiB"),
            payload_crc,
            previous_header_crc: self.position.previous_header_crc,
            ring_nonce: self.shared.config.ring_nonce,
            oldest_needed,
            wall_ms: self.clock.wall().0,
        };
        let group = self.group.bytes_with(&header);
        self.files[self.position.file].write_group(self.position.position, group)?;
        self.delay_sync();
        self.shared.counters.groups.fetch_add(1, Ordering::Relaxed);
        self.shared.counters.syncs.fetch_add(1, Ordering::Relaxed);
        self.shared.counters.journal_bytes.fetch_add(size, Ordering::Relaxed);
        self.position.position += size;
        self.position.next_sequence += 1;
        self.position.previous_header_crc = header.checksum();
        Ok(())
    }

    #[allow(clippy::disallowed_methods, reason = "a delay asked for by the operator, in real time")]
    fn delay_sync(&self) {
        if !self.shared.config.sync_delay.is_zero() {
            std::thread::sleep(self.shared.config.sync_delay);
        }
    }

    /// Moves to the next ring file when the group does not fit, waiting for a checkpoint if that
    /// file is still needed.
    fn make_room(&mut self, size: u64) {
        let file_bytes = self.shared.config.ring_file_bytes;
        assert!(size <= file_bytes, "a group of {size} bytes must fit a ring file");
        if self.position.position + size <= file_bytes {
            return;
        }
        let next = (self.position.file + 1) % self.files.len();
        (self.shared.kick_worker)();
        let mut ring_use = lock(&self.shared.ring_use);
        while ring_use.last_sequences[next] >= ring_use.oldest_needed
            && ring_use.last_sequences[next] != 0
        {
            (self.shared.kick_worker)();
            ring_use = self
                .shared
                .ring_freed
                .wait_timeout(ring_use, BACKLOG_WAIT)
                .expect("no holder of a lane's locks panics")
                .0;
        }
        self.position.file = next;
        self.position.position = 0;
    }

    /// Notes what the journal now holds, then tells each origin about its frames, once.
    fn publish(&mut self, bypassed: &[LogId]) {
        let mut frames = 0;
        let mut frame_bytes = 0;
        self.completions.clear();
        {
            let mut ring_use = lock(&self.shared.ring_use);
            assert_eq!(
                ring_use.next_sequence + 1,
                self.position.next_sequence,
                "groups are serial: one is published before the next is written"
            );
            ring_use.next_sequence = self.position.next_sequence;
            ring_use.last_sequences[self.position.file] = self.position.next_sequence - 1;
            for (origin, record) in &self.taken {
                let (log, mark) = match record {
                    QueuedRecord::Frame(frame) => {
                        frames += 1;
                        frame_bytes += frame.header.size();
                        add_completion(&mut self.completions, *origin, frame, bypassed);
                        let mark =
                            JournalMark { generation: frame.generation, lsn: frame.header.lsn };
                        (frame.log, mark)
                    }
                    QueuedRecord::Truncated { log, generation, lsn } => {
                        let last = lsn.previous();
                        self.completions.push((*origin, completed_cut(*log, *generation, *lsn)));
                        (*log, JournalMark { generation: *generation, lsn: last })
                    }
                    QueuedRecord::LogState { log, generation, .. } => {
                        let lsn = ring_use.marks.get(log).map_or(Lsn::ZERO, |mark| mark.lsn);
                        (*log, JournalMark { generation: *generation, lsn })
                    }
                };
                let before = ring_use.marks.insert(log, mark).unwrap_or(mark);
                assert!(
                    (before.generation, before.lsn) <= (mark.generation, mark.lsn),
                    "records of {log:?} are queued in order: {mark:?} behind {before:?}"
                );
            }
        }
        self.shared.counters.frames.fetch_add(frames, Ordering::Relaxed);
        self.shared.counters.frame_bytes.fetch_add(frame_bytes, Ordering::Relaxed);
        self.taken.clear();
        self.completions.sort_by_key(|(origin, _)| *origin);
        for of_origin in self.completions.chunk_by(|a, b| a.0 == b.0) {
            self.published.clear();
            self.published.extend(of_origin.iter().map(|(_, flushed)| *flushed));
            self.sink.flushed(of_origin[0].0, &self.published);
        }
    }
}

/// Frames before the cut were queued before it, so they are durable too.
fn completed_cut(log: LogId, generation: u32, lsn: Lsn) -> Flushed {
    Flushed { log, generation, lsn: lsn.previous(), is_in_segment: false, first_lsn: lsn }
}

fn add_completion(
    completions: &mut Vec<(u16, Flushed)>,
    origin: u16,
    frame: &QueuedFrame,
    bypassed: &[LogId],
) {
    let lsn = frame.header.lsn;
    // Frames of one log lie together in the queue. A log that appears twice in a group only
    // costs a second completion.
    let existing = completions.iter_mut().rev().take(LOOK_BACK).find(|(of, flushed)| {
        *of == origin && flushed.log == frame.log && flushed.generation == frame.generation
    });
    match existing {
        Some((_, flushed)) => {
            assert!(flushed.lsn < lsn, "{lsn:?} was queued behind {:?}", flushed.lsn);
            flushed.lsn = lsn;
        }
        None => {
            let flushed = Flushed {
                log: frame.log,
                generation: frame.generation,
                lsn,
                is_in_segment: bypassed.contains(&frame.log),
                first_lsn: lsn,
            };
            completions.push((origin, flushed));
        }
    }
}

fn frame_record(frame: &QueuedFrame, kind: RecordKind, body_len: usize, aux: u64) -> RecordHeader {
    RecordHeader {
        kind,
        flags: if frame.starts_segment { FLAG_STARTS_SEGMENT } else { 0 },
        segment: frame.segment.header.number as u16,
        log: frame.log,
        generation: frame.generation,
        body_len: u32::try_from(body_len).expect("frames are below 4 GiB"),
        lsn: frame.header.lsn,
        aux,
    }
}

fn plain_record(
    kind: RecordKind,
    log: LogId,
    generation: u32,
    lsn: Lsn,
    body_len: usize,
) -> RecordHeader {
    let body_len = u32::try_from(body_len).expect("log states are small");
    RecordHeader { kind, flags: 0, segment: 0, log, generation, body_len, lsn, aux: 0 }
}
