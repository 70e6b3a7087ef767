//! Runs Linux programs as **jobs**, each in its own cgroup v2, and follows their output without
//! losing a byte.
//!
//! jobworker is a low-level engine for hosts that cannot afford to wait: CI agents, build farms,
//! supervisors. A single-threaded [`Reactor`] starts programs, watches them by pidfd, and wakes any
//! number of readers as soon as a job's log grows or the job ends. It polls no file to follow it
//! and never sleeps and retries, and it has no background thread, no signal handler and no global
//! state. Output does not pass through the host: a job writes to a file at full speed, and a slow
//! reader blocks neither the job nor other readers. A program that wants a terminal gets one, which
//! is the exception: [`Output::Terminal`].
//!
//! A host with threads or a runtime, rather than a loop of its own, uses a [`Worker`]: a reactor on
//! a thread of its own, with handles to wait on and to read from, see the module [`worker`]. With
//! the feature `tokio`, a reactor also runs in tokio's own event loop, as an `AsyncReactor`. The
//! chapter [`guide::hosts`] says which way in suits which host, in a few lines each.
//!
//! # A guide in one program
//! A small supervisor: it runs a command, copies its output as it appears, stops it when it takes
//! too long, and reports how it ended.
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
//! // A command is plain data. By default its environment is empty, and it has no limits.
//! let mut command = Command::new("sh");
//! command.args(["-c", "echo working; echo done"]).time_limit(Duration::from_secs(10));
//!
//! // You choose the tokens; events carry them. The job is running when `spawn` returns.
//! let job = reactor.spawn(&command, Token(1))?;
//! let tail = reactor.tail(job, Position::Start, Token(2))?;
//!
//! let mut events = Events::with_capacity(128);
//! let mut output = Vec::new();
//! let report = 'running: loop {
//!     // Blocks until there is at least one event.
//!     reactor.poll(&mut events, None)?;
//!     for event in &events {
//!         match event {
//!             // Edge-triggered: read until the tail has nothing more. Should the job truncate its
//!             // log, a chunk says so, and the loop goes on with what it writes next.
//!             Event::Readable { tail, .. } => {
//!                 while let Some(chunk) = reactor.next_chunk(*tail)? {
//!                     output.write_all(chunk.bytes)?;
//!                 }
//!             }
//!             // The last event of a job: its processes are gone, and its log is final.
//!             Event::Finished { report, .. } => break 'running report.clone(),
//!             _ => {}
//!         }
//!     }
//! };
//! // All bytes were announced before `Finished`, so the tail has been read to its end.
//! assert_eq!(reactor.read(tail, &mut [0; 1])?, Read::Ended);
//! assert_eq!(output, b"working\ndone\n");
//! assert!(report.exit.success());
//!
//! // A finished job stays readable until it is removed, log included.
//! reactor.remove(job)?;
//! # Ok(())
//! # }
//! ```
//!
//! # What is guaranteed
//! * **No byte is lost or repeated.** Every tail gets every byte of the log from its starting
//!   offset on, once, in order, then [`Read::Ended`]. If the job truncates its own log, every tail
//!   reports it ([`Read::Truncated`], [`Chunk::truncated`]) and continues with what is written
//!   next. Of a log of which only the newest bytes are [kept](Command::log_keep), a tail that is
//!   too far behind hears exactly how many are gone ([`Read::Skipped`], [`Chunk::skipped`]).
//! * **A finished log is complete.** A job is finished when no process is left that could write to
//!   its log, not when its main process exits, and not after a delay. [`EndPolicy`] decides what
//!   happens to processes that the main process leaves behind.
//! * **No needless delays.** Growth after a pause is delivered at once, and so is the exit of a
//!   job; its end comes once nothing of it is left.
//! * **Work is proportional to what is ready.** One watch and one read per growth of a log serve
//!   all of its tails; idle jobs and tails cost no CPU time.
//! * **No leaks.** A failed spawn leaves no cgroup, file, descriptor, process or watch behind, and
//!   neither does a job that was removed, or a reactor that could not be made.
//! * **Jobs end when descriptors have run out.** A reactor holds six in reserve, by which it kills
//!   jobs, reads their last figures and removes their cgroups.
//!
//! # What is not guaranteed
//! * A log is a file. The disk it is on can be full, which [`Event::LogSpace`] reports, and its
//!   owner can change it in place without being noticed. A truncation is noticed by the length, or
//!   by the last 16 bytes that were read: a log that was truncated, and by the next read has the
//!   same 16 bytes at the same offset again, is indistinguishable from one that has grown.
//! * A privileged process can leave its cgroup, and so the job.
//! * In a host whose other threads take every descriptor the moment it is free, the reserve can be
//!   taken as well. What cannot be killed or removed then is in the report, or is left behind when
//!   the reactor is dropped, for a [sweep](Reactor::sweep).
//! * A write that crosses a page boundary of the file can be seen in two pieces, so data may end in
//!   the middle of a line.
//!
//! The chapters of the [`guide`]: [a first host](guide::first_host), [limits and
//! pressure](guide::limits), [which way in suits which host](guide::hosts), [what is called what
//! here](guide::coming_from) for whoever comes from std, tokio or Go, [what fits better
//! elsewhere](guide::comparison), [output that comes late](guide::output), [programs that you do
//! not trust](guide::untrusted), [hosts in containers and under systemd](guide::containers), [logs
//! that are rotated](guide::rotation), [logs that would fill the disk](guide::retention), [jobs
//! that survive their host](guide::survival), and [errors by their
//! messages](guide::troubleshooting).
//!
//! # Features
//! * `bytes`, off by default: [`worker::Output`] gives the bytes that readers share as
//!   `bytes::Bytes`, without a copy.
//! * `futures-io`, off by default: a [`worker::Output`] is an `AsyncRead` and an `AsyncBufRead` of
//!   futures; [`worker::JobEvents`] and [`worker::WorkerEvents`] are streams.
//! * `serde`, off by default: `Serialize` and `Deserialize` for commands, limits, status, reports
//!   and statistics, in a form that is part of the API; see the chapter on serialization in the
//!   [`guide`].
//! * `tokio`, off by default: a [`worker::Output`] is an `AsyncRead` and an `AsyncBufRead` of
//!   tokio; `AsyncReactor` is a reactor in the event loop of tokio, without a thread of its own. Of
//!   tokio only `net` is enabled.
//! * `tracing`, off by default: the life of each job for the subscriber of the host, under the
//!   target `jobworker`. A span `job` lasts from the spawn to the removal, with the fields `id`,
//!   `pid` and `program`; it has no parent, for it outlives what the caller is doing, but follows
//!   from the caller's span. Events in it say when the job was spawned, stopped (by what cause,
//!   with what grace period), killed, frozen, thawed, stalled or short of memory, when it has
//!   exited, finished and was removed, and what failed meanwhile. Failed spawns, sweeps and the
//!   reactor have events of their own. Arguments, environments and output are never reported, and
//!   nothing is done per read, line or poll. A subscriber runs within the loop, and holds it up for
//!   as long as it takes.
//!
//! Waiting for jobs and their events as a task needs no feature.
//!
//! # Requirements
//! Linux 5.14 or newer (`clone3` with `CLONE_INTO_CGROUP`, `cgroup.kill`), `/proc`, and a writable
//! cgroup2 tree: as root on any system that mounts one, alone or beside version 1 hierarchies, or
//! below a cgroup that was delegated to the user. A host without one can choose
//! [`Containment::ProcessGroup`], which cannot hold a process that leaves its group. Limits need
//! their controllers; a limit that cannot be enforced is an error that names what is missing.
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
//! | `portable` | how types of std are serialized, with the feature `serde` |
//! | `sync` | the locks, atomics and threads of std, or those of a model checker |
//! | `error` | every error, with its cause and remedy |
//! | `command` | what to run, as plain data: command, standard streams, limits, units, signals |
//! | `event` | what is reported, as plain data: events, exits, reports, statistics, pressure |
//! | `trace` | what is reported to `tracing`; empty without that feature |
//! | `sys` | raw system calls; the child between clone3 and exec: the only unsafe code |
//! | `cgroup` | the tree of the jobs, one group, its owner, its pressure triggers, the pool |
//! | `log` | the directory of the logs, each log from spawn to removal, its tails |
//! | `driver` | the one epoll, inotify, the timer, the waker, and how they plug into another loop |
//! | `keeper` | who holds pidfds while there is no host, and the host's end of the connection |
//! | `job` | one job as an object: its record, its life as a table, its handles; the launcher |
//! | `reactor` | the loop: wait, dispatch, settle, emit; configuration and capabilities |
//! | `worker` | a reactor on a thread of its own, with handles for every other thread |
//!
//! `log` and `job` reach the system through a trait each, `Kernel` and `System`, so that both also
//! run over simulated systems. `Kernel` is implemented in `driver`, and `System` in `job`.
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
    ByteSize, Capability, Command, CommandView, DEFAULT_PATH, Device, EndPolicy, IoPriority,
    IoRates, LimitFile, LimitValue, Limits, Output, OverLimit, ProcessGroup, Resource, Scheduler,
    Signal, Stdin, Terminal,
};
pub use crate::driver::Waker;
pub use crate::error::{
    Error, ErrorKind, InvalidLimit, JobError, LimitsError, RecordedError, Result, SpawnError,
    Stage, SystemError, TailError, WorkerError,
};
pub use crate::event::{
    CpuStats, Event, Events, Exit, Found, InvalidPressure, IoStats, MemoryStats, OomCause, Phase,
    PidsStats, Pressure, Recovered, Report, Stall, Stallable, Stalled, Stats, Status, StopCause,
    Swept, Usage,
};
pub use crate::id::{InvalidJobId, JobId, Stream, TailId, Token};
pub use crate::job::{BoundedSpawns, Containment, History, HistoryEntry, TerminalInput};
pub use crate::keeper::Keeper;
pub use crate::log::{
    Bookmark, Chunk, FileId, Fill, InvalidBookmark, InvalidFileId, Position, Read, TailOptions,
};
#[cfg(feature = "tokio")]
pub use crate::reactor::AsyncReactor;
pub use crate::reactor::{Capabilities, Census, Check, Config, Reactor, Recovery, Verdict};
pub use crate::sys::run_launcher;
pub use crate::worker::Worker;
/// The crate of the UUIDs that [`JobId`] is made of, in the version that this crate uses.
pub use uuid;

