//! `completions`: what shells need to complete command lines.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::arguments::Cli;
use crate::failure::Exit;
use crate::output::Console;

/// Print a completion script for a shell.
#[derive(Clone, Args, Debug)]
#[command(after_help = "Examples:\n  \
                        chronik completions bash > ~/.local/share/bash-completion/completions/chronik\n  \
                        chronik completions zsh")]
pub struct CompletionsArguments {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

pub(crate) fn run(arguments: &CompletionsArguments) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "chronik", &mut script);
    Console::print_raw(&String::from_utf8_lossy(&script))
}
