//! Tasks that wait for each answer before they go on: one thread and one blocking step each.
//!
//! For modes in which a task does more than produce (round trips, metadata); their rates are
//! limited by waiting, not by this tool's CPU.

use std::sync::mpsc::channel;
use std::thread;

use crate::clock::{Moment, RunClock};
use crate::failure::Failure;
use crate::plan::Plan;
use crate::produce_load::{probe_of, schedule_of};
use crate::recorder::Recorder;
use crate::reporter::{Display, Reporter};
use crate::series::Series;

/// Threads at most.
const TASKS_MAX: u32 = 2_048;

/// One step of a task: what it did, or why it failed.
pub type Step = Box<dyn FnMut(Moment) -> Result<Done, Failure> + Send>;

/// What a step did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Done {
    /// Messages or operations.
    pub count: u32,
    /// Their bytes.
    pub bytes: u64,
}

/// Runs `concurrency` tasks for the time of `plan`; `make` makes the step of each.
///
/// # Errors
/// If a task cannot be made or all of them fail.
pub fn run_tasks(
    plan: &Plan,
    display: Display,
    mut make: impl FnMut(u32, RunClock) -> Result<Step, Failure>,
) -> Result<Series, Failure> {
    let tasks = plan.flags.concurrency;
    if tasks > TASKS_MAX {
        let mode = crate::plan::name(plan.flags.mode);
        let text = format!("--concurrency {tasks}: mode {mode} has at most {TASKS_MAX} tasks");
        return Err(Failure::Usage(text));
    }
    let clock = RunClock::start();
    let steps = (0..tasks).map(|task| make(task, clock)).collect::<Result<Vec<_>, _>>()?;
    let schedule = schedule_of(plan, clock, tasks);
    let (reports, received) = channel();
    let reporter = Reporter::new(tasks as usize, schedule, probe_of(plan)?, display);
    let budget = plan.flags.message_count.div_ceil(u64::from(tasks));
    let mut threads = Vec::new();
    for (task, mut step) in steps.into_iter().enumerate() {
        let reports = reports.clone();
        let thread = thread::Builder::new().name(format!("task-{task}"));
        let body = move || -> (Moment, Option<Failure>) {
            let mut recorder = Recorder::new(task, schedule, schedule.start, reports);
            thread::sleep(schedule.start.since(clock.now()));
            let mut failure = None;
            let mut done = 0;
            loop {
                let started = clock.now();
                recorder.turn(started);
                if started >= schedule.measure_until || (budget > 0 && done >= budget) {
                    break;
                }
                match step(started) {
                    Ok(Done { count, bytes }) => {
                        let now = clock.now();
                        recorder.turn(now);
                        recorder.success(now, started, count, bytes);
                        recorder.request();
                        done += u64::from(started >= schedule.measure_from) * u64::from(count);
                    }
                    Err(error) => {
                        recorder.failure(clock.now(), started, 1, &error.to_string());
                        failure = Some(error);
                        break;
                    }
                }
            }
            (recorder.finish().last_success, failure)
        };
        threads.push(thread.spawn(body).map_err(Failure::system("start a task's thread"))?);
    }
    drop(reports);
    let mut series = reporter.run(&received);
    let mut last = Moment::default();
    for thread in threads {
        let (success, failure) = thread.join().expect("tasks do not panic");
        if let Some(failure) = failure {
            return Err(failure);
        }
        last = last.max(success);
    }
    if last < schedule.measure_until {
        series.end_at(last.since(schedule.measure_from));
    }
    Ok(series)
}
