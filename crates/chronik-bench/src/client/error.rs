//! Why a question to a broker has no answer.

use std::io;

use chronik_common::ErrorCode;
use chronik_protocol::{ApiKey, DecodeError, EncodeError};

/// A failed question to a broker.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No address of the list answers.
    #[error("cannot connect to {address}: {reason}. Start a broker there, or name another with -b")]
    Unreachable {
        /// The addresses as given.
        address: String,
        /// What happened at the last of them.
        reason: io::Error,
    },
    /// The connection broke or an answer did not come in time.
    #[error("lost the connection to {address}: {reason}")]
    Lost {
        /// The other end.
        address: String,
        /// What happened.
        reason: io::Error,
    },
    /// An answer that is none.
    #[error("{address} sent an answer that cannot be read: {reason}")]
    Malformed {
        /// The other end.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The two sides share no version of an API.
    #[error("{address} does not offer a version of {} that this tool speaks", api.name())]
    Unsupported {
        /// The other end.
        address: String,
        /// The API.
        api: ApiKey,
    },
    /// The broker refused.
    #[error("the broker refused to {action}: {}{}", code_name(*code), detail(message.as_deref()))]
    Refused {
        /// What was asked for, as a verb with its object.
        action: String,
        /// Kafka's error code.
        code: i16,
        /// The broker's words.
        message: Option<String>,
    },
    /// A request that has no form in the version agreed on.
    #[error("cannot write the request: {0}")]
    Encode(#[from] EncodeError),
}

impl ClientError {
    /// True if nobody answered at all.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// Kafka's code of a refusal.
    #[must_use]
    pub fn refusal(&self) -> Option<i16> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    pub(super) fn malformed(address: &str, reason: DecodeError) -> Self {
        let reason = format!("{reason}: {}", reason.reason);
        Self::Malformed { address: address.to_owned(), reason }
    }
}

/// Kafka's name of an error code.
#[must_use]
pub fn code_name(code: i16) -> String {
    ErrorCode::try_from(code)
        .map_or_else(|_| format!("error code {code}"), |known| known.name().to_owned())
}

fn detail(message: Option<&str>) -> String {
    message.map(|message| format!(" ({message})")).unwrap_or_default()
}
