//! Owns [`Recovery`], and the public methods of the reactor for jobs that survive their host.
//!
//! Invariant: each call takes over one job at most. Knows nothing of how a job is found.

use std::collections::HashSet;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::ptr;
use std::sync::{Arc, Weak};

use uuid::Uuid;

use crate::cgroup::Owner;
use crate::error::{Error, JobError, Result, SystemError};
use crate::event::{Event, Recovered};
use crate::id::{JobId, Token};
use crate::job::{Job, Launcher, MOST_LABEL, Recovery as Search};
use crate::reactor::reactor::Reactor;

/// The jobs that earlier hosts of this name have left, and that are still to be taken over: see
/// [`Reactor::recover`].
///
/// Dropping it before all were taken over leaves the others as they are.
#[derive(Debug)]
pub struct Recovery {
    search: Search,
    /// Of the reactor that it is for, whose name it must not keep taken.
    launcher: Weak<Launcher>,
    /// As long as it may find more: no log is dropped meanwhile, as there may be an older one.
    search_goes_on: Option<Arc<()>>,
    /// Whether every job so far could be looked at and was taken over.
    is_complete: bool,
}

impl Recovery {
    /// How many jobs are still to be looked for, at most.
    #[must_use]
    pub fn left(&self) -> usize {
        self.search.left()
    }
}

impl Reactor {
    /// Looks for the jobs that earlier hosts of this [name](crate::Config::name) have left, to be
    /// taken over one by one with [`recover`](Self::recover).
    ///
    /// Lists the cgroups in the parent that this reactor uses, and blocks for no longer, unless
    /// there are jobs and a [keeper](crate::Config::keeper): then until that has handed out what it
    /// holds, for two seconds at most.
    ///
    /// # Errors
    /// [`Error::System`]: `NoName` when the host has no name or no cgroups, `Path` when the cgroup
    /// cannot be listed.
    pub fn recovery(&mut self) -> Result<Recovery> {
        self.recovery_with([])
    }

    /// Like [`recovery`](Self::recovery), with pidfds of main processes that somebody has held
    /// while no host was there, such as the file descriptor store of systemd.
    ///
    /// With the pidfd of a process that has ended meanwhile, its exit is known since Linux 6.15.
    /// Which job a pidfd belongs to is found out; what belongs to none is closed with the recovery.
    /// See [`pidfd`](Self::pidfd). Those of a [keeper](crate::Config::keeper) are used as well.
    ///
    /// # Errors
    /// As for [`recovery`](Self::recovery).
    pub fn recovery_with(&mut self, pidfds: impl IntoIterator<Item = OwnedFd>) -> Result<Recovery> {
        self.check_process()?;
        let logs_in = (self.launcher.directory(), self.launcher.counts_logs());
        let pidfds = pidfds.into_iter().collect();
        let mut search =
            Search::begin(self.launcher.owner(), logs_in, self.launcher.history(), pidfds)?;
        let unknown: HashSet<JobId> =
            search.jobs().filter(|job| !self.jobs.contains(*job)).collect();
        if !unknown.is_empty() {
            let held = self.ask_keeper(|job| unknown.contains(&job));
            search.add_pidfds(held);
        }
        let (launcher, search_goes_on) = (Arc::downgrade(&self.launcher), Some(Arc::new(())));
        Ok(Recovery { search, launcher, search_goes_on, is_complete: true })
    }

    /// Takes over the next job of a recovery; `None` when there is none left. `token` comes back
    /// with the job's events.
    ///
    /// The job goes on as if this reactor had spawned it: with its id, its limits, its log from the
    /// first byte on, its deadlines, a stop that was begun, whose signal is sent again, and its
    /// [`Status`](crate::Status). Pressure is watched when it is asked for again. A job that has
    /// ended meanwhile is ended as its command wants, and one that was finished already is reported
    /// again, until a host [removes](Self::remove) it. Both have their events, with the reports.
    ///
    /// It works after the death of a host, after an exec of a new version in the same process, and
    /// can be repeated: what this reactor has is left out. A host that dies during its recovery
    /// leaves the rest to the next one. Does not block, but reads some small files: a job takes
    /// about 0.1 ms. The first one without a record whose log is not in the directory of this host
    /// takes a list of the directory for temporary files.
    ///
    /// # How the exit is known
    /// Of a child of this process, as it is after an exec, by waitid(2). Of other processes since
    /// Linux 6.15, and before that as long as nobody has reaped the zombie. Of a process that has
    /// ended while there was no host, if a zombie or a pidfd of it is left. Otherwise it is
    /// [`Exit::Unknown`](crate::Exit::Unknown), and the report has a problem that says why
    /// ([`JobError::ExitUnknown`](crate::JobError::ExitUnknown)). The usage is known of children
    /// alone, and the wall time lasts until the exit was noticed.
    ///
    /// ```
    /// use jobworker::{Command, Config, Found, Reactor, Token};
    ///
    /// let mut config = Config::new();
    /// config.name(&format!("example-{}", std::process::id()));
    /// let mut reactor = Reactor::with_config(&config)?;
    /// let mut command = Command::new("sleep");
    /// let job = reactor.spawn(command.arg("1000").survives(true).label("nap"), Token(1))?;
    /// // As if the host had died.
    /// drop(reactor);
    ///
    /// let mut reactor = Reactor::with_config(&config)?;
    /// let mut recovery = reactor.recovery()?;
    /// while let Some(recovered) = reactor.recover(&mut recovery, Token(2))? {
    ///     assert_eq!((recovered.job, recovered.found), (job, Found::Running));
    ///     assert_eq!(recovered.label, b"nap");
    /// }
    /// reactor.kill(job)?;
    /// reactor.wait(job)?;
    /// reactor.remove(job)?;
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    ///
    /// # Errors
    /// About one job, which is left as it is: the next call goes on with the next one, and another
    /// recovery tries it again. [`Error::System`]: `Record` when a later version of this crate has
    /// written its record, `Path` or `Loop` when the system refuses something, such as another
    /// descriptor. `NoName` when the recovery is that of another reactor.
    pub fn recover(&mut self, recovery: &mut Recovery, token: Token) -> Result<Option<Recovered>> {
        self.check_process()?;
        if !ptr::eq(recovery.launcher.as_ptr(), Arc::as_ptr(&self.launcher)) {
            let reason = "the recovery is that of another reactor";
            return Err(SystemError::NoName { reason }.into());
        }
        if let Some(search) = &recovery.search_goes_on {
            self.system.logs.wait_for(Arc::downgrade(search));
        }
        // Until that is known.
        let was_complete = std::mem::replace(&mut recovery.is_complete, false);
        let known = |job| self.jobs.contains(job) || self.launcher.is_starting(job);
        let found = recovery.search.next(known)?;
        let recovered = match found {
            Some(find) => {
                self.adopt(find.launched, token)?;
                Some(find.recovered)
            }
            None => {
                recovery.search_goes_on = None;
                if was_complete {
                    self.all_are_known();
                }
                None
            }
        };
        recovery.is_complete = was_complete;
        Ok(recovered)
    }

