//! Kafka's primitive types: fixed-width integers, strings, bytes, arrays, tagged fields.
//!
//! ```text
//!             plain                      compact (flexible versions, KIP-482)
//!  string     i16 length, -1 = null      uvarint length + 1, 0 = null
//!  bytes      i32 length, -1 = null      uvarint length + 1, 0 = null
//!  array      i32 count, -1 = null       uvarint count + 1, 0 = null
//!  tags       absent                     uvarint count, then (uvarint tag, uvarint size, value)
//! ```
//!
//! Reading is bounded: no length from the wire leads to an allocation before the bytes for it are
//! known to exist, and all arrays of a message together stay within a budget that follows from
//! the message's length. Strings and bytes are slices of the input.
//!
//! Deviation from Kafka: a length below -1 is refused, where Kafka takes any negative length for
//! null; and a tagged field must have exactly the size it announces.

use chronik_common::Uuid;

use crate::error::{DecodeReason, EncodeReason, ReadError, WriteError};
use crate::output::{OutputBuffer, UVARINT_BYTES_MAX};
use crate::records::Records;

/// Most elements of one array.
pub const ARRAY_ELEMENTS_MAX: usize = 1_000_000;

/// Most elements that room is made for before the first of them is read.
const ARRAY_ELEMENTS_INITIAL: usize = 1_000;

/// Most tagged fields of one struct.
pub const TAGGED_FIELDS_MAX: usize = 10_000;

/// Longest string in bytes. The plain form cannot say more; Kafka refuses more in the compact
/// form, too.
pub const STRING_BYTES_MAX: usize = i16::MAX as usize;

/// What a message may allocate, whatever its length, in bytes.
pub const ALLOCATION_BYTES_BASE: usize = 64 * 1024;

/// What a message may allocate in addition, for each of its own bytes.
pub const ALLOCATION_BYTES_PER_INPUT_BYTE: usize = 8;

/// Reads primitive values from the bytes of one message.
///
/// Every method names the schema field it reads, for the error. After an error the position is
/// unspecified.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    /// Bytes that arrays may still allocate.
    allocation_left: usize,
}

/// Defines the readers and writers of fixed-width integers.
macro_rules! fixed_width {
    ($($type:ident, $put:ident;)*) => {
        impl Reader<'_> {
            $(
                #[doc = concat!("Reads a big-endian `", stringify!($type), "`.")]
                ///
                /// # Errors
                ///
                /// If there are too few bytes.
                pub fn $type(&mut self, field: &'static str) -> Result<$type, ReadError> {
                    Ok($type::from_be_bytes(self.take_array(field)?))
                }
            )*
        }

        impl OutputBuffer {
            $(
                #[doc = concat!("Puts a big-endian `", stringify!($type), "`.")]
                pub fn $put(&mut self, value: $type) {
                    self.put_slice(&value.to_be_bytes());
                }
            )*
        }
    };
}

fixed_width! {
    i8, put_i8;
    i16, put_i16;
    i32, put_i32;
    i64, put_i64;
    u16, put_u16;
    u32, put_u32;
    f64, put_f64;
}

