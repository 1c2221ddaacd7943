//! The background worker: writes journaled frames into segments, syncs segments, seals full
//! ones, stores tables and snapshots, and so lets the journal forget.
//!
//! One thread per node. It sleeps while nothing is dirty. Each visit to a log takes the owner's
//! lock only to fetch work and to hand back its result; all disk calls happen in between. A
//! failed call stops that log, and the journal files it needs stay pinned.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::time::Duration;

use chronik_common::{Clock, Lsn, MonotonicMs};

use crate::envelope;
use crate::error::WalError;
use crate::group_commit::LaneHandle;
use crate::io::Disk;
use crate::journal::LogId;
use crate::layout::{Layout, OFFSET_INDEX};
use crate::log_state::{
    HARDSTATE_MAGIC, HardState, HardStateRow, LaneRow, StateSnapshot, store_snapshot,
};
use crate::offset_index::OFFSET_INDEX_MAGIC;
use crate::partition_log::PartitionLog;
use crate::tail::TailBudget;

/// How often the worker looks whether what has gathered is worth writing.
const BEAT: Duration = Duration::from_millis(100);
/// Bytes for each dirty log that are worth a write call: a call per few frames costs more than the
/// rest of their way.
const WRITE_BYTES_MIN: usize = 64 << 10;
/// Share of the tail budget that unwritten frames may take before they are written however few
/// they are for each log.
const UNWRITTEN_SHARE: usize = 4;

/// Ring share above which a checkpoint starts at once.
const RING_FILL_MAX: f64 = 0.5;

/// The owner of a log, as the worker sees it: whoever holds the mutex around it.
pub trait LogAccess: Send + Sync + 'static {
    /// Runs `visit` on the log under the owner's lock.
    fn with_log(&self, visit: &mut dyn FnMut(&mut PartitionLog));
    /// A snapshot of the state derived from the log, if one is due (or `is_last`, before a
    /// stop). The worker stores it once the frames it includes are synced.
    fn take_snapshot(&self, is_last: bool) -> Option<StateSnapshot>;
    /// The snapshot taken at `at` is durable. Retention may rely on it from here on.
    fn snapshot_stored(&self, _at: Lsn) {}
    /// A disk call for this log failed; the log has stopped.
    fn on_storage_failure(&self, error: &WalError);
}

/// Timing of the worker.
#[derive(Clone, Copy, Debug)]
pub struct CheckpointConfig {
    /// Frames reach their segment's page cache after at most about this long; sooner when there
    /// are many.
    pub write_behind_interval: Duration,
    /// Dirty segments are synced at least this often.
    pub checkpoint_interval: Duration,
}

#[derive(Default)]
struct Signals {
    dirty: Vec<LogId>,
    /// The commit thread waits for room in the ring or in memory.
    is_urgent: bool,
    is_stopping: bool,
}

/// The parts of the worker that other threads touch.
pub(crate) struct WorkerShared {
    signals: Mutex<Signals>,
    changed: Condvar,
    visits: Mutex<()>,
}

impl WorkerShared {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            signals: Mutex::default(),
            changed: Condvar::new(),
            visits: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Signals> {
        self.signals.lock().expect("no holder of the worker's signals panics")
    }

    /// Held while a log's directory is worked in or removed, never both at once.
    pub(crate) fn visit(&self) -> MutexGuard<'_, ()> {
        self.visits.lock().expect("no visitor of a log's directory panics")
    }

    /// A log has something to write.
    pub(crate) fn mark_dirty(&self, log: LogId) {
        let mut signals = self.lock();
        let was_idle = signals.dirty.is_empty();
        signals.dirty.push(log);
        drop(signals);
        if was_idle {
            self.changed.notify_one();
        }
    }

    /// Asks for a checkpoint now.
    pub(crate) fn kick(&self) {
        self.lock().is_urgent = true;
        self.changed.notify_one();
    }

    /// Ends the worker's loop.
    pub(crate) fn stop(&self) {
        self.lock().is_stopping = true;
        self.changed.notify_one();
    }
}

/// The logs of a node and who owns them.
pub(crate) type Owners = Mutex<BTreeMap<LogId, Weak<dyn LogAccess>>>;

/// What the table `hardstate` holds.
pub(crate) type HardStates = Mutex<NodeStates>;

