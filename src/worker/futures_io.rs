//! Owns the traits of futures for [`Output`] and for what is reported event by event.
//!
//! Invariant: each only delegates. Knows nothing of where bytes and events come from.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use futures_io::{AsyncBufRead, AsyncRead};

use crate::error::Result;
use crate::worker::job_events::{JobEvent, JobEvents};
use crate::worker::output::Output;
use crate::worker::task_io::{poll_bytes, poll_length};
use crate::worker::worker_events::{WorkerEvent, WorkerEvents};

/// As [`io::Read`], but waits as a task. With the feature `futures-io`.
///
/// Reading can be cancelled at any time: no byte is lost.
///
/// ```
/// use futures::AsyncReadExt;
/// use jobworker::{Command, Position, Worker};
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
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        poll_length(self.get_mut(), cx, buffer)
    }
}

/// As [`io::BufRead`], but waits as a task. With the feature `futures-io`.
impl AsyncBufRead for Output {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        poll_bytes(self.get_mut(), cx)
    }

    fn consume(self: Pin<&mut Self>, amount: usize) {
        io::BufRead::consume(self.get_mut(), amount);
    }
}

/// As [`JobEvents::wait`], but waits as a task. With the feature `futures-io`.
///
/// ```
/// use futures::StreamExt;
/// use jobworker::worker::JobEvent;
/// use jobworker::{Command, Worker};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), jobworker::Error> {
/// let worker = Worker::new()?;
/// let job = worker.spawn(&Command::new("true"))?;
/// let mut events = job.events();
/// while let Some(event) = events.next().await {
///     if let JobEvent::Finished(report) = event? {
///         assert!(report.exit.success());
///     }
/// }
/// # Ok(())
/// # }
/// ```
impl Stream for JobEvents {
    type Item = Result<JobEvent>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        JobEvents::poll_next(self.get_mut(), cx)
    }
}

/// As [`WorkerEvents::wait`], but waits as a task. With the feature `futures-io`.
impl Stream for WorkerEvents {
    type Item = Result<WorkerEvent>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        WorkerEvents::poll_next(self.get_mut(), cx)
    }
}
