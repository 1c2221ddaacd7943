//! What a client may append and what it is told: every rule about batches, idempotence and topic
//! configs, through the wire, and back out of the log.

use chronik_common::{ErrorCode, Uuid};
use chronik_protocol::Records;
use chronik_protocol::fetch::{FetchPartition, FetchRequest, FetchTopic};
use chronik_protocol::init_producer_id::InitProducerIdRequest;
use chronik_protocol::produce::{
    PartitionProduceData, PartitionProduceResponse, ProduceRequest, TopicProduceData,
};
use chronik_record::{BatchHeader, Codec, TimestampType, crc, layout};
use chronik_testkit::{
    Client, NewTopic, OwnedRecord, TestServer, batch_of, create_topic, decode_batches, list_offset,
    produce_request, test_server,
};

/// The newest version that names topics.
const NAMED: i16 = 12;
/// Kafka's default of `max.message.bytes`.
const BATCH_BYTES_MAX: usize = 1_048_588;

struct Broker {
    _server: TestServer,
    client: Client,
}

/// What a partition said about a batch.
#[derive(Clone, Debug)]
struct Told {
    code: ErrorCode,
    base_offset: i64,
    log_append_time_ms: i64,
    log_start_offset: i64,
    message: Option<String>,
}

impl From<&PartitionProduceResponse<'_>> for Told {
    fn from(answer: &PartitionProduceResponse<'_>) -> Self {
        Self {
            code: ErrorCode::try_from(answer.error_code).expect("a code of Kafka's table"),
            base_offset: answer.base_offset,
            log_append_time_ms: answer.log_append_time_ms,
            log_start_offset: answer.log_start_offset,
            message: answer.error_message.as_ref().map(ToString::to_string),
        }
    }
}

impl Broker {
    /// A server with topic `t`.
    fn new() -> Self {
        let server = test_server!().start();
        let client = server.connect();
        let mut broker = Self { _server: server, client };
        broker.create("t", &[]);
        broker
    }

    fn create(&mut self, name: &str, configs: &[(&str, &str)]) {
        create_topic(&mut self.client, NewTopic { name, partitions: 3, configs });
    }

    fn produce(&mut self, topic: &str, batch: &[u8]) -> Told {
        self.produce_at(NAMED, topic, batch)
    }

    fn produce_at(&mut self, version: i16, topic: &str, batch: &[u8]) -> Told {
        let request = produce_request(topic, Uuid::ZERO, 0, -1, batch);
        let reply = self.client.call(&request, version);
        Told::from(&reply.body().responses[0].partition_responses[0])
    }

    #[track_caller]
    fn expect_stored(&mut self, topic: &str, batch: &[u8]) -> i64 {
        let told = self.produce(topic, batch);
        assert_eq!(told.code, ErrorCode::None, "{told:?}");
        assert_eq!(told.log_start_offset, 0);
        told.base_offset
    }

    /// The batch is refused, and nothing of it is in the log.
    #[track_caller]
    fn expect_refused(&mut self, topic: &str, batch: &[u8], code: ErrorCode) {
        let end = self.end(topic);
        let told = self.produce(topic, batch);
        assert_eq!(told.code, code, "{told:?}");
        assert_eq!((told.base_offset, told.log_append_time_ms), (-1, -1));
        assert!(told.message.is_some(), "version 8 and later say why");
        assert_eq!(self.end(topic), end, "a refused batch is not stored");
    }

    fn end(&mut self, topic: &str) -> i64 {
        list_offset(&mut self.client, 7, topic, 0, -1).offset
    }

    fn read(&mut self, topic: &str, offset: i64) -> Vec<(BatchHeader, Vec<OwnedRecord>)> {
        let partitions = vec![FetchPartition {
            fetch_offset: offset,
            partition_max_bytes: 10 << 20,
            ..FetchPartition::default()
        }];
        let topic = FetchTopic { topic: topic.into(), partitions, ..FetchTopic::default() };
        let request = FetchRequest { topics: vec![topic], ..FetchRequest::default() };
        let reply = self.client.call(&request, NAMED);
        let answer = reply.body();
        let data = &answer.responses[0].partitions[0];
        assert_eq!(data.error_code, 0);
        decode_batches(&data.records.as_ref().expect("never null").contiguous())
    }

    fn producer_id(&mut self) -> i64 {
        self.client.call(&InitProducerIdRequest::default(), 5).body().producer_id
    }
}

