//! Owns [`Orphans`]: the zombies that ended jobs have left to this process, which became their
//! parent because it is process 1 or a subreaper, or is their parent because the host that has
//! cloned them has executed this program.
//!
//! Invariants: a child is reaped only if it was in the group of a job that has ended, as the kernel
//! tells of a number that a pidfd holds. Each call does a bounded part of the work. Knows nothing
//! of the jobs themselves.

use std::collections::{HashMap, HashSet};
use std::mem;
use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, getpid, pidfd_open};

use crate::cgroup::Origin;
use crate::driver::{Driver, Readiness, Registration, Source};
use crate::error::{Error, Result};
use crate::job::containment::Contained;
use crate::job::delivery::number;
use crate::sys::{ChildList, Process, Reap, Stat, has_exited, is_no_process, threads};

/// How much is done in one call: reaping a child, or finding that it is no job's, takes one off,
/// some 10 us.
const SLICE: usize = 100;

/// What reading a piece of a list takes off: up to 0.5 ms behind some thousands of children, which
/// the kernel counts each time.
const PIECE: usize = 40;

/// The zombies that ended jobs have left.
#[derive(Debug)]
pub(crate) struct Orphans {
    /// The main processes that were not reaped yet: their jobs do that.
    mains: HashSet<Pid>,
    /// The groups whose processes are being looked for.
    groups: Groups,
    /// Those that have ended since the pass has begun.
    ended: Groups,
    pass: Option<Pass>,
    /// The last pass may have missed anything.
    again: bool,
    /// A process that has left its group and is about to become a zombie. There is another pass
    /// once it is one: what it leaves to this process then is not listed before.
    awaited: Option<(Registration, Process)>,
    /// Descriptors or memory are lacking: to be continued when anything happens.
    stalled: bool,
}

/// Groups of jobs that have ended.
#[derive(Debug, Default)]
struct Groups {
    cgroups: HashSet<String>,
    /// Process groups, by number, with the pidfds of their leaders.
    process_groups: HashMap<u32, Process>,
}

/// A pass over the children of this process.
#[derive(Debug, Default)]
struct Pass {
    /// The threads whose children are still to be listed, the next one last. Orphans are given to
    /// the first thread that lives, and after its end to the next one: if they move while the lists
    /// are read in this order, they are not missed.
    threads: Vec<Pid>,
    list: Option<ChildList>,
    /// The children of the current piece of the list that are still to be looked at.
    listed: Vec<Pid>,
    /// How many pieces of the current list were read.
    pieces: usize,
    /// Whether any list had more than one.
    several: bool,
    /// A child of the current list was reaped, so that a piece that follows would skip another.
    reaped: bool,
    /// The children that are no orphans of these groups, or no zombies yet.
    others: Vec<Pid>,
    /// How many of them are in other lists than the current one.
    others_before: usize,
    /// A child has vanished meanwhile, so that another may have been skipped.
    shifted: bool,
}

impl Groups {
    fn is_empty(&self) -> bool {
        self.cgroups.is_empty() && self.process_groups.is_empty()
    }

    fn append(&mut self, other: Self) {
        self.cgroups.extend(other.cgroups);
        self.process_groups.extend(other.process_groups);
    }

    /// Whether a child of this process that was not reaped is, or was, in one of the groups.
    fn have(&self, pid: Pid) -> rustix::io::Result<bool> {
        let failed = |error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
        if !self.cgroups.is_empty() {
            let origin = Origin::of(pid).map_err(failed)?;
            return Ok(origin.is_within(|name| self.cgroups.contains(name)));
        }
        let stat = Stat::of(number(pid)).map_err(failed)?;
        let leader = stat.and_then(|stat| self.process_groups.get(&stat.process_group));
        // If the group still has a process, its number was its own when it was read above.
        Ok(leader.is_some_and(|leader| leader.signal_group(None).unwrap_or(true)))
    }
}

