//! The tree under Kafka's broker config names, for clients that describe a broker.
//!
//! The values are read-only here: they are set in `chronik.toml`. Only names whose meaning this
//! server shares with Kafka are listed.

use crate::{Bind, Config, Endpoint, TopicConfig};

/// Kafka's type of a config.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConfigType {
    /// `true` or `false`.
    Boolean,
    /// A string.
    String,
    /// 32 bits.
    Int,
    /// 64 bits.
    Long,
    /// Strings separated by commas.
    List,
}

impl ConfigType {
    /// The number in DescribeConfigs answers.
    #[must_use]
    pub const fn code(self) -> i8 {
        match self {
            Self::Boolean => 1,
            Self::String => 2,
            Self::Int => 3,
            Self::Long => 5,
            Self::List => 7,
        }
    }
}

/// The layer a config's value came from, in Kafka's words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConfigSource {
    /// Set on the topic.
    Topic,
    /// Set in `chronik.toml`, a variable or a flag.
    StaticBroker,
    /// Built in.
    Default,
}

impl ConfigSource {
    /// The number in DescribeConfigs answers.
    #[must_use]
    pub const fn code(self) -> i8 {
        match self {
            Self::Topic => 1,
            Self::StaticBroker => 4,
            Self::Default => 5,
        }
    }
}

/// One broker config. None of them is sensitive, and all are read-only.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BrokerConfigEntry {
    /// Kafka's name.
    pub name: &'static str,
    /// Its value.
    pub value: String,
    /// Kafka's type.
    pub config_type: ConfigType,
    /// Where the value came from.
    pub source: ConfigSource,
    /// What it means here.
    pub doc: String,
}

