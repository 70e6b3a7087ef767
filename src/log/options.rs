//! Owns how a tail is opened: [`TailOptions`], [`Position`] and [`Stream`].
//!
//! Plain data; knows nothing of the log behind it.

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

/// How to open a tail; a [`Position`] alone will do.
///
/// ```
/// use jobworker::{Position, Stream, TailOptions};
///
/// let options = TailOptions::new(Position::LastLines(10)).snapshot().stream(Stream::Error);
/// assert_eq!(TailOptions::from(Position::End), TailOptions::new(Position::End));
/// # let _ = options;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub struct TailOptions {
    pub(crate) position: Position,
    pub(crate) follow: bool,
    pub(crate) stream: Stream,
}

impl TailOptions {
    /// Begins at `position` and follows the log as it grows.
    pub fn new(position: Position) -> Self {
        Self { position, follow: true, stream: Stream::Output }
    }

    /// Ends where the log ends when the tail is opened, instead of following it.
    pub fn snapshot(mut self) -> Self {
        self.follow = false;
        self
    }

    /// Reads this log of the job.
    pub fn stream(mut self, stream: Stream) -> Self {
        self.stream = stream;
        self
    }
}

/// Follows from there.
impl From<Position> for TailOptions {
    fn from(position: Position) -> Self {
        Self::new(position)
    }
}
