//! What a run does, decided once from the command line: everything that does not fit together is
//! refused here, with the sentence that the user reads.

use std::time::Duration;

use chronik_record::Codec;
use serde::Serialize;

use crate::arguments::{
    ClientKind, Connections, KeyPattern, LoadArguments, Mode, OutputForm, PayloadPattern,
};
use crate::client::Endpoint;
use crate::failure::Failure;
use crate::identity::Identity;
use crate::librdkafka;

/// Measured time without --duration, as in the original tool.
const DURATION_DEFAULT: Duration = Duration::from_secs(60);

/// Longest sample of the measured time.
const SAMPLE_MAX: Duration = Duration::from_secs(1);

/// Sample of a run that ends by its number of messages.
const COUNTED_SAMPLE: Duration = Duration::from_millis(100);

/// Samples that a short measured time is cut into, for its picture.
const SAMPLES_WANTED: u32 = 40;

/// Shortest sample.
const SAMPLE_MIN: Duration = Duration::from_millis(50);

/// Clients of librdkafka in one run at most: each has three threads or more.
const LIBRDKAFKA_CLIENTS_MAX: u32 = 256;

/// Messages that librdkafka has under way at most.
const LIBRDKAFKA_SLOTS_MAX: u64 = 10_000_000;

/// How load is compared with that of other tools (see docs/benchmarks).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum LoadClass {
    /// One message per request.
    S,
    /// Tasks share the requests of a connection, without waiting.
    M,
    /// Batches that wait for more.
    B,
}

/// A run that fits together.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The command line.
    pub flags: LoadArguments,
    /// Where the cluster is.
    pub endpoints: Vec<Endpoint>,
    /// Measured time; `None` if the number of messages ends the run.
    pub duration: Option<Duration>,
    /// Messages per second of an open loop.
    pub rate: Option<u64>,
    /// True if what is written is read back.
    pub is_verified: bool,
    /// True if producers are idempotent.
    pub is_idempotent: bool,
    /// Worker threads at most.
    pub workers: usize,
}

