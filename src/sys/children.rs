//! Owns [`ChildList`]: the children of one thread of this process, as /proc lists them.
//!
//! Invariant: what is read in one piece was true at one moment. A child that is listed before the
//! end of a piece and vanishes makes the next piece skip another: the kernel counts them. Knows
//! nothing of whose the children are.

use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Dir, Mode, OFlags, SeekFrom, openat, seek};
use rustix::io::{Errno, read};
use rustix::process::Pid;

/// The children of one thread, zombies included, the oldest first; see proc(5).
#[derive(Debug)]
pub(crate) struct ChildList {
    file: OwnedFd,
    /// The beginning of a number that the last piece has cut.
    cut: Vec<u8>,
}

impl ChildList {
    /// The list of a thread of this process. It does not exist (ENOENT) when the thread is gone, or
    /// when the kernel was built without `CONFIG_PROC_CHILDREN`.
    pub(crate) fn open(thread: Pid) -> rustix::io::Result<Self> {
        let path = format!("/proc/self/task/{}/children", thread.as_raw_nonzero());
        let file = openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { file, cut: Vec::new() })
    }

    /// Begins again.
    pub(crate) fn rewind(&mut self) -> rustix::io::Result<()> {
        self.cut.clear();
        seek(&self.file, SeekFrom::Start(0))?;
        Ok(())
    }

    /// The next piece, of some hundred children at most; `false` when there is none.
    pub(crate) fn read(&mut self, children: &mut Vec<Pid>) -> rustix::io::Result<bool> {
        let mut buffer = [0; 4096];
        let length = match read(&self.file, &mut buffer) {
            // The thread is gone.
            Err(Errno::SRCH) => 0,
            length => length?,
        };
        let read = &buffer[..length];
        // Every number is followed by a space.
        let end = read.iter().rposition(|byte| *byte == b' ').map_or(0, |last| last + 1);
        self.cut.extend_from_slice(&read[..end]);
        let numbers = self.cut.split(|byte| *byte == b' ').filter_map(parse);
        children.extend(numbers);
        if end > 0 {
            self.cut.clear();
        }
        self.cut.extend_from_slice(&read[end..]);
        Ok(length > 0)
    }
}

fn parse(number: &[u8]) -> Option<Pid> {
    std::str::from_utf8(number).ok()?.parse().ok().and_then(Pid::from_raw)
}

/// The threads of this process, the oldest first.
pub(crate) fn threads() -> rustix::io::Result<Vec<Pid>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(CWD, "/proc/self/task", flags, Mode::empty())?;
    let mut threads = Vec::new();
    for entry in Dir::new(directory)? {
        threads.extend(parse(entry?.file_name().to_bytes()));
    }
    Ok(threads)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// How often a number is listed when each list is read twice.
    fn listed(child: u32) -> usize {
        let mut children = Vec::new();
        for thread in threads().unwrap() {
            // The thread of another test may have ended.
            let Ok(mut list) = ChildList::open(thread) else { continue };
            while list.read(&mut children).unwrap() {}
            list.rewind().unwrap();
            while list.read(&mut children).unwrap() {}
        }
        let child = i32::try_from(child).unwrap();
        children.iter().filter(|pid| pid.as_raw_nonzero().get() == child).count()
    }

    #[test]
    fn a_child_is_listed_until_it_is_reaped() {
        let mut child = Command::new("true").spawn().unwrap();
        assert_eq!(listed(child.id()), 2);
        child.wait().unwrap();
        assert_eq!(listed(child.id()), 0);
    }
}
