//! Owns [`ErrorKind`], what a host would branch on, and what an errno means whatever call gave it.
//!
//! Knows nothing of the errors themselves.

use std::io;

use rustix::io::Errno;

/// What sort of error it is, for a host that decides what to do next; see
/// [`Error::kind`](crate::Error::kind).
///
/// | kind | what a host can do |
/// |---|---|
/// | [`InvalidInput`](Self::InvalidInput) | correct the command, limit or configuration |
/// | [`NotFound`](Self::NotFound) | check the program, path or stream that is named |
/// | [`PermissionDenied`](Self::PermissionDenied) | get more privileges, or a delegated cgroup |
/// | [`Unsupported`](Self::Unsupported) | do without the feature, or configure the system for it |
/// | [`LimitReached`](Self::LimitReached) | release something, or raise the limit, and try again |
/// | [`State`](Self::State) | wait for the event that changes the state, and try again |
/// | [`TimedOut`](Self::TimedOut) | find out what holds the program up, and try again |
/// | [`StaleId`](Self::StaleId) | forget the id |
/// | [`Other`](Self::Other) | report it |
///
/// Of errors that come from a system call, the errno decides:
///
/// | errno | kind |
/// |---|---|
/// | `ENOENT`, `ENOTDIR` | `NotFound` |
/// | `EACCES`, `EPERM`, `EROFS` | `PermissionDenied` |
/// | `EMFILE`, `ENFILE`, `ENOSPC`, `EDQUOT`, `ENOMEM`, `EAGAIN` | `LimitReached` |
/// | `ENOSYS`, `EOPNOTSUPP` | `Unsupported` |
/// | `EINVAL`, `ERANGE`, `E2BIG`, `ENAMETOOLONG`, `ELOOP`, `EISDIR`, `ENOEXEC` | `InvalidInput` |
/// | `EBUSY`, `ETXTBSY` | `State` |
/// | any other | `Other` |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum ErrorKind {
    /// The command, a limit, a path or the configuration is not acceptable.
    InvalidInput,
    /// A program, file or log does not exist.
    NotFound,
    /// This user may not do that.
    PermissionDenied,
    /// This system, or the way it is configured, does not offer what was asked for.
    Unsupported,
    /// A limit is reached: of descriptors, inotify watches, processes, memory or disk space.
    LimitReached,
    /// The call does not fit the current state: the job is finished, or not finished yet, or the
    /// cgroup is frozen.
    State,
    /// What was asked for was not done in time.
    TimedOut,
    /// The id names a job or tail that was removed, or that belongs to another reactor.
    StaleId,
    /// Anything else, such as an I/O error.
    #[cfg_attr(feature = "serde", serde(other))]
    Other,
}

impl ErrorKind {
    /// The kind of a failed system call, by its errno.
    pub(super) fn of(cause: &io::Error) -> Self {
        match Errno::from_io_error(cause) {
            Some(Errno::NOENT | Errno::NOTDIR) => Self::NotFound,
            Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => Self::PermissionDenied,
            Some(
                Errno::MFILE
                | Errno::NFILE
                | Errno::NOSPC
                | Errno::DQUOT
                | Errno::NOMEM
                | Errno::AGAIN,
            ) => Self::LimitReached,
            Some(Errno::NOSYS | Errno::OPNOTSUPP) => Self::Unsupported,
            Some(
                Errno::INVAL
                | Errno::RANGE
                | Errno::TOOBIG
                | Errno::NAMETOOLONG
                | Errno::LOOP
                | Errno::ISDIR
                | Errno::NOEXEC,
            ) => Self::InvalidInput,
            Some(Errno::BUSY | Errno::TXTBSY) => Self::State,
            None if cause.kind() == io::ErrorKind::InvalidInput => Self::InvalidInput,
            _ => Self::Other,
        }
    }
}

/// What to do about an errno, whatever call gave it.
pub(super) fn hint(cause: &io::Error) -> &'static str {
    match Errno::from_io_error(cause) {
        Some(Errno::MFILE) => " (raise RLIMIT_NOFILE, or remove finished jobs)",
        Some(Errno::NFILE) => " (raise the sysctl fs.file-max)",
        Some(Errno::NOSPC) => " (the file system is full: free bytes or inodes there)",
        Some(Errno::NOMEM) => " (free memory, or raise RLIMIT_AS or the cgroup's memory limit)",
        Some(Errno::AGAIN) => " (raise RLIMIT_NPROC or the cgroup's pids.max, or try again later)",
        Some(Errno::FBIG) => " (raise the host's RLIMIT_FSIZE)",
        Some(Errno::ROFS) => " (the file system is mounted read-only)",
        _ => "",
    }
}