    /// The logs in the directory of this host's logs that belong to none of its jobs: what a host
    /// that has died has left of jobs that did not survive it, and what was to be
    /// [kept](crate::Command::keep_log). Nothing is removed.
    ///
    /// Jobs that are yet to be recovered count as its own, so that what is listed may be removed
    /// even if a [`recover`](Self::recover) has failed. To be asked by a host that has its
    /// [`log_dir`](crate::Config::log_dir) for itself: the logs of other hosts would be among them.
    /// Lists that directory and the cgroups, and blocks for no longer.
    ///
    /// # Errors
    /// [`Error::System`] (`Path`) when a directory cannot be listed.
    pub fn stray_logs(&self) -> Result<Vec<PathBuf>> {
        self.check_process()?;
        let path = self.launcher.directory().path("");
        let failed = |cause| Error::path("list log directory", &path)(cause);
        let groups = self.launcher.owner().map_or(Ok(Vec::new()), Owner::lasting)?;
        let left: HashSet<Uuid> = groups.into_iter().map(|(job, _)| job).collect();
        let mut found = Vec::new();
        for entry in fs::read_dir(&path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let job = name.to_str().and_then(|name| {
                let name = name.strip_suffix(".log")?;
                name.strip_suffix(".err").unwrap_or(name).parse().ok()
            });
            let is_known = |job: JobId| {
                let is_ours = self.jobs.contains(job) || self.launcher.is_starting(job);
                is_ours || left.contains(&job.uuid())
            };
            if job.is_some_and(|job| !is_known(job)) {
                found.push(path.join(name));
            }
        }
        Ok(found)
    }

    /// The pidfd of the main process of a job, for whoever is to hold it while no host is there:
    /// a copy of the descriptor. The kernel lets anybody who has it signal the process.
    ///
    /// ```
    /// use jobworker::{Command, Reactor, Token};
    ///
    /// let mut reactor = Reactor::new()?;
    /// let job = reactor.spawn(Command::new("sleep").arg("1000"), Token(1))?;
    /// let pidfd = reactor.pidfd(job)?;
    /// # drop(pidfd);
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Job`] (`Unknown`, or `Exited` when the process has ended); [`Error::System`]
    /// (`Loop`) when there is no free descriptor.
    pub fn pidfd(&self, job: JobId) -> Result<OwnedFd> {
        self.check_process()?;
        let process = self.jobs.get(job)?.process()?;
        if !process.is_process() {
            return Err(JobError::Exited(job).into());
        }
        process.pidfd().try_clone().map_err(Error::event_loop("copy a pidfd"))
    }

    /// The label of a job that [survives](crate::Command::survives) its host.
    ///
    /// # Errors
    /// [`Error::Job`] (`Unknown` or `NotLasting`).
    pub fn label(&self, job: JobId) -> Result<&[u8]> {
        self.jobs.get(job).and_then(Job::label)
    }

    /// Changes the token that comes back with the events of a job: that of a job that was recovered
    /// is known once its [label](Self::label) was read. All events that are polled from now on have
    /// it.
    ///
    /// # Errors
    /// [`Error::Job`] (`Unknown`).
    pub fn set_token(&mut self, job: JobId, token: Token) -> Result<()> {
        self.check_process()?;
        self.with_job(job, |job, system| {
            job.set_token(token);
            for (of, waiting) in system.queue.events_mut().filter_map(Event::of_job_mut) {
                if of == job.id() {
                    *waiting = token;
                }
            }
        })
    }

    /// Changes the label of a job that [survives](crate::Command::survives) its host: all or
    /// nothing, once the call returns. At most 16 KiB. Of a finished job, it is changed in the
    /// [history](crate::Config::history) as well, which blocks as that says.
    ///
    /// # Errors
    /// [`Error::Job`] (`Unknown`, `NotLasting` or `LabelTooLong`); [`Error::System`] (`Path`) when
    /// the record, or the history, cannot be written: the record with `ENOSPC` if the job, as the
    /// host's user or root, has used up what its cgroup may have of attributes.
    pub fn set_label(&mut self, job: JobId, label: impl Into<Vec<u8>>) -> Result<()> {
        self.check_process()?;
        let label = label.into();
        if label.len() > MOST_LABEL {
            return Err(JobError::LabelTooLong { job, length: label.len() }.into());
        }
        self.with_job(job, |job, system| job.set_label(label, system))?
    }
}
