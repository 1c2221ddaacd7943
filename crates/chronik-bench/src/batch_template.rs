//! A record batch encoded once and stamped for each request.
//!
//! The largest batch is built by chronik-record; a smaller one is its header, with other counts,
//! and a prefix of its records, because a record's encoding does not depend on those behind it.
//! Stamping writes identities, keys, counts, timestamps, producer fields and the CRC in place:
//! no allocation, no encoding.
//!
//! Stamping is a pure function of the stamp: a repeated request has the same bytes.

use chronik_common::ProducerId;
use chronik_record::{BatchBuilder, Codec, compression, layout, set_max_timestamp};

use crate::arguments::{KeyPattern, PayloadPattern};
use crate::clock::Moment;
use crate::identity::{Identity, mix};

/// Bytes of a key.
pub const KEY_BYTES: usize = 8;

/// What messages look like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MessageShape {
    /// Bytes of a value.
    pub value_bytes: usize,
    /// Keys.
    pub keys: KeyPattern,
    /// Filler behind the identity.
    pub payload: PayloadPattern,
    /// Codec of the batch.
    pub codec: Codec,
    /// Number of the run.
    pub run: u32,
    /// Number of the writing connection.
    pub writer: u32,
}

/// Messages that were meant to be sent at the same time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// When they were meant to be sent.
    pub intended: Moment,
    /// How many they are, at least 1.
    pub count: u32,
}

/// What distinguishes one batch from the others of its template.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp<'a> {
    /// Partition, which is part of random keys.
    pub partition: i32,
    /// Sequence of the first message.
    pub first_sequence: u64,
    /// The messages, together at least 1 and at most the template's.
    pub runs: &'a [Run],
    /// Timestamp of all records, in ms since the Unix epoch.
    pub timestamp_ms: i64,
    /// Producer id and epoch of an idempotent producer.
    pub producer: Option<(i64, i16)>,
}

/// See the module.
#[derive(Debug)]
pub struct BatchTemplate {
    shape: MessageShape,
    /// The largest batch, uncompressed.
    bytes: Vec<u8>,
    /// Where each record ends in `bytes`, exclusive.
    ends: Vec<u32>,
    /// Where each record's value starts.
    values: Vec<u32>,
    /// The last compressed batch.
    compressed: Vec<u8>,
}

/// The bytes of one stamped batch.
#[derive(Clone, Copy, Debug)]
pub struct StampedBatch<'a> {
    /// A whole batch.
    pub bytes: &'a [u8],
    /// Its CRC-32C, as in its header.
    pub crc: u32,
}

impl BatchTemplate {
    /// A template for up to `messages_max` messages, at least 1.
    #[must_use]
    pub fn new(shape: MessageShape, messages_max: u32) -> Self {
        assert!(messages_max >= 1, "a batch has at least one message");
        let value = shape.filled_value();
        let key = [0; KEY_BYTES];
        let mut builder = BatchBuilder::new(Codec::None);
        let mut ends = Vec::with_capacity(messages_max as usize);
        let mut values = Vec::with_capacity(messages_max as usize);
        for _ in 0..messages_max {
            builder.append(0, Some(&key), Some(&value), &[]);
            let end = builder.uncompressed_size();
            ends.push(position(end));
            // Behind the value comes the header count, one byte.
            values.push(position(end - 1 - value.len()));
        }
        let bytes = builder.build().to_vec();
        assert_eq!(bytes.len(), *ends.last().expect("there is a record") as usize);
        Self { shape, bytes, ends, values, compressed: Vec::new() }
    }

    /// Messages that fit.
    #[must_use]
    pub fn messages_max(&self) -> u32 {
        position(self.ends.len())
    }

    /// Messages of this shape that fit into a batch of `batch_bytes`, at least 1.
    #[must_use]
    pub fn messages_within(shape: MessageShape, batch_bytes: usize) -> u32 {
        // The varints of later records are a little longer than those of the second.
        let two = Self::new(shape, 2);
        let record = (two.ends[1] - two.ends[0]) as usize + RECORD_GROWTH_BYTES;
        position((batch_bytes.saturating_sub(layout::HEADER_SIZE) / record).max(1))
    }

