//! The records of an uncompressed batch: varints, keys, values, headers.
//!
//! Input: one byte of record count, then the records. Checked: allocation; that the iterator
//! ends; and that records which decode also encode, and to the same records.

use chronik_record::{
    BatchBuilder, BatchHeader, Codec, DecompressionLimits, Record, RecordHeader, layout, records,
};

use crate::allocation;
use crate::{Seed, Target};

pub(crate) const TARGET: Target = Target { name: "record_iterator", run, seeds };

const LIMITS: DecompressionLimits = DecompressionLimits::output_bytes(0);
const BASE_TIMESTAMP: i64 = 1_700_000_000_000;

fn run(input: &[u8]) {
    let Some((count, body)) = input.split_first() else { return };
    let batch = batch_of(i32::from(*count), body);
    let opened = records(&batch, LIMITS).expect("the header is right");
    let decoded = allocation::assert_parsing(0, || {
        let mut last_delta = -1;
        let mut good = 0;
        for record in &opened {
            let Ok(record) = record else { return None };
            assert!(record.offset_delta > last_delta, "{record:?} after delta {last_delta}");
            last_delta = record.offset_delta;
            assert_eq!(record.headers().count(), record.headers().len());
            good += 1;
        }
        Some(good)
    });
    let Some(good) = decoded else { return };
    assert_eq!(good, usize::from(*count));
    check_encoding(&opened.iter().flatten().collect::<Vec<_>>());
}

fn batch_of(record_count: i32, body: &[u8]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Codec::None);
    builder.append(BASE_TIMESTAMP, None, None, &[]);
    let mut batch = builder.build().to_vec();
    batch.truncate(BatchHeader::SIZE);
    batch.extend_from_slice(body);
    let length = (batch.len() - layout::LENGTH_PREFIX_SIZE) as i32;
    batch[layout::BATCH_LENGTH..][..4].copy_from_slice(&length.to_be_bytes());
    batch[layout::RECORD_COUNT..][..4].copy_from_slice(&record_count.to_be_bytes());
    // Offsets may have gaps, as after compaction.
    batch[layout::LAST_OFFSET_DELTA..][..4].copy_from_slice(&i32::MAX.to_be_bytes());
    batch
}

fn check_encoding(decoded: &[Record<'_>]) {
    if decoded.is_empty() {
        return;
    }
    let mut builder = BatchBuilder::new(Codec::None);
    for record in decoded {
        let headers: Vec<_> = record.headers().collect();
        builder.append(record.timestamp, record.key, record.value, &headers);
    }
    let batch = builder.build();
    let again = records(&batch, LIMITS).expect("a built batch opens");
    let again: Vec<_> =
        again.iter().map(|record| record.expect("a built record decodes")).collect();
    assert_eq!(again.len(), decoded.len());
    for (again, record) in again.iter().zip(decoded) {
        assert_eq!(again.timestamp, record.timestamp);
        assert_eq!(again.key, record.key);
        assert_eq!(again.value, record.value);
        assert!(again.headers().eq(record.headers()), "{again:?} is not {record:?}");
    }
}

fn seeds() -> Vec<Seed> {
    let body_of = |append: &dyn Fn(&mut BatchBuilder)| {
        let mut builder = BatchBuilder::new(Codec::None);
        append(&mut builder);
        let count = builder.record_count() as u8;
        let batch = builder.build();
        [&[count], &batch[BatchHeader::SIZE..]].concat()
    };
    let plain = body_of(&|builder| {
        for index in 0..3 {
            builder.append(BASE_TIMESTAMP + index, Some(b"key"), Some(b"value"), &[]);
        }
    });
    let headers = body_of(&|builder| {
        let headers = [
            RecordHeader { key: b"trace", value: Some(b"a") },
            RecordHeader { key: b"trace", value: None },
            RecordHeader { key: b"", value: Some(b"") },
        ];
        builder.append(BASE_TIMESTAMP, None, Some(&[b'v'; 200]), &headers);
    });
    let extremes = body_of(&|builder| {
        builder.append(0, Some(b""), None, &[]);
        builder.append(i64::MAX, None, Some(b""), &[]);
        builder.append(i64::MIN, None, None, &[]);
    });
    vec![Seed::new("plain", plain), Seed::new("headers", headers), Seed::new("extremes", extremes)]
}
