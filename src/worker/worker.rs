//! Owns [`Worker`]: the way in for a host with threads.
//!
//! Knows nothing of the loop but what it is asked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::command::Command;
use crate::error::Result;
use crate::event::Status;
use crate::reactor::{Census, Config, Reactor};
use crate::worker::client::Client;
use crate::worker::job::Job;
use crate::worker::reply::reply;
use crate::worker::shutdown::Shutdown;
use crate::worker::wait::block_on;

/// A [`Reactor`] on a thread of its own, for hosts that have threads or a runtime of their own; see
/// the [module](crate::worker).
///
/// A worker can be cloned, sent and shared: all clones are the same. Calls that ask the thread for
/// something block until it has handled the request, which takes one turn of its loop.
///
/// # The end
/// The thread, named `jobworker`, lives as long as there is a `Worker`, or a
/// [`Job`] or [`Output`](crate::worker::Output) of it. Dropping the last of them ends
/// it as dropping a reactor does: every job that is not
/// [detached](Command::detached) is killed, and the drop waits up to five seconds until they are
/// gone. [`shutdown`](Self::shutdown) ends it sooner, and more gently.
///
/// However it ends, by a panic as well, every thread and task that waits for it is woken and given
/// an [`Error::Worker`](crate::Error::Worker), and so is every later call. Reports of jobs that
/// were finished before stay available.
///
/// # Forks
/// In a process that the host forks, handles can only be dropped, which does nothing there. All
/// calls fail with [`SystemError::Forked`](crate::SystemError::Forked).
///
/// ```
/// use jobworker::{Command, Worker};
///
/// let worker = Worker::new()?;
/// let threads: Vec<_> = (0..4)
///     .map(|number: i32| {
///         let worker = worker.clone();
///         std::thread::spawn(move || {
///             let script = format!("exit {number}");
///             worker.spawn(Command::new("sh").args(["-c", &script]))?.wait()
///         })
///     })
///     .collect();
/// for (number, thread) in (0..).zip(threads) {
///     assert_eq!(thread.join().unwrap()?.exit.code(), Some(number));
/// }
/// # Ok::<(), jobworker::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Worker {
    client: Arc<Client>,
}

impl Worker {
    /// A worker with the default [`Config`].
    ///
    /// # Errors
    /// As for [`with_config`](Self::with_config).
    pub fn new() -> Result<Self> {
        Self::with_config(&Config::new())
    }

    /// A worker with this configuration. Blocks for as long as [`Reactor::with_config`], and until
    /// there is a thread.
    ///
    /// # Errors
    /// As for [`Reactor::with_config`]; [`Error::System`](crate::Error::System) (`Loop`) when no
    /// thread can be started.
    pub fn with_config(config: &Config) -> Result<Self> {
        let (worker, _) = Self::from_reactor(Reactor::with_config(config)?)?;
        Ok(worker)
    }

    /// Moves a reactor to a thread of its own, and returns a handle for each of its jobs, in no
    /// particular order.
    ///
    /// Events that were not polled are not lost for the handles. Tails that the reactor has are
    /// not read any more.
    ///
    /// ```
    /// use jobworker::{Command, Reactor, Token, Worker};
    ///
    /// let mut reactor = Reactor::new()?;
    /// let id = reactor.spawn(&Command::new("true"), Token(1))?;
    /// let (worker, jobs) = Worker::from_reactor(reactor)?;
    /// assert_eq!(jobs[0].id(), id);
    /// assert!(jobs[0].wait()?.exit.success());
    /// # drop(worker);
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::System`](crate::Error::System) (`Loop`) when no thread can be started. The reactor
    /// is dropped.
    pub fn from_reactor(reactor: Reactor) -> Result<(Self, Vec<Job>)> {
        let (client, jobs) = Client::start(reactor)?;
        let handle = |progress| Job::new(Arc::clone(&client), progress);
        let jobs = jobs.into_iter().map(handle).collect();
        Ok((Self { client }, jobs))
    }

    /// Starts a job.
    ///
    /// The work is done on the calling thread, so that many threads can start jobs at once and the
    /// loop is not held up; the loop then takes the job over, in one turn. Blocks as
    /// [`Reactor::spawn`] does, and for that turn. The job of a command with a
    /// [parent-death signal](Command::parent_death_signal) is started by the thread of the worker,
    /// to whose end the kernel then ties the signal: every other job and log waits meanwhile.
    ///
    /// ```
    /// use jobworker::{Command, Worker};
    ///
    /// let worker = Worker::new()?;
    /// let job = worker.spawn(Command::new("echo").arg("hello"))?;
    /// assert!(job.wait()?.exit.success());
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`Reactor::spawn`]; [`Error::Worker`](crate::Error::Worker) when the worker has ended
    /// or ends before it has taken the job over. Nothing of a failed attempt is left.
    pub fn spawn(&self, command: &Command) -> Result<Job> {
        self.client.check_may_block()?;
        self.client.check()?;
        let progress = if command.parent_death_signal.is_some() {
            let command = command.clone();
            self.client.call(move |engine| engine.spawn(&command))?
        } else {
            let launched = self.client.launcher().launch(command)?;
            self.client.call(move |engine| engine.adopt(launched))?
        };
        Ok(Job::new(Arc::clone(&self.client), progress))
    }

    /// Ends the jobs that are running, then the thread, and returns what was stopped: the status of
    /// each job that was running, as it was in the end. A job without a report in it was not
    /// finished when the time was up, and was killed then.
    ///
    /// Blocks until all of them are finished, or until the time is up and they are killed, which
    /// takes up to five seconds more, as for dropping a reactor. Detached jobs are left running, as
    /// then. No job can be started from the call on. Output that was not read by then is not
    /// available from this worker any more: follow a job to its end, or [keep](Command::keep_log)
    /// its log.
    ///
    /// A second call while a first one is at work stops the jobs that are left in its own way, uses
    /// the shorter of the two timeouts, and returns the same. Once the worker was shut down, there
    /// is nothing to stop.
    ///
    /// ```
    /// use jobworker::{Command, StopCause, Worker};
    /// use jobworker::worker::Shutdown;
    /// use std::time::Duration;
    ///
    /// let worker = Worker::new()?;
    /// let job = worker.spawn(Command::new("sleep").arg("1000"))?;
    /// let stopped = worker.shutdown(Shutdown::Stop, Duration::from_secs(10))?;
    /// assert_eq!(stopped[0].id, job.id());
    /// assert_eq!(job.wait()?.stopped_by, Some(StopCause::Stop));
    /// assert!(worker.shutdown(Shutdown::Kill, Duration::ZERO)?.is_empty());
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Worker`](crate::Error::Worker) when the thread has panicked or failed.
    pub fn shutdown(&self, how: Shutdown, timeout: Duration) -> Result<Vec<Status>> {
        self.client.check_may_block()?;
        let until = Instant::now().checked_add(timeout);
        let (sender, mut receiver) = reply();
        let posted = self.client.post(move |engine| engine.shut_down(how, until, sender));
        let stopped = posted
            .and_then(|()| {
                let stopped = block_on(None, |cx| receiver.poll(cx)).flatten();
                stopped.ok_or_else(|| self.client.why())
            })
            .or_else(Client::nothing_if_shut_down)?;
        self.client.join();
        Ok(stopped)
    }

    /// The number of objects that the worker holds, for tests and metrics. A job that is finished
    /// is held as long as it has a handle.
    ///
    /// # Errors
    /// [`Error::Worker`](crate::Error::Worker) when the worker has ended.
    pub fn census(&self) -> Result<Census> {
        self.client.call(|engine| Ok(engine.reactor.census()))
    }
}
