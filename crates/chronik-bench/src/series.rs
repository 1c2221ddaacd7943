//! The samples of all workers, merged: one interval per sample, and the whole run.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::clock::Moment;
use crate::process_probe::ProcessCost;
use crate::recorder::{Counts, DRAIN, Sample, Schedule, WARMUP, latency_histogram};

/// Latencies of one interval, as pairs of microseconds and count, ascending.
pub type SparseLatencies = Vec<(u64, u64)>;

/// One sample of all workers.
#[derive(Clone, Debug, Default)]
pub struct Interval {
    /// Start, in seconds after the start of the measured time.
    pub start_seconds: f64,
    /// Length in seconds.
    pub seconds: f64,
    /// Counts.
    pub counts: Counts,
    /// Latencies of successes.
    pub latencies: SparseLatencies,
    /// CPU time of the workers, in seconds.
    pub client_cpu_seconds: f64,
    /// What the broker's process cost.
    pub server: Option<ProcessCost>,
}

impl Interval {
    /// Messages per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        per(self.counts.messages as f64, self.seconds)
    }

    /// Latency at `quantile`, in microseconds; 0 without any.
    #[must_use]
    pub fn latency_at(&self, quantile: f64) -> u64 {
        let total: u64 = self.latencies.iter().map(|(_, count)| count).sum();
        let wanted = (total as f64 * quantile).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (micros, count) in &self.latencies {
            seen += count;
            if seen >= wanted {
                return *micros;
            }
        }
        0
    }

    /// Adds the interval that follows this one.
    pub fn extend(&mut self, next: &Self) {
        self.seconds += next.seconds;
        self.counts.add(&next.counts);
        self.client_cpu_seconds += next.client_cpu_seconds;
        let mut merged: BTreeMap<_, _> = self.latencies.drain(..).collect();
        for (micros, count) in &next.latencies {
            *merged.entry(*micros).or_insert(0) += count;
        }
        self.latencies = merged.into_iter().collect();
        self.server = match (self.server, next.server) {
            (Some(first), Some(second)) => Some(ProcessCost {
                cpu_seconds: first.cpu_seconds + second.cpu_seconds,
                context_switches: first.context_switches + second.context_switches,
                involuntary_switches: first.involuntary_switches + second.involuntary_switches,
                written_bytes: first.written_bytes + second.written_bytes,
                io_calls: first.io_calls + second.io_calls,
                ..second
            }),
            (first, second) => second.or(first),
        };
    }
}

/// `amount / divisor`, 0 for nothing.
#[must_use]
pub fn per(amount: f64, divisor: f64) -> f64 {
    if divisor > 0.0 { amount / divisor } else { 0.0 }
}

/// Everything that was measured.
#[derive(Clone, Debug)]
pub struct Series {
    /// The measured time, in order.
    pub intervals: Vec<Interval>,
    /// Counts of the warm-up.
    pub warmup: Counts,
    /// Counts of what came in after the measured time.
    pub drained: Counts,
    /// Latencies of the measured time and of what was sent in it and came in after it.
    pub latency: Histogram<u64>,
    /// Latencies of failures, warm-up included.
    pub failed_latency: Histogram<u64>,
    /// Failures by reason, warm-up included.
    pub errors: BTreeMap<String, u64>,
    open: BTreeMap<u32, Interval>,
    schedule: Schedule,
}

impl Series {
    /// A series without samples.
    #[must_use]
    pub fn new(schedule: Schedule) -> Self {
        Self {
            intervals: Vec::new(),
            warmup: Counts::default(),
            drained: Counts::default(),
            latency: latency_histogram(),
            failed_latency: latency_histogram(),
            errors: BTreeMap::new(),
            open: BTreeMap::new(),
            schedule,
        }
    }

    /// Adds what one worker measured.
    pub fn add(&mut self, sample: &Sample) {
        let errors = &sample.errors;
        errors.iter().for_each(|(reason, n)| *self.errors.entry(reason.clone()).or_default() += n);
        if let Some(failed) = &sample.failed_latency {
            self.failed_latency.add(failed).expect("all histograms have the same bounds");
        }
        if sample.index == WARMUP {
            return self.warmup.add(&sample.counts);
        }
        self.latency.add(&sample.latency).expect("all histograms have the same bounds");
        if sample.index == DRAIN {
            return self.drained.add(&sample.counts);
        }
        let interval = self.open.entry(sample.index).or_default();
        interval.extend(&Interval {
            counts: sample.counts,
            latencies: sparse(&sample.latency),
            client_cpu_seconds: sample.cpu.as_secs_f64(),
            ..Interval::default()
        });
    }

    /// Ends the intervals up to `index`, inclusive, and gives the last the broker's cost. An
    /// interval in which nobody measured anything is one without messages.
    pub fn close(&mut self, index: u32, server: Option<ProcessCost>) {
        let step = self.schedule.sample.as_secs_f64();
        let until = self.schedule.measure_until.since(self.schedule.measure_from).as_secs_f64();
        let closed = self.intervals.len() as u32;
        for number in closed + 1..=index {
            let mut interval = self.open.remove(&number).unwrap_or_default();
            interval.start_seconds = f64::from(number - 1) * step;
            interval.seconds = step.min((until - interval.start_seconds).max(0.0));
            self.intervals.push(interval);
        }
        if let Some(last) = self.intervals.last_mut().filter(|_| index > closed) {
            last.server = server;
        }
    }

