//! Figures, what was recorded of them, and the comparison.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::Result;
use serde::Deserialize;

const HEADER: &str = "\
# What hot paths and fixed loads cost. `cargo xtask perf` counts them again and fails if one is worse
# by more than its tolerance; `cargo xtask perf --record` writes the values. Tolerances, budgets and
# directions are kept as they are here: change them by hand, with a reason in the commit.
";

/// Tolerance of a new figure that callgrind counts: hardly anything but the code moves it.
const EXACT_PERCENT: f64 = 1.0;
/// Tolerance of any other new figure.
const LOOSE_PERCENT: f64 = 10.0;

/// A figure as it was counted now.
#[derive(Clone, PartialEq, Debug)]
pub struct Measured {
    scenario: String,
    measure: String,
    value: f64,
}

impl Measured {
    /// Parses a line `SCENARIO MEASURE VALUE`.
    pub fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [scenario, measure, value] = words.as_slice() else { return None };
        let value = value.parse().ok().filter(|value: &f64| value.is_finite())?;
        Some(Self { scenario: (*scenario).to_owned(), measure: (*measure).to_owned(), value })
    }
}

/// Which way a figure gets better.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Better {
    #[default]
    Lower,
    Higher,
}

/// A figure as it was recorded.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figure {
    scenario: String,
    measure: String,
    value: f64,
    /// Change for the worse that is not a regression yet, in percent of the value.
    tolerance_percent: f64,
    #[serde(default)]
    better: Better,
    /// What it should be; being over it is told and is no failure.
    budget: Option<f64>,
}

impl Figure {
    fn is_of(&self, measured: &Measured) -> bool {
        self.scenario == measured.scenario && self.measure == measured.measure
    }

    /// How much worse `value` is than the recorded one, in percent of it; negative if better.
    fn worse_percent(&self, value: f64) -> f64 {
        let grown = match self.better {
            Better::Lower => value - self.value,
            Better::Higher => self.value - value,
        };
        if grown == 0.0 { 0.0 } else { 100.0 * grown / self.value }
    }

    fn is_worse(&self, value: f64) -> bool {
        self.worse_percent(value) > self.tolerance_percent
    }

    fn is_over_budget(&self, value: f64) -> bool {
        self.budget.is_some_and(|budget| match self.better {
            Better::Lower => value > budget,
            Better::Higher => value < budget,
        })
    }
}

/// All recorded figures.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// What the counts depend on besides the code.
    tools: BTreeMap<String, String>,
    #[serde(rename = "figure")]
    figures: Vec<Figure>,
}

/// What the comparison says about one figure.
pub enum Verdict<'a> {
    /// Counted and recorded.
    Both { recorded: &'a Figure, value: f64 },
    /// Recorded, and not counted any more.
    Missing(&'a Figure),
    /// Counted, and not recorded.
    New(&'a Measured),
}

impl Verdict<'_> {
    /// One sentence if this is a failure.
    pub fn failure(&self) -> Option<String> {
        match self {
            Self::Both { recorded, value } if recorded.is_worse(*value) => Some(format!(
                "{} of {} became worse: {} recorded, {} counted, {:.1} % worse with a tolerance \
                 of {} %.",
                recorded.measure,
                recorded.scenario,
                number(recorded.value),
                number(*value),
                recorded.worse_percent(*value),
                recorded.tolerance_percent,
            )),
            Self::Both { .. } => None,
            Self::Missing(recorded) => Some(format!(
                "{} of {} is recorded and was not counted: bring it back, or record anew.",
                recorded.measure, recorded.scenario
            )),
            Self::New(measured) => Some(format!(
                "{} of {} was counted and is not recorded: cargo xtask perf --record.",
                measured.measure, measured.scenario
            )),
        }
    }

    fn note(&self) -> &'static str {
        match self {
            Self::Both { recorded, value } if recorded.is_worse(*value) => "WORSE",
            Self::Both { recorded, value } if recorded.is_over_budget(*value) => "over budget",
            Self::Both { recorded, value }
                if -recorded.worse_percent(*value) > recorded.tolerance_percent =>
            {
                "better; record it"
            }
            Self::Both { .. } => "",
            Self::Missing(_) => "MISSING",
            Self::New(_) => "NEW",
        }
    }
}

impl Record {
    /// Reads a record.
    ///
    /// # Errors
    /// If it is not one.
    pub fn parse(text: &str) -> Result<Self> {
        Ok(toml::from_str(text)?)
    }

    /// A sentence's beginning about the first tool that differs.
    pub fn difference_of_tools(&self, tools: &BTreeMap<String, String>) -> Option<String> {
        let none = "nothing".to_owned();
        let name = self
            .tools
            .keys()
            .chain(tools.keys())
            .find(|name| self.tools.get(*name) != tools.get(*name))?;
        let was = self.tools.get(name).unwrap_or(&none);
        let is = tools.get(name).unwrap_or(&none);
        Some(format!("{name} was \"{was}\" when the figures were recorded and is \"{is}\" here"))
    }

