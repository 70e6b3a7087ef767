//! Owns [`Event`], what a reactor reports, and [`Events`], the host's buffer for it.
//!
//! Plain data: events are returned, never called back, so no code of the host runs inside the
//! reactor.

use std::slice;
use std::sync::Arc;

use crate::event::exit::Exit;
use crate::event::pressure::Stallable;
use crate::event::report::{OomCause, Report};
use crate::event::swept::Swept;
use crate::id::{JobId, Stream, TailId, Token};

/// What happened, as returned by [`Reactor::poll`](crate::Reactor::poll).
///
/// # Order
/// The events of one job come in this order: any `Readable` of its tails, `Exited`, any `Readable`
/// of what was written last, `Finished`. `Exited` and `Finished` come once each. Only a tail that
/// is opened on a finished job is announced after that.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A tail has something to read: bytes, the end, a truncation of the log, a gap because bytes
    /// were not kept, or that another file has taken its name.
    ///
    /// Read on until there is nothing more: while
    /// [`Reactor::next_chunk`](crate::Reactor::next_chunk) gives chunks, or until
    /// [`Reactor::read`](crate::Reactor::read) returns [`Read::UpToDate`](crate::Read::UpToDate)
    /// or `Ended`, and past `Truncated`, `Skipped` and `Replaced`. It is edge-triggered: it comes
    /// when a tail is opened on a log that already has bytes, and then only after `UpToDate` was
    /// returned, once there is more.
    Readable {
        /// The tail.
        tail: TailId,
        /// The token the tail was opened with.
        token: Token,
    },
    /// The main process of a job has exited. As a rule the host is told before anything else is
    /// done about it: one of the next polls looks for what the process has left behind, for 16 jobs
    /// in each turn of the loop. With [`EndPolicy::LeaveRest`](crate::EndPolicy::LeaveRest), and
    /// for a job that has ended under an earlier host, `Finished` may come in the same poll.
    Exited {
        /// The job.
        job: JobId,
        /// The token of the job: that of its spawn or recovery, or what it was set to since.
        token: Token,
        /// How it ended.
        exit: Exit,
    },
    /// Every process of a job is gone, but for those that its [`EndPolicy`](crate::EndPolicy)
    /// leaves running, and its log is final. This is the last event of the job.
    ///
    /// Its status and log can be read until [`Reactor::remove`](crate::Reactor::remove).
    Finished {
        /// The job.
        job: JobId,
        /// The token of the job: that of its spawn or recovery, or what it was set to since.
        token: Token,
        /// How the job ended and what it used.
        report: Arc<Report>,
    },
    /// Processes of a job were stalled for as long as
    /// [`watch_pressure`](crate::Reactor::watch_pressure) asked for.
    Pressure {
        /// The job.
        job: JobId,
        /// The token of the job: that of its spawn or recovery, or what it was set to since.
        token: Token,
        /// The resource that was stalled for.
        resource: Stallable,
    },
    /// Processes of the system were stalled for as long as
    /// [`watch_system_pressure`](crate::Reactor::watch_system_pressure) asked for.
    SystemPressure {
        /// The token that was given with the request.
        token: Token,
        /// The resource that was stalled for.
        resource: Stallable,
    },
    /// The kernel has killed processes of a job because memory ran out.
    Oom {
        /// The job.
        job: JobId,
        /// The token of the job: that of its spawn or recovery, or what it was set to since.
        token: Token,
        /// How many processes since the last such event.
        kills: u64,
        /// Whose memory limit was exceeded.
        cause: OomCause,
    },
    /// A log of a job has become longer than its [`log_limit`](crate::Command::log_limit); once for
    /// each log, and before `Finished`.
    LogLimit {
        /// The job.
        job: JobId,
        /// The token of the job: that of its spawn or recovery, or what it was set to since.
        token: Token,
        /// Which log.
        stream: Stream,
    },
    /// The file system of the logs is full, or has room again.
    ///
    /// While it is full, jobs that print get `ENOSPC`, and what they print is missing from their
    /// logs; those that print on a [terminal](crate::Output::Terminal) wait. The report of each job
    /// that has run meanwhile has a [`JobError::LogCut`](crate::JobError::LogCut) among its
    /// problems. The kernel does not tell when a write of another process fails: the chapter on
    /// [retention](crate::guide::retention) says when it is noticed.
    LogSpace {
        /// Whether it is full.
        full: bool,
    },
    /// Every process of a job is frozen; see [`Reactor::freeze`](crate::Reactor::freeze).
    Frozen {
        /// The job.
        job: JobId,
        /// The token of the job: that of its spawn or recovery, or what it was set to since.
        token: Token,
    },
    /// A job runs again; see [`Reactor::thaw`](crate::Reactor::thaw).
    Thawed {
        /// The job.
        job: JobId,
        /// The token of the job: that of its spawn or recovery, or what it was set to since.
        token: Token,
    },
    /// What dead hosts have left behind was removed; see
    /// [`Reactor::sweep`](crate::Reactor::sweep).
    Swept {
        /// The token that was given with the request.
        token: Token,
        /// What was removed, and what could not be.
        swept: Arc<Swept>,
    },
    /// A [`Waker`](crate::Waker) was used since the last poll, once or several times.
    Woken,
}

