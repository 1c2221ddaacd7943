//! The disk a server finds at its start: journal rings, segments, tables, states.
//!
//! The disk is that of a small machine that was killed in the middle of its work. Input: what
//! happened to it since, after a first byte that says in which form.
//!
//! ```text
//!  0  harms, 8 bytes each: kind, file, position 2, size 2, seed, unused
//!  1  a ring file, a segment or a table of segments, then its new content up to where it is zeros
//!  2  the same, with every checksum of the content made right
//!  3  the file, then what is other in it, 11 bytes each: position 2, width, value 8; with every
//!     checksum made right
//! ```
//!
//! Checked: opening and reading everything never panics, and holds memory that follows from the
//! size of the disk; a second start finds what the first one found of every log that is not
//! damaged, and no less of the others; what can be read after harms was written there. Whether
//! content with right checksums was written nobody can tell; of it only a log's own numbers must
//! be in order.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use chronik_common::{Lsn, Offset, Rng, SeededRng};
use chronik_record::crc;
use chronik_wal::frame::{FRAME_HEADER_SIZE, FrameHeader};
use chronik_wal::io::{CrashPolicy, Disk, MemoryDisk};
use chronik_wal::layout::{OFFSET_INDEX, segment_name};
use chronik_wal::{PartitionLog, ReadBuffers, ReadMode, ReadPlan, Verdict, WalError};

use self::common::model::{Entry, FoundLog, LogModel, Loss};
use self::common::world::{META, Machine, OS, World};
use crate::allocation;
use crate::{Seed, Target};

// The machine and the model of its logs that the tests of the log use.
#[path = "../../../crates/chronik-wal/tests/common/mod.rs"]
mod common;

pub(crate) const TARGET: Target = Target { name: "wal_recovery", run, seeds };

/// Bytes of one harm.
const HARM_SIZE: usize = 8;
/// Bytes of one other value.
const PATCH_SIZE: usize = 11;
/// More harms are no other kind of damage, only slower.
const HARMS_MAX: usize = 32;
/// Bytes of a sector: what is overwritten or stale comes in these.
const SECTOR: usize = 512;
/// Bytes of the machine's rings, whose files are made anew when they are missing.
const RING_BYTES: usize = 6 * (16 << 10);

/// Largest number of a frame, offset or group that is made right.
const NUMBER_MAX: u64 = i64::MAX as u64;

const GROUP_ALIGNMENT: usize = 4_096;
const GROUP_HEADER_SIZE: usize = 64;
const RECORD_HEADER_SIZE: usize = 32;
const SEGMENT_HEADER_SIZE: usize = 4_096;
const SEGMENT_HEADER_USED: usize = 80;
const FOOTER_SIZE: usize = 48;
const ENVELOPE_HEADER_SIZE: usize = 16;

static KILLED: LazyLock<Killed> = LazyLock::new(Killed::new);

/// A machine that was killed, and what is known about it.
struct Killed {
    disk: MemoryDisk,
    files: Vec<(PathBuf, Vec<u8>)>,
    /// Contents at an earlier time.
    earlier: BTreeMap<PathBuf, Vec<u8>>,
    models: BTreeMap<String, LogModel>,
    /// Disk operations of its life.
    point: usize,
}

impl Killed {
    fn new() -> Self {
        let memory = MemoryDisk::new();
        let disk: Arc<dyn Disk> = Arc::new(memory.clone());
        let mut world = World::new(&memory, disk).expect("an empty disk is opened");
        let half = live_half(&mut world);
        live_on(&mut world);
        let point = memory.op_count();
        let disk = memory.crash(point, CrashPolicy::KeepUnsynced);
        let machine = start(&disk.snapshot()).expect("an unharmed disk is opened");
        for (name, model) in &world.models {
            let found = model.judge(point, Loss::Process, machine.find(name).as_ref());
            found.unwrap_or_else(|wrong| panic!("{name}, unharmed: {wrong}"));
        }
        let earlier = memory.crash(half, CrashPolicy::LoseUnsynced).files().into_iter().collect();
        Self { files: disk.files(), disk, earlier, models: world.models, point }
    }
}

