//! Starting: refusals in words an operator can act on, the printed configuration, the documented
//! command lines, and what a started server tells over HTTP.

use std::path::Path;

use chronik_protocol::metadata::MetadataRequest;
use chronik_testkit::{
    NewTopic, ServerCommand, TempDir, TestServer, create_topic, test_server, topic_id,
};
use serde_json::Value;

const EXIT_REFUSED: i32 = 1;
const EXIT_USAGE: i32 = 2;

fn command(words: &[&str]) -> ServerCommand {
    words.iter().fold(test_server!(), |command, word| command.argument(*word))
}

/// A server that must not start: its exit code, and that its message has all of `texts`.
#[track_caller]
fn refused(words: &[&str], code: i32, texts: &[&str]) {
    let ended = command(words).run_to_end();
    assert_eq!(ended.code, Some(code), "{words:?}: {}", ended.errors);
    for text in texts {
        assert!(ended.errors.contains(text), "{text} is missing in {}", ended.errors);
    }
    assert!(!ended.errors.contains("panicked"), "{}", ended.errors);
    assert_eq!(ended.output, "", "a refusal goes to standard error");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are text")
}

#[test]
fn a_taken_port_is_refused_with_its_holder_before_any_data_is_touched() {
    let holder = test_server!().start();
    let directory = TempDir::new();
    let data = directory.path().join("data");
    let pid = format!("pid {}", holder.pid());
    for (flag, other, address) in [
        ("--kafka-port", "--http-port", holder.kafka()),
        ("--http-port", "--kafka-port", holder.http()),
    ] {
        let port = address.port().to_string();
        let words = [flag, &port, other, "0", "--data-dir", text(&data), "standalone"];
        let listen = format!("E001 cannot listen on {address}");
        refused(&words, EXIT_REFUSED, &[&listen, &pid, "test-server", flag]);
        assert!(!data.join("node.meta").exists(), "a start that fails gives no identity");
    }
}

#[test]
fn an_address_that_clients_cannot_reach_is_refused() {
    let directory = TempDir::new();
    let data = directory.path().join("data");
    for wildcard in ["0.0.0.0", "0.0.0.0:9092", "[::]:9092"] {
        let words = ["--advertised-addr", wildcard, "--data-dir", text(&data), "standalone"];
        refused(&words, EXIT_USAGE, &["E002", "--advertised-addr"]);
    }
    assert!(!data.exists());
}

#[test]
fn a_directory_that_cannot_be_written_or_is_in_use_or_anothers_is_refused() {
    let directory = TempDir::new();
    let file = directory.path().join("file");
    std::fs::write(&file, "no directory").unwrap();
    let below = file.join("data");
    let ports = ["--kafka-port", "0", "--http-port", "0"];
    let at = |data: &Path, more: &[&str]| -> Vec<String> {
        let words = [&ports[..], &["--data-dir", text(data)], more, &["standalone"]].concat();
        words.into_iter().map(str::to_owned).collect()
    };
    let refused_at = |data: &Path, more: &[&str], texts: &[&str]| {
        let words = at(data, more);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        refused(&words, EXIT_REFUSED, texts);
    };
    refused_at(&below, &[], &["E010 cannot write", text(&below), "--data-dir"]);

    let data = directory.path().join("data");
    let mut server = test_server!().data_dir(&data).start();
    let pid = format!("pid {}", server.pid());
    refused_at(&data, &[], &["E011", text(&data), &pid, "--data-dir"]);
    // The one that runs is not disturbed.
    server.connect().call(&MetadataRequest::default(), 9);
    assert_eq!(server.terminate().code(), Some(0));

    refused_at(&data, &["--node-id", "2"], &["E030", "node 1", "--node-id 2", "--data-dir"]);

    let meta = data.join("node.meta");
    let good = std::fs::read(&meta).unwrap();
    let mut damaged = good.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    for bad in [&damaged[..], &good[..good.len() - 1], b"", b"something else entirely"] {
        std::fs::write(&meta, bad).unwrap();
        refused_at(&data, &[], &["node.meta"]);
        assert_eq!(std::fs::read(&meta).unwrap(), bad, "a damaged identity is never replaced");
    }
    std::fs::write(&meta, &good).unwrap();
    server.restart(None);
}

#[test]
fn wrong_command_lines_and_settings_are_refused_all_together_with_the_nearest_name() {
    refused(&["--no-such-flag"], EXIT_USAGE, &["--no-such-flag", "Usage"]);
    refused(&["sideways"], EXIT_USAGE, &["sideways", "standalone"]);
    refused(
        &["--set", "wal.journal_file_byte=1MiB", "--set", "listener.connections_max=-1"],
        EXIT_USAGE,
        &["E060", "journal_file_bytes", "E063", "listener.connections_max"],
    );
    let directory = TempDir::new();
    let file = directory.path().join("chronik.toml");
    std::fs::write(&file, "[wal]\n\njournal_filez = 4\n").unwrap();
    let place = format!("E060 {}:3", file.display());
    refused(&["--config", text(&file)], EXIT_USAGE, &[&place, "journal_files"]);
    std::fs::write(&file, "[wal\n").unwrap();
    refused(&["--config", text(&file)], EXIT_USAGE, &["E066", text(&file)]);
    refused(&["--config", "/no/such/file.toml"], EXIT_USAGE, &["E065", "/no/such/file.toml"]);
    refused(&["cluster"], EXIT_USAGE, &["cluster", "standalone"]);
    refused(&["--peers", "2@localhost:5002"], EXIT_USAGE, &["cluster"]);
}

