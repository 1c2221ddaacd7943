//! A node with several logs that is driven step by step, and a model of each of its logs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use chronik_common::test_support::ManualClock;
use chronik_common::{
    Clock, LeaderEpoch, Lsn, Offset, PartitionIndex, SeededRng, TopicPartition, Uuid,
};
use chronik_record::{BatchBuilder, Codec, crc};
use chronik_wal::frame::FrameKind;
use chronik_wal::io::{Disk, MemoryDisk};
use chronik_wal::layout::Layout;
use chronik_wal::{
    CheckpointConfig, Durability, FlushSink, LogConfig, LogId, NewFrame, PartitionLog, ReadBuffers,
    ReadMode, ReadPlan, StateSnapshot, WalConfig, WalError, WalManager,
};

use super::model::{Entry, FoundLog, LogModel, Loss, epoch_rows};
use super::{CollectingSink, Owner};

pub const META: &str = "__meta";
/// A topic of this name has `os` durability.
pub const OS: &str = "os-0";

/// Limits so tiny that a script of a hundred batches crosses all of them.
pub fn config() -> WalConfig {
    WalConfig {
        journal_files: 4,
        journal_file_bytes: 16 << 10,
        group_bytes_max: 8 << 10,
        group_records_max: 64,
        bypass_bytes: 2 << 10,
        tail_bytes_max: 1 << 20,
        checkpoint: CheckpointConfig {
            write_behind_interval: Duration::from_millis(1),
            checkpoint_interval: Duration::from_secs(10),
        },
        sync_delay: Duration::ZERO,
        recovery_threads: 1,
        recovery_syncs: 1,
    }
}

fn log_config(partition: Option<&TopicPartition>) -> LogConfig {
    let is_os = partition.is_some_and(|partition| partition.to_string() == OS);
    let durability = if is_os { Durability::Os } else { Durability::Fsync };
    LogConfig { durability, segment_bytes: 6 << 10, segment_ms: i64::MAX }
}

fn partition(name: &str) -> TopicPartition {
    let topic = name.strip_suffix("-0").expect("partition 0 of some topic");
    TopicPartition { topic: topic.into(), partition: PartitionIndex(0) }
}

/// A node whose logs were recovered.
pub struct Machine {
    pub manager: Arc<WalManager>,
    pub sink: Arc<CollectingSink>,
    pub owners: BTreeMap<String, Arc<Owner>>,
    snapshots: BTreeMap<String, (Lsn, Vec<u8>)>,
}

impl Machine {
    /// Opens the data on `disk`.
    pub fn open(disk: Arc<dyn Disk>) -> Result<Self, WalError> {
        Self::open_observed(disk, &config(), None)
    }

    pub fn open_with(disk: Arc<dyn Disk>, config: &WalConfig) -> Result<Self, WalError> {
        Self::open_observed(disk, config, None)
    }

