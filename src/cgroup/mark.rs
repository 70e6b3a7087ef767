//! Owns [`Mark`]: what is recorded on a group, for whoever comes after its host.
//!
//! Invariant: only what [`Mark::print`] writes is a mark, because it decides which processes are
//! killed. Knows nothing of whether the owner lives.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{XattrFlags, fsetxattr, getxattr};
use uuid::Uuid;

/// The extended attribute of a job's group. cgroup2 has those of users since Linux 5.7.
const ATTRIBUTE: &str = "user.jobworker.owner";

/// Whose a group is, and whether the job in it was to outlive that host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The name of the owner, which its marker carries.
    pub(crate) owner: Uuid,
    /// Whether the job is detached.
    pub(crate) detached: bool,
}

impl Mark {
    /// Writes the mark on a group. Where the kernel has no such attributes, the group stays
    /// unmarked, and is never swept.
    pub(super) fn write(self, group: impl AsFd) {
        let _ = fsetxattr(group, ATTRIBUTE, self.print().as_bytes(), XattrFlags::empty());
    }

    /// The mark of the group at a path, if it has one.
    pub(super) fn of(group: &Path) -> Option<Self> {
        let mut buffer = [0; 64];
        let length = getxattr(group, ATTRIBUTE, &mut buffer).ok()?;
        Self::parse(std::str::from_utf8(buffer.get(..length)?).ok()?)
    }

    /// The text of the mark, as [`parse`](Self::parse) takes it.
    pub(crate) fn print(self) -> String {
        format!("{} {}", self.owner, if self.detached { "detached" } else { "attached" })
    }

    /// The mark with this text.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (owner, kind) = text.split_once(' ')?;
        let mark = Self { owner: Uuid::try_parse(owner).ok()?, detached: kind == "detached" };
        (mark.print() == text).then_some(mark)
    }
}

/// The extended attribute of a marker that names the group which is being made.
const MAKING: &str = "user.jobworker.making";

/// Records on a marker the name of the group that is made next. Failing is as for a mark.
pub(super) fn write_making(marker: impl AsFd, name: &str) {
    let _ = fsetxattr(marker, MAKING, name.as_bytes(), XattrFlags::empty());
}

/// The name of the group that the owner of a marker made last.
pub(super) fn making(marker: &Path) -> io::Result<String> {
    let mut buffer = [0; 256];
    let length = getxattr(marker, MAKING, &mut buffer)?;
    let name = buffer.get(..length).unwrap_or_default();
    String::from_utf8(name.to_vec()).map_err(|_| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_reads_back_as_it_was_written() {
        for (text, detached) in [
            ("6f1b7e52-2a0c-4c5e-9d0a-3f1f0c9c2b11 detached", true),
            ("6f1b7e52-2a0c-4c5e-9d0a-3f1f0c9c2b11 attached", false),
        ] {
            let mark = Mark::parse(text).unwrap();
            assert_eq!((mark.detached, mark.print().as_str()), (detached, text));
        }
    }

    #[test]
    fn what_is_not_exactly_a_mark_names_no_owner() {
        for text in [
            "",
            "6f1b7e52-2a0c-4c5e-9d0a-3f1f0c9c2b11",
            "6f1b7e52-2a0c-4c5e-9d0a-3f1f0c9c2b11 ",
            "6f1b7e52-2a0c-4c5e-9d0a-3f1f0c9c2b11 detach",
            "6f1b7e52-2a0c-4c5e-9d0a-3f1f0c9c2b11 detached more",
            "6f1b7e52-2a0c-4c5e-9d0a-3f1f0c9c2b11  detached",
            "6F1B7E52-2a0c-4c5e-9d0a-3f1f0c9c2b11 detached",
            "6f1b7e522a0c4c5e9d0a3f1f0c9c2b11 detached",
            "{6f1b7e52-2a0c-4c5e-9d0a-3f1f0c9c2b11} detached",
            // What an earlier version wrote.
            "6f1b7e52-2a0c-4c5e-9d0a-3f1f0c9c2b11 pid:[4026531836] 42 1234 attached",
        ] {
            assert_eq!(Mark::parse(text), None, "{text:?}");
        }
    }
}
