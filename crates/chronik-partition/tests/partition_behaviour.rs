//! One partition from outside: who is woken, and what a restart keeps.

#![allow(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

mod common;

use chronik_common::Offset;
use chronik_config::TopicConfig;
use chronik_partition::{Acks, Token};
use chronik_wal::Durability;
use common::{NOW, Node, batch, config, token};

fn append(node: &Node) -> Vec<Token> {
    node.append(&batch(NOW.0), Acks::None, token(99));
    node.commit().1
}

#[test]
fn a_wait_that_was_taken_back_wakes_nobody() {
    let node = Node::new(config());
    let partition = node.partition();
    let other = Token { connection: 2, ..token(5) };
    assert!(partition.wait_for_records(Offset(0), token(5)));
    assert!(partition.wait_for_records(Offset(0), other));
    partition.forget_fetch(0, 1);
    assert_eq!(append(&node), [other]);
    assert_eq!(append(&node), [], "and who was woken waits no longer");
}

#[test]
fn a_connection_has_one_wait_in_a_partition_and_it_is_the_newest() {
    let node = Node::new(config());
    let partition = node.partition();
    for request in 0..1_000 {
        assert!(partition.wait_for_records(Offset(0), token(request)));
    }
    assert_eq!(append(&node), [token(999)]);
    assert!(!partition.wait_for_records(Offset(0), token(1_000)), "there is a record already");
    assert!(partition.wait_for_records(Offset(1), token(1_001)));
    assert_eq!(append(&node), [token(1_001)]);
}

#[test]
fn a_wait_for_a_later_record_is_not_woken_by_an_earlier_one() {
    let node = Node::new(config());
    assert!(node.partition().wait_for_records(Offset(2), token(1)));
    assert_eq!(append(&node), []);
    assert_eq!(append(&node), []);
    assert_eq!(append(&node), [token(1)]);
}

#[test]
fn the_log_of_a_topic_has_its_topics_settings_after_a_restart() {
    let overrides =
        [("segment.bytes", "1048576"), ("segment.ms", "77000"), ("chronik.durability", "os")];
    let mut node = Node::with_overrides(TopicConfig::default(), &overrides);
    let created = node.log_config();
    assert_eq!((created.segment_bytes, created.segment_ms), (1 << 20, 77_000));
    assert_eq!(created.durability, Durability::Os);
    append(&node);
    node.manager.step_checkpoint();
    for restart in [Node::restart, Node::power_cut] {
        node = restart(node);
        assert_eq!(node.log_config(), created);
        assert_eq!(node.partition().numbers().log_end_offset, Offset(1));
    }
}
