//! A thread that drives producing connections: sockets, time and the producers' steps.
//!
//! One turn: take what sockets have, give freed tasks their next messages, send, sleep until a
//! socket, an intended time, a linger or a deadline calls. Nothing is shared with other workers
//! but the number of messages still to be sent.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::client::{ClientError, Connection, Endpoint};
use crate::clock::{Moment, RunClock, wall_ms};
use crate::ledger::LaneLedger;
use crate::pacer::Pacer;
use crate::poller::{Poller, Ready};
use crate::produce_request::decode_answer;
use crate::producer_engine::{Effect, ProducerEngine};
use crate::recorder::{Recorder, RecorderEnd};
use crate::wire::Wire;

/// Time between two attempts to connect again.
const RECONNECT_STEP: Duration = Duration::from_millis(20);

/// Longest wait for a connection or a look at the metadata while others of the worker wait.
const RECONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// A producer and where it sends.
#[derive(Debug)]
pub struct Producer {
    /// The pure part.
    pub engine: ProducerEngine,
    /// Where the leader of its partitions listens.
    pub leader: Endpoint,
    /// Messages it may still be offered; `u64::MAX` is no limit.
    pub budget: u64,
}

/// What a worker needs besides its producers.
#[derive(Clone, Debug)]
pub struct WorkerContext {
    /// The clock of the run.
    pub clock: RunClock,
    /// Where to ask for leaders.
    pub bootstrap: Arc<Vec<Endpoint>>,
    /// Topic that is written.
    pub topic: Arc<str>,
    /// Set to end the run early.
    pub stop: Arc<AtomicBool>,
}

/// What a worker leaves.
#[derive(Debug)]
pub struct WorkerEnd {
    /// What was acknowledged.
    pub ledgers: Vec<LaneLedger>,
    /// Ends of its recorder.
    pub recorder: RecorderEnd,
    /// Messages of an open loop that were never sent.
    pub unsent: u64,
    /// Why a producer could not go on.
    pub failure: Option<String>,
}

/// A producer with its connection, if it has one.
#[derive(Debug)]
struct Station {
    engine: ProducerEngine,
    leader: Endpoint,
    budget: u64,
    wire: Option<Wire>,
    /// When to try to connect again.
    reconnect_at: Moment,
    /// Why there is no connection.
    lost_because: String,
}

/// See the module.
#[derive(Debug)]
pub struct ProducerWorker {
    context: WorkerContext,
    poller: Poller,
    stations: Vec<Station>,
    recorder: Recorder,
    pacer: Option<Pacer>,
    /// Station that is looked at first for the next message of an open loop.
    next_station: usize,
}

impl ProducerWorker {
    /// A worker over producers, all of them connected.
    ///
    /// # Errors
    /// If a producer cannot be connected.
    pub fn connect(
        context: WorkerContext,
        producers: Vec<Producer>,
        recorder: Recorder,
        pacer: Option<Pacer>,
        timeout: Duration,
    ) -> Result<Self, ClientError> {
        let lost = |leader: &Endpoint, reason: io::Error| ClientError::Unreachable {
            address: leader.to_string(),
            reason,
        };
        let mut poller = Poller::new().map_err(|error| ClientError::Lost {
            address: "the event queue of this machine".to_owned(),
            reason: error,
        })?;
        let mut stations = Vec::with_capacity(producers.len());
        for (token, Producer { engine, leader, budget }) in producers.into_iter().enumerate() {
            let wire = open(&mut poller, &leader, token, timeout)
                .map_err(|reason| lost(&leader, reason))?;
            let (reconnect_at, lost_because) = (Moment::NEVER, String::new());
            let wire = Some(wire);
            stations.push(Station { engine, leader, budget, wire, reconnect_at, lost_because });
        }
        Ok(Self { context, poller, stations, recorder, pacer, next_station: 0 })
    }

