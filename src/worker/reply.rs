//! Owns the answer to one request: [`Sender`] and [`Receiver`] of one value.
//!
//! Invariant: a receiver is always woken: by the value, or because the sender was dropped. Knows
//! nothing of requests.

use std::sync::Arc;
use std::task::{Context, Poll};

use crate::sync::Mutex;
use crate::worker::wait::{Waiter, lock, whatever_happens};

#[derive(Debug)]
enum State<T> {
    Waiting,
    Sent(T),
    /// The sender was dropped, or the value was taken.
    Gone,
}

#[derive(Debug)]
struct Slot<T> {
    state: Mutex<State<T>>,
    waiter: Waiter,
}

impl<T> Slot<T> {
    fn settle(&self, state: State<T>) {
        // What was there before is dropped outside of the lock.
        let before = std::mem::replace(&mut *lock(&self.state), state);
        drop(before);
        self.waiter.wake();
    }
}

/// Sends one value.
#[derive(Debug)]
pub(super) struct Sender<T>(Option<Arc<Slot<T>>>);

impl<T> Sender<T> {
    pub(super) fn send(mut self, value: T) {
        if let Some(slot) = self.0.take() {
            slot.settle(State::Sent(value));
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if let Some(slot) = self.0.take() {
            // The thread may be panicking already, and must not panic twice.
            whatever_happens(|| slot.settle(State::Gone));
        }
    }
}

/// Receives it.
#[derive(Debug)]
pub(super) struct Receiver<T>(Arc<Slot<T>>);

impl<T> Receiver<T> {
    /// The value, or `None` when it will not come any more.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.0.waiter.set(cx.waker());
        let mut state = lock(&self.0.state);
        match std::mem::replace(&mut *state, State::Gone) {
            State::Waiting => {
                *state = State::Waiting;
                Poll::Pending
            }
            State::Sent(value) => Poll::Ready(Some(value)),
            State::Gone => Poll::Ready(None),
        }
    }
}

/// Both ends.
pub(super) fn reply<T>() -> (Sender<T>, Receiver<T>) {
    let slot = Arc::new(Slot { state: Mutex::new(State::Waiting), waiter: Waiter::default() });
    (Sender(Some(Arc::clone(&slot))), Receiver(slot))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::worker::wait::block_on;

    #[test]
    fn a_receiver_gets_the_value_or_that_there_is_none() {
        for value in [Some(7), None] {
            let (sender, mut receiver) = reply();
            let thread = thread::spawn(move || match value {
                Some(value) => sender.send(value),
                None => drop(sender),
            });
            assert_eq!(block_on(None, |cx| receiver.poll(cx)), Some(value));
            thread.join().unwrap();
            assert_eq!(block_on(None, |cx| receiver.poll(cx)), Some(None));
        }
    }
}

#[cfg(all(test, jobworker_loom))]
mod models {
    use super::*;
    use crate::sync::{check, thread};
    use crate::worker::wait::block_on;

    #[test]
    fn a_receiver_that_waits_gets_the_value_or_that_there_is_none() {
        for value in [Some(7), None] {
            check(None, move || {
                let (sender, mut receiver) = reply();
                let thread = thread::spawn(move || match value {
                    Some(value) => sender.send(value),
                    None => drop(sender),
                });
                assert_eq!(block_on(None, |cx| receiver.poll(cx)), Some(value));
                thread.join().unwrap();
            });
        }
    }

    #[test]
    fn a_receiver_that_moves_to_another_task_is_woken_there() {
        check(None, || {
            let (sender, mut receiver) = reply();
            let thread = thread::spawn(move || sender.send(7));
            let mut elsewhere = Context::from_waker(std::task::Waker::noop());
            if receiver.poll(&mut elsewhere).is_pending() {
                assert_eq!(block_on(None, |cx| receiver.poll(cx)), Some(Some(7)));
            }
            thread.join().unwrap();
        });
    }
}
