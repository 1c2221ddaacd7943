//! The tool's own limit: the load of a plan against the null broker.

use std::sync::Arc;
use std::time::Duration;

use crate::client::Endpoint;
use crate::failure::Failure;
use crate::null_broker::NullBroker;
use crate::plan::{Plan, Surroundings};
use crate::produce_load::{LoadEnd, ProduceLoad, prepare_target, run_alone};
use crate::quantity::Cores;
use crate::reporter::Display;
use crate::series::Series;

/// Measured time of a headroom run.
const HEADROOM_DURATION: Duration = Duration::from_secs(2);

/// Warm-up of a headroom run.
const HEADROOM_WARMUP: Duration = Duration::from_millis(500);

/// Runs the load of `plan` against a null broker, whose threads are kept on `cores`.
///
/// # Errors
/// If it cannot be started.
pub fn run_floor(
    plan: &Plan,
    display: Display,
    cores: Option<&Cores>,
) -> Result<(Series, LoadEnd, Surroundings), Failure> {
    let flags = &plan.flags;
    // As many threads as the load has: the other half of the cores.
    let broker = NullBroker::start(flags.partitions, plan.workers, cores)?;
    let address = broker.address();
    let endpoint = Endpoint { host: address.ip().to_string(), port: address.port() };
    let mut plan = Plan { endpoints: vec![endpoint], is_verified: false, ..plan.clone() };
    plan.flags.additions.pid = None;
    let target = prepare_target(&plan)?;
    let load = ProduceLoad::prepare(&plan, &target)?;
    let around = Surroundings {
        durability: "none".to_owned(),
        ..target.surroundings(load.connections, load.workers())
    };
    let (series, end, _) = run_alone(&plan, &target, load, display, &Arc::default())?;
    Ok((series, end, around))
}

/// Messages per second of the load of `plan` against a null broker with `partitions` partitions,
/// in a short closed loop.
///
/// # Errors
/// If it cannot be started.
pub fn headroom_rate(plan: &Plan, partitions: usize) -> Result<f64, Failure> {
    let mut plan = Plan { rate: None, duration: Some(HEADROOM_DURATION), ..plan.clone() };
    plan.flags.warmup_duration = HEADROOM_WARMUP;
    plan.flags.message_count = 0;
    plan.flags.partitions = i32::try_from(partitions).unwrap_or(i32::MAX);
    let (series, _, _) = run_floor(&plan, Display::silent(), None)?;
    Ok(series.total().rate())
}
