//! The real server as a binary of this package, so that its tests find it through Cargo.

use std::process::ExitCode;

fn main() -> ExitCode {
    chronik_server::main_with_args("chronik-server", std::env::args_os().skip(1).collect())
}
