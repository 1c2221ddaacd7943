//! The partition: its state, its lock, what it publishes, how completions reach waiters.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use arc_swap::ArcSwap;
use bytes::BytesMut;
use chronik_common::{LeaderEpoch, Lsn, Offset, PartitionIndex, TopicId, TopicPartition};
use chronik_record::BatchHeader;
use chronik_wal::frame::FrameKind;
use chronik_wal::{
    Flushed, LogAccess, LogId, OpenedLog, PartitionLog, StateSnapshot, Verdict, WalError,
};
use tracing::{error, warn};

use crate::acks::{AckQueue, Completion, FetchQueue, Token};
use crate::error::AckError;
use crate::invariants::{Watermarks, check_trim};
use crate::producer_state::ProducerState;
use crate::replication::{Replication, SoleReplica};
use crate::topic_settings::TopicSettings;

/// A state snapshot is due after this many frames.
const SNAPSHOT_FRAMES: u64 = 2_000;

/// Who decides what a storage failure of one partition means for the process.
pub type StorageFailureHook = Arc<dyn Fn(&TopicPartition, &WalError) + Send + Sync>;

/// The numbers of a partition that other threads look at; each has one writer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartitionNumbers {
    /// First readable offset.
    pub log_start_offset: Offset,
    /// First offset that consumers do not see yet.
    pub high_watermark: Offset,
    /// First offset behind the log.
    pub log_end_offset: Offset,
    /// Epoch of the leader.
    pub leader_epoch: LeaderEpoch,
}

pub(crate) struct PartitionState {
    pub(crate) log: PartitionLog,
    pub(crate) leader_epoch: LeaderEpoch,
    pub(crate) replication: Box<dyn Replication>,
    pub(crate) producers: ProducerState,
    pub(crate) waiting_for_flush: AckQueue,
    pub(crate) waiting_for_commit: AckQueue,
    pub(crate) fetches: FetchQueue,
    /// Chunk into which small batches are copied.
    pub(crate) arena: BytesMut,
    /// A new log start that waits for its frame to be durable.
    pub(crate) pending_log_start: Option<(Lsn, Offset)>,
    /// The last frame of the newest stored snapshot, and the offset behind it.
    pub(crate) snapshot_at: (Lsn, Offset),
    /// The same of the snapshot that was handed out and is not stored yet.
    pub(crate) snapshot_taken: Option<(Lsn, Offset)>,
    /// Retention waits for a snapshot.
    pub(crate) wants_snapshot: bool,
    pub(crate) is_deleted: bool,
}

/// One partition on this node.
pub struct Partition {
    name: TopicPartition,
    topic_id: TopicId,
    log_id: LogId,
    on_storage_failure: StorageFailureHook,
    settings: ArcSwap<TopicSettings>,
    state: Mutex<PartitionState>,
    log_start_offset: AtomicI64,
    high_watermark: AtomicI64,
    log_end_offset: AtomicI64,
}

