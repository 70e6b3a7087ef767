//! Owns what layer 1 needs of the reactor beyond its public methods.
//!
//! Invariant: each method only delegates. Knows nothing of threads.

use std::sync::Arc;

use crate::error::{Result, TailError};
use crate::id::{JobId, TailId, Token};
use crate::job::{Job, Launcher, Linux};
use crate::reactor::reactor::Reactor;

impl Reactor {
    /// Starts jobs on any thread, for [`adopt`](Self::adopt).
    pub(crate) fn launcher(&self) -> &Arc<Launcher> {
        &self.launcher
    }

    /// How many jobs have to be ended when the reactor is dropped.
    pub(crate) fn attached(&self) -> usize {
        self.jobs.attached()
    }

    /// Whether that is one of them.
    pub(crate) fn is_attached(&self, job: JobId) -> bool {
        self.jobs.get(job).is_ok_and(Job::is_attached)
    }

    /// Opens another tail on the log of a tail, as that would be had it read only up to `offset`,
    /// where the bytes `last` end.
    pub(crate) fn branch(&mut self, tail: TailId, offset: u64, last: &[u8]) -> Result<TailId> {
        self.check_process()?;
        let Linux { logs, queue, .. } = &mut self.system;
        let branch = logs.branch(tail, (offset, last), Token::default(), queue);
        self.tell_host()?;
        branch.ok_or_else(|| TailError::Unknown(tail).into())
    }

    /// Whether a tail has read exactly what is known of its log.
    pub(crate) fn is_at_end(&self, tail: TailId) -> bool {
        self.system.logs.is_at_end(tail)
    }
}
