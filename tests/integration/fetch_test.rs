//! What consumers get: limits, long polls, sessions, epochs, topic ids, and every offset and
//! timestamp of random logs against a plain list.

use std::time::{Duration, Instant};

use chronik_common::{ErrorCode, Rng, SeededRng, TopicId, Uuid};
use chronik_protocol::delete_topics::DeleteTopicsRequest;
use chronik_protocol::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, FetchableTopicResponse,
    ForgottenTopic, PartitionData,
};
use chronik_protocol::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use chronik_protocol::metadata::{MetadataRequest, MetadataRequestTopic};
use chronik_record::{BatchBuilder, Codec};
use chronik_testkit::{
    Client, NewTopic, OwnedRecord, ServerCommand, TempDir, TestServer, batch_of, create_topic,
    decode_batches, list_offset, produce_request, test_server,
};

/// The newest version that names topics, and the newest of all.
const NAMED: i16 = 12;
const BY_ID: i16 = 18;

fn topic<'a>(name: &'a str, topic_id: TopicId, partitions: Vec<FetchPartition>) -> FetchTopic<'a> {
    FetchTopic { topic: name.into(), topic_id, partitions }
}

fn at(partition: i32, fetch_offset: i64) -> FetchPartition {
    FetchPartition {
        partition,
        fetch_offset,
        partition_max_bytes: 1 << 20,
        ..FetchPartition::default()
    }
}

/// A fetch of partitions of topic `t`.
fn fetch(partitions: Vec<FetchPartition>) -> FetchRequest<'static> {
    let topics = vec![topic("t", Uuid::ZERO, partitions)];
    FetchRequest { min_bytes: 1, topics, ..FetchRequest::default() }
}

fn waiting(max_wait_ms: i32, partitions: Vec<FetchPartition>) -> FetchRequest<'static> {
    FetchRequest { max_wait_ms, ..fetch(partitions) }
}

fn server_with_topic(partitions: i32) -> (TestServer, Client, TopicId) {
    let server = test_server!().start();
    let mut client = server.connect();
    let id = create_topic(&mut client, NewTopic { name: "t", partitions, configs: &[] });
    (server, client, id)
}

fn produce(client: &mut Client, topic: &str, partition: i32, batch: &[u8]) -> i64 {
    let request = produce_request(topic, Uuid::ZERO, partition, -1, batch);
    let reply = client.call(&request, NAMED);
    let answer = &reply.body().responses[0].partition_responses[0];
    assert_eq!(answer.error_code, 0, "{answer:?}");
    answer.base_offset
}

fn values(count: usize, size: usize) -> Vec<u8> {
    batch_of(Codec::None, None, -1, &vec!["x".repeat(size); count]).to_vec()
}

fn record_bytes(data: &PartitionData<'_>) -> usize {
    data.records.as_ref().expect("records are never null").len()
}

fn records(data: &PartitionData<'_>) -> Vec<OwnedRecord> {
    let bytes = data.records.as_ref().expect("records are never null").contiguous();
    decode_batches(&bytes).into_iter().flat_map(|(_, records)| records).collect()
}

/// Partition and bytes of records, in the order of the answer.
fn sizes(answer: &FetchResponse<'_>) -> Vec<(i32, usize)> {
    let partitions = answer.responses.iter().flat_map(|topic| &topic.partitions);
    partitions.map(|data| (data.partition_index, record_bytes(data))).collect()
}

