//! How long a suite takes, and which blocks fit into a given time.
//!
//! Sums over blocks of what was measured on a machine with two cores: the load itself, and around
//! it the start of a server, backlogs, and reading back. Good to a fifth or so.

use std::time::Duration;

use super::block::{FLOOR_WARMUP_MAX, IDLE_MIN, IDLE_SETTLE};
use super::floor_time;
use super::neighbours::Sizes;
use super::rows::{Kind, Row, Variant};
use crate::failure::Failure;

/// Seconds to start a server, create a topic, and wipe.
const START: f64 = 0.4;

/// Seconds that a floor takes besides its load.
const FLOOR_START: f64 = 0.3;

/// Seconds per million messages of a backlog, written and read back: of each message, and of 1,000
/// bytes in it.
const BACKLOG_PER_MILLION: f64 = 0.5;
const BACKLOG_PER_GIGABYTE: f64 = 3.5;

/// Seconds per million of them over many partitions: written, read back and recovered.
const RESTART_PER_MILLION: f64 = 16.0;

/// Seconds per million messages of the audited load, which is killed in the middle.
const AUDIT_PER_MILLION: f64 = 5.0;

/// Reading back what a load wrote, as a part of the time it took to write it.
const READ_BACK_OF_SINGLES: f64 = 0.08;
const READ_BACK_OF_BATCHES: f64 = 0.9;

/// Block lengths that are tried, longest first.
const BLOCK_STEP: Duration = Duration::from_millis(500);
const BLOCK_MIN: Duration = Duration::from_secs(2);
const BLOCK_MAX: Duration = Duration::from_secs(30);

/// Part of a block's length that its warm-up gets in a suite that must fit into a time.
const WARMUP_PART: u32 = 3;

/// The times of every block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Timing {
    /// Measured time.
    pub block: Duration,
    /// Time before it.
    pub warmup: Duration,
    /// True for a trial.
    pub is_small: bool,
}

/// Seconds that one block of a variant takes, with the floors before it.
pub(crate) fn block_seconds(row: &Row, variant: &Variant, timing: Timing) -> f64 {
    let block = timing.block.as_secs_f64();
    let words = variant.words(timing.is_small);
    let count = |flag: &str| {
        // The last one counts, as on a command line.
        let at = words.iter().rposition(|word| word == flag)?;
        words.get(at + 1)?.parse::<f64>().ok()
    };
    let warmup = count("-w").unwrap_or(timing.warmup.as_secs_f64());
    let millions = |count: u64| count as f64 / 1e6;
    let wanted = count("-n").unwrap_or(0.0) / 1e6;
    let is_batched = words.iter().any(|word| word == "--linger-ms");
    let read_back = if is_batched { READ_BACK_OF_BATCHES } else { READ_BACK_OF_SINGLES };
    let load = (warmup + block) * (1.0 + read_back);
    let backlog = |millions: f64, bytes: f64| {
        millions * (BACKLOG_PER_MILLION + BACKLOG_PER_GIGABYTE * bytes / 1e3)
    };
    let own = match variant.kind {
        Kind::Load | Kind::SlowDisk { .. } | Kind::CreateTopics => load,
        Kind::HalfOfMaximum => load + warmup + block / 3.0,
        Kind::CatchUp { with_live } => {
            let live = if with_live { warmup } else { 0.0 };
            backlog(wanted, count("-s").unwrap_or(0.0)) + live + block.min(wanted)
        }
        Kind::TailFetch => backlog(wanted, count("-s").unwrap_or(0.0)) + block,
        Kind::KillInTheMiddle => wanted * AUDIT_PER_MILLION,
        Kind::Idle if timing.is_small => warmup + block,
        Kind::Idle => IDLE_SETTLE.as_secs_f64() + block.max(IDLE_MIN.as_secs_f64()),
        Kind::Restart => wanted * RESTART_PER_MILLION + START,
        Kind::Noisy { .. } => 3.0 * load,
        Kind::Beside(neighbour) => {
            let sizes = Sizes::of(neighbour, timing.is_small);
            3.0 * load + backlog(millions(sizes.backlog_messages), 1e3)
        }
    };
    let floor = floor_time(timing) + timing.warmup.min(FLOOR_WARMUP_MAX);
    let floors = if row.has_floor { 2.0 * (floor.as_secs_f64() + FLOOR_START) } else { 0.0 };
    START + floors + own
}

/// The longest blocks with which `seconds_of` a suite stays within `time_max`; `warmup` is its
/// longest warm-up.
pub(crate) fn fit(
    time_max: Duration,
    warmup: Duration,
    is_small: bool,
    seconds_of: impl Fn(Timing) -> f64,
) -> Result<Timing, Failure> {
    let of = |block: Duration| Timing { block, warmup: warmup.min(block / WARMUP_PART), is_small };
    let mut block = BLOCK_MAX;
    while block >= BLOCK_MIN {
        if seconds_of(of(block)) <= time_max.as_secs_f64() {
            return Ok(of(block));
        }
        block -= BLOCK_STEP;
    }
    let least = minutes(seconds_of(of(BLOCK_MIN)));
    Err(Failure::Usage(format!(
        "--time-max {}: these rows take about {least} minutes with blocks of {} s; give more time, \
         fewer rows, fewer --blocks or one class with --durability",
        flag(time_max),
        BLOCK_MIN.as_secs()
    )))
}

/// Whole minutes, rounded up.
pub(crate) fn minutes(seconds: f64) -> u64 {
    (seconds / 60.0).ceil() as u64
}

/// A time as it is typed.
pub(crate) fn flag(time: Duration) -> String {
    let ms = time.as_millis();
    if ms.is_multiple_of(1_000) { format!("{}s", ms / 1_000) } else { format!("{ms}ms") }
}

#[cfg(test)]
mod tests {
    use super::super::rows::ROWS;
    use super::*;

    /// Seconds of five rounds of the wanted variants in both classes.
    fn five_rounds(timing: Timing, is_wanted: impl Fn(&Variant) -> bool) -> f64 {
        let variants = ROWS.iter().flat_map(|row| row.variants.iter().map(move |it| (row, it)));
        let wanted = variants.filter(|(_, it)| is_wanted(it));
        wanted.map(|(row, it)| 2.0 * 5.0 * block_seconds(row, it, timing)).sum()
    }

    #[test]
    fn five_rounds_of_both_classes_fit_into_50_minutes_and_5_more_for_librdkafka() {
        let native = |timing: Timing| five_rounds(timing, |it| !it.needs_librdkafka());
        let all = |timing: Timing| five_rounds(timing, |_| true);
        for (minutes, seconds_of) in [(50, &native as &dyn Fn(Timing) -> f64), (55, &all)] {
            let time_max = Duration::from_secs(minutes * 60);
            let timing = fit(time_max, Duration::from_secs(3), false, seconds_of).unwrap();
            assert!(timing.block >= BLOCK_MIN && timing.warmup <= timing.block / WARMUP_PART);
            assert!(seconds_of(timing) <= time_max.as_secs_f64());
            let longer = fit(time_max * 4, Duration::from_secs(3), false, seconds_of);
            assert!(longer.unwrap().block > timing.block);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_time_it_takes() {
        let refused = fit(Duration::from_secs(60), Duration::from_secs(3), false, |_| 119.0);
        let text = refused.unwrap_err().to_string();
        assert!(text.starts_with("--time-max 60s: these rows take about 2 minutes"), "{text}");
        assert_eq!(flag(Duration::from_millis(2_500)), "2500ms");
    }
}
