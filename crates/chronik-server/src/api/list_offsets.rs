//! ListOffsets (key 2), versions 1-11.
//!
//! - Timestamps: -1 latest (high watermark), -2 earliest, -3 largest timestamp (v7+), -4 earliest
//!   local (v8+), -5 latest tiered (v9+), -6 earliest pending upload (v11+). Without tiering -4
//!   is the log start and -5, -6 answer offset -1 without error. Any other negative timestamp is
//!   UNSUPPORTED_VERSION, as in Kafka.
//! - Lookups by time look inside batches and give the record's own timestamp; they may read the
//!   disk and run off the shard.
//! - The leader epoch of the found record is told from version 4 on.
//! - A replica id other than -1 and duplicate partitions are INVALID_REQUEST.

use std::borrow::Cow;
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;

use chronik_common::{ErrorCode, LeaderEpoch, PartitionIndex};
use chronik_partition::{Partition, TimestampedOffset};
use chronik_protocol::list_offsets::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse,
    ListOffsetsTopicResponse,
};
use chronik_protocol::{OutputBuffer, Reader};

use super::produce::find_partition;
use super::{CloseReason, RequestId, answer_later, error};
use crate::net::connection::Connection;
use crate::shard::Shard;

/// First version whose answers carry the leader epoch.
const EPOCH_VERSION: i16 = 4;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const EARLIEST_PENDING_UPLOAD: i64 = -6;

/// A lookup that may read the disk: where its answer goes.
struct Lookup {
    topic: usize,
    partition: usize,
    target: Arc<Partition>,
    timestamp: i64,
}

/// Finds offsets by position or time.
pub(crate) fn handle(
    shard: &Rc<Shard>,
    connection: &Rc<Connection>,
    id: RequestId,
    body: &[u8],
) -> Result<(), CloseReason> {
    let request = ListOffsetsRequest::decode(&mut Reader::new(body), id.version)
        .map_err(CloseReason::Decode)?;
    let mut lookups = Vec::new();
    let mut seen = HashSet::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for (topic, asked) in request.topics.iter().enumerate() {
        let handle = shard.node.registry.topic(&asked.name);
        let mut partitions = Vec::with_capacity(asked.partitions.len());
        for (partition, item) in asked.partitions.iter().enumerate() {
            let is_repeated = !seen.insert((asked.name.clone(), item.partition_index));
            let target = match &handle {
                _ if request.replica_id != -1 || is_repeated => Err(ErrorCode::InvalidRequest),
                None => Err(ErrorCode::UnknownTopicOrPartition),
                Some(handle) => find_partition(shard, handle, PartitionIndex(item.partition_index)),
            };
            let answer = target.and_then(|target| resolve(item, &target, id.version));
            partitions.push(match answer {
                Ok(Resolved::Known(answer)) => answer,
                Ok(Resolved::Lookup(target)) => {
                    lookups.push(Lookup { topic, partition, target, timestamp: item.timestamp });
                    empty(item.partition_index, ErrorCode::None)
                }
                Err(code) => empty(item.partition_index, code),
            });
        }
        let name = Cow::Owned(asked.name.clone().into_owned());
        topics.push(ListOffsetsTopicResponse { name, partitions });
    }
    let mut response = ListOffsetsResponse { topics, ..ListOffsetsResponse::default() };
    if lookups.is_empty() {
        return connection.answer(|out| id.encode(out, |out| response.encode(out, id.version)));
    }
    answer_later(shard, connection, async move {
        let found = tokio::task::spawn_blocking(move || run(lookups)).await;
        for (topic, partition, answer) in found.unwrap_or_default() {
            let index = response.topics[topic].partitions[partition].partition_index;
            let leader_epoch = if id.version >= EPOCH_VERSION { answer.leader_epoch } else { -1 };
            response.topics[topic].partitions[partition] =
                ListOffsetsPartitionResponse { partition_index: index, leader_epoch, ..answer };
        }
        let mut out = OutputBuffer::new();
        id.encode(&mut out, |out| response.encode(out, id.version))?;
        Ok(out)
    });
    Ok(())
}

enum Resolved {
    Known(ListOffsetsPartitionResponse),
    Lookup(Arc<Partition>),
}

fn resolve(
    item: &ListOffsetsPartition,
    target: &Arc<Partition>,
    version: i16,
) -> Result<Resolved, ErrorCode> {
    let epoch = LeaderEpoch(item.current_leader_epoch);
    target.check_leader_epoch(epoch).map_err(|refused| error::of_read(&refused))?;
    let numbers = target.numbers();
    let at = |offset: chronik_common::Offset| {
        Resolved::Known(ListOffsetsPartitionResponse {
            partition_index: item.partition_index,
            error_code: ErrorCode::None.code(),
            timestamp: -1,
            offset: offset.0,
            leader_epoch: if version >= EPOCH_VERSION { numbers.leader_epoch.0 } else { -1 },
        })
    };
    match item.timestamp {
        LATEST => Ok(at(numbers.high_watermark)),
        EARLIEST => Ok(at(numbers.log_start_offset)),
        EARLIEST_LOCAL if version >= 8 => Ok(at(numbers.log_start_offset)),
        LATEST_TIERED if version >= 9 => {
            Ok(Resolved::Known(empty(item.partition_index, ErrorCode::None)))
        }
        EARLIEST_PENDING_UPLOAD if version >= 11 => {
            Ok(Resolved::Known(empty(item.partition_index, ErrorCode::None)))
        }
        MAX_TIMESTAMP if version >= 7 => Ok(Resolved::Lookup(Arc::clone(target))),
        timestamp if timestamp >= 0 => Ok(Resolved::Lookup(Arc::clone(target))),
        _ => Err(ErrorCode::UnsupportedVersion),
    }
}

fn run(lookups: Vec<Lookup>) -> Vec<(usize, usize, ListOffsetsPartitionResponse)> {
    let answer = |lookup: Lookup| {
        let found = if lookup.timestamp == MAX_TIMESTAMP {
            lookup.target.offset_of_max_timestamp()
        } else {
            lookup.target.offset_for_timestamp(lookup.timestamp)
        };
        let answer = match found {
            Ok(Some(TimestampedOffset { offset, timestamp, leader_epoch })) => {
                ListOffsetsPartitionResponse {
                    partition_index: 0,
                    error_code: ErrorCode::None.code(),
                    timestamp,
                    offset: offset.0,
                    leader_epoch: leader_epoch.0,
                }
            }
            Ok(None) => empty(0, ErrorCode::None),
            Err(refused) => empty(0, error::of_read(&refused)),
        };
        (lookup.topic, lookup.partition, answer)
    };
    lookups.into_iter().map(answer).collect()
}

fn empty(partition_index: i32, code: ErrorCode) -> ListOffsetsPartitionResponse {
    ListOffsetsPartitionResponse {
        partition_index,
        error_code: code.code(),
        timestamp: -1,
        offset: -1,
        leader_epoch: -1,
    }
}