/// Where a broker config's value and manual are.
pub(crate) enum View {
    /// A key of the tree.
    Key(&'static str),
    /// The default of a topic config.
    Topic(&'static str),
    /// Something that follows from several keys.
    Derived(fn(&Config) -> String, &'static str),
}

/// Kafka name, type, and where it is in our tree.
pub(crate) const VIEWS: &[(&str, ConfigType, View)] = &[
    (
        "advertised.listeners",
        ConfigType::List,
        View::Derived(
            |config| plaintext(&config.advertised(config.listener.kafka_port)),
            "The listener address clients are told; see node.advertised_addr.",
        ),
    ),
    ("auto.create.topics.enable", ConfigType::Boolean, View::Key("topic.auto_create")),
    ("broker.id", ConfigType::Int, View::Key("cluster.node_id")),
    ("compression.type", ConfigType::String, View::Topic("compression.type")),
    ("connections.max.idle.ms", ConfigType::Long, View::Key("listener.connections_idle_max_ms")),
    (
        "default.replication.factor",
        ConfigType::Int,
        View::Derived(
            |config| config.default_replication_factor().to_string(),
            "Replicas of a topic whose creator names no number.",
        ),
    ),
    (
        "delete.topic.enable",
        ConfigType::Boolean,
        View::Derived(|_| "true".to_owned(), "Topics can always be deleted."),
    ),
    ("fetch.max.bytes", ConfigType::Int, View::Key("listener.fetch_bytes_max")),
    (
        "listeners",
        ConfigType::List,
        View::Derived(
            listeners,
            "The address of the Kafka listener; see listener.bind and listener.kafka_port.",
        ),
    ),
    ("log.cleanup.policy", ConfigType::List, View::Topic("cleanup.policy")),
    ("log.dirs", ConfigType::String, View::Key("node.data_dir")),
    (
        "log.message.timestamp.after.max.ms",
        ConfigType::Long,
        View::Topic("message.timestamp.after.max.ms"),
    ),
    (
        "log.message.timestamp.before.max.ms",
        ConfigType::Long,
        View::Topic("message.timestamp.before.max.ms"),
    ),
    ("log.message.timestamp.type", ConfigType::String, View::Topic("message.timestamp.type")),
    ("log.retention.bytes", ConfigType::Long, View::Topic("retention.bytes")),
    ("log.retention.ms", ConfigType::Long, View::Topic("retention.ms")),
    ("log.roll.ms", ConfigType::Long, View::Topic("segment.ms")),
    ("log.segment.bytes", ConfigType::Int, View::Topic("segment.bytes")),
    (
        "max.connection.creation.rate",
        ConfigType::Int,
        View::Key("listener.connection_creation_rate_max"),
    ),
    ("max.connections", ConfigType::Int, View::Key("listener.connections_max")),
    (
        "max.connections.per.ip",
        ConfigType::Int,
        View::Derived(
            |config| config.listener.connections_from_one_ip().to_string(),
            "Open connections from one IP address; see listener.connections_per_ip_max.",
        ),
    ),
    (
        "max.incremental.fetch.session.cache.slots",
        ConfigType::Int,
        View::Key("listener.fetch_sessions_max"),
    ),
    ("message.max.bytes", ConfigType::Int, View::Topic("max.message.bytes")),
    ("min.insync.replicas", ConfigType::Int, View::Topic("min.insync.replicas")),
    ("node.id", ConfigType::Int, View::Key("cluster.node_id")),
    ("num.partitions", ConfigType::Int, View::Key("topic.num_partitions")),
    (
        "process.roles",
        ConfigType::List,
        View::Derived(|_| "broker,controller".to_owned(), "Every server holds data and metadata."),
    ),
    ("producer.id.expiration.ms", ConfigType::Int, View::Key("topic.producer_id_expiration_ms")),
    ("queued.max.request.bytes", ConfigType::Long, View::Key("listener.queued_request_bytes_max")),
    ("socket.request.max.bytes", ConfigType::Int, View::Key("listener.request_bytes_max")),
    (
        "unclean.leader.election.enable",
        ConfigType::Boolean,
        View::Derived(
            |_| "false".to_owned(),
            "A replica that is not in sync never becomes leader by itself.",
        ),
    ),
];

impl View {
    fn value_in(&self, config: &Config) -> String {
        match self {
            Self::Key(path) => {
                let key = Config::key(path).expect("views name keys of the tables");
                key.value_in(config).map(|value| value.plain()).unwrap_or_default()
            }
            Self::Topic(name) => {
                let key = TopicConfig::key(name).expect("views name configs of the table");
                key.value_in(&config.topic_defaults())
            }
            Self::Derived(value, _) => value(config),
        }
    }

    fn doc(&self) -> String {
        match self {
            Self::Key(path) => Config::key(path).expect("views name keys of the tables").doc(),
            Self::Topic(name) => {
                TopicConfig::key(name).expect("views name configs of the table").doc()
            }
            Self::Derived(_, doc) => (*doc).to_owned(),
        }
    }
}

impl Config {
    /// This configuration under Kafka's broker config names, in order of name. A value that
    /// equals the built-in one counts as a default. Ports configured as 0 are shown as 0.
    #[must_use]
    pub fn kafka_broker_configs(&self) -> Vec<BrokerConfigEntry> {
        let built_in = Self::default();
        let entry = |(name, config_type, view): &(&'static str, ConfigType, View)| {
            let value = view.value_in(self);
            let source = if value == view.value_in(&built_in) {
                ConfigSource::Default
            } else {
                ConfigSource::StaticBroker
            };
            BrokerConfigEntry { name, value, config_type: *config_type, source, doc: view.doc() }
        };
        VIEWS.iter().map(entry).collect()
    }
}

fn plaintext(endpoint: &Endpoint) -> String {
    format!("PLAINTEXT://{endpoint}")
}

fn listeners(config: &Config) -> String {
    let port = config.listener.kafka_port;
    let host = match config.bind() {
        Bind::Loopback => "localhost".to_owned(),
        Bind::Everywhere => "0.0.0.0".to_owned(),
        Bind::Host(host) => host,
    };
    plaintext(&Endpoint { host, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_view_has_a_value_and_a_manual_and_names_are_sorted() {
        let entries = Config::default().kafka_broker_configs();
        for entry in &entries {
            assert!(!entry.value.is_empty(), "{} has a value", entry.name);
            assert!(!entry.doc.is_empty(), "{} has a manual", entry.name);
            assert_eq!(entry.source, ConfigSource::Default, "{}", entry.name);
        }
        assert!(entries.is_sorted_by_key(|entry| entry.name));
    }

    #[test]
    fn a_set_key_shows_up_as_a_static_broker_config() {
        let mut config = Config::default();
        config.topic.num_partitions = 12;
        config.node.advertised_addr = "kafka.example".parse().ok();
        let entries = config.kafka_broker_configs();
        let find = |name| entries.iter().find(|entry| entry.name == name).expect("a known name");
        assert_eq!(find("num.partitions").value, "12");
        assert_eq!(find("num.partitions").source, ConfigSource::StaticBroker);
        assert_eq!(find("advertised.listeners").value, "PLAINTEXT://kafka.example:9092");
        assert_eq!(find("listeners").value, "PLAINTEXT://0.0.0.0:9092");
        assert_eq!(find("log.retention.ms").source, ConfigSource::Default);
    }
}
