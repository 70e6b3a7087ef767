//! Drives jobs over a simulated system through arbitrary sequences of what host, jobs, kernel and
//! failures can do, and checks what is reported against a plain model.
//!
//! The host dies at any moment, in the middle of its calls included, and the next one takes over
//! the jobs that survive it.
//!
//! The simulator itself checks what holds for every job: Exited once, Finished once and last, never
//! while populated, nothing held afterwards. The model knows why a job ends, when its deadlines
//! are, and what must be reported about freezes and about running out of memory. It also checks
//! that no wake-up is lost, and that no host loses a job of an earlier one, or what was asked of
//! it.

#![no_main]

use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use jobworker::simulator::{Held, JobEngine, Meddling, Plan};
use jobworker::{EndPolicy, Event, Exit, OomCause, Phase, Signal, Stallable, StopCause};
use libfuzzer_sys::fuzz_target;

const MOST_OPERATIONS: usize = 200;
const MOST_JOBS: usize = 6;
const MOST_PROCESSES: usize = 200;

#[derive(Debug)]
struct Input {
    tells_exit: bool,
    operations: Vec<Operation>,
}

impl<'a> Arbitrary<'a> for Input {
    /// Uses every byte: a derived list ends at each element with a probability of one half.
    fn arbitrary(bytes: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let tells_exit = bytes.arbitrary()?;
        let mut operations = Vec::new();
        while !bytes.is_empty() && operations.len() < MOST_OPERATIONS {
            operations.push(bytes.arbitrary()?);
        }
        Ok(Self { tells_exit, operations })
    }
}

#[derive(Arbitrary, Debug)]
enum Operation {
    Spawn(Start),
    // The job.
    Fork { process: u8, count: u8, stubborn: bool },
    Exit { process: u8, code: u8, late: bool },
    Escape(u8),
    Print { process: u8, bytes: u8 },
    // The kernel.
    Die { process: u8, late: bool },
    Leave(u8),
    OutOfMemory { process: u8, cause: u8 },
    FinishFreeze(u8),
    Stall(u8),
    ReportReady(u8),
    Deliver(u8),
    GoOn,
    DeliverLate(u8),
    Overflow,
    Reap(u8),
    Settle,
    Advance(u8),
    AdvanceToDeadline,
    // The host.
    Stop { job: u8, within: Option<u8> },
    Kill(u8),
    Signal { job: u8, main: bool, signal: u8 },
    Freeze { job: u8, freeze: bool },
    WatchPressure { job: u8, resource: u8 },
    UnwatchPressure { job: u8, resource: u8 },
    Remove(u8),
    HostDies { exec: bool },
    Recover,
    // Something happens within a call.
    Fail { after: u8, error: u8 },
    Meddle { after: u8, exits: bool },
    HostDiesWithin { after: u8 },
}

#[derive(Arbitrary, Debug)]
struct Start {
    end: u8,
    grace: Option<u8>,
    time_limit: Option<u8>,
    cgroup: u8,
    memory: bool,
    accounting: bool,
    logs: u8,
    stubborn: bool,
    terminal: bool,
    exited: bool,
    survives: bool,
}

/// What the host knows of a job.
struct Job {
    plan: Plan,
    /// It was adopted and not removed.
    known: bool,
    /// It was adopted by an earlier host that has not removed it.
    is_to_be_found: bool,
    /// An earlier host has finished it.
    was_finished: bool,
    exited: bool,
    /// What its main process has left behind is killed.
    cleared: bool,
    finished: bool,
    stopped_by: Option<StopCause>,
    time_limit: Option<Duration>,
    /// Set once it was asked to stop, with the time at which the grace period ends, if it does.
    stopping: Option<Option<Duration>>,
    /// What the last event about a freeze must be in the end, and what it has been so far.
    freeze: Option<bool>,
    last_freeze: Option<bool>,
    /// How many processes were killed because it ran out of memory, and how many of them were
    /// reported.
    oom_kills: u64,
    oom_reported: u64,
    /// Whether the job's own limit was exceeded since the last report.
    oom_own: bool,
}

impl Job {
    fn is_live(&self) -> bool {
        self.known && !self.finished
    }
}

struct World {
    engine: JobEngine,
    now: Duration,
    jobs: Vec<Job>,
}

fn resource(which: u8) -> Stallable {
    [Stallable::Cpu, Stallable::Memory, Stallable::Io][usize::from(which % 3)]
}

impl World {
    fn new(tells_exit: bool) -> Self {
        let mut engine = JobEngine::new();
        engine.system().tells_exit = tells_exit;
        Self { engine, now: Duration::ZERO, jobs: Vec::new() }
    }

