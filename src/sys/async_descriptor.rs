//! Owns [`AsyncDescriptor`]: a descriptor whose readiness a task of tokio awaits.
//!
//! Invariant: what is registered with the runtime is a duplicate that nobody else has, so that it
//! stays open, and the same, for as long as it is registered. Knows nothing of what it is for.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A descriptor that a task can await.
#[derive(Debug)]
pub(crate) struct AsyncDescriptor(AsyncFd<OwnedFd>);

impl AsyncDescriptor {
    /// Registers a duplicate of a descriptor with the runtime of the calling thread.
    ///
    /// # Panics
    /// Where there is no runtime, or one without I/O.
    #[track_caller]
    pub(crate) fn new(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let duplicate = fd.try_clone_to_owned()?;
        // SAFETY: an `OwnedFd` is open, and always the same, until it is dropped. It is not
        // reachable from outside, so nobody exchanges it, and `AsyncFd` deregisters it first.
        let registered = unsafe { AsyncFd::register_with_interest(duplicate, Interest::READABLE) };
        Ok(Self(registered?))
    }

    /// Calls `attempt` whenever the descriptor may have become readable, until it returns
    /// something, and waits in between.
    ///
    /// Nothing happens between that and the return, so a task that stops waiting has lost nothing.
    /// The task yields from time to time, although the descriptor stays readable.
    pub(crate) async fn when_readable<T>(
        &self,
        mut attempt: impl FnMut() -> Option<T>,
    ) -> io::Result<T> {
        // The readiness is forgotten only if the attempt was in vain and nothing was reported since
        // it was noticed: it is edge-triggered.
        let attempt = |_: &OwnedFd| attempt().ok_or_else(|| io::ErrorKind::WouldBlock.into());
        self.0.async_io(Interest::READABLE, attempt).await
    }
}
