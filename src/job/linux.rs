//! Owns [`Linux`]: the real [`System`], this machine with its loop and logs.
//!
//! Invariant: a descriptor is registered and deregistered through the driver alone. Makes no
//! decisions.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fs, io};

use rustix::io::Errno;

use crate::cgroup::{Removal, Trigger};
use crate::command::Signal;
use crate::driver::{Driver, Readiness, Registration, Source, Watching};
use crate::error::{Error, JobError, Result};
use crate::event::{Event, Exit, Report, Stall, Stallable, Swept, Usage, keyed};
use crate::id::{Key, Token};
use crate::job::containment::Contained;
use crate::job::delivery::Delivery;
use crate::job::format::encode;
use crate::job::history::History;
use crate::job::launched::Launched;
use crate::job::orphans::Orphans;
use crate::job::stored::Stored;
use crate::job::system::{Adopted, Begun, System};
use crate::job::terminal::{Copied, SLICE, Terminal};
use crate::log::{Kept, LogDirectory, Logs, NewLog, Queue, Space, into_error};
use crate::sys::{Process, Reap, boot_time};
use crate::trace;

/// This machine: the loop, the logs, and the events that wait for the host.
#[derive(Debug)]
pub(crate) struct Linux {
    pub(crate) driver: Driver,
    pub(crate) logs: Logs<Driver>,
    pub(crate) queue: Queue,
    /// How often memory limits above the jobs' groups were exceeded, as last read.
    limits_met_above: Option<u64>,
    directory: Arc<LogDirectory>,
    space: Space,
    /// There is no room for logs, and some job was not told.
    is_full_news: bool,
    /// The zombies that jobs leave, if there may be any to be reaped.
    orphans: Option<Box<Orphans>>,
    /// Whether those of every job are to be reaped.
    reaps_orphans: bool,
    /// Where reports are kept, and whether each is to be on the disk before anybody is told.
    history: Option<(History, bool)>,
    /// By way of which the output of terminals is copied; empty until there is some.
    buffer: Vec<u8>,
}

impl Linux {
    pub(crate) fn new(
        driver: Driver,
        logs: Logs<Driver>,
        directory: Arc<LogDirectory>,
        orphans: Option<Orphans>,
        history: Option<(History, bool)>,
    ) -> Self {
        Self {
            driver,
            logs,
            queue: Queue::new(),
            limits_met_above: None,
            directory,
            space: Space::default(),
            is_full_news: false,
            reaps_orphans: orphans.is_some(),
            orphans: orphans.map(Box::new),
            history,
            buffer: Vec::new(),
        }
    }

    /// When to look at the file system of the logs.
    pub(crate) fn look_at_space(&self) -> Option<Instant> {
        self.space.look_at()
    }

    /// Looks at the file system of the logs, if it is time to.
    #[inline]
    pub(crate) fn check_space(&mut self, now: Instant, happened: bool) {
        let told = self.space.turn(now, happened, || self.directory.available());
        if told.is_some() {
            self.report_space(told);
        }
    }

    fn report_space(&mut self, told: Option<bool>) {
        if let Some(full) = told {
            self.is_full_news |= full;
            self.emit(Event::LogSpace { full });
        }
    }

    /// Whether there was no room for logs since the last call, as far as jobs were not told.
    pub(crate) fn take_full(&mut self) -> bool {
        std::mem::take(&mut self.is_full_news)
    }

    /// Takes over a log. Of that of an earlier host, whatever the record says of the job, the first
    /// bytes may have been given back, for other logs perhaps.
    fn take_over_log(&mut self, log: NewLog, is_found: bool) -> Key {
        let start = if is_found { log.place.first_byte().unwrap_or(0) } else { 0 };
        let key = self.logs.create(&mut self.driver, log.place);
        self.logs.begin_at(key, start);
        if let Some(Kept { file, rules }) = log.kept {
            self.logs.keep_short(key, file, rules);
        }
        key
    }

