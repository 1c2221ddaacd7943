//! Connections: order of answers, frames that are none, limits at their value and one above, slow
//! and greedy clients. Whatever one connection does, the others do not notice.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use chronik_common::{Rng, SeededRng, Uuid};
use chronik_protocol::api_versions::ApiVersionsRequest;
use chronik_protocol::create_topics::{CreatableTopic, CreateTopicsRequest};
use chronik_protocol::fetch::{FetchPartition, FetchRequest, FetchTopic, ForgottenTopic};
use chronik_protocol::init_producer_id::InitProducerIdRequest;
use chronik_protocol::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use chronik_protocol::metadata::MetadataRequest;
use chronik_protocol::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use chronik_protocol::{ApiKey, OutputBuffer, Records};
use chronik_record::Codec;
use chronik_testkit::{
    Call, Client, NewTopic, ServerCommand, TempDir, TestServer, WAIT_MAX, batch_of, create_topic,
    produce_request, test_server,
};

/// The newest version that names topics.
const NAMED: i16 = 12;

fn with_topic(command: ServerCommand) -> TestServer {
    let server = command.start();
    create_topic(&mut server.connect(), NewTopic { name: "t", partitions: 2, configs: &[] });
    server
}

/// One connection per shard, and proof that they work.
struct Canaries(Vec<Client>);

impl Canaries {
    fn new(server: &TestServer) -> Self {
        let clients: Vec<Client> = (0..4).map(|_| server.connect()).collect();
        clients.iter().for_each(|client| client.set_timeout(Duration::from_secs(5)));
        Self(clients)
    }

    fn sing(&mut self) {
        for client in &mut self.0 {
            client.call(&ApiVersionsRequest::default(), 0);
        }
    }
}

fn fetch(partition: i32, offset: i64, max_wait_ms: i32, bytes_max: i32) -> FetchRequest<'static> {
    FetchRequest {
        max_wait_ms,
        min_bytes: 1,
        max_bytes: bytes_max,
        topics: vec![FetchTopic {
            topic: "t".into(),
            partitions: vec![FetchPartition {
                partition,
                fetch_offset: offset,
                partition_max_bytes: bytes_max,
                ..FetchPartition::default()
            }],
            ..FetchTopic::default()
        }],
        ..FetchRequest::default()
    }
}

/// Sends a request now and returns how to take its answer later.
fn pipeline<C: Call>(client: &mut Client, request: &C, version: i16) -> fn(&mut Client, i16) {
    client.send(request, version).expect("the server reads");
    |client, version| {
        let reply = client.receive::<C>(version).expect("every request is answered");
        let _ = reply.body();
    }
}

#[test]
fn a_thousand_pipelined_requests_are_answered_in_their_order_behind_a_long_poll() {
    let server = with_topic(test_server!());
    let mut client = server.connect();
    let wait = Duration::from_millis(700);
    let started = Instant::now();
    let mut answers = vec![(pipeline(&mut client, &fetch(1, 0, 700, 1 << 20), NAMED), NAMED)];
    let mut rng = SeededRng::new(11);
    for number in 1..1_000 {
        let answer = match rng.below(7) {
            0 => (pipeline(&mut client, &ApiVersionsRequest::default(), 0), 0),
            1 => (pipeline(&mut client, &MetadataRequest::default(), 9), 9),
            2 | 3 => {
                let batch = batch_of(Codec::None, None, 7, &["value"]);
                let acks = if number % 2 == 0 { 1 } else { -1 };
                let request = produce_request("t", Uuid::ZERO, 0, acks, &batch);
                (pipeline(&mut client, &request, NAMED), NAMED)
            }
            // A lookup by time works in the background, and so does a creation.
            4 => {
                let partitions =
                    vec![ListOffsetsPartition { timestamp: 7, ..ListOffsetsPartition::default() }];
                let topics = vec![ListOffsetsTopic { name: "t".into(), partitions }];
                let request =
                    ListOffsetsRequest { replica_id: -1, topics, ..ListOffsetsRequest::default() };
                (pipeline(&mut client, &request, 7), 7)
            }
            5 => {
                let topics = vec![CreatableTopic {
                    name: format!("topic-{}", number % 20).into(),
                    num_partitions: 1,
                    replication_factor: 1,
                    ..CreatableTopic::default()
                }];
                let request =
                    CreateTopicsRequest { topics, timeout_ms: 9_000, validate_only: false };
                (pipeline(&mut client, &request, 7), 7)
            }
            _ => (pipeline(&mut client, &fetch(0, 0, 0, 1 << 10), NAMED), NAMED),
        };
        answers.push(answer);
    }
    // The client checks each answer's correlation id against the oldest open request.
    let mut others = answers.into_iter();
    let (take, version) = others.next().unwrap();
    take(&mut client, version);
    assert!(started.elapsed() >= wait, "the long poll held everything back");
    others.for_each(|(take, version)| take(&mut client, version));
}

