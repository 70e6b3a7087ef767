//! Owns [`Live`]: a job that is not finished, its state and what that state holds of the system.
//!
//! Invariant: every event here is one that the kernel announced; nothing is polled. Knows nothing
//! of the record or the logs of its job.

use std::collections::VecDeque;
use std::io::{self, PipeWriter};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::cgroup::Removal;
use crate::command::{EndPolicy, Signal};
use crate::driver::Registration;
use crate::error::{Error, Result, SystemError};
use crate::event::{Event, Exit, OomCause, Stall, Stallable, Stats, StopCause, keyed};
use crate::id::{JobId, Token};
use crate::job::copying::Copying;
use crate::job::delivery::Delivery;
use crate::job::handles::Handles;
use crate::job::life::{Action, Deadline, Input, State, next};
use crate::job::main_process::{Exited, MainProcess};
use crate::job::system::System;
use crate::sys::Reap;

/// How many of the remaining processes are awaited by pidfd, however many there are. When all of
/// those have exited, others are awaited, so the last one to exit is among them.
const SURVIVORS_AWAITED: usize = 8;

/// When a job looks for its processes again at the latest, after that has failed for lack of
/// descriptors or memory. Until then it does so whenever anything happens.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// How many attempts are made to open the remaining processes of a group without a watch.
const LOOKS: usize = 8;

/// A job that is not finished.
#[derive(Debug)]
pub(crate) struct Live<S: System> {
    state: State,
    handles: Handles<S>,
    main: MainProcess,
    stopped_by: Option<StopCause>,
    killed: bool,
    /// The main process has exited: to look in the next turn for those that it has left behind.
    look_soon: bool,
    /// When to look for the processes again, because that has failed.
    look_at: Option<Instant>,
    frozen: Frozen,
    oom: Oom,
    /// When the output of the terminal is copied.
    copying: Copying,
    /// The signals that were not sent to every process yet, in the order of the calls. Only the
    /// first one is being sent.
    deliveries: VecDeque<Delivery>,
    /// The stop signal, once a stop sends it.
    stop_signal: Option<Signal>,
    /// The stop signal, once every process has it.
    stopped: Option<Delivery>,
    problems: Vec<Error>,
    /// What is left to report, while the group is being removed.
    released: Option<Released>,
    removal: Removal,
}

/// What is left to report of a job that holds nothing any more but its group.
#[derive(Debug)]
pub(crate) struct Released {
    /// Whether it is known that no process is left, or none that could be waited for.
    empty: bool,
    pub(crate) exited: Option<Exited>,
    pub(crate) stopped_by: Option<StopCause>,
    pub(crate) killed: bool,
    pub(crate) oom: Option<OomCause>,
    pub(crate) stats: Option<Stats>,
    pub(crate) cgroup_left: Option<PathBuf>,
    pub(crate) problems: Vec<Error>,
}

/// Whether a job was asked to freeze, and whether the kernel has yet to confirm it.
#[derive(Clone, Copy, Debug, Default)]
struct Frozen {
    wanted: bool,
    pending: bool,
}

/// What was reported of processes that were killed because memory ran out.
#[derive(Clone, Copy, Debug, Default)]
struct Oom {
    kills: u64,
    cause: Option<OomCause>,
    /// How often the limit of the job, or of a group below it, was met.
    own: u64,
    /// How often the limits of the groups above it were met.
    above: u64,
}

