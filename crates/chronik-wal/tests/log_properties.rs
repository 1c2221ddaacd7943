//! Random logs against a plain list of frames: every script of appends, commits, write-behind,
//! checkpoints, truncations, trims, kills and power cuts leaves what the list says, and a fetch
//! from any offset returns what lies there.

#![allow(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use chronik_common::{LeaderEpoch, Lsn, Offset};
use chronik_wal::frame::FrameKind;
use chronik_wal::io::{CrashPolicy, MemoryDisk};
use chronik_wal::{ReadBuffers, ReadMode, ReadPlan, Verdict, WalConfig};
use common::model::{Entry, epoch_rows};
use common::world::{FrameSpec, Machine, config};
use proptest::prelude::*;

const LOG: &str = "a-0";

#[derive(Clone, Debug)]
enum Step {
    Append {
        records: usize,
        bytes: usize,
    },
    StartEpoch,
    Commit,
    WriteBehind,
    Checkpoint {
        with_snapshot: bool,
    },
    /// Removes so many frames and lets a new leader go on.
    Truncate {
        frames: usize,
    },
    /// Raises the log start by so many percent of what is readable.
    Trim {
        percent: i64,
    },
    /// The process is killed and started again.
    Kill,
    /// The machine loses power.
    PowerCut {
        policy: CrashPolicy,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let policy = prop_oneof![
        Just(CrashPolicy::KeepUnsynced),
        Just(CrashPolicy::LoseUnsynced),
        Just(CrashPolicy::LoseWrites),
        Just(CrashPolicy::LoseNames),
        (0_usize..4).prop_map(CrashPolicy::LoseWrite),
        any::<u64>().prop_map(CrashPolicy::TearLastWrite),
    ];
    prop_oneof![
        12 => (1_usize..6, 0_usize..250).prop_map(|(records, bytes)| Step::Append { records, bytes }),
        1 => (1_usize..3, 1_500_usize..2_500)
            .prop_map(|(records, bytes)| Step::Append { records, bytes }),
        1 => Just(Step::StartEpoch),
        5 => Just(Step::Commit),
        2 => Just(Step::WriteBehind),
        2 => any::<bool>().prop_map(|with_snapshot| Step::Checkpoint { with_snapshot }),
        1 => (1_usize..12).prop_map(|frames| Step::Truncate { frames }),
        1 => (0_i64..101).prop_map(|percent| Step::Trim { percent }),
        1 => Just(Step::Kill),
        1 => policy.prop_map(|policy| Step::PowerCut { policy }),
    ]
}

/// A machine with one log, and the list of frames the log must be.
struct Run {
    config: WalConfig,
    disk: MemoryDisk,
    machine: Machine,
    frames: Vec<Entry>,
    flushed: usize,
    log_start: Offset,
    /// Frames up to here are committed and never truncated.
    committed: usize,
    epoch: i32,
    number: usize,
}

impl Run {
    fn new(tail_bytes_max: usize) -> Self {
        let config = WalConfig { tail_bytes_max, ..config() };
        let disk = MemoryDisk::new();
        let mut machine = Machine::open_with(Arc::new(disk.clone()), &config).unwrap();
        machine.create(LOG).unwrap();
        Self {
            config,
            disk,
            machine,
            frames: Vec::new(),
            flushed: 0,
            log_start: Offset::ZERO,
            committed: 0,
            epoch: 1,
            number: 0,
        }
    }

    fn append(&mut self, kind: FrameKind, records: usize, bytes: usize) {
        self.number += 1;
        let epoch = LeaderEpoch(self.epoch);
        let frame = FrameSpec { kind, epoch, records, bytes, number: self.number };
        self.frames.push(self.machine.append(LOG, &frame).unwrap());
    }

