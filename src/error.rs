//! Owns [`Error`]: everything that can go wrong, each with the operation, what it concerned and the
//! cause.
//!
//! Invariant: no `From<io::Error>`: a bare errno never travels upwards without its story. Does no
//! I/O itself.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{fmt, io};

use rustix::io::Errno;

use crate::id::JobId;

/// The result of every fallible call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, with the operation, the path or program it concerned, the cause and, where
/// known, what to do.
///
/// ```
/// use jobworker::{Command, Error, Reactor, Stage, Token};
///
/// let mut reactor = Reactor::new()?;
/// match reactor.spawn(&Command::new("/no/such/program"), Token(0)) {
///     Err(Error::Spawn { stage: Stage::Exec, source, .. }) => assert_eq!(source.kind(), std::io::ErrorKind::NotFound),
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A call on a path failed: of the cgroup tree, the log directory, a log or the job's standard
    /// input.
    #[error("cannot {operation} {}: {source}{}", path.display(), hint(source))]
    Path {
        /// What was tried, as a verb.
        operation: &'static str,
        /// What it was tried on.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A call of the event loop itself failed.
    #[error("cannot {operation}: {source}{}", hint(source))]
    Loop {
        /// What was tried, as a verb.
        operation: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// The program could not be started; nothing of the attempt is left behind.
    #[error("cannot start {program:?}: {stage}{} failed: {source}{}", about(path.as_deref()), stage.hint(source))]
    Spawn {
        /// The program as it was given.
        program: OsString,
        /// How far it came.
        stage: Stage,
        /// What that stage was about, if it was a path other than the program's: the working
        /// directory.
        path: Option<PathBuf>,
        /// The cause.
        source: io::Error,
    },
    /// The command cannot be run on any system; found before anything was created.
    #[error("cannot start {program:?}: {reason}")]
    InvalidCommand {
        /// The program as it was given.
        program: OsString,
        /// What is wrong with the command.
        reason: &'static str,
    },
    /// A limit is out of range; found before anything was created.
    #[error("cannot set limits: {source}")]
    InvalidLimit {
        /// Which limit, and its range.
        source: InvalidLimit,
    },
    /// A limit needs a cgroup controller that is not there; found before anything was created.
    #[error(
        "cannot set {file}: the {controller} controller is not available in {} (available: {}). {}",
        path.display(), list(available), enable(controller, *in_v1)
    )]
    ControllerUnavailable {
        /// The interface file of the limit, such as `cpu.weight`.
        file: String,
        /// The controller that is missing, such as `cpu`.
        controller: String,
        /// The cgroup under which jobs are made.
        path: PathBuf,
        /// The controllers that are available there.
        available: Vec<String>,
        /// Whether the controller is bound to a version 1 hierarchy, and so cannot be enabled in
        /// version 2.
        in_v1: bool,
    },
    /// A limit needs a controller that is there but cannot be passed on to the jobs; found before
    /// the job's group was created.
    #[error("cannot set {file}: enabling the {controller} controller in {} failed: {source}{}", path.display(), blocked(source))]
    ControllerBlocked {
        /// The interface file of the limit.
        file: String,
        /// The controller.
        controller: String,
        /// The cgroup whose children should get it.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The controller is there, but has no such interface file in this kernel or on this machine.
    #[error("cannot set {file}: {} does not have it: {needs}", path.display())]
    LimitUnavailable {
        /// The interface file.
        file: String,
        /// The job's cgroup.
        path: PathBuf,
        /// What it takes to have the file: a version of Linux, or its configuration.
        needs: &'static str,
    },
    /// A limit would be taken by the kernel, but have no effect; found before the job's group was
    /// created.
    #[error("cannot set {file}: it would have no effect: {reason}")]
    LimitIneffective {
        /// The interface file of the limit.
        file: String,
        /// Why, and what would change it.
        reason: &'static str,
    },
    /// The kernel took a limit but gives back another value.
    #[error("cannot set {file} in {}: wrote {wrote:?}, but the kernel reads back {found:?}", path.display())]
    LimitNotKept {
        /// The interface file.
        file: String,
        /// The job's cgroup.
        path: PathBuf,
        /// What was written.
        wrote: String,
        /// What was read.
        found: String,
    },
    /// Jobs without a cgroup cannot have limits.
    #[error(
        "cannot set limits for {program:?}: the reactor contains jobs by process group, which has no limits"
    )]
    LimitsNeedCgroup {
        /// The program as it was given.
        program: OsString,
    },
    /// There is no cgroup tree in which jobs can be made.
    #[error(
        "no usable cgroup v2 tree: {reason}. Give a cgroup that this user may write to with Config::cgroup_parent, or contain jobs by process group \
         (Containment::ProcessGroup), which cannot hold a process that leaves its group"
    )]
    NoCgroup {
        /// What was found instead.
        reason: String,
    },
    /// The log directory is not a private directory of this user.
    #[error("cannot use {} as log directory: {reason}", path.display())]
    LogDirectory {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// A log cannot be watched because the user has no inotify watches left.
    #[error(
        "cannot watch log {}: this user has no inotify watches left; raise the sysctl fs.inotify.max_user_watches",
        path.display()
    )]
    WatchLimit {
        /// The log.
        path: PathBuf,
    },
    /// The job was removed, or belongs to another reactor.
    #[error("no such job: {0} was removed, or belongs to another reactor")]
    UnknownJob(JobId),
    /// The tail was closed, its job was removed, or it belongs to another reactor.
    #[error("no such tail: it was closed, its job was removed, or it belongs to another reactor")]
    UnknownTail,
    /// The job is not finished, and so cannot be removed.
    #[error("job {0} is not finished: stop it and wait for Event::Finished before you remove it")]
    NotFinished(JobId),
    /// The job is finished, so it has no cgroup any more.
    #[error("job {0} is finished and has no cgroup any more")]
    Finished(JobId),
    /// The job is contained by process group, so it has no cgroup.
    #[error("job {0} is contained by process group and has no cgroup")]
    NotInCgroup(JobId),
    /// A job cannot be started in a frozen cgroup: it would freeze before its program runs, and the
    /// host with it.
    #[error("cannot start a job in {}: the cgroup is frozen; thaw it first", path.display())]
    Frozen {
        /// The job's cgroup.
        path: PathBuf,
    },
    /// The kernel keeps no pressure stall information.
    #[error("no pressure stall information in {}: boot with psi=1, on a kernel with CONFIG_PSI", path.display())]
    NoPressure {
        /// The file that would have it.
        path: PathBuf,
    },
    /// The kernel does not make this stall an event, or not for this user.
    #[error("cannot watch {} for stalls: {reason}", path.display())]
    StallRefused {
        /// The pressure file.
        path: PathBuf,
        /// Why not, and what would be.
        reason: &'static str,
    },
    /// The main process is gone, so it cannot be signalled.
    #[error("the main process of job {0} has exited")]
    Exited(JobId),
    /// The job has no log of this stream.
    #[error("job {job} has no log for {stream}: its command chose another Output")]
    NoLog {
        /// The job.
        job: JobId,
        /// The stream that was asked for.
        stream: &'static str,
    },
}