#[test]
fn the_first_partition_with_records_gives_a_whole_batch_and_later_ones_respect_limits() {
    let (_server, mut client, _) = server_with_topic(4);
    let batch = values(10, 1_000);
    for partition in [1, 2, 3] {
        for _ in 0..3 {
            produce(&mut client, "t", partition, &batch);
        }
    }
    let size = batch.len();
    let limited = |max_bytes: usize, partition_bytes: usize| {
        let partitions = (0..4).map(|partition| FetchPartition {
            partition_max_bytes: partition_bytes as i32,
            ..at(partition, 0)
        });
        FetchRequest { max_bytes: max_bytes as i32, ..fetch(partitions.collect()) }
    };
    let cases = [
        (1, 1, [0, size, 0, 0]),
        (0, 0, [0, size, 0, 0]),
        (i32::MAX as usize, 1, [0, size, 0, 0]),
        (i32::MAX as usize, size, [0, size, size, size]),
        (i32::MAX as usize, 3 * size - 1, [0, 2 * size, 2 * size, 2 * size]),
        (4 * size, i32::MAX as usize, [0, 3 * size, size, 0]),
        (5 * size - 1, 2 * size, [0, 2 * size, 2 * size, 0]),
        (i32::MAX as usize, i32::MAX as usize, [0, 3 * size, 3 * size, 3 * size]),
    ];
    for (max_bytes, partition_bytes, expected) in cases {
        for version in 4..=NAMED {
            let reply = client.call(&limited(max_bytes, partition_bytes), version);
            let found: Vec<usize> =
                sizes(&reply.body()).into_iter().map(|(_, size)| size).collect();
            assert_eq!(found, expected, "{max_bytes} in all, {partition_bytes} each, v{version}");
        }
    }
}

#[test]
fn the_server_caps_what_one_fetch_may_ask_for() {
    let server = test_server!().set("listener.fetch_bytes_max=100KiB").start();
    let mut client = server.connect();
    create_topic(&mut client, NewTopic { name: "t", partitions: 2, configs: &[] });
    for partition in [0, 1] {
        for _ in 0..10 {
            produce(&mut client, "t", partition, &values(1, 30_000));
        }
        produce(&mut client, "t", partition, &values(1, 200_000));
    }
    let greedy = |offset| {
        let partitions = [0, 1].map(|partition| FetchPartition {
            partition_max_bytes: i32::MAX,
            ..at(partition, offset)
        });
        fetch(partitions.to_vec())
    };
    let reply = client.call(&greedy(0), NAMED);
    let total: usize = sizes(&reply.body()).iter().map(|(_, size)| size).sum();
    assert!((90_000..=100 << 10).contains(&total), "{total} bytes");
    let reply = client.call(&greedy(10), NAMED);
    let total: usize = sizes(&reply.body()).iter().map(|(_, size)| size).sum();
    assert!((200_000..201_000).contains(&total), "one batch above the cap: {total} bytes");
}

#[test]
fn a_long_poll_wakes_for_enough_bytes_and_else_ends_in_time() {
    let (server, mut producer, _) = server_with_topic(2);
    // Consecutive connections are on different shards; so are some consumers and the producer.
    let mut consumers: Vec<Client> = (0..4).map(|_| server.connect()).collect();
    let long = waiting(20_000, vec![at(0, 0), at(1, 0)]);
    for consumer in &mut consumers {
        consumer.send(&long, NAMED).unwrap();
    }
    let started = Instant::now();
    produce(&mut producer, "t", 1, &values(1, 10));
    for consumer in &mut consumers {
        let reply = consumer.receive::<FetchRequest<'_>>(NAMED).unwrap();
        assert_eq!(sizes(&reply.body()).iter().filter(|(_, size)| *size > 0).count(), 1);
    }
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());

    // Enough means enough over all partitions.
    let batch = values(1, 1_000);
    let two = i32::try_from(batch.len() * 2).unwrap();
    let enough = FetchRequest { min_bytes: two, ..waiting(20_000, vec![at(0, 0), at(1, 1)]) };
    for consumer in &mut consumers {
        consumer.send(&enough, NAMED).unwrap();
        consumer.set_timeout(Duration::from_millis(100));
    }
    produce(&mut producer, "t", 0, &batch);
    let early = consumers[0].receive_payload();
    assert!(early.is_err(), "half of the bytes do not wake");
    produce(&mut producer, "t", 1, &batch);
    for consumer in &mut consumers {
        consumer.set_timeout(Duration::from_secs(5));
        let reply = consumer.receive::<FetchRequest<'_>>(NAMED).unwrap();
        let total: usize = sizes(&reply.body()).iter().map(|(_, size)| size).sum();
        assert!(total >= two as usize, "{total}");
    }

    for wait in [0, 1, 300] {
        let started = Instant::now();
        let reply = producer.call(&waiting(wait, vec![at(0, 1)]), NAMED);
        let took = started.elapsed();
        assert_eq!(sizes(&reply.body()), [(0, 0)]);
        // The server counts whole milliseconds, of which the first has begun already.
        let shortest = Duration::from_millis((wait as u64).saturating_sub(1));
        let longest = shortest + Duration::from_secs(4);
        assert!((shortest..longest).contains(&took), "{wait} ms: {took:?}");
    }
}

