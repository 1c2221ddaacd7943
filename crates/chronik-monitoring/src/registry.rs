//! The set of metrics of one server.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{Format, Instrument, MetricDescriptor, Samples};

/// Writes the samples of one metric.
type Sampler = Box<dyn Fn(&mut Samples<'_>) + Send + Sync>;

struct Metric {
    descriptor: &'static MetricDescriptor,
    sampler: Sampler,
}

/// The metrics of one server. There is no global one: who measures is given instruments.
pub struct Registry {
    threads: usize,
    metrics: Mutex<Vec<Metric>>,
}

impl Registry {
    /// A registry whose instruments are written by the threads `0..threads`.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        Self { threads, metrics: Mutex::default() }
    }

    /// Adds a metric and returns its instrument. [`crate::metrics!`] calls this.
    ///
    /// # Panics
    /// If the name is taken, or the declaration breaks the rules of the exposition formats.
    #[must_use]
    pub fn register<T: Instrument>(&self, descriptor: &'static MetricDescriptor) -> T {
        let (name, has_labels) = (descriptor.name, !descriptor.labels.is_empty());
        assert_eq!(T::KIND, descriptor.kind, "{name} is declared as its instrument");
        assert_eq!(T::HAS_LABELS, has_labels, "{name} has labels if it is a family");
        let instrument = T::new(descriptor, self.threads);
        let sampled = instrument.clone();
        self.add(descriptor, Box::new(move |samples| sampled.sample(&[], samples)));
        instrument
    }

    /// Adds a metric whose values are asked for at every scrape: `sampler` writes the samples
    /// of `descriptor`, and must not wait for anything.
    ///
    /// # Panics
    /// If the name is taken, or the declaration breaks the rules of the exposition formats.
    pub fn observe(
        &self,
        descriptor: &'static MetricDescriptor,
        sampler: impl Fn(&mut Samples<'_>) + Send + Sync + 'static,
    ) {
        self.add(descriptor, Box::new(sampler));
    }

    /// The text of one scrape.
    #[must_use]
    pub fn render(&self, format: Format) -> String {
        let mut text = String::new();
        for metric in self.lock().iter() {
            let mut samples = Samples::begin(&mut text, format, metric.descriptor);
            (metric.sampler)(&mut samples);
        }
        text.push_str(format.end());
        text
    }

    fn add(&self, descriptor: &'static MetricDescriptor, sampler: Sampler) {
        let name = descriptor.name;
        assert_eq!(descriptor.fault(), None, "{name} cannot be exposed");
        let mut metrics = self.lock();
        let taken = metrics.iter().any(|metric| metric.descriptor.name == name);
        assert!(!taken, "{name} is registered once");
        metrics.push(Metric { descriptor, sampler });
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Metric>> {
        // A panic while the lock is held leaves a whole list: every change is one push.
        self.metrics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let metrics = self.lock();
        let names = metrics.iter().map(|metric| metric.descriptor.name);
        f.debug_struct("Registry").field("metrics", &names.collect::<Vec<_>>()).finish()
    }
}
