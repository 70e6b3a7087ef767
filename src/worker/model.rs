//! Owns a model of layer 0 for the model checker: [`Reactor`], with jobs and logs that are only
//! numbers and bytes, and [`Kernel`], by which a test lets something happen to them.
//!
//! Invariants: the loop waits in one place, by the real [`Waker`] over a model of its eventfd, and
//! time does not pass. Between two waits it knows what the kernel knows. What no model uses is not
//! modelled, and panics. Knows nothing of layer 1.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, PipeWriter};
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use uuid::Uuid;

use crate::command::Command;
use crate::driver::{Eventfd, Waker};
use crate::error::{Error, Result, TailError};
use crate::event::{Event, Events, Exit, Phase, Report, Status};
use crate::id::{JobId, Slots, TailId, Token};
use crate::job::Containment;
use crate::log::{Excerpt, Fill, Mark, Published, TailOptions};
use crate::reactor::Config;

/// A reactor without a system.
#[derive(Debug)]
pub struct Reactor {
    kernel: Arc<Kernel>,
    waker: Waker,
    launcher: Arc<Launcher>,
    /// With the reports of those that are finished.
    jobs: BTreeMap<JobId, Option<Arc<Report>>>,
    /// Jobs that end in the next turn.
    ending: VecDeque<JobId>,
    tails: Slots<Tail>,
    /// What was read last.
    window: Vec<u8>,
}

#[derive(Debug)]
struct Tail {
    job: JobId,
    token: Token,
    offset: usize,
    follow: bool,
    /// Whether it was told that there is nothing more.
    waits: bool,
}

/// Starts nothing.
#[derive(Debug)]
pub(crate) struct Launcher;

/// A log.
#[derive(Debug)]
pub(crate) struct LogFile {
    kernel: Arc<Kernel>,
    job: JobId,
}

impl LogFile {
    pub(crate) fn path(&self) -> &Path {
        Path::new("a log of the model")
    }

    pub(crate) fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.kernel.state();
        let log = state.logs.get(&self.job).map_or(&[][..], Vec::as_slice);
        let rest = &log[usize::try_from(offset).unwrap().min(log.len())..];
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }
}

impl AsFd for LogFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        unreachable!("not modelled")
    }
}

/// What happens outside of the process.
#[derive(Debug)]
pub(crate) struct Kernel {
    eventfd: Eventfd,
    // Of std: what the kernel does is a step by itself.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    logs: BTreeMap<JobId, Vec<u8>>,
    exited: VecDeque<JobId>,
    failure: Option<Failure>,
    dropped: bool,
}

/// How the loop comes to a bad end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Failure {
    Error,
    Panic,
}

impl Kernel {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn act(&self, act: impl FnOnce(&mut State)) {
        act(&mut self.state());
        self.eventfd.wake().unwrap();
    }

    /// The job writes to its log.
    pub(crate) fn write(&self, job: JobId, bytes: &[u8]) {
        self.act(|state| state.logs.entry(job).or_default().extend(bytes));
    }

    /// The job exits.
    pub(crate) fn exit(&self, job: JobId) {
        self.act(|state| state.exited.push_back(job));
    }

    /// The next turn of the loop fails.
    pub(crate) fn fail(&self, failure: Failure) {
        self.act(|state| state.failure = Some(failure));
    }

    /// Whether the reactor is gone, and with it its jobs.
    pub(crate) fn is_reactor_gone(&self) -> bool {
        self.state().dropped
    }
}

impl Reactor {
    /// A reactor with so many running jobs.
    pub(crate) fn of_model(jobs: u128) -> (Self, Arc<Kernel>) {
        let eventfd = Eventfd::alone();
        let waker = Waker::new(eventfd.clone());
        let kernel = Arc::new(Kernel { eventfd, state: Mutex::default() });
        let reactor = Self {
            kernel: Arc::clone(&kernel),
            waker,
            launcher: Arc::new(Launcher),
            jobs: (0..jobs).map(|job| (JobId::new(Uuid::from_u128(job)), None)).collect(),
            ending: VecDeque::new(),
            tails: Slots::new(),
            window: Vec::new(),
        };
        (reactor, kernel)
    }

    pub(crate) fn containment(&self) -> Containment {
        Containment::ProcessGroup
    }

