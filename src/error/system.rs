//! Owns [`SystemError`]: what the system refused, apart from the start of a program, limits, tails
//! and the state of jobs.
//!
//! Knows nothing of the calls that failed but what they are named.

use std::io;
use std::path::PathBuf;

use rustix::io::Errno;

use crate::error::kind::{ErrorKind, hint};

/// What is tried when the record of a job is written, which no disk is needed for.
pub(crate) const WRITE_RECORD: &str = "write the record of a job on cgroup";

/// What to do about an errno of a call on a path.
fn path_hint(operation: &str, cause: &io::Error) -> &'static str {
    match Errno::from_io_error(cause) {
        Some(Errno::NOSPC) if operation == WRITE_RECORD => {
            " (a process of the host's user has used up the 128 KiB or 128 attributes that the \
             kernel allows a cgroup: run the job as another user, or remove them with setfattr -x)"
        }
        Some(Errno::AGAIN) if operation == "create cgroup" => {
            " (the cgroup.max.descendants or cgroup.max.depth of a cgroup above is reached)"
        }
        _ => hint(cause),
    }
}

/// What to do about an errno of a call on the socket of a keeper.
fn keeper_hint(cause: &io::Error) -> &'static str {
    match Errno::from_io_error(cause) {
        Some(Errno::NOENT | Errno::CONNREFUSED) => " (start one there, by jobworker::Keeper)",
        Some(Errno::PIPE | Errno::CONNRESET) => " (it has ended, or has refused this host)",
        Some(Errno::AGAIN | Errno::TIMEDOUT) => {
            " (it is stopped, hung or with another host: if it stays so, end it and start another)"
        }
        Some(Errno::PROTOTYPE | Errno::PROTO) => {
            " (another program listens there, or a keeper of another version of this crate)"
        }
        Some(Errno::PERM) => " (another user has started it)",
        Some(Errno::ACCESS) => " (only the user who has started it, and root, can connect)",
        Some(Errno::NAMETOOLONG) => " (the path of a socket has at most 107 bytes)",
        Some(Errno::NOSPC) => " (it is full: raise Keeper::most, or its RLIMIT_NOFILE)",
        _ => hint(cause),
    }
}

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
    /// The directory of a history is not a private directory of this user.
    #[error("cannot use {} as history directory: {reason}", path.display())]
    #[non_exhaustive]
    HistoryDirectory {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// The file system of the logs cannot give back parts of a file, which a log of limited length
    /// needs: [`Command::log_keep`](crate::Command::log_keep).
    #[error(
        "cannot give back the oldest bytes of log {}: {cause}{}; name a directory on ext4, XFS, \
         Btrfs or tmpfs with Config::log_dir, or keep whole logs",
        path.display(), hint(cause)
    )]
    #[non_exhaustive]
    CannotPunch {
        /// The log.
        path: PathBuf,
        /// The cause.
        cause: io::Error,
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
    /// The [name](crate::Config::name) cannot be one.
    #[error("cannot name a host {name:?}: {reason}")]
    #[non_exhaustive]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Another host has the [name](crate::Config::name).
    ///
    /// A process that a host has forked keeps its lock until it executes another program: after
    /// the death of a host in the middle of a spawn, for a moment.
    #[error(
        "the name {name:?} is taken: a living host holds the lock on {}, or a process that it has \
         forked; end it, or choose another name",
        path.display()
    )]
    #[non_exhaustive]
    NameTaken {
        /// The name.
        name: String,
        /// The cgroup that the host has locked.
        path: PathBuf,
    },
    /// A host without a name has no jobs to recover.
    #[error(
        "cannot recover jobs: {reason}; name the host with Config::name, and let it have cgroups"
    )]
    #[non_exhaustive]
    NoName {
        /// What is missing.
        reason: &'static str,
    },
    /// The record of a job, on its cgroup or in a history, cannot be used.
    #[error("cannot use the record {}: {reason}", path.display())]
    #[non_exhaustive]
    Record {
        /// The cgroup, or the file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The [keeper](crate::Config::keeper) is not there for this host; see
    /// [`Reactor::keeper_problem`](crate::Reactor::keeper_problem).
    #[error(
        "cannot {operation} the keeper at {}: {cause}{}; until that is mended, the exit of a job \
         that ends while no host is there is unknown",
        path.display(), keeper_hint(cause)
    )]
    #[non_exhaustive]
    Keeper {
        /// What was tried, as a verb.
        operation: &'static str,
        /// The socket.
        path: PathBuf,
        /// The cause.
        cause: io::Error,
    },
    /// A keeper cannot have a socket that somebody else listens on: see
    /// [`Keeper::bind`](crate::Keeper::bind).
    #[error(
        "the socket {} is taken: a living keeper listens there; let the hosts use that one, end \
         it, or choose another socket",
        path.display()
    )]
    #[non_exhaustive]
    KeeperTaken {
        /// The socket.
        path: PathBuf,
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
    #[error("cannot {operation} {}: {cause}{}", path.display(), path_hint(operation, cause))]
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
            Self::LogDirectory { .. }
            | Self::HistoryDirectory { .. }
            | Self::Launcher { .. }
            | Self::Name { .. }
            | Self::NoName { .. } => ErrorKind::InvalidInput,
            Self::NameTaken { .. } | Self::KeeperTaken { .. } => ErrorKind::State,
            Self::Record { .. } => ErrorKind::Other,
            Self::WatchLimit { .. } => ErrorKind::LimitReached,
            Self::Forked { .. } => ErrorKind::State,
            Self::CannotPunch { cause, .. } => match Errno::from_io_error(cause) {
                Some(Errno::OPNOTSUPP | Errno::NOSYS) => ErrorKind::Unsupported,
                _ => ErrorKind::of(cause),
            },
            Self::Keeper { cause, .. } | Self::Path { cause, .. } | Self::Loop { cause, .. } => {
                ErrorKind::of(cause)
            }
        }
    }

    pub(super) fn cause(&self) -> Option<&io::Error> {
        match self {
            Self::CannotPunch { cause, .. }
            | Self::Keeper { cause, .. }
            | Self::Path { cause, .. }
            | Self::Loop { cause, .. } => Some(cause),
            Self::NoCgroup { .. }
            | Self::LogDirectory { .. }
            | Self::HistoryDirectory { .. }
            | Self::Launcher { .. }
            | Self::Name { .. }
            | Self::NameTaken { .. }
            | Self::KeeperTaken { .. }
            | Self::NoName { .. }
            | Self::Record { .. }
            | Self::WatchLimit { .. }
            | Self::Forked { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_keeper_names_socket_cause_and_remedy() {
        let of = |errno: Errno| {
            let (path, cause) = ("/run/keeper".into(), errno.into());
            SystemError::Keeper { operation: "connect to", path, cause }
        };
        for (errno, kind, remedy) in [
            (Errno::NOENT, ErrorKind::NotFound, "start one there, by jobworker::Keeper"),
            (Errno::CONNREFUSED, ErrorKind::Other, "start one there, by jobworker::Keeper"),
            (Errno::PIPE, ErrorKind::Other, "it has ended"),
            (Errno::AGAIN, ErrorKind::LimitReached, "end it and start another"),
            (Errno::TIMEDOUT, ErrorKind::Other, "end it and start another"),
            (Errno::PROTOTYPE, ErrorKind::Other, "another program listens there"),
            (Errno::PERM, ErrorKind::PermissionDenied, "another user"),
            (Errno::ACCESS, ErrorKind::PermissionDenied, "the user who has started it"),
            (Errno::NAMETOOLONG, ErrorKind::InvalidInput, "107 bytes"),
            (Errno::NOSPC, ErrorKind::LimitReached, "raise Keeper::most"),
            (Errno::MFILE, ErrorKind::LimitReached, "raise RLIMIT_NOFILE"),
        ] {
            let (error, cause) = (of(errno), io::Error::from(errno));
            let text = error.to_string();
            let begin = format!("cannot connect to the keeper at /run/keeper: {cause} (");
            assert!(text.starts_with(&begin) && text.contains(remedy), "{text}");
            assert!(text.ends_with("is unknown"), "{text}");
            assert_eq!(error.kind(), kind, "{text}");
            let raw = error.cause().and_then(io::Error::raw_os_error);
            assert_eq!(raw, Some(errno.raw_os_error()));
        }
        let taken = SystemError::KeeperTaken { path: "/run/keeper".into() };
        assert!(taken.to_string().starts_with("the socket /run/keeper is taken: a living keeper"));
        assert!(taken.kind() == ErrorKind::State && taken.cause().is_none());
    }
}
