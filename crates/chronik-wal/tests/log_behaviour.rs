//! One log on a disk in memory: what is acknowledged survives, in order, whatever happens.

#![allow(clippy::unwrap_used, reason = "a test fails where it cannot go on")]
mod common;

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use chronik_common::{LeaderEpoch, Lsn, Offset};
use chronik_wal::io::{CrashPolicy, DiskCall, Fault, FaultyDisk, MemoryDisk};
use chronik_wal::{Durability, LogConfig, Verdict, WalConfig, WalError};
use common::{Node, append_to, log_config, small_config, value};

fn values(range: std::ops::Range<usize>) -> Vec<usize> {
    range.collect()
}

fn write(node: &Node, range: std::ops::Range<usize>) {
    for n in range {
        assert_eq!(node.append(&value(n)).unwrap(), Offset(n as i64));
        if n % 3 == 0 {
            node.commit().unwrap();
        }
    }
    node.commit().unwrap();
}

#[test]
fn records_are_flushed_only_by_a_commit_and_read_back_in_order() {
    let node = Node::open(Arc::new(MemoryDisk::new()), Durability::Fsync).unwrap();
    node.append(&value(0)).unwrap();
    assert_eq!(node.owner.log.lock().unwrap().flushed_offset(), Offset(0));
    node.commit().unwrap();
    assert_eq!(node.owner.log.lock().unwrap().flushed_offset(), Offset(1));
    write(&node, 1..200);
    assert_eq!(node.read_from(Offset(0)).unwrap(), values(0..200));
    assert_eq!(node.read_from(Offset(150)).unwrap(), values(150..200));
}

#[test]
fn many_appends_share_one_sync() {
    let node = Node::open(Arc::new(MemoryDisk::new()), Durability::Fsync).unwrap();
    for n in 0..60 {
        node.append(&value(n % 5)).unwrap();
    }
    let syncs = || node.manager.data_lane().counters().syncs.load(Ordering::Relaxed);
    let before = syncs();
    node.commit().unwrap();
    assert_eq!(syncs() - before, 1);
}

#[test]
fn the_ring_wraps_many_times_and_everything_is_read_from_segments() {
    let node = Node::open(Arc::new(MemoryDisk::new()), Durability::Fsync).unwrap();
    for round in 0..30 {
        write(&node, round * 20..(round + 1) * 20);
        node.manager.step_checkpoint();
        let log = node.owner.log.lock().unwrap();
        assert!(log.is_clean(), "round {round}: {log:?}");
    }
    assert!(node.manager.data_lane().ring_fill() < 0.5);
    assert_eq!(node.read_from(Offset(0)).unwrap(), values(0..600));
}

#[test]
fn everything_flushed_survives_a_power_cut_at_any_stage_of_write_behind() {
    for checkpoint_after in [0, 1, 2] {
        let disk = MemoryDisk::new();
        let node = Node::open(Arc::new(disk.clone()), Durability::Fsync).unwrap();
        write(&node, 0..50);
        match checkpoint_after {
            1 => node.manager.step_write_behind(),
            2 => node.manager.step_checkpoint(),
            _ => {}
        }
        write(&node, 50..80);
        let survivor = disk.crash(disk.op_count(), CrashPolicy::LoseUnsynced);
        let node = Node::open(Arc::new(survivor), Durability::Fsync).unwrap();
        assert!(node.was_recovered);
        assert_eq!(node.owner.log.lock().unwrap().verdict(), Verdict::Ok);
        assert_eq!(node.read_from(Offset(0)).unwrap(), values(0..80));
        write(&node, 80..100);
        assert_eq!(node.read_from(Offset(0)).unwrap(), values(0..100));
    }
}

