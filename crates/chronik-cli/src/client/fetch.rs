//! Where logs begin and end, and their records.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use chronik_common::Uuid;
use chronik_protocol::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, FetchableTopicResponse,
};
use chronik_protocol::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopic,
};
use chronik_protocol::{ApiKey, Request, VersionRange};

use super::error::{ClientError, KafkaCode};
use super::metadata::Wanted;
use super::{ANY_VERSION, Client, Deadline, Target, TopicView};

/// First version of Fetch that names topics by id.
const TOPIC_IDS: i16 = 13;
/// Largest answer asked for, in bytes.
const FETCH_BYTES_MAX: i32 = 32 << 20;
/// Largest answer asked for of one partition, in bytes; a larger batch still comes whole.
const PARTITION_BYTES_MAX: i32 = 1 << 20;
/// A client that is no broker.
const NO_REPLICA: i32 = -1;
/// A fetch outside any fetch session.
const NO_SESSION_EPOCH: i32 = -1;

/// A place in a log that the cluster knows the offset of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogPoint {
    /// The first record.
    Start,
    /// Behind the last record that consumers may see.
    End,
    /// The first record with this timestamp or a later one, in ms since the Unix epoch.
    Time(i64),
}

impl LogPoint {
    fn timestamp(self) -> i64 {
        match self {
            Self::Start => -2,
            Self::End => -1,
            Self::Time(ms) => ms,
        }
    }
}

/// A partition and the offset to read next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchFrom {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The next offset.
    pub offset: i64,
}

/// The answer for one partition.
#[derive(Clone, Debug)]
pub struct FetchedPartition {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// Record batches back to back, the last one possibly cut off; or why there are none.
    pub records: Result<Bytes, KafkaCode>,
}

impl Client {
    /// The offset of `point` in every partition of a topic; partitions without such a record are
    /// left out.
    ///
    /// # Errors
    /// If the cluster does not answer, or refuses for one of the partitions.
    pub fn offsets(
        &mut self,
        topic: &str,
        point: LogPoint,
    ) -> Result<BTreeMap<i32, i64>, ClientError> {
        let deadline = self.deadline();
        self.retry(deadline, |client| {
            let view = client.known_topic(Wanted::Topic(topic), deadline)?;
            let mut by_leader: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
            for partition in &view.partitions {
                by_leader.entry(view.leader(partition.index)?).or_default().push(partition.index);
            }
            let mut offsets = BTreeMap::new();
            for (leader, partitions) in by_leader {
                offsets.extend(client.offsets_at(leader, &view, &partitions, point, deadline)?);
            }
            Ok(offsets)
        })
    }

    fn offsets_at(
        &mut self,
        leader: i32,
        topic: &TopicView,
        partitions: &[i32],
        point: LogPoint,
        deadline: Deadline,
    ) -> Result<Vec<(i32, i64)>, ClientError> {
        let partition = |index: &i32| ListOffsetsPartition {
            partition_index: *index,
            current_leader_epoch: -1,
            timestamp: point.timestamp(),
        };
        let request = |_| {
            Request::ListOffsets(ListOffsetsRequest {
                replica_id: NO_REPLICA,
                topics: vec![ListOffsetsTopic {
                    name: Cow::Borrowed(&topic.name),
                    partitions: partitions.iter().map(partition).collect(),
                }],
                ..ListOffsetsRequest::default()
            })
        };
        let api = (ApiKey::ListOffsets, ANY_VERSION);
        let answer =
            self.call(Target::Node(leader), api, deadline, request, |reader, version| {
                let response = ListOffsetsResponse::decode(reader, version)?;
                let partitions = response.topics.into_iter().flat_map(|it| it.partitions);
                Ok(partitions.map(|it| (it.partition_index, it.error_code, it.offset)).collect())
            })?;
        let answer: Vec<(i32, i16, i64)> = answer;
        let mut offsets = Vec::new();
        for (index, code, offset) in answer {
            KafkaCode::check(code).map_err(|code| ClientError::Refused {
                action: format!("find offsets of {}-{index}", topic.name),
                code,
                message: None,
            })?;
            offsets.extend((offset >= 0).then_some((index, offset)));
        }
        Ok(offsets)
    }

