//! The life of a topic: deleted under load, created again under its name at once, and what of it
//! a restart keeps.

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use chronik_common::{ErrorCode, TopicId, Uuid};
use chronik_protocol::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use chronik_protocol::fetch::{FetchPartition, FetchRequest, FetchTopic};
use chronik_protocol::produce::ProduceRequest;
use chronik_record::Codec;
use chronik_testkit::{
    Client, Consumer, NewTopic, Reply, TempDir, TestServer, WAIT_MAX, batch_of, create_topic,
    decode_batches, list_offset, produce_request, test_server, topic_configs, topic_id,
};

/// The newest version that names topics, and one by id.
const NAMED: i16 = 12;
const BY_ID: i16 = 13;

const VICTIM: &str = "victim";
const PARTITIONS: i32 = 8;
/// Times the topic is deleted.
const ROUNDS: usize = 20;

/// What the threads of the load share.
#[derive(Default)]
struct Load {
    /// The topic's current id; none at the end.
    id: Mutex<Option<TopicId>>,
    changed: Condvar,
    /// Batches acknowledged by the current topic.
    acked: AtomicU64,
    /// Answers that the topic is unknown.
    refused: AtomicU64,
}

impl Load {
    fn lock_id(&self) -> MutexGuard<'_, Option<TopicId>> {
        self.id.lock().expect("no holder of the id panics")
    }

    fn set_id(&self, id: Option<TopicId>) {
        let mut current = self.lock_id();
        *current = id;
        self.acked.store(0, Ordering::Relaxed);
        self.changed.notify_all();
    }

    /// The topic's id, once it is another than `known`; none at the end.
    fn id_after(&self, known: Option<TopicId>) -> Option<TopicId> {
        let is_known = |id: &mut Option<TopicId>| id.is_some() && *id == known;
        let id = self.changed.wait_while(self.lock_id(), is_known);
        *id.expect("no holder of the id panics")
    }

    /// Counts an answer, which may only be success or "there is no such topic"; true if it was
    /// success.
    fn note(&self, code: i16) -> bool {
        let code = ErrorCode::try_from(code).expect("a code of Kafka's table");
        let is_success = code == ErrorCode::None;
        let counter = if is_success { &self.acked } else { &self.refused };
        counter.fetch_add(1, Ordering::Relaxed);
        let unknown = [ErrorCode::UnknownTopicOrPartition, ErrorCode::UnknownTopicId];
        assert!(is_success || unknown.contains(&code), "a deleted topic is unknown, not {code:?}");
        is_success
    }

    /// Runs `step` with the topic's id again and again, until it says that the topic is unknown;
    /// then with the next one.
    fn run(&self, mut step: impl FnMut(TopicId) -> bool) {
        let mut current = None;
        while let Some(id) = self.id_after(current) {
            while step(id) && self.id_after(None) == Some(id) {}
            current = Some(id);
        }
    }

    /// Produces to the topic by its id; every record says which topic it is meant for. Large
    /// batches go past the journal. Several are on their way at every moment.
    fn produce_by_id(&self, mut client: Client, size: usize) {
        self.run(|id| {
            let value = format!("{id} {}", "x".repeat(size));
            let batch = batch_of(Codec::None, None, -1, &[value]);
            for partition in 0..PARTITIONS {
                let request = produce_request("", id, partition, -1, &batch);
                client.send(&request, BY_ID).expect("the server reads");
            }
            let mut is_known = true;
            for _ in 0..PARTITIONS {
                let reply = client.receive(BY_ID).expect("the server answers");
                is_known &= self.note(reply_code(&reply));
            }
            is_known
        });
    }

    fn produce_by_name(&self, mut client: Client) {
        let batch = batch_of(Codec::None, None, -1, &["by name"]);
        self.run(|_| {
            let request = produce_request(VICTIM, Uuid::ZERO, 0, 1, &batch);
            let reply = client.call(&request, NAMED);
            self.note(reply_code(&reply))
        });
    }

    /// Reads the topic by its id from its start, again and again.
    fn consume(&self, mut client: Client, partition: i32) {
        self.run(|id| {
            let (code, values) = read(&mut client, id, partition, 10);
            assert_own(&values, id);
            self.note(code)
        });
    }
}

