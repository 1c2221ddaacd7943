//! Every version that `kafka-protocol` knows, against its codec.
//!
//! A random message goes ours -> theirs -> ours: their decoder takes all of our bytes, their
//! encoder gives the same bytes back, and our decoder gives the message back. Fields of one type
//! in the wrong order would pass that, so a few messages are built by name on one side and read by
//! name on the other; that all names, types and their order are Kafka's is checked against the
//! specifications in kafka-python by `tests/compat/protocol_oracle`.

use std::fmt::Debug;

use bytes::{Buf, Bytes, BytesMut};
use chronik_common::Uuid;
use chronik_protocol::sample::Sampler;
use chronik_protocol::{
    ApiKey, EncodeError, OutputBuffer, Records, Request, RequestHeader, RequestPrefix, Response,
    decode_request, decode_response, decode_response_header, encode_request_frame,
    encode_response_frame, fetch, metadata, produce,
};
use kafka_protocol::messages as foreign;
use kafka_protocol::protocol::{self, Decodable, Encodable, HeaderVersion, StrBytes};

const SAMPLES_PER_VERSION: u64 = 60;

/// The versions of `api` that both sides know, with the request type of the other side given.
fn shared_versions<R: protocol::Request>(api: ApiKey) -> impl Iterator<Item = i16> {
    assert_eq!(R::KEY, api.number());
    let theirs = R::VERSIONS;
    (api.shown().min..=api.shown().max).filter(move |v| (theirs.min..=theirs.max).contains(v))
}

/// Calls a generic function with the foreign request type of every API.
macro_rules! for_every_api {
    ($function:ident) => {
        for api in ApiKey::ALL {
            match api {
                ApiKey::Produce => $function::<foreign::ProduceRequest>(*api),
                ApiKey::Fetch => $function::<foreign::FetchRequest>(*api),
                ApiKey::ListOffsets => $function::<foreign::ListOffsetsRequest>(*api),
                ApiKey::Metadata => $function::<foreign::MetadataRequest>(*api),
                ApiKey::ApiVersions => $function::<foreign::ApiVersionsRequest>(*api),
                ApiKey::CreateTopics => $function::<foreign::CreateTopicsRequest>(*api),
                ApiKey::DeleteTopics => $function::<foreign::DeleteTopicsRequest>(*api),
                ApiKey::InitProducerId => $function::<foreign::InitProducerIdRequest>(*api),
                ApiKey::DescribeConfigs => $function::<foreign::DescribeConfigsRequest>(*api),
                ApiKey::DescribeCluster => $function::<foreign::DescribeClusterRequest>(*api),
            }
        }
    };
}

fn encoded(
    encode: impl FnOnce(&mut OutputBuffer) -> Result<(), EncodeError> + Copy,
    context: impl Debug,
) -> Vec<u8> {
    let mut out = OutputBuffer::new();
    encode(&mut out).unwrap_or_else(|error| panic!("{context:?}: {error:?}"));
    out.to_vec()
}

/// Decodes with the foreign codec, which must take all bytes, and encodes again.
fn through_theirs<M: Decodable + Encodable>(ours: &[u8], version: i16) -> Vec<u8> {
    let mut input = Bytes::copy_from_slice(ours);
    let message = M::decode(&mut input, version).expect("our bytes are a message to them");
    assert!(!input.has_remaining(), "they leave {} of our bytes", input.remaining());
    let mut output = BytesMut::new();
    message.encode(&mut output, version).expect("what they decoded they can encode");
    output.to_vec()
}

fn messages_round_trip<R: protocol::Request>(api: ApiKey) {
    for version in shared_versions::<R>(api) {
        for seed in 0..SAMPLES_PER_VERSION {
            let context = (api, version, seed);
            let request = Request::sample(api, version, &mut Sampler::new(seed));
            let ours = encoded(|out| request.encode(out, version), context);
            let theirs = through_theirs::<R>(&ours, version);
            assert_eq!(theirs, ours, "{context:?} {request:?}");
            assert_eq!(decode_request(api, version, &theirs), Ok(request), "{context:?}");

            let response = Response::sample(api, version, &mut Sampler::new(seed));
            let ours = encoded(|out| response.encode(out, version), context);
            let theirs = through_theirs::<R::Response>(&ours, version);
            assert_eq!(theirs, ours, "{context:?} {response:?}");
            assert_eq!(decode_response(api, version, &theirs), Ok(response), "{context:?}");
        }
    }
}

