//! Reading frames back from segments. Every header and every body is verified before a byte of
//! it leaves this file (P12).

use std::sync::Arc;

use bytes::Bytes;
use chronik_common::Offset;

use crate::error::{DamageReason, WalError};
use crate::frame::{FRAME_HEADER_SIZE, FrameHeader, FrameKind};
use crate::invariants::is_next_frame;
use crate::offset_index::IndexEntry;
use crate::read_buffers::ReadBuffers;
use crate::segment::{SEGMENT_HEADER_SIZE, Segment};

/// Most bytes read at once for a consumer, unless one batch is larger.
const READ_BYTES_MAX: usize = 1 << 20;
/// Fewest bytes read at once.
const READ_BYTES_MIN: usize = 64 << 10;
/// Bytes read at once while scanning a whole segment.
const SCAN_BYTES: usize = 1 << 20;

/// A range of one segment to read, outside of any lock.
#[derive(Clone, Debug)]
pub struct SegmentRange {
    /// The segment.
    pub segment: Arc<Segment>,
    /// Where to start, if that is known; else the sealed segment is asked for its index.
    pub start_position: Option<u64>,
    /// Frames are in the file up to here, exclusive.
    pub end_position: u64,
    /// The first wanted offset.
    pub offset: Offset,
    /// Only whole batches below this offset.
    pub upper: Offset,
    /// Stop before the batch that would exceed this; the first is given all the same, unless this
    /// is a rest.
    pub bytes_max: usize,
    /// It lies behind what was read of another range, and may hold no batch at all.
    pub is_rest: bool,
}

/// Whole batches at the start of a range.
#[derive(Debug)]
pub struct SegmentPiece {
    /// Their bodies, in order.
    pub bodies: Vec<Bytes>,
    /// The range behind them; `None` if nothing in it fits, or what fits is not worth a read.
    pub rest: Option<SegmentRange>,
}

/// Where a read may look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadMode {
    /// Only where no device is waited for.
    Cached,
    /// Anywhere; blocks.
    Blocking,
}

impl SegmentRange {
    /// Reads bodies of whole batches, in order, into `buffers`: those that come with one call,
    /// which is a megabyte at most unless the first batch is larger. `None` in
    /// [`ReadMode::Cached`] when the device would be needed.
    ///
    /// # Errors
    /// A failed read, or [`WalError::Damaged`] when the wanted batch does not verify.
    pub fn read(
        &self,
        mode: ReadMode,
        buffers: &ReadBuffers,
    ) -> Result<Option<Vec<Bytes>>, WalError> {
        Ok(self.read_piece(self.bytes_max, mode, buffers)?.map(|piece| piece.bodies))
    }

