//! Owns [`Launched`]: a job that was started, or found, but not yet adopted by a registry; and
//! [`Made`], what was made for it so far.
//!
//! Invariant: whatever was made for a job is rolled back when its [`Launched`] or [`Made`] is
//! dropped, whatever step was reached; what was found stays. Knows nothing of how a job is started.

use std::io::PipeWriter;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use crate::cgroup::{Group, Pass};
use crate::command::{ByteSize, Command, OverLimit};
use crate::error::{Error, Result};
use crate::event::Report;
use crate::id::JobId;
use crate::job::containment::Contained;
use crate::job::linux::Linux;
use crate::job::record::Record;
use crate::job::starting::{Start, Starting};
use crate::job::stored::Stored;
use crate::job::system::Begun;
use crate::job::terminal::Terminal;
use crate::log::{Kept, LogDirectory, NewLog, Place, Rules};
use crate::sys::Process;
use crate::trace::{self, JobSpan};

/// How long a failed start may wait for its own processes to die.
pub(super) const ABANDON_TIMEOUT: Duration = Duration::from_secs(1);

/// A job that was started. Dropping it ends the job and rolls back everything that was made for it.
#[derive(Debug)]
pub(crate) struct Launched {
    record: Record,
    /// Taken by [`Launched::into_parts`] alone.
    process: Option<Process>,
    /// The host's end of the pipe that is the job's standard input.
    stdin: Option<PipeWriter>,
    /// The host's end of the job's terminal.
    terminal: Option<Terminal>,
    span: JobSpan,
    made: Made,
    /// It was found rather than made, and so stays when it is dropped: with the report of a job
    /// that was finished before.
    found: Option<Option<Arc<Report>>>,
    /// What has failed when it was found.
    problem: Option<Error>,
}

/// What was made for a job so far; dropping it rolls that back.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) id: JobId,
    directory: Arc<LogDirectory>,
    pub(super) places: [Option<Place>; 2],
    /// The logs that are to be kept short.
    kept: [Option<Kept>; 2],
    pub(super) group: Option<Group>,
    /// Until it is adopted, unless it was found.
    _start: Option<Start>,
}

impl Launched {
    /// A job that was just started.
    pub(super) fn started(
        record: Record,
        process: Process,
        (stdin, terminal): (Option<PipeWriter>, Option<Terminal>),
        span: JobSpan,
        made: Made,
    ) -> Self {
        let (process, found, problem) = (Some(process), None, None);
        Self { record, process, stdin, terminal, span, made, found, problem }
    }

    /// What an earlier host has left of a job: its main process, or its report.
    pub(super) fn found(
        stored: Stored,
        spawned: Instant,
        (group, logs): (Group, [Option<NewLog>; 2]),
        course: Result<Process, Arc<Report>>,
        directory: Arc<LogDirectory>,
        problem: Option<Error>,
    ) -> Self {
        let (process, report) = match course {
            Ok(process) => (Some(process), None),
            Err(report) => (None, Some(report)),
        };
        let id = stored.id;
        let span = JobSpan::recovered(id, stored.main.map_or(0, |main| main.pid), &stored.command);
        let record = Record::of_stored(stored, spawned);
        let [output, error] =
            logs.map(|log| log.map_or((None, None), |log| (Some(log.place), log.kept)));
        let (places, kept) = ([output.0, error.0], [output.1, error.1]);
        let made = Made { id, directory, places, kept, group: Some(group), _start: None };
        let (stdin, terminal, found) = (None, None, Some(report));
        Self { record, process, stdin, terminal, span, made, found, problem }
    }

    /// Whether it was found rather than made.
    pub(crate) fn is_found(&self) -> bool {
        self.found.is_some()
    }

    /// The main process, unless the job was finished before.
    pub(crate) fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    pub(crate) fn span(&self) -> &JobSpan {
        &self.span
    }

    /// The host's end of the pipe that is the job's standard input, if it is one.
    pub(crate) fn take_stdin(&mut self) -> Option<PipeWriter> {
        self.stdin.take()
    }

