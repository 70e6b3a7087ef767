//! Owns [`Waker`]: the one part of a reactor that other threads may hold.
//!
//! Invariant: however often it is used between two polls, the reactor is woken once and returns one
//! event.

use std::io;
use std::sync::Arc;

use crate::driver::eventfd::Eventfd;
use crate::error::{Error, Result};
use crate::sync::atomic::{AtomicBool, Ordering};

/// Wakes a reactor from any thread: its poll returns with [`Event::Woken`](crate::Event::Woken).
///
/// ```
/// use jobworker::{Event, Events, Reactor};
///
/// let mut reactor = Reactor::new()?;
/// let waker = reactor.waker();
/// let thread = std::thread::spawn(move || waker.wake());
/// let mut events = Events::with_capacity(8);
/// reactor.poll(&mut events, None)?;
/// assert!(matches!(events.iter().next(), Some(Event::Woken)));
/// # thread.join().unwrap()?;
/// # Ok::<(), jobworker::Error>(())
/// ```
#[derive(Clone, Debug)]
#[doc(alias = "eventfd")]
pub struct Waker {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    eventfd: Eventfd,
    /// The reactor was woken and has not returned the event yet.
    woken: AtomicBool,
}

impl Waker {
    pub(crate) fn new(eventfd: Eventfd) -> Self {
        Self { shared: Arc::new(Shared { eventfd, woken: AtomicBool::new(false) }) }
    }

    /// Makes the current or the next poll return. Does not block.
    ///
    /// # Errors
    /// [`Error::System`] when the write to the eventfd fails, which should not happen.
    pub fn wake(&self) -> Result<()> {
        if self.shared.woken.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        self.nudge().map_err(Error::event_loop("wake the reactor"))
    }

    /// Makes the epoll readable without an event for the host.
    pub(crate) fn nudge(&self) -> io::Result<()> {
        self.shared.eventfd.wake()
    }

    /// Whether it was used since the last call.
    pub(crate) fn take(&self) -> bool {
        self.shared.woken.swap(false, Ordering::AcqRel)
    }
}
