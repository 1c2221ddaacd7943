//! `e2e` and `mixed`: writers and readers at the same time.
//!
//! `e2e` measures the time from when a message was meant to be sent until a reader has it;
//! `mixed` the rates of both sides. What was written is read back as in `produce`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use super::produce::{display_of, notes_of};
use crate::arguments::Mode;
use crate::clock::RunClock;
use crate::consume_load::{ConsumeLoad, Extent, join_consumers};
use crate::consumer_engine::Reading;
use crate::failure::Failure;
use crate::plan::{Configuration, Plan};
use crate::produce_load::{
    ProduceLoad, join_workers, prepare_target, probe_of, schedule_of, verify,
};
use crate::producer_worker::WorkerContext;
use crate::reporter::{Display, Reporter};
use crate::result::{RunResult, Summary};

/// Time that readers have for the last messages after the last acknowledgement.
const CATCH_UP: Duration = Duration::from_millis(300);

/// Runs the mode.
pub(crate) fn run(plan: &Plan) -> Result<RunResult, Failure> {
    run_with(plan, display_of(plan)?)
}

/// Runs the mode with a display of its own.
pub(crate) fn run_with(plan: &Plan, display: Display) -> Result<RunResult, Failure> {
    let is_e2e = plan.flags.mode == Mode::E2e;
    let target = prepare_target(plan)?;
    let writers = ProduceLoad::prepare(plan, &target)?;
    let (shape, starts) = (writers.shape(), writers.starts().clone());
    let reading = if is_e2e { Reading::EndToEnd { run: shape.run } } else { Reading::Records };
    let readers = ConsumeLoad::prepare(plan, &target, reading, Extent::Tail)?;
    let connections = writers.connections + readers.connections;
    let around = target.surroundings(connections, writers.workers() + readers.workers());

    let clock = RunClock::start();
    let schedule = schedule_of(plan, clock, connections);
    let probe = probe_of(plan)?;
    let (write_display, read_display) =
        if is_e2e { (Display::silent(), display) } else { (display, Display::silent()) };
    let stop_readers = Arc::new(AtomicBool::new(false));
    let (read_reports, read_received) = channel();
    let read_reporter = Reporter::new(readers.workers(), schedule, probe.clone(), read_display);
    let stop = (Arc::clone(&stop_readers), true);
    let read_threads = readers.start(plan, (clock, schedule), stop, &read_reports)?;
    drop(read_reports);
    let read_series = thread::Builder::new()
        .name("reader-reports".to_owned())
        .spawn(move || read_reporter.run(&read_received))
        .map_err(Failure::system("start a thread"))?;

    let context = WorkerContext {
        clock,
        bootstrap: Arc::new(plan.endpoints.clone()),
        topic: Arc::from(target.topic.name.as_str()),
        stop: Arc::new(AtomicBool::new(false)),
    };
    let (write_reports, write_received) = channel();
    let write_reporter = Reporter::new(writers.workers(), schedule, probe, write_display);
    let write_threads = writers.start(plan, &context, schedule, 0, &write_reports)?;
    drop(write_reports);
    let written = write_reporter.run(&write_received);
    let end = join_workers(write_threads)?;
    let waited = Instant::now();
    while waited.elapsed() < CATCH_UP {
        thread::sleep(CATCH_UP / 10);
    }
    stop_readers.store(true, Ordering::Relaxed);
    join_consumers(read_threads)?;
    let read = read_series.join().expect("the reporter does not panic");

    let configuration = Configuration::of(plan, &around);
    let notes = notes_of(&end);
    if let Some(failure) = end.failure {
        return Err(Failure::Server(failure));
    }
    let mut result = if is_e2e {
        let mut result = RunResult::of(configuration, read);
        let writing = Summary::of(&written);
        result.summary.failed = writing.failed;
        result.summary.late = writing.late;
        result.summary.intended = writing.intended;
        result.summary.is_rate_sustained = writing.is_rate_sustained;
        result.other_side = Some(("written", writing));
        result
    } else {
        let mut result = RunResult::of(configuration, written);
        result.other_side = Some(("read", Summary::of(&read)));
        result
    };
    result.notes = notes;
    if plan.is_verified {
        let verdict = verify(plan, &target, shape, &starts, end.ledgers)?;
        if !verdict.is_clean() {
            return Err(Failure::Mismatch(verdict.differences()));
        }
        result.read_back = Some(verdict);
    }
    Ok(result)
}