#[test]
fn a_restart_after_a_restart_finds_the_same_log() {
    let disk = MemoryDisk::new();
    let node = Node::open(Arc::new(disk.clone()), Durability::Fsync).unwrap();
    write(&node, 0..100);
    let mut disk = disk.crash(disk.op_count(), CrashPolicy::LoseUnsynced);
    for _ in 0..3 {
        let node = Node::open(Arc::new(disk.clone()), Durability::Fsync).unwrap();
        assert_eq!(node.read_from(Offset(0)).unwrap(), values(0..100));
        disk = disk.crash(disk.op_count(), CrashPolicy::LoseUnsynced);
    }
}

#[test]
fn a_journal_goes_on_when_its_files_are_configured_shorter_or_longer() {
    let log = log_config(Durability::Fsync);
    let with_files_of = |bytes| WalConfig { journal_file_bytes: bytes, ..small_config() };
    let mut disk = MemoryDisk::new();
    let mut written = 0;
    for bytes in [128 << 10, 64 << 10, 128 << 10, 64 << 10] {
        let config = with_files_of(bytes);
        let node = Node::open_as(Arc::new(disk.clone()), log, &config).unwrap();
        assert_eq!(node.read_from(Offset(0)).unwrap(), values(0..written));
        // Up to a place that files of half the size do not have.
        let counters = node.manager.data_lane().counters();
        let is_far = || counters.journal_bytes.load(Ordering::Relaxed) % (128 << 10) > 100 << 10;
        let first = written;
        while written < first + 50 || !is_far() {
            write(&node, written..written + 1);
            written += 1;
        }
        disk = disk.crash(disk.op_count(), CrashPolicy::LoseUnsynced);
    }
    let node = Node::open_as(Arc::new(disk), log, &with_files_of(64 << 10)).unwrap();
    assert_eq!(node.read_from(Offset(0)).unwrap(), values(0..written));
}

#[test]
fn os_durability_acknowledges_without_a_sync_and_survives_a_killed_process() {
    let disk = MemoryDisk::new();
    let node = Node::open(Arc::new(disk.clone()), Durability::Os).unwrap();
    for n in 0..50 {
        node.append(&value(n)).unwrap();
    }
    assert_eq!(node.owner.log.lock().unwrap().flushed_offset(), Offset(50));
    let killed = disk.crash(disk.op_count(), CrashPolicy::KeepUnsynced);
    let node = Node::open(Arc::new(killed), Durability::Os).unwrap();
    assert_eq!(node.read_from(Offset(0)).unwrap(), values(0..50));
}

#[test]
fn a_truncated_tail_never_comes_back() {
    for checkpoint_before in [false, true] {
        let disk = MemoryDisk::new();
        let node = Node::open(Arc::new(disk.clone()), Durability::Fsync).unwrap();
        write(&node, 0..40);
        if checkpoint_before {
            node.manager.step_checkpoint();
        }
        {
            let mut log = node.owner.log.lock().unwrap();
            log.truncate(Lsn(26)).unwrap();
            assert_eq!(log.log_end_offset(), Offset(25));
            for n in 0..10 {
                append_to(&mut log, &value(1_000 + n), LeaderEpoch(1)).unwrap();
            }
            log.submit(0).unwrap();
        }
        node.commit().unwrap();
        let expected: Vec<_> = (0..25).chain(1_000..1_010).collect();
        assert_eq!(node.read_from(Offset(0)).unwrap(), expected);
        for also_checkpointed in [false, true] {
            if also_checkpointed {
                node.manager.step_checkpoint();
            }
            for policy in [CrashPolicy::LoseUnsynced, CrashPolicy::KeepUnsynced] {
                let survivor = disk.crash(disk.op_count(), policy);
                let node = Node::open(Arc::new(survivor), Durability::Fsync).unwrap();
                assert_eq!(node.read_from(Offset(0)).unwrap(), expected, "{policy:?}");
                let log = node.owner.log.lock().unwrap();
                assert_eq!(log.verdict(), Verdict::Ok);
                assert_eq!(log.epochs().last_epoch(), Some(LeaderEpoch(1)));
            }
        }
    }
}

