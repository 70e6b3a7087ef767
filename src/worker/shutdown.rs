//! Owns [`Shutdown`]: how a worker ends its jobs.
//!
//! Plain data; knows nothing of how that is done.

use std::time::Duration;

/// How [`Worker::shutdown`](crate::Worker::shutdown) ends the jobs that are running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Shutdown {
    /// As [`Job::stop`](crate::worker::Job::stop): each job gets its stop signal and has its own
    /// grace period.
    Stop,
    /// As [`Stop`](Self::Stop), but with this grace period.
    StopWithin(Duration),
    /// As [`Job::kill`](crate::worker::Job::kill).
    Kill,
}
