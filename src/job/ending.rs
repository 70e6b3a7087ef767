//! Owns how jobs end: the exit of the main process, the wait for the others, the last look at the
//! logs and the report.
//!
//! Invariant: a job is finished only when nothing of it is left that could write, or when nobody
//! can tell any more, which the report then says. Nothing here waits: it arranges to be told.

use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;

use mio::unix::SourceFd;
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::event::{Event, Exit, Report, Stats, Usage};
use crate::job::containment::Contained;
use crate::job::jobs::{
    Jobs, LOOKS, Live, SURVIVORS_AWAITED, Surroundings, main_token, register, survivor_token,
};
use crate::job::life::{Input, State};
use crate::sys::Reap;

impl Jobs {
    /// The watch of a job's cgroup.events has told of a change.
    pub(crate) fn group_changed(&mut self, slot: usize, around: &mut Surroundings<'_>) {
        self.freeze_changed(slot, around);
        let waits = matches!(
            self.jobs.get(slot).map(|job| job.state),
            Some(State::Lingering | State::Leaving | State::Clearing)
        );
        if waits {
            self.look(slot, false, around);
        }
    }

    /// Anything may have happened to any group.
    pub(crate) fn all_groups_changed(&mut self, around: &mut Surroundings<'_>) {
        let slots: Vec<usize> = self.jobs.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            self.group_changed(slot, around);
        }
    }

    pub(crate) fn main_exited(&mut self, slot: usize, around: &mut Surroundings<'_>) {
        let Some(job) = self.jobs.get_mut(slot) else { return };
        let (Some(live), None) = (&mut job.live, job.exit) else { return };
        let reap = if live.contained.needs_leader() { Reap::Peek } else { Reap::Now };
        if std::mem::take(&mut live.registered) {
            let _ = around.registry.deregister(&mut SourceFd(&live.process.pidfd().as_raw_fd()));
        }
        let (exit, usage) = match live.process.wait(reap) {
            Ok(Some(ended)) => ended,
            Ok(None) => {
                // Cannot be, by the kernel's promise; but if it could, forgetting the job would be
                // worse.
                live.registered =
                    register(around.registry, live.process.pidfd(), main_token(slot)).is_ok();
                return;
            }
            Err(source) => {
                if Errno::from_io_error(&source) != Some(Errno::CHILD) {
                    job.problems.push(Error::Loop { operation: "wait for a main process", source });
                }
                // The host ignores SIGCHLD, or waits for any child.
                (live.process.exit_after_reap(), Usage::default())
            }
        };
        job.exit = Some((exit, usage, job.spawned.elapsed()));
        around.queue.push_back(Event::Exited { job: job.id, token: job.token, exit });
        self.step(slot, Input::Exit, around);
    }

    pub(crate) fn survivor_exited(&mut self, place: usize, around: &mut Surroundings<'_>) {
        let Some((slot, pidfd)) = self.survivors.try_remove(place) else { return };
        let _ = around.registry.deregister(&mut SourceFd(&pidfd.as_raw_fd()));
        let Some(live) = self.jobs.get_mut(slot).and_then(|job| job.live.as_mut()) else { return };
        live.survivors.retain(|other| *other != place);
        if live.survivors.is_empty() {
            self.look(slot, false, around);
        }
    }

    /// Looks whether any process is left once the main one is gone, and arranges to be told when
    /// none is.
    pub(crate) fn look(&mut self, slot: usize, kill: bool, around: &mut Surroundings<'_>) {
        match self.look_and_wait(slot, kill, around) {
            Ok(true) => {}
            Ok(false) => self.step(slot, Input::Empty, around),
            Err(error) => {
                // Nobody can tell any more whether the job has processes left: kill what can be
                // killed, and finish.
                self.kill_all(slot);
                if let Some(job) = self.jobs.get_mut(slot) {
                    job.problems.push(error);
                }
                self.step(slot, Input::Empty, around);
            }
        }
    }

    /// Says whether any process is left; if so, something will tell when none is.
    fn look_and_wait(
        &mut self,
        slot: usize,
        kill: bool,
        around: &mut Surroundings<'_>,
    ) -> Result<bool> {
        if !self.populated(slot)? {
            return Ok(false);
        }
        if kill {
            self.kill_all(slot);
        }
        // Arm, then look again, then wait.
        let watched = self.watch_group(slot, around);
        let killing = self.jobs.get(slot).is_some_and(|job| job.state == State::Clearing);
        for _ in 0..LOOKS {
            let awaited = (killing || !watched) && self.await_survivors(slot, watched, around)?;
            if !self.populated(slot)? {
                return Ok(false);
            }
            if watched || awaited {
                return Ok(true);
            }
            // Somebody is left whom nothing would announce: a member that was born this moment.
        }
        Err(Error::Loop {
            operation: "wait for the processes that the main process left behind",
            source: io::Error::other("they can neither be watched nor listed"),
        })
    }

    fn populated(&self, slot: usize) -> Result<bool> {
        self.jobs
            .get(slot)
            .and_then(|job| job.live.as_ref())
            .map_or(Ok(false), |live| live.contained.populated())
    }

    /// Watches the job's cgroup.events; says whether there is a watch.
    pub(crate) fn watch_group(&mut self, slot: usize, around: &mut Surroundings<'_>) -> bool {
        let Some(live) = self.jobs.get_mut(slot).and_then(|job| job.live.as_mut()) else {
            return false;
        };
        if live.watch.is_none()
            && let Some(events) = live.contained.events_file()
        {
            // Without a watch to be had, pidfds do as well, if at a greater cost.
            live.watch = around.watch.add_group(&events, slot).ok();
        }
        live.watch.is_some()
    }

    /// Waits for the processes that are left by pidfds of their own; says whether there are any.
    /// The notification of a cgroup comes up to 10 ms late, because the kernel limits its rate
    /// per file.
    fn await_survivors(
        &mut self,
        slot: usize,
        watched: bool,
        around: &mut Surroundings<'_>,
    ) -> Result<bool> {
        let Some(live) = self.jobs.get_mut(slot).and_then(|job| job.live.as_mut()) else {
            return Ok(false);
        };
        if !live.survivors.is_empty() {
            return Ok(true);
        }
        let most = if watched { SURVIVORS_AWAITED } else { usize::MAX };
        for pidfd in live.contained.survivors()?.into_iter().take(most) {
            let place = self.survivors.vacant_key();
            match register(around.registry, &pidfd, survivor_token(place)) {
                Ok(()) => {
                    self.survivors.insert((slot, pidfd));
                    live.survivors.push(place);
                }
                Err(_) if watched => break,
                Err(source) => return Err(Error::Loop { operation: "watch a process", source }),
            }
        }
        Ok(!live.survivors.is_empty())
    }

    /// Gives back what the job holds and reports. `empty`: no process is left, or none that could
    /// be waited for.
    pub(crate) fn finish(&mut self, slot: usize, empty: bool, around: &mut Surroundings<'_>) {
        self.set_deadline(slot, None);
        let Some(job) = self.jobs.get_mut(slot) else { return };
        let mut cgroup_left = None;
        let mut stats = None;
        let accounting = job.accounting;
        if let Some(Live { contained: Contained::Cgroup(cgroup), .. }) = &job.live
            && accounting
        {
            match Stats::collect(|file| cgroup.read(file)) {
                Ok(collected) => stats = Some(collected),
                Err(error) => job.problems.push(error),
            }
        }
        // The verdict, whose event may be on its way still: the kernel tells of changes with a
        // delay.
        self.memory_changed(slot, around);
        let triggers =
            self.live_at(slot).map(|live| std::mem::take(&mut live.triggers)).unwrap_or_default();
        for place in triggers {
            self.drop_trigger(place, around);
        }
        let Some(job) = self.jobs.get_mut(slot) else { return };
        let oom = job.live.as_ref().and_then(|live| live.oom);
        if let Some(live) = job.live.take() {
            if let Some(watch) = live.memory_watch {
                around.watch.remove(watch);
            }
            if let Some(watch) = live.watch {
                around.watch.remove(watch);
            }
            for place in live.survivors {
                let (_, pidfd) = self.survivors.remove(place);
                let _ = around.registry.deregister(&mut SourceFd(&pidfd.as_raw_fd()));
            }
            if live.contained.needs_leader() {
                // Its number is not needed any more.
                let _ = live.process.wait(Reap::Now);
            }
            let left = if empty { Ok(false) } else { live.contained.populated() };
            let removed = left.and_then(|left| {
                if left { Ok(false) } else { live.contained.remove().map(|()| true) }
            });
            if !matches!(removed, Ok(true)) {
                cgroup_left = live.contained.path().map(Path::to_owned);
            }
            job.problems.extend(removed.err());
        }
        let mut sizes = [0; 2];
        for (size, log) in sizes.iter_mut().zip(&job.logs) {
            let Some(log) = log else { continue };
            match around.logs.finish(around.watch, log.key, around.queue) {
                Ok(end) => *size = end,
                Err(source) => {
                    let path = around.logs.place(log.key).path();
                    job.problems.push(Error::path("read the end of log", path)(source));
                }
            }
        }
        let (exit, usage, wall) =
            job.exit.unwrap_or((Exit::Unknown, Usage::default(), job.spawned.elapsed()));
        let report = Arc::new(Report {
            exit,
            wall,
            usage,
            stopped_by: job.stopped_by,
            killed: job.killed,
            oom,
            stats,
            output_bytes: sizes[0],
            error_bytes: sizes[1],
            cgroup_left,
            problems: std::mem::take(&mut job.problems),
        });
        job.report = Some(Arc::clone(&report));
        around.queue.push_back(Event::Finished { job: job.id, token: job.token, report });
    }
}
