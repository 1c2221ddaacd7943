//! The load tool: drives any Kafka broker, reads back what it wrote, measures its own floor.
//!
//! ```text
//! arguments -> plan -> load (workers: socket + pure producer or consumer step)
//!                        |  samples, one histogram per worker and sample
//!                        v
//!                      reporter -> series -> result -> text, JSON, CSV, SVG
//!                        ^
//!   what was written -> audit (count, order, place, checksum): no rate before it agrees
//! ```
//!
//! Steps are pure (`producer_engine`, `consumer_engine`, `audit`, `pacer`); sockets, threads and
//! clocks are in the workers. In builds with the feature `rdkafka`, librdkafka makes the load
//! instead if it is asked for (`librdkafka`). A closed loop has tasks that wait for their answers; an open loop
//! has intended times, and latency counts from them. Workers share no lock and no histogram.
//!
//! The tool speaks the public protocol with chronik-protocol and chronik-record, and knows nothing
//! of the server's insides.

pub mod arguments;
mod audit;
mod batch_template;
mod client;
mod clock;
mod consume_load;
mod consumer_engine;
mod consumer_worker;
mod failure;
mod floor;
mod identity;
mod journal_floor;
mod ledger;
#[cfg(feature = "rdkafka")]
mod librdkafka;
#[cfg(not(feature = "rdkafka"))]
#[path = "librdkafka_absent.rs"]
mod librdkafka;
mod modes;
mod null_broker;
mod output;
mod pacer;
mod pinning;
mod plan;
mod poller;
mod process_probe;
mod produce_load;
mod produce_request;
mod producer_engine;
mod producer_worker;
mod prometheus;
mod quantity;
mod read_back;
mod recorder;
mod reporter;
mod result;
mod series;
mod suite;
mod task_load;
mod text_report;
mod wire;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

pub use failure::{Exit, Failure};

use arguments::{Arguments, OutputForm};
use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches};

/// Runs the whole command line; `arguments` come without the name of the program, which is
/// `program` in messages.
#[must_use]
pub fn main_with_args(program: &'static str, arguments: &[OsString]) -> ExitCode {
    let name = OsString::from(program);
    let line = std::iter::once(&name).chain(arguments);
    let command = Arguments::command().bin_name(program);
    let parsed = command.try_get_matches_from(line).and_then(|it| Arguments::from_arg_matches(&it));
    let arguments = match parsed {
        Ok(arguments) => arguments,
        Err(error) => return answer_parse_error(&error).into(),
    };
    pinning::raise_open_files_limit();
    let form = arguments.load.additions.output;
    match modes::run(arguments) {
        Ok(()) => Exit::Ok.into(),
        Err(failure) => {
            // Nobody is left to tell if even this cannot be printed.
            let _ = match form {
                OutputForm::Json => output::print(&output::failed(&failure)).is_ok(),
                _ => writeln!(std::io::stderr().lock(), "{program}: {failure}").is_ok(),
            };
            failure.exit().into()
        }
    }
}

/// Help and version are answers; everything else is one line and a usage error.
fn answer_parse_error(error: &clap::Error) -> Exit {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // Nobody is left to tell if even this cannot be printed.
        let _ = error.print();
        return Exit::Ok;
    }
    let text = error.to_string();
    let first = text.split("\n\nUsage:").next().unwrap_or_default();
    let first = first.split("\n\nFor more information").next().unwrap_or_default();
    let line: Vec<_> = first.split_whitespace().collect();
    let _ = writeln!(std::io::stderr().lock(), "{}", line.join(" "));
    Exit::Usage
}