    fn commit(&mut self) {
        self.machine.owners[LOG].log.lock().unwrap().submit(0).unwrap();
        // A small memory must be emptied before it takes more.
        self.machine.manager.step_write_behind();
        assert!(self.machine.commit().unwrap().is_some(), "a checkpoint makes room");
        self.flushed = self.frames.len();
        let flushed = self.machine.owners[LOG].log.lock().unwrap().flushed_lsn();
        assert_eq!(flushed.0 as usize, self.flushed, "a commit covers all that was submitted");
    }

    fn take(&mut self, step: &Step) {
        let manager = Arc::clone(&self.machine.manager);
        let owner = Arc::clone(&self.machine.owners[LOG]);
        match step {
            Step::Append { records, bytes } => self.append(FrameKind::Data, *records, *bytes),
            Step::StartEpoch => {
                self.epoch += 1;
                self.append(FrameKind::EpochStart, 0, 0);
            }
            Step::Commit => self.commit(),
            Step::WriteBehind => manager.step_write_behind(),
            Step::Checkpoint { with_snapshot } => {
                owner.is_snapshot_due.store(*with_snapshot, Ordering::Relaxed);
                manager.step_checkpoint();
            }
            Step::Truncate { frames } => {
                let kept = self.frames.len().saturating_sub(*frames).max(self.committed);
                if kept == self.frames.len() {
                    return;
                }
                owner.log.lock().unwrap().truncate(Lsn(kept as u64 + 1)).unwrap();
                self.frames.truncate(kept);
                self.epoch += 1;
                self.append(FrameKind::EpochStart, 0, 0);
                self.commit();
            }
            Step::Trim { percent } => self.trim(*percent),
            Step::Kill => self.restart(self.disk.clone(), self.frames.len()),
            Step::PowerCut { policy } => {
                let survivor = self.disk.crash(self.disk.op_count(), *policy);
                self.restart(survivor, self.frames.len());
            }
        }
    }

    fn trim(&mut self, percent: i64) {
        self.commit();
        let end = self.frames.last().map_or(Offset::ZERO, |last| last.header.next_offset());
        let start = Offset(self.log_start.0 + (end.0 - self.log_start.0) * percent / 100);
        self.append(FrameKind::LogStart, 0, start.0 as usize);
        self.commit();
        let owner = &self.machine.owners[LOG];
        self.machine.store_snapshot(LOG);
        owner.log.lock().unwrap().trim_to(start);
        self.log_start = start;
        self.committed = self.frames.len();
    }

    /// The log comes back with everything flushed and nothing that was not appended.
    fn restart(&mut self, disk: MemoryDisk, appended: usize) {
        self.disk = disk;
        self.machine = Machine::open_with(Arc::new(self.disk.clone()), &self.config).unwrap();
        let found = self.machine.find(LOG).expect("a created log is there");
        assert_eq!((found.verdict, &found.read_error), (Verdict::Ok, &None));
        let count = found.last_lsn.0 as usize;
        assert!((self.flushed..=appended).contains(&count), "{count} frames");
        self.frames.truncate(count);
        self.flushed = count;
        assert!(self.frames.ends_with(&found.entries), "the frames are those that were appended");
        self.check();
    }

    /// What the log says about itself.
    fn check(&self) {
        let log = self.machine.owners[LOG].log.lock().unwrap();
        let mut epochs = chronik_wal::EpochHistory::default();
        for Entry { header, .. } in &self.frames {
            epochs.note(header.epoch, header.lsn, header.base_offset);
        }
        assert_eq!(epoch_rows(log.epochs()), epoch_rows(&epochs));
        let end = self.frames.last().map_or(Offset::ZERO, |last| last.header.next_offset());
        assert_eq!((log.log_start_offset(), log.log_end_offset()), (self.log_start, end));
        assert_eq!(log.flushed_lsn().0 as usize, self.flushed);
        assert!(log.flushed_offset() <= log.log_end_offset());
    }