impl<S: System> Live<S> {
    /// A job whose main process was just started or taken over. The group of one that `survives`
    /// its host is removed only when the host has removed the job.
    pub(crate) fn new(
        limit: Option<Instant>,
        survives: bool,
        mut handles: Handles<S>,
        system: &mut S,
    ) -> Self {
        // Without the file there is no cause to report, which is not a failure. Without a watch
        // there is none either, and that is recorded as a failure.
        let watched = handles.watch_memory(system);
        let refused = watched.err().filter(|cause| cause.kind() != io::ErrorKind::NotFound);
        let problems = refused.map(Error::event_loop("watch memory.events of a job"));
        let mut oom = Oom::default();
        if handles.watches_memory() {
            // Not read again for each job: at worst, a limit that was exceeded above before this
            // job started is later reported as a cause.
            oom.above = system.limits_met_above(handles.group(), false);
        }
        Self {
            state: State::Running { limit },
            handles,
            main: MainProcess::default(),
            stopped_by: None,
            killed: false,
            look_soon: false,
            look_at: None,
            frozen: Frozen::default(),
            oom,
            copying: Copying::default(),
            deliveries: VecDeque::new(),
            stop_signal: None,
            stopped: None,
            problems: problems.into_iter().collect(),
            released: None,
            removal: if survives { Removal::of_what_is_below() } else { Removal::default() },
        }
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// When to do something in any case.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let state = self.state.deadline().map(Deadline::at);
        state.into_iter().chain(self.look_at).chain(self.copying.retry_at()).min()
    }

    /// When to look for the processes again, if that has failed.
    pub(crate) fn look_at(&self) -> Option<Instant> {
        self.look_at
    }

    pub(crate) fn exited(&self) -> Option<Exited> {
        self.main.exited()
    }

    pub(crate) fn is_frozen(&self) -> bool {
        self.frozen.wanted
    }

    pub(crate) fn group(&self) -> &S::Group {
        self.handles.group()
    }

    /// Applies an input to the table.
    pub(crate) fn advance(&mut self, input: Input, policy: EndPolicy) -> Action {
        let (state, action) = next(self.state, input, policy);
        self.state = state;
        action
    }

    /// What the host writes the job's standard input to, if it is a pipe and was not taken before.
    pub(crate) fn take_stdin(&mut self) -> Option<PipeWriter> {
        self.handles.take_stdin()
    }

    /// The host's end of the job's terminal, if it has one.
    pub(crate) fn terminal(&self) -> Option<&S::Terminal> {
        self.handles.terminal()
    }

    /// There may be output in the terminal.
    pub(crate) fn output_ready(&mut self) {
        self.copying.ready();
    }

    /// Whether output is to be copied, as soon as possible.
    pub(crate) fn has_output(&self) -> bool {
        self.copying.is_due()
    }

    /// Whether copying has failed and is tried again later.
    #[cfg(any(fuzzing, test))]
    pub(crate) fn copies_again(&self) -> bool {
        self.copying.retry_at().is_some()
    }

    /// Copies a part of it, if it is to be copied.
    pub(crate) fn copy_output(&mut self, system: &mut S) {
        if !self.copying.is_due() {
            return;
        }
        match self.handles.copy_output(system) {
            Ok(copied) => self.copying.copied(copied),
            Err(problem) => {
                self.copying.failed(system.now());
                self.report_problem(problem);
            }
        }
    }

    /// Copies what is left of it when the job is over, before the end of the log is fixed.
    pub(crate) fn copy_last_output(&mut self, system: &mut S) {
        if let Err(problem) = self.handles.copy_last_output(system) {
            self.report_problem(problem);
        }
        self.copying = Copying::Idle;
    }

    /// Tries again, once the time has come, what has failed.
    pub(crate) fn time_passed(&mut self, now: Instant) {
        self.copying.passed(now);
    }

    /// Requests the end of the job. The first request is recorded as the cause.
    pub(crate) fn stop_requested(&mut self, cause: StopCause) {
        self.stopped_by.get_or_insert(cause);
    }

    /// Records a failure for the final report, once: what is tried again can fail in the same way.
    pub(crate) fn report_problem(&mut self, problem: Error) {
        let text = problem.to_string();
        if !self.problems.iter().any(|other| other.to_string() == text) {
            self.problems.push(problem);
        }
    }

    /// Sends a signal to every process: to the first ones now, and to the others by
    /// [`go_on_signalling`](Self::go_on_signalling). It follows those that are being sent, so that
    /// every process gets them in the order of the calls; SIGKILL takes the place of them all.
    pub(crate) fn signal(&mut self, signal: Signal, system: &mut S) -> Result<()> {
        let current = self.deliveries.front().map(Delivery::signal);
        if signal == Signal::KILL && current != Some(Signal::KILL) {
            self.deliveries.clear();
        } else if signal != Signal::KILL && current.is_some() {
            // As many as there are signals: one that waits already takes the later place, so that
            // of SIGSTOP and SIGCONT the last one counts.
            let mut first = true;
            self.deliveries.retain(|other| std::mem::take(&mut first) || other.signal() != signal);
            self.deliveries.push_back(Delivery::new(signal));
            return Ok(());
        }
        if self.deliveries.is_empty() {
            self.deliveries.push_back(Delivery::new(signal));
        }
        self.deliver(system)
    }

