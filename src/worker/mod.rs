//! A reactor on a thread of its own, for hosts with threads or with a runtime.
//!
//! A [`Worker`] starts jobs from any thread, a [`Job`] is a handle that any thread can wait on, and
//! an [`Output`] reads a log as a [`Read`](std::io::Read), and [`JobEvents`] say what happens to a
//! job. Everything that waits can also be polled by a task of any runtime: [`Job::finished`] is a
//! future, [`JobEvents::poll_next`] is what a stream needs, and [`Output::poll_read`] what an
//! adaptor for a runtime does. All of it is built on [`std::thread`] and [`std::task`] alone.
//!
//! A host with an event loop of its own is better served by the [`Reactor`](crate::Reactor): it
//! needs no thread, no lock and no copy.
//!
//! # One program
//! A build step: its output is copied as it appears, another thread watches for errors in it, and
//! it is stopped when it takes too long.
//!
//! ```
//! use jobworker::worker::{Output, Shutdown};
//! use jobworker::{Command, Position, Worker};
//! use std::io::{self, Write};
//! use std::thread;
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let worker = Worker::new()?;
//! let script = "echo compiling; echo error: no space left; exit 1";
//! let job = worker.spawn(Command::new("sh").args(["-c", script]))?;
//!
//! // Each reader has every byte from its position on. The output ends when the job is finished.
//! let mut output = job.output(Position::Start)?;
//! let copy = thread::spawn(move || loop {
//!     match io::copy(&mut output, &mut io::stdout()) {
//!         // The job has truncated its log: what follows is new.
//!         Err(error) if Output::is_truncation(&error) => println!("---"),
//!         copied => return copied,
//!     }
//! });
//! let output = job.output(Position::Start)?;
//! let errors = thread::spawn(move || {
//!     let lines = output.lines(64 * 1024).map_while(Result::ok);
//!     lines.filter(|line| line.text().contains("error")).count()
//! });
//!
//! let report = match job.wait_timeout(Duration::from_secs(600))? {
//!     Some(report) => report,
//!     None => {
//!         job.stop()?;
//!         job.wait()?
//!     }
//! };
//! copy.join().unwrap()?;
//! assert_eq!(errors.join().unwrap(), 1);
//! assert_eq!(report.exit.code(), Some(1));
//!
//! // Says what was still running; here nothing was.
//! assert!(worker.shutdown(Shutdown::Stop, Duration::from_secs(10))?.is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! # In a runtime
//! Nothing here depends on one. What a task awaits is woken by the thread of the worker, and can be
//! given up at any time, as in a `select!`: no byte and no event is lost, and nothing is left
//! behind. With the feature `futures-io` or `tokio`, an [`Output`] has the `AsyncRead` and
//! `AsyncBufRead` of that crate, and with `futures-io` the subscriptions are streams; with `bytes`
//! as well, an output is a stream of shared bytes (`Output::chunks`). [`Lines`] are
//! an iterator and would have each method twice; `futures::stream::poll_fn` makes a stream of
//! [`Lines::poll_next`]. What copies bytes to a buffer of its own before it hands them on loses
//! these when it is given up, or when a truncation comes in between; `copy_buf` of either crate
//! does not.
//!
//! ```
//! use jobworker::worker::{Job, JobEvent};
//! use std::future::poll_fn;
//!
//! /// Kills a job that runs out of memory, instead of waiting for what is left of it.
//! async fn watch(job: Job) -> Result<(), jobworker::Error> {
//!     let mut events = job.events();
//!     while let Some(event) = poll_fn(|cx| events.poll_next(cx)).await {
//!         match event? {
//!             JobEvent::Oom { .. } => job.kill()?,
//!             JobEvent::Finished(report) => println!("{}", report.exit),
//!             _ => {}
//!         }
//!     }
//!     Ok(())
//! }
//! # let _ = watch;
//! ```
//! Calls that ask the thread of the worker, such as [`Job::kill`], block for one turn of its loop,
//! which does only a bounded amount of work. [`Worker::spawn`] and [`Worker::sweep`] take longer: a
//! task makes them where it may block.
//!
//! # How it works
//! ```text
//! any thread                                   the thread of the worker
//! spawn: clone3 into the cgroup, exec -------> adopt --> Reactor
//! stop, stats, output ... --- one request ---> one turn of the loop
//! wait, finished <-- one pass of wakers ------ Finished
//! events <---------- one pass of wakers ------ what happens to a job, in a ring of 64 events
//! Output <-- shared pieces, no request ------- one tail and one copy per growth of a log
//! ```
//! What a host's task registers is a [`Waker`](std::task::Waker), which the thread of the worker
//! calls: it must not block. A waker that panics ends the worker.
// The room of layer 1. Invariants: no lock is held while a waker is called or the loop works, and
// layer 0 knows nothing of this room. Knows nothing of the kernel.

#[cfg(all(feature = "bytes", feature = "futures-io"))]
mod chunks;
mod client;
mod closer;
mod engine;
mod feed;
#[cfg(feature = "futures-io")]
mod futures_io;
mod job;
mod job_events;
mod layer0;
mod lines;
mod mailbox;
#[cfg(all(test, jobworker_loom))]
mod model;
mod output;
mod outputs;
mod piece;
mod progress;
mod recovered_jobs;
mod reply;
mod ring;
#[cfg(feature = "bytes")]
mod shared_bytes;
mod shutdown;
mod signal;
mod source;
#[cfg(any(feature = "futures-io", feature = "tokio"))]
mod task_io;
#[cfg(feature = "tokio")]
mod tokio_io;
mod wait;
mod worker;
mod worker_events;

#[cfg(all(feature = "bytes", feature = "futures-io"))]
pub use chunks::Chunks;
pub use closer::Closer;
pub use job::{Finished, Job};
pub use job_events::{JobEvent, JobEvents};
pub use lines::{Line, Lines};
pub use output::Output;
pub use recovered_jobs::RecoveredJobs;
pub use shutdown::Shutdown;
pub use worker::Worker;
pub use worker_events::{WorkerEvent, WorkerEvents};
