//! Owns [`Reactor`]: the loop (wait, gather, settle, emit) and the public methods for jobs and
//! tails.
//!
//! Invariants: user code never runs inside; whatever is queued or due when a call returns is
//! handled by the next poll, and makes the descriptor readable for a host that polls it. Knows
//! nothing of how jobs and tails work.

use std::fs::File;
use std::io::{self, PipeWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags, openat};
use uuid::Uuid;

use crate::cgroup::{HostName, Owner, Tree};
use crate::command::{ByteSize, Command, Signal};
use crate::driver::{Driver, Notice, Source, Wait, Waker};
use crate::error::{Error, Result, SystemError, TailError};
use crate::event::{Event, Events, Report, Status, StopCause};
use crate::id::{JobId, Stream, TailId, Token};
use crate::job::{
    Bounds, Contained, Containment, History, Job, Launched, Launcher, Linux, Orphans, Registry,
    TerminalInput, open_launcher, open_null, test_placement,
};
use crate::keeper::Client;
use crate::log::{
    Bookmark, Chunk, FileId, Fill, LogDirectory, LogFile, Logs, Read, ReadError, TailOptions,
    into_error,
};
use crate::reactor::config::Config;
use crate::reactor::sweeping::Sweeping;
use crate::reactor::system_pressure::SystemPressure;
use crate::sys::{ForkMark, Nurseries, random_uuid};
use crate::trace;

/// How long dropping a reactor may wait for the jobs that it has killed.
pub(crate) const DROP_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest timeout that fits into the milliseconds of epoll. Longer ones use the timer.
const LONG: Duration = Duration::from_secs(86_400);

/// Runs programs as jobs and follows their logs, all on the thread that polls it.
///
/// It owns everything: processes, cgroups, logs and tails. Dropping it kills every job that is not
/// [detached](Command::detached) and does not [survive](Command::survives), waits up to five
/// seconds until they are gone, and removes their cgroups and, unless they are to be
/// [kept](Command::keep_log), their logs.
///
/// # In an event loop of your own
/// [`AsFd`](std::os::fd::AsFd) gives one descriptor, an epoll, that is readable whenever
/// `poll(.., Some(Duration::ZERO))` has work to do. It stays the same for the life of the reactor.
/// Register it with mio (the reactor is an [`mio::event::Source`]), a raw epoll, tokio's `AsyncFd`
/// or glib, level- or edge-triggered, and poll once with a timeout of zero after each readiness.
///
/// # Forks
/// A process that the host forks while it has a reactor can only drop it, which closes descriptors
/// and nothing else. All other calls that could disturb the jobs of the host fail there with
/// [`SystemError::Forked`]. Do not poll the descriptor there either.
///
/// # Threads
/// A reactor is `Send` and `Sync`. Whatever takes `&self`, such as [`status`](Self::status) or
/// [`stats`](Self::stats), may be called from any thread; whatever changes something takes
/// `&mut self`, so the borrow checker keeps two threads from doing so at once. To end the `poll`
/// of another thread, use a [`Waker`].
///
/// # What is not guaranteed
/// * A readable descriptor does not mean that there is an event: it may be internal work, after
///   which a poll with a timeout of zero returns no events. A poll with a longer timeout returns
///   none only once that has passed.
/// * Events of different jobs come in no particular order.
///
/// # Examples
///
/// ```
/// use jobworker::{Command, Event, Events, Position, Reactor, Token};
///
/// let mut reactor = Reactor::new()?;
/// let job = reactor.spawn(Command::new("echo").arg("hello"), Token(1))?;
/// reactor.tail(job, Position::Start, Token(2))?;
/// let (mut events, mut output) = (Events::with_capacity(64), Vec::new());
/// 'job: loop {
///     reactor.poll(&mut events, None)?;
///     for event in &events {
///         match event {
///             Event::Readable { tail, .. } => {
///                 while let Some(chunk) = reactor.next_chunk(*tail)? {
///                     output.extend_from_slice(chunk.bytes);
///                 }
///             }
///             Event::Finished { .. } => break 'job,
///             _ => {}
///         }
///     }
/// }
/// assert_eq!(output, b"hello\n");
/// # Ok::<(), jobworker::Error>(())
/// ```
#[derive(Debug)]
#[doc(alias = "epoll")]
pub struct Reactor {
    pub(super) system: Linux,
    pub(super) jobs: Registry<Linux>,
    pub(super) launcher: Arc<Launcher>,
    pub(super) system_pressure: SystemPressure,
    pub(super) sweeping: Sweeping,
    /// Who holds the pidfds of the jobs that survive this host, if it can have such jobs.
    pub(super) keeper: Option<Client>,
    /// Empty between turns; kept to reuse its memory.
    notices: Vec<Notice>,
    /// Every descriptor is shared with a process that the host forks, but nothing of what they are
    /// for is that process's.
    mark: ForkMark,
}

impl Reactor {
    /// A reactor with the default [`Config`].
    ///
    /// # Errors
    /// As for [`with_config`](Self::with_config).
    pub fn new() -> Result<Self> {
        Self::with_config(&Config::new())
    }

