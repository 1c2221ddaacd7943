//! The commands against a server of this repository, as processes, the way people run them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in its helpers")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use chronik_cli::partition_of_key;
use serde_json::{Value, json};

/// Longest wait for something that takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(30);

fn chronik() -> Command {
    Command::new(env!("CARGO_BIN_EXE_chronik"))
}

/// A `chronik dev` that is told to stop at the end of the test.
struct Server {
    child: Child,
    ready: Value,
}

impl Server {
    fn start(arguments: &[&str]) -> Self {
        Self::launch(&[&["--ephemeral"], arguments].concat())
    }

    fn launch(arguments: &[&str]) -> Self {
        let mut child = chronik()
            .args(["dev", "--port", "0", "-o", "json"])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&ready["command"], &ready["ok"]), (&json!("dev"), &json!(true)));
        Self { child, ready: ready["data"].clone() }
    }

    fn address(&self) -> &str {
        self.ready["advertised"].as_str().unwrap()
    }

    fn data_dir(&self) -> &Path {
        Path::new(self.ready["data_dir"].as_str().unwrap())
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.run_with(arguments, b"")
    }

    fn run_with(&self, arguments: &[&str], input: &[u8]) -> Output {
        run(chronik().args(["-b", self.address()]).args(arguments), input)
    }

    /// Runs a command that must succeed; returns what it printed.
    fn ok(&self, arguments: &[&str], input: &str) -> String {
        let output = self.run_with(arguments, input.as_bytes());
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), stderr.as_str()), (Some(0), ""), "{arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The data of a command that must succeed.
    fn data(&self, arguments: &[&str], input: &str) -> Value {
        let text = self.ok(&[arguments, &["-o", "json"]].concat(), input);
        let object: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(object["ok"], json!(true), "{text}");
        object["data"].clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        // A server that is gone already has failed its test elsewhere.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

fn run(command: &mut Command, input: &[u8]) -> Output {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A command that fails early does not read its input.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

/// Code and exit code of a failure, once as text and once as JSON.
fn failure(command: &dyn Fn() -> Command, exit: i32) -> String {
    let text = run(&mut command(), b"");
    assert_eq!(text.status.code(), Some(exit), "{text:?}");
    assert_eq!(text.stdout, b"", "{text:?}");
    let json = run(command().args(["-o", "json"]), b"");
    assert_eq!(json.status.code(), Some(exit), "{json:?}");
    assert_eq!(json.stderr, b"", "{json:?}");
    let object: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(object["ok"], json!(false), "{object}");
    assert!(object["command"].is_string() && object["version"].is_string(), "{object}");
    let (code, message) = (&object["error"]["code"], &object["error"]["message"]);
    let (code, message) = (code.as_str().unwrap(), message.as_str().unwrap());
    let stderr = String::from_utf8(text.stderr).unwrap();
    let is_usage = exit == 2 && stderr.starts_with("error: ");
    assert!(is_usage || stderr == format!("{code} {message}\n"), "{stderr}");
    code.to_owned()
}

#[test]
fn the_commands_of_the_readme() {
    let server = Server::start(&[]);
    server.ok(&["produce", "demo"], "hello\n");
    assert_eq!(server.ok(&["consume", "demo", "-s", "start", "-n", "1"], ""), "hello\n");
    assert_eq!(server.ok(&["consume", "demo"], ""), "hello\n");
}

#[test]
fn a_topic_is_created_described_listed_and_deleted() {
    let server = Server::start(&["--topic", "first:2"]);
    let created = server
        .data(&["topic", "create", "orders", "-p", "3", "--config", "retention.ms=60000"], "");
    assert_eq!(created["topics"][0]["partitions"], json!(3));
    assert_eq!(created["topics"][0]["is_created"], json!(true));

    let list = server.ok(&["topic", "ls", "-o", "tsv", "--tsv-header"], "");
    let lines: Vec<Vec<&str>> = list.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(lines[0], ["name", "partitions", "replicas", "topic_id"]);
    assert_eq!(lines[1][..3], ["first", "2", "1"]);
    assert_eq!(lines[2][..3], ["orders", "3", "1"]);

    server.ok(&["produce", "orders", "-p", "2"], "a\nb\n");
    let described = &server.data(&["topic", "describe", "orders"], "")["topics"][0];
    assert_eq!(described["configs"], json!({"retention.ms": "60000"}));
    assert_eq!(described["partitions"][2]["end_offset"], json!(2));
    assert_eq!(described["topic_id"].as_str(), lines[2].last().copied());

    let plan = server.data(&["topic", "delete", "orders", "--dry-run"], "");
    assert_eq!(plan["topics"][0]["records"], json!(2));
    let refuse = || {
        let mut command = chronik();
        command.args(["-b", server.address(), "topic", "rm", "orders"]);
        command
    };
    assert_eq!(failure(&refuse, 2), "E111", "there is no terminal to ask on");
    let deleted = server.data(&["topic", "rm", "orders", "--yes"], "");
    assert_eq!(deleted["topics"][0]["is_deleted"], json!(true));
    assert_eq!(server.data(&["topic", "list"], "")["topics"].as_array().unwrap().len(), 1);
}

#[test]
fn a_dry_run_changes_nothing() {
    let server = Server::start(&["--topic", "demo:4"]);
    let planned = server.data(&["topic", "create", "never", "--dry-run"], "");
    assert_eq!(planned["topics"][0]["is_created"], json!(false));
    assert_eq!(server.data(&["topic", "list"], "")["topics"].as_array().unwrap().len(), 1);

    let counted = server.data(&["produce", "demo", "-k", "key", "--dry-run"], "a\nb\n");
    let partition = partition_of_key(b"key", 4);
    assert_eq!(counted["partitions"][0]["partition"], json!(partition));
    assert_eq!(counted["records"], json!(2));
    assert_eq!(server.ok(&["consume", "demo"], ""), "");
}

#[test]
fn several_topics_are_reported_one_by_one() {
    let server = Server::start(&["--topic", "there"]);
    let output = server.run(&["topic", "create", "new", "there", "-o", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let object: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(object["ok"], json!(false));
    assert_eq!(object["error"]["code"], json!("E115"));
    assert_eq!(object["data"]["topics"][0]["is_created"], json!(true));
    assert_eq!(object["data"]["topics"][1]["error"], json!("TOPIC_ALREADY_EXISTS"));
}

#[test]
fn every_start_position_finds_its_record() {
    let server = Server::start(&["--topic", "demo:1"]);
    let lines: String = (0..10)
        .map(|index| {
            format!(
                "{{\"value\":\"v{index}\",\"timestamp_ms\":{}}}\n",
                1_700_000_000_000_i64 + index
            )
        })
        .collect();
    server.ok(&["produce", "demo", "--from", "jsonl"], &lines);
    for (start, first) in [
        ("start", 0),
        ("-3", 7),
        ("-100", 0),
        ("+4", 4),
        ("4", 4),
        ("@1700000000006", 6),
        ("@1700000000", 0),
        ("@2023-11-14T22:13:20.009Z", 9),
        ("@2023-11-14", 0),
    ] {
        let expected: String = (first..10).map(|index| format!("v{index}\n")).collect();
        assert_eq!(server.ok(&["consume", "demo", "-s", start], ""), expected, "{start}");
    }
    assert_eq!(server.ok(&["consume", "demo", "-s", "@-1h"], ""), "", "all are older");
    let two = server.ok(&["consume", "demo", "-s", "+4", "-n", "2", "-f", r"%o %T %v;"], "");
    assert_eq!(two, "4 1700000000004 v4;5 1700000000005 v5;");
    let beyond = || {
        let mut command = chronik();
        command.args(["-b", server.address(), "consume", "demo", "-s", "+11"]);
        command
    };
    assert_eq!(failure(&beyond, 1), "E119");
}

#[test]
fn the_end_is_where_new_records_come() {
    let server = Server::start(&["--topic", "demo:3"]);
    server.ok(&["produce", "demo"], "old\n");
    let mut waiting = chronik()
        .args(["-b", server.address(), "consume", "demo", "-s", "end", "-n", "1"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let start = Instant::now();
    // Nobody can tell from outside when it has begun to wait.
    while waiting.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < PATIENCE, "no record came");
        server.ok(&["produce", "demo"], "new\n");
    }
    let output = waiting.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &b"new\n"[..]));
}

#[test]
fn every_codec_and_every_acks_level_brings_records_back() {
    let server = Server::start(&["--topic", "demo:1"]);
    let lines: String = (0..2_000).map(|index| format!("line {index}\n")).collect();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let sent = server.data(&["produce", "demo", "--compression", codec], &lines);
        assert_eq!(sent["records"], json!(2_000), "{codec}");
        let first = sent["partitions"][0]["first_offset"].to_string();
        assert_eq!(server.ok(&["consume", "demo", "-s", &first], ""), lines, "{codec}");
    }
    for (acks, offset) in [("all", json!(10_000)), ("1", json!(10_001)), ("0", Value::Null)] {
        let sent = server.data(&["produce", "demo", "--acks", acks], "x\n");
        assert_eq!(sent["partitions"][0]["first_offset"], offset, "{acks}");
    }
    let start = Instant::now();
    while server.ok(&["consume", "demo", "-s", "+10000"], "") != "x\nx\nx\n" {
        assert!(start.elapsed() < PATIENCE, "the record without acknowledgement did not come");
    }
}

#[test]
fn more_than_one_batch_keeps_its_order() {
    let server = Server::start(&["--topic", "demo:1"]);
    let filler = "x".repeat(1_000);
    let lines: String = (0..3_000).map(|index| format!("{index} {filler}\n")).collect();
    let sent = server.data(&["produce", "demo", "-k", "key"], &lines);
    assert_eq!(sent["partitions"][0]["last_offset"], json!(2_999));
    assert!(server.ok(&["consume", "demo"], "") == lines, "records are lost or out of order");
}

#[test]
fn keys_headers_and_bytes_survive_a_copy() {
    let server = Server::start(&["--topic", "from:1", "--topic", "to:4"]);
    server
        .run_with(&["produce", "from", "-k", "key", "-H", "a=b", "-H", "c="], b"text\n\xff\x00\n");
    server.ok(&["produce", "from", "--from", "jsonl"], "{\"key\":\"\",\"value\":null}\n");
    let original = server.ok(&["consume", "from", "-o", "json"], "");
    let first: Value = serde_json::from_str(original.lines().next().unwrap()).unwrap();
    assert_eq!(first["headers"], json!([{"key":"a","value":"b"},{"key":"c","value":""}]));

    server.ok(&["produce", "to", "--from", "jsonl"], &original);
    let copied = server.ok(&["consume", "to", "-o", "json"], "");
    let contents = |text: &str| {
        let content = |line: &str| {
            let mut record: Value = serde_json::from_str(line).unwrap();
            let fields = record.as_object_mut().unwrap();
            let partition = fields.remove("partition").unwrap();
            assert_eq!(
                (fields.remove("topic").is_some(), fields.remove("offset").is_some()),
                (true, true)
            );
            (record.to_string(), partition)
        };
        let mut all: Vec<_> = text.lines().map(content).collect();
        all.sort_by(|left, right| left.0.cmp(&right.0));
        all
    };
    let (original, copied) = (contents(&original), contents(&copied));
    let records = |all: &[(String, Value)]| all.iter().map(|it| it.0.clone()).collect::<Vec<_>>();
    assert_eq!(records(&original), records(&copied));
    for (record, partition) in &copied {
        let key = if record.contains("\"key\":\"key\"") { "key" } else { "" };
        assert_eq!(*partition, json!(partition_of_key(key.as_bytes(), 4)), "{record}");
    }
}

#[test]
fn a_line_that_is_no_record_ends_the_command_after_those_before_it() {
    let server = Server::start(&["--topic", "demo:1"]);
    let output = server.run_with(
        &["produce", "demo", "--from", "jsonl"],
        b"{\"value\":\"good\"}\n{\"valeu\":1}\n",
    );
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.starts_with("E113 line 2 of the input: not a record"), "{stderr}");
    assert!(stderr.contains("1 records before it were sent"), "{stderr}");
    assert_eq!(server.ok(&["consume", "demo"], ""), "good\n");
}

