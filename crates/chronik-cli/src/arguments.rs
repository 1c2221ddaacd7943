//! The grammar at its root: global flags and the list of verbs.
//!
//! The flags of a verb are in the verb's own file.

use std::ffi::OsString;
use std::time::Duration;

use chronik_config::{Address, Endpoint};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::start_position;
use crate::verbs;

/// Kafka's port, where an address names none.
const KAFKA_PORT: u16 = 9_092;

/// A Kafka-compatible streaming server and the tool to use it.
///
/// Talks to Chronik and to any other Kafka cluster. Results go to standard output; with -o json
/// they are one object with command, version, ok, and data or error.
///
/// Exit codes: 0 done, 1 something failed, 2 usage, 3 cannot connect, 4 a health check is bad.
#[derive(Clone, Parser, Debug)]
#[command(
    name = "chronik",
    version,
    arg_required_else_help = true,
    subcommand_required = false,
    disable_help_subcommand = true,
    after_help = "Examples:\n  \
                  chronik dev\n  \
                  echo hello | chronik produce demo"
)]
pub struct Cli {
    /// Flags of every verb.
    #[command(flatten)]
    pub globals: Globals,
    /// Print the whole grammar as one JSON object.
    #[arg(long, exclusive = true)]
    pub help_json: bool,
    /// What to do.
    #[command(subcommand)]
    pub verb: Option<Verb>,
}

/// Flags that every verb has.
#[derive(Clone, Args, Debug)]
#[command(next_help_heading = "Global options")]
pub struct Globals {
    /// Where the cluster is: HOST or HOST:PORT, several separated by commas.
    #[arg(
        short,
        long,
        global = true,
        value_name = "HOST:PORT",
        value_delimiter = ',',
        default_value = "localhost:9092"
    )]
    pub bootstrap: Vec<Address>,
    /// Form of the result.
    #[arg(short, long, global = true, value_enum, default_value_t)]
    pub output: OutputFormat,
    /// Print no text but failures.
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Go ahead without asking.
    #[arg(long, global = true)]
    pub yes: bool,
    /// Longest wait for the cluster in each step, retries included: 10, 500ms, 1m.
    #[arg(long, global = true, value_name = "TIME", value_parser = parse_timeout,
        default_value = "10s")]
    pub timeout: Duration,
    /// No colors, whatever the terminal can do.
    #[arg(long, global = true)]
    pub no_color: bool,
    /// Begin -o tsv with the names of the columns.
    #[arg(long, global = true)]
    pub tsv_header: bool,
}

impl Globals {
    /// The addresses to dial, in order.
    #[must_use]
    pub fn bootstrap_endpoints(&self) -> Vec<Endpoint> {
        self.bootstrap.iter().map(|address| address.with_default_port(KAFKA_PORT)).collect()
    }
}

/// Form of a result.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum OutputFormat {
    /// For people; may change between releases.
    #[default]
    Text,
    /// One JSON object, failures included; records are one object a line.
    Json,
    /// Tab-separated; the order of columns never changes.
    Tsv,
}

/// What to do.
#[derive(Clone, Subcommand, Debug)]
#[allow(missing_docs, reason = "each verb is documented by its arguments")]
pub enum Verb {
    Dev(verbs::dev::DevArguments),
    Server(verbs::server::ServerArguments),
    Bench(verbs::bench::BenchArguments),
    Topic(verbs::topic::TopicArguments),
    Produce(verbs::produce::ProduceArguments),
    Consume(verbs::consume::ConsumeArguments),
    Config(verbs::config::ConfigArguments),
    Doctor(verbs::doctor::DoctorArguments),
    Debug(verbs::debug::DebugArguments),
    Completions(verbs::completions::CompletionsArguments),
}

fn parse_timeout(text: &str) -> Result<Duration, &'static str> {
    start_position::duration(text)
        .filter(|timeout| !timeout.is_zero())
        .ok_or("expected a time above 0, for example 10, 500ms or 1m")
}

/// True if a command line that does not parse asks for JSON, as far as one can tell.
pub(crate) fn asks_for_json(arguments: &[OsString]) -> bool {
    let flag_then_value = arguments
        .windows(2)
        .any(|pair| (pair[0] == "-o" || pair[0] == "--output") && pair[1] == "json");
    let joined = ["-ojson", "-o=json", "--output=json"];
    flag_then_value || arguments.iter().any(|argument| joined.iter().any(|form| argument == form))
}
