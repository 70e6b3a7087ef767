//! Owns [`Queue`]: the events that wait to be returned, oldest first.
//!
//! Invariant: the tails that wait for the same log come in as one list, whatever their number: what
//! each of them is told is made when it is taken out. Knows nothing of what an event means.

use std::collections::VecDeque;

use crate::event::Event;
use crate::id::Key;

/// The events that wait to be returned.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    entries: VecDeque<Entry>,
    /// Empty lists, kept for their memory.
    spare: Vec<Vec<Key>>,
}

#[derive(Debug)]
enum Entry {
    Event(Event),
    Crowd(Crowd),
}

/// Tails that have waited for the same log, and for which there is something now.
#[derive(Debug)]
struct Crowd {
    tails: Vec<Key>,
    /// The first that was not taken out yet.
    next: usize,
    round: u32,
}

/// What comes out of the queue.
#[derive(Debug)]
pub(crate) enum Next {
    Event(Event),
    /// Something for a tail that has waited in this round of its log, unless it was closed or has
    /// waited again since.
    Tail(Key, u32),
}

impl Queue {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn push(&mut self, event: Event) {
        self.entries.push_back(Entry::Event(event));
    }

    /// There is something for all tails that wait in this round of a log. Leaves an empty list.
    pub(crate) fn push_crowd(&mut self, tails: &mut Vec<Key>, round: u32) {
        if !tails.is_empty() {
            let empty = self.spare.pop().unwrap_or_default();
            let tails = std::mem::replace(tails, empty);
            self.entries.push_back(Entry::Crowd(Crowd { tails, next: 0, round }));
        }
    }

    /// Takes out what comes next.
    pub(crate) fn pop(&mut self) -> Option<Next> {
        loop {
            if let Entry::Crowd(crowd) = self.entries.front_mut()?
                && let Some(tail) = crowd.tails.get(crowd.next)
            {
                crowd.next += 1;
                return Some(Next::Tail(*tail, crowd.round));
            }
            match self.entries.pop_front()? {
                Entry::Event(event) => return Some(Next::Event(event)),
                Entry::Crowd(Crowd { mut tails, .. }) => {
                    tails.clear();
                    self.spare.push(tails);
                }
            }
        }
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
    }

    /// Everything in the queue, oldest first; those of [`Next::Tail`] that mean nothing any more
    /// included.
    #[cfg(any(fuzzing, test))]
    pub(crate) fn iter(&self) -> impl Iterator<Item = Next> {
        self.entries.iter().flat_map(|entry| match entry {
            Entry::Event(event) => vec![Next::Event(event.clone())],
            Entry::Crowd(Crowd { tails, next, round }) => {
                tails.iter().skip(*next).map(|tail| Next::Tail(*tail, *round)).collect()
            }
        })
    }
}
