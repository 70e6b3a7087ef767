//! Owns [`Launcher`]: how a job is started, from any thread.
//!
//! Invariant: what a start that fails has made is rolled back, except for a process that waits in
//! the kernel, with what it uses, until that is gone. Knows nothing of the event loop.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::cgroup::{Owner, Pool, Settings};
use crate::command::{Command, Limits, Output, ProcessGroup};
use crate::error::{Error, LimitsError, Result, SpawnError, Stage, SystemError};
use crate::id::JobId;
use crate::job::bounds::Bounds;
use crate::job::containment::Containment;
use crate::job::history::History;
use crate::job::launched::{ABANDON_TIMEOUT, Launched, Made, end};
use crate::job::prepared::Prepared;
use crate::job::record::{Policies, Record};
use crate::job::recording;
use crate::job::starting::Starting;
use crate::job::streams::{Input, Passed};
use crate::job::terminal::{Pair, Terminal};
use crate::log::{LogDirectory, Place};
use crate::sys::{Failure, Nurseries, Placement, Process, Reap, Unstarted, random_uuid};
use crate::trace::{self, JobSpan};

/// Starts jobs; can be shared by threads.
#[derive(Debug)]
pub(crate) struct Launcher {
    /// Children that were killed, but wait in the kernel; with what was made for them. Nearly
    /// always empty. Dropped, as the pool is, before the owner, whose marker stays as long as a
    /// group does.
    unreaped: Mutex<Vec<(Process, Made)>>,
    pool: Mutex<Pool>,
    starting: Starting,
    /// Whose cgroups are made; `None` when jobs are contained by process group.
    owner: Option<Owner>,
    nurseries: Nurseries,
    /// `/dev/null`, for reading and writing.
    null: OwnedFd,
    directory: Arc<LogDirectory>,
    /// Whether all logs together may have so much only.
    counts_logs: bool,
    bounds: Bounds,
    /// The history, for which something is kept of every job, and whether it is synced.
    history: Option<(History, bool)>,
}

impl Launcher {
    pub(crate) fn new(
        owner: Option<Owner>,
        nurseries: Nurseries,
        (directory, counts_logs): (Arc<LogDirectory>, bool),
        bounds: Bounds,
        history: Option<(History, bool)>,
    ) -> Result<Self> {
        let null = open_null()?;
        let (pool, unreaped, starting) = (Mutex::default(), Mutex::default(), Starting::default());
        Ok(Self {
            unreaped,
            pool,
            starting,
            owner,
            nurseries,
            null,
            directory,
            counts_logs,
            bounds,
            history,
        })
    }

    /// Whose cgroups are made, unless jobs are contained by process group.
    pub(crate) fn owner(&self) -> Option<&Owner> {
        self.owner.as_ref()
    }

    /// Where the logs are made.
    pub(crate) fn directory(&self) -> &Arc<LogDirectory> {
        &self.directory
    }

    /// Whether all logs are counted together.
    pub(crate) fn counts_logs(&self) -> bool {
        self.counts_logs
    }

    /// Where the reports of jobs are kept, if they are, and whether that is synced.
    pub(crate) fn history(&self) -> Option<&(History, bool)> {
        self.history.as_ref()
    }

    /// Whether a thread is starting this job, which is not adopted yet.
    pub(crate) fn is_starting(&self, job: JobId) -> bool {
        self.starting.contains(job)
    }

    /// How the processes of a job are held together.
    pub(crate) fn containment(&self) -> Containment {
        match self.owner {
            Some(_) => Containment::Cgroup,
            None => Containment::ProcessGroup,
        }
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
        let launched = self.start(command);
        if let Err(error) = &launched {
            trace::spawn_failed(&command.program, error);
        }
        launched
    }

