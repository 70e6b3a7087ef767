//! Owns [`Launcher`]: how a job is started, from any thread, and [`Launched`], a job that was
//! started but not yet adopted by a registry.
//!
//! Invariant: whatever was made for a job is rolled back when its [`Launched`] is dropped, whatever
//! step was reached. Knows nothing of the event loop.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::cgroup::{Group, Owner, Pool, Settings, Tree};
use crate::command::{Command, Limits, Output, ProcessGroup, Signal, Stdin};
use crate::error::{Error, LimitsError, Result, SpawnError, Stage, SystemError};
use crate::id::JobId;
use crate::job::containment::Contained;
use crate::job::prepared::Prepared;
use crate::job::record::{Policies, Record};
use crate::log::{LogDirectory, Place};
use crate::sys::{Nurseries, Placement, Process, Reap, random_uuid};

/// How long a failed start may wait for its own processes to die.
const ABANDON_TIMEOUT: Duration = Duration::from_secs(1);

/// Starts jobs; can be shared by threads.
#[derive(Debug)]
pub(crate) struct Launcher {
    /// Where to make cgroups; `None` when jobs are contained by process group.
    tree: Option<Arc<Tree>>,
    owner: Owner,
    pool: Mutex<Pool>,
    nurseries: Nurseries,
    /// `/dev/null`, for reading and writing.
    null: OwnedFd,
    directory: Arc<LogDirectory>,
}

/// A job that was started. Dropping it ends the job and rolls back everything that was made for it.
#[derive(Debug)]
pub(crate) struct Launched {
    record: Record,
    /// Taken by [`Launched::into_parts`] alone.
    process: Option<Process>,
    made: Made,
}

/// What was made for a job so far; dropping it rolls that back.
#[derive(Debug)]
struct Made {
    id: JobId,
    directory: Arc<LogDirectory>,
    places: [Option<Place>; 2],
    group: Option<Group>,
}

impl Launcher {
    pub(crate) fn new(
        tree: Option<Arc<Tree>>,
        nurseries: Nurseries,
        directory: Arc<LogDirectory>,
    ) -> Result<Self> {
        let null = openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(Error::path("open", "/dev/null"))?;
        let owner = Owner::current()?;
        Ok(Self { tree, owner, pool: Mutex::default(), nurseries, null, directory })
    }

    pub(crate) fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Where cgroups are made, unless jobs are contained by process group.
    pub(crate) fn tree(&self) -> Result<&Arc<Tree>> {
        let reason = "jobs are contained by process group";
        self.tree.as_ref().ok_or_else(|| SystemError::NoCgroup { reason: reason.to_owned() }.into())
    }

    /// Makes cgroups with these limits in advance, until there are `count`.
    pub(crate) fn prepare(&self, limits: &Limits, count: usize) -> Result<()> {
        let tree = self.tree()?;
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        pool.fill(tree, &self.owner, limits, count)
    }

    /// Starts a command. Blocks until its program executes, or cannot.
    pub(crate) fn launch(&self, command: &Command) -> Result<Launched> {
        // Taken before the program starts, which happens during the call, so that its first moments
        // count as well.
        let moment = (Instant::now(), SystemTime::now());
        let prepared = Prepared::new(command)?;
        let settings = self.check_containment(command)?;
        let stdin = open_stdin(&command.stdin)?;

        let (mut made, dir) = self.make(command, settings.as_ref())?;
        let owner = (command.uid, command.gid);
        let (output, error) = match command.output {
            Output::Combined => (Some(made.log(0, "log", owner)?), None),
            Output::Split => {
                (Some(made.log(0, "log", owner)?), Some(made.log(1, "err.log", owner)?))
            }
            Output::Null => (None, None),
        };
        let null = self.null.as_fd();
        let input = match &stdin {
            Input::Null => null,
            Input::Opened(fd) => fd.as_fd(),
            Input::Shared(fd) => *fd,
        };
        let output = output.as_ref().map_or(null, OwnedFd::as_fd);
        let error = error.as_ref().map_or(output, OwnedFd::as_fd);
        let plan = prepared.plan(command, [input, output, error], dir.as_ref().map(OwnedFd::as_fd));
        let process = self.nurseries.spawn(&plan).map_err(|failure| SpawnError::Failed {
            program: command.program.clone(),
            stage: failure.stage,
            path: command.current_dir.clone().filter(|_| failure.stage == Stage::CurrentDirectory),
            cause: io::Error::from_raw_os_error(failure.errno),
        })?;
        let record = Record::new(made.id, process.pid(), moment, Policies::of(command));
        Ok(Launched { record, process: Some(process), made })
    }

    /// Checks the limits, and that what holds the job can hold it as the command wants.
    fn check_containment(&self, command: &Command) -> Result<Option<Settings>> {
        match &self.tree {
            Some(tree) => tree.require(&command.limits).map(Some),
            None if !command.limits.is_empty() => Err(LimitsError::NeedCgroup.into()),
            None if command.process_group == ProcessGroup::Host => {
                let program = command.program.clone();
                let reason = "a job contained by process group cannot stay in the host's";
                Err(SpawnError::InvalidCommand { program, reason }.into())
            }
            None => Ok(None),
        }
    }