/// A limit that no kernel would accept, found before anything was created.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidLimit {
    /// The text is not digits with at most one of the suffixes K, M, G and T, or does not fit into
    /// 64 bits.
    #[error(
        "{text:?} is not a size: write bytes as digits, with K, M, G or T for powers of 1024, as in 100M"
    )]
    Size {
        /// What was given.
        text: String,
    },
    /// A value outside of the kernel's range.
    #[error("{file} is {value}, but has to lie between {least} and {most}")]
    Range {
        /// The interface file, such as `cpu.weight`.
        file: &'static str,
        /// What was given.
        value: i128,
        /// The least value that the kernel takes.
        least: i128,
        /// The greatest value that the kernel takes.
        most: i128,
    },
    /// A list of processors or memory nodes that is not one.
    #[error("{file} is {text:?}, but has to be a list of numbers and ranges, as in 0-3,8")]
    List {
        /// The interface file, such as `cpuset.cpus`.
        file: &'static str,
        /// What was given.
        text: String,
    },
    /// The name of an interface file that leads out of the cgroup, is none, or is not for setting
    /// limits.
    #[error(
        "{file:?} is not the name of a limit's file: it has to be of the form controller.name, without a slash"
    )]
    File {
        /// What was given.
        file: String,
    },
    /// A text that is no value for this file.
    #[error("{file} is {text:?}, but has to be {expected}")]
    Value {
        /// The interface file, such as `cpu.max`.
        file: String,
        /// What was given.
        text: String,
        /// What it has to be.
        expected: &'static str,
    },
    /// An interface file that has no method in [`Limits`](crate::Limits).
    #[error("{file:?} is not one of Limits::files; Limits::raw sets any other file")]
    Unknown {
        /// What was given.
        file: String,
    },
    /// The text is not the number of a block device.
    #[error(
        "{text:?} is not the number of a block device: write it as in /proc/partitions, with a colon, such as 259:0"
    )]
    Device {
        /// What was given.
        text: String,
    },
}

