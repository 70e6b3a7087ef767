//! Owns the answers to a reader: [`Read`], [`Fill`] and [`ReadError`].
//!
//! Plain data; knows nothing of tails and logs.

use std::io;

/// What [`Reactor::read`](crate::Reactor::read) found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Read {
    /// This many bytes were copied, at least one unless the buffer is empty.
    Data(usize),
    /// Every byte known so far was read; [`Event::Readable`](crate::Event::Readable) comes when
    /// there is more.
    UpToDate,
    /// The job truncated its log since the last read, or it was written anew; bytes that this tail
    /// had not read are gone. The tail goes on at the first byte of what the log is now.
    Truncated,
    /// Every byte was read and there will be no more.
    Ended,
}

/// What [`Reactor::fill_buf`](crate::Reactor::fill_buf) found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fill<'a> {
    /// The next bytes of the log, at least one.
    Data(&'a [u8]),
    /// As [`Read::UpToDate`].
    UpToDate,
    /// As [`Read::Truncated`].
    Truncated,
    /// As [`Read::Ended`].
    Ended,
}

/// Why a tail could not be read.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// There is no such tail.
    Unknown,
    /// The log of this tail could not be read or watched.
    Io(io::Error),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}
