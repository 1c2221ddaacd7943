//! The ledger of acked records: what producers sent and were told, what consumers saw, and the
//! check that the two fit.
//!
//! Anomalies carry the names of the Jepsen Kafka workload. The check knows no time and no server:
//! a history goes in, findings come out. It presumes a final drain, from the start to the end of
//! every partition, after all faults are over.

use std::collections::{BTreeMap, HashMap};

pub use crate::record::RecordId;

/// What became of a record, as far as its producer knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Acknowledged at this offset.
    Acked {
        /// The offset.
        offset: i64,
    },
    /// Definitely refused.
    Failed,
    /// No answer: it may be in the log.
    Unknown,
}

/// A record a producer sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sent {
    /// Where to.
    pub partition: i32,
    /// Who it is.
    pub id: RecordId,
    /// What became of it.
    pub outcome: Outcome,
}

/// A record a consumer saw.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    /// In which partition.
    pub partition: i32,
    /// At which offset.
    pub offset: i64,
    /// Who it is; `None` if its bytes are wrong.
    pub id: Option<RecordId>,
}

/// What a producer may rely on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Promises {
    /// One copy of each record, in order.
    pub is_idempotent: bool,
    /// Its records are in the log in the order of their first sending.
    pub keeps_order: bool,
}

/// Everything that happened.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Producers by number.
    pub producers: BTreeMap<u32, Promises>,
    /// All records sent, each producer's in order.
    pub sent: Vec<Sent>,
    /// What each live consumer saw, in its order.
    pub live: Vec<Vec<Seen>>,
    /// The logs at the end, each partition in order.
    pub drain: Vec<Seen>,
}

/// What can be wrong.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Anomaly {
    /// An acked record is not in the log, which goes on behind its offset.
    LostWrite,
    /// An acked record is not in the log, which ends before its offset.
    Unseen,
    /// Two values at one offset: acked, polled and drained do not agree.
    InconsistentOffsets,
    /// One record of an idempotent producer at two offsets.
    Duplicate,
    /// A record that nobody sent, or that was sent elsewhere.
    Phantom,
    /// A record whose send definitely failed (G1a).
    AbortedRead,
    /// Bytes that nobody sent.
    WrongBytes,
    /// A producer's records are not in its order.
    NonmonotonicSend,
    /// A consumer was given an offset twice, or an earlier one.
    NonmonotonicPoll,
    /// A consumer was not given an offset.
    PollSkip,
    /// A polled record is not in the log any more.
    Disappeared,
}

/// One anomaly, with what shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// Its name.
    pub anomaly: Anomaly,
    /// The evidence.
    pub evidence: String,
}

/// The logs of the final drain, and where each record first is.
struct Logs {
    /// Per partition: first offset, then records by offset.
    by_partition: HashMap<i32, (i64, Vec<Option<RecordId>>)>,
    first_offsets: HashMap<RecordId, i64>,
}

impl History {
    /// Adds a producer and what it sent.
    pub fn add_producer(&mut self, number: u32, promises: Promises, sent: Vec<Sent>) {
        let previous = self.producers.insert(number, promises);
        assert!(previous.is_none(), "producer {number} is added once");
        self.sent.extend(sent);
    }

    /// Records acknowledged.
    #[must_use]
    pub fn acked_count(&self) -> usize {
        let is_acked = |sent: &&Sent| matches!(sent.outcome, Outcome::Acked { .. });
        self.sent.iter().filter(is_acked).count()
    }

    /// Everything that is wrong; nothing for a broker that keeps its promises.
    #[must_use]
    pub fn check(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let sent: HashMap<RecordId, &Sent> = self.sent.iter().map(|one| (one.id, one)).collect();
        let logs = self.check_drain(&sent, &mut findings);
        self.check_acks(&logs, &mut findings);
        for live in &self.live {
            check_polls(live, &mut findings);
            check_against_logs(live, &logs, &mut findings);
        }
        findings
    }

