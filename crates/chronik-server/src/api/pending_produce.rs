//! A produce request between its appends and its answer.
//!
//! Pending requests are used again, with the room of their lists, so that a request allocates
//! nothing once its shard is warm. What is kept for that is bounded: few spares, each with short
//! lists and short names.

use std::borrow::Cow;
use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use chronik_common::{ErrorCode, MonotonicMs, Uuid};
use chronik_partition::{Appended, Completion, Partition};
use chronik_protocol::produce::{PartitionProduceResponse, ProduceResponse, TopicProduceResponse};
use chronik_protocol::{EncodeError, OutputBuffer};

use super::{RequestId, error};
use crate::shard::Shard;

/// First version whose clients know KAFKA_STORAGE_ERROR.
const STORAGE_ERROR_VERSION: i16 = 4;
/// Spare requests that a shard keeps, at most.
const SPARES_MAX: usize = 512;
/// A request with room for more parts than these is not kept: few are, and its lists are large.
const SPARE_PARTS_MAX: usize = 64;
/// Topics that a spare request keeps, at most, and the room that each may have, for partitions and
/// in bytes of its name. Together with the parts that is 32 KiB for a request.
const SPARE_TOPICS_MAX: usize = 16;
const SPARE_TOPIC_PARTITIONS_MAX: usize = 16;
const SPARE_NAME_BYTES_MAX: usize = 256;

/// A produce request that waits for acknowledgements.
pub(crate) struct PendingProduce {
    id: RequestId,
    response: ProduceResponse<'static>,
    /// Topics of earlier answers: only their room counts.
    spare_topics: Vec<TopicProduceResponse<'static>>,
    pub(super) parts: Vec<Part>,
    /// Parts that wait.
    unfinished: usize,
    /// When the wait ends whether or not the parts are durable.
    deadline: MonotonicMs,
    /// What the shard was charged with for the wait, to be given back.
    charged_bytes: usize,
}

/// One partition of the request.
pub(super) struct Part {
    /// Index of its topic in the answer.
    topic: usize,
    /// Index of its partition in that topic.
    partition: usize,
    /// Taken by the append.
    pub(super) target: Option<Result<Arc<Partition>, ErrorCode>>,
    /// Where the batch lies in the frame.
    pub(super) range: Range<usize>,
    /// A token of it is registered and was not completed.
    is_waiting: bool,
}

/// Answered requests of one shard, for the next ones.
#[derive(Default)]
#[allow(clippy::vec_box, reason = "a slot holds a box; it is what is used again")]
pub(crate) struct SpareProduces(RefCell<Vec<Box<PendingProduce>>>);

impl SpareProduces {
    /// A request without parts.
    pub(crate) fn take(&self, id: RequestId) -> Box<PendingProduce> {
        match self.0.borrow_mut().pop() {
            Some(mut spare) => {
                spare.id = id;
                spare
            }
            None => Box::new(PendingProduce::new(id)),
        }
    }

    /// Keeps a request that was answered.
    pub(crate) fn give(&self, mut answered: Box<PendingProduce>) {
        let mut spares = self.0.borrow_mut();
        if spares.len() < SPARES_MAX && answered.parts.capacity() <= SPARE_PARTS_MAX {
            answered.clear();
            spares.push(answered);
        }
    }
}

impl PendingProduce {
    /// Memory of a topic in the answer, in bytes, without its name.
    pub(super) const TOPIC_BYTES: usize = size_of::<TopicProduceResponse<'static>>();
    /// Memory of a part and of its answer, in bytes.
    pub(super) const PART_BYTES: usize =
        size_of::<Part>() + size_of::<PartitionProduceResponse<'static>>();

    fn new(id: RequestId) -> Self {
        Self {
            id,
            response: ProduceResponse::default(),
            spare_topics: Vec::new(),
            parts: Vec::new(),
            unfinished: 0,
            deadline: MonotonicMs::default(),
            charged_bytes: 0,
        }
    }

