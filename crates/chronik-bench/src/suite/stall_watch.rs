//! Times in which cores stood still: a hypervisor that gives them to others does not always count
//! that as steal.
//!
//! A thread on each core sleeps for a few milliseconds and looks how late it wakes. It uses so
//! little of its core that other threads delay it by a few milliseconds at most.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::pinning::{allowed_cores, pin_worker};
use crate::quantity::Cores;

/// Length of a sleep.
const STEP: Duration = Duration::from_millis(5);

/// A wake that is later than this was delayed by more than threads of this machine.
const LATE_MIN: Duration = Duration::from_millis(8);

/// Watches every core that this process may use until it is stopped.
#[derive(Debug)]
pub(crate) struct StallWatch {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Option<Share>>>,
}

/// Time that was watched, and how much of it a core stood still.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Share {
    watched: Duration,
    stalled: Duration,
}

impl StallWatch {
    /// Starts watching.
    pub(crate) fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let spawn = |core: usize| {
            let stop = Arc::clone(&stop);
            let name = format!("stall-watch-{core}");
            thread::Builder::new().name(name).spawn(move || watch(core, &stop)).ok()
        };
        let threads = allowed_cores().into_iter().filter_map(spawn).collect();
        Self { stop, threads }
    }

    /// Stops watching. Share of the cores' time in which they stood still, in percent; `None` if
    /// no core could be watched.
    pub(crate) fn stop(mut self) -> Option<f64> {
        self.stop.store(true, Ordering::Relaxed);
        let shares: Vec<Share> =
            self.threads.drain(..).filter_map(|thread| thread.join().ok().flatten()).collect();
        percent(&shares)
    }
}

impl Drop for StallWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn watch(core: usize, stop: &AtomicBool) -> Option<Share> {
    pin_worker(Some(&Cores(vec![core])), 0).ok()?;
    let started = Instant::now();
    let mut stalled = Duration::ZERO;
    let mut slept_from = started;
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(STEP);
        let now = Instant::now();
        stalled += stall(now - slept_from);
        slept_from = now;
    }
    Some(Share { watched: started.elapsed(), stalled })
}

/// How long the core stood still during a sleep that took so long.
fn stall(slept: Duration) -> Duration {
    let late = slept.saturating_sub(STEP);
    if late >= LATE_MIN { late } else { Duration::ZERO }
}

fn percent(shares: &[Share]) -> Option<f64> {
    let sum = |of: fn(&Share) -> Duration| shares.iter().map(of).sum::<Duration>().as_secs_f64();
    let watched = sum(|share| share.watched);
    (watched > 0.0).then(|| sum(|share| share.stalled) / watched * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_wakes_that_threads_do_not_explain_count() {
        let ms = Duration::from_millis;
        assert_eq!(stall(ms(5)), ms(0));
        assert_eq!(stall(ms(12)), ms(0));
        assert_eq!(stall(ms(105)), ms(100));
    }

    #[test]
    fn the_share_is_that_of_all_cores() {
        let ms = Duration::from_millis;
        let shares = [
            Share { watched: ms(1_000), stalled: ms(100) },
            Share { watched: ms(1_000), stalled: ms(0) },
        ];
        assert_eq!(percent(&shares), Some(5.0));
        assert_eq!(percent(&[]), None);
    }

    #[test]
    fn a_watch_ends_with_a_share() {
        let watch = StallWatch::start();
        thread::sleep(STEP * 2);
        let share = watch.stop().expect("this test may use the cores it runs on");
        assert!((0.0..=100.0).contains(&share), "{share}");
    }
}
