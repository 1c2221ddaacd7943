//! The gate through which client batches enter: bytes in, [`ValidBatch`] out.
//!
//! Owns every rule a produced batch must obey and the order in which they are checked: shape,
//! format, size, checksum, header, records. The checksum is verified once, here; nothing of the
//! content is believed before. Does not change the batch; what the broker overwrites is in
//! `batch.rs`. Rules that need a partition's state (sequences, epochs, transactions) are not
//! here.
//!
//! Source: `LogValidator` and `UnifiedLog.analyzeAndValidateRecords` of Kafka 4.

use chronik_common::{ProducerId, WallMs};

use crate::batch::{BatchHeader, TimestampType};
use crate::compression::{Codec, DecompressionLimits};
use crate::error::{
    BatchError, Corruption, RecordDefect, TimestampError, UnsupportedCodec, Violation,
};
use crate::record::{Record, records};

/// Checks that `bytes` are exactly one batch that `rules` allow.
///
/// # Errors
/// The first rule broken, as a [`BatchError`] whose variants stand for Kafka's error codes.
pub fn validate_batch<'a>(
    bytes: &'a [u8],
    rules: &ValidationRules,
) -> Result<ValidBatch<'a>, BatchError> {
    let header = cut_one_batch(bytes)?;
    check_size(bytes.len(), rules)?;
    header.verify_crc(bytes)?;
    check_header(&header, rules)?;
    check_codec(&header, rules)?;
    let max_timestamp_of_records = if rules.looks_at_records() {
        Some(check_records(bytes, rules)?)
    } else {
        check_timestamp(header.max_timestamp, None, rules)?;
        None
    };
    Ok(ValidBatch { bytes, header, max_timestamp_of_records })
}

/// One batch that passed [`validate_batch`].
#[derive(Clone, Copy, Debug)]
pub struct ValidBatch<'a> {
    bytes: &'a [u8],
    header: BatchHeader,
    max_timestamp_of_records: Option<i64>,
}

impl<'a> ValidBatch<'a> {
    /// The batch as it was given.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The decoded header.
    #[must_use]
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// Largest timestamp found in the records, in ms, if they were looked at. If it differs from
    /// the header's, the log calls [`set_max_timestamp`](crate::set_max_timestamp), as Kafka
    /// does.
    #[must_use]
    pub fn max_timestamp_of_records(&self) -> Option<i64> {
        self.max_timestamp_of_records
    }
}

/// What a topic, and the version of the request, demand of a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ValidationRules {
    /// Whether the records are decoded. Two other rules demand it too: `is_key_required`, and
    /// `timestamp_before_ms_max` other than its default.
    pub level: ValidationLevel,
    /// Who wrote the batch.
    pub origin: BatchOrigin,
    /// Largest batch, in bytes, as it arrives: `max.message.bytes`.
    pub batch_bytes_max: usize,
    /// Size of a log segment, in bytes: `segment.bytes`.
    pub segment_bytes_max: usize,
    /// Who sets timestamps: `message.timestamp.type`. The two bounds below apply to
    /// [`TimestampType::CreateTime`] only, and not to timestamp -1.
    pub timestamp_type: TimestampType,
    /// How far before `now` a timestamp may be, in ms: `message.timestamp.before.max.ms`.
    /// `i64::MAX`, Kafka's default, is no bound.
    pub timestamp_before_ms_max: i64,
    /// How far after `now` a timestamp may be, in ms: `message.timestamp.after.max.ms`.
    /// `i64::MAX` is no bound.
    pub timestamp_after_ms_max: i64,
    /// The broker's time.
    pub now: WallMs,
    /// True from Produce version 7 on, whose clients know zstd.
    pub is_zstd_allowed: bool,
    /// True on topics with `cleanup.policy` compact.
    pub is_key_required: bool,
    /// How far compressed records may expand when they are looked at.
    pub decompression: DecompressionLimits,
}

impl ValidationRules {
    /// Kafka's default of `max.message.bytes`: 1 MiB of records and a header's worth.
    pub const BATCH_BYTES_MAX: usize = 1_048_588;
    /// Kafka's default of `segment.bytes`.
    pub const SEGMENT_BYTES_MAX: usize = 1 << 30;
    /// Kafka's default of `message.timestamp.after.max.ms`: one hour.
    pub const TIMESTAMP_AFTER_MS_MAX: i64 = 3_600_000;
    /// Largest decompressed size of a batch of default size, in bytes.
    pub const DECOMPRESSED_BYTES_MAX: usize = 64 << 20;

    /// Kafka's defaults for a client's batch at time `now`.
    #[must_use]
    pub fn new(now: WallMs) -> Self {
        Self {
            level: ValidationLevel::Batch,
            origin: BatchOrigin::Client,
            batch_bytes_max: Self::BATCH_BYTES_MAX,
            segment_bytes_max: Self::SEGMENT_BYTES_MAX,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_ms_max: i64::MAX,
            timestamp_after_ms_max: Self::TIMESTAMP_AFTER_MS_MAX,
            now,
            is_zstd_allowed: true,
            is_key_required: false,
            decompression: DecompressionLimits::output_bytes(Self::DECOMPRESSED_BYTES_MAX),
        }
    }

