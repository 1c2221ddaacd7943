//! A thread that drives one librdkafka producer.
//!
//! The thread sends until no slot is free, then waits in librdkafka for reports. Each report is
//! taken by a callback on this thread, which at once sends the message that its slot is free for:
//! rust-rdkafka's wait ends by its time only, so nothing else would send meanwhile. One clock
//! reading per message is the end of one, the start of the next, and its timestamp.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};

use super::message_book::MessageBook;
use super::settings::producer_settings;
use super::statistics::RequestCount;
use super::{STOP_CHECK, charged, checked, refused};
use crate::batch_template::MessageShape;
use crate::clock::{Moment, wall_ms};
use crate::failure::Failure;
use crate::plan::Plan;
use crate::produce_load::Target;
use crate::producer_worker::{WorkerContext, WorkerEnd};
use crate::recorder::Recorder;

/// Longest wait for reports while the last ones are awaited.
const DRAIN_STEP: Duration = Duration::from_millis(5);

/// A producer to be connected.
#[derive(Debug)]
pub struct Producer {
    settings: rdkafka::ClientConfig,
    book: MessageBook,
    timeout: Duration,
}

impl Producer {
    /// A producer of messages of `shape` for `tasks` tasks, at most `budget` of them.
    ///
    /// # Errors
    /// If librdkafka refuses a setting.
    pub fn new(
        plan: &Plan,
        target: &Target,
        shape: MessageShape,
        (tasks, budget): (u32, u64),
    ) -> Result<Self, Failure> {
        let slots = tasks.saturating_mul(plan.flags.additions.in_flight);
        Ok(Self {
            settings: checked(producer_settings(plan))?,
            book: MessageBook::new(shape, target.topic.partitions.len(), slots, budget),
            timeout: plan.request_timeout(),
        })
    }

    /// Connects to the brokers. To be called on the thread that goes on with
    /// [`run`](ConnectedProducer::run): librdkafka's own threads inherit its cores.
    ///
    /// # Errors
    /// If librdkafka does not find the topic.
    pub fn connect(
        self,
        worker: WorkerContext,
        (number, recorder): (usize, Recorder),
    ) -> Result<ConnectedProducer, Failure> {
        let state = State {
            book: self.book,
            recorder: charged(recorder, number),
            requests: RequestCount::of("Produce"),
            failure: None,
        };
        let topic = worker.topic.to_string();
        let wall_origin_ms = wall_ms() - worker.clock.now().millis();
        let reports = |client: &Weak<Client>| Reports {
            worker,
            wall_origin_ms,
            client: client.clone(),
            state: Mutex::new(state),
        };
        let create = |client: &Weak<Client>| self.settings.create_with_context(reports(client));
        let client: Arc<Client> = Arc::new_cyclic(create);
        let created = client.as_ref().as_ref().map_err(refused)?;
        let found = created.client().fetch_metadata(Some(&topic), self.timeout);
        found.map_err(|error| refused(&error))?;
        Ok(ConnectedProducer { client })
    }
}

/// The client, or why there is none: a reference to it is needed before it is known.
type Client = KafkaResult<BaseProducer<Reports>>;

/// A producer with its client.
pub struct ConnectedProducer {
    client: Arc<Client>,
}

