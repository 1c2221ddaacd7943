//! `round-trip` and `metadata`: tasks that wait for each answer.

use chronik_common::{OsRng, Rng};

use super::produce::display_of;
use crate::audit::{Audit, Verdict};
use crate::batch_template::{BatchTemplate, MessageShape, Run, Stamp};
use crate::client::{ClientError, Connection, FetchPlan, ProducePlan, code_name};
use crate::clock::{Moment, wall_ms};
use crate::failure::Failure;
use crate::ledger::{BatchPlace, LaneLedger};
use crate::plan::{Configuration, Plan};
use crate::produce_load::{Target, prepare_target};
use crate::result::RunResult;
use crate::task_load::{Done, Step, run_tasks};

/// Longest wait of a broker for the message of a round trip.
const WAIT_MS: i32 = 100;

/// Bytes of an answer of a round trip.
const ANSWER_BYTES: i32 = 1 << 20;

/// Asks for the topic's metadata.
pub(crate) fn run_metadata(plan: &Plan) -> Result<RunResult, Failure> {
    let target = prepare_target(plan)?;
    let topic = target.topic.name.clone();
    let series = run_tasks(plan, display_of(plan)?, |_, _| {
        let mut connection = Connection::open(&plan.endpoints, plan.request_timeout())?;
        let topic = topic.clone();
        let step: Step = Box::new(move |_| {
            let found = connection.topic(&topic)?;
            let count = found.map_or(0, |topic| topic.partitions.len());
            if count == 0 {
                return Err(Failure::Server(format!("topic {topic} is gone")));
            }
            Ok(Done { count: 1, bytes: 0 })
        });
        Ok(step)
    })?;
    let around = target.surroundings(plan.flags.concurrency, plan.flags.concurrency as usize);
    Ok(RunResult::of(Configuration::of(plan, &around), series))
}

/// Writes a message and reads it back before the next.
pub(crate) fn run_round_trip(plan: &Plan) -> Result<RunResult, Failure> {
    if plan.acks() == 0 {
        let text = "--acks 0: a round trip needs to know where its message is".to_owned();
        return Err(Failure::Usage(text));
    }
    let target = prepare_target(plan)?;
    let run = OsRng.next_u64() as u32;
    let series = run_tasks(plan, display_of(plan)?, |task, _| {
        let mut trip = RoundTrip::new(plan, &target, task, run)?;
        let step: Step = Box::new(move |now| trip.step(now));
        Ok(step)
    })?;
    let around = target.surroundings(plan.flags.concurrency, plan.flags.concurrency as usize);
    let mut result = RunResult::of(Configuration::of(plan, &around), series);
    let trips = result.latency.len();
    // Each trip compared its own message; there is nothing else to read back.
    result.read_back = Some(Verdict {
        acknowledged: trips,
        stored: trips,
        is_acknowledged: true,
        ..Verdict::default()
    });
    Ok(result)
}

/// One task's message on its way.
struct RoundTrip {
    connection: Connection,
    template: BatchTemplate,
    shape: MessageShape,
    place: ProducePlan,
    sequence: u64,
}

impl RoundTrip {
    fn new(plan: &Plan, target: &Target, task: u32, run: u32) -> Result<Self, Failure> {
        let flags = &plan.flags;
        let partitions = &target.topic.partitions;
        let partition = &partitions[task as usize % partitions.len()];
        let leader = partition.leader.as_slice();
        let connection = Connection::open(leader, plan.request_timeout())?;
        let shape = MessageShape {
            value_bytes: flags.message_size as usize,
            keys: flags.key_pattern,
            payload: flags.payload_pattern,
            codec: flags.compression,
            run,
            writer: task,
        };
        Ok(Self {
            connection,
            template: BatchTemplate::new(shape, 1),
            shape,
            place: ProducePlan {
                topic: target.topic.name.clone(),
                topic_id: target.topic.id,
                partition: partition.index,
                acks: plan.acks(),
                timeout_ms: i32::try_from(flags.request_timeout_ms).unwrap_or(i32::MAX),
            },
            sequence: 0,
        })
    }

    fn step(&mut self, now: Moment) -> Result<Done, Failure> {
        let sequence = self.sequence;
        self.sequence += 1;
        let runs = [Run { intended: now, count: 1 }];
        let stamped = self.template.stamp(&Stamp {
            partition: self.place.partition,
            first_sequence: sequence,
            runs: &runs,
            timestamp_ms: wall_ms(),
            producer: None,
        });
        let crc = stamped.crc;
        let base_offset = self.connection.produce(&self.place, stamped.bytes)?;
        let mut ledger = LaneLedger::new(self.place.partition, self.shape.writer);
        ledger.next_sequence = sequence + 1;
        if sequence > 0 {
            // Earlier trips compared theirs.
            ledger.leave_unresolved(0..sequence);
        }
        ledger.acknowledge(&BatchPlace {
            base_offset,
            writer: self.shape.writer,
            first_sequence: sequence,
            count: 1,
            crc,
        });
        self.await_message(base_offset, ledger)?;
        Ok(Done { count: 1, bytes: self.shape.value_bytes as u64 })
    }

    /// Reads from `offset` until the message is there, and compares it.
    fn await_message(&mut self, offset: i64, ledger: LaneLedger) -> Result<(), Failure> {
        let plan = FetchPlan {
            topic: &self.place.topic,
            topic_id: self.place.topic_id,
            max_wait_ms: WAIT_MS,
            max_bytes: ANSWER_BYTES,
            partition_max_bytes: ANSWER_BYTES,
        };
        let mut audit = Audit::new(self.shape, vec![ledger], true);
        while audit.stored() == 0 {
            let mut refused = None;
            self.connection.fetch(&plan, &[(self.place.partition, offset)], |partition| {
                if partition.error_code != 0 {
                    refused = Some(partition.error_code);
                }
                audit.take(partition.index, offset, partition.records);
            })?;
            if let Some(code) = refused {
                let action = format!("give a message back ({})", code_name(code));
                return Err(ClientError::Refused { action, code, message: None }.into());
            }
        }
        let verdict = audit.finish();
        if verdict.is_clean() { Ok(()) } else { Err(Failure::Mismatch(verdict.differences())) }
    }
}
