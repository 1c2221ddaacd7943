//! The grammar as people and programs see it: help, examples, documents, completions.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in its helpers")]

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::CommandFactory;
use clap::error::ErrorKind;

use chronik_cli::{Cli, help_json, parse};

/// Set to write the snapshots instead of comparing with them.
const UPDATE_VARIABLE: &str = "CHRONIK_UPDATE_SNAPSHOTS";

fn snapshot(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(name);
    if std::env::var_os(UPDATE_VARIABLE).is_some() {
        fs::write(&path, actual).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        expected == actual,
        "{name} differs; run with {UPDATE_VARIABLE}=1 and look at the diff"
    );
}

/// The arguments of every `chronik` in a line of shell, also of one that cargo runs.
fn chronik_calls(line: &str) -> Vec<Vec<OsString>> {
    let call = |words: Vec<String>| {
        let program = words.first()?;
        let is_cargo = program == "cargo" && words.windows(2).any(|it| it == ["--bin", "chronik"]);
        let skipped = match words.iter().position(|word| word == "--") {
            Some(position) if is_cargo => position + 1,
            _ if program == "chronik" || program.ends_with("/chronik") => 1,
            _ => return None,
        };
        Some(words.into_iter().skip(skipped).map(OsString::from).collect())
    };
    pipeline(line).into_iter().filter_map(call).collect()
}

/// The words of each command of a pipeline, without redirections and comments.
fn pipeline(line: &str) -> Vec<Vec<String>> {
    let mut commands = vec![vec![]];
    let mut is_target = false;
    for word in words(line) {
        match word.as_str() {
            "#" => break,
            "|" | "&&" | ";" => commands.push(vec![]),
            "<" | ">" => is_target = true,
            _ if std::mem::take(&mut is_target) => {}
            _ => commands.last_mut().unwrap().push(word),
        }
    }
    commands
}

fn words(line: &str) -> Vec<String> {
    let mut words = vec![];
    let (mut word, mut is_quoted, mut is_open) = (String::new(), false, false);
    for character in line.trim_start_matches("$ ").chars() {
        match character {
            '\'' | '"' => (is_quoted, is_open) = (!is_quoted, true),
            ' ' if !is_quoted => {
                words.extend((is_open || !word.is_empty()).then(|| std::mem::take(&mut word)));
                is_open = false;
            }
            other => word.push(other),
        }
    }
    words.extend((is_open || !word.is_empty()).then_some(word));
    words
}

fn assert_parses(place: &str, line: &str) {
    for call in chronik_calls(line) {
        // The server reads its own arguments; `chronik dev` and others are ours.
        let result = parse(&call);
        let is_help = result.as_ref().is_err_and(|error| error.exit_code() == 0);
        assert!(result.is_ok() || is_help, "{place}: {line}\n{}", result.unwrap_err());
    }
}

/// A mention in a sentence may leave out what follows, but what is there must be right.
fn assert_begins(place: &str, span: &str) {
    for call in chronik_calls(span) {
        let error = parse(&call).err().map(|error| error.kind());
        let is_right = match error {
            None | Some(ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => true,
            Some(
                ErrorKind::MissingSubcommand
                | ErrorKind::MissingRequiredArgument
                | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand,
            ) => true,
            Some(_) => false,
        };
        assert!(is_right, "{place}: {span}: {error:?}");
    }
}

fn visit(command: &clap::Command, path: &str, look: &mut dyn FnMut(&str, &clap::Command)) {
    look(path, command);
    for child in command.get_subcommands() {
        visit(child, &format!("{path} {}", child.get_name()), look);
    }
}

#[test]
fn the_grammar_dump_is_a_snapshot() {
    let text = help_json();
    assert!(serde_json::from_str::<serde_json::Value>(&text).unwrap().is_object());
    snapshot("help.json", &text);
}

#[test]
fn the_help_of_every_verb_ends_with_two_examples_that_parse() {
    visit(&Cli::command(), "chronik", &mut |path, command| {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let examples: Vec<_> = help.lines().skip(1).map(str::trim).collect();
        assert!(help.starts_with("Examples:\n"), "{path}: {help}");
        assert_eq!(examples.len(), 2, "{path}: {help}");
        for example in examples {
            assert_eq!(chronik_calls(example).len(), 1, "{path}: {example}");
            assert_parses(path, example);
        }
    });
}

#[test]
fn only_verbs_that_work_are_advertised() {
    let mut verbs = vec![];
    visit(&Cli::command(), "chronik", &mut |path, command| {
        if command.get_subcommands().next().is_none() {
            verbs.push(path.to_owned());
        }
    });
    let expected = [
        "dev",
        "server",
        "bench",
        "topic list",
        "topic create",
        "topic describe",
        "topic delete",
        "produce",
        "consume",
        "config list",
        "config get",
        "doctor local",
        "debug segment",
        "completions",
    ];
    assert_eq!(verbs, expected.map(|verb| format!("chronik {verb}")));
}

#[test]
fn every_command_line_in_the_documents_parses() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for document in markdown_files(&root) {
        let text = fs::read_to_string(&document).unwrap();
        let mut is_code = false;
        for (line, number) in text.lines().zip(1..) {
            if line.trim_start().starts_with("```") {
                is_code = !is_code;
                continue;
            }
            let place = format!("{}:{number}", document.display());
            if is_code {
                assert_parses(&place, line.trim());
            } else {
                line.split('`').skip(1).step_by(2).for_each(|span| assert_begins(&place, span));
            }
        }
    }
}

fn markdown_files(root: &Path) -> Vec<PathBuf> {
    let is_page = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "md");
    ["", "docs", "docs/reference", "docs/decisions"]
        .iter()
        .filter_map(|directory| fs::read_dir(root.join(directory)).ok())
        .flat_map(|entries| entries.flatten().map(|entry| entry.path()))
        .filter(is_page)
        .collect()
}

#[test]
fn aliases_hyphens_and_global_flags_work_where_people_put_them() {
    for line in [
        "chronik topic ls",
        "chronik topic rm a b --yes",
        "chronik -o json topic list -b a:1,b:2",
        "chronik topic list --output tsv --tsv-header --timeout 500ms --no-color -q",
        "chronik consume demo -s -10",
        "chronik consume demo -s @-1h",
        "chronik consume a b -s +5 -n 3 --follow",
        "chronik produce demo -k k -H a=b -H c= -p 1 --acks -1 --compression lz4",
        "chronik server --kafka-port 0 -d data -c chronik.toml standalone",
        "chronik dev --topic a --topic b:3:1",
        "chronik completions fish",
        "chronik --help-json",
    ] {
        assert_parses("this test", line);
    }
}

#[test]
fn completions_of_every_shell_name_the_verbs() {
    for shell in ["bash", "zsh", "fish"] {
        let chronik = Command::new(env!("CARGO_BIN_EXE_chronik"));
        let output = { chronik }.args(["completions", shell]).output().unwrap();
        assert!(output.status.success(), "{shell}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("consume"), "{shell}");
    }
}
