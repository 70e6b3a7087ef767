//! Owns [`End`]: where a file ends for a tail that goes on to another, found in a file to which
//! others may write.
//!
//! Invariant: the bytes before an end are of the content that had it, so that a file which was
//! written anew since can be told. Knows nothing of who reads up to there.

use std::io;

use crate::log::kernel::Kernel;
use crate::log::open_log::OpenLog;
use crate::log::window::{Mark, OVERLAP};

/// Where a file ends for a tail.
#[derive(Clone, Debug)]
pub(crate) struct End {
    pub(crate) offset: u64,
    /// The truncations of its log that were known when it was fixed; zero if that was not open.
    pub(crate) truncations: u32,
    /// The last bytes before it.
    mark: Mark,
}

impl End {
    /// An end of whatever content.
    pub(crate) fn at(offset: u64) -> Self {
        Self { offset, truncations: 0, mark: Mark::of_last(&[], offset) }
    }

    /// Where a file ends now whose log is not open: nobody knows its content, so any will do.
    pub(crate) fn of_file<K: Kernel>(kernel: &mut K, file: &K::File) -> io::Result<Self> {
        loop {
            let offset = kernel.size(file)?;
            if let Some(mark) = mark_before(kernel, file, offset)? {
                return Ok(Self { offset, truncations: 0, mark });
            }
        }
    }

    /// Where the file of an open log ends now. There may be news for its tails afterwards.
    pub(crate) fn of_log<K: Kernel>(
        kernel: &mut K,
        log: &mut OpenLog<K::File>,
        file: &K::File,
    ) -> io::Result<Self> {
        loop {
            let offset = log.size_now(kernel)?;
            let truncations = log.published().truncations();
            let mark = mark_before(kernel, file, offset)?;
            log.check(kernel)?;
            if let Some(mark) = mark.filter(|_| truncations == log.published().truncations()) {
                return Ok(Self { offset, truncations, mark });
            }
        }
    }

    /// Whether a file, of which nothing before `start` was kept, still has the bytes that were
    /// before its end, as far as that can be told.
    pub(crate) fn is_in<K: Kernel>(
        &self,
        kernel: &mut K,
        file: &K::File,
        start: u64,
    ) -> io::Result<bool> {
        if kernel.size(file)? < self.offset {
            return Ok(false);
        }
        let mark = self.mark.from(start);
        mark.holds(|buffer, offset| kernel.read_at(file, buffer, offset))
    }
}

/// The last bytes of a file before this offset; `None` when it has been truncated there.
fn mark_before<K: Kernel>(kernel: &mut K, file: &K::File, offset: u64) -> io::Result<Option<Mark>> {
    let (mut bytes, from) = ([0; OVERLAP], offset.saturating_sub(OVERLAP as u64));
    let bytes = &mut bytes[..usize::try_from(offset - from).unwrap_or(OVERLAP)];
    let read = kernel.read_at(file, bytes, from)?;
    Ok((read == bytes.len()).then(|| Mark::of_last(bytes, from)))
}
