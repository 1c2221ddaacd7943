//! Positions in a log: per record (`Offset`) and per frame (`Lsn`).

use std::fmt;

/// A Kafka offset: the position of one record in one partition. Dense, starts at 0.
///
/// Upper bounds (log end offset, high watermark) are exclusive: they name the first offset
/// that is *not* included.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Offset(pub i64);

impl Offset {
    /// The first offset of every partition.
    pub const ZERO: Self = Self(0);
    /// Kafka's "no offset" marker on the wire.
    pub const NONE: Self = Self(-1);

    /// The offset `records` further on, or `None` on overflow.
    #[must_use]
    pub fn checked_add(self, records: i64) -> Option<Self> {
        self.0.checked_add(records).map(Self)
    }

    /// The offset `records` further on.
    ///
    /// # Panics
    /// On overflow of 63 bits, which a log cannot reach by appending.
    #[must_use]
    pub fn plus(self, records: i64) -> Self {
        self.checked_add(records).expect("a log holds fewer than 2^63 records")
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "offset {}", self.0)
    }
}

/// A log sequence number: the position of one frame (one record batch or control entry) in one
/// log. Dense, starts at 1; 0 means "before the first frame". In `raft` partitions it is the
/// Raft log index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The position before the first frame of a log.
    pub const ZERO: Self = Self(0);
    /// The first frame of a log.
    pub const FIRST: Self = Self(1);

    /// The next frame's position.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("a log holds fewer than 2^64 frames"))
    }

    /// The previous frame's position; the position before the first frame has no predecessor
    /// and stays where it is.
    #[must_use]
    pub fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lsn {}", self.0)
    }
}