fn plain(values: &[&str]) -> Vec<u8> {
    batch_of(Codec::None, None, -1, values).to_vec()
}

fn idempotent(id: i64, epoch: i16, sequence: i32, values: &[&str]) -> Vec<u8> {
    batch_of(Codec::None, Some((id, epoch, sequence)), -1, values).to_vec()
}

/// Overwrites bytes of a batch's header and makes its checksum right again.
fn patched(batch: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut batch = batch.to_vec();
    batch[at..at + bytes.len()].copy_from_slice(bytes);
    let checksum = crc::crc32c(&batch[layout::ATTRIBUTES..]).to_be_bytes();
    batch[layout::CRC..layout::CRC + 4].copy_from_slice(&checksum);
    batch
}

fn wall_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(now.expect("this is after 1970").as_millis()).expect("for a long time")
}

#[test]
fn offsets_are_dense_and_the_stored_bytes_are_the_producers_but_for_offset_and_epoch() {
    let mut broker = Broker::new();
    let mut expected = 0;
    for codec in Codec::ALL {
        for count in [1, 3, 500] {
            let values: Vec<String> = (0..count).map(|n| format!("{codec}-{n}")).collect();
            let batch = batch_of(codec, None, 1_234, &values);
            assert_eq!(broker.expect_stored("t", &batch), expected);
            let stored = &broker.read("t", expected)[0];
            assert_eq!(stored.0.base_offset.0, expected);
            assert!(stored.0.partition_leader_epoch.0 >= 0, "the leader's epoch is put in");
            assert_eq!(stored.0.attributes.codec(), Ok(codec), "the producer's codec is kept");
            assert_eq!(stored.0.crc, BatchHeader::parse(&batch).unwrap().crc);
            let found: Vec<_> = stored.1.iter().map(|one| one.value.clone().unwrap()).collect();
            assert_eq!(found, values.iter().map(|one| one.as_bytes().to_vec()).collect::<Vec<_>>());
            expected += i64::from(count);
        }
    }
}

#[test]
fn batches_that_break_a_rule_are_refused_with_its_code_and_never_stored() {
    use ErrorCode::{CorruptMessage, InvalidRecord, UnsupportedCompressionType};
    let mut broker = Broker::new();
    let good = plain(&["a", "b"]);
    broker.expect_stored("t", &good);

    for at in layout::ATTRIBUTES..good.len() {
        let mut damaged = good.clone();
        damaged[at] ^= 0x01;
        broker.expect_refused("t", &damaged, CorruptMessage);
    }
    let mut wrong_checksum = good.clone();
    wrong_checksum[layout::CRC] ^= 0x80;
    broker.expect_refused("t", &wrong_checksum, CorruptMessage);
    for cut in [0, 1, 16, 60, good.len() - 1] {
        let code = if cut == 0 { InvalidRecord } else { CorruptMessage };
        broker.expect_refused("t", &good[..cut], code);
    }
    let short = patched(&good, layout::BATCH_LENGTH, &48_i32.to_be_bytes());
    broker.expect_refused("t", &short, CorruptMessage);
    let negative = patched(&good, layout::BATCH_LENGTH, &(-1_i32).to_be_bytes());
    broker.expect_refused("t", &negative, CorruptMessage);
    let trailing = [&good[..], &[0; 5]].concat();
    broker.expect_refused("t", &trailing, CorruptMessage);

    broker.expect_refused("t", &[&good[..], &good[..]].concat(), InvalidRecord);
    for magic in [0_u8, 1, 3, 0xff] {
        let mut other = good.clone();
        other[layout::MAGIC] = magic;
        broker.expect_refused("t", &other, InvalidRecord);
    }
    for count in [-1_i32, 0, 1, 3, i32::MAX] {
        let counted = patched(&good, layout::RECORD_COUNT, &count.to_be_bytes());
        broker.expect_refused("t", &counted, InvalidRecord);
    }
    for delta in [-1_i32, 0, 2, i32::MAX] {
        let last = patched(&good, layout::LAST_OFFSET_DELTA, &delta.to_be_bytes());
        broker.expect_refused("t", &last, InvalidRecord);
    }
    let control = patched(&good, layout::ATTRIBUTES, &layout::CONTROL_BIT.to_be_bytes());
    broker.expect_refused("t", &control, InvalidRecord);
    let no_sequence = patched(&idempotent(5, 0, 0, &["v"]), layout::BASE_SEQUENCE, &[0xff; 4]);
    broker.expect_refused("t", &no_sequence, InvalidRecord);
    for codec in 5..=7_i16 {
        let unknown = patched(&good, layout::ATTRIBUTES, &codec.to_be_bytes());
        broker.expect_refused("t", &unknown, UnsupportedCompressionType);
    }
    let transactional = layout::TRANSACTIONAL_BIT.to_be_bytes();
    let transactional = patched(&idempotent(5, 0, 0, &["v"]), layout::ATTRIBUTES, &transactional);
    broker.expect_refused("t", &transactional, ErrorCode::InvalidTxnState);

    assert_eq!(broker.end("t"), 2);
    // What a client puts into the fields that the broker owns means nothing.
    let offset = patched(&good, layout::BASE_OFFSET, &i64::MAX.to_be_bytes());
    let epoch = patched(&offset, layout::PARTITION_LEADER_EPOCH, &77_i32.to_be_bytes());
    assert_eq!(broker.expect_stored("t", &epoch), 2);
    assert!(broker.read("t", 2)[0].0.partition_leader_epoch.0 < 77);
}

