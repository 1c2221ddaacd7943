//! The command lines of the plan and the modes against the real server.
//!
//! Without libtest: this program is also the server that it starts, so that `TestServer` and the
//! suite find one wherever cargo puts it. Words on the command line choose tests by name.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in its helpers")]
#![allow(clippy::print_stdout, reason = "there is no libtest to say what was run")]

use std::path::Path;
use std::process::{Command, ExitCode, Output};

use chronik_testkit::{ServerCommand, TempDir, TestServer};
use serde_json::Value;

/// The tests, by name.
const TESTS: &[(&str, fn())] = &[
    ("both_lines_of_the_plan_end_with_a_table", both_lines_of_the_plan_end_with_a_table),
    ("readers_see_what_writers_wrote", readers_see_what_writers_wrote),
    ("an_open_loop_counts_from_intended_times", an_open_loop_counts_from_intended_times),
    ("every_kind_of_load_is_read_back", every_kind_of_load_is_read_back),
    ("failures_have_their_exit_codes", failures_have_their_exit_codes),
    ("floors_need_no_broker", floors_need_no_broker),
    ("a_suite_survives_a_killed_server", a_suite_survives_a_killed_server),
    (
        "neighbours_are_measured_against_the_load_alone",
        neighbours_are_measured_against_the_load_alone,
    ),
    (
        "single_requests_the_tail_and_idleness_have_rows",
        single_requests_the_tail_and_idleness_have_rows,
    ),
    #[cfg(feature = "rdkafka")]
    (
        "librdkafka_is_read_back_like_the_native_client",
        librdkafka_is_read_back_like_the_native_client,
    ),
    #[cfg(feature = "rdkafka")]
    ("librdkafka_has_rows_of_its_own", librdkafka_has_rows_of_its_own),
];

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    if arguments.iter().any(|word| word == "standalone" || word == "--version") {
        return chronik_server::main_with_args("chronik-server", arguments);
    }
    let words: Vec<_> = arguments.iter().filter_map(|it| it.to_str()).collect();
    let wanted: Vec<_> = words.iter().filter(|word| !word.starts_with('-')).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|it| name.contains(**it));
    for (name, test) in TESTS.iter().filter(|(name, _)| is_wanted(name)) {
        if words.contains(&"--list") {
            println!("{name}: test");
            continue;
        }
        let started = std::time::Instant::now();
        test();
        println!("test {name} ... ok in {:.1} s", started.elapsed().as_secs_f64());
    }
    ExitCode::SUCCESS
}

fn server() -> TestServer {
    ServerCommand::new(std::env::current_exe().unwrap()).start()
}

fn bench(line: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_chronik-bench"))
        .args(line.split_whitespace())
        .output()
        .unwrap()
}

