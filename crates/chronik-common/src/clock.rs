//! Time as an injected collaborator: engines never ask the operating system themselves.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch. May jump in both directions; only for timestamps that
/// people or Kafka records see, never for safety.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct WallMs(pub i64);

/// Milliseconds on a clock that never goes back; the zero point is arbitrary.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct MonotonicMs(pub u64);

impl MonotonicMs {
    /// This moment plus `duration`, saturating.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }

    /// Time from `earlier` to this moment; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Source of time for engines.
pub trait Clock: Send + Sync + 'static {
    /// Wall-clock time.
    fn wall(&self) -> WallMs;
    /// Monotonic time, for deadlines and ages.
    fn monotonic(&self) -> MonotonicMs;
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// A clock whose monotonic zero is now.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "the one place that asks the machine's clock")]
    pub fn new() -> Self {
        Self { started: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "the one place that asks the machine's clock")]
    fn wall(&self) -> WallMs {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        WallMs(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }

    fn monotonic(&self) -> MonotonicMs {
        MonotonicMs(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}

/// A clock that moves only when told to; wall time starts at 1,700,000,000,000 ms.
#[derive(Debug, Default)]
pub struct ManualClock {
    elapsed_ms: AtomicU64,
}

impl ManualClock {
    /// Wall time of a new manual clock.
    pub const START: WallMs = WallMs(1_700_000_000_000);

    /// Moves both clocks forward.
    pub fn advance(&self, duration: Duration) {
        let ms = u64::try_from(duration.as_millis()).expect("tests advance by less than 2^64 ms");
        self.elapsed_ms.fetch_add(ms, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn wall(&self) -> WallMs {
        WallMs(Self::START.0 + self.elapsed_ms.load(Ordering::Relaxed) as i64)
    }

    fn monotonic(&self) -> MonotonicMs {
        MonotonicMs(self.elapsed_ms.load(Ordering::Relaxed))
    }
}
