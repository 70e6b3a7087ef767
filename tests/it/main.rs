//! The integration tests: one binary, a file per promise, all through the public API on the real
//! kernel.

// A command has many fields, and json! takes each of them by a macro of its own.
#![recursion_limit = "256"]

mod calls;
mod support;

mod agent;
#[cfg(feature = "tokio")]
mod async_reactor;
mod bad_input;
mod by_name;
mod cancellation;
mod command;
mod command_lines;
mod command_view;
mod defects;
mod descriptors;
mod drops;
mod exactness;
mod examples;
mod fanout;
mod full_disk;
#[cfg(feature = "futures-io")]
mod futures_io;
mod history;
mod host_tokio;
mod hostile;
mod hostile_groups;
mod hostile_hosts;
mod hostile_logs;
mod hostile_processes;
mod hostile_programs;
mod hosts;
mod job_events;
mod keeper;
mod last_words;
mod launcher;
mod leftovers;
mod life;
mod limits;
mod nested;
mod orphans;
mod outputs;
mod poll;
mod process_group;
mod resources;
mod retention;
#[cfg(feature = "serde")]
mod serialization;
mod skips;
mod smoke;
// A part of the examples, whose unit tests nothing else runs.
#[path = "../../examples/common/status.rs"]
mod status;
mod stdio;
mod survival;
mod survival_kill;
mod tails;
mod terminal;
// Another such part, which nothing here uses but its own tests.
#[allow(dead_code)]
#[path = "../../examples/common/terminal.rs"]
mod terminal_keys;
mod threads;
mod tidy;
#[cfg(feature = "tokio")]
mod tokio_io;
#[cfg(feature = "tracing")]
mod tracing;
mod worker;
mod worker_input;
