//! A thread that drives reading connections.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chronik_protocol::OutputBuffer;

use crate::client::Endpoint;
use crate::clock::{Moment, RunClock};
use crate::consumer_engine::ConsumerEngine;
use crate::failure::Failure;
use crate::poller::Poller;
use crate::recorder::{Recorder, RecorderEnd};
use crate::wire::Wire;

/// Longest sleep before the worker looks whether the run was ended from outside.
const STOP_CHECK: Duration = Duration::from_millis(50);

/// A reader and where it reads.
#[derive(Debug)]
pub struct Consumer {
    /// The pure part.
    pub engine: ConsumerEngine,
    /// Where the leader of its partitions listens.
    pub leader: Endpoint,
}

/// See the module.
#[derive(Debug)]
pub struct ConsumerWorker {
    clock: RunClock,
    poller: Poller,
    stations: Vec<(ConsumerEngine, Wire)>,
    recorder: Recorder,
    out: OutputBuffer,
    /// Set to end the run.
    stop: Arc<AtomicBool>,
    /// True if readers go on after the measured time until they are told to stop.
    outlasts_schedule: bool,
    /// Messages still to be read.
    budget: u64,
}

impl ConsumerWorker {
    /// A worker over readers, all of them connected. It ends after `budget` messages.
    ///
    /// # Errors
    /// If a reader cannot be connected.
    pub fn connect(
        clock: RunClock,
        consumers: Vec<Consumer>,
        recorder: Recorder,
        (stop, outlasts_schedule): (Arc<AtomicBool>, bool),
        (timeout, budget): (Duration, u64),
    ) -> Result<Self, Failure> {
        let mut poller = Poller::new().map_err(Failure::system("make an event queue"))?;
        let mut stations = Vec::new();
        for (token, Consumer { engine, leader }) in consumers.into_iter().enumerate() {
            let stream = leader.dial(timeout).map_err(Failure::system("connect a consumer"))?;
            let wire = Wire::new(stream).map_err(Failure::system("connect a consumer"))?;
            poller.add(wire.fd(), token, false).map_err(Failure::system("watch a socket"))?;
            stations.push((engine, wire));
        }
        let out = OutputBuffer::new();
        Ok(Self { clock, poller, stations, recorder, out, stop, outlasts_schedule, budget })
    }

    /// Reads to the end of the schedule, or to the targets, or until it is stopped.
    ///
    /// # Errors
    /// If a connection breaks or an answer is damaged.
    pub fn run(mut self) -> Result<RecorderEnd, Failure> {
        let until = self.recorder.schedule().measure_until;
        let mut ready = Vec::new();
        for index in 0..self.stations.len() {
            self.tend(index, self.clock.now())?;
        }
        loop {
            let now = self.clock.now();
            self.recorder.turn(now);
            let is_over = now >= until && !self.outlasts_schedule || self.budget == 0;
            let is_at_end = self.stations.iter().all(|(engine, _)| engine.is_at_end());
            if is_over || is_at_end || self.stop.load(Ordering::Relaxed) {
                break;
            }
            let timeout = self.timeout(now, until);
            self.poller
                .wait(Some(timeout), &mut ready)
                .map_err(Failure::system("wait for sockets"))?;
            for event in &ready {
                let now = self.clock.now();
                if event.is_readable {
                    self.read(event.token, now)?;
                }
                self.tend(event.token, now)?;
            }
        }
        Ok(self.recorder.finish())
    }

    fn timeout(&self, now: Moment, until: Moment) -> Duration {
        self.recorder.sample_end().min(until.max(now)).since(now).min(STOP_CHECK)
    }

    fn tend(&mut self, index: usize, now: Moment) -> Result<(), Failure> {
        let (engine, wire) = &mut self.stations[index];
        engine.pump(now, &mut self.out).map_err(crate::client::ClientError::from)?;
        wire.queue_output(&mut self.out);
        wire.flush().map_err(Failure::system("send a fetch"))?;
        let wants_write = wire.has_unsent();
        if wants_write != wire.watches_write {
            wire.watches_write = wants_write;
            self.poller
                .modify(wire.fd(), index, wants_write)
                .map_err(Failure::system("watch a socket"))?;
        }
        Ok(())
    }

    fn read(&mut self, index: usize, now: Moment) -> Result<(), Failure> {
        let (engine, wire) = &mut self.stations[index];
        let end = wire.receive();
        let lost = |error: io::Error| Failure::System { action: "read an answer", source: error };
        while let Some(payload) = wire.next_frame().map_err(lost)? {
            let messages = engine
                .on_answer(payload, now, &mut self.recorder)
                .map_err(|error| Failure::Server(error.to_string()))?;
            self.budget = self.budget.saturating_sub(messages);
        }
        end.map(|_| ()).map_err(lost)
    }
}
