//! Owns [`Registry`]: all jobs of a reactor, by key and by id, and their deadlines in order.
//!
//! Invariants: jobs come in through [`Registry::adopt`] alone. After every call on a job, its
//! deadline here is updated. Makes no decisions: it routes each notice to the job that it is about.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::time::Instant;

use crate::driver::{JobSource, Registration, Source};
use crate::error::{Error, JobError, Result};
use crate::event::{Phase, StopCause};
use crate::id::{JobId, Key, Slots, Token};
use crate::job::deadlines::Deadlines;
use crate::job::job::Job;
use crate::job::system::System;

/// How many jobs have output of their terminals copied in one turn, about 16 KiB of each.
const COPIES_PER_TURN: usize = 8;

/// How many jobs go on in one turn: to finish one takes up to 100 us.
const JOBS_PER_TURN: usize = 16;

/// All jobs of a reactor.
#[derive(Debug)]
pub(crate) struct Registry<S: System> {
    jobs: Slots<Entry<S>>,
    by_id: HashMap<JobId, Key>,
    /// The jobs of the logs whose length is limited.
    by_log: HashMap<Key, Key>,
    deadlines: Deadlines,
    /// The jobs that look for their processes again, because that has failed. Usually empty.
    unseen: BTreeSet<Key>,
    /// The jobs whose main process has just exited, or that have signals left to send or groups
    /// left to remove. Usually empty.
    unfinished: BTreeSet<Key>,
    /// The last of them that has gone on.
    went_on: Option<Key>,
    /// The jobs that have printed on their terminals, each once, in the order in which they have
    /// their turns. May have jobs that were removed meanwhile.
    printing: VecDeque<Key>,
    /// How many jobs have to be ended when the reactor is dropped.
    attached: usize,
}

#[derive(Debug)]
struct Entry<S: System> {
    job: Job<S>,
    /// The job's place in `deadlines`.
    deadline: Option<Instant>,
    /// Whether it is in `printing`.
    printing: bool,
}

impl<S: System> Registry<S> {
    pub(crate) fn new() -> Self {
        Self {
            jobs: Slots::new(),
            by_id: HashMap::new(),
            by_log: HashMap::new(),
            deadlines: Deadlines::default(),
            unseen: BTreeSet::new(),
            unfinished: BTreeSet::new(),
            went_on: None,
            printing: VecDeque::new(),
            attached: 0,
        }
    }

    /// How many jobs there are, finished ones included.
    pub(crate) fn len(&self) -> usize {
        self.jobs.len()
    }

    /// How many jobs are neither finished nor detached.
    pub(crate) fn attached(&self) -> usize {
        self.attached
    }

    /// The earliest deadline of any job.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// All jobs, in no particular order.
    pub(crate) fn ids(&self) -> impl Iterator<Item = JobId> {
        self.by_id.keys().copied()
    }

    /// Whether there is a job of this id.
    pub(crate) fn contains(&self, id: JobId) -> bool {
        self.by_id.contains_key(&id)
    }

    pub(crate) fn get(&self, id: JobId) -> Result<&Job<S>> {
        let entry = self.by_id.get(&id).and_then(|key| self.jobs.get(*key));
        entry.map(|entry| &entry.job).ok_or_else(|| JobError::Unknown(id).into())
    }

