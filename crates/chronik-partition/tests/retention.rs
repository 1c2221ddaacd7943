//! What retention removes and what it must not: the time of records, the open segment, the state
//! that only the removed records would give.

#![allow(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

mod common;

use chronik_common::{Offset, WallMs};
use chronik_config::TopicConfig;
use chronik_partition::{Acks, AppendError, BatchSource, PreparedBatch};
use common::{NOW, Node, batch, config, idempotent, token};

/// A day, in milliseconds.
const DAY: i64 = 86_400_000;
const RETENTION_MS: u64 = 3_600_000;

fn one_hour() -> TopicConfig {
    TopicConfig { retention_ms: Some(RETENTION_MS), ..config() }
}

fn later(ms: i64) -> WallMs {
    WallMs(NOW.0 + ms)
}

/// Log start and log end.
fn range(node: &Node) -> (i64, i64) {
    let numbers = node.partition().numbers();
    assert_eq!(numbers.high_watermark, numbers.log_end_offset);
    (numbers.log_start_offset.0, numbers.log_end_offset.0)
}

fn append(node: &Node, timestamps: impl IntoIterator<Item = i64>) {
    for timestamp in timestamps {
        node.append(&batch(timestamp), Acks::None, token(1));
        node.commit();
    }
    node.manager.step_checkpoint();
}

#[test]
fn records_without_timestamps_are_kept_while_old_ones_go() {
    for (timestamp, kept) in [(NOW.0, 0), (-1, 20)] {
        let node = Node::new(one_hour());
        append(&node, [timestamp; 20]);
        // A state snapshot, so that nothing but the timestamps decides.
        let node = node.restart();
        node.grow_old(later(DAY));
        assert_eq!(range(&node), (20 - kept, 20), "records of time {timestamp}");
    }
}

#[test]
fn a_segment_goes_when_its_newest_record_is_old() {
    let node = Node::new(one_hour());
    append(&node, [NOW.0 - DAY; 9]);
    append(&node, [-1, NOW.0, -1]);
    append(&node, [NOW.0 - DAY; 9]);
    node.grow_old(NOW);
    assert_eq!(range(&node), (7, 21), "the second segment has a new record");
    node.grow_old(later(DAY));
    assert_eq!(range(&node), (21, 21), "and then all of it");
}

#[test]
fn records_without_timestamps_go_by_size() {
    let node = Node::new(TopicConfig { retention_bytes: Some(15_000), ..one_hour() });
    append(&node, [-1; 40]);
    node.grow_old(later(DAY));
    let size = node.partition().size_bytes();
    assert!((15_000..15_000 + 2 * common::SEGMENT_BYTES).contains(&size), "{size} bytes");
}

#[test]
fn an_idle_partition_smaller_than_a_segment_obeys_retention_too() {
    let node = Node::new(one_hour());
    append(&node, [NOW.0; 3]);
    assert_eq!(node.segments().len(), 1);
    let open = node.segments();
    node.grow_old(later(RETENTION_MS as i64));
    assert_eq!(range(&node), (0, 3), "not a millisecond too early");
    node.grow_old(later(RETENTION_MS as i64 + 1));
    assert_eq!(range(&node), (3, 3));
    assert!(!node.segments().contains(&open[0]), "{:?}", node.segments());
    // It stays small, and goes on where it was.
    let segments = node.segments();
    node.grow_old(later(DAY));
    assert_eq!(node.segments(), segments, "nothing is left to close");
    append(&node, [NOW.0]);
    let node = node.power_cut();
    assert_eq!(range(&node), (3, 4));
}

#[test]
fn a_segment_is_not_closed_under_records_that_wait_for_the_disk() {
    let node = Node::new(one_hour());
    append(&node, [NOW.0; 2]);
    node.append(&batch(NOW.0), Acks::None, token(1));
    assert_eq!(node.apply_retention(later(DAY)), None);
    node.commit();
    node.manager.step_checkpoint();
    assert_eq!(range(&node), (0, 3));
    assert_eq!(node.segments().len(), 1, "{:?}", node.segments());
}

/// Batches that fill segments, all of one idempotent producer, and some behind them that are not
/// committed, so that no snapshot of the present state can be stored.
fn with_uncommitted_batches() -> Node {
    let node = Node::new(one_hour());
    for sequence in 0..20 {
        node.append(&idempotent(NOW.0, sequence), Acks::None, token(1));
        node.commit();
    }
    node.manager.step_checkpoint();
    node.append(&idempotent(NOW.0, 20), Acks::None, token(1));
    node
}

fn first_offset_of_a_duplicate(node: &Node, sequence: i32) -> Offset {
    node.append(&idempotent(NOW.0, sequence), Acks::None, token(1)).base_offset
}

fn refuses_a_gap(node: &Node, sequence: i32) -> bool {
    let partition = node.partition();
    let batch = idempotent(NOW.0, sequence);
    let settings = partition.settings();
    let batch = PreparedBatch::new(BatchSource::Borrowed(&batch), &settings, NOW, true).unwrap();
    let result = partition.append(batch, Acks::None, token(1), NOW);
    matches!(result, Err(AppendError::Producer(_)))
}

#[test]
fn nothing_is_removed_before_a_snapshot_of_what_it_gave_is_stored() {
    let node = with_uncommitted_batches();
    assert_eq!(node.apply_retention(later(DAY)), None, "there is no snapshot");
    // One is taken, but it includes the batch that is not on the disk.
    node.manager.step_checkpoint();
    assert_eq!(node.apply_retention(later(DAY)), None, "it is not stored");
    let node = node.power_cut();
    assert_eq!(range(&node), (0, 20));
    assert_eq!(first_offset_of_a_duplicate(&node, 19), Offset(19));
}

#[test]
fn duplicates_are_known_after_their_originals_were_removed_and_the_power_was_cut() {
    let node = with_uncommitted_batches();
    node.commit();
    node.grow_old(later(DAY));
    assert_eq!(range(&node), (21, 21), "every record is gone");
    let mut node = node;
    for _ in 0..2 {
        node = node.power_cut();
        for sequence in 16..=20 {
            let offset = first_offset_of_a_duplicate(&node, sequence);
            assert_eq!(offset, Offset(i64::from(sequence)), "a duplicate is not appended");
        }
        assert_eq!(range(&node), (21, 21));
        assert!(refuses_a_gap(&node, 23), "the producer is not forgotten");
    }
    assert_eq!(first_offset_of_a_duplicate(&node, 21), Offset(21), "and goes on");
}
