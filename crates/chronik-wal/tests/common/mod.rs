//! What the tests of this crate drive by hand: a node with one log ([`Node`]), and a machine with
//! several, a model of each, and a script for them ([`world`], [`model`], [`script`]).

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

pub mod model;
pub mod script;
pub mod world;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use chronik_common::test_support::ManualClock;
use chronik_common::{Clock, LeaderEpoch, Offset, PartitionIndex, SeededRng, TopicPartition, Uuid};
use chronik_record::{BatchBuilder, Codec, DecompressionLimits, crc};
use chronik_wal::frame::FrameKind;
use chronik_wal::io::{Disk, DiskError, MemoryDisk};
use chronik_wal::layout::Layout;
use chronik_wal::{
    CheckpointConfig, Durability, FlushSink, Flushed, LogAccess, LogConfig, NewFrame, PartitionLog,
    ReadBuffers, ReadMode, ReadPlan, StateSnapshot, WalConfig, WalError, WalManager,
};

/// Collects completions until the test applies them.
#[derive(Default)]
pub struct CollectingSink {
    /// With each the operations its observer had seen.
    pub flushed: Mutex<Vec<(usize, Flushed)>>,
    pub observer: Option<MemoryDisk>,
    pub failures: Mutex<Vec<String>>,
}

impl FlushSink for CollectingSink {
    fn flushed(&self, _origin: u16, flushed: &[Flushed]) {
        let at = self.observer.as_ref().map_or(0, MemoryDisk::op_count);
        self.flushed.lock().unwrap().extend(flushed.iter().map(|one| (at, *one)));
    }

    fn lane_failed(&self, error: &DiskError) {
        self.failures.lock().unwrap().push(error.to_string());
    }
}

/// The owner of one log.
pub struct Owner {
    pub log: Mutex<PartitionLog>,
    pub failures: Mutex<Vec<String>>,
    pub is_snapshot_due: AtomicBool,
}

impl LogAccess for Owner {
    fn with_log(&self, visit: &mut dyn FnMut(&mut PartitionLog)) {
        visit(&mut self.log.lock().unwrap());
    }

    fn take_snapshot(&self, _is_last: bool) -> Option<StateSnapshot> {
        let is_due = self.is_snapshot_due.swap(false, Ordering::Relaxed);
        is_due.then(|| world::chain_snapshot(&self.log.lock().unwrap()))
    }

    fn on_storage_failure(&self, error: &WalError) {
        self.failures.lock().unwrap().push(error.to_string());
    }
}

pub fn topic() -> TopicPartition {
    TopicPartition { topic: "t".into(), partition: PartitionIndex(0) }
}

pub const TOPIC_ID: Uuid = Uuid([7; 16]);

