//! Owns how anybody waits: [`block_on`] for threads, [`Waiter`] for whoever may have to be woken,
//! and [`WaitList`], those who wait for the same thing.
//!
//! Invariants: threads and tasks wait in the same way, by a [`std::task::Waker`]. Whoever is taken
//! from a list is woken, even if the waker of another panics. A waker is never called, and so no
//! code of the host run, under a lock. Knows nothing of what is waited for.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Instant;

use slab::Slab;

/// Takes a lock, even if a thread has panicked under it: what the locks of this room guard is
/// consistent between any two statements.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Wakes a thread that is parked in [`block_on`].
struct Parker {
    thread: Thread,
    woken: AtomicBool,
}

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            self.thread.unpark();
        }
    }
}

fn parker() -> (Arc<Parker>, Waker) {
    let parker = Arc::new(Parker { thread: thread::current(), woken: AtomicBool::new(false) });
    let waker = Waker::from(Arc::clone(&parker));
    (parker, waker)
}

thread_local! {
    static PARKER: (Arc<Parker>, Waker) = parker();
}

/// Polls until there is a result, and blocks the thread in between; `None` when the time is up
/// first. Polls once at least.
pub(super) fn block_on<T>(
    until: Option<Instant>,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Option<T> {
    // A thread that is about to end has lost its own one already.
    let own = PARKER.try_with(Clone::clone);
    let (parker, waker) = own.unwrap_or_else(|_| parker());
    let mut cx = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(result) = poll(&mut cx) {
            return Some(result);
        }
        while !parker.woken.swap(false, Ordering::AcqRel) {
            match until {
                None => thread::park(),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return None;
                    }
                    thread::park_timeout(left);
                }
            }
        }
    }
}

/// Somebody who may wait. It is told apart from its waker, so that whatever it waits for reaches
/// the waker of its last poll.
#[derive(Debug, Default)]
pub(super) struct Waiter {
    waker: Mutex<Option<Waker>>,
}

impl Waiter {
    /// Who is to be woken from now on. Called before a state is checked, so that a change after
    /// the check finds it.
    pub(super) fn set(&self, waker: &Waker) {
        let mut current = lock(&self.waker);
        if !current.as_ref().is_some_and(|current| current.will_wake(waker)) {
            *current = Some(waker.clone());
        }
    }

    /// Wakes it, if it waits.
    pub(super) fn wake(&self) {
        let waker = lock(&self.waker).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Those who wait for the same thing.
#[derive(Debug, Default)]
pub(super) struct WaitList {
    waiting: Slab<Arc<Waiter>>,
    /// How often all were taken.
    round: u64,
}

/// A place in a [`WaitList`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    round: u64,
    key: usize,
}

impl WaitList {
    /// Adds a waiter, unless its ticket says that it is in the list already.
    pub(super) fn add(&mut self, ticket: &mut Option<Ticket>, waiter: &Arc<Waiter>) {
        if ticket.is_none_or(|ticket| ticket.round != self.round) {
            let key = self.waiting.insert(Arc::clone(waiter));
            *ticket = Some(Ticket { round: self.round, key });
        }
    }

    /// Removes a waiter that does not wait any more.
    pub(super) fn remove(&mut self, ticket: Option<Ticket>) {
        if let Some(Ticket { round, key }) = ticket
            && round == self.round
        {
            self.waiting.remove(key);
        }
    }

    /// Takes all of them, to be woken outside of the lock.
    pub(super) fn take(&mut self) -> Woken {
        self.round += 1;
        Woken(self.waiting.drain().collect())
    }
}

/// Waiters that have to be woken.
#[derive(Debug, Default)]
#[must_use]
pub(super) struct Woken(Vec<Arc<Waiter>>);

impl Woken {
    /// Those who wait for something of their own.
    pub(super) fn of(waiters: impl Iterator<Item = Arc<Waiter>>) -> Self {
        Self(waiters.collect())
    }

    /// Wakes all of them. Should a waker panic, the others are woken first.
    pub(super) fn wake(self) {
        if let Some(panic) = self.wake_all() {
            resume_unwind(panic);
        }
    }

    /// Wakes all of them, whatever their wakers do.
    pub(super) fn wake_last(self) {
        let _ = self.wake_all();
    }

    fn wake_all(self) -> Option<Box<dyn Any + Send>> {
        let wake = |waiter: Arc<Waiter>| catch_unwind(AssertUnwindSafe(|| waiter.wake())).err();
        self.0.into_iter().filter_map(wake).reduce(|first, _| first)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    struct Panics;

    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("a waker that panics");
        }
    }

    #[test]
    fn everybody_is_woken_although_a_waker_panics() {
        let mut list = WaitList::default();
        let waiters: Vec<Arc<Waiter>> = (0..3).map(|_| Arc::default()).collect();
        for waiter in &waiters {
            list.add(&mut None, waiter);
        }
        waiters[0].set(&Waker::from(Arc::new(Panics)));
        let (parkers, wakers): (Vec<_>, Vec<_>) = (0..2).map(|_| parker()).unzip();
        waiters[1].set(&wakers[0]);
        waiters[2].set(&wakers[1]);
        let woken = list.take();
        assert!(catch_unwind(AssertUnwindSafe(|| woken.wake())).is_err());
        assert!(parkers.iter().all(|parker| parker.woken.load(Ordering::Relaxed)));
    }

    #[test]
    fn a_waiter_is_in_the_list_once_and_leaves_it_by_its_ticket() {
        let mut list = WaitList::default();
        let (first, second) = (Arc::default(), Arc::default());
        let (mut one, mut two) = (None, None);
        for _ in 0..3 {
            list.add(&mut one, &first);
            list.add(&mut two, &second);
        }
        assert_eq!(list.waiting.len(), 2);
        list.remove(one);
        assert_eq!(list.waiting.len(), 1);
        list.take().wake();
        // The place may be somebody else's by now.
        let mut other = None;
        list.add(&mut other, &first);
        list.remove(two);
        assert_eq!(list.waiting.len(), 1);
        list.add(&mut two, &second);
        assert_eq!(list.waiting.len(), 2);
    }

    #[test]
    fn a_time_that_is_up_is_noticed_after_one_poll() {
        let mut polls = 0;
        let never = |_: &mut Context<'_>| {
            polls += 1;
            Poll::<()>::Pending
        };
        assert_eq!(block_on(Some(Instant::now()), never), None);
        assert_eq!(polls, 1);
        let soon = Instant::now() + Duration::from_millis(5);
        assert_eq!(block_on(Some(soon), |_| Poll::<()>::Pending), None);
        assert!(soon <= Instant::now());
    }
}
