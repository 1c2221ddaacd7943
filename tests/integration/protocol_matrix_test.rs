//! Every API at every version of its range against the live server, in several shapes: the answer
//! decodes to its last byte and has the codes Kafka gives.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use chronik_common::{ErrorCode, TopicId, Uuid};
use chronik_protocol::ApiKey;
use chronik_protocol::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use chronik_protocol::create_topics::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use chronik_protocol::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use chronik_protocol::describe_cluster::DescribeClusterRequest;
use chronik_protocol::describe_configs::{DescribeConfigsRequest, DescribeConfigsResource};
use chronik_protocol::fetch::{FetchPartition, FetchRequest, FetchTopic, ReplicaState};
use chronik_protocol::init_producer_id::InitProducerIdRequest;
use chronik_protocol::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use chronik_protocol::metadata::{MetadataRequest, MetadataRequestTopic};
use chronik_protocol::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use chronik_protocol::{OutputBuffer, Reader, Records};
use chronik_record::Codec;
use chronik_testkit::{
    Call, Client, NewTopic, TestServer, batch_of, create_topic, decode_batches, produce_request,
    test_server, topic_id,
};

/// The APIs of this release and the ranges they are shown with, as Kafka 4.2 shows them.
const SHOWN: [(i16, i16, i16); 10] = [
    (0, 0, 13),
    (1, 4, 18),
    (2, 1, 11),
    (3, 0, 13),
    (18, 0, 4),
    (19, 2, 7),
    (20, 1, 6),
    (22, 0, 5),
    (32, 1, 4),
    (60, 0, 2),
];
const UNKNOWN_ID: TopicId = Uuid([0xee; 16]);
const OPERATIONS_OMITTED: i32 = i32::MIN;

/// A server with topic `known` of two partitions and three records in the first.
fn server() -> (TestServer, Client, TopicId) {
    let server = test_server!().start();
    let mut client = server.connect();
    let id = create_topic(&mut client, NewTopic { name: "known", partitions: 2, configs: &[] });
    let batch = batch_of(Codec::None, None, 1_000, &["a", "b", "c"]);
    let reply = client.call(&produce_request("known", id, 0, -1, &batch), 9);
    assert_eq!(reply.body().responses[0].partition_responses[0].error_code, 0);
    (server, client, id)
}

fn versions<C: Call>() -> RangeInclusive<i16> {
    C::API.shown().min..=C::API.shown().max
}

#[track_caller]
fn assert_code(found: i16, expected: ErrorCode, version: i16, shape: &str) {
    let found = ErrorCode::try_from(found).expect("a code of Kafka's table");
    assert_eq!(found, expected, "version {version}, {shape}");
}

fn no_topic_unless_by_id(version: i16, first_id_version: i16) -> ErrorCode {
    let is_by_id = version >= first_id_version;
    if is_by_id { ErrorCode::UnknownTopicId } else { ErrorCode::UnknownTopicOrPartition }
}

#[test]
fn api_versions_shows_exactly_what_works_at_every_version() {
    let (_server, mut client, _) = server();
    let software = |name: &'static str| ApiVersionsRequest {
        client_software_name: name.into(),
        client_software_version: "1.0".into(),
    };
    for version in versions::<ApiVersionsRequest<'_>>() {
        let reply = client.call(&software("testkit"), version);
        let answer = reply.body();
        assert_code(answer.error_code, ErrorCode::None, version, "all keys");
        let shown: Vec<_> = answer
            .api_keys
            .iter()
            .map(|api| (api.api_key, api.min_version, api.max_version))
            .collect();
        assert_eq!(shown, SHOWN, "version {version}");
        assert_eq!(answer.supported_features, [], "no feature is finalized");

        let reply = client.call(&software("-bad-"), version);
        let is_checked = version >= 3;
        let expected = if is_checked { ErrorCode::InvalidRequest } else { ErrorCode::None };
        assert_code(reply.body().error_code, expected, version, "illegal software name");
    }
}

/// A request frame of any key and version with the header all versions share.
fn bare_frame(api_key: i16, version: i16, correlation_id: i32) -> Vec<u8> {
    let mut out = OutputBuffer::new();
    out.put_i32(10);
    out.put_i16(api_key);
    out.put_i16(version);
    out.put_i32(correlation_id);
    out.put_i16(-1);
    out.to_vec()
}

