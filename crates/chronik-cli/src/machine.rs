//! What a server would meet on this machine: directory, disk, ports, address.
//!
//! Each probe looks at one thing and returns a [`Check`]; none of them changes anything but a
//! file of its own, which it removes. `verbs/doctor.rs` chooses the probes and prints them.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{TcpListener, ToSocketAddrs};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use chronik_config::{Bind, Endpoint, WalConfig};
use rustix::fs::FlockOperation;
use serde::Serialize;

/// 99th percentile of an fsync from which acknowledgements feel slow.
const SLOW_FSYNC: Duration = Duration::from_millis(20);
/// Bytes of one measured write: a small batch.
const WRITE_BYTES: usize = 4 << 10;
/// Writes that are measured in a quick look.
pub(crate) const QUICK_WRITES: usize = 20;
/// Writes that are measured with `--bench-disk`.
pub(crate) const BENCH_WRITES: usize = 200;
/// A mebibyte written at once, and how often, for the throughput of `--bench-disk`.
const STREAM_BYTES: usize = 1 << 20;
const STREAM_WRITES: usize = 64;

/// How a check ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// As it should be.
    Good,
    /// Works, and will hurt.
    Odd,
    /// A server would not start, or would lose data.
    Bad,
}

/// One look at the machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) status: Status,
    /// The code of the message the server would print, if it has one.
    pub(crate) code: Option<&'static str>,
    pub(crate) finding: String,
}

impl Check {
    pub(crate) fn good(name: &'static str, finding: impl Into<String>) -> Self {
        Self { name, status: Status::Good, code: None, finding: finding.into() }
    }

    fn odd(name: &'static str, code: Option<&'static str>, finding: impl Into<String>) -> Self {
        Self { name, status: Status::Odd, code, finding: finding.into() }
    }

    pub(crate) fn bad(
        name: &'static str,
        code: Option<&'static str>,
        finding: impl Into<String>,
    ) -> Self {
        Self { name, status: Status::Bad, code, finding: finding.into() }
    }
}

/// The directory itself, or the nearest one above it that exists: the one whose disk and
/// permissions count.
pub(crate) fn existing_directory(directory: &Path) -> PathBuf {
    let absolute = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    let existing = absolute.ancestors().find(|ancestor| ancestor.exists());
    existing.map_or_else(|| PathBuf::from("/"), Path::to_owned)
}

/// A file of this process in `directory`, removed when dropped.
struct Probe {
    path: PathBuf,
    file: File,
}

