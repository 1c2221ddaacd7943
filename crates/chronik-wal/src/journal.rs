//! The journal: a ring of recycled, zero-filled files into which every lane writes groups of
//! records. A group on disk is the point at which its records may be acknowledged.
//!
//! ```text
//! group header, 64 bytes, at a multiple of 4 KiB
//!  0  magic "CHJ1"              4 | 32  payload_len             4
//!  4  header_crc32c (8..64)     4 | 36  payload_crc32c          4
//!  8  lane id, flags          2+2 | 40  header crc of the group
//! 12  record count              4 |     before                  4
//! 16  lane epoch                8 | 44  reserved                4
//! 24  sequence                  8 | 48  oldest sequence needed  8
//!                                 | 56  wall time ms            8
//! then records, then zeros up to the next multiple of 4 KiB
//!
//! record header, 32 bytes, at a multiple of 8
//!  0  kind, flags          1+1 | 16  lsn                     8
//!  2  segment number, low bits 2 |
//!  4  log id                    4 | 24  aux                     8
//!  8  truncation generation     4 |
//! 12  body length               4 | 32  body
//! ```
//!
//! Little endian. Sequences are dense over the life of a ring and groups are serial: group n + 1
//! is written only after the sync of group n. So the first group that does not validate ends the
//! journal, unless a later one validates: then the journal is damaged in the middle.
//!
//! This file owns the byte layout and the walk over it. It writes nothing.

use std::sync::Arc;

use chronik_common::Lsn;

use crate::error::WalError;
use crate::frame::{read_u32, read_u64};
use crate::io::{DiskFile, DiskResult};

/// Groups start at multiples of this, in bytes.
pub const GROUP_ALIGNMENT: u64 = 4_096;
/// Bytes of a group header.
pub const GROUP_HEADER_SIZE: usize = 64;
/// Bytes of a record header inside a group.
pub const RECORD_HEADER_SIZE: usize = 32;
/// Records start at multiples of this inside the payload, in bytes.
pub const RECORD_ALIGNMENT: usize = 8;

const MAGIC: [u8; 4] = *b"CHJ1";
/// Bytes read at once while walking a ring file.
const WINDOW_BYTES: usize = 1 << 20;

/// Local number of a log on this node, from its `partition.meta`. Never reused while the ring
/// may still hold records under it. 0 is the metadata log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct LogId(pub u32);

impl LogId {
    /// The metadata log.
    pub const META: Self = Self(0);
}

/// Header of one group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupHeader {
    /// Lane that wrote it.
    pub lane: u16,
    /// Records in the payload.
    pub record_count: u32,
    /// One per start of the process.
    pub lane_epoch: u64,
    /// Dense over the life of the ring, from 1.
    pub sequence: u64,
    /// Bytes of the payload, without the padding.
    pub payload_len: u32,
    /// CRC-32C of the payload.
    pub payload_crc: u32,
    /// Checksum field of the header of group `sequence - 1`; 0 for the first.
    pub previous_header_crc: u32,
    /// Groups below this sequence are not needed any more.
    pub oldest_needed: u64,
    /// Wall-clock time of the write.
    pub wall_ms: i64,
}

impl GroupHeader {
    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; GROUP_HEADER_SIZE] {
        let mut bytes = [0; GROUP_HEADER_SIZE];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&self.lane.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.record_count.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.lane_epoch.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.payload_len.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.payload_crc.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.previous_header_crc.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.oldest_needed.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.wall_ms.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Decodes a header; `None` for anything that is not one.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..GROUP_HEADER_SIZE)?;
        if bytes[..4] != MAGIC || read_u32(bytes, 4) != crc32c::crc32c(&bytes[8..]) {
            return None;
        }
        Some(Self {
            lane: u16::from_le_bytes([bytes[8], bytes[9]]),
            record_count: read_u32(bytes, 12),
            lane_epoch: read_u64(bytes, 16),
            sequence: read_u64(bytes, 24),
            payload_len: read_u32(bytes, 32),
            payload_crc: read_u32(bytes, 36),
            previous_header_crc: read_u32(bytes, 40),
            oldest_needed: read_u64(bytes, 48),
            wall_ms: read_u64(bytes, 56) as i64,
        })
    }

    /// The value the next group carries as `previous_header_crc`.
    #[must_use]
    pub fn checksum(&self) -> u32 {
        read_u32(&self.encode(), 4)
    }
}

