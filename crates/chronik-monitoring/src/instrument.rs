//! Counters and gauges, and what every instrument can do.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::cell::Cells;
use crate::{MetricDescriptor, MetricKind, Samples};

/// Something a metric is written with. Clones write to the same metric.
pub trait Instrument: Clone + fmt::Debug + Send + Sync + 'static {
    /// Type of the metric.
    const KIND: MetricKind;

    /// True if the metric has labels, whose values are given per series.
    const HAS_LABELS: bool;

    /// An instrument for `descriptor` that the threads `0..threads` write to.
    fn new(descriptor: &'static MetricDescriptor, threads: usize) -> Self;

    /// Writes the present values; `labels` are the label values of this series.
    fn sample(&self, labels: &[&str], samples: &mut Samples<'_>);
}

/// A number that only grows.
#[derive(Clone, Debug)]
pub struct Counter {
    cells: Arc<Cells<AtomicU64>>,
}

impl Counter {
    /// Adds `amount` on the cell of `thread`: one relaxed addition, no sharing between threads
    /// with different numbers.
    pub fn increment(&self, thread: usize, amount: u64) {
        self.cells.of(thread).fetch_add(amount, Ordering::Relaxed);
    }

    /// The sum over all threads. Increments that run at the same time may or may not be in it.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.cells.sum()
    }
}

impl Instrument for Counter {
    const KIND: MetricKind = MetricKind::Counter;
    const HAS_LABELS: bool = false;

    fn new(_: &'static MetricDescriptor, threads: usize) -> Self {
        Self { cells: Arc::new(Cells::new(threads)) }
    }

    fn sample(&self, labels: &[&str], samples: &mut Samples<'_>) {
        samples.count(labels, self.value());
    }
}

/// A number that goes up and down. All threads share it; a number that changes with every
/// request is better counted by two [`Counter`]s.
#[derive(Clone, Debug)]
pub struct Gauge {
    value: Arc<AtomicI64>,
}

impl Gauge {
    /// Replaces the value.
    pub fn set(&self, value: i64) {
        self.value.store(value, Ordering::Relaxed);
    }

    /// Adds `amount`, which may be negative.
    pub fn add(&self, amount: i64) {
        self.value.fetch_add(amount, Ordering::Relaxed);
    }

    /// The present value.
    #[must_use]
    pub fn value(&self) -> i64 {
        self.value.load(Ordering::Relaxed)
    }
}

impl Instrument for Gauge {
    const KIND: MetricKind = MetricKind::Gauge;
    const HAS_LABELS: bool = false;

    fn new(_: &'static MetricDescriptor, _: usize) -> Self {
        Self { value: Arc::default() }
    }

    fn sample(&self, labels: &[&str], samples: &mut Samples<'_>) {
        samples.gauge(labels, self.value() as f64);
    }
}
