//! What threads ask of the operating system's scheduler.
//!
//! The only crate with unsafe code: one system call that no safe library wraps. Everything else
//! in the workspace forbids it.

use std::io;
use std::time::Duration;

/// Asks for a time slice of `slice` for the calling thread, which keeps its policy and priority.
///
/// A thread with a short slice runs soon after it wakes instead of behind the slices of others:
/// right for a thread that computes little and waits often. A wish: kernels before Linux 6.12
/// ignore it, and nothing may depend on it. Linux uses values between 0.1 ms and 100 ms.
///
/// # Errors
/// What the kernel answers, for example `EPERM` for a thread under another policy, and
/// [`io::ErrorKind::Unsupported`] on other systems.
#[cfg(target_os = "linux")]
pub fn request_slice(slice: Duration) -> io::Result<()> {
    let mut attributes = current_attributes()?;
    attributes.sched_runtime = u64::try_from(slice.as_nanos()).unwrap_or(u64::MAX);
    // SAFETY: the kernel reads `size` bytes at the pointer, which is the size of the structure it
    // points to, and only during the call. Thread 0 is the calling thread.
    #[allow(unsafe_code, reason = "no safe library wraps this call")]
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// See the Linux version; here it is not offered.
///
/// # Errors
/// Always [`io::ErrorKind::Unsupported`].
#[cfg(not(target_os = "linux"))]
pub fn request_slice(_slice: Duration) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(target_os = "linux")]
const ATTRIBUTES_SIZE: u32 = size_of::<libc::sched_attr>() as u32;

/// Attributes of the calling thread.
#[cfg(target_os = "linux")]
fn current_attributes() -> io::Result<libc::sched_attr> {
    let mut attributes = libc::sched_attr {
        size: ATTRIBUTES_SIZE,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    let size = libc::c_long::from(ATTRIBUTES_SIZE);
    let (thread, flags) = (0, 0);
    // SAFETY: the kernel writes at most `size` bytes to the pointer, which is the size of the
    // structure it points to, and only during the call.
    #[allow(unsafe_code, reason = "no safe library wraps this call")]
    let result =
        unsafe { libc::syscall(libc::SYS_sched_getattr, thread, &raw mut attributes, size, flags) };
    if result == 0 { Ok(attributes) } else { Err(io::Error::last_os_error()) }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_gets_the_slice_it_asks_for_and_keeps_its_policy_and_niceness() {
        let thread = std::thread::spawn(|| {
            let before = current_attributes().expect("the kernel tells a thread's attributes");
            request_slice(Duration::from_micros(300)).expect("any thread may ask");
            let after = current_attributes().expect("as before");
            assert_eq!(after.sched_policy, before.sched_policy);
            assert_eq!(after.sched_nice, before.sched_nice);
            // Kernels without slices per thread show 0, before and after.
            let expected = if before.sched_runtime == 0 { 0 } else { 300_000 };
            assert_eq!(after.sched_runtime, expected);
        });
        thread.join().expect("no assertion failed");
    }
}
