//! One block: a fresh server, one load, its figures.
//!
//! Figures are a flat table of numbers with names; which of them counts is in the row.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use chronik_common::Uuid;
use chronik_record::{BatchBuilder, Codec};
use clap::Parser;
use serde_json::{Value, json};

use super::estimate::Timing;
use super::neighbours::{Company, Hogs, SETTINGS, Sizes};
use super::noise::NoiseWatch;
use super::passes::Passes;
use super::rows::{Kind, Neighbour, Row, Variant};
use super::run_figures::{
    Alone, Figures, cost_figures, figures_of, mebibytes, rounded, summary_figures,
};
use super::server::{ServerCommand, SuiteServer, wipe};
use crate::arguments::{Arguments, Durability, Mode};
use crate::client::{Connection, Endpoint, NewTopic, ProducePlan};
use crate::clock::wall_ms;
use crate::failure::Failure;
use crate::floor::run_floor;
use crate::journal_floor::run_journal_floor;
use crate::librdkafka;
use crate::modes::{consume, e2e, produce};
use crate::plan::Plan;
use crate::prometheus::LiveFigures;
use crate::quantity::Cores;
use crate::reporter::Display;
use crate::result::{LatencySummary, RunResult, Summary};
use crate::task_load::{Done, Step, run_tasks};

/// Topic of all loads.
const TOPIC: &str = "suite";

/// Rate of the producer beside a catch-up, in messages of 1,000 bytes per second.
const LIVE_RATE: u64 = 20_000;

/// Load of a backlog: as fast as the server takes it.
const BACKLOG: &str = "--client native -c 4 --connections per-task --in-flight 1000 --linger-ms 2 \
                       --batch-size 65536 --acks 1 -w 0";

/// Longest wait for a first acknowledgement.
const FIRST_ACK_MAX: Duration = Duration::from_secs(60);

/// Longest wait for a connection: a connection request that nobody took is repeated only after a
/// second, which would be measured instead of the server.
const FIRST_ACK_STEP: Duration = Duration::from_millis(100);

/// Warm-up of a floor at most.
pub(crate) const FLOOR_WARMUP_MAX: Duration = Duration::from_millis(250);

/// Idleness that is measured at least: the time between two checkpoints, unless it is a trial.
pub(crate) const IDLE_MIN: Duration = Duration::from_secs(10);

/// Time between the last thing that is asked of an idle server and the measurement: what creating
/// a thousand partitions and connections leaves behind is not idleness.
pub(crate) const IDLE_SETTLE: Duration = Duration::from_secs(3);

/// What a block is run with.
#[derive(Clone, Debug)]
pub(crate) struct Lab {
    /// The server.
    pub binary: PathBuf,
    /// The `chronik` command.
    pub dev_binary: Option<PathBuf>,
    /// Its data.
    pub data: PathBuf,
    /// Durability class of topics.
    pub durability: Durability,
    /// Times of its blocks.
    pub timing: Timing,
    /// Core of the server and core of the client.
    pub split: Option<(usize, usize)>,
}

/// Runs one block of a row and returns it as JSON. `watch` was started before its floors.
pub(crate) fn run(
    lab: &Lab,
    row: &Row,
    variant: &Variant,
    watch: NoiseWatch,
) -> Result<Value, Failure> {
    let started = Instant::now();
    let server = SuiteServer::start(lab.server_command(variant)?)?;
    let words = variant.words(lab.timing.is_small);
    let mut bench = Bench { lab, server, elsewhere: None, words };
    let figures = match variant.kind {
        Kind::Load | Kind::SlowDisk { .. } => bench.load(),
        Kind::HalfOfMaximum => bench.half_of_maximum(),
        Kind::CatchUp { with_live } => bench.catch_up(with_live),
        Kind::TailFetch => bench.tail_fetch(),
        Kind::KillInTheMiddle => bench.kill_in_the_middle(),
        Kind::CreateTopics => bench.create_topics(),
        Kind::Idle => bench.idle(),
        Kind::Restart => bench.restart(),
        Kind::Noisy { hogs } => bench.noisy(hogs),
        Kind::Beside(neighbour) => bench.beside(neighbour, variant),
    }?;
    assert!(figures.contains_key(row.primary), "{} says {}", row.name, row.primary);
    let elsewhere = bench.elsewhere.as_ref().map_or(Duration::ZERO, SuiteServer::cpu);
    let noise = watch.stop((bench.server.cpu() + elsewhere).as_secs_f64());
    drop(bench);
    wipe(&lab.data);
    wipe(&lab.data_elsewhere());
    let figures: BTreeMap<_, _> =
        figures.into_iter().map(|(name, value)| (name, rounded(value))).collect();
    let seconds = rounded(started.elapsed().as_secs_f64());
    Ok(json!({ "figures": figures, "noise": noise, "seconds": seconds }))
}