    /// Ends every interval: to the end of the schedule, or to the last one with messages if the
    /// schedule has none.
    pub fn finish(&mut self) {
        let measured = self.schedule.measure_until;
        let last = if measured == Moment::NEVER {
            self.open.last_key_value().map_or(0, |(number, _)| *number)
        } else {
            let length = measured.since(self.schedule.measure_from).as_nanos();
            let step = self.schedule.sample.as_nanos().max(1);
            u32::try_from(length.div_ceil(step)).unwrap_or(DRAIN - 1)
        };
        self.close(last, None);
    }

    /// Adds the broker's cost to the last interval.
    pub fn charge_last(&mut self, server: Option<ProcessCost>) {
        if let Some(last) = self.intervals.last_mut() {
            last.extend(&Interval { server, ..Interval::default() });
        }
    }

    /// Cuts the measured time off at `elapsed`: a run that ended by its number of messages.
    pub fn end_at(&mut self, elapsed: Duration) {
        let elapsed = elapsed.as_secs_f64();
        self.intervals.retain(|interval| interval.start_seconds < elapsed);
        if let Some(last) = self.intervals.last_mut() {
            last.seconds = last.seconds.min(elapsed - last.start_seconds);
        }
    }

    /// The measured time as one interval.
    #[must_use]
    pub fn total(&self) -> Interval {
        let mut total = Interval::default();
        for interval in &self.intervals {
            // The histogram of the whole run is kept apart.
            total.extend(&Interval { latencies: Vec::new(), ..interval.clone() });
        }
        total
    }
}

fn sparse(histogram: &Histogram<u64>) -> SparseLatencies {
    let pair = |step: hdrhistogram::iterators::IterationValue<u64>| {
        (step.value_iterated_to(), step.count_at_value())
    };
    histogram.iter_recorded().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::recorder::{Recorder, Report};

    fn ms(ms: u64) -> Moment {
        Moment(ms * 1_000_000)
    }

    #[test]
    fn intervals_are_not_cumulative_and_the_divisor_is_the_measured_time() {
        let schedule = Schedule {
            start: ms(0),
            measure_from: ms(0),
            measure_until: ms(250),
            sample: Duration::from_millis(100),
            drain: Duration::ZERO,
        };
        let (reports, received) = channel();
        for worker in 0..2 {
            let mut recorder = Recorder::new(worker, schedule, ms(0), reports.clone());
            for at in [10, 110, 210, 260] {
                recorder.turn(ms(at));
                recorder.success(ms(at), ms(at - 5), 10, 1_000);
            }
            recorder.finish();
        }
        drop(reports);
        let mut series = Series::new(schedule);
        for report in received {
            if let Report::Sample { sample, .. } = report {
                series.add(&sample);
            }
        }
        series.finish();
        let shapes: Vec<_> = series
            .intervals
            .iter()
            .map(|it| (it.counts.messages, (it.seconds * 1e3).round()))
            .collect();
        assert_eq!(shapes, [(20, 100.0), (20, 100.0), (20, 50.0)]);
        assert_eq!(series.drained.messages, 20);
        let total = series.total();
        assert_eq!(total.counts.messages, 60);
        assert!((total.seconds - 0.25).abs() < 1e-9);
        assert_eq!(series.latency.len(), 80, "what was sent in time counts when it comes in late");
        assert!((4_900..=5_100).contains(&series.intervals[0].latency_at(0.99)));
    }

    #[test]
    fn time_in_which_nothing_was_measured_is_measured_time() {
        let schedule = Schedule {
            start: ms(0),
            measure_from: ms(0),
            measure_until: ms(1_000),
            sample: Duration::from_millis(100),
            drain: Duration::ZERO,
        };
        let (reports, received) = channel();
        let mut recorder = Recorder::new(0, schedule, ms(0), reports);
        recorder.success(ms(50), ms(49), 1, 1);
        // The machine gave the worker no time for seven samples, and none at the end.
        recorder.turn(ms(750));
        recorder.success(ms(750), ms(50), 1, 1);
        recorder.turn(ms(1_500));
        recorder.finish();
        let mut series = Series::new(schedule);
        for report in received {
            if let Report::Sample { sample, .. } = report {
                series.add(&sample);
            }
        }
        let cost = ProcessCost { cpu_seconds: 0.5, ..ProcessCost::default() };
        series.close(8, Some(cost));
        series.finish();
        let total = series.total();
        assert_eq!((series.intervals.len(), total.counts.messages), (10, 2));
        assert!((total.seconds - 1.0).abs() < 1e-9);
        assert_eq!(total.server.unwrap().cpu_seconds, 0.5, "counted once");
    }

    #[test]
    fn a_run_that_ends_by_its_messages_ends_with_the_last_of_them() {
        let schedule = Schedule {
            start: ms(0),
            measure_from: ms(0),
            measure_until: Moment::NEVER,
            sample: Duration::from_millis(100),
            drain: Duration::ZERO,
        };
        let (reports, received) = channel();
        let mut recorder = Recorder::new(0, schedule, ms(0), reports);
        recorder.success(ms(50), ms(49), 1, 1);
        recorder.turn(ms(130));
        recorder.success(ms(130), ms(129), 1, 1);
        recorder.finish();
        let mut series = Series::new(schedule);
        for report in received {
            if let Report::Sample { sample, .. } = report {
                series.add(&sample);
            }
        }
        series.finish();
        series.end_at(Duration::from_millis(130));
        assert!((series.total().seconds - 0.13).abs() < 1e-9);
    }
}
