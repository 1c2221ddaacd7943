//! The command line: flags of the plan, of the original tool, and additions.
//!
//! Parsing only; what the flags mean together is decided in `plan.rs`.

use std::path::PathBuf;
use std::time::Duration;

use chronik_record::Codec;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::quantity::{self, Cores};

/// Measures a Kafka broker: rates, latencies, and what they cost.
///
/// What a run writes is read back and compared (count, order, checksum) before a rate is
/// printed. Without --rate the load is a closed loop; latencies of a closed loop say how the
/// broker does at its limit, not how it does at a given load.
///
/// Exit codes: 0 a result was printed, 1 the run failed or the read back differs, 2 usage,
/// 3 cannot connect.
#[derive(Clone, Parser, Debug)]
#[command(
    name = "chronik-bench",
    version,
    disable_help_subcommand = true,
    args_conflicts_with_subcommands = true,
    args_override_self = true,
    after_help = "Examples:\n  \
                  chronik-bench --duration 30 --concurrency 128 --message-size 256\n  \
                  chronik-bench --connections per-task --rate 10k --plot latency.svg"
)]
pub struct Arguments {
    /// A single run.
    #[command(flatten)]
    pub load: LoadArguments,
    /// Several runs, or pages from their results.
    #[command(subcommand)]
    pub verb: Option<Verb>,
}

/// What to do besides a single run.
#[derive(Clone, Subcommand, Debug)]
#[allow(missing_docs, reason = "each verb is documented by its arguments")]
pub enum Verb {
    Suite(Box<SuiteArguments>),
    Report(ReportArguments),
}

/// Flags of a single run.
#[derive(Clone, Args, Debug)]
pub struct LoadArguments {
    /// Where the cluster is: HOST or HOST:PORT, several separated by commas.
    #[arg(short, long, value_name = "HOST:PORT", default_value = "localhost:9092")]
    pub bootstrap_servers: String,
    /// Topic to use; created if it is missing.
    #[arg(short, long, default_value = "chronik-bench")]
    pub topic: String,
    /// What to measure.
    #[arg(short, long, value_enum, default_value_t)]
    pub mode: Mode,
    /// Tasks that send at the same time.
    #[arg(short, long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub concurrency: u32,
    /// Measured time: 20s, 5m, 500ms; a bare number is seconds [default: 60s, without a limit
    /// if --message-count is given].
    #[arg(short, long, value_name = "TIME", value_parser = quantity::duration)]
    pub duration: Option<Duration>,
    /// Time under the same load before the measured time.
    #[arg(short, long, value_name = "TIME", value_parser = quantity::duration, default_value = "5s")]
    pub warmup_duration: Duration,
    /// Seconds between lines of the live table.
    #[arg(long, value_name = "SECONDS", default_value_t = 5,
        value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub report_interval_secs: u64,
    /// Bytes of each message's value.
    #[arg(short = 's', long, value_name = "BYTES", default_value_t = 256,
        value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub message_size: u32,
    /// Codec: none, gzip, snappy, lz4 or zstd.
    #[arg(long, value_name = "CODEC", default_value = "none")]
    pub compression: Codec,
    /// Partitions of the topic, if it is created.
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=100_000))]
    pub partitions: i32,
    /// Replicas of the topic, if it is created.
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(i16).range(1..=32))]
    pub replication_factor: i16,
    /// Acknowledgements to wait for: 0, 1, or all (-1) [default: 1; all for idempotent producers].
    #[arg(long, allow_hyphen_values = true)]
    pub acks: Option<Acks>,
    /// Milliseconds that a message may wait for others of its request.
    #[arg(long, value_name = "MS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=900_000))]
    pub linger_ms: u64,
    /// Largest batch in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 16_384,
        value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    pub batch_size: u32,
    /// Milliseconds to wait for an answer before the connection counts as broken.
    #[arg(long, value_name = "MS", default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    pub request_timeout_ms: u64,
    /// Milliseconds after which an idempotent producer stops repeating a message.
    #[arg(long, value_name = "MS", default_value_t = 60_000, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    pub message_timeout_ms: u64,
    /// Write one line per sample to this file.
    #[arg(long, value_name = "FILE")]
    pub csv_output: Option<PathBuf>,
    /// Write the whole result to this file; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    pub json_output: Option<PathBuf>,
    /// Serve the running figures on this port of the loopback interface, for Prometheus.
    #[arg(long, value_name = "PORT")]
    pub prometheus_port: Option<u16>,
    /// Say on standard error what is being done.
    #[arg(short, long)]
    pub verbose: bool,
    /// Consumer group; refused, because consumers of this tool read partitions without a group.
    #[arg(long, value_name = "GROUP")]
    pub consumer_group: Option<String>,
    /// Messages to send or read in the measured time; 0 is no limit.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 0)]
    pub message_count: u64,
    /// The same as --rate.
    #[arg(long, value_name = "RATE", value_parser = quantity::rate, default_value = "0")]
    pub rate_limit: u64,
    /// Keys: random (any partition), sequential (partitions in turn) or fixed (one partition).
    #[arg(long, value_enum, default_value_t)]
    pub key_pattern: KeyPattern,
    /// Bytes that fill messages.
    #[arg(long, value_enum, default_value_t)]
    pub payload_pattern: PayloadPattern,
    /// Create the topic if it is missing (the default).
    #[arg(long, conflicts_with = "no_create_topic")]
    pub create_topic: bool,
    /// Delete the topic at the end.
    #[arg(long)]
    pub delete_topic_after: bool,
    /// Read back and compare what was written (the default).
    #[arg(long, conflicts_with = "no_validate")]
    pub validate: bool,
    /// Commit no offsets; this tool never commits any.
    #[arg(long)]
    pub disable_auto_commit: bool,
    /// Flags that the original tool did not have.
    #[command(flatten, next_help_heading = "Additions")]
    pub additions: AdditionalArguments,
}

