//! Batches built here, read back through the public surface.

use chronik_common::{LeaderEpoch, Offset, ProducerId, WallMs};
use chronik_record::{
    BatchBuilder, BatchError, BatchHeader, Codec, Corruption, DecompressionLimits, RecordHeader,
    TimestampType, ValidationLevel, ValidationRules, Violation, crc, layout, recompress, records,
    set_base_offset, set_log_append_time, set_max_timestamp, set_partition_leader_epoch,
    validate_batch,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

const LIMITS: DecompressionLimits = DecompressionLimits::output_bytes(1 << 20);

#[derive(Clone, Debug)]
struct TestRecord {
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 0..40),
        (any::<u8>(), 0..5_000_usize).prop_map(|(b, n)| vec![b; n])
    ]
}

fn any_record() -> impl Strategy<Value = TestRecord> {
    (
        any::<i64>(),
        proptest::option::of(any_bytes()),
        proptest::option::of(any_bytes()),
        vec((vec(any::<u8>(), 0..4), proptest::option::of(any_bytes())), 0..4),
    )
        .prop_map(|(timestamp, key, value, headers)| TestRecord {
            timestamp,
            key,
            value,
            headers,
        })
}

fn append(builder: &mut BatchBuilder, record: &TestRecord) {
    let headers: Vec<_> = record
        .headers
        .iter()
        .map(|(key, value)| RecordHeader { key, value: value.as_deref() })
        .collect();
    builder.append(record.timestamp, record.key.as_deref(), record.value.as_deref(), &headers);
}

fn full_rules_for_any_timestamp() -> ValidationRules {
    ValidationRules {
        level: ValidationLevel::Full,
        timestamp_type: TimestampType::LogAppendTime,
        ..ValidationRules::new(WallMs(0))
    }
}

proptest! {
    #[test]
    fn records_come_back_as_appended(
        input in vec(any_record(), 1..20),
        codec in select(Codec::ALL.to_vec()),
        other_codec in select(Codec::ALL.to_vec()),
        base_offset in 0..i64::MAX / 2,
    ) {
        let mut builder = BatchBuilder::new(codec)
            .base_offset(Offset(base_offset))
            .partition_leader_epoch(LeaderEpoch(5))
            .producer(ProducerId(9), 1, i32::MAX)
            .transactional();
        for record in &input {
            append(&mut builder, record);
        }
        let batch = builder.build();
        for batch in [batch.clone(), recompress(&batch, other_codec, LIMITS)?] {
            let records = records(&batch, LIMITS)?;
            let header = records.header();
            let encoded_header = header.to_bytes();
            prop_assert_eq!(encoded_header.as_slice(), &batch[..BatchHeader::SIZE]);
            prop_assert_eq!(header.size(), batch.len());
            prop_assert_eq!(header.next_offset(), Offset(base_offset + input.len() as i64));
            prop_assert_eq!(header.partition_leader_epoch, LeaderEpoch(5));
            prop_assert!(header.attributes.is_transactional());
            prop_assert_eq!(header.last_sequence() as usize, if input.len() == 1 {
                i32::MAX as usize
            } else {
                input.len() - 2
            });
            let decoded: Vec<_> = records.iter().collect::<Result<_, _>>()?;
            prop_assert_eq!(decoded.len(), input.len());
            for (index, (record, expected)) in decoded.iter().zip(&input).enumerate() {
                prop_assert_eq!(record.offset, Offset(base_offset + index as i64));
                prop_assert_eq!(record.timestamp, expected.timestamp);
                prop_assert_eq!(record.key, expected.key.as_deref());
                prop_assert_eq!(record.value, expected.value.as_deref());
                let headers: Vec<_> = record
                    .headers()
                    .map(|header| (header.key.to_vec(), header.value.map(<[u8]>::to_vec)))
                    .collect();
                prop_assert_eq!(&headers, &expected.headers);
            }
            prop_assert_eq!(crc::whole_batch_crc(&batch, header), crc::crc32c(&batch));
        }
        validate_batch(&batch, &full_rules_for_any_timestamp())?;
    }

    #[test]
    fn arbitrary_records_behind_a_valid_header_never_panic(
        body in vec(any::<u8>(), 0..200),
        record_count in 1..40_i32,
        codec in 0..8_i16,
    ) {
        let mut batch = BatchBuilder::new(Codec::None);
        batch.append(0, None, None, &[]);
        let mut batch = batch.build().to_vec();
        batch.truncate(BatchHeader::SIZE);
        batch.extend_from_slice(&body);
        let length = (batch.len() - layout::LENGTH_PREFIX_SIZE) as i32;
        let mut put = |at: usize, bytes: &[u8]| batch[at..at + bytes.len()].copy_from_slice(bytes);
        put(layout::BATCH_LENGTH, &length.to_be_bytes());
        put(layout::ATTRIBUTES, &codec.to_be_bytes());
        put(layout::LAST_OFFSET_DELTA, &(record_count - 1).to_be_bytes());
        put(layout::RECORD_COUNT, &record_count.to_be_bytes());
        set_max_timestamp(&mut batch, 0);
        let full = validate_batch(&batch, &full_rules_for_any_timestamp());
        let is_crc_wrong =
            matches!(full, Err(BatchError::Corrupt(Corruption::CrcMismatch { .. })));
        prop_assert!(!is_crc_wrong, "the CRC was computed last");
        if let Ok(records) = records(&batch, LIMITS) {
            prop_assert!(records.iter().count() <= record_count as usize + 1);
        }
    }
}