#[test]
fn a_fetch_that_got_less_than_there_is_does_not_wait_for_more() {
    let (mut server, mut producer, _) = server_with_topic(1);
    let batch = values(1, 100_000);
    for _ in 0..30 {
        produce(&mut producer, "t", 0, &batch);
    }
    // Out of memory, so that the answer is read from a segment, of which one read has an end.
    server.kill_9();
    server.restart(None);
    let started = Instant::now();
    let everything = FetchPartition { partition_max_bytes: 8 << 20, ..at(0, 0) };
    let enough = FetchRequest { min_bytes: 2 << 20, ..waiting(20_000, vec![everything]) };
    let reply = server.connect().call(&enough, NAMED);
    let found = sizes(&reply.body());
    assert!(found[0].1 >= batch.len() && found[0].1 < 2 << 20, "{found:?}");
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

/// Kafka: `DelayedFetch` looks again only when one of its partitions grows.
#[test]
fn a_wait_for_more_bytes_costs_no_processor_time_while_partitions_grow_slowly() {
    let (server, mut producer, _) = server_with_topic(3);
    let batch = values(1, 100);
    produce(&mut producer, "t", 0, &batch);
    let wait = Duration::from_millis(2_000);
    let unreached = FetchRequest { min_bytes: 1 << 20, ..waiting(2_000, vec![at(0, 0), at(1, 0)]) };
    let mut consumers: Vec<Client> = (0..4).map(|_| server.connect()).collect();
    let (before, started) = (server.cpu_time(), Instant::now());
    for consumer in &mut consumers {
        consumer.send(&unreached, NAMED).unwrap();
    }
    for partition in [0, 1, 2] {
        for _ in 0..7 {
            produce(&mut producer, "t", partition, &batch);
        }
    }
    for consumer in &mut consumers {
        let reply = consumer.receive::<FetchRequest<'_>>(NAMED).unwrap();
        let found = sizes(&reply.body());
        assert!(found.len() == 2 && found[0].1 > batch.len(), "what there is by then: {found:?}");
    }
    let (busy, took) = (server.cpu_time() - before, started.elapsed());
    println!("{busy:?} of processor time in {took:?}");
    assert!(took >= wait, "{took:?}");
    assert!(busy < wait / 4, "{busy:?} of processor time in {took:?}");
}

#[test]
fn errors_and_the_end_of_a_topic_end_a_long_poll_at_once() {
    let (server, mut client, id) = server_with_topic(2);
    let started = Instant::now();
    let reply = client.call(&waiting(20_000, vec![at(0, 0), at(1, 5)]), NAMED);
    let codes: Vec<i16> =
        reply.body().responses[0].partitions.iter().map(|data| data.error_code).collect();
    assert_eq!(codes, [0, ErrorCode::OffsetOutOfRange.code()]);

    let mut by_name = server.connect();
    by_name.send(&waiting(20_000, vec![at(0, 0)]), NAMED).unwrap();
    let mut by_id = server.connect();
    let topics = vec![topic("", id, vec![at(0, 0)])];
    by_id.send(&FetchRequest { topics, ..waiting(20_000, Vec::new()) }, BY_ID).unwrap();
    // Both are parked once a later request on each shard is answered.
    for _ in 0..4 {
        server.connect().call(&MetadataRequest::default(), 9);
    }
    delete(&mut client, "t");
    for (consumer, version, expected) in [
        (&mut by_name, NAMED, [ErrorCode::UnknownTopicOrPartition; 2]),
        (&mut by_id, BY_ID, [ErrorCode::UnknownTopicId, ErrorCode::UnknownTopicOrPartition]),
    ] {
        let reply = consumer.receive::<FetchRequest<'_>>(version).unwrap();
        let code = reply.body().responses[0].partitions[0].error_code;
        assert!(expected.iter().any(|one| one.code() == code), "{code}");
    }
    assert!(started.elapsed() < Duration::from_secs(10));
}

fn delete(client: &mut Client, name: &'static str) {
    let request = DeleteTopicsRequest {
        topic_names: vec![name.into()],
        timeout_ms: 10_000,
        ..DeleteTopicsRequest::default()
    };
    assert_eq!(client.call(&request, 4).body().responses[0].error_code, 0);
}

fn leader_epoch(client: &mut Client) -> i32 {
    let topics = vec![MetadataRequestTopic { name: Some("t".into()), topic_id: Uuid::ZERO }];
    let request = MetadataRequest { topics: Some(topics), ..MetadataRequest::default() };
    client.call(&request, 9).body().topics[0].partitions[0].leader_epoch
}

#[test]
fn leader_epochs_never_go_back_and_fence_clients_that_believe_in_others() {
    let (mut server, mut client, id) = server_with_topic(1);
    produce(&mut client, "t", 0, &values(3, 10));
    let first = leader_epoch(&mut client);
    server.kill_9();
    server.restart(None);
    let mut client = server.connect();
    produce(&mut client, "t", 0, &values(3, 10));
    let epoch = leader_epoch(&mut client);
    assert!(epoch >= first && first >= 0, "{first}, then {epoch}");

    let believing = |current, last_fetched| FetchPartition {
        current_leader_epoch: current,
        last_fetched_epoch: last_fetched,
        ..at(0, 1)
    };
    let mut cases = vec![
        (-1, ErrorCode::None),
        (epoch, ErrorCode::None),
        (epoch + 1, ErrorCode::UnknownLeaderEpoch),
        (i32::MAX, ErrorCode::UnknownLeaderEpoch),
    ];
    cases.extend((0..epoch).map(|older| (older, ErrorCode::FencedLeaderEpoch)));
    for (current, expected) in cases {
        for version in 9..=BY_ID {
            let topics = vec![topic("t", id, vec![believing(current, -1)])];
            let request = FetchRequest { topics, ..fetch(Vec::new()) };
            let reply = client.call(&request, version);
            let answer = reply.body();
            let data = &answer.responses[0].partitions[0];
            assert_eq!(data.error_code, expected.code(), "epoch {current}, version {version}");
            assert_eq!(records(data).is_empty(), expected != ErrorCode::None);
            if expected == ErrorCode::FencedLeaderEpoch && version >= 16 {
                let hint = (data.current_leader.leader_id, data.current_leader.leader_epoch);
                assert_eq!(hint, (1, epoch), "KIP-951");
                assert_eq!(answer.node_endpoints.len(), 1);
            }
        }
        let item = ListOffsetsPartition {
            timestamp: -1,
            current_leader_epoch: current,
            ..ListOffsetsPartition::default()
        };
        let topics = vec![ListOffsetsTopic { name: "t".into(), partitions: vec![item] }];
        let request =
            ListOffsetsRequest { replica_id: -1, topics, ..ListOffsetsRequest::default() };
        let code = client.call(&request, 7).body().topics[0].partitions[0].error_code;
        assert_eq!(code, expected.code(), "ListOffsets, epoch {current}");
    }
    // KIP-595: a client whose last epoch this log never had learns where the logs part.
    let reply = client.call(&fetch(vec![believing(-1, epoch + 3)]), NAMED);
    let answer = reply.body();
    let data = &answer.responses[0].partitions[0];
    assert_eq!((data.error_code, record_bytes(data)), (0, 0));
    assert_eq!((data.diverging_epoch.epoch, data.diverging_epoch.end_offset), (epoch, 6));
    let reply = client.call(&fetch(vec![believing(-1, epoch)]), NAMED);
    let answer = reply.body();
    let data = &answer.responses[0].partitions[0];
    assert_eq!(data.diverging_epoch.end_offset, -1, "this client is right");
    assert_eq!(records(data)[0].offset, 0, "the whole batch around offset 1");
    println!("leader epoch {epoch}");
}

fn in_session(id: i32, epoch: i32, request: FetchRequest<'static>) -> FetchRequest<'static> {
    FetchRequest { session_id: id, session_epoch: epoch, ..request }
}

#[test]
fn a_session_names_partitions_once_and_answers_only_news() {
    let (_server, mut client, _) = server_with_topic(3);
    let all = || fetch((0..3).map(|partition| at(partition, 0)).collect());
    let nothing = || fetch(Vec::new());
    let first = client.call(&in_session(0, 0, all()), NAMED);
    let first = first.body();
    let id = first.session_id;
    assert!(id != 0 && first.error_code == 0);
    assert_eq!(sizes(&first), [(0, 0), (1, 0), (2, 0)], "a full answer has every partition");

    let reply = client.call(&in_session(id, 1, nothing()), NAMED);
    assert_eq!((reply.body().session_id, sizes(&reply.body())), (id, vec![]), "no news");
    produce(&mut client, "t", 1, &values(1, 10));
    let reply = client.call(&in_session(id, 2, nothing()), NAMED);
    let found = sizes(&reply.body());
    assert_eq!(found.iter().map(|(partition, _)| *partition).collect::<Vec<_>>(), [1]);

    // A changed offset, and a forgotten partition that has news.
    produce(&mut client, "t", 2, &values(1, 10));
    let forgotten =
        ForgottenTopic { topic: "t".into(), partitions: vec![2], ..ForgottenTopic::default() };
    let change = FetchRequest { forgotten_topics_data: vec![forgotten], ..fetch(vec![at(1, 1)]) };
    let reply = client.call(&in_session(id, 3, change), NAMED);
    assert_eq!(sizes(&reply.body()), [], "partition 1 is read, partition 2 forgotten");
    let reply = client.call(&in_session(id, 4, fetch(vec![at(2, 0)])), NAMED);
    assert_eq!(sizes(&reply.body()).len(), 1, "and taken up again");

    let refused = |client: &mut Client, request: FetchRequest<'_>, version| {
        let reply = client.call(&request, version);
        let answer = reply.body();
        assert_eq!((answer.session_id, answer.responses.len()), (0, 0));
        ErrorCode::try_from(answer.error_code).expect("a code of Kafka's table")
    };
    let wrong = in_session(id, 9, nothing());
    assert_eq!(refused(&mut client, wrong, NAMED), ErrorCode::InvalidFetchSessionEpoch);
    let unknown = in_session(id ^ 1, 5, nothing());
    assert_eq!(refused(&mut client, unknown, NAMED), ErrorCode::FetchSessionIdNotFound);
    let by_id = in_session(id, 5, nothing());
    assert_eq!(refused(&mut client, by_id, BY_ID), ErrorCode::FetchSessionTopicIdError);

    let reply = client.call(&in_session(id, -1, all()), NAMED);
    assert_eq!(reply.body().session_id, 0, "the last request of a session is a full fetch");
    assert_eq!(sizes(&reply.body()).len(), 3);
    let closed = in_session(id, 5, nothing());
    assert_eq!(refused(&mut client, closed, NAMED), ErrorCode::FetchSessionIdNotFound);
}

#[test]
fn a_session_waits_for_news_and_starves_no_partition() {
    let (server, mut client, _) = server_with_topic(3);
    for partition in 0..3 {
        for _ in 0..4 {
            produce(&mut client, "t", partition, &values(1, 1_000));
        }
    }
    let one_byte = |request: FetchRequest<'static>| FetchRequest { max_bytes: 1, ..request };
    let all = fetch((0..3).map(|partition| at(partition, 0)).collect());
    let reply = client.call(&in_session(0, 0, one_byte(all)), NAMED);
    let id = reply.body().session_id;
    let mut offsets = [0_i64; 3];
    let mut served = Vec::new();
    let mut changed = Vec::new();
    let mut take = |answer: &FetchResponse<'_>, changed: &mut Vec<FetchPartition>| {
        for data in answer.responses.iter().flat_map(|topic| &topic.partitions) {
            let found = records(data);
            if !found.is_empty() {
                served.push(data.partition_index);
                offsets[data.partition_index as usize] += found.len() as i64;
                changed.push(at(data.partition_index, offsets[data.partition_index as usize]));
            }
        }
    };
    take(&reply.body(), &mut changed);
    for epoch in 1..12 {
        let request = fetch(std::mem::take(&mut changed));
        let reply = client.call(&in_session(id, epoch, one_byte(request)), NAMED);
        take(&reply.body(), &mut changed);
    }
    assert_eq!(served.len(), 12, "one batch a request");
    for round in served.chunks(3) {
        let mut round = round.to_vec();
        round.sort_unstable();
        assert_eq!(round, [0, 1, 2], "{served:?}");
    }

    let last = FetchRequest { max_wait_ms: 20_000, ..fetch(changed) };
    client.send(&in_session(id, 12, last), NAMED).unwrap();
    produce(&mut server.connect(), "t", 0, &values(1, 10));
    let reply = client.receive::<FetchRequest<'_>>(NAMED).unwrap();
    assert_eq!(sizes(&reply.body()).iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0]);
}