#[test]
fn a_thousand_fetches_behind_a_long_poll_are_answered_when_it_ends() {
    let server = with_topic(test_server!());
    let mut client = server.connect();
    let batch = batch_of(Codec::None, None, -1, &["value"]);
    client.call(&produce_request("t", Uuid::ZERO, 0, -1, &batch), NAMED);
    client.send(&fetch(1, 0, 300, 1_000), NAMED).unwrap();
    for _ in 0..1_000 {
        client.send(&fetch(0, 0, 0, 1_000), NAMED).unwrap();
    }
    for number in 0..=1_000 {
        let reply = client.receive::<FetchRequest<'_>>(NAMED).unwrap();
        let found = reply.body().responses[0].partitions[0].records.as_ref().unwrap().len();
        assert_eq!(found, if number == 0 { 0 } else { batch.len() });
    }
}

/// Requests of one API the server has begun to handle.
fn handled(server: &TestServer, api: &str) -> u64 {
    server.metrics().value(&format!("chronik_requests_total{{api=\"{api}\"}}")) as u64
}

/// Kafka has no such limit; whoever pipelines this much meets ours without noticing.
#[test]
fn a_connection_whose_answers_all_wait_is_read_on_when_they_are_sent() {
    /// `SLOTS_MAX` of the server's connections.
    const WAITING_MAX: u64 = 1_024;
    let server = with_topic(test_server!());
    let mut producer = server.connect();
    let batch = batch_of(Codec::None, None, -1, &["value"]);
    for (round, sent_at_once) in [(0, WAITING_MAX), (1, 3 * WAITING_MAX)] {
        let mut client = server.connect();
        let before = handled(&server, "ApiVersions");
        client.send(&fetch(1, round, 20_000, 1 << 20), NAMED).unwrap();
        let frames: Vec<Vec<u8>> =
            (1..sent_at_once).map(|_| client.frame(&ApiVersionsRequest::default(), 0)).collect();
        client.send_raw(&frames.concat()).unwrap();
        let deadline = Instant::now() + WAIT_MAX;
        while handled(&server, "ApiVersions") - before < WAITING_MAX - 1 {
            assert!(Instant::now() < deadline, "what may wait is taken");
        }
        // These come when the server has stopped reading.
        for _ in 0..300 {
            client.send(&ApiVersionsRequest::default(), 0).unwrap();
        }
        assert_eq!(handled(&server, "ApiVersions") - before, WAITING_MAX - 1, "and no more");
        producer.call(&produce_request("t", Uuid::ZERO, 1, -1, &batch), NAMED);
        let reply = client.receive::<FetchRequest<'_>>(NAMED).unwrap();
        assert_eq!(reply.body().responses[0].partitions[0].high_watermark, round + 1);
        for _ in 1..sent_at_once + 300 {
            client.receive::<ApiVersionsRequest<'_>>(0).expect("every request is answered");
        }
    }
}

#[test]
fn acks_zero_is_never_answered_and_a_refused_batch_closes_its_connection() {
    let server = with_topic(test_server!());
    let mut canaries = Canaries::new(&server);
    let mut client = server.connect();
    let batch = batch_of(Codec::None, None, -1, &["value"]);
    for version in 3..=NAMED {
        let request = produce_request("t", Uuid::ZERO, 0, 0, &batch);
        client.send_unanswered(&request, version).unwrap();
    }
    // The answer to the next request is the first thing to come: nothing came before it.
    let reply = client.call(&fetch(0, 9, 5_000, 1 << 20), NAMED);
    assert_eq!(reply.body().responses[0].partitions[0].high_watermark, 10);

    let mut corrupt = batch.to_vec();
    *corrupt.last_mut().unwrap() ^= 1;
    let refused: [(&str, i32, &[u8], i16); 4] = [
        ("unknown", 0, &batch, NAMED),
        ("t", 7, &batch, NAMED),
        ("t", 0, &corrupt, NAMED),
        ("t", 0, &batch, 2),
    ];
    for (topic, partition, batch, version) in refused {
        let mut client = server.connect();
        let request = produce_request(topic, Uuid::ZERO, partition, 0, batch);
        client.send_unanswered(&request, version).unwrap();
        assert!(client.read_until_closed().is_empty(), "closed without a byte");
        canaries.sing();
    }
    let closed = server.metrics().value("chronik_connections_closed_total{reason=\"acks_zero\"}");
    assert_eq!(closed, 4.0);
}

