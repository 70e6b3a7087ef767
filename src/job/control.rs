//! Owns the resource side of [`Jobs`]: limits of running jobs, what they use, pressure, want of
//! memory, freezing.
//!
//! Invariant: every event here is one that the kernel told of, none is polled for. What a job holds
//! for it (watches, triggers) is given back when the job is finished.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use mio::Interest;
use mio::unix::SourceFd;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use crate::cgroup::{Group, Trigger};
use crate::command::Limits;
use crate::error::{Error, Result};
use crate::event::{Event, OomCause, Pressure, Stall, Stallable, Stats, keyed};
use crate::id::{JobId, Token};
use crate::job::containment::Contained;
use crate::job::jobs::{Jobs, LimitsMet, Live, Surroundings, Watched, trigger_token};

impl Jobs {
    /// The cgroup of a job that is not finished.
    fn cgroup(&self, id: JobId) -> Result<&Group> {
        match self.live(id)? {
            Some(Live { contained: Contained::Cgroup(cgroup), .. }) => Ok(cgroup),
            Some(_) => Err(Error::NotInCgroup(id)),
            None => Err(Error::Finished(id)),
        }
    }

    /// Changes the limits of a job that runs.
    pub(crate) fn set_limits(&self, id: JobId, limits: &Limits) -> Result<()> {
        self.cgroup(id)?.set_limits(limits)
    }

    /// The limits that the kernel enforces.
    pub(crate) fn limits(&self, id: JobId) -> Result<Limits> {
        self.cgroup(id)?.limits()
    }

    /// What a job uses; for a finished one, what it has used.
    pub(crate) fn stats(&self, id: JobId) -> Result<Stats> {
        if let Some(stats) = self.report(id)?.and_then(|report| report.stats.clone()) {
            return Ok(stats);
        }
        let cgroup = self.cgroup(id)?;
        Stats::collect(|file| cgroup.read(file))
    }

    /// The pressure on a job.
    pub(crate) fn pressure(&self, id: JobId, resource: Stallable) -> Result<Pressure> {
        let cgroup = self.cgroup(id)?;
        let path = cgroup.path().join(resource.file());
        match cgroup.read(resource.file())? {
            Some(content) => content
                .parse()
                .map_err(|error| Error::path("parse", path)(std::io::Error::other(error))),
            None => Err(Error::NoPressure { path }),
        }
    }

    /// Makes stalls of a job events. A second call for the same resource replaces the first.
    pub(crate) fn watch_pressure(
        &mut self,
        id: JobId,
        resource: Stallable,
        stall: Stall,
        around: &mut Surroundings<'_>,
    ) -> Result<()> {
        let (slot, token) = self.slot_and_token(id)?;
        let cgroup = self.cgroup(id)?;
        let path = cgroup.path().join(resource.file());
        let trigger = arm(cgroup.open_dir()?.as_fd(), resource.file(), stall, path)?;
        let place =
            self.watch(Watched { trigger, job: Some((slot, id)), token, resource }, around)?;
        if let Some(live) = self.live_at(slot) {
            live.triggers.push(place);
        }
        Ok(())
    }

    /// Makes stalls of the whole system events. A second call for the same resource replaces the
    /// first.
    pub(crate) fn watch_system_pressure(
        &mut self,
        resource: Stallable,
        stall: Stall,
        token: Token,
        around: &mut Surroundings<'_>,
    ) -> Result<()> {
        let dir = openat(
            CWD,
            "/proc/pressure",
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|_| Error::NoPressure { path: "/proc/pressure".into() })?;
        let name = resource.to_string();
        let trigger = arm(dir.as_fd(), &name, stall, Path::new("/proc/pressure").join(&name))?;
        self.watch(Watched { trigger, job: None, token, resource }, around).map(drop)
    }

    /// Ends the events for stalls of a job.
    pub(crate) fn unwatch_pressure(
        &mut self,
        id: JobId,
        resource: Stallable,
        around: &mut Surroundings<'_>,
    ) -> Result<()> {
        let (slot, _) = self.slot_and_token(id)?;
        self.unwatch(Some((slot, id)), resource, None, around);
        Ok(())
    }

    /// Ends the events for stalls of the whole system.
    pub(crate) fn unwatch_system_pressure(
        &mut self,
        resource: Stallable,
        around: &mut Surroundings<'_>,
    ) {
        self.unwatch(None, resource, None, around);
    }

    /// Replaces the trigger for the same, which stays when this one cannot be watched.
    fn watch(&mut self, watched: Watched, around: &mut Surroundings<'_>) -> Result<usize> {
        let (job, resource) = (watched.job, watched.resource);
        let place = self.triggers.vacant_key();
        let mut source = SourceFd(&watched.trigger.as_raw_fd());
        let interest = Interest::READABLE | Interest::PRIORITY;
        let registered = around.registry.register(&mut source, trigger_token(place), interest);
        registered.map_err(Error::event_loop("watch a pressure file"))?;
        self.triggers.insert(watched);
        self.unwatch(job, resource, Some(place), around);
        Ok(place)
    }

    /// Disarms the trigger of a job, or of the system, for a resource; not the one at the place to
    /// spare.
    fn unwatch(
        &mut self,
        job: Option<(usize, JobId)>,
        resource: Stallable,
        spared: Option<usize>,
        around: &mut Surroundings<'_>,
    ) {
        let same = |watched: &Watched| watched.job == job && watched.resource == resource;
        let found =
            self.triggers.iter().find(|(place, watched)| same(watched) && Some(*place) != spared);
        if let Some((place, _)) = found {
            self.drop_trigger(place, around);
        }
    }