    /// A reactor with this configuration. Blocks for about as long as a spawn takes: a child is
    /// cloned into a new cgroup to check that it is placed there. With a
    /// [launcher](Config::launcher), blocks until that has answered, for ten seconds at most.
    ///
    /// # Errors
    /// [`Error::System`]: `NoCgroup` when there is no cgroup tree to work in, or the child was not
    /// placed in its group; `LogDirectory` or `Path` when the log directory cannot be used;
    /// `Launcher` or `Path` when the launcher cannot be; `Keeper` when the path of a keeper's
    /// socket is too long; `Loop` when epoll, inotify, timer or stack cannot be created.
    /// [`Error::Spawn`] (`Placement` or `Frozen`) when no process can be cloned into a cgroup of
    /// the tree.
    pub fn with_config(config: &Config) -> Result<Self> {
        let nurseries =
            Nurseries::new().map_err(Error::event_loop("map a stack for new processes"))?;
        let name = config.name.as_deref().map(HostName::new);
        let refused =
            |reason| SystemError::Name { name: config.name.clone().unwrap_or_default(), reason };
        let name = name.transpose().map_err(refused)?;
        let mut owner = match config.containment {
            Containment::Cgroup => Some(usable_tree(config, &nurseries)?),
            // Whatever is missing: that is what was asked for.
            Containment::BestAvailable => usable_tree(config, &nurseries).ok(),
            Containment::ProcessGroup => None,
        };
        if let (Some(owner), Some(name)) = (&mut owner, name) {
            owner.take_name(name, config.wait_for_name)?;
        }
        let is_named = owner.as_ref().is_some_and(|owner| owner.host_name().is_some());
        let keeper = config.keeper.as_deref().map(Client::new).transpose()?;
        let directory = match &config.log_dir {
            Some(dir) => {
                LogDirectory::make(dir)?;
                LogDirectory::open(dir)?
            }
            None => LogDirectory::temporary(random_uuid)?,
        };
        let bounds = Bounds {
            which: config.bounded_spawns,
            timeout: config.spawn_timeout,
            launcher: match &config.launcher {
                Some(path) => Some(open_launcher(path, &nurseries, open_null()?)?),
                None => None,
            },
        };
        let history = match &config.history {
            Some(dir) => {
                LogDirectory::make(dir)?;
                Some((History::open(dir)?, config.history_sync))
            }
            None => None,
        };
        let directory = Arc::new(directory);
        let logs_in = (Arc::clone(&directory), config.logs_total.is_some());
        let launcher = Launcher::new(owner, nurseries, logs_in, bounds, history.clone())?;
        // Tail ids start at a random number, so that those of another reactor are not mistaken for
        // ours.
        let unique = random_uuid()?.as_fields().0;
        let total = config.logs_total.map(ByteSize::as_bytes);
        let mut logs = Logs::new(config.window_bytes, config.pace, unique, total);
        if !config.busy_poll.is_zero() {
            logs.turn_on_glances();
        }
        let orphans = config.reap_orphans.then(Orphans::new).transpose()?;
        let reactor = Self {
            system: Linux::new(Driver::new(config.busy_poll)?, logs, directory, orphans, history),
            jobs: Registry::new(),
            launcher: Arc::new(launcher),
            system_pressure: SystemPressure::default(),
            sweeping: Sweeping::default(),
            keeper: keeper.filter(|_| is_named),
            notices: Vec::new(),
            mark: ForkMark::new().map_err(Error::event_loop("map a page that forks wipe"))?,
        };
        trace::reactor_created();
        Ok(reactor)
    }

    /// How the processes of a job are held together:
    /// [`Cgroup`](Containment::Cgroup) or [`ProcessGroup`](Containment::ProcessGroup).
    ///
    /// ```
    /// use jobworker::{Config, Containment, Reactor};
    ///
    /// let mut config = Config::new();
    /// let reactor = Reactor::with_config(config.containment(Containment::BestAvailable))?;
    /// if reactor.containment() != Containment::Cgroup {
    ///     eprintln!("jobs have no limits here, and can leave processes behind");
    /// }
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    #[must_use]
    pub fn containment(&self) -> Containment {
        self.launcher.containment()
    }