/// The programs of the README, for the tests of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

#[cfg(not(target_os = "linux"))]
compile_error!("jobworker runs on Linux only: it is made of cgroups, pidfds, epoll and inotify");

mod cgroup;
mod command;
mod driver;
mod error;
mod event;
mod id;
mod job;
mod keeper;
mod log;
#[cfg(feature = "serde")]
mod portable;
mod reactor;
mod sync;
mod sys;
mod trace;
pub mod worker;

/// Chapters of the guide.
pub mod guide {
    #[cfg(feature = "serde")]
    #[doc = include_str!("../docs/serialization.md")]
    pub mod serialization {}

    #[doc = include_str!("../docs/first_host.md")]
    pub mod first_host {}

    #[doc = include_str!("../docs/hosts.md")]
    pub mod hosts {}

    #[doc = include_str!("../docs/coming_from.md")]
    pub mod coming_from {}

    #[doc = include_str!("../docs/comparison.md")]
    pub mod comparison {}

    #[doc = include_str!("../docs/output.md")]
    pub mod output {}

    #[doc = include_str!("../docs/limits.md")]
    pub mod limits {}

    #[doc = include_str!("../docs/untrusted.md")]
    pub mod untrusted {}

    #[doc = include_str!("../docs/containers.md")]
    pub mod containers {}