impl std::fmt::Debug for Partition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Partition").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Partition {
    /// Opens a partition over its log: derives producer state from the newest snapshot and the
    /// frames behind it. Blocks.
    ///
    /// A log whose frames cannot be replayed is opened read-only.
    ///
    /// # Errors
    /// A failed read of the frames to replay.
    pub fn open(
        name: TopicPartition,
        opened: OpenedLog,
        settings: Arc<TopicSettings>,
        leader_epoch: LeaderEpoch,
        on_storage_failure: StorageFailureHook,
    ) -> Result<Arc<Self>, WalError> {
        let OpenedLog { topic_id, mut log, snapshot, .. } = opened;
        let mut producers = ProducerState::default();
        let mut snapshot_at = (Lsn::ZERO, Offset::ZERO);
        if let Some(snapshot) = snapshot {
            match ProducerState::decode(&snapshot.state, Offset(snapshot.next_offset)) {
                Some(state) => {
                    producers = state;
                    snapshot_at = (snapshot.at(), Offset(snapshot.next_offset));
                }
                None => warn!(partition = %name, "skipped a snapshot that does not decode"),
            }
        }
        let mut replayed = snapshot_at.0;
        let result = log.replay(replayed.next(), |frame, body| {
            replayed = frame.lsn;
            if frame.kind == FrameKind::Data
                && let Ok(batch) = BatchHeader::parse(body)
            {
                // The frame is chained to the one before; the batch in it only repeats it.
                let batch = BatchHeader {
                    base_offset: frame.base_offset,
                    last_offset_delta: frame.last_offset_delta,
                    ..batch
                };
                producers.note(&batch, frame.append_time_ms);
            }
        });
        match result {
            Ok(()) => {}
            // Without its producers a log must not grow; what can be read is still served.
            Err(damage @ WalError::Damaged { .. }) => {
                error!(partition = %name, error = %damage, code = "E080", "the log is read-only");
                log.mark_damaged(Verdict::DamagedRange { first: replayed.next() });
            }
            Err(failure) => return Err(failure),
        }
        assert!(
            replayed < log.next_lsn(),
            "producers are known up to {replayed:?} of a log that goes on at {:?}",
            log.next_lsn()
        );
        let leader_epoch = leader_epoch.max(log.epochs().last_epoch().unwrap_or(LeaderEpoch(0)));
        let state = PartitionState {
            leader_epoch,
            replication: Box::new(SoleReplica::new(log.flushed_offset())),
            producers,
            waiting_for_flush: AckQueue::default(),
            waiting_for_commit: AckQueue::default(),
            fetches: FetchQueue::default(),
            arena: BytesMut::new(),
            pending_log_start: None,
            snapshot_at,
            snapshot_taken: None,
            wants_snapshot: false,
            is_deleted: false,
            log,
        };
        let partition = Self {
            name,
            topic_id,
            on_storage_failure,
            log_id: state.log.identity().id,
            settings: ArcSwap::new(settings),
            log_start_offset: AtomicI64::new(0),
            high_watermark: AtomicI64::new(0),
            log_end_offset: AtomicI64::new(0),
            state: Mutex::new(state),
        };
        partition.publish(&partition.lock());
        Ok(Arc::new(partition))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, PartitionState> {
        self.state.lock().expect("a partition's critical sections do not panic")
    }

    /// Topic and number.
    #[must_use]
    pub fn name(&self) -> &TopicPartition {
        &self.name
    }

    /// Number in its topic.
    #[must_use]
    pub fn index(&self) -> PartitionIndex {
        self.name.partition
    }

    /// Id of its topic.
    #[must_use]
    pub fn topic_id(&self) -> TopicId {
        self.topic_id
    }

    /// Its log's number on this node.
    #[must_use]
    pub fn log_id(&self) -> LogId {
        self.log_id
    }

    /// The topic's settings.
    #[must_use]
    pub fn settings(&self) -> Arc<TopicSettings> {
        self.settings.load_full()
    }

    /// The numbers as last published; no lock is taken.
    #[must_use]
    pub fn high_watermark(&self) -> Offset {
        Offset(self.high_watermark.load(Ordering::Acquire))
    }

    /// First readable offset as last published; no lock is taken.
    #[must_use]
    pub fn log_start_offset(&self) -> Offset {
        Offset(self.log_start_offset.load(Ordering::Acquire))
    }

    /// All numbers at one moment.
    #[must_use]
    pub fn numbers(&self) -> PartitionNumbers {
        let state = self.lock();
        PartitionNumbers {
            log_start_offset: state.log.log_start_offset(),
            high_watermark: state.replication.high_watermark(),
            log_end_offset: state.log.log_end_offset(),
            leader_epoch: state.leader_epoch,
        }
    }

    /// Bytes of the partition's segments.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.lock().log.size_bytes()
    }

    /// True if the log accepts writes.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.lock().log.accepts_appends()
    }

    /// Publishes the numbers; called with the lock held after every change.
    pub(crate) fn publish(&self, state: &PartitionState) {
        let numbers = Watermarks {
            log_start_offset: state.log.log_start_offset(),
            high_watermark: state.replication.high_watermark(),
            flushed_offset: state.log.flushed_offset(),
            log_end_offset: state.log.log_end_offset(),
        };
        numbers.check();
        numbers.check_follows(self.log_start_offset(), self.high_watermark());
        self.log_start_offset.store(numbers.log_start_offset.0, Ordering::Release);
        self.high_watermark.store(numbers.high_watermark.0, Ordering::Release);
        self.log_end_offset.store(numbers.log_end_offset.0, Ordering::Release);
    }

    /// Hands this turn's frames to the disk; completions come back to shard `origin`. On `os`
    /// topics the frames count at once, and the waiters are completed here.
    pub fn submit(&self, origin: u16, completed: &mut Vec<Completion>, woken: &mut Vec<Token>) {
        let mut state = self.lock();
        if state.is_deleted {
            return;
        }
        if let Err(failure) = state.log.submit(origin) {
            fail_waiters(&mut state, AckError::StorageFailed, completed);
            drop(state);
            // A lane that stopped has said so itself.
            if !matches!(failure, WalError::Failed) {
                (self.on_storage_failure)(&self.name, &failure);
            }
            return;
        }
        self.advance(&mut state, completed, woken);
    }

    /// Applies a completion of the lane.
    pub fn on_flushed(
        &self,
        flushed: &Flushed,
        completed: &mut Vec<Completion>,
        woken: &mut Vec<Token>,
    ) {
        let mut state = self.lock();
        if state.is_deleted || !state.log.on_flushed(flushed) {
            return;
        }
        self.advance(&mut state, completed, woken);
    }

    /// Moves the high watermark to what the log's flushed offset allows and completes everyone
    /// who waited for either.
    fn advance(
        &self,
        state: &mut PartitionState,
        completed: &mut Vec<Completion>,
        woken: &mut Vec<Token>,
    ) {
        let flushed = state.log.flushed_offset();
        let high_watermark = state.replication.on_local_flush(flushed);
        state.waiting_for_flush.complete_up_to(flushed, completed);
        state.waiting_for_commit.complete_up_to(high_watermark, completed);
        state.fetches.wake_below(high_watermark, woken);
        if let Some((lsn, offset)) = state.pending_log_start
            && state.log.flushed_lsn() >= lsn
        {
            state.pending_log_start = None;
            check_trim(offset, high_watermark, state.snapshot_at);
            state.log.trim_to(offset);
        }
        self.publish(state);
    }

    /// Takes the partition out of service because its topic is gone.
    pub fn delete(&self, completed: &mut Vec<Completion>, woken: &mut Vec<Token>) {
        let mut state = self.lock();
        state.is_deleted = true;
        state.log.retire();
        fail_waiters(&mut state, AckError::Deleted, completed);
        state.fetches.wake_all(woken);
    }

    /// Fails everyone who waits, because storage failed.
    pub fn fail_storage(&self, completed: &mut Vec<Completion>) {
        let mut state = self.lock();
        state.log.fail();
        fail_waiters(&mut state, AckError::StorageFailed, completed);
    }

    /// Registers a consumer that waits for a record at `offset`. Returns `false`, registering
    /// nothing, if there is one already.
    #[must_use]
    pub fn wait_for_records(&self, offset: Offset, token: Token) -> bool {
        let mut state = self.lock();
        if state.is_deleted || offset < state.replication.high_watermark() {
            return false;
        }
        state.fetches.push(offset, token);
        true
    }

    /// Forgets the wait of a connection that is gone.
    pub fn forget_fetch(&self, shard: u16, connection: u64) {
        self.lock().fetches.remove(shard, connection);
    }

    /// Forgets producers that have not written since `before_ms`.
    pub fn expire_producers(&self, before_ms: i64) {
        self.lock().producers.expire(before_ms);
    }
}

