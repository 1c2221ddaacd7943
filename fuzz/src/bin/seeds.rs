//! Writes the seeds of every target: `seeds <corpus directory>`. Files of other names, such as
//! inputs that once failed, stay.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use chronik_fuzz::{PLANTED_BUG, TARGETS};

fn main() -> ExitCode {
    let Some(corpus) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: seeds <corpus directory>");
        return ExitCode::FAILURE;
    };
    match write_seeds(&corpus) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", corpus.display());
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "a tool that writes into the source tree")]
fn write_seeds(corpus: &Path) -> io::Result<()> {
    for target in TARGETS.iter().chain([PLANTED_BUG]) {
        let directory = corpus.join(target.name);
        fs::create_dir_all(&directory)?;
        for seed in (target.seeds)() {
            fs::write(directory.join(seed.name), seed.bytes)?;
        }
    }
    Ok(())
}
