//! The 61-byte header of a record batch, and the few fields a broker changes in place.
//!
//! Owns reading and writing the header and nothing behind it. [`BatchHeader::parse`] promises
//! only what its type says: format v2 and a length that covers a header; whether the batch may be
//! stored is decided in `validate.rs`. The patches keep the CRC right: base offset and leader
//! epoch lie outside it, the others compute it again.

use chronik_common::{LeaderEpoch, Offset, ProducerId};

use crate::compression::Codec;
use crate::crc::crc32c;
use crate::error::{BatchError, Corruption, UnknownCodec, Violation};
use crate::layout;

/// The decoded header of one record batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchHeader {
    /// Offset of the first record. A client's value means nothing: the leader overwrites it.
    pub base_offset: Offset,
    /// Length as on the wire: bytes behind position 12. At least 49 after [`parse`](Self::parse).
    pub batch_length: i32,
    /// Epoch of the leader that appended the batch; clients send -1 or 0.
    pub partition_leader_epoch: LeaderEpoch,
    /// Format version, always 2 after [`parse`](Self::parse).
    pub magic: i8,
    /// CRC-32C of the bytes from position 21 to the end.
    pub crc: u32,
    /// Codec, timestamp type and flags.
    pub attributes: Attributes,
    /// Offset of the last record minus `base_offset`. `record_count - 1` until compaction.
    pub last_offset_delta: i32,
    /// Timestamp of the first record, in ms; record timestamps are relative to it.
    pub base_timestamp: i64,
    /// Largest record timestamp, in ms; the append time if the timestamp type says so.
    pub max_timestamp: i64,
    /// Idempotent or transactional producer, or [`ProducerId::NONE`].
    pub producer_id: ProducerId,
    /// Epoch of the producer; -1 without one.
    pub producer_epoch: i16,
    /// Sequence number of the first record, 0..=2^31-1; -1 without a producer and in markers.
    pub base_sequence: i32,
    /// Number of records in the batch.
    pub record_count: i32,
}

impl BatchHeader {
    /// Size of a header, in bytes.
    pub const SIZE: usize = layout::HEADER_SIZE;

