//! What else ran on the machine during a block, and how long the machine did not run.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use super::stall_watch::StallWatch;
use crate::clock::process_cpu;

/// Kernel ticks per second in /proc.
const TICKS_PER_SECOND: f64 = 100.0;

/// Share of the machine, in percent, above which what others use of it makes a block noisy.
pub(crate) const FOREIGN_PERCENT_MAX: f64 = 10.0;

/// Share of the cores' time, in percent, above which standing still makes a block noisy.
pub(crate) const STALLED_PERCENT_MAX: f64 = 3.0;

/// Watches a block.
#[derive(Debug)]
pub(crate) struct NoiseWatch {
    before: Option<Noise>,
    stalls: StallWatch,
}

impl NoiseWatch {
    /// Starts watching.
    pub(crate) fn start() -> Self {
        Self { before: Noise::now(), stalls: StallWatch::start() }
    }

    /// Shares of the machine's time, in percent, that neither this process nor the server
    /// (`server_seconds`) used, that the hypervisor says it gave to others, and in which cores
    /// stood still.
    pub(crate) fn stop(self, server_seconds: f64) -> Value {
        let shares =
            self.before.zip(Noise::now()).map(|(then, now)| now.since(&then, server_seconds));
        let mut noise = shares.unwrap_or_else(|| json!({}));
        if let Some(stalled) = self.stalls.stop() {
            noise["stalled_percent"] = stalled.into();
        }
        noise
    }
}

/// How noisy a block was: above 1 it says little about time.
pub(crate) fn level(noise: &Value) -> f64 {
    let of = |name: &str, most: f64| noise[name].as_f64().unwrap_or(0.0) / most;
    of("foreign_percent", FOREIGN_PERCENT_MAX).max(of("stalled_percent", STALLED_PERCENT_MAX))
}

/// True if a block with this noise says little about time.
pub(crate) fn is_noisy(noise: &Value) -> bool {
    level(noise) > 1.0
}

/// CPU time of the machine so far.
#[derive(Clone, Copy, Debug)]
struct Noise {
    busy_seconds: f64,
    idle_seconds: f64,
    steal_seconds: f64,
    own: Duration,
}

impl Noise {
    /// The state now; `None` without /proc.
    fn now() -> Option<Self> {
        let stat = fs::read_to_string("/proc/stat").ok()?;
        let fields: Vec<f64> = stat
            .lines()
            .next()?
            .split_whitespace()
            .skip(1)
            .map_while(|word| word.parse::<f64>().ok())
            .collect();
        let at = |index: usize| fields.get(index).copied().unwrap_or(0.0) / TICKS_PER_SECOND;
        Some(Self {
            busy_seconds: at(0) + at(1) + at(2) + at(5) + at(6),
            idle_seconds: at(3) + at(4),
            steal_seconds: at(7),
            own: process_cpu(),
        })
    }

    fn since(&self, earlier: &Self, server_seconds: f64) -> Value {
        let busy = self.busy_seconds - earlier.busy_seconds;
        let steal = self.steal_seconds - earlier.steal_seconds;
        let total = busy + self.idle_seconds - earlier.idle_seconds + steal;
        let own = self.own.saturating_sub(earlier.own).as_secs_f64();
        let percent = |seconds: f64| if total > 0.0 { seconds / total * 100.0 } else { 0.0 };
        json!({
            "foreign_percent": percent((busy - own - server_seconds).max(0.0)),
            "steal_percent": percent(steal),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_noisy_beside_others_or_on_cores_that_stand_still() {
        assert!(!is_noisy(&json!({ "foreign_percent": 9.0, "stalled_percent": 2.9 })));
        assert!(is_noisy(&json!({ "foreign_percent": 10.1, "stalled_percent": 0.0 })));
        assert!(is_noisy(&json!({ "foreign_percent": 0.0, "stalled_percent": 3.1 })));
        assert!(!is_noisy(&json!(null)), "nothing is known");
    }
}