    /// Adopts what a launcher has made, or recovery has found. On failure, what was made is rolled
    /// back, and what was found is left as it was.
    pub(crate) fn adopt(
        &mut self,
        launched: S::Launched,
        token: Token,
        system: &mut S,
    ) -> Result<JobId> {
        let key = self.jobs.vacant_key();
        let source = Source::Job(key, JobSource::MainProcess);
        let exit = match S::launched_process(&launched) {
            Some(process) => {
                let exit = system.watch_exit(process, source);
                Some(exit.map_err(Error::event_loop("watch the new process"))?)
            }
            None => None,
        };
        let output = match S::launched_terminal(&launched) {
            Some(terminal) => {
                let source = Source::Job(key, JobSource::Terminal);
                match system.watch_terminal(terminal, source) {
                    Ok(output) => Some(output),
                    Err(cause) => {
                        if let Some((process, exit)) = S::launched_process(&launched).zip(exit) {
                            system.unwatch_exit(process, exit);
                        }
                        return Err(Error::event_loop("watch the new terminal")(cause));
                    }
                }
            }
            None => None,
        };
        let adopted = system.take_over(launched);
        let job = Job::new(key, token, adopted, (exit, output), system);
        let id = job.id();
        self.by_log.extend(job.limited_logs().map(|log| (log, key)));
        self.attached += usize::from(job.is_attached());
        let inserted = self.jobs.insert(Entry { job, deadline: None, printing: false });
        debug_assert_eq!(inserted, key);
        self.by_id.insert(id, key);
        self.with_key(key, |job| job.begin(system));
        Ok(id)
    }

    /// Runs a closure on a job, then updates its deadline.
    pub(crate) fn with<R>(&mut self, id: JobId, act: impl FnOnce(&mut Job<S>) -> R) -> Result<R> {
        let key = *self.by_id.get(&id).ok_or(JobError::Unknown(id))?;
        self.with_key(key, act).ok_or_else(|| JobError::Unknown(id).into())
    }

    /// Runs a closure on a job by its key. A stale key is that of a notice that arrived after the
    /// job was removed.
    fn with_key<R>(&mut self, key: Key, act: impl FnOnce(&mut Job<S>) -> R) -> Option<R> {
        let Entry { job, deadline, printing } = self.jobs.get_mut(key)?;
        let (attached, span) = (job.is_attached(), job.span().clone());
        let result = span.within(|| act(job));
        if attached && !job.is_attached() {
            self.attached -= 1;
        }
        self.deadlines.replace(key, deadline, job.deadline());
        if job.has_output() && !std::mem::replace(printing, true) {
            self.printing.push_back(key);
        }
        if job.looks_again() {
            self.unseen.insert(key);
        } else if !self.unseen.is_empty() {
            self.unseen.remove(&key);
        }
        if job.has_work() {
            self.unfinished.insert(key);
        } else if !self.unfinished.is_empty() {
            self.unfinished.remove(&key);
        }
        Some(result)
    }

    /// A descriptor of a job is ready.
    pub(crate) fn ready(
        &mut self,
        job: Key,
        source: JobSource,
        registration: Registration,
        priority: bool,
        system: &mut S,
    ) {
        self.with_key(job, |job| job.ready(source, registration, priority, system));
    }

    /// A file that a job watches has changed.
    pub(crate) fn changed(&mut self, job: Key, source: JobSource, system: &mut S) {
        self.with_key(job, |job| job.changed(source, system));
    }

    /// Anything that any job watches may have changed.
    pub(crate) fn everything_changed(&mut self, system: &mut S) {
        self.with_all(|job| job.everything_changed(system));
    }

    /// The file system of the logs is full. Each job is told once, however often it becomes so.
    #[cold]
    pub(crate) fn logs_have_no_room(&mut self, system: &mut S) {
        self.with_all(|job| job.logs_have_no_room(system));
    }

