//! Owns what the reactor says to a keeper, and when.
//!
//! Invariant: whatever becomes of the keeper, nothing fails because of it. Knows nothing of how it
//! is said.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::error::Error;
use crate::id::JobId;
use crate::job::{Linux, Registry};
use crate::keeper::Client;
use crate::reactor::reactor::Reactor;

impl Reactor {
    /// Why the [keeper](crate::Config::keeper) is not there, or does not take what it is given:
    /// [`SystemError::Keeper`](crate::SystemError::Keeper). `None` when nothing is known to be
    /// wrong, and when none is configured. Makes no system call.
    ///
    /// That a keeper has died is noticed by the next [`poll`](Self::poll), spawn or removal of a
    /// job, and that another one serves this host by a `poll` after that. A keeper that is only
    /// slow is a problem for a moment, when there are several hundred jobs to be handed over.
    ///
    /// ```
    /// use jobworker::{Config, Reactor};
    ///
    /// let mut config = Config::new();
    /// config.name(&format!("example-{}", std::process::id())).keeper("/run/no/such/socket");
    /// let mut reactor = Reactor::with_config(&config)?;
    /// assert!(reactor.keeper_problem().is_none(), "it was not needed so far");
    /// let mut recovery = reactor.recovery()?;
    /// while reactor.recover(&mut recovery, jobworker::Token(0))?.is_some() {}
    /// eprintln!("going on without the keeper: {}", reactor.keeper_problem().unwrap());
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    #[must_use]
    pub fn keeper_problem(&self) -> Option<&Error> {
        self.keeper.as_ref()?.problem()
    }

    /// Lets the keeper hold the pidfd of a job, if it is to.
    pub(super) fn hand_over(&mut self, job: JobId) {
        let is_kept = self.keeper.is_some() && self.survives(job);
        self.tell_keeper(|keeper| {
            if is_kept {
                keeper.keep(job);
            }
        });
    }

    /// Says something to the keeper, if there is to be one. If there is none any more, connects to
    /// the next one, which gets everything.
    pub(super) fn tell_keeper(&mut self, say: impl FnOnce(&mut Client)) {
        let Some(keeper) = &mut self.keeper else { return };
        let driver = &mut self.system.driver;
        if keeper.is_connected() {
            say(keeper);
            keeper.say(driver, pidfds(&self.jobs));
        }
        if !keeper.is_connected() && keeper.connect(driver) {
            let pidfd = pidfds(&self.jobs);
            self.jobs.ids().filter(|job| pidfd(*job).is_some()).for_each(|job| keeper.keep(job));
            keeper.let_others_go();
            keeper.say(driver, pidfds(&self.jobs));
        }
    }

    /// The pidfds that the keeper holds of these jobs, for two seconds at most.
    pub(super) fn ask_keeper(&mut self, wanted: impl Fn(JobId) -> bool) -> HashMap<JobId, OwnedFd> {
        self.tell_keeper(|_| {});
        let Some(keeper) = &mut self.keeper else { return HashMap::new() };
        keeper.held(&mut self.system.driver, pidfds(&self.jobs), wanted)
    }

    /// Every job of this host's name is one of this reactor's, after a recovery.
    pub(super) fn all_are_known(&mut self) {
        if let Some(keeper) = &mut self.keeper {
            keeper.knows_all();
            self.tell_keeper(Client::let_others_go);
        }
    }

    /// The connection to the keeper is ready.
    pub(super) fn keeper_ready(&mut self) {
        if let Some(keeper) = &mut self.keeper {
            keeper.ready(&mut self.system.driver, pidfds(&self.jobs));
        }
    }
}

/// The pidfds of the main processes that a keeper is to hold: of a job that survives its host, as
/// long as it is not known how it has ended.
fn pidfds<'a>(jobs: &'a Registry<Linux>) -> impl Fn(JobId) -> Option<BorrowedFd<'a>> {
    |job| {
        let job = jobs.get(job).ok().filter(|job| job.record().policies().survives)?;
        let process = job.process().ok().filter(|process| process.is_process())?;
        Some(process.pidfd().as_fd())
    }
}