#[test]
fn every_message_of_every_shared_version_is_the_same_bytes_to_kafka_protocol() {
    for_every_api!(messages_round_trip);
}

fn header_versions_agree<R: protocol::Request>(api: ApiKey) {
    for version in shared_versions::<R>(api) {
        let ours = (api.request_header_version(version), api.response_header_version(version));
        let theirs = (R::header_version(version), R::Response::header_version(version));
        assert_eq!(ours, theirs, "{api} version {version}");
    }
}

#[test]
fn header_versions_are_those_of_kafka_protocol() {
    for_every_api!(header_versions_agree);
}

#[test]
fn headers_are_the_same_bytes_to_kafka_protocol() {
    for client_id in [None, Some(""), Some("client \u{e9}")] {
        for version in [8, 9] {
            let header =
                RequestHeader { api: ApiKey::Produce, version, correlation_id: 77, client_id };
            let ours = encoded(|out| encode_request_frame(out, header, |_| Ok(())), version);
            let payload = &ours[4..];

            let header_version = ApiKey::Produce.request_header_version(version);
            let theirs = through_theirs::<foreign::RequestHeader>(payload, header_version);
            assert_eq!(theirs, payload);
            let prefix = RequestPrefix::decode(&theirs).unwrap();
            let decoded = RequestHeader::decode(&theirs, ApiKey::Produce, prefix);
            assert_eq!(decoded, Ok((header, [].as_slice())));
        }
    }
    for version in [8, 9] {
        let encode = |out: &mut OutputBuffer| {
            encode_response_frame(out, ApiKey::Produce, version, -5, |_| Ok(()))
        };
        let ours = encoded(encode, version);
        let header_version = ApiKey::Produce.response_header_version(version);
        let theirs = through_theirs::<foreign::ResponseHeader>(&ours[4..], header_version);
        assert_eq!(theirs, ours[4..]);
        let decoded = decode_response_header(&theirs, ApiKey::Produce, version);
        assert_eq!(decoded, Ok((-5, [].as_slice())));
    }
}

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

#[test]
fn tagged_fields_that_we_do_not_know_are_skipped() {
    let mut unknown = std::collections::BTreeMap::new();
    unknown.insert(0, Bytes::from_static(b"?"));
    unknown.insert(4_000, Bytes::from(vec![7; 300]));
    let partition = foreign::produce_request::PartitionProduceData::default()
        .with_index(4)
        .with_records(Some(Bytes::from_static(b"batch")))
        .with_unknown_tagged_fields(unknown.clone());
    let topic = foreign::produce_request::TopicProduceData::default()
        .with_name(text("t").into())
        .with_partition_data(vec![partition])
        .with_unknown_tagged_fields(unknown.clone());
    let request = foreign::ProduceRequest::default()
        .with_transactional_id(None)
        .with_acks(-1)
        .with_timeout_ms(30_000)
        .with_topic_data(vec![topic])
        .with_unknown_tagged_fields(unknown);
    let mut bytes = BytesMut::new();
    request.encode(&mut bytes, 9).unwrap();

    let records = Some(Records::Borrowed(b"batch"));
    let expected = produce::ProduceRequest {
        transactional_id: None,
        acks: -1,
        timeout_ms: 30_000,
        topic_data: vec![produce::TopicProduceData {
            name: "t".into(),
            topic_id: Uuid::ZERO,
            partition_data: vec![produce::PartitionProduceData { index: 4, records }],
        }],
    };
    let decoded = decode_request(ApiKey::Produce, 9, &bytes);
    assert_eq!(decoded, Ok(Request::Produce(expected)));
}

