//! Who waits for what: producers for durability, consumers for records.
//!
//! A waiter is pushed in the same critical section that appends its batch, so the completion
//! cannot come first. Queues are ordered by end offset because offsets are assigned under the
//! same mutex; a completion pops a prefix.

use std::collections::{HashMap, VecDeque};

use chronik_common::Offset;

use crate::error::AckError;

/// Where an answer goes: one part of one request of one connection of one shard.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Token {
    /// The shard that owns the connection.
    pub shard: u16,
    /// The connection, unique in its shard for the life of the process.
    pub connection: u64,
    /// The request, counted per connection.
    pub request: u64,
    /// The part of the request (which partition).
    pub part: u32,
}

/// The outcome of a wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Completion {
    /// Who waited.
    pub token: Token,
    /// Durable as asked, or why not.
    pub result: Result<(), AckError>,
}

/// Producers waiting for one number to pass their batch's end.
#[derive(Debug, Default)]
pub(crate) struct AckQueue {
    /// (first offset behind the batch, who waits), ascending.
    waiting: VecDeque<(Offset, Token)>,
    /// Everything up to here was completed; never goes back.
    completed_to: Offset,
}

impl AckQueue {
    /// Registers a waiter. Fresh appends come in order; a duplicate's original may lie before
    /// batches that wait already.
    pub(crate) fn push(&mut self, end_offset: Offset, token: Token) {
        assert!(
            end_offset > self.completed_to,
            "a wait for {end_offset:?}, which {:?} passed, would never end",
            self.completed_to
        );
        if self.waiting.back().is_none_or(|(last, _)| *last <= end_offset) {
            self.waiting.push_back((end_offset, token));
        } else {
            let at = self.waiting.partition_point(|(other, _)| *other <= end_offset);
            self.waiting.insert(at, (end_offset, token));
        }
        debug_assert!(
            self.waiting.iter().is_sorted_by_key(|(end_offset, _)| *end_offset),
            "a completion pops a prefix: {:?}",
            self.waiting
        );
    }

    /// Completes everything that ends at or below `reached`.
    pub(crate) fn complete_up_to(&mut self, reached: Offset, completed: &mut Vec<Completion>) {
        assert!(
            reached >= self.completed_to,
            "what was acknowledged up to {:?} is taken back to {reached:?}",
            self.completed_to
        );
        self.completed_to = reached;
        while self.waiting.front().is_some_and(|(end_offset, _)| *end_offset <= reached) {
            let (_, token) = self.waiting.pop_front().expect("just seen");
            completed.push(Completion { token, result: Ok(()) });
        }
    }

    /// Fails everything.
    pub(crate) fn fail_all(&mut self, error: AckError, completed: &mut Vec<Completion>) {
        let failed = self.waiting.drain(..);
        completed.extend(failed.map(|(_, token)| Completion { token, result: Err(error) }));
    }
}

/// Consumers waiting for records; at most one wait per connection.
#[derive(Debug, Default)]
pub(crate) struct FetchQueue {
    waiting: HashMap<(u16, u64), (Offset, Token)>,
}

impl FetchQueue {
    /// Registers a wait for a record at `offset`, replacing the connection's earlier one.
    pub(crate) fn push(&mut self, offset: Offset, token: Token) {
        self.waiting.insert((token.shard, token.connection), (offset, token));
    }

    /// Forgets a connection that is gone.
    pub(crate) fn remove(&mut self, shard: u16, connection: u64) {
        self.waiting.remove(&(shard, connection));
    }

    /// Takes everyone whose record lies below `high_watermark`.
    pub(crate) fn wake_below(&mut self, high_watermark: Offset, woken: &mut Vec<Token>) {
        if self.waiting.is_empty() {
            return;
        }
        self.waiting.retain(|_, (offset, token)| {
            let is_served = *offset < high_watermark;
            if is_served {
                woken.push(*token);
            }
            !is_served
        });
        // Wake order must not depend on a hash map's.
        woken.sort_unstable();
    }

    /// Takes everyone, because of an event that answers all.
    pub(crate) fn wake_all(&mut self, woken: &mut Vec<Token>) {
        woken.extend(self.waiting.drain().map(|(_, (_, token))| token));
        woken.sort_unstable();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(request: u64) -> Token {
        Token { shard: 0, connection: 1, request, part: 0 }
    }

    #[test]
    fn completions_are_a_prefix_and_a_duplicate_completes_with_its_original() {
        let mut queue = AckQueue::default();
        for request in 1..=3 {
            queue.push(Offset(request as i64 * 10), token(request));
        }
        queue.push(Offset(20), token(9));
        let mut completed = Vec::new();
        queue.complete_up_to(Offset(19), &mut completed);
        assert_eq!(completed.len(), 1);
        queue.complete_up_to(Offset(20), &mut completed);
        let requests: Vec<u64> = completed.iter().map(|done| done.token.request).collect();
        assert_eq!(requests, [1, 2, 9]);
        completed.clear();
        queue.fail_all(AckError::StorageFailed, &mut completed);
        assert_eq!(completed.len(), 1);
        assert_eq!(completed[0].result, Err(AckError::StorageFailed));
    }

    #[test]
    fn a_connection_waits_once_and_wakes_only_when_its_record_is_visible() {
        let mut queue = FetchQueue::default();
        queue.push(Offset(5), token(1));
        queue.push(Offset(7), token(2));
        let mut woken = Vec::new();
        queue.wake_below(Offset(7), &mut woken);
        assert!(woken.is_empty(), "offset 7 is not below high watermark 7");
        queue.wake_below(Offset(8), &mut woken);
        assert_eq!(woken, [token(2)]);
    }
}
