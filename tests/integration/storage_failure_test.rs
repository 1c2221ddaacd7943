//! The order of journal and network as the kernel sees it, and what a failing disk does: strace
//! watches the real server, and fails chosen system calls of it (P2, P13).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use chronik_common::ErrorCode;
use chronik_protocol::create_topics::{CreatableTopic, CreateTopicsRequest};
use chronik_protocol::produce::ProduceRequest;
use chronik_record::Codec;
use chronik_testkit::{
    Client, Consumer, NewTopic, ServerCommand, TempDir, TestServer, batch_of, create_topic,
    produce_request, test_server, topic_id,
};

/// The newest version that names topics.
const PRODUCE_VERSION: i16 = 12;
const EXIT_STORAGE: i32 = 5;
/// Bytes of a string that a trace shows: more than a journal group of these tests has.
const STRING_BYTES_MAX: &str = "32768";

fn strace(arguments: &[&str]) -> Vec<String> {
    let is_there = Command::new("strace").arg("-V").output().is_ok();
    assert!(is_there, "strace is missing; install it, for example: apt-get install strace");
    let common = ["strace", "-f", "--seccomp-bpf"];
    common.iter().chain(arguments).map(|word| (*word).to_owned()).collect()
}

/// One system call of a trace. Line numbers tell what happened before what.
#[derive(Debug)]
struct Event {
    thread: u32,
    call: String,
    /// File or socket of the first argument.
    target: String,
    arguments: String,
    started: usize,
    ended: usize,
    is_success: bool,
}

/// Reads lines such as `17 fdatasync(9</data/lane0_0.wal>) = 0`, and pairs those that were cut in
/// two because another thread was faster.
fn parse_trace(text: &str) -> Vec<Event> {
    let mut events = Vec::new();
    let mut unfinished: HashMap<u32, (String, usize)> = HashMap::new();
    for (number, line) in text.lines().enumerate() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let (Ok(thread), rest) = (thread.parse(), rest.trim_start()) else { continue };
        let (whole, started) = if let Some(begun) = rest.strip_suffix(" <unfinished ...>") {
            unfinished.insert(thread, (begun.to_owned(), number));
            continue;
        } else if rest.starts_with("<... ") {
            let Some((begun, started)) = unfinished.remove(&thread) else { continue };
            let resumed = rest.split_once("resumed>").map_or("", |(_, resumed)| resumed);
            (format!("{begun}{resumed}"), started)
        } else {
            (rest.to_owned(), number)
        };
        let Some((call, arguments)) = whole.split_once('(') else { continue };
        let target = arguments.split_once('<').and_then(|(_, rest)| {
            let end = [rest.find(">)"), rest.find(">, ")].into_iter().flatten().min();
            rest.get(..end?)
        });
        events.push(Event {
            thread,
            call: call.to_owned(),
            target: target.unwrap_or_default().to_owned(),
            arguments: arguments.to_owned(),
            started,
            ended: number,
            is_success: !whole.contains("= -1 "),
        });
    }
    events
}

fn is_journal(event: &Event) -> bool {
    event.target.contains("/journal/lane0_")
}

/// Per marker: the line at which the sync of the journal group that holds it had returned.
fn durable_lines(events: &[Event]) -> HashMap<&str, usize> {
    let mut durable = HashMap::new();
    let is_write = |event: &&Event| event.call == "pwritev" && is_journal(event);
    for write in events.iter().filter(is_write) {
        let is_its_sync = |event: &&Event| {
            event.call == "fdatasync"
                && event.is_success
                && event.thread == write.thread
                && event.target == write.target
                && event.started > write.ended
        };
        let Some(sync) = events.iter().find(is_its_sync) else { continue };
        let words = write.arguments.split('<').filter_map(|rest| rest.split_once('>'));
        for (marker, _) in words {
            durable.entry(marker).or_insert(sync.ended);
        }
    }
    durable
}

/// What one connection sent, and how long each answer was.
struct Conversation {
    port: u16,
    /// Per answer: the marker in its request's record, and its bytes on the wire.
    answers: Vec<(String, usize)>,
}

