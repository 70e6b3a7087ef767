//! Owns [`Origin`]: the cgroup that a process is in, or was in when it exited, as /proc tells.
//!
//! Invariant: a zombie is told apart like a process that runs: the kernel keeps its cgroup until it
//! is reaped, even if the group was removed meanwhile. Knows nothing of whose process it is.

use std::io;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::process::Pid;

use crate::cgroup::content::read_to_end;

/// The cgroup of a process, by its path from the root of the tree that this process sees.
#[derive(Debug)]
pub(crate) struct Origin(Vec<u8>);

impl Origin {
    /// That of a process, by its number.
    ///
    /// The kernel tells no path of more than 4095 bytes (ENAMETOOLONG).
    pub(crate) fn of(pid: Pid) -> io::Result<Self> {
        let path = format!("/proc/{}/cgroup", pid.as_raw_nonzero());
        let file = openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self::parse(&read_to_end(file)?))
    }

    /// Parses the content of /proc/PID/cgroup. A name cannot have a newline: the kernel refuses it.
    fn parse(content: &[u8]) -> Self {
        let mut lines = content.split(|byte| *byte == b'\n');
        let path = lines.find_map(|line| line.strip_prefix(b"0::")).unwrap_or_default();
        Self(path.strip_suffix(b" (deleted)").unwrap_or(path).to_owned())
    }

    /// Whether the group, or one above it, has a name that is wanted.
    pub(crate) fn is_within(&self, wanted: impl Fn(&str) -> bool) -> bool {
        let mut names = self.0.split(|byte| *byte == b'/');
        names.any(|name| std::str::from_utf8(name).is_ok_and(&wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_by_its_name_and_by_those_above_it() {
        let within =
            |content: &[u8], wanted: &str| Origin::parse(content).is_within(|name| name == wanted);
        for content in [
            &b"0::/jobs/one/below\n"[..],
            b"3:cpu:/two\n1:name=systemd:/two\n0::/jobs/one\n",
            b"0::/jobs/one/\xff\xfe/below (deleted)\n",
            b"0::/../jobs/one (deleted)\n",
        ] {
            assert!(within(content, "one"), "{content:?}");
            assert!(!within(content, "two"), "{content:?}");
        }
        for content in [&b""[..], b"3:cpu:/one\n", b"0::/\n", b"0::/ones\n"] {
            assert!(!within(content, "one"), "{content:?}");
        }
    }
}