fn fail_waiters(state: &mut PartitionState, error: AckError, completed: &mut Vec<Completion>) {
    state.waiting_for_flush.fail_all(error, completed);
    state.waiting_for_commit.fail_all(error, completed);
}

impl LogAccess for Partition {
    fn with_log(&self, visit: &mut dyn FnMut(&mut PartitionLog)) {
        visit(&mut self.lock().log);
    }

    fn take_snapshot(&self, is_last: bool) -> Option<StateSnapshot> {
        let mut state = self.lock();
        let last = state.log.next_lsn().previous();
        let since = last.0.saturating_sub(state.snapshot_at.0.0);
        let is_due = since >= SNAPSHOT_FRAMES || (since > 0 && (is_last || state.wants_snapshot));
        if !is_due || state.is_deleted {
            return None;
        }
        state.wants_snapshot = false;
        state.snapshot_taken = Some((last, state.log.log_end_offset()));
        Some(state.log.snapshot_of(state.producers.encode()))
    }

    fn snapshot_stored(&self, at: Lsn) {
        let mut state = self.lock();
        if let Some(taken) = state.snapshot_taken.take_if(|(lsn, _)| *lsn == at) {
            assert!(
                taken > state.snapshot_at && taken.1 <= state.replication.high_watermark(),
                "the snapshot at {taken:?} is stored behind {:?}, high watermark {:?}",
                state.snapshot_at,
                state.replication.high_watermark()
            );
            state.snapshot_at = taken;
        }
    }

    fn on_storage_failure(&self, failure: &WalError) {
        (self.on_storage_failure)(&self.name, failure);
    }
}