/// Bytes a group with `payload_len` bytes of payload takes in a ring file.
#[must_use]
pub fn group_size(payload_len: usize) -> u64 {
    (GROUP_HEADER_SIZE + payload_len).next_multiple_of(GROUP_ALIGNMENT as usize) as u64
}

/// What a journal record says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum RecordKind {
    /// Body: frame header and frame body. Aux: flushed lsn of the log when it was queued.
    Frame = 1,
    /// Body: frame header; the frame is in its segment. Aux: segment number << 40 | position.
    SegmentRef = 2,
    /// No body. The log was truncated; `lsn` is the first frame removed.
    Truncated = 3,
    /// Body: opaque state of the log (epoch, vote).
    LogState = 4,
}

impl RecordKind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Frame,
            2 => Self::SegmentRef,
            3 => Self::Truncated,
            4 => Self::LogState,
            _ => return None,
        })
    }
}

/// Set on a frame that is the first of a new segment, so that replay rolls where the writer did.
pub const FLAG_STARTS_SEGMENT: u8 = 1;

const SEGMENT_POSITION_BITS: u32 = 40;

/// Packs where a bypassed frame lies.
#[must_use]
pub fn pack_segment_position(segment: u64, position: u64) -> u64 {
    assert!(position < 1 << SEGMENT_POSITION_BITS, "segments are smaller than 1 TiB");
    segment << SEGMENT_POSITION_BITS | position
}

/// Segment number and position of a bypassed frame. Numbers wrap at 2^24.
#[must_use]
pub fn unpack_segment_position(aux: u64) -> (u64, u64) {
    (aux >> SEGMENT_POSITION_BITS, aux & ((1 << SEGMENT_POSITION_BITS) - 1))
}

/// Header of one record in a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordHeader {
    /// What the body is.
    pub kind: RecordKind,
    /// [`FLAG_STARTS_SEGMENT`].
    pub flags: u8,
    /// Low 16 bits of the number of the segment the frame belongs to.
    pub segment: u16,
    /// The log it belongs to.
    pub log: LogId,
    /// Truncations of that log so far.
    pub generation: u32,
    /// Bytes of the body.
    pub body_len: u32,
    /// Position in the log.
    pub lsn: Lsn,
    /// Meaning depends on the kind.
    pub aux: u64,
}

impl RecordHeader {
    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; RECORD_HEADER_SIZE] {
        let mut bytes = [0; RECORD_HEADER_SIZE];
        bytes[0] = self.kind as u8;
        bytes[1] = self.flags;
        bytes[2..4].copy_from_slice(&self.segment.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.log.0.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.generation.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.body_len.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.lsn.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.aux.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            kind: RecordKind::from_byte(bytes[0])?,
            flags: bytes[1],
            segment: u16::from_le_bytes([bytes[2], bytes[3]]),
            log: LogId(read_u32(bytes, 4)),
            generation: read_u32(bytes, 8),
            body_len: read_u32(bytes, 12),
            lsn: Lsn(read_u64(bytes, 16)),
            aux: read_u64(bytes, 24),
        })
    }
}

/// One record of a validated group.
#[derive(Clone, Copy, Debug)]
pub struct JournalRecord<'a> {
    /// Its header.
    pub header: RecordHeader,
    /// Its body.
    pub body: &'a [u8],
}

