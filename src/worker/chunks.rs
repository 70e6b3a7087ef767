//! Owns [`Chunks`], the output of a job as a stream of shared bytes.
//!
//! Invariant: it only delegates to its [`Output`]. Knows nothing of where bytes come from.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_core::Stream;

use crate::worker::output::Output;

/// The output of a job as a [`Stream`] of shared bytes, as web frameworks take for a body; from
/// [`Output::chunks`].
///
/// A truncation of the log, and bytes that were not kept, are an error in the place where bytes are
/// missing, and the stream goes on behind it: [`Output::is_truncation`] and [`Output::skipped`]
/// tell which. What passes an error on ends there, so that no two contents are taken for one.
///
/// ```
/// use futures::{StreamExt, TryStreamExt};
/// use jobworker::worker::Output;
/// use jobworker::{Command, Position, Worker};
/// use std::future::ready;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let worker = Worker::new()?;
/// let job = worker.spawn(Command::new("seq").arg("1000"))?;
/// let chunks = job.output(Position::Start)?.chunks();
/// // The log as it comes, whatever its job does to it.
/// let whole = chunks.filter(|chunk| {
///     ready(!matches!(chunk, Err(error) if Output::is_truncation(error)))
/// });
/// let length = whole.try_fold(0, |sum, chunk| ready(Ok(sum + chunk.len()))).await?;
/// assert_eq!(length, 3893);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a stream does nothing unless it is polled"]
pub struct Chunks {
    output: Output,
}

impl Chunks {
    /// The reader: where it is, for example.
    #[must_use]
    pub fn output(&self) -> &Output {
        &self.output
    }
}

impl Output {
    /// Turns the reader into a stream of shared bytes. With the features `bytes` and `futures-io`.
    pub fn chunks(self) -> Chunks {
        Chunks { output: self }
    }
}

impl Stream for Chunks {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let chunk = ready!(self.output.poll_bytes(cx));
        Poll::Ready((!matches!(&chunk, Ok(bytes) if bytes.is_empty())).then_some(chunk))
    }
}
