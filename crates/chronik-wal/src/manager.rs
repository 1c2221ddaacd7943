//! All logs of a node: opens and recovers them, creates and removes them, owns the lanes and the
//! background worker, and stops everything cleanly.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use chronik_common::{Clock, PartitionIndex, Rng, TopicId, TopicPartition, Uuid, parallel};
use tracing::{debug, error, info, warn};

use crate::checkpoint::{
    CheckpointConfig, HardStates, LogAccess, NodeStates, Owners, Worker, WorkerShared,
};
use crate::envelope;
use crate::error::{DamageReason, Verdict, WalError};
use crate::group_commit::{FlushSink, Lane, LaneConfig, LaneHandle};
use crate::io::{Disk, DiskFile, DiskResult, OpenMode};
use crate::journal::{LogId, RingFacts, RingWalk, holds_groups};
use crate::layout::{Layout, PARTITION_META, parse_segment_name};
use crate::log_state::{
    HARDSTATE_MAGIC, HardState, LaneRow, PARTITION_META_MAGIC, PartitionMeta, StateSnapshot,
};
use crate::nonce::NonceSource;
use crate::partition_log::{LogConfig, LogContext, LogIdentity, PartitionLog};
use crate::recovery::{LogRecovery, RecoveryReport, replay_ring};
use crate::tail::TailBudget;

/// Format level of partition directories this release writes.
const DIRECTORY_LEVEL: u32 = 1;
/// Ring of the metadata lane: files and bytes per file.
const META_RING_FILES: usize = 2;
const META_RING_FILE_BYTES: u64 = 8 << 20;
/// Most bytes in one group of the metadata lane.
const META_GROUP_BYTES_MAX: usize = 2 << 20;
/// Numbers of the lanes.
const META_LANE: u16 = 0;
const DATA_LANE: u16 = 1;
/// Time slice the commit threads ask for: they wait most of the time, and everybody waits for them.
const COMMIT_SLICE: Duration = Duration::from_micros(100);
/// Topic id in the metadata log's segments.
const META_TOPIC_ID: TopicId = Uuid([0; 16]);

/// Settings of all logs of a node.
#[derive(Clone, Debug)]
pub struct WalConfig {
    /// Files in a data lane's ring; at least 2.
    pub journal_files: usize,
    /// Bytes per ring file; a multiple of 4 KiB, at least twice `group_bytes_max`.
    pub journal_file_bytes: u64,
    /// Most bytes in one group.
    pub group_bytes_max: usize,
    /// Most records in one group.
    pub group_records_max: usize,
    /// A log with this many bytes in one group writes them straight to its segment; 0 turns
    /// that off.
    pub bypass_bytes: usize,
    /// Memory for the newest frames of all logs.
    pub tail_bytes_max: usize,
    /// Timing of the background worker.
    pub checkpoint: CheckpointConfig,
    /// Artificial delay of every journal sync.
    pub sync_delay: Duration,
    /// Threads that scan logs at start, at least 1; with 1 the order of disk calls is fixed.
    pub recovery_threads: usize,
    /// Logs whose files are made durable at the same time at the end of a start, at least 1: the
    /// file system commits them together. With 1 the order of disk calls is fixed.
    pub recovery_syncs: usize,
}

impl Default for WalConfig {
    fn default() -> Self {
        Self {
            journal_files: 4,
            journal_file_bytes: 64 << 20,
            group_bytes_max: 8 << 20,
            group_records_max: 8_192,
            bypass_bytes: 256 << 10,
            tail_bytes_max: 64 << 20,
            checkpoint: CheckpointConfig {
                write_behind_interval: Duration::from_millis(100),
                checkpoint_interval: Duration::from_secs(10),
            },
            sync_delay: Duration::ZERO,
            recovery_threads: 1,
            recovery_syncs: 1,
        }
    }
}

/// A log found at start.
#[derive(Debug)]
pub struct OpenedLog {
    /// Its topic and partition; `None` for the metadata log.
    pub partition: Option<TopicPartition>,
    /// Its topic's id.
    pub topic_id: TopicId,
    /// The log.
    pub log: PartitionLog,
    /// The newest state snapshot; the owner replays what follows it.
    pub snapshot: Option<StateSnapshot>,
}