fn frame_of(length: i32, payload: &[u8]) -> Vec<u8> {
    [&length.to_be_bytes()[..], payload].concat()
}

/// Valid requests of every API at the lowest and highest version.
fn valid_frames(client: &mut Client) -> Vec<Vec<u8>> {
    fn both<C: Call>(client: &mut Client, request: &C) -> Vec<Vec<u8>> {
        let shown = C::API.shown();
        [shown.min, shown.max].map(|version| client.frame(request, version)).to_vec()
    }
    let batch = batch_of(Codec::None, None, -1, &["value"]);
    let partition = ListOffsetsPartition { timestamp: -1, ..ListOffsetsPartition::default() };
    let topics = vec![ListOffsetsTopic { name: "t".into(), partitions: vec![partition] }];
    let list = ListOffsetsRequest { replica_id: -1, topics, ..ListOffsetsRequest::default() };
    let software = ApiVersionsRequest {
        client_software_name: "testkit".into(),
        client_software_version: "1".into(),
    };
    [
        both(client, &produce_request("t", Uuid([7; 16]), 0, -1, &batch)),
        both(client, &fetch(0, 0, 0, 1_000)),
        both(client, &list),
        both(client, &MetadataRequest { topics: Some(Vec::new()), ..Default::default() }),
        both(client, &software),
        both(client, &InitProducerIdRequest::default()),
    ]
    .concat()
}

#[test]
fn malformed_and_truncated_frames_close_only_their_connection() {
    let server = with_topic(test_server!());
    let mut canaries = Canaries::new(&server);
    let mut frames = vec![
        frame_of(-1, &[]),
        frame_of(i32::MIN, &[0; 100]),
        frame_of(i32::MAX, &[0; 10]),
        frame_of((100 << 20) + 1, &[]),
        frame_of(0, &[]),
        frame_of(7, &[0; 7]),
        // A request of Metadata version 9 whose client id says it has 32,767 bytes.
        frame_of(14, &[0, 3, 0, 9, 0, 0, 0, 1, 0x7f, 0xff, 0, 0, 0, 0]),
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        vec![0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03],
    ];
    let valid = valid_frames(&mut server.connect());
    for frame in &valid {
        let payload = &frame[4..];
        let header = 10 + "testkit".len();
        for cut in (header..payload.len()).step_by(3) {
            frames.push(frame_of(cut as i32, &payload[..cut]));
        }
    }
    let closed_count = frames.len();
    for frame in frames {
        let mut client = server.connect();
        client.set_timeout(Duration::from_secs(5));
        // The server may be done with the connection before all is sent.
        let _ = client.send_raw(&frame);
        let length = i32::from_be_bytes(frame[..4].try_into().unwrap());
        if usize::try_from(length).is_ok_and(|length| length > frame.len() && length <= 100 << 20) {
            client.stream().shutdown(std::net::Shutdown::Write).unwrap();
        }
        let rest = client.read_until_closed();
        assert!(rest.is_empty(), "{frame:02x?} was answered with {rest:02x?}");
        canaries.sing();
    }
    println!("{closed_count} broken frames");
}

/// Kafka: a channel's next request is read when the one before was answered.
#[test]
fn answers_to_what_came_before_a_malformed_frame_arrive_before_the_connection_closes() {
    let server = with_topic(test_server!());
    let malformed = [
        frame_of(-1, &[]),
        frame_of(i32::MAX, &[]),
        frame_of(0, &[]),
        // An unknown API, and a known one that ends in the middle.
        frame_of(10, &[0x7f, 0xff, 0, 0, 0, 0, 0, 1, 0xff, 0xff]),
        frame_of(10, &[0, 3, 0, 9, 0, 0, 0, 1, 0x7f, 0xff]),
    ];
    for malformed in malformed {
        let mut client = server.connect();
        let mut bytes = Vec::new();
        for _ in 0..20 {
            bytes.extend(client.frame(&fetch(0, 0, 0, 1_000), NAMED));
            bytes.extend(client.frame(&ApiVersionsRequest::default(), 0));
        }
        bytes.extend(&malformed);
        client.send_raw(&bytes).unwrap();
        for _ in 0..20 {
            client.receive::<FetchRequest<'_>>(NAMED).expect("it was sent before the damage");
            client.receive::<ApiVersionsRequest<'_>>(0).expect("it was sent before the damage");
        }
        assert!(client.read_until_closed().is_empty(), "{malformed:02x?} is not answered");
    }
}