    /// Waits for events, and replaces the content of `events` with those that have occurred.
    ///
    /// With `None` it blocks until there is at least one event; with a timeout of zero it does not
    /// block. Other timeouts are kept to the resolution of the kernel's timers, not rounded to
    /// milliseconds, and a signal that interrupts the call does not shorten them.
    ///
    /// At most [`Events::capacity`] events are returned. The rest stays queued, and the next call
    /// returns it without blocking. Nothing is allocated once the reactor has warmed up, and the
    /// cost depends on what is ready, not on how many jobs and tails there are.
    ///
    /// ```
    /// use jobworker::{Events, Reactor};
    /// use std::time::{Duration, Instant};
    ///
    /// let mut reactor = Reactor::new()?;
    /// let mut events = Events::with_capacity(64);
    /// let started = Instant::now();
    /// reactor.poll(&mut events, Some(Duration::from_micros(250)))?;
    /// assert!(events.is_empty() && started.elapsed() >= Duration::from_micros(250));
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::System`] (`Loop`) when waiting on the epoll, reading inotify events or setting the
    /// timer fails. This is not expected in practice. Failures of a single job are reported in its
    /// events and its report, and those of a tail by the calls that read it.
    pub fn poll(&mut self, events: &mut Events, timeout: Option<Duration>) -> Result<()> {
        self.check_process()?;
        events.clear();
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut wait = match timeout {
            Some(Duration::ZERO) => Wait::Not,
            // epoll counts in milliseconds: it handles timeouts of whole milliseconds itself, and
            // the timer handles all others.
            Some(whole) if whole.subsec_nanos() % 1_000_000 == 0 && whole < LONG => {
                Wait::Milliseconds(whole)
            }
            _ => Wait::Until(until),
        };
        loop {
            self.turn(wait)?;
            self.emit(events);
            if wait == Wait::Not
                || !events.is_empty()
                || until.is_some_and(|until| until <= Instant::now())
            {
                return self.tell_host();
            }
            // The turn had no event for the host. The rest of the timeout is not a whole number of
            // milliseconds.
            wait = Wait::Until(until);
        }
    }

    /// Fails in a process that was forked from the one that made this reactor.
    #[inline]
    pub(super) fn check_process(&self) -> Result<()> {
        if self.mark.is_here() { Ok(()) } else { Err(self.forked()) }
    }

    #[cold]
    fn forked(&self) -> Error {
        SystemError::Forked { owner: self.mark.pid() }.into()
    }

    /// One turn of the loop, which does not wait when events are queued.
    fn turn(&mut self, wait: Wait) -> Result<()> {
        let wait = if self.system.queue.is_empty() { wait } else { Wait::Not };
        self.advance(wait)
    }

    /// Waits for the kernel, unless there is work to do, then handles what it reports.
    fn advance(&mut self, wait: Wait) -> Result<()> {
        let due = self.system.has_work() || self.jobs.has_work();
        let wait = if due { Wait::Not } else { wait };
        let deadline = if wait == Wait::Not { None } else { self.next_deadline() };
        let Linux { driver, logs, queue, .. } = &mut self.system;
        driver.wait(wait, deadline, |driver| logs.glance(driver, Instant::now(), queue))?;
        self.settle()
    }

    /// Handles notices and deadlines first, then the logs: the end of a job decides where its log
    /// ends.
    fn settle(&mut self) -> Result<()> {
        // Only what was left by earlier turns: what begins in this one has had its share.
        let unfinished = self.jobs.unfinished();
        let mut notices = std::mem::take(&mut self.notices);
        let taken = self.system.driver.take_notices(&mut notices);
        let happened = !notices.is_empty();
        // Before logs that are kept short make room.
        let grows = self.system.logs.may_have_grown();
        self.system.check_space(Instant::now(), happened || grows);
        for notice in notices.drain(..) {
            self.dispatch(notice);
        }
        if happened && self.jobs.looks_again() {
            self.jobs.look_again(&mut self.system);
        }
        self.notices = notices;
        taken?;
        let now = Instant::now();
        self.jobs.deadlines_passed(now, &mut self.system);
        if !unfinished.is_empty() {
            self.jobs.go_on(&unfinished, &mut self.system);
        }
        self.jobs.copy_output(&mut self.system);
        self.system.reap_orphans(happened);
        let Linux { driver, logs, queue, .. } = &mut self.system;
        logs.visit_due(driver, now, queue);
        while let Some(log) = self.system.logs.take_exceeded() {
            self.jobs.log_exceeded(log, &mut self.system);
        }
        if self.system.take_full() {
            self.jobs.logs_have_no_room(&mut self.system);
        }
        Ok(())
    }

    /// Routes a notice to the job or log that it is about.
    fn dispatch(&mut self, notice: Notice) {
        let (jobs, system) = (&mut self.jobs, &mut self.system);
        match notice {
            // Handling an earlier notice of this turn may have deregistered it.
            Notice::Ready { registration, .. } if !system.driver.is_registered(registration) => {}
            Notice::Ready { registration, source, priority } => match source {
                Source::Job(job, source) => jobs.ready(job, source, registration, priority, system),
                Source::SystemPressure(_) => {
                    if let Some(event) = self.system_pressure.ready(registration, priority) {
                        trace::queued(&event);
                        system.queue.push(event);
                    }
                }
                Source::Sweep => {
                    self.sweeping.ready(registration, self.launcher.owner(), system);
                }
                Source::Orphan => system.orphan_exited(registration),
                Source::Keeper => self.keeper_ready(),
                Source::Log(_) | Source::Name(_) | Source::Directory => {
                    unreachable!("it is watched, not registered")
                }
            },
            Notice::Changed(Source::Log(log)) => system.logs.changed(log),
            Notice::Changed(Source::Name(tail)) => system.logs.name_changed(tail),
            Notice::WatchLost(Source::Log(log)) => {
                system.logs.watch_lost(&mut system.driver, log);
            }
            Notice::Changed(Source::Job(job, source))
            | Notice::WatchLost(Source::Job(job, source)) => jobs.changed(job, source, system),
            Notice::Changed(
                Source::SystemPressure(_) | Source::Sweep | Source::Orphan | Source::Keeper,
            )
            | Notice::WatchLost(
                Source::SystemPressure(_) | Source::Sweep | Source::Orphan | Source::Keeper,
            ) => {
                unreachable!("it is registered, not watched")
            }
            // Its own attributes; what concerns the names in it is reported of these.
            Notice::Changed(Source::Directory) => {}
            Notice::WatchLost(Source::Directory | Source::Name(_)) => {
                unreachable!("what becomes of a directory is reported of the names in it")
            }
            Notice::Overflow => {
                system.logs.everything_changed();
                jobs.everything_changed(system);
            }
            Notice::Woken => system.queue.push(Event::Woken),
        }
    }

    fn emit(&mut self, events: &mut Events) {
        let Linux { logs, queue, .. } = &mut self.system;
        // Events of a job that was removed meanwhile are dropped.
        let wanted = |event: &Event| event.job().is_none_or(|job| self.jobs.contains(job));
        logs.emit(queue, events, wanted);
    }

    pub(super) fn has_work(&self) -> bool {
        !self.system.queue.is_empty() || self.system.has_work() || self.jobs.has_work()
    }

    fn next_deadline(&mut self) -> Option<Instant> {
        let pace = self.system.logs.pace_at(Instant::now);
        let look = self.system.look_at_space();
        self.jobs.next_deadline().into_iter().chain(pace).chain(look).min()
    }

    /// Makes the descriptor readable, for a host that polls it, when work is due now, and sets the
    /// timer for what is due later.
    #[inline]
    pub(super) fn tell_host(&mut self) -> Result<()> {
        // Checked on every call; usually false.
        if self.system.driver.is_nested() { self.tell_polling_host() } else { Ok(()) }
    }

    #[inline(never)]
    fn tell_polling_host(&mut self) -> Result<()> {
        let (has_work, deadline) = (self.has_work(), self.next_deadline());
        self.system.driver.tell_host(has_work, deadline)
    }

    /// Starts a job. `token` comes back with the job's events.
    ///
    /// Blocks until the program is executed, or until that has failed: 0.2 to 0.5 ms, whatever the
    /// size of the host (see the `spawn` benchmark). The spawn of a command that changes ids takes
    /// longer in a large host that has no [launcher](Config::launcher), which is the time that it
    /// takes to copy the host. Whatever others do to the child, it is given up after
    /// [`Config::spawn_timeout`], and has a second more to die; see
    /// [`BoundedSpawns`](crate::BoundedSpawns).
    ///
    /// ```
    /// use jobworker::{Command, Exit, Reactor, Token};
    ///
    /// let mut reactor = Reactor::new()?;
    /// let mut command = Command::new("sh");
    /// command.args(["-c", "exit 3"]).env("HOME", "/");
    /// let job = reactor.spawn(&command, Token(1))?;
    /// assert_eq!(reactor.wait(job)?.exit, Exit::Code(3));
    /// reactor.remove(job)?;
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    ///
    /// # Errors
    /// Nothing of a failed attempt is left. [`Error::Spawn`]: `Failed` says which step failed in
    /// the child, and why, such as [`Stage::Exec`](crate::Stage::Exec) for a program that does not
    /// exist or may not be executed; `TimedOut` comes when it was not executed in time, and names a
    /// process that is left, if it could not be killed; `InvalidCommand` and `Frozen` come before
    /// there is a child.
    /// [`Error::Limits`] when a limit is not acceptable or would not be enforced. [`Error::System`]
    /// (`Path`) for the cgroup, the log and standard input.
    #[doc(alias = "clone3")]
    pub fn spawn(&mut self, command: &Command, token: Token) -> Result<JobId> {
        self.check_process()?;
        let launched = self.launcher.launch(command)?;
        self.adopt(launched, token)
    }

