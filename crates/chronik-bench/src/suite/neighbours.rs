//! What runs beside a load: consumers that hardly read, a reader of a backlog, idle connections,
//! busy processors.
//!
//! A neighbour starts before the load that is measured and stops after it. It says at its end what
//! it got, so that one that the server threw out is not taken for one that does no harm. The
//! reader of the backlog runs at a lower priority (nice 10): what it computes would be another
//! machine's work; what the server does for it is not.

use std::hint::black_box;
use std::io::{self, Read};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use chronik_common::Uuid;
use chronik_protocol::ApiKey;

use super::passes::Passes;
use super::rows::Neighbour;
use crate::client::{Connection, FetchPlan, fetch_request};
use crate::failure::Failure;
use crate::plan::Plan;

/// What a slow consumer asks for in one answer, in bytes.
const SLOW_ASKED_BYTES: i32 = 50_000_000;

/// Fetches that a slow consumer sends without reading an answer.
const SLOW_REQUESTS: u32 = 4;

/// Receive buffer that a slow consumer asks the kernel for, in bytes.
const SLOW_RECEIVE_BYTES: usize = 4_096;

/// What a slow consumer reads, and how often: 512 bytes per second.
const SLOW_READ_BYTES: usize = 64;
const SLOW_READ_STEP: Duration = Duration::from_millis(125);

/// Newest fetch that asks for topics by name.
const NEWEST_FETCH_BY_NAME: i16 = 12;

/// Priority of the reader of the backlog, as `nice` counts it.
const READER_NICE: i32 = 10;

/// Descriptors of this process besides its connections to the server.
const OTHER_FILES: u64 = 256;

/// Settings of the server that bound its memory, and room for the connections. The first four are
/// the defaults, given so that the result does not depend on them.
pub(crate) const SETTINGS: &[(&str, u64)] = &[
    (TAIL_BYTES, 64 << 20),
    (QUEUED_REQUEST_BYTES, 256 << 20),
    (FETCH_BYTES, 55 << 20),
    (WRITE_BUFFER_BYTES, 1 << 20),
    ("listener.connections_per_ip_max", 10_000),
    ("listener.connection_creation_rate_max", 10_000),
];
const TAIL_BYTES: &str = "wal.tail_bytes_max";
const QUEUED_REQUEST_BYTES: &str = "listener.queued_request_bytes_max";
const FETCH_BYTES: &str = "listener.fetch_bytes_max";
const WRITE_BUFFER_BYTES: &str = "listener.write_buffer_bytes_max";

/// What a connection may cost besides its answers, in bytes.
const CONNECTION_BYTES: u64 = 40 << 10;

/// How much of each neighbour there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Sizes {
    /// Consumers that hardly read.
    pub slow_consumers: u32,
    /// Messages of 1,000 bytes that lie in the backlog.
    pub backlog_messages: u64,
    /// True if the backlog is read at full speed.
    pub is_backlog_read: bool,
    /// Connections without requests.
    pub idle_connections: u32,
}

impl Sizes {
    /// The sizes of a neighbour.
    pub(crate) fn of(neighbour: Neighbour, is_small: bool) -> Self {
        let size = |full: u64, small: u64| if is_small { small } else { full };
        let slow_consumers = size(8, 2) as u32;
        let idle_connections = size(5_000, 100) as u32;
        // Two answers of a slow consumer.
        let asked = size(100_000, 16_000);
        let backlog = size(1_000_000, 16_000);
        match neighbour {
            Neighbour::SlowConsumers => {
                Self { slow_consumers, backlog_messages: asked, ..Self::default() }
            }
            Neighbour::Backlog | Neighbour::BacklogElsewhere => {
                Self { backlog_messages: backlog, is_backlog_read: true, ..Self::default() }
            }
            Neighbour::IdleConnections => Self { idle_connections, ..Self::default() },
            Neighbour::Together => Self {
                slow_consumers,
                backlog_messages: backlog,
                is_backlog_read: true,
                idle_connections,
            },
        }
    }

