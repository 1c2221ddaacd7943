//! The machine stops, or only the process, after each operation; and again while it recovers.

use std::collections::BTreeMap;

use chronik_common::LeaderEpoch;
use chronik_wal::WalError;
use chronik_wal::frame::FrameKind;
use chronik_wal::io::{CrashPolicy, CrashTimeline, DiskOp, MemoryDisk};

use super::common::model::{Entry, FoundLog, Loss};
use super::common::world::{FrameSpec, META, OS};
use super::{Models, Script, THREADS, Tally, open};

/// Recovery is crashed at each of its steps behind every so many operations of the script.
const RECOVERY_STRIDE: usize = 60;

/// One way to stop a machine; printed, it is the way to replay it.
#[derive(Clone, Debug)]
#[allow(dead_code, reason = "the fields are there to be printed")]
enum Case {
    /// The machine stops behind `point` operations.
    Crash { seed: u64, point: usize, policy: CrashPolicy },
    /// The process is killed there, and the machine stops after its restart.
    Kill { seed: u64, point: usize },
    /// The machine stops once more behind `step` operations of the recovery.
    Recovery { seed: u64, point: usize, policy: CrashPolicy, step: usize, again: CrashPolicy },
}

/// What may happen to all unsynced operations together.
const WHOLE: [CrashPolicy; 4] = [
    CrashPolicy::KeepUnsynced,
    CrashPolicy::LoseUnsynced,
    CrashPolicy::LoseWrites,
    CrashPolicy::LoseNames,
];

pub(crate) fn enumerate(script: &Script, thread: usize, tally: &mut Tally) {
    enumerate_crashes(script, thread, tally);
    enumerate_recovery_crashes(script, thread, tally);
}

fn enumerate_crashes(script: &Script, thread: usize, tally: &mut Tally) {
    let seed = script.seed;
    let mut timeline = script.disk.timeline();
    let ops = script.disk.ops();
    for point in (0..=ops.len()).filter(|point| point % THREADS == thread) {
        timeline.advance_to(point);
        let is_behind_write =
            point.checked_sub(1).is_some_and(|last| matches!(ops[last], DiskOp::Write { .. }));
        for (nth, policy) in policies(&timeline, is_behind_write).into_iter().enumerate() {
            let loss = match policy {
                CrashPolicy::KeepUnsynced => Loss::Process,
                _ => Loss::Power,
            };
            let depth = if nth < WHOLE.len() || nth % 3 == 0 { Depth::GoOn } else { Depth::Judge };
            tally.run("crash", Case::Crash { seed, point, policy }, || {
                check(script, point, loss, &timeline.crash(policy), depth)
            });
        }
        tally.run("kill", Case::Kill { seed, point }, || {
            check(script, point, Loss::Process, &timeline.kill(), Depth::GoOn)
        });
    }
}

/// What may happen to the unsynced operations at the timeline's point. Tears are tried where
/// the write they tear was the last operation.
fn policies(timeline: &CrashTimeline, is_behind_write: bool) -> Vec<CrashPolicy> {
    let mut policies = WHOLE.to_vec();
    let writes = timeline.unsynced_writes();
    policies.extend((0..writes).map(CrashPolicy::LoseWrite));
    policies.extend((0..writes).map(CrashPolicy::KeepOnlyWrite));
    policies.extend((0..timeline.unsynced_names()).map(CrashPolicy::LoseName));
    let bytes = timeline.last_write_bytes();
    let sectors = bytes.div_ceil(512);
    if is_behind_write && sectors > 1 {
        let all = if sectors < 64 { (1_u64 << sectors) - 1 } else { u64::MAX };
        if sectors <= 4 {
            policies.extend((1..all).map(CrashPolicy::TearLastWrite));
        } else {
            let bits = || (0..sectors.min(16)).map(|bit| 1_u64 << bit);
            policies.extend(bits().map(CrashPolicy::TearLastWrite));
            policies.extend(bits().map(|bit| CrashPolicy::TearLastWrite(all & !bit)));
            policies.extend(bits().map(|bit| CrashPolicy::TearLastWrite(bit - 1)));
        }
    }
    if is_behind_write && timeline.at().is_multiple_of(CUT_STRIDE) {
        policies.extend((1..bytes).map(CrashPolicy::CutLastWrite));
    }
    policies
}