/// Tiny limits, so that a short script crosses every boundary.
pub fn small_config() -> WalConfig {
    WalConfig {
        journal_files: 4,
        journal_file_bytes: 64 << 10,
        group_bytes_max: 16 << 10,
        group_records_max: 64,
        bypass_bytes: 3 << 10,
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

/// Segments close before they grow beyond this.
const SEGMENT_BYTES: u64 = 12 << 10;

pub fn log_config(durability: Durability) -> LogConfig {
    LogConfig { durability, segment_bytes: SEGMENT_BYTES, segment_ms: i64::MAX }
}

/// A node with one partition.
pub struct Node {
    pub manager: Arc<WalManager>,
    pub sink: Arc<CollectingSink>,
    pub owner: Arc<Owner>,
    pub clock: Arc<ManualClock>,
    /// True if the partition was there already.
    pub was_recovered: bool,
}

impl Node {
    /// Opens the data on `disk`; the partition is created if it is not there.
    pub fn open(disk: Arc<dyn Disk>, durability: Durability) -> Result<Self, WalError> {
        Self::open_with(disk, log_config(durability))
    }

    /// Like [`Node::open`], with other settings of the log.
    pub fn open_with(disk: Arc<dyn Disk>, config: LogConfig) -> Result<Self, WalError> {
        Self::open_as(disk, config, &small_config())
    }

    /// Like [`Node::open`], with other settings of the log and of the node.
    pub fn open_as(
        disk: Arc<dyn Disk>,
        config: LogConfig,
        wal_config: &WalConfig,
    ) -> Result<Self, WalError> {
        let sink = Arc::new(CollectingSink::default());
        let clock = Arc::new(ManualClock::default());
        let as_sink: Arc<dyn FlushSink> = sink.clone();
        let as_clock: Arc<dyn Clock> = clock.clone();
        let (manager, opened) = WalManager::open(
            disk,
            Layout::new(PathBuf::from("/data")),
            wal_config,
            &as_sink,
            &as_clock,
            Box::new(SeededRng::new(1)),
            &|_| config,
        )?;
        let existing = opened.into_iter().find(|log| log.partition.is_some());
        let was_recovered = existing.is_some();
        let log = match existing {
            Some(existing) => existing.log,
            None => manager.create_log(&topic(), TOPIC_ID, config)?,
        };
        let id = log.identity().id;
        let owner = Arc::new(Owner {
            log: Mutex::new(log),
            failures: Mutex::default(),
            is_snapshot_due: AtomicBool::new(true),
        });
        let weak: Weak<Owner> = Arc::downgrade(&owner);
        manager.attach(id, weak);
        Ok(Self { manager, sink, owner, clock, was_recovered })
    }

    /// Appends a batch of one record with `value` and hands it to the lane.
    pub fn append(&self, value: &[u8]) -> Result<Offset, WalError> {
        let mut log = self.owner.log.lock().unwrap();
        let offset = append_to(&mut log, value, LeaderEpoch(0))?;
        log.submit(0)?;
        Ok(offset)
    }

    /// Commits what is queued and applies the completions.
    ///
    /// Where a running node's worker would have freed the ring, this does it first.
    pub fn commit(&self) -> Result<(), DiskError> {
        if self.manager.data_lane().ring_fill() > 0.5 {
            self.manager.step_checkpoint();
        }
        let result = self.manager.step_commit();
        let flushed: Vec<_> = self.sink.flushed.lock().unwrap().drain(..).collect();
        let mut log = self.owner.log.lock().unwrap();
        for (_, one) in flushed {
            log.on_flushed(&one);
        }
        result
    }

    /// All values from `offset` on, read the way a consumer would, below the flushed offset.
    pub fn read_from(&self, offset: Offset) -> Result<Vec<usize>, WalError> {
        let upper = self.owner.log.lock().unwrap().flushed_offset();
        self.read_range(offset, upper)
    }

    pub fn read_range(&self, mut offset: Offset, upper: Offset) -> Result<Vec<usize>, WalError> {
        let mut values = Vec::new();
        while offset < upper {
            let plan = self.owner.log.lock().unwrap().read(offset, upper, 4_096)?;
            let bodies = match plan {
                ReadPlan::Empty => break,
                ReadPlan::Memory(bodies) => bodies,
                ReadPlan::Segment(range) => {
                    range.read(ReadMode::Blocking, &ReadBuffers::default())?.unwrap()
                }
            };
            assert!(!bodies.is_empty(), "a read below the end makes progress at {offset:?}");
            for body in bodies {
                let header = chronik_record::BatchHeader::parse(&body).unwrap();
                assert_eq!(header.base_offset, offset, "offsets are dense");
                values.push(value_of(&body));
                offset = header.next_offset();
            }
        }
        Ok(values)
    }
}

pub fn append_to(
    log: &mut PartitionLog,
    value: &[u8],
    epoch: LeaderEpoch,
) -> Result<Offset, WalError> {
    let batch = batch(value, log.log_end_offset());
    let header = log.append(NewFrame {
        kind: FrameKind::Data,
        flags: 0,
        epoch,
        record_count: 1,
        last_offset_delta: 0,
        body_crc: crc::crc32c(&batch),
        body: batch,
        append_time_ms: 1_700_000_000_000,
        max_timestamp: 1_700_000_000_000,
    })?;
    Ok(header.base_offset)
}

fn batch(value: &[u8], base_offset: Offset) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None);
    builder.append(1_700_000_000_000, None, Some(value), &[]);
    let mut bytes = builder.build().to_vec();
    chronik_record::set_base_offset(&mut bytes, base_offset);
    bytes.into()
}

/// Number of the record in a batch; its whole value is checked against what was written.
pub fn value_of(body: &[u8]) -> usize {
    let records = chronik_record::records(body, DecompressionLimits::output_bytes(1 << 20));
    let records = records.unwrap();
    let record = records.iter().next().unwrap().unwrap();
    let written = record.value.unwrap();
    let number = std::str::from_utf8(written).unwrap().split('-').nth(1).unwrap();
    let number = number.parse().unwrap();
    assert!(written == value(number), "record {number} must be read as it was written");
    number
}

/// The value a test writes as record `n`: its number, then filler of a size that varies.
pub fn value(n: usize) -> Vec<u8> {
    let mut value = format!("record-{n}-").into_bytes();
    let filler = if n % 11 == 5 { 4_000 } else { n * 37 % 300 };
    value.resize(value.len() + filler, b'a' + (n % 26) as u8);
    value
}
