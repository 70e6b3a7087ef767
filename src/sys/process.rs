//! Owns [`Process`]: the main process of a job by its pidfd, from its birth to its reaping: a child
//! of ours, or what a dead host has left.
//!
//! Invariant: a process is only ever named by its pidfd, so a number that was used again is never
//! hit. Of a process whose exit is not known, there is a reason. Knows nothing of cgroups beyond
//! the descriptor to be born in.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::readlink;
use rustix::io::Errno;

use crate::command::Signal;
use crate::event::{Exit, Usage};
use crate::sys::calls::{self, Reap};
use crate::sys::stat::Stat;

/// A child of ours, or what a dead host has left.
#[derive(Debug)]
pub(crate) struct Process {
    pid: u32,
    pidfd: OwnedFd,
    origin: Origin,
}

/// Where a process comes from.
#[derive(Clone, Copy, Debug)]
enum Origin {
    /// We have cloned it.
    Child,
    /// Another host has cloned it.
    Left,
    /// It has ended before we came, in this way. Its descriptor is no pidfd.
    Past { exit: Exit, usage: Usage, reason: &'static str },
}

/// Why nobody can say how a process has ended that another host has cloned.
pub(crate) const NOT_TOLD: &str = "its main process was not a child of this host and was reaped \
                                   by its new parent at once, and before Linux 6.15 the kernel \
                                   does not keep how a process has ended";

impl Process {
    /// A child that was just cloned.
    pub(crate) fn new(pid: u32, pidfd: OwnedFd) -> Self {
        Self { pid, pidfd, origin: Origin::Child }
    }

    /// A process that another host has cloned. It may be a child of ours: a host that
    /// executes another program keeps its children.
    pub(crate) fn left(pid: u32, pidfd: OwnedFd) -> Self {
        Self { pid, pidfd, origin: Origin::Left }
    }

    /// A process that has ended before, with the reason if it is not known how. Its descriptor is
    /// one that is ready, as that of a process is that has ended.
    pub(crate) fn past(
        pid: u32,
        exit: Exit,
        usage: Usage,
        reason: &'static str,
    ) -> io::Result<Self> {
        let ready = eventfd(1, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { pid, pidfd: ready, origin: Origin::Past { exit, usage, reason } })
    }

    /// Why it is not known how it has ended, if that is so; of a child, the host knows why.
    pub(crate) fn why_unknown(&self) -> Option<&'static str> {
        match self.origin {
            Origin::Child => None,
            Origin::Left => Some(NOT_TOLD),
            Origin::Past { reason, .. } => Some(reason),
        }
    }

    /// Whether this is a process, rather than what is known of one that has ended.
    pub(crate) fn is_process(&self) -> bool {
        !matches!(self.origin, Origin::Past { .. })
    }

    /// Whether it has ended before we came, and nobody knows how: perhaps not even which it was.
    pub(crate) fn is_unknown(&self) -> bool {
        matches!(self.origin, Origin::Past { exit: Exit::Unknown, .. })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn pidfd(&self) -> &OwnedFd {
        &self.pidfd
    }

    /// How it ended and what it used, once it has; see [`Reap`] for what becomes of the zombie.
    pub(crate) fn wait(&self, reap: Reap) -> io::Result<Option<(Exit, Usage)>> {
        match self.origin {
            Origin::Past { exit, usage, .. } => Ok(Some((exit, usage))),
            Origin::Child | Origin::Left => calls::wait(&self.pidfd, reap),
        }
    }

    /// How it ended, when somebody else has reaped it; `None` while that is being done.
    pub(crate) fn exit_after_reap(&self) -> Option<Exit> {
        match self.origin {
            Origin::Child => calls::exit_after_reap(&self.pidfd),
            // Its new parent may take its time, or never reap it.
            Origin::Left => {
                zombie_exit(self.pid, &self.pidfd).or_else(|| calls::exit_after_reap(&self.pidfd))
            }
            Origin::Past { exit, .. } => Some(exit),
        }
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
        if self.is_process() { send(&self.pidfd, signal) } else { Ok(()) }
    }
}

/// How a process has ended that somebody else is to reap, as /proc tells as long as that has not
/// happened; `None` when it does not.
fn zombie_exit(pid: u32, pidfd: &OwnedFd) -> Option<Exit> {
    let stat = Stat::of(pid).ok().flatten()?;
    if stat.state != b'Z' {
        return None;
    }
    let status = stat.exit_code?;
    // Who may not know reads zero. The link of the program can be followed by whoever may, but
    // leads nowhere once the process has ended.
    let told = status != 0
        || matches!(readlink(format!("/proc/{pid}/exe"), Vec::new()), Err(Errno::NOENT));
    // What was read is that of this process if it has its number still: it was not reaped.
    let same = calls::pid_of(pidfd) == Some(pid);
    (told && same).then(|| calls::decode_exit(status))
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

/// Whether this is what pidfd_open says of a number that no process has: it is free, or a thread
/// that leads none has it (`EINVAL`, on newer kernels `ENOENT`).
pub(crate) fn is_no_process(errno: Errno) -> bool {
    matches!(errno, Errno::SRCH | Errno::INVAL | Errno::NOENT)
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