    /// Takes the host's end of the pipe that is a job's standard input, of a command with
    /// [`Stdin::Piped`](crate::Stdin::Piped). `None` if it was taken before, if the job has no such
    /// pipe, or if it is finished.
    ///
    /// Dropping the writer is the end of the job's input. Until it is taken, the reactor keeps it
    /// open; it is then closed by [`wait`](Self::wait), so that a job that reads to the end of its
    /// input can end, when the job is finished, and when the reactor is dropped. The writer may
    /// outlive the job, and the reactor.
    ///
    /// # When it blocks
    /// A write blocks while the pipe is full, which is after 64 KiB as a rule: not on the thread of
    /// a loop. There, make the descriptor non-blocking (`rustix::io::ioctl_fionbio`), which leaves
    /// the job's end as it is, and register it for writability; mio's and tokio's `pipe::Sender`
    /// take it by `OwnedFd`.
    ///
    /// # When the job is gone
    /// A write fails with `EPIPE` ([`BrokenPipe`](std::io::ErrorKind::BrokenPipe)) once no process
    /// has the other end open, for neither the command nor the reactor holds it. The kernel sends
    /// SIGPIPE as well, which Rust programs ignore unless they were told otherwise; a host whose
    /// main program is not Rust has to ignore or block it.
    ///
    /// ```
    /// use jobworker::{Command, Position, Reactor, Stdin, Token};
    /// use std::io::Write;
    ///
    /// let mut reactor = Reactor::new()?;
    /// let job = reactor.spawn(Command::new("cat").stdin(Stdin::Piped), Token(1))?;
    /// let mut stdin = reactor.take_stdin(job)?.unwrap();
    /// stdin.write_all(b"hello\n")?;
    /// drop(stdin);
    /// reactor.wait(job)?;
    /// let tail = reactor.tail(job, Position::Start, Token(2))?;
    /// assert_eq!(reactor.next_chunk(tail)?.unwrap().bytes, b"hello\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Job`] (`Unknown`) for a job that was removed.
    pub fn take_stdin(&mut self, job: JobId) -> Result<Option<PipeWriter>> {
        self.check_process()?;
        self.with_job(job, |job, _| job.take_stdin())
    }

    /// Types into the terminal of a job, of a command with
    /// [`Output::Terminal`](crate::Output::Terminal): the job reads it from its standard input if
    /// that is [`Stdin::Terminal`](crate::Stdin::Terminal), and from `/dev/tty`.
    ///
    /// Each call opens another descriptor to type by; see [`TerminalInput`] for when it blocks, and
    /// how long it can be used.
    ///
    /// ```
    /// use jobworker::{Command, Output, Reactor, Signal, Stdin, Terminal, Token};
    ///
    /// let mut reactor = Reactor::new()?;
    /// let mut command = Command::new("cat");
    /// command.stdin(Stdin::Terminal).output(Output::Terminal(Terminal::new(24, 80)));
    /// let job = reactor.spawn(&command, Token(1))?;
    /// // Ctrl-C.
    /// assert_eq!(reactor.terminal_input(job)?.try_write(b"\x03")?, 1);
    /// assert_eq!(reactor.wait(job)?.exit.signal(), Some(Signal::INT));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Job`] (`Unknown`, `NoTerminal` or `Finished`); [`Error::System`] (`Loop`) when
    /// there is no free descriptor.
    pub fn terminal_input(&self, job: JobId) -> Result<TerminalInput> {
        self.check_process()?;
        self.jobs.get(job)?.terminal()?.input()
    }

    /// Changes the size of a job's terminal. The kernel sends SIGWINCH to the terminal's foreground
    /// process group, if the size is another one. Does not block.
    ///
    /// # Errors
    /// [`Error::Job`] (`Unknown`, `NoTerminal` or `Finished`); [`Error::System`] (`Loop`) when the
    /// kernel refuses it, which should not happen.
    #[doc(alias = "TIOCSWINSZ")]
    pub fn resize(&mut self, job: JobId, rows: u16, columns: u16) -> Result<()> {
        self.check_process()?;
        self.jobs.get(job)?.terminal()?.resize(rows, columns)
    }

    /// Adopts a job that was started, on any thread.
    pub(crate) fn adopt(&mut self, launched: Launched, token: Token) -> Result<JobId> {
        let job = self.jobs.adopt(launched, token, &mut self.system)?;
        self.hand_over(job);
        self.tell_host()?;
        Ok(job)
    }

