//! Owns [`Job`]: one job as an object, from its adoption to its removal.
//!
//! Invariants: what the table in `life` decides is carried out here and nowhere else. A job is
//! finished only when no process of it is left that could write, or when that cannot be found out
//! any more, as its report then says. Nothing here blocks: it registers for a notice instead. No
//! failure is dropped: it goes to the caller or into the job's report. Knows nothing of other jobs.

use std::io::PipeWriter;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::command::{EndPolicy, Signal};
use crate::driver::{JobSource, Registration};
use crate::error::{JobError, Result};
use crate::event::{Event, Exit, Phase, Report, Stall, Stallable, StopCause, Usage};
use crate::id::{JobId, Key, Stream, Token};
use crate::job::handles::Handles;
use crate::job::life::{Action, Deadline, Input, State};
use crate::job::live::{Exited, Live, Released};
use crate::job::record::Record;
use crate::job::system::{Adopted, System};

/// One job.
#[derive(Debug)]
pub(crate) struct Job<S: System> {
    record: Record,
    token: Token,
    logs: [Option<Key>; 2],
    course: Course<S>,
}

/// Whether a job is finished, with the data of that state.
#[derive(Debug)]
enum Course<S: System> {
    Live(Box<Live<S>>),
    Finished(Arc<Report>),
}

impl<S: System> Job<S> {
    /// The job of a process that was just started, whose exit is watched already.
    pub(crate) fn new(
        key: Key,
        token: Token,
        adopted: Adopted<S>,
        exit: Registration,
        system: &mut S,
    ) -> Self {
        let Adopted { record, process, group, stdin, logs } = adopted;
        let handles = Handles::new(key, (process, group, stdin), exit);
        let live = Live::new(record.time_limit(), handles, system);
        Self { record, token, logs, course: Course::Live(Box::new(live)) }
    }

    pub(crate) fn id(&self) -> JobId {
        self.record.id()
    }

    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    pub(crate) fn phase(&self) -> Phase {
        match &self.course {
            // Not before its group is gone.
            Course::Live(live) if live.is_released() => Phase::Exited,
            Course::Live(live) => live.state().phase(),
            Course::Finished(_) => Phase::Finished,
        }
    }

    /// How the main process ended, and how long it ran, once it has exited.
    pub(crate) fn exit(&self) -> Option<(Exit, Duration)> {
        match &self.course {
            Course::Live(live) => live.exited().map(|exited| (exited.exit, exited.wall)),
            Course::Finished(report) => Some((report.exit, report.wall)),
        }
    }

    /// Whether the job was asked to freeze and not to thaw since.
    pub(crate) fn is_frozen(&self) -> bool {
        matches!(&self.course, Course::Live(live) if live.is_frozen())
    }

    /// The final report, once the job is finished.
    pub(crate) fn report(&self) -> Option<&Arc<Report>> {
        match &self.course {
            Course::Live(_) => None,
            Course::Finished(report) => Some(report),
        }
    }

    /// What holds the processes of the job, unless that is being removed or is gone.
    pub(crate) fn group(&self) -> Option<&S::Group> {
        match &self.course {
            Course::Live(live) if !live.is_released() => Some(live.group()),
            Course::Live(_) | Course::Finished(_) => None,
        }
    }

    /// The log of a stream, if it has one of its own.
    pub(crate) fn log(&self, stream: Stream) -> Option<Key> {
        let [output, error] = self.logs;
        match stream {
            Stream::Output => output,
            Stream::Error => error,
        }
    }

    /// Whether the job has to be ended when its reactor is dropped.
    pub(crate) fn is_attached(&self) -> bool {
        matches!(self.course, Course::Live(_)) && !self.record.policies().detached
    }