#[test]
fn an_unsupported_api_versions_version_is_answered_in_version_0_and_the_socket_stays_open() {
    let (_server, mut client, _) = server();
    for version in [5, 99, -1, i16::MAX] {
        client.send_raw(&bare_frame(18, version, 77)).unwrap();
        let payload = client.receive_payload().unwrap();
        let mut reader = Reader::new(&payload);
        assert_eq!(reader.i32("correlation_id").unwrap(), 77);
        let answer = ApiVersionsResponse::decode(&mut reader, 0).unwrap();
        assert_eq!(reader.remaining(), 0);
        assert_code(answer.error_code, ErrorCode::UnsupportedVersion, version, "future client");
        let own = answer.api_keys.iter().find(|api| api.api_key == 18).unwrap();
        assert_eq!((own.min_version, own.max_version), (0, 4));
    }
    client.call(&ApiVersionsRequest::default(), 0);
}

#[test]
fn an_unknown_key_or_version_closes_only_its_connection() {
    let (server, mut canary, _) = server();
    let outside = ApiKey::ALL
        .iter()
        .filter(|api| **api != ApiKey::ApiVersions)
        .flat_map(|api| [(api.number(), api.shown().min - 1), (api.number(), api.shown().max + 1)]);
    let unknown = [(4, 0), (10, 0), (17, 0), (44, 0), (68, 1), (-1, 0), (i16::MAX, 3)];
    let mut count = 0;
    for (api_key, version) in outside.chain(unknown) {
        let mut client = server.connect();
        client.send_raw(&bare_frame(api_key, version, 5)).unwrap();
        assert!(client.read_until_closed().is_empty(), "key {api_key} version {version}");
        canary.call(&ApiVersionsRequest::default(), 0);
        count += 1;
    }
    let closed = server.metrics().value("chronik_connections_closed_total{reason=\"unsupported\"}");
    assert_eq!(closed, f64::from(count));
    let refusals = server.log().lines().filter(|line| line.contains("I050")).count();
    assert_eq!(refusals, count as usize, "each refusal is logged with its client");
}

#[test]
fn client_ids_may_be_null_or_empty() {
    let (_server, mut client, _) = server();
    for client_id in [None, Some(String::new()), Some("x".repeat(300))] {
        client.client_id = client_id;
        for version in versions::<MetadataRequest<'_>>() {
            client
                .call(&MetadataRequest { topics: Some(Vec::new()), ..Default::default() }, version);
        }
    }
}

#[test]
fn produce_answers_every_shape_at_every_version() {
    let (_server, mut client, id) = server();
    let batch = batch_of(Codec::None, None, -1, &["v"]);
    let mut end = 3;
    for version in versions::<ProduceRequest<'_>>() {
        let is_served = version >= 3;
        let served = |code| if is_served { code } else { ErrorCode::UnsupportedVersion };
        let unknown = served(no_topic_unless_by_id(version, 13));
        let cases = [
            ("known", id, 0, ErrorCode::None),
            ("known", id, 2, ErrorCode::UnknownTopicOrPartition),
            ("known", id, -1, ErrorCode::UnknownTopicOrPartition),
            ("unknown", UNKNOWN_ID, 0, unknown),
            ("", Uuid::ZERO, 0, unknown),
        ];
        for (name, topic_id, partition, expected) in cases {
            let request = produce_request(name, topic_id, partition, -1, &batch);
            let reply = client.call(&request, version);
            let answer = &reply.body().responses[0].partition_responses[0];
            assert_code(answer.error_code, served(expected), version, name);
            assert_eq!(answer.index, partition);
            let is_stored = served(expected) == ErrorCode::None;
            assert_eq!(answer.base_offset, if is_stored { end } else { -1 });
            end += i64::from(is_stored);
        }
        for acks in [2, -2, i16::MAX] {
            let reply = client.call(&produce_request("known", id, 0, acks, &batch), version);
            let answer = &reply.body().responses[0].partition_responses[0];
            let expected = served(ErrorCode::InvalidRequiredAcks);
            assert_code(answer.error_code, expected, version, "acks");
        }
        let nothing = ProduceRequest { acks: 1, timeout_ms: 1, ..ProduceRequest::default() };
        assert_eq!(client.call(&nothing, version).body().responses, []);
        let no_partition = ProduceRequest {
            topic_data: vec![TopicProduceData {
                name: "known".into(),
                topic_id: id,
                partition_data: Vec::new(),
            }],
            ..nothing.clone()
        };
        let reply = client.call(&no_partition, version);
        assert_eq!(reply.body().responses[0].partition_responses, []);

        let no_records = |records| ProduceRequest {
            topic_data: vec![TopicProduceData {
                name: "known".into(),
                topic_id: id,
                partition_data: vec![PartitionProduceData { index: 0, records }],
            }],
            ..nothing.clone()
        };
        for (records, shape) in [(None, "null records"), (Some(Records::EMPTY), "no records")] {
            let reply = client.call(&no_records(records), version);
            let answer = &reply.body().responses[0].partition_responses[0];
            assert_code(answer.error_code, served(ErrorCode::InvalidRecord), version, shape);
        }
        if is_served {
            let transactional = ProduceRequest {
                transactional_id: Some("t".into()),
                ..produce_request("known", id, 0, -1, &batch)
            };
            let reply = client.call(&transactional, version);
            let answer = &reply.body().responses[0].partition_responses[0];
            assert_code(answer.error_code, ErrorCode::InvalidRequest, version, "transactional id");
        }
    }
}