impl ConnectedProducer {
    /// Runs to the end of the schedule and waits for what is under way.
    #[must_use]
    pub fn run(self) -> WorkerEnd {
        let producer = self.client.as_ref().as_ref().expect("it is connected");
        let reports = Arc::clone(producer.context());
        let schedule = *reports.state().recorder.schedule();
        let drain_until = schedule.measure_until.after(schedule.drain);
        loop {
            let now = reports.worker.clock.now();
            let mut state = reports.state();
            state.recorder.turn(now);
            let step = if reports.is_over(&state, now) {
                if state.book.under_way() == 0 || now >= drain_until {
                    break;
                }
                DRAIN_STEP
            } else {
                reports.send_all(&mut state, producer);
                let end = state.recorder.sample_end().min(schedule.measure_until);
                end.since(now).min(STOP_CHECK)
            };
            drop(state);
            producer.poll(step);
        }
        // What is under way is reported as failed.
        drop(self.client);
        let reports = Arc::into_inner(reports).expect("the client had the only other one");
        let mut state = reports.state.into_inner().expect(UNPOISONED);
        let unreported = state.book.under_way();
        if unreported > 0 {
            let text = || format!("librdkafka did not say what became of {unreported} messages");
            state.failure.get_or_insert_with(text);
        }
        WorkerEnd {
            ledgers: state.book.into_ledgers(),
            recorder: state.recorder.finish(),
            unsent: 0,
            failure: state.failure,
        }
    }
}

const UNPOISONED: &str = "nothing panics while it holds the state";

/// Takes what librdkafka reports.
struct Reports {
    worker: WorkerContext,
    /// Time of the zero of the run's clock, in ms since the Unix epoch.
    wall_origin_ms: i64,
    client: Weak<Client>,
    /// Used on the producer's thread alone; librdkafka's interface cannot know that.
    state: Mutex<State>,
}

struct State {
    book: MessageBook,
    recorder: Recorder,
    requests: RequestCount,
    /// Why nothing can be sent any more.
    failure: Option<String>,
}

impl Reports {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect(UNPOISONED)
    }

    fn is_over(&self, state: &State, now: Moment) -> bool {
        now >= state.recorder.schedule().measure_until
            || state.book.is_spent()
            || state.failure.is_some()
            || self.worker.stop.load(Ordering::Relaxed)
    }

    /// Sends a message for every free slot.
    fn send_all(&self, state: &mut State, producer: &BaseProducer<Self>) {
        while state.book.has_room() && self.send_next(state, producer, self.worker.clock.now()) {}
    }

    /// Sends the next message, if one may be sent; false if none was.
    fn send_next(&self, state: &mut State, producer: &BaseProducer<Self>, now: Moment) -> bool {
        if self.is_over(state, now) || !state.book.has_room() {
            return false;
        }
        let message = state.book.compose(now);
        let record = BaseRecord::with_opaque_to(&self.worker.topic, message.tag)
            .partition(message.partition)
            .timestamp(self.wall_origin_ms + now.millis())
            .key(&message.key)
            .payload(message.value);
        match producer.send(record) {
            Ok(()) => state.book.sent(),
            // There is room again when something is reported.
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => return false,
            Err((error, _)) => state.failure = Some(reason(&error)),
        }
        state.failure.is_none()
    }
}

impl ClientContext for Reports {
    fn stats_raw(&self, statistics: &[u8]) {
        let mut state = self.state();
        let count = state.requests.take(statistics);
        state.recorder.turn(self.worker.clock.now());
        state.recorder.requests(count);
    }

    /// Every message that is lost to an error is reported with it.
    fn error(&self, _: KafkaError, _: &str) {}
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, tag: usize) {
        let now = self.worker.clock.now();
        let mut state = self.state();
        let State { book, recorder, .. } = &mut *state;
        recorder.turn(now);
        match result {
            Ok(message) => {
                book.reported((message.partition(), tag), Ok(message.offset()), now, recorder);
            }
            Err((error, message)) => {
                let reason = reason(error);
                book.reported((message.partition(), tag), Err(&reason), now, recorder);
            }
        }
        if let Some(client) = self.client.upgrade()
            && let Ok(producer) = client.as_ref()
        {
            self.send_next(&mut state, producer, now);
            self.send_all(&mut state, producer);
        }
    }
}

/// An error in librdkafka's words, without those of its wrapper.
fn reason(error: &KafkaError) -> String {
    error.rdkafka_error_code().map_or_else(|| error.to_string(), |code| code.to_string())
}
