//! Records to batches to partitions.
//!
//! Records of a partition are collected until half a mebibyte is there or the owner calls
//! [`Producer::flush`], and are then sent as one batch. One batch is under way at a time, so
//! records of a partition stay in order. With acks=all the producer is idempotent if the cluster
//! allows it: a batch that had to be sent twice is stored once.

use std::collections::BTreeMap;

use chronik_common::{OsRng, Rng};
use chronik_record::{BatchBuilder, Codec, RecordHeader};

use super::produce::{Acks, OutgoingBatch, ProducerIdentity};
use super::{Client, ClientError, TopicView};
use crate::partitioner::{StickyPartition, partition_of_key};

/// A batch leaves when it has this size before compression, in bytes. Half of the usual
/// `max.message.bytes`, so that only a single record can be too large.
const BATCH_BYTES: usize = 512 << 10;
/// Bytes that a record takes besides key, value and headers, at most.
const RECORD_OVERHEAD_BYTES: usize = 40;

/// How a producer sends.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProducerOptions {
    /// What to wait for.
    pub acks: Acks,
    /// How batches are compressed.
    pub codec: Codec,
    /// Where all records go, whatever their keys.
    pub partition: Option<i32>,
}

/// A record to send.
#[derive(Clone, Debug)]
pub struct RecordToSend<'a> {
    /// Key, or null.
    pub key: Option<&'a [u8]>,
    /// Value, or null.
    pub value: Option<&'a [u8]>,
    /// Headers, in order.
    pub headers: &'a [RecordHeader<'a>],
    /// In ms since the Unix epoch.
    pub timestamp_ms: i64,
}

/// What was sent to one partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PartitionSummary {
    /// Number of records.
    pub records: u64,
    /// Offset of the first of them, if the cluster told.
    pub first_offset: Option<i64>,
    /// Offset of the last of them, if the cluster told.
    pub last_offset: Option<i64>,
}

/// Collects records of one topic and sends them.
#[derive(Debug)]
pub struct Producer<'c> {
    client: &'c mut Client,
    topic: TopicView,
    options: ProducerOptions,
    identity: Option<ProducerIdentity>,
    sticky: StickyPartition,
    collected: BTreeMap<i32, BatchBuilder>,
    next_sequences: BTreeMap<i32, i32>,
    sent: BTreeMap<i32, PartitionSummary>,
}

impl<'c> Producer<'c> {
    /// A producer for `topic`, which has partitions.
    ///
    /// # Errors
    /// If the cluster does not answer.
    pub fn new(
        client: &'c mut Client,
        topic: TopicView,
        options: ProducerOptions,
    ) -> Result<Self, ClientError> {
        let identity = if options.acks == Acks::All { client.producer_identity()? } else { None };
        let partition_count = topic.partitions.len() as i32;
        Ok(Self {
            client,
            topic,
            options,
            identity,
            sticky: StickyPartition::new(partition_count, OsRng.next_u64()),
            collected: BTreeMap::new(),
            next_sequences: BTreeMap::new(),
            sent: BTreeMap::new(),
        })
    }

    /// Where the next record with this key goes.
    #[must_use]
    pub fn partition_of(&self, key: Option<&[u8]>) -> i32 {
        match (self.options.partition, key) {
            (Some(partition), _) => partition,
            (None, Some(key)) => partition_of_key(key, self.topic.partitions.len() as i32),
            (None, None) => self.sticky.current(),
        }
    }

    /// Takes a record; sends the batch it would overflow before it.
    ///
    /// # Errors
    /// Those of [`Producer::flush`].
    pub fn push(&mut self, record: &RecordToSend<'_>) -> Result<(), ClientError> {
        let partition = self.partition_of(record.key);
        let is_full = self
            .collected
            .get(&partition)
            .is_some_and(|batch| batch.uncompressed_size() + record_bytes(record) > BATCH_BYTES);
        if is_full {
            self.send(partition)?;
            return self.push(record);
        }
        let codec = self.options.codec;
        self.collected.entry(partition).or_insert_with(|| BatchBuilder::new(codec)).append(
            record.timestamp_ms,
            record.key,
            record.value,
            record.headers,
        );
        Ok(())
    }

    /// True if no record waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.collected.is_empty()
    }

    /// Sends what waits.
    ///
    /// # Errors
    /// The first failure. Records of the failed batch are lost to this producer.
    pub fn flush(&mut self) -> Result<(), ClientError> {
        while let Some(partition) = self.collected.keys().next().copied() {
            self.send(partition)?;
        }
        Ok(())
    }

    /// What was sent so far, by partition.
    #[must_use]
    pub fn sent(&self) -> &BTreeMap<i32, PartitionSummary> {
        &self.sent
    }

    fn send(&mut self, partition: i32) -> Result<(), ClientError> {
        let mut builder = self.collected.remove(&partition).expect("a batch is collected");
        let records = builder.record_count();
        assert!(records > 0, "a batch is begun by its first record");
        let sequence = self.next_sequences.entry(partition).or_insert(0);
        if let Some(ProducerIdentity { id, epoch }) = self.identity {
            builder = builder.producer(id, epoch, *sequence);
        }
        // The number after 2^31 - 1 is 0.
        *sequence = sequence.wrapping_add(records as i32) & i32::MAX;
        let batch = OutgoingBatch {
            topic: &self.topic.name,
            partition,
            bytes: builder.build(),
            acks: self.options.acks,
            is_zstd: self.options.codec == Codec::Zstd,
        };
        let base_offset = self.client.produce(&batch)?;
        self.sticky.on_batch_sent(partition);
        let summary = self.sent.entry(partition).or_default();
        summary.records += records as u64;
        summary.first_offset = summary.first_offset.or(base_offset);
        summary.last_offset = base_offset.map(|base| base + records as i64 - 1);
        Ok(())
    }
}

fn record_bytes(record: &RecordToSend<'_>) -> usize {
    let length = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
    let header = |it: &RecordHeader<'_>| it.key.len() + length(it.value) + 10;
    let headers: usize = record.headers.iter().map(header).sum();
    RECORD_OVERHEAD_BYTES + length(record.key) + length(record.value) + headers
}
