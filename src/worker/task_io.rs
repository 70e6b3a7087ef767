//! Owns what the traits of all runtimes have in common: reads of an [`Output`] with the results of
//! [`io::Read`] and [`io::BufRead`].
//!
//! Invariant: a truncation is an error that [`Output::is_truncation`] knows, once, and a gap one
//! that [`Output::skipped`] knows, as for those of std. Knows nothing of runtimes.

use std::io;
use std::task::{Context, Poll, ready};

use crate::error::TailError;
use crate::log::{Fill, Read};
use crate::worker::output::{Output, into_io};

/// Copies the next bytes, and returns how many; zero at the end, and for a buffer without room.
pub(super) fn poll_length(
    output: &mut Output,
    cx: &mut Context<'_>,
    buffer: &mut [u8],
) -> Poll<io::Result<usize>> {
    if buffer.is_empty() {
        return Poll::Ready(Ok(0));
    }
    let read = ready!(output.poll_read(cx, buffer)).map_err(into_io)?;
    Poll::Ready(match read {
        Read::Data(length) => Ok(length),
        Read::Truncated => Err(into_io(TailError::Truncated.into())),
        Read::Skipped { bytes } => Err(into_io(TailError::Skipped { bytes }.into())),
        Read::Ended => Ok(0),
        Read::UpToDate | Read::Replaced { .. } => unreachable!("it waits, for one log"),
    })
}

/// The next bytes, which stay unread; none at the end.
pub(super) fn poll_bytes<'a>(
    output: &'a mut Output,
    cx: &mut Context<'_>,
) -> Poll<io::Result<&'a [u8]>> {
    let filled = ready!(output.poll_fill(cx)).map_err(into_io)?;
    Poll::Ready(match filled {
        Fill::Data(bytes) => Ok(bytes),
        Fill::Truncated => Err(into_io(TailError::Truncated.into())),
        Fill::Skipped { bytes } => Err(into_io(TailError::Skipped { bytes }.into())),
        Fill::Ended => Ok(&[]),
        Fill::UpToDate | Fill::Replaced { .. } => unreachable!("it waits, for one log"),
    })
}
