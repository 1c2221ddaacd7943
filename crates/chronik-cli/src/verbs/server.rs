//! `server`: the same as `chronik-server`.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Args;

/// Run a server: the same as chronik-server with the same arguments.
#[derive(Clone, Args, Debug)]
#[command(
    disable_help_flag = true,
    after_help = "Examples:\n  \
                  chronik server\n  \
                  chronik server --advertised-addr kafka.example --data-dir /var/lib/chronik"
)]
pub struct ServerArguments {
    /// Arguments of chronik-server; `chronik server --help` lists them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    pub(crate) arguments: Vec<OsString>,
}

pub(crate) fn run(arguments: Vec<OsString>) -> ExitCode {
    chronik_server::main_with_args("chronik server", arguments)
}
