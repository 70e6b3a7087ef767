//! Owns [`Owner`]: a host that makes groups, in a way by which others can tell whether it lives.
//!
//! Invariant: an owner lives as long as the lock on its marker is held, and the kernel drops that
//! with the last process that has the open file: no pid is ever asked for, so it does not matter
//! which pid, time, mount or user namespace anybody is in. A group has the name of its owner in its
//! own from the moment it exists. Knows nothing of jobs.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, flock, fstat, mkdirat, openat, statat};
use rustix::io::Errno;
use uuid::Uuid;

use crate::cgroup::group::Group;
use crate::cgroup::name::Name;
use crate::cgroup::tree::Tree;
use crate::error::{Error, Result};
use crate::sys::random_uuid;

/// What the name of a marker begins with; the name of its owner follows.
const PREFIX: &str = "jobworker-";

/// How many markers may be swept away before they are locked. Each takes a sweep of another host
/// within the microseconds between two calls.
const ATTEMPTS: usize = 8;

/// A host, by the empty cgroup that it makes beside those of its jobs and holds a lock on.
#[derive(Debug)]
pub(crate) struct Owner {
    tree: Arc<Tree>,
    name: Uuid,
    /// The directory of the marker, open and locked. A child of the host that was only forked has
    /// the same open file, and so keeps the lock.
    #[expect(dead_code, reason = "closing it gives the lock back")]
    marker: OwnedFd,
    /// The process that made the marker. One that was forked from it must not remove it.
    process: u32,
}

impl Owner {
    /// Makes a marker in `tree` and locks it.
    pub(crate) fn new(tree: &Arc<Tree>) -> Result<Self> {
        for _ in 0..ATTEMPTS {
            let name = random_uuid()?;
            let path = tree.path().join(marker_name(name));
            // Nobody else can open it, and so nobody else can hold the lock.
            mkdirat(tree.dir(), marker_name(name), Mode::RWXU)
                .map_err(Error::path("create cgroup", &path))?;
            let locked = lock_marker(tree, name);
            if !matches!(locked, Ok(Some(_))) {
                let _ = remove_marker(tree, name);
            }
            if let Some(marker) = locked.map_err(Error::path("lock", &path))? {
                let (tree, process) = (Arc::clone(tree), std::process::id());
                return Ok(Self { tree, name, marker, process });
            }
        }
        Err(Error::path("lock a cgroup in", tree.path())(Errno::BUSY))
    }

    /// Where the groups are made.
    pub(crate) fn tree(&self) -> &Arc<Tree> {
        &self.tree
    }

    /// What the names of the owner's marker and of its groups say.
    pub(super) fn name(&self) -> Uuid {
        self.name
    }

    /// Makes the group of a job.
    pub(crate) fn create(&self, job: Uuid, detached: bool) -> Result<Group> {
        Group::create(&self.tree, Name { job, owner: self.name, detached }.to_string())
    }
}

impl Drop for Owner {
    /// Removes the marker, unless a group is left: that of a detached job, which somebody can sweep
    /// once it is empty.
    fn drop(&mut self) {
        if self.process != std::process::id() {
            return;
        }
        let is_ours = |name: &OsStr| {
            name.to_str().and_then(Name::parse).is_some_and(|name| name.owner == self.name)
        };
        let left = std::fs::read_dir(self.tree.path())
            .and_then(|mut entries| {
                entries.try_fold(false, |left, entry| Ok(left || is_ours(&entry?.file_name())))
            })
            // Not known: whoever sweeps finds out.
            .unwrap_or(true);
        if !left {
            let _ = remove_marker(&self.tree, self.name);
        }
    }
}

/// The name of an owner's marker.
pub(super) fn marker_name(owner: Uuid) -> String {
    format!("{PREFIX}{owner}")
}

/// The owner of a marker with this name, if it is the name of one.
pub(super) fn owner_of_marker(name: &str) -> Option<Uuid> {
    let owner = Uuid::try_parse(name.strip_prefix(PREFIX)?).ok()?;
    (marker_name(owner) == name).then_some(owner)
}

/// Opens and locks the marker of an owner; `None` when somebody else holds the lock, or removed it
/// meanwhile.
pub(super) fn lock_marker(tree: &Tree, owner: Uuid) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let marker = match openat(tree.dir(), marker_name(owner), flags, Mode::empty()) {
        Err(Errno::NOENT | Errno::NODEV) => return Ok(None),
        opened => opened?,
    };
    match flock(&marker, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => return Ok(None),
        locked => locked?,
    }
    // Whoever held the lock before may have removed it, and a lock on what is gone means nothing.
    let opened = fstat(&marker)?;
    match statat(tree.dir(), marker_name(owner), AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT | Errno::NODEV) => Ok(None),
        found => Ok((found?.st_ino == opened.st_ino).then_some(marker)),
    }
}

/// Removes the marker of an owner.
pub(super) fn remove_marker(tree: &Arc<Tree>, owner: Uuid) -> Result<()> {
    Group::named(tree, marker_name(owner)).remove()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_name_of_a_marker_names_an_owner() {
        let owner = random_uuid().unwrap();
        assert_eq!(owner_of_marker(&marker_name(owner)), Some(owner));
        let uuid = owner.to_string();
        for name in ["jobworker-", "jobworker-test-1-2", uuid.as_str(), ""] {
            assert_eq!(owner_of_marker(name), None, "{name}");
        }
        assert_eq!(owner_of_marker(&format!("jobworker-{}", owner.simple())), None);
    }
}