#[test]
fn exit_codes_say_what_kind_of_failure_it_was() {
    let server = Server::start(&["--topic", "demo:2"]);
    let case = |arguments: &[&str], exit| {
        let command = || {
            let mut command = chronik();
            command.args(["-b", server.address()]).args(arguments);
            command
        };
        failure(&command, exit)
    };
    assert_eq!(case(&["consume", "nope"], 1), "UNKNOWN_TOPIC_OR_PARTITION");
    assert_eq!(case(&["topic", "describe", "nope"], 1), "UNKNOWN_TOPIC_OR_PARTITION");
    assert_eq!(case(&["topic", "delete", "nope", "--yes"], 1), "UNKNOWN_TOPIC_OR_PARTITION");
    assert_eq!(case(&["topic", "create", "demo"], 1), "TOPIC_ALREADY_EXISTS");
    assert_eq!(case(&["topic", "create", "a/b"], 1), "INVALID_TOPIC_EXCEPTION");
    assert_eq!(case(&["config", "get", "nope"], 1), "E116");
    assert_eq!(case(&["produce", "demo", "-p", "2"], 2), "E118");
    assert_eq!(case(&["topic", "frobnicate"], 2), "E110");
    assert_eq!(case(&["consume", "demo", "-s", "soon"], 2), "E110");
    assert_eq!(case(&["dev", "--nodes", "3"], 2), "E121");
    assert_eq!(case(&["topic", "list", "-b", "127.0.0.1:1"], 3), "E100");
    let http = server.ready["http"].as_str().unwrap();
    assert_eq!(case(&["topic", "list", "-b", http], 3), "E101");
}

