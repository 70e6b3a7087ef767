//! Owns how a tail is opened: [`TailOptions`] and [`Position`].
//!
//! Plain data; knows nothing of the log behind it.

use crate::id::Stream;
use crate::log::bookmark::Bookmark;
use crate::log::file_id::FileId;

/// Where a tail begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Position {
    /// At the first byte; of a log of which only the newest bytes are
    /// [kept](crate::Command::log_keep), at the first byte that was kept.
    Start,
    /// At the end that the log has when the tail is opened.
    End,
    /// At this byte, counted from zero. Past the end, a following tail waits until the log has come
    /// so far. Before the first byte that was kept, the tail begins with
    /// [`Read::Skipped`](crate::Read::Skipped).
    Offset(u64),
    /// Where an earlier reader was, in another process perhaps. If the log was truncated since, the
    /// tail begins with [`Read::Truncated`](crate::Read::Truncated), and goes on at its first byte.
    ///
    /// That is noticed by up to 16 bytes before the place: not if the log has the same ones there
    /// again, nor if none of them was [kept](crate::Command::log_keep).
    After(Bookmark),
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

impl Position {
    /// The offset, if it is one.
    pub(crate) fn offset(self) -> Option<u64> {
        match self {
            Self::Offset(offset) => Some(offset),
            Self::Start | Self::End | Self::After(_) | Self::LastLines(_) => None,
        }
    }
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
    pub(crate) by_name: bool,
    /// The file in which the position is, if it is not the one that has the name now.
    pub(crate) resume: Option<FileId>,
}

impl TailOptions {
    /// Begins at `position` and follows the log as it grows.
    #[must_use]
    pub fn new(position: Position) -> Self {
        Self { position, follow: true, stream: Stream::Output, by_name: false, resume: None }
    }

    /// Follows a file [by name](Self::by_name) from where an earlier tail has stopped, perhaps in
    /// another process: `file` is what [`Reactor::file_id`](crate::Reactor::file_id) and `offset`
    /// what [`Reactor::position`](crate::Reactor::position) have returned last.
    ///
    /// If that file has the name, or is the first to get it, the tail goes on in it there. If the
    /// file has fewer bytes, it was truncated, and is read from its first byte. If another file has
    /// the name, the tail first returns [`Read::Replaced`](crate::Read::Replaced) with `missed`,
    /// because what came to the earlier file meanwhile, and other files in between, are not read;
    /// then it reads that file from its first byte.
    ///
    /// ```
    /// use jobworker::{Position, Reactor, Read, TailOptions, Token};
    ///
    /// let mut reactor = Reactor::new()?;
    /// let mut options = TailOptions::new(Position::Start);
    /// let tail = reactor.tail_file("/etc/passwd", options.by_name(), Token(0))?;
    /// let mut buffer = [0; 5];
    /// assert_eq!(reactor.read(tail, &mut buffer)?, Read::Data(5));
    /// let (file, offset) = (reactor.file_id(tail)?.unwrap(), reactor.position(tail)?);
    /// reactor.close(tail)?;
    ///
    /// let options = TailOptions::resume(file, offset);
    /// let tail = reactor.tail_file("/etc/passwd", options, Token(0))?;
    /// assert_eq!(reactor.read(tail, &mut buffer[..2])?, Read::Data(2));
    /// assert_eq!(&buffer[..2], b"x:");
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    #[must_use]
    pub fn resume(file: FileId, offset: u64) -> Self {
        let mut options = Self::new(Position::Offset(offset));
        options.by_name().resume = Some(file);
        options
    }

    /// Ends where the log ends when the tail is opened, instead of following it.
    pub fn snapshot(&mut self) -> &mut Self {
        self.follow = false;
        self
    }

    /// Follows the name of a file, whatever file has it, instead of the file that has it now: for
    /// [`Reactor::tail_file`](crate::Reactor::tail_file) on logs that are rotated, like `tail -F`.
    /// The chapter on [rotation](crate::guide::rotation) says what is guaranteed.
    ///
    /// The position is one in the file that has the name when the tail is opened. Each file that
    /// gets the name later is read from its first byte, after
    /// [`Read::Replaced`](crate::Read::Replaced). So is the first one if there is none yet, without
    /// that report.
    ///
    /// It has no effect on a snapshot, which reads the file that has the name now, nor on the log
    /// of a job, which is one file.
    #[doc(alias = "tail -F")]
    pub fn by_name(&mut self) -> &mut Self {
        self.by_name = true;
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