/// Flags that the original tool did not have.
#[derive(Clone, Args, Debug)]
#[command(next_help_heading = "Additions")]
pub struct AdditionalArguments {
    /// TCP connections: `shared` (one per broker; tasks share requests as with librdkafka),
    /// `per-task` (each message is a request of its own), or a number.
    #[arg(long, default_value = "shared")]
    pub connections: Connections,
    /// Messages that each task has under way.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub in_flight: u32,
    /// Open loop: messages per second over all tasks, such as 1000 or 10k; 0 is a closed loop.
    #[arg(long, value_name = "RATE", value_parser = quantity::rate, default_value = "0")]
    pub rate: u64,
    /// Times between the messages of an open loop.
    #[arg(long, value_enum, default_value_t)]
    pub arrival: Arrival,
    /// Client that makes the load; what it writes is read back by the native one.
    #[arg(long, value_enum, default_value_t)]
    pub client: ClientKind,
    /// Process of the broker: CPU, memory and I/O of it are reported.
    #[arg(long, value_name = "PID")]
    pub pid: Option<i32>,
    /// Processor cores for this tool's workers: 1, or 0-3,6.
    #[arg(long, value_name = "CORES", value_parser = quantity::cores)]
    pub pin: Option<Cores>,
    /// Worker threads [default: half the cores].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1_024))]
    pub workers: Option<u16>,
    /// Compare two results of this tool and print the ratios; nothing is measured.
    #[arg(long, num_args = 2, value_names = ["A.json", "B.json"])]
    pub compare: Option<Vec<PathBuf>>,
    /// Write percentiles to this file, in HdrHistogram's text form.
    #[arg(long, value_name = "FILE")]
    pub hdr_output: Option<PathBuf>,
    /// Draw throughput and latency into this SVG file.
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
    /// Fail if the topic does not exist.
    #[arg(long)]
    pub no_create_topic: bool,
    /// Config of the topic, if it is created; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_topic_config)]
    pub topic_config: Vec<(String, String)>,
    /// Do not read back; the result is marked as not verified.
    #[arg(long)]
    pub no_validate: bool,
    /// Send as idempotent producers, which repeat after failures, with acks all; always on in
    /// the modes verify and failover.
    #[arg(long)]
    pub idempotence: bool,
    /// Connections that read, in the modes consume, fetch, e2e and mixed; each reads every
    /// partition.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub consumers: u32,
    /// Go on reading at the end of the log, in the modes consume and fetch.
    #[arg(long)]
    pub follow: bool,
    /// Measure this client against the built-in null broker as well, in the same shape, and
    /// mark a result that the client limited.
    #[arg(long)]
    pub headroom: bool,
    /// Directory of the journal floor's file and of the disk probe [default: the system's
    /// temporary directory].
    #[arg(long, value_name = "DIR")]
    pub probe_dir: Option<PathBuf>,
    /// Form of what is printed.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: OutputForm,
}

