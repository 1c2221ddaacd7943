//! A result as one JSON document. Its form has a number: fields are added, never changed in
//! meaning; a change that breaks readers raises the number.

use std::path::Path;

use serde_json::{Value, json};

use super::environment::environment;
use super::hdr;
use crate::clock::wall_ms;
use crate::result::RunResult;
use crate::series::Interval;

/// Number of the document's form.
pub(crate) const SCHEMA: u32 = 1;

/// The document of a result. The disk is probed in `probe_directory`, or in the system's
/// temporary directory.
pub(crate) fn document(result: &RunResult, probe_directory: Option<&Path>) -> Value {
    let directory = probe_directory.map_or_else(std::env::temp_dir, Path::to_owned);
    let mut document = body(result);
    document["environment"] = environment(Some(&directory));
    document
}

/// The document without the environment, for suites, which describe it once.
pub(crate) fn body(result: &RunResult) -> Value {
    let value = |it: Result<Value, serde_json::Error>| it.expect("results have string keys only");
    json!({
        "schema": SCHEMA,
        "tool": { "name": "chronik-bench", "version": env!("CARGO_PKG_VERSION") },
        "finished_at_ms": wall_ms(),
        "configuration": value(serde_json::to_value(&result.configuration)),
        "summary": value(serde_json::to_value(&result.summary)),
        "read_back": value(serde_json::to_value(&result.read_back)),
        "headroom": value(serde_json::to_value(result.headroom)),
        "gap": value(serde_json::to_value(result.gap)),
        "other_side": result.other_side.as_ref().map(|(name, summary)| {
            json!({ "name": name, "summary": value(serde_json::to_value(summary)) })
        }),
        "errors": result.errors,
        "notes": result.notes,
        "histogram": {
            "unit": "us",
            "encoding": "HdrHistogram V2, deflate, base64",
            "data": hdr::encoded(&result.latency),
        },
        "intervals": result.intervals.iter().map(interval).collect::<Vec<_>>(),
    })
}

fn interval(interval: &Interval) -> Value {
    let ms = |quantile: f64| interval.latency_at(quantile) as f64 / 1e3;
    json!({
        "start_seconds": interval.start_seconds,
        "seconds": interval.seconds,
        "messages": interval.counts.messages,
        "bytes": interval.counts.bytes,
        "requests": interval.counts.requests,
        "failed": interval.counts.failed,
        "late": interval.counts.late,
        "p50_ms": ms(0.5),
        "p99_ms": ms(0.99),
        "max_ms": ms(1.0),
        "client_cpu_seconds": interval.client_cpu_seconds,
        "server": interval.server.map(|server| json!({
            "cpu_seconds": server.cpu_seconds,
            "resident_bytes": server.resident_bytes,
            "context_switches": server.context_switches,
            "written_bytes": server.written_bytes,
        })),
    })
}