/// What is stored about every log, whether it is open or not, and about the lanes.
#[derive(Debug)]
pub(crate) struct NodeStates {
    pub(crate) rows: BTreeMap<LogId, HardStateRow>,
    /// Log ids below this were given out.
    pub(crate) next_log_id: u32,
    /// In the order of the lanes.
    pub(crate) lanes: Vec<LaneRow>,
}

impl NodeStates {
    /// Takes over what a log says of itself now. Within a generation nothing durable is taken
    /// back.
    fn replace_row(&mut self, id: LogId, row: HardStateRow) {
        if let Some(old) = self.rows.get(&id) {
            assert!(
                (old.generation, old.synced_lsn) <= (row.generation, row.synced_lsn),
                "{id:?} was synced to {} in generation {}, now to {} in {}",
                old.synced_lsn,
                old.generation,
                row.synced_lsn,
                row.generation
            );
        }
        self.rows.insert(id, row);
    }

    /// Replaces the table on disk.
    pub(crate) fn store(states: &HardStates, disk: &dyn Disk, path: &Path) -> Result<(), WalError> {
        let table = {
            let states = states.lock().expect("no holder of the table panics");
            HardState {
                rows: states.rows.values().cloned().collect(),
                next_log_id: states.next_log_id,
                lanes: states.lanes.clone(),
            }
        };
        envelope::store(disk, path, HARDSTATE_MAGIC, &table)
    }
}

/// The worker. Driven by its thread, or step by step by a test.
pub(crate) struct Worker {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) layout: Layout,
    pub(crate) config: CheckpointConfig,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) shared: Arc<WorkerShared>,
    pub(crate) owners: Arc<Owners>,
    pub(crate) hard_states: Arc<HardStates>,
    pub(crate) lanes: Vec<LaneHandle>,
    pub(crate) budget: Arc<TailBudget>,
    dirty: BTreeSet<LogId>,
    /// Snapshots whose frames are not synced yet, and the log's generation before each was
    /// taken: a truncation since then makes it one of another history.
    pending_snapshots: BTreeMap<LogId, (u32, StateSnapshot)>,
    last_checkpoint: MonotonicMs,
}

