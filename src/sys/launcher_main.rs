//! Owns [`run_launcher`]: the life of a process that was started as a launcher.
//!
//! Invariant: it takes its orders from a sealed letter alone, never from arguments or environment,
//! and ends in the program or with a report. Knows nothing of the host.
#![allow(unsafe_code)]

use std::env;
use std::fs::File;
use std::io::Read;
use std::os::fd::{FromRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;

use linux_raw_sys::general as raw;
use rustix::fs::fcntl_get_seals;

use crate::error::Stage;
use crate::sys::calls;
use crate::sys::child::{LAUNCHER_ARGUMENTS, become_program};
use crate::sys::letter::{self, Letter, Order, VERSION};
use crate::sys::memory_file::SEALS;
use crate::sys::report::{Report, write_version};

/// Becomes the program of a job, if this process was started by a reactor as its
/// [launcher](crate::Config::launcher); otherwise returns at once and changes nothing.
///
/// This is all that the program `jobworker-launcher` does. A host that does not want to install a
/// second program can be its own launcher: call this first in `main`, before anything that starts
/// threads, opens files or reads the environment, and pass the path of the executable, such as
/// `/proc/self/exe`, to [`Config::launcher`](crate::Config::launcher). What runs before `main`,
/// such as the dynamic linker and constructors, then runs with the privileges of the host, an empty
/// environment and the job's standard streams, for each bounded spawn. A large executable costs
/// more than the small static one.
///
/// Does nothing in a program that has privileges by its file (a set-user-ID bit or file
/// capabilities), because whoever executes such a program could give it orders. Neither allocates
/// nor makes a system call when it returns, apart from looking at the arguments.
///
/// ```standalone_crate
/// use jobworker::{Config, Reactor};
///
/// fn main() -> Result<(), jobworker::Error> {
///     jobworker::run_launcher();
///     // From here on, this is the host.
///     let mut config = Config::new();
///     config.launcher("/proc/self/exe");
///     let reactor = Reactor::with_config(&config)?;
///     # drop(reactor);
///     Ok(())
/// }
/// ```
pub fn run_launcher() {
    let mut arguments = env::args_os();
    for word in LAUNCHER_ARGUMENTS {
        if arguments.next().is_none_or(|argument| argument.as_bytes() != word.to_bytes()) {
            return;
        }
    }
    let first = arguments.next().and_then(|number| number.to_str()?.parse::<RawFd>().ok());
    if let Some(first) = first.filter(|first| (3..RawFd::MAX).contains(first))
        && arguments.next().is_none()
        && !calls::is_privileged_by_file()
    {
        serve(first);
    }
}

/// Obeys the letter, unless there is none, as when somebody has given these arguments by hand.
fn serve(verdict: RawFd) {
    let letter = verdict + 1;
    // Closed by exec: that tells the host that the program was executed.
    let open = calls::close_at_exec(verdict).and_then(|()| calls::close_at_exec(letter));
    if open.is_err() {
        return;
    }
    // SAFETY: the descriptor is open, and in a process that was started with these arguments
    // nothing else has opened it. It is closed here, before the ids change.
    let mut file = unsafe { File::from_raw_fd(letter) };
    if !fcntl_get_seals(&file).is_ok_and(|seals| seals.contains(SEALS)) {
        return;
    }
    let mut bytes = Vec::new();
    let read = file.read_to_end(&mut bytes);
    drop(file);
    match read.ok().and_then(|_| letter::read(&bytes)) {
        Some(Letter::Start(order)) => {
            let Order { program, host, capabilities } = *order;
            let report = Report::Pipe(verdict);
            // The runtime of a Rust program ignores it; everything else is as it has to be.
            let ready =
                calls::set_signal_action(raw::SIGPIPE, false).and_then(|()| capabilities.restore());
            let (stage, errno) = match ready {
                Ok(()) => {
                    let Err(failed) = become_program(&program, host, report);
                    failed
                }
                Err(errno) => (Stage::Launcher, errno),
            };
            report.failed(stage, errno);
        }
        // A host of another version is told as well that it is another one.
        Some(Letter::Probe) | None => write_version(verdict, VERSION),
    }
    calls::exit(127)
}
