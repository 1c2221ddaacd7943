//! The machine a result came from: everything that makes two of them differ.
//!
//! What cannot be found out is left out, never guessed.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::journal_floor::FloorFile;

/// Syncs of the disk probe.
const PROBE_SYNCS: u32 = 64;

/// Bytes of each.
const PROBE_BYTES: usize = 4 << 10;

/// Kernel, processor, load and settings; with a directory, what a sync in it takes.
pub(crate) fn environment(probe_directory: Option<&Path>) -> Value {
    let mut found = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            found.insert(name.to_owned(), value);
        }
    };
    put("kernel", line("/proc/sys/kernel/osrelease").map(Value::from));
    put("architecture", Some(std::env::consts::ARCH.into()));
    put("cpu", cpu_model().map(Value::from));
    put("cores", std::thread::available_parallelism().ok().map(|it| usize::from(it).into()));
    put("memory_bytes", memory_bytes().map(Value::from));
    put("load", line("/proc/loadavg").map(Value::from));
    put("steal_seconds", steal_seconds().map(Value::from));
    put("autogroup", line("/proc/sys/kernel/sched_autogroup_enabled").map(Value::from));
    put("policy", scheduling_policy().map(Value::from));
    put("mitigations", mitigations());
    put("hz", hz().map(Value::from));
    put("disk_sync", probe_directory.and_then(disk_sync));
    Value::Object(found)
}

fn line(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

fn cpu_model() -> Option<String> {
    let info = fs::read_to_string("/proc/cpuinfo").ok()?;
    let model = info.lines().find(|line| line.starts_with("model name"))?;
    Some(model.split_once(':')?.1.trim().to_owned())
}

fn memory_bytes() -> Option<u64> {
    let info = fs::read_to_string("/proc/meminfo").ok()?;
    let total = info.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(total.split_whitespace().next()?.parse::<u64>().ok()? * 1_024)
}

/// Time that the hypervisor gave to others, since the machine started.
fn steal_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let steal = stat.lines().next()?.split_whitespace().nth(8)?;
    Some(steal.parse::<f64>().ok()? / 100.0)
}

fn scheduling_policy() -> Option<&'static str> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The 41st field; the second, the name in parentheses, may have blanks.
    let policy = stat.rsplit_once(')')?.1.split_whitespace().nth(38)?;
    Some(match policy {
        "0" => "other",
        "1" => "fifo",
        "2" => "round-robin",
        "3" => "batch",
        "5" => "idle",
        _ => "unknown",
    })
}

fn mitigations() -> Option<Value> {
    let mut found = Map::new();
    for entry in fs::read_dir("/sys/devices/system/cpu/vulnerabilities").ok()?.flatten() {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        let text = text.trim();
        if text != "Not affected" {
            found.insert(entry.file_name().to_string_lossy().into_owned(), text.into());
        }
    }
    Some(Value::Object(found))
}

/// Timer ticks per second, if the kernel's configuration is on the machine.
fn hz() -> Option<u64> {
    let release = line("/proc/sys/kernel/osrelease")?;
    let config = fs::read_to_string(format!("/boot/config-{release}")).ok()?;
    config.lines().find_map(|line| line.strip_prefix("CONFIG_HZ="))?.parse().ok()
}

/// Microseconds of writing and syncing 4 KB in a zero-filled file.
fn disk_sync(directory: &Path) -> Option<Value> {
    let file = FloorFile::create(directory, u64::from(PROBE_SYNCS) * PROBE_BYTES as u64).ok()?;
    let block = [0x5a; PROBE_BYTES];
    let mut times: Vec<Duration> = Vec::new();
    for step in 0..PROBE_SYNCS {
        let started = Instant::now();
        file.write(&block, u64::from(step) * PROBE_BYTES as u64, true).ok()?;
        times.push(started.elapsed());
    }
    times.sort();
    let micros = |at: usize| times[at].as_micros() as u64;
    Some(json!({
        "directory": directory.display().to_string(),
        "bytes": PROBE_BYTES,
        "p50_micros": micros(times.len() / 2),
        "max_micros": micros(times.len() - 1),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn the_machine_is_described_and_the_probe_leaves_nothing() {
        let directory = std::env::temp_dir().join(format!("chronik-bench-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let found = environment(Some(&directory));
        for name in ["kernel", "cores", "load", "memory_bytes", "policy", "disk_sync"] {
            assert!(!found[name].is_null(), "{name}: {found}");
        }
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
        fs::remove_dir_all(&directory).unwrap();
    }
}
