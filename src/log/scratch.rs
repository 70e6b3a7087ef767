//! Owns [`Scratch`]: bytes of a log that were read for one tail, which is too far behind for the
//! window.
//!
//! Invariant: the bytes are those of one content of the log, from one offset on. Pure: it reads
//! through a closure.

use std::io;

use crate::id::Key;

/// The bytes that the last `fill` of a tail behind its window has read.
#[derive(Debug)]
pub(crate) struct Scratch {
    /// For which tail, and for which content of its log by the number of truncations.
    owner: Option<(Key, u32)>,
    /// The offset in the log of the first byte.
    start: u64,
    /// How many bytes were read.
    length: usize,
    /// Empty until it is needed.
    bytes: Vec<u8>,
    /// How much is read at a time.
    capacity: usize,
}

impl Scratch {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { owner: None, start: 0, length: 0, bytes: Vec::new(), capacity }
    }

    /// Makes bytes at `offset` available, at most `left`, and says how many there are. They are
    /// read unless the last call for the same owner has read them; `None` when `read` says that the
    /// log does not have them any more.
    pub(crate) fn fetch(
        &mut self,
        owner: (Key, u32),
        offset: u64,
        left: u64,
        read: impl FnOnce(&mut [u8]) -> io::Result<bool>,
    ) -> io::Result<Option<usize>> {
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        if self.owner == Some(owner)
            && let Some(rest) = self.from(offset)
            && !rest.is_empty()
        {
            return Ok(Some(rest.len().min(left)));
        }
        self.owner = None;
        self.bytes.resize(self.capacity, 0);
        let length = left.min(self.bytes.len());
        if !read(&mut self.bytes[..length])? {
            return Ok(None);
        }
        (self.owner, self.start, self.length) = (Some(owner), offset, length);
        Ok(Some(length))
    }

    /// Forgets the bytes: their owner goes on in another log, where the same offsets are others.
    pub(crate) fn forget(&mut self) {
        self.owner = None;
    }

    /// The bytes from `offset` on, if this is an offset of theirs.
    pub(crate) fn from(&self, offset: u64) -> Option<&[u8]> {
        let skip = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        self.bytes.get(skip..self.length)
    }
}
