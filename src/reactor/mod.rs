//! The room of the doors of layer 0, and the loop: wait, gather, settle, emit.
//!
//! Knows nothing of threads.

mod capabilities;
mod config;
mod doors;
mod nested;
mod reactor;
mod resources;
mod sweeping;
mod system_pressure;

pub use capabilities::{Capabilities, Check, Verdict};
pub use config::Config;
pub use reactor::{Census, Reactor};
