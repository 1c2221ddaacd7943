//! One client connection: reads all complete requests, keeps answers in request order, writes
//! all ready answers at once.
//!
//! Every request that has an answer gets a slot in arrival order. Produce and Fetch slots are
//! filled by completions; a slot is encoded when it reaches the front and is complete. Appends
//! happen in reading order on this shard, so requests of one connection are never reordered;
//! only their waits overlap.
//!
//! Cancellation: [`serve`] owns the socket; dropping it closes the connection. Batches that were
//! appended stay appended.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use chronik_common::MonotonicMs;
use chronik_partition::{Completion, Token};
use chronik_protocol::{FRAME_PREFIX_BYTES, FrameSplit, OutputBuffer, split_frame};
use tokio::io::AsyncReadExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;
use tracing::{debug, error, info};

use crate::api::fetch::PendingFetch;
use crate::api::pending_produce::PendingProduce;
use crate::api::{self, CloseReason};
use crate::net::listener::ConnectionPermit;
use crate::shard::Shard;

/// Free space a read finds in the receive buffer, in bytes.
const READ_BYTES_MIN: usize = 16 << 10;
/// Size of a fresh receive buffer, in bytes.
const RECEIVE_BUFFER_BYTES: usize = 64 << 10;
/// A client whose requests come so soon after an answer loses little by short answers.
const NEAR_MAX: Duration = Duration::from_millis(2);
/// Most bytes read in one turn before other connections get theirs.
const TURN_BYTES_MAX: usize = 4 << 20;
/// Slices per vectored write.
const SLICES_PER_WRITE: usize = 64;
/// Requests that may wait for their answers on one connection before it is read no further.
const SLOTS_MAX: usize = 1_024;

/// The answer to one request.
pub(crate) enum Slot {
    /// Waits for acknowledgements.
    Produce(Box<PendingProduce>),
    /// Waits for records.
    Fetch(Box<PendingFetch>),
    /// A task works on it.
    Working,
    /// Encoded, waiting for its turn.
    Encoded(OutputBuffer),
}

/// Share of a connection in the memory for frames that are being received.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum FrameMemory {
    /// Nothing is being received, or a frame that fits into a fresh receive buffer.
    None,
    /// The rest of the frame is not read before memory is free.
    Waiting,
    /// Bytes that are reserved.
    Reserved(usize),
}

/// What a client said about itself in ApiVersions.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClientSoftware {
    pub(crate) name: String,
    pub(crate) version: String,
}

/// One connection, owned by its shard.
pub(crate) struct Connection {
    pub(crate) id: u64,
    socket: OwnedWriteHalf,
    permit: ConnectionPermit,
    slots: RefCell<VecDeque<Slot>>,
    /// Number of the request in the front slot.
    front_request: Cell<u64>,
    out: RefCell<OutputBuffer>,
    /// Bytes of encoded answers that wait behind an unfinished one.
    queued_answer_bytes: Cell<usize>,
    /// The task is to look at the connection again.
    wake: Notify,
    is_closing: Cell<bool>,
    wants_write: Cell<bool>,
    /// Bytes that may still be written in this turn.
    write_turn_left: Cell<usize>,
    /// Somebody asked for [`Connection::pump`] since it last looked.
    wants_pump: Cell<bool>,
    is_pumping: Cell<bool>,
    /// Complete requests lie in the receive buffer until answers make room.
    is_stalled: Cell<bool>,
    last_activity: Cell<MonotonicMs>,
    /// When the socket took bytes, last.
    sent_at: Cell<MonotonicMs>,
    /// When the first byte of an incomplete frame arrived.
    frame_started: Cell<Option<MonotonicMs>>,
    /// Memory for a large frame that is being received.
    frame_memory: Cell<FrameMemory>,
    pub(crate) software: RefCell<ClientSoftware>,
}

impl Connection {
    pub(crate) fn new(
        id: u64,
        socket: OwnedWriteHalf,
        permit: ConnectionPermit,
        now: MonotonicMs,
    ) -> Self {
        Self {
            id,
            socket,
            permit,
            slots: RefCell::default(),
            front_request: Cell::new(0),
            out: RefCell::default(),
            queued_answer_bytes: Cell::new(0),
            wake: Notify::new(),
            is_closing: Cell::new(false),
            wants_write: Cell::new(false),
            write_turn_left: Cell::new(0),
            wants_pump: Cell::new(false),
            is_pumping: Cell::new(false),
            is_stalled: Cell::new(false),
            last_activity: Cell::new(now),
            sent_at: Cell::new(now),
            frame_started: Cell::new(None),
            frame_memory: Cell::new(FrameMemory::None),
            software: RefCell::default(),
        }
    }