#[test]
fn the_leaders_patches_keep_the_batch_valid() {
    let mut builder = BatchBuilder::new(Codec::Lz4);
    builder.append(100, Some(b"k"), Some(b"v"), &[]).append(300, None, None, &[]);
    let mut batch = builder.build().to_vec();
    set_base_offset(&mut batch, Offset(i64::MAX - 1));
    set_partition_leader_epoch(&mut batch, LeaderEpoch(i32::MAX));
    set_log_append_time(&mut batch, 777);

    let header = BatchHeader::parse(&batch).expect("patches keep the format");
    header.verify_crc(&batch).expect("patches keep the CRC right");
    assert_eq!(header.base_offset, Offset(i64::MAX - 1));
    assert_eq!(header.last_offset(), Offset(i64::MAX));
    assert_eq!(header.next_offset(), Offset(i64::MAX), "saturates");
    assert_eq!(header.partition_leader_epoch, LeaderEpoch(i32::MAX));
    assert_eq!(header.attributes.timestamp_type(), TimestampType::LogAppendTime);
    assert_eq!(header.attributes.codec(), Ok(Codec::Lz4));
    assert_eq!((header.base_timestamp, header.max_timestamp), (100, 777));
    let records = records(&batch, LIMITS).expect("the batch is well-formed");
    for record in &records {
        assert_eq!(record.expect("records are intact").timestamp, 777);
    }
}

#[test]
fn a_batch_stamped_by_the_builder_equals_a_batch_stamped_in_place() {
    let mut builder = BatchBuilder::new(Codec::None);
    builder.append(100, Some(b"k"), Some(b"v"), &[]);
    let mut patched = builder.clone().build().to_vec();
    set_log_append_time(&mut patched, 777);
    assert_eq!(builder.build_with_log_append_time(777), patched);
}

#[test]
fn compacted_batches_may_have_gaps_and_may_be_empty() {
    let mut builder = BatchBuilder::new(Codec::Zstd);
    for _ in 0..3 {
        builder.append(0, None, None, &[]);
    }
    let batch = recompress(&builder.build(), Codec::None, LIMITS).expect("zstd decodes");
    let record_size = (batch.len() - BatchHeader::SIZE) / 3;
    let mut gap = batch.to_vec();
    gap.drain(BatchHeader::SIZE + record_size..BatchHeader::SIZE + 2 * record_size);
    let mut empty = batch[..BatchHeader::SIZE].to_vec();
    empty[layout::ATTRIBUTES + 1] = Codec::Zstd.id();
    for (batch, count, deltas) in [(&mut gap, 2_i32, vec![0, 2]), (&mut empty, 0, vec![])] {
        let length = (batch.len() - layout::LENGTH_PREFIX_SIZE) as i32;
        batch[layout::BATCH_LENGTH..][..4].copy_from_slice(&length.to_be_bytes());
        batch[layout::RECORD_COUNT..][..4].copy_from_slice(&count.to_be_bytes());
        set_max_timestamp(batch, 0);
        let records = records(batch, LIMITS).expect("the log holds such batches");
        let offset_deltas: Result<Vec<_>, _> =
            records.iter().map(|record| record.map(|record| record.offset_delta)).collect();
        assert_eq!(offset_deltas, Ok(deltas));
        let error = validate_batch(batch, &full_rules_for_any_timestamp()).map(|_| ());
        assert!(
            matches!(error, Err(BatchError::Invalid(Violation::RecordCount { .. }))),
            "a client does not send such batches: {error:?}"
        );
    }
}
