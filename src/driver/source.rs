//! Owns the names of what the driver watches: [`Source`], what a registration was made for, and
//! [`Notice`], what is noticed about it.
//!
//! Invariant: a source is named by the generational key of its owner, so that a late notice never
//! reaches somebody else. Knows nothing of what the sources mean.

use crate::event::Stallable;
use crate::id::Key;

/// What a registration was made for; every notice about it brings this back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// The file of this log.
    Log(Key),
    /// The name that this tail follows.
    Name(Key),
    /// A directory, for the names in it.
    Directory,
    /// Something of this job.
    Job(Key, JobSource),
    /// A pressure trigger for the whole system.
    SystemPressure(Stallable),
    /// Something of the sweep that is going on.
    Sweep,
    /// The pidfd of a process that an ended job has left to this one.
    Orphan,
    /// The connection to the keeper.
    Keeper,
}

/// What a job has registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum JobSource {
    /// The pidfd of its main process.
    MainProcess,
    /// The pidfd of a process that the main one left behind.
    Survivor,
    /// The file cgroup.events of its cgroup.
    GroupEvents,
    /// The file memory.events of its cgroup.
    MemoryEvents,
    /// The host's end of its terminal.
    Terminal,
    /// Its pressure trigger for this resource.
    Pressure(Stallable),
}

/// Names a descriptor that is registered with the epoll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Registration(pub(crate) Key);

/// What was noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// A registered descriptor is ready; `priority` if that was reported as well.
    Ready { registration: Registration, source: Source, priority: bool },
    /// Something happened to a watched file; a hint, whatever the number of changes.
    Changed(Source),
    /// The kernel has removed the watch of a file.
    WatchLost(Source),
    /// The kernel's queue of inotify events overflowed: any watched file may have changed.
    Overflow,
    /// A [`Waker`](crate::Waker) was used.
    Woken,
}
