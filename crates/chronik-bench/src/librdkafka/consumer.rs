//! A thread that drives one librdkafka consumer through a backlog.
//!
//! Partitions are assigned with their offsets, so that no coordinator is asked; the group has a
//! name only because librdkafka wants one. Like the native reader it takes every message from the
//! log start to the log end, and offsets must never go back. Checksums are librdkafka's business,
//! which does not compute them by default. librdkafka says nothing of its fetches but their number,
//! so there is no latency.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use super::settings::consumer_settings;
use super::statistics::RequestCount;
use super::{STOP_CHECK, charged, checked, refused};
use crate::clock::RunClock;
use crate::consumer_engine::{ReadError, ReadPosition};
use crate::failure::Failure;
use crate::plan::Plan;
use crate::recorder::{Recorder, RecorderEnd};

/// Messages between two looks at the clock.
const MESSAGES_PER_LOOK: u64 = 64;

/// A consumer to be connected.
#[derive(Debug)]
pub struct Consumer {
    settings: rdkafka::ClientConfig,
    topic: String,
    /// By index of the partition.
    positions: Vec<ReadPosition>,
    timeout: Duration,
}

impl Consumer {
    /// A reader of every partition of a topic, in order of their indexes.
    ///
    /// # Errors
    /// If librdkafka refuses a setting.
    pub fn new(plan: &Plan, topic: &str, positions: Vec<ReadPosition>) -> Result<Self, Failure> {
        let settings = checked(consumer_settings(plan))?;
        let (topic, timeout) = (topic.to_owned(), plan.request_timeout());
        Ok(Self { settings, topic, positions, timeout })
    }

    /// Connects to the brokers. To be called on the thread that goes on with
    /// [`run`](ConnectedConsumer::run): librdkafka's own threads inherit its cores.
    ///
    /// # Errors
    /// If librdkafka does not find the topic.
    pub fn connect(
        self,
        clock: RunClock,
        (number, recorder): (usize, Recorder),
        stop: Arc<AtomicBool>,
        budget: u64,
    ) -> Result<ConnectedConsumer, Failure> {
        let client: BaseConsumer<Fetches> =
            self.settings.create_with_context(Fetches::new()).map_err(|error| refused(&error))?;
        let found = client.fetch_metadata(Some(&self.topic), self.timeout);
        found.map_err(|error| refused(&error))?;
        let recorder = charged(recorder, number);
        let (open, complaint) = (0, None);
        Ok(ConnectedConsumer { plan: self, client, clock, recorder, stop, budget, open, complaint })
    }
}

/// A consumer with its client.
pub struct ConnectedConsumer {
    plan: Consumer,
    client: BaseConsumer<Fetches>,
    clock: RunClock,
    recorder: Recorder,
    /// Set to end the run.
    stop: Arc<AtomicBool>,
    /// Messages still to be read.
    budget: u64,
    /// Partitions that are not at their target.
    open: usize,
    /// What librdkafka complained of last.
    complaint: Option<KafkaError>,
}

/// Messages that were read between two looks at the clock.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    messages: u64,
    bytes: u64,
}

impl ConnectedConsumer {
    /// Reads to the end of the backlog, of the schedule or of the budget.
    ///
    /// # Errors
    /// If offsets go back, or nothing comes for the time of a request.
    pub fn run(mut self) -> Result<RecorderEnd, Failure> {
        let until = self.recorder.schedule().measure_until;
        self.assign()?;
        let mut last_progress = self.clock.now();
        while self.open > 0 && self.budget > 0 && !self.stop.load(Ordering::Relaxed) {
            let Tally { messages, bytes } = self.read_some()?;
            let now = self.clock.now();
            self.recorder.turn(now);
            self.recorder.requests(self.client.context().take());
            if messages > 0 {
                self.recorder.received(now, messages, bytes);
                last_progress = now;
            }
            if now >= until {
                break;
            }
            if now > last_progress.after(self.plan.timeout) {
                let seconds = self.plan.timeout.as_secs_f64();
                let complaint = self.complaint.map_or_else(String::new, |it| format!(": {it}"));
                let text = format!("librdkafka read nothing for {seconds} s{complaint}");
                return Err(Failure::Server(text));
            }
        }
        Ok(self.recorder.finish())
    }

