//! What one worker measures: counters and a histogram per sample, without locks.
//!
//! A run is cut into samples by time: one for the warm-up, one per step of the measured time,
//! one for what comes in after it. A worker hands each sample over when the next one starts;
//! merging them is the reporter's work (`series.rs`).

use std::collections::BTreeMap;
use std::sync::mpsc::Sender;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::clock::{Moment, thread_cpu};

/// Largest latency that is told apart, in microseconds: one minute.
pub const LATENCY_MICROS_MAX: u64 = 60_000_000;

/// Significant decimal digits of a latency.
const DIGITS: u8 = 3;

/// Delay between the intended and the real time of a send from which it counts as late.
pub const LATE: Duration = Duration::from_millis(1);

/// Different error texts that are told apart; the others are counted together.
const ERROR_KINDS_MAX: usize = 64;

/// An empty histogram of latencies in microseconds, from 1 to [`LATENCY_MICROS_MAX`].
#[must_use]
pub fn latency_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MICROS_MAX, DIGITS).expect("the bounds are legal")
}

/// When a run warms up, measures, and ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Schedule {
    /// Start of the warm-up.
    pub start: Moment,
    /// Start of the measured time.
    pub measure_from: Moment,
    /// End of the measured time; [`Moment::NEVER`] if only the number of messages ends it.
    pub measure_until: Moment,
    /// Length of a sample of the measured time.
    pub sample: Duration,
    /// Longest time to wait for answers after the measured time.
    pub drain: Duration,
}

/// Number of the sample of the warm-up.
pub const WARMUP: u32 = 0;
/// Number of the sample of what comes in after the measured time.
pub const DRAIN: u32 = u32::MAX;

impl Schedule {
    /// Number of the sample in which `now` lies: [`WARMUP`], 1 and so on, or [`DRAIN`].
    #[must_use]
    pub fn sample_at(&self, now: Moment) -> u32 {
        if now < self.measure_from {
            return WARMUP;
        }
        if now >= self.measure_until {
            return DRAIN;
        }
        let step = u64::try_from(self.sample.as_nanos()).unwrap_or(u64::MAX).max(1);
        u32::try_from((now.0 - self.measure_from.0) / step + 1).unwrap_or(DRAIN - 1)
    }

    /// The end of the sample in which `now` lies, exclusive.
    #[must_use]
    pub fn sample_end(&self, now: Moment) -> Moment {
        match self.sample_at(now) {
            WARMUP => self.measure_from,
            DRAIN => Moment::NEVER,
            index => {
                let steps = self.sample.saturating_mul(index);
                self.measure_from.after(steps).min(self.measure_until)
            }
        }
    }
}

/// Counts of one sample.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Messages acknowledged or read.
    pub messages: u64,
    /// Their values' bytes.
    pub bytes: u64,
    /// Requests answered.
    pub requests: u64,
    /// Messages that failed.
    pub failed: u64,
    /// Messages sent more than [`LATE`] after the intended time.
    pub late: u64,
    /// Messages that an open loop wanted to send.
    pub intended: u64,
}

impl Counts {
    /// Adds `other`.
    pub fn add(&mut self, other: &Self) {
        self.messages += other.messages;
        self.bytes += other.bytes;
        self.requests += other.requests;
        self.failed += other.failed;
        self.late += other.late;
        self.intended += other.intended;
    }
}

/// What one worker measured in one sample.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Number of the sample.
    pub index: u32,
    /// Counts.
    pub counts: Counts,
    /// Latencies of successes, in microseconds.
    pub latency: Histogram<u64>,
    /// Latencies of failures, in microseconds.
    pub failed_latency: Option<Histogram<u64>>,
    /// Failures by reason.
    pub errors: BTreeMap<String, u64>,
    /// CPU time that is charged to the worker.
    pub cpu: Duration,
}

impl Sample {
    fn new(index: u32) -> Self {
        Self {
            index,
            counts: Counts::default(),
            latency: latency_histogram(),
            failed_latency: None,
            errors: BTreeMap::new(),
            cpu: Duration::ZERO,
        }
    }
}

