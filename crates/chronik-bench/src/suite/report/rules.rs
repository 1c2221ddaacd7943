//! Targets and rules that figures of a suite have to keep, with what was found.

use std::fmt::Write as _;

use serde_json::Value;

use super::figures::{
    Spread, decimal, find, percent_of_floor, ratio_between, ratio_within, spread,
};

/// Least rate of 1,000 connections over 1,000 partitions, relative to 64 over one.
const MANY_CONNECTIONS_MIN: f64 = 0.7;

/// Most server CPU per request over 1,000 partitions, relative to one.
const MANY_PARTITIONS_MAX: f64 = 1.3;

/// Most p99 of producers beside a neighbour, relative to producers alone.
const NEIGHBOUR_MAX: f64 = 2.0;

/// A figure of one variant of a row that has to lie somewhere on two quiet cores.
struct Target {
    durability: &'static str,
    row: &'static str,
    variant: &'static str,
    figure: &'static str,
    bound: Bound,
}

/// Stands for the rate over that of the broker that stores nothing, in percent.
const PERCENT_OF_FLOOR: &str = "percent of the floor";

/// Rows of librdkafka, and what its messages cost the server: CPU seconds per million.
const PRODUCER: &str = "librdkafka-produce";
const CONSUMER: &str = "librdkafka-consume";
const CPU_PER_MESSAGE: &str = "server_cpu_micros_per_message";

const fn target(
    durability: &'static str,
    row: &'static str,
    variant: &'static str,
    figure: &'static str,
    bound: Bound,
) -> Target {
    Target { durability, row, variant, figure, bound }
}

const TARGETS: &[Target] = &[
    target("fsync", "single-64", "acks 1", "requests_per_second", Bound::AtLeast(60_000.0)),
    target("fsync", "single-64", "acks 1", PERCENT_OF_FLOOR, Bound::AtLeast(55.0)),
    target("fsync", "single-64", "acks 1", "server_cpu_micros_per_request", Bound::AtMost(11.0)),
    target("fsync", "single-64", "acks 0", "requests_per_second", Bound::AtLeast(100_000.0)),
    target("fsync", "one-in-flight", "acks all", "p50_ms", Bound::AtMost(0.40)),
    target("fsync", "one-in-flight", "acks all", "p99_ms", Bound::AtMost(0.60)),
    target("fsync", "plan-64", "acks 1", "messages_per_second", Bound::AtLeast(150_000.0)),
    target("fsync", "plan-128", "acks 1", "messages_per_second", Bound::AtLeast(200_000.0)),
    target("fsync", "batch-100B", "acks 1", "messages_per_second", Bound::AtLeast(2e6)),
    target("fsync", "batch-1KB", "acks 1", "megabytes_per_second", Bound::AtLeast(300.0)),
    target("fsync", "catchup-warm", "alone", "megabytes_per_second", Bound::AtLeast(1_000.0)),
    target("fsync", "tail-fetch", "1 consumer", "megabytes_per_second", Bound::AtLeast(600.0)),
    target("fsync", "tail-fetch", "8 consumers", "megabytes_per_second", Bound::AtLeast(1_500.0)),
    target("fsync", PRODUCER, "100 B", "messages_per_second", Bound::AtLeast(1.2e6)),
    target("fsync", PRODUCER, "100 B", CPU_PER_MESSAGE, Bound::AtMost(0.3)),
    target("fsync", PRODUCER, "256 B, 6 partitions", "messages_per_second", Bound::AtLeast(0.75e6)),
    target("fsync", PRODUCER, "256 B, 6 partitions", CPU_PER_MESSAGE, Bound::AtMost(0.5)),
    target("fsync", PRODUCER, "1 KB", "messages_per_second", Bound::AtLeast(0.3e6)),
    target("fsync", PRODUCER, "1 KB", CPU_PER_MESSAGE, Bound::AtMost(1.3)),
    target("fsync", CONSUMER, "1 KB", "messages_per_second", Bound::AtLeast(1.2e6)),
    target("fsync", CONSUMER, "1 KB", CPU_PER_MESSAGE, Bound::AtMost(0.5)),
    target("fsync", CONSUMER, "100 B", "messages_per_second", Bound::AtLeast(4e6)),
    target("fsync", CONSUMER, "100 B", CPU_PER_MESSAGE, Bound::AtMost(0.09)),
    target("fsync", "restart", "kill -9", "first_ack_ms", Bound::AtMost(3_000.0)),
    target("fsync", "idle", "idle", "server_cpu_percent", Bound::AtMost(0.5)),
    target("fsync", "idle", "idle", "resident_mebibytes", Bound::AtMost(57.0)),
    target("fsync", "idle", "idle", "ready_ms", Bound::AtMost(100.0)),
    target("os", "single-64", "acks 1", "requests_per_second", Bound::AtLeast(70_000.0)),
    target("os", "single-64", "acks 1", "server_cpu_micros_per_request", Bound::AtMost(11.0)),
    target("os", "single-64", "acks 0", "requests_per_second", Bound::AtLeast(100_000.0)),
    target("os", "batch-1KB", "acks 1", "megabytes_per_second", Bound::AtLeast(450.0)),
    target("os", "parts-1000", "1,000 connections", "p99_ms", Bound::AtMost(60.0)),
    target("os", "catchup-warm", "alone", "megabytes_per_second", Bound::AtLeast(1_000.0)),
    target("os", "one-in-flight", "acks all", "p50_ms", Bound::AtMost(0.12)),
    target("os", "tail-fetch", "1 consumer", "megabytes_per_second", Bound::AtLeast(600.0)),
    target("os", "tail-fetch", "8 consumers", "megabytes_per_second", Bound::AtLeast(1_500.0)),
    target("os", CONSUMER, "1 KB", "messages_per_second", Bound::AtLeast(1.2e6)),
    target("os", CONSUMER, "1 KB", CPU_PER_MESSAGE, Bound::AtMost(0.5)),
    target("os", CONSUMER, "100 B", "messages_per_second", Bound::AtLeast(4e6)),
    target("os", CONSUMER, "100 B", CPU_PER_MESSAGE, Bound::AtMost(0.09)),
    target("os", "restart", "kill -9", "first_ack_ms", Bound::AtMost(3_000.0)),
    target("os", "idle", "idle", "server_cpu_percent", Bound::AtMost(0.5)),
    target("os", "idle", "idle", "resident_mebibytes", Bound::AtMost(57.0)),
    target("os", "idle", "idle", "ready_ms", Bound::AtMost(100.0)),
];

