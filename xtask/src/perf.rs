//! `cargo xtask perf`: instructions, allocations, system calls and syncs, compared with recorded
//! figures.
//!
//! ```text
//!   perf [--only SCENARIO]            count, compare with xtask/perf.toml, fail if worse
//!   perf --record [--only SCENARIO]   count, write xtask/perf.toml
//! ```
//!
//! Counts, not times: a busy machine does not change them much. The crate `chronik-perf` counts;
//! this file builds it and the server with the release profile, checks that the tools are those of
//! the record, and asks again once where a figure is worse, because foreign load can only do that
//! once in a while and a regression does it always.

mod figures;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::clients;
use crate::command::{cargo, output};
use figures::{Measured, Record, Verdict};

const USAGE: &str = "usage: cargo xtask perf [--record] [--only SCENARIO]";
/// The recorded figures.
const FILE: &str = "xtask/perf.toml";
/// Debian packages, as [`clients::install`] takes them.
const PACKAGES: &[(&str, &str)] = &[("valgrind", "valgrind"), ("strace", "strace")];
/// Times a scenario is counted before a worse figure is believed.
const ATTEMPTS: usize = 2;

/// Runs the command with the arguments behind `perf`.
///
/// # Errors
/// If something does not build or cannot be counted, or a figure is worse than recorded.
pub fn run(root: &Path, arguments: &[&str]) -> Result<()> {
    match arguments {
        [] => compare(root, None),
        ["--only", scenario] => compare(root, Some(scenario)),
        ["--record"] => record(root, None),
        ["--record", "--only", scenario] => record(root, Some(scenario)),
        _ => bail!(USAGE),
    }
}

fn compare(root: &Path, only: Option<&str>) -> Result<()> {
    clients::install(PACKAGES)?;
    let text = fs::read_to_string(root.join(FILE))
        .with_context(|| format!("cannot read {FILE}; `cargo xtask perf --record` writes it"))?;
    let record = Record::parse(&text).with_context(|| format!("{FILE} is no record"))?;
    let tools = tools()?;
    if let Some(difference) = record.difference_of_tools(&tools) {
        bail!("{difference}: the counts do not compare. Record anew: cargo xtask perf --record");
    }
    let counter = Counter::build(root)?;
    let mut measured = Vec::new();
    for scenario in counter.scenarios(only)? {
        let mut figures = counter.count(&scenario)?;
        for _ in 1..ATTEMPTS {
            if record.is_met_by(&figures) {
                break;
            }
            println!("{scenario} is worse than recorded; counting again");
            figures = record.best_of(figures, counter.count(&scenario)?);
        }
        measured.extend(figures);
    }
    let verdicts = record.compare(&measured, only);
    print!("{}", figures::table(&verdicts));
    let failures: Vec<String> = verdicts.iter().filter_map(Verdict::failure).collect();
    for failure in &failures {
        println!("{failure}");
    }
    match failures.len() {
        0 => Ok(()),
        1 => bail!("1 figure is not as recorded in {FILE}"),
        count => bail!("{count} figures are not as recorded in {FILE}"),
    }
}

fn record(root: &Path, only: Option<&str>) -> Result<()> {
    clients::install(PACKAGES)?;
    let file = root.join(FILE);
    let earlier = match fs::read_to_string(&file) {
        Ok(text) => Record::parse(&text).with_context(|| format!("{FILE} is no record"))?,
        Err(_) => Record::default(),
    };
    let tools = tools()?;
    let is_partial = only.is_some() && earlier != Record::default();
    if let (true, Some(difference)) = (is_partial, earlier.difference_of_tools(&tools)) {
        bail!("{difference}: record all scenarios anew, without --only");
    }
    let counter = Counter::build(root)?;
    let mut measured = Vec::new();
    for scenario in counter.scenarios(only)? {
        measured.extend(counter.count(&scenario)?);
    }
    print!("{}", figures::table(&earlier.compare(&measured, only)));
    let record = earlier.updated(tools, &measured, only);
    fs::write(&file, record.to_toml()).with_context(|| format!("cannot write {FILE}"))?;
    println!("wrote {FILE}");
    Ok(())
}

/// What the counts depend on besides the code, by name.
fn tools() -> Result<BTreeMap<String, String>> {
    let first_line = |program: &str, arguments: &[&str]| -> Result<String> {
        let mut command = Command::new(program);
        command.args(arguments);
        let text = output(command, program)?;
        Ok(text.lines().next().unwrap_or_default().to_owned())
    };
    // The C library chooses its copy and search functions by what the processor can do.
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let has = |flag: &str| processor.split_whitespace().any(|word| word == flag);
    let flags = ["sse4_2", "avx2"].into_iter().filter(|flag| has(flag));
    let flags: Vec<&str> = [std::env::consts::ARCH].into_iter().chain(flags).collect();
    let tools = [
        ("rustc", first_line("rustc", &["--version"])?),
        ("profile", "release".to_owned()),
        ("valgrind", first_line("valgrind", &["--version"])?),
        ("libc", first_line("getconf", &["GNU_LIBC_VERSION"])?),
        ("processor", flags.join(" ")),
    ];
    Ok(tools.map(|(name, value)| (name.to_owned(), value)).into())
}

/// The programs that count and are counted.
struct Counter {
    program: PathBuf,
    server: PathBuf,
}

impl Counter {
    fn build(root: &Path) -> Result<Self> {
        // Apart from each other, so that the server has the features it is shipped with.
        for package in ["chronik-server", "chronik-perf"] {
            cargo(root, &["build", "--release", "--locked", "--package", package])?;
        }
        let directory = clients::target(root).join("release");
        Ok(Self {
            program: directory.join("chronik-perf"),
            server: directory.join("chronik-server"),
        })
    }

    /// All scenarios, or the one called `only`.
    fn scenarios(&self, only: Option<&str>) -> Result<Vec<String>> {
        let mut command = Command::new(&self.program);
        command.arg("list");
        let names = output(command, "chronik-perf list")?;
        let names: Vec<String> = names.lines().map(str::to_owned).collect();
        match only {
            None => Ok(names),
            Some(name) if names.iter().any(|known| known == name) => Ok(vec![name.to_owned()]),
            Some(name) => bail!("no scenario is called {name}; there are {}", names.join(", ")),
        }
    }

    /// The figures of a scenario.
    fn count(&self, scenario: &str) -> Result<Vec<Measured>> {
        println!("counting {scenario}");
        let mut command = Command::new(&self.program);
        command.args(["count", scenario]).arg(&self.server).stdin(Stdio::null());
        let text = output(command, &format!("chronik-perf count {scenario}"))?;
        let figures: Option<Vec<Measured>> = text.lines().map(Measured::parse).collect();
        let figures = figures.with_context(|| format!("chronik-perf printed {text:?}"))?;
        ensure!(!figures.is_empty(), "{scenario} has no figures");
        Ok(figures)
    }
}
