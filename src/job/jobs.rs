//! Owns [`Jobs`]: all jobs of a reactor, from spawn to removal; it carries out what the table in
//! `job.rs` decides.
//!
//! Invariants: whatever a job holds of the system (pidfd, cgroup, watches, deadlines) is given back
//! when it is finished, and its log when it is removed. A pidfd is out of the epoll before its
//! process is reaped, for the kernel would report it again. Nothing that fails here is lost: it
//! goes to the caller or into the job's report.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use inotify::WatchDescriptor;
use mio::unix::SourceFd;
use mio::{Interest, Registry};
use slab::Slab;
use uuid::Uuid;

use crate::cgroup::Trigger;
use crate::command::{Command, EndPolicy, Signal};
use crate::driver::Watch;
use crate::error::{Error, Result};
use crate::event::{Event, Exit, OomCause, Report, Stallable, Status, StopCause, Usage};
use crate::id::{JobId, Key, Token};
use crate::job::containment::Contained;
use crate::job::deadlines::Deadlines;
use crate::job::launch::{Ground, Launch, Launched};
use crate::job::life::{Action, Input, State, next};
use crate::log::{LogDirectory, Logs, Queue, Stream};
use crate::sys::Process;

/// The parts of a reactor that jobs use.
#[derive(Debug)]
pub(crate) struct Surroundings<'a> {
    pub(crate) registry: &'a Registry,
    pub(crate) watch: &'a mut Watch,
    pub(crate) queue: &'a mut Queue,
    pub(crate) logs: &'a mut Logs<Watch>,
    pub(crate) directory: &'a Arc<LogDirectory>,
}

/// One of a job's logs.
#[derive(Debug)]
pub(super) struct JobLog {
    pub(super) key: Key,
}

/// What a job holds of the system until it is finished.
#[derive(Debug)]
pub(crate) struct Live {
    pub(super) process: Process,
    pub(crate) contained: Contained,
    /// Whether the pidfd is in the epoll.
    pub(super) registered: bool,
    /// The watch of cgroup.events, once somebody has to be waited for.
    pub(super) watch: Option<WatchDescriptor>,
    /// The processes that are waited for by pidfds of their own, by their place in
    /// `Jobs::survivors`.
    pub(super) survivors: Vec<usize>,
    /// The watch of memory.events, where there is that.
    pub(crate) memory_watch: Option<WatchDescriptor>,
    /// How many kills for want of memory were told, and why the last was.
    pub(crate) oom_kills: u64,
    pub(crate) oom: Option<OomCause>,
    pub(crate) limits_met: LimitsMet,
    /// Whether the job was told to freeze, and whether the kernel still has to tell that it is
    /// done.
    pub(crate) frozen: bool,
    pub(crate) freezing: bool,
    /// The pressure triggers, by their place in `Jobs::triggers`.
    pub(crate) triggers: Vec<usize>,
}

/// How often memory limits were met with nothing left to reclaim.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LimitsMet {
    /// That of the job or of a group below it.
    pub(crate) own: u64,
    /// Those of the groups above it.
    pub(crate) above: u64,
}

#[derive(Debug)]
pub(super) struct Job {
    pub(super) id: JobId,
    pub(super) token: Token,
    pub(super) state: State,
    pub(super) pid: u32,
    pub(super) live: Option<Live>,
    pub(super) logs: [Option<JobLog>; 2],
    pub(super) started: SystemTime,
    pub(super) spawned: Instant,
    pub(super) exit: Option<(Exit, Usage, Duration)>,
    /// The time limit, then the end of the grace period.
    pub(super) deadline: Option<Instant>,
    pub(super) policy: EndPolicy,
    pub(super) stop_signal: Signal,
    pub(super) grace: Duration,
    pub(super) detached: bool,
    pub(super) keep_log: bool,
    pub(super) accounting: bool,
    pub(super) stopped_by: Option<StopCause>,
    pub(super) killed: bool,
    pub(super) problems: Vec<Error>,
    pub(super) report: Option<Arc<Report>>,
}