/// All logs of a node. See the module documentation.
pub struct WalManager {
    disk: Arc<dyn Disk>,
    layout: Layout,
    nonces: NonceSource,
    budget: Arc<TailBudget>,
    worker_shared: Arc<WorkerShared>,
    owners: Arc<Owners>,
    hard_states: Arc<HardStates>,
    meta_lane: LaneHandle,
    data_lane: LaneHandle,
    /// Taken by [`WalManager::start`] or stepped by a test.
    idle: Mutex<Option<Idle>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    worker_thread: Mutex<Option<JoinHandle<()>>>,
    make_worker: Box<dyn Fn() -> Worker + Send + Sync>,
}

struct Idle {
    lanes: Vec<Lane>,
    worker: Worker,
}

impl WalManager {
    /// Recovers all logs below `layout`. `log_config` gives the settings of each partition by
    /// topic name; it is also asked for the metadata log, with `None`.
    ///
    /// Nothing runs yet: attach the owners of the returned logs, then call
    /// [`WalManager::start`].
    ///
    /// # Errors
    /// A failed disk call, or a file of an unknown format. Damaged logs are no error: they are
    /// returned with their verdict.
    pub fn open(
        disk: Arc<dyn Disk>,
        layout: Layout,
        config: &WalConfig,
        sink: &Arc<dyn FlushSink>,
        clock: &Arc<dyn Clock>,
        rng: Box<dyn Rng>,
        log_config: &dyn Fn(Option<&TopicPartition>) -> LogConfig,
    ) -> Result<(Arc<Self>, Vec<OpenedLog>), WalError> {
        for directory in [layout.meta(), layout.journal(), layout.partitions(), layout.removed()] {
            disk.create_directory(&directory)?;
        }
        disk.sync_directory(layout.root())?;
        disk.sync_directory(&layout.wal())?;
        disk.sync_directory(&layout.partitions())?;
        disk.sync_directory(&layout.removed())?;
        let nonces = NonceSource::new(rng);
        let path = layout.hardstate();
        let stored: Option<HardState> = envelope::load(&*disk, &path, HARDSTATE_MAGIC)?;
        let is_first_start = stored.is_none();
        let hardstate = stored.unwrap_or_default();
        let rows: BTreeMap<LogId, _> =
            hardstate.rows.into_iter().map(|row| (LogId(row.log_id), row)).collect();

        let found = find_partitions(&*disk, &layout)?;
        if is_first_start && !found.is_empty() {
            return Err(missing(&path));
        }
        let mut next_log_id = hardstate.next_log_id.max(1);
        let mut names = BTreeMap::new();
        let mut identities = Vec::new();
        for (partition, meta) in found {
            let topic_id = topic_id_of(&meta, &layout, &partition)?;
            let id = LogId(meta.log_id);
            // Nobody could tell whose records the journal holds.
            if id == LogId::META || names.contains_key(&id) {
                let directory = layout.partition(&partition);
                return Err(WalError::ForeignDirectory(directory.display().to_string()));
            }
            next_log_id = next_log_id.max(meta.log_id.saturating_add(1));
            let identity = LogIdentity { id, topic_id, partition: meta.partition };
            let segment_bytes = log_config(Some(&partition)).segment_bytes;
            identities.push((identity, layout.partition(&partition), segment_bytes));
            names.insert(id, partition);
        }
        let scans = parallel::map(
            &identities,
            config.recovery_threads,
            |(identity, directory, segment_bytes)| {
                let (disk, nonces) = (Arc::clone(&disk), nonces.clone());
                let stored = rows.get(&identity.id);
                let directory = directory.clone();
                LogRecovery::scan(disk, nonces, directory, *identity, *segment_bytes, stored)
            },
        );
        let mut data_logs = BTreeMap::new();
        for ((identity, ..), scan) in identities.iter().zip(scans) {
            data_logs.insert(identity.id, scan?);
        }
        let meta_identity = LogIdentity { id: LogId::META, topic_id: META_TOPIC_ID, partition: -1 };
        let meta_log = LogRecovery::scan(
            Arc::clone(&disk),
            nonces.clone(),
            layout.meta(),
            meta_identity,
            log_config(None).segment_bytes,
            rows.get(&LogId::META),
        )?;
        let mut meta_logs = BTreeMap::from([(LogId::META, meta_log)]);

        let ring =
            |lane, row: Option<&LaneRow>| Ring::open(&*disk, &layout, config, lane, row, &nonces);
        let row_of = |lane: u16| hardstate.lanes.iter().find(|row| row.lane == u32::from(lane));
        let meta_ring = ring(META_LANE, row_of(META_LANE))?;
        let data_ring = ring(DATA_LANE, row_of(DATA_LANE))?;
        if is_first_start && (holds_groups(&meta_ring.files)? || holds_groups(&data_ring.files)?) {
            return Err(missing(&path));
        }
        let meta_walk = meta_ring.replay(&mut meta_logs)?;
        let data_walk = data_ring.replay(&mut data_logs)?;
        if meta_walk.are_facts_stale || data_walk.are_facts_stale {
            return Err(WalError::Damaged {
                file: path.display().to_string(),
                position: 0,
                reason: DamageReason::Inconsistent,
            });
        }

        let mut recovered = Vec::new();
        for (id, log) in meta_logs {
            recovered.push((id, log.finish(meta_walk.is_damaged)?));
        }
        let finished = parallel::map(data_logs, config.recovery_syncs, |(id, log)| {
            log.finish(data_walk.is_damaged).map(|parts| (id, parts))
        });
        for log in finished {
            recovered.push(log?);
        }

        let budget = Arc::new(TailBudget::new(config.tail_bytes_max));
        let worker_shared = WorkerShared::new();
        let open_lane = |ring: Ring, walk: &RingWalk, bypass_bytes| {
            let worker = Arc::clone(&worker_shared);
            Lane::open(
                &disk,
                ring.lane_config(config, bypass_bytes),
                walk,
                Arc::clone(&budget),
                Arc::clone(sink),
                Arc::clone(clock),
                Box::new(move || worker.kick()),
            )
        };
        let lane_rows = vec![meta_ring.row(&meta_walk), data_ring.row(&data_walk)];
        let (meta, meta_lane) = open_lane(meta_ring, &meta_walk, 0)?;
        let (data, data_lane) = open_lane(data_ring, &data_walk, config.bypass_bytes)?;

        let owners: Arc<Owners> = Arc::default();
        // From here on the journal starts anew: what a later restart needs of the old one is in
        // segments and in this table. Rows of logs that are gone serve nobody.
        let hard_states: Arc<HardStates> = Arc::new(Mutex::new(NodeStates {
            rows: BTreeMap::new(),
            next_log_id,
            lanes: lane_rows,
        }));
        let make_worker = {
            let (disk, layout, clock) = (Arc::clone(&disk), layout.clone(), Arc::clone(clock));
            let (shared, owners) = (Arc::clone(&worker_shared), Arc::clone(&owners));
            let (hard_states, budget) = (Arc::clone(&hard_states), Arc::clone(&budget));
            let lanes = vec![meta_lane.clone(), data_lane.clone()];
            let checkpoint = config.checkpoint;
            Box::new(move || {
                Worker::new(
                    Arc::clone(&disk),
                    layout.clone(),
                    checkpoint,
                    Arc::clone(&clock),
                    Arc::clone(&shared),
                    Arc::clone(&owners),
                    Arc::clone(&hard_states),
                    lanes.clone(),
                    Arc::clone(&budget),
                )
            })
        };
        let manager = Arc::new(Self {
            disk,
            layout,
            nonces,
            budget,
            worker_shared,
            owners,
            hard_states,
            meta_lane,
            data_lane,
            idle: Mutex::new(Some(Idle { lanes: vec![meta, data], worker: make_worker() })),
            threads: Mutex::default(),
            worker_thread: Mutex::default(),
            make_worker,
        });
        let mut opened = Vec::new();
        let mut rows = BTreeMap::new();
        for (id, log) in recovered {
            let partition = names.remove(&id);
            report(partition.as_ref(), log.parts.verdict, &log.report);
            let topic_id = log.parts.identity.topic_id;
            let settings = log_config(partition.as_ref());
            let mut opened_log = PartitionLog::new(manager.context(id), settings, log.parts);
            rows.insert(id, opened_log.take_hard_state());
            opened.push(OpenedLog { partition, topic_id, log: opened_log, snapshot: log.snapshot });
        }
        manager.hard_states.lock().expect("no holder of the table panics").rows = rows;
        NodeStates::store(&manager.hard_states, &*manager.disk, &manager.layout.hardstate())?;
        Ok((manager, opened))
    }

