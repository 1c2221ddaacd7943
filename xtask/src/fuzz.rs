//! `cargo xtask fuzz`: libFuzzer on stable Rust, and replay of the corpus without it.
//!
//! ```text
//!   fuzz <target>|all [--seconds N]   search for N seconds per target, 60 without it
//!   fuzz --replay                     run the checked-in corpus; needs no C++ compiler
//!   fuzz --seeds                      write the seeds of all targets into the corpus
//!   fuzz --self-test                  prove that the fuzzer finds a planted bug
//! ```
//!
//! Builds the `fuzz` workspace into `fuzz/target`. What the fuzzer learns is kept in
//! `fuzz/target/corpus/<target>`; an input that fails is written to
//! `fuzz/target/failures/<target>`, and belongs into `fuzz/corpus/<target>` with its fix.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};

const USAGE: &str =
    "usage: cargo xtask fuzz <target>|all [--seconds N] | --replay | --seeds | --self-test";

const DEFAULT_SECONDS: u32 = 60;
/// Time in which the planted bug must be found; it takes about 15,000 executions, well below a
/// second.
const SELF_TEST_SECONDS: u32 = 20;
const PLANTED_BUG: &str = "planted_bug";

/// Longest time for one input, in seconds of the clock: a busy machine may stop a fuzzer for a while.
const INPUT_SECONDS_MAX: u32 = 10;
/// Memory of the fuzzing process, in MiB.
const MEMORY_MIB_MAX: u32 = 1_024;
/// Longest input tried, in bytes.
const INPUT_BYTES_MAX: u32 = 16_384;

/// Edge coverage with inline counters, and comparisons reported to libFuzzer; what
/// `-fsanitize=fuzzer` means to a C compiler, spelled out for LLVM. The last two keep the
/// optimiser from folding conditions into one and from expanding comparisons of slices, which
/// would hide from libFuzzer what is compared with what.
const COVERAGE_FLAGS: &str = "-Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Cllvm-args=-simplifycfg-branch-fold-threshold=0 \
    -Cllvm-args=-max-loads-per-memcmp=0";

/// Runs the command with the arguments behind `fuzz`.
///
/// # Errors
/// If the arguments are wrong, something does not build, or an input fails.
pub fn run(workspace_root: &Path, args: &[String]) -> anyhow::Result<()> {
    let fuzz = FuzzWorkspace::at(workspace_root);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["--replay"] => fuzz.run_tool("replay"),
        ["--seeds"] => fuzz.run_tool("seeds"),
        ["--self-test"] => fuzz.self_test(),
        [target] if !target.starts_with('-') => fuzz.search(target, DEFAULT_SECONDS),
        [target, "--seconds", seconds] if !target.starts_with('-') => {
            fuzz.search(target, seconds.parse().context("--seconds takes a whole number")?)
        }
        _ => bail!(USAGE),
    }
}

/// The directory `fuzz` of the repository.
struct FuzzWorkspace {
    root: PathBuf,
}

impl FuzzWorkspace {
    fn at(workspace_root: &Path) -> Self {
        Self { root: workspace_root.join("fuzz") }
    }

    fn corpus(&self) -> PathBuf {
        self.root.join("corpus")
    }

    fn build_directory(&self) -> PathBuf {
        self.root.join("target")
    }

    /// Runs `replay` or `seeds` on the corpus.
    fn run_tool(&self, tool: &str) -> anyhow::Result<()> {
        let status = self
            .cargo("run")
            .args(["--quiet", "--bin", tool, "--"])
            .arg(self.corpus())
            .status()
            .context("cannot start cargo")?;
        ensure!(status.success(), "{tool} failed");
        Ok(())
    }

