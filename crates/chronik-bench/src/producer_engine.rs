//! One producing connection as a pure step: messages in, frames out, answers in, results out.
//!
//! ```text
//!   offer -> queue of a partition -> pump -> frame -> in flight -> on_answer -> slot is free
//!                                      ^                 |
//!                                      +-- send again <--+ connection lost, idempotent
//! ```
//!
//! A message occupies a slot from [`offer`](ProducerEngine::offer) until its answer. Answers come
//! in the order of requests. Idempotent producers send again, in order and with the same bytes,
//! what was under way when a connection broke; others count it as failed, with an unknown fate.
//! Knows no socket, no clock and no thread.

use std::collections::VecDeque;
use std::time::Duration;

use chronik_common::{ErrorCode, Rng, SeededRng};

use crate::arguments::KeyPattern;
use crate::batch_template::{BatchTemplate, Run, Stamp};
use crate::client::code_name;
use crate::clock::Moment;
use crate::ledger::{BatchPlace, LaneLedger};
use crate::produce_request::{ProduceAnswer, RequestParts, RequestTemplate};
use crate::recorder::{LATE, Recorder};

/// Takes frames in order.
pub trait FrameSink {
    /// Takes one frame.
    fn send(&mut self, request: RequestParts<'_>);
    /// False while so much waits to be sent that more had better wait, too.
    fn has_room(&self) -> bool;
}

/// How one connection behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EngineShape {
    /// Messages that may be under way or queued.
    pub slots: u32,
    /// Messages in one request at most, at most the template's.
    pub request_messages_max: u32,
    /// Requests under way at most.
    pub requests_max: usize,
    /// Time a message waits for others of its request.
    pub linger: Duration,
    /// True if there are answers (acks other than 0).
    pub has_answers: bool,
    /// Which partition a message goes to.
    pub keys: KeyPattern,
    /// Bytes of a value, for counting.
    pub value_bytes: u32,
    /// Longest wait for an answer.
    pub request_timeout: Duration,
    /// Longest time an idempotent producer tries.
    pub message_timeout: Duration,
}

/// What the connection's owner has to do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Nothing.
    None,
    /// Drop the connection, look where the leader is, connect again.
    Reconnect,
}

/// An answer that fits no request, so that the connection is of no use any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("answer {found} came instead of {expected:?}")]
pub struct UnexpectedAnswer {
    found: i32,
    expected: Option<i32>,
}

/// A request under way.
#[derive(Debug)]
struct Flight {
    correlation_id: i32,
    lane: usize,
    first_sequence: u64,
    count: u32,
    runs: Vec<Run>,
    timestamp_ms: i64,
    crc: u32,
    first_sent: Moment,
    sent: Moment,
}

/// A partition of this connection.
#[derive(Debug)]
struct Lane {
    ledger: LaneLedger,
    queue: VecDeque<Run>,
    queued: u32,
    /// When the oldest queued message was queued.
    queued_since: Moment,
    is_listed: bool,
}

/// See the module.
#[derive(Debug)]
pub struct ProducerEngine {
    shape: EngineShape,
    request: RequestTemplate,
    batch: BatchTemplate,
    producer: Option<(i64, i16)>,
    lanes: Vec<Lane>,
    /// Lanes with queued messages, longest waiting first.
    listed: VecDeque<usize>,
    in_flight: VecDeque<Flight>,
    /// To be sent before anything new.
    again: VecDeque<Flight>,
    free: u32,
    next_correlation_id: i32,
    next_lane: usize,
    rng: SeededRng,
    /// Empty vectors of runs, to be used again.
    spare_runs: Vec<Vec<Run>>,
    has_given_up: bool,
}