#[test]
fn without_a_free_slot_a_fetch_is_served_outside_any_session() {
    let server = test_server!().set("listener.fetch_sessions_max=2").start();
    let mut client = server.connect();
    create_topic(&mut client, NewTopic { name: "t", partitions: 1, configs: &[] });
    let mut open =
        || client.call(&in_session(0, 0, fetch(vec![at(0, 0)])), NAMED).body().session_id;
    let ids = [open(), open(), open()];
    assert!(ids[0] != 0 && ids[1] != 0 && ids[0] != ids[1], "{ids:?}");
    assert_eq!(ids[2], 0);
    assert_eq!(server.metrics().value("chronik_fetch_sessions"), 2.0);
}

#[test]
fn a_session_of_a_thousand_partitions_answers_only_the_one_with_news() {
    const PARTITIONS: i32 = 100;
    let names: Vec<String> = (0..10).map(|number| format!("t{number}")).collect();
    let directory = TempDir::in_memory();
    let data = directory.path().join("data");
    let small_journal = ["wal.journal_file_bytes=4MiB", "wal.group_bytes_max=1MiB"];
    let server = small_journal.into_iter().fold(test_server!(), ServerCommand::set);
    let server = server.data_dir(data).start();
    let mut client = server.connect();
    for name in &names {
        create_topic(&mut client, NewTopic { name, partitions: PARTITIONS, configs: &[] });
    }
    let of = |name: &'static str, partitions| {
        let topics = vec![topic(name, Uuid::ZERO, partitions)];
        FetchRequest { topics, ..fetch(Vec::new()) }
    };
    let news = |answer: &FetchResponse<'_>| -> Vec<(String, i32, usize)> {
        let of_topic = |topic: &FetchableTopicResponse<'_>| {
            let name = topic.topic.to_string();
            let data = topic.partitions.iter();
            data.map(move |data| (name.clone(), data.partition_index, record_bytes(data)))
                .collect::<Vec<_>>()
        };
        answer.responses.iter().flat_map(of_topic).collect()
    };
    let all = names.iter().map(|name| {
        topic(name, Uuid::ZERO, (0..PARTITIONS).map(|partition| at(partition, 0)).collect())
    });
    let all = FetchRequest { topics: all.collect(), ..fetch(Vec::new()) };
    let reply = client.call(&FetchRequest { session_id: 0, session_epoch: 0, ..all }, NAMED);
    let id = reply.body().session_id;
    assert_eq!(news(&reply.body()).len(), 1_000);
    let batch = values(1, 10);
    for round in 1..=50 {
        produce(&mut client, "t6", 13, &batch);
        let epoch = 2 * round - 1;
        let reply = client.call(&in_session(id, epoch, fetch(Vec::new())), NAMED);
        assert_eq!(news(&reply.body()), [("t6".to_owned(), 13, batch.len())], "round {round}");
        assert!(reply.len() < 500, "{} bytes", reply.len());
        let next = of("t6", vec![at(13, i64::from(round))]);
        let reply = client.call(&in_session(id, epoch + 1, next), NAMED);
        assert_eq!(news(&reply.body()), [], "round {round}");
    }
    // The cold ones were not forgotten.
    produce(&mut client, "t9", 99, &batch);
    let reply = client.call(&in_session(id, 101, fetch(Vec::new())), NAMED);
    assert_eq!(news(&reply.body()), [("t9".to_owned(), 99, batch.len())]);
}

