//! Why the cluster did not do what it was asked.

use std::fmt;
use std::io;
use std::time::Duration;

use chronik_common::ErrorCode;
use chronik_protocol::{ApiKey, DecodeError, EncodeError, VersionRange};
use chronik_record::BatchError;

/// An error code from the wire: one of Kafka's table, or a newer broker's number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KafkaCode(pub i16);

impl KafkaCode {
    /// The code in the table, if it is known here.
    #[must_use]
    pub fn known(self) -> Option<ErrorCode> {
        ErrorCode::try_from(self.0).ok()
    }

    /// `Err` with this code unless it means success.
    pub(crate) fn check(code: i16) -> Result<(), Self> {
        if code == ErrorCode::None.code() { Ok(()) } else { Err(Self(code)) }
    }

    /// True if this is `code`.
    pub(crate) fn is(self, code: ErrorCode) -> bool {
        self.0 == code.code()
    }

    /// Kafka's name of the code.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.known().map_or("UNKNOWN_ERROR_CODE", ErrorCode::name)
    }
}

impl fmt::Display for KafkaCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.0)
    }
}

/// A failed question to the cluster.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No address of the bootstrap list answers.
    #[error(
        "cannot connect to {address}: {reason}. Start a server there (`chronik dev`), or name \
         another one with -b HOST:PORT."
    )]
    Unreachable {
        /// The addresses as given.
        address: String,
        /// What happened at the last of them.
        reason: io::Error,
    },
    /// Something answers, and it is no Kafka listener.
    #[error(
        "{address} accepts connections but does not speak the Kafka protocol ({reason}). Name the \
         Kafka port with -b, usually 9092; a listener with TLS or SASL cannot be used."
    )]
    NotKafka {
        /// The address.
        address: String,
        /// What came instead of an answer.
        reason: Box<ClientError>,
    },
    /// The address that the cluster tells clients does not answer.
    #[error(
        "the cluster says that node {node} is at {address}, but that does not answer: {reason}. \
         Make the name reachable from here, or start the node with --advertised-addr and a name \
         that is."
    )]
    AdvertisedUnreachable {
        /// The node.
        node: i32,
        /// Its address, as the cluster tells it.
        address: String,
        /// What happened there.
        reason: io::Error,
    },
    /// The connection broke while an answer was due.
    #[error("the connection to {address} broke: {reason}. See the log of that server.")]
    ConnectionLost {
        /// The address.
        address: String,
        /// What the operating system said.
        reason: io::Error,
    },
    /// The time for a step is over.
    #[error("{address} did not answer {api} within {timeout:?}. Allow more with --timeout.")]
    TimedOut {
        /// The address.
        address: String,
        /// What was asked.
        api: ApiKey,
        /// The time it had.
        timeout: Duration,
    },
    /// The two sides share no version of an API.
    #[error(
        "{address} cannot be asked {api}: this program needs one of versions {}..={}, the server \
         has {}.", wanted.min, wanted.max, offered(*theirs)
    )]
    Unsupported {
        /// The address.
        address: String,
        /// The API.
        api: ApiKey,
        /// Versions that would do.
        wanted: VersionRange,
        /// Versions of the server; `None` if it does not have the API.
        theirs: Option<VersionRange>,
    },
    /// An answer that is none.
    #[error("{address} sent an answer that cannot be read: {reason}")]
    Malformed {
        /// The address.
        address: String,
        /// What is wrong with it.
        reason: DecodeError,
    },
    /// A request that has no form in the version both sides share.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The cluster refused.
    #[error("cannot {action}: {}.{}", reason(*code, message.as_deref()), way_out(*code))]
    Refused {
        /// What was asked, to follow "cannot".
        action: String,
        /// Kafka's code.
        code: KafkaCode,
        /// What the server said.
        message: Option<String>,
    },
    /// A topic that is not there.
    #[error(
        "{address} has no topic {topic}. Create it with `chronik topic create {topic}`, or see \
         `chronik topic list`."
    )]
    NoSuchTopic {
        /// The cluster.
        address: String,
        /// The topic.
        topic: String,
    },
    /// A partition without a leader, for longer than one can wait.
    #[error(
        "{topic}-{partition} has no leader, so nobody can read or write it. Its replicas are on \
         nodes {replicas:?}: start one of them."
    )]
    NoLeader {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Nodes with a replica.
        replicas: Vec<i32>,
    },
    /// Records that came back damaged.
    #[error("{topic}-{partition}: the batch at offset {offset} cannot be read: {reason}")]
    Batch {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Where reading was going on.
        offset: i64,
        /// What is wrong.
        reason: BatchError,
    },
}