/// Three logs with sealed segments, snapshots, a truncation and a raised start; returns the
/// number of disk operations so far.
fn live_half(world: &mut World) -> usize {
    for name in ["a-0", "b-0", OS] {
        world.create(name);
    }
    for round in 0..12 {
        for name in ["a-0", "a-0", "b-0", OS, META] {
            world.append(name, 1 + round % 3, round * 23 % 170);
        }
        // One is large enough to go past the journal.
        if round == 4 {
            world.append("a-0", 2, 1_100);
        }
        world.commit();
        if round % 4 == 3 {
            world.checkpoint(round == 7);
        }
    }
    world.truncate("a-0", 3);
    for _ in 0..2 {
        world.raise_start("b-0");
        world.set_state("b-0");
        world.commit();
        world.checkpoint(false);
    }
    world.disk.op_count()
}

/// What follows is partly in segments and partly in the journal alone.
fn live_on(world: &mut World) {
    for round in 0..6 {
        for name in ["a-0", "b-0", OS, META] {
            world.append(name, 1, 40 + round * 11);
        }
        if round == 1 {
            world.truncate("b-0", 1);
            world.set_state("a-0");
            world.append("a-0", 1, 2_100);
        }
        world.commit();
        match round {
            2 => world.checkpoint(true),
            3 => world.write_behind(),
            _ => {}
        }
    }
}

fn run(input: &[u8]) {
    let Some((form, rest)) = input.split_first() else { return };
    let killed = &*KILLED;
    let disk = killed.disk.snapshot();
    if form % 4 == 0 {
        for harm in rest.chunks_exact(HARM_SIZE).take(HARMS_MAX) {
            Harm::decode(harm).inflict(killed, &disk);
        }
        check_harmed(killed, &disk);
        return;
    }
    let Some((file, rest)) = rest.split_first() else { return };
    let (path, old) = &killed.files[usize::from(*file) % killed.files.len()];
    if !(is_ring(path) || is_segment(path) || is_table(path)) {
        return;
    }
    let mut content = if form % 4 == 3 { patched(old, rest) } else { rest.to_vec() };
    if is_ring(path) && content.len() < old.len() {
        content.resize(old.len(), 0);
    }
    if form % 4 >= 2 {
        make_right(path, &mut content);
    }
    disk.corrupt(path, |bytes| *bytes = content);
    check_replaced(&disk);
}

/// `content` with other values in some places.
fn patched(content: &[u8], patches: &[u8]) -> Vec<u8> {
    let mut content = content.to_vec();
    for patch in patches.chunks_exact(PATCH_SIZE).take(HARMS_MAX) {
        let position = usize::from(u16::from_le_bytes([patch[0], patch[1]]));
        let value = &patch[3..3 + usize::from(patch[2] % 8 + 1)];
        if let Some(place) = content.get_mut(position..position + value.len()) {
            place.copy_from_slice(value);
        }
    }
    content
}

fn is_ring(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("lane"))
}

fn is_segment(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("segment"))
}

fn is_table(path: &Path) -> bool {
    path.ends_with(OFFSET_INDEX)
}

/// One thing that happened to a file.
struct Harm {
    kind: u8,
    file: usize,
    position: usize,
    size: usize,
    seed: u8,
}

impl Harm {
    fn decode(bytes: &[u8]) -> Self {
        let number = |at: usize| usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
        Self {
            kind: bytes[0],
            file: usize::from(bytes[1]),
            position: number(2),
            size: number(4),
            seed: bytes[6],
        }
    }

    fn inflict(&self, killed: &Killed, disk: &MemoryDisk) {
        let (path, old) = &killed.files[self.file % killed.files.len()];
        let directory = path.parent().expect("files lie in directories");
        let is_there = disk.exists(path);
        match self.kind % 10 {
            0 => disk.lose(path),
            // A second copy under another segment number.
            1 => disk.plant(&directory.join(segment_name(self.size as u64)), old.clone()),
            2 => match killed.earlier.get(path) {
                Some(earlier) => disk.plant(path, earlier.clone()),
                None => disk.lose(path),
            },
            _ if is_there => disk.corrupt(path, |bytes| self.change(killed, path, bytes)),
            _ => {}
        }
    }

