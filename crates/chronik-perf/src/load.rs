//! Fixed loads on the real server, counted per request.
//!
//! ```text
//!  plain      the server's own counters and the kernel's, before and after the load
//!  strace     system calls: a short and a long run, the difference shared among the requests
//!  callgrind  instructions and allocations of the server: the same two runs
//! ```
//!
//! How many requests share a group depends on how long a sync takes. A load whose figures depend
//! on that runs on a disk whose syncs take [`SLOW_SYNC`] longer, so that neither the machine nor
//! what counts changes them much; the requests themselves are not slowed down.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use chronik_common::Uuid;
use chronik_protocol::fetch::{FetchPartition, FetchRequest, FetchTopic};
use chronik_protocol::produce::ProduceRequest;
use chronik_record::Codec;
use chronik_testkit::{
    Client, Metrics, NewTopic, ServerCommand, TempDir, TestServer, batch_of, create_topic,
    produce_request,
};

use crate::callgrind::{self, Counts};
use crate::process::{ProcessCounters, counters_of, wait_for_thread_end};
use crate::{Figure, strace};

/// The newest version of Produce and Fetch that names topics.
const VERSION: i16 = 12;
const TOPIC: &str = "perf";
const VALUE_BYTES: usize = 256;
/// Longer than a round of requests takes, traced or not.
const SLOW_SYNC: Duration = Duration::from_millis(20);
/// Requests of a plain run that are not counted.
const WARM_UP_REQUESTS: u32 = 1_000;
/// Bytes a fetch asks for: about fifty batches.
const FETCH_BYTES_MAX: i32 = 16 << 10;
/// Shards of the server, so that the machine's cores do not matter.
const SHARDS: &str = "node.shards=2";

/// A load on a server of its own.
struct Load {
    name: &'static str,
    partitions: i32,
    /// True if groups must not depend on the machine's disk.
    is_sync_slow: bool,
    /// Requests that are counted, a multiple of what the load sends at once.
    requests: u32,
    /// True if instructions and allocations are counted too: they are exact where requests come
    /// one at a time.
    is_profiled: bool,
    open: fn(&TestServer) -> Box<dyn Drive>,
}

/// The client side of a load.
trait Drive {
    /// Sends so many requests and takes their answers.
    fn drive(&mut self, requests: u32);
}

/// The server's thread that fills a new journal with zeros.
const ZERO_FILL_THREAD: &str = "journal-zeros";

const LOADS: &[Load] = &[
    Load {
        name: "single-64",
        partitions: 1,
        is_sync_slow: true,
        requests: 10_000,
        is_profiled: false,
        open: |server| Box::new(Connections::open(server, 64)),
    },
    Load {
        name: "partitions-1000",
        partitions: 1_000,
        // Every file's syncs would be slow, and each partition has some.
        is_sync_slow: false,
        requests: 10_000,
        is_profiled: false,
        open: |server| Box::new(Pipelined::open(server, 1_000)),
    },
    Load {
        name: "lone-produce",
        partitions: 1,
        is_sync_slow: false,
        requests: 2_000,
        is_profiled: true,
        open: |server| Box::new(Connections::open(server, 1)),
    },
    Load {
        name: "lone-fetch",
        partitions: 1,
        is_sync_slow: false,
        requests: 2_000,
        is_profiled: true,
        open: |server| Box::new(Fetches::open(server)),
    },
];

/// All names, in order.
pub fn names() -> impl Iterator<Item = &'static str> {
    LOADS.iter().map(|load| load.name)
}

/// Counts what a load costs `server`; `None` if there is none of that name.
///
/// # Panics
/// If the server or a tool fails.
pub fn count(name: &str, server: &Path) -> Option<Vec<Figure>> {
    let load = LOADS.iter().find(|load| load.name == name)?;
    let mut figures = load.count_plainly(server);
    figures.push(load.count_calls(server));
    if load.is_profiled {
        figures.extend(load.profile(server));
    }
    Some(figures)
}

