//! Runs programs as jobs.
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

pub use crate::command::{Command, DEFAULT_PATH, EndPolicy, Output, ProcessGroup, Resource};
pub use crate::config::Config;
pub use crate::containment::Containment;
pub use crate::error::{Error, Result, Stage};
pub use crate::event::{Event, Events};
pub use crate::exit::{Exit, Usage};
pub use crate::id::{JobId, TailId, Token};
pub use crate::limits::{ByteSize, InvalidLimit, Limits};
pub use crate::reactor::{Census, Reactor};
pub use crate::report::{Phase, Report, Status, StopCause};
pub use crate::signal::Signal;
pub use crate::tail::{Fill, Position, Read, Stream, TailOptions};
pub use crate::waker::Waker;

mod cgroup;
mod command;
mod config;
mod containment;
mod error;
mod event;
mod exit;
mod hierarchy;
mod id;
mod job;
mod jobs;
mod launch;
mod limits;
mod log;
mod logdir;
mod process;
mod reactor;
mod report;
mod signal;
mod sys;
mod tail;
mod tails;
mod timer;
mod waker;
mod watch;
mod window;
