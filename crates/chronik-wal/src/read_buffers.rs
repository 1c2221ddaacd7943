//! Buffers for reading segments on behalf of consumers, used again once their bytes are sent:
//! memory that was used a moment ago is in the processor's cache, needs no zeroing and no page
//! fault.

use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

/// Sizes of the buffers that are kept, in bytes, ascending: for 64 KB and 256 KB of bodies with a
/// frame header, and for the most that is read at once.
const KEPT_SIZES: [usize; 3] = [68 << 10, 260 << 10, 1 << 20];

/// Bytes of idle buffers kept of every size, at most: a few answers.
const IDLE_BYTES_MAX: usize = 4 << 20;

/// Idle buffers by size.
type Idle = [Vec<Box<[u8]>>; KEPT_SIZES.len()];

/// A store of buffers. Clones share it; a buffer finds its way back from whatever thread drops it.
#[derive(Clone, Debug, Default)]
pub struct ReadBuffers {
    idle: Arc<Mutex<Idle>>,
}

impl ReadBuffers {
    /// A buffer of `length` bytes with arbitrary content. One that would waste more than half of
    /// a kept size, or needs more than the largest, comes from the allocator and goes back there.
    pub(crate) fn take(&self, length: usize) -> ReadBuffer {
        let class = KEPT_SIZES.iter().position(|size| (size / 2..=*size).contains(&length));
        let Some(class) = class else {
            return ReadBuffer { bytes: zeroed(length), length, home: None };
        };
        let idle = self.lock()[class].pop();
        let bytes = idle.unwrap_or_else(|| zeroed(KEPT_SIZES[class]));
        ReadBuffer { bytes, length, home: Some((self.clone(), class)) }
    }

    fn give_back(&self, class: usize, bytes: Box<[u8]>) {
        let idle = &mut self.lock()[class];
        if (idle.len() + 1) * KEPT_SIZES[class] <= IDLE_BYTES_MAX {
            idle.push(bytes);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().expect("no holder of idle buffers panics")
    }
}

fn zeroed(length: usize) -> Box<[u8]> {
    vec![0; length].into_boxed_slice()
}

/// A buffer in use.
pub(crate) struct ReadBuffer {
    bytes: Box<[u8]>,
    length: usize,
    home: Option<(ReadBuffers, usize)>,
}

impl ReadBuffer {
    /// The content, to be written.
    pub(crate) fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.length]
    }

    /// The content, shared; the buffer goes home with its last slice.
    pub(crate) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for ReadBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Drop for ReadBuffer {
    fn drop(&mut self) {
        if let Some((home, class)) = self.home.take() {
            home.give_back(class, std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle(buffers: &ReadBuffers) -> [usize; KEPT_SIZES.len()] {
        buffers.lock().each_ref().map(Vec::len)
    }

    #[test]
    fn a_buffer_comes_back_with_its_last_slice() {
        let buffers = ReadBuffers::default();
        let bytes = buffers.take(KEPT_SIZES[2]).freeze();
        let slice = bytes.slice(5..10);
        drop(bytes);
        assert_eq!(idle(&buffers), [0, 0, 0], "a slice still uses it");
        drop(slice);
        assert_eq!(idle(&buffers), [0, 0, 1]);
        let again = buffers.take(KEPT_SIZES[2] - 1);
        assert_eq!(idle(&buffers), [0, 0, 0], "it is used again");
        assert_eq!(again.as_ref().len(), KEPT_SIZES[2] - 1);
        drop(buffers.take(KEPT_SIZES[0]));
        assert_eq!(idle(&buffers), [1, 0, 0], "every size has its own");
    }

    #[test]
    fn buffers_of_unusual_size_and_too_many_of_them_are_not_kept() {
        let buffers = ReadBuffers::default();
        for length in [0, 1, KEPT_SIZES[0] / 2 - 1, KEPT_SIZES[0] + 1, KEPT_SIZES[2] + 1] {
            let bytes = buffers.take(length).freeze();
            assert_eq!(bytes.len(), length);
        }
        assert_eq!(idle(&buffers), [0, 0, 0]);
        let kept = IDLE_BYTES_MAX / KEPT_SIZES[2];
        let many: Vec<ReadBuffer> = (0..2 * kept).map(|_| buffers.take(KEPT_SIZES[2])).collect();
        drop(many);
        assert_eq!(idle(&buffers), [0, 0, kept]);
    }
}
