//! How much a connection may move in one turn of its shard.

use std::cell::Cell;
use std::time::Duration;

use chronik_common::MonotonicMs;

/// Bytes of a turn while a shard serves several connections: some 25 us, as the kernel copies them
/// and on one machine takes them in for the receiver too. With four times as much, one request in
/// ten of producers beside a reader of old records took 0.16 - 0.24 ms instead of 0.11 - 0.12.
const SHARED_TURN_BYTES: usize = 64 << 10;
/// Bytes of a turn while nobody else wants one. Small pieces cost a reader of old records up to a
/// quarter of its rate: both sides go to sleep between them.
const LONE_TURN_BYTES: usize = 1 << 20;
/// A shard that served two connections within this time serves several.
const SHARED_FOR: Duration = Duration::from_millis(20);

/// Who had turns lately.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    last_connection: Cell<u64>,
    /// When a turn began, last.
    noted_at: Cell<MonotonicMs>,
    /// When a turn of another connection than before began, last.
    changed_at: Cell<MonotonicMs>,
}

impl Turns {
    /// A connection has received something. The first one has number 1.
    pub(crate) fn note(&self, connection: u64, now: MonotonicMs) {
        self.noted_at.set(now);
        if self.last_connection.replace(connection) != connection {
            self.changed_at.set(now);
        }
    }

    /// True while the shard serves several connections.
    pub(crate) fn are_shared(&self) -> bool {
        self.noted_at.get().since(self.changed_at.get()) < SHARED_FOR
    }

    /// Bytes that a turn may write, or take from segments.
    pub(crate) fn bytes(&self) -> usize {
        if self.are_shared() { SHARED_TURN_BYTES } else { LONE_TURN_BYTES }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_short_while_connections_alternate() {
        let turns = Turns::default();
        let bytes_at = |connection, ms| {
            turns.note(connection, MonotonicMs(ms));
            turns.bytes()
        };
        assert_eq!(bytes_at(1, 100), SHARED_TURN_BYTES, "it has just come");
        assert_eq!(bytes_at(1, 119), SHARED_TURN_BYTES);
        assert_eq!(bytes_at(1, 120), LONE_TURN_BYTES, "one connection alone");
        assert_eq!(bytes_at(2, 200), SHARED_TURN_BYTES);
        assert_eq!(bytes_at(1, 210), SHARED_TURN_BYTES);
        assert_eq!(bytes_at(1, 229), SHARED_TURN_BYTES);
        assert_eq!(bytes_at(1, 230), LONE_TURN_BYTES);
    }
}
