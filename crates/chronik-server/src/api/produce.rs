//! Produce (key 0), versions 3-13; versions 0-2 are shown and refused.
//!
//! - Versions 0-2 exist for old librdkafka, which reads compression support from the range
//!   (KAFKA-18659). They are decoded and every partition answers UNSUPPORTED_VERSION.
//! - acks outside {0, 1, -1}: INVALID_REQUIRED_ACKS on every partition, nothing appended.
//! - acks=0: never an answer; an error closes the connection, as in Kafka.
//! - Batches are appended in arrival order on this shard; only the wait for durability overlaps.
//! - A wait ends after min(the request's timeout, 30 s) with REQUEST_TIMED_OUT; the batch may
//!   still become durable.
//! - Transactional producers arrive with transactions: a transactional id is INVALID_REQUEST.

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use chronik_common::{ErrorCode, MonotonicMs, PartitionIndex, Uuid, WallMs};
use chronik_partition::{
    Acks, AppendError, Appended, BatchSource, Partition, PreparedBatch, TopicHandle,
};
use chronik_protocol::{
    ApiKey, ProduceHead, ProduceParts, Reader, RequestHeader, RequestPrefix, read_produce_request,
};

use super::pending_produce::PendingProduce;
use super::{CloseReason, RequestId, error};
use crate::net::connection::{Connection, Slot};
use crate::shard::Shard;

/// Longest wait for an acknowledgement.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Oldest version whose batches are format 2.
const OLDEST_VERSION: i16 = 3;
/// First version whose clients know zstd.
const ZSTD_VERSION: i16 = 7;
/// First version with topic ids instead of names.
const TOPIC_ID_VERSION: i16 = 13;
/// Batches of at least this many bytes that make up most of their request stay in the receive
/// buffer; others are copied, so that they do not keep the rest of it alive.
const KEEP_BYTES_MIN: usize = 8 << 10;

/// Appends the request's batches and answers when they are as durable as asked.
pub(crate) fn handle(
    shard: &Rc<Shard>,
    connection: &Rc<Connection>,
    now: MonotonicMs,
    prefix: RequestPrefix,
    mut frame: BytesMut,
) -> Result<(), CloseReason> {
    let id = RequestId {
        api: ApiKey::Produce,
        version: prefix.api_version,
        correlation_id: prefix.correlation_id,
    };
    let frame_bytes = frame.len();
    let mut pending = shard.spare_produces.take(id);
    let (acks, timeout) = plan(shard, &frame, prefix, &mut pending)?;
    let deadline = now.after(timeout.min(WAIT_MAX));
    let append_time = shard.node.clock.wall();
    let mut has_failed = false;
    let mut consumed = 0;
    for number in 0..pending.parts.len() {
        let part = &mut pending.parts[number];
        frame.advance(part.range.start - consumed);
        let batch = frame.split_to(part.range.len());
        consumed = part.range.end;
        let result = match (acks, part.target.take().expect("each part is appended once")) {
            (Err(code), _) | (Ok(_), Err(code)) => Err((code, None)),
            (Ok(acks), Ok(partition)) => {
                let token = connection.token(shard, u32::try_from(number).unwrap_or(u32::MAX));
                append(shard, &partition, batch, frame_bytes, acks, token, append_time, id.version)
                    .map_err(|error| (error::of_append(&error), Some(error.to_string())))
            }
        };
        has_failed |= result.is_err();
        pending.note(number, result);
    }
    if acks == Ok(Acks::None) {
        shard.spare_produces.give(pending);
        return if has_failed { Err(CloseReason::AcksZeroFailed) } else { Ok(()) };
    }
    if pending.is_complete() {
        let answered = connection.answer(|out| pending.encode(out, shard));
        shard.spare_produces.give(pending);
        return answered;
    }
    pending.wait(deadline, frame_bytes);
    shard.charge(frame_bytes);
    connection.push_slot(Slot::Produce(pending));
    Ok(())
}

#[allow(clippy::too_many_arguments, reason = "one call with everything a batch needs")]
fn append(
    shard: &Rc<Shard>,
    partition: &Arc<Partition>,
    batch: BytesMut,
    frame_bytes: usize,
    acks: Acks,
    token: chronik_partition::Token,
    now: WallMs,
    version: i16,
) -> Result<Appended, AppendError> {
    if shard.node.is_produce_paused() {
        return Err(AppendError::StorageUnavailable);
    }
    let bytes = batch.len();
    let kept;
    let source = if bytes >= KEEP_BYTES_MIN && bytes * 2 >= frame_bytes {
        BatchSource::Owned(batch)
    } else {
        kept = batch;
        BatchSource::Borrowed(&kept)
    };
    let settings = partition.settings();
    let prepared = PreparedBatch::new(source, &settings, now, version >= ZSTD_VERSION)?;
    let records = u64::try_from(prepared.header().record_count).unwrap_or(0);
    let appended = partition.append(prepared, acks, token, now)?;
    shard.touch(partition);
    shard.node.metrics.count_produced(shard.id, bytes, records);
    Ok(appended)
}

