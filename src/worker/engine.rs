//! Owns [`Engine`]: the thread of a worker, with the reactor and all that belongs to it.
//!
//! Invariants: everything here is used by this thread alone. Whichever way the loop ends, everybody
//! who waits for it is woken before the reactor is dropped. Knows nothing of handles but whether
//! there are any.

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::command::Command;
use crate::error::{Result, WorkerError};
use crate::event::{Event, Events, Status};
use crate::id::{JobId, Token};
use crate::job::Launched;
use crate::reactor::Reactor;
use crate::worker::mailbox::{Mail, Mailbox};
use crate::worker::outputs::Outputs;
use crate::worker::progress::{End, Progress};
use crate::worker::reply::Sender;
use crate::worker::shutdown::Shutdown;

/// How many events are handled in one turn.
const EVENTS_PER_TURN: usize = 256;

/// The state of the loop.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) reactor: Reactor,
    pub(super) outputs: Outputs,
    jobs: HashMap<JobId, Entry>,
    ending: Option<Ending>,
}

/// One job.
#[derive(Debug)]
struct Entry {
    progress: Arc<Progress>,
    /// Whether there is a handle, so that the job has to stay when it is finished.
    held: bool,
}

/// A shutdown that has begun.
#[derive(Debug)]
struct Ending {
    /// What it stops.
    jobs: Vec<JobId>,
    /// When what is left is killed.
    until: Option<Instant>,
    /// Who wants to know what was stopped.
    replies: Vec<Sender<Vec<Status>>>,
}

impl Engine {
    /// Takes over a reactor, with the jobs that it has, each of which has a handle.
    pub(super) fn new(reactor: Reactor) -> Result<(Self, Vec<Arc<Progress>>)> {
        let mut jobs = HashMap::new();
        for id in reactor.jobs() {
            let status = reactor.status(id)?;
            let progress = Arc::new(Progress::new(id, status.pid));
            if let Some(report) = status.report {
                progress.set_end(End::Finished(report)).wake();
            }
            jobs.insert(id, Entry { progress, held: true });
        }
        let known = jobs.values().map(|entry| Arc::clone(&entry.progress)).collect();
        Ok((Self { reactor, outputs: Outputs::new(), jobs, ending: None }, known))
    }

    /// Runs the loop until there is nobody left, it is shut down or it fails, then tells everybody.
    pub(super) fn main(mut self, mailbox: &Mailbox) {
        let ran = catch_unwind(AssertUnwindSafe(|| self.run(mailbox)));
        let (regular, why) = match ran {
            Ok(Ok(())) => (true, WorkerError::ShutDown),
            Ok(Err(error)) => (false, WorkerError::Failed { cause: error.to_string() }),
            Err(panic) => (false, WorkerError::Panicked { message: message_of(panic.as_ref()) }),
        };
        mailbox.end(&why);
        self.outputs.lose();
        for entry in self.jobs.values() {
            entry.progress.set_end(End::Lost).wake_last();
        }
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
        loop {
            let mail = mailbox.take(&mut requests);
            for request in requests.drain(..) {
                request(self);
            }
            if mail == Mail::Deserted || self.has_ended() {
                return Ok(());
            }
            let timeout = if mail == Mail::More { Some(Duration::ZERO) } else { self.time_left() };
            self.reactor.poll(&mut events, timeout)?;
            for event in &events {
                self.handle(event);
            }
        }
    }

    fn handle(&mut self, event: &Event) {
        match event {
            Event::Readable { tail, .. } => self.outputs.readable(&mut self.reactor, *tail),
            Event::Finished { job, report, .. } => {
                let Some(entry) = self.jobs.get(job) else { return };
                let woken = entry.progress.set_end(End::Finished(Arc::clone(report)));
                self.remove_unused(*job);
                woken.wake();
            }
            // A worker has no handles that would report these, and a wake-up is one to look into
            // the mailbox.
            _ => {}
        }
    }

    /// Whether a shutdown is complete, or its time is up.
    fn has_ended(&self) -> bool {
        self.ending.as_ref().is_some_and(|ending| {
            self.reactor.attached() == 0 || ending.until.is_some_and(|at| at <= Instant::now())
        })
    }

    /// How long a shutdown may still take.
    fn time_left(&self) -> Option<Duration> {
        let until = self.ending.as_ref()?.until?;
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

    fn add(&mut self, job: JobId) -> Result<Arc<Progress>> {
        let progress = Arc::new(Progress::new(job, self.reactor.status(job)?.pid));
        self.jobs.insert(job, Entry { progress: Arc::clone(&progress), held: true });
        Ok(progress)
    }

    /// The last handle of a job is gone.
    pub(super) fn let_go(&mut self, job: JobId) {
        if let Some(entry) = self.jobs.get_mut(&job) {
            entry.held = false;
            self.remove_unused(job);
        }
    }

    /// Removes a job that is finished and has no handle. A shutdown reports on it first.
    fn remove_unused(&mut self, job: JobId) {
        let unused = |entry: &Entry| !entry.held && entry.progress.end().is_some();
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
        let ending =
            self.ending.get_or_insert_with(|| Ending { jobs: running, until, replies: Vec::new() });
        ending.until = ending.until.into_iter().chain(until).min();
        ending.replies.push(reply);
    }
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without a text").to_owned()
}
