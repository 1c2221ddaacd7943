//! Keeping a worker on one processor core, and room for many connections.

use std::io;

use crate::failure::Failure;
use crate::quantity::Cores;

/// Keeps the calling thread, worker number `worker`, on its core of `cores`.
///
/// # Errors
/// If the core does not exist or this system cannot do it.
pub fn pin_worker(cores: Option<&Cores>, worker: usize) -> Result<(), Failure> {
    let Some(Cores(cores)) = cores.filter(|cores| !cores.0.is_empty()) else { return Ok(()) };
    pin(cores[worker % cores.len()]).map_err(Failure::system("pin a worker to a core"))
}

#[cfg(target_os = "linux")]
fn pin(core: usize) -> io::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(core);
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

#[cfg(not(target_os = "linux"))]
fn pin(_core: usize) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The cores that the calling thread may run on; none where the system does not say.
#[cfg(target_os = "linux")]
pub fn allowed_cores() -> Vec<usize> {
    let set = rustix::thread::sched_getaffinity(None).ok();
    set.map_or_else(Vec::new, |set| {
        (0..rustix::thread::CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect()
    })
}

/// The same where nothing can be kept on a core.
#[cfg(not(target_os = "linux"))]
pub fn allowed_cores() -> Vec<usize> {
    Vec::new()
}

/// Allows this process as many open files as its hard limit has; runs with a thousand connections
/// need more than the usual soft limit.
pub fn raise_open_files_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // A refusal shows itself as a connection that cannot be opened.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
