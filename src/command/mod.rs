//! The room of what to run, as plain data: commands, standard streams, limits, units and signals.
//!
//! Knows nothing of how any of it is done.

mod capability;
mod command;
mod files;
mod io_priority;
mod limits;
mod quote;
#[cfg(feature = "serde")]
mod serialized;
mod setting;
mod signal;
mod stdio;
mod terminal;
mod units;
mod value;
mod view;

pub use capability::Capability;
pub use command::{Command, DEFAULT_PATH, EndPolicy, OverLimit, ProcessGroup, Resource, Scheduler};
pub use files::LimitFile;
pub use io_priority::IoPriority;
pub use limits::Limits;
pub use signal::Signal;
pub use stdio::{Output, Stdin};
pub use terminal::Terminal;
pub use units::{ByteSize, Device};
pub use value::{IoRates, LimitValue};
pub use view::CommandView;

pub(crate) use setting::Setting;
#[cfg(any(fuzzing, test))]
pub(crate) use value::ranges;