fn fetch(name: &str, topic_id: TopicId, partition: i32, offset: i64) -> FetchRequest<'_> {
    FetchRequest {
        max_wait_ms: 0,
        min_bytes: 1,
        topics: vec![FetchTopic {
            topic: Cow::Borrowed(name),
            topic_id,
            partitions: vec![FetchPartition {
                partition,
                fetch_offset: offset,
                partition_max_bytes: 1 << 20,
                ..FetchPartition::default()
            }],
        }],
        ..FetchRequest::default()
    }
}

#[test]
fn fetch_answers_every_shape_at_every_version() {
    let (_server, mut client, id) = server();
    for version in versions::<FetchRequest<'_>>() {
        let unknown = no_topic_unless_by_id(version, 13);
        let cases = [
            ("known", id, 0, 0, ErrorCode::None),
            ("known", id, 0, 3, ErrorCode::None),
            ("known", id, 1, 0, ErrorCode::None),
            ("known", id, 0, 4, ErrorCode::OffsetOutOfRange),
            ("known", id, 0, -1, ErrorCode::OffsetOutOfRange),
            ("known", id, 2, 0, ErrorCode::UnknownTopicOrPartition),
            ("unknown", UNKNOWN_ID, 0, 0, unknown),
        ];
        for (name, topic_id, partition, offset, expected) in cases {
            for isolation_level in [0, 1] {
                let request =
                    FetchRequest { isolation_level, ..fetch(name, topic_id, partition, offset) };
                let reply = client.call(&request, version);
                let answer = reply.body();
                let shape = format!("{name}-{partition} at {offset}");
                assert_eq!((answer.error_code, answer.session_id), (0, 0), "{shape}");
                let data = &answer.responses[0].partitions[0];
                assert_code(data.error_code, expected, version, &shape);
                let records = data.records.as_ref().expect("never null").contiguous();
                let wants_records = expected == ErrorCode::None && partition == 0 && offset == 0;
                let count: usize =
                    decode_batches(&records).iter().map(|(_, records)| records.len()).sum();
                assert_eq!(count, if wants_records { 3 } else { 0 }, "v{version} {shape}");
                let end = if partition == 0 { 3 } else { 0 };
                let (end, start) = if expected == ErrorCode::None { (end, 0) } else { (-1, -1) };
                assert_eq!((data.high_watermark, data.last_stable_offset), (end, end));
                assert_eq!(data.log_start_offset, if version >= 5 { start } else { -1 });
                let is_committed = isolation_level == 1;
                assert_eq!(data.aborted_transactions, is_committed.then(Vec::new), "{shape}");
                assert_eq!(data.preferred_read_replica, -1);
            }
        }
        let nothing = FetchRequest { max_wait_ms: 60_000, ..FetchRequest::default() };
        assert_eq!(client.call(&nothing, version).body().responses, [], "nothing to wait for");

        let replica = if version <= 14 {
            FetchRequest { replica_id: 2, ..fetch("known", id, 0, 0) }
        } else {
            let replica_state = ReplicaState { replica_id: 2, replica_epoch: 1 };
            FetchRequest { replica_state, ..fetch("known", id, 0, 0) }
        };
        let reply = client.call(&replica, version);
        let answer = reply.body();
        assert_eq!(answer.responses, [], "a replica gets nothing");
        let has_code = version >= 7;
        let expected = if has_code { ErrorCode::InvalidRequest } else { ErrorCode::None };
        assert_code(answer.error_code, expected, version, "replica id");
    }
}

fn list(name: &str, partitions: &[(i32, i64)]) -> ListOffsetsRequest<'static> {
    let partitions = partitions.iter().map(|&(partition_index, timestamp)| ListOffsetsPartition {
        partition_index,
        timestamp,
        ..ListOffsetsPartition::default()
    });
    ListOffsetsRequest {
        replica_id: -1,
        topics: vec![ListOffsetsTopic {
            name: name.to_owned().into(),
            partitions: partitions.collect(),
        }],
        ..ListOffsetsRequest::default()
    }
}