    /// Address of the client.
    pub(crate) fn ip(&self) -> IpAddr {
        self.permit.ip()
    }

    /// Ends the connection at the next opportunity.
    pub(crate) fn close(&self) {
        self.is_closing.set(true);
        self.wake.notify_one();
    }

    /// True if what has just been received came soon after what was sent last.
    pub(crate) fn is_near(&self, shard: &Shard) -> bool {
        shard.now().since(self.sent_at.get()) <= NEAR_MAX
    }

    /// Makes the task look at the connection again.
    pub(crate) fn nudge(&self) {
        self.wake.notify_one();
    }

    /// Gives the connection the memory it waits for; false if it does not wait any more.
    pub(crate) fn grant_frame_memory(&self, bytes: usize) -> bool {
        let is_waiting = self.frame_memory.get() == FrameMemory::Waiting;
        if is_waiting {
            self.frame_memory.set(FrameMemory::Reserved(bytes));
            self.nudge();
        }
        is_waiting
    }

    /// Asks for memory for the frame that is being received, `bytes` long.
    fn reserve_frame_memory(&self, shard: &Shard, bytes: usize) {
        if bytes > RECEIVE_BUFFER_BYTES && self.frame_memory.get() == FrameMemory::None {
            self.frame_memory.set(if shard.reserve_frame(self.id, bytes) {
                FrameMemory::Reserved(bytes)
            } else {
                FrameMemory::Waiting
            });
        }
    }

    /// The frame is complete, or never will be.
    fn release_frame_memory(&self, shard: &Shard) {
        if let FrameMemory::Reserved(bytes) = self.frame_memory.replace(FrameMemory::None) {
            shard.release_frame(bytes);
        }
    }

    /// Number of the request whose slot is pushed next.
    pub(crate) fn next_request(&self) -> u64 {
        self.front_request.get() + self.slots.borrow().len() as u64
    }

    /// Token for part `part` of the request whose slot is pushed next.
    pub(crate) fn token(&self, shard: &Shard, part: u32) -> Token {
        Token { shard: shard.id, connection: self.id, request: self.next_request(), part }
    }

    /// Adds the next request's slot and returns the request's number.
    pub(crate) fn push_slot(&self, slot: Slot) -> u64 {
        let request = self.next_request();
        self.slots.borrow_mut().push_back(slot);
        request
    }

    /// Fills the slot a task worked on.
    pub(crate) fn fill(self: &Rc<Self>, shard: &Rc<Shard>, request: u64, encoded: OutputBuffer) {
        if let Some(slot) = self.slot_index(request) {
            self.queue_answer(encoded.len());
            self.slots.borrow_mut()[slot] = Slot::Encoded(encoded);
            self.pump(shard);
        }
    }

    fn slot_index(&self, request: u64) -> Option<usize> {
        let index = usize::try_from(request.checked_sub(self.front_request.get())?).ok()?;
        (index < self.slots.borrow().len()).then_some(index)
    }

    /// Puts an answer that needs no waiting: straight to the socket's queue if nothing is
    /// before it.
    pub(crate) fn answer(
        &self,
        encode: impl FnOnce(&mut OutputBuffer) -> Result<(), chronik_protocol::EncodeError>,
    ) -> Result<(), CloseReason> {
        if self.slots.borrow().is_empty() {
            encode(&mut self.out.borrow_mut()).map_err(CloseReason::Encode)?;
            self.front_request.set(self.front_request.get() + 1);
        } else {
            let mut encoded = OutputBuffer::new();
            encode(&mut encoded).map_err(CloseReason::Encode)?;
            self.queue_answer(encoded.len());
            self.push_slot(Slot::Encoded(encoded));
        }
        Ok(())
    }

    fn queue_answer(&self, bytes: usize) {
        self.queued_answer_bytes.set(self.queued_answer_bytes.get() + bytes);
    }

    /// True if as many bytes wait to be sent as the limit allows: nothing large is encoded then.
    fn is_full(&self, shard: &Shard) -> bool {
        let limit = usize::try_from(shard.node.config.listener.write_buffer_bytes_max);
        self.out.borrow().len() + self.queued_answer_bytes.get() > limit.unwrap_or(usize::MAX)
    }

    /// Applies a completion; `true` if its request is now complete.
    pub(crate) fn complete_produce(&self, completion: &Completion) -> bool {
        let Some(index) = self.slot_index(completion.token.request) else { return false };
        let mut slots = self.slots.borrow_mut();
        let Slot::Produce(pending) = &mut slots[index] else { return false };
        pending.complete(completion)
    }

