//! A setting's value before it has a type, and the spelling it is printed in.
//!
//! Three kinds of source feed the loader: TOML, which has types; and the environment and the
//! command line, which only have words. [`Value`] keeps the difference, so that a file is
//! checked strictly while `--set listener.kafka_port=9192` needs no quotes.

use std::collections::BTreeMap;
use std::fmt;

/// A value as its source gave it.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// Untyped characters, from the environment, `--set` or a flag.
    Word(String),
    /// A TOML string.
    Text(String),
    /// A TOML integer.
    Integer(i64),
    /// A TOML boolean.
    Boolean(bool),
    /// A TOML array.
    List(Vec<Value>),
    /// A TOML table in the place of a value.
    Table(BTreeMap<String, Value>),
    /// A TOML type that no key takes (a fraction, a date, an integer beyond 64 bits), as written.
    Other(String),
}

impl Value {
    /// The characters of a word or a string; `None` for every other type.
    pub(crate) fn characters(&self) -> Option<&str> {
        match self {
            Self::Word(text) | Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The value without TOML's quotes, as Kafka's config APIs carry it.
    #[must_use]
    pub fn plain(&self) -> String {
        match self {
            Self::Word(text) | Self::Text(text) => text.clone(),
            Self::List(items) => items.iter().map(Self::plain).collect::<Vec<_>>().join(","),
            other => other.to_string(),
        }
    }
}

/// The value as a TOML literal; a word is printed bare.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(text) | Self::Other(text) => f.write_str(text),
            Self::Text(text) => write_quoted(f, text),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Boolean(flag) => write!(f, "{flag}"),
            Self::List(items) => {
                f.write_str("[")?;
                for (index, item) in items.iter().enumerate() {
                    let separator = if index == 0 { "" } else { ", " };
                    write!(f, "{separator}{item}")?;
                }
                f.write_str("]")
            }
            Self::Table(entries) => {
                for (index, (key, value)) in entries.iter().enumerate() {
                    let separator = if index == 0 { "{ " } else { ", " };
                    write!(f, "{separator}{key} = {value}")?;
                }
                f.write_str(if entries.is_empty() { "{}" } else { " }" })
            }
        }
    }
}

/// Writes a TOML basic string.
fn write_quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str("\"")?;
    for character in text.chars() {
        match character {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            control if control.is_control() => write!(f, "\\u{:04X}", u32::from(control))?,
            other => write!(f, "{other}")?,
        }
    }
    f.write_str("\"")
}
