//! Idempotent producers: which batches of which producer are in the log (KIP-98, KIP-360).
//!
//! Derived from the log alone: rebuilt from the newest state snapshot plus the batches behind
//! it, truncated with the log. Per producer the epoch and the last five batches are kept, as in
//! Kafka's `ProducerStateEntry`: clients have at most five requests in flight.

use std::collections::{BTreeMap, VecDeque};

use chronik_common::{Offset, ProducerId};
use chronik_record::BatchHeader;
use prost::Message;

/// Batches remembered per producer.
const BATCHES_MAX: usize = 5;

/// Why a producer's batch does not fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProducerError {
    /// A newer incarnation of the producer has written.
    #[error("producer epoch {asked} is older than {current}")]
    StaleEpoch {
        /// The batch's.
        asked: i16,
        /// The newest seen.
        current: i16,
    },
    /// Neither the next batch nor one of the last five.
    #[error("sequence {asked} is not the successor of {last}")]
    OutOfOrder {
        /// The batch's first sequence.
        asked: i32,
        /// The last sequence in the log; -1 if the epoch is new.
        last: i32,
    },
}

/// What to do with a producer's batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ProducerVerdict {
    /// It goes into the log.
    Append,
    /// It is there already, ending before `end_offset`.
    Duplicate { base_offset: Offset, end_offset: Offset, timestamp: i64 },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct KnownBatch {
    first_sequence: i32,
    last_sequence: i32,
    base_offset: Offset,
    end_offset: Offset,
    timestamp: i64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Producer {
    epoch: i16,
    /// Oldest first.
    batches: VecDeque<KnownBatch>,
    last_append_ms: i64,
}

/// The idempotent producers of one partition.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct ProducerState {
    producers: BTreeMap<ProducerId, Producer>,
}

impl ProducerState {
    /// Judges a batch against what is in the log, before it is appended.
    pub(crate) fn check(&self, batch: &BatchHeader) -> Result<ProducerVerdict, ProducerError> {
        if !batch.has_producer() {
            return Ok(ProducerVerdict::Append);
        }
        // A producer the log does not know may continue at any sequence (KIP-360).
        let Some(producer) = self.producers.get(&batch.producer_id) else {
            return Ok(ProducerVerdict::Append);
        };
        if batch.producer_epoch < producer.epoch {
            let asked = batch.producer_epoch;
            return Err(ProducerError::StaleEpoch { asked, current: producer.epoch });
        }
        if batch.producer_epoch > producer.epoch {
            return if batch.base_sequence == 0 {
                Ok(ProducerVerdict::Append)
            } else {
                Err(ProducerError::OutOfOrder { asked: batch.base_sequence, last: -1 })
            };
        }
        let is_same = |known: &&KnownBatch| {
            known.first_sequence == batch.base_sequence
                && known.last_sequence == batch.last_sequence()
        };
        if let Some(known) = producer.batches.iter().find(is_same) {
            return Ok(ProducerVerdict::Duplicate {
                base_offset: known.base_offset,
                end_offset: known.end_offset,
                timestamp: known.timestamp,
            });
        }
        let last = producer.batches.back().map_or(-1, |known| known.last_sequence);
        if follows(last, batch.base_sequence) || producer.batches.is_empty() {
            Ok(ProducerVerdict::Append)
        } else {
            Err(ProducerError::OutOfOrder { asked: batch.base_sequence, last })
        }
    }

    /// Notes a batch that [`ProducerState::check`] let into the log.
    pub(crate) fn note_appended(&mut self, batch: &BatchHeader, append_ms: i64) {
        if let Some(producer) =
            self.producers.get(&batch.producer_id).filter(|_| batch.has_producer())
        {
            assert!(
                producer.epoch <= batch.producer_epoch,
                "an append of {} goes back from producer epoch {}: {batch:?}",
                batch.producer_id,
                producer.epoch
            );
            let last = producer.batches.back();
            assert!(
                last.is_none_or(|last| last.end_offset <= batch.base_offset),
                "{batch:?} lies before the producer's last batch, {last:?}"
            );
            assert!(
                producer.epoch < batch.producer_epoch
                    || last.is_none_or(|last| follows(last.last_sequence, batch.base_sequence)),
                "{batch:?} leaves out sequences behind {last:?}"
            );
        }
        self.note(batch, append_ms);
    }

