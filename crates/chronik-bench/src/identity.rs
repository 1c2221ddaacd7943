//! What every message of this tool carries at the start of its value, so that whoever reads it
//! knows who wrote it, in which order, and when it was meant to be sent.
//!
//! ```text
//!   0     4        8            16             24
//!   +-----+--------+------------+--------------+- - - - -
//!   | run | writer | sequence 8 | intended   8 | filler
//!   |   4 |      4 |            |              |
//!   +-----+--------+------------+--------------+- - - - -
//! ```
//!
//! Integers are big-endian. `sequence` counts the messages of one writer to one partition, from
//! 0 and without gaps, in the order in which they must appear in the log. `intended` is in
//! nanoseconds on the clock of the run that wrote it.

use crate::clock::Moment;

/// Who wrote a message, and which one it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Number of the run, random.
    pub run: u32,
    /// Number of the writing connection, from 0.
    pub writer: u32,
    /// Number of the message among the writer's messages to its partition, from 0.
    pub sequence: u64,
    /// When the message should have been sent.
    pub intended: Moment,
}

const _: () = assert!(Identity::SIZE == 24);

impl Identity {
    /// Bytes of an identity: the smallest message that can be verified.
    pub const SIZE: usize = 24;
    /// Where `sequence` starts.
    pub const SEQUENCE: usize = 8;
    /// Where `intended` starts.
    pub const INTENDED: usize = 16;

    /// Writes the identity to the start of `value`.
    ///
    /// # Panics
    /// If `value` is shorter than [`SIZE`](Self::SIZE).
    pub fn write(&self, value: &mut [u8]) {
        value[0..4].copy_from_slice(&self.run.to_be_bytes());
        value[4..8].copy_from_slice(&self.writer.to_be_bytes());
        value[Self::SEQUENCE..Self::INTENDED].copy_from_slice(&self.sequence.to_be_bytes());
        value[Self::INTENDED..Self::SIZE].copy_from_slice(&self.intended.0.to_be_bytes());
    }

    /// Reads the identity at the start of `value`; `None` if it is too short for one.
    #[must_use]
    pub fn read(value: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::SIZE] = value.first_chunk()?;
        let word = |at: usize| -> [u8; 8] {
            *bytes[at..].first_chunk().expect("both words lie inside the identity")
        };
        let half = |at: usize| -> [u8; 4] {
            *bytes[at..].first_chunk().expect("both halves lie inside the identity")
        };
        Some(Self {
            run: u32::from_be_bytes(half(0)),
            writer: u32::from_be_bytes(half(4)),
            sequence: u64::from_be_bytes(word(Self::SEQUENCE)),
            intended: Moment(u64::from_be_bytes(word(Self::INTENDED))),
        })
    }
}

/// Mixes `value` so that every bit of the result depends on every bit of it (SplitMix64).
#[must_use]
pub fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_read_as_it_was_written() {
        let identity =
            Identity { run: 0xdead_beef, writer: 7, sequence: u64::MAX - 1, intended: Moment(42) };
        let mut value = [0xff; 30];
        identity.write(&mut value);
        assert_eq!(Identity::read(&value), Some(identity));
        assert_eq!(Identity::read(&value[..23]), None);
        assert_eq!(value[24..], [0xff; 6]);
    }
}
