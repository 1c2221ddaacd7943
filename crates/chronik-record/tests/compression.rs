//! Blocks that other writers produce, blocks that are damaged, and blocks that are bombs.

use std::io::Write;
use std::time::Instant;

use chronik_record::compression::{compress, decompress};
use chronik_record::{Codec, CompressionError, DecompressionLimits};
use proptest::prelude::*;

const COMPRESSED: [Codec; 4] = [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
const LIMITS: DecompressionLimits = DecompressionLimits::output_bytes(1 << 20);

fn prose(size: usize) -> Vec<u8> {
    (0..size).map(|index| b"the log is the database "[index % 24] ^ (index / 4_096) as u8).collect()
}

#[test]
fn gzip_members_and_zstd_and_lz4_frames_and_xerial_streams_may_be_concatenated() {
    for codec in COMPRESSED {
        let joined = [compress(codec, &prose(100_000)), compress(codec, b" and more")].concat();
        let expected = [prose(100_000), b" and more".to_vec()].concat();
        assert_eq!(decompress(codec, &joined, LIMITS), Ok(expected), "{codec}");
    }
}

#[test]
fn plain_snappy_without_framing_is_accepted() {
    let raw = snap::raw::Encoder::new().compress_vec(&prose(100_000)).expect("the block is small");
    assert_eq!(decompress(Codec::Snappy, &raw, LIMITS), Ok(prose(100_000)));
}

#[test]
fn zstd_frames_without_content_size_and_with_a_large_window_are_accepted() {
    let mut encoder = zstd::Encoder::new(Vec::new(), 19).expect("level 19 exists");
    encoder.window_log(27).expect("128 MiB is a legal window");
    encoder.include_contentsize(false).expect("the size is optional");
    encoder.write_all(&prose(100_000)).expect("memory takes everything");
    let frame = encoder.finish().expect("memory takes everything");
    assert_eq!(decompress(Codec::Zstd, &frame, LIMITS), Ok(prose(100_000)));
}

#[test]
fn bytes_behind_a_block_and_empty_blocks_are_not_a_block() {
    for codec in COMPRESSED {
        let undecodable = Err(CompressionError::Undecodable { codec });
        assert_eq!(decompress(codec, b"", LIMITS), undecodable);
        let mut block = compress(codec, b"block");
        block.push(b'x');
        assert_eq!(decompress(codec, &block, LIMITS), undecodable, "{codec}");
    }
}

#[test]
fn bombs_of_every_codec_cost_one_error() {
    let zeroes = vec![0; 64 << 20];
    for codec in COMPRESSED {
        let bomb = compress(codec, &zeroes);
        let limit = LIMITS.output_bytes_max;
        let error = CompressionError::OutputBeyondLimit { codec, limit };
        assert_eq!(decompress(codec, &bomb, LIMITS), Err(error), "{codec}, {} bytes", bomb.len());
    }
    // 64 MiB from a few KiB: within the caller's bytes, beyond any ratio of honest records.
    let bomb = compress(Codec::Zstd, &zeroes);
    let limits = DecompressionLimits::output_bytes(1 << 30);
    let limit = DecompressionLimits::RATIO_FREE_BYTES;
    let error = CompressionError::OutputBeyondLimit { codec: Codec::Zstd, limit };
    assert_eq!(decompress(Codec::Zstd, &bomb, limits), Err(error), "{} bytes", bomb.len());
}

#[test]
#[allow(clippy::disallowed_methods, reason = "compares how long two calls take")]
fn pieces_of_one_byte_behind_a_large_one_cost_what_they_cost_alone() {
    const PIECES: usize = 4_000;
    let limits = DecompressionLimits::output_bytes(32 << 20);
    for codec in COMPRESSED {
        let large = compress(codec, &prose(8 << 20));
        let pieces = compress(codec, b"x").repeat(PIECES);
        let together = [&large[..], &pieces].concat();
        let time = |input: &[u8], size: usize| {
            let started = Instant::now();
            assert_eq!(decompress(codec, input, limits).map(|output| output.len()), Ok(size));
            started.elapsed()
        };
        let alone = time(&large, 8 << 20) + time(&pieces, PIECES);
        let joined = time(&together, (8 << 20) + PIECES);
        // Clearing what lies behind the large piece for each small one would be a few hundred
        // times as much.
        assert!(joined < alone * 20, "{codec}: {joined:?}, apart {alone:?}");
    }
}

#[test]
fn a_snappy_block_cannot_declare_more_than_its_bytes_can_hold() {
    // Varint 0xffffffff, then one literal byte.
    let block = [0xff, 0xff, 0xff, 0xff, 0x0f, 0x00, 0x00];
    let limits = DecompressionLimits::output_bytes(usize::MAX);
    let undecodable = Err(CompressionError::Undecodable { codec: Codec::Snappy });
    assert_eq!(decompress(Codec::Snappy, &block, limits), undecodable);
}

proptest! {
    #[test]
    fn every_block_round_trips_at_exactly_its_size(
        pieces in proptest::collection::vec((any::<u8>(), 0..9_000_usize), 0..20),
        codec in proptest::sample::select(Codec::ALL.to_vec()),
    ) {
        let input: Vec<u8> = pieces
            .iter()
            .flat_map(|(seed, size)| (0..*size).map(move |at| if seed & 1 == 0 { *seed } else {
                (at as u8).wrapping_mul(*seed).rotate_left(u32::from(*seed) % 8)
            }))
            .collect();
        let block = compress(codec, &input);
        let exact = DecompressionLimits::output_bytes(input.len());
        prop_assert_eq!(decompress(codec, &block, exact), Ok(input.clone()));
        if let Some(limit) = input.len().checked_sub(1) {
            let short = DecompressionLimits::output_bytes(limit);
            let error = CompressionError::OutputBeyondLimit { codec, limit };
            prop_assert_eq!(decompress(codec, &block, short), Err(error));
        }
    }

    #[test]
    fn arbitrary_and_damaged_blocks_never_panic_nor_exceed_the_limit(
        noise in proptest::collection::vec(any::<u8>(), 0..300),
        position: proptest::sample::Index,
        codec in proptest::sample::select(COMPRESSED.to_vec()),
    ) {
        let mut damaged = compress(codec, &prose(5_000));
        let position = position.index(damaged.len());
        let end = damaged.len().min(position + noise.len());
        damaged[position..end].copy_from_slice(&noise[..end - position]);
        for block in [&noise, &damaged] {
            if let Ok(output) = decompress(codec, block, LIMITS) {
                prop_assert!(output.len() <= LIMITS.output_bytes_max);
            }
        }
    }
}
