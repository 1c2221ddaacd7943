//! A producing load from its plan to its result: topic, connections, workers, read back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use chronik_common::{ErrorCode, Uuid};
use chronik_protocol::ApiKey;

use crate::arguments::{ClientKind, Connections};
use crate::audit::{Audit, Verdict};
use crate::batch_template::{BatchTemplate, MessageShape};
use crate::client::{
    ClientError, Connection, Endpoint, NEWEST_PRODUCE_BY_NAME, NewTopic, Topic, Versions,
};
use crate::clock::RunClock;
use crate::failure::Failure;
use crate::identity::mix;
use crate::ledger::LaneLedger;
use crate::librdkafka;
use crate::pacer::Pacer;
use crate::pinning::pin_worker;
use crate::plan::{Plan, Surroundings};
use crate::process_probe::ProcessProbe;
use crate::produce_request::{RequestShape, RequestTemplate};
use crate::producer_engine::{EngineShape, ProducerEngine};
use crate::producer_worker::{Producer, ProducerWorker, WorkerContext, WorkerEnd};
use crate::read_back::{ReadBackPlan, read_back};
use crate::recorder::{Recorder, RecorderEnd, Report, Schedule};
use crate::reporter::{Display, Reporter};
use crate::series::Series;

/// Time from the last connection to the start of the load.
const LEAD: Duration = Duration::from_millis(20);

/// Requests under way of an idempotent producer at most: what a broker remembers.
const IDEMPOTENT_REQUESTS_MAX: usize = 5;

/// Requests under way of other producers at most.
const REQUESTS_MAX: usize = 1_000_000;

/// Config of a topic that says its durability class.
const DURABILITY_CONFIG: &str = "chronik.durability";

/// How often the requests of a connection go out while `slots` tasks share it. librdkafka with
/// linger 0 was measured to put 13 messages into a request for 16 tasks, 30 for 64 and 43 for
/// 128 (PERFORMANCE section 1): about 3.8 times the root of the tasks.
#[must_use]
pub fn shared_request_messages(slots: u32) -> u32 {
    const REQUESTS_PER_ROOT: f64 = 0.265;
    let requests = (f64::from(slots).sqrt() * REQUESTS_PER_ROOT).round().max(1.0);
    slots.div_ceil(requests as u32)
}

/// A topic and what is to be known of it before a run.
#[derive(Clone, Debug)]
pub struct Target {
    /// The topic.
    pub topic: Topic,
    /// What its brokers speak.
    pub versions: Versions,
    /// Its durability class: fsync, os, or unknown.
    pub durability: String,
    /// Partitions by leader.
    pub leaders: BTreeMap<Endpoint, Vec<i32>>,
}

/// Makes sure that the topic of a plan exists, and looks at it.
///
/// # Errors
/// If there is no broker, or it refuses.
pub fn prepare_target(plan: &Plan) -> Result<Target, Failure> {
    let flags = &plan.flags;
    let mut connection = Connection::open(&plan.endpoints, plan.request_timeout())?;
    let mut found = connection.topic(&flags.topic)?;
    if found.is_none() {
        if flags.additions.no_create_topic {
            let text =
                format!("topic {} does not exist, and --no-create-topic was given", flags.topic);
            return Err(Failure::Usage(text));
        }
        plan.say(|| format!("creating topic {}", flags.topic));
        connection.create_topic(&NewTopic {
            name: flags.topic.clone(),
            partitions: flags.partitions,
            replication_factor: flags.replication_factor,
            configs: flags.additions.topic_config.clone(),
        })?;
    }
    let deadline = Instant::now() + plan.request_timeout();
    let topic = loop {
        let is_ready = |topic: &Topic| {
            !topic.partitions.is_empty() && topic.partitions.iter().all(|it| it.leader.is_some())
        };
        match found {
            Some(topic) if is_ready(&topic) => break topic,
            _ if Instant::now() > deadline => {
                let text = format!("not every partition of {} has a leader", flags.topic);
                return Err(Failure::Server(text));
            }
            _ => thread::sleep(LEAD),
        }
        found = connection.topic(&flags.topic)?;
    };
    let durability = match connection.topic_config(&flags.topic, DURABILITY_CONFIG) {
        Ok(Some(durability)) => durability,
        // Another broker, or one that does not say.
        Ok(None) | Err(ClientError::Refused { .. } | ClientError::Unsupported { .. }) => {
            "unknown".to_owned()
        }
        Err(error) => return Err(error.into()),
    };
    let mut leaders: BTreeMap<_, Vec<i32>> = BTreeMap::new();
    for partition in &topic.partitions {
        if let Some(leader) = &partition.leader {
            leaders.entry(leader.clone()).or_default().push(partition.index);
        }
    }
    let versions = connection.versions().clone();
    Ok(Target { topic, versions, durability, leaders })
}