/// Reads the request: its parts go into `pending`, in the order of their batches in the frame.
fn plan(
    shard: &Shard,
    frame: &[u8],
    prefix: RequestPrefix,
    pending: &mut PendingProduce,
) -> Result<(Result<Acks, ErrorCode>, Duration), CloseReason> {
    let version = prefix.api_version;
    let (_, body) =
        RequestHeader::decode(frame, ApiKey::Produce, prefix).map_err(CloseReason::Decode)?;
    let mut plan = Plan {
        shard,
        version,
        frame,
        topic: Err(ErrorCode::UnknownTopicOrPartition),
        end: 0,
        pending,
    };
    let head = read_produce_request(&mut Reader::new(body), version, &mut plan)
        .map_err(CloseReason::Decode)?;
    let timeout = Duration::from_millis(u64::try_from(head.timeout_ms).unwrap_or(0));
    let acks = match acks_of(&head, version) {
        Err(_) if head.acks == 0 => {
            // The refusal closes the connection; every part fails.
            for part in &mut pending.parts {
                part.target = Some(Err(ErrorCode::InvalidRequest));
            }
            Ok(Acks::None)
        }
        acks => acks,
    };
    Ok((acks, timeout))
}

fn acks_of(head: &ProduceHead<'_>, version: i16) -> Result<Acks, ErrorCode> {
    match head.acks {
        _ if version < OLDEST_VERSION => Err(ErrorCode::UnsupportedVersion),
        _ if head.transactional_id.is_some() => Err(ErrorCode::InvalidRequest),
        0 => Ok(Acks::None),
        1 => Ok(Acks::Leader),
        -1 => Ok(Acks::All),
        _ => Err(ErrorCode::InvalidRequiredAcks),
    }
}

/// Finds the partitions of a request while it is read.
struct Plan<'a> {
    shard: &'a Shard,
    version: i16,
    frame: &'a [u8],
    /// The topic whose partitions come.
    topic: Result<Arc<TopicHandle>, ErrorCode>,
    /// End of the last batch in the frame.
    end: usize,
    pending: &'a mut PendingProduce,
}

impl<'a> ProduceParts<'a> for Plan<'_> {
    const TOPIC_BYTES: usize = PendingProduce::TOPIC_BYTES;
    const PARTITION_BYTES: usize = PendingProduce::PART_BYTES;

    fn topic(&mut self, name: &'a str, topic_id: Uuid) {
        let registry = &self.shard.node.registry;
        self.topic = if self.version >= TOPIC_ID_VERSION {
            registry.topic_by_id(topic_id).ok_or(ErrorCode::UnknownTopicId)
        } else {
            registry.topic(name).ok_or(ErrorCode::UnknownTopicOrPartition)
        };
        self.pending.add_topic(name, topic_id);
    }

    fn partition(&mut self, index: i32, records: Option<&'a [u8]>) {
        let target = self.topic.as_ref().map_err(|code| *code);
        let target =
            target.and_then(|handle| find_partition(self.shard, handle, PartitionIndex(index)));
        let range = match records {
            Some(records) if !records.is_empty() => range_in(self.frame, records),
            _ => self.end..self.end,
        };
        self.end = range.end;
        self.pending.add_part(index, target, range);
    }
}

/// The partition on this node; one whose log could not be opened is a storage error.
pub(crate) fn find_partition(
    shard: &Shard,
    handle: &TopicHandle,
    index: PartitionIndex,
) -> Result<Arc<Partition>, ErrorCode> {
    if let Some(partition) = handle.partition(index) {
        return Ok(Arc::clone(partition));
    }
    let image = shard.node.metadata.image();
    let exists = image.topic_by_id(handle.id).is_some_and(|topic| topic.partition(index).is_some());
    Err(if exists { ErrorCode::KafkaStorageError } else { ErrorCode::UnknownTopicOrPartition })
}

/// Where `part`, which was read from `frame`, lies in it.
fn range_in(frame: &[u8], part: &[u8]) -> Range<usize> {
    let start = part.as_ptr() as usize - frame.as_ptr() as usize;
    start..start + part.len()
}
