//! Owns [`Owner`]: a host that makes groups, in a way by which others can tell whether it lives.
//!
//! Invariant: an owner lives as long as the lock on its marker is held, and the kernel drops that
//! with the last process that has the open file: no pid is ever asked for, so it does not matter
//! which pid, time, mount or user namespace anybody is in. A group has the name of its owner in its
//! own from the moment it exists. A host of a name holds the lock on the marker of that name as
//! well, so that there is one of each name in a tree. Knows nothing of jobs.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, flock, fstat, mkdirat, openat, statat};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use uuid::Uuid;

use crate::cgroup::group::Group;
use crate::cgroup::host_name::{HostName, Lasting};
use crate::cgroup::name::Name;
use crate::cgroup::tree::Tree;
use crate::error::{Error, Result, SystemError};
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
    marker: OwnedFd,
    /// The process that made the marker. One that was forked from it must not remove it.
    process: u32,
    /// The name by which the jobs that outlive the host are found again.
    named: Option<Named>,
}

/// A name that is held.
#[derive(Debug)]
struct Named {
    name: HostName,
    marker: OwnedFd,
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
                return Ok(Self { tree, name, marker, process, named: None });
            }
        }
        Err(Error::path("lock a cgroup in", tree.path())(Errno::BUSY))
    }

    /// Takes a name that no other host in the tree has, and holds it from now on. With `wait` it
    /// blocks while another one has it.
    pub(crate) fn take_name(&mut self, name: HostName, wait: bool) -> Result<()> {
        let path = self.tree.path().join(name.marker());
        // Each host that is waited for may remove the marker in the end.
        let attempts = if wait { usize::MAX } else { ATTEMPTS };
        for _ in 0..attempts {
            match mkdirat(self.tree.dir(), name.marker(), Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(Error::path("create cgroup", &path)(errno)),
            }
            match lock_dir(&self.tree, &name.marker(), wait).map_err(Error::path("lock", &path))? {
                Lock::Held(marker) => {
                    // Linux releases the files of a process that dies from the highest descriptor
                    // to the lowest. The name has to be last: the next host, which has waited for
                    // it, is about to sweep, and must find that this one's marker is nobody's.
                    self.marker = fcntl_dupfd_cloexec(&self.marker, marker.as_raw_fd() + 1)
                        .map_err(Error::path("lock", &path))?;
                    self.named = Some(Named { name, marker });
                    return Ok(());
                }
                Lock::OfAnother => {
                    return Err(SystemError::NameTaken { name: name.to_string(), path }.into());
                }
                // A host of the name has ended between the two calls, and removed it.
                Lock::Gone => {}
            }
        }
        Err(Error::path("lock", path)(Errno::BUSY))
    }

    /// The name that is held, if there is one.
    pub(crate) fn host_name(&self) -> Option<&HostName> {
        self.named.as_ref().map(|named| &named.name)
    }

    /// Makes the group of a job that outlives the host; `None` for a host without a name.
    pub(crate) fn create_lasting(&self, job: Uuid) -> Option<Result<Group>> {
        let name = Lasting { job, host: self.host_name()? }.to_string();
        Some(Group::create(&self.tree, name))
    }

    /// The groups of jobs that have outlived a host of this name.
    pub(crate) fn lasting(&self) -> Result<Vec<(Uuid, Group)>> {
        let Some(host) = self.host_name() else { return Ok(Vec::new()) };
        let failed = |cause| Error::path("list", self.tree.path())(cause);
        let mut found = Vec::new();
        for entry in std::fs::read_dir(self.tree.path()).map_err(failed)? {
            let Ok(name) = entry.map_err(failed)?.file_name().into_string() else { continue };
            if let Some(job) = host.job_of(&name) {
                found.push((job, Group::named(&self.tree, name)));
            }
        }
        Ok(found)
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
    /// once it is empty. So it is with the marker of the name, and the jobs that outlive the host.
    fn drop(&mut self) {
        if self.process != std::process::id() {
            return;
        }
        let is_ours = |name: &OsStr| {
            name.to_str().and_then(Name::parse).is_some_and(|name| name.owner == self.name)
        };
        let has_any = |is_one: &dyn Fn(&OsStr) -> bool| {
            let mut opener = self.tree.opener();
            opener
                .open(|| std::fs::read_dir(self.tree.path()))
                .and_then(|mut entries| {
                    entries.try_fold(false, |left, entry| Ok(left || is_one(&entry?.file_name())))
                })
                // Not known: whoever sweeps finds out.
                .unwrap_or(true)
        };
        if !has_any(&is_ours) {
            let _ = remove_marker(&self.tree, self.name);
        }
        let Some(Named { name: host, marker }) = &self.named else { return };
        if !has_any(&|name| name.to_str().and_then(|name| host.job_of(name)).is_some()) {
            let _ = Group::named(&self.tree, host.marker()).remove();
        }
        // A child that is about to execute its program still has the open file: closing ours would
        // not do.
        let _ = flock(marker, FlockOperation::Unlock);
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
    Ok(match lock_dir(tree, &marker_name(owner), false)? {
        Lock::Held(marker) => Some(marker),
        Lock::OfAnother | Lock::Gone => None,
    })
}

/// What has come of locking a marker.
enum Lock {
    /// It is open and locked.
    Held(OwnedFd),
    /// Somebody else holds the lock.
    OfAnother,
    /// It was removed meanwhile.
    Gone,
}

fn lock_dir(tree: &Tree, name: &str, wait: bool) -> io::Result<Lock> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let marker = match openat(tree.dir(), name, flags, Mode::empty()) {
        Err(Errno::NOENT | Errno::NODEV) => return Ok(Lock::Gone),
        opened => opened?,
    };
    let operation = match wait {
        true => FlockOperation::LockExclusive,
        false => FlockOperation::NonBlockingLockExclusive,
    };
    match flock(&marker, operation) {
        Err(Errno::WOULDBLOCK) => return Ok(Lock::OfAnother),
        locked => locked?,
    }
    // Whoever held the lock before may have removed it, and a lock on what is gone means nothing.
    let opened = fstat(&marker)?;
    match statat(tree.dir(), name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT | Errno::NODEV) => Ok(Lock::Gone),
        found if found?.st_ino == opened.st_ino => Ok(Lock::Held(marker)),
        _ => Ok(Lock::Gone),
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
