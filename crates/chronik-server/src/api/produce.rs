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

use std::borrow::Cow;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use chronik_common::{ErrorCode, MonotonicMs, PartitionIndex, WallMs};
use chronik_partition::{
    Acks, AppendError, Appended, BatchSource, Completion, Partition, PreparedBatch, TopicHandle,
};
use chronik_protocol::produce::{
    PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceData,
    TopicProduceResponse,
};
use chronik_protocol::{ApiKey, EncodeError, OutputBuffer, Reader, RequestHeader, RequestPrefix};

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
/// First version whose clients know KAFKA_STORAGE_ERROR.
const STORAGE_ERROR_VERSION: i16 = 4;
/// Batches of at least this many bytes that make up most of their request stay in the receive
/// buffer; others are copied, so that they do not keep the rest of it alive.
const KEEP_BYTES_MIN: usize = 8 << 10;

/// A produce request that waits for acknowledgements.
pub(crate) struct PendingProduce {
    id: RequestId,
    response: ProduceResponse<'static>,
    parts: Vec<Part>,
    unfinished: usize,
    deadline: MonotonicMs,
    charged_bytes: usize,
}

/// What is left to do after decoding.
struct Plan {
    acks: Result<Acks, ErrorCode>,
    timeout: Duration,
    parts: Vec<Part>,
    response: ProduceResponse<'static>,
}

/// One partition of the request.
struct Part {
    topic: usize,
    partition: usize,
    /// Taken by the append.
    target: Option<Result<Arc<Partition>, ErrorCode>>,
    /// Where the batch lies in the frame.
    range: Range<usize>,
    is_waiting: bool,
}

/// Appends the request's batches and answers when they are as durable as asked.
pub(crate) fn handle(
    shard: &Rc<Shard>,
    connection: &Rc<Connection>,
    prefix: RequestPrefix,
    mut frame: BytesMut,
) -> Result<(), CloseReason> {
    let id = RequestId {
        api: ApiKey::Produce,
        version: prefix.api_version,
        correlation_id: prefix.correlation_id,
    };
    let frame_bytes = frame.len();
    let plan = {
        let (_, body) =
            RequestHeader::decode(&frame, ApiKey::Produce, prefix).map_err(CloseReason::Decode)?;
        let request = ProduceRequest::decode(&mut Reader::new(body), id.version)
            .map_err(CloseReason::Decode)?;
        Plan::new(shard, &request, id.version, &frame)
    };
    let Plan { acks, timeout, parts, response } = plan;
    let mut pending = PendingProduce {
        id,
        response,
        parts,
        unfinished: 0,
        deadline: shard.now().after(timeout.min(WAIT_MAX)),
        charged_bytes: 0,
    };
    let now = shard.node.clock.wall();
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
                append(shard, &partition, batch, frame_bytes, acks, token, now, id.version)
                    .map_err(|error| (error::of_append(&error), Some(error.to_string())))
            }
        };
        has_failed |= result.is_err();
        pending.note(number, result);
    }
    if acks == Ok(Acks::None) {
        return if has_failed { Err(CloseReason::AcksZeroFailed) } else { Ok(()) };
    }
    if pending.is_complete() {
        return connection.answer(|out| pending.encode(out, shard));
    }
    pending.charged_bytes = frame_bytes;
    shard.charge(frame_bytes);
    connection.push_slot(Slot::Produce(Box::new(pending)));
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

impl Plan {
    fn new(shard: &Shard, request: &ProduceRequest<'_>, version: i16, frame: &[u8]) -> Self {
        let acks = match request.acks {
            _ if version < OLDEST_VERSION => Err(ErrorCode::UnsupportedVersion),
            _ if request.transactional_id.is_some() => Err(ErrorCode::InvalidRequest),
            0 => Ok(Acks::None),
            1 => Ok(Acks::Leader),
            -1 => Ok(Acks::All),
            _ => Err(ErrorCode::InvalidRequiredAcks),
        };
        let mut parts = Vec::new();
        let mut responses = Vec::with_capacity(request.topic_data.len());
        for (topic, data) in request.topic_data.iter().enumerate() {
            let handle = find_topic(shard, data, version);
            let mut answers = Vec::with_capacity(data.partition_data.len());
            for (partition, item) in data.partition_data.iter().enumerate() {
                let records = item.records.as_ref().and_then(|records| records.borrowed());
                parts.push(Part {
                    topic,
                    partition,
                    target: Some(handle.as_ref().map_err(|code| *code).and_then(|handle| {
                        find_partition(shard, handle, PartitionIndex(item.index))
                    })),
                    range: range_in(frame, records.unwrap_or_default()),
                    is_waiting: false,
                });
                answers.push(PartitionProduceResponse {
                    index: item.index,
                    base_offset: -1,
                    log_append_time_ms: -1,
                    log_start_offset: -1,
                    ..PartitionProduceResponse::default()
                });
            }
            responses.push(TopicProduceResponse {
                name: Cow::Owned(data.name.clone().into_owned()),
                topic_id: data.topic_id,
                partition_responses: answers,
            });
        }
        let acks = if request.acks == 0 && acks.is_err() {
            // The refusal closes the connection; every part fails.
            parts.iter_mut().for_each(|part| part.target = Some(Err(ErrorCode::InvalidRequest)));
            Ok(Acks::None)
        } else {
            acks
        };
        let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
        let response = ProduceResponse { responses, ..ProduceResponse::default() };
        // Batches are cut out of the frame front to back.
        parts.sort_by_key(|part| part.range.start);
        Self { acks, timeout, parts, response }
    }
}