#[test]
fn random_damage_to_requests_is_answered_or_closes_only_its_connection() {
    let server = with_topic(test_server!());
    let mut canaries = Canaries::new(&server);
    let valid = valid_frames(&mut server.connect());
    let mut rng = SeededRng::new(23);
    for round in 0..400 {
        let mut client = server.connect();
        let mut bytes = valid[rng.below(valid.len() as u64) as usize].clone();
        if round % 4 == 0 {
            bytes = (0..rng.below(300) + 12).map(|_| rng.next_u64() as u8).collect();
        } else {
            for _ in 0..=rng.below(3) {
                let at = rng.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << rng.below(8);
            }
        }
        let _ = client.send_raw(&bytes);
        let _ = client.stream().shutdown(std::net::Shutdown::Write);
        // Whole frames or nothing, then the end.
        let mut rest = &client.read_until_closed()[..];
        while let Some((length, behind)) = rest.split_first_chunk::<4>() {
            let length = i32::from_be_bytes(*length) as usize;
            rest = behind.get(length..).expect("answers are whole frames");
        }
        assert!(rest.is_empty());
        if round % 20 == 0 {
            canaries.sing();
        }
    }
}

#[test]
fn two_thousand_connections_that_announce_huge_frames_cost_little_memory() {
    let server = with_topic(test_server!());
    let mut canaries = Canaries::new(&server);
    let before = server.resident_bytes();
    let announced = frame_of(100 << 20, &[0, 0, 0, 9, 0, 0, 0, 1, 0, 1]);
    let connections: Vec<TcpStream> = (0..2_000)
        .map(|_| {
            let mut stream = TcpStream::connect(server.kafka()).expect("the server accepts");
            stream.write_all(&announced).expect("the server reads");
            stream
        })
        .collect();
    // Each has been served once a later connection is, on every shard.
    Canaries::new(&server).sing();
    canaries.sing();
    let grown = server.resident_bytes().saturating_sub(before);
    let mib = grown as f64 / f64::from(1 << 20);
    println!("{} connections grew the server by {mib:.1} MiB", connections.len());
    assert!(grown < 50_000_000, "{mib:.1} MiB for 2,000 connections");
}

#[test]
#[allow(clippy::print_stdout, reason = "the figure belongs to the test's output")]
fn large_requests_on_their_way_in_share_bounded_memory_and_all_get_their_turn() {
    const SENDERS: u64 = 40;
    let small = ["listener.request_bytes_max=4MiB", "listener.queued_request_bytes_max=4MiB"];
    let server = with_topic(small.iter().fold(test_server!(), |server, one| server.set(one)));
    let batch = batch_of(Codec::None, None, -1, &[&vec![0x5a_u8; 900_000]]);
    let before = server.resident_bytes();
    let may_finish = AtomicBool::new(false);
    let most = std::thread::scope(|scope| {
        for _ in 0..SENDERS {
            let (batch, may_finish) = (&batch, &may_finish);
            let mut client = server.connect();
            scope.spawn(move || {
                let frame = client.frame(&produce_request("t", Uuid::ZERO, 0, -1, batch), NAMED);
                let (most, last) = frame.split_at(frame.len() - 1);
                client.send_raw(most).expect("a sender is made to wait, not refused");
                while !may_finish.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(5));
                }
                client.send_raw(last).expect("a sender is made to wait, not refused");
                let reply = client.receive::<ProduceRequest<'_>>(NAMED).expect("an answer");
                assert_eq!(reply.body().responses[0].partition_responses[0].error_code, 0);
            });
        }
        let mut canaries = Canaries::new(&server);
        let mut most = 0;
        for _ in 0..100 {
            canaries.sing();
            most = most.max(server.resident_bytes());
            std::thread::sleep(Duration::from_millis(10));
        }
        may_finish.store(true, Ordering::Relaxed);
        most
    });
    let grown = most.saturating_sub(before);
    println!("{SENDERS} unfinished requests of 900 KB grew the server by {} KiB", grown >> 10);
    assert!(grown < SENDERS * 900_000 / 2, "{grown} bytes");
}

/// How long the server takes to close a connection on which nothing more comes.
fn time_to_close(client: &mut Client) -> Duration {
    let started = Instant::now();
    assert!(client.read_until_closed().is_empty());
    started.elapsed()
}

