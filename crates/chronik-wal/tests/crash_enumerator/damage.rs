//! One fault on the disk of a machine that stopped: bytes cut, flipped or overwritten, files lost
//! or replaced by older ones.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use chronik_common::{Rng, SeededRng};
use chronik_record::crc;
use chronik_wal::WalError;
use chronik_wal::io::{CrashPolicy, MemoryDisk};

use super::common::model::Fate;
use super::common::world::{META, Machine};
use super::{SEEDS, Script, THREADS, Tally, open};

const GROUP_ALIGNMENT: usize = 4_096;
const GROUP_HEADER: usize = 64;
const RECORD_HEADER: usize = 32;
const FRAME_HEADER: usize = 64;
const SEGMENT_PAGE: usize = 4_096;
const SEGMENT_PAGE_USED: usize = 80;

/// One way to damage a file; printed, it is the way to replay it.
#[derive(Clone, Debug)]
enum Harm {
    Cut {
        length: usize,
    },
    Flip {
        bit: usize,
    },
    Zero {
        block: Range<usize>,
    },
    Garbage {
        block: Range<usize>,
    },
    /// What lay there at an earlier point of the script.
    Stale {
        block: Range<usize>,
        point: usize,
    },
    /// A copy of the bytes at `from`.
    Duplicate {
        block: Range<usize>,
        from: usize,
    },
    /// The file is gone.
    Lose,
    /// The file as it was at another point of the script, or gone if it did not exist.
    Swap {
        point: usize,
    },
    /// A second copy under another segment number.
    Copy {
        number: u64,
    },
}

#[derive(Clone, Debug)]
#[allow(dead_code, reason = "the fields are there to be printed")]
struct Case<'a> {
    seed: u64,
    point: usize,
    path: &'a Path,
    harm: Harm,
}

/// The disk of a machine that lost power behind `point` operations, file by file.
struct Image<'a> {
    script: &'a Script,
    point: usize,
    disk: MemoryDisk,
    files: BTreeMap<PathBuf, Vec<u8>>,
    /// Groups of each lane, newest first, by the start of its ring files' names.
    groups: BTreeMap<&'static str, Vec<Group>>,
    /// Contents at other points of the script.
    others: BTreeMap<usize, BTreeMap<PathBuf, Vec<u8>>>,
}

/// A group in a ring file.
#[derive(Clone, Debug)]
struct Group {
    path: PathBuf,
    bytes: Range<usize>,
    sequence: u64,
    /// Frames and states by log id.
    records: BTreeMap<u32, usize>,
}

/// Behind damage at every so many bytes the journal is written on until it has wrapped.
const WRITE_ON_STRIDE: usize = 16;

const META_RING: &str = "/data/wal/__meta/lane_";
const DATA_RING: &str = "/data/wal/journal/lane0_";

pub(crate) fn enumerate(script: &Script, thread: usize, tally: &mut Tally) {
    let end = script.disk.op_count();
    let image = Image::new(script, end, &[end / 2, end * 7 / 8]);
    let harms = image.harms();
    for (path, harm) in harms.iter().skip(thread).step_by(THREADS) {
        image.check(path, harm, tally);
    }
    // An older log with newer tables.
    let image = Image::new(script, end * 3 / 4, &[end]);
    for (nth, path) in image.files.keys().filter(|path| is_table(path)).enumerate() {
        if nth % THREADS == thread {
            image.check(path, &Harm::Swap { point: end }, tally);
        }
    }
}

fn is_table(path: &Path) -> bool {
    path.ends_with("hardstate") || path.ends_with("offset_index")
}

fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "wal") && !is_ring(path)
}

fn is_busiest(path: &Path) -> bool {
    is_segment(path) && path.to_string_lossy().contains("a-0")
}

