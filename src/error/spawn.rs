//! Owns [`SpawnError`]: why a program could not be started, and [`Stage`], how far it came.
//!
//! Knows nothing of how the child does what the stages name.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fmt, io};

use rustix::io::Errno;

use crate::error::kind::{ErrorKind, hint};

/// A program could not be started; nothing of the attempt is left behind, except as
/// [`TimedOut`](Self::TimedOut) says.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// A step of the start failed.
    #[error(
        "cannot start {program:?}: {stage}{} failed: {cause}{}",
        about(path.as_deref()), stage.hint(cause)
    )]
    #[non_exhaustive]
    Failed {
        /// The program as it was given.
        program: OsString,
        /// How far it came.
        stage: Stage,
        /// What that stage was about, if it was a path other than the program's: the root directory
        /// or the working directory.
        path: Option<PathBuf>,
        /// The cause.
        cause: io::Error,
    },
    /// The program was not executed within
    /// [`Config::spawn_timeout`](crate::Config::spawn_timeout): something stopped the child, or it
    /// waits for a file system that does not answer.
    #[error(
        "cannot start {program:?}: it was not executed within {timeout:?}{}; a process of its user \
         may have stopped the child, somebody may have frozen its cgroup, or a file system does \
         not answer{}",
        begun(*stage), killed(*left)
    )]
    #[non_exhaustive]
    TimedOut {
        /// The program as it was given.
        program: OsString,
        /// The time that it had.
        timeout: Duration,
        /// The last step that was begun, if any was.
        stage: Option<Stage>,
        /// The child, if it could not be killed because it waits in the kernel. It is reaped, and
        /// its cgroup removed, by a later spawn of the same reactor.
        left: Option<u32>,
    },
    /// A process cannot be cloned into a cgroup of the tree; found when the reactor was made.
    #[error(
        "cannot start a process in {}: {stage} failed: {cause}{}",
        path.display(), stage.hint(cause)
    )]
    #[non_exhaustive]
    Placement {
        /// The cgroup.
        path: PathBuf,
        /// How far it came.
        stage: Stage,
        /// The cause.
        cause: io::Error,
    },
    /// The command cannot be run on any system; found before anything was created.
    #[error("cannot start {program:?}: {reason}")]
    #[non_exhaustive]
    InvalidCommand {
        /// The program as it was given.
        program: OsString,
        /// What is wrong with the command.
        reason: &'static str,
    },
    /// The job could not outlive the host as [`Command::survives`](crate::Command::survives) wants;
    /// found before anything was created.
    #[error("cannot start {program:?} so that it survives the host: {reason}")]
    #[non_exhaustive]
    CannotSurvive {
        /// The program as it was given.
        program: OsString,
        /// What is missing, or stands against it.
        reason: &'static str,
    },
    /// A job cannot be started in a frozen cgroup: it would freeze before its program runs, and the
    /// host with it.
    #[error("cannot start a job in {}: the cgroup is frozen; thaw it first", path.display())]
    #[non_exhaustive]
    Frozen {
        /// The job's cgroup.
        path: PathBuf,
    },
}

impl SpawnError {
    pub(super) fn kind(&self) -> ErrorKind {
        match self {
            Self::Failed { stage, cause, .. } | Self::Placement { stage, cause, .. } => {
                stage.kind(cause)
            }
            Self::InvalidCommand { .. } | Self::CannotSurvive { .. } => ErrorKind::InvalidInput,
            Self::Frozen { .. } => ErrorKind::State,
            Self::TimedOut { .. } => ErrorKind::TimedOut,
        }
    }

    /// Whether it concerns what the command asks for, rather than what every command needs.
    pub(super) fn is_of_command(&self) -> bool {
        match self {
            Self::InvalidCommand { .. } | Self::CannotSurvive { .. } => true,
            Self::Failed { stage, .. } => !matches!(stage, Stage::Clone | Stage::Launcher),
            Self::Placement { .. } | Self::Frozen { .. } | Self::TimedOut { .. } => false,
        }
    }

