//! What a log must be: a list of frames, and what was known about it after every disk operation.
//!
//! A recovered log is legal if it is a prefix of a history that existed at the crash, holds
//! everything that was acknowledged by then, and says so.

use std::fmt;

use bytes::Bytes;
use chronik_common::{Lsn, Offset};
use chronik_wal::frame::{FrameHeader, FrameKind};
use chronik_wal::{EpochHistory, EpochStart, Verdict};

/// One frame as it was appended.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    pub header: FrameHeader,
    pub body: Bytes,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FrameHeader { lsn, epoch, base_offset, kind, .. } = self.header;
        write!(f, "{lsn}:{base_offset}@{epoch} {kind:?} {:08x}", self.header.chain())
    }
}

/// One history of a log, and how much of it must be there and can be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    /// Which list of frames.
    pub version: usize,
    /// Frames that must survive the loss of power.
    pub synced: usize,
    /// Frames that must survive the death of the process.
    pub flushed: usize,
    /// Frames that can be there.
    pub appended: usize,
}

/// What was known at one moment.
#[derive(Clone, Debug)]
struct Facts {
    /// Disk operations before it.
    at: usize,
    /// The current history last; before it those that a truncation left and that may come back
    /// as long as the truncation is not durable.
    branches: Vec<Branch>,
    /// The last state that is durable, and the last one that was set.
    states: (usize, usize),
    /// True if the log must exist; it may once it has facts.
    must_exist: bool,
}

/// A log's frames and facts.
#[derive(Clone, Debug)]
pub struct LogModel {
    versions: Vec<Vec<Entry>>,
    facts: Vec<Facts>,
    state_count: usize,
}

/// What a crash did to the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// The process died; the page cache did not.
    Process,
    /// Unsynced bytes may be gone.
    Power,
}

/// A recovered log as its owner finds it.
#[derive(Clone, PartialEq, Debug)]
pub struct FoundLog {
    pub verdict: Verdict,
    /// Frames that can be read, in order.
    pub entries: Vec<Entry>,
    /// Why reading stopped.
    pub read_error: Option<String>,
    /// Last frame, according to the log.
    pub last_lsn: Lsn,
    pub log_start: Offset,
    pub log_end: Offset,
    /// Epoch, first frame, first offset.
    pub epochs: Vec<(i32, u64, i64)>,
    pub state: Bytes,
    /// Position and content of the state snapshot.
    pub snapshot: Option<(Lsn, Vec<u8>)>,
}

impl FoundLog {
    /// True if the damage was told: to the operator or to the reader.
    pub fn is_reported(&self) -> bool {
        self.verdict != Verdict::Ok || self.read_error.is_some()
    }
}

/// The opaque state number `index`.
pub fn state(index: usize) -> Bytes {
    match index {
        0 => Bytes::new(),
        _ => Bytes::from(format!("state {index}")),
    }
}

impl Default for LogModel {
    fn default() -> Self {
        Self { versions: vec![Vec::new()], facts: Vec::new(), state_count: 0 }
    }
}

impl LogModel {
    fn now(&self) -> Facts {
        let empty = Branch { version: 0, synced: 0, flushed: 0, appended: 0 };
        self.facts.last().cloned().unwrap_or(Facts {
            at: 0,
            branches: vec![empty],
            states: (0, 0),
            must_exist: false,
        })
    }

    fn note(&mut self, at: usize, change: impl FnOnce(&mut Facts)) {
        let mut facts = self.now();
        assert!(facts.at <= at, "time goes forward");
        facts.at = at;
        change(&mut facts);
        self.facts.push(facts);
    }

    /// The log is about to be created.
    pub fn begin(&mut self, at: usize) {
        self.note(at, |_| {});
    }

    /// The log's creation is durable.
    pub fn created(&mut self, at: usize) {
        self.note(at, |facts| facts.must_exist = true);
    }

    /// The log's removal began.
    pub fn removed(&mut self, at: usize) {
        self.note(at, |facts| {
            facts.must_exist = false;
            // The journal forgets it at once, whether its files can be removed or not.
            for branch in &mut facts.branches {
                (branch.synced, branch.flushed) = (0, 0);
            }
        });
    }

    /// A frame was appended.
    pub fn appended(&mut self, at: usize, entry: Entry) {
        let frames = self.versions.last_mut().expect("there is always a version");
        assert_eq!(entry.header.lsn.0 as usize, frames.len() + 1, "frames are dense");
        frames.push(entry);
        self.note(at, |facts| {
            facts.branches.last_mut().expect("there is always a branch").appended += 1;
        });
    }

