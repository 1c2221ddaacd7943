//! `doctor`: is this machine ready for a server?

use std::path::PathBuf;

use chronik_config::{Flag, Sources, load};
use chronik_wal::layout::Layout;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::Context;
use crate::failure::{Exit, Failure};
use crate::machine::{self, Check, Status};
use crate::output::{Paint, Report};
use crate::table::{Table, cell};

/// Check what a server needs.
#[derive(Clone, Args, Debug)]
#[command(
    disable_help_subcommand = true,
    after_help = "Examples:\n  \
                  chronik doctor local\n  \
                  chronik doctor local --data-dir /var/lib/chronik --bench-disk"
)]
pub struct DoctorArguments {
    /// What to check.
    #[command(subcommand)]
    pub(crate) verb: DoctorVerb,
}

/// What to check.
#[derive(Clone, Subcommand, Debug)]
pub enum DoctorVerb {
    /// Check configuration, data directory, disk, ports and advertised address of this machine.
    ///
    /// Looks at what `chronik server` would use here. Exit code 4 if something is bad.
    #[command(after_help = "Examples:\n  \
                            chronik doctor local\n  \
                            chronik doctor local --data-dir /var/lib/chronik --bench-disk")]
    Local(LocalArguments),
}

/// Arguments of `doctor local`.
#[derive(Clone, Args, Debug)]
pub struct LocalArguments {
    /// The data directory, instead of the configured one.
    #[arg(short, long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The configuration file, instead of the first one found.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Measure the disk for longer: 200 syncs and 64 MiB.
    #[arg(long)]
    bench_disk: bool,
}

impl DoctorVerb {
    /// The verb as it is typed.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Local(_) => "doctor local",
        }
    }
}

pub(crate) fn run(verb: &DoctorVerb, context: &Context) -> Result<Exit, Failure> {
    let DoctorVerb::Local(arguments) = verb;
    let report = Diagnosis { checks: examine(arguments) };
    match report.failure() {
        Some(failure) => context.console.report_failed(&report, &failure),
        None => context.console.report(&report),
    }
}

fn examine(arguments: &LocalArguments) -> Vec<Check> {
    const NAME: &str = "configuration";
    let sources = Sources::from_process(arguments.config.as_deref()).map(|mut sources| {
        sources.flags.extend(arguments.data_dir.as_ref().map(|directory| Flag {
            name: "--data-dir",
            key: "node.data_dir",
            value: directory.display().to_string(),
        }));
        let file = sources.file.as_ref().map(|file| file.path.display().to_string());
        (sources, file)
    });
    let loaded = sources.and_then(|(sources, file)| Ok((load(&sources)?, file)));
    let (loaded, file) = match loaded {
        Ok(loaded) => loaded,
        Err(error) => return vec![Check::bad(NAME, None, error.to_string())],
    };
    let source = file.map_or("no file, defaults only".to_owned(), |file| format!("from {file}"));
    let config = loaded.config;
    let directory = &config.node.data_dir;
    let lock = machine::unlocked(&Layout::new(directory).lock());
    let is_running = lock.status != Status::Good;
    let writes = if arguments.bench_disk { machine::BENCH_WRITES } else { machine::QUICK_WRITES };
    let (bind, listener) = (config.bind(), &config.listener);
    let port = |name, port, flag| machine::port_free(name, &bind, port, flag, is_running);
    let mut checks = vec![
        Check::good(NAME, source),
        machine::writable(directory),
        lock,
        machine::file_system(directory),
        machine::free_space(directory, &config.wal),
        machine::fsync_latency(directory, writes),
    ];
    if arguments.bench_disk {
        checks.push(machine::disk_throughput(directory));
    }
    checks.extend([
        port("kafka port", listener.kafka_port, "--kafka-port"),
        port("http port", listener.http_port, "--http-port"),
        machine::advertised(&config.advertised(listener.kafka_port)),
    ]);
    checks
}

#[derive(Serialize)]
struct Diagnosis {
    checks: Vec<Check>,
}

impl Diagnosis {
    fn failure(&self) -> Option<Failure> {
        let bad = self.checks.iter().filter(|check| check.status == Status::Bad).count();
        (bad > 0).then_some(Failure::Unhealthy { bad, total: self.checks.len() })
    }
}

impl Report for Diagnosis {
    fn table(&self) -> Table {
        let mut table = Table::new(&["check", "status", "code", "finding"]);
        for check in &self.checks {
            let status = match check.status {
                Status::Good => "good",
                Status::Odd => "odd",
                Status::Bad => "bad",
            };
            table.push(vec![
                cell(check.name),
                cell(status),
                check.code.and_then(cell),
                cell(&check.finding),
            ]);
        }
        table
    }

    fn text(&self, paint: Paint) -> String {
        let line = |check: &Check| {
            let mark = match check.status {
                Status::Good => paint.good("good"),
                Status::Odd => paint.odd("odd "),
                Status::Bad => paint.bad("bad "),
            };
            let code = check.code.map(|code| format!("{code} ")).unwrap_or_default();
            format!("{mark}  {:18}  {code}{}\n", check.name, check.finding)
        };
        self.checks.iter().map(line).collect()
    }
}
