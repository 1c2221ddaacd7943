//! Runs every input of the corpus through its target: `replay <corpus directory>`.
//!
//! Fails if an input panics, takes longer than a second, or belongs to no target, and if a
//! target has no input. Needs neither libFuzzer nor a C++ compiler.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use chronik_fuzz::{TARGETS, target};

/// Longest time for one input.
const INPUT_TIME_MAX: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let Some(corpus) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: replay <corpus directory>");
        return ExitCode::FAILURE;
    };
    match replay(&corpus) {
        Ok(inputs) => {
            println!("{inputs} inputs of {} targets replayed", TARGETS.len());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn replay(corpus: &Path) -> io::Result<usize> {
    for directory in sorted_entries(corpus)? {
        let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if target(&name).is_none() {
            return Err(io::Error::other(format!("{} belongs to no target", directory.display())));
        }
    }
    let mut inputs = 0;
    for target in TARGETS {
        let paths = sorted_entries(&corpus.join(target.name))?;
        if paths.is_empty() {
            return Err(io::Error::other(format!("target {} has no input", target.name)));
        }
        for path in paths {
            inputs += 1;
            replay_one(target.run, &path)?;
        }
    }
    Ok(inputs)
}

#[allow(clippy::disallowed_methods, reason = "a tool that reads its corpus and times itself")]
fn replay_one(run: fn(&[u8]), path: &Path) -> io::Result<()> {
    let input = fs::read(path)?;
    let started = Instant::now();
    let result = std::panic::catch_unwind(|| run(&input));
    let elapsed = started.elapsed();
    if result.is_err() {
        return Err(io::Error::other(format!("{}: panicked", path.display())));
    }
    if elapsed > INPUT_TIME_MAX {
        return Err(io::Error::other(format!("{}: took {elapsed:?}", path.display())));
    }
    Ok(())
}

fn sorted_entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).map_err(|error| {
        io::Error::new(error.kind(), format!("{}: {error}", directory.display()))
    })?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}
