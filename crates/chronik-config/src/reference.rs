//! The reference page of the configuration, generated from the tables.

use crate::broker::{VIEWS, View};
use crate::kind::Named;
use crate::{Config, Effect, Key, Profile, TopicConfig, TopicKey};

const HEAD: &str = "\
# Configuration

<!-- Generated from the tables of chronik-config by `cargo xtask docs`; edit them instead. -->

`chronik.toml` is optional. It is the file that `--config` or `CHRONIK_CONFIG` names, or else the
first found of `./chronik.toml`, `$XDG_CONFIG_HOME/chronik/chronik.toml` and
`/etc/chronik/chronik.toml`. Layers, lowest first: built-in value, profile, file, environment,
`--set section.key=value`, flag.

An unknown key is an error, an unknown `CHRONIK_*` variable a warning; both name the nearest known
name. All problems are reported together. `--check-config` reports them and exits;
`--print-config=origin` shows every value with the layer it came from. An empty variable counts as
absent; an empty string in the file or after `--set key=` unsets a key that may be unset.

Sizes are bytes or a number with B, kB, KiB, MB, MiB, GB, GiB, TB or TiB. Times are a number in the
unit at the end of the key's name, or a number with us, ms, s, m, h or d.
";

const TOPIC_HEAD: &str = "\
## Topic configs

Set per topic with Kafka's tools when it is created or later. Sizes and times are bare numbers, as
in Kafka. Names outside this list are refused.
";

const BROKER_HEAD: &str = "\
## Broker configs under Kafka's names

What Kafka's tools show when they describe a broker. All are read-only.

| Kafka's name | Here |
|---|---|
";

const PROFILE_HEAD: &str = "\
## Profiles

What each value of `node.profile` sets.

| Profile | Key | Value |
|---|---|---|
";

/// The whole page, as it is checked in under `docs/reference/config.md`.
#[must_use]
pub fn markdown() -> String {
    let mut page = HEAD.to_owned();
    let built_in = Config::default();
    for section in Config::sections() {
        page.push_str(&format!("\n## `[{}]`\n\n{}\n", section.path, section.doc()));
        for key in section.keys {
            page.push_str(&key_entry(key, &built_in));
        }
    }
    page.push_str(&format!("\n{TOPIC_HEAD}"));
    let defaults = built_in.topic_defaults();
    for key in TopicConfig::keys() {
        page.push_str(&topic_entry(key, &defaults));
    }
    page.push_str(&format!("\n{BROKER_HEAD}"));
    for (name, _, view) in VIEWS {
        page.push_str(&format!("| `{name}` | {} |\n", view_cell(view)));
    }
    page.push_str(&format!("\n{PROFILE_HEAD}"));
    for (name, profile) in Profile::NAMES {
        page.push_str(&profile_rows(name, *profile));
    }
    page
}

fn key_entry(key: &Key, built_in: &Config) -> String {
    let default =
        key.value_in(built_in).map_or_else(|| "not set".to_owned(), |value| format!("`{value}`"));
    let reserved = match key.effect {
        Effect::Works => "",
        Effect::ReservedForClusters => {
            "- Reserved for clusters; a standalone server checks and ignores it.\n"
        }
    };
    let aliases = match key.aliases {
        [] => String::new(),
        paths => format!("- Also: {}\n", quoted(paths.iter().copied())),
    };
    let derived = key.variable();
    format!(
        "\n### `{}`\n\n{}\n\n{reserved}- Accepts: {}\n- Default: {default}\n- Environment: {}\n{aliases}",
        key.path,
        key.doc(),
        key.expected(),
        quoted([derived.as_str()].into_iter().chain(key.extra_variables.iter().copied())),
    )
}

fn topic_entry(key: &TopicKey, defaults: &TopicConfig) -> String {
    let fixed = if key.is_fixed_at_creation { "- Fixed when the topic is created.\n" } else { "" };
    format!(
        "\n### `{}`\n\n{}\n\n- Accepts: {}\n- Default: `{}`\n{fixed}",
        key.name,
        key.doc(),
        key.expected(),
        key.value_in(defaults),
    )
}

fn view_cell(view: &View) -> String {
    match view {
        View::Key(path) => format!("`{path}`"),
        View::Topic(name) => format!("default of the topic config `{name}`"),
        View::Derived(_, doc) => (*doc).to_owned(),
    }
}

fn profile_rows(name: &str, profile: Profile) -> String {
    if profile.settings().is_empty() {
        return format!("| `{name}` | none | the built-in values |\n");
    }
    let row = |(key, value): &(&str, &str)| format!("| `{name}` | `{key}` | `{value}` |\n");
    profile.settings().iter().map(row).collect()
}

fn quoted<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_and_topic_config_has_an_entry() {
        let page = markdown();
        let paths = Config::keys().map(|key| key.path);
        for name in paths.chain(TopicConfig::keys().iter().map(|key| key.name)) {
            assert!(page.contains(&format!("\n### `{name}`\n")), "{name} is on the page");
        }
        assert!(page.is_ascii(), "the page is plain ASCII");
    }
}
