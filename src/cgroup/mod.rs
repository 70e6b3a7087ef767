//! The room of the cgroup tree: where jobs are made, one job's group, its name and pressure
//! triggers, and groups made in advance.
//!
//! Knows nothing of jobs, logs or the loop.

mod content;
mod group;
mod host_name;
mod members;
mod name;
mod origin;
mod owner;
mod pool;
mod removal;
mod reserve;
mod sweep;
mod tree;
mod trigger;
mod walk;

pub(crate) use group::{Group, write_record};
pub(crate) use host_name::HostName;
pub(crate) use members::Pass;
#[cfg(any(fuzzing, test))]
pub(crate) use name::Name;
pub(crate) use origin::Origin;
pub(crate) use owner::Owner;
pub(crate) use pool::Pool;
pub(crate) use removal::Removal;
pub(crate) use sweep::{Progress, Sweep};
pub(crate) use tree::{Settings, Tree, disks_with_bfq, lists, v1_mounts};
#[cfg(any(fuzzing, test))]
pub(crate) use tree::{parse_mount_point, unescape};
pub(crate) use trigger::Trigger;
