//! The room of the sources of the loop: inotify, the timer and the waker.
//!
//! Knows nothing of what its sources mean.

mod timer;
mod waker;
mod watch;

pub use waker::Waker;

pub(crate) use timer::Timer;
pub(crate) use watch::{Change, Target, Watch};