    /// Whether a signal was not sent to every process yet.
    pub(crate) fn is_signalling(&self) -> bool {
        !self.deliveries.is_empty()
    }

    /// Sends the signals on, to a bounded number of processes.
    pub(crate) fn go_on_signalling(&mut self, system: &mut S) {
        if let Err(problem) = self.deliver(system) {
            self.report_problem(problem);
        }
    }

    fn deliver(&mut self, system: &mut S) -> Result<()> {
        let Some(delivery) = self.deliveries.front_mut() else { return Ok(()) };
        let delivered = system.deliver(self.handles.group(), self.handles.process(), delivery);
        if delivery.has_ended() {
            let ended = self.deliveries.pop_front();
            let is_stop = |ended: &Delivery| Some(ended.signal()) == self.stop_signal;
            self.stopped = ended.filter(is_stop).or(self.stopped.take());
        }
        delivered
    }

    /// Sends the stop signal, which every process has that was there, to those that were forked
    /// since by one that had it already.
    pub(crate) fn signal_rest(&mut self) {
        if let Some(mut stopped) = self.stopped.take() {
            stopped.begin_again();
            self.deliveries.push_back(stopped);
        }
    }

    /// Sends a signal to the main process.
    pub(crate) fn signal_main(&self, signal: Signal, system: &mut S) -> Result<()> {
        let sent = system.signal(self.handles.process(), signal);
        sent.map_err(Error::event_loop("signal a main process"))
    }

    /// Sends the stop signal to every process. The kill at the end of the grace period needs no
    /// cooperation, so a failure is only reported.
    pub(crate) fn send_stop_signal(&mut self, signal: Signal, system: &mut S) {
        // A frozen process acts on no signal but a kill.
        if self.frozen.wanted {
            match system.freeze(self.handles.group(), false) {
                Ok(()) => self.frozen = Frozen::default(),
                Err(problem) => self.problems.push(problem),
            }
        }
        self.stop_signal = Some(signal);
        let problem = self.signal(signal, system).err();
        self.problems.extend(problem);
    }

    /// Kills every process, and the main one by its pidfd as well, in case it has moved itself to
    /// another cgroup.
    pub(crate) fn kill_all(&mut self, system: &mut S) {
        self.look_at = None;
        self.killed |= self.kill_group(system);
        if self.main.exited().is_none() {
            match system.signal(self.handles.process(), Signal::KILL) {
                Ok(()) => self.killed = true,
                Err(cause) => self.report_problem(Error::event_loop("kill a main process")(cause)),
            }
        }
        // One that has left the group meanwhile is not killed, and must not be waited for.
        self.handles.forget_survivors(system);
    }

    /// Kills every process again, because that has failed.
    pub(crate) fn kill_again(&mut self, system: &mut S) {
        self.look_at = None;
        if self.state == State::Killing {
            self.kill_all(system);
        }
    }

    /// Kills every process of the group; returns whether that was possible. If not, it is tried
    /// again.
    fn kill_group(&mut self, system: &mut S) -> bool {
        let Err(problem) = system.kill(self.handles.group(), self.handles.process()) else {
            self.deliveries.clear();
            return true;
        };
        self.report_problem(problem);
        // Kill one by one instead: nothing else would ever end what is left.
        let Err(problem) = self.signal(Signal::KILL, system) else { return true };
        self.look_again(problem, system);
        false
    }

    fn look_again(&mut self, problem: Error, system: &S) {
        self.report_problem(problem);
        self.look_at = system.now().checked_add(LOOK_AGAIN);
    }