#[test]
fn clients_beyond_the_limit_of_sessions_are_served_as_those_within_it() {
    const SESSIONS_MAX: usize = 2_000;
    let server = test_server!().set("listener.fetch_sessions_max=2000").start();
    let mut client = server.connect();
    create_topic(&mut client, NewTopic { name: "t", partitions: 1, configs: &[] });
    let batch = values(1, 10);
    produce(&mut client, "t", 0, &batch);
    let request = in_session(0, 0, fetch(vec![at(0, 0)]));
    let mut ask = || {
        let started = Instant::now();
        let mut ids = std::collections::HashSet::new();
        for _ in 0..SESSIONS_MAX {
            let reply = client.call(&request, NAMED);
            assert_eq!(sizes(&reply.body()), [(0, batch.len())]);
            ids.insert(reply.body().session_id);
        }
        (ids, started.elapsed())
    };
    let (ids, within) = ask();
    assert!(ids.len() == SESSIONS_MAX && !ids.contains(&0));
    let (ids, beyond) = ask();
    println!("{SESSIONS_MAX} sessions in {within:?}; as many more fetches in {beyond:?}");
    assert!(ids.contains(&0) && ids.len() == 1, "nobody is idle enough to make room");
    assert_eq!(server.metrics().value("chronik_fetch_sessions"), SESSIONS_MAX as f64);
    assert!(beyond < within * 5 + Duration::from_secs(5), "{beyond:?} after {within:?}");
}

