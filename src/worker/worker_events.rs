//! Owns [`WorkerEvent`], what a worker reports of the system, [`WorkerEvents`], a subscription to
//! it, and [`Board`], where the loop publishes it.
//!
//! Invariant: a subscriber gets each event once, in order, or how many it has missed. Knows nothing
//! of jobs.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::event::Stallable;
use crate::sync::Mutex;
use crate::worker::client::Client;
use crate::worker::ring::{Next, Place, Ring};
use crate::worker::wait::{Waiter, Woken, lock};

/// What a [`Worker`](crate::Worker) reports that is about none of its jobs, from
/// [`Worker::events`](crate::Worker::events).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkerEvent {
    /// Processes of the system were stalled for this resource for as long as
    /// [`Worker::watch_system_pressure`](crate::Worker::watch_system_pressure) asked for.
    SystemPressure(Stallable),
    /// The file system of the logs is full, or has room again; see
    /// [`Event::LogSpace`](crate::Event::LogSpace).
    #[non_exhaustive]
    LogSpace {
        /// Whether it is full.
        full: bool,
    },
    /// This many events came in this place and were dropped, because the subscriber was too slow.
    Missed(u64),
}

/// Where the loop publishes what is about no job.
#[derive(Debug, Default)]
pub(super) struct Board {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    events: Ring<WorkerEvent>,
    ended: bool,
}

impl Board {
    pub(super) fn publish(&self, event: WorkerEvent) -> Woken {
        lock(&self.state).events.push(event, false)
    }

    /// The loop has ended.
    pub(super) fn end(&self) -> Woken {
        let mut state = lock(&self.state);
        state.ended = true;
        state.events.end()
    }
}

/// A subscription to what a worker reports that is about none of its jobs, from
/// [`Worker::events`](crate::Worker::events).
///
/// It is read as [`JobEvents`](crate::worker::JobEvents) is, and costs the same. It keeps the
/// worker running as a clone of it does, and ends with the worker: with an error that says why.
#[derive(Debug)]
pub struct WorkerEvents {
    client: Arc<Client>,
    waiter: Arc<Waiter>,
    place: Place,
    ended: bool,
}

impl WorkerEvents {
    pub(super) fn new(client: Arc<Client>) -> Self {
        let place = match client.check_process() {
            Ok(()) => lock(&client.board().state).events.subscribe(),
            // Each read will say so. The lock may be held by a thread that is not there.
            Err(_) => Place::default(),
        };
        Self { client, waiter: Arc::default(), place, ended: false }
    }

    /// Blocks until there is an event; `None` after an error.
    ///
    /// # Errors
    /// [`Error::Worker`](crate::Error::Worker) when the worker has ended.
    pub fn wait(&mut self) -> Result<Option<WorkerEvent>> {
        self.wait_until(None)
    }

    /// Like [`wait`](Self::wait), but waits for at most `timeout`; `None` also when there was no
    /// event by then. A timeout of zero does not block, and one that is longer than the clock can
    /// tell never ends.
    ///
    /// # Errors
    /// As for [`wait`](Self::wait).
    pub fn wait_timeout(&mut self, timeout: Duration) -> Result<Option<WorkerEvent>> {
        self.wait_until(Instant::now().checked_add(timeout))
    }

    fn wait_until(&mut self, until: Option<Instant>) -> Result<Option<WorkerEvent>> {
        let client = Arc::clone(&self.client);
        let next = client.block_on(until, |cx| self.poll_next(cx))?;
        next.flatten().transpose()
    }

    /// The next event for a task, which is woken when there is one; `None` after an error.
    ///
    /// A task can stop waiting at any time: nothing was taken. Does not block.
    ///
    /// # Errors
    /// As for [`wait`](Self::wait).
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<WorkerEvent>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let next = self.poll_open(cx);
        if matches!(next, Poll::Ready(Err(_))) {
            self.ended = true;
            self.waiter.clear();
        }
        next.map(Some)
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Result<WorkerEvent>> {
        self.client.check_process()?;
        self.waiter.set(cx.waker());
        let mut state = lock(&self.client.board().state);
        match state.events.next(&mut self.place) {
            Some(Next::Event(event)) => Poll::Ready(Ok(event)),
            Some(Next::Missed(count)) => Poll::Ready(Ok(WorkerEvent::Missed(count))),
            None if state.ended => Poll::Ready(Err(self.client.why())),
            None => {
                state.events.wait(&mut self.place, &self.waiter);
                Poll::Pending
            }
        }
    }
}

impl Drop for WorkerEvents {
    fn drop(&mut self) {
        // In a forked process the lock may be held by a thread that is not there.
        if self.client.check_process().is_ok() {
            lock(&self.client.board().state).events.unsubscribe(&self.place);
        }
    }
}
