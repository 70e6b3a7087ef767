//! Owns [`JobError`]: why something cannot be done to a job.
//!
//! Knows nothing of how jobs live.

use std::io;
use std::path::PathBuf;

use crate::error::kind::{ErrorKind, hint};
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
    /// The job is finished, so it has no cgroup and no terminal any more.
    #[error("job {0} is finished and has no cgroup and no terminal any more")]
    Finished(JobId),
    /// The main process has exited, so it cannot be signalled.
    #[error("the main process of job {0} has exited")]
    Exited(JobId),
    /// The job is contained by process group, so it has no cgroup.
    #[error("job {0} is contained by process group and has no cgroup")]
    NotInCgroup(JobId),
    /// The job has no terminal: its command has another
    /// [`Output`](crate::Output::Terminal).
    #[error("job {0} has no terminal: its command chose another Output")]
    NoTerminal(JobId),
    /// The end of what a job has printed on its terminal could not be written to its log, not even
    /// when the job was over.
    #[error(
        "the last {bytes} bytes that a job has printed on its terminal are lost, because log {} \
         cannot be written: {cause}{}",
        path.display(), hint(cause)
    )]
    #[non_exhaustive]
    OutputLost {
        /// The log.
        path: PathBuf,
        /// How many bytes are missing at its end.
        bytes: u64,
        /// The cause.
        cause: io::Error,
    },
    /// The file system of the logs was full while the job ran: what it has printed then may be
    /// missing from its log. For the job's own writes have failed (`ENOSPC`), of which only the job
    /// knows.
    #[error(
        "log {} may lack some of what the job has printed: its file system was full",
        path.display()
    )]
    #[non_exhaustive]
    LogCut {
        /// The log.
        path: PathBuf,
    },
    /// The record of a recovered job is missing or damaged, and its log has a hole in its middle:
    /// the log is read up to there, and stays as it is. What is behind that was discarded
    /// ([`OverLimit::Discard`](crate::OverLimit::Discard)), or the job has made the hole itself.
    #[error(
        "log {} is read up to byte {at}, where it has a hole: the record of its job, which would \
         say how long it may be, is missing or damaged",
        path.display()
    )]
    #[non_exhaustive]
    LogHole {
        /// The log.
        path: PathBuf,
        /// The offset at which the hole begins.
        at: u64,
    },
    /// How the main process of a recovered job ended is not known.
    #[error("the exit status of job {job} is not known: {reason}")]
    #[non_exhaustive]
    ExitUnknown {
        /// The job.
        job: JobId,
        /// Why not, and what it would take.
        reason: &'static str,
    },
    /// The job does not survive its host, and so has neither a label nor a record.
    #[error("job {0} does not survive its host: its command does not say so")]
    NotLasting(JobId),
    /// The label that a job was to get is too long.
    #[error("cannot label job {job}: a label has at most 16 KiB, and this one has {length} bytes")]
    #[non_exhaustive]
    LabelTooLong {
        /// The job.
        job: JobId,
        /// How many bytes the label has.
        length: usize,
    },
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
            Self::NotInCgroup(_) | Self::NoTerminal(_) | Self::NoPressure { .. } => {
                ErrorKind::Unsupported
            }
            Self::NotLasting(_) | Self::LabelTooLong { .. } => ErrorKind::InvalidInput,
            Self::ExitUnknown { .. } | Self::LogHole { .. } => ErrorKind::Other,
            Self::OutputLost { cause, .. } => ErrorKind::of(cause),
            Self::LogCut { .. } => ErrorKind::LimitReached,
            Self::StallRefused { cause, .. } => match cause.as_ref().map(ErrorKind::of) {
                Some(ErrorKind::PermissionDenied) => ErrorKind::PermissionDenied,
                _ => ErrorKind::InvalidInput,
            },
        }
    }

    pub(super) fn cause(&self) -> Option<&io::Error> {
        match self {
            Self::StallRefused { cause, .. } => cause.as_ref(),
            Self::OutputLost { cause, .. } => Some(cause),
            _ => None,
        }
    }
}

fn prefix(cause: Option<&io::Error>) -> String {
    cause.map_or_else(String::new, |cause| format!("{cause}: "))
}
