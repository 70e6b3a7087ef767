//! Owns [`Stored`]: what is kept of a job that survives its host, for the host that comes after it.
//!
//! Invariant: plain data that means the same in another process. Times are those of CLOCK_BOOTTIME,
//! which the clock of this process is not. Knows nothing of where it is kept.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::event::{Exit, Report, StopCause, Usage};
use crate::id::JobId;
use crate::job::life::Grace;
use crate::job::record::Policies;
use crate::log::Identity;

/// How many bytes of the command are kept.
const MOST_COMMAND: usize = 8 << 10;

/// How many bytes a label may have.
pub(crate) const MOST_LABEL: usize = 16 << 10;

/// What is kept of a job.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stored {
    pub(crate) id: JobId,
    pub(crate) label: Vec<u8>,
    /// What was run, as its command prints it: without the environment.
    pub(crate) command: String,
    pub(crate) started: SystemTime,
    /// The same moment since the system was booted.
    pub(crate) booted: Duration,
    pub(crate) policies: Policies,
    /// Where the logs lie.
    pub(crate) directory: PathBuf,
    pub(crate) logs: [Option<Identity>; 2],
    /// So many of the newest bytes of each are kept.
    pub(crate) log_keep: Option<u64>,
    /// How long each may become.
    pub(crate) log_limit: Option<u64>,
    /// `None` until it is cloned.
    pub(crate) main: Option<Main>,
    pub(crate) stop: Option<Stop>,
    pub(crate) exited: Option<KnownExit>,
    /// The file system of its logs was full while it ran.
    pub(crate) log_cut: bool,
    /// When the job was finished, since the system was booted.
    pub(crate) finished: Option<Duration>,
    /// The host has removed the job, but not all of what it has left.
    pub(crate) removed: bool,
}

/// Which process is the main one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Main {
    pub(crate) pid: u32,
    pub(crate) known_by: KnownBy,
}

/// What tells a process from others that have its number before or after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KnownBy {
    /// The inode of its pidfd, which no other process has until the system is booted again; since
    /// Linux 6.9.
    Inode(u64),
    /// When it was cloned, in the kernel's ticks. To read it takes as long as all else that is done
    /// to keep a job.
    Start(u64),
}

/// A stop that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stop {
    /// The first request.
    pub(crate) cause: StopCause,
    pub(crate) until: Until,
}

/// When what is left is killed, in the order in which requests can only shorten it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Until {
    /// At once.
    Now,
    /// At this time since the system was booted.
    Boot(Duration),
    /// Never.
    Never,
}

/// How the main process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KnownExit {
    pub(crate) exit: Exit,
    pub(crate) usage: Usage,
    pub(crate) wall: Duration,
    /// Whether processes of the job were killed by then.
    pub(crate) killed: bool,
    /// Why it is not known how, if there is something to say.
    pub(crate) why_unknown: Option<&'static str>,
}

impl KnownExit {
    /// As a final report tells it.
    pub(crate) fn of(report: &Report) -> Self {
        let Report { exit, usage, wall, killed, .. } = *report;
        Self { exit, usage, wall, killed, why_unknown: None }
    }
}

impl Stored {
    /// What is known of a job without a process, of which nothing else is known: neither what is
    /// run, nor of any log.
    pub(crate) fn new(
        id: JobId,
        (started, booted): (SystemTime, Duration),
        policies: Policies,
        directory: PathBuf,
    ) -> Self {
        Self {
            id,
            label: Vec::new(),
            command: String::new(),
            started,
            booted,
            policies,
            directory,
            logs: [None, None],
            log_keep: None,
            log_limit: None,
            main: None,
            stop: None,
            exited: None,
            log_cut: false,
            finished: None,
            removed: false,
        }
    }

    /// Records that the job is to end, as one more request.
    pub(crate) fn stop_requested(&mut self, cause: StopCause, until: Until, shortens: bool) {
        match &mut self.stop {
            None => self.stop = Some(Stop { cause, until }),
            Some(stop) if shortens => stop.until = stop.until.min(until),
            Some(_) => {}
        }
    }
}

impl Until {
    /// A grace period, seen at this moment of both clocks.
    pub(crate) fn of(grace: Grace, now: std::time::Instant, booted: Duration) -> Self {
        match grace {
            Grace::Over => Self::Now,
            Grace::Until(at) => Self::Boot(booted + at.saturating_duration_since(now)),
            Grace::Unlimited => Self::Never,
        }
    }

    /// What is left of it.
    pub(crate) fn grace(self, now: std::time::Instant, booted: Duration) -> Grace {
        match self {
            Self::Now => Grace::Over,
            Self::Boot(at) if at <= booted => Grace::Over,
            Self::Boot(at) => now.checked_add(at - booted).map_or(Grace::Unlimited, Grace::Until),
            Self::Never => Grace::Unlimited,
        }
    }
}

/// As much of a command as is kept.
pub(crate) fn shortened(mut command: String) -> String {
    if command.len() > MOST_COMMAND {
        let end = (0..=MOST_COMMAND).rev().find(|end| command.is_char_boundary(*end));
        command.truncate(end.unwrap_or_default());
        command.push_str("...");
    }
    command
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_grace_period_goes_on_by_the_other_clock() {
        let (now, booted) = (Instant::now(), Duration::from_secs(100));
        let grace = Grace::Until(now + Duration::from_secs(10));
        let until = Until::of(grace, now, booted);
        assert_eq!(until, Until::Boot(Duration::from_secs(110)));
        let later = now + Duration::from_secs(1000);
        let six = Duration::from_secs(106);
        assert_eq!(until.grace(later, six), Grace::Until(later + Duration::from_secs(4)));
        assert_eq!(until.grace(later, Duration::from_secs(110)), Grace::Over);
        assert_eq!(Until::of(Grace::Over, now, booted).grace(now, booted), Grace::Over);
        assert_eq!(Until::of(Grace::Unlimited, now, booted).grace(now, booted), Grace::Unlimited);
    }

    #[test]
    fn a_long_command_is_cut_between_two_characters() {
        let cut = shortened("\u{e4}".repeat(MOST_COMMAND));
        assert_eq!(cut, format!("{}...", "\u{e4}".repeat(MOST_COMMAND / 2)));
        assert_eq!(shortened("true".to_owned()), "true");
    }
}