/// A trigger, and whom to tell.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) trigger: Trigger,
    /// The job, by slot and id, or `None` for the whole system.
    pub(crate) job: Option<(usize, JobId)>,
    pub(crate) token: Token,
    pub(crate) resource: Stallable,
}

impl Watched {
    /// What it tells.
    pub(crate) fn event(&self) -> Event {
        match self.job {
            Some((_, job)) => Event::Pressure { job, token: self.token, resource: self.resource },
            None => Event::SystemPressure { token: self.token, resource: self.resource },
        }
    }
}

/// All jobs.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    pub(super) jobs: Slab<Job>,
    /// Processes that are waited for besides the main ones: the job's slot, and the pidfd.
    pub(super) survivors: Slab<(usize, OwnedFd)>,
    pub(super) deadlines: Deadlines,
    pub(crate) triggers: Slab<Watched>,
    /// How often memory limits above the jobs' groups were met, when somebody looked last.
    pub(crate) limits_met_above: Option<u64>,
}

/// Tokens of the epoll below this one belong to the reactor itself.
pub(crate) const FIRST_TOKEN: usize = 3;

pub(super) fn register(registry: &Registry, pidfd: &OwnedFd, token: mio::Token) -> io::Result<()> {
    registry.register(&mut SourceFd(&pidfd.as_raw_fd()), token, Interest::READABLE)
}

pub(super) fn main_token(slot: usize) -> mio::Token {
    mio::Token(FIRST_TOKEN + 3 * slot)
}

pub(super) fn survivor_token(place: usize) -> mio::Token {
    mio::Token(FIRST_TOKEN + 3 * place + 1)
}

pub(crate) fn trigger_token(place: usize) -> mio::Token {
    mio::Token(FIRST_TOKEN + 3 * place + 2)
}

/// How many survivors of a cgroup are awaited by pidfd; the notification of the cgroup covers the
/// rest, later.
pub(super) const SURVIVORS_AWAITED: usize = 64;

/// How often it is tried to find the processes that a group without a watch still has.
pub(super) const LOOKS: usize = 8;

impl Jobs {
    /// How many jobs there are, finished ones included.
    pub(crate) fn len(&self) -> usize {
        self.jobs.len()
    }

    /// When something is to be done next.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// What a job holds, unless it is finished.
    pub(crate) fn live(&self, id: JobId) -> Result<Option<&Live>> {
        Ok(self.jobs[self.slot(id)?].live.as_ref())
    }

    pub(crate) fn live_at(&mut self, slot: usize) -> Option<&mut Live> {
        self.jobs.get_mut(slot)?.live.as_mut()
    }

    pub(crate) fn report(&self, id: JobId) -> Result<Option<&Arc<Report>>> {
        Ok(self.jobs[self.slot(id)?].report.as_ref())
    }

    pub(crate) fn slot_and_token(&self, id: JobId) -> Result<(usize, Token)> {
        let slot = self.slot(id)?;
        Ok((slot, self.jobs[slot].token))
    }

    pub(crate) fn id_and_token(&self, slot: usize) -> Option<(JobId, Token)> {
        self.jobs.get(slot).map(|job| (job.id, job.token))
    }

    pub(super) fn slot(&self, id: JobId) -> Result<usize> {
        let slot = id.slot() as usize;
        match self.jobs.get(slot) {
            Some(job) if job.id == id => Ok(slot),
            _ => Err(Error::UnknownJob(id)),
        }
    }

    /// The job with this UUID: a pass over all jobs.
    pub(crate) fn find(&self, uuid: Uuid) -> Option<JobId> {
        self.jobs.iter().map(|(_, job)| job.id).find(|id| id.uuid() == uuid)
    }