impl Error {
    /// The errno behind the error, if there is one.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Self::Path { source, .. } | Self::Loop { source, .. } | Self::Spawn { source, .. } => {
                source.raw_os_error()
            }
            _ => None,
        }
    }

    /// For `map_err`: the story of a failed call on a path.
    pub(crate) fn path<E: Into<io::Error>>(
        operation: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(E) -> Self {
        let path = path.into();
        move |source| Self::Path { operation, path, source: source.into() }
    }

    /// For `map_err`: the story of a failed call of the loop.
    pub(crate) fn event_loop<E: Into<io::Error>>(
        operation: &'static str,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Loop { operation, source: source.into() }
    }
}

/// How far the start of a program came before it failed, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
#[non_exhaustive]
pub enum Stage {
    /// clone3 into the cgroup.
    Clone = 1,
    /// A new session or process group.
    ProcessGroup,
    /// Default signal dispositions and an empty signal mask.
    Signals,
    /// Standard input, output and error.
    StandardStreams,
    /// Resource limits of the process.
    ResourceLimits,
    /// Supplementary groups.
    Groups,
    /// The group id.
    GroupId,
    /// The user id.
    UserId,
    /// The no-new-privileges flag.
    NoNewPrivileges,
    /// The working directory.
    CurrentDirectory,
    /// The parent-death signal.
    ParentDeathSignal,
    /// Closing the host's file descriptors.
    CloseDescriptors,
    /// Executing the program.
    Exec,
}

impl Stage {
    /// In the order of their numbers, which start at one.
    pub(crate) const ALL: [Self; 13] = [
        Self::Clone,
        Self::ProcessGroup,
        Self::Signals,
        Self::StandardStreams,
        Self::ResourceLimits,
        Self::Groups,
        Self::GroupId,
        Self::UserId,
        Self::NoNewPrivileges,
        Self::CurrentDirectory,
        Self::ParentDeathSignal,
        Self::CloseDescriptors,
        Self::Exec,
    ];

