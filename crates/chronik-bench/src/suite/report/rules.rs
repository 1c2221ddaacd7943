//! Rules that figures of a suite have to keep, with what was found.

use std::fmt::Write as _;

use serde_json::Value;

use super::figures::{Spread, find, ratio_between, ratio_within, spread};

/// Least rate of 1,000 connections over 1,000 partitions, relative to 64 over one.
const MANY_CONNECTIONS_MIN: f64 = 0.7;

/// Most server CPU per request over 1,000 partitions, relative to one.
const MANY_PARTITIONS_MAX: f64 = 1.3;

/// Most p99 of producers beside a neighbour, relative to producers alone.
const NEIGHBOUR_MAX: f64 = 2.0;

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
            Bound::AtLeast(bound) => format!(">= {bound}"),
            Bound::AtMost(bound) => format!("<= {bound}"),
        };
        let verdict = if rule.holds() { "yes" } else { "**no**" };
        let what = &rule.what;
        let _ =
            writeln!(text, "| {what} | {median:.2} | {min:.2} - {max:.2} | {bound} | {verdict} |");
    }
    text.push('\n');
    text
}

fn rules(cells: &[&Value]) -> Vec<Rule> {
    let mut rules = Vec::new();
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
    for cell in cells.iter().filter(|cell| cell["row"] == "neighbours") {
        let variant = cell["variant"].as_str().unwrap_or_default();
        push(
            format!("`neighbours`, {variant}: p99 of the producers over their p99 alone"),
            spread(cell, "p99_ratio"),
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
    fn a_broken_rule_is_said_so_and_a_missing_figure_is_no_rule() {
        let block = |ratio: f64| {
            json!({ "figures": { "p99_ratio": ratio, "resident_mebibytes_peak": 80.0,
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
