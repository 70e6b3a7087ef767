//! The room of what is reported, as plain data: events, exits, status, reports, statistics and
//! pressure.
//!
//! Knows nothing of how any of it is found out.

mod event;
mod exit;
mod pressure;
mod recovered;
mod report;
mod stats;
mod swept;

pub use event::{Event, Events};
pub use exit::{Exit, Usage};
pub use pressure::{InvalidPressure, Pressure, Stall, Stallable, Stalled};
pub use recovered::{Found, Recovered};
pub use report::{OomCause, Phase, Report, Status, StopCause};
pub use stats::{CpuStats, IoStats, MemoryStats, PidsStats, Stats};
pub use swept::Swept;

pub(crate) use stats::keyed;
