//! Owns [`Schedule`]: which logs are to be visited, at once or at the end of the pace.
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
}

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
}

impl Schedule {
    pub(crate) fn new(pace: Duration) -> Self {
        Self { due: Vec::new(), spare: Vec::new(), paced: Vec::new(), pace_at: None, pace }
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

    /// Puts a log into the list that it needs to be in.
    pub(crate) fn serve(&mut self, log: Key, need: Need, listed: &mut Listed) {
        match need {
            Need::Nothing => {}
            Need::Visit => self.add_due(log, listed),
            Need::Pace => self.add_paced(log, listed),
        }
    }

    /// Whether a visit is due now.
    pub(crate) fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// Whether a visit is due later.
    pub(crate) fn has_paced(&self) -> bool {
        !self.paced.is_empty()
    }

    /// When the hot logs are to be visited next: one pace after the first call with one listed.
    pub(crate) fn pace_at(&mut self, now: impl FnOnce() -> Instant) -> Option<Instant> {
        if self.paced.is_empty() {
            self.pace_at = None;
        } else if self.pace_at.is_none() {
            self.pace_at = now().checked_add(self.pace);
        }
        self.pace_at
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
}
