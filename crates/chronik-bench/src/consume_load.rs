//! A reading load from its plan to its result.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};

use chronik_protocol::ApiKey;

use crate::arguments::ClientKind;
use crate::client::{ClientError, Connection};
use crate::clock::RunClock;
use crate::consumer_engine::{ConsumerEngine, ReadPosition, Reading};
use crate::consumer_worker::{Consumer, ConsumerWorker};
use crate::failure::Failure;
use crate::librdkafka;
use crate::pinning::pin_worker;
use crate::plan::Plan;
use crate::produce_load::{Target, probe_of, schedule_of};
use crate::recorder::{Recorder, RecorderEnd, Report, Schedule};
use crate::reporter::{Display, Reporter};
use crate::series::Series;

/// Newest version that asks for topics by name.
const NEWEST_BY_NAME: i16 = 12;

/// Where readers start and end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extent {
    /// From the log start to the log end as it is at the start of the run.
    Backlog,
    /// From the log start, without end.
    Everything,
    /// From the log end as it is at the start of the run, without end.
    Tail,
}

/// Readers, grouped by the thread that drives them.
#[derive(Debug)]
pub struct ConsumeLoad {
    workers: Vec<Crew>,
    /// TCP connections, or clients of librdkafka.
    pub connections: u32,
}

/// The readers of one thread.
#[derive(Debug)]
enum Crew {
    Native(Vec<Consumer>),
    Librdkafka(Box<librdkafka::Consumer>),
}

impl ConsumeLoad {
    /// Decides connections and readers for a plan: each consumer has one connection per leader
    /// and reads every partition.
    ///
    /// # Errors
    /// If a broker cannot be asked or speaks no version that fits.
    pub fn prepare(
        plan: &Plan,
        target: &Target,
        reading: Reading,
        extent: Extent,
    ) -> Result<Self, Failure> {
        let starts = starts(plan, target, extent)?;
        let ends = target.log_ends(plan.request_timeout())?;
        let position = |partition: &i32| ReadPosition {
            partition: *partition,
            next_offset: starts.get(partition).copied().unwrap_or(0),
            target: match extent {
                Extent::Backlog => ends.get(partition).copied().unwrap_or(0),
                Extent::Everything | Extent::Tail => i64::MAX,
            },
        };
        let positions = |partitions: &[i32]| partitions.iter().map(position).collect::<Vec<_>>();
        let consumers = plan.flags.additions.consumers;
        if plan.flags.additions.client == ClientKind::Rdkafka {
            let partitions: Vec<_> = (0..target.topic.partitions.len() as i32).collect();
            let crew = |_| {
                let positions = positions(&partitions);
                let consumer = librdkafka::Consumer::new(plan, &target.topic.name, positions);
                consumer.map(|consumer| Crew::Librdkafka(Box::new(consumer)))
            };
            let workers = (0..consumers).map(crew).collect::<Result<_, _>>()?;
            return Ok(Self { workers, connections: consumers });
        }
        let by_name = target.versions.choose(ApiKey::Fetch, NEWEST_BY_NAME);
        let version = by_name.or_else(|| target.versions.choose(ApiKey::Fetch, i16::MAX));
        let address = plan.flags.bootstrap_servers.clone();
        let version = version.ok_or(ClientError::Unsupported { address, api: ApiKey::Fetch })?;
        let count = plan.workers.min(consumers as usize * target.leaders.len()).max(1);
        let mut workers: Vec<Vec<Consumer>> = (0..count).map(|_| Vec::new()).collect();
        let mut connections = 0;
        for _ in 0..consumers {
            for (leader, partitions) in &target.leaders {
                let topic = (target.topic.name.as_str(), target.topic.id);
                let engine = ConsumerEngine::new(topic, version, reading, positions(partitions));
                let consumer = Consumer { engine, leader: leader.clone() };
                workers[connections as usize % count].push(consumer);
                connections += 1;
            }
        }
        Ok(Self { workers: workers.into_iter().map(Crew::Native).collect(), connections })
    }