#[test]
fn list_offsets_answers_every_timestamp_at_every_version() {
    let (_server, mut client, _) = server();
    for version in versions::<ListOffsetsRequest<'_>>() {
        let from = |first: i16, found: (i64, i64)| {
            if version >= first { Ok(found) } else { Err(ErrorCode::UnsupportedVersion) }
        };
        let cases = [
            (-1, Ok((3, -1))),
            (-2, Ok((0, -1))),
            (-3, from(7, (0, 1_000))),
            (-4, from(8, (0, -1))),
            (-5, from(9, (-1, -1))),
            (-6, from(11, (-1, -1))),
            (-7, Err(ErrorCode::UnsupportedVersion)),
            (i64::MIN, Err(ErrorCode::UnsupportedVersion)),
            (0, Ok((0, 1_000))),
            (1_000, Ok((0, 1_000))),
            (1_001, Ok((-1, -1))),
            (i64::MAX, Ok((-1, -1))),
        ];
        for (timestamp, expected) in cases {
            let reply = client.call(&list("known", &[(0, timestamp)]), version);
            let answer = reply.body().topics[0].partitions[0].clone();
            let shape = format!("timestamp {timestamp}");
            let (code, found) = match expected {
                Ok(found) => (ErrorCode::None, found),
                Err(code) => (code, (-1, -1)),
            };
            assert_code(answer.error_code, code, version, &shape);
            assert_eq!((answer.offset, answer.timestamp), found, "v{version} {shape}");
            let is_epoch_told = version >= 4 && found.0 >= 0;
            assert_eq!(answer.leader_epoch >= 0, is_epoch_told, "v{version} {shape}");
        }
        for (name, partition) in [("unknown", 0), ("known", 2), ("", 0)] {
            let reply = client.call(&list(name, &[(partition, -1)]), version);
            let code = reply.body().topics[0].partitions[0].error_code;
            assert_code(code, ErrorCode::UnknownTopicOrPartition, version, name);
        }
        let reply = client.call(&list("known", &[(0, -1), (1, -1), (0, -2)]), version);
        let codes: Vec<_> =
            reply.body().topics[0].partitions.iter().map(|one| one.error_code).collect();
        assert_eq!(codes[1..], [0, ErrorCode::InvalidRequest.code()], "a partition asked twice");
        let replica = ListOffsetsRequest { replica_id: 1, ..list("known", &[(0, -1)]) };
        let code = client.call(&replica, version).body().topics[0].partitions[0].error_code;
        assert_code(code, ErrorCode::InvalidRequest, version, "replica id");
        let nothing = ListOffsetsRequest { replica_id: -1, ..ListOffsetsRequest::default() };
        assert_eq!(client.call(&nothing, version).body().topics, []);
    }
}

fn named(name: &str) -> MetadataRequestTopic<'_> {
    MetadataRequestTopic { name: Some(Cow::Borrowed(name)), topic_id: Uuid::ZERO }
}

fn by_id(topic_id: TopicId) -> MetadataRequestTopic<'static> {
    MetadataRequestTopic { name: None, topic_id }
}

