//! A node with the partitions of one topic on a disk in memory, driven step by step.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chronik_cluster::{Change, CreateTopic, MetadataImage, NewPartition, apply};
use chronik_common::test_support::ManualClock;
use chronik_common::{Clock, Lsn, Offset, PartitionIndex, ProducerId, SeededRng, WallMs};
use chronik_config::TopicConfig;
use chronik_partition::{
    Acks, Appended, BatchSource, Completion, Partition, PreparedBatch, Registry, Token,
};
use chronik_record::{BatchBuilder, Codec};
use chronik_wal::io::{CrashPolicy, Disk, DiskError, MemoryDisk};
use chronik_wal::layout::Layout;
use chronik_wal::{
    CheckpointConfig, FlushSink, Flushed, LogAccess, LogConfig, WalConfig, WalManager,
};

/// The time of every append.
pub const NOW: WallMs = WallMs(1_700_000_000_000);

/// Segments of seven batches each.
pub const SEGMENT_BYTES: u64 = 12 << 10;

/// A topic config with small segments.
pub fn config() -> TopicConfig {
    TopicConfig { segment_bytes: SEGMENT_BYTES, ..TopicConfig::default() }
}

#[derive(Default)]
struct Sink(Mutex<Vec<Flushed>>);

impl FlushSink for Sink {
    fn flushed(&self, _origin: u16, flushed: &[Flushed]) {
        self.0.lock().unwrap().extend_from_slice(flushed);
    }

    fn lane_failed(&self, error: &DiskError) {
        panic!("a disk in memory does not fail: {error}");
    }
}

/// A started node. Its logs live as long as it does.
pub struct Node {
    pub disk: MemoryDisk,
    pub manager: Arc<WalManager>,
    pub registry: Registry,
    sink: Arc<Sink>,
    defaults: TopicConfig,
    overrides: Vec<(&'static str, &'static str)>,
}

impl Node {
    /// A node with topic `t`, of one partition, whose settings are `config`.
    pub fn new(config: TopicConfig) -> Self {
        Self::with_overrides(config, &[])
    }

    /// The same with `overrides` of the topic over the node's `defaults`.
    pub fn with_overrides(
        defaults: TopicConfig,
        overrides: &[(&'static str, &'static str)],
    ) -> Self {
        Self::open(MemoryDisk::new(), defaults, overrides.to_vec())
    }

