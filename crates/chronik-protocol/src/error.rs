//! Why bytes are not a message, and why a message has no bytes.
//!
//! Two steps, because a [`Reader`](crate::Reader) knows the field but not the message: it answers
//! with [`ReadError`], and the message's `decode` adds API and version and makes it a
//! [`DecodeError`]. The way out is the same with [`WriteError`] and [`EncodeError`].

use crate::api_key::ApiKey;

/// Bytes that are not a message of the given API and version. The connection they came from has
/// lost its framing or never spoke the protocol, so the answer is to close it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("cannot decode {} version {version}, field {field}", api.name())]
pub struct DecodeError {
    /// API of the message.
    pub api: ApiKey,
    /// Version the sender claimed.
    pub version: i16,
    /// Field that could not be read, as a path of schema names joined with dots.
    pub field: &'static str,
    /// What is wrong with it.
    #[source]
    pub reason: DecodeReason,
}

/// A field that could not be read, in a message not yet named.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("cannot read field {field}")]
pub struct ReadError {
    /// Field that could not be read, as a path of schema names joined with dots.
    pub field: &'static str,
    /// What is wrong with it.
    #[source]
    pub reason: DecodeReason,
}

impl ReadError {
    pub(crate) fn in_message(self, api: ApiKey, version: i16) -> DecodeError {
        DecodeError { api, version, field: self.field, reason: self.reason }
    }
}

/// What is wrong with the bytes of a field. Sizes and lengths are in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeReason {
    /// The field needs more bytes than there are.
    #[error("{needed} bytes needed, {remaining} left")]
    Truncated {
        /// Bytes the field needs.
        needed: usize,
        /// Bytes left in the message.
        remaining: usize,
    },
    /// Null where the version does not allow it.
    #[error("null is not allowed")]
    Null,
    /// A length below -1, which is null.
    #[error("length {length} is negative")]
    NegativeLength {
        /// The length as sent.
        length: i64,
    },
    /// A string longer than Kafka's limit.
    #[error("a string of {length} bytes is too long")]
    StringTooLong {
        /// The length as sent.
        length: usize,
    },
    /// Text that is not UTF-8.
    #[error("not UTF-8")]
    Utf8,
    /// More array elements than the remaining bytes or the limit allow.
    #[error("{count} elements announced, {limit} possible")]
    TooManyElements {
        /// Elements announced.
        count: usize,
        /// Elements the remaining bytes could hold, or the fixed limit if that is lower.
        limit: usize,
    },
    /// More tagged fields than the limit.
    #[error("{count} tagged fields announced")]
    TooManyTags {
        /// Tagged fields announced.
        count: usize,
    },
    /// A tagged field whose content ends elsewhere than its size says.
    #[error("tagged field of {declared} bytes has {used} bytes of content")]
    TagSize {
        /// Size as sent.
        declared: usize,
        /// Bytes the content took.
        used: usize,
    },
    /// A variable-length integer of more than five bytes or 32 bits.
    #[error("variable-length integer too long")]
    Varint,
    /// The elements would take far more memory than the bytes that describe them.
    #[error("the elements need more memory than a message of this size may use")]
    AllocationBudget,
    /// The codec has no such version.
    #[error("the version is not supported")]
    Version,
}

/// A message that has no form in the version asked for. A defect of the code that built it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("cannot encode {} version {version}, field {field}", api.name())]
pub struct EncodeError {
    /// API of the message.
    pub api: ApiKey,
    /// Version asked for.
    pub version: i16,
    /// Field that could not be written, as a path of schema names joined with dots.
    pub field: &'static str,
    /// What is wrong with it.
    #[source]
    pub reason: EncodeReason,
}

/// A field that could not be written, in a message not yet named.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("cannot write field {field}")]
pub struct WriteError {
    /// Field that could not be written, as a path of schema names joined with dots.
    pub field: &'static str,
    /// What is wrong with it.
    #[source]
    pub reason: EncodeReason,
}

impl WriteError {
    pub(crate) fn in_message(self, api: ApiKey, version: i16) -> EncodeError {
        EncodeError { api, version, field: self.field, reason: self.reason }
    }

    /// `field` is set although the version does not carry it.
    pub(crate) fn absent(field: &'static str) -> Self {
        Self { field, reason: EncodeReason::Absent }
    }
}

/// What is wrong with the value of a field. Lengths are in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EncodeReason {
    /// The field is set, but the version does not carry it, and Kafka forbids to drop it.
    #[error("the version does not carry this field")]
    Absent,
    /// Null where the version does not allow it.
    #[error("null is not allowed")]
    Null,
    /// Longer than the length field can say.
    #[error("length {length} is too large")]
    TooLong {
        /// Length of the value, in bytes or elements.
        length: usize,
    },
    /// The codec has no such version.
    #[error("the version is not supported")]
    Version,
}
