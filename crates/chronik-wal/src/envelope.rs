//! The envelope of small files: magic, level, length, CRC-32C, then a prost message.
//!
//! ```text
//!  0  magic           4
//!  4  level           1 (1), then 3 reserved bytes
//!  8  payload length  4
//! 12  payload_crc32c  4
//! 16  payload
//! ```
//!
//! Used by `partition.meta`, `offset_index`, `hardstate`, `node.meta` and snapshots, all of
//! which are replaced as a whole (write temporary, sync, rename, sync directory).

use std::path::Path;

use prost::Message;

use crate::error::{DamageReason, WalError};
use crate::frame::read_u32;
use crate::io::{Disk, read_file, replace_file};

const HEADER_SIZE: usize = 16;
const LEVEL: u8 = 1;

/// Largest small file a reader loads, in bytes.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// Encodes `payload` behind the header of a `magic` file.
#[must_use]
pub fn seal(magic: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_SIZE + payload.len());
    bytes.extend_from_slice(&magic);
    bytes.extend_from_slice(&[LEVEL, 0, 0, 0]);
    let length = u32::try_from(payload.len()).expect("small files are below 4 GiB");
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(payload).to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// The payload of a sealed file.
///
/// # Errors
/// The first check that fails.
pub fn open(magic: [u8; 4], bytes: &[u8]) -> Result<&[u8], DamageReason> {
    if bytes.len() < HEADER_SIZE {
        return Err(DamageReason::TooShort);
    }
    if bytes[..4] != magic || bytes[4] != LEVEL {
        return Err(DamageReason::Magic);
    }
    let payload = &bytes[HEADER_SIZE..];
    if payload.len() != read_u32(bytes, 8) as usize {
        return Err(DamageReason::Length);
    }
    if crc32c::crc32c(payload) != read_u32(bytes, 12) {
        return Err(DamageReason::BodyChecksum);
    }
    Ok(payload)
}

/// Replaces the file at `path` with a sealed `message`.
///
/// # Errors
/// A failed disk call; the old content is then still there.
pub fn store(
    disk: &dyn Disk,
    path: &Path,
    magic: [u8; 4],
    message: &impl Message,
) -> Result<(), WalError> {
    Ok(replace_file(disk, path, &seal(magic, &message.encode_to_vec()))?)
}

/// Loads a sealed message; `None` when the file does not exist.
///
/// # Errors
/// A failed disk call, or [`WalError::Damaged`].
pub fn load<M: Message + Default>(
    disk: &dyn Disk,
    path: &Path,
    magic: [u8; 4],
) -> Result<Option<M>, WalError> {
    let Some(bytes) = read_file(disk, path, FILE_BYTES_MAX)? else { return Ok(None) };
    let damaged =
        |reason| WalError::Damaged { file: path.display().to_string(), position: 0, reason };
    let payload = open(magic, &bytes).map_err(damaged)?;
    M::decode(payload).map(Some).map_err(|_| damaged(DamageReason::Inconsistent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cut_and_every_bit_flip_is_found() {
        let sealed = seal(*b"TEST", b"payload");
        assert_eq!(open(*b"TEST", &sealed), Ok(&b"payload"[..]));
        for length in 0..sealed.len() {
            assert!(open(*b"TEST", &sealed[..length]).is_err(), "cut at {length}");
        }
        for bit in 0..sealed.len() * 8 {
            if (5 * 8..8 * 8).contains(&bit) {
                continue; // Reserved bytes carry nothing.
            }
            let mut damaged = sealed.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(open(*b"TEST", &damaged).is_err(), "bit {bit}");
        }
    }
}