#[test]
fn the_id_of_a_deleted_topic_never_reaches_a_new_topic_of_its_name() {
    let (_server, mut client, old_id) = server_with_topic(1);
    produce(&mut client, "t", 0, &values(1, 10));
    let by_id = |id| {
        let topics = vec![topic("", id, vec![at(0, 0)])];
        FetchRequest { topics, ..fetch(Vec::new()) }
    };
    let reply = client.call(&in_session(0, 0, by_id(old_id)), BY_ID);
    let session = reply.body().session_id;
    assert_eq!(records(&reply.body().responses[0].partitions[0]).len(), 1);

    delete(&mut client, "t");
    let topic = NewTopic { name: "t", partitions: 1, configs: &[] };
    let new_id = create_topic(&mut client, topic);
    assert_ne!(new_id, old_id);
    let batch = values(1, 20);
    assert_eq!(produce(&mut client, "t", 0, &batch), 0, "a new log");

    for version in 13..=BY_ID {
        let reply = client.call(&by_id(old_id), version);
        let answer = reply.body();
        let data = &answer.responses[0].partitions[0];
        assert_eq!((data.error_code, record_bytes(data)), (ErrorCode::UnknownTopicId.code(), 0));
        assert_eq!(answer.responses[0].topic_id, old_id);
    }
    let reply = client.call(&in_session(session, 1, fetch(Vec::new())), BY_ID);
    let data = &reply.body().responses[0].partitions[0];
    assert_eq!(data.error_code, ErrorCode::UnknownTopicId.code(), "nor through a session");
    let stale = produce_request("t", old_id, 0, -1, &batch);
    let reply = client.call(&stale, 13);
    let code = reply.body().responses[0].partition_responses[0].error_code;
    assert_eq!(code, ErrorCode::UnknownTopicId.code());
    let reply = client.call(&by_id(new_id), BY_ID);
    assert_eq!(records(&reply.body().responses[0].partitions[0]).len(), 1);
}

