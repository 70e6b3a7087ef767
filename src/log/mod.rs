//! The room of logs: their directory, each log from its first byte to its removal, the newest bytes
//! of those that are read, and the tails that read them.
//!
//! Knows nothing of jobs, cgroups or the loop; what it needs of the system is the trait [`Kernel`].

mod awaited;
mod behind;
mod bookmark;
mod directory;
mod end;
mod error;
mod excerpt;
mod file;
mod file_id;
mod follower;
mod following;
mod heat;
mod kernel;
mod lines;
mod log;
mod logs;
#[cfg(any(fuzzing, test))]
mod machine;
mod named;
mod open_log;
mod options;
mod place;
mod published;
mod queue;
mod read;
mod retention;
mod schedule;
mod scratch;
#[cfg(any(fuzzing, test))]
mod simulator;
mod space;
mod sweep;
mod tail;
#[cfg(test)]
mod tests;
mod total;
mod waiting;
mod walk;
mod window;

pub use bookmark::{Bookmark, InvalidBookmark};
pub use file_id::{FileId, InvalidFileId};
#[cfg(any(fuzzing, test))]
pub use machine::{Call, Content, Descriptor, Interference, Link, Machine, Name, byte};
pub use options::{Position, TailOptions};
pub use read::{Chunk, Fill, Read};
#[cfg(any(fuzzing, test))]
pub use simulator::Engine;

pub(crate) use directory::{Kept, LogDirectory, NewLog};
pub(crate) use error::into_error;
pub(crate) use excerpt::Excerpt;
pub(crate) use file::{Identity, LogFile};
pub(crate) use kernel::{Kernel, Measured, Seen};
pub(crate) use logs::Logs;
pub(crate) use place::Place;
#[cfg(all(test, jobworker_loom))]
pub(crate) use published::Published;
pub(crate) use queue::Queue;
pub(crate) use read::ReadError;
pub(crate) use retention::Rules;
pub(crate) use space::Space;
pub(crate) use sweep::DirectorySweep;
pub(crate) use walk::Walk;
pub(crate) use window::Mark;
