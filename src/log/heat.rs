//! Owns [`Heat`]: whether a log grows so quickly that it is looked at by a timer instead of by a
//! watch, for which its writer pays.
//!
//! Invariant: decided by how often and by how much the log has grown of late, and by nothing else.

use std::time::{Duration, Instant};

/// So many quick growths in a row make a log hot.
///
/// A few lines in quick succession are thus delivered one by one, at once; a stream of them is
/// paced.
const HOT_AFTER: usize = 3;

/// A log that grows by so many bytes per pace, or faster, grows quickly, however late it is looked
/// at: by a host that works between its polls.
///
/// With the default pace, a log that is slower than this (320 KB/s) loses less than a hundredth of
/// its writer's time to an armed watch, as long as the writer writes whole lines.
const QUICK_BYTES: usize = 64;

/// A quick growth by so many bytes counts for one growth more: reading them costs more than it
/// costs to disarm a watch in vain.
const MANY_BYTES: usize = 4096;

/// How quickly a log grows.
#[derive(Debug, Default)]
pub(crate) struct Heat {
    /// One pace after the last growth: another one before then is quick.
    quick_until: Option<Instant>,
    /// How many quick growths there were in a row.
    streak: usize,
}

impl Heat {
    /// Whether the log is hot.
    #[inline]
    pub(crate) fn is_hot(&self) -> bool {
        self.streak >= HOT_AFTER
    }

    /// Begins to count anew.
    #[inline]
    pub(crate) fn cool(&mut self) {
        self.streak = 0;
    }

    /// Notes a growth. It is `full` when there is more than one turn reads.
    #[inline]
    pub(crate) fn note(&mut self, added: usize, full: bool, now: Instant, pace: Duration) {
        let soon = self.quick_until.is_some_and(|until| now < until);
        if added >= 2 * QUICK_BYTES && (added >= MANY_BYTES || !soon) {
            self.note_amount(added, full, soon, now, pace);
        } else {
            self.streak = if soon { self.streak.saturating_add(1) } else { 0 };
        }
        self.quick_until = now.checked_add(pace);
    }

    /// As [`note`](Self::note), for a growth that may be many writes, which a host that was busy
    /// finds all at once: late or not, it is quick if the log grew fast enough.
    #[inline(never)]
    fn note_amount(&mut self, added: usize, full: bool, soon: bool, now: Instant, pace: Duration) {
        let paces = u32::try_from(added / QUICK_BYTES).unwrap_or(u32::MAX);
        let quick = soon
            || self.quick_until.is_some_and(|until| {
                now.saturating_duration_since(until) < pace.saturating_mul(paces - 1)
            });
        // Of one that is full the rate is not known.
        let quick = quick || full && !pace.is_zero();
        self.streak = if quick { self.streak.saturating_add(1 + added / MANY_BYTES) } else { 0 };
    }
}
