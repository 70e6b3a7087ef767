//! Owns [`Worker`]: the way in for a host with threads.
//!
//! Knows nothing of the loop but what it is asked.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::command::{Command, Limits};
use crate::error::{Error, Result};
use crate::event::{Report, Stall, Stallable, Status, Swept};
use crate::id::{JobId, Token};
use crate::job::Containment;
use crate::log::{Position, Read, TailOptions};
use crate::reactor::{Census, Config};
use crate::worker::client::Client;
use crate::worker::engine::Engine;
use crate::worker::job::Job;
use crate::worker::layer0::Reactor;
use crate::worker::output::Output;
use crate::worker::progress::Progress;
use crate::worker::recovered_jobs::RecoveredJobs;
use crate::worker::reply::reply;
use crate::worker::shutdown::Shutdown;
use crate::worker::wait::block_on;
use crate::worker::worker_events::WorkerEvents;

/// A [`Reactor`] on a thread of its own, for hosts that have threads or a runtime of their own; see
/// the [module](crate::worker).
///
/// A worker can be cloned, sent and shared: all clones are the same. Calls that ask the thread for
/// something block until it has handled the request, which takes one turn of its loop.
///
/// # The end
/// The thread, named `jobworker`, lives as long as there is a `Worker`, or a [`Job`], an
/// [`Output`](crate::worker::Output) or a subscription of it. Dropping the last of them ends it as
/// dropping a reactor does: every job that is neither [detached](Command::detached) nor
/// [survives](Command::survives) its host is killed, and the drop waits up to five seconds until
/// they are gone. [`shutdown`](Self::shutdown) ends it sooner, and more gently.
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
        let (worker, _) = Reactor::with_config(config)?.into_worker()?;
        Ok(worker)
    }

    /// A handle, which the loop has counted.
    fn handle(&self, progress: Arc<Progress>) -> Job {
        Job::new(Arc::clone(&self.client), progress)
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
        Ok(self.start(command, |_, _| Ok(()))?.0)
    }

    /// Starts a job and opens a reader of its output in one step: no [shutdown](Self::shutdown)
    /// comes in between, after which nobody could open it any more.
    ///
    /// ```
    /// use jobworker::{Command, Position, Worker};
    /// use std::io::Read;
    ///
    /// let worker = Worker::new()?;
    /// let command = Command::new("date");
    /// let (job, mut output) = worker.spawn_with_output(&command, Position::Start)?;
    /// let mut text = String::new();
    /// output.read_to_string(&mut text)?;
    /// assert!(job.wait()?.exit.success());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As for [`spawn`](Self::spawn) and [`Job::output`]. A job whose output cannot be opened is
    /// killed.
    pub fn spawn_with_output(
        &self,
        command: &Command,
        options: impl Into<TailOptions>,
    ) -> Result<(Job, Output)> {
        let (reader, options) = (Arc::default(), options.into());
        let of_loop = Arc::clone(&reader);
        let (job, opened) = self.start(command, move |engine, job| {
            engine.outputs.open(&mut engine.reactor, job, options, of_loop)
        })?;
        let output = Output::new(reader, job.clone(), options, opened);
        Ok((job, output))
    }

    /// Starts a job, and does something with it in the turn in which the loop takes it over.
    fn start<T: Send + 'static>(
        &self,
        command: &Command,
        then: impl FnOnce(&mut Engine, JobId) -> Result<T> + Send + 'static,
    ) -> Result<(Job, T)> {
        self.client.check_may_block()?;
        self.client.check()?;
        let (progress, done) = if command.parent_death_signal.is_some() {
            let command = command.clone();
            self.client.call(move |engine| {
                let progress = engine.spawn(&command)?;
                engine.begin(progress, then)
            })?
        } else {
            let launcher = self.client.launcher()?;
            let launched = launcher.launch(command)?;
            self.client.call(move |engine| {
                let progress = engine.adopt(launched)?;
                engine.begin(progress, then)
            })?
        };
        Ok((self.handle(progress), done))
    }

    /// A handle for each job: of those that are running, and of those that are finished and have
    /// another handle. In no particular order.
    ///
    /// ```
    /// use jobworker::{Command, Worker};
    ///
    /// let worker = Worker::new()?;
    /// worker.spawn(Command::new("sleep").arg("1000"))?;
    /// for job in worker.jobs()? {
    ///     println!("{}", job.status()?);
    ///     job.stop()?;
    /// }
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Worker`](crate::Error::Worker) when the worker has ended.
    pub fn jobs(&self) -> Result<Vec<Job>> {
        let all = self.client.call(|engine| Ok(engine.all()))?;
        Ok(all.into_iter().map(|progress| self.handle(progress)).collect())
    }

    /// A handle for the job with this UUID, as [`Reactor::find`]: `None` when it is finished and
    /// had no handle any more.
    ///
    /// ```
    /// use jobworker::{Command, Worker};
    ///
    /// let worker = Worker::new()?;
    /// let uuid = worker.spawn(Command::new("sleep").arg("1000"))?.id().uuid();
    /// let job = worker.find(uuid)?.expect("it is running, although it has no handle");
    /// assert_eq!(job.id().uuid(), uuid);
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Worker`](crate::Error::Worker) when the worker has ended.
    pub fn find(&self, uuid: Uuid) -> Result<Option<Job>> {
        let found = self.client.call(move |engine| Ok(engine.find(JobId::new(uuid))))?;
        Ok(found.map(|progress| self.handle(progress)))
    }

    /// How the processes of a job are held together, as [`Reactor::containment`]. Asks nobody.
    #[must_use]
    pub fn containment(&self) -> Containment {
        self.client.containment()
    }

    /// Creates cgroups with these limits in advance, as [`Reactor::prepare`]. The work is done on
    /// the calling thread.
    ///
    /// # Errors
    /// As for [`Reactor::prepare`]; [`Error::Worker`](crate::Error::Worker) when the worker has
    /// ended.
    pub fn prepare(&self, limits: &Limits, count: usize) -> Result<()> {
        self.client.check_may_block()?;
        self.client.check()?;
        self.client.launcher()?.prepare(limits, count)
    }

    /// Removes what dead hosts have left behind, as [`Reactor::sweep`], and returns what that was.
    ///
    /// Blocks until it is done, which can take several seconds: the loop works at it in its turns,
    /// and killed processes have to die.
    ///
    /// ```
    /// use jobworker::Worker;
    ///
    /// let worker = Worker::new()?;
    /// let swept = worker.sweep()?;
    /// println!("removed {} cgroups of dead hosts", swept.cgroups.len());
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`Reactor::sweep`]; [`Error::Worker`](crate::Error::Worker) when the worker has ended
    /// or ends before it is done.
    pub fn sweep(&self) -> Result<Arc<Swept>> {
        let (sender, mut receiver) = reply();
        self.client.call(move |engine| engine.sweep(sender))?;
        let swept = block_on(None, |cx| receiver.poll(cx)).flatten();
        swept.ok_or_else(|| self.client.why())
    }

    /// Takes over the jobs that earlier hosts of this [name](Config::name) have left, as
    /// [`Reactor::recover`], with pidfds that somebody has held meanwhile, as
    /// [`Reactor::recovery_with`].
    ///
    /// Blocks for a turn of the loop for each job, so that other jobs are not held up.
    ///
    /// ```
    /// use jobworker::{Command, Config, Worker};
    ///
    /// let mut config = Config::new();
    /// config.name(&format!("worker-{}", std::process::id()));
    /// let worker = Worker::with_config(&config)?;
    /// worker.spawn(Command::new("sleep").arg("1000").survives(true))?;
    /// // As if the host had died.
    /// drop(worker);
    ///
    /// let worker = Worker::with_config(&config)?;
    /// for (found, job) in worker.recover([])?.jobs {
    ///     println!("{}: {:?}", found.command, found.found);
    ///     job.kill()?;
    ///     job.wait()?;
    ///     job.acknowledge()?;
    /// }
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`Reactor::recovery`]; [`Error::Worker`](crate::Error::Worker) when the worker has
    /// ended. What concerns one job is one of the [errors](RecoveredJobs::errors) that are
    /// returned.
    pub fn recover(&self, pidfds: impl IntoIterator<Item = OwnedFd>) -> Result<RecoveredJobs> {
        let pidfds: Vec<OwnedFd> = pidfds.into_iter().collect();
        let mut recovery = self.client.call(move |engine| engine.recovery(pidfds))?;
        let mut found = RecoveredJobs::default();
        loop {
            let (back, one) = self.client.call(move |engine| {
                let one = engine.recover(&mut recovery);
                Ok((recovery, one))
            })?;
            recovery = back;
            match one {
                Ok(Some((recovered, progress))) => {
                    found.jobs.push((recovered, self.handle(progress)));
                }
                Ok(None) => return Ok(found),
                // It would come for each.
                Err(Error::Worker(error)) => return Err(error.into()),
                Err(error) => found.errors.push(error),
            }
        }
    }

    /// A subscription to what the worker reports from now on that is about none of its jobs, for a
    /// thread or a task. Asks nobody.
    ///
    /// ```
    /// use jobworker::{Stall, Stallable, Worker};
    /// use std::time::Duration;
    ///
    /// let worker = Worker::new()?;
    /// let mut events = worker.events();
    /// let stall = Stall::some(Duration::from_secs(2), Duration::from_secs(2));
    /// worker.watch_system_pressure(Stallable::Io, stall)?;
    /// if let Some(event) = events.wait_timeout(Duration::from_millis(1))? {
    ///     println!("{event:?}");
    /// }
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    #[must_use]
    pub fn events(&self) -> WorkerEvents {
        WorkerEvents::new(Arc::clone(&self.client))
    }

    /// Watches the whole system for stalls, as [`Reactor::watch_system_pressure`]. They come to the
    /// worker's [events](Self::events): subscribe before.
    ///
    /// # Errors
    /// As for [`Reactor::watch_system_pressure`]; [`Error::Worker`](crate::Error::Worker).
    pub fn watch_system_pressure(&self, resource: Stallable, stall: Stall) -> Result<()> {
        self.client.call(move |engine| {
            engine.reactor.watch_system_pressure(resource, stall, Token::default())
        })
    }

    /// Ends a watch of [`watch_system_pressure`](Self::watch_system_pressure).
    ///
    /// # Errors
    /// [`Error::Worker`](crate::Error::Worker).
    pub fn unwatch_system_pressure(&self, resource: Stallable) -> Result<()> {
        self.client.call(move |engine| engine.reactor.unwatch_system_pressure(resource))
    }

    /// Starts a job, blocks until it is finished, and returns its report and the first `most` bytes
    /// of its output, as [`std::process::Command::output`] does.
    ///
    /// If there was more, [`Report::output_bytes`](crate::Report::output_bytes) says how much; for
    /// the rest, or only the last lines, use [`spawn`](Self::spawn) and [`Job::output`]. Of
    /// [`Output::Split`](crate::Output::Split) it returns standard output, and nothing for a job
    /// without a log. A standard input that is [piped](crate::Stdin::Piped) is closed at once. To
    /// wait for a bounded time, give the command a [time limit](Command::time_limit).
    ///
    /// ```
    /// use jobworker::{Command, Stdin, Worker};
    ///
    /// let worker = Worker::new()?;
    /// let mut command = Command::new("tr");
    /// command.args(["a-z", "A-Z"]).stdin(Stdin::bytes("hello"));
    /// let (report, output) = worker.run(&command, 1 << 20)?;
    /// assert!(report.exit.success());
    /// assert_eq!(output, b"HELLO");
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`spawn`](Self::spawn), [`Job::wait`] and [`Job::output`]. A job that has failed is
    /// none: its report says so. When its output cannot be read, the job has ended all the same.
    pub fn run(&self, command: &Command, most: usize) -> Result<(Arc<Report>, Vec<u8>)> {
        let job = self.spawn(command)?;
        drop(job.take_stdin()?);
        let report = job.wait()?;
        let mut bytes = Vec::new();
        if command.output.has_log() {
            let mut output = job.output(TailOptions::new(Position::Start).snapshot())?;
            let mut buffer = vec![0; most.min(64 * 1024)];
            while bytes.len() < most {
                let room = buffer.len().min(most - bytes.len());
                match output.read_timeout(&mut buffer[..room], Duration::MAX)? {
                    Read::Data(length) => bytes.extend_from_slice(&buffer[..length]),
                    // Somebody has written to the log of a finished job: what is in there now.
                    Read::Truncated => bytes.clear(),
                    // It is still being given back, or somebody else does so.
                    Read::Skipped { .. } => {}
                    Read::Replaced { .. } | Read::UpToDate | Read::Ended => break,
                }
            }
        }
        Ok((report, bytes))
    }

    /// Ends the jobs that are running, then the thread, and returns what was stopped: the status of
    /// each job that was running, as it was in the end. A job without a report in it has not died
    /// although it was killed.
    ///
    /// Blocks until all of them are finished. When the time is up, those that are not are killed,
    /// and have up to five seconds more to die, as when a reactor is dropped: with a timeout that
    /// is as long as their [grace period](Command::grace), or longer, each has all of that. Jobs
    /// that are detached or survive their host are left running, as then. No job can be started
    /// from the call on.
    ///
    /// No reader is cut off: an open [`Output`](crate::worker::Output) reads the log of a job that
    /// has finished to its end, after the worker and the file are gone. A log that nobody has
    /// opened by then is removed, unless it is [kept](Command::keep_log): threads that start jobs
    /// while others shut down use [`spawn_with_output`](Self::spawn_with_output).
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

    /// The message of [`Reactor::keeper_problem`]: why the [keeper](crate::Config::keeper) is not
    /// there, or does not take what it is given.
    ///
    /// # Errors
    /// [`Error::Worker`](crate::Error::Worker) when the worker has ended.
    pub fn keeper_problem(&self) -> Result<Option<String>> {
        let message = |reactor: &Reactor| reactor.keeper_problem().map(ToString::to_string);
        self.client.call(move |engine| Ok(message(&engine.reactor)))
    }
}

