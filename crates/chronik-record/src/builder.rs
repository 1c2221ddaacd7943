//! Writing new batches: broker-made records, markers, the console's and the load tool's.
//!
//! Owns the encoding of records and headers. Not used for batches that clients send, which keep
//! their bytes. Output passes `validate_batch` at level full, as long as the caller's timestamps
//! do.

use bytes::Bytes;
use chronik_common::{LeaderEpoch, Offset, ProducerId};

use crate::batch::{Attributes, BatchHeader, TimestampType, seal};
use crate::compression::{Codec, compress};
use crate::layout;
use crate::record::RecordHeader;
use crate::varint;

/// Collects records and encodes them as one batch.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    codec: Codec,
    /// Header as configured so far; lengths, counts, timestamps and CRC are filled in by
    /// [`build`](Self::build).
    header: BatchHeader,
    /// Encoded records, uncompressed.
    body: Vec<u8>,
}

impl BatchBuilder {
    /// An empty batch at offset 0, without producer, leader epoch -1, timestamps by producer.
    #[must_use]
    pub fn new(codec: Codec) -> Self {
        Self {
            codec,
            header: BatchHeader {
                base_offset: Offset::ZERO,
                batch_length: layout::BATCH_LENGTH_MIN,
                partition_leader_epoch: LeaderEpoch::NONE,
                magic: layout::MAGIC_V2,
                crc: 0,
                attributes: Attributes::default().with_codec(codec),
                last_offset_delta: -1,
                base_timestamp: -1,
                max_timestamp: -1,
                producer_id: ProducerId::NONE,
                producer_epoch: -1,
                base_sequence: -1,
                record_count: 0,
            },
            body: Vec::new(),
        }
    }

    /// Offset of the first record.
    #[must_use]
    pub fn base_offset(mut self, base_offset: Offset) -> Self {
        self.header.base_offset = base_offset;
        self
    }

    /// Epoch of the leader that appends the batch.
    #[must_use]
    pub fn partition_leader_epoch(mut self, leader_epoch: LeaderEpoch) -> Self {
        self.header.partition_leader_epoch = leader_epoch;
        self
    }

    /// Idempotent producer: id, epoch, and sequence number of the first record (-1 in markers).
    #[must_use]
    pub fn producer(mut self, id: ProducerId, epoch: i16, base_sequence: i32) -> Self {
        self.header.producer_id = id;
        self.header.producer_epoch = epoch;
        self.header.base_sequence = base_sequence;
        self
    }

    /// Marks the batch as part of a transaction.
    #[must_use]
    pub fn transactional(mut self) -> Self {
        self.header.attributes.0 |= layout::TRANSACTIONAL_BIT;
        self
    }

    /// Marks the batch as one of control records.
    #[must_use]
    pub fn control(mut self) -> Self {
        self.header.attributes.0 |= layout::CONTROL_BIT;
        self
    }

    /// Appends a record at the next offset. `timestamp` is in ms since the Unix epoch.
    ///
    /// # Panics
    /// If the batch would hold 2^31 records or bytes. Callers bound what they append far below.
    pub fn append(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[RecordHeader<'_>],
    ) -> &mut Self {
        let header = &mut self.header;
        if header.record_count == 0 {
            header.base_timestamp = timestamp;
            header.max_timestamp = timestamp;
        }
        header.max_timestamp = header.max_timestamp.max(timestamp);
        header.last_offset_delta += 1;
        header.record_count =
            header.record_count.checked_add(1).expect("a batch holds fewer than 2^31 records");
        let timestamp_delta = timestamp.wrapping_sub(header.base_timestamp);
        let offset_delta = header.last_offset_delta;

        let size = 1
            + varint::size_i64(timestamp_delta)
            + varint::size_i32(offset_delta)
            + size_nullable_bytes(key)
            + size_nullable_bytes(value)
            + varint::size_i32(length_i32(headers.len()))
            + headers.iter().map(size_header).sum::<usize>();
        self.body.reserve(size + varint::size_i32(length_i32(size)));
        varint::put_i32(&mut self.body, length_i32(size));
        let start = self.body.len();
        self.body.push(0);
        varint::put_i64(&mut self.body, timestamp_delta);
        varint::put_i32(&mut self.body, offset_delta);
        put_nullable_bytes(&mut self.body, key);
        put_nullable_bytes(&mut self.body, value);
        varint::put_i32(&mut self.body, length_i32(headers.len()));
        for header in headers {
            put_nullable_bytes(&mut self.body, Some(header.key));
            put_nullable_bytes(&mut self.body, header.value);
        }
        assert_eq!(self.body.len() - start, size, "a record is as long as its length field says");
        length_i32(self.body.len());
        self
    }

    /// Records appended so far.
    #[must_use]
    pub fn record_count(&self) -> usize {
        self.header.record_count as usize
    }

    /// True before the first [`append`](Self::append).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.header.record_count == 0
    }

    /// Size of the batch if it were built now without compression, in bytes.
    #[must_use]
    pub fn uncompressed_size(&self) -> usize {
        BatchHeader::SIZE + self.body.len()
    }

    /// Encodes the batch.
    ///
    /// # Panics
    /// If no record was appended.
    #[must_use]
    pub fn build(self) -> Bytes {
        assert!(!self.is_empty(), "a batch has at least one record");
        encode(self.header, self.codec, &self.body)
    }

    /// Encodes the batch as stamped by the broker at `now_ms`, in ms since the Unix epoch.
    ///
    /// # Panics
    /// If no record was appended.
    #[must_use]
    pub fn build_with_log_append_time(mut self, now_ms: i64) -> Bytes {
        self.header.attributes =
            self.header.attributes.with_timestamp_type(TimestampType::LogAppendTime);
        self.header.max_timestamp = now_ms;
        self.build()
    }
}

/// Encodes a batch of `body` under `header`, whose codec, length and CRC are replaced.
///
/// # Panics
/// If the batch would reach 2^31 bytes.
pub(crate) fn encode(mut header: BatchHeader, codec: Codec, body: &[u8]) -> Bytes {
    let compressed;
    let block = match codec {
        Codec::None => body,
        _ => {
            compressed = compress(codec, body);
            &compressed
        }
    };
    let size = BatchHeader::SIZE + block.len();
    header.attributes = header.attributes.with_codec(codec);
    header.batch_length = length_i32(size - layout::LENGTH_PREFIX_SIZE);
    let mut batch = Vec::with_capacity(size);
    batch.extend_from_slice(&header.to_bytes());
    batch.extend_from_slice(block);
    seal(&mut batch);
    Bytes::from(batch)
}

fn length_i32(length: usize) -> i32 {
    i32::try_from(length).expect("a batch and its parts are shorter than 2^31 bytes")
}

fn size_nullable_bytes(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |bytes| varint::size_i32(length_i32(bytes.len())) + bytes.len())
}

fn size_header(header: &RecordHeader<'_>) -> usize {
    size_nullable_bytes(Some(header.key)) + size_nullable_bytes(header.value)
}

fn put_nullable_bytes(output: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => varint::put_i32(output, -1),
        Some(bytes) => {
            varint::put_i32(output, length_i32(bytes.len()));
            output.extend_from_slice(bytes);
        }
    }
}
