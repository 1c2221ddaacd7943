//! What a process costs, from /proc: CPU, memory, I/O, context switches.
//!
//! CPU is the sum of the threads' run times in nanoseconds where the kernel keeps them
//! (schedstat), else clock ticks. Threads that ended between two looks are missing from the first
//! form; a server's threads do not end. Bytes written are those given to write calls: the
//! kernel's own count of bytes to storage charges whole large folios for each small write, two
//! megabytes for four kilobytes. Everything is `None` where there is no /proc.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

/// Kernel ticks per second in /proc, the same on all machines Linux runs on.
const TICKS_PER_SECOND: u64 = 100;

/// What the kernel's `clear_refs` takes to forget the largest resident memory.
const RESET_PEAK: &str = "5";

/// A process to look at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProcessProbe {
    directory: PathBuf,
}

/// Counters of a process since its start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ProcessState {
    /// CPU time used, user and system.
    pub cpu: Duration,
    /// Resident memory, in bytes.
    pub resident_bytes: u64,
    /// The largest it ever was, in bytes.
    pub resident_bytes_peak: u64,
    /// Times a thread went to sleep.
    pub voluntary_switches: u64,
    /// Times a thread was pushed aside.
    pub involuntary_switches: u64,
    /// Bytes given to calls of the write family, sockets by send excluded.
    pub written_bytes: u64,
    /// Calls of the read and write family, sockets by send and recv excluded.
    pub io_calls: u64,
}

/// What a process did between two looks.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct ProcessCost {
    /// CPU time used, in seconds.
    pub cpu_seconds: f64,
    /// Resident memory at the end, in bytes.
    pub resident_bytes: u64,
    /// The largest it ever was, in bytes.
    pub resident_bytes_peak: u64,
    /// Context switches.
    pub context_switches: u64,
    /// Context switches of threads that were pushed aside.
    pub involuntary_switches: u64,
    /// Bytes given to calls of the write family, sockets by send excluded.
    pub written_bytes: u64,
    /// Calls of the read and write family, sockets by send and recv excluded.
    pub io_calls: u64,
}

impl ProcessProbe {
    /// A probe of process `pid`; `None` if it cannot be looked at.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        let probe = Self { directory: PathBuf::from(format!("/proc/{pid}")) };
        probe.look().map(|_| probe)
    }

    /// Looks at the process; `None` if it is gone.
    #[must_use]
    pub fn look(&self) -> Option<ProcessState> {
        let mut state = ProcessState { cpu: self.cpu_in_ticks()?, ..ProcessState::default() };
        let mut run_time = Duration::ZERO;
        for task in fs::read_dir(self.directory.join("task")).ok()?.flatten() {
            let read = |name: &str| fs::read_to_string(task.path().join(name)).unwrap_or_default();
            run_time += run_time_of(&read("schedstat"));
            let status = read("status");
            state.voluntary_switches += field(&status, "voluntary_ctxt_switches:");
            state.involuntary_switches += field(&status, "nonvoluntary_ctxt_switches:");
        }
        if !run_time.is_zero() {
            state.cpu = run_time;
        }
        let status = fs::read_to_string(self.directory.join("status")).unwrap_or_default();
        state.resident_bytes = field(&status, "VmRSS:") * 1_024;
        state.resident_bytes_peak = field(&status, "VmHWM:") * 1_024;
        let io = fs::read_to_string(self.directory.join("io")).unwrap_or_default();
        state.written_bytes = field(&io, "wchar:");
        state.io_calls = field(&io, "syscr:") + field(&io, "syscw:");
        Some(state)
    }

    /// Lets the largest resident memory start again from what it is now; false where the kernel
    /// does not let this process do so.
    pub fn reset_peak(&self) -> bool {
        fs::write(self.directory.join("clear_refs"), RESET_PEAK).is_ok()
    }

    fn cpu_in_ticks(&self) -> Option<Duration> {
        let stat = fs::read_to_string(self.directory.join("stat")).ok()?;
        // The name of the process, in parentheses, may have blanks.
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<_> = rest.split_whitespace().collect();
        let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
        let total = ticks(11)? + ticks(12)?;
        Some(Duration::from_millis(total * 1_000 / TICKS_PER_SECOND))
    }
}

impl ProcessState {
    /// What happened from `earlier` to this look.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> ProcessCost {
        let switches = |state: &Self| state.voluntary_switches + state.involuntary_switches;
        ProcessCost {
            cpu_seconds: self.cpu.saturating_sub(earlier.cpu).as_secs_f64(),
            resident_bytes: self.resident_bytes,
            resident_bytes_peak: self.resident_bytes_peak,
            context_switches: switches(self).saturating_sub(switches(earlier)),
            involuntary_switches: self
                .involuntary_switches
                .saturating_sub(earlier.involuntary_switches),
            written_bytes: self.written_bytes.saturating_sub(earlier.written_bytes),
            io_calls: self.io_calls.saturating_sub(earlier.io_calls),
        }
    }
}

/// The first number of a schedstat line: nanoseconds on a CPU.
fn run_time_of(schedstat: &str) -> Duration {
    let first = schedstat.split_whitespace().next().and_then(|word| word.parse().ok());
    Duration::from_nanos(first.unwrap_or(0))
}

/// The number behind `name` at the start of a line; 0 if there is none.
fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_behind_their_names() {
        let status = "VmRSS:\t   2048 kB\nvoluntary_ctxt_switches:\t17\n";
        assert_eq!(field(status, "VmRSS:"), 2_048);
        assert_eq!(field(status, "voluntary_ctxt_switches:"), 17);
        assert_eq!(field(status, "VmHWM:"), 0);
        assert_eq!(run_time_of("1500000 7 3\n"), Duration::from_micros(1_500));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_uses_cpu_and_memory() {
        let probe = ProcessProbe::of(std::process::id()).expect("this process exists");
        let before = probe.look().expect("this process exists");
        let busy = (0..20_000_000_u64).fold(0, |sum: u64, x| sum ^ x.wrapping_mul(sum | 1));
        assert_ne!(busy, 1);
        let cost = probe.look().expect("this process exists").since(&before);
        assert!(cost.resident_bytes > 100_000, "{cost:?}");
        assert!(cost.cpu_seconds >= 0.0, "{cost:?}");
        assert!(ProcessProbe::of(u32::MAX).is_none());
        let peak = |probe: &ProcessProbe| probe.look().expect("it exists").resident_bytes_peak;
        let large = vec![1_u8; 64 << 20];
        let with_it = peak(&probe);
        assert!(large.iter().all(|byte| *byte == 1));
        drop(large);
        assert!(!probe.reset_peak() || peak(&probe) < with_it, "{with_it}");
    }
}
