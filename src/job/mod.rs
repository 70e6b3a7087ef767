//! The room of jobs: their life as a table, what holds their processes, and how they are started.
//!
//! Knows nothing of who asks.

mod containment;
mod control;
mod deadlines;
mod ending;
mod jobs;
mod launch;
mod life;
mod prepared;

pub use containment::Containment;

pub(crate) use jobs::{FIRST_TOKEN, Jobs, Surroundings};
pub(crate) use launch::{Ground, test_placement};
