//! Owns the names of what this room uses of layer 0.
//!
//! Invariant: they are those of layer 0, or, for the model checker, those of a model of it that
//! makes no system calls. Knows nothing of layer 1.

#[cfg(not(all(test, jobworker_loom)))]
pub(super) use crate::job::Launcher;
#[cfg(not(all(test, jobworker_loom)))]
pub(super) use crate::log::LogFile;
#[cfg(not(all(test, jobworker_loom)))]
pub(super) use crate::reactor::Reactor;
#[cfg(all(test, jobworker_loom))]
pub(super) use crate::worker::model::{Launcher, LogFile, Reactor};