#[test]
fn metadata_answers_every_shape_at_every_version() {
    let (server, mut client, id) = server();
    let advertised = i32::from(server.kafka().port());
    for version in versions::<MetadataRequest<'_>>() {
        let ask = |topics: Option<Vec<MetadataRequestTopic<'static>>>| MetadataRequest {
            topics,
            allow_auto_topic_creation: version < 4,
            ..MetadataRequest::default()
        };
        let names = |client: &mut Client, request: &MetadataRequest<'_>| -> Vec<String> {
            let reply = client.call(request, version);
            let answer = reply.body();
            assert_eq!(answer.brokers.len(), 1);
            let broker = &answer.brokers[0];
            assert_eq!((broker.node_id, &*broker.host, broker.port), (1, "localhost", advertised));
            assert_eq!(answer.cluster_id.is_some(), version >= 2);
            assert_eq!(answer.controller_id, if version >= 1 { 1 } else { -1 });
            assert_code(answer.error_code, ErrorCode::None, version, "top level");
            answer.topics.iter().map(|topic| topic.name.clone().unwrap().into_owned()).collect()
        };
        let all = if version == 0 { Some(Vec::new()) } else { None };
        assert!(names(&mut client, &ask(all)).contains(&"known".to_owned()), "v{version}");
        if version > 0 {
            assert_eq!(names(&mut client, &ask(Some(Vec::new()))), Vec::<String>::new());
        }
        let reply = client.call(&ask(Some(vec![named("known")])), version);
        let answer = reply.body();
        let topic = &answer.topics[0];
        assert_code(topic.error_code, ErrorCode::None, version, "known");
        assert_eq!(topic.topic_id, if version >= 10 { id } else { Uuid::ZERO });
        let partitions: Vec<_> =
            topic.partitions.iter().map(|one| (one.partition_index, one.leader_id)).collect();
        assert_eq!(partitions, [(0, 1), (1, 1)]);
        for partition in &topic.partitions {
            assert_eq!(
                (&partition.replica_nodes[..], &partition.isr_nodes[..]),
                (&[1][..], &[1][..])
            );
            assert_eq!(partition.leader_epoch >= 0, version >= 7, "v{version}");
            assert!(partition.offline_replicas.is_empty());
        }
        assert_eq!(topic.topic_authorized_operations, OPERATIONS_OMITTED);

        for bad in ["", ".", "..", "a b", "a/b", &"x".repeat(250)] {
            let request = MetadataRequest {
                topics: Some(vec![named(bad)]),
                allow_auto_topic_creation: version < 4,
                ..MetadataRequest::default()
            };
            let code = client.call(&request, version).body().topics[0].error_code;
            assert_code(code, ErrorCode::InvalidTopicException, version, bad);
        }
        let created = format!("made-by-{version}");
        let request = MetadataRequest {
            topics: Some(vec![named(&created)]),
            allow_auto_topic_creation: true,
            ..MetadataRequest::default()
        };
        if version >= 4 {
            let refusing = MetadataRequest { allow_auto_topic_creation: false, ..request.clone() };
            let code = client.call(&refusing, version).body().topics[0].error_code;
            assert_code(code, ErrorCode::UnknownTopicOrPartition, version, "not to be created");
            assert_eq!(topic_id(&mut client, &created), None, "asking creates nothing");
        }
        let code = client.call(&request, version).body().topics[0].error_code;
        assert_code(code, ErrorCode::None, version, "created on demand");
        assert!(topic_id(&mut client, &created).is_some());
    }
}

#[test]
fn metadata_by_id_and_authorized_operations_depend_on_the_version() {
    let (_server, mut client, id) = server();
    for version in 10..=13 {
        let ask = |topic| MetadataRequest {
            topics: Some(vec![topic]),
            allow_auto_topic_creation: version < 4,
            ..MetadataRequest::default()
        };
        // Ids are there from version 10 on and can be asked for from 12 on.
        let is_asked = version >= 12;
        for (topic, expected) in
            [(by_id(id), ErrorCode::None), (by_id(UNKNOWN_ID), ErrorCode::UnknownTopicId)]
        {
            let reply = client.call(&ask(topic), version);
            let answer = &reply.body().topics[0];
            let expected = if is_asked { expected } else { ErrorCode::InvalidRequest };
            assert_code(answer.error_code, expected, version, "by id");
            if expected == ErrorCode::None {
                assert_eq!(answer.name.as_deref(), Some("known"));
            }
        }
    }
    for version in 8..=13 {
        let request = MetadataRequest {
            topics: Some(vec![named("known")]),
            include_topic_authorized_operations: true,
            include_cluster_authorized_operations: version <= 10,
            ..MetadataRequest::default()
        };
        let reply = client.call(&request, version);
        let answer = reply.body();
        // AclOperation codes 3-8, 10, 11 for a topic, 5 and 7-12 for the cluster.
        assert_eq!(answer.topics[0].topic_authorized_operations, 0b1101_1111_1000);
        let cluster = if version <= 10 { 0b1_1111_1010_0000 } else { OPERATIONS_OMITTED };
        assert_eq!(answer.cluster_authorized_operations, cluster, "v{version}");
    }
}

fn creatable(name: &str) -> CreatableTopic<'_> {
    CreatableTopic {
        name: Cow::Borrowed(name),
        num_partitions: -1,
        replication_factor: -1,
        ..CreatableTopic::default()
    }
}

fn create<'a>(topics: Vec<CreatableTopic<'a>>) -> CreateTopicsRequest<'a> {
    CreateTopicsRequest { topics, timeout_ms: 10_000, validate_only: false }
}

