//! How much a connection may move in one turn of its shard.

use std::cell::Cell;
use std::time::Duration;

use chronik_common::MonotonicMs;

/// Bytes of a turn while a shard serves several connections: about a tenth of a millisecond, as
/// the kernel copies them and on one machine takes them in for the receiver too.
const SHARED_TURN_BYTES: usize = 256 << 10;
/// Bytes of a turn while nobody else wants one. Small pieces cost a reader of old records up to a
/// third of its rate: both sides go to sleep between them.
const LONE_TURN_BYTES: usize = 1 << 20;
/// A shard that served two connections within this time serves several.
const SHARED_FOR: Duration = Duration::from_millis(20);

/// Who had turns lately.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    last_connection: Cell<u64>,
    changed_at: Cell<Option<MonotonicMs>>,
}

impl Turns {
    /// A connection has received something.
    pub(crate) fn note(&self, connection: u64, now: MonotonicMs) {
        if self.last_connection.replace(connection) != connection {
            self.changed_at.set(Some(now));
        }
    }

    /// Bytes that the next turn may write, or take from segments in two turns.
    pub(crate) fn bytes(&self, now: MonotonicMs) -> usize {
        let is_shared = self.changed_at.get().is_some_and(|at| now.since(at) < SHARED_FOR);
        if is_shared { SHARED_TURN_BYTES } else { LONE_TURN_BYTES }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_short_while_connections_alternate() {
        let turns = Turns::default();
        let at = |ms| MonotonicMs::default().after(Duration::from_millis(ms));
        assert_eq!(turns.bytes(at(0)), LONE_TURN_BYTES);
        turns.note(1, at(100));
        assert_eq!(turns.bytes(at(119)), SHARED_TURN_BYTES);
        turns.note(1, at(119));
        assert_eq!(turns.bytes(at(120)), LONE_TURN_BYTES, "one connection alone");
        turns.note(2, at(200));
        turns.note(1, at(210));
        assert_eq!(turns.bytes(at(229)), SHARED_TURN_BYTES);
        assert_eq!(turns.bytes(at(230)), LONE_TURN_BYTES);
    }
}
