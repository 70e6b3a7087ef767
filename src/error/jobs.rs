//! Owns [`JobError`]: why something cannot be done to a job.
//!
//! Knows nothing of how jobs live.

use std::io;
use std::path::PathBuf;

use crate::error::kind::ErrorKind;
use crate::id::JobId;

/// A job is unknown, in the wrong state, or cannot be observed as asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JobError {
    /// The job was removed, or belongs to another reactor.
    #[error("no such job: {0} was removed, or belongs to another reactor")]
    Unknown(JobId),
    /// The job is not finished, and so cannot be removed.
    #[error("job {0} is not finished: stop it and wait for Event::Finished before you remove it")]
    NotFinished(JobId),
    /// The job is finished, so it has no cgroup any more.
    #[error("job {0} is finished and has no cgroup any more")]
    Finished(JobId),
    /// The main process has exited, so it cannot be signalled.
    #[error("the main process of job {0} has exited")]
    Exited(JobId),
    /// The job is contained by process group, so it has no cgroup.
    #[error("job {0} is contained by process group and has no cgroup")]
    NotInCgroup(JobId),
    /// The kernel keeps no pressure stall information.
    #[error(
        "no pressure stall information in {}: boot with psi=1, on a kernel with CONFIG_PSI",
        path.display()
    )]
    #[non_exhaustive]
    NoPressure {
        /// The file that would have it.
        path: PathBuf,
    },
    /// The kernel does not report this stall, or not to this user.
    #[error("cannot watch {} for stalls: {}{reason}", path.display(), prefix(cause.as_ref()))]
    #[non_exhaustive]
    StallRefused {
        /// The pressure file.
        path: PathBuf,
        /// Why not, and what the kernel would accept.
        reason: &'static str,
        /// What the kernel said, if it was asked.
        cause: Option<io::Error>,
    },
}

impl JobError {
    pub(super) fn kind(&self) -> ErrorKind {
        match self {
            Self::Unknown(_) => ErrorKind::StaleId,
            Self::NotFinished(_) | Self::Finished(_) | Self::Exited(_) => ErrorKind::State,
            Self::NotInCgroup(_) | Self::NoPressure { .. } => ErrorKind::Unsupported,
            Self::StallRefused { cause, .. } => match cause.as_ref().map(ErrorKind::of) {
                Some(ErrorKind::PermissionDenied) => ErrorKind::PermissionDenied,
                _ => ErrorKind::InvalidInput,
            },
        }
    }

    pub(super) fn cause(&self) -> Option<&io::Error> {
        match self {
            Self::StallRefused { cause, .. } => cause.as_ref(),
            _ => None,
        }
    }
}

fn prefix(cause: Option<&io::Error>) -> String {
    cause.map_or_else(String::new, |cause| format!("{cause}: "))
}
