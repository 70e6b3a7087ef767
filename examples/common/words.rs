//! Owns the words in which the examples report the library's errors: those of their command lines.
//!
//! Invariant: a remedy names a flag, where the library names what a host would call. Knows nothing
//! of where it is printed.

use jobworker::{Error, LimitsError, SystemError};

/// What the library says to hosts, and what that is on the command line.
const WORDS: [(&str, &str); 9] = [
    (
        "move them into a group below it, for the host's own see Config::host_leaf",
        "name one without processes with --cgroup-parent",
    ),
    (
        ". Name a cgroup that this user may write to with Config::cgroup_parent, or contain jobs \
         by process group (Containment::ProcessGroup), which cannot hold a process that leaves its \
         group",
        "",
    ),
    (
        "it was removed while the reactor was using it: make a new reactor, or name a directory \
         that nobody cleans up with Config::log_dir",
        "it was removed meanwhile: name one that nobody cleans up with --log-dir",
    ),
    ("Config::log_dir", "--log-dir"),
    ("one of Limits::files; Limits::raw sets any other file", "a file of a limit"),
    ("pass its path to Config::launcher", "pass its path to the host"),
    ("Reactor::freeze and thaw", "freezing a job and letting it go on"),
    ("Reactor::pressure and watch_pressure", "knowing what a job is stalled for"),
    ("Reactor::watch_system_pressure", "knowing what the whole system is stalled for"),
];

/// An error of the library.
#[allow(dead_code, reason = "doctor has no errors, only checks")]
pub(crate) fn of(error: &Error) -> String {
    match error {
        Error::System(SystemError::NoCgroup { reason, .. }) => format!(
            "no cgroup can be made: {reason}. Name one that you may write to with \
             --cgroup-parent DIR, or do without with --no-cgroup"
        ),
        Error::Limits(LimitsError::NeedCgroup) => "limits need a cgroup: run as root, or name one \
             that you may write to with --cgroup-parent DIR"
            .to_owned(),
        other => translated(&other.to_string()),
    }
}

/// The same, for a host that passes its errors on.
#[allow(dead_code, reason = "each example is a crate, and some print them themselves")]
#[allow(clippy::needless_pass_by_value, reason = "it is for `map_err`")]
pub(crate) fn spoken(error: Error) -> anyhow::Error {
    anyhow::Error::msg(of(&error))
}

/// A text of the library, such as a remedy.
pub(crate) fn translated(text: &str) -> String {
    WORDS.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}