    /// Opens the data on `disk` and notes how many operations `observer` had seen when each
    /// completion was published.
    fn open_observed(
        disk: Arc<dyn Disk>,
        config: &WalConfig,
        observer: Option<MemoryDisk>,
    ) -> Result<Self, WalError> {
        let sink = Arc::new(CollectingSink { observer, ..CollectingSink::default() });
        let as_sink: Arc<dyn FlushSink> = sink.clone();
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::default());
        let (manager, opened) = WalManager::open(
            disk,
            Layout::new(PathBuf::from("/data")),
            config,
            &as_sink,
            &clock,
            Box::new(SeededRng::new(7)),
            &log_config,
        )?;
        let mut machine =
            Self { manager, sink, owners: BTreeMap::new(), snapshots: BTreeMap::new() };
        for log in opened {
            let name = log.partition.map_or_else(|| META.to_owned(), |name| name.to_string());
            if let Some(snapshot) = log.snapshot {
                machine.snapshots.insert(name.clone(), (snapshot.at(), snapshot.state));
            }
            machine.own(&name, log.log);
        }
        Ok(machine)
    }

    fn own(&mut self, name: &str, log: PartitionLog) {
        let id = log.identity().id;
        let owner = Arc::new(Owner {
            log: Mutex::new(log),
            failures: Mutex::default(),
            is_snapshot_due: AtomicBool::new(false),
        });
        let weak: Weak<Owner> = Arc::downgrade(&owner);
        self.manager.attach(id, weak);
        self.owners.insert(name.to_owned(), owner);
    }

    pub fn create(&mut self, name: &str) -> Result<(), WalError> {
        let partition = partition(name);
        let config = log_config(Some(&partition));
        let log = self.manager.create_log(&partition, Uuid([7; 16]), config)?;
        self.own(name, log);
        Ok(())
    }

    pub fn remove(&mut self, name: &str) -> Result<(), WalError> {
        let id = self.owners.remove(name).map(|owner| owner.log.lock().unwrap().identity().id);
        Ok(self.manager.remove_log(id, &partition(name))?)
    }

    /// Appends a frame without handing it to the disk.
    pub fn append(&self, name: &str, frame: &FrameSpec) -> Result<Entry, WalError> {
        let mut log = self.owners[name].log.lock().unwrap();
        let body = frame.body(log.log_end_offset());
        let count = if frame.kind == FrameKind::Data { frame.records } else { 0 };
        let header = log.append(NewFrame {
            kind: frame.kind,
            flags: 0,
            epoch: frame.epoch,
            record_count: count as u32,
            last_offset_delta: count as i32 - 1,
            body_crc: crc::crc32c(&body),
            body: body.clone(),
            append_time_ms: 1_700_000_000_000,
            max_timestamp: 1_700_000_000_000,
        })?;
        Ok(Entry { header, body })
    }

    /// Commits what was submitted and applies the completions, after a checkpoint where the
    /// rings are full. `None` when a log that cannot be synced keeps a ring full: a commit
    /// thread would wait for ever. Returns each log's last flushed frame after each completion,
    /// and the operations before it.
    pub fn commit(&self) -> Result<Option<Vec<Completion>>, (Vec<Completion>, WalError)> {
        let lanes = [self.manager.meta_lane(), self.manager.data_lane()];
        if lanes.iter().any(|lane| lane.ring_fill() > 0.5) {
            self.manager.step_checkpoint();
            if lanes.iter().any(|lane| lane.ring_fill() > 0.7) {
                return Ok(None);
            }
        }
        let result = self.manager.step_commit();
        let completions = self.apply_completions();
        match result {
            Ok(()) => Ok(Some(completions)),
            Err(error) => Err((completions, error.into())),
        }
    }

    fn apply_completions(&self) -> Vec<Completion> {
        let flushed: Vec<_> = self.sink.flushed.lock().unwrap().drain(..).collect();
        let mut completions = Vec::new();
        for (at, one) in flushed {
            if let Some((name, owner)) = self.owner_of(one.log) {
                let mut log = owner.log.lock().unwrap();
                if log.on_flushed(&one) {
                    let flushed = log.flushed_lsn().0 as usize;
                    completions.push(Completion { at, log: name.clone(), flushed });
                }
            }
        }
        completions
    }

    /// Stores a snapshot of everything that is flushed now, behind one that may be waiting.
    pub fn store_snapshot(&self, name: &str) {
        let owner = &self.owners[name];
        for _ in 0..2 {
            owner.is_snapshot_due.store(true, Ordering::Relaxed);
            // A log that takes nothing any more stores nothing either.
            let _ = owner.log.lock().unwrap().submit(0);
            self.manager.step_checkpoint();
        }
        owner.is_snapshot_due.store(false, Ordering::Relaxed);
    }

    fn owner_of(&self, id: LogId) -> Option<(&String, &Arc<Owner>)> {
        self.owners.iter().find(|(_, owner)| owner.log.lock().unwrap().identity().id == id)
    }

    /// Everything an owner can see of a log.
    pub fn find(&self, name: &str) -> Option<FoundLog> {
        let log = self.owners.get(name)?.log.lock().unwrap();
        let mut entries = Vec::new();
        let replayed = log.replay(Lsn::FIRST, |header, body| {
            entries.push(Entry { header: *header, body: Bytes::copy_from_slice(body) });
        });
        let mut read_error = replayed.err().map(|error| error.to_string());
        let is_complete = read_error.is_none();
        match read_all(&log) {
            Ok(bodies) if is_complete => {
                let start = log.log_start_offset();
                let expected: Vec<&Bytes> = entries
                    .iter()
                    .filter(|entry| entry.header.kind == FrameKind::Data)
                    .filter(|entry| entry.header.next_offset() > start)
                    .map(|entry| &entry.body)
                    .collect();
                if !bodies.iter().eq(expected) {
                    let count = bodies.len();
                    read_error = Some(format!("a consumer reads {count} other batches: {log:?}"));
                }
            }
            Ok(_) => {}
            Err(error) => read_error = Some(read_error.unwrap_or_else(|| error.to_string())),
        }
        Some(FoundLog {
            verdict: log.verdict(),
            entries,
            read_error,
            last_lsn: log.next_lsn().previous(),
            log_start: log.log_start_offset(),
            log_end: log.log_end_offset(),
            epochs: epoch_rows(log.epochs()),
            state: log.log_state().clone(),
            snapshot: self.snapshots.get(name).cloned(),
        })
    }

    /// Everything an owner can see of all logs.
    pub fn find_all(&self) -> BTreeMap<String, FoundLog> {
        let found = |name: &String| (name.clone(), self.find(name).expect("the log was listed"));
        self.owners.keys().map(found).collect()
    }
}

