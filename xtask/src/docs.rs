//! `docs/reference`: pages that the code writes.
//!
//! Each example of the workspace whose name ends in `_reference` prints one page:
//! `config_reference` prints `docs/reference/config.md`, `kafka_api_reference` prints
//! `docs/reference/kafka-api.md`. Other Markdown files in that directory are refused.
//! `docs/benchmarks.md` is written from the results in `docs/benchmarks/*.json`, in the order of
//! their names.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::command::{cargo_output, repository_files};
use crate::metadata::{Metadata, Package};

const DIRECTORY: &str = "docs/reference";
const SUFFIX: &str = "_reference";

/// The page of benchmarks, and the directory of the results it is made of.
const BENCHMARKS_PAGE: &str = "docs/benchmarks.md";
const BENCHMARKS_DIRECTORY: &str = "docs/benchmarks/";

/// Writes every page. With `check_only`, writes nothing and fails if a page on disk differs from
/// what would be written, or has no example.
pub fn run(root: &Path, check_only: bool) -> Result<()> {
    let mut pages = BTreeMap::new();
    for (package, example) in examples(&Metadata::of_workspace(root)?.members()) {
        let arguments =
            ["run", "--quiet", "--locked", "--package", &package, "--example", &example];
        pages.insert(page_of(&example), cargo_output(root, &arguments)?);
    }
    let files = repository_files(root)?;
    let results = benchmark_results(&files);
    if !results.is_empty() {
        let report = ["run", "--quiet", "--locked", "--package", "chronik-bench", "--", "report"];
        let arguments = [&report[..], &results, &["--page", "-"]].concat();
        pages.insert(BENCHMARKS_PAGE.to_owned(), cargo_output(root, &arguments)?);
    }
    if check_only { compare(root, &files, &pages) } else { write(root, &pages) }
}

/// Results that the page of benchmarks is made of.
fn benchmark_results(files: &[String]) -> Vec<&str> {
    let is_result = |file: &&str| file.starts_with(BENCHMARKS_DIRECTORY) && file.ends_with(".json");
    files.iter().map(String::as_str).filter(is_result).collect()
}

/// True for files that only this command writes.
fn is_generated(file: &str) -> bool {
    file == BENCHMARKS_PAGE || file.starts_with(DIRECTORY) && file.ends_with(".md")
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

fn compare(root: &Path, files: &[String], pages: &BTreeMap<String, String>) -> Result<()> {
    for (path, wanted) in pages {
        let found = fs::read_to_string(root.join(path)).unwrap_or_default();
        let line = first_difference(&found, wanted);
        ensure!(line.is_none(), "{path} is out of date, from line {}", line.unwrap_or_default());
    }
    let is_page = |file: &&String| is_generated(file);
    match files.iter().filter(is_page).find(|file| !pages.contains_key(*file)) {
        Some(file) => bail!("{file} is written by no example named *{SUFFIX} and from no result"),
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
    fn the_page_of_benchmarks_is_made_of_the_results_beside_it() {
        let files = ["docs/benchmarks.md", "docs/benchmarks/a.json", "docs/benchmarks/b.json"];
        let files = files.map(str::to_owned);
        assert_eq!(benchmark_results(&files), files[1..]);
        assert!(is_generated("docs/benchmarks.md") && is_generated("docs/reference/x.md"));
        assert!(!is_generated("docs/formats.md") && !is_generated("docs/benchmarks/a.json"));
    }

    #[test]
    fn the_first_differing_line_is_found_also_at_the_end() {
        assert_eq!(first_difference("a\nb\n", "a\nb\n"), None);
        assert_eq!(first_difference("a\nb\n", "a\nc\n"), Some(2));
        assert_eq!(first_difference("", "a\n"), Some(1));
        assert_eq!(first_difference("a\n", "a"), Some(2));
    }
}
