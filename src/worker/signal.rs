//! Owns [`Signal`], by which a thread waits until another one says that it has to look again.
//!
//! Invariants: what was done before it was raised is seen by whoever has waited for it, and none
//! that was raised is lost. Knows nothing of what is waited for.

use std::sync::Arc;
use std::task::Wake;
use std::time::Instant;

use crate::sync::Futex;
use crate::sync::atomic::Ordering;

/// Nobody waits, and nothing was raised.
const NONE: u32 = 0;
/// It was raised, and nobody has taken that.
const RAISED: u32 = 1;
/// Its thread waits in the kernel, or is about to.
const AWAITED: u32 = 2;

/// What one thread waits for. It is one word, because all that a thread that wakes up has to look
/// at has to be fetched into its caches; and it is not [`std::thread::park`], which is the host's.
#[derive(Debug, Default)]
pub(super) struct Signal(Futex);

impl Signal {
    /// Lets its thread look again: now if it waits, otherwise once it would.
    pub(super) fn raise(&self) {
        if self.0.word().swap(RAISED, Ordering::AcqRel) == AWAITED {
            self.0.wake();
        }
    }

    /// Whether it was raised since it was last taken.
    pub(super) fn take(&self) -> bool {
        self.0.word().swap(NONE, Ordering::AcqRel) == RAISED
    }

    /// Waits until it is raised, and takes that. The answer is `false` when the time is up first.
    /// For one thread alone.
    pub(super) fn wait(&self, until: Option<Instant>) -> bool {
        while !self.take() {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return false;
            }
            let word = self.0.word();
            let waits = word.compare_exchange(NONE, AWAITED, Ordering::AcqRel, Ordering::Acquire);
            if waits.is_ok() {
                self.0.wait(AWAITED, left);
            }
        }
        true
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.raise();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.raise();
    }
}
