//! Owns how a tail is opened: [`TailOptions`] and [`Position`].
//!
//! Plain data; knows nothing of the log behind it.

use crate::id::Stream;

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
    /// At the start of the last `n` lines; a last line without a newline counts as one.
    ///
    /// The log is read backwards until they are found, without its holes: the cost grows with their
    /// length. Opening the tail reads about half a megabyte; if that is not enough, the search goes
    /// on by as much in each further [`poll`](crate::Reactor::poll), one tail at a time. Until it
    /// ends there is nothing to read, not even the end of a snapshot: a read returns
    /// [`UpToDate`](crate::Read::UpToDate), and [`Event::Readable`](crate::Event::Readable) comes
    /// when there is something.
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