/// Messages per second of a variant's load against the null broker.
pub(crate) fn floor(lab: &Lab, variant: &Variant, time: Duration) -> Result<f64, Failure> {
    let nobody = Endpoint { host: "127.0.0.1".to_owned(), port: 9 };
    let plan = lab.floor_plan(variant, &nobody, time)?;
    let cores = lab.split.map(|(server, _)| Cores(vec![server]));
    Ok(run_floor(&plan, Display::silent(), cores.as_ref())?.0.total().rate())
}

/// Messages per second of a variant's bytes, written without a broker.
pub(crate) fn journal_floor(lab: &Lab, variant: &Variant, time: Duration) -> Result<f64, Failure> {
    let nobody = Endpoint { host: "127.0.0.1".to_owned(), port: 9 };
    let plan = lab.floor_plan(variant, &nobody, time)?;
    let directory = lab.data.parent().unwrap_or(&lab.data);
    let syncs = lab.durability == Durability::Fsync;
    let series = run_journal_floor(&plan, directory, syncs, Display::silent())?;
    Ok(series.total().rate())
}

impl Lab {
    /// Why a block of a variant cannot be run, if it cannot.
    pub(crate) fn obstacle(&self, variant: &Variant) -> Option<String> {
        if variant.needs_librdkafka() && !librdkafka::IS_BUILT_IN {
            return Some("this build has no librdkafka; it has with --features rdkafka".to_owned());
        }
        match variant.kind {
            Kind::SlowDisk { .. } if self.durability == Durability::Os => {
                Some("os topics do not wait for the disk".to_owned())
            }
            Kind::SlowDisk { .. } if self.dev_binary.is_none() => {
                Some("the `chronik` command is needed; name it with --dev-binary".to_owned())
            }
            Kind::Beside(neighbour) => Sizes::of(neighbour, self.timing.is_small).obstacle(),
            _ => None,
        }
    }

    /// Data of another server beside the one that is measured.
    fn data_elsewhere(&self) -> PathBuf {
        self.data.with_extension("elsewhere")
    }

    fn server_command(&self, variant: &Variant) -> Result<ServerCommand, Failure> {
        if let Some(obstacle) = self.obstacle(variant) {
            return Err(Failure::Usage(obstacle));
        }
        let mut command = ServerCommand {
            binary: self.binary.clone(),
            data: self.data.clone(),
            sync_delay_micros: None,
            core: self.split.map(|(server, _)| server),
            settings: Vec::new(),
        };
        match (variant.kind, &self.dev_binary) {
            (Kind::SlowDisk { delay_micros }, Some(binary)) => {
                command.binary.clone_from(binary);
                command.sync_delay_micros = Some(delay_micros);
            }
            (Kind::Beside(_), _) => command.settings = SETTINGS.to_vec(),
            _ => {}
        }
        Ok(command)
    }

    /// The plan of a variant's load against a floor, which is warm sooner than a server.
    fn floor_plan(
        &self,
        variant: &Variant,
        at: &Endpoint,
        time: Duration,
    ) -> Result<Plan, Failure> {
        let mut plan = self.plan(&variant.words(self.timing.is_small), at, time)?;
        plan.flags.warmup_duration = plan.flags.warmup_duration.min(FLOOR_WARMUP_MAX);
        Ok(plan)
    }