    fn context(&self, id: LogId) -> LogContext {
        let worker = Arc::clone(&self.worker_shared);
        LogContext {
            disk: Arc::clone(&self.disk),
            lane: if id == LogId::META { self.meta_lane.clone() } else { self.data_lane.clone() },
            budget: Arc::clone(&self.budget),
            nonces: self.nonces.clone(),
            mark_dirty: Arc::new(move |log| worker.mark_dirty(log)),
        }
    }

    /// Creates the directory of a new log and makes it durable. Blocks.
    ///
    /// # Errors
    /// A failed disk call, or [`WalError::ForeignDirectory`] when a directory of that name is
    /// there already: the caller moves it aside with [`WalManager::remove_log`] first.
    pub fn create_log(
        &self,
        partition: &TopicPartition,
        topic_id: TopicId,
        config: LogConfig,
    ) -> Result<PartitionLog, WalError> {
        let directory = self.layout.partition(partition);
        if self.disk.exists(&directory.join(PARTITION_META)) {
            return Err(WalError::ForeignDirectory(directory.display().to_string()));
        }
        let id = {
            let mut states = self.hard_states.lock().expect("no holder of the table panics");
            let id = LogId(states.next_log_id);
            assert!(
                id != LogId::META && !states.rows.contains_key(&id),
                "{id:?} is given out a second time"
            );
            states.next_log_id += 1;
            id
        };
        self.disk.create_directory(&directory)?;
        let meta = PartitionMeta {
            topic: partition.topic.to_string(),
            topic_id: topic_id.0.to_vec(),
            partition: partition.partition.0,
            log_id: id.0,
            replication_mode: 1,
            replica_id: u64::from(id.0),
            format_level: DIRECTORY_LEVEL,
        };
        let path = directory.join(PARTITION_META);
        envelope::store(&*self.disk, &path, PARTITION_META_MAGIC, &meta)?;
        self.disk.sync_directory(&self.layout.partitions())?;
        let identity = LogIdentity { id, topic_id, partition: partition.partition.0 };
        let empty = LogRecovery::scan(
            Arc::clone(&self.disk),
            self.nonces.clone(),
            directory,
            identity,
            config.segment_bytes,
            None,
        )?;
        Ok(PartitionLog::new(self.context(id), config, empty.finish(false)?.parts))
    }

