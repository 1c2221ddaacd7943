//! The seam to storage: every file the log touches is reached through [`Disk`] and
//! [`DiskFile`].
//!
//! Three implementations: [`RealDisk`] (system calls), [`MemoryDisk`] (RAM, remembers every
//! operation so that crash states can be enumerated) and [`FaultyDisk`] (wraps another disk and
//! fails chosen calls). Nothing here retries a failed sync; what a failure means is decided by
//! the caller (STOP: a failed write or sync is final for its log).
//!
//! All calls block. They belong on commit threads and background workers.

mod block_buffer;
mod faulty;
mod memory;
mod real;

use std::fmt;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use block_buffer::BlockBuffer;
pub use faulty::{Fault, FaultyDisk};
pub use memory::{CrashPolicy, CrashTimeline, DiskOp, MemoryDisk};
pub use real::RealDisk;

/// Which system call a [`DiskError`] is about.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DiskCall {
    /// Opening or creating a file.
    Open,
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Making a file's content durable.
    Sync,
    /// Making a directory's entries durable.
    SyncDirectory,
    /// Changing a file's length.
    SetLength,
    /// Reserving space.
    Allocate,
    /// Renaming a file or directory.
    Rename,
    /// Removing a file or directory.
    Remove,
    /// Creating a directory.
    CreateDirectory,
    /// Listing a directory.
    List,
}

impl fmt::Display for DiskCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Read => "read",
            Self::Write => "write",
            Self::Sync => "fdatasync",
            Self::SyncDirectory => "fsync of directory",
            Self::SetLength => "ftruncate",
            Self::Allocate => "fallocate",
            Self::Rename => "rename",
            Self::Remove => "remove",
            Self::CreateDirectory => "mkdir",
            Self::List => "readdir",
        })
    }
}

/// A failed disk call: which file, which call, what the operating system said.
#[derive(Debug, thiserror::Error)]
#[error("{call} of {} failed: {source}", path.display())]
pub struct DiskError {
    /// The call that failed.
    pub call: DiskCall,
    /// The file or directory.
    pub path: PathBuf,
    /// The operating system's reason.
    pub source: io::Error,
}

impl DiskError {
    /// Tags an error of the operating system with its call and path.
    pub fn new(call: DiskCall, path: &Path, source: io::Error) -> Self {
        Self { call, path: path.to_owned(), source }
    }

    /// True if the device or a quota is full.
    #[must_use]
    pub fn is_out_of_space(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

/// How a file is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenMode {
    /// Existing file, reads only.
    Read,
    /// Existing or new file, reads and writes.
    ReadWrite,
    /// The same. Writes of one slice that is whole blocks, at a block's position and from a
    /// block's address, go to the device and leave nothing in the page cache, where the platform
    /// can do that; others go through the page cache. What a read returns is the same.
    PastCache,
}

/// Bytes of a block of a device, or a multiple of them.
pub const BLOCK_SIZE: usize = 4_096;

/// One entry of a directory listing.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct DirectoryEntry {
    /// File name without its directory.
    pub name: String,
    /// True for a directory.
    pub is_directory: bool,
}

/// Free and total space of a file system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiskSpace {
    /// Bytes an unprivileged process may still write.
    pub free_bytes: u64,
    /// Size of the file system.
    pub total_bytes: u64,
}

/// Result of a disk call.
pub type DiskResult<T> = Result<T, DiskError>;

/// A file system as the log needs it.
pub trait Disk: Send + Sync + 'static {
    /// Opens a file; in all modes but [`OpenMode::Read`] creates it empty when it does not exist. A
    /// created file's directory entry is durable only after [`Disk::sync_directory`].
    fn open(&self, path: &Path, mode: OpenMode) -> DiskResult<Arc<dyn DiskFile>>;
    /// Creates a directory and its missing parents.
    fn create_directory(&self, path: &Path) -> DiskResult<()>;
    /// Removes a file. Missing is not an error.
    fn remove_file(&self, path: &Path) -> DiskResult<()>;
    /// Removes a directory and everything below it. Missing is not an error.
    fn remove_directory(&self, path: &Path) -> DiskResult<()>;
    /// Renames a file or directory, replacing a file of the new name.
    fn rename(&self, from: &Path, to: &Path) -> DiskResult<()>;
    /// Makes the entries of a directory durable.
    fn sync_directory(&self, path: &Path) -> DiskResult<()>;
    /// Entries of a directory, sorted by name; empty when the directory does not exist.
    fn list(&self, path: &Path) -> DiskResult<Vec<DirectoryEntry>>;
    /// True if a file or directory exists.
    fn exists(&self, path: &Path) -> bool;
    /// Space of the file system that holds `path`.
    fn space(&self, path: &Path) -> DiskResult<DiskSpace>;
}

/// An open file.
pub trait DiskFile: Send + Sync + 'static {
    /// The path it was opened under, for messages.
    fn path(&self) -> &Path;
    /// Fills as much of `buffer` as the file has from `position`; fewer bytes than asked means
    /// end of file.
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> DiskResult<usize>;
    /// Like [`DiskFile::read_at`] but only from memory: `None` when the call would wait for the
    /// device, or when the platform cannot tell.
    fn read_cached_at(&self, position: u64, buffer: &mut [u8]) -> DiskResult<Option<usize>>;
    /// Writes all slices one after the other from `position`. An interrupted or short write is
    /// continued. Not durable before [`DiskFile::sync`].
    fn write_at(&self, position: u64, slices: &mut [IoSlice<'_>]) -> DiskResult<()>;
    /// Makes content and length durable (`fdatasync`).
    fn sync(&self) -> DiskResult<()>;
    /// Cuts or extends (with zeros) the file.
    fn set_length(&self, length: u64) -> DiskResult<()>;
    /// Reserves space for `length` bytes from `position` without changing what reads return
    /// below the current length; extends the file with zeros.
    fn allocate(&self, position: u64, length: u64) -> DiskResult<()>;
    /// Current length.
    fn length(&self) -> DiskResult<u64>;
    /// Where space that was only reserved begins at or behind `position`; the file's length if
    /// nobody knows. Only a hint how much is worth reading at once, and what need not be filled
    /// with zeros again: file systems may report zeros as reserved, and some report data that they
    /// have not stored yet.
    fn data_end(&self, position: u64) -> u64;
}

/// Reads a whole file; `None` when it does not exist. Files above `limit` bytes are refused
/// with [`io::ErrorKind::FileTooLarge`].
pub fn read_file(disk: &dyn Disk, path: &Path, limit: u64) -> DiskResult<Option<Vec<u8>>> {
    if !disk.exists(path) {
        return Ok(None);
    }
    let file = disk.open(path, OpenMode::Read)?;
    let length = file.length()?;
    if length > limit {
        return Err(DiskError::new(DiskCall::Read, path, io::ErrorKind::FileTooLarge.into()));
    }
    let mut content = vec![0; length as usize];
    let read = file.read_at(0, &mut content)?;
    content.truncate(read);
    Ok(Some(content))
}

/// Replaces a small file so that a crash leaves either the old or the new content: write a
/// temporary file, sync it, rename it, sync the directory.
pub fn replace_file(disk: &dyn Disk, path: &Path, content: &[u8]) -> DiskResult<()> {
    let temporary = path.with_extension("tmp");
    let file = disk.open(&temporary, OpenMode::ReadWrite)?;
    file.set_length(0)?;
    file.write_at(0, &mut [IoSlice::new(content)])?;
    file.sync()?;
    disk.rename(&temporary, path)?;
    disk.sync_directory(path.parent().expect("every file of the log lies in a directory"))
}
