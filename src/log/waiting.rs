//! Owns [`WaitingTails`]: the tails that wait for more of one log, and where each of them does.
//!
//! Invariants: a tail that waits is in one of two lists, at the place that it was given; one that
//! was notified with a batch is told by its round. Knows nothing of what a tail is but its key, nor
//! of what they wait for.

use crate::id::Key;

/// Where a tail waits for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// Nowhere.
    No,
    /// At this place among those that have read everything, in this round.
    CaughtUp { place: u32, round: u32 },
    /// At this place among those that are checked one by one.
    Apart { place: u32 },
}

impl Waiting {
    /// Whether it is among those that have read everything in this round.
    pub(crate) fn is_in_round(self, round: u32) -> bool {
        matches!(self, Self::CaughtUp { round: own, .. } if own == round)
    }
}

/// The tails that wait for more of a log.
#[derive(Debug)]
pub(crate) struct WaitingTails {
    /// Those that have read everything known. Growth concerns all of them, so they are notified as
    /// one batch.
    caught_up: Vec<Key>,
    /// How often the list above was notified: the current round.
    round: u32,
    /// The others: behind the end, or with an event in the queue already.
    apart: Vec<Key>,
    /// Whether all of these wait behind the end that is known: what lies in between is of no use.
    ahead: bool,
}

impl WaitingTails {
    pub(crate) fn new() -> Self {
        Self { caught_up: Vec::new(), round: 0, apart: Vec::new(), ahead: true }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.caught_up.is_empty() && self.apart.is_empty()
    }

    /// Whether all of them wait behind the end that is known.
    #[inline]
    pub(crate) fn are_ahead(&self) -> bool {
        self.ahead && self.caught_up.is_empty()
    }

    /// Whether a tail that waits there still does, or was notified meanwhile.
    #[inline]
    pub(crate) fn has(&self, waiting: Waiting) -> bool {
        match waiting {
            Waiting::No => false,
            Waiting::CaughtUp { round, .. } => round == self.round,
            Waiting::Apart { .. } => true,
        }
    }

    /// Lets a tail wait that has read everything.
    #[inline]
    pub(crate) fn add_caught_up(&mut self, tail: Key) -> Waiting {
        let place = place(&self.caught_up);
        self.caught_up.push(tail);
        Waiting::CaughtUp { place, round: self.round }
    }

    /// Lets a tail wait that is to be checked by itself; `ahead` says whether it waits behind the
    /// end that is known.
    pub(crate) fn add_apart(&mut self, tail: Key, ahead: bool) -> Waiting {
        let place = place(&self.apart);
        self.ahead &= ahead;
        self.apart.push(tail);
        Waiting::Apart { place }
    }

    /// Takes a tail out of the list in which it waits, and says which one has its place now.
    pub(crate) fn remove(&mut self, waiting: Waiting) -> Option<Key> {
        let (list, place) = match waiting {
            Waiting::CaughtUp { place, round } if round == self.round => {
                (&mut self.caught_up, place)
            }
            Waiting::Apart { place } => (&mut self.apart, place),
            Waiting::CaughtUp { .. } | Waiting::No => return None,
        };
        list.swap_remove(place as usize);
        list.get(place as usize).copied()
    }

    /// Those that have read everything, to be notified as one batch. Begins a new round.
    #[inline]
    pub(crate) fn end_round(&mut self) -> (&mut Vec<Key>, u32) {
        let round = self.round;
        self.round = round.wrapping_add(1);
        (&mut self.caught_up, round)
    }

    /// Makes every one be checked by itself.
    pub(crate) fn split(&mut self) {
        let (caught_up, _) = self.end_round();
        let mut caught_up = std::mem::take(caught_up);
        self.apart.append(&mut caught_up);
        self.caught_up = caught_up;
    }

    /// Whether there are any that have to be checked one by one.
    #[inline]
    pub(crate) fn has_apart(&self) -> bool {
        !self.apart.is_empty()
    }

    /// Those to check one by one. The ones without anything to read wait again.
    pub(crate) fn take_apart(&mut self) -> Vec<Key> {
        std::mem::take(&mut self.apart)
    }

    /// Gives the list of [`take_apart`](Self::take_apart) back, with those that wait again, and
    /// says whether all of them wait behind the end.
    pub(crate) fn set_apart(&mut self, tails: Vec<Key>, ahead: bool) {
        self.apart = tails;
        self.ahead = ahead;
    }
}

/// The next place in a list. One of 2^32 keys would not fit into memory.
fn place(list: &[Key]) -> u32 {
    u32::try_from(list.len()).unwrap_or(u32::MAX)
}
