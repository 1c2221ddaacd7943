//! The five codecs of Kafka, with every decompression bounded.
//!
//! Owns the mapping between codec and number, and turning a whole block of records into another
//! whole block. The container formats that Kafka expects but no crate provides safely are in
//! `compression/snappy_frame.rs` and `compression/lz4_frame.rs`.
//!
//! Invariant: memory follows what has been decoded, not what a length field announces. Output
//! never exceeds [`DecompressionLimits`]; a block that would is one error. Which bytes a codec
//! accepts follows the clients that write them: several gzip members, xerial and plain snappy,
//! dependent lz4 blocks, zstd frames without a size, concatenated frames.

mod lz4_frame;
mod snappy_frame;

use std::fmt;
use std::io::Read;
use std::str::FromStr;

use crate::error::{CompressionError, UnknownCodec};

/// How the records of a batch are compressed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Codec {
    /// Not at all.
    #[default]
    None,
    /// RFC 1952.
    Gzip,
    /// Snappy blocks in xerial framing.
    Snappy,
    /// The lz4 frame format.
    Lz4,
    /// RFC 8878; Produce version 7 and Fetch version 10 onwards.
    Zstd,
}

impl Codec {
    /// Every codec, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The number in bits 0-2 of the batch attributes.
    #[must_use]
    pub const fn id(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// The name in configuration, as in `compression.type`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl TryFrom<i16> for Codec {
    type Error = UnknownCodec;

    fn try_from(id: i16) -> Result<Self, UnknownCodec> {
        Self::ALL.into_iter().find(|codec| i16::from(codec.id()) == id).ok_or(UnknownCodec(id))
    }
}

impl TryFrom<u8> for Codec {
    type Error = UnknownCodec;

    fn try_from(id: u8) -> Result<Self, UnknownCodec> {
        Self::try_from(i16::from(id))
    }
}

impl FromStr for Codec {
    type Err = UnknownCodecName;

    /// Reads a name as [`name`](Codec::name) gives it; `uncompressed`, which topic configuration
    /// uses for no compression, is also accepted.
    fn from_str(name: &str) -> Result<Self, UnknownCodecName> {
        if name == "uncompressed" {
            return Ok(Self::None);
        }
        Self::ALL.into_iter().find(|codec| codec.name() == name).ok_or(UnknownCodecName)
    }
}

/// Text that names no codec.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no codec has this name; known are none, gzip, snappy, lz4, zstd")]
pub struct UnknownCodecName;

/// How far a block may expand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DecompressionLimits {
    /// Largest output of one block, in bytes, whatever its input.
    pub output_bytes_max: usize,
    /// Largest output per byte of input, once the output exceeds
    /// [`RATIO_FREE_BYTES`](Self::RATIO_FREE_BYTES).
    pub ratio_max: usize,
}

impl DecompressionLimits {
    /// Output that needs no justification by its input, in bytes: well-behaved producers fill
    /// batches of up to about 1 MB before compression.
    pub const RATIO_FREE_BYTES: usize = 16 << 20;

    /// Just above the 1,032:1 that gzip can reach. Of the codecs only zstd goes beyond, with
    /// runs of one byte.
    pub const RATIO_MAX: usize = 1_100;

    /// At most `output_bytes_max` bytes, at the usual ratio.
    #[must_use]
    pub const fn output_bytes(output_bytes_max: usize) -> Self {
        Self { output_bytes_max, ratio_max: Self::RATIO_MAX }
    }

    /// Largest output of a block of `input_size` bytes, in bytes.
    #[must_use]
    pub fn limit_for(&self, input_size: usize) -> usize {
        let by_ratio = input_size.saturating_mul(self.ratio_max).max(Self::RATIO_FREE_BYTES);
        self.output_bytes_max.min(by_ratio)
    }
}

/// Compresses a whole block at the codec's default level. [`Codec::None`] copies.
///
/// Snappy is written in xerial framing, lz4 in independent blocks of 64 KiB, both because older
/// Java clients read nothing else.
#[must_use]
pub fn compress(codec: Codec, input: &[u8]) -> Vec<u8> {
    match codec {
        Codec::None => input.to_vec(),
        Codec::Gzip => compress_gzip(input),
        Codec::Snappy => snappy_frame::compress(input),
        Codec::Lz4 => lz4_frame::compress(input),
        Codec::Zstd => zstd::bulk::compress(input, zstd::DEFAULT_COMPRESSION_LEVEL)
            .expect("zstd fails only for want of memory, its output buffer is sized for the worst"),
    }
}

