//! `[cluster]`: this node's id, its peers, and where replicas go.

use std::collections::BTreeMap;

use chronik_common::NodeId;

use crate::key::section;
use crate::kind::{
    Choice, HostAndPort, Kind, Maybe, Named, NodeNumber, Switch, Text, Texts, number,
};
use crate::{Address, Endpoint, Value};

/// Port of the inter-node listener where an address does not name one.
pub const INTER_NODE_PORT: u16 = 5_001;

section! {
    /// Membership and placement. A standalone server is a cluster of one: it obeys `node_id` and
    /// checks the rest.
    ClusterConfig at "cluster", config => config.cluster, {
        /// Id of this server, unique in its cluster, which clients see as the broker id. It is
        /// written to the data directory at the first start and must not change afterwards.
        node_id: NodeId = NodeId(1), NodeNumber, variables(&["CHRONIK_NODE_ID"]);

        /// Form a cluster with the peers below. Unset means: if peers other than this node or a
        /// discovery service are named.
        enabled: Option<bool> = None, Maybe(Switch), reserved();

        /// Address on which the other nodes reach this one; port 5001 unless it names another. It
        /// must differ from the Kafka address: clients never use it.
        raft_addr: Option<Address> = None, Maybe(HostAndPort),
            variables(&["CHRONIK_RAFT_ADDR"]), reserved();

        /// Replicas of a topic whose creator names no number; never more than there are nodes.
        /// Three survive the loss of one node without stopping writes.
        replication_factor: u16 = 3, number(1, 32), reserved();

        /// In-sync replicas that a write with acks=all needs, for topics that do not set
        /// `min.insync.replicas`. Unset means 2 with three or more replicas, else 1. At the
        /// replication factor, the loss of any replica stops such writes; at 1, an acknowledged
        /// record may exist on one disk only.
        min_insync_replicas: Option<u16> = None, Maybe(number(1, 32)), reserved();
    }
    nested {
        /// `[cluster.peers]`.
        peers: PeersConfig;
        /// `[cluster.discovery]`.
        discovery: DiscoveryConfig;
        /// `[cluster.datacenters]`.
        datacenters: DatacentersConfig;
    }
}

section! {
    /// The nodes of the cluster, for the first start.
    PeersConfig at "cluster.peers", config => config.cluster.peers, {
        /// In the file, one table per node: `id`, `addr` (its Kafka address) and optionally
        /// `raft_addr` (its inter-node address; otherwise port 5001 of the same host). As a
        /// variable or flag, a list separated by commas: either `id@host:port`, inter-node
        /// addresses, or `host:port`, Kafka addresses whose ids are their positions from 1. The
        /// two forms cannot be mixed in one list.
        nodes: Vec<Peer> = Vec::new(), Peers, variables(&["CHRONIK_CLUSTER_PEERS"]), reserved();
    }
}

section! {
    /// How a node finds the others. Discovery finds addresses; it never changes membership.
    DiscoveryConfig at "cluster.discovery", config => config.cluster.discovery, {
        /// `static` uses `cluster.peers.nodes`; `dns` asks for the records of `dns_service` and
        /// falls back to the list.
        mode: DiscoveryMode = DiscoveryMode::Static, Choice, reserved();

        /// Name whose SRV, or else address records list the nodes. Needed by mode `dns`, for
        /// example the headless service of a Kubernetes StatefulSet.
        dns_service: Option<String> = None, Maybe(Text),
            variables(&["CHRONIK_CLUSTER_DNS_SERVICE"]), reserved();
    }
}

section! {
    /// Placement over several data centres.
    DatacentersConfig at "cluster.datacenters", config => config.cluster.datacenters, {
        /// Name of the data centre this node is in. All nodes must agree on the names, or replicas
        /// are placed as if there were more of them.
        local: Option<String> = None, Maybe(Text), reserved();

        /// Names of the other data centres, without this node's own.
        remotes: Vec<String> = Vec::new(), Texts, reserved();

        /// `sync` spreads in-sync replicas over data centres, so that writes wait for the link;
        /// `async` keeps observers there, which are never waited for and may lag.
        replication_mode: DatacenterReplication = DatacenterReplication::Async, Choice, reserved();
    }
}

impl ClusterConfig {
    /// `min_insync_replicas`, or else 2 with three or more replicas and 1 with fewer.
    #[must_use]
    pub fn default_min_insync_replicas(&self) -> u16 {
        self.min_insync_replicas.unwrap_or(if self.replication_factor >= 3 { 2 } else { 1 })
    }
}

/// How a node finds the others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiscoveryMode {
    /// From the list in the configuration.
    Static,
    /// From DNS records.
    Dns,
}

impl Named for DiscoveryMode {
    const NAMES: &'static [(&'static str, Self)] = &[("static", Self::Static), ("dns", Self::Dns)];
}

/// Whether writes wait for other data centres.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DatacenterReplication {
    /// Remote replicas are observers.
    Async,
    /// Remote replicas may be in sync.
    Sync,
}

impl Named for DatacenterReplication {
    const NAMES: &'static [(&'static str, Self)] = &[("async", Self::Async), ("sync", Self::Sync)];
}

