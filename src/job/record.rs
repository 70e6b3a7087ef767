//! Owns [`Record`]: what is known of a job for as long as it exists, from its spawn on.
//!
//! Invariant: nothing here changes or refers to an open resource, so a record can be stored and
//! read by another process.

use std::time::{Duration, Instant, SystemTime};

use crate::command::{Command, EndPolicy, Signal};
use crate::id::JobId;
use crate::job::life::Grace;

/// The facts about a job that never change.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    id: JobId,
    pid: u32,
    started: SystemTime,
    /// The same moment on the clock that deadlines are measured by.
    spawned: Instant,
    policies: Policies,
}

/// What a command says about the life of its job.
#[derive(Clone, Debug)]
pub(crate) struct Policies {
    pub(crate) end: EndPolicy,
    pub(crate) stop_signal: Signal,
    pub(crate) grace: Duration,
    pub(crate) time_limit: Option<Duration>,
    pub(crate) detached: bool,
    pub(crate) keep_log: bool,
    pub(crate) accounting: bool,
}

impl Policies {
    pub(crate) fn of(command: &Command) -> Self {
        Self {
            end: command.end_policy,
            stop_signal: command.stop_signal,
            grace: command.grace,
            time_limit: command.time_limit,
            detached: command.detached,
            keep_log: command.keep_log,
            accounting: command.accounting.unwrap_or(!command.limits.is_empty()),
        }
    }
}

impl Record {
    pub(crate) fn new(
        id: JobId,
        pid: u32,
        (spawned, started): (Instant, SystemTime),
        policies: Policies,
    ) -> Self {
        Self { id, pid, started, spawned, policies }
    }

    pub(crate) fn id(&self) -> JobId {
        self.id
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn started(&self) -> SystemTime {
        self.started
    }

    pub(crate) fn spawned(&self) -> Instant {
        self.spawned
    }

    pub(crate) fn policies(&self) -> &Policies {
        &self.policies
    }

    /// When the time limit is reached; `None` also for one that is further off than the clock can
    /// represent.
    pub(crate) fn time_limit(&self) -> Option<Instant> {
        self.policies.time_limit.and_then(|limit| self.spawned.checked_add(limit))
    }

    /// The grace period that begins now, of this length or of the command's own.
    pub(crate) fn grace(&self, now: Instant, length: Option<Duration>) -> Grace {
        let length = length.unwrap_or(self.policies.grace);
        match now.checked_add(length) {
            _ if length.is_zero() => Grace::Over,
            Some(until) => Grace::Until(until),
            None => Grace::Unlimited,
        }
    }
}