/// What an owner learnt from the lane.
#[derive(Clone, Debug)]
pub struct Completion {
    /// Disk operations before it.
    pub at: usize,
    pub log: String,
    /// Frames of the log that are flushed since.
    pub flushed: usize,
}

/// All batches of a log, read the way a consumer reads them.
pub fn read_all(log: &PartitionLog) -> Result<Vec<Bytes>, WalError> {
    let mut all = Vec::new();
    let mut offset = log.log_start_offset();
    while offset < log.log_end_offset() {
        let bodies = match log.read(offset, log.log_end_offset(), 4_096)? {
            ReadPlan::Empty => break,
            ReadPlan::Memory(bodies) => bodies,
            ReadPlan::Segment(range) => range
                .read(ReadMode::Blocking, &ReadBuffers::default())?
                .expect("a blocking read reads"),
        };
        assert!(!bodies.is_empty(), "a read below the end makes progress at {offset:?}");
        for body in bodies {
            let header = chronik_record::BatchHeader::parse(&body).expect("it was verified");
            assert!(header.base_offset <= offset && offset < header.next_offset());
            offset = header.next_offset();
            all.push(body);
        }
    }
    Ok(all)
}

/// A frame to append.
#[derive(Clone, Debug)]
pub struct FrameSpec {
    pub kind: FrameKind,
    pub epoch: LeaderEpoch,
    pub records: usize,
    /// Bytes of each record's value; of a [`FrameKind::LogStart`] the offset it says.
    pub bytes: usize,
    /// Tells one value from another.
    pub number: usize,
}

impl FrameSpec {
    fn body(&self, base_offset: Offset) -> Bytes {
        match self.kind {
            FrameKind::Data => {
                let mut builder = BatchBuilder::new(Codec::None).base_offset(base_offset);
                for record in 0..self.records {
                    let mut value = format!("{}.{record} ", self.number).into_bytes();
                    value.resize(value.len() + self.bytes, b'a' + (self.number % 26) as u8);
                    builder.append(1_700_000_000_000, None, Some(&value), &[]);
                }
                builder.build().to_vec().into()
            }
            FrameKind::LogStart => Bytes::copy_from_slice(&(self.bytes as i64).to_le_bytes()),
            _ => Bytes::from(vec![b'm'; self.bytes]),
        }
    }
}

/// A machine and the models of its logs, on a disk that remembers everything.
pub struct World {
    pub disk: MemoryDisk,
    pub machine: Machine,
    pub models: BTreeMap<String, LogModel>,
    epoch: i32,
    next_number: usize,
    /// Log starts waiting for their frame to be flushed.
    pending_trims: BTreeMap<String, (Lsn, Offset)>,
    /// True after a failure of the lanes or a ring that stays full.
    pub has_stopped: bool,
}

