//! `chronik-server`: the server alone.

use std::process::ExitCode;

fn main() -> ExitCode {
    chronik_server::main_with_args("chronik-server", std::env::args_os().skip(1).collect())
}
