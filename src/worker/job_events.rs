//! Owns [`JobEvent`], what happens to a job, and [`JobEvents`], a subscription to it.
//!
//! Invariants: a subscriber that does not read costs no more than one that does. It gets each event
//! once, in order, or how many it has missed, and always the exit and the end. Knows nothing of how
//! they are found out.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::event::{Exit, OomCause, Report, Stallable};
use crate::id::Stream;
use crate::worker::job::Job;
use crate::worker::progress::{Found, Subscription};
use crate::worker::wait::Waiter;

/// What happens to a job of a [`Worker`](crate::Worker), from [`Job::events`].
///
/// The same as the [`Event`](crate::Event)s of a reactor, without the token that a worker has no
/// use for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum JobEvent {
    /// The main process has exited. Comes once.
    Exited(Exit),
    /// The kernel has killed processes of the job because memory ran out.
    #[non_exhaustive]
    Oom {
        /// How many processes since the last such event.
        kills: u64,
        /// Whose memory limit was exceeded.
        cause: OomCause,
    },
    /// Processes of the job were stalled for this resource for as long as [`Job::watch_pressure`]
    /// asked for.
    Pressure(Stallable),
    /// This log of the job has become longer than its [`log_limit`](crate::Command::log_limit).
    LogLimit(Stream),
    /// Every process of the job is frozen.
    Frozen,
    /// The job runs again.
    Thawed,
    /// Every process of the job is gone, but for those that its [`EndPolicy`](crate::EndPolicy)
    /// leaves running, and its log is final. This is the last event, and comes
    /// once.
    Finished(Arc<Report>),
    /// This many events came in this place and were dropped, because the subscriber was too slow.
    /// Neither `Exited` nor `Finished` is ever among them.
    Missed(u64),
}

/// A subscription to what happens to a job, from [`Job::events`].
///
/// A thread reads it by [`wait`](Self::wait) and [`wait_timeout`](Self::wait_timeout), a task by
/// [`poll_next`](Self::poll_next) or, with the feature `futures-io`, as a `Stream`. It can be
/// dropped at any time, and counts as a handle of the job.
///
/// # What it costs
/// The newest 64 events of a job are held for all of its subscribers together. One that falls
/// further behind gets [`JobEvent::Missed`], but never misses the exit of the main process or the
/// end. While nothing happens, nobody is woken.
///
/// ```
/// use jobworker::worker::JobEvent;
/// use jobworker::{Command, Worker};
///
/// let worker = Worker::new()?;
/// let job = worker.spawn(Command::new("sleep").arg("1000"))?;
/// let mut events = job.events();
/// job.freeze()?;
/// while let Some(event) = events.wait()? {
///     match event {
///         JobEvent::Frozen => job.kill()?,
///         JobEvent::Exited(exit) => println!("{exit}"),
///         JobEvent::Finished(report) => assert!(report.killed),
///         other => println!("{other:?}"),
///     }
/// }
/// # Ok::<(), jobworker::Error>(())
/// ```
#[derive(Debug)]
pub struct JobEvents {
    job: Job,
    waiter: Arc<Waiter>,
    subscription: Subscription,
    ended: bool,
}

impl JobEvents {
    pub(super) fn new(job: Job) -> Self {
        let subscription = match job.client().check_process() {
            Ok(()) => job.progress().subscribe(),
            // Each read will say so. The lock may be held by a thread that is not there.
            Err(_) => Subscription::default(),
        };
        Self { job, waiter: Arc::default(), subscription, ended: false }
    }

    /// The job that it is about.
    #[must_use]
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// Blocks until there is an event; `None` after the last one, and after an error.
    ///
    /// # Errors
    /// [`Error::Worker`](crate::Error::Worker) when the worker has ended before the job was
    /// finished.
    pub fn wait(&mut self) -> Result<Option<JobEvent>> {
        let next = self.wait_until(None)?;
        debug_assert!(next.is_some() || self.ended, "a wait without a timeout has no other end");
        Ok(next)
    }

    /// Like [`wait`](Self::wait), but waits for at most `timeout`; `None` also when there was no
    /// event by then. A timeout of zero does not block, and one that is longer than the clock can
    /// tell never ends.
    ///
    /// After [`JobEvent::Finished`] and after an error it returns at once: leave the loop then.
    ///
    /// # Errors
    /// As for [`wait`](Self::wait).
    pub fn wait_timeout(&mut self, timeout: Duration) -> Result<Option<JobEvent>> {
        self.wait_until(Instant::now().checked_add(timeout))
    }

    fn wait_until(&mut self, until: Option<Instant>) -> Result<Option<JobEvent>> {
        let job = self.job.clone();
        let next = job.client().block_on(until, |cx| self.poll_next(cx))?;
        next.flatten().transpose()
    }

    /// The next event for a task, which is woken when there is one; `None` after
    /// [`JobEvent::Finished`], and after an error.
    ///
    /// A task can stop waiting at any time: nothing was taken. Does not block.
    ///
    /// ```
    /// use jobworker::worker::{Job, JobEvent};
    /// use std::future::poll_fn;
    ///
    /// /// How often the job was stalled for what it watches.
    /// async fn stalls(job: &Job) -> Result<u64, jobworker::Error> {
    ///     let (mut events, mut count) = (job.events(), 0);
    ///     while let Some(event) = poll_fn(|cx| events.poll_next(cx)).await {
    ///         if let JobEvent::Pressure(_) = event? {
    ///             count += 1;
    ///         }
    ///     }
    ///     Ok(count)
    /// }
    /// # let _ = stalls;
    /// ```
    ///
    /// # Errors
    /// As for [`wait`](Self::wait).
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<JobEvent>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let next = self.poll_open(cx);
        if matches!(next, Poll::Ready(Err(_) | Ok(JobEvent::Finished(_)))) {
            self.ended = true;
            self.waiter.clear();
        }
        next.map(Some)
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Result<JobEvent>> {
        let client = self.job.client();
        client.check_process()?;
        self.waiter.set(cx.waker());
        match self.job.progress().next_or_wait(&mut self.subscription, &self.waiter) {
            Found::Event(event) => Poll::Ready(Ok(event)),
            Found::Nothing => Poll::Pending,
            Found::Lost => Poll::Ready(Err(client.why())),
        }
    }
}

impl Drop for JobEvents {
    fn drop(&mut self) {
        // In a forked process the lock may be held by a thread that is not there.
        if self.job.client().check_process().is_ok() {
            self.job.progress().unsubscribe(&self.subscription);
        }
    }
}