impl Worker {
    #[allow(clippy::too_many_arguments, reason = "one constructor takes every collaborator")]
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        layout: Layout,
        config: CheckpointConfig,
        clock: Arc<dyn Clock>,
        shared: Arc<WorkerShared>,
        owners: Arc<Owners>,
        hard_states: Arc<HardStates>,
        lanes: Vec<LaneHandle>,
        budget: Arc<TailBudget>,
    ) -> Self {
        let last_checkpoint = clock.monotonic();
        Self {
            disk,
            layout,
            config,
            clock,
            shared,
            owners,
            hard_states,
            lanes,
            budget,
            dirty: BTreeSet::new(),
            pending_snapshots: BTreeMap::new(),
            last_checkpoint,
        }
    }

    /// The worker's loop; returns when it is told to stop.
    pub(crate) fn run(mut self) {
        while let Some(is_urgent) = self.wait() {
            self.write_behind();
            let age = self.clock.monotonic().since(self.last_checkpoint);
            let is_full = self.lanes.iter().any(|lane| lane.ring_fill() > RING_FILL_MAX);
            if is_urgent && is_full || age >= self.config.checkpoint_interval {
                self.checkpoint(false);
            }
            for lane in &self.lanes {
                lane.backlog_shrank();
            }
        }
    }

    /// Sleeps until there is work; `None` to stop, otherwise whether somebody waits for it.
    fn wait(&mut self) -> Option<bool> {
        let mut first_seen = None;
        loop {
            let is_due = first_seen.is_some_and(|since| self.is_write_due(since));
            let mut signals = self.shared.lock();
            if signals.is_stopping {
                return None;
            }
            self.dirty.extend(signals.dirty.drain(..));
            if std::mem::take(&mut signals.is_urgent) {
                return Some(true);
            }
            if is_due {
                return Some(false);
            }
            let changed = &self.shared.changed;
            if self.dirty.is_empty() {
                drop(changed.wait(signals).expect("no holder of the worker's signals panics"));
            } else {
                first_seen.get_or_insert_with(|| self.clock.monotonic());
                let beat = BEAT.min(self.config.write_behind_interval);
                drop(
                    changed
                        .wait_timeout(signals, beat)
                        .expect("no holder of the worker's signals panics"),
                );
            }
        }
    }

    fn is_write_due(&self, since: MonotonicMs) -> bool {
        let waited = self.clock.monotonic().since(since);
        waited >= self.config.write_behind_interval
            || is_worth_writing(
                self.budget.unwritten_bytes(),
                self.dirty.len(),
                self.budget.bytes_max(),
            )
    }

    /// Takes over what was marked dirty, without waiting. For step-by-step drivers.
    pub(crate) fn collect_dirty(&mut self) {
        let mut signals = self.shared.lock();
        self.dirty.extend(signals.dirty.drain(..));
    }

    fn owner(&self, log: LogId) -> Option<Arc<dyn LogAccess>> {
        let owners = self.owners.lock().expect("no holder of the owners panics");
        owners.get(&log).and_then(Weak::upgrade)
    }

    /// Writes flushed frames of all dirty logs into their segments' page cache.
    pub(crate) fn write_behind(&mut self) {
        for log in self.dirty.clone() {
            let Some(owner) = self.owner(log) else {
                self.dirty.remove(&log);
                continue;
            };
            let shared = Arc::clone(&self.shared);
            let _visit = shared.visit();
            if let Err(error) = write_behind_log(&*owner) {
                self.stop_log(log, &*owner, &error);
            }
        }
        if self.budget.is_exceeded() {
            let owners: Vec<_> = {
                let owners = self.owners.lock().expect("no holder of the owners panics");
                owners.values().filter_map(Weak::upgrade).collect()
            };
            for owner in owners {
                owner.with_log(&mut PartitionLog::evict_tail);
            }
        }
    }

    fn stop_log(&mut self, log: LogId, owner: &dyn LogAccess, error: &WalError) {
        self.dirty.remove(&log);
        self.pending_snapshots.remove(&log);
        // A log that was deleted meanwhile has no directory any more: that is no failure.
        if self.owner(log).is_some() {
            owner.with_log(&mut PartitionLog::fail);
            owner.on_storage_failure(error);
        }
    }

    /// Syncs everything written, stores what recovery needs, frees the journal.
    pub(crate) fn checkpoint(&mut self, is_last: bool) {
        self.last_checkpoint = self.clock.monotonic();
        let begun: Vec<_> = self.lanes.iter().map(LaneHandle::begin_checkpoint).collect();
        self.write_behind();
        for log in self.dirty.clone() {
            let Some(owner) = self.owner(log) else { continue };
            let mut generation = 0;
            owner.with_log(&mut |log| generation = log.generation());
            // One at a time: replacing a snapshot that waits for its frames to be synced by a
            // newer one would let none ever be stored under load.
            if !self.pending_snapshots.contains_key(&log)
                && let Some(snapshot) = owner.take_snapshot(is_last)
            {
                self.pending_snapshots.insert(log, (generation, snapshot));
            }
            let shared = Arc::clone(&self.shared);
            let _visit = shared.visit();
            match self.checkpoint_log(log, &*owner) {
                Ok(true) => {
                    self.dirty.remove(&log);
                }
                Ok(false) => {}
                Err(error) => self.stop_log(log, &*owner, &error),
            }
        }
        let covered: Vec<bool> = begun
            .iter()
            .map(|(_, marks)| marks.iter().all(|(log, mark)| self.is_covered(*log, mark)))
            .collect();
        {
            let mut states = self.hard_states.lock().expect("no holder of the table panics");
            assert_eq!(states.lanes.len(), begun.len(), "every lane has its row");
            for (row, ((sequence, _), is_covered)) in
                states.lanes.iter_mut().zip(begun.iter().zip(&covered))
            {
                if *is_covered {
                    row.oldest_needed = row.oldest_needed.max(*sequence);
                }
            }
        }
        let path = self.layout.hardstate();
        if let Err(error) = NodeStates::store(&self.hard_states, &*self.disk, &path) {
            // The table is only a cache of what the journal still holds: keep the journal.
            tracing::error!(%error, "cannot store the table of log states");
            return;
        }
        for ((lane, (sequence, marks)), is_covered) in self.lanes.iter().zip(begun).zip(covered) {
            if is_covered {
                lane.finish_checkpoint(sequence, &marks);
            }
        }
    }

    fn is_covered(&self, log: LogId, mark: &crate::group_commit::JournalMark) -> bool {
        // A log without an owner was deleted; nobody will ask for its frames again.
        let Some(owner) = self.owner(log) else { return true };
        let mut is_covered = false;
        owner.with_log(&mut |log| is_covered = log.covers(mark));
        is_covered
    }

    /// Syncs one log; `true` when it is clean.
    fn checkpoint_log(&mut self, id: LogId, owner: &dyn LogAccess) -> Result<bool, WalError> {
        let mut work = None;
        owner.with_log(&mut |log| work = log.take_sync_work());
        if let Some(work) = work {
            work.run()?;
            owner.with_log(&mut |log| log.finish_sync_work(&work));
        }
        loop {
            let mut seal = None;
            owner.with_log(&mut |log| seal = log.take_seal_work());
            let Some(seal) = seal else { break };
            seal.run()?;
            owner.with_log(&mut |log| log.finish_seal_work(&seal));
        }
        let mut table = None;
        let mut removable = Vec::new();
        let mut directory = None;
        let mut synced = chronik_common::Lsn::ZERO;
        let mut generation = 0;
        let mut first = chronik_common::Lsn::FIRST;
        let mut row = HardStateRow::default();
        owner.with_log(&mut |log| {
            table = log.take_segment_table();
            removable = log.take_removable();
            directory = Some(log.directory().to_owned());
            synced = log.synced_lsn();
            generation = log.generation();
            first = log.first_lsn();
            row = log.take_hard_state();
        });
        let directory = directory.expect("the visit ran");
        if let Some((taken_in, snapshot)) = self.pending_snapshots.remove(&id)
            && taken_in == generation
        {
            if snapshot.at() <= synced {
                assert!(
                    first <= snapshot.at().next(),
                    "{:?} is of a log that begins with {first:?}",
                    snapshot.at()
                );
                store_snapshot(&*self.disk, &directory, &snapshot, first)?;
                owner.snapshot_stored(snapshot.at());
            } else {
                self.pending_snapshots.insert(id, (taken_in, snapshot));
            }
        }
        if let Some(table) = table {
            envelope::store(
                &*self.disk,
                &directory.join(OFFSET_INDEX),
                OFFSET_INDEX_MAGIC,
                &table,
            )?;
        }
        for segment in removable {
            segment.remove()?;
        }
        self.hard_states.lock().expect("no holder of the table panics").replace_row(id, row);
        let mut is_clean = false;
        let has_snapshot = self.pending_snapshots.contains_key(&id);
        owner.with_log(&mut |log| {
            is_clean = log.is_clean() && !has_snapshot;
            if is_clean {
                log.clear_dirty_mark();
            }
        });
        Ok(is_clean)
    }
}