/// What a worker tells the reporter.
#[derive(Debug)]
pub enum Report {
    /// A finished sample of worker `worker`.
    Sample {
        /// Number of the worker.
        worker: usize,
        /// The sample.
        sample: Box<Sample>,
    },
    /// Worker `worker` is at its end.
    Done {
        /// Number of the worker.
        worker: usize,
    },
}

/// The measuring side of one worker.
#[derive(Debug)]
pub struct Recorder {
    worker: usize,
    schedule: Schedule,
    current: Sample,
    /// End of the current sample, exclusive.
    current_end: Moment,
    /// CPU time so far of what is charged to the worker: its thread, unless it was told otherwise.
    cpu: fn() -> Duration,
    cpu_before: Duration,
    reports: Sender<Report>,
    /// When the last success of the measured time came.
    last_success: Moment,
    /// Longest time between two successes, and when it ended.
    longest_gap: (Duration, Moment),
    first_error: Option<String>,
}

impl Recorder {
    /// A recorder for worker `worker`, to be used on its thread.
    #[must_use]
    pub fn new(worker: usize, schedule: Schedule, now: Moment, reports: Sender<Report>) -> Self {
        Self {
            worker,
            schedule,
            current: Sample::new(schedule.sample_at(now)),
            current_end: schedule.sample_end(now),
            cpu: thread_cpu,
            cpu_before: thread_cpu(),
            reports,
            last_success: now,
            longest_gap: (Duration::ZERO, now),
            first_error: None,
        }
    }

    /// The recorder of a worker that is charged with `cpu` instead of with its thread's time.
    #[must_use]
    #[cfg_attr(not(feature = "rdkafka"), allow(dead_code, reason = "only librdkafka needs it"))]
    pub fn charging(mut self, cpu: fn() -> Duration) -> Self {
        (self.cpu, self.cpu_before) = (cpu, cpu());
        self
    }

    /// When the run warms up, measures, and ends.
    #[must_use]
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// End of the current sample: [`turn`](Self::turn) has to be called by then.
    #[must_use]
    pub fn sample_end(&self) -> Moment {
        self.current_end
    }

    /// Hands the current sample over if it has ended.
    pub fn turn(&mut self, now: Moment) {
        if now < self.current_end {
            return;
        }
        let next = Sample::new(self.schedule.sample_at(now));
        self.hand_over(next);
        self.current_end = self.schedule.sample_end(now);
    }

    fn hand_over(&mut self, next: Sample) {
        let cpu = (self.cpu)();
        let mut sample = Box::new(std::mem::replace(&mut self.current, next));
        sample.cpu = cpu.saturating_sub(self.cpu_before);
        self.cpu_before = cpu;
        // A reporter that went away takes the run with it; nobody is left to tell.
        let _ = self.reports.send(Report::Sample { worker: self.worker, sample });
    }

    /// Hands over what is left.
    pub fn finish(mut self) -> RecorderEnd {
        let next = Sample::new(DRAIN);
        self.hand_over(next);
        let _ = self.reports.send(Report::Done { worker: self.worker });
        RecorderEnd { longest_gap: self.longest_gap, last_success: self.last_success }
    }

    /// Counts `count` messages of `bytes` bytes together that succeeded at `now`.
    pub fn success(&mut self, now: Moment, intended: Moment, count: u32, bytes: u64) {
        let latency = now.micros_since(intended).clamp(1, LATENCY_MICROS_MAX);
        self.current.latency.saturating_record_n(latency, u64::from(count));
        self.current.counts.messages += u64::from(count);
        self.current.counts.bytes += bytes;
        let gap = now.since(self.last_success);
        if gap > self.longest_gap.0 {
            self.longest_gap = (gap, now);
        }
        self.last_success = now;
    }

    /// Counts messages that came at `now` and whose own latency nobody asks for.
    pub fn received(&mut self, now: Moment, messages: u64, bytes: u64) {
        self.last_success = now;
        self.current.counts.messages += messages;
        self.current.counts.bytes += bytes;
    }

    /// Records the latency of a whole request.
    pub fn request_latency(&mut self, now: Moment, sent: Moment) {
        let latency = now.micros_since(sent).clamp(1, LATENCY_MICROS_MAX);
        self.current.latency.saturating_record(latency);
    }