#[test]
fn zstd_needs_produce_version_7() {
    let mut broker = Broker::new();
    let batch = batch_of(Codec::Zstd, None, -1, &["v"]);
    for version in 3..=NAMED {
        let code = broker.produce_at(version, "t", &batch).code;
        let expected =
            if version < 7 { ErrorCode::UnsupportedCompressionType } else { ErrorCode::None };
        assert_eq!(code, expected, "version {version}");
    }
}

#[test]
fn a_batch_is_stored_at_its_size_limit_and_refused_one_byte_above() {
    let mut broker = Broker::new();
    broker.create("small", &[("max.message.bytes", "10000")]);
    let sized = |size: usize| {
        let overhead = plain(&[""]).len() + 4;
        let mut batch = plain(&[&"x".repeat(size - overhead)]);
        // Variable-length lengths move the size by a byte or two.
        let correction = batch.len() as i64 - size as i64;
        let length = (size - overhead) as i64 - correction;
        batch = plain(&[&"x".repeat(length as usize)]);
        assert_eq!(batch.len(), size);
        batch
    };
    for (topic, limit) in [("small", 10_000), ("t", BATCH_BYTES_MAX)] {
        broker.expect_stored(topic, &sized(limit));
        broker.expect_refused(topic, &sized(limit + 1), ErrorCode::MessageTooLarge);
    }
    let configs = [("max.message.bytes", "3000000"), ("segment.bytes", "2000000")];
    broker.create("segmented", &configs);
    broker.expect_stored("segmented", &sized(1_900_000));
    broker.expect_refused("segmented", &sized(2_000_001), ErrorCode::RecordListTooLarge);
}

#[test]
fn log_append_time_topics_stamp_batches_and_others_take_a_clients_claim_back() {
    let mut broker = Broker::new();
    broker.create("stamped", &[("message.timestamp.type", "LogAppendTime")]);
    let before = wall_ms();
    let told = broker.produce("stamped", &batch_of(Codec::Lz4, None, 5, &["a", "b"]));
    assert_eq!(told.code, ErrorCode::None);
    assert!((before..=wall_ms()).contains(&told.log_append_time_ms), "{told:?}");
    let (header, records) = broker.read("stamped", 0).remove(0);
    assert_eq!(header.attributes.timestamp_type(), TimestampType::LogAppendTime);
    assert_eq!((header.base_timestamp, header.max_timestamp), (5, told.log_append_time_ms));
    assert!(records.iter().all(|record| record.timestamp == told.log_append_time_ms));

    let bit = layout::LOG_APPEND_TIME_BIT.to_be_bytes();
    let claimed = patched(&plain(&["v"]), layout::ATTRIBUTES, &bit);
    broker.expect_refused("stamped", &claimed, ErrorCode::InvalidTimestamp);
    let claimed = patched(&batch_of(Codec::None, None, 9, &["v"]), layout::ATTRIBUTES, &bit);
    let told = broker.produce("t", &claimed);
    assert_eq!((told.code, told.log_append_time_ms), (ErrorCode::None, -1));
    let (header, records) = broker.read("t", 0).remove(0);
    assert_eq!(header.attributes.timestamp_type(), TimestampType::CreateTime);
    assert_eq!(records[0].timestamp, 9, "the producer's own time counts");
}