#[test]
fn create_topics_answers_every_shape_at_every_version() {
    let (_server, mut client, _) = server();
    let assignment = |partition_index, broker: i32| CreatableReplicaAssignment {
        partition_index,
        broker_ids: vec![broker],
    };
    for version in versions::<CreateTopicsRequest<'_>>() {
        let name = format!("topic-{version}");
        let config = |name: &'static str, value: Option<&'static str>| CreatableTopicConfig {
            name: name.into(),
            value: value.map(Cow::Borrowed),
        };
        let refused: Vec<(CreatableTopic<'_>, ErrorCode)> = vec![
            (creatable("known"), ErrorCode::TopicAlreadyExists),
            (creatable("no/slash"), ErrorCode::InvalidTopicException),
            (creatable(""), ErrorCode::InvalidTopicException),
            (CreatableTopic { num_partitions: 0, ..creatable("p0") }, ErrorCode::InvalidPartitions),
            (
                CreatableTopic { num_partitions: -2, ..creatable("p2") },
                ErrorCode::InvalidPartitions,
            ),
            (
                CreatableTopic { replication_factor: 2, ..creatable("r2") },
                ErrorCode::InvalidReplicationFactor,
            ),
            (
                CreatableTopic { replication_factor: 0, ..creatable("r0") },
                ErrorCode::InvalidReplicationFactor,
            ),
            (
                CreatableTopic { assignments: vec![assignment(0, 9)], ..creatable("a9") },
                ErrorCode::InvalidReplicaAssignment,
            ),
            (
                CreatableTopic { assignments: vec![assignment(1, 1)], ..creatable("gap") },
                ErrorCode::InvalidReplicaAssignment,
            ),
            (
                CreatableTopic {
                    num_partitions: 3,
                    assignments: vec![assignment(0, 1)],
                    ..creatable("both")
                },
                ErrorCode::InvalidRequest,
            ),
            (
                CreatableTopic { configs: vec![config("no.such", Some("1"))], ..creatable("c1") },
                ErrorCode::InvalidConfig,
            ),
            (
                CreatableTopic {
                    configs: vec![config("segment.bytes", Some("1048575"))],
                    ..creatable("c2")
                },
                ErrorCode::InvalidConfig,
            ),
            (creatable("twice"), ErrorCode::InvalidRequest),
            (creatable("twice"), ErrorCode::InvalidRequest),
        ];
        let (topics, expected): (Vec<_>, Vec<_>) = refused.into_iter().unzip();
        let good = CreatableTopic {
            num_partitions: 3,
            configs: vec![config("retention.ms", Some("12345"))],
            ..creatable(&name)
        };
        let assigned_name = format!("assigned-{version}");
        let assigned = CreatableTopic {
            assignments: vec![assignment(0, 1), assignment(1, 1)],
            ..creatable(&assigned_name)
        };
        let all = [topics, vec![good.clone(), assigned]].concat();
        for validate_only in [true, false] {
            let request = CreateTopicsRequest { validate_only, ..create(all.clone()) };
            let reply = client.call(&request, version);
            let answer = reply.body();
            assert_eq!(answer.topics.len(), all.len());
            let (last, rest) = answer.topics.split_at(expected.len());
            for (result, expected) in last.iter().zip(&expected) {
                assert_code(result.error_code, *expected, version, &result.name);
                assert!(result.error_message.is_some(), "{}", result.name);
            }
            for (result, partitions) in rest.iter().zip([3, 2]) {
                assert_code(result.error_code, ErrorCode::None, version, &result.name);
                assert_eq!(result.topic_id.is_zero(), version < 7 || validate_only);
                if version >= 5 {
                    assert_eq!((result.num_partitions, result.replication_factor), (partitions, 1));
                    let configs = result.configs.as_ref().expect("configs are told");
                    let value = configs.iter().find(|config| config.name == "retention.ms");
                    let value = value.and_then(|config| config.value.as_deref());
                    let expected = if partitions == 3 { "12345" } else { "604800000" };
                    assert_eq!(value, Some(expected));
                }
            }
            assert_eq!(topic_id(&mut client, &name).is_some(), !validate_only);
        }
        assert_eq!(client.call(&create(Vec::new()), version).body().topics, []);
    }
    // '.' and '_' are the same to Kafka's metrics, so names that differ only there collide.
    let reply = client.call(&create(vec![creatable("a.b")]), 7);
    assert_eq!(reply.body().topics[0].error_code, 0);
    let reply = client.call(&create(vec![creatable("a_b")]), 7);
    assert_code(reply.body().topics[0].error_code, ErrorCode::InvalidTopicException, 7, "a_b");
    // Also when they come together, or before a name that has both.
    let together = ["c.d_e", "c_d.e", "c_d_e", "c.d.e"];
    let reply = client.call(&create(together.map(creatable).to_vec()), 7);
    let codes: Vec<i16> = reply.body().topics.iter().map(|topic| topic.error_code).collect();
    let refused = ErrorCode::InvalidTopicException.code();
    assert_eq!(codes, [0, refused, refused, refused]);
    assert!(topic_id(&mut client, "c.d_e").is_some() && topic_id(&mut client, "c_d_e").is_none());
}

