//! Owns [`Total`]: how much all logs of jobs have together, and which is to be dropped next if that
//! is too much.
//!
//! Invariant: what is used is the sum of what each log was last counted as. Knows nothing of what a
//! log is but its key.

use std::collections::VecDeque;
use std::sync::Weak;
use std::time::Duration;

use crate::id::Key;

/// What all logs of jobs have together.
#[derive(Debug)]
pub(crate) struct Total {
    limit: u64,
    used: u64,
    /// The logs of finished jobs, oldest first; some may have been removed, or dropped. Those of
    /// jobs that an earlier host has finished come first, by their time.
    finished: VecDeque<(Option<Duration>, Key)>,
    /// As long as this is there, older ones may still be found.
    search: Weak<()>,
}

impl Total {
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit, used: 0, finished: VecDeque::new(), search: Weak::new() }
    }

    /// A log has so much now, and had so much before.
    pub(crate) fn add(&mut self, (before, now): (u64, u64)) {
        self.used = self.used.saturating_sub(before).saturating_add(now);
    }

    /// Nothing is dropped until this is.
    pub(crate) fn wait_for(&mut self, search: Weak<()>) {
        self.search = search;
    }

    /// The job of a log has finished, now or under an earlier host: from now on it may be dropped.
    /// There are so many `logs`, and `is_there` says of one whether it is among them.
    pub(crate) fn finished(
        &mut self,
        log: Key,
        earlier: Option<Duration>,
        logs: usize,
        is_there: impl Fn(Key) -> bool,
    ) {
        // Removing a log leaves the list alone. What that costs is paid here, once for as many new
        // ones as there are.
        if self.finished.len() > 2 * logs + 64 {
            self.finished.retain(|(_, log)| is_there(*log));
        }
        // Nothing that has finished now comes before any other.
        let is_before = |(other, _): &(Option<Duration>, Key)| {
            earlier.is_none_or(|earlier| other.is_some_and(|other| other <= earlier))
        };
        let place = self.finished.partition_point(is_before);
        self.finished.insert(place, (earlier, log));
    }

    /// Whether there is too much, and anything that can be dropped.
    pub(crate) fn is_exceeded(&self) -> bool {
        let is_complete = self.search.strong_count() == 0;
        self.used > self.limit && !self.finished.is_empty() && is_complete
    }

    /// Which log is to be dropped, if there is too much. It is not named again.
    pub(crate) fn next(&mut self) -> Option<Key> {
        if self.is_exceeded() { self.finished.pop_front().map(|(_, log)| log) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::id::Slots;

    #[test]
    fn the_oldest_are_named_as_long_as_there_is_too_much() {
        let mut logs = Slots::new();
        let keys = [(); 3].map(|()| logs.insert(()));
        let mut total = Total::new(10);
        for key in keys {
            total.add((0, 5));
            total.add((5, 6));
            total.finished(key, None, 3, |_| true);
        }
        assert!(total.is_exceeded());
        assert_eq!(total.next(), Some(keys[0]));
        total.add((6, 0));
        assert_eq!(total.next(), Some(keys[1]));
        total.add((6, 0));
        assert_eq!((total.next(), total.is_exceeded()), (None, false));
        // Those of removed jobs are forgotten in time.
        for _ in 0..1000 {
            total.finished(keys[0], None, 3, |key| key == keys[2]);
        }
        assert!(total.finished.len() < 100);
    }

    #[test]
    fn those_of_an_earlier_host_are_named_by_their_time_and_once_all_are_found() {
        let mut logs = Slots::new();
        let mut total = Total::new(0);
        let search = Arc::new(());
        total.wait_for(Arc::downgrade(&search));
        let at = |seconds| Some(Duration::from_secs(seconds));
        let times = [at(3), None, at(1), at(3), at(2), None];
        let keys = times.map(|earlier| {
            let key = logs.insert(());
            total.add((0, 1));
            total.finished(key, earlier, 6, |_| true);
            key
        });
        assert_eq!((total.next(), total.is_exceeded()), (None, false));
        drop(search);
        let named: Vec<Key> = std::iter::from_fn(|| total.next()).collect();
        assert_eq!(named, [2, 4, 0, 3, 1, 5].map(|place| keys[place]));
    }
}