#[test]
fn a_completion_of_an_older_generation_is_ignored() {
    let node = Node::open(Arc::new(MemoryDisk::new()), Durability::Fsync).unwrap();
    write(&node, 0..10);
    for n in 10..20 {
        node.append(&value(n)).unwrap();
    }
    node.manager.step_commit().unwrap();
    let late: Vec<_> = node.sink.flushed.lock().unwrap().drain(..).collect();
    let mut log = node.owner.log.lock().unwrap();
    log.truncate(Lsn(11)).unwrap();
    append_to(&mut log, &value(99), LeaderEpoch(1)).unwrap();
    for (_, flushed) in late {
        assert!(!log.on_flushed(&flushed), "the frames it speaks of are gone");
    }
    assert_eq!(log.flushed_offset(), Offset(10));
}

#[test]
fn a_failed_sync_is_final_and_nothing_after_it_is_flushed() {
    let faulty = FaultyDisk::new(Arc::new(MemoryDisk::new()));
    let node = Node::open(Arc::new(faulty.clone()), Durability::Fsync).unwrap();
    write(&node, 0..10);
    faulty.plan(Fault {
        call: DiskCall::Sync,
        path_contains: "journal".into(),
        skip: 0,
        sticky: false,
        error: ErrorKind::Other,
    });
    node.append(&value(10)).unwrap();
    let error = node.commit().unwrap_err();
    assert_eq!(error.call, DiskCall::Sync);
    assert_eq!(node.sink.failures.lock().unwrap().len(), 1);
    assert_eq!(node.owner.log.lock().unwrap().flushed_offset(), Offset(10));
    // The disk works again, the lane does not: a retried sync could lie.
    assert!(matches!(node.append(&value(11)), Err(WalError::Failed)));
    node.commit().unwrap();
    assert_eq!(node.owner.log.lock().unwrap().flushed_offset(), Offset(10));
}

#[test]
fn a_failed_segment_sync_stops_the_log_and_pins_the_journal() {
    let faulty = FaultyDisk::new(Arc::new(MemoryDisk::new()));
    let node = Node::open(Arc::new(faulty.clone()), Durability::Fsync).unwrap();
    write(&node, 0..10);
    faulty.plan(Fault {
        call: DiskCall::Sync,
        path_contains: "segment".into(),
        skip: 0,
        sticky: false,
        error: ErrorKind::Other,
    });
    node.manager.step_checkpoint();
    assert_eq!(node.owner.failures.lock().unwrap().len(), 1);
    assert!(node.append(&value(10)).is_err());
    node.manager.step_checkpoint();
    assert!(node.manager.data_lane().ring_fill() > 0.0, "its journal groups stay needed");
}

#[test]
fn offsets_outside_the_log_are_refused() {
    let node = Node::open(Arc::new(MemoryDisk::new()), Durability::Fsync).unwrap();
    write(&node, 0..10);
    let log = node.owner.log.lock().unwrap();
    assert!(matches!(log.read(Offset(11), Offset(10), 1), Err(WalError::OutOfRange { .. })));
    assert!(log.read(Offset(10), Offset(10), 1).is_ok());
}

#[test]
fn a_log_that_failed_to_write_flushes_nothing_in_its_next_turn() {
    let faulty = FaultyDisk::new(Arc::new(MemoryDisk::new()));
    let node = Node::open(Arc::new(faulty.clone()), Durability::Os).unwrap();
    write(&node, 0..10);
    faulty.plan(Fault {
        call: DiskCall::Write,
        path_contains: "segment".into(),
        skip: 0,
        sticky: false,
        error: ErrorKind::Other,
    });
    assert!(node.append(&value(10)).is_err());
    let mut log = node.owner.log.lock().unwrap();
    assert!(matches!(log.submit(0), Err(WalError::Failed)));
    assert_eq!(log.flushed_offset(), Offset(10));
}

