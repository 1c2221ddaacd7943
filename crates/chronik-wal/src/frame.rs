//! The frame: the one unit that is written, sent, checked and served.
//!
//! ```text
//!  0  magic "CHW" + level byte        4 | 36  body_len            4
//!  4  header_crc32c (bytes 8..64)     4 | 40  append_time_ms      8
//!  8  kind                            1 | 48  segment_nonce       4
//!  9  flags                           1 | 52  body_crc32c         4
//! 10  reserved, 0                     2 | 56  prev_chain          4
//! 12  epoch                           4 | 60  record_count        4
//! 16  lsn                             8 |
//! 24  base_offset                     8 | 64  body: one record batch, or a control entry
//! 32  last_offset_delta               4 |
//! ```
//!
//! Little endian. `segment_nonce` is random per segment file and 0 in the journal, so bytes of
//! an earlier use of a file never validate. The *chain* of a frame is the CRC-32C of its header
//! from byte 8 on without the nonce; it includes `prev_chain`, so equal chains mean equal
//! histories on all replicas.

use chronik_common::{LeaderEpoch, Lsn, Offset};

use crate::error::DamageReason;
use crate::invariants::is_possible_frame;

/// Bytes of a frame header.
pub const FRAME_HEADER_SIZE: usize = 64;

/// Largest body a reader believes, in bytes. Bounds memory when a length is damaged; far above
/// the largest legal request.
pub const FRAME_BODY_BYTES_MAX: usize = 256 << 20;

const MAGIC: [u8; 3] = *b"CHW";
/// The format level this release writes. A reader accepts its own level and the one before;
/// level 3 is the first.
const LEVEL: u8 = 3;

const AT_HEADER_CRC: usize = 4;
const AT_KIND: usize = 8;
const AT_FLAGS: usize = 9;
const AT_EPOCH: usize = 12;
const AT_LSN: usize = 16;
const AT_BASE_OFFSET: usize = 24;
const AT_LAST_OFFSET_DELTA: usize = 32;
const AT_BODY_LEN: usize = 36;
const AT_APPEND_TIME: usize = 40;
const AT_NONCE: usize = 48;
const AT_BODY_CRC: usize = 52;
const AT_PREV_CHAIN: usize = 56;
const AT_RECORD_COUNT: usize = 60;
const _: () = assert!(AT_RECORD_COUNT + 4 == FRAME_HEADER_SIZE);

/// What a frame carries.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum FrameKind {
    /// One unmodified Kafka record batch.
    Data = 1,
    /// The first frame of a leader's epoch; empty body.
    EpochStart = 2,
    /// A change of the replica set.
    Config = 3,
    /// The log now starts at the offset in the body (8 bytes, little endian).
    LogStart = 4,
    /// A list of uploaded segments.
    TierManifest = 6,
    /// One command of the metadata log.
    MetaCommand = 7,
}

impl FrameKind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Data,
            2 => Self::EpochStart,
            3 => Self::Config,
            4 => Self::LogStart,
            6 => Self::TierManifest,
            7 => Self::MetaCommand,
            _ => return None,
        })
    }
}

/// The header of one frame, decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameHeader {
    /// What the body is.
    pub kind: FrameKind,
    /// Bit 0: transactional batch; bit 1: control batch.
    pub flags: u8,
    /// Leader epoch under which the frame was appended.
    pub epoch: LeaderEpoch,
    /// Position in the log; previous frame's + 1.
    pub lsn: Lsn,
    /// Offset of the first record. Frames without records carry the next offset.
    pub base_offset: Offset,
    /// Last record's offset minus `base_offset`; -1 for frames without records.
    pub last_offset_delta: i32,
    /// Bytes of the body.
    pub body_len: u32,
    /// Wall-clock time of the append on the leader.
    pub append_time_ms: i64,
    /// CRC-32C of the body.
    pub body_crc: u32,
    /// Chain value of the frame before; 0 for the first frame of a log.
    pub prev_chain: u32,
    /// Records in the body; differs from `last_offset_delta + 1` only after compaction.
    pub record_count: u32,
}

