//! Waiting for sockets and for a point in time.
//!
//! On Linux one epoll instance and one timer file per worker: a wait for a time is precise to the
//! scheduler, where epoll's own timeout has steps of a millisecond. Elsewhere poll(2), good
//! enough to use the tool, not to compare figures.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// What a socket is ready for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ready {
    /// The number under which the socket was added.
    pub token: usize,
    /// It can be read, or has an end or an error to be read.
    pub is_readable: bool,
    /// It can be written.
    pub is_writable: bool,
}

#[cfg(target_os = "linux")]
pub use linux::Poller;
#[cfg(not(target_os = "linux"))]
pub use portable::Poller;

#[cfg(target_os = "linux")]
mod linux {
    use std::mem::MaybeUninit;
    use std::os::fd::OwnedFd;

    use rustix::event::{Timespec, epoll};
    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create,
        timerfd_settime,
    };

    use super::*;

    /// Sockets told ready by one wait.
    const EVENTS_MAX: usize = 256;

    /// Token of the timer file.
    const TIMER: u64 = u64::MAX;

    /// Waits longer than this are left to epoll's own timeout.
    const PRECISE_MAX: Duration = Duration::from_millis(20);

    /// See the module.
    #[derive(Debug)]
    pub struct Poller {
        epoll: OwnedFd,
        timer: OwnedFd,
    }

    impl Poller {
        /// A poller without sockets.
        ///
        /// # Errors
        /// If the system has no more file descriptors.
        pub fn new() -> io::Result<Self> {
            let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
            let data = epoll::EventData::new_u64(TIMER);
            epoll::add(&epoll, &timer, data, epoll::EventFlags::IN | epoll::EventFlags::ET)?;
            Ok(Self { epoll, timer })
        }

        /// Watches a socket for input, and for room to write if `wants_write`.
        ///
        /// # Errors
        /// If the socket is watched already.
        pub fn add(
            &mut self,
            fd: BorrowedFd<'_>,
            token: usize,
            wants_write: bool,
        ) -> io::Result<()> {
            let data = epoll::EventData::new_u64(token as u64);
            Ok(epoll::add(&self.epoll, fd, data, interest(wants_write))?)
        }

        /// Changes what a watched socket is watched for.
        ///
        /// # Errors
        /// If the socket is not watched.
        pub fn modify(
            &mut self,
            fd: BorrowedFd<'_>,
            token: usize,
            wants_write: bool,
        ) -> io::Result<()> {
            let data = epoll::EventData::new_u64(token as u64);
            Ok(epoll::modify(&self.epoll, fd, data, interest(wants_write))?)
        }

        /// Stops watching a socket that is about to be closed.
        pub fn remove(&mut self, fd: BorrowedFd<'_>, _token: usize) {
            // Closing removes it as well.
            let _ = epoll::delete(&self.epoll, fd);
        }

        /// Waits until a socket is ready or `timeout` is over; `None` waits for sockets only.
        ///
        /// # Errors
        /// Those of epoll, but for signals.
        pub fn wait(
            &mut self,
            timeout: Option<Duration>,
            ready: &mut Vec<Ready>,
        ) -> io::Result<()> {
            ready.clear();
            let precise = timeout.filter(|timeout| !timeout.is_zero() && *timeout < PRECISE_MAX);
            if let Some(timeout) = precise {
                let it_value = timespec(timeout);
                let spec = Itimerspec { it_interval: timespec(Duration::ZERO), it_value };
                timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &spec)?;
            }
            let timeout = if precise.is_some() { None } else { timeout.map(timespec) };
            let mut room = [const { MaybeUninit::<epoll::Event>::uninit() }; EVENTS_MAX];
            let (events, _) = match epoll::wait(&self.epoll, &mut room, timeout.as_ref()) {
                Ok(events) => events,
                Err(rustix::io::Errno::INTR) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            for event in events {
                let (flags, data) = (event.flags, event.data.u64());
                if data != TIMER {
                    let readable =
                        epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR;
                    ready.push(Ready {
                        token: data as usize,
                        is_readable: flags.intersects(readable),
                        is_writable: flags.contains(epoll::EventFlags::OUT),
                    });
                }
            }
            Ok(())
        }
    }

    fn interest(wants_write: bool) -> epoll::EventFlags {
        if wants_write {
            epoll::EventFlags::IN | epoll::EventFlags::OUT
        } else {
            epoll::EventFlags::IN
        }
    }

    fn timespec(duration: Duration) -> Timespec {
        Timespec {
            tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: duration.subsec_nanos().into(),
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod portable {
    use std::os::fd::OwnedFd;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    /// See the module.
    #[derive(Debug)]
    pub struct Poller {
        /// Copies of the sockets, with their tokens and whether writing is of interest.
        watched: Vec<(OwnedFd, usize, bool)>,
    }

    impl Poller {
        /// A poller without sockets.
        ///
        /// # Errors
        /// None.
        pub fn new() -> io::Result<Self> {
            Ok(Self { watched: Vec::new() })
        }

        /// Watches a socket for input, and for room to write if `wants_write`.
        ///
        /// # Errors
        /// If there are no more file descriptors.
        pub fn add(
            &mut self,
            fd: BorrowedFd<'_>,
            token: usize,
            wants_write: bool,
        ) -> io::Result<()> {
            self.watched.push((fd.try_clone_to_owned()?, token, wants_write));
            Ok(())
        }

        /// Changes what a watched socket is watched for.
        ///
        /// # Errors
        /// If there are no more file descriptors.
        pub fn modify(
            &mut self,
            fd: BorrowedFd<'_>,
            token: usize,
            wants_write: bool,
        ) -> io::Result<()> {
            self.remove(fd, token);
            self.add(fd, token, wants_write)
        }

        /// Stops watching a socket that is about to be closed.
        pub fn remove(&mut self, _fd: BorrowedFd<'_>, token: usize) {
            self.watched.retain(|(_, other, _)| *other != token);
        }

        /// Waits until a socket is ready or `timeout` is over; `None` waits for sockets only.
        ///
        /// # Errors
        /// Those of poll, but for signals.
        pub fn wait(
            &mut self,
            timeout: Option<Duration>,
            ready: &mut Vec<Ready>,
        ) -> io::Result<()> {
            ready.clear();
            let flags = |wants_write: bool| {
                if wants_write { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN }
            };
            let mut fds: Vec<_> =
                self.watched.iter().map(|(fd, _, wants)| PollFd::new(fd, flags(*wants))).collect();
            let timeout = timeout.map(|timeout| Timespec {
                tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: timeout.subsec_nanos().into(),
            });
            match poll(&mut fds, timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for (fd, (_, token, _)) in fds.iter().zip(&self.watched) {
                let found = fd.revents();
                let is_readable = found.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR);
                let is_writable = found.contains(PollFlags::OUT);
                if is_readable || is_writable {
                    ready.push(Ready { token: *token, is_readable, is_writable });
                }
            }
            Ok(())
        }
    }
}
