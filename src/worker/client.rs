//! Owns [`Client`]: what all handles of a worker share, and the end of its thread.
//!
//! Invariants: the thread lives as long as there is a client, unless it is shut down or fails
//! first. A call that waits for the thread returns when that is gone. Knows nothing of what is
//! asked for.

use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle, ThreadId};

use crate::error::{Error, Result, SystemError, WorkerError};
use crate::job::Launcher;
use crate::reactor::Reactor;
use crate::sys::ForkMark;
use crate::worker::engine::Engine;
use crate::worker::mailbox::Mailbox;
use crate::worker::progress::Progress;
use crate::worker::reply::reply;
use crate::worker::wait::{block_on, lock};

/// What all handles of a worker share.
#[derive(Debug)]
pub(super) struct Client {
    mailbox: Arc<Mailbox>,
    launcher: Arc<Launcher>,
    /// In a process that the host forks there is no such thread.
    mark: ForkMark,
    id: ThreadId,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Client {
    /// Runs a reactor on a thread of its own. Returns the jobs that it has, too.
    pub(super) fn start(reactor: Reactor) -> Result<(Arc<Self>, Vec<Arc<Progress>>)> {
        let mark = ForkMark::new().map_err(Error::event_loop("map a page that forks wipe"))?;
        let launcher = Arc::clone(reactor.launcher());
        let mailbox = Arc::new(Mailbox::new(reactor.waker()));
        let (engine, jobs) = Engine::new(reactor)?;
        let main = {
            let mailbox = Arc::clone(&mailbox);
            move || engine.main(&mailbox)
        };
        let thread = thread::Builder::new().name("jobworker".to_owned()).spawn(main);
        let thread = thread.map_err(Error::event_loop("start the thread of a worker"))?;
        let id = thread.thread().id();
        let thread = Mutex::new(Some(thread));
        Ok((Arc::new(Self { mailbox, launcher, mark, id, thread }), jobs))
    }

    pub(super) fn launcher(&self) -> &Launcher {
        &self.launcher
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
