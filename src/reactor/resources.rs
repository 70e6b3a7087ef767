//! Owns the public methods of the reactor for resource control: limits, statistics, pressure,
//! freezing, prepared cgroups and sweeping.
//!
//! Invariant: each method only delegates. Knows nothing of how jobs and groups work.

use std::io;

use crate::cgroup::Group;
use crate::command::Limits;
use crate::error::{Error, JobError, Result};
use crate::event::{Pressure, Stall, Stallable, Stats};
use crate::id::{JobId, Token};
use crate::job::Contained;
use crate::reactor::reactor::Reactor;

impl Reactor {
    /// Changes the given limits of a running job, and leaves all others as they are.
    ///
    /// ```
    /// use jobworker::{Command, Error, LimitValue, Limits, Reactor, Token};
    ///
    /// let mut reactor = Reactor::new()?;
    /// let job = reactor.spawn(Command::new("sleep").arg("1000"), Token(1))?;
    /// match reactor.set_limits(job, Limits::new().pids_max(64)) {
    ///     Ok(()) => {
    ///         let found = reactor.limits(job)?;
    ///         assert_eq!(found.get("pids.max"), Some(&LimitValue::Count(Some(64))));
    ///     }
    ///     // A host that cannot enforce it says so.
    ///     Err(error) => assert!(matches!(error, Error::Limits(_)), "{error}"),
    /// }
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Job`](crate::Error::Job) (`Unknown`, `Finished` or `NotInCgroup`);
    /// [`Error::Limits`](crate::Error::Limits) and [`Error::System`](crate::Error::System) as for
    /// [`spawn`](Self::spawn). Limits before the one that failed stay in force.
    pub fn set_limits(&mut self, job: JobId, limits: &Limits) -> Result<()> {
        self.check_process()?;
        self.group(job)?.set_limits(limits)
    }

    /// The limits that the kernel enforces for a job: a value for each of [`Limits::files`] whose
    /// controller is enabled, including those that limit nothing, such as `max`.
    ///
    /// They can be applied to another job, or to this one again, so values that cannot be set are
    /// left out: the weight of an idle job, an empty list of processors, weights of io that no disk
    /// uses. `cpu.weight.nice` is left out in favor of `cpu.weight`, which has the same meaning and
    /// is exact.
    ///
    /// ```
    /// use jobworker::{Command, LimitValue, Limits, Reactor, Token};
    ///
    /// let mut reactor = Reactor::new()?;
    /// let mut limits = Limits::new();
    /// limits.cgroup_max_depth(2);
    /// let job = reactor.spawn(Command::new("sleep").arg("1000").limits(&limits), Token(1))?;
    /// let found = reactor.limits(job)?;
    /// assert_eq!(found.get("cgroup.max.depth"), Some(&LimitValue::Count(Some(2))));
    ///
    /// let same = reactor.spawn(Command::new("sleep").arg("1000").limits(&found), Token(2))?;
    /// assert_eq!(reactor.limits(same)?, found);
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    ///
    /// Reads about twenty small files.
    ///
    /// # Errors
    /// [`Error::Job`](crate::Error::Job) (`Unknown`, `Finished` or `NotInCgroup`);
    /// [`Error::System`](crate::Error::System) (`Path`).
    pub fn limits(&self, job: JobId) -> Result<Limits> {
        self.group(job)?.limits()
    }

    /// The resource usage of a job: current, or final if it is finished.
    ///
    /// ```
    /// use jobworker::{Command, Reactor, Token};
    ///
    /// let mut reactor = Reactor::new()?;
    /// let job = reactor.spawn(Command::new("sleep").arg("1000"), Token(1))?;
    /// let cpu = reactor.stats(job)?.cpu.expect("CPU time is always available");
    /// println!("{:?} in user mode, {:?} in the kernel", cpu.user, cpu.system);
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    ///
    /// Reads up to a dozen small files, for two of which the kernel sums up per-processor counters.
    /// Suitable for a display, but not for every event.
    ///
    /// # Errors
    /// [`Error::Job`](crate::Error::Job) (`Unknown`, `NotInCgroup`, or `Finished` when the job's
    /// [`accounting`](crate::Command::accounting) was off); [`Error::System`](crate::Error::System)
    /// (`Path`).
    pub fn stats(&self, job: JobId) -> Result<Stats> {
        let finished = self.jobs.get(job)?.report();
        if let Some(stats) = finished.and_then(|report| report.stats.clone()) {
            return Ok(stats);
        }
        let group = self.group(job)?;
        Stats::collect(|file| group.read(file))
    }