/// Ends the load when its test does, however it does.
struct Stop<'a>(&'a Load);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.set_id(None);
    }
}

fn reply_code(reply: &Reply<ProduceRequest<'_>>) -> i16 {
    reply.body().responses[0].partition_responses[0].error_code
}

/// Error code and values of a fetch from offset 0.
fn read(client: &mut Client, id: TopicId, partition: i32, wait_ms: i32) -> (i16, Vec<String>) {
    let partitions = vec![FetchPartition {
        partition,
        partition_max_bytes: 1 << 20,
        ..FetchPartition::default()
    }];
    let request = FetchRequest {
        max_wait_ms: wait_ms,
        min_bytes: 1 << 20,
        topics: vec![FetchTopic { topic_id: id, partitions, ..FetchTopic::default() }],
        ..FetchRequest::default()
    };
    let reply = client.call(&request, BY_ID);
    let answer = reply.body();
    let data = &answer.responses[0].partitions[0];
    let bytes = data.records.as_ref().expect("records are never null").contiguous();
    let records = decode_batches(&bytes).into_iter().flat_map(|(_, records)| records);
    let value = |value: Option<Vec<u8>>| String::from_utf8(value.unwrap_or_default());
    (data.error_code, records.map(|one| value(one.value).expect("values are text")).collect())
}

/// Every record was meant for the topic of this id, or for whatever has its name.
fn assert_own(values: &[String], id: TopicId) {
    let id = id.to_string();
    let foreign = values.iter().find(|value| !value.starts_with(&id) && *value != "by name");
    assert_eq!(foreign, None, "a record of an earlier topic in {id}");
}

fn delete(client: &mut Client, id: TopicId) {
    let topic = DeleteTopicState { name: None, topic_id: id };
    let request = DeleteTopicsRequest {
        topics: vec![topic],
        timeout_ms: 30_000,
        ..DeleteTopicsRequest::default()
    };
    assert_eq!(client.call(&request, 6).body().responses[0].error_code, 0);
}

