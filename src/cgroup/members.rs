//! Owns [`Pass`]: a pass over the processes in a group and below it, which can be left and resumed,
//! and [`Visit`], what is done with each.
//!
//! Invariants: a pass holds no descriptor between two calls. A process is visited only if it was a
//! member once its pidfd was open, so that the pidfd is that of the process which was listed. Knows
//! nothing of what a visit does.

use std::collections::HashSet;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, SeekFrom, fstat, openat, seek};
use rustix::io::{Errno, read};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::cgroup::content::{gone, read_to_string};
use crate::cgroup::reserve::Opener;
use crate::cgroup::tree::Tree;
use crate::cgroup::walk::{Position, Walk};
use crate::error::{Error, Result};
use crate::sys::{cgroup_id, is_no_process};

/// A pass over the processes in a group and below it, which can be left and resumed. It holds no
/// descriptor.
#[derive(Debug, Default)]
pub(crate) struct Pass {
    /// Where the walk was left, unless the pass has yet to begin.
    position: Option<Position>,
    /// The processes of the current group that are still to be visited, the next one last; `None`
    /// before its list is read.
    listed: Option<Vec<Pid>>,
}

/// How many processes are opened at most before the list that they came from is read again.
pub(super) const BATCH: usize = 64;

/// What is done with each process of a group.
pub(super) struct Visit<'a, F> {
    pub(super) tree: &'a Tree,
    pub(super) name: &'a str,
    pub(super) opener: Opener<'a>,
    /// How many processes are open at a time.
    pub(super) batch: usize,
    pub(super) visit: F,
}

impl<F> Visit<'_, F>
where
    F: FnMut(Pid, OwnedFd) -> Result<ControlFlow<()>>,
{
    /// Visits every process in the group and below it that is wanted. Breaks when the budget is
    /// used up, or a visit breaks.
    pub(super) fn go_on(
        mut self,
        pass: &mut Pass,
        budget: &mut usize,
        wanted: impl Fn(Pid) -> bool,
    ) -> Result<ControlFlow<()>> {
        let (tree, name) = (self.tree, self.name);
        let failed = |cause: io::Error| failed(tree, name, "list the processes of", cause);
        let begun = match &mut pass.position {
            None => self.opener.open(|| Walk::begin(tree.dir(), name)),
            Some(position) => self.opener.open(|| Walk::resume(tree.dir(), position)),
        };
        pass.position = None;
        let Some(mut walk) = begun.map_err(failed)? else { return Ok(ControlFlow::Continue(())) };
        loop {
            if *budget == 0 {
                pass.position = Some(walk.leave());
                return Ok(ControlFlow::Break(()));
            }
            *budget -= 1;
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let list = self.opener.open(|| {
                let list = openat(walk.dir(), "cgroup.procs", flags, Mode::empty())?;
                // A privileged job can make its own group threaded: then only its threads are
                // listed, the leaders among them.
                match read(&list, &mut [0; 1]) {
                    Err(Errno::OPNOTSUPP) => {
                        openat(walk.dir(), "cgroup.threads", flags, Mode::empty())
                    }
                    _ => Ok(list),
                }
            });
            let mut listed = pass.listed.take();
            match list {
                Ok(list) => {
                    let id = fstat(walk.dir()).map_err(|errno| failed(errno.into()))?.st_ino;
                    let listed = match &mut listed {
                        Some(listed) => listed,
                        None => {
                            let mut pids = read_pids(&list).map_err(failed)?;
                            // Listing 6,000 takes about 2 ms.
                            *budget = budget.saturating_sub(pids.len() / 25);
                            pids.retain(|pid| wanted(*pid));
                            pids.reverse();
                            listed.insert(pids)
                        }
                    };
                    if self.visit_listed(&list, id, listed, budget)?.is_break() {
                        pass.listed = Some(std::mem::take(listed));
                        pass.position = Some(walk.leave());
                        return Ok(ControlFlow::Break(()));
                    }
                }
                Err(error) if gone(&error) => {}
                Err(error) => return Err(failed(error)),
            }
            if !self.opener.open(|| walk.forward()).map_err(failed)? {
                return Ok(ControlFlow::Continue(()));
            }
        }
    }

    /// Visits the processes of one list, the last one first. Breaks when the budget is used up
    /// before all were visited, or `visit` breaks.
    ///
    /// Between reading a number and opening it, the number may have become another process's. So
    /// the kernel is asked which group the process is in; `id` is that of this one. Where it does
    /// not tell, or tells of a threaded group below, the list is read again: a number that is still
    /// listed either belongs to the process that was opened, or that process is gone and a signal
    /// to its pidfd has no effect. See pidfd_open(2).
    fn visit_listed(
        &mut self,
        list: &OwnedFd,
        id: u64,
        listed: &mut Vec<Pid>,
        budget: &mut usize,
    ) -> Result<ControlFlow<()>> {
        let (tree, name) = (self.tree, self.name);
        while !listed.is_empty() {
            if *budget == 0 {
                return Ok(ControlFlow::Break(()));
            }
            let (mut opened, mut failure) =
                (Vec::with_capacity(self.batch.min(listed.len())), None);
            while let Some(pid) = listed.last().copied()
                && opened.len() < self.batch
                && *budget > 0
            {
                let pidfd = self.opener.open(|| pidfd_open(pid, PidfdFlags::empty()));
                match pidfd {
                    // Those that could be opened make room for the others.
                    Err(error) if is_limit(&error) && !opened.is_empty() => break,
                    _ => _ = listed.pop(),
                }
                *budget -= 1;
                match pidfd {
                    Ok(pidfd) if cgroup_id(&pidfd) == Some(id) => {
                        if (self.visit)(pid, pidfd)?.is_break() {
                            return Ok(ControlFlow::Break(()));
                        }
                    }
                    Ok(pidfd) => opened.push((pid, pidfd)),
                    Err(error) => match Errno::from_io_error(&error) {
                        Some(errno) if is_no_process(errno) => {}
                        // Those that are open already are visited all the same.
                        _ => {
                            failure = Some(failed(tree, name, "open the processes of", error));
                            break;
                        }
                    },
                }
            }
            if opened.is_empty() {
                failure.map_or(Ok(()), Err)?;
                continue;
            }
            let still = read_pids(list)
                .map_err(|cause| failed(tree, name, "list the processes of", cause))?;
            let still: HashSet<Pid> = still.into_iter().collect();
            for (pid, pidfd) in opened {
                if still.contains(&pid) && (self.visit)(pid, pidfd)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            failure.map_or(Ok(()), Err)?;
        }
        Ok(ControlFlow::Continue(()))
    }
}

#[cold]
fn failed(tree: &Tree, name: &str, operation: &'static str, cause: io::Error) -> Error {
    Error::path(operation, tree.path().join(name))(cause)
}

/// Whether the error says that there are no descriptors left.
fn is_limit(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// The processes that an open cgroup.procs lists.
fn read_pids(list: &OwnedFd) -> io::Result<Vec<Pid>> {
    seek(list, SeekFrom::Start(0))?;
    let content = match read_to_string(list) {
        Err(error) if gone(&error) => return Ok(Vec::new()),
        // A threaded group below the job's lists its processes at the domain above it.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::OPNOTSUPP) => {
            return Ok(Vec::new());
        }
        content => content?,
    };
    // A process of another pid namespace is listed as 0.
    Ok(content.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)).collect())
}