impl<'a> Reader<'a> {
    /// A reader of `bytes`, with the allocation budget that their length gives.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        let earned = bytes.len().saturating_mul(ALLOCATION_BYTES_PER_INPUT_BYTE);
        Self { rest: bytes, allocation_left: ALLOCATION_BYTES_BASE.saturating_add(earned) }
    }

    /// Bytes not read yet.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The bytes not read yet.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Reads a byte as a truth value: anything but 0 is true, as in Kafka.
    ///
    /// # Errors
    ///
    /// If there is no byte.
    pub fn bool(&mut self, field: &'static str) -> Result<bool, ReadError> {
        Ok(self.i8(field)? != 0)
    }

    /// Reads 16 bytes as an id.
    ///
    /// # Errors
    ///
    /// If there are too few bytes.
    pub fn uuid(&mut self, field: &'static str) -> Result<Uuid, ReadError> {
        Ok(Uuid(self.take_array(field)?))
    }

    /// Reads an unsigned variable-length integer.
    ///
    /// # Errors
    ///
    /// If it has more than 5 bytes or 32 bits, or does not end.
    pub fn uvarint(&mut self, field: &'static str) -> Result<u32, ReadError> {
        // Most are below 128: counts and lengths of names.
        match self.rest {
            [byte @ 0..0x80, rest @ ..] => {
                self.rest = rest;
                Ok(u32::from(*byte))
            }
            _ => self.long_uvarint(field),
        }
    }

    fn long_uvarint(&mut self, field: &'static str) -> Result<u32, ReadError> {
        let mut value: u64 = 0;
        for index in 0..UVARINT_BYTES_MAX {
            let [byte] = self.take_array(field)?;
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| fault(field, DecodeReason::Varint));
            }
        }
        Err(fault(field, DecodeReason::Varint))
    }

    /// Reads a string that cannot be null.
    ///
    /// # Errors
    ///
    /// If it is null, too long, cut off, or not UTF-8.
    pub fn string(&mut self, field: &'static str, compact: bool) -> Result<&'a str, ReadError> {
        self.optional_string(field, compact, false)?.ok_or(fault(field, DecodeReason::Null))
    }

    /// Reads a string that can be null if `nullable`.
    ///
    /// # Errors
    ///
    /// If it is null although it cannot be, too long, cut off, or not UTF-8.
    pub fn optional_string(
        &mut self,
        field: &'static str,
        compact: bool,
        nullable: bool,
    ) -> Result<Option<&'a str>, ReadError> {
        let length = if compact {
            self.compact_length(field)?
        } else {
            let length = self.i16(field)?;
            plain_length(field, length.into())?
        };
        let Some(length) = null_if_allowed(field, length, nullable)? else { return Ok(None) };
        if length > STRING_BYTES_MAX {
            return Err(fault(field, DecodeReason::StringTooLong { length }));
        }
        let text = std::str::from_utf8(self.take(field, length)?);
        text.map(Some).map_err(|_| fault(field, DecodeReason::Utf8))
    }

    /// Reads bytes that cannot be null.
    ///
    /// # Errors
    ///
    /// If they are null or cut off.
    pub fn bytes(&mut self, field: &'static str, compact: bool) -> Result<&'a [u8], ReadError> {
        self.optional_bytes(field, compact, false)?.ok_or(fault(field, DecodeReason::Null))
    }

    /// Reads bytes that can be null if `nullable`.
    ///
    /// # Errors
    ///
    /// If they are null although they cannot be, or cut off.
    pub fn optional_bytes(
        &mut self,
        field: &'static str,
        compact: bool,
        nullable: bool,
    ) -> Result<Option<&'a [u8]>, ReadError> {
        let length = self.long_length(field, compact)?;
        match null_if_allowed(field, length, nullable)? {
            Some(length) => self.take(field, length).map(Some),
            None => Ok(None),
        }
    }

    /// Reads an array that cannot be null; `read` reads one element, which takes at least
    /// `element_bytes_min` bytes.
    ///
    /// # Errors
    ///
    /// If the array is null or has more elements than bytes, limit or budget allow; and those of
    /// `read`.
    pub fn array<T>(
        &mut self,
        field: &'static str,
        compact: bool,
        element_bytes_min: usize,
        read: impl FnMut(&mut Self) -> Result<T, ReadError>,
    ) -> Result<Vec<T>, ReadError> {
        self.optional_array(field, compact, false, element_bytes_min, read)?
            .ok_or(fault(field, DecodeReason::Null))
    }

    /// Reads an array that can be null if `nullable`; otherwise like [`array`](Self::array).
    ///
    /// # Errors
    ///
    /// If the array is null although it cannot be, or has more elements than bytes, limit or
    /// budget allow; and those of `read`.
    pub fn optional_array<T>(
        &mut self,
        field: &'static str,
        compact: bool,
        nullable: bool,
        element_bytes_min: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, ReadError>,
    ) -> Result<Option<Vec<T>>, ReadError> {
        let count = self.optional_count(field, compact, nullable, element_bytes_min)?;
        let Some(count) = count else { return Ok(None) };
        let initial = count.min(ARRAY_ELEMENTS_INITIAL);
        self.charge::<T>(field, initial)?;
        let mut elements = Vec::with_capacity(initial);
        for index in 0..count {
            if index == ARRAY_ELEMENTS_INITIAL {
                self.charge::<T>(field, count)?;
                elements.reserve_exact(count - index);
            }
            elements.push(read(self)?);
        }
        Ok(Some(elements))
    }

    /// Reads the count of an array that cannot be null, whose elements the caller reads; each
    /// takes at least `element_bytes_min` bytes.
    ///
    /// # Errors
    ///
    /// If the array is null or has more elements than bytes or limit allow.
    pub fn element_count(
        &mut self,
        field: &'static str,
        compact: bool,
        element_bytes_min: usize,
    ) -> Result<usize, ReadError> {
        self.optional_count(field, compact, false, element_bytes_min)?
            .ok_or(fault(field, DecodeReason::Null))
    }

    fn optional_count(
        &mut self,
        field: &'static str,
        compact: bool,
        nullable: bool,
        element_bytes_min: usize,
    ) -> Result<Option<usize>, ReadError> {
        assert!(element_bytes_min > 0, "an element takes at least one byte");
        let count = self.long_length(field, compact)?;
        let Some(count) = null_if_allowed(field, count, nullable)? else { return Ok(None) };
        let limit = ARRAY_ELEMENTS_MAX.min(self.remaining() / element_bytes_min);
        if count > limit {
            return Err(fault(field, DecodeReason::TooManyElements { count, limit }));
        }
        Ok(Some(count))
    }

    /// Reads a struct's tagged fields. `read` reads the value of a tag it knows and answers true,
    /// or answers false without reading; the value is then skipped.
    ///
    /// # Errors
    ///
    /// If there are too many tagged fields or one is cut off or has another size than announced;
    /// and those of `read`.
    pub fn tagged_fields(
        &mut self,
        field: &'static str,
        mut read: impl FnMut(&mut Self, u32) -> Result<bool, ReadError>,
    ) -> Result<(), ReadError> {
        let count = self.uvarint(field)? as usize;
        if count > TAGGED_FIELDS_MAX {
            return Err(fault(field, DecodeReason::TooManyTags { count }));
        }
        for _ in 0..count {
            let tag = self.uvarint(field)?;
            let declared = self.uvarint(field)? as usize;
            let before = self.remaining();
            if read(self, tag)? {
                let used = before - self.remaining();
                if used != declared {
                    return Err(fault(field, DecodeReason::TagSize { declared, used }));
                }
            } else {
                self.take(field, declared)?;
            }
        }
        Ok(())
    }

    /// Skips a struct's tagged fields.
    ///
    /// # Errors
    ///
    /// If there are too many of them or one is cut off.
    pub fn skip_tagged_fields(&mut self, field: &'static str) -> Result<(), ReadError> {
        self.tagged_fields(field, |_, _| Ok(false))
    }

    fn take(&mut self, field: &'static str, needed: usize) -> Result<&'a [u8], ReadError> {
        let remaining = self.remaining();
        let Some((taken, rest)) = self.rest.split_at_checked(needed) else {
            return Err(fault(field, DecodeReason::Truncated { needed, remaining }));
        };
        self.rest = rest;
        Ok(taken)
    }

    fn take_array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], ReadError> {
        let remaining = self.remaining();
        let Some((taken, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(fault(field, DecodeReason::Truncated { needed: N, remaining }));
        };
        self.rest = rest;
        Ok(*taken)
    }

    /// Length of bytes or count of an array; `None` is null.
    fn long_length(
        &mut self,
        field: &'static str,
        compact: bool,
    ) -> Result<Option<usize>, ReadError> {
        if compact {
            self.compact_length(field)
        } else {
            let length = self.i32(field)?;
            plain_length(field, length.into())
        }
    }

    fn compact_length(&mut self, field: &'static str) -> Result<Option<usize>, ReadError> {
        let length_plus_one = self.uvarint(field)? as usize;
        Ok(length_plus_one.checked_sub(1))
    }

    /// Takes memory that the caller needs for what it reads from the message's budget.
    ///
    /// # Errors
    ///
    /// If the message's length does not allow so much.
    pub fn charge_bytes(&mut self, field: &'static str, bytes: usize) -> Result<(), ReadError> {
        let left = self.allocation_left.checked_sub(bytes);
        self.allocation_left = left.ok_or(fault(field, DecodeReason::AllocationBudget))?;
        Ok(())
    }

    /// Takes the memory of `count` elements from the budget.
    fn charge<T>(&mut self, field: &'static str, count: usize) -> Result<(), ReadError> {
        self.charge_bytes(field, size_of::<T>().saturating_mul(count))
    }
}