/// The neighbour whose server is another one: what it costs is the machine's.
const ELSEWHERE: &str = "reader of 1 GB elsewhere";

/// Where a figure has to lie.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// A rule: what it is about, what was found, where it has to lie.
struct Rule {
    what: String,
    found: Spread,
    bound: Bound,
}

impl Target {
    /// The rule, if the cells of one class have the figure.
    fn rule(&self, cells: &[&Value]) -> Option<Rule> {
        let cell = find(cells, self.row, self.variant)?;
        if cell["durability"] != self.durability {
            return None;
        }
        let found = match self.figure {
            PERCENT_OF_FLOOR => percent_of_floor(cell, "floor")?,
            figure => spread(cell, figure)?,
        };
        let what = format!("`{}`, {}: {}", self.row, self.variant, self.figure.replace('_', " "));
        Some(Rule { what, found, bound: self.bound })
    }
}

impl Rule {
    fn holds(&self) -> bool {
        match self.bound {
            Bound::AtLeast(bound) => self.found.median >= bound,
            Bound::AtMost(bound) => self.found.median <= bound,
        }
    }
}

/// The table of all rules whose figures the cells of one class have; empty if there are none.
pub(super) fn table(cells: &[&Value]) -> String {
    let rules = rules(cells);
    if rules.is_empty() {
        return String::new();
    }
    let mut text =
        String::from("| Rule | Median | Min - max | Bound | Holds |\n|---|---|---|---|---|\n");
    for rule in rules {
        let Spread { min, median, max } = rule.found;
        let bound = match rule.bound {
            Bound::AtLeast(bound) => format!(">= {}", trimmed(bound)),
            Bound::AtMost(bound) => format!("<= {}", trimmed(bound)),
        };
        let verdict = if rule.holds() { "yes" } else { "**no**" };
        let decimals = if max >= 1_000.0 { 0 } else { 2 };
        let [min, median, max] = [min, median, max].map(|it| decimal(it, decimals));
        let what = &rule.what;
        let _ = writeln!(text, "| {what} | {median} | {min} - {max} | {bound} | {verdict} |");
    }
    text.push('\n');
    text
}

/// A bound without decimals that say nothing.
fn trimmed(bound: f64) -> String {
    if bound >= 1_000.0 { decimal(bound, 0) } else { bound.to_string() }
}

