//! Owns [`Progress`]: what the loop publishes of one job for those who wait for its end, or for
//! anything that happens to it.
//!
//! Invariants: an end, once published, is there for whoever asks later, and so is the exit of the
//! main process. Events wake nobody who waits for the end alone. Knows nothing of the loop.

use std::sync::Arc;

use crate::event::{Exit, Report};
use crate::id::JobId;
use crate::sync::Mutex;
use crate::worker::job_events::JobEvent;
use crate::worker::ring::{Next, Place, Ring};
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
    exit: Option<Exit>,
    end: Option<End>,
    /// Those who wait for the end.
    waiting: WaitList,
    events: Ring<JobEvent>,
}

/// How it came to an end.
#[derive(Clone, Debug)]
pub(super) enum End {
    Finished(Arc<Report>),
    /// The loop has ended before the job was finished.
    Lost,
}

/// Where somebody is who has subscribed to the events of a job.
#[derive(Debug, Default)]
pub(super) struct Subscription {
    /// How the main process had ended before that.
    exit: Option<Exit>,
    place: Place,
}

/// What a subscriber finds.
#[derive(Debug)]
pub(super) enum Found {
    Event(JobEvent),
    Nothing,
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
        state.waiting.take().and(state.events.end())
    }

    /// Something else has happened.
    pub(super) fn publish(&self, event: JobEvent) -> Woken {
        let mut state = lock(&self.state);
        let exit = match event {
            // It is known of a job that has exited before its reactor became that of a worker.
            JobEvent::Exited(_) if state.exit.is_some() => return Woken::default(),
            JobEvent::Exited(exit) => Some(exit),
            _ => None,
        };
        state.exit = state.exit.or(exit);
        state.events.push(event, exit.is_some())
    }

    /// From now on everything that happens is held for this subscriber.
    pub(super) fn subscribe(&self) -> Subscription {
        let mut state = lock(&self.state);
        Subscription { exit: state.exit, place: state.events.subscribe() }
    }

    /// A subscriber is gone.
    pub(super) fn unsubscribe(&self, subscription: &Subscription) {
        lock(&self.state).events.unsubscribe(&subscription.place);
    }

    /// The next event for a subscriber, which is woken when there is one.
    pub(super) fn next_or_wait(
        &self,
        subscription: &mut Subscription,
        waiter: &Arc<Waiter>,
    ) -> Found {
        if let Some(exit) = subscription.exit.take() {
            return Found::Event(JobEvent::Exited(exit));
        }
        let mut state = lock(&self.state);
        match (state.events.next(&mut subscription.place), &state.end) {
            (Some(Next::Event(event)), _) => Found::Event(event),
            (Some(Next::Missed(count)), _) => Found::Event(JobEvent::Missed(count)),
            (None, Some(End::Finished(report))) => {
                Found::Event(JobEvent::Finished(Arc::clone(report)))
            }
            (None, Some(End::Lost)) => Found::Lost,
            (None, None) => {
                state.events.wait(&mut subscription.place, waiter);
                Found::Nothing
            }
        }
    }
}

#[cfg(all(test, jobworker_loom))]
mod models {
    use std::task::Poll;

    use uuid::Uuid;

    use super::*;
    use crate::sync::{check, thread};
    use crate::worker::wait::block_on;

    fn wait(progress: &Progress) -> End {
        let (waiter, mut ticket) = (Arc::new(Waiter::default()), None);
        let end = block_on(None, |cx| {
            waiter.set(cx.waker());
            progress.end_or_wait(&mut ticket, &waiter).map_or(Poll::Pending, Poll::Ready)
        });
        progress.leave(ticket);
        end.unwrap()
    }

    /// Waits no longer than for one look.
    fn give_up(progress: &Progress) -> Arc<Waiter> {
        let (waiter, mut ticket) = (Arc::new(Waiter::default()), None);
        progress.end_or_wait(&mut ticket, &waiter);
        progress.leave(ticket);
        waiter
    }

    #[test]
    fn everybody_who_waits_gets_the_end_and_later_ones_too() {
        check(Some(3), || {
            let progress = Arc::new(Progress::new(JobId::new(Uuid::nil()), 1));
            let threads = [(); 2].map(|()| {
                let progress = Arc::clone(&progress);
                thread::spawn(move || wait(&progress))
            });
            progress.set_end(End::Lost).wake();
            for thread in threads {
                assert!(matches!(thread.join().unwrap(), End::Lost));
            }
            assert!(matches!(wait(&progress), End::Lost));
        });
    }

    #[test]
    fn one_that_gives_up_takes_nobody_elses_place() {
        check(Some(3), || {
            let progress = Arc::new(Progress::new(JobId::new(Uuid::nil()), 1));
            let waiting = Arc::clone(&progress);
            let waiting = thread::spawn(move || wait(&waiting));
            let giving_up = Arc::clone(&progress);
            let giving_up = thread::spawn(move || give_up(&giving_up));
            progress.set_end(End::Lost).wake();
            assert!(matches!(waiting.join().unwrap(), End::Lost));
            let gone = giving_up.join().unwrap();
            assert_eq!(Arc::strong_count(&gone), 1);
        });
    }

    /// Waits for the next event; `None` when the loop has ended.
    fn next(progress: &Progress, subscription: &mut Subscription) -> Option<JobEvent> {
        let waiter = Arc::new(Waiter::default());
        let next = block_on(None, |cx| {
            waiter.set(cx.waker());
            match progress.next_or_wait(subscription, &waiter) {
                Found::Event(event) => Poll::Ready(Some(event)),
                Found::Nothing => Poll::Pending,
                Found::Lost => Poll::Ready(None),
            }
        });
        next.flatten()
    }

    #[test]
    fn a_subscriber_is_woken_by_each_event() {
        check(None, || {
            let progress = Arc::new(Progress::new(JobId::new(Uuid::nil()), 1));
            let mut subscription = progress.subscribe();
            let reading = Arc::clone(&progress);
            let reading =
                thread::spawn(move || [(); 2].map(|()| next(&reading, &mut subscription)));
            progress.publish(JobEvent::Exited(Exit::Code(7))).wake();
            progress.publish(JobEvent::Frozen).wake();
            let found = reading.join().unwrap();
            let [Some(JobEvent::Exited(Exit::Code(7))), Some(JobEvent::Frozen)] = found else {
                panic!("{found:?}")
            };
        });
    }

    #[test]
    fn a_subscriber_gets_each_event_and_then_the_end_whoever_else_gives_up() {
        check(Some(3), || {
            let progress = Arc::new(Progress::new(JobId::new(Uuid::nil()), 1));
            let [mut reads, mut gives_up] = [(); 2].map(|()| progress.subscribe());
            let reading = Arc::clone(&progress);
            let reading = thread::spawn(move || {
                let mut found = Vec::new();
                while let Some(event) = next(&reading, &mut reads) {
                    found.push(event);
                }
                found
            });
            let giving_up = Arc::clone(&progress);
            let giving_up = thread::spawn(move || {
                giving_up.next_or_wait(&mut gives_up, &Arc::new(Waiter::default()));
                giving_up.unsubscribe(&gives_up);
            });
            progress.publish(JobEvent::Exited(Exit::Code(7))).wake();
            progress.set_end(End::Lost).wake();
            let found = reading.join().unwrap();
            assert!(matches!(found[..], [JobEvent::Exited(Exit::Code(7))]), "{found:?}");
            giving_up.join().unwrap();
        });
    }
}
