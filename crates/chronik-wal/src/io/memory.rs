//! A file system in RAM that remembers every operation, so that a test can ask what the disk
//! may look like after a crash at any of them.
//!
//! The crash model is the strict POSIX one: a write is durable after the next sync of its file;
//! a created, renamed or removed name is durable after the next sync of its directory. What was
//! not synced may be there, be missing, or be torn, as the [`CrashPolicy`] says.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::{DirectoryEntry, Disk, DiskCall, DiskError, DiskFile, DiskResult, DiskSpace, OpenMode};

type Inode = usize;

/// Something done to the disk that a crash may undo.
#[derive(Clone, Debug)]
pub enum DiskOp {
    /// A name was bound to a new, empty file.
    Create {
        /// The new name.
        path: PathBuf,
        /// The file.
        inode: usize,
    },
    /// Bytes were written.
    Write {
        /// The file.
        inode: usize,
        /// First byte.
        position: u64,
        /// The bytes.
        data: Arc<[u8]>,
    },
    /// A file was cut or extended with zeros.
    SetLength {
        /// The file.
        inode: usize,
        /// Its new length.
        length: u64,
    },
    /// A file's content became durable.
    Sync {
        /// The file.
        inode: usize,
    },
    /// A name moved, replacing another.
    Rename {
        /// Old name.
        from: PathBuf,
        /// New name.
        to: PathBuf,
    },
    /// A name was removed.
    Remove {
        /// The name.
        path: PathBuf,
    },
    /// A directory's entries became durable.
    SyncDirectory {
        /// The directory.
        path: PathBuf,
    },
}

impl DiskOp {
    fn is_write(&self) -> bool {
        matches!(self, Self::Write { .. } | Self::SetLength { .. })
    }
}

/// What happens to operations that no sync covers when the machine stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CrashPolicy {
    /// All of them reached the disk (also: the process was killed, the machine was not).
    KeepUnsynced,
    /// None of them did.
    LoseUnsynced,
    /// All did but the n-th unsynced write (counted from 0).
    LoseWrite(usize),
    /// None did but the n-th unsynced write.
    KeepOnlyWrite(usize),
    /// All earlier ones did; of the last unsynced write only the 512-byte sectors whose bit is
    /// set in the mask (sectors from 64 on follow bit 63).
    TearLastWrite(u64),
    /// All writes did; no unsynced name change did.
    LoseNames,
}

#[derive(Default)]
struct State {
    files: Vec<Arc<Mutex<Vec<u8>>>>,
    names: BTreeMap<PathBuf, Inode>,
    directories: std::collections::BTreeSet<PathBuf>,
    /// What the operations start from: a disk that survived a crash.
    base_names: BTreeMap<PathBuf, Inode>,
    base_files: Vec<Vec<u8>>,
    ops: Vec<DiskOp>,
}

/// A file system in RAM. Clones share it.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

struct MemoryFile {
    path: PathBuf,
    inode: Inode,
    content: Arc<Mutex<Vec<u8>>>,
    state: Arc<Mutex<State>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder of the memory disk panics")
}

fn write_into(content: &mut Vec<u8>, position: u64, data: &[u8]) {
    let end = position as usize + data.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[position as usize..end].copy_from_slice(data);
}