impl FrameHeader {
    /// The header's bytes in a file whose nonce is `nonce` (0 in the journal).
    #[must_use]
    pub fn encode(&self, nonce: u32) -> [u8; FRAME_HEADER_SIZE] {
        let mut bytes = self.encode_without_crc(nonce);
        let crc = crc32c::crc32c(&bytes[AT_KIND..]);
        bytes[AT_HEADER_CRC..AT_KIND].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn encode_without_crc(&self, nonce: u32) -> [u8; FRAME_HEADER_SIZE] {
        let mut bytes = [0; FRAME_HEADER_SIZE];
        bytes[..3].copy_from_slice(&MAGIC);
        bytes[3] = LEVEL;
        bytes[AT_KIND] = self.kind as u8;
        bytes[AT_FLAGS] = self.flags;
        bytes[AT_EPOCH..AT_LSN].copy_from_slice(&self.epoch.0.to_le_bytes());
        bytes[AT_LSN..AT_BASE_OFFSET].copy_from_slice(&self.lsn.0.to_le_bytes());
        bytes[AT_BASE_OFFSET..AT_LAST_OFFSET_DELTA]
            .copy_from_slice(&self.base_offset.0.to_le_bytes());
        bytes[AT_LAST_OFFSET_DELTA..AT_BODY_LEN]
            .copy_from_slice(&self.last_offset_delta.to_le_bytes());
        bytes[AT_BODY_LEN..AT_APPEND_TIME].copy_from_slice(&self.body_len.to_le_bytes());
        bytes[AT_APPEND_TIME..AT_NONCE].copy_from_slice(&self.append_time_ms.to_le_bytes());
        bytes[AT_NONCE..AT_BODY_CRC].copy_from_slice(&nonce.to_le_bytes());
        bytes[AT_BODY_CRC..AT_PREV_CHAIN].copy_from_slice(&self.body_crc.to_le_bytes());
        bytes[AT_PREV_CHAIN..AT_RECORD_COUNT].copy_from_slice(&self.prev_chain.to_le_bytes());
        bytes[AT_RECORD_COUNT..].copy_from_slice(&self.record_count.to_le_bytes());
        bytes
    }

    /// Decodes a header and the nonce it was written with.
    ///
    /// # Errors
    /// The first check that fails; the header's checksum is verified before any length in it is
    /// believed.
    pub fn decode(bytes: &[u8; FRAME_HEADER_SIZE]) -> Result<(Self, u32), DamageReason> {
        if bytes[..3] != MAGIC || bytes[3] != LEVEL {
            return Err(DamageReason::Magic);
        }
        if read_u32(bytes, AT_HEADER_CRC) != crc32c::crc32c(&bytes[AT_KIND..]) {
            return Err(DamageReason::HeaderChecksum);
        }
        let kind = FrameKind::from_byte(bytes[AT_KIND]).ok_or(DamageReason::Kind)?;
        let header = Self {
            kind,
            flags: bytes[AT_FLAGS],
            epoch: LeaderEpoch(read_u32(bytes, AT_EPOCH) as i32),
            lsn: Lsn(read_u64(bytes, AT_LSN)),
            base_offset: Offset(read_u64(bytes, AT_BASE_OFFSET) as i64),
            last_offset_delta: read_u32(bytes, AT_LAST_OFFSET_DELTA) as i32,
            body_len: read_u32(bytes, AT_BODY_LEN),
            append_time_ms: read_u64(bytes, AT_APPEND_TIME) as i64,
            body_crc: read_u32(bytes, AT_BODY_CRC),
            prev_chain: read_u32(bytes, AT_PREV_CHAIN),
            record_count: read_u32(bytes, AT_RECORD_COUNT),
        };
        if header.body_len as usize > FRAME_BODY_BYTES_MAX {
            return Err(DamageReason::Length);
        }
        if !is_possible_frame(&header) {
            return Err(DamageReason::Inconsistent);
        }
        Ok((header, read_u32(bytes, AT_NONCE)))
    }

    /// The chain value: equal on two replicas only if their logs are equal up to this frame.
    #[must_use]
    pub fn chain(&self) -> u32 {
        let bytes = self.encode_without_crc(0);
        let crc = crc32c::crc32c(&bytes[AT_KIND..AT_NONCE]);
        crc32c::crc32c_append(crc, &bytes[AT_BODY_CRC..])
    }

    /// First offset behind this frame.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.base_offset.plus(i64::from(self.last_offset_delta) + 1)
    }

