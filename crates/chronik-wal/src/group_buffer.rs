//! One group of the journal while it is assembled: header, records, padding, and the checksum of
//! its payload.

use crate::frame::{FRAME_HEADER_SIZE, FrameHeader};
use crate::io::BlockBuffer;
use crate::journal::{GROUP_HEADER_SIZE, GroupHeader, RECORD_ALIGNMENT, RecordHeader, group_size};
use chronik_record::crc;

/// Bodies of at least this many bytes are not read once more for the group's checksum: combining
/// their own with it costs as much as a few hundred bytes do.
const COMBINE_BYTES_MIN: usize = 2_048;

/// One group being assembled; its memory is used again.
#[derive(Default)]
pub(crate) struct GroupBuffer {
    bytes: BlockBuffer,
    payload_crc: u32,
    /// Bytes before this are in `payload_crc`.
    crc_from: usize,
    record_count: u32,
}

impl GroupBuffer {
    /// Begins a new group.
    pub(crate) fn reset(&mut self) {
        self.bytes.clear();
        self.bytes.extend_zeros(GROUP_HEADER_SIZE);
        self.payload_crc = 0;
        self.crc_from = GROUP_HEADER_SIZE;
        self.record_count = 0;
    }

    /// Records pushed so far.
    pub(crate) fn record_count(&self) -> u32 {
        self.record_count
    }

    /// Bytes of the records, padding between them included.
    pub(crate) fn payload_len(&self) -> usize {
        self.bytes.len() - GROUP_HEADER_SIZE
    }

    /// Adds a record without a frame.
    pub(crate) fn push(&mut self, header: &RecordHeader, body: &[u8]) {
        self.bytes.extend_from_slice(&header.encode());
        self.bytes.extend_from_slice(body);
        self.finish_record(header, body.len());
    }

    /// Adds a record with a frame's header and a body, which may be left out of the journal.
    pub(crate) fn push_frame(&mut self, header: &RecordHeader, frame: &FrameHeader, body: &[u8]) {
        self.bytes.extend_from_slice(&header.encode());
        self.bytes.extend_from_slice(&frame.encode(0));
        if body.len() >= COMBINE_BYTES_MIN {
            self.sum_up();
            self.payload_crc = crc::combine(self.payload_crc, frame.body_crc, body.len() as u64);
            self.crc_from += body.len();
        }
        self.bytes.extend_from_slice(body);
        self.finish_record(header, FRAME_HEADER_SIZE + body.len());
    }

    fn finish_record(&mut self, header: &RecordHeader, body_len: usize) {
        assert_eq!(
            header.body_len as usize, body_len,
            "a record is as long as it says: {header:?}"
        );
        let payload_len = self.payload_len();
        self.bytes.extend_zeros(payload_len.next_multiple_of(RECORD_ALIGNMENT) - payload_len);
        self.record_count += 1;
    }

    /// Takes everything that was added into the checksum.
    fn sum_up(&mut self) {
        self.payload_crc = crc32c::crc32c_append(self.payload_crc, &self.bytes[self.crc_from..]);
        self.crc_from = self.bytes.len();
    }

    /// Ends the payload, and pads the group to its full size. Returns length and checksum of the
    /// payload.
    pub(crate) fn finish(&mut self) -> (usize, u32) {
        self.sum_up();
        let payload_len = self.payload_len();
        let size = group_size(payload_len) as usize;
        self.bytes.extend_zeros(size - self.bytes.len());
        (payload_len, self.payload_crc)
    }

    /// The finished group's bytes behind this header.
    pub(crate) fn bytes_with(&mut self, header: &GroupHeader) -> &[u8] {
        let size = group_size(header.payload_len as usize);
        assert_eq!(
            self.bytes.len() as u64,
            size,
            "a group is as long as its header and its padding say"
        );
        self.bytes[..GROUP_HEADER_SIZE].copy_from_slice(&header.encode());
        &self.bytes
    }
}

// Records are aligned in the payload and so in the group.
const _: () = assert!(GROUP_HEADER_SIZE.is_multiple_of(RECORD_ALIGNMENT));
