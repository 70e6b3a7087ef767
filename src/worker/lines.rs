//! Owns [`Lines`], which reads a log line by line, and [`Line`].
//!
//! Invariant: a line that is not complete is kept until it is, and never more than the bound of
//! it, so that giving up a wait loses nothing. Knows nothing of where bytes come from.

use std::borrow::Cow;
use std::io::BufRead;
use std::task::{Context, Poll, ready};

use crate::error::{Result, TailError};
use crate::log::Fill;
use crate::worker::output::Output;
use crate::worker::wait::block_on;

/// The lines of a log, from [`Output::lines`].
///
/// An item is a line without its line feed; a last one without a line feed counts as well. A line
/// that is longer than the bound is returned in parts, of which only the last is
/// [complete](Line::is_complete).
///
/// Should the job truncate its log, the part of a line that was read by then is returned, then
/// [`TailError::Truncated`]; lines of what the log is now follow. Where bytes were not
/// [kept](crate::Command::log_keep) it is [`TailError::Skipped`], and the line after that may lack
/// its beginning. After any other error the same line can be asked for again.
#[derive(Debug)]
#[must_use = "lines are read when they are asked for"]
pub struct Lines {
    output: Output,
    most: usize,
    /// Of a line that is not complete, or has not been returned.
    line: Vec<u8>,
    /// The offset of its first byte, if it has one.
    start: u64,
    /// What is to be returned after it.
    then: Option<Then>,
}

/// What has ended a line that has no line feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Truncated,
    Skipped(u64),
    Ended,
}

/// A line of a log, or a part of a long one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Line {
    bytes: Vec<u8>,
    offset: u64,
    complete: bool,
}

impl Line {
    /// Its bytes, without the line feed. Whoever wants the bytes of the log as they are, line by
    /// line and with a bound, reads `(&mut output).take(most).read_until(b'\n', &mut bytes)`.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its bytes, without the line feed.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Its text. Whatever is not UTF-8 is replaced, also where a long line is divided within a
    /// character.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.bytes)
    }

    /// The offset in the log of its first byte.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether it has ended here: by a line feed, or because the log has. Otherwise the next one
    /// goes on with it.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete
    }
}

impl Lines {
    pub(super) fn new(output: Output, most: usize) -> Self {
        Self { output, most: most.max(1), line: Vec::new(), start: 0, then: None }
    }

    /// The offset in the log of the next line, or part of one, to return: a later reader can
    /// continue there, with [`Position::Offset`](crate::Position::Offset).
    #[must_use]
    pub fn offset(&self) -> u64 {
        if self.line.is_empty() { self.output.position() } else { self.start }
    }

    /// The reader whose lines they are, for its [`closer`](Output::closer) and its
    /// [`job`](Output::job).
    #[must_use]
    pub fn output(&self) -> &Output {
        &self.output
    }

    /// The next line for a task, which is woken when there is one; `None` at the end. Giving up
    /// loses nothing.
    ///
    /// # Errors
    /// As for [`Output::poll_read`]; [`Error::Tail`](crate::Error::Tail) (`Truncated` or
    /// `Skipped`).
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Line>>> {
        loop {
            match self.then {
                Some(_) if !self.line.is_empty() => {
                    return Poll::Ready(Some(Ok(self.take(true))));
                }
                Some(Then::Truncated) => {
                    self.then = None;
                    return Poll::Ready(Some(Err(TailError::Truncated.into())));
                }
                Some(Then::Skipped(bytes)) => {
                    self.then = None;
                    return Poll::Ready(Some(Err(TailError::Skipped { bytes }.into())));
                }
                Some(Then::Ended) => return Poll::Ready(None),
                None => {}
            }
            let bytes = match ready!(self.output.poll_fill(cx))? {
                Fill::Data(bytes) => bytes,
                Fill::Truncated => {
                    self.then = Some(Then::Truncated);
                    continue;
                }
                Fill::Skipped { bytes } => {
                    self.then = Some(Then::Skipped(bytes));
                    continue;
                }
                Fill::Ended => {
                    self.then = Some(Then::Ended);
                    continue;
                }
                Fill::UpToDate | Fill::Replaced { .. } => unreachable!("it waits, for one log"),
            };
            let room = bytes.len().min(self.most - self.line.len());
            // The byte behind the bound may be the line feed.
            let feed = bytes.iter().take(room + 1).position(|byte| *byte == b'\n');
            let length = feed.unwrap_or(room);
            let begins = self.line.is_empty();
            self.line.extend_from_slice(&bytes[..length]);
            if begins {
                self.start = self.output.position();
            }
            self.output.consume(length);
            if feed.is_some() || room == 0 {
                let line = self.take(feed.is_some());
                self.output.consume(usize::from(feed.is_some()));
                return Poll::Ready(Some(Ok(line)));
            }
        }
    }

    /// What was collected.
    fn take(&mut self, complete: bool) -> Line {
        let offset = self.offset();
        Line { bytes: std::mem::take(&mut self.line), offset, complete }
    }
}

/// Blocks until there is a line.
impl Iterator for Lines {
    type Item = Result<Line>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Err(error) = self.output.job().client().check_may_block() {
            return Some(Err(error));
        }
        block_on(None, |cx| self.poll_next(cx)).flatten()
    }
}