    /// The same, stopping before the batch that would exceed `piece_bytes_max`, unless it is the
    /// first. The rest can be read later, from where it begins, without an index.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_piece(
        &self,
        piece_bytes_max: usize,
        mode: ReadMode,
        buffers: &ReadBuffers,
    ) -> Result<Option<SegmentPiece>, WalError> {
        let Some(mut position) = self.find_start(mode)? else { return Ok(None) };
        let piece_bytes_max = piece_bytes_max.min(self.bytes_max);
        let wanted = piece_bytes_max.saturating_add(FRAME_HEADER_SIZE);
        let mut want = wanted.clamp(READ_BYTES_MIN, READ_BYTES_MAX);
        let mut previous = None;
        loop {
            let Some(chunk) = self.read_chunk(position, want, mode, buffers)? else {
                return Ok(None);
            };
            let collected = self.collect(position, piece_bytes_max, &chunk, &mut previous)?;
            let is_empty_rest = self.is_rest && collected.next_position >= self.end_position;
            if !collected.bodies.is_empty() || collected.is_finished || is_empty_rest {
                let rest = self.behind(&collected, previous.as_ref());
                return Ok(Some(SegmentPiece { bodies: collected.bodies, rest }));
            }
            // The log says that the wanted batch is in this file, whole.
            let next_end = collected.next_position.saturating_add(collected.next_size as u64);
            if next_end > self.end_position {
                return Err(damaged(&self.segment, collected.next_position, DamageReason::Chain));
            }
            // The wanted batch lies behind this chunk, or does not fit into it.
            assert!(
                collected.next_position > position || collected.next_size > chunk.len(),
                "a read makes progress: {} bytes at {position} of {:?}",
                chunk.len(),
                self.segment
            );
            position = collected.next_position;
            want = want.max(collected.next_size);
        }
    }

    /// What is left behind what was collected, the last frame of which is `last`.
    fn behind(&self, collected: &Collected, last: Option<&FrameHeader>) -> Option<Self> {
        let given: usize = collected.bodies.iter().map(Bytes::len).sum();
        let bytes_max = self.bytes_max.saturating_sub(given);
        let is_over = collected.is_finished
            || bytes_max < READ_BYTES_MIN
            || collected.next_position >= self.end_position;
        let last = last.filter(|_| !is_over)?;
        Some(Self {
            start_position: Some(collected.next_position),
            offset: last.next_offset(),
            bytes_max,
            is_rest: true,
            ..self.clone()
        })
    }

    fn find_start(&self, mode: ReadMode) -> Result<Option<u64>, WalError> {
        if let Some(position) = self.start_position {
            return Ok(Some(position));
        }
        let index = match (self.segment.cached_index(), mode) {
            (Some(index), _) => index,
            (None, ReadMode::Cached) => return Ok(None),
            (None, ReadMode::Blocking) => self.segment.sealed_index()?,
        };
        let relative = (self.offset.0 - self.segment.header.first_offset.0).max(0) as u64;
        Ok(Some(index.position_of(relative).unwrap_or(SEGMENT_HEADER_SIZE)))
    }

    fn read_chunk(
        &self,
        position: u64,
        want: usize,
        mode: ReadMode,
        buffers: &ReadBuffers,
    ) -> Result<Option<Bytes>, WalError> {
        let available = self.end_position.saturating_sub(position);
        let mut chunk = buffers.take(want.min(usize::try_from(available).unwrap_or(want)));
        let read = match mode {
            ReadMode::Blocking => self.segment.read_at(position, chunk.as_mut())?,
            ReadMode::Cached => match self.segment.read_cached_at(position, chunk.as_mut())? {
                Some(read) => read,
                None => return Ok(None),
            },
        };
        if read < chunk.as_ref().len() {
            return Err(damaged(&self.segment, position + read as u64, DamageReason::TooShort));
        }
        Ok(Some(chunk.freeze()))
    }

    fn collect(
        &self,
        start: u64,
        piece_bytes_max: usize,
        chunk: &Bytes,
        previous: &mut Option<FrameHeader>,
    ) -> Result<Collected, WalError> {
        let mut collected = Collected {
            bodies: Vec::new(),
            is_finished: false,
            next_position: start,
            next_size: FRAME_HEADER_SIZE,
        };
        let mut at = 0;
        let mut bytes: usize = 0;
        loop {
            collected.next_position = start + at as u64;
            if collected.next_position >= self.end_position {
                return Ok(collected);
            }
            let Some(header_bytes) = chunk.get(at..at + FRAME_HEADER_SIZE) else {
                return Ok(collected);
            };
            let damage = |reason| damaged(&self.segment, start + at as u64, reason);
            let header =
                decode_in(&self.segment, header_bytes, previous.as_ref()).map_err(damage)?;
            // An index leads to the wanted batch or before it, never behind it.
            if previous.is_none() && header.base_offset > self.offset {
                return Err(damage(DamageReason::Chain));
            }
            let is_past_upper = header.next_offset() > self.upper;
            let is_first = collected.bodies.is_empty();
            let end = bytes + header.body_len as usize;
            if is_past_upper || (end > self.bytes_max && (!is_first || self.is_rest)) {
                collected.is_finished = true;
                return Ok(collected);
            }
            if end > piece_bytes_max && !is_first {
                return Ok(collected);
            }
            let body_at = at + FRAME_HEADER_SIZE;
            let body_end = body_at + header.body_len as usize;
            collected.next_size = FRAME_HEADER_SIZE + header.body_len as usize;
            if body_end > chunk.len() {
                return Ok(collected);
            }
            if header.kind == FrameKind::Data && header.next_offset() > self.offset {
                if !header.matches_body(&chunk[body_at..body_end]) {
                    return Err(damage(DamageReason::BodyChecksum));
                }
                bytes += header.body_len as usize;
                collected.bodies.push(chunk.slice(body_at..body_end));
            }
            *previous = Some(header);
            collected.next_size = FRAME_HEADER_SIZE;
            at = body_end;
        }
    }
}

