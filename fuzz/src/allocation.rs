//! The memory oracle: what a decoder may allocate follows from what it was given.
//!
//! Installs a global allocator that counts, per thread, the bytes requested and the bytes live.
//! Memory of C libraries (zstd, libFuzzer) is not seen.
//!
//! Bound: 64 KiB plus eight bytes per byte of input, for everything requested by a parser, or,
//! where output is wanted, for what is live at once in addition to the output limit.

#![allow(unsafe_code, reason = "a global allocator cannot be written without")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Allocation that needs no input, in bytes.
pub const BASE_BYTES: usize = 64 << 10;
/// Allocation per byte of input, in bytes.
pub const BYTES_PER_INPUT_BYTE: usize = 8;

/// Runs a parser of `input_size` bytes.
///
/// # Panics
/// If all its allocations together exceed the bound.
pub fn assert_parsing<T>(input_size: usize, parse: impl FnOnce() -> T) -> T {
    let (result, measured) = measure(parse);
    let bound = bound(input_size);
    assert!(measured.requested <= bound, "{measured:?} for {input_size} bytes, bound {bound}");
    result
}

/// Runs something that expands `input_size` bytes to at most `output_bytes_max`.
///
/// # Panics
/// If it ever holds more than the bound and the output.
pub fn assert_expanding<T>(
    input_size: usize,
    output_bytes_max: usize,
    expand: impl FnOnce() -> T,
) -> T {
    let (result, measured) = measure(expand);
    let bound = bound(input_size) + output_bytes_max;
    assert!(measured.live_max <= bound, "{measured:?} for {input_size} bytes, bound {bound}");
    result
}

fn bound(input_size: usize) -> usize {
    BASE_BYTES + BYTES_PER_INPUT_BYTE * input_size
}

#[derive(Clone, Copy, Debug)]
struct Measured {
    /// Bytes of all allocations together.
    requested: usize,
    /// Most bytes held at once, beyond those held before.
    live_max: usize,
}

fn measure<T>(run: impl FnOnce() -> T) -> (T, Measured) {
    let live_before = LIVE.get();
    LIVE_MAX.set(live_before);
    REQUESTED.set(0);
    let result = run();
    let live_max = (LIVE_MAX.get() - live_before) as usize;
    (result, Measured { requested: REQUESTED.get(), live_max })
}

thread_local! {
    static REQUESTED: Cell<usize> = const { Cell::new(0) };
    /// Negative on a thread that frees what another one allocated.
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static LIVE_MAX: Cell<isize> = const { Cell::new(0) };
}

/// Counts and passes on to the system's allocator.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(requested: usize, freed: usize) {
    REQUESTED.set(REQUESTED.get().wrapping_add(requested));
    let live = LIVE.get().wrapping_add_unsigned(requested).wrapping_sub_unsigned(freed);
    LIVE.set(live);
    LIVE_MAX.set(LIVE_MAX.get().max(live));
}

// SAFETY: every call goes to `System` with its arguments unchanged; counting neither allocates
// nor unwinds (the cells are const-initialised and have no destructor).
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(new_size, layout.size());
        // SAFETY: as above.
        unsafe { System.realloc(block, layout, new_size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_counts_in_full_when_requested_and_once_when_live() {
        let (bytes, measured) = measure(|| {
            let mut bytes: Vec<u8> = Vec::with_capacity(100);
            bytes.resize(100, 1);
            bytes.reserve_exact(200);
            drop(vec![0_u8; 50]);
            bytes
        });
        assert_eq!(bytes.capacity(), 300);
        assert_eq!(measured.requested, 450);
        assert_eq!(measured.live_max, 350);
    }

    #[test]
    #[should_panic(expected = "bound 65544")]
    fn a_parser_that_believes_a_length_is_caught() {
        assert_parsing(1, || Vec::<u8>::with_capacity(65_545));
    }
}
