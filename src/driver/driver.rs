//! Owns [`Driver`]: the one epoll of a reactor, with everything that can wake it.
//!
//! Invariant: sources are registered and deregistered through the driver alone; a notice about one
//! that was deregistered is dropped here. The timer is set to the earliest deadline before a sleep,
//! and at every call of a host that polls the descriptor itself. Knows nothing of what its sources
//! mean.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use crate::driver::eventfd::Eventfd;
use crate::driver::inotify::{Watches, Watching};
use crate::driver::source::{Notice, Registration, Source};
use crate::driver::timer::Timer;
use crate::driver::waker::Waker;
use crate::error::{Error, Result};
use crate::id::{Key, Slots};
use crate::log::{LogFile, Seen};
use crate::sys::epoll_fd;

/// How many events of the kernel one turn takes. Each may be the end of a job, which costs some 50
/// us: more of them would hold up what else is ready.
const CAPACITY: usize = 32;

/// How many system calls are made to glance at something between two looks at the epoll. That one
/// takes locks which a writer needs to report a change.
const GLANCES: usize = 8;

/// Tokens of the driver's own; those of registrations never reach so far, see [`Key::pack`].
const WAKER: Token = Token(usize::MAX);
const INOTIFY: Token = Token(usize::MAX - 1);
const TIMER: Token = Token(usize::MAX - 2);

/// What readiness of a descriptor is watched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// It can be read.
    Readable,
    /// It can be read, or has something of priority: a pressure trigger.
    ReadableOrPriority,
    /// It can be read, or has room for what is written.
    ReadableOrWritable,
}

/// How to wait for the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Do not wait.
    Not,
    /// At most this long, in whole milliseconds, kept by epoll.
    Milliseconds(Duration),
    /// Until an event arrives or, by the timer, until this moment.
    Until(Option<Instant>),
}

/// The epoll, inotify, timer and waker of a reactor.
#[derive(Debug)]
pub(crate) struct Driver {
    poll: Poll,
    ready: Events,
    /// The last wait has filled `ready`: there may be more.
    full: bool,
    /// What is registered with the epoll, by the key that is its token there.
    sources: Slots<Source>,
    watches: Watches,
    timer: Timer,
    waker: Waker,
    /// Whether a host polls the descriptor, which must then become readable for work that has no
    /// kernel event.
    nested: AtomicBool,
    /// The descriptor was made readable for such work and not polled since.
    nudged: bool,
    /// How long a wait looks again and again before it sleeps.
    busy: Duration,
    /// It looks at what the kernel has not reported.
    glancing: bool,
}

impl Driver {
    /// A driver whose waits look for so long again and again before they sleep.
    pub(crate) fn new(busy: Duration) -> Result<Self> {
        let poll = Poll::new().map_err(Error::event_loop("create an epoll"))?;
        let register = |fd: RawFd, token| {
            let registered =
                poll.registry().register(&mut SourceFd(&fd), token, Interest::READABLE);
            registered.map_err(Error::event_loop("register with the epoll"))
        };
        let watches = Watches::new()?;
        register(watches.as_raw_fd(), INOTIFY)?;
        let timer = Timer::new()?;
        register(timer.as_raw_fd(), TIMER)?;
        let waker =
            Eventfd::new(poll.registry(), WAKER).map_err(Error::event_loop("create an eventfd"))?;
        Ok(Self {
            poll,
            ready: Events::with_capacity(CAPACITY),
            full: false,
            sources: Slots::new(),
            watches,
            timer,
            waker: Waker::new(waker),
            nested: AtomicBool::new(false),
            nudged: false,
            busy,
            glancing: false,
        })
    }

