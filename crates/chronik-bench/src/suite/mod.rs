//! The standard suite: rows of one node, each in both durability classes, against servers that
//! the suite starts itself, fresh for every block.
//!
//! Blocks are interleaved: a round has one block of every row, variant and class, with its floors
//! just before it, and every other round goes backwards; so what the machine does to one it does
//! to the others, and figures of one round may be compared. The result is one JSON document;
//! `report.rs` makes a page of it.

mod block;
mod estimate;
mod neighbours;
pub(crate) mod noise;
mod passes;
mod report;
mod rows;
mod run_figures;
mod server;
mod server_build;
mod stall_watch;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::arguments::{Durability, SuiteArguments};
use crate::clock::wall_ms;
use crate::failure::Failure;
use crate::librdkafka;
use crate::output::{self, environment};
use block::Lab;
use estimate::Timing;
use noise::NoiseWatch;
use rows::{ROWS, Row, Variant};
use server_build::server_build;

/// Attempts at a block besides the first, while all of them were noisy.
const NOISY_REPEATS: u32 = 2;

/// Number of the suite document's form.
const SCHEMA: u64 = 2;

/// Part of a block's time that each floor gets, and its bounds.
const FLOOR_PART: u32 = 4;
const FLOOR_MIN: Duration = Duration::from_millis(500);
const FLOOR_MIN_SMALL: Duration = Duration::from_millis(200);

/// Blocks that may fail one after the other before the suite gives up: then it is no longer one
/// row that fails.
const FAILURES_IN_A_ROW_MAX: usize = 3;

/// Runs the suite, or does what else its flags ask for.
pub(crate) fn run(arguments: &SuiteArguments) -> Result<(), Failure> {
    if let Some(suite) = &arguments.report {
        return write_page(std::slice::from_ref(suite), Path::new("docs/benchmarks.md"));
    }
    if arguments.list {
        let line = |row: &Row| format!("{:<18} {}\n", row.name, row.what);
        return output::print(&ROWS.iter().map(line).collect::<String>());
    }
    let rows = wanted_rows(&arguments.rows)?;
    let binary = server_binary(arguments)?;
    let directory = DataDirectory::prepare(arguments.data_dir.as_deref())?;
    let mut suite = Suite::new(arguments, &rows, &binary, &directory.path)?;
    output::print(&suite.announcement(rows.len()))?;
    let result = suite.run_rounds();
    output::print(&format!("wrote {}\n", arguments.json_output.display()))?;
    result
}

/// Writes the page of the results of suites, and of findings beside them.
pub(crate) fn write_page(suites: &[PathBuf], page: &Path) -> Result<(), Failure> {
    let (mut results, mut findings) = (Vec::new(), Vec::new());
    for suite in suites {
        let document = output::read_json(suite)?;
        if report::is_findings(&document) {
            findings.push(document);
            continue;
        }
        if document["suite"].as_u64() != Some(SCHEMA) {
            let reason = "it is no suite of a form that this tool knows".to_owned();
            return Err(Failure::NotAResult { path: suite.clone(), reason });
        }
        results.push(document);
    }
    let text = report::page(&results, &findings);
    if page == Path::new("-") {
        return output::print(&text);
    }
    output::write_file(page, &text)?;
    output::print(&format!("wrote {}\n", page.display()))
}

/// One variant of a row in one class, and what was found of it.
struct Cell {
    row: &'static Row,
    variant: &'static Variant,
    lab: Lab,
    skipped: Option<String>,
    blocks: Vec<Value>,
    failures: Vec<String>,
}

/// A suite that runs.
struct Suite<'a> {
    arguments: &'a SuiteArguments,
    timing: Timing,
    cells: Vec<Cell>,
    environment: Value,
    build: Value,
}