    /// The memory that the settings allow the server beside `connections` of a load, in bytes,
    /// besides what it has without any.
    pub(crate) fn memory_cap(&self, connections: u32) -> u64 {
        let of = |name: &str| {
            SETTINGS.iter().find(|(key, _)| *key == name).map_or(0, |(_, bytes)| *bytes)
        };
        let readers = u64::from(self.slow_consumers) + u64::from(self.is_backlog_read);
        let others = u64::from(connections) + u64::from(self.idle_connections);
        of(TAIL_BYTES)
            + of(QUEUED_REQUEST_BYTES)
            + readers * (of(FETCH_BYTES) + of(WRITE_BUFFER_BYTES))
            + (readers + others) * CONNECTION_BYTES
    }

    /// Says so if this process may not open as many connections.
    pub(crate) fn obstacle(&self) -> Option<String> {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum?;
        let wanted = u64::from(self.idle_connections) + OTHER_FILES;
        let is_refused = limit < wanted;
        is_refused.then(|| format!("{wanted} open files are needed, and the system allows {limit}"))
    }
}

/// Neighbours that run until they are stopped.
#[derive(Debug)]
pub(crate) struct Company {
    stop: Arc<AtomicBool>,
    slow: Option<JoinHandle<SlowEnd>>,
    reader: Option<JoinHandle<Result<Passes, Failure>>>,
    idle: Vec<Connection>,
    opening_seconds: f64,
}

/// What the neighbours got.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(crate) struct CompanyEnd {
    /// Slow consumers whose connection ended.
    pub slow_consumers_closed: u64,
    /// Bytes that slow consumers read.
    pub slow_bytes: u64,
    /// Megabytes per second of the reader of the backlog.
    pub backlog_megabytes_per_second: f64,
    /// Idle connections that answered at the end.
    pub idle_connections_alive: u64,
    /// Seconds that it took to open them.
    pub opening_seconds: f64,
}

impl Company {
    /// Starts the neighbours of `sizes`; `backlog` reads the topic they read.
    pub(crate) fn start(sizes: &Sizes, backlog: &Plan) -> Result<Self, Failure> {
        let stop = Arc::new(AtomicBool::new(false));
        let (mut idle, started) = (Vec::new(), Instant::now());
        for _ in 0..sizes.idle_connections {
            idle.push(Connection::open(&backlog.endpoints, backlog.request_timeout())?);
        }
        let opening_seconds = started.elapsed().as_secs_f64();
        let (slow, reader) = (None, None);
        let mut company = Self { stop: Arc::clone(&stop), slow, reader, idle, opening_seconds };
        if sizes.slow_consumers > 0 {
            let consumers = (0..sizes.slow_consumers).map(|_| slow_consumer(backlog));
            let consumers = consumers.collect::<Result<Vec<_>, _>>()?;
            let stop = Arc::clone(&stop);
            company.slow = Some(spawn("slow-consumers", move || read_slowly(consumers, &stop))?);
        }
        if sizes.is_backlog_read {
            let (plan, count) = (backlog.clone(), sizes.backlog_messages);
            let read = move || read_behind_others(&plan, count, &stop);
            company.reader = Some(spawn("backlog-reader", read)?);
        }
        Ok(company)
    }

    /// Stops them and says what they got.
    pub(crate) fn stop(mut self) -> Result<CompanyEnd, Failure> {
        let alive = self.idle.iter_mut().filter_map(answered).count() as u64;
        let mut end = CompanyEnd {
            idle_connections_alive: alive,
            opening_seconds: self.opening_seconds,
            ..CompanyEnd::default()
        };
        self.stop.store(true, Ordering::Relaxed);
        if let Some(slow) = self.slow.take() {
            let slow = slow.join().expect("slow consumers do not panic");
            end.slow_consumers_closed = slow.closed;
            end.slow_bytes = slow.bytes;
        }
        if let Some(reader) = self.reader.take() {
            let reader = reader.join().expect("a reader does not panic")?;
            let seconds = reader.elapsed.as_secs_f64();
            end.backlog_megabytes_per_second = crate::series::per(reader.megabytes, seconds);
        }
        Ok(end)
    }
}

impl Drop for Company {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn answered(connection: &mut Connection) -> Option<()> {
    connection.is_answered().then_some(())
}

fn spawn<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, Failure> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(body);
    thread.map_err(Failure::system("start a thread"))
}

