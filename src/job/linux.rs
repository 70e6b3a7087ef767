//! Owns [`Linux`]: the real [`System`], this machine with its loop and logs.
//!
//! Invariant: a descriptor is registered and deregistered through the driver alone. Makes no
//! decisions.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Instant;
use std::{fs, io};

use crate::cgroup::{Removal, Trigger};
use crate::command::Signal;
use crate::driver::{Driver, Readiness, Registration, Source, Watching};
use crate::error::{Error, Result};
use crate::event::{Event, Exit, Stall, Stallable, Usage, keyed};
use crate::id::Key;
use crate::job::containment::Contained;
use crate::job::delivery::Delivery;
use crate::job::launcher::Launched;
use crate::job::orphans::Orphans;
use crate::job::system::{Adopted, System};
use crate::log::{Logs, Queue, into_error};
use crate::sys::{Process, Reap};

/// This machine: the loop, the logs, and the events that wait for the host.
#[derive(Debug)]
pub(crate) struct Linux {
    pub(crate) driver: Driver,
    pub(crate) logs: Logs<Driver>,
    pub(crate) queue: Queue,
    /// How often memory limits above the jobs' groups were exceeded, as last read.
    limits_met_above: Option<u64>,
    /// The zombies that jobs leave, if those are to be reaped.
    orphans: Option<Box<Orphans>>,
}

impl Linux {
    pub(crate) fn new(driver: Driver, logs: Logs<Driver>, orphans: Option<Orphans>) -> Self {
        let (queue, limits_met_above, orphans) = (Queue::new(), None, orphans.map(Box::new));
        Self { driver, logs, queue, limits_met_above, orphans }
    }

    /// Whether there is work that no notice of the kernel would announce.
    #[inline]
    pub(crate) fn has_work(&self) -> bool {
        let orphans = self.orphans.as_deref().is_some_and(Orphans::has_work);
        self.logs.has_work() || self.driver.has_work() || orphans
    }

    /// Whether zombies that jobs have left are still being reaped.
    pub(crate) fn is_reaping(&self) -> bool {
        self.orphans.as_deref().is_some_and(Orphans::is_busy)
    }

    /// Reaps zombies that jobs have left, a bounded number. `happened` says that there were notices
    /// since the last call.
    #[inline]
    pub(crate) fn reap_orphans(&mut self, happened: bool) {
        if let Some(orphans) = &mut self.orphans {
            if happened {
                orphans.retry();
            }
            orphans.go_on(&mut self.driver);
        }
    }

    /// A process that was awaited, to reap it, has exited.
    pub(crate) fn orphan_exited(&mut self, registration: Registration) {
        if let Some(orphans) = &mut self.orphans {
            orphans.exited(registration, &mut self.driver);
        }
    }
}

impl System for Linux {
    type Process = Process;
    type Group = Contained;
    type Trigger = Trigger;
    type Launched = Launched;

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn emit(&mut self, event: Event) {
        self.queue.push(event);
    }

    fn launched_process(launched: &Launched) -> &Process {
        launched.process()
    }

    fn take_over(&mut self, mut launched: Launched) -> Adopted<Self> {
        let stdin = launched.take_stdin();
        let (record, process, group, places) = launched.into_parts();
        if let Some(orphans) = &mut self.orphans {
            orphans.started(&process);
        }
        let logs = places.map(|place| Some(self.logs.create(&mut self.driver, place?)));
        Adopted { record, process, group, stdin, logs }
    }

    fn watch_exit(&mut self, process: &Process, source: Source) -> io::Result<Registration> {
        self.driver.register(process.pidfd().as_fd(), Readiness::Readable, source)
    }

    fn unwatch_exit(&mut self, process: &Process, registration: Registration) {
        self.driver.deregister(process.pidfd().as_fd(), registration);
    }

    fn wait(&mut self, process: &Process, reap: Reap) -> io::Result<Option<(Exit, Usage)>> {
        let waited = process.wait(reap);
        if let Some(orphans) = &mut self.orphans
            && reap != Reap::Peek
            && !matches!(waited, Ok(None))
        {
            orphans.reaped(process);
        }
        waited
    }