    /// Makes the cgroup of a job, or takes one that was made in advance; opens its directory.
    fn make(
        &self,
        command: &Command,
        settings: Option<&Settings>,
    ) -> Result<(Made, Option<OwnedFd>)> {
        let id = JobId::new(random_uuid()?);
        let mut made =
            Made { id, directory: Arc::clone(&self.directory), places: [None, None], group: None };
        let Some(tree) = &self.tree else { return Ok((made, None)) };
        let ready = self.pool.lock().unwrap_or_else(PoisonError::into_inner).take(&command.limits);
        let is_new = ready.is_none();
        let group = match ready {
            Some((uuid, group)) => {
                made.id = JobId::new(uuid);
                made.group.insert(group)
            }
            None => made.group.insert(Group::create(tree, id.to_string())?),
        };
        let dir = group.open_dir()?;
        self.owner.mark(dir.as_fd(), command.detached);
        if is_new && let Some(settings) = settings {
            group.apply(settings)?;
        }
        if command.accounting == Some(true) {
            tree.enable_accounting();
        }
        // Checked on the new group itself, which inherits the state of every group above it.
        if group.frozen()? {
            return Err(SpawnError::Frozen { path: group.path() }.into());
        }
        Ok((made, Some(dir)))
    }
}

impl Launched {
    pub(crate) fn process(&self) -> &Process {
        match &self.process {
            Some(process) => process,
            None => unreachable!("whoever takes the process consumes the rest"),
        }
    }

    /// Keeps everything.
    pub(crate) fn into_parts(mut self) -> (Record, Process, Contained, [Option<Place>; 2]) {
        let Some(process) = self.process.take() else {
            unreachable!("whoever takes the process consumes the rest")
        };
        let contained = match self.made.group.take() {
            Some(group) => Contained::Cgroup(group),
            None => Contained::process_group(&process),
        };
        (self.record.clone(), process, contained, std::mem::take(&mut self.made.places))
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        let Some(process) = self.process.take() else { return };
        // There is nobody left to report a failure to. What follows removes the group and the logs.
        let _ = process.signal(Signal::KILL);
        let Some(group) = &self.made.group else {
            let _ = Contained::process_group(&process).kill(&process);
            let _ = process.wait(Reap::Block);
            return;
        };
        let _ = group.kill();
        let _ = process.wait(Reap::Block);
        let until = Instant::now() + ABANDON_TIMEOUT;
        while group.populated().unwrap_or(false) && Instant::now() < until {
            let _ = group.for_each_member(
                |_| true,
                |_, pidfd| {
                    let left = until.saturating_duration_since(Instant::now());
                    let _ = poll(
                        &mut [PollFd::new(&pidfd, PollFlags::IN)],
                        left.try_into().ok().as_ref(),
                    );
                    Ok(ControlFlow::Continue(()))
                },
            );
        }
    }
}

impl Made {
    /// Makes a log, open for the job to write to.
    fn log(
        &mut self,
        index: usize,
        suffix: &str,
        owner: (Option<u32>, Option<u32>),
    ) -> Result<OwnedFd> {
        let (log, place) = self.directory.create(&format!("{}.{suffix}", self.id), owner)?;
        if let Some(slot) = self.places.get_mut(index) {
            *slot = Some(place);
        }
        Ok(log)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for place in self.places.iter().flatten() {
            let _ = place.unlink();
        }
        if let Some(group) = &self.group {
            let _ = group.remove_when_left(ABANDON_TIMEOUT);
        }
    }
}

/// Clones a child into a new group and checks that it is there: libraries that define the flag as
/// zero, and kernels with a bug, have placed it elsewhere or killed it.
pub(crate) fn test_placement(tree: &Arc<Tree>, nurseries: &Nurseries) -> Result<Placement> {
    let group = Group::create(tree, random_uuid()?.to_string())?;
    let probe = || -> Result<Placement> {
        if group.frozen()? {
            return Err(SpawnError::Frozen { path: group.path() }.into());
        }
        let dir = group.open_dir()?;
        nurseries.probe(dir.as_fd()).map_err(|failure| {
            let cause = io::Error::from_raw_os_error(failure.errno);
            SpawnError::Placement { path: group.path(), stage: failure.stage, cause }.into()
        })
    };
    let found = probe();
    let removed = group.remove_when_left(ABANDON_TIMEOUT);
    let placement = found?;
    removed?;
    Ok(placement)
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn a_job_that_nobody_adopts_is_ended_and_leaves_nothing() {
        let directory = Arc::new(LogDirectory::temporary(random_uuid().unwrap()).unwrap());
        let logs = directory.path("");
        // Containment by process group needs no cgroup.
        let launcher = Launcher::new(None, Nurseries::new().unwrap(), directory).unwrap();
        let launched = launcher.launch(Command::new("sleep").arg("1000")).unwrap();
        let process = format!("/proc/{}", launched.process().pid());
        assert!(Path::new(&process).exists());
        assert_eq!(fs::read_dir(&logs).unwrap().count(), 1);
        drop(launched);
        assert!(!Path::new(&process).exists());
        assert_eq!(fs::read_dir(&logs).unwrap().count(), 0);
    }
}