#[test]
fn timestamps_out_of_a_topics_bounds_are_refused() {
    let mut broker = Broker::new();
    let hour = 3_600_000;
    broker.create(
        "bounded",
        &[
            ("message.timestamp.before.max.ms", "1000000"),
            ("message.timestamp.after.max.ms", "60000"),
        ],
    );
    let at = |timestamp| batch_of(Codec::Gzip, None, timestamp, &["v"]);
    let now = wall_ms();
    for (topic, timestamp) in
        [("t", now + hour - 10_000), ("t", 0), ("t", -1), ("bounded", now), ("bounded", -1)]
    {
        broker.expect_stored(topic, &at(timestamp));
    }
    for (topic, timestamp) in
        [("t", now + hour + 10_000), ("bounded", now + 90_000), ("bounded", now - 1_100_000)]
    {
        broker.expect_refused(topic, &at(timestamp), ErrorCode::InvalidTimestamp);
    }
}

#[test]
fn full_validation_looks_at_every_record_and_batch_validation_trusts_the_header() {
    let mut broker = Broker::new();
    broker.create("full", &[("chronik.validation", "full")]);
    let good = plain(&["a", "b"]);
    // The second record says it is at offset delta 0 as well.
    let second = good.len() - 7 - 1 + 3;
    let repeated = patched(&good, second, &[0]);
    let bad_length = patched(&good, layout::RECORDS, &[0x7e]);
    let compressed = batch_of(Codec::Gzip, None, -1, &["a", "b"]);
    let not_gzip = patched(&compressed, layout::RECORDS, &[0; 4]);
    for (batch, code) in [
        (&repeated, ErrorCode::InvalidRecord),
        (&bad_length, ErrorCode::InvalidRecord),
        (&not_gzip, ErrorCode::CorruptMessage),
    ] {
        broker.expect_refused("full", batch, code);
        broker.expect_stored("t", batch);
    }
    broker.expect_stored("full", &good);
    broker.expect_stored("full", &compressed);
    // A bomb costs its own batch only.
    let zeros = "\0".repeat(80 << 20);
    let bomb = batch_of(Codec::Zstd, None, -1, &[&zeros]);
    assert!(bomb.len() < BATCH_BYTES_MAX, "{} bytes", bomb.len());
    broker.expect_refused("full", &bomb, ErrorCode::CorruptMessage);
    broker.expect_stored("full", &good);
}

#[test]
fn compression_type_decides_the_stored_codec_and_never_the_records() {
    let mut broker = Broker::new();
    let names = ["uncompressed", "gzip", "snappy", "lz4", "zstd"];
    let values: Vec<String> = (0..200).map(|number| format!("value {number}")).collect();
    for (name, stored_codec) in names.into_iter().zip(Codec::ALL) {
        broker.create(name, &[("compression.type", name)]);
        for codec in Codec::ALL {
            let offset = broker.expect_stored(name, &batch_of(codec, None, 77, &values));
            let (header, records) = broker.read(name, offset).remove(0);
            assert_eq!(header.attributes.codec(), Ok(stored_codec), "{codec} into {name}");
            let found = records.iter().map(|record| record.value.clone().unwrap());
            assert!(found.eq(values.iter().map(|value| value.clone().into_bytes())));
            assert!(records.iter().all(|record| record.timestamp == 77));
        }
    }
    // Consumers that do not know zstd are told so instead of being given it.
    let partitions =
        vec![FetchPartition { partition_max_bytes: 1 << 20, ..FetchPartition::default() }];
    let topic = FetchTopic { topic: "zstd".into(), partitions, ..FetchTopic::default() };
    let request = FetchRequest { topics: vec![topic], ..FetchRequest::default() };
    for version in 4..=NAMED {
        let code =
            broker.client.call(&request, version).body().responses[0].partitions[0].error_code;
        let expected =
            if version < 10 { ErrorCode::UnsupportedCompressionType } else { ErrorCode::None };
        assert_eq!(code, expected.code(), "version {version}");
    }
}