    /// Reads from partitions led by `leader`; waits up to `max_wait` if there is nothing.
    ///
    /// # Errors
    /// If the node does not answer, or refuses as a whole.
    pub fn fetch(
        &mut self,
        leader: i32,
        wanted: &[FetchFrom],
        max_wait: Duration,
    ) -> Result<Vec<FetchedPartition>, ClientError> {
        let deadline = Deadline::after(self.options.timeout + max_wait);
        let topics = self.fetch_topics(wanted, deadline)?;
        let has_ids = topics.iter().all(|topic| !topic.topic_id.is_zero());
        let max = if has_ids { i16::MAX } else { TOPIC_IDS - 1 };
        let request = |_| {
            Request::Fetch(FetchRequest {
                max_wait_ms: max_wait.as_millis() as i32,
                min_bytes: 1,
                max_bytes: FETCH_BYTES_MAX,
                session_epoch: NO_SESSION_EPOCH,
                topics: topics.clone(),
                ..FetchRequest::default()
            })
        };
        let api = (ApiKey::Fetch, VersionRange { min: 0, max });
        let answer =
            self.call(Target::Node(leader), api, deadline, request, |reader, version| {
                let response = FetchResponse::decode(reader, version)?;
                let partitions = response.responses.into_iter().flat_map(|topic| fetched(&topic));
                Ok((response.error_code, partitions.collect::<Vec<_>>()))
            })?;
        let (code, partitions) = answer;
        KafkaCode::check(code).map_err(|code| ClientError::Refused {
            action: format!("fetch from node {leader}"),
            code,
            message: None,
        })?;
        Ok(partitions.into_iter().filter_map(|it| self.named(it)).collect())
    }

    fn fetch_topics(
        &mut self,
        wanted: &[FetchFrom],
        deadline: Deadline,
    ) -> Result<Vec<FetchTopic<'static>>, ClientError> {
        let mut topics: BTreeMap<String, FetchTopic<'static>> = BTreeMap::new();
        for FetchFrom { topic, partition, offset } in wanted {
            let id = self.known_topic(Wanted::Topic(topic), deadline)?.id;
            let entry = topics.entry(topic.clone()).or_insert_with(|| FetchTopic {
                topic: Cow::Owned(topic.clone()),
                topic_id: id,
                partitions: Vec::new(),
            });
            entry.partitions.push(FetchPartition {
                partition: *partition,
                fetch_offset: *offset,
                partition_max_bytes: PARTITION_BYTES_MAX,
                ..FetchPartition::default()
            });
        }
        Ok(topics.into_values().collect())
    }

    /// Newer versions name topics by id only.
    fn named(&self, (topic, partition): (TopicKey, PartitionRecords)) -> Option<FetchedPartition> {
        let topic = match topic {
            TopicKey::Name(name) => name,
            TopicKey::Id(id) => self.cluster.topic_with_id(id)?.name.clone(),
        };
        let PartitionRecords { index, records } = partition;
        Some(FetchedPartition { topic, partition: index, records })
    }
}

enum TopicKey {
    Name(String),
    Id(Uuid),
}

struct PartitionRecords {
    index: i32,
    records: Result<Bytes, KafkaCode>,
}

fn fetched(topic: &FetchableTopicResponse<'_>) -> Vec<(TopicKey, PartitionRecords)> {
    let key = || {
        if topic.topic_id.is_zero() {
            TopicKey::Name(topic.topic.clone().into_owned())
        } else {
            TopicKey::Id(topic.topic_id)
        }
    };
    let partition = |it: &chronik_protocol::fetch::PartitionData<'_>| {
        let bytes = it.records.as_ref().map(|records| records.contiguous().into_owned());
        let bytes = Bytes::from(bytes.unwrap_or_default());
        let records = KafkaCode::check(it.error_code).map(|()| bytes);
        (key(), PartitionRecords { index: it.partition_index, records })
    };
    topic.partitions.iter().map(partition).collect()
}