    fn failures(&mut self) -> u64 {
        self.engine.system().failures
    }

    /// Whether the host has died in the middle of what it does.
    fn is_dead(&mut self) -> bool {
        self.engine.system().is_dead()
    }

    /// Another host takes the place of one that has died, in the middle of a call or between two.
    fn die(&mut self, exec: bool) {
        let complete = !self.is_dead() && self.failures() == 0;
        for (index, job) in self.jobs.iter().enumerate() {
            if complete && job.plan.survives && job.is_live() {
                let stop = self.engine.stop_of(index);
                assert_eq!(stop.map(|(cause, _)| cause), job.stopped_by, "what was asked is kept");
            }
        }
        self.engine.die(exec);
        for job in &mut self.jobs {
            job.is_to_be_found = job.plan.survives && (job.known || job.is_to_be_found);
            job.known = false;
        }
        self.recover();
    }

    /// Takes over what earlier hosts have left. Returns whether there was anything.
    fn recover(&mut self) -> bool {
        let failures = self.failures();
        let found = self.engine.recover();
        for index in &found {
            let stop = self.engine.stop_of(*index);
            let (kernel, job) = (self.engine.kernel(), &mut self.jobs[*index]);
            let (oom_kills, own) = kernel.oom(*index);
            assert!(!job.known, "a job was found twice");
            *job = Job {
                plan: job.plan,
                known: true,
                is_to_be_found: false,
                was_finished: kernel.was_finished(*index),
                exited: false,
                cleared: false,
                finished: false,
                stopped_by: stop.map(|(cause, _)| cause),
                time_limit: job.time_limit,
                stopping: stop.map(|(_, until)| until),
                freeze: None,
                last_freeze: None,
                oom_kills,
                oom_reported: 0,
                oom_own: own > 0,
            };
        }
        let failed = self.failures() > failures || self.is_dead();
        assert!(failed || !self.jobs.iter().any(|job| job.is_to_be_found), "a job was lost");
        !found.is_empty()
    }

    /// Whether a kill of the whole job was requested, or will be. It has no deadline any more.
    fn is_killed(&mut self, job: usize) -> bool {
        self.jobs[job].cleared || self.engine.kernel().kills(job) > 0
    }

    fn spawn(&mut self, start: &Start) {
        if self.jobs.len() == MOST_JOBS {
            return;
        }
        let seconds = |count: u8| Duration::from_secs(u64::from(count % 16));
        let plan = Plan {
            end: [EndPolicy::KillRest, EndPolicy::WaitAll, EndPolicy::LeaveRest]
                [usize::from(start.end % 3)],
            grace: start.grace.map_or(Duration::MAX, seconds),
            time_limit: start.time_limit.map(seconds),
            cgroup: start.cgroup % 4 > 0,
            memory: start.memory,
            accounting: start.accounting,
            logs: usize::from(start.logs % 3),
            stubborn: start.stubborn,
            terminal: start.terminal,
            survives: start.survives && start.cgroup % 4 > 0 && !start.terminal,
        };
        let (token, failures) = (self.jobs.len(), self.failures());
        let spawned = self.engine.spawn(plan, token, start.exited);
        let excused = self.failures() > failures || self.is_dead();
        assert!(spawned.is_ok() || excused, "{spawned:?}");
        self.jobs.push(Job {
            plan,
            known: spawned.is_ok(),
            is_to_be_found: false,
            was_finished: false,
            exited: false,
            cleared: false,
            finished: false,
            stopped_by: None,
            time_limit: plan.time_limit.map(|limit| self.now + limit),
            stopping: None,
            freeze: None,
            last_freeze: None,
            oom_kills: 0,
            oom_reported: 0,
            oom_own: false,
        });
    }

    fn process(&mut self, process: u8) -> Option<usize> {
        let processes = self.engine.kernel().processes();
        (processes > 0).then(|| usize::from(process) % processes)
    }

    fn job(&self, job: u8) -> Option<usize> {
        (!self.jobs.is_empty()).then(|| usize::from(job) % self.jobs.len())
    }

    /// Checks the result of a request: one about an unknown job must be refused, and any other
    /// error must have a reason.
    fn expect(&mut self, job: usize, asked: jobworker::Result<()>, failures: u64) {
        let unknown = matches!(&asked, Err(error) if JobEngine::is_unknown(error));
        assert_eq!(unknown, !self.jobs[job].known, "{asked:?}");
        let Err(error) = asked else { return };
        assert!(
            unknown
                || self.failures() > failures
                || self.is_dead()
                || error.kind() == jobworker::ErrorKind::State
                || (error.kind() == jobworker::ErrorKind::Unsupported
                    && !self.jobs[job].plan.cgroup),
            "{error:?} without a reason"
        );
    }

