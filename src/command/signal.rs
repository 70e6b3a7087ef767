//! Owns [`Signal`]: a signal number that is known to be valid, and its name.
//!
//! Invariant: the number lies in 1..=64, the range that Linux accepts on every architecture this
//! crate supports. Knows nothing of processes.

use std::fmt;

/// A Linux signal, by number.
///
/// The constants have the numbers that x86, Arm, RISC-V and most other architectures share; see
/// signal(7).
///
/// ```
/// use jobworker::Signal;
///
/// assert_eq!(Signal::TERM.to_string(), "SIGTERM");
/// assert_eq!(Signal::from_raw(9), Some(Signal::KILL));
/// assert_eq!(Signal::from_raw(0), None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[doc(alias = "SIGTERM")]
pub struct Signal(u8);

impl Signal {
    /// Hang-up: many daemons reload their configuration.
    pub const HUP: Self = Self(1);
    /// Interrupt from the keyboard.
    pub const INT: Self = Self(2);
    /// Quit from the keyboard, with a core dump.
    pub const QUIT: Self = Self(3);
    /// Abort, as `abort(3)` raises it.
    pub const ABRT: Self = Self(6);
    /// Kill: cannot be caught, blocked or ignored.
    pub const KILL: Self = Self(9);
    /// First signal without a meaning of its own.
    pub const USR1: Self = Self(10);
    /// Invalid memory reference.
    pub const SEGV: Self = Self(11);
    /// Second signal without a meaning of its own.
    pub const USR2: Self = Self(12);
    /// Write to a pipe that nobody reads.
    pub const PIPE: Self = Self(13);
    /// The polite request to end; the default stop signal of a job.
    pub const TERM: Self = Self(15);
    /// Continue after a stop.
    pub const CONT: Self = Self(18);
    /// Stop: cannot be caught, blocked or ignored.
    pub const STOP: Self = Self(19);

    /// The signal with this number, or `None` when it is not in 1..=64.
    #[must_use]
    pub const fn from_raw(number: i32) -> Option<Self> {
        match number {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            1..=64 => Some(Self(number as u8)),
            _ => None,
        }
    }

    /// The number, as the kernel knows it.
    #[must_use]
    pub const fn as_raw(self) -> i32 {
        self.0 as i32
    }
}

/// Writes `SIGTERM`, or `SIG34` for a number without a name of its own.
impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 31] = [
            "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV",
            "USR2", "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN",
            "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
        ];
        match NAMES.get(usize::from(self.0) - 1) {
            Some(name) => write!(f, "SIG{name}"),
            None => write!(f, "SIG{}", self.0),
        }
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_the_kernel_accepts_has_a_name() {
        assert_eq!(Signal::from_raw(31).unwrap().to_string(), "SIGSYS");
        assert_eq!(Signal::from_raw(19).unwrap(), Signal::STOP);
        assert_eq!(Signal::from_raw(64).unwrap().to_string(), "SIG64");
        assert_eq!(Signal::from_raw(65), None);
        assert_eq!(Signal::from_raw(-1), None);
    }

    #[test]
    fn it_is_written_by_its_name() {
        assert_eq!(format!("{:?} {}", Signal::TERM, Signal::KILL), "SIGTERM SIGKILL");
    }
}
