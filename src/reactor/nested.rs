//! Owns how a reactor plugs into another loop: its descriptor, and the event source for mio.
//!
//! Invariant: once the descriptor was requested, it is readable whenever a poll with a timeout of
//! zero has work.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry};

use crate::reactor::reactor::Reactor;

/// The epoll, for an event loop of the host; see [Reactor](Reactor#in-an-event-loop-of-your-own).
///
/// ```
/// use jobworker::{Command, Event, Events, Reactor, Token};
/// use mio::{Interest, Poll};
/// use std::time::Duration;
///
/// let mut host = Poll::new()?;
/// let mut reactor = Reactor::new()?;
/// host.registry().register(&mut reactor, mio::Token(0), Interest::READABLE)?;
/// reactor.spawn(&Command::new("true"), Token(1))?;
///
/// let mut ready = mio::Events::with_capacity(16);
/// let mut events = Events::with_capacity(64);
/// 'host: loop {
///     host.poll(&mut ready, None)?;
///     for source in &ready {
///         if source.token() == mio::Token(0) {
///             reactor.poll(&mut events, Some(Duration::ZERO))?;
///             if events.iter().any(|event| matches!(event, Event::Finished { .. })) {
///                 break 'host;
///             }
///         }
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl AsFd for Reactor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.system.driver.nest(|| {
            let due_later = self.jobs.next_deadline().is_some()
                || self.system.logs.has_paced()
                || self.system.look_at_space().is_some();
            self.has_work() || due_later
        })
    }
}

impl AsRawFd for Reactor {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl mio::event::Source for Reactor {
    fn register(
        &mut self,
        registry: &Registry,
        token: mio::Token,
        interests: Interest,
    ) -> std::io::Result<()> {
        registry.register(&mut SourceFd(&self.as_raw_fd()), token, interests)
    }

    fn reregister(
        &mut self,
        registry: &Registry,
        token: mio::Token,
        interests: Interest,
    ) -> std::io::Result<()> {
        registry.reregister(&mut SourceFd(&self.as_raw_fd()), token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> std::io::Result<()> {
        registry.deregister(&mut SourceFd(&self.as_raw_fd()))
    }
}