/// Markers whose answer began to leave before their journal group was durable.
fn acknowledged_too_early(
    events: &[Event],
    durable: &HashMap<&str, usize>,
    conversation: &Conversation,
) -> Vec<String> {
    let peer = format!("->127.0.0.1:{}]", conversation.port);
    let sends = events.iter().filter(|event| {
        matches!(&*event.call, "writev" | "sendto" | "sendmsg" | "write")
            && event.is_success
            && event.target.ends_with(&peer)
    });
    let mut early = Vec::new();
    let mut answers = conversation.answers.iter();
    // Bytes of begun answers that later sends carry.
    let mut left = 0;
    for send in sends {
        let result = send.arguments.rsplit_once("= ").map(|(_, result)| result.trim());
        let mut sent: usize = result.and_then(|result| result.parse().ok()).expect("bytes sent");
        while sent > left {
            sent -= left;
            let (marker, bytes) = answers.next().expect("every byte belongs to an answer");
            left = *bytes;
            let is_durable = durable.get(marker.as_str()).is_some_and(|line| *line < send.started);
            if !is_durable {
                early.push(marker.clone());
            }
        }
        left -= sent;
    }
    assert_eq!((answers.next(), left), (None, 0), "the trace shows every answer");
    early
}

/// Sends `count` requests, `window` at a time, and takes their answers.
fn converse(
    mut client: Client,
    topic: &str,
    name: &str,
    count: usize,
    window: usize,
) -> Conversation {
    let markers: Vec<String> = (0..count).map(|number| format!("{name}.{number}")).collect();
    let mut answers = Vec::new();
    for window in markers.chunks(window) {
        for (number, marker) in window.iter().enumerate() {
            let acks = if number.is_multiple_of(2) { -1 } else { 1 };
            let batch = batch_of(Codec::None, None, -1, &[format!("<{marker}>")]);
            let id = chronik_common::Uuid::ZERO;
            client
                .send(&produce_request(topic, id, 0, acks, &batch), PRODUCE_VERSION)
                .expect("the server reads");
        }
        for marker in window {
            let reply =
                client.receive::<ProduceRequest<'_>>(PRODUCE_VERSION).expect("the server answers");
            assert_eq!(reply.body().responses[0].partition_responses[0].error_code, 0);
            answers.push((marker.clone(), reply.len() + 4));
        }
    }
    Conversation { port: client.local_port(), answers }
}

fn traced_server(trace: &Path) -> TestServer {
    let calls = "trace=fdatasync,pwritev,writev,sendto,sendmsg,write";
    let trace = trace.to_str().expect("temporary paths are text");
    test_server!().under(strace(&["-yy", "-s", STRING_BYTES_MAX, "-o", trace, "-e", calls])).start()
}

#[test]
fn no_produce_answer_leaves_before_the_sync_of_the_journal_group_that_holds_its_batch() {
    let directory = TempDir::new();
    let trace = directory.path().join("trace");
    let mut server = traced_server(&trace);
    let mut client = server.connect();
    create_topic(&mut client, NewTopic { name: "t", partitions: 1, configs: &[] });
    let os = &[("chronik.durability", "os")];
    create_topic(&mut client, NewTopic { name: "os", partitions: 1, configs: os });
    drop(client);

    let mut conversations = vec![
        converse(server.connect(), "t", "alone", 60, 1),
        converse(server.connect(), "t", "pipelined", 600, 60),
    ];
    let threads: Vec<_> = (0..8)
        .map(|number| {
            let client = server.connect();
            std::thread::spawn(move || {
                converse(client, "t", &format!("together{number}"), 40, 1 + number % 3)
            })
        })
        .collect();
    conversations.extend(threads.into_iter().map(|thread| thread.join().unwrap()));
    let control = converse(server.connect(), "os", "control", 60, 1);
    assert_eq!(server.terminate().code(), Some(0));

    let events = parse_trace(&std::fs::read_to_string(&trace).unwrap());
    let durable = durable_lines(&events);
    let mut count = 0;
    for conversation in &conversations {
        count += conversation.answers.len();
        assert_eq!(acknowledged_too_early(&events, &durable, conversation), Vec::<String>::new());
    }
    let syncs = events.iter().filter(|event| event.call == "fdatasync" && is_journal(event));
    println!("{count} answers behind {} journal syncs", syncs.count());
    // The eyes of this test see: a topic that does not ask for the sync is answered before it.
    assert!(
        !acknowledged_too_early(&events, &durable, &control).is_empty(),
        "the control was caught"
    );
}

/// Offsets and values that were acknowledged, in order.
type Acked = Vec<(i64, String)>;