/// Fills partition 0 with random batches and returns its records as a plain list. Timestamps
/// jump forth and back.
fn random_log(client: &mut Client, seed: u64, batches: usize) -> Vec<OwnedRecord> {
    let mut rng = SeededRng::new(seed);
    let mut model = Vec::new();
    for _ in 0..batches {
        let codec = Codec::ALL[rng.below(5) as usize];
        let mut builder = BatchBuilder::new(codec);
        for _ in 0..=rng.below(12) {
            let offset = model.len() as i64;
            let timestamp = 1_000_000 + offset * 10 + rng.below(400) as i64 - 200;
            let size = if rng.below(20) == 0 { 20_000 } else { rng.below(200) as usize };
            let value: Vec<u8> = (0..size).map(|at| (at as i64 + offset) as u8).collect();
            let key = offset.to_string().into_bytes();
            builder.append(timestamp, Some(&key), Some(&value), &[]);
            let (key, value) = (Some(key), Some(value));
            model.push(OwnedRecord { offset, timestamp, key, value });
        }
        let first = model.len() - builder.record_count();
        assert_eq!(produce(client, "t", 0, &builder.build()), first as i64);
    }
    model
}

/// Fetches from every offset and looks up every timestamp.
fn compare(client: &mut Client, model: &[OwnedRecord]) {
    for offset in 0..=model.len() as i64 {
        let mut wanted = at(0, offset);
        wanted.partition_max_bytes = if offset % 3 == 0 { 1 } else { 30_000 };
        let reply = client.call(&fetch(vec![wanted]), NAMED);
        let answer = reply.body();
        let data = &answer.responses[0].partitions[0];
        assert_eq!((data.error_code, data.high_watermark), (0, model.len() as i64));
        let found = records(data);
        if offset == model.len() as i64 {
            assert_eq!(found, []);
            continue;
        }
        let first = usize::try_from(found[0].offset).expect("offsets are positive");
        let last = found[found.len() - 1].offset;
        assert!((first as i64..=last).contains(&offset), "{offset} in {first}..={last}");
        assert_eq!(found, model[first..first + found.len()], "from {offset}");
    }
    let times = model.iter().flat_map(|record| [record.timestamp, record.timestamp + 1]);
    let mut times: Vec<i64> = times.chain([0, i64::MAX]).collect();
    times.sort_unstable();
    times.dedup();
    for time in times {
        let expected = model.iter().find(|record| record.timestamp >= time);
        let expected = expected.map_or((-1, -1), |record| (record.offset, record.timestamp));
        let found = list_offset(client, 7, "t", 0, time);
        assert_eq!((found.code, (found.offset, found.timestamp)), (0, expected), "time {time}");
    }
    // The first record that carries the largest timestamp.
    let expected = model.iter().rev().max_by_key(|record| record.timestamp);
    let found = list_offset(client, 7, "t", 0, -3);
    assert_eq!(
        Some((found.offset, found.timestamp)),
        expected.map(|one| (one.offset, one.timestamp))
    );
}