    /// Runs to the end of the schedule and waits for what is under way.
    ///
    /// # Errors
    /// If the event queue of this machine fails.
    pub fn run(mut self) -> io::Result<WorkerEnd> {
        let mut ready = Vec::new();
        let schedule = *self.recorder.schedule();
        let drain_until = schedule.measure_until.after(schedule.drain);
        for index in 0..self.stations.len() {
            self.refill(index, self.context.clock.now());
        }
        let mut is_draining = false;
        loop {
            let now = self.context.clock.now();
            self.recorder.turn(now);
            let is_over = now >= schedule.measure_until
                || self.context.stop.load(Ordering::Relaxed)
                || self.stations.iter().all(|it| it.budget == 0 || it.engine.has_given_up());
            if is_over && !is_draining {
                is_draining = true;
                self.stations.iter_mut().for_each(|it| {
                    if self.pacer.is_none() && it.budget == u64::MAX {
                        it.engine.withdraw_queued();
                    }
                });
            }
            if is_draining && (self.is_idle() || now >= drain_until) {
                break;
            }
            if !is_draining {
                self.pace(now);
            }
            self.keep_connected(now);
            let timeout = self.timeout(now, is_draining, drain_until);
            self.poller.wait(timeout, &mut ready)?;
            let now = self.context.clock.now();
            for event in &ready {
                self.on_ready(*event, now, is_draining);
            }
            self.tend_all_if_needed(now, is_draining);
        }
        Ok(self.end())
    }

    /// True if nothing is under way. What an open loop is behind with is never sent after the
    /// measured time, so nobody waits for it; it is reported as not sent.
    fn is_idle(&self) -> bool {
        let is_sent = |wire: &Wire| !wire.has_unsent();
        let is_done = |station: &Station| {
            station.engine.is_idle() && station.wire.as_ref().is_none_or(is_sent)
        };
        self.stations.iter().all(is_done)
    }

    fn end(mut self) -> WorkerEnd {
        let now = self.context.clock.now();
        let unsent = self.pacer.as_ref().map_or(0, |it| it.backlog() as u64 + it.dropped());
        let mut failure = None;
        let mut ledgers = Vec::new();
        for mut station in self.stations {
            if station.engine.has_given_up() {
                failure =
                    Some(format!("gave up after --message-timeout-ms: {}", station.lost_because));
            }
            station.engine.abandon("no answer before the end", now, &mut self.recorder);
            ledgers.extend(station.engine.into_ledgers());
        }
        WorkerEnd { ledgers, recorder: self.recorder.finish(), unsent, failure }
    }

    /// Gives free tasks of a closed loop their next messages and sends what is due.
    fn refill(&mut self, index: usize, now: Moment) {
        let station = &mut self.stations[index];
        if self.pacer.is_none() {
            let free = u64::from(station.engine.free_slots());
            let count = free.min(station.budget);
            if count > 0 {
                station.engine.offer(now, now, count as u32);
                if station.budget != u64::MAX {
                    station.budget -= count;
                }
            }
        }
        self.tend(index, now);
    }

    /// Gives messages of an open loop to free tasks, connection by connection.
    fn pace(&mut self, now: Moment) {
        let Some(pacer) = &mut self.pacer else { return };
        let due = pacer.advance(now);
        self.recorder.intend(due);
        if pacer.backlog() == 0 {
            return;
        }
        let count = self.stations.len();
        let mut without_room = 0;
        while pacer.backlog() > 0 && without_room < count {
            let station = &mut self.stations[self.next_station];
            self.next_station = (self.next_station + 1) % count;
            if station.engine.free_slots() == 0 || station.budget == 0 {
                without_room += 1;
                continue;
            }
            without_room = 0;
            let Some(intended) = pacer.take() else { break };
            station.engine.offer(now, intended, 1);
            if station.budget != u64::MAX {
                station.budget -= 1;
            }
        }
        for index in 0..count {
            if !self.stations[index].engine.is_idle() {
                self.tend(index, now);
            }
        }
    }

    /// Sends what is due on one connection and watches for room if the socket took not all.
    fn tend(&mut self, index: usize, now: Moment) {
        let station = &mut self.stations[index];
        let Some(wire) = &mut station.wire else { return };
        station.engine.pump(now, wall_ms(), wire, &mut self.recorder);
        if let Err(error) = wire.flush() {
            return self.lose(index, &error.to_string(), now);
        }
        let wants_write = wire.has_unsent();
        if wants_write != wire.watches_write {
            wire.watches_write = wants_write;
            if let Err(error) = self.poller.modify(wire.fd(), index, wants_write) {
                self.lose(index, &error.to_string(), now);
            }
        }
    }

    fn on_ready(&mut self, event: Ready, now: Moment, is_draining: bool) {
        let index = event.token;
        if event.is_readable
            && let Err(reason) = self.read_answers(index, now)
        {
            return self.lose(index, &reason, now);
        }
        if is_draining { self.tend(index, now) } else { self.refill(index, now) }
    }