    /// Notes a batch that is in the log at its base offset.
    pub(crate) fn note(&mut self, batch: &BatchHeader, append_ms: i64) {
        // Control batches never touch sequences.
        if !batch.has_producer() || batch.attributes.is_control() {
            return;
        }
        let producer = self.producers.entry(batch.producer_id).or_insert_with(|| Producer {
            epoch: batch.producer_epoch,
            batches: VecDeque::with_capacity(BATCHES_MAX),
            last_append_ms: append_ms,
        });
        if producer.epoch != batch.producer_epoch {
            producer.epoch = batch.producer_epoch;
            producer.batches.clear();
        }
        if producer.batches.len() == BATCHES_MAX {
            producer.batches.pop_front();
        }
        producer.batches.push_back(KnownBatch {
            first_sequence: batch.base_sequence,
            last_sequence: batch.last_sequence(),
            base_offset: batch.base_offset,
            end_offset: batch.next_offset(),
            timestamp: batch.max_timestamp,
        });
        assert!(
            producer.batches.len() <= BATCHES_MAX,
            "{} batches of {} are remembered",
            producer.batches.len(),
            batch.producer_id
        );
        producer.last_append_ms = append_ms;
    }

    /// Forgets producers that have not written since `before_ms`.
    pub(crate) fn expire(&mut self, before_ms: i64) {
        self.producers.retain(|_, producer| producer.last_append_ms >= before_ms);
    }

    /// The state as bytes for a snapshot.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let producers = self.producers.iter().map(|(id, producer)| StoredProducer {
            id: id.0,
            epoch: i32::from(producer.epoch),
            last_append_ms: producer.last_append_ms,
            batches: producer
                .batches
                .iter()
                .map(|known| StoredBatch {
                    first_sequence: known.first_sequence,
                    last_sequence: known.last_sequence,
                    base_offset: known.base_offset.0,
                    end_offset: known.end_offset.0,
                    timestamp: known.timestamp,
                })
                .collect(),
        });
        StoredProducers { producers: producers.collect() }.encode_to_vec()
    }

    /// The state of a log that ends at `end`, from [`ProducerState::encode`]; `None` if the bytes
    /// are not one.
    pub(crate) fn decode(bytes: &[u8], end: Offset) -> Option<Self> {
        let stored = StoredProducers::decode(bytes).ok()?;
        let mut state = Self::default();
        for producer in stored.producers {
            let batches = producer.batches.iter().map(|batch| KnownBatch {
                first_sequence: batch.first_sequence,
                last_sequence: batch.last_sequence,
                base_offset: Offset(batch.base_offset),
                end_offset: Offset(batch.end_offset),
                timestamp: batch.timestamp,
            });
            let known = Producer {
                epoch: i16::try_from(producer.epoch).ok()?,
                batches: batches.collect(),
                last_append_ms: producer.last_append_ms,
            };
            if known.batches.len() > BATCHES_MAX
                || known.batches.iter().any(|batch| batch.end_offset > end)
            {
                return None;
            }
            state.producers.insert(ProducerId(producer.id), known);
        }
        Some(state)
    }
}

/// True if a batch that begins with `first` comes right behind one that ends with `last`.
fn follows(last: i32, first: i32) -> bool {
    first == if last == i32::MAX { 0 } else { last + 1 }
}

#[derive(Clone, PartialEq, Message)]
struct StoredProducers {
    #[prost(message, repeated, tag = "1")]
    producers: Vec<StoredProducer>,
}

