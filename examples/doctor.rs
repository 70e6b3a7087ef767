//! Reports what this system offers for running jobs, and what to do about what is missing. The exit
//! status is 1 when jobs cannot be run in cgroups at all.

use std::process::ExitCode;

use jobworker::Capabilities;

fn main() -> ExitCode {
    let capabilities = Capabilities::probe();
    println!("{capabilities}");
    if capabilities.can_run_jobs() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