/// True if the frames that wait fill large writes, or too much of the memory they wait in.
fn is_worth_writing(unwritten_bytes: usize, dirty_logs: usize, tail_bytes_max: usize) -> bool {
    unwritten_bytes >= WRITE_BYTES_MIN.saturating_mul(dirty_logs)
        || unwritten_bytes >= tail_bytes_max / UNWRITTEN_SHARE
}

fn write_behind_log(owner: &dyn LogAccess) -> Result<(), WalError> {
    loop {
        let mut work = None;
        owner.with_log(&mut |log| work = log.take_write_behind());
        let Some(work) = work else { return Ok(()) };
        work.run()?;
        owner.with_log(&mut |log| log.finish_write_behind(&work));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_bytes_of_many_logs_gather_until_they_fill_writes_or_a_quarter_of_the_memory() {
        const MIB: usize = 1 << 20;
        assert!(!is_worth_writing(WRITE_BYTES_MIN - 1, 1, 64 * MIB));
        assert!(is_worth_writing(WRITE_BYTES_MIN, 1, 64 * MIB));
        assert!(!is_worth_writing(WRITE_BYTES_MIN, 2, 64 * MIB));
        assert!(!is_worth_writing(16 * MIB - 1, 1_000, 64 * MIB));
        assert!(is_worth_writing(16 * MIB, 1_000, 64 * MIB));
    }
}
