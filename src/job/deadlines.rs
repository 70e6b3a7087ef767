//! Owns [`Deadlines`]: the grace periods and time limits of all jobs, in order.
//!
//! Invariant: at most one deadline per job. Knows no clock.

use std::collections::BTreeSet;
use std::time::Instant;

/// When something is to be done about a job, by its slot; at most one deadline each.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    ordered: BTreeSet<(Instant, usize)>,
}

impl Deadlines {
    /// Replaces a job's deadline.
    pub(crate) fn replace(
        &mut self,
        slot: usize,
        current: &mut Option<Instant>,
        new: Option<Instant>,
    ) {
        if let Some(at) = current.take() {
            self.ordered.remove(&(at, slot));
        }
        if let Some(at) = new {
            self.ordered.insert((at, slot));
        }
        *current = new;
    }

    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.ordered.first().map(|(at, _)| *at)
    }

    /// A job whose deadline has come, if there is one.
    pub(crate) fn due(&self, now: Instant) -> Option<usize> {
        self.ordered.first().filter(|(at, _)| *at <= now).map(|(_, slot)| *slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_replaced_deadline_leaves_nothing_behind() {
        let now = Instant::now();
        let (soon, later) = (now + Duration::from_secs(1), now + Duration::from_secs(2));
        let (mut deadlines, mut first, mut second) = (Deadlines::default(), None, None);
        deadlines.replace(1, &mut first, Some(later));
        deadlines.replace(2, &mut second, Some(soon));
        assert_eq!(
            (deadlines.next(), deadlines.due(now), deadlines.due(soon)),
            (Some(soon), None, Some(2))
        );
        deadlines.replace(2, &mut second, None);
        deadlines.replace(1, &mut first, Some(soon));
        assert_eq!((deadlines.next(), deadlines.due(soon)), (Some(soon), Some(1)));
        deadlines.replace(1, &mut first, None);
        assert_eq!(deadlines.next(), None);
    }
}