    /// Watches a descriptor for readiness, edge-triggered.
    pub(crate) fn register(
        &mut self,
        fd: BorrowedFd<'_>,
        readiness: Readiness,
        source: Source,
    ) -> io::Result<Registration> {
        let interest = match readiness {
            Readiness::Readable => Interest::READABLE,
            Readiness::ReadableOrPriority => Interest::READABLE | Interest::PRIORITY,
            Readiness::ReadableOrWritable => Interest::READABLE | Interest::WRITABLE,
        };
        let key = self.sources.insert(source);
        let registered = key
            .pack()
            .ok_or_else(|| io::Error::other("too many descriptors are registered"))
            .and_then(|token| {
                self.poll.registry().register(
                    &mut SourceFd(&fd.as_raw_fd()),
                    Token(token),
                    interest,
                )
            });
        match registered {
            Ok(()) => Ok(Registration(key)),
            Err(error) => {
                self.sources.remove(key);
                Err(error)
            }
        }
    }

    /// Stops watching a descriptor. Pending notices of it are dropped.
    pub(crate) fn deregister(&mut self, fd: BorrowedFd<'_>, registration: Registration) {
        if self.sources.remove(registration.0).is_some() {
            // It fails only for what is not registered.
            let _ = self.poll.registry().deregister(&mut SourceFd(&fd.as_raw_fd()));
        }
    }

    /// How many descriptors are registered, besides the driver's own.
    pub(crate) fn registrations(&self) -> usize {
        self.sources.len()
    }

    /// Watches a file by inotify; see [`Watches::set`].
    pub(crate) fn watch(
        &mut self,
        path: &Path,
        watching: Watching,
        source: Source,
    ) -> io::Result<()> {
        self.watches.set(path, watching, source)
    }

    /// Shows inotify the directories on the way to a file; see [`Watches::look_up`].
    pub(crate) fn look_up(&mut self, path: &Path, tail: Key) -> io::Result<Option<Seen<LogFile>>> {
        self.watches.look_up(path, tail)
    }

    /// Stops watching the directories on the way to a file.
    pub(crate) fn forget_name(&mut self, tail: Key) {
        self.watches.forget_name(tail);
    }

    /// Stops watching the file of a source.
    pub(crate) fn unwatch(&mut self, source: Source) {
        self.watches.remove(source);
    }

    /// How many inotify watches there are.
    pub(crate) fn watches(&self) -> usize {
        self.watches.len()
    }

    /// Whether inotify has events that were not taken; see [`Watches::has_events`]. A glance that
    /// asks has found something that inotify is about to report, or has just reported.
    pub(crate) fn has_reports(&self) -> bool {
        self.glancing || self.watches.has_events()
    }

    /// Waits for the kernel; `deadline` is when something is to be done in any case. Before it
    /// sleeps it glances, if it is busy, at what the kernel would report later: `glance` says what
    /// that has cost, in system calls, and whether it has found anything.
    pub(crate) fn wait(
        &mut self,
        wait: Wait,
        deadline: Option<Instant>,
        glance: impl FnMut(&mut Self) -> (usize, bool),
    ) -> Result<()> {
        self.nudged = false;
        let busy = !self.busy.is_zero();
        let wait = if busy { self.look(wait, deadline, glance)? } else { Some(wait) };
        let Some(wait) = wait else { return Ok(()) };
        let timeout = match wait {
            Wait::Not => Some(Duration::ZERO),
            Wait::Milliseconds(timeout) => {
                self.timer.set(deadline)?;
                Some(timeout)
            }
            Wait::Until(until) => {
                self.timer.set(deadline.into_iter().chain(until).min())?;
                None
            }
        };
        self.poll_epoll(timeout)
    }

