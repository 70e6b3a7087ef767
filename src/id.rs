//! Owns the names of things: [`Token`], [`JobId`], [`Stream`], [`TailId`], and [`Slots`], the table
//! that makes ids generational.
//!
//! Invariant: an id that was given out once never names anything else, however often its slot is
//! used again. Knows nothing of what the slots hold.

use std::fmt;
use std::ops::{Index, IndexMut};
use std::str::FromStr;

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

/// Names one job: a random UUID (version 4), with which the names of its cgroup and of its log
/// file begin.
///
/// It goes stale when the job is [removed](crate::Reactor::remove); a stale id is an error, never
/// another job. An id can be written down and parsed again; whether there is such a job is found
/// out when it is used.
///
/// ```
/// use jobworker::{Command, JobId, Reactor, Token};
///
/// let mut reactor = Reactor::new()?;
/// let job = reactor.spawn(&Command::new("true"), Token(1))?;
/// let text = job.to_string(); // such as 67e55044-10b1-426f-9247-bb680e5fe0c8
/// assert_eq!(text.parse(), Ok(job));
/// assert!("job 1".parse::<JobId>().is_err());
/// # Ok::<(), jobworker::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(transparent))]
pub struct JobId(Uuid);

impl JobId {
    /// The UUID, of the crate that is re-exported as `jobworker::uuid`.
    #[must_use]
    pub fn uuid(self) -> Uuid {
        self.0
    }

    pub(crate) fn new(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl From<JobId> for Uuid {
    fn from(job: JobId) -> Self {
        job.0
    }
}

/// Parses a UUID, with or without hyphens.
impl FromStr for JobId {
    type Err = InvalidJobId;

    fn from_str(text: &str) -> Result<Self, InvalidJobId> {
        let invalid = |_| InvalidJobId { text: text.to_owned() };
        Uuid::try_parse(text).map(Self).map_err(invalid)
    }
}

/// A text that is not the id of a job.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not the id of a job: it has to be a UUID")]
#[non_exhaustive]
pub struct InvalidJobId {
    /// The text.
    pub text: String,
}

/// Writes the UUID.
impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JobId({})", self.0)
    }
}

/// Which of a job's logs to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stream {
    /// The log of both streams, or that of standard output when there are two.
    #[default]
    Output,
    /// The log of standard error, when that is a log of its own
    /// ([`Output::Split`](crate::Output::Split)).
    Error,
}

/// Writes `standard output` or `standard error`.
impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Output => "standard output",
            Self::Error => "standard error",
        })
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

impl Key {
    /// Half of the bits are for the slot, half for the generation.
    const SHIFT: u32 = usize::BITS / 2;
    const HALF: usize = usize::MAX >> Self::SHIFT;

    /// The key as one word, as the kernel keeps it with a registration; `None` for a slot that has
    /// no room in it, which there is only where a word has 32 bits. The greatest slot is left out,
    /// so that some words are free for other use.
    pub(crate) fn pack(self) -> Option<usize> {
        let slot = usize::try_from(self.slot).ok().filter(|slot| *slot < Self::HALF)?;
        let generation = usize::try_from(self.generation).unwrap_or(usize::MAX) & Self::HALF;
        Some(generation | slot << Self::SHIFT)
    }
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

    /// The key that the next insertion gives out.
    pub(crate) fn vacant_key(&self) -> Key {
        let slot = u32::try_from(self.entries.vacant_key()).unwrap_or(u32::MAX);
        Key { slot, generation: self.generation.wrapping_add(1) }
    }

    /// What is in the slot of a packed key, if that is the key's tenant still.
    pub(crate) fn unpack(&self, packed: usize) -> Option<(Key, &T)> {
        let (generation, value) = self.entries.get(packed >> Key::SHIFT)?;
        let slot = u32::try_from(packed >> Key::SHIFT).ok()?;
        let key = Key { slot, generation: *generation };
        (key.pack() == Some(packed)).then_some((key, value))
    }

    /// Empties the table.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = T> {
        self.entries.drain().map(|(_, value)| value)
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
