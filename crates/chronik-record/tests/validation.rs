//! Every rule of `validate_batch`, just inside and just outside, at both levels.

use bytes::Bytes;
use chronik_common::{ProducerId, WallMs};
use chronik_record::{
    BatchBuilder, BatchError, BatchHeader, BatchOrigin, Codec, CompressionError, Corruption,
    DecompressionLimits, EndTransactionMarker, RecordDefect, TimestampError, TimestampType,
    TransactionOutcome, UnknownCodec, UnsupportedCodec, ValidationLevel, ValidationRules,
    Violation, clear_log_append_time, crc, layout, set_log_append_time, validate_batch,
};

const NOW: i64 = 1_700_000_000_000;
const LEVELS: [ValidationLevel; 2] = [ValidationLevel::Batch, ValidationLevel::Full];

fn rules(level: ValidationLevel) -> ValidationRules {
    ValidationRules { level, ..ValidationRules::new(WallMs(NOW)) }
}

fn batch_with(codec: Codec, timestamps: &[i64]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(codec);
    for timestamp in timestamps {
        builder.append(*timestamp, Some(b"key"), Some(b"value"), &[]);
    }
    builder.build().to_vec()
}

fn batch() -> Vec<u8> {
    batch_with(Codec::None, &[NOW, NOW, NOW])
}

/// Overwrites header bytes and makes the CRC right again.
fn edited<const N: usize>(mut batch: Vec<u8>, position: usize, bytes: [u8; N]) -> Vec<u8> {
    batch[position..position + N].copy_from_slice(&bytes);
    let crc = crc::crc32c(&batch[layout::ATTRIBUTES..]);
    batch[layout::CRC..layout::CRC + 4].copy_from_slice(&crc.to_be_bytes());
    batch
}

fn refusal(bytes: &[u8], rules: &ValidationRules) -> BatchError {
    validate_batch(bytes, rules).expect_err("the batch breaks a rule")
}

#[track_caller]
fn assert_refused_at_both_levels(bytes: &[u8], expected: impl Into<BatchError>) {
    let expected = expected.into();
    for level in LEVELS {
        assert_eq!(refusal(bytes, &rules(level)), expected, "level {level:?}");
    }
}

#[track_caller]
fn assert_accepted_at_both_levels(bytes: &[u8]) {
    for level in LEVELS {
        validate_batch(bytes, &rules(level)).expect("the batch obeys the rules");
    }
}

#[test]
fn a_batch_cut_anywhere_is_corrupt() {
    let batch = batch();
    assert_accepted_at_both_levels(&batch);
    for size in 1..batch.len() {
        let needed = if size < BatchHeader::SIZE { BatchHeader::SIZE } else { batch.len() };
        assert_refused_at_both_levels(
            &batch[..size],
            Corruption::Truncated { needed, available: size },
        );
    }
    assert_refused_at_both_levels(&[], Violation::NoBatch);
}

#[test]
fn exactly_one_batch_is_accepted() {
    let mut two = [batch(), batch()].concat();
    assert_refused_at_both_levels(&two, Violation::MoreThanOneBatch);
    two.pop();
    let count = batch().len() - 1;
    assert_refused_at_both_levels(&two, Corruption::TrailingBytes { count });
    let mut trailing = batch();
    trailing.push(0);
    assert_refused_at_both_levels(&trailing, Corruption::TrailingBytes { count: 1 });
}

#[test]
fn a_length_field_that_does_not_cover_a_header_is_corrupt() {
    for batch_length in [i32::MIN, -1, 0, 48] {
        let bytes = edited(batch(), layout::BATCH_LENGTH, batch_length.to_be_bytes());
        assert_refused_at_both_levels(&bytes, Corruption::LengthBelowHeader { batch_length });
    }
    let bytes = edited(batch(), layout::BATCH_LENGTH, i32::MAX.to_be_bytes());
    let needed = 12 + i32::MAX as usize;
    assert_refused_at_both_levels(&bytes, Corruption::Truncated { needed, available: bytes.len() });
}

#[test]
fn old_and_unknown_message_formats_are_invalid_even_when_shorter_than_a_header() {
    for magic in [0, 1, 3, -1] {
        let bytes = edited(batch(), layout::MAGIC, [magic as u8]);
        assert_refused_at_both_levels(&bytes, Violation::UnsupportedMagic { magic });
        assert_refused_at_both_levels(&bytes[..30], Violation::UnsupportedMagic { magic });
    }
}

#[test]
fn every_flipped_bit_is_found_unless_the_leader_overwrites_it() {
    let batch = batch();
    for bit in 0..batch.len() * 8 {
        let position = bit / 8;
        let mut flipped = batch.clone();
        flipped[position] ^= 1 << (bit % 8);
        let result = validate_batch(&flipped, &rules(ValidationLevel::Batch));
        let is_overwritten = (layout::BASE_OFFSET..layout::BATCH_LENGTH).contains(&position)
            || (layout::PARTITION_LEADER_EPOCH..layout::MAGIC).contains(&position);
        match result {
            Ok(_) => assert!(is_overwritten, "bit {bit} flipped"),
            Err(BatchError::Corrupt(_)) => assert!(!is_overwritten, "bit {bit} flipped"),
            Err(BatchError::Invalid(Violation::UnsupportedMagic { .. })) => {
                assert_eq!(position, layout::MAGIC);
            }
            Err(other) => panic!("bit {bit} flipped: {other}"),
        }
    }
}

