//! Owns [`SimulatedSystem`], a [`System`] in memory: the calls of a host, over a
//! [`SimulatedKernel`].
//!
//! Invariant: it panics at the call or event that breaks a promise about every job: that nothing is
//! released twice, reaped while it is watched, reported twice, or finished while processes are
//! left. Compiled only for the fuzzer and for tests. Knows nothing of what they expect of a
//! particular job.

// A broken promise has to stop the fuzzer.
#![allow(clippy::expect_used, clippy::panic)]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustix::io::Errno;

use crate::cgroup::Removal;
use crate::command::{EndPolicy, Signal};
use crate::driver::{Registration, Source};
use crate::error::{Error, JobError, Result};
use crate::event::{Event, Exit, Report, Stall, Stallable, StopCause, Usage};
use crate::id::{JobId, Key};
use crate::job::delivery::Delivery;
use crate::job::format::{decode, encode};
use crate::job::record::{Policies, Record};
use crate::job::simulated_kernel::{
    COPIED_AT_ONCE, JobState, Life, LogState, Plan, Registered, SimulatedGroup, SimulatedKernel,
    SimulatedProcess, SimulatedTerminal, SimulatedTrigger, Watch,
};
use crate::job::stored::{KnownBy, Main, Stop, Stored, Until};
use crate::job::system::{Adopted, Begun, System};
use crate::job::terminal::Copied;
use crate::sys::Reap;
use crate::trace::JobSpan;

/// A call of the system that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SystemCall {
    /// [`System::watch_exit`].
    WatchExit,
    /// [`System::wait`].
    Wait,
    /// [`System::signal`].
    Signal,
    /// [`System::deliver`].
    SignalAll,
    /// [`System::kill`].
    Kill,
    /// [`System::populated`].
    Populated,
    /// [`System::members`].
    Members,
    /// [`System::freeze`].
    Freeze,
    /// [`System::frozen`].
    Frozen,
    /// [`System::read`].
    Read,
    /// [`System::remove`].
    Remove,
    /// [`System::watch_file`].
    WatchFile,
    /// [`System::watch_pressure`].
    WatchPressure,
    /// [`System::watch_terminal`].
    WatchTerminal,
    /// [`System::copy_output`] and [`System::copy_last_output`].
    CopyOutput,
    /// [`System::finish_log`].
    FinishLog,
    /// [`System::remove_log`].
    RemoveLog,
    /// [`System::store`].
    Store,
    /// [`System::bury`].
    Bury,
}

impl SystemCall {
    /// The errors that it can return.
    pub(crate) fn errors(self) -> &'static [Errno] {
        match self {
            // The limits of epoll and inotify, and out of memory.
            Self::WatchExit | Self::WatchFile | Self::WatchTerminal => {
                &[Errno::NOSPC, Errno::NOMEM]
            }
            // Somebody else has reaped the process, or a seccomp filter forbids the call.
            Self::Wait => &[Errno::CHILD, Errno::PERM],
            Self::Signal => &[Errno::PERM],
            Self::SignalAll => &[Errno::PERM, Errno::MFILE, Errno::NFILE],
            Self::Kill | Self::Freeze => {
                &[Errno::MFILE, Errno::NFILE, Errno::ACCESS, Errno::NOMEM, Errno::OPNOTSUPP]
            }
            Self::Populated | Self::Members | Self::Frozen | Self::Read => {
                &[Errno::MFILE, Errno::NFILE, Errno::ACCESS, Errno::NOMEM]
            }
            Self::Remove => &[Errno::BUSY, Errno::ACCESS, Errno::MFILE],
            Self::WatchPressure => &[Errno::MFILE, Errno::NOMEM, Errno::INVAL, Errno::NOSPC],
            // A full disk, a quota, the host's limit, a broken disk.
            Self::CopyOutput => &[Errno::NOSPC, Errno::DQUOT, Errno::FBIG, Errno::IO],
            // A job of the host's user has used up the room for attributes.
            Self::Store => &[Errno::NOSPC, Errno::MFILE],
            Self::Bury => &[Errno::BUSY, Errno::MFILE],
            Self::FinishLog | Self::RemoveLog => &[Errno::IO, Errno::ACCESS, Errno::MFILE],
        }
    }
}

