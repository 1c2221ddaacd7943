//! Record batch v2, Kafka's unit of log, as bytes: validate once, patch in place, iterate,
//! compress, build.
//!
//! A batch is checked where it enters the node ([`validate_batch`]) and travels as the same bytes
//! from then on; what the broker changes (base offset, leader epoch, log append time) is patched
//! where it lies. Nothing here decodes a batch to encode it again, except where the topic's codec
//! differs from the producer's ([`recompress`]).
//!
//! This crate knows no topic, partition, file or socket. Every function is pure; bytes from
//! outside never panic, never make it allocate beyond the caller's limits, and fail as a typed
//! [`BatchError`].

mod batch;
mod builder;
pub mod compression;
mod control;
pub mod crc;
mod error;
pub mod layout;
mod recompress;
mod record;
mod validate;
mod varint;

pub use batch::{
    Attributes, BatchHeader, TimestampType, clear_log_append_time, set_base_offset,
    set_log_append_time, set_max_timestamp, set_partition_leader_epoch,
};
pub use builder::BatchBuilder;
pub use compression::{Codec, DecompressionLimits};
pub use control::{EndTransactionMarker, TransactionOutcome};
pub use error::{
    BatchError, CompressionError, Corruption, RecordDefect, TimestampError, UnknownCodec,
    UnsupportedCodec, Violation,
};
pub use recompress::recompress;
pub use record::{Record, RecordHeader, RecordHeaders, RecordIter, Records, records};
pub use validate::{BatchOrigin, ValidBatch, ValidationLevel, ValidationRules, validate_batch};
