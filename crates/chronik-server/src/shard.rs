//! A shard: one thread with its own event loop and the connections pinned to it.
//!
//! Connections append and fetch right on the shard; only completions cross threads. Whoever
//! completes something for a shard puts it into the shard's inbox and wakes it once; the shard
//! then fills response slots and writes what has become ready.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::net::TcpStream as StdTcpStream;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chronik_common::MonotonicMs;
use chronik_monitoring::Beat;
use chronik_partition::{Completion, Partition, Token};
use chronik_wal::{Flushed, ReadBuffers};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tracing::debug;

use crate::api::pending_produce::SpareProduces;
use crate::net::connection::{Connection, serve};
use crate::net::listener::ConnectionPermit;
use crate::node::Node;
use crate::turns::Turns;

/// How often idle connections, overdue requests and the like are looked at.
const SWEEP_INTERVAL: Duration = Duration::from_millis(1_000);
/// The same while produce requests wait for an acknowledgement.
const BUSY_SWEEP_INTERVAL: Duration = Duration::from_millis(100);

/// Connections that are swept before others get a turn.
const SWEEP_CONNECTIONS: usize = 32;

/// Turns of connections whose frames are submitted together, at most: no frame waits for more
/// than these.
const TURNS_PER_SUBMIT: u32 = 16;

/// What other threads hand to a shard.
#[derive(Default)]
pub(crate) struct Inbox {
    flushed: Vec<Flushed>,
    completed: Vec<Completion>,
    woken: Vec<Token>,
    connections: Vec<(StdTcpStream, ConnectionPermit)>,
    barriers: Vec<Sender<()>>,
    has_lane_drained: bool,
    is_stopping: bool,
}

/// The side of a shard that other threads see.
#[derive(Default)]
pub(crate) struct ShardHandle {
    inbox: Mutex<Inbox>,
    wake: Notify,
    /// The shard reads no socket until the lane has room, which others may have filled.
    waits_for_lane: AtomicBool,
}

impl ShardHandle {
    fn post(&self, change: impl FnOnce(&mut Inbox)) {
        change(&mut self.inbox.lock().expect("no holder of an inbox panics"));
        self.wake.notify_one();
    }

    /// Frames appended by this shard are durable.
    pub(crate) fn post_flushed(&self, flushed: &[Flushed]) {
        self.post(|inbox| inbox.flushed.extend_from_slice(flushed));
    }

    /// The commit thread has flushed a group: wakes the shard if it waits for that.
    pub(crate) fn lane_drained(&self) {
        if self.waits_for_lane.swap(false, Ordering::SeqCst) {
            self.post(|inbox| inbox.has_lane_drained = true);
        }
    }

    /// Waiters of this shard's connections are done.
    pub(crate) fn post_completed(&self, completed: &[Completion], woken: &[Token]) {
        self.post(|inbox| {
            inbox.completed.extend_from_slice(completed);
            inbox.woken.extend_from_slice(woken);
        });
    }

    /// A connection to serve.
    pub(crate) fn post_connection(&self, stream: StdTcpStream, permit: ConnectionPermit) {
        self.post(|inbox| inbox.connections.push((stream, permit)));
    }

    /// Resolves once the shard is between two turns.
    pub(crate) fn barrier(&self) -> Receiver<()> {
        let (sender, receiver) = channel();
        self.post(|inbox| inbox.barriers.push(sender));
        receiver
    }

    /// Ends the shard's loop.
    pub(crate) fn stop(&self) {
        self.post(|inbox| inbox.is_stopping = true);
    }
}

