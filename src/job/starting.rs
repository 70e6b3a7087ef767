//! Owns [`Starting`]: the jobs that threads of this host are starting, until each is adopted.
//!
//! Invariant: a job is in it before anything is made for it, so that whoever finds a cgroup or a
//! log of no known job can tell what is about to be one.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::id::JobId;

/// The jobs that are being started.
#[derive(Clone, Debug, Default)]
pub(super) struct Starting(Arc<Mutex<HashSet<JobId>>>);

/// A job that is one of them until this is dropped.
#[derive(Debug)]
pub(super) struct Start {
    job: JobId,
    starting: Starting,
}

impl Starting {
    /// A job is begun.
    pub(super) fn begin(&self, job: JobId) -> Start {
        self.jobs().insert(job);
        Start { job, starting: self.clone() }
    }

    /// Whether this job is one of them.
    pub(super) fn contains(&self, job: JobId) -> bool {
        self.jobs().contains(&job)
    }

    fn jobs(&self) -> MutexGuard<'_, HashSet<JobId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Start {
    fn drop(&mut self) {
        self.starting.jobs().remove(&self.job);
    }
}
