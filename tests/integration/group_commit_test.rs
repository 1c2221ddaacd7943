//! What group commit is for: many requests, and many partitions, share one journal sync. Counted
//! by the server itself.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chronik_common::Uuid;
use chronik_protocol::Records;
use chronik_protocol::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use chronik_record::Codec;
use chronik_testkit::{
    Client, Metrics, NewTopic, TempDir, TestServer, WAIT_MAX, batch_of, create_topic,
    produce_request, test_server,
};

/// The newest version that names topics.
const NAMED: i16 = 12;
const SYNCS: &str = "chronik_wal_syncs_total{lane=\"data\"}";
const GROUPS: &str = "chronik_wal_groups_total{lane=\"data\"}";
const FRAMES: &str = "chronik_wal_frames_total{lane=\"data\"}";

/// Growth of a counter between two scrapes.
fn grown(before: &Metrics, after: &Metrics, name: &str) -> f64 {
    after.value(name) - before.value(name)
}

fn connect(server: &TestServer, count: usize) -> Vec<Client> {
    (0..count).map(|_| server.connect()).collect()
}

/// Keeps one request in flight on each of 64 connections; returns requests per journal sync.
#[allow(clippy::print_stdout, reason = "the figure belongs to the test's output")]
fn requests_per_sync(server: &TestServer, disk: &str) -> f64 {
    const CONNECTIONS: usize = 64;
    const REQUESTS: u64 = 4_000;
    let mut client = server.connect();
    create_topic(&mut client, NewTopic { name: "t", partitions: 8, configs: &[] });
    let mut clients = connect(server, CONNECTIONS);
    let batch = batch_of(Codec::None, None, -1, &["x".repeat(100)]);

    let answered = AtomicU64::new(0);
    let before = server.metrics();
    let started = Instant::now();
    std::thread::scope(|scope| {
        for (number, client) in clients.iter_mut().enumerate() {
            let (answered, batch) = (&answered, &batch);
            scope.spawn(move || {
                let partition = (number % 8) as i32;
                let request = produce_request("t", Uuid::ZERO, partition, -1, batch);
                while answered.fetch_add(1, Ordering::Relaxed) < REQUESTS {
                    let reply = client.call(&request, NAMED);
                    assert_eq!(reply.body().responses[0].partition_responses[0].error_code, 0);
                }
            });
        }
    });
    let took = started.elapsed();
    let after = server.metrics();
    let requests = grown(&before, &after, FRAMES);
    let syncs = grown(&before, &after, SYNCS);
    let per_sync = requests / syncs;
    let per_second = requests / took.as_secs_f64();
    println!("{disk}: {requests} requests, {syncs} syncs, {per_sync:.1} each; {per_second:.0}/s");
    per_sync
}

/// A group is what gathered during the sync before it, so the figure depends on how long a sync
/// takes: half of the connections share each one once it is longer than a round of requests. This
/// machine's figure is printed; the promise is checked on a disk that takes 5 ms.
#[test]
fn sixty_four_connections_with_one_request_each_share_a_sync_at_least_fifteen_fold() {
    requests_per_sync(&test_server!().start(), "as it is");
    let delay = ["-e", "trace=fdatasync", "-e", "inject=fdatasync:delay_enter=5000"];
    let strace = ["strace", "-f", "--seccomp-bpf", "-o", "/dev/null"];
    // What strace says when it delays two threads at once: the journal's zeros are synced as well.
    let slower = test_server!().under([&strace[..], &delay].concat());
    let slower = slower.expect_log("strace: ").start();
    let per_sync = requests_per_sync(&slower, "with 5 ms more");
    assert!(per_sync >= 15.0, "{per_sync:.1} requests per sync");
}

#[test]
fn a_thousand_dirty_partitions_cost_one_sync_per_group() {
    const PARTITIONS: i32 = 1_000;
    const ROUNDS: usize = 5;
    let server = test_server!().start();
    let mut client = server.connect();
    create_topic(&mut client, NewTopic { name: "wide", partitions: PARTITIONS, configs: &[] });
    let batch = batch_of(Codec::None, None, -1, &["value"]);
    let before = server.metrics();
    for _ in 0..ROUNDS {
        for partition in 0..PARTITIONS {
            let request = produce_request("wide", Uuid::ZERO, partition, -1, &batch);
            let frame = client.frame(&request, NAMED);
            client.send_raw(&frame).unwrap();
        }
        for _ in 0..PARTITIONS {
            let reply = client.receive::<ProduceRequest<'_>>(NAMED).unwrap();
            assert_eq!(reply.body().responses[0].partition_responses[0].error_code, 0);
        }
    }
    let after = server.metrics();
    let (syncs, groups) = (grown(&before, &after, SYNCS), grown(&before, &after, GROUPS));
    assert_eq!(grown(&before, &after, FRAMES), f64::from(PARTITIONS) * ROUNDS as f64);
    println!("{ROUNDS} bursts over {PARTITIONS} partitions: {groups} groups, {syncs} syncs");
    assert_eq!(syncs, groups, "one sync per group, however many partitions it has");
    assert!(syncs < f64::from(PARTITIONS) * ROUNDS as f64 / 5.0, "{syncs} syncs");

    // In one request they are one turn.
    let partition_data = (0..PARTITIONS)
        .map(|index| PartitionProduceData { index, records: Some(Records::Borrowed(&batch)) });
    let topic_data = vec![TopicProduceData {
        name: "wide".into(),
        topic_id: Uuid::ZERO,
        partition_data: partition_data.collect(),
    }];
    let request =
        ProduceRequest { transactional_id: None, acks: -1, timeout_ms: 10_000, topic_data };
    let before = server.metrics();
    let reply = client.call(&request, NAMED);
    let answer = reply.body();
    let offsets = answer.responses[0].partition_responses.iter().map(|part| part.base_offset);
    assert!(offsets.eq((0..PARTITIONS).map(|_| ROUNDS as i64)));
    let after = server.metrics();
    let (syncs, groups) = (grown(&before, &after, SYNCS), grown(&before, &after, GROUPS));
    println!("one request over {PARTITIONS} partitions: {groups} groups, {syncs} syncs");
    assert!(syncs == groups && syncs < f64::from(PARTITIONS) / 5.0, "{syncs} syncs");
}

