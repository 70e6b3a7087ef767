//! Owns [`Job`]: one job as an object, from its adoption to its removal.
//!
//! Invariants: what the table in `life` decides is carried out here and nowhere else. A job is
//! finished only when no process of it is left that could write, or when that cannot be found out
//! any more, as its report then says. Of a job that survives its host, what is asked of it is
//! recorded before it is done, and its exit before the zombie is reaped. Nothing here blocks: it
//! registers for a notice instead. No failure is dropped: it goes to the caller or into the job's
//! report. Knows nothing of other jobs.

use std::io::PipeWriter;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::command::{EndPolicy, OverLimit, Signal};
use crate::driver::{JobSource, Registration};
use crate::error::{JobError, Result};
use crate::event::{Event, Exit, Phase, Report, Stall, Stallable, StopCause, Usage};
use crate::id::{JobId, Key, Stream, Token};
use crate::job::handles::Handles;
use crate::job::life::{Action, Deadline, Grace, Input, State};
use crate::job::live::{Live, Released};
use crate::job::main_process::Exited;
use crate::job::record::Record;
use crate::job::stored::{KnownExit, Stop, Until};
use crate::job::system::{Adopted, Begun, System};
use crate::trace::{self, JobSpan};

/// One job.
#[derive(Debug)]
pub(crate) struct Job<S: System> {
    record: Record,
    token: Token,
    logs: [Option<Key>; 2],
    /// A log has become longer than its limit.
    log_exceeded: bool,
    span: JobSpan,
    course: Course<S>,
    /// The group of a finished job that survives its host, with the record, until it is removed.
    grave: Option<S::Group>,
}

/// Whether a job is finished, with the data of that state.
#[derive(Debug)]
enum Course<S: System> {
    Live(Box<Live<S>>),
    Finished(Arc<Report>),
}

impl<S: System> Job<S> {
    /// The job of a process that was just started or found, whose exit is watched already, and so
    /// is the output of its terminal, if it has one; or one that an earlier host has finished.
    pub(crate) fn new(
        key: Key,
        token: Token,
        adopted: Adopted<S>,
        (exit, output): (Option<Registration>, Option<Registration>),
        system: &mut S,
    ) -> Self {
        let Adopted { record, course, stdin, terminal, logs, span } = adopted;
        let (course, grave) = match course {
            Begun::Live { process, group, problem } => {
                let terminal = output.zip(terminal);
                let handles = Handles::new(key, (process, group, stdin), exit, terminal);
                let survives = record.policies().survives;
                let mut live = Live::new(record.time_limit(), survives, handles, system);
                if let Some(problem) = problem {
                    live.report_problem(problem);
                }
                (Course::Live(Box::new(live)), None)
            }
            Begun::Finished { group, report } => (Course::Finished(report), Some(group)),
        };
        Self { record, token, logs, log_exceeded: false, span, course, grave }
    }

    /// Goes on with what an earlier host has left half done, if this is its job.
    pub(crate) fn begin(&mut self, system: &mut S) {
        let Some(stored) = self.record.lasting() else { return };
        let (job, token, stop) = (self.id(), self.token, stored.stop);
        match &mut self.course {
            Course::Finished(report) => {
                let report = Arc::clone(report);
                let ends = [report.output_bytes, report.error_bytes];
                let at = stored.finished.unwrap_or(stored.booted.saturating_add(report.wall));
                for (log, end) in self.logs.into_iter().zip(ends) {
                    if let Some(log) = log {
                        system.finish_log_at(log, end, at);
                    }
                }
                system.emit(Event::Exited { job, token, exit: report.exit });
                system.emit(Event::Finished { job, token, report });
            }
            Course::Live(live) => {
                let frozen = system.read(live.group(), "cgroup.freeze");
                if frozen.is_ok_and(|content| content.is_some_and(|flag| flag.trim_end() == "1")) {
                    live.was_frozen();
                }
                let Some(Stop { cause, until }) = stop else { return };
                live.stop_requested(cause);
                match until.grace(system.now(), system.boot_time()) {
                    Grace::Over => self.step(Input::Kill, system),
                    grace => self.step(Input::StopWithin(grace), system),
                }
            }
        }
    }

    /// Changes what its events come with.
    pub(crate) fn set_token(&mut self, token: Token) {
        self.token = token;
    }