/// The records of a group's payload, whose checksum was verified. `None` if the payload
/// contradicts itself, which a valid checksum leaves to bugs only.
#[must_use]
pub fn parse_records(payload: &[u8], count: u32) -> Option<Vec<JournalRecord<'_>>> {
    let mut records = Vec::new();
    let mut at = 0;
    for _ in 0..count {
        let header = RecordHeader::decode(payload.get(at..at + RECORD_HEADER_SIZE)?)?;
        let body_at = at + RECORD_HEADER_SIZE;
        let body = payload.get(body_at..body_at.checked_add(header.body_len as usize)?)?;
        records.push(JournalRecord { header, body });
        at = (body_at + body.len()).next_multiple_of(RECORD_ALIGNMENT);
    }
    Some(records)
}

/// Where the journal goes on after recovery.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RingPosition {
    /// Ring file.
    pub file: usize,
    /// Position in it, a multiple of [`GROUP_ALIGNMENT`].
    pub position: u64,
    /// Sequence of the next group.
    pub next_sequence: u64,
    /// What the next group carries as `previous_header_crc`.
    pub previous_header_crc: u32,
    /// Newest lane epoch seen.
    pub lane_epoch: u64,
}

/// Result of walking a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RingWalk {
    /// Where to go on.
    pub end: RingPosition,
    /// Groups handed to the visitor.
    pub groups: u64,
    /// True if a valid group lies behind the end: the journal is damaged in the middle and the
    /// logs of the lane may miss acknowledged frames.
    pub is_damaged: bool,
}

/// Walks the groups a restart needs, oldest first, handing each one's payload to `visit`.
///
/// # Errors
/// A failed read, or an error of `visit`.
pub fn walk_ring(
    files: &[Arc<dyn DiskFile>],
    mut visit: impl FnMut(&GroupHeader, &[u8]) -> Result<(), WalError>,
) -> Result<RingWalk, WalError> {
    let mut first_headers = Vec::new();
    for (index, file) in files.iter().enumerate() {
        if let Some(header) = Cursor::new(file).header_at(0)? {
            first_headers.push((header.sequence, index, header));
        }
    }
    first_headers.sort_unstable_by_key(|(sequence, ..)| *sequence);
    let start = walk_start(files, &first_headers)?;
    let fresh = RingPosition {
        file: 0,
        position: 0,
        next_sequence: 1,
        previous_header_crc: 0,
        lane_epoch: 0,
    };
    let Some(start) = start else {
        // No group validates anywhere. Headers whose payload is torn are a torn first group.
        return Ok(RingWalk { end: fresh, groups: 0, is_damaged: false });
    };

    let (first, oldest_needed) = start;
    let mut file = first_headers[first].1;
    let mut position = 0;
    let mut last: Option<GroupHeader> = None;
    let mut groups = 0;
    let mut cursor = Cursor::new(&files[file]);
    loop {
        let follows = |header: &GroupHeader| {
            last.is_none_or(|last: GroupHeader| {
                header.sequence == last.sequence + 1
                    && header.previous_header_crc == last.checksum()
            })
        };
        if let Some((header, payload)) = cursor.group_at(position)?.filter(|(h, _)| follows(h)) {
            if header.sequence >= oldest_needed {
                visit(&header, payload)?;
                groups += 1;
            }
            position += group_size(header.payload_len as usize);
            last = Some(header);
            continue;
        }
        let continues = first_headers
            .iter()
            .find(|(_, index, header)| *index != file && last.is_some() && follows(header));
        match continues {
            Some((_, next, _)) if Cursor::new(&files[*next]).group_at(0)?.is_some() => {
                file = *next;
                position = 0;
                cursor = Cursor::new(&files[file]);
            }
            _ => break,
        }
    }
    let last = last.expect("the walk starts at a group that validated");
    let mut is_damaged = last.sequence + 1 < oldest_needed;
    for (index, other) in files.iter().enumerate() {
        let from = if index == file { position } else { 0 };
        is_damaged = is_damaged || has_group_above(other, from, last.sequence)?;
    }
    let end = RingPosition {
        file,
        position,
        next_sequence: last.sequence + 1,
        previous_header_crc: last.checksum(),
        lane_epoch: last.lane_epoch,
    };
    Ok(RingWalk { end, groups, is_damaged })
}