    /// Reads the header at the start of `bytes`; what follows the header is not looked at and
    /// need not be there.
    ///
    /// # Errors
    /// [`Violation::UnsupportedMagic`] for message formats 0 and 1 (recognised from 17 bytes on)
    /// and unknown ones, [`Corruption::Truncated`] for fewer than 61 bytes,
    /// [`Corruption::LengthBelowHeader`] for a length below 49.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        if let Some(&magic) = bytes.get(layout::MAGIC)
            && magic as i8 != layout::MAGIC_V2
        {
            return Err(Violation::UnsupportedMagic { magic: magic as i8 }.into());
        }
        let header: &[u8; Self::SIZE] = bytes
            .first_chunk()
            .ok_or(Corruption::Truncated { needed: Self::SIZE, available: bytes.len() })?;
        let batch_length = i32::from_be_bytes(field(header, layout::BATCH_LENGTH));
        if batch_length < layout::BATCH_LENGTH_MIN {
            return Err(Corruption::LengthBelowHeader { batch_length }.into());
        }
        Ok(Self {
            base_offset: Offset(i64::from_be_bytes(field(header, layout::BASE_OFFSET))),
            batch_length,
            partition_leader_epoch: LeaderEpoch(i32::from_be_bytes(field(
                header,
                layout::PARTITION_LEADER_EPOCH,
            ))),
            magic: layout::MAGIC_V2,
            crc: u32::from_be_bytes(field(header, layout::CRC)),
            attributes: Attributes(i16::from_be_bytes(field(header, layout::ATTRIBUTES))),
            last_offset_delta: i32::from_be_bytes(field(header, layout::LAST_OFFSET_DELTA)),
            base_timestamp: i64::from_be_bytes(field(header, layout::BASE_TIMESTAMP)),
            max_timestamp: i64::from_be_bytes(field(header, layout::MAX_TIMESTAMP)),
            producer_id: ProducerId(i64::from_be_bytes(field(header, layout::PRODUCER_ID))),
            producer_epoch: i16::from_be_bytes(field(header, layout::PRODUCER_EPOCH)),
            base_sequence: i32::from_be_bytes(field(header, layout::BASE_SEQUENCE)),
            record_count: i32::from_be_bytes(field(header, layout::RECORD_COUNT)),
        })
    }

    /// The header as bytes, every field as it stands, the CRC included.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        put(&mut bytes, layout::BASE_OFFSET, self.base_offset.0.to_be_bytes());
        put(&mut bytes, layout::BATCH_LENGTH, self.batch_length.to_be_bytes());
        put(
            &mut bytes,
            layout::PARTITION_LEADER_EPOCH,
            self.partition_leader_epoch.0.to_be_bytes(),
        );
        put(&mut bytes, layout::MAGIC, self.magic.to_be_bytes());
        put(&mut bytes, layout::CRC, self.crc.to_be_bytes());
        put(&mut bytes, layout::ATTRIBUTES, self.attributes.0.to_be_bytes());
        put(&mut bytes, layout::LAST_OFFSET_DELTA, self.last_offset_delta.to_be_bytes());
        put(&mut bytes, layout::BASE_TIMESTAMP, self.base_timestamp.to_be_bytes());
        put(&mut bytes, layout::MAX_TIMESTAMP, self.max_timestamp.to_be_bytes());
        put(&mut bytes, layout::PRODUCER_ID, self.producer_id.0.to_be_bytes());
        put(&mut bytes, layout::PRODUCER_EPOCH, self.producer_epoch.to_be_bytes());
        put(&mut bytes, layout::BASE_SEQUENCE, self.base_sequence.to_be_bytes());
        put(&mut bytes, layout::RECORD_COUNT, self.record_count.to_be_bytes());
        bytes
    }

    /// Size of the whole batch, in bytes, header and length prefix included. 0 for a negative
    /// length, which [`parse`](Self::parse) never returns.
    #[must_use]
    pub fn size(&self) -> usize {
        usize::try_from(self.batch_length).map_or(0, |length| layout::LENGTH_PREFIX_SIZE + length)
    }

    /// Offset of the last record, inclusive. Saturates at the largest offset, which only a
    /// client's made-up base offset reaches.
    #[must_use]
    pub fn last_offset(&self) -> Offset {
        Offset(self.base_offset.0.saturating_add(i64::from(self.last_offset_delta)))
    }

    /// First offset behind the batch: where the next batch starts. Saturates like
    /// [`last_offset`](Self::last_offset).
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        Offset(self.last_offset().0.saturating_add(1))
    }

    /// Sequence number of the last record; the number after 2^31-1 is 0. -1 for a batch without
    /// sequence numbers.
    #[must_use]
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            return -1;
        }
        self.base_sequence.wrapping_add(self.last_offset_delta) & i32::MAX
    }

    /// True if the batch comes from an idempotent or transactional producer.
    #[must_use]
    pub fn has_producer(&self) -> bool {
        self.producer_id.0 >= 0
    }

    /// Computes the CRC of `batch` and compares it with this header.
    ///
    /// # Errors
    /// [`Corruption::Truncated`] if `batch` is not [`size`](Self::size) bytes long,
    /// [`Corruption::CrcMismatch`] if the checksums differ.
    pub fn verify_crc(&self, batch: &[u8]) -> Result<(), Corruption> {
        if batch.len() != self.size() || batch.len() < Self::SIZE {
            return Err(Corruption::Truncated { needed: self.size(), available: batch.len() });
        }
        let computed = crc32c(&batch[layout::ATTRIBUTES..]);
        if computed == self.crc {
            Ok(())
        } else {
            Err(Corruption::CrcMismatch { stored: self.crc, computed })
        }
    }
}

/// The attribute bits of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Attributes(pub i16);

impl Attributes {
    /// How the records are compressed.
    ///
    /// # Errors
    /// [`UnknownCodec`] for the bit patterns 5 to 7.
    pub fn codec(self) -> Result<Codec, UnknownCodec> {
        Codec::try_from(self.0 & layout::CODEC_MASK)
    }

    /// Who set the timestamps.
    #[must_use]
    pub fn timestamp_type(self) -> TimestampType {
        if self.has(layout::LOG_APPEND_TIME_BIT) {
            TimestampType::LogAppendTime
        } else {
            TimestampType::CreateTime
        }
    }

    /// True if the batch belongs to a transaction.
    #[must_use]
    pub fn is_transactional(self) -> bool {
        self.has(layout::TRANSACTIONAL_BIT)
    }

    /// True if the records are control records, such as transaction markers.
    #[must_use]
    pub fn is_control(self) -> bool {
        self.has(layout::CONTROL_BIT)
    }

    /// True if the base timestamp field holds the time from which compaction may drop the
    /// batch's tombstones (KIP-534).
    #[must_use]
    pub fn has_delete_horizon(self) -> bool {
        self.has(layout::DELETE_HORIZON_BIT)
    }

