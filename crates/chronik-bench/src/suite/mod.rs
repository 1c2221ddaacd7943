//! The standard suite: rows of one node, each in both durability classes, against servers that
//! the suite starts itself, fresh for every block.
//!
//! Blocks of a row are interleaved with the floors (`floor A floor A floor`), so that what the
//! machine does to one it does to the other. The result is one JSON document; `report.rs` makes
//! a page of it.

mod block;
mod noise;
mod report;
mod rows;
mod server;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::arguments::{Durability, SuiteArguments};
use crate::clock::wall_ms;
use crate::failure::Failure;
use crate::output::{self, environment};
use block::Lab;
use rows::{ROWS, Row};

/// Number of the suite document's form.
const SCHEMA: u64 = 1;

/// Part of a block's time that each floor gets, and its bounds.
const FLOOR_PART: u32 = 4;
const FLOOR_MIN: Duration = Duration::from_secs(1);
const FLOOR_MIN_SMALL: Duration = Duration::from_millis(200);

/// Runs the suite, or does what else its flags ask for.
pub(crate) fn run(arguments: &SuiteArguments) -> Result<(), Failure> {
    if let Some(suite) = &arguments.report {
        return write_page(suite, Path::new("docs/benchmarks.md"));
    }
    if arguments.list {
        let line = |row: &Row| format!("{:<14} {}\n", row.name, row.what);
        return output::print(&ROWS.iter().map(line).collect::<String>());
    }
    let rows = wanted_rows(&arguments.rows)?;
    let binary = server_binary(arguments)?;
    let directory = DataDirectory::prepare(arguments.data_dir.as_deref())?;
    let mut results = Vec::new();
    for row in rows {
        for durability in &arguments.durability {
            for variant in row.variants {
                let lab = Lab {
                    binary: binary.clone(),
                    dev_binary: dev_binary(arguments, &binary),
                    data: directory.path.join("server"),
                    durability: *durability,
                    duration: Duration::from_secs(arguments.block_seconds),
                    warmup: arguments.warmup_duration,
                    is_small: arguments.small,
                    split: arguments.split,
                };
                results.push(run_variant(row, variant, &lab, arguments.blocks)?);
                let document = document(arguments, &directory.path, &results);
                // After each row: a suite that is ended early leaves what it has.
                output::write_file(&arguments.json_output, &output::pretty(&document))?;
            }
        }
    }
    output::print(&format!("wrote {}\n", arguments.json_output.display()))
}

/// Writes the page of a suite's result.
pub(crate) fn write_page(suite: &Path, page: &Path) -> Result<(), Failure> {
    let document = output::read_json(suite)?;
    let refuse =
        |reason: &str| Failure::NotAResult { path: suite.to_owned(), reason: reason.to_owned() };
    if document["suite"].as_u64() != Some(SCHEMA) {
        return Err(refuse("it is no suite of a form that this tool knows"));
    }
    output::write_file(page, &report::page(&document))?;
    output::print(&format!("wrote {}\n", page.display()))
}

fn run_variant(
    row: &Row,
    variant: &rows::Variant,
    lab: &Lab,
    blocks: u32,
) -> Result<Value, Failure> {
    let mut floors = Vec::new();
    let mut journal_floors = Vec::new();
    let mut found = Vec::new();
    let mut skipped = None;
    for number in 0..blocks {
        progress(&format!(
            "{} {} {}, block {} of {blocks}",
            row.name,
            variant.name,
            lab.durability.name(),
            number + 1
        ));
        if row.has_floor {
            floors.push(block::floor(lab, variant, floor_time(lab))?);
            journal_floors.push(block::journal_floor(lab, variant, floor_time(lab))?);
        }
        match block::run(lab, row, variant) {
            Ok(block) => found.push(block),
            Err(Failure::Usage(reason)) => {
                skipped = Some(reason);
                break;
            }
            Err(failure) => return Err(failure),
        }
    }
    if row.has_floor && skipped.is_none() {
        floors.push(block::floor(lab, variant, floor_time(lab))?);
        journal_floors.push(block::journal_floor(lab, variant, floor_time(lab))?);
    }
    Ok(json!({
        "row": row.name,
        "what": row.what,
        "variant": variant.name,
        "command": variant.words(lab.is_small).join(" "),
        "durability": lab.durability.name(),
        "primary": row.primary,
        "blocks": found,
        "floors": floors,
        "journal_floors": journal_floors,
        "skipped": skipped,
    }))
}

fn floor_time(lab: &Lab) -> Duration {
    let shortest = if lab.is_small { FLOOR_MIN_SMALL } else { FLOOR_MIN };
    (lab.duration / FLOOR_PART).max(shortest)
}

fn document(arguments: &SuiteArguments, directory: &Path, results: &[Value]) -> Value {
    json!({
        "suite": SCHEMA,
        "tool": { "name": "chronik-bench", "version": env!("CARGO_PKG_VERSION") },
        "finished_at_ms": wall_ms(),
        "block_seconds": arguments.block_seconds,
        "warmup_seconds": arguments.warmup_duration.as_secs_f64(),
        "blocks": arguments.blocks,
        "is_small": arguments.small,
        "split": arguments.split.map(|(server, client)| json!([server, client])),
        "environment": environment(Some(directory)),
        "rows": results,
    })
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