    /// The host asks the job to end, by a stop signal if there is a grace period.
    fn request(&mut self, job: usize, cause: StopCause, grace: Option<Duration>, sooner: bool) {
        if !self.jobs[job].is_live() {
            return;
        }
        let (killed, now) = (self.is_killed(job), self.now);
        let job = &mut self.jobs[job];
        job.stopped_by.get_or_insert(cause);
        let Some(grace) = grace else { return };
        let until = (grace < Duration::MAX).then(|| now + grace);
        match &mut job.stopping {
            _ if killed => {}
            None => {
                job.stopping = Some(until);
                // The stop thaws the job without an event.
                if job.freeze == Some(true) {
                    job.freeze = None;
                    job.last_freeze = None;
                }
            }
            Some(current) if sooner => {
                *current = current.into_iter().map(|at| *at).chain(until).min();
            }
            Some(_) => {}
        }
    }

    fn advance(&mut self, time: Duration) {
        let Some(now) = self.now.checked_add(time) else { return };
        self.now = now;
        let mut over = Vec::new();
        for job in 0..self.jobs.len() {
            if !self.jobs[job].is_live() || self.is_killed(job) {
                continue;
            }
            match self.jobs[job].stopping {
                Some(grace) if grace.is_some_and(|at| at <= now) => over.push(job),
                None if self.jobs[job].time_limit.is_some_and(|at| at <= now) => {
                    let grace = self.jobs[job].plan.grace;
                    self.request(job, StopCause::TimeLimit, Some(grace), false);
                }
                _ => {}
            }
        }
        self.engine.advance(time);
        for job in over {
            let dead = self.is_dead();
            assert!(dead || self.engine.kernel().kills(job) > 0, "a grace period without an end");
        }
    }

    fn do_one(&mut self, operation: &Operation) {
        match *operation {
            Operation::Spawn(ref start) => self.spawn(start),
            Operation::Fork { process, count, stubborn } => {
                for _ in 0..=count % 70 {
                    if let Some(process) = self.process(process)
                        && self.engine.kernel().processes() < MOST_PROCESSES
                    {
                        self.engine.kernel().fork(process, stubborn);
                    }
                }
            }
            Operation::Exit { process, code, late } => {
                if let Some(process) = self.process(process) {
                    self.engine.kernel().exit(process, code, late);
                }
            }
            Operation::Escape(process) => {
                if let Some(process) = self.process(process) {
                    self.engine.kernel().escape(process);
                }
            }
            Operation::Print { process, bytes } => {
                if let Some(process) = self.process(process) {
                    self.engine.kernel().print(process, bytes.into());
                }
            }
            Operation::GoOn => {
                self.engine.go_on();
            }
            Operation::Die { process, late } => {
                if let Some(process) = self.process(process) {
                    self.engine.kernel().die(process, late);
                }
            }
            Operation::Leave(process) => {
                if let Some(process) = self.process(process) {
                    self.engine.kernel().leave(process);
                }
            }
            Operation::OutOfMemory { process, cause } => {
                let Some(process) = self.process(process) else { return };
                let causes = [OomCause::Job, OomCause::Ancestor, OomCause::System];
                let cause = causes[usize::from(cause % 3)];
                if self.engine.kernel().out_of_memory(process, cause) {
                    let kernel = self.engine.kernel();
                    let job = (0..kernel.jobs()).find(|job| kernel.is_of(process, *job));
                    let job = &mut self.jobs[job.expect("the process of a job")];
                    if job.is_live() {
                        job.oom_kills += 1;
                        job.oom_own |= cause == OomCause::Job;
                    }
                }
            }
            Operation::Reap(job) => {
                if let Some(job) = self.job(job) {
                    self.engine.kernel().reap(job);
                }
            }
            Operation::HostDies { exec } => self.die(exec),
            Operation::Recover => {
                self.recover();
            }
            Operation::HostDiesWithin { after } => self.meddle(after, Meddling::HostDies),
            Operation::FinishFreeze(job) => {
                if let Some(job) = self.job(job) {
                    self.engine.kernel().finish_freeze(job);
                }
            }
            Operation::Stall(job) => {
                if let Some(job) = self.job(job) {
                    self.engine.kernel().stall(job);
                }
            }
            Operation::ReportReady(which) => {
                self.engine.kernel().report_ready(which.into());
            }
            Operation::Deliver(which) => {
                self.engine.deliver(which.into());
            }
            Operation::DeliverLate(which) => {
                self.engine.deliver_late(which.into());
            }
            Operation::Overflow => self.engine.overflow(),
            Operation::Settle => self.engine.settle(),
            Operation::Advance(seconds) => self.advance(Duration::from_secs(seconds.into()) / 8),
            Operation::AdvanceToDeadline => {
                if let Some(time) = self.engine.next_deadline() {
                    self.advance(time);
                }
            }
            Operation::Fail { after, error } => self.meddle(after, Meddling::Fail(error)),
            Operation::Meddle { after, exits: true } => self.meddle(after, Meddling::Exits),
            Operation::Meddle { after, exits: false } => self.meddle(after, Meddling::Deaths),
            _ => self.ask(operation),
        }
    }