#[test]
fn slow_senders_and_idle_connections_are_closed_and_waiting_ones_are_not() {
    let server = with_topic(
        test_server!()
            .set("listener.request_deadline_ms=300")
            .set("listener.connections_idle_max_ms=1000"),
    );
    let sweep = Duration::from_millis(1_500);

    let mut waiting = server.connect();
    waiting.send(&fetch(1, 0, 6_000, 1 << 20), NAMED).unwrap();
    let mut idle = server.connect();
    let mut slow = server.connect();
    slow.send_raw(&frame_of(1_000, &[0; 8])).unwrap();
    let took = time_to_close(&mut slow);
    assert!(took < Duration::from_millis(300) + sweep, "an unfinished request: {took:?}");

    // Bytes that keep coming do not move the deadline of a request.
    let mut trickle = server.connect();
    trickle.send_raw(&frame_of(100_000, &[])).unwrap();
    trickle.set_timeout(Duration::from_millis(20));
    let started = Instant::now();
    while trickle.send_raw(&[0]).is_ok() {
        match trickle.stream().read(&mut [0]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            _ => break,
        }
    }
    let took = started.elapsed();
    assert!(took < Duration::from_millis(300) + sweep, "a trickling request: {took:?}");

    let took = time_to_close(&mut idle);
    assert!(took < Duration::from_millis(1_000) + sweep, "idle: {took:?}");
    let reply = waiting.receive::<FetchRequest<'_>>(NAMED).expect("a long poll is not idle");
    assert_eq!(reply.body().responses[0].partitions[0].error_code, 0);
    let metrics = server.metrics();
    let closed = |reason: &str| {
        metrics.value(&format!("chronik_connections_closed_total{{reason=\"{reason}\"}}"))
    };
    assert_eq!((closed("slow"), closed("idle")), (2.0, 1.0));
}

/// True if a connection is served.
fn is_served(stream: &TcpStream) -> bool {
    let mut stream = stream;
    let mut out = OutputBuffer::new();
    out.put_i32(10);
    out.put_i16(ApiKey::ApiVersions.number());
    out.put_i16(0);
    out.put_i32(1);
    out.put_i16(-1);
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket takes a timeout");
    stream.write_all(&out.to_vec()).is_ok() && matches!(stream.read(&mut [0; 4_096]), Ok(1..))
}

#[test]
fn connections_beyond_the_rate_wait_for_the_next_second_and_are_served_then() {
    const RATE: usize = 20;
    let server = test_server!().set("listener.connection_creation_rate_max=20").start();
    let started = Instant::now();
    let streams: Vec<TcpStream> =
        (0..=RATE).map(|_| TcpStream::connect(server.kafka()).expect("accepted")).collect();
    assert!(streams.iter().all(is_served));
    // A second begins with its first connection.
    assert!(started.elapsed() >= Duration::from_secs(1), "the last one had to wait");
    assert_eq!(server.metrics().value("chronik_connections_refused_total"), 0.0);
}

#[test]
fn connections_beyond_the_limit_per_address_and_in_all_are_refused() {
    let server = test_server!()
        .set("listener.connections_max=4")
        .set("listener.connections_per_ip_max=3")
        .start();
    let over_v4 = || TcpStream::connect(server.kafka()).expect("the kernel accepts");
    let over_v6 = || {
        let address = SocketAddr::from((Ipv6Addr::LOCALHOST, server.kafka().port()));
        TcpStream::connect(address).expect("the kernel accepts")
    };
    let mut from_v4: Vec<TcpStream> = (0..3).map(|_| over_v4()).collect();
    assert!(from_v4.iter().all(is_served), "at the limit per address");
    assert!(!is_served(&over_v4()), "one above it");
    let from_v6 = over_v6();
    assert!(is_served(&from_v6), "at the limit in all");
    assert!(!is_served(&over_v6()), "one above it");
    assert_eq!(server.metrics().value("chronik_connections_refused_total"), 2.0);

    drop(from_v4.pop());
    let is_free = || server.metrics().value("chronik_connections") < 4.0;
    while !is_free() {
        std::thread::yield_now();
    }
    assert!(is_served(&over_v4()), "a place that was given back is taken again");
}

#[test]
fn a_request_is_taken_at_its_size_limit_and_refused_one_byte_above() {
    let limit = 1 << 16;
    let server = test_server!()
        .set("listener.request_bytes_max=65536")
        .set("topic.message_max_bytes=60000")
        .start();
    let mut canaries = Canaries::new(&server);
    let padded = |length: usize| {
        // ApiVersions version 0 has no fields: what follows its header is not looked at.
        let mut payload = vec![0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff];
        payload.resize(length, 0);
        frame_of(length as i32, &payload)
    };
    let mut client = server.connect();
    client.send_raw(&padded(limit)).unwrap();
    assert!(client.receive_payload().is_ok(), "at the limit");
    let mut client = server.connect();
    client.send_raw(&padded(limit + 1)[..limit]).unwrap();
    assert!(client.read_until_closed().is_empty(), "refused before the last byte came");
    canaries.sing();
}

