//! Random messages from a seed, for property tests, foreign oracles and fuzz seeds.

use std::borrow::Cow;

use bytes::Bytes;
use chronik_common::{Rng, SeededRng, Uuid};

use crate::records::Records;

/// Draws field values: mostly small, often at the edges of their type. One seed gives one
/// sequence.
#[derive(Debug)]
pub struct Sampler {
    rng: SeededRng,
}

const ARRAY_ELEMENTS_MAX: u64 = 3;
const STRING_CHARACTERS_MAX: u64 = 20;
const RECORDS_BYTES_MAX: u64 = 2_000;

/// Defines one method an integer type.
macro_rules! integers {
    ($($type:ident,)*) => {
        $(
            #[doc = concat!("Any `", stringify!($type), "`; one in two is small or extreme.")]
            pub fn $type(&mut self) -> $type {
                match self.rng.below(8) {
                    0 => $type::MIN,
                    1 => $type::MAX,
                    2 | 3 => self.rng.below(100) as $type,
                    _ => self.rng.next_u64() as $type,
                }
            }
        )*
    };
}

impl Sampler {
    /// A sampler whose whole sequence follows from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { rng: SeededRng::new(seed) }
    }

    integers! { i8, i16, i32, i64, u16, u32, }

    /// True or false.
    pub fn bool(&mut self) -> bool {
        self.rng.below(2) == 1
    }

    /// A finite number.
    pub fn f64(&mut self) -> f64 {
        f64::from(self.i32()) / 8.0
    }

    /// Zero or any id.
    pub fn uuid(&mut self) -> Uuid {
        if self.rng.below(4) == 0 { Uuid::ZERO } else { Uuid::random(&mut self.rng) }
    }

    /// Text of one-byte and longer characters; may be empty. One in sixteen is long enough that
    /// its compact length takes two bytes.
    pub fn string<'a>(&mut self) -> Cow<'a, str> {
        let factor = if self.rng.below(16) == 0 { 20 } else { 1 };
        let count = self.rng.below(STRING_CHARACTERS_MAX + 1) * factor;
        let alphabet = ['a', 'Z', '7', '.', '-', '_', ' ', '\u{e9}', '\u{4e16}', '\u{10348}'];
        (0..count).map(|_| alphabet[self.rng.below(alphabet.len() as u64) as usize]).collect()
    }

    /// Any bytes; may be empty.
    pub fn bytes<'a>(&mut self) -> Cow<'a, [u8]> {
        let count = self.rng.below(RECORDS_BYTES_MAX + 1);
        (0..count).map(|_| self.rng.next_u64() as u8).collect()
    }

    /// Any bytes in no, one or several slices.
    pub fn records<'a>(&mut self) -> Records<'a> {
        match self.rng.below(4) {
            0 => Records::EMPTY,
            1 => Records::Chain((0..self.rng.below(4)).map(|_| self.shared()).collect()),
            _ => Records::Shared(self.shared()),
        }
    }

    /// Null one time in four, where it is allowed.
    pub fn optional<T>(&mut self, nullable: bool, value: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if nullable && self.rng.below(4) == 0 { None } else { Some(value(self)) }
    }

    /// A few elements or none.
    pub fn array<T>(&mut self, mut element: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let count = self.rng.below(ARRAY_ELEMENTS_MAX + 1);
        (0..count).map(|_| element(self)).collect()
    }

    fn shared(&mut self) -> Bytes {
        Bytes::from(self.bytes().into_owned())
    }
}
