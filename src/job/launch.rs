//! Owns [`Launch`]: the start of a job as one transaction, of which either everything stays or
//! nothing.
//!
//! Invariant: what was made is taken back when a `Launch` is dropped before it has succeeded. Knows
//! nothing of the event loop.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, Mode, OFlags, openat};
use uuid::Uuid;

use crate::cgroup::{Group, Owner, Pool, Settings, Tree};
use crate::command::{Command, Output, ProcessGroup, Signal, Stdin};
use crate::error::{Error, Result, Stage};
use crate::job::containment::Contained;
use crate::job::prepared::Prepared;
use crate::log::LogDirectory;
use crate::sys::{Nursery, Placement, Process, Reap, random_uuid};

/// What a reactor has ready for every job.
#[derive(Debug)]
pub(crate) struct Ground<'a> {
    /// Where to make cgroups; `None` when jobs are contained by process group.
    pub(crate) hierarchy: Option<&'a Arc<Tree>>,
    pub(crate) owner: &'a Owner,
    pub(crate) pool: &'a mut Pool,
    pub(crate) nursery: &'a mut Nursery,
    /// `/dev/null`, for reading and writing.
    pub(crate) null: &'a File,
}

/// What a successful start has made.
#[derive(Debug)]
pub(crate) struct Launched {
    pub(crate) uuid: Uuid,
    pub(crate) process: Process,
    pub(crate) contained: Contained,
    /// The logs in the log directory: of both streams or of standard output, and of standard
    /// error.
    pub(crate) names: [Option<String>; 2],
}

/// A start under way.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    made: Made<'a>,
    process: Process,
}

/// What was made so far; dropping it takes it back.
#[derive(Debug)]
struct Made<'a> {
    uuid: Uuid,
    directory: &'a LogDirectory,
    names: [Option<String>; 2],
    cgroup: Option<Group>,
}

/// How long a failed start may take to see its own processes die.
const ABANDON_TIMEOUT: Duration = Duration::from_secs(1);

impl<'a> Launch<'a> {
    /// Checks the command, makes cgroup and logs, and starts the process.
    pub(crate) fn start(
        command: &Command,
        ground: &mut Ground<'_>,
        directory: &'a LogDirectory,
    ) -> Result<Self> {
        let prepared = Prepared::new(command)?;
        let settings = check_containment(command, ground.hierarchy)?;
        let stdin = open_stdin(&command.stdin)?;

        let mut made = Made { uuid: random_uuid()?, directory, names: [None, None], cgroup: None };
        let mut dir = None;
        if let Some(hierarchy) = ground.hierarchy {
            let taken = ground.pool.take(&command.limits);
            let prepared = taken.is_some();
            let cgroup = match taken {
                Some((uuid, cgroup)) => {
                    made.uuid = uuid;
                    made.cgroup.insert(cgroup)
                }
                None => made.cgroup.insert(Group::create(hierarchy, made.uuid.to_string())?),
            };
            let opened = dir.insert(cgroup.open_dir()?);
            ground.owner.mark(opened.as_fd(), command.detached);
            if !prepared && let Some(settings) = &settings {
                cgroup.apply(settings)?;
            }
            if command.accounting == Some(true) {
                hierarchy.enable_accounting();
            }
            // Checked on the new group itself, which inherits the state of every group above it.
            if cgroup.frozen()? {
                return Err(Error::Frozen { path: cgroup.path() });
            }
        }
        let owner = (command.uid, command.gid);
        let (output, error) = match command.output {
            Output::Combined => (Some(made.log(0, "log", owner)?), None),
            Output::Split => {
                (Some(made.log(0, "log", owner)?), Some(made.log(1, "err.log", owner)?))
            }
            Output::Null => (None, None),
        };
        let null = ground.null.as_fd();
        let input = match &stdin {
            Input::Null => null,
            Input::Opened(fd) => fd.as_fd(),
            Input::Shared(fd) => *fd,
        };
        let output = output.as_ref().map_or(null, OwnedFd::as_fd);
        let error = error.as_ref().map_or(output, OwnedFd::as_fd);
        let dir = dir.as_ref().map(OwnedFd::as_fd);
        let plan = prepared.plan(command, [input, output, error], dir);
        let process = Process::spawn(ground.nursery, &plan).map_err(|failure| Error::Spawn {
            program: command.program.clone(),
            stage: failure.stage,
            path: command.current_dir.clone().filter(|_| failure.stage == Stage::CurrentDirectory),
            source: io::Error::from_raw_os_error(failure.errno),
        })?;
        Ok(Self { made, process })
    }

    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    /// Keeps everything.
    pub(crate) fn succeeded(mut self) -> Launched {
        let contained = match self.made.cgroup.take() {
            Some(cgroup) => Contained::Cgroup(cgroup),
            None => Contained::ProcessGroup(self.process.pid()),
        };
        let names = std::mem::take(&mut self.made.names);
        Launched { uuid: self.made.uuid, process: self.process, contained, names }
    }

