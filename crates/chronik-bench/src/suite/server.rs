//! A server that a block starts, kills and starts again.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::Endpoint;
use crate::failure::Failure;
use crate::pinning::pin_worker;
use crate::process_probe::ProcessProbe;
use crate::quantity::Cores;

/// Longest wait until a server is ready.
const READY_MAX: Duration = Duration::from_secs(60);

/// Lines of a server's log that a failure shows.
const LOG_LINES_SHOWN: usize = 5;

/// How a server is started.
#[derive(Clone, Debug)]
pub(crate) struct ServerCommand {
    /// The program: a server, or the `chronik` command for a development server.
    pub binary: PathBuf,
    /// Its data.
    pub data: PathBuf,
    /// Added to every sync, in microseconds; for the development server only.
    pub sync_delay_micros: Option<u32>,
    /// Core for all of its threads.
    pub core: Option<usize>,
    /// Settings besides the defaults, by key.
    pub settings: Vec<(&'static str, u64)>,
}

/// A running server; killed when it is dropped.
#[derive(Debug)]
pub(crate) struct SuiteServer {
    command: ServerCommand,
    child: Child,
    address: SocketAddr,
    /// Time from the start of its process to the message that it is ready.
    ready_after: Duration,
    /// CPU time of processes that were killed.
    ended_cpu: Duration,
}

impl SuiteServer {
    /// Starts a server on a wiped directory and a free port.
    pub(crate) fn start(command: ServerCommand) -> Result<Self, Failure> {
        let _ = std::fs::remove_dir_all(&command.data);
        Self::start_on(command, 0)
    }

    fn start_on(command: ServerCommand, port: u16) -> Result<Self, Failure> {
        let started = Instant::now();
        let mut child = spawn(&command, port)?;
        let lines = lines_of(&mut child)?;
        match wait_until_ready(&lines) {
            Ok(address) => {
                let (ready_after, ended_cpu) = (started.elapsed(), Duration::ZERO);
                Ok(Self { command, child, address, ready_after, ended_cpu })
            }
            Err(log) => {
                let _ = child.kill();
                let _ = child.wait();
                let binary = command.binary.display();
                Err(Failure::Server(format!("{binary} did not become ready: {log}")))
            }
        }
    }

    /// Where it listens.
    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint { host: self.address.ip().to_string(), port: self.address.port() }
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Time from the start of its process, on an empty directory, until it was ready.
    pub(crate) fn ready_after(&self) -> Duration {
        self.ready_after
    }

    /// A look at its process.
    pub(crate) fn probe(&self) -> Result<ProcessProbe, Failure> {
        let gone = || Failure::Server("the server ended".to_owned());
        ProcessProbe::of(self.pid()).ok_or_else(gone)
    }

    /// CPU time that it used since it was started first, in all of its lives.
    pub(crate) fn cpu(&self) -> Duration {
        let state = ProcessProbe::of(self.pid()).and_then(|probe| probe.look());
        self.ended_cpu + state.map_or(Duration::ZERO, |state| state.cpu)
    }

