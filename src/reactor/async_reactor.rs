//! Owns [`AsyncReactor`]: a reactor that a task of tokio polls.
//!
//! Invariant: the reactor is polled without waiting, and only when its descriptor was reported to
//! be readable, so that it costs no thread and nothing while nothing happens. Knows nothing of what
//! the reactor does.

use std::ops::{Deref, DerefMut};
use std::os::fd::AsFd;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::event::Events;
use crate::reactor::reactor::Reactor;
use crate::sys::AsyncDescriptor;

/// A [`Reactor`] in the event loop of tokio, without a thread of its own. With the feature `tokio`.
///
/// [`poll`](Self::poll) is asynchronous; for everything else it is the reactor itself, to which it
/// dereferences. One task owns it, and others talk to that task. It works in a runtime of one
/// thread and of many, and can be sent from one to another.
///
/// A host whose tasks each wait for a job or read a log of their own is better served by a
/// [`Worker`](crate::Worker).
///
/// ```
/// use jobworker::{AsyncReactor, Command, Event, Events, Position, Reactor, Token};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), jobworker::Error> {
/// let mut reactor = AsyncReactor::new(Reactor::new()?)?;
/// let job = reactor.spawn(Command::new("echo").arg("hello"), Token(1))?;
/// reactor.tail(job, Position::Start, Token(2))?;
/// let (mut events, mut output) = (Events::with_capacity(64), Vec::new());
/// 'job: loop {
///     reactor.poll(&mut events).await?;
///     for event in &events {
///         match event {
///             Event::Readable { tail, .. } => {
///                 while let Some(chunk) = reactor.next_chunk(*tail)? {
///                     output.extend_from_slice(chunk.bytes);
///                 }
///             }
///             Event::Finished { .. } => break 'job,
///             _ => {}
///         }
///     }
/// }
/// assert_eq!(output, b"hello\n");
/// # Ok(())
/// # }
/// ```
///
/// # What blocks
/// Methods of the reactor that block do so here as well, and with them the thread of the runtime:
/// [`wait`](Reactor::wait) and [`wait_timeout`](Reactor::wait_timeout), for which there are events,
/// and [`spawn`](Reactor::spawn) for about half a millisecond. Dropping it is dropping the reactor,
/// which kills the jobs that are left and waits up to five seconds until they are gone: stop them
/// before, or drop it where it may block (`tokio::task::spawn_blocking`).
///
/// # What is not guaranteed
/// The runtime wakes the task for the reactor that it was made of: one that is put in its place by
/// [`std::mem::swap`] or the like is not polled in time.
#[derive(Debug)]
pub struct AsyncReactor {
    /// Deregistered before the reactor is dropped.
    readiness: AsyncDescriptor,
    reactor: Reactor,
}

impl AsyncReactor {
    /// Registers a reactor with the runtime of the calling task. It may have jobs, tails and events
    /// already. Takes one descriptor more.
    ///
    /// # Errors
    /// [`Error::System`] (`Loop`) when its descriptor cannot be duplicated or registered. The
    /// reactor is dropped.
    ///
    /// # Panics
    /// Outside of a runtime of tokio, and in one whose I/O is not enabled.
    #[track_caller]
    pub fn new(reactor: Reactor) -> Result<Self> {
        let readiness = AsyncDescriptor::new(reactor.as_fd())
            .map_err(Error::event_loop("register a reactor with the runtime"))?;
        Ok(Self { readiness, reactor })
    }

    /// Waits for events, and replaces the content of `events` with those that have occurred: one at
    /// least.
    ///
    /// At most [`Events::capacity`] events are returned. The rest stays queued, and the next call
    /// returns it without waiting. For a timeout, and to wait for something else as well, use
    /// those of the runtime.
    ///
    /// # Cancellation
    /// A task can stop waiting at any time: no event is lost. `events` is empty then, for its
    /// content is removed by the call itself.
    ///
    /// ```
    /// use jobworker::{AsyncReactor, Events, Reactor};
    /// use std::time::Duration;
    /// use tokio::time::timeout;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), jobworker::Error> {
    /// let mut reactor = AsyncReactor::new(Reactor::new()?)?;
    /// let mut events = Events::with_capacity(64);
    /// let waited = timeout(Duration::from_millis(1), reactor.poll(&mut events)).await;
    /// assert!(waited.is_err() && events.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for [`Reactor::poll`]; [`Error::System`] (`Loop`) also when the runtime was shut down.
    pub fn poll(&mut self, events: &mut Events) -> impl Future<Output = Result<()>> {
        // Here, because a future that is given up may never have been polled.
        events.clear();
        let Self { readiness, reactor } = self;
        async move {
            let attempt = || match reactor.poll(events, Some(Duration::ZERO)) {
                // The reactor had work for itself only. Should there be more, its descriptor has
                // been made readable once more.
                Ok(()) if events.is_empty() => None,
                polled => Some(polled),
            };
            let polled = readiness.when_readable(attempt).await;
            polled.map_err(Error::event_loop("wait in the runtime"))?
        }
    }

    /// The reactor, which is not registered with the runtime any more.
    #[must_use]
    pub fn into_inner(self) -> Reactor {
        self.reactor
    }
}

impl Deref for AsyncReactor {
    type Target = Reactor;

    fn deref(&self) -> &Reactor {
        &self.reactor
    }
}

impl DerefMut for AsyncReactor {
    fn deref_mut(&mut self) -> &mut Reactor {
        &mut self.reactor
    }
}
