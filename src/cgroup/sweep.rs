//! Owns the sweep: the removal of the groups that dead hosts have left behind.
//!
//! Invariant: a group is swept only while the lock on its owner's marker is held here, so its owner
//! is dead and nobody else sweeps it. A group without a mark, or whose owner's marker is gone or
//! cannot be opened, is never touched. Knows nothing of logs.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::{Errno, pread};
use uuid::Uuid;

use crate::cgroup::group::Group;
use crate::cgroup::mark::{Mark, making};
use crate::cgroup::owner::{Owner, lock_marker, marker_name, owner_of_marker, remove_marker};
use crate::cgroup::tree::Tree;
use crate::error::{Error, Result};

/// How long one sweep may wait for the processes that it has killed.
const DEATH_TIMEOUT: Duration = Duration::from_secs(5);

/// How many markers are held locked at a time, each by a descriptor.
const BATCH: usize = 32;

/// What is known of a dead owner.
struct Dead {
    /// Held while its groups are swept.
    #[expect(dead_code, reason = "closing it gives the lock back")]
    marker: OwnedFd,
    /// The group that it made last, which may bear no mark.
    making: Option<String>,
    /// Whether a group is left.
    incomplete: bool,
}

/// Removes the groups of dead owners, and tells each that was removed or could not be; see
/// [`Reactor::sweep`](crate::Reactor::sweep).
pub(crate) fn sweep(here: &Owner, tell: &mut dyn FnMut(Result<PathBuf>)) {
    let tree = here.tree();
    let owners: Vec<Uuid> = match names(tree) {
        Ok(names) => names.iter().filter_map(|name| owner_of_marker(name)).collect(),
        Err(error) => return tell(Err(error)),
    };
    let until = Instant::now() + DEATH_TIMEOUT;
    let others: Vec<Uuid> = owners.into_iter().filter(|owner| *owner != here.name()).collect();
    for batch in others.chunks(BATCH) {
        sweep_owners(tree, batch, until, tell);
    }
}

/// Sweeps the groups of those of these owners that are dead.
fn sweep_owners(
    tree: &Arc<Tree>,
    owners: &[Uuid],
    until: Instant,
    tell: &mut dyn FnMut(Result<PathBuf>),
) {
    let mut dead: HashMap<Uuid, Dead> = HashMap::new();
    for owner in owners {
        // A marker that cannot be opened says nothing about its owner.
        let Ok(Some(marker)) = lock_marker(tree, *owner) else { continue };
        let making = making(&tree.path().join(marker_name(*owner))).ok();
        dead.insert(*owner, Dead { marker, making, incomplete: false });
    }
    if dead.is_empty() {
        return;
    }
    // Listed after the locks were taken: no dead owner makes a group any more.
    let names = match names(tree) {
        Ok(names) => names,
        Err(error) => return tell(Err(error)),
    };
    let mut killed = Vec::new();
    for name in names {
        let path = tree.path().join(&name);
        let Some((owner, detached)) = owner_of_group(&name, &path, &dead) else { continue };
        let group = Group::named(tree, name);
        match clear(&group, detached) {
            Ok(Cleared::Empty) => report(owner, group.remove(), path, &mut dead, tell),
            Ok(Cleared::Killed(events)) => killed.push((owner, group, events)),
            Ok(Cleared::Detached) => leave(owner, &mut dead),
            Err(error) => report(owner, Err(error), path, &mut dead, tell),
        }
    }
    // They die side by side.
    for (owner, group, events) in killed {
        let removed = await_empty(&group, &events, until).and_then(|()| group.remove());
        report(owner, removed, group.path(), &mut dead, tell);
    }
    for (owner, _) in dead.iter().filter(|(_, dead)| !dead.incomplete) {
        if let Err(error) = remove_marker(tree, *owner) {
            tell(Err(error));
        }
    }
}

/// The dead owner of a group, if it has one, and whether its job is detached.
fn owner_of_group(
    name: &str,
    path: &std::path::Path,
    dead: &HashMap<Uuid, Dead>,
) -> Option<(Uuid, bool)> {
    if let Some(mark) = Mark::of(path) {
        return dead.contains_key(&mark.owner).then_some((mark.owner, mark.detached));
    }
    // It was killed before it could mark the group, in which there is no process then.
    let owner = dead.iter().find(|(_, dead)| dead.making.as_deref() == Some(name));
    owner.map(|(owner, _)| (*owner, true))
}

/// Tells what became of a group.
fn report(
    owner: Uuid,
    removed: Result<()>,
    path: PathBuf,
    dead: &mut HashMap<Uuid, Dead>,
    tell: &mut dyn FnMut(Result<PathBuf>),
) {
    if removed.is_err() {
        leave(owner, dead);
    }
    tell(removed.map(|()| path));
}

/// Leaves the marker of an owner where it is, because one of its groups is.
fn leave(owner: Uuid, dead: &mut HashMap<Uuid, Dead>) {
    if let Some(dead) = dead.get_mut(&owner) {
        dead.incomplete = true;
    }
}

/// What is to be done about a group.
enum Cleared {
    /// It has no processes.
    Empty,
    /// They were killed, and this file tells when they are gone.
    Killed(OwnedFd),
    /// They are to stay.
    Detached,
}

/// Kills the processes of a group, if they are not to outlive their host.
fn clear(group: &Group, detached: bool) -> Result<Cleared> {
    if !group.populated()? {
        return Ok(Cleared::Empty);
    }
    if detached {
        return Ok(Cleared::Detached);
    }
    let path = group.path().join("cgroup.events");
    let events = openat(CWD, &path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(Error::path("watch", path))?;
    group.kill()?;
    Ok(Cleared::Killed(events))
}

/// Waits until a killed group is empty.
///
/// cgroup.events is ready for a priority event once it has changed since this same open file was
/// read last; before the first read it always is.
fn await_empty(group: &Group, events: &OwnedFd, until: Instant) -> Result<()> {
    let failed = |errno: Errno| match errno {
        // The group was removed.
        Errno::NODEV | Errno::NOENT => Ok(()),
        errno => Err(Error::path("watch", group.path().join("cgroup.events"))(errno)),
    };
    let mut buffer = [0; 128];
    loop {
        let length = match pread(events, &mut buffer, 0) {
            Ok(length) => length,
            Err(errno) => return failed(errno),
        };
        let populated = b"populated 1";
        if !buffer[..length].split(|byte| *byte == b'\n').any(|line| line == populated) {
            return Ok(());
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let cause = io::Error::from(io::ErrorKind::TimedOut);
            return Err(Error::path("empty cgroup", group.path())(cause));
        }
        let timeout: Option<Timespec> = left.try_into().ok();
        match poll(&mut [PollFd::new(events, PollFlags::PRI)], timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return failed(errno),
        }
    }
}

/// The names of the groups in a tree.
fn names(tree: &Tree) -> Result<Vec<String>> {
    let failed = |error| Error::path("list", tree.path())(error);
    let mut names = Vec::new();
    for entry in fs::read_dir(tree.path()).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir())
            && let Ok(name) = entry.file_name().into_string()
        {
            names.push(name);
        }
    }
    Ok(names)
}
