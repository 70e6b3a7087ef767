//! Owns what layer 1 needs of the reactor beyond its public methods.
//!
//! Invariant: each method only delegates. Knows nothing of threads.

use std::sync::Arc;

use crate::error::{Result, TailError};
use crate::id::{JobId, TailId, Token};
use crate::job::{Job, Launcher, Linux};
use crate::log::{Excerpt, LogFile, Mark};
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

    /// Whether a job is kept until the host has removed it, so that it is not to be removed
    /// unasked.
    pub(crate) fn survives(&self, job: JobId) -> bool {
        self.jobs.get(job).is_ok_and(|job| job.record().policies().survives)
    }

    /// Opens another tail on the log of a tail, as that would be had it read only up to `offset`,
    /// where the bytes `last` end.
    pub(crate) fn branch(
        &mut self,
        tail: TailId,
        offset: u64,
        last: Mark,
        token: Token,
    ) -> Result<TailId> {
        self.check_process()?;
        let Linux { logs, queue, .. } = &mut self.system;
        let branch = logs.branch(tail, (offset, last), token, queue);
        self.tell_host()?;
        branch.ok_or_else(|| TailError::Unknown(tail).into())
    }

    /// The bytes that are there for a tail, to be read on another thread; `None` when there are
    /// none, and [`fill_buf`](Self::fill_buf) says why.
    pub(crate) fn excerpt(&self, tail: TailId) -> Option<Excerpt<LogFile>> {
        self.system.logs.excerpt(tail)
    }

    /// What is left of a tail up to the end of its log, for a reader that goes on without the
    /// reactor; `None` as long as the end is not known, or when a truncation is to be reported
    /// first.
    pub(crate) fn rest(&self, tail: TailId) -> Option<Excerpt<LogFile>> {
        self.system.logs.rest(tail)
    }

    /// A tail was read by its excerpt, up to `offset`, where the bytes of the mark end.
    pub(crate) fn was_read(&mut self, tail: TailId, offset: u64, last: Mark) {
        self.system.logs.was_read(tail, offset, last);
    }

    /// Whether a tail has read exactly what is known of its log.
    pub(crate) fn is_at_end(&self, tail: TailId) -> bool {
        self.system.logs.is_at_end(tail)
    }
}
