//! Owns [`Progress`]: what the loop publishes of one job for those who wait for its end.
//!
//! Invariant: an end, once published, is there for whoever asks later. Knows nothing of the loop.

use std::sync::{Arc, Mutex};

use crate::event::Report;
use crate::id::JobId;
use crate::worker::wait::{Ticket, WaitList, Waiter, Woken, lock};

/// What is known of a job on every thread.
#[derive(Debug)]
pub(super) struct Progress {
    id: JobId,
    pid: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    end: Option<End>,
    waiting: WaitList,
}

/// How it came to an end.
#[derive(Clone, Debug)]
pub(super) enum End {
    Finished(Arc<Report>),
    /// The loop has ended before the job was finished.
    Lost,
}

impl Progress {
    pub(super) fn new(id: JobId, pid: u32) -> Self {
        Self { id, pid, state: Mutex::default() }
    }

    pub(super) fn id(&self) -> JobId {
        self.id
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// The end, if it has come.
    pub(super) fn end(&self) -> Option<End> {
        lock(&self.state).end.clone()
    }

    /// The end, or the waiter is woken when it comes.
    pub(super) fn end_or_wait(
        &self,
        ticket: &mut Option<Ticket>,
        waiter: &Arc<Waiter>,
    ) -> Option<End> {
        let mut state = lock(&self.state);
        if state.end.is_none() {
            state.waiting.add(ticket, waiter);
        }
        state.end.clone()
    }

    /// A waiter does not wait any more.
    pub(super) fn leave(&self, ticket: Option<Ticket>) {
        lock(&self.state).waiting.remove(ticket);
    }

    /// The end has come. The first one stays.
    pub(super) fn set_end(&self, end: End) -> Woken {
        let mut state = lock(&self.state);
        state.end.get_or_insert(end);
        state.waiting.take()
    }
}
