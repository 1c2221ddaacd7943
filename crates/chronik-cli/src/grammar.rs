//! The grammar as data: `--help-json`, and what a parse error says without decoration.

use clap::{Arg, ArgAction, Command, CommandFactory};
use serde::Serialize;

use crate::arguments::Cli;

/// A verb or a noun with its verbs.
#[derive(Serialize)]
struct CommandHelp {
    name: String,
    about: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    aliases: Vec<String>,
    arguments: Vec<ArgumentHelp>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    examples: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    commands: Vec<CommandHelp>,
}

/// A flag or a positional argument.
#[derive(Serialize)]
struct ArgumentHelp {
    name: String,
    about: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    short: Option<char>,
    #[serde(skip_serializing_if = "Option::is_none")]
    long: Option<String>,
    takes_value: bool,
    is_required: bool,
    is_repeatable: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    defaults: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    values: Vec<String>,
}

/// The whole grammar as one JSON object. Global flags are listed once, at the root.
#[must_use]
pub fn help_json() -> String {
    let help = command_help(&Cli::command());
    let mut text = serde_json::to_string_pretty(&help).expect("help has string keys only");
    text.push('\n');
    text
}

/// The words of a parse error on one line, without `error:` and the usage text.
pub(crate) fn plain_message(error: &clap::Error) -> String {
    let text = error.to_string();
    let first_part = text.split("\n\nUsage:").next().unwrap_or_default();
    let one_line = |part: &str| part.split_whitespace().collect::<Vec<_>>().join(" ");
    let parts: Vec<_> = first_part.split("\n\n").map(one_line).collect();
    parts.join("; ").trim_start_matches("error: ").to_owned()
}

fn command_help(command: &Command) -> CommandHelp {
    let text =
        |text: Option<&clap::builder::StyledStr>| text.map(ToString::to_string).unwrap_or_default();
    let examples = text(command.get_after_help());
    CommandHelp {
        name: command.get_name().to_owned(),
        about: text(command.get_long_about().or(command.get_about())),
        aliases: command.get_visible_aliases().map(str::to_owned).collect(),
        arguments: command.get_arguments().filter(|it| is_shown(it)).map(argument_help).collect(),
        examples: examples.lines().skip(1).map(|line| line.trim().to_owned()).collect(),
        commands: command.get_subcommands().map(command_help).collect(),
    }
}

fn is_shown(argument: &Arg) -> bool {
    !argument.is_hide_set() && argument.get_id() != "help" && argument.get_id() != "version"
}

fn argument_help(argument: &Arg) -> ArgumentHelp {
    let takes_value = argument.get_action().takes_values();
    let help = argument.get_long_help().or(argument.get_help());
    let allows_many = argument.get_num_args().is_some_and(|count| count.max_values() > 1);
    let values = if takes_value { argument.get_possible_values() } else { Vec::new() };
    let defaults = if takes_value { argument.get_default_values() } else { &[] };
    ArgumentHelp {
        name: argument.get_id().to_string(),
        about: help.map(ToString::to_string).unwrap_or_default(),
        short: argument.get_short(),
        long: argument.get_long().map(str::to_owned),
        takes_value,
        is_required: argument.is_required_set(),
        is_repeatable: allows_many || matches!(argument.get_action(), ArgAction::Append),
        defaults: defaults.iter().map(|value| value.to_string_lossy().into_owned()).collect(),
        values: values.iter().map(|value| value.get_name().to_owned()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_free_of_contradictions() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_parse_error_is_one_line_and_names_the_nearest_verb() {
        let error = Cli::command().try_get_matches_from(["chronik", "produc"]).unwrap_err();
        let message = plain_message(&error);
        assert!(message.starts_with("unrecognized subcommand 'produc'"), "{message}");
        assert!(message.contains("'produce'"), "{message}");
        assert!(!message.contains('\n'), "{message}");
    }
}