    fn find(&self, measured: &Measured) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.is_of(measured))
    }

    /// True if no figure is worse than recorded.
    pub fn is_met_by(&self, measured: &[Measured]) -> bool {
        let is_worse =
            |one: &Measured| self.find(one).is_some_and(|figure| figure.is_worse(one.value));
        !measured.iter().any(is_worse)
    }

    /// Of two counts of the same scenario, the better value of each figure.
    pub fn best_of(&self, first: Vec<Measured>, second: Vec<Measured>) -> Vec<Measured> {
        let choose = |(first, second): (Measured, Measured)| {
            let is_better = self.find(&first).is_some_and(|figure| {
                figure.worse_percent(second.value) < figure.worse_percent(first.value)
            });
            if is_better { second } else { first }
        };
        first.into_iter().zip(second).map(choose).collect()
    }

    /// Compares with what was counted: all scenarios, or the one called `only`.
    pub fn compare<'a>(&'a self, measured: &'a [Measured], only: Option<&str>) -> Vec<Verdict<'a>> {
        let asked = |figure: &&Figure| only.is_none_or(|name| figure.scenario == name);
        let known = self.figures.iter().filter(asked).map(|recorded| {
            match measured.iter().find(|one| recorded.is_of(one)) {
                Some(one) => Verdict::Both { recorded, value: one.value },
                None => Verdict::Missing(recorded),
            }
        });
        let new = measured.iter().filter(|one| self.find(one).is_none()).map(Verdict::New);
        known.chain(new).collect()
    }

    /// The record with new values. What was not counted goes, unless it was not asked for.
    pub fn updated(
        &self,
        tools: BTreeMap<String, String>,
        measured: &[Measured],
        only: Option<&str>,
    ) -> Self {
        let mut figures = Vec::new();
        for figure in &self.figures {
            if let Some(one) = measured.iter().find(|one| figure.is_of(one)) {
                figures.push(Figure { value: one.value, ..figure.clone() });
            } else if only.is_some_and(|name| figure.scenario != name) {
                figures.push(figure.clone());
            }
        }
        for one in measured.iter().filter(|one| self.find(one).is_none()) {
            let is_exact =
                ["instructions", "allocations"].iter().any(|name| one.measure.starts_with(name));
            figures.push(Figure {
                scenario: one.scenario.clone(),
                measure: one.measure.clone(),
                value: one.value,
                tolerance_percent: if is_exact { EXACT_PERCENT } else { LOOSE_PERCENT },
                better: Better::default(),
                budget: None,
            });
        }
        Self { tools, figures }
    }

    /// The record as the file holds it.
    pub fn to_toml(&self) -> String {
        let mut text = format!("{HEADER}\n[tools]\n");
        for (name, value) in &self.tools {
            line(&mut text, format_args!("{name} = {value:?}"));
        }
        for figure in &self.figures {
            line(&mut text, format_args!("\n[[figure]]\nscenario = {:?}", figure.scenario));
            line(&mut text, format_args!("measure = {:?}", figure.measure));
            line(&mut text, format_args!("value = {:?}", figure.value));
            line(&mut text, format_args!("tolerance_percent = {:?}", figure.tolerance_percent));
            if figure.better == Better::Higher {
                line(&mut text, format_args!("better = \"higher\""));
            }
            if let Some(budget) = figure.budget {
                line(&mut text, format_args!("budget = {budget:?}"));
            }
        }
        text
    }
}

