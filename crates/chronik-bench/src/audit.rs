//! Compares what is in the log with what was acknowledged: count, order, place, checksum.
//!
//! A pure step over the batches of each partition, in log order. Every batch's CRC is computed.
//! A batch as it was sent is known by the identity of its first message and by its CRC, which
//! enter the same sum as at the writer (`ledger.rs`). Of a batch that the broker wrote anew
//! (another codec, its own timestamps) every message is compared with what its writer must have
//! put there; so is every message of a writer that does not know its batches, and these enter the
//! sum one by one. Batches of others are counted and skipped.
//!
//! Memory follows the number of writers and holes, not the number of messages.

use std::collections::BTreeMap;
use std::ops::Range;

use chronik_record::{BatchHeader, DecompressionLimits, TimestampType, records};
use serde::Serialize;

use crate::batch_template::{ExpectedValue, MessageShape};
use crate::identity::Identity;
use crate::ledger::{BatchPlace, LaneLedger, LogSum};

/// Decompressed bytes of one batch at most.
const BATCH_BYTES_MAX: usize = 256 << 20;

/// See the module.
#[derive(Debug)]
pub struct Audit {
    shape: MessageShape,
    expected: ExpectedValue,
    /// By partition and writer.
    lanes: BTreeMap<(i32, u32), LaneAudit>,
    partitions: BTreeMap<i32, PartitionAudit>,
    verdict: Verdict,
}

#[derive(Debug)]
struct LaneAudit {
    ledger: LaneLedger,
    /// Sequence that comes next.
    next: u64,
    /// Sequences below `next` that were not found yet. Ascending.
    holes: Vec<Range<u64>>,
}

#[derive(Debug, Default)]
struct PartitionAudit {
    expected: LogSum,
    found: LogSum,
    /// True if the broker wrote at least one batch anew, so that checksums differ.
    is_rewritten: bool,
    /// False if a batch was acknowledged without its offset.
    has_offsets: bool,
}

/// What the audit found, in messages.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Verdict {
    /// Acknowledged, or sent if there are no acknowledgements.
    pub acknowledged: u64,
    /// Found in the log, of this run.
    pub stored: u64,
    /// Acknowledged and not found.
    pub lost: u64,
    /// Found more than once.
    pub duplicated: u64,
    /// Found behind messages of the same writer that were sent later.
    pub reordered: u64,
    /// With bytes that nobody sent, or with a wrong checksum.
    pub corrupt: u64,
    /// Found although they were not acknowledged: their fate was unknown.
    pub unacknowledged: u64,
    /// Of other writers.
    pub foreign: u64,
    /// Partitions whose sum of places and checksums differs from that of the acknowledgements.
    pub partitions_that_differ: u64,
    /// True if there were acknowledgements, so that a lost message breaks a promise.
    pub is_acknowledged: bool,
    /// Where the first difference is.
    pub first_difference: Option<String>,
}

impl Verdict {
    /// True if the log holds what was acknowledged, once, in order, with the right bytes.
    /// Without acknowledgements nothing is promised but order and bytes.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let wrong = self.duplicated + self.reordered + self.corrupt;
        let missing =
            if self.is_acknowledged { self.lost + self.partitions_that_differ } else { 0 };
        wrong + missing == 0
    }

    /// The differences as a phrase.
    #[must_use]
    pub fn differences(&self) -> String {
        let counts = [
            (self.lost, "lost"),
            (self.duplicated, "duplicated"),
            (self.reordered, "reordered"),
            (self.corrupt, "corrupt"),
        ];
        let mut parts: Vec<_> = counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        if parts.is_empty() && self.partitions_that_differ > 0 {
            parts.push(format!("checksum differs in {} partitions", self.partitions_that_differ));
        }
        let first = self.first_difference.as_deref().unwrap_or("none");
        format!("{} of {} messages; first: {first}", parts.join(", "), self.acknowledged)
    }
}

impl Audit {
    /// An audit against what writers of messages of `shape` remember. `is_acknowledged` is false
    /// if there were no acknowledgements (acks 0).
    #[must_use]
    pub fn new(shape: MessageShape, ledgers: Vec<LaneLedger>, is_acknowledged: bool) -> Self {
        let mut partitions: BTreeMap<i32, PartitionAudit> = BTreeMap::new();
        let mut verdict = Verdict { is_acknowledged, ..Verdict::default() };
        for ledger in &ledgers {
            verdict.acknowledged += ledger.acknowledged();
            let partition = partitions
                .entry(ledger.partition)
                .or_insert_with(|| PartitionAudit { has_offsets: true, ..Default::default() });
            partition.expected.merge(ledger.sum);
            partition.has_offsets &= ledger.has_offsets;
        }
        let lane = |ledger: LaneLedger| {
            let key = (ledger.partition, ledger.writer);
            (key, LaneAudit { ledger, next: 0, holes: Vec::new() })
        };
        let (expected, lanes) =
            (ExpectedValue::of(&shape), ledgers.into_iter().map(lane).collect());
        Self { shape, expected, lanes, partitions, verdict }
    }

