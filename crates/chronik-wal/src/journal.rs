//! The journal: a ring of recycled, zero-filled files into which every lane writes groups of
//! records. A group on disk is the point at which its records may be acknowledged.
//!
//! ```text
//! group header, 64 bytes, at a multiple of 4 KiB
//!  0  magic "CHJ1"              4 | 32  payload_len             4
//!  4  header_crc32c (8..64)     4 | 36  payload_crc32c          4
//!  8  lane id, flags          2+2 | 40  header crc of the group
//! 12  record count              4 |     before                  4
//! 16  lane epoch                8 | 44  ring nonce              4
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
//! is written only after the sync of group n. So the groups a restart needs run without a gap
//! from the oldest needed one to the newest one that validates; a gap means that the journal is
//! damaged in the middle. What lies behind the newest group was torn and never acknowledged.
//! A newest group that rots is the one damage nobody can tell from a torn one.
//!
//! The ring nonce is random per ring, so that bytes a client sent as part of a record are never
//! taken for a group.
//!
//! This file owns the byte layout and the walk over it. It writes nothing.

use std::collections::BTreeMap;
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
    /// Drawn when the ring was created.
    pub ring_nonce: u32,
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
        bytes[44..48].copy_from_slice(&self.ring_nonce.to_le_bytes());
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
            ring_nonce: read_u32(bytes, 44),
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

impl RingPosition {
    /// The start of a ring without groups.
    fn first(next_sequence: u64) -> Self {
        Self { file: 0, position: 0, next_sequence, previous_header_crc: 0, lane_epoch: 0 }
    }
}

/// What is known about a ring from outside of it; see `hardstate`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RingFacts {
    /// Groups with another nonce are none.
    pub nonce: u32,
    /// Groups below this sequence are not needed, whatever their headers say.
    pub oldest_needed: u64,
}

/// Result of walking a ring.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RingWalk {
    /// Where to go on: behind the newest group that validates.
    pub end: RingPosition,
    /// Per ring file, whether it was ever written to.
    pub is_used: Vec<bool>,
    /// True if needed groups are missing before the newest one: the journal is damaged in the
    /// middle and the logs of the lane may miss acknowledged frames.
    pub is_damaged: bool,
    /// True if the ring knows better than the facts which groups are needed. Facts are stored
    /// before the ring learns of them, so these are not the newest ones.
    pub are_facts_stale: bool,
}

impl RingWalk {
    /// What a walk finds in a ring of so many files that were just made.
    #[must_use]
    pub fn of_new(files: usize, facts: RingFacts) -> Self {
        Self {
            end: RingPosition::first(facts.oldest_needed.max(1)),
            is_used: vec![false; files],
            is_damaged: false,
            are_facts_stale: false,
        }
    }
}

/// Walks the groups a restart needs, oldest first, handing each one's payload to `visit`, up to
/// the first that is missing.
///
/// # Errors
/// A failed read, or an error of `visit`.
pub fn walk_ring(
    files: &[Arc<dyn DiskFile>],
    facts: RingFacts,
    mut visit: impl FnMut(&GroupHeader, &[u8]) -> Result<(), WalError>,
) -> Result<RingWalk, WalError> {
    let mut cursors = Vec::with_capacity(files.len());
    for file in files {
        cursors.push(Cursor::new(file)?);
    }
    let mut groups = BTreeMap::new();
    let mut is_used = Vec::with_capacity(files.len());
    for (file, cursor) in cursors.iter_mut().enumerate() {
        is_used.push(cursor.header_at(0)?.is_some());
        list_groups(file, cursor, facts.nonce, &mut groups)?;
    }
    let newest = groups.last_key_value().map(|(_, place)| *place);
    let said = newest.map_or(0, |place| place.header.oldest_needed);
    let oldest_needed = said.max(facts.oldest_needed).max(1);

    let mut next = oldest_needed;
    let mut last: Option<GroupHeader> = None;
    while let Some(place) = groups.get(&next) {
        let is_successor =
            last.is_none_or(|last| place.header.previous_header_crc == last.checksum());
        let found = cursors[place.file].group_at(place.position)?;
        let is_same = |(header, _): &(GroupHeader, &[u8])| *header == place.header;
        let Some((header, payload)) = found.filter(is_same).filter(|_| is_successor) else { break };
        visit(&header, payload)?;
        last = Some(header);
        let Some(after) = next.checked_add(1) else { break };
        next = after;
    }
    let is_damaged = newest.is_some_and(|newest| newest.header.sequence >= next);
    let are_facts_stale = said > facts.oldest_needed;
    let end = newest.map_or(RingPosition::first(oldest_needed), |newest| newest.end(oldest_needed));
    Ok(RingWalk { end, is_used, is_damaged, are_facts_stale })
}