impl ProducerEngine {
    /// A producer of `partitions`, at least one, as writer number `writer`.
    #[must_use]
    pub fn new(
        shape: EngineShape,
        request: RequestTemplate,
        batch: BatchTemplate,
        producer: Option<(i64, i16)>,
        (writer, partitions): (u32, &[i32]),
    ) -> Self {
        assert!(!partitions.is_empty(), "a producer needs a partition");
        assert!(shape.request_messages_max <= batch.messages_max(), "{shape:?}");
        assert!(shape.slots >= 1 && shape.request_messages_max >= 1, "{shape:?}");
        let lane = |partition: &i32| Lane {
            ledger: LaneLedger::new(*partition, writer),
            queue: VecDeque::new(),
            queued: 0,
            queued_since: Moment::NEVER,
            is_listed: false,
        };
        Self {
            shape,
            request,
            batch,
            producer,
            lanes: partitions.iter().map(lane).collect(),
            listed: VecDeque::new(),
            in_flight: VecDeque::new(),
            again: VecDeque::new(),
            free: shape.slots,
            next_correlation_id: 0,
            next_lane: writer as usize % partitions.len(),
            rng: SeededRng::new(u64::from(writer) << 32 | 0x0bec),
            spare_runs: Vec::new(),
            has_given_up: false,
        }
    }

    /// Version of the requests, for decoding answers.
    #[must_use]
    pub fn version(&self) -> i16 {
        self.request.version()
    }

    /// Messages that can be offered now.
    #[must_use]
    pub fn free_slots(&self) -> u32 {
        self.free
    }

