//! The lz4 frame format, version 1 (`lz4_Frame_format.md` of the lz4 project), read strictly and
//! in bounded memory.
//!
//! ```text
//!   +-------+-----+----+----------------+-----------+--------+ +------+------+----------+
//!   | magic | FLG | BD | content size 8 | dict id 4 | header | | size | data | checksum | ...
//!   |   4   |  1  | 1  |    optional    | refused   | check 1| |  4   |      | 4, opt.  |
//!   +-------+-----+----+----------------+-----------+--------+ +------+------+----------+
//!   ... +----------+--------------------+
//!       | 0      4 | content check 4,   |
//!       | end mark | optional           |
//!       +----------+--------------------+
//! ```
//!
//! All integers little-endian; checksums are xxHash32 with seed 0. The reader is written out here
//! because the one of `lz4_flex` reserves up to 12 MiB as soon as it has seen seven bytes, and
//! takes a frame that ends without its end mark for a complete one. The block codec and the
//! writer are those of `lz4_flex`.

use std::io::Write;

use lz4_flex::block::DecompressError;
use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

use super::{Failure, Output};

const MAGIC: u32 = 0x184d_2204;

// FLG byte.
const VERSION_MASK: u8 = 0b1100_0000;
const VERSION_1: u8 = 0b0100_0000;
const INDEPENDENT_BLOCKS: u8 = 0b0010_0000;
const BLOCK_CHECKSUM: u8 = 0b0001_0000;
const CONTENT_SIZE: u8 = 0b0000_1000;
const CONTENT_CHECKSUM: u8 = 0b0000_0100;
const FLG_RESERVED: u8 = 0b0000_0010;
const DICTIONARY_ID: u8 = 0b0000_0001;
// BD byte.
const BD_RESERVED: u8 = 0b1000_1111;

/// Bit of a block size that marks stored, uncompressed data.
const STORED: u32 = 1 << 31;
/// How far back a dependent block may refer, in bytes.
const WINDOW_BYTES: usize = 64 << 10;
/// Bytes that one byte of a block can expand to: each further byte of a match length adds 255.
const EXPANSION_MAX: usize = 256;

pub(super) fn compress(input: &[u8]) -> Vec<u8> {
    // Java: "Dependent block stream is unsupported"; blocks of 64 KiB are its own default.
    let info = FrameInfo::new().block_mode(BlockMode::Independent).block_size(BlockSize::Max64KB);
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(input).expect("writing to memory cannot fail");
    encoder.finish().expect("writing to memory cannot fail")
}

/// Reads one frame, or several one after the other.
pub(super) fn decompress(input: &[u8], mut output: Output) -> Result<Output, Failure> {
    let mut rest = input;
    loop {
        decompress_frame(&mut rest, &mut output)?;
        if rest.is_empty() {
            return Ok(output);
        }
    }
}

fn decompress_frame(rest: &mut &[u8], output: &mut Output) -> Result<(), Failure> {
    let descriptor = FrameDescriptor::take(rest)?;
    let frame_start = output.bytes.len();
    loop {
        let size = u32::from_le_bytes(take_chunk(rest)?);
        if size == 0 {
            break;
        }
        let data = take(rest, (size & !STORED) as usize)?;
        if data.len() > descriptor.block_bytes_max {
            return Err(Failure::Undecodable);
        }
        if descriptor.has_block_checksum && u32::from_le_bytes(take_chunk(rest)?) != xxh32(data) {
            return Err(Failure::Undecodable);
        }
        if size & STORED != 0 {
            output.extend_from_slice(data)?;
        } else {
            decompress_block(data, &descriptor, frame_start, output)?;
        }
    }
    let content = &output.bytes[frame_start..];
    if descriptor.has_content_checksum && u32::from_le_bytes(take_chunk(rest)?) != xxh32(content) {
        return Err(Failure::Undecodable);
    }
    if descriptor.content_size.is_some_and(|size| size != content.len() as u64) {
        return Err(Failure::Undecodable);
    }
    Ok(())
}

fn decompress_block(
    data: &[u8],
    descriptor: &FrameDescriptor,
    frame_start: usize,
    output: &mut Output,
) -> Result<(), Failure> {
    let start = output.bytes.len();
    let possible = data.len().saturating_mul(EXPANSION_MAX).min(descriptor.block_bytes_max);
    let space = possible.min(output.room());
    output.extend_zeroed(space);
    let (before, block) = output.bytes.split_at_mut(start);
    let result = if descriptor.has_independent_blocks {
        lz4_flex::block::decompress_into(data, block)
    } else {
        let window_start = frame_start.max(start.saturating_sub(WINDOW_BYTES));
        lz4_flex::block::decompress_into_with_dict(data, block, &before[window_start..])
    };
    match result {
        Ok(size) => {
            output.bytes.truncate(start + size);
            Ok(())
        }
        Err(DecompressError::OutputTooSmall { .. }) if space < possible => {
            Err(Failure::OutputBeyondLimit)
        }
        Err(_) => Err(Failure::Undecodable),
    }
}

