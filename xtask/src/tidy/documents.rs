//! The only Markdown files that may exist.

use super::Breach;

const AT_THE_ROOT: &[&str] =
    &["README", "ARCHITECTURE", "CONTRIBUTING", "CHANGELOG", "SECURITY", "CLAUDE"];

const IN_DOCS: &[&str] = &[
    "DISASTER_RECOVERY",
    "LAYERED_STORAGE",
    "ROLLING_UPGRADE_GUIDE",
    "WAL_ARCHITECTURE",
    "benchmarks",
    "chaos-and-simulation",
    "cli",
    "comparison",
    "compatibility",
    "concepts",
    "configuration",
    "durability-and-failure-model",
    "formats",
    "kubernetes",
    "library-mode",
    "metrics",
    "migrate-from-kafka",
    "multi-datacenter",
    "protocol-support",
    "quickstart",
    "running-a-cluster",
    "security",
    "systemd-and-debian",
    "troubleshooting",
];

/// Directories of docs/ whose pages are numbered or generated.
const OPEN_DIRECTORIES: &[&str] = &["docs/decisions/", "docs/reference/"];

/// Markdown files outside the lists.
pub fn check(files: &[String]) -> Vec<Breach> {
    files
        .iter()
        .filter(|file| file.strip_suffix(".md").is_some_and(|page| !is_listed(page)))
        .map(|file| Breach::new(file, "not a document of this project; see tidy/documents.rs"))
        .collect()
}

fn is_listed(page: &str) -> bool {
    let is_in =
        |directory: &&str| page.strip_prefix(*directory).is_some_and(|name| !name.contains('/'));
    AT_THE_ROOT.contains(&page)
        || page.strip_prefix("docs/").is_some_and(|name| IN_DOCS.contains(&name))
        || OPEN_DIRECTORIES.iter().any(is_in)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roadmaps_and_notes_are_found() {
        let files = [
            "README.md",
            "docs/formats.md",
            "docs/decisions/0001-one-journal.md",
            "docs/reference/config.md",
            "docs/picture.png",
            "docs/ROADMAP.md",
            "NOTES.md",
            "crates/chronik-wal/README.md",
            "docs/decisions/old/0001.md",
        ]
        .map(str::to_owned);
        let found: Vec<_> = check(&files).into_iter().map(|breach| breach.place).collect();
        assert_eq!(found, files[5..]);
    }
}
