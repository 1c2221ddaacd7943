//! Topic configs under Kafka's names: one typed table of those that work in this server.
//!
//! Values are strings, as in Kafka's APIs, and are read as strictly as Kafka reads them: a size
//! is a bare number of bytes. A name outside the table is refused, never stored and ignored.
//! Overrides are kept as strings by their owner; this module only resolves them.

use std::collections::BTreeMap;

use crate::Value;
use crate::broker::{ConfigSource, ConfigType};
use crate::key::doc_text;
use crate::kind::{Choice, Kind, Named, grouped, number};
use crate::nearest::nearest;

/// Overrides of one topic: Kafka name and value.
type Overrides = BTreeMap<String, String>;

/// One topic config.
#[derive(Clone, Copy, Debug)]
pub struct TopicKey {
    /// Kafka's name.
    pub name: &'static str,
    /// Kafka's type.
    pub config_type: ConfigType,
    /// Name of the broker config that holds the default.
    pub broker_name: &'static str,
    /// True if the value is decided when the topic is created and cannot be altered.
    pub is_fixed_at_creation: bool,
    doc: &'static str,
    /// Values of Kafka that this server does not offer, and why.
    not_offered: &'static [(&'static str, &'static str)],
    read: fn(&mut TopicConfig, &Value) -> bool,
    write: fn(&TopicConfig) -> String,
    expected: fn() -> String,
}

impl TopicKey {
    /// The manual of this config.
    #[must_use]
    pub fn doc(&self) -> String {
        doc_text(self.doc)
    }

    /// What the config accepts, to follow the word "expected".
    #[must_use]
    pub fn expected(&self) -> String {
        (self.expected)()
    }

    /// The value in `config`, as Kafka's APIs carry it.
    #[must_use]
    pub fn value_in(&self, config: &TopicConfig) -> String {
        (self.write)(config)
    }

    const fn fixed_at_creation(mut self) -> Self {
        self.is_fixed_at_creation = true;
        self
    }

    const fn not_offered(mut self, values: &'static [(&'static str, &'static str)]) -> Self {
        self.not_offered = values;
        self
    }

    fn store(&self, config: &mut TopicConfig, text: &str) -> Result<(), TopicConfigError> {
        let text = text.trim();
        let reason = text.split(',').map(str::trim).find_map(|word| {
            self.not_offered.iter().find(|(value, _)| *value == word).map(|(_, reason)| *reason)
        });
        if let Some(reason) = reason {
            let value = text.to_owned();
            return Err(TopicConfigError::NotOffered { name: self.name, value, reason });
        }
        if (self.read)(config, &Value::Word(text.to_owned())) {
            return Ok(());
        }
        Err(TopicConfigError::Invalid {
            name: self.name,
            value: text.to_owned(),
            expected: self.expected(),
        })
    }
}

