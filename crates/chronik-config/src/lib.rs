//! The typed configuration of a Chronik server: one tree, one table per section, one loader.
//!
//! A section's table ([`Key`]) drives parsing, variable names, defaults, printing and the
//! reference page. [`load`] merges the layers, lowest first: built-in, profile, file,
//! environment, `--set`, flag. It reports every problem it finds, not just the first. Topic
//! configs under Kafka's names are in [`TopicConfig`]; the view of this tree under Kafka's broker
//! config names is [`Config::kafka_broker_configs`].
//!
//! This crate does not know who uses a value. It is the only crate of the product that reads
//! the environment ([`Sources::from_process`]). Everything else here is a value: no threads, no
//! state.

mod address;
mod broker;
mod cluster;
mod error;
mod key;
mod kind;
mod listener;
mod load;
mod monitoring;
mod nearest;
mod node;
mod profile;
mod raft;
pub mod reference;
mod replication;
mod topic;
mod topic_defaults;
mod validate;
mod value;
mod wal;

use chronik_common::NodeId;

pub use address::{Address, Endpoint, InvalidAddress};
pub use broker::{BrokerConfigEntry, ConfigSource, ConfigType};
pub use cluster::{
    ClusterConfig, DatacenterReplication, DatacentersConfig, DiscoveryConfig, DiscoveryMode,
    INTER_NODE_PORT, Peer, PeersConfig,
};
pub use error::{LoadError, Problem, Setting, Warning};
pub use key::{Effect, Key, Section};
pub use kind::Named;
pub use listener::ListenerConfig;
pub use load::{ConfigFile, Entry, Flag, Loaded, Mode, Origin, Sources, load};
pub use monitoring::{LogFormat, MetricsConfig, MonitoringConfig};
pub use node::NodeConfig;
pub use profile::Profile;
pub use raft::{RaftAdvancedConfig, RaftConfig, SnapshotCompression};
pub use replication::ReplicationConfig;
pub use topic::{
    CleanupPolicy, CompressionType, ConfigSynonym, Durability, ReplicationMode, TimestampType,
    TopicConfig, TopicConfigEntry, TopicConfigError, TopicKey, Validation,
};
pub use topic_defaults::TopicSection;
pub use value::Value;
pub use wal::{DiskFailurePolicy, WalConfig};

/// The whole tree. A component is given its section, not the tree.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Config {
    /// `[node]`.
    pub node: NodeConfig,
    /// `[listener]`.
    pub listener: ListenerConfig,
    /// `[topic]`.
    pub topic: TopicSection,
    /// `[wal]`.
    pub wal: WalConfig,
    /// `[monitoring]`.
    pub monitoring: MonitoringConfig,
    /// `[metrics]`.
    pub metrics: MetricsConfig,
    /// `[replication]`.
    pub replication: ReplicationConfig,
    /// `[cluster]`.
    pub cluster: ClusterConfig,
    /// `[raft]`.
    pub raft: RaftConfig,
}

/// Where the listeners listen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Bind {
    /// 127.0.0.1 and ::1; a machine without IPv6 has the first only.
    Loopback,
    /// Every interface, over IPv4 and IPv6.
    Everywhere,
    /// This host name or address.
    Host(String),
}