    fn buffer(&mut self) -> &mut [u8] {
        self.buffer.resize(SLICE, 0);
        &mut self.buffer
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

    /// Reports a sweep, and reaps what was in the groups that it has removed: their processes are
    /// children of this one if their host has executed another program, which is this one.
    pub(crate) fn swept(&mut self, token: Token, swept: Swept) {
        if !swept.cgroups.is_empty()
            && let Some(orphans) = self.orphans()
        {
            let names = swept.cgroups.iter().filter_map(|path| path.file_name()?.to_str());
            names.for_each(|name| orphans.cgroup_ended(name));
        }
        self.emit(Event::Swept { token, swept: Arc::new(swept) });
    }

    /// What reaps zombies; `None` where the kernel does not list the children of a process.
    fn orphans(&mut self) -> Option<&mut Orphans> {
        if self.orphans.is_none() {
            self.orphans = Orphans::new().ok().map(Box::new);
        }
        self.orphans.as_deref_mut()
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
    type Terminal = Terminal;
    type Launched = Launched;

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn boot_time(&self) -> Duration {
        boot_time()
    }

    fn emit(&mut self, event: Event) {
        trace::queued(&event);
        self.queue.push(event);
    }

    fn launched_process(launched: &Launched) -> Option<&Process> {
        launched.process()
    }

    fn launched_terminal(launched: &Launched) -> Option<&Terminal> {
        launched.terminal()
    }

    fn take_over(&mut self, mut launched: Launched) -> Adopted<Self> {
        let (stdin, terminal) = (launched.take_stdin(), launched.take_terminal());
        let (span, is_found) = (launched.span().clone(), launched.is_found());
        let (record, course, logs) = launched.into_parts();
        self.is_full_news |= self.space.is_full();
        if let (Some(orphans), Begun::Live { process, .. }) = (&mut self.orphans, &course) {
            orphans.started(process);
        }
        let logs = logs.map(|log| Some(self.take_over_log(log?, is_found)));
        if is_found {
            // So that it is known where a log begins that is kept short, before it is read or ends.
            self.logs.visit_due(&mut self.driver, Instant::now(), &mut self.queue);
        }
        Adopted { record, course, stdin, terminal, logs, span }
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

    fn why_unknown(process: &Process) -> Option<&'static str> {
        process.why_unknown()
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
        // A host that has executed another program has left its children to this one: where it is
        // not known which of them was the main process, nobody else would wait for that.
        let is_left = self.reaps_orphans || main.is_unknown();
        if matches!(removed, Ok(false)) || !is_left {
            return removed;
        }
        let kept = self.orphans().map_or(Ok(()), |orphans| orphans.group_ended(group, main));
        removed.and_then(|removed| kept.map(|()| removed))
    }

    fn store(&mut self, group: &Contained, stored: &Stored, report: Option<&Report>) -> Result<()> {
        match group {
            Contained::Cgroup(group) => group.write_record(&encode(stored, report)),
            Contained::ProcessGroup { .. } => unreachable!("a job without a cgroup has no record"),
        }
    }

    fn write_history(&mut self, stored: &Stored, report: &Report) -> Result<()> {
        let Some((history, sync)) = &self.history else { return Ok(()) };
        history.write(stored, report, *sync)
    }

    fn bury(&mut self, group: &Contained, stored: &mut Stored, report: &Report) {
        if group.remove(&mut Removal::default()).is_ok_and(|removed| removed) {
            return;
        }
        // Processes are left in it, as was reported.
        stored.removed = true;
        let _ = self.store(group, stored, Some(report));
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

    fn watch_terminal(&mut self, terminal: &Terminal, source: Source) -> io::Result<Registration> {
        self.driver.register(terminal.as_fd(), Readiness::Readable, source)
    }

    fn unwatch_terminal(&mut self, terminal: &Terminal, registration: Registration) {
        self.driver.deregister(terminal.as_fd(), registration);
    }

    fn copy_output(&mut self, terminal: &mut Terminal) -> Result<Copied> {
        let copied = terminal.copy(self.buffer());
        if let Err(problem) = &copied
            && problem.raw_os_error() == Some(Errno::NOSPC.raw_os_error())
        {
            let told = self.space.write_failed(Instant::now());
            self.report_space(told);
        }
        copied
    }

    fn copy_last_output(&mut self, terminal: &mut Terminal) -> Result<()> {
        terminal.copy_last(self.buffer())
    }

    fn finish_log(&mut self, log: Key) -> Result<u64> {
        let end = self.logs.finish(&mut self.driver, log, &mut self.queue);
        end.map_err(|cause| into_error("find the end of log", self.logs.place(log).path(), cause))
    }

    fn finish_log_at(&mut self, log: Key, end: u64, at: Duration) {
        self.logs.finish_at(&mut self.driver, log, end, at);
    }

    fn log_cut(&mut self, log: Key, since: Instant, is_known: bool) -> Option<Error> {
        let directory = Arc::clone(&self.directory);
        let told = self.space.check(Instant::now(), || directory.available());
        self.report_space(told);
        let path = || self.logs.place(log).path();
        let is_cut = is_known || self.space.was_full_since(since);
        is_cut.then(|| JobError::LogCut { path: path() }.into())
    }

    fn log_exceeded(&mut self, log: Key) -> bool {
        self.logs.take_exceeded_of(log)
    }

    fn log_discarded(&self, log: Key) -> u64 {
        self.logs.beyond(log)
    }

    fn log_problem(&mut self, log: Key) -> Option<Error> {
        let cause = self.logs.take_problem(log)?;
        let path = self.logs.place(log).path();
        Some(into_error("give back the oldest bytes of log", path, cause))
    }

    fn remove_log(&mut self, log: Key, keep: bool) -> Result<()> {
        let path = self.logs.place(log).path();
        let removed = self.logs.remove(&mut self.driver, log, keep);
        removed.map_err(Error::log("remove log", path))
    }
}