    /// The bytes of the host's own.
    pub(crate) fn label(&self) -> Result<&[u8]> {
        let stored = self.record.lasting().ok_or(JobError::NotLasting(self.id()))?;
        Ok(&stored.label)
    }

    /// Changes them, all or nothing.
    pub(crate) fn set_label(&mut self, label: Vec<u8>, system: &mut S) -> Result<()> {
        let id = self.id();
        let stored = self.record.lasting_mut().ok_or(JobError::NotLasting(id))?;
        let before = std::mem::replace(&mut stored.label, label);
        let Err(problem) = self.store(system).and_then(|()| self.store_in_history(system)) else {
            return Ok(());
        };
        if let Some(stored) = self.record.lasting_mut() {
            stored.label = before;
            // The record has it already if it was the history that could not be written.
            let _ = self.store(system);
        }
        Err(problem)
    }

    /// Keeps what is known of the job for the next host, if it survives this one.
    fn store(&self, system: &mut S) -> Result<()> {
        let Some(stored) = self.record.lasting() else { return Ok(()) };
        match (&self.course, &self.grave) {
            (Course::Live(live), _) => system.store(live.group(), stored, None),
            (Course::Finished(report), Some(grave)) => system.store(grave, stored, Some(report)),
            (Course::Finished(_), None) => Ok(()),
        }
    }

    /// Keeps the same in the history, which has it once the job is finished.
    fn store_in_history(&self, system: &mut S) -> Result<()> {
        match (&self.course, self.record.lasting()) {
            (Course::Finished(report), Some(stored)) => system.write_history(stored, report),
            _ => Ok(()),
        }
    }

    /// Keeps it before something is done. That is done even if it cannot be kept: the report says
    /// so.
    fn store_first(&mut self, system: &mut S) {
        if let Err(problem) = self.store(system)
            && let Course::Live(live) = &mut self.course
        {
            live.report_problem(problem);
        }
    }

    /// The main process, as long as that has not ended.
    pub(crate) fn process(&self) -> Result<&S::Process> {
        match &self.course {
            Course::Live(live) if live.exited().is_none() => Ok(live.process()),
            _ => Err(JobError::Exited(self.id()).into()),
        }
    }

