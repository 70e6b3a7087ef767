//! Owns [`SimulatedSystem`], a [`System`] in memory.
//!
//! Invariant: it does by itself only what a kernel does at once. The caller decides when a killed
//! process dies, when a freeze is done and when a notice arrives. It panics at the call or event
//! that breaks a promise about every job: that nothing is released twice, reaped while it is
//! watched, reported twice, or finished while processes are left. Compiled only for the fuzzer and
//! for tests. Knows nothing of what they expect of a particular job.

// A broken promise has to stop the fuzzer.
#![allow(clippy::expect_used, clippy::panic)]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustix::io::Errno;
use uuid::Uuid;

use crate::cgroup::Removal;
use crate::command::{EndPolicy, Signal};
use crate::driver::{JobSource, Notice, Registration, Source};
use crate::error::{Error, Result};
use crate::event::{Event, Exit, OomCause, Report, Stall, Stallable, Usage};
use crate::id::{JobId, Key, Slots};
use crate::job::delivery::Delivery;
use crate::job::record::{Policies, Record};
use crate::job::system::{Adopted, System};
use crate::sys::Reap;

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
    /// [`System::finish_log`].
    FinishLog,
    /// [`System::remove_log`].
    RemoveLog,
}

impl SystemCall {
    /// The errors that it can return.
    pub(crate) fn errors(self) -> &'static [Errno] {
        match self {
            // The limits of epoll and inotify, and out of memory.
            Self::WatchExit | Self::WatchFile => &[Errno::NOSPC, Errno::NOMEM],
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
}

/// The properties of a job.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// What becomes of processes that the main one leaves behind.
    pub end: EndPolicy,
    /// How long it may take to stop.
    pub grace: Duration,
    /// How long it may run.
    pub time_limit: Option<Duration>,
    /// Whether it has a cgroup, and not only a process group.
    pub cgroup: bool,
    /// Whether its cgroup has the memory controller.
    pub memory: bool,
    /// Whether its statistics are read at its end.
    pub accounting: bool,
    /// How many logs it has, two at most.
    pub logs: usize,
    /// Whether its processes ignore the stop signal.
    pub stubborn: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            end: EndPolicy::KillRest,
            grace: Duration::from_secs(10),
            time_limit: None,
            cgroup: true,
            memory: true,
            accounting: true,
            logs: 1,
            stubborn: false,
        }
    }
}

/// What is held of the system, except for what a report has named as left behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Descriptors of processes.
    pub processes: usize,
    /// Main processes that have exited and were not reaped.
    pub zombies: usize,
    /// Groups that were not removed.
    pub groups: usize,
    /// What is registered with the epoll.
    pub registrations: usize,
    /// Watches of files.
    pub watches: usize,
    /// Pressure triggers.
    pub triggers: usize,
    /// Logs.
    pub logs: usize,
}

/// The state of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Running,
    /// A fatal signal was delivered.
    Doomed(Exit),
    /// It has exited, and its parent has not waited for it.
    Zombie(Exit),
    Reaped(Exit),
}

#[derive(Debug)]
struct ProcessState {
    job: usize,
    life: Life,
    /// Whether its group still counts it.
    member: bool,
    stubborn: bool,
    /// The signal on which a frozen process will act when it is thawed.
    pending: Option<Signal>,
}

impl ProcessState {
    fn is_alive(&self) -> bool {
        matches!(self.life, Life::Running | Life::Doomed(_))
    }
}

/// A job as the system knows it. Its group has the same index.
#[derive(Debug)]
struct JobState {
    id: JobId,
    plan: Plan,
    main: usize,
    logs: [Option<Key>; 2],
    /// What was last written to cgroup.freeze, and what the kernel has done.
    freeze: bool,
    frozen: bool,
    removed: bool,
    /// How often a kill of all processes was requested.
    kills: usize,
    /// Whether any of them has reached a process.
    killed: bool,
    oom_kills: u64,
    oom_own: u64,
    exited: Option<Exit>,
    report: Option<Arc<Report>>,
}

