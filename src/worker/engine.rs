//! Owns [`Engine`]: the thread of a worker, with the reactor and all that belongs to it.
//!
//! Invariants: everything here is used by this thread alone. Whichever way the loop ends, everybody
//! who waits for it is woken before the reactor is dropped. Knows nothing of handles but whether
//! there are any.

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::command::Command;
use crate::error::{JobError, Result, WorkerError};
use crate::event::{Event, Events, Recovered, Status, Swept};
use crate::id::{JobId, Token};
use crate::job::Launched;
use crate::reactor::{DROP_TIMEOUT, Recovery};
use crate::sys::random_uuid;
use crate::worker::job_events::JobEvent;
use crate::worker::layer0::Reactor;
use crate::worker::mailbox::{Mail, Mailbox, Request};
use crate::worker::outputs::Outputs;
use crate::worker::progress::{End, Progress};
use crate::worker::reply::Sender;
use crate::worker::shutdown::Shutdown;
use crate::worker::wait::discard;
use crate::worker::worker_events::{Board, WorkerEvent};

/// How many events are handled in one turn.
const EVENTS_PER_TURN: usize = 256;

/// The state of the loop.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) reactor: Reactor,
    pub(super) outputs: Outputs,
    jobs: HashMap<JobId, Entry>,
    board: Arc<Board>,
    /// Who wants to know what a sweep has removed.
    sweeps: HashMap<Token, Sender<Arc<Swept>>>,
    /// The token of the next sweep.
    sweep: Token,
    ending: Option<Ending>,
}

/// One job.
#[derive(Debug)]
struct Entry {
    progress: Arc<Progress>,
    /// How many handles there are, whose clones do not count. With one, the job has to stay when
    /// it is finished.
    handles: usize,
    /// Whether the host has dealt with the end of a job that survives it.
    acknowledged: bool,
}

/// A shutdown that has begun.
#[derive(Debug)]
struct Ending {
    /// What it stops.
    jobs: Vec<JobId>,
    /// When what is left is killed.
    until: Option<Instant>,
    /// Until when it may take what was killed to be gone.
    killed: Option<Instant>,
    /// Who wants to know what was stopped.
    replies: Vec<Sender<Vec<Status>>>,
}

impl Engine {
    /// Takes over a reactor, with the jobs that it has, each of which has a handle.
    pub(super) fn new(reactor: Reactor, board: Arc<Board>) -> Result<(Self, Vec<Arc<Progress>>)> {
        let mut jobs = HashMap::new();
        for id in reactor.jobs() {
            let status = reactor.status(id)?;
            let progress = Arc::new(Progress::new(id, status.pid));
            if let Some(exit) = status.exit {
                progress.publish(JobEvent::Exited(exit)).wake();
            }
            if let Some(report) = status.report {
                progress.set_end(End::Finished(report)).wake();
            }
            jobs.insert(id, Entry { progress, handles: 1, acknowledged: false });
        }
        let known = jobs.values().map(|entry| Arc::clone(&entry.progress)).collect();
        let engine = Self {
            reactor,
            outputs: Outputs::new(),
            jobs,
            board,
            sweeps: HashMap::new(),
            // So that the sweeps of the host that had the reactor are not mistaken for ours.
            sweep: Token(random_uuid()?.as_fields().0 as usize),
            ending: None,
        };
        Ok((engine, known))
    }

    /// Runs the loop until there is nobody left, it is shut down or it fails, then tells everybody.
    pub(super) fn main(mut self, mailbox: &Mailbox) {
        let ran = catch_unwind(AssertUnwindSafe(|| self.run(mailbox)));
        let (regular, why) = match ran {
            Ok(Ok(())) => (true, WorkerError::ShutDown),
            Ok(Err(error)) => (false, WorkerError::Failed { cause: error.to_string() }),
            Err(panic) => {
                let message = message_of(panic.as_ref());
                discard(panic);
                (false, WorkerError::Panicked { message })
            }
        };
        if regular {
            self.outputs.leave(&self.reactor);
        }
        mailbox.end(&why);
        self.outputs.lose();
        for entry in self.jobs.values() {
            entry.progress.set_end(End::Lost).wake_last();
        }
        self.board.end().wake_last();
        let ending = self.ending.take();
        let status = |job: &JobId| self.reactor.status(*job).ok();
        let stopped: Option<Vec<Status>> =
            ending.as_ref().map(|ending| ending.jobs.iter().filter_map(status).collect());
        // Kills what is left. Whoever has asked for the end is answered when everything is gone.
        drop(self);
        if regular && let (Some(ending), Some(stopped)) = (ending, stopped) {
            for reply in ending.replies {
                reply.send(stopped.clone());
            }
        }
    }