    pub(crate) fn id(&self) -> JobId {
        self.record.id()
    }

    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    /// What happens to the job is traced in this.
    pub(crate) fn span(&self) -> &JobSpan {
        &self.span
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
        let policies = self.record.policies();
        matches!(self.course, Course::Live(_)) && !policies.detached && !policies.survives
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

    /// The host's end of the job's terminal.
    pub(crate) fn terminal(&self) -> Result<&S::Terminal> {
        match &self.course {
            Course::Live(live) if !live.is_released() => {
                live.terminal().ok_or_else(|| JobError::NoTerminal(self.id()).into())
            }
            Course::Live(_) | Course::Finished(_) => Err(JobError::Finished(self.id()).into()),
        }
    }

    /// Whether there is output in the terminal to be copied.
    pub(crate) fn has_output(&self) -> bool {
        matches!(&self.course, Course::Live(live) if live.has_output())
    }

    /// Whether copying has failed and is tried again later.
    #[cfg(any(fuzzing, test))]
    pub(crate) fn copies_again(&self) -> bool {
        matches!(&self.course, Course::Live(live) if live.copies_again())
    }

    /// Copies a part of it.
    pub(crate) fn copy_output(&mut self, system: &mut S) {
        if let Course::Live(live) = &mut self.course {
            live.copy_output(system);
        }
    }

    /// Stops the job, within this time if one is given.
    pub(crate) fn stop(&mut self, grace: Option<Duration>, system: &mut S) {
        let within = self.record.grace(system.now(), grace);
        let input = match grace {
            None => Input::Stop(within),
            Some(_) => Input::StopWithin(within),
        };
        let length = grace.unwrap_or(self.record.policies().grace);
        self.request(StopCause::Stop, Some(length), input, system);
    }

    /// The logs of the job whose length is limited.
    pub(crate) fn limited_logs(&self) -> impl Iterator<Item = Key> {
        let limited = self.record.policies().over_limit.is_some();
        self.logs.into_iter().flatten().filter(move |_| limited)
    }

    /// A log has become longer than its limit.
    pub(crate) fn log_exceeded(&mut self, log: Key, system: &mut S) {
        let stream = if self.logs[0] == Some(log) { Stream::Output } else { Stream::Error };
        if matches!(self.course, Course::Finished(_)) {
            // The report has said so.
            return;
        }
        self.log_exceeded = true;
        system.emit(Event::LogLimit { job: self.id(), token: self.token, stream });
        match self.record.policies().over_limit {
            Some(OverLimit::Stop) => {
                let length = self.record.policies().grace;
                let input = Input::Stop(self.record.grace(system.now(), None));
                self.request(StopCause::LogLimit, Some(length), input, system);
            }
            Some(OverLimit::Kill) => self.kill(StopCause::LogLimit, system),
            Some(OverLimit::Discard) | None => {}
        }
    }

    /// The file system of the logs is full, so that what the job prints may be lost. The next host
    /// has to know that for the report.
    pub(crate) fn logs_have_no_room(&mut self, system: &mut S) {
        let may_be_cut = matches!(self.course, Course::Live(_)) && self.logs[0].is_some();
        if may_be_cut
            && let Some(stored) = self.record.lasting_mut()
            && !std::mem::replace(&mut stored.log_cut, true)
        {
            self.store_first(system);
        }
    }

    /// Kills the job.
    pub(crate) fn kill(&mut self, cause: StopCause, system: &mut S) {
        self.request(cause, None, Input::Kill, system);
    }

    /// Acts on the deadline, if it has passed.
    pub(crate) fn deadline_passed(&mut self, now: Instant, system: &mut S) {
        let Course::Live(live) = &mut self.course else { return };
        live.time_passed(now);
        match live.state().deadline() {
            Some(Deadline::TimeLimit(at)) if at <= now => {
                let grace = self.record.grace(now, None);
                let length = self.record.policies().grace;
                let input = Input::TimeLimit(grace);
                self.request(StopCause::TimeLimit, Some(length), input, system);
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
            JobSource::Terminal => {
                if let Course::Live(live) = &mut self.course {
                    live.output_ready();
                }
            }
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
            JobSource::MainProcess
            | JobSource::Survivor
            | JobSource::Terminal
            | JobSource::Pressure(_) => {}
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

    /// Whether a signal was not sent to every process yet, the main process has exited in this
    /// turn, or the group is being removed.
    pub(crate) fn has_work(&self) -> bool {
        matches!(&self.course, Course::Live(live) if live.has_work())
    }

    /// Goes on with that: signals, or removes, a bounded number.
    pub(crate) fn go_on(&mut self, system: &mut S) {
        let Course::Live(live) = &mut self.course else { return };
        if live.is_released() {
            return self.remove_group(system);
        }
        if live.looks_soon() {
            return self.look(system);
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
        let Self { mut record, logs, span, course, grave, .. } = self;
        let keep = record.policies().keep_log;
        let mut result = Ok(());
        let grave = grave.zip(record.lasting_mut());
        let mut grave = match course {
            Course::Finished(report) => grave.map(|(group, stored)| (group, stored, report)),
            Course::Live(_) => None,
        };
        if let Some((group, stored, report)) = &mut grave {
            // A host that dies from here on has removed the job: the next one does what is left of
            // that. What cannot be written is written below, if it is needed.
            stored.removed = true;
            let _ = system.store(group, stored, Some(report));
        }
        for log in logs.into_iter().flatten() {
            result = result.and(system.remove_log(log, keep));
        }
        // Last, so that a host which dies meanwhile leaves no log without a job.
        if let Some((group, stored, report)) = grave {
            system.bury(&group, stored, &report);
        }
        span.within(|| trace::removed(&result));
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

    /// Requests the end of the job, with a grace period of this length or by a kill. The first
    /// request is recorded as the cause.
    fn request(&mut self, cause: StopCause, grace: Option<Duration>, input: Input, system: &mut S) {
        if let Course::Live(live) = &mut self.course {
            trace::stop_requested(cause, grace);
            live.stop_requested(cause);
            if let Some(stored) = self.record.lasting_mut() {
                let (within, shortens) = match input {
                    Input::Stop(grace) | Input::TimeLimit(grace) => (grace, false),
                    Input::StopWithin(grace) => (grace, true),
                    _ => (Grace::Over, true),
                };
                let until = Until::of(within, system.now(), system.boot_time());
                stored.stop_requested(cause, until, shortens);
                self.store_first(system);
            }
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
                trace::killing();
                live.kill_all(system);
                if live.exited().is_some() {
                    self.await_end(false, system);
                }
            }
            Action::AwaitRest => live.look_soon(),
            Action::SignalRest => {
                live.signal_rest();
                live.look_soon();
            }
            Action::Finish => self.finish(input == Input::Empty, system),
        }
    }

    /// Handles readiness of the main process's pidfd.
    fn main_ready(&mut self, system: &mut S) {
        let spawned = self.record.spawned();
        let keep = self.record.policies().survives;
        let Course::Live(live) = &mut self.course else { return };
        let exit = match live.reap(spawned, keep, system) {
            Ok(Some(exit)) => exit,
            Ok(None) => return,
            Err(problem) => {
                live.report_problem(problem);
                self.step(Input::Kill, system);
                let Course::Live(live) = &mut self.course else { return };
                live.main_lost(spawned, system)
            }
        };
        if keep {
            self.store_exit(system);
        }
        system.emit(Event::Exited { job: self.record.id(), token: self.token, exit });
        self.step(Input::Exit, system);
    }

    /// Keeps how the main process has ended, then lets go of it; or takes that from an earlier
    /// host.
    fn store_exit(&mut self, system: &mut S) {
        let job = self.record.id();
        let (Course::Live(live), Some(stored)) = (&mut self.course, self.record.lasting_mut())
        else {
            return;
        };
        if let Some(KnownExit { exit, usage, wall, killed, .. }) = stored.exited {
            live.set_exited(Exited { exit, usage, wall }, killed);
        }
        let Some(Exited { exit, usage, wall }) = live.exited() else { return };
        if exit == Exit::Unknown
            && let Some(reason) = live.why_unknown()
        {
            live.report_problem(JobError::ExitUnknown { job, reason }.into());
        }
        if stored.exited.is_none() {
            let (killed, why_unknown) = (live.has_killed(), live.why_unknown());
            stored.exited = Some(KnownExit { exit, usage, wall, killed, why_unknown });
            self.store_first(system);
        }
        if let Course::Live(live) = &mut self.course {
            live.bury_main(system);
        }
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
        live.copy_last_output(system);
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
            let Some(log) = log else { return 0 };
            let end = system.finish_log(log);
            if system.log_exceeded(log) {
                self.log_exceeded = true;
                let (job, token) = (self.record.id(), self.token);
                let stream = if self.logs[0] == Some(log) { Stream::Output } else { Stream::Error };
                system.emit(Event::LogLimit { job, token, stream });
            }
            problems.extend(system.log_problem(log));
            end.unwrap_or_else(|error| {
                problems.push(error);
                0
            })
        });
        if let Some(log) = self.logs[0].filter(|_| !self.record.policies().has_terminal) {
            let is_known = self.record.lasting().is_some_and(|stored| stored.log_cut);
            problems.extend(system.log_cut(log, self.record.spawned(), is_known));
        }
        let [output_discarded, error_discarded] =
            self.logs.map(|log| log.map_or(0, |log| system.log_discarded(log)));
        let mut report = Report {
            exit: exited.exit,
            wall: exited.wall,
            usage: exited.usage,
            stopped_by,
            killed,
            oom,
            stats,
            output_bytes,
            error_bytes,
            log_limit_exceeded: self.log_exceeded,
            output_discarded,
            error_discarded,
            cgroup_left,
            problems,
        };
        if let Some(stored) = self.record.lasting_mut() {
            stored.finished = Some(system.boot_time());
        }
        // Before anybody is told.
        if let Some(stored) = self.record.stored() {
            report.problems.extend(system.write_history(stored, &report).err());
        }
        if let Some(stored) = self.record.lasting() {
            let kept = system.store(live.group(), stored, Some(&report));
            report.problems.extend(kept.err());
        }
        let report = Arc::new(report);
        let finished = Course::Finished(Arc::clone(&report));
        if let Course::Live(last) = std::mem::replace(&mut self.course, finished) {
            self.grave = self.record.lasting().map(|_| last.into_group());
        }
        system.emit(Event::Finished { job: self.record.id(), token: self.token, report });
    }
}
