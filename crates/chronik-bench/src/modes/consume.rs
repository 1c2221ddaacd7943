//! `consume` and `fetch`: read the backlog of the topic, or go on at its end with --follow.
//!
//! Every batch's checksum is computed and offsets must not go back; a consumer that is at the end
//! has read every offset from the log start to the log end.

use super::produce::display_of;
use crate::arguments::Mode;
use crate::consume_load::{ConsumeLoad, Extent, run_alone};
use crate::consumer_engine::Reading;
use crate::failure::Failure;
use crate::plan::{Configuration, Plan};
use crate::produce_load::prepare_target;
use crate::reporter::Display;
use crate::result::RunResult;

/// Runs the mode.
pub(crate) fn run(plan: &Plan) -> Result<RunResult, Failure> {
    run_with(plan, display_of(plan)?)
}

/// Runs the mode with a display of its own.
pub(crate) fn run_with(plan: &Plan, display: Display) -> Result<RunResult, Failure> {
    let is_following = plan.flags.additions.follow;
    let mut plan = plan.clone();
    if !is_following {
        // What the warm-up reads would be missing from a backlog.
        plan.flags.warmup_duration = std::time::Duration::ZERO;
    }
    let target = prepare_target(&plan)?;
    let is_decoding = plan.flags.mode == Mode::Consume;
    let reading = if is_decoding { Reading::Records } else { Reading::Batches };
    let extent = if is_following { Extent::Everything } else { Extent::Backlog };
    let load = ConsumeLoad::prepare(&plan, &target, reading, extent)?;
    let around = target.surroundings(load.connections, load.workers());
    let series = run_alone(&plan, load, display)?;
    let mut result = RunResult::of(Configuration::of(&plan, &around), series);
    if result.summary.messages == 0 {
        result.notes.push("the topic has no messages".to_owned());
    }
    Ok(result)
}