    fn start(&self, command: &Command) -> Result<Launched> {
        // Taken before the program starts, which happens during the call, so that its first moments
        // count as well.
        let moment = (Instant::now(), SystemTime::now());
        self.forget_dead();
        let prepared = Prepared::new(command)?;
        if command.survives {
            recording::check_survival(command, self.owner.as_ref())?;
        }
        let settings = self.check_containment(command)?;
        let (input, passed) = (Input::open(command)?, Passed::new(command)?);

        let (mut made, dir) = self.make(command, settings.as_ref())?;
        let outlives = command.keep_log || command.detached || command.survives;
        if outlives && command.output.has_log() {
            self.directory.keep()?;
        }
        let mut log = |index, suffix| made.log(index, suffix, command, self.counts_logs);
        let logs = match command.output {
            Output::Combined | Output::Terminal(_) => [Some(log(0, "log")?), None],
            Output::Split => [Some(log(0, "log")?), Some(log(1, "err.log")?)],
            Output::Null | Output::Inherit | Output::Fd { .. } => [None, None],
        };
        let (null, hosts) = (self.null.as_fd(), (io::stdout(), io::stderr()));
        let pair = Self::make_terminal(command)?;
        let terminal = pair.as_ref().map(|pair| pair.slave.as_fd());
        let (output, error) = match (&command.output, terminal, &logs) {
            (_, Some(terminal), _) => (terminal, terminal),
            (Output::Inherit, ..) => (hosts.0.as_fd(), hosts.1.as_fd()),
            (Output::Fd { output, error }, ..) => (output.as_fd(), error.as_fd()),
            (.., [Some(output), Some(error)]) => (output.as_fd(), error.as_fd()),
            (.., [Some(both), None]) => (both.as_fd(), both.as_fd()),
            (.., [None, _]) => (null, null),
        };
        let streams = [input.fd(null, output), output, error];
        let group_dir = dir.as_ref();
        let dir = group_dir.map(OwnedFd::as_fd);
        let descriptors = passed.descriptors();
        let plan = prepared.plan(streams, &descriptors, dir, terminal);
        let keeps = self.history.is_some() || command.survives;
        let mut stored = keeps.then(|| recording::begin(command, moment.1, &made, &self.directory));
        if let Some(stored) = &stored {
            // Before there is a process, so that there never is one without a record.
            recording::store(stored, &made, group_dir)?;
        }
        let process = match self.bounds.spawn(&self.nurseries, command, &plan) {
            Ok(process) => process,
            Err(unstarted) => return Err(self.give_up(command, unstarted, made).into()),
        };
        if let Some(stored) = &mut stored
            && let Err(error) = recording::complete(stored, &process, &made, group_dir)
        {
            end(&process, made.group.as_ref());
            return Err(error);
        }
        let record = match stored {
            Some(stored) => Record::of_stored(stored, moment.0),
            None => Record::new(made.id, process.pid(), moment, Policies::of(command)),
        };
        let [log, _] = logs;
        let path = made.places[0].as_ref().map(Place::path).unwrap_or_default();
        // The job's end is closed here, so that only the job has it.
        let terminal = pair.zip(log).map(|(pair, log)| Terminal::new(pair.master, log, path));
        let span = JobSpan::spawned(made.id, process.pid(), &command.program);
        let stdin = input.into_writer();
        Ok(Launched::started(record, process, (stdin, terminal), span, made))
    }

    /// Makes the terminal of a job, if it is to have one.
    fn make_terminal(command: &Command) -> Result<Option<Pair>, SpawnError> {
        let Output::Terminal(terminal) = command.output else { return Ok(None) };
        let failed = |cause| SpawnError::Failed {
            program: command.program.clone(),
            stage: Stage::Terminal,
            path: None,
            cause,
        };
        Pair::new(terminal, command.uid).map(Some).map_err(failed)
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
        let begin = |id| Made::new(id, Arc::clone(&self.directory), &self.starting);
        let id = JobId::new(random_uuid()?);
        let Some(owner) = &self.owner else { return Ok((begin(id), None)) };
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        let of_its_own = command.detached || command.survives;
        let ready = if of_its_own { None } else { pool.take(&command.limits) };
        drop(pool);
        let mut made;
        let group = if let Some((uuid, group)) = ready {
            made = begin(JobId::new(uuid));
            made.group.insert(group)
        } else {
            made = begin(id);
            let lasting = match command.survives {
                true => owner.create_lasting(id.uuid()),
                false => None,
            };
            let made_now = lasting.unwrap_or_else(|| owner.create(id.uuid(), command.detached));
            let group = made.group.insert(made_now?);
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
    use std::time::Duration;

    use super::*;
    use crate::job::bounded_spawns::BoundedSpawns;

    #[test]
    fn a_job_that_nobody_adopts_is_ended_and_leaves_nothing() {
        let directory = Arc::new(LogDirectory::temporary(random_uuid).unwrap());
        let logs = directory.path("");
        // Containment by process group needs no cgroup.
        let bounds = Bounds { which: BoundedSpawns::None, timeout: Duration::ZERO, launcher: None };
        let nurseries = Nurseries::new().unwrap();
        let launcher = Launcher::new(None, nurseries, (directory, false), bounds, None).unwrap();
        let launched = launcher.launch(Command::new("sleep").arg("1000")).unwrap();
        let process = format!("/proc/{}", launched.process().unwrap().pid());
        assert!(Path::new(&process).exists());
        assert_eq!(fs::read_dir(&logs).unwrap().count(), 1);
        drop(launched);
        assert!(!Path::new(&process).exists());
        assert_eq!(fs::read_dir(&logs).unwrap().count(), 0);
    }
}
