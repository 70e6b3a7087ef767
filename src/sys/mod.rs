//! The room of raw system calls, and of the child between clone3 and exec: the only unsafe code.
//!
//! Knows nothing of policy: what to run and what to do about a failure is decided above.

mod calls;
mod child;
mod fork_mark;
mod nurseries;
mod nursery;
mod plan;
mod process;
mod random;
mod stat;

pub(crate) use calls::{Reap, cgroup_id, epoll_fd, tells_pidfd_info};
pub(crate) use fork_mark::ForkMark;
pub(crate) use nurseries::Nurseries;
pub(crate) use nursery::Placement;
pub(crate) use plan::{CStringArray, Descriptor, Failure, Plan, ResourceLimit, Unstarted};
pub(crate) use process::{Process, has_exited, send};
pub(crate) use random::random_uuid;
pub(crate) use stat::Stat;