    /// Ends what was started, waits for it, and takes everything back.
    pub(crate) fn abandon(self) {
        let _ = self.process.signal(Signal::KILL);
        let Some(cgroup) = &self.made.cgroup else {
            let _ = Contained::ProcessGroup(self.process.pid()).kill();
            let _ = self.process.wait(Reap::Block);
            return;
        };
        let _ = cgroup.kill();
        let _ = self.process.wait(Reap::Block);
        let until = Instant::now() + ABANDON_TIMEOUT;
        while cgroup.populated().unwrap_or(false) && Instant::now() < until {
            let _ = cgroup.for_each_member(|_, pidfd| {
                let left = until.saturating_duration_since(Instant::now());
                let _ =
                    poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], left.try_into().ok().as_ref());
                Ok(ControlFlow::Continue(()))
            });
        }
    }
}

impl Made<'_> {
    /// Makes a log, open for the job to write to.
    fn log(
        &mut self,
        index: usize,
        suffix: &str,
        owner: (Option<u32>, Option<u32>),
    ) -> Result<OwnedFd> {
        let name = format!("{}.{suffix}", self.uuid);
        let log = self.directory.create(&name, owner)?;
        if let Some(place) = self.names.get_mut(index) {
            *place = Some(name);
        }
        Ok(log)
    }
}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        for name in self.names.iter().flatten() {
            let _ = self.directory.remove(name);
        }
        if let Some(cgroup) = &self.cgroup {
            let _ = cgroup.remove();
        }
    }
}

/// Clones a child into a new group and sees whether it is there: libraries that define the flag as
/// zero, and kernels with a bug, have placed it elsewhere or killed it.
pub(crate) fn test_placement(hierarchy: &Arc<Tree>, nursery: &mut Nursery) -> Result<Placement> {
    let cgroup = Group::create(hierarchy, random_uuid()?.to_string())?;
    let frozen = cgroup.frozen();
    let found = match frozen {
        Ok(true) => Err(Error::Frozen { path: cgroup.path() }),
        Err(error) => Err(error),
        Ok(false) => cgroup.open_dir().and_then(|dir| {
            nursery.probe(dir.as_fd()).map_err(|failure| Error::Spawn {
                program: "the placement probe".into(),
                stage: failure.stage,
                path: None,
                source: io::Error::from_raw_os_error(failure.errno),
            })
        }),
    };
    let removed = cgroup.remove();
    let placement = found?;
    removed?;
    Ok(placement)
}

/// Checks the limits, and that what holds the job can hold it as the command wants. Gives what is
/// to be set in the job's cgroup, if it has one.
fn check_containment(command: &Command, hierarchy: Option<&Arc<Tree>>) -> Result<Option<Settings>> {
    if let Some(tree) = hierarchy {
        return tree.require(&command.limits).map(Some);
    }
    command.limits.validate().map_err(|source| Error::InvalidLimit { source })?;
    let program = || command.program.clone();
    if !command.limits.is_empty() {
        return Err(Error::LimitsNeedCgroup { program: program() });
    }
    if command.process_group == ProcessGroup::Host {
        let reason = "a job contained by process group cannot stay in the host's";
        return Err(Error::InvalidCommand { program: program(), reason });
    }
    Ok(None)
}

/// Standard input, opened.
enum Input<'a> {
    Null,
    Opened(OwnedFd),
    Shared(BorrowedFd<'a>),
}

fn open_stdin(stdin: &Stdin) -> Result<Input<'_>> {
    Ok(match stdin {
        Stdin::Null => Input::Null,
        Stdin::Fd(fd) => Input::Shared(fd.as_fd()),
        Stdin::File(path) => Input::Opened(
            openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())
                .map_err(Error::path("open standard input", path))?,
        ),
    })
}
