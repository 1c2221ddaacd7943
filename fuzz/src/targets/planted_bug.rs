//! A bug behind a magic number, a length and a tag.
//!
//! Blind mutation needs about 2^64 tries to get there; a fuzzer that sees coverage and
//! comparisons needs seconds. If this is not found, the instrumentation is broken and a clean run
//! of the other targets says nothing.

use crate::{Seed, Target};

pub(crate) const TARGET: Target = Target { name: "planted_bug", run, seeds };

fn run(input: &[u8]) {
    let Some((magic, rest)) = input.split_first_chunk() else { return };
    if u32::from_be_bytes(*magic) != 0x4348_524b {
        return;
    }
    let Some((length, rest)) = rest.split_first_chunk() else { return };
    let length = usize::from(u16::from_be_bytes(*length));
    let Some(body) = rest.get(..length).filter(|body| body.len() > 4) else { return };
    if body.starts_with(b"tag") {
        let values = [1_u8, 2, 3, 4];
        let index = usize::from(body[3]);
        assert!(index < values.len(), "planted: index {index}");
    }
}

fn seeds() -> Vec<Seed> {
    vec![Seed::new("nothing", [0])]
}
