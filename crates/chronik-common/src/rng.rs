//! Randomness as an injected collaborator, so that one seed replays one history.

/// Source of random bits.
pub trait Rng: Send + 'static {
    /// 64 uniformly distributed bits.
    fn next_u64(&mut self) -> u64;

    /// A number in `0..bound`; `bound` must not be 0. The bias is below 2^-32 for bounds
    /// below 2^32.
    fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "an empty range has no member");
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }
}

/// The operating system's generator; for production.
#[derive(Debug, Default)]
pub struct OsRng;

impl Rng for OsRng {
    fn next_u64(&mut self) -> u64 {
        getrandom::u64().expect("the operating system provides random bytes")
    }
}

/// A deterministic generator (SplitMix64); for simulation and tests, not for secrets.
#[derive(Clone, Debug)]
pub struct SeededRng {
    state: u64,
}

impl SeededRng {
    /// A generator whose whole sequence follows from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }
}

impl Rng for SeededRng {
    fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_sequence_and_below_stays_below() {
        let (mut a, mut b) = (SeededRng::new(42), SeededRng::new(42));
        for bound in 1..1_000 {
            let value = a.below(bound);
            assert_eq!(value, b.below(bound));
            assert!(value < bound, "{value} must be below {bound}");
        }
    }
}
