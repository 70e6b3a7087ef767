//! The room of what is reported to `tracing`: the life of jobs, and nothing of their output.
//!
//! Invariants: without the feature `tracing` all of it does nothing. Never reported are arguments,
//! environments and bytes of a log. Knows nothing of who reports.

// Of two files with the same names, a build has one.
#[cfg_attr(not(feature = "tracing"), path = "untraced.rs")]
mod job_span;

pub(crate) use job_span::{
    JobSpan, keeper_found, keeper_lost, killing, queued, reactor_created, reactor_dropped, removed,
    rolled_back, spawn_failed, stop_requested,
};