    pub(super) fn cause(&self) -> Option<&io::Error> {
        match self {
            Self::Failed { cause, .. } | Self::Placement { cause, .. } => Some(cause),
            Self::InvalidCommand { .. }
            | Self::CannotSurvive { .. }
            | Self::Frozen { .. }
            | Self::TimedOut { .. } => None,
        }
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
    /// The terminal, and that it controls the session.
    Terminal,
    /// Default signal dispositions and an empty signal mask.
    Signals,
    /// Standard input, output and error.
    StandardStreams,
    /// The descriptors that it is given besides its standard streams.
    Descriptors,
    /// Closing the host's file descriptors.
    CloseDescriptors,
    /// Executing the [launcher](crate::Config::launcher), which takes the remaining steps.
    Launcher,
    /// Resource limits of the process.
    ResourceLimits,
    /// The adjustment of the OOM killer's score.
    OomScore,
    /// The nice value and the scheduling policy.
    Scheduling,
    /// The processors that it may run on.
    Affinity,
    /// The I/O priority.
    IoPriority,
    /// A new session keyring.
    SessionKeyring,
    /// The bounding set of capabilities.
    BoundingSet,
    /// The secure bits.
    SecureBits,
    /// The root directory.
    RootDirectory,
    /// Supplementary groups.
    Groups,
    /// The group id.
    GroupId,
    /// The user id.
    UserId,
    /// Giving up capabilities.
    Capabilities,
    /// The no-new-privileges flag.
    NoNewPrivileges,
    /// The working directory.
    CurrentDirectory,
    /// The parent-death signal.
    ParentDeathSignal,
    /// Executing the program.
    Exec,
}

impl Stage {
    /// In the order of their numbers, which start at one.
    pub(crate) const ALL: [Self; 25] = [
        Self::Clone,
        Self::ProcessGroup,
        Self::Terminal,
        Self::Signals,
        Self::StandardStreams,
        Self::Descriptors,
        Self::CloseDescriptors,
        Self::Launcher,
        Self::ResourceLimits,
        Self::OomScore,
        Self::Scheduling,
        Self::Affinity,
        Self::IoPriority,
        Self::SessionKeyring,
        Self::BoundingSet,
        Self::SecureBits,
        Self::RootDirectory,
        Self::Groups,
        Self::GroupId,
        Self::UserId,
        Self::Capabilities,
        Self::NoNewPrivileges,
        Self::CurrentDirectory,
        Self::ParentDeathSignal,
        Self::Exec,
    ];

    /// The kind of a failure at this stage.
    fn kind(self, cause: &io::Error) -> ErrorKind {
        match (self, Errno::from_io_error(cause)) {
            // An old kernel, or a seccomp filter.
            (Self::Clone, Some(Errno::PERM | Errno::TOOBIG | Errno::INVAL)) => {
                ErrorKind::Unsupported
            }
            _ => ErrorKind::of(cause),
        }
    }