/// Sends completions to the shards that own their connections.
pub(crate) fn post_to_owners(
    shards: &[Arc<ShardHandle>],
    completed: &[Completion],
    woken: &[Token],
) {
    let mut by_shard: BTreeMap<u16, (Vec<Completion>, Vec<Token>)> = BTreeMap::new();
    for completion in completed {
        by_shard.entry(completion.token.shard).or_default().0.push(*completion);
    }
    for token in woken {
        by_shard.entry(token.shard).or_default().1.push(*token);
    }
    for (shard, (completed, woken)) in by_shard {
        shards[usize::from(shard)].post_completed(&completed, &woken);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct FetchDeadline {
    at: MonotonicMs,
    connection: u64,
    request: u64,
}

impl Ord for FetchDeadline {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // The earliest deadline is the greatest, so that it is on top of the heap.
        other.at.cmp(&self.at)
    }
}

impl PartialOrd for FetchDeadline {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// A shard, on its own thread.
pub(crate) struct Shard {
    pub(crate) id: u16,
    pub(crate) node: Arc<Node>,
    /// Buffers for what consumers of this shard read.
    pub(crate) read_buffers: ReadBuffers,
    pub(crate) turns: Turns,
    pub(crate) spare_produces: SpareProduces,
    handle: Arc<ShardHandle>,
    connections: RefCell<HashMap<u64, Rc<Connection>>>,
    next_connection: Cell<u64>,
    /// Partitions appended to since the last submit, each once.
    touched: RefCell<Vec<Arc<Partition>>>,
    /// Turns that appended since the last submit.
    unsubmitted_turns: Cell<u32>,
    has_touched: Notify,
    /// Bytes of requests that wait for an acknowledgement.
    queued_bytes: Cell<usize>,
    queued_bytes_max: usize,
    /// Bytes waiting for the commit thread above which no socket is read: acks=0 has no other
    /// bound.
    lane_bytes_max: usize,
    /// Bytes of large frames that are being received, and the most there may be before another
    /// one starts. Reserved by announced size: what a client does not send in time is given back
    /// with its connection.
    frame_bytes: Cell<usize>,
    frame_bytes_max: usize,
    /// Connections that wait for memory for a frame of so many bytes, the longest wait first.
    frame_queue: RefCell<VecDeque<(u64, usize)>>,
    /// Connections that stopped reading until requests are answered.
    is_throttled: Cell<bool>,
    fetch_deadlines: RefCell<BinaryHeap<FetchDeadline>>,
    deadline_added: Notify,
    completed: RefCell<Vec<Completion>>,
    woken: RefCell<Vec<Token>>,
    /// Empty between deliveries; keeps its room.
    ready: RefCell<Vec<Rc<Connection>>>,
}

impl Shard {
    /// Runs shard `id` on the calling thread until it is stopped.
    pub(crate) fn run(id: u16, node: Arc<Node>, beat: Beat) -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(4)
            .build()?;
        let handle = Arc::clone(&node.shards()[usize::from(id)]);
        let shard_count = node.shards().len();
        let lane_bytes_max =
            usize::try_from(node.config.listener.queued_request_bytes_max).unwrap_or(usize::MAX);
        // Half for requests that wait for an answer, half for frames on their way in.
        let queued_bytes_max = lane_bytes_max / 2 / shard_count;
        let shard = Rc::new(Self {
            id,
            node,
            read_buffers: ReadBuffers::default(),
            turns: Turns::default(),
            spare_produces: SpareProduces::default(),
            handle,
            connections: RefCell::default(),
            next_connection: Cell::new(1),
            touched: RefCell::default(),
            unsubmitted_turns: Cell::new(0),
            has_touched: Notify::new(),
            queued_bytes: Cell::new(0),
            queued_bytes_max,
            lane_bytes_max,
            frame_bytes: Cell::new(0),
            frame_bytes_max: queued_bytes_max,
            frame_queue: RefCell::default(),
            is_throttled: Cell::new(false),
            fetch_deadlines: RefCell::default(),
            deadline_added: Notify::new(),
            completed: RefCell::default(),
            woken: RefCell::default(),
            ready: RefCell::default(),
        });
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async {
            tokio::task::spawn_local(Rc::clone(&shard).watch_deadlines());
            tokio::task::spawn_local(Rc::clone(&shard).submit_touched());
            tokio::task::spawn_local(Rc::clone(&shard).sweep(beat));
            shard.serve_inbox().await;
        });
        Ok(())
    }

    /// Handles what other threads hand over until the shard is stopped.
    async fn serve_inbox(self: &Rc<Self>) {
        // Two inboxes change places, so that neither grows anew for every commit.
        let mut inbox = Inbox::default();
        loop {
            self.handle.wake.notified().await;
            std::mem::swap(
                &mut inbox,
                &mut *self.handle.inbox.lock().expect("no holder of an inbox panics"),
            );
            for (stream, permit) in inbox.connections.drain(..) {
                self.adopt(stream, permit);
            }
            for flushed in inbox.flushed.drain(..) {
                if let Some(partition) = self.node.registry.by_log(flushed.log) {
                    partition.on_flushed(
                        &flushed,
                        &mut self.completed.borrow_mut(),
                        &mut self.woken.borrow_mut(),
                    );
                }
            }
            if std::mem::take(&mut inbox.has_lane_drained) {
                self.resume_reading();
            }
            self.completed.borrow_mut().append(&mut inbox.completed);
            self.woken.borrow_mut().append(&mut inbox.woken);
            self.deliver();
            if !inbox.barriers.is_empty() || inbox.is_stopping {
                self.submit();
            }
            for barrier in inbox.barriers.drain(..) {
                // Whoever gave up waiting needs no answer.
                let _ = barrier.send(());
            }
            if inbox.is_stopping {
                for connection in self.connections.borrow().values() {
                    connection.close();
                }
                return;
            }
        }
    }

    fn adopt(self: &Rc<Self>, stream: StdTcpStream, permit: ConnectionPermit) {
        let stream = match TcpStream::from_std(stream) {
            Ok(stream) => stream,
            Err(error) => {
                debug!(%error, "cannot adopt a connection");
                return;
            }
        };
        let id = self.next_connection.get();
        self.next_connection.set(id + 1);
        let (reader, writer) = stream.into_split();
        let connection = Rc::new(Connection::new(id, writer, permit, self.now()));
        self.connections.borrow_mut().insert(id, Rc::clone(&connection));
        tokio::task::spawn_local(serve(Rc::clone(self), connection, reader));
    }

    /// Forgets a connection that is closed.
    pub(crate) fn remove(&self, connection: u64) {
        self.connections.borrow_mut().remove(&connection);
    }

    pub(crate) fn now(&self) -> MonotonicMs {
        self.node.clock.monotonic()
    }

    /// Notes a partition that was appended to in this turn.
    pub(crate) fn touch(&self, partition: &Arc<Partition>) {
        let mut touched = self.touched.borrow_mut();
        if !touched.iter().any(|other| Arc::ptr_eq(other, partition)) {
            touched.push(Arc::clone(partition));
        }
    }

    /// Ends a turn of one connection. Its frames go to the disk together with those of the other
    /// connections that are ready now: one submit, not one per connection.
    pub(crate) fn end_turn(self: &Rc<Self>) {
        if self.touched.borrow().is_empty() {
            return;
        }
        let turns = self.unsubmitted_turns.get() + 1;
        self.unsubmitted_turns.set(turns);
        if turns >= TURNS_PER_SUBMIT {
            self.submit();
        } else {
            self.has_touched.notify_one();
        }
    }

    /// Submits behind the turns of the connections that were ready when the first of them ended:
    /// tasks run in the order in which they became ready.
    async fn submit_touched(self: Rc<Self>) {
        loop {
            self.has_touched.notified().await;
            self.submit();
        }
    }

    /// Hands what was appended to the disk, then delivers what is complete already.
    fn submit(self: &Rc<Self>) {
        self.unsubmitted_turns.set(0);
        for partition in self.touched.borrow_mut().drain(..) {
            partition.submit(
                self.id,
                &mut self.completed.borrow_mut(),
                &mut self.woken.borrow_mut(),
            );
        }
        self.deliver();
    }

    /// Brings completions to their connections: this shard's directly, others' by inbox.
    fn deliver(self: &Rc<Self>) {
        if self.completed.borrow().is_empty() && self.woken.borrow().is_empty() {
            return;
        }
        let completed = std::mem::take(&mut *self.completed.borrow_mut());
        let woken = std::mem::take(&mut *self.woken.borrow_mut());
        let is_foreign = |token: &Token| token.shard != self.id;
        let foreign: Vec<Completion> =
            completed.iter().filter(|one| is_foreign(&one.token)).copied().collect();
        let foreign_woken: Vec<Token> =
            woken.iter().filter(|one| is_foreign(one)).copied().collect();
        if !foreign.is_empty() || !foreign_woken.is_empty() {
            post_to_owners(self.node.shards(), &foreign, &foreign_woken);
        }
        let mut ready = std::mem::take(&mut *self.ready.borrow_mut());
        for completion in completed.iter().filter(|one| !is_foreign(&one.token)) {
            let connection = self.connection(completion.token.connection);
            if let Some(connection) = connection
                && connection.complete_produce(completion)
                && !ready.iter().any(|other| Rc::ptr_eq(other, &connection))
            {
                ready.push(connection);
            }
        }
        for connection in ready.drain(..) {
            connection.pump(self);
        }
        for token in woken.iter().filter(|one| !is_foreign(one)) {
            if let Some(connection) = self.connection(token.connection) {
                connection.wake_fetch(self, token.request, false);
            }
        }
        // Give the buffers back; delivering may have produced new entries.
        let mut buffer = completed;
        buffer.clear();
        let mut current = self.completed.borrow_mut();
        if current.is_empty() {
            *current = buffer;
        }
        *self.ready.borrow_mut() = ready;
    }

    fn connection(&self, id: u64) -> Option<Rc<Connection>> {
        self.connections.borrow().get(&id).cloned()
    }

    /// Accounts for a request that waits; see [`Shard::may_read`].
    pub(crate) fn charge(&self, bytes: usize) {
        self.queued_bytes.set(self.queued_bytes.get() + bytes);
    }

    /// Gives back what [`Shard::charge`] took; connections that stopped reading go on.
    pub(crate) fn release(&self, bytes: usize) {
        self.queued_bytes.set(self.queued_bytes.get() - bytes);
        self.resume_reading();
    }

    /// Lets connections that stopped reading go on once there is room again.
    fn resume_reading(&self) {
        let may_resume = self.is_throttled.get()
            && self.queued_bytes.get() < self.queued_bytes_max / 2
            && !self.is_lane_above(self.lane_bytes_max / 2);
        if may_resume {
            self.is_throttled.set(false);
            for connection in self.connections.borrow().values() {
                connection.nudge();
            }
        }
    }

    /// True if sockets may be read: waiting requests leave memory for more.
    pub(crate) fn may_read(&self) -> bool {
        let may_read = self.queued_bytes.get() < self.queued_bytes_max
            && !self.is_lane_above(self.lane_bytes_max);
        if !may_read {
            self.is_throttled.set(true);
        }
        may_read
    }

    /// True if at least `bytes` wait for the commit thread; then its next group wakes this shard.
    fn is_lane_above(&self, bytes: usize) -> bool {
        let lane = self.node.wal.data_lane();
        if lane.queued_bytes() < bytes {
            return false;
        }
        // What is still queued after this will be flushed after this, and that is told.
        self.handle.waits_for_lane.store(true, Ordering::SeqCst);
        lane.queued_bytes() >= bytes
    }

    /// Reserves memory for a frame that is being received; false if the connection has to wait
    /// for [`Connection::grant_frame_memory`]. The last one granted may exceed the limit, or the
    /// largest request could never be received.
    pub(crate) fn reserve_frame(&self, connection: u64, bytes: usize) -> bool {
        let has_room = self.frame_bytes.get() < self.frame_bytes_max;
        if has_room {
            self.frame_bytes.set(self.frame_bytes.get() + bytes);
        } else {
            self.frame_queue.borrow_mut().push_back((connection, bytes));
        }
        has_room
    }

    /// Gives back what [`Shard::reserve_frame`] reserved, to those who wait for it.
    pub(crate) fn release_frame(&self, bytes: usize) {
        self.frame_bytes.set(self.frame_bytes.get() - bytes);
        while self.frame_bytes.get() < self.frame_bytes_max {
            let next = self.frame_queue.borrow_mut().pop_front();
            let Some((connection, bytes)) = next else { return };
            if self.connection(connection).is_some_and(|it| it.grant_frame_memory(bytes)) {
                self.frame_bytes.set(self.frame_bytes.get() + bytes);
            }
        }
    }

    /// Answers a parked fetch at `at` with whatever there is.
    pub(crate) fn schedule_fetch(&self, at: MonotonicMs, connection: u64, request: u64) {
        let mut deadlines = self.fetch_deadlines.borrow_mut();
        let is_earliest = deadlines.peek().is_none_or(|first| at < first.at);
        deadlines.push(FetchDeadline { at, connection, request });
        if is_earliest {
            self.deadline_added.notify_one();
        }
    }

    async fn watch_deadlines(self: Rc<Self>) {
        loop {
            let next = self.fetch_deadlines.borrow().peek().copied();
            let Some(next) = next else {
                self.deadline_added.notified().await;
                continue;
            };
            let now = self.now();
            if next.at <= now {
                self.fetch_deadlines.borrow_mut().pop();
                if let Some(connection) = self.connection(next.connection) {
                    connection.wake_fetch(&self, next.request, true);
                }
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep(next.at.since(now)) => {}
                () = self.deadline_added.notified() => {}
            }
        }
    }

    /// Looks after connections: idle ones, overdue requests, unfinished frames.
    async fn sweep(self: Rc<Self>, beat: Beat) {
        loop {
            let is_busy = self.queued_bytes.get() > 0;
            tokio::time::sleep(if is_busy { BUSY_SWEEP_INTERVAL } else { SWEEP_INTERVAL }).await;
            let now = self.now();
            beat.beat(now);
            let connections: Vec<Rc<Connection>> =
                self.connections.borrow().values().cloned().collect();
            for some in connections.chunks(SWEEP_CONNECTIONS) {
                for connection in some {
                    connection.sweep(&self, now);
                }
                // Thousands of idle connections must not make those at work wait.
                tokio::task::yield_now().await;
            }
        }
    }
}
