//! The room of jobs: one job as an object, its life as a table, what holds its processes, and how
//! it is started.
//!
//! Knows nothing of who asks. What jobs need of the system is the trait [`System`].

mod bounded_spawns;
mod bounds;
mod containment;
mod copying;
mod deadlines;
mod delivery;
mod fields;
mod format;
mod found_logs;
mod found_process;
mod handles;
mod history;
mod job;
mod launched;
mod launcher;
mod life;
mod linux;
mod live;
mod main_process;
mod orphans;
mod prepared;
mod record;
mod recording;
mod recovery;
mod registry;
mod report_format;
#[cfg(any(fuzzing, test))]
mod simulated;
#[cfg(any(fuzzing, test))]
mod simulated_kernel;
#[cfg(any(fuzzing, test))]
mod simulator;
mod starting;
mod stored;
mod streams;
mod system;
mod terminal;
mod terminal_input;
#[cfg(test)]
mod tests;

pub use bounded_spawns::BoundedSpawns;
pub use containment::Containment;
pub use history::{History, HistoryEntry};
#[cfg(any(fuzzing, test))]
pub use simulated::{Meddling, SimulatedSystem, SystemCall};
#[cfg(any(fuzzing, test))]
pub use simulated_kernel::{Held, Plan, SimulatedKernel};
#[cfg(any(fuzzing, test))]
pub use simulator::JobEngine;
pub use terminal_input::TerminalInput;

pub(crate) use bounds::{Bounds, open_launcher};
pub(crate) use containment::Contained;
#[cfg(any(fuzzing, test))]
pub(crate) use format::{framed, rewritten};
pub(crate) use job::Job;
pub(crate) use launched::Launched;
pub(crate) use launcher::{Launcher, open_null, test_placement};
pub(crate) use linux::Linux;
pub(crate) use orphans::Orphans;
pub(crate) use recovery::Recovery;
pub(crate) use registry::Registry;
pub(crate) use stored::MOST_LABEL;
