//! Owns [`Launcher`]: how a job is started, from any thread, and [`Launched`], a job that was
//! started but not yet adopted by a registry.
//!
//! Invariant: whatever was made for a job is rolled back when its [`Launched`] is dropped, whatever
//! step was reached. Knows nothing of the event loop.

use std::io::{self, PipeWriter};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::cgroup::{Group, Owner, Pass, Pool, Settings};
use crate::command::{Command, Limits, Output, ProcessGroup};
use crate::error::{Error, LimitsError, Result, SpawnError, Stage, SystemError};
use crate::id::JobId;
use crate::job::bounds::Bounds;
use crate::job::containment::Contained;
use crate::job::prepared::Prepared;
use crate::job::record::{Policies, Record};
use crate::job::streams::{Input, Passed};
use crate::log::{LogDirectory, Place};
use crate::sys::{Failure, Nurseries, Placement, Process, Reap, Unstarted, random_uuid};

/// How long a failed start may wait for its own processes to die.
const ABANDON_TIMEOUT: Duration = Duration::from_secs(1);

/// Starts jobs; can be shared by threads.
#[derive(Debug)]
pub(crate) struct Launcher {
    /// Children that were killed, but wait in the kernel; with what was made for them. Nearly
    /// always empty. Dropped, as the pool is, before the owner, whose marker stays as long as a
    /// group does.
    unreaped: Mutex<Vec<(Process, Made)>>,
    pool: Mutex<Pool>,
    /// Whose cgroups are made; `None` when jobs are contained by process group.
    owner: Option<Owner>,
    nurseries: Nurseries,
    /// `/dev/null`, for reading and writing.
    null: OwnedFd,
    directory: Arc<LogDirectory>,
    bounds: Bounds,
}