#[derive(Debug)]
struct Registered {
    source: Source,
    job: usize,
    /// The process, or `None` for a pressure trigger.
    process: Option<usize>,
    ready: bool,
}

#[derive(Debug)]
struct Watch {
    source: Source,
    job: usize,
    changed: bool,
}

#[derive(Debug)]
struct LogState {
    job: usize,
    /// Where it ends, once it was finished; `Some(None)` if that could not be determined.
    end: Option<Option<u64>>,
}

/// A process of the simulated system, by its index.
#[derive(Debug)]
pub(crate) struct SimulatedProcess {
    index: usize,
    /// Counts the descriptors that are open.
    _open: Rc<()>,
}

/// A pressure trigger of the simulated system.
#[derive(Debug)]
pub(crate) struct SimulatedTrigger {
    /// Counts the descriptors that are open.
    _open: Rc<()>,
}

/// The group of a job, by the job's index.
#[derive(Debug)]
pub(crate) struct SimulatedGroup {
    job: usize,
    cgroup: bool,
}

/// A job that was launched and is not adopted yet.
#[derive(Debug)]
pub(crate) struct SimulatedLaunch {
    pub(super) job: usize,
    process: Option<SimulatedProcess>,
    /// Collects the launches that were dropped.
    dropped: Rc<RefCell<Vec<usize>>>,
}

impl Drop for SimulatedLaunch {
    fn drop(&mut self) {
        if self.process.take().is_some() {
            self.dropped.borrow_mut().push(self.job);
        }
    }
}

/// A system in memory.
#[derive(Debug)]
pub struct SimulatedSystem {
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
    now: Instant,
    processes: Vec<ProcessState>,
    jobs: Vec<JobState>,
    registrations: Slots<Registered>,
    watches: Vec<Watch>,
    /// The sources of all watches that were ever made.
    past: Vec<Source>,
    logs: Slots<LogState>,
    queue: VecDeque<Event>,
    /// How often the limits above all jobs were exceeded: now, and when that was last read.
    met_above: u64,
    known_above: u64,
    process_handles: Rc<()>,
    trigger_handles: Rc<()>,
    dropped: Rc<RefCell<Vec<usize>>>,
}

impl SimulatedSystem {
    pub(super) fn new() -> Self {
        Self {
            script: VecDeque::new(),
            calls: Vec::new(),
            failures: 0,
            tells_exit: true,
            early_answers: 0,
            now: Instant::now(),
            processes: Vec::new(),
            jobs: Vec::new(),
            registrations: Slots::new(),
            watches: Vec::new(),
            past: Vec::new(),
            logs: Slots::new(),
            queue: VecDeque::new(),
            met_above: 0,
            known_above: 0,
            process_handles: Rc::new(()),
            trigger_handles: Rc::new(()),
            dropped: Rc::default(),
        }
    }

