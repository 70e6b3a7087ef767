//! Owns [`Client`]: what all handles of a worker share, and the end of its thread.
//!
//! Invariants: the thread lives as long as there is a client, unless it is shut down or fails
//! first. A call that waits for the thread returns when that is gone. Knows nothing of what is
//! asked for.

use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Instant;

use crate::error::{Error, Result, SystemError, WorkerError};
use crate::job::Containment;
use crate::sync::Mutex;
use crate::sync::thread::{self, JoinHandle, ThreadId};
use crate::sys::ForkMark;
use crate::worker::engine::Engine;
use crate::worker::layer0::{Launcher, Reactor};
use crate::worker::mailbox::Mailbox;
use crate::worker::progress::Progress;
use crate::worker::reply::reply;
use crate::worker::wait::{block_on, lock};
use crate::worker::worker_events::Board;

/// What all handles of a worker share.
#[derive(Debug)]
pub(super) struct Client {
    mailbox: Arc<Mailbox>,
    /// The reactor's, and gone with it: handles that are left keep no directory and no cgroup.
    launcher: Weak<Launcher>,
    containment: Containment,
    board: Arc<Board>,
    /// In a process that the host forks there is no such thread.
    mark: ForkMark,
    id: ThreadId,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Client {
    /// Runs a reactor on a thread of its own. Returns the jobs that it has, too.
    pub(super) fn start(reactor: Reactor) -> Result<(Arc<Self>, Vec<Arc<Progress>>)> {
        let mark = ForkMark::new().map_err(Error::event_loop("map a page that forks wipe"))?;
        let launcher = Arc::downgrade(reactor.launcher());
        let containment = reactor.containment();
        let mailbox = Arc::new(Mailbox::new(reactor.waker()));
        let board: Arc<Board> = Arc::default();
        let (engine, jobs) = Engine::new(reactor, Arc::clone(&board))?;
        let main = {
            let mailbox = Arc::clone(&mailbox);
            move || engine.main(&mailbox)
        };
        let thread = thread::Builder::new().name("jobworker".to_owned()).spawn(main);
        let thread = thread.map_err(Error::event_loop("start the thread of a worker"))?;
        let id = thread.thread().id();
        let thread = Mutex::new(Some(thread));
        Ok((Arc::new(Self { mailbox, launcher, containment, board, mark, id, thread }), jobs))
    }

    /// Starts jobs. To be held until what it has started is adopted: the cgroup of a job is removed
    /// before the marker of its owner.
    pub(super) fn launcher(&self) -> Result<Arc<Launcher>> {
        self.launcher.upgrade().ok_or_else(|| self.why())
    }

    /// How the processes of a job are held together.
    pub(super) fn containment(&self) -> Containment {
        self.containment
    }

    /// What the loop publishes for all.
    pub(super) fn board(&self) -> &Board {
        &self.board
    }

    /// Fails in a process that was forked from the one that made the worker.
    #[inline]
    pub(super) fn check_process(&self) -> Result<()> {
        if self.mark.is_here() {
            Ok(())
        } else {
            Err(SystemError::Forked { owner: self.mark.pid() }.into())
        }
    }

    /// Fails when the thread has ended.
    pub(super) fn check(&self) -> Result<()> {
        self.check_process()?;
        self.mailbox.ended().map_or(Ok(()), |why| Err(why.into()))
    }

    /// Why the thread does not answer any more.
    pub(super) fn why(&self) -> Error {
        // Without a reason yet, it was the request itself that has ended the thread.
        let panicked = || WorkerError::Panicked { message: "in this very call".to_owned() };
        self.mailbox.ended().unwrap_or_else(panicked).into()
    }

    /// Fails on the thread of the worker, which would wait for itself.
    pub(super) fn check_may_block(&self) -> Result<()> {
        self.check_process()?;
        if thread::current().id() == self.id {
            return Err(WorkerError::OwnThread.into());
        }
        Ok(())
    }

    /// Lets the loop do something.
    pub(super) fn post(&self, act: impl FnOnce(&mut Engine) + Send + 'static) -> Result<()> {
        self.check_process()?;
        self.mailbox.post(Box::new(act))
    }

    /// Lets the loop do something, and blocks until it has.
    pub(super) fn call<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Engine) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.check_may_block()?;
        let (sender, mut receiver) = reply();
        self.post(move |engine| sender.send(act(engine)))?;
        block_on(None, |cx| receiver.poll(cx)).flatten().ok_or_else(|| self.why())?
    }

    /// Blocks until there is a result; `None` when the time is up first.
    pub(super) fn block_on<T>(
        &self,
        until: Option<Instant>,
        poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Result<Option<T>> {
        self.check_may_block()?;
        Ok(block_on(until, poll))
    }

    /// For a call that has nothing to do once the worker was shut down.
    pub(super) fn nothing_if_shut_down<T: Default>(error: Error) -> Result<T> {
        match error {
            Error::Worker(WorkerError::ShutDown) => Ok(T::default()),
            other => Err(other),
        }
    }

    /// Waits until the thread is gone, which has been told to end.
    pub(super) fn join(&self) {
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread {
            // It has told everybody of a panic already.
            let _ = thread.join();
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if !self.mark.is_here() {
            return;
        }
        self.mailbox.desert();
        // The last handle may have been dropped by a task that is woken.
        if thread::current().id() != self.id {
            self.join();
        }
    }
}
