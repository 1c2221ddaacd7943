//! The command line of `chronik-server` and what the process does with it.

use std::ffi::OsString;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chronik_common::SystemClock;
use chronik_config::{Config, Flag, LoadError, Loaded, LogFormat, Mode, Sources, load};
use chronik_monitoring::init_logs;
use chronik_wal::io::RealDisk;
use clap::{Parser, ValueEnum};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use crate::node::{OnFatal, RunningNode};
use crate::startup_error::StartError;

/// Port of the Kafka listener unless told otherwise.
const DEFAULT_KAFKA_PORT: u16 = 9092;

/// Exit code after a fatal storage error.
const EXIT_STORAGE: i32 = 5;
/// Exit code of a wrong command line or configuration.
const EXIT_USAGE: u8 = 2;

/// What to run as.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Role {
    /// Start with what the settings say.
    Start,
    /// A cluster of one; a cluster section of the file is ignored.
    Standalone,
    /// Part of a cluster.
    Cluster,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum PrintConfig {
    /// Values only.
    Values,
    /// Values and where each came from.
    Origin,
}

/// Kafka-compatible streaming server, durable by default.
#[derive(Parser, Debug)]
#[command(
    name = "chronik-server",
    version,
    after_help = "Examples:\n  \
    chronik-server standalone\n  \
    chronik-server --advertised-addr kafka.example --data-dir /var/lib/chronik"
)]
struct Args {
    /// What to run as.
    #[arg(value_enum, default_value = "start")]
    role: Role,
    /// Name (and port) clients are told to connect to.
    #[arg(long, alias = "advertise", value_name = "HOST[:PORT]")]
    advertised_addr: Option<String>,
    /// Address both listeners bind; loopback unless the advertised address says otherwise.
    #[arg(long, value_name = "ADDR")]
    bind: Option<String>,
    /// Port of the Kafka protocol; 0 takes a free one.
    #[arg(long, value_name = "PORT")]
    kafka_port: Option<String>,
    /// Port of metrics and health; 0 takes a free one.
    #[arg(long, value_name = "PORT")]
    http_port: Option<String>,
    /// Where the data is.
    #[arg(short, long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Configuration file.
    #[arg(short, long, alias = "cluster-config", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Id of this node.
    #[arg(long, value_name = "N")]
    node_id: Option<String>,
    /// Inter-node address of this node.
    #[arg(long, value_name = "HOST:PORT")]
    raft_addr: Option<String>,
    /// The other nodes: id@host:port,...
    #[arg(long, value_name = "PEERS")]
    peers: Option<String>,
    /// A handful of settings at once: latency, balanced or throughput.
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Any setting.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    /// What is logged, for example info or chronik_wal=debug.
    #[arg(short, long, value_name = "FILTER")]
    log_level: Option<String>,
    /// How it is logged: text or json.
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Check the settings and exit.
    #[arg(long)]
    check_config: bool,
    /// Print the settings and exit.
    #[arg(long, value_name = "WHAT", num_args = 0..=1, default_missing_value = "values", require_equals = true)]
    print_config: Option<PrintConfig>,
}

