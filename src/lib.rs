//! Runs Linux programs as **jobs**, each in its own cgroup v2, and follows their output without
//! losing a byte.
//!
//! jobworker is a low-level engine for hosts that cannot afford to wait: CI agents, build farms,
//! supervisors. One single-threaded [`Reactor`] starts programs, watches them by pidfd, and wakes
//! any number of readers the moment a job's log grows or the job ends. Nothing polls, nothing
//! sleeps, there is no hidden thread, no signal handler and no global state. The output never
//! passes through the host: a job writes to a file, at full speed, and a reader that is
//! slow, or gone, holds up nobody.
//!
//! # A guide in one program
//! A small supervisor: it runs a command, copies its output as it appears, stops it when it takes
//! too long, and tells how it ended.
//!
//! ```
//! use jobworker::{Command, Event, Events, Position, Reactor, Read, Token};
//! use std::io::Write;
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // The reactor owns everything: processes, cgroups, logs, tails. Dropping it cleans up.
//! let mut reactor = Reactor::new()?;
//!
//! // A command is plain data. The environment starts empty, the limits are those you ask for.
//! let mut command = Command::new("sh");
//! command.args(["-c", "echo working; echo done"]).time_limit(Duration::from_secs(10));
//!
//! // Tokens are your own words; events bring them back. The job is running when `spawn` returns.
//! let job = reactor.spawn(&command, Token(1))?;
//! let tail = reactor.tail(job, Position::Start, Token(2))?;
//!
//! let mut events = Events::with_capacity(128);
//! let mut buffer = [0; 8192];
//! let mut output = Vec::new();
//! let report = 'running: loop {
//!     // Sleeps in the kernel until there is something to tell.
//!     reactor.poll(&mut events, None)?;
//!     for event in &events {
//!         match event {
//!             // Edge-triggered: read until the tail is up to date, or at its end.
//!             Event::Readable { tail, .. } => {
//!                 while let Read::Data(length) = reactor.read(*tail, &mut buffer)? {
//!                     output.write_all(&buffer[..length])?;
//!                 }
//!             }
//!             // The last event of a job: every process is gone, the log is final, the cgroup is removed.
//!             Event::Finished { report, .. } => break 'running report.clone(),
//!             _ => {}
//!         }
//!     }
//! };
//! // All bytes were announced before `Finished`, so the tail has been read to its end.
//! assert_eq!(reactor.read(tail, &mut buffer)?, Read::Ended);
//! assert_eq!(output, b"working\ndone\n");
//! assert!(report.exit.success());
//!
//! // A finished job stays readable until it is removed, log included.
//! reactor.remove(job)?;
//! # Ok(())
//! # }
//! ```
//!
//! # What is promised
//! * **No byte is lost or repeated.** Every tail gets every byte of the log from its starting
//!   offset on, once, in order, then [`Read::Ended`], once. If the job truncates its own log, the
//!   tail is told ([`Read::Truncated`]).
//! * **The end is the end.** A job is finished when no process of it is left that could write, not
//!   when its main process exits, and not after a pause. [`EndPolicy`] says what becomes of
//!   processes that the main one leaves behind.
//! * **Nothing waits that need not.** Growth after a pause is delivered at once; a job's end comes
//!   with its exit.
//! * **Cost follows what is ready.** One watch and one read per growth of a log serve all of its
//!   tails; idle jobs and tails cost nothing.
//! * **Nothing is left behind.** After a failed spawn there is no cgroup, file, descriptor, process
//!   or watch; after a job is removed, neither.
//!
//! # What is not
//! * The log is a file: the disk it lies on is the limit, and its owner can change it in place
//!   unnoticed. A truncation is noticed by the length, or by the last 16 bytes that were read: a
//!   log that is truncated and has the same 16 bytes in the same place again at the next look is
//!   taken for one that has grown.
//! * A privileged process can leave its cgroup, and so the job.
//! * A write of the job can be seen in two pieces, where it crosses a page of the file: data may
//!   end within a line.
//!
//! # What it needs
//! Linux 5.14 or newer (`clone3` with `CLONE_INTO_CGROUP`, `cgroup.kill`), `/proc`, and a writable
//! cgroup2 tree: as root on any system that mounts one, alone or beside version 1 hierarchies, or
//! below a cgroup that was delegated to the user. A host without one can choose
//! [`Containment::ProcessGroup`], which cannot hold a process that leaves its group. Limits need
//! their controllers; without, they are an error that says what is missing, never a silent success.
//!
//! # Architecture
//! ```text
//! Command --> process (clone3 into cgroup) --> Job: state x input --> exit --> Event
//!                                                ^ pidfd, cgroup.events, timer
//! job's stdout/stderr --> log file --> inotify --> Log (window) --> tails --> Event
//!                                                ^ pace timer
//! ```
//! A file uses only files above it in this list:
//!
//! | file | owns |
//! |---|---|
//! | `units`, `setting` | what limits are expressed in; one as the kernel takes it and gives it back, pure |
//! | `signal`, `limits`, `command` | what to run, as plain data |
//! | `id` | tokens, ids, generational slots |
//! | `pressure` | stalls: parsed, and the triggers that make them events |
//! | `error` | every error, with its story |
//! | `exit`, `stats`, `report`, `event` | what is told, as plain data |
//! | `sys`, `sys/nursery` | raw system calls; the child between clone3 and exec: the only unsafe code |
//! | `hierarchy`, `cgroup`, `owner` | the tree where jobs are made; one job's group; whose it is, and the sweep |
//! | `process`, `containment` | one process by its pidfd; all processes of a job |
//! | `logdir`, `pool`, `launch` | the directory of the logs; groups in advance; the start of a job as one transaction |
//! | `job` | the life of a job as a table, pure |
//! | `tail`, `lines`, `window` | how to read; the newest bytes of a log at absolute offsets, pure |
//! | `log` | one log, its pace and who waits; the one place where growth is found |
//! | `tails`, `tails/reading` | all logs and tails, and which are due; how one is read |
//! | `watch`, `timer`, `waker` | the inotify descriptor, the timerfd, the eventfd |
//! | `jobs`, `jobs/ending`, `control` | all jobs: carries out what the table decides; how they end; their resources |
//! | `config`, `capabilities` | how a reactor is set up; what the system offers |
//! | `reactor`, `reactor/resources`, `reactor/nested` | the loop: wait, gather, settle, emit; the doors to all this |
// What a library must not do, but tests and examples may; the lints for all code are in Cargo.toml.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::dbg_macro,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_lossless
)]

