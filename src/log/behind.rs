//! Owns [`Behind`]: what the tails that read behind the window of their log have read last.
//!
//! Invariant: a mark is of the content that its tail is reading; a tail that has reported a
//! truncation, or reads from the window again and waits there, has none. Few tails have one at any
//! time, so that it takes no room in all of them. Knows nothing of how a tail reads.

use std::collections::HashMap;

use crate::id::Key;
use crate::log::window::Mark;

/// A mark for each tail that is behind.
#[derive(Debug, Default)]
pub(crate) struct Behind {
    marks: HashMap<Key, Mark>,
}

impl Behind {
    /// What the tail has read last, if it was behind then.
    pub(crate) fn mark(&self, tail: Key) -> Option<&Mark> {
        self.marks.get(&tail)
    }

    /// The tail has read these bytes at this offset from the file.
    pub(crate) fn has_read(&mut self, tail: Key, bytes: &[u8], offset: u64) {
        self.marks.insert(tail, Mark::of_last(bytes, offset));
    }

    /// The tail was read elsewhere, last these bytes.
    pub(crate) fn was_read(&mut self, tail: Key, last: Mark) {
        self.marks.insert(tail, last);
    }

    /// The tail is not behind any more. Called for each line: usually nobody is.
    #[inline]
    pub(crate) fn forget(&mut self, tail: Key) {
        if !self.marks.is_empty() {
            self.marks.remove(&tail);
        }
    }
}
