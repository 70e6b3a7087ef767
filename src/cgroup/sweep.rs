//! Owns [`Sweep`]: the removal of the groups that dead hosts have left behind, step by step.
//!
//! Invariant: a group is swept only while the lock on its owner's marker is held here, so its owner
//! is dead and nobody else sweeps it. A group whose name contains no owner's, or of an owner whose
//! marker is gone or cannot be opened, is never touched. A step makes a bounded number of calls and
//! never waits. Knows nothing of logs or the loop.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::{Errno, pread};
use uuid::Uuid;

use crate::cgroup::group::Group;
use crate::cgroup::name::Name;
use crate::cgroup::owner::{Owner, lock_marker, owner_of_marker, remove_marker};
use crate::cgroup::tree::Tree;
use crate::error::{Error, Result};

/// How long the processes of a group may take to die.
const DEATH_TIMEOUT: Duration = Duration::from_secs(5);

/// How many markers are held locked at a time, each by a descriptor.
const MOST_OWNERS: usize = 32;

/// How many groups are awaited at a time, each by a descriptor. Their processes die side by side.
const MOST_KILLED: usize = 64;

/// How a sweep goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// By another step.
    More,
    /// By a step once [`Sweep::awaited`] is ready, but no later than this.
    Waiting(Instant),
    /// It is done.
    Done,
}

/// A sweep that is going on. Dropping it gives all locks back; the next sweep does the rest.
#[derive(Debug)]
pub(crate) struct Sweep {
    tree: Arc<Tree>,
    /// The one who sweeps.
    here: Uuid,
    /// What is still to be searched for markers.
    unsearched: Option<fs::ReadDir>,
    /// Owners whose markers were found, but not tried yet.
    untried: Vec<Uuid>,
    /// Those who are swept now.
    dead: HashMap<Uuid, Dead>,
    /// What is still to be searched for their groups.
    entries: Option<fs::ReadDir>,
    killed: VecDeque<Killed>,
}

/// What is known of a dead owner.
#[derive(Debug)]
struct Dead {
    /// Held while its groups are swept.
    #[expect(dead_code, reason = "closing it gives the lock back")]
    marker: OwnedFd,
    /// Whether a group is left.
    incomplete: bool,
}

/// A group whose processes were killed.
#[derive(Debug)]
struct Killed {
    owner: Uuid,
    group: Group,
    /// Its file cgroup.events, which tells when they are gone.
    events: OwnedFd,
    until: Instant,
}

impl Sweep {
    /// Begins to sweep the groups in the tree of `here`.
    pub(crate) fn begin(here: &Owner) -> Result<Self> {
        let tree = Arc::clone(here.tree());
        let unsearched = Some(list(&tree)?);
        Ok(Self {
            tree,
            here: here.name(),
            unsearched,
            untried: Vec::new(),
            dead: HashMap::new(),
            entries: None,
            killed: VecDeque::new(),
        })
    }