    /// Starts a command; on failure nothing of the attempt is left.
    pub(crate) fn spawn(
        &mut self,
        command: &Command,
        token: Token,
        ground: &mut Ground<'_>,
        around: &mut Surroundings<'_>,
    ) -> Result<JobId> {
        // Before the program starts, which it does while we wait: its first moments belong to the
        // job.
        let (spawned, started) = (Instant::now(), SystemTime::now());
        let launch = Launch::start(command, ground, around.directory)?;
        let entry = self.jobs.vacant_entry();
        let slot = entry.key();
        let watched =
            u32::try_from(slot).map_err(|_| io::Error::other("too many jobs")).and_then(|number| {
                register(around.registry, launch.process().pidfd(), main_token(slot))
                    .map(|()| number)
            });
        let number = match watched {
            Ok(number) => number,
            Err(source) => {
                launch.abandon();
                return Err(Error::Loop { operation: "watch the new process", source });
            }
        };
        let Launched { uuid, process, contained, places } = launch.succeeded();
        let id = JobId::new(uuid, number);
        entry.insert(Job {
            id,
            token,
            state: State::Running,
            pid: process.pid(),
            live: Some(Live {
                process,
                contained,
                registered: true,
                watch: None,
                survivors: Vec::new(),
                memory_watch: None,
                oom_kills: 0,
                oom: None,
                limits_met: LimitsMet::default(),
                frozen: false,
                freezing: false,
                triggers: Vec::new(),
            }),
            logs: places.map(|place| {
                place.map(|place| JobLog { key: around.logs.create(around.watch, place) })
            }),
            started,
            spawned,
            exit: None,
            deadline: None,
            policy: command.end_policy,
            stop_signal: command.stop_signal,
            grace: command.grace,
            detached: command.detached,
            keep_log: command.keep_log,
            accounting: command.accounting.unwrap_or(!command.limits.is_empty()),
            stopped_by: None,
            killed: false,
            problems: Vec::new(),
            report: None,
        });
        self.set_deadline(slot, command.time_limit.and_then(|limit| spawned.checked_add(limit)));
        if ground.hierarchy.is_some_and(|hierarchy| hierarchy.has_memory()) {
            self.watch_memory(slot, around);
        }
        Ok(id)
    }

    /// The epoll has told of a pidfd or a trigger.
    pub(crate) fn ready(&mut self, event: &mio::event::Event, around: &mut Surroundings<'_>) {
        let Some(number) = event.token().0.checked_sub(FIRST_TOKEN) else { return };
        match number % 3 {
            0 => self.main_exited(number / 3, around),
            1 => self.survivor_exited(number / 3, around),
            _ => self.trigger_ready(number / 3, event.is_priority(), around),
        }
    }

    /// Acts on every deadline that has come.
    pub(crate) fn deadlines_passed(&mut self, now: Instant, around: &mut Surroundings<'_>) {
        while let Some(slot) = self.deadlines.due(now) {
            self.set_deadline(slot, None);
            let Some(job) = self.jobs.get_mut(slot) else { continue };
            let limit_reached = job.stopped_by.is_none();
            let input = if limit_reached { Input::Stop } else { Input::GraceOver };
            if limit_reached {
                job.stopped_by = Some(StopCause::TimeLimit);
            }
            self.step(slot, input, around);
        }
    }

    /// Tells the table what has happened and does what it says.
    pub(super) fn step(&mut self, slot: usize, input: Input, around: &mut Surroundings<'_>) {
        let Some(job) = self.jobs.get_mut(slot) else { return };
        let (state, action) = next(job.state, input, job.policy);
        job.state = state;
        match action {
            Action::None => {}
            Action::Signal => self.signal_and_wait(slot, around),
            Action::Kill => {
                self.kill_all(slot);
                self.set_deadline(slot, None);
                if self.jobs.get(slot).is_some_and(|job| job.exit.is_some()) {
                    self.look(slot, false, around);
                }
            }
            Action::KillRest => {
                self.set_deadline(slot, None);
                self.look(slot, true, around);
            }
            // The deadline stays: a time limit holds for what lingers too.
            Action::AwaitRest => self.look(slot, false, around),
            Action::Finish => self.finish(slot, input == Input::Empty, around),
        }
    }