impl MemoryDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of operations so far: the crash points.
    #[must_use]
    pub fn op_count(&self) -> usize {
        lock(&self.state).ops.len()
    }

    /// Everything done so far, in order.
    #[must_use]
    pub fn ops(&self) -> Vec<DiskOp> {
        lock(&self.state).ops.clone()
    }

    /// Unsynced writes at crash point `at`: how many variants `LoseWrite` has there.
    #[must_use]
    pub fn unsynced_writes(&self, at: usize) -> usize {
        unsynced(&lock(&self.state).ops[..at]).into_iter().filter(|(_, write)| *write).count()
    }

    /// The disk as a restart would find it after a crash behind the first `at` operations.
    #[must_use]
    pub fn crash(&self, at: usize, policy: &CrashPolicy) -> Self {
        let state = lock(&self.state);
        let ops = &state.ops[..at];
        let pending = unsynced(ops);
        let writes: Vec<usize> =
            pending.iter().filter(|(_, write)| *write).map(|(index, _)| *index).collect();
        let mut survivor = State {
            directories: state.directories.clone(),
            names: state.base_names.clone(),
            files: state
                .base_files
                .iter()
                .cloned()
                .map(|file| Arc::new(Mutex::new(file)))
                .collect(),
            ..State::default()
        };
        for (index, op) in ops.iter().enumerate() {
            let is_pending = pending.iter().any(|(pending, _)| *pending == index);
            let mut op = op.clone();
            if is_pending {
                let nth = writes.iter().position(|write| *write == index);
                let keep = match (policy, nth) {
                    (CrashPolicy::KeepUnsynced, _) => true,
                    (CrashPolicy::LoseUnsynced, _) => false,
                    (CrashPolicy::LoseWrite(lost), Some(nth)) => nth != *lost,
                    (CrashPolicy::KeepOnlyWrite(kept), Some(nth)) => nth == *kept,
                    (CrashPolicy::TearLastWrite(mask), Some(nth)) => {
                        if nth + 1 == writes.len() {
                            apply_torn(&mut survivor, &op, *mask);
                            false
                        } else {
                            true
                        }
                    }
                    (CrashPolicy::LoseNames, None) => false,
                    (CrashPolicy::LoseNames, Some(_)) => true,
                    (_, None) => true,
                };
                if !keep {
                    // The file itself must exist for later writes; only its name is lost.
                    if let DiskOp::Create { inode, .. } = op {
                        op = DiskOp::Create { path: PathBuf::new(), inode };
                    } else {
                        continue;
                    }
                }
            }
            apply(&mut survivor, &op);
        }
        survivor.names.remove(Path::new(""));
        survivor.base_names = survivor.names.clone();
        survivor.base_files = survivor.files.iter().map(|file| lock(file).clone()).collect();
        Self { state: Arc::new(Mutex::new(survivor)) }
    }

    /// A copy without history, for tests that damage bytes.
    #[must_use]
    pub fn snapshot(&self) -> Self {
        self.crash(self.op_count(), &CrashPolicy::KeepUnsynced)
    }

    /// Names and contents of all files.
    #[must_use]
    pub fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let state = lock(&self.state);
        let content = |inode: &Inode| lock(&state.files[*inode]).clone();
        state.names.iter().map(|(path, inode)| (path.clone(), content(inode))).collect()
    }

    /// Overwrites the content of a file as a failing device would, without leaving a trace in
    /// the history.
    pub fn corrupt(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let state = lock(&self.state);
        let inode = state.names[path];
        change(&mut lock(&state.files[inode]));
    }
}

/// Indexes of operations that no sync covers; true for writes, false for name changes.
fn unsynced(ops: &[DiskOp]) -> Vec<(usize, bool)> {
    let mut pending: Vec<(usize, bool)> = Vec::new();
    for (index, op) in ops.iter().enumerate() {
        match op {
            DiskOp::Sync { inode: synced } => {
                pending.retain(|(earlier, write)| match &ops[*earlier] {
                    DiskOp::Write { inode, .. } | DiskOp::SetLength { inode, .. } => {
                        !write || inode != synced
                    }
                    _ => true,
                })
            }
            DiskOp::SyncDirectory { path: directory } => {
                pending.retain(|(earlier, _)| match &ops[*earlier] {
                    DiskOp::Create { path, .. } | DiskOp::Remove { path } => {
                        path.parent() != Some(directory)
                    }
                    DiskOp::Rename { to, .. } => to.parent() != Some(directory),
                    _ => true,
                });
            }
            other => pending.push((index, other.is_write())),
        }
    }
    pending
}

fn apply(state: &mut State, op: &DiskOp) {
    match op {
        DiskOp::Create { path, inode } => {
            while state.files.len() <= *inode {
                state.files.push(Arc::default());
            }
            state.names.insert(path.clone(), *inode);
        }
        DiskOp::Write { inode, position, data } => {
            write_into(&mut lock(&state.files[*inode]), *position, data);
        }
        DiskOp::SetLength { inode, length } => {
            lock(&state.files[*inode]).resize(*length as usize, 0);
        }
        DiskOp::Rename { from, to } => {
            let moved: Vec<PathBuf> =
                state.names.keys().filter(|path| path.starts_with(from)).cloned().collect();
            for old in moved {
                let rest = old.strip_prefix(from).expect("filtered by prefix").to_owned();
                let inode = state.names.remove(&old).expect("listed above");
                let new = if rest.as_os_str().is_empty() { to.clone() } else { to.join(rest) };
                state.names.insert(new, inode);
            }
        }
        DiskOp::Remove { path } => {
            state.names.retain(|name, _| !name.starts_with(path));
        }
        DiskOp::Sync { .. } | DiskOp::SyncDirectory { .. } => {}
    }
}

fn apply_torn(state: &mut State, op: &DiskOp, mask: u64) {
    let DiskOp::Write { inode, position, data } = op else { return };
    let mut content = lock(&state.files[*inode]);
    for (index, sector) in data.chunks(512).enumerate() {
        if mask >> index.min(63) & 1 == 1 {
            write_into(&mut content, position + index as u64 * 512, sector);
        }
    }
}

