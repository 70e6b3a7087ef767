//! Owns [`Deadlines`]: the next deadline of each job, in order.
//!
//! Invariant: at most one deadline per job. Knows no clock.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::id::Key;

/// When something is to be done about a job; at most one deadline each.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    ordered: BTreeSet<(Instant, Key)>,
}

impl Deadlines {
    /// Replaces a job's deadline, which was `current`.
    pub(crate) fn replace(
        &mut self,
        job: Key,
        current: &mut Option<Instant>,
        new: Option<Instant>,
    ) {
        if *current == new {
            return;
        }
        if let Some(at) = current.take() {
            self.ordered.remove(&(at, job));
        }
        if let Some(at) = new {
            self.ordered.insert((at, job));
        }
        *current = new;
    }

    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.ordered.first().map(|(at, _)| *at)
    }

    /// A job whose deadline has come, if there is one.
    pub(crate) fn due(&self, now: Instant) -> Option<Key> {
        self.ordered.first().filter(|(at, _)| *at <= now).map(|(_, job)| *job)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::id::Slots;

    #[test]
    fn a_replaced_deadline_leaves_nothing_behind() {
        let mut slots = Slots::new();
        let (one, two) = (slots.insert(()), slots.insert(()));
        let now = Instant::now();
        let (soon, later) = (now + Duration::from_secs(1), now + Duration::from_secs(2));
        let (mut deadlines, mut first, mut second) = (Deadlines::default(), None, None);
        deadlines.replace(one, &mut first, Some(later));
        deadlines.replace(two, &mut second, Some(soon));
        assert_eq!(deadlines.next(), Some(soon));
        assert_eq!((deadlines.due(now), deadlines.due(soon)), (None, Some(two)));
        deadlines.replace(two, &mut second, None);
        deadlines.replace(one, &mut first, Some(soon));
        assert_eq!((deadlines.next(), deadlines.due(soon)), (Some(soon), Some(one)));
        deadlines.replace(one, &mut first, None);
        assert_eq!(deadlines.next(), None);
    }
}
