//! Owns [`Owner`]: who made a cgroup, written on the group itself, and the sweep of groups whose
//! owner is dead.
//!
//! Invariant: a group is swept only when its owner is known to be dead: another boot, or the same
//! boot and the same pid namespace without that process. A group without a mark is not ours and is
//! never touched.

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fs, io};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags, XattrFlags, fsetxattr, getxattr, openat};

use crate::cgroup::group::Group;
use crate::cgroup::tree::Tree;
use crate::error::{Error, Result};
use crate::sys::Stat;

/// The extended attribute that names the owner. cgroup2 has those of users since Linux 5.7.
const ATTRIBUTE: &str = "user.jobworker.owner";

/// How long the processes of one swept group may take to die.
const DEATH_TIMEOUT: Duration = Duration::from_secs(5);

/// A process, in a way that survives the reuse of its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    boot: String,
    pid_namespace: String,
    pid: u32,
    /// When the process started, in clock ticks since the boot.
    start: u64,
}

impl Owner {
    /// This process.
    pub(crate) fn current() -> Result<Self> {
        let read = |path: &'static str| fs::read_to_string(path).map_err(Error::path("read", path));
        let namespace = "/proc/self/ns/pid";
        let pid_namespace = fs::read_link(namespace).map_err(Error::path("read", namespace))?;
        let pid = std::process::id();
        let stat = Stat::of_self().map_err(Error::path("read", "/proc/self/stat"))?;
        Ok(Self {
            boot: read("/proc/sys/kernel/random/boot_id")?.trim_end().to_owned(),
            pid_namespace: pid_namespace.display().to_string(),
            pid,
            start: stat.start_time,
        })
    }

    /// Marks a group as made by this process. Where the kernel does not support such attributes,
    /// the group stays unmarked and is never swept.
    pub(crate) fn mark(&self, group: BorrowedFd<'_>, detached: bool) {
        let mark = self.print(detached);
        let _ = fsetxattr(group, ATTRIBUTE, mark.as_bytes(), XattrFlags::empty());
    }

    /// The owner of a group, and whether the job in it was to outlive that.
    fn of(group: &Path) -> Option<(Self, bool)> {
        let mut buffer = [0; 256];
        let length = getxattr(group, ATTRIBUTE, &mut buffer).ok()?;
        Self::parse(std::str::from_utf8(buffer.get(..length)?).ok()?)
    }

    /// The mark on a group, as [`parse`](Self::parse) takes it.
    pub(crate) fn print(&self, detached: bool) -> String {
        let kind = if detached { "detached" } else { "attached" };
        format!("{} {} {} {} {kind}", self.boot, self.pid_namespace, self.pid, self.start)
    }

    /// The owner that a mark names, and whether the job is detached. Only exactly what
    /// [`print`](Self::print) writes is accepted, because it decides which processes are killed.
    pub(crate) fn parse(text: &str) -> Option<(Self, bool)> {
        let mut words = text.split(' ');
        let owner = Self {
            boot: words.next()?.to_owned(),
            pid_namespace: words.next()?.to_owned(),
            pid: words.next()?.parse().ok()?,
            start: words.next()?.parse().ok()?,
        };
        let detached = words.next()? == "detached";
        let complete = !owner.boot.is_empty() && !owner.pid_namespace.is_empty();
        (complete && owner.print(detached) == text).then_some((owner, detached))
    }

    /// Whether this owner is known to be dead. `here` is the calling process.
    fn is_dead(&self, here: &Self) -> bool {
        if self.boot != here.boot {
            return true;
        }
        if self.pid_namespace != here.pid_namespace {
            // Its number means nothing here.
            return false;
        }
        // If the file cannot be read, the owner counts as alive.
        Stat::of(self.pid).is_ok_and(|stat| stat.map(|stat| stat.start_time) != Some(self.start))
    }
}

/// Removes the groups of dead owners; see [`Reactor::sweep`](crate::Reactor::sweep).
pub(crate) fn sweep(tree: &Arc<Tree>, here: &Owner) -> Result<Vec<PathBuf>> {
    let parent = tree.path();
    let mut swept = Vec::new();
    for entry in fs::read_dir(parent).map_err(Error::path("list", parent))? {
        let Ok(entry) = entry else { continue };
        let path = entry.path();
        let Some((owner, detached)) = Owner::of(&path) else { continue };
        if !owner.is_dead(here) {
            continue;
        }
        let Ok(name) = entry.file_name().into_string() else { continue };
        let group = Group::named(tree, name);
        if group.populated()? {
            if detached {
                continue;
            }
            group.kill()?;
            await_empty(&group)?;
        }
        group.remove()?;
        swept.push(path);
    }
    Ok(swept)
}

/// Waits, for a bounded time, until a killed group is empty. cgroup.events raises a priority event
/// when it changes.
fn await_empty(group: &Group) -> Result<()> {
    let path = group.path().join("cgroup.events");
    let events = openat(CWD, &path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(Error::path("watch", &path))?;
    let until = Instant::now() + DEATH_TIMEOUT;
    while group.populated()? {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::path("empty cgroup", group.path())(io::Error::from(
                io::ErrorKind::TimedOut,
            )));
        }
        let timeout: Option<Timespec> = left.try_into().ok();
        match poll(&mut [PollFd::new(&events, PollFlags::PRI)], timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(Error::path("watch", path)(errno)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_reads_back_as_it_was_written() {
        let text = "boot pid:[4026531836] 42 1234 detached";
        let (owner, detached) = Owner::parse(text).unwrap();
        assert!(detached);
        assert_eq!((owner.pid, owner.start), (42, 1234));
        assert_eq!(owner.print(detached), text);
    }

    #[test]
    fn what_is_not_exactly_a_mark_names_no_owner() {
        for text in [
            "",
            "boot pid:[1] 42",
            "boot pid:[1] 42 1234",
            "boot pid:[1] 42 1234 ",
            "boot pid:[1] 42 1234 detach",
            "boot pid:[1] 42 1234 detached more",
            "boot pid:[1] +42 1234 attached",
            "boot pid:[1] 042 1234 attached",
            "  42 1234 attached",
        ] {
            assert_eq!(Owner::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn only_a_dead_owner_is_dead() {
        let here = Owner::current().unwrap();
        assert!(!here.is_dead(&here));
        assert!(
            Owner { start: here.start + 1, ..here.clone() }.is_dead(&here),
            "the pid was used again"
        );
        assert!(Owner { boot: "another".to_owned(), ..here.clone() }.is_dead(&here));
        let elsewhere = Owner { pid_namespace: "pid:[1]".to_owned(), start: 0, ..here.clone() };
        assert!(!elsewhere.is_dead(&here), "pids of another namespace say nothing here");
    }
}