    /// Frames from `lsn` on were removed; not durable yet.
    pub fn truncated(&mut self, at: usize, lsn: Lsn) {
        let kept = lsn.0 as usize - 1;
        let old = self.versions.last().expect("there is always a version");
        self.versions.push(old[..kept].to_vec());
        let version = self.versions.len() - 1;
        self.note(at, |facts| {
            let mut branch = facts.branches.last().expect("there is always a branch").clone();
            branch.version = version;
            branch.synced = branch.synced.min(kept);
            branch.flushed = branch.flushed.min(kept);
            branch.appended = kept;
            // What is being removed need not be kept any more, and may still come back.
            for old in &mut facts.branches {
                old.synced = old.synced.min(kept);
                old.flushed = old.flushed.min(kept);
            }
            facts.branches.push(branch);
        });
    }

    /// The last truncation is durable.
    pub fn truncation_flushed(&mut self, at: usize) {
        self.note(at, |facts| {
            facts.branches.drain(..facts.branches.len() - 1);
        });
    }

    /// The log reported these frames as flushed and synced.
    pub fn acknowledged(&mut self, at: usize, flushed: usize, synced: usize) {
        let now = self.now();
        let branch = now.branches.last().expect("there is always a branch");
        assert!(flushed <= branch.appended, "only what was appended is flushed");
        if (branch.flushed, branch.synced) != (flushed, synced) {
            self.note(at, |facts| {
                let branch = facts.branches.last_mut().expect("there is always a branch");
                branch.flushed = branch.flushed.max(flushed);
                branch.synced = branch.synced.max(synced);
            });
        }
    }

    /// A new state was queued; returns it.
    pub fn state_set(&mut self, at: usize) -> Bytes {
        self.state_count += 1;
        let index = self.state_count;
        self.note(at, |facts| facts.states.1 = index);
        state(index)
    }

    /// Every state set so far is durable.
    pub fn states_flushed(&mut self, at: usize) {
        let (durable, last) = self.now().states;
        if durable < last {
            self.note(at, |facts| facts.states.0 = last);
        }
    }

    /// A restart found this and made it durable: frames that never reached the disk are gone.
    pub fn restarted(&mut self, at: usize, history: Vec<Entry>, found: &FoundLog) {
        let count = history.len();
        self.versions.push(history);
        let version = self.versions.len() - 1;
        let (first, last) = self.now().states;
        let index = (first..=last).find(|index| state(*index) == found.state);
        let index = index.expect("the state was judged");
        self.note(at, |facts| {
            facts.branches =
                vec![Branch { version, synced: count, flushed: count, appended: count }];
            facts.states = (index, index);
        });
    }

    /// Frames of the current history.
    pub fn frames(&self) -> &[Entry] {
        self.versions.last().expect("there is always a version")
    }

    /// Frames of the current history that are flushed.
    pub fn flushed(&self) -> usize {
        self.now().branches.last().map_or(0, |branch| branch.flushed)
    }

    fn at(&self, point: usize) -> Option<&Facts> {
        let after = self.facts.partition_point(|facts| facts.at <= point);
        after.checked_sub(1).map(|index| &self.facts[index])
    }