    /// Takes the exit status of the main process, as [`MainProcess::reap`] says.
    pub(crate) fn reap(
        &mut self,
        spawned: Instant,
        keep: bool,
        system: &mut S,
    ) -> Result<Option<Exit>> {
        self.main.reap(spawned, keep, (&mut self.handles, &mut self.problems), system)
    }

    /// Reaps the main process, whose end is known and was recorded.
    pub(crate) fn bury_main(&mut self, system: &mut S) {
        self.main.bury(&self.handles, system);
    }

    /// Makes the main process count as exited, because nothing would report its exit.
    pub(crate) fn main_lost(&mut self, spawned: Instant, system: &mut S) -> Exit {
        self.main.lost(spawned, system)
    }

    /// Takes over how long the main process ran, and what else is known of its end by an earlier
    /// host.
    pub(crate) fn set_exited(&mut self, exited: Exited, killed: bool) {
        self.main.set_exited(exited);
        self.killed |= killed;
    }

    /// Whether processes were killed so far.
    pub(crate) fn has_killed(&self) -> bool {
        self.killed
    }

    /// Why it is not known how the main process has ended, if there is something to say.
    pub(crate) fn why_unknown(&self) -> Option<&'static str> {
        S::why_unknown(self.handles.process())
    }

    /// The processes were frozen by an earlier host.
    pub(crate) fn was_frozen(&mut self) {
        self.frozen.wanted = true;
    }

    /// The descriptor of the main process, unless that has ended.
    pub(crate) fn process(&self) -> &S::Process {
        self.handles.process()
    }

    /// What is left of a job that is finished.
    pub(crate) fn into_group(self) -> S::Group {
        self.handles.into_group()
    }

    /// Whether the group is populated only by processes that have exited, as it is for a moment
    /// since Linux 6.19: a process leaves its cgroup after its pidfd has reported its exit.
    pub(crate) fn is_about_to_be_empty(&self, system: &mut S) -> bool {
        let (group, main) = (self.handles.group(), self.handles.process());
        S::path(group).is_some()
            && self.populated(system).is_ok_and(|populated| populated)
            && system.members(group, main, 1).is_ok_and(|members| members.is_empty())
    }

    /// A process that was waited for besides the main one has exited; says whether it was the last.
    pub(crate) fn survivor_exited(&mut self, registration: Registration, system: &mut S) -> bool {
        self.handles.survivor_exited(registration, system);
        !self.handles.awaits_survivors()
    }

    /// Lets the job look in the next turn whether any process is left.
    pub(crate) fn look_soon(&mut self) {
        self.look_soon = true;
    }

    /// Whether it is to look in this turn.
    pub(crate) fn looks_soon(&self) -> bool {
        self.look_soon
    }

    /// Returns whether any process is left, and with `kill`, kills what is. If any is left, there
    /// will be a notice when none is, or the job looks again later. It fails only if that cannot be
    /// found out, not even later.
    pub(crate) fn await_rest(&mut self, kill: bool, system: &mut S) -> Result<bool> {
        (self.look_soon, self.look_at) = (false, None);
        let problem = match self.look(kill, system) {
            Ok(left) => return Ok(left),
            Err(problem) => problem,
        };
        // The job must not count as finished while it can be seen that it is not.
        let populated = match is_shortage(&problem) {
            true => Ok(true),
            false => self.populated(system),
        };
        match populated {
            Ok(false) => return Ok(false),
            Err(again) if !is_shortage(&again) => return Err(again),
            _ => self.look_again(problem, system),
        }
        Ok(true)
    }

    fn populated(&self, system: &mut S) -> Result<bool> {
        system.populated(self.handles.group(), self.handles.process())
    }

    fn look(&mut self, kill: bool, system: &mut S) -> Result<bool> {
        match self.populated(system) {
            Ok(false) => return Ok(false),
            Ok(true) => {}
            Err(problem) => {
                // What is left must not run on only because it cannot be seen.
                if kill {
                    self.kill_rest(false, system);
                }
                return Err(problem);
            }
        }
        // Arm the watch, read the file again, then wait.
        let watched = self.handles.watch_events(system).is_ok();
        if kill {
            self.kill_rest(watched, system);
        }
        for _ in 0..LOOKS {
            // The notification of a cgroup comes up to 10 ms late, because the kernel limits its
            // rate per file. With it, the pidfds only make it faster, and may be missing.
            let awaited = match self.await_survivors(system) {
                Err(problem) if !watched => return Err(problem),
                awaited => awaited.unwrap_or(false),
            };
            if !self.populated(system)? {
                return Ok(false);
            }
            if watched || awaited {
                return Ok(true);
            }
            // A process is left that no notice would report: a member that was forked just now.
        }
        let cause = io::Error::other("they can neither be watched nor listed");
        Err(Error::event_loop("wait for the processes that the main process left behind")(cause))
    }

    /// Kills what the main process has left behind. Only a process that has not exited counts as
    /// killed: since Linux 6.19 the group is populated for a moment after the last one's exit.
    fn kill_rest(&mut self, watched: bool, system: &mut S) {
        // One that has left the group meanwhile is not killed, and must not be waited for.
        self.handles.forget_survivors(system);
        let found = self.await_survivors(system);
        let killed = self.kill_group(system);
        self.killed |= killed && *found.as_ref().unwrap_or(&true);
        if !watched {
            // Others may have been forked before the kill.
            self.handles.forget_survivors(system);
        }
    }

    /// Watches for the exit of some of the remaining processes by pidfd; returns whether there are
    /// any.
    fn await_survivors(&mut self, system: &mut S) -> Result<bool> {
        if self.handles.awaits_survivors() {
            return Ok(true);
        }
        let (group, main) = (self.handles.group(), self.handles.process());
        for process in system.members(group, main, SURVIVORS_AWAITED)? {
            match self.handles.await_survivor(process, system) {
                Ok(()) => {}
                // Those that can be awaited will do.
                Err(_) if self.handles.awaits_survivors() => break,
                Err(cause) => return Err(Error::event_loop("watch a process")(cause)),
            }
        }
        Ok(self.handles.awaits_survivors())
    }

    /// Starts to freeze the job, or to thaw it.
    pub(crate) fn freeze(
        &mut self,
        freeze: bool,
        job: JobId,
        token: Token,
        system: &mut S,
    ) -> Result<()> {
        // Add the watch first, so that a failure leaves the job unchanged; then read the file.
        if let Err(cause) = self.handles.watch_events(system) {
            let path = S::path(self.handles.group()).map(|path| path.join("cgroup.events"));
            let path = path.unwrap_or_default();
            return Err(match Errno::from_io_error(&cause) {
                Some(Errno::NOSPC) => SystemError::WatchLimit { path }.into(),
                _ => Error::path("watch", path)(cause),
            });
        }
        system.freeze(self.handles.group(), freeze)?;
        self.frozen = Frozen { wanted: freeze, pending: true };
        self.report_freeze(job, token, system);
        Ok(())
    }

    /// Reports a freeze or thaw that is done.
    pub(crate) fn report_freeze(&mut self, job: JobId, token: Token, system: &mut S) {
        let Frozen { wanted, pending } = self.frozen;
        if !pending {
            return;
        }
        match system.frozen(self.handles.group()) {
            Ok(frozen) if frozen == wanted => {
                self.frozen.pending = false;
                system.emit(match wanted {
                    true => Event::Frozen { job, token },
                    false => Event::Thawed { job, token },
                });
            }
            Ok(_) => {}
            // The next notification may be the one that counts.
            Err(problem) => self.report_problem(problem),
        }
    }

    /// Watches for stalls. A second call for the same resource replaces the first.
    pub(crate) fn watch_pressure(
        &mut self,
        resource: Stallable,
        stall: Stall,
        system: &mut S,
    ) -> Result<()> {
        let source = self.handles.trigger_source(resource);
        let armed = system.watch_pressure(self.handles.group(), resource, stall, source)?;
        self.handles.replace_trigger(resource, Some(armed), system);
        Ok(())
    }

    /// Stops watching for stalls.
    pub(crate) fn unwatch_pressure(&mut self, resource: Stallable, system: &mut S) {
        self.handles.replace_trigger(resource, None, system);
    }

    /// Whether a trigger has fired.
    pub(crate) fn pressure_fired(
        &mut self,
        registration: Registration,
        priority: bool,
        system: &mut S,
    ) -> bool {
        let trigger = self.handles.trigger(registration);
        trigger.is_some_and(|trigger| system.fired(trigger, priority))
    }

    /// Reports processes that were killed because memory ran out since the last report.
    pub(crate) fn report_oom(&mut self, job: JobId, token: Token, system: &mut S) {
        if !self.handles.watches_memory() {
            return;
        }
        let group = self.handles.group();
        let events = match system.read(group, "memory.events") {
            Ok(Some(events)) => events,
            Ok(None) => return,
            Err(problem) => {
                self.problems.push(problem);
                return;
            }
        };
        let kills = keyed(&events, "oom_kill");
        let fresh = kills.saturating_sub(self.oom.kills);
        if fresh == 0 {
            return;
        }
        // A limit that was exceeded since the last reported kill is the cause.
        let (own, above) = (keyed(&events, "oom"), system.limits_met_above(group, true));
        let cause = if own > self.oom.own {
            OomCause::Job
        } else if above > self.oom.above {
            OomCause::Ancestor
        } else {
            OomCause::System
        };
        self.oom = Oom { kills, cause: Some(cause), own, above };
        system.emit(Event::Oom { job, token, kills: fresh, cause });
    }

    /// Releases everything but the group. `empty` means that no process is left, or none that could
    /// be waited for.
    pub(crate) fn release(&mut self, empty: bool, accounting: bool, system: &mut S) {
        let mut problems = std::mem::take(&mut self.problems);
        let group = self.handles.group();
        let stats = match S::path(group) {
            Some(_) if accounting => Stats::collect(|file| system.read(group, file)).map(Some),
            _ => Ok(None),
        };
        let stats = stats.unwrap_or_else(|problem| {
            problems.push(problem);
            None
        });
        self.handles.release(system);
        let process = self.handles.process();
        if !self.main.is_reaped() {
            // Its number is not needed any more, or it could not be waited for when it exited.
            let waited = system.wait(process, Reap::Now).err();
            let refused = waited.filter(|cause| Errno::from_io_error(cause) != Some(Errno::CHILD));
            problems.extend(refused.map(Error::event_loop("reap a main process")));
        }
        // Nothing more happens to the job.
        self.deliveries.clear();
        (self.look_soon, self.look_at, self.frozen.pending) = (false, None, false);
        self.released = Some(Released {
            empty,
            exited: self.main.exited(),
            stopped_by: self.stopped_by,
            killed: self.killed,
            oom: self.oom.cause,
            stats,
            cgroup_left: None,
            problems,
        });
    }

    /// Whether there is something to go on with in the next turn.
    pub(crate) fn has_work(&self) -> bool {
        self.is_signalling() || self.look_soon || self.is_released()
    }

    /// Whether everything but the group is released.
    pub(crate) fn is_released(&self) -> bool {
        self.released.is_some()
    }

    /// Removes the group, with a bounded number of those that the job has made below it. Returns
    /// what is left to report; `None` while it is to be called again.
    pub(crate) fn remove_group(&mut self, system: &mut S) -> Option<Released> {
        let empty = self.released.as_ref()?.empty;
        let (process, group) = (self.handles.process(), self.handles.group());
        let populated = if empty { Ok(false) } else { system.populated(group, process) };
        let left = match populated {
            Ok(true) => Ok(true),
            Ok(false) => match system.remove(group, process, &mut self.removal) {
                Ok(false) => return None,
                removed => removed.map(|_| false),
            },
            Err(problem) => Err(problem),
        };
        let path = if matches!(left, Ok(false)) { None } else { S::path(group) };
        let mut released = self.released.take()?;
        released.cgroup_left = path;
        released.problems.extend(left.err());
        Some(released)
    }
}

/// Whether a call has failed only because the host or the system lacks something now.
fn is_shortage(problem: &Error) -> bool {
    const SHORTAGES: [Errno; 4] = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS];
    let errno = problem.raw_os_error();
    SHORTAGES.iter().any(|shortage| errno == Some(shortage.raw_os_error()))
}
