//! Owns [`Recovered`]: a job that an earlier host has left, as it was found.
//!
//! Plain data; knows nothing of how it was found.

use crate::id::JobId;

/// A job that was taken over from an earlier host, by
/// [`Reactor::recover`](crate::Reactor::recover).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovered {
    /// The job, with the id that it had.
    pub job: JobId,
    /// The [`label`](crate::Command::label) of its command, or what it was changed to.
    pub label: Vec<u8>,
    /// What was run, as its command prints it, without the environment; cut after 8 KiB.
    pub command: String,
    /// How it was found.
    pub found: Found,
}

/// How a job was found by [`Reactor::recover`](crate::Reactor::recover).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Found {
    /// Its main process is there, even if the earlier host has died while it started the job. It
    /// may be a zombie that nobody has reaped, whose exit is known then; that of one whose program
    /// could not be executed, with nobody there to hear of it, is 127.
    Running,
    /// Its main process has ended: others may be left, with which its end policy goes on.
    Exited,
    /// It was finished, and the earlier host has not [removed](crate::Reactor::remove) it. Its
    /// report is that of its record or, if that is lost, of the
    /// [history](crate::Config::history).
    Finished,
    /// The earlier host has died while it started the job, before the record was complete, and its
    /// main process is not there: it has ended since, or there never was one. The program may have
    /// run, even to its end, and what is left of it is killed.
    Interrupted,
    /// Its record makes no sense, or is missing although a process was in its cgroup: a process of
    /// the host's user or of root has done that, for nobody else can. What is left of it is killed,
    /// and its log is kept when it is [removed](crate::Reactor::remove), for nobody knows whether
    /// [that was wanted](crate::Command::keep_log).
    Damaged,
}
