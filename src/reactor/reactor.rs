//! Owns [`Reactor`]: the loop, wait, gather, settle, emit, and the door to jobs and tails.
//!
//! Invariants: user code never runs inside; whatever is queued or due when a call returns will be
//! served by the next poll, and a host that polls the descriptor is told so. What jobs and tails do
//! is decided elsewhere.

use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Poll};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use uuid::Uuid;

use crate::cgroup::{Hierarchy, Owner, Pool};
use crate::command::{Command, Signal};
use crate::driver::{Change, Target, Timer, Waker, Watch};
use crate::error::{Error, Result};
use crate::event::{Event, Events, Status};
use crate::id::{JobId, TailId, Token};
use crate::job::{Containment, FIRST_TOKEN, Ground, Jobs, Surroundings, test_placement};
use crate::log::{Fill, LogDirectory, LogFile, Logs, Queue, Read, ReadError, TailOptions};
use crate::reactor::config::Config;
use crate::sys::{Nursery, random_uuid};

const WAKER: mio::Token = mio::Token(0);
const WATCH: mio::Token = mio::Token(1);
const TIMER: mio::Token = mio::Token(FIRST_TOKEN - 1);

/// How many events of the kernel one turn takes.
const KERNEL_EVENTS: usize = 256;

/// How long dropping a reactor may take to see the jobs die that it has killed.
const DROP_TIMEOUT: Duration = Duration::from_secs(5);

/// Longer timeouts than this do not fit into the milliseconds that epoll takes; the timer has room
/// for any.
const LONG: Duration = Duration::from_secs(86_400);

/// How to wait for the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// Only look.
    Not,
    /// Let epoll keep the time.
    Milliseconds(Duration),
    /// Until something happens; the timer is set to the end of the time.
    ForTimer,
}

/// Runs programs as jobs and follows their logs, all on the thread that polls it.
///
/// It owns everything: processes, cgroups, logs and tails. Dropping it kills every job that is not
/// [detached](Command::detached), waits up to five seconds until they are gone, and removes their
/// cgroups and, unless they are to be [kept](Command::keep_log), their logs.
///
/// # In a loop of your own
/// [`AsFd`](std::os::fd::AsFd) gives one descriptor, an epoll, that is readable whenever `poll(..,
/// Some(Duration::ZERO))` has work. Ask for it once and register it with mio (the reactor is an
/// [`mio::event::Source`]), a raw epoll, tokio's `AsyncFd` or glib, level- or edge-triggered; after
/// each readiness poll once with a timeout of zero.
///
/// # What is not promised
/// * A poll may return no events before its timeout only when [`Event::Woken`] is among them; but
///   readiness of the descriptor may turn out to be housekeeping without an event for the host.
/// * Events of different jobs come in no particular order.
/// * It is not `Sync`: only a [`Waker`] may be used from other threads.
///
/// # Examples
///
/// ```
/// use jobworker::{Command, Event, Events, Position, Reactor, Read, Token};
///
/// let mut reactor = Reactor::new()?;
/// let job = reactor.spawn(Command::new("echo").arg("hello"), Token(1))?;
/// let tail = reactor.tail(job, Position::Start, Token(2))?;
/// let (mut events, mut output, mut buffer) = (Events::with_capacity(64), Vec::new(), [0; 4096]);
/// 'job: loop {
///     reactor.poll(&mut events, None)?;
///     for event in &events {
///         match event {
///             Event::Readable { tail, .. } => loop {
///                 match reactor.read(*tail, &mut buffer)? {
///                     Read::Data(n) => output.extend_from_slice(&buffer[..n]),
///                     Read::Ended => break 'job,
///                     _ => break,
///                 }
///             },
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
    pub(super) poll: Poll,
    pub(super) kernel_events: mio::Events,
    pub(super) waker: Waker,
    pub(super) timer: Timer,
    pub(super) watch: Watch,
    pub(super) jobs: Jobs,
    pub(super) queue: Queue,
    pub(super) logs: Logs<Watch>,
    pub(super) directory: Arc<LogDirectory>,
    pub(super) hierarchy: Option<Arc<Hierarchy>>,
    pub(super) owner: Owner,
    pub(super) pool: Pool,
    pub(super) nursery: Nursery,
    pub(super) null: File,
    /// Somebody polls our descriptor, so it has to tell of work that no kernel event stands for.
    pub(super) nested: AtomicBool,
    /// The descriptor was made readable for such work and not polled since.
    pub(super) nudged: bool,
}

