//! From the partition to the journal and back to who waits.

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use chronik_common::{PartitionIndex, TopicId};
use chronik_partition::{Acks, BatchSource, Completion, Partition, PreparedBatch, Token};
use chronik_wal::Flushed;

use super::Operation;
use super::node::{NOW, Node, token, topic_id, topic_name};
use super::record::batch;

/// Frames of a group, and waiters of a partition.
const GROUP: usize = 64;
/// Partitions a group is spread over.
const PARTITIONS: usize = 8;
/// Topics among which one is looked up.
const TOPICS: u32 = 200;

/// A topic's partitions, and a batch for them.
struct Target {
    node: Node,
    partitions: Vec<Arc<Partition>>,
    batch: Bytes,
    completed: Vec<Completion>,
    woken: Vec<Token>,
    /// What became durable in the last group and nobody was told yet.
    flushed: Vec<Flushed>,
    requests: u64,
}

impl Target {
    fn new(partitions: usize) -> Self {
        let node = Node::new(1, partitions);
        let topic = node.registry.topic(&topic_name(0)).expect("the topic was created");
        let partitions = topic.partitions.iter().flatten().map(Arc::clone).collect();
        let (completed, woken) = (Vec::with_capacity(GROUP), Vec::with_capacity(GROUP));
        let flushed = Vec::new();
        Self { node, partitions, batch: batch(1), completed, woken, flushed, requests: 0 }
    }

    /// One produced batch: validated, appended, handed to the lane.
    fn append(&mut self, partition: usize) {
        let partition = &self.partitions[partition];
        let settings = partition.settings();
        let source = BatchSource::Borrowed(black_box(&self.batch));
        let batch = PreparedBatch::new(source, &settings, NOW, true).expect("it obeys the rules");
        let token = token(self.requests);
        let appended = partition.append(batch, Acks::Leader, token, NOW);
        assert!(appended.expect("the log accepts").must_wait, "nothing is durable yet");
        partition.submit(0, &mut self.completed, &mut self.woken);
        self.requests += 1;
    }

    fn append_group(&mut self) {
        for number in 0..GROUP {
            self.append(number % self.partitions.len());
        }
    }

    /// Commits and finishes everything.
    fn settle(&mut self) {
        self.flushed.extend(self.node.commit());
        self.node.settle(&self.flushed);
        self.flushed.clear();
        self.completed.clear();
        self.woken.clear();
    }
}

/// One batch of one record into a partition.
pub(super) struct Append(Target);

impl Append {
    pub(super) fn new() -> Self {
        Self(Target::new(1))
    }
}

impl Operation for Append {
    fn prepare(&mut self) {
        self.0.settle();
    }

    fn run(&mut self) {
        self.0.append(0);
    }
}

/// A group of 64 frames of eight partitions: taken, encoded, handed to a disk that does nothing,
/// told to the sink.
pub(super) struct CommitGroup(Target);

impl CommitGroup {
    pub(super) fn new() -> Self {
        Self(Target::new(PARTITIONS))
    }
}

impl Operation for CommitGroup {
    fn prepare(&mut self) {
        self.0.settle();
        self.0.append_group();
    }

    fn run(&mut self) {
        self.0.flushed = self.0.node.commit();
    }
}

/// A partition learns that 64 frames are durable, for each of which somebody waits.
pub(super) struct CompleteWaiters(Target);

impl CompleteWaiters {
    pub(super) fn new() -> Self {
        Self(Target::new(1))
    }
}

impl Operation for CompleteWaiters {
    fn prepare(&mut self) {
        self.0.settle();
        self.0.append_group();
        self.0.flushed = self.0.node.commit();
    }

    fn run(&mut self) {
        let Target { partitions, flushed, completed, woken, .. } = &mut self.0;
        for one in &*flushed {
            partitions[0].on_flushed(one, completed, woken);
        }
        assert_eq!(completed.len(), GROUP, "all of them waited");
    }
}

/// The way from what a request says to the partition.
pub(super) struct LookUp {
    node: Node,
    names: Vec<String>,
    ids: Vec<TopicId>,
    turn: usize,
    is_by_id: bool,
}

impl LookUp {
    /// By name and number, as old clients ask.
    pub(super) fn by_name() -> Self {
        Self::new(false)
    }

    /// By id and number, as new ones do.
    pub(super) fn by_id() -> Self {
        Self::new(true)
    }

    fn new(is_by_id: bool) -> Self {
        let names = (0..TOPICS).map(topic_name).collect();
        let ids = (0..TOPICS).map(topic_id).collect();
        Self { node: Node::new(TOPICS, 1), names, ids, turn: 0, is_by_id }
    }
}

impl Operation for LookUp {
    fn prepare(&mut self) {
        self.turn = (self.turn + 1) % self.names.len();
    }

    fn run(&mut self) {
        let registry = &self.node.registry;
        let topic = if self.is_by_id {
            registry.topic_by_id(black_box(self.ids[self.turn]))
        } else {
            registry.topic(black_box(&self.names[self.turn]))
        };
        let topic = topic.expect("the topic was created");
        black_box(topic.partition(PartitionIndex(0)).map(Arc::clone));
    }
}