/// The offset a batch was acknowledged with, or nothing where the log had failed: the connection
/// broke, or, in the moment before the process ends, the request was refused with the retriable
/// code of a failed log. No other error is legal.
fn acknowledged(client: &mut Client, request: &ProduceRequest<'_>) -> Option<i64> {
    let reply = client.try_call(request, PRODUCE_VERSION).ok()?;
    let answer = &reply.body().responses[0].partition_responses[0];
    if answer.error_code == ErrorCode::KafkaStorageError.code() {
        return None;
    }
    assert_eq!(answer.error_code, 0, "{answer:?}");
    Some(answer.base_offset)
}

/// Produces until the log refuses or the connection breaks.
fn produce_until_it_breaks(server: &TestServer, name: &str) -> (Acked, String) {
    let mut client = server.connect();
    let mut acked = Acked::new();
    for number in 0..10_000 {
        let value = format!("<{name}.{number}>");
        let batch = batch_of(Codec::None, None, -1, &[&value]);
        let request = produce_request("t", chronik_common::Uuid::ZERO, 0, -1, &batch);
        let Some(offset) = acknowledged(&mut client, &request) else { return (acked, value) };
        acked.push((offset, value));
    }
    panic!("the injected failure never came");
}

/// Values of the log by offset.
fn read_all(server: &TestServer) -> Acked {
    let mut consumer = Consumer::new(server.address(), "t", 0, 0);
    let mut values = Acked::new();
    loop {
        let records = consumer.poll(0);
        if records.is_empty() {
            return values;
        }
        for record in records {
            let value = String::from_utf8(record.value.unwrap_or_default());
            values.push((record.offset, value.expect("values are text")));
        }
    }
}

/// A server that ran once, so that its files are there and can be named to strace.
fn prepared() -> (TempDir, PathBuf) {
    let directory = TempDir::new();
    let data = directory.path().join("data");
    let mut server = test_server!().data_dir(&data).start();
    let topic = NewTopic { name: "t", partitions: 1, configs: &[] };
    create_topic(&mut server.connect(), topic);
    assert_eq!(server.terminate().code(), Some(0));
    (directory, data)
}

/// Names below the data directory.
const JOURNAL: &str = "wal/journal/lane0_0.wal";
const META_JOURNAL: &str = "wal/__meta/lane_0.wal";
const SEGMENT: &str = "wal/partitions/t-0/segment_000.wal";

/// The server on `data`, with `injection` into calls on one of its files.
fn failing_server(data: &Path, file: &str, injection: &str) -> ServerCommand {
    let file = data.join(file);
    let file = file.to_str().expect("temporary paths are text");
    let watched = ["-e", "trace=fdatasync,pwritev", "-P", file, "-o", "/dev/null"];
    let words = [&watched[..], &["-e", injection]].concat();
    test_server!().data_dir(data).under(strace(&words))
}

/// The server stops by itself, at once, with one message that has all of `words`.
fn expect_stop(server: &mut TestServer, words: &[&str]) {
    let broken = Instant::now();
    let status = server.wait_for_exit();
    assert_eq!(status.code(), Some(EXIT_STORAGE), "{}", server.log());
    assert!(broken.elapsed().as_secs() < 2, "it stops at once");
    let log = server.log();
    let messages: Vec<&str> = log.lines().filter(|line| line.contains("E071")).collect();
    assert_eq!(messages.len(), 1, "{log}");
    for word in words {
        assert!(messages[0].contains(word), "{word} is missing in {}", messages[0]);
    }
}