impl Reactor {
    /// A reactor with the default [`Config`].
    ///
    /// # Errors
    /// As for [`with_config`](Self::with_config).
    pub fn new() -> Result<Self> {
        Self::with_config(&Config::new())
    }

    /// A reactor that is set up as asked. Blocks for about as long as a spawn takes: a child is
    /// cloned into a new cgroup to see that it really lands there.
    ///
    /// # Errors
    /// [`Error::NoCgroup`] when there is no cgroup tree to work in, or the child did not land in
    /// its group; [`Error::LogDirectory`] or [`Error::Path`] when the log directory cannot be
    /// used; [`Error::Loop`] when epoll, inotify, timer or stack cannot be had.
    pub fn with_config(config: &Config) -> Result<Self> {
        let mut nursery =
            Nursery::new().map_err(Error::event_loop("map a stack for new processes"))?;
        let hierarchy = match config.containment {
            Containment::Cgroup => {
                let hierarchy = Arc::new(Hierarchy::locate(
                    config.cgroup_parent.as_deref(),
                    config.host_leaf.as_deref(),
                )?);
                let placement = test_placement(&hierarchy, &mut nursery)?;
                if let Some(reason) = placement.misplaced {
                    return Err(Error::NoCgroup { reason });
                }
                Some(hierarchy)
            }
            Containment::ProcessGroup => None,
        };
        let null = openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(Error::path("open", "/dev/null"))?;
        let poll = Poll::new().map_err(Error::event_loop("create an epoll"))?;
        let register = |fd: RawFd, token| {
            let registered =
                poll.registry().register(&mut SourceFd(&fd), token, Interest::READABLE);
            registered.map_err(Error::event_loop("register with the epoll"))
        };
        let watch = Watch::new()?;
        register(watch.as_raw_fd(), WATCH)?;
        let timer = Timer::new()?;
        register(timer.as_raw_fd(), TIMER)?;
        let waker = mio::Waker::new(poll.registry(), WAKER)
            .map_err(Error::event_loop("create an eventfd"))?;
        let directory = match &config.log_dir {
            Some(dir) => LogDirectory::open(dir)?,
            None => LogDirectory::temporary(random_uuid()?)?,
        };
        Ok(Self {
            poll,
            kernel_events: mio::Events::with_capacity(KERNEL_EVENTS),
            waker: Waker::new(waker),
            timer,
            watch,
            jobs: Jobs::default(),
            queue: Queue::new(),
            logs: Logs::new(config.window_bytes, config.pace, random_uuid()?.as_fields().0),
            directory: Arc::new(directory),
            hierarchy,
            owner: Owner::current()?,
            pool: Pool::default(),
            nursery,
            null: File::from(null),
            nested: AtomicBool::new(false),
            nudged: false,
        })
    }

    /// Waits until something has happened, or the timeout is over, and fills `events` with what
    /// has.
    ///
    /// Without a timeout it waits for as long as it takes; with a timeout of zero it does not wait.
    /// Timeouts are exact to the resolution of the kernel's timers, and a signal to the host
    /// does not end them. What `events` has no room for comes with the next call, which then
    /// does not wait.
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
    /// [`Error::Loop`] when the kernel refuses the epoll or the inotify descriptor, or setting the
    /// timer: none is known to happen. What fails about one job is that job's event, or the
    /// error of the call that concerned it.
    pub fn poll(&mut self, events: &mut Events, timeout: Option<Duration>) -> Result<()> {
        events.clear();
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut wait = match timeout {
            Some(Duration::ZERO) => Wait::Not,
            // epoll counts in milliseconds: a timeout of whole ones it can keep itself, any other
            // is the timer's.
            Some(whole) if whole.subsec_nanos() % 1_000_000 == 0 && whole < LONG => {
                Wait::Milliseconds(whole)
            }
            _ => Wait::ForTimer,
        };
        loop {
            self.gather(wait, until)?;
            self.settle()?;
            self.emit(events);
            if wait == Wait::Not
                || !events.is_empty()
                || until.is_some_and(|until| until <= Instant::now())
            {
                return self.tell_host();
            }
            // Nothing for the host in it: the rest of the time is no whole number of milliseconds.
            wait = Wait::ForTimer;
        }
    }

