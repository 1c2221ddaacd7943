//! Build, test and release commands of the workspace: `cargo xtask <command>`.
//!
//! This file only names the commands. The tool imports no crate of the workspace, so that it
//! builds while they do not; what needs their code runs one of their examples.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool prints")]

mod clients;
mod codegen;
mod command;
mod docs;
mod fuzz;
mod metadata;
mod perf;
mod test;
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};

const USAGE: &str = "\
usage: cargo xtask COMMAND

  test [--only STEP] [--list]   every check of a change, in order, up to the first failure
  ci [--only STEP] [--list]     the same
  tidy                          layers, dependencies, source rules, documents
  codegen [--check]             message types of chronik-protocol from its schema files
  docs [--check]                docs/reference from the tables in the code,
                                docs/benchmarks.md from the results in docs/benchmarks
  fuzz TARGET|all [--seconds N] | --replay | --seeds | --self-test
                                search for inputs that fail, or run the known ones again
  perf [--record] [--only SCENARIO]
                                count instructions, allocations, system calls and syncs, and
                                compare with xtask/perf.toml

With --check nothing is written; a difference is a failure.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the command that `arguments` name; returns false if they name none.
fn run(arguments: &[&str]) -> Result<bool> {
    let root = workspace_root()?;
    match arguments {
        ["test" | "ci"] => test::run(&root, None)?,
        ["test" | "ci", "--only", step] => test::run(&root, Some(step))?,
        ["test" | "ci", "--list"] => test::list(),
        ["tidy"] => tidy::run(&root)?,
        ["codegen"] => codegen::run(&root, false)?,
        ["codegen", "--check"] => codegen::run(&root, true)?,
        ["docs"] => docs::run(&root, false)?,
        ["docs", "--check"] => docs::run(&root, true)?,
        ["fuzz", rest @ ..] => {
            let rest: Vec<String> = rest.iter().map(|argument| (*argument).to_owned()).collect();
            fuzz::run(&root, &rest)?;
        }
        ["perf", rest @ ..] => perf::run(&root, rest)?,
        ["help" | "--help" | "-h"] => println!("{USAGE}"),
        _ => return Ok(false),
    }
    Ok(true)
}

fn workspace_root() -> Result<PathBuf> {
    let tool = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let root = tool.parent().context("the tool lies in the workspace")?;
    root.canonicalize().with_context(|| format!("{} is gone", root.display()))
}