#[test]
fn delete_topics_answers_every_shape_at_every_version() {
    let (_server, mut client, _) = server();
    for version in versions::<DeleteTopicsRequest<'_>>() {
        let first = NewTopic { name: "first", partitions: 2, configs: &[] };
        let second = NewTopic { name: "second", ..first };
        let (_, second_id) = (create_topic(&mut client, first), create_topic(&mut client, second));
        let state = |name: Option<&'static str>, topic_id| DeleteTopicState {
            name: name.map(Cow::Borrowed),
            topic_id,
        };
        let cases: Vec<(DeleteTopicState<'_>, ErrorCode)> = if version >= 6 {
            vec![
                (state(Some("first"), Uuid::ZERO), ErrorCode::None),
                (state(None, second_id), ErrorCode::None),
                (state(Some("unknown"), Uuid::ZERO), ErrorCode::UnknownTopicOrPartition),
                (state(None, UNKNOWN_ID), ErrorCode::UnknownTopicId),
                (state(None, Uuid::ZERO), ErrorCode::InvalidRequest),
                (state(Some("known"), UNKNOWN_ID), ErrorCode::InvalidRequest),
            ]
        } else {
            vec![
                (state(Some("first"), Uuid::ZERO), ErrorCode::None),
                (state(Some("second"), Uuid::ZERO), ErrorCode::None),
                (state(Some("unknown"), Uuid::ZERO), ErrorCode::UnknownTopicOrPartition),
            ]
        };
        let (topics, expected): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
        let names = topics.iter().filter_map(|topic| topic.name.clone()).collect();
        let request = DeleteTopicsRequest {
            topics: if version >= 6 { topics } else { Vec::new() },
            topic_names: names,
            timeout_ms: 10_000,
        };
        let reply = client.call(&request, version);
        let answer = reply.body();
        assert_eq!(answer.responses.len(), expected.len());
        for (result, expected) in answer.responses.iter().zip(expected) {
            assert_code(result.error_code, expected, version, &format!("{:?}", result.name));
        }
        assert_eq!(topic_id(&mut client, "first"), None, "it is gone when the answer comes");
        assert_eq!(topic_id(&mut client, "second"), None);
        assert!(topic_id(&mut client, "known").is_some());
        let nothing = DeleteTopicsRequest { timeout_ms: 1, ..DeleteTopicsRequest::default() };
        assert_eq!(client.call(&nothing, version).body().responses, []);
    }
}

#[test]
fn init_producer_id_grants_distinct_ids_at_every_version() {
    let (_server, mut client, _) = server();
    let mut granted = BTreeSet::new();
    for version in versions::<InitProducerIdRequest<'_>>() {
        for _ in 0..300 {
            let reply = client.call(&InitProducerIdRequest::default(), version);
            let answer = reply.body();
            assert_code(answer.error_code, ErrorCode::None, version, "no transactional id");
            assert_eq!(answer.producer_epoch, 0);
            assert!(granted.insert(answer.producer_id), "{} twice", answer.producer_id);
        }
        let refused = |client: &mut Client, request: InitProducerIdRequest<'_>, shape| {
            let answer = client.call(&request, version).body();
            assert_code(answer.error_code, ErrorCode::InvalidRequest, version, shape);
            assert_eq!((answer.producer_id, answer.producer_epoch), (-1, -1));
        };
        let transactional = InitProducerIdRequest {
            transactional_id: Some("t".into()),
            transaction_timeout_ms: 60_000,
            ..InitProducerIdRequest::default()
        };
        refused(&mut client, transactional, "transactional id");
        if version >= 3 {
            let half = InitProducerIdRequest { producer_id: 7, ..Default::default() };
            refused(&mut client, half, "id without epoch");
        }
    }
    assert!(granted.iter().all(|id| *id >= 0));
}