    fn run(&mut self, mailbox: &Mailbox) -> Result<()> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        let mut requests = VecDeque::new();
        // Whoever posts a request wakes the loop: otherwise there is none.
        let mut woken = true;
        loop {
            let mail = if woken { self.answer(mailbox, &mut requests) } else { Mail::Nothing };
            self.kill_when_time_is_up();
            if mail == Mail::Deserted || self.has_ended() {
                return Ok(());
            }
            let timeout = if mail == Mail::More { Some(Duration::ZERO) } else { self.time_left() };
            self.reactor.poll(&mut events, timeout)?;
            woken = mail == Mail::More;
            for event in &events {
                woken |= matches!(event, Event::Woken);
                self.handle(event);
            }
        }
    }

    /// Does what others have asked for, as much as one turn may take.
    fn answer(&mut self, mailbox: &Mailbox, requests: &mut VecDeque<Request>) -> Mail {
        let mail = mailbox.take(requests);
        for request in requests.drain(..) {
            request(self);
        }
        mail
    }

    fn handle(&mut self, event: &Event) {
        match event {
            Event::Readable { tail, token } => {
                self.outputs.readable(&mut self.reactor, *tail, *token);
            }
            Event::Finished { job, report, .. } => {
                let Some(entry) = self.jobs.get(job) else { return };
                let woken = entry.progress.set_end(End::Finished(Arc::clone(report)));
                self.remove_unused(*job);
                woken.wake();
            }
            Event::Exited { job, exit, .. } => self.publish(*job, JobEvent::Exited(*exit)),
            Event::Oom { job, kills, cause, .. } => {
                self.publish(*job, JobEvent::Oom { kills: *kills, cause: *cause });
            }
            Event::Pressure { job, resource, .. } => {
                self.publish(*job, JobEvent::Pressure(*resource));
            }
            Event::LogLimit { job, stream, .. } => {
                self.publish(*job, JobEvent::LogLimit(*stream));
            }
            Event::Frozen { job, .. } => self.publish(*job, JobEvent::Frozen),
            Event::Thawed { job, .. } => self.publish(*job, JobEvent::Thawed),
            Event::LogSpace { full } => {
                self.board.publish(WorkerEvent::LogSpace { full: *full }).wake();
            }
            Event::SystemPressure { resource, .. } => {
                self.board.publish(WorkerEvent::SystemPressure(*resource)).wake();
            }
            Event::Swept { token, swept } => {
                if let Some(sender) = self.sweeps.remove(token) {
                    sender.send(Arc::clone(swept));
                }
            }
            // The mailbox is looked into before the next turn.
            Event::Woken => {}
        }
    }

    fn publish(&self, job: JobId, event: JobEvent) {
        if let Some(entry) = self.jobs.get(&job) {
            entry.progress.publish(event).wake();
        }
    }

    /// Kills what is left when the time of a shutdown is up. Its end is waited for, so that there
    /// is a report, and so that readers get the rest.
    fn kill_when_time_is_up(&mut self) {
        let Some(ending) = &mut self.ending else { return };
        let now = Instant::now();
        if ending.killed.is_none() && ending.until.is_some_and(|at| at <= now) {
            ending.killed = Some(now + DROP_TIMEOUT);
            for job in &ending.jobs {
                // Those that have finished meanwhile are not touched.
                let _ = self.reactor.kill(*job);
            }
        }
    }

    /// Whether a shutdown is complete, or what was killed at the end of it does not die.
    fn has_ended(&self) -> bool {
        self.ending.as_ref().is_some_and(|ending| {
            self.reactor.attached() == 0 || ending.killed.is_some_and(|at| at <= Instant::now())
        })
    }

    /// How long a shutdown may still take until there is something to be done about it.
    fn time_left(&self) -> Option<Duration> {
        let ending = self.ending.as_ref()?;
        let until = ending.killed.or(ending.until)?;
        Some(until.saturating_duration_since(Instant::now()))
    }

    /// Fails once a shutdown has begun.
    fn check_open(&self) -> Result<()> {
        if self.ending.is_some() { Err(WorkerError::ShutDown.into()) } else { Ok(()) }
    }

    /// Adopts a job that another thread has started. Otherwise it is rolled back.
    pub(super) fn adopt(&mut self, launched: Launched) -> Result<Arc<Progress>> {
        self.check_open()?;
        let job = self.reactor.adopt(launched, Token::default())?;
        self.add(job)
    }

    /// Starts a job on this thread.
    pub(super) fn spawn(&mut self, command: &Command) -> Result<Arc<Progress>> {
        self.check_open()?;
        let job = self.reactor.spawn(command, Token::default())?;
        self.add(job)
    }

    /// Does something with a job that was just started. If that fails, the job is killed.
    pub(super) fn begin<T>(
        &mut self,
        progress: Arc<Progress>,
        then: impl FnOnce(&mut Self, JobId) -> Result<T>,
    ) -> Result<(Arc<Progress>, T)> {
        let job = progress.id();
        match then(self, job) {
            Ok(done) => Ok((progress, done)),
            Err(error) => {
                // Once it has ended, it is removed as one that nobody has a handle of. Its host has
                // no other way to deal with its end.
                if let Some(entry) = self.jobs.get_mut(&job) {
                    entry.acknowledged = true;
                }
                let _ = self.reactor.kill(job);
                self.let_go(job);
                Err(error)
            }
        }
    }

    fn add(&mut self, job: JobId) -> Result<Arc<Progress>> {
        let progress = Arc::new(Progress::new(job, self.reactor.status(job)?.pid));
        let entry = Entry { progress: Arc::clone(&progress), handles: 1, acknowledged: false };
        self.jobs.insert(job, entry);
        Ok(progress)
    }

    /// Begins to look for what earlier hosts have left.
    pub(super) fn recovery(&mut self, pidfds: Vec<OwnedFd>) -> Result<Recovery> {
        self.check_open()?;
        self.reactor.recovery_with(pidfds)
    }

    /// Takes over the next job of a recovery.
    pub(super) fn recover(
        &mut self,
        recovery: &mut Recovery,
    ) -> Result<Option<(Recovered, Arc<Progress>)>> {
        self.check_open()?;
        let Some(recovered) = self.reactor.recover(recovery, Token::default())? else {
            return Ok(None);
        };
        let progress = self.add(recovered.job)?;
        Ok(Some((recovered, progress)))
    }

    /// The host has dealt with the end of a job.
    pub(super) fn acknowledge(&mut self, job: JobId) -> Result<()> {
        let entry = self.jobs.get_mut(&job).ok_or(JobError::Unknown(job))?;
        if entry.progress.end().is_none() {
            return Err(JobError::NotFinished(job).into());
        }
        entry.acknowledged = true;
        Ok(())
    }

    /// What another handle of a job needs, if there is such a job.
    pub(super) fn find(&mut self, job: JobId) -> Option<Arc<Progress>> {
        let entry = self.jobs.get_mut(&job)?;
        entry.handles += 1;
        Some(Arc::clone(&entry.progress))
    }

    /// The same for each job.
    pub(super) fn all(&mut self) -> Vec<Arc<Progress>> {
        let handle = |entry: &mut Entry| {
            entry.handles += 1;
            Arc::clone(&entry.progress)
        };
        self.jobs.values_mut().map(handle).collect()
    }

    /// The last clone of a handle of a job is gone.
    pub(super) fn let_go(&mut self, job: JobId) {
        if let Some(entry) = self.jobs.get_mut(&job) {
            entry.handles -= 1;
            self.remove_unused(job);
        }
    }

    /// Begins a sweep.
    pub(super) fn sweep(&mut self, reply: Sender<Arc<Swept>>) -> Result<()> {
        let token = self.sweep;
        self.reactor.sweep(token)?;
        self.sweep = Token(token.0.wrapping_add(1));
        self.sweeps.insert(token, reply);
        Ok(())
    }

    /// Removes a job that is finished and has no handle. A shutdown reports on it first.
    fn remove_unused(&mut self, job: JobId) {
        let unused = |entry: &Entry| {
            let dealt_with = entry.acknowledged || !self.reactor.survives(job);
            entry.handles == 0 && entry.progress.end().is_some() && dealt_with
        };
        if self.ending.is_none() && self.jobs.get(&job).is_some_and(unused) {
            self.jobs.remove(&job);
            // That its log cannot be removed is of no interest to anybody any more.
            let _ = self.reactor.remove(job);
        }
    }

    /// Begins to end, or ends sooner.
    pub(super) fn shut_down(
        &mut self,
        how: Shutdown,
        until: Option<Instant>,
        reply: Sender<Vec<Status>>,
    ) {
        let running: Vec<JobId> =
            self.reactor.jobs().filter(|job| self.reactor.is_attached(*job)).collect();
        for job in &running {
            // Each is known, and a failure to signal is in the report of the job.
            let _ = match how {
                Shutdown::Stop => self.reactor.stop(*job),
                Shutdown::StopWithin(grace) => self.reactor.stop_within(*job, grace),
                Shutdown::Kill => self.reactor.kill(*job),
            };
        }
        let ending = self.ending.get_or_insert_with(|| Ending {
            jobs: running,
            until,
            killed: None,
            replies: Vec::new(),
        });
        ending.until = ending.until.into_iter().chain(until).min();
        ending.replies.push(reply);
    }
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without a text").to_owned()
}