    /// True if no message is queued or under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.in_flight.is_empty() && self.again.is_empty() && self.listed.is_empty()
    }

    /// True if a message could not be stored in the time it had: an idempotent producer cannot
    /// go on behind it.
    #[must_use]
    pub fn has_given_up(&self) -> bool {
        self.has_given_up
    }

    /// A partition of this connection, to look for its leader.
    #[must_use]
    pub fn sample_partition(&self) -> i32 {
        self.lanes[0].ledger.partition
    }

    /// What was acknowledged, per partition.
    #[must_use]
    pub fn into_ledgers(self) -> Vec<LaneLedger> {
        self.lanes.into_iter().map(|lane| lane.ledger).collect()
    }

    /// Queues `count` messages that were meant to be sent at `intended`.
    ///
    /// # Panics
    /// If there are fewer free slots.
    pub fn offer(&mut self, now: Moment, intended: Moment, count: u32) {
        assert!(count <= self.free, "{count} messages for {} slots", self.free);
        self.free -= count;
        if self.lanes.len() == 1 || self.shape.keys == KeyPattern::Fixed {
            return self.enqueue(0, now, Run { intended, count });
        }
        for _ in 0..count {
            let lane = match self.shape.keys {
                KeyPattern::Random => self.rng.below(self.lanes.len() as u64) as usize,
                KeyPattern::Sequential | KeyPattern::Fixed => {
                    self.next_lane = (self.next_lane + 1) % self.lanes.len();
                    self.next_lane
                }
            };
            self.enqueue(lane, now, Run { intended, count: 1 });
        }
    }

    fn enqueue(&mut self, index: usize, now: Moment, run: Run) {
        if run.count == 0 {
            return;
        }
        let lane = &mut self.lanes[index];
        lane.queued += run.count;
        match lane.queue.back_mut() {
            Some(last) if last.intended == run.intended => last.count += run.count,
            _ => lane.queue.push_back(run),
        }
        if !lane.is_listed {
            lane.is_listed = true;
            lane.queued_since = now;
            self.listed.push_back(index);
        }
    }

    /// Sends what may be sent at `now`.
    pub fn pump(
        &mut self,
        now: Moment,
        wall_ms: i64,
        sink: &mut impl FrameSink,
        recorder: &mut Recorder,
    ) {
        while self.has_room(sink) {
            let Some(flight) = self.again.pop_front() else { break };
            self.transmit(flight, now, sink);
        }
        for _ in 0..self.listed.len() {
            let Some(&index) = self.listed.front() else { return };
            if !self.is_due(index, now) {
                return;
            }
            while self.has_room(sink) && self.is_due(index, now) {
                self.send_from(index, now, wall_ms, sink, recorder);
            }
            let has_room = self.has_room(sink);
            let lane = &mut self.lanes[index];
            if lane.queued == 0 {
                lane.is_listed = false;
                self.listed.pop_front();
            } else if has_room {
                lane.queued_since = now;
                self.listed.rotate_left(1);
            } else {
                return;
            }
        }
    }

    fn has_room(&self, sink: &impl FrameSink) -> bool {
        self.in_flight.len() < self.shape.requests_max && sink.has_room() && !self.has_given_up
    }

    /// True if a request with messages of this lane should not wait any longer.
    fn is_due(&self, index: usize, now: Moment) -> bool {
        let lane = &self.lanes[index];
        lane.queued > 0
            && (lane.queued >= self.shape.request_messages_max
                || now >= lane.queued_since.after(self.shape.linger))
    }

    fn send_from(
        &mut self,
        index: usize,
        now: Moment,
        wall_ms: i64,
        sink: &mut impl FrameSink,
        recorder: &mut Recorder,
    ) {
        let lane = &mut self.lanes[index];
        let count = lane.queued.min(self.shape.request_messages_max);
        let mut runs = self.spare_runs.pop().unwrap_or_default();
        take_messages(&mut lane.queue, count, &mut runs);
        lane.queued -= count;
        let first_sequence = lane.ledger.next_sequence;
        lane.ledger.next_sequence += u64::from(count);
        for run in runs.iter().filter(|run| now.since(run.intended) > LATE) {
            recorder.late(run.count);
        }
        let flight = Flight {
            correlation_id: 0,
            lane: index,
            first_sequence,
            count,
            runs,
            timestamp_ms: wall_ms,
            crc: 0,
            first_sent: now,
            sent: now,
        };
        self.transmit(flight, now, sink);
        if !self.shape.has_answers {
            let flight = self.in_flight.pop_back().expect("it was just put there");
            self.succeed(flight, -1, now, recorder);
            recorder.request();
        }
    }

    fn transmit(&mut self, mut flight: Flight, now: Moment, sink: &mut impl FrameSink) {
        let partition = self.lanes[flight.lane].ledger.partition;
        let batch = self.batch.stamp(&Stamp {
            partition,
            first_sequence: flight.first_sequence,
            runs: &flight.runs,
            timestamp_ms: flight.timestamp_ms,
            producer: self.producer,
        });
        flight.crc = batch.crc;
        flight.sent = now;
        flight.correlation_id = self.next_correlation_id;
        self.next_correlation_id = self.next_correlation_id.wrapping_add(1) & i32::MAX;
        sink.send(self.request.request(flight.correlation_id, partition, batch.bytes));
        self.in_flight.push_back(flight);
    }

    /// Takes the answer to the oldest request under way.
    ///
    /// # Errors
    /// If it is the answer to another.
    pub fn on_answer(
        &mut self,
        answer: &ProduceAnswer,
        now: Moment,
        recorder: &mut Recorder,
    ) -> Result<Effect, UnexpectedAnswer> {
        let expected = self.in_flight.front().map(|flight| flight.correlation_id);
        if expected != Some(answer.correlation_id) {
            return Err(UnexpectedAnswer { found: answer.correlation_id, expected });
        }
        let flight = self.in_flight.pop_front().expect("there is an expected answer");
        recorder.request();
        let code = answer.error_code;
        let is_stored = code == ErrorCode::None.code()
            || (self.producer.is_some() && code == ErrorCode::DuplicateSequenceNumber.code());
        if is_stored {
            self.succeed(flight, answer.base_offset, now, recorder);
            return Ok(Effect::None);
        }
        let may_pass = ErrorCode::try_from(code).is_ok_and(ErrorCode::is_retriable)
            || code == ErrorCode::OutOfOrderSequenceNumber.code();
        if self.producer.is_some() && may_pass {
            self.in_flight.push_front(flight);
            return Ok(Effect::Reconnect);
        }
        self.fail(flight, &code_name(code), now, recorder);
        let has_moved = code == ErrorCode::NotLeaderOrFollower.code()
            || code == ErrorCode::UnknownTopicOrPartition.code();
        Ok(if has_moved { Effect::Reconnect } else { Effect::None })
    }

    /// Takes the loss of the connection for `reason`.
    pub fn on_disconnect(&mut self, reason: &str, now: Moment, recorder: &mut Recorder) {
        let lost = std::mem::take(&mut self.in_flight);
        if self.producer.is_none() {
            for flight in lost {
                self.fail(flight, reason, now, recorder);
            }
            return;
        }
        for flight in lost.into_iter().rev() {
            self.again.push_front(flight);
        }
        self.give_up_on_old(reason, now, recorder);
    }

    /// Gives up if the oldest message has had its time; while there is no connection.
    pub fn give_up_on_old(&mut self, reason: &str, now: Moment, recorder: &mut Recorder) {
        let oldest = self.again.front().map_or(Moment::NEVER, |flight| flight.first_sent);
        if now < oldest.after(self.shape.message_timeout) {
            return;
        }
        self.has_given_up = true;
        for flight in std::mem::take(&mut self.again) {
            self.fail(flight, reason, now, recorder);
        }
        self.fail_queued(reason, now, recorder);
    }

    /// Counts everything that is queued or under way as failed; at the end of a run.
    pub fn abandon(&mut self, reason: &str, now: Moment, recorder: &mut Recorder) {
        let lost = std::mem::take(&mut self.in_flight);
        for flight in lost.into_iter().chain(std::mem::take(&mut self.again)) {
            self.fail(flight, reason, now, recorder);
        }
        self.fail_queued(reason, now, recorder);
    }

    /// Takes back what was queued and never sent.
    pub fn withdraw_queued(&mut self) -> u32 {
        let mut count = 0;
        for index in std::mem::take(&mut self.listed) {
            let lane = &mut self.lanes[index];
            count += lane.queued;
            (lane.queued, lane.is_listed) = (0, false);
            lane.queue.clear();
        }
        self.free += count;
        count
    }

    fn fail_queued(&mut self, reason: &str, now: Moment, recorder: &mut Recorder) {
        for index in std::mem::take(&mut self.listed) {
            let lane = &mut self.lanes[index];
            for run in lane.queue.drain(..) {
                recorder.failure(now, run.intended, run.count, reason);
            }
            self.free += lane.queued;
            (lane.queued, lane.is_listed) = (0, false);
        }
    }

    fn succeed(&mut self, flight: Flight, base_offset: i64, now: Moment, recorder: &mut Recorder) {
        let lane = &mut self.lanes[flight.lane];
        lane.ledger.acknowledge(&BatchPlace {
            base_offset,
            writer: lane.ledger.writer,
            first_sequence: flight.first_sequence,
            count: flight.count,
            crc: flight.crc,
        });
        for run in &flight.runs {
            let bytes = u64::from(run.count) * u64::from(self.shape.value_bytes);
            recorder.success(now, run.intended, run.count, bytes);
        }
        self.release(flight);
    }

    fn fail(&mut self, flight: Flight, reason: &str, now: Moment, recorder: &mut Recorder) {
        let sequences = flight.first_sequence..flight.first_sequence + u64::from(flight.count);
        self.lanes[flight.lane].ledger.leave_unresolved(sequences);
        for run in &flight.runs {
            recorder.failure(now, run.intended, run.count, reason);
        }
        self.release(flight);
    }

    fn release(&mut self, flight: Flight) {
        self.free += flight.count;
        assert!(self.free <= self.shape.slots, "{} slots are free", self.free);
        let mut runs = flight.runs;
        runs.clear();
        self.spare_runs.push(runs);
    }

    /// When something has to happen without an answer: a batch is due, or an answer overdue.
    #[must_use]
    pub fn next_deadline(&self) -> Moment {
        let linger = match self.listed.front() {
            Some(&index) if !self.shape.linger.is_zero() => {
                self.lanes[index].queued_since.after(self.shape.linger)
            }
            _ => Moment::NEVER,
        };
        linger.min(self.answer_deadline())
    }

    /// True if the oldest answer is overdue.
    #[must_use]
    pub fn is_overdue(&self, now: Moment) -> bool {
        now >= self.answer_deadline()
    }

    fn answer_deadline(&self) -> Moment {
        let oldest = self.in_flight.front();
        oldest.map_or(Moment::NEVER, |flight| flight.sent.after(self.shape.request_timeout))
    }
}