    fn open(
        disk: MemoryDisk,
        defaults: TopicConfig,
        overrides: Vec<(&'static str, &'static str)>,
    ) -> Self {
        let sink = Arc::new(Sink::default());
        let as_sink: Arc<dyn FlushSink> = sink.clone();
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::default());
        let as_disk: Arc<dyn Disk> = Arc::new(disk.clone());
        let config = WalConfig {
            journal_file_bytes: 256 << 10,
            group_bytes_max: 64 << 10,
            tail_bytes_max: 1 << 20,
            checkpoint: CheckpointConfig {
                write_behind_interval: Duration::from_millis(1),
                checkpoint_interval: Duration::from_secs(10),
            },
            ..WalConfig::default()
        };
        let (manager, mut opened) = WalManager::open(
            as_disk,
            Layout::new(PathBuf::from("/data")),
            &config,
            &as_sink,
            &clock,
            Box::new(SeededRng::new(1)),
            // What the node knows before it has read its metadata.
            &|_| LogConfig::metadata(),
        )
        .unwrap();
        opened.retain(|log| log.partition.is_some());
        let on_failure = Arc::new(|_: &_, failure: &_| panic!("no log fails: {failure}"));
        let registry = Registry::new(Arc::clone(&manager), opened, defaults.clone(), on_failure);
        let changed = overrides.iter().map(|(key, value)| chronik_cluster::ChangedConfig {
            key: (*key).to_owned(),
            value: (*value).to_owned(),
        });
        let topic = CreateTopic {
            name: "t".to_owned(),
            topic_id: vec![7; 16],
            partitions: vec![NewPartition { replicas: vec![1], leader: 1 }],
            configs: changed.collect(),
        };
        let command = Change::CreateTopic(topic).into();
        let (image, created) = apply(&MetadataImage::default(), Lsn(1), &command);
        created.unwrap();
        registry.reconcile(&image, &mut Vec::new(), &mut Vec::new());
        registry.set_aside_unclaimed();
        Self { disk, manager, registry, sink, defaults, overrides }
    }

    /// The machine loses power and starts again.
    pub fn power_cut(self) -> Self {
        let survivor = self.disk.crash(self.disk.op_count(), CrashPolicy::LoseUnsynced);
        Self::open(survivor, self.defaults, self.overrides)
    }

    /// The process is stopped as it should be, and starts again.
    pub fn restart(self) -> Self {
        self.manager.finish_stop();
        Self::open(self.disk.clone(), self.defaults, self.overrides)
    }

    pub fn partition(&self) -> Arc<Partition> {
        let topic = self.registry.topic("t").unwrap();
        Arc::clone(topic.partition(PartitionIndex(0)).expect("the log was opened"))
    }

    /// Appends a batch without committing it.
    pub fn append(&self, batch: &[u8], acks: Acks, token: Token) -> Appended {
        let partition = self.partition();
        let settings = partition.settings();
        let batch = PreparedBatch::new(BatchSource::Borrowed(batch), &settings, NOW, true).unwrap();
        let appended = partition.append(batch, acks, token, NOW).unwrap();
        partition.submit(0, &mut Vec::new(), &mut Vec::new());
        appended
    }

    /// Commits what was appended; who is done and who is woken.
    pub fn commit(&self) -> (Vec<Completion>, Vec<Token>) {
        self.manager.step_commit().unwrap();
        let (mut completed, mut woken) = (Vec::new(), Vec::new());
        for flushed in self.sink.0.lock().unwrap().drain(..) {
            if let Some(partition) = self.registry.by_log(flushed.log) {
                partition.on_flushed(&flushed, &mut completed, &mut woken);
            }
        }
        (completed, woken)
    }

    /// Looks at retention as the server does every 30 s; the new log start if anything goes.
    pub fn apply_retention(&self, now: WallMs) -> Option<Offset> {
        self.partition().apply_retention(now, 0, &mut Vec::new(), &mut Vec::new())
    }

    /// A few rounds of everything the server does in the background, retention included.
    pub fn grow_old(&self, now: WallMs) {
        for _ in 0..6 {
            self.apply_retention(now);
            self.commit();
            self.manager.step_checkpoint();
        }
    }

    /// Settings of the partition's log.
    pub fn log_config(&self) -> LogConfig {
        let mut config = None;
        self.partition().with_log(&mut |log| config = Some(log.config()));
        config.unwrap()
    }

    /// Names of the partition's segment files.
    pub fn segments(&self) -> Vec<String> {
        let files = self.disk.files().into_iter();
        let names = files.map(|(path, _)| path.to_string_lossy().into_owned());
        names.filter(|name| name.contains("/t-0/segment")).collect()
    }
}

pub fn token(request: u64) -> Token {
    Token { shard: 0, connection: 1, request, part: 0 }
}

/// A batch of one record of about a kilobyte.
pub fn batch(timestamp: i64) -> Vec<u8> {
    build(BatchBuilder::new(Codec::None), timestamp)
}

/// The batch of producer 9 with this sequence number.
pub fn idempotent(timestamp: i64, sequence: i32) -> Vec<u8> {
    build(BatchBuilder::new(Codec::None).producer(ProducerId(9), 0, sequence), timestamp)
}

fn build(mut builder: BatchBuilder, timestamp: i64) -> Vec<u8> {
    builder.append(timestamp, None, Some(&[b'v'; 1_000]), &[]);
    builder.build().to_vec()
}
