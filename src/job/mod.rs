//! The room of jobs: one job as an object, its life as a table, what holds its processes, and how
//! it is started.
//!
//! Knows nothing of who asks. What jobs need of the system is the trait [`System`].

mod bounded_spawns;
mod bounds;
mod containment;
mod deadlines;
mod delivery;
mod handles;
mod job;
mod launcher;
mod life;
mod linux;
mod live;
mod orphans;
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

pub(crate) use bounds::{Bounds, open_launcher};
pub(crate) use containment::Contained;
pub(crate) use job::Job;
pub(crate) use launcher::{Launched, Launcher, open_null, test_placement};
pub(crate) use linux::Linux;
pub(crate) use orphans::Orphans;
pub(crate) use registry::Registry;