/// Runs a line that must succeed; returns what it printed.
fn ok(line: &str) -> String {
    let output = bench(line);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{line}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a line that must succeed; returns its result.
fn data(line: &str) -> Value {
    let text = ok(&format!("{line} --output json"));
    let object: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(object["command"], "bench", "{text}");
    assert_eq!(object["ok"], true, "{text}");
    object["data"].clone()
}

fn number(value: &Value, place: &str) -> f64 {
    let found = value.pointer(place).and_then(Value::as_f64);
    found.unwrap_or_else(|| panic!("{place} is a number in {value:#}"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

fn both_lines_of_the_plan_end_with_a_table() {
    let (server, directory) = (server(), TempDir::new());
    let (address, pid) = (server.kafka(), server.pid());
    let file = |name: &str| directory.path().join(name);
    let show = |name: &str| file(name).display().to_string();
    let first = ok(&format!(
        "--bootstrap-servers {address} --topic t --mode produce --concurrency 64 --duration 2s \
         --warmup-duration 300ms --report-interval-secs 1 --pid {pid} --json-output {} --plot {} \
         --csv-output {} --hdr-output {}",
        show("a.json"),
        show("a.svg"),
        show("a.csv"),
        show("a.hdr")
    ));
    let live: Vec<_> = first.lines().filter(|line| line.ends_with('%')).collect();
    assert_eq!(live.len(), 2, "a line per second: {first}");
    for row in ["messages ", "rate ", "latency (closed loop)", "server CPU", "as acknowledged"] {
        assert!(first.contains(row), "{row}: {first}");
    }
    let result: Value = serde_json::from_str(&read(&file("a.json"))).unwrap();
    assert_eq!(result["schema"], 1);
    assert_eq!(result["configuration"]["class"], "M");
    assert_eq!(result["configuration"]["durability"], "fsync");
    assert!((number(&result, "/summary/seconds") - 2.0).abs() < 0.01);
    assert!(number(&result, "/summary/messages") > 100.0);
    assert!(number(&result, "/summary/messages_per_request") > 4.0, "tasks share requests");
    assert!(number(&result, "/summary/server/cpu_micros_per_request") > 0.0);
    assert!(number(&result, "/read_back/stored") >= number(&result, "/summary/messages"));
    assert!(result["environment"]["kernel"].is_string());
    assert!(result["histogram"]["data"].as_str().unwrap().len() > 50);
    let samples = result["intervals"].as_array().unwrap();
    assert!(samples.len() >= 20, "{} samples", samples.len());
    let (picture, csv) = (read(&file("a.svg")), read(&file("a.csv")));
    assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"));
    assert_eq!(csv.lines().count(), samples.len() + 1);
    assert!(read(&file("a.hdr")).contains("#[Max "));

    let second = ok(&format!(
        "--bootstrap-servers {address} --duration 1 --concurrency 128 --message-size 256 \
         --warmup-duration 300ms --json-output {}",
        show("b.json")
    ));
    assert!(second.contains("128 tasks x 1 in flight, 256 B messages"), "{second}");
    let ratios = ok(&format!("--compare {} {}", show("a.json"), show("b.json")));
    assert!(ratios.contains("messages per second"), "{ratios}");
    assert!(ratios.contains("NOT THE SAME CONDITIONS: concurrency: 64 and 128"), "{ratios}");
}

fn readers_see_what_writers_wrote() {
    let server = server();
    let address = server.kafka();
    let common = format!("-b {address} -t read -w 0");
    let written = data(&format!("{common} -n 5000 -p 3 -c 16 --compression zstd"));
    assert_eq!(number(&written, "/summary/messages"), 5_000.0);
    let again = data(&format!("{common} -n 3000 -c 16 --connections per-task"));
    assert_eq!(number(&again, "/read_back/stored"), 3_000.0, "what was there before is skipped");
    assert_eq!(number(&again, "/summary/messages_per_request"), 1.0);
    for (mode, consumers) in [("consume", 1.0), ("fetch", 2.0)] {
        let read = data(&format!("{common} -m {mode} --consumers {consumers} -d 20s"));
        assert_eq!(number(&read, "/summary/messages"), 8_000.0 * consumers, "{mode}");
    }
}

fn an_open_loop_counts_from_intended_times() {
    let server = server();
    let line = format!(
        "-b {} -t e2e -m e2e --rate 300 --arrival poisson -d 1s -w 200ms --delete-topic-after",
        server.kafka()
    );
    let result = data(&line);
    assert_eq!(result["configuration"]["loop_kind"], "open");
    let intended = number(&result, "/summary/intended");
    assert!((200.0..=400.0).contains(&intended), "{intended} in a second");
    assert!(number(&result, "/summary/latency/count") >= intended * 0.9);
    assert!(result["summary"]["is_rate_sustained"].is_boolean());
    assert!(number(&result, "/read_back/stored") > 0.0);
}

fn every_kind_of_load_is_read_back() {
    let server = server();
    let address = server.kafka();
    for line in [
        "-t bulk -c 4 --connections per-task --in-flight 500 --linger-ms 5 -s 1024 -p 6 --acks all",
        "-t bulk -c 8 --connections 2 --acks 0",
        "-t mixed -m mixed -c 32 --consumers 2",
        "-t verify -m verify -c 16 -p 2",
        "-t gap -m failover -c 4 --connections per-task",
        "-t trip -m round-trip -c 2",
    ] {
        let result = data(&format!("-b {address} {line} -d 400ms -w 100ms"));
        let stored = number(&result, "/read_back/stored");
        assert!(stored > 0.0, "{line}");
        assert_eq!(number(&result, "/read_back/lost"), 0.0, "{line}");
    }
    let metadata = data(&format!("-b {address} -t bulk -m metadata -c 2 -d 300ms -w 0"));
    assert!(number(&metadata, "/summary/messages") > 10.0);
}

fn failures_have_their_exit_codes() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let unreachable = bench(&format!("-b {nobody} -d 1s"));
    assert_eq!(unreachable.status.code(), Some(3));
    let errors = String::from_utf8(unreachable.stderr).unwrap();
    assert!(errors.starts_with(&format!("chronik-bench: cannot connect to {nobody}")), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    let json = bench(&format!("-b {nobody} -d 1s --output json"));
    let object: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((&object["ok"], &object["error"]["code"]), (&false.into(), &"unreachable".into()));
    for line in [
        "--duration soon",
        "--client rdkafka -m mixed",
        "--mode none",
        "suite no-such-row",
        "report",
    ] {
        let output = bench(line);
        assert_eq!(output.status.code(), Some(2), "{line}: {output:?}");
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(errors.lines().count(), 1, "{line}: {errors}");
        assert!(output.stdout.is_empty(), "{line}");
    }
}

fn floors_need_no_broker() {
    let floor = data("-m floor -c 64 -d 300ms -w 100ms");
    assert_eq!(floor["configuration"]["durability"], "none");
    assert!(number(&floor, "/summary/messages") > 1_000.0);
    let directory = TempDir::new();
    let place = directory.path().display();
    let journal = data(&format!("-m journal-floor -c 64 -d 300ms -w 0 --probe-dir {place}"));
    assert!(number(&journal, "/summary/requests") > 1.0);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

/// Runs rows of a suite as a trial; returns its result and its page.
fn trial(flags: &str) -> (Value, String) {
    let directory = TempDir::new();
    let program = std::env::current_exe().unwrap();
    let suite = directory.path().join("suite.json");
    let said = ok(&format!(
        "suite {flags} --small --warmup-duration 100ms --commit 0123abcd --server-binary {} \
         --data-dir {} --json-output {}",
        program.display(),
        directory.path().join("data").display(),
        suite.display()
    ));
    assert!(said.contains(" rows, about "), "{said}");
    let page = ok(&format!("report {} --page -", suite.display()));
    assert_eq!(page, ok(&format!("report {} --page -", suite.display())));
    (serde_json::from_str(&read(&suite)).unwrap(), page)
}

fn a_suite_survives_a_killed_server() {
    let (result, page) =
        trial("plan-64 no-loss-1M --blocks 1 --block-seconds 1 --durability fsync");
    let rows = result["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    let figures = &rows[1]["blocks"][0]["figures"];
    let of = |name: &str| figures[name].as_f64().unwrap();
    assert_eq!((of("lost"), of("duplicated"), of("reordered")), (0.0, 0.0, 0.0));
    assert_eq!(of("read_back"), 100_000.0);
    assert!(of("killed_after_messages") < 100_000.0, "it was killed in the middle");
    assert!(of("resident_mebibytes") > 1.0 && of("server_cpu_micros_per_request") > 0.0);
    let block = &rows[0]["blocks"][0];
    assert!(number(block, "/floor") > 0.0 && number(block, "/journal_floor") > 0.0);
    assert!(page.contains("| `plan-64` | acks 1 |"), "{page}");
    assert!(page.contains("| commit of the server | 0123abcd |"), "{page}");
}

fn neighbours_are_measured_against_the_load_alone() {
    let (result, page) =
        trial("neighbours noisy slow-disk --blocks 1 --block-seconds 500ms --durability os");
    let rows = |name: &str| {
        let rows = result["rows"].as_array().unwrap().iter();
        rows.filter(|row| row["row"] == name).collect::<Vec<_>>()
    };
    let (neighbours, noisy, slow_disk) = (rows("neighbours"), rows("noisy"), rows("slow-disk"));
    assert_eq!((neighbours.len(), noisy.len(), slow_disk.len()), (5, 1, 3));
    for row in &neighbours {
        let figure = |name: &str| number(row, &format!("/blocks/0/figures/{name}"));
        let ratio = figure("p99_ms") / figure("alone_p99_ms");
        assert!((figure("p99_ratio") - ratio).abs() < ratio * 1e-3, "{row:#}");
        let peak = figure("resident_mebibytes_peak");
        assert!(peak > 1.0 && peak < figure("memory_cap_mebibytes"), "{row:#}");
    }
    let all = neighbours.iter().find(|row| row["variant"] == "all of them").unwrap();
    let last = |name: &str| number(all, &format!("/blocks/0/figures/{name}"));
    assert_eq!((last("slow_consumers_closed"), last("idle_connections_alive")), (0.0, 100.0));
    assert!(last("slow_bytes") > 0.0 && last("backlog_megabytes_per_second") > 0.0);
    let retained = number(noisy[0], "/blocks/0/figures/rate_retained_percent");
    assert!(retained > 0.0, "{retained}");
    assert!(slow_disk[0]["skipped"].is_string(), "os topics do not wait for the disk");
    for text in ["| `neighbours`, all of them: p99", "| `neighbours`, all of them: peak memory"] {
        assert!(page.contains(text), "{text}: {page}");
    }
}

/// The figures of the only block of a row's variant.
fn figures<'a>(result: &'a Value, row: &str, variant: &str) -> &'a Value {
    let mut rows = result["rows"].as_array().unwrap().iter();
    let found = rows.find(|it| it["row"] == row && it["variant"] == variant);
    &found.unwrap_or_else(|| panic!("{row} has no {variant}: {result:#}"))["blocks"][0]["figures"]
}

fn single_requests_the_tail_and_idleness_have_rows() {
    let (result, page) = trial(
        "one-in-flight tail-fetch idle librdkafka-consume --blocks 1 --block-seconds 300ms \
         --durability fsync",
    );
    let single = figures(&result, "one-in-flight", "acks all");
    assert!(number(single, "/p50_ms") > 0.0);
    assert_eq!(number(single, "/messages_per_request"), 1.0);
    for variant in ["1 consumer", "8 consumers"] {
        let tail = figures(&result, "tail-fetch", variant);
        for name in ["megabytes_per_second", "p99_ms", "server_cpu_seconds_per_gigabyte"] {
            assert!(number(tail, &format!("/{name}")) > 0.0, "{variant} {name}: {tail:#}");
        }
    }
    assert!(number(figures(&result, "idle", "idle"), "/ready_ms") > 0.0);
    for rule in ["`one-in-flight`, acks all: p99 ms", "`tail-fetch`, 8 consumers", "ready ms"] {
        assert!(page.contains(rule), "{rule}: {page}");
    }
    let has_librdkafka = cfg!(feature = "rdkafka");
    assert_eq!(page.contains("not run: this build has no librdkafka"), !has_librdkafka, "{page}");
    assert_eq!(page.contains("| librdkafka in its rows |"), has_librdkafka, "{page}");
}

#[cfg(feature = "rdkafka")]
fn librdkafka_is_read_back_like_the_native_client() {
    let server = server();
    let common = format!("-b {} --client rdkafka", server.kafka());
    for line in [
        "-t one -c 8 --in-flight 500 --linger-ms 2 -s 100 --acks all",
        "-t six -c 3 --connections per-task --in-flight 50 -s 1024 -p 6 --compression lz4",
        "-t again -c 2 --connections 2 --in-flight 50 --idempotence",
        "-t none -c 2 --acks 0",
    ] {
        let result = data(&format!("{common} {line} -d 1s -w 300ms"));
        assert_eq!(result["configuration"]["client"], "rdkafka");
        assert!(result["configuration"]["client_version"].is_string(), "{result:#}");
        assert!(number(&result, "/read_back/stored") > 0.0, "{line}");
        assert_eq!(number(&result, "/read_back/lost"), 0.0, "{line}");
        assert_eq!(number(&result, "/summary/failed"), 0.0, "{line}");
        assert!(number(&result, "/summary/latency/count") > 0.0, "{line}");
        let per_request = number(&result, "/summary/messages_per_request");
        assert!(per_request >= 0.9, "{line}: {per_request}");
    }
    let counted = data(&format!("{common} -t count -n 5000 -p 3 -c 2 --in-flight 100 -w 0"));
    assert_eq!(number(&counted, "/summary/messages"), 5_000.0);
    let text = ok(&format!("{common} -t count -m fetch --consumers 2 -d 20s"));
    assert!(text.contains("fetch, client librdkafka "), "{text}");
    for mode in ["consume", "fetch"] {
        let read = data(&format!("{common} -t count -m {mode} --consumers 2 -d 20s"));
        assert_eq!(number(&read, "/summary/messages"), 10_000.0, "{mode}");
        assert_eq!(number(&read, "/summary/megabytes_per_second").signum(), 1.0, "{mode}");
    }
    let some = data(&format!("{common} -t count -m fetch -n 700 -d 20s"));
    assert_eq!(number(&some, "/summary/messages"), 700.0);
}

#[cfg(feature = "rdkafka")]
fn librdkafka_has_rows_of_its_own() {
    let (result, page) = trial(
        "librdkafka-produce librdkafka-consume --blocks 1 --block-seconds 500ms --durability fsync",
    );
    for (row, variants) in [
        ("librdkafka-produce", &["100 B", "256 B, 6 partitions", "1 KB"][..]),
        ("librdkafka-consume", &["1 KB", "100 B"]),
    ] {
        for variant in variants {
            let found = figures(&result, row, variant);
            assert!(number(found, "/messages_per_second") > 0.0, "{row} {variant}: {found:#}");
            assert!(number(found, "/server_cpu_micros_per_message") > 0.0, "{row} {variant}");
            let rule = format!("`{row}`, {variant}: server cpu micros per message");
            assert!(page.contains(&rule), "{rule}: {page}");
        }
    }
}