/// Index (into `first_headers`) of the file to start with, and the oldest sequence needed.
fn walk_start(
    files: &[Arc<dyn DiskFile>],
    first_headers: &[(u64, usize, GroupHeader)],
) -> DiskResult<Option<(usize, u64)>> {
    for (newest, (_, file, _)) in first_headers.iter().enumerate().rev() {
        let mut cursor = Cursor::new(&files[*file]);
        let mut position = 0;
        let mut last: Option<GroupHeader> = None;
        while let Some((header, _)) = cursor.group_at(position)? {
            if last.is_some_and(|last| header.sequence != last.sequence + 1) {
                break;
            }
            position += group_size(header.payload_len as usize);
            last = Some(header);
        }
        let Some(last) = last else { continue };
        let needed = |(sequence, ..): &(u64, usize, GroupHeader)| *sequence <= last.oldest_needed;
        let start = first_headers[..=newest].iter().rposition(needed).unwrap_or(0);
        return Ok(Some((start, last.oldest_needed)));
    }
    Ok(None)
}

fn has_group_above(file: &Arc<dyn DiskFile>, from: u64, sequence: u64) -> DiskResult<bool> {
    let length = file.length()?;
    let mut cursor = Cursor::new(file);
    let mut position = from;
    while position < length {
        let is_above = |header: &GroupHeader| header.sequence > sequence;
        if cursor.header_at(position)?.as_ref().is_some_and(is_above)
            && cursor.group_at(position)?.is_some()
        {
            return Ok(true);
        }
        position += GROUP_ALIGNMENT;
    }
    Ok(false)
}

/// Reads groups of one ring file through a window, so that small groups do not cost a system
/// call each.
struct Cursor<'a> {
    file: &'a Arc<dyn DiskFile>,
    window: Vec<u8>,
    window_at: u64,
}

impl<'a> Cursor<'a> {
    fn new(file: &'a Arc<dyn DiskFile>) -> Self {
        Self { file, window: Vec::new(), window_at: 0 }
    }

    /// `length` bytes from `position`, fewer at the end of the file.
    fn bytes_at(&mut self, position: u64, length: usize) -> DiskResult<&[u8]> {
        let end = position + length as u64;
        if position < self.window_at || end > self.window_at + self.window.len() as u64 {
            self.window.resize(length.max(WINDOW_BYTES), 0);
            let read = self.file.read_at(position, &mut self.window)?;
            self.window.truncate(read);
            self.window_at = position;
        }
        let start = (position - self.window_at) as usize;
        let end = (start + length).min(self.window.len());
        Ok(&self.window[start.min(end)..end])
    }

    fn header_at(&mut self, position: u64) -> DiskResult<Option<GroupHeader>> {
        Ok(GroupHeader::decode(self.bytes_at(position, GROUP_HEADER_SIZE)?))
    }

    /// The group at `position` if header and payload validate.
    fn group_at(&mut self, position: u64) -> DiskResult<Option<(GroupHeader, &[u8])>> {
        let Some(header) = self.header_at(position)? else { return Ok(None) };
        let payload_len = header.payload_len as usize;
        let payload_at = position + GROUP_HEADER_SIZE as u64;
        // A length that points behind the file is refused before memory is taken for it.
        if payload_at + payload_len as u64 > self.file.length()? {
            return Ok(None);
        }
        let payload = self.bytes_at(payload_at, payload_len)?;
        let is_valid =
            payload.len() == payload_len && crc32c::crc32c(payload) == header.payload_crc;
        Ok(is_valid.then_some((header, payload)))
    }
}