fn fault(field: &'static str, reason: DecodeReason) -> ReadError {
    ReadError { field, reason }
}

fn plain_length(field: &'static str, length: i64) -> Result<Option<usize>, ReadError> {
    match usize::try_from(length) {
        Ok(length) => Ok(Some(length)),
        Err(_) if length == -1 => Ok(None),
        Err(_) => Err(fault(field, DecodeReason::NegativeLength { length })),
    }
}

fn null_if_allowed(
    field: &'static str,
    length: Option<usize>,
    nullable: bool,
) -> Result<Option<usize>, ReadError> {
    match length {
        None if !nullable => Err(fault(field, DecodeReason::Null)),
        _ => Ok(length),
    }
}

impl OutputBuffer {
    /// Puts a truth value as one byte.
    pub fn put_bool(&mut self, value: bool) {
        self.put_i8(value.into());
    }

    /// Puts the 16 bytes of an id.
    pub fn put_uuid(&mut self, value: Uuid) {
        self.put_slice(&value.0);
    }

    /// Puts a string.
    ///
    /// # Errors
    ///
    /// If it is longer than [`STRING_BYTES_MAX`].
    pub fn put_string(
        &mut self,
        field: &'static str,
        value: &str,
        compact: bool,
    ) -> Result<(), WriteError> {
        let length = value.len();
        let Some(short) = i16::try_from(length).ok() else {
            return Err(WriteError { field, reason: EncodeReason::TooLong { length } });
        };
        if compact {
            self.put_uvarint(u32::from(short.unsigned_abs()) + 1);
        } else {
            self.put_i16(short);
        }
        self.put_slice(value.as_bytes());
        Ok(())
    }

