//! What the disk allows: the bytes of a load in groups as a group commit would form them, written
//! to a zero-filled file and synced, by one thread and without a broker.
//!
//! A group has half of the messages that tasks keep under way: while one half is being synced,
//! the other half arrives. `os` durability writes without syncing.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::thread;

use chronik_common::{OsRng, Rng};

use crate::batch_template::{BatchTemplate, KEY_BYTES, MessageShape};
use crate::clock::RunClock;
use crate::failure::Failure;
use crate::plan::Plan;
use crate::produce_load::schedule_of;
use crate::recorder::Recorder;
use crate::reporter::{Display, Reporter};
use crate::series::Series;

/// Size of the file, as one journal file of the server.
const FILE_BYTES: u64 = 64 << 20;

/// Journals are written in whole blocks.
const BLOCK_BYTES: usize = 4 << 10;

/// Largest group, as in the server.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// Bytes around one request in a journal: batch header and frame header.
const REQUEST_BYTES: usize = 61 + 64;

/// Bytes around one message in a batch.
const MESSAGE_BYTES: usize = KEY_BYTES + 8;

/// A file that is gone at the end.
#[derive(Debug)]
pub struct FloorFile {
    file: File,
    path: PathBuf,
    size: u64,
}

impl FloorFile {
    /// A zero-filled file of `size` bytes in `directory`, on stable storage.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn create(directory: &Path, size: u64) -> Result<Self, Failure> {
        let name = format!("chronik-bench-{}-{:x}.floor", std::process::id(), OsRng.next_u64());
        let path = directory.join(name);
        let failed = |source| Failure::File { action: "write", path: path.clone(), source };
        let file = OpenOptions::new().create_new(true).write(true).open(&path).map_err(failed)?;
        let this = Self { file, path: path.clone(), size };
        let zeroes = vec![0; 1 << 20];
        for position in (0..size).step_by(zeroes.len()) {
            let count = (size - position).min(zeroes.len() as u64) as usize;
            this.file.write_all_at(&zeroes[..count], position).map_err(failed)?;
        }
        this.file.sync_all().map_err(failed)?;
        Ok(this)
    }

    /// Writes `bytes` at `position`, and syncs them if asked to.
    ///
    /// # Errors
    /// Those of the file.
    pub fn write(&self, bytes: &[u8], position: u64, syncs: bool) -> io::Result<()> {
        self.file.write_all_at(bytes, position)?;
        if syncs { self.file.sync_data() } else { Ok(()) }
    }

    /// Size of the file, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl Drop for FloorFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Messages of one group and its bytes, for the load of `plan`.
#[must_use]
pub fn group_of(plan: &Plan) -> (u32, usize) {
    let flags = &plan.flags;
    let value_bytes = flags.message_size as usize;
    let under_way = flags.concurrency.saturating_mul(flags.additions.in_flight);
    let per_request = if plan.shares_requests() {
        let shape = MessageShape {
            value_bytes,
            keys: flags.key_pattern,
            payload: flags.payload_pattern,
            codec: flags.compression,
            run: 0,
            writer: 0,
        };
        BatchTemplate::messages_within(shape, flags.batch_size as usize).min(under_way)
    } else {
        1
    };
    let bytes_of = |messages: usize| {
        let requests = messages.div_ceil(per_request as usize);
        messages * (value_bytes + MESSAGE_BYTES) + requests * REQUEST_BYTES
    };
    let mut messages = (under_way / 2).max(1);
    while messages > 1 && bytes_of(messages as usize) > GROUP_BYTES_MAX {
        messages /= 2;
    }
    (messages, bytes_of(messages as usize).next_multiple_of(BLOCK_BYTES))
}

/// Writes groups for the time of `plan` in `directory`.
///
/// # Errors
/// If the file cannot be written.
pub fn run_journal_floor(
    plan: &Plan,
    directory: &Path,
    syncs: bool,
    display: Display,
) -> Result<Series, Failure> {
    let (messages, bytes) = group_of(plan);
    let file = FloorFile::create(directory, FILE_BYTES)?;
    let clock = RunClock::start();
    let schedule = schedule_of(plan, clock, 0);
    let (reports, received) = channel();
    let reporter = Reporter::new(1, schedule, None, display);
    let value_bytes = u64::from(plan.flags.message_size) * u64::from(messages);
    let body = move || -> io::Result<()> {
        let mut recorder = Recorder::new(0, schedule, schedule.start, reports);
        let group = vec![0x5a; bytes];
        let mut position = 0;
        thread::sleep(schedule.start.since(clock.now()));
        loop {
            let started = clock.now();
            recorder.turn(started);
            if started >= schedule.measure_until {
                break;
            }
            if position + bytes as u64 > file.size() {
                position = 0;
            }
            file.write(&group, position, syncs)?;
            position += bytes as u64;
            recorder.success(clock.now(), started, messages, value_bytes);
            recorder.request();
        }
        recorder.finish();
        Ok(())
    };
    let thread = thread::Builder::new().name("journal-floor".to_owned());
    let thread = thread.spawn(body).map_err(Failure::system("start a thread"))?;
    let series = reporter.run(&received);
    thread.join().expect("the floor does not panic").map_err(Failure::system("sync the file"))?;
    Ok(series)
}
