//! Owns [`Schedule`]: which logs are to be visited, at once or at the end of one of two paces.
//!
//! Invariant: a log is in each list once at most, as its [`Listed`] says. A key in a list may be
//! that of a log that was closed or removed since. Knows nothing of what a visit does.

use std::time::{Duration, Instant};

use crate::id::Key;
use crate::log::open_log::Need;

/// In which lists a log is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Listed {
    due: bool,
    paced: bool,
    slow: bool,
}

/// The time between two looks at a log that is kept short while nobody waits for it. A writer of
/// 1 GB/s writes 10 MB meanwhile.
const SLOW_PACE: Duration = Duration::from_millis(10);

/// The logs to be visited.
#[derive(Debug)]
pub(crate) struct Schedule {
    /// Logs to be visited at the next turn.
    due: Vec<Key>,
    /// The list of the turn before, empty between turns: kept for its memory.
    spare: Vec<Key>,
    /// Hot logs, to be visited at `pace_at`.
    paced: Vec<Key>,
    pace_at: Option<Instant>,
    pace: Duration,
    /// Logs to be visited at `slow_at`, one slow pace after the first of them was listed.
    slow: Vec<Key>,
    slow_at: Option<Instant>,
}

impl Schedule {
    pub(crate) fn new(pace: Duration) -> Self {
        Self {
            due: Vec::new(),
            spare: Vec::new(),
            paced: Vec::new(),
            pace_at: None,
            pace,
            slow: Vec::new(),
            slow_at: None,
        }
    }

    pub(crate) fn pace(&self) -> Duration {
        self.pace
    }

    /// Lets a log be visited at the next turn.
    pub(crate) fn add_due(&mut self, log: Key, listed: &mut Listed) {
        if !listed.due {
            listed.due = true;
            self.due.push(log);
        }
    }

    /// Lets a log be visited at the end of the pace.
    pub(crate) fn add_paced(&mut self, log: Key, listed: &mut Listed) {
        if !listed.paced {
            listed.paced = true;
            self.paced.push(log);
        }
    }

    /// Lets a log be visited at the end of the slow pace.
    fn add_slow(&mut self, log: Key, listed: &mut Listed) {
        if !listed.slow {
            listed.slow = true;
            self.slow.push(log);
        }
    }

    /// Puts a log into the list that it needs to be in.
    pub(crate) fn serve(&mut self, log: Key, need: Need, listed: &mut Listed) {
        match need {
            Need::Nothing => {}
            Need::Visit => self.add_due(log, listed),
            Need::Pace => self.add_paced(log, listed),
            Need::Slow => self.add_slow(log, listed),
        }
    }

    /// Whether a visit is due now.
    pub(crate) fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// Whether a visit is due later.
    pub(crate) fn has_paced(&self) -> bool {
        !self.paced.is_empty() || !self.slow.is_empty()
    }

    /// When the hot logs are to be visited next: one pace after the first call with one listed.
    pub(crate) fn pace_at(&mut self, now: impl Fn() -> Instant) -> Option<Instant> {
        if self.paced.is_empty() {
            self.pace_at = None;
        } else if self.pace_at.is_none() {
            self.pace_at = now().checked_add(self.pace);
        }
        if self.slow.is_empty() {
            self.slow_at = None;
            return self.pace_at;
        }
        if self.slow_at.is_none() {
            self.slow_at = now().checked_add(SLOW_PACE);
        }
        self.pace_at.into_iter().chain(self.slow_at).min()
    }

    /// Takes the logs that are to be visited in this turn. What becomes due during the visits is
    /// handled in the next turn. The list comes back with [`end_turn`](Self::end_turn).
    pub(crate) fn begin_turn(&mut self) -> Vec<Key> {
        let spare = std::mem::take(&mut self.spare);
        std::mem::replace(&mut self.due, spare)
    }

    /// Takes back the list of the turn, when each log in it was visited.
    pub(crate) fn end_turn(&mut self, mut visited: Vec<Key>) {
        visited.clear();
        self.spare = visited;
    }

    /// Takes one of the hot logs, if their pace is over by now; `None` when all are taken.
    pub(crate) fn end_pace(&mut self, now: Instant) -> Option<Key> {
        if self.pace_at.is_none_or(|at| at > now) {
            return None;
        }
        let key = self.paced.pop();
        if key.is_none() {
            self.pace_at = None;
        }
        key
    }

    /// As [`end_pace`](Self::end_pace), of the slow pace.
    pub(crate) fn end_slow_pace(&mut self, now: Instant) -> Option<Key> {
        if self.slow_at.is_none_or(|at| at > now) {
            return None;
        }
        let key = self.slow.pop();
        if key.is_none() {
            self.slow_at = None;
        }
        key
    }
}

impl Listed {
    /// The log was taken from the list of those that are due.
    pub(crate) fn taken_from_due(&mut self) {
        self.due = false;
    }

    /// The log was taken from the list of those that wait for the pace.
    pub(crate) fn taken_from_paced(&mut self) {
        self.paced = false;
    }

    /// The log was taken from the list of those that wait for the slow pace.
    pub(crate) fn taken_from_slow(&mut self) {
        self.slow = false;
    }
}
