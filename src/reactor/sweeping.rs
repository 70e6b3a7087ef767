//! Owns [`Sweeping`]: the sweep that is going on, if there is one, and those that are to follow.
//!
//! Invariant: a sweep works only when one of its own descriptors is ready, for a bounded time: it
//! costs nothing while there is none, and other work has its turn in between. Knows nothing of what
//! a step does.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::cgroup::{Owner, Progress, Sweep};
use crate::driver::{Driver, Readiness, Registration, Source, Timer};
use crate::error::{Error, Result};
use crate::event::Swept;
use crate::id::Token;
use crate::job::Linux;
use crate::log::DirectorySweep;

/// How long a sweep may work in one turn of the loop.
const TURN: Duration = Duration::from_millis(1);

/// The sweeps that were asked for.
#[derive(Debug, Default)]
pub(crate) struct Sweeping {
    running: Option<Running>,
    /// The tokens of those that begin when it is done.
    waiting: VecDeque<Token>,
}

/// The sweep that is going on.
#[derive(Debug)]
struct Running {
    token: Token,
    /// Set to when the sweep is to go on.
    timer: Timer,
    registration: Registration,
    /// The file of a group that is awaited is registered.
    awaited: Option<Registration>,
    groups: Option<Sweep>,
    directories: Option<DirectorySweep>,
    swept: Swept,
}

impl Sweeping {
    /// Begins a sweep, or lets it follow the one that is going on.
    pub(crate) fn begin(
        &mut self,
        token: Token,
        owner: Option<&Owner>,
        driver: &mut Driver,
    ) -> Result<()> {
        if self.running.is_some() {
            self.waiting.push_back(token);
        } else {
            self.running = Some(Running::begin(token, owner, driver)?);
        }
        Ok(())
    }

    /// Goes on, because one of its descriptors is ready.
    pub(crate) fn ready(
        &mut self,
        registration: Registration,
        owner: Option<&Owner>,
        system: &mut Linux,
    ) {
        let Some(running) = &mut self.running else { return };
        if running.registration == registration {
            running.timer.fired();
        }
        match running.work(&mut system.driver) {
            Ok(false) => return,
            Ok(true) => {}
            // It cannot be continued.
            Err(error) => running.swept.errors.push(error),
        }
        if let Some(running) = self.running.take() {
            let (token, swept) = running.end(&mut system.driver);
            system.swept(token, swept);
        }
        while self.running.is_none()
            && let Some(token) = self.waiting.pop_front()
        {
            match Running::begin(token, owner, &mut system.driver) {
                Ok(running) => self.running = Some(running),
                Err(error) => {
                    let mut swept = Swept::default();
                    swept.errors.push(error);
                    system.swept(token, swept);
                }
            }
        }
    }
}

impl Running {
    fn begin(token: Token, owner: Option<&Owner>, driver: &mut Driver) -> Result<Self> {
        let groups = owner.map(Sweep::begin).transpose()?;
        let directories = Some(DirectorySweep::begin()?);
        let mut timer = Timer::new()?;
        timer.set(Some(Instant::now()))?;
        let registration = driver
            .register(timer.as_fd(), Readiness::Readable, Source::Sweep)
            .map_err(Error::event_loop("register with the epoll"))?;
        let (awaited, swept) = (None, Swept::default());
        Ok(Self { token, timer, registration, awaited, groups, directories, swept })
    }

    /// Works for a bounded time; `true` once it is done.
    fn work(&mut self, driver: &mut Driver) -> Result<bool> {
        let begun = Instant::now();
        if let (Some(_), Some(sweep)) = (&self.awaited, &self.groups) {
            if let Progress::Waiting(until) = sweep.progress(begun) {
                self.timer.set(Some(until))?;
                return Ok(false);
            }
            self.unwatch(driver);
        }
        let until = begun + TURN;
        loop {
            let now = Instant::now();
            if now >= until {
                self.timer.set(Some(now))?;
                return Ok(false);
            }
            match self.step(now) {
                Progress::More => {}
                Progress::Waiting(until) => {
                    self.watch(driver)?;
                    self.timer.set(Some(until))?;
                    return Ok(false);
                }
                Progress::Done => return Ok(true),
            }
        }
    }

    fn step(&mut self, now: Instant) -> Progress {
        let Self { groups, directories, swept, .. } = self;
        // The directories first, because nothing has to die for them.
        if let Some(sweep) = directories {
            if !sweep.step(&mut |removed: Result<PathBuf>| swept.log_dir(removed)) {
                *directories = None;
            }
            return Progress::More;
        }
        match groups {
            Some(sweep) => sweep.step(now, &mut |removed| swept.cgroup(removed)),
            None => Progress::Done,
        }
    }

    /// Watches the file of the group that is awaited. It is always readable, so that it is read
    /// once more right after this. It stays watched until the group is empty: watched anew each
    /// time, it would be ready each time.
    fn watch(&mut self, driver: &mut Driver) -> Result<()> {
        let Some(file) = self.groups.as_ref().and_then(Sweep::awaited) else { return Ok(()) };
        let registered = driver.register(file, Readiness::ReadableOrPriority, Source::Sweep);
        self.awaited = Some(registered.map_err(Error::event_loop("watch cgroup.events"))?);
        Ok(())
    }

    /// Before the file is closed, which a step may do.
    fn unwatch(&mut self, driver: &mut Driver) {
        let file = self.groups.as_ref().and_then(Sweep::awaited);
        if let (Some(registration), Some(file)) = (self.awaited.take(), file) {
            driver.deregister(file, registration);
        }
    }

    /// Deregisters everything, and gives the result.
    fn end(mut self, driver: &mut Driver) -> (Token, Swept) {
        self.unwatch(driver);
        driver.deregister(self.timer.as_fd(), self.registration);
        (self.token, self.swept)
    }
}
