//! Snappy in Kafka: raw snappy blocks in the framing of the xerial Java library.
//!
//! ```text
//!   +------------------+-----------+------------------+ +----------+-----------+ +- - -
//!   | 82 SNAPPY 00   8 | version 4 | compatible with 4| | length 4 | raw block | | length
//!   +------------------+-----------+------------------+ +----------+-----------+ +- - -
//! ```
//!
//! All integers big-endian. Each block holds at most 32 KiB when written here. Readers accept
//! larger blocks, a header in the middle of the stream (concatenated streams, as the Java reader
//! does), and a plain raw block without any framing, which some clients send.

use super::{Failure, Output};

const MAGIC: [u8; 8] = *b"\x82SNAPPY\0";
const HEADER_SIZE: usize = MAGIC.len() + 8;
/// Version and oldest compatible version, both 1.
const VERSIONS: [u8; 8] = [0, 0, 0, 1, 0, 0, 0, 1];
/// Uncompressed bytes per block; what the Java library writes.
const BLOCK_BYTES: usize = 32 << 10;

/// Bytes that one byte of a raw block can expand to: the densest element copies 64 bytes and
/// takes three.
const EXPANSION_MAX: usize = 22;

pub(super) fn compress(input: &[u8]) -> Vec<u8> {
    let blocks = input.len().div_ceil(BLOCK_BYTES);
    let mut framed = Vec::with_capacity(HEADER_SIZE + input.len() / 2 + blocks * 4);
    framed.extend_from_slice(&MAGIC);
    framed.extend_from_slice(&VERSIONS);
    let mut encoder = snap::raw::Encoder::new();
    for block in input.chunks(BLOCK_BYTES) {
        let start = framed.len() + 4;
        framed.resize(start + snap::raw::max_compress_len(block.len()), 0);
        let size = encoder
            .compress(block, &mut framed[start..])
            .expect("the output has room for an incompressible block");
        framed.truncate(start + size);
        framed[start - 4..start].copy_from_slice(&(size as u32).to_be_bytes());
    }
    framed
}

pub(super) fn decompress(input: &[u8], mut output: Output) -> Result<Output, Failure> {
    if !input.starts_with(&MAGIC) {
        decompress_block(input, &mut output)?;
        return Ok(output);
    }
    let mut rest = input;
    while !rest.is_empty() {
        if rest.starts_with(&MAGIC) {
            rest = rest.get(HEADER_SIZE..).ok_or(Failure::Undecodable)?;
            continue;
        }
        let (length, blocks) = rest.split_first_chunk().ok_or(Failure::Undecodable)?;
        let length = u32::from_be_bytes(*length) as usize;
        let (block, remaining) = blocks.split_at_checked(length).ok_or(Failure::Undecodable)?;
        decompress_block(block, &mut output)?;
        rest = remaining;
    }
    Ok(output)
}

fn decompress_block(block: &[u8], output: &mut Output) -> Result<(), Failure> {
    let declared = snap::raw::decompress_len(block).map_err(|_| Failure::Undecodable)?;
    if declared > block.len().saturating_mul(EXPANSION_MAX) {
        return Err(Failure::Undecodable);
    }
    if declared > output.room() {
        return Err(Failure::OutputBeyondLimit);
    }
    let start = output.bytes.len();
    output.extend_zeroed(declared);
    let size = snap::raw::Decoder::new()
        .decompress(block, &mut output.bytes[start..])
        .map_err(|_| Failure::Undecodable)?;
    assert_eq!(size, declared, "a raw block decodes to the size it declares");
    Ok(())
}