impl Event {
    /// The job it is about, or `None` for events of tails, of the system and of wakers.
    ///
    /// ```
    /// use jobworker::{Command, Events, Reactor, Token};
    ///
    /// let mut reactor = Reactor::new()?;
    /// let job = reactor.spawn(&Command::new("true"), Token(7))?;
    /// let mut events = Events::with_capacity(64);
    /// reactor.poll(&mut events, None)?;
    /// for event in &events {
    ///     assert_eq!((event.job(), event.token()), (Some(job), Some(Token(7))));
    /// }
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    #[must_use]
    pub fn job(&self) -> Option<JobId> {
        match self {
            Self::Exited { job, .. }
            | Self::Finished { job, .. }
            | Self::Pressure { job, .. }
            | Self::Oom { job, .. }
            | Self::LogLimit { job, .. }
            | Self::Frozen { job, .. }
            | Self::Thawed { job, .. } => Some(*job),
            Self::Readable { .. }
            | Self::LogSpace { .. }
            | Self::SystemPressure { .. }
            | Self::Swept { .. }
            | Self::Woken => None,
        }
    }

    /// The token that the host gave for what it is about, or `None` for
    /// [`LogSpace`](Self::LogSpace) and [`Woken`](Self::Woken).
    #[must_use]
    pub fn token(&self) -> Option<Token> {
        match self {
            Self::Readable { token, .. }
            | Self::Exited { token, .. }
            | Self::Finished { token, .. }
            | Self::Pressure { token, .. }
            | Self::SystemPressure { token, .. }
            | Self::Oom { token, .. }
            | Self::LogLimit { token, .. }
            | Self::Frozen { token, .. }
            | Self::Thawed { token, .. }
            | Self::Swept { token, .. } => Some(*token),
            Self::LogSpace { .. } | Self::Woken => None,
        }
    }

    /// The token of an event of a job, with the job.
    pub(crate) fn of_job_mut(&mut self) -> Option<(JobId, &mut Token)> {
        match self {
            Self::Exited { job, token, .. }
            | Self::Finished { job, token, .. }
            | Self::Pressure { job, token, .. }
            | Self::Oom { job, token, .. }
            | Self::LogLimit { job, token, .. }
            | Self::Frozen { job, token, .. }
            | Self::Thawed { job, token, .. } => Some((*job, token)),
            Self::Readable { .. }
            | Self::LogSpace { .. }
            | Self::SystemPressure { .. }
            | Self::Swept { .. }
            | Self::Woken => None,
        }
    }

    /// The tail that has something to read, of a [`Readable`](Self::Readable).
    #[must_use]
    pub fn tail(&self) -> Option<TailId> {
        match self {
            Self::Readable { tail, .. } => Some(*tail),
            _ => None,
        }
    }
}

/// The host's buffer for events, filled by [`Reactor::poll`](crate::Reactor::poll).
///
/// Its capacity bounds how many events one poll returns. The next poll returns the remaining ones
/// without waiting.
///
/// ```
/// use jobworker::{Events, Reactor};
/// use std::time::Duration;
///
/// let mut reactor = Reactor::new()?;
/// let mut events = Events::with_capacity(64);
/// reactor.poll(&mut events, Some(Duration::ZERO))?;
/// assert!(events.is_empty());
/// # Ok::<(), jobworker::Error>(())
/// ```
#[derive(Debug)]
pub struct Events {
    inner: Vec<Event>,
    capacity: usize,
}

impl Events {
    /// A buffer for up to `capacity` events, at least one. Allocates once, here.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        let capacity = capacity.max(1);
        Self { inner: Vec::with_capacity(capacity), capacity }
    }

    /// Iterates over the events, oldest first.
    pub fn iter(&self) -> slice::Iter<'_, Event> {
        self.inner.iter()
    }

    /// The number of events.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.len()
    }

    /// Whether there is no event.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inner.is_empty()
    }

    /// The largest number of events that one poll returns.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Removes the events, as each poll does first. Keeps the memory.
    pub fn clear(&mut self) {
        self.inner.clear();
    }

    pub(crate) fn is_full(&self) -> bool {
        self.inner.len() >= self.capacity
    }

    pub(crate) fn push(&mut self, event: Event) {
        self.inner.push(event);
    }
}

impl<'a> IntoIterator for &'a Events {
    type Item = &'a Event;
    type IntoIter = slice::Iter<'a, Event>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
