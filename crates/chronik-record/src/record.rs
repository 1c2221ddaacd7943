//! The records inside a batch, one after the other.
//!
//! Owns decompressing a batch's records ([`Records`]) and decoding them ([`RecordIter`]). Each
//! record is checked against its own length and against the header; keys, values and headers are
//! slices of the decompressed block. Decoding stops at the first defect.
//!
//! ```text
//!   length varint | attributes i8, unused | timestamp delta varlong | offset delta varint
//!   key length varint, -1 null | key | value length varint, -1 null | value
//!   header count varint | { key length varint | key | value length varint, -1 null | value }
//! ```
//!
//! Source: `org.apache.kafka.common.record.DefaultRecord`.

use std::borrow::Cow;
use std::iter::FusedIterator;

use chronik_common::Offset;

use crate::batch::{BatchHeader, TimestampType};
use crate::compression::{Codec, DecompressionLimits, decompress};
use crate::error::{BatchError, Corruption, RecordDefect, UnsupportedCodec, Violation};
use crate::varint;

/// Opens the records of `batch`, which must be exactly one batch. Decompresses under `limits` if
/// the batch is compressed. The CRC is not looked at: the batch was validated before, or the
/// caller uses [`BatchHeader::verify_crc`].
///
/// ```
/// # use chronik_record::{BatchBuilder, Codec, DecompressionLimits, records};
/// # let mut builder = BatchBuilder::new(Codec::Lz4);
/// # builder.append(0, Some(b"key"), Some(b"value"), &[]);
/// # let batch = builder.build();
/// for record in &records(&batch, DecompressionLimits::output_bytes(1 << 20))? {
///     assert_eq!(record?.key, Some(b"key".as_slice()));
/// }
/// # Ok::<(), chronik_record::BatchError>(())
/// ```
///
/// # Errors
/// Those of [`BatchHeader::parse`], a wrong size, a negative record count, an unknown codec, or
/// a block that does not decompress within the limits. Defects of single records come from the
/// iterator.
pub fn records(batch: &[u8], limits: DecompressionLimits) -> Result<Records<'_>, BatchError> {
    let header = BatchHeader::parse(batch)?;
    let size = header.size();
    if batch.len() < size {
        return Err(Corruption::Truncated { needed: size, available: batch.len() }.into());
    }
    if batch.len() > size {
        return Err(Corruption::TrailingBytes { count: batch.len() - size }.into());
    }
    if header.record_count < 0 {
        return Err(Violation::RecordCount {
            record_count: header.record_count,
            last_offset_delta: header.last_offset_delta,
        }
        .into());
    }
    let codec = header.attributes.codec().map_err(UnsupportedCodec::Unknown)?;
    let block = &batch[BatchHeader::SIZE..];
    // Compaction leaves batches without records, which carry no compressed block either.
    let body = if codec == Codec::None || block.is_empty() {
        Cow::Borrowed(block)
    } else {
        Cow::Owned(decompress(codec, block, limits)?)
    };
    Ok(Records { header, body })
}

/// The decompressed records of one batch.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    header: BatchHeader,
    body: Cow<'a, [u8]>,
}

impl Records<'_> {
    /// The header of the batch.
    #[must_use]
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The records as bytes, decompressed.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The same records with the producer's timestamps, whatever the attributes say.
    pub(crate) fn with_create_time(mut self) -> Self {
        self.header.attributes =
            self.header.attributes.with_timestamp_type(TimestampType::CreateTime);
        self
    }

    /// The records in order.
    #[must_use]
    pub fn iter(&self) -> RecordIter<'_> {
        RecordIter {
            header: &self.header,
            rest: &self.body,
            next_index: 0,
            offset_delta_min: 0,
            is_done: false,
        }
    }
}

impl<'b> IntoIterator for &'b Records<'_> {
    type Item = Result<Record<'b>, BatchError>;
    type IntoIter = RecordIter<'b>;

    fn into_iter(self) -> RecordIter<'b> {
        self.iter()
    }
}

/// Decodes records in order; ends after the first error. An error is also what comes last if
/// bytes are left behind the last record.
#[derive(Clone, Debug)]
pub struct RecordIter<'a> {
    header: &'a BatchHeader,
    rest: &'a [u8],
    /// Index of the record that comes next; at most the header's record count.
    next_index: i32,
    /// Smallest offset delta the next record may have: one above the record before it.
    offset_delta_min: i32,
    is_done: bool,
}

