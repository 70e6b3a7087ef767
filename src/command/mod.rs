//! The room of what to run, as plain data: commands, standard streams, limits, units and signals.
//!
//! Knows nothing of how any of it is done.

mod command;
mod limits;
mod setting;
mod signal;
mod units;

pub use command::{Command, DEFAULT_PATH, EndPolicy, Output, ProcessGroup, Resource};
pub use limits::{IoRates, Limits};
pub use signal::Signal;
pub use units::{ByteSize, Device};

pub(crate) use command::Stdin;
#[cfg(any(fuzzing, test))]
pub(crate) use setting::ranges;
pub(crate) use setting::{Kept, Setting};