    pub(super) fn signal_and_wait(&mut self, slot: usize, around: &mut Surroundings<'_>) {
        let Some(job) = self.jobs.get_mut(slot) else { return };
        let grace = job.grace;
        if grace.is_zero() {
            self.step(slot, Input::GraceOver, around);
            return;
        }
        if let Some(live) = &mut job.live {
            // A frozen process acts on no signal but a kill.
            let thawed =
                if std::mem::take(&mut live.frozen) { live.contained.thaw() } else { Ok(()) };
            live.freezing = false;
            // The kill at the end of the grace period needs no cooperation.
            job.problems
                .extend(thawed.and(live.contained.signal(job.stop_signal, &live.process)).err());
        }
        self.set_deadline(slot, Instant::now().checked_add(grace));
    }

    /// Kills every process, and the main one by its pidfd as well, in case it has moved itself to
    /// another cgroup.
    pub(super) fn kill_all(&mut self, slot: usize) {
        let Some(job) = self.jobs.get_mut(slot) else { return };
        let Some(live) = &job.live else { return };
        job.killed = true;
        if let Err(error) = live.contained.kill() {
            job.problems.push(error);
        }
        if job.exit.is_none()
            && let Err(source) = live.process.signal(Signal::KILL)
        {
            job.problems.push(Error::Loop { operation: "kill a main process", source });
        }
    }

    /// Stops a job. A later stop can shorten the grace period, but not lengthen it.
    pub(crate) fn stop(
        &mut self,
        id: JobId,
        grace: Option<Duration>,
        around: &mut Surroundings<'_>,
    ) -> Result<()> {
        let slot = self.slot(id)?;
        let Some(job) = self.jobs.get_mut(slot) else { return Err(Error::UnknownJob(id)) };
        let stopping = matches!(job.state, State::Stopping | State::Leaving);
        if stopping {
            let sooner = grace.and_then(|grace| Instant::now().checked_add(grace));
            if let (Some(sooner), Some(deadline)) = (sooner, job.deadline)
                && sooner < deadline
            {
                self.set_deadline(slot, Some(sooner));
            }
            return Ok(());
        }
        if job.live.is_some() {
            job.stopped_by.get_or_insert(StopCause::Stop);
            job.grace = grace.unwrap_or(job.grace);
        }
        self.step(slot, Input::Stop, around);
        Ok(())
    }

    /// Kills a job.
    pub(crate) fn kill(&mut self, id: JobId, around: &mut Surroundings<'_>) -> Result<()> {
        let slot = self.slot(id)?;
        self.kill_slot(slot, StopCause::Kill, around);
        Ok(())
    }

    pub(super) fn kill_slot(
        &mut self,
        slot: usize,
        cause: StopCause,
        around: &mut Surroundings<'_>,
    ) {
        let Some(job) = self.jobs.get_mut(slot) else { return };
        if job.live.is_some() {
            job.stopped_by.get_or_insert(cause);
        }
        self.step(slot, Input::Kill, around);
    }

    /// Sends a signal to every process of a job, or to its main process alone.
    pub(crate) fn signal(&self, id: JobId, signal: Signal, main_only: bool) -> Result<()> {
        let job = &self.jobs[self.slot(id)?];
        match &job.live {
            Some(live) if main_only && job.exit.is_none() => {
                let told = |source| Error::Loop { operation: "signal a main process", source };
                live.process.signal(signal).map_err(told)
            }
            Some(live) if !main_only => live.contained.signal(signal, &live.process),
            Some(_) => Err(Error::Exited(id)),
            None if main_only => Err(Error::Exited(id)),
            None => Ok(()),
        }
    }