    /// Checks the drained logs by themselves and against what was sent.
    fn check_drain(&self, sent: &HashMap<RecordId, &Sent>, findings: &mut Vec<Finding>) -> Logs {
        check_polls(&self.drain, findings);
        let mut logs = Logs {
            by_partition: HashMap::new(),
            first_offsets: HashMap::with_capacity(self.drain.len()),
        };
        let mut last_of_producer: HashMap<(u32, i32), u64> = HashMap::new();
        for seen in &self.drain {
            let log = logs.by_partition.entry(seen.partition).or_insert((seen.offset, Vec::new()));
            log.1.push(seen.id);
            let Some(id) = seen.id else {
                add(findings, Anomaly::WrongBytes, || format!("{seen:?}"));
                continue;
            };
            let Some(origin) = sent.get(&id).filter(|sent| sent.partition == seen.partition) else {
                add(findings, Anomaly::Phantom, || format!("{seen:?}"));
                continue;
            };
            if origin.outcome == Outcome::Failed {
                add(findings, Anomaly::AbortedRead, || format!("{seen:?}"));
            }
            let promises = self.producers.get(&id.producer).copied().unwrap_or_default();
            if let Some(first) = logs.first_offsets.get(&id) {
                if promises.is_idempotent {
                    let first = *first;
                    add(findings, Anomaly::Duplicate, || format!("{seen:?}, first at {first}"));
                }
                continue;
            }
            logs.first_offsets.insert(id, seen.offset);
            let last = last_of_producer.insert((id.producer, seen.partition), id.sequence);
            if promises.keeps_order
                && let Some(last) = last.filter(|last| *last > id.sequence)
            {
                let evidence = || format!("{seen:?} lies behind sequence {last}");
                add(findings, Anomaly::NonmonotonicSend, evidence);
            }
        }
        logs
    }

    /// Checks that what was acked is where it was acked, in the order of sending.
    fn check_acks(&self, logs: &Logs, findings: &mut Vec<Finding>) {
        let mut last_acked: HashMap<(u32, i32), i64> = HashMap::new();
        for sent in &self.sent {
            let Outcome::Acked { offset } = sent.outcome else { continue };
            let found = logs.at(sent.partition, offset);
            if found != Some(Some(sent.id)) {
                if !logs.first_offsets.contains_key(&sent.id) {
                    let is_behind_end = found.is_none();
                    let anomaly = if is_behind_end { Anomaly::Unseen } else { Anomaly::LostWrite };
                    add(findings, anomaly, || format!("{sent:?}"));
                }
                if found.is_some() || logs.first_offsets.contains_key(&sent.id) {
                    let evidence = || format!("{sent:?}, but the log has {found:?} there");
                    add(findings, Anomaly::InconsistentOffsets, evidence);
                }
            }
            let promises = self.producers.get(&sent.id.producer).copied().unwrap_or_default();
            let last = last_acked.insert((sent.id.producer, sent.partition), offset);
            if promises.keeps_order
                && let Some(last) = last.filter(|last| *last >= offset)
            {
                let evidence = || format!("{sent:?} after offset {last}");
                add(findings, Anomaly::NonmonotonicSend, evidence);
            }
        }
    }
}

impl Logs {
    /// What is at an offset: nothing, wrong bytes, or a record.
    fn at(&self, partition: i32, offset: i64) -> Option<Option<RecordId>> {
        let (start, records) = self.by_partition.get(&partition)?;
        let index = usize::try_from(offset.checked_sub(*start)?).ok()?;
        records.get(index).copied()
    }
}

/// Offsets of a consumer go up by one, per partition.
fn check_polls(polled: &[Seen], findings: &mut Vec<Finding>) {
    let mut next: HashMap<i32, i64> = HashMap::new();
    for seen in polled {
        let Some(expected) = next.insert(seen.partition, seen.offset + 1) else { continue };
        if seen.offset < expected {
            add(findings, Anomaly::NonmonotonicPoll, || format!("{seen:?} after {}", expected - 1));
        } else if seen.offset > expected {
            add(findings, Anomaly::PollSkip, || format!("{seen:?} after {}", expected - 1));
        }
    }
}

