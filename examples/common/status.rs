//! The "Job Status" block, as the first library of this name prints it.
//!
//! Invariant: it has an exit code only once there is one.

use std::fmt::{Display, Write};
use std::path::Path;

use jobworker::{Exit, Status};

/// The status of a job, with its label, cgroup and log if they are given.
pub(crate) fn block(
    status: &Status,
    label: Option<&str>,
    cgroup: Option<&Path>,
    log: Option<&Path>,
) -> String {
    let places = [("Cgroup", cgroup), ("Log", log)];
    lines(&status.id, label, status.pid, status.exit, &places)
}

/// A death by signal is written as 128 plus its number, and named in a line of its own.
fn lines(
    id: &dyn Display,
    label: Option<&str>,
    pid: u32,
    exit: Option<Exit>,
    places: &[(&str, Option<&Path>)],
) -> String {
    let mut text = format!("Job Status\n\tID\t {id}");
    if let Some(label) = label {
        let _ = write!(text, "\n\tLabel\t {label}");
    }
    let _ = write!(text, "\n\tPID\t {pid}\n\tRunning\t {}", exit.is_none());
    if let Some(exit) = exit {
        let _ = write!(text, "\n\tExitCode {}", exit.shell_code());
    }
    if let Some(exit @ Exit::Signal { .. }) = exit {
        let _ = write!(text, "\n\tSignal\t {exit}");
    }
    for (name, path) in places {
        if let Some(path) = path {
            let _ = write!(text, "\n\t{name}\t {}", path.display());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use jobworker::Signal;

    use super::*;

    #[test]
    fn the_block_is_that_of_the_first_library_and_names_a_signal() {
        let running = "Job Status\n\tID\t 7\n\tPID\t 42\n\tRunning\t true";
        assert_eq!(lines(&7, None, 42, None, &[("Log", None)]), running);
        let ended = running.replace("true", "false");
        let log = Some(Path::new("/some/log"));
        assert_eq!(
            lines(&7, None, 42, Some(Exit::Code(3)), &[("Log", log)]),
            format!("{ended}\n\tExitCode 3\n\tLog\t /some/log")
        );
        let killed = Exit::Signal { signal: Signal::KILL, core_dumped: false };
        assert_eq!(
            lines(&7, None, 42, Some(killed), &[]),
            format!("{ended}\n\tExitCode 137\n\tSignal\t SIGKILL")
        );
        assert_eq!(
            lines(&7, Some("nightly"), 42, None, &[]),
            running.replace("\n\tPID", "\n\tLabel\t nightly\n\tPID")
        );
    }
}
