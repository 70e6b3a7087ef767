//! Owns how anybody waits: [`block_on`] for threads, [`Waiter`] for whoever may have to be woken,
//! and [`WaitList`], those who wait for the same thing.
//!
//! Invariants: threads and tasks wait in the same way, by a [`std::task::Waker`]. Whoever is taken
//! from a list is woken, even if the waker of another panics. A waker is never called, cloned or
//! dropped, and so no code of the host run, under a lock. Knows nothing of what is waited for.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use slab::Slab;

use crate::sync::{Mutex, MutexGuard, thread_local};
use crate::worker::signal::Signal;

/// Takes a lock, even if a thread has panicked under it: what the locks of this room guard is
/// consistent between any two statements.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a thread waits by, and the waker that raises it.
fn signal() -> (Arc<Signal>, Waker) {
    let signal = Arc::new(Signal::default());
    let waker = Waker::from(Arc::clone(&signal));
    (signal, waker)
}

thread_local! {
    static SIGNAL: (Arc<Signal>, Waker) = signal();
}

/// Polls until there is a result, and blocks the thread in between; `None` when the time is up
/// first. Polls once at least.
pub(super) fn block_on<T>(
    until: Option<Instant>,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Option<T> {
    let mut block_on = |(signal, waker): &(Arc<Signal>, Waker)| {
        let mut cx = Context::from_waker(waker);
        loop {
            if let Poll::Ready(result) = poll(&mut cx) {
                return Some(result);
            }
            if !signal.wait(until) {
                return None;
            }
        }
    };
    // A thread that is about to end has lost its own one already.
    SIGNAL.try_with(&mut block_on).unwrap_or_else(|_| block_on(&signal()))
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
        if !lock(&self.waker).as_ref().is_some_and(|current| current.will_wake(waker)) {
            let new = waker.clone();
            let before = lock(&self.waker).replace(new);
            drop(before);
        }
    }

    /// Nobody is to be woken any more. A waker may own what waits, which would keep itself.
    pub(super) fn clear(&self) {
        let before = lock(&self.waker).take();
        drop(before);
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
    /// Most often there is no other. It is here so that to wake it takes no look elsewhere.
    first: Option<Arc<Waiter>>,
    others: Slab<Arc<Waiter>>,
    /// How often all were taken.
    round: u64,
}

/// A place in a [`WaitList`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    round: u64,
    /// Of one of the others.
    key: Option<usize>,
}

impl WaitList {
    /// Adds a waiter, unless its ticket says that it is in the list already.
    pub(super) fn add(&mut self, ticket: &mut Option<Ticket>, waiter: &Arc<Waiter>) {
        if ticket.is_none_or(|ticket| ticket.round != self.round) {
            let waiter = Arc::clone(waiter);
            let key = match &self.first {
                Some(_) => Some(self.others.insert(waiter)),
                None => {
                    self.first = Some(waiter);
                    None
                }
            };
            *ticket = Some(Ticket { round: self.round, key });
        }
    }

    /// Removes a waiter that does not wait any more.
    pub(super) fn remove(&mut self, ticket: Option<Ticket>) {
        if let Some(Ticket { round, key }) = ticket
            && round == self.round
        {
            match key {
                Some(key) => drop(self.others.remove(key)),
                None => self.first = None,
            }
        }
    }

    /// Takes all of them, to be woken outside of the lock.
    pub(super) fn take(&mut self) -> Woken {
        self.round += 1;
        let first = self.first.take();
        if self.others.is_empty() {
            return first.map_or(Woken::Nobody, Woken::One);
        }
        Woken::Many(first.into_iter().chain(self.others.drain()).collect())
    }

    /// How many they are.
    pub(super) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.others.len()
    }
}

/// Waiters that have to be woken. One alone takes no allocation.
#[derive(Debug, Default)]
#[must_use]
pub(super) enum Woken {
    #[default]
    Nobody,
    One(Arc<Waiter>),
    Many(Vec<Arc<Waiter>>),
}

impl Woken {
    /// All of these.
    pub(super) fn of(waiters: impl Iterator<Item = Arc<Waiter>>) -> Self {
        Self::Many(waiters.collect())
    }

    /// Together with others.
    pub(super) fn and(self, others: Self) -> Self {
        match (self, others) {
            (Self::Nobody, some) | (some, Self::Nobody) => some,
            (some, others) => Self::Many([some.all(), others.all()].concat()),
        }
    }

    fn all(self) -> Vec<Arc<Waiter>> {
        match self {
            Self::Nobody => Vec::new(),
            Self::One(waiter) => vec![waiter],
            Self::Many(waiters) => waiters,
        }
    }

    /// Wakes all of them. Should a waker panic, the others are woken first.
    #[inline]
    pub(super) fn wake(self) {
        match self {
            Self::Nobody => {}
            Self::One(waiter) => waiter.wake(),
            Self::Many(waiters) => {
                if let Some(panic) = wake_all(waiters) {
                    resume_unwind(panic);
                }
            }
        }
    }

    /// Wakes all of them, whatever their wakers do.
    pub(super) fn wake_last(self) {
        if let Some(panic) = wake_all(self.all()) {
            discard(panic);
        }
    }
}