    /// What the errno means at this stage, and what to do about it.
    fn hint(self, cause: &io::Error) -> &'static str {
        let Some(errno) = Errno::from_io_error(cause) else { return "" };
        match (self, errno) {
            (Self::Clone, Errno::BUSY) => {
                " (controllers are enabled for the children of the job's cgroup, so it cannot hold \
                 a process itself)"
            }
            (Self::Clone, Errno::OPNOTSUPP) => {
                " (the job's cgroup is threaded or \"domain invalid\": read cgroup.type of its \
                 parent)"
            }
            (Self::Clone, Errno::ACCESS) => {
                " (write access to cgroup.procs of the common ancestor of the host's and the job's \
                 cgroup is needed)"
            }
            (Self::Clone, Errno::NODEV) => " (the job's cgroup was removed by somebody else)",
            (Self::Clone, Errno::AGAIN) => {
                " (pids.max of a cgroup or the user's process limit is reached)"
            }
            (Self::Clone, Errno::NOSYS | Errno::PERM | Errno::TOOBIG | Errno::INVAL) => {
                " (clone3 with CLONE_INTO_CGROUP needs Linux 5.7, and a seccomp filter that allows \
                 it)"
            }
            (Self::Terminal, Errno::NOSPC) => {
                " (the sysctl kernel.pty.max, or the option max= of the mounted devpts, is reached)"
            }
            (Self::Terminal, Errno::NOENT | Errno::NXIO | Errno::NODEV | Errno::IO) => {
                " (a devpts must be mounted at /dev/pts, with its ptmx at /dev/ptmx)"
            }
            (Self::StandardStreams, Errno::FBIG) => {
                " (the bytes of its input are more than the host's RLIMIT_FSIZE)"
            }
            (Self::Descriptors, Errno::BADF | Errno::INVAL) => {
                " (their numbers must be at least 8 below the host's RLIMIT_NOFILE)"
            }
            (Self::Groups | Self::GroupId | Self::UserId, Errno::PERM) => {
                " (the host needs root, or CAP_SETUID and CAP_SETGID)"
            }
            (Self::Launcher, Errno::NOEXEC) => {
                " (it is not the launcher that the reactor has found: was it written to?)"
            }
            (Self::Launcher, Errno::ACCESS) => {
                " (not executable by the host's user, a directory, or on a noexec mount)"
            }
            (Self::Launcher, Errno::NOENT) => " (a script cannot be a launcher)",
            (Self::Launcher, Errno::FBIG) => {
                " (the command with its environment is longer than the host's RLIMIT_FSIZE)"
            }
            (Self::Launcher, Errno::NOMEM | Errno::TOOBIG) => {
                " (the job's memory.max must leave it a megabyte)"
            }
            (Self::Launcher, Errno::PERM) => {
                " (the host's capabilities cannot be kept for it: its secure bits forbid ambient \
                 ones)"
            }
            (Self::Groups, Errno::INVAL) => {
                " (more than 65536 of them, or one is 4294967295, which stands for none)"
            }
            (Self::ResourceLimits, Errno::PERM) => " (raising a hard limit needs CAP_SYS_RESOURCE)",
            (Self::OomScore, Errno::ACCESS | Errno::PERM) => {
                " (lowering it needs CAP_SYS_RESOURCE)"
            }
            (Self::OomScore, Errno::NOENT) => " (/proc of the host's PID namespace is not mounted)",
            (Self::Scheduling, Errno::ACCESS | Errno::PERM) => {
                " (a lower nice value or a real-time policy needs CAP_SYS_NICE, or RLIMIT_NICE or \
                 RLIMIT_RTPRIO)"
            }
            (Self::Affinity, Errno::INVAL) => {
                " (none of the processors exists, is online and is in the cpuset of the job's \
                 cgroup)"
            }
            (Self::IoPriority, Errno::PERM) => " (the real-time class needs CAP_SYS_NICE)",
            (Self::SessionKeyring, Errno::DQUOT) => {
                " (the key quota of the host's user is used up: raise the sysctl \
                 kernel.keys.maxkeys)"
            }
            (Self::SessionKeyring, Errno::NOSYS | Errno::PERM) => {
                " (the kernel has no keyrings, or a seccomp filter, as containers have by default, \
                 forbids keyctl)"
            }
            (Self::RootDirectory, Errno::PERM) => " (the host needs CAP_SYS_CHROOT)",
            (Self::BoundingSet | Self::SecureBits, Errno::PERM) => {
                " (the host needs CAP_SETPCAP, and secure bits that are not locked)"
            }
            (Self::Exec, Errno::NOEXEC) => {
                " (neither a binary of this machine nor a script that starts with #!)"
            }
            (Self::Exec, Errno::NOENT) => {
                " (no such file, in the job's own PATH if it is a bare name, or its interpreter is \
                 missing)"
            }
            (Self::Exec, Errno::ACCESS) => {
                " (not executable by the job's user, a directory, or on a noexec mount)"
            }
            (Self::Exec, Errno::TXTBSY) => " (the program file is open for writing)",
            _ => hint(cause),
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Clone => "clone3",
            Self::ProcessGroup => "entering its session or process group",
            Self::Terminal => "making its terminal",
            Self::Signals => "resetting signals",
            Self::StandardStreams => "connecting standard input, output and error",
            Self::Descriptors => "passing descriptors on",
            Self::CloseDescriptors => "closing the host's file descriptors",
            Self::Launcher => "executing the launcher",
            Self::ResourceLimits => "setting resource limits",
            Self::OomScore => "setting oom_score_adj",
            Self::Scheduling => "setting the nice value or the scheduling policy",
            Self::Affinity => "setting the CPU affinity",
            Self::IoPriority => "setting the I/O priority",
            Self::SessionKeyring => "making a session keyring",
            Self::BoundingSet => "limiting the capability bounding set",
            Self::SecureBits => "setting the secure bits",
            Self::RootDirectory => "changing to the root directory",
            Self::Groups => "setting supplementary groups",
            Self::GroupId => "setting the group id",
            Self::UserId => "setting the user id",
            Self::Capabilities => "giving up capabilities",
            Self::NoNewPrivileges => "setting no_new_privs",
            Self::CurrentDirectory => "entering the working directory",
            Self::ParentDeathSignal => "setting the parent-death signal",
            Self::Exec => "exec",
        })
    }
}

fn begun(stage: Option<Stage>) -> String {
    stage.map_or_else(String::new, |stage| format!(", and came as far as {stage}"))
}

fn killed(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (process {pid} is killed, but has not died yet)"))
}

fn about(path: Option<&Path>) -> String {
    path.map_or_else(String::new, |path| format!(" {}", path.display()))
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
}
