//! Owns what stands for `job_span` in a build without the feature `tracing`.
//!
//! Invariant: the same names and signatures, without an effect.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::event::{Event, StopCause};
use crate::id::JobId;

#[derive(Clone, Debug)]
pub(crate) struct JobSpan;

impl JobSpan {
    pub(crate) fn spawned(_id: JobId, _pid: u32, _program: &OsStr) -> Self {
        Self
    }

    pub(crate) fn recovered(_id: JobId, _pid: u32, _command: &str) -> Self {
        Self
    }

    pub(crate) fn within<R>(&self, act: impl FnOnce() -> R) -> R {
        act()
    }
}

pub(crate) fn spawn_failed(_program: &OsStr, _error: &Error) {}

pub(crate) fn rolled_back() {}

pub(crate) fn stop_requested(_cause: StopCause, _grace: Option<Duration>) {}

pub(crate) fn killing() {}

pub(crate) fn removed(_result: &Result<()>) {}

pub(crate) fn queued(_event: &Event) {}

pub(crate) fn reactor_created() {}

pub(crate) fn reactor_dropped(_killed: usize) {}

pub(crate) fn keeper_lost(_error: &Error) {}

pub(crate) fn keeper_found(_socket: &Path) {}
