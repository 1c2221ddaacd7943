//! `floor`: the load of the other flags against a broker that stores nothing.

use super::produce::display_of;
use crate::failure::Failure;
use crate::floor::run_floor;
use crate::plan::{Configuration, Plan};
use crate::result::{RunResult, Summary};

/// Runs the mode.
pub(crate) fn run(plan: &Plan) -> Result<RunResult, Failure> {
    let (series, _, around) = run_floor(plan, display_of(plan)?)?;
    Ok(RunResult {
        configuration: Configuration::of(plan, &around),
        summary: Summary::of(&series),
        read_back: None,
        headroom: None,
        gap: None,
        intervals: series.intervals,
        latency: series.latency,
        errors: series.errors,
        notes: Vec::new(),
    })
}
