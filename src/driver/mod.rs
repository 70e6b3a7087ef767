//! The room of the event loop: the one epoll, inotify, the timer and the waker, and how they plug
//! into another event loop.
//!
//! Knows nothing of what its sources mean.

mod directories;
mod driver;
mod eventfd;
mod files;
mod inotify;
mod source;
mod timer;
mod waker;

pub use waker::Waker;

#[cfg(all(test, jobworker_loom))]
pub(crate) use eventfd::Eventfd;

pub(crate) use driver::{Driver, Readiness, Wait};
pub(crate) use inotify::Watching;
pub(crate) use source::{JobSource, Notice, Registration, Source};
pub(crate) use timer::Timer;