impl Target {
    /// What a result says of the topic.
    #[must_use]
    pub fn surroundings(&self, connections: u32, workers: usize) -> Surroundings {
        Surroundings {
            connections,
            workers,
            partitions: self.topic.partitions.len(),
            replication_factor: self.topic.partitions.first().map_or(0, |it| it.replicas),
            durability: self.durability.clone(),
        }
    }

    /// Log ends of all partitions as they are now. A broker may be announced as a leader before it
    /// knows that itself: such refusals are waited out for `timeout`.
    ///
    /// # Errors
    /// If a leader cannot be asked.
    pub fn log_ends(&self, timeout: Duration) -> Result<BTreeMap<i32, i64>, ClientError> {
        let (mut ends, deadline) = (BTreeMap::new(), Instant::now() + timeout);
        for (leader, partitions) in &self.leaders {
            let mut connection = Connection::open(std::slice::from_ref(leader), timeout)?;
            let ask = || connection.log_ends(&self.topic.name, partitions);
            let found = outlast_refusals(deadline, ask)?;
            ends.extend(partitions.iter().copied().zip(found));
        }
        Ok(ends)
    }
}

/// Asks again while the broker refuses for a reason that passes, until `deadline`.
fn outlast_refusals<T>(
    deadline: Instant,
    mut ask: impl FnMut() -> Result<T, ClientError>,
) -> Result<T, ClientError> {
    loop {
        match ask() {
            Err(ClientError::Refused { code, .. })
                if ErrorCode::try_from(code).is_ok_and(ErrorCode::is_retriable)
                    && Instant::now() < deadline =>
            {
                thread::sleep(LEAD);
            }
            answer => return answer,
        }
    }
}

/// Producers that are connected and wait for the start.
#[derive(Debug)]
pub struct ProduceLoad {
    shape: MessageShape,
    /// Log ends before the load.
    starts: BTreeMap<i32, i64>,
    workers: Vec<Crew>,
    /// TCP connections, or clients of librdkafka.
    pub connections: u32,
}

/// The producers of one thread.
#[derive(Debug)]
enum Crew {
    Native(Vec<Producer>),
    Librdkafka(Box<librdkafka::Producer>),
}

/// What a load left.
#[derive(Debug)]
pub struct LoadEnd {
    /// What was acknowledged.
    pub ledgers: Vec<LaneLedger>,
    /// Ends of the recorders.
    pub recorders: Vec<RecorderEnd>,
    /// Messages of an open loop that were never sent.
    pub unsent: u64,
    /// Why a producer could not go on.
    pub failure: Option<String>,
}

impl ProduceLoad {
    /// Decides connections and producers for a plan.
    ///
    /// # Errors
    /// If a broker cannot be asked or speaks no version that fits.
    pub fn prepare(plan: &Plan, target: &Target) -> Result<Self, Failure> {
        let starts = if plan.is_verified {
            target.log_ends(plan.request_timeout())?
        } else {
            BTreeMap::new()
        };
        let flags = &plan.flags;
        let client = flags.additions.client;
        let wanted = match flags.additions.connections {
            // A client of librdkafka connects to every leader.
            Connections::Shared if client == ClientKind::Rdkafka => 1,
            Connections::Shared => target.leaders.len() as u32,
            Connections::PerTask => flags.concurrency,
            Connections::Count(count) => count,
        };
        let connections = wanted.min(flags.concurrency);
        let run = mix(chronik_common::Rng::next_u64(&mut chronik_common::OsRng)) as u32;
        let shape = MessageShape {
            value_bytes: flags.message_size as usize,
            keys: flags.key_pattern,
            payload: flags.payload_pattern,
            codec: flags.compression,
            run,
            writer: 0,
        };
        let workers = match client {
            ClientKind::Native => native_crews(plan, target, shape, connections)?,
            ClientKind::Rdkafka => librdkafka_crews(plan, target, shape, connections)?,
        };
        Ok(Self { shape, starts, workers, connections })
    }

