//! Owns [`Delivery`]: a signal that is being sent to every process of a job, a bounded number at a
//! time.
//!
//! Invariants: each process is sent the signal once; no descriptor is held between two calls, and
//! each call costs the same at most, however many processes there are. Knows nothing of the job's
//! state, and of who calls it again.

use std::cell::RefCell;
use std::collections::HashSet;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;

use rustix::process::Pid;

use crate::cgroup::{Group, Pass};
use crate::command::Signal;
use crate::error::{Error, Result};
use crate::sys::{Process, send};

/// How many processes and groups are visited in one call. Each takes about 10 us.
const SLICE: usize = 100;

/// How often the processes are listed. One that was forked after a list was read is found by the
/// next one. A job that forks faster than it can be listed is ended by the kill that follows a
/// stop.
const PASSES: usize = 4;

/// A signal that is being sent to every process of a job.
#[derive(Debug)]
pub(crate) struct Delivery {
    signal: Signal,
    pass: Pass,
    /// How many passes were begun.
    passes: usize,
    /// Whether the current pass has found a process that no earlier one had.
    found: bool,
    signalled: HashSet<Pid>,
    ended: bool,
    /// Whether it had ended before.
    again: bool,
}

impl Delivery {
    pub(crate) fn new(signal: Signal) -> Self {
        Self {
            signal,
            pass: Pass::default(),
            passes: 1,
            found: false,
            signalled: HashSet::new(),
            ended: false,
            again: false,
        }
    }

    /// Begins again, for processes that were not there.
    pub(crate) fn begin_again(&mut self) {
        let signalled = std::mem::take(&mut self.signalled);
        *self = Self { signalled, again: true, ..Self::new(self.signal) };
    }

    /// Whether it has begun again: whoever cannot tell who has the signal must not send it twice.
    pub(crate) fn is_for_late_ones(&self) -> bool {
        self.again
    }

    pub(crate) fn signal(&self) -> Signal {
        self.signal
    }

    /// Whether nothing is left to do.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Everything was signalled, by other means.
    pub(crate) fn end(&mut self) {
        self.ended = true;
    }

    /// Signals the next processes of a group. A process that may not be signalled, because it has
    /// changed its user, shields no other; the first such failure of the call is returned.
    pub(crate) fn go_on(&mut self, group: &Group, main: &Process) -> Result<()> {
        let mut refused = None;
        let visited = self.visit(group, &mut refused);
        // After a failure to list them, the rest cannot be found.
        self.ended = !matches!(visited, Ok(ControlFlow::Break(())));
        let mut result = visited.map(drop);
        if self.ended && !self.signalled.iter().any(|pid| number(*pid) == main.pid()) {
            let sent = match main.is_process() {
                true => send_and_continue(main.pidfd(), self.signal),
                false => Ok(()),
            };
            result = result.and(sent.map_err(Error::event_loop("signal a main process")));
        }
        let refused = refused.map(Error::path("signal a process of", group.path()));
        result.and(refused.map_or(Ok(()), Err))
    }

    /// Breaks when it is to be continued.
    fn visit(&mut self, group: &Group, refused: &mut Option<io::Error>) -> Result<ControlFlow<()>> {
        let mut budget = SLICE;
        loop {
            let signalled = RefCell::new(&mut self.signalled);
            let visited = group.for_each_member(
                &mut self.pass,
                &mut budget,
                |pid| !signalled.borrow().contains(&pid),
                |pid, pidfd| {
                    if signalled.borrow_mut().insert(pid) {
                        self.found = true;
                        if let Err(cause) = send_and_continue(&pidfd, self.signal) {
                            refused.get_or_insert(cause);
                        }
                    }
                    Ok(ControlFlow::Continue(()))
                },
            )?;
            if visited.is_break() {
                return Ok(visited);
            }
            if !self.found || self.passes == PASSES {
                return Ok(ControlFlow::Continue(()));
            }
            self.found = false;
            self.passes += 1;
        }
    }
}

pub(crate) fn number(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get().unsigned_abs()
}

/// A stopped process acts on no signal but SIGKILL until it continues.
pub(crate) fn needs_continue(signal: Signal) -> bool {
    !matches!(signal, Signal::KILL | Signal::CONT | Signal::STOP)
}

fn send_and_continue(pidfd: &OwnedFd, signal: Signal) -> io::Result<()> {
    send(pidfd, signal)?;
    if needs_continue(signal) { send(pidfd, Signal::CONT) } else { Ok(()) }
}