#[test]
fn fetch_fields_mean_the_same_to_kafka_protocol() {
    let partition = foreign::fetch_request::FetchPartition::default()
        .with_partition(1)
        .with_current_leader_epoch(2)
        .with_fetch_offset(3)
        .with_last_fetched_epoch(4)
        .with_log_start_offset(5)
        .with_partition_max_bytes(6);
    let topic = foreign::fetch_request::FetchTopic::default()
        .with_topic_id(uuid::Uuid::from_bytes([9; 16]))
        .with_partitions(vec![partition]);
    let request = foreign::FetchRequest::default()
        .with_max_wait_ms(7)
        .with_min_bytes(8)
        .with_max_bytes(9)
        .with_isolation_level(1)
        .with_session_id(10)
        .with_session_epoch(11)
        .with_topics(vec![topic])
        .with_rack_id(text("rack"));
    let mut bytes = BytesMut::new();
    request.encode(&mut bytes, 17).unwrap();
    let expected = fetch::FetchRequest {
        max_wait_ms: 7,
        min_bytes: 8,
        max_bytes: 9,
        isolation_level: 1,
        session_id: 10,
        session_epoch: 11,
        topics: vec![fetch::FetchTopic {
            topic: "".into(),
            topic_id: Uuid([9; 16]),
            partitions: vec![fetch::FetchPartition {
                partition: 1,
                current_leader_epoch: 2,
                fetch_offset: 3,
                last_fetched_epoch: 4,
                log_start_offset: 5,
                partition_max_bytes: 6,
                ..fetch::FetchPartition::default()
            }],
        }],
        rack_id: "rack".into(),
        ..fetch::FetchRequest::default()
    };
    assert_eq!(decode_request(ApiKey::Fetch, 17, &bytes), Ok(Request::Fetch(expected)));
}

#[test]
fn metadata_fields_mean_the_same_to_kafka_protocol() {
    let response = metadata::MetadataResponse {
        throttle_time_ms: 1,
        brokers: vec![metadata::MetadataResponseBroker {
            node_id: 2,
            host: "host".into(),
            port: 3,
            rack: Some("rack".into()),
        }],
        cluster_id: Some("cluster".into()),
        controller_id: 4,
        topics: vec![metadata::MetadataResponseTopic {
            error_code: 5,
            name: Some("topic".into()),
            topic_id: Uuid([6; 16]),
            is_internal: true,
            partitions: vec![metadata::MetadataResponsePartition {
                error_code: 7,
                partition_index: 8,
                leader_id: 9,
                leader_epoch: 10,
                replica_nodes: vec![11],
                isr_nodes: vec![12],
                offline_replicas: vec![13],
            }],
            topic_authorized_operations: 14,
        }],
        error_code: 15,
        ..metadata::MetadataResponse::default()
    };
    let ours = encoded(|out| response.encode(out, 13), "metadata");
    let theirs = foreign::MetadataResponse::decode(&mut Bytes::from(ours), 13).unwrap();

    let broker = &theirs.brokers[0];
    assert_eq!((broker.node_id.0, broker.host.as_str(), broker.port), (2, "host", 3));
    assert_eq!(broker.rack, Some(text("rack")));
    assert_eq!((theirs.throttle_time_ms, theirs.controller_id.0, theirs.error_code), (1, 4, 15));
    assert_eq!(theirs.cluster_id, Some(text("cluster")));
    let topic = &theirs.topics[0];
    assert_eq!(topic.name.as_ref().map(|name| name.as_str()), Some("topic"));
    assert_eq!(topic.topic_id.as_bytes(), &[6; 16]);
    assert_eq!((topic.error_code, topic.is_internal), (5, true));
    assert_eq!(topic.topic_authorized_operations, 14);
    let partition = &topic.partitions[0];
    assert_eq!((partition.error_code, partition.partition_index), (7, 8));
    assert_eq!((partition.leader_id.0, partition.leader_epoch), (9, 10));
    assert_eq!(partition.replica_nodes, [11]);
    assert_eq!(partition.isr_nodes, [12]);
    assert_eq!(partition.offline_replicas, [13]);
}