/// Wakes all of these, and returns the first panic of their wakers.
fn wake_all(waiters: Vec<Arc<Waiter>>) -> Option<Box<dyn Any + Send>> {
    let wake = |waiter: Arc<Waiter>| catch_unwind(AssertUnwindSafe(|| waiter.wake())).err();
    waiters.into_iter().filter_map(wake).reduce(|first, another| {
        discard(another);
        first
    })
}

/// Does something that may run code of the host, whatever that does.
pub(super) fn whatever_happens(act: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(act)) {
        discard(panic);
    }
}

/// Drops what a panic has left, which is the host's as well, and may panic again.
pub(super) fn discard(panic: Box<dyn Any + Send>) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(again);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Wake;
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
        let (signals, wakers): (Vec<_>, Vec<_>) = (0..2).map(|_| signal()).unzip();
        waiters[1].set(&wakers[0]);
        waiters[2].set(&wakers[1]);
        let woken = list.take();
        assert!(catch_unwind(AssertUnwindSafe(|| woken.wake())).is_err());
        assert!(signals.iter().all(|signal| signal.take()));
    }

    /// A panic whose payload panics when it is dropped, and so does the payload of that.
    struct Spiteful;

    impl Drop for Spiteful {
        fn drop(&mut self) {
            std::panic::panic_any(Self);
        }
    }

    /// A waker that panics so.
    struct Spreads;

    impl Wake for Spreads {
        fn wake(self: Arc<Self>) {
            std::panic::panic_any(Spiteful);
        }
    }

    #[test]
    fn everybody_is_woken_although_what_the_panics_leave_panics_as_well() {
        let mut list = WaitList::default();
        let waiters: Vec<Arc<Waiter>> = (0..4).map(|_| Arc::default()).collect();
        for waiter in &waiters {
            list.add(&mut None, waiter);
        }
        for waiter in &waiters[..3] {
            waiter.set(&Waker::from(Arc::new(Spreads)));
        }
        let (signal, waker) = signal();
        waiters[3].set(&waker);
        list.take().wake_last();
        assert!(signal.take());
    }

    /// Uses what it waits by, when it is dropped.
    struct Meddler(Arc<Waiter>);

    impl Wake for Meddler {
        fn wake(self: Arc<Self>) {}
    }

    impl Drop for Meddler {
        fn drop(&mut self) {
            self.0.wake();
        }
    }

    #[test]
    fn a_waker_may_use_what_it_waits_by_when_it_is_dropped() {
        let waiter = Arc::new(Waiter::default());
        for _ in 0..2 {
            waiter.set(&Waker::from(Arc::new(Meddler(Arc::clone(&waiter)))));
        }
        waiter.clear();
        assert_eq!(Arc::strong_count(&waiter), 1);
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
        assert_eq!(list.len(), 2);
        list.remove(one);
        assert_eq!(list.len(), 1);
        list.take().wake();
        // The place may be somebody else's by now.
        let mut other = None;
        list.add(&mut other, &first);
        list.remove(two);
        assert_eq!(list.len(), 1);
        list.add(&mut two, &second);
        assert_eq!(list.len(), 2);
    }

    #[test]
    fn what_the_host_parks_by_is_left_alone() {
        std::thread::current().unpark();
        let mut polls = 0..2;
        let twice = |cx: &mut Context<'_>| {
            cx.waker().wake_by_ref();
            if polls.next().is_some() { Poll::Pending } else { Poll::Ready(()) }
        };
        assert_eq!(block_on(None, twice), Some(()));
        let (begin, long) = (Instant::now(), Duration::from_secs(600));
        std::thread::park_timeout(long);
        assert!(begin.elapsed() < long);
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

#[cfg(all(test, jobworker_loom))]
mod models {
    use super::*;
    use crate::sync::atomic::{AtomicBool, Ordering};
    use crate::sync::{check, thread};

    /// Something to wait for.
    #[derive(Debug, Default)]
    struct Flag {
        set: AtomicBool,
        waiter: Waiter,
    }

    impl Flag {
        fn raise(&self) {
            self.set.store(true, Ordering::Release);
            self.waiter.wake();
        }

        fn wait(&self) {
            let raised = block_on(None, |cx| {
                self.waiter.set(cx.waker());
                if self.set.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
            });
            assert_eq!(raised, Some(()));
        }
    }

    #[test]
    fn a_thread_that_waits_is_woken_by_each_of_two() {
        check(Some(3), || {
            let flags: Arc<[Flag; 2]> = Arc::default();
            let threads = [0, 1].map(|index| {
                let flags = Arc::clone(&flags);
                thread::spawn(move || flags[index].raise())
            });
            // The first may be raised while the second is waited for, and wakes in vain then.
            flags[1].wait();
            flags[0].wait();
            for thread in threads {
                thread.join().unwrap();
            }
        });
    }

    #[test]
    fn a_wake_of_an_earlier_wait_does_not_end_a_later_one() {
        check(Some(3), || {
            let flags: Arc<[Flag; 2]> = Arc::default();
            let raising = Arc::clone(&flags);
            let thread = thread::spawn(move || {
                raising[0].raise();
                raising[1].raise();
            });
            flags[0].wait();
            flags[1].wait();
            thread.join().unwrap();
        });
    }
}