    /// Waits for the kernel and takes note of what it says.
    fn gather(&mut self, wait: Wait, until: Option<Instant>) -> Result<()> {
        self.nudged = false;
        if wait == Wait::Not || self.has_work() {
            return self.wait(Some(Duration::ZERO));
        }
        let deadline = self.next_deadline();
        match wait {
            Wait::Milliseconds(timeout) => {
                self.timer.set(deadline)?;
                self.wait(Some(timeout))
            }
            _ => {
                self.timer.set(deadline.into_iter().chain(until).min())?;
                self.wait(None)
            }
        }
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Result<()> {
        match self.poll.poll(&mut self.kernel_events, timeout) {
            // The loop comes back for the rest of the time.
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {
                self.kernel_events.clear();
            }
            other => other.map_err(Error::event_loop("wait for events"))?,
        }
        Ok(())
    }

    /// Acts on what was gathered: processes, watches, deadlines, then the logs, whose last bytes
    /// they decide about.
    fn settle(&mut self) -> Result<()> {
        loop {
            let mut around = Surroundings {
                registry: self.poll.registry(),
                watch: &mut self.watch,
                queue: &mut self.queue,
                logs: &mut self.logs,
                directory: &self.directory,
            };
            let mut watch_ready = false;
            let mut count = 0;
            for event in &self.kernel_events {
                count += 1;
                match event.token() {
                    WAKER => {}
                    WATCH => watch_ready = true,
                    TIMER => self.timer.fired(),
                    _ => self.jobs.ready(event, &mut around),
                }
            }
            if watch_ready {
                take_changes(&mut self.jobs, &mut around)?;
            }
            if count < KERNEL_EVENTS {
                break;
            }
            // A full buffer: there may be more, of which an edge-triggered host would not be told
            // again.
            self.wait(Some(Duration::ZERO))?;
        }
        let now = Instant::now();
        let mut around = Surroundings {
            registry: self.poll.registry(),
            watch: &mut self.watch,
            queue: &mut self.queue,
            logs: &mut self.logs,
            directory: &self.directory,
        };
        self.jobs.deadlines_passed(now, &mut around);
        self.logs.visit_due(&mut self.watch, now, &mut self.queue);
        if self.waker.take() {
            self.queue.push_back(Event::Woken);
        }
        Ok(())
    }

    fn emit(&mut self, events: &mut Events) {
        while !events.is_full()
            && let Some(event) = self.queue.pop_front()
        {
            match event {
                // Put together anew from its parts, which fit into registers: thousands may come in
                // one turn. One that was closed or has ended since is told of no
                // more.
                Event::Readable { tail, token } => {
                    if self.logs.take_event(tail) {
                        events.push(Event::Readable { tail, token });
                    }
                }
                event => events.push(event),
            }
        }
    }

    pub(super) fn has_work(&self) -> bool {
        !self.queue.is_empty() || self.logs.has_work()
    }

    fn next_deadline(&mut self) -> Option<Instant> {
        let pace = self.logs.pace_at(Instant::now);
        self.jobs.next_deadline().into_iter().chain(pace).min()
    }

    /// Makes the descriptor tell a host that polls it of everything that is due, now or later.
    #[inline]
    pub(super) fn tell_host(&mut self) -> Result<()> {
        // Read by every call of the host, and mostly false.
        if self.nested.load(Ordering::Relaxed) { self.tell_polling_host() } else { Ok(()) }
    }

    #[inline(never)]
    fn tell_polling_host(&mut self) -> Result<()> {
        let deadline = self.next_deadline();
        self.timer.set(deadline)?;
        if self.has_work() && !self.nudged {
            self.waker.nudge().map_err(Error::event_loop("wake the reactor"))?;
            self.nudged = true;
        }
        Ok(())
    }

    /// Starts a job. Blocks until its program executes, or cannot: some 0.3 ms, whatever the size
    /// of the host.
    ///
    /// `token` comes back with the job's events.
    ///
    /// ```
    /// use jobworker::{Command, Event, Events, Exit, Reactor, Token};
    ///
    /// let mut reactor = Reactor::new()?;
    /// let mut events = Events::with_capacity(64);
    /// # let finished = |reactor: &mut Reactor, events: &mut Events| -> Result<_, jobworker::Error> {
    /// #     loop {
    /// #         reactor.poll(events, None)?;
    /// #         let report = events.iter().find_map(|event| match event {
    /// #             Event::Finished { report, .. } => Some(report.clone()),
    /// #             _ => None,
    /// #         });
    /// #         if let Some(report) = report { break Ok(report); }
    /// #     }
    /// # };
    /// let job = reactor.spawn(Command::new("sh").args(["-c", "exit 3"]).env("HOME", "/"), Token(1))?;
    /// assert_eq!(finished(&mut reactor, &mut events)?.exit, Exit::Code(3));
    /// reactor.remove(job)?;
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    ///
    /// # Errors
    /// Nothing of a failed attempt is left. [`Error::Spawn`] says which step failed in the child,
    /// and why: the program is not there ([`Stage::Exec`](crate::Stage::Exec) with `NotFound`)
    /// or may not be executed (`PermissionDenied`), and so on. Before that come
    /// [`Error::InvalidCommand`], [`Error::InvalidLimit`], [`Error::ControllerUnavailable`],
    /// [`Error::LimitNotKept`], and [`Error::Path`] for cgroup, log and standard input.
    #[doc(alias = "clone3")]
    pub fn spawn(&mut self, command: &Command, token: Token) -> Result<JobId> {
        let mut ground = Ground {
            hierarchy: self.hierarchy.as_ref(),
            owner: &self.owner,
            pool: &mut self.pool,
            nursery: &mut self.nursery,
            null: &self.null,
        };
        let mut around = Surroundings {
            registry: self.poll.registry(),
            watch: &mut self.watch,
            queue: &mut self.queue,
            logs: &mut self.logs,
            directory: &self.directory,
        };
        let id = self.jobs.spawn(command, token, &mut ground, &mut around)?;
        self.tell_host()?;
        Ok(id)
    }

    /// Opens a tail on a job's log, running or finished. Its starting offset is fixed in this call.
    ///
    /// A tail of a job ends where the job's output ends; one on a finished job does not follow.
    ///
    /// ```
    /// use jobworker::{Command, Event, Events, Position, Reactor, Read, Token};
    ///
    /// let mut reactor = Reactor::new()?;
    /// let mut events = Events::with_capacity(64);
    /// # let finished = |reactor: &mut Reactor, events: &mut Events| -> Result<_, jobworker::Error> {
    /// #     loop {
    /// #         reactor.poll(events, None)?;
    /// #         let report = events.iter().find_map(|event| match event {
    /// #             Event::Finished { report, .. } => Some(report.clone()),
    /// #             _ => None,
    /// #         });
    /// #         if let Some(report) = report { break Ok(report); }
    /// #     }
    /// # };
    /// let job = reactor.spawn(Command::new("seq").arg("1000"), Token(1))?;
    /// finished(&mut reactor, &mut events)?;
    /// let tail = reactor.tail(job, Position::LastLines(2), Token(2))?;
    /// let mut buffer = [0; 64];
    /// assert_eq!(reactor.read(tail, &mut buffer)?, Read::Data(9));
    /// assert_eq!(&buffer[..9], b"999\n1000\n");
    /// assert_eq!(reactor.read(tail, &mut buffer)?, Read::Ended);
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownJob`]; [`Error::NoLog`] when the job has no such log; [`Error::Path`] when
    /// the log cannot be opened or watched; [`Error::WatchLimit`] when
    /// `fs.inotify.max_user_watches` is reached.
    pub fn tail(
        &mut self,
        job: JobId,
        options: impl Into<TailOptions>,
        token: Token,
    ) -> Result<TailId> {
        let options = options.into();
        let log = self.jobs.log(job, options.stream)?;
        let opened = self.logs.open_tail(&mut self.watch, log, options, token, &mut self.queue);
        let tail = opened.map_err(|error| {
            into_error("open log", &self.logs.place(log).path(), ReadError::Io(error))
        })?;
        self.tell_host()?;
        Ok(tail)
    }

    /// Opens a tail on any regular file, which need not be a job's log. It ends only if it is a
    /// snapshot.
    ///
    /// The file stays the one that was opened, even if its name comes to stand for another.
    ///
    /// ```
    /// use jobworker::{Position, Reactor, Read, TailOptions, Token};
    ///
    /// let mut reactor = Reactor::new()?;
    /// let tail = reactor.tail_file("/etc/passwd", TailOptions::new(Position::Start).snapshot(), Token(0))?;
    /// let mut buffer = [0; 5];
    /// assert_eq!(reactor.read(tail, &mut buffer)?, Read::Data(5));
    /// assert_eq!(&buffer, b"root:");
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Path`] when the file cannot be opened or watched, or is not a regular file;
    /// [`Error::WatchLimit`] when `fs.inotify.max_user_watches` is reached.
    pub fn tail_file(
        &mut self,
        path: impl AsRef<Path>,
        options: impl Into<TailOptions>,
        token: Token,
    ) -> Result<TailId> {
        let path = path.as_ref();
        // NONBLOCK, lest opening a pipe wait for its writer.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        let file =
            openat(CWD, path, flags, Mode::empty()).map_err(Error::path("open log", path))?;
        let file =
            LogFile::new(File::from(file), path.to_owned()).map_err(Error::path("follow", path))?;
        let options = options.into();
        let opened = self.logs.open_file(&mut self.watch, file, options, token, &mut self.queue);
        let tail = opened.map_err(|error| into_error("open log", path, ReadError::Io(error)))?;
        self.tell_host()?;
        Ok(tail)
    }

    /// Copies the next bytes of a tail into `buffer`. Does not block, but may read the file.
    ///
    /// # Errors
    /// [`Error::UnknownTail`]; [`Error::Path`] when the file cannot be read or watched: nothing is
    /// skipped, and the tail can be read again.
    pub fn read(&mut self, tail: TailId, buffer: &mut [u8]) -> Result<Read> {
        let read = self.logs.read(&mut self.watch, tail, buffer, &mut self.queue);
        self.tell_host()?;
        read.map_err(|error| self.tail_error(tail, error))
    }

    /// Shows the next bytes of a tail where they lie, without a copy as long as the tail keeps up.
    ///
    /// The bytes stay unread until [`consume`](Self::consume). Does not block, but may read the
    /// file.
    ///
    /// ```
    /// use jobworker::{Command, Event, Events, Fill, Position, Reactor, Token};
    ///
    /// let mut reactor = Reactor::new()?;
    /// let mut events = Events::with_capacity(64);
    /// # let finished = |reactor: &mut Reactor, events: &mut Events| -> Result<_, jobworker::Error> {
    /// #     loop {
    /// #         reactor.poll(events, None)?;
    /// #         let report = events.iter().find_map(|event| match event {
    /// #             Event::Finished { report, .. } => Some(report.clone()),
    /// #             _ => None,
    /// #         });
    /// #         if let Some(report) = report { break Ok(report); }
    /// #     }
    /// # };
    /// let job = reactor.spawn(Command::new("echo").arg("one line"), Token(1))?;
    /// let tail = reactor.tail(job, Position::Start, Token(2))?;
    /// finished(&mut reactor, &mut events)?;
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
        let filled = self.logs.fill(&mut self.watch, tail, &mut self.queue);
        self.tell_host()?;
        match filled {
            Ok(filled) => Ok(self.logs.show(filled)),
            Err(error) => Err(self.tail_error(tail, error)),
        }
    }

