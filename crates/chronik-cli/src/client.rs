//! A small synchronous Kafka client: one thread, one request at a time.
//!
//! Speaks the public protocol only, so it works with any Kafka cluster without TLS and SASL.
//! Knows where nodes are and sends each question to the node that can answer it. A step that
//! fails for a reason that passes is repeated, after asking where things are now, until the
//! step's time is over; then the last reason is reported.
//!
//! Not here: consumer groups, transactions, pipelining. Every wait is bounded by
//! [`ClientOptions::timeout`], every answer by 128 MiB.

mod admin;
mod connection;
mod error;
mod fetch;
mod metadata;
mod produce;
mod producer;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::thread;
use std::time::Duration;

use chronik_config::Endpoint;
use chronik_protocol::{ApiKey, DecodeError, Reader, Request, VersionRange};

pub use admin::{
    BrokerView, ClusterDescription, ConfigResource, ConfigSetting, CreatedTopic, NewTopic,
};
pub use error::{ClientError, KafkaCode};
pub use fetch::{FetchFrom, FetchedPartition, LogPoint};
pub use metadata::{Cluster, PartitionView, TopicView};
pub use produce::{Acks, ProducerIdentity};
pub use producer::{PartitionSummary, Producer, ProducerOptions, RecordToSend};

use connection::Connection;
pub(crate) use connection::Deadline;

/// First wait before a step is repeated; doubled each time.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// Longest wait before a step is repeated.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Any version that both sides speak.
pub(crate) const ANY_VERSION: VersionRange = VersionRange { min: 0, max: i16::MAX };

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Where to ask first; tried in order.
    pub bootstrap: Vec<Endpoint>,
    /// Longest time of one step, retries included.
    pub timeout: Duration,
}

/// Who answers a question.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Target {
    /// Any node.
    Any,
    /// This node.
    Node(i32),
    /// The controller, or any node while it is not known: newer brokers pass the question on.
    Controller,
}

/// Connections to a cluster and what is known about it.
#[derive(Debug)]
pub struct Client {
    options: ClientOptions,
    /// By address as dialled.
    connections: BTreeMap<String, Connection>,
    /// Addresses that once accepted a connection.
    reached: BTreeSet<String>,
    /// Address of a bootstrap connection that worked.
    home: Option<Endpoint>,
    cluster: Cluster,
}

impl Client {
    /// A client that has not dialled yet.
    #[must_use]
    pub fn new(options: ClientOptions) -> Self {
        Self {
            options,
            connections: BTreeMap::new(),
            reached: BTreeSet::new(),
            home: None,
            cluster: Cluster::default(),
        }
    }

    /// The cluster's address, for messages: the one that answered, or those that were given.
    #[must_use]
    pub fn address(&self) -> String {
        let given = || {
            let addresses: Vec<_> =
                self.options.bootstrap.iter().map(ToString::to_string).collect();
            addresses.join(",")
        };
        self.home.as_ref().map_or_else(given, ToString::to_string)
    }

    pub(crate) fn deadline(&self) -> Deadline {
        Deadline::after(self.options.timeout)
    }

    /// Sends one request and decodes its answer. `request` builds it for the version agreed on,
    /// which lies in `wanted`.
    pub(crate) fn call<'r, T>(
        &mut self,
        target: Target,
        (api, wanted): (ApiKey, VersionRange),
        deadline: Deadline,
        request: impl FnOnce(i16) -> Request<'r>,
        decode: impl FnOnce(&mut Reader<'_>, i16) -> Result<T, DecodeError>,
    ) -> Result<T, ClientError> {
        self.on_connection(target, deadline, |connection| {
            let version = connection.version_of(api, wanted)?;
            connection.exchange(&request(version), version, deadline, decode)
        })
    }

    /// Runs `step` on the connection to `target`, which is closed if the step breaks it.
    pub(crate) fn on_connection<T>(
        &mut self,
        target: Target,
        deadline: Deadline,
        step: impl FnOnce(&mut Connection) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let key = self.connect(target, deadline)?;
        let connection = self.connections.get_mut(&key).expect("connect leaves a connection");
        let result = step(connection);
        if result.as_ref().is_err_and(ClientError::breaks_connection) {
            self.connections.remove(&key);
        }
        result
    }

    /// Repeats `step` while its failure may pass and there is time, asking in between where
    /// things are now.
    pub(crate) fn retry<T>(
        &mut self,
        deadline: Deadline,
        mut step: impl FnMut(&mut Self) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let mut backoff = BACKOFF_MIN;
        loop {
            let error = match step(self) {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            // A server that was there before is waited for; one that never was is not.
            let was_there = match &error {
                ClientError::Unreachable { .. } => self.home.is_some(),
                ClientError::AdvertisedUnreachable { address, .. } => {
                    self.reached.contains(address)
                }
                _ => false,
            };
            let may_pass = error.is_retriable() || was_there;
            let has_time = deadline.remaining().is_some_and(|left| left > backoff);
            if !may_pass || !has_time {
                return Err(error);
            }
            thread::sleep(backoff);
            backoff = (backoff * 2).min(BACKOFF_MAX);
            self.cluster.forget_topics();
        }
    }

    /// Makes sure there is a connection to `target` and returns its key.
    fn connect(&mut self, target: Target, deadline: Deadline) -> Result<String, ClientError> {
        let node = match target {
            Target::Any => None,
            Target::Node(node) => Some(node),
            Target::Controller => self.cluster.controller(),
        };
        match node.and_then(|node| self.cluster.endpoint(node).cloned().map(|at| (node, at))) {
            Some((node, endpoint)) => self.connect_to_node(node, &endpoint, deadline),
            None => self.connect_home(deadline),
        }
    }

    fn connect_to_node(
        &mut self,
        node: i32,
        endpoint: &Endpoint,
        deadline: Deadline,
    ) -> Result<String, ClientError> {
        let key = endpoint.to_string();
        if !self.connections.contains_key(&key) {
            let stream = Connection::dial(endpoint, deadline).map_err(|reason| {
                ClientError::AdvertisedUnreachable { node, address: key.clone(), reason }
            })?;
            let connection = Connection::open(stream, endpoint, deadline)?;
            self.reached.insert(key.clone());
            self.connections.insert(key.clone(), connection);
        }
        Ok(key)
    }

    fn connect_home(&mut self, deadline: Deadline) -> Result<String, ClientError> {
        if let Some(home) = &self.home
            && self.connections.contains_key(&home.to_string())
        {
            return Ok(home.to_string());
        }
        let mut last_error = io::Error::new(io::ErrorKind::InvalidInput, "no address was given");
        for endpoint in self.options.bootstrap.clone() {
            match Connection::dial(&endpoint, deadline) {
                Ok(stream) => {
                    let connection = Connection::open(stream, &endpoint, deadline)
                        .map_err(|reason| not_kafka(&endpoint, reason))?;
                    let key = connection.address().to_owned();
                    self.connections.insert(key.clone(), connection);
                    self.home = Some(endpoint);
                    return Ok(key);
                }
                Err(error) => last_error = error,
            }
        }
        Err(ClientError::Unreachable { address: self.address(), reason: last_error })
    }
}

/// A first question that was answered by no Kafka listener, or not at all.
fn not_kafka(endpoint: &Endpoint, reason: ClientError) -> ClientError {
    ClientError::NotKafka { address: endpoint.to_string(), reason: Box::new(reason) }
}
