//! Everything that reads bytes from outside, as functions from arbitrary bytes to "no panic, no
//! contradiction, bounded memory".
//!
//! Owns the targets ([`TARGETS`]), their seeds and the allocation oracle. Does not own the
//! fuzzer: `bin/fuzzer.rs` drives a target with libFuzzer, `bin/replay.rs` runs the checked-in
//! corpus with nothing but this library, `bin/seeds.rs` writes the seeds. All three are reached
//! through `cargo xtask fuzz`.
//!
//! A target panics on what must not happen; everything else is a pass. It is deterministic and
//! keeps nothing between inputs.

pub mod allocation;
mod targets;

/// One entry point for arbitrary bytes.
#[derive(Debug)]
pub struct Target {
    /// Name on the command line and of its corpus directory.
    pub name: &'static str,
    /// Runs one input; panics on a finding.
    pub run: fn(&[u8]),
    /// Well-formed inputs to start from, with file names, made by our own encoders.
    pub seeds: fn() -> Vec<Seed>,
}

/// A well-formed input.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seed {
    /// File name in the corpus.
    pub name: String,
    /// The input.
    pub bytes: Vec<u8>,
}

impl Seed {
    fn new(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self { name: name.into(), bytes: bytes.into() }
    }
}

/// Every target of the product.
pub static TARGETS: &[Target] = &[
    targets::frame_splitter::TARGET,
    targets::request::TARGET,
    targets::batch_validation::TARGET,
    targets::legacy_message_set::TARGET,
    targets::record_iterator::TARGET,
    targets::decompression::GZIP,
    targets::decompression::SNAPPY,
    targets::decompression::LZ4,
    targets::decompression::ZSTD,
    targets::config_file::TARGET,
    targets::wal_recovery::TARGET,
];

/// A target with a bug in it, which the fuzzer has to find: the test of the whole arrangement.
/// Not among [`TARGETS`].
pub static PLANTED_BUG: &Target = &targets::planted_bug::TARGET;

/// The target with this name, the planted bug included.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().chain([PLANTED_BUG]).find(|target| target.name == name)
}
