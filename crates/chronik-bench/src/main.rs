//! The `chronik-bench` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    chronik_bench::main_with_args("chronik-bench", &arguments)
}
