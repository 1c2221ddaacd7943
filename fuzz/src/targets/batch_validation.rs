//! A produced record batch, from the bytes of the request to the bytes in the log.
//!
//! Input: the bytes of one partition's `records` field. They are tried as they are and with
//! length, format and checksum made right, since no mutation finds a checksum. Checked:
//! allocation; and that an accepted batch survives everything the broker does to it.

use chronik_common::{LeaderEpoch, Offset, ProducerId, WallMs};
use chronik_record::{
    BatchBuilder, BatchHeader, Codec, DecompressionLimits, EndTransactionMarker, RecordHeader,
    TransactionOutcome, ValidationLevel, ValidationRules, clear_log_append_time, crc, layout,
    recompress, records, set_base_offset, set_log_append_time, set_partition_leader_epoch,
    validate_batch,
};

use super::decompression::GZIP_EXTRA_FIELD_BYTES_MAX;
use crate::allocation;
use crate::{Seed, Target};

pub(crate) const TARGET: Target = Target { name: "batch_validation", run, seeds };

const NOW: WallMs = WallMs(1_700_000_000_000);
const OUTPUT_BYTES_MAX: usize = 256 << 10;
const LIMITS: DecompressionLimits = DecompressionLimits::output_bytes(OUTPUT_BYTES_MAX);

fn run(input: &[u8]) {
    check(input);
    if input.len() >= BatchHeader::SIZE {
        check(&repaired(input));
    }
}

fn repaired(input: &[u8]) -> Vec<u8> {
    let mut batch = input.to_vec();
    let length = (batch.len() - layout::LENGTH_PREFIX_SIZE) as i32;
    batch[layout::BATCH_LENGTH..layout::MAGIC - 4].copy_from_slice(&length.to_be_bytes());
    batch[layout::MAGIC] = layout::MAGIC_V2 as u8;
    let crc = crc::crc32c(&batch[layout::ATTRIBUTES..]);
    batch[layout::CRC..layout::ATTRIBUTES].copy_from_slice(&crc.to_be_bytes());
    batch
}

fn check(batch: &[u8]) {
    let by_header = rules(ValidationLevel::Batch);
    let by_records = rules(ValidationLevel::Full);
    let header = allocation::assert_parsing(0, || {
        validate_batch(batch, &by_header).ok().map(|valid| *valid.header())
    });
    let live_bytes_max = OUTPUT_BYTES_MAX + GZIP_EXTRA_FIELD_BYTES_MAX;
    let is_valid = allocation::assert_expanding(batch.len(), live_bytes_max, || {
        validate_batch(batch, &by_records).is_ok()
    });
    let Some(header) = header else {
        assert!(!is_valid, "full validation accepts no batch that its header condemns");
        return;
    };
    assert_eq!(header.size(), batch.len());
    assert_eq!(crc::whole_batch_crc(batch, &header), crc::crc32c(batch));
    check_patches(batch, &header);
    if is_valid {
        check_recompression(batch);
    }
}

fn rules(level: ValidationLevel) -> ValidationRules {
    ValidationRules {
        level,
        // Any timestamp, so that the records decide.
        timestamp_after_ms_max: i64::MAX,
        decompression: LIMITS,
        ..ValidationRules::new(NOW)
    }
}

fn check_patches(batch: &[u8], header: &BatchHeader) {
    let mut patched = batch.to_vec();
    set_base_offset(&mut patched, Offset(77));
    set_partition_leader_epoch(&mut patched, LeaderEpoch(7));
    let moved = BatchHeader::parse(&patched).expect("a patched batch parses");
    moved.verify_crc(&patched).expect("the CRC does not cover what the leader patches");
    assert_eq!(moved.next_offset(), Offset(77 + i64::from(header.record_count)));
    let expected =
        BatchHeader { base_offset: Offset(77), partition_leader_epoch: LeaderEpoch(7), ..*header };
    assert_eq!(moved, expected);

    set_log_append_time(&mut patched, NOW.0);
    validate_batch(&patched, &rules(ValidationLevel::Batch)).expect("a stamped batch is valid");
    clear_log_append_time(&mut patched);
    validate_batch(&patched, &rules(ValidationLevel::Batch)).expect("and an unstamped one");
}

fn check_recompression(batch: &[u8]) {
    let before = records(batch, LIMITS).expect("a valid batch opens");
    for codec in Codec::ALL {
        let changed = recompress(batch, codec, LIMITS).expect("a valid batch recompresses");
        let after = records(&changed, LIMITS).expect("a recompressed batch opens");
        assert_eq!(after.header().attributes.codec(), Ok(codec));
        assert_eq!(after.body(), before.body());
        after.header().verify_crc(&changed).expect("a recompressed batch has a CRC");
    }
}

fn seeds() -> Vec<Seed> {
    let mut seeds: Vec<_> = Codec::ALL
        .into_iter()
        .map(|codec| {
            let headers = [
                RecordHeader { key: b"h", value: Some(b"1") },
                RecordHeader { key: b"h", value: None },
            ];
            let mut builder = BatchBuilder::new(codec);
            builder.append(NOW.0, Some(b"key"), Some(&[b'v'; 100]), &headers).append(
                NOW.0 - 5,
                None,
                None,
                &[],
            );
            Seed::new(codec.name(), builder.build())
        })
        .collect();
    let mut builder =
        BatchBuilder::new(Codec::None).producer(ProducerId(4), 1, i32::MAX).transactional();
    builder.append(-1, Some(b""), Some(b""), &[]).append(NOW.0, None, None, &[]);
    seeds.push(Seed::new("transactional", builder.build()));
    let marker = EndTransactionMarker { outcome: TransactionOutcome::Commit, coordinator_epoch: 3 };
    seeds.push(Seed::new("marker", marker.to_batch(ProducerId(4), 1, NOW.0)));
    seeds
}