impl Plan {
    /// Decides what a command line asks for.
    ///
    /// # Errors
    /// [`Failure::Usage`] with one sentence.
    pub fn new(flags: LoadArguments) -> Result<Self, Failure> {
        let usage = |text: String| Err(Failure::Usage(text));
        let more = &flags.additions;
        if more.client == ClientKind::Rdkafka
            && let Some(reason) = librdkafka_obstacle(&flags)
        {
            return usage(format!("--client rdkafka: {reason}"));
        }
        if let Some(group) = &flags.consumer_group {
            return usage(format!(
                "--consumer-group {group}: consumers of this tool read every partition without a \
                 group; leave it out"
            ));
        }
        if flags.rate_limit > 0 && more.rate > 0 && flags.rate_limit != more.rate {
            return usage("--rate-limit and --rate are the same; give one of them".to_owned());
        }
        let rate = Some(flags.rate_limit.max(more.rate)).filter(|rate| *rate > 0);
        let endpoints = Endpoint::list(&flags.bootstrap_servers)
            .map_err(|reason| Failure::Usage(format!("--bootstrap-servers: {reason}")))?;
        let is_audit = matches!(flags.mode, Mode::Verify | Mode::Failover);
        let is_verified = !more.no_validate;
        let has_identities = matches!(flags.mode, Mode::E2e | Mode::RoundTrip) || is_verified;
        let writes = writes(flags.mode);
        if writes && has_identities && (flags.message_size as usize) < Identity::SIZE {
            return usage(format!(
                "--message-size {}: a message that can be verified has at least {} bytes; use \
                 --no-validate for smaller ones",
                flags.message_size,
                Identity::SIZE
            ));
        }
        if is_audit && more.no_validate {
            return usage("--no-validate contradicts the modes verify and failover".to_owned());
        }
        let is_idempotent = more.idempotence || is_audit;
        if is_idempotent && flags.acks.is_some_and(|acks| acks.0 != -1) {
            return usage("idempotent producers need --acks all; leave --acks out".to_owned());
        }
        if rate.is_some() && !paced(flags.mode) {
            return usage(format!("--rate does nothing in mode {}", name(flags.mode)));
        }
        let is_counted = flags.message_count > 0;
        let duration = flags.duration.or((!is_counted).then_some(DURATION_DEFAULT));
        if duration.is_some_and(|it| it.is_zero()) && !is_counted {
            return usage("--duration 0: give a time, or --message-count".to_owned());
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = more.workers.map_or((cores / 2).max(1), usize::from);
        Ok(Self { endpoints, duration, rate, is_verified, is_idempotent, workers, flags })
    }

    /// Acknowledgements: idempotent producers need all of them.
    #[must_use]
    pub fn acks(&self) -> i16 {
        self.flags.acks.map_or(if self.is_idempotent { -1 } else { 1 }, |acks| acks.0)
    }

    /// True if the tasks of a connection share requests.
    #[must_use]
    pub fn shares_requests(&self) -> bool {
        self.flags.additions.connections != Connections::PerTask || self.flags.linger_ms > 0
    }

    /// How the load compares.
    #[must_use]
    pub fn class(&self) -> LoadClass {
        if self.flags.linger_ms > 0 {
            LoadClass::B
        } else if self.shares_requests() {
            LoadClass::M
        } else {
            LoadClass::S
        }
    }

    /// Length of a sample: a whole part of the report interval, short for short runs.
    #[must_use]
    pub fn sample(&self) -> Duration {
        let interval = Duration::from_secs(self.flags.report_interval_secs);
        let measured = self.duration.unwrap_or(COUNTED_SAMPLE * SAMPLES_WANTED);
        let wanted = (measured / SAMPLES_WANTED).clamp(SAMPLE_MIN, SAMPLE_MAX);
        let parts = interval.as_nanos().div_ceil(wanted.as_nanos()).max(1);
        interval / u32::try_from(parts).unwrap_or(u32::MAX)
    }

    /// Longest wait for an answer.
    #[must_use]
    pub fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.flags.request_timeout_ms)
    }

    /// True if the final figures are printed as text, so that the live table may be as well.
    #[must_use]
    pub fn prints_text(&self) -> bool {
        let json_on_stdout = self.flags.json_output.as_deref() == Some(std::path::Path::new("-"));
        self.flags.additions.output == OutputForm::Text && !json_on_stdout
    }

    /// Says on standard error what is being done, if that was asked for.
    pub fn say(&self, text: impl FnOnce() -> String) {
        use std::io::Write;
        if self.flags.verbose {
            let _ = writeln!(std::io::stderr().lock(), "{}", text());
        }
    }
}

/// Why librdkafka cannot follow a command line, if it cannot.
fn librdkafka_obstacle(flags: &LoadArguments) -> Option<String> {
    let more = &flags.additions;
    let clients = match (flags.mode, more.connections) {
        (Mode::Consume | Mode::Fetch, _) => more.consumers,
        (_, Connections::Shared) => 1,
        (_, Connections::PerTask) => flags.concurrency,
        (_, Connections::Count(count)) => count.min(flags.concurrency),
    };
    let is_known = matches!(flags.compression, Codec::None | Codec::Snappy | Codec::Lz4);
    let slots = u64::from(flags.concurrency) * u64::from(more.in_flight);
    let obstacles = [
        (
            !librdkafka::IS_BUILT_IN,
            "this build has no librdkafka; build one with `cargo build --release -p chronik-bench \
             --features rdkafka`, or use --client native"
                .to_owned(),
        ),
        (
            !matches!(flags.mode, Mode::Produce | Mode::Consume | Mode::Fetch),
            format!("mode {} is for --client native", name(flags.mode)),
        ),
        (
            flags.rate_limit.max(more.rate) > 0,
            "an open loop (--rate) is for --client native".to_owned(),
        ),
        (more.follow, "--follow is for --client native".to_owned()),
        (more.headroom, "--headroom is for --client native".to_owned()),
        (more.workers.is_some(), "--workers does nothing: each client has a thread".to_owned()),
        (!is_known, format!("it has no {} in this build", flags.compression.name())),
        (
            clients > LIBRDKAFKA_CLIENTS_MAX,
            format!("{clients} clients are more than {LIBRDKAFKA_CLIENTS_MAX}"),
        ),
        (
            slots > LIBRDKAFKA_SLOTS_MAX,
            format!("{slots} messages in flight are more than {LIBRDKAFKA_SLOTS_MAX}"),
        ),
    ];
    obstacles.into_iter().find_map(|(is_there, reason)| is_there.then_some(reason))
}