    /// What is known of a job now.
    pub(crate) fn status(&self, id: JobId, logs: &Logs<Watch>) -> Result<Status> {
        let job = &self.jobs[self.slot(id)?];
        let path = |log: &Option<JobLog>| log.as_ref().map(|log| logs.place(log.key).path());
        let [output, error] = &job.logs;
        Ok(Status {
            id,
            pid: job.pid,
            phase: job.state.phase(),
            exit: job.exit.map(|(exit, ..)| exit),
            frozen: job.live.as_ref().is_some_and(|live| live.frozen),
            started: job.started,
            elapsed: job.exit.map_or_else(|| job.spawned.elapsed(), |(.., wall)| wall),
            cgroup: job.live.as_ref().and_then(|live| live.contained.path()).map(Path::to_owned),
            output: path(output),
            error: path(error),
            report: job.report.clone(),
        })
    }

    /// The log of a job's stream.
    pub(crate) fn log(&self, id: JobId, stream: Stream) -> Result<Key> {
        let job = &self.jobs[self.slot(id)?];
        let [output, error] = &job.logs;
        let (log, name) = match stream {
            Stream::Output => (output, "standard output"),
            Stream::Error => (error, "standard error"),
        };
        Ok(log.as_ref().ok_or(Error::NoLog { job: id, stream: name })?.key)
    }

    /// Forgets a finished job, its tails and, unless it is to be kept, its log.
    pub(crate) fn remove(&mut self, id: JobId, around: &mut Surroundings<'_>) -> Result<()> {
        let slot = self.slot(id)?;
        if self.jobs[slot].state != State::Finished {
            return Err(Error::NotFinished(id));
        }
        let job = self.jobs.remove(slot);
        // Events of a job that is gone would confuse: it was told all but these.
        around.queue.retain(|event| match event {
            Event::Exited { job, .. }
            | Event::Finished { job, .. }
            | Event::Pressure { job, .. }
            | Event::Oom { job, .. }
            | Event::Frozen { job, .. }
            | Event::Thawed { job, .. } => *job != id,
            Event::Readable { .. } | Event::SystemPressure { .. } | Event::Woken => true,
        });
        job.discard_logs(around)
    }

    /// Kills every job that is neither finished nor detached; says how many there are.
    pub(crate) fn kill_all_attached(&mut self, around: &mut Surroundings<'_>) -> usize {
        let attached = |job: &Job| job.live.is_some() && !job.detached;
        let slots: Vec<usize> =
            self.jobs.iter().filter(|(_, job)| attached(job)).map(|(slot, _)| slot).collect();
        for slot in &slots {
            self.kill_slot(*slot, StopCause::Drop, around);
        }
        self.count_attached()
    }

    /// How many jobs are neither finished nor detached.
    pub(crate) fn count_attached(&self) -> usize {
        self.jobs.iter().filter(|(_, job)| job.live.is_some() && !job.detached).count()
    }

    /// Forgets every job; the logs of the finished ones go unless they are to be kept.
    pub(crate) fn discard_all(&mut self, around: &mut Surroundings<'_>) {
        for job in self.jobs.drain() {
            if job.state == State::Finished && !job.detached {
                let _ = job.discard_logs(around);
            }
        }
    }

    pub(super) fn set_deadline(&mut self, slot: usize, to: Option<Instant>) {
        if let Some(job) = self.jobs.get_mut(slot) {
            self.deadlines.replace(slot, &mut job.deadline, to);
        }
    }
}

impl Job {
    pub(super) fn discard_logs(self, around: &mut Surroundings<'_>) -> Result<()> {
        let mut result = Ok(());
        for log in self.logs.into_iter().flatten() {
            let path = around.logs.place(log.key).path();
            let removed = around.logs.remove(around.watch, log.key, self.keep_log);
            result = result.and(removed.map_err(Error::path("remove log", path)));
        }
        result
    }
}