    /// Worker threads this load needs.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// What its messages look like.
    #[must_use]
    pub fn shape(&self) -> MessageShape {
        self.shape
    }

    /// Log ends before the load.
    #[must_use]
    pub fn starts(&self) -> &BTreeMap<i32, i64> {
        &self.starts
    }

    /// Connects the producers and starts their threads; workers are numbered from `first` on.
    ///
    /// # Errors
    /// If a producer cannot connect or a thread cannot be started.
    pub fn start(
        self,
        plan: &Plan,
        context: &WorkerContext,
        schedule: Schedule,
        first: usize,
        reports: &Sender<Report>,
    ) -> Result<Vec<thread::JoinHandle<Result<WorkerEnd, Failure>>>, Failure> {
        let total = f64::from(self.connections);
        let mut threads = Vec::new();
        for (index, crew) in self.workers.into_iter().enumerate() {
            let number = first + index;
            let context = context.clone();
            let reports = reports.clone();
            let part = crew.connections() / total;
            let arrival = plan.flags.additions.arrival;
            let pacer = plan
                .rate
                .map(|rate| Pacer::new(rate as f64 * part, arrival, schedule.start, number as u64));
            let timeout = plan.request_timeout();
            let pin = plan.flags.additions.pin.clone();
            let thread = thread::Builder::new().name(format!("producer-{index}"));
            let body = move || -> Result<WorkerEnd, Failure> {
                pin_worker(pin.as_ref(), number)?;
                let recorder = Recorder::new(number, schedule, schedule.start, reports);
                let clock = context.clock;
                let wait = || thread::sleep(schedule.start.since(clock.now()));
                match crew {
                    Crew::Native(producers) => {
                        let worker =
                            ProducerWorker::connect(context, producers, recorder, pacer, timeout)?;
                        wait();
                        worker.run().map_err(Failure::system("wait for sockets"))
                    }
                    Crew::Librdkafka(producer) => {
                        let worker = producer.connect(context, (number, recorder))?;
                        wait();
                        Ok(worker.run())
                    }
                }
            };
            threads.push(thread.spawn(body).map_err(Failure::system("start a worker thread"))?);
        }
        Ok(threads)
    }
}

impl Crew {
    /// Its part of the connections of a load.
    fn connections(&self) -> f64 {
        match self {
            Self::Native(producers) => producers.len() as f64,
            Self::Librdkafka(_) => 1.0,
        }
    }
}

/// Producers with a connection each, dealt out to the threads of a plan.
fn native_crews(
    plan: &Plan,
    target: &Target,
    shape: MessageShape,
    connections: u32,
) -> Result<Vec<Crew>, Failure> {
    let leaders: Vec<_> = target.leaders.iter().collect();
    let request = request_shape(plan, target)?;
    let count = plan.workers.min(connections as usize);
    let mut workers: Vec<Vec<Producer>> = (0..count).map(|_| Vec::new()).collect();
    let mut identities = plan
        .is_idempotent
        .then(|| Connection::open(&plan.endpoints, plan.request_timeout()))
        .transpose()?;
    for writer in 0..connections {
        let (leader, partitions) = leaders[writer as usize % leaders.len()];
        let (tasks, budget) = part_of(plan, connections, writer);
        let engine_shape = engine_shape(plan, &shape, tasks);
        let template =
            BatchTemplate::new(MessageShape { writer, ..shape }, engine_shape.request_messages_max);
        let producer = match &mut identities {
            Some(connection) => Some(connection.init_producer_id()?),
            None => None,
        };
        let request = RequestTemplate::new(&request).map_err(ClientError::from)?;
        let engine =
            ProducerEngine::new(engine_shape, request, template, producer, (writer, partitions));
        let leader = leader.clone();
        workers[writer as usize % count].push(Producer { engine, leader, budget });
    }
    Ok(workers.into_iter().map(Crew::Native).collect())
}

/// One thread per client, each of which writes to every partition.
fn librdkafka_crews(
    plan: &Plan,
    target: &Target,
    shape: MessageShape,
    clients: u32,
) -> Result<Vec<Crew>, Failure> {
    let crew = |writer: u32| {
        let (shape, part) = (MessageShape { writer, ..shape }, part_of(plan, clients, writer));
        let producer = librdkafka::Producer::new(plan, target, shape, part);
        producer.map(|producer| Crew::Librdkafka(Box::new(producer)))
    };
    (0..clients).map(crew).collect()
}

