//! Changing the codec of a batch, for topics whose `compression.type` is not `producer`.
//!
//! The one place where a client's batch is written again. The records themselves are not decoded:
//! the block is decompressed and compressed, the header keeps every field but codec, length and
//! CRC.

use bytes::Bytes;

use crate::builder::encode;
use crate::compression::{Codec, DecompressionLimits};
use crate::error::BatchError;
use crate::record::records;

/// Compresses the records of `batch`, which must be exactly one batch, with `codec`.
///
/// The result can be larger than `batch`; whether it still fits the topic's limit is for the
/// caller to check.
///
/// # Errors
/// Those of [`records`].
pub fn recompress(
    batch: &[u8],
    codec: Codec,
    limits: DecompressionLimits,
) -> Result<Bytes, BatchError> {
    let records = records(batch, limits)?;
    if records.header().attributes.codec() == Ok(codec) || records.body().is_empty() {
        return Ok(Bytes::copy_from_slice(batch));
    }
    Ok(encode(*records.header(), codec, records.body()))
}
