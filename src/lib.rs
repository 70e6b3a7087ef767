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
//! The folders of `src` are rooms. A room's files are private to it; its `mod.rs` says what it owns
//! and re-exports the few names that others use. A room uses only rooms above it in this table:
//!
//! | room | owns |
//! |---|---|
//! | `id` | tokens, ids, generational keys |
//! | `error` | every error, with its cause and remedy |
//! | `command` | what to run, as plain data: command, standard streams, limits, units, signals |
//! | `event` | what is reported, as plain data: events, exits, reports, statistics, pressure |
//! | `sys` | raw system calls; the child between clone3 and exec: the only unsafe code |
//! | `cgroup` | the tree where jobs are made, one group, pressure triggers, owners, the pool |
//! | `log` | the directory of the logs, the newest bytes of each, and the tails that read them |
//! | `driver` | inotify, the timerfd, the eventfd |
//! | `job` | all jobs: their life as a table, how they start and end, what holds their processes |
//! | `reactor` | the loop: wait, gather, settle, emit; configuration and capabilities |
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

pub use crate::command::{
    ByteSize, Command, DEFAULT_PATH, Device, EndPolicy, IoRates, LimitFile, LimitValue, Limits,
    Output, ProcessGroup, Resource, Signal,
};
pub use crate::driver::Waker;
pub use crate::error::{Error, InvalidLimit, Result, Stage};
pub use crate::event::{
    CpuStats, Event, Events, Exit, InvalidPressure, IoStats, MemoryStats, OomCause, Phase,
    PidsStats, Pressure, Report, Stall, Stallable, Stalled, Stats, Status, StopCause, Usage,
};
pub use crate::id::{JobId, TailId, Token};
pub use crate::job::Containment;
pub use crate::log::{Fill, Position, Read, Stream, TailOptions};
pub use crate::reactor::{Capabilities, Census, Check, Config, Reactor, Verdict};

mod cgroup;
mod command;
mod driver;
mod error;
mod event;
mod id;
mod job;
mod log;
mod reactor;
mod sys;

/// For the fuzzers: the engine over simulated systems. Not part of the API.
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod simulator {
    pub use crate::log::{Content, End, Engine, Interference, Machine, byte};
}
