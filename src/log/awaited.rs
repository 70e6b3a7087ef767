//! Owns [`Awaited`]: the few logs that were waited for last, for a reactor that looks at them again
//! and again before it sleeps.
//!
//! Invariant: a log is in it once at most. A key may be that of a log that was closed or removed
//! since. Knows nothing of how a log is looked at.

use crate::id::Key;

/// How many logs are looked at. Each look is a system call, and delays the others.
const MOST: usize = 4;

/// The logs that were waited for last; none unless it is turned on.
#[derive(Debug, Default)]
pub(crate) struct Awaited {
    on: bool,
    logs: Vec<Key>,
}

impl Awaited {
    /// From now on it has logs.
    pub(crate) fn turn_on(&mut self) {
        self.on = true;
    }

    /// A log is waited for.
    #[inline]
    pub(crate) fn add(&mut self, log: Key) {
        if self.on && self.logs.first() != Some(&log) {
            self.put_first(log);
        }
    }

    #[cold]
    fn put_first(&mut self, log: Key) {
        self.logs.retain(|other| *other != log);
        self.logs.truncate(MOST - 1);
        self.logs.insert(0, log);
    }

    /// The logs, the last one first.
    pub(crate) fn logs(&self) -> &[Key] {
        &self.logs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Slots;

    #[test]
    fn it_has_the_last_few_logs_once_each_and_none_until_it_is_turned_on() {
        let mut slots = Slots::new();
        let keys: Vec<Key> = (0..MOST + 2).map(|_| slots.insert(())).collect();
        let mut awaited = Awaited::default();
        awaited.add(keys[0]);
        assert!(awaited.logs().is_empty());
        awaited.turn_on();
        for key in keys.iter().chain(&keys[..2]) {
            awaited.add(*key);
            awaited.add(*key);
        }
        let last = [keys[1], keys[0], keys[MOST + 1], keys[MOST]];
        assert_eq!(awaited.logs(), last);
    }
}