    /// The file that is ready for a priority event once the sweep can go on.
    pub(crate) fn awaited(&self) -> Option<BorrowedFd<'_>> {
        self.killed.front().map(|killed| killed.events.as_fd())
    }

    /// Whether a step would wait for the processes of a group.
    pub(crate) fn progress(&self, now: Instant) -> Progress {
        match self.killed.front() {
            Some(killed) if now < killed.until && matches!(killed.is_empty(), Ok(false)) => {
                Progress::Waiting(killed.until)
            }
            _ => Progress::More,
        }
    }

    /// Does the next piece, and tells of each group that was removed or could not be.
    pub(crate) fn step(&mut self, now: Instant, tell: &mut dyn FnMut(Result<PathBuf>)) -> Progress {
        if let Some(entries) = &mut self.unsearched {
            match entries.next() {
                Some(Ok(entry)) => {
                    let owner = entry.file_name().to_str().and_then(owner_of_marker);
                    self.untried.extend(owner.filter(|owner| *owner != self.here));
                }
                Some(Err(cause)) => {
                    tell(Err(Error::path("list", self.tree.path())(cause)));
                    self.unsearched = None;
                }
                None => self.unsearched = None,
            }
            return Progress::More;
        }
        if self.killed.len() < MOST_KILLED
            && let Some(entries) = &mut self.entries
        {
            match entries.next() {
                Some(Ok(entry)) => {
                    if let Ok(name) = entry.file_name().into_string() {
                        self.visit(name, now, tell);
                    }
                }
                Some(Err(cause)) => {
                    tell(Err(Error::path("list", self.tree.path())(cause)));
                    // There may be groups that were not seen.
                    self.dead.values_mut().for_each(|dead| dead.incomplete = true);
                    self.entries = None;
                }
                None => self.entries = None,
            }
            return Progress::More;
        }
        if let Some(killed) = self.killed.pop_front() {
            match killed.is_empty() {
                Ok(false) if now < killed.until => {
                    let until = killed.until;
                    self.killed.push_front(killed);
                    return Progress::Waiting(until);
                }
                Ok(false) => {
                    let cause = io::Error::from(io::ErrorKind::TimedOut);
                    let error = Error::path("empty cgroup", killed.group.path())(cause);
                    self.report(killed.owner, Err(error), killed.group.path(), tell);
                }
                Ok(true) => {
                    let removed = killed.group.remove();
                    self.report(killed.owner, removed, killed.group.path(), tell);
                }
                Err(error) => self.report(killed.owner, Err(error), killed.group.path(), tell),
            }
            return Progress::More;
        }
        for (owner, dead) in self.dead.drain() {
            if !dead.incomplete
                && let Err(error) = remove_marker(&self.tree, owner)
            {
                tell(Err(error));
            }
        }
        if self.untried.is_empty() {
            return Progress::Done;
        }
        self.lock_owners(tell);
        Progress::More
    }

    /// Locks the markers of some owners, and begins to search for the groups of those who are dead.
    fn lock_owners(&mut self, tell: &mut dyn FnMut(Result<PathBuf>)) {
        let first = self.untried.len().saturating_sub(MOST_OWNERS);
        for owner in self.untried.drain(first..) {
            // A marker that cannot be opened says nothing about its owner.
            let Ok(Some(marker)) = lock_marker(&self.tree, owner) else { continue };
            self.dead.insert(owner, Dead { marker, incomplete: false });
        }
        if self.dead.is_empty() {
            return;
        }
        // Listed after the locks were taken: no dead owner makes a group any more.
        match list(&self.tree) {
            Ok(entries) => self.entries = Some(entries),
            Err(error) => {
                self.dead.clear();
                tell(Err(error));
            }
        }
    }

    /// Removes a group if it is a dead owner's, or kills its processes first.
    fn visit(&mut self, name: String, now: Instant, tell: &mut dyn FnMut(Result<PathBuf>)) {
        let Some(Name { owner, detached, .. }) = Name::parse(&name) else { return };
        if !self.dead.contains_key(&owner) {
            return;
        }
        let path = self.tree.path().join(&name);
        let group = Group::named(&self.tree, name);
        match clear(&group, detached) {
            Ok(Cleared::Empty) => self.report(owner, group.remove(), path, tell),
            Ok(Cleared::Killed(events)) => {
                let until = now + DEATH_TIMEOUT;
                self.killed.push_back(Killed { owner, group, events, until });
            }
            Ok(Cleared::Detached) => self.leave(owner),
            Err(error) => self.report(owner, Err(error), path, tell),
        }
    }

    /// Tells what became of a group.
    fn report(
        &mut self,
        owner: Uuid,
        removed: Result<()>,
        path: PathBuf,
        tell: &mut dyn FnMut(Result<PathBuf>),
    ) {
        if removed.is_err() {
            self.leave(owner);
        }
        tell(removed.map(|()| path));
    }

    /// Leaves the marker of an owner where it is, because one of its groups is.
    fn leave(&mut self, owner: Uuid) {
        if let Some(dead) = self.dead.get_mut(&owner) {
            dead.incomplete = true;
        }
    }
}

impl Killed {
    /// Whether the processes are gone.
    ///
    /// The file is ready for a priority event once it has changed since this same open file was
    /// read last.
    fn is_empty(&self) -> Result<bool> {
        let mut buffer = [0; 128];
        match pread(&self.events, &mut buffer, 0) {
            Ok(length) => {
                let mut lines = buffer[..length].split(|byte| *byte == b'\n');
                Ok(!lines.any(|line| line == b"populated 1"))
            }
            // The group was removed.
            Err(Errno::NODEV | Errno::NOENT) => Ok(true),
            Err(errno) => Err(Error::path("read", self.group.path().join("cgroup.events"))(errno)),
        }
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

/// What is in a tree.
fn list(tree: &Tree) -> Result<fs::ReadDir> {
    fs::read_dir(tree.path()).map_err(Error::path("list", tree.path()))
}
