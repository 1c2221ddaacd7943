//! A disk whose calls fail when told to: the tests' stand-in for a dying device.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::{DirectoryEntry, Disk, DiskCall, DiskError, DiskFile, DiskResult, DiskSpace, OpenMode};

/// A planned failure: the `skip`-th matching call from now on, and if `sticky` all after it.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Which call fails.
    pub call: DiskCall,
    /// Only for files whose path contains this text.
    pub path_contains: String,
    /// How many matching calls still succeed.
    pub skip: usize,
    /// Fail every matching call from then on, not only one.
    pub sticky: bool,
    /// What the operating system would have said.
    pub error: io::ErrorKind,
}

#[derive(Default)]
struct Plan {
    faults: Vec<Fault>,
    free_bytes: Option<u64>,
    fired: usize,
}

impl Plan {
    fn check(&mut self, call: DiskCall, path: &Path) -> DiskResult<()> {
        let text = path.to_string_lossy();
        let matching = |fault: &Fault| fault.call == call && text.contains(&fault.path_contains);
        let Some(index) = self.faults.iter().position(matching) else { return Ok(()) };
        let fault = &mut self.faults[index];
        if fault.skip > 0 {
            fault.skip -= 1;
            return Ok(());
        }
        let error = fault.error;
        if !fault.sticky {
            self.faults.remove(index);
        }
        self.fired += 1;
        Err(DiskError::new(call, path, error.into()))
    }
}

/// Wraps a disk and injects the faults planned with [`FaultyDisk::plan`].
#[derive(Clone)]
pub struct FaultyDisk {
    inner: Arc<dyn Disk>,
    plan: Arc<Mutex<Plan>>,
}

struct FaultyFile {
    inner: Arc<dyn DiskFile>,
    plan: Arc<Mutex<Plan>>,
}

impl FaultyDisk {
    /// A disk that behaves like `inner` until told otherwise.
    #[must_use]
    pub fn new(inner: Arc<dyn Disk>) -> Self {
        Self { inner, plan: Arc::default() }
    }

    /// Adds a failure to come.
    pub fn plan(&self, fault: Fault) {
        self.plan.lock().expect("no holder of the plan panics").faults.push(fault);
    }

    /// Makes the disk report this much free space; `None` asks the wrapped disk again.
    pub fn set_free_bytes(&self, free_bytes: Option<u64>) {
        self.plan.lock().expect("no holder of the plan panics").free_bytes = free_bytes;
    }

    /// How many failures were injected so far.
    #[must_use]
    pub fn fired(&self) -> usize {
        self.plan.lock().expect("no holder of the plan panics").fired
    }

    fn check(&self, call: DiskCall, path: &Path) -> DiskResult<()> {
        self.plan.lock().expect("no holder of the plan panics").check(call, path)
    }
}

impl Disk for FaultyDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> DiskResult<Arc<dyn DiskFile>> {
        self.check(DiskCall::Open, path)?;
        let inner = self.inner.open(path, mode)?;
        Ok(Arc::new(FaultyFile { inner, plan: Arc::clone(&self.plan) }))
    }

    fn create_directory(&self, path: &Path) -> DiskResult<()> {
        self.check(DiskCall::CreateDirectory, path)?;
        self.inner.create_directory(path)
    }

    fn remove_file(&self, path: &Path) -> DiskResult<()> {
        self.check(DiskCall::Remove, path)?;
        self.inner.remove_file(path)
    }

    fn remove_directory(&self, path: &Path) -> DiskResult<()> {
        self.check(DiskCall::Remove, path)?;
        self.inner.remove_directory(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> DiskResult<()> {
        self.check(DiskCall::Rename, from)?;
        self.inner.rename(from, to)
    }

    fn sync_directory(&self, path: &Path) -> DiskResult<()> {
        self.check(DiskCall::SyncDirectory, path)?;
        self.inner.sync_directory(path)
    }

    fn list(&self, path: &Path) -> DiskResult<Vec<DirectoryEntry>> {
        self.check(DiskCall::List, path)?;
        self.inner.list(path)
    }

    fn exists(&self, path: &Path) -> bool {
        self.inner.exists(path)
    }

    fn space(&self, path: &Path) -> DiskResult<DiskSpace> {
        let mut space = self.inner.space(path)?;
        let plan = self.plan.lock().expect("no holder of the plan panics");
        space.free_bytes = plan.free_bytes.unwrap_or(space.free_bytes);
        Ok(space)
    }
}

impl FaultyFile {
    fn check(&self, call: DiskCall) -> DiskResult<()> {
        self.plan.lock().expect("no holder of the plan panics").check(call, self.inner.path())
    }
}

impl DiskFile for FaultyFile {
    fn path(&self) -> &Path {
        self.inner.path()
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> DiskResult<usize> {
        self.check(DiskCall::Read)?;
        self.inner.read_at(position, buffer)
    }

    fn read_cached_at(&self, position: u64, buffer: &mut [u8]) -> DiskResult<Option<usize>> {
        self.check(DiskCall::Read)?;
        self.inner.read_cached_at(position, buffer)
    }

    fn write_at(&self, position: u64, slices: &mut [IoSlice<'_>]) -> DiskResult<()> {
        self.check(DiskCall::Write)?;
        self.inner.write_at(position, slices)
    }

    fn sync(&self) -> DiskResult<()> {
        self.check(DiskCall::Sync)?;
        self.inner.sync()
    }

    fn set_length(&self, length: u64) -> DiskResult<()> {
        self.check(DiskCall::SetLength)?;
        self.inner.set_length(length)
    }

    fn allocate(&self, position: u64, length: u64) -> DiskResult<()> {
        self.check(DiskCall::Allocate)?;
        self.inner.allocate(position, length)
    }

    fn length(&self) -> DiskResult<u64> {
        self.inner.length()
    }

    fn data_end(&self, position: u64) -> u64 {
        self.inner.data_end(position)
    }
}
