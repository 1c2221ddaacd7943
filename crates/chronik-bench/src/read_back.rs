//! Reads everything a run wrote and gives it to the audit.
//!
//! One connection per leader, all its partitions in one fetch, large answers: reading back costs
//! little beside writing. Starts where the log ended before the run, so that what is in the
//! topic already does not matter.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use chronik_common::Uuid;

use crate::audit::{Audit, Verdict};
use crate::client::{ClientError, Connection, Endpoint, FetchPlan, code_name};

/// Longest time without progress before what is missing counts as lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// Longest wait for the first byte of an answer.
const WAIT_MS: i32 = 200;

/// Bytes of one answer and of one partition in it.
const ANSWER_BYTES: i32 = 32 << 20;
const PARTITION_BYTES: i32 = 4 << 20;

/// What to read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReadBackPlan {
    /// Name of the topic.
    pub topic: String,
    /// Id of the topic.
    pub topic_id: Uuid,
    /// Partitions by the leader that has them.
    pub partitions: BTreeMap<Endpoint, Vec<i32>>,
    /// Where each partition's log ended before the run.
    pub starts: BTreeMap<i32, i64>,
    /// Offset behind the last acknowledged message of each partition.
    pub acknowledged_ends: BTreeMap<i32, i64>,
    /// Messages that were sent without acknowledgements; they may still arrive.
    pub unacknowledged_messages: u64,
    /// Longest wait for an answer.
    pub timeout: Duration,
}

/// Reads the logs up to their ends as they are now and compares.
///
/// # Errors
/// If the brokers cannot be asked or refuse to give their logs.
pub fn read_back(plan: &ReadBackPlan, mut audit: Audit) -> Result<Verdict, ClientError> {
    for (leader, partitions) in &plan.partitions {
        let mut connection = Connection::open(std::slice::from_ref(leader), plan.timeout)?;
        let mut positions: BTreeMap<i32, i64> = partitions
            .iter()
            .map(|index| (*index, plan.starts.get(index).copied().unwrap_or(0)))
            .collect();
        let mut last_progress = Instant::now();
        loop {
            let ends = connection.log_ends(&plan.topic, partitions)?;
            let end_of = |at: usize| {
                let acknowledged = plan.acknowledged_ends.get(&partitions[at]).copied();
                ends[at].max(acknowledged.unwrap_or(0))
            };
            let targets: BTreeMap<_, _> =
                partitions.iter().enumerate().map(|(at, index)| (*index, end_of(at))).collect();
            let has_progress =
                read_to(&mut connection, plan, &mut audit, &mut positions, &targets)?;
            if has_progress {
                last_progress = Instant::now();
            }
            let is_at_end = positions.iter().all(|(index, position)| *position >= targets[index]);
            let is_complete = audit.stored() >= plan.unacknowledged_messages;
            if is_at_end && is_complete || last_progress.elapsed() > PATIENCE {
                break;
            }
            if is_at_end && !has_progress {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
    Ok(audit.finish())
}

/// Reads until every position is at its target, or an answer brings nothing. True if anything
/// came.
fn read_to(
    connection: &mut Connection,
    plan: &ReadBackPlan,
    audit: &mut Audit,
    positions: &mut BTreeMap<i32, i64>,
    targets: &BTreeMap<i32, i64>,
) -> Result<bool, ClientError> {
    let fetch = FetchPlan {
        topic: &plan.topic,
        topic_id: plan.topic_id,
        max_wait_ms: WAIT_MS,
        max_bytes: ANSWER_BYTES,
        partition_max_bytes: PARTITION_BYTES,
    };
    let mut has_progress = false;
    loop {
        let wanted: Vec<_> = positions
            .iter()
            .filter(|(index, position)| **position < targets[index])
            .map(|(index, position)| (*index, *position))
            .collect();
        if wanted.is_empty() {
            return Ok(has_progress);
        }
        let mut refused = None;
        let mut came = false;
        connection.fetch(&fetch, &wanted, |partition| {
            if partition.error_code != 0 {
                refused = Some((partition.index, partition.error_code));
                return;
            }
            let Some(position) = positions.get_mut(&partition.index) else { return };
            let (next, has_taken) = audit.take(partition.index, *position, partition.records);
            came |= has_taken && next > *position;
            *position = next;
        })?;
        if let Some((index, code)) = refused {
            return Err(ClientError::Refused {
                action: format!("give back {}-{index} ({})", plan.topic, code_name(code)),
                code,
                message: None,
            });
        }
        if !came {
            return Ok(has_progress);
        }
        has_progress = true;
    }
}
