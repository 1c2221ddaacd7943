//! `produce`, `verify` and `failover`: write, read back, and only then say how fast it was.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::arguments::Mode;
use crate::failure::Failure;
use crate::floor::headroom_rate;
use crate::plan::{Configuration, Plan};
use crate::produce_load::{LoadEnd, ProduceLoad, prepare_target, run_alone, verify};
use crate::prometheus::LiveFigures;
use crate::recorder::Schedule;
use crate::reporter::Display;
use crate::result::{Gap, Headroom, RunResult};

/// Runs the mode.
pub(crate) fn run(plan: &Plan) -> Result<RunResult, Failure> {
    run_with(plan, display_of(plan)?, &Arc::default())
}

/// Runs the mode with a display of its own; setting `stop` ends the load early.
pub(crate) fn run_with(
    plan: &Plan,
    display: Display,
    stop: &Arc<AtomicBool>,
) -> Result<RunResult, Failure> {
    let target = prepare_target(plan)?;
    let load = ProduceLoad::prepare(plan, &target)?;
    let (shape, starts) = (load.shape(), load.starts().clone());
    let around = target.surroundings(load.connections, load.workers());
    let (series, end, schedule) = run_alone(plan, &target, load, display, stop)?;
    if series.total().counts.messages == 0
        && let Some((reason, _)) = series.errors.iter().next()
    {
        return Err(Failure::NothingSucceeded(reason.clone()));
    }
    let mut result = RunResult::of(Configuration::of(plan, &around), series);
    result.notes = notes_of(&end);
    result.gap =
        matches!(plan.flags.mode, Mode::Failover | Mode::Verify).then(|| gap_of(&end, &schedule));
    if let Some(failure) = end.failure {
        return Err(Failure::Server(failure));
    }
    if plan.is_verified {
        let verdict = verify(plan, &target, shape, &starts, end.ledgers)?;
        if !verdict.is_clean() {
            return Err(Failure::Mismatch(verdict.differences()));
        }
        result.read_back = Some(verdict);
    }
    if plan.flags.additions.headroom {
        let rate = headroom_rate(plan, around.partitions)?;
        result.headroom = Some(Headroom::of(rate, result.summary.messages_per_second));
    }
    Ok(result)
}

/// Remarks about how a load ended.
pub(crate) fn notes_of(end: &LoadEnd) -> Vec<String> {
    let unsent = (end.unsent > 0)
        .then(|| format!("{} messages of the open loop were never sent", end.unsent));
    unsent.into_iter().collect()
}

/// The longest time in which a worker had no success.
fn gap_of(end: &LoadEnd, schedule: &Schedule) -> Gap {
    let longest = end.recorders.iter().map(|it| it.longest_gap).max().unwrap_or_default();
    let (length, ended) = longest;
    let measure_from = schedule.measure_from;
    let after = ended.since(measure_from).as_secs_f64();
    let before = measure_from.since(ended).as_secs_f64();
    Gap { longest_ms: length.as_secs_f64() * 1e3, ended_at_seconds: after - before }
}

/// The live table of a plan, and its page for Prometheus.
pub(crate) fn display_of(plan: &Plan) -> Result<Display, Failure> {
    let flags = &plan.flags;
    let live = match flags.prometheus_port {
        Some(port) => {
            let live = LiveFigures::serve(port);
            let (live, address) = live.map_err(Failure::system("listen on --prometheus-port"))?;
            plan.say(|| format!("figures for Prometheus at http://{address}/metrics"));
            Some(live)
        }
        None => None,
    };
    let interval = Duration::from_secs(flags.report_interval_secs);
    let samples = interval.as_nanos() / plan.sample().as_nanos().max(1);
    Ok(Display {
        samples_per_line: u32::try_from(samples).unwrap_or(u32::MAX).max(1),
        is_on_stdout: plan.prints_text(),
        live,
    })
}