/// Tasks of connection `writer`, and messages that it may send.
fn part_of(plan: &Plan, connections: u32, writer: u32) -> (u32, u64) {
    let tasks = share(u64::from(plan.flags.concurrency), connections, writer) as u32;
    let budget = match plan.flags.message_count {
        0 => u64::MAX,
        total => share(total, connections, writer),
    };
    (tasks, budget)
}

/// Waits for worker threads.
///
/// # Errors
/// The first failure of one of them.
pub fn join_workers(
    threads: Vec<thread::JoinHandle<Result<WorkerEnd, Failure>>>,
) -> Result<LoadEnd, Failure> {
    let mut end = LoadEnd { ledgers: Vec::new(), recorders: Vec::new(), unsent: 0, failure: None };
    for thread in threads {
        let worker = thread.join().expect("workers do not panic")?;
        end.ledgers.extend(worker.ledgers);
        end.recorders.push(worker.recorder);
        end.unsent += worker.unsent;
        end.failure = end.failure.or(worker.failure);
    }
    Ok(end)
}

/// The schedule of a plan that starts soon.
#[must_use]
pub fn schedule_of(plan: &Plan, clock: RunClock, connections: u32) -> Schedule {
    // Workers connect one after the other before they start.
    let start = clock.now().after(LEAD + Duration::from_micros(300) * connections);
    let measure_from = start.after(plan.flags.warmup_duration);
    let never = crate::clock::Moment::NEVER;
    Schedule {
        start,
        measure_from,
        measure_until: plan.duration.map_or(never, |duration| measure_from.after(duration)),
        sample: plan.sample(),
        drain: plan.request_timeout(),
    }
}

/// Runs a producing load alone, from start to end.
///
/// # Errors
/// If it cannot be started.
pub fn run_alone(
    plan: &Plan,
    target: &Target,
    load: ProduceLoad,
    display: Display,
    stop: &Arc<AtomicBool>,
) -> Result<(Series, LoadEnd, Schedule), Failure> {
    let clock = RunClock::start();
    let context = WorkerContext {
        clock,
        bootstrap: Arc::new(plan.endpoints.clone()),
        topic: Arc::from(target.topic.name.as_str()),
        stop: Arc::clone(stop),
    };
    let schedule = schedule_of(plan, clock, load.connections);
    let (reports, received) = channel();
    let probe = probe_of(plan)?;
    let reporter = Reporter::new(load.workers(), schedule, probe, display);
    let threads = load.start(plan, &context, schedule, 0, &reports)?;
    drop(reports);
    let mut series = reporter.run(&received);
    let end = join_workers(threads)?;
    if plan.duration.is_none() || stop.load(Ordering::Relaxed) {
        let last = end.recorders.iter().map(|it| it.last_success).max().unwrap_or_default();
        series.end_at(last.since(schedule.measure_from));
    }
    Ok((series, end, schedule))
}

/// The probe of the broker's process, if one was named.
///
/// # Errors
/// If it cannot be looked at.
pub fn probe_of(plan: &Plan) -> Result<Option<ProcessProbe>, Failure> {
    let Some(pid) = plan.flags.additions.pid else { return Ok(None) };
    let probe = u32::try_from(pid).ok().and_then(ProcessProbe::of);
    probe.map(Some).ok_or_else(|| Failure::Usage(format!("--pid {pid}: there is no such process")))
}

/// Reads back what a load wrote.
///
/// # Errors
/// If the brokers cannot be asked.
pub fn verify(
    plan: &Plan,
    target: &Target,
    shape: MessageShape,
    starts: &BTreeMap<i32, i64>,
    ledgers: Vec<LaneLedger>,
) -> Result<Verdict, Failure> {
    plan.say(|| "reading back".to_owned());
    let is_acknowledged = plan.acks() != 0;
    let mut acknowledged_ends: BTreeMap<i32, i64> = BTreeMap::new();
    for ledger in &ledgers {
        let end = acknowledged_ends.entry(ledger.partition).or_default();
        *end = (*end).max(ledger.acknowledged_end);
    }
    let sent: u64 = ledgers.iter().map(LaneLedger::acknowledged).sum();
    let read = ReadBackPlan {
        topic: target.topic.name.clone(),
        topic_id: target.topic.id,
        partitions: target.leaders.clone(),
        starts: starts.clone(),
        acknowledged_ends,
        unacknowledged_messages: if is_acknowledged { 0 } else { sent },
        timeout: plan.request_timeout(),
    };
    Ok(read_back(&read, Audit::new(shape, ledgers, is_acknowledged))?)
}

