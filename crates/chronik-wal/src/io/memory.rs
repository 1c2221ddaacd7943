//! A file system in RAM that remembers every operation, so that a test can ask what the disk
//! may look like after a crash at any of them.
//!
//! The crash model is the strict POSIX one: a write is durable after the next sync of its file;
//! a created, renamed or removed name is durable after the next sync of its directory. What was
//! not synced may be there, be missing, or be torn, as the [`CrashPolicy`] says. Directories
//! themselves are always there.
//!
//! Contents are shared between a disk and the states after its crashes until one of them writes,
//! so that tens of thousands of crash states cost what differs between them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::{DirectoryEntry, Disk, DiskCall, DiskError, DiskFile, DiskResult, DiskSpace, OpenMode};

type Inode = usize;
type Content = Arc<Vec<u8>>;
type Names = BTreeMap<PathBuf, Inode>;

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
    /// A sync failed: what it should have covered is lost, even if a later sync succeeds.
    FailedSync {
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
    /// The file whose content changes.
    fn written_file(&self) -> Option<Inode> {
        match self {
            Self::Write { inode, .. } | Self::SetLength { inode, .. } => Some(*inode),
            _ => None,
        }
    }

    /// The names that change.
    fn names(&self) -> [Option<&Path>; 2] {
        match self {
            Self::Create { path, .. } | Self::Remove { path } => [Some(path), None],
            Self::Rename { from, to } => [Some(from), Some(to)],
            _ => [None, None],
        }
    }

    /// True if the two changes of names do not commute.
    fn concerns(&self, other: &Self) -> bool {
        self.names().into_iter().flatten().any(|one| {
            let meets = |two: &Path| one.starts_with(two) || two.starts_with(one);
            other.names().into_iter().flatten().any(meets)
        })
    }

    /// The directory whose sync makes a change of names durable.
    fn named_in(&self) -> Option<&Path> {
        match self {
            Self::Create { path, .. } | Self::Remove { path } => path.parent(),
            Self::Rename { to, .. } => to.parent(),
            _ => None,
        }
    }
}

/// What happens to operations that no sync covers when the machine stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashPolicy {
    /// All of them reached the disk (also: the process was killed, the machine was not).
    KeepUnsynced,
    /// None of them did.
    LoseUnsynced,
    /// All did but the n-th unsynced write (counted from 0).
    LoseWrite(usize),
    /// No unsynced write did but the n-th; all name changes did.
    KeepOnlyWrite(usize),
    /// All earlier ones did; of the last unsynced write only the 512-byte sectors whose bit is
    /// set in the mask (sectors from 64 on follow bit 63).
    TearLastWrite(u64),
    /// All earlier ones did; of the last unsynced write only the first bytes, so many of them.
    CutLastWrite(usize),
    /// All name changes did; no unsynced write did.
    LoseWrites,
    /// All writes did; no unsynced name change did.
    LoseNames,
    /// All did but the n-th unsynced name change.
    LoseName(usize),
}

#[derive(Default)]
struct State {
    /// Bytes read so far, by path.
    reads: BTreeMap<PathBuf, u64>,
    files: Vec<Arc<Mutex<Content>>>,
    names: Names,
    directories: BTreeSet<PathBuf>,
    /// What the operations start from: a disk that survived a crash.
    base_names: Names,
    base_files: Vec<Content>,
    ops: Vec<DiskOp>,
    /// Syncs until one fails.
    syncs_until_failure: Option<usize>,
}

/// A file system in RAM. Clones share it.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

struct MemoryFile {
    path: PathBuf,
    inode: Inode,
    content: Arc<Mutex<Content>>,
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