/// What happens just before a call of the system takes effect, to the job that it concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meddling {
    /// Nothing.
    Nothing,
    /// Every process that was sent a fatal signal dies.
    Deaths,
    /// Every process that can exit does so.
    Exits,
    /// The call fails, with one of the errors that it can return, by index.
    Fail(u8),
    /// The host dies: neither this call nor any later one has an effect.
    HostDies,
}

/// A job that was launched and is not adopted yet.
#[derive(Debug)]
pub(crate) struct SimulatedLaunch {
    pub(super) job: usize,
    process: Option<SimulatedProcess>,
    terminal: Option<SimulatedTerminal>,
    /// Collects the launches that were dropped.
    dropped: Rc<RefCell<Vec<usize>>>,
    /// What was found of it, if it was found rather than started.
    found: Option<Found>,
}

/// What an earlier host has left of a job.
#[derive(Debug)]
struct Found {
    stored: Stored,
    report: Option<Report>,
}

impl Drop for SimulatedLaunch {
    fn drop(&mut self) {
        if self.process.take().is_some() && self.found.is_none() {
            self.dropped.borrow_mut().push(self.job);
        }
    }
}

/// A system in memory.
#[derive(Debug)]
pub struct SimulatedSystem {
    /// What it is a system of.
    pub kernel: SimulatedKernel,
    /// What happens during the next calls, one entry for each.
    pub script: VecDeque<Meddling>,
    /// The calls that were made and the jobs that they concerned, so that a test can script each of
    /// them to fail.
    pub calls: Vec<(SystemCall, usize)>,
    /// How many calls have failed.
    pub failures: u64,
    /// Whether the kernel knows the exit of a process that somebody else has reaped.
    pub tells_exit: bool,
    /// How often that is asked while such a process is still being reaped.
    pub early_answers: usize,
    queue: VecDeque<Event>,
    /// The host is dead, and only goes on so that the caller comes to its end.
    dead: bool,
    /// How often the limits above all jobs were exceeded when that was last read.
    known_above: u64,
    dropped: Rc<RefCell<Vec<usize>>>,
}

impl SimulatedSystem {
    pub(super) fn new() -> Self {
        Self {
            kernel: SimulatedKernel::new(),
            script: VecDeque::new(),
            calls: Vec::new(),
            failures: 0,
            tells_exit: true,
            early_answers: 0,
            queue: VecDeque::new(),
            dead: false,
            known_above: 0,
            dropped: Rc::default(),
        }
    }