fn request_shape(plan: &Plan, target: &Target) -> Result<RequestShape, Failure> {
    let by_name = target.versions.choose(ApiKey::Produce, NEWEST_PRODUCE_BY_NAME);
    let version = by_name.or_else(|| target.versions.choose(ApiKey::Produce, i16::MAX));
    let address = plan.flags.bootstrap_servers.clone();
    let unsupported = ClientError::Unsupported { address, api: ApiKey::Produce };
    let version = version.ok_or(unsupported)?;
    if version > NEWEST_PRODUCE_BY_NAME && target.topic.id == Uuid::ZERO {
        return Err(Failure::Server("the broker asks for topic ids and gives none".to_owned()));
    }
    Ok(RequestShape {
        version,
        topic: target.topic.name.clone(),
        topic_id: target.topic.id,
        acks: plan.acks(),
        timeout_ms: i32::try_from(plan.flags.request_timeout_ms).unwrap_or(i32::MAX),
    })
}

fn engine_shape(plan: &Plan, shape: &MessageShape, tasks: u32) -> EngineShape {
    let flags = &plan.flags;
    let slots = tasks.saturating_mul(flags.additions.in_flight);
    let within = BatchTemplate::messages_within(*shape, flags.batch_size as usize);
    let request_messages_max = if !plan.shares_requests() {
        1
    } else if flags.linger_ms == 0 {
        shared_request_messages(slots).min(within)
    } else {
        slots.min(within)
    };
    EngineShape {
        slots,
        request_messages_max,
        requests_max: if plan.is_idempotent { IDEMPOTENT_REQUESTS_MAX } else { REQUESTS_MAX },
        linger: Duration::from_millis(flags.linger_ms),
        has_answers: plan.acks() != 0,
        keys: flags.key_pattern,
        value_bytes: flags.message_size,
        request_timeout: plan.request_timeout(),
        message_timeout: Duration::from_millis(flags.message_timeout_ms),
    }
}

/// Part `index` of `total` in `parts` parts that differ by 1 at most.
fn share(total: u64, parts: u32, index: u32) -> u64 {
    total / u64::from(parts) + u64::from(u64::from(index) < total % u64::from(parts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_share_requests_as_librdkafka_was_measured_to() {
        // Tasks, and the range that was measured.
        for (tasks, range) in [(1, 1..=1), (16, 11..=16), (64, 28..=32), (128, 42..=44)] {
            let messages = shared_request_messages(tasks);
            assert!(range.contains(&messages), "{messages} for {tasks} tasks");
        }
    }

    #[test]
    fn a_leader_that_does_not_know_it_yet_is_asked_again() {
        let refuse = |error: ErrorCode| {
            let (action, code) = ("list the offsets of a topic".to_owned(), error.code());
            Err(ClientError::Refused { action, code, message: None })
        };
        let ask_with_deadline = |deadline: Instant, error: ErrorCode| {
            let mut asked = 0;
            let answer = outlast_refusals(deadline, || {
                asked += 1;
                if asked < 3 { refuse(error) } else { Ok(asked) }
            });
            (answer.is_ok(), asked)
        };
        let later = Instant::now() + Duration::from_secs(60);
        assert_eq!(ask_with_deadline(later, ErrorCode::NotLeaderOrFollower), (true, 3));
        assert_eq!(ask_with_deadline(later, ErrorCode::TopicAuthorizationFailed), (false, 1));
        assert_eq!(ask_with_deadline(Instant::now(), ErrorCode::NotLeaderOrFollower), (false, 1));
    }

    #[test]
    fn shares_differ_by_one_and_add_up() {
        for (total, parts) in [(64, 64), (65, 64), (7, 3), (2, 5)] {
            let shares: Vec<_> = (0..parts).map(|index| share(total, parts, index)).collect();
            assert_eq!(shares.iter().sum::<u64>(), total);
            assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
        }
    }
}
