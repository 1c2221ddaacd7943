//! Refusals of a partition, split by what the caller answers.

use chronik_common::{LeaderEpoch, Offset};
use chronik_record::BatchError;
use chronik_wal::WalError;

use crate::producer_state::ProducerError;

/// Why a batch was not appended. Nothing of it is in the log.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The batch breaks a rule of the format or of the topic.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The producer's epoch or sequence does not fit.
    #[error(transparent)]
    Producer(#[from] ProducerError),
    /// A transactional batch, and nobody to ask about its transaction.
    #[error("transactions are not available")]
    Transactional,
    /// Fewer in-sync replicas than the topic demands for acks=all.
    #[error("{in_sync} in-sync replicas, {needed} needed")]
    NotEnoughReplicas {
        /// In-sync replicas now.
        in_sync: usize,
        /// `min.insync.replicas`, at most the replication factor.
        needed: usize,
    },
    /// The log is damaged, failed, or the disk is almost full.
    #[error("the log accepts no writes")]
    StorageUnavailable,
    /// The topic was deleted.
    #[error("the topic was deleted")]
    Deleted,
}

/// Why an appended batch is not acknowledged. It may be in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AckError {
    /// The log failed before the batch was durable.
    #[error("the log failed before the batch was durable")]
    StorageFailed,
    /// The topic was deleted.
    #[error("the topic was deleted")]
    Deleted,
}

/// Why nothing was read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Below the log start or above the log end.
    #[error("{offset:?} is outside the log ({start}..{end})")]
    OutOfRange {
        /// What was asked for.
        offset: Offset,
        /// Log start offset.
        start: Offset,
        /// Log end offset, exclusive.
        end: Offset,
    },
    /// The client knows an older leader epoch than this leader's.
    #[error("leader epoch {asked} is older than {current}")]
    FencedEpoch {
        /// What the client knows.
        asked: LeaderEpoch,
        /// The leader's.
        current: LeaderEpoch,
    },
    /// The client knows a newer leader epoch than this leader's.
    #[error("leader epoch {asked} is newer than {current}")]
    UnknownEpoch {
        /// What the client knows.
        asked: LeaderEpoch,
        /// The leader's.
        current: LeaderEpoch,
    },
    /// The bytes on disk are damaged or cannot be read; they are never handed out.
    #[error(transparent)]
    Storage(WalError),
    /// The topic was deleted.
    #[error("the topic was deleted")]
    Deleted,
}

impl From<WalError> for ReadError {
    fn from(error: WalError) -> Self {
        match error {
            WalError::OutOfRange { offset, start, end } => Self::OutOfRange { offset, start, end },
            other => Self::Storage(other),
        }
    }
}