    /// Judges what a restart found after a crash behind `point` operations; returns the frames
    /// of the history it belongs to, trimmed ones included.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn judge(
        &self,
        point: usize,
        loss: Loss,
        found: Option<&FoundLog>,
    ) -> Result<Vec<Entry>, String> {
        let facts = self.at(point);
        let Some(found) = found else {
            return match facts {
                Some(facts) if facts.must_exist => Err("the log is gone".to_owned()),
                _ => Ok(Vec::new()),
            };
        };
        let facts = facts.ok_or("a log that was never created")?;
        if found.is_reported() {
            return Err(format!("damage after a mere crash: {found:?}"));
        }
        let frames = self.history_of(facts, found, loss)?;
        check_start(&frames, found)?;
        let expected = epochs_of(&frames);
        if found.epochs != expected {
            return Err(format!("epochs {:?} instead of {expected:?}", found.epochs));
        }
        let is_legal_state = (facts.states.0..=facts.states.1).any(|one| state(one) == found.state);
        if !is_legal_state {
            return Err(format!("state {:?} instead of {:?}", found.state, facts.states));
        }
        Ok(frames)
    }

    /// The frames of the branch that `found` is a legal prefix of.
    fn history_of(
        &self,
        facts: &Facts,
        found: &FoundLog,
        loss: Loss,
    ) -> Result<Vec<Entry>, String> {
        let least = |branch: &Branch| match loss {
            Loss::Process => branch.flushed,
            Loss::Power => branch.synced,
        };
        let count = found.last_lsn.0 as usize;
        if found.entries.len() > count {
            return Err(format!("{} frames in a log of {count}", found.entries.len()));
        }
        let mut reasons = Vec::new();
        for branch in facts.branches.iter().rev() {
            let reason = if count < least(branch) {
                format!("{} acknowledged, {count} found", least(branch))
            } else if count > branch.appended {
                format!("{} appended, {count} found", branch.appended)
            } else {
                let frames = &self.versions[branch.version][..count];
                let first = count - found.entries.len();
                match (first..count).find(|index| frames[*index] != found.entries[index - first]) {
                    None => return Ok(frames.to_vec()),
                    Some(index) => format!("frame {} differs", index + 1),
                }
            };
            reasons.push(reason);
        }
        Err(format!("{}; facts {facts:?}", reasons.join("; ")))
    }

    /// Judges what a restart found on a disk with one fault in it: not less than was
    /// acknowledged without saying so, and nothing that was never written.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn judge_damaged(&self, point: usize, found: Option<&FoundLog>) -> Result<Fate, String> {
        let facts = self.at(point);
        let Some(found) = found else {
            return match facts {
                Some(facts) if facts.must_exist => Err("the log is gone".to_owned()),
                _ => Ok(Fate::Intact),
            };
        };
        let facts = facts.ok_or("a log that was never created")?;
        // Whatever can be read was written, in this order.
        let is_known = |frames: &Vec<Entry>| {
            found.entries.iter().all(|entry| frames.get(lsn_index(entry)) == Some(entry))
        };
        if !self.versions.iter().any(is_known) {
            return Err(format!("frames that were never written: {found:?}"));
        }
        if found.is_reported() {
            return Ok(Fate::Reported);
        }
        for entry in &found.entries {
            let is_before = |(_, first, _): &&(i32, u64, i64)| *first <= entry.header.lsn.0;
            let start = found.epochs.iter().rev().find(is_before);
            if start.map(|(epoch, ..)| *epoch) != Some(entry.header.epoch.0) {
                return Err(format!("epoch of {entry:?} is not in {:?}", found.epochs));
            }
        }
        let branch = facts.branches.last().expect("there is always a branch");
        let frames = &self.versions[branch.version][..branch.synced];
        let first = found.last_lsn.0 as usize - found.entries.len();
        let is_there = |index: &usize| {
            *index < first || found.entries.get(index - first) == Some(&frames[*index])
        };
        let missing = frames.len() - (0..frames.len()).take_while(is_there).count();
        let has_state = (facts.states.0..=self.state_count).any(|one| state(one) == found.state);
        match missing == 0 && has_state {
            true => Ok(Fate::Intact),
            false => Ok(Fate::Short { missing }),
        }
    }
}

/// What damage did to a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// Everything acknowledged is there.
    Intact,
    /// The log says that it is damaged.
    Reported,
    /// Acknowledged frames, or a state, are missing and nobody can tell.
    Short { missing: usize },
}

fn lsn_index(entry: &Entry) -> usize {
    entry.header.lsn.0 as usize - 1
}

/// Epochs of a history from its first frame on.
fn epochs_of(frames: &[Entry]) -> Vec<(i32, u64, i64)> {
    let mut epochs = EpochHistory::default();
    for Entry { header, .. } in frames {
        epochs.note(header.epoch, header.lsn, header.base_offset);
    }
    epoch_rows(&epochs)
}

/// The rows of a history, as plain numbers.
pub fn epoch_rows(epochs: &EpochHistory) -> Vec<(i32, u64, i64)> {
    let row = |start: &EpochStart| (start.epoch.0, start.first_lsn.0, start.first_offset.0);
    epochs.rows().iter().map(row).collect()
}

/// First readable offset of a history.
fn start_of(frames: &[Entry]) -> Offset {
    let start = |entry: &Entry| {
        let bytes = entry.body.as_ref().try_into().expect("a log start has 8 bytes");
        Offset(i64::from_le_bytes(bytes))
    };
    let starts = frames.iter().filter(|entry| entry.header.kind == FrameKind::LogStart);
    starts.map(start).max().unwrap_or(Offset::ZERO)
}

fn check_start(frames: &[Entry], found: &FoundLog) -> Result<(), String> {
    let start = start_of(frames);
    if found.log_start != start {
        return Err(format!("log start {:?} instead of {start:?}", found.log_start));
    }
    let trimmed = &frames[..frames.len() - found.entries.len()];
    if let Some(last) = trimmed.last()
        && last.header.next_offset() > start
    {
        return Err(format!("{:?} is missing and not below {start:?}", last.header));
    }
    let end = frames.last().map_or(Offset::ZERO, |last| last.header.next_offset());
    if found.log_end != end {
        return Err(format!("log end {:?} instead of {end:?}", found.log_end));
    }
    if let Some((at, content)) = &found.snapshot {
        let behind = at.0.checked_sub(1).map(|index| &frames[index as usize]);
        let chain = behind.map_or(0, |entry| entry.header.chain());
        if *content != chain.to_le_bytes() {
            return Err(format!("the snapshot at {at} is one of another history"));
        }
    }
    Ok(())
}