#[test]
fn each_partition_of_a_request_has_its_own_outcome() {
    let mut broker = Broker::new();
    let (good, mut corrupt) = (plain(&["v"]), plain(&["v"]));
    *corrupt.last_mut().unwrap() ^= 1;
    let large = plain(&[&"x".repeat(BATCH_BYTES_MAX)]);
    let part = |index, batch: &[u8]| PartitionProduceData {
        index,
        records: Some(Records::Shared(batch.to_vec().into())),
    };
    let topic = |name: &'static str, partition_data| TopicProduceData {
        name: name.into(),
        topic_id: Uuid::ZERO,
        partition_data,
    };
    for (round, acks) in (0_i64..).zip([1, -1]) {
        let request = ProduceRequest {
            transactional_id: None,
            acks,
            timeout_ms: 10_000,
            topic_data: vec![
                topic(
                    "t",
                    vec![part(2, &good), part(0, &corrupt), part(1, &large), part(9, &good)],
                ),
                topic("unknown", vec![part(0, &good)]),
                topic("t", vec![part(0, &good)]),
            ],
        };
        for version in [3, 8, NAMED] {
            let reply = broker.client.call(&request, version);
            let answer = reply.body();
            let told: Vec<Vec<Told>> = answer
                .responses
                .iter()
                .map(|topic| topic.partition_responses.iter().map(Told::from).collect())
                .collect();
            let codes: Vec<Vec<ErrorCode>> =
                told.iter().map(|parts| parts.iter().map(|one| one.code).collect()).collect();
            let expected = vec![
                vec![
                    ErrorCode::None,
                    ErrorCode::CorruptMessage,
                    ErrorCode::MessageTooLarge,
                    ErrorCode::UnknownTopicOrPartition,
                ],
                vec![ErrorCode::UnknownTopicOrPartition],
                vec![ErrorCode::None],
            ];
            assert_eq!(codes, expected, "version {version}");
            assert_eq!(told[0][0].base_offset, told[2][0].base_offset);
            assert!(told[0][0].base_offset >= round * 3);
            assert_eq!(told[0][1].message.is_some(), version >= 8, "version {version}");
        }
    }
}

#[test]
fn duplicates_get_their_original_offset_and_gaps_and_stale_epochs_are_refused() {
    let mut broker = Broker::new();
    let id = broker.producer_id();
    let mut offsets = Vec::new();
    for number in 0..7 {
        offsets.push(broker.expect_stored("t", &idempotent(id, 0, number * 2, &["a", "b"])));
        broker.expect_stored("t", &plain(&["between"]));
    }
    let end = broker.end("t");
    for number in (2..7).rev() {
        let again = broker.expect_stored("t", &idempotent(id, 0, number * 2, &["a", "b"]));
        assert_eq!(again, offsets[number as usize], "batch {number}");
    }
    assert_eq!(broker.end("t"), end, "duplicates are not stored");

    let out_of_order = ErrorCode::OutOfOrderSequenceNumber;
    broker.expect_refused("t", &idempotent(id, 0, 0, &["a", "b"]), out_of_order);
    broker.expect_refused("t", &idempotent(id, 0, 15, &["a"]), out_of_order);
    broker.expect_refused("t", &idempotent(id, 0, 13, &["a"]), out_of_order);
    broker.expect_refused("t", &idempotent(id, 1, 14, &["a"]), out_of_order);
    broker.expect_stored("t", &idempotent(id, 1, 0, &["a"]));
    broker.expect_refused("t", &idempotent(id, 0, 14, &["a"]), ErrorCode::InvalidProducerEpoch);
    broker.expect_stored("t", &idempotent(id, 1, 1, &["a"]));

    // A producer that the partition does not know may start anywhere (KIP-360), and its numbers
    // wrap around.
    let other = broker.producer_id();
    let first = broker.expect_stored("t", &idempotent(other, 0, i32::MAX - 1, &["a", "b"]));
    assert_eq!(broker.expect_stored("t", &idempotent(other, 0, 0, &["c"])), first + 2);
    assert_eq!(broker.expect_stored("t", &idempotent(other, 0, i32::MAX - 1, &["a", "b"])), first);
}

#[test]
fn a_duplicate_in_the_same_pipeline_waits_for_its_original() {
    let mut broker = Broker::new();
    let id = broker.producer_id();
    let batch = idempotent(id, 0, 0, &["v"]);
    let request = produce_request("t", Uuid::ZERO, 0, -1, &batch);
    for _ in 0..5 {
        broker.client.send(&request, NAMED).unwrap();
    }
    for _ in 0..5 {
        let reply = broker.client.receive::<ProduceRequest<'_>>(NAMED).unwrap();
        let told = Told::from(&reply.body().responses[0].partition_responses[0]);
        assert_eq!((told.code, told.base_offset), (ErrorCode::None, 0));
    }
    assert_eq!(broker.end("t"), 1);
}