    /// Asks for every partition that has something to read.
    fn assign(&mut self) -> Result<(), Failure> {
        let mut wanted = TopicPartitionList::new();
        for it in self.plan.positions.iter().filter(|it| it.next_offset < it.target) {
            let start = Offset::Offset(it.next_offset);
            let added = wanted.add_partition_offset(&self.plan.topic, it.partition, start);
            added.map_err(|error| refused(&error))?;
        }
        self.open = wanted.count();
        self.client.assign(&wanted).map_err(|error| refused(&error))
    }

    /// Waits for a message and takes up to [`MESSAGES_PER_LOOK`] of those that are there.
    fn read_some(&mut self) -> Result<Tally, Failure> {
        let mut tally = Tally::default();
        while tally.messages < MESSAGES_PER_LOOK && self.open > 0 && self.budget > 0 {
            // A wait costs clock readings even if it does not wait.
            let wait = if tally.messages == 0 { STOP_CHECK } else { Duration::ZERO };
            match self.client.poll(wait) {
                Some(Ok(message)) => {
                    let position = self.plan.positions.get_mut(message.partition() as usize);
                    let Some(position) = position else { continue };
                    if position.next_offset >= position.target {
                        continue;
                    }
                    advance(position, message.offset())?;
                    self.open -= usize::from(position.next_offset >= position.target);
                    self.budget -= 1;
                    tally.messages += 1;
                    tally.bytes += message.payload_len() as u64;
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    // What lies between the last message and the target is for brokers only.
                    let position = self.plan.positions.get_mut(partition as usize);
                    let open = position.filter(|it| it.next_offset < it.target);
                    if let Some(position) = open {
                        position.next_offset = position.target;
                        self.open -= 1;
                    }
                }
                Some(Err(error)) => {
                    self.complaint = Some(error);
                    break;
                }
                None => break,
            }
        }
        Ok(tally)
    }
}

/// Moves a position behind the message at `offset`.
fn advance(position: &mut ReadPosition, offset: i64) -> Result<(), Failure> {
    if offset < position.next_offset {
        let what = format!("it comes behind offset {}", position.next_offset - 1);
        let error = ReadError::Damaged { partition: position.partition, offset, what };
        return Err(Failure::Server(error.to_string()));
    }
    position.next_offset = offset + 1;
    Ok(())
}

/// Counts fetches.
struct Fetches {
    count: Mutex<RequestCount>,
    /// Fetches that were not taken yet.
    new: AtomicU64,
}

impl Fetches {
    fn new() -> Self {
        Self { count: Mutex::new(RequestCount::of("Fetch")), new: AtomicU64::new(0) }
    }

    /// Fetches since the last call.
    fn take(&self) -> u64 {
        if self.new.load(Ordering::Relaxed) == 0 { 0 } else { self.new.swap(0, Ordering::Relaxed) }
    }
}

impl ClientContext for Fetches {
    fn stats_raw(&self, statistics: &[u8]) {
        let mut count = self.count.lock().expect("nothing panics while it counts");
        self.new.fetch_add(count.take(statistics), Ordering::Relaxed);
    }

    /// What matters comes with a poll as well.
    fn error(&self, _: KafkaError, _: &str) {}
}

impl ConsumerContext for Fetches {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_may_jump_ahead_and_never_back() {
        let mut position = ReadPosition { partition: 2, next_offset: 5, target: 9 };
        advance(&mut position, 5).unwrap();
        advance(&mut position, 7).unwrap();
        assert_eq!(position.next_offset, 8);
        let text = advance(&mut position, 7).unwrap_err().to_string();
        assert_eq!(text, "partition 2, offset 7: it comes behind offset 7");
    }
}