#[test]
fn every_offset_and_timestamp_of_a_random_log_is_found_in_memory_and_on_disk() {
    let mut server = test_server!().set("wal.write_behind_ms=1").start();
    let mut client = server.connect();
    let configs = &[("segment.bytes", "1048576")];
    create_topic(&mut client, NewTopic { name: "t", partitions: 1, configs });
    let model = random_log(&mut client, 5, 130);
    println!("{} records", model.len());
    compare(&mut client, &model);
    server.kill_9();
    server.restart(None);
    compare(&mut server.connect(), &model);
    assert_eq!(server.terminate().code(), Some(0));
    server.restart(None);
    compare(&mut server.connect(), &model);
}

#[test]
fn list_offsets_refuses_a_partition_that_is_asked_twice() {
    let (_server, mut client, _) = server_with_topic(1);
    let item = || ListOffsetsPartition { timestamp: -1, ..ListOffsetsPartition::default() };
    let topics = vec![ListOffsetsTopic { name: "t".into(), partitions: vec![item(), item()] }];
    let request = ListOffsetsRequest { replica_id: -1, topics, ..ListOffsetsRequest::default() };
    let reply = client.call(&request, 7);
    let answer = reply.body();
    assert_eq!(answer.topics[0].partitions[1].error_code, ErrorCode::InvalidRequest.code());
}
