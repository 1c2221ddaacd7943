//! Is the server alive, and is it ready?
//!
//! Alive means that every registered component made progress lately: a thread that hangs in a
//! system call or spins on a lock stops beating and is named. Ready means that no gate is
//! closed: recovery is done, listeners are bound, the server is not draining.
//!
//! Components beat from their own threads; a check reads. Both are told the time, so that this
//! module asks no clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chronik_common::MonotonicMs;

/// Silence after which a component counts as stuck.
pub const LIVENESS_DEADLINE: Duration = Duration::from_secs(10);

/// The components that must keep moving. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Liveness {
    components: Arc<Mutex<Vec<Component>>>,
}

#[derive(Debug)]
struct Component {
    name: String,
    last_beat: Arc<AtomicU64>,
}

/// A component that has not moved for longer than [`LIVENESS_DEADLINE`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StuckComponent {
    /// The name it registered under.
    pub name: String,
    /// Time since its last beat.
    pub silent: Duration,
}

impl Liveness {
    /// Adds a component that has just moved. It must beat more often than
    /// [`LIVENESS_DEADLINE`], also when it has nothing to do.
    #[must_use]
    pub fn register(&self, name: impl Into<String>, now: MonotonicMs) -> Beat {
        let last_beat = Arc::new(AtomicU64::new(now.0));
        let component = Component { name: name.into(), last_beat: Arc::clone(&last_beat) };
        lock(&self.components).push(component);
        Beat { last_beat, liveness: self.clone() }
    }

    /// The stuck components, in order of registration; none in a server that is alive.
    #[must_use]
    pub fn stuck(&self, now: MonotonicMs) -> Vec<StuckComponent> {
        let stuck = |component: &Component| {
            let silent = now.since(MonotonicMs(component.last_beat.load(Ordering::Relaxed)));
            let name = component.name.clone();
            (silent > LIVENESS_DEADLINE).then_some(StuckComponent { name, silent })
        };
        lock(&self.components).iter().filter_map(stuck).collect()
    }
}

/// A component's handle on its own pulse. Dropping it without [`Beat::retire`] leaves the
/// component registered, so that a thread that dies is reported.
#[derive(Debug)]
pub struct Beat {
    last_beat: Arc<AtomicU64>,
    liveness: Liveness,
}

impl Beat {
    /// Says that the component moved: one relaxed store.
    pub fn beat(&self, now: MonotonicMs) {
        self.last_beat.store(now.0, Ordering::Relaxed);
    }

    /// Removes the component, which ends as intended.
    #[allow(clippy::needless_pass_by_value, reason = "a retired component cannot beat")]
    pub fn retire(self) {
        let is_own = |component: &Component| Arc::ptr_eq(&component.last_beat, &self.last_beat);
        lock(&self.liveness.components).retain(|component| !is_own(component));
    }
}

/// Why a server is not ready: a stable code and a sentence.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reason {
    /// The code of the message, for example `W040`.
    pub code: &'static str,
    /// The sentence.
    pub text: String,
}

/// The gates between a server and its clients. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    gates: Arc<Mutex<Vec<Option<Reason>>>>,
}

impl Readiness {
    /// Adds a gate that is closed for `reason`.
    #[must_use]
    pub fn gate(&self, reason: Reason) -> Gate {
        let mut gates = lock(&self.gates);
        gates.push(Some(reason));
        Gate { index: gates.len() - 1, readiness: self.clone() }
    }

    /// Why the server is not ready, in order of the gates; empty if it is ready.
    #[must_use]
    pub fn reasons(&self) -> Vec<Reason> {
        lock(&self.gates).iter().flatten().cloned().collect()
    }
}

/// One condition of readiness. A dropped gate stays as it is.
#[derive(Debug)]
pub struct Gate {
    index: usize,
    readiness: Readiness,
}

impl Gate {
    /// The condition holds.
    pub fn open(&self) {
        lock(&self.readiness.gates)[self.index] = None;
    }

    /// The condition does not hold, for `reason`.
    pub fn close(&self, reason: Reason) {
        lock(&self.readiness.gates)[self.index] = Some(reason);
    }
}

/// A panic while one of these locks is held leaves a whole list: every change is one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE_MS: u64 = 10_000;

    #[test]
    fn a_silent_component_is_named_one_millisecond_after_the_deadline() {
        let liveness = Liveness::default();
        let _lane = liveness.register("journal lane 0", MonotonicMs(5));
        let shard = liveness.register("shard 1", MonotonicMs(5));
        assert_eq!(liveness.stuck(MonotonicMs(5 + DEADLINE_MS)), []);
        shard.beat(MonotonicMs(6));
        let now = MonotonicMs(6 + DEADLINE_MS);
        let name = "journal lane 0".to_owned();
        let silent = Duration::from_millis(DEADLINE_MS + 1);
        assert_eq!(liveness.stuck(now), [StuckComponent { name, silent }]);
    }

    #[test]
    fn a_retired_component_is_forgotten_and_a_dropped_one_is_not() {
        let liveness = Liveness::default();
        liveness.register("stopped", MonotonicMs(0)).retire();
        drop(liveness.register("died", MonotonicMs(0)));
        let stuck = liveness.stuck(MonotonicMs(DEADLINE_MS + 1));
        assert_eq!(stuck.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["died"]);
    }

    #[test]
    fn a_clock_that_is_behind_the_last_beat_is_no_silence() {
        let liveness = Liveness::default();
        let _beat = liveness.register("shard 0", MonotonicMs(100));
        assert_eq!(liveness.stuck(MonotonicMs(0)), []);
    }

    #[test]
    fn a_server_is_ready_when_every_gate_is_open() {
        let readiness = Readiness::default();
        let reason = |text: &str| Reason { code: "W042", text: text.to_owned() };
        let recovery = readiness.gate(reason("recovering the log"));
        let listeners = readiness.gate(reason("listeners are not bound"));
        assert_eq!(readiness.reasons().len(), 2);
        recovery.open();
        listeners.open();
        assert_eq!(readiness.reasons(), []);
        listeners.close(reason("draining"));
        assert_eq!(readiness.reasons(), [reason("draining")]);
    }
}
