//! Random numbers that tell one use of a segment file from another.

use std::sync::{Arc, Mutex};

use chronik_common::Rng;

/// Source of segment nonces; clones share it.
#[derive(Clone)]
pub struct NonceSource {
    rng: Arc<Mutex<Box<dyn Rng>>>,
}

impl NonceSource {
    /// Nonces drawn from `rng`.
    #[must_use]
    pub fn new(rng: Box<dyn Rng>) -> Self {
        Self { rng: Arc::new(Mutex::new(rng)) }
    }

    /// A nonce; never 0, which marks journal copies.
    #[must_use]
    pub fn next(&self) -> u32 {
        let mut rng = self.rng.lock().expect("no holder of the generator panics");
        loop {
            let nonce = rng.next_u64() as u32;
            if nonce != 0 {
                return nonce;
            }
        }
    }
}