/// A table of all verdicts, one a line.
pub fn table(verdicts: &[Verdict<'_>]) -> String {
    let mut text = String::new();
    line(
        &mut text,
        format_args!(
            "{:<27} {:<29} {:>10} {:>10} {:>8} {:>6} {:>7}",
            "scenario", "measure", "recorded", "counted", "worse by", "limit", "budget"
        ),
    );
    for verdict in verdicts {
        let note = verdict.note();
        let (scenario, measure) = match verdict {
            Verdict::Both { recorded, .. } | Verdict::Missing(recorded) => {
                (&recorded.scenario, &recorded.measure)
            }
            Verdict::New(measured) => (&measured.scenario, &measured.measure),
        };
        let (was, is, change, limit, budget) = match verdict {
            Verdict::Both { recorded, value } => (
                number(recorded.value),
                number(*value),
                format!("{:+.1} %", recorded.worse_percent(*value)),
                format!("{} %", recorded.tolerance_percent),
                recorded.budget.map(number).unwrap_or_default(),
            ),
            Verdict::Missing(recorded) => {
                (number(recorded.value), String::new(), String::new(), String::new(), String::new())
            }
            Verdict::New(measured) => {
                (String::new(), number(measured.value), String::new(), String::new(), String::new())
            }
        };
        line(
            &mut text,
            format_args!(
                "{scenario:<27} {measure:<29} {was:>10} {is:>10} {change:>8} {limit:>6} \
                 {budget:>7}  {note}"
            ),
        );
    }
    text
}

/// A number as people read it: three digits behind the point only where they matter.
fn number(value: f64) -> String {
    if value >= 1_000.0 { format!("{value:.0}") } else { format!("{value:.3}") }
}

fn line(text: &mut String, content: std::fmt::Arguments<'_>) {
    writeln!(text, "{}", content.to_string().trim_end_matches(' ')).expect("a string can grow");
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        [tools]
        rustc = "rustc 1"

        [[figure]]
        scenario = "append"
        measure = "instructions"
        value = 1000.0
        tolerance_percent = 1.0

        [[figure]]
        scenario = "append"
        measure = "allocations"
        value = 0.0
        tolerance_percent = 1.0

        [[figure]]
        scenario = "single-64"
        measure = "requests-per-sync"
        value = 30.0
        tolerance_percent = 10.0
        better = "higher"
        budget = 40.0
    "#;

    fn record() -> Record {
        Record::parse(FILE).expect("the example is a record")
    }

    fn measured(instructions: f64, allocations: f64, per_sync: f64) -> Vec<Measured> {
        [
            format!("append instructions {instructions}"),
            format!("append allocations {allocations}"),
            format!("single-64 requests-per-sync {per_sync}"),
        ]
        .iter()
        .map(|line| Measured::parse(line).expect("a figure"))
        .collect()
    }

    fn failures(measured: &[Measured], only: Option<&str>) -> Vec<String> {
        record().compare(measured, only).iter().filter_map(Verdict::failure).collect()
    }

    #[test]
    fn a_change_within_the_tolerance_and_an_improvement_pass() {
        for same in [measured(1_000.0, 0.0, 30.0), measured(1_010.0, 0.0, 27.0)] {
            assert_eq!(failures(&same, None), Vec::<String>::new());
            assert!(record().is_met_by(&same));
        }
        let better = measured(500.0, 0.0, 60.0);
        assert_eq!(failures(&better, None), Vec::<String>::new());
        assert!(table(&record().compare(&better, None)).contains("better; record it"));
    }

    #[test]
    fn a_regression_fails_in_either_direction_and_from_zero() {
        for (worse, measure) in [
            (measured(1_011.0, 0.0, 30.0), "instructions of append"),
            (measured(1_000.0, 0.1, 30.0), "allocations of append"),
            (measured(1_000.0, 0.0, 26.0), "requests-per-sync of single-64"),
        ] {
            let failures = failures(&worse, None);
            assert!(failures.len() == 1 && failures[0].starts_with(measure), "{failures:?}");
            assert!(!record().is_met_by(&worse));
        }
    }

    #[test]
    fn a_missing_figure_and_a_new_one_fail() {
        let all = measured(1_000.0, 0.0, 30.0);
        let found = failures(&all[1..], None);
        assert!(found.len() == 1 && found[0].contains("was not counted"), "{found:?}");
        let mut more = all.clone();
        more.extend(Measured::parse("append syncs 1"));
        let found = failures(&more, None);
        assert!(found.len() == 1 && found[0].contains("is not recorded"), "{found:?}");
        assert_eq!(failures(&all[..2], Some("append")), Vec::<String>::new());
    }

    #[test]
    fn being_over_budget_is_told_and_does_not_fail() {
        let counted = measured(1_000.0, 0.0, 30.0);
        let record = record();
        let verdicts = record.compare(&counted, None);
        assert_eq!(verdicts.iter().map(Verdict::note).collect::<Vec<_>>(), ["", "", "over budget"]);
        assert!(verdicts.iter().all(|verdict| verdict.failure().is_none()));
    }

    #[test]
    fn the_better_of_two_counts_is_kept_for_each_figure() {
        let best = record().best_of(measured(1_100.0, 1.0, 25.0), measured(1_000.0, 2.0, 31.0));
        assert_eq!(best, measured(1_000.0, 1.0, 31.0));
    }

    #[test]
    fn another_compiler_is_named() {
        let tools = |version: &str| BTreeMap::from([("rustc".to_owned(), version.to_owned())]);
        assert_eq!(record().difference_of_tools(&tools("rustc 1")), None);
        let difference = record().difference_of_tools(&tools("rustc 2")).expect("it differs");
        assert!(difference.contains("rustc was \"rustc 1\""), "{difference}");
    }

    #[test]
    fn recording_keeps_what_people_decided_and_what_was_not_asked_for() {
        let mut counted = measured(900.0, 0.0, 35.0);
        counted.extend(Measured::parse("lone syscalls-per-request 4.5"));
        let updated = record().updated(record().tools, &counted, None);
        assert_eq!(updated.figures.len(), 4);
        assert_eq!(updated.figures[2].budget, Some(40.0));
        assert_eq!((updated.figures[2].value, updated.figures[2].better), (35.0, Better::Higher));
        assert_eq!(updated.figures[3].tolerance_percent, LOOSE_PERCENT);
        assert_eq!(Record::parse(&updated.to_toml()).expect("what is written is read"), updated);

        let only = record().updated(record().tools, &counted[..2], Some("append"));
        assert_eq!((only.figures.len(), only.figures[0].value), (3, 900.0));
        assert_eq!(record().updated(record().tools, &counted[..2], None).figures.len(), 2);
    }

    #[test]
    fn a_line_that_is_no_figure_is_refused() {
        for line in ["", "append instructions", "append instructions x", "a b NaN", "a b 1 2"] {
            assert_eq!(Measured::parse(line), None, "{line}");
        }
    }
}
