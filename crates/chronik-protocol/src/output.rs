//! What a connection has yet to send: frames in order, as small owned bytes and shared slices.
//!
//! ```text
//!  owned    [len|header|topic ... |len of records|len|header| ... ]
//!                                                ^
//!  shared                              one slice |  of a segment or of the tail ring
//!  sent as  [len|header|topic ... |len of records][records, not copied][len|header| ... ]
//! ```
//!
//! The encoder writes into this queue in one pass; lengths known only afterwards are patched.
//! Once everything is sent, the owned bytes' memory is used again, so a connection that answers
//! with small responses stops allocating.
//!
//! The queue has no limit of its own: the connection stops reading requests while
//! [`len`](OutputBuffer::len) is above its write cap. Frames are complete before anything is
//! sent: sending while a frame is open is a defect and panics.
//!
//! One connection owns one buffer; it is not shared between threads.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

use crate::error::{EncodeReason, WriteError};
use crate::frame::FRAME_PREFIX_BYTES;

/// Shared slices shorter than this are copied: below it, one more entry in a vectored write costs
/// more than the copy.
pub const SHARED_SLICE_BYTES_MIN: usize = 512;

/// A drained buffer keeps at most this much memory, so that one large response does not stay with
/// an idle connection.
const RETAINED_BYTES_MAX: usize = 64 * 1024;

/// Sent owned bytes are moved out of the way once there are this many of them.
const COMPACT_BYTES_MIN: usize = 64 * 1024;

/// Ordered output queue of one connection and sink of the encoders.
#[derive(Debug, Default)]
pub struct OutputBuffer {
    owned: Vec<u8>,
    /// Owned bytes before this index are sent.
    owned_sent: usize,
    /// In order of their place among the owned bytes.
    shared: VecDeque<SharedSlice>,
    /// Bytes not yet sent, owned and shared together.
    len: usize,
    frame_is_open: bool,
}

/// A slice that follows the owned bytes before index `after`.
#[derive(Debug)]
struct SharedSlice {
    /// >= `owned_sent`, <= `owned.len()`; never decreases along the queue.
    after: usize,
    bytes: Bytes,
}

/// An open frame: where it starts. Given back to `end_frame` or `abort_frame`.
#[derive(Debug)]
#[must_use = "an open frame is ended or aborted"]
pub struct FrameMark {
    owned: usize,
    shared: usize,
    len: usize,
}

/// An open tagged field: where its size goes.
#[derive(Debug)]
#[must_use = "an open tagged field is ended"]
pub(crate) struct TagMark {
    size_at: usize,
    shared: usize,
}

