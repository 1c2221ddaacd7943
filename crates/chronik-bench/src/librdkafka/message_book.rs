//! What a producer has sent and what was reported, as a pure step: slots, sequences, ledgers.
//!
//! librdkafka carries one word per message from its send to its report. It holds what the report
//! has to know, so that nothing is kept per message:
//!
//! ```text
//!   63            32 31                    0
//!   +---------------+----------------------+
//!   | sequence 32   | sent, microseconds 32|   both modulo 2^32
//!   +---------------+----------------------+
//! ```
//!
//! The sequence is made whole again from the next one of its partition, because fewer than 2^31
//! messages are under way; the time from the present, because none is under way for an hour.
//! Knows no socket, no clock and no thread.

use chronik_common::{Rng, SeededRng};

use crate::arguments::KeyPattern;
use crate::batch_template::{KEY_BYTES, MessageShape};
use crate::clock::Moment;
use crate::identity::Identity;
use crate::ledger::{BatchPlace, LaneLedger};
use crate::recorder::Recorder;

const _: () = assert!(usize::BITS == 64, "a tag has 64 bits");

/// Messages under way at most.
const SLOTS_MAX: u32 = 1 << 31;

/// See the module.
#[derive(Debug)]
pub(super) struct MessageBook {
    shape: MessageShape,
    /// By index of the partition.
    lanes: Vec<LaneLedger>,
    value: Vec<u8>,
    /// Messages that may still be sent now.
    free: u32,
    slots: u32,
    /// Messages that may still be sent at all; `u64::MAX` is no limit.
    budget: u64,
    /// Index of the partition of the message composed next or last.
    lane: usize,
    rng: SeededRng,
}

/// A message to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Message<'a> {
    pub partition: i32,
    pub key: [u8; KEY_BYTES],
    pub value: &'a [u8],
    /// To be given back with the report.
    pub tag: usize,
}

impl MessageBook {
    /// A book of messages to `partitions` partitions, of which `slots` may be under way.
    ///
    /// # Panics
    /// If there is no partition or no slot.
    pub(super) fn new(shape: MessageShape, partitions: usize, slots: u32, budget: u64) -> Self {
        assert!(partitions >= 1 && (1..SLOTS_MAX).contains(&slots), "{partitions}, {slots}");
        let lane = |partition: usize| LaneLedger::of_messages(partition as i32, shape.writer);
        Self {
            shape,
            lanes: (0..partitions).map(lane).collect(),
            value: shape.filled_value(),
            free: slots,
            slots,
            budget,
            lane: shape.writer as usize % partitions,
            rng: SeededRng::new(u64::from(shape.writer) << 32 | 0x0bec),
        }
    }

    /// Messages under way.
    pub(super) fn under_way(&self) -> u32 {
        self.slots - self.free
    }

    /// True if every message that may be sent was sent.
    pub(super) fn is_spent(&self) -> bool {
        self.budget == 0
    }

    /// True if a message may be sent now.
    pub(super) fn has_room(&self) -> bool {
        self.free > 0 && !self.is_spent()
    }

    /// The next message. It counts as sent with [`sent`](Self::sent) only.
    pub(super) fn compose(&mut self, now: Moment) -> Message<'_> {
        let count = self.lanes.len();
        self.lane = match self.shape.keys {
            KeyPattern::Fixed => 0,
            KeyPattern::Random if count == 1 => 0,
            KeyPattern::Random => self.rng.below(count as u64) as usize,
            KeyPattern::Sequential => (self.lane + 1) % count,
        };
        let LaneLedger { partition, next_sequence: sequence, .. } = self.lanes[self.lane];
        if self.value.len() >= Identity::SIZE {
            let (run, writer) = (self.shape.run, self.shape.writer);
            Identity { run, writer, sequence, intended: now }.write(&mut self.value);
        }
        Message {
            partition,
            key: self.shape.key(partition, sequence).to_be_bytes(),
            value: &self.value,
            tag: tag(sequence, now),
        }
    }

    /// Notes that the message composed last was sent.
    ///
    /// # Panics
    /// If there was no room for it.
    pub(super) fn sent(&mut self) {
        assert!(self.has_room(), "{} of {} slots are free", self.free, self.slots);
        self.lanes[self.lane].next_sequence += 1;
        self.free -= 1;
        if self.budget != u64::MAX {
            self.budget -= 1;
        }
    }

    /// Takes the report of a message at `now`: the offset at which it was stored, negative if that
    /// is not known, or why it was not.
    pub(super) fn reported(
        &mut self,
        (partition, tag): (i32, usize),
        stored: Result<i64, &str>,
        now: Moment,
        recorder: &mut Recorder,
    ) {
        self.free += 1;
        assert!(self.free <= self.slots, "{} of {} slots are free", self.free, self.slots);
        let lane = usize::try_from(partition).ok().and_then(|index| self.lanes.get_mut(index));
        let Some(lane) = lane else {
            recorder.failure(now, now, 1, "a report for a partition that was not written to");
            return;
        };
        let sequence = sequence_of(tag, lane.next_sequence);
        let sent = sent_of(tag, now);
        match stored {
            Ok(base_offset) => {
                let (writer, count, crc) = (lane.writer, 1, 0);
                let first_sequence = sequence;
                lane.acknowledge(&BatchPlace { base_offset, writer, first_sequence, count, crc });
                recorder.success(now, sent, 1, self.shape.value_bytes as u64);
            }
            Err(reason) => {
                lane.leave_unresolved(sequence..sequence + 1);
                recorder.failure(now, sent, 1, reason);
            }
        }
    }

    /// What was acknowledged, per partition.
    pub(super) fn into_ledgers(self) -> Vec<LaneLedger> {
        self.lanes
    }
}