/// Moves the first `count` messages of `queue` to `runs`.
fn take_messages(queue: &mut VecDeque<Run>, count: u32, runs: &mut Vec<Run>) {
    let mut left = count;
    while left > 0 {
        let front = queue.front_mut().expect("the queue has at least so many messages");
        let taken = front.count.min(left);
        runs.push(Run { intended: front.intended, count: taken });
        left -= taken;
        front.count -= taken;
        if front.count == 0 {
            queue.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use chronik_common::Uuid;
    use chronik_protocol::produce::ProduceRequest;
    use chronik_protocol::{ApiKey, FRAME_PREFIX_BYTES, Reader, RequestHeader, RequestPrefix};
    use chronik_record::{BatchHeader, Codec};

    use super::*;
    use crate::arguments::PayloadPattern;
    use crate::batch_template::MessageShape;
    use crate::produce_request::RequestShape;
    use crate::recorder::{Report, Schedule};

    const VERSION: i16 = 9;

    /// Frames as they were sent.
    #[derive(Default)]
    struct Frames(Vec<Vec<u8>>);

    impl FrameSink for Frames {
        fn send(&mut self, request: RequestParts<'_>) {
            self.0.push([request.head, request.batch, request.tail].concat());
        }

        fn has_room(&self) -> bool {
            true
        }
    }

    impl Frames {
        /// Correlation id, partition, batch and its header of each frame.
        fn take(&mut self) -> Vec<(i32, i32, Vec<u8>, BatchHeader)> {
            let read = |frame: Vec<u8>| {
                let payload = &frame[FRAME_PREFIX_BYTES..];
                let prefix = RequestPrefix::decode(payload).unwrap();
                let (_, body) = RequestHeader::decode(payload, ApiKey::Produce, prefix).unwrap();
                let request = ProduceRequest::decode(&mut Reader::new(body), VERSION).unwrap();
                let partition = &request.topic_data[0].partition_data[0];
                let batch = partition.records.as_ref().unwrap().contiguous().into_owned();
                let header = BatchHeader::parse(&batch).unwrap();
                header.verify_crc(&batch).unwrap();
                (prefix.correlation_id, partition.index, batch, header)
            };
            std::mem::take(&mut self.0).into_iter().map(read).collect()
        }
    }

    fn ms(ms: u64) -> Moment {
        Moment(ms * 1_000_000)
    }

    fn recorder() -> (Recorder, Receiver<Report>) {
        let (reports, received) = channel();
        let schedule = Schedule {
            start: ms(0),
            measure_from: ms(0),
            measure_until: Moment::NEVER,
            sample: Duration::from_secs(3_600),
            drain: Duration::ZERO,
        };
        (Recorder::new(0, schedule, ms(0), reports), received)
    }

    fn shape() -> EngineShape {
        EngineShape {
            slots: 8,
            request_messages_max: 4,
            requests_max: 2,
            linger: Duration::ZERO,
            has_answers: true,
            keys: KeyPattern::Random,
            value_bytes: 32,
            request_timeout: Duration::from_secs(1),
            message_timeout: Duration::from_secs(10),
        }
    }

    fn engine(
        shape: EngineShape,
        producer: Option<(i64, i16)>,
        partitions: &[i32],
    ) -> ProducerEngine {
        let request = RequestTemplate::new(&RequestShape {
            version: VERSION,
            topic: "t".to_owned(),
            topic_id: Uuid::ZERO,
            acks: -1,
            timeout_ms: 1_000,
        });
        let (keys, payload) = (shape.keys, PayloadPattern::Zeros);
        let message =
            MessageShape { value_bytes: 32, keys, payload, codec: Codec::None, run: 1, writer: 0 };
        let template = BatchTemplate::new(message, shape.request_messages_max);
        ProducerEngine::new(shape, request.unwrap(), template, producer, (0, partitions))
    }

    fn answer(correlation_id: i32, error_code: ErrorCode, base_offset: i64) -> ProduceAnswer {
        ProduceAnswer { correlation_id, error_code: error_code.code(), base_offset }
    }

    #[test]
    fn tasks_share_requests_up_to_the_bounds_and_are_free_again_after_the_answer() {
        let (mut recorder, received) = recorder();
        let (mut engine, mut frames) = (engine(shape(), None, &[3]), Frames::default());
        engine.offer(ms(1), ms(1), 7);
        engine.pump(ms(1), 0, &mut frames, &mut recorder);
        let sent = frames.take();
        let counts: Vec<_> = sent.iter().map(|(id, p, _, it)| (*id, *p, it.record_count)).collect();
        assert_eq!(counts, [(0, 3, 4), (1, 3, 3)]);
        assert_eq!(engine.free_slots(), 1);
        engine.on_answer(&answer(0, ErrorCode::None, 100), ms(5), &mut recorder).unwrap();
        assert_eq!(engine.free_slots(), 5);
        engine.on_answer(&answer(1, ErrorCode::None, 104), ms(6), &mut recorder).unwrap();
        assert!(engine.is_idle());
        recorder.finish();
        let Ok(Report::Sample { sample, .. }) = received.recv() else { panic!("a sample") };
        assert_eq!((sample.counts.messages, sample.counts.requests), (7, 2));
        let ledger = &engine.into_ledgers()[0];
        assert_eq!((ledger.acknowledged(), ledger.acknowledged_end), (7, 107));
    }

    #[test]
    fn a_batch_lingers_until_it_is_full_or_its_time_is_over() {
        let (mut recorder, _received) = recorder();
        let lingering = EngineShape { linger: Duration::from_millis(5), ..shape() };
        let (mut engine, mut frames) = (engine(lingering, None, &[0]), Frames::default());
        engine.offer(ms(1), ms(1), 3);
        engine.pump(ms(2), 0, &mut frames, &mut recorder);
        assert!(frames.take().is_empty());
        assert_eq!(engine.next_deadline(), ms(6));
        engine.offer(ms(3), ms(3), 1);
        engine.pump(ms(3), 0, &mut frames, &mut recorder);
        assert_eq!(frames.take()[0].3.record_count, 4, "it is full");
        engine.offer(ms(4), ms(4), 1);
        engine.pump(ms(9), 0, &mut frames, &mut recorder);
        assert_eq!(frames.take()[0].3.record_count, 1, "its time is over");
    }

    #[test]
    fn an_idempotent_producer_sends_the_same_bytes_again_in_order() {
        let (mut recorder, received) = recorder();
        let (mut engine, mut frames) = (engine(shape(), Some((9, 0)), &[0]), Frames::default());
        engine.offer(ms(1), ms(1), 8);
        engine.pump(ms(1), 77, &mut frames, &mut recorder);
        let first = frames.take();
        let effect =
            engine.on_answer(&answer(0, ErrorCode::NotEnoughReplicas, -1), ms(2), &mut recorder);
        assert_eq!(effect, Ok(Effect::Reconnect));
        engine.on_disconnect("gone", ms(2), &mut recorder);
        assert_eq!(engine.free_slots(), 0, "they are still under way");
        engine.pump(ms(50), 99, &mut frames, &mut recorder);
        let again = frames.take();
        let batches = |sent: &[(i32, i32, Vec<u8>, BatchHeader)]| {
            sent.iter().map(|(_, _, batch, _)| batch.clone()).collect::<Vec<_>>()
        };
        assert_eq!(batches(&again), batches(&first));
        assert_eq!(again.iter().map(|it| it.3.base_sequence).collect::<Vec<_>>(), [0, 4]);
        for (id, offset) in [(again[0].0, 0), (again[1].0, 4)] {
            engine.on_answer(&answer(id, ErrorCode::None, offset), ms(60), &mut recorder).unwrap();
        }
        recorder.finish();
        let Ok(Report::Sample { sample, .. }) = received.recv() else { panic!("a sample") };
        assert_eq!((sample.counts.messages, sample.counts.failed), (8, 0));
        assert!(sample.latency.max() >= 59_000, "latency counts from the first attempt");
    }

    #[test]
    fn an_idempotent_producer_gives_up_when_the_time_of_a_message_is_over() {
        let (mut recorder, received) = recorder();
        let (mut engine, mut frames) = (engine(shape(), Some((9, 0)), &[0]), Frames::default());
        engine.offer(ms(1), ms(1), 6);
        engine.pump(ms(1), 0, &mut frames, &mut recorder);
        engine.on_disconnect("gone", ms(2), &mut recorder);
        engine.give_up_on_old("gone", ms(9_000), &mut recorder);
        assert!(!engine.has_given_up());
        engine.give_up_on_old("gone", ms(10_002), &mut recorder);
        assert!(engine.has_given_up() && engine.is_idle());
        recorder.finish();
        let Ok(Report::Sample { sample, .. }) = received.recv() else { panic!("a sample") };
        assert_eq!(sample.errors["gone"], 6);
        assert_eq!(engine.into_ledgers()[0].acknowledged(), 0);
    }

    #[test]
    fn without_idempotence_a_lost_message_is_a_failure_with_an_unknown_fate() {
        let (mut recorder, received) = recorder();
        let (mut engine, mut frames) = (engine(shape(), None, &[0]), Frames::default());
        engine.offer(ms(1), ms(1), 4);
        engine.pump(ms(1), 0, &mut frames, &mut recorder);
        engine.on_disconnect("connection reset", ms(9), &mut recorder);
        assert_eq!(engine.free_slots(), 8);
        engine.offer(ms(10), ms(10), 4);
        engine.pump(ms(10), 0, &mut frames, &mut recorder);
        let refused = answer(1, ErrorCode::MessageTooLarge, -1);
        assert_eq!(engine.on_answer(&refused, ms(11), &mut recorder), Ok(Effect::None));
        recorder.finish();
        let Ok(Report::Sample { sample, .. }) = received.recv() else { panic!("a sample") };
        assert_eq!(sample.errors["connection reset"], 4);
        assert_eq!(sample.errors["MESSAGE_TOO_LARGE"], 4);
        let ledger = &engine.into_ledgers()[0];
        assert_eq!((ledger.next_sequence, ledger.acknowledged()), (8, 0));
        assert!(ledger.is_unresolved(0) && ledger.is_unresolved(7));
    }

    #[test]
    fn an_answer_to_another_request_is_an_error() {
        let (mut recorder, _received) = recorder();
        let (mut engine, mut frames) = (engine(shape(), None, &[0]), Frames::default());
        assert!(engine.on_answer(&answer(0, ErrorCode::None, 0), ms(1), &mut recorder).is_err());
        engine.offer(ms(1), ms(1), 1);
        engine.pump(ms(1), 0, &mut frames, &mut recorder);
        assert!(engine.on_answer(&answer(5, ErrorCode::None, 0), ms(1), &mut recorder).is_err());
        assert!(engine.is_overdue(ms(1_001)) && !engine.is_overdue(ms(1_000)));
    }

    #[test]
    fn keys_decide_which_partitions_get_messages() {
        for (keys, partitions) in
            [(KeyPattern::Random, 3), (KeyPattern::Sequential, 3), (KeyPattern::Fixed, 1)]
        {
            let (mut recorder, _received) = recorder();
            let many = EngineShape { slots: 100, requests_max: 100, keys, ..shape() };
            let (mut engine, mut frames) = (engine(many, None, &[0, 1, 2]), Frames::default());
            engine.offer(ms(1), ms(1), 100);
            engine.pump(ms(1), 0, &mut frames, &mut recorder);
            let mut found: Vec<_> = frames.take().iter().map(|it| it.1).collect();
            found.sort_unstable();
            found.dedup();
            assert_eq!(found.len(), partitions, "{keys:?}");
        }
    }
}
