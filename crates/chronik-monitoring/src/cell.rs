//! Counters that threads do not share: one cell per thread, each on cache lines of its own.

use std::sync::atomic::{AtomicU64, Ordering};

/// A value on cache lines of its own. 128 bytes, because x86 fetches lines in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);

/// One `T` per thread that writes, found by the thread's number.
#[derive(Debug)]
pub(crate) struct Cells<T> {
    /// A power of two of cells, at least one.
    cells: Box<[Padded<T>]>,
}

impl<T: Default> Cells<T> {
    /// Cells for the threads `0..threads`.
    pub(crate) fn new(threads: usize) -> Self {
        let count = threads.max(1).next_power_of_two();
        Self { cells: (0..count).map(|_| Padded::default()).collect() }
    }

    /// The cell of `thread`. Threads beyond the announced number share cells with others, which
    /// is correct and slower.
    pub(crate) fn of(&self, thread: usize) -> &T {
        &self.cells[thread & (self.cells.len() - 1)].0
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.cells.iter().map(|cell| &cell.0)
    }
}

impl Cells<AtomicU64> {
    /// The sum over all cells; wraps at 2^64.
    pub(crate) fn sum(&self) -> u64 {
        self.iter().fold(0, |sum, cell| sum.wrapping_add(cell.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_have_cells_of_their_own_and_strangers_share_one() {
        let cells = Cells::<AtomicU64>::new(3);
        for thread in [0, 1, 2, 3, 4, usize::MAX] {
            cells.of(thread).fetch_add(1, Ordering::Relaxed);
        }
        let counts: Vec<_> = cells.iter().map(|cell| cell.load(Ordering::Relaxed)).collect();
        assert_eq!(counts, [2, 1, 1, 2]);
        assert_eq!(cells.sum(), 6);
    }

    #[test]
    fn cells_do_not_share_cache_lines() {
        assert_eq!(size_of::<Padded<AtomicU64>>(), 128);
    }
}
