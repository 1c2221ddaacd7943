//! What can be wrong with a configuration, with the stable code of each message.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::{Origin, Value};

/// A key with its value and where the value came from.
#[derive(Clone, PartialEq, Debug)]
pub struct Setting {
    /// Path of the key.
    pub key: &'static str,
    /// The value; `None` if it is not set.
    pub value: Option<Value>,
    /// Where it came from.
    pub origin: Origin,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{} = {value} ({})", self.key, self.origin),
            None => write!(f, "{} (not set)", self.key),
        }
    }
}

/// One reason not to start.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum Problem {
    /// Clients would be told an address that nobody can dial.
    #[error(
        "E002 clients would be told to connect to {told}, which never works. Pass \
             --advertised-addr <name clients can reach>{}.",
        this_host_has(host_addresses)
    )]
    WildcardAdvertised {
        /// The address from the configuration.
        told: String,
        /// Addresses of this host, for the message.
        host_addresses: Vec<String>,
    },
    /// A key that does not exist.
    #[error("E060 {origin} unknown key {key}.{}", did_you_mean(nearest.as_deref()))]
    UnknownKey {
        /// The file and line, or `--set`.
        origin: Origin,
        /// The key as written, with its section.
        key: String,
        /// The closest known key; without its section if that is the same.
        nearest: Option<String>,
    },
    /// A value of the wrong type or out of bounds.
    #[error("E063 {origin} {key} = {value}: expected {expected}.")]
    InvalidValue {
        /// Where the value was given.
        origin: Origin,
        /// Path of the key, as written.
        key: String,
        /// The value as written.
        value: Value,
        /// What the key accepts.
        expected: String,
    },
    /// Two settings that do not fit together.
    #[error("E064 {left} {rule} {right}.")]
    Conflict {
        /// The setting that breaks the rule.
        left: Setting,
        /// The rule, between the two settings.
        rule: &'static str,
        /// The setting it is compared with.
        right: Setting,
    },
    /// A setting that is refused whatever the others are.
    #[error("E064 {setting} {rule}.")]
    Refused {
        /// The setting.
        setting: Setting,
        /// Why, after the setting.
        rule: &'static str,
    },
    /// A configuration file that cannot be read.
    #[error("E065 cannot read {}: {reason}. Name a readable file with --config, or leave it out.",
            path.display())]
    UnreadableFile {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        reason: io::ErrorKind,
    },
    /// A configuration file that is not TOML.
    #[error("E066 {origin} is not TOML: {reason}.")]
    NotToml {
        /// File and line.
        origin: Origin,
        /// What the parser said.
        reason: String,
    },
    /// One setting under two of its names in the same file.
    #[error("E067 {second} {name} sets {key} again, after {first}. Keep one of the two.")]
    GivenTwice {
        /// Path of the key.
        key: &'static str,
        /// The name of the second mention.
        name: String,
        /// The first mention.
        first: Origin,
        /// The second mention.
        second: Origin,
    },
    /// A `--set` without an equals sign.
    #[error("E068 --set {argument}: expected section.key=value.")]
    NotAnAssignment {
        /// The argument as given.
        argument: String,
    },
}

/// Something odd that does not stop the server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Warning {
    /// A `CHRONIK_*` variable that no key reads.
    UnknownVariable {
        /// The variable.
        name: String,
        /// The closest known variable.
        nearest: Option<String>,
    },
    /// A variable that is accepted and changes nothing.
    NoEffect {
        /// The variable.
        name: &'static str,
        /// Why, after a colon.
        reason: &'static str,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownVariable { name, nearest } => {
                write!(f, "W061 {name} is not known.{}", did_you_mean(nearest.as_deref()))
            }
            Self::NoEffect { name, reason } => write!(f, "W062 {name} has no effect: {reason}."),
        }
    }
}

/// Every problem of a configuration, in the order of its sources.
#[derive(Clone, PartialEq, Debug)]
pub struct LoadError {
    /// At least one problem.
    pub problems: Vec<Problem>,
    /// Warnings found on the way.
    pub warnings: Vec<Warning>,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            write!(f, "{}{problem}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for LoadError {}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map(|name| format!(" Did you mean {name}?")).unwrap_or_default()
}

fn this_host_has(addresses: &[String]) -> String {
    if addresses.is_empty() {
        String::new()
    } else {
        format!("; this host has: {}", addresses.join(", "))
    }
}