impl OutputBuffer {
    /// An empty queue. Allocates nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty queue with room for `bytes` owned bytes; more make it grow.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self { owned: Vec::with_capacity(bytes), ..Self::default() }
    }

    /// Bytes not yet sent.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if everything is sent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Starts a frame; its length is filled in by [`end_frame`](Self::end_frame). Frames do not
    /// nest.
    pub fn begin_frame(&mut self) -> FrameMark {
        assert!(!self.frame_is_open, "frames do not nest");
        let mark = FrameMark { owned: self.owned.len(), shared: self.shared.len(), len: self.len };
        self.frame_is_open = true;
        self.put_slice(&[0; FRAME_PREFIX_BYTES]);
        mark
    }

    /// Ends the frame that `mark` started.
    ///
    /// # Errors
    ///
    /// If the frame is longer than its 4-byte length can say; it is then dropped as by
    /// [`abort_frame`](Self::abort_frame).
    #[allow(clippy::needless_pass_by_value, reason = "a mark is used once")]
    pub fn end_frame(&mut self, mark: FrameMark) -> Result<(), WriteError> {
        assert!(self.frame_is_open, "a mark belongs to an open frame");
        let length = self.len - mark.len - FRAME_PREFIX_BYTES;
        let Ok(prefix) = i32::try_from(length) else {
            self.abort_frame(mark);
            let reason = EncodeReason::TooLong { length };
            return Err(WriteError { field: "frame", reason });
        };
        let prefix_at = mark.owned..mark.owned + FRAME_PREFIX_BYTES;
        self.owned[prefix_at].copy_from_slice(&prefix.to_be_bytes());
        self.frame_is_open = false;
        Ok(())
    }

    /// Drops everything put since `mark` was made.
    #[allow(clippy::needless_pass_by_value, reason = "a mark is used once")]
    pub fn abort_frame(&mut self, mark: FrameMark) {
        assert!(self.frame_is_open, "a mark belongs to an open frame");
        self.owned.truncate(mark.owned);
        self.shared.truncate(mark.shared);
        self.len = mark.len;
        self.frame_is_open = false;
    }

    /// Fills `slices` from its start with the next bytes to send, at most `bytes_max`, and returns
    /// how many entries it used: 0 if everything is sent, less than everything if `slices` is
    /// short.
    pub fn fill_io_slices<'b>(&'b self, slices: &mut [IoSlice<'b>], bytes_max: usize) -> usize {
        let (mut used, mut left) = (0, bytes_max);
        for (entry, chunk) in slices.iter_mut().zip(self.chunks()) {
            if left == 0 {
                break;
            }
            let chunk = &chunk[..chunk.len().min(left)];
            *entry = IoSlice::new(chunk);
            left -= chunk.len();
            used += 1;
        }
        used
    }

    /// Everything not yet sent if it lies in one piece, as small answers do.
    #[must_use]
    pub fn as_slice(&self) -> Option<&[u8]> {
        assert!(!self.frame_is_open, "an open frame is not sent");
        self.shared.is_empty().then(|| &self.owned[self.owned_sent..])
    }

    /// Removes the first `count` bytes, which have been sent. `count` may end anywhere, but not
    /// beyond [`len`](Self::len).
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.len, "{count} bytes sent, {} were queued", self.len);
        assert!(!self.frame_is_open, "an open frame is not sent");
        self.len -= count;
        let mut left = count;
        while left > 0 {
            let owned_until = self.shared.front().map_or(self.owned.len(), |slice| slice.after);
            let step = left.min(owned_until - self.owned_sent);
            self.owned_sent += step;
            left -= step;
            let Some(slice) = self.shared.front_mut().filter(|_| left > 0) else { break };
            let step = left.min(slice.bytes.len());
            slice.bytes.advance(step);
            left -= step;
            if slice.bytes.is_empty() {
                self.shared.pop_front();
            }
        }
        assert!(left == 0, "{left} bytes sent beyond the queue's end");
        self.reuse_sent_memory();
    }

    /// Everything not yet sent, copied into one piece; for tests and for callers without
    /// vectored writes.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len);
        self.chunks().for_each(|chunk| bytes.extend_from_slice(chunk));
        bytes
    }

    /// Puts bytes by copying them.
    pub fn put_slice(&mut self, bytes: &[u8]) {
        self.owned.extend_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Puts a shared slice without copying it, unless it is shorter than
    /// [`SHARED_SLICE_BYTES_MIN`].
    pub fn put_shared(&mut self, bytes: Bytes) {
        if bytes.len() < SHARED_SLICE_BYTES_MIN {
            return self.put_slice(&bytes);
        }
        self.len += bytes.len();
        self.shared.push_back(SharedSlice { after: self.owned.len(), bytes });
    }

    /// Moves everything `other` holds behind what is queued here; shared slices are not copied,
    /// and nothing is if this queue is empty.
    pub fn append(&mut self, other: Self) {
        assert!(!self.frame_is_open && !other.frame_is_open, "an open frame is not moved");
        if self.is_empty() {
            *self = other;
            return;
        }
        let mut copied = other.owned_sent;
        for slice in other.shared {
            self.put_slice(&other.owned[copied..slice.after]);
            copied = slice.after;
            self.put_shared(slice.bytes);
        }
        self.put_slice(&other.owned[copied..]);
    }

    /// Starts the tagged field `tag`.
    pub(crate) fn begin_tagged_field(&mut self, tag: u32) -> TagMark {
        self.put_uvarint(tag);
        let mark = TagMark { size_at: self.owned.len(), shared: self.shared.len() };
        self.put_slice(&[0]);
        mark
    }

    /// Ends the tagged field that `mark` started: writes its size before it. Sizes above 127
    /// bytes take more room than was left for them; the content is then moved.
    #[allow(clippy::needless_pass_by_value, reason = "a mark is used once")]
    pub(crate) fn end_tagged_field(
        &mut self,
        field: &'static str,
        mark: TagMark,
    ) -> Result<(), WriteError> {
        assert_eq!(self.shared.len(), mark.shared, "a tagged field holds no records");
        let content = mark.size_at + 1..self.owned.len();
        let size = u32::try_from(content.len()).map_err(|_| {
            let reason = EncodeReason::TooLong { length: content.len() };
            WriteError { field, reason }
        })?;
        let (bytes, count) = uvarint(size);
        let moved_by = count - 1;
        if moved_by > 0 {
            self.put_slice(&[0; UVARINT_BYTES_MAX][..moved_by]);
            let target = content.start + moved_by;
            self.owned.copy_within(content, target);
        }
        self.owned[mark.size_at..mark.size_at + count].copy_from_slice(&bytes[..count]);
        Ok(())
    }

    /// Puts an unsigned variable-length integer: seven bits a byte, lowest first.
    pub fn put_uvarint(&mut self, value: u32) {
        if value < 0x80 {
            self.owned.push(value as u8);
            self.len += 1;
            return;
        }
        let (bytes, count) = uvarint(value);
        self.put_slice(&bytes[..count]);
    }

    /// The bytes not yet sent, in order, as pieces that are not empty.
    fn chunks(&self) -> impl Iterator<Item = &[u8]> {
        assert!(!self.frame_is_open, "an open frame is not sent");
        let mut owned_at = self.owned_sent;
        let pairs = self.shared.iter().flat_map(move |slice| {
            let before = owned_at..slice.after;
            owned_at = slice.after;
            [&self.owned[before], &slice.bytes]
        });
        let last = self.shared.back().map_or(self.owned_sent, |slice| slice.after);
        pairs.chain([&self.owned[last..]]).filter(|chunk| !chunk.is_empty())
    }

    fn reuse_sent_memory(&mut self) {
        if self.len == 0 {
            self.owned.clear();
            self.owned.shrink_to(RETAINED_BYTES_MAX);
            self.owned_sent = 0;
        } else if self.owned_sent >= COMPACT_BYTES_MIN && self.owned_sent >= self.owned.len() / 2 {
            // At most as many bytes move as were sent since the last time.
            self.owned.drain(..self.owned_sent);
            self.shared.iter_mut().for_each(|slice| slice.after -= self.owned_sent);
            self.owned_sent = 0;
        }
    }
}

/// Longest variable-length integer of 32 bits.
pub(crate) const UVARINT_BYTES_MAX: usize = 5;

/// `value` as a variable-length integer, and how many of the bytes it takes.
fn uvarint(value: u32) -> ([u8; UVARINT_BYTES_MAX], usize) {
    let mut bytes = [0; UVARINT_BYTES_MAX];
    let mut rest = value;
    let mut count = 0;
    while rest >= 0x80 {
        bytes[count] = (rest & 0x7f) as u8 | 0x80;
        rest >>= 7;
        count += 1;
    }
    bytes[count] = rest as u8;
    (bytes, count + 1)
}
