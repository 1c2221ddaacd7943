//! What else ran on the machine during a block.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use crate::clock::process_cpu;

/// Kernel ticks per second in /proc.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time of the machine so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Noise {
    busy_seconds: f64,
    idle_seconds: f64,
    steal_seconds: f64,
    own: Duration,
}

impl Noise {
    /// The state now; `None` without /proc.
    pub(crate) fn now() -> Option<Self> {
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

    /// Share of the machine's time that neither this process nor the server (`server_seconds`)
    /// used, and that the hypervisor gave to others, in percent since `earlier`.
    pub(crate) fn since(&self, earlier: &Self, server_seconds: f64) -> Value {
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