#[derive(Clone, PartialEq, Message)]
struct StoredProducer {
    #[prost(int64, tag = "1")]
    id: i64,
    #[prost(int32, tag = "2")]
    epoch: i32,
    #[prost(message, repeated, tag = "3")]
    batches: Vec<StoredBatch>,
    #[prost(int64, tag = "4")]
    last_append_ms: i64,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct StoredBatch {
    #[prost(int32, tag = "1")]
    first_sequence: i32,
    #[prost(int32, tag = "2")]
    last_sequence: i32,
    #[prost(int64, tag = "3")]
    base_offset: i64,
    #[prost(int64, tag = "4")]
    end_offset: i64,
    #[prost(int64, tag = "5")]
    timestamp: i64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use chronik_record::{BatchBuilder, Codec};

    fn batch(epoch: i16, sequence: i32, records: i32, base_offset: i64) -> BatchHeader {
        let mut builder = BatchBuilder::new(Codec::None).base_offset(Offset(base_offset)).producer(
            ProducerId(7),
            epoch,
            sequence,
        );
        for _ in 0..records {
            builder.append(1_000, None, Some(b"v"), &[]);
        }
        BatchHeader::parse(&builder.build()).unwrap()
    }

    fn with(batches: &[BatchHeader]) -> ProducerState {
        let mut state = ProducerState::default();
        for batch in batches {
            assert_eq!(state.check(batch), Ok(ProducerVerdict::Append), "{batch:?}");
            state.note(batch, 1_000);
        }
        state
    }

    /// Kafka: `ProducerStateManagerTest`.
    #[test]
    fn the_last_five_batches_are_duplicates_and_older_ones_out_of_order() {
        let batches: Vec<_> = (0..6).map(|n| batch(0, n * 10, 10, i64::from(n) * 10)).collect();
        let state = with(&batches);
        for known in &batches[1..] {
            let expected = ProducerVerdict::Duplicate {
                base_offset: known.base_offset,
                end_offset: known.next_offset(),
                timestamp: 1_000,
            };
            assert_eq!(state.check(known), Ok(expected));
        }
        assert_eq!(state.check(&batches[0]), Err(ProducerError::OutOfOrder { asked: 0, last: 59 }));
        assert!(state.check(&batch(0, 61, 1, 60)).is_err());
        assert_eq!(state.check(&batch(0, 60, 1, 60)), Ok(ProducerVerdict::Append));
    }

    #[test]
    fn epochs_fence_and_a_new_epoch_starts_at_sequence_zero() {
        let state = with(&[batch(3, 0, 1, 0)]);
        assert_eq!(
            state.check(&batch(2, 1, 1, 1)),
            Err(ProducerError::StaleEpoch { asked: 2, current: 3 })
        );
        assert!(state.check(&batch(4, 5, 1, 1)).is_err());
        assert_eq!(state.check(&batch(4, 0, 1, 1)), Ok(ProducerVerdict::Append));
    }

    #[test]
    fn sequences_wrap_to_zero_and_an_unknown_producer_may_start_anywhere() {
        let state = with(&[batch(0, i32::MAX, 1, 0)]);
        assert_eq!(state.check(&batch(0, 0, 1, 1)), Ok(ProducerVerdict::Append));
        assert_eq!(
            ProducerState::default().check(&batch(0, 77, 1, 0)),
            Ok(ProducerVerdict::Append)
        );
    }

    #[test]
    fn the_state_survives_its_snapshot_and_expires_by_time() {
        let state = with(&[batch(0, 0, 1, 0), batch(0, 1, 1, 1)]);
        let mut restored = ProducerState::decode(&state.encode(), Offset(2)).unwrap();
        assert_eq!(restored, state);
        restored.expire(1_000);
        assert_eq!(restored, state);
        restored.expire(1_001);
        assert_eq!(restored, ProducerState::default());
    }
}