/// The standard suite: rows of one node, each with both durability classes, against servers
/// that it starts itself. The time it takes is printed first; --time-max bounds it.
#[derive(Clone, Args, Debug)]
pub struct SuiteArguments {
    /// The server to measure.
    #[arg(long, value_name = "PATH")]
    pub server_binary: Option<PathBuf>,
    /// The `chronik` command, whose dev server takes an injected disk delay [default: beside the
    /// server].
    #[arg(long, value_name = "PATH")]
    pub dev_binary: Option<PathBuf>,
    /// Rows to run; --list names them [default: all].
    #[arg(value_name = "NAME", value_delimiter = ',')]
    pub rows: Vec<String>,
    /// Durability classes to run.
    #[arg(long, value_name = "CLASSES", value_delimiter = ',', default_value = "fsync,os")]
    pub durability: Vec<Durability>,
    /// Interleaved blocks of each row.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub blocks: u32,
    /// Measured seconds of one block.
    #[arg(long, value_name = "SECONDS", value_parser = quantity::duration, default_value = "15")]
    pub block_seconds: Duration,
    /// Warm-up of one block.
    #[arg(long, value_name = "TIME", value_parser = quantity::duration, default_value = "3s")]
    pub warmup_duration: Duration,
    /// Choose the measured seconds and the warm-up of blocks so that the whole suite takes about
    /// this time, and begin no round of blocks that would end after it.
    #[arg(long, value_name = "TIME", value_parser = quantity::duration, conflicts_with = "block_seconds")]
    pub time_max: Option<Duration>,
    /// Commit that the server was built from [default: that of the repository the server lies
    /// in].
    #[arg(long, value_name = "COMMIT")]
    pub commit: Option<String>,
    /// Directory for the servers' data, emptied before each block; must not exist or be empty.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Write the results to this file.
    #[arg(long, value_name = "FILE", default_value = "suite.json")]
    pub json_output: PathBuf,
    /// Make the rows small enough for a trial: less data, fewer partitions and connections.
    #[arg(long)]
    pub small: bool,
    /// Core for the server and cores for the client, as in `--split 0:1` [default: not pinned].
    #[arg(long, value_name = "SERVER:CLIENT", value_parser = parse_split)]
    pub split: Option<(usize, usize)>,
    /// Print the names of the rows and what they measure.
    #[arg(long)]
    pub list: bool,
    /// Write a page from this result of an earlier suite instead of running one.
    #[arg(long, value_name = "SUITE.json")]
    pub report: Option<PathBuf>,
}

/// Write the page of a suite's results.
#[derive(Clone, Args, Debug)]
pub struct ReportArguments {
    /// Results of `chronik-bench suite`; of a row that is in several, the last one counts.
    #[arg(value_name = "SUITE.json", required = true)]
    pub suites: Vec<PathBuf>,
    /// Page to write; `-` is standard output.
    #[arg(long, value_name = "FILE", default_value = "docs/benchmarks.md")]
    pub page: PathBuf,
}