/// The mode as it is typed.
#[must_use]
pub fn name(mode: Mode) -> &'static str {
    match mode {
        Mode::Produce => "produce",
        Mode::Consume => "consume",
        Mode::RoundTrip => "round-trip",
        Mode::Metadata => "metadata",
        Mode::E2e => "e2e",
        Mode::Fetch => "fetch",
        Mode::Mixed => "mixed",
        Mode::Verify => "verify",
        Mode::Failover => "failover",
        Mode::Floor => "floor",
        Mode::JournalFloor => "journal-floor",
    }
}

fn writes(mode: Mode) -> bool {
    !matches!(mode, Mode::Consume | Mode::Fetch | Mode::Metadata | Mode::JournalFloor)
}

fn paced(mode: Mode) -> bool {
    matches!(
        mode,
        Mode::Produce | Mode::E2e | Mode::Mixed | Mode::Verify | Mode::Failover | Mode::Floor
    )
}

/// The command line as it is kept with a result.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Configuration {
    mode: &'static str,
    class: LoadClass,
    loop_kind: &'static str,
    topic: String,
    concurrency: u32,
    in_flight: u32,
    connections: u32,
    consumers: u32,
    workers: usize,
    message_bytes: u32,
    batch_bytes: u32,
    linger_ms: u64,
    compression: &'static str,
    keys: &'static str,
    payload: &'static str,
    acks: i16,
    is_idempotent: bool,
    partitions: usize,
    replication_factor: usize,
    durability: String,
    rate: Option<u64>,
    duration_seconds: Option<f64>,
    warmup_seconds: f64,
    message_count: u64,
    client: &'static str,
    /// Version of a client that is not this tool.
    client_version: Option<String>,
}

/// What the configuration of a result needs besides the plan.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Surroundings {
    /// TCP connections that were used.
    pub connections: u32,
    /// Worker threads that were used.
    pub workers: usize,
    /// Partitions of the topic.
    pub partitions: usize,
    /// Replicas of each.
    pub replication_factor: usize,
    /// Durability class of the topic: fsync, os, or unknown.
    pub durability: String,
}

impl Configuration {
    /// The configuration of a run.
    #[must_use]
    pub fn of(plan: &Plan, around: &Surroundings) -> Self {
        let flags = &plan.flags;
        Self {
            mode: name(flags.mode),
            class: plan.class(),
            loop_kind: if plan.rate.is_some() { "open" } else { "closed" },
            topic: flags.topic.clone(),
            concurrency: flags.concurrency,
            in_flight: flags.additions.in_flight,
            connections: around.connections,
            consumers: flags.additions.consumers,
            workers: around.workers,
            message_bytes: flags.message_size,
            batch_bytes: flags.batch_size,
            linger_ms: flags.linger_ms,
            compression: flags.compression.name(),
            keys: match flags.key_pattern {
                KeyPattern::Random => "random",
                KeyPattern::Sequential => "sequential",
                KeyPattern::Fixed => "fixed",
            },
            payload: match flags.payload_pattern {
                PayloadPattern::Random => "random",
                PayloadPattern::Zeros => "zeros",
                PayloadPattern::Text => "text",
            },
            acks: plan.acks(),
            is_idempotent: plan.is_idempotent,
            partitions: around.partitions,
            replication_factor: around.replication_factor,
            durability: around.durability.clone(),
            rate: plan.rate,
            duration_seconds: plan.duration.map(|it| it.as_secs_f64()),
            warmup_seconds: flags.warmup_duration.as_secs_f64(),
            message_count: flags.message_count,
            client: flags.additions.client.name(),
            client_version: match flags.additions.client {
                ClientKind::Native => None,
                ClientKind::Rdkafka => librdkafka::version(),
            },
        }
    }