    /// Opens a tail on the log of a job, running or finished. `token` comes back with its events.
    ///
    /// The offset at which it starts is fixed by this call: what the job writes afterwards is read.
    /// The tail ends where the job's output ends. Opening the first tail of a log takes a file
    /// descriptor and an inotify watch, which all tails of the log share.
    ///
    /// Growth is noticed by inotify. A job that writes by `io_submit` raises no inotify event: the
    /// kernel has none for it (`io_uring` does). What it has written is read with the next growth
    /// by other means, at the latest when the job has finished.
    ///
    /// The log is the file that was made for the job. If the job has put another file in its place
    /// while the log had no tails, the tail is refused.
    ///
    /// ```
    /// use jobworker::{Command, Position, Reactor, Read, Token};
    ///
    /// let mut reactor = Reactor::new()?;
    /// let job = reactor.spawn(Command::new("seq").arg("1000"), Token(1))?;
    /// reactor.wait(job)?;
    /// let tail = reactor.tail(job, Position::LastLines(2), Token(2))?;
    /// let mut buffer = [0; 64];
    /// assert_eq!(reactor.read(tail, &mut buffer)?, Read::Data(9));
    /// assert_eq!(&buffer[..9], b"999\n1000\n");
    /// assert_eq!(reactor.read(tail, &mut buffer)?, Read::Ended);
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Job`] (`Unknown`); [`Error::Tail`]: `NoLog` when the job has no such log,
    /// `Replaced` when it was replaced or removed, `Io` when it cannot be opened, watched
    /// or read, `WatchLimit` when `fs.inotify.max_user_watches` is reached.
    pub fn tail(
        &mut self,
        job: JobId,
        options: impl Into<TailOptions>,
        token: Token,
    ) -> Result<TailId> {
        self.check_process()?;
        let options = options.into();
        let stream = options.stream;
        let log = self.jobs.get(job)?.log(stream).ok_or(TailError::NoLog { job, stream })?;
        let Linux { driver, logs, queue, .. } = &mut self.system;
        let opened = logs.open_tail(driver, log, options, token, queue);
        let tail =
            opened.map_err(|cause| into_error("follow log", logs.place(log).path(), cause))?;
        self.tell_host()?;
        Ok(tail)
    }

    /// Opens a tail on any regular file, which need not be the log of a job. It ends only if it is
    /// a snapshot.
    ///
    /// The tail stays on the file that was opened, even if that is renamed or removed; with
    /// [`TailOptions::by_name`] it goes on to the files that get the name after it. Interface files
    /// of cgroups are refused: they do not grow.
    ///
    /// ```
    /// use jobworker::{Position, Reactor, Read, TailOptions, Token};
    ///
    /// let mut reactor = Reactor::new()?;
    /// let mut options = TailOptions::new(Position::Start);
    /// let tail = reactor.tail_file("/etc/passwd", options.snapshot(), Token(0))?;
    /// let mut buffer = [0; 5];
    /// assert_eq!(reactor.read(tail, &mut buffer)?, Read::Data(5));
    /// assert_eq!(&buffer, b"root:");
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Tail`]: `Io` when the file cannot be opened or watched, or is not a regular file;
    /// `WatchLimit` when `fs.inotify.max_user_watches` is reached. By name, a file that does not
    /// exist is no error.
    pub fn tail_file(
        &mut self,
        path: impl AsRef<Path>,
        options: impl Into<TailOptions>,
        token: Token,
    ) -> Result<TailId> {
        self.check_process()?;
        let (path, options) = (path.as_ref(), options.into());
        if options.by_name && options.follow {
            return self.tail_name(path, options, token);
        }
        // NONBLOCK, so that opening a pipe does not wait for its writer.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        let file = openat(CWD, path, flags, Mode::empty());
        let file = file.map_err(Error::log("open log", path))?;
        if Tree::contains(&file) {
            // Such a file changes in place, and an inotify watch of it may be a job's.
            let cause = io::Error::other("an interface file of a cgroup is not a log");
            return Err(Error::log("follow", path)(cause));
        }
        let file =
            LogFile::new(File::from(file), path.to_owned()).map_err(Error::log("follow", path))?;
        let Linux { driver, logs, queue, .. } = &mut self.system;
        let opened = logs.open_file(driver, file, options, token, queue);
        let tail = opened.map_err(|cause| into_error("follow", path.to_owned(), cause))?;
        self.tell_host()?;
        Ok(tail)
    }

    /// Opens a tail on whatever file has a name.
    fn tail_name(&mut self, path: &Path, options: TailOptions, token: Token) -> Result<TailId> {
        // The host may change its working directory later.
        let name = std::path::absolute(path).map_err(Error::log("follow", path))?;
        let Linux { driver, logs, queue, .. } = &mut self.system;
        let opened = logs.open_name(driver, name, options, token, queue);
        let tail = opened.map_err(|cause| into_error("follow", path.to_owned(), cause))?;
        self.tell_host()?;
        Ok(tail)
    }

    /// Returns the next bytes of a tail and marks them as read, without copying as long as the tail
    /// keeps up; `None` when there is nothing more for now, or at the end.
    ///
    /// This is the simplest way to read: a `while let Some(chunk)` loop returns every byte, in
    /// order, across truncations, which [`Chunk::truncated`] reports, over bytes that were not
    /// [kept](Command::log_keep), whose number is [`Chunk::skipped`], and from file to file, which
    /// [`Chunk::replaced`] reports. Once it has returned `None`, [`Event::Readable`] comes when
    /// there is more. At the end it stays `None`; if the tail was opened before its job finished,
    /// [`Event::Finished`] comes after the last `Readable`. Call [`read`](Self::read) to tell an
    /// end from a pause.
    ///
    /// A chunk is of a bounded size, but a job that writes without a pause can keep such a loop
    /// going: bound the number of chunks per turn if other work must not wait, and
    /// [`requeue`](Self::requeue) the tail for the rest. Does not block, but may read the file.
    ///
    /// ```
    /// use jobworker::{Position, Reactor, TailOptions, Token};
    ///
    /// let mut reactor = Reactor::new()?;
    /// let mut options = TailOptions::new(Position::Start);
    /// let tail = reactor.tail_file("/etc/passwd", options.snapshot(), Token(0))?;
    /// let mut copy = Vec::new();
    /// while let Some(chunk) = reactor.next_chunk(tail)? {
    ///     copy.extend_from_slice(chunk.bytes);
    /// }
    /// assert_eq!(copy, std::fs::read("/etc/passwd").unwrap());
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub fn next_chunk(&mut self, tail: TailId) -> Result<Option<Chunk<'_>>> {
        self.check_process()?;
        let Linux { driver, logs, queue, .. } = &mut self.system;
        let filled = logs.fill(driver, tail, queue);
        self.tell_host()?;
        let filled = filled.map_err(|error| self.read_error(tail, error))?;
        self.consume(tail, usize::MAX)?;
        Ok(match self.system.logs.show(filled) {
            Fill::Data(bytes) => Some(Chunk { bytes, ..Chunk::EMPTY }),
            Fill::Truncated => Some(Chunk { truncated: true, ..Chunk::EMPTY }),
            Fill::Skipped { bytes } => Some(Chunk { skipped: bytes, ..Chunk::EMPTY }),
            Fill::Replaced { missed } => Some(Chunk { replaced: true, missed, ..Chunk::EMPTY }),
            Fill::UpToDate | Fill::Ended => None,
        })
    }

    /// Copies the next bytes of a tail into `buffer`. Does not block, but may read the file.
    ///
    /// Read on until [`Read::UpToDate`] or [`Read::Ended`]: after [`Read::Truncated`],
    /// [`Read::Skipped`] and [`Read::Replaced`] no event announces the bytes that follow.
    ///
    /// # Errors
    /// [`Error::Tail`] (`Unknown`, or `Io` or `WatchLimit` when the file cannot be read or watched:
    /// nothing is skipped, and the tail can be read again). Of a tail that follows a name also `Io`
    /// when the name leads to something that cannot be read: once, and then the tail reads on.
    pub fn read(&mut self, tail: TailId, buffer: &mut [u8]) -> Result<Read> {
        self.check_process()?;
        let Linux { driver, logs, queue, .. } = &mut self.system;
        let read = logs.read(driver, tail, buffer, queue);
        self.tell_host()?;
        read.map_err(|error| self.read_error(tail, error))
    }

    /// Returns the next bytes of a tail, without copying as long as the tail keeps up.
    ///
    /// The bytes stay unread until [`consume`](Self::consume). Does not block, but may read the
    /// file.
    ///
    /// ```
    /// use jobworker::{Command, Fill, Position, Reactor, Token};
    ///
    /// let mut reactor = Reactor::new()?;
    /// let job = reactor.spawn(Command::new("echo").arg("one line"), Token(1))?;
    /// let tail = reactor.tail(job, Position::Start, Token(2))?;
    /// reactor.wait(job)?;
    /// let Fill::Data(bytes) = reactor.fill_buf(tail)? else { panic!() };
    /// assert_eq!(bytes, b"one line\n");
    /// reactor.consume(tail, 4)?;
    /// assert_eq!(reactor.fill_buf(tail)?, Fill::Data(b"line\n"));
    /// reactor.consume(tail, 5)?;
    /// assert_eq!(reactor.fill_buf(tail)?, Fill::Ended);
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub fn fill_buf(&mut self, tail: TailId) -> Result<Fill<'_>> {
        self.check_process()?;
        let Linux { driver, logs, queue, .. } = &mut self.system;
        let filled = logs.fill(driver, tail, queue);
        self.tell_host()?;
        match filled {
            Ok(filled) => Ok(self.system.logs.show(filled)),
            Err(error) => Err(self.read_error(tail, error)),
        }
    }

    /// Marks the first `amount` bytes of the last [`fill_buf`](Self::fill_buf) of this tail as
    /// read, and never more than that call returned.
    ///
    /// # Errors
    /// [`Error::Tail`] (`Unknown`).
    pub fn consume(&mut self, tail: TailId, amount: usize) -> Result<()> {
        self.check_process()?;
        self.system.logs.consume(tail, amount).map_err(|error| self.read_error(tail, error))
    }

    /// Puts a tail that was not read to its end for now behind all that waits: the next
    /// [`poll`](Self::poll) does not block, and has another [`Event::Readable`] for it. So a host
    /// reads a bounded amount of each tail in turn, and no loud job keeps the others waiting.
    ///
    /// If there is nothing to read, the event comes when there is.
    ///
    /// ```
    /// use jobworker::{Event, Events, Position, Reactor, TailOptions, Token};
    ///
    /// let mut reactor = Reactor::new()?;
    /// let tail = reactor.tail_file("/etc/passwd", Position::Start, Token(0))?;
    /// let (mut events, mut copy) = (Events::with_capacity(8), Vec::new());
    /// let length = std::fs::metadata("/etc/passwd").unwrap().len() as usize;
    /// while copy.len() < length {
    ///     reactor.poll(&mut events, None)?;
    ///     for event in &events {
    ///         let Event::Readable { tail, .. } = *event else { continue };
    ///         let mut buffer = [0; 100];
    ///         if let jobworker::Read::Data(length) = reactor.read(tail, &mut buffer)? {
    ///             copy.extend_from_slice(&buffer[..length]);
    ///             reactor.requeue(tail)?;
    ///         }
    ///     }
    /// }
    /// assert_eq!(copy, std::fs::read("/etc/passwd").unwrap());
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Tail`] (`Unknown`).
    pub fn requeue(&mut self, tail: TailId) -> Result<()> {
        self.check_process()?;
        let Linux { logs, queue, .. } = &mut self.system;
        let queued = logs.requeue(tail, queue);
        self.tell_host()?;
        queued.map_err(|error| self.read_error(tail, error))
    }

    /// The offset in the log of the byte that the tail reads next: a later tail can continue there.
    /// A [`bookmark`](Self::bookmark) tells that one of a truncation as well.
    ///
    /// While the place of a tail is still being looked for, see
    /// [`LastLines`](crate::Position::LastLines), it is the end that the log had when the tail was
    /// opened.
    ///
    /// # Errors
    /// [`Error::Tail`] (`Unknown`).
    pub fn position(&self, tail: TailId) -> Result<u64> {
        let position = self.system.logs.position(tail);
        position.ok_or_else(|| TailError::Unknown(tail).into())
    }

    /// Where a tail is: a later one can go on there, with
    /// [`Position::After`](crate::Position::After), in another process as well. Unlike a
    /// [`position`](Self::position) alone, it tells if the log was truncated meanwhile.
    ///
    /// Reads the last 16 bytes before the position from the file.
    ///
    /// # Errors
    /// [`Error::Tail`] (`Unknown`, or `Io` when the log cannot be read).
    pub fn bookmark(&mut self, tail: TailId) -> Result<Bookmark> {
        self.check_process()?;
        let Linux { driver, logs, queue, .. } = &mut self.system;
        let bookmark = logs.bookmark(driver, tail, queue);
        self.tell_host()?;
        bookmark.map_err(|error| self.read_error(tail, error))
    }

    /// Which file a tail reads now: with the [`position`](Self::position) in it, a later tail that
    /// follows [by name](TailOptions::by_name) can [resume](TailOptions::resume) there. `None` when
    /// the name has led to no file yet.
    ///
    /// Makes no system call. Ask for both after the same read: each
    /// [`Read::Replaced`] changes both.
    ///
    /// # Errors
    /// [`Error::Tail`] (`Unknown`).
    pub fn file_id(&self, tail: TailId) -> Result<Option<FileId>> {
        let identity = self.system.logs.identity_of(tail);
        Ok(identity.ok_or(TailError::Unknown(tail))?.map(FileId))
    }

    /// Closes a tail. Its slot is free at once, and it gets no further events.
    ///
    /// # Errors
    /// [`Error::Tail`] (`Unknown`).
    pub fn close(&mut self, tail: TailId) -> Result<()> {
        self.check_process()?;
        let Linux { driver, logs, .. } = &mut self.system;
        logs.close(driver, tail).ok_or(TailError::Unknown(tail))?;
        self.tell_host()
    }

    /// Stops a job: sends its stop signal to every process, and kills what is left after its grace
    /// period, which begins now. The signal is sent as by [`signal`](Self::signal), and once more
    /// when the main process exits, to what it has forked after it had the signal.
    ///
    /// The grace period is for all processes: a shell that dies of the signal leaves the program
    /// that it has run the time to act on it. So a process that ignores the signal, as the
    /// background jobs of a shell ignore SIGINT, holds the end up until the period is over.
    ///
    /// Returns at once; [`Event::Finished`] reports that it is done. Stopping a job that is being
    /// stopped or has finished changes nothing.
    ///
    /// ```
    /// use jobworker::{Command, Reactor, Signal, StopCause, Token};
    ///
    /// let mut reactor = Reactor::new()?;
    /// let job = reactor.spawn(Command::new("sleep").arg("1000"), Token(1))?;
    /// reactor.stop(job)?;
    /// let report = reactor.wait(job)?;
    /// assert_eq!(report.exit.signal(), Some(Signal::TERM));
    /// assert_eq!(report.stopped_by, Some(StopCause::Stop));
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Job`] (`Unknown`). A failure to signal is recorded in the job's report, and does
    /// not prevent the kill.
    pub fn stop(&mut self, job: JobId) -> Result<()> {
        self.check_process()?;
        self.with_job(job, |job, system| job.stop(None, system))
    }

    /// Like [`stop`](Self::stop), but with this grace period. For a job that is already being
    /// stopped, this can shorten the grace period, but not extend it.
    ///
    /// # Errors
    /// As for [`stop`](Self::stop).
    pub fn stop_within(&mut self, job: JobId, grace: Duration) -> Result<()> {
        self.check_process()?;
        self.with_job(job, |job, system| job.stop(Some(grace), system))
    }

    /// Kills every process of a job, those that are being forked included. Returns at once;
    /// [`Event::Finished`] reports that they are gone.
    ///
    /// # Errors
    /// [`Error::Job`] (`Unknown`).
    #[doc(alias = "cgroup.kill")]
    pub fn kill(&mut self, job: JobId) -> Result<()> {
        self.check_process()?;
        self.with_job(job, |job, system| job.kill(StopCause::Kill, system))
    }

    /// Sends a signal to every process of a job. Stopped processes are continued, so that they can
    /// act on it. For a finished job nothing is done.
    ///
    /// At most about 100 processes are signalled by the call. If the job has more, each of its
    /// turns, which 16 jobs have in a turn of the loop, signals as many until all have the signal,
    /// those that were forked meanwhile by one that had not got it included: poll on. The
    /// descriptor is readable until then, other jobs and tails are served in between, and no event
    /// reports the end.
    ///
    /// A signal that is sent before an earlier one has reached every process follows it, so that
    /// each process gets them in order. If it waits already, it is sent once, in the later place.
    /// SIGKILL and [`kill`](Self::kill) take the place of whatever is still to be sent. When the
    /// main process exits meanwhile and what it leaves behind is killed, the rest is not sent. Of a
    /// detached job, dropping the reactor signals the rest.
    ///
    /// # Errors
    /// [`Error::Job`] (`Unknown`); [`Error::System`] when a process may not be signalled: the
    /// others get the signal all the same. Failures after the call has returned are recorded in
    /// the job's report.
    #[doc(alias = "pidfd_send_signal")]
    pub fn signal(&mut self, job: JobId, signal: Signal) -> Result<()> {
        self.check_process()?;
        self.with_job(job, |job, system| job.signal(signal, system))?
    }

    /// Sends a signal only to the main process of a job.
    ///
    /// ```
    /// use jobworker::{Command, Reactor, Signal, Token};
    ///
    /// let mut reactor = Reactor::new()?;
    /// let job = reactor.spawn(Command::new("sleep").arg("1000"), Token(1))?;
    /// reactor.signal_main(job, Signal::INT)?;
    /// assert_eq!(reactor.wait(job)?.exit.shell_code(), 130);
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Job`] (`Unknown`, or `Exited` when that process is gone); [`Error::System`] when it
    /// may not be signalled.
    pub fn signal_main(&mut self, job: JobId, signal: Signal) -> Result<()> {
        self.check_process()?;
        self.jobs.get(job)?.signal_main(signal, &mut self.system)
    }

    /// The current status of a job. Makes no system call.
    ///
    /// ```
    /// use jobworker::{Command, Phase, Reactor, Token};
    ///
    /// let mut reactor = Reactor::new()?;
    /// let job = reactor.spawn(&Command::new("true"), Token(1))?;
    /// println!("{}", reactor.status(job)?);
    /// assert_eq!(reactor.status(job)?.phase, Phase::Running);
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Job`] (`Unknown`).
    pub fn status(&self, job: JobId) -> Result<Status> {
        Ok(self.status_of(self.jobs.get(job)?))
    }

    /// Blocks until a job is finished, and returns its report. Returns at once if it is already
    /// finished.
    ///
    /// For hosts that have nothing else to do meanwhile. All other jobs and tails are served as
    /// well, and no event is lost: those that occur, the job's own included, stay queued for the
    /// next [`poll`](Self::poll). A standard input that was not [taken](Self::take_stdin) is closed
    /// first. A job that never ends is waited for forever; see
    /// [`wait_timeout`](Self::wait_timeout).
    ///
    /// ```
    /// use jobworker::{Command, Exit, Reactor, Token};
    ///
    /// let mut reactor = Reactor::new()?;
    /// let job = reactor.spawn(Command::new("sh").args(["-c", "exit 3"]), Token(1))?;
    /// assert_eq!(reactor.wait(job)?.exit, Exit::Code(3));
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Job`] (`Unknown`); [`Error::System`] (`Loop`) as for [`poll`](Self::poll).
    pub fn wait(&mut self, job: JobId) -> Result<Arc<Report>> {
        // Nobody could take it before the job is finished.
        drop(self.take_stdin(job)?);
        loop {
            if let Some(report) = self.wait_until(job, None)? {
                return Ok(report);
            }
        }
    }

    /// Like [`wait`](Self::wait), but waits for at most `timeout`; `None` when the job is not
    /// finished by then.
    ///
    /// # Errors
    /// As for [`wait`](Self::wait).
    pub fn wait_timeout(&mut self, job: JobId, timeout: Duration) -> Result<Option<Arc<Report>>> {
        self.check_process()?;
        self.wait_until(job, Instant::now().checked_add(timeout))
    }

    /// The report of a job, once it is finished; `None` when the time is up first.
    fn wait_until(&mut self, job: JobId, until: Option<Instant>) -> Result<Option<Arc<Report>>> {
        self.advance(Wait::Not)?;
        loop {
            if let Some(report) = self.jobs.get(job)?.report().cloned() {
                self.tell_host()?;
                return Ok(Some(report));
            }
            if until.is_some_and(|until| until <= Instant::now()) {
                self.tell_host()?;
                return Ok(None);
            }
            self.advance(Wait::Until(until))?;
        }
    }

    /// Forgets a finished job, closes its tails and removes its log, unless that is to be kept.
    ///
    /// Of a job that [survives](Command::survives) its host, this is the acknowledgement: no later
    /// host is told of it any more. What is left to be removed if the host dies meanwhile, the next
    /// [`recovery`](Self::recovery) removes.
    ///
    /// Its events that were not polled yet are dropped: a host that counts jobs by
    /// [`Event::Finished`] removes them only after that, although [`status`](Self::status) says so
    /// a poll earlier. What was polled with that may name a tail that is closed now: reading it is
    /// [`TailError::Unknown`](crate::TailError::Unknown).
    ///
    /// ```
    /// use jobworker::{Command, ErrorKind, Reactor, Token};
    ///
    /// let mut reactor = Reactor::new()?;
    /// let job = reactor.spawn(&Command::new("true"), Token(1))?;
    /// reactor.wait(job)?;
    /// reactor.remove(job)?;
    /// assert_eq!(reactor.status(job).unwrap_err().kind(), ErrorKind::StaleId);
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Job`] (`Unknown` or `NotFinished`); [`Error::System`] (`Path`) when the log cannot
    /// be removed: the job is forgotten all the same.
    pub fn remove(&mut self, job: JobId) -> Result<()> {
        self.check_process()?;
        let is_kept = self.keeper.is_some() && self.survives(job);
        let removed = self.jobs.remove(job, &mut self.system);
        if is_kept && !self.jobs.contains(job) {
            self.tell_keeper(|keeper| keeper.let_go(job));
        }
        self.tell_host()?;
        removed
    }

    /// All jobs that have not been removed, in no particular order.
    ///
    /// ```
    /// use jobworker::{Command, Reactor, Token};
    ///
    /// let mut reactor = Reactor::new()?;
    /// reactor.spawn(&Command::new("true"), Token(1))?;
    /// for job in reactor.jobs() {
    ///     println!("{}", reactor.status(job)?);
    /// }
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    pub fn jobs(&self) -> impl Iterator<Item = JobId> {
        self.jobs.ids()
    }

    /// The job with this UUID, unless it was removed.
    #[must_use]
    pub fn find(&self, uuid: Uuid) -> Option<JobId> {
        let id = JobId::new(uuid);
        self.jobs.contains(id).then_some(id)
    }

    /// The number of objects that the reactor holds, for tests and metrics.
    ///
    /// ```
    /// use jobworker::{Command, Reactor, Token};
    ///
    /// let mut reactor = Reactor::new()?;
    /// let job = reactor.spawn(&Command::new("true"), Token(1))?;
    /// assert_eq!(reactor.census().jobs, 1);
    /// # let _ = job;
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    #[must_use]
    pub fn census(&self) -> Census {
        Census {
            jobs: self.jobs.len(),
            tails: self.system.logs.len(),
            watches: self.system.driver.watches(),
            sources: self.system.driver.registrations(),
        }
    }

    /// A handle that wakes this reactor from any thread.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.system.driver.waker().clone()
    }

    /// Runs a closure on a job, then notifies a host that polls the descriptor.
    pub(super) fn with_job<R>(
        &mut self,
        job: JobId,
        act: impl FnOnce(&mut Job<Linux>, &mut Linux) -> R,
    ) -> Result<R> {
        let system = &mut self.system;
        let result = self.jobs.with(job, |job| act(job, system))?;
        self.tell_host()?;
        Ok(result)
    }

    fn status_of(&self, job: &Job<Linux>) -> Status {
        let path = |stream| Some(self.system.logs.place(job.log(stream)?).path());
        let range = |stream| self.system.logs.span(job.log(stream)?);
        let record = job.record();
        let exit = job.exit();
        Status {
            id: record.id(),
            pid: record.pid(),
            phase: job.phase(),
            exit: exit.map(|(exit, _)| exit),
            frozen: job.is_frozen(),
            started: record.started(),
            elapsed: exit.map_or_else(|| record.spawned().elapsed(), |(_, wall)| wall),
            cgroup: job.group().and_then(Contained::path),
            output: path(Stream::Output),
            error: path(Stream::Error),
            output_range: range(Stream::Output),
            error_range: range(Stream::Error),
            report: job.report().cloned(),
        }
    }

    fn read_error(&self, tail: TailId, error: ReadError) -> Error {
        match (error, self.system.logs.file_of(tail)) {
            (ReadError::Io(cause), Some(file)) => {
                let name = self.system.logs.name_of(tail).map(PathBuf::as_path);
                into_error("read log", name.unwrap_or_else(|| file.path()).to_owned(), cause)
            }
            _ => TailError::Unknown(tail).into(),
        }
    }

    /// Kills the jobs that are not detached and waits for their end, until what they have left is
    /// reaped, if it is to be, and until every process of the others has the signals that it was
    /// sent, for a bounded time.
    fn shut_down(&mut self) -> Result<()> {
        self.jobs.kill_attached(&mut self.system);
        let until = Instant::now() + DROP_TIMEOUT;
        let busy = |reactor: &Self| {
            reactor.jobs.attached() > 0 || reactor.jobs.has_work() || reactor.system.is_reaping()
        };
        while busy(self) && Instant::now() < until {
            self.system.queue.clear();
            self.turn(Wait::Until(Some(until)))?;
        }
        self.jobs.remove_all(&mut self.system);
        Ok(())
    }
}