    fn change(&self, killed: &Killed, path: &Path, bytes: &mut Vec<u8>) {
        let length = bytes.len();
        let start = self.position % length.max(1);
        let sector = start / SECTOR * SECTOR;
        let block = sector..length.min(sector + SECTOR * (1 + self.size % 8));
        let from = self.size / 8 * SECTOR;
        match self.kind % 10 {
            3 => bytes.truncate(start),
            4 => bytes.resize(length + self.size % 4_096, self.seed),
            5 if length > 0 => bytes[start] ^= 1 << (self.seed % 8),
            6 => bytes[block].fill(0),
            7 => {
                let mut rng = SeededRng::new(u64::from(self.seed));
                bytes[block].fill_with(|| rng.next_u64() as u8);
            }
            8 => {
                if let Some(stale) = killed.earlier.get(path).and_then(|old| old.get(block.clone()))
                {
                    bytes[block].copy_from_slice(stale);
                }
            }
            9 if from + block.len() <= length => {
                bytes.copy_within(from..from + block.len(), block.start);
            }
            _ => {}
        }
    }
}

/// Every log of the disk, or the reason for which a server does not start.
fn start(disk: &MemoryDisk) -> Option<Machine> {
    match Machine::open(Arc::new(disk.clone())) {
        Ok(machine) => Some(machine),
        Err(
            WalError::Damaged { .. }
            | WalError::UnknownFormat { .. }
            | WalError::ForeignDirectory(_),
        ) => None,
        Err(error) => panic!("a disk that works does not fail: {error}"),
    }
}

/// Looks at the disk as two starts would, within the memory that a disk of its size may cost.
///
/// The second finds the same of every log. Of a damaged one it may find more: the first may have
/// repaired, from the journal, a frame that hid those behind it.
fn look_twice<L: Look>(disk: &MemoryDisk, look: impl Fn(&Machine) -> BTreeMap<String, L>) {
    let bytes = disk.files().iter().map(|(_, bytes)| bytes.len()).sum();
    let found = allocation::assert_expanding(bytes, RING_BYTES, || {
        start(disk).map(|machine| look(&machine))
    });
    let Some(found) = found else { return };
    let again = start(disk).map(|machine| look(&machine)).expect("a second start is no worse");
    assert!(found.keys().eq(again.keys()), "{found:?}, then {again:?}");
    for (first, second) in found.values().zip(again.values()) {
        let may_differ =
            first.verdict() != Verdict::Ok && second.frames().starts_with(first.frames());
        assert!(first == second || may_differ, "{first:?}, then {second:?}");
    }
}

/// What a start finds of a log.
trait Look: PartialEq + fmt::Debug {
    type Frame: PartialEq;
    fn verdict(&self) -> Verdict;
    fn frames(&self) -> &[Self::Frame];
}

impl Look for FoundLog {
    type Frame = Entry;

    fn verdict(&self) -> Verdict {
        self.verdict
    }

    fn frames(&self) -> &[Entry] {
        &self.entries
    }
}

impl Look for Given {
    type Frame = FrameHeader;

    fn verdict(&self) -> Verdict {
        self.verdict
    }

    fn frames(&self) -> &[FrameHeader] {
        &self.frames
    }
}

fn check_harmed(killed: &Killed, disk: &MemoryDisk) {
    look_twice(disk, |machine| {
        let found = machine.find_all();
        for (name, log) in &found {
            let model = killed.models.get(name).unwrap_or_else(|| panic!("there was no {name}"));
            if let Err(wrong) = model.judge_damaged(killed.point, Some(log)) {
                panic!("{name}: {wrong}");
            }
        }
        found
    });
}

fn check_replaced(disk: &MemoryDisk) {
    look_twice(disk, |machine| {
        let logs = machine.owners.iter().map(|(name, owner)| {
            let log = owner.log.lock().expect("nobody panicked");
            (name.clone(), read(&log))
        });
        logs.collect()
    });
}

/// What a log gives, whoever wrote it.
#[derive(PartialEq, Debug)]
struct Given {
    verdict: Verdict,
    offsets: [Offset; 3],
    frames: Vec<FrameHeader>,
    batches: usize,
}