#[test]
fn the_configuration_is_checked_and_printed_with_its_origins_without_a_start() {
    let directory = TempDir::new();
    let file = directory.path().join("chronik.toml");
    std::fs::write(&file, "[listener]\nconnections_max = 77\n").unwrap();
    let config = ["--config", text(&file), "--set", "wal.journal_files=3"];

    let ended = command(&[&config[..], &["--check-config"]].concat()).run_to_end();
    assert_eq!((ended.code, &*ended.errors), (Some(0), ""));
    assert!(ended.output.contains("valid"), "{}", ended.output);

    let ended = command(&[&config[..], &["--print-config=origin"]].concat()).run_to_end();
    assert_eq!((ended.code, &*ended.errors), (Some(0), ""));
    let line = |key: &str| {
        let found = ended.output.lines().find(|line| line.starts_with(key));
        found.unwrap_or_else(|| panic!("no {key} in {}", ended.output)).to_owned()
    };
    let place = format!("{}:2", file.display());
    assert!(line("connections_max = 77").contains(&place), "{}", line("connections_max"));
    assert!(line("journal_files = 3").contains("--set"), "{}", line("journal_files"));
    assert!(line("kafka_port = 9092").contains("built-in"), "{}", line("kafka_port"));

    // What is printed is a configuration.
    let printed = command(&[&config[..], &["--print-config"]].concat()).run_to_end();
    let again = directory.path().join("again.toml");
    std::fs::write(&again, &printed.output).unwrap();
    let ended = command(&["--config", text(&again), "--print-config"]).run_to_end();
    assert_eq!(ended.output, printed.output);

    let version = command(&["--version"]).run_to_end();
    assert_eq!((version.code, &*version.errors), (Some(0), ""));
    assert!(version.output.starts_with("chronik-server "), "{}", version.output);
}

/// The fastest of three starts: other work on the machine makes single ones slow.
fn fastest_restart(server: &mut TestServer, end: impl Fn(&mut TestServer)) -> u64 {
    let starts = (0..3).map(|_| {
        end(server);
        server.restart(None);
        server.ready_ms()
    });
    starts.min().expect("three starts have a fastest")
}

#[test]
fn the_documented_command_line_starts_a_server_within_a_second() {
    let mut server = test_server!().argument("--advertised-addr").argument("localhost").start();
    let first = server.ready_ms();
    let ready_ms = first.min(fastest_restart(&mut server, TestServer::kill_9));
    assert!(ready_ms < 1_000, "ready after {ready_ms} ms");
    let reply = server.connect().call(&MetadataRequest::default(), 9);
    let broker = reply.body().brokers[0].clone();
    let port = i32::from(server.kafka().port());
    assert_eq!((&*broker.host, broker.port), ("localhost", port));
    assert!(server.kafka().ip().is_loopback() && server.http().ip().is_loopback());
    println!("ready after {ready_ms} ms, first {first} ms");

    // A port of its own is told as it is given: a proxy may listen there.
    let server = test_server!().argument("--advertised-addr").argument("localhost:19092").start();
    let reply = server.connect().call(&MetadataRequest::default(), 9);
    assert_eq!(reply.body().brokers[0].port, 19_092);
}

#[test]
fn a_server_with_a_hundred_partitions_starts_again_within_two_seconds() {
    let mut server = test_server!().start();
    let name = "hundred";
    create_topic(&mut server.connect(), NewTopic { name, partitions: 100, configs: &[] });
    let after_stop = fastest_restart(&mut server, |server| {
        assert_eq!(server.terminate().code(), Some(0));
    });
    let after_kill = fastest_restart(&mut server, TestServer::kill_9);
    println!("with 100 partitions: {after_stop} ms after a stop, {after_kill} ms after kill -9");
    assert!(after_stop.max(after_kill) < 2_000, "{after_stop} ms, {after_kill} ms");
    assert!(topic_id(&mut server.connect(), name).is_some());
}

fn json(server: &TestServer, path: &str) -> (u16, Value) {
    let answer = server.get(path);
    assert!(answer.headers.to_lowercase().contains("content-type: application/json"));
    (answer.status, serde_json::from_str(&answer.body).expect("the answer is JSON"))
}

#[test]
fn health_and_metrics_are_served_over_http() {
    let server = test_server!().start();
    for (path, field, value) in [
        ("/live", "live", Value::Bool(true)),
        ("/livez", "live", Value::Bool(true)),
        ("/ready", "ready", Value::Bool(true)),
        ("/readyz", "ready", Value::Bool(true)),
        ("/health", "status", "ok".into()),
        ("/healthz", "status", "ok".into()),
    ] {
        let (status, body) = json(&server, path);
        assert_eq!((status, &body[field]), (200, &value), "{path}: {body}");
    }
    assert_eq!(server.get("/no/such/page").status, 404);

    let before = server.metrics();
    let mut client = server.connect();
    create_topic(&mut client, NewTopic { name: "seen", partitions: 3, configs: &[] });
    client.call(&MetadataRequest::default(), 9);
    let after = server.metrics();
    let grown = |name: &str| after.value(name) - before.value(name);
    assert_eq!((grown("chronik_topics"), grown("chronik_partitions")), (1.0, 3.0));
    assert_eq!(after.value("chronik_connections"), 1.0);
    assert_eq!(after.value("chronik_requests_total{api=\"Metadata\"}"), 1.0);
    assert_eq!(after.value("chronik_replica_damaged"), 0.0);

    let page = server.get("/metrics").body;
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix))
            .filter(|family| page.contains(&format!("# TYPE {family} ")))
            .unwrap_or(name);
        // OpenMetrics names the family of a counter without its suffix.
        let without = family.strip_suffix("_total").unwrap_or(family);
        let is_described =
            [family, without].iter().any(|family| page.contains(&format!("# HELP {family} ")));
        assert!(is_described, "{name} has no help");
    }
}
