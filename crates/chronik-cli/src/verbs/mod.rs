//! What the verbs do: one file per noun.

pub mod bench;
pub mod completions;
pub mod config;
pub mod consume;
pub mod debug;
pub mod dev;
pub mod doctor;
pub mod produce;
pub mod server;
pub mod topic;

use std::process::ExitCode;

use crate::arguments::{Cli, Globals, Verb};
use crate::client::{Client, ClientOptions};
use crate::failure::{Exit, Failure};
use crate::output::Console;

/// What every verb works with.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) console: Console,
    globals: Globals,
}

impl Context {
    /// A client of the cluster that the global flags name.
    pub(crate) fn client(&self) -> Client {
        Client::new(ClientOptions {
            bootstrap: self.globals.bootstrap_endpoints(),
            timeout: self.globals.timeout,
        })
    }
}

/// Runs the verb of a command line.
pub(crate) fn run(cli: Cli) -> ExitCode {
    let Some(verb) = cli.verb else {
        let message = "nothing to do; `chronik --help` lists the verbs".to_owned();
        return Console::new("chronik", &cli.globals).fail(&Failure::Usage { message }).into();
    };
    let context =
        Context { console: Console::new(verb.name(), &cli.globals), globals: cli.globals };
    let result = match verb {
        Verb::Dev(arguments) => return dev::run(&arguments, &context),
        Verb::Server(arguments) => return server::run(arguments.arguments),
        Verb::Bench(arguments) => return bench::run(&arguments.arguments),
        Verb::Topic(arguments) => topic::run(&arguments.verb, &context),
        Verb::Produce(arguments) => produce::run(&arguments, &context),
        Verb::Consume(arguments) => consume::run(&arguments, &context),
        Verb::Config(arguments) => config::run(&arguments.verb, &context),
        Verb::Doctor(arguments) => doctor::run(&arguments.verb, &context),
        Verb::Debug(arguments) => debug::run(&arguments.verb, &context),
        Verb::Completions(arguments) => Ok(completions::run(&arguments)),
    };
    result.unwrap_or_else(|failure: Failure| -> Exit { context.console.fail(&failure) }).into()
}

impl Verb {
    /// The verb as it is typed.
    fn name(&self) -> &'static str {
        match self {
            Self::Dev(_) => "dev",
            Self::Server(_) => "server",
            Self::Bench(_) => "bench",
            Self::Topic(arguments) => arguments.verb.name(),
            Self::Produce(_) => "produce",
            Self::Consume(_) => "consume",
            Self::Config(arguments) => arguments.verb.name(),
            Self::Doctor(arguments) => arguments.verb.name(),
            Self::Debug(arguments) => arguments.verb.name(),
            Self::Completions(_) => "completions",
        }
    }
}