    /// Puts a string that can be null if `nullable`.
    ///
    /// # Errors
    ///
    /// If it is null although it cannot be, or longer than [`STRING_BYTES_MAX`].
    pub fn put_optional_string(
        &mut self,
        field: &'static str,
        value: Option<&str>,
        compact: bool,
        nullable: bool,
    ) -> Result<(), WriteError> {
        match value {
            Some(value) => self.put_string(field, value, compact),
            None if !nullable => Err(WriteError { field, reason: EncodeReason::Null }),
            None if compact => {
                self.put_uvarint(0);
                Ok(())
            }
            None => {
                self.put_i16(-1);
                Ok(())
            }
        }
    }

    /// Puts bytes.
    ///
    /// # Errors
    ///
    /// If there are more than 2 GiB.
    pub fn put_bytes(
        &mut self,
        field: &'static str,
        value: &[u8],
        compact: bool,
    ) -> Result<(), WriteError> {
        self.put_length(field, value.len(), compact)?;
        self.put_slice(value);
        Ok(())
    }

    /// Puts records: shared slices as they are, borrowed ones copied.
    ///
    /// # Errors
    ///
    /// If there are more than 2 GiB.
    pub fn put_records(
        &mut self,
        field: &'static str,
        value: &Records<'_>,
        compact: bool,
    ) -> Result<(), WriteError> {
        self.put_length(field, value.len(), compact)?;
        match value {
            Records::Borrowed(slice) => self.put_slice(slice),
            Records::Shared(slice) => self.put_shared(slice.clone()),
            Records::Chain(slices) => {
                slices.iter().for_each(|slice| self.put_shared(slice.clone()));
            }
        }
        Ok(())
    }

    /// Puts the length of bytes or the count of an array.
    ///
    /// # Errors
    ///
    /// If it does not fit 31 bits.
    pub fn put_length(
        &mut self,
        field: &'static str,
        length: usize,
        compact: bool,
    ) -> Result<(), WriteError> {
        let Some(short) = i32::try_from(length).ok() else {
            return Err(WriteError { field, reason: EncodeReason::TooLong { length } });
        };
        if compact {
            self.put_uvarint(short.unsigned_abs() + 1);
        } else {
            self.put_i32(short);
        }
        Ok(())
    }