/// The first offset behind each sealed segment.
fn sealed_ends(node: &Node) -> Vec<Offset> {
    node.owner.log.lock().unwrap().sealed_segments().map(|(next, _, _)| next).collect()
}

#[test]
fn a_segment_that_was_cut_while_it_got_its_footer_is_not_sealed() {
    let node = Node::open(Arc::new(MemoryDisk::new()), Durability::Fsync).unwrap();
    for n in 0..40 {
        node.append(&value(n)).unwrap();
    }
    node.commit().unwrap();
    let seal = {
        let mut log = node.owner.log.lock().unwrap();
        while let Some(work) = log.take_write_behind() {
            work.run().unwrap();
            log.finish_write_behind(&work);
        }
        let work = log.take_sync_work().unwrap();
        work.run().unwrap();
        log.finish_sync_work(&work);
        log.take_seal_work().unwrap()
    };
    node.owner.log.lock().unwrap().truncate(Lsn(11)).unwrap();
    seal.run().unwrap();
    {
        let mut log = node.owner.log.lock().unwrap();
        log.finish_seal_work(&seal);
        append_to(&mut log, &value(500), LeaderEpoch(1)).unwrap();
        log.submit(0).unwrap();
    }
    node.commit().unwrap();
    assert_eq!(sealed_ends(&node), []);
    node.manager.step_checkpoint();
    node.manager.step_checkpoint();
    let expected: Vec<_> = (0..10).chain([500]).collect();
    assert_eq!(node.read_from(Offset(0)).unwrap(), expected);
}

#[test]
fn damage_before_a_truncation_that_was_not_carried_out_is_reported() {
    let disk = MemoryDisk::new();
    let node = Node::open(Arc::new(disk.clone()), Durability::Fsync).unwrap();
    write(&node, 0..400);
    node.manager.step_checkpoint();
    node.manager.step_checkpoint();
    let ends = sealed_ends(&node);
    assert!(ends.len() >= 2, "{ends:?}");
    let first_removed = Lsn(ends[0].0 as u64 + 1);
    {
        let mut log = node.owner.log.lock().unwrap();
        log.truncate(first_removed).unwrap();
        append_to(&mut log, &value(500), LeaderEpoch(1)).unwrap();
        log.submit(0).unwrap();
    }
    node.commit().unwrap();
    node.manager.step_write_behind();
    let survivor = disk.crash(disk.op_count(), CrashPolicy::KeepUnsynced);
    let (path, _) =
        survivor.files().into_iter().find(|(path, _)| path.ends_with("segment_000.wal")).unwrap();
    survivor.corrupt(&path, |bytes| bytes[5_000] ^= 1);
    let node = Node::open(Arc::new(survivor), Durability::Fsync).unwrap();
    assert_ne!(node.owner.log.lock().unwrap().verdict(), Verdict::Ok);
}

#[test]
fn a_start_after_a_crash_reads_every_frame_of_an_open_segment_once() {
    let disk = MemoryDisk::new();
    let config = LogConfig { segment_bytes: 4 << 20, ..log_config(Durability::Fsync) };
    let node = Node::open_with(Arc::new(disk.clone()), config).unwrap();
    let mut written = 0;
    for n in 0..2_000 {
        written += value(n).len() as u64 + 200;
        node.append(&value(n)).unwrap();
        node.commit().unwrap();
    }
    let survivor = disk.crash(disk.op_count(), CrashPolicy::KeepUnsynced);
    let node = Node::open_with(Arc::new(survivor.clone()), config).unwrap();
    assert!(node.was_recovered);
    let read = survivor.bytes_read(Path::new("/data/wal/partitions"));
    assert!(read > 0 && read < written + (64 << 10), "{read} bytes read, {written} written");
    assert_eq!(node.read_from(Offset(0)).unwrap(), values(0..2_000));
}
