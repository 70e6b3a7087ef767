//! Owns [`Exit`], how a main process ended, and [`Usage`], what it used up.
//!
//! Invariant: an exit code and a death by signal are never confused. Plain data; knows nothing of
//! how it is collected.

use std::fmt;
use std::time::Duration;

use crate::command::Signal;

/// How the main process of a job ended.
///
/// ```
/// use jobworker::{Exit, Signal};
///
/// assert!(Exit::Code(0).success());
/// let killed = Exit::Signal { signal: Signal::KILL, core_dumped: false };
/// assert_eq!(killed.code(), None);
/// assert_eq!(killed.shell_code(), 137);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Exit {
    /// It exited with this code, 0 to 255.
    Code(i32),
    /// A signal terminated it.
    Signal {
        /// The signal.
        signal: Signal,
        /// Whether the kernel wrote a core dump.
        core_dumped: bool,
    },
    /// It has exited, but its status was lost to other code in the host, which ignores SIGCHLD or
    /// waits for any child. Since Linux 6.15 the status is known in that case, too. Of a job that
    /// was taken over from another host, [`JobError::ExitUnknown`](crate::JobError::ExitUnknown) in
    /// the report says why.
    Unknown,
}

impl Exit {
    /// Whether the exit code is zero.
    #[must_use]
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }

    /// The exit code, or `None` when a signal ended the process.
    #[must_use]
    pub fn code(self) -> Option<i32> {
        match self {
            Self::Code(code) => Some(code),
            Self::Signal { .. } | Self::Unknown => None,
        }
    }

    /// The signal that ended the process, if one did.
    #[must_use]
    pub fn signal(self) -> Option<Signal> {
        match self {
            Self::Code(_) | Self::Unknown => None,
            Self::Signal { signal, .. } => Some(signal),
        }
    }

    /// The code a shell would report: the exit code, or 128 plus the signal's number; 127 when it
    /// is unknown.
    #[must_use]
    pub fn shell_code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal { signal, .. } => 128 + signal.as_raw(),
            Self::Unknown => 127,
        }
    }
}

/// Writes `exit code 3`, `SIGKILL` or `SIGSEGV (core dumped)`.
impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal { signal, core_dumped: false } => write!(f, "{signal}"),
            Self::Signal { signal, core_dumped: true } => write!(f, "{signal} (core dumped)"),
            Self::Unknown => f.write_str("unknown status"),
        }
    }
}

/// What the main process and the children that it waited for used, as reported by waitid(2).
///
/// Descendants that were not waited for are not included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[doc(alias = "rusage")]
#[non_exhaustive]
pub struct Usage {
    /// CPU time in user mode.
    pub user: Duration,
    /// CPU time in the kernel.
    pub system: Duration,
    /// Largest resident set of any of them, in bytes.
    ///
    /// Not less than the largest one that the host ever had, or its launcher: the child shares the
    /// memory of the host, or copies it, until it executes the program, and the kernel counts that
    /// (`exec_mmap` in fs/exec.c carries the high-water mark on). What the job itself has used is
    /// [`MemoryStats::peak`](crate::MemoryStats::peak), where there is a memory controller.
    pub max_rss: u64,
    /// Page faults served without I/O.
    pub minor_faults: u64,
    /// Page faults that needed I/O.
    pub major_faults: u64,
    /// Reads from a block device, in blocks of 512 bytes.
    pub blocks_in: u64,
    /// Writes to a block device, in blocks of 512 bytes.
    pub blocks_out: u64,
    /// Context switches because the process had to wait.
    pub voluntary_switches: u64,
    /// Context switches because the scheduler chose another process.
    pub involuntary_switches: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_and_a_signal_are_told_apart() {
        let term = Exit::Signal { signal: Signal::TERM, core_dumped: false };
        assert_eq!(
            (term.code(), term.signal(), term.shell_code()),
            (None, Some(Signal::TERM), 143)
        );
        assert_eq!((Exit::Code(143).code(), Exit::Code(143).signal()), (Some(143), None));
        assert_eq!(
            Exit::Signal { signal: Signal::SEGV, core_dumped: true }.to_string(),
            "SIGSEGV (core dumped)"
        );
    }
}
