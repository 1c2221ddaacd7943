//! The `chronik` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    chronik_cli::main_with_args(&std::env::args_os().skip(1).collect::<Vec<_>>())
}