    /// Records a call, and does what the script says about it.
    fn called(&mut self, call: SystemCall, job: usize) -> io::Result<()> {
        self.calls.push((call, job));
        match self.script.pop_front() {
            None | Some(Meddling::Nothing) => {}
            Some(Meddling::Fail(which)) => {
                self.failures += 1;
                let errors = call.errors();
                return Err(errors[usize::from(which) % errors.len()].into());
            }
            Some(meddling) => {
                for process in 0..self.processes.len() {
                    if self.processes[process].job != job {
                        continue;
                    }
                    if meddling == Meddling::Exits {
                        self.exit(process, 0, false);
                    } else {
                        self.die(process, false);
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn launch(&mut self, plan: Plan) -> SimulatedLaunch {
        let (job, main) = (self.jobs.len(), self.processes.len());
        self.processes.push(ProcessState {
            job,
            life: Life::Running,
            member: true,
            stubborn: plan.stubborn,
            pending: None,
        });
        self.jobs.push(JobState {
            id: JobId::new(Uuid::from_u128(job as u128 + 1)),
            plan,
            main,
            logs: [None, None],
            freeze: false,
            frozen: false,
            removed: false,
            kills: 0,
            killed: false,
            oom_kills: 0,
            oom_own: 0,
            exited: None,
            report: None,
        });
        let process = Some(self.handle(main));
        SimulatedLaunch { job, process, dropped: Rc::clone(&self.dropped) }
    }

    /// Rolls back the launches that were dropped.
    pub(super) fn roll_back(&mut self) {
        for job in self.dropped.take() {
            let killed = Exit::Signal { signal: Signal::KILL, core_dumped: false };
            self.processes[self.jobs[job].main].life = Life::Reaped(killed);
            self.jobs[job].removed = true;
        }
    }

    fn handle(&self, index: usize) -> SimulatedProcess {
        SimulatedProcess { index, _open: Rc::clone(&self.process_handles) }
    }

    fn job_of(&self, id: JobId) -> usize {
        let found = self.jobs.iter().position(|job| job.id == id);
        found.expect("an event of a job that was launched")
    }

    pub(super) fn id(&self, job: usize) -> JobId {
        self.jobs[job].id
    }

    /// The sources of all watches that were ever made.
    pub(super) fn past(&self) -> &[Source] {
        &self.past
    }

    /// Loses the pending notices about files.
    pub(super) fn lose_changes(&mut self) {
        for watch in &mut self.watches {
            watch.changed = false;
        }
    }

    pub(super) fn advance(&mut self, time: Duration) {
        self.now += time;
    }

    pub(super) fn take_event(&mut self) -> Option<Event> {
        self.queue.pop_front()
    }

    /// How many jobs were launched. A job is named by its index, in order.
    #[must_use]
    pub fn jobs(&self) -> usize {
        self.jobs.len()
    }

    /// How many processes there ever were. A process is named by its index, in order.
    #[must_use]
    pub fn processes(&self) -> usize {
        self.processes.len()
    }

    /// The main process of a job.
    #[must_use]
    pub fn main(&self, job: usize) -> usize {
        self.jobs[job].main
    }

    /// Whether a process has not exited.
    #[must_use]
    pub fn is_alive(&self, process: usize) -> bool {
        self.processes[process].is_alive()
    }

    /// Whether a process is, or was, one of a job.
    #[must_use]
    pub fn is_of(&self, process: usize, job: usize) -> bool {
        self.processes[process].job == job
    }

    /// How a process ended.
    #[must_use]
    pub fn exit_of(&self, process: usize) -> Option<Exit> {
        match self.processes[process].life {
            Life::Running | Life::Doomed(_) => None,
            Life::Zombie(exit) | Life::Reaped(exit) => Some(exit),
        }
    }

    /// Whether any process is in the group of a job, apart from an exited leader of a process
    /// group.
    #[must_use]
    pub fn is_populated(&self, job: usize) -> bool {
        let cgroup = self.jobs[job].plan.cgroup;
        let mut processes = self.processes.iter();
        processes
            .any(|process| process.job == job && process.member && (cgroup || process.is_alive()))
    }

    /// Whether any process whose exit is watched for a job is alive. It may have left the group.
    #[must_use]
    pub fn awaits_living(&self, job: usize) -> bool {
        let mut processes = self
            .registrations
            .iter()
            .filter_map(|(_, registered)| registered.process.filter(|_| registered.job == job));
        processes.any(|process| self.is_alive(process))
    }

    /// How often a kill of all processes of a job was requested.
    #[must_use]
    pub fn kills(&self, job: usize) -> usize {
        self.jobs[job].kills
    }

    /// The final report of a job, once it was emitted.
    #[must_use]
    pub fn report(&self, job: usize) -> Option<&Arc<Report>> {
        self.jobs[job].report.as_ref()
    }

    /// What is held.
    #[must_use]
    pub fn held(&self) -> Held {
        let unexcused =
            |job: &JobState| job.report.as_ref().is_none_or(|report| report.problems.is_empty());
        let zombies = self.jobs.iter().filter(|job| {
            matches!(self.processes[job.main].life, Life::Zombie(_)) && unexcused(job)
        });
        let groups = self.jobs.iter().filter(|job| {
            let left = job.report.as_ref().is_some_and(|report| report.cgroup_left.is_some());
            job.plan.cgroup && !job.removed && !left
        });
        Held {
            processes: Rc::strong_count(&self.process_handles) - 1,
            zombies: zombies.count(),
            groups: groups.count(),
            registrations: self.registrations.len(),
            watches: self.watches.len(),
            triggers: Rc::strong_count(&self.trigger_handles) - 1,
            logs: self.logs.len(),
        }
    }

    /// A process forks, if it can. Returns whether it did.
    pub fn fork(&mut self, process: usize, stubborn: bool) -> bool {
        if !self.acts(process) {
            return false;
        }
        let ProcessState { job, member, .. } = self.processes[process];
        let life = Life::Running;
        self.processes.push(ProcessState { job, life, member, stubborn, pending: None });
        true
    }

    /// A new process is moved into the group of a job. Returns whether there is a group.
    pub fn enter(&mut self, job: usize) -> bool {
        if self.jobs[job].removed || !self.jobs[job].plan.cgroup {
            return false;
        }
        let (life, stubborn) = (Life::Running, false);
        self.processes.push(ProcessState { job, life, member: true, stubborn, pending: None });
        true
    }

    /// A process exits, if it can. With `late`, it leaves its group later, by
    /// [`leave`](Self::leave), as it does since Linux 6.19.
    pub fn exit(&mut self, process: usize, code: u8, late: bool) -> bool {
        let acts = self.acts(process);
        if acts {
            self.end(process, Exit::Code(code.into()), late);
        }
        acts
    }

    /// A process that was sent a fatal signal dies of it.
    pub fn die(&mut self, process: usize, late: bool) -> bool {
        let Life::Doomed(exit) = self.processes[process].life else { return false };
        self.end(process, exit, late);
        true
    }

    /// A process that has exited leaves its group.
    pub fn leave(&mut self, process: usize) -> bool {
        let leaves = !self.is_alive(process) && self.processes[process].member;
        if leaves {
            self.leave_group(process);
        }
        leaves
    }

    /// A privileged process moves itself out of its cgroup, or to another process group.
    pub fn escape(&mut self, process: usize) -> bool {
        let escapes = self.acts(process) && self.processes[process].member;
        if escapes {
            self.leave_group(process);
        }
        escapes
    }

    /// A process is killed because it ran out of memory.
    pub fn out_of_memory(&mut self, process: usize, cause: OomCause) -> bool {
        let ProcessState { job, member, .. } = self.processes[process];
        let state = &mut self.jobs[job];
        if !member || !state.plan.cgroup || !state.plan.memory || state.removed {
            return false;
        }
        if !self.deliver_signal(process, Signal::KILL) {
            return false;
        }
        let state = &mut self.jobs[job];
        state.oom_kills += 1;
        match cause {
            OomCause::Job => state.oom_own += 1,
            OomCause::Ancestor => self.met_above += 1,
            OomCause::System => {}
        }
        self.change(job, JobSource::MemoryEvents);
        true
    }

    /// The kernel has done what was last written to cgroup.freeze.
    pub fn finish_freeze(&mut self, job: usize) -> bool {
        let state = &mut self.jobs[job];
        if state.frozen == state.freeze {
            return false;
        }
        state.frozen = state.freeze;
        if !state.frozen {
            for process in 0..self.processes.len() {
                if self.processes[process].job == job
                    && let Some(signal) = self.processes[process].pending.take()
                {
                    self.deliver_signal(process, signal);
                }
            }
        }
        self.change(job, JobSource::GroupEvents);
        true
    }

    /// The processes of a job stall. Returns whether that is watched.
    pub fn stall(&mut self, job: usize) -> bool {
        let triggers: Vec<Key> = self
            .registrations
            .iter()
            .filter(|(_, registered)| registered.job == job && registered.process.is_none())
            .map(|(key, _)| key)
            .collect();
        for key in &triggers {
            self.make_ready(*key);
        }
        !triggers.is_empty()
    }

    /// A descriptor is reported as ready without a reason.
    pub fn report_ready(&mut self, which: usize) -> bool {
        let keys: Vec<Key> = self.registrations.iter().map(|(key, _)| key).collect();
        if keys.is_empty() {
            return false;
        }
        self.make_ready(keys[which % keys.len()]);
        true
    }

    fn make_ready(&mut self, key: Key) {
        if let Some(registered) = self.registrations.get_mut(key) {
            registered.ready = true;
        }
    }

    /// Whether a process can do something by itself.
    fn acts(&self, process: usize) -> bool {
        let process = &self.processes[process];
        let frozen = process.member && self.jobs[process.job].frozen;
        process.life == Life::Running && !frozen
    }

    /// Returns whether the process was alive.
    fn deliver_signal(&mut self, process: usize, signal: Signal) -> bool {
        let frozen =
            self.processes[process].member && self.jobs[self.processes[process].job].frozen;
        let state = &mut self.processes[process];
        let deadly = signal == Signal::KILL || (signal == Signal::TERM && !state.stubborn);
        match state.life {
            Life::Running if deadly && (signal == Signal::KILL || !frozen) => {
                state.life = Life::Doomed(Exit::Signal { signal, core_dumped: false });
            }
            Life::Running if deadly => state.pending = Some(signal),
            Life::Running | Life::Doomed(_) => {}
            Life::Zombie(_) | Life::Reaped(_) => return false,
        }
        true
    }

    fn end(&mut self, process: usize, exit: Exit, late: bool) {
        let is_main = self.jobs[self.processes[process].job].main == process;
        let state = &mut self.processes[process];
        // A process that is not the main one is reaped at once, as by init.
        state.life = if is_main { Life::Zombie(exit) } else { Life::Reaped(exit) };
        if !late && state.member {
            self.leave_group(process);
        }
        let watching = self.registrations.iter();
        let keys: Vec<Key> = watching
            .filter(|(_, registered)| registered.process == Some(process))
            .map(|(key, _)| key)
            .collect();
        for key in keys {
            self.make_ready(key);
        }
    }

    fn leave_group(&mut self, process: usize) {
        self.processes[process].member = false;
        let job = self.processes[process].job;
        if !self.is_populated(job) {
            self.change(job, JobSource::GroupEvents);
        }
    }

    /// An interface file changes, which its watches will report.
    fn change(&mut self, job: usize, file: JobSource) {
        for watch in &mut self.watches {
            if watch.job == job && matches!(watch.source, Source::Job(_, source) if source == file)
            {
                watch.changed = true;
            }
        }
    }

    fn members_of(&self, job: usize) -> Vec<usize> {
        let living = self
            .processes
            .iter()
            .enumerate()
            .filter(|(_, process)| process.job == job && process.member && process.is_alive());
        living.map(|(index, _)| index).collect()
    }

    pub(super) fn notices(&self) -> Vec<Notice> {
        let ready = self.registrations.iter().filter(|(_, registered)| registered.ready);
        let ready = ready.map(|(key, registered)| Notice::Ready {
            registration: Registration(key),
            source: registered.source,
            priority: registered.process.is_none(),
        });
        let changed = self.watches.iter().filter(|watch| watch.changed);
        ready.chain(changed.map(|watch| Notice::Changed(watch.source))).collect()
    }

    /// Marks a notice as delivered.
    pub(super) fn taken(&mut self, notice: Notice) {
        match notice {
            Notice::Ready { registration, .. } => {
                if let Some(registered) = self.registrations.get_mut(registration.0) {
                    registered.ready = false;
                }
            }
            Notice::Changed(source) => {
                for watch in self.watches.iter_mut().filter(|watch| watch.source == source) {
                    watch.changed = false;
                }
            }
            Notice::WatchLost(_) | Notice::Overflow | Notice::Woken => {}
        }
    }

    fn deregister(&mut self, registration: Registration) {
        let registered = self.registrations.remove(registration.0);
        assert!(registered.is_some(), "a registration was removed twice");
    }

    fn check_exited(&mut self, job: usize, exit: Exit) {
        let actual = self.exit_of(self.jobs[job].main);
        assert!(
            actual == Some(exit) || exit == Exit::Unknown && self.failures > 0,
            "{exit:?} was reported instead of {actual:?}"
        );
        let before = self.jobs[job].exited.replace(exit);
        assert_eq!(before, None, "Exited was reported twice");
    }

    /// Checks what holds at the end of every job.
    fn check_finished(&mut self, job: usize, report: &Arc<Report>) {
        let (populated, state) = (self.is_populated(job), &self.jobs[job]);
        let excused = !report.problems.is_empty();
        assert_eq!(state.exited, Some(report.exit), "Finished without an Exited that agrees");
        let left = state.plan.end == EndPolicy::LeaveRest && report.stopped_by.is_none();
        assert!(!populated || left || excused, "finished while populated: {report:?}");
        let reaped = matches!(self.processes[state.main].life, Life::Reaped(_));
        assert!(reaped || excused, "the main process was not reaped: {report:?}");
        let in_place = state.plan.cgroup && !state.removed;
        assert_eq!(report.cgroup_left.is_some(), in_place, "{report:?}");
        // What was left may have exited since.
        let kept = populated || left || excused;
        assert!(!in_place || kept, "an empty cgroup was left: {report:?}");
        assert!(!report.killed || state.kills > 0, "nothing was killed: {report:?}");
        assert!(report.killed || !state.killed || self.failures > 0, "killed: {report:?}");
        let registered = self.registrations.iter().any(|(_, registered)| registered.job == job);
        let watched = self.watches.iter().any(|watch| watch.job == job);
        assert!(!registered && !watched, "a finished job still holds something");
        let ends = state.logs.map(|log| {
            let log = self.logs.get(log?).expect("the logs of a job that was not removed");
            let end = log.end.expect("the logs are finished before the job");
            assert!(end.is_some() || excused, "the end of a log is not known");
            end
        });
        let bytes = ends.map(Option::unwrap_or_default);
        assert_eq!([report.output_bytes, report.error_bytes], bytes);
        self.jobs[job].report = Some(Arc::clone(report));
    }
}

impl System for SimulatedSystem {
    type Process = SimulatedProcess;
    type Group = SimulatedGroup;
    type Trigger = SimulatedTrigger;
    type Launched = SimulatedLaunch;

    fn now(&self) -> Instant {
        self.now
    }

    fn emit(&mut self, event: Event) {
        match &event {
            Event::Exited { job, exit, .. } => {
                let job = self.job_of(*job);
                assert!(self.jobs[job].report.is_none(), "an event after Finished");
                self.check_exited(job, *exit);
            }
            Event::Finished { job, report, .. } => {
                let job = self.job_of(*job);
                assert!(self.jobs[job].report.is_none(), "Finished was reported twice");
                self.check_finished(job, report);
            }
            Event::Oom { job, .. }
            | Event::Pressure { job, .. }
            | Event::Frozen { job, .. }
            | Event::Thawed { job, .. } => {
                let state = &self.jobs[self.job_of(*job)];
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

    fn launched_process(launched: &SimulatedLaunch) -> &SimulatedProcess {
        launched.process.as_ref().expect("the process of a launch that was not taken over")
    }

    fn take_over(&mut self, mut launched: SimulatedLaunch) -> Adopted<Self> {
        let job = launched.job;
        let process = launched.process.take().expect("a launch is taken over once");
        let JobState { id, plan, .. } = self.jobs[job];
        let policies = Policies {
            end: plan.end,
            stop_signal: Signal::TERM,
            grace: plan.grace,
            time_limit: plan.time_limit,
            detached: false,
            keep_log: false,
            accounting: plan.accounting,
        };
        let moment = (self.now, SystemTime::UNIX_EPOCH);
        let record = Record::new(id, 1, moment, policies);
        let mut logs = [None, None];
        for log in logs.iter_mut().take(plan.logs) {
            *log = Some(self.logs.insert(LogState { job, end: None }));
        }
        self.jobs[job].logs = logs;
        let group = SimulatedGroup { job, cgroup: plan.cgroup };
        Adopted { record, process, group, stdin: None, logs }
    }

    fn watch_exit(
        &mut self,
        process: &SimulatedProcess,
        source: Source,
    ) -> io::Result<Registration> {
        let job = self.processes[process.index].job;
        self.called(SystemCall::WatchExit, job)?;
        let ready = !self.is_alive(process.index);
        let process = Some(process.index);
        let key = self.registrations.insert(Registered { source, job, process, ready });
        Ok(Registration(key))
    }

    fn unwatch_exit(&mut self, process: &SimulatedProcess, registration: Registration) {
        let registered = self.registrations.get(registration.0);
        let registered = registered.map(|registered| registered.process);
        assert_eq!(registered, Some(Some(process.index)), "a watch of another process");
        self.deregister(registration);
    }

    fn wait(
        &mut self,
        process: &SimulatedProcess,
        reap: Reap,
    ) -> io::Result<Option<(Exit, Usage)>> {
        let called = self.called(SystemCall::Wait, self.processes[process.index].job);
        let exit = match self.processes[process.index].life {
            Life::Running | Life::Doomed(_) => None,
            Life::Zombie(exit) => Some(exit),
            Life::Reaped(_) => return Err(Errno::CHILD.into()),
        };
        if let Err(error) = called {
            if Errno::from_io_error(&error) == Some(Errno::CHILD) {
                // Nobody can reap a process that is alive.
                let Some(exit) = exit else { return Ok(None) };
                self.processes[process.index].life = Life::Reaped(exit);
            }
            return Err(error);
        }
        let Some(exit) = exit else { return Ok(None) };
        match reap {
            Reap::Peek => {}
            Reap::Now => {
                let watched = self
                    .registrations
                    .iter()
                    .any(|(_, registered)| registered.process == Some(process.index));
                assert!(!watched, "a process is reaped while its exit is watched");
                self.processes[process.index].life = Life::Reaped(exit);
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
        Some(match self.processes[process.index].life {
            Life::Reaped(exit) if self.tells_exit => exit,
            _ => Exit::Unknown,
        })
    }

    fn signal(&mut self, process: &SimulatedProcess, signal: Signal) -> io::Result<()> {
        self.called(SystemCall::Signal, self.processes[process.index].job)?;
        self.deliver_signal(process.index, signal);
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
        for process in self.members_of(group.job) {
            self.deliver_signal(process, signal);
        }
        self.deliver_signal(main.index, signal);
        Ok(())
    }

    fn kill(&mut self, group: &SimulatedGroup, _: &SimulatedProcess) -> Result<()> {
        self.jobs[group.job].kills += 1;
        self.called(SystemCall::Kill, group.job).map_err(Error::path("kill", path(group)))?;
        for process in self.members_of(group.job) {
            self.jobs[group.job].killed |= self.deliver_signal(process, Signal::KILL);
        }
        Ok(())
    }

    fn populated(&mut self, group: &SimulatedGroup, _: &SimulatedProcess) -> Result<bool> {
        self.called(SystemCall::Populated, group.job).map_err(Error::path("read", path(group)))?;
        Ok(self.is_populated(group.job))
    }

    fn members(
        &mut self,
        group: &SimulatedGroup,
        _: &SimulatedProcess,
        most: usize,
    ) -> Result<Vec<SimulatedProcess>> {
        self.called(SystemCall::Members, group.job).map_err(Error::path("list", path(group)))?;
        let members = self.members_of(group.job).into_iter().take(most);
        Ok(members.map(|process| self.handle(process)).collect())
    }

    fn freeze(&mut self, group: &SimulatedGroup, freeze: bool) -> Result<()> {
        self.called(SystemCall::Freeze, group.job).map_err(Error::path("freeze", path(group)))?;
        self.jobs[group.job].freeze = freeze;
        Ok(())
    }

    fn frozen(&mut self, group: &SimulatedGroup) -> Result<bool> {
        self.called(SystemCall::Frozen, group.job).map_err(Error::path("read", path(group)))?;
        Ok(self.jobs[group.job].frozen)
    }

    fn read(&mut self, group: &SimulatedGroup, file: &str) -> Result<Option<String>> {
        if !group.cgroup {
            return Ok(None);
        }
        self.called(SystemCall::Read, group.job).map_err(Error::path("read", path(group)))?;
        let JobState { plan, oom_own, oom_kills, .. } = &self.jobs[group.job];
        Ok(match file {
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
            self.known_above = self.met_above;
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
        let populated = group.cgroup && self.is_populated(group.job);
        let removed = called.and(if populated { Err(Errno::BUSY.into()) } else { Ok(()) });
        removed.map_err(Error::path("remove cgroup", path(group)))?;
        assert!(!self.jobs[group.job].removed, "a group was removed twice");
        self.jobs[group.job].removed = true;
        Ok(true)
    }

    fn path(group: &SimulatedGroup) -> Option<PathBuf> {
        group.cgroup.then(|| path(group))
    }

    fn needs_leader(group: &SimulatedGroup) -> bool {
        !group.cgroup
    }

    fn watch_file(&mut self, group: &SimulatedGroup, file: &str, source: Source) -> io::Result<()> {
        if !group.cgroup || file == "memory.events" && !self.jobs[group.job].plan.memory {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.called(SystemCall::WatchFile, group.job)?;
        assert!(self.watches.iter().all(|watch| watch.source != source), "a second watch");
        self.watches.push(Watch { source, job: group.job, changed: false });
        self.past.push(source);
        Ok(())
    }

    fn unwatch_file(&mut self, source: Source) {
        let place = self.watches.iter().position(|watch| watch.source == source);
        self.watches.swap_remove(place.expect("a watch is removed once"));
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
        let registration = Registration(self.registrations.insert(registered));
        Ok((registration, SimulatedTrigger { _open: Rc::clone(&self.trigger_handles) }))
    }

    fn unwatch_pressure(&mut self, _: SimulatedTrigger, registration: Registration) {
        self.deregister(registration);
    }

    fn fired(&mut self, _: &mut SimulatedTrigger, priority: bool) -> bool {
        priority
    }

    fn finish_log(&mut self, log: Key) -> Result<u64> {
        let job = self.logs.get(log).expect("a log that was not removed").job;
        let called = self.called(SystemCall::FinishLog, job);
        let state = self.logs.get_mut(log).expect("a log that was not removed");
        assert!(!matches!(state.end, Some(Some(_))), "a log was finished twice");
        let found = called.map(|()| 7 + state.job as u64);
        state.end = Some(found.as_ref().ok().copied());
        found.map_err(Error::log("read the end of log", "log"))
    }

    fn remove_log(&mut self, log: Key, _: bool) -> Result<()> {
        let removed = self.logs.remove(log).expect("a log is removed once");
        self.called(SystemCall::RemoveLog, removed.job).map_err(Error::log("remove log", "log"))
    }
}

fn path(group: &SimulatedGroup) -> PathBuf {
    PathBuf::from(format!("/simulated/{}", group.job))
}
