//! Hot paths, one operation at a time, counted by callgrind.
//!
//! Every operation is deterministic: fixed bytes, a clock that stands still, seeded randomness, no
//! threads. What is left to chance is the seed of the standard library's hash maps, which moves
//! the count of a lookup by a few instructions.
//!
//! What runs from the entry of [`counted_operation`] to that of [`operation_is_over`] counts.

mod codec;
mod node;
mod partition;
mod record;

use std::hint::black_box;

use chronik_testkit::TempDir;

use crate::Figure;
use crate::callgrind::{self, Counts};

/// Times an operation runs before it is counted: until its buffers have grown.
const WARM_UP_TIMES: u32 = 200;

/// A hot path with everything it works on.
trait Operation {
    /// Puts everything in place for the next time; not counted.
    fn prepare(&mut self) {}
    /// The hot path, once.
    fn run(&mut self);
}

/// Makes an operation.
type Make = fn() -> Box<dyn Operation>;

const OPERATIONS: &[(&str, Make)] = &[
    ("produce-request-decode", || Box::new(codec::DecodeProduce::new())),
    ("produce-response-encode", || Box::new(codec::EncodeProduced::new())),
    ("fetch-request-decode", || Box::new(codec::DecodeFetch::new())),
    ("fetch-response-encode", || Box::new(codec::EncodeFetched::new())),
    ("batch-checksum-1-record", || Box::new(record::Checksum::new(1))),
    ("batch-checksum-100-records", || Box::new(record::Checksum::new(100))),
    ("batch-validate", || Box::new(record::Validate::new())),
    ("partition-append", || Box::new(partition::Append::new())),
    ("journal-group-of-64", || Box::new(partition::CommitGroup::new())),
    ("complete-64-waiters", || Box::new(partition::CompleteWaiters::new())),
    ("partition-by-name", || Box::new(partition::LookUp::by_name())),
    ("partition-by-id", || Box::new(partition::LookUp::by_id())),
];

/// All names, in order.
pub fn names() -> impl Iterator<Item = &'static str> {
    OPERATIONS.iter().map(|(name, _)| *name)
}

/// Counts instructions and allocations of an operation; `None` if there is none of that name.
pub fn count(name: &str, times: u32) -> Option<Vec<Figure>> {
    let (scenario, _) = OPERATIONS.iter().find(|(known, _)| *known == name)?;
    let directory = TempDir::new();
    let output = directory.path().join("profile");
    let program = std::env::current_exe().expect("a running program has a path");
    let arguments = ["operate", name, &times.to_string()];
    let between = ("counted_operation", "operation_is_over");
    let (counts, counted) = callgrind::run_between(&program, &arguments, between, &output);
    assert_eq!(counted, times as usize, "callgrind found every call of {between:?}");
    let (instructions, allocations) = counts.per_operation_since(Counts::default(), times);
    let figure = |measure, value| Figure { scenario, measure, value };
    Some(vec![figure("instructions", instructions), figure("allocations", allocations)])
}

/// Runs an operation, warm, so many times; `None` if there is none of that name.
pub fn operate(name: &str, times: u32) -> Option<()> {
    let (_, make) = OPERATIONS.iter().find(|(known, _)| *known == name)?;
    let mut operation = make();
    for _ in 0..WARM_UP_TIMES {
        operation.prepare();
        operation.run();
    }
    for _ in 0..times {
        operation.prepare();
        counted_operation(operation.as_mut());
        operation_is_over();
    }
    Some(())
}

/// Callgrind forgets at the call of this function what it has counted.
#[inline(never)]
fn counted_operation(operation: &mut dyn Operation) {
    operation.run();
}

/// Callgrind writes down at the call of this function what it has counted.
#[inline(never)]
fn operation_is_over() {
    black_box(());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_runs_and_an_unknown_name_is_told() {
        for name in names() {
            assert_eq!(operate(name, 3), Some(()), "{name}");
        }
        assert_eq!(operate("no-such-operation", 1), None);
    }
}