#[test]
fn arrays_and_tagged_fields_are_taken_at_their_limit_and_refused_above() {
    let server = with_topic(test_server!());
    let mut canaries = Canaries::new(&server);
    let forgetting = |count: usize| FetchRequest {
        forgotten_topics_data: vec![ForgottenTopic {
            topic: "t".into(),
            partitions: vec![0; count],
            ..ForgottenTopic::default()
        }],
        ..fetch(0, 0, 0, 1_000)
    };
    let mut client = server.connect();
    client.call(&forgetting(1_000_000), 11);
    client.send(&forgetting(1_000_001), 11).unwrap();
    assert!(client.read_until_closed().is_empty(), "one element too many");
    canaries.sing();

    let tagged = |count: u32| {
        let mut out = OutputBuffer::new();
        out.put_i16(ApiKey::ApiVersions.number());
        out.put_i16(3);
        out.put_i32(1);
        out.put_i16(-1);
        out.put_uvarint(0);
        for text in ["testkit", "1"] {
            out.put_uvarint(text.len() as u32 + 1);
            out.put_slice(text.as_bytes());
        }
        out.put_uvarint(count);
        for tag in 0..count {
            out.put_uvarint(tag + 100);
            out.put_uvarint(0);
        }
        let payload = out.to_vec();
        frame_of(payload.len() as i32, &payload)
    };
    let mut client = server.connect();
    client.send_raw(&tagged(10_000)).unwrap();
    assert!(client.receive_payload().is_ok(), "unknown tags are skipped");
    client.send_raw(&tagged(10_001)).unwrap();
    assert!(client.read_until_closed().is_empty(), "one tag too many");
    canaries.sing();

    // A count that the rest of the frame cannot hold costs nothing: no memory is reserved for it.
    let before = server.resident_bytes_peak();
    for _ in 0..50 {
        let mut out = OutputBuffer::new();
        out.put_i16(ApiKey::Metadata.number());
        out.put_i16(1);
        out.put_i32(1);
        out.put_i16(-1);
        out.put_i32(i32::MAX);
        let payload = out.to_vec();
        let mut client = server.connect();
        client.send_raw(&frame_of(payload.len() as i32, &payload)).unwrap();
        assert!(client.read_until_closed().is_empty());
    }
    assert!(server.resident_bytes_peak() - before < 10 << 20);
}

#[test]
fn a_client_that_takes_its_answers_slowly_delays_nobody() {
    let server = with_topic(test_server!());
    let mut client = server.connect();
    let batch = batch_of(Codec::None, None, -1, &[&vec![0x5a_u8; 900_000]]);
    client.call(&produce_request("t", Uuid::ZERO, 0, -1, &batch), NAMED);
    let mut canaries = Canaries::new(&server);
    let mut slow = server.connect();
    for _ in 0..12 {
        slow.send(&fetch(0, 0, 0, 1_000_000), NAMED).unwrap();
    }
    // What waits for the socket takes every size on its way from too much to nothing.
    let mut piece = vec![0; 100_000];
    for _ in 0..12 * batch.len() / piece.len() {
        slow.stream().read_exact(&mut piece).expect("the answers go on");
        canaries.sing();
    }
}

#[test]
fn a_large_answer_is_read_in_pieces_between_which_others_are_answered() {
    const PARTITIONS: i32 = 24;
    const ATTEMPTS: usize = 50;
    let small = test_server!().set("wal.tail_bytes_max=4MiB").set("wal.group_bytes_max=1MiB");
    let server = small.set("node.shards=1").start();
    let mut other = server.connect();
    create_topic(&mut other, NewTopic { name: "t", partitions: PARTITIONS, configs: &[] });
    let batch = batch_of(Codec::None, None, -1, &[&vec![0x5a_u8; 900_000]]);
    for partition in 0..PARTITIONS {
        other.call(&produce_request("t", Uuid::ZERO, partition, -1, &batch), NAMED);
    }
    let mut large = fetch(0, 0, 0, i32::MAX);
    let wanted = |partition| FetchPartition {
        partition,
        partition_max_bytes: 1 << 20,
        ..FetchPartition::default()
    };
    large.topics[0].partitions = (0..PARTITIONS).map(wanted).collect();
    let mut reader = server.connect();
    // Whoever asks second is answered first only if the large answer takes several turns. The
    // second request may come late, but not every time.
    let was_overtaken = (0..ATTEMPTS).any(|_| {
        reader.send(&large, NAMED).unwrap();
        other.call(&ApiVersionsRequest::default(), 0);
        reader.stream().set_nonblocking(true).unwrap();
        let peeked = reader.stream().peek(&mut [0]);
        reader.stream().set_nonblocking(false).unwrap();
        let reply = reader.receive::<FetchRequest<'_>>(NAMED).unwrap();
        assert!(reply.len() > PARTITIONS as usize * batch.len(), "the answer is complete");
        peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    });
    assert!(was_overtaken, "every answer came in one turn");
}

