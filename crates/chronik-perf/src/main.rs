//! `chronik-perf`: counts what hot paths and fixed loads cost, in numbers that a busy machine does
//! not change much. `cargo xtask perf` runs it and compares the numbers with the recorded ones.
//!
//! ```text
//!  chronik-perf list                    the scenarios, one a line
//!  chronik-perf count NAME [SERVER]     the figures of one: "NAME MEASURE VALUE", one a line
//!  chronik-perf operate NAME TIMES      the operation itself, to be run under callgrind
//! ```
//!
//! Two kinds of scenarios: an `operation` is one hot path without threads, sockets or disk; a
//! `load` drives the server binary SERVER and counts per request. What explains a figure goes to
//! standard error. Times are nobody's business here; chronik-bench measures them.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool prints")]

mod callgrind;
mod load;
mod operation;
mod process;
mod strace;

use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "usage: chronik-perf list | count NAME [SERVER] | operate NAME TIMES";

/// Times an operation runs while it is counted. Callgrind writes a list of functions each time.
const TIMES: u32 = 400;

/// A number that scenario `scenario` has under the name `measure`.
struct Figure {
    scenario: &'static str,
    measure: &'static str,
    value: f64,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let figures = match arguments.as_slice() {
        ["list"] => {
            operation::names().chain(load::names()).for_each(|name| println!("{name}"));
            Some(Vec::new())
        }
        ["count", name] => operation::count(name, TIMES),
        ["count", name, server] => {
            operation::count(name, TIMES).or_else(|| load::count(name, Path::new(server)))
        }
        ["operate", name, times] => {
            times.parse().ok().and_then(|times| operation::operate(name, times)).map(|()| vec![])
        }
        _ => None,
    };
    let Some(figures) = figures else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    for figure in figures {
        println!("{} {} {:.4}", figure.scenario, figure.measure, figure.value);
    }
    ExitCode::SUCCESS
}
