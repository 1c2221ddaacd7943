//! Histograms with buckets at powers of two, found without a search.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::cell::Cells;
use crate::{Instrument, MetricDescriptor, MetricKind, Samples};

/// Finite buckets of a histogram at most.
const BUCKETS_MAX: usize = 32;

/// The upper bounds of a histogram's buckets: powers of two of the unit that is observed,
/// inclusive, and one bucket for everything above.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Buckets {
    /// The lowest bound is 2^first.
    first: u32,
    /// Number of finite bounds.
    count: usize,
    /// Observed units per exposed unit.
    scale: u32,
}

impl Buckets {
    /// Observed in microseconds, exposed in seconds: bounds from 32 us to 34 s.
    pub const SECONDS: Self = Self::powers_of_two(5, 25, 1_000_000);
    /// Observed and exposed in bytes: bounds from 64 bytes to 128 MiB.
    pub const BYTES: Self = Self::powers_of_two(6, 27, 1);
    /// Observed and exposed as a count: bounds from 1 to 65,536.
    pub const COUNT: Self = Self::powers_of_two(0, 16, 1);

    /// Bounds 2^first to 2^last of the observed unit; a value is divided by `scale` when it is
    /// exposed.
    ///
    /// # Panics
    /// If there are no bounds, more than 32, bounds beyond 2^62, or a scale of 0.
    #[must_use]
    pub const fn powers_of_two(first: u32, last: u32, scale: u32) -> Self {
        assert!(first <= last && last < 63 && scale > 0, "bounds ascend and fit 63 bits");
        let count = (last - first + 1) as usize;
        assert!(count <= BUCKETS_MAX, "a histogram has at most 32 finite buckets");
        Self { first, count, scale }
    }

    /// The finite bounds, as they are exposed, ascending.
    pub fn bounds(&self) -> impl Iterator<Item = f64> + '_ {
        (0..self.count).map(|index| self.exposed(1 << (self.first + index as u32)))
    }

    fn exposed(&self, observed: u64) -> f64 {
        observed as f64 / f64::from(self.scale)
    }

    /// The bucket of `value`: the first whose bound is not below it, `count` if there is none.
    fn index(&self, value: u64) -> usize {
        let exponent = u64::BITS - value.saturating_sub(1).leading_zeros();
        (exponent.saturating_sub(self.first) as usize).min(self.count)
    }
}

/// One thread's part of a histogram.
#[derive(Debug)]
struct HistogramCell {
    /// Values per bucket, not cumulative; the last one used is the bucket without a bound.
    counts: [AtomicU64; BUCKETS_MAX + 1],
    /// Sum of the observed values.
    sum: AtomicU64,
}

impl Default for HistogramCell {
    fn default() -> Self {
        Self { counts: std::array::from_fn(|_| AtomicU64::new(0)), sum: AtomicU64::new(0) }
    }
}

/// Counts of values per bucket.
#[derive(Clone, Debug)]
pub struct Histogram {
    buckets: Buckets,
    cells: Arc<Cells<HistogramCell>>,
}

impl Histogram {
    /// Counts `value`, in the unit of the declared buckets, on the cell of `thread`: two relaxed
    /// additions.
    pub fn observe(&self, thread: usize, value: u64) {
        let cell = self.cells.of(thread);
        cell.counts[self.buckets.index(value)].fetch_add(1, Ordering::Relaxed);
        cell.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Values per bucket, not cumulative; the last is the bucket without a bound.
    fn counts(&self) -> Vec<u64> {
        let count = |index: usize| {
            self.cells.iter().map(|cell| cell.counts[index].load(Ordering::Relaxed)).sum()
        };
        (0..=self.buckets.count).map(count).collect()
    }

    fn sum(&self) -> u64 {
        let sums = self.cells.iter().map(|cell| cell.sum.load(Ordering::Relaxed));
        sums.fold(0, u64::wrapping_add)
    }
}

impl Instrument for Histogram {
    const KIND: MetricKind = MetricKind::Histogram;
    const HAS_LABELS: bool = false;

    fn new(descriptor: &'static MetricDescriptor, threads: usize) -> Self {
        Self { buckets: descriptor.buckets, cells: Arc::new(Cells::new(threads)) }
    }

    fn sample(&self, labels: &[&str], samples: &mut Samples<'_>) {
        let mut cumulative = 0;
        let bounds = self.buckets.bounds().chain([f64::INFINITY]);
        for (bound, count) in bounds.zip(self.counts()) {
            cumulative += count;
            samples.bucket(labels, bound, cumulative);
        }
        samples.sum(labels, self.buckets.exposed(self.sum()), cumulative);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_at_a_bound_is_in_that_bucket_and_one_above_is_in_the_next() {
        let buckets = Buckets::powers_of_two(5, 7, 1);
        let expected = [(0, 0), (1, 0), (32, 0), (33, 1), (64, 1), (65, 2), (128, 2), (129, 3)];
        for (value, index) in expected {
            assert_eq!(buckets.index(value), index, "{value}");
        }
        assert_eq!(buckets.index(u64::MAX), 3);
    }

    #[test]
    fn the_index_agrees_with_a_search_of_the_bounds() {
        for buckets in [Buckets::SECONDS, Buckets::BYTES, Buckets::COUNT] {
            let bounds: Vec<u64> =
                (0..buckets.count).map(|i| 1 << (buckets.first as usize + i)).collect();
            for value in (0..40).flat_map(|e| [(1_u64 << e) - 1, 1 << e, (1 << e) + 1]) {
                let searched = bounds.partition_point(|bound| *bound < value);
                assert_eq!(buckets.index(value), searched, "{value} in {buckets:?}");
            }
        }
    }
}
