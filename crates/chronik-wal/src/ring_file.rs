//! The files of a journal ring: their groups are written past the page cache, into space that was
//! filled with zeros before.
//!
//! ```text
//!  0          position                    written_to                file_bytes
//!  | groups   | zeros ...                 | reserved, never written |
//! ```
//!
//! A sync of reserved space changes the file system's own books, one of zeros only the device.
//! [`ZeroFill`] keeps the zeros ahead of the groups: on a thread of its own from the start on, and
//! on the commit thread if that one is faster. Zeros are only ever written at or above
//! `written_to`, groups only below it.
//!
//! The kernel tells of an error while it writes once to every open file. So [`ZeroFill`] has files
//! of its own: its syncs never take an error from the commit thread that is about a group.

use std::io::IoSlice;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tracing::warn;

use crate::io::{BLOCK_SIZE, BlockBuffer, Disk, DiskFile, DiskResult, OpenMode};

/// Zeros written at once ahead of the groups, in bytes: a sync that comes meanwhile waits for them.
const STEP_BYTES: u64 = 128 << 10;

/// Zeros that the commit thread writes at once where nobody was ahead of it, in bytes.
const LATE_STEP_BYTES: u64 = 1 << 20;

/// Pause between two steps in files that no group is written to yet: other writes come first.
const STEP_PAUSE: Duration = Duration::from_micros(600);

/// A file of a ring, as its commit thread sees it.
pub(crate) struct RingFile {
    file: Arc<dyn DiskFile>,
    zeros: Arc<Zeros>,
    /// At most `zeros.written_to`: what is known without its lock.
    ready_to: u64,
}

/// How far a file was written at least once.
struct Zeros {
    file_bytes: u64,
    /// Bytes below this were written. Held while zeros are written from there on.
    written_to: Mutex<u64>,
}

/// Fills the files of a ring with zeros, the one in use first.
pub(crate) struct ZeroFill {
    files: Vec<(Arc<dyn DiskFile>, Arc<Zeros>)>,
}

impl RingFile {
    /// Opens a file of `file_bytes`, whose bytes below `used_to` hold groups.
    pub(crate) fn open(
        disk: &dyn Disk,
        path: &Path,
        file_bytes: u64,
        used_to: u64,
    ) -> DiskResult<Self> {
        assert!(used_to <= file_bytes, "{used_to} of {file_bytes} bytes are in use");
        let file = disk.open(path, OpenMode::PastCache)?;
        // Only a hint: what was written above the groups need not be written again.
        let written_to = file.data_end(used_to).clamp(used_to, file_bytes);
        let zeros = Zeros { file_bytes, written_to: Mutex::new(written_to) };
        Ok(Self { file, zeros: Arc::new(zeros), ready_to: written_to })
    }

    /// Writes a group's bytes at `position` and makes them durable.
    pub(crate) fn write_group(&mut self, position: u64, group: &[u8]) -> DiskResult<()> {
        let end = position + group.len() as u64;
        if self.ready_to < end {
            self.ready_to = self.zeros.fill_to(end, &*self.file)?;
        }
        assert!(
            end <= self.ready_to && position.is_multiple_of(BLOCK_SIZE as u64),
            "a group from {position} to {end}, and zeros from {} on",
            self.ready_to
        );
        self.file.write_at(position, &mut [IoSlice::new(group)])?;
        self.file.sync()
    }

    /// Fills `files` from `current` on, around the ring.
    ///
    /// # Errors
    /// A file cannot be opened once more.
    pub(crate) fn zero_fill(
        disk: &dyn Disk,
        files: &[Self],
        current: usize,
    ) -> DiskResult<ZeroFill> {
        let (before, from) = files.split_at(current);
        let again = |file: &Self| {
            let zeros = Arc::clone(&file.zeros);
            Ok((disk.open(file.file.path(), OpenMode::PastCache)?, zeros))
        };
        let files = from.iter().chain(before).map(again).collect::<DiskResult<_>>()?;
        Ok(ZeroFill { files })
    }
}

impl Zeros {
    fn lock(&self) -> MutexGuard<'_, u64> {
        self.written_to.lock().expect("nobody panics while zeros are written")
    }

    /// Makes sure that everything below `end` was written; returns how far that is so.
    fn fill_to(&self, end: u64, file: &dyn DiskFile) -> DiskResult<u64> {
        assert!(end <= self.file_bytes, "a group ends at {end} of {} bytes", self.file_bytes);
        let mut written_to = self.lock();
        let mut zeros = BlockBuffer::default();
        while *written_to < end {
            self.step(&mut written_to, LATE_STEP_BYTES, file, &mut zeros)?;
        }
        Ok(*written_to)
    }

    /// Writes up to `bytes` zeros once; `false` if there is nothing left to write. `zeros` is empty
    /// or has that many.
    fn step(
        &self,
        written_to: &mut u64,
        bytes: u64,
        file: &dyn DiskFile,
        zeros: &mut BlockBuffer,
    ) -> DiskResult<bool> {
        let step = bytes.min(self.file_bytes - *written_to);
        if step == 0 {
            return Ok(false);
        }
        if zeros.is_empty() {
            zeros.extend_zeros(bytes as usize);
        }
        file.write_at(*written_to, &mut [IoSlice::new(&zeros[..step as usize])])?;
        *written_to += step;
        Ok(true)
    }
}