impl Load {
    fn figure(&self, measure: &'static str, value: f64) -> Figure {
        Figure { scenario: self.name, measure, value }
    }

    fn sync_delay(&self) -> Duration {
        if self.is_sync_slow { SLOW_SYNC } else { Duration::ZERO }
    }

    fn start(&self, server: &Path, wrapper: &[String]) -> (TestServer, Box<dyn Drive>) {
        let command = ServerCommand::new(server).under(wrapper).set(SHARDS);
        // It tells when a thread that it was delaying ends.
        let server = command.expect_log("strace: ").start();
        let partitions = self.partitions;
        let topic = NewTopic { name: TOPIC, partitions, configs: &[] };
        create_topic(&mut server.connect(), topic);
        let drive = (self.open)(&server);
        // It works once in the life of a journal; the load is not the cause.
        wait_for_thread_end(server.pid(), ZERO_FILL_THREAD);
        (server, drive)
    }

    fn count_plainly(&self, server: &Path) -> Vec<Figure> {
        let wrapper =
            if self.is_sync_slow { strace::delaying(self.sync_delay()) } else { Vec::new() };
        let (mut server, mut drive) = self.start(server, &wrapper);
        drive.drive(WARM_UP_REQUESTS);
        let before = Sample::of(&server);
        drive.drive(self.requests);
        let after = Sample::of(&server);
        server.terminate();
        let requests = f64::from(self.requests);
        let [syncs, groups, received, journal] = [
            "chronik_wal_syncs_total{lane=\"data\"}",
            "chronik_wal_groups_total{lane=\"data\"}",
            "chronik_produce_bytes_total",
            "chronik_wal_journal_bytes_total{lane=\"data\"}",
        ]
        .map(|name| after.metrics.value(name) - before.metrics.value(name));
        let waits = (after.process.waits - before.process.waits) as f64;
        let written = after.process.written_bytes - before.process.written_bytes;
        eprintln!(
            "{}: {requests} requests, {groups} groups, {syncs} syncs, {received} bytes received, \
             {journal} bytes to the journal, {written} to the disk",
            self.name
        );
        let mut figures = Vec::new();
        // Under strace a thread also waits for strace.
        if !self.is_sync_slow {
            figures.push(self.figure("context-switches-per-request", waits / requests));
        }
        if groups > 0.0 {
            figures.extend([
                self.figure("requests-per-sync", requests / syncs),
                self.figure("syncs-per-group", syncs / groups),
                self.figure("journal-bytes-per-byte", journal / received),
                self.figure("written-bytes-per-byte", written as f64 / received),
            ]);
        }
        figures
    }

    fn count_calls(&self, server: &Path) -> Figure {
        let directory = TempDir::new();
        let output = directory.path().join("calls");
        let wrapper = strace::counting(&output, self.sync_delay());
        let [before, after] = [0, self.requests].map(|more| {
            self.run(server, &wrapper, WARM_UP_REQUESTS + more);
            strace::read(&output)
        });
        let grown = after.iter().map(|(name, calls)| {
            let calls = *calls as f64 - before.get(name).copied().unwrap_or(0) as f64;
            (calls / f64::from(self.requests), name)
        });
        let mut grown: Vec<(f64, &String)> = grown.collect();
        grown.sort_by(|left, right| right.0.total_cmp(&left.0));
        for (calls, name) in grown.iter().take_while(|(calls, _)| *calls >= 0.01) {
            eprintln!("{}: {calls:.2} {name} per request", self.name);
        }
        self.figure("syscalls-per-request", grown.iter().map(|(calls, _)| calls).sum())
    }

    fn profile(&self, server: &Path) -> Vec<Figure> {
        let directory = TempDir::new();
        let output = directory.path().join("profile");
        let wrapper = callgrind::wrapper(&output);
        let few = self.requests / 10;
        let [before, after]: [Counts; 2] = [few, self.requests + few].map(|requests| {
            self.run(server, &wrapper, requests);
            callgrind::counts_in(&output)
        });
        let (instructions, allocations) = after.per_operation_since(before, self.requests);
        vec![
            self.figure("instructions-per-request", instructions),
            self.figure("allocations-per-request", allocations),
        ]
    }