#[test]
fn a_lone_request_is_not_held_back_for_company() {
    let server = test_server!().start();
    let mut client = server.connect();
    create_topic(&mut client, NewTopic { name: "t", partitions: 1, configs: &[] });
    let batch = batch_of(Codec::None, None, -1, &["value"]);
    let mut took = Vec::new();
    for _ in 0..200 {
        let started = Instant::now();
        client.call(&produce_request("t", Uuid::ZERO, 0, -1, &batch), NAMED);
        took.push(started.elapsed());
    }
    took.sort_unstable();
    let median = took[took.len() / 2];
    println!("a lone request takes {median:?} (median)");
    assert!(median < Duration::from_millis(20), "{median:?}");
}

/// A data directory with topic `t` of eight partitions, whose files are there.
fn prepared(directory: &TempDir) -> PathBuf {
    let data = directory.path().join("data");
    let mut server = test_server!().data_dir(&data).start();
    create_topic(&mut server.connect(), NewTopic { name: "t", partitions: 8, configs: &[] });
    assert_eq!(server.terminate().code(), Some(0));
    data
}

#[test]
fn a_burst_above_the_memory_for_newest_frames_is_acknowledged_by_a_slow_disk() {
    const CONNECTIONS: usize = 8;
    const BATCHES: usize = 12;
    let directory = TempDir::new();
    let data = prepared(&directory);
    let server = test_server!().on_slow_disk(&data, Duration::from_millis(100)).start();
    let batch = batch_of(Codec::None, None, -1, &[vec![0x5a_u8; 900_000]]);
    let burst = CONNECTIONS * BATCHES * batch.len();
    assert!(burst > 64 << 20, "more than wal.tail_bytes_max: {burst} bytes");
    // Everything is on its way before the first answer is taken.
    let mut clients = connect(&server, CONNECTIONS);
    std::thread::scope(|scope| {
        for (partition, client) in clients.iter_mut().enumerate() {
            let batch = &batch;
            scope.spawn(move || {
                let request = produce_request("t", Uuid::ZERO, partition as i32, -1, batch);
                for _ in 0..BATCHES {
                    client.send(&request, NAMED).expect("the server reads");
                }
            });
        }
    });
    for client in &mut clients {
        for number in 0..BATCHES {
            let reply = client.receive::<ProduceRequest<'_>>(NAMED).expect("acknowledged");
            let answer = reply.body();
            let part = &answer.responses[0].partition_responses[0];
            assert_eq!((part.error_code, part.base_offset), (0, number as i64));
        }
    }
}

#[test]
fn without_acknowledgements_no_more_than_the_limit_waits_for_a_slow_disk() {
    const LIMIT: f64 = (4 << 20) as f64;
    const APPENDED: f64 = (40 << 20) as f64;
    let directory = TempDir::new();
    let data = prepared(&directory);
    let limited = test_server!()
        .set("listener.request_bytes_max=2MiB")
        .set("listener.queued_request_bytes_max=4MiB")
        .set("wal.group_bytes_max=1MiB")
        .set("wal.tail_bytes_max=4MiB");
    let mut server = limited.on_slow_disk(&data, Duration::from_millis(30)).start();
    let before = server.resident_bytes();
    let durable = |metrics: &Metrics| metrics.value("chronik_wal_frame_bytes_total{lane=\"data\"}");
    let (mut done, mut waiting_max, mut grown): (f64, f64, u64) = (0.0, 0.0, 0);
    std::thread::scope(|scope| {
        for (partition, mut client) in connect(&server, 2).into_iter().enumerate() {
            scope.spawn(move || {
                let batch = batch_of(Codec::None, None, -1, &[vec![0x5a_u8; 100_000]]);
                let request = produce_request("t", Uuid::ZERO, partition as i32, 0, &batch);
                while client.send_unanswered(&request, NAMED).is_ok() {}
            });
        }
        let deadline = Instant::now() + WAIT_MAX;
        while done < APPENDED && Instant::now() < deadline {
            let metrics = server.metrics();
            done = durable(&metrics);
            waiting_max = waiting_max.max(metrics.sum("chronik_produce_bytes_total") - done);
        }
        grown = server.resident_bytes_peak().saturating_sub(before);
        // Ends the senders as well.
        server.kill_9();
    });
    println!("{waiting_max} bytes waited at most; the server grew by {grown} bytes");
    assert!(done >= APPENDED, "the disk is slow, but it goes on: {done} bytes");
    // What was read before the limit was met is appended, and a group is being written.
    assert!(waiting_max < 2.0 * LIMIT, "{waiting_max} bytes waited for the disk");
    assert!(grown < 48 << 20, "{grown} bytes");
}