/// Decompresses a whole block under `limits`. [`Codec::None`] copies, under the same limits.
///
/// # Errors
/// [`CompressionError::Undecodable`] if `input` is not exactly one complete block of this codec,
/// [`CompressionError::OutputBeyondLimit`] if it expands beyond the limit.
pub fn decompress(
    codec: Codec,
    input: &[u8],
    limits: DecompressionLimits,
) -> Result<Vec<u8>, CompressionError> {
    let limit = limits.limit_for(input.len());
    let output = Output { bytes: Vec::new(), limit };
    let result = match codec {
        Codec::None => copy(input, output),
        _ if input.is_empty() => Err(Failure::Undecodable),
        Codec::Gzip => decompress_gzip(input, output),
        Codec::Snappy => snappy_frame::decompress(input, output),
        Codec::Lz4 => lz4_frame::decompress(input, output),
        Codec::Zstd => decompress_zstd(input, output),
    };
    match result {
        Ok(output) => {
            assert!(output.bytes.len() <= limit, "{} bytes exceed {limit}", output.bytes.len());
            Ok(output.bytes)
        }
        Err(Failure::Undecodable) => Err(CompressionError::Undecodable { codec }),
        Err(Failure::OutputBeyondLimit) => {
            Err(CompressionError::OutputBeyondLimit { codec, limit })
        }
    }
}

/// Why a codec gave up.
#[derive(Debug)]
enum Failure {
    Undecodable,
    OutputBeyondLimit,
}

/// Decompressed bytes so far. Grows by at most what is already there or one chunk, never beyond
/// its limit.
struct Output {
    /// `bytes.len() <= limit`.
    bytes: Vec<u8>,
    limit: usize,
}

impl Output {
    /// Smallest growth step, in bytes.
    const CHUNK: usize = 32 << 10;

    /// Bytes that may still be produced.
    fn room(&self) -> usize {
        self.limit - self.bytes.len()
    }

    /// A growth step: doubles what is there, within the limit.
    fn next_step(&self) -> usize {
        self.bytes.len().max(Self::CHUNK).min(self.room())
    }

    /// Appends `count` zero bytes to be overwritten. `count` must not exceed the room.
    fn extend_zeroed(&mut self, count: usize) {
        self.reserve(count);
        self.bytes.resize(self.bytes.len() + count, 0);
    }

    fn extend_from_slice(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if bytes.len() > self.room() {
            return Err(Failure::OutputBeyondLimit);
        }
        self.reserve(bytes.len());
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn reserve(&mut self, count: usize) {
        assert!(count <= self.room(), "{count} bytes do not fit into {}", self.room());
        if count > self.bytes.capacity() - self.bytes.len() {
            self.bytes.reserve_exact(self.next_step().max(count));
        }
    }
}

fn copy(input: &[u8], mut output: Output) -> Result<Output, Failure> {
    output.extend_from_slice(input)?;
    Ok(output)
}

fn compress_gzip(input: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::bufread::GzEncoder::new(input, flate2::Compression::default());
    let mut compressed = Vec::new();
    encoder.read_to_end(&mut compressed).expect("compressing from memory to memory cannot fail");
    compressed
}

fn decompress_gzip(input: &[u8], mut output: Output) -> Result<Output, Failure> {
    let mut decoder = flate2::bufread::MultiGzDecoder::new(input);
    let mut produced = 0;
    loop {
        // Only when there is no space left: a read may give a single byte, over and over.
        if produced == output.bytes.len() {
            let step = output.next_step();
            if step == 0 {
                // One byte more tells an output that fits exactly from one that does not.
                return match decoder.read(&mut [0]) {
                    Ok(0) => Ok(output),
                    Ok(_) => Err(Failure::OutputBeyondLimit),
                    Err(_) => Err(Failure::Undecodable),
                };
            }
            output.extend_zeroed(step);
        }
        let space = &mut output.bytes[produced..];
        let count = decoder.read(space).map_err(|_| Failure::Undecodable)?;
        produced += count;
        if count == 0 {
            output.bytes.truncate(produced);
            return Ok(output);
        }
    }
}

/// Decodes all frames into one buffer in one call, and again into a larger one if it was too
/// small. Unlike the streaming interface this needs no window buffer, whose size (up to 128 MiB)
/// a nine-byte frame header could dictate.
fn decompress_zstd(input: &[u8], mut output: Output) -> Result<Output, Failure> {
    const BUFFER_TOO_SMALL: usize =
        (zstd::zstd_safe::zstd_sys::ZSTD_ErrorCode::ZSTD_error_dstSize_tooSmall as usize)
            .wrapping_neg();
    const EXPECTED_RATIO: usize = 8;
    const GROWTH: usize = 4;

    let mut context = zstd::zstd_safe::DCtx::create();
    let mut capacity = input.len().saturating_mul(EXPECTED_RATIO).max(Output::CHUNK);
    loop {
        capacity = capacity.min(output.limit);
        output.bytes.clear();
        output.bytes.reserve_exact(capacity);
        match context.decompress(&mut output.bytes, input) {
            Ok(_) if output.bytes.len() > output.limit => return Err(Failure::OutputBeyondLimit),
            Ok(_) => return Ok(output),
            Err(BUFFER_TOO_SMALL) if capacity < output.limit => {
                capacity = capacity.saturating_mul(GROWTH);
            }
            Err(BUFFER_TOO_SMALL) => return Err(Failure::OutputBeyondLimit),
            Err(_) => return Err(Failure::Undecodable),
        }
    }
}
