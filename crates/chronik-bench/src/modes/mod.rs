//! What each mode does, one file per mode, and where their results go.

mod floor;
mod produce;

use std::io::Write;

use crate::arguments::{Arguments, LoadArguments, Mode};
use crate::failure::Failure;
use crate::plan::Plan;
use crate::result::RunResult;
use crate::text_report;

/// Does what the command line asks for.
pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    if arguments.verb.is_some() {
        return Err(Failure::Usage("the suite is not built yet".to_owned()));
    }
    run_load(arguments.load)
}

fn run_load(flags: LoadArguments) -> Result<(), Failure> {
    let plan = Plan::new(flags)?;
    let result = match plan.flags.mode {
        Mode::Produce => produce::run(&plan)?,
        Mode::Floor => floor::run(&plan)?,
        mode => return Err(Failure::Usage(format!("mode {mode:?} is not built yet"))),
    };
    print(&result)
}

fn print(result: &RunResult) -> Result<(), Failure> {
    std::io::stdout()
        .lock()
        .write_all(text_report::text(result).as_bytes())
        .map_err(Failure::system("write to standard output"))
}
