//! Owns [`TailError`]: why a log cannot be read.
//!
//! Knows nothing of how logs are read.

use std::io;
use std::path::PathBuf;

use crate::error::kind::{ErrorKind, hint};
use crate::id::{JobId, Stream, TailId};

/// A log cannot be opened, watched or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TailError {
    /// The tail was closed, its job was removed, or it belongs to another reactor.
    #[error("no such tail: it was closed, its job was removed, or it belongs to another reactor")]
    Unknown(TailId),
    /// The job has no log of this stream.
    #[error("job {job} has no log for {stream}: its command chose another Output")]
    #[non_exhaustive]
    NoLog {
        /// The job.
        job: JobId,
        /// The stream that was asked for.
        stream: Stream,
    },
    /// A log cannot be watched because the user has no inotify watches left.
    #[error(
        "cannot watch log {}: this user has no inotify watches left; raise the sysctl \
         fs.inotify.max_user_watches, or in a user namespace user.max_inotify_watches",
        path.display()
    )]
    #[non_exhaustive]
    WatchLimit {
        /// The log.
        path: PathBuf,
    },
    /// Somebody has replaced or removed the log: the file of that name is not the one that was made
    /// for the job. A job of the host's user can do that, and so can whoever cleans up.
    #[error("cannot read log {}: it was replaced or removed", path.display())]
    #[non_exhaustive]
    Replaced {
        /// The log.
        path: PathBuf,
    },
    /// The job has truncated its log, or it was written anew: bytes that were not read are gone.
    ///
    /// [`Read`](std::io::Read) and [`BufRead`](std::io::BufRead) of an
    /// [`Output`](crate::worker::Output) report each truncation once. The next read goes on at the
    /// first byte of what the log is now.
    #[error(
        "the job has truncated its log, and bytes that were not read are gone: read on for what \
         the log is now"
    )]
    Truncated,
    /// The next bytes of a log that is kept short were not kept.
    ///
    /// [`Read`](std::io::Read) and [`BufRead`](std::io::BufRead) of an
    /// [`Output`](crate::worker::Output) report each such gap once. The next read goes on at the
    /// first byte that was kept.
    #[error("the next {bytes} bytes of the log were not kept: read on for those that were")]
    #[non_exhaustive]
    Skipped {
        /// How many bytes are gone.
        bytes: u64,
    },
    /// The output was closed by a [`Closer`](crate::worker::Closer).
    #[error("this output was closed")]
    Closed,
    /// A call on the log failed.
    #[error("cannot {operation} {}: {cause}{}", path.display(), hint(cause))]
    #[non_exhaustive]
    Io {
        /// What was tried, as a verb.
        operation: &'static str,
        /// The log.
        path: PathBuf,
        /// The cause.
        cause: io::Error,
    },
}

impl TailError {
    pub(super) fn kind(&self) -> ErrorKind {
        match self {
            Self::Unknown(_) => ErrorKind::StaleId,
            Self::NoLog { .. } | Self::Replaced { .. } => ErrorKind::NotFound,
            Self::WatchLimit { .. } => ErrorKind::LimitReached,
            Self::Truncated | Self::Skipped { .. } | Self::Closed => ErrorKind::State,
            Self::Io { cause, .. } => ErrorKind::of(cause),
        }
    }

    pub(super) fn cause(&self) -> Option<&io::Error> {
        match self {
            Self::Io { cause, .. } => Some(cause),
            _ => None,
        }
    }
}