    /// Messages found so far, of this run.
    #[must_use]
    pub fn stored(&self) -> u64 {
        self.verdict.stored
    }

    /// Takes the next whole batches of a partition; a batch that is cut off at the end is left
    /// for the next call. Returns the offset behind what was taken, which is at least
    /// `next_offset`, and whether anything was taken.
    pub fn take(&mut self, partition: i32, next_offset: i64, mut bytes: &[u8]) -> (i64, bool) {
        let mut position = next_offset;
        let mut has_taken = false;
        while let Ok(header) = BatchHeader::parse(bytes) {
            let Some((batch, rest)) = bytes.split_at_checked(header.size()) else { break };
            bytes = rest;
            has_taken = true;
            // A fetch starts with the batch that holds the offset, which may begin before it.
            if header.base_offset.0 >= position {
                self.take_batch(partition, &header, batch);
            }
            position = position.max(header.next_offset().0);
        }
        (position, has_taken)
    }

    fn take_batch(&mut self, partition: i32, header: &BatchHeader, batch: &[u8]) {
        let count = u32::try_from(header.record_count).unwrap_or(0);
        let place = || format!("partition {partition}, offset {}", header.base_offset.0);
        if header.verify_crc(batch).is_err() {
            return self
                .differ(place, "wrong checksum", |it| it.corrupt += u64::from(count.max(1)));
        }
        if header.attributes.is_control() || count == 0 {
            return;
        }
        let first = match self.first_identity(batch) {
            Ok(identity) => identity.filter(|identity| identity.run == self.shape.run),
            Err(()) => {
                let count = u64::from(count);
                return self.differ(place, "records that cannot be read", |it| it.corrupt += count);
            }
        };
        let lane = first.and_then(|first| self.lanes.get(&(partition, first.writer)));
        let (Some(first), Some(lane)) = (first, lane) else {
            self.verdict.foreign += u64::from(count);
            return;
        };
        if lane.ledger.counts_messages {
            return self.take_messages(partition, header, batch);
        }
        let is_as_sent = header.attributes.codec() == Ok(self.shape.codec)
            && header.attributes.timestamp_type() == TimestampType::CreateTime;
        if !is_as_sent {
            self.partitions.entry(partition).or_default().is_rewritten = true;
            if !self.has_expected_records(batch, first) {
                let count = u64::from(count);
                return self.differ(place, "bytes nobody sent", |it| it.corrupt += count);
            }
        }
        self.verdict.stored += u64::from(count);
        let place = BatchPlace {
            base_offset: header.base_offset.0,
            writer: first.writer,
            first_sequence: first.sequence,
            count,
            crc: header.crc,
        };
        self.place(partition, &place);
    }

    /// Takes the messages of a batch one by one.
    fn take_messages(&mut self, partition: i32, header: &BatchHeader, batch: &[u8]) {
        let limits = DecompressionLimits::output_bytes(BATCH_BYTES_MAX);
        // The caller has read the first of them.
        let Ok(records) = records(batch, limits) else { return };
        for (base_offset, record) in (header.base_offset.0..).zip(&records) {
            let value = record.ok().and_then(|record| record.value).unwrap_or_default();
            let identity = Identity::read(value).filter(|_| self.expected.is(value));
            let known = identity.filter(|it| self.lanes.contains_key(&(partition, it.writer)));
            let Some(Identity { writer, sequence, .. }) = known else {
                let place = || format!("partition {partition}, offset {base_offset}");
                self.differ(place, "bytes nobody sent", |it| it.corrupt += 1);
                continue;
            };
            self.verdict.stored += 1;
            let (first_sequence, count, crc) = (sequence, 1, 0);
            let place = BatchPlace { base_offset, writer, first_sequence, count, crc };
            self.place(partition, &place);
        }
    }

    fn first_identity(&self, batch: &[u8]) -> Result<Option<Identity>, ()> {
        let limits = DecompressionLimits::output_bytes(BATCH_BYTES_MAX);
        let records = records(batch, limits).map_err(|_| ())?;
        let first = records.iter().next().ok_or(())?.map_err(|_| ())?;
        Ok(first.value.and_then(Identity::read))
    }

