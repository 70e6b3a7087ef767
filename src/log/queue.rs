//! Owns [`Queue`]: the events that wait to be returned, oldest first.
//!
//! Invariant: the tails that wait for the same log come in as one list, whatever their number: the
//! event of each is built when it is taken out. Knows nothing of what an event means.

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
    /// A batch of one tail: the usual case, which needs no list.
    One(Key, u32),
    Batch(Batch),
}

/// Tails that have waited for the same log, and for which there is something now.
#[derive(Debug)]
pub(crate) struct Batch {
    tails: Vec<Key>,
    /// The first that was not taken out yet.
    next: usize,
    round: u32,
}

impl Batch {
    /// In which round of their log they have waited. A tail that was closed or has waited again
    /// since then is skipped.
    pub(crate) fn round(&self) -> u32 {
        self.round
    }

    /// Takes out the next one.
    pub(crate) fn take(&mut self) -> Option<Key> {
        let tail = self.tails.get(self.next).copied();
        self.next += 1;
        tail
    }
}

/// What comes out of the queue next.
#[derive(Debug)]
pub(crate) enum Front<'a> {
    /// This event, which is out already.
    Event(Event),
    /// A tail that has waited in this round, which is out already.
    One(Key, u32),
    /// Tails, which are to be taken out one by one.
    Batch(&'a mut Batch),
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

    /// Queues an event for all tails that wait in this round of a log. Leaves an empty list.
    pub(crate) fn push_batch(&mut self, tails: &mut Vec<Key>, round: u32) {
        match tails[..] {
            [] => {}
            [tail] => {
                tails.clear();
                self.entries.push_back(Entry::One(tail, round));
            }
            _ => {
                let empty = self.spare.pop().unwrap_or_default();
                let tails = std::mem::replace(tails, empty);
                self.entries.push_back(Entry::Batch(Batch { tails, next: 0, round }));
            }
        }
    }

    /// Drops the batches at the front from which every tail was taken out: they are not work.
    pub(crate) fn drop_used_up(&mut self) {
        while let Some(Entry::Batch(Batch { tails, next, .. })) = self.entries.front_mut()
            && *next >= tails.len()
        {
            tails.clear();
            self.spare.push(std::mem::take(tails));
            self.entries.pop_front();
        }
    }

    /// What comes next.
    pub(crate) fn front(&mut self) -> Option<Front<'_>> {
        self.drop_used_up();
        if let Entry::Batch(_) = self.entries.front()? {
            let Some(Entry::Batch(batch)) = self.entries.front_mut() else {
                unreachable!("it was just seen")
            };
            return Some(Front::Batch(batch));
        }
        match self.entries.pop_front()? {
            Entry::Event(event) => Some(Front::Event(event)),
            Entry::One(tail, round) => Some(Front::One(tail, round)),
            Entry::Batch(_) => unreachable!("it was just seen"),
        }
    }

    /// The events that wait, to be changed.
    pub(crate) fn events_mut(&mut self) -> impl Iterator<Item = &mut Event> {
        self.entries.iter_mut().filter_map(|entry| match entry {
            Entry::Event(event) => Some(event),
            Entry::One(..) | Entry::Batch(_) => None,
        })
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
    }

    /// The events in the queue, oldest first.
    #[cfg(any(fuzzing, test))]
    pub(crate) fn events(&self) -> impl Iterator<Item = &Event> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Event(event) => Some(event),
            Entry::One(..) | Entry::Batch(_) => None,
        })
    }

    /// The tails in the queue with the rounds in which they have waited, oldest first.
    #[cfg(any(fuzzing, test))]
    pub(crate) fn batches(&self) -> impl Iterator<Item = (Key, u32)> {
        self.entries.iter().flat_map(|entry| {
            let (one, several) = match entry {
                Entry::Event(_) => (None, None),
                Entry::One(tail, round) => (Some((*tail, *round)), None),
                Entry::Batch(batch) => (None, Some(batch)),
            };
            let several = several.into_iter().flat_map(|batch| {
                batch.tails.iter().skip(batch.next).map(|tail| (*tail, batch.round))
            });
            one.into_iter().chain(several)
        })
    }
}