#[test]
fn topic_and_segment_limits_count_whole_batches() {
    let batch = batch();
    let size = batch.len();
    for level in LEVELS {
        let mut rules = rules(level);
        rules.batch_bytes_max = size;
        rules.segment_bytes_max = size;
        validate_batch(&batch, &rules).expect("a batch may be as large as the limits");
        rules.segment_bytes_max = size - 1;
        let error = BatchError::LargerThanSegment { size, limit: size - 1 };
        assert_eq!(refusal(&batch, &rules), error);
        rules.batch_bytes_max = size - 1;
        assert_eq!(refusal(&batch, &rules), BatchError::TooLarge { size, limit: size - 1 });
    }
}

#[test]
fn record_count_and_last_offset_delta_agree() {
    for (record_count, last_offset_delta) in [(0, -1), (-1, -2), (2, 2), (4, 2), (i32::MIN, 2)] {
        let bytes = edited(batch(), layout::RECORD_COUNT, i32::to_be_bytes(record_count));
        let bytes = edited(bytes, layout::LAST_OFFSET_DELTA, i32::to_be_bytes(last_offset_delta));
        let violation = Violation::RecordCount { record_count, last_offset_delta };
        assert_refused_at_both_levels(&bytes, violation);
    }
}

#[test]
fn control_batches_are_for_brokers_only() {
    let marker = EndTransactionMarker { outcome: TransactionOutcome::Commit, coordinator_epoch: 0 };
    let bytes = marker.to_batch(ProducerId(1), 0, NOW);
    assert_refused_at_both_levels(&bytes, Violation::ControlBatch);
    for level in LEVELS {
        let rules = ValidationRules { origin: BatchOrigin::Broker, ..rules(level) };
        validate_batch(&bytes, &rules).expect("a broker writes markers");
    }
}

#[test]
fn a_producer_id_needs_a_sequence_number() {
    let batch = |producer_id, base_sequence| {
        let mut builder =
            BatchBuilder::new(Codec::None).producer(ProducerId(producer_id), 0, base_sequence);
        builder.append(NOW, None, None, &[]);
        builder.build()
    };
    assert_accepted_at_both_levels(&batch(0, 0));
    assert_accepted_at_both_levels(&batch(-1, -1));
    assert_refused_at_both_levels(
        &batch(0, -1),
        Violation::ProducerWithoutSequence { producer_id: 0, base_sequence: -1 },
    );
}

#[test]
fn codecs_beyond_zstd_and_zstd_before_its_version_are_unsupported() {
    for id in 5..=7_i16 {
        let bytes = edited(batch(), layout::ATTRIBUTES, id.to_be_bytes());
        assert_refused_at_both_levels(&bytes, UnsupportedCodec::Unknown(UnknownCodec(id)));
    }
    let zstd = batch_with(Codec::Zstd, &[NOW]);
    assert_accepted_at_both_levels(&zstd);
    for level in LEVELS {
        let rules = ValidationRules { is_zstd_allowed: false, ..rules(level) };
        assert_eq!(refusal(&zstd, &rules), UnsupportedCodec::ZstdTooOld.into());
        validate_batch(&batch_with(Codec::Lz4, &[NOW]), &rules).expect("only zstd has a version");
    }
}

#[test]
fn timestamps_may_be_as_late_as_the_topic_allows() {
    for level in LEVELS {
        let rules = ValidationRules { timestamp_after_ms_max: 10, ..rules(level) };
        let accept = |timestamp| {
            validate_batch(&batch_with(Codec::Gzip, &[NOW, timestamp]), &rules).map(|_| ())
        };
        assert_eq!(accept(NOW + 10), Ok(()));
        let record_index = (level == ValidationLevel::Full).then_some(1);
        let error = TimestampError::OutOfRange {
            record_index,
            timestamp_ms: NOW + 11,
            earliest_ms: i64::MIN,
            latest_ms: NOW + 10,
        };
        assert_eq!(accept(NOW + 11), Err(error.into()));
        let rules = ValidationRules { timestamp_type: TimestampType::LogAppendTime, ..rules };
        validate_batch(&batch_with(Codec::None, &[NOW + 11]), &rules)
            .expect("the broker replaces the timestamp");
    }
}

#[test]
fn a_bound_on_old_timestamps_looks_at_every_record() {
    for level in LEVELS {
        let rules = ValidationRules { timestamp_before_ms_max: 10, ..rules(level) };
        let accept = |timestamp| {
            validate_batch(&batch_with(Codec::Zstd, &[NOW, timestamp]), &rules).map(|_| ())
        };
        assert_eq!(accept(NOW - 10), Ok(()));
        assert_eq!(accept(-1), Ok(()), "no timestamp is no old timestamp");
        let error = TimestampError::OutOfRange {
            record_index: Some(1),
            timestamp_ms: NOW - 11,
            earliest_ms: NOW - 10,
            latest_ms: NOW + ValidationRules::TIMESTAMP_AFTER_MS_MAX,
        };
        assert_eq!(accept(NOW - 11), Err(error.into()));
    }
}