/// The way from layer 0 to layer 1.
impl Reactor {
    /// Moves the reactor to a thread of its own, and returns a handle for each of its jobs, in no
    /// particular order.
    ///
    /// Events that were not polled are not lost for the handles. Tails that the reactor has are
    /// not read any more.
    ///
    /// ```
    /// use jobworker::{Command, Reactor, Token};
    ///
    /// let mut reactor = Reactor::new()?;
    /// let id = reactor.spawn(&Command::new("true"), Token(1))?;
    /// let (worker, jobs) = reactor.into_worker()?;
    /// assert_eq!(jobs[0].id(), id);
    /// assert!(jobs[0].wait()?.exit.success());
    /// # drop(worker);
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::System`](crate::Error::System) (`Loop`) when no thread can be started. The reactor
    /// is dropped.
    pub fn into_worker(self) -> Result<(Worker, Vec<Job>)> {
        let (client, jobs) = Client::start(self)?;
        let worker = Worker { client };
        let jobs = jobs.into_iter().map(|progress| worker.handle(progress)).collect();
        Ok((worker, jobs))
    }
}

#[cfg(all(test, jobworker_loom))]
mod models {
    use super::*;
    use crate::error::WorkerError;
    use crate::sync::{check, thread};
    use crate::worker::model::{Failure, Reactor};

    #[test]
    fn all_who_shut_down_are_told_what_was_stopped_once_it_is_gone() {
        check(Some(2), || {
            let (reactor, kernel) = Reactor::of_model(1);
            let (worker, jobs) = reactor.into_worker().unwrap();
            let (other, of_other) = (worker.clone(), Arc::clone(&kernel));
            let other = thread::spawn(move || {
                let stopped = other.shutdown(Shutdown::Kill, Duration::MAX).unwrap();
                assert!(of_other.is_reactor_gone());
                stopped.len()
            });
            let stopped = worker.shutdown(Shutdown::Stop, Duration::MAX).unwrap();
            assert!(kernel.is_reactor_gone());
            // Whoever comes when all is over finds nothing to stop, but never both.
            let told = [stopped.len(), other.join().unwrap()];
            assert!([[1, 1], [1, 0], [0, 1]].contains(&told), "{told:?}");
            assert!(jobs[0].report().is_some());
        });
    }

    #[test]
    fn whoever_waits_for_a_job_is_told_when_the_worker_is_shut_down() {
        check(Some(2), || {
            let (reactor, _kernel) = Reactor::of_model(1);
            let (worker, mut jobs) = reactor.into_worker().unwrap();
            let job = jobs.remove(0);
            let waiting = thread::spawn(move || job.wait());
            worker.shutdown(Shutdown::Kill, Duration::MAX).unwrap();
            assert!(waiting.join().unwrap().is_ok());
        });
    }

    #[test]
    fn nobody_waits_for_a_loop_that_has_failed() {
        for failure in [Failure::Error, Failure::Panic] {
            check(Some(2), move || {
                let (reactor, kernel) = Reactor::of_model(1);
                let (worker, mut jobs) = reactor.into_worker().unwrap();
                let job = jobs.remove(0);
                let waiting = thread::spawn(move || job.wait());
                kernel.fail(failure);
                let stopped = worker.shutdown(Shutdown::Kill, Duration::MAX);
                // It may have been shut down before it could fail.
                let failed = |error: &Error| {
                    let Error::Worker(error) = error else { return false };
                    matches!(error, WorkerError::Failed { .. } | WorkerError::Panicked { .. })
                };
                assert!(stopped.as_ref().err().is_none_or(failed), "{stopped:?}");
                let waited = waiting.join().unwrap();
                assert!(waited.as_ref().err().is_none_or(failed), "{waited:?}");
            });
        }
    }

    #[test]
    fn the_thread_is_gone_when_the_last_handle_is() {
        check(Some(2), || {
            let (reactor, kernel) = Reactor::of_model(1);
            let (worker, mut jobs) = reactor.into_worker().unwrap();
            let job = jobs.remove(0);
            let thread = thread::spawn(move || drop(job));
            drop(worker);
            thread.join().unwrap();
            assert!(kernel.is_reactor_gone());
        });
    }
}
