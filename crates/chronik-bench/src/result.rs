//! What a run found out, as it is printed and kept.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::audit::Verdict;
use crate::plan::Configuration;
use crate::process_probe::ProcessCost;
use crate::series::{Interval, Series, per};

/// A measured rate below this part of the wanted one is not sustained.
const SUSTAINED_MIN: f64 = 0.99;

/// Headroom below this marks a result that the client limited.
pub const HEADROOM_MIN: f64 = 1.3;

/// A finished run.
#[derive(Clone, Debug)]
pub struct RunResult {
    /// What was asked for.
    pub configuration: Configuration,
    /// Figures of the measured time.
    pub summary: Summary,
    /// What the read back found; `None` if nothing was read back.
    pub read_back: Option<Verdict>,
    /// This client against a broker that stores nothing.
    pub headroom: Option<Headroom>,
    /// The longest time without a success.
    pub gap: Option<Gap>,
    /// The other side of a load that writes and reads: its name and figures.
    pub other_side: Option<(&'static str, Summary)>,
    /// The measured time in steps.
    pub intervals: Vec<Interval>,
    /// Latencies of the measured time, in microseconds.
    pub latency: Histogram<u64>,
    /// Failures by reason.
    pub errors: BTreeMap<String, u64>,
    /// Remarks for the reader.
    pub notes: Vec<String>,
}

impl RunResult {
    /// The result of a series, without read back and extras.
    #[must_use]
    pub fn of(configuration: Configuration, series: Series) -> Self {
        Self {
            configuration,
            summary: Summary::of(&series),
            read_back: None,
            headroom: None,
            gap: None,
            other_side: None,
            intervals: series.intervals,
            latency: series.latency,
            errors: series.errors,
            notes: Vec::new(),
        }
    }
}

/// Figures of the measured time.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Summary {
    /// Measured time.
    pub seconds: f64,
    /// Messages that succeeded in it.
    pub messages: u64,
    /// Messages that failed, warm-up included.
    pub failed: u64,
    /// Successes per second.
    pub messages_per_second: f64,
    /// Bytes of values per second, in 10^6.
    pub megabytes_per_second: f64,
    /// Requests that were answered.
    pub requests: u64,
    /// Requests per second.
    pub requests_per_second: f64,
    /// Messages per request.
    pub messages_per_request: f64,
    /// Messages that were sent more than 1 ms after the intended time.
    pub late: u64,
    /// Messages an open loop wanted to send.
    pub intended: u64,
    /// Whether an open loop kept its rate.
    pub is_rate_sustained: Option<bool>,
    /// Latencies of successes.
    pub latency: LatencySummary,
    /// Latencies of failures.
    pub failed_latency: LatencySummary,
    /// CPU time of this tool's workers, in seconds.
    pub client_cpu_seconds: f64,
    /// The same per message, in microseconds.
    pub client_cpu_micros_per_message: f64,
    /// The same per request, in microseconds.
    pub client_cpu_micros_per_request: f64,
    /// What the broker cost.
    pub server: Option<ServerSummary>,
}

/// Percentiles in milliseconds.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
#[allow(missing_docs, reason = "a percentile says what it is")]
pub struct LatencySummary {
    pub count: u64,
    pub mean_ms: f64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p95_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub p9999_ms: f64,
    pub max_ms: f64,
}

impl LatencySummary {
    /// The percentiles of a histogram of microseconds.
    #[must_use]
    pub fn of(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        let at = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Self {
            count: histogram.len(),
            mean_ms: histogram.mean() / 1e3,
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p95_ms: at(0.95),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            p9999_ms: at(0.9999),
            max_ms: histogram.max() as f64 / 1e3,
        }
    }
}

/// What the broker cost in the measured time.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct ServerSummary {
    /// Counters of the process.
    #[serde(flatten)]
    pub cost: ProcessCost,
    /// Percent of one core.
    pub cpu_percent: f64,
    /// CPU time per request, in microseconds.
    pub cpu_micros_per_request: f64,
    /// CPU time per message, in microseconds: CPU seconds per million.
    pub cpu_micros_per_message: f64,
    /// CPU seconds per 10^9 bytes of values.
    pub cpu_seconds_per_gigabyte: f64,
    /// Context switches per request.
    pub context_switches_per_request: f64,
}

/// This client against a broker that stores nothing, in the same shape.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Headroom {
    /// Messages per second against the null broker.
    pub null_broker_messages_per_second: f64,
    /// That rate over the measured one.
    pub ratio: f64,
    /// True if the client limited the result.
    pub is_client_bound: bool,
}

impl Headroom {
    /// The headroom of a run of `measured` messages per second.
    #[must_use]
    pub fn of(null_broker: f64, measured: f64) -> Self {
        let ratio = per(null_broker, measured);
        Self {
            null_broker_messages_per_second: null_broker,
            ratio,
            is_client_bound: ratio < HEADROOM_MIN,
        }
    }
}

/// The longest time without a success.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Gap {
    /// Its length, in milliseconds.
    pub longest_ms: f64,
    /// When it ended, in seconds after the start of the measured time; negative in the warm-up.
    pub ended_at_seconds: f64,
}

impl Summary {
    /// The figures of a series.
    #[must_use]
    pub fn of(series: &Series) -> Self {
        let total = series.total();
        let counts = &total.counts;
        let (messages, requests) = (counts.messages as f64, counts.requests as f64);
        let cpu = total.client_cpu_seconds;
        let is_open = counts.intended > 0;
        Self {
            seconds: total.seconds,
            messages: counts.messages,
            failed: series.warmup.failed + counts.failed + series.drained.failed,
            messages_per_second: total.rate(),
            megabytes_per_second: per(counts.bytes as f64, total.seconds) / 1e6,
            requests: counts.requests,
            requests_per_second: per(requests, total.seconds),
            messages_per_request: per(messages, requests),
            late: counts.late,
            intended: counts.intended,
            is_rate_sustained: is_open
                .then_some(messages >= counts.intended as f64 * SUSTAINED_MIN),
            latency: LatencySummary::of(&series.latency),
            failed_latency: LatencySummary::of(&series.failed_latency),
            client_cpu_seconds: cpu,
            client_cpu_micros_per_message: per(cpu, messages) * 1e6,
            client_cpu_micros_per_request: per(cpu, requests) * 1e6,
            server: total.server.map(|cost| ServerSummary::of(cost, &total)),
        }
    }
}

impl ServerSummary {
    fn of(cost: ProcessCost, total: &Interval) -> Self {
        let counts = &total.counts;
        let requests = counts.requests as f64;
        Self {
            cost,
            cpu_percent: per(cost.cpu_seconds, total.seconds) * 100.0,
            cpu_micros_per_request: per(cost.cpu_seconds, requests) * 1e6,
            cpu_micros_per_message: per(cost.cpu_seconds, counts.messages as f64) * 1e6,
            cpu_seconds_per_gigabyte: per(cost.cpu_seconds, counts.bytes as f64) * 1e9,
            context_switches_per_request: per(cost.context_switches as f64, requests),
        }
    }
}