    fn exit_after_reap(&mut self, process: &Process) -> Option<Exit> {
        process.exit_after_reap()
    }

    fn signal(&mut self, process: &Process, signal: Signal) -> io::Result<()> {
        process.signal(signal)
    }

    fn deliver(
        &mut self,
        group: &Contained,
        main: &Process,
        delivery: &mut Delivery,
    ) -> Result<()> {
        group.deliver(delivery, main)
    }

    fn kill(&mut self, group: &Contained, main: &Process) -> Result<()> {
        group.kill(main)
    }

    fn populated(&mut self, group: &Contained, main: &Process) -> Result<bool> {
        group.populated(main)
    }

    fn members(&mut self, group: &Contained, main: &Process, most: usize) -> Result<Vec<Process>> {
        group.members(main, most)
    }

    fn freeze(&mut self, group: &Contained, freeze: bool) -> Result<()> {
        group.freeze(freeze)
    }

    fn frozen(&mut self, group: &Contained) -> Result<bool> {
        group.frozen()
    }

    fn read(&mut self, group: &Contained, file: &str) -> Result<Option<String>> {
        group.read(file)
    }

    fn limits_met_above(&mut self, group: &Contained, fresh: bool) -> u64 {
        if let Some(known) = self.limits_met_above.filter(|_| !fresh) {
            return known;
        }
        let path = group.path().unwrap_or_default();
        let above = path.ancestors().skip(1).map(|path| path.join("memory.events.local"));
        let events = above.map_while(|path| fs::read_to_string(path).ok());
        let met = events.map(|events| keyed(&events, "oom")).sum();
        self.limits_met_above = Some(met);
        met
    }

    fn remove(&mut self, group: &Contained, main: &Process, removal: &mut Removal) -> Result<bool> {
        let removed = group.remove(removal);
        match &mut self.orphans {
            Some(orphans) if !matches!(removed, Ok(false)) => {
                let kept = orphans.group_ended(group, main);
                removed.and_then(|removed| kept.map(|()| removed))
            }
            _ => removed,
        }
    }

    fn path(group: &Contained) -> Option<PathBuf> {
        group.path()
    }

    fn needs_leader(group: &Contained) -> bool {
        group.needs_leader()
    }

    fn watch_file(&mut self, group: &Contained, file: &str, source: Source) -> io::Result<()> {
        match group {
            Contained::Cgroup(group) if group.may_have(file) => {
                self.driver.watch(&group.path().join(file), Watching::Changes, source)
            }
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn unwatch_file(&mut self, source: Source) {
        self.driver.unwatch(source);
    }

    fn watch_pressure(
        &mut self,
        group: &Contained,
        resource: Stallable,
        stall: Stall,
        source: Source,
    ) -> Result<(Registration, Trigger)> {
        let Contained::Cgroup(group) = group else {
            unreachable!("a job without a cgroup has no pressure files");
        };
        let trigger = group.arm_trigger(resource, stall)?;
        let registered =
            self.driver.register(trigger.as_fd(), Readiness::ReadableOrPriority, source);
        let registration = registered.map_err(Error::event_loop("watch a pressure file"))?;
        Ok((registration, trigger))
    }

    fn unwatch_pressure(&mut self, trigger: Trigger, registration: Registration) {
        self.driver.deregister(trigger.as_fd(), registration);
    }

    fn fired(&mut self, trigger: &mut Trigger, priority: bool) -> bool {
        trigger.fired(priority)
    }

    fn finish_log(&mut self, log: Key) -> Result<u64> {
        let end = self.logs.finish(&mut self.driver, log, &mut self.queue);
        end.map_err(|cause| into_error("find the end of log", self.logs.place(log).path(), cause))
    }

    fn remove_log(&mut self, log: Key, keep: bool) -> Result<()> {
        let path = self.logs.place(log).path();
        let removed = self.logs.remove(&mut self.driver, log, keep);
        removed.map_err(Error::log("remove log", path))
    }
}
