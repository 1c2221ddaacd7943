//! `docs/reference`: pages that the code writes.
//!
//! Each example of the workspace whose name ends in `_reference` prints one page:
//! `config_reference` prints `docs/reference/config.md`, `kafka_api_reference` prints
//! `docs/reference/kafka-api.md`. Other Markdown files in that directory are refused.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::command::{cargo_output, repository_files};
use crate::metadata::{Metadata, Package};

const DIRECTORY: &str = "docs/reference";
const SUFFIX: &str = "_reference";

/// Writes every page. With `check_only`, writes nothing and fails if a page on disk differs from
/// what would be written, or has no example.
pub fn run(root: &Path, check_only: bool) -> Result<()> {
    let mut pages = BTreeMap::new();
    for (package, example) in examples(&Metadata::of_workspace(root)?.members()) {
        let arguments =
            ["run", "--quiet", "--locked", "--package", &package, "--example", &example];
        pages.insert(page_of(&example), cargo_output(root, &arguments)?);
    }
    if check_only { compare(root, &pages) } else { write(root, &pages) }
}

/// Package and name of every example that prints a page.
fn examples(members: &[&Package]) -> Vec<(String, String)> {
    let mut examples = Vec::new();
    for package in members {
        for target in &package.targets {
            let is_example = target.kind.iter().any(|kind| kind == "example");
            if is_example && target.name.ends_with(SUFFIX) {
                examples.push((package.name.clone(), target.name.clone()));
            }
        }
    }
    examples
}

fn page_of(example: &str) -> String {
    format!("{DIRECTORY}/{}.md", example.trim_end_matches(SUFFIX).replace('_', "-"))
}

fn compare(root: &Path, pages: &BTreeMap<String, String>) -> Result<()> {
    for (path, wanted) in pages {
        let found = fs::read_to_string(root.join(path)).unwrap_or_default();
        let line = first_difference(&found, wanted);
        ensure!(line.is_none(), "{path} is out of date, from line {}", line.unwrap_or_default());
    }
    let is_page = |file: &&String| file.starts_with(DIRECTORY) && file.ends_with(".md");
    let files = repository_files(root)?;
    match files.iter().filter(is_page).find(|file| !pages.contains_key(*file)) {
        Some(file) => bail!("{file} is written by no example named *{SUFFIX}"),
        None => Ok(()),
    }
}

/// The first line, from 1, that differs.
fn first_difference(found: &str, wanted: &str) -> Option<usize> {
    if found == wanted {
        return None;
    }
    let same = found.lines().zip(wanted.lines()).take_while(|(left, right)| left == right).count();
    Some(same + 1)
}

fn write(root: &Path, pages: &BTreeMap<String, String>) -> Result<()> {
    for (path, text) in pages {
        let file = root.join(path);
        let directory = file.parent().context("a page lies in a directory")?;
        fs::create_dir_all(directory)
            .and_then(|()| fs::write(&file, text))
            .with_context(|| format!("cannot write {path}"))?;
        println!("wrote {path}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_names_its_page() {
        assert_eq!(page_of("config_reference"), "docs/reference/config.md");
        assert_eq!(page_of("kafka_api_reference"), "docs/reference/kafka-api.md");
    }

    #[test]
    fn the_first_differing_line_is_found_also_at_the_end() {
        assert_eq!(first_difference("a\nb\n", "a\nb\n"), None);
        assert_eq!(first_difference("a\nb\n", "a\nc\n"), Some(2));
        assert_eq!(first_difference("", "a\n"), Some(1));
        assert_eq!(first_difference("a\n", "a"), Some(2));
    }
}