    /// Worker threads this load needs.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Connects the readers and starts their threads. With `outlasts_schedule` they read until
    /// `stop` is set.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn start(
        self,
        plan: &Plan,
        (clock, schedule): (RunClock, Schedule),
        (stop, outlasts_schedule): (Arc<AtomicBool>, bool),
        reports: &Sender<Report>,
    ) -> Result<Vec<JoinHandle<Result<RecorderEnd, Failure>>>, Failure> {
        let count = self.workers.len() as u64;
        // In a load that writes as well, the number of messages is that of the writers.
        let budget = match plan.flags.message_count {
            total if total > 0 && !outlasts_schedule => total.div_ceil(count),
            _ => u64::MAX,
        };
        let mut threads = Vec::new();
        for (index, crew) in self.workers.into_iter().enumerate() {
            let (stop, reports) = (Arc::clone(&stop), reports.clone());
            let timeout = plan.request_timeout();
            let pin = plan.flags.additions.pin.clone();
            let thread = thread::Builder::new().name(format!("consumer-{index}"));
            let body = move || -> Result<RecorderEnd, Failure> {
                pin_worker(pin.as_ref(), index)?;
                let recorder = Recorder::new(index, schedule, schedule.start, reports);
                let wait = || thread::sleep(schedule.start.since(clock.now()));
                match crew {
                    Crew::Native(consumers) => {
                        let stop = (stop, outlasts_schedule);
                        let limits = (timeout, budget);
                        let worker =
                            ConsumerWorker::connect(clock, consumers, recorder, stop, limits)?;
                        wait();
                        worker.run()
                    }
                    Crew::Librdkafka(consumer) => {
                        let recorder = (index, recorder);
                        let worker = consumer.connect(clock, recorder, stop, budget)?;
                        wait();
                        worker.run()
                    }
                }
            };
            threads.push(thread.spawn(body).map_err(Failure::system("start a worker thread"))?);
        }
        Ok(threads)
    }
}

fn starts(plan: &Plan, target: &Target, extent: Extent) -> Result<BTreeMap<i32, i64>, ClientError> {
    if extent == Extent::Tail {
        return target.log_ends(plan.request_timeout());
    }
    let mut starts = BTreeMap::new();
    for (leader, partitions) in &target.leaders {
        let leader = std::slice::from_ref(leader);
        let mut connection = Connection::open(leader, plan.request_timeout())?;
        let found = connection.log_starts(&target.topic.name, partitions)?;
        starts.extend(partitions.iter().copied().zip(found));
    }
    Ok(starts)
}

/// Waits for reading threads.
///
/// # Errors
/// The first failure of one of them.
pub fn join_consumers(
    threads: Vec<JoinHandle<Result<RecorderEnd, Failure>>>,
) -> Result<Vec<RecorderEnd>, Failure> {
    threads.into_iter().map(|thread| thread.join().expect("workers do not panic")).collect()
}

/// Runs a reading load alone, from start to end.
///
/// # Errors
/// If it cannot be started, or a connection breaks.
pub fn run_alone(plan: &Plan, load: ConsumeLoad, display: Display) -> Result<Series, Failure> {
    let clock = RunClock::start();
    let schedule = schedule_of(plan, clock, load.connections);
    let (reports, received) = channel();
    let reporter = Reporter::new(load.workers(), schedule, probe_of(plan)?, display);
    let stop = Arc::new(AtomicBool::new(false));
    let threads = load.start(plan, (clock, schedule), (stop, false), &reports)?;
    drop(reports);
    let mut series = reporter.run(&received);
    let ends = join_consumers(threads)?;
    let last = ends.iter().map(|it| it.last_success).max().unwrap_or_default();
    if last < schedule.measure_until {
        series.end_at(last.since(schedule.measure_from));
    }
    Ok(series)
}
