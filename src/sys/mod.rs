//! The room of raw system calls, and of the child between clone3 and exec, whether it runs on the
//! host's memory or in the launcher: the only unsafe code.
//!
//! Knows nothing of policy: what to run and what to do about a failure is decided above.

#[cfg(feature = "tokio")]
mod async_descriptor;
mod boot_time;
mod calls;
mod capabilities;
mod child;
mod children;
mod fork_mark;
mod launcher_main;
mod launcher_program;
mod letter;
mod memory_file;
mod nurseries;
mod nursery;
mod plan;
mod process;
mod random;
mod report;
mod signature;
mod stat;

#[cfg(feature = "tokio")]
pub(crate) use async_descriptor::AsyncDescriptor;
pub(crate) use boot_time::boot_time;
pub(crate) use calls::{
    Reap, cgroup_id, epoll_fd, is_pidfd, pid_of, pidfd_inode, tells_pidfd_info,
};
pub(crate) use children::{ChildList, threads};
pub(crate) use fork_mark::ForkMark;
pub use launcher_main::run_launcher;

pub(crate) use launcher_program::LauncherProgram;
pub(crate) use letter::VERSION as LAUNCHER_VERSION;
pub(crate) use memory_file::memory_file;
pub(crate) use nurseries::Nurseries;
pub(crate) use nursery::Placement;
pub(crate) use plan::{
    Birth, CStringArray, Descriptor, Failure, Plan, Program, ResourceLimit, Unstarted,
};
pub(crate) use process::{NOT_TOLD, Process, has_exited, is_no_process, send};
pub(crate) use random::random_uuid;
pub(crate) use signature::Signature;
pub(crate) use stat::Stat;
