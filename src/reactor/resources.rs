//! Owns the door of the reactor to resource control: limits, statistics, pressure, freezing, groups
//! in advance, sweep.
//!
//! What is done is decided elsewhere; here it is documented.

use std::path::PathBuf;

use crate::cgroup::sweep;
use crate::command::Limits;
use crate::error::{Error, Result};
use crate::event::{Pressure, Stall, Stallable, Stats};
use crate::id::{JobId, Token};
use crate::reactor::reactor::Reactor;

impl Reactor {
    /// Changes limits of a job that runs: those that are given, and no others.
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
    ///     Err(error) => assert!(matches!(error, Error::ControllerUnavailable { .. }), "{error}"),
    /// }
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownJob`]; [`Error::Finished`]; [`Error::NotInCgroup`]; and those of the limits
    /// as for [`spawn`](Self::spawn). Limits before the one that failed are then in force.
    pub fn set_limits(&mut self, job: JobId, limits: &Limits) -> Result<()> {
        self.jobs.set_limits(job, limits)
    }

    /// The limits that the kernel enforces for a job: a value for each of [`Limits::files`] whose
    /// controller is enabled, also where it does not limit anything, as `max` does not.
    ///
    /// They can be given to another job, or again to this one. So there is no value for what cannot
    /// be set: the weight of an idle job, an empty list of processors, weights of io that no disk
    /// uses. `cpu.weight.nice` is left to `cpu.weight`, which is the same but exact.
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
    /// Reads some twenty small files.
    ///
    /// # Errors
    /// [`Error::UnknownJob`]; [`Error::Finished`]; [`Error::NotInCgroup`]; [`Error::Path`].
    pub fn limits(&self, job: JobId) -> Result<Limits> {
        self.jobs.limits(job)
    }

    /// What a job uses now; for a finished one, what it has used.
    ///
    /// ```
    /// use jobworker::{Command, Reactor, Token};
    ///
    /// let mut reactor = Reactor::new()?;
    /// let job = reactor.spawn(Command::new("sleep").arg("1000"), Token(1))?;
    /// let cpu = reactor.stats(job)?.cpu.expect("CPU time is always told");
    /// println!("{:?} in user mode, {:?} in the kernel", cpu.user, cpu.system);
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    ///
    /// Reads up to a dozen small files, for two of which the kernel collects counters of every
    /// processor: for a display, not for every event.
    ///
    /// # Errors
    /// [`Error::UnknownJob`]; [`Error::Finished`] when the job's
    /// [`accounting`](crate::Command::accounting) was off; [`Error::NotInCgroup`];
    /// [`Error::Path`].
    pub fn stats(&self, job: JobId) -> Result<Stats> {
        self.jobs.stats(job)
    }

    /// How long a job was stalled for a resource.
    ///
    /// # Errors
    /// [`Error::UnknownJob`]; [`Error::Finished`]; [`Error::NotInCgroup`]; [`Error::NoPressure`];
    /// [`Error::Path`].
    pub fn pressure(&self, job: JobId, resource: Stallable) -> Result<Pressure> {
        self.jobs.pressure(job, resource)
    }

    /// Makes stalls of a job events ([`Event::Pressure`](crate::Event::Pressure)), at most one per
    /// window. A second call for the same resource replaces the first; the end of the job ends
    /// it.
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
    /// [`Error::UnknownJob`]; [`Error::Finished`]; [`Error::NotInCgroup`]; [`Error::NoPressure`];
    /// [`Error::StallRefused`] when the kernel does not take it, see [`Stall`]; [`Error::Path`].
    #[doc(alias = "PSI")]
    pub fn watch_pressure(&mut self, job: JobId, resource: Stallable, stall: Stall) -> Result<()> {
        self.with_jobs(|jobs, around| jobs.watch_pressure(job, resource, stall, around))
    }

    /// Ends the events of [`watch_pressure`](Self::watch_pressure).
    ///
    /// # Errors
    /// [`Error::UnknownJob`].
    pub fn unwatch_pressure(&mut self, job: JobId, resource: Stallable) -> Result<()> {
        self.with_jobs(|jobs, around| jobs.unwatch_pressure(job, resource, around))
    }

    /// Makes stalls of the whole system events
    /// ([`Event::SystemPressure`](crate::Event::SystemPressure)); `token` comes back with them.
    ///
    /// # Errors
    /// [`Error::NoPressure`]; [`Error::StallRefused`] when the kernel does not take it, see
    /// [`Stall`]; [`Error::Path`].
    pub fn watch_system_pressure(
        &mut self,
        resource: Stallable,
        stall: Stall,
        token: Token,
    ) -> Result<()> {
        self.with_jobs(|jobs, around| jobs.watch_system_pressure(resource, stall, token, around))
    }

    /// Ends the events of [`watch_system_pressure`](Self::watch_system_pressure).
    ///
    /// # Errors
    /// [`Error::Loop`], as for [`poll`](Self::poll).
    pub fn unwatch_system_pressure(&mut self, resource: Stallable) -> Result<()> {
        self.with_jobs(|jobs, around| {
            jobs.unwatch_system_pressure(resource, around);
            Ok(())
        })
    }

    /// Freezes a job. Returns at once; [`Event::Frozen`](crate::Event::Frozen) tells when every
    /// process stands still.
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
    /// [`Error::UnknownJob`]; [`Error::Finished`]; [`Error::NotInCgroup`]; [`Error::Path`];
    /// [`Error::WatchLimit`].
    #[doc(alias = "cgroup.freeze")]
    pub fn freeze(&mut self, job: JobId) -> Result<()> {
        self.with_jobs(|jobs, around| jobs.freeze(job, true, around))
    }

    /// Lets a frozen job run again. Returns at once; [`Event::Thawed`](crate::Event::Thawed) tells
    /// when it does.
    ///
    /// # Errors
    /// As for [`freeze`](Self::freeze).
    pub fn thaw(&mut self, job: JobId) -> Result<()> {
        self.with_jobs(|jobs, around| jobs.freeze(job, false, around))
    }

    /// Makes cgroups for jobs with exactly these limits in advance, until there are `count`: a
    /// spawn then takes one instead of making it and writing its limits.
    ///
    /// There is one such pool; other limits replace it. To be called when there is time, after
    /// spawns too: it is never filled by itself.
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
    /// [`Error::NoCgroup`] when jobs are contained by process group; those of the limits as for
    /// [`spawn`](Self::spawn); [`Error::Path`]. What was made before the failure stays.
    pub fn prepare(&mut self, limits: &Limits, count: usize) -> Result<()> {
        let Some(hierarchy) = &self.hierarchy else {
            return Err(Error::NoCgroup {
                reason: "jobs are contained by process group".to_owned(),
            });
        };
        self.pool.fill(hierarchy, &self.owner, limits, count)
    }

    /// Removes the cgroups that hosts which are dead now have left behind where this reactor makes
    /// its own, and says which. Processes in them are killed, unless their job was
    /// [detached](crate::Command::detached).
    ///
    /// Never touched: groups of a host that lives, or may live, such as in another pid namespace,
    /// and groups that no reactor has made. Blocks until the killed processes are gone, at most
    /// five seconds per group.
    ///
    /// # Errors
    /// [`Error::NoCgroup`] when jobs are contained by process group; [`Error::Path`] when a group
    /// cannot be removed.
    pub fn sweep(&mut self) -> Result<Vec<PathBuf>> {
        match &self.hierarchy {
            Some(hierarchy) => sweep(hierarchy, &self.owner),
            None => {
                Err(Error::NoCgroup { reason: "jobs are contained by process group".to_owned() })
            }
        }
    }
}