struct Collected {
    bodies: Vec<Bytes>,
    /// The next batch does not belong to the range, or does not fit.
    is_finished: bool,
    next_position: u64,
    next_size: usize,
}

fn damaged(segment: &Segment, position: u64, reason: DamageReason) -> WalError {
    WalError::Damaged { file: segment.path().display().to_string(), position, reason }
}

/// Decodes a header that belongs to `segment` and follows `previous`.
fn decode_in(
    segment: &Segment,
    bytes: &[u8],
    previous: Option<&FrameHeader>,
) -> Result<FrameHeader, DamageReason> {
    let bytes = bytes.try_into().map_err(|_| DamageReason::TooShort)?;
    let (header, nonce) = FrameHeader::decode(bytes)?;
    if nonce != segment.header.nonce {
        return Err(DamageReason::Nonce);
    }
    if let Some(previous) = previous
        && (!is_next_frame(previous, &header) || header.prev_chain != previous.chain())
    {
        return Err(DamageReason::Chain);
    }
    Ok(header)
}

/// One verified frame of a scan.
#[derive(Debug)]
pub struct ScannedFrame<'a> {
    /// Its header.
    pub header: FrameHeader,
    /// Its body.
    pub body: &'a [u8],
    /// Where it starts in the file.
    pub position: u64,
}

/// How a scan ended.
#[derive(Debug)]
pub struct ScanEnd {
    /// Why the scan stopped before `end_position`; `None` if it reached it or was told to stop.
    pub damage: Option<WalError>,
}

