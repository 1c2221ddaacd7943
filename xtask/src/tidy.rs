//! `cargo xtask tidy`: the rules of the repository that no compiler checks.
//!
//! Each module holds one family of rules as data and a pure check over it. This file gathers
//! what they look at and prints every breach.

mod date;
mod documents;
mod layers;
mod licence;
mod settings;
mod sources;
mod supply_chain;

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::command::{cargo_output, repository_files};
use crate::metadata::Metadata;
use supply_chain::{Policy, Tree};

/// One breach of one rule.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Breach {
    /// File, with a line if there is one, or package.
    place: String,
    /// What is wrong, and what to do instead.
    rule: String,
}

impl Breach {
    fn new(place: impl Into<String>, rule: impl Into<String>) -> Self {
        Self { place: place.into(), rule: rule.into() }
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.rule)
    }
}

/// Manifest of the only crate that may have unsafe code.
const UNSAFE_MANIFEST: &str = "crates/chronik-scheduler/Cargo.toml";

/// Checks every rule and prints every breach.
pub fn run(root: &Path) -> Result<()> {
    let workspace = Metadata::of_workspace(root)?;
    let members = workspace.members();
    let mut breaches = layers::check(&members);
    breaches.extend(supply_chain::check_declarations(&members));
    for member in &members {
        breaches.extend(check_lints(root, &member.manifest_path)?);
    }
    breaches.extend(check_supply_chain(root)?);
    breaches.extend(check_files(root)?);
    breaches.sort();
    breaches.dedup();
    for breach in &breaches {
        println!("{breach}");
    }
    match breaches.len() {
        0 => Ok(()),
        1 => bail!("tidy found 1 breach"),
        count => bail!("tidy found {count} breaches"),
    }
}

fn check_supply_chain(root: &Path) -> Result<Vec<Breach>> {
    let text = fs::read_to_string(root.join(supply_chain::POLICY_FILE))
        .with_context(|| format!("cannot read {}", supply_chain::POLICY_FILE))?;
    let policy = Policy::parse(&text)?;
    let mut breaches = policy.check_exceptions(date::today());
    for target in policy.targets() {
        let arguments = ["tree", "--locked", "--workspace", "--target", target];
        let format = ["--edges", "normal,build,dev", "--prefix", "depth", "--format", " {p}"];
        let tree = cargo_output(root, &[&arguments[..], &format, &["--no-dedupe"]].concat())?;
        let tree = Tree::parse(&tree);
        let packages = Metadata::of_target(root, target)?.packages;
        breaches.extend(policy.check(&packages, &tree));
    }
    Ok(breaches)
}

fn check_files(root: &Path) -> Result<Vec<Breach>> {
    let files = repository_files(root)?;
    let mut breaches = documents::check(&files);
    let mut code = Vec::new();
    for file in files.iter().filter(|file| sources::is_text(file)) {
        let text = fs::read_to_string(root.join(file))
            .with_context(|| format!("cannot read {file} as text"))?;
        breaches.extend(sources::check(file, &text));
        if file.ends_with(".rs") {
            code.push((file.clone(), text));
        }
    }
    let page = fs::read_to_string(root.join(settings::PAGE)).unwrap_or_default();
    breaches.extend(settings::check(&page, &code));
    Ok(breaches)
}

fn check_lints(root: &Path, manifest: &str) -> Result<Option<Breach>> {
    let text = fs::read_to_string(manifest).with_context(|| format!("cannot read {manifest}"))?;
    let place = Path::new(manifest).strip_prefix(root).unwrap_or(Path::new(manifest));
    Ok(lints_breach(&place.display().to_string(), &text))
}

/// A crate that does not inherit the lints of the workspace. The one that may have unsafe code
/// cannot, because they forbid it; it denies it, so that each place says why it is needed.
fn lints_breach(place: &str, manifest: &str) -> Option<Breach> {
    let table: toml::Table = manifest.parse().unwrap_or_default();
    if place == UNSAFE_MANIFEST {
        let level = table.get("lints").and_then(|lints| lints.get("rust")?.get("unsafe_code"));
        return (level.and_then(toml::Value::as_str) != Some("deny"))
            .then(|| Breach::new(place, "deny unsafe code: [lints.rust] unsafe_code = \"deny\""));
    }
    let inherits = table.get("lints").and_then(|lints| lints.get("workspace")?.as_bool());
    (inherits != Some(true))
        .then(|| Breach::new(place, "inherit the lints: [lints] workspace = true"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_without_the_workspace_lints_is_found() {
        assert_eq!(lints_breach("Cargo.toml", "[lints]\nworkspace = true\n"), None);
        for manifest in ["", "[lints]\nworkspace = false\n", "[lints.rust]\nunsafe_code = \"warn\""]
        {
            assert!(lints_breach("Cargo.toml", manifest).is_some(), "{manifest}");
        }
    }

    #[test]
    fn the_crate_with_unsafe_code_denies_it_by_itself() {
        let lints = |level: &str| format!("[lints.rust]\nunsafe_code = \"{level}\"\n");
        assert_eq!(lints_breach(UNSAFE_MANIFEST, &lints("deny")), None);
        assert!(lints_breach(UNSAFE_MANIFEST, &lints("warn")).is_some());
        assert!(lints_breach("crates/other/Cargo.toml", &lints("deny")).is_some());
    }
}