/// The number of objects that a reactor holds; see [`Reactor::census`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Census {
    /// Jobs, including finished ones that have not been removed.
    pub jobs: usize,
    /// Tails.
    pub tails: usize,
    /// Inotify watches.
    pub watches: usize,
    /// Descriptors that are registered with the epoll, apart from the reactor's own: pidfds,
    /// terminals, pressure triggers, the connection to a keeper, and what a sweep waits for.
    pub sources: usize,
}

impl Drop for Reactor {
    fn drop(&mut self) {
        // Another process's jobs, groups and epoll are not this one's to end or to empty.
        if self.mark.is_here() {
            trace::reactor_dropped(self.jobs.attached());
            // There is nobody left to report a failure to.
            let _ = self.shut_down();
        }
    }
}

/// Who makes groups in the cgroup tree, once a child was placed in one of them.
fn usable_tree(config: &Config, nurseries: &Nurseries) -> Result<Owner> {
    let parent = config.cgroup_parent.as_deref();
    let tree = Arc::new(Tree::locate(parent, config.host_leaf.as_deref())?);
    if let Some(leaf) = &config.host_leaf {
        Tree::move_host(leaf)?;
    }
    let owner = Owner::new(&tree)?;
    let placement = test_placement(&owner, nurseries)?;
    match placement.misplaced {
        Some(reason) => Err(SystemError::NoCgroup { reason }.into()),
        None => Ok(owner),
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::event::Exit;

    /// A reactor that needs no cgroup.
    fn reactor() -> Reactor {
        let mut config = Config::new();
        config.containment(Containment::ProcessGroup);
        Reactor::with_config(&config).unwrap()
    }

    #[test]
    fn a_job_that_another_thread_has_started_is_adopted() {
        let mut reactor = reactor();
        let launcher = Arc::clone(&reactor.launcher);
        let launched: Vec<Launched> = thread::scope(|scope| {
            let start = |code: i32| {
                let mut command = Command::new("sh");
                command.args(["-c", &format!("echo {code}; exit {code}")]);
                (0..5).map(|_| launcher.launch(&command).unwrap()).collect::<Vec<_>>()
            };
            let threads: Vec<_> = (0..4).map(|code| scope.spawn(move || start(code))).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(launched.len(), 20);
        for (index, launched) in launched.into_iter().enumerate() {
            let job = reactor.adopt(launched, Token(index)).unwrap();
            let tail = reactor.tail(job, crate::log::Position::Start, Token(0)).unwrap();
            let report = reactor.wait(job).unwrap();
            let code = i32::try_from(index / 5).unwrap();
            assert_eq!(report.exit, Exit::Code(code));
            let chunk = reactor.next_chunk(tail).unwrap().unwrap();
            assert_eq!(chunk.bytes, format!("{code}\n").as_bytes());
            reactor.remove(job).unwrap();
        }
    }
}
