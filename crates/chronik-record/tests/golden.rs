//! Batches of other implementations, byte for byte.
//!
//! `java-*` come from kafka-clients 4.1.0 (`MemoryRecords.builder`,
//! `MemoryRecords.withEndTransactionMarker`), `kafka-python-*` from kafka-python 3.0.12
//! (`DefaultRecordBatchBuilder`), `librdkafka-*` from confluent-kafka 2.16.1 producing to its mock
//! cluster (`test.mock.num.brokers`), fetched over a plain socket. All hold the same three
//! records. `lz4-linked-checked` is a frame of the Python package lz4 4.4.5 with `block_linked`,
//! `store_size` and both checksums.

use chronik_common::{Offset, ProducerId, WallMs};
use chronik_record::{
    BatchBuilder, BatchError, Codec, CompressionError, DecompressionLimits, EndTransactionMarker,
    RecordHeader, TransactionOutcome, ValidationLevel, ValidationRules, compression, recompress,
    records, validate_batch,
};

const TIMESTAMP: i64 = 1_700_000_000_000;
const LIMITS: DecompressionLimits = DecompressionLimits::output_bytes(1 << 20);

macro_rules! golden {
    ($name:literal) => {
        include_bytes!(concat!("golden/", $name, ".bin")).as_slice()
    };
}

const BATCHES: [(&str, Codec, &[u8]); 15] = [
    ("java", Codec::None, golden!("java-none")),
    ("java", Codec::Gzip, golden!("java-gzip")),
    ("java", Codec::Snappy, golden!("java-snappy")),
    ("java", Codec::Lz4, golden!("java-lz4")),
    ("java", Codec::Zstd, golden!("java-zstd")),
    ("kafka-python", Codec::None, golden!("kafka-python-none")),
    ("kafka-python", Codec::Gzip, golden!("kafka-python-gzip")),
    ("kafka-python", Codec::Snappy, golden!("kafka-python-snappy")),
    ("kafka-python", Codec::Lz4, golden!("kafka-python-lz4")),
    ("kafka-python", Codec::Zstd, golden!("kafka-python-zstd")),
    ("librdkafka", Codec::None, golden!("librdkafka-none")),
    ("librdkafka", Codec::Gzip, golden!("librdkafka-gzip")),
    ("librdkafka", Codec::Snappy, golden!("librdkafka-snappy")),
    ("librdkafka", Codec::Lz4, golden!("librdkafka-lz4")),
    ("librdkafka", Codec::Zstd, golden!("librdkafka-zstd")),
];

const HEADERS: [RecordHeader<'static>; 4] = [
    RecordHeader { key: b"trace", value: Some(b"a") },
    RecordHeader { key: b"trace", value: Some(b"b") },
    RecordHeader { key: b"empty", value: Some(b"") },
    RecordHeader { key: b"null", value: None },
];

fn text(size: usize) -> Vec<u8> {
    b"chronik golden record text 0123456789\n".iter().copied().cycle().take(size).collect()
}

fn long_value(codec: Codec) -> Vec<u8> {
    text(if codec == Codec::None { 100 } else { 100_000 })
}

fn builder(codec: Codec) -> BatchBuilder {
    let mut builder = BatchBuilder::new(codec);
    builder
        .append(TIMESTAMP, Some(b"key-0"), Some(b"value-0"), &HEADERS)
        .append(TIMESTAMP + 5, None, Some(&long_value(codec)), &[])
        .append(TIMESTAMP + 3, Some(b"key-2"), None, &[]);
    builder
}

fn full_rules() -> ValidationRules {
    ValidationRules { level: ValidationLevel::Full, ..ValidationRules::new(WallMs(TIMESTAMP)) }
}

fn assert_is_the_golden_content(batch: &[u8], codec: Codec, what: &str) {
    let records = records(batch, LIMITS).expect(what);
    let records: Vec<_> = records.iter().map(|record| record.expect(what)).collect();
    assert_eq!(records.len(), 3, "{what}");
    let long_value = long_value(codec);
    let expected = [
        (TIMESTAMP, Some(b"key-0".as_slice()), Some(b"value-0".as_slice())),
        (TIMESTAMP + 5, None, Some(long_value.as_slice())),
        (TIMESTAMP + 3, Some(b"key-2".as_slice()), None),
    ];
    for (index, (record, (timestamp, key, value))) in records.iter().zip(expected).enumerate() {
        assert_eq!(record.offset, Offset(index as i64), "{what}");
        assert_eq!(record.timestamp, timestamp, "{what}");
        assert_eq!(record.key, key, "{what}");
        assert_eq!(record.value, value, "{what}");
    }
    assert!(records[0].headers().eq(HEADERS), "{what}: {:?}", records[0].headers());
    assert_eq!(records[1].headers().len(), 0, "{what}");
}

