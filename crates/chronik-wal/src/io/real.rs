//! The machine's file system through plain system calls, visible to fault injection.
#![allow(clippy::disallowed_methods, reason = "this file is where the log meets std::fs")]

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{
    BLOCK_SIZE, DirectoryEntry, Disk, DiskCall, DiskError, DiskFile, DiskResult, DiskSpace,
    OpenMode,
};

/// Most slices one `pwritev` takes on Linux (`IOV_MAX`).
const SLICES_PER_WRITE_MAX: usize = 1_024;

/// The file system of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

struct RealFile {
    file: File,
    /// The same file without the page cache.
    past_cache: Option<File>,
    path: PathBuf,
}

/// The file without the page cache, if its file system offers that.
#[cfg(target_os = "linux")]
fn open_past_cache(path: &Path) -> Option<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = rustix::fs::OFlags::DIRECT.bits();
    OpenOptions::new().write(true).custom_flags(flags.cast_signed()).open(path).ok()
}

#[cfg(not(target_os = "linux"))]
fn open_past_cache(_path: &Path) -> Option<File> {
    None
}

/// True if a write may go past the page cache.
fn is_in_blocks(slices: &[IoSlice<'_>], position: u64) -> bool {
    let is_block = |number: u64| number.is_multiple_of(BLOCK_SIZE as u64);
    matches!(slices, [slice] if is_block(slice.len() as u64)
        && is_block(slice.as_ptr() as u64)
        && is_block(position))
}

fn tag(call: DiskCall, path: &Path) -> impl FnOnce(io::Error) -> DiskError + '_ {
    move |source| DiskError::new(call, path, source)
}

fn missing_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> DiskResult<Arc<dyn DiskFile>> {
        let write = mode != OpenMode::Read;
        let file = OpenOptions::new()
            .read(true)
            .write(write)
            .create(write)
            .truncate(false)
            .open(path)
            .map_err(tag(DiskCall::Open, path))?;
        let past_cache = (mode == OpenMode::PastCache).then(|| open_past_cache(path)).flatten();
        Ok(Arc::new(RealFile { file, past_cache, path: path.to_owned() }))
    }

    fn create_directory(&self, path: &Path) -> DiskResult<()> {
        std::fs::create_dir_all(path).map_err(tag(DiskCall::CreateDirectory, path))
    }

    fn remove_file(&self, path: &Path) -> DiskResult<()> {
        missing_is_fine(std::fs::remove_file(path)).map_err(tag(DiskCall::Remove, path))
    }

    fn remove_directory(&self, path: &Path) -> DiskResult<()> {
        missing_is_fine(std::fs::remove_dir_all(path)).map_err(tag(DiskCall::Remove, path))
    }

    fn rename(&self, from: &Path, to: &Path) -> DiskResult<()> {
        std::fs::rename(from, to).map_err(tag(DiskCall::Rename, from))
    }

    fn sync_directory(&self, path: &Path) -> DiskResult<()> {
        File::open(path)
            .and_then(|directory| directory.sync_all())
            .map_err(tag(DiskCall::SyncDirectory, path))
    }

    fn list(&self, path: &Path) -> DiskResult<Vec<DirectoryEntry>> {
        let entries = match std::fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(DiskError::new(DiskCall::List, path, error)),
        };
        let mut listing = Vec::new();
        for entry in entries {
            let entry = entry.map_err(tag(DiskCall::List, path))?;
            let is_directory = entry.file_type().map_err(tag(DiskCall::List, path))?.is_dir();
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry.file_name().into_string() {
                listing.push(DirectoryEntry { name, is_directory });
            }
        }
        listing.sort();
        Ok(listing)
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn space(&self, path: &Path) -> DiskResult<DiskSpace> {
        let stat = rustix::fs::statvfs(path)
            .map_err(|error| DiskError::new(DiskCall::Read, path, error.into()))?;
        Ok(DiskSpace {
            free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
            total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
        })
    }
}

impl DiskFile for RealFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> DiskResult<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], position + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(DiskError::new(DiskCall::Read, &self.path, error)),
            }
        }
        Ok(filled)
    }

    #[cfg(target_os = "linux")]
    fn read_cached_at(&self, position: u64, buffer: &mut [u8]) -> DiskResult<Option<usize>> {
        use rustix::io::{Errno, ReadWriteFlags, preadv2};
        let mut filled = 0;
        while filled < buffer.len() {
            let mut slices = [io::IoSliceMut::new(&mut buffer[filled..])];
            let at = position + filled as u64;
            match preadv2(&self.file, &mut slices, at, ReadWriteFlags::NOWAIT) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(None),
                Err(error) => {
                    return Err(DiskError::new(DiskCall::Read, &self.path, error.into()));
                }
            }
        }
        Ok(Some(filled))
    }

    #[cfg(not(target_os = "linux"))]
    fn read_cached_at(&self, _position: u64, _buffer: &mut [u8]) -> DiskResult<Option<usize>> {
        Ok(None)
    }

    fn write_at(&self, mut position: u64, slices: &mut [IoSlice<'_>]) -> DiskResult<()> {
        let mut rest: &mut [IoSlice<'_>] = slices;
        IoSlice::advance_slices(&mut rest, 0);
        let mut past_cache = self.past_cache.as_ref();
        while !rest.is_empty() {
            let batch = &rest[..rest.len().min(SLICES_PER_WRITE_MAX)];
            let direct = past_cache.filter(|_| is_in_blocks(batch, position));
            match rustix::io::pwritev(direct.unwrap_or(&self.file), batch, position) {
                // Nothing was written: this device has larger blocks.
                Err(rustix::io::Errno::INVAL) if direct.is_some() => past_cache = None,
                Ok(0) => {
                    let error = io::ErrorKind::WriteZero.into();
                    return Err(DiskError::new(DiskCall::Write, &self.path, error));
                }
                Ok(written) => {
                    position += written as u64;
                    IoSlice::advance_slices(&mut rest, written);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    return Err(DiskError::new(DiskCall::Write, &self.path, error.into()));
                }
            }
        }
        Ok(())
    }

    fn sync(&self) -> DiskResult<()> {
        // EINTR is not a verdict about the data: the call is simply made again.
        loop {
            match self.file.sync_data() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other.map_err(tag(DiskCall::Sync, &self.path)),
            }
        }
    }

    fn set_length(&self, length: u64) -> DiskResult<()> {
        self.file.set_len(length).map_err(tag(DiskCall::SetLength, &self.path))
    }

    fn allocate(&self, position: u64, length: u64) -> DiskResult<()> {
        #[cfg(target_os = "linux")]
        {
            use rustix::fs::{FallocateFlags, fallocate};
            use rustix::io::Errno;
            match fallocate(&self.file, FallocateFlags::empty(), position, length) {
                // A file system without fallocate grows the file as it is written.
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
                Err(error) => {
                    return Err(DiskError::new(DiskCall::Allocate, &self.path, error.into()));
                }
            }
        }
        let _ = (position, length);
        Ok(())
    }

    fn length(&self) -> DiskResult<u64> {
        Ok(self.file.metadata().map_err(tag(DiskCall::Read, &self.path))?.len())
    }

    fn data_end(&self, position: u64) -> u64 {
        // Nothing reads or writes at the file's cursor, so moving it disturbs nobody.
        #[cfg(target_os = "linux")]
        if let Ok(hole) = rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Hole(position)) {
            return hole.max(position);
        }
        self.length().unwrap_or(u64::MAX).max(position)
    }
}