    /// Looks again at a parked fetch: records may have come, or its time is over.
    pub(crate) fn wake_fetch(self: &Rc<Self>, shard: &Rc<Shard>, request: u64, is_due: bool) {
        let Some(index) = self.slot_index(request) else { return };
        let fetch = match &mut self.slots.borrow_mut()[index] {
            Slot::Fetch(pending) => pending.take_for_look(is_due),
            Slot::Produce(_) | Slot::Working | Slot::Encoded(_) => None,
        };
        let Some(fetch) = fetch else { return };
        api::fetch::look_again(shard, self, request, fetch);
        self.pump(shard);
    }

    /// Puts a fetch that was looked at back into its slot.
    pub(crate) fn park_fetch(&self, request: u64, fetch: PendingFetch) {
        if let Some(index) = self.slot_index(request) {
            self.slots.borrow_mut()[index] = Slot::Fetch(Box::new(fetch));
        }
    }

    /// True if a fetch must wait for its turn: one before it still waits, or enough bytes wait to
    /// be sent already.
    pub(crate) fn must_queue_fetch(&self, shard: &Shard, request: u64) -> bool {
        if self.is_full(shard) {
            return true;
        }
        let Some(index) = self.slot_index(request) else { return false };
        let slots = self.slots.borrow();
        slots.range(..index).any(|slot| matches!(slot, Slot::Fetch(_)))
    }

    /// Encodes complete answers at the front and writes what the socket takes.
    ///
    /// An answer may start a queued fetch whose answer wants to be pumped in turn: that is done
    /// by the outermost call, so that a long queue does not become a deep stack.
    pub(crate) fn pump(self: &Rc<Self>, shard: &Rc<Shard>) {
        self.wants_pump.set(true);
        if self.is_pumping.replace(true) {
            return;
        }
        self.write_turn_left.set(shard.turns.bytes());
        while self.wants_pump.replace(false) {
            self.pump_once(shard);
        }
        self.is_pumping.set(false);
    }

    fn pump_once(self: &Rc<Self>, shard: &Rc<Shard>) {
        loop {
            let is_complete = match self.slots.borrow().front() {
                Some(Slot::Produce(pending)) => pending.is_complete(),
                Some(Slot::Encoded(_)) => true,
                Some(Slot::Fetch(_) | Slot::Working) | None => false,
            };
            if !is_complete {
                break;
            }
            let slot = self.slots.borrow_mut().pop_front().expect("just seen");
            self.front_request.set(self.front_request.get() + 1);
            let mut out = self.out.borrow_mut();
            let result = match slot {
                Slot::Produce(pending) => {
                    let result = pending.encode(&mut out, shard);
                    shard.spare_produces.give(pending);
                    result
                }
                Slot::Encoded(encoded) => {
                    let left = self.queued_answer_bytes.get() - encoded.len();
                    self.queued_answer_bytes.set(left);
                    out.append(encoded);
                    Ok(())
                }
                Slot::Fetch(_) | Slot::Working => unreachable!("only complete slots are taken"),
            };
            if let Err(error) = result {
                drop(out);
                self.end(shard, &CloseReason::Encode(error));
                return;
            }
        }
        self.write(shard);
        self.start_queued_fetch(shard);
        if self.is_stalled.get() && self.may_read(shard) {
            self.nudge();
        }
    }

    /// A fetch that waited for an earlier one on this connection gets its turn.
    fn start_queued_fetch(self: &Rc<Self>, shard: &Rc<Shard>) {
        if self.is_full(shard) {
            return;
        }
        let queued = {
            let slots = self.slots.borrow();
            let first = slots.iter().position(|slot| matches!(slot, Slot::Fetch(_)));
            first.filter(
                |index| matches!(&slots[*index], Slot::Fetch(pending) if pending.is_queued()),
            )
        };
        if let Some(index) = queued {
            let request = self.front_request.get() + index as u64;
            self.wake_fetch(shard, request, false);
        }
    }

    /// Writes what the turn allows and the socket takes now; the rest in a later turn, when the
    /// socket is writable.
    fn write(&self, shard: &Shard) {
        let mut out = self.out.borrow_mut();
        while !out.is_empty() {
            let left = self.write_turn_left.get();
            if left == 0 {
                self.write_later();
                return;
            }
            match self.write_some(&out, left) {
                Ok(count) => {
                    out.advance(count);
                    self.write_turn_left.set(left - count);
                    let now = shard.now();
                    self.last_activity.set(now);
                    self.sent_at.set(now);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.write_later();
                    return;
                }
                Err(error) => {
                    debug!(%error, client = %self.ip(), "a connection broke while writing");
                    drop(out);
                    self.close();
                    return;
                }
            }
        }
        self.wants_write.set(false);
    }

