//! What the kernel counts about a running process.

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

/// The number behind `name` at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let status = "nonvoluntary_ctxt_switches:\t7\nvoluntary_ctxt_switches:\t42\n";
        assert_eq!(field(status, "voluntary_ctxt_switches:"), Some(42));
        assert_eq!(field("cancelled_write_bytes: 1\n", "write_bytes:"), None);
        assert!(counters_of(std::process::id()).waits < u64::MAX);
    }
}
