//! Owns the names of things: [`Token`], [`JobId`], [`TailId`], and [`Slots`], the table that makes
//! ids generational.
//!
//! Invariant: an id that was given out once never names anything else, however often its slot is
//! used again. Knows nothing of what the slots hold.

use std::fmt;
use std::ops::{Index, IndexMut};

use slab::Slab;
use uuid::Uuid;

/// The host's own word, echoed with every event of the job or tail that it was given for.
///
/// ```
/// use jobworker::Token;
///
/// assert_eq!(Token(7).0, 7);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub usize);

/// Names one job of one reactor; a UUID to the outside.
///
/// It goes stale when the job is [removed](crate::Reactor::remove); a stale id is an error, never
/// another job.
///
/// ```
/// # fn show(job: jobworker::JobId) {
/// println!("{job}"); // 67e55044-10b1-426f-9247-bb680e5fe0c8
/// let _name: uuid::Uuid = job.uuid();
/// # }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId {
    uuid: Uuid,
    slot: u32,
}

impl JobId {
    /// The UUID, a random one (version 4): the name of the job's cgroup and of its log file.
    #[must_use]
    pub fn uuid(self) -> Uuid {
        self.uuid
    }

    pub(crate) fn new(uuid: Uuid, slot: u32) -> Self {
        Self { uuid, slot }
    }

    pub(crate) fn slot(self) -> u32 {
        self.slot
    }
}

/// Writes the UUID.
impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.uuid, f)
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JobId({})", self.uuid)
    }
}

/// Names one tail of one reactor.
///
/// It goes stale when the tail is [closed](crate::Reactor::close) or its job is removed; a stale id
/// is an error, never another tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TailId(pub(crate) Key);

/// A slot and which of its tenants is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    slot: u32,
    generation: u32,
}

/// A slab whose keys remember which of a slot's tenants they were given to.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    entries: Slab<(u32, T)>,
    generation: u32,
}

impl<T> Slots<T> {
    pub(crate) fn new() -> Self {
        Self { entries: Slab::new(), generation: 0 }
    }

    /// Counts the generations from here on: a table that starts at a random place does not know the
    /// keys of another.
    pub(crate) fn starting_at(generation: u32) -> Self {
        Self { entries: Slab::new(), generation }
    }

    pub(crate) fn insert(&mut self, value: T) -> Key {
        self.generation = self.generation.wrapping_add(1);
        let slot = self.entries.insert((self.generation, value));
        // A slab of 2^32 entries would not fit into memory.
        Key { slot: u32::try_from(slot).unwrap_or(u32::MAX), generation: self.generation }
    }

    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        self.entries
            .get(key.slot as usize)
            .filter(|(generation, _)| *generation == key.generation)
            .map(|(_, value)| value)
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.entries
            .get_mut(key.slot as usize)
            .filter(|(generation, _)| *generation == key.generation)
            .map(|(_, value)| value)
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        self.get(key)?;
        Some(self.entries.remove(key.slot as usize).1)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.entries.iter().map(|(slot, (generation, value))| {
            (Key { slot: u32::try_from(slot).unwrap_or(u32::MAX), generation: *generation }, value)
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

/// For a key that cannot be stale.
///
/// # Panics
/// When it is.
impl<T> Index<Key> for Slots<T> {
    type Output = T;

    fn index(&self, key: Key) -> &T {
        let Some(value) = self.get(key) else { unreachable!("stale key: {key:?}") };
        value
    }
}

/// For a key that cannot be stale.
///
/// # Panics
/// When it is.
impl<T> IndexMut<Key> for Slots<T> {
    fn index_mut(&mut self, key: Key) -> &mut T {
        let Some(value) = self.get_mut(key) else { unreachable!("stale key: {key:?}") };
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_used_again_does_not_answer_to_its_old_id() {
        let mut slots = Slots::new();
        let first = slots.insert('a');
        assert_eq!(slots.remove(first), Some('a'));
        let second = slots.insert('b');
        assert_eq!(first.slot, second.slot);
        assert_eq!(slots.get(first), None);
        assert_eq!(slots.remove(first), None);
        assert_eq!(slots.get_mut(second), Some(&mut 'b'));
        assert_eq!(slots.len(), 1);
    }
    #[test]
    #[should_panic(expected = "stale key")]
    fn indexing_by_a_stale_key_panics() {
        let mut slots = Slots::new();
        let first = slots.insert('a');
        slots.remove(first);
        slots.insert('b');
        let _ = slots[first];
    }
}