    fn has_expected_records(&self, batch: &[u8], first: Identity) -> bool {
        let limits = DecompressionLimits::output_bytes(BATCH_BYTES_MAX);
        let Ok(records) = records(batch, limits) else { return false };
        for (sequence, record) in (first.sequence..).zip(&records) {
            let Some(value) = record.ok().and_then(|record| record.value) else { return false };
            let identity = Identity::read(value);
            let follows =
                identity.is_some_and(|it| it.writer == first.writer && it.sequence == sequence);
            if !follows || !self.expected.is(value) {
                return false;
            }
        }
        true
    }

    /// Puts a batch into its writer's sequence and into the sum of its partition.
    fn place(&mut self, partition: i32, batch: &BatchPlace) {
        let BatchPlace { base_offset, writer, first_sequence, count, .. } = *batch;
        let lane = self.lanes.get_mut(&(partition, writer)).expect("the caller looked");
        let found = lane.take(&(first_sequence..first_sequence + u64::from(count)));
        let place = || {
            format!(
                "partition {partition}, offset {base_offset}, writer {writer}, sequence \
                 {first_sequence}"
            )
        };
        if found == Found::Again {
            return self.differ(place, "stored before", |it| it.duplicated += u64::from(count));
        }
        if lane.ledger.is_unresolved(first_sequence) {
            self.verdict.unacknowledged += u64::from(count);
        } else if first_sequence >= lane.ledger.next_sequence {
            return self.differ(place, "never sent", |it| it.corrupt += u64::from(count));
        } else {
            let partition = self.partitions.entry(partition).or_default();
            let base_offset = if partition.has_offsets { base_offset } else { 0 };
            partition.found.add(&BatchPlace { base_offset, ..*batch });
        }
        if found == Found::Late {
            self.differ(place, "behind later ones", |it| it.reordered += u64::from(count));
        }
    }

    fn differ(
        &mut self,
        place: impl FnOnce() -> String,
        what: &str,
        count: impl FnOnce(&mut Verdict),
    ) {
        count(&mut self.verdict);
        self.verdict.first_difference.get_or_insert_with(|| format!("{what}: {}", place()));
    }

    /// Ends the audit: everything that will be read was read.
    #[must_use]
    pub fn finish(mut self) -> Verdict {
        for ((partition, writer), lane) in &mut self.lanes {
            let end = lane.ledger.next_sequence;
            if lane.next < end {
                lane.holes.push(lane.next..end);
            }
            for hole in &lane.holes {
                let lost = hole.clone().filter(|it| !lane.ledger.is_unresolved(*it)).count() as u64;
                if lost == 0 {
                    continue;
                }
                self.verdict.lost += lost;
                self.verdict.first_difference.get_or_insert_with(|| {
                    format!(
                        "missing: partition {partition}, writer {writer}, sequence {}",
                        hole.start
                    )
                });
            }
        }
        for (partition, sums) in &self.partitions {
            let differs = if sums.is_rewritten {
                sums.expected.place != sums.found.place
            } else {
                sums.expected != sums.found
            };
            if differs {
                self.verdict.partitions_that_differ += 1;
                self.verdict.first_difference.get_or_insert_with(|| {
                    format!("partition {partition} holds other offsets or bytes than acknowledged")
                });
            }
        }
        self.verdict
    }
}

/// How messages fit into their writer's sequence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Found {
    /// They come next, or leave a hole before them.
    InOrder,
    /// They fill a hole.
    Late,
    /// They were found before.
    Again,
}

impl LaneAudit {
    fn take(&mut self, sequences: &Range<u64>) -> Found {
        if sequences.start >= self.next {
            if sequences.start > self.next {
                self.holes.push(self.next..sequences.start);
            }
            self.next = sequences.end;
            return Found::InOrder;
        }
        let covering =
            |hole: &Range<u64>| hole.start <= sequences.start && sequences.end <= hole.end;
        let Some(at) = self.holes.iter().position(covering) else { return Found::Again };
        let hole = self.holes.remove(at);
        if sequences.end < hole.end {
            self.holes.insert(at, sequences.end..hole.end);
        }
        if hole.start < sequences.start {
            self.holes.insert(at, hole.start..sequences.start);
        }
        Found::Late
    }
}

#[cfg(test)]
mod tests {
    use chronik_common::Offset;
    use chronik_record::{Codec, set_base_offset, set_log_append_time};

    use super::*;
    use crate::arguments::{KeyPattern, PayloadPattern};
    use crate::batch_template::{BatchTemplate, Run, Stamp};
    use crate::clock::Moment;

