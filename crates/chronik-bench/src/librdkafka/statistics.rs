//! Requests in librdkafka's statistics, the only place where it counts them.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The part of the statistics that is looked at.
#[derive(Deserialize)]
struct Statistics {
    #[serde(default)]
    brokers: BTreeMap<String, Broker>,
}

#[derive(Deserialize)]
struct Broker {
    /// Requests sent, by name of the API.
    #[serde(default)]
    req: BTreeMap<String, u64>,
}

/// Requests of one kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RequestCount {
    api: &'static str,
    seen: u64,
}

impl RequestCount {
    /// A count of requests of `api`, in librdkafka's spelling.
    pub(super) fn of(api: &'static str) -> Self {
        Self { api, seen: 0 }
    }

    /// Requests that were sent between the statistics taken last and these. Statistics that cannot
    /// be read say nothing.
    pub(super) fn take(&mut self, statistics: &[u8]) -> u64 {
        let Ok(statistics) = serde_json::from_slice::<Statistics>(statistics) else { return 0 };
        let of = |broker: &Broker| broker.req.get(self.api).copied().unwrap_or(0);
        let total: u64 = statistics.brokers.values().map(of).sum();
        let new = total.saturating_sub(self.seen);
        self.seen = self.seen.max(total);
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_those_since_the_last_look_at_all_brokers() {
        let mut count = RequestCount::of("Produce");
        let first = br#"{"brokers": {"a": {"req": {"Produce": 3, "Fetch": 9}}, "b": {"req": {}}}}"#;
        let second =
            br#"{"brokers": {"a": {"req": {"Produce": 5}}, "b": {"req": {"Produce": 1}}}}"#;
        assert_eq!((count.take(first), count.take(second), count.take(second)), (3, 3, 0));
        assert_eq!((count.take(b"{}"), count.take(b"no json"), count.take(second)), (0, 0, 0));
    }
}
