//! The room of logs: their directory, the newest bytes of each, and the tails that read them.
//!
//! Knows nothing of jobs, cgroups or the loop; what it needs of the system is the trait [`Kernel`].

mod directory;
mod lines;
mod log;
mod reading;
#[cfg(any(fuzzing, test))]
mod simulator;
mod tail;
mod tails;
mod window;

#[cfg(any(fuzzing, test))]
pub use simulator::{Content, End, Engine, Interference, Machine, byte};
pub use tail::{Chunk, Fill, Position, Read, TailOptions};

pub(crate) use directory::LogDirectory;
pub(crate) use log::Kernel;
pub(crate) use tail::Until;
pub(crate) use tails::{Tails, Trouble};
