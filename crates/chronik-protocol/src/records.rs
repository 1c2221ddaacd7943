//! Record batches inside a message, as opaque bytes.

use std::borrow::Cow;

use bytes::Bytes;

/// The value of a `records` field: whole record batches back to back, which only
/// `chronik-record` looks into. Equality compares the bytes, however they are held.
#[derive(Clone, Debug)]
pub enum Records<'a> {
    /// A part of the frame the message was decoded from.
    Borrowed(&'a [u8]),
    /// One slice of shared memory.
    Shared(Bytes),
    /// Several slices of shared memory, one after the other.
    Chain(Vec<Bytes>),
}

impl<'a> Records<'a> {
    /// No records. On the wire this is a length of 0, not null.
    pub const EMPTY: Self = Self::Borrowed(&[]);

    /// Bytes in all slices together.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Borrowed(slice) => slice.len(),
            Self::Shared(slice) => slice.len(),
            Self::Chain(slices) => slices.iter().map(Bytes::len).sum(),
        }
    }

    /// True if there is no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes in one piece; copied only if they are in several slices.
    #[must_use]
    pub fn contiguous(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Borrowed(slice) => Cow::Borrowed(slice),
            Self::Shared(slice) => Cow::Borrowed(slice),
            Self::Chain(slices) => Cow::Owned(slices.concat()),
        }
    }

    /// The part of the frame these records are; `None` if they were not decoded from one.
    #[must_use]
    pub fn borrowed(&self) -> Option<&'a [u8]> {
        match self {
            Self::Borrowed(slice) => Some(slice),
            Self::Shared(_) | Self::Chain(_) => None,
        }
    }
}

impl Default for Records<'_> {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl PartialEq for Records<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.contiguous() == other.contiguous()
    }
}

impl Eq for Records<'_> {}