    /// A writer of batches of three messages to partition 0, all of them acknowledged.
    struct Writer {
        template: BatchTemplate,
        ledger: LaneLedger,
        end: i64,
    }

    fn shape(writer: u32) -> MessageShape {
        let (keys, payload) = (KeyPattern::Random, PayloadPattern::Random);
        MessageShape { value_bytes: 64, keys, payload, codec: Codec::None, run: 7, writer }
    }

    impl Writer {
        fn new(writer: u32) -> Self {
            let template = BatchTemplate::new(shape(writer), 3);
            Self { template, ledger: LaneLedger::new(0, writer), end: 0 }
        }

        /// The next batch, as stored at the end of the log.
        fn batch(&mut self) -> Vec<u8> {
            let first_sequence = self.ledger.next_sequence;
            let runs = [Run { intended: Moment(1), count: 3 }];
            let stamp = Stamp {
                partition: 0,
                first_sequence,
                runs: &runs,
                timestamp_ms: 5,
                producer: None,
            };
            let stamped = self.template.stamp(&stamp);
            let crc = stamped.crc;
            let mut batch = stamped.bytes.to_vec();
            set_base_offset(&mut batch, Offset(self.end));
            self.ledger.next_sequence += 3;
            self.ledger.acknowledge(&BatchPlace {
                base_offset: self.end,
                writer: self.ledger.writer,
                first_sequence,
                count: 3,
                crc,
            });
            self.end += 3;
            batch
        }
    }

    fn at(mut batch: Vec<u8>, offset: i64) -> Vec<u8> {
        set_base_offset(&mut batch, Offset(offset));
        batch
    }

    fn audit(writer: &Writer, log: &[Vec<u8>]) -> Verdict {
        let mut audit = Audit::new(shape(0), vec![writer.ledger.clone()], true);
        let mut position = 0;
        for batch in log {
            (position, _) = audit.take(0, position, batch);
        }
        audit.finish()
    }

    #[test]
    fn a_log_as_it_was_acknowledged_is_clean() {
        let mut writer = Writer::new(0);
        let log: Vec<_> = (0..4).map(|_| writer.batch()).collect();
        let verdict = audit(&writer, &log);
        assert!(verdict.is_clean(), "{verdict:?}");
        assert_eq!((verdict.acknowledged, verdict.stored), (12, 12));
        let in_one_answer = audit(&writer, &[log.concat()]);
        assert_eq!(in_one_answer, verdict);
    }

    #[test]
    fn a_batch_cut_off_at_the_end_is_left_for_the_next_call() {
        let mut writer = Writer::new(0);
        let log = [writer.batch(), writer.batch()].concat();
        let mut audit = Audit::new(shape(0), vec![writer.ledger.clone()], true);
        let (position, has_taken) = audit.take(0, 0, &log[..log.len() - 1]);
        assert_eq!((position, has_taken), (3, true));
        // The second answer starts with the batch that holds the offset.
        assert_eq!(audit.take(0, position, &log), (6, true));
        assert!(audit.finish().is_clean());
    }

    #[test]
    fn lost_messages_are_found_in_the_middle_and_at_the_end() {
        let mut writer = Writer::new(0);
        let log: Vec<_> = (0..4).map(|_| writer.batch()).collect();
        let middle = audit(&writer, &[log[0].clone(), log[2].clone(), log[3].clone()]);
        assert_eq!((middle.lost, middle.is_clean()), (3, false));
        assert!(middle.differences().contains("3 lost of 12"), "{}", middle.differences());
        assert!(middle.differences().contains("sequence 3"), "{}", middle.differences());
        let end = audit(&writer, &log[..3]);
        assert_eq!((end.lost, end.stored), (3, 9));
        assert_eq!(audit(&writer, &[]).lost, 12);
    }

    #[test]
    fn doubled_and_reordered_messages_are_told_apart() {
        let mut writer = Writer::new(0);
        let log: Vec<_> = (0..3).map(|_| writer.batch()).collect();
        let mut doubled = log.clone();
        doubled.push(at(log[1].clone(), 9));
        let verdict = audit(&writer, &doubled);
        assert_eq!((verdict.duplicated, verdict.reordered, verdict.lost), (3, 0, 0));
        let swapped = [log[0].clone(), at(log[2].clone(), 3), at(log[1].clone(), 6)];
        let verdict = audit(&writer, &swapped);
        assert_eq!((verdict.duplicated, verdict.reordered, verdict.lost), (0, 3, 0));
        assert_eq!(verdict.partitions_that_differ, 1, "the offsets are not those acknowledged");
        assert!(!verdict.is_clean());
    }