impl Config {
    /// Every section, in the order of the reference page.
    #[must_use]
    pub const fn sections() -> &'static [Section] {
        &[
            NodeConfig::SECTION,
            ListenerConfig::SECTION,
            TopicSection::SECTION,
            WalConfig::SECTION,
            MonitoringConfig::SECTION,
            MetricsConfig::SECTION,
            ReplicationConfig::SECTION,
            ClusterConfig::SECTION,
            PeersConfig::SECTION,
            DiscoveryConfig::SECTION,
            DatacentersConfig::SECTION,
            RaftConfig::SECTION,
            RaftAdvancedConfig::SECTION,
        ]
    }

    /// Every key, in the order of the reference page.
    pub fn keys() -> impl Iterator<Item = &'static Key> {
        Self::sections().iter().flat_map(|section| section.keys)
    }

    /// The key called `path`, by its own name or an alias.
    #[must_use]
    pub fn key(path: &str) -> Option<&'static Key> {
        Self::keys().find(|key| key.path == path || key.aliases.contains(&path))
    }

    /// Where both listeners listen: `listener.bind`, or else loopback while clients are told a
    /// loopback name, or else everywhere.
    #[must_use]
    pub fn bind(&self) -> Bind {
        match (&self.listener.bind, &self.node.advertised_addr) {
            (Some(host), _) if address::is_wildcard(host) => Bind::Everywhere,
            (Some(host), _) => Bind::Host(host.clone()),
            (None, Some(advertised)) if !address::is_loopback(&advertised.host) => Bind::Everywhere,
            (None, _) => Bind::Loopback,
        }
    }

    /// The Kafka address clients are told when the Kafka listener got `kafka_port`, which
    /// differs from the configured port if that is 0.
    #[must_use]
    pub fn advertised(&self, kafka_port: u16) -> Endpoint {
        match (&self.node.advertised_addr, self.bind()) {
            (Some(advertised), _) => advertised.with_default_port(kafka_port),
            (None, Bind::Host(host)) => Endpoint { host, port: kafka_port },
            (None, _) => Endpoint { host: "localhost".to_owned(), port: kafka_port },
        }
    }

    /// Number of request-serving threads on a machine with `cores` cores; at least 1.
    #[must_use]
    pub fn shard_count(&self, cores: usize) -> usize {
        match self.node.shards {
            0 => cores.max(1),
            shards => usize::from(shards),
        }
    }

    /// This server's id.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.cluster.node_id
    }

    /// True if the settings ask for more than a cluster of one: `cluster.enabled`, or, where
    /// that is unset, peers other than this node or discovery by DNS.
    #[must_use]
    pub fn wants_cluster(&self) -> bool {
        self.cluster.enabled.unwrap_or_else(|| {
            let is_other = |peer: &Peer| peer.id != self.cluster.node_id;
            self.cluster.discovery.mode == DiscoveryMode::Dns
                || self.cluster.peers.nodes.iter().any(is_other)
        })
    }

    /// Replicas of a topic whose creator names no number; 1 in a standalone server.
    #[must_use]
    pub fn default_replication_factor(&self) -> u16 {
        if self.wants_cluster() { self.cluster.replication_factor } else { 1 }
    }

    /// The topic config of a topic without overrides.
    #[must_use]
    pub fn topic_defaults(&self) -> TopicConfig {
        let min_insync_replicas =
            if self.wants_cluster() { self.cluster.default_min_insync_replicas() } else { 1 };
        TopicConfig {
            max_message_bytes: u32::try_from(self.topic.message_max_bytes)
                .expect("the key is bounded by 100 MiB"),
            segment_bytes: self.wal.segment_bytes,
            min_insync_replicas,
            ..TopicConfig::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_listeners_stay_on_loopback_until_clients_are_told_another_host() {
        let mut config = Config::default();
        assert_eq!(config.bind(), Bind::Loopback);
        assert_eq!(config.advertised(9_092).to_string(), "localhost:9092");
        config.node.advertised_addr = "localhost:9192".parse().ok();
        assert_eq!(config.bind(), Bind::Loopback);
        assert_eq!(config.advertised(9_092).to_string(), "localhost:9192");
        config.node.advertised_addr = "kafka.example".parse().ok();
        assert_eq!(config.bind(), Bind::Everywhere);
        assert_eq!(config.advertised(9_092).to_string(), "kafka.example:9092");
    }

    #[test]
    fn a_bind_host_wins_and_is_what_clients_are_told() {
        let mut config = Config::default();
        config.listener.bind = Some("10.0.0.7".to_owned());
        assert_eq!(config.bind(), Bind::Host("10.0.0.7".to_owned()));
        assert_eq!(config.advertised(1).to_string(), "10.0.0.7:1");
        config.listener.bind = Some("::".to_owned());
        assert_eq!(config.bind(), Bind::Everywhere);
        assert_eq!(config.advertised(1).to_string(), "localhost:1");
    }

    #[test]
    fn zero_shards_is_one_per_core() {
        let mut config = Config::default();
        assert_eq!([0, 1, 8].map(|cores| config.shard_count(cores)), [1, 1, 8]);
        config.node.shards = 3;
        assert_eq!(config.shard_count(8), 3);
    }

    #[test]
    fn every_path_alias_and_variable_names_one_key() {
        let mut names = std::collections::BTreeSet::new();
        for key in Config::keys() {
            assert!(names.insert(key.variable()), "{} is derived twice", key.variable());
            for name in key.aliases.iter().chain(key.extra_variables).chain([&key.path]) {
                assert!(names.insert((*name).to_owned()), "{name} names two keys");
            }
            assert!(key.doc().len() > 10, "{} has a manual", key.path);
        }
    }
}