/// Behind every so many operations the last write is cut at every byte.
const CUT_STRIDE: usize = 120;

/// How much is checked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    /// The log is legal.
    Judge,
    /// It is found again by another restart, and goes on.
    GoOn,
}

/// The oracle: legal, the same again, and able to go on.
fn check(
    script: &Script,
    point: usize,
    loss: Loss,
    disk: &MemoryDisk,
    depth: Depth,
) -> Result<(), String> {
    let unopened = |error: WalError| format!("does not open: {error}");
    let found = open(disk).map_err(unopened)?.find_all();
    let mut histories = judge(&script.models, point, loss, &found)?;
    if depth == Depth::Judge {
        return Ok(());
    }

    let disk = disk.crash(disk.op_count(), CrashPolicy::LoseUnsynced);
    let machine = open(&disk).map_err(unopened)?;
    for (name, again) in machine.find_all() {
        if Some(&again) != found.get(&name) {
            let found = found.get(&name);
            return Err(format!("{name} first recovered to {found:?}, then to {again:?}"));
        }
    }

    for (name, found) in &found {
        for number in 0..2 {
            let epoch = found.epochs.last().map_or(1, |(epoch, ..)| *epoch) + number;
            let kind = if name == META { FrameKind::MetaCommand } else { FrameKind::Data };
            let frame = FrameSpec {
                kind,
                epoch: LeaderEpoch(epoch),
                records: 2,
                bytes: 30,
                number: 9_000 + number as usize,
            };
            let entry = machine.append(name, &frame).map_err(|error| error.to_string())?;
            histories.get_mut(name).expect("judged above").push(entry);
        }
        let submitted = machine.owners[name].log.lock().unwrap().submit(0);
        submitted.map_err(|error| error.to_string())?;
    }
    machine.commit().map_err(|(_, error)| error.to_string())?;
    let is_checkpointed = point.is_multiple_of(2);
    if is_checkpointed {
        machine.manager.step_checkpoint();
    }
    let disk = disk.crash(disk.op_count(), CrashPolicy::LoseUnsynced);
    for (name, found) in open(&disk).map_err(unopened)?.find_all() {
        let expected = &histories[&name];
        let is_same =
            expected.ends_with(&found.entries) && found.last_lsn.0 as usize == expected.len();
        let is_excused = name == OS && !is_checkpointed;
        if !is_same && !is_excused || found.is_reported() {
            return Err(format!("{name}: what was appended after the recovery is {found:?}"));
        }
    }
    Ok(())
}

/// Judges every log; returns their full histories.
pub(crate) fn judge(
    models: &Models,
    point: usize,
    loss: Loss,
    found: &BTreeMap<String, FoundLog>,
) -> Result<BTreeMap<String, Vec<Entry>>, String> {
    let mut histories = BTreeMap::new();
    for (name, model) in models {
        let history = model.judge(point, loss, found.get(name));
        histories.insert(name.clone(), history.map_err(|wrong| format!("{name}: {wrong}"))?);
    }
    match found.keys().find(|name| !models.contains_key(*name)) {
        None => Ok(histories),
        Some(name) => Err(format!("{name} was never created")),
    }
}

fn enumerate_recovery_crashes(script: &Script, thread: usize, tally: &mut Tally) {
    let seed = script.seed;
    let mut timeline = script.disk.timeline();
    let points = (0..=script.disk.op_count()).step_by(RECOVERY_STRIDE);
    for (nth, point) in points.enumerate() {
        timeline.advance_to(point);
        if nth % THREADS != thread {
            continue;
        }
        for policy in [CrashPolicy::KeepUnsynced, CrashPolicy::LoseUnsynced] {
            let disk = timeline.crash(policy);
            if open(&disk).is_err() {
                continue; // Counted where the crash itself is checked.
            }
            let mut recovery = disk.timeline();
            for step in 0..disk.op_count() {
                recovery.advance_to(step);
                for again in WHOLE {
                    let case = Case::Recovery { seed, point, policy, step, again };
                    tally.run("crash during recovery", case, || {
                        let machine = open(&recovery.crash(again));
                        let machine = machine.map_err(|error| format!("does not open: {error}"))?;
                        judge(&script.models, point, Loss::Power, &machine.find_all()).map(|_| ())
                    });
                }
            }
        }
    }
}
