//! Owns [`Ring`]: the newest events of one source, for any number of subscribers.
//!
//! Invariants: no more than [`EVENTS`] are held, whoever reads them and however slowly, and none
//! while nobody has subscribed. Every event has a number, so a subscriber knows exactly how many it
//! has missed. What must not be missed is dropped last. Knows nothing of what the events mean.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::worker::wait::{Ticket, WaitList, Waiter, Woken};

/// How many events are held at most.
pub(super) const EVENTS: usize = 64;

/// The newest events.
#[derive(Debug)]
pub(super) struct Ring<T> {
    /// In the order of their numbers, of which some may be missing.
    events: VecDeque<Entry<T>>,
    /// The number of the next event.
    next: u64,
    subscribers: usize,
    waiting: WaitList,
}

#[derive(Debug)]
struct Entry<T> {
    number: u64,
    /// It is not dropped as long as there are others.
    kept: bool,
    event: T,
}

/// Where a subscriber is.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// The number of the next event that it has not seen.
    number: u64,
    ticket: Option<Ticket>,
}

/// What a subscriber finds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<T> {
    Event(T),
    /// This many events were dropped before it has read them.
    Missed(u64),
}

impl<T> Default for Ring<T> {
    fn default() -> Self {
        let (events, waiting) = (VecDeque::new(), WaitList::default());
        Self { events, next: 0, subscribers: 0, waiting }
    }
}

impl<T: Clone> Ring<T> {
    /// A place for another subscriber, which gets every event from now on.
    pub(super) fn subscribe(&mut self) -> Place {
        self.subscribers += 1;
        Place { number: self.next, ticket: None }
    }

    /// A subscriber is gone.
    pub(super) fn unsubscribe(&mut self, place: &Place) {
        self.waiting.remove(place.ticket);
        self.subscribers -= 1;
        if self.subscribers == 0 {
            self.events = VecDeque::new();
        }
    }

    /// Adds an event, and returns those who have to be woken. One that is `kept` is dropped after
    /// all others.
    pub(super) fn push(&mut self, event: T, kept: bool) -> Woken {
        if self.subscribers == 0 {
            return Woken::default();
        }
        if self.events.len() >= EVENTS {
            let oldest = self.events.iter().position(|entry| !entry.kept).unwrap_or_default();
            self.events.remove(oldest);
        }
        self.events.push_back(Entry { number: self.next, kept, event });
        self.next += 1;
        self.waiting.take()
    }

    /// The next event for a subscriber, or how many it has missed before that.
    pub(super) fn next(&self, place: &mut Place) -> Option<Next<T>> {
        let index = self.events.partition_point(|entry| entry.number < place.number);
        let entry = self.events.get(index)?;
        let missed = entry.number - place.number;
        if missed > 0 {
            place.number = entry.number;
            return Some(Next::Missed(missed));
        }
        place.number += 1;
        Some(Next::Event(entry.event.clone()))
    }

    /// A subscriber that has found nothing is woken by the next event.
    pub(super) fn wait(&mut self, place: &mut Place, waiter: &Arc<Waiter>) {
        self.waiting.add(&mut place.ticket, waiter);
    }

    /// Takes all who wait, because there will be no more events.
    pub(super) fn end(&mut self) -> Woken {
        self.waiting.take()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use super::*;

    fn all(ring: &Ring<u64>, place: &mut Place) -> Vec<Next<u64>> {
        std::iter::from_fn(|| ring.next(place)).collect()
    }

    #[test]
    fn each_subscriber_gets_what_comes_after_it() {
        let mut ring = Ring::default();
        // Without subscribers nothing is held.
        ring.push(0, false).wake();
        assert!(ring.events.is_empty());
        let mut first = ring.subscribe();
        ring.push(1, false).wake();
        let mut second = ring.subscribe();
        ring.push(2, true).wake();
        assert_eq!(all(&ring, &mut first), [Next::Event(1), Next::Event(2)]);
        assert_eq!(all(&ring, &mut second), [Next::Event(2)]);
        ring.unsubscribe(&first);
        assert_eq!(ring.events.len(), 2);
        ring.unsubscribe(&second);
        assert!(ring.events.is_empty());
    }

    #[test]
    fn what_is_dropped_is_counted_and_what_is_kept_is_not_dropped() {
        let mut ring = Ring::default();
        let mut slow = ring.subscribe();
        let length = EVENTS as u64;
        for number in 0..3 * length {
            ring.push(number, number == 5).wake();
            assert!(ring.events.len() <= EVENTS);
        }
        let found = all(&ring, &mut slow);
        let first = 2 * length + 1;
        assert_eq!(found[..3], [Next::Missed(5), Next::Event(5), Next::Missed(first - 6)]);
        let rest: Vec<_> = (first..3 * length).map(Next::Event).collect();
        assert_eq!(found[3..], rest);
    }

    #[derive(Default)]
    struct Counts(AtomicUsize);

    impl Wake for Counts {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_waiter_is_woken_by_one_event_and_leaves_with_its_subscription() {
        let (counts, waiter) = (Arc::new(Counts::default()), Arc::new(Waiter::default()));
        let waker = Waker::from(Arc::clone(&counts));
        let mut ring = Ring::default();
        let mut place = ring.subscribe();
        // Another one, so that events are held.
        let _other = ring.subscribe();
        let push = |ring: &mut Ring<u64>| {
            waiter.set(&waker);
            ring.push(1, false).wake();
            counts.0.load(Ordering::Relaxed)
        };
        for _ in 0..3 {
            ring.wait(&mut place, &waiter);
        }
        assert_eq!(push(&mut ring), 1);
        // It has not asked again.
        assert_eq!(push(&mut ring), 1);
        ring.wait(&mut place, &waiter);
        assert_eq!(push(&mut ring), 2);
        ring.wait(&mut place, &waiter);
        ring.unsubscribe(&place);
        assert_eq!(push(&mut ring), 2);
    }
}