    #[test]
    fn a_changed_byte_is_found_even_under_a_matching_checksum() {
        let mut writer = Writer::new(0);
        let log: Vec<_> = (0..2).map(|_| writer.batch()).collect();
        let mut torn = log.clone();
        let last = torn[1].len() - 9;
        torn[1][last] ^= 0x10;
        let verdict = audit(&writer, &torn);
        assert_eq!((verdict.corrupt, verdict.is_clean()), (3, false), "{verdict:?}");
        let mut forged = log.clone();
        forged[1][last] ^= 0x10;
        chronik_record::set_max_timestamp(&mut forged[1], 5);
        let verdict = audit(&writer, &forged);
        assert_eq!(verdict.partitions_that_differ, 1, "{verdict:?}");
        assert!(!verdict.is_clean());
        // A batch at another offset than acknowledged.
        let moved = audit(&writer, &[log[0].clone(), at(log[1].clone(), 4)]);
        assert_eq!((moved.lost, moved.partitions_that_differ), (0, 1));
    }

    #[test]
    fn batches_that_the_broker_wrote_anew_are_compared_message_by_message() {
        let mut writer = Writer::new(0);
        let mut log: Vec<_> = (0..2).map(|_| writer.batch()).collect();
        set_log_append_time(&mut log[1], 1_000);
        let verdict = audit(&writer, &log);
        assert!(verdict.is_clean(), "{verdict:?}");
        let last = log[1].len() - 9;
        log[1][last] ^= 0x10;
        set_log_append_time(&mut log[1], 1_000);
        assert_eq!(audit(&writer, &log).corrupt, 3);
    }

    #[test]
    fn messages_of_a_writer_that_knows_no_batches_are_compared_one_by_one() {
        let mut writer = Writer::new(0);
        let log: Vec<_> = (0..2).map(|_| writer.batch()).collect();
        let mut ledger = LaneLedger::of_messages(0, 0);
        ledger.next_sequence = 6;
        for (base_offset, first_sequence) in (0..6_i64).zip(0..) {
            let (writer, count, crc) = (0, 1, 0);
            ledger.acknowledge(&BatchPlace { base_offset, writer, first_sequence, count, crc });
        }
        writer.ledger = ledger;
        let verdict = audit(&writer, &log);
        assert!(verdict.is_clean(), "{verdict:?}");
        assert_eq!((verdict.acknowledged, verdict.stored), (6, 6));
        let lost = audit(&writer, &log[..1]);
        assert_eq!((lost.lost, lost.stored), (3, 3));
        let doubled = audit(&writer, &[log[0].clone(), log[1].clone(), at(log[1].clone(), 6)]);
        assert_eq!((doubled.duplicated, doubled.lost), (3, 0));
        let mut forged = log.clone();
        let last = forged[1].len() - 9;
        forged[1][last] ^= 0x10;
        chronik_record::set_max_timestamp(&mut forged[1], 5);
        let verdict = audit(&writer, &forged);
        assert_eq!((verdict.corrupt, verdict.lost), (1, 1), "{verdict:?}");
        writer.ledger.sum = LogSum::default();
        assert_eq!(audit(&writer, &log).partitions_that_differ, 1, "other offsets");
    }

    #[test]
    fn what_others_wrote_and_what_was_never_acknowledged_is_no_difference() {
        let (mut writer, mut other) = (Writer::new(0), Writer::new(0));
        other.template = BatchTemplate::new(MessageShape { run: 8, ..shape(0) }, 3);
        let log = [writer.batch(), at(other.batch(), 3)];
        let verdict = audit(&writer, &log);
        assert!(verdict.is_clean(), "{verdict:?}");
        assert_eq!((verdict.foreign, verdict.stored), (3, 3));
        // The connection broke: the second batch may be there or not.
        let mut ledger = writer.ledger.clone();
        let second = writer.batch();
        ledger.next_sequence += 3;
        ledger.leave_unresolved(3..6);
        writer.ledger = ledger;
        let with = audit(&writer, &[log[0].clone(), second]);
        let without = audit(&writer, &log[..1]);
        assert!(with.is_clean() && without.is_clean(), "{with:?} {without:?}");
        assert_eq!((with.unacknowledged, without.unacknowledged), (3, 0));
    }

    #[test]
    fn without_acknowledgements_a_missing_message_is_counted_and_no_difference() {
        let mut writer = Writer::new(0);
        let log: Vec<_> = (0..2).map(|_| writer.batch()).collect();
        let mut audit = Audit::new(shape(0), vec![writer.ledger.clone()], false);
        audit.take(0, 0, &log[0]);
        let verdict = audit.finish();
        assert_eq!((verdict.lost, verdict.is_clean()), (3, true));
    }
}
