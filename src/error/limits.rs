//! Owns [`LimitsError`]: why limits cannot be set, with what would enable them, and
//! [`InvalidLimit`], a value that no kernel would accept.
//!
//! Knows nothing of how limits are written.

use std::io;
use std::path::PathBuf;

use rustix::io::Errno;

use crate::error::kind::ErrorKind;

/// Limits cannot be set, or would not be enforced.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LimitsError {
    /// A limit is out of range; found before anything was created.
    #[error("cannot set limits: {0}")]
    Invalid(InvalidLimit),
    /// A limit needs a cgroup controller that is not available; found before anything was created.
    #[error(
        "cannot set {file}: the {controller} controller is not available in {} (available: {}). {}",
        path.display(), list(available), enable(controller, *in_v1)
    )]
    #[non_exhaustive]
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
    /// A limit needs a controller that is available but cannot be enabled for the jobs; found
    /// before the job's cgroup was created.
    #[error(
        "cannot set {file}: enabling the {controller} controller in {} failed: {cause}{}",
        path.display(), blocked(cause)
    )]
    #[non_exhaustive]
    ControllerBlocked {
        /// The interface file of the limit.
        file: String,
        /// The controller.
        controller: String,
        /// The cgroup whose children should get it.
        path: PathBuf,
        /// The cause.
        cause: io::Error,
    },
    /// The controller is available, but has no such interface file in this kernel or on this
    /// machine.
    #[error("cannot set {file}: {} does not have it: {needs}", path.display())]
    #[non_exhaustive]
    Unavailable {
        /// The interface file.
        file: String,
        /// The job's cgroup.
        path: PathBuf,
        /// What it takes to have the file: a version of Linux, or its configuration.
        needs: &'static str,
    },
    /// The kernel would accept a limit without enforcing it; found before the job's cgroup was
    /// created.
    #[error("cannot set {file}: it would have no effect: {reason}")]
    #[non_exhaustive]
    Ineffective {
        /// The interface file of the limit.
        file: String,
        /// Why, and what would change it.
        reason: &'static str,
    },
    /// The kernel accepted a limit but reads back another value.
    #[error(
        "cannot set {file} in {}: wrote {wrote:?}, but the kernel reads back {found:?}",
        path.display()
    )]
    #[non_exhaustive]
    NotKept {
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
    #[error("cannot set limits: the reactor contains jobs by process group, which has no limits")]
    NeedCgroup,
}

impl LimitsError {
    pub(super) fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid(_) => ErrorKind::InvalidInput,
            Self::ControllerBlocked { cause, .. } => match ErrorKind::of(cause) {
                kind @ (ErrorKind::PermissionDenied | ErrorKind::LimitReached) => kind,
                // Processes in the cgroup, or a threaded one.
                _ => ErrorKind::Unsupported,
            },
            Self::ControllerUnavailable { .. }
            | Self::Unavailable { .. }
            | Self::Ineffective { .. }
            | Self::NotKept { .. }
            | Self::NeedCgroup => ErrorKind::Unsupported,
        }
    }

    pub(super) fn cause(&self) -> Option<&io::Error> {
        match self {
            Self::ControllerBlocked { cause, .. } => Some(cause),
            _ => None,
        }
    }
}

impl From<InvalidLimit> for LimitsError {
    fn from(invalid: InvalidLimit) -> Self {
        Self::Invalid(invalid)
    }
}

/// A limit that no kernel would accept, found before anything was created.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidLimit {
    /// The text is not digits with at most one of the suffixes K, M, G and T, or does not fit into
    /// 64 bits.
    #[error(
        "{text:?} is not a size: write bytes as digits, with K, M, G or T for powers of 1024, as \
         in 100M"
    )]
    #[non_exhaustive]
    Size {
        /// What was given.
        text: String,
    },
    /// A value outside of the kernel's range.
    #[error("{file} is {value}, but has to lie between {least} and {most}")]
    #[non_exhaustive]
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
    #[non_exhaustive]
    List {
        /// The interface file, such as `cpuset.cpus`.
        file: &'static str,
        /// What was given.
        text: String,
    },
    /// The name of an interface file that leads out of the cgroup, is none, or is not for setting
    /// limits.
    #[error(
        "{file:?} is not the name of a limit's file: it has to be of the form controller.name, \
         without a slash"
    )]
    #[non_exhaustive]
    File {
        /// What was given.
        file: String,
    },
    /// A text that is no value for this file.
    #[error("{file} is {text:?}, but has to be {expected}")]
    #[non_exhaustive]
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
    #[non_exhaustive]
    Unknown {
        /// What was given.
        file: String,
    },
    /// The text is not the number of a block device.
    #[error(
        "{text:?} is not the number of a block device: write it as in /proc/partitions, with a \
         colon, such as 259:0"
    )]
    #[non_exhaustive]
    Device {
        /// What was given.
        text: String,
    },
}

/// Why a controller cannot be enabled for the children of a cgroup.
fn blocked(cause: &io::Error) -> &'static str {
    match Errno::from_io_error(cause) {
        Some(Errno::BUSY) => {
            " (processes live in that cgroup itself, and a group with processes cannot pass \
             controllers on: move them into a group below it, for the host's own see \
             Config::host_leaf)"
        }
        Some(Errno::ACCESS | Errno::PERM) => " (not delegated to this user; systemd: Delegate=yes)",
        Some(Errno::OPNOTSUPP) => {
            " (the cgroup is threaded, or would be because of the processes in it: move them into \
             a group below it, for the host's own see Config::host_leaf)"
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
            "To enable it, write \"+{controller}\" to cgroup.subtree_control of each cgroup from \
             the root down to that one, or delegate it (systemd: Delegate=yes)"
        )
    }
}