fn read(log: &PartitionLog) -> Given {
    let offsets = [log.log_start_offset(), log.flushed_offset(), log.log_end_offset()];
    assert!(offsets.is_sorted(), "log start, flushed, log end: {offsets:?}");
    let mut frames: Vec<FrameHeader> = Vec::new();
    let _ = log.replay(Lsn::FIRST, |header, body| {
        assert!(header.matches_body(body), "no unverified byte is handed out: {header:?}");
        frames.push(*header);
    });
    let mut batches = 0;
    let start = log.log_start_offset();
    for frame in frames.iter().filter(|frame| frame.next_offset() > start) {
        let bodies = match log.read(frame.base_offset.max(start), log.log_end_offset(), 1) {
            Ok(ReadPlan::Memory(bodies)) => bodies,
            Ok(ReadPlan::Segment(range)) => range
                .read(ReadMode::Blocking, &ReadBuffers::default())
                .ok()
                .flatten()
                .unwrap_or_default(),
            Ok(ReadPlan::Empty) | Err(_) => Vec::new(),
        };
        batches += bodies.len();
    }
    Given { verdict: log.verdict(), offsets, frames, batches }
}

/// Makes every checksum right that covers bytes of this file.
fn make_right(path: &Path, bytes: &mut [u8]) {
    if is_ring(path) {
        for start in (0..bytes.len()).step_by(GROUP_ALIGNMENT) {
            make_group_right(&mut bytes[start..]);
        }
    } else if is_segment(path) {
        make_segment_right(bytes);
    } else if bytes.len() >= ENVELOPE_HEADER_SIZE {
        let (header, payload) = bytes.split_at_mut(ENVELOPE_HEADER_SIZE);
        put_u32(header, 8, payload.len() as u32);
        put_u32(header, 12, crc::crc32c(payload));
    }
}

fn make_group_right(bytes: &mut [u8]) {
    // Nobody lives to write the last sequence, which has no successor.
    let is_group = bytes.len() >= GROUP_HEADER_SIZE
        && bytes.starts_with(b"CHJ1")
        && u64_at(bytes, 24) <= NUMBER_MAX;
    let Some(size) = is_group.then(|| u32_at(bytes, 32) as usize) else { return };
    let (header, rest) = bytes.split_at_mut(GROUP_HEADER_SIZE);
    if let Some(payload) = rest.get_mut(..size) {
        let mut at = 0;
        for _ in 0..u32_at(header, 12) {
            let Some(record) = payload.get(at..at + RECORD_HEADER_SIZE) else { break };
            let (kind, size) = (record[0], u32_at(record, 12) as usize);
            let body_at = at + RECORD_HEADER_SIZE;
            let Some(body) = payload.get_mut(body_at..body_at + size) else { break };
            if kind <= 2 && body.starts_with(b"CHW") && size >= FRAME_HEADER_SIZE {
                make_frame_right(body, 0);
            }
            at = (body_at + size).next_multiple_of(8);
        }
        put_u32(header, 36, crc::crc32c(payload));
    }
    put_u32(header, 4, crc::crc32c(&header[8..]));
}

/// `frame` is a header and what follows it.
fn make_frame_right(frame: &mut [u8], nonce: u32) {
    put_u32(frame, 48, nonce);
    let size = u32_at(frame, 36) as usize;
    if let Some(body) = frame.get(FRAME_HEADER_SIZE..).and_then(|rest| rest.get(..size)) {
        let checksum = crc::crc32c(body);
        put_u32(frame, 52, checksum);
    }
    let checksum = crc::crc32c(&frame[8..FRAME_HEADER_SIZE]);
    put_u32(frame, 4, checksum);
}