    fn looks_at_records(&self) -> bool {
        self.level == ValidationLevel::Full
            || self.is_key_required
            || self.timestamp_before_ms_max != i64::MAX
    }
}

/// How deep a batch is checked: topic config `chronik.validation`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum ValidationLevel {
    /// The header is believed once the checksum is right.
    #[default]
    Batch,
    /// Every record is decoded and checked.
    Full,
}

/// Who wrote a batch.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum BatchOrigin {
    /// A client, through Produce.
    #[default]
    Client,
    /// This cluster: coordinators and their transaction markers.
    Broker,
}

/// The header of the one batch in `bytes`, complete and without anything behind it.
fn cut_one_batch(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
    if bytes.is_empty() {
        return Err(Violation::NoBatch.into());
    }
    let header = BatchHeader::parse(bytes)?;
    let size = header.size();
    let Some((_, behind)) = bytes.split_at_checked(size) else {
        return Err(Corruption::Truncated { needed: size, available: bytes.len() }.into());
    };
    if behind.is_empty() {
        return Ok(header);
    }
    match BatchHeader::parse(behind) {
        Ok(second) if second.size() <= behind.len() => Err(Violation::MoreThanOneBatch.into()),
        _ => Err(Corruption::TrailingBytes { count: behind.len() }.into()),
    }
}

fn check_size(size: usize, rules: &ValidationRules) -> Result<(), BatchError> {
    if size > rules.batch_bytes_max {
        return Err(BatchError::TooLarge { size, limit: rules.batch_bytes_max });
    }
    if size > rules.segment_bytes_max {
        return Err(BatchError::LargerThanSegment { size, limit: rules.segment_bytes_max });
    }
    Ok(())
}

fn check_header(header: &BatchHeader, rules: &ValidationRules) -> Result<(), BatchError> {
    let &BatchHeader { record_count, last_offset_delta, base_sequence, attributes, .. } = header;
    if record_count <= 0 || last_offset_delta != record_count - 1 {
        return Err(Violation::RecordCount { record_count, last_offset_delta }.into());
    }
    if attributes.is_control() {
        if rules.origin == BatchOrigin::Client {
            return Err(Violation::ControlBatch.into());
        }
    } else if header.has_producer() && base_sequence < 0 {
        let ProducerId(producer_id) = header.producer_id;
        return Err(Violation::ProducerWithoutSequence { producer_id, base_sequence }.into());
    }
    if rules.timestamp_type == TimestampType::LogAppendTime
        && rules.origin == BatchOrigin::Client
        && attributes.timestamp_type() == TimestampType::LogAppendTime
    {
        return Err(TimestampError::ClientLogAppendTime.into());
    }
    Ok(())
}

fn check_codec(header: &BatchHeader, rules: &ValidationRules) -> Result<(), UnsupportedCodec> {
    match header.attributes.codec()? {
        Codec::Zstd if !rules.is_zstd_allowed => Err(UnsupportedCodec::ZstdTooOld),
        Codec::None | Codec::Gzip | Codec::Snappy | Codec::Lz4 | Codec::Zstd => Ok(()),
    }
}

/// Decodes every record; returns the largest timestamp.
fn check_records(bytes: &[u8], rules: &ValidationRules) -> Result<i64, BatchError> {
    // A log append time mark set by a client is taken back, which uncovers its own timestamps.
    let records = records(bytes, rules.decompression)?.with_create_time();
    let mut max_timestamp = -1;
    let mut missing_keys = Vec::new();
    for (record_index, record) in (0..).zip(&records) {
        let record = record?;
        check_offset(&record, record_index)?;
        check_timestamp(record.timestamp, Some(record_index), rules)?;
        max_timestamp = max_timestamp.max(record.timestamp);
        if rules.is_key_required
            && record.key.is_none()
            && missing_keys.len() < Violation::RECORD_INDEXES_MAX
        {
            missing_keys.push(record_index);
        }
    }
    if missing_keys.is_empty() {
        Ok(max_timestamp)
    } else {
        Err(Violation::MissingKeys { record_indexes: missing_keys }.into())
    }
}

/// A produced batch has no gaps: the record's place is its offset.
fn check_offset(record: &Record<'_>, record_index: i32) -> Result<(), BatchError> {
    if record.offset_delta == record_index {
        return Ok(());
    }
    let defect = RecordDefect::OffsetDelta { offset_delta: record.offset_delta };
    Err(Violation::Record { record_index, defect }.into())
}

fn check_timestamp(
    timestamp_ms: i64,
    record_index: Option<i32>,
    rules: &ValidationRules,
) -> Result<(), TimestampError> {
    if rules.timestamp_type == TimestampType::LogAppendTime || timestamp_ms == -1 {
        return Ok(());
    }
    let earliest_ms = match rules.timestamp_before_ms_max {
        i64::MAX => i64::MIN,
        before_ms_max => rules.now.0.saturating_sub(before_ms_max),
    };
    let latest_ms = rules.now.0.saturating_add(rules.timestamp_after_ms_max);
    if (earliest_ms..=latest_ms).contains(&timestamp_ms) {
        return Ok(());
    }
    Err(TimestampError::OutOfRange { record_index, timestamp_ms, earliest_ms, latest_ms })
}
