//! Owns [`SimulatedKernel`]: the processes and the groups of simulated jobs, and what can happen to
//! them.
//!
//! Invariant: it does by itself only what a kernel does at once. The caller decides when a killed
//! process dies, when a freeze is done and when a notice arrives. Compiled only for the fuzzer and
//! for tests. Knows nothing of what a host may do.

// A broken promise has to stop the fuzzer.
#![allow(clippy::expect_used)]

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::command::{EndPolicy, Signal};
use crate::driver::{JobSource, Notice, Registration, Source};
use crate::event::{Exit, OomCause, Report};
use crate::id::{JobId, Key, Slots};

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
    /// Whether its output is a terminal, and it has one log.
    pub terminal: bool,
    /// Whether it survives its host. Then it has a cgroup and no terminal.
    pub survives: bool,
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
            terminal: false,
            survives: false,
        }
    }
}

impl Plan {
    /// How many logs it has.
    pub(super) fn logs(&self) -> usize {
        if self.terminal { 1 } else { self.logs }
    }
}

/// How many bytes a terminal holds, and how many are copied at once.
const ROOM: u64 = 12;
pub(super) const COPIED_AT_ONCE: u64 = 5;

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
    /// Terminals.
    pub terminals: usize,
    /// Logs.
    pub logs: usize,
}

/// The state of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Running,
    /// A fatal signal was delivered.
    Doomed(Exit),
    /// It has exited, and its parent has not waited for it.
    Zombie(Exit),
    Reaped(Exit),
}

#[derive(Debug)]
pub(super) struct ProcessState {
    pub(super) job: usize,
    pub(super) life: Life,
    /// Whether its group still counts it.
    pub(super) member: bool,
    pub(super) stubborn: bool,
    /// The signal on which a frozen process will act when it is thawed.
    pub(super) pending: Option<Signal>,
}

impl ProcessState {
    pub(super) fn is_alive(&self) -> bool {
        matches!(self.life, Life::Running | Life::Doomed(_))
    }
}

/// A job as the system knows it. Its group has the same index.
#[derive(Debug)]
pub(super) struct JobState {
    pub(super) id: JobId,
    pub(super) plan: Plan,
    pub(super) main: usize,
    pub(super) logs: [Option<Key>; 2],
    /// Which of the files of the logs are there.
    pub(super) files: [bool; 2],
    /// What its group has of it for the next host.
    pub(super) record: Option<Vec<u8>>,
    /// Whether the main process is a child of the host.
    pub(super) is_child: bool,
    /// Whether nobody can tell this host how the main process has ended.
    pub(super) may_be_unknown: bool,
    /// What earlier hosts have told of its end.
    pub(super) told: Option<Exit>,
    pub(super) told_report: Option<Arc<Report>>,
    /// Whether an earlier host has finished it.
    pub(super) was_finished: bool,
    /// What was last written to cgroup.freeze, and what the kernel has done.
    pub(super) freeze: bool,
    pub(super) frozen: bool,
    pub(super) removed: bool,
    /// How often a kill of all processes was requested, and how often by earlier hosts.
    pub(super) kills: usize,
    pub(super) earlier_kills: usize,
    /// Whether any of them has reached a process.
    pub(super) killed: bool,
    pub(super) oom_kills: u64,
    pub(super) oom_own: u64,
    /// What has become of the bytes that were printed on the terminal.
    pub(super) printed: u64,
    pub(super) unread: u64,
    pub(super) copied: u64,
    pub(super) lost: u64,
    pub(super) exited: Option<Exit>,
    pub(super) report: Option<Arc<Report>>,
}

#[derive(Debug)]
pub(super) struct Registered {
    pub(super) source: Source,
    pub(super) job: usize,
    /// The process, or `None` for a pressure trigger or a terminal.
    pub(super) process: Option<usize>,
    pub(super) ready: bool,
}

#[derive(Debug)]
pub(super) struct Watch {
    pub(super) source: Source,
    pub(super) job: usize,
    pub(super) changed: bool,
}

#[derive(Debug)]
pub(super) struct LogState {
    pub(super) job: usize,
    /// Which of the job's logs it is.
    pub(super) index: usize,
    /// Where it ends, once it was finished; `Some(None)` if that could not be determined.
    pub(super) end: Option<Option<u64>>,
}