impl ZeroFill {
    /// Fills every file, until `is_stopped`. Blocks. A failed call ends it: nobody was told that
    /// these zeros are there. What it says about groups the commit thread hears by its own sync.
    pub(crate) fn run(self, is_stopped: impl Fn() -> bool) {
        if let Err(error) = self.fill(&is_stopped) {
            warn!(%error, "the journal is not filled with zeros ahead of its groups");
        }
    }

    fn fill(&self, is_stopped: &dyn Fn() -> bool) -> DiskResult<()> {
        let mut zeros = BlockBuffer::default();
        for (number, (file, zeroed)) in self.files.iter().enumerate() {
            let is_in_use = number == 0;
            loop {
                if is_stopped() {
                    return Ok(());
                }
                let has_more = zeroed.step(&mut zeroed.lock(), STEP_BYTES, &**file, &mut zeros)?;
                if !has_more {
                    break;
                }
                if is_in_use {
                    // Or the next group's sync would have to wait for what this step changed.
                    file.sync()?;
                } else {
                    std::thread::park_timeout(STEP_PAUSE);
                }
            }
            file.sync()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use chronik_common::{Rng, SeededRng};

    use super::*;
    use crate::io::MemoryDisk;

    const FILE_BYTES: u64 = 5 * STEP_BYTES / 2;

    fn ring_file(disk: &MemoryDisk, used_to: u64) -> RingFile {
        let path = Path::new("/lane0_0.wal");
        let file = disk.open(path, OpenMode::ReadWrite).unwrap();
        file.set_length(FILE_BYTES).unwrap();
        RingFile::open(disk, path, FILE_BYTES, used_to).unwrap()
    }

    fn fill(disk: &MemoryDisk, file: &RingFile, is_stopped: impl Fn() -> bool) {
        RingFile::zero_fill(disk, std::slice::from_ref(file), 0).unwrap().run(is_stopped);
    }

    fn content(file: &RingFile) -> Vec<u8> {
        let mut content = vec![9; FILE_BYTES as usize];
        assert_eq!(file.file.read_at(0, &mut content).unwrap() as u64, FILE_BYTES);
        content
    }

    #[test]
    fn zeros_never_touch_a_group() {
        let disk = MemoryDisk::default();
        let mut file = ring_file(&disk, 0);
        let groups: Vec<(u64, Vec<u8>)> = (0..3_u8)
            .map(|number| (u64::from(number) * STEP_BYTES / 2, vec![number + 1; 8_192]))
            .collect();
        for (position, group) in &groups[..2] {
            file.write_group(*position, group).unwrap();
        }
        fill(&disk, &file, || false);
        file.write_group(groups[2].0, &groups[2].1).unwrap();
        let mut expected = vec![0; FILE_BYTES as usize];
        for (position, group) in &groups {
            let position = *position as usize;
            expected[position..position + group.len()].copy_from_slice(group);
        }
        assert!(content(&file) == expected);
        assert_eq!(*file.zeros.lock(), FILE_BYTES);
    }

    #[test]
    fn steps_of_both_sides_in_any_order_keep_every_group() {
        for seed in 0..50 {
            let mut rng = SeededRng::new(seed);
            let disk = MemoryDisk::default();
            let mut file = ring_file(&disk, 0);
            let other = disk.open(Path::new("/lane0_0.wal"), OpenMode::PastCache).unwrap();
            let (mut zeros, mut expected) = (BlockBuffer::default(), Vec::new());
            while expected.len() as u64 + 300_000 < FILE_BYTES {
                if rng.below(4) == 0 {
                    let side = Arc::clone(&file.zeros);
                    side.step(&mut side.lock(), STEP_BYTES, &*other, &mut zeros).unwrap();
                } else {
                    let blocks = 1 + rng.below(70) as usize;
                    let group = vec![1 + rng.below(255) as u8; blocks * BLOCK_SIZE];
                    file.write_group(expected.len() as u64, &group).unwrap();
                    expected.extend(group);
                }
            }
            let found = content(&file);
            assert!(found[..expected.len()] == expected, "seed {seed}");
            assert!(found[expected.len()..].iter().all(|byte| *byte == 0), "seed {seed}");
        }
    }

    #[test]
    fn groups_of_an_earlier_life_are_kept_and_a_stop_ends_the_filling() {
        let disk = MemoryDisk::default();
        let mut file = ring_file(&disk, 0);
        file.write_group(0, &[7; 4_096]).unwrap();
        let again = RingFile::open(&disk, Path::new("/lane0_0.wal"), FILE_BYTES, 4_096).unwrap();
        assert_eq!(*again.zeros.lock(), 4_096, "zeros of the memory disk count as reserved");
        fill(&disk, &again, || true);
        assert_eq!(*again.zeros.lock(), 4_096);
        fill(&disk, &again, || false);
        assert_eq!(content(&again)[..4_096], [7; 4_096]);
    }

    #[test]
    fn the_file_in_use_is_filled_first() {
        let disk = MemoryDisk::default();
        let files: Vec<RingFile> = (0..3)
            .map(|number| {
                let path = format!("/lane0_{number}.wal");
                let path = Path::new(&path);
                disk.open(path, OpenMode::ReadWrite).unwrap().set_length(FILE_BYTES).unwrap();
                RingFile::open(&disk, path, FILE_BYTES, 0).unwrap()
            })
            .collect();
        let fill = RingFile::zero_fill(&disk, &files, 1).unwrap();
        let names: Vec<_> = fill.files.iter().map(|(file, _)| file.path().to_owned()).collect();
        assert_eq!(names, ["/lane0_1.wal", "/lane0_2.wal", "/lane0_0.wal"].map(Path::new));
    }
}