#[test]
fn a_fetch_of_old_records_beside_others_is_not_cut_to_a_turn() {
    const FITTING: usize = 10;
    let small = test_server!().set("wal.tail_bytes_max=4MiB").set("wal.group_bytes_max=1MiB");
    let server = with_topic(small.set("node.shards=1"));
    let mut other = server.connect();
    let batch = batch_of(Codec::None, None, -1, &[&vec![0x5a_u8; 100_000]]);
    for _ in 0..80 {
        other.call(&produce_request("t", Uuid::ZERO, 0, -1, &batch), NAMED);
    }
    let mut reader = server.connect();
    // Whoever asks at once is content with less.
    std::thread::sleep(Duration::from_millis(10));
    // Connections that alternate have short turns.
    other.call(&ApiVersionsRequest::default(), 0);
    let reply = reader.call(&fetch(0, 0, 0, 1 << 20), NAMED);
    assert!(reply.len() > FITTING * batch.len(), "{} bytes", reply.len());
    assert!(reply.len() < (FITTING + 1) * batch.len(), "{} bytes", reply.len());
}

/// Asks on two connections for a gigabyte in all and takes nothing; `command` decides whether the
/// records come from memory or from the disk. A first request that waits for `wait_ms` makes all
/// others ready at once.
#[allow(clippy::print_stdout, reason = "the figures belong to the test's output")]
fn a_gigabyte_nobody_reads(command: ServerCommand, source: &str, wait_ms: i32) {
    let server = with_topic(command);
    let mut client = server.connect();
    create_topic(&mut client, NewTopic { name: "other", partitions: 1, configs: &[] });
    let value = vec![0x5a_u8; 900_000];
    for _ in 0..40 {
        let batch = batch_of(Codec::None, None, -1, &[&value]);
        let reply = client.call(&produce_request("t", Uuid::ZERO, 0, -1, &batch), NAMED);
        assert_eq!(reply.body().responses[0].partition_responses[0].error_code, 0);
    }
    let answer_bytes = client.call(&fetch(0, 0, 0, 10_000_000), NAMED).len();
    let per_connection = (1 << 30) / answer_bytes / 2;
    let mut canaries = Canaries::new(&server);
    canaries.sing();
    let before = server.resident_bytes();
    let mut greedy = [server.connect(), server.connect()];
    for client in &mut greedy {
        client.send(&fetch(1, 0, wait_ms, 1_000), NAMED).expect("the server takes requests");
        for _ in 0..per_connection {
            client.send(&fetch(0, 0, 0, 10_000_000), NAMED).expect("the server takes requests");
        }
    }
    let batch = batch_of(Codec::None, None, -1, &["small"]);
    let mut slowest = Duration::ZERO;
    let measured_for = Duration::from_millis(wait_ms.unsigned_abs().into()) * 2;
    let measuring = Instant::now();
    while slowest.is_zero() || measuring.elapsed() < measured_for {
        let started = Instant::now();
        canaries.sing();
        let request = produce_request("other", Uuid::ZERO, 0, -1, &batch);
        let reply = canaries.0[0].call(&request, NAMED);
        assert_eq!(reply.body().responses[0].partition_responses[0].error_code, 0);
        slowest = slowest.max(started.elapsed());
    }
    let grown = server.resident_bytes_peak().saturating_sub(before);
    let mib = grown as f64 / f64::from(1 << 20);
    println!(
        "{source}: {} answers of {answer_bytes} bytes nobody reads grew the server by {mib:.1} \
         MiB; slowest canary {slowest:?}",
        2 * per_connection
    );
    assert!(grown < 64 << 20, "{source}: {mib:.1} MiB");
    assert!(slowest < Duration::from_secs(2), "{source}: {slowest:?}");

    // Whoever reads after all gets everything, in order.
    let [mut late, _] = greedy;
    let _ = late.receive::<FetchRequest<'_>>(NAMED).expect("the first is answered");
    for _ in 0..per_connection {
        let reply = late.receive::<FetchRequest<'_>>(NAMED).expect("the answers are still there");
        assert_eq!(reply.len(), answer_bytes);
    }
}

#[test]
fn a_client_that_never_reads_a_gigabyte_of_fresh_records_costs_bounded_memory() {
    a_gigabyte_nobody_reads(test_server!(), "from memory", 200);
}

#[test]
fn a_client_that_never_reads_a_gigabyte_of_old_records_costs_bounded_memory() {
    let small = test_server!().set("wal.tail_bytes_max=4MiB").set("wal.group_bytes_max=1MiB");
    a_gigabyte_nobody_reads(small, "from disk", 200);
}