impl<'a> Suite<'a> {
    fn new(
        arguments: &'a SuiteArguments,
        rows: &[&'static Row],
        binary: &Path,
        directory: &Path,
    ) -> Result<Self, Failure> {
        let given = Timing {
            block: arguments.block_seconds,
            warmup: arguments.warmup_duration,
            is_small: arguments.small,
        };
        let lab = |durability: Durability| Lab {
            binary: binary.to_owned(),
            dev_binary: dev_binary(arguments, binary),
            data: directory.join("server"),
            durability,
            timing: given,
            split: arguments.split,
        };
        let mut cells = Vec::new();
        for row in rows {
            for variant in row.variants {
                for durability in &arguments.durability {
                    let lab = lab(*durability);
                    let skipped = lab.obstacle(variant);
                    let (blocks, failures) = (Vec::new(), Vec::new());
                    cells.push(Cell { row, variant, lab, skipped, blocks, failures });
                }
            }
        }
        let mut environment = environment(Some(directory));
        // A place on this machine says nothing to others.
        if let Some(probe) = environment["disk_sync"].as_object_mut() {
            probe.remove("directory");
        }
        let build = server_build(binary, arguments.commit.as_deref());
        let mut suite = Self { arguments, timing: given, cells, environment, build };
        if let Some(time_max) = arguments.time_max {
            let seconds_of = |timing| suite.seconds(timing);
            suite.timing = estimate::fit(time_max, given.warmup, given.is_small, seconds_of)?;
            for cell in &mut suite.cells {
                cell.lab.timing = suite.timing;
            }
        }
        Ok(suite)
    }

    /// Seconds that the suite takes with such blocks, about.
    fn seconds(&self, timing: Timing) -> f64 {
        let run = self.cells.iter().filter(|cell| cell.skipped.is_none());
        let round: f64 =
            run.map(|cell| estimate::block_seconds(cell.row, cell.variant, timing)).sum();
        round * f64::from(self.arguments.blocks)
    }

    fn announcement(&self, rows: usize) -> String {
        format!(
            "{rows} rows, about {} minutes: {} rounds of {} blocks of {}\n",
            estimate::minutes(self.seconds(self.timing)),
            self.arguments.blocks,
            self.cells.iter().filter(|cell| cell.skipped.is_none()).count(),
            estimate::flag(self.timing.block),
        )
    }

    fn run_rounds(&mut self) -> Result<(), Failure> {
        let started = Instant::now();
        let mut longest = Duration::ZERO;
        let mut in_a_row = 0;
        for round in 0..self.arguments.blocks {
            let is_late = |time_max: Duration| started.elapsed() + longest > time_max;
            if round > 0 && self.arguments.time_max.is_some_and(is_late) {
                output::print(&format!("the time is over after {round} rounds\n"))?;
                break;
            }
            let round_started = Instant::now();
            let mut order: Vec<_> = (0..self.cells.len()).collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for index in order {
                let cell = &mut self.cells[index];
                if cell.skipped.is_some() {
                    continue;
                }
                progress(&format!("round {} of {}: {cell}", round + 1, self.arguments.blocks));
                let may_repeat = || self.arguments.time_max.is_none_or(|it| started.elapsed() < it);
                let failed = cell.run(round, may_repeat).err();
                in_a_row = if failed.is_some() { in_a_row + 1 } else { 0 };
                // After each block: a suite that is ended early leaves what it has.
                let document = output::pretty(&self.document());
                output::write_file(&self.arguments.json_output, &document)?;
                if let Some(failure) = failed.filter(|_| in_a_row == FAILURES_IN_A_ROW_MAX) {
                    return Err(failure);
                }
            }
            longest = longest.max(round_started.elapsed());
        }
        let failed = self.cells.iter().filter(|cell| !cell.failures.is_empty());
        let failed: Vec<_> = failed.map(|cell| format!("{cell}: {}", cell.failures[0])).collect();
        if failed.is_empty() { Ok(()) } else { Err(Failure::Server(failed.join("; "))) }
    }

    /// The command line that repeats the suite with `rows`.
    fn command(&self, rows: &str) -> String {
        let arguments = self.arguments;
        let classes: Vec<_> = arguments.durability.iter().map(|it| it.name()).collect();
        let mut command = format!(
            "chronik-bench suite {rows}--durability {} --blocks {} --block-seconds {} \
             --warmup-duration {}",
            classes.join(","),
            arguments.blocks,
            estimate::flag(self.timing.block),
            estimate::flag(self.timing.warmup)
        );
        if let Some((server, client)) = arguments.split {
            command.push_str(&format!(" --split {server}:{client}"));
        }
        if self.timing.is_small {
            command.push_str(" --small");
        }
        command
    }

    fn document(&self) -> Value {
        let arguments = self.arguments;
        let rows = arguments.rows.iter().map(|name| format!("{name} ")).collect::<String>();
        json!({
            "suite": SCHEMA,
            "tool": {
                "name": "chronik-bench",
                "version": env!("CARGO_PKG_VERSION"),
                "librdkafka": librdkafka::version(),
            },
            "finished_at_ms": wall_ms(),
            "command": self.command(&rows),
            "server": self.build,
            "block_seconds": self.timing.block.as_secs_f64(),
            "warmup_seconds": self.timing.warmup.as_secs_f64(),
            "is_small": self.timing.is_small,
            "split": arguments.split.map(|(server, client)| json!([server, client])),
            "environment": self.environment,
            "load_at_end": environment(None)["load"],
            "rows": self.cells.iter().map(Cell::document).collect::<Vec<_>>(),
        })
    }
}

impl Cell {
    /// Runs one block with its floors; again if it was noisy, and `may_repeat` allows it.
    fn run(&mut self, round: u32, may_repeat: impl Fn() -> bool) -> Result<(), Failure> {
        let mut result = self.block();
        let mut repeats = 0;
        while let Ok(block) = &result
            && noise::is_noisy(&block["noise"])
            && repeats < NOISY_REPEATS
            && !self.lab.timing.is_small
            && may_repeat()
        {
            repeats += 1;
            match self.block() {
                Ok(again) if noise::level(&again["noise"]) < noise::level(&block["noise"]) => {
                    result = Ok(again);
                }
                Ok(_) => {}
                Err(failure) => {
                    // A failure is never the machine's.
                    self.failures.push(failure.to_string());
                    break;
                }
            }
        }
        match result {
            Ok(mut block) => {
                block["round"] = round.into();
                block["repeats"] = repeats.into();
                self.blocks.push(block);
                Ok(())
            }
            Err(failure) => {
                self.failures.push(failure.to_string());
                Err(failure)
            }
        }
    }