/// A process of the simulated system, by its index.
#[derive(Debug)]
pub(crate) struct SimulatedProcess {
    pub(super) index: usize,
    /// How it has ended, if that was all that this host has found of it.
    pub(super) past: Option<Exit>,
    /// Counts the descriptors that are open.
    _open: Rc<()>,
}

/// A pressure trigger of the simulated system.
#[derive(Debug)]
pub(crate) struct SimulatedTrigger {
    /// Counts the descriptors that are open.
    pub(super) _open: Rc<()>,
}

/// The terminal of a job, by the job's index.
#[derive(Debug)]
pub(crate) struct SimulatedTerminal {
    pub(super) job: usize,
    /// Counts the descriptors that are open.
    pub(super) open: Rc<()>,
}

/// The group of a job, by the job's index.
#[derive(Debug)]
pub(crate) struct SimulatedGroup {
    pub(super) job: usize,
    pub(super) cgroup: bool,
}

/// Everything but the host.
#[derive(Debug)]
pub struct SimulatedKernel {
    pub(super) now: Instant,
    pub(super) booted: Instant,
    pub(super) processes: Vec<ProcessState>,
    pub(super) jobs: Vec<JobState>,
    pub(super) registrations: Slots<Registered>,
    pub(super) watches: Vec<Watch>,
    /// The sources of all watches that were ever made.
    pub(super) past: Vec<Source>,
    pub(super) logs: Slots<LogState>,
    /// How often the limits above all jobs were exceeded.
    pub(super) met_above: u64,
    process_handles: Rc<()>,
    pub(super) trigger_handles: Rc<()>,
    pub(super) terminal_handles: Rc<()>,
}

