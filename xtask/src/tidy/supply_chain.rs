//! Bans, licences, sources and dated exceptions: `deny.toml` against what is built.
//!
//! `cargo metadata` also lists optional packages that nothing turns on, so the packages that count
//! are those that `cargo tree` prints.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::Breach;
use super::date::Day;
use super::licence;
use crate::metadata::Package;

/// The file with the rules, from the root of the repository.
pub const POLICY_FILE: &str = "deny.toml";

/// Days that an exception may be from its review.
const REVIEW_DAYS_MAX: i64 = 90;
const REVIEW_MARK: &str = "review by ";

/// Crates that others may bring along but that no crate of ours declares, and why.
const NOT_DECLARED: &[(&str, &str)] = &[
    ("lazy_static", "std::sync::LazyLock does it"),
    ("once_cell", "std::sync::OnceLock and LazyLock do it"),
    ("parking_lot", "the locks of std do it"),
];

/// The parts of `deny.toml` that are checked without cargo-deny.
#[derive(Deserialize)]
pub struct Policy {
    graph: Graph,
    advisories: Advisories,
    licenses: Licences,
    bans: Bans,
    sources: Sources,
}

#[derive(Deserialize)]
struct Graph {
    targets: Vec<String>,
}

#[derive(Deserialize)]
struct Advisories {
    ignore: Vec<Ignored>,
}

#[derive(Deserialize)]
struct Ignored {
    id: String,
    reason: String,
}

#[derive(Deserialize)]
struct Licences {
    allow: Vec<String>,
    #[serde(default)]
    exceptions: Vec<LicenceException>,
}

#[derive(Deserialize)]
struct LicenceException {
    #[serde(rename = "crate")]
    name: String,
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Banned>,
}

#[derive(Deserialize)]
struct Banned {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
    /// Packages that may depend on it all the same.
    #[serde(default)]
    wrappers: Vec<String>,
}

#[derive(Deserialize)]
struct Sources {
    #[serde(rename = "allow-registry")]
    registries: Vec<String>,
    #[serde(rename = "allow-git")]
    repositories: Vec<String>,
}

/// The packages that are built: name and version, with the names of who depends on each.
#[derive(Default)]
pub struct Tree {
    dependents: BTreeMap<(String, String), Vec<String>>,
}

impl Tree {
    /// Reads the output of `cargo tree --prefix depth --format " {p}"`.
    pub fn parse(text: &str) -> Self {
        let mut tree = Self::default();
        let mut path: Vec<String> = Vec::new();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let (Some(depth), Some(name), Some(version)) =
                (words.next(), words.next(), words.next())
            else {
                continue;
            };
            let depth: usize = depth.parse().unwrap_or_default();
            path.truncate(depth);
            let key = (name.to_owned(), version.trim_start_matches('v').to_owned());
            let dependents = tree.dependents.entry(key).or_default();
            dependents.extend(path.last().filter(|parent| !dependents.contains(parent)).cloned());
            path.push(name.to_owned());
        }
        tree
    }
}

impl Policy {
    /// Reads `deny.toml`.
    pub fn parse(text: &str) -> Result<Self> {
        toml::from_str(text).with_context(|| format!("{POLICY_FILE} has an unexpected form"))
    }

    /// The targets whose packages are checked.
    pub fn targets(&self) -> impl Iterator<Item = &str> {
        self.graph.targets.iter().map(String::as_str)
    }

    /// Exceptions without a review date, past it, or too far ahead of it.
    pub fn check_exceptions(&self, today: Day) -> Vec<Breach> {
        let breach = |ignored: &Ignored| {
            let place = format!("{POLICY_FILE}, {}", ignored.id);
            let date = ignored.reason.rsplit_once(REVIEW_MARK).map(|(_, date)| date);
            let Some(day) = date.and_then(Day::parse) else {
                let rule = format!("end the reason with \"{REVIEW_MARK}YYYY-MM-DD\"");
                return Some(Breach::new(place, rule));
            };
            if day < today {
                Some(Breach::new(
                    place,
                    "the review date is past: remove the exception or renew it",
                ))
            } else if day.0 - today.0 > REVIEW_DAYS_MAX {
                let rule = format!("the review date is more than {REVIEW_DAYS_MAX} days ahead");
                Some(Breach::new(place, rule))
            } else {
                None
            }
        };
        self.advisories.ignore.iter().filter_map(breach).collect()
    }

