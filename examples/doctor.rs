//! Reports what this system offers for running jobs, and what to do about what is missing. With an
//! argument, also whether that program is a launcher of this release. The exit status is 1 when
//! jobs cannot be run in cgroups at all.

use std::process::ExitCode;

use jobworker::{Capabilities, Config};

fn main() -> ExitCode {
    let mut config = Config::new();
    if let Some(path) = std::env::args_os().nth(1) {
        config.launcher(path);
    }
    let capabilities = Capabilities::probe_with(&config);
    println!("{capabilities}");
    if capabilities.can_run_jobs() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