impl SimulatedKernel {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            now,
            booted: now,
            processes: Vec::new(),
            jobs: Vec::new(),
            registrations: Slots::new(),
            watches: Vec::new(),
            past: Vec::new(),
            logs: Slots::new(),
            met_above: 0,
            process_handles: Rc::new(()),
            trigger_handles: Rc::new(()),
            terminal_handles: Rc::new(()),
        }
    }

    /// Starts the main process of a job.
    pub(super) fn start(&mut self, plan: Plan) -> usize {
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
            files: [false; 2],
            record: None,
            is_child: true,
            may_be_unknown: false,
            told: None,
            told_report: None,
            was_finished: false,
            freeze: false,
            frozen: false,
            removed: false,
            kills: 0,
            earlier_kills: 0,
            killed: false,
            oom_kills: 0,
            oom_own: 0,
            printed: 0,
            unread: 0,
            copied: 0,
            lost: 0,
            exited: None,
            report: None,
        });
        job
    }

    pub(super) fn handle(&self, index: usize) -> SimulatedProcess {
        SimulatedProcess { index, past: None, _open: Rc::clone(&self.process_handles) }
    }

    pub(super) fn job_of(&self, id: JobId) -> usize {
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

    /// How often this host has requested a kill of all processes of a job.
    #[must_use]
    pub fn kills(&self, job: usize) -> usize {
        self.jobs[job].kills - self.jobs[job].earlier_kills
    }

    /// Whether an earlier host has finished a job.
    #[must_use]
    pub fn was_finished(&self, job: usize) -> bool {
        self.jobs[job].was_finished
    }

    /// Whether any log of a job that was removed is there still.
    #[must_use]
    pub fn has_logs(&self, job: usize) -> bool {
        self.jobs[job].files != [false; 2]
    }

    /// How many processes of a job were killed because it ran out of memory, and how often its own
    /// limit was exceeded.
    #[must_use]
    pub fn oom(&self, job: usize) -> (u64, u64) {
        (self.jobs[job].oom_kills, self.jobs[job].oom_own)
    }

    /// The parent of a main process whose host has died waits for it, once it has exited. Returns
    /// whether it has.
    pub fn reap(&mut self, job: usize) -> bool {
        let main = self.jobs[job].main;
        let Life::Zombie(exit) = self.processes[main].life else { return false };
        let reaps = !self.jobs[job].is_child;
        if reaps {
            self.processes[main].life = Life::Reaped(exit);
            // The pidfd is ready once more.
            self.exit_noticed(main);
        }
        reaps
    }

    /// The host has died. All that it held of the system is gone, and jobs that do not survive it
    /// are swept. With `exec`, it has executed another program, and keeps its children.
    pub(super) fn host_died(&mut self, exec: bool) {
        self.registrations = Slots::new();
        self.logs = Slots::new();
        self.watches.clear();
        self.past.clear();
        for job in 0..self.jobs.len() {
            let state = &mut self.jobs[job];
            state.logs = [None, None];
            state.is_child &= exec;
            // What the dead host has killed need not be in the report of another.
            (state.earlier_kills, state.killed) = (state.kills, false);
            state.told = state.exited.take().or(state.told);
            state.told_report = state.report.take().or(state.told_report.take());
            if state.record.is_none() {
                (state.removed, state.unread, state.files) = (true, 0, [false; 2]);
                self.end_all(job);
            }
        }
    }

    /// All processes of a job are killed and reaped.
    fn end_all(&mut self, job: usize) {
        let killed = Exit::Signal { signal: Signal::KILL, core_dumped: false };
        for process in self.processes.iter_mut().filter(|process| process.job == job) {
            process.member = false;
            process.life = match process.life {
                Life::Running | Life::Doomed(_) => Life::Reaped(killed),
                Life::Zombie(exit) | Life::Reaped(exit) => Life::Reaped(exit),
            };
        }
    }

    /// The jobs that have survived their hosts, with their records.
    pub(super) fn recorded(&self) -> Vec<(usize, Vec<u8>)> {
        let jobs = self.jobs.iter().enumerate().filter(|(_, job)| !job.removed);
        jobs.filter_map(|(index, job)| Some((index, job.record.clone()?))).collect()
    }

    /// What a host finds of a main process: itself, as long as it is in the group of its job and
    /// nobody has waited for it, or only that it has ended.
    pub(super) fn find_main(&mut self, job: usize, known: Option<Exit>) -> SimulatedProcess {
        let main = self.jobs[job].main;
        let is_zombie = matches!(self.processes[main].life, Life::Zombie(_));
        let is_there = match known {
            Some(_) => is_zombie && self.jobs[job].is_child,
            // A zombie was in its group, as /proc tells.
            None => is_zombie || self.processes[main].is_alive() && self.processes[main].member,
        };
        // Otherwise, an earlier host has found out what it could.
        if known.is_none() {
            self.jobs[job].may_be_unknown = !is_there;
        }
        let past = if is_there { None } else { Some(known.unwrap_or(Exit::Unknown)) };
        SimulatedProcess { past, ..self.handle(main) }
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
            terminals: Rc::strong_count(&self.terminal_handles) - 1,
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

    /// A process prints on the terminal of its job as many bytes as there is room for. Returns
    /// whether it did.
    pub fn print(&mut self, process: usize, bytes: u64) -> bool {
        let job = self.processes[process].job;
        let state = &mut self.jobs[job];
        let count = bytes.min(ROOM - state.unread);
        // Once the host's end is closed, nothing can be printed any more.
        let open = state.plan.terminal && state.report.is_none() && !state.removed;
        if !self.acts(process) || !open || count == 0 {
            return false;
        }
        let state = &mut self.jobs[job];
        state.printed += count;
        state.unread += count;
        let terminals = self.registrations.iter().filter(|(_, registered)| {
            registered.job == job
                && matches!(registered.source, Source::Job(_, JobSource::Terminal))
        });
        let keys: Vec<Key> = terminals.map(|(key, _)| key).collect();
        for key in keys {
            self.make_ready(key);
        }
        true
    }

    /// How many bytes are in the terminal of a job.
    #[must_use]
    pub fn unread(&self, job: usize) -> u64 {
        self.jobs[job].unread
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
            .filter(|(_, registered)| {
                registered.job == job
                    && matches!(registered.source, Source::Job(_, JobSource::Pressure(_)))
            })
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
    pub(super) fn deliver_signal(&mut self, process: usize, signal: Signal) -> bool {
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
        self.exit_noticed(process);
    }

    /// Whoever watches for the exit of a process is to be told.
    fn exit_noticed(&mut self, process: usize) {
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

    pub(super) fn members_of(&self, job: usize) -> Vec<usize> {
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

    pub(super) fn deregister(&mut self, registration: Registration) {
        let registered = self.registrations.remove(registration.0);
        assert!(registered.is_some(), "a registration was removed twice");
    }
}
