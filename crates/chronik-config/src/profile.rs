//! The three named sets of defaults.

use crate::kind::Named;

/// A named set of defaults, one layer above the built-in values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Profile {
    /// Short group commits: lower tail latency at the cost of more syncs under load.
    Latency,
    /// The built-in values.
    Balanced,
    /// Large group commits and large writes: fewer syncs and system calls per byte.
    Throughput,
}

impl Named for Profile {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("latency", Self::Latency),
        ("balanced", Self::Balanced),
        ("throughput", Self::Throughput),
    ];
}

impl Profile {
    /// What the profile sets: key path and value, written as after `--set`.
    #[must_use]
    pub const fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Latency => &[("wal.group_bytes_max", "2MiB"), ("wal.group_frames_max", "2048")],
            Self::Balanced => &[],
            Self::Throughput => &[
                ("wal.group_bytes_max", "16MiB"),
                ("wal.group_frames_max", "16384"),
                ("wal.journal_file_bytes", "128MiB"),
                ("wal.write_behind_ms", "2s"),
                ("wal.tail_bytes_max", "256MiB"),
            ],
        }
    }
}
