//! Owns [`Report`], what is known of a job at its end, and [`Status`], what is known of it now.
//!
//! Plain data; knows nothing of how it is collected.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::error::Error;
use crate::event::exit::{Exit, Usage};
use crate::event::stats::Stats;
use crate::id::JobId;

/// What stopped a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum StopCause {
    /// [`Reactor::stop`](crate::Reactor::stop).
    Stop,
    /// [`Reactor::kill`](crate::Reactor::kill).
    Kill,
    /// The command's [`time_limit`](crate::Command::time_limit).
    TimeLimit,
    /// The command's [`log_limit`](crate::Command::log_limit).
    LogLimit,
    /// The reactor was dropped; or its host has died, and the next one has ended what was left of
    /// a job that it has found [`Interrupted`](crate::Found::Interrupted) or
    /// [`Damaged`](crate::Found::Damaged).
    Drop,
}

/// Whose memory limit was exceeded when the kernel killed processes of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum OomCause {
    /// The job's own limit, or that of a cgroup that it made below its own.
    Job,
    /// The limit of a cgroup above the job's.
    Ancestor,
    /// None: the whole system ran out of memory, or an administrator requested the kill.
    System,
}

/// How a job ended and what it used, reported with [`Event::Finished`](crate::Event::Finished).
///
/// ```
/// use jobworker::{Command, Reactor, Signal, Token};
///
/// let mut reactor = Reactor::new()?;
/// let mut command = Command::new("sh");
/// let job = reactor.spawn(command.args(["-c", "echo out; kill -KILL $$"]), Token(0))?;
/// let report = reactor.wait(job)?;
///
/// println!("{} after {:?}, {:?} of it busy", report.exit, report.wall, report.usage.user);
/// assert_eq!(report.exit.signal(), Some(Signal::KILL));
/// // It was not the host that ended it.
/// assert_eq!(report.stopped_by, None);
/// assert_eq!(report.output_bytes, 4);
/// // Nothing went wrong while it was cleaned up.
/// assert!(report.problems.is_empty());
/// # Ok::<(), jobworker::Error>(())
/// ```
#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Report {
    /// How the main process ended.
    pub exit: Exit,
    /// From the spawn to the exit of the main process.
    pub wall: Duration,
    /// What the main process used.
    pub usage: Usage,
    /// What stopped the job, or `None` when it ended by itself. The first request counts.
    pub stopped_by: Option<StopCause>,
    /// Whether processes of the job were killed: the grace period was over, `kill` was called, or
    /// the main process left others behind under
    /// [`EndPolicy::KillRest`](crate::EndPolicy::KillRest). What could not be killed does not
    /// count, nor do processes that had exited already.
    pub killed: bool,
    /// Whose memory limit was exceeded, if the kernel killed processes of the job for that.
    pub oom: Option<OomCause>,
    /// What all processes of the job have used, read after the last was gone; `None` without a
    /// cgroup or without [`accounting`](crate::Command::accounting).
    pub stats: Option<Stats>,
    /// Size in bytes of the job's log, or of the one of standard output: where tails end.
    pub output_bytes: u64,
    /// Size in bytes of the log of standard error, if that is separate.
    pub error_bytes: u64,
    /// Whether a log was longer than its [`log_limit`](crate::Command::log_limit).
    #[cfg_attr(feature = "serde", serde(default))]
    pub log_limit_exceeded: bool,
    /// How many bytes behind `output_bytes` were [discarded](crate::OverLimit::Discard).
    #[cfg_attr(feature = "serde", serde(default))]
    pub output_discarded: u64,
    /// How many bytes behind `error_bytes` were discarded.
    #[cfg_attr(feature = "serde", serde(default))]
    pub error_discarded: u64,
    /// The job's cgroup, if it was left behind because processes are still running in it
    /// ([`EndPolicy::LeaveRest`](crate::EndPolicy::LeaveRest)) or because it could not be removed.
    #[cfg_attr(feature = "serde", serde(with = "crate::portable"))]
    pub cgroup_left: Option<PathBuf>,
    /// What failed while the job was stopped and cleaned up; usually empty.
    pub problems: Vec<Error>,
}

/// How far a job has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Phase {
    /// The main process is running.
    Running,
    /// The main process was sent the stop signal or was killed, and has not exited yet.
    Stopping,
    /// The main process has exited; other processes of the job have not, or its cgroup is being
    /// removed.
    Exited,
    /// Every process of the job is gone, but for those that its [`EndPolicy`](crate::EndPolicy)
    /// leaves running; only its log is left.
    Finished,
}