/// Declares [`TopicConfig`], its built-in values and the table of [`TopicKey`]s. After the type
/// come the built-in value, Kafka's name and type, the kind, and the broker config's name.
macro_rules! topic_configs {
    ($(
        $(#[doc = $doc:literal])*
        $field:ident: $type:ty = $default:expr, $name:literal $config_type:ident, $kind:expr,
            $broker_name:literal $(, $modifier:ident($($argument:expr),*))*;
    )*) => {
        /// The configs of one topic, resolved: overrides over the server's defaults.
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub struct TopicConfig {
            $($(#[doc = $doc])* pub $field: $type,)*
        }

        impl Default for TopicConfig {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        const KEYS: &[TopicKey] = &[$(
            TopicKey {
                name: $name,
                config_type: ConfigType::$config_type,
                broker_name: $broker_name,
                is_fixed_at_creation: false,
                doc: concat!($($doc, "\n",)*),
                not_offered: &[],
                read: |config, value| match Kind::<$type>::read(&$kind, value) {
                    Some(accepted) => {
                        config.$field = accepted;
                        true
                    }
                    None => false,
                },
                write: |config| {
                    let value = Kind::<$type>::write(&$kind, &config.$field);
                    value.expect("topic configs always have a value").plain()
                },
                expected: || Kind::<$type>::expected(&$kind),
            }$(.$modifier($($argument),*))*,
        )*];
    };
}

topic_configs! {
    /// What happens to old segments. Only `delete` exists: they are removed after `retention.ms`
    /// or beyond `retention.bytes`.
    cleanup_policy: CleanupPolicy = CleanupPolicy::Delete, "cleanup.policy" List, Choice,
        "log.cleanup.policy",
        not_offered(&[("compact", "this server does not compact logs")]);

    /// Codec in which batches are stored. `producer` keeps what each producer chose, which costs
    /// the server nothing; any other value compresses batches again that arrive in another codec.
    compression_type: CompressionType = CompressionType::Producer, "compression.type" String,
        Choice, "compression.type";

    /// Largest record batch in bytes, after compression. Larger ones are refused with
    /// MESSAGE_TOO_LARGE. Consumers need no setting for it: a fetch returns at least one batch.
    max_message_bytes: u32 = 1_048_588, "max.message.bytes" Int, number(0, 100 << 20),
        "message.max.bytes";

    /// Whose time a record carries: `CreateTime` keeps the producer's, `LogAppendTime` replaces
    /// it with the server's when the batch is appended.
    message_timestamp_type: TimestampType = TimestampType::CreateTime,
        "message.timestamp.type" String, Choice, "log.message.timestamp.type";

    /// Milliseconds that a producer's timestamp may lie before the server's time; older records
    /// are refused with INVALID_TIMESTAMP. Retention by time follows these timestamps.
    message_timestamp_before_max_ms: u64 = i64::MAX as u64,
        "message.timestamp.before.max.ms" Long, number(0, i64::MAX),
        "log.message.timestamp.before.max.ms";

    /// Milliseconds that a producer's timestamp may lie after the server's time; records further
    /// in the future are refused with INVALID_TIMESTAMP, because they would keep their segment
    /// from expiring. The default of one hour is Kafka's (KIP-1030).
    message_timestamp_after_max_ms: u64 = 3_600_000,
        "message.timestamp.after.max.ms" Long, number(0, i64::MAX),
        "log.message.timestamp.after.max.ms";

    /// In-sync replicas that a write with acks=all needs. With more than the topic has replicas,
    /// every such write is refused with NOT_ENOUGH_REPLICAS.
    min_insync_replicas: u16 = 1, "min.insync.replicas" Int, number(1, 32), "min.insync.replicas";

    /// Milliseconds a record is kept at least; -1 keeps records for ever. Whole segments are
    /// removed, so a record can stay until the rest of its segment is old enough as well.
    retention_ms: Option<u64> = Some(604_800_000), "retention.ms" Long, OrForEver,
        "log.retention.ms";

    /// Bytes of one partition that are kept at least; -1 means no limit. The oldest segments
    /// beyond it are removed, whatever their age.
    retention_bytes: Option<u64> = None, "retention.bytes" Long, OrForEver,
        "log.retention.bytes";

    /// Size in bytes at which a partition starts a new segment, from 1 MiB (KIP-1030). Retention
    /// removes whole segments: large ones keep records for longer than asked, small ones cost
    /// files and index entries.
    segment_bytes: u64 = 64 << 20, "segment.bytes" Int, number(1 << 20, 2_147_483_647),
        "log.segment.bytes";

    /// Milliseconds after which a segment with records is closed even if it is not full, so that
    /// retention can remove it later. Short times make many small files on quiet topics.
    segment_ms: u64 = 604_800_000, "segment.ms" Long, number(1, i64::MAX), "log.roll.ms";

    /// When a write counts as stored. `fsync`: after it is synced to disk; it survives a power
    /// loss. `os`: after the operating system has it; it survives the death of the process, and a
    /// power loss takes the last seconds.
    durability: Durability = Durability::Fsync, "chronik.durability" String, Choice,
        "chronik.durability";

    /// How replicas agree. `isr` is Kafka's way. Decided when the topic is created.
    replication_mode: ReplicationMode = ReplicationMode::Isr, "chronik.replication.mode" String,
        Choice, "chronik.replication.mode",
        not_offered(&[("raft", "topics replicated by Raft need a cluster")]), fixed_at_creation();

    /// How much of a produced batch is checked before it is stored. `batch`: header, lengths and
    /// checksum. `full`: each record as well, which decompresses the batch and costs CPU time in
    /// proportion to its size.
    validation: Validation = Validation::Batch, "chronik.validation" String, Choice,
        "chronik.validation";
}

/// A limit, or -1 for none.
struct OrForEver;

impl Kind<Option<u64>> for OrForEver {
    fn read(&self, value: &Value) -> Option<Option<u64>> {
        let limit: i64 = number(-1, i64::MAX).read(value)?;
        Some(u64::try_from(limit).ok())
    }

    fn write(&self, value: &Option<u64>) -> Option<Value> {
        match value {
            Some(limit) => i64::try_from(*limit).ok().map(Value::Integer),
            None => Some(Value::Integer(-1)),
        }
    }

    fn expected(&self) -> String {
        format!("a whole number from 0 to {}, or -1 for no limit", grouped(i64::MAX))
    }
}

/// Why a topic config is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TopicConfigError {
    /// No such config.
    #[error("Unknown topic config name: {name}{}", suggestion(*nearest))]
    Unknown {
        /// The name as given.
        name: String,
        /// The closest known name.
        nearest: Option<&'static str>,
    },
    /// A value of the wrong type or out of bounds.
    #[error("Invalid value {value} for configuration {name}: expected {expected}")]
    Invalid {
        /// Kafka's name.
        name: &'static str,
        /// The value as given.
        value: String,
        /// What the config accepts.
        expected: String,
    },
    /// A value that Kafka knows and this server does not offer.
    #[error("Invalid value {value} for configuration {name}: {reason}")]
    NotOffered {
        /// Kafka's name.
        name: &'static str,
        /// The value as given.
        value: String,
        /// Why.
        reason: &'static str,
    },
    /// A change of a config that is decided when the topic is created.
    #[error("{name} is decided when the topic is created and cannot be altered")]
    Fixed {
        /// Kafka's name.
        name: &'static str,
    },
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest.map(|name| format!(". Did you mean {name}?")).unwrap_or_default()
}

/// One topic config, for DescribeConfigs.
#[derive(Clone, Debug)]
pub struct TopicConfigEntry {
    /// The config.
    pub key: &'static TopicKey,
    /// Its value: the override as it was given, or else the default.
    pub value: String,
    /// Where the value came from.
    pub source: ConfigSource,
    /// Every layer that has a value, strongest first; the first is the effective one.
    pub synonyms: Vec<ConfigSynonym>,
}

/// A layer's value of a config.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigSynonym {
    /// Name of the config in that layer.
    pub name: &'static str,
    /// Its value there.
    pub value: String,
    /// The layer.
    pub source: ConfigSource,
}

impl TopicConfig {
    /// Every topic config, in the order of the reference page.
    #[must_use]
    pub const fn keys() -> &'static [TopicKey] {
        KEYS
    }

    /// The topic config called `name`.
    #[must_use]
    pub fn key(name: &str) -> Option<&'static TopicKey> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// `overrides` over `defaults` (see [`crate::Config::topic_defaults`]).
    ///
    /// # Errors
    /// One error per override that is unknown, malformed or not offered, in order of name.
    pub fn from_overrides(
        defaults: &Self,
        overrides: &Overrides,
    ) -> Result<Self, Vec<TopicConfigError>> {
        let mut config = defaults.clone();
        let store = |(name, text): (&String, &String)| match Self::key(name) {
            Some(key) => key.store(&mut config, text).err(),
            None => Some(unknown(name)),
        };
        let errors: Vec<_> = overrides.iter().filter_map(store).collect();
        if errors.is_empty() { Ok(config) } else { Err(errors) }
    }

    /// Checks that a topic may go from `self` to `altered`.
    ///
    /// # Errors
    /// [`TopicConfigError::Fixed`] per config that differs and is fixed at creation.
    pub fn check_alteration(&self, altered: &Self) -> Result<(), Vec<TopicConfigError>> {
        let errors: Vec<_> = KEYS
            .iter()
            .filter(|key| key.is_fixed_at_creation)
            .filter(|key| key.value_in(self) != key.value_in(altered))
            .map(|key| TopicConfigError::Fixed { name: key.name })
            .collect();
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// Every topic config of a topic with `overrides` on a server with `defaults`.
    #[must_use]
    pub fn describe(defaults: &Self, overrides: &Overrides) -> Vec<TopicConfigEntry> {
        let built_in = Self::default();
        let entry = |key: &'static TopicKey| {
            let synonyms = key.layers(&built_in, defaults, overrides);
            let ConfigSynonym { value, source, .. } = synonyms[0].clone();
            TopicConfigEntry { key, value, source, synonyms }
        };
        KEYS.iter().map(entry).collect()
    }
}

impl TopicKey {
    /// The value of each layer that has one, strongest first; the built-in layer always has.
    fn layers(
        &self,
        built_in: &TopicConfig,
        defaults: &TopicConfig,
        overrides: &Overrides,
    ) -> Vec<ConfigSynonym> {
        let (built_in, default) = (self.value_in(built_in), self.value_in(defaults));
        let mut layers = Vec::new();
        if let Some(value) = overrides.get(self.name).cloned() {
            let source = ConfigSource::Topic;
            layers.push(ConfigSynonym { name: self.name, value, source });
        }
        if default != built_in {
            let source = ConfigSource::StaticBroker;
            layers.push(ConfigSynonym { name: self.broker_name, value: default, source });
        }
        let source = ConfigSource::Default;
        layers.push(ConfigSynonym { name: self.broker_name, value: built_in, source });
        layers
    }
}

fn unknown(name: &str) -> TopicConfigError {
    let nearest = nearest(name, KEYS.iter().map(|key| key.name));
    TopicConfigError::Unknown { name: name.to_owned(), nearest }
}

/// Declares an enum with Kafka's spelling of each value.
macro_rules! named_values {
    ($(
        $(#[doc = $doc:literal])*
        $name:ident { $($(#[doc = $value_doc:literal])* $value:ident = $text:literal,)* }
    )*) => {$(
        $(#[doc = $doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum $name {
            $($(#[doc = $value_doc])* $value,)*
        }

        impl Named for $name {
            const NAMES: &'static [(&'static str, Self)] = &[$(($text, Self::$value),)*];
        }
    )*};
}

named_values! {
    /// What happens to old segments.
    CleanupPolicy {
        /// They are removed.
        Delete = "delete",
    }

    /// Codec in which batches are stored.
    CompressionType {
        /// As the producer chose.
        Producer = "producer",
        /// None.
        Uncompressed = "uncompressed",
        /// gzip.
        Gzip = "gzip",
        /// snappy.
        Snappy = "snappy",
        /// LZ4 frames.
        Lz4 = "lz4",
        /// Zstandard.
        Zstd = "zstd",
    }

    /// Whose time a record carries.
    TimestampType {
        /// The producer's.
        CreateTime = "CreateTime",
        /// The server's, at the append.
        LogAppendTime = "LogAppendTime",
    }

    /// When a write counts as stored.
    Durability {
        /// After it is synced to disk.
        Fsync = "fsync",
        /// After the operating system has it.
        Os = "os",
    }

    /// How replicas agree.
    ReplicationMode {
        /// In-sync replicas, Kafka's way.
        Isr = "isr",
    }

    /// How much of a produced batch is checked.
    Validation {
        /// Header, lengths and checksum.
        Batch = "batch",
        /// Each record as well.
        Full = "full",
    }
}