    #[doc = include_str!("../docs/rotation.md")]
    pub mod rotation {}

    #[doc = include_str!("../docs/retention.md")]
    pub mod retention {}

    #[doc = include_str!("../docs/survival.md")]
    pub mod survival {}

    #[doc = include_str!("../docs/troubleshooting.md")]
    pub mod troubleshooting {}
}

/// For the fuzzers: the engine over simulated systems, and the parsers. Not part of the API.
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod simulator {
    pub use crate::job::{
        Held, JobEngine, Meddling, Plan, SimulatedKernel, SimulatedSystem, SystemCall,
    };
    pub use crate::log::{
        Call, Content, Descriptor, Engine, Interference, Link, Machine, Name, byte,
    };

    /// The records of jobs that survive their host.
    pub mod record {
        /// Content in a frame that fits it.
        pub fn framed(content: &[u8]) -> Vec<u8> {
            crate::job::framed(content)
        }

        /// What is accepted, written again.
        pub fn rewritten(bytes: &[u8]) -> Option<Vec<u8>> {
            crate::job::rewritten(bytes)
        }
    }

    /// The parsers of what the kernel writes, and of the names of groups.
    pub mod parsers {
        use std::path::PathBuf;

        use crate::cgroup::Name;
        use crate::event::Stats;

        /// What a group's interface files say, by a function that gives their content.
        pub fn stats(content: impl Fn(&str) -> Option<String>) -> Option<Stats> {
            Stats::collect(|name| Ok(content(name))).ok()
        }

        /// The value of a key in a flat-keyed file.
        pub fn keyed(content: &str, key: &str) -> u64 {
            crate::event::keyed(content, key)
        }

        /// Where cgroup2 is mounted, by the content of mountinfo.
        pub fn mount_point(table: &[u8]) -> Option<PathBuf> {
            crate::cgroup::parse_mount_point(table)
        }

        /// A field of mountinfo without its escapes.
        pub fn unescape(field: &[u8]) -> Vec<u8> {
            crate::cgroup::unescape(field)
        }

        /// State and process group out of /proc/PID/stat.
        pub fn stat(content: &[u8]) -> Option<(u8, u32)> {
            let stat = crate::sys::Stat::parse(content)?;
            Some((stat.state, stat.process_group))
        }

        /// The ranges of a list of numbers.
        pub fn ranges(list: &str) -> Option<Vec<(u32, u32)>> {
            crate::command::ranges(list)
        }

        /// The name of a group, parsed and printed again.
        pub fn group_name(text: &str) -> Option<String> {
            Name::parse(text).map(|name| name.to_string())
        }
    }
}
