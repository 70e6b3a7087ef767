//! A host with threads: runs a program as a job and copies its output as it appears, in ten lines.
//!
//! `cargo run --release --example blocking -- sh -c 'for i in 1 2 3; do echo $i; sleep 1; done'`,
//! and Ctrl-C to stop it. A thread copies, and another waits for signals: each has a handle of the
//! same job, and the loop that serves both is on a third, the worker's.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;
use std::{io, thread};

use clap::Parser;
use jobworker::worker::Shutdown;
use jobworker::{Command, Position, Worker};
use signal_hook::iterator::Signals;

use crate::place::PlaceFlags;

#[path = "common/place.rs"]
mod place;
#[path = "common/signals.rs"]
mod signals;
#[path = "common/words.rs"]
mod words;

/// Runs CMD as a job in its own cgroup, and copies its output to standard output.
///
/// CMD has the environment and the working directory of this process, and /dev/null as standard
/// input. SIGINT (Ctrl-C), SIGTERM or SIGHUP stop every process of the job. The exit status is that
/// of CMD, 128+N when signal N ended it, and 1 when there was an error.
#[derive(Parser)]
#[command(name = "blocking", override_usage = "blocking [OPTIONS] CMD [ARGS]...")]
struct Options {
    #[command(flatten)]
    place: PlaceFlags,
    /// The program.
    #[arg(value_name = "CMD")]
    program: OsString,
    /// Its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    // Handled before anything is created, so that no signal can leave anything behind.
    let mut signals = Signals::new(signals::to_handle()?)?;
    let worker = Worker::with_config(&options.place.config()).map_err(words::spoken)?;
    let mut command = Command::new(options.program);
    let job = worker.spawn(command.args(options.args).inherit_env()).map_err(words::spoken)?;
    let stopper = job.clone();
    thread::spawn(move || signals.forever().for_each(|_| drop(stopper.stop())));

    let copied = job.output(Position::Start).map(|mut log| io::copy(&mut log, &mut io::stdout()));
    // Stops the job if its output could not be copied to the end. The thread above has a handle,
    // so dropping those here would not end the worker, and `main` would return before it cleans up.
    worker.shutdown(Shutdown::Stop, Duration::from_secs(10))?;
    copied??;
    Ok(ExitCode::from(u8::try_from(job.wait()?.exit.shell_code())?))
}
