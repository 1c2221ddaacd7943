//! The client suites of `tests/compat`: unmodified Kafka clients against the server of this
//! checkout. Installs what they need, pinned: Python packages into `target/compat-venv`, kcat
//! with Debian's package manager where it is missing and we may.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::cargo;

/// Debian packages: the program that proves they are there, and the package.
const DEBIAN_PACKAGES: &[(&str, &str)] = &[("kcat", "kcat"), ("strace", "strace")];

/// Installs what tests need beyond cargo and Python; a machine that cannot is told what to do.
pub fn prepare(_root: &Path) -> Result<()> {
    install(DEBIAN_PACKAGES)
}

/// Installs the Debian packages whose programs are missing, or says how to.
pub fn install(packages: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<&str> = packages
        .iter()
        .filter(|(program, _)| !is_in_path(program))
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("installing {}", missing.join(" "));
    // A fresh machine has no package lists yet.
    let _ = run(Command::new("apt-get").args(["update", "-q"]));
    run(Command::new("apt-get").args(["install", "-y", "-q"]).args(&missing)).with_context(|| {
        format!("cannot install {0}; as root, run: apt-get install {0}", missing.join(" "))
    })
}

/// Runs all suites.
pub fn run_suites(root: &Path) -> Result<()> {
    prepare(root)?;
    cargo(root, &["build", "--locked", "--bin", "chronik-server"])?;
    let python = python(root)?;
    run(Command::new(&python)
        .arg(root.join("tests/compat/protocol_oracle/oracle.py"))
        .current_dir(root))
    .context("kafka-python decodes our messages differently")?;
    run(Command::new(&python)
        .arg(root.join("tests/compat/run.py"))
        .arg(target(root).join("debug/chronik-server"))
        .arg(target(root).join("compat-results.json"))
        .current_dir(root)
        .env("CARGO_TARGET_DIR", target(root)))
}

/// The interpreter of a virtual environment with the pinned packages.
fn python(root: &Path) -> Result<PathBuf> {
    let environment = target(root).join("compat-venv");
    let python = environment.join("bin/python");
    if !python.exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&environment))
            .context("python3 with venv is needed: on Debian, apt-get install python3-venv")?;
    }
    run(Command::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"])
        .arg(root.join("tests/compat/requirements.txt")))
    .context("cannot install the pinned Python packages")?;
    Ok(python)
}

/// Where cargo builds.
pub fn target(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from)
}

fn is_in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}