/// A job that was started. Dropping it ends the job and rolls back everything that was made for it.
#[derive(Debug)]
pub(crate) struct Launched {
    record: Record,
    /// Taken by [`Launched::into_parts`] alone.
    process: Option<Process>,
    /// The host's end of the pipe that is the job's standard input.
    stdin: Option<PipeWriter>,
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
        owner: Option<Owner>,
        nurseries: Nurseries,
        directory: Arc<LogDirectory>,
        bounds: Bounds,
    ) -> Result<Self> {
        let null = open_null()?;
        let (pool, unreaped) = (Mutex::default(), Mutex::default());
        Ok(Self { pool, owner, nurseries, null, directory, bounds, unreaped })
    }

    /// Whose cgroups are made, unless jobs are contained by process group.
    pub(crate) fn owner(&self) -> Option<&Owner> {
        self.owner.as_ref()
    }

    /// Makes cgroups with these limits in advance, until there are `count`.
    pub(crate) fn prepare(&self, limits: &Limits, count: usize) -> Result<()> {
        let Some(owner) = &self.owner else {
            let reason = "jobs are contained by process group".to_owned();
            return Err(SystemError::NoCgroup { reason }.into());
        };
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        pool.fill(owner, limits, count)
    }

    /// Starts a command. Blocks until its program executes, or cannot; for a bounded time, if it is
    /// one of those spawns.
    pub(crate) fn launch(&self, command: &Command) -> Result<Launched> {
        // Taken before the program starts, which happens during the call, so that its first moments
        // count as well.
        let moment = (Instant::now(), SystemTime::now());
        self.forget_dead();
        let prepared = Prepared::new(command)?;
        let settings = self.check_containment(command)?;
        let (input, passed) = (Input::open(command)?, Passed::new(command)?);

        let (mut made, dir) = self.make(command, settings.as_ref())?;
        if (command.keep_log || command.detached) && command.output.has_log() {
            self.directory.keep()?;
        }
        let owner = (command.uid, command.gid);
        let logs = match command.output {
            Output::Combined => [Some(made.log(0, "log", owner)?), None],
            Output::Split => {
                [Some(made.log(0, "log", owner)?), Some(made.log(1, "err.log", owner)?)]
            }
            Output::Null | Output::Inherit | Output::Fd { .. } => [None, None],
        };
        let (null, hosts) = (self.null.as_fd(), (io::stdout(), io::stderr()));
        let (output, error) = match (&command.output, &logs) {
            (Output::Inherit, _) => (hosts.0.as_fd(), hosts.1.as_fd()),
            (Output::Fd { output, error }, _) => (output.as_fd(), error.as_fd()),
            (_, [Some(output), Some(error)]) => (output.as_fd(), error.as_fd()),
            (_, [Some(both), None]) => (both.as_fd(), both.as_fd()),
            (_, [None, _]) => (null, null),
        };
        let (streams, dir) = ([input.fd(null), output, error], dir.as_ref().map(OwnedFd::as_fd));
        let descriptors = passed.descriptors();
        let plan = prepared.plan(streams, &descriptors, dir);
        let process = match self.bounds.spawn(&self.nurseries, command, &plan) {
            Ok(process) => process,
            Err(unstarted) => return Err(self.give_up(command, unstarted, made).into()),
        };
        let record = Record::new(made.id, process.pid(), moment, Policies::of(command));
        Ok(Launched { record, process: Some(process), stdin: input.into_writer(), made })
    }

    /// Ends what is left of a start, and says why it failed.
    #[cold]
    fn give_up(&self, command: &Command, unstarted: Unstarted, mut made: Made) -> SpawnError {
        let program = command.program.clone();
        match unstarted {
            Unstarted::Failed(Failure { stage, errno }) => SpawnError::Failed {
                program,
                stage,
                path: match stage {
                    Stage::RootDirectory => command.chroot.clone(),
                    Stage::CurrentDirectory => command.current_dir.clone(),
                    _ => None,
                },
                cause: io::Error::from_raw_os_error(errno),
            },
            Unstarted::TimedOut { stage, child } => {
                let mut left = None;
                if !end(&child, made.group.as_ref()) {
                    left = Some(child.pid());
                    made.remove_logs();
                    self.unreaped().push((child, made));
                }
                SpawnError::TimedOut { program, timeout: self.bounds.timeout, stage, left }
            }
        }
    }

    fn unreaped(&self) -> MutexGuard<'_, Vec<(Process, Made)>> {
        self.unreaped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reaps the children of earlier starts that have died meanwhile, and removes their groups.
    fn forget_dead(&self) {
        self.unreaped().retain(|(child, _)| matches!(child.wait(Reap::Now), Ok(None)));
    }

    /// Checks the limits, and that what holds the job can hold it as the command wants.
    fn check_containment(&self, command: &Command) -> Result<Option<Settings>> {
        match &self.owner {
            Some(owner) => owner.tree().require_for_new(&command.limits).map(Some),
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
        let Some(owner) = &self.owner else { return Ok((made, None)) };
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        let ready = if command.detached { None } else { pool.take(&command.limits) };
        drop(pool);
        let group = if let Some((uuid, group)) = ready {
            made.id = JobId::new(uuid);
            made.group.insert(group)
        } else {
            let group = made.group.insert(owner.create(id.uuid(), command.detached)?);
            if let Some(settings) = settings {
                group.apply(settings)?;
            }
            group
        };
        let dir = group.open_dir()?;
        if command.accounting == Some(true) {
            owner.tree().enable_accounting();
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

    /// The host's end of the pipe that is the job's standard input, if it is one.
    pub(crate) fn take_stdin(&mut self) -> Option<PipeWriter> {
        self.stdin.take()
    }

    /// Keeps everything else.
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
        end(&process, self.made.group.as_ref());
    }
}

/// Kills a process and what else is in its group, and waits for a bounded time until all of it is
/// gone. Returns whether the process is.
fn end(process: &Process, group: Option<&Group>) -> bool {
    let until = Instant::now() + ABANDON_TIMEOUT;
    let Some(group) = group else {
        // While the process is not reaped, the number is its own.
        let _ = Contained::process_group(process).kill(process);
        return process.end(ABANDON_TIMEOUT);
    };
    let _ = group.kill();
    let ended = process.end(ABANDON_TIMEOUT);
    while group.populated().unwrap_or(false) && Instant::now() < until {
        let (mut pass, mut budget) = (Pass::default(), usize::MAX);
        let _ = group.for_each_member(
            &mut pass,
            &mut budget,
            |_| true,
            |_, pidfd| {
                let left = until.saturating_duration_since(Instant::now()).try_into().ok();
                let _ = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], left.as_ref());
                Ok(ControlFlow::Continue(()))
            },
        );
    }
    ended
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

    fn remove_logs(&mut self) {
        for place in std::mem::take(&mut self.places).iter().flatten() {
            let _ = place.unlink();
        }
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        self.remove_logs();
        if let Some(group) = &self.group {
            let _ = group.remove_when_left(ABANDON_TIMEOUT);
        }
    }
}

/// Clones a child into a new group and checks that it is there: libraries that define the flag as
/// zero, and kernels with a bug, have placed it elsewhere or killed it.
pub(crate) fn test_placement(owner: &Owner, nurseries: &Nurseries) -> Result<Placement> {
    let group = owner.create(random_uuid()?, false)?;
    let probe = || -> Result<Placement> {
        let dir = group.open_dir()?;
        if group.frozen()? {
            return Err(SpawnError::Frozen { path: group.path() }.into());
        }
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

/// `/dev/null`, for reading and writing.
pub(crate) fn open_null() -> Result<OwnedFd> {
    openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(Error::path("open", "/dev/null"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::job::bounded_spawns::BoundedSpawns;

    #[test]
    fn a_job_that_nobody_adopts_is_ended_and_leaves_nothing() {
        let directory = Arc::new(LogDirectory::temporary(random_uuid).unwrap());
        let logs = directory.path("");
        // Containment by process group needs no cgroup.
        let bounds = Bounds { which: BoundedSpawns::None, timeout: Duration::ZERO, launcher: None };
        let launcher = Launcher::new(None, Nurseries::new().unwrap(), directory, bounds).unwrap();
        let launched = launcher.launch(Command::new("sleep").arg("1000")).unwrap();
        let process = format!("/proc/{}", launched.process().pid());
        assert!(Path::new(&process).exists());
        assert_eq!(fs::read_dir(&logs).unwrap().count(), 1);
        drop(launched);
        assert!(!Path::new(&process).exists());
        assert_eq!(fs::read_dir(&logs).unwrap().count(), 0);
    }
}