    /// Packages of `tree` that break a rule; `packages` describes at least those.
    pub fn check(&self, packages: &[Package], tree: &Tree) -> Vec<Breach> {
        let mut breaches = Vec::new();
        for package in packages {
            let key = (package.name.clone(), package.version.clone());
            if let Some(dependents) = tree.dependents.get(&key) {
                let place = format!("{} {}", package.name, package.version);
                let rules = [
                    self.ban_of(package, dependents),
                    self.licence_breach(package),
                    self.source_breach(package),
                ];
                breaches.extend(rules.into_iter().flatten().map(|rule| Breach::new(&place, rule)));
            }
        }
        breaches
    }

    fn ban_of(&self, package: &Package, dependents: &[String]) -> Option<String> {
        let banned = self.bans.deny.iter().find(|banned| banned.name == package.name)?;
        let others: Vec<_> =
            dependents.iter().filter(|name| !banned.wrappers.contains(name)).cloned().collect();
        (!others.is_empty())
            .then(|| format!("is banned ({}), needed by {}", banned.reason, others.join(", ")))
    }

    fn licence_breach(&self, package: &Package) -> Option<String> {
        let mut allowed = self.licenses.allow.clone();
        for exception in self.licenses.exceptions.iter().filter(|e| e.name == package.name) {
            allowed.extend(exception.allow.iter().cloned());
        }
        match &package.license {
            Some(expression) if licence::is_satisfied(expression, &allowed) => None,
            Some(expression) => Some(format!("has the licence {expression}, which is not allowed")),
            None => Some("names no licence".to_owned()),
        }
    }

    fn source_breach(&self, package: &Package) -> Option<String> {
        let source = package.source.as_deref()?;
        let is_allowed = match source.split_once('+') {
            Some(("registry" | "sparse", url)) => self.sources.registries.iter().any(|r| r == url),
            Some(("git", url)) => {
                let url = url.split(['?', '#']).next().unwrap_or(url);
                self.sources.repositories.iter().any(|repository| repository == url)
            }
            _ => false,
        };
        (!is_allowed).then(|| format!("comes from {source}, which is not allowed"))
    }
}

