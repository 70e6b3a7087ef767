//! Owns [`Reserve`]: descriptors that are held so that a host at its limit can still end its jobs.
//!
//! Invariant: the descriptors are given up only while an [`Opener`] needs them, and are taken again
//! when it is dropped. Another thread that opens something may be faster than the opener, so they
//! are given up one by one. Knows nothing of what is opened.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::{Errno, fcntl_dupfd_cloexec};

/// How many descriptors are held: the directory of a group, a list of processes and a few
/// processes are open at the same time.
const HELD: usize = 6;

/// Descriptors in reserve.
#[derive(Debug, Default)]
pub(crate) struct Reserve {
    held: Mutex<Vec<OwnedFd>>,
}

impl Reserve {
    /// Takes what is missing, as duplicates of `source`.
    pub(crate) fn fill(&self, source: BorrowedFd<'_>) -> io::Result<()> {
        fill(&mut self.lock(), source)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<OwnedFd>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fill(held: &mut Vec<OwnedFd>, source: BorrowedFd<'_>) -> io::Result<()> {
    while held.len() < HELD {
        // Not one of the standard streams, even in a host that has closed those.
        held.push(fcntl_dupfd_cloexec(source, 3)?);
    }
    Ok(())
}

/// Opens files, out of the reserve if there is no other descriptor. It has to outlive what it has
/// opened. A thread that has one must not make a second one: it would wait for itself.
#[derive(Debug)]
pub(crate) struct Opener<'a> {
    /// The reserve, if it may be used, and what to fill it with.
    reserve: Option<(&'a Reserve, BorrowedFd<'a>)>,
    /// What is left of the reserve, while it is in use.
    lent: Option<MutexGuard<'a, Vec<OwnedFd>>>,
}

impl<'a> Opener<'a> {
    /// Uses the reserve, for what is closed again before long.
    pub(crate) fn with(reserve: &'a Reserve, source: BorrowedFd<'a>) -> Self {
        Self { reserve: Some((reserve, source)), lent: None }
    }

    /// Leaves the reserve alone.
    pub(crate) fn without_reserve() -> Self {
        Self { reserve: None, lent: None }
    }

    /// Calls a function that opens something, again if that failed for lack of a descriptor.
    pub(crate) fn open<T, E: Into<io::Error>>(
        &mut self,
        mut open: impl FnMut() -> Result<T, E>,
    ) -> io::Result<T> {
        let mut opened = open().map_err(Into::into);
        let Some((reserve, _)) = self.reserve else { return opened };
        while opened.as_ref().is_err_and(is_exhausted) {
            let held = self.lent.get_or_insert_with(|| reserve.lock());
            if held.pop().is_none() {
                break;
            }
            opened = open().map_err(Into::into);
        }
        opened
    }
}

impl Drop for Opener<'_> {
    fn drop(&mut self) {
        if let (Some(mut held), Some((_, source))) = (self.lent.take(), self.reserve) {
            // What another thread has taken meanwhile is missing until the next time.
            let _ = fill(&mut held, source);
        }
    }
}

/// Whether there is no descriptor left, in the process or in the system.
fn is_exhausted(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}