/// What slow consumers got.
#[derive(Clone, Copy, Debug, Default)]
struct SlowEnd {
    bytes: u64,
    closed: u64,
}

/// A connection with several large fetches sent and a small receive buffer.
fn slow_consumer(plan: &Plan) -> Result<TcpStream, Failure> {
    let connection = Connection::open(&plan.endpoints, plan.request_timeout())?;
    let version = connection.version_up_to(ApiKey::Fetch, NEWEST_FETCH_BY_NAME)?;
    let fetch = FetchPlan {
        topic: &plan.flags.topic,
        topic_id: Uuid::ZERO,
        max_wait_ms: 0,
        max_bytes: SLOW_ASKED_BYTES,
        partition_max_bytes: SLOW_ASKED_BYTES,
    };
    let request = fetch_request(&fetch, &[(0, 0)]);
    let stream = connection.ask_and_leave(&request, version, SLOW_REQUESTS)?;
    let set = || -> io::Result<()> {
        rustix::net::sockopt::set_socket_recv_buffer_size(&stream, SLOW_RECEIVE_BYTES)?;
        stream.set_nonblocking(true)
    };
    set().map_err(Failure::system("set up a slow consumer"))?;
    Ok(stream)
}

fn read_slowly(consumers: Vec<TcpStream>, stop: &AtomicBool) -> SlowEnd {
    let mut open = consumers;
    let mut end = SlowEnd::default();
    let mut bytes = [0; SLOW_READ_BYTES];
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(SLOW_READ_STEP);
        open.retain_mut(|stream| match stream.read(&mut bytes) {
            Ok(count) if count > 0 => {
                end.bytes += count as u64;
                true
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => true,
            _ => {
                end.closed += 1;
                false
            }
        });
    }
    end
}

/// Reads the whole backlog, `count` messages, again and again until it is told to stop.
fn read_behind_others(plan: &Plan, count: u64, stop: &AtomicBool) -> Result<Passes, Failure> {
    lower_priority()?;
    Passes::until(plan, count, || stop.load(Ordering::Relaxed))
}

/// Lowers the priority of the calling thread and of those it starts.
#[cfg(target_os = "linux")]
fn lower_priority() -> Result<(), Failure> {
    let lowered = rustix::process::setpriority_process(None, READER_NICE);
    lowered.map_err(|error| Failure::system("lower a thread's priority")(error.into()))
}

/// Elsewhere a priority is that of the whole process.
#[cfg(not(target_os = "linux"))]
fn lower_priority() -> Result<(), Failure> {
    let _ = READER_NICE;
    Ok(())
}

/// Threads that do nothing but compute, until they are dropped.
#[derive(Debug)]
pub(crate) struct Hogs {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Hogs {
    /// Starts `count` of them.
    pub(crate) fn start(count: u32) -> Result<Self, Failure> {
        let mut hogs = Self { stop: Arc::default(), threads: Vec::new() };
        for _ in 0..count {
            let stop = Arc::clone(&hogs.stop);
            hogs.threads.push(spawn("hog", move || compute(&stop))?);
        }
        Ok(hogs)
    }
}

impl Drop for Hogs {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn compute(stop: &AtomicBool) {
    let mut number = 1_u64;
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..10_000 {
            number = black_box(number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_neighbour_may_cost_what_the_settings_say() {
        let none = Sizes::default().memory_cap(0);
        assert_eq!(none, (64 + 256) << 20);
        let slow = Sizes::of(Neighbour::SlowConsumers, false);
        assert_eq!(slow.memory_cap(64), none + 8 * (56 << 20) + 72 * CONNECTION_BYTES);
        let idle = Sizes::of(Neighbour::IdleConnections, false);
        assert_eq!(idle.memory_cap(64), none + 5_064 * CONNECTION_BYTES);
    }

    #[test]
    fn small_sizes_keep_every_neighbour() {
        let small = Sizes::of(Neighbour::Together, true);
        assert!(small.slow_consumers > 0 && small.is_backlog_read && small.idle_connections == 100);
        assert_eq!(small.backlog_messages, 16_000);
    }
}
