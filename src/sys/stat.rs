//! Owns [`Stat`]: the fields of /proc/PID/stat for a process.
//!
//! Invariant: the name in that file, which a process can choose freely, is never taken for another
//! field. Knows nothing of what they are used for.

use std::{fs, io};

use rustix::io::Errno;

/// The fields of /proc/PID/stat that this crate uses; see proc_pid_stat(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    /// The third field: `R` for running, `Z` for a zombie, and so on.
    pub(crate) state: u8,
    /// The fifth: the number of the process group.
    pub(crate) process_group: u32,
    /// The 22nd: when it was cloned, in ticks since the system was booted.
    pub(crate) start: u64,
    /// The 52nd: how a zombie has ended, as wait(2) encodes it; zero as well for whoever may not
    /// know.
    pub(crate) exit_code: Option<i32>,
}

impl Stat {
    /// The fields of a process, or `None` if it is gone. A zombie is not gone.
    pub(crate) fn of(pid: u32) -> io::Result<Option<Self>> {
        match fs::read(format!("/proc/{pid}/stat")) {
            // A process that is reaped after the file was opened has -1 for its group.
            Ok(content) => Ok(Self::parse(&content)),
            Err(error) => match Errno::from_io_error(&error) {
                // ESRCH comes from reading a file that was opened before the process was reaped.
                Some(Errno::NOENT | Errno::SRCH) => Ok(None),
                _ => Err(error),
            },
        }
    }

    /// Parses the content of the file. The second field is the name in parentheses, which may hold
    /// anything, parentheses, newlines and bytes that are not UTF-8 included; no later field has a
    /// parenthesis.
    pub(crate) fn parse(content: &[u8]) -> Option<Self> {
        let name_end = content.iter().rposition(|byte| *byte == b')')?;
        let rest = std::str::from_utf8(content.get(name_end + 1..)?).ok()?;
        let mut fields = rest.split_whitespace();
        let &[state] = fields.next()?.as_bytes() else { return None };
        // The fourth is passed over.
        let process_group = fields.nth(1)?.parse().ok()?;
        let start = fields.nth(16)?.parse().ok()?;
        let exit_code = fields.nth(29).and_then(|field| field.parse().ok());
        Some(Self { state, process_group, start, exit_code })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fields after the name. Except for the state, the value of each is its number.
    const REST: &str = "S 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 \
                        30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52\n";

    #[test]
    fn the_name_of_a_process_cannot_pass_for_other_fields() {
        let expected = Stat { state: b'S', process_group: 5, start: 22, exit_code: Some(52) };
        for name in [&b"sh"[..], b"", b"a) Z 7", b") Z 1 2 3", b"a\nb", b"\xff\xc3", b"(()"] {
            let content = [b"42 (", name, b") ", REST.as_bytes()].concat();
            assert_eq!(Stat::parse(&content), Some(expected), "{name:?}");
        }
    }

    #[test]
    fn a_process_that_has_been_reaped_has_no_group() {
        let content = format!("42 (sh) {}", REST.replacen("4 5 6", "-1 -1 -1", 1));
        assert_eq!(Stat::parse(content.as_bytes()), None);
    }

    #[test]
    fn what_is_not_complete_is_refused() {
        for content in ["", "42 (sh", "42 (sh)", "42 (sh) ", "42 (sh) S 4"] {
            assert_eq!(Stat::parse(content.as_bytes()), None, "{content:?}");
        }
    }

    #[test]
    fn a_process_that_is_there_is_told_from_one_that_is_not() {
        assert!(Stat::of(std::process::id()).unwrap().is_some());
        // Pids are below 2^22; see PID_MAX_LIMIT in linux/threads.h.
        assert_eq!(Stat::of(1 << 22).unwrap(), None);
    }
}