/// Verifies frames from the start of a segment up to `end_position`, handing
/// each to `visit` until it returns `false`.
///
/// # Errors
/// A failed read. Bytes that do not verify end the scan and are reported in [`ScanEnd::damage`].
pub fn scan_segment(
    segment: &Segment,
    end_position: u64,
    visit: impl FnMut(&ScannedFrame<'_>) -> bool,
) -> Result<ScanEnd, WalError> {
    scan_segment_from(segment, None, end_position, visit)
}

/// Like [`scan_segment`] from a frame in the middle, of which the index knows that it is there.
///
/// # Errors
/// As [`scan_segment`].
pub fn scan_segment_from(
    segment: &Segment,
    begin: Option<&IndexEntry>,
    end_position: u64,
    mut visit: impl FnMut(&ScannedFrame<'_>) -> bool,
) -> Result<ScanEnd, WalError> {
    let mut position = begin.map_or(SEGMENT_HEADER_SIZE, |entry| u64::from(entry.position));
    let mut last: Option<FrameHeader> = None;
    let mut buffer = Vec::new();
    let mut buffer_at = position;
    let mut want = SCAN_BYTES;
    let mut data_end = position;
    while position < end_position {
        let at = (position - buffer_at) as usize;
        let frame = parse_frame(segment, &buffer, at, begin, last.as_ref());
        let missing = match frame {
            Ok(Parsed::Frame(header)) => {
                let body_at = at + FRAME_HEADER_SIZE;
                let body = &buffer[body_at..body_at + header.body_len as usize];
                position += header.size();
                last = Some(header);
                let frame = ScannedFrame { header, body, position: buffer_at + at as u64 };
                if !visit(&frame) {
                    return Ok(ScanEnd { damage: None });
                }
                continue;
            }
            Ok(Parsed::NeedsBytes(size)) => size,
            Err(reason) => {
                let damage = Some(damaged(segment, position, reason));
                return Ok(ScanEnd { damage });
            }
        };
        want = want.max(missing);
        let available = usize::try_from(end_position - position).unwrap_or(usize::MAX);
        if missing > available {
            let damage = Some(damaged(segment, position, DamageReason::TooShort));
            return Ok(ScanEnd { damage });
        }
        // Reading preallocated space costs as much as reading frames. What lies there is looked
        // at all the same, as much as the next frame needs.
        if data_end <= position {
            data_end = segment.data_end(position)?;
        }
        let worthwhile = usize::try_from(data_end.saturating_sub(position)).unwrap_or(usize::MAX);
        buffer.resize(want.min(available).min(worthwhile.max(missing)), 0);
        let read = segment.read_at(position, &mut buffer)?;
        buffer.truncate(read);
        buffer_at = position;
        if read < missing {
            let damage = Some(damaged(segment, position, DamageReason::TooShort));
            return Ok(ScanEnd { damage });
        }
    }
    Ok(ScanEnd { damage: None })
}

enum Parsed {
    Frame(FrameHeader),
    NeedsBytes(usize),
}

fn parse_frame(
    segment: &Segment,
    buffer: &[u8],
    at: usize,
    begin: Option<&IndexEntry>,
    previous: Option<&FrameHeader>,
) -> Result<Parsed, DamageReason> {
    let Some(header_bytes) = buffer.get(at..at + FRAME_HEADER_SIZE) else {
        return Ok(Parsed::NeedsBytes(FRAME_HEADER_SIZE));
    };
    let header = decode_in(segment, header_bytes, previous)?;
    let is_expected = match (previous, begin) {
        // Decoded as its successor.
        (Some(_), _) => true,
        (None, Some(entry)) => header.lsn == entry.lsn,
        (None, None) => {
            header.lsn == segment.header.first_lsn
                && header.prev_chain == segment.header.prev_chain
                && header.base_offset == segment.header.first_offset
        }
    };
    if !is_expected {
        return Err(DamageReason::Chain);
    }
    let body_at = at + FRAME_HEADER_SIZE;
    let Some(body) = buffer.get(body_at..body_at + header.body_len as usize) else {
        return Ok(Parsed::NeedsBytes(FRAME_HEADER_SIZE + header.body_len as usize));
    };
    if !header.matches_body(body) {
        return Err(DamageReason::BodyChecksum);
    }
    Ok(Parsed::Frame(header))
}

/// Reads and verifies the one frame of `segment` at `position`; `None` if what lies there is not
/// the frame `expected`.
///
/// # Errors
/// A failed read.
pub fn read_frame_at(
    segment: &Segment,
    position: u64,
    expected: &FrameHeader,
) -> Result<Option<Bytes>, WalError> {
    // The size is checked against the file before memory is taken for it.
    let end = position.checked_add(expected.size());
    let length = segment.file_length()?;
    if end.is_none_or(|end| end > length) {
        return Ok(None);
    }
    let mut bytes = vec![0; expected.size() as usize];
    let read = segment.read_at(position, &mut bytes)?;
    if read < bytes.len() {
        return Ok(None);
    }
    match decode_in(segment, &bytes[..FRAME_HEADER_SIZE], None) {
        Ok(header) if header == *expected => {}
        _ => return Ok(None),
    }
    let body = Bytes::from(bytes).slice(FRAME_HEADER_SIZE..);
    Ok(expected.matches_body(&body).then_some(body))
}
