//! A consumer of one partition: polls, follows its offset, connects again when the server is
//! gone, and notes everything it saw.

use std::borrow::Cow;
use std::io;

use chronik_common::ErrorCode;
use chronik_protocol::fetch::{FetchPartition, FetchRequest, FetchTopic};
use chronik_protocol::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};

use crate::client::Client;
use crate::history::Seen;
use crate::record::{OwnedRecord, RecordId, decode_batches};
use crate::server::Address;

/// The newest version that names topics.
const FETCH_VERSION: i16 = 12;
/// Bytes asked for per poll.
const POLL_BYTES_MAX: i32 = 1 << 20;

/// Reads one partition in order.
#[derive(Debug)]
pub struct Consumer {
    address: Address,
    client: Option<Client>,
    topic: String,
    partition: i32,
    next_offset: i64,
    seen: Vec<Seen>,
}

impl Consumer {
    /// A consumer that begins at `offset`.
    #[must_use]
    pub fn new(address: Address, topic: &str, partition: i32, offset: i64) -> Self {
        let topic = topic.to_owned();
        Self { address, client: None, topic, partition, next_offset: offset, seen: Vec::new() }
    }

    /// Offset of the record that comes next.
    #[must_use]
    pub fn position(&self) -> i64 {
        self.next_offset
    }

    /// Waits up to `wait_ms` for records; none if the server is gone or the time is over.
    ///
    /// # Panics
    /// If the server answers with an error.
    pub fn poll(&mut self, wait_ms: i32) -> Vec<OwnedRecord> {
        match self.try_poll(wait_ms) {
            Ok(records) => records,
            Err(_) => {
                self.client = None;
                Vec::new()
            }
        }
    }

    fn try_poll(&mut self, wait_ms: i32) -> io::Result<Vec<OwnedRecord>> {
        let client = match &mut self.client {
            Some(client) => client,
            empty => empty.insert(Client::try_connect(self.address.wait())?),
        };
        let request = FetchRequest {
            max_wait_ms: wait_ms,
            min_bytes: 1,
            topics: vec![FetchTopic {
                topic: Cow::Borrowed(&self.topic),
                partitions: vec![FetchPartition {
                    partition: self.partition,
                    fetch_offset: self.next_offset,
                    partition_max_bytes: POLL_BYTES_MAX,
                    ..FetchPartition::default()
                }],
                ..FetchTopic::default()
            }],
            ..FetchRequest::default()
        };
        let reply = client.try_call(&request, FETCH_VERSION)?;
        let answer = reply.body();
        let data = &answer.responses[0].partitions[0];
        let code = ErrorCode::try_from(data.error_code).expect("a known error code");
        assert_eq!(code, ErrorCode::None, "{}-{}", self.topic, self.partition);
        let bytes = data.records.as_ref().expect("records are never null").contiguous();
        let batches = decode_batches(&bytes);
        let records = batches.into_iter().flat_map(|(_, records)| records);
        let records: Vec<_> = records.filter(|one| one.offset >= self.next_offset).collect();
        for record in &records {
            let found = RecordId::of_value(record.value.as_deref().unwrap_or_default());
            let id = found.filter(|(_, partition)| *partition == self.partition).map(|(id, _)| id);
            self.seen.push(Seen { partition: self.partition, offset: record.offset, id });
            self.next_offset = record.offset + 1;
        }
        Ok(records)
    }

    /// Reads up to `end`, exclusive.
    ///
    /// # Panics
    /// If the log ends before it.
    pub fn read_to(&mut self, end: i64) {
        while self.next_offset < end {
            let records = self.poll(1_000);
            assert!(!records.is_empty(), "records are missing from {} on", self.next_offset);
        }
    }

    /// Everything it saw, in order.
    #[must_use]
    pub fn into_seen(self) -> Vec<Seen> {
        self.seen
    }
}

/// An answer of ListOffsets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ListedOffset {
    /// Error code.
    pub code: i16,
    /// Offset, or -1.
    pub offset: i64,
    /// Timestamp, or -1.
    pub timestamp: i64,
    /// Leader epoch, or -1.
    pub leader_epoch: i32,
}

/// Looks up one partition; `timestamp` may be one of Kafka's negative ones.
pub fn list_offset(
    client: &mut Client,
    version: i16,
    topic: &str,
    partition: i32,
    timestamp: i64,
) -> ListedOffset {
    let item = ListOffsetsPartition { partition_index: partition, timestamp, ..Default::default() };
    let request = ListOffsetsRequest {
        replica_id: -1,
        topics: vec![ListOffsetsTopic { name: Cow::Borrowed(topic), partitions: vec![item] }],
        ..ListOffsetsRequest::default()
    };
    let reply = client.call(&request, version);
    let found = &reply.body().topics[0].partitions[0];
    ListedOffset {
        code: found.error_code,
        offset: found.offset,
        timestamp: found.timestamp,
        leader_epoch: found.leader_epoch,
    }
}
