//! Why bytes are not an acceptable record batch.
//!
//! One enum per answer the client gets: each variant of [`BatchError`] is one Kafka error code,
//! and its payload says what exactly was wrong, for logs and for the record error list of a
//! produce response. The codes themselves belong to the server's error mapping.

use crate::compression::Codec;

/// Why a batch was refused. All of these refuse the batch for good, except that a client which
/// sees [`Corrupt`](Self::Corrupt) may send its copy again.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BatchError {
    /// The bytes are damaged or cut off (CORRUPT_MESSAGE).
    #[error(transparent)]
    Corrupt(#[from] Corruption),
    /// The bytes are intact but break a rule of the format or of the topic (INVALID_RECORD).
    #[error(transparent)]
    Invalid(#[from] Violation),
    /// A timestamp the topic does not accept (INVALID_TIMESTAMP).
    #[error(transparent)]
    InvalidTimestamp(#[from] TimestampError),
    /// A codec that does not exist or that the request version may not use
    /// (UNSUPPORTED_COMPRESSION_TYPE).
    #[error(transparent)]
    UnsupportedCodec(#[from] UnsupportedCodec),
    /// Larger than the topic's `max.message.bytes` (MESSAGE_TOO_LARGE).
    #[error("batch of {size} bytes exceeds the topic's limit of {limit} bytes")]
    TooLarge {
        /// Size of the batch, in bytes.
        size: usize,
        /// Largest size accepted, in bytes.
        limit: usize,
    },
    /// Larger than a segment of the log (RECORD_LIST_TOO_LARGE).
    #[error("batch of {size} bytes exceeds the segment size of {limit} bytes")]
    LargerThanSegment {
        /// Size of the batch, in bytes.
        size: usize,
        /// Largest size accepted, in bytes.
        limit: usize,
    },
}

impl From<CompressionError> for BatchError {
    fn from(error: CompressionError) -> Self {
        Self::Corrupt(Corruption::Compression(error))
    }
}

/// How bytes are damaged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Corruption {
    /// Fewer bytes than a header, or than its length field announces.
    #[error("batch needs {needed} bytes, {available} are there")]
    Truncated {
        /// Bytes needed to go on reading.
        needed: usize,
        /// Bytes given.
        available: usize,
    },
    /// The length field is smaller than the rest of a header, or negative.
    #[error("batch length {batch_length} is shorter than a batch header")]
    LengthBelowHeader {
        /// The field as found.
        batch_length: i32,
    },
    /// Bytes behind the batch that are not another whole batch.
    #[error("{count} bytes follow the batch")]
    TrailingBytes {
        /// How many.
        count: usize,
    },
    /// The checksum does not match.
    #[error("batch CRC is {stored:#010x}, its bytes have {computed:#010x}")]
    CrcMismatch {
        /// CRC-32C in the header.
        stored: u32,
        /// CRC-32C of the bytes given.
        computed: u32,
    },
    /// The compressed records cannot be decompressed.
    #[error(transparent)]
    Compression(#[from] CompressionError),
}

/// Why a compressed block cannot be opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CompressionError {
    /// Not a block of this codec, or a damaged or incomplete one.
    #[error("records are not a complete {} block", codec.name())]
    Undecodable {
        /// Codec the attributes name.
        codec: Codec,
    },
    /// The block expands beyond what the caller allows.
    #[error("{} block expands beyond {limit} bytes", codec.name())]
    OutputBeyondLimit {
        /// Codec the attributes name.
        codec: Codec,
        /// Largest output allowed for this input, in bytes.
        limit: usize,
    },
}

/// Which rule an intact batch breaks.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Violation {
    /// No bytes where one batch is expected.
    #[error("no record batch")]
    NoBatch,
    /// A second whole batch follows the first.
    #[error("more than one record batch for a partition")]
    MoreThanOneBatch,
    /// A message format other than v2.
    #[error("message format {magic} is not supported")]
    UnsupportedMagic {
        /// Format version as found.
        magic: i8,
    },
    /// No records, or a count that does not agree with the last offset delta.
    #[error("{record_count} records with a last offset delta of {last_offset_delta}")]
    RecordCount {
        /// Record count of the header.
        record_count: i32,
        /// Last offset delta of the header.
        last_offset_delta: i32,
    },
    /// A client sent a control batch.
    #[error("control batches are written by brokers only")]
    ControlBatch,
    /// A producer id without a sequence number.
    #[error("producer id {producer_id} with base sequence {base_sequence}")]
    ProducerWithoutSequence {
        /// Producer id of the header.
        producer_id: i64,
        /// Base sequence of the header, negative.
        base_sequence: i32,
    },
    /// Records without a key on a topic that compacts by key.
    #[error("{} or more records have no key", record_indexes.len())]
    MissingKeys {
        /// Indexes of the first offenders in the batch, from 0, ascending; at most
        /// [`Violation::RECORD_INDEXES_MAX`].
        record_indexes: Vec<i32>,
    },
    /// A record that does not decode, or contradicts the header.
    #[error("record {record_index}: {defect}")]
    Record {
        /// Index of the record in the batch, from 0.
        record_index: i32,
        /// What is wrong with it.
        defect: RecordDefect,
    },
    /// Bytes behind the last record that the header counts.
    #[error("{count} bytes follow the last record")]
    BytesAfterRecords {
        /// How many.
        count: usize,
    },
    /// A control batch that is not a transaction marker.
    #[error("not a transaction marker")]
    NotAMarker,
}

impl Violation {
    /// Most record indexes reported for one batch.
    pub const RECORD_INDEXES_MAX: usize = 1_000;
}

/// What is wrong with one record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecordDefect {
    /// The records end in the middle of this one.
    #[error("cut off")]
    Truncated,
    /// A varint with more bits than its type.
    #[error("varint overflows its type")]
    VarintOverflow,
    /// A length below -1, or below 0 where null is not allowed, or beyond the record.
    #[error("illegal length {length}")]
    Length {
        /// The length as found.
        length: i32,
    },
    /// The record's fields do not fill its length exactly.
    #[error("{count} bytes left over inside the record")]
    BytesLeft {
        /// How many.
        count: usize,
    },
    /// Offsets do not ascend, are not dense where they must be, or pass the header's last delta.
    #[error("offset delta {offset_delta} is out of order")]
    OffsetDelta {
        /// Offset relative to the batch's base offset, as found.
        offset_delta: i32,
    },
}

/// Which rule for timestamps is broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TimestampError {
    /// A client marked its batch as stamped by the broker.
    #[error("a client may not send log append time")]
    ClientLogAppendTime,
    /// Older than `message.timestamp.before.max.ms` or newer than
    /// `message.timestamp.after.max.ms` allow.
    #[error("timestamp {timestamp_ms} is outside {earliest_ms}..={latest_ms}")]
    OutOfRange {
        /// Index of the record from 0, or `None` if only the header's maximum was looked at.
        record_index: Option<i32>,
        /// The timestamp, in ms since the Unix epoch.
        timestamp_ms: i64,
        /// Earliest timestamp accepted, in ms since the Unix epoch.
        earliest_ms: i64,
        /// Latest timestamp accepted, in ms since the Unix epoch.
        latest_ms: i64,
    },
}

/// Why a codec may not be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UnsupportedCodec {
    /// Attribute bits that name no codec.
    #[error(transparent)]
    Unknown(#[from] UnknownCodec),
    /// zstd from a request version whose clients cannot read it back.
    #[error("zstd needs Produce version 7")]
    ZstdTooOld,
}

/// A number that names no codec: anything but 0 to 4.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no codec has number {0}")]
pub struct UnknownCodec(pub i16);
