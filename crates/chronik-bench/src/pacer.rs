//! The intended times of an open loop: fixed steps or a Poisson process, and the messages whose
//! time has come but that no task was free to send.
//!
//! Latency counts from the intended time, so that a broker that stalls is charged for every
//! message that should have been sent meanwhile.

use std::collections::VecDeque;

use chronik_common::{Rng, SeededRng};

use crate::arguments::Arrival;
use crate::clock::Moment;

/// Messages that may wait for a task. Beyond, they are dropped and the rate is not sustained.
const BACKLOG_MAX: usize = 4 << 20;

/// See the module.
#[derive(Debug)]
pub struct Pacer {
    /// Mean time between two messages, in nanoseconds.
    step: f64,
    arrival: Arrival,
    rng: SeededRng,
    /// Intended time of the next message, in nanoseconds.
    next: f64,
    backlog: VecDeque<Moment>,
    dropped: u64,
}

impl Pacer {
    /// A pacer of `rate` messages per second, above 0, from `start` on. Pacers with different
    /// seeds are independent.
    #[must_use]
    pub fn new(rate: f64, arrival: Arrival, start: Moment, seed: u64) -> Self {
        assert!(rate > 0.0, "an open loop has a rate above 0, not {rate}");
        let step = 1e9 / rate;
        let mut rng = SeededRng::new(seed);
        // Different workers do not all send at the same moment.
        let phase = step * unit(&mut rng);
        let next = start.0 as f64 + phase;
        Self { step, arrival, rng, next, backlog: VecDeque::new(), dropped: 0 }
    }

    /// Moves the messages whose time has come to the backlog and returns how many they are.
    pub fn advance(&mut self, now: Moment) -> u64 {
        let mut count = 0;
        while self.next <= now.0 as f64 {
            count += 1;
            if self.backlog.len() < BACKLOG_MAX {
                self.backlog.push_back(Moment(self.next as u64));
            } else {
                self.dropped += 1;
            }
            self.next += match self.arrival {
                Arrival::Fixed => self.step,
                Arrival::Poisson => -self.step * (1.0 - unit(&mut self.rng)).ln(),
            };
        }
        count
    }

    /// Takes the longest waiting message.
    pub fn take(&mut self) -> Option<Moment> {
        self.backlog.pop_front()
    }

    /// Messages that wait for a task.
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.backlog.len()
    }

    /// Messages that were dropped because too many waited.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// When the next message is meant to be sent.
    #[must_use]
    pub fn next(&self) -> Moment {
        Moment(self.next as u64 + 1)
    }
}

/// A number from 0 to 1, 1 excluded.
fn unit(rng: &mut SeededRng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn both_arrivals_keep_the_rate() {
        for arrival in [Arrival::Fixed, Arrival::Poisson] {
            let mut pacer = Pacer::new(10_000.0, arrival, Moment(0), 1);
            let mut count = 0;
            for turn in 0..1_000 {
                count += pacer.advance(Moment(turn * SECOND / 100));
            }
            assert!((98_000..=102_000).contains(&count), "{arrival:?}: {count} in ten seconds");
            assert_eq!(pacer.backlog() as u64, count);
        }
    }

    #[test]
    fn a_message_keeps_its_intended_time_while_it_waits() {
        let mut pacer = Pacer::new(1_000.0, Arrival::Fixed, Moment(0), 7);
        pacer.advance(Moment(SECOND));
        let times: Vec<_> = std::iter::from_fn(|| pacer.take()).collect();
        assert!(times.windows(2).all(|pair| pair[1].0 - pair[0].0 <= 1_000_001));
        assert!(times[0].0 < 1_000_001 && times[999].0 > 998 * 1_000_000);
        assert!(pacer.next() > Moment(SECOND));
    }

    #[test]
    fn gaps_of_a_poisson_process_are_spread_as_they_should() {
        let mut pacer = Pacer::new(1_000.0, Arrival::Poisson, Moment(0), 3);
        pacer.advance(Moment(100 * SECOND));
        let times: Vec<_> = std::iter::from_fn(|| pacer.take()).collect();
        let gaps: Vec<_> = times.windows(2).map(|pair| (pair[1].0 - pair[0].0) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        let ratio = variance.sqrt() / mean;
        assert!((0.95..1.05).contains(&ratio), "an exponential spreads as its mean: {ratio}");
    }
}