    /// The plan of a command line of words.
    fn plan(&self, words: &[String], at: &Endpoint, time: Duration) -> Result<Plan, Failure> {
        let line = std::iter::once("chronik-bench".to_owned()).chain(words.iter().cloned());
        let parsed = Arguments::try_parse_from(line);
        let mut flags = parsed.map_err(|error| Failure::Usage(error.to_string()))?.load;
        flags.bootstrap_servers = at.to_string();
        flags.topic = TOPIC.to_owned();
        if flags.message_count == 0 {
            flags.duration = Some(time);
        }
        if !words.iter().any(|word| word == "-w") {
            flags.warmup_duration = self.timing.warmup;
        }
        let durability = ("chronik.durability".to_owned(), self.durability.name().to_owned());
        flags.additions.topic_config.push(durability);
        flags.additions.pin = self.split.map(|(_, client)| Cores(vec![client]));
        Plan::new(flags)
    }
}

/// A server under load.
struct Bench<'a> {
    lab: &'a Lab,
    server: SuiteServer,
    /// Another server, for the neighbours.
    elsewhere: Option<SuiteServer>,
    words: Vec<String>,
}

impl Bench<'_> {
    fn plan_of(&self, words: &[String]) -> Result<Plan, Failure> {
        let mut plan = self.lab.plan(words, &self.server.endpoint(), self.lab.timing.block)?;
        plan.flags.additions.pid = i32::try_from(self.server.pid()).ok();
        Ok(plan)
    }

    fn plan(&self) -> Result<Plan, Failure> {
        self.plan_of(&self.words)
    }

    fn load(&self) -> Result<Figures, Failure> {
        let plan = self.plan()?;
        let result = run_load(&plan)?;
        Ok(figures_of(&result))
    }

    /// The open loop at half of what a closed loop with the same reader reaches on the same
    /// server; the slower side counts.
    fn half_of_maximum(&self) -> Result<Figures, Failure> {
        let mut closed = self.plan()?;
        closed.flags.mode = Mode::Mixed;
        closed.duration = Some((self.lab.timing.block / 3).max(Duration::from_secs(1)));
        let found = run_load(&closed)?;
        let read = found.other_side.map_or(f64::INFINITY, |(_, read)| read.messages_per_second);
        let maximum = found.summary.messages_per_second.min(read);
        let mut plan = self.plan()?;
        plan.rate = Some((maximum / 2.0).max(1.0) as u64);
        let mut figures = figures_of(&run_load(&plan)?);
        figures.insert("rate", maximum / 2.0);
        Ok(figures)
    }

    fn backlog(&self) -> Result<(), Failure> {
        let mut words = self.words.clone();
        words.extend(BACKLOG.split_whitespace().map(str::to_owned));
        run_load(&self.plan_of(&words)?).map(|_| ())
    }

    fn catch_up(&self, with_live: bool) -> Result<Figures, Failure> {
        self.backlog()?;
        let stop = Arc::new(AtomicBool::new(false));
        let live = with_live.then(|| self.start_live(&stop)).transpose()?;
        if with_live {
            // The producer's figures are of its whole time, most of it beside the reader.
            thread::sleep(self.lab.timing.warmup);
        }
        let plan = self.reading_plan()?;
        let (probe, cpu) = (self.server.probe()?, self.server.cpu());
        let result = consume::run_with(&plan, Display::silent());
        let (state, cpu) =
            (probe.look().unwrap_or_default(), self.server.cpu().saturating_sub(cpu));
        stop.store(true, Ordering::Relaxed);
        let live = live.map(|thread| thread.join().expect("a load does not panic")).transpose()?;
        let result = result?;
        let mut figures = figures_of(&result);
        // A backlog may be read before the first sample of the server is taken; this look is of
        // the whole time, with the live producer's share.
        let summary = &result.summary;
        let megabytes = summary.megabytes_per_second * summary.seconds;
        figures.extend(cost_figures(&state.since(&state)));
        figures.extend(reading_costs(cpu, (summary.requests, summary.messages, megabytes)));
        if let Some(live) = live {
            figures.insert("live_p99_ms", live.summary.latency.p99_ms);
            figures.insert("live_messages_per_second", live.summary.messages_per_second);
        }
        Ok(figures)
    }

    /// The plan that reads the backlog.
    fn reading_plan(&self) -> Result<Plan, Failure> {
        let mut words = self.words.clone();
        words.extend(["-m", "fetch", "-n", "0"].map(str::to_owned));
        self.plan_of(&words)
    }

    fn tail_fetch(&self) -> Result<Figures, Failure> {
        self.backlog()?;
        let plan = self.reading_plan()?;
        let backlog = self.plan()?.flags.message_count;
        let count = backlog * u64::from(plan.flags.additions.consumers);
        // Reading the backlog back was the warm-up.
        let cpu = self.server.cpu();
        let passes = Passes::during(self.lab.timing.block, &plan, count)?;
        let cpu = self.server.cpu().saturating_sub(cpu);
        let state = self.server.probe()?.look().unwrap_or_default();
        let per_second = |count: f64| crate::series::per(count, passes.reading.as_secs_f64());
        let latency = LatencySummary::of(&passes.latency);
        let mut figures = Figures::from([
            ("megabytes_per_second", per_second(passes.megabytes)),
            ("messages_per_second", per_second(passes.messages as f64)),
            ("requests_per_second", per_second(passes.requests as f64)),
            ("p50_ms", latency.p50_ms),
            ("p99_ms", latency.p99_ms),
        ]);
        figures.extend(cost_figures(&state.since(&state)));
        figures.extend(reading_costs(cpu, (passes.requests, passes.messages, passes.megabytes)));
        Ok(figures)
    }

    /// A paced producer to another topic, until `stop` is set.
    fn start_live(
        &self,
        stop: &Arc<AtomicBool>,
    ) -> Result<thread::JoinHandle<Result<RunResult, Failure>>, Failure> {
        let words = format!("-c 64 -s 1000 --rate {LIVE_RATE} -w 0");
        let words: Vec<_> = words.split_whitespace().map(str::to_owned).collect();
        let mut plan = self.plan_of(&words)?;
        plan.flags.topic = format!("{TOPIC}-live");
        let stop = Arc::clone(stop);
        let run = move || produce::run_with(&plan, Display::silent(), &stop);
        let thread = thread::Builder::new().name("live-load".to_owned()).spawn(run);
        thread.map_err(Failure::system("start a thread"))
    }

    fn kill_in_the_middle(&mut self) -> Result<Figures, Failure> {
        let mut plan = self.plan()?;
        plan.flags.warmup_duration = Duration::ZERO;
        plan.flags.additions.pid = None;
        let half = plan.flags.message_count / 2;
        let progress = LiveFigures::detached();
        let seen = progress.clone();
        let run = move || {
            let display = Display { live: Some(progress), ..Display::silent() };
            produce::run_with(&plan, display, &Arc::default())
        };
        let thread = thread::Builder::new().name("verified-load".to_owned()).spawn(run);
        let thread = thread.map_err(Failure::system("start a thread"))?;
        while seen.messages() < half && !thread.is_finished() {
            thread::sleep(Duration::from_millis(5));
        }
        let killed_at = seen.messages();
        self.server.kill();
        self.server.spawn_again()?;
        let result = thread.join().expect("a load does not panic")?;
        let state = self.server.probe()?.look().unwrap_or_default();
        let mut figures = figures_of(&result);
        figures.extend(cost_figures(&state.since(&state)));
        // Both lives of the server, its recovery and the read back included.
        let cpu = self.server.cpu().as_secs_f64();
        let per_request = crate::series::per(cpu, result.summary.requests as f64) * 1e6;
        figures.insert("server_cpu_micros_per_request", per_request);
        figures.insert("killed_after_messages", killed_at as f64);
        Ok(figures)
    }

    fn create_topics(&self) -> Result<Figures, Failure> {
        let plan = self.plan()?;
        let configs = plan.flags.additions.topic_config.clone();
        let series = run_tasks(&plan, Display::silent(), |task, _| {
            let mut connection = Connection::open(&plan.endpoints, plan.request_timeout())?;
            let configs = configs.clone();
            let mut next = 0_u64;
            let step: Step = Box::new(move |_| {
                next += 1;
                connection.create_topic(&NewTopic {
                    name: format!("{TOPIC}-{task}-{next}"),
                    partitions: 1,
                    replication_factor: 1,
                    configs: configs.clone(),
                })?;
                Ok(Done { count: 1, bytes: 0 })
            });
            Ok(step)
        })?;
        let summary = Summary::of(&series);
        let mut figures = summary_figures(&summary);
        figures.insert("operations_per_second", summary.messages_per_second);
        Ok(figures)
    }

    fn create_topic(&self, plan: &Plan) -> Result<(), Failure> {
        let mut connection = Connection::open(&plan.endpoints, plan.request_timeout())?;
        connection.create_topic(&NewTopic {
            name: TOPIC.to_owned(),
            partitions: plan.flags.partitions,
            replication_factor: 1,
            configs: plan.flags.additions.topic_config.clone(),
        })?;
        Ok(())
    }

    fn idle(&self) -> Result<Figures, Failure> {
        let plan = self.plan()?;
        self.create_topic(&plan)?;
        let connections = (0..plan.flags.concurrency)
            .map(|_| Connection::open(&plan.endpoints, plan.request_timeout()))
            .collect::<Result<Vec<_>, _>>()?;
        let timing = self.lab.timing;
        thread::sleep(if timing.is_small { timing.warmup } else { IDLE_SETTLE });
        let probe = self.server.probe()?;
        let before = probe.look().unwrap_or_default();
        let started = Instant::now();
        let shortest = if timing.is_small { Duration::ZERO } else { IDLE_MIN };
        thread::sleep(timing.block.max(shortest));
        let cost = probe.look().unwrap_or_default().since(&before);
        let seconds = started.elapsed().as_secs_f64();
        drop(connections);
        let mut figures = cost_figures(&cost);
        figures.insert("server_cpu_percent", cost.cpu_seconds / seconds * 100.0);
        figures.insert("ready_ms", self.server.ready_after().as_secs_f64() * 1e3);
        Ok(figures)
    }

    fn restart(&mut self) -> Result<Figures, Failure> {
        self.backlog()?;
        self.server.kill();
        let started = Instant::now();
        self.server.spawn_again()?;
        while self.first_ack().is_err() {
            if started.elapsed() > FIRST_ACK_MAX {
                return Err(Failure::Server("no acknowledgement after the restart".to_owned()));
            }
            thread::sleep(Duration::from_millis(1));
        }
        let first_ack_ms = started.elapsed().as_secs_f64() * 1e3;
        let state = self.server.probe()?.look().unwrap_or_default();
        let mut figures = cost_figures(&state.since(&state));
        figures.insert("first_ack_ms", first_ack_ms);
        Ok(figures)
    }

    fn noisy(&self, hogs: u32) -> Result<Figures, Failure> {
        let plan = self.plan()?;
        let before = run_load(&plan)?;
        let hogs = Hogs::start(hogs)?;
        let beside = run_load(&plan);
        drop(hogs);
        let alone = Alone::of(&before, &run_load(&plan)?);
        let beside = beside?;
        let mut figures = figures_of(&beside);
        alone.compare(&beside, &mut figures);
        Ok(figures)
    }

    /// The load alone, beside a neighbour, and alone again, on the same server.
    fn beside(&mut self, neighbour: Neighbour, variant: &Variant) -> Result<Figures, Failure> {
        if neighbour == Neighbour::BacklogElsewhere {
            let command = self.lab.server_command(variant)?;
            let data = self.lab.data_elsewhere();
            self.elsewhere = Some(SuiteServer::start(ServerCommand { data, ..command })?);
        }
        let probe = self.server.probe()?;
        let base = probe.look().unwrap_or_default().resident_bytes;
        let sizes = Sizes::of(neighbour, self.lab.timing.is_small);
        let mut backlog = self.backlog_plan(&sizes)?;
        if sizes.backlog_messages > 0 {
            run_load(&backlog)?;
            // What the backlog left to be written would fall into the first of the loads.
            rustix::fs::sync();
        }
        let plan = self.plan()?;
        let before = run_load(&plan)?;
        backlog.flags.mode = Mode::Fetch;
        backlog.flags.message_count = 0;
        // Only what the neighbour makes the server hold counts.
        let _ = probe.reset_peak();
        let company = Company::start(&sizes, &backlog)?;
        let beside = run_load(&plan);
        let end = company.stop()?;
        let held = probe.look().unwrap_or_default();
        let alone = Alone::of(&before, &run_load(&plan)?);
        let beside = beside?;
        let mut figures = figures_of(&beside);
        figures.extend(cost_figures(&held.since(&held)));
        alone.compare(&beside, &mut figures);
        let cap = base + sizes.memory_cap(plan.flags.concurrency);
        figures.insert("resident_mebibytes_base", mebibytes(base));
        figures.insert("memory_cap_mebibytes", mebibytes(cap));
        if sizes.slow_consumers > 0 {
            figures.insert("slow_consumers_closed", end.slow_consumers_closed as f64);
            figures.insert("slow_bytes", end.slow_bytes as f64);
        }
        if sizes.is_backlog_read {
            figures.insert("backlog_megabytes_per_second", end.backlog_megabytes_per_second);
        }
        if sizes.idle_connections > 0 {
            figures.insert("idle_connections_alive", end.idle_connections_alive as f64);
            figures.insert("idle_connections_seconds", end.opening_seconds);
        }
        Ok(figures)
    }

    /// Writes the backlog that neighbours read.
    fn backlog_plan(&self, sizes: &Sizes) -> Result<Plan, Failure> {
        let words = format!("{BACKLOG} -s 1000 -n {}", sizes.backlog_messages.max(1));
        let words: Vec<_> = words.split_whitespace().map(str::to_owned).collect();
        let server = self.elsewhere.as_ref().unwrap_or(&self.server);
        let mut plan = self.lab.plan(&words, &server.endpoint(), self.lab.timing.block)?;
        plan.flags.topic = format!("{TOPIC}-backlog");
        Ok(plan)
    }

    /// Stores one message.
    fn first_ack(&self) -> Result<(), Failure> {
        let mut connection = Connection::open(&[self.server.endpoint()], FIRST_ACK_STEP)?;
        // A request that was taken is waited for: giving it up would only measure the next one.
        connection.set_timeout(FIRST_ACK_MAX);
        let mut batch = BatchBuilder::new(Codec::None);
        batch.append(wall_ms(), None, Some(b"first"), &[]);
        let place = ProducePlan {
            topic: TOPIC.to_owned(),
            topic_id: Uuid::ZERO,
            partition: 0,
            acks: -1,
            timeout_ms: 1_000,
        };
        connection.produce(&place, &batch.build())?;
        Ok(())
    }
}

/// What reading cost a server that used `cpu` for so many requests, messages and megabytes.
fn reading_costs(cpu: Duration, (requests, messages, megabytes): (u64, u64, f64)) -> Figures {
    let per = |count: f64| crate::series::per(cpu.as_secs_f64(), count);
    Figures::from([
        ("server_cpu_micros_per_request", per(requests as f64) * 1e6),
        ("server_cpu_micros_per_message", per(messages as f64) * 1e6),
        ("server_cpu_seconds_per_gigabyte", per(megabytes / 1e3)),
    ])
}

fn run_load(plan: &Plan) -> Result<RunResult, Failure> {
    match plan.flags.mode {
        Mode::E2e | Mode::Mixed => e2e::run_with(plan, Display::silent()),
        _ => produce::run_with(plan, Display::silent(), &Arc::default()),
    }
}