/// What is known of a job now, by [`Reactor::status`](crate::Reactor::status).
///
/// ```
/// use jobworker::{Command, Phase, Reactor, Token};
///
/// let mut reactor = Reactor::new()?;
/// let job = reactor.spawn(Command::new("sleep").arg("1000"), Token(0))?;
/// let status = reactor.status(job)?;
/// assert_eq!((status.phase, status.exit), (Phase::Running, None));
/// println!("process {} in {:?} for {:?}", status.pid, status.cgroup, status.elapsed);
/// println!("its output is in {:?}", status.output);
/// # Ok::<(), jobworker::Error>(())
/// ```
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Status {
    /// The job.
    pub id: JobId,
    /// The process id of the main process. The kernel may reuse it once that has exited. 0 if an
    /// earlier host has left the job, and nobody knows it any more.
    pub pid: u32,
    /// How far the job has come.
    pub phase: Phase,
    /// How the main process ended, once it has.
    pub exit: Option<Exit>,
    /// Whether the job was asked to freeze, and has not been thawed since.
    pub frozen: bool,
    /// When the job was spawned, by the wall clock.
    pub started: SystemTime,
    /// From the spawn until now, or until the exit of the main process.
    pub elapsed: Duration,
    /// The job's cgroup, unless it is contained by process group; `None` once the job is finished
    /// and the group removed.
    #[cfg_attr(feature = "serde", serde(with = "crate::portable"))]
    pub cgroup: Option<PathBuf>,
    /// The log of both streams, or of standard output.
    #[cfg_attr(feature = "serde", serde(with = "crate::portable"))]
    pub output: Option<PathBuf>,
    /// The log of standard error, if that is separate.
    #[cfg_attr(feature = "serde", serde(with = "crate::portable"))]
    pub error: Option<PathBuf>,
    /// The offsets between which the log of both streams, or of standard output, lies, as of the
    /// last look at it: from the first byte that was [kept](crate::Command::log_keep) to the end.
    /// `None` if there is no such log, or nobody looks at it: the job runs, the log has no tails,
    /// and all of it is kept.
    #[cfg_attr(feature = "serde", serde(default))]
    pub output_range: Option<Range<u64>>,
    /// The same of the log of standard error, if that is separate.
    #[cfg_attr(feature = "serde", serde(default))]
    pub error_range: Option<Range<u64>>,
    /// The final report, once the job is finished.
    pub report: Option<Arc<Report>>,
}

/// Writes one line that says how far the job has come, such as
/// `job 67e55044-10b1-426f-9247-bb680e5fe0c8: running as pid 42 for 1.234s` or, at its end,
/// `job 67e55044-10b1-426f-9247-bb680e5fe0c8: finished after 1.234s: exit code 3`.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let elapsed =
            Duration::from_millis(u64::try_from(self.elapsed.as_millis()).unwrap_or(u64::MAX));
        write!(f, "job {}: ", self.id)?;
        match (self.phase, self.exit) {
            (Phase::Running, _) => write!(f, "running as pid {} for {elapsed:?}", self.pid)?,
            (Phase::Stopping, _) => write!(f, "stopping pid {} after {elapsed:?}", self.pid)?,
            (Phase::Exited, Some(exit)) => {
                write!(f, "main process exited after {elapsed:?}: {exit}; others are left")?;
            }
            (Phase::Exited, None) => write!(f, "main process exited; others are left")?,
            (Phase::Finished, Some(exit)) => write!(f, "finished after {elapsed:?}: {exit}")?,
            (Phase::Finished, None) => write!(f, "finished")?,
        }
        if self.frozen { f.write_str(" (frozen)") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Signal;

    impl Report {
        /// One that has nothing but an exit.
        pub(crate) fn of(exit: Exit) -> Self {
            Self {
                exit,
                wall: Duration::ZERO,
                usage: Usage::default(),
                stopped_by: None,
                killed: false,
                oom: None,
                stats: None,
                output_bytes: 0,
                error_bytes: 0,
                log_limit_exceeded: false,
                output_discarded: 0,
                error_discarded: 0,
                cgroup_left: None,
                problems: Vec::new(),
            }
        }
    }

    #[test]
    fn a_status_is_one_line_that_says_no_more_than_is_known() {
        let mut status = Status {
            id: JobId::new(uuid::Uuid::nil()),
            pid: 42,
            phase: Phase::Running,
            exit: None,
            frozen: true,
            started: SystemTime::UNIX_EPOCH,
            elapsed: Duration::from_micros(1_234_567),
            cgroup: None,
            output: None,
            error: None,
            output_range: None,
            error_range: None,
            report: None,
        };
        let line = |status: &Status| {
            let text = status.to_string();
            text.strip_prefix(&format!("job {}: ", status.id)).unwrap().to_owned()
        };
        assert_eq!(line(&status), "running as pid 42 for 1.234s (frozen)");
        status.frozen = false;
        status.phase = Phase::Stopping;
        assert_eq!(line(&status), "stopping pid 42 after 1.234s");
        status.phase = Phase::Exited;
        status.exit = Some(Exit::Signal { signal: Signal::KILL, core_dumped: false });
        assert_eq!(line(&status), "main process exited after 1.234s: SIGKILL; others are left");
        (status.phase, status.exit) = (Phase::Finished, Some(Exit::Code(3)));
        assert_eq!(line(&status), "finished after 1.234s: exit code 3");
    }
}
