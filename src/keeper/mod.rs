//! The room of the keeper, who holds the pidfds of jobs that survive their host while there is
//! none: the process itself, what is said to it, and the host's end of the connection.
//!
//! Knows nothing of jobs but their ids.

mod client;
mod keeper;
mod message;

pub(crate) use client::Client;
pub use keeper::Keeper;