    /// A whole life of a server, from start to stop.
    fn run(&self, server: &Path, wrapper: &[String], requests: u32) {
        let (mut server, mut drive) = self.start(server, wrapper);
        drive.drive(requests);
        drop(drive);
        let status = server.terminate();
        assert_eq!(status.code(), Some(0), "{} ends as it should", self.name);
    }
}

/// Counters at one moment.
struct Sample {
    metrics: Metrics,
    process: ProcessCounters,
}

impl Sample {
    fn of(server: &TestServer) -> Self {
        Self { metrics: server.metrics(), process: counters_of(server.pid()) }
    }
}

fn batch() -> Bytes {
    batch_of(Codec::None, None, -1, &[[b'v'; VALUE_BYTES]])
}

fn expect_produced(client: &mut Client) {
    let reply = client.receive::<ProduceRequest<'_>>(VERSION).expect("the server answers");
    assert_eq!(reply.body().responses[0].partition_responses[0].error_code, 0);
}

/// One request in flight on each connection.
struct Connections {
    clients: Vec<Client>,
    batch: Bytes,
}

impl Connections {
    fn open(server: &TestServer, count: usize) -> Self {
        Self { clients: (0..count).map(|_| server.connect()).collect(), batch: batch() }
    }
}

impl Drive for Connections {
    fn drive(&mut self, requests: u32) {
        let connections = u32::try_from(self.clients.len()).expect("connections are few");
        let batch = &self.batch;
        std::thread::scope(|scope| {
            for (number, client) in (0..connections).zip(&mut self.clients) {
                let share = requests / connections + u32::from(number < requests % connections);
                scope.spawn(move || {
                    let request = produce_request(TOPIC, Uuid::ZERO, 0, 1, batch);
                    for _ in 0..share {
                        client.send(&request, VERSION).expect("the server reads");
                        expect_produced(client);
                    }
                });
            }
        });
    }
}

/// One connection with as many requests in flight as there are partitions, one for each.
struct Pipelined {
    client: Client,
    partitions: u32,
    batch: Bytes,
}

impl Pipelined {
    fn open(server: &TestServer, partitions: u32) -> Self {
        Self { client: server.connect(), partitions, batch: batch() }
    }
}

impl Drive for Pipelined {
    fn drive(&mut self, requests: u32) {
        assert!(requests.is_multiple_of(self.partitions), "whole rounds");
        for _ in 0..requests / self.partitions {
            let mut round = Vec::new();
            for partition in 0..self.partitions {
                let partition = i32::try_from(partition).expect("partitions are few");
                let request = produce_request(TOPIC, Uuid::ZERO, partition, 1, &self.batch);
                round.extend(self.client.frame(&request, VERSION));
            }
            self.client.send_raw(&round).expect("the server reads");
            (0..self.partitions).for_each(|_| expect_produced(&mut self.client));
        }
    }
}

/// One connection that fetches the same fifty batches again and again.
struct Fetches {
    client: Client,
}

impl Fetches {
    fn open(server: &TestServer) -> Self {
        Connections::open(server, 1).drive(100);
        Self { client: server.connect() }
    }
}

impl Drive for Fetches {
    fn drive(&mut self, requests: u32) {
        let partition =
            FetchPartition { partition_max_bytes: FETCH_BYTES_MAX, ..FetchPartition::default() };
        let topic = FetchTopic {
            topic: TOPIC.into(),
            partitions: vec![partition],
            ..FetchTopic::default()
        };
        let request = FetchRequest { min_bytes: 1, topics: vec![topic], ..FetchRequest::default() };
        for _ in 0..requests {
            let reply = self.client.call(&request, VERSION);
            let answer = reply.body();
            let part = &answer.responses[0].partitions[0];
            let bytes = part.records.as_ref().map_or(0, chronik_protocol::Records::len);
            assert!(part.error_code == 0 && bytes > 0, "{}: {bytes} bytes", part.error_code);
        }
    }
}
