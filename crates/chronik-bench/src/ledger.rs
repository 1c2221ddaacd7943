//! What a writer remembers of what was acknowledged: a few numbers per partition, however many
//! messages there were.
//!
//! The sum over all acknowledged batches of a hash of their place, identity and checksum does
//! not depend on the order in which acknowledgements arrive, and equals the same sum over the
//! batches read back only if each of them is where it was acknowledged, with the bytes that were
//! sent. A writer that is not told which batches its messages went in adds every message by itself,
//! with the checksum 0. Sequences that are not known to be stored are listed, so that the read back may find
//! them or not.

use std::ops::Range;

use crate::identity::mix;

/// Sum of hashes of batches; adding is commutative.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LogSum {
    /// Of places and identities.
    pub place: u64,
    /// Of places, identities and checksums.
    pub content: u64,
}

/// One batch, as the sum sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchPlace {
    /// Offset of the first message; 0 where offsets are not known (acks 0).
    pub base_offset: i64,
    /// Number of the writing connection.
    pub writer: u32,
    /// Sequence of the first message.
    pub first_sequence: u64,
    /// Messages in the batch.
    pub count: u32,
    /// CRC-32C of the batch header.
    pub crc: u32,
}

impl LogSum {
    /// Adds a batch.
    pub fn add(&mut self, batch: &BatchPlace) {
        let mut place = mix(batch.base_offset as u64);
        place = mix(place ^ u64::from(batch.writer) << 32 ^ u64::from(batch.count));
        place = mix(place ^ batch.first_sequence);
        self.place = self.place.wrapping_add(place);
        self.content = self.content.wrapping_add(mix(place ^ u64::from(batch.crc)));
    }

    /// Adds everything that was added to `other`.
    pub fn merge(&mut self, other: Self) {
        self.place = self.place.wrapping_add(other.place);
        self.content = self.content.wrapping_add(other.content);
    }
}

/// What one writer remembers of one partition.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LaneLedger {
    /// Index of the partition.
    pub partition: i32,
    /// Number of the writing connection.
    pub writer: u32,
    /// Sequences 0 to this, exclusive, were sent.
    pub next_sequence: u64,
    /// Of those, the ones whose fate is not known or that were refused. Ascending.
    pub unresolved: Vec<Range<u64>>,
    /// Sum over the acknowledged batches.
    pub sum: LogSum,
    /// Offset behind the last acknowledged message; 0 without one.
    pub acknowledged_end: i64,
    /// False if a batch was acknowledged without its offset.
    pub has_offsets: bool,
    /// True if the sum is over messages instead of batches.
    pub counts_messages: bool,
}

impl LaneLedger {
    /// A ledger without entries.
    #[must_use]
    pub fn new(partition: i32, writer: u32) -> Self {
        Self { partition, writer, has_offsets: true, ..Self::default() }
    }

    /// A ledger without entries of a writer that knows nothing of batches.
    #[must_use]
    #[cfg_attr(not(feature = "rdkafka"), allow(dead_code, reason = "only librdkafka needs it"))]
    pub fn of_messages(partition: i32, writer: u32) -> Self {
        Self { counts_messages: true, ..Self::new(partition, writer) }
    }

    /// Notes a batch that the broker acknowledged at `batch.base_offset`; a negative offset says
    /// that the place is not known.
    pub fn acknowledge(&mut self, batch: &BatchPlace) {
        if batch.base_offset < 0 {
            self.has_offsets = false;
            self.sum.add(&BatchPlace { base_offset: 0, ..*batch });
            return;
        }
        self.sum.add(batch);
        let end = batch.base_offset.saturating_add(i64::from(batch.count));
        self.acknowledged_end = self.acknowledged_end.max(end);
    }

    /// Notes messages that may or may not be stored.
    pub fn leave_unresolved(&mut self, sequences: Range<u64>) {
        let at = self.unresolved.partition_point(|range| range.start < sequences.start);
        match at.checked_sub(1).map(|before| &mut self.unresolved[before]) {
            Some(before) if before.end == sequences.start => before.end = sequences.end,
            _ => self.unresolved.insert(at, sequences),
        }
    }

    /// True if nothing is known about the fate of `sequence`.
    #[must_use]
    pub fn is_unresolved(&self, sequence: u64) -> bool {
        let at = self.unresolved.partition_point(|range| range.end <= sequence);
        self.unresolved.get(at).is_some_and(|range| range.contains(&sequence))
    }

    /// Messages that were acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        let unresolved: u64 = self.unresolved.iter().map(|range| range.end - range.start).sum();
        self.next_sequence - unresolved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BATCH: BatchPlace =
        BatchPlace { base_offset: 10, writer: 1, first_sequence: 5, count: 3, crc: 0xabcd };

    fn sum(batches: &[BatchPlace]) -> LogSum {
        let mut sum = LogSum::default();
        batches.iter().for_each(|batch| sum.add(batch));
        sum
    }

    #[test]
    fn the_sum_ignores_the_order_of_acknowledgements_and_nothing_else() {
        let other = BatchPlace { base_offset: 13, first_sequence: 8, ..BATCH };
        let expected = sum(&[BATCH, other]);
        assert_eq!(sum(&[other, BATCH]), expected);
        for changed in [
            BatchPlace { base_offset: 11, ..BATCH },
            BatchPlace { writer: 2, ..BATCH },
            BatchPlace { first_sequence: 6, ..BATCH },
            BatchPlace { count: 4, ..BATCH },
        ] {
            assert_ne!(sum(&[changed, other]).place, expected.place, "{changed:?}");
        }
        let corrupt = sum(&[BatchPlace { crc: 0xabce, ..BATCH }, other]);
        assert_eq!(corrupt.place, expected.place);
        assert_ne!(corrupt.content, expected.content);
        // Two batches that swapped places are not the same log.
        let swapped =
            [BatchPlace { base_offset: 13, ..BATCH }, BatchPlace { base_offset: 10, ..other }];
        assert_ne!(sum(&swapped), expected);
        let mut merged = sum(&[BATCH]);
        merged.merge(sum(&[other]));
        assert_eq!(merged, expected);
    }

    #[test]
    fn unresolved_sequences_are_neither_acknowledged_nor_forgotten() {
        let mut ledger = LaneLedger::new(0, 0);
        ledger.next_sequence = 100;
        ledger.leave_unresolved(50..59);
        ledger.leave_unresolved(10..11);
        ledger.leave_unresolved(59..60);
        assert_eq!((ledger.acknowledged(), ledger.unresolved.len()), (89, 2));
        for (sequence, is_unresolved) in
            [(9, false), (10, true), (11, false), (59, true), (60, false)]
        {
            assert_eq!(ledger.is_unresolved(sequence), is_unresolved, "{sequence}");
        }
    }
}