impl Disk for MemoryDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> DiskResult<Arc<dyn DiskFile>> {
        let mut state = lock(&self.state);
        let inode = match (state.names.get(path), mode) {
            (Some(inode), _) => *inode,
            (None, OpenMode::Read) => {
                let error = io::ErrorKind::NotFound.into();
                return Err(DiskError::new(DiskCall::Open, path, error));
            }
            (None, OpenMode::ReadWrite) => {
                let inode = state.files.len();
                let op = DiskOp::Create { path: path.to_owned(), inode };
                apply(&mut state, &op);
                state.ops.push(op);
                inode
            }
        };
        let content = Arc::clone(&state.files[inode]);
        let path = path.to_owned();
        Ok(Arc::new(MemoryFile { path, inode, content, state: Arc::clone(&self.state) }))
    }

    fn create_directory(&self, path: &Path) -> DiskResult<()> {
        lock(&self.state).directories.insert(path.to_owned());
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> DiskResult<()> {
        let mut state = lock(&self.state);
        if state.names.contains_key(path) {
            let op = DiskOp::Remove { path: path.to_owned() };
            apply(&mut state, &op);
            state.ops.push(op);
        }
        Ok(())
    }

    fn remove_directory(&self, path: &Path) -> DiskResult<()> {
        let mut state = lock(&self.state);
        state.directories.retain(|directory| !directory.starts_with(path));
        if state.names.keys().any(|name| name.starts_with(path)) {
            let op = DiskOp::Remove { path: path.to_owned() };
            apply(&mut state, &op);
            state.ops.push(op);
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> DiskResult<()> {
        let mut state = lock(&self.state);
        if !state.names.keys().any(|name| name.starts_with(from)) {
            return Err(DiskError::new(DiskCall::Rename, from, io::ErrorKind::NotFound.into()));
        }
        let op = DiskOp::Rename { from: from.to_owned(), to: to.to_owned() };
        apply(&mut state, &op);
        state.ops.push(op);
        let moved: Vec<PathBuf> =
            state.directories.iter().filter(|path| path.starts_with(from)).cloned().collect();
        for old in moved {
            state.directories.remove(&old);
            let rest = old.strip_prefix(from).expect("filtered by prefix");
            state.directories.insert(to.join(rest));
        }
        Ok(())
    }

    fn sync_directory(&self, path: &Path) -> DiskResult<()> {
        lock(&self.state).ops.push(DiskOp::SyncDirectory { path: path.to_owned() });
        Ok(())
    }

    fn list(&self, path: &Path) -> DiskResult<Vec<DirectoryEntry>> {
        let state = lock(&self.state);
        let mut entries = std::collections::BTreeSet::new();
        let names = state.names.keys().map(|name| (name, false));
        let directories = state.directories.iter().map(|directory| (directory, true));
        for (name, is_directory) in names.chain(directories) {
            let Ok(below) = name.strip_prefix(path) else { continue };
            let mut components = below.components();
            let Some(first) = components.next() else { continue };
            let is_directory = is_directory || components.next().is_some();
            let name = first.as_os_str().to_string_lossy().into_owned();
            entries.insert(DirectoryEntry { name, is_directory });
        }
        Ok(entries.into_iter().collect())
    }

    fn exists(&self, path: &Path) -> bool {
        let state = lock(&self.state);
        state.names.keys().any(|name| name.starts_with(path)) || state.directories.contains(path)
    }

    fn space(&self, _path: &Path) -> DiskResult<DiskSpace> {
        Ok(DiskSpace { free_bytes: 1 << 40, total_bytes: 1 << 40 })
    }
}

impl MemoryFile {
    fn record(&self, op: DiskOp) {
        lock(&self.state).ops.push(op);
    }
}

impl DiskFile for MemoryFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> DiskResult<usize> {
        let content = lock(&self.content);
        let start = (position as usize).min(content.len());
        let count = buffer.len().min(content.len() - start);
        buffer[..count].copy_from_slice(&content[start..start + count]);
        Ok(count)
    }

    fn read_cached_at(&self, position: u64, buffer: &mut [u8]) -> DiskResult<Option<usize>> {
        self.read_at(position, buffer).map(Some)
    }

    fn write_at(&self, position: u64, slices: &mut [IoSlice<'_>]) -> DiskResult<()> {
        let data: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        write_into(&mut lock(&self.content), position, &data);
        self.record(DiskOp::Write { inode: self.inode, position, data: data.into() });
        Ok(())
    }

    fn sync(&self) -> DiskResult<()> {
        self.record(DiskOp::Sync { inode: self.inode });
        Ok(())
    }

    fn set_length(&self, length: u64) -> DiskResult<()> {
        lock(&self.content).resize(length as usize, 0);
        self.record(DiskOp::SetLength { inode: self.inode, length });
        Ok(())
    }

    fn allocate(&self, position: u64, length: u64) -> DiskResult<()> {
        let end = position + length;
        if self.length()? < end {
            self.set_length(end)?;
        }
        Ok(())
    }

    fn length(&self) -> DiskResult<u64> {
        Ok(lock(&self.content).len() as u64)
    }
}