    /// Registers the owner of a log; until then the background worker leaves the log alone.
    pub fn attach(&self, log: LogId, owner: Weak<dyn LogAccess>) {
        self.owners.lock().expect("no holder of the owners panics").insert(log, owner);
    }

    /// Takes a log out of service: its directory is renamed in one step and then removed. Blocks.
    ///
    /// # Errors
    /// A failed disk call; the log is out of service either way.
    pub fn remove_log(&self, log: Option<LogId>, partition: &TopicPartition) -> DiskResult<()> {
        if let Some(log) = log {
            self.owners.lock().expect("no holder of the owners panics").remove(&log);
            self.hard_states.lock().expect("no holder of the table panics").rows.remove(&log);
        }
        let _visit = self.worker_shared.visit();
        let directory = self.layout.partition(partition);
        if !self.disk.exists(&directory) {
            return Ok(());
        }
        let aside = self.layout.removed().join(format!("{partition}.{}", self.nonces.next()));
        self.disk.rename(&directory, &aside)?;
        self.disk.sync_directory(&self.layout.partitions())?;
        self.disk.sync_directory(&self.layout.removed())?;
        self.disk.remove_directory(&aside)
    }

    /// Moves the files of a log that nobody owns out of the way, to be looked at; returns where
    /// they are. Blocks.
    ///
    /// # Errors
    /// A failed disk call.
    pub fn set_aside(&self, partition: &TopicPartition) -> DiskResult<PathBuf> {
        let orphaned = self.layout.orphaned();
        self.disk.create_directory(&orphaned)?;
        let aside = orphaned.join(format!("{partition}.{}", self.nonces.next()));
        self.disk.rename(&self.layout.partition(partition), &aside)?;
        self.disk.sync_directory(&self.layout.partitions())?;
        self.disk.sync_directory(&orphaned)?;
        Ok(aside)
    }

