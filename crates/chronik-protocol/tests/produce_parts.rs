//! The reader of produce requests that visits their parts agrees with the generated decoder.

use allocation_counter::measure;
use chronik_common::Uuid;
use chronik_protocol::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use chronik_protocol::sample::Sampler;
use chronik_protocol::{
    ALLOCATION_BYTES_BASE, ALLOCATION_BYTES_PER_INPUT_BYTE, ApiKey, DecodeError, DecodeReason,
    OutputBuffer, ProduceParts, Reader, Records, read_produce_request,
};

/// Puts the visited parts together again.
#[derive(Default)]
struct Collected<'a>(Vec<TopicProduceData<'a>>);

impl<'a> ProduceParts<'a> for Collected<'a> {
    const TOPIC_BYTES: usize = size_of::<TopicProduceData<'a>>();
    const PARTITION_BYTES: usize = size_of::<PartitionProduceData<'a>>();

    fn topic(&mut self, name: &'a str, topic_id: Uuid) {
        self.0.push(TopicProduceData { name: name.into(), topic_id, partition_data: Vec::new() });
    }

    fn partition(&mut self, index: i32, records: Option<&'a [u8]>) {
        let topic = self.0.last_mut().expect("a topic comes before its partitions");
        let records = records.map(Records::Borrowed);
        topic.partition_data.push(PartitionProduceData { index, records });
    }
}

/// Counts the parts and keeps nothing.
#[derive(Default)]
struct Counted(usize);

impl<'a> ProduceParts<'a> for Counted {
    const TOPIC_BYTES: usize = 64;
    const PARTITION_BYTES: usize = 150;

    fn topic(&mut self, _name: &'a str, _topic_id: Uuid) {}

    fn partition(&mut self, _index: i32, _records: Option<&'a [u8]>) {
        self.0 += 1;
    }
}

fn visited(body: &[u8], version: i16) -> Result<(ProduceRequest<'_>, usize), DecodeError> {
    let mut reader = Reader::new(body);
    let mut parts = Collected::default();
    let head = read_produce_request(&mut reader, version, &mut parts)?;
    let request = ProduceRequest {
        transactional_id: head.transactional_id.map(Into::into),
        acks: head.acks,
        timeout_ms: head.timeout_ms,
        topic_data: parts.0,
    };
    Ok((request, reader.remaining()))
}

fn generated(body: &[u8], version: i16) -> Result<(ProduceRequest<'_>, usize), DecodeError> {
    let mut reader = Reader::new(body);
    let request = ProduceRequest::decode(&mut reader, version)?;
    Ok((request, reader.remaining()))
}

fn sample(version: i16, seed: u64) -> Vec<u8> {
    let mut out = OutputBuffer::new();
    let request = ProduceRequest::sample(&mut Sampler::new(seed), version);
    request.encode(&mut out, version).expect("samples can be encoded");
    out.to_vec()
}

fn versions() -> std::ops::RangeInclusive<i16> {
    let shown = ApiKey::Produce.shown();
    shown.min..=shown.max
}

#[test]
fn both_readers_see_the_same_request_in_every_version() {
    for version in versions() {
        let mut parts = 0;
        for seed in 0..200 {
            let body = sample(version, seed);
            let (request, rest) = visited(&body, version).expect("samples are requests");
            parts += request.topic_data.iter().map(|it| it.partition_data.len()).sum::<usize>();
            assert_eq!(Ok((request, rest)), generated(&body, version), "version {version}");
        }
        assert!(parts > 0, "version {version}: the samples have parts");
    }
}

#[test]
fn both_readers_refuse_the_same_damage_for_the_same_reason() {
    for version in versions() {
        let mut refused = 0;
        for seed in 0..40 {
            let body = sample(version, seed);
            for position in 0..body.len().min(400) {
                for byte in [0x00, 0x01, 0x7f, 0x80, 0xff] {
                    let mut damaged = body.clone();
                    damaged[position] = byte;
                    let expected = generated(&damaged, version);
                    refused += usize::from(expected.is_err());
                    assert_eq!(visited(&damaged, version), expected, "version {version}");
                }
                let cut = &body[..position];
                assert_eq!(visited(cut, version), generated(cut, version), "version {version}");
            }
        }
        assert!(refused > 0, "version {version}: some damage is noticed");
    }
}

#[test]
fn a_version_that_does_not_exist_is_refused() {
    for version in [-1, ApiKey::Produce.shown().max + 1] {
        let error = read_produce_request(&mut Reader::new(&[]), version, &mut Counted::default());
        assert_eq!(error.map_err(|it| it.reason), Err(DecodeReason::Version));
    }
}

#[test]
fn visiting_allocates_nothing() {
    for version in versions() {
        let bodies: Vec<_> = (0..50).map(|seed| sample(version, seed)).collect();
        let allocated = measure(|| {
            for body in &bodies {
                let mut parts = Counted::default();
                let read = read_produce_request(&mut Reader::new(body), version, &mut parts);
                assert!(read.is_ok());
            }
        });
        assert_eq!(allocated.count_total, 0, "version {version}");
    }
}

#[test]
fn what_the_visitor_keeps_stays_within_the_budget() {
    // Version 8: null transactional id, acks, timeout; topics without a name and partitions
    // without records.
    let head = [0xff, 0xff, 0, 1, 0, 0, 0, 0];
    let partition = [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];
    let topic = |partitions: i32| {
        let mut topic = vec![0, 0];
        topic.extend(partitions.to_be_bytes());
        topic.extend(partition.repeat(partitions as usize));
        topic
    };
    let request = |topics: i32, partitions: i32| {
        let mut body = head.to_vec();
        body.extend(topics.to_be_bytes());
        body.extend(topic(partitions).repeat(topics as usize));
        body
    };
    for (topics, partitions, field) in [
        (100_000, 0, "topic_data"),
        (1, 100_000, "topic_data.partition_data"),
        (1_000, 1_000, "topic_data.partition_data"),
    ] {
        let body = request(topics, partitions);
        let mut parts = Counted::default();
        let read = read_produce_request(&mut Reader::new(&body), 8, &mut parts);
        let error = read.map_err(|error| (error.field, error.reason));
        assert_eq!(error, Err((field, DecodeReason::AllocationBudget)));
        let budget = ALLOCATION_BYTES_BASE + ALLOCATION_BYTES_PER_INPUT_BYTE * body.len();
        assert!(parts.0 * Counted::PARTITION_BYTES <= budget, "{} parts", parts.0);
    }
    let mut parts = Counted::default();
    let body = request(20, 15);
    assert!(read_produce_request(&mut Reader::new(&body), 8, &mut parts).is_ok());
    assert_eq!(parts.0, 300, "few parts need no records");
}
