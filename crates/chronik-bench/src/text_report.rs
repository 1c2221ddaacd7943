//! The table at the end of a run, for people.

use std::fmt::Write as _;

use crate::quantity::grouped;
use crate::result::{LatencySummary, RunResult};

/// The final table. Ends with a newline.
#[must_use]
pub fn text(result: &RunResult) -> String {
    let mut rows: Vec<(&str, String)> = Vec::new();
    let summary = &result.summary;
    let shape = result.configuration.shape_line();
    rows.push(("load", shape));
    rows.push(("messages", format!("{} in {:.2} s", grouped(summary.messages), summary.seconds)));
    let rate = format!(
        "{} msg/s, {:.2} MB/s",
        grouped(summary.messages_per_second.round() as u64),
        summary.megabytes_per_second
    );
    rows.push(("rate", rate));
    if summary.requests > 0 {
        let requests = format!(
            "{} req/s, {:.1} messages per request",
            grouped(summary.requests_per_second.round() as u64),
            summary.messages_per_request
        );
        rows.push(("requests", requests));
    }
    rows.push((result.configuration.latency_label(), latency_line(&summary.latency)));
    rows.push(("failed", failed_line(result)));
    if let Some(is_sustained) = summary.is_rate_sustained {
        let verdict = if is_sustained { "sustained" } else { "RATE NOT SUSTAINED" };
        let late = grouped(summary.late);
        rows.push(("open loop", format!("{verdict}; {late} sent more than 1 ms late")));
    }
    rows.push((
        "client CPU",
        format!(
            "{:.2} us per message, {:.2} us per request",
            summary.client_cpu_micros_per_message, summary.client_cpu_micros_per_request
        ),
    ));
    if let Some(server) = &summary.server {
        rows.push((
            "server CPU",
            format!(
                "{:.0} % of a core, {:.2} us per request, {:.2} us per message, {:.2} s per GB",
                server.cpu_percent,
                server.cpu_micros_per_request,
                server.cpu_micros_per_message,
                server.cpu_seconds_per_gigabyte
            ),
        ));
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        rows.push((
            "server",
            format!(
                "{:.1} MiB resident, peak {:.1} MiB, {:.2} context switches per request, {:.1} MB \
                 written",
                mib(server.cost.resident_bytes),
                mib(server.cost.resident_bytes_peak),
                server.context_switches_per_request,
                server.cost.written_bytes as f64 / 1e6
            ),
        ));
    }
    if let Some((name, other)) = &result.other_side {
        let rate = grouped(other.messages_per_second.round() as u64);
        let megabytes = other.megabytes_per_second;
        rows.push((name, format!("{rate} msg/s, {megabytes:.2} MB/s")));
        if other.latency.count > 0 {
            rows.push(("", latency_line(&other.latency)));
        }
    }
    if let Some(gap) = &result.gap {
        let (longest, at) = (gap.longest_ms, gap.ended_at_seconds);
        rows.push(("longest gap", format!("{longest:.1} ms, ended at {at:.2} s")));
    }
    if let Some(headroom) = &result.headroom {
        let mark = if headroom.is_client_bound { "; CLIENT-BOUND" } else { "" };
        rows.push((
            "headroom",
            format!(
                "{:.2}: {} msg/s against the null broker{mark}",
                headroom.ratio,
                grouped(headroom.null_broker_messages_per_second.round() as u64)
            ),
        ));
    }
    rows.push(("read back", read_back_line(result)));
    rows.extend(result.notes.iter().map(|note| ("note", note.clone())));
    let mut text = String::new();
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in rows {
        let _ = writeln!(text, "{name:<width$}  {value}");
    }
    text
}

fn latency_line(latency: &LatencySummary) -> String {
    if latency.count == 0 {
        return "-".to_owned();
    }
    format!(
        "p50 {:.2}  p90 {:.2}  p99 {:.2}  p99.9 {:.2}  p99.99 {:.2}  max {:.2} ms",
        latency.p50_ms,
        latency.p90_ms,
        latency.p99_ms,
        latency.p999_ms,
        latency.p9999_ms,
        latency.max_ms
    )
}

fn failed_line(result: &RunResult) -> String {
    if result.summary.failed == 0 {
        return "0".to_owned();
    }
    let reasons: Vec<_> = result
        .errors
        .iter()
        .map(|(reason, count)| format!("{} {reason}", grouped(*count)))
        .collect();
    let latency = &result.summary.failed_latency;
    format!(
        "{} ({}), after p50 {:.2} and at most {:.2} ms",
        grouped(result.summary.failed),
        reasons.join(", "),
        latency.p50_ms,
        latency.max_ms
    )
}

fn read_back_line(result: &RunResult) -> String {
    let Some(verdict) = &result.read_back else {
        return result.configuration.unverified_label().to_owned();
    };
    let mut line = format!("{} messages as acknowledged", grouped(verdict.stored));
    if !verdict.is_acknowledged {
        line = format!("{} of {} sent", grouped(verdict.stored), grouped(verdict.acknowledged));
    }
    line.push_str("; count, order and checksums compared");
    if verdict.unacknowledged > 0 {
        let _ = write!(line, "; {} more without an answer", grouped(verdict.unacknowledged));
    }
    line
}
