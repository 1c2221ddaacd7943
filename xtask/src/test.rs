//! `cargo xtask test`: every check of a change, in order, up to the first failure.
//!
//! A step is one entry of [`STEPS`]. Cheap steps come first. A missing tool or file is a failure
//! of its step: nothing is left out silently.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::command::{cargo, cargo_output};
use crate::{clients, codegen, docs, fuzz, tidy};

/// One check.
struct Step {
    /// Name for `--only`.
    name: &'static str,
    /// What the step proves.
    headline: &'static str,
    /// What to do when it fails.
    advice: &'static str,
    run: fn(&Path) -> Result<()>,
}

/// The fuzz targets are a workspace of their own.
const FUZZ_MANIFEST: &str = "fuzz/Cargo.toml";

const STEPS: &[Step] = &[
    Step {
        name: "fmt",
        headline: "every file has rustfmt's shape",
        advice: "Run `cargo fmt --all`, and the same with `--manifest-path fuzz/Cargo.toml`.",
        run: |root| {
            component(root, "fmt", "rustfmt")?;
            cargo(root, &["fmt", "--all", "--", "--check"])?;
            cargo(root, &["fmt", "--manifest-path", FUZZ_MANIFEST, "--", "--check"])
        },
    },
    Step {
        name: "tidy",
        headline: "layers, dependencies, source rules and documents hold",
        advice: "Each line above names a place and a rule; follow the rule there.",
        run: tidy::run,
    },
    Step {
        name: "codegen",
        headline: "generated message types match their schemas",
        advice: "Edit the schema, not the generated file, then run `cargo xtask codegen`.",
        run: |root| codegen::run(root, true),
    },
    Step {
        name: "clippy",
        headline: "no warnings",
        advice: "Fix the warnings above; an `#[allow]` needs a reason that holds.",
        run: |root| {
            component(root, "clippy", "clippy")?;
            let rules = ["--all-targets", "--", "-D", "warnings"];
            cargo(root, &[&["clippy", "--locked", "--workspace"][..], &rules].concat())?;
            let fuzz = ["clippy", "--locked", "--manifest-path", FUZZ_MANIFEST];
            cargo(root, &[&fuzz[..], &["--target-dir", "fuzz/target"], &rules].concat())
        },
    },
    Step {
        name: "docs",
        headline: "reference pages match the code",
        advice: "Run `cargo xtask docs` and read the difference before you commit it.",
        run: |root| docs::run(root, true),
    },
    Step {
        name: "tests",
        headline: "unit, integration and documentation tests pass",
        advice: "Repeat a failing test alone with `cargo test -p CRATE NAME`.",
        run: |root| {
            clients::prepare(root)?;
            cargo(root, &["test", "--locked", "--workspace"])
        },
    },
    Step {
        name: "witness",
        headline: "the load tool works with librdkafka as its client",
        advice: "Repeat with `cargo test -p chronik-bench --features rdkafka`; it needs make and a C \
                 compiler.",
        run: |root| {
            let tool = ["--locked", "-p", "chronik-bench", "--features", "rdkafka"];
            let rules = ["--all-targets", "--", "-D", "warnings"];
            cargo(root, &[&["clippy"][..], &tool, &rules].concat())?;
            cargo(root, &[&["test"][..], &tool].concat())
        },
    },
    Step {
        name: "fuzz",
        headline: "inputs that once failed, and the seeds, do no harm",
        advice: "Repeat with `cargo xtask fuzz --replay`; it names the target and the input.",
        run: |root| fuzz::run(root, &["--replay".to_owned()]),
    },
    Step {
        name: "clients",
        headline: "kcat, librdkafka, kafka-python and rust-rdkafka work",
        advice: "Repeat one suite with `target/compat-venv/bin/python tests/compat/run.py \
                 target/debug/chronik-server /tmp/results.json SUITE`.",
        run: clients::run_suites,
    },
];

/// Runs all steps, or the one called `only`.
pub fn run(root: &Path, only: Option<&str>) -> Result<()> {
    let steps: Vec<_> =
        STEPS.iter().filter(|step| only.is_none_or(|name| step.name == name)).collect();
    if steps.is_empty() {
        bail!("there is no step {}; see `cargo xtask test --list`", only.unwrap_or_default());
    }
    let started = Instant::now();
    for (index, step) in steps.iter().enumerate() {
        println!("== {}/{} {}: {}", index + 1, steps.len(), step.name, step.headline);
        let step_started = Instant::now();
        let result = (step.run)(root);
        let seconds = step_started.elapsed().as_secs_f64();
        if let Err(error) = result {
            bail!("step {} failed after {seconds:.1} s: {error:#}. {}", step.name, step.advice);
        }
        println!("== {} ok in {seconds:.1} s", step.name);
    }
    println!("== all {} steps ok in {:.1} s", steps.len(), started.elapsed().as_secs_f64());
    Ok(())
}

/// Prints the steps in order.
pub fn list() {
    for step in STEPS {
        println!("{:<10} {}", step.name, step.headline);
    }
}

/// Fails with the command that installs `component` if cargo has no `subcommand`.
fn component(root: &Path, subcommand: &str, component: &str) -> Result<()> {
    cargo_output(root, &[subcommand, "--version"])
        .map(|_| ())
        .with_context(|| format!("{component} is missing: rustup component add {component}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_step_is_an_error_and_names_are_unique() {
        let error = run(Path::new("."), Some("no-such-step")).expect_err("no such step");
        assert!(error.to_string().contains("no-such-step"), "{error}");
        for step in STEPS {
            let same = STEPS.iter().filter(|other| other.name == step.name).count();
            assert_eq!(same, 1, "{}", step.name);
        }
    }
}