impl ClientError {
    /// The stable code: one of ours, or Kafka's name of a refusal.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "E100",
            Self::NotKafka { .. } => "E101",
            Self::AdvertisedUnreachable { .. } => "E102",
            Self::ConnectionLost { .. } => "E103",
            Self::TimedOut { .. } => "E104",
            Self::Unsupported { .. } => "E105",
            Self::Malformed { .. } => "E106",
            Self::Encode(_) => "E107",
            Self::Batch { .. } => "E108",
            Self::Refused { code, .. } => code.name(),
            Self::NoSuchTopic { .. } => ErrorCode::UnknownTopicOrPartition.name(),
            Self::NoLeader { .. } => ErrorCode::LeaderNotAvailable.name(),
        }
    }

    /// True if nobody could be asked at all.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::NotKafka { .. } | Self::AdvertisedUnreachable { .. }
        )
    }

    /// True if the same question may be answered a moment later. A lost connection counts: only
    /// questions that may be asked twice are tried again.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Refused { code, .. } => code.known().is_some_and(ErrorCode::is_retriable),
            Self::ConnectionLost { .. } | Self::NoLeader { .. } => true,
            _ => false,
        }
    }

    /// True if nothing more can be read from or written to the connection.
    pub(crate) fn breaks_connection(&self) -> bool {
        matches!(self, Self::ConnectionLost { .. } | Self::TimedOut { .. } | Self::Malformed { .. })
    }
}

fn offered(range: Option<VersionRange>) -> String {
    range.map_or("none".to_owned(), |range| format!("{}..={}", range.min, range.max))
}

/// The server's words, without a full stop, or else the code.
fn reason(code: KafkaCode, message: Option<&str>) -> String {
    let words = message.map(|text| text.trim().trim_end_matches('.'));
    words.filter(|text| !text.is_empty()).map_or_else(|| code.to_string(), str::to_owned)
}

/// What to do about the refusals people meet most.
fn way_out(code: KafkaCode) -> &'static str {
    match code.known() {
        Some(ErrorCode::TopicAlreadyExists) => " `chronik topic describe` shows it.",
        Some(ErrorCode::InvalidTopicException) => {
            " A name has up to 249 letters, digits, dots, underscores and dashes."
        }
        Some(ErrorCode::MessageTooLarge | ErrorCode::RecordListTooLarge) => {
            " Send smaller records, or create the topic with a larger max.message.bytes."
        }
        Some(ErrorCode::NotEnoughReplicas | ErrorCode::NotEnoughReplicasAfterAppend) => {
            " Fewer replicas are in sync than min.insync.replicas asks for; \
             `chronik topic describe` shows which."
        }
        Some(ErrorCode::InvalidReplicationFactor) => {
            " There cannot be more replicas than nodes; leave --replicas out for the default."
        }
        Some(
            ErrorCode::TopicAuthorizationFailed
            | ErrorCode::ClusterAuthorizationFailed
            | ErrorCode::GroupAuthorizationFailed,
        ) => " Ask the operator of the cluster for access.",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_the_server_said_and_what_to_do() {
        let refused = ClientError::Refused {
            action: "create topic demo".to_owned(),
            code: KafkaCode(ErrorCode::TopicAlreadyExists.code()),
            message: Some("Topic 'demo' already exists.".to_owned()),
        };
        assert_eq!(
            refused.to_string(),
            "cannot create topic demo: Topic 'demo' already exists. \
             `chronik topic describe` shows it."
        );
        assert_eq!(refused.code(), "TOPIC_ALREADY_EXISTS");
        assert!(!refused.is_retriable());
    }

    #[test]
    fn a_refusal_without_words_names_the_code() {
        let code = KafkaCode(30_000);
        let refused =
            ClientError::Refused { action: "read demo-0".to_owned(), code, message: None };
        assert_eq!(refused.to_string(), "cannot read demo-0: UNKNOWN_ERROR_CODE (30000).");
    }
}
