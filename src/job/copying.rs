//! Owns [`Copying`]: when the output of a job's terminal is copied to its log, as a table.
//!
//! Invariant: output that has come is copied by a later call, or at a deadline, and nothing is
//! tried without a reason. Pure: it does no I/O and reads no clock.

use std::time::{Duration, Instant};

use crate::job::terminal::Copied;

/// When copying is tried again that has failed, as on a full disk. The job waits meanwhile.
const RETRY: Duration = Duration::from_secs(1);

/// When the output of a terminal is copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Copying {
    /// When there is some.
    #[default]
    Idle,
    /// In the next turn that comes to it.
    Due,
    /// Not before this moment, because it has failed.
    Failed { until: Option<Instant> },
}

impl Copying {
    /// Whether it is to be copied as soon as possible.
    pub(crate) fn is_due(self) -> bool {
        self == Self::Due
    }

    /// When it is to be tried again.
    pub(crate) fn retry_at(self) -> Option<Instant> {
        match self {
            Self::Failed { until } => until,
            Self::Idle | Self::Due => None,
        }
    }

    /// The terminal is ready.
    pub(crate) fn ready(&mut self) {
        match self {
            Self::Idle => *self = Self::Due,
            // What has failed would fail again.
            Self::Due | Self::Failed { .. } => {}
        }
    }

    /// It was copied.
    pub(crate) fn copied(&mut self, copied: Copied) {
        *self = match copied {
            Copied::All => Self::Idle,
            Copied::Some => Self::Due,
        };
    }

    /// That has failed.
    pub(crate) fn failed(&mut self, now: Instant) {
        *self = Self::Failed { until: now.checked_add(RETRY) };
    }

    /// Time has passed.
    pub(crate) fn passed(&mut self, now: Instant) {
        if self.retry_at().is_some_and(|at| at <= now) {
            *self = Self::Due;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_copied_when_there_is_some_and_after_a_failure_when_the_time_has_come() {
        let now = Instant::now();
        let mut copying = Copying::default();
        assert!(!copying.is_due());
        copying.ready();
        assert!(copying.is_due());
        copying.copied(Copied::Some);
        assert!(copying.is_due());
        copying.copied(Copied::All);
        assert_eq!(copying, Copying::Idle);
        copying.ready();
        copying.failed(now);
        copying.ready();
        copying.passed(now);
        assert!(!copying.is_due());
        assert_eq!(copying.retry_at(), Some(now + RETRY));
        copying.passed(now + RETRY);
        assert!(copying.is_due() && copying.retry_at().is_none());
    }
}