    /// Puts the null of bytes, records and arrays.
    ///
    /// # Errors
    ///
    /// If the field is not `nullable`.
    pub fn put_null(
        &mut self,
        field: &'static str,
        compact: bool,
        nullable: bool,
    ) -> Result<(), WriteError> {
        if !nullable {
            return Err(WriteError { field, reason: EncodeReason::Null });
        }
        if compact {
            self.put_uvarint(0);
        } else {
            self.put_i32(-1);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELD: &str = "field";

    /// Why `read` refuses `bytes`.
    fn refusal<'a, T>(
        bytes: &'a [u8],
        read: impl FnOnce(&mut Reader<'a>) -> Result<T, ReadError>,
    ) -> Option<DecodeReason> {
        read(&mut Reader::new(bytes)).err().map(|error| error.reason)
    }

    #[test]
    fn null_is_accepted_only_where_it_is_allowed() {
        for (compact, null) in [(true, [0, 0, 0, 0]), (false, [0xff; 4])] {
            let string = |nullable| {
                let read = Reader::new(&null).optional_string(FIELD, compact, nullable);
                read.map_err(|error| error.reason)
            };
            assert_eq!((string(true), string(false)), (Ok(None), Err(DecodeReason::Null)));
            let bytes = |nullable| {
                let read = Reader::new(&null).optional_bytes(FIELD, compact, nullable);
                read.map_err(|error| error.reason)
            };
            assert_eq!((bytes(true), bytes(false)), (Ok(None), Err(DecodeReason::Null)));
            let array = |nullable| {
                let mut reader = Reader::new(&null);
                let read = reader.optional_array(FIELD, compact, nullable, 1, |r| r.i8(FIELD));
                read.map_err(|error| error.reason)
            };
            assert_eq!((array(true), array(false)), (Ok(None), Err(DecodeReason::Null)));
        }
    }

    #[test]
    fn variable_length_integers_have_at_most_five_bytes_and_32_bits() {
        let read = |bytes: &[u8]| Reader::new(bytes).uvarint(FIELD).map_err(|error| error.reason);
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Ok(u32::MAX));
        assert_eq!(read(&[0x80, 0x01]), Ok(128));
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0x1f]), Err(DecodeReason::Varint));
        assert_eq!(read(&[0x80, 0x80, 0x80, 0x80, 0x80, 0]), Err(DecodeReason::Varint));
        let cut_off = DecodeReason::Truncated { needed: 1, remaining: 0 };
        assert_eq!(read(&[0x80]), Err(cut_off));
    }

    #[test]
    fn strings_are_utf8_of_at_most_32767_bytes() {
        let mut longest = vec![0x80, 0x80, 0x02];
        longest.resize(longest.len() + 0x8000, b'a');
        assert_eq!(refusal(&longest, |r| r.string(FIELD, true)), None);
        longest[0] += 1;
        let too_long = Some(DecodeReason::StringTooLong { length: 0x8000 });
        assert_eq!(refusal(&longest, |r| r.string(FIELD, true)), too_long);
        assert_eq!(refusal(&[3, 0xc3, 0x28], |r| r.string(FIELD, true)), Some(DecodeReason::Utf8));
        let negative = Some(DecodeReason::NegativeLength { length: -2 });
        assert_eq!(refusal(&[0xff, 0xfe], |r| r.string(FIELD, false)), negative);
    }

    #[test]
    fn a_known_tagged_field_has_exactly_the_size_it_announces() {
        let read_tag_5 = |reader: &mut Reader<'_>, tag| {
            if tag == 5 { reader.i32(FIELD).map(|_| true) } else { Ok(false) }
        };
        let read = |bytes: &[u8]| refusal(bytes, |r| r.tagged_fields(FIELD, read_tag_5));
        assert_eq!(read(&[2, 1, 3, 9, 9, 9, 5, 4, 0, 0, 0, 1]), None);
        let wrong = Some(DecodeReason::TagSize { declared: 5, used: 4 });
        assert_eq!(read(&[1, 5, 5, 0, 0, 0, 1, 0]), wrong);
        let many = Some(DecodeReason::TooManyTags { count: 10_001 });
        assert_eq!(read(&[0x91, 0x4e]), many);
    }

    #[test]
    fn a_tagged_field_longer_than_its_size_has_room_for_is_moved() {
        for length in [0_usize, 100, 127, 128, 300, 20_000] {
            let mut out = OutputBuffer::new();
            out.put_uvarint(1);
            let mark = out.begin_tagged_field(3);
            let content: Vec<u8> = (0..length).map(|i| i as u8).collect();
            out.put_slice(&content);
            out.end_tagged_field(FIELD, mark).unwrap();
            let bytes = out.to_vec();

            let mut found = None;
            let mut reader = Reader::new(&bytes);
            let read = reader.tagged_fields(FIELD, |reader, tag| {
                found = Some((tag, reader.take(FIELD, length)?));
                Ok(true)
            });
            assert_eq!((read, found), (Ok(()), Some((3, content.as_slice()))), "{length}");
            assert_eq!(reader.remaining(), 0);
        }
    }
}