/// The records are on the disk: each answer would be a copy of them.
#[test]
fn answers_behind_an_unacknowledged_batch_cost_bounded_memory() {
    const FETCHES: usize = 400;
    let directory = TempDir::new();
    let data = directory.path().join("data");
    let mut server = with_topic(test_server!().data_dir(&data));
    let large = batch_of(Codec::None, None, -1, &[vec![0x5a_u8; 900_000]]);
    server.connect().call(&produce_request("t", Uuid::ZERO, 0, -1, &large), NAMED);
    assert_eq!(server.terminate().code(), Some(0));

    let server = test_server!().on_slow_disk(&data, Duration::from_secs(1)).start();
    let mut client = server.connect();
    // The first answer is read from the disk, and counts what one costs.
    let answer_bytes = client.call(&fetch(0, 0, 0, 10_000_000), NAMED).len();
    assert!(answer_bytes > 900_000);
    let before = server.resident_bytes();
    let small = batch_of(Codec::None, None, -1, &["value"]);
    client.send(&produce_request("t", Uuid::ZERO, 1, -1, &small), NAMED).unwrap();
    for _ in 0..FETCHES {
        client.send(&fetch(0, 0, 0, 10_000_000), NAMED).unwrap();
    }
    let reply = client.receive::<ProduceRequest<'_>>(NAMED).unwrap();
    assert_eq!(reply.body().responses[0].partition_responses[0].error_code, 0);
    for _ in 0..FETCHES {
        let reply = client.receive::<FetchRequest<'_>>(NAMED).expect("every fetch is answered");
        assert_eq!(reply.len(), answer_bytes);
    }
    let grown = server.resident_bytes_peak().saturating_sub(before);
    println!("{FETCHES} answers of {answer_bytes} bytes grew the server by {grown} bytes");
    assert!(grown < 64 << 20, "{grown} bytes");
}

#[test]
fn small_batches_in_memory_do_not_keep_the_large_frames_they_came_in() {
    const ROUNDS: usize = 150;
    let server = with_topic(test_server!());
    let mut client = server.connect();
    // A kilobyte is copied in any case; nine are kept in place when they came alone.
    let [tiny, small] =
        [1_000, 9_000].map(|size| batch_of(Codec::None, None, -1, &[vec![0x5a_u8; size]]));
    let refused = vec![0x5a_u8; 900_000];
    let request = |small: &Bytes| {
        let part = |index, records: &Bytes| PartitionProduceData {
            index,
            records: Some(Records::Shared(records.clone())),
        };
        let partition_data = vec![part(0, small), part(1, &Bytes::from(refused.clone()))];
        let name = "t".into();
        let topic = TopicProduceData { name, topic_id: Uuid::ZERO, partition_data };
        let topic_data = vec![topic];
        ProduceRequest { transactional_id: None, acks: -1, timeout_ms: 30_000, topic_data }
    };
    let requests = [request(&tiny), request(&small)];
    let before = server.resident_bytes();
    for _ in 0..ROUNDS {
        for request in &requests {
            client.send(request, NAMED).unwrap();
        }
        for _ in &requests {
            let reply = client.receive::<ProduceRequest<'_>>(NAMED).unwrap();
            let codes: Vec<bool> = reply.body().responses[0]
                .partition_responses
                .iter()
                .map(|part| part.error_code == 0)
                .collect();
            assert_eq!(codes, [true, false]);
        }
    }
    let kept = server.metrics().value("chronik_tail_bytes");
    assert!(kept > (ROUNDS * (tiny.len() + small.len())) as f64, "all is in memory: {kept}");
    let grown = server.resident_bytes().saturating_sub(before);
    println!("{kept} bytes of batches in memory; the server grew by {grown} bytes");
    assert!(grown < 32 << 20, "{grown} bytes for {kept} bytes of batches");
}

#[test]
fn an_answer_that_nobody_takes_does_not_stop_its_request_from_counting() {
    let server = with_topic(test_server!());
    let batch = batch_of(Codec::None, None, -1, &["value"]);
    for _ in 0..50 {
        let mut client = server.connect();
        let request = produce_request("t", Uuid::ZERO, 0, -1, &batch);
        client.send(&request, NAMED).unwrap();
    }
    let mut client = server.connect();
    let mut answered = 0;
    let mut end = 0;
    while answered < 100 && end < 50 {
        let reply = client.call(&fetch(0, end, 1_000, 1 << 20), NAMED);
        end = reply.body().responses[0].partitions[0].high_watermark;
        answered += 1;
    }
    assert_eq!(end, 50, "requests count once they are received");
    let request = produce_request("t", Uuid::ZERO, 0, -1, &batch);
    let reply = client.call::<ProduceRequest<'_>>(&request, NAMED);
    assert_eq!(reply.body().responses[0].partition_responses[0].base_offset, 50);
}