fn tag(sequence: u64, sent: Moment) -> usize {
    (u64::from(sequence as u32) << 32 | u64::from(micros(sent))) as usize
}

/// The sequence of a tag whose partition goes on with `next_sequence`.
fn sequence_of(tag: usize, next_sequence: u64) -> u64 {
    let behind = (next_sequence as u32).wrapping_sub((tag as u64 >> 32) as u32);
    next_sequence - u64::from(behind)
}

fn sent_of(tag: usize, now: Moment) -> Moment {
    let elapsed = micros(now).wrapping_sub(tag as u32);
    Moment(now.0.saturating_sub(u64::from(elapsed) * 1_000))
}

/// Whole microseconds, modulo 2^32.
fn micros(moment: Moment) -> u32 {
    (moment.0 / 1_000) as u32
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use chronik_record::Codec;

    use super::*;
    use crate::arguments::PayloadPattern;
    use crate::batch_template::ExpectedValue;
    use crate::recorder::Schedule;

    const SECOND: u64 = 1_000_000_000;

    fn shape(keys: KeyPattern) -> MessageShape {
        let payload = PayloadPattern::Random;
        MessageShape { value_bytes: 64, keys, payload, codec: Codec::None, run: 7, writer: 3 }
    }

    fn recorder() -> Recorder {
        let schedule = Schedule {
            start: Moment(0),
            measure_from: Moment(0),
            measure_until: Moment::NEVER,
            sample: Duration::from_secs(1),
            drain: Duration::ZERO,
        };
        Recorder::new(0, schedule, Moment(0), channel().0)
    }

    /// Sends the next message; returns its partition and its tag.
    fn send(book: &mut MessageBook, now: Moment) -> (i32, usize) {
        let Message { partition, tag, .. } = book.compose(now);
        book.sent();
        (partition, tag)
    }

    #[test]
    fn a_tag_gives_back_sequence_and_time_across_their_wraps() {
        let wrap = 1_u64 << 32;
        for (sequence, next) in [(0, 1), (wrap - 1, wrap + 5), (wrap, wrap + 1), (7, 1 << 30)] {
            for (sent, elapsed_micros) in [(0, 0), (wrap * 1_000 - 500, 1_234), (5_000, 60)] {
                let tag = tag(sequence, Moment(sent));
                assert_eq!(sequence_of(tag, next), sequence);
                let now = Moment(sent + elapsed_micros * 1_000);
                let difference = sent_of(tag, now).0.abs_diff(sent);
                assert!(difference < 1_000, "{difference} ns off");
            }
        }
    }

    #[test]
    fn messages_carry_the_identity_that_the_audit_looks_for() {
        let shape = shape(KeyPattern::Random);
        let mut book = MessageBook::new(shape, 1, 2, u64::MAX);
        send(&mut book, Moment(5));
        let message = book.compose(Moment(9));
        assert!(ExpectedValue::of(&shape).is(message.value));
        let identity = Identity::read(message.value).unwrap();
        assert_eq!((identity.writer, identity.sequence, identity.intended), (3, 1, Moment(9)));
        assert_eq!(message.key, shape.key(0, 1).to_be_bytes());
        // It was not sent: the next one has its sequence.
        assert_eq!(Identity::read(book.compose(Moment(9)).value), Some(identity));
    }

    #[test]
    fn slots_and_the_budget_bound_what_is_sent() {
        let mut book = MessageBook::new(shape(KeyPattern::Sequential), 2, 2, 3);
        let mut recorder = recorder();
        let first = send(&mut book, Moment(0));
        let second = send(&mut book, Moment(0));
        assert_eq!((first.0, second.0), (0, 1), "partitions in turn");
        assert_eq!((book.has_room(), book.under_way()), (false, 2));
        book.reported(first, Ok(10), Moment(SECOND), &mut recorder);
        send(&mut book, Moment(SECOND));
        book.reported(second, Err("gone"), Moment(SECOND), &mut recorder);
        assert_eq!((book.has_room(), book.is_spent(), book.under_way()), (false, true, 1));
        let ledgers = book.into_ledgers();
        assert_eq!((ledgers[0].acknowledged_end, ledgers[0].next_sequence), (11, 2));
        assert_eq!((ledgers[1].acknowledged(), ledgers[1].unresolved.len()), (0, 1));
        assert!(ledgers.iter().all(|ledger| ledger.counts_messages && ledger.writer == 3));
    }
}
