//! Metrics with labels: one instrument per combination of label values, with a bound.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{Instrument, MetricDescriptor, MetricKind, Samples};

/// Series of one family at most; further combinations of label values share one series whose
/// label values are all `other`.
const SERIES_MAX: usize = 10_000;
const OVERFLOW_LABEL: &str = "other";

/// The instruments of a metric with labels.
#[derive(Debug)]
pub struct Family<T> {
    descriptor: &'static MetricDescriptor,
    threads: usize,
    series: Arc<Mutex<BTreeMap<Vec<String>, T>>>,
}

impl<T> Clone for Family<T> {
    fn clone(&self) -> Self {
        Self {
            descriptor: self.descriptor,
            threads: self.threads,
            series: Arc::clone(&self.series),
        }
    }
}

impl<T: Instrument> Family<T> {
    /// The instrument for these label values, created at the first call. It takes a lock and
    /// allocates: keep the instrument where it is written often.
    ///
    /// Values that a client chooses must not become labels. As a last line of defence, a family
    /// that holds 10,000 series answers every new combination with one series named `other`.
    ///
    /// # Panics
    /// If the number of values is not the number of labels.
    #[must_use]
    pub fn series(&self, values: &[&str]) -> T {
        let labels = self.descriptor.labels;
        assert_eq!(values.len(), labels.len(), "{} has labels {labels:?}", self.descriptor.name);
        let mut series = self.lock();
        let mut key: Vec<_> = values.iter().map(|value| (*value).to_owned()).collect();
        if series.len() >= SERIES_MAX && !series.contains_key(&key) {
            key = vec![OVERFLOW_LABEL.to_owned(); labels.len()];
        }
        series.entry(key).or_insert_with(|| T::new(self.descriptor, self.threads)).clone()
    }

    /// Stops exposing the series with these label values. Handles of it stay valid and write
    /// to nowhere.
    pub fn remove(&self, values: &[&str]) {
        let key: Vec<_> = values.iter().map(|value| (*value).to_owned()).collect();
        self.lock().remove(&key);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Vec<String>, T>> {
        // A panic while the lock is held leaves a whole map: every change is one call.
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Instrument> Instrument for Family<T> {
    const KIND: MetricKind = T::KIND;
    const HAS_LABELS: bool = true;

    fn new(descriptor: &'static MetricDescriptor, threads: usize) -> Self {
        assert!(!T::HAS_LABELS, "{} is a family of plain instruments", descriptor.name);
        Self { descriptor, threads, series: Arc::default() }
    }

    fn sample(&self, _: &[&str], samples: &mut Samples<'_>) {
        for (values, instrument) in self.lock().iter() {
            let values: Vec<_> = values.iter().map(String::as_str).collect();
            instrument.sample(&values, samples);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Counter;

    static DESCRIPTOR: MetricDescriptor =
        MetricDescriptor::counter("test_total", &["client"], "For tests.");

    #[test]
    fn a_family_never_holds_more_than_its_bound_and_one_overflow_series() {
        let family = Family::<Counter>::new(&DESCRIPTOR, 1);
        for client in 0..SERIES_MAX + 5 {
            family.series(&[&client.to_string()]).increment(0, 1);
        }
        assert_eq!(family.lock().len(), SERIES_MAX + 1);
        assert_eq!(family.series(&[OVERFLOW_LABEL]).value(), 5);
        assert_eq!(family.series(&["7"]).value(), 1, "known series stay themselves");
    }
}
