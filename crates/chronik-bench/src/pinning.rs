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

/// Allows this process as many open files as its hard limit has; runs with a thousand connections
/// need more than the usual soft limit.
pub fn raise_open_files_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // A refusal shows itself as a connection that cannot be opened.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