/// True if any file holds something that looks like a group of any ring.
///
/// # Errors
/// A failed read.
pub fn holds_groups(files: &[Arc<dyn DiskFile>]) -> DiskResult<bool> {
    for file in files {
        if Cursor::new(file)?.header_at(0)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Where a valid group lies.
#[derive(Clone, Copy)]
struct GroupPlace {
    file: usize,
    position: u64,
    header: GroupHeader,
}

impl GroupPlace {
    /// Where a ring whose newest group this is goes on. No sequence is used twice, and none
    /// that a restart would take for one that is not needed.
    fn end(&self, oldest_needed: u64) -> RingPosition {
        RingPosition {
            file: self.file,
            position: self.position + group_size(self.header.payload_len as usize),
            next_sequence: self.header.sequence.saturating_add(1).max(oldest_needed),
            previous_header_crc: self.header.checksum(),
            lane_epoch: self.header.lane_epoch,
        }
    }
}

/// Finds all groups of one file whose header and payload validate.
fn list_groups(
    file: usize,
    cursor: &mut Cursor<'_>,
    nonce: u32,
    groups: &mut BTreeMap<u64, GroupPlace>,
) -> DiskResult<()> {
    let mut position = 0;
    while position < cursor.length {
        let group = cursor.group_at(position)?.map(|(header, _)| header);
        position += match group.filter(|header| header.ring_nonce == nonce) {
            Some(header) => {
                groups.insert(header.sequence, GroupPlace { file, position, header });
                group_size(header.payload_len as usize)
            }
            None => GROUP_ALIGNMENT,
        };
    }
    Ok(())
}

/// Reads groups of one ring file through a window, so that small groups do not cost a system
/// call each.
struct Cursor<'a> {
    file: &'a Arc<dyn DiskFile>,
    /// Bytes in the file; nobody writes to a ring while it is walked.
    length: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl<'a> Cursor<'a> {
    fn new(file: &'a Arc<dyn DiskFile>) -> DiskResult<Self> {
        Ok(Self { file, length: file.length()?, window: Vec::new(), window_at: 0 })
    }

    /// `length` bytes from `position`, fewer at the end of the file.
    fn bytes_at(&mut self, position: u64, length: usize) -> DiskResult<&[u8]> {
        let available = self.length.saturating_sub(position);
        let length = length.min(usize::try_from(available).unwrap_or(length));
        let end = position + length as u64;
        if position < self.window_at || end > self.window_at + self.window.len() as u64 {
            let window = length.max(WINDOW_BYTES);
            self.window.resize(window.min(usize::try_from(available).unwrap_or(window)), 0);
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
        if payload_at + payload_len as u64 > self.length {
            return Ok(None);
        }
        let payload = self.bytes_at(payload_at, payload_len)?;
        let is_valid =
            payload.len() == payload_len && crc32c::crc32c(payload) == header.payload_crc;
        Ok(is_valid.then_some((header, payload)))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::io::{Disk, MemoryDisk, OpenMode};

    #[test]
    fn a_ring_that_was_just_made_is_known_without_reading_it() {
        let disk = MemoryDisk::default();
        let files: Vec<_> = ["/0.wal", "/1.wal"]
            .iter()
            .map(|path| {
                let file = disk.open(Path::new(path), OpenMode::ReadWrite).expect("memory");
                file.set_length(3 << 20).expect("memory");
                file
            })
            .collect();
        let facts = RingFacts { nonce: 7, oldest_needed: 1 };
        let walked = walk_ring(&files, facts, |header, _| panic!("no group: {header:?}"));
        assert_eq!(walked.expect("memory"), RingWalk::of_new(files.len(), facts));
    }
}
