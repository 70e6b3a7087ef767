//! The launcher of jobworker: what a child of a host executes at once, and what then becomes the
//! program of a job. All of it is [`jobworker::run_launcher`].

use std::process::ExitCode;

fn main() -> ExitCode {
    jobworker::run_launcher();
    eprintln!(
        "jobworker-launcher is started by programs that use the jobworker library: pass its path \
         to jobworker::Config::launcher"
    );
    ExitCode::FAILURE
}