#[test]
fn batches_of_every_client_and_codec_validate_and_decode() {
    for (client, codec, batch) in BATCHES {
        let what = format!("{client} {codec}");
        let valid = validate_batch(batch, &full_rules()).expect(&what);
        assert_eq!(valid.header().attributes.codec(), Ok(codec), "{what}");
        assert_eq!(valid.max_timestamp_of_records(), Some(TIMESTAMP + 5), "{what}");
        assert_eq!(valid.header().max_timestamp, TIMESTAMP + 5, "{what}");
        assert_is_the_golden_content(batch, codec, &what);
    }
}

#[test]
fn uncompressed_batches_are_built_with_the_bytes_of_the_java_client() {
    assert_eq!(builder(Codec::None).build(), golden!("java-none"));
}

#[test]
fn batches_of_every_client_recompress_to_every_codec() {
    for (client, from, batch) in BATCHES {
        for to in Codec::ALL {
            let what = format!("{client} {from} to {to}");
            let recompressed = recompress(batch, to, LIMITS).expect(&what);
            let valid = validate_batch(&recompressed, &full_rules()).expect(&what);
            assert_eq!(valid.header().attributes.codec(), Ok(to), "{what}");
            assert_is_the_golden_content(&recompressed, from, &what);
        }
    }
}

#[test]
fn markers_have_the_bytes_of_the_java_broker() {
    for (outcome, golden) in [
        (TransactionOutcome::Abort, golden!("java-marker-abort")),
        (TransactionOutcome::Commit, golden!("java-marker-commit")),
    ] {
        let marker = EndTransactionMarker { outcome, coordinator_epoch: 7 };
        assert_eq!(marker.to_batch(ProducerId(4711), 3, TIMESTAMP), golden);
        assert_eq!(EndTransactionMarker::parse(golden), Ok(marker));
    }
}

#[test]
fn lz4_frames_with_dependent_blocks_and_checksums_are_read_and_checked() {
    let frame = golden!("lz4-linked-checked");
    assert_eq!(compression::decompress(Codec::Lz4, frame, LIMITS), Ok(text(150_000)));
    let undecodable = Err(CompressionError::Undecodable { codec: Codec::Lz4 });
    for position in 0..frame.len() {
        let mut damaged = frame.to_vec();
        damaged[position] ^= 0x10;
        let result = compression::decompress(Codec::Lz4, &damaged, LIMITS);
        assert_eq!(result, undecodable, "byte {position} damaged");
        let result = compression::decompress(Codec::Lz4, &frame[..position], LIMITS);
        assert_eq!(result, undecodable, "cut to {position} bytes");
    }
}

#[test]
fn compressed_blocks_cut_anywhere_are_never_taken_for_complete() {
    for (client, codec, batch) in BATCHES {
        if codec == Codec::None {
            continue;
        }
        let block = &batch[61..];
        for size in 0..block.len() {
            match compression::decompress(codec, &block[..size], LIMITS) {
                Err(CompressionError::Undecodable { .. }) => {}
                // Snappy has no end mark: a stream cut between two blocks is a shorter stream,
                // and the record that is missing gives it away.
                Ok(_) if codec == Codec::Snappy => {
                    let mut cut = batch[..61 + size].to_vec();
                    let length = (cut.len() - 12) as i32;
                    cut[8..12].copy_from_slice(&length.to_be_bytes());
                    let error = records(&cut, LIMITS)
                        .expect("the shorter stream decompresses")
                        .iter()
                        .find_map(Result::err);
                    assert!(matches!(error, Some(BatchError::Invalid(_))), "{client}: {error:?}");
                }
                other => panic!("{client} {codec} cut to {size} bytes: {other:?}"),
            }
        }
    }
}
