//! Why a run produced no result: sentences and exit codes.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::client::ClientError;

/// How the process ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// A result was printed.
    Ok,
    /// The run failed, or what was read back is not what was written.
    Failed,
    /// The command line cannot be followed.
    Usage,
    /// No broker could be reached.
    CannotConnect,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Ok => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::CannotConnect => 3,
        })
    }
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Flags that contradict each other or ask for what this build cannot do.
    #[error("{0}")]
    Usage(String),
    /// The broker could not be asked, or refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// What was read back differs from what was acknowledged.
    #[error("read back differs from what was acknowledged: {0}")]
    Mismatch(String),
    /// The run ended without a single success.
    #[error("no request succeeded; the first failure was {0}")]
    NothingSucceeded(String),
    /// A file of this tool cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was attempted, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A result file that is none.
    #[error("{} is no result of this tool: {reason}", path.display())]
    NotAResult {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The operating system refused something the tool needs.
    #[error("cannot {action}: {source}")]
    System {
        /// What was attempted, as a verb with its object.
        action: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// A server that the suite started did not become ready or ended.
    #[error("{0}")]
    Server(String),
}

impl Failure {
    /// The stable code of the failure.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Usage(_) => "usage",
            Self::Client(error) if error.is_unreachable() => "unreachable",
            Self::Client(_) => "broker",
            Self::Mismatch(_) => "mismatch",
            Self::NothingSucceeded(_) => "nothing_succeeded",
            Self::File { .. } => "file",
            Self::NotAResult { .. } => "not_a_result",
            Self::System { .. } => "system",
            Self::Server(_) => "server",
        }
    }

    /// How the process ends after it.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Usage,
            Self::Client(error) if error.is_unreachable() => Exit::CannotConnect,
            _ => Exit::Failed,
        }
    }

    /// A refusal by the operating system while doing `action`.
    pub(crate) fn system(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { action, source }
    }
}
