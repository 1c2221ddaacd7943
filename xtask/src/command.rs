//! Running other programs, with an error that says what is missing.

use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// Runs cargo in `root`; its output goes to the terminal.
pub fn cargo(root: &Path, arguments: &[&str]) -> Result<()> {
    let status = cargo_command(root, arguments).status().context("cargo cannot be started")?;
    ensure!(status.success(), "`cargo {}` failed", arguments.join(" "));
    Ok(())
}

/// Runs cargo in `root` and returns what it wrote to standard output.
pub fn cargo_output(root: &Path, arguments: &[&str]) -> Result<String> {
    output(cargo_command(root, arguments), &format!("cargo {}", arguments.join(" ")))
}

/// The files of the repository that exist: tracked ones, and new ones that are not ignored.
/// Paths are relative to `root`, with forward slashes, sorted.
pub fn repository_files(root: &Path) -> Result<Vec<String>> {
    let arguments = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let mut git = Command::new("git");
    git.current_dir(root).args(arguments);
    let listed = output(git, "git ls-files")?;
    let mut files: Vec<_> = listed
        .split_terminator('\0')
        .filter(|file| root.join(file).is_file())
        .map(str::to_owned)
        .collect();
    files.sort();
    files.dedup();
    Ok(files)
}

fn cargo_command(root: &Path, arguments: &[&str]) -> Command {
    // Cargo tells its children which cargo it is, so that nested calls use the same toolchain.
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.current_dir(root).args(arguments);
    command
}

/// Runs `command`, called `name` in errors, and returns what it wrote to standard output.
pub fn output(mut command: Command, name: &str) -> Result<String> {
    let output = match command.stdin(Stdio::null()).stderr(Stdio::inherit()).output() {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("{} is not installed", command.get_program().display())
        }
        Err(error) => return Err(error).with_context(|| format!("`{name}` cannot be started")),
    };
    ensure!(output.status.success(), "`{name}` failed");
    String::from_utf8(output.stdout).with_context(|| format!("`{name}` printed no UTF-8"))
}