    /// Starts the commit threads, the threads that fill the journals with zeros, and the
    /// background worker.
    ///
    /// # Panics
    /// If called twice or if the operating system refuses a thread.
    pub fn start(&self) {
        let idle = self.idle.lock().expect("no holder panics").take().expect("started once");
        let mut threads = self.threads.lock().expect("no holder panics");
        for (lane, name) in idle.lanes.into_iter().zip(["commit-meta", "commit-0"]) {
            match lane.zero_fill(&*self.disk) {
                Ok(fill) => threads.push(spawn("journal-zeros", fill)),
                Err(error) => warn!(%error, "the journal is not filled with zeros in advance"),
            }
            threads.push(spawn(name, move || {
                // Where the wish is not granted, commits wait longer for a busy machine.
                if let Err(error) = chronik_scheduler::request_slice(COMMIT_SLICE) {
                    debug!(%error, "the commit thread keeps the usual time slice");
                }
                lane.run();
            }));
        }
        let worker = idle.worker;
        *self.worker_thread.lock().expect("no holder panics") =
            Some(spawn("checkpoint", move || worker.run()));
    }

    /// Commits what is queued, on the calling thread, without the threads. For tests and
    /// simulation.
    ///
    /// # Errors
    /// The failure that stopped a lane.
    ///
    /// # Panics
    /// After [`WalManager::start`].
    pub fn step_commit(&self) -> DiskResult<()> {
        let mut idle = self.idle.lock().expect("no holder panics");
        let idle = idle.as_mut().expect("stepped only before it is started");
        for lane in &mut idle.lanes {
            while lane.commit_once().inspect_err(|error| lane.fail(error))? {}
        }
        Ok(())
    }

    /// Runs the background worker once, on the calling thread. For tests and simulation.
    ///
    /// # Panics
    /// After [`WalManager::start`].
    pub fn step_checkpoint(&self) {
        let mut idle = self.idle.lock().expect("no holder panics");
        let idle = idle.as_mut().expect("stepped only before it is started");
        idle.worker.collect_dirty();
        idle.worker.checkpoint(false);
    }

    /// Writes flushed frames to segments once, on the calling thread, without syncing. For
    /// tests and simulation.
    ///
    /// # Panics
    /// After [`WalManager::start`].
    pub fn step_write_behind(&self) {
        let mut idle = self.idle.lock().expect("no holder panics");
        let idle = idle.as_mut().expect("stepped only before it is started");
        idle.worker.collect_dirty();
        idle.worker.write_behind();
    }

    /// Stops the lanes after what is queued. Completions still reach the sink; apply them, then
    /// call [`WalManager::finish_stop`]. Blocks.
    pub fn stop_lanes(&self) {
        self.data_lane.close();
        self.meta_lane.close();
        for thread in self.threads.lock().expect("no holder panics").drain(..) {
            join(thread, "a thread of the journal panicked");
        }
    }

    /// Ends the background worker, then makes every log's segments and snapshots durable so
    /// that the next start has nothing to replay. Blocks.
    pub fn finish_stop(&self) {
        self.stop_worker();
        let mut worker = (self.make_worker)();
        let logs: Vec<LogId> = {
            let owners = self.owners.lock().expect("no holder of the owners panics");
            owners.keys().copied().collect()
        };
        for log in logs {
            self.worker_shared.mark_dirty(log);
        }
        worker.collect_dirty();
        worker.checkpoint(true);
    }

    fn stop_worker(&self) {
        self.worker_shared.stop();
        if let Some(thread) = self.worker_thread.lock().expect("no holder panics").take() {
            join(thread, "the checkpoint thread panicked");
        }
    }

    /// The lane of all partitions.
    #[must_use]
    pub fn data_lane(&self) -> &LaneHandle {
        &self.data_lane
    }

