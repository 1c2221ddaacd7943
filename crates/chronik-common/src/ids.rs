//! Names of things: nodes, topics, partitions, producers.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A broker's id. Legal values are 0..=i32::MAX; -1 means "none" on the Kafka wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct NodeId(pub i32);

impl NodeId {
    /// "No node" on the Kafka wire.
    pub const NONE: Self = Self(-1);
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Number of a partition inside its topic, from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct PartitionIndex(pub i32);

impl fmt::Display for PartitionIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An idempotent or transactional producer's id, unique in the cluster. -1 means "none".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ProducerId(pub i64);

impl ProducerId {
    /// "Not idempotent" in a record batch.
    pub const NONE: Self = Self(-1);
}

impl fmt::Display for ProducerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// 128 bits that name something for ever. Printed as Kafka prints it: URL-safe base64 without
/// padding, 22 characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Uuid(pub [u8; 16]);

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl Uuid {
    /// All bits zero: "no id" on the Kafka wire.
    pub const ZERO: Self = Self([0; 16]);

    /// A random (version 4) id from `rng`. Never one of Kafka's reserved ids, and never one
    /// whose text form starts with a dash (`org.apache.kafka.common.Uuid.randomUuid`).
    pub fn random(rng: &mut dyn crate::Rng) -> Self {
        loop {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&rng.next_u64().to_be_bytes());
            bytes[8..].copy_from_slice(&rng.next_u64().to_be_bytes());
            bytes[6] = (bytes[6] & 0x0f) | 0x40;
            bytes[8] = (bytes[8] & 0x3f) | 0x80;
            let id = Self(bytes);
            if !id.to_string().starts_with('-') {
                return id;
            }
        }
    }

    /// True for the id that means "none".
    #[must_use]
    pub fn is_zero(self) -> bool {
        self == Self::ZERO
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bits = u128::from_be_bytes(self.0);
        let mut text = [0_u8; 22];
        // 22 characters carry 132 bits; base64 puts the four spare zero bits at the end.
        text[21] = BASE64[((bits & 0x3) << 4) as usize];
        bits >>= 2;
        for slot in text[..21].iter_mut().rev() {
            *slot = BASE64[(bits & 0x3f) as usize];
            bits >>= 6;
        }
        f.write_str(std::str::from_utf8(&text).expect("the base64 alphabet is ASCII"))
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that is not a 22-character URL-safe base64 id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InvalidUuid;

impl fmt::Display for InvalidUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a 22-character base64 id")
    }
}

impl std::error::Error for InvalidUuid {}

impl FromStr for Uuid {
    type Err = InvalidUuid;

    fn from_str(text: &str) -> Result<Self, InvalidUuid> {
        let text = text.as_bytes();
        if text.len() != 22 {
            return Err(InvalidUuid);
        }
        let mut bits: u128 = 0;
        for (index, character) in text.iter().enumerate() {
            let value = BASE64.iter().position(|c| c == character).ok_or(InvalidUuid)? as u128;
            if index < 21 {
                bits = (bits << 6) | value;
            } else if value & 0xf == 0 {
                bits = (bits << 2) | (value >> 4);
            } else {
                return Err(InvalidUuid);
            }
        }
        Ok(Self(bits.to_be_bytes()))
    }
}

/// A topic's id: never reused, so a topic deleted and created again under the same name is
/// another topic (KIP-516).
pub type TopicId = Uuid;

/// A partition by topic name. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TopicPartition {
    /// Topic name, in Kafka's legal set.
    pub topic: Arc<str>,
    /// Partition number.
    pub partition: PartitionIndex,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SeededRng;

    #[test]
    fn uuid_text_is_kafkas_url_safe_base64() {
        // org.apache.kafka.common.UuidTest: the metadata topic's id is (0, 1).
        let mut bytes = [0; 16];
        bytes[15] = 1;
        assert_eq!(Uuid(bytes).to_string(), "AAAAAAAAAAAAAAAAAAAAAQ");
        assert_eq!("AAAAAAAAAAAAAAAAAAAAAQ".parse(), Ok(Uuid(bytes)));
        assert_eq!(Uuid([0xff; 16]).to_string(), "_____________________w");
    }

    #[test]
    fn uuid_text_round_trips() {
        let mut rng = SeededRng::new(7);
        for _ in 0..1_000 {
            let id = Uuid::random(&mut rng);
            assert_eq!(id.to_string().parse(), Ok(id));
            assert!(!id.is_zero());
        }
    }

    #[test]
    fn uuid_text_with_wrong_length_alphabet_or_spare_bits_is_refused() {
        for text in ["", "AAAA", "AAAAAAAAAAAAAAAAAAAAA+", "AAAAAAAAAAAAAAAAAAAAAR"] {
            assert_eq!(text.parse::<Uuid>(), Err(InvalidUuid), "{text:?}");
        }
    }
}
