//! Owns the answers to a reader: [`Read`], [`Fill`], [`Chunk`] and
//! [`ReadError`].
//!
//! Plain data; knows nothing of tails and logs.

use std::io;

/// What [`Reactor::read`](crate::Reactor::read) found.
///
/// # Read on until `UpToDate` or `Ended`
/// [`Event::Readable`](crate::Event::Readable) is edge-triggered: it comes again only after
/// `UpToDate` was returned. A loop that stops at `Truncated`, `Skipped` or `Replaced`, as `while
/// let Read::Data(..)` does, never gets the bytes that follow. Match on all six variants, or use
/// [`next_chunk`](crate::Reactor::next_chunk), whose `while let` loop is right.
///
/// ```
/// use jobworker::{Reactor, Read, TailId};
///
/// /// Reads what a tail has for now; says whether there can be more.
/// fn read_all(reactor: &mut Reactor, tail: TailId, to: &mut Vec<u8>) -> jobworker::Result<bool> {
///     let mut buffer = [0; 8192];
///     loop {
///         match reactor.read(tail, &mut buffer)? {
///             Read::Data(length) => to.extend_from_slice(&buffer[..length]),
///             Read::Truncated => eprintln!("the log was truncated"),
///             Read::Skipped { bytes } => eprintln!("{bytes} bytes are gone"),
///             Read::Replaced { missed } => eprintln!("another file; files missed: {missed}"),
///             Read::UpToDate => return Ok(true),
///             Read::Ended => return Ok(false),
///         }
///     }
/// }
/// # let mut reactor = Reactor::new()?;
/// # let start = jobworker::Position::Start;
/// # let tail = reactor.tail_file("/etc/passwd", start, jobworker::Token(0))?;
/// # let mut bytes = Vec::new();
/// # assert!(read_all(&mut reactor, tail, &mut bytes)?);
/// # assert_eq!(bytes, std::fs::read("/etc/passwd").unwrap());
/// # Ok::<(), jobworker::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Read {
    /// This many bytes were copied, at least one unless the buffer is empty.
    Data(usize),
    /// Every byte known so far was read; [`Event::Readable`](crate::Event::Readable) comes when
    /// there is more.
    UpToDate,
    /// The job truncated its log since the last read, or it was written anew; bytes that this tail
    /// had not read are gone. The tail goes on at the first byte of what the log is now: read on.
    Truncated,
    /// The next bytes were not kept: the log has a [`log_keep`](crate::Command::log_keep), and has
    /// grown by more than that since they were written. The tail goes on at the first byte that was
    /// kept, of the same log: read on.
    Skipped {
        /// How many bytes are gone, at least one.
        bytes: u64,
    },
    /// The name leads to another file now, and the tail has read the one before it: only for a tail
    /// that follows [by name](crate::TailOptions::by_name). It goes on in the next file, usually at
    /// its first byte: read on.
    Replaced {
        /// Whether there may have been files in between of which the tail reads nothing: they had
        /// the name for a shorter time than the reactor took to look, or there were too many that
        /// this tail had not read yet.
        missed: bool,
    },
    /// Every byte was read and there will be no more. Each further read returns it again.
    Ended,
}

/// What [`Reactor::fill_buf`](crate::Reactor::fill_buf) found.
///
/// As with [`Read`], read on until `UpToDate` or `Ended`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fill<'a> {
    /// The next bytes of the log, at least one.
    Data(&'a [u8]),
    /// As [`Read::UpToDate`].
    UpToDate,
    /// As [`Read::Truncated`].
    Truncated,
    /// As [`Read::Skipped`].
    Skipped {
        /// As there.
        bytes: u64,
    },
    /// As [`Read::Replaced`].
    Replaced {
        /// As there.
        missed: bool,
    },
    /// As [`Read::Ended`].
    Ended,
}

/// The next piece of a tail, from [`Reactor::next_chunk`](crate::Reactor::next_chunk).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Chunk<'a> {
    /// The next bytes of the log; none when the chunk only reports what follows.
    pub bytes: &'a [u8],
    /// The job truncated its log, or it was written anew, before these bytes: see
    /// [`Read::Truncated`].
    pub truncated: bool,
    /// So many bytes before these were not kept: see [`Read::Skipped`].
    pub skipped: u64,
    /// The bytes that follow are of another file: see [`Read::Replaced`].
    pub replaced: bool,
    /// There may have been files in between of which nothing is read: see [`Read::Replaced`].
    pub missed: bool,
}

impl Chunk<'_> {
    /// Without bytes and without a report.
    pub(crate) const EMPTY: Self =
        Self { bytes: &[], truncated: false, skipped: 0, replaced: false, missed: false };
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