    fn search(&self, target: &str, seconds: u32) -> anyhow::Result<()> {
        let targets = self.targets()?;
        let chosen = match target {
            "all" => targets,
            _ if targets.iter().any(|known| known == target) => vec![target.to_owned()],
            _ => bail!("no target is called {target}; there are {}", targets.join(", ")),
        };
        let fuzzer = self.build_fuzzer()?;
        let mut failed = Vec::new();
        for target in chosen {
            if !self.fuzz(&fuzzer, &target, seconds)? {
                failed.push(target);
            }
        }
        ensure!(
            failed.is_empty(),
            "failing inputs of {} are in {}",
            failed.join(", "),
            self.build_directory().join("failures").display()
        );
        Ok(())
    }

    /// The planted bug is found, or a clean run of any target means nothing.
    fn self_test(&self) -> anyhow::Result<()> {
        let learnt = self.build_directory().join("corpus").join(PLANTED_BUG);
        if learnt.exists() {
            std::fs::remove_dir_all(&learnt).context("cannot forget earlier runs")?;
        }
        let fuzzer = self.build_fuzzer()?;
        let is_clean = self.fuzz(&fuzzer, PLANTED_BUG, SELF_TEST_SECONDS)?;
        ensure!(!is_clean, "the planted bug was not found in {SELF_TEST_SECONDS} s");
        Ok(())
    }

    /// Names of the targets: the directories of the corpus, which replay keeps complete.
    fn targets(&self) -> anyhow::Result<Vec<String>> {
        let corpus = self.corpus();
        let mut names = Vec::new();
        for entry in corpus.read_dir().with_context(|| format!("{}", corpus.display()))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name != PLANTED_BUG {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Builds the fuzzer and returns its path.
    fn build_fuzzer(&self) -> anyhow::Result<PathBuf> {
        let host = host_triple()?;
        let status = self
            .cargo("build")
            // With a named target, build scripts and macros are not instrumented.
            .args(["--release", "--features", "libfuzzer", "--bin", "fuzzer", "--target", &host])
            .env("RUSTFLAGS", COVERAGE_FLAGS)
            .status()
            .context("cannot start cargo")?;
        ensure!(status.success(), "the fuzzer does not build; it needs a C++ compiler");
        Ok(self.build_directory().join(host).join("release").join("fuzzer"))
    }

    /// Runs the fuzzer; false if it found something.
    #[allow(clippy::disallowed_methods, reason = "a tool that prepares its own directories")]
    fn fuzz(&self, fuzzer: &Path, target: &str, seconds: u32) -> anyhow::Result<bool> {
        let learnt = self.build_directory().join("corpus").join(target);
        let failures = self.build_directory().join("failures").join(target);
        for directory in [&learnt, &failures] {
            std::fs::create_dir_all(directory)
                .with_context(|| format!("cannot create {}", directory.display()))?;
        }
        let status = Command::new(fuzzer)
            .env("CHRONIK_FUZZ_TARGET", target)
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-timeout={INPUT_SECONDS_MAX}"))
            .arg(format!("-rss_limit_mb={MEMORY_MIB_MAX}"))
            .arg(format!("-max_len={INPUT_BYTES_MAX}"))
            .arg(format!("-dict={}", self.root.join("dictionary").display()))
            .arg(format!("-artifact_prefix={}/", failures.display()))
            .arg("-print_final_stats=1")
            .arg(&learnt)
            .arg(self.corpus().join(target))
            .status()
            .with_context(|| format!("cannot start {}", fuzzer.display()))?;
        Ok(status.success())
    }

    fn cargo(&self, command: &str) -> Command {
        let mut cargo = Command::new("cargo");
        cargo
            .arg(command)
            .arg("--manifest-path")
            .arg(self.root.join("Cargo.toml"))
            .arg("--target-dir")
            .arg(self.build_directory());
        cargo
    }
}

/// The machine's own target, as rustc names it.
fn host_triple() -> anyhow::Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("cannot start rustc")?;
    let text = String::from_utf8(output.stdout).context("rustc speaks UTF-8")?;
    text.lines()
        .find_map(|line| line.strip_prefix("host: "))
        .map(str::to_owned)
        .context("rustc names its host")
}