impl Orphans {
    /// None so far.
    ///
    /// # Errors
    /// When the kernel does not list the children of a process.
    pub(crate) fn new() -> Result<Self> {
        let thread = getpid();
        ChildList::open(thread).map_err(Error::path(
            "list the children of the host in",
            format!("/proc/self/task/{}/children", thread.as_raw_nonzero()),
        ))?;
        Ok(Self {
            mains: HashSet::new(),
            groups: Groups::default(),
            ended: Groups::default(),
            pass: None,
            again: false,
            awaited: None,
            stalled: false,
        })
    }

    /// The main process of a job was started.
    pub(crate) fn started(&mut self, main: &Process) {
        self.mains.extend(pid(main));
    }

    /// The main process of a job was reaped.
    pub(crate) fn reaped(&mut self, main: &Process) {
        let known = pid(main).is_some_and(|pid| self.mains.remove(&pid));
        if let Some(pass) = &mut self.pass {
            pass.shifted |= known && pass.list.is_some();
        }
    }

    /// A group is empty and is not used any more; what it has left is to be reaped.
    ///
    /// # Errors
    /// When the pidfd of a leader cannot be kept.
    pub(crate) fn group_ended(&mut self, group: &Contained, main: &Process) -> Result<()> {
        match group {
            Contained::Cgroup(group) => self.cgroup_ended(group.name()),
            Contained::ProcessGroup { number, by_pidfd: true } => {
                let pidfd = main.pidfd().try_clone();
                let pidfd = pidfd.map_err(Error::event_loop("keep the pidfd of a main process"))?;
                self.ended.process_groups.insert(*number, Process::new(*number, pidfd));
            }
            // Nothing tells its number from that of a later group.
            Contained::ProcessGroup { by_pidfd: false, .. } => {}
        }
        Ok(())
    }

    /// The same of a cgroup, by its name.
    pub(crate) fn cgroup_ended(&mut self, name: &str) {
        self.ended.cgroups.insert(name.to_owned());
    }

    /// Whether there is work that can be done now.
    pub(crate) fn has_work(&self) -> bool {
        !self.stalled && (self.pass.is_some() || self.again || !self.ended.is_empty())
    }

    /// Whether there is, or will be, work that needs nothing to happen but the exit of a process
    /// that is exiting.
    pub(crate) fn is_busy(&self) -> bool {
        self.has_work() || self.awaited.is_some()
    }

    /// Something has happened, so there may be descriptors or memory now.
    pub(crate) fn retry(&mut self) {
        self.stalled = false;
    }

    /// The process that was awaited has exited.
    pub(crate) fn exited(&mut self, registration: Registration, driver: &mut Driver) {
        if let Some((_, process)) = self.awaited.take_if(|(other, _)| *other == registration) {
            driver.deregister(process.pidfd().as_fd(), registration);
            // It is reaped by the next pass.
            self.again = true;
        }
    }

    /// Does the next part of the work.
    pub(crate) fn go_on(&mut self, driver: &mut Driver) {
        let mut budget = SLICE;
        while self.has_work() && budget > 0 {
            if let Err(errno) = self.step(&mut budget, driver) {
                debug_assert!(matches!(errno, Errno::MFILE | Errno::NFILE | Errno::NOMEM));
                self.stalled = true;
            }
        }
    }

    /// Fails only for lack of descriptors or memory, and can then be called again.
    fn step(&mut self, budget: &mut usize, driver: &mut Driver) -> rustix::io::Result<()> {
        let Some(pass) = &mut self.pass else {
            return self.begin();
        };
        if let Some(child) = pass.listed.last().copied() {
            *budget -= 1;
            self.look_at(child, driver)?;
            if let Some(pass) = &mut self.pass {
                pass.listed.pop();
            }
        } else if pass.list.is_some() {
            *budget = budget.saturating_sub(PIECE);
            pass.read_on(&self.mains)?;
        } else if let Some(thread) = pass.threads.last().copied() {
            *budget -= 1;
            pass.list = shortage(ChildList::open(thread))?;
            pass.threads.pop();
            (pass.pieces, pass.reaped, pass.others_before) = (0, false, pass.others.len());
        } else {
            self.end(budget);
        }
        Ok(())
    }