/// What was delivered stays, and stays the same.
fn check_against_logs(polled: &[Seen], logs: &Logs, findings: &mut Vec<Finding>) {
    for seen in polled {
        match logs.at(seen.partition, seen.offset) {
            None => add(findings, Anomaly::Disappeared, || format!("{seen:?}")),
            Some(id) if id != seen.id => {
                let evidence = || format!("{seen:?}, but the log has {id:?} there");
                add(findings, Anomaly::InconsistentOffsets, evidence);
            }
            Some(_) => {}
        }
    }
}

fn add(findings: &mut Vec<Finding>, anomaly: Anomaly, evidence: impl FnOnce() -> String) {
    findings.push(Finding { anomaly, evidence: evidence() });
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use chronik_common::{Rng, SeededRng};

    use super::*;

    const PRODUCERS: u32 = 6;
    const PARTITIONS: i32 = 3;
    /// Optimised builds check the million that the checker is specified for.
    const RECORDS: u64 = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };

    /// A broker that keeps its promises: idempotent producers are the even ones; some requests
    /// are refused, some answers are lost, plain producers then send again.
    fn good_history(records: u64) -> History {
        let mut rng = SeededRng::new(9);
        let mut history = History::default();
        for producer in 0..PRODUCERS {
            let is_idempotent = producer.is_multiple_of(2);
            history.producers.insert(producer, Promises { is_idempotent, keeps_order: true });
        }
        let mut ends = [0_i64; PARTITIONS as usize];
        for number in 0..records {
            let producer = (number % u64::from(PRODUCERS)) as u32;
            let partition = (producer as i32) % PARTITIONS;
            let id = RecordId { producer, sequence: number / u64::from(PRODUCERS) };
            let mut append = |history: &mut History| {
                let offset = ends[partition as usize];
                ends[partition as usize] += 1;
                history.drain.push(Seen { partition, offset, id: Some(id) });
                offset
            };
            let outcome = match rng.below(100) {
                0 => Outcome::Failed,
                1 => Outcome::Unknown,
                2 => {
                    append(&mut history);
                    Outcome::Unknown
                }
                3 if !producer.is_multiple_of(2) => {
                    append(&mut history);
                    Outcome::Acked { offset: append(&mut history) }
                }
                _ => Outcome::Acked { offset: append(&mut history) },
            };
            history.sent.push(Sent { partition, id, outcome });
        }
        let from = |start: i64| history.drain.iter().filter(move |seen| seen.offset >= start);
        history.live = vec![from(0).copied().collect(), from(40).copied().collect()];
        history
    }

    /// Index in the drain of an acked record of an idempotent producer, somewhere in the middle.
    fn victim(history: &History) -> (usize, usize) {
        let middle = history.sent.len() / 2;
        let is_acked = |sent: &Sent| matches!(sent.outcome, Outcome::Acked { .. });
        let sent = (middle..history.sent.len())
            .find(|at| is_acked(&history.sent[*at]) && history.sent[*at].id.producer == 2)
            .unwrap();
        let id = history.sent[sent].id;
        let drained = history.drain.iter().position(|seen| seen.id == Some(id)).unwrap();
        (sent, drained)
    }

    fn next_of(history: &History, at: usize, is_wanted: impl Fn(&Seen) -> bool) -> usize {
        at + 1 + history.drain[at + 1..].iter().position(is_wanted).unwrap()
    }

    fn of_outcome(history: &History, outcome: Outcome) -> Sent {
        *history.sent.iter().find(|sent| sent.outcome == outcome).unwrap()
    }

    /// Renumbers the log so that offsets stay dense, and lets live consumers see the same.
    fn renumber(history: &mut History) {
        let mut ends = [0; PARTITIONS as usize];
        for seen in &mut history.drain {
            seen.offset = ends[seen.partition as usize];
            ends[seen.partition as usize] += 1;
        }
        history.live = vec![history.drain.clone()];
    }

    type Mutation = (&'static str, Anomaly, fn(&mut History));

    const MUTATIONS: [Mutation; 12] = [
        ("one record dropped", Anomaly::LostWrite, |history| {
            let (_, at) = victim(history);
            history.drain.remove(at);
            renumber(history);
        }),
        ("the tail cut", Anomaly::Unseen, |history| {
            let end = history.drain.len() - 5;
            history.drain.truncate(end);
            history.live.clear();
        }),
        ("a record twice", Anomaly::Duplicate, |history| {
            let (_, at) = victim(history);
            history.drain.push(history.drain[at]);
            renumber(history);
        }),
        ("two records of one producer swapped", Anomaly::NonmonotonicSend, |history| {
            let (_, at) = victim(history);
            let other = next_of(history, at, |seen| seen.id.is_some_and(|id| id.producer == 2));
            let (first, second) = (history.drain[at].id, history.drain[other].id);
            (history.drain[at].id, history.drain[other].id) = (second, first);
            history.live.clear();
        }),
        ("a byte changed", Anomaly::WrongBytes, |history| {
            let (_, at) = victim(history);
            history.drain[at].id = None;
        }),
        ("offsets shifted by one", Anomaly::InconsistentOffsets, |history| {
            history.drain.iter_mut().for_each(|seen| seen.offset += 1);
            history.live.clear();
        }),
        ("a record nobody sent", Anomaly::Phantom, |history| {
            let id = Some(RecordId { producer: 0, sequence: u64::MAX });
            history.drain.push(Seen { partition: 0, offset: 0, id });
            renumber(history);
        }),
        ("a refused record in the log", Anomaly::AbortedRead, |history| {
            let refused = of_outcome(history, Outcome::Failed);
            let seen = Seen { partition: refused.partition, offset: 0, id: Some(refused.id) };
            history.drain.push(seen);
            renumber(history);
        }),
        ("a consumer going back", Anomaly::NonmonotonicPoll, |history| {
            let again = history.live[0][10];
            history.live[0].push(again);
        }),
        ("a poll that differs from the log", Anomaly::InconsistentOffsets, |history| {
            let other = history.live[1][5].id;
            history.live[1][50].id = other;
        }),
        ("a polled record gone after a failover", Anomaly::Disappeared, |history| {
            let end = history.drain.len() - 1;
            let last = history.drain[end];
            history.drain.truncate(end);
            history.sent.retain(|sent| Some(sent.id) != last.id);
        }),
        ("a wrong offset acked", Anomaly::InconsistentOffsets, |history| {
            let (at, _) = victim(history);
            let Outcome::Acked { offset } = &mut history.sent[at].outcome else { unreachable!() };
            *offset += 1;
        }),
    ];

    #[test]
    fn a_good_history_has_no_findings_and_every_mutation_is_caught() {
        let good = good_history(5_000);
        assert_eq!(good.check(), []);
        for (name, anomaly, mutate) in MUTATIONS {
            let mut history = good.clone();
            mutate(&mut history);
            let findings = history.check();
            let is_caught = findings.iter().any(|finding| finding.anomaly == anomaly);
            assert!(is_caught, "{name} should be {anomaly:?}, found {findings:?}");
        }
    }

    #[test]
    fn a_value_replaced_after_an_ack_is_a_lost_write() {
        let mut history = good_history(5_000);
        let (_, at) = victim(&history);
        let landed = |sent: &&Sent| {
            sent.outcome == Outcome::Unknown
                && sent.partition == history.drain[at].partition
                && !history.drain.iter().any(|seen| seen.id == Some(sent.id))
        };
        let other = history.sent.iter().find(landed).copied().unwrap();
        history.drain[at].id = Some(other.id);
        let found: Vec<_> = history.check().iter().map(|finding| finding.anomaly).collect();
        assert!(found.contains(&Anomaly::LostWrite), "{found:?}");
        assert!(found.contains(&Anomaly::InconsistentOffsets), "{found:?}");
    }

    #[test]
    fn a_large_history_is_checked_in_seconds() {
        let history = good_history(RECORDS);
        let started = Instant::now();
        assert_eq!(history.check(), []);
        let took = started.elapsed();
        println!("checked {RECORDS} records in {took:?}");
        assert!(took < Duration::from_secs(10), "{took:?}");
    }
}
