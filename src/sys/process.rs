//! Owns [`Process`]: a child of ours by its pidfd, from its birth to its reaping.
//!
//! Invariant: a process is only ever named by its pidfd, so a number that was used again is never
//! hit. Knows nothing of cgroups beyond the descriptor to be born in.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::command::Signal;
use crate::event::{Exit, Usage};
use crate::sys::calls::{self, Reap};

/// A child of ours.
#[derive(Debug)]
pub(crate) struct Process {
    pid: u32,
    pidfd: OwnedFd,
}

impl Process {
    /// A child that was just cloned.
    pub(crate) fn new(pid: u32, pidfd: OwnedFd) -> Self {
        Self { pid, pidfd }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn pidfd(&self) -> &OwnedFd {
        &self.pidfd
    }

    /// How it ended and what it used, once it has; see [`Reap`] for what becomes of the zombie.
    pub(crate) fn wait(&self, reap: Reap) -> io::Result<Option<(Exit, Usage)>> {
        calls::wait(&self.pidfd, reap)
    }

    /// How it ended, when somebody else has reaped it; `None` while that is being done.
    pub(crate) fn exit_after_reap(&self) -> Option<Exit> {
        calls::exit_after_reap(&self.pidfd)
    }

    /// Kills it and reaps it. Returns whether it is gone, which takes longer than `timeout` only
    /// when the kernel cannot end it, as while it waits for a file system that does not answer.
    pub(crate) fn end(&self, timeout: Duration) -> bool {
        let _ = self.signal(Signal::KILL);
        let dying = &mut [PollFd::new(&self.pidfd, PollFlags::IN)];
        // Somebody else may have reaped it (ECHILD), but then it is gone as well.
        await_any(dying, Instant::now().checked_add(timeout))
            && !matches!(self.wait(Reap::Now), Ok(None))
    }

    /// How it has ended, without reaping it; `None` when it has not within `timeout`.
    pub(crate) fn await_end(&self, timeout: Duration) -> Option<Exit> {
        let ended = &mut [PollFd::new(&self.pidfd, PollFlags::IN)];
        if !await_any(ended, Instant::now().checked_add(timeout)) {
            return None;
        }
        match self.wait(Reap::Peek) {
            Ok(ended) => ended.map(|(exit, _)| exit),
            // Somebody else has reaped it.
            Err(_) => Some(self.exit_after_reap().unwrap_or(Exit::Unknown)),
        }
    }

    /// Whether the kernel signals process groups by the pidfd of their leader.
    pub(crate) fn signals_group_by_pidfd(&self) -> bool {
        let found = calls::pidfd_signal_group(&self.pidfd, None);
        !found.is_err_and(|error| {
            matches!(Errno::from_io_error(&error), Some(Errno::INVAL | Errno::NOSYS))
        })
    }

    /// Sends a signal to the process group that it leads, or checks without a signal whether the
    /// group has any process, zombies included; returns whether it has. The kernel finds the group
    /// by the pidfd, so it can be no other one, even if the leader was reaped.
    pub(crate) fn signal_group(&self, signal: Option<Signal>) -> io::Result<bool> {
        any(calls::pidfd_signal_group(&self.pidfd, signal))
    }

    /// Like [`signal_group`](Self::signal_group), for kernels that signal a group only by number.
    /// That is ours as long as the leader was not reaped; if somebody else has done that, nothing
    /// is signalled.
    pub(crate) fn signal_group_by_number(&self, signal: Option<Signal>) -> io::Result<bool> {
        match calls::wait(&self.pidfd, Reap::Peek) {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::CHILD) => return Ok(false),
            waited => waited?,
        };
        signal.map_or(Ok(true), |signal| any(calls::kill_process_group(self.pid, signal)))
    }

    /// Sends a signal; a process that has exited is fine.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        send(&self.pidfd, signal)
    }
}

/// Whether a process group has any process, as the result of a signal to it says.
fn any(sent: io::Result<()>) -> io::Result<bool> {
    match sent {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::SRCH) => Ok(false),
        sent => sent.map(|()| true),
    }
}

/// Whether the process behind a pidfd has exited, as far as can be told now.
pub(crate) fn has_exited(pidfd: &OwnedFd) -> bool {
    let ready = poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&Timespec::default()));
    ready.is_ok_and(|ready| ready > 0)
}

/// Sends a signal through a pidfd; a process that has exited is fine.
pub(crate) fn send(pidfd: &OwnedFd, signal: Signal) -> io::Result<()> {
    match calls::pidfd_send_signal(pidfd, signal) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::SRCH) => Ok(()),
        other => other,
    }
}

/// Waits until one of these is ready, or until `until`; returns whether one is.
pub(super) fn await_any(ready: &mut [PollFd<'_>], until: Option<Instant>) -> bool {
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        // A time that does not fit is as good as none.
        let timeout = left.and_then(|left| left.try_into().ok());
        match poll(ready, timeout.as_ref()) {
            Ok(number) => return number > 0,
            Err(Errno::INTR) => {}
            // No descriptor is invalid and all are in reach; when memory runs out, the rest of the
            // time is not waited for.
            Err(_) => return false,
        }
    }
}