    /// The lane of the metadata log.
    #[must_use]
    pub fn meta_lane(&self) -> &LaneHandle {
        &self.meta_lane
    }

    /// Memory of all tails.
    #[must_use]
    pub fn tail_budget(&self) -> &TailBudget {
        &self.budget
    }

    /// Names below the data directory.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The disk.
    #[must_use]
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }
}

/// No thread of it writes to the directory after that: another manager may open it.
impl Drop for WalManager {
    fn drop(&mut self) {
        self.stop_lanes();
        self.stop_worker();
    }
}

/// Waits for a thread's end, unless it is the calling one.
fn join(thread: JoinHandle<()>, complaint: &'static str) {
    if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
        error!("{complaint}");
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .expect("the operating system grants a thread at start")
}

/// The ring of one lane at start: its files, and what is known about them from outside.
struct Ring {
    lane: u16,
    paths: Vec<PathBuf>,
    files: Vec<Arc<dyn DiskFile>>,
    file_bytes: u64,
    facts: RingFacts,
    /// True if a file is missing or shorter than it once was.
    has_lost_bytes: bool,
    /// True if this start made all of it: there is nothing to read.
    is_new: bool,
}

impl Ring {
    /// Opens the files of a ring; `row` is what is stored about it, `None` before its first use.
    ///
    /// A ring gets its files in full length, durably, before its first group: so a file that is
    /// missing or short later on was damaged.
    fn open(
        disk: &dyn Disk,
        layout: &Layout,
        config: &WalConfig,
        lane: u16,
        row: Option<&LaneRow>,
        nonces: &NonceSource,
    ) -> Result<Self, WalError> {
        let (configured, file_bytes) = match lane {
            META_LANE => (META_RING_FILES, META_RING_FILE_BYTES.min(config.journal_file_bytes)),
            _ => (config.journal_files, config.journal_file_bytes),
        };
        // A ring never shrinks: its last file may hold groups that are still needed.
        let count = configured.max(row.map_or(0, |row| row.ring_files as usize));
        let path = |file| match lane {
            META_LANE => layout.meta_ring_file(file),
            _ => layout.ring_file(0, file),
        };
        let paths: Vec<PathBuf> = (0..count).map(path).collect();
        let mut files = Vec::with_capacity(count);
        let mut has_lost_bytes = false;
        let mut is_new = row.is_none();
        for (index, path) in paths.iter().enumerate() {
            let file = disk.open(path, OpenMode::ReadWrite)?;
            let length = file.length()?;
            is_new &= length == 0;
            let was_there = row.is_some_and(|row| index < row.ring_files as usize);
            has_lost_bytes |= was_there && row.is_some_and(|row| length < row.ring_file_bytes);
            if length < file_bytes {
                file.set_length(file_bytes)?;
                file.allocate(0, file_bytes)?;
            }
            // What a killed process wrote is read below; it must not be gone after that.
            file.sync()?;
            files.push(file);
        }
        disk.sync_directory(paths[0].parent().expect("ring files lie in a directory"))?;
        let facts = match row {
            Some(row) => RingFacts { nonce: row.ring_nonce, oldest_needed: row.oldest_needed },
            None => RingFacts { nonce: nonces.next(), oldest_needed: 1 },
        };
        Ok(Self { lane, paths, files, file_bytes, facts, has_lost_bytes, is_new })
    }

    /// Replays the ring into `logs`.
    fn replay(&self, logs: &mut BTreeMap<LogId, LogRecovery>) -> Result<RingWalk, WalError> {
        if self.is_new {
            return Ok(RingWalk::of_new(self.files.len(), self.facts));
        }
        let mut walk = replay_ring(&self.files, self.facts, logs)?;
        assert!(
            walk.end.next_sequence >= self.facts.oldest_needed,
            "no sequence is used twice: {walk:?}, {:?}",
            self.facts
        );
        walk.is_damaged |= self.has_lost_bytes;
        if walk.is_damaged {
            error!(
                lane = self.lane,
                sequence = walk.end.next_sequence,
                "the journal is damaged: acknowledged records may be missing"
            );
        }
        Ok(walk)
    }

