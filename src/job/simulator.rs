//! Owns [`JobEngine`], through which the fuzzer drives the jobs: the real [`Registry`] over
//! [`SimulatedSystem`].
//!
//! Invariant: everything but the system is the code that a reactor runs, driven as a reactor drives
//! it. Compiled only for the fuzzer and for tests. Knows nothing of what they expect.

// A broken promise has to stop the fuzzer.
#![allow(clippy::expect_used, clippy::panic)]

use std::time::Duration;

use crate::command::Signal;
use crate::driver::{Notice, Source};
use crate::error::{Error, JobError, Result};
use crate::event::{Event, Phase, Stall, Stallable, StopCause};
use crate::id::{JobId, Token};
use crate::job::job::Job;
use crate::job::registry::Registry;
use crate::job::simulated::SimulatedSystem;
use crate::job::simulated_kernel::{Plan, SimulatedKernel};
use crate::job::system::System;

/// The jobs over the simulated system, as a reactor would drive them.
#[derive(Debug)]
pub struct JobEngine {
    registry: Registry<SimulatedSystem>,
    system: SimulatedSystem,
}

impl Default for JobEngine {
    fn default() -> Self {
        Self::new()
    }
}

impl JobEngine {
    /// An engine without jobs.
    #[must_use]
    pub fn new() -> Self {
        Self { registry: Registry::new(), system: SimulatedSystem::new() }
    }

    /// The system.
    pub fn system(&mut self) -> &mut SimulatedSystem {
        &mut self.system
    }

    /// What the system is one of.
    pub fn kernel(&mut self) -> &mut SimulatedKernel {
        &mut self.system.kernel
    }

    /// Starts a job. Its index is the number of jobs before it, whether or not it is adopted. With
    /// `exited`, its main process exits before the job is adopted.
    ///
    /// # Errors
    /// When a call of the system fails.
    pub fn spawn(&mut self, plan: Plan, token: usize, exited: bool) -> Result<JobId> {
        let launched = self.system.launch(plan);
        if exited {
            self.system.kernel.exit(self.system.kernel.main(launched.job), 0, false);
        }
        let adopted = self.registry.adopt(launched, Token(token), &mut self.system);
        self.system.roll_back();
        adopted
    }

    /// The host dies, or has died, and another one takes its place: see
    /// [`recover`](Self::recover). With `exec`, it executes another program, and keeps its
    /// children.
    pub fn die(&mut self, exec: bool) {
        self.registry = Registry::new();
        self.system.begin_anew(exec);
    }

    /// Takes over the jobs that have survived their hosts and that this one does not have, each
    /// with its index as its token. One with which that fails is left as it is. Returns the others.
    pub fn recover(&mut self) -> Vec<usize> {
        let mut taken = Vec::new();
        for found in self.system.find(|id| self.registry.contains(id)) {
            let job = found.job;
            if self.registry.adopt(found, Token(job), &mut self.system).is_ok() {
                taken.push(job);
            }
        }
        taken
    }

    /// What the record of a job says of a stop: its cause, and when the grace period ends on the
    /// clock that the simulation has begun with, if it does.
    #[must_use]
    pub fn stop_of(&self, job: usize) -> Option<(StopCause, Option<Duration>)> {
        self.system.stop_of(job)
    }

    fn id(&self, job: usize) -> JobId {
        self.system.kernel.id(job)
    }

    /// The phase of a job, or `None` for one that was removed or never adopted.
    #[must_use]
    pub fn phase(&self, job: usize) -> Option<Phase> {
        self.registry.get(self.id(job)).ok().map(Job::phase)
    }

    /// Stops a job, within this time if one is given.
    ///
    /// # Errors
    /// When there is no such job.
    pub fn stop(&mut self, job: usize, grace: Option<Duration>) -> Result<()> {
        let system = &mut self.system;
        self.registry.with(system.kernel.id(job), |job| job.stop(grace, system))
    }

    /// Kills a job.
    ///
    /// # Errors
    /// When there is no such job.
    pub fn kill(&mut self, job: usize) -> Result<()> {
        let system = &mut self.system;
        self.registry.with(system.kernel.id(job), |job| job.kill(StopCause::Kill, system))
    }

    /// Kills all jobs, as dropping a reactor does.
    pub fn kill_all(&mut self) {
        self.registry.kill_attached(&mut self.system);
    }

    /// How many jobs are not finished.
    #[must_use]
    pub fn attached(&self) -> usize {
        self.registry.attached()
    }

    /// Sends a signal to every process of a job.
    ///
    /// # Errors
    /// When there is no such job, or a call of the system fails.
    pub fn signal(&mut self, job: usize, signal: Signal) -> Result<()> {
        let system = &mut self.system;
        self.registry.with(system.kernel.id(job), |job| job.signal(signal, system))?
    }

    /// Sends a signal to the main process of a job.
    ///
    /// # Errors
    /// When there is no such job, its main process has exited, or a call of the system fails.
    pub fn signal_main(&mut self, job: usize, signal: Signal) -> Result<()> {
        self.registry.get(self.id(job))?.signal_main(signal, &mut self.system)
    }

    /// Starts to freeze or to thaw a job.
    ///
    /// # Errors
    /// When there is no such job, it is finished or has no cgroup, or a call of the system fails.
    pub fn freeze(&mut self, job: usize, freeze: bool) -> Result<()> {
        let system = &mut self.system;
        self.registry.with(system.kernel.id(job), |job| job.freeze(freeze, system))?
    }

