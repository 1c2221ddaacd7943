//! What the kernel counts about a running process.

use std::time::{Duration, Instant};

/// Longest wait for a thread's end.
const END_MAX: Duration = Duration::from_secs(60);

/// How often it is looked for.
const LOOK_STEP: Duration = Duration::from_millis(20);

/// Counters of a process since its start, over all threads alive.
#[derive(Clone, Copy, Debug)]
pub struct ProcessCounters {
    /// Times a thread gave up its processor to wait.
    pub waits: u64,
    /// Bytes it caused to be written to storage.
    pub written_bytes: u64,
}

/// The counters of the process `pid` now.
///
/// # Panics
/// If it does not run or belongs to somebody else.
pub fn counters_of(pid: u32) -> ProcessCounters {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    let waits = tasks.flatten().map(|task| {
        // A thread may have ended since the directory was read.
        let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
        field(&status, "voluntary_ctxt_switches:").unwrap_or(0)
    });
    let waits = waits.sum();
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).expect("the process is ours");
    let written_bytes = field(&io, "write_bytes:").expect("the kernel counts what is written");
    ProcessCounters { waits, written_bytes }
}

/// Waits until the process `pid` has no thread of this name any more.
///
/// # Panics
/// If it does not run, or the thread does not end within [`END_MAX`].
pub fn wait_for_thread_end(pid: u32, name: &str) {
    let deadline = Instant::now() + END_MAX;
    while threads_of(pid).iter().any(|thread| thread == name) {
        assert!(Instant::now() < deadline, "{name} of process {pid} does not end");
        std::thread::sleep(LOOK_STEP);
    }
}

/// Names of the threads of a process.
fn threads_of(pid: u32) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    let names = tasks.flatten().filter_map(|task| {
        // A thread may have ended since the directory was read.
        std::fs::read_to_string(task.path().join("comm")).ok()
    });
    names.map(|name| name.trim_end().to_owned()).collect()
}

/// The number behind `name` at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_waited_for_by_its_name() {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let (started, has_started) = std::sync::mpsc::channel();
        let wait = move || {
            started.send(()).expect("the test waits");
            assert!(stopped.recv().is_err(), "nothing is ever sent");
        };
        let thread = std::thread::Builder::new().name("perf-waited-for".to_owned()).spawn(wait);
        let thread = thread.expect("the system has threads");
        // A thread gets its name before it runs what it is for.
        has_started.recv().expect("the thread runs");
        let pid = std::process::id();
        assert!(threads_of(pid).iter().any(|name| name == "perf-waited-for"));
        drop(stop);
        wait_for_thread_end(pid, "perf-waited-for");
        thread.join().expect("it does not panic");
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let status = "nonvoluntary_ctxt_switches:\t7\nvoluntary_ctxt_switches:\t42\n";
        assert_eq!(field(status, "voluntary_ctxt_switches:"), Some(42));
        assert_eq!(field("cancelled_write_bytes: 1\n", "write_bytes:"), None);
        assert!(counters_of(std::process::id()).waits < u64::MAX);
    }
}
