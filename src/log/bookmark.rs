//! Owns [`Bookmark`]: where a reader was in a log, as a host writes it down to go on there.
//!
//! Plain data, but for the copy of a log that it is read from; knows nothing of tails.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::str::FromStr;
use std::{fmt, io};

use crate::log::window::Mark;

/// Where a reader was in a log: an offset, and the last bytes before it, by which the log is known
/// again. For [`Position::After`](crate::Position::After), in another process perhaps.
///
/// From [`Reactor::bookmark`](crate::Reactor::bookmark) or
/// [`worker::Output::bookmark`](crate::worker::Output::bookmark). It can be written down and parsed
/// again, and is as long as a line of a terminal at most.
///
/// ```
/// use jobworker::{Bookmark, Position, Reactor, Read, Token};
///
/// let mut reactor = Reactor::new()?;
/// let tail = reactor.tail_file("/etc/passwd", Position::Start, Token(0))?;
/// let mut buffer = [0; 5];
/// assert_eq!(reactor.read(tail, &mut buffer)?, Read::Data(5));
/// let text = reactor.bookmark(tail)?.to_string();
/// assert_eq!(text, "5:726f6f743a"); // behind "root:"
///
/// let bookmark: Bookmark = text.parse().unwrap();
/// let tail = reactor.tail_file("/etc/passwd", Position::After(bookmark), Token(0))?;
/// assert_eq!(reactor.read(tail, &mut buffer[..2])?, Read::Data(2));
/// assert_eq!(&buffer[..2], b"x:");
/// # Ok::<(), jobworker::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bookmark {
    /// The last bytes that were read. The reader is behind them.
    last: Mark,
    /// Whether the log was truncated since, which the reader was not told.
    gone: bool,
}

impl Bookmark {
    /// A place that the host knows otherwise: the offset of the next byte, and the last bytes that
    /// were read before it, of which at most the last 16 are kept. With none of them, a truncation
    /// is noticed by the length of the log alone.
    ///
    /// ```
    /// use jobworker::Bookmark;
    ///
    /// assert_eq!(Bookmark::new(5, b"root:").to_string(), "5:726f6f743a");
    /// ```
    #[must_use]
    pub fn new(offset: u64, last: &[u8]) -> Self {
        // There cannot be more before the offset.
        let known = usize::try_from(offset).unwrap_or(usize::MAX).min(last.len());
        let last = &last[last.len() - known..];
        Self::behind(Mark::of_last(last, offset - known as u64))
    }

    /// The place behind a file that is a copy of the log so far: its length, and its last bytes as
    /// the proof. A host that appends what it reads to such a file has to write nothing else down,
    /// so its death never comes between the bytes and the place; see
    /// [`guide::survival`](crate::guide::survival).
    ///
    /// # Errors
    /// When the file cannot be read: it has to be open for reading as well.
    pub fn of_copy(copied: &File) -> io::Result<Self> {
        Self::of_copy_from(copied, 0)
    }

    /// The same for a file to which the outputs of several jobs are appended, one after the other:
    /// `start` is how long it was when the copy of this log began, which a host writes down with
    /// the job, in its [label](crate::Command::label) for example.
    ///
    /// ```
    /// use jobworker::Bookmark;
    /// use std::io::Write;
    ///
    /// let mut file = tempfile::tempfile()?;
    /// file.write_all(b"of the first job\nof the second\n")?;
    /// assert_eq!(Bookmark::of_copy_from(&file, 17)?.offset(), 14);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`of_copy`](Self::of_copy); and of the kind `InvalidInput` when the file is shorter
    /// than `start`: somebody has shortened it since, so that it is no place.
    pub fn of_copy_from(copied: &File, start: u64) -> io::Result<Self> {
        let end = copied.metadata()?.len();
        let Some(length) = end.checked_sub(start) else {
            let problem = format!("the copy begins at {start} of a file of {end} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        };
        let mut last = [0; Mark::MOST];
        let last = &mut last[..usize::try_from(length).unwrap_or(usize::MAX).min(Mark::MOST)];
        copied.read_exact_at(last, end - last.len() as u64)?;
        Ok(Self::new(length, last))
    }

    /// Of a reader that has read these bytes last, if any are known.
    pub(crate) fn behind(last: Mark) -> Self {
        Self { last, gone: false }
    }

    /// Of a reader whose log was truncated, which it was not told.
    pub(crate) fn of_gone(offset: u64) -> Self {
        Self { last: Mark::of_last(&[], offset), gone: true }
    }

    /// The offset of the next byte.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.last.end()
    }

    /// What a log has to have for this to be a place in it; `None` if it is none in any.
    pub(crate) fn last(&self) -> Option<&Mark> {
        (!self.gone).then_some(&self.last)
    }
}

/// What stands for the bytes of a log that was truncated.
const GONE: &str = "gone";

/// Writes `offset:bytes`, the bytes in hexadecimal.
impl fmt::Display for Bookmark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.offset())?;
        if self.gone {
            return f.write_str(GONE);
        }
        self.last.bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Parses what [`Display`](fmt::Display) has written.
impl FromStr for Bookmark {
    type Err = InvalidBookmark;

    fn from_str(text: &str) -> Result<Self, InvalidBookmark> {
        parse(text).ok_or_else(|| InvalidBookmark { text: text.to_owned() })
    }
}

fn parse(text: &str) -> Option<Bookmark> {
    let (offset, bytes) = text.split_once(':')?;
    let offset: u64 = offset.parse().ok()?;
    if bytes == GONE {
        return Some(Bookmark::of_gone(offset));
    }
    let digits = bytes.as_bytes();
    if digits.len() > 2 * Mark::MOST || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let last = pairs.iter().map(|pair| byte(pair)).collect::<Option<Vec<u8>>>()?;
    let start = offset.checked_sub(last.len() as u64)?;
    Some(Bookmark::behind(Mark::of_last(&last, start)))
}

/// A text that is not a bookmark.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a bookmark: it has to be offset:bytes, the bytes in hexadecimal")]
#[non_exhaustive]
pub struct InvalidBookmark {
    /// The text.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bookmark_is_the_same_when_it_is_parsed_again() {
        for (start, bytes) in [(0, &b""[..]), (7, b""), (0, b"a"), (1 << 62, b"\0\x01\xfe\xff\n")] {
            let bookmark = Bookmark::behind(Mark::of_last(bytes, start));
            assert_eq!(bookmark.offset(), start + bytes.len() as u64);
            assert_eq!(bookmark.to_string().parse(), Ok(bookmark));
        }
        let last = Mark::of_last(&[b'x'; 100], 50);
        assert_eq!(Bookmark::behind(last).to_string(), format!("150:{}", "78".repeat(16)));
        let gone = Bookmark::of_gone(9);
        assert_eq!((gone.to_string().as_str(), gone.to_string().parse()), ("9:gone", Ok(gone)));
        let long = format!("99:{}", "00".repeat(17));
        for text in ["", "1", ":00", "1:0", "1:0g", "0:00", "-1:", "1:+1", "x:", "1:é", &long] {
            assert!(text.parse::<Bookmark>().is_err(), "{text}");
        }
    }
}