/// What the manifests of the workspace must not declare.
pub fn check_declarations(members: &[&Package]) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for member in members {
        for dependency in &member.dependencies {
            let name = dependency.name.as_str();
            if let Some((_, reason)) =
                NOT_DECLARED.iter().find(|(crate_name, _)| *crate_name == name)
            {
                breaches.push(Breach::new(&member.name, format!("must not use {name}: {reason}")));
            }
            if dependency.req == "*" && dependency.path.is_none() {
                let rule = format!("give {name} a version; * takes any");
                breaches.push(Breach::new(&member.name, rule));
            }
        }
    }
    breaches
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Dependency;

    const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

    fn policy() -> Policy {
        Policy::parse(include_str!("../../../deny.toml")).expect("the checked-in policy parses")
    }

    fn package(name: &str, license: Option<&str>, source: Option<&str>) -> Package {
        Package {
            id: name.to_owned(),
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            license: license.map(str::to_owned),
            source: source.map(str::to_owned),
            manifest_path: String::new(),
            dependencies: Vec::new(),
            targets: Vec::new(),
        }
    }

    fn breaches(package: &Package) -> Vec<String> {
        let tree = Tree::parse(&format!("0 ours v0.1.0\n1 {} v1.0.0\n", package.name));
        let packages = std::slice::from_ref(package);
        policy().check(packages, &tree).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_free_package_of_the_registry_passes() {
        let package = package("bytes", Some("MIT OR GPL-3.0-only"), Some(CRATES_IO));
        assert_eq!(breaches(&package), Vec::<String>::new());
    }

    #[test]
    fn banned_crates_are_found_with_who_needs_them() {
        for name in ["bincode", "dashmap", "openssl", "openssl-sys", "ring", "rustls-pemfile"] {
            let found = breaches(&package(name, Some("MIT"), Some(CRATES_IO)));
            assert_eq!(found.len(), 1, "{name}: {found:?}");
            assert!(found[0].starts_with(&format!("{name} 1.0.0: is banned (")), "{found:?}");
            assert!(found[0].ends_with("needed by ours"), "{found:?}");
        }
    }

    #[test]
    fn a_ban_does_not_count_inside_its_wrappers() {
        let mut policy = policy();
        policy.bans.deny[0].wrappers = vec!["ours".to_owned()];
        let banned = package(&policy.bans.deny[0].name, Some("MIT"), Some(CRATES_IO));
        let tree = |dependent: &str| format!("0 {dependent} v0.1.0\n1 {} v1.0.0\n", banned.name);
        let count = |dependent: &str| {
            policy.check(std::slice::from_ref(&banned), &Tree::parse(&tree(dependent))).len()
        };
        assert_eq!((count("ours"), count("theirs")), (0, 1));
    }

    #[test]
    fn foreign_licences_and_sources_are_found() {
        for (license, source) in [
            (Some("GPL-3.0-only"), CRATES_IO),
            (None, CRATES_IO),
            (Some("MIT"), "registry+https://example.com/index"),
            (Some("MIT"), "git+https://github.com/rust-lang/log?branch=main#0123"),
        ] {
            assert_eq!(breaches(&package("log", license, Some(source))).len(), 1, "{source}");
        }
    }

    #[test]
    fn packages_that_are_not_built_do_not_count() {
        let listed = [package("openssl", None, None)];
        assert_eq!(policy().check(&listed, &Tree::parse("0 ours v0.1.0\n")), []);
    }

    #[test]
    fn the_tree_knows_every_dependent() {
        let tree =
            Tree::parse("0 a v1.0.0 (/a)\n1 b v2.0.0\n2 c v3.0.0\n1 c v3.0.0\n\n0 b v2.0.0\n");
        let dependents = |name: &str, version: &str| {
            tree.dependents[&(name.to_owned(), version.to_owned())].join(" ")
        };
        assert_eq!(dependents("c", "3.0.0"), "b a");
        assert_eq!(dependents("b", "2.0.0"), "a");
        assert_eq!(dependents("a", "1.0.0"), "");
    }

    #[test]
    fn exceptions_need_a_review_within_ninety_days() {
        let mut policy = policy();
        let today = Day::parse("2026-11-21").expect("a date");
        for (reason, breaches) in [
            ("owner: storage; review by 2026-11-21", 0),
            ("owner: storage; review by 2027-02-19", 0),
            ("owner: storage; review by 2027-02-20", 1),
            ("owner: storage; review by 2026-11-20", 1),
            ("owner: storage", 1),
            ("review by soon", 1),
        ] {
            let (id, reason) = ("RUSTSEC-0000-0000".to_owned(), reason.to_owned());
            policy.advisories.ignore = vec![Ignored { id, reason: reason.clone() }];
            assert_eq!(policy.check_exceptions(today).len(), breaches, "{reason}");
        }
    }

    #[test]
    fn crates_that_std_replaces_and_wildcards_must_not_be_declared() {
        let mut member = package("chronik-wal", Some("MIT"), None);
        let dependency = |name: &str, req: &str, path: Option<&str>| Dependency {
            name: name.to_owned(),
            kind: None,
            req: req.to_owned(),
            path: path.map(str::to_owned),
        };
        member.dependencies = vec![
            dependency("bytes", "^1", None),
            dependency("chronik-common", "*", Some("/crates/chronik-common")),
        ];
        assert_eq!(check_declarations(&[&member]), []);
        member.dependencies = vec![
            dependency("parking_lot", "^0.12", None),
            dependency("once_cell", "^1", None),
            dependency("lazy_static", "^1", None),
            dependency("bytes", "*", None),
        ];
        assert_eq!(check_declarations(&[&member]).len(), 4);
    }
}