fn make_segment_right(bytes: &mut [u8]) {
    if bytes.len() < SEGMENT_HEADER_SIZE {
        return;
    }
    let checksum = crc::crc32c(&bytes[8..SEGMENT_HEADER_USED]);
    put_u32(bytes, 4, checksum);
    let nonce = u32_at(bytes, 68);
    let mut at = SEGMENT_HEADER_SIZE;
    while at + FRAME_HEADER_SIZE <= bytes.len() && bytes[at..].starts_with(b"CHW") {
        make_frame_right(&mut bytes[at..], nonce);
        at += FRAME_HEADER_SIZE + u32_at(bytes, at + 36) as usize;
    }
    let footer_at = bytes.len() - FOOTER_SIZE;
    let footer = &bytes[footer_at..];
    // What a footer says is believed once its checksum is right, impossible numbers included.
    let is_possible = u64_at(footer, 16) <= NUMBER_MAX
        && (u64_at(bytes, 56)..=NUMBER_MAX).contains(&u64_at(footer, 24));
    if footer.starts_with(b"CHF1") && is_possible {
        let frames_end = u32_at(bytes, footer_at + 40) as usize;
        if let Some(index) = bytes.get(frames_end..footer_at) {
            let checksum = crc::crc32c(index);
            put_u32(bytes, footer_at + 44, checksum);
        }
        let checksum = crc::extend(nonce, &bytes[footer_at + 8..]);
        put_u32(bytes, footer_at + 4, checksum);
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn seeds() -> Vec<Seed> {
    let killed = &*KILLED;
    let place = |end: &str| {
        let found = killed.files.iter().position(|(path, _)| path.ends_with(end));
        found.unwrap_or_else(|| panic!("{end} is among the files"))
    };
    let content = |end: &str| {
        let bytes = &killed.files[place(end)].1;
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        &bytes[..end]
    };
    let harm = |kind: u8, end: &str, position: u16, size: u16| {
        let (position, size) = (position.to_le_bytes(), size.to_le_bytes());
        let file = place(end) as u8;
        vec![kind, file, position[0], position[1], size[0], size[1], 5, 0]
    };
    let (ring, sealed, open) =
        ("journal/lane0_0.wal", "a-0/segment_000.wal", "a-0/segment_008.wal");
    let (table, states) = ("a-0/offset_index", "__meta/hardstate");
    let harms = [
        ("nothing-harmed", vec![]),
        ("states-lost", harm(0, states, 0, 0)),
        ("table-lost", harm(0, table, 0, 0)),
        ("segment-lost", harm(0, sealed, 0, 0)),
        ("ring-file-lost", harm(0, ring, 0, 0)),
        ("segment-twice", harm(1, open, 0, 9)),
        ("states-stale", harm(2, states, 0, 0)),
        ("segment-stale", harm(2, open, 0, 0)),
        ("segment-cut", harm(3, open, 4_700, 0)),
        ("segment-extended", harm(4, sealed, 0, 700)),
        ("bit-in-a-segment", harm(5, sealed, 4_170, 0)),
        ("bit-in-a-ring-file", harm(5, ring, 20, 0)),
        ("sector-of-zeros", harm(6, ring, 4_096, 0)),
        ("block-of-garbage", harm(7, open, 4_096, 3)),
        ("stale-sector", harm(8, ring, 0, 0)),
        ("misplaced-block", harm(9, ring, 4_096, 7)),
        ("two-harms", [harm(0, table, 0, 0), harm(3, sealed, 4_400, 0)].concat()),
    ];
    let harms = harms.into_iter().map(|(name, harms)| Seed::new(name, [vec![0], harms].concat()));
    let file = |form: u8, end: &str, content: &[u8]| [&[form, place(end) as u8], content].concat();
    let mut seeds: Vec<Seed> = harms.collect();
    // With each the position of a field: an epoch, or a number in the table.
    for (name, end, position) in [
        ("ring-file", ring, 16),
        ("meta-ring-file", "__meta/lane_0.wal", 4_096 + 64 + 32 + 12),
        ("sealed-segment", sealed, 64),
        ("open-segment", open, 4_096 + 12),
        ("segment-table", table, 20),
    ] {
        let position = u16::to_le_bytes(position);
        let patch = [position[0], position[1], 3, 9, 0, 0, 0, 0, 0, 0, 0];
        seeds.push(Seed::new(name, file(1, end, content(end))));
        seeds.push(Seed::new(format!("{name}-made-right"), file(2, end, content(end))));
        seeds.push(Seed::new(format!("{name}-with-another-value"), file(3, end, &patch)));
    }
    seeds
}
