//! The real server as a child process: started on free ports, watched through its log, killed or
//! stopped, started again on the same data.
//!
//! The log is read on a thread of its own; the end of the log is the end of the process, so no
//! wait here polls. A server whose log has a warning, an error or a line that is no log line
//! fails its test when it is dropped, unless the test announced it.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::client::Client;
use crate::http::{HttpAnswer, Metrics, http_get};
use crate::temp_dir::TempDir;

/// Longest wait for anything: a sign that it will never come.
pub const WAIT_MAX: Duration = Duration::from_secs(30);

/// How to start a server.
#[derive(Debug)]
pub struct ServerCommand {
    binary: PathBuf,
    wrapper: Vec<OsString>,
    data: Option<PathBuf>,
    arguments: Vec<OsString>,
    allowed: Vec<String>,
}

impl ServerCommand {
    /// The server in `binary` with a data directory of its own, on free ports.
    #[must_use]
    pub fn new(binary: impl Into<PathBuf>) -> Self {
        let (wrapper, arguments, allowed) = (Vec::new(), Vec::new(), Vec::new());
        Self { binary: binary.into(), wrapper, data: None, arguments, allowed }
    }

    /// Starts it on this data; the directory is not removed.
    #[must_use]
    pub fn data_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.data = Some(path.into());
        self
    }

    /// Adds `--set key=value`.
    #[must_use]
    pub fn set(self, setting: &str) -> Self {
        self.argument("--set").argument(setting)
    }

    /// Adds an argument.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Runs the server under this command, for example `strace -f`.
    #[must_use]
    pub fn under(mut self, wrapper: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.wrapper = wrapper.into_iter().map(Into::into).collect();
        self
    }

    /// Runs the server on `data`, which it must have run on before, as on a slow disk: each sync of
    /// the first file of its journal takes `delay` longer. Needs strace.
    #[must_use]
    pub fn on_slow_disk(self, data: &Path, delay: Duration) -> Self {
        let journal = data.join("wal/journal/lane0_0.wal");
        assert!(journal.exists(), "strace watches files that are there: {}", journal.display());
        let inject = format!("inject=fdatasync:delay_enter={}", delay.as_micros());
        let strace = ["strace", "-f", "--seccomp-bpf", "-o", "/dev/null", "-e", "trace=fdatasync"];
        let file = ["-P".into(), journal.into_os_string(), "-e".into(), OsString::from(inject)];
        let strace = strace.into_iter().map(OsString::from).chain(file);
        // It tells when a thread that it was delaying is killed.
        self.data_dir(data).under(strace).expect_log("strace: ")
    }

    /// Lines of the log that contain `text` are expected, whatever their level.
    #[must_use]
    pub fn expect_log(mut self, text: &str) -> Self {
        self.allowed.push(text.to_owned());
        self
    }

    /// Starts the server and waits until it is ready.
    ///
    /// # Panics
    /// If it does not become ready; the message has its log.
    #[must_use]
    pub fn start(self) -> TestServer {
        TestServer::start(self)
    }

    /// Runs the command to its end: the exit status, standard output and standard error.
    /// Unlike [`ServerCommand::start`], nothing is added to the arguments.
    ///
    /// # Panics
    /// If it does not end by itself.
    #[must_use]
    pub fn run_to_end(self) -> Ended {
        let mut child = Command::new(&self.binary)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server binary can be run");
        let output = Log::capture(child.stdout.take().expect("stdout is a pipe"));
        let errors = Log::capture(child.stderr.take().expect("stderr is a pipe"));
        if !errors.wait_for_end(WAIT_MAX) {
            let _ = child.kill();
            panic!("the server should have ended by itself; its log:\n{}", errors.text());
        }
        output.wait_for_end(WAIT_MAX);
        let status = child.wait().expect("a child can be waited for");
        Ended { code: status.code(), output: output.text(), errors: errors.text() }
    }

    fn spawn(&self, data: &Path, kafka_port: u16) -> (Child, Arc<Log>) {
        let mut words = self.wrapper.clone();
        words.push(self.binary.clone().into());
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .args(["--kafka-port", &kafka_port.to_string(), "--http-port", "0"])
            .args(["--log-format", "json", "--data-dir"])
            .arg(data)
            .args(&self.arguments)
            .arg("standalone")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {}: {error}", words[0].display()));
        let log = Log::capture(child.stderr.take().expect("stderr is a pipe"));
        (child, log)
    }
}

/// What a command that ran to its end left.
#[derive(Debug)]
pub struct Ended {
    /// Exit code; `None` after a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub output: String,
    /// Standard error.
    pub errors: String,
}

