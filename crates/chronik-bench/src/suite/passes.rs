//! A backlog that is read again and again, from its start to its end.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::failure::Failure;
use crate::modes::consume;
use crate::plan::Plan;
use crate::recorder::latency_histogram;
use crate::reporter::Display;

/// What the passes brought, together.
#[derive(Clone, Debug)]
pub(super) struct Passes {
    /// Messages.
    pub messages: u64,
    /// Their megabytes.
    pub megabytes: f64,
    /// Fetches.
    pub requests: u64,
    /// Time from the first fetch of a pass to its last answer.
    pub reading: Duration,
    /// The same with what is between passes: connections are opened anew for each.
    pub elapsed: Duration,
    /// Latencies of fetches, in microseconds.
    pub latency: Histogram<u64>,
}

impl Passes {
    /// Reads the backlog of `plan`, of which every pass must bring `count` messages, until
    /// `is_over`; the pass that has begun is finished.
    ///
    /// # Errors
    /// If a pass brings another number of messages, or fails.
    pub(super) fn until(
        plan: &Plan,
        count: u64,
        is_over: impl Fn() -> bool,
    ) -> Result<Self, Failure> {
        let mut passes = Self {
            messages: 0,
            megabytes: 0.0,
            requests: 0,
            reading: Duration::ZERO,
            elapsed: Duration::ZERO,
            latency: latency_histogram(),
        };
        while !is_over() {
            let started = Instant::now();
            let result = consume::run_with(plan, Display::silent())?;
            let summary = &result.summary;
            if summary.messages != count {
                let text = format!("{} of {count} messages of the backlog", summary.messages);
                return Err(Failure::Mismatch(text));
            }
            passes.messages += summary.messages;
            passes.megabytes += summary.megabytes_per_second * summary.seconds;
            passes.requests += summary.requests;
            passes.reading += Duration::from_secs_f64(summary.seconds);
            passes.elapsed += started.elapsed();
            passes.latency.add(&result.latency).expect("histograms of this tool have one range");
        }
        Ok(passes)
    }

    /// The same for the time of `time`, at least one pass unless it is zero.
    ///
    /// # Errors
    /// As [`until`](Self::until).
    pub(super) fn during(time: Duration, plan: &Plan, count: u64) -> Result<Self, Failure> {
        let started = Instant::now();
        Self::until(plan, count, || started.elapsed() >= time)
    }
}