    /// Marks the first `amount` bytes of the last [`fill_buf`](Self::fill_buf) of this tail as
    /// read; never more than it has shown.
    ///
    /// # Errors
    /// [`Error::UnknownTail`].
    pub fn consume(&mut self, tail: TailId, amount: usize) -> Result<()> {
        self.logs.consume(tail, amount).map_err(|error| self.tail_error(tail, error))
    }

    /// The offset in the log of the byte that the tail reads next: where a later tail can go on.
    ///
    /// # Errors
    /// [`Error::UnknownTail`].
    pub fn position(&self, tail: TailId) -> Result<u64> {
        self.logs.position(tail).ok_or(Error::UnknownTail)
    }

    /// Closes a tail. Its slot is free at once, and no event of it comes any more.
    ///
    /// # Errors
    /// [`Error::UnknownTail`].
    pub fn close(&mut self, tail: TailId) -> Result<()> {
        self.logs.close(&mut self.watch, tail).ok_or(Error::UnknownTail)?;
        self.tell_host()
    }

    /// Stops a job: its stop signal to every process of it now, and after its grace period the kill
    /// of what is left.
    ///
    /// Returns at once; [`Event::Finished`] tells when it is done. Stopping a job that is being
    /// stopped or has finished changes nothing.
    ///
    /// ```
    /// use jobworker::{Command, Event, Events, Reactor, Signal, StopCause, Token};
    ///
    /// let mut reactor = Reactor::new()?;
    /// let mut events = Events::with_capacity(64);
    /// # let finished = |reactor: &mut Reactor, events: &mut Events| -> Result<_, jobworker::Error> {
    /// #     loop {
    /// #         reactor.poll(events, None)?;
    /// #         let report = events.iter().find_map(|event| match event {
    /// #             Event::Finished { report, .. } => Some(report.clone()),
    /// #             _ => None,
    /// #         });
    /// #         if let Some(report) = report { break Ok(report); }
    /// #     }
    /// # };
    /// let job = reactor.spawn(Command::new("sleep").arg("1000"), Token(1))?;
    /// reactor.stop(job)?;
    /// let report = finished(&mut reactor, &mut events)?;
    /// assert_eq!(report.exit.signal(), Some(Signal::TERM));
    /// assert_eq!(report.stopped_by, Some(StopCause::Stop));
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownJob`]; a failure to signal is in the job's report, and the kill comes all
    /// the same.
    pub fn stop(&mut self, job: JobId) -> Result<()> {
        self.with_jobs(|jobs, around| jobs.stop(job, None, around))
    }

    /// As [`stop`](Self::stop), with this grace period. For a job that is being stopped it can only
    /// come sooner.
    ///
    /// # Errors
    /// As for [`stop`](Self::stop).
    pub fn stop_within(&mut self, job: JobId, grace: Duration) -> Result<()> {
        self.with_jobs(|jobs, around| jobs.stop(job, Some(grace), around))
    }

    /// Kills every process of a job, those that are being forked included. Returns at once;
    /// [`Event::Finished`] tells when they are gone.
    ///
    /// # Errors
    /// [`Error::UnknownJob`].
    #[doc(alias = "cgroup.kill")]
    pub fn kill(&mut self, job: JobId) -> Result<()> {
        self.with_jobs(|jobs, around| jobs.kill(job, around))
    }

    /// Sends a signal to every process of a job; a finished job has none. Stopped ones then
    /// continue, to act on it.
    ///
    /// # Errors
    /// [`Error::UnknownJob`]; [`Error::Path`] when a process may not be signalled.
    #[doc(alias = "pidfd_send_signal")]
    pub fn signal(&mut self, job: JobId, signal: Signal) -> Result<()> {
        self.jobs.signal(job, signal, false)
    }

    /// Sends a signal to the main process of a job alone.
    ///
    /// ```
    /// use jobworker::{Command, Event, Events, Reactor, Signal, Token};
    ///
    /// let mut reactor = Reactor::new()?;
    /// let mut events = Events::with_capacity(64);
    /// # let finished = |reactor: &mut Reactor, events: &mut Events| -> Result<_, jobworker::Error> {
    /// #     loop {
    /// #         reactor.poll(events, None)?;
    /// #         let report = events.iter().find_map(|event| match event {
    /// #             Event::Finished { report, .. } => Some(report.clone()),
    /// #             _ => None,
    /// #         });
    /// #         if let Some(report) = report { break Ok(report); }
    /// #     }
    /// # };
    /// let job = reactor.spawn(Command::new("sleep").arg("1000"), Token(1))?;
    /// reactor.signal_main(job, Signal::INT)?;
    /// assert_eq!(finished(&mut reactor, &mut events)?.exit.shell_code(), 130);
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownJob`]; [`Error::Exited`] when that process is gone.
    pub fn signal_main(&mut self, job: JobId, signal: Signal) -> Result<()> {
        self.jobs.signal(job, signal, true)
    }

    /// What is known of a job now. Asks the kernel nothing.
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
    /// [`Error::UnknownJob`].
    pub fn status(&self, job: JobId) -> Result<Status> {
        self.jobs.status(job, &self.logs)
    }

    /// Forgets a finished job, closes its tails and removes its log, unless that is to be kept.
    ///
    /// ```
    /// use jobworker::{Command, Error, Event, Events, Reactor, Token};
    ///
    /// let mut reactor = Reactor::new()?;
    /// let mut events = Events::with_capacity(64);
    /// # let finished = |reactor: &mut Reactor, events: &mut Events| -> Result<_, jobworker::Error> {
    /// #     loop {
    /// #         reactor.poll(events, None)?;
    /// #         let report = events.iter().find_map(|event| match event {
    /// #             Event::Finished { report, .. } => Some(report.clone()),
    /// #             _ => None,
    /// #         });
    /// #         if let Some(report) = report { break Ok(report); }
    /// #     }
    /// # };
    /// let job = reactor.spawn(&Command::new("true"), Token(1))?;
    /// finished(&mut reactor, &mut events)?;
    /// reactor.remove(job)?;
    /// assert!(matches!(reactor.status(job), Err(Error::UnknownJob(_))));
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownJob`]; [`Error::NotFinished`]; [`Error::Path`] when the log cannot be
    /// removed: the job is forgotten all the same.
    pub fn remove(&mut self, job: JobId) -> Result<()> {
        self.with_jobs(|jobs, around| jobs.remove(job, around))
    }

    /// The job with this UUID, if it was not removed. Costs a pass over all jobs.
    #[must_use]
    pub fn find(&self, uuid: Uuid) -> Option<JobId> {
        self.jobs.find(uuid)
    }

    /// What the reactor holds now: for tests that count, and for metrics.
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
        Census { jobs: self.jobs.len(), tails: self.logs.len(), watches: self.watch.len() }
    }

    /// A handle that wakes this reactor from any thread.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    pub(super) fn with_jobs(
        &mut self,
        act: impl FnOnce(&mut Jobs, &mut Surroundings<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut around = Surroundings {
            registry: self.poll.registry(),
            watch: &mut self.watch,
            queue: &mut self.queue,
            logs: &mut self.logs,
            directory: &self.directory,
        };
        let result = act(&mut self.jobs, &mut around);
        self.tell_host()?;
        result
    }

    fn tail_error(&self, tail: TailId, error: ReadError) -> Error {
        match self.logs.file_of(tail) {
            Some(file) => into_error("read log", file.path(), error),
            None => Error::UnknownTail,
        }
    }

    /// Kills what is not detached and waits until it is gone, for a bounded time.
    fn shut_down(&mut self) -> Result<()> {
        self.with_jobs(|jobs, around| {
            jobs.kill_all_attached(around);
            Ok(())
        })?;
        let until = Instant::now() + DROP_TIMEOUT;
        while self.jobs.count_attached() > 0 && Instant::now() < until {
            self.queue.clear();
            self.gather(Wait::ForTimer, Some(until))?;
            self.settle()?;
        }
        self.with_jobs(|jobs, around| {
            jobs.discard_all(around);
            Ok(())
        })
    }
}

/// How much a reactor holds; see [`Reactor::census`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Census {
    /// Jobs, the finished ones that were not removed included.
    pub jobs: usize,
    /// Tails.
    pub tails: usize,
    /// Inotify watches.
    pub watches: usize,
}

fn take_changes(jobs: &mut Jobs, around: &mut Surroundings<'_>) -> Result<()> {
    let changes = around.watch.changes().map_err(Error::event_loop("read inotify events"))?;
    for change in &changes {
        match *change {
            Change::Of(Target::Log(log)) => around.logs.changed(log),
            Change::Lost(Target::Log(log)) => around.logs.watch_lost(around.watch, log),
            Change::Of(Target::Group(slot)) | Change::Lost(Target::Group(slot)) => {
                jobs.group_changed(slot, around);
            }
            Change::Of(Target::Memory(slot)) => jobs.memory_changed(slot, around),
            Change::Lost(Target::Memory(_)) => {}
            Change::Everything => {
                around.logs.everything_changed();
                jobs.all_groups_changed(around);
            }
        }
    }
    around.watch.recycle(changes);
    Ok(())
}

fn into_error(operation: &'static str, path: &Path, error: ReadError) -> Error {
    match error {
        ReadError::Unknown => Error::UnknownTail,
        // ENOSPC: of inotify it means the limit on watches, and reading gives no such error.
        ReadError::Io(source) if Errno::from_io_error(&source) == Some(Errno::NOSPC) => {
            Error::WatchLimit { path: path.to_owned() }
        }
        ReadError::Io(source) => Error::path(operation, path)(source),
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        // Nobody is left to be told of a failure.
        let _ = self.shut_down();
    }
}