    /// Writes `stamp` into the batch.
    ///
    /// # Panics
    /// If the stamp has no message or more than the template.
    pub fn stamp(&mut self, stamp: &Stamp<'_>) -> StampedBatch<'_> {
        let count: u32 = stamp.runs.iter().map(|run| run.count).sum();
        assert!(
            count >= 1 && count <= self.messages_max(),
            "{count} messages do not fit a template of {}",
            self.messages_max()
        );
        self.stamp_records(stamp);
        let end = self.ends[count as usize - 1] as usize;
        let batch = &mut self.bytes[..end];
        stamp_header(batch, stamp, count);
        if self.shape.codec == Codec::None {
            // Last, because it computes the CRC.
            set_max_timestamp(batch, stamp.timestamp_ms);
            return StampedBatch { crc: crc_of(batch), bytes: batch };
        }
        let (header, records) = batch.split_at(layout::HEADER_SIZE);
        let block = compression::compress(self.shape.codec, records);
        self.compressed.clear();
        self.compressed.extend_from_slice(header);
        self.compressed.extend_from_slice(&block);
        let compressed = self.compressed.as_mut_slice();
        put(compressed, layout::ATTRIBUTES, i16::from(self.shape.codec.id()).to_be_bytes());
        let length = position(compressed.len() - layout::LENGTH_PREFIX_SIZE);
        put(compressed, layout::BATCH_LENGTH, length.to_be_bytes());
        set_max_timestamp(compressed, stamp.timestamp_ms);
        StampedBatch { crc: crc_of(compressed), bytes: compressed }
    }

    fn stamp_records(&mut self, stamp: &Stamp<'_>) {
        let has_identity = self.shape.value_bytes >= Identity::SIZE;
        let mut sequence = stamp.first_sequence;
        let mut values = self.values.iter();
        let value_length_bytes = varint_bytes(self.shape.value_bytes);
        for run in stamp.runs {
            for value in values.by_ref().take(run.count as usize) {
                let value = *value as usize;
                if has_identity {
                    let at = value + Identity::SEQUENCE;
                    put(&mut self.bytes, at, sequence.to_be_bytes());
                    let at = value + Identity::INTENDED;
                    put(&mut self.bytes, at, run.intended.0.to_be_bytes());
                }
                let key = self.shape.key(stamp.partition, sequence);
                put(&mut self.bytes, value - value_length_bytes - KEY_BYTES, key.to_be_bytes());
                sequence += 1;
            }
        }
    }
}

/// Bytes by which the offset delta of a late record can be longer than that of the second.
const RECORD_GROWTH_BYTES: usize = 3;

/// What every message of a run has behind its identity, to compare messages with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExpectedValue {
    run: u32,
    bytes: Vec<u8>,
}

impl ExpectedValue {
    /// What writers of `shape` put into their messages.
    #[must_use]
    pub fn of(shape: &MessageShape) -> Self {
        Self { run: shape.run, bytes: shape.filled_value() }
    }

    /// True if `value` is what a writer of the shape puts into the message with its identity.
    #[must_use]
    pub fn is(&self, value: &[u8]) -> bool {
        let is_of_run = Identity::read(value).is_some_and(|identity| identity.run == self.run);
        is_of_run
            && value.len() == self.bytes.len()
            && value[Identity::SIZE..] == self.bytes[Identity::SIZE..]
    }
}

impl MessageShape {
    /// The key of a message.
    #[must_use]
    pub fn key(&self, partition: i32, sequence: u64) -> u64 {
        match self.keys {
            KeyPattern::Random => {
                let place = u64::from(self.writer) << 32 | u64::from(partition.unsigned_abs());
                mix(mix(place) ^ sequence)
            }
            KeyPattern::Sequential => sequence,
            KeyPattern::Fixed => 0,
        }
    }

    /// A value with its filler and the constant part of its identity.
    #[must_use]
    pub fn filled_value(&self) -> Vec<u8> {
        const WORDS: &[u8] =
            b"the quick brown fox jumps over the lazy dog while the river runs on ";
        let mut value = vec![0; self.value_bytes];
        match self.payload {
            PayloadPattern::Zeros => {}
            PayloadPattern::Text => {
                for (byte, word) in value.iter_mut().zip(WORDS.iter().cycle()) {
                    *byte = *word;
                }
            }
            PayloadPattern::Random => {
                for (index, chunk) in value.chunks_mut(8).enumerate() {
                    let word = mix(u64::from(self.run) ^ (index as u64) << 32).to_be_bytes();
                    chunk.copy_from_slice(&word[..chunk.len()]);
                }
            }
        }
        if value.len() >= Identity::SIZE {
            let (run, writer) = (self.run, self.writer);
            Identity { run, writer, sequence: 0, intended: Moment(0) }.write(&mut value);
        }
        value
    }
}

fn stamp_header(batch: &mut [u8], stamp: &Stamp<'_>, count: u32) {
    let length = position(batch.len() - layout::LENGTH_PREFIX_SIZE);
    put(batch, layout::BATCH_LENGTH, length.to_be_bytes());
    put(batch, layout::LAST_OFFSET_DELTA, (count - 1).to_be_bytes());
    put(batch, layout::RECORD_COUNT, count.to_be_bytes());
    put(batch, layout::BASE_TIMESTAMP, stamp.timestamp_ms.to_be_bytes());
    let (id, epoch) = stamp.producer.unwrap_or((ProducerId::NONE.0, -1));
    let base_sequence = match stamp.producer {
        // Kafka's sequence numbers go from 2^31-1 to 0.
        Some(_) => (stamp.first_sequence & u64::from(i32::MAX.unsigned_abs())) as i32,
        None => -1,
    };
    put(batch, layout::PRODUCER_ID, id.to_be_bytes());
    put(batch, layout::PRODUCER_EPOCH, epoch.to_be_bytes());
    put(batch, layout::BASE_SEQUENCE, base_sequence.to_be_bytes());
}