/// What a run measures.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum Mode {
    /// Writing.
    #[default]
    Produce,
    /// Reading: every record is decoded.
    Consume,
    /// Each task writes one message and reads it back before the next.
    RoundTrip,
    /// Asking for metadata.
    Metadata,
    /// Writing at a rate, and the time until consumers have each message.
    E2e,
    /// Reading: batches are checked and counted, not decoded.
    Fetch,
    /// Writing and reading at the same time.
    Mixed,
    /// Writing with retries, then an audit: nothing lost, doubled, reordered or changed.
    Verify,
    /// As verify, with a report of the gap in which nothing was acknowledged.
    Failover,
    /// This client against a broker that stores nothing: the limit of the tool itself.
    Floor,
    /// The same bytes in the same groups, written and synced without a broker.
    JournalFloor,
}

/// Acknowledgements to wait for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Acks(pub i16);

impl std::str::FromStr for Acks {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "0" => Ok(Self(0)),
            "1" => Ok(Self(1)),
            "-1" | "all" => Ok(Self(-1)),
            _ => Err(format!("{text:?} is no number of acknowledgements; expected 0, 1 or all")),
        }
    }
}

/// How many TCP connections there are, and whether tasks share requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Connections {
    /// One per broker; tasks share requests.
    Shared,
    /// One per task; each message is a request of its own.
    PerTask,
    /// This many; the tasks of one connection share requests.
    Count(u32),
}

impl std::str::FromStr for Connections {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let count = || text.parse().ok().filter(|count| (1..=100_000).contains(count));
        match text {
            "shared" => Ok(Self::Shared),
            "per-task" => Ok(Self::PerTask),
            _ => count().map(Self::Count).ok_or_else(|| {
                format!("{text:?}: expected shared, per-task or a number from 1 to 100000")
            }),
        }
    }
}

/// Keys of messages, and with them their partitions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum KeyPattern {
    /// A pseudo-random key; any partition.
    #[default]
    Random,
    /// Keys that count up; partitions in turn.
    Sequential,
    /// One key; one partition.
    Fixed,
}

/// Bytes that fill messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum PayloadPattern {
    /// Pseudo-random bytes; do not compress.
    #[default]
    Random,
    /// Zero bytes.
    Zeros,
    /// Words; compress to about a third.
    Text,
}

/// Times between the messages of an open loop.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum Arrival {
    /// All the same.
    #[default]
    Fixed,
    /// Exponentially distributed, as if many independent clients sent.
    Poisson,
}

/// Client that makes the load.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum ClientKind {
    /// The one of this tool.
    #[default]
    Native,
    /// librdkafka, in builds with the feature `rdkafka`; modes produce, consume and fetch.
    Rdkafka,
}

impl ClientKind {
    /// The client as it is typed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Rdkafka => "rdkafka",
        }
    }
}

/// Form of what is printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum OutputForm {
    /// For people.
    #[default]
    Text,
    /// One JSON object.
    Json,
    /// Lines of comma-separated values.
    Csv,
}

/// Durability class of a topic.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
pub enum Durability {
    /// On stable storage before the acknowledgement.
    Fsync,
    /// In the page cache before the acknowledgement.
    Os,
}

impl Durability {
    /// The value of the topic config `chronik.durability`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fsync => "fsync",
            Self::Os => "os",
        }
    }
}

fn parse_topic_config(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?}: expected KEY=VALUE")),
    }
}

fn parse_split(text: &str) -> Result<(usize, usize), String> {
    let pair = text.split_once(':');
    pair.and_then(|(server, client)| Some((server.parse().ok()?, client.parse().ok()?)))
        .ok_or_else(|| format!("{text:?}: expected two cores such as 0:1"))
}
