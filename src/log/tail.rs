//! Owns how a log is read: [`Position`], [`TailOptions`], the answers [`Read`], [`Fill`] and
//! [`Chunk`], and the state of one tail.
//!
//! Plain data; knows nothing of the log behind it.

use crate::id::{Key, Stream, Token};

/// Where a tail begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Position {
    /// At the first byte.
    Start,
    /// At the end that the log has when the tail is opened.
    End,
    /// At this byte, counted from zero. Past the end, a following tail waits until the log has come
    /// so far.
    Offset(u64),
    /// At the beginning of the last lines, this many; a last line without a newline counts as one.
    ///
    /// Opening the tail reads the log backwards until it has found them: the cost grows with their
    /// length.
    LastLines(u64),
}

/// How to open a tail; a [`Position`] alone will do.
///
/// ```
/// use jobworker::{Command, Position, Reactor, TailOptions, Token};
///
/// let mut reactor = Reactor::new()?;
/// let job = reactor.spawn(&Command::new("true"), Token(1))?;
/// reactor.tail(job, TailOptions::new(Position::LastLines(10)).snapshot(), Token(2))?;
/// reactor.tail(job, Position::End, Token(3))?;
/// # Ok::<(), jobworker::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TailOptions {
    pub(crate) position: Position,
    pub(crate) follow: bool,
    pub(crate) stream: Stream,
}

impl TailOptions {
    /// Begins at `position` and follows the log as it grows.
    #[must_use]
    pub fn new(position: Position) -> Self {
        Self { position, follow: true, stream: Stream::Output }
    }

    /// Ends where the log ends when the tail is opened, instead of following it.
    pub fn snapshot(&mut self) -> &mut Self {
        self.follow = false;
        self
    }

    /// Reads this log of the job.
    pub fn stream(&mut self, stream: Stream) -> &mut Self {
        self.stream = stream;
        self
    }
}

/// For a call that ends in a setter.
impl From<&mut TailOptions> for TailOptions {
    fn from(options: &mut TailOptions) -> Self {
        *options
    }
}

/// For options that are used more than once.
impl From<&TailOptions> for TailOptions {
    fn from(options: &TailOptions) -> Self {
        *options
    }
}

/// Follows from there.
impl From<Position> for TailOptions {
    fn from(position: Position) -> Self {
        Self::new(position)
    }
}

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

/// Where a tail ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// At this offset, known from the start.
    Offset(u64),
    /// Where the job's log ends, once that is known.
    JobEnd,
    /// Nowhere: the log is only a file.
    Never,
}

/// The state of one tail.
#[derive(Debug)]
pub(crate) struct Tail {
    pub(crate) log: Key,
    pub(crate) token: Token,
    /// The next byte to read.
    pub(crate) offset: u64,
    pub(crate) until: Until,
    /// The log's truncations that this tail was told of.
    pub(crate) truncations: u32,
    /// How much the last `fill_buf` showed, and so how much may be consumed.
    pub(crate) filled: usize,
    /// Its place in the log's list of waiting tails.
    pub(crate) waiting: Option<u32>,
    /// Whether an event for it is in the queue.
    pub(crate) queued: bool,
    /// Whether it was told that it has ended: it is told nothing else from then on.
    pub(crate) ended: bool,
}