    /// The host's end of the job's terminal, if it has one.
    pub(crate) fn terminal(&self) -> Option<&Terminal> {
        self.terminal.as_ref()
    }

    /// Hands it out.
    pub(crate) fn take_terminal(&mut self) -> Option<Terminal> {
        self.terminal.take()
    }

    /// Keeps everything else.
    pub(crate) fn into_parts(mut self) -> (Record, Begun<Linux>, [Option<NewLog>; 2]) {
        let group = self.made.group.take().map(Contained::Cgroup);
        let report = self.found.take().flatten();
        let problem = self.problem.take();
        let course = match (self.process.take(), report, group) {
            (Some(process), _, Some(group)) => Begun::Live { process, group, problem },
            (Some(process), _, None) => {
                let group = Contained::process_group(&process);
                Begun::Live { process, group, problem }
            }
            (None, Some(report), Some(group)) => Begun::Finished { group, report },
            (None, ..) => unreachable!("it has a process, or a report and a group"),
        };
        let [output, error] = std::mem::take(&mut self.made.places);
        let [short_output, short_error] = std::mem::take(&mut self.made.kept);
        let log = |place: Option<Place>, kept| Some(NewLog { place: place?, kept });
        let logs = [log(output, short_output), log(error, short_error)];
        (self.record.clone(), course, logs)
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        if self.found.is_some() {
            // It is left as it was found.
            (self.made.group, self.made.places) = (None, [None, None]);
            return;
        }
        let Some(process) = self.process.take() else { return };
        self.span.within(trace::rolled_back);
        // There is nobody left to report a failure to. What follows removes the group and the logs.
        end(&process, self.made.group.as_ref());
    }
}

/// Kills a process and what else is in its group, and waits for a bounded time until all of it is
/// gone. Returns whether the process is.
pub(super) fn end(process: &Process, group: Option<&Group>) -> bool {
    let until = Instant::now() + ABANDON_TIMEOUT;
    let Some(group) = group else {
        // While the process is not reaped, the number is its own.
        let _ = Contained::process_group(process).kill(process);
        return process.end(ABANDON_TIMEOUT);
    };
    let _ = group.kill();
    let ended = process.end(ABANDON_TIMEOUT);
    while group.populated().unwrap_or(false) && Instant::now() < until {
        let (mut pass, mut budget) = (Pass::default(), usize::MAX);
        let _ = group.for_each_member(
            &mut pass,
            &mut budget,
            |_| true,
            |_, pidfd| {
                let left = until.saturating_duration_since(Instant::now()).try_into().ok();
                let _ = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], left.as_ref());
                Ok(ControlFlow::Continue(()))
            },
        );
    }
    ended
}

impl Made {
    /// Nothing so far, of a job that is begun.
    pub(super) fn new(id: JobId, directory: Arc<LogDirectory>, starting: &Starting) -> Self {
        let (places, kept, _start) = ([None, None], [None, None], Some(starting.begin(id)));
        Self { id, directory, places, kept, group: None, _start }
    }

    /// Makes a log, open for the job to write to.
    pub(super) fn log(
        &mut self,
        index: usize,
        suffix: &str,
        command: &Command,
        counted: bool,
    ) -> Result<OwnedFd> {
        let (name, owner) = (format!("{}.{suffix}", self.id), (command.uid, command.gid));
        let limit = command.log_limit;
        let discard = limit.is_some_and(|(_, then)| then == OverLimit::Discard);
        let (keep, limit) = (command.log_keep, limit.map(|(limit, _)| limit.as_bytes()));
        let rules = Rules::new(keep.map(ByteSize::as_bytes), limit, discard, counted);
        let (log, made) = self.directory.create(&name, owner, rules)?;
        self.places[index] = Some(made.place);
        self.kept[index] = made.kept;
        Ok(log)
    }

    pub(super) fn remove_logs(&mut self) {
        for place in std::mem::take(&mut self.places).iter().flatten() {
            let _ = place.unlink();
        }
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        self.remove_logs();
        if let Some(group) = &self.group {
            let _ = group.remove_when_left(ABANDON_TIMEOUT);
        }
    }
}
