//! Owns [`Space`]: whether the file system of the logs has room, and when to look at it.
//!
//! Invariants: nothing is looked at while nothing happens, except once when the room is scarce and
//! something has just happened, and now and then while there is none, until there is. Pure: it
//! looks by a closure, and knows nothing of file systems.
//!
//! The kernel tells nobody that somebody else's write has failed. But it can be seen that there is
//! no room: rarely as long as there is plenty, and whenever something happens once there is little.

use std::time::{Duration, Instant};

/// With less than this, the room is looked at whenever something happens. More cannot be written in
/// the time between two other looks.
const SCARCE: u64 = 256 << 20;

/// With less than this there is no room: a page.
const NONE: u64 = 4096;

/// The time between two looks while there is plenty of room, and something happens.
const RARELY: Duration = Duration::from_millis(100);

/// When to look once more after something has happened, while the room is scarce: whoever has
/// written then may go on.
const AFTERWARDS: Duration = Duration::from_millis(10);

/// The time between two looks while there is no room.
const UNTIL_ROOM: Duration = Duration::from_millis(200);

/// What is known of the room for logs.
#[derive(Debug, Default)]
pub(crate) struct Space {
    room: Room,
    looked: Option<Instant>,
    /// When to look even if nothing happens.
    look_at: Option<Instant>,
    /// When there was no room, for the last time.
    full_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Room {
    #[default]
    Plenty,
    Scarce,
    None,
}

impl Space {
    /// When to look even if nothing happens.
    pub(crate) fn look_at(&self) -> Option<Instant> {
        self.look_at
    }

    /// A turn is over, in which something has happened or not. Looks for the room if it is time to,
    /// which is `None` where that cannot be found out. Returns whether there is none, when that has
    /// changed.
    #[inline]
    pub(crate) fn turn(
        &mut self,
        now: Instant,
        happened: bool,
        available: impl FnOnce() -> Option<u64>,
    ) -> Option<bool> {
        let due = self.look_at.is_some_and(|at| at <= now);
        let old = || self.looked.is_none_or(|at| now.saturating_duration_since(at) >= RARELY);
        if due || happened && (self.room == Room::Scarce || old()) {
            self.look(now, happened, available())
        } else {
            None
        }
    }

    /// As [`turn`](Self::turn), when it has to be known whether there has been room.
    pub(crate) fn check(
        &mut self,
        now: Instant,
        available: impl FnOnce() -> Option<u64>,
    ) -> Option<bool> {
        self.turn(now, true, available)
    }

    /// A write has failed because there was no room. Returns whether that is news.
    pub(crate) fn write_failed(&mut self, now: Instant) -> Option<bool> {
        self.look(now, false, Some(0))
    }

    /// Whether there is no room, as far as is known.
    pub(crate) fn is_full(&self) -> bool {
        self.room == Room::None
    }

    /// Whether there was no room at any time since then, as far as is known.
    pub(crate) fn was_full_since(&self, then: Instant) -> bool {
        self.is_full() || self.full_at.is_some_and(|at| at >= then)
    }

    #[cold]
    fn look(&mut self, now: Instant, happened: bool, available: Option<u64>) -> Option<bool> {
        let before = self.room;
        self.room = match available {
            Some(bytes) if bytes < NONE => Room::None,
            Some(bytes) if bytes < SCARCE => Room::Scarce,
            Some(_) | None => Room::Plenty,
        };
        self.looked = Some(now);
        let after = match self.room {
            Room::Plenty => None,
            Room::Scarce => happened.then_some(AFTERWARDS),
            Room::None => Some(UNTIL_ROOM),
        };
        self.look_at = after.and_then(|after| now.checked_add(after));
        if self.room == Room::None {
            self.full_at = Some(now);
        }
        let (was_full, full) = (before == Room::None, self.room == Room::None);
        (was_full != full).then_some(full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLENTY: Option<u64> = Some(1 << 40);
    const LITTLE: Option<u64> = Some(1 << 20);

    /// Turns at these milliseconds, in which something happens, and there is so much room; how many
    /// looks each takes, and what it says.
    fn turns(space: &mut Space, turns: &[(u64, bool, Option<u64>)]) -> Vec<(u32, Option<bool>)> {
        let begin = Instant::now();
        let turn = |(at, happened, available): &(u64, bool, Option<u64>)| {
            let mut looks = 0;
            let told = space.turn(begin + Duration::from_millis(*at), *happened, || {
                looks += 1;
                *available
            });
            (looks, told)
        };
        turns.iter().map(turn).collect()
    }

    #[test]
    fn room_is_looked_at_rarely_as_long_as_there_is_plenty_and_never_when_nothing_happens() {
        let mut space = Space::default();
        let found = turns(
            &mut space,
            &[
                (0, false, PLENTY),
                (0, true, PLENTY),
                (99, true, PLENTY),
                (100, true, PLENTY),
                (10_000, false, PLENTY),
                (10_000, true, None),
            ],
        );
        assert_eq!(found.iter().map(|(looks, _)| *looks).collect::<Vec<_>>(), [0, 1, 0, 1, 0, 1]);
        assert!(found.iter().all(|(_, told)| told.is_none()) && space.look_at().is_none());
    }

    #[test]
    fn scarce_room_is_looked_at_whenever_something_happens_and_once_afterwards() {
        let mut space = Space::default();
        let found = turns(
            &mut space,
            &[
                (0, true, LITTLE),
                (1, true, LITTLE),
                (2, true, LITTLE),
                (11, false, LITTLE),
                (12, false, LITTLE),
                (1000, false, LITTLE),
            ],
        );
        assert_eq!(found.iter().map(|(looks, _)| *looks).collect::<Vec<_>>(), [1, 1, 1, 0, 1, 0]);
        assert!(space.look_at().is_none() && found.iter().all(|(_, told)| told.is_none()));
    }

    #[test]
    fn it_is_told_once_that_there_is_none_and_once_that_there_is_again() {
        let mut space = Space::default();
        let begin = Instant::now();
        let found = turns(
            &mut space,
            &[
                (0, true, Some(4095)),
                (10, true, Some(0)),
                (200, false, Some(0)),
                (399, false, LITTLE),
                (400, false, LITTLE),
            ],
        );
        let expected = [(1, Some(true)), (0, None), (1, None), (0, None), (1, Some(false))];
        assert_eq!(found, expected);
        assert!(space.was_full_since(begin) && space.look_at().is_none());
        assert!(!space.was_full_since(Instant::now() + Duration::from_secs(1)));
        let now = Instant::now() + Duration::from_secs(2);
        assert_eq!(space.write_failed(now), Some(true));
        assert_eq!(space.write_failed(now), None);
        assert!(space.was_full_since(now));
    }
}