    fn clear(&mut self) {
        let is_small = |topic: &TopicProduceResponse<'static>| {
            let name = match &topic.name {
                Cow::Borrowed(_) => 0,
                Cow::Owned(name) => name.capacity(),
            };
            name <= SPARE_NAME_BYTES_MAX
                && topic.partition_responses.capacity() <= SPARE_TOPIC_PARTITIONS_MAX
        };
        self.spare_topics.extend(self.response.responses.drain(..).filter(is_small));
        self.spare_topics.truncate(SPARE_TOPICS_MAX);
        self.response.responses.shrink_to(SPARE_TOPICS_MAX);
        self.spare_topics.shrink_to(SPARE_TOPICS_MAX);
        self.parts.clear();
        self.unfinished = 0;
        self.charged_bytes = 0;
    }

    /// Notes that the request waits, until `deadline` at most; the shard was charged with `bytes`.
    pub(super) fn wait(&mut self, deadline: MonotonicMs, bytes: usize) {
        self.deadline = deadline;
        self.charged_bytes = bytes;
    }

    /// Adds a topic to the answer. A name that the answer's version does not carry is left out.
    pub(super) fn add_topic(&mut self, name: &str, topic_id: Uuid) {
        let mut topic = self.spare_topics.pop().unwrap_or_default();
        topic.partition_responses.clear();
        let mut kept = std::mem::take(&mut topic.name).into_owned();
        kept.clear();
        kept.push_str(name);
        topic.name = Cow::Owned(kept);
        topic.topic_id = topic_id;
        self.response.responses.push(topic);
    }

    /// Adds a partition to the last topic.
    pub(super) fn add_part(
        &mut self,
        index: i32,
        target: Result<Arc<Partition>, ErrorCode>,
        range: Range<usize>,
    ) {
        let topics = self.response.responses.len();
        let topic = self.response.responses.last_mut().expect("a topic was added before");
        self.parts.push(Part {
            topic: topics - 1,
            partition: topic.partition_responses.len(),
            target: Some(target),
            range,
            is_waiting: false,
        });
        topic.partition_responses.push(PartitionProduceResponse {
            index,
            base_offset: -1,
            log_append_time_ms: -1,
            log_start_offset: -1,
            ..PartitionProduceResponse::default()
        });
    }

    /// Notes what became of part `number`.
    pub(super) fn note(
        &mut self,
        number: usize,
        result: Result<Appended, (ErrorCode, Option<String>)>,
    ) {
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

#[cfg(test)]
mod tests {
    use chronik_protocol::ApiKey;

    use super::*;

    fn id() -> RequestId {
        RequestId { api: ApiKey::Produce, version: 12, correlation_id: 1 }
    }

    fn used(spares: &SpareProduces, name: &str, topics: usize, parts: i32) -> Box<PendingProduce> {
        let mut pending = spares.take(id());
        for _ in 0..topics {
            pending.add_topic(name, Uuid::ZERO);
            for index in 0..parts {
                pending.add_part(index, Err(ErrorCode::UnknownTopicOrPartition), 0..0);
            }
        }
        pending
    }

    #[test]
    fn a_spare_request_has_nothing_of_the_one_before() {
        let spares = SpareProduces::default();
        let mut first = used(&spares, "orders", 2, 2);
        first.note(1, Err((ErrorCode::InvalidRecord, Some("bad".to_owned()))));
        spares.give(first);
        let again = used(&spares, "a", 1, 1);
        assert!(again.is_complete());
        let topic = &again.response.responses[0];
        assert_eq!((again.response.responses.len(), topic.name.as_ref()), (1, "a"));
        let expected = PartitionProduceResponse {
            base_offset: -1,
            log_append_time_ms: -1,
            log_start_offset: -1,
            ..PartitionProduceResponse::default()
        };
        assert_eq!(topic.partition_responses, [expected]);
    }

    #[test]
    fn what_is_kept_is_bounded_whatever_clients_send() {
        let spares = SpareProduces::default();
        let long = "n".repeat(30_000);
        for (name, topics, parts) in [(&*long, 10, 1), ("n", 60, 1), ("n", 1, 60), ("n", 9, 7)] {
            spares.give(used(&spares, name, topics, parts));
        }
        let kept = spares.take(id());
        assert!(kept.spare_topics.len() <= SPARE_TOPICS_MAX);
        assert!(kept.parts.capacity() <= SPARE_PARTS_MAX);
        for topic in &kept.spare_topics {
            assert!(topic.name.len() <= SPARE_NAME_BYTES_MAX);
            assert!(topic.partition_responses.capacity() <= SPARE_TOPIC_PARTITIONS_MAX);
        }
        spares.give(used(&spares, "n", 1, 65));
        assert!(spares.0.borrow().is_empty(), "large ones are not kept");
    }
}