    fn meddle(&mut self, after: u8, meddling: Meddling) {
        let script = &mut self.engine.system().script;
        script.truncate(32);
        script.extend(std::iter::repeat_n(Meddling::Nothing, usize::from(after % 8)));
        script.push_back(meddling);
    }

    /// The host makes a request.
    fn ask(&mut self, operation: &Operation) {
        let failures = self.failures();
        let (Operation::Stop { job, .. }
        | Operation::Kill(job)
        | Operation::Signal { job, .. }
        | Operation::Freeze { job, .. }
        | Operation::WatchPressure { job, .. }
        | Operation::UnwatchPressure { job, .. }
        | Operation::Remove(job)) = *operation
        else {
            return;
        };
        let Some(job) = self.job(job) else { return };
        let engine = &mut self.engine;
        let asked = match *operation {
            Operation::Stop { within, .. } => {
                let within = within.map(|seconds| Duration::from_secs((seconds % 16).into()));
                let grace = within.unwrap_or(self.jobs[job].plan.grace);
                self.request(job, StopCause::Stop, Some(grace), within.is_some());
                let stopped = self.engine.stop(job, within);
                let expected = within == Some(Duration::ZERO)
                    || (grace.is_zero() && self.jobs[job].stopping == Some(Some(self.now)));
                let expected = expected && !self.is_dead();
                if expected && self.jobs[job].is_live() && !self.jobs[job].exited {
                    assert!(self.engine.kernel().kills(job) > 0, "no grace and no kill");
                }
                stopped
            }
            Operation::Kill(_) => {
                self.request(job, StopCause::Kill, None, false);
                let kills = self.engine.kernel().kills(job);
                let killed = self.engine.kill(job);
                if self.jobs[job].is_live() && !self.is_dead() {
                    assert!(self.engine.kernel().kills(job) > kills, "a kill without effect");
                }
                killed
            }
            Operation::Signal { main, signal, .. } => {
                let signal = [Signal::TERM, Signal::KILL, Signal::USR1][usize::from(signal % 3)];
                if main { engine.signal_main(job, signal) } else { engine.signal(job, signal) }
            }
            Operation::Freeze { freeze, .. } => {
                let asked = engine.freeze(job, freeze);
                if asked.is_ok() {
                    self.jobs[job].freeze = Some(freeze);
                    self.jobs[job].last_freeze = None;
                }
                asked
            }
            Operation::WatchPressure { resource: which, .. } => {
                engine.watch_pressure(job, resource(which))
            }
            Operation::UnwatchPressure { resource: which, .. } => {
                engine.unwatch_pressure(job, resource(which))
            }
            _ => {
                let removed = engine.remove(job);
                self.expect(job, removed, failures);
                self.jobs[job].known &= !self.jobs[job].finished;
                return;
            }
        };
        self.expect(job, asked, failures);
    }