    /// Looks again and again until something has happened, and returns the wait that is left;
    /// `None` when there is none, because something has happened or it is time.
    #[inline(never)]
    fn look(
        &mut self,
        wait: Wait,
        deadline: Option<Instant>,
        mut glance: impl FnMut(&mut Self) -> (usize, bool),
    ) -> Result<Option<Wait>> {
        let start = Instant::now();
        let until = match wait {
            Wait::Not => return Ok(Some(wait)),
            Wait::Milliseconds(timeout) => start.checked_add(timeout),
            Wait::Until(until) => until,
        };
        let end = deadline.into_iter().chain(until).min();
        loop {
            self.poll_epoll(Some(Duration::ZERO))?;
            let now = Instant::now();
            if !self.ready.is_empty() || end.is_some_and(|end| end <= now) {
                return Ok(None);
            }
            if now.duration_since(start) >= self.busy {
                return Ok(Some(Wait::Until(until)));
            }
            let mut calls = 0;
            while calls < GLANCES {
                self.glancing = true;
                let (cost, found) = glance(self);
                self.glancing = false;
                if found {
                    return Ok(None);
                }
                if cost == 0 {
                    break;
                }
                calls += cost;
            }
            std::hint::spin_loop();
        }
    }

    fn poll_epoll(&mut self, timeout: Option<Duration>) -> Result<()> {
        match self.poll.poll(&mut self.ready, timeout) {
            // The loop comes back for the rest of the time.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.ready.clear();
                Ok(())
            }
            other => other.map_err(Error::event_loop("wait for events")),
        }
    }

    /// Adds what the last wait has brought: first the descriptors that are ready, then the files
    /// that have changed. Of either no more than one turn can handle; see
    /// [`has_work`](Self::has_work) for the rest.
    pub(crate) fn take_notices(&mut self, notices: &mut Vec<Notice>) -> Result<()> {
        let mut changed = self.watches.is_undrained();
        let mut count = 0;
        for event in &self.ready {
            count += 1;
            match event.token() {
                // It is also made readable for a host that polls the descriptor.
                WAKER => {
                    if self.waker.take() {
                        notices.push(Notice::Woken);
                    }
                }
                INOTIFY => changed = true,
                TIMER => self.timer.fired(),
                Token(packed) => {
                    if let Some((key, source)) = self.sources.unpack(packed) {
                        notices.push(Notice::Ready {
                            registration: Registration(key),
                            source: *source,
                            priority: event.is_priority(),
                        });
                    }
                }
            }
        }
        self.full = count >= CAPACITY;
        // What was taken must not be taken again by the next call.
        self.ready.clear();
        if changed {
            let read = self.watches.read(notices);
            read.map_err(Error::event_loop("read inotify events"))?;
        }
        Ok(())
    }

    /// Whether the last turn has left something behind that the kernel may not report again: then
    /// the next wait must not block, and a host that polls the descriptor has to be notified.
    pub(crate) fn has_work(&self) -> bool {
        self.full || self.watches.is_undrained()
    }

    /// Whether a notice that was taken is still about what is registered.
    pub(crate) fn is_registered(&self, registration: Registration) -> bool {
        self.sources.get(registration.0).is_some()
    }

    /// Whether a host polls the descriptor. Checked on every call; usually false.
    pub(crate) fn is_nested(&self) -> bool {
        self.nested.load(Ordering::Relaxed)
    }

    /// Makes the descriptor readable, for a host that polls it, when work is due now, and sets the
    /// timer for what is due later.
    pub(crate) fn tell_host(&mut self, has_work: bool, deadline: Option<Instant>) -> Result<()> {
        self.timer.set(deadline)?;
        if has_work && !self.nudged {
            self.waker.nudge().map_err(Error::event_loop("wake the reactor"))?;
            self.nudged = true;
        }
        Ok(())
    }

    /// The epoll, for nesting in another event loop. From now on it is readable whenever there is
    /// work; `due` says whether there is any now or later.
    pub(crate) fn nest(&self, due: impl FnOnce() -> bool) -> BorrowedFd<'_> {
        if !self.nested.swap(true, Ordering::Relaxed) && due() {
            // No host polled the descriptor until now. The poll that follows sets the timer for
            // what is due later. A write to an eventfd fails only when it would block, and then it
            // is readable.
            let _ = self.waker.nudge();
        }
        epoll_fd(&self.poll)
    }

    /// The handle for other threads.
    pub(crate) fn waker(&self) -> &Waker {
        &self.waker
    }
}

impl AsFd for Driver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        epoll_fd(&self.poll)
    }
}