    /// Records a call, and does what the script says about it.
    fn called(&mut self, call: SystemCall, job: usize) -> io::Result<()> {
        if self.dead {
            return Err(Errno::IO.into());
        }
        self.calls.push((call, job));
        match self.script.pop_front() {
            Some(Meddling::HostDies) => {
                self.dead = true;
                return Err(Errno::IO.into());
            }
            None | Some(Meddling::Nothing) => {}
            Some(Meddling::Fail(which)) => {
                self.failures += 1;
                let errors = call.errors();
                return Err(errors[usize::from(which) % errors.len()].into());
            }
            Some(meddling) => {
                for process in 0..self.kernel.processes.len() {
                    if self.kernel.processes[process].job != job {
                        continue;
                    }
                    if meddling == Meddling::Exits {
                        self.kernel.exit(process, 0, false);
                    } else {
                        self.kernel.die(process, false);
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn launch(&mut self, plan: Plan) -> SimulatedLaunch {
        let job = self.kernel.start(plan);
        let process = Some(self.kernel.handle(self.kernel.main(job)));
        let open = || Rc::clone(&self.kernel.terminal_handles);
        let terminal = plan.terminal.then(|| SimulatedTerminal { job, open: open() });
        if plan.survives {
            let known_by = KnownBy::Inode(self.kernel.main(job) as u64);
            let moment = (SystemTime::UNIX_EPOCH, self.boot_time());
            let stored = Stored {
                main: Some(Main { pid: 1, known_by }),
                ..Stored::new(self.kernel.id(job), moment, policies(&plan), PathBuf::new())
            };
            self.kernel.jobs[job].record = Some(encode(&stored, None));
        }
        self.kernel.jobs[job].files = std::array::from_fn(|index| index < plan.logs());
        let dropped = Rc::clone(&self.dropped);
        SimulatedLaunch { job, process, terminal, dropped, found: None }
    }

    /// Whether the host has died.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.dead
    }

    /// Another host takes the place of one that has died.
    pub(super) fn begin_anew(&mut self, exec: bool) {
        self.kernel.host_died(exec);
        self.queue.clear();
        self.dead = false;
        self.known_above = self.kernel.met_above;
    }

    /// What is left of the jobs that have survived their hosts, and that are not known.
    pub(super) fn find(&mut self, known: impl Fn(JobId) -> bool) -> Vec<SimulatedLaunch> {
        let recorded = self.kernel.recorded().into_iter();
        let found = recorded.filter_map(|(job, record)| {
            if known(self.kernel.id(job)) {
                return None;
            }
            let (stored, report) = decode(&record).expect("a record that was written");
            if stored.removed {
                self.kernel.jobs[job].files = [false; 2];
                if !self.kernel.is_populated(job) {
                    self.kernel.jobs[job].removed = true;
                }
                return None;
            }
            let process = match report {
                Some(_) => None,
                None => {
                    let known = stored.exited.map(|known| known.exit);
                    Some(self.kernel.find_main(job, known))
                }
            };
            let (found, dropped) = (Some(Found { stored, report }), Rc::clone(&self.dropped));
            Some(SimulatedLaunch { job, process, terminal: None, dropped, found })
        });
        found.collect()
    }

    /// What the record of a job says of a stop.
    pub(super) fn stop_of(&self, job: usize) -> Option<(StopCause, Option<Duration>)> {
        let (stored, _) = decode(self.kernel.jobs[job].record.as_ref()?).ok()?;
        let Stop { cause, until } = stored.stop?;
        let until = match until {
            Until::Now => Some(Duration::ZERO),
            Until::Boot(at) => Some(at),
            Until::Never => None,
        };
        Some((cause, until))
    }

    /// Rolls back the launches that were dropped.
    pub(super) fn roll_back(&mut self) {
        for job in self.dropped.take() {
            if self.dead {
                continue;
            }
            self.kernel.jobs[job].files = [false; 2];
            self.kernel.jobs[job].record = None;
            let killed = Exit::Signal { signal: Signal::KILL, core_dumped: false };
            self.kernel.processes[self.kernel.jobs[job].main].life = Life::Reaped(killed);
            self.kernel.jobs[job].removed = true;
        }
    }

    pub(super) fn take_event(&mut self) -> Option<Event> {
        self.queue.pop_front()
    }

    fn check_exited(&mut self, job: usize, exit: Exit) {
        let state = &self.kernel.jobs[job];
        let actual = self.kernel.exit_of(state.main);
        let may_be_unknown = state.may_be_unknown || !state.is_child && !self.tells_exit;
        let excused = exit == Exit::Unknown && (may_be_unknown || self.failures > 0);
        assert!(actual == Some(exit) || excused, "{exit:?} was reported instead of {actual:?}");
        let agrees = state.told.is_none_or(|told| told == exit) || self.failures > 0;
        assert!(agrees, "{exit:?} was reported after {:?}", state.told);
        let before = self.kernel.jobs[job].exited.replace(exit);
        assert_eq!(before, None, "Exited was reported twice");
    }

    /// Checks that what was finished for an earlier host is told again as it was.
    fn check_told_again(&mut self, job: usize, report: &Arc<Report>) {
        let state = &mut self.kernel.jobs[job];
        if let Some(told) = &state.told_report {
            let facts = |report: &Report| {
                let bytes = [report.output_bytes, report.error_bytes];
                (report.exit, report.stopped_by, report.killed, report.oom, bytes)
            };
            assert_eq!(facts(report), facts(told), "another report than before");
        }
        state.report = Some(Arc::clone(report));
    }

    /// Checks what holds at the end of every job.
    fn check_finished(&mut self, job: usize, report: &Arc<Report>) {
        let (populated, state) = (self.kernel.is_populated(job), &self.kernel.jobs[job]);
        let excused = !report.problems.is_empty();
        assert_eq!(state.exited, Some(report.exit), "Finished without an Exited that agrees");
        let left = state.plan.end == EndPolicy::LeaveRest && report.stopped_by.is_none();
        assert!(!populated || left || excused, "finished while populated: {report:?}");
        let reaped = matches!(self.kernel.processes[state.main].life, Life::Reaped(_));
        assert!(
            reaped || excused || !state.is_child,
            "the main process was not reaped: {report:?}"
        );
        // That of a job that survives has its record, until the job is removed.
        let in_place = state.plan.cgroup && !state.removed && !state.plan.survives;
        let is_left = report.cgroup_left.is_some() && !state.plan.survives;
        assert_eq!(is_left, in_place, "{report:?}");
        // What was left may have exited since.
        let kept = populated || left || excused;
        assert!(!in_place || kept, "an empty cgroup was left: {report:?}");
        assert!(!report.killed || state.kills > 0, "nothing was killed: {report:?}");
        assert!(report.killed || !state.killed || self.failures > 0, "killed: {report:?}");
        let registered =
            self.kernel.registrations.iter().any(|(_, registered)| registered.job == job);
        let watched = self.kernel.watches.iter().any(|watch| watch.job == job);
        assert!(!registered && !watched, "a finished job still holds something");
        let ends = state.logs.map(|log| {
            let log = self.kernel.logs.get(log?).expect("the logs of a job that was not removed");
            let end = log.end.expect("the logs are finished before the job");
            assert!(end.is_some() || excused, "the end of a log is not known");
            end
        });
        assert_eq!(state.unread, 0, "output was left in the terminal");
        assert_eq!(state.copied + state.lost, state.printed, "output is not accounted for");
        assert!(state.lost == 0 || excused, "output is lost without a report");
        let bytes = ends.map(Option::unwrap_or_default);
        assert_eq!([report.output_bytes, report.error_bytes], bytes);
        self.kernel.jobs[job].report = Some(Arc::clone(report));
    }
}

impl System for SimulatedSystem {
    type Process = SimulatedProcess;
    type Group = SimulatedGroup;
    type Trigger = SimulatedTrigger;
    type Terminal = SimulatedTerminal;
    type Launched = SimulatedLaunch;

    fn now(&self) -> Instant {
        self.kernel.now
    }

    fn boot_time(&self) -> Duration {
        self.kernel.now - self.kernel.booted
    }

    fn emit(&mut self, event: Event) {
        if self.dead {
            return;
        }
        match &event {
            Event::Exited { job, exit, .. } => {
                let job = self.kernel.job_of(*job);
                assert!(self.kernel.jobs[job].report.is_none(), "an event after Finished");
                self.check_exited(job, *exit);
            }
            Event::Finished { job, report, .. } => {
                let job = self.kernel.job_of(*job);
                assert!(self.kernel.jobs[job].report.is_none(), "Finished was reported twice");
                if self.kernel.jobs[job].was_finished {
                    self.check_told_again(job, report);
                } else {
                    self.check_finished(job, report);
                }
            }
            Event::Oom { job, .. }
            | Event::Pressure { job, .. }
            | Event::Frozen { job, .. }
            | Event::Thawed { job, .. } => {
                let state = &self.kernel.jobs[self.kernel.job_of(*job)];
                assert!(state.report.is_none(), "an event after Finished");
                let wrong = match event {
                    Event::Frozen { .. } => !state.frozen,
                    Event::Thawed { .. } => state.frozen,
                    _ => false,
                };
                assert!(!wrong, "{event:?} is not true");
            }
            other => panic!("no event of a job: {other:?}"),
        }
        self.queue.push_back(event);
    }

    fn launched_process(launched: &SimulatedLaunch) -> Option<&SimulatedProcess> {
        let finished = launched.found.as_ref().is_some_and(|found| found.report.is_some());
        assert!(launched.process.is_some() || finished, "a launch that was taken over");
        launched.process.as_ref()
    }

    fn launched_terminal(launched: &SimulatedLaunch) -> Option<&SimulatedTerminal> {
        launched.terminal.as_ref()
    }

    fn take_over(&mut self, mut launched: SimulatedLaunch) -> Adopted<Self> {
        let job = launched.job;
        let process = launched.process.take();
        let JobState { id, plan, .. } = self.kernel.jobs[job];
        let (record, report) = match launched.found.take() {
            Some(Found { stored, report }) => {
                let spawned = self.kernel.booted + stored.booted;
                (Record::of_stored(stored, spawned), report)
            }
            None => match &self.kernel.jobs[job].record {
                Some(record) => {
                    let (stored, _) = decode(record).expect("a record that was written");
                    (Record::of_stored(stored, self.kernel.now), None)
                }
                None => {
                    let moment = (self.kernel.now, SystemTime::UNIX_EPOCH);
                    (Record::new(id, 1, moment, policies(&plan)), None)
                }
            },
        };
        self.kernel.jobs[job].was_finished = report.is_some();
        let mut logs = [None, None];
        for (index, log) in logs.iter_mut().enumerate().take(plan.logs()) {
            *log = Some(self.kernel.logs.insert(LogState { job, index, end: None }));
        }
        self.kernel.jobs[job].logs = logs;
        let group = SimulatedGroup { job, cgroup: plan.cgroup };
        let terminal = launched.terminal.take();
        let span = JobSpan::spawned(id, 1, OsStr::new("simulated"));
        let course = match report {
            Some(report) => Begun::Finished { group, report: Arc::new(report) },
            None => {
                let process = process.expect("a launch is taken over once");
                Begun::Live { process, group, problem: None }
            }
        };
        Adopted { record, course, stdin: None, terminal, logs, span }
    }

    fn watch_exit(
        &mut self,
        process: &SimulatedProcess,
        source: Source,
    ) -> io::Result<Registration> {
        let job = self.kernel.processes[process.index].job;
        self.called(SystemCall::WatchExit, job)?;
        let ready = process.past.is_some() || !self.kernel.is_alive(process.index);
        let process = Some(process.index);
        let key = self.kernel.registrations.insert(Registered { source, job, process, ready });
        Ok(Registration(key))
    }

    fn unwatch_exit(&mut self, process: &SimulatedProcess, registration: Registration) {
        let registered = self.kernel.registrations.get(registration.0);
        let registered = registered.map(|registered| registered.process);
        assert_eq!(registered, Some(Some(process.index)), "a watch of another process");
        self.kernel.deregister(registration);
    }

    fn wait(
        &mut self,
        process: &SimulatedProcess,
        reap: Reap,
    ) -> io::Result<Option<(Exit, Usage)>> {
        let job = self.kernel.processes[process.index].job;
        let called = self.called(SystemCall::Wait, job);
        if self.dead {
            return Err(Errno::IO.into());
        }
        if let Some(exit) = process.past {
            return called.map(|()| Some((exit, Usage::default())));
        }
        if !self.kernel.jobs[job].is_child {
            return called.and(Err(Errno::CHILD.into()));
        }
        let exit = match self.kernel.processes[process.index].life {
            Life::Running | Life::Doomed(_) => None,
            Life::Zombie(exit) => Some(exit),
            Life::Reaped(_) => return Err(Errno::CHILD.into()),
        };
        if let Err(error) = called {
            if Errno::from_io_error(&error) == Some(Errno::CHILD) {
                // Nobody can reap a process that is alive.
                let Some(exit) = exit else { return Ok(None) };
                self.kernel.processes[process.index].life = Life::Reaped(exit);
            }
            return Err(error);
        }
        let Some(exit) = exit else { return Ok(None) };
        match reap {
            Reap::Peek => {}
            Reap::Now => {
                let watched = self
                    .kernel
                    .registrations
                    .iter()
                    .any(|(_, registered)| registered.process == Some(process.index));
                assert!(!watched, "a process is reaped while its exit is watched");
                self.kernel.processes[process.index].life = Life::Reaped(exit);
            }
            Reap::Block => panic!("a call that blocks"),
        }
        Ok(Some((exit, Usage::default())))
    }

    fn exit_after_reap(&mut self, process: &SimulatedProcess) -> Option<Exit> {
        if self.early_answers > 0 {
            self.early_answers -= 1;
            return None;
        }
        let state = &self.kernel.processes[process.index];
        if let Some(exit) = process.past {
            return Some(exit);
        }
        let is_child = self.kernel.jobs[state.job].is_child;
        Some(match state.life {
            Life::Reaped(exit) if self.tells_exit => exit,
            // As /proc tells.
            Life::Zombie(exit) if !is_child => exit,
            Life::Running | Life::Doomed(_) if !is_child => return None,
            _ => Exit::Unknown,
        })
    }

    fn why_unknown(process: &SimulatedProcess) -> Option<&'static str> {
        process.past.map(|_| "nobody was there")
    }

    fn signal(&mut self, process: &SimulatedProcess, signal: Signal) -> io::Result<()> {
        self.called(SystemCall::Signal, self.kernel.processes[process.index].job)?;
        if process.past.is_none() {
            self.kernel.deliver_signal(process.index, signal);
        }
        Ok(())
    }

    fn deliver(
        &mut self,
        group: &SimulatedGroup,
        main: &SimulatedProcess,
        delivery: &mut Delivery,
    ) -> Result<()> {
        let signal = delivery.signal();
        delivery.end();
        self.called(SystemCall::SignalAll, group.job)
            .map_err(Error::path("signal", path(group)))?;
        for process in self.kernel.members_of(group.job) {
            self.kernel.deliver_signal(process, signal);
        }
        if main.past.is_none() {
            self.kernel.deliver_signal(main.index, signal);
        }
        Ok(())
    }

    fn kill(&mut self, group: &SimulatedGroup, _: &SimulatedProcess) -> Result<()> {
        self.kernel.jobs[group.job].kills += usize::from(!self.dead);
        self.called(SystemCall::Kill, group.job).map_err(Error::path("kill", path(group)))?;
        for process in self.kernel.members_of(group.job) {
            self.kernel.jobs[group.job].killed |= self.kernel.deliver_signal(process, Signal::KILL);
        }
        Ok(())
    }

    fn populated(&mut self, group: &SimulatedGroup, _: &SimulatedProcess) -> Result<bool> {
        self.called(SystemCall::Populated, group.job).map_err(Error::path("read", path(group)))?;
        Ok(self.kernel.is_populated(group.job))
    }

    fn members(
        &mut self,
        group: &SimulatedGroup,
        _: &SimulatedProcess,
        most: usize,
    ) -> Result<Vec<SimulatedProcess>> {
        self.called(SystemCall::Members, group.job).map_err(Error::path("list", path(group)))?;
        let members = self.kernel.members_of(group.job).into_iter().take(most);
        Ok(members.map(|process| self.kernel.handle(process)).collect())
    }

    fn freeze(&mut self, group: &SimulatedGroup, freeze: bool) -> Result<()> {
        self.called(SystemCall::Freeze, group.job).map_err(Error::path("freeze", path(group)))?;
        self.kernel.jobs[group.job].freeze = freeze;
        Ok(())
    }

    fn frozen(&mut self, group: &SimulatedGroup) -> Result<bool> {
        self.called(SystemCall::Frozen, group.job).map_err(Error::path("read", path(group)))?;
        Ok(self.kernel.jobs[group.job].frozen)
    }

    fn read(&mut self, group: &SimulatedGroup, file: &str) -> Result<Option<String>> {
        if !group.cgroup {
            return Ok(None);
        }
        self.called(SystemCall::Read, group.job).map_err(Error::path("read", path(group)))?;
        let JobState { plan, oom_own, oom_kills, freeze, .. } = &self.kernel.jobs[group.job];
        Ok(match file {
            "cgroup.freeze" => Some(format!("{}\n", u8::from(*freeze))),
            "memory.events" if plan.memory => {
                Some(format!("oom {oom_own}\noom_kill {oom_kills}\n"))
            }
            "memory.current" if plan.memory => Some("4096\n".to_owned()),
            "cpu.stat" => Some("usage_usec 3\nuser_usec 2\nsystem_usec 1\n".to_owned()),
            _ => None,
        })
    }

    fn limits_met_above(&mut self, _: &SimulatedGroup, fresh: bool) -> u64 {
        if fresh {
            self.known_above = self.kernel.met_above;
        }
        self.known_above
    }

    fn remove(
        &mut self,
        group: &SimulatedGroup,
        _: &SimulatedProcess,
        _: &mut Removal,
    ) -> Result<bool> {
        let called = self.called(SystemCall::Remove, group.job);
        let populated = group.cgroup && self.kernel.is_populated(group.job);
        let removed = called.and(if populated { Err(Errno::BUSY.into()) } else { Ok(()) });
        removed.map_err(Error::path("remove cgroup", path(group)))?;
        assert!(!self.kernel.jobs[group.job].removed, "a group was removed twice");
        // What is below is removed; the group has the record.
        self.kernel.jobs[group.job].removed = !self.kernel.jobs[group.job].plan.survives;
        Ok(true)
    }

    fn store(
        &mut self,
        group: &SimulatedGroup,
        stored: &Stored,
        report: Option<&Report>,
    ) -> Result<()> {
        self.called(SystemCall::Store, group.job).map_err(Error::path("store", path(group)))?;
        self.kernel.jobs[group.job].record = Some(encode(stored, report));
        Ok(())
    }

    fn write_history(&mut self, _: &Stored, _: &Report) -> Result<()> {
        Ok(())
    }

    fn bury(&mut self, group: &SimulatedGroup, stored: &mut Stored, report: &Report) {
        let called = self.called(SystemCall::Bury, group.job);
        if called.is_ok() && !self.kernel.is_populated(group.job) {
            self.kernel.jobs[group.job].removed = true;
            return;
        }
        stored.removed = true;
        let _ = self.store(group, stored, Some(report));
    }

    fn path(group: &SimulatedGroup) -> Option<PathBuf> {
        group.cgroup.then(|| path(group))
    }

    fn needs_leader(group: &SimulatedGroup) -> bool {
        !group.cgroup
    }

    fn watch_file(&mut self, group: &SimulatedGroup, file: &str, source: Source) -> io::Result<()> {
        if !group.cgroup || file == "memory.events" && !self.kernel.jobs[group.job].plan.memory {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.called(SystemCall::WatchFile, group.job)?;
        assert!(self.kernel.watches.iter().all(|watch| watch.source != source), "a second watch");
        self.kernel.watches.push(Watch { source, job: group.job, changed: false });
        self.kernel.past.push(source);
        Ok(())
    }

    fn unwatch_file(&mut self, source: Source) {
        let place = self.kernel.watches.iter().position(|watch| watch.source == source);
        self.kernel.watches.swap_remove(place.expect("a watch is removed once"));
    }

    fn watch_pressure(
        &mut self,
        group: &SimulatedGroup,
        _: Stallable,
        _: Stall,
        source: Source,
    ) -> Result<(Registration, SimulatedTrigger)> {
        self.called(SystemCall::WatchPressure, group.job)
            .map_err(Error::path("watch", path(group)))?;
        let registered = Registered { source, job: group.job, process: None, ready: false };
        let registration = Registration(self.kernel.registrations.insert(registered));
        Ok((registration, SimulatedTrigger { _open: Rc::clone(&self.kernel.trigger_handles) }))
    }

    fn unwatch_pressure(&mut self, _: SimulatedTrigger, registration: Registration) {
        self.kernel.deregister(registration);
    }

    fn fired(&mut self, _: &mut SimulatedTrigger, priority: bool) -> bool {
        priority
    }

    fn watch_terminal(
        &mut self,
        terminal: &SimulatedTerminal,
        source: Source,
    ) -> io::Result<Registration> {
        let job = terminal.job;
        self.called(SystemCall::WatchTerminal, job)?;
        let ready = self.kernel.jobs[job].unread > 0;
        let key =
            self.kernel.registrations.insert(Registered { source, job, process: None, ready });
        Ok(Registration(key))
    }

    fn unwatch_terminal(&mut self, terminal: &SimulatedTerminal, registration: Registration) {
        debug_assert!(Rc::strong_count(&terminal.open) > 1, "it is open");
        self.kernel.deregister(registration);
    }

    fn copy_output(&mut self, terminal: &mut SimulatedTerminal) -> Result<Copied> {
        self.called(SystemCall::CopyOutput, terminal.job)
            .map_err(Error::path("write log", "log"))?;
        let state = &mut self.kernel.jobs[terminal.job];
        let count = state.unread.min(COPIED_AT_ONCE);
        state.unread -= count;
        state.copied += count;
        Ok(if count < COPIED_AT_ONCE { Copied::All } else { Copied::Some })
    }

    fn copy_last_output(&mut self, terminal: &mut SimulatedTerminal) -> Result<()> {
        let called = self.called(SystemCall::CopyOutput, terminal.job);
        let state = &mut self.kernel.jobs[terminal.job];
        let bytes = std::mem::take(&mut state.unread);
        match called {
            Ok(()) => state.copied += bytes,
            Err(cause) => {
                state.lost += bytes;
                return Err(JobError::OutputLost { path: "log".into(), bytes, cause }.into());
            }
        }
        Ok(())
    }

    fn finish_log(&mut self, log: Key) -> Result<u64> {
        let job = self.kernel.logs.get(log).expect("a log that was not removed").job;
        let called = self.called(SystemCall::FinishLog, job);
        let state = self.kernel.logs.get_mut(log).expect("a log that was not removed");
        assert!(!matches!(state.end, Some(Some(_))), "a log was finished twice");
        let copied = self.kernel.jobs[state.job].copied;
        let found = called.map(|()| 7 + state.job as u64 + copied);
        state.end = Some(found.as_ref().ok().copied());
        found.map_err(Error::log("read the end of log", "log"))
    }

    fn finish_log_at(&mut self, log: Key, end: u64, _: Duration) {
        let state = self.kernel.logs.get_mut(log).expect("a log that was not removed");
        state.end = Some(Some(end));
    }

    fn log_cut(&mut self, _: Key, _: Instant, _: bool) -> Option<Error> {
        None
    }

    fn log_exceeded(&mut self, _: Key) -> bool {
        false
    }

    fn log_discarded(&self, _: Key) -> u64 {
        0
    }

    fn log_problem(&mut self, _: Key) -> Option<Error> {
        None
    }

    fn remove_log(&mut self, log: Key, _: bool) -> Result<()> {
        let removed = self.kernel.logs.remove(log).expect("a log is removed once");
        let called = self.called(SystemCall::RemoveLog, removed.job);
        // A failure is the host's to deal with.
        self.kernel.jobs[removed.job].files[removed.index] &= self.dead;
        called.map_err(Error::log("remove log", "log"))
    }
}

fn path(group: &SimulatedGroup) -> PathBuf {
    PathBuf::from(format!("/simulated/{}", group.job))
}

/// What the record of a job says of its life.
fn policies(plan: &Plan) -> Policies {
    Policies {
        end: plan.end,
        stop_signal: Signal::TERM,
        grace: plan.grace,
        time_limit: plan.time_limit,
        detached: false,
        survives: plan.survives,
        keep_log: false,
        over_limit: None,
        has_terminal: plan.terminal,
        accounting: plan.accounting,
    }
}
