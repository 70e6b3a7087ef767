//! The room of the doors of layer 0, and the loop: wait, gather, settle, emit.
//!
//! Knows nothing of threads.

#[cfg(feature = "tokio")]
mod async_reactor;
mod capabilities;
mod config;
mod doors;
mod keeping;
mod nested;
mod reactor;
mod recovery;
mod resources;
mod sweeping;
mod system_pressure;

#[cfg(feature = "tokio")]
pub use async_reactor::AsyncReactor;
pub use capabilities::{Capabilities, Check, Verdict};
pub use config::Config;
pub(crate) use reactor::DROP_TIMEOUT;
pub use reactor::{Census, Reactor};
pub use recovery::Recovery;
