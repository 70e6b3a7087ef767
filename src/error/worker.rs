//! Owns [`WorkerError`]: why a worker does not do what it is asked.
//!
//! Knows nothing of threads.

use crate::error::kind::ErrorKind;

/// The thread of a [`Worker`](crate::Worker) is gone, or cannot be waited for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// The worker was shut down.
    #[error("the worker was shut down")]
    ShutDown,
    /// The thread has panicked: the jobs were killed as when a reactor is dropped.
    #[error("the thread of the worker has panicked, and its jobs were killed: {message}")]
    #[non_exhaustive]
    Panicked {
        /// What the panic said.
        message: String,
    },
    /// The loop has failed: the jobs were killed as when a reactor is dropped.
    #[error("the loop of the worker has failed, and its jobs were killed: {cause}")]
    #[non_exhaustive]
    Failed {
        /// The error of [`Reactor::poll`](crate::Reactor::poll).
        cause: String,
    },
    /// The thread of the worker would wait for itself: a task waker has made a call that blocks.
    #[error("a call that blocks was made on the thread of the worker, by a waker that must not")]
    OwnThread,
}

impl WorkerError {
    pub(super) fn kind(&self) -> ErrorKind {
        match self {
            Self::ShutDown | Self::OwnThread => ErrorKind::State,
            Self::Panicked { .. } | Self::Failed { .. } => ErrorKind::Other,
        }
    }
}
