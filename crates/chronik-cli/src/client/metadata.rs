//! Where nodes, topics and partitions are.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use chronik_common::{ErrorCode, Uuid};
use chronik_config::Endpoint;
use chronik_protocol::metadata::{
    MetadataRequest, MetadataRequestTopic, MetadataResponse, MetadataResponsePartition,
    MetadataResponseTopic,
};
use chronik_protocol::{ApiKey, Request};

use super::error::{ClientError, KafkaCode};
use super::{ANY_VERSION, BACKOFF_MIN, Client, Deadline, Target};

/// Version of Metadata with a list of no topics that differs from all topics.
const NULLABLE_TOPICS: i16 = 1;
/// Version of Metadata that can forbid the creation of topics.
const OPTIONAL_CREATION: i16 = 4;

/// Longest wait for a topic that the cluster creates for its clients.
const CREATION_PATIENCE: Duration = Duration::from_secs(3);

/// What is known about the cluster.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    brokers: BTreeMap<i32, Endpoint>,
    controller: Option<i32>,
    topics: BTreeMap<String, TopicView>,
}

/// What to ask about besides the nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wanted<'a> {
    /// Nothing.
    NodesOnly,
    /// A topic that exists, or not.
    Topic(&'a str),
    /// A topic, which the cluster may create.
    TopicOrCreate(&'a str),
    /// Every topic.
    AllTopics,
}

/// One topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicView {
    /// Its name.
    pub name: String,
    /// Its id; zero where the cluster has none.
    pub id: Uuid,
    /// True for the topics Kafka keeps for itself.
    pub is_internal: bool,
    /// Its partitions, in order.
    pub partitions: Vec<PartitionView>,
}

/// One partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionView {
    /// Number in its topic.
    pub index: i32,
    /// Node that leads it; `None` while there is none.
    pub leader: Option<i32>,
    /// Epoch of the leader; -1 where the cluster does not tell.
    pub leader_epoch: i32,
    /// Nodes with a replica.
    pub replicas: Vec<i32>,
    /// Nodes with a replica in sync.
    pub in_sync: Vec<i32>,
    /// Nodes with a replica that is down.
    pub offline: Vec<i32>,
}

impl Cluster {
    /// Where a node is.
    #[must_use]
    pub fn endpoint(&self, node: i32) -> Option<&Endpoint> {
        self.brokers.get(&node)
    }

    /// Node that decides about topics, if the cluster tells.
    #[must_use]
    pub fn controller(&self) -> Option<i32> {
        self.controller
    }

    pub(crate) fn forget_topics(&mut self) {
        self.topics.clear();
    }

    pub(crate) fn topic_with_id(&self, id: Uuid) -> Option<&TopicView> {
        self.topics.values().find(|topic| topic.id == id)
    }
}

impl TopicView {
    /// The partition with this number.
    #[must_use]
    pub fn partition(&self, index: i32) -> Option<&PartitionView> {
        self.partitions.iter().find(|partition| partition.index == index)
    }

    /// Leader of a partition.
    ///
    /// # Errors
    /// [`ClientError::NoLeader`], also for a partition that is not there.
    pub fn leader(&self, index: i32) -> Result<i32, ClientError> {
        let partition = self.partition(index);
        partition.and_then(|partition| partition.leader).ok_or_else(|| ClientError::NoLeader {
            topic: self.name.clone(),
            partition: index,
            replicas: partition.map(|it| it.replicas.clone()).unwrap_or_default(),
        })
    }
}

impl Client {
    /// Every topic of the cluster, in order of name.
    ///
    /// # Errors
    /// If the cluster does not answer.
    pub fn topics(&mut self) -> Result<Vec<TopicView>, ClientError> {
        let deadline = self.deadline();
        self.cluster.forget_topics();
        self.retry(deadline, |client| client.refresh(Wanted::AllTopics, deadline))?;
        Ok(self.cluster.topics.values().cloned().collect())
    }

    /// A topic that must exist.
    ///
    /// # Errors
    /// [`ClientError::NoSuchTopic`], or if the cluster does not answer.
    pub fn topic(&mut self, name: &str) -> Result<TopicView, ClientError> {
        let deadline = self.deadline();
        self.retry(deadline, |client| client.known_topic(Wanted::Topic(name), deadline))
    }

    /// A topic, created by the cluster if it does that for its clients.
    ///
    /// # Errors
    /// [`ClientError::NoSuchTopic`], or if the cluster does not answer.
    pub fn topic_or_create(&mut self, name: &str) -> Result<TopicView, ClientError> {
        let deadline = self.deadline();
        // A broker that creates the topic says at first that it does not know it.
        let patience = Deadline::after(CREATION_PATIENCE);
        loop {
            let wanted = Wanted::TopicOrCreate(name);
            let result = self.retry(deadline, |client| client.known_topic(wanted, deadline));
            let is_missing = matches!(result, Err(ClientError::NoSuchTopic { .. }));
            if !is_missing || patience.remaining().is_none() || deadline.remaining().is_none() {
                return result;
            }
            thread::sleep(BACKOFF_MIN);
        }
    }