    /// The same attributes with another codec.
    #[must_use]
    pub fn with_codec(self, codec: Codec) -> Self {
        Self((self.0 & !layout::CODEC_MASK) | i16::from(codec.id()))
    }

    /// The same attributes with another timestamp type.
    #[must_use]
    pub fn with_timestamp_type(self, timestamp_type: TimestampType) -> Self {
        match timestamp_type {
            TimestampType::CreateTime => Self(self.0 & !layout::LOG_APPEND_TIME_BIT),
            TimestampType::LogAppendTime => Self(self.0 | layout::LOG_APPEND_TIME_BIT),
        }
    }

    fn has(self, bit: i16) -> bool {
        self.0 & bit != 0
    }
}

/// Who sets record timestamps: topic config `message.timestamp.type`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum TimestampType {
    /// The producer, per record.
    #[default]
    CreateTime,
    /// The broker, one time for the whole batch.
    LogAppendTime,
}

/// Overwrites the base offset; the CRC does not cover it.
///
/// # Panics
/// If `batch` is shorter than a header.
pub fn set_base_offset(batch: &mut [u8], base_offset: Offset) {
    put(header_mut(batch), layout::BASE_OFFSET, base_offset.0.to_be_bytes());
}

/// Overwrites the partition leader epoch; the CRC does not cover it.
///
/// # Panics
/// If `batch` is shorter than a header.
pub fn set_partition_leader_epoch(batch: &mut [u8], leader_epoch: LeaderEpoch) {
    put(header_mut(batch), layout::PARTITION_LEADER_EPOCH, leader_epoch.0.to_be_bytes());
}

/// Stamps the batch with the broker's time: timestamp type log append time, max timestamp
/// `now_ms` (ms since the Unix epoch), CRC computed again. The base timestamp stays, as in
/// `DefaultRecordBatch.setMaxTimestamp`.
///
/// # Panics
/// If `batch` is shorter than a header. `batch` must be exactly one batch, or the CRC is wrong.
pub fn set_log_append_time(batch: &mut [u8], now_ms: i64) {
    set_timestamps(batch, TimestampType::LogAppendTime, now_ms);
}

/// Takes back the log append time mark of a batch that a client set; the CRC is computed again,
/// the max timestamp stays.
///
/// # Panics
/// If `batch` is shorter than a header. `batch` must be exactly one batch, or the CRC is wrong.
pub fn clear_log_append_time(batch: &mut [u8]) {
    let max_timestamp = i64::from_be_bytes(field(header_mut(batch), layout::MAX_TIMESTAMP));
    set_timestamps(batch, TimestampType::CreateTime, max_timestamp);
}

/// Overwrites the max timestamp (ms) of a batch with producer timestamps, for a producer whose
/// header disagrees with its records; the CRC is computed again.
///
/// # Panics
/// If `batch` is shorter than a header. `batch` must be exactly one batch, or the CRC is wrong.
pub fn set_max_timestamp(batch: &mut [u8], max_timestamp_ms: i64) {
    set_timestamps(batch, TimestampType::CreateTime, max_timestamp_ms);
}

fn set_timestamps(batch: &mut [u8], timestamp_type: TimestampType, max_timestamp_ms: i64) {
    let header = header_mut(batch);
    let attributes = Attributes(i16::from_be_bytes(field(header, layout::ATTRIBUTES)))
        .with_timestamp_type(timestamp_type);
    put(header, layout::ATTRIBUTES, attributes.0.to_be_bytes());
    put(header, layout::MAX_TIMESTAMP, max_timestamp_ms.to_be_bytes());
    seal(batch);
}

/// Computes the CRC of a complete batch and writes it into its header.
pub(crate) fn seal(batch: &mut [u8]) {
    let crc = crc32c(&batch[layout::ATTRIBUTES..]);
    put(header_mut(batch), layout::CRC, crc.to_be_bytes());
}

fn header_mut(batch: &mut [u8]) -> &mut [u8; BatchHeader::SIZE] {
    let size = batch.len();
    batch
        .first_chunk_mut()
        .unwrap_or_else(|| panic!("a batch has 61 bytes of header, these are {size} bytes"))
}

fn field<const N: usize>(header: &[u8; BatchHeader::SIZE], position: usize) -> [u8; N] {
    *header[position..].first_chunk().expect("layout.rs keeps every field inside the header")
}

fn put<const N: usize>(header: &mut [u8; BatchHeader::SIZE], position: usize, value: [u8; N]) {
    header[position..position + N].copy_from_slice(&value);
}