/// Where a server's Kafka listener is, as it comes and goes. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Address {
    shared: Arc<(Mutex<Option<SocketAddr>>, Condvar)>,
}

impl Address {
    fn set(&self, address: Option<SocketAddr>) {
        *self.shared.0.lock().expect("no holder of an address panics") = address;
        self.shared.1.notify_all();
    }

    /// The address, once the server is up.
    ///
    /// # Panics
    /// If it does not come up for [`WAIT_MAX`].
    #[must_use]
    pub fn wait(&self) -> SocketAddr {
        let current = self.shared.0.lock().expect("no holder of an address panics");
        let (current, _) = self
            .shared
            .1
            .wait_timeout_while(current, WAIT_MAX, |address| address.is_none())
            .expect("no holder of an address panics");
        current.expect("the server comes up")
    }
}

/// A running server.
#[derive(Debug)]
pub struct TestServer {
    command: ServerCommand,
    data: PathBuf,
    /// Removes the data, unless it was given.
    _directory: Option<TempDir>,
    child: Child,
    log: Arc<Log>,
    /// Logs of earlier lives on this data.
    earlier: Vec<Arc<Log>>,
    address: Address,
    ready: Ready,
}

#[derive(Clone, Copy, Debug)]
struct Ready {
    kafka: SocketAddr,
    http: SocketAddr,
    pid: u32,
    ready_ms: u64,
}

impl TestServer {
    fn start(command: ServerCommand) -> Self {
        let (directory, data) = match &command.data {
            Some(path) => (None, path.clone()),
            None => {
                let directory = TempDir::new();
                let data = directory.path().join("data");
                (Some(directory), data)
            }
        };
        let (child, log) = command.spawn(&data, 0);
        let ready = Ready::wait(&log, &data);
        let address = Address::default();
        address.set(Some(ready.kafka));
        let earlier = Vec::new();
        Self { command, data, _directory: directory, child, log, earlier, address, ready }
    }

    /// Where the Kafka listener is.
    #[must_use]
    pub fn kafka(&self) -> SocketAddr {
        self.ready.kafka
    }

    /// The same for somebody who outlives restarts.
    #[must_use]
    pub fn address(&self) -> Address {
        self.address.clone()
    }

    /// Where the HTTP listener is.
    #[must_use]
    pub fn http(&self) -> SocketAddr {
        self.ready.http
    }

    /// The server's process, not that of a wrapper.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.ready.pid
    }

    /// Milliseconds from the start to readiness, as the server measured them.
    #[must_use]
    pub fn ready_ms(&self) -> u64 {
        self.ready.ready_ms
    }

    /// The data directory.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    /// A new connection.
    #[must_use]
    pub fn connect(&self) -> Client {
        Client::connect(self.ready.kafka)
    }

    /// GETs a page of the HTTP listener.
    #[must_use]
    pub fn get(&self, path: &str) -> HttpAnswer {
        http_get(self.ready.http, path)
    }

    /// The metrics as they are now.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        Metrics::parse(&self.get("/metrics").body)
    }

    /// Resident memory of the process in bytes.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        self.status_kib("VmRSS:") * 1024
    }

    /// The largest it ever was.
    #[must_use]
    pub fn resident_bytes_peak(&self) -> u64 {
        self.status_kib("VmHWM:") * 1024
    }

    /// Time the process has spent on a processor, in user mode and in the kernel.
    ///
    /// # Panics
    /// If it does not run.
    #[must_use]
    pub fn cpu_time(&self) -> Duration {
        /// `USER_HZ`, in which the kernel tells times: 100 on every processor we build for.
        const TICK: Duration = Duration::from_millis(10);
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()));
        let stat = stat.expect("a running process has a stat line");
        // The second field is the name in parentheses, which may hold anything.
        let (_, behind_name) = stat.rsplit_once(')').expect("the name ends");
        let fields = behind_name.split_whitespace();
        let ticks = fields.skip(11).take(2).map(|ticks| ticks.parse::<u32>().expect("a number"));
        TICK * ticks.sum::<u32>()
    }

    fn status_kib(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))
            .expect("a running process has a status");
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.expect("the status has the field in KiB")
    }

    /// Kills the process as kill -9 does and waits for its end.
    pub fn kill_9(&mut self) {
        self.address.set(None);
        let _ = kill_process(self.rustix_pid(), Signal::KILL);
        self.wait_for_exit();
    }

    /// Asks the process to stop and waits for its end.
    pub fn terminate(&mut self) -> ExitStatus {
        self.address.set(None);
        kill_process(self.rustix_pid(), Signal::TERM).expect("the server runs");
        self.wait_for_exit()
    }

    /// Waits until the process ends by itself.
    ///
    /// # Panics
    /// If it goes on.
    pub fn wait_for_exit(&mut self) -> ExitStatus {
        assert!(self.log.wait_for_end(WAIT_MAX), "the server goes on; its log:\n{}", self.log());
        self.address.set(None);
        self.child.wait().expect("a child can be waited for")
    }

    /// Starts the server again on the same data, under the same settings and, if `command` is
    /// given, under other ones.
    pub fn restart(&mut self, command: Option<ServerCommand>) {
        assert!(self.log.has_ended(), "a server is restarted after its end");
        if let Some(command) = command {
            let allowed = std::mem::take(&mut self.command.allowed);
            self.command = command;
            self.command.allowed.extend(allowed);
        }
        let (child, log) = self.command.spawn(&self.data, 0);
        self.child = child;
        self.earlier.push(std::mem::replace(&mut self.log, log));
        self.ready = Ready::wait(&self.log, &self.data);
        self.address.set(Some(self.ready.kafka));
    }

    /// Standard error of the current life.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// Lines of the log, over all lives, that a healthy server does not write and that were not
    /// announced.
    #[must_use]
    pub fn unexpected_log_lines(&self) -> Vec<String> {
        let lines = self.earlier.iter().chain([&self.log]).flat_map(|log| log.lines());
        lines
            .filter(|line| is_alarming(line))
            .filter(|line| !self.command.allowed.iter().any(|text| line.contains(text)))
            .collect()
    }

    fn rustix_pid(&self) -> Pid {
        i32::try_from(self.pid()).ok().and_then(Pid::from_raw).expect("a process id is positive")
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if !self.log.has_ended() {
            let _ = kill_process(self.rustix_pid(), Signal::KILL);
            self.log.wait_for_end(WAIT_MAX);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            return;
        }
        let unexpected = self.unexpected_log_lines();
        assert!(unexpected.is_empty(), "unexpected log lines: {unexpected:#?}");
    }
}

