//! Owns [`RecoveredJobs`]: what a worker has taken over from an earlier host.
//!
//! Plain data; knows nothing of how it was found.

use crate::error::Error;
use crate::event::Recovered;
use crate::worker::job::Job;

/// What [`Worker::recover`](crate::Worker::recover) has taken over.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct RecoveredJobs {
    /// The jobs, as they were found, each with a handle.
    pub jobs: Vec<(Recovered, Job)>,
    /// Why others were not taken over, one error for each; they are left as they are.
    pub errors: Vec<Error>,
}
