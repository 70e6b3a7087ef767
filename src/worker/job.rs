//! Owns [`Job`], the handle of one job, and [`Finished`], the future of its end.
//!
//! Invariant: a job is known to the loop as long as there is a handle. Knows nothing of how jobs
//! live.

use std::fmt;
use std::io::PipeWriter;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::command::{Limits, Signal};
use crate::error::Result;
use crate::event::{Pressure, Report, Stall, Stallable, Stats, Status};
use crate::id::JobId;
use crate::job::TerminalInput;
use crate::log::TailOptions;
use crate::worker::client::Client;
use crate::worker::job_events::JobEvents;
use crate::worker::layer0::Reactor;
use crate::worker::output::Output;
use crate::worker::progress::{End, Progress};
use crate::worker::wait::{Ticket, Waiter, block_on};

/// A job of a [`Worker`](crate::Worker).
///
/// A handle can be cloned, sent and shared. Unless the documentation of a method says otherwise, it
/// asks the thread of the worker and blocks for one turn of its loop.
///
/// # Dropping handles
/// Dropping a handle never stops a job. A finished job stays, with its log, as long as there is a
/// handle, an [`Output`], a [`Finished`] or a [`JobEvents`] of it. Once the last of them is gone
/// the job is removed, and its log too unless that is to be [kept](crate::Command::keep_log); a job
/// that is still running goes on, and is removed when it is finished. A job that
/// [survives](crate::Command::survives) its host is removed only once it was
/// [acknowledged](Self::acknowledge) as well.
///
/// # Errors
/// All methods that ask the thread fail with [`Error::Worker`](crate::Error::Worker) once that has
/// ended, and with [`WorkerError::OwnThread`](crate::WorkerError::OwnThread) on that thread itself,
/// where only the wakers of the host's tasks run.
#[derive(Clone)]
pub struct Job {
    handle: Arc<Handle>,
}

/// All clones of a handle.
struct Handle {
    progress: Arc<Progress>,
    client: Arc<Client>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        let id = self.progress.id();
        // When the thread has ended, there is no job any more.
        let _ = self.client.post(move |engine| engine.let_go(id));
    }
}

impl Job {
    pub(super) fn new(client: Arc<Client>, progress: Arc<Progress>) -> Self {
        Self { handle: Arc::new(Handle { progress, client }) }
    }

    pub(super) fn client(&self) -> &Client {
        &self.handle.client
    }

    pub(super) fn progress(&self) -> &Progress {
        &self.handle.progress
    }