impl Args {
    fn flags(&self) -> Vec<Flag> {
        let flag = |name, key, value: &Option<String>| {
            value.clone().map(|value| Flag { name, key, value })
        };
        [
            flag("--advertised-addr", "node.advertised_addr", &self.advertised_addr),
            flag("--bind", "listener.bind", &self.bind),
            flag("--kafka-port", "listener.kafka_port", &self.kafka_port),
            flag("--http-port", "listener.http_port", &self.http_port),
            flag("--data-dir", "node.data_dir", &self.data_dir),
            flag("--node-id", "cluster.node_id", &self.node_id),
            flag("--raft-addr", "cluster.raft_addr", &self.raft_addr),
            flag("--peers", "cluster.peers.nodes", &self.peers),
            flag("--profile", "node.profile", &self.profile),
            flag("--log-level", "monitoring.log_level", &self.log_level),
            flag("--log-format", "monitoring.log_format", &self.log_format),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// What a started server tells about itself.
#[derive(Clone, Debug)]
pub struct ReadyInfo {
    /// Where the Kafka listener is bound.
    pub kafka_addr: SocketAddr,
    /// Where the HTTP listener is bound.
    pub http_addr: SocketAddr,
    /// Address clients are told, `host:port`.
    pub advertised: String,
    /// Where the data is.
    pub data_dir: PathBuf,
    /// Id of the cluster.
    pub cluster_id: String,
    /// Time from the call to readiness.
    pub ready_in: Duration,
}

/// Settings of a development server.
#[derive(Clone, Debug)]
pub struct DevOptions {
    /// Where the data is.
    pub data_dir: PathBuf,
    /// Port of the Kafka listener, 0 for a free one. HTTP gets 6092 beside 9092, and a free port
    /// beside any other.
    pub kafka_port: u16,
    /// Topics to create: name, partitions (default if `None`).
    pub topics: Vec<(String, Option<i32>)>,
    /// Further settings, `section.key=value`.
    pub set: Vec<String>,
}

/// Runs `chronik-server` with these arguments (without the program's name) until it is told to
/// stop.
#[must_use]
pub fn main_with_args(program: &'static str, args: Vec<OsString>) -> ExitCode {
    let command_line = std::iter::once(OsString::from(program)).chain(args);
    let args = match Args::try_parse_from(command_line) {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { EXIT_USAGE } else { 0 });
        }
    };
    let started = Instant::now();
    match prepare(&args) {
        Ok(Some(loaded)) => serve(&loaded, started, |ready| {
            info!(
                kafka = %ready.kafka_addr,
                http = %ready.http_addr,
                advertised = ready.advertised,
                data = %ready.data_dir.display(),
                cluster_id = ready.cluster_id,
                ready_ms = ready.ready_in.as_millis() as u64,
                "ready"
            );
        }),
        Ok(None) => ExitCode::SUCCESS,
        Err(error) => refuse(&error),
    }
}

/// Runs a development server in this process until it is told to stop; `on_ready` is called once
/// it serves and its topics exist.
#[must_use]
pub fn run_dev(options: &DevOptions, on_ready: impl FnOnce(&ReadyInfo)) -> ExitCode {
    let started = Instant::now();
    match prepare_dev(options) {
        Ok(loaded) => serve_with_topics(&loaded, started, &options.topics, on_ready),
        Err(error) => refuse(&error),
    }
}

fn prepare(args: &Args) -> Result<Option<Loaded>, StartError> {
    let mut sources =
        Sources::from_process(args.config.as_deref()).map_err(StartError::Configuration)?;
    sources.flags = args.flags();
    sources.set.clone_from(&args.set);
    sources.is_standalone = args.role == Role::Standalone;
    let loaded = load_and_init_logs(&sources)?;
    if let Some(print) = args.print_config {
        print_text(&loaded.to_toml(print == PrintConfig::Origin));
        return Ok(None);
    }
    if args.role == Role::Cluster && !loaded.config.wants_cluster() {
        let asked_by = "the word cluster on the command line".to_owned();
        return Err(StartError::ClusterNotAvailable { asked_by });
    }
    if args.check_config {
        print_text("the configuration is valid\n");
        return Ok(None);
    }
    Ok(Some(loaded))
}

fn prepare_dev(options: &DevOptions) -> Result<Loaded, StartError> {
    let mut sources = Sources::from_process(None).map_err(StartError::Configuration)?;
    let flag = |name, key, value: String| Flag { name, key, value };
    // A second development server, on another port, must not collide on HTTP.
    let http_port = if options.kafka_port == DEFAULT_KAFKA_PORT { "6092" } else { "0" };
    sources.flags = vec![
        flag("--data-dir", "node.data_dir", options.data_dir.display().to_string()),
        flag("--port", "listener.kafka_port", options.kafka_port.to_string()),
        flag("--port", "listener.http_port", http_port.to_owned()),
    ];
    sources.set.clone_from(&options.set);
    sources.mode = Mode::Dev;
    sources.is_standalone = true;
    load_and_init_logs(&sources)
}

fn load_and_init_logs(sources: &Sources) -> Result<Loaded, StartError> {
    let loaded = load(sources).map_err(StartError::Configuration)?;
    let format = match loaded.config.monitoring.log_format {
        LogFormat::Text => chronik_monitoring::LogFormat::Text,
        LogFormat::Json => chronik_monitoring::LogFormat::Json,
    };
    init_logs(&loaded.config.monitoring.log_level, format)
        .map_err(|error| StartError::System(std::io::Error::other(error)))?;
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    Ok(loaded)
}

fn refuse(error: &StartError) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "{error}");
    if let StartError::Configuration(LoadError { warnings, .. }) = error {
        for warning in warnings {
            let _ = writeln!(std::io::stderr(), "{warning}");
        }
    }
    ExitCode::from(error.exit_code())
}

