//! The parts of `cargo metadata` that the rules read.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::command::cargo_output;

/// The packages of the workspace and everything in its lock file for the asked targets.
#[derive(Deserialize)]
pub struct Metadata {
    pub packages: Vec<Package>,
    workspace_members: Vec<String>,
}

#[derive(Clone, Deserialize)]
pub struct Package {
    pub id: String,
    pub name: String,
    pub version: String,
    pub license: Option<String>,
    /// `registry+URL`, `git+URL`, or `None` for a path.
    pub source: Option<String>,
    pub manifest_path: String,
    pub dependencies: Vec<Dependency>,
    pub targets: Vec<Target>,
}

/// A dependency as the manifest declares it.
#[derive(Clone, Deserialize)]
pub struct Dependency {
    pub name: String,
    /// `None` for a normal one, else `dev` or `build`.
    pub kind: Option<String>,
    pub req: String,
    pub path: Option<String>,
}

impl Dependency {
    pub fn is_dev(&self) -> bool {
        self.kind.as_deref() == Some("dev")
    }
}

#[derive(Clone, Deserialize)]
pub struct Target {
    pub name: String,
    pub kind: Vec<String>,
}

impl Metadata {
    /// The workspace's own packages only, which needs no lock file and no network.
    pub fn of_workspace(root: &Path) -> Result<Self> {
        Self::parse(&cargo_output(root, &["metadata", "--format-version", "1", "--no-deps"])?)
    }

    /// Every package for `target`.
    pub fn of_target(root: &Path, target: &str) -> Result<Self> {
        let arguments =
            ["metadata", "--format-version", "1", "--locked", "--filter-platform", target];
        Self::parse(&cargo_output(root, &arguments)?)
    }

    /// The packages of the workspace, in order of name.
    pub fn members(&self) -> Vec<&Package> {
        let is_member = |package: &&Package| self.workspace_members.contains(&package.id);
        let mut members: Vec<_> = self.packages.iter().filter(is_member).collect();
        members.sort_by(|left, right| left.name.cmp(&right.name));
        members
    }

    fn parse(json: &str) -> Result<Self> {
        serde_json::from_str(json).context("cargo metadata has an unexpected form")
    }
}
