//! The figures of a run by name, as a suite keeps them: a flat table of numbers.

use std::collections::BTreeMap;

use crate::process_probe::ProcessCost;
use crate::result::{LatencySummary, RunResult, Summary};
use crate::series::Interval;

/// Figures by name.
pub(super) type Figures = BTreeMap<&'static str, f64>;

/// Six digits: more are noise, and room in the document.
pub(super) fn rounded(value: f64) -> f64 {
    format!("{value:.5e}").parse().unwrap_or(value)
}

/// The figures of a run.
pub(super) fn figures_of(result: &RunResult) -> Figures {
    let mut figures = summary_figures(&result.summary);
    if let Some((name, other)) = &result.other_side {
        figures.insert("other_messages_per_second", other.messages_per_second);
        figures.insert("other_p99_ms", other.latency.p99_ms);
        if let (&"read", Some(server)) = (name, &result.summary.server) {
            let gigabytes = other.megabytes_per_second * other.seconds / 1e3;
            let per_gigabyte = crate::series::per(server.cost.cpu_seconds, gigabytes);
            figures.insert("server_cpu_seconds_per_gigabyte_read", per_gigabyte);
            figures.insert("megabytes_read_per_second", other.megabytes_per_second);
        }
    }
    if let Some(verdict) = &result.read_back {
        for (name, count) in [
            ("read_back", verdict.stored),
            ("acknowledged", verdict.acknowledged),
            ("lost", verdict.lost),
            ("duplicated", verdict.duplicated),
            ("reordered", verdict.reordered),
        ] {
            figures.insert(name, count as f64);
        }
    }
    if let Some(gap) = &result.gap {
        figures.insert("longest_gap_ms", gap.longest_ms);
    }
    figures
}

/// Figures of its measured time.
pub(super) fn summary_figures(summary: &Summary) -> Figures {
    let mut figures = Figures::from([
        ("messages_per_second", summary.messages_per_second),
        ("megabytes_per_second", summary.megabytes_per_second),
        ("requests_per_second", summary.requests_per_second),
        ("failed", summary.failed as f64),
        ("client_cpu_micros_per_message", summary.client_cpu_micros_per_message),
    ]);
    // librdkafka does not say how long its fetches take, nor at once how many requests it made.
    if summary.latency.count > 0 {
        figures.extend([
            ("p50_ms", summary.latency.p50_ms),
            ("p99_ms", summary.latency.p99_ms),
            ("p999_ms", summary.latency.p999_ms),
            ("max_ms", summary.latency.max_ms),
        ]);
    }
    if summary.requests > 0 {
        figures.insert("messages_per_request", summary.messages_per_request);
        figures.insert("client_cpu_micros_per_request", summary.client_cpu_micros_per_request);
    }
    if let Some(is_sustained) = summary.is_rate_sustained {
        figures.insert("is_rate_sustained", f64::from(u8::from(is_sustained)));
        figures.insert("late", summary.late as f64);
    }
    if let Some(server) = &summary.server {
        figures.extend(cost_figures(&server.cost));
        figures.insert("server_cpu_percent", server.cpu_percent);
        figures.insert("server_cpu_micros_per_request", server.cpu_micros_per_request);
        figures.insert("server_cpu_micros_per_message", server.cpu_micros_per_message);
        figures.insert("server_cpu_seconds_per_gigabyte", server.cpu_seconds_per_gigabyte);
        figures.insert("context_switches_per_request", server.context_switches_per_request);
    }
    figures
}

/// A load before and after it had company, taken together.
pub(super) struct Alone {
    messages_per_second: f64,
    latency: LatencySummary,
    interval_p99_ms: f64,
}

impl Alone {
    /// Both runs as one.
    pub(super) fn of(before: &RunResult, after: &RunResult) -> Self {
        let mut latency = before.latency.clone();
        latency.add(&after.latency).expect("histograms of this tool have one range");
        let rate = |run: &RunResult| run.summary.messages_per_second;
        let messages_per_second = f64::midpoint(rate(before), rate(after));
        let interval_p99_ms = interval_p99_ms(before.intervals.iter().chain(&after.intervals));
        Self { messages_per_second, latency: LatencySummary::of(&latency), interval_p99_ms }
    }

    /// Adds its figures, and what the load beside others has of them.
    pub(super) fn compare(&self, run: &RunResult, beside: &mut Figures) {
        let interval_p99_ms = interval_p99_ms(&run.intervals);
        let interval_ratio = crate::series::per(interval_p99_ms, self.interval_p99_ms);
        let of = |name: &str| beside.get(name).copied().unwrap_or(0.0);
        let ratio = crate::series::per(of("p99_ms"), self.latency.p99_ms);
        let retained = crate::series::per(of("messages_per_second"), self.messages_per_second);
        beside.extend([
            ("alone_messages_per_second", self.messages_per_second),
            ("alone_p50_ms", self.latency.p50_ms),
            ("alone_p99_ms", self.latency.p99_ms),
            ("p99_ratio", ratio),
            ("interval_p99_ms", interval_p99_ms),
            ("alone_interval_p99_ms", self.interval_p99_ms),
            ("interval_p99_ratio", interval_ratio),
            ("rate_retained_percent", retained * 100.0),
        ]);
    }
}

/// The median of the intervals' p99, in milliseconds: a machine that stands still for a moment
/// spoils the intervals in which it does, not the rest.
fn interval_p99_ms<'a>(intervals: impl IntoIterator<Item = &'a Interval>) -> f64 {
    let busy = intervals.into_iter().filter(|interval| interval.counts.messages > 0);
    let mut micros: Vec<u64> = busy.map(|interval| interval.latency_at(0.99)).collect();
    micros.sort_unstable();
    micros.get(micros.len() / 2).map_or(0.0, |micros| *micros as f64 / 1e3)
}

/// Bytes as they are shown.
pub(super) fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// What the server holds.
pub(super) fn cost_figures(cost: &ProcessCost) -> Figures {
    Figures::from([
        ("resident_mebibytes", mebibytes(cost.resident_bytes)),
        ("resident_mebibytes_peak", mebibytes(cost.resident_bytes_peak)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::Counts;

    #[test]
    fn one_bad_interval_does_not_decide() {
        let interval = |micros: u64| Interval {
            counts: Counts { messages: 100, ..Counts::default() },
            latencies: vec![(10, 98), (micros, 2)],
            ..Interval::default()
        };
        let found = [interval(300), interval(90_000), interval(200), Interval::default()];
        assert_eq!(interval_p99_ms(&found), 0.3);
        assert_eq!(interval_p99_ms([]), 0.0);
    }
}
