//! Byte positions of a record batch v2, all integers big-endian.
//!
//! ```text
//!   0         8      12              16    17   21         23
//!   +---------+------+---------------+-----+----+----------+-----------------+
//!   | base    |length| partition     |magic| CRC| attri-   | last offset     |
//!   | offset 8|   4  | leader epoch 4|  1  |  4 | butes  2 | delta         4 |
//!   +---------+------+---------------+-----+----+----------+-----------------+
//!   27                35              43            51           53
//!   +-----------------+---------------+-------------+------------+-----------+
//!   | base            | max           | producer    | producer   | base      |
//!   | timestamp     8 | timestamp   8 | id        8 | epoch    2 | sequence 4|
//!   +-----------------+---------------+-------------+------------+-----------+
//!   57               61
//!   +----------------+------------------------- - - -
//!   | record count 4 | records, compressed as one block if the attributes name a codec
//!   +----------------+------------------------- - - -
//! ```
//!
//! `length` counts from position 12. The CRC is CRC-32C over everything from position 21, so base
//! offset and leader epoch can be patched without touching it. Source:
//! `org.apache.kafka.common.record.DefaultRecordBatch`.
//!
//! Attributes: bits 0-2 codec, 3 timestamp type, 4 transactional, 5 control, 6 delete horizon;
//! the others are unused.

/// Base offset, i64.
pub const BASE_OFFSET: usize = 0;
/// Length of what follows this field, i32, in bytes.
pub const BATCH_LENGTH: usize = 8;
/// Partition leader epoch, i32. Batch lengths count from here.
pub const PARTITION_LEADER_EPOCH: usize = 12;
/// Format version, i8, always 2. Message formats 0 and 1 have theirs at the same position.
pub const MAGIC: usize = 16;
/// CRC-32C of everything from [`ATTRIBUTES`], u32.
pub const CRC: usize = 17;
/// Attribute bits, i16. The CRC covers the bytes from here to the end.
pub const ATTRIBUTES: usize = 21;
/// Offset of the last record relative to the base offset, i32.
pub const LAST_OFFSET_DELTA: usize = 23;
/// Timestamp of the first record, i64, in ms; the delete horizon if attribute bit 6 is set.
pub const BASE_TIMESTAMP: usize = 27;
/// Largest timestamp of the batch, i64, in ms; the append time if attribute bit 3 is set.
pub const MAX_TIMESTAMP: usize = 35;
/// Producer id, i64, -1 without one.
pub const PRODUCER_ID: usize = 43;
/// Producer epoch, i16.
pub const PRODUCER_EPOCH: usize = 51;
/// Sequence number of the first record, i32, -1 without one.
pub const BASE_SEQUENCE: usize = 53;
/// Number of records, i32.
pub const RECORD_COUNT: usize = 57;
/// First byte of the records.
pub const RECORDS: usize = 61;

/// Size of the header, in bytes.
pub const HEADER_SIZE: usize = RECORDS;
/// Bytes in front of the part that the batch length counts.
pub const LENGTH_PREFIX_SIZE: usize = PARTITION_LEADER_EPOCH;
/// Smallest legal value of the batch length: a batch without records.
pub const BATCH_LENGTH_MIN: i32 = (HEADER_SIZE - LENGTH_PREFIX_SIZE) as i32;
/// The only format version this server stores.
pub const MAGIC_V2: i8 = 2;

/// Attribute bits 0-2.
pub const CODEC_MASK: i16 = 0x07;
/// Attribute bit 3: timestamps are the broker's append time.
pub const LOG_APPEND_TIME_BIT: i16 = 0x08;
/// Attribute bit 4: part of a transaction.
pub const TRANSACTIONAL_BIT: i16 = 0x10;
/// Attribute bit 5: records are for brokers and clients, not for applications.
pub const CONTROL_BIT: i16 = 0x20;
/// Attribute bit 6: the base timestamp is when tombstones may be removed.
pub const DELETE_HORIZON_BIT: i16 = 0x40;

/// Smallest encoded record, in bytes: one byte each for length, attributes, timestamp delta,
/// offset delta, key length, value length and header count.
pub const RECORD_SIZE_MIN: usize = 7;

const _: () = {
    assert!(BATCH_LENGTH == BASE_OFFSET + size_of::<i64>());
    assert!(PARTITION_LEADER_EPOCH == BATCH_LENGTH + size_of::<i32>());
    assert!(MAGIC == PARTITION_LEADER_EPOCH + size_of::<i32>());
    assert!(CRC == MAGIC + size_of::<i8>());
    assert!(ATTRIBUTES == CRC + size_of::<u32>());
    assert!(LAST_OFFSET_DELTA == ATTRIBUTES + size_of::<i16>());
    assert!(BASE_TIMESTAMP == LAST_OFFSET_DELTA + size_of::<i32>());
    assert!(MAX_TIMESTAMP == BASE_TIMESTAMP + size_of::<i64>());
    assert!(PRODUCER_ID == MAX_TIMESTAMP + size_of::<i64>());
    assert!(PRODUCER_EPOCH == PRODUCER_ID + size_of::<i64>());
    assert!(BASE_SEQUENCE == PRODUCER_EPOCH + size_of::<i16>());
    assert!(RECORD_COUNT == BASE_SEQUENCE + size_of::<i32>());
    assert!(RECORDS == RECORD_COUNT + size_of::<i32>());
    assert!(HEADER_SIZE == 61);
    assert!(BATCH_LENGTH_MIN == 49);
};