    /// Bytes of the whole frame in a segment.
    #[must_use]
    pub fn size(&self) -> u64 {
        FRAME_HEADER_SIZE as u64 + u64::from(self.body_len)
    }

    /// True if `body` is the body this header describes.
    #[must_use]
    pub fn matches_body(&self, body: &[u8]) -> bool {
        body.len() == self.body_len as usize && crc32c::crc32c(body) == self.body_crc
    }
}

/// The offset at which the log starts from this frame on; `None` for frames of another kind.
#[must_use]
pub fn log_start_of(header: &FrameHeader, body: &[u8]) -> Option<Offset> {
    let bytes: [u8; 8] = body.try_into().ok().filter(|_| header.kind == FrameKind::LogStart)?;
    Some(Offset(i64::from_le_bytes(bytes)))
}

/// Reads a little-endian u32 at `at`. The caller guarantees the bytes are there.
pub(crate) fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// Reads a little-endian u64 at `at`. The caller guarantees the bytes are there.
pub(crate) fn read_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> FrameHeader {
        FrameHeader {
            kind: FrameKind::Data,
            flags: 1,
            epoch: LeaderEpoch(7),
            lsn: Lsn(42),
            base_offset: Offset(1_000),
            last_offset_delta: 9,
            body_len: 300,
            append_time_ms: 1_700_000_000_123,
            body_crc: 0xdead_beef,
            prev_chain: 0x1234_5678,
            record_count: 10,
        }
    }

    /// The bytes on disk are a promise to every later release.
    #[test]
    fn the_golden_frame_header_never_changes() {
        let bytes = example().encode(0x0102_0304);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(&hex[..8], "43485703");
        assert_eq!(
            &hex[16..],
            "01010000070000002a00000000000000e80300000000000009000000\
             2c0100007b68e5cf8b01000004030201efbeadde785634120a000000"
        );
        assert_eq!(FrameHeader::decode(&bytes), Ok((example(), 0x0102_0304)));
    }

    #[test]
    fn every_single_bit_flip_in_a_header_is_found() {
        let bytes = example().encode(9);
        for bit in 0..FRAME_HEADER_SIZE * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(FrameHeader::decode(&damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn the_chain_depends_on_every_replicated_field_and_not_on_the_nonce() {
        let frame = example();
        let (same, _) = FrameHeader::decode(&frame.encode(77)).unwrap();
        assert_eq!(same.chain(), frame.chain());
        for other in [
            FrameHeader { epoch: LeaderEpoch(8), ..frame },
            FrameHeader { body_crc: 1, ..frame },
            FrameHeader { prev_chain: 1, ..frame },
            FrameHeader { append_time_ms: 0, ..frame },
        ] {
            assert_ne!(other.chain(), frame.chain(), "{other:?}");
        }
    }

    #[test]
    fn a_header_with_a_valid_checksum_and_impossible_fields_is_refused() {
        let impossible = [
            FrameHeader { lsn: Lsn::ZERO, ..example() },
            FrameHeader { base_offset: Offset(-1), ..example() },
            FrameHeader { base_offset: Offset(i64::MAX), ..example() },
            FrameHeader { last_offset_delta: -2, ..example() },
        ];
        for header in impossible {
            assert_eq!(
                FrameHeader::decode(&header.encode(0)).map(|_| ()),
                Err(DamageReason::Inconsistent)
            );
        }
        let huge = FrameHeader { body_len: u32::MAX, ..example() };
        assert_eq!(FrameHeader::decode(&huge.encode(0)).map(|_| ()), Err(DamageReason::Length));
    }
}
