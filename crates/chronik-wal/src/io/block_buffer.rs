//! Bytes that begin at a block boundary in memory, as writes past the page cache want them.

use super::BLOCK_SIZE;

/// A growing list of bytes whose first one lies at a multiple of [`BLOCK_SIZE`] in memory.
#[derive(Debug, Default)]
pub struct BlockBuffer {
    /// `start` bytes of padding, then the content. Never grows in place: that could move it.
    bytes: Vec<u8>,
    start: usize,
}

impl BlockBuffer {
    /// Bytes it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// True if it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets the content, keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.truncate(self.start);
    }

    /// Appends bytes.
    #[inline]
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.make_room(bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends `count` zeros.
    #[inline]
    pub fn extend_zeros(&mut self, count: usize) {
        self.make_room(count);
        self.bytes.resize(self.bytes.len() + count, 0);
    }

    /// Makes room for `more` bytes.
    #[inline]
    fn make_room(&mut self, more: usize) {
        if self.bytes.capacity() - self.bytes.len() < more {
            self.move_to_larger(more);
        }
    }

    #[cold]
    fn move_to_larger(&mut self, more: usize) {
        let wanted = (self.len() + more).next_power_of_two().max(BLOCK_SIZE);
        let mut bytes: Vec<u8> = Vec::with_capacity(wanted + BLOCK_SIZE);
        // Only a hint by its contract: without it, writes go through the page cache.
        let start = bytes.as_ptr().align_offset(BLOCK_SIZE).min(BLOCK_SIZE);
        bytes.resize(start, 0);
        bytes.extend_from_slice(self);
        *self = Self { bytes, start };
    }
}

impl std::ops::Deref for BlockBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

impl std::ops::DerefMut for BlockBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_survives_growth_and_begins_at_a_block() {
        let mut buffer = BlockBuffer::default();
        let mut expected = Vec::new();
        for step in 0..2_000_usize {
            let bytes = vec![step as u8; step % 97];
            buffer.extend_from_slice(&bytes);
            expected.extend_from_slice(&bytes);
            if step % 10 == 0 {
                buffer.extend_zeros(step % 7);
                expected.resize(expected.len() + step % 7, 0);
            }
            assert!(buffer.is_empty() || (buffer.as_ptr() as usize).is_multiple_of(BLOCK_SIZE));
        }
        assert_eq!(&buffer[..], &expected[..]);
        assert_eq!(buffer.len(), expected.len());
    }

    #[test]
    fn a_cleared_buffer_keeps_its_memory() {
        let mut buffer = BlockBuffer::default();
        buffer.extend_zeros(10 * BLOCK_SIZE);
        let place = buffer.as_ptr();
        buffer.clear();
        assert!(buffer.is_empty());
        buffer.extend_from_slice(&[7; 10 * BLOCK_SIZE]);
        assert_eq!((buffer.as_ptr(), buffer[0]), (place, 7));
    }
}