    fn block(&self) -> Result<Value, Failure> {
        let watch = NoiseWatch::start();
        let floors = if self.row.has_floor {
            let time = floor_time(self.lab.timing);
            let floor = block::floor(&self.lab, self.variant, time)?;
            Some((floor, block::journal_floor(&self.lab, self.variant, time)?))
        } else {
            None
        };
        let mut block = block::run(&self.lab, self.row, self.variant, watch)?;
        if let Some((floor, journal_floor)) = floors {
            block["floor"] = run_figures::rounded(floor).into();
            block["journal_floor"] = run_figures::rounded(journal_floor).into();
        }
        Ok(block)
    }

    fn document(&self) -> Value {
        json!({
            "row": self.row.name,
            "what": self.row.what,
            "variant": self.variant.name,
            "command": self.variant.words(self.lab.timing.is_small).join(" "),
            "durability": self.lab.durability.name(),
            "primary": self.row.primary,
            "blocks": self.blocks,
            "skipped": self.skipped,
            "failures": self.failures,
        })
    }
}

impl std::fmt::Display for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.row.name, self.variant.name, self.lab.durability.name())
    }
}

/// Measured time of a floor.
fn floor_time(timing: Timing) -> Duration {
    let shortest = if timing.is_small { FLOOR_MIN_SMALL } else { FLOOR_MIN };
    (timing.block / FLOOR_PART).max(shortest)
}

fn wanted_rows(names: &[String]) -> Result<Vec<&'static Row>, Failure> {
    if names.is_empty() {
        return Ok(ROWS.iter().collect());
    }
    let find = |name: &String| {
        let found = ROWS.iter().find(|row| row.name == name);
        let known = || ROWS.iter().map(|row| row.name).collect::<Vec<_>>().join(", ");
        found.ok_or_else(|| Failure::Usage(format!("there is no row {name}; rows are {}", known())))
    };
    names.iter().map(find).collect()
}

fn server_binary(arguments: &SuiteArguments) -> Result<PathBuf, Failure> {
    let beside = || Some(std::env::current_exe().ok()?.with_file_name("chronik-server"));
    let binary = arguments.server_binary.clone().or_else(beside).unwrap_or_default();
    if binary.is_file() {
        return Ok(binary);
    }
    let text = format!("{}: there is no server; name it with --server-binary", binary.display());
    Err(Failure::Usage(text))
}

fn dev_binary(arguments: &SuiteArguments, server: &Path) -> Option<PathBuf> {
    let beside = || server.with_file_name("chronik");
    Some(arguments.dev_binary.clone().unwrap_or_else(beside)).filter(|path| path.is_file())
}

/// Says what is being done, to people only.
fn progress(text: &str) {
    if std::io::stderr().is_terminal() {
        let _ = writeln!(std::io::stderr().lock(), "{text}");
    }
}

/// Where the servers' data goes; what the suite made is removed at the end.
#[derive(Debug)]
struct DataDirectory {
    path: PathBuf,
    is_ours: bool,
}

impl DataDirectory {
    /// The given directory, which must be empty or missing, or a new one.
    fn prepare(given: Option<&Path>) -> Result<Self, Failure> {
        let name = format!("chronik-suite-{}", std::process::id());
        let (path, is_ours) = match given {
            Some(path) => (path.to_owned(), false),
            None => (std::env::temp_dir().join(name), true),
        };
        let failed = |source| Failure::File { action: "use", path: path.clone(), source };
        std::fs::create_dir_all(&path).map_err(failed)?;
        if std::fs::read_dir(&path).map_err(failed)?.next().is_some() {
            let text = format!("--data-dir {}: it is not empty", path.display());
            return Err(Failure::Usage(text));
        }
        Ok(Self { path, is_ours })
    }
}

impl Drop for DataDirectory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.path.join("server"));
        if self.is_ours {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

impl std::str::FromStr for Durability {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "fsync" => Ok(Self::Fsync),
            "os" => Ok(Self::Os),
            _ => Err(format!("{text:?} is no durability class; expected fsync or os")),
        }
    }
}