    /// What is to be stored about the ring once everything in it was replayed.
    fn row(&self, walk: &RingWalk) -> LaneRow {
        LaneRow {
            lane: u32::from(self.lane),
            ring_nonce: self.facts.nonce,
            oldest_needed: walk.end.next_sequence,
            ring_files: self.files.len() as u32,
            ring_file_bytes: self.file_bytes,
        }
    }

    fn lane_config(self, config: &WalConfig, bypass_bytes: usize) -> LaneConfig {
        let group_bytes_max = match self.lane {
            META_LANE => META_GROUP_BYTES_MAX.min(config.group_bytes_max),
            _ => config.group_bytes_max,
        };
        LaneConfig {
            lane: self.lane,
            ring_files: self.paths,
            ring_file_bytes: self.file_bytes,
            ring_nonce: self.facts.nonce,
            group_bytes_max,
            group_records_max: config.group_records_max,
            bypass_bytes,
            sync_delay: config.sync_delay,
        }
    }
}

/// A file that must be there, as there is data that was written after it.
fn missing(path: &Path) -> WalError {
    WalError::Damaged {
        file: path.display().to_string(),
        position: 0,
        reason: DamageReason::TooShort,
    }
}

/// Directories with a valid identity. One without identity and segments was being created when
/// the machine stopped: nothing was acknowledged for it, and it is removed.
fn find_partitions(
    disk: &dyn Disk,
    layout: &Layout,
) -> Result<Vec<(TopicPartition, PartitionMeta)>, WalError> {
    for entry in disk.list(&layout.removed())? {
        disk.remove_directory(&layout.removed().join(entry.name))?;
    }
    let mut found = Vec::new();
    for entry in disk.list(&layout.partitions())? {
        let directory = layout.partitions().join(&entry.name);
        let meta = load_partition_meta(disk, &directory)?;
        let Some(meta) = meta else {
            // The identity is durable before the first segment is created.
            let listing = disk.list(&directory)?;
            if listing.iter().any(|entry| parse_segment_name(&entry.name).is_some()) {
                return Err(missing(&directory.join(PARTITION_META)));
            }
            warn!(directory = %directory.display(), "removed a directory without an identity");
            disk.remove_directory(&directory)?;
            continue;
        };
        let partition = TopicPartition {
            topic: meta.topic.as_str().into(),
            partition: PartitionIndex(meta.partition),
        };
        if partition.to_string() != entry.name {
            return Err(WalError::ForeignDirectory(directory.display().to_string()));
        }
        found.push((partition, meta));
    }
    Ok(found)
}

fn load_partition_meta(
    disk: &dyn Disk,
    directory: &Path,
) -> Result<Option<PartitionMeta>, WalError> {
    envelope::load(disk, &directory.join(PARTITION_META), PARTITION_META_MAGIC)
}

fn topic_id_of(
    meta: &PartitionMeta,
    layout: &Layout,
    partition: &TopicPartition,
) -> Result<TopicId, WalError> {
    let bytes: Result<[u8; 16], _> = meta.topic_id.as_slice().try_into();
    bytes.map(Uuid).map_err(|_| WalError::Damaged {
        file: layout.partition(partition).join(PARTITION_META).display().to_string(),
        position: 0,
        reason: DamageReason::Inconsistent,
    })
}

fn report(partition: Option<&TopicPartition>, verdict: Verdict, report: &RecoveryReport) {
    let log = partition.map_or_else(|| "__meta".to_owned(), ToString::to_string);
    let (scanned, replayed, cut) = (report.bytes_scanned, report.frames_replayed, report.bytes_cut);
    match verdict {
        Verdict::Ok if replayed == 0 && cut == 0 => {
            tracing::debug!(log, bytes_scanned = scanned, "recovered");
        }
        Verdict::Ok => {
            info!(
                log,
                bytes_scanned = scanned,
                frames_replayed = replayed,
                bytes_cut = cut,
                "recovered"
            );
        }
        damaged => {
            let missing = match damaged {
                Verdict::LostTail { end, proven_end } => proven_end.0 - end.0,
                _ => 0,
            };
            error!(log, ?verdict, frames_missing = missing, "the log is damaged and read-only");
        }
    }
}
