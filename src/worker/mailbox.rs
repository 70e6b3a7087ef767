//! Owns [`Mailbox`]: what other threads ask the loop to do.
//!
//! Invariants: the loop is woken once for all requests that are posted before it looks. A request
//! is either handed to the loop or dropped, with all that it holds, and after the end none is
//! accepted. Knows nothing of what is asked for.

use std::collections::VecDeque;
use std::fmt;

use crate::driver::Waker;
use crate::error::{Result, WorkerError};
use crate::sync::Mutex;
use crate::worker::engine::Engine;
use crate::worker::wait::{lock, whatever_happens};

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
            whatever_happens(|| drop(request));
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

#[cfg(all(test, jobworker_loom))]
mod models {
    use std::sync::Arc;

    use super::*;
    use crate::sync::{check, thread};
    use crate::worker::model::{Failure, Reactor};
    use crate::worker::reply::reply;
    use crate::worker::wait::block_on;

    /// Asks the loop for something, and waits: `None` when it will not be answered.
    fn ask(mailbox: &Mailbox) -> Option<u32> {
        let (sender, mut receiver) = reply();
        let posted = mailbox.post(Box::new(move |_| sender.send(7)));
        let answer = block_on(None, |cx| receiver.poll(cx)).flatten();
        assert!(posted.is_ok() || answer.is_none());
        answer
    }

    #[test]
    fn each_request_is_answered_and_then_the_loop_ends() {
        check(Some(2), || {
            let (reactor, _kernel) = Reactor::of_model(0);
            let mailbox = Arc::new(Mailbox::new(reactor.waker()));
            let (engine, _) = Engine::new(reactor, Arc::default()).unwrap();
            let of_loop = Arc::clone(&mailbox);
            let main = thread::spawn(move || engine.main(&of_loop));
            let other = Arc::clone(&mailbox);
            let other = thread::spawn(move || ask(&other));
            assert_eq!(ask(&mailbox), Some(7));
            assert_eq!(other.join().unwrap(), Some(7));
            mailbox.desert();
            main.join().unwrap();
        });
    }

    #[test]
    fn a_request_is_answered_or_dropped_when_the_loop_ends() {
        check(None, || {
            let (reactor, _kernel) = Reactor::of_model(0);
            let mailbox = Arc::new(Mailbox::new(reactor.waker()));
            let asking = Arc::clone(&mailbox);
            let asking = thread::spawn(move || ask(&asking));
            mailbox.end(&WorkerError::ShutDown);
            assert_eq!(asking.join().unwrap(), None);
            assert_eq!(mailbox.ended(), Some(WorkerError::ShutDown));
        });
    }

    #[test]
    fn a_request_is_answered_or_dropped_when_the_loop_fails() {
        for failure in [Failure::Error, Failure::Panic] {
            check(Some(3), move || {
                let (reactor, kernel) = Reactor::of_model(0);
                let mailbox = Arc::new(Mailbox::new(reactor.waker()));
                let (engine, _) = Engine::new(reactor, Arc::default()).unwrap();
                let of_loop = Arc::clone(&mailbox);
                let main = thread::spawn(move || engine.main(&of_loop));
                let asking = Arc::clone(&mailbox);
                let asking = thread::spawn(move || ask(&asking));
                kernel.fail(failure);
                let answer = asking.join().unwrap();
                assert!(answer.is_none_or(|answer| answer == 7));
                main.join().unwrap();
                assert_eq!(ask(&mailbox), None);
            });
        }
    }
}
