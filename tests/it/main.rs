//! The integration tests: one binary, a file per promise, all through the public API on the real
//! kernel.

mod calls;
mod support;

mod bad_input;
mod by_name;
mod command;
mod command_view;
mod defects;
mod descriptors;
mod exactness;
mod examples;
mod fanout;
mod hostile;
mod hostile_groups;
mod hostile_hosts;
mod hostile_logs;
mod hostile_processes;
mod hostile_programs;
mod launcher;
mod leftovers;
mod life;
mod limits;
mod nested;
mod orphans;
mod poll;
mod process_group;
mod resources;
#[cfg(feature = "serde")]
mod serialization;
mod smoke;
// A part of the examples, whose unit tests nothing else runs.
#[path = "../../examples/common/status.rs"]
mod status;
mod stdio;
mod tails;
mod threads;
mod tidy;
mod worker;
