//! Requests into values, values into answers: what every request pays twice.

use std::borrow::Cow;
use std::hint::black_box;

use bytes::Bytes;
use chronik_common::Uuid;
use chronik_protocol::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, FetchableTopicResponse, PartitionData,
};
use chronik_protocol::produce::{PartitionProduceResponse, ProduceResponse, TopicProduceResponse};
use chronik_protocol::{
    ApiKey, FRAME_PREFIX_BYTES, OutputBuffer, ProduceParts, Reader, Records, RequestHeader,
    RequestPrefix, encode_request_frame, encode_response_frame, read_produce_request,
};
use chronik_testkit::produce_request;

use super::Operation;
use super::record::batch;

/// The newest version of both APIs that names topics.
const VERSION: i16 = 12;
/// Partitions of a fetch.
const PARTITIONS: i32 = 8;
/// Bytes fetched from each partition, in two slices.
const FETCHED_BYTES: usize = 4 << 10;

const VALID: &str = "the message is valid";

/// A whole request frame without its length.
fn request(
    api: ApiKey,
    put: impl FnOnce(&mut OutputBuffer) -> Result<(), chronik_protocol::EncodeError>,
) -> Vec<u8> {
    let header =
        RequestHeader { api, version: VERSION, correlation_id: 7, client_id: Some("client") };
    let mut out = OutputBuffer::new();
    encode_request_frame(&mut out, header, put).expect(VALID);
    out.to_vec().split_off(FRAME_PREFIX_BYTES)
}

/// The body of a request, behind its header.
fn body_of(frame: &[u8], api: ApiKey) -> &[u8] {
    let prefix = RequestPrefix::decode(frame).expect(VALID);
    RequestHeader::decode(frame, api, prefix).expect(VALID).1
}

/// A Produce request of one batch of one record.
pub(super) struct DecodeProduce {
    frame: Vec<u8>,
}

impl DecodeProduce {
    pub(super) fn new() -> Self {
        let batch = batch(1);
        let request_of_one = produce_request("perf-topic", Uuid::ZERO, 3, -1, &batch);
        Self { frame: request(ApiKey::Produce, |out| request_of_one.encode(out, VERSION)) }
    }
}

/// The last part of a request.
#[derive(Default)]
struct Parts<'a>(&'a str, i32, Option<&'a [u8]>);

impl<'a> ProduceParts<'a> for Parts<'a> {
    const TOPIC_BYTES: usize = 0;
    const PARTITION_BYTES: usize = 0;

    fn topic(&mut self, name: &'a str, _topic_id: Uuid) {
        self.0 = name;
    }

    fn partition(&mut self, index: i32, records: Option<&'a [u8]>) {
        (self.1, self.2) = (index, records);
    }
}

impl Operation for DecodeProduce {
    fn run(&mut self) {
        let mut reader = Reader::new(body_of(black_box(&self.frame), ApiKey::Produce));
        let mut parts = Parts::default();
        black_box(read_produce_request(&mut reader, VERSION, &mut parts).expect(VALID));
        black_box(parts);
    }
}

/// The answer to it.
pub(super) struct EncodeProduced {
    answer: ProduceResponse<'static>,
    out: OutputBuffer,
}

impl EncodeProduced {
    pub(super) fn new() -> Self {
        let part = PartitionProduceResponse {
            index: 3,
            base_offset: 1_000_000,
            log_append_time_ms: -1,
            log_start_offset: 0,
            ..PartitionProduceResponse::default()
        };
        let topic = TopicProduceResponse {
            name: Cow::Borrowed("perf-topic"),
            topic_id: Uuid::ZERO,
            partition_responses: vec![part],
        };
        let answer = ProduceResponse { responses: vec![topic], ..ProduceResponse::default() };
        Self { answer, out: OutputBuffer::new() }
    }
}

impl Operation for EncodeProduced {
    fn prepare(&mut self) {
        self.out.advance(self.out.len());
    }

    fn run(&mut self) {
        let answer = black_box(&self.answer);
        encode_response_frame(&mut self.out, ApiKey::Produce, VERSION, 7, |out| {
            answer.encode(out, VERSION)
        })
        .expect(VALID);
    }
}

/// A Fetch request for eight partitions of a topic.
pub(super) struct DecodeFetch {
    frame: Vec<u8>,
}

impl DecodeFetch {
    pub(super) fn new() -> Self {
        let partitions = (0..PARTITIONS).map(|partition| FetchPartition {
            partition,
            fetch_offset: 1_000,
            partition_max_bytes: 1 << 20,
            ..FetchPartition::default()
        });
        let topic = FetchTopic {
            topic: Cow::Borrowed("perf-topic"),
            partitions: partitions.collect(),
            ..FetchTopic::default()
        };
        let fetch = FetchRequest {
            max_wait_ms: 500,
            min_bytes: 1,
            topics: vec![topic],
            ..FetchRequest::default()
        };
        Self { frame: request(ApiKey::Fetch, |out| fetch.encode(out, VERSION)) }
    }
}

impl Operation for DecodeFetch {
    fn run(&mut self) {
        let mut reader = Reader::new(body_of(black_box(&self.frame), ApiKey::Fetch));
        black_box(FetchRequest::decode(&mut reader, VERSION).expect(VALID));
    }
}

/// The answer to it, with records of every partition.
pub(super) struct EncodeFetched {
    answer: FetchResponse<'static>,
    out: OutputBuffer,
}

impl EncodeFetched {
    pub(super) fn new() -> Self {
        let partitions = (0..PARTITIONS).map(|partition_index| {
            let slice = Bytes::from(vec![0x5a; FETCHED_BYTES / 2]);
            PartitionData {
                partition_index,
                high_watermark: 1_000_000,
                last_stable_offset: 1_000_000,
                records: Some(Records::Chain(vec![slice.clone(), slice])),
                ..PartitionData::default()
            }
        });
        let topic = FetchableTopicResponse {
            topic: Cow::Borrowed("perf-topic"),
            topic_id: Uuid::ZERO,
            partitions: partitions.collect(),
        };
        let answer = FetchResponse { responses: vec![topic], ..FetchResponse::default() };
        Self { answer, out: OutputBuffer::new() }
    }
}

impl Operation for EncodeFetched {
    fn prepare(&mut self) {
        self.out.advance(self.out.len());
    }

    fn run(&mut self) {
        let answer = black_box(&self.answer);
        encode_response_frame(&mut self.out, ApiKey::Fetch, VERSION, 7, |out| {
            answer.encode(out, VERSION)
        })
        .expect(VALID);
    }
}
