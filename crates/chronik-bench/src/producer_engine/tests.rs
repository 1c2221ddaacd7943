//! The producer's step as a dialogue: offers, frames, answers.

use std::sync::mpsc::{Receiver, channel};

use chronik_common::Uuid;
use chronik_protocol::produce::ProduceRequest;
use chronik_protocol::{ApiKey, FRAME_PREFIX_BYTES, Reader, RequestHeader, RequestPrefix};
use chronik_record::{BatchHeader, Codec};

use super::*;
use crate::arguments::PayloadPattern;
use crate::batch_template::MessageShape;
use crate::produce_request::RequestShape;
use crate::recorder::{Report, Schedule};

const VERSION: i16 = 9;

/// Frames as they were sent.
#[derive(Default)]
struct Frames(Vec<Vec<u8>>);

impl FrameSink for Frames {
    fn send(&mut self, request: RequestParts<'_>) {
        self.0.push([request.head, request.batch, request.tail].concat());
    }

    fn has_room(&self) -> bool {
        true
    }
}

impl Frames {
    /// Correlation id, partition, batch and its header of each frame.
    fn take(&mut self) -> Vec<(i32, i32, Vec<u8>, BatchHeader)> {
        let read = |frame: Vec<u8>| {
            let payload = &frame[FRAME_PREFIX_BYTES..];
            let prefix = RequestPrefix::decode(payload).unwrap();
            let (_, body) = RequestHeader::decode(payload, ApiKey::Produce, prefix).unwrap();
            let request = ProduceRequest::decode(&mut Reader::new(body), VERSION).unwrap();
            let partition = &request.topic_data[0].partition_data[0];
            let batch = partition.records.as_ref().unwrap().contiguous().into_owned();
            let header = BatchHeader::parse(&batch).unwrap();
            header.verify_crc(&batch).unwrap();
            (prefix.correlation_id, partition.index, batch, header)
        };
        std::mem::take(&mut self.0).into_iter().map(read).collect()
    }
}

fn ms(ms: u64) -> Moment {
    Moment(ms * 1_000_000)
}

fn recorder() -> (Recorder, Receiver<Report>) {
    let (reports, received) = channel();
    let schedule = Schedule {
        start: ms(0),
        measure_from: ms(0),
        measure_until: Moment::NEVER,
        sample: Duration::from_secs(3_600),
        drain: Duration::ZERO,
    };
    (Recorder::new(0, schedule, ms(0), reports), received)
}

fn shape() -> EngineShape {
    EngineShape {
        slots: 8,
        request_messages_max: 4,
        requests_max: 2,
        linger: Duration::ZERO,
        has_answers: true,
        keys: KeyPattern::Random,
        value_bytes: 32,
        request_timeout: Duration::from_secs(1),
        message_timeout: Duration::from_secs(10),
    }
}

fn engine(shape: EngineShape, producer: Option<(i64, i16)>, partitions: &[i32]) -> ProducerEngine {
    let request = RequestTemplate::new(&RequestShape {
        version: VERSION,
        topic: "t".to_owned(),
        topic_id: Uuid::ZERO,
        acks: -1,
        timeout_ms: 1_000,
    });
    let (keys, payload) = (shape.keys, PayloadPattern::Zeros);
    let message =
        MessageShape { value_bytes: 32, keys, payload, codec: Codec::None, run: 1, writer: 0 };
    let template = BatchTemplate::new(message, shape.request_messages_max);
    ProducerEngine::new(shape, request.unwrap(), template, producer, (0, partitions))
}

fn answer(correlation_id: i32, error_code: ErrorCode, base_offset: i64) -> ProduceAnswer {
    ProduceAnswer { correlation_id, error_code: error_code.code(), base_offset }
}

#[test]
fn tasks_share_requests_up_to_the_bounds_and_are_free_again_after_the_answer() {
    let (mut recorder, received) = recorder();
    let (mut engine, mut frames) = (engine(shape(), None, &[3]), Frames::default());
    engine.offer(ms(1), ms(1), 7);
    engine.pump(ms(1), 0, &mut frames, &mut recorder);
    let sent = frames.take();
    let counts: Vec<_> = sent.iter().map(|(id, p, _, it)| (*id, *p, it.record_count)).collect();
    assert_eq!(counts, [(0, 3, 4), (1, 3, 3)]);
    assert_eq!(engine.free_slots(), 1);
    engine.on_answer(&answer(0, ErrorCode::None, 100), ms(5), &mut recorder).unwrap();
    assert_eq!(engine.free_slots(), 5);
    engine.on_answer(&answer(1, ErrorCode::None, 104), ms(6), &mut recorder).unwrap();
    assert!(engine.is_idle());
    recorder.finish();
    let Ok(Report::Sample { sample, .. }) = received.recv() else { panic!("a sample") };
    assert_eq!((sample.counts.messages, sample.counts.requests), (7, 2));
    let ledger = &engine.into_ledgers()[0];
    assert_eq!((ledger.acknowledged(), ledger.acknowledged_end), (7, 107));
}

#[test]
fn a_batch_lingers_until_it_is_full_or_its_time_is_over() {
    let (mut recorder, _received) = recorder();
    let lingering = EngineShape { linger: Duration::from_millis(5), ..shape() };
    let (mut engine, mut frames) = (engine(lingering, None, &[0]), Frames::default());
    engine.offer(ms(1), ms(1), 3);
    engine.pump(ms(2), 0, &mut frames, &mut recorder);
    assert!(frames.take().is_empty());
    assert_eq!(engine.next_deadline(), ms(6));
    engine.offer(ms(3), ms(3), 1);
    engine.pump(ms(3), 0, &mut frames, &mut recorder);
    assert_eq!(frames.take()[0].3.record_count, 4, "it is full");
    engine.offer(ms(4), ms(4), 1);
    engine.pump(ms(9), 0, &mut frames, &mut recorder);
    assert_eq!(frames.take()[0].3.record_count, 1, "its time is over");
}