    /// Begins a pass for all groups.
    fn begin(&mut self) -> rustix::io::Result<()> {
        // /proc was there when the reactor was made; without it, nothing can be found.
        let mut threads = shortage(threads())?.unwrap_or_default();
        threads.reverse();
        self.pass = Some(Pass { threads, ..Pass::default() });
        self.groups.append(mem::take(&mut self.ended));
        self.again = false;
        Ok(())
    }

    /// Ends a pass, and begins another one if it may have missed anything.
    fn end(&mut self, budget: &mut usize) {
        let Some(pass) = self.pass.take() else { return };
        let mut shifted = pass.shifted;
        if pass.several {
            *budget = budget.saturating_sub(pass.others.len() / 10);
            shifted |= pass.others.iter().any(|child| has_vanished(*child));
        }
        self.again |= shifted;
        if !self.again && self.awaited.is_none() {
            self.groups = Groups::default();
        }
    }

    /// Reaps a child if it is a zombie that a job has left.
    fn look_at(&mut self, child: Pid, driver: &mut Driver) -> rustix::io::Result<()> {
        let Some(pass) = &mut self.pass else { return Ok(()) };
        // The pidfd first: unless the child was reaped meanwhile, which the kernel then says, what
        // is read by its number is about the same process.
        let Some(pidfd) = shortage(pidfd_open(child, PidfdFlags::empty()))? else {
            pass.shifted = true;
            return Ok(());
        };
        if shortage(self.groups.have(child))? != Some(true) {
            pass.others.push(child);
            return Ok(());
        }
        let process = Process::new(number(child), pidfd);
        match process.wait(Reap::Now) {
            Ok(Some(_)) => pass.reaped = true,
            Ok(None) if has_exited(process.pidfd()) || self.awaited.is_some() => {
                // It is traced, or is found by the pass that follows.
                pass.others.push(child);
            }
            Ok(None) => {
                let fd = process.pidfd().as_fd();
                let registered = driver.register(fd, Readiness::Readable, Source::Orphan);
                let registered = registered.map_err(|_| Errno::NOMEM)?;
                self.awaited = Some((registered, process));
                pass.others.push(child);
            }
            // Somebody else has reaped it.
            Err(_) => pass.shifted = true,
        }
        Ok(())
    }
}

impl Pass {
    /// Reads the next piece of the list: the first one again if a child that it names was reaped.
    fn read_on(&mut self, mains: &HashSet<Pid>) -> rustix::io::Result<()> {
        let Some(list) = &mut self.list else { return Ok(()) };
        if mem::take(&mut self.reaped) && self.pieces > 0 {
            self.pieces = 0;
            self.others.truncate(self.others_before);
            if list.rewind().is_err() {
                self.list = None;
                return Ok(());
            }
        }
        if shortage(list.read(&mut self.listed))? != Some(true) {
            self.list = None;
        }
        self.pieces += 1;
        // The last one is empty.
        self.several |= self.pieces > 2;
        self.listed.retain(|child| !mains.contains(child));
        Ok(())
    }
}

fn pid(process: &Process) -> Option<Pid> {
    i32::try_from(process.pid()).ok().and_then(Pid::from_raw)
}

/// Whether a number is not that of a child of this process any more.
fn has_vanished(child: Pid) -> bool {
    match pidfd_open(child, PidfdFlags::empty()) {
        Ok(pidfd) => Process::new(number(child), pidfd).wait(Reap::Peek).is_err(),
        Err(errno) => is_no_process(errno),
    }
}

/// What a call has given, or `None` when that cannot be had; fails only for lack of descriptors or
/// memory.
fn shortage<T>(result: rustix::io::Result<T>) -> rustix::io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(errno @ (Errno::MFILE | Errno::NFILE | Errno::NOMEM)) => Err(errno),
        Err(_) => Ok(None),
    }
}