impl Probe {
    fn create(directory: &Path) -> io::Result<Self> {
        let path = directory.join(format!("chronik-doctor-{}.tmp", std::process::id()));
        let file = File::create(&path)?;
        Ok(Self { path, file })
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // A probe that cannot be removed is small, and its name says where it came from.
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether the directory, or the one it would be created in, can be written.
pub(crate) fn writable(directory: &Path) -> Check {
    const NAME: &str = "data directory";
    let existing = existing_directory(directory);
    let shown = directory.display();
    match Probe::create(&existing) {
        Ok(_) if existing.ends_with(directory) || directory.exists() => {
            Check::good(NAME, format!("{shown} can be written"))
        }
        Ok(_) => Check::good(NAME, format!("{shown} does not exist yet and can be created")),
        Err(error) => {
            let owner = fs::metadata(&existing).map_or_else(
                |_| "owner unknown".to_owned(),
                |it| format!("owner {}:{}, mode {:04o}", it.uid(), it.gid(), it.mode() & 0o7777),
            );
            let uid = rustix::process::geteuid().as_raw();
            let finding = format!(
                "cannot write {} ({owner}, we run as uid {uid}): {error}. Change its owner, or \
                 pass --data-dir.",
                existing.display()
            );
            Check::bad(NAME, Some("E010"), finding)
        }
    }
}

/// Whether a server runs on the directory.
pub(crate) fn unlocked(lock: &Path) -> Check {
    const NAME: &str = "lock";
    let Ok(file) = File::open(lock) else {
        return Check::good(NAME, "no server runs on the directory");
    };
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
        return Check::good(NAME, "no server runs on the directory");
    }
    let holder = fs::read_to_string(lock).unwrap_or_default();
    let pid = Some(holder.trim()).filter(|pid| !pid.is_empty()).unwrap_or("unknown");
    let finding = format!("a server runs on the directory (pid {pid}); a second one is refused");
    Check::odd(NAME, Some("E011"), finding)
}

/// Whether the file system keeps what it promises.
pub(crate) fn file_system(directory: &Path) -> Check {
    const NAME: &str = "file system";
    let existing = existing_directory(directory);
    let Some((kind, is_trusted)) = file_system_kind(&existing) else {
        return Check::good(NAME, format!("of {} is not known here", existing.display()));
    };
    if is_trusted {
        return Check::good(NAME, format!("{} is on {kind}", existing.display()));
    }
    let finding = format!(
        "{} is on {kind}: fsync may lie or the data may vanish. Put the directory on a local \
         disk, in a container on a volume.",
        existing.display()
    );
    Check::odd(NAME, Some("W012"), finding)
}

/// Name of the file system, and whether an fsync there means what it should. Numbers are those
/// of `linux/magic.h`.
#[cfg(target_os = "linux")]
fn file_system_kind(directory: &Path) -> Option<(&'static str, bool)> {
    const KINDS: &[(u32, &str, bool)] = &[
        (0xef53, "ext4", true),
        (0x5846_5342, "xfs", true),
        (0x9123_683e, "btrfs", true),
        (0x2fc1_2fc1, "zfs", true),
        (0xf2f5_2010, "f2fs", true),
        (0x794c_7630, "overlayfs", false),
        (0x0102_1994, "tmpfs", false),
        (0x8584_58f6, "ramfs", false),
        (0x6969, "nfs", false),
        (0xff53_4d42, "cifs", false),
        (0xfe53_4d42, "smb2", false),
        (0x6573_5546, "fuse", false),
        (0x0102_1997, "9p", false),
        (0x00c3_6400, "ceph", false),
    ];
    let magic = rustix::fs::statfs(directory).ok()?.f_type as u32;
    let known = KINDS.iter().find(|(number, ..)| *number == magic);
    known.map(|(_, name, is_trusted)| (*name, *is_trusted))
}

#[cfg(not(target_os = "linux"))]
fn file_system_kind(_directory: &Path) -> Option<(&'static str, bool)> {
    None
}

/// Whether there is room for records.
pub(crate) fn free_space(directory: &Path, settings: &WalConfig) -> Check {
    const NAME: &str = "free space";
    let existing = existing_directory(directory);
    let space = match rustix::fs::statvfs(&existing) {
        Ok(space) => space,
        Err(error) => return Check::bad(NAME, None, format!("cannot be read: {error}")),
    };
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    let floor = settings.disk_floor(space.f_blocks.saturating_mul(space.f_frsize));
    let (free_mib, floor_mib) = (free >> 20, floor >> 20);
    if free < floor {
        let finding = format!(
            "{free_mib} MiB free < floor {floor_mib} MiB: produce would be refused. Free some \
             space, or set wal.reserve_bytes."
        );
        return Check::bad(NAME, Some("E070"), finding);
    }
    Check::good(NAME, format!("{free_mib} MiB free, produce stops at {floor_mib} MiB"))
}

/// How long an fsync takes: what acks=all and acks=1 wait for.
pub(crate) fn fsync_latency(directory: &Path, writes: usize) -> Check {
    const NAME: &str = "fsync";
    assert!(writes > 0, "a percentile needs a measurement");
    let measured = Probe::create(&existing_directory(directory))
        .and_then(|mut probe| measure_syncs(&mut probe.file, writes));
    let mut times = match measured {
        Ok(times) => times,
        Err(error) => return Check::bad(NAME, None, format!("cannot be measured: {error}")),
    };
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    let numbers =
        format!("p50 {}, p99 {} ({writes} writes of 4 KiB measured)", in_ms(at(50)), in_ms(at(99)));
    if at(99) < SLOW_FSYNC {
        return Check::good(NAME, numbers);
    }
    Check::odd(NAME, Some("W013"), format!("{numbers}: an acknowledgement cannot be faster"))
}

fn measure_syncs(file: &mut File, writes: usize) -> io::Result<Vec<Duration>> {
    let block = [0xa5; WRITE_BYTES];
    let mut times = Vec::with_capacity(writes);
    for _ in 0..writes {
        let start = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        times.push(start.elapsed());
    }
    Ok(times)
}

fn in_ms(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1_000.0)
}

