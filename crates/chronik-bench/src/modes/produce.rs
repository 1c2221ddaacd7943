//! `produce`: writes, reads back, and only then says how fast it was.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::failure::Failure;
use crate::plan::{Configuration, Plan};
use crate::produce_load::{ProduceLoad, prepare_target, run_alone, verify};
use crate::prometheus::LiveFigures;
use crate::reporter::Display;
use crate::result::{RunResult, Summary};

/// Runs the mode.
pub(crate) fn run(plan: &Plan) -> Result<RunResult, Failure> {
    let target = prepare_target(plan)?;
    let load = ProduceLoad::prepare(plan, &target)?;
    let (shape, starts) = (load.shape(), load.starts().clone());
    let around = target.surroundings(load.connections, load.workers());
    let display = display_of(plan)?;
    let stop = Arc::new(AtomicBool::new(false));
    let (series, end, _) = run_alone(plan, &target, load, display, stop)?;
    let mut read_back = None;
    if plan.is_verified {
        let verdict = verify(plan, &target, shape, &starts, end.ledgers)?;
        if !verdict.is_clean() {
            return Err(Failure::Mismatch(verdict.differences()));
        }
        read_back = Some(verdict);
    }
    if let Some((reason, _)) = series.errors.iter().next()
        && series.total().counts.messages == 0
    {
        return Err(Failure::NothingSucceeded(reason.clone()));
    }
    let summary = Summary::of(&series);
    let mut notes = Vec::new();
    if end.unsent > 0 {
        notes.push(format!("{} messages of the open loop were never sent", end.unsent));
    }
    Ok(RunResult {
        configuration: Configuration::of(plan, &around),
        summary,
        read_back,
        headroom: None,
        gap: None,
        intervals: series.intervals,
        latency: series.latency,
        errors: series.errors,
        notes,
    })
}

/// The live table of a plan, and its page for Prometheus.
pub(crate) fn display_of(plan: &Plan) -> Result<Display, Failure> {
    let flags = &plan.flags;
    let live = match flags.prometheus_port {
        Some(port) => Some(
            LiveFigures::serve(port).map_err(Failure::system("listen on --prometheus-port"))?,
        ),
        None => None,
    };
    let interval = Duration::from_secs(flags.report_interval_secs);
    let samples = interval.as_nanos() / plan.sample().as_nanos().max(1);
    Ok(Display {
        samples_per_line: u32::try_from(samples).unwrap_or(u32::MAX).max(1),
        is_on_stdout: true,
        live,
    })
}
