//! A node without threads: topics over a log whose journal is written to nowhere.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use chronik_cluster::{Change, CreateTopic, MetadataImage, NewPartition, apply};
use chronik_common::test_support::ManualClock;
use chronik_common::{Clock, Lsn, SeededRng, TopicId, Uuid, WallMs};
use chronik_config::TopicConfig;
use chronik_partition::{Registry, Token};
use chronik_wal::io::{
    DirectoryEntry, Disk, DiskError, DiskFile, DiskResult, DiskSpace, MemoryDisk, OpenMode,
};
use chronik_wal::layout::Layout;
use chronik_wal::{FlushSink, Flushed, LogConfig, WalConfig, WalManager};

/// The time of every append.
pub(super) const NOW: WallMs = ManualClock::START;

/// A memory that is small beside callgrind's own.
const JOURNAL_FILE_BYTES: u64 = 16 << 20;
const SEGMENT_BYTES: u64 = 1 << 20;

/// Keeps what became durable.
#[derive(Default)]
struct Sink(Mutex<Vec<Flushed>>);

impl FlushSink for Sink {
    fn flushed(&self, _origin: u16, flushed: &[Flushed]) {
        self.0.lock().expect("no holder panics").extend_from_slice(flushed);
    }

    fn lane_failed(&self, error: &DiskError) {
        panic!("a disk in memory does not fail: {error}");
    }
}

/// A node, stepped by hand.
pub(super) struct Node {
    pub(super) manager: Arc<WalManager>,
    pub(super) registry: Registry,
    sink: Arc<Sink>,
}

impl Node {
    /// A node with so many topics of so many partitions each.
    pub(super) fn new(topics: u32, partitions: usize) -> Self {
        let sink = Arc::new(Sink::default());
        let as_sink: Arc<dyn FlushSink> = sink.clone();
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::default());
        let (manager, opened) = WalManager::open(
            Arc::new(JournalToNowhere(MemoryDisk::new())),
            Layout::new(PathBuf::from("/data")),
            &WalConfig { journal_file_bytes: JOURNAL_FILE_BYTES, ..WalConfig::default() },
            &as_sink,
            &clock,
            Box::new(SeededRng::new(1)),
            &|_| LogConfig::metadata(),
        )
        .expect("an empty disk can be opened");
        drop(opened);
        let defaults = TopicConfig { segment_bytes: SEGMENT_BYTES, ..TopicConfig::default() };
        let on_failure = Arc::new(|_: &_, failure: &_| panic!("no log fails: {failure}"));
        let registry = Registry::new(Arc::clone(&manager), Vec::new(), defaults, on_failure);
        let mut image = MetadataImage::default();
        for number in 0..topics {
            let topic = CreateTopic {
                name: topic_name(number),
                topic_id: topic_id(number).0.to_vec(),
                partitions: vec![NewPartition { replicas: vec![1], leader: 1 }; partitions],
                configs: Vec::new(),
            };
            let position = Lsn(u64::from(number) + 1);
            let (next, applied) = apply(&image, position, &Change::CreateTopic(topic).into());
            applied.expect("the topic is new");
            image = next;
        }
        registry.reconcile(&image, &mut Vec::new(), &mut Vec::new());
        Self { manager, registry, sink }
    }

    /// Commits what was submitted; what became durable is returned and not yet told anybody.
    pub(super) fn commit(&self) -> Vec<Flushed> {
        self.manager.step_commit().expect("a disk in memory does not fail");
        std::mem::take(&mut *self.sink.0.lock().expect("no holder panics"))
    }

    /// Tells the partitions what became durable, then empties journal and memory as the background
    /// worker does.
    pub(super) fn settle(&self, flushed: &[Flushed]) {
        for one in flushed {
            let partition = self.registry.by_log(one.log).expect("the log has an owner");
            partition.on_flushed(one, &mut Vec::new(), &mut Vec::new());
        }
        if self.manager.data_lane().ring_fill() > 0.5 {
            self.manager.step_checkpoint();
        }
    }
}

/// Name of a topic.
pub(super) fn topic_name(number: u32) -> String {
    format!("perf-topic-{number:04}")
}

/// Id of a topic.
pub(super) fn topic_id(number: u32) -> TopicId {
    let mut rng = SeededRng::new(u64::from(number));
    Uuid::random(&mut rng)
}

/// Who waits for an answer.
pub(super) fn token(request: u64) -> Token {
    Token { shard: 0, connection: 1, request, part: 0 }
}

/// A disk in memory that forgets what is written to the journal, which nobody reads back: what a
/// group costs is counted, not what remembering it costs.
struct JournalToNowhere(MemoryDisk);

impl Disk for JournalToNowhere {
    fn open(&self, path: &Path, mode: OpenMode) -> DiskResult<Arc<dyn DiskFile>> {
        let file = self.0.open(path, mode)?;
        let is_journal = path.extension().is_some_and(|extension| extension == "wal");
        Ok(if is_journal { Arc::new(Nowhere(file)) } else { file })
    }

    fn create_directory(&self, path: &Path) -> DiskResult<()> {
        self.0.create_directory(path)
    }

    fn remove_file(&self, path: &Path) -> DiskResult<()> {
        self.0.remove_file(path)
    }

    fn remove_directory(&self, path: &Path) -> DiskResult<()> {
        self.0.remove_directory(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> DiskResult<()> {
        self.0.rename(from, to)
    }

    fn sync_directory(&self, path: &Path) -> DiskResult<()> {
        self.0.sync_directory(path)
    }

    fn list(&self, path: &Path) -> DiskResult<Vec<DirectoryEntry>> {
        self.0.list(path)
    }

    fn exists(&self, path: &Path) -> bool {
        self.0.exists(path)
    }

    fn space(&self, path: &Path) -> DiskResult<DiskSpace> {
        self.0.space(path)
    }
}

struct Nowhere(Arc<dyn DiskFile>);

impl DiskFile for Nowhere {
    fn path(&self) -> &Path {
        self.0.path()
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> DiskResult<usize> {
        self.0.read_at(position, buffer)
    }

    fn read_cached_at(&self, position: u64, buffer: &mut [u8]) -> DiskResult<Option<usize>> {
        self.0.read_cached_at(position, buffer)
    }

    fn write_at(&self, _position: u64, _slices: &mut [IoSlice<'_>]) -> DiskResult<()> {
        Ok(())
    }

    fn sync(&self) -> DiskResult<()> {
        Ok(())
    }

    fn set_length(&self, length: u64) -> DiskResult<()> {
        self.0.set_length(length)
    }

    fn allocate(&self, position: u64, length: u64) -> DiskResult<()> {
        self.0.allocate(position, length)
    }

    fn length(&self) -> DiskResult<u64> {
        self.0.length()
    }

    fn data_end(&self, position: u64) -> u64 {
        self.0.data_end(position)
    }
}
