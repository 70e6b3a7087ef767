//! Owns the answers to a reader: [`Read`], [`Fill`], [`Chunk`] and
//! [`ReadError`].
//!
//! Plain data; knows nothing of tails and logs.

use std::io;

/// What [`Reactor::read`](crate::Reactor::read) found.
///
/// # Read on until `UpToDate` or `Ended`
/// [`Event::Readable`](crate::Event::Readable) is edge-triggered: it comes again only after
/// `UpToDate` was returned. A loop that stops at `Truncated`, as `while let Read::Data(..)` does,
/// never gets the bytes that follow. Match on all four variants, or use
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
///             Read::Truncated => eprintln!("the job has truncated its log"),
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
    /// As [`Read::Ended`].
    Ended,
}

/// The next piece of a tail, from [`Reactor::next_chunk`](crate::Reactor::next_chunk).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Chunk<'a> {
    /// The next bytes of the log; none when the chunk only reports a truncation.
    pub bytes: &'a [u8],
    /// The job truncated its log, or it was written anew, before these bytes: see
    /// [`Read::Truncated`].
    pub truncated: bool,
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
