//! Owns [`MainProcess`]: what is known of the end of the main process of a job that is live.
//!
//! Invariant: the pidfd of the process is out of the epoll before it is reaped, for the kernel
//! would report it again. Knows nothing of the other processes of the job.

use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::event::{Exit, Usage};
use crate::job::handles::Handles;
use crate::job::system::System;
use crate::sys::Reap;

/// What is known of the end of a main process.
#[derive(Debug, Default)]
pub(super) struct MainProcess {
    exited: Option<Exited>,
    /// Whether it is reaped, by us or by somebody else.
    reaped: bool,
}

/// How the main process ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exited {
    pub(crate) exit: Exit,
    pub(crate) usage: Usage,
    pub(crate) wall: Duration,
}

impl MainProcess {
    /// How it has ended, once that is known.
    pub(super) fn exited(&self) -> Option<Exited> {
        self.exited
    }

    /// An earlier host knows that.
    pub(super) fn set_exited(&mut self, exited: Exited) {
        self.exited = Some(exited);
    }

    /// Whether nobody has to wait for it any more.
    pub(super) fn is_reaped(&self) -> bool {
        self.reaped
    }

    /// Takes the exit status of the main process, whose pidfd is ready; `None` when that was known
    /// already, or when the process runs still. After a failure, nothing reports its exit any more.
    ///
    /// With `keep`, the zombie stays until [`bury`](Self::bury): as long as it is there, another
    /// host can find out how it has ended, if this one dies.
    pub(super) fn reap<S: System>(
        &mut self,
        spawned: Instant,
        keep: bool,
        (handles, problems): (&mut Handles<S>, &mut Vec<Error>),
        system: &mut S,
    ) -> Result<Option<Exit>> {
        if self.exited.is_some() {
            return Ok(None);
        }
        if self.reaped {
            // It was being reaped by somebody else when it was asked how it has ended.
            return Ok(self.reaped_elsewhere(spawned, handles, system));
        }
        let needs_leader = S::needs_leader(handles.group());
        let keep = keep || needs_leader;
        let reap = if keep { Reap::Peek } else { Reap::Now };
        handles.unwatch_exit(system);
        let (exit, usage) = match system.wait(handles.process(), reap) {
            Ok(Some(ended)) => {
                self.reaped = !keep;
                ended
            }
            Ok(None) => {
                let watched = handles.watch_exit(system);
                watched.map_err(Error::event_loop("watch a main process"))?;
                return Ok(None);
            }
            Err(cause) => {
                // ECHILD: the host ignores SIGCHLD, or waits for any child.
                self.reaped = Errno::from_io_error(&cause) == Some(Errno::CHILD);
                if !self.reaped {
                    problems.push(Error::event_loop("wait for a main process")(cause));
                } else if handles.watch_exit(system).is_ok() {
                    return Ok(self.reaped_elsewhere(spawned, handles, system));
                }
                let exit = system.exit_after_reap(handles.process());
                (exit.unwrap_or(Exit::Unknown), Usage::default())
            }
        };
        Ok(Some(self.record_exit(exit, usage, spawned, system)))
    }

    /// Reaps the main process, whose end is known and was recorded.
    pub(super) fn bury<S: System>(&mut self, handles: &Handles<S>, system: &mut S) {
        if self.reaped || S::needs_leader(handles.group()) {
            return;
        }
        // After a failure, it is tried again at the end.
        self.reaped = match system.wait(handles.process(), Reap::Now) {
            Ok(ended) => ended.is_some(),
            Err(cause) => Errno::from_io_error(&cause) == Some(Errno::CHILD),
        };
    }

    /// Takes the exit status of the main process, which somebody else reaps; `None` while that is
    /// being done. Its pidfd stays watched meanwhile, for it is ready once more after that.
    fn reaped_elsewhere<S: System>(
        &mut self,
        spawned: Instant,
        handles: &mut Handles<S>,
        system: &mut S,
    ) -> Option<Exit> {
        let exit = system.exit_after_reap(handles.process())?;
        handles.unwatch_exit(system);
        Some(self.record_exit(exit, Usage::default(), spawned, system))
    }

    /// Makes the main process count as exited, because nothing would report its exit.
    pub(super) fn lost<S: System>(&mut self, spawned: Instant, system: &S) -> Exit {
        self.record_exit(Exit::Unknown, Usage::default(), spawned, system)
    }

    fn record_exit<S: System>(
        &mut self,
        exit: Exit,
        usage: Usage,
        spawned: Instant,
        system: &S,
    ) -> Exit {
        let wall = system.now().saturating_duration_since(spawned);
        self.exited = Some(Exited { exit, usage, wall });
        exit
    }
}
