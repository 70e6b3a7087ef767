//! Owns [`Timer`], a timerfd: the one of the loop, and that of a sweep.
//!
//! Invariant: the timerfd is set to the earliest deadline or not at all, so it never wakes for
//! nothing. A timerfd, because epoll counts in milliseconds and because a host that polls our
//! descriptor cannot know our timeouts.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Instant;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use crate::error::{Error, Result};

/// A timer that makes a file descriptor readable.
#[derive(Debug)]
pub(crate) struct Timer {
    fd: OwnedFd,
    set_to: Option<Instant>,
}

impl Timer {
    pub(crate) fn new() -> Result<Self> {
        let fd = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )
        .map_err(Error::event_loop("create a timer"))?;
        Ok(Self { fd, set_to: None })
    }

    /// Sets it to this moment, or to never. Costs nothing when it is set so already.
    pub(crate) fn set(&mut self, to: Option<Instant>) -> Result<()> {
        if self.set_to == to {
            return Ok(());
        }
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = to.map_or(never, |at| {
            let left = at.saturating_duration_since(Instant::now());
            let tv_sec = i64::try_from(left.as_secs()).unwrap_or(i64::MAX);
            // All zero would disarm it: what is due already is due in a nanosecond.
            let tv_nsec = if left.is_zero() { 1 } else { left.subsec_nanos().into() };
            Timespec { tv_sec, tv_nsec }
        });
        let new = Itimerspec { it_interval: never, it_value: value };
        timerfd_settime(&self.fd, TimerfdTimerFlags::empty(), &new)
            .map_err(Error::event_loop("set the timer"))?;
        self.set_to = to;
        Ok(())
    }

    /// It has fired. The expiration need not be read: the descriptor is watched edge-triggered, and
    /// the next setting clears it.
    pub(crate) fn fired(&mut self) {
        self.set_to = None;
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
