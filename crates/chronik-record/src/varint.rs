//! Zig-zag varints of record fields, as in `org.apache.kafka.common.utils.ByteUtils`.
//!
//! A 32-bit value takes at most 5 bytes, a 64-bit value at most 10. Padding inside those bounds
//! is accepted, as Kafka does; bits beyond the type are refused, where Kafka drops them.

use crate::error::RecordDefect;

/// Takes a zig-zag varint of 32 bits off the front of `input`.
pub(crate) fn take_i32(input: &mut &[u8]) -> Result<i32, RecordDefect> {
    let bits = take_unsigned::<32>(input)? as u32;
    Ok((bits >> 1) as i32 ^ -((bits & 1) as i32))
}

/// Takes a zig-zag varint of 64 bits off the front of `input`.
pub(crate) fn take_i64(input: &mut &[u8]) -> Result<i64, RecordDefect> {
    let bits = take_unsigned::<64>(input)?;
    Ok((bits >> 1) as i64 ^ -((bits & 1) as i64))
}

fn take_unsigned<const BITS: u32>(input: &mut &[u8]) -> Result<u64, RecordDefect> {
    let mut value = 0;
    let mut shift = 0;
    while shift < BITS {
        let (&byte, rest) = input.split_first().ok_or(RecordDefect::Truncated)?;
        *input = rest;
        let group = u64::from(byte & 0x7f);
        if shift + 7 > BITS && group >> (BITS - shift) != 0 {
            break;
        }
        value |= group << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
        shift += 7;
    }
    Err(RecordDefect::VarintOverflow)
}

/// Appends `value` as a zig-zag varint.
pub(crate) fn put_i32(output: &mut Vec<u8>, value: i32) {
    put_unsigned(output, u64::from(((value << 1) ^ (value >> 31)) as u32));
}

/// Appends `value` as a zig-zag varint.
pub(crate) fn put_i64(output: &mut Vec<u8>, value: i64) {
    put_unsigned(output, ((value << 1) ^ (value >> 63)) as u64);
}

fn put_unsigned(output: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        output.push(value as u8 | 0x80);
        value >>= 7;
    }
    output.push(value as u8);
}

/// Bytes that [`put_i32`] appends for `value`: 1 to 5.
pub(crate) fn size_i32(value: i32) -> usize {
    size_unsigned(u64::from(((value << 1) ^ (value >> 31)) as u32))
}

/// Bytes that [`put_i64`] appends for `value`: 1 to 10.
pub(crate) fn size_i64(value: i64) -> usize {
    size_unsigned(((value << 1) ^ (value >> 63)) as u64)
}

fn size_unsigned(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_value_round_trips_in_the_size_announced(narrow: i32, wide: i64) {
            let mut bytes = Vec::new();
            put_i32(&mut bytes, narrow);
            prop_assert_eq!(bytes.len(), size_i32(narrow));
            put_i64(&mut bytes, wide);
            prop_assert_eq!(bytes.len(), size_i32(narrow) + size_i64(wide));
            let mut rest = bytes.as_slice();
            prop_assert_eq!(take_i32(&mut rest), Ok(narrow));
            prop_assert_eq!(take_i64(&mut rest), Ok(wide));
            prop_assert!(rest.is_empty());
        }
    }

    #[test]
    fn extremes_take_five_and_ten_bytes() {
        for value in [i32::MIN, i32::MAX] {
            let mut bytes = Vec::new();
            put_i32(&mut bytes, value);
            assert_eq!(bytes.len(), 5);
            assert_eq!(take_i32(&mut bytes.as_slice()), Ok(value));
        }
        for value in [i64::MIN, i64::MAX] {
            let mut bytes = Vec::new();
            put_i64(&mut bytes, value);
            assert_eq!(bytes.len(), 10);
            assert_eq!(take_i64(&mut bytes.as_slice()), Ok(value));
        }
    }

    #[test]
    fn bits_beyond_the_type_are_refused_and_padding_within_it_is_not() {
        let overflow = Err(RecordDefect::VarintOverflow);
        assert_eq!(take_i32(&mut [0xff, 0xff, 0xff, 0xff, 0x1f].as_slice()), overflow);
        assert_eq!(take_i32(&mut [0x80, 0x80, 0x80, 0x80, 0x80, 0x00].as_slice()), overflow);
        let mut ten = [0xff; 10];
        ten[9] = 0x03;
        assert_eq!(take_i64(&mut ten.as_slice()), Err(RecordDefect::VarintOverflow));
        assert_eq!(take_i32(&mut [0x82, 0x80, 0x80, 0x80, 0x00].as_slice()), Ok(1));
        assert_eq!(take_i32(&mut [0x80, 0x80].as_slice()), Err(RecordDefect::Truncated));
    }
}