pub use crate::capabilities::{Capabilities, Check, Verdict};
pub use crate::command::{Command, DEFAULT_PATH, EndPolicy, Output, ProcessGroup, Resource};
pub use crate::config::Config;
pub use crate::containment::Containment;
pub use crate::error::{Error, Result, Stage};
pub use crate::event::{Event, Events};
pub use crate::exit::{Exit, Usage};
pub use crate::id::{JobId, TailId, Token};
pub use crate::limits::{IoRates, Limits};
pub use crate::pressure::{InvalidPressure, Pressure, Stall, Stallable, Stalled};
pub use crate::reactor::{Census, Reactor};
pub use crate::report::{OomCause, Phase, Report, Status, StopCause};
pub use crate::signal::Signal;
pub use crate::stats::{CpuStats, IoStats, MemoryStats, PidsStats, Stats};
pub use crate::tail::{Fill, Position, Read, Stream, TailOptions};
pub use crate::units::{ByteSize, Device, InvalidLimit};
pub use crate::waker::Waker;

mod capabilities;
mod cgroup;
mod command;
mod config;
mod containment;
mod control;
mod error;
mod event;
mod exit;
mod hierarchy;
mod id;
mod job;
mod jobs;
mod launch;
mod limits;
mod lines;
mod log;
mod logdir;
mod owner;
mod pool;
mod pressure;
mod process;
mod reactor;
mod report;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod seam;
mod setting;
mod signal;
mod stats;
mod sys;
mod tail;
mod tails;
mod timer;
mod units;
mod waker;
mod watch;
mod window;
