//! The table of one durability class, and figures that have no column of their own.

use std::fmt::Write as _;

use serde_json::Value;

use super::NOISY_PART_MAX;
use super::figures::{Spread, blocks, cell_text, decimal, percent_of_floor, spread, spread_beside};
use crate::result::HEADROOM_MIN;
use crate::suite::noise::is_noisy;

/// Names, units and decimals of figures that are primary figures of rows.
const UNITS: [(&str, &str, usize); 13] = [
    ("requests_per_second", "req/s", 0),
    ("messages_per_second", "msg/s", 0),
    ("megabytes_per_second", "MB/s", 1),
    ("operations_per_second", "ops/s", 0),
    ("server_cpu_micros_per_request", "us CPU/req", 2),
    ("server_cpu_seconds_per_gigabyte_read", "CPU-s/GB read", 3),
    ("server_cpu_percent", "% of a core", 3),
    ("rate_retained_percent", "% of the rate alone", 0),
    ("interval_p99_ratio", "x p99 alone", 2),
    ("first_ack_ms", "ms to first ack", 0),
    ("p50_ms", "ms p50", 2),
    ("p99_ms", "ms p99", 2),
    ("lost", "lost", 0),
];

/// Figures that some rows have besides those of the table: row, name, meaning, decimals.
const DETAILS: [(&str, &str, &str, usize); 34] = [
    ("plan-64", "messages_per_request", "messages per request", 1),
    ("plan-128", "messages_per_request", "messages per request", 1),
    ("batch-100B", "megabytes_per_second", "MB/s", 1),
    ("batch-100B", "server_cpu_micros_per_message", "server CPU-s per million messages", 3),
    ("batch-1KB", "server_cpu_micros_per_message", "server CPU-s per million messages", 3),
    ("batch-1KB", "server_cpu_seconds_per_gigabyte", "server CPU-s per GB", 3),
    ("parts-1000", "requests_per_second", "req/s", 0),
    ("rate-e2e", "rate", "msg/s wanted", 0),
    ("rate-e2e", "p999_ms", "ms p99.9", 2),
    ("tail-fanout", "megabytes_read_per_second", "MB/s read", 1),
    ("catchup-warm", "live_p99_ms", "ms p99 of the producer beside it", 2),
    ("catchup-warm", "server_cpu_seconds_per_gigabyte", "server CPU-s per GB", 3),
    ("tail-fetch", "server_cpu_seconds_per_gigabyte", "server CPU-s per GB", 3),
    ("librdkafka-produce", "megabytes_per_second", "MB/s", 1),
    ("librdkafka-produce", "messages_per_request", "messages per request", 0),
    ("librdkafka-produce", "server_cpu_micros_per_message", "server CPU-s per million messages", 3),
    ("librdkafka-consume", "megabytes_per_second", "MB/s", 1),
    ("librdkafka-consume", "server_cpu_micros_per_message", "server CPU-s per million messages", 3),
    ("idle", "ready_ms", "ms from its start until it is ready", 0),
    ("no-loss-1M", "killed_after_messages", "messages acknowledged before kill -9", 0),
    ("no-loss-1M", "longest_gap_ms", "ms without an acknowledgement at most", 0),
    ("no-loss-1M", "read_back", "messages read back", 0),
    ("noisy", "alone_messages_per_second", "msg/s alone", 0),
    ("noisy", "alone_p99_ms", "ms p99 alone", 2),
    ("neighbours", "interval_p99_ms", "ms p99 of the median interval beside the neighbour", 2),
    ("neighbours", "alone_interval_p99_ms", "ms alone", 2),
    ("neighbours", "p99_ratio", "x p99 alone, over the whole time", 2),
    ("neighbours", "resident_mebibytes_peak", "MiB of memory at most beside the neighbour", 1),
    ("neighbours", "memory_cap_mebibytes", "MiB of memory allowed", 1),
    ("neighbours", "resident_mebibytes_base", "MiB of it for the server without load", 1),
    ("neighbours", "slow_consumers_closed", "slow consumers closed by the server", 0),
    ("neighbours", "backlog_megabytes_per_second", "MB/s of the reader of the backlog", 1),
    ("neighbours", "idle_connections_alive", "idle connections that answer at the end", 0),
    ("neighbours", "idle_connections_seconds", "s to open them", 1),
];