    /// What the errno means at this stage, and what to do about it.
    fn hint(self, source: &io::Error) -> &'static str {
        let Some(errno) = Errno::from_io_error(source) else { return "" };
        match (self, errno) {
            (Self::Clone, Errno::BUSY) => {
                " (controllers are enabled for the children of the job's cgroup, so it cannot hold a process itself)"
            }
            (Self::Clone, Errno::OPNOTSUPP) => {
                " (the job's cgroup is threaded or \"domain invalid\": read cgroup.type of its parent)"
            }
            (Self::Clone, Errno::ACCESS) => {
                " (write access to cgroup.procs of the common ancestor of the host's and the job's cgroup is needed)"
            }
            (Self::Clone, Errno::NODEV) => " (the job's cgroup was removed by somebody else)",
            (Self::Clone, Errno::AGAIN) => {
                " (pids.max of a cgroup or the user's process limit is reached)"
            }
            (Self::Clone, Errno::NOSYS | Errno::PERM | Errno::TOOBIG | Errno::INVAL) => {
                " (clone3 with CLONE_INTO_CGROUP needs Linux 5.7, and a seccomp filter that lets it through)"
            }
            (Self::Groups | Self::GroupId | Self::UserId, Errno::PERM) => {
                " (the host needs root, or CAP_SETUID and CAP_SETGID)"
            }
            (Self::ResourceLimits, Errno::PERM) => " (raising a hard limit needs CAP_SYS_RESOURCE)",
            (Self::Exec, Errno::NOEXEC) => {
                " (neither a binary of this machine nor a script that starts with #!)"
            }
            (Self::Exec, Errno::NOENT) => " (no such file, or its interpreter is missing)",
            (Self::Exec, Errno::ACCESS) => {
                " (not executable by the job's user, a directory, or on a noexec mount)"
            }
            (Self::Exec, Errno::TXTBSY) => " (the program file is open for writing)",
            _ => hint(source),
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Clone => "clone3",
            Self::ProcessGroup => "entering its session or process group",
            Self::Signals => "resetting signals",
            Self::StandardStreams => "connecting standard input, output and error",
            Self::ResourceLimits => "setting resource limits",
            Self::Groups => "setting supplementary groups",
            Self::GroupId => "setting the group id",
            Self::UserId => "setting the user id",
            Self::NoNewPrivileges => "setting no_new_privs",
            Self::CurrentDirectory => "entering the working directory",
            Self::ParentDeathSignal => "setting the parent-death signal",
            Self::CloseDescriptors => "closing the host's file descriptors",
            Self::Exec => "exec",
        })
    }
}

fn about(path: Option<&Path>) -> String {
    path.map_or_else(String::new, |path| format!(" {}", path.display()))
}

/// What to do about an errno, whatever call gave it.
fn hint(source: &io::Error) -> &'static str {
    match Errno::from_io_error(source) {
        Some(Errno::MFILE) => " (raise RLIMIT_NOFILE, or remove finished jobs)",
        Some(Errno::NFILE) => " (raise the sysctl fs.file-max)",
        Some(Errno::NOSPC) => " (the file system is full: free bytes or inodes there)",
        Some(Errno::ROFS) => " (the file system is mounted read-only)",
        _ => "",
    }
}

/// Why a controller cannot be enabled for the children of a cgroup.
fn blocked(source: &io::Error) -> &'static str {
    match Errno::from_io_error(source) {
        Some(Errno::BUSY) => {
            " (processes live in that cgroup itself, and a group with processes cannot pass controllers on: move them \
             into a group below it, for the host's own see Config::host_leaf)"
        }
        Some(Errno::ACCESS | Errno::PERM) => " (not delegated to this user; systemd: Delegate=yes)",
        Some(Errno::OPNOTSUPP) => {
            " (the cgroup is threaded, or would be because of the processes in it: move them into a group below it, for \
             the host's own see Config::host_leaf)"
        }
        _ => "",
    }
}

fn list(available: &[String]) -> String {
    if available.is_empty() { "none".to_owned() } else { available.join(" ") }
}

fn enable(controller: &str, in_v1: bool) -> String {
    if in_v1 {
        format!(
            "It is bound to a cgroup v1 hierarchy: boot with cgroup_no_v1={controller} or \
             systemd.unified_cgroup_hierarchy=1 to free it"
        )
    } else {
        format!(
            "To enable it, write \"+{controller}\" to cgroup.subtree_control of each cgroup from the root down to that \
             one, or delegate it (systemd: Delegate=yes)"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_numbered_in_order() {
        for (index, stage) in Stage::ALL.into_iter().enumerate() {
            assert_eq!(stage as usize, index + 1);
        }
    }

    #[test]
    fn an_error_names_operation_path_cause_and_remedy() {
        let error = Error::path("open", "/some/log")(io::Error::from_raw_os_error(24));
        let text = error.to_string();
        assert!(text.starts_with("cannot open /some/log: Too many open files"), "{text}");
        assert!(text.ends_with("(raise RLIMIT_NOFILE, or remove finished jobs)"), "{text}");
        assert_eq!(error.raw_os_error(), Some(24));
    }
}