#[test]
fn an_idempotent_producer_sends_the_same_bytes_again_in_order() {
    let (mut recorder, received) = recorder();
    let (mut engine, mut frames) = (engine(shape(), Some((9, 0)), &[0]), Frames::default());
    engine.offer(ms(1), ms(1), 8);
    engine.pump(ms(1), 77, &mut frames, &mut recorder);
    let first = frames.take();
    let effect =
        engine.on_answer(&answer(0, ErrorCode::NotEnoughReplicas, -1), ms(2), &mut recorder);
    assert_eq!(effect, Ok(Effect::Reconnect));
    engine.on_disconnect("gone", ms(2), &mut recorder);
    assert_eq!(engine.free_slots(), 0, "they are still under way");
    engine.pump(ms(50), 99, &mut frames, &mut recorder);
    let again = frames.take();
    let batches = |sent: &[(i32, i32, Vec<u8>, BatchHeader)]| {
        sent.iter().map(|(_, _, batch, _)| batch.clone()).collect::<Vec<_>>()
    };
    assert_eq!(batches(&again), batches(&first));
    assert_eq!(again.iter().map(|it| it.3.base_sequence).collect::<Vec<_>>(), [0, 4]);
    for (id, offset) in [(again[0].0, 0), (again[1].0, 4)] {
        engine.on_answer(&answer(id, ErrorCode::None, offset), ms(60), &mut recorder).unwrap();
    }
    recorder.finish();
    let Ok(Report::Sample { sample, .. }) = received.recv() else { panic!("a sample") };
    assert_eq!((sample.counts.messages, sample.counts.failed), (8, 0));
    assert!(sample.latency.max() >= 59_000, "latency counts from the first attempt");
}

#[test]
fn an_idempotent_producer_gives_up_when_the_time_of_a_message_is_over() {
    let (mut recorder, received) = recorder();
    let (mut engine, mut frames) = (engine(shape(), Some((9, 0)), &[0]), Frames::default());
    engine.offer(ms(1), ms(1), 6);
    engine.pump(ms(1), 0, &mut frames, &mut recorder);
    engine.on_disconnect("gone", ms(2), &mut recorder);
    engine.give_up_on_old("gone", ms(9_000), &mut recorder);
    assert!(!engine.has_given_up());
    engine.give_up_on_old("gone", ms(10_002), &mut recorder);
    assert!(engine.has_given_up() && engine.is_idle());
    recorder.finish();
    let Ok(Report::Sample { sample, .. }) = received.recv() else { panic!("a sample") };
    assert_eq!(sample.errors["gone"], 6);
    assert_eq!(engine.into_ledgers()[0].acknowledged(), 0);
}

#[test]
fn without_idempotence_a_lost_message_is_a_failure_with_an_unknown_fate() {
    let (mut recorder, received) = recorder();
    let (mut engine, mut frames) = (engine(shape(), None, &[0]), Frames::default());
    engine.offer(ms(1), ms(1), 4);
    engine.pump(ms(1), 0, &mut frames, &mut recorder);
    engine.on_disconnect("connection reset", ms(9), &mut recorder);
    assert_eq!(engine.free_slots(), 8);
    engine.offer(ms(10), ms(10), 4);
    engine.pump(ms(10), 0, &mut frames, &mut recorder);
    let refused = answer(1, ErrorCode::MessageTooLarge, -1);
    assert_eq!(engine.on_answer(&refused, ms(11), &mut recorder), Ok(Effect::None));
    recorder.finish();
    let Ok(Report::Sample { sample, .. }) = received.recv() else { panic!("a sample") };
    assert_eq!(sample.errors["connection reset"], 4);
    assert_eq!(sample.errors["MESSAGE_TOO_LARGE"], 4);
    let ledger = &engine.into_ledgers()[0];
    assert_eq!((ledger.next_sequence, ledger.acknowledged()), (8, 0));
    assert!(ledger.is_unresolved(0) && ledger.is_unresolved(7));
}

#[test]
fn an_answer_to_another_request_is_an_error() {
    let (mut recorder, _received) = recorder();
    let (mut engine, mut frames) = (engine(shape(), None, &[0]), Frames::default());
    assert!(engine.on_answer(&answer(0, ErrorCode::None, 0), ms(1), &mut recorder).is_err());
    engine.offer(ms(1), ms(1), 1);
    engine.pump(ms(1), 0, &mut frames, &mut recorder);
    assert!(engine.on_answer(&answer(5, ErrorCode::None, 0), ms(1), &mut recorder).is_err());
    assert!(engine.is_overdue(ms(1_001)) && !engine.is_overdue(ms(1_000)));
}

#[test]
fn keys_decide_which_partitions_get_messages() {
    for (keys, partitions) in
        [(KeyPattern::Random, 3), (KeyPattern::Sequential, 3), (KeyPattern::Fixed, 1)]
    {
        let (mut recorder, _received) = recorder();
        let many = EngineShape { slots: 100, requests_max: 100, keys, ..shape() };
        let (mut engine, mut frames) = (engine(many, None, &[0, 1, 2]), Frames::default());
        engine.offer(ms(1), ms(1), 100);
        engine.pump(ms(1), 0, &mut frames, &mut recorder);
        let mut found: Vec<_> = frames.take().iter().map(|it| it.1).collect();
        found.sort_unstable();
        found.dedup();
        assert_eq!(found.len(), partitions, "{keys:?}");
    }
}