#[test]
fn configs_are_listed_and_read() {
    let server = Server::start(&["--topic", "demo"]);
    let broker = server.data(&["config", "list"], "");
    assert_eq!(broker["resource"], json!("broker 1"));
    let names: Vec<_> =
        broker["configs"].as_array().unwrap().iter().map(|it| it["name"].clone()).collect();
    assert!(names.contains(&json!("log.retention.ms")), "{names:?}");
    let place = ["--topic", "demo"];
    let topic = server.data(&[&["config", "list"], &place[..]].concat(), "");
    assert_eq!(topic["resource"], json!("topic demo"));
    let value = server.ok(&[&["config", "get", "retention.ms"], &place[..]].concat(), "");
    assert_eq!(value, "604800000\n");
}

#[test]
fn the_origin_of_local_settings_is_told_without_a_server() {
    let directory = temporary_directory("origin");
    let file = directory.join("chronik.toml");
    fs::write(&file, "[listener]\nkafka_port = 9192\n").unwrap();
    let output = run(
        chronik()
            .args(["config", "get", "listener.kafka_port", "--origin", "-o", "tsv", "-c"])
            .arg(&file),
        b"",
    );
    let expected = format!("listener.kafka_port\t9192\t{}:2\n", file.display());
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    fs::write(&file, "[listener]\nkafka_prot = 9192\n").unwrap();
    let broken = || {
        let mut command = chronik();
        command.args(["config", "list", "--origin", "-c"]).arg(&file);
        command
    };
    assert_eq!(failure(&broken, 2), "E117");
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn the_doctor_tells_good_from_bad() {
    let directory = temporary_directory("doctor");
    let file = directory.join("chronik.toml");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let examine = || {
        let settings = format!("[listener]\nkafka_port = {port}\nhttp_port = 0\n");
        fs::write(&file, settings).unwrap();
        let output = run(
            chronik()
                .args(["doctor", "local", "-o", "json", "-c"])
                .arg(&file)
                .arg("--data-dir")
                .arg(directory.join("data")),
            b"",
        );
        let object: Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), object)
    };
    let (exit, object) = examine();
    assert_eq!((exit, &object["ok"]), (Some(4), &json!(false)), "{object}");
    assert_eq!(object["error"]["code"], json!("E120"));
    let is_bad = |check: &&Value| check["status"] == json!("bad");
    let bad: Vec<_> = object["data"]["checks"].as_array().unwrap().iter().filter(is_bad).collect();
    assert_eq!(bad.len(), 1, "{object}");
    assert_eq!(bad[0]["code"], json!("E001"));
    drop(taken);
    let (exit, object) = examine();
    assert_eq!((exit, &object["ok"]), (Some(0), &json!(true)), "{object}");
    assert!(!directory.join("data").exists(), "a doctor only looks");
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_segment_file_is_shown_and_its_damage_found() {
    let server = Server::start(&["--topic", "demo:1"]);
    server.ok(&["produce", "demo", "--from", "jsonl"], "{\"value\":\"one\"}\n");
    server.ok(&["produce", "demo", "--from", "jsonl"], "{\"value\":\"two\"}\n{\"value\":\"2\"}\n");
    let file = server.data_dir().join("wal/partitions/demo-0/segment_000.wal");
    let start = Instant::now();
    let segment = loop {
        // Frames reach their segment a moment after they are durable in the journal.
        if file.exists() {
            let data = server.data(&["debug", "segment", file.to_str().unwrap()], "");
            let segment = data["segments"][0].clone();
            if segment["frames"].as_array().unwrap().len() == 2 {
                break segment;
            }
        }
        assert!(start.elapsed() < PATIENCE, "no segment was written");
    };
    let second = &segment["frames"][1];
    assert_eq!((&second["lsn"], &second["kind"]), (&json!(2), &json!("data")));
    assert_eq!((&second["base_offset"], &second["last_offset"]), (&json!(1), &json!(2)));
    assert_eq!((&second["is_crc_ok"], &second["is_chain_ok"]), (&json!(true), &json!(true)));
    assert_eq!((&segment["damage"], &segment["footer"]), (&json!([]), &Value::Null));

    let directory = temporary_directory("segment");
    let copy = directory.join("segment_000.wal");
    let mut bytes = fs::read(&file).unwrap();
    let body = segment["frames"][0]["position"].as_u64().unwrap() as usize + 64 + 70;
    bytes[body] ^= 1;
    fs::write(&copy, bytes).unwrap();
    let output = server.run(&["debug", "segment", copy.to_str().unwrap()]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("Damage  frame 1: body checksum differs at byte 4096"), "{text}");
    assert_eq!(text.matches("BAD").count(), 1, "the frame behind it is intact: {text}");
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_sealed_segment_ends_with_a_footer_that_verifies() {
    let directory = temporary_directory("sealed");
    let server = Server::launch(&["--data-dir", directory.to_str().unwrap()]);
    server.ok(&["topic", "create", "demo", "-p", "1", "--config", "segment.bytes=1048576"], "");
    let line = "x".repeat(100_000) + "\n";
    for _ in 0..3 {
        server.ok(&["produce", "demo"], &line.repeat(10));
    }
    // Stopping seals what is full; a running server takes its time.
    drop(server);
    let file = directory.join("wal/partitions/demo-0/segment_000.wal");
    let output = run(chronik().args(["debug", "segment", "-o", "json"]).arg(&file), b"");
    let object: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.success(), "{object}");
    let segment = &object["data"]["segments"][0];
    let footer = &segment["footer"];
    assert_eq!((&footer["is_crc_ok"], &footer["is_index_crc_ok"]), (&json!(true), &json!(true)));
    assert_eq!(footer["frames_end"], segment["frames_end"]);
    let last = segment["frames"].as_array().unwrap().last().unwrap();
    assert_eq!(footer["last_lsn"], last["lsn"]);
    assert_eq!(footer["next_offset"].as_i64(), last["last_offset"].as_i64().map(|last| last + 1));
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn an_ephemeral_server_leaves_nothing_behind() {
    let server = Server::start(&[]);
    let directory = server.data_dir().to_owned();
    assert!(directory.exists());
    // A server that was used is past its start and listens for signals.
    server.ok(&["produce", "demo"], "hello\n");
    drop(server);
    assert!(!directory.exists(), "{}", directory.display());
}

#[test]
fn a_directory_serves_one_server() {
    let server = Server::start(&[]);
    let second =
        run(chronik().args(["dev", "--port", "0", "-o", "json", "-d"]).arg(server.data_dir()), b"");
    assert_eq!(second.status.code(), Some(1));
    let object: Value = serde_json::from_slice(&second.stdout).unwrap();
    assert_eq!(object["ok"], json!(false));
    assert!(String::from_utf8_lossy(&second.stderr).contains("E011 "), "{second:?}");
}

#[test]
fn server_is_chronik_server() {
    let version = run(chronik().args(["server", "--version"]), b"");
    assert!(version.status.success(), "{version:?}");
    let refused = run(chronik().args(["server", "--no-such-flag"]), b"");
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
}

fn temporary_directory(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("chronik-cli-{name}-{}", std::process::id()));
    fs::create_dir_all(&path).unwrap();
    path
}

#[test]
fn bench_is_the_load_tool() {
    let server = Server::start(&[]);
    let line = ["bench", "-b", server.address(), "-t", "load", "-n", "200", "-w", "0"];
    let output = run(chronik().args(line), b"");
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("200 messages as acknowledged"), "{text}");
    let usage = run(chronik().args(["bench", "--duration", "soon"]), b"");
    assert_eq!(usage.status.code(), Some(2));
}
