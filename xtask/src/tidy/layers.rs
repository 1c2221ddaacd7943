//! Which crate may import which: ARCHITECTURE.md's table as data.
//!
//! Dev-dependencies are exempt: a test may look at its crate from anywhere.

use super::Breach;
use crate::metadata::Package;

/// A crate, and the crates of the workspace it may import.
const LAYERS: &[(&str, &[&str])] = &[
    ("chronik-common", &[]),
    ("chronik-scheduler", &[]),
    ("chronik-record", &["chronik-common"]),
    ("chronik-config", &["chronik-common"]),
    ("chronik-monitoring", &["chronik-common"]),
    ("chronik-protocol", &["chronik-common", "chronik-record"]),
    ("chronik-wal", &["chronik-common", "chronik-record", "chronik-config", "chronik-scheduler"]),
    ("chronik-cluster", &["chronik-common", "chronik-config"]),
    (
        "chronik-partition",
        &["chronik-common", "chronik-record", "chronik-config", "chronik-wal", "chronik-cluster"],
    ),
    (
        "chronik-server",
        &[
            "chronik-common",
            "chronik-record",
            "chronik-config",
            "chronik-monitoring",
            "chronik-protocol",
            "chronik-wal",
            "chronik-cluster",
            "chronik-partition",
        ],
    ),
    ("chronik-bench", &["chronik-common", "chronik-record", "chronik-protocol"]),
    // `chronik dev` and `chronik server` run the server in the same process: the command-line tool
    // imports its entry point, and nothing behind it is public. `chronik debug` and
    // `chronik doctor` look at files of a data directory and need their names and formats.
    // `chronik bench` is `chronik-bench`.
    (
        "chronik-cli",
        &[
            "chronik-common",
            "chronik-record",
            "chronik-config",
            "chronik-protocol",
            "chronik-wal",
            "chronik-server",
            "chronik-bench",
        ],
    ),
    (
        "chronik-testkit",
        &[
            "chronik-common",
            "chronik-record",
            "chronik-config",
            "chronik-monitoring",
            "chronik-protocol",
            "chronik-wal",
            "chronik-cluster",
            "chronik-partition",
            "chronik-server",
        ],
    ),
    (
        "chronik-perf",
        &[
            "chronik-common",
            "chronik-record",
            "chronik-config",
            "chronik-protocol",
            "chronik-wal",
            "chronik-cluster",
            "chronik-partition",
            "chronik-testkit",
        ],
    ),
    ("xtask", &[]),
];

/// Outside crates that belong to some layers only: who may not have them, and why.
const KEPT_OUT: &[(&str, &[&str], &str)] = &[
    (
        "tokio",
        &[
            "chronik-common",
            "chronik-record",
            "chronik-config",
            "chronik-monitoring",
            "chronik-protocol",
            "chronik-wal",
            "chronik-cluster",
        ],
        "engines are pure steps; the runtime lives in the drivers above them",
    ),
    (
        "anyhow",
        &[
            "chronik-common",
            "chronik-record",
            "chronik-config",
            "chronik-monitoring",
            "chronik-protocol",
            "chronik-wal",
            "chronik-cluster",
            "chronik-partition",
        ],
        "a library has one typed error per operation family",
    ),
];

/// Every edge between workspace crates, or to an outside crate, that the tables do not allow.
pub fn check(members: &[&Package]) -> Vec<Breach> {
    members.iter().flat_map(|member| check_package(member, members)).collect()
}

fn check_package(package: &Package, members: &[&Package]) -> Vec<Breach> {
    let name = package.name.as_str();
    let Some((_, allowed)) = LAYERS.iter().find(|(known, _)| *known == name) else {
        return vec![Breach::new(name, "give this crate a row in the layer table of tidy")];
    };
    let mut breaches = Vec::new();
    for dependency in package.dependencies.iter().filter(|dependency| !dependency.is_dev()) {
        let other = dependency.name.as_str();
        let is_member = members.iter().any(|member| member.name == other);
        if is_member && !allowed.contains(&other) {
            let rule = format!("must not import {other}: the layer table does not allow it");
            breaches.push(Breach::new(name, rule));
        }
        for (outside, kept_out_of, reason) in KEPT_OUT {
            if other == *outside && kept_out_of.contains(&name) {
                breaches.push(Breach::new(name, format!("must not import {outside}: {reason}")));
            }
        }
    }
    breaches
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Dependency;

    fn package(name: &str, dependencies: &[(&str, Option<&str>)]) -> Package {
        let dependency = |(name, kind): &(&str, Option<&str>)| Dependency {
            name: (*name).to_owned(),
            kind: kind.map(str::to_owned),
            req: "*".to_owned(),
            path: None,
        };
        Package {
            id: name.to_owned(),
            name: name.to_owned(),
            version: "0.1.0".to_owned(),
            license: None,
            source: None,
            manifest_path: String::new(),
            dependencies: dependencies.iter().map(dependency).collect(),
            targets: Vec::new(),
        }
    }

    fn breaches(packages: &[Package]) -> Vec<String> {
        let members: Vec<_> = packages.iter().collect();
        check(&members).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn edges_of_the_table_and_dev_dependencies_are_allowed() {
        let packages = [
            package("chronik-common", &[("chronik-record", Some("dev")), ("tokio", Some("dev"))]),
            package("chronik-record", &[("chronik-common", None), ("bytes", None)]),
        ];
        assert_eq!(breaches(&packages), Vec::<String>::new());
    }

    #[test]
    fn an_edge_upwards_a_runtime_in_an_engine_and_a_crate_without_row_are_found() {
        let packages = [
            package("chronik-common", &[("chronik-wal", None), ("chronik-wal", Some("build"))]),
            package("chronik-new", &[]),
            package("chronik-wal", &[("tokio", None), ("anyhow", None)]),
            package("xtask", &[("chronik-common", None)]),
        ];
        let found = breaches(&packages);
        assert_eq!(found.len(), 6, "{found:#?}");
        assert!(found[0].starts_with("chronik-common: must not import chronik-wal"), "{found:#?}");
        assert!(found[2].starts_with("chronik-new: give this crate a row"), "{found:#?}");
        assert!(found[5].starts_with("xtask: must not import chronik-common"), "{found:#?}");
    }

    #[test]
    fn the_table_has_no_cycle_and_imports_only_crates_above_it() {
        for (index, (name, imports)) in LAYERS.iter().enumerate() {
            for import in *imports {
                let position = LAYERS.iter().position(|(known, _)| known == import);
                assert!(position.is_some_and(|p| p < index), "{name} imports {import}");
            }
        }
    }
}