    fn ask<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Reactor, JobId) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let id = self.id();
        self.client().call(move |engine| act(&mut engine.reactor, id))
    }

    /// The id of the job. Asks nobody.
    #[must_use]
    pub fn id(&self) -> JobId {
        self.handle.progress.id()
    }

    /// The process id of the main process. The kernel may reuse it once that has exited. Asks
    /// nobody.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.handle.progress.pid()
    }

    /// The final report, if the job is finished. Asks nobody, and does not block.
    #[must_use]
    pub fn report(&self) -> Option<Arc<Report>> {
        match self.handle.progress.end()? {
            End::Finished(report) => Some(report),
            End::Lost => None,
        }
    }

    /// The current status, as [`Reactor::status`].
    ///
    /// # Errors
    /// [`Error::Worker`](crate::Error::Worker).
    pub fn status(&self) -> Result<Status> {
        self.ask(|reactor, id| reactor.status(id))
    }

    /// Blocks until the job is finished, and returns its report; at once if it is finished already.
    ///
    /// Any number of threads can wait. The loop wakes them all when the job is finished, and does
    /// nothing for them before.
    ///
    /// # Errors
    /// [`Error::Worker`](crate::Error::Worker) when the worker has ended before the job.
    pub fn wait(&self) -> Result<Arc<Report>> {
        match self.wait_until(None)? {
            Some(report) => Ok(report),
            None => unreachable!("a wait without a timeout has no other end"),
        }
    }

    /// Like [`wait`](Self::wait), but waits for at most `timeout`; `None` when the job is not
    /// finished by then. A timeout of zero does not block, and one that is longer than the clock
    /// can tell never ends.
    ///
    /// ```
    /// use jobworker::{Command, Worker};
    /// use std::time::Duration;
    ///
    /// let worker = Worker::new()?;
    /// let job = worker.spawn(Command::new("sleep").arg("1000"))?;
    /// assert!(job.wait_timeout(Duration::from_millis(1))?.is_none());
    /// job.kill()?;
    /// assert!(job.wait_timeout(Duration::MAX)?.is_some());
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`wait`](Self::wait).
    pub fn wait_timeout(&self, timeout: Duration) -> Result<Option<Arc<Report>>> {
        self.wait_until(Instant::now().checked_add(timeout))
    }

    fn wait_until(&self, until: Option<Instant>) -> Result<Option<Arc<Report>>> {
        self.client().check_may_block()?;
        let mut finished = self.finished();
        block_on(until, |cx| Pin::new(&mut finished).poll(cx)).transpose()
    }

    /// A future of the end of the job, for any runtime.
    ///
    /// It can be dropped at any time. It counts as a handle.
    ///
    /// ```
    /// use jobworker::{Command, Worker};
    ///
    /// async fn run(worker: &Worker) -> Result<(), jobworker::Error> {
    ///     let job = worker.spawn(&Command::new("true"))?;
    ///     assert!(job.finished().await?.exit.success());
    ///     Ok(())
    /// }
    /// # let _ = run;
    /// ```
    pub fn finished(&self) -> Finished {
        Finished { job: self.clone(), waiter: Arc::default(), ticket: None }
    }

    /// A subscription to what happens to the job from now on, for a thread or a task. Asks nobody.
    ///
    /// If the main process has exited already, that comes first, and if the job is finished, that
    /// is the last event as well.
    ///
    /// ```
    /// use jobworker::worker::JobEvent;
    /// use jobworker::{Command, Worker};
    ///
    /// let worker = Worker::new()?;
    /// let job = worker.spawn(&Command::new("true"))?;
    /// let mut events = job.events();
    /// assert!(matches!(events.wait()?, Some(JobEvent::Exited(exit)) if exit.success()));
    /// assert!(matches!(events.wait()?, Some(JobEvent::Finished(_))));
    /// assert!(events.wait()?.is_none());
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    #[must_use]
    pub fn events(&self) -> JobEvents {
        JobEvents::new(self.clone())
    }

    /// Stops the job, as [`Reactor::stop`].
    ///
    /// # Errors
    /// [`Error::Worker`](crate::Error::Worker).
    pub fn stop(&self) -> Result<()> {
        self.ask(Reactor::stop)
    }

    /// Stops the job with this grace period, as [`Reactor::stop_within`].
    ///
    /// # Errors
    /// [`Error::Worker`](crate::Error::Worker).
    pub fn stop_within(&self, grace: Duration) -> Result<()> {
        self.ask(move |reactor, id| reactor.stop_within(id, grace))
    }

    /// Kills every process of the job, as [`Reactor::kill`].
    ///
    /// # Errors
    /// [`Error::Worker`](crate::Error::Worker).
    pub fn kill(&self) -> Result<()> {
        self.ask(Reactor::kill)
    }

    /// Sends a signal to every process of the job, as [`Reactor::signal`].
    ///
    /// # Errors
    /// As for [`Reactor::signal`]; [`Error::Worker`](crate::Error::Worker).
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.ask(move |reactor, id| reactor.signal(id, signal))
    }

    /// Sends a signal only to the main process, as [`Reactor::signal_main`].
    ///
    /// # Errors
    /// As for [`Reactor::signal_main`]; [`Error::Worker`](crate::Error::Worker).
    pub fn signal_main(&self, signal: Signal) -> Result<()> {
        self.ask(move |reactor, id| reactor.signal_main(id, signal))
    }

    /// Starts to freeze the job, as [`Reactor::freeze`].
    ///
    /// # Errors
    /// As for [`Reactor::freeze`]; [`Error::Worker`](crate::Error::Worker).
    pub fn freeze(&self) -> Result<()> {
        self.ask(Reactor::freeze)
    }

    /// Lets the job run again, as [`Reactor::thaw`].
    ///
    /// # Errors
    /// As for [`Reactor::thaw`]; [`Error::Worker`](crate::Error::Worker).
    pub fn thaw(&self) -> Result<()> {
        self.ask(Reactor::thaw)
    }

    /// Changes the given limits, as [`Reactor::set_limits`].
    ///
    /// # Errors
    /// As for [`Reactor::set_limits`]; [`Error::Worker`](crate::Error::Worker).
    pub fn set_limits(&self, limits: &Limits) -> Result<()> {
        let limits = limits.clone();
        self.ask(move |reactor, id| reactor.set_limits(id, &limits))
    }

    /// The limits that the kernel enforces, as [`Reactor::limits`].
    ///
    /// # Errors
    /// As for [`Reactor::limits`]; [`Error::Worker`](crate::Error::Worker).
    pub fn limits(&self) -> Result<Limits> {
        self.ask(|reactor, id| reactor.limits(id))
    }

    /// The pidfd of the main process, as [`Reactor::pidfd`].
    ///
    /// # Errors
    /// As for [`Reactor::pidfd`]; [`Error::Worker`](crate::Error::Worker).
    pub fn pidfd(&self) -> Result<OwnedFd> {
        self.ask(|reactor, id| reactor.pidfd(id))
    }

    /// The label of a job that survives its host, as [`Reactor::label`].
    ///
    /// # Errors
    /// As for [`Reactor::label`]; [`Error::Worker`](crate::Error::Worker).
    pub fn label(&self) -> Result<Vec<u8>> {
        self.ask(|reactor, id| reactor.label(id).map(<[u8]>::to_vec))
    }

    /// Changes the label of a job that survives its host, as [`Reactor::set_label`].
    ///
    /// # Errors
    /// As for [`Reactor::set_label`]; [`Error::Worker`](crate::Error::Worker).
    pub fn set_label(&self, label: impl Into<Vec<u8>>) -> Result<()> {
        let label = label.into();
        self.ask(move |reactor, id| reactor.set_label(id, label))
    }

    /// Says that the host has dealt with the end of a job that [survives](crate::Command::survives)
    /// it, so that no host is to be told of it again: the job is removed with its last handle, as
    /// [`Reactor::remove`] does. Of any other job it changes nothing.
    ///
    /// # Errors
    /// [`Error::Job`](crate::Error::Job) (`NotFinished`); [`Error::Worker`](crate::Error::Worker).
    pub fn acknowledge(&self) -> Result<()> {
        let id = self.id();
        self.client().call(move |engine| engine.acknowledge(id))
    }

    /// What the job uses, or has used, as [`Reactor::stats`].
    ///
    /// # Errors
    /// As for [`Reactor::stats`]; [`Error::Worker`](crate::Error::Worker).
    pub fn stats(&self) -> Result<Stats> {
        self.ask(|reactor, id| reactor.stats(id))
    }

    /// How long the job was stalled for a resource, as [`Reactor::pressure`].
    ///
    /// # Errors
    /// As for [`Reactor::pressure`]; [`Error::Worker`](crate::Error::Worker).
    pub fn pressure(&self, resource: Stallable) -> Result<Pressure> {
        self.ask(move |reactor, id| reactor.pressure(id, resource))
    }

    /// Watches the job for stalls, as [`Reactor::watch_pressure`]. They come to its
    /// [events](Self::events): subscribe before.
    ///
    /// ```
    /// use jobworker::{Command, Stall, Stallable, Worker};
    /// use std::time::Duration;
    ///
    /// let worker = Worker::new()?;
    /// let job = worker.spawn(Command::new("sleep").arg("1000"))?;
    /// let mut events = job.events();
    /// let stall = Stall::some(Duration::from_millis(200), Duration::from_secs(2));
    /// job.watch_pressure(Stallable::Cpu, stall)?;
    /// assert!(events.wait_timeout(Duration::from_millis(1))?.is_none());
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`Reactor::watch_pressure`]; [`Error::Worker`](crate::Error::Worker).
    pub fn watch_pressure(&self, resource: Stallable, stall: Stall) -> Result<()> {
        self.ask(move |reactor, id| reactor.watch_pressure(id, resource, stall))
    }

    /// Ends a watch of [`watch_pressure`](Self::watch_pressure).
    ///
    /// # Errors
    /// [`Error::Worker`](crate::Error::Worker).
    pub fn unwatch_pressure(&self, resource: Stallable) -> Result<()> {
        self.ask(move |reactor, id| reactor.unwatch_pressure(id, resource))
    }

    /// Takes the host's end of the pipe that is the job's standard input, as
    /// [`Reactor::take_stdin`].
    ///
    /// Any handle can take it, once. A [`wait`](Self::wait) does not close it, for another thread
    /// may be about to take it: a job that reads to the end of its input does not end before
    /// somebody has taken the pipe and dropped it.
    ///
    /// ```
    /// use jobworker::{Command, Position, Stdin, Worker};
    /// use std::io::{Read, Write};
    ///
    /// let worker = Worker::new()?;
    /// let job = worker.spawn(Command::new("cat").stdin(Stdin::Piped))?;
    /// let mut stdin = job.take_stdin()?.unwrap();
    /// stdin.write_all(b"hello\n")?;
    /// drop(stdin);
    /// let mut text = String::new();
    /// job.output(Position::Start)?.read_to_string(&mut text)?;
    /// assert_eq!(text, "hello\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// A write blocks once the job has not read 64 KiB, the size of a pipe:
    /// [`Command::stdin_file`](crate::Command::stdin_file) and
    /// [`Stdin::Bytes`](crate::Stdin::Bytes) need nobody who writes.
    ///
    /// # Errors
    /// [`Error::Worker`](crate::Error::Worker).
    pub fn take_stdin(&self) -> Result<Option<PipeWriter>> {
        self.ask(Reactor::take_stdin)
    }

    /// Types into the job's terminal, as [`Reactor::terminal_input`].
    ///
    /// # Errors
    /// As for [`Reactor::terminal_input`]; [`Error::Worker`](crate::Error::Worker).
    pub fn terminal_input(&self) -> Result<TerminalInput> {
        self.ask(|reactor, id| reactor.terminal_input(id))
    }

    /// Changes the size of the job's terminal, as [`Reactor::resize`].
    ///
    /// # Errors
    /// As for [`Reactor::resize`]; [`Error::Worker`](crate::Error::Worker).
    pub fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        self.ask(move |reactor, id| reactor.resize(id, rows, columns))
    }

    /// Opens a log of the job for a reader, as [`Reactor::tail`]: at a
    /// [`Position`](crate::Position), to follow it to its end or as a snapshot.
    ///
    /// The offset at which it starts is fixed by this call: what the job writes afterwards is read.
    ///
    /// # Errors
    /// As for [`Reactor::tail`]; [`Error::Worker`](crate::Error::Worker).
    pub fn output(&self, options: impl Into<TailOptions>) -> Result<Output> {
        Output::open(self.clone(), options.into())
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("id", &self.id()).field("pid", &self.pid()).finish()
    }
}

/// The end of a job, as a future; from [`Job::finished`].
///
/// Its output is that of [`Job::wait`]. It can be polled again once it is ready.
#[derive(Debug)]
#[must_use = "a future does nothing unless it is awaited"]
pub struct Finished {
    job: Job,
    waiter: Arc<Waiter>,
    ticket: Option<Ticket>,
}

impl Future for Finished {
    type Output = Result<Arc<Report>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let handle = &this.job.handle;
        handle.client.check_process()?;
        this.waiter.set(cx.waker());
        let Some(end) = handle.progress.end_or_wait(&mut this.ticket, &this.waiter) else {
            return Poll::Pending;
        };
        this.waiter.clear();
        Poll::Ready(match end {
            End::Finished(report) => Ok(report),
            End::Lost => Err(handle.client.why()),
        })
    }
}

impl Drop for Finished {
    fn drop(&mut self) {
        // In a forked process the lock may be held by a thread that is not there.
        if self.ticket.is_some() && self.job.client().check_process().is_ok() {
            self.job.handle.progress.leave(self.ticket);
        }
    }
}