/// The frame header.
struct FrameDescriptor {
    has_independent_blocks: bool,
    has_block_checksum: bool,
    has_content_checksum: bool,
    content_size: Option<u64>,
    /// Largest block, compressed or not, in bytes: 64 KiB to 4 MiB.
    block_bytes_max: usize,
}

impl FrameDescriptor {
    fn take(rest: &mut &[u8]) -> Result<Self, Failure> {
        if u32::from_le_bytes(take_chunk(rest)?) != MAGIC {
            return Err(Failure::Undecodable);
        }
        let descriptor = *rest;
        let [flg, bd] = take_chunk(rest)?;
        if flg & VERSION_MASK != VERSION_1
            || flg & (FLG_RESERVED | DICTIONARY_ID) != 0
            || bd & BD_RESERVED != 0
        {
            return Err(Failure::Undecodable);
        }
        let block_bytes_max = match bd >> 4 {
            4 => 64 << 10,
            5 => 256 << 10,
            6 => 1 << 20,
            7 => 4 << 20,
            _ => return Err(Failure::Undecodable),
        };
        let content_size = match flg & CONTENT_SIZE {
            0 => None,
            _ => Some(u64::from_le_bytes(take_chunk(rest)?)),
        };
        let checked = &descriptor[..descriptor.len() - rest.len()];
        let [check] = take_chunk(rest)?;
        if check != (xxh32(checked) >> 8) as u8 {
            return Err(Failure::Undecodable);
        }
        Ok(Self {
            has_independent_blocks: flg & INDEPENDENT_BLOCKS != 0,
            has_block_checksum: flg & BLOCK_CHECKSUM != 0,
            has_content_checksum: flg & CONTENT_CHECKSUM != 0,
            content_size,
            block_bytes_max,
        })
    }
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Result<&'a [u8], Failure> {
    let (taken, remaining) = rest.split_at_checked(count).ok_or(Failure::Undecodable)?;
    *rest = remaining;
    Ok(taken)
}

fn take_chunk<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Failure> {
    let (taken, remaining) = rest.split_first_chunk().ok_or(Failure::Undecodable)?;
    *rest = remaining;
    Ok(*taken)
}

/// xxHash32 with seed 0, as `xxhash_spec.md` of the xxHash project describes it.
fn xxh32(bytes: &[u8]) -> u32 {
    const PRIME_1: u32 = 0x9e37_79b1;
    const PRIME_2: u32 = 0x85eb_ca77;
    const PRIME_3: u32 = 0xc2b2_ae3d;
    const PRIME_4: u32 = 0x27d4_eb2f;
    const PRIME_5: u32 = 0x1656_67b1;

    let (stripes, tail) = bytes.as_chunks::<16>();
    let mut hash = if stripes.is_empty() {
        PRIME_5
    } else {
        let mut lanes = [PRIME_1.wrapping_add(PRIME_2), PRIME_2, 0, 0_u32.wrapping_sub(PRIME_1)];
        for stripe in stripes {
            for (lane, word) in lanes.iter_mut().zip(stripe.as_chunks::<4>().0) {
                *lane = lane
                    .wrapping_add(u32::from_le_bytes(*word).wrapping_mul(PRIME_2))
                    .rotate_left(13)
                    .wrapping_mul(PRIME_1);
            }
        }
        let [a, b, c, d] = lanes;
        a.rotate_left(1)
            .wrapping_add(b.rotate_left(7))
            .wrapping_add(c.rotate_left(12))
            .wrapping_add(d.rotate_left(18))
    };
    hash = hash.wrapping_add(bytes.len() as u32);
    let (words, odd_bytes) = tail.as_chunks::<4>();
    for word in words {
        hash = hash
            .wrapping_add(u32::from_le_bytes(*word).wrapping_mul(PRIME_3))
            .rotate_left(17)
            .wrapping_mul(PRIME_4);
    }
    for byte in odd_bytes {
        hash = hash
            .wrapping_add(u32::from(*byte).wrapping_mul(PRIME_5))
            .rotate_left(11)
            .wrapping_mul(PRIME_1);
    }
    hash = (hash ^ (hash >> 15)).wrapping_mul(PRIME_2);
    hash = (hash ^ (hash >> 13)).wrapping_mul(PRIME_3);
    hash ^ (hash >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xxh32_matches_the_sanity_values_of_its_specification() {
        assert_eq!(xxh32(b""), 0x02cc_5d05);
        assert_eq!(xxh32(b"a"), 0x550d_7456);
        assert_eq!(xxh32(b"abc"), 0x32d1_53ff);
        assert_eq!(xxh32(b"Nobody inspects the spammish repetition"), 0xe229_3b2f);
    }
}