    /// The topic as it was last seen; asks if it was not.
    pub(crate) fn known_topic(
        &mut self,
        wanted: Wanted<'_>,
        deadline: Deadline,
    ) -> Result<TopicView, ClientError> {
        let name = match wanted {
            Wanted::Topic(name) | Wanted::TopicOrCreate(name) => name,
            Wanted::NodesOnly | Wanted::AllTopics => unreachable!("one topic is asked for"),
        };
        if !self.cluster.topics.contains_key(name) {
            self.refresh(wanted, deadline)?;
        }
        self.cluster.topics.get(name).cloned().ok_or_else(|| ClientError::NoSuchTopic {
            address: self.address(),
            topic: name.to_owned(),
        })
    }

    /// Leader of a partition; waits for one.
    ///
    /// # Errors
    /// [`ClientError::NoLeader`], or if the cluster does not answer.
    pub fn leader(&mut self, topic: &str, partition: i32) -> Result<i32, ClientError> {
        let deadline = self.deadline();
        self.retry(deadline, |client| {
            client.known_topic(Wanted::Topic(topic), deadline)?.leader(partition)
        })
    }

    /// Asks again where partitions are before they are next used.
    pub fn forget_topics(&mut self) {
        self.cluster.forget_topics();
    }

    /// What is known now.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Asks where the nodes are, and about topics.
    pub(crate) fn refresh(
        &mut self,
        wanted: Wanted<'_>,
        deadline: Deadline,
    ) -> Result<(), ClientError> {
        let request = |version: i16| Request::Metadata(metadata_request(wanted, version));
        let api = (ApiKey::Metadata, ANY_VERSION);
        let answer = self.call(Target::Any, api, deadline, request, |reader, version| {
            Ok(Answer::of(MetadataResponse::decode(reader, version)?))
        })?;
        self.cluster.brokers = answer.brokers;
        self.cluster.controller = answer.controller;
        for (name, result) in answer.topics {
            match result {
                Ok(view) => drop(self.cluster.topics.insert(name, view)),
                Err(code) if code.is(ErrorCode::UnknownTopicOrPartition) => {
                    self.cluster.topics.remove(&name);
                }
                Err(code) => {
                    let action = format!("look up topic {name}");
                    return Err(ClientError::Refused { action, code, message: None });
                }
            }
        }
        Ok(())
    }
}

fn metadata_request(wanted: Wanted<'_>, version: i16) -> MetadataRequest<'_> {
    let topics = match wanted {
        Wanted::NodesOnly => Some(Vec::new()),
        Wanted::Topic(name) | Wanted::TopicOrCreate(name) => {
            Some(vec![MetadataRequestTopic { name: Some(name.into()), ..Default::default() }])
        }
        Wanted::AllTopics if version < NULLABLE_TOPICS => Some(Vec::new()),
        Wanted::AllTopics => None,
    };
    let allows_creation = matches!(wanted, Wanted::TopicOrCreate(_));
    MetadataRequest {
        topics,
        allow_auto_topic_creation: allows_creation || version < OPTIONAL_CREATION,
        ..MetadataRequest::default()
    }
}

/// A metadata answer that borrows nothing.
struct Answer {
    brokers: BTreeMap<i32, Endpoint>,
    controller: Option<i32>,
    topics: Vec<(String, Result<TopicView, KafkaCode>)>,
}

impl Answer {
    fn of(response: MetadataResponse<'_>) -> Self {
        let brokers = response.brokers.iter().filter_map(|broker| {
            let port = u16::try_from(broker.port).ok()?;
            Some((broker.node_id, Endpoint { host: broker.host.clone().into_owned(), port }))
        });
        Self {
            brokers: brokers.collect(),
            controller: Some(response.controller_id).filter(|node| *node >= 0),
            topics: response.topics.into_iter().filter_map(topic_result).collect(),
        }
    }
}

fn topic_result(
    topic: MetadataResponseTopic<'_>,
) -> Option<(String, Result<TopicView, KafkaCode>)> {
    let name = topic.name?.into_owned();
    let result = KafkaCode::check(topic.error_code).map(|()| {
        let mut partitions: Vec<_> = topic.partitions.into_iter().map(partition_view).collect();
        partitions.sort_by_key(|partition| partition.index);
        TopicView {
            name: name.clone(),
            id: topic.topic_id,
            is_internal: topic.is_internal,
            partitions,
        }
    });
    Some((name, result))
}

/// Errors of single partitions are not looked at: a partition without a leader says so itself,
/// and the others only tell that a replica is down.
fn partition_view(partition: MetadataResponsePartition) -> PartitionView {
    PartitionView {
        index: partition.partition_index,
        leader: Some(partition.leader_id).filter(|node| *node >= 0),
        leader_epoch: partition.leader_epoch,
        replicas: partition.replica_nodes,
        in_sync: partition.isr_nodes,
        offline: partition.offline_replicas,
    }
}
