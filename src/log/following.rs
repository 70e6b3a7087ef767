//! Owns [`Following`]: the tails that follow a name, and for which of them the name is to be looked
//! up again.
//!
//! Invariant: a tail is in the list once at most. Knows nothing of what a look finds.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::id::Key;
use crate::log::follower::Follower;

/// The tails that follow a name, by their keys.
#[derive(Debug)]
pub(crate) struct Following<N, F> {
    followers: HashMap<Key, Follower<N, F>>,
    /// Those whose name is to be looked up, oldest first, and the same as a set.
    due: VecDeque<Key>,
    listed: HashSet<Key>,
    /// For which tail a scout waits.
    scouts: HashMap<Key, Key>,
}

impl<N, F> Following<N, F> {
    pub(crate) fn new() -> Self {
        Self {
            followers: HashMap::new(),
            due: VecDeque::new(),
            listed: HashSet::new(),
            scouts: HashMap::new(),
        }
    }

    pub(crate) fn insert(&mut self, tail: Key, follower: Follower<N, F>) {
        self.followers.insert(tail, follower);
    }

    pub(crate) fn get(&self, tail: Key) -> Option<&Follower<N, F>> {
        self.followers.get(&tail)
    }

    pub(crate) fn get_mut(&mut self, tail: Key) -> Option<&mut Follower<N, F>> {
        self.followers.get_mut(&tail)
    }

    /// Forgets a tail, whose scout has to be gone.
    pub(crate) fn remove(&mut self, tail: Key) {
        self.followers.remove(&tail);
        // Its key stays in the list, where it is skipped.
        self.listed.remove(&tail);
    }

    /// How many scouts there are: they are no tails of the host.
    pub(crate) fn scouts(&self) -> usize {
        self.scouts.len()
    }

    pub(crate) fn add_scout(&mut self, scout: Key, tail: Key) {
        self.scouts.insert(scout, tail);
    }

    pub(crate) fn remove_scout(&mut self, scout: Key) {
        self.scouts.remove(&scout);
    }

    /// The file that a scout waits for has bytes, or has failed.
    pub(crate) fn reported(&mut self, scout: Key) {
        if let Some(tail) = self.scouts.get(&scout) {
            self.add_due(*tail);
        }
    }

    /// Lets the name of a tail be looked up, unless the tail was closed.
    pub(crate) fn add_due(&mut self, tail: Key) {
        if self.followers.contains_key(&tail) && self.listed.insert(tail) {
            self.due.push_back(tail);
        }
    }

    /// Lets every name be looked up.
    pub(crate) fn add_all(&mut self) {
        let all: Vec<Key> = self.followers.keys().copied().collect();
        for tail in all {
            self.add_due(tail);
        }
    }

    /// Whether a name is to be looked up.
    pub(crate) fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// How many tails are in the list.
    pub(crate) fn due(&self) -> usize {
        self.due.len()
    }

    /// Takes the oldest tail in the list; `None` also for one that was closed since.
    pub(crate) fn take_due(&mut self) -> Option<Key> {
        self.due.pop_front().filter(|tail| self.listed.remove(tail))
    }
}