    fn with_all(&mut self, mut act: impl FnMut(&mut Job<S>)) {
        let keys: Vec<Key> = self.jobs.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.with_key(key, &mut act);
        }
    }

    /// A log has become longer than its limit. The job may have been removed since.
    pub(crate) fn log_exceeded(&mut self, log: Key, system: &mut S) {
        if let Some(key) = self.by_log.get(&log) {
            self.with_key(*key, |job| job.log_exceeded(log, system));
        }
    }

    /// Acts on every deadline that has passed.
    pub(crate) fn deadlines_passed(&mut self, now: Instant, system: &mut S) {
        while let Some(key) = self.deadlines.due(now) {
            let acted = self.with_key(key, |job| job.deadline_passed(now, system));
            debug_assert!(acted.is_some(), "a removed job has no deadline");
        }
    }

    /// Whether any job looks for its processes again later.
    #[inline]
    pub(crate) fn looks_again(&self) -> bool {
        !self.unseen.is_empty()
    }

    /// Lets the jobs that could not find out whether they have processes left try again. Something
    /// has happened, so there may be descriptors or memory now. Returns whether there was any.
    pub(crate) fn look_again(&mut self, system: &mut S) -> bool {
        let keys: Vec<Key> = self.unseen.iter().copied().collect();
        for key in &keys {
            self.with_key(*key, |job| job.look_again(system));
        }
        !keys.is_empty()
    }

    /// Whether any job has signals left to send, groups left to remove or output left to copy.
    #[inline]
    pub(crate) fn has_work(&self) -> bool {
        !self.unfinished.is_empty() || !self.printing.is_empty()
    }

    /// The jobs that have signals left to send, or groups left to remove: a bounded number, others
    /// than the last time if there are more.
    #[inline]
    pub(crate) fn unfinished(&self) -> Vec<Key> {
        let after = match self.went_on {
            Some(last) => (Bound::Excluded(last), Bound::Unbounded),
            None => (Bound::Unbounded, Bound::Unbounded),
        };
        let before = self.went_on.into_iter().flat_map(|last| self.unfinished.range(..=last));
        self.unfinished.range(after).chain(before).copied().take(JOBS_PER_TURN).collect()
    }

    /// Copies output of terminals to their logs: of a bounded number of jobs, in turns, a bounded
    /// amount of each.
    #[inline]
    pub(crate) fn copy_output(&mut self, system: &mut S) {
        for _ in 0..self.printing.len().min(COPIES_PER_TURN) {
            let Some(key) = self.printing.pop_front() else { break };
            if let Some(entry) = self.jobs.get_mut(key) {
                entry.printing = false;
            }
            self.with_key(key, |job| job.copy_output(system));
        }
    }

    /// Lets each of these jobs that still has signals left to send, or groups left to remove, do
    /// so, with a bounded number.
    #[cold]
    pub(crate) fn go_on(&mut self, jobs: &[Key], system: &mut S) {
        self.went_on = jobs.last().copied();
        for key in jobs {
            if self.unfinished.contains(key) {
                self.with_key(*key, |job| job.go_on(system));
            }
        }
    }

    /// Kills every job that is neither finished nor detached.
    pub(crate) fn kill_attached(&mut self, system: &mut S) {
        let attached = self.jobs.iter().filter(|(_, entry)| entry.job.is_attached());
        let keys: Vec<Key> = attached.map(|(key, _)| key).collect();
        for key in keys {
            self.with_key(key, |job| job.kill(StopCause::Drop, system));
        }
    }

    /// Forgets a finished job, its tails and, unless it is to be kept, its log.
    pub(crate) fn remove(&mut self, id: JobId, system: &mut S) -> Result<()> {
        let key = *self.by_id.get(&id).ok_or(JobError::Unknown(id))?;
        if self.get(id)?.phase() != Phase::Finished {
            return Err(JobError::NotFinished(id).into());
        }
        self.by_id.remove(&id);
        match self.jobs.remove(key) {
            Some(entry) => {
                for log in entry.job.limited_logs() {
                    self.by_log.remove(&log);
                }
                entry.job.remove(system)
            }
            None => Err(JobError::Unknown(id).into()),
        }
    }

    /// Forgets every job; the logs of the finished ones go unless they are to be kept.
    pub(crate) fn remove_all(&mut self, system: &mut S) {
        self.by_id.clear();
        self.by_log.clear();
        self.unseen.clear();
        self.unfinished.clear();
        self.printing.clear();
        for entry in self.jobs.drain() {
            let job = entry.job;
            let policies = job.record().policies();
            // What survives the reactor is for the next one to remove.
            let is_left = policies.detached || policies.survives;
            if job.phase() == Phase::Finished && !is_left {
                // There is nobody left to report a failure to.
                let _ = job.remove(system);
            }
        }
    }
}