    /// Writes at most `bytes_max` bytes with one system call.
    fn write_some(&self, out: &OutputBuffer, bytes_max: usize) -> io::Result<usize> {
        if let Some(piece) = out.as_slice() {
            return self.socket.try_write(&piece[..piece.len().min(bytes_max)]);
        }
        let mut slices = [IoSlice::new(&[]); SLICES_PER_WRITE];
        let used = out.fill_io_slices(&mut slices, bytes_max);
        self.socket.try_write_vectored(&slices[..used])
    }

    /// Makes the task wait until the socket is writable.
    fn write_later(&self) {
        // Only the first time: the task would wake itself for ever.
        if !self.wants_write.replace(true) {
            self.wake.notify_one();
        }
    }

    /// Writes as much as the socket takes, once nobody will write any more.
    fn write_rest(&self, shard: &Shard) {
        self.write_turn_left.set(usize::MAX);
        self.write(shard);
    }

    /// Ends the connection for a reason worth telling.
    pub(crate) fn end(&self, shard: &Shard, reason: &CloseReason) {
        shard.node.metrics.count_close(shard.id, reason);
        let client = self.ip();
        match reason {
            CloseReason::Unsupported { api_key, version, supported } => {
                let software = self.software.borrow();
                info!(
                    code = "I050",
                    %client,
                    software = %software.name,
                    software_version = %software.version,
                    api_key,
                    version,
                    supported,
                    "a client asked for something this server does not offer"
                );
            }
            CloseReason::Encode(error) => error!(%client, %error, "cannot encode an answer"),
            other => debug!(%client, reason = %other, "closed a connection"),
        }
        self.close();
    }

    /// Periodic care: overdue produce requests, unfinished frames, idleness.
    pub(crate) fn sweep(self: &Rc<Self>, shard: &Rc<Shard>, now: MonotonicMs) {
        if self.is_closing.get() {
            return;
        }
        let mut has_expired = false;
        for slot in self.slots.borrow_mut().iter_mut() {
            if let Slot::Produce(pending) = slot {
                has_expired |= pending.expire(now);
            }
        }
        if has_expired {
            self.pump(shard);
        }
        if !self.may_read(shard) {
            // The sender waits for us, not we for it.
            self.frame_started.set(self.frame_started.get().map(|_| now));
        }
        let limits = &shard.node.config.listener;
        let overdue =
            |since: MonotonicMs, limit_ms: u64| now.since(since).as_millis() > u128::from(limit_ms);
        if self.frame_started.get().is_some_and(|at| overdue(at, limits.request_deadline_ms)) {
            self.end(shard, &CloseReason::SlowSender);
        } else if self.slots.borrow().is_empty()
            && overdue(self.last_activity.get(), limits.connections_idle_max_ms)
        {
            self.end(shard, &CloseReason::Idle);
        }
    }

    /// True if more requests may be read: answers are taken and memory is left.
    fn may_read(&self, shard: &Shard) -> bool {
        self.slots.borrow().len() < SLOTS_MAX
            && self.frame_memory.get() != FrameMemory::Waiting
            && !self.is_full(shard)
            && shard.may_read()
            && !shard.node.is_draining()
    }
}

/// Serves a connection until it ends.
pub(crate) async fn serve(shard: Rc<Shard>, connection: Rc<Connection>, socket: OwnedReadHalf) {
    let buffer = BytesMut::with_capacity(RECEIVE_BUFFER_BYTES);
    let mut receiver = Receiver { socket, buffer, frame_bytes_expected: 0 };
    while !connection.is_closing.get() {
        let may_read = connection.may_read(&shard);
        let wants_write = connection.wants_write.get();
        tokio::select! {
            read = receiver.read(), if may_read => {
                if !receiver.turn(read, &shard, &connection) {
                    break;
                }
            }
            ready = connection.socket.writable(), if wants_write => {
                if ready.is_err() {
                    break;
                }
                connection.pump(&shard);
                if connection.wants_write.get() {
                    // The socket may still be writable: the others come first.
                    tokio::task::yield_now().await;
                }
            }
            () = connection.wake.notified() => {
                // Requests that were received before reading stopped.
                if connection.may_read(&shard)
                    && !receiver.handle_received(&shard, &connection, shard.now())
                {
                    break;
                }
            }
        }
    }
    connection.is_closing.set(true);
    connection.write_rest(&shard);
    for slot in connection.slots.borrow_mut().drain(..) {
        match slot {
            Slot::Produce(pending) => pending.abandon(&shard),
            Slot::Fetch(pending) => pending.abandon(&shard, &connection),
            Slot::Working | Slot::Encoded(_) => {}
        }
    }
    connection.release_frame_memory(&shard);
    shard.remove(connection.id);
}

