//! CRC-32C (Castagnoli), and joining the checksums of two pieces without reading them again.
//!
//! Kafka's CRC covers a batch from position 21. The frame checksum of the log covers all of it.
//! [`whole_batch_crc`] derives the second from the first: a CRC is the remainder of a polynomial
//! division, so the CRC of `a ++ b` is the CRC of `a`, multiplied by x^(8 |b|) modulo the
//! polynomial, plus the CRC of `b`.
//!
//! Polynomials of degree below 32 are `u32` in the reflected order of CRC-32C: bit 31 is x^0.

use crate::batch::BatchHeader;
use crate::layout;

/// CRC-32C of `bytes`.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    ::crc32c::crc32c(bytes)
}

/// CRC-32C of a piece with CRC `crc` followed by `bytes`.
#[must_use]
pub fn extend(crc: u32, bytes: &[u8]) -> u32 {
    ::crc32c::crc32c_append(crc, bytes)
}

/// CRC-32C of `a ++ b`, from the CRC of `a`, the CRC of `b` and the length of `b` in bytes.
#[must_use]
pub fn combine(crc_a: u32, crc_b: u32, len_b: u64) -> u32 {
    // x^8 has an order that divides 2^31 - 1: the polynomial is (x + 1) times a primitive one
    // of degree 31.
    let mut exponent = (len_b % ((1 << 31) - 1)) as usize;
    let mut shifted = crc_a;
    for powers in &BYTE_POWERS {
        let digit = exponent & 0xff;
        if digit != 0 {
            shifted = multiply(shifted, powers[digit]);
        }
        exponent >>= 8;
    }
    shifted ^ crc_b
}

/// CRC-32C of all bytes of `batch`, using the CRC its header carries for the bytes from position
/// 21, so that a large batch is not read a second time.
///
/// The header's CRC must have been verified, and `header` must be that of `batch`; base offset
/// and leader epoch are taken from `batch`.
///
/// # Panics
/// If `batch` is shorter than a header.
#[must_use]
pub fn whole_batch_crc(batch: &[u8], header: &BatchHeader) -> u32 {
    assert!(batch.len() >= BatchHeader::SIZE, "{} bytes are not a batch", batch.len());
    if batch.len() < COMBINE_BYTES_MIN {
        return crc32c(batch);
    }
    let (prefix, covered) = batch.split_at(layout::ATTRIBUTES);
    combine(crc32c(prefix), header.crc, covered.len() as u64)
}

/// From this batch size on, in bytes, combining beats a second pass.
const COMBINE_BYTES_MIN: usize = 1_280;

/// The Castagnoli polynomial without its leading term.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// The polynomial 1.
const ONE: u32 = 1 << 31;

/// `BYTE_POWERS[position][digit]` is x^(8 * digit * 256^position).
static BYTE_POWERS: [[u32; 256]; 4] = byte_powers();

const fn byte_powers() -> [[u32; 256]; 4] {
    let mut table = [[ONE; 256]; 4];
    let mut step = ONE >> 8;
    let mut position = 0;
    while position < 4 {
        let mut digit = 1;
        while digit < 256 {
            table[position][digit] = multiply(table[position][digit - 1], step);
            digit += 1;
        }
        step = multiply(table[position][255], step);
        position += 1;
    }
    table
}

/// `a * b` modulo the polynomial.
const fn multiply(a: u32, b: u32) -> u32 {
    let mut product = 0;
    let mut shifted = b;
    let mut bit = 32;
    while bit > 0 {
        bit -= 1;
        product ^= shifted & (0_u32.wrapping_sub((a >> bit) & 1));
        shifted = (shifted >> 1) ^ (POLYNOMIAL & 0_u32.wrapping_sub(shifted & 1));
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn crc_is_castagnoli() {
        // RFC 3720 B.4: 32 bytes of zeroes; and the check value of the CRC catalogue.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn combine_is_exact_at_every_digit_boundary_of_the_length() {
        let zeroes = vec![0; 70_000];
        for len in [0, 1, 2, 255, 256, 257, 511, 512, 65_535, 65_536, 65_537, 70_000] {
            let direct = extend(crc32c(b"prefix"), &zeroes[..len]);
            let combined = combine(crc32c(b"prefix"), crc32c(&zeroes[..len]), len as u64);
            assert_eq!(combined, direct, "{len} bytes");
        }
    }

    #[test]
    fn lengths_beyond_memory_wrap_at_the_order_of_the_polynomial() {
        let order = (1_u64 << 31) - 1;
        assert_eq!(combine(7, 9, order), 7 ^ 9);
        assert_eq!(combine(7, 9, order + 300), combine(7, 9, 300));
        assert_eq!(combine(combine(7, 0, 1 << 40), 9, 1 << 40), combine(7, 9, 1 << 41));
    }

    proptest! {
        #[test]
        fn combining_two_pieces_is_the_crc_of_the_whole(
            bytes in proptest::collection::vec(any::<u8>(), 0..5_000),
            cut in 0.0..=1.0,
        ) {
            let (a, b) = bytes.split_at((bytes.len() as f64 * cut) as usize);
            prop_assert_eq!(combine(crc32c(a), crc32c(b), b.len() as u64), crc32c(&bytes));
            prop_assert_eq!(extend(crc32c(a), b), crc32c(&bytes));
        }
    }
}