    /// What the figures belong to, on one line.
    #[must_use]
    pub fn shape_line(&self) -> String {
        let mut parts = vec![self.mode.to_owned()];
        let mut part = |text: String| parts.push(text);
        if let Some(version) = &self.client_version {
            part(format!("client librdkafka {version}"));
        }
        if self.partitions > 0 {
            part(format!("{} partitions x {} replicas", self.partitions, self.replication_factor));
        }
        part(format!("durability {}", self.durability));
        if self.reads_only() {
            part(format!("{} consumers", self.consumers));
            part(format!("{} connections", self.connections));
            return parts.join(", ");
        }
        part(format!("class {:?}", self.class));
        part(if self.acks == -1 { "acks all".to_owned() } else { format!("acks {}", self.acks) });
        part(format!("{} connections", self.connections));
        part(format!("{} tasks x {} in flight", self.concurrency, self.in_flight));
        part(format!("{} B messages", self.message_bytes));
        part(format!("batches to {} B", self.batch_bytes));
        part(format!("linger {} ms", self.linger_ms));
        part(format!("{} loop", self.loop_kind));
        parts.join(", ")
    }

    fn reads_only(&self) -> bool {
        matches!(self.mode, "consume" | "fetch")
    }

    /// What the latencies are called: those of a closed loop say so.
    #[must_use]
    pub fn latency_label(&self) -> &'static str {
        match (self.mode, self.loop_kind) {
            ("consume" | "fetch", _) => "latency of a fetch",
            ("e2e", _) => "latency, end to end",
            (_, "open") => "latency (open loop)",
            _ => "latency (closed loop)",
        }
    }

    /// What is said of figures that nothing was read back for.
    #[must_use]
    pub fn unverified_label(&self) -> &'static str {
        match self.mode {
            "produce" | "mixed" | "e2e" => "NOT READ BACK: the figures are not verified",
            "floor" | "journal-floor" => "nothing to read back: a floor stores nothing for readers",
            _ => "nothing was written",
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use clap::Parser;

    use super::*;
    use crate::arguments::Arguments;

    fn try_plan(line: &[&str]) -> Result<Plan, String> {
        let line = std::iter::once("chronik-bench").chain(line.iter().copied());
        let arguments = Arguments::try_parse_from(line).map_err(|error| error.to_string())?;
        Plan::new(arguments.load).map_err(|failure| failure.to_string())
    }

    pub(crate) fn plan(line: &[&str]) -> Plan {
        try_plan(line).expect("the line fits together")
    }

    #[test]
    fn the_lines_of_the_plan_mean_what_they_say() {
        let first = plan(&[
            "--bootstrap-servers",
            "localhost:9092",
            "--topic",
            "t",
            "--mode",
            "produce",
            "--concurrency",
            "64",
            "--duration",
            "20s",
            "--warmup-duration",
            "2s",
            "--report-interval-secs",
            "5",
        ]);
        assert_eq!(first.duration, Some(Duration::from_secs(20)));
        assert_eq!(first.flags.warmup_duration, Duration::from_secs(2));
        assert_eq!((first.class(), first.acks(), first.is_verified), (LoadClass::M, 1, true));
        let second = plan(&[
            "--bootstrap-servers",
            "localhost:9092",
            "--duration",
            "30",
            "--concurrency",
            "128",
            "--message-size",
            "256",
        ]);
        assert_eq!(second.duration, Some(Duration::from_secs(30)));
        assert_eq!(second.flags.topic, "chronik-bench");
    }

    #[test]
    fn every_flag_of_the_original_tool_is_taken() {
        plan(&[
            "--compression",
            "lz4",
            "-p",
            "3",
            "-r",
            "1",
            "--acks",
            "-1",
            "--linger-ms",
            "5",
            "--batch-size",
            "65536",
            "--request-timeout-ms",
            "1000",
            "--message-timeout-ms",
            "2000",
            "--csv-output",
            "a.csv",
            "--json-output",
            "a.json",
            "--prometheus-port",
            "0",
            "--verbose",
            "-n",
            "10",
            "--rate-limit",
            "100",
            "--key-pattern",
            "sequential",
            "--payload-pattern",
            "text",
            "--create-topic",
            "--delete-topic-after",
            "--validate",
            "--disable-auto-commit",
        ]);
        for mode in ["produce", "consume", "round-trip", "metadata"] {
            plan(&["-m", mode]);
        }
    }

    #[test]
    fn what_does_not_fit_together_is_refused_in_a_sentence() {
        for (line, word) in [
            (vec!["--consumer-group", "g"], "--consumer-group g"),
            (vec!["--message-size", "10"], "--no-validate"),
            (vec!["--mode", "verify", "--acks", "0"], "--acks all"),
            (vec!["--mode", "consume", "--rate", "5"], "--rate does nothing"),
            (vec!["--duration", "0"], "--duration 0"),
            (vec!["--duration", "soon"], "20s"),
            (vec!["--connections", "many"], "per-task"),
            (vec!["--bootstrap-servers", "a:b"], "HOST:PORT"),
            (vec!["--rate", "5", "--rate-limit", "6"], "the same"),
            (vec!["--concurrency", "0"], "1..=1000000"),
            (vec!["--no-create-topic", "--create-topic"], "cannot be used with"),
        ] {
            let message = try_plan(&line).expect_err("it does not fit together");
            assert!(message.contains(word), "{line:?}: {message}");
        }
        assert!(try_plan(&["--message-size", "0", "--no-validate"]).is_ok());
    }

    #[test]
    fn librdkafka_follows_what_it_can_if_this_build_has_it() {
        let with = |line: &[&str]| try_plan(&[&["--client", "rdkafka"], line].concat());
        if !librdkafka::IS_BUILT_IN {
            let message = with(&[]).expect_err("this build does not have it");
            assert!(message.contains("-p chronik-bench --features rdkafka"), "{message}");
            return;
        }
        for line in [&[][..], &["-m", "fetch"], &["-m", "consume", "--consumers", "8"]] {
            assert!(with(line).is_ok(), "{line:?}");
        }
        for (line, word) in [
            (vec!["-m", "mixed"], "mode mixed is for --client native"),
            (vec!["--rate", "5"], "--rate"),
            (vec!["-m", "fetch", "--follow"], "--follow"),
            (vec!["--headroom"], "--headroom"),
            (vec!["--workers", "2"], "--workers"),
            (vec!["--compression", "zstd"], "no zstd"),
            (vec!["-c", "300", "--connections", "per-task"], "300 clients"),
            (vec!["--in-flight", "1000000"], "64000000 messages"),
        ] {
            let message = with(&line).expect_err("librdkafka cannot");
            assert!(message.contains(word), "{line:?}: {message}");
        }
    }

    #[test]
    fn a_load_is_classed_by_how_messages_share_requests() {
        assert_eq!(plan(&["--connections", "per-task"]).class(), LoadClass::S);
        assert_eq!(plan(&["--connections", "4"]).class(), LoadClass::M);
        assert_eq!(plan(&["--connections", "per-task", "--linger-ms", "5"]).class(), LoadClass::B);
        assert_eq!(plan(&["--mode", "verify"]).acks(), -1);
    }

    #[test]
    fn samples_divide_the_report_interval() {
        for (duration, report) in [("20s", "5"), ("1s", "5"), ("60", "1"), ("7s", "3")] {
            let plan = plan(&["-d", duration, "--report-interval-secs", report]);
            let (sample, interval) =
                (plan.sample(), Duration::from_secs(plan.flags.report_interval_secs));
            let parts = interval.as_secs_f64() / sample.as_secs_f64();
            assert!((parts - parts.round()).abs() < 1e-3, "{duration} {report}: {sample:?}");
            assert!(sample <= SAMPLE_MAX && sample >= SAMPLE_MIN / 2, "{sample:?}");
        }
    }
}