/// The receiving half of a connection.
struct Receiver {
    socket: OwnedReadHalf,
    buffer: BytesMut,
    /// Size of the frames this client sends: space for one is kept ready.
    frame_bytes_expected: usize,
}

impl Receiver {
    /// Waits for bytes and reads what there is. Cancelled, it has read nothing.
    async fn read(&mut self) -> io::Result<usize> {
        self.make_room();
        // Unlike `try_read_buf` this knows after a short read that the socket is empty.
        self.socket.read_buf(&mut self.buffer).await
    }

    /// Handles every complete request, reads on while there is more, writes what is ready.
    /// `read` is the first read of the turn. `false` ends the connection.
    fn turn(
        &mut self,
        mut read: io::Result<usize>,
        shard: &Rc<Shard>,
        connection: &Rc<Connection>,
    ) -> bool {
        let mut turn_bytes = 0;
        loop {
            match read {
                Ok(0) => return false,
                Ok(count) => {
                    turn_bytes += count;
                    let now = shard.now();
                    connection.last_activity.set(now);
                    shard.turns.note(connection.id, now);
                    let is_drained = self.buffer.len() < self.buffer.capacity();
                    if !self.handle_received(shard, connection, now) {
                        return false;
                    }
                    if is_drained || turn_bytes >= TURN_BYTES_MAX || !connection.may_read(shard) {
                        return true;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) => {
                    debug!(%error, client = %connection.ip(), "a connection broke");
                    return false;
                }
            }
            self.make_room();
            read = self.socket.try_read_buf(&mut self.buffer);
        }
    }

    fn make_room(&mut self) {
        if self.buffer.capacity() - self.buffer.len() < READ_BYTES_MIN {
            self.grow();
        }
    }

    /// Memory grows with what has arrived, never with what was announced: at most twice the
    /// received bytes, or what this client has sent in one frame before.
    fn grow(&mut self) {
        let wanted = self
            .buffer
            .len()
            .max(self.frame_bytes_expected.saturating_sub(self.buffer.len()))
            .max(RECEIVE_BUFFER_BYTES);
        self.buffer.reserve(wanted);
    }

    /// Handles every complete request in the buffer as one turn, which began at `now`.
    fn handle_received(
        &mut self,
        shard: &Rc<Shard>,
        connection: &Rc<Connection>,
        now: MonotonicMs,
    ) -> bool {
        let limit = usize::try_from(shard.node.config.listener.request_bytes_max);
        let limit = limit.unwrap_or(usize::MAX);
        let mut result = Ok(());
        let mut is_partial = false;
        let mut handled = 0_u32;
        while result.is_ok() && !is_partial && connection.may_read(shard) {
            match split_frame(&self.buffer, limit) {
                Ok(FrameSplit::Frame { payload }) => {
                    self.buffer.advance(FRAME_PREFIX_BYTES);
                    self.note_frame_size(payload);
                    let frame = self.buffer.split_to(payload);
                    connection.release_frame_memory(shard);
                    result = api::handle(shard, connection, now, frame);
                    handled += 1;
                }
                Ok(FrameSplit::NeedMore { total }) => {
                    is_partial = true;
                    connection.reserve_frame_memory(shard, total);
                }
                Err(error) => result = Err(CloseReason::Frame(error)),
            }
        }
        // Not by what is left in the buffer: whoever stopped reading must be told to go on.
        connection.is_stalled.set(!is_partial);
        if !is_partial || self.buffer.is_empty() {
            connection.frame_started.set(None);
        } else if handled > 0 || connection.frame_started.get().is_none() {
            connection.frame_started.set(Some(now));
        }
        shard.end_turn();
        connection.pump(shard);
        if let Err(reason) = result {
            connection.end(shard, &reason);
            return false;
        }
        !connection.is_closing.get()
    }

    /// Remembers the largest recent frame, and forgets it slowly.
    fn note_frame_size(&mut self, payload: usize) {
        let size = payload + FRAME_PREFIX_BYTES;
        self.frame_bytes_expected =
            if size > self.frame_bytes_expected { size } else { self.frame_bytes_expected / 8 * 7 };
    }
}