#[allow(clippy::print_stdout, reason = "what was asked for goes to stdout")]
fn print_text(text: &str) {
    print!("{text}");
}

fn serve(loaded: &Loaded, started: Instant, on_ready: impl FnOnce(&ReadyInfo)) -> ExitCode {
    serve_with_topics(loaded, started, &[], on_ready)
}

fn serve_with_topics(
    loaded: &Loaded,
    started: Instant,
    topics: &[(String, Option<i32>)],
    on_ready: impl FnOnce(&ReadyInfo),
) -> ExitCode {
    match start(loaded, topics) {
        Ok(running) => {
            // Before anybody hears that we are ready: who does may stop us at once.
            let signals = StopSignals::catch();
            on_ready(&ready_info(&running, &loaded.config, started));
            signals.wait();
            info!("stopping");
            running.stop();
            info!("stopped");
            ExitCode::SUCCESS
        }
        Err(error) => refuse(&error),
    }
}

fn start(loaded: &Loaded, topics: &[(String, Option<i32>)]) -> Result<RunningNode, StartError> {
    if loaded.config.wants_cluster() {
        let asked_by = loaded
            .cluster_request()
            .map_or_else(|| "the configuration".to_owned(), |setting| setting.to_string());
        return Err(StartError::ClusterNotAvailable { asked_by });
    }
    let on_fatal: OnFatal = Box::new(|message| {
        let _ = writeln!(std::io::stderr(), "{message}");
        std::process::exit(EXIT_STORAGE);
    });
    let running = RunningNode::start(
        loaded.config.clone(),
        Arc::new(RealDisk),
        Arc::new(SystemClock::new()),
        on_fatal,
    )?;
    for (name, partitions) in topics {
        running.ensure_topic(name, *partitions)?;
    }
    Ok(running)
}

fn ready_info(running: &RunningNode, config: &Config, started: Instant) -> ReadyInfo {
    ReadyInfo {
        kafka_addr: running.kafka_addr,
        http_addr: running.http_addr,
        advertised: running.advertised.to_string(),
        data_dir: config.node.data_dir.clone(),
        cluster_id: running.node.cluster_id().to_owned(),
        ready_in: started.elapsed(),
    }
}

/// SIGTERM and SIGINT, caught from the moment this exists.
struct StopSignals {
    runtime: tokio::runtime::Runtime,
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn catch() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .expect("a runtime for signals can be built");
        let _context = runtime.enter();
        let terminate = signal(SignalKind::terminate()).expect("SIGTERM can be caught");
        let interrupt = signal(SignalKind::interrupt()).expect("SIGINT can be caught");
        drop(_context);
        Self { runtime, terminate, interrupt }
    }

    /// Blocks until one of them comes.
    fn wait(mut self) {
        self.runtime.block_on(async {
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
            }
        });
    }
}
