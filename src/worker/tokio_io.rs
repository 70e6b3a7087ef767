//! Owns the traits of tokio for [`Output`].
//!
//! Invariant: each only delegates. Knows nothing of where the bytes come from.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncBufRead, AsyncRead, ReadBuf};

use crate::worker::output::Output;
use crate::worker::task_io::{poll_bytes, poll_length};

/// As [`io::Read`], but waits as a task. With the feature `tokio`.
///
/// Reading can be cancelled at any time: no byte is lost. What collects bytes before it hands them
/// on can lose them, when it is cancelled and when an error such as a truncation comes in between:
/// `tokio::io::copy_buf` does not, `tokio::io::copy` does.
///
/// ```
/// use jobworker::{Command, Position, Worker};
/// use tokio::io::AsyncReadExt;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let worker = Worker::new()?;
/// let job = worker.spawn(Command::new("echo").arg("hello"))?;
/// let mut text = String::new();
/// job.output(Position::Start)?.read_to_string(&mut text).await?;
/// assert_eq!(text, "hello\n");
/// # Ok(())
/// # }
/// ```
impl AsyncRead for Output {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let length = ready!(poll_length(self.get_mut(), cx, buffer.initialize_unfilled()))?;
        buffer.advance(length);
        Poll::Ready(Ok(()))
    }
}

/// As [`io::BufRead`], but waits as a task. With the feature `tokio`.
impl AsyncBufRead for Output {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        poll_bytes(self.get_mut(), cx)
    }

    fn consume(self: Pin<&mut Self>, amount: usize) {
        io::BufRead::consume(self.get_mut(), amount);
    }
}