/// Fails one call on the journal under load and checks what clients and operators get.
fn journal_failure_stops_the_server(injection: &str, call: &str, errno: &str) {
    let (_directory, data) = prepared();
    let mut server = failing_server(&data, JOURNAL, injection).expect_log("E071").start();
    let loads: Vec<_> = std::thread::scope(|scope| {
        let server = &server;
        let load = |number: usize| produce_until_it_breaks(server, &format!("{call}{number}"));
        let threads: Vec<_> = (0..3).map(|number| scope.spawn(move || load(number))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a load ends")).collect()
    });
    expect_stop(&mut server, &[call, "lane0_0.wal", errno]);
    assert!(!data.join("clean_shutdown").exists(), "this was no clean stop");
    let acked: usize = loads.iter().map(|(acked, _)| acked.len()).sum();
    assert!(acked > 20, "the failure came under load: {acked} acknowledged");

    server.restart(Some(test_server!().data_dir(&data)));
    let stored: HashMap<i64, String> = read_all(&server).into_iter().collect();
    for (offset, value) in loads.iter().flat_map(|(acked, _)| acked) {
        assert_eq!(stored.get(offset), Some(value), "acknowledged at {offset}");
    }
    // What was not acknowledged is there in whole or not at all, and the server works.
    let unanswered: Vec<&String> = loads.iter().map(|(_, unanswered)| unanswered).collect();
    let others = stored.values().filter(|value| unanswered.contains(value)).count();
    assert_eq!(stored.len(), acked + others, "{stored:?}");
    converse(server.connect(), "t", "afterwards", 5, 1);
}

#[test]
fn a_failed_journal_sync_is_never_acknowledged_and_stops_the_server() {
    journal_failure_stops_the_server(
        "inject=fdatasync:error=EIO:when=40",
        "fdatasync",
        "Input/output error (os error 5)",
    );
}

#[test]
fn a_full_disk_under_the_journal_is_never_acknowledged_and_stops_the_server() {
    journal_failure_stops_the_server(
        "inject=pwritev:error=ENOSPC:when=40",
        "write",
        "No space left on device (os error 28)",
    );
}

#[test]
fn an_interrupted_write_or_sync_of_the_journal_is_continued() {
    let (_directory, data) = prepared();
    let injection = "inject=fdatasync,pwritev:error=EINTR:when=3+2";
    let server = failing_server(&data, JOURNAL, injection).start();
    let conversation = converse(server.connect(), "t", "interrupted", 100, 10);
    assert_eq!(conversation.answers.len(), 100);
    assert_eq!(read_all(&server).len(), 100);
}

#[test]
fn a_failed_sync_of_a_segment_stops_the_server_before_the_batch_in_it_is_acknowledged() {
    let (_directory, data) = prepared();
    let injection = "inject=fdatasync:error=EIO:when=1";
    let mut server = failing_server(&data, SEGMENT, injection).expect_log("E071").start();
    let mut client = server.connect();
    // So large that it goes to its segment without being in the journal.
    let value = "x".repeat(600_000);
    let batch = batch_of(Codec::None, None, -1, &[&value]);
    let request = produce_request("t", chronik_common::Uuid::ZERO, 0, -1, &batch);
    assert_eq!(acknowledged(&mut client, &request), None, "never acknowledged");
    expect_stop(&mut server, &["fdatasync", "segment_000.wal", "os error 5"]);
    server.restart(Some(test_server!().data_dir(&data)));
    let stored = read_all(&server);
    assert!(stored.is_empty() || stored == [(0, value)], "whole or not at all");
    converse(server.connect(), "t", "afterwards", 5, 1);
}

#[test]
fn a_failed_sync_of_the_metadata_log_stops_the_server_and_keeps_every_created_topic() {
    let (_directory, data) = prepared();
    let injection = "inject=fdatasync:error=EIO:when=20";
    let mut server = failing_server(&data, META_JOURNAL, injection).expect_log("E071").start();
    let mut client = server.connect();
    let mut created = Vec::new();
    for number in 0..100 {
        let name = format!("topic-{number}");
        let topic = CreatableTopic {
            name: name.clone().into(),
            num_partitions: 1,
            replication_factor: 1,
            ..CreatableTopic::default()
        };
        let topics = vec![topic];
        let request = CreateTopicsRequest { topics, timeout_ms: 10_000, validate_only: false };
        let Ok(reply) = client.try_call(&request, 7) else { break };
        let answer = &reply.body().topics[0];
        if answer.error_code == ErrorCode::NotController.code() {
            break; // the metadata log had failed, and the process was about to end
        }
        assert_eq!(answer.error_code, 0, "{answer:?}");
        created.push((name, answer.topic_id));
    }
    assert!((10..100).contains(&created.len()), "{} topics", created.len());
    expect_stop(&mut server, &["fdatasync", "lane_0.wal", "os error 5"]);
    server.restart(Some(test_server!().data_dir(&data)));
    let mut client = server.connect();
    for (name, id) in created {
        assert_eq!(topic_id(&mut client, &name), Some(id), "{name}");
    }
}

#[test]
fn a_segment_that_cannot_be_written_behind_loses_nothing_that_was_acknowledged() {
    let (_directory, data) = prepared();
    let injection = "inject=pwritev:error=EIO:when=2+";
    let mut server = failing_server(&data, SEGMENT, injection).expect_log("E071").start();
    let (acked, _) = produce_until_it_breaks(&server, "behind");
    expect_stop(&mut server, &["write", "segment_000.wal", "os error 5"]);
    server.restart(Some(test_server!().data_dir(&data)));
    let stored: HashMap<i64, String> = read_all(&server).into_iter().collect();
    for (offset, value) in &acked {
        assert_eq!(stored.get(offset), Some(value), "acknowledged at {offset}");
    }
}
