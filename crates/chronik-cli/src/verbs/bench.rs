//! `bench`: the same as `chronik-bench`.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Args;

/// Measure a broker: the same as chronik-bench with the same arguments.
#[derive(Clone, Args, Debug)]
#[command(
    disable_help_flag = true,
    after_help = "Examples:\n  \
                  chronik bench --duration 30 --concurrency 128\n  \
                  chronik bench suite --list"
)]
pub struct BenchArguments {
    /// Arguments of chronik-bench; `chronik bench --help` lists them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    pub(crate) arguments: Vec<OsString>,
}

pub(crate) fn run(arguments: &[OsString]) -> ExitCode {
    chronik_bench::main_with_args("chronik bench", arguments)
}
