//! Owns what tests have left out: why, and in which tests, for a last line when all are done.
//!
//! Invariant: a test that says "ok" without having tested all that its name says is counted once,
//! in whichever process it ran. Knows nothing of why something is missing.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::panic::Location;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use tempfile::NamedTempFile;

/// The first reason of each test.
static SKIPPED: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());

/// Names the file in which a test in a process of its own passes on what it has left out.
const FILE: &str = "JOBWORKER_TEST_SKIPS";

/// Prints why a test leaves out something, or everything, and counts it.
#[track_caller]
pub(crate) fn skip(reason: impl Display) {
    let reason = reason.to_string();
    eprintln!("skipped: {reason}");
    let place = Location::caller();
    // The harness names its threads after their tests, unless it has but one.
    let thread = std::thread::current();
    let test = match thread.name() {
        Some(name) if name != "main" => name.to_owned(),
        _ => place.to_string(),
    };
    if let Some(file) = std::env::var_os(FILE) {
        // A test that has given up its rights may be unable to.
        let file = OpenOptions::new().append(true).open(file);
        let _ = file.and_then(|mut file| writeln!(file, "{}", reason.replace('\n', " ")));
        return;
    }
    record(test, reason);
}

fn record(test: String, reason: String) {
    let mut skipped = SKIPPED.lock().unwrap_or_else(PoisonError::into_inner);
    skipped.entry(test).or_insert(reason);
}

/// What a test that runs in a process of its own leaves out there.
pub(crate) struct Elsewhere(NamedTempFile);

impl Elsewhere {
    /// Has the process tell it, whichever user it becomes.
    pub(crate) fn told_by(command: &mut Command) -> Self {
        let file = NamedTempFile::with_prefix("jobworker-skips-").unwrap();
        file.as_file().set_permissions(PermissionsExt::from_mode(0o666)).unwrap();
        command.env(FILE, file.path());
        Self(file)
    }

    /// Counts it for this test.
    pub(crate) fn count(self, test: &str) {
        let told = io::read_to_string(self.0.reopen().unwrap()).unwrap();
        for reason in told.lines() {
            record(test.to_owned(), reason.to_owned());
        }
    }
}

/// The last lines: how many tests have left out something, and why. Nothing if none has.
pub(crate) fn summary() -> String {
    summary_of(&SKIPPED.lock().unwrap_or_else(PoisonError::into_inner))
}

fn summary_of(skipped: &BTreeMap<String, String>) -> String {
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in skipped.values() {
        *reasons.entry(reason).or_default() += 1;
    }
    let mut reasons: Vec<_> = reasons.into_iter().collect();
    reasons.sort_by_key(|(_, tests)| std::cmp::Reverse(*tests));
    let mut text = String::new();
    if !skipped.is_empty() {
        let _ = writeln!(
            text,
            "skipped: {} of these tests, in whole or in part, because of what is missing here:",
            skipped.len()
        );
    }
    for (reason, tests) in reasons {
        let _ = writeln!(text, "{tests:>6}  {reason}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_count_tests_by_their_reasons_and_the_commonest_comes_first() {
        assert_eq!(summary_of(&BTreeMap::new()), "");
        let tests = [("one", "no disk"), ("two", "not root"), ("three", "not root")];
        let skipped = tests.map(|(test, reason)| (test.to_owned(), reason.to_owned())).into();
        let text = summary_of(&skipped);
        assert!(text.starts_with("skipped: 3 of these tests"), "{text}");
        assert!(text.ends_with(":\n     2  not root\n     1  no disk\n"), "{text}");
    }
}