    /// Counts `count` messages that failed at `now` for `reason`.
    pub fn failure(&mut self, now: Moment, intended: Moment, count: u32, reason: &str) {
        let latency = now.micros_since(intended).clamp(1, LATENCY_MICROS_MAX);
        let histogram = self.current.failed_latency.get_or_insert_with(latency_histogram);
        histogram.saturating_record_n(latency, u64::from(count));
        self.current.counts.failed += u64::from(count);
        let errors = &mut self.current.errors;
        let is_known = errors.contains_key(reason) || errors.len() < ERROR_KINDS_MAX;
        let reason = if is_known { reason } else { "other errors" };
        *errors.entry(reason.to_owned()).or_default() += u64::from(count);
        self.first_error.get_or_insert_with(|| reason.to_owned());
    }

    /// Counts an answered request.
    pub fn request(&mut self) {
        self.requests(1);
    }

    /// Counts answered requests.
    pub fn requests(&mut self, count: u64) {
        self.current.counts.requests += count;
    }

    /// Counts messages that were sent late.
    pub fn late(&mut self, count: u32) {
        self.current.counts.late += u64::from(count);
    }

    /// Counts messages that an open loop wants to send.
    pub fn intend(&mut self, count: u64) {
        self.current.counts.intended += count;
    }
}

/// What is known at the end besides the samples.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecorderEnd {
    /// Longest time between two successes, and when it ended.
    pub longest_gap: (Duration, Moment),
    /// When the last success came.
    pub last_success: Moment,
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    fn ms(ms: u64) -> Moment {
        Moment(ms * 1_000_000)
    }

    fn schedule() -> Schedule {
        Schedule {
            start: ms(0),
            measure_from: ms(100),
            measure_until: ms(350),
            sample: Duration::from_millis(100),
            drain: Duration::ZERO,
        }
    }

    #[test]
    fn time_is_cut_into_warm_up_samples_and_drain() {
        let schedule = schedule();
        for (at, index, end) in [
            (0, WARMUP, ms(100)),
            (99, WARMUP, ms(100)),
            (100, 1, ms(200)),
            (199, 1, ms(200)),
            (200, 2, ms(300)),
            (300, 3, ms(350)),
            (350, DRAIN, Moment::NEVER),
        ] {
            assert_eq!(
                (schedule.sample_at(ms(at)), schedule.sample_end(ms(at))),
                (index, end),
                "{at}"
            );
        }
    }

    #[test]
    fn every_success_and_failure_is_in_the_sample_in_which_it_ended() {
        let (reports, received) = channel();
        let mut recorder = Recorder::new(0, schedule(), ms(0), reports);
        recorder.success(ms(50), ms(49), 2, 200);
        recorder.turn(ms(120));
        recorder.success(ms(150), ms(120), 3, 300);
        recorder.failure(ms(160), ms(60), 1, "NOT_LEADER_OR_FOLLOWER");
        recorder.turn(ms(199));
        let end = recorder.finish();
        assert_eq!(end.longest_gap, (Duration::from_millis(100), ms(150)));
        let samples: Vec<_> = received
            .iter()
            .filter_map(|report| match report {
                Report::Sample { sample, .. } => Some(sample),
                Report::Done { .. } => None,
            })
            .collect();
        assert_eq!(samples.len(), 2);
        assert_eq!((samples[0].index, samples[0].counts.messages), (WARMUP, 2));
        assert_eq!((samples[1].index, samples[1].counts.messages), (1, 3));
        assert_eq!(samples[1].latency.max() / 1_000, 30);
        assert_eq!(samples[1].failed_latency.as_ref().unwrap().max() / 1_000, 100);
        assert_eq!(samples[1].errors["NOT_LEADER_OR_FOLLOWER"], 1);
    }

    #[test]
    fn percentiles_are_exact_to_three_digits() {
        let mut histogram = latency_histogram();
        for value in 1..=100_000 {
            histogram.record(value).unwrap();
        }
        for (quantile, exact) in [(0.5, 50_000.0), (0.99, 99_000.0), (0.999, 99_900.0)] {
            let found = histogram.value_at_quantile(quantile) as f64;
            assert!((found / exact - 1.0).abs() < 0.001, "{quantile}: {found}");
        }
        histogram.saturating_record(LATENCY_MICROS_MAX * 10);
        assert!(histogram.max() >= LATENCY_MICROS_MAX);
    }
}