    /// Starts to report stalls of a job as events.
    ///
    /// # Errors
    /// When there is no such job, it is finished or has no cgroup, or a call of the system fails.
    pub fn watch_pressure(&mut self, job: usize, resource: Stallable) -> Result<()> {
        let stall = Stall::some(Duration::from_millis(150), Duration::from_secs(1));
        let system = &mut self.system;
        self.registry
            .with(system.kernel.id(job), |job| job.watch_pressure(resource, stall, system))?
    }

    /// Stops reporting stalls of a job as events.
    ///
    /// # Errors
    /// When there is no such job.
    pub fn unwatch_pressure(&mut self, job: usize, resource: Stallable) -> Result<()> {
        let system = &mut self.system;
        self.registry.with(system.kernel.id(job), |job| job.unwatch_pressure(resource, system))
    }

    /// Removes a job.
    ///
    /// # Errors
    /// When there is no such job, it is not finished, or its log cannot be removed.
    pub fn remove(&mut self, job: usize) -> Result<()> {
        self.registry.remove(self.id(job), &mut self.system)
    }

    /// How many notices are pending.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.system.kernel.notices().len()
    }

    /// Delivers one of the pending notices. Returns whether there was any.
    ///
    /// # Panics
    /// When a promise is broken.
    pub fn deliver(&mut self, which: usize) -> bool {
        let notices = self.system.kernel.notices();
        if notices.is_empty() {
            return false;
        }
        let notice = notices[which % notices.len()];
        self.system.kernel.taken(notice);
        let (registry, system) = (&mut self.registry, &mut self.system);
        match notice {
            Notice::Ready { registration, source: Source::Job(job, source), priority } => {
                registry.ready(job, source, registration, priority, system);
            }
            Notice::Changed(Source::Job(job, source)) => registry.changed(job, source, system),
            other => panic!("no notice about a job: {other:?}"),
        }
        true
    }

    /// Delivers a notice about a file that is, or was, watched: it may have been queued when the
    /// watch was removed.
    pub fn deliver_late(&mut self, which: usize) -> bool {
        let past = self.system.kernel.past();
        if past.is_empty() {
            return false;
        }
        if let Source::Job(job, source) = past[which % past.len()] {
            self.registry.changed(job, source, &mut self.system);
        }
        true
    }

    /// The queue of inotify overflows: the pending notices about files are lost, and only the
    /// overflow is reported.
    pub fn overflow(&mut self) {
        self.system.kernel.lose_changes();
        self.registry.everything_changed(&mut self.system);
    }

    /// Advances the clock, and handles the deadlines that have passed.
    pub fn advance(&mut self, time: Duration) {
        self.system.kernel.advance(time);
        self.registry.deadlines_passed(self.system.now(), &mut self.system);
    }

    /// Advances the clock to the next deadline. Returns whether there was one.
    pub fn advance_to_deadline(&mut self) -> bool {
        let Some(at) = self.registry.next_deadline() else { return false };
        self.advance(at.saturating_duration_since(self.system.now()));
        true
    }

    /// Whether any job looks for its processes again later, because that has failed.
    #[must_use]
    pub fn looks_again(&self) -> bool {
        self.registry.looks_again()
    }

    /// Lets such jobs look again, as a reactor does when anything happens. Returns whether there
    /// was any.
    pub fn look_again(&mut self) -> bool {
        self.registry.look_again(&mut self.system)
    }

    /// Whether the output of any terminal is copied again later, because that has failed.
    #[must_use]
    pub fn copies_again(&self) -> bool {
        let mut jobs = self.registry.ids().filter_map(|id| self.registry.get(id).ok());
        jobs.any(Job::copies_again)
    }

    /// Lets the jobs go on with what they have left to do, as a turn of a reactor does. Returns
    /// whether there was any.
    pub fn go_on(&mut self) -> bool {
        let any = self.registry.has_work();
        self.registry.go_on(&self.registry.unfinished(), &mut self.system);
        self.registry.copy_output(&mut self.system);
        any
    }

    /// The time left until the next deadline.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        let at = self.registry.next_deadline();
        at.map(|at| at.saturating_duration_since(self.system.now()))
    }

    /// Takes the next event.
    pub fn take_event(&mut self) -> Option<Event> {
        self.system.take_event()
    }

    /// Runs the pending work of the kernel: processes that were sent a fatal signal die and leave
    /// their groups, and freezes are done. Returns whether there was any.
    pub fn run_kernel(&mut self) -> bool {
        let mut busy = false;
        for process in 0..self.system.kernel.processes() {
            busy |= self.system.kernel.die(process, false) | self.system.kernel.leave(process);
        }
        for job in 0..self.system.kernel.jobs() {
            busy |= self.system.kernel.finish_freeze(job) | self.system.kernel.reap(job);
        }
        busy
    }

    /// Runs the pending work of the kernel and delivers every notice, without advancing the clock.
    ///
    /// # Panics
    /// When there is no end to it, or a promise is broken.
    pub fn settle(&mut self) {
        for round in 0.. {
            assert!(round < 10_000, "a busy loop");
            if !(self.look_again() | self.run_kernel() | self.deliver(0) | self.go_on()) {
                break;
            }
        }
    }

    /// Whether an error says that there is no such job.
    #[must_use]
    pub fn is_unknown(error: &Error) -> bool {
        matches!(error, Error::Job(JobError::Unknown(_)))
    }
}