impl<'a> RecordIter<'a> {
    fn decode_next(&mut self) -> Result<Record<'a>, Violation> {
        let record_index = self.next_index;
        let record =
            self.take_record().map_err(|defect| Violation::Record { record_index, defect })?;
        self.next_index += 1;
        Ok(record)
    }

    fn take_record(&mut self) -> Result<Record<'a>, RecordDefect> {
        let length = varint::take_i32(&mut self.rest)?;
        let mut fields = take_bytes(&mut self.rest, length)?;
        let _attributes = take_bytes(&mut fields, 1)?;
        let timestamp_delta = varint::take_i64(&mut fields)?;
        let offset_delta = varint::take_i32(&mut fields)?;
        let key = take_nullable_bytes(&mut fields)?;
        let value = take_nullable_bytes(&mut fields)?;
        let headers = RecordHeaders::take(&mut fields)?;
        if !fields.is_empty() {
            return Err(RecordDefect::BytesLeft { count: fields.len() });
        }
        if offset_delta < self.offset_delta_min || offset_delta > self.header.last_offset_delta {
            return Err(RecordDefect::OffsetDelta { offset_delta });
        }
        // At i32::MAX no larger delta exists, and the next record fails on repeating this one.
        self.offset_delta_min = offset_delta.saturating_add(1);
        Ok(Record {
            offset: Offset(self.header.base_offset.0.saturating_add(i64::from(offset_delta))),
            offset_delta,
            timestamp: self.timestamp(timestamp_delta),
            key,
            value,
            headers,
        })
    }

    /// Wraps around like Java's addition, so that every pair of timestamps has a delta.
    fn timestamp(&self, delta: i64) -> i64 {
        match self.header.attributes.timestamp_type() {
            TimestampType::CreateTime => self.header.base_timestamp.wrapping_add(delta),
            TimestampType::LogAppendTime => self.header.max_timestamp,
        }
    }
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = Result<Record<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_done {
            return None;
        }
        let result = if self.next_index < self.header.record_count {
            self.decode_next()
        } else {
            self.is_done = true;
            if self.rest.is_empty() {
                return None;
            }
            Err(Violation::BytesAfterRecords { count: self.rest.len() })
        };
        self.is_done |= result.is_err();
        Some(result.map_err(BatchError::from))
    }
}

impl FusedIterator for RecordIter<'_> {}

/// One record, borrowed from its batch.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// Absolute offset.
    pub offset: Offset,
    /// Offset relative to the batch's base offset, from 0.
    pub offset_delta: i32,
    /// In ms since the Unix epoch, -1 without one; the batch's append time if its timestamp type
    /// says so.
    pub timestamp: i64,
    /// Key, or `None` for null.
    pub key: Option<&'a [u8]>,
    /// Value, or `None` for null (a tombstone on compacted topics).
    pub value: Option<&'a [u8]>,
    headers: RecordHeaders<'a>,
}

impl<'a> Record<'a> {
    /// The headers in the order written, duplicates included.
    #[must_use]
    pub fn headers(&self) -> RecordHeaders<'a> {
        self.headers.clone()
    }
}

/// One header of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordHeader<'a> {
    /// Name; UTF-8 by convention, not checked.
    pub key: &'a [u8],
    /// Value, or `None` for null.
    pub value: Option<&'a [u8]>,
}

/// Iterator over the headers of one record. They were checked when the record was decoded.
#[derive(Clone, Debug)]
pub struct RecordHeaders<'a> {
    /// Encoded headers, `count` of them.
    bytes: &'a [u8],
    count: usize,
}

impl<'a> RecordHeaders<'a> {
    /// Takes the header count and the headers off the front of `fields`, checking each.
    fn take(fields: &mut &'a [u8]) -> Result<Self, RecordDefect> {
        let length = varint::take_i32(fields)?;
        let count = usize::try_from(length).map_err(|_| RecordDefect::Length { length })?;
        let bytes = *fields;
        for _ in 0..count {
            take_header(fields)?;
        }
        Ok(Self { bytes: &bytes[..bytes.len() - fields.len()], count })
    }
}

impl<'a> Iterator for RecordHeaders<'a> {
    type Item = RecordHeader<'a>;

    fn next(&mut self) -> Option<RecordHeader<'a>> {
        self.count = self.count.checked_sub(1)?;
        Some(take_header(&mut self.bytes).expect("every header was checked with its record"))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.count, Some(self.count))
    }
}

impl ExactSizeIterator for RecordHeaders<'_> {}

fn take_header<'a>(fields: &mut &'a [u8]) -> Result<RecordHeader<'a>, RecordDefect> {
    let key_length = varint::take_i32(fields)?;
    let key = take_bytes(fields, key_length)?;
    let value = take_nullable_bytes(fields)?;
    Ok(RecordHeader { key, value })
}

fn take_nullable_bytes<'a>(fields: &mut &'a [u8]) -> Result<Option<&'a [u8]>, RecordDefect> {
    match varint::take_i32(fields)? {
        -1 => Ok(None),
        length => take_bytes(fields, length).map(Some),
    }
}

fn take_bytes<'a>(fields: &mut &'a [u8], length: i32) -> Result<&'a [u8], RecordDefect> {
    let count = usize::try_from(length).map_err(|_| RecordDefect::Length { length })?;
    let (bytes, rest) = fields.split_at_checked(count).ok_or(RecordDefect::Truncated)?;
    *fields = rest;
    Ok(bytes)
}
