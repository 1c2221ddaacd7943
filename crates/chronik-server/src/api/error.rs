//! Domain errors to Kafka error codes: the only place that knows both. No wildcard arms, so that
//! a new error asks for its code here.

use chronik_cluster::{InvalidTopicName, PlacementError, Rejection};
use chronik_common::ErrorCode;
use chronik_partition::{AckError, AppendError, ProducerError, ReadError};
use chronik_record::BatchError;

use crate::metadata::ProposeError;

/// The code of a refused append.
pub(crate) fn of_append(error: &AppendError) -> ErrorCode {
    match error {
        AppendError::Batch(batch) => of_batch(batch),
        AppendError::Producer(ProducerError::StaleEpoch { .. }) => ErrorCode::InvalidProducerEpoch,
        AppendError::Producer(ProducerError::OutOfOrder { .. }) => {
            ErrorCode::OutOfOrderSequenceNumber
        }
        AppendError::Transactional => ErrorCode::InvalidTxnState,
        AppendError::NotEnoughReplicas { .. } => ErrorCode::NotEnoughReplicas,
        AppendError::StorageUnavailable => ErrorCode::KafkaStorageError,
        AppendError::Deleted => ErrorCode::UnknownTopicOrPartition,
    }
}

fn of_batch(error: &BatchError) -> ErrorCode {
    match error {
        BatchError::Corrupt(_) => ErrorCode::CorruptMessage,
        BatchError::Invalid(_) => ErrorCode::InvalidRecord,
        BatchError::InvalidTimestamp(_) => ErrorCode::InvalidTimestamp,
        BatchError::UnsupportedCodec(_) => ErrorCode::UnsupportedCompressionType,
        BatchError::TooLarge { .. } => ErrorCode::MessageTooLarge,
        BatchError::LargerThanSegment { .. } => ErrorCode::RecordListTooLarge,
    }
}

/// The code of a batch that was appended and not acknowledged.
pub(crate) fn of_ack(error: AckError) -> ErrorCode {
    match error {
        AckError::StorageFailed => ErrorCode::KafkaStorageError,
        AckError::Deleted => ErrorCode::UnknownTopicOrPartition,
    }
}

/// The code of a refused read.
pub(crate) fn of_read(error: &ReadError) -> ErrorCode {
    match error {
        ReadError::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        ReadError::FencedEpoch { .. } => ErrorCode::FencedLeaderEpoch,
        ReadError::UnknownEpoch { .. } => ErrorCode::UnknownLeaderEpoch,
        ReadError::Storage(_) => ErrorCode::KafkaStorageError,
        ReadError::Deleted => ErrorCode::UnknownTopicOrPartition,
    }
}

/// The code of a metadata command without result.
pub(crate) fn of_propose(error: ProposeError) -> ErrorCode {
    match error {
        ProposeError::Rejected(Rejection::TopicExists) => ErrorCode::TopicAlreadyExists,
        ProposeError::Rejected(Rejection::UnknownTopic) => ErrorCode::UnknownTopicOrPartition,
        ProposeError::Rejected(Rejection::NameCollides) => ErrorCode::InvalidTopicException,
        ProposeError::Rejected(Rejection::TopicIdTaken | Rejection::NotUnderstood) => {
            ErrorCode::InvalidRequest
        }
        ProposeError::Unavailable => ErrorCode::NotController,
    }
}

/// The code of a topic that cannot be placed.
pub(crate) fn of_placement(error: &PlacementError) -> ErrorCode {
    match error {
        PlacementError::Partitions { .. } => ErrorCode::InvalidPartitions,
        PlacementError::ReplicationFactor { .. } => ErrorCode::InvalidReplicationFactor,
        PlacementError::Assignment => ErrorCode::InvalidReplicaAssignment,
    }
}

/// The code of an illegal topic name.
pub(crate) fn of_topic_name(error: InvalidTopicName) -> ErrorCode {
    match error {
        InvalidTopicName::Empty
        | InvalidTopicName::TooLong
        | InvalidTopicName::Dots
        | InvalidTopicName::Character => ErrorCode::InvalidTopicException,
    }
}
