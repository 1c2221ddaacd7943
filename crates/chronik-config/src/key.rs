//! The descriptor of one key, and the macro that writes a section's struct, defaults and
//! descriptors from one table.
//!
//! The table is the only place where a key is spelled: the loader, the environment, `--set`,
//! `--print-config`, the reference page and the unknown-key suggestions all read the descriptors.

use crate::{Config, Value};

/// What setting a key changes in this server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// The server obeys it.
    Works,
    /// Reserved for clusters; a standalone server checks and ignores it.
    ReservedForClusters,
}

/// One key of `chronik.toml`.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Full path, for example `listener.kafka_port`.
    pub path: &'static str,
    /// Other accepted paths in the file and after `--set`.
    pub aliases: &'static [&'static str],
    /// Accepted variables besides the derived one, most trusted first.
    pub extra_variables: &'static [&'static str],
    /// Whether the key does anything in a standalone server.
    pub effect: Effect,
    doc: &'static str,
    read: fn(&mut Config, &Value) -> bool,
    write: fn(&Config) -> Option<Value>,
    expected: fn() -> String,
}

impl Key {
    pub(crate) const fn new(
        path: &'static str,
        doc: &'static str,
        read: fn(&mut Config, &Value) -> bool,
        write: fn(&Config) -> Option<Value>,
        expected: fn() -> String,
    ) -> Self {
        let effect = Effect::Works;
        Self { path, aliases: &[], extra_variables: &[], effect, doc, read, write, expected }
    }

    pub(crate) const fn aliases(mut self, paths: &'static [&'static str]) -> Self {
        self.aliases = paths;
        self
    }

    pub(crate) const fn variables(mut self, names: &'static [&'static str]) -> Self {
        self.extra_variables = names;
        self
    }

    pub(crate) const fn reserved(mut self) -> Self {
        self.effect = Effect::ReservedForClusters;
        self
    }

    /// The variable derived from the path: `CHRONIK_`, section, `_`, key, in upper case.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("CHRONIK_{}", self.path.replace('.', "_").to_uppercase())
    }

    /// The manual of this key: meaning, unit, why this default, what goes wrong at the extremes.
    #[must_use]
    pub fn doc(&self) -> String {
        doc_text(self.doc)
    }

    /// What the key accepts, to follow the word "expected".
    #[must_use]
    pub fn expected(&self) -> String {
        (self.expected)()
    }

    /// The key's value in `config`; `None` if it is not set and has no default.
    #[must_use]
    pub fn value_in(&self, config: &Config) -> Option<Value> {
        (self.write)(config)
    }

    /// Stores `value`; returns false, leaving `config` unchanged, if it is not acceptable.
    pub(crate) fn store(&self, config: &mut Config, value: &Value) -> bool {
        (self.read)(config, value)
    }
}

/// A table of `chronik.toml`.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// Dotted name of the table.
    pub path: &'static str,
    /// Its keys, in the order of the reference page.
    pub keys: &'static [Key],
    pub(crate) doc: &'static str,
}

impl Section {
    /// What the section is about.
    #[must_use]
    pub fn doc(&self) -> String {
        doc_text(self.doc)
    }
}

/// Doc comment lines without the blank that follows the slashes.
pub(crate) fn doc_text(lines: &str) -> String {
    let lines: Vec<_> =
        lines.trim_end().lines().map(|line| line.strip_prefix(' ').unwrap_or(line)).collect();
    lines.join("\n")
}

/// Declares one section:
///
/// ```text
/// section! {
///     /// What the section is about.
///     NodeConfig at "node", config => config.node {
///         /// The key's manual.
///         shards: u16 = 0, number(0, 1_024), reserved(), aliases(&["node.cores"]);
///     }
///     nested { /// A table below this one. inner: InnerConfig; }
/// }
/// ```
///
/// After the type come the default, the kind that reads and bounds the value, and modifiers of
/// [`Key`].
macro_rules! section {
    (
        $(#[doc = $section_doc:literal])*
        $name:ident at $path:literal, $config:ident => $place:expr, {
            $(
                $(#[doc = $doc:literal])*
                $field:ident: $type:ty = $default:expr, $kind:expr
                    $(, $modifier:ident($($argument:expr),*))*;
            )*
        }
        $(nested { $($(#[doc = $nested_doc:literal])* $nested:ident: $nested_type:ty;)* })?
    ) => {
        $(#[doc = $section_doc])*
        #[derive(Clone, PartialEq, Debug)]
        pub struct $name {
            $($(#[doc = $doc])* pub $field: $type,)*
            $($($(#[doc = $nested_doc])* pub $nested: $nested_type,)*)?
        }

        impl $name {
            pub(crate) const SECTION: $crate::key::Section = $crate::key::Section {
                path: $path,
                doc: concat!($($section_doc, "\n",)*),
                keys: &[$(
                    $crate::key::Key::new(
                        concat!($path, ".", stringify!($field)),
                        concat!($($doc, "\n",)*),
                        |$config, value| match $crate::kind::Kind::<$type>::read(&$kind, value) {
                            Some(accepted) => {
                                $place.$field = accepted;
                                true
                            }
                            None => false,
                        },
                        |$config| $crate::kind::Kind::<$type>::write(&$kind, &$place.$field),
                        || $crate::kind::Kind::<$type>::expected(&$kind),
                    )$(.$modifier($($argument),*))*,
                )*],
            };
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $($field: $default,)*
                    $($($nested: <$nested_type>::default(),)*)?
                }
            }
        }
    };
}
pub(crate) use section;