#[test]
fn describe_configs_answers_every_shape_at_every_version() {
    let (_server, mut client, _) = server();
    let configs = &[("retention.ms", "77777")];
    create_topic(&mut client, NewTopic { name: "configured", partitions: 1, configs });
    let resource = |resource_type, name: &'static str, keys: Option<&[&'static str]>| {
        let keys = keys.map(|keys| keys.iter().map(|key| Cow::Borrowed(*key)).collect());
        let resource_name = name.into();
        DescribeConfigsResource { resource_type, resource_name, configuration_keys: keys }
    };
    let (topic, broker) = (2, 4);
    for version in versions::<DescribeConfigsRequest<'_>>() {
        for is_asked in [false, true] {
            let request = DescribeConfigsRequest {
                resources: vec![
                    resource(topic, "configured", None),
                    resource(topic, "configured", Some(&[])),
                    resource(topic, "configured", Some(&["retention.ms", "no.such"])),
                    resource(topic, "unknown", None),
                    resource(broker, "1", None),
                    resource(broker, "", None),
                    resource(broker, "1", Some(&["default.replication.factor"])),
                    resource(broker, "2", None),
                    resource(8, "1", None),
                ],
                include_synonyms: is_asked,
                include_documentation: is_asked && version >= 3,
            };
            let reply = client.call(&request, version);
            let answer = reply.body();
            let codes: Vec<_> = answer.results.iter().map(|result| result.error_code).collect();
            let unknown = ErrorCode::UnknownTopicOrPartition.code();
            let invalid = ErrorCode::InvalidRequest.code();
            assert_eq!(codes, [0, 0, 0, unknown, 0, 0, 0, invalid, invalid], "v{version}");
            let names = |index: usize| -> Vec<&str> {
                answer.results[index].configs.iter().map(|config| &*config.name).collect()
            };
            assert!(names(0).len() > 10, "{:?}", names(0));
            assert_eq!(names(1), names(0), "no keys mean all keys, as in Kafka's ConfigHelper");
            assert_eq!(names(2), ["retention.ms"]);
            assert!(names(4).contains(&"advertised.listeners"), "{:?}", names(4));
            assert_eq!(names(6), ["default.replication.factor"]);
            for result in &answer.results {
                for config in &result.configs {
                    assert!(config.value.is_some(), "{}", config.name);
                    let has_doc = config.documentation.is_some();
                    assert_eq!(has_doc, is_asked && version >= 3, "{}", config.name);
                    assert_eq!(config.config_type > 0, version >= 3, "{}", config.name);
                    assert!(is_asked || config.synonyms.is_empty(), "{}", config.name);
                }
            }
            let retention = &answer.results[2].configs[0];
            assert_eq!(retention.value.as_deref(), Some("77777"));
            assert_eq!(retention.config_source, 1, "set on the topic");
            let sources: Vec<_> = retention.synonyms.iter().map(|one| one.source).collect();
            assert_eq!(sources, if is_asked { vec![1, 5] } else { vec![] }, "topic, then default");
        }
        let nothing = DescribeConfigsRequest::default();
        assert_eq!(client.call(&nothing, version).body().results, []);
    }
}

#[test]
fn describe_cluster_answers_every_shape_at_every_version() {
    let (server, mut client, _) = server();
    for version in versions::<DescribeClusterRequest>() {
        for wants_operations in [false, true] {
            let request = DescribeClusterRequest {
                include_cluster_authorized_operations: wants_operations,
                ..DescribeClusterRequest::default()
            };
            let reply = client.call(&request, version);
            let answer = reply.body();
            assert_code(answer.error_code, ErrorCode::None, version, "brokers");
            assert_eq!((answer.controller_id, answer.endpoint_type), (1, 1));
            let broker = &answer.brokers[0];
            let port = i32::from(server.kafka().port());
            assert_eq!((broker.broker_id, &*broker.host, broker.port), (1, "localhost", port));
            let expected = if wants_operations { 0b1_1111_1010_0000 } else { OPERATIONS_OMITTED };
            assert_eq!(answer.cluster_authorized_operations, expected);
            let reply = client.call(&MetadataRequest::default(), 9);
            assert_eq!(reply.body().cluster_id.as_deref(), Some(&*answer.cluster_id));
        }
        // `AuthHelper#computeDescribeClusterResponse`.
        let refused =
            [(2, ErrorCode::MismatchedEndpointType), (9, ErrorCode::UnsupportedEndpointType)];
        for (endpoint_type, expected) in refused.into_iter().filter(|_| version >= 1) {
            let request = DescribeClusterRequest { endpoint_type, ..Default::default() };
            let reply = client.call(&request, version);
            assert_code(reply.body().error_code, expected, version, "endpoint type");
            assert_eq!(reply.body().brokers, []);
        }
    }
}