/// One node of the cluster, as configured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Its id; the first connection checks it.
    pub id: NodeId,
    /// Its Kafka address; `None` if only the inter-node address was given.
    pub kafka: Option<Endpoint>,
    /// Its inter-node address.
    pub inter_node: Endpoint,
}

/// The list of peers in its two spellings.
struct Peers;

impl Kind<Vec<Peer>> for Peers {
    fn read(&self, value: &Value) -> Option<Vec<Peer>> {
        match value {
            Value::Word(word) if word.trim().is_empty() => Some(Vec::new()),
            Value::Word(word) if word.contains('@') => {
                word.split(',').map(|entry| peer_with_id(entry.trim())).collect()
            }
            Value::Word(word) => {
                word.split(',').zip(1..).map(|(entry, id)| peer_at(entry.trim(), id)).collect()
            }
            Value::List(items) => items
                .iter()
                .map(|item| if let Value::Table(table) = item { peer_of(table) } else { None })
                .collect(),
            _ => None,
        }
    }

    fn write(&self, value: &Vec<Peer>) -> Option<Value> {
        let table = |peer: &Peer| {
            let mut table = BTreeMap::new();
            table.insert("id".to_owned(), Value::Integer(i64::from(peer.id.0)));
            if let Some(kafka) = &peer.kafka {
                table.insert("addr".to_owned(), Value::Text(kafka.to_string()));
            }
            table.insert("raft_addr".to_owned(), Value::Text(peer.inter_node.to_string()));
            Value::Table(table)
        };
        Some(Value::List(value.iter().map(table).collect()))
    }

    fn expected(&self) -> String {
        "a list of { id, addr } tables with an optional raft_addr; as a variable or flag, a list \
         of id@host:port (inter-node addresses) or of host:port (Kafka addresses, ids by \
         position), never both in one list"
            .to_owned()
    }
}

fn peer_with_id(entry: &str) -> Option<Peer> {
    let (id, address) = entry.split_once('@')?;
    let id = NodeNumber.read(&Value::Word(id.to_owned()))?;
    let address: Address = address.parse().ok()?;
    Some(Peer { id, kafka: None, inter_node: address.with_default_port(INTER_NODE_PORT) })
}

fn peer_at(entry: &str, position: i32) -> Option<Peer> {
    let address: Address = entry.parse().ok()?;
    let inter_node = Endpoint { host: address.host.clone(), port: INTER_NODE_PORT };
    let kafka = Endpoint { port: address.port?, host: address.host };
    Some(Peer { id: NodeId(position), kafka: Some(kafka), inter_node })
}

fn peer_of(table: &BTreeMap<String, Value>) -> Option<Peer> {
    let address = |key: &str| match table.get(key) {
        None => Some(None),
        Some(text @ Value::Text(_)) => HostAndPort.read(text).map(Some),
        Some(_) => None,
    };
    if table.keys().any(|key| !["id", "addr", "raft_addr"].contains(&key.as_str())) {
        return None;
    }
    let id = NodeNumber.read(table.get("id")?)?;
    let (kafka, raft) = (address("addr")?, address("raft_addr")?);
    let kafka = match kafka {
        Some(kafka) => Some(Endpoint { port: kafka.port?, host: kafka.host }),
        None => None,
    };
    let inter_node = match (&raft, &kafka) {
        (Some(raft), _) => raft.with_default_port(INTER_NODE_PORT),
        (None, Some(kafka)) => Endpoint { host: kafka.host.clone(), port: INTER_NODE_PORT },
        (None, None) => return None,
    };
    Some(Peer { id, kafka, inter_node })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(list: &str) -> Option<Vec<(i32, Option<String>, String)>> {
        let peers = Peers.read(&Value::Word(list.to_owned()))?;
        let parts = |peer: Peer| {
            (peer.id.0, peer.kafka.map(|kafka| kafka.to_string()), peer.inter_node.to_string())
        };
        Some(peers.into_iter().map(parts).collect())
    }

    #[test]
    fn entries_with_an_id_are_inter_node_addresses() {
        let expected = vec![(2, None, "b:5002".to_owned()), (3, None, "[::1]:5001".to_owned())];
        assert_eq!(peers("2@b:5002, 3@[::1]"), Some(expected));
    }

    #[test]
    fn entries_without_an_id_are_kafka_addresses_numbered_from_one() {
        let expected = vec![
            (1, Some("10.0.1.10:9092".to_owned()), "10.0.1.10:5001".to_owned()),
            (2, Some("10.0.1.11:9093".to_owned()), "10.0.1.11:5001".to_owned()),
        ];
        assert_eq!(peers("10.0.1.10:9092,10.0.1.11:9093"), Some(expected));
    }

    #[test]
    fn mixed_and_malformed_lists_are_refused() {
        for list in
            ["1@a:5001,b:9092", "a:9092,2@b:5001", "a:9092,,b:9092", "a", "-1@a:5001", "x@a"]
        {
            assert_eq!(peers(list), None, "{list}");
        }
    }
}
