//! Every crash of a script of some hundred batches, and every single fault on its disk.
//!
//! The script runs on a disk in memory that remembers every operation. After each of them the
//! machine stops in every way the disk allows ([`crashes`]). Then bytes are cut, flipped and
//! overwritten, files are lost or replaced by older ones ([`damage`]), and every disk call fails
//! once ([`faults`]).
//!
//! After a crash a log must be a legal prefix that holds everything acknowledged, recover to the
//! same log twice, and go on. After a fault it may also say that it is damaged. It may lose
//! records in silence only where nobody can tell: the newest group of a journal, damaged before
//! anything was written behind it, looks like one that was torn and never acknowledged.
//!
//! A failure prints its case. To run that case alone:
//! `CHRONIK_CRASH_CASE='Crash { .. }' cargo test -p chronik-wal --test crash_enumerator`.

#![allow(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

#[path = "../common/mod.rs"]
mod common;
mod crashes;
mod damage;
mod faults;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use chronik_wal::WalError;
use chronik_wal::io::MemoryDisk;
use common::model::LogModel;
use common::script::run_script;
use common::world::{Machine, World};

const THREADS: usize = 2;
const SEEDS: std::ops::RangeInclusive<u64> = 1..=2;

/// Fewest cases of all kinds together.
const CASES_MIN: usize = 50_000;

type Models = BTreeMap<String, LogModel>;

/// A run of the script on a healthy disk.
struct Script {
    seed: u64,
    disk: MemoryDisk,
    models: Models,
}

impl Script {
    fn new(seed: u64) -> Self {
        let disk = MemoryDisk::new();
        let mut world = World::new(&disk, Arc::new(disk.clone())).expect("an empty disk opens");
        run_script(&mut world, seed);
        assert!(!world.has_stopped, "a healthy disk never stops a log");
        Self { seed, models: world.models, disk }
    }
}

/// Counts cases and collects what went wrong.
#[derive(Default)]
struct Tally {
    counts: BTreeMap<&'static str, usize>,
    failures: Vec<String>,
    /// Damage that nobody can tell from a torn group.
    silent: usize,
    /// Runs only the case that prints like this.
    only: Option<String>,
}

impl Tally {
    fn run(
        &mut self,
        kind: &'static str,
        case: impl Debug,
        check: impl FnOnce() -> Result<(), String>,
    ) {
        *self.counts.entry(kind).or_default() += 1;
        if self.only.as_ref().is_some_and(|only| *only != format!("{case:?}")) {
            return;
        }
        let wrong = match catch_unwind(AssertUnwindSafe(check)) {
            Ok(Ok(())) => return,
            Ok(Err(wrong)) => wrong,
            Err(panic) => match panic.downcast::<String>() {
                Ok(message) => *message,
                Err(_) => "a panic".to_owned(),
            },
        };
        self.failures.push(format!("{case:?}: {wrong}"));
    }

    fn merge(&mut self, other: Self) {
        for (kind, count) in other.counts {
            *self.counts.entry(kind).or_default() += count;
        }
        self.failures.extend(other.failures);
        self.silent += other.silent;
    }
}

/// Runs `enumerate` on each thread with its number; it takes its share of the cases.
fn in_parallel(only: Option<&String>, enumerate: impl Fn(usize, &mut Tally) + Sync) -> Tally {
    let mut total = Tally::default();
    std::thread::scope(|scope| {
        let start = |thread| {
            let enumerate = &enumerate;
            scope.spawn(move || {
                let mut tally = Tally { only: only.cloned(), ..Tally::default() };
                enumerate(thread, &mut tally);
                tally
            })
        };
        let threads: Vec<_> = (0..THREADS).map(start).collect();
        for thread in threads {
            total.merge(thread.join().expect("failures are collected, not thrown"));
        }
    });
    total
}

fn open(disk: &MemoryDisk) -> Result<Machine, WalError> {
    Machine::open(Arc::new(disk.clone()))
}

#[test]
fn no_crash_and_no_single_fault_loses_or_invents_a_record() {
    #[allow(clippy::disallowed_methods, reason = "the way to replay one case")]
    let only = std::env::var("CHRONIK_CRASH_CASE").ok();
    let scripts: Vec<Script> = SEEDS.map(Script::new).collect();
    for script in &scripts {
        let count = |model: &LogModel| model.frames().len();
        let frames: Vec<_> = script.models.iter().map(|(name, log)| (name, count(log))).collect();
        println!("seed {}: {} operations, frames {frames:?}", script.seed, script.disk.op_count());
    }
    let total = in_parallel(only.as_ref(), |thread, tally| {
        for script in &scripts {
            crashes::enumerate(script, thread, tally);
            damage::enumerate(script, thread, tally);
        }
        faults::enumerate(thread, tally);
    });
    let cases: usize = total.counts.values().sum();
    println!("{cases} cases: {:#?}, {} losses in silence", total.counts, total.silent);
    let shown = total.failures.iter().take(8).cloned().collect::<Vec<_>>().join("\n\n");
    assert!(total.failures.is_empty(), "{} failures:\n{shown}", total.failures.len());
    assert!(cases >= CASES_MIN, "{cases} cases, at least {CASES_MIN} are promised");
}