fn is_ring(path: &Path) -> bool {
    let path = path.to_string_lossy();
    path.starts_with(META_RING) || path.starts_with(DATA_RING)
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// The groups of one ring file, whole ones only.
fn groups(path: &Path, bytes: &[u8]) -> Vec<Group> {
    let mut groups = Vec::new();
    for start in (0..bytes.len()).step_by(GROUP_ALIGNMENT) {
        let Some(header) = bytes.get(start..start + GROUP_HEADER) else { break };
        if &header[..4] != b"CHJ1" || u32_at(header, 4) != crc::crc32c(&header[8..]) as usize {
            continue;
        }
        let payload = start + GROUP_HEADER..start + GROUP_HEADER + u32_at(header, 32);
        if payload.end > bytes.len()
            || crc::crc32c(&bytes[payload.clone()]) != u32_at(header, 36) as u32
        {
            continue;
        }
        let mut records = BTreeMap::new();
        for at in record_starts(&bytes[payload.clone()], u32_at(header, 12)) {
            *records.entry(u32_at(bytes, payload.start + at + 4) as u32).or_default() += 1;
        }
        groups.push(Group {
            path: path.to_owned(),
            bytes: start..payload.end,
            sequence: u64_at(header, 24),
            records,
        });
    }
    groups
}

fn record_starts(payload: &[u8], count: usize) -> Vec<usize> {
    let mut starts = Vec::with_capacity(count);
    let mut at = 0;
    for _ in 0..count {
        starts.push(at);
        at = (at + RECORD_HEADER + u32_at(payload, at + 12)).next_multiple_of(8);
    }
    starts
}

/// Where the frames of a segment start; the last item is where they end.
fn frame_starts(bytes: &[u8]) -> Vec<usize> {
    let mut starts = vec![SEGMENT_PAGE];
    loop {
        let at = *starts.last().expect("never empty");
        if bytes.get(at..at + 3) != Some(b"CHW") || at + FRAME_HEADER > bytes.len() {
            return starts;
        }
        starts.push(at + FRAME_HEADER + u32_at(bytes, at + 36));
    }
}

impl<'a> Image<'a> {
    fn new(script: &'a Script, point: usize, others: &[usize]) -> Self {
        let at = |point| script.disk.crash(point, CrashPolicy::LoseUnsynced);
        let files = |point| at(point).files().into_iter().collect::<BTreeMap<_, _>>();
        let mut image = Self {
            script,
            point,
            disk: at(point),
            files: files(point),
            groups: BTreeMap::new(),
            others: others.iter().map(|other| (*other, files(*other))).collect(),
        };
        for lane in [META_RING, DATA_RING] {
            let is_of_lane = |path: &Path| path.to_string_lossy().starts_with(lane);
            let rings = image.files.iter().filter(|(path, _)| is_of_lane(path));
            let mut groups: Vec<Group> =
                rings.flat_map(|(path, bytes)| groups(path, bytes)).collect();
            groups.sort_by_key(|group| std::cmp::Reverse(group.sequence));
            image.groups.insert(lane, groups);
        }
        image
    }

    fn newest(&self, lane: &str) -> Option<&Group> {
        self.groups[lane].first()
    }

    fn harms(&self) -> Vec<(PathBuf, Harm)> {
        let mut harms = Vec::new();
        for (path, bytes) in &self.files {
            let mut add = |harm| harms.push((path.clone(), harm));
            add(Harm::Lose);
            for point in self.others.keys() {
                add(Harm::Swap { point: *point });
            }
            if is_segment(path) {
                add(Harm::Copy { number: 400 });
                add(Harm::Copy { number: 70_000 });
            }
            for length in self.cuts(path, bytes) {
                add(Harm::Cut { length });
            }
            for bit in self.flips(path, bytes) {
                add(Harm::Flip { bit });
            }
            if is_ring(path) || is_segment(path) {
                for size in [512, 4_096] {
                    for start in (0..bytes.len()).step_by(size) {
                        let block = start..(start + size).min(bytes.len());
                        add(Harm::Zero { block: block.clone() });
                        add(Harm::Garbage { block: block.clone() });
                        for point in self.others.keys() {
                            add(Harm::Stale { block: block.clone(), point: *point });
                        }
                        for from in [start.saturating_sub(size), start + size] {
                            if from != start && from + size <= bytes.len() {
                                add(Harm::Duplicate { block: block.clone(), from });
                            }
                        }
                    }
                }
            }
        }
        harms
    }

    /// True for what is looked at in every byte: the newest ring file of the data lane, and the
    /// last segment of the busiest log. Of the rest some bytes are.
    fn is_thorough(&self, path: &Path) -> bool {
        if self.script.seed != *SEEDS.start() {
            return false;
        }
        let is_newest = self.newest(DATA_RING).is_some_and(|newest| newest.path == path);
        let last = self.files.keys().rfind(|other| is_busiest(other));
        is_newest || last.is_some_and(|last| last == path)
    }

    fn cuts(&self, path: &Path, bytes: &[u8]) -> Vec<usize> {
        let stride = if self.is_thorough(path) { 1 } else { 89 };
        // A ring file is cut as far as it was written.
        let written = groups(path, bytes).iter().map(|group| group.bytes.end + 16).max();
        (0..written.unwrap_or(bytes.len()).min(bytes.len())).step_by(stride).collect()
    }

    /// Bits of headers, and one bit of some bytes of the rest.
    fn flips(&self, path: &Path, bytes: &[u8]) -> Vec<usize> {
        let mut headers: Vec<Range<usize>> = Vec::new();
        let rest;
        if is_ring(path) {
            let (mut start, mut end) = (bytes.len(), 0);
            for group in groups(path, bytes) {
                let payload = group.bytes.start + GROUP_HEADER..group.bytes.end;
                headers.push(group.bytes.start..payload.start);
                let count = u32_at(bytes, group.bytes.start + 12);
                for at in record_starts(&bytes[payload.clone()], count) {
                    let record = payload.start + at;
                    let has_frame = bytes[record] <= 2;
                    let size = RECORD_HEADER + if has_frame { FRAME_HEADER } else { 0 };
                    headers.push(record..record + size);
                }
                (start, end) = (start.min(group.bytes.start), end.max(group.bytes.end));
            }
            rest = start..end;
        } else if is_segment(path) {
            headers.push(0..SEGMENT_PAGE_USED);
            let starts = frame_starts(bytes);
            let end = *starts.last().expect("never empty");
            headers.extend(starts.iter().take(starts.len() - 1).map(|at| *at..at + FRAME_HEADER));
            rest = SEGMENT_PAGE_USED..end;
            // The footer, or the first bytes of what is preallocated.
            headers.push(end..(end + 100).min(bytes.len()));
        } else {
            headers.push(0..bytes.len());
            rest = 0..0;
        }
        let is_small = !is_ring(path) && !is_segment(path);
        let (stride, rest_stride) = match self.is_thorough(path) || is_small {
            true => (1, 1),
            false => (7, 23),
        };
        let in_header = |byte: &usize| headers.iter().any(|header| header.contains(byte));
        let rest = rest.filter(|byte| !in_header(byte)).step_by(rest_stride);
        let bits = headers.iter().flat_map(|header| header.start * 8..header.end * 8);
        bits.step_by(stride).chain(rest.map(|byte| byte * 8 + byte % 8)).collect()
    }

    fn check(&self, path: &Path, harm: &Harm, tally: &mut Tally) {
        let harmed = self.harmed(path, harm);
        let Some((disk, bytes)) = harmed else { return };
        let case = Case { seed: self.script.seed, point: self.point, path, harm: harm.clone() };
        let kind = match harm {
            Harm::Cut { .. } => "cut",
            Harm::Flip { .. } => "flipped bit",
            Harm::Zero { .. } | Harm::Garbage { .. } => "overwritten block",
            Harm::Stale { .. } | Harm::Duplicate { .. } => "stale or misplaced block",
            Harm::Lose | Harm::Swap { .. } | Harm::Copy { .. } => "lost, stale or extra file",
        };
        let mut silent = 0;
        tally.run(kind, case, || {
            let nth = bytes.start;
            self.judge(&disk, path, &bytes, &mut silent)?;
            if nth % WRITE_ON_STRIDE == 0 {
                // The verdict outlives what it was read from.
                let disk = disk.crash(disk.op_count(), CrashPolicy::LoseUnsynced);
                if let Ok(machine) = open(&disk) {
                    self.write_on(&machine);
                }
                let disk = disk.crash(disk.op_count(), CrashPolicy::LoseUnsynced);
                self.judge(&disk, path, &bytes, &mut silent)?;
            }
            Ok(())
        });
        tally.silent += silent;
    }

    /// Lets every log's owner store states until the journal has wrapped.
    fn write_on(&self, machine: &Machine) {
        for _ in 0..18 {
            for owner in machine.owners.values() {
                let mut log = owner.log.lock().unwrap();
                let state = log.log_state().clone();
                log.set_log_state(state);
                log.submit(0).expect("a state is taken even by a damaged log");
            }
            machine.commit().expect("the disk works");
        }
    }

    /// The disk with the harm done to it, and the bytes concerned; `None` if nothing changed.
    fn harmed(&self, path: &Path, harm: &Harm) -> Option<(MemoryDisk, Range<usize>)> {
        let disk = self.disk.snapshot();
        let old = &self.files[path];
        let mut new = old.clone();
        let concerned = match harm {
            Harm::Cut { length } => {
                new.truncate(*length);
                *length..old.len()
            }
            Harm::Flip { bit } => {
                new[bit / 8] ^= 1 << (bit % 8);
                bit / 8..bit / 8 + 1
            }
            Harm::Zero { block } => {
                new[block.clone()].fill(0);
                block.clone()
            }
            Harm::Garbage { block } => {
                let mut rng = SeededRng::new(block.start as u64);
                new[block.clone()].fill_with(|| rng.next_u64() as u8);
                block.clone()
            }
            Harm::Stale { block, point } => {
                let stale = self.others[point].get(path)?.get(block.clone())?;
                new[block.clone()].copy_from_slice(stale);
                block.clone()
            }
            Harm::Duplicate { block, from } => {
                new.copy_within(*from..*from + block.len(), block.start);
                block.clone()
            }
            Harm::Lose => {
                disk.lose(path);
                return Some((disk, 0..old.len()));
            }
            Harm::Swap { point } => match self.others[point].get(path) {
                Some(other) => {
                    new.clone_from(other);
                    0..old.len()
                }
                None => return None,
            },
            Harm::Copy { number } => {
                let directory = path.parent().expect("segments lie in a directory");
                disk.plant(
                    &directory.join(chronik_wal::layout::segment_name(*number)),
                    old.clone(),
                );
                return Some((disk, 0..0));
            }
        };
        if new == *old {
            return None;
        }
        disk.corrupt(path, |content| *content = new);
        Some((disk, concerned))
    }

    /// Nothing is lost in silence and nothing is invented.
    fn judge(
        &self,
        disk: &MemoryDisk,
        path: &Path,
        bytes: &Range<usize>,
        silent: &mut usize,
    ) -> Result<(), String> {
        let machine = match open(disk) {
            Ok(machine) => machine,
            Err(WalError::Damaged { .. } | WalError::UnknownFormat { .. }) => return Ok(()),
            Err(error) => return Err(format!("does not open: {error}")),
        };
        for (name, model) in &self.script.models {
            let found = machine.find(name);
            let fate = model.judge_damaged(self.point, found.as_ref());
            match fate.map_err(|wrong| format!("{name}: {wrong}"))? {
                Fate::Intact | Fate::Reported => {}
                Fate::Short { missing } => {
                    let lane = if name == META { META_RING } else { DATA_RING };
                    let id = machine.owners[name].log.lock().unwrap().identity().id.0;
                    // The newest groups, as far as they were hit.
                    let is_hit = |group: &&Group| {
                        group.path == path
                            && group.bytes.start < bytes.end
                            && bytes.start < group.bytes.end
                    };
                    let hit = self.groups[lane].iter().take_while(is_hit);
                    let in_groups: usize = hit.filter_map(|group| group.records.get(&id)).sum();
                    if in_groups == 0 || missing > in_groups {
                        return Err(format!("{name} lost {missing} frames in silence: {found:?}"));
                    }
                    *silent += 1;
                }
            }
        }
        Ok(())
    }
}