    /// Takes every answer that is there.
    fn read_answers(&mut self, index: usize, now: Moment) -> Result<(), String> {
        let station = &mut self.stations[index];
        let Some(wire) = &mut station.wire else { return Ok(()) };
        let end = wire.receive();
        let version = station.engine.version();
        while let Some(payload) = wire.next_frame().map_err(|error| error.to_string())? {
            let answer = decode_answer(payload, version).map_err(|error| error.to_string())?;
            let effect = station.engine.on_answer(&answer, now, &mut self.recorder);
            if effect.map_err(|error| error.to_string())? == Effect::Reconnect {
                return Err(crate::client::code_name(answer.error_code));
            }
        }
        end.map(|_| ()).map_err(|error| error.to_string())
    }

    /// Drops a connection; it is opened again in a later turn.
    fn lose(&mut self, index: usize, reason: &str, now: Moment) {
        let station = &mut self.stations[index];
        if let Some(wire) = station.wire.take() {
            self.poller.remove(wire.fd(), index);
        }
        station.engine.on_disconnect(reason, now, &mut self.recorder);
        station.reconnect_at = now.after(RECONNECT_STEP);
        reason.clone_into(&mut station.lost_because);
    }

    /// Opens lost connections whose time has come, and drops those without an answer.
    fn keep_connected(&mut self, now: Moment) {
        for index in 0..self.stations.len() {
            let station = &mut self.stations[index];
            if station.wire.is_some() {
                if station.engine.is_overdue(now) {
                    self.lose(index, "request timed out", now);
                }
                continue;
            }
            if now < station.reconnect_at || station.engine.has_given_up() {
                continue;
            }
            let reason = std::mem::take(&mut station.lost_because);
            station.engine.give_up_on_old(&reason, now, &mut self.recorder);
            station.lost_because = reason;
            if let Some(leader) = self.find_leader(index) {
                self.stations[index].leader = leader;
            }
            let station = &mut self.stations[index];
            match open(&mut self.poller, &station.leader, index, RECONNECT_TIMEOUT) {
                Ok(wire) => {
                    station.wire = Some(wire);
                    station.reconnect_at = Moment::NEVER;
                    self.tend(index, now);
                }
                Err(_) => station.reconnect_at = now.after(RECONNECT_STEP),
            }
        }
    }

    fn find_leader(&self, index: usize) -> Option<Endpoint> {
        let mut connection = Connection::open(&self.context.bootstrap, RECONNECT_TIMEOUT).ok()?;
        let topic = connection.topic(&self.context.topic).ok()??;
        let wanted = self.stations[index].engine.sample_partition();
        topic.partitions.into_iter().find(|it| it.index == wanted)?.leader
    }

    /// Connections on which something happens without their socket: lingering batches, closed
    /// loops without answers.
    fn tend_all_if_needed(&mut self, now: Moment, is_draining: bool) {
        for index in 0..self.stations.len() {
            let engine = &self.stations[index].engine;
            let has_waiting = !engine.is_idle() && now >= engine.next_deadline();
            let can_refill = self.pacer.is_none() && !is_draining && engine.free_slots() > 0;
            if can_refill {
                self.refill(index, now);
            } else if has_waiting {
                self.tend(index, now);
            }
        }
    }

    /// Time until something has to happen without a socket.
    fn timeout(&self, now: Moment, is_draining: bool, drain_until: Moment) -> Option<Duration> {
        let schedule = self.recorder.schedule();
        let mut until = self.recorder.sample_end().min(schedule.measure_until);
        if is_draining {
            until = self.recorder.sample_end().min(drain_until);
        }
        if let Some(pacer) = self.pacer.as_ref().filter(|_| !is_draining) {
            until = until.min(pacer.next());
        }
        for station in &self.stations {
            let engine = &station.engine;
            let is_endless = self.pacer.is_none() && engine.free_slots() > 0 && station.budget > 0;
            let is_writable = station.wire.as_ref().is_some_and(|wire| !wire.has_unsent());
            if is_endless && is_writable && !is_draining {
                return Some(Duration::ZERO);
            }
            until = until.min(engine.next_deadline()).min(station.reconnect_at);
        }
        // The end can also come from outside.
        Some(until.since(now).min(STOP_CHECK))
    }
}

/// Longest sleep before the worker looks whether the run was ended from outside.
const STOP_CHECK: Duration = Duration::from_millis(100);

fn open(
    poller: &mut Poller,
    leader: &Endpoint,
    token: usize,
    timeout: Duration,
) -> io::Result<Wire> {
    let wire = Wire::new(leader.dial(timeout)?)?;
    poller.add(wire.fd(), token, false)?;
    Ok(wire)
}