    /// Takes every event and checks it against the model.
    fn collect(&mut self) {
        let failures = self.failures();
        while let Some(event) = self.engine.take_event() {
            match event {
                Event::Exited { token, .. } => {
                    let job = &mut self.jobs[token.0];
                    assert!(job.is_live() && !job.exited);
                    job.exited = true;
                    // In a stop, what is left has the rest of the grace period.
                    job.cleared = job.plan.end == EndPolicy::KillRest && job.stopping.is_none();
                }
                Event::Finished { token, report, .. } => {
                    let job = &mut self.jobs[token.0];
                    assert!(job.is_live() && job.exited);
                    job.finished = true;
                    assert_eq!(report.stopped_by, job.stopped_by);
                    if job.was_finished {
                        continue;
                    }
                    assert_eq!(report.oom.is_some(), job.oom_reported > 0);
                    let complete = job.oom_reported == job.oom_kills;
                    assert!(complete || failures > 0, "processes were killed without a report");
                    let excused = failures > 0 || report.exit == Exit::Unknown;
                    assert!(report.problems.is_empty() || excused, "{report:?}");
                }
                Event::Oom { token, kills, cause, .. } => {
                    let job = &mut self.jobs[token.0];
                    assert!(job.is_live());
                    assert!(kills > 0, "an event without a kill");
                    job.oom_reported += kills;
                    assert_eq!(cause == OomCause::Job, job.oom_own, "whose limit was exceeded");
                    job.oom_own = false;
                }
                Event::Frozen { token, .. } => {
                    assert!(self.jobs[token.0].is_live());
                    self.jobs[token.0].last_freeze = Some(true);
                }
                Event::Thawed { token, .. } => {
                    assert!(self.jobs[token.0].is_live());
                    self.jobs[token.0].last_freeze = Some(false);
                }
                Event::Pressure { token, .. } => assert!(self.jobs[token.0].is_live()),
                other => panic!("no event of a job: {other:?}"),
            }
        }
    }

    /// Checks what holds after every operation.
    fn check(&mut self) {
        let mut next: Option<Duration> = None;
        for job in 0..self.jobs.len() {
            let expected = match &self.jobs[job] {
                Job { known: false, .. } => None,
                Job { finished: true, .. } => Some(Phase::Finished),
                Job { exited: true, .. } => Some(Phase::Exited),
                Job { stopping: Some(_), .. } => Some(Phase::Stopping),
                _ if self.engine.kernel().kills(job) > 0 => Some(Phase::Stopping),
                _ => Some(Phase::Running),
            };
            assert_eq!(self.engine.phase(job), expected);
            if self.jobs[job].is_live() && !self.is_killed(job) {
                let job = &self.jobs[job];
                let deadline = job.stopping.unwrap_or(job.time_limit);
                next = next.into_iter().chain(deadline).min();
            }
        }
        let next = next.map(|at| at.saturating_sub(self.now));
        // A job that cannot see its processes looks again, and one whose output cannot be copied
        // tries again, which are no deadlines of the model.
        if !self.engine.looks_again() && !self.engine.copies_again() {
            assert_eq!(self.engine.next_deadline(), next, "the next deadline");
        }
        // Those that are to be ended with the host.
        let attached = |job: &&Job| job.is_live() && !job.plan.survives;
        assert_eq!(self.engine.attached(), self.jobs.iter().filter(attached).count());
    }

    /// Lets the kernel do and report all that is pending, and checks that nothing is lost.
    fn quiet(&mut self) {
        self.engine.system().script.clear();
        self.engine.settle();
        self.collect();
        self.check();
        let failures = self.failures();
        for (index, job) in self.jobs.iter().enumerate().filter(|(_, job)| job.is_live()) {
            let kernel = self.engine.kernel();
            let runs = kernel.is_populated(index) || kernel.awaits_living(index);
            assert!(runs, "job {index} has ended without a report");
            assert!(
                kernel.unread(index) == 0 || failures > 0,
                "output of job {index} was forgotten"
            );
            if failures == 0 {
                assert_eq!(kernel.kills(index), 0, "job {index} was killed and has not ended");
                let told = job.freeze.is_none() || job.freeze == job.last_freeze;
                assert!(told, "a freeze was done without a report");
            }
        }
    }

    /// Kills and removes everything, and checks that nothing is left.
    fn end(mut self) {
        self.quiet();
        loop {
            // What could not be recorded at a removal, the next recovery finds again.
            let more = self.recover();
            self.collect();
            for job in 0..self.jobs.len() {
                self.ask(&Operation::Kill(u8::try_from(job).expect("few jobs")));
            }
            self.engine.settle();
            self.collect();
            for job in 0..self.jobs.len() {
                assert!(!self.jobs[job].is_live(), "job {job} was killed and has not ended");
                self.ask(&Operation::Remove(u8::try_from(job).expect("few jobs")));
            }
            self.check();
            if !more {
                break;
            }
        }
        assert_eq!(self.engine.pending(), 0, "a notice is left");
        assert_eq!(self.engine.kernel().held(), Held::default());
        for job in 0..self.jobs.len() {
            assert!(!self.engine.kernel().has_logs(job), "the log of job {job} is left");
        }
    }
}

fuzz_target!(|input: Input| {
    let mut world = World::new(input.tells_exit);
    for operation in &input.operations {
        world.do_one(operation);
        while world.is_dead() {
            world.die(false);
        }
        world.collect();
        world.check();
    }
    world.end();
});