    /// Bytes read so far from the files of a directory and the ones below it.
    #[must_use]
    pub fn bytes_read(&self, directory: &Path) -> u64 {
        let state = lock(&self.state);
        let below = state.reads.iter().filter(|(path, _)| path.starts_with(directory));
        below.map(|(_, bytes)| bytes).sum()
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

    /// The history of this disk, to walk from one crash point to the next.
    #[must_use]
    pub fn timeline(&self) -> CrashTimeline {
        let state = lock(&self.state);
        CrashTimeline {
            ops: state.ops.clone(),
            at: 0,
            directories: state.directories.clone(),
            base: (state.base_names.clone(), state.base_files.clone()),
            live: state.base_files.clone(),
            durable: state.base_files.clone(),
            unsynced: Vec::new(),
            names: state.base_names.clone(),
            renamed: Vec::new(),
        }
    }

    /// The disk as a restart would find it after a crash behind the first `at` operations.
    #[must_use]
    pub fn crash(&self, at: usize, policy: CrashPolicy) -> Self {
        let mut timeline = self.timeline();
        timeline.advance_to(at);
        timeline.crash(policy)
    }

    /// A copy without history, for tests that damage bytes.
    #[must_use]
    pub fn snapshot(&self) -> Self {
        let state = lock(&self.state);
        let files = state.files.iter().map(|file| Arc::clone(&lock(file))).collect();
        Self::survivor(files, state.names.clone(), state.directories.clone())
    }

    fn survivor(files: Vec<Content>, names: Names, directories: BTreeSet<PathBuf>) -> Self {
        let state = State {
            files: files.iter().map(|file| Arc::new(Mutex::new(Arc::clone(file)))).collect(),
            base_files: files,
            base_names: names.clone(),
            names,
            directories,
            ..State::default()
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Makes the `nth` sync of a file from now on (counted from 0) fail, and the writes it
    /// should have covered disappear in the next crash.
    pub fn fail_sync(&self, nth: usize) {
        lock(&self.state).syncs_until_failure = Some(nth);
    }

    /// True if a sync failed as [`MemoryDisk::fail_sync`] asked for.
    #[must_use]
    pub fn has_failed_sync(&self) -> bool {
        lock(&self.state).ops.iter().any(|op| matches!(op, DiskOp::FailedSync { .. }))
    }

    /// Names and contents of all files.
    #[must_use]
    pub fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let state = lock(&self.state);
        let content = |inode: &Inode| lock(&state.files[*inode]).to_vec();
        state.names.iter().map(|(path, inode)| (path.clone(), content(inode))).collect()
    }

    /// Overwrites the content of a file as a failing device would, without leaving a trace in
    /// the history.
    ///
    /// # Panics
    /// If there is no such file, or if the disk was written to since it started.
    pub fn corrupt(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = lock(&self.state);
        assert!(state.ops.is_empty(), "only a disk at rest is damaged");
        let inode = state.names[path];
        let content = {
            let mut content = lock(&state.files[inode]);
            change(Arc::make_mut(&mut content));
            Arc::clone(&content)
        };
        state.base_files[inode] = content;
    }

    /// Puts a file there as if it had always been there.
    pub fn plant(&self, path: &Path, content: Vec<u8>) {
        let mut state = lock(&self.state);
        let inode = state.files.len();
        let content: Content = Arc::new(content);
        state.files.push(Arc::new(Mutex::new(Arc::clone(&content))));
        state.names.insert(path.to_owned(), inode);
        state.base_files.resize_with(inode, Content::default);
        state.base_files.push(content);
        state.base_names.insert(path.to_owned(), inode);
    }

    /// Takes a file away as if it had never been there.
    pub fn lose(&self, path: &Path) {
        let mut state = lock(&self.state);
        state.names.remove(path);
        state.base_names.remove(path);
    }
}

/// The history of a disk at one crash point, which only moves forward.
#[derive(Clone)]
pub struct CrashTimeline {
    ops: Vec<DiskOp>,
    at: usize,
    directories: BTreeSet<PathBuf>,
    /// Names and contents the history starts from.
    base: (Names, Vec<Content>),
    /// Contents with all writes so far.
    live: Vec<Content>,
    /// Contents with the synced writes.
    durable: Vec<Content>,
    /// Writes that no sync covers, oldest first.
    unsynced: Vec<usize>,
    /// Names behind the settled changes.
    names: Names,
    /// Changes of names that are not settled, oldest first; true for those a sync covers.
    renamed: Vec<(usize, bool)>,
}

impl CrashTimeline {
    /// Operations before the crash point.
    #[must_use]
    pub fn at(&self) -> usize {
        self.at
    }

    /// All operations.
    #[must_use]
    pub fn op_count(&self) -> usize {
        self.ops.len()
    }

    /// Unsynced writes here: how many variants [`CrashPolicy::LoseWrite`] has.
    #[must_use]
    pub fn unsynced_writes(&self) -> usize {
        self.unsynced.len()
    }

    /// Unsynced name changes here: how many variants [`CrashPolicy::LoseName`] has.
    #[must_use]
    pub fn unsynced_names(&self) -> usize {
        self.renamed.iter().filter(|(_, is_durable)| !is_durable).count()
    }

    /// Bytes of the last unsynced write; 0 if there is none.
    #[must_use]
    pub fn last_write_bytes(&self) -> usize {
        match self.unsynced.last().map(|write| &self.ops[*write]) {
            Some(DiskOp::Write { data, .. }) => data.len(),
            _ => 0,
        }
    }

    /// Moves the crash point behind the first `at` operations.
    ///
    /// # Panics
    /// If it lies behind that already.
    pub fn advance_to(&mut self, at: usize) {
        assert!(self.at <= at, "a timeline at {} does not go back to {at}", self.at);
        while self.at < at {
            self.step();
        }
    }

    fn step(&mut self) {
        let index = self.at;
        self.at += 1;
        let ops = std::mem::take(&mut self.ops);
        match &ops[index] {
            op @ (DiskOp::Write { .. } | DiskOp::SetLength { .. }) => {
                write_op(&mut self.live, op);
                self.unsynced.push(index);
            }
            DiskOp::Sync { inode } => {
                let is_covered = |write: &usize| ops[*write].written_file() == Some(*inode);
                for write in self.unsynced.extract_if(.., |write| is_covered(write)) {
                    write_op(&mut self.durable, &ops[write]);
                }
            }
            DiskOp::FailedSync { inode } => {
                self.unsynced.retain(|write| ops[*write].written_file() != Some(*inode));
            }
            op @ (DiskOp::Create { .. } | DiskOp::Rename { .. } | DiskOp::Remove { .. }) => {
                if let DiskOp::Create { inode, .. } = op {
                    let count = self.live.len().max(inode + 1);
                    self.live.resize_with(count, Content::default);
                    self.durable.resize_with(count, Content::default);
                }
                self.renamed.push((index, false));
            }
            DiskOp::SyncDirectory { path } => {
                for (change, is_durable) in &mut self.renamed {
                    *is_durable |= ops[*change].named_in() == Some(path);
                }
                self.settle_names(&ops);
            }
        }
        self.ops = ops;
    }

    /// Carries out durable changes of names that no unsynced one before them concerns.
    fn settle_names(&mut self, ops: &[DiskOp]) {
        let mut unsettled: Vec<(usize, bool)> = Vec::new();
        for (change, is_durable) in self.renamed.drain(..) {
            let is_blocked = unsettled.iter().any(|(other, _)| ops[*other].concerns(&ops[change]));
            if is_durable && !is_blocked {
                rename_op(&mut self.names, &ops[change]);
            } else {
                unsettled.push((change, is_durable));
            }
        }
        self.renamed = unsettled;
    }

    /// The disk as a restart would find it after a crash here.
    #[must_use]
    pub fn crash(&self, policy: CrashPolicy) -> MemoryDisk {
        MemoryDisk::survivor(
            self.surviving_files(policy),
            self.surviving_names(policy),
            self.directories.clone(),
        )
    }

    /// The disk after the process was killed here and the machine was not: nothing is lost yet,
    /// but what was not synced still can be.
    #[must_use]
    pub fn kill(&self) -> MemoryDisk {
        let disk = self.crash(CrashPolicy::KeepUnsynced);
        {
            let mut state = lock(&disk.state);
            state.ops = self.ops[..self.at].to_vec();
            (state.base_names, state.base_files) = self.base.clone();
        }
        disk
    }

    fn surviving_files(&self, policy: CrashPolicy) -> Vec<Content> {
        let newest = self.unsynced.len().saturating_sub(1);
        let keeps = |nth: usize| match policy {
            CrashPolicy::LoseWrite(lost) => nth != lost,
            CrashPolicy::KeepOnlyWrite(kept) => nth == kept,
            CrashPolicy::TearLastWrite(_) | CrashPolicy::CutLastWrite(_) => nth != newest,
            _ => true,
        };
        match policy {
            CrashPolicy::KeepUnsynced => return self.live.clone(),
            CrashPolicy::LoseUnsynced | CrashPolicy::LoseWrites => return self.durable.clone(),
            _ => {}
        }
        let mut files = self.durable.clone();
        for (nth, write) in self.unsynced.iter().enumerate() {
            if keeps(nth) {
                write_op(&mut files, &self.ops[*write]);
            }
        }
        match (policy, self.unsynced.last().map(|write| &self.ops[*write])) {
            (CrashPolicy::TearLastWrite(mask), Some(DiskOp::Write { inode, position, data })) => {
                let content = Arc::make_mut(&mut files[*inode]);
                for (index, sector) in data.chunks(512).enumerate() {
                    if mask >> index.min(63) & 1 == 1 {
                        write_into(content, position + index as u64 * 512, sector);
                    }
                }
            }
            (CrashPolicy::CutLastWrite(kept), Some(DiskOp::Write { inode, position, data })) => {
                let content = Arc::make_mut(&mut files[*inode]);
                write_into(content, *position, &data[..kept.min(data.len())]);
            }
            _ => {}
        }
        files
    }

    fn surviving_names(&self, policy: CrashPolicy) -> Names {
        let mut names = self.names.clone();
        let mut nth = 0;
        for (change, is_durable) in &self.renamed {
            let is_kept = *is_durable
                || match policy {
                    CrashPolicy::LoseUnsynced | CrashPolicy::LoseNames => false,
                    CrashPolicy::LoseName(lost) => nth != lost,
                    _ => true,
                };
            nth += usize::from(!is_durable);
            if is_kept {
                rename_op(&mut names, &self.ops[*change]);
            }
        }
        names
    }
}

/// Carries out a change of a file's content.
fn write_op(files: &mut [Content], op: &DiskOp) {
    match op {
        DiskOp::Write { inode, position, data } => {
            write_into(Arc::make_mut(&mut files[*inode]), *position, data);
        }
        DiskOp::SetLength { inode, length } => {
            Arc::make_mut(&mut files[*inode]).resize(*length as usize, 0);
        }
        _ => unreachable!("{op:?} changes no content"),
    }
}

/// The name `path`, or all names in the directory `path`. Paths sort by their components, so
/// these lie together.
fn below<'a>(names: &'a Names, path: &'a Path) -> impl Iterator<Item = &'a PathBuf> {
    let from =
        names.range::<Path, _>((Bound::Included(path), Bound::Unbounded)).map(|(name, _)| name);
    from.take_while(move |name| name.starts_with(path))
}

/// Carries out a change of names.
fn rename_op(names: &mut Names, op: &DiskOp) {
    match op {
        DiskOp::Create { path, inode } => {
            names.insert(path.clone(), *inode);
        }
        DiskOp::Rename { from, to } => {
            let moved: Vec<PathBuf> = below(names, from).cloned().collect();
            for old in moved {
                let rest = old.strip_prefix(from).expect("filtered by prefix").to_owned();
                let inode = names.remove(&old).expect("listed above");
                let new = if rest.as_os_str().is_empty() { to.clone() } else { to.join(rest) };
                names.insert(new, inode);
            }
        }
        DiskOp::Remove { path } => {
            let removed: Vec<PathBuf> = below(names, path).cloned().collect();
            for name in removed {
                names.remove(&name);
            }
        }
        _ => unreachable!("{op:?} changes no name"),
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
            (None, OpenMode::ReadWrite | OpenMode::PastCache) => {
                let inode = state.files.len();
                state.files.push(Arc::default());
                change_names(&mut state, DiskOp::Create { path: path.to_owned(), inode });
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
            change_names(&mut state, DiskOp::Remove { path: path.to_owned() });
        }
        Ok(())
    }

    fn remove_directory(&self, path: &Path) -> DiskResult<()> {
        let mut state = lock(&self.state);
        state.directories.retain(|directory| !directory.starts_with(path));
        if below(&state.names, path).next().is_some() {
            change_names(&mut state, DiskOp::Remove { path: path.to_owned() });
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> DiskResult<()> {
        let mut state = lock(&self.state);
        if below(&state.names, from).next().is_none() {
            return Err(DiskError::new(DiskCall::Rename, from, io::ErrorKind::NotFound.into()));
        }
        let op = DiskOp::Rename { from: from.to_owned(), to: to.to_owned() };
        change_names(&mut state, op);
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
        let mut entries = BTreeSet::new();
        let names = below(&state.names, path).map(|name| (name, false));
        let directories =
            state.directories.range::<Path, _>((Bound::Included(path), Bound::Unbounded));
        let directories = directories.take_while(|directory| directory.starts_with(path));
        for (name, is_directory) in names.chain(directories.map(|directory| (directory, true))) {
            let rest = name.strip_prefix(path).expect("listed by prefix");
            let mut components = rest.components();
            let Some(first) = components.next() else { continue };
            let is_directory = is_directory || components.next().is_some();
            let name = first.as_os_str().to_string_lossy().into_owned();
            entries.insert(DirectoryEntry { name, is_directory });
        }
        Ok(entries.into_iter().collect())
    }

    fn exists(&self, path: &Path) -> bool {
        let state = lock(&self.state);
        state.directories.contains(path) || below(&state.names, path).next().is_some()
    }

    fn space(&self, _path: &Path) -> DiskResult<DiskSpace> {
        Ok(DiskSpace { free_bytes: 1 << 40, total_bytes: 1 << 40 })
    }
}

fn change_names(state: &mut State, op: DiskOp) {
    rename_op(&mut state.names, &op);
    state.ops.push(op);
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
        drop(content);
        *lock(&self.state).reads.entry(self.path.clone()).or_default() += count as u64;
        Ok(count)
    }

    fn read_cached_at(&self, position: u64, buffer: &mut [u8]) -> DiskResult<Option<usize>> {
        self.read_at(position, buffer).map(Some)
    }

    fn write_at(&self, position: u64, slices: &mut [IoSlice<'_>]) -> DiskResult<()> {
        let mut data = Vec::with_capacity(slices.iter().map(|slice| slice.len()).sum());
        for slice in slices {
            data.extend_from_slice(slice);
        }
        write_into(Arc::make_mut(&mut lock(&self.content)), position, &data);
        self.record(DiskOp::Write { inode: self.inode, position, data: data.into() });
        Ok(())
    }

    fn sync(&self) -> DiskResult<()> {
        let mut state = lock(&self.state);
        let inode = self.inode;
        let remaining = state.syncs_until_failure;
        state.syncs_until_failure = remaining.and_then(|remaining| remaining.checked_sub(1));
        if remaining == Some(0) {
            state.ops.push(DiskOp::FailedSync { inode });
            let error = io::Error::other("input/output error");
            return Err(DiskError::new(DiskCall::Sync, &self.path, error));
        }
        state.ops.push(DiskOp::Sync { inode });
        Ok(())
    }

    fn set_length(&self, length: u64) -> DiskResult<()> {
        Arc::make_mut(&mut lock(&self.content)).resize(length as usize, 0);
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

    /// A whole page of zeros is taken for reserved space, wherever it is: readers must cope.
    fn data_end(&self, position: u64) -> u64 {
        const PAGE: usize = 4_096;
        let content = lock(&self.content);
        let from = position as usize / PAGE;
        let mut pages = content.chunks(PAGE).enumerate().skip(from);
        let hole = pages.find(|(_, page)| page.iter().all(|byte| *byte == 0));
        hole.map_or(content.len() as u64, |(page, _)| (page * PAGE) as u64).max(position)
    }
}
