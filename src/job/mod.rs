//! The room of jobs: one job as an object, its life as a table, what holds its processes, and how
//! it is started.
//!
//! Knows nothing of who asks. What jobs need of the system is the trait [`System`].

mod bounded_spawns;
mod containment;
mod deadlines;
mod delivery;
mod handles;
mod job;
mod launcher;
mod life;
mod linux;
mod live;
mod prepared;
mod record;
mod registry;
#[cfg(any(fuzzing, test))]
mod simulated;
#[cfg(any(fuzzing, test))]
mod simulator;
mod streams;
mod system;
#[cfg(test)]
mod tests;

pub use bounded_spawns::BoundedSpawns;
pub use containment::Containment;
#[cfg(any(fuzzing, test))]
pub use simulated::{Held, Meddling, Plan, SimulatedSystem, SystemCall};
#[cfg(any(fuzzing, test))]
pub use simulator::JobEngine;

pub(crate) use containment::Contained;
pub(crate) use job::Job;
pub(crate) use launcher::{Launched, Launcher, test_placement};
pub(crate) use linux::Linux;
pub(crate) use registry::Registry;