/// The table of the cells of one class.
pub(super) fn table(cells: &[&Value]) -> String {
    let mut text = String::from(
        "| Row | Variant | Result | Min - max | msg/s | Floor msg/s | % of it | Journal floor \
         msg/s | % of it | p50 ms | p99 ms | Server CPU us/req | Client CPU us/req | RSS MiB | \
         Peak RSS MiB | Noisy blocks |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for cell in cells {
        let name = |name: &str| cell_text(cell[name].as_str().unwrap_or("-"));
        let _ = write!(text, "| `{}` | {} |", name("row"), name("variant"));
        let columns = match obstacle(cell) {
            Some(reason) => format!(" {} |{}", cell_text(&reason), " |".repeat(13)),
            None => columns(cell),
        };
        let _ = writeln!(text, "{columns}");
    }
    text.push('\n');
    text
}

/// Why a cell has no figures, if it has none.
fn obstacle(cell: &Value) -> Option<String> {
    if let Some(reason) = cell["skipped"].as_str() {
        return Some(format!("not run: {reason}"));
    }
    let failure = cell["failures"][0].as_str().unwrap_or("not run yet");
    blocks(cell).is_empty().then(|| failure.to_owned())
}

fn columns(cell: &Value) -> String {
    let primary = cell["primary"].as_str().unwrap_or_default();
    let unit = UNITS.iter().find(|(name, _, _)| *name == primary);
    let (unit, decimals) = unit.map_or((primary, 2), |(_, unit, decimals)| (*unit, *decimals));
    let median = |found: Option<Spread>, decimals: usize| {
        found.map_or_else(|| "-".to_owned(), |it| decimal(it.median, decimals))
    };
    let shown = |name: &str, decimals: usize| median(spread(cell, name), decimals);
    let (value, range) = match spread(cell, primary) {
        Some(it) => (
            format!("{} {unit}", decimal(it.median, decimals)),
            format!("{} - {}", decimal(it.min, decimals), decimal(it.max, decimals)),
        ),
        None => ("-".to_owned(), "-".to_owned()),
    };
    let columns = [
        value,
        range,
        shown("messages_per_second", 0),
        median(spread_beside(cell, "floor"), 0),
        share_of_floor(cell),
        median(spread_beside(cell, "journal_floor"), 0),
        median(percent_of_floor(cell, "journal_floor"), 0),
        shown("p50_ms", 2),
        shown("p99_ms", 2),
        shown("server_cpu_micros_per_request", 2),
        shown("client_cpu_micros_per_request", 2),
        shown("resident_mebibytes", 1),
        shown("resident_mebibytes_peak", 1),
        noisy(cell),
    ];
    columns.iter().map(|column| format!(" {column} |")).collect()
}

fn share_of_floor(cell: &Value) -> String {
    let Some(Spread { median, .. }) = percent_of_floor(cell, "floor") else {
        return "-".to_owned();
    };
    let is_client_bound = 100.0 / median < HEADROOM_MIN;
    format!("{median:.0}{}", if is_client_bound { ", client-bound" } else { "" })
}

fn noisy(cell: &Value) -> String {
    let (blocks, failed) = (blocks(cell), cell["failures"].as_array().map_or(0, Vec::len));
    let count = blocks.iter().filter(|block| is_noisy(&block["noise"])).count();
    let is_too_many = count as f64 > blocks.len() as f64 * NOISY_PART_MAX;
    let mark = if is_too_many { ", CPU only" } else { "" };
    let failed = if failed > 0 { format!(", **{failed} failed**") } else { String::new() };
    format!("{count} of {}{mark}{failed}", blocks.len())
}

/// Figures that have no column, as a list; empty if there are none.
pub(super) fn details(cells: &[&Value]) -> String {
    let mut text = String::new();
    for cell in cells {
        let row = cell["row"].as_str().unwrap_or_default();
        let of_row = DETAILS.iter().filter(|(name, ..)| *name == row);
        let shown = of_row.filter_map(|(_, figure, meaning, decimals)| {
            let median = spread(cell, figure)?.median;
            Some(format!("{} {meaning}", decimal(median, *decimals)))
        });
        let shown: Vec<_> = shown.collect();
        if !shown.is_empty() {
            let variant = cell["variant"].as_str().unwrap_or_default();
            let _ = writeln!(text, "* `{row}` {variant}: {}", shown.join(", "));
        }
    }
    if !text.is_empty() {
        text.push('\n');
    }
    text
}
