//! Owns [`Record`]: what is known of a job for as long as it exists, from its spawn on.
//!
//! Invariant: nothing here refers to an open resource. Nothing of it changes but what is [`Stored`]
//! of a job that survives its host.

use std::time::{Duration, Instant, SystemTime};

use crate::command::{Command, EndPolicy, Output, OverLimit, Signal};
use crate::id::JobId;
use crate::job::life::Grace;
use crate::job::stored::Stored;

/// The facts about a job.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    id: JobId,
    pid: u32,
    started: SystemTime,
    /// The same moment on the clock that deadlines are measured by.
    spawned: Instant,
    policies: Policies,
    /// What is kept of it, for the next host if it survives this one, and for the history if there
    /// is one.
    stored: Option<Box<Stored>>,
}

/// What a command says about the life of its job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Policies {
    pub(crate) end: EndPolicy,
    pub(crate) stop_signal: Signal,
    pub(crate) grace: Duration,
    pub(crate) time_limit: Option<Duration>,
    pub(crate) detached: bool,
    pub(crate) survives: bool,
    pub(crate) keep_log: bool,
    /// What happens when a log becomes too long, if that is limited.
    pub(crate) over_limit: Option<OverLimit>,
    /// Whether the host writes the log, and waits until that is possible.
    pub(crate) has_terminal: bool,
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
            survives: command.survives,
            keep_log: command.keep_log,
            has_terminal: matches!(command.output, Output::Terminal(_)),
            over_limit: command.log_limit.map(|(_, then)| then),
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
        Self { id, pid, started, spawned, policies, stored: None }
    }

    /// The record of a job of which something is kept.
    pub(crate) fn of_stored(stored: Stored, spawned: Instant) -> Self {
        let (id, started, policies) = (stored.id, stored.started, stored.policies.clone());
        let pid = stored.main.map_or(0, |main| main.pid);
        Self { id, pid, started, spawned, policies, stored: Some(Box::new(stored)) }
    }

    /// What is kept of the job.
    pub(crate) fn stored(&self) -> Option<&Stored> {
        self.stored.as_deref()
    }

    /// What is kept of the job for the next host, if it survives this one.
    pub(crate) fn lasting(&self) -> Option<&Stored> {
        self.stored().filter(|stored| stored.policies.survives)
    }

    /// The same, to change it.
    pub(crate) fn lasting_mut(&mut self) -> Option<&mut Stored> {
        self.stored.as_deref_mut().filter(|stored| stored.policies.survives)
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
