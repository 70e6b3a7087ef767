//! Owns [`SystemError`]: what the system refused, apart from the start of a program, limits, tails
//! and the state of jobs.
//!
//! Knows nothing of the calls that failed but what they are named.

use std::io;
use std::path::PathBuf;

use crate::error::kind::{ErrorKind, hint};

/// The system refused something that the reactor needs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SystemError {
    /// There is no cgroup tree in which jobs can be made.
    #[error(
        "no usable cgroup v2 tree: {reason}. Name a cgroup that this user may write to with \
         Config::cgroup_parent, or contain jobs by process group (Containment::ProcessGroup), \
         which cannot hold a process that leaves its group"
    )]
    #[non_exhaustive]
    NoCgroup {
        /// What was found instead.
        reason: String,
    },
    /// The log directory is not a private directory of this user.
    #[error("cannot use {} as log directory: {reason}", path.display())]
    #[non_exhaustive]
    LogDirectory {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// The [launcher](crate::Config::launcher) cannot be used.
    #[error("cannot use {} as launcher: {reason}", path.display())]
    #[non_exhaustive]
    Launcher {
        /// The program that was named.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// A file of a cgroup cannot be watched because the user has no inotify watches left.
    #[error(
        "cannot watch {}: this user has no inotify watches left; raise the sysctl \
         fs.inotify.max_user_watches, or in a user namespace user.max_inotify_watches",
        path.display()
    )]
    #[non_exhaustive]
    WatchLimit {
        /// The file.
        path: PathBuf,
    },
    /// A call on a path failed: of the cgroup tree, the log directory, the launcher or the
    /// job's standard input.
    #[error("cannot {operation} {}: {cause}{}", path.display(), hint(cause))]
    #[non_exhaustive]
    Path {
        /// What was tried, as a verb.
        operation: &'static str,
        /// What it was tried on.
        path: PathBuf,
        /// The cause.
        cause: io::Error,
    },
    /// The reactor belongs to another process, which has forked this one.
    #[error(
        "this reactor belongs to process {owner}; a process that it has forked can only drop it, \
         and make a reactor of its own"
    )]
    #[non_exhaustive]
    Forked {
        /// The process that made the reactor.
        owner: u32,
    },
    /// A call of the event loop itself failed.
    #[error("cannot {operation}: {cause}{}", hint(cause))]
    #[non_exhaustive]
    Loop {
        /// What was tried, as a verb.
        operation: &'static str,
        /// The cause.
        cause: io::Error,
    },
}

impl SystemError {
    pub(super) fn kind(&self) -> ErrorKind {
        match self {
            Self::NoCgroup { .. } => ErrorKind::Unsupported,
            Self::LogDirectory { .. } | Self::Launcher { .. } => ErrorKind::InvalidInput,
            Self::WatchLimit { .. } => ErrorKind::LimitReached,
            Self::Forked { .. } => ErrorKind::State,
            Self::Path { cause, .. } | Self::Loop { cause, .. } => ErrorKind::of(cause),
        }
    }

    pub(super) fn cause(&self) -> Option<&io::Error> {
        match self {
            Self::Path { cause, .. } | Self::Loop { cause, .. } => Some(cause),
            Self::NoCgroup { .. }
            | Self::LogDirectory { .. }
            | Self::Launcher { .. }
            | Self::WatchLimit { .. }
            | Self::Forked { .. } => None,
        }
    }
}
