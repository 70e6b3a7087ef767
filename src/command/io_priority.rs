//! Owns [`IoPriority`]: how a job's requests to disks are served beside those of others.
//!
//! Plain data; knows nothing of how it is set.

/// How a job's requests to disks are served beside those of others; see ioprio_set(2).
///
/// Levels go from 0, served first, to 7. Whether there is an effect depends on the scheduler of the
/// disk: BFQ honours all of them, mq-deadline the classes, and `none` nothing. A share of the disk
/// for the job as a whole is set by [`Limits::io_weight`](crate::Limits::io_weight).
///
/// ```
/// use jobworker::{Command, IoPriority};
///
/// let mut command = Command::new("backup");
/// command.io_priority(IoPriority::Idle);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[doc(alias = "IOPRIO_CLASS_RT")]
#[non_exhaustive]
pub enum IoPriority {
    /// Before all others, by level. Needs `CAP_SYS_NICE` or `CAP_SYS_ADMIN`; before Linux 5.14, the
    /// latter.
    RealTime(u8),
    /// The class of all processes that have chosen none, by level. Those that have chosen none
    /// have a level that follows their [`nice`](crate::Command::nice) value, 4 by default.
    BestEffort(u8),
    /// Only when nothing else has asked for the disk for a while.
    Idle,
}