    /// Disarms a trigger.
    pub(crate) fn drop_trigger(&mut self, place: usize, around: &mut Surroundings<'_>) {
        let Some(watched) = self.triggers.try_remove(place) else { return };
        let _ = around.registry.deregister(&mut SourceFd(&watched.trigger.as_raw_fd()));
        if let Some((slot, _)) = watched.job
            && let Some(live) = self.live_at(slot)
        {
            live.triggers.retain(|other| *other != place);
        }
    }

    /// The epoll has told of a trigger.
    pub(crate) fn trigger_ready(
        &mut self,
        place: usize,
        priority: bool,
        around: &mut Surroundings<'_>,
    ) {
        if let Some(watched) = self.triggers.get_mut(place)
            && watched.trigger.fired(priority)
        {
            around.queue.push_back(watched.event());
        }
    }

    /// Makes kills for want of memory events, if the job's group has the memory controller.
    pub(crate) fn watch_memory(&mut self, slot: usize, around: &mut Surroundings<'_>) {
        let known = self.limits_met_above;
        let Some(live) = self.live_at(slot) else { return };
        let Some(path) = live.contained.path() else { return };
        // Not counted anew for each job: what was met above before this job may at worst be taken
        // for a cause later.
        let above = known.unwrap_or_else(|| limits_met_above(&path));
        live.limits_met.above = above;
        // Without the file, or a watch to be had, there is no verdict.
        live.memory_watch = around.tails.kernel.add_memory(&path.join("memory.events"), slot).ok();
        self.limits_met_above = Some(above);
    }

    /// The memory.events file of a job has changed.
    pub(crate) fn memory_changed(&mut self, slot: usize, around: &mut Surroundings<'_>) {
        let Some((job, token)) = self.id_and_token(slot) else { return };
        let Some(live) = self.live_at(slot).filter(|live| live.memory_watch.is_some()) else {
            return;
        };
        let Contained::Cgroup(cgroup) = &live.contained else { return };
        let Ok(Some(events)) = cgroup.read("memory.events") else { return };
        let kills = keyed(&events, "oom_kill");
        let Some(new) = kills.checked_sub(live.oom_kills).filter(|new| *new > 0) else { return };
        // A limit that was met since the last kill that was told is the cause.
        let met = LimitsMet { own: keyed(&events, "oom"), above: limits_met_above(&cgroup.path()) };
        let cause = if met.own > live.limits_met.own {
            OomCause::Job
        } else if met.above > live.limits_met.above {
            OomCause::Ancestor
        } else {
            OomCause::System
        };
        live.oom_kills = kills;
        live.limits_met = met;
        live.oom = Some(cause);
        self.limits_met_above = Some(met.above);
        around.queue.push_back(Event::Oom { job, token, kills: new, cause });
    }

    /// Starts to freeze a job, or to thaw it; an event tells when that is done.
    pub(crate) fn freeze(
        &mut self,
        id: JobId,
        freeze: bool,
        around: &mut Surroundings<'_>,
    ) -> Result<()> {
        self.cgroup(id)?.freeze(freeze)?;
        let (slot, _) = self.slot_and_token(id)?;
        if let Some(live) = self.live_at(slot) {
            live.frozen = freeze;
            live.freezing = true;
        }
        // Arm, then look.
        if !self.watch_group(slot, around) {
            let path = self.cgroup(id)?.path().join("cgroup.events");
            return Err(Error::WatchLimit { path });
        }
        self.freeze_changed(slot, around);
        Ok(())
    }

    /// Tells of a freeze or thaw that is done.
    pub(crate) fn freeze_changed(&mut self, slot: usize, around: &mut Surroundings<'_>) {
        let told = self.id_and_token(slot);
        let (Some(live), Some((job, token))) = (self.live_at(slot), told) else { return };
        let Contained::Cgroup(cgroup) = &live.contained else { return };
        if live.freezing && cgroup.frozen().is_ok_and(|frozen| frozen == live.frozen) {
            live.freezing = false;
            around.queue.push_back(if live.frozen {
                Event::Frozen { job, token }
            } else {
                Event::Thawed { job, token }
            });
        }
    }
}

/// Arms a trigger on the pressure file `name` in `dir`, which is at `path`.
fn arm(dir: BorrowedFd<'_>, name: &str, stall: Stall, path: PathBuf) -> Result<Trigger> {
    if let Some(reason) = stall.fault() {
        return Err(Error::StallRefused { path, reason });
    }
    Trigger::arm(dir, name, stall).map_err(|error| match Errno::from_io_error(&error) {
        // No PSI in this kernel, or not switched on.
        Some(Errno::NOENT | Errno::OPNOTSUPP) => Error::NoPressure { path },
        Some(Errno::INVAL) => {
            let reason = "without CAP_SYS_RESOURCE the window has to be a multiple of 2 s, \
                          and before Linux 6.5 it is at least 500 ms for everybody";
            Error::StallRefused { path, reason }
        }
        Some(Errno::PERM | Errno::ACCESS) => Error::StallRefused {
            path,
            reason: "before Linux 6.5 it takes CAP_SYS_RESOURCE, since then write access",
        },
        _ => Error::path("arm a pressure trigger on", path)(error),
    })
}

/// How often the memory limits above a job were met, over all groups above it.
fn limits_met_above(job: &Path) -> u64 {
    let above = job
        .ancestors()
        .skip(1)
        .map_while(|path| fs::read_to_string(path.join("memory.events.local")).ok());
    above.map(|events| keyed(&events, "oom")).sum()
}