#[test]
fn log_append_time_from_a_client_is_refused_or_taken_back() {
    let mut bytes = batch_with(Codec::None, &[NOW + 7_200_000]);
    set_log_append_time(&mut bytes, NOW);
    for level in LEVELS {
        let mut rules = rules(level);
        rules.timestamp_type = TimestampType::LogAppendTime;
        assert_eq!(refusal(&bytes, &rules), TimestampError::ClientLogAppendTime.into());
    }
    // On a create time topic the mark goes, and with it the cover over the client's timestamps.
    let error = refusal(&bytes, &rules(ValidationLevel::Full));
    assert!(matches!(error, BatchError::InvalidTimestamp(TimestampError::OutOfRange { .. })));

    let mut bytes = batch_with(Codec::None, &[NOW - 5]);
    set_log_append_time(&mut bytes, NOW);
    assert_accepted_at_both_levels(&bytes);
    clear_log_append_time(&mut bytes);
    let valid = validate_batch(&bytes, &rules(ValidationLevel::Full)).expect("the CRC is right");
    assert_eq!(valid.header().attributes.timestamp_type(), TimestampType::CreateTime);
    assert_eq!(valid.header().max_timestamp, NOW);
    assert_eq!(valid.max_timestamp_of_records(), Some(NOW - 5));
}

#[test]
fn compacted_topics_name_the_records_without_a_key() {
    let batch = |count: usize| -> Bytes {
        let mut builder = BatchBuilder::new(Codec::Snappy);
        builder.append(NOW, Some(b""), None, &[]);
        for _ in 0..count {
            builder.append(NOW, None, Some(b"value"), &[]);
        }
        builder.build()
    };
    for level in LEVELS {
        let rules = ValidationRules { is_key_required: true, ..rules(level) };
        validate_batch(&batch(0), &rules).expect("an empty key is a key");
        let error = Violation::MissingKeys { record_indexes: vec![1, 2] };
        assert_eq!(refusal(&batch(2), &rules), error.into());
        let record_indexes = (1..=Violation::RECORD_INDEXES_MAX as i32).collect();
        let error = Violation::MissingKeys { record_indexes };
        assert_eq!(refusal(&batch(Violation::RECORD_INDEXES_MAX + 1), &rules), error.into());
    }
}

#[test]
fn full_validation_finds_records_that_contradict_the_header() {
    let full = rules(ValidationLevel::Full);
    let renumbered = |count: i32| {
        let bytes = edited(batch(), layout::RECORD_COUNT, count.to_be_bytes());
        edited(bytes, layout::LAST_OFFSET_DELTA, (count - 1).to_be_bytes())
    };
    let too_few = Violation::Record { record_index: 3, defect: RecordDefect::Truncated };
    assert_eq!(refusal(&renumbered(4), &full), too_few.into());
    let record_size = (batch().len() - BatchHeader::SIZE) / 3;
    let too_many = Violation::BytesAfterRecords { count: record_size };
    assert_eq!(refusal(&renumbered(2), &full), too_many.into());
    validate_batch(&renumbered(2), &rules(ValidationLevel::Batch))
        .expect("level batch believes the header");

    // A record is: length, attributes, timestamp delta, offset delta, ...
    let second_record = BatchHeader::SIZE + record_size;
    for (position, byte, defect) in [
        (3, 0, RecordDefect::OffsetDelta { offset_delta: 0 }),
        (3, 4, RecordDefect::OffsetDelta { offset_delta: 2 }),
        (3, 6, RecordDefect::OffsetDelta { offset_delta: 3 }),
        (4, 3, RecordDefect::Length { length: -2 }),
        (4, 126, RecordDefect::Truncated),
        (0, 1, RecordDefect::Length { length: -1 }),
        (4, 4, RecordDefect::Length { length: -61 }),
    ] {
        let bytes = edited(batch(), second_record + position, [byte]);
        let error = Violation::Record { record_index: 1, defect };
        assert_eq!(refusal(&bytes, &full), error.into(), "{byte} at {position}");
    }
}

#[test]
fn full_validation_expands_up_to_the_limit_and_no_further() {
    let plain = batch_with(Codec::None, &[NOW; 50]);
    let expanded_size = plain.len() - BatchHeader::SIZE;
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let bytes = batch_with(codec, &[NOW; 50]);
        let mut rules = rules(ValidationLevel::Full);
        rules.decompression = DecompressionLimits::output_bytes(expanded_size);
        validate_batch(&bytes, &rules).expect("records may expand to the limit");
        let limit = expanded_size - 1;
        rules.decompression = DecompressionLimits::output_bytes(limit);
        let error = CompressionError::OutputBeyondLimit { codec, limit };
        assert_eq!(refusal(&bytes, &rules), error.into());
        rules.level = ValidationLevel::Batch;
        validate_batch(&bytes, &rules).expect("level batch does not expand");
    }
}
