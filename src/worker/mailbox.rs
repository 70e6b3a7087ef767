//! Owns [`Mailbox`]: what other threads ask the loop to do.
//!
//! Invariants: the loop is woken once for all requests that are posted before it looks. A request
//! is either handed to the loop or dropped, with all that it holds, and after the end none is
//! accepted. Knows nothing of what is asked for.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use crate::driver::Waker;
use crate::error::{Result, WorkerError};
use crate::worker::engine::Engine;
use crate::worker::wait::lock;

/// How many requests the loop handles in one turn: jobs and other logs come in between.
const REQUESTS_PER_TURN: usize = 64;

/// Something that the loop is to do.
pub(super) type Request = Box<dyn FnOnce(&mut Engine) + Send>;

/// The requests that the loop has not taken yet.
pub(super) struct Mailbox {
    state: Mutex<State>,
    waker: Waker,
}

#[derive(Default)]
struct State {
    requests: VecDeque<Request>,
    /// There is nobody left who could post.
    deserted: bool,
    ended: Option<WorkerError>,
}

/// What the loop has to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mail {
    /// Nothing more, once it has done what it has taken.
    Nothing,
    /// There are more requests, for the next turn.
    More,
    /// There is nobody left who could ask for anything.
    Deserted,
}

impl Mailbox {
    pub(super) fn new(waker: Waker) -> Self {
        Self { state: Mutex::default(), waker }
    }

    /// Posts a request.
    pub(super) fn post(&self, request: Request) -> Result<()> {
        let first = {
            let mut state = lock(&self.state);
            if let Some(ended) = &state.ended {
                return Err(ended.clone().into());
            }
            state.requests.push_back(request);
            state.requests.len() == 1
        };
        // Otherwise somebody has woken it already, and it has not looked since.
        if first { self.waker.wake() } else { Ok(()) }
    }

    /// The last handle is gone.
    pub(super) fn desert(&self) {
        lock(&self.state).deserted = true;
        // It should not fail, and there is nobody left to report that to.
        let _ = self.waker.wake();
    }

    /// Takes what is to be done in one turn.
    pub(super) fn take(&self, requests: &mut VecDeque<Request>) -> Mail {
        let mut state = lock(&self.state);
        if state.requests.len() <= REQUESTS_PER_TURN {
            std::mem::swap(requests, &mut state.requests);
        } else {
            requests.extend(state.requests.drain(..REQUESTS_PER_TURN));
        }
        match (state.requests.is_empty(), state.deserted) {
            (true, true) => Mail::Deserted,
            (true, false) => Mail::Nothing,
            (false, _) => Mail::More,
        }
    }

    /// Accepts no request any more, and drops those that are left. The first reason stays.
    pub(super) fn end(&self, why: &WorkerError) {
        let left = {
            let mut state = lock(&self.state);
            state.ended.get_or_insert_with(|| why.clone());
            std::mem::take(&mut state.requests)
        };
        for request in left {
            // Its drop wakes a task, whose waker may panic. The others are dropped all the same.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(request)));
        }
    }

    /// Why the loop has ended, if it has.
    pub(super) fn ended(&self) -> Option<WorkerError> {
        lock(&self.state).ended.clone()
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").finish_non_exhaustive()
    }
}