fn rules(cells: &[&Value]) -> Vec<Rule> {
    let mut rules: Vec<Rule> = TARGETS.iter().filter_map(|target| target.rule(cells)).collect();
    let mut push = |what: String, found: Option<Spread>, bound: Bound| {
        rules.extend(found.map(|found| Rule { what, found, bound }));
    };
    let between = |variant: &str, figure: &str| {
        let base = find(cells, "single-64", "acks 1")?;
        ratio_between(find(cells, "parts-1000", variant)?, base, figure)
    };
    push(
        "`parts-1000`, 1,000 connections: requests per second over those of `single-64` acks 1"
            .to_owned(),
        between("1,000 connections", "requests_per_second"),
        Bound::AtLeast(MANY_CONNECTIONS_MIN),
    );
    push(
        "`parts-1000`, 64 connections: server CPU per request over that of `single-64` acks 1"
            .to_owned(),
        between("64 connections", "server_cpu_micros_per_request"),
        Bound::AtMost(MANY_PARTITIONS_MAX),
    );
    let beside = || {
        let elsewhere = find(cells, "neighbours", ELSEWHERE)?;
        ratio_between(find(cells, "neighbours", "reader of 1 GB")?, elsewhere, "interval_p99_ms")
    };
    push(
        "`neighbours`, reader of 1 GB: p99 of the producers over that beside a reader elsewhere"
            .to_owned(),
        beside(),
        Bound::AtMost(NEIGHBOUR_MAX),
    );
    let neighbours = |cell: &&&Value| cell["row"] == "neighbours" && cell["variant"] != ELSEWHERE;
    for cell in cells.iter().filter(neighbours) {
        let variant = cell["variant"].as_str().unwrap_or_default();
        push(
            format!("`neighbours`, {variant}: p99 of the producers over their p99 alone"),
            spread(cell, "interval_p99_ratio"),
            Bound::AtMost(NEIGHBOUR_MAX),
        );
        push(
            format!("`neighbours`, {variant}: peak memory over the configured cap"),
            ratio_within(cell, "resident_mebibytes_peak", "memory_cap_mebibytes"),
            Bound::AtMost(1.0),
        );
    }
    for cell in cells.iter().filter(|cell| cell["row"] == "no-loss-1M") {
        for figure in ["lost", "duplicated", "reordered"] {
            push(
                format!("`no-loss-1M`: messages {figure}"),
                worst(cell, figure),
                Bound::AtMost(0.0),
            );
        }
    }
    rules
}

/// A spread whose median is the largest value: one bad block is one too many.
fn worst(cell: &Value, figure: &str) -> Option<Spread> {
    spread(cell, figure).map(|found| Spread { median: found.max, ..found })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn targets_are_those_of_a_class_and_of_figures_that_were_measured() {
        let block = json!({ "figures": { "requests_per_second": 65_000.0,
                                         "messages_per_second": 65_000.0 }, "floor": 130_000.0 });
        let cell = |durability: &str| {
            json!({ "row": "single-64", "variant": "acks 1", "durability": durability,
                    "blocks": [block] })
        };
        let fsync = table(&[&cell("fsync")]);
        let rate = "requests per second | 65,000 | 65,000 - 65,000 | >= 60,000 | yes |";
        assert!(fsync.contains(rate), "{fsync}");
        assert!(fsync.contains("percent of the floor | 50.00 | 50.00 - 50.00 | >= 55 | **no** |"));
        let os = table(&[&cell("os")]);
        assert!(os.contains(">= 70,000 | **no** |") && !os.contains("floor"), "{os}");
        assert!(!os.contains("cpu micros"), "not measured: {os}");
    }

    #[test]
    fn a_broken_rule_is_said_so_and_a_missing_figure_is_no_rule() {
        let block = |ratio: f64| {
            json!({ "figures": { "interval_p99_ratio": ratio, "resident_mebibytes_peak": 80.0,
                                 "memory_cap_mebibytes": 320.0 } })
        };
        let cell = json!({ "row": "neighbours", "variant": "8 slow consumers",
                           "blocks": [block(1.5), block(3.0), block(2.5)] });
        let text = table(&[&cell]);
        assert!(text.contains("p99 alone | 2.50 | 1.50 - 3.00 | <= 2 | **no** |"), "{text}");
        assert!(text.contains("configured cap | 0.25 | 0.25 - 0.25 | <= 1 | yes |"), "{text}");
        assert!(!text.contains("parts-1000"), "{text}");
        let audit = json!({ "row": "no-loss-1M", "variant": "kill -9", "blocks": [
            { "figures": { "lost": 0.0 } }, { "figures": { "lost": 0.0 } },
            { "figures": { "lost": 1.0 } } ] });
        assert!(table(&[&audit]).contains("lost | 1.00 | 0.00 - 1.00 | <= 0 | **no** |"));
        assert_eq!(table(&[]), "");
    }
}
