//! A compressed block of each codec, under an output limit.
//!
//! Input: the block. Checked: output and memory stay under the limit; what was decompressed
//! compresses and decompresses to itself; a second reader of lz4 frames reads the same.

use std::io::Read;

use chronik_record::compression::{compress, decompress};
use chronik_record::{Codec, DecompressionLimits};

use crate::allocation;
use crate::{Seed, Target};

pub(crate) const GZIP: Target =
    Target { name: "gzip", run: |input| run(Codec::Gzip, input), seeds: || seeds(Codec::Gzip) };
pub(crate) const SNAPPY: Target = Target {
    name: "snappy",
    run: |input| run(Codec::Snappy, input),
    seeds: || seeds(Codec::Snappy),
};
pub(crate) const LZ4: Target = Target { name: "lz4", run: run_lz4, seeds: || seeds(Codec::Lz4) };
pub(crate) const ZSTD: Target =
    Target { name: "zstd", run: |input| run(Codec::Zstd, input), seeds: || seeds(Codec::Zstd) };

const OUTPUT_BYTES_MAX: usize = 256 << 10;

/// The gzip header announces its extra field in 16 bits, and flate2 reserves that much at once.
pub(crate) const GZIP_EXTRA_FIELD_BYTES_MAX: usize = 64 << 10;

fn run(codec: Codec, input: &[u8]) {
    expand(codec, input);
}

fn run_lz4(input: &[u8]) {
    let Some(output) = expand(Codec::Lz4, input) else { return };
    // Its debug assertions fail on frames of different block modes one after the other.
    if input.windows(4).filter(|window| window == b"\x04\x22\x4d\x18").count() > 1 {
        return;
    }
    let mut theirs = Vec::new();
    let mut reader = lz4_flex::frame::FrameDecoder::new(input);
    // It reports the end of input behind each empty block.
    while !reader.get_ref().is_empty() {
        reader.read_to_end(&mut theirs).expect("the reader of lz4_flex is not stricter than ours");
    }
    assert!(theirs == output, "the reader of lz4_flex reads {} bytes", theirs.len());
}

fn expand(codec: Codec, input: &[u8]) -> Option<Vec<u8>> {
    let limits = DecompressionLimits::output_bytes(OUTPUT_BYTES_MAX);
    let live_bytes_max = match codec {
        Codec::Gzip => OUTPUT_BYTES_MAX + GZIP_EXTRA_FIELD_BYTES_MAX,
        Codec::None | Codec::Snappy | Codec::Lz4 | Codec::Zstd => OUTPUT_BYTES_MAX,
    };
    let output = allocation::assert_expanding(input.len(), live_bytes_max, || {
        decompress(codec, input, limits)
    })
    .ok()?;
    assert!(output.len() <= OUTPUT_BYTES_MAX, "{} bytes came out", output.len());
    let exact = DecompressionLimits::output_bytes(output.len());
    assert_eq!(decompress(codec, input, exact).as_deref(), Ok(output.as_slice()));
    assert_eq!(
        decompress(codec, &compress(codec, &output), exact).as_deref(),
        Ok(output.as_slice())
    );
    Some(output)
}

fn seeds(codec: Codec) -> Vec<Seed> {
    let prose: Vec<u8> = b"one log, one frame, one batch; ".repeat(20);
    let two = [compress(codec, &prose), compress(codec, b"tail")].concat();
    let mut seeds = vec![
        Seed::new("prose", compress(codec, &prose)),
        Seed::new("zeroes", compress(codec, &[0; 100_000])),
        Seed::new("two-blocks", two),
    ];
    match codec {
        Codec::Snappy => {
            let framed = compress(codec, &prose);
            // Without the 16 bytes of header and 4 of length it is plain snappy.
            seeds.push(Seed::new("plain", &framed[20..]));
        }
        Codec::Lz4 => seeds.push(Seed::new("linked-checked", linked_lz4_frame(&prose))),
        Codec::None | Codec::Gzip | Codec::Zstd => {}
    }
    seeds
}

/// Dependent blocks, content size and every checksum the format has.
fn linked_lz4_frame(content: &[u8]) -> Vec<u8> {
    use std::io::Write;

    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

    let content = content.repeat(200);
    let info = FrameInfo::new()
        .block_mode(BlockMode::Linked)
        .block_size(BlockSize::Max64KB)
        .block_checksums(true)
        .content_checksum(true)
        .content_size(Some(content.len() as u64));
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(&content).expect("memory takes everything");
    encoder.finish().expect("memory takes everything")
}