fn crc_of(batch: &[u8]) -> u32 {
    let field = batch[layout::CRC..].first_chunk().expect("a batch has a header");
    u32::from_be_bytes(*field)
}

fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}

fn position(at: usize) -> u32 {
    u32::try_from(at).expect("a batch is shorter than 4 GiB")
}

/// Bytes of `length` as a zig-zag varint.
fn varint_bytes(length: usize) -> usize {
    let bits = (usize::BITS - (length << 1).leading_zeros()).max(1) as usize;
    bits.div_ceil(7)
}

#[cfg(test)]
mod tests {
    use chronik_common::WallMs;
    use chronik_record::{BatchHeader, DecompressionLimits, records};
    use chronik_record::{ValidationLevel, ValidationRules, validate_batch};

    use super::*;

    fn shape(value_bytes: usize, codec: Codec) -> MessageShape {
        let (keys, payload) = (KeyPattern::Random, PayloadPattern::Random);
        MessageShape { value_bytes, keys, payload, codec, run: 9, writer: 3 }
    }

    fn stamp(runs: &[Run]) -> Stamp<'_> {
        Stamp { partition: 2, first_sequence: 500, runs, timestamp_ms: 1_000, producer: None }
    }

    #[test]
    fn every_stamped_batch_passes_the_full_validation_of_chronik_record() {
        let rules =
            ValidationRules { level: ValidationLevel::Full, ..ValidationRules::new(WallMs(1_000)) };
        for codec in Codec::ALL {
            for bytes in [24, 63, 64, 256, 8_191, 8_192] {
                let mut template = BatchTemplate::new(shape(bytes, codec), 40);
                // Large first: nothing of it may show in smaller ones.
                for (count, id) in [(40, None), (1, Some((77, 5))), (17, None), (2, Some((77, 5)))]
                {
                    let runs = [Run { intended: Moment(5), count }];
                    let stamp = Stamp { producer: id, ..stamp(&runs) };
                    let stamped = template.stamp(&stamp);
                    let valid = validate_batch(stamped.bytes, &rules).expect("it is valid");
                    assert_eq!(valid.header().crc, stamped.crc);
                    assert_eq!(valid.header().record_count as u32, count);
                    assert_eq!(valid.header().has_producer(), id.is_some());
                    valid.header().verify_crc(stamped.bytes).expect("the CRC is right");
                }
            }
        }
    }

    #[test]
    fn every_message_says_who_wrote_it_and_when_it_was_meant_to_go() {
        let shape = shape(100, Codec::None);
        let mut template = BatchTemplate::new(shape, 5);
        let runs = [Run { intended: Moment(10), count: 2 }, Run { intended: Moment(20), count: 1 }];
        let batch = template.stamp(&stamp(&runs)).bytes.to_vec();
        let limits = DecompressionLimits::output_bytes(1 << 20);
        let found: Vec<_> = records(&batch, limits)
            .unwrap()
            .iter()
            .map(|record| {
                let value = record.unwrap().value.unwrap().to_vec();
                assert!(ExpectedValue::of(&shape).is(&value));
                let identity = Identity::read(&value).unwrap();
                assert_eq!((identity.run, identity.writer), (9, 3));
                (identity.sequence, identity.intended.0)
            })
            .collect();
        assert_eq!(found, [(500, 10), (501, 10), (502, 20)]);
        let mut wrong = shape.filled_value();
        wrong[99] ^= 1;
        assert!(!ExpectedValue::of(&shape).is(&wrong));
        assert!(!ExpectedValue::of(&shape).is(&wrong[..20]));
    }

    #[test]
    fn the_same_stamp_gives_the_same_bytes_whatever_came_between() {
        let mut template = BatchTemplate::new(shape(64, Codec::None), 8);
        let runs = [Run { intended: Moment(1), count: 3 }];
        let first = template.stamp(&stamp(&runs)).bytes.to_vec();
        let other = [Run { intended: Moment(9), count: 8 }];
        template.stamp(&Stamp { first_sequence: 9_000, ..stamp(&other) });
        assert_eq!(template.stamp(&stamp(&runs)).bytes, first);
    }

    #[test]
    fn batches_stay_within_the_bytes_asked_for() {
        for (value, batch) in [(100, 16_384), (1_024, 65_536), (256, 1_000_000), (5_000, 100)] {
            let shape = shape(value, Codec::None);
            let count = BatchTemplate::messages_within(shape, batch);
            let size = BatchTemplate::new(shape, count).bytes.len();
            assert!(size <= batch || count == 1, "{size} bytes for {batch}");
            assert!(count == 1 || size > batch * 9 / 10, "{size} bytes for {batch}");
        }
    }

    #[test]
    fn sequences_of_idempotent_producers_wrap_to_zero() {
        let mut template = BatchTemplate::new(shape(24, Codec::None), 1);
        let runs = [Run { intended: Moment(0), count: 1 }];
        let first_sequence = 1 << 31;
        let stamp = Stamp { first_sequence, producer: Some((1, 0)), ..stamp(&runs) };
        let header = BatchHeader::parse(template.stamp(&stamp).bytes).unwrap();
        assert_eq!(header.base_sequence, 0);
    }
}