    pub(crate) fn with_config(_: &Config) -> Result<Self> {
        Ok(Self::of_model(0).0)
    }

    pub(crate) fn waker(&self) -> Waker {
        self.waker.clone()
    }

    pub(crate) fn launcher(&self) -> &Arc<Launcher> {
        &self.launcher
    }

    pub(crate) fn poll(&mut self, events: &mut Events, timeout: Option<Duration>) -> Result<()> {
        events.clear();
        self.settle(events)?;
        while events.is_empty() {
            // A shutdown that has a timeout does not need it here.
            let readable = if timeout == Some(Duration::ZERO) {
                self.kernel.eventfd.take()
            } else {
                self.kernel.eventfd.wait();
                true
            };
            if readable && self.waker.take() {
                events.push(Event::Woken);
            }
            self.settle(events)?;
            if timeout == Some(Duration::ZERO) {
                break;
            }
        }
        Ok(())
    }

    fn settle(&mut self, events: &mut Events) -> Result<()> {
        let kernel = Arc::clone(&self.kernel);
        let mut state = kernel.state();
        let failure = state.failure.take();
        self.ending.append(&mut state.exited);
        let token = Token::default();
        for job in std::mem::take(&mut self.ending) {
            if let Some(end @ None) = self.jobs.get_mut(&job) {
                let report = Arc::new(Report::of(Exit::Code(0)));
                *end = Some(Arc::clone(&report));
                events.push(Event::Finished { job, token, report });
            }
        }
        let mut readable = Vec::new();
        for (key, tail) in self.tails.iter() {
            let end = state.logs.get(&tail.job).map_or(0, Vec::len);
            if tail.waits && (tail.offset < end || self.jobs[&tail.job].is_some()) {
                readable.push(key);
            }
        }
        drop(state);
        for key in readable {
            let tail = &mut self.tails[key];
            tail.waits = false;
            events.push(Event::Readable { tail: TailId(key), token: tail.token });
        }
        match failure {
            None => Ok(()),
            Some(Failure::Error) => {
                Err(Error::event_loop("wait for events")(io::Error::other("as the model wants it")))
            }
            // Without the message that a panic prints.
            Some(Failure::Panic) => std::panic::resume_unwind(Box::new("as the model wants it")),
        }
    }

    pub(crate) fn jobs(&self) -> impl Iterator<Item = JobId> {
        self.jobs.keys().copied()
    }

    pub(crate) fn attached(&self) -> usize {
        self.jobs.values().filter(|end| end.is_none()).count()
    }

    pub(crate) fn is_attached(&self, job: JobId) -> bool {
        self.jobs.get(&job).is_some_and(Option::is_none)
    }

    pub(crate) fn survives(&self, _: JobId) -> bool {
        false
    }

    pub(crate) fn status(&self, id: JobId) -> Result<Status> {
        let report = self.jobs[&id].clone();
        Ok(Status {
            id,
            pid: 1,
            phase: if report.is_some() { Phase::Finished } else { Phase::Running },
            exit: report.as_ref().map(|report| report.exit),
            frozen: false,
            started: SystemTime::UNIX_EPOCH,
            elapsed: Duration::ZERO,
            cgroup: None,
            output: None,
            error: None,
            output_range: None,
            error_range: None,
            report,
        })
    }

    pub(crate) fn spawn(&mut self, _: &Command, _: Token) -> Result<JobId> {
        let job = JobId::new(Uuid::from_u128(100 + self.jobs.len() as u128));
        self.jobs.insert(job, None);
        Ok(job)
    }

    pub(crate) fn remove(&mut self, job: JobId) -> Result<()> {
        assert!(self.jobs.remove(&job).is_some_and(|end| end.is_some()), "it has to be finished");
        Ok(())
    }

    pub(crate) fn stop(&mut self, job: JobId) -> Result<()> {
        self.kill(job)
    }

    pub(crate) fn stop_within(&mut self, job: JobId, _: Duration) -> Result<()> {
        self.kill(job)
    }

    pub(crate) fn kill(&mut self, job: JobId) -> Result<()> {
        self.ending.push_back(job);
        Ok(())
    }