impl World {
    /// A new machine on `disk`, whose operations `memory` records.
    pub fn new(memory: &MemoryDisk, disk: Arc<dyn Disk>) -> Result<Self, WalError> {
        let machine = Machine::open_observed(disk, &config(), Some(memory.clone()))?;
        let mut meta = LogModel::default();
        meta.begin(0);
        let mut world = Self {
            disk: memory.clone(),
            machine,
            models: BTreeMap::from([(META.to_owned(), meta)]),
            epoch: 1,
            next_number: 0,
            pending_trims: BTreeMap::new(),
            has_stopped: false,
        };
        let at = world.now();
        world.model(META).created(at);
        Ok(world)
    }

    fn now(&self) -> usize {
        self.disk.op_count()
    }

    fn model(&mut self, name: &str) -> &mut LogModel {
        self.models.entry(name.to_owned()).or_default()
    }

    pub fn create(&mut self, name: &str) {
        // It may be there from the first operation of the creation on.
        let at = self.now();
        self.model(name).begin(at);
        if self.machine.create(name).is_ok() {
            let at = self.now();
            self.model(name).created(at);
        }
    }

    pub fn remove(&mut self, name: &str) {
        let at = self.now();
        self.model(name).removed(at);
        // Failed or not, nobody asks for the log any more.
        let _ = self.machine.remove(name);
    }

    /// True if the log is open and was not stopped.
    pub fn accepts(&self, name: &str) -> bool {
        let owner = self.machine.owners.get(name);
        owner.is_some_and(|owner| owner.log.lock().unwrap().accepts_appends())
    }

    fn append_frame(&mut self, name: &str, kind: FrameKind, records: usize, bytes: usize) {
        self.next_number += 1;
        let epoch = LeaderEpoch(self.epoch);
        let frame = FrameSpec { kind, epoch, records, bytes, number: self.next_number };
        if !self.accepts(name) {
            return;
        }
        if let Ok(entry) = self.machine.append(name, &frame) {
            let at = self.now();
            self.model(name).appended(at, entry);
        }
    }

    /// Appends a batch without handing it to the disk.
    pub fn append(&mut self, name: &str, records: usize, bytes: usize) {
        let kind = if name == META { FrameKind::MetaCommand } else { FrameKind::Data };
        self.append_frame(name, kind, records, bytes);
    }

    /// A new leader: the epoch rises, and its first frame is appended.
    pub fn start_epoch(&mut self, name: &str) {
        self.epoch += 1;
        self.append_frame(name, FrameKind::EpochStart, 0, 0);
    }

    /// Appends the frame that raises the log start to the middle of what is flushed.
    pub fn raise_start(&mut self, name: &str) {
        if !self.accepts(name) {
            return;
        }
        let (start, flushed) = {
            let log = self.machine.owners[name].log.lock().unwrap();
            (log.log_start_offset(), log.flushed_offset())
        };
        let middle = Offset(i64::midpoint(start.0, flushed.0));
        self.append_frame(name, FrameKind::LogStart, 0, middle.0 as usize);
        let lsn = self.models[name].frames().last().expect("just appended").header.lsn;
        self.pending_trims.insert(name.to_owned(), (lsn, middle));
    }

    /// Queues a new opaque state.
    pub fn set_state(&mut self, name: &str) {
        if !self.accepts(name) {
            return;
        }
        let at = self.now();
        let state = self.model(name).state_set(at);
        self.machine.owners[name].log.lock().unwrap().set_log_state(state);
    }

    /// Hands what was appended to the disk.
    pub fn submit(&mut self, name: &str) {
        if !self.accepts(name) {
            return;
        }
        // A failure stops the log; what it already reported stays.
        let _ = self.machine.owners[name].log.lock().unwrap().submit(0);
        self.observe();
    }

