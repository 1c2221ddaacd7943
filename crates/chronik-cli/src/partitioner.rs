//! Which partition a record goes to, as Kafka's Java producer decides it.
//!
//! A record with a key goes to `toPositive(murmur2(key)) % partitions`, so that every client
//! agrees on the place of a key. Records without a key share a partition until a batch is sent
//! and then move on to the next one, so that batches stay large and partitions even.
//! Source: `org.apache.kafka.clients.producer.internals.BuiltInPartitioner`,
//! `org.apache.kafka.common.utils.Utils.murmur2`.

/// Java's `murmur2`: 32-bit MurmurHash2 with Kafka's seed.
#[must_use]
pub fn murmur2(data: &[u8]) -> i32 {
    const SEED: u32 = 0x9747_b28c;
    const MULTIPLIER: u32 = 0x5bd1_e995;
    const SHIFT: u32 = 24;

    // Java's array lengths are ints; a longer key cannot be sent.
    let mut hash = SEED ^ data.len() as u32;
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let mut mixed = u32::from_le_bytes(*word).wrapping_mul(MULTIPLIER);
        mixed ^= mixed >> SHIFT;
        hash = hash.wrapping_mul(MULTIPLIER) ^ mixed.wrapping_mul(MULTIPLIER);
    }
    if !tail.is_empty() {
        for (index, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(MULTIPLIER);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MULTIPLIER);
    (hash ^ (hash >> 15)) as i32
}

/// The partition of a key in a topic of `partition_count` partitions.
///
/// # Panics
/// If there is no partition.
#[must_use]
pub fn partition_of_key(key: &[u8], partition_count: i32) -> i32 {
    assert!(partition_count > 0, "a topic has partitions, not {partition_count}");
    (murmur2(key) & i32::MAX) % partition_count
}

/// The partition of records without a key: the same until it is told that a batch left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StickyPartition {
    current: i32,
    partition_count: i32,
}

impl StickyPartition {
    /// Starts at a partition that `seed` decides, so that many short runs spread out, too.
    pub(crate) fn new(partition_count: i32, seed: u64) -> Self {
        assert!(partition_count > 0, "a topic has partitions, not {partition_count}");
        let current = (seed % u64::from(partition_count.unsigned_abs())) as i32;
        Self { current, partition_count }
    }

    /// Where the next record goes.
    pub(crate) fn current(self) -> i32 {
        self.current
    }

    /// Moves on if the batch that left was of the current partition.
    pub(crate) fn on_batch_sent(&mut self, partition: i32) {
        if partition == self.current {
            self.current = (self.current + 1) % self.partition_count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors of Kafka's `UtilsTest.testMurmur2`.
    #[test]
    fn murmur2_is_javas() {
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()), hash, "{key}");
        }
    }

    #[test]
    fn a_negative_hash_still_names_a_partition() {
        assert_eq!(partition_of_key(b"foobar", 1_000), (-790_332_482 & i32::MAX) % 1_000);
        for count in 1..50 {
            assert!((0..count).contains(&partition_of_key(b"21", count)), "{count}");
        }
    }

    #[test]
    fn records_without_a_key_share_a_partition_until_its_batch_left() {
        let mut sticky = StickyPartition::new(3, 5);
        assert_eq!(sticky.current(), 2);
        sticky.on_batch_sent(0);
        assert_eq!(sticky.current(), 2, "a keyed batch of another partition left");
        sticky.on_batch_sent(2);
        assert_eq!(sticky.current(), 0);
    }
}