fn find_topic(
    shard: &Shard,
    data: &TopicProduceData<'_>,
    version: i16,
) -> Result<Arc<TopicHandle>, ErrorCode> {
    let registry = &shard.node.registry;
    if version >= TOPIC_ID_VERSION {
        registry.topic_by_id(data.topic_id).ok_or(ErrorCode::UnknownTopicId)
    } else {
        registry.topic(&data.name).ok_or(ErrorCode::UnknownTopicOrPartition)
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

/// Where `part`, which was decoded from `frame`, lies in it. An empty part may lie anywhere.
fn range_in(frame: &[u8], part: &[u8]) -> Range<usize> {
    if part.is_empty() {
        return 0..0;
    }
    let start = part.as_ptr() as usize - frame.as_ptr() as usize;
    start..start + part.len()
}

impl PendingProduce {
    fn note(&mut self, number: usize, result: Result<Appended, (ErrorCode, Option<String>)>) {
        let part = &mut self.parts[number];
        let answer = &mut self.response.responses[part.topic].partition_responses[part.partition];
        match result {
            Ok(appended) => {
                answer.base_offset = appended.base_offset.0;
                answer.log_append_time_ms = appended.log_append_time.unwrap_or(-1);
                answer.log_start_offset = appended.log_start_offset.0;
                part.is_waiting = appended.must_wait;
            }
            Err((code, message)) => fail(answer, code, message, self.id.version),
        }
        self.unfinished += usize::from(part.is_waiting);
    }

    fn finish_part(&mut self, number: usize, failure: Option<ErrorCode>) {
        let Some(part) = self.parts.get_mut(number).filter(|part| part.is_waiting) else {
            return;
        };
        part.is_waiting = false;
        self.unfinished -= 1;
        if let Some(code) = failure {
            let answer =
                &mut self.response.responses[part.topic].partition_responses[part.partition];
            fail(answer, code, None, self.id.version);
        }
    }

    /// Applies a completion; `true` if nothing is left to wait for.
    pub(crate) fn complete(&mut self, completion: &Completion) -> bool {
        let failure = completion.result.err().map(error::of_ack);
        self.finish_part(completion.token.part as usize, failure);
        self.is_complete()
    }

    /// Ends the wait if its deadline has passed; `true` if that completed the request.
    pub(crate) fn expire(&mut self, now: MonotonicMs) -> bool {
        if self.is_complete() || now < self.deadline {
            return false;
        }
        for number in 0..self.parts.len() {
            self.finish_part(number, Some(ErrorCode::RequestTimedOut));
        }
        true
    }

    /// True if nothing is left to wait for.
    pub(crate) fn is_complete(&self) -> bool {
        self.unfinished == 0
    }

    /// Puts the answer and gives back the request's memory.
    pub(crate) fn encode(&self, out: &mut OutputBuffer, shard: &Shard) -> Result<(), EncodeError> {
        shard.release(self.charged_bytes);
        let answers = self.response.responses.iter().flat_map(|topic| &topic.partition_responses);
        for answer in answers {
            assert!(
                (answer.error_code == 0) == (answer.base_offset >= 0),
                "an error never carries an offset and success always does: {answer:?}"
            );
        }
        self.id.encode(out, |out| self.response.encode(out, self.id.version))
    }

    /// The connection is gone; gives back the request's memory.
    pub(crate) fn abandon(&self, shard: &Shard) {
        shard.release(self.charged_bytes);
    }
}

fn fail(
    answer: &mut PartitionProduceResponse<'static>,
    code: ErrorCode,
    message: Option<String>,
    version: i16,
) {
    let is_storage = code == ErrorCode::KafkaStorageError;
    let code = if is_storage && version < STORAGE_ERROR_VERSION {
        ErrorCode::NotLeaderOrFollower
    } else {
        code
    };
    answer.error_code = code.code();
    answer.base_offset = -1;
    answer.log_append_time_ms = -1;
    answer.error_message = message.map(Cow::Owned);
}