    /// Removes the last `count` frames, as a follower does; the leader of the next epoch goes on.
    pub fn truncate(&mut self, name: &str, count: usize) {
        if !self.accepts(name) {
            return;
        }
        let at = self.now();
        // What is below a log start is committed.
        let frames = self.models[name].frames();
        let committed = frames.iter().rposition(|entry| entry.header.kind == FrameKind::LogStart);
        let first = frames.len().saturating_sub(count).max(committed.map_or(0, |index| index + 1));
        let first = Lsn(first as u64 + 1);
        let removed = {
            let mut log = self.machine.owners[name].log.lock().unwrap();
            log.truncate(first).map(|()| first)
        };
        let Ok(first) = removed else { return };
        self.model(name).truncated(at, first);
        self.start_epoch(name);
    }

    /// Submits and commits everything.
    pub fn commit(&mut self) {
        if self.has_stopped {
            return;
        }
        let mut submitted = Vec::new();
        for name in self.models.keys().cloned().collect::<Vec<_>>() {
            self.submit(&name);
            if self.accepts(&name) {
                submitted.push(name);
            }
        }
        let (completions, has_succeeded) = match self.machine.commit() {
            Ok(Some(completions)) => (completions, true),
            Ok(None) => (Vec::new(), false),
            Err((completions, _)) => (completions, false),
        };
        for Completion { at, log, flushed } in completions {
            let model = self.models.get_mut(&log).expect("every log has its model");
            if self.machine.owners[&log].log.lock().unwrap().config().durability
                == Durability::Fsync
            {
                model.acknowledged(at, flushed, flushed);
            }
        }
        if !has_succeeded {
            self.has_stopped = true;
            for owner in self.machine.owners.values() {
                owner.log.lock().unwrap().fail();
            }
            return;
        }
        let at = self.now();
        for name in submitted {
            self.model(&name).states_flushed(at);
            self.model(&name).truncation_flushed(at);
        }
        self.trim();
    }

    fn trim(&mut self) {
        for (name, (lsn, offset)) in std::mem::take(&mut self.pending_trims) {
            let Some(owner) = self.machine.owners.get(&name) else { continue };
            let mut log = owner.log.lock().unwrap();
            if log.flushed_lsn() < lsn {
                self.pending_trims.insert(name, (lsn, offset));
                continue;
            }
            // What is trimmed must be covered by a snapshot.
            drop(log);
            self.machine.store_snapshot(&name);
            log = owner.log.lock().unwrap();
            if log.accepts_appends() {
                log.trim_to(offset);
            }
        }
        self.observe();
    }

    pub fn write_behind(&mut self) {
        self.machine.manager.step_write_behind();
        self.observe();
    }

    pub fn checkpoint(&mut self, with_snapshots: bool) {
        for owner in self.machine.owners.values() {
            owner.is_snapshot_due.store(with_snapshots, Ordering::Relaxed);
        }
        self.machine.manager.step_checkpoint();
        self.observe();
    }

    /// Notes what the logs say is flushed and synced.
    fn observe(&mut self) {
        let at = self.now();
        for (name, owner) in &self.machine.owners {
            let log = owner.log.lock().unwrap();
            let flushed = log.flushed_lsn().0 as usize;
            let synced = match log.config().durability {
                Durability::Fsync => flushed,
                Durability::Os => log.synced_lsn().0 as usize,
            };
            self.models
                .get_mut(name)
                .expect("every log has its model")
                .acknowledged(at, flushed, synced);
        }
    }

    /// The process is killed and started again; everything it wrote is still in memory.
    pub fn restart(&mut self) {
        if self.has_stopped {
            return;
        }
        self.commit();
        self.pending_trims.clear();
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let Ok(machine) = Machine::open_observed(disk, &config(), Some(self.disk.clone())) else {
            self.has_stopped = true;
            return;
        };
        self.machine = machine;
        let at = self.now();
        for (name, model) in &mut self.models {
            let Some(found) = self.machine.find(name) else { continue };
            let history = model.judge(at, Loss::Process, Some(&found)).unwrap_or_else(|wrong| {
                panic!("a restart without a crash loses nothing, but {name}: {wrong}")
            });
            model.restarted(at, history, &found);
        }
        self.observe();
    }
}

/// A snapshot whose state is the chain value of the last frame, so that one of another history
/// is recognised.
pub fn chain_snapshot(log: &PartitionLog) -> StateSnapshot {
    log.snapshot_of(log.last_chain().to_le_bytes().to_vec())
}