    /// A fetch from any offset returns the batch that holds it and those that follow.
    fn fetch_from_everywhere(&self) {
        let batches: Vec<&Entry> =
            self.frames.iter().filter(|entry| entry.header.kind == FrameKind::Data).collect();
        let upper = self.machine.owners[LOG].log.lock().unwrap().flushed_offset();
        for offset in self.log_start.0..upper.0 {
            let offset = Offset(offset);
            for bytes_max in [1, 700, 1 << 20] {
                let first = batches.partition_point(|batch| batch.header.next_offset() <= offset);
                let bodies = self.fetch(offset, upper, bytes_max);
                assert!(!bodies.is_empty(), "at least one batch from {offset}");
                let expected = batches[first..].iter().map(|batch| &batch.body);
                assert!(bodies.iter().eq(expected.take(bodies.len())), "batches from {offset}");
                let others: usize = bodies.iter().skip(1).map(Bytes::len).sum();
                assert!(others == 0 || others + bodies[0].len() <= bytes_max);
                let last = batches[first + bodies.len() - 1];
                assert!(last.header.next_offset() <= upper, "nothing above {upper}");
            }
            let whole = self.fetch(offset, upper, 1 << 20);
            for piece_bytes_max in [1, 700, 5_000] {
                assert_eq!(self.fetch_in_pieces(offset, upper, piece_bytes_max), whole);
            }
        }
    }

    /// What [`fetch`](Self::fetch) gives with room for all, read piece by piece.
    fn fetch_in_pieces(&self, offset: Offset, upper: Offset, piece_bytes_max: usize) -> Vec<Bytes> {
        let plan = self.machine.owners[LOG].log.lock().unwrap().read(offset, upper, 1 << 20);
        let mut left = match plan.unwrap() {
            ReadPlan::Empty => return Vec::new(),
            ReadPlan::Memory(bodies) => return bodies,
            ReadPlan::Segment(range) => Some(range),
        };
        let (mut bodies, buffers) = (Vec::new(), ReadBuffers::default());
        while let Some(range) = left {
            let piece = range.read_piece(piece_bytes_max, ReadMode::Blocking, &buffers);
            let piece = piece.unwrap().unwrap();
            let size: usize = piece.bodies.iter().map(Bytes::len).sum();
            assert!(piece.bodies.len() <= 1 || size <= piece_bytes_max, "{size} bytes");
            bodies.extend(piece.bodies);
            left = piece.rest;
        }
        bodies
    }

    fn fetch(&self, offset: Offset, upper: Offset, bytes_max: usize) -> Vec<Bytes> {
        let plan = self.machine.owners[LOG].log.lock().unwrap().read(offset, upper, bytes_max);
        match plan.unwrap() {
            ReadPlan::Empty => Vec::new(),
            ReadPlan::Memory(bodies) => bodies,
            ReadPlan::Segment(range) => {
                range.read(ReadMode::Blocking, &ReadBuffers::default()).unwrap().unwrap()
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_log_is_what_its_script_says(
        steps in prop::collection::vec(step(), 1..80),
        tail_bytes_max in prop_oneof![Just(2_000_usize), Just(1 << 20)],
    ) {
        let mut run = Run::new(tail_bytes_max);
        for step in &steps {
            run.take(step);
        }
        run.commit();
        run.check();
        run.fetch_from_everywhere();
    }

    #[test]
    fn a_fetch_from_any_offset_finds_its_batch(
        batches in prop::collection::vec((1_usize..20, 0_usize..400), 1..60),
        is_sealed in any::<bool>(),
        segment_is_large in any::<bool>(),
    ) {
        // Large segments have several entries in their sparse index.
        let bytes = if segment_is_large { 8 } else { 1 };
        let mut run = Run::new(1_000);
        for (records, size) in batches {
            run.append(FrameKind::Data, records, size * bytes);
            run.commit();
            run.machine.manager.step_write_behind();
            if is_sealed {
                run.machine.manager.step_checkpoint();
            }
        }
        run.fetch_from_everywhere();
        run.take(&Step::Kill);
        run.fetch_from_everywhere();
    }
}
