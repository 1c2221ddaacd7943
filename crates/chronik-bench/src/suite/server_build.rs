//! What was measured: version, commit and profile of a server's program.
//!
//! What cannot be found out is left out, never guessed.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Map, Value};

/// Directories of cargo that are named after a profile.
const PROFILES: [&str; 3] = ["debug", "release", "dist"];

/// Describes a program; `commit` is what the user says of it.
pub(crate) fn server_build(binary: &Path, commit: Option<&str>) -> Value {
    let mut found = Map::new();
    let directory = binary.parent().unwrap_or(Path::new("."));
    let commit = commit.map(str::to_owned).or_else(|| commit_of(directory));
    let profile = directory.file_name().and_then(|name| name.to_str());
    let profile = profile.filter(|name| PROFILES.contains(name)).map(str::to_owned);
    let version = first_line(Command::new(binary).arg("--version"));
    for (name, value) in [("version", version), ("commit", commit), ("profile", profile)] {
        if let Some(value) = value {
            found.insert(name.to_owned(), value.into());
        }
    }
    if let Ok(file) = binary.metadata() {
        found.insert("bytes".to_owned(), file.len().into());
    }
    Value::Object(found)
}

/// The commit of the repository that a directory lies in, with a mark if files were changed.
fn commit_of(directory: &Path) -> Option<String> {
    let describe = ["describe", "--always", "--abbrev=12", "--exclude=*", "--dirty"];
    first_line(Command::new("git").arg("-C").arg(directory).args(describe))
}

fn first_line(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text.lines().next().filter(|_| output.status.success())?.trim();
    (!line.is_empty()).then(|| line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_outside_a_build_has_no_profile_and_a_missing_one_no_size() {
        let missing = server_build(Path::new("/nowhere/release/server"), Some("abc"));
        assert_eq!(missing, serde_json::json!({ "commit": "abc", "profile": "release" }));
        let this = server_build(&std::env::current_exe().unwrap(), None);
        assert!(this["profile"].is_null() && this["bytes"].as_u64() > Some(1_000), "{this}");
    }
}