/// True for a warning, an error, and what is no log line at all.
fn is_alarming(line: &str) -> bool {
    match serde_json::from_str::<Value>(line) {
        Ok(event) => matches!(event["level"].as_str(), Some("WARN" | "ERROR") | None),
        Err(_) => true,
    }
}

impl Ready {
    fn wait(log: &Log, data: &Path) -> Self {
        let find = |line: &str| -> Option<Self> {
            let event: Value = serde_json::from_str(line).ok()?;
            (event["message"] == "ready").then_some(())?;
            Some(Self {
                kafka: event["kafka"].as_str()?.parse().ok()?,
                http: event["http"].as_str()?.parse().ok()?,
                pid: 0,
                ready_ms: event["ready_ms"].as_u64()?,
            })
        };
        let ready = log.wait_for(WAIT_MAX, find);
        let ready = ready.unwrap_or_else(|| panic!("the server is not ready:\n{}", log.text()));
        let holder = std::fs::read_to_string(data.join("LOCK")).expect("a server locks its data");
        Self { pid: holder.trim().parse().expect("the lock names its holder"), ..ready }
    }
}

/// Lines of a pipe, as they come.
#[derive(Debug, Default)]
struct Log {
    state: Mutex<LogState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct LogState {
    lines: Vec<String>,
    has_ended: bool,
}

impl Log {
    fn capture(pipe: impl std::io::Read + Send + 'static) -> Arc<Self> {
        let log = Arc::new(Self::default());
        let writer = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                writer.lock().lines.push(line);
                writer.changed.notify_all();
            }
            writer.lock().has_ended = true;
            writer.changed.notify_all();
        });
        log
    }

    fn lock(&self) -> MutexGuard<'_, LogState> {
        self.state.lock().expect("no holder of a log panics")
    }

    fn lines(&self) -> Vec<String> {
        self.lock().lines.clone()
    }

    fn text(&self) -> String {
        self.lock().lines.join("\n")
    }

    fn has_ended(&self) -> bool {
        self.lock().has_ended
    }

    fn wait_for_end(&self, limit: Duration) -> bool {
        let state = self.lock();
        let waited = self.changed.wait_timeout_while(state, limit, |state| !state.has_ended);
        waited.expect("no holder of a log panics").0.has_ended
    }

    /// The first line in which `find` finds something; `None` at the end of the log or of time.
    fn wait_for<T>(&self, limit: Duration, find: impl Fn(&str) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + limit;
        let mut seen = 0;
        let mut state = self.lock();
        loop {
            for line in &state.lines[seen..] {
                if let Some(found) = find(line) {
                    return Some(found);
                }
            }
            seen = state.lines.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if state.has_ended || left.is_zero() {
                return None;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.expect("no holder of a log panics").0;
        }
    }
}
