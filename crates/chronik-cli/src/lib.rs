//! The `chronik` command: a developer's and operator's tool for Chronik and any other Kafka
//! cluster, with the server inside.
//!
//! ```text
//! arguments -> one file per verb in verbs/ -> client (Kafka protocol) -> report -> output
//! ```
//!
//! [`Cli`] is the one grammar: parsing, help, `--help-json` and completions come from it. A verb
//! returns a value or a [`Failure`]; only `output.rs` knows formats, and only `failure.rs` knows
//! exit codes. [`client`] is synchronous, speaks the public protocol only, and is usable alone.
//!
//! This crate keeps no state between runs and opens no file that is not named on the command
//! line or by the server's configuration.

mod arguments;
mod base64;
pub mod client;
mod failure;
mod grammar;
mod machine;
mod output;
mod partitioner;
mod record_format;
mod record_input;
mod segment_file;
mod start_position;
mod table;
mod verbs;

use std::ffi::OsString;
use std::process::ExitCode;

pub use arguments::{Cli, Globals, OutputFormat};
pub use failure::{Exit, Failure};
pub use grammar::help_json;
pub use partitioner::{murmur2, partition_of_key};

use clap::error::ErrorKind;
use clap::{ColorChoice, CommandFactory, FromArgMatches};
use output::Console;

/// Runs the whole command line; `arguments` come without the name of the program.
#[must_use]
pub fn main_with_args(arguments: &[OsString]) -> ExitCode {
    // Server and load tool have their own grammars, in which some letters mean something else.
    if arguments.first().is_some_and(|first| first == "server") {
        return verbs::server::run(arguments[1..].to_vec());
    }
    if arguments.first().is_some_and(|first| first == "bench") {
        return verbs::bench::run(&arguments[1..]);
    }
    let cli = match parse(arguments) {
        Ok(cli) => cli,
        Err(error) => return answer_parse_error(arguments, &error).into(),
    };
    if cli.help_json {
        return Console::print_raw(&help_json()).into();
    }
    verbs::run(cli)
}

/// Parses `arguments`, which come without the name of the program.
///
/// # Errors
/// What clap says about them; a request for help or for the version is one of its errors.
pub fn parse(arguments: &[OsString]) -> Result<Cli, clap::Error> {
    let is_plain = arguments.iter().any(|argument| argument == "--no-color");
    let color = if is_plain { ColorChoice::Never } else { ColorChoice::Auto };
    let program = OsString::from("chronik");
    let line = std::iter::once(&program).chain(arguments);
    Cli::from_arg_matches(&Cli::command().color(color).try_get_matches_from(line)?)
}

/// Help and version are answers and go to standard output; everything else is a usage error, as
/// an object on standard output if the command line asks for JSON.
fn answer_parse_error(arguments: &[OsString], error: &clap::Error) -> Exit {
    let is_answer = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if !is_answer && arguments::asks_for_json(arguments) {
        let console = Console::of_usage_error();
        return console.fail(&Failure::Usage { message: grammar::plain_message(error) });
    }
    // Nobody is left to tell if even this cannot be printed.
    let _ = error.print();
    if is_answer { Exit::Ok } else { Exit::Usage }
}
