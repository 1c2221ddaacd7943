//! `floor`: the load of the other flags against a broker that stores nothing. `journal-floor`:
//! its bytes in groups, written and synced without a broker.

use super::produce::display_of;
use crate::failure::Failure;
use crate::floor::run_floor;
use crate::journal_floor::{group_of, run_journal_floor};
use crate::plan::{Configuration, Plan, Surroundings};
use crate::quantity::grouped;
use crate::result::RunResult;

/// Runs the mode `floor`.
pub(crate) fn run(plan: &Plan) -> Result<RunResult, Failure> {
    let (series, _, around) = run_floor(plan, display_of(plan)?, None)?;
    Ok(RunResult::of(Configuration::of(plan, &around), series))
}

/// Runs the mode `journal-floor`.
pub(crate) fn run_journal(plan: &Plan) -> Result<RunResult, Failure> {
    let wanted = plan.flags.additions.topic_config.iter();
    let is_os = wanted.clone().any(|(key, value)| key == "chronik.durability" && value == "os");
    let directory = plan.flags.additions.probe_dir.clone().unwrap_or_else(std::env::temp_dir);
    let series = run_journal_floor(plan, &directory, !is_os, display_of(plan)?)?;
    let (messages, bytes) = group_of(plan);
    let around = Surroundings {
        connections: 0,
        workers: 1,
        partitions: 0,
        replication_factor: 0,
        durability: if is_os { "os" } else { "fsync" }.to_owned(),
    };
    let mut result = RunResult::of(Configuration::of(plan, &around), series);
    result.notes.push(format!(
        "groups of {messages} messages and {} bytes in {}",
        grouped(bytes as u64),
        directory.display()
    ));
    Ok(result)
}