/// How many bytes a second reach the disk.
pub(crate) fn disk_throughput(directory: &Path) -> Check {
    const NAME: &str = "disk throughput";
    let measured = Probe::create(&existing_directory(directory)).and_then(|mut probe| {
        let block = vec![0xa5; STREAM_BYTES];
        let start = Instant::now();
        for _ in 0..STREAM_WRITES {
            probe.file.write_all(&block)?;
        }
        probe.file.sync_data()?;
        Ok(start.elapsed())
    });
    match measured {
        Ok(elapsed) => {
            let rate = STREAM_WRITES as f64 / elapsed.as_secs_f64();
            Check::good(NAME, format!("{rate:.0} MiB/s ({STREAM_WRITES} MiB, one sync)"))
        }
        Err(error) => Check::bad(NAME, None, format!("cannot be measured: {error}")),
    }
}

/// Whether a listener could be bound. `is_server_running` tells that a server of this directory
/// is there, which is then the likely owner of the port.
pub(crate) fn port_free(
    name: &'static str,
    bind: &Bind,
    port: u16,
    flag: &str,
    is_server_running: bool,
) -> Check {
    let host = match bind {
        Bind::Loopback => "127.0.0.1",
        Bind::Everywhere => "0.0.0.0",
        Bind::Host(host) => host,
    };
    let address = Endpoint { host: host.to_owned(), port };
    match TcpListener::bind((host, port)) {
        Ok(_) => Check::good(name, format!("{address} is free")),
        Err(error) if is_server_running && error.kind() == io::ErrorKind::AddrInUse => {
            Check::odd(name, None, format!("{address} is in use, probably by that server"))
        }
        Err(error) => {
            let finding = format!(
                "cannot listen on {address}: {error}. Stop what uses it, or pass {flag} with \
                 another port."
            );
            Check::bad(name, Some("E001"), finding)
        }
    }
}

/// Whether the name that clients are told leads anywhere.
pub(crate) fn advertised(endpoint: &Endpoint) -> Check {
    const NAME: &str = "advertised address";
    let resolved = (endpoint.host.as_str(), endpoint.port).to_socket_addrs();
    match resolved.map(|addresses| addresses.map(|it| it.ip().to_string()).collect::<Vec<_>>()) {
        Ok(addresses) if !addresses.is_empty() => {
            let list = addresses.join(", ");
            Check::good(NAME, format!("clients are told {endpoint}, which is {list} here"))
        }
        _ => {
            let finding = format!(
                "clients are told {endpoint}, and this machine does not know that name. If \
                 clients do not know it either, pass --advertised-addr with one they know."
            );
            Check::odd(NAME, None, finding)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(test: &str) -> PathBuf {
        let name = format!("chronik-machine-{test}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn a_directory_that_does_not_exist_is_judged_by_the_one_above() {
        let directory = directory("missing");
        let missing = directory.join("a/b");
        assert_eq!(existing_directory(&missing), directory);
        let check = writable(&missing);
        assert_eq!(check.status, Status::Good, "{check:?}");
        assert!(check.finding.contains("can be created"), "{check:?}");
        assert_eq!(file_system(&missing).name, "file system");
        fs::remove_dir(&directory).expect("a look leaves nothing behind");
    }

    #[test]
    fn a_locked_directory_and_a_taken_port_are_told() {
        let directory = directory("lock");
        let lock = directory.join("LOCK");
        fs::write(&lock, "4121\n").unwrap();
        assert_eq!(unlocked(&lock).status, Status::Good, "a lock file alone is no lock");
        let holder = File::open(&lock).unwrap();
        rustix::fs::flock(&holder, FlockOperation::LockExclusive).unwrap();
        let check = unlocked(&lock);
        assert_eq!((check.status, check.code), (Status::Odd, Some("E011")));
        assert!(check.finding.contains("pid 4121"), "{check:?}");

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let look = |is_running| port_free("kafka port", &Bind::Loopback, port, "-p", is_running);
        assert_eq!(look(false).status, Status::Bad);
        assert_eq!(look(true).status, Status::Odd);
        drop(listener);
        assert_eq!(look(false).status, Status::Good);
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_disk_below_its_floor_is_bad() {
        let look = |floor| {
            let settings = WalConfig { reserve_bytes: Some(floor), ..WalConfig::default() };
            free_space(&std::env::temp_dir(), &settings)
        };
        assert_eq!(look(0).status, Status::Good);
        assert_eq!(look(u64::MAX).code, Some("E070"));
    }

    #[test]
    fn a_name_nobody_knows_is_odd() {
        let endpoint = |host: &str| Endpoint { host: host.to_owned(), port: 9_092 };
        assert_eq!(advertised(&endpoint("localhost")).status, Status::Good);
        assert_eq!(advertised(&endpoint("no-such-host.invalid")).status, Status::Odd);
    }
}