    /// Kills it as kill -9 does and waits for its end.
    pub(crate) fn kill(&mut self) {
        self.ended_cpu = self.cpu();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again on its data and its port, after [`kill`](Self::kill). Returns as soon as
    /// the process runs; `endpoint` may not answer yet.
    pub(crate) fn spawn_again(&mut self) -> Result<(), Failure> {
        self.child = spawn(&self.command, self.address.port())?;
        // Nobody reads the log of the second life, but it must not fill its pipe.
        lines_of(&mut self.child).map(|_| ())
    }
}

impl Drop for SuiteServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Starts the process, on its core if it has one: a child inherits the core of the thread that
/// starts it.
fn spawn(command: &ServerCommand, port: u16) -> Result<Child, Failure> {
    let owned = command.clone();
    let thread = thread::Builder::new().name("server-start".to_owned()).spawn(move || {
        let cores = owned.core.map(|core| Cores(vec![core]));
        pin_worker(cores.as_ref(), 0)?;
        process(&owned, port).spawn().map_err(Failure::system("start the server"))
    });
    let thread = thread.map_err(Failure::system("start a thread"))?;
    thread.join().expect("starting a process does not panic")
}

fn process(command: &ServerCommand, port: u16) -> Command {
    let mut process = Command::new(&command.binary);
    let port = port.to_string();
    match command.sync_delay_micros {
        None => {
            process.args(["--kafka-port", &port, "--http-port", "0", "--log-format", "json"]);
            for (key, value) in &command.settings {
                process.args(["--set", &format!("{key}={value}")]);
            }
            process.arg("--data-dir").arg(&command.data).arg("standalone");
        }
        Some(delay) => {
            process.args(["-o", "json", "dev", "--port", &port, "--data-dir"]).arg(&command.data);
            process.env("CHRONIK_WAL_DEBUG_SYNC_DELAY_US", delay.to_string());
        }
    }
    // The server logs to standard error; the development server answers on standard output.
    let is_dev = command.sync_delay_micros.is_some();
    let (output, error) =
        if is_dev { (Stdio::piped(), Stdio::null()) } else { (Stdio::null(), Stdio::piped()) };
    process.stdin(Stdio::null()).stdout(output).stderr(error);
    process
}

/// The lines of the child's pipe, read on a thread of their own to its end.
fn lines_of(child: &mut Child) -> Result<Receiver<String>, Failure> {
    let pipe: Box<dyn std::io::Read + Send> = match (child.stdout.take(), child.stderr.take()) {
        (Some(output), _) => Box::new(output),
        (None, Some(errors)) => Box::new(errors),
        (None, None) => return Err(Failure::Server("the server has no output".to_owned())),
    };
    let (lines, received) = channel();
    let read = move || {
        let mut nobody_listens = false;
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            nobody_listens = nobody_listens || lines.send(line).is_err();
        }
    };
    let thread = thread::Builder::new().name("server-log".to_owned()).spawn(read);
    thread.map(|_| received).map_err(Failure::system("start a thread"))
}

/// The address in the ready message: a line of the log, or one object over several lines.
fn wait_until_ready(lines: &Receiver<String>) -> Result<SocketAddr, String> {
    let deadline = Instant::now() + READY_MAX;
    let mut log = Vec::new();
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => log.push(line),
            Err(RecvTimeoutError::Timeout) => return Err("it takes too long".to_owned()),
            Err(RecvTimeoutError::Disconnected) => {
                let from = log.len().saturating_sub(LOG_LINES_SHOWN);
                return Err(log[from..].join(" | "));
            }
        }
        let last = log.last().map_or("", String::as_str);
        if let Some(address) = ready_address(last).or_else(|| ready_address(&log.join("\n"))) {
            return Ok(address);
        }
    }
}

fn ready_address(text: &str) -> Option<SocketAddr> {
    let value: Value = serde_json::from_str(text).ok()?;
    if value["message"] == "ready" {
        return value["kafka"].as_str()?.parse().ok();
    }
    let found =
        ["bootstrap", "kafka", "kafka_addr"].iter().find_map(|name| value["data"][*name].as_str());
    let found = found?.replace("localhost", "127.0.0.1");
    found.parse().ok()
}

/// Removes the data of a block.
pub(crate) fn wipe(data: &Path) {
    let _ = std::fs::remove_dir_all(data);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_message_of_both_kinds_of_server_is_understood() {
        let line = r#"{"level":"INFO","message":"ready","kafka":"127.0.0.1:41077","http":"x"}"#;
        assert_eq!(ready_address(line), Some(([127, 0, 0, 1], 41_077).into()));
        assert_eq!(ready_address(r#"{"level":"INFO","message":"starting"}"#), None);
        assert_eq!(ready_address("no json"), None);
    }
}