    /// How long a job was stalled for a resource.
    ///
    /// # Errors
    /// [`Error::Job`](crate::Error::Job) (`Unknown`, `Finished`, `NotInCgroup` or `NoPressure`);
    /// [`Error::System`](crate::Error::System) (`Path`).
    pub fn pressure(&self, job: JobId, resource: Stallable) -> Result<Pressure> {
        let group = self.group(job)?;
        let path = group.path().join(resource.file());
        match group.read(resource.file())? {
            Some(content) => {
                content.parse().map_err(|error| Error::path("parse", path)(io::Error::other(error)))
            }
            None => Err(JobError::NoPressure { path }.into()),
        }
    }

    /// Watches a job for stalls: each is reported as [`Event::Pressure`](crate::Event::Pressure),
    /// at most once per window. A second call for the same resource replaces the first. The watch
    /// ends with the job.
    ///
    /// ```
    /// use jobworker::{Command, Reactor, Stall, Stallable, Token};
    /// use std::time::Duration;
    ///
    /// let mut reactor = Reactor::new()?;
    /// let job = reactor.spawn(Command::new("sleep").arg("1000"), Token(1))?;
    /// let stall = Stall::some(Duration::from_millis(200), Duration::from_secs(2));
    /// reactor.watch_pressure(job, Stallable::Cpu, stall)?;
    /// println!("{:?} so far", reactor.pressure(job, Stallable::Cpu)?.some.total);
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Job`](crate::Error::Job) (`Unknown`, `Finished`, `NotInCgroup`, `NoPressure`, or
    /// `StallRefused` when the kernel does not accept it, see [`Stall`]);
    /// [`Error::System`](crate::Error::System) (`Path` or `Loop`).
    #[doc(alias = "PSI")]
    pub fn watch_pressure(&mut self, job: JobId, resource: Stallable, stall: Stall) -> Result<()> {
        self.check_process()?;
        self.with_job(job, |job, system| job.watch_pressure(resource, stall, system))?
    }

    /// Ends a watch of [`watch_pressure`](Self::watch_pressure).
    ///
    /// # Errors
    /// [`Error::Job`](crate::Error::Job) (`Unknown`).
    pub fn unwatch_pressure(&mut self, job: JobId, resource: Stallable) -> Result<()> {
        self.check_process()?;
        self.with_job(job, |job, system| job.unwatch_pressure(resource, system))
    }

    /// Watches the whole system for stalls, reported as
    /// [`Event::SystemPressure`](crate::Event::SystemPressure) with this `token`.
    ///
    /// # Errors
    /// [`Error::Job`](crate::Error::Job) (`NoPressure`, or `StallRefused` when the kernel does not
    /// accept it, see [`Stall`]); [`Error::System`](crate::Error::System) (`Path` or `Loop`).
    pub fn watch_system_pressure(
        &mut self,
        resource: Stallable,
        stall: Stall,
        token: Token,
    ) -> Result<()> {
        self.check_process()?;
        self.system_pressure.watch(&mut self.system.driver, resource, stall, token)?;
        self.tell_host()
    }

    /// Ends a watch of [`watch_system_pressure`](Self::watch_system_pressure).
    ///
    /// # Errors
    /// [`Error::System`](crate::Error::System) (`Loop`), as for [`poll`](Self::poll).
    pub fn unwatch_system_pressure(&mut self, resource: Stallable) -> Result<()> {
        self.check_process()?;
        self.system_pressure.unwatch(&mut self.system.driver, resource);
        self.tell_host()
    }

    /// Freezes a job. Returns at once; [`Event::Frozen`](crate::Event::Frozen) reports that every
    /// process is frozen.
    ///
    /// A frozen job can be killed; [`stop`](Self::stop) thaws it first.
    ///
    /// ```
    /// use jobworker::{Command, Event, Events, Reactor, Token};
    ///
    /// let mut reactor = Reactor::new()?;
    /// let job = reactor.spawn(Command::new("sleep").arg("1000"), Token(1))?;
    /// let mut events = Events::with_capacity(64);
    /// reactor.freeze(job)?;
    /// while !events.iter().any(|event| matches!(event, Event::Frozen { .. })) {
    ///     reactor.poll(&mut events, None)?;
    /// }
    /// reactor.thaw(job)?;
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Job`](crate::Error::Job) (`Unknown`, `Finished` or `NotInCgroup`);
    /// [`Error::System`](crate::Error::System) (`Path`, or `WatchLimit` when
    /// `fs.inotify.max_user_watches` is reached).
    #[doc(alias = "cgroup.freeze")]
    pub fn freeze(&mut self, job: JobId) -> Result<()> {
        self.check_process()?;
        self.with_job(job, |job, system| job.freeze(true, system))?
    }

    /// Thaws a frozen job. Returns at once; [`Event::Thawed`](crate::Event::Thawed) reports that it
    /// runs again.
    ///
    /// # Errors
    /// As for [`freeze`](Self::freeze).
    pub fn thaw(&mut self, job: JobId) -> Result<()> {
        self.check_process()?;
        self.with_job(job, |job, system| job.freeze(false, system))?
    }

    /// Creates cgroups with these limits in advance, until there are `count`. A spawn with exactly
    /// these limits then takes one instead of creating it and writing its limits.
    ///
    /// There is one such pool, and a call with other limits replaces it. It is not refilled
    /// automatically: call this again after spawns, when there is time. A job that is detached
    /// or survives its host does not take from it.
    ///
    /// ```
    /// use jobworker::{Command, Limits, Reactor, Token};
    ///
    /// let mut reactor = Reactor::new()?;
    /// reactor.prepare(&Limits::new(), 8)?;
    /// reactor.spawn(&Command::new("true"), Token(1))?; // takes one of the eight
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::System`](crate::Error::System) (`NoCgroup` when jobs are contained by process
    /// group, or `Path`); [`Error::Limits`](crate::Error::Limits) as for [`spawn`](Self::spawn).
    /// Groups that were created before the failure stay in the pool.
    pub fn prepare(&mut self, limits: &Limits, count: usize) -> Result<()> {
        self.check_process()?;
        self.launcher.prepare(limits, count)
    }

    /// Removes what dead hosts have left behind: the cgroups below the parent that this reactor
    /// uses, and the temporary log directories of its user. Processes in the cgroups are killed,
    /// unless their job was [detached](crate::Command::detached).
    ///
    /// A host counts as dead when the kernel has dropped the lock that its reactor held: each
    /// reactor makes an empty cgroup `jobworker-<uuid>` beside those of its jobs, accessible to its
    /// user alone, and holds flock(2) on it. So it does not matter in which pid, time or mount
    /// namespace the host runs, or what can be seen in `/proc`. A process that the host has forked
    /// without executing another program keeps the lock as well. Groups of living hosts, of this
    /// one, of hosts whose `jobworker-<uuid>` cannot be opened, and groups that no reactor has
    /// created are never touched; groups of a host that another process sweeps at the same time are
    /// left to that.
    ///
    /// A log directory is removed if a reactor without a
    /// [`Config::log_dir`](crate::Config::log_dir) has made it in [`std::env::temp_dir`], nobody
    /// holds the lock that the reactor held on it, and it has no log that was to be
    /// [kept](crate::Command::keep_log), nor one of a detached job.
    ///
    /// Returns at once. The work is done in the polls that follow, at most about a millisecond of
    /// it in each, and [`Event::Swept`](crate::Event::Swept) reports what was removed. Killed
    /// processes may take five seconds to die. What cannot be removed is one of the
    /// [errors](crate::Swept::errors), does not prevent the removal of the rest, and is left for
    /// the next sweep. A sweep that is asked for during another begins when that is done.
    ///
    /// ```
    /// use jobworker::{Event, Events, Reactor, Token};
    ///
    /// let mut reactor = Reactor::new()?;
    /// reactor.sweep(Token(1))?;
    /// let mut events = Events::with_capacity(64);
    /// let swept = 'sweep: loop {
    ///     reactor.poll(&mut events, None)?;
    ///     for event in &events {
    ///         if let Event::Swept { swept, .. } = event {
    ///             break 'sweep swept.clone();
    ///         }
    ///     }
    /// };
    /// println!("removed {} cgroups of dead hosts", swept.cgroups.len());
    /// for error in &swept.errors {
    ///     eprintln!("{error}");
    /// }
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::System`](crate::Error::System) (`Path` when the cgroup parent or the directory for
    /// temporary files cannot be listed, `Loop` when a timer cannot be created or registered).
    #[doc(alias = "flock")]
    pub fn sweep(&mut self, token: Token) -> Result<()> {
        self.check_process()?;
        self.sweeping.begin(token, self.launcher.owner(), &mut self.system.driver)?;
        self.tell_host()
    }

    /// The cgroup of a job that is not finished.
    fn group(&self, job: JobId) -> Result<&Group> {
        match self.jobs.get(job)?.group() {
            Some(Contained::Cgroup(group)) => Ok(group),
            Some(Contained::ProcessGroup { .. }) => Err(JobError::NotInCgroup(job).into()),
            None => Err(JobError::Finished(job).into()),
        }
    }
}
