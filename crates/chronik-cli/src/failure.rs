//! Why a command did not do what it was asked: codes, sentences, exit codes.
//!
//! A message says what failed, the evidence, and the way out. Codes are stable; a refusal by the
//! cluster carries Kafka's own name instead of one of ours.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use chronik_config::LoadError;

use crate::client::ClientError;
use crate::record_input::InputDefect;

/// How the process ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// Everything was done.
    Ok,
    /// At least one row failed.
    Failed,
    /// The command line cannot be followed.
    Usage,
    /// No server could be reached.
    CannotConnect,
    /// A health check found something bad.
    Unhealthy,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Ok => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::CannotConnect => 3,
            Exit::Unhealthy => 4,
        })
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The cluster could not be asked, or refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The command line does not parse.
    #[error("{message}")]
    Usage {
        /// The parser's words.
        message: String,
    },
    /// A change that needs consent, without a terminal to ask on.
    #[error(
        "{plan} Nothing was changed: there is no terminal to ask on. Pass --yes to go ahead, or \
         --dry-run to see the plan only."
    )]
    NeedsConsent {
        /// What would be done, as a sentence.
        plan: String,
    },
    /// The answer at the terminal was not yes.
    #[error("Nothing was changed.")]
    Declined,
    /// A line of the input is no record.
    #[error("line {line} of the input: {defect}. {sent} records before it were sent.")]
    Input {
        /// Number of the line, from 1.
        line: u64,
        /// What is wrong with it.
        defect: InputDefect,
        /// Records that the cluster took.
        sent: u64,
    },
    /// Standard output cannot be written.
    #[error("cannot write to standard output: {0}")]
    Output(#[source] io::Error),
    /// Some of several things failed; the rows say which and why.
    #[error("{failed} of {total} {things} failed: {first}")]
    Rows {
        /// How many failed.
        failed: usize,
        /// How many there were.
        total: usize,
        /// What they are, in the plural.
        things: &'static str,
        /// Why the first of them failed.
        first: String,
    },
    /// A config that the broker or topic does not have.
    #[error("{resource} has no config {name}. `chronik config list` shows the names.")]
    UnknownConfig {
        /// The broker or topic.
        resource: String,
        /// The name as given.
        name: String,
    },
    /// The configuration of the server on this machine has problems.
    #[error("the configuration has problems:\n{0}")]
    Configuration(#[source] LoadError),
    /// A partition that the topic does not have.
    #[error("{topic} has partitions 0 to {last}, not {partition}. Leave -p out to spread records.")]
    NoSuchPartition {
        /// The topic.
        topic: String,
        /// The partition as given.
        partition: i32,
        /// The topic's last partition.
        last: i32,
    },
    /// An offset behind the ends of all partitions.
    #[error(
        "no partition of {topic} has an offset {offset}: the longest ends before {end}. Start \
         lower, at `-s end`, or at `-s -1` for the last record."
    )]
    OffsetBeyondEnd {
        /// The topic.
        topic: String,
        /// The offset as given.
        offset: i64,
        /// Highest log end offset of the topic's partitions, exclusive.
        end: i64,
    },
    /// A doctor found something bad.
    #[error("{bad} of {total} checks found something bad")]
    Unhealthy {
        /// Checks that did.
        bad: usize,
        /// All checks.
        total: usize,
    },
    /// More than one node, which this release cannot run.
    #[error(
        "--nodes {nodes}: this release runs one node only. Leave --nodes out, or pass --nodes 1."
    )]
    OneNodeOnly {
        /// The number as given.
        nodes: u16,
    },
    /// The server of `chronik dev` did not start or did not stop cleanly.
    #[error("the server ended with an error; its own message says why")]
    Server,
    /// A file that cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    UnreadableFile {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A directory for `chronik dev --ephemeral` cannot be made.
    #[error("cannot create {}: {source}. Choose a place with --data-dir.", path.display())]
    TemporaryDirectory {
        /// The directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

impl Failure {
    /// The stable code: one of ours, or Kafka's name of a refusal.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Client(error) => error.code(),
            Self::Usage { .. } => "E110",
            Self::NeedsConsent { .. } => "E111",
            Self::Declined => "E112",
            Self::Input { .. } => "E113",
            Self::Output(_) => "E114",
            Self::Rows { .. } => "E115",
            Self::UnknownConfig { .. } => "E116",
            Self::Configuration(_) => "E117",
            Self::NoSuchPartition { .. } => "E118",
            Self::OffsetBeyondEnd { .. } => "E119",
            Self::Unhealthy { .. } => "E120",
            Self::OneNodeOnly { .. } => "E121",
            Self::Server => "E122",
            Self::TemporaryDirectory { .. } => "E123",
            Self::UnreadableFile { .. } => "E124",
        }
    }

    /// How the process ends after it.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Client(error) if error.is_unreachable() => Exit::CannotConnect,
            Self::Usage { .. }
            | Self::NeedsConsent { .. }
            | Self::Configuration(_)
            | Self::NoSuchPartition { .. }
            | Self::OneNodeOnly { .. } => Exit::Usage,
            Self::Unhealthy { .. } => Exit::Unhealthy,
            // A reader that closed the pipe has what it wanted, as with `| head -1`.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
            _ => Exit::Failed,
        }
    }
}