    /// The time of the next deadline.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match &self.course {
            Course::Live(live) => live.deadline(),
            Course::Finished(_) => None,
        }
    }

    /// Whether the job looks for its processes again later, because that has failed.
    pub(crate) fn looks_again(&self) -> bool {
        matches!(&self.course, Course::Live(live) if live.look_at().is_some())
    }

    /// Looks for the processes again, and kills them again if they are to be killed.
    pub(crate) fn look_again(&mut self, system: &mut S) {
        let Course::Live(live) = &mut self.course else { return };
        if live.state().awaits_rest() {
            self.look(system);
        } else {
            live.kill_again(system);
        }
    }

    /// What the host writes the job's standard input to, if it is a pipe and was not taken before.
    pub(crate) fn take_stdin(&mut self) -> Option<PipeWriter> {
        match &mut self.course {
            Course::Live(live) => live.take_stdin(),
            Course::Finished(_) => None,
        }
    }

    /// Stops the job, within this time if one is given.
    pub(crate) fn stop(&mut self, grace: Option<Duration>, system: &mut S) {
        let within = self.record.grace(system.now(), grace);
        let input = match grace {
            None => Input::Stop(within),
            Some(_) => Input::StopWithin(within),
        };
        self.request(StopCause::Stop, input, system);
    }

    /// Kills the job.
    pub(crate) fn kill(&mut self, cause: StopCause, system: &mut S) {
        self.request(cause, Input::Kill, system);
    }

    /// Acts on the deadline, if it has passed.
    pub(crate) fn deadline_passed(&mut self, now: Instant, system: &mut S) {
        let Course::Live(live) = &self.course else { return };
        match live.state().deadline() {
            Some(Deadline::TimeLimit(at)) if at <= now => {
                let grace = self.record.grace(now, None);
                self.request(StopCause::TimeLimit, Input::TimeLimit(grace), system);
            }
            Some(Deadline::Grace(at)) if at <= now => self.step(Input::GraceOver, system),
            _ if live.look_at().is_some_and(|at| at <= now) => self.look_again(system),
            _ => {}
        }
    }

    /// Handles readiness of a descriptor that the job has registered.
    pub(crate) fn ready(
        &mut self,
        source: JobSource,
        registration: Registration,
        priority: bool,
        system: &mut S,
    ) {
        match source {
            JobSource::MainProcess => self.main_ready(system),
            JobSource::Survivor => self.survivor_exited(registration, system),
            JobSource::Pressure(resource) => {
                self.pressure_ready(resource, registration, priority, system);
            }
            // These are files, which are watched and never ready.
            JobSource::GroupEvents | JobSource::MemoryEvents => {}
        }
    }

    /// Handles a change, or a possible change, of a file that the job watches.
    pub(crate) fn changed(&mut self, source: JobSource, system: &mut S) {
        match source {
            JobSource::GroupEvents => self.group_changed(system),
            JobSource::MemoryEvents => self.memory_changed(system),
            JobSource::MainProcess | JobSource::Survivor | JobSource::Pressure(_) => {}
        }
    }

    /// Checks everything that the job watches, any of which may have changed.
    pub(crate) fn everything_changed(&mut self, system: &mut S) {
        self.memory_changed(system);
        self.group_changed(system);
    }

    /// Sends a signal to every process.
    pub(crate) fn signal(&mut self, signal: Signal, system: &mut S) -> Result<()> {
        match &mut self.course {
            Course::Live(live) if !live.is_released() => live.signal(signal, system),
            Course::Live(_) | Course::Finished(_) => Ok(()),
        }
    }

    /// Whether a signal was not sent to every process yet, or the group is being removed.
    pub(crate) fn has_work(&self) -> bool {
        matches!(&self.course, Course::Live(live) if live.is_signalling() || live.is_released())
    }

    /// Goes on with that: signals, or removes, a bounded number.
    pub(crate) fn go_on(&mut self, system: &mut S) {
        let Course::Live(live) = &mut self.course else { return };
        if live.is_released() {
            return self.remove_group(system);
        }
        live.go_on_signalling(system);
        if !live.is_signalling() && matches!(live.state(), State::Lingering { .. }) {
            // The end of the job may have been put off until now.
            self.step(Input::Exit, system);
        }
    }

    /// Sends a signal only to the main process.
    pub(crate) fn signal_main(&self, signal: Signal, system: &mut S) -> Result<()> {
        match &self.course {
            Course::Live(live) if live.exited().is_none() => live.signal_main(signal, system),
            _ => Err(JobError::Exited(self.id()).into()),
        }
    }

    /// Starts to freeze the job, or to thaw it; an event reports that it is done.
    pub(crate) fn freeze(&mut self, freeze: bool, system: &mut S) -> Result<()> {
        let (id, token) = (self.id(), self.token);
        self.live_in_cgroup()?.freeze(freeze, id, token, system)
    }

    /// Watches the job for stalls. A second call for the same resource replaces the first.
    pub(crate) fn watch_pressure(
        &mut self,
        resource: Stallable,
        stall: Stall,
        system: &mut S,
    ) -> Result<()> {
        self.live_in_cgroup()?.watch_pressure(resource, stall, system)
    }

    /// Stops watching the job for stalls.
    pub(crate) fn unwatch_pressure(&mut self, resource: Stallable, system: &mut S) {
        if let Course::Live(live) = &mut self.course {
            live.unwatch_pressure(resource, system);
        }
    }

    /// Forgets a finished job: closes the tails of its logs and, unless they are to be kept,
    /// removes the files. The first failure is returned; the rest is removed all the same.
    pub(crate) fn remove(self, system: &mut S) -> Result<()> {
        let keep = self.record.policies().keep_log;
        let mut result = Ok(());
        for log in self.logs.into_iter().flatten() {
            result = result.and(system.remove_log(log, keep));
        }
        result
    }

    fn live_in_cgroup(&mut self) -> Result<&mut Live<S>> {
        let id = self.id();
        match &mut self.course {
            Course::Live(live) if live.is_released() => Err(JobError::Finished(id).into()),
            Course::Live(live) if S::path(live.group()).is_some() => Ok(live),
            Course::Live(_) => Err(JobError::NotInCgroup(id).into()),
            Course::Finished(_) => Err(JobError::Finished(id).into()),
        }
    }

    /// Requests the end of the job. The first request is recorded as the cause.
    fn request(&mut self, cause: StopCause, input: Input, system: &mut S) {
        if let Course::Live(live) = &mut self.course {
            live.stop_requested(cause);
        }
        self.step(input, system);
    }

    /// Applies an input to the table and carries out the action.
    fn step(&mut self, input: Input, system: &mut S) {
        let policies = self.record.policies();
        let (mut end, stop_signal) = (policies.end, policies.stop_signal);
        // A finished job takes no further input; the table has none for it either.
        let Course::Live(live) = &mut self.course else { return };
        if (end, input) == (EndPolicy::LeaveRest, Input::Exit)
            && (live.is_signalling() || live.is_about_to_be_empty(system))
        {
            // What is left running gets the signals that it was sent. And otherwise, an empty group
            // would be left behind.
            end = EndPolicy::WaitAll;
        }
        let action = live.advance(input, end);
        match action {
            Action::None => {}
            Action::Signal => live.send_stop_signal(stop_signal, system),
            Action::Kill => {
                live.kill_all(system);
                if live.exited().is_some() {
                    self.await_end(false, system);
                }
            }
            Action::KillRest => self.await_end(true, system),
            Action::AwaitRest => self.await_end(false, system),
            Action::Finish => self.finish(input == Input::Empty, system),
        }
    }

    /// Handles readiness of the main process's pidfd.
    fn main_ready(&mut self, system: &mut S) {
        let spawned = self.record.spawned();
        let Course::Live(live) = &mut self.course else { return };
        let exit = match live.reap(spawned, system) {
            Ok(Some(exit)) => exit,
            Ok(None) => return,
            Err(problem) => {
                live.report_problem(problem);
                self.step(Input::Kill, system);
                let Course::Live(live) = &mut self.course else { return };
                live.main_lost(spawned, system)
            }
        };
        system.emit(Event::Exited { job: self.record.id(), token: self.token, exit });
        self.step(Input::Exit, system);
    }

    fn survivor_exited(&mut self, registration: Registration, system: &mut S) {
        let Course::Live(live) = &mut self.course else { return };
        if live.survivor_exited(registration, system) {
            self.look(system);
        }
    }

    fn group_changed(&mut self, system: &mut S) {
        let (id, token) = (self.id(), self.token);
        let Course::Live(live) = &mut self.course else { return };
        live.report_freeze(id, token, system);
        if live.state().awaits_rest() {
            self.look(system);
        }
    }

    fn memory_changed(&mut self, system: &mut S) {
        let (id, token) = (self.id(), self.token);
        if let Course::Live(live) = &mut self.course {
            live.report_oom(id, token, system);
        }
    }

    fn pressure_ready(
        &mut self,
        resource: Stallable,
        registration: Registration,
        priority: bool,
        system: &mut S,
    ) {
        let (job, token) = (self.id(), self.token);
        let Course::Live(live) = &mut self.course else { return };
        if live.pressure_fired(registration, priority, system) {
            system.emit(Event::Pressure { job, token, resource });
        }
    }

    /// Finds out whether any process is left, as something may have changed. What is to be killed
    /// is killed each time: a process may have been moved into the group since, and before Linux
    /// 6.14 one that was being forked may have been missed.
    fn look(&mut self, system: &mut S) {
        let Course::Live(live) = &self.course else { return };
        self.await_end(live.state() == State::Clearing, system);
    }

    /// Finds out whether any process is left once the main one is gone, and registers for a notice
    /// when none is.
    fn await_end(&mut self, kill: bool, system: &mut S) {
        let Course::Live(live) = &mut self.course else { return };
        match live.await_rest(kill, system) {
            Ok(true) => {}
            Ok(false) => self.step(Input::Empty, system),
            Err(error) => {
                // It cannot be found out whether the job has processes left, and trying again would
                // not help: kill what can be killed, and finish.
                live.kill_all(system);
                live.report_problem(error);
                self.step(Input::Empty, system);
            }
        }
    }

    /// Releases what the job holds, and reports once its group is removed. `empty` means that no
    /// process is left, or none that could be waited for.
    fn finish(&mut self, empty: bool, system: &mut S) {
        // The notification of an out-of-memory kill may still be delayed by the kernel, so read the
        // file now.
        self.memory_changed(system);
        let accounting = self.record.policies().accounting;
        let Course::Live(live) = &mut self.course else { return };
        live.release(empty, accounting, system);
        self.remove_group(system);
    }

    /// Goes on with removing the group, and reports once that is done.
    fn remove_group(&mut self, system: &mut S) {
        let Course::Live(live) = &mut self.course else { return };
        let Some(released) = live.remove_group(system) else { return };
        let Released { exited, stopped_by, killed, oom, stats, cgroup_left, mut problems, .. } =
            released;
        let exited = exited.unwrap_or_else(|| Exited {
            exit: Exit::Unknown,
            usage: Usage::default(),
            wall: system.now().saturating_duration_since(self.record.spawned()),
        });
        let [output_bytes, error_bytes] = self.logs.map(|log| {
            let end = log.map_or(Ok(0), |log| system.finish_log(log));
            end.unwrap_or_else(|error| {
                problems.push(error);
                0
            })
        });
        let report = Arc::new(Report {
            exit: exited.exit,
            wall: exited.wall,
            usage: exited.usage,
            stopped_by,
            killed,
            oom,
            stats,
            output_bytes,
            error_bytes,
            cgroup_left,
            problems,
        });
        self.course = Course::Finished(Arc::clone(&report));
        system.emit(Event::Finished { job: self.record.id(), token: self.token, report });
    }
}
