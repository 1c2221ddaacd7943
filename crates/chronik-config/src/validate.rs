//! Rules between settings. Rules of a single value are the bounds in its section's table.

use std::collections::BTreeMap;

use crate::address::is_wildcard;
use crate::cluster::DiscoveryMode;
use crate::load::{Loaded, Mode};
use crate::{Config, Problem};

/// One rule: it holds if `holds` says so, and is told as "left rule right".
struct Rule {
    left: &'static str,
    rule: &'static str,
    right: &'static str,
    holds: fn(&Config) -> bool,
}

const RULES: &[Rule] = &[
    Rule {
        left: "listener.kafka_port",
        rule: "must differ from",
        right: "listener.http_port",
        holds: |c| c.listener.kafka_port != c.listener.http_port || c.listener.kafka_port == 0,
    },
    Rule {
        left: "listener.request_bytes_max",
        rule: "must be at most",
        right: "listener.queued_request_bytes_max",
        holds: |c| c.listener.request_bytes_max <= c.listener.queued_request_bytes_max,
    },
    Rule {
        left: "listener.connections_per_ip_max",
        rule: "must be at most",
        right: "listener.connections_max",
        holds: |c| c.listener.connections_from_one_ip() <= c.listener.connections_max,
    },
    Rule {
        left: "topic.message_max_bytes",
        rule: "must be at most",
        right: "listener.request_bytes_max",
        holds: |c| c.topic.message_max_bytes <= c.listener.request_bytes_max,
    },
    Rule {
        left: "wal.bypass_bytes",
        rule: "must be at most",
        right: "wal.group_bytes_max",
        holds: |c| c.wal.bypass_bytes <= c.wal.group_bytes_max,
    },
    Rule {
        left: "wal.group_bytes_max",
        rule: "must be at most a quarter of",
        right: "wal.journal_file_bytes",
        holds: |c| c.wal.group_bytes_max <= c.wal.journal_file_bytes / 4,
    },
    Rule {
        left: "wal.group_bytes_max",
        rule: "must be at most half of",
        right: "wal.tail_bytes_max",
        holds: |c| c.wal.group_bytes_max <= c.wal.tail_bytes_max / 2,
    },
    Rule {
        left: "cluster.min_insync_replicas",
        rule: "must be at most",
        right: "cluster.replication_factor",
        holds: |c| c.cluster.default_min_insync_replicas() <= c.cluster.replication_factor,
    },
    Rule {
        left: "raft.heartbeat_interval_ms",
        rule: "must be at most a third of",
        right: "raft.election_timeout_ms",
        holds: |c| c.raft.heartbeat_interval_ms <= c.raft.election_timeout_ms / 3,
    },
    Rule {
        left: "cluster.discovery.mode",
        rule: "needs",
        right: "cluster.discovery.dns_service",
        holds: |c| {
            c.cluster.discovery.mode != DiscoveryMode::Dns
                || c.cluster.discovery.dns_service.is_some()
        },
    },
];

/// Every broken rule of `loaded`.
pub(crate) fn validate(loaded: &Loaded, mode: Mode, host_addresses: &[String]) -> Vec<Problem> {
    let config = &loaded.config;
    let mut problems: Vec<_> = RULES
        .iter()
        .filter(|rule| !(rule.holds)(config))
        .map(|rule| Problem::Conflict {
            left: loaded.setting(rule.left),
            rule: rule.rule,
            right: loaded.setting(rule.right),
        })
        .collect();
    let refuse = |key, rule| Problem::Refused { setting: loaded.setting(key), rule };

    let advertised = config.node.advertised_addr.as_ref();
    if advertised.is_some_and(|address| is_wildcard(&address.host)) {
        problems.push(Problem::WildcardAdvertised {
            told: config.advertised(config.listener.kafka_port).to_string(),
            host_addresses: host_addresses.to_vec(),
        });
    }
    if mode == Mode::Server && config.wal.debug_sync_delay_us > 0 {
        problems.push(refuse("wal.debug_sync_delay_us", "is refused outside dev mode"));
    }
    let mut addresses = BTreeMap::new();
    for peer in &config.cluster.peers.nodes {
        if addresses.insert(peer.id, &peer.inter_node).is_some() {
            problems.push(refuse("cluster.peers.nodes", "names one id twice"));
        }
    }
    let mut dialled: Vec<_> = addresses.values().collect();
    dialled.sort();
    if dialled.windows(2).any(|pair| pair[0] == pair[1]) {
        problems.push(refuse("cluster.peers.nodes", "names one inter-node address twice"));
    }
    problems
}
