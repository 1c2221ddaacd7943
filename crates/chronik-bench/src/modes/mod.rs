//! What each mode does, and where results go.

pub(crate) mod consume;
pub(crate) mod e2e;
mod floor;
pub(crate) mod produce;
mod tasks;

use crate::arguments::{Arguments, LoadArguments, Mode, Verb};
use crate::client::Connection;
use crate::failure::Failure;
use crate::output;
use crate::plan::Plan;
use crate::suite;

/// Does what the command line asks for.
pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    match arguments.verb {
        Some(Verb::Suite(arguments)) => suite::run(&arguments),
        Some(Verb::Report(arguments)) => suite::write_page(&arguments.suites, &arguments.page),
        None => run_load(arguments.load),
    }
}

fn run_load(flags: LoadArguments) -> Result<(), Failure> {
    if let Some([first, second]) = flags.additions.compare.as_deref() {
        return output::compare(first, second, flags.additions.output);
    }
    let plan = Plan::new(flags)?;
    let result = match plan.flags.mode {
        Mode::Produce | Mode::Verify | Mode::Failover => produce::run(&plan)?,
        Mode::Consume | Mode::Fetch => consume::run(&plan)?,
        Mode::RoundTrip => tasks::run_round_trip(&plan)?,
        Mode::Metadata => tasks::run_metadata(&plan)?,
        Mode::E2e | Mode::Mixed => e2e::run(&plan)?,
        Mode::Floor => floor::run(&plan)?,
        Mode::JournalFloor => floor::run_journal(&plan)?,
    };
    if plan.flags.delete_topic_after && uses_topic(plan.flags.mode) {
        let mut connection = Connection::open(&plan.endpoints, plan.request_timeout())?;
        connection.delete_topic(&plan.flags.topic)?;
    }
    output::write(&plan, &result)
}

fn uses_topic(mode: Mode) -> bool {
    !matches!(mode, Mode::Floor | Mode::JournalFloor)
}
