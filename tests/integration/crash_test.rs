//! Kill -9 and clean stops of a loaded server: what was acknowledged stays, once, in order, at
//! its offset (P1, P2, P4, P5, P6, P10 of a cluster of one).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use chronik_common::{Rng, SeededRng, TopicId};
use chronik_record::Codec;
use chronik_testkit::history::{History, Promises, Seen, Sent};
use chronik_testkit::{
    Address, Client, Consumer, NewTopic, Producer, ProducerOptions, TestServer, create_topic,
    list_offset, test_server, topic_configs, topic_id,
};

const KILLS: usize = 20;
const SEED: u64 = 0x00c4_a511;

/// One topic per kind of producer; one producer per partition.
struct Load {
    topic: &'static str,
    configs: &'static [(&'static str, &'static str)],
    options: ProducerOptions,
    records_per_batch: usize,
}

const PARTITIONS: i32 = 2;

/// Small segments, so that rolls, checkpoints and snapshots lie between the kills; batches above
/// and below the size that bypasses the journal.
fn loads() -> [Load; 4] {
    let plain = ProducerOptions::default();
    let idempotent = ProducerOptions { is_idempotent: true, in_flight_max: 5, ..plain };
    [
        Load {
            topic: "idempotent-all",
            configs: &[("segment.bytes", "1048576")],
            options: ProducerOptions { acks: -1, ..idempotent },
            records_per_batch: 3,
        },
        Load {
            topic: "idempotent-leader",
            configs: &[("retention.ms", "-1")],
            options: ProducerOptions { acks: 1, codec: Codec::Lz4, ..idempotent },
            records_per_batch: 10,
        },
        Load {
            topic: "plain-all",
            configs: &[("segment.bytes", "2097152"), ("max.message.bytes", "2000000")],
            options: ProducerOptions { acks: -1, value_bytes: 40_000, ..plain },
            records_per_batch: 8,
        },
        Load {
            topic: "plain-leader",
            configs: &[],
            options: ProducerOptions { acks: 1, ..plain },
            records_per_batch: 1,
        },
    ]
}

/// A thread that produces until it is told to stop.
struct Loader {
    number: u32,
    promises: Promises,
    acked: Arc<AtomicU64>,
    thread: JoinHandle<Vec<Sent>>,
}

fn start_loaders(address: &Address, is_stopping: &Arc<AtomicBool>) -> Vec<Loader> {
    let mut loaders = Vec::new();
    for load in loads() {
        for partition in 0..PARTITIONS {
            let number = loaders.len() as u32;
            let Load { topic, options, records_per_batch, .. } = load;
            let mut producer = Producer::new(number, address.clone(), topic, partition, options);
            let acked = producer.acked();
            let is_stopping = Arc::clone(is_stopping);
            let thread = std::thread::spawn(move || {
                while !is_stopping.load(Ordering::Relaxed) {
                    producer.send(records_per_batch);
                }
                producer.finish()
            });
            let is_idempotent = options.is_idempotent;
            let promises = Promises { is_idempotent, keeps_order: true };
            loaders.push(Loader { number, promises, acked, thread });
        }
    }
    loaders
}

fn start_reader(
    address: Address,
    topic: &'static str,
    is_stopping: &Arc<AtomicBool>,
) -> JoinHandle<Vec<Seen>> {
    let is_stopping = Arc::clone(is_stopping);
    std::thread::spawn(move || {
        let mut consumer = Consumer::new(address, topic, 0, 0);
        while !is_stopping.load(Ordering::Relaxed) {
            consumer.poll(50);
        }
        consumer.into_seen()
    })
}

fn server() -> TestServer {
    test_server!()
        .set("wal.journal_file_bytes=8MiB")
        .set("wal.group_bytes_max=2MiB")
        .set("wal.checkpoint_interval_ms=200")
        .start()
}

/// Ids and configs of all topics.
fn describe(client: &mut Client) -> BTreeMap<&'static str, (TopicId, BTreeMap<String, String>)> {
    let mut topics = BTreeMap::new();
    for Load { topic, .. } in loads() {
        let id = topic_id(client, topic).expect("the topic is there");
        topics.insert(topic, (id, topic_configs(client, topic)));
    }
    topics
}

