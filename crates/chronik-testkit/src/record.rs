//! Records that prove themselves, and the batches they travel in.
//!
//! ```text
//!  value   producer u32 | partition i32 | sequence u64 | hash u64 | padding
//! ```
//!
//! All big-endian; the hash covers everything else, and the padding follows from the identity.

use std::borrow::Cow;

use bytes::Bytes;
use chronik_common::{ProducerId, Rng, SeededRng, TopicId};
use chronik_protocol::Records;
use chronik_protocol::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use chronik_record::{BatchBuilder, BatchHeader, Codec, DecompressionLimits, records};

/// Bytes in front of the padding.
const VALUE_HEADER_BYTES: usize = 24;
const HASH_AT: usize = 16;
/// Largest batch a test looks into, decompressed.
const DECOMPRESSED_BYTES_MAX: usize = 64 << 20;

/// Who a record is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RecordId {
    /// Number of its producer.
    pub producer: u32,
    /// Its place among that producer's records, from 0.
    pub sequence: u64,
}

/// The value of a record, `size` bytes long or as long as it must be.
#[must_use]
pub fn value_of(id: RecordId, partition: i32, size: usize) -> Vec<u8> {
    let mut value = Vec::with_capacity(size.max(VALUE_HEADER_BYTES));
    value.extend_from_slice(&id.producer.to_be_bytes());
    value.extend_from_slice(&partition.to_be_bytes());
    value.extend_from_slice(&id.sequence.to_be_bytes());
    value.extend_from_slice(&[0; 8]);
    let mut rng = SeededRng::new(u64::from(id.producer) << 40 ^ id.sequence);
    while value.len() < size {
        let word = rng.next_u64().to_be_bytes();
        let count = word.len().min(size - value.len());
        value.extend_from_slice(&word[..count]);
    }
    let hash = hash(&value);
    value[HASH_AT..VALUE_HEADER_BYTES].copy_from_slice(&hash.to_be_bytes());
    value
}

impl RecordId {
    /// Reads the identity and the partition from a value; `None` if a byte of it is wrong.
    #[must_use]
    pub fn of_value(value: &[u8]) -> Option<(Self, i32)> {
        let field = |from: usize, to: usize| value.get(from..to);
        let producer = u32::from_be_bytes(field(0, 4)?.try_into().ok()?);
        let partition = i32::from_be_bytes(field(4, 8)?.try_into().ok()?);
        let sequence = u64::from_be_bytes(field(8, 16)?.try_into().ok()?);
        let stored = u64::from_be_bytes(field(HASH_AT, VALUE_HEADER_BYTES)?.try_into().ok()?);
        (stored == hash(value)).then_some((Self { producer, sequence }, partition))
    }
}

/// FNV-1a over a value without its hash field.
fn hash(value: &[u8]) -> u64 {
    let covered = value[..HASH_AT].iter().chain(&value[VALUE_HEADER_BYTES..]);
    covered.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// A batch of values at one timestamp, of an idempotent producer if `producer` names one: id,
/// epoch, first sequence.
#[must_use]
pub fn batch_of(
    codec: Codec,
    producer: Option<(i64, i16, i32)>,
    timestamp: i64,
    values: &[impl AsRef<[u8]>],
) -> Bytes {
    let mut builder = BatchBuilder::new(codec);
    if let Some((id, epoch, sequence)) = producer {
        builder = builder.producer(ProducerId(id), epoch, sequence);
    }
    for value in values {
        builder.append(timestamp, None, Some(value.as_ref()), &[]);
    }
    builder.build()
}

/// A produce request with one batch. Versions up to 12 take the name, later ones the id.
#[must_use]
pub fn produce_request<'a>(
    topic: &'a str,
    topic_id: TopicId,
    partition: i32,
    acks: i16,
    batch: &'a [u8],
) -> ProduceRequest<'a> {
    let records = Some(Records::Borrowed(batch));
    ProduceRequest {
        transactional_id: None,
        acks,
        timeout_ms: 30_000,
        topic_data: vec![TopicProduceData {
            name: Cow::Borrowed(topic),
            topic_id,
            partition_data: vec![PartitionProduceData { index: partition, records }],
        }],
    }
}

/// A record with everything a test may ask about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnedRecord {
    /// Its offset.
    pub offset: i64,
    /// Its timestamp.
    pub timestamp: i64,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
}

/// The batches and records in the bytes of a fetch answer.
///
/// # Panics
/// If the bytes are not whole batches with right checksums: no broker may send such bytes.
#[must_use]
pub fn decode_batches(mut bytes: &[u8]) -> Vec<(BatchHeader, Vec<OwnedRecord>)> {
    let mut batches = Vec::new();
    while !bytes.is_empty() {
        let header = BatchHeader::parse(bytes).expect("a fetch gives whole batches");
        let (batch, rest) = bytes.split_at_checked(header.size()).expect("a batch is complete");
        header.verify_crc(batch).expect("a fetched batch has the right checksum");
        let limits = DecompressionLimits::output_bytes(DECOMPRESSED_BYTES_MAX);
        let records = records(batch, limits).expect("a fetched batch can be decompressed");
        let records = records.iter().map(|record| {
            let record = record.expect("a fetched record can be decoded");
            OwnedRecord {
                offset: record.offset.0,
                timestamp: record.timestamp,
                key: record.key.map(<[u8]>::to_vec),
                value: record.value.map(<[u8]>::to_vec),
            }
        });
        batches.push((header, records.collect()));
        bytes = rest;
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_proves_its_identity_and_every_changed_byte_shows() {
        let id = RecordId { producer: 7, sequence: 1 << 33 };
        for size in [0, 24, 25, 200] {
            let value = value_of(id, 3, size);
            assert_eq!(value.len(), size.max(24));
            assert_eq!(RecordId::of_value(&value), Some((id, 3)));
            for position in 0..value.len() {
                let mut changed = value.clone();
                changed[position] ^= 0x10;
                assert_eq!(RecordId::of_value(&changed), None, "byte {position}");
            }
        }
        assert_eq!(RecordId::of_value(b"short"), None);
    }
}
