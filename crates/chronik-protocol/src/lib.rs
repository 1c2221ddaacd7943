//! The Kafka protocol as Rust types: frames, headers, messages, the table of APIs.
//!
//! Messages are generated from the files in `schema/` by `cargo xtask codegen`, one module an API
//! (`produce`, `fetch`, ...). Decoding borrows from the frame and is bounded by it; encoding goes
//! straight into the connection's [`OutputBuffer`]. This crate knows no sockets and no state.
//!
//! A server reads: [`split_frame`] -> [`RequestPrefix::decode`] -> [`ApiKey::from_number`] and the
//! version check -> [`RequestHeader::decode`] -> [`decode_request`] or one message's `decode`, for
//! produce requests [`read_produce_request`]; and writes with [`encode_response_frame`].
//!
//! Invariants: no input panics; a decoder allocates at most 64 KiB plus eight times the frame's
//! length; null and empty are distinct.
//!
//! Features: `client` adds the client's half (request encoders, response decoders); `sample` adds
//! random messages for tests and fuzzing.

mod api_key;
mod error;
mod frame;
mod generated;
mod header;
mod output;
mod primitive;
mod produce_parts;
mod records;
#[cfg(feature = "sample")]
pub mod sample;

pub use api_key::{ApiKey, VersionRange};
pub use error::{DecodeError, DecodeReason, EncodeError, EncodeReason, ReadError, WriteError};
pub use frame::{FRAME_PREFIX_BYTES, FrameError, FrameSplit, split_frame};
pub use generated::*;
pub use header::{RequestHeader, RequestPrefix, ShortHeader, encode_response_frame};
#[cfg(feature = "client")]
pub use header::{decode_response_header, encode_request_frame};
pub use output::{FrameMark, OutputBuffer, SHARED_SLICE_BYTES_MIN};
pub use primitive::{
    ALLOCATION_BYTES_BASE, ALLOCATION_BYTES_PER_INPUT_BYTE, ARRAY_ELEMENTS_MAX, Reader,
    STRING_BYTES_MAX, TAGGED_FIELDS_MAX,
};
pub use produce_parts::{ProduceHead, ProduceParts, read_produce_request};
pub use records::Records;
