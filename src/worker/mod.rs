//! A reactor on a thread of its own, for hosts with threads or with a runtime.
//!
//! A [`Worker`] starts jobs from any thread, a [`Job`] is a handle that any thread can wait on, and
//! an [`Output`] reads a log as a [`Read`](std::io::Read). Everything that waits can also be polled
//! by a task of any runtime: [`Job::finished`] is a future, and [`Output::poll_read`] is what an
//! adaptor for a runtime needs. All of it is built on [`std::thread`] and [`std::task`] alone.
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
//! use std::io::{self, BufRead, Write};
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
//!     output.lines().map_while(Result::ok).filter(|line| line.contains("error")).count()
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
//! # How it works
//! ```text
//! any thread                                   the thread of the worker
//! spawn: clone3 into the cgroup, exec -------> adopt --> Reactor
//! stop, stats, output ... --- one request ---> one turn of the loop
//! wait, finished <-- one pass of wakers ------ Finished
//! Output <-- shared pieces, no request ------- one tail and one copy per growth of a log
//! ```
//! What a host's task registers is a [`Waker`](std::task::Waker), which the thread of the worker
//! calls: it must not block. A waker that panics ends the worker.
// The room of layer 1. Invariants: no lock is held while a waker is called or the loop works, and
// layer 0 knows nothing of this room. Knows nothing of the kernel.

mod client;
mod engine;
mod feed;
mod job;
mod mailbox;
mod output;
mod outputs;
mod progress;
mod reply;
mod shutdown;
mod wait;
mod worker;

pub use job::{Finished, Job};
pub use output::{Closer, Output};
pub use shutdown::Shutdown;
pub use worker::Worker;
