//! The room of errors, by subject: starting a program, limits, tails, jobs, the system,
//! workers.
//!
//! Invariant: every error says what was tried, on what, why it failed and, where known, what to do;
//! its `Display` says all of it, so none has a `source`. Knows nothing of where errors come from.

mod error;
mod jobs;
mod kind;
mod limits;
mod recorded;
mod spawn;
mod system;
mod tails;
mod worker;

pub use error::{Error, Result};
pub use jobs::JobError;
pub use kind::ErrorKind;
pub use limits::{InvalidLimit, LimitsError};
pub use recorded::RecordedError;
pub use spawn::{SpawnError, Stage};
pub use system::SystemError;
pub(crate) use system::WRITE_RECORD;
pub use tails::TailError;
pub use worker::WorkerError;