fn wait_until(what: &str, is_true: impl Fn() -> bool) {
    let deadline = Instant::now() + WAIT_MAX;
    while !is_true() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

/// A server whose worker is never idle, on a disk on which batches wait for the journal.
fn busy_server(data: &Path) -> TestServer {
    assert_eq!(test_server!().data_dir(data).start().terminate().code(), Some(0));
    test_server!()
        .on_slow_disk(data, Duration::from_millis(5))
        .set("wal.write_behind_ms=1")
        .set("wal.checkpoint_interval_ms=100")
        .start()
}

#[test]
fn a_topic_deleted_and_created_again_under_load_ends_nothing_and_keeps_nothing() {
    let directory = TempDir::new();
    let mut server = busy_server(&directory.path().join("data"));
    let mut client = server.connect();
    let configs: &[_] = &[("segment.bytes", "1048576")];
    let victim = NewTopic { name: VICTIM, partitions: PARTITIONS, configs };
    create_topic(&mut client, NewTopic { name: "other", partitions: 1, configs });
    let load = Load::default();
    let mut id = create_topic(&mut client, victim);
    let mut ids = HashSet::from([id]);

    let others = std::thread::scope(|scope| {
        let load = &load;
        let stop = Stop(load);
        load.set_id(Some(id));
        let connect = || server.connect();
        for size in [100, 20_000, 300_000, 300_000, 300_000] {
            let client = connect();
            scope.spawn(move || load.produce_by_id(client, size));
        }
        let named = connect();
        scope.spawn(move || load.produce_by_name(named));
        for partition in [0, 1] {
            let client = connect();
            scope.spawn(move || load.consume(client, partition));
        }
        let mut bystander = connect();
        let bystander = scope.spawn(move || {
            let batch = batch_of(Codec::None, None, -1, &["of another topic"]);
            let request = produce_request("other", Uuid::ZERO, 0, -1, &batch);
            let mut sent = 0;
            while load.id_after(None).is_some() {
                let reply = bystander.call(&request, NAMED);
                assert_eq!(reply_code(&reply), 0, "another topic is not concerned");
                sent += 1;
            }
            sent
        });
        for round in 0..=ROUNDS {
            let goes_on = || load.acked.load(Ordering::Relaxed) >= 20;
            wait_until("the load goes on", goes_on);
            if round < ROUNDS {
                delete(&mut client, id);
                id = create_topic(&mut client, victim);
                assert!(ids.insert(id), "{id} was used before");
                load.set_id(Some(id));
            }
        }
        drop(stop);
        bystander.join().expect("another topic is not concerned")
    });
    let refused = load.refused.load(Ordering::Relaxed);
    println!("{ROUNDS} deletions, {refused} answers that the topic is unknown, {others} others");
    assert!(refused > 0, "the deletions came under load");

    let check = |server: &TestServer| {
        let mut client = server.connect();
        assert_eq!(topic_id(&mut client, VICTIM), Some(id));
        for partition in 0..PARTITIONS {
            let (code, values) = read(&mut client, id, partition, 0);
            assert_eq!(code, 0);
            assert_own(&values, id);
        }
        for gone in ids.iter().filter(|other| **other != id) {
            let (code, values) = read(&mut client, *gone, 0, 0);
            assert_eq!((code, values.len()), (ErrorCode::UnknownTopicId.code(), 0));
        }
        let mut consumer = Consumer::new(server.address(), "other", 0, 0);
        consumer.read_to(others);
        assert_eq!(list_offset(&mut client, 7, "other", 0, -1).offset, others);
    };
    check(&server);
    server.kill_9();
    server.restart(None);
    check(&server);
    assert_eq!(server.terminate().code(), Some(0));
}

fn segment_files(server: &TestServer, topic: &str) -> usize {
    let directory = server.data_dir().join(format!("wal/partitions/{topic}-0"));
    let entries = directory.read_dir().expect("a partition has its directory");
    let names = entries.map(|entry| entry.expect("it can be listed").file_name());
    names.filter(|name| name.to_string_lossy().starts_with("segment_")).count()
}

#[test]
fn the_settings_of_a_topic_rule_its_log_after_a_kill_and_after_a_stop() {
    let mut server = test_server!().set("wal.write_behind_ms=1").start();
    let mut client = server.connect();
    let small: &[_] = &[("segment.bytes", "1048576"), ("retention.ms", "77000")];
    let os: &[_] = &[("chronik.durability", "os"), ("max.message.bytes", "500000")];
    create_topic(&mut client, NewTopic { name: "small", partitions: 1, configs: small });
    create_topic(&mut client, NewTopic { name: "os", partitions: 1, configs: os });
    let described = ["small", "os"].map(|name| topic_configs(&mut client, name));
    let journaled =
        |server: &TestServer| server.metrics().value("chronik_wal_frames_total{lane=\"data\"}");
    let half = batch_of(Codec::None, None, -1, &[vec![0x5a_u8; 400_000]]);
    for round in 1..=3 {
        let segments = segment_files(&server, "small");
        for topic in ["small", "os"] {
            let before = journaled(&server);
            for _ in 0..6 {
                let request = produce_request(topic, Uuid::ZERO, 0, -1, &half);
                assert_eq!(reply_code(&client.call(&request, NAMED)), 0);
            }
            let journaled = journaled(&server) - before;
            assert_eq!(journaled, if topic == "os" { 0.0 } else { 6.0 }, "{topic}, {round}");
        }
        wait_until("two batches fill a segment", || {
            segment_files(&server, "small") >= segments + 2
        });
        let above = batch_of(Codec::None, None, -1, &[vec![0x5a_u8; 500_000]]);
        let reply = client.call(&produce_request("os", Uuid::ZERO, 0, -1, &above), NAMED);
        assert_eq!(reply_code(&reply), ErrorCode::MessageTooLarge.code());
        match round {
            1 => server.kill_9(),
            _ => assert_eq!(server.terminate().code(), Some(0)),
        }
        server.restart(None);
        client = server.connect();
        let found = ["small", "os"].map(|name| topic_configs(&mut client, name));
        assert_eq!(found, described, "{round}");
    }
}