fn drain(server: &TestServer, topic: &str, partition: i32) -> Vec<Seen> {
    let mut client = server.connect();
    let start = list_offset(&mut client, 7, topic, partition, -2).offset;
    assert_eq!(start, 0, "nothing was deleted from {topic}");
    let end = list_offset(&mut client, 7, topic, partition, -1).offset;
    let mut consumer = Consumer::new(server.address(), topic, partition, start);
    consumer.read_to(end);
    assert_eq!(consumer.position(), end);
    consumer.into_seen()
}

/// One history per topic: partitions of different topics must not be mistaken for each other.
fn check(server: &TestServer, loaders: Vec<Loader>, mut live: BTreeMap<&str, Vec<Seen>>) -> usize {
    let mut loaders = loaders.into_iter();
    let mut acked = 0;
    for load in loads() {
        let mut history = History::default();
        for loader in loaders.by_ref().take(PARTITIONS as usize) {
            let sent = loader.thread.join().expect("a producer does not fail");
            history.add_producer(loader.number, loader.promises, sent);
        }
        history.live.extend(live.remove(load.topic));
        for partition in 0..PARTITIONS {
            history.drain.extend(drain(server, load.topic, partition));
        }
        let findings = history.check();
        let first = &findings[..findings.len().min(10)];
        assert!(findings.is_empty(), "{}: {} findings: {first:#?}", load.topic, findings.len());
        acked += history.acked_count();
    }
    acked
}

#[test]
fn twenty_kills_under_load_lose_double_and_reorder_nothing_acknowledged() {
    let mut server = server();
    let mut client = server.connect();
    for load in loads() {
        let Load { topic: name, configs, .. } = load;
        create_topic(&mut client, NewTopic { name, partitions: PARTITIONS, configs });
    }
    let described = describe(&mut client);
    let is_stopping = Arc::new(AtomicBool::new(false));
    let loaders = start_loaders(&server.address(), &is_stopping);
    let readers = ["idempotent-all", "plain-leader"]
        .map(|topic| (topic, start_reader(server.address(), topic, &is_stopping)));
    let acked = || loaders.iter().map(|loader| loader.acked.load(Ordering::Relaxed)).sum::<u64>();

    let mut rng = SeededRng::new(SEED);
    let mut slowest_start_ms = 0;
    for _ in 0..KILLS {
        let target = acked() + 20 + rng.below(1_500);
        while acked() < target {
            std::thread::yield_now();
        }
        server.kill_9();
        server.restart(None);
        slowest_start_ms = slowest_start_ms.max(server.ready_ms());
        assert_eq!(describe(&mut server.connect()), described, "topics and configs survive");
    }
    is_stopping.store(true, Ordering::Relaxed);
    let live = readers.map(|(topic, reader)| (topic, reader.join().expect("a reader reads")));
    let acked = check(&server, loaders, BTreeMap::from(live));
    println!("{KILLS} kills, {acked} records acknowledged, slowest start {slowest_start_ms} ms");
    assert!(acked > 1_000, "the load was real: {acked} records");
}

#[test]
fn a_stop_by_signal_under_load_is_clean_and_keeps_everything_acknowledged() {
    let mut server = server();
    let mut client = server.connect();
    for load in loads() {
        let Load { topic: name, configs, .. } = load;
        create_topic(&mut client, NewTopic { name, partitions: PARTITIONS, configs });
    }
    let described = describe(&mut client);
    let is_stopping = Arc::new(AtomicBool::new(false));
    let loaders = start_loaders(&server.address(), &is_stopping);
    for _ in 0..2 {
        let acked =
            || loaders.iter().map(|loader| loader.acked.load(Ordering::Relaxed)).sum::<u64>();
        let target = acked() + 500;
        while acked() < target {
            std::thread::yield_now();
        }
        assert_eq!(server.terminate().code(), Some(0), "{}", server.log());
        assert!(server.data_dir().join("clean_shutdown").exists(), "the stop leaves its marker");
        server.restart(None);
        assert!(!server.log().contains("\"recovered\""), "a clean start has nothing to replay");
        assert!(!server.data_dir().join("clean_shutdown").exists(), "the marker is used up");
        assert_eq!(describe(&mut server.connect()), described);
    }
    is_stopping.store(true, Ordering::Relaxed);
    check(&server, loaders, BTreeMap::new());
}