    pub(crate) fn tail(
        &mut self,
        job: JobId,
        options: TailOptions,
        token: Token,
    ) -> Result<TailId> {
        let follow = options.follow;
        let offset = usize::try_from(options.position.offset().unwrap_or_default()).unwrap();
        Ok(TailId(self.tails.insert(Tail { job, token, offset, follow, waits: false })))
    }

    pub(crate) fn position(&self, TailId(key): TailId) -> Result<u64> {
        Ok(self.tails[key].offset as u64)
    }

    pub(crate) fn is_at_end(&self, TailId(key): TailId) -> bool {
        let tail = &self.tails[key];
        let state = self.kernel.state();
        let end = state.logs.get(&tail.job).map_or(0, Vec::len);
        tail.waits && tail.offset <= end && self.jobs[&tail.job].is_none()
    }

    pub(crate) fn fill_buf(&mut self, tail: TailId) -> Result<Fill<'_>> {
        let TailId(key) = tail;
        let tail = self.tails.get_mut(key).ok_or(TailError::Unknown(tail))?;
        let state = self.kernel.state();
        let log = state.logs.get(&tail.job).map_or(&[][..], Vec::as_slice);
        self.window = log[tail.offset.min(log.len())..].to_vec();
        let ended = !tail.follow || self.jobs[&tail.job].is_some();
        tail.waits = self.window.is_empty() && !ended;
        Ok(match (self.window.is_empty(), ended) {
            (false, _) => Fill::Data(&self.window),
            (true, true) => Fill::Ended,
            (true, false) => Fill::UpToDate,
        })
    }

    pub(crate) fn excerpt(&self, TailId(key): TailId) -> Option<Excerpt<LogFile>> {
        let tail = &self.tails[key];
        let state = self.kernel.state();
        let log = state.logs.get(&tail.job)?;
        let range = (tail.offset as u64, log.len() as u64);
        let file = LogFile { kernel: Arc::clone(&self.kernel), job: tail.job };
        let of_log = (Arc::new(file), Arc::new(Published::new()));
        (tail.offset < log.len()).then(|| Excerpt::new(of_log, range, Mark::of_last(log, 0), None))
    }

    pub(crate) fn rest(&self, TailId(key): TailId) -> Option<Excerpt<LogFile>> {
        let tail = &self.tails[key];
        self.jobs[&tail.job].as_ref()?;
        let state = self.kernel.state();
        let log = state.logs.get(&tail.job).map_or(&[][..], Vec::as_slice);
        let range = (tail.offset.min(log.len()) as u64, log.len() as u64);
        let file = LogFile { kernel: Arc::clone(&self.kernel), job: tail.job };
        let of_log = (Arc::new(file), Arc::new(Published::new()));
        Some(Excerpt::new(of_log, range, Mark::of_last(log, 0), None))
    }

    pub(crate) fn was_read(&mut self, TailId(key): TailId, offset: u64, _: Mark) {
        self.tails[key].offset = usize::try_from(offset).unwrap();
    }

    pub(crate) fn consume(&mut self, TailId(key): TailId, amount: usize) -> Result<()> {
        self.tails[key].offset += amount;
        Ok(())
    }

    pub(crate) fn close(&mut self, TailId(key): TailId) -> Result<()> {
        self.tails.remove(key);
        Ok(())
    }
}

/// Those that are named as paths have to be here, too.
impl Reactor {
    pub(crate) fn freeze(&mut self, _: JobId) -> Result<()> {
        unreachable!("not modelled")
    }

    pub(crate) fn thaw(&mut self, _: JobId) -> Result<()> {
        unreachable!("not modelled")
    }

    pub(crate) fn take_stdin(&mut self, _: JobId) -> Result<Option<PipeWriter>> {
        unreachable!("not modelled")
    }
}

/// All other methods are those of the real one, so that what uses them compiles.
impl Deref for Reactor {
    type Target = crate::reactor::Reactor;

    fn deref(&self) -> &Self::Target {
        unreachable!("not modelled")
    }
}

impl DerefMut for Reactor {
    fn deref_mut(&mut self) -> &mut Self::Target {
        unreachable!("not modelled")
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        self.kernel.state().dropped = true;
    }
}

impl Deref for Launcher {
    type Target = crate::job::Launcher;

    fn deref(&self) -> &Self::Target {
        unreachable!("not modelled")
    }
}
