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
mod tests;
