//! A reactor in the event loop of tokio: whatever is called between two awaits, the task is woken
//! for what follows, and for nothing else.

use std::fs;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use jobworker::{
    AsyncReactor, Command, Error, Event, Events, JobId, Position, Reactor, Read, SystemError,
    TailId, Token,
};
use tokio::time::timeout;

use crate::support::{PATIENCE, Place, rounds, sh};
use crate::tokio_io::runtimes;

/// A place with a cgroup, in which reactors can be made.
fn place() -> Option<Place> {
    let place = Place::new();
    place.cgroup_or_skip()?;
    Some(place)
}

fn reactor(place: &Place) -> Reactor {
    Reactor::with_config(&place.config()).unwrap_or_else(|error| panic!("{error}"))
}

/// A reactor in the runtime of the calling task, and what it has reported.
struct Host {
    reactor: AsyncReactor,
    events: Events,
    seen: Vec<Event>,
}

impl Host {
    fn new(reactor: Reactor, capacity: usize) -> Self {
        let reactor = AsyncReactor::new(reactor).unwrap_or_else(|error| panic!("{error}"));
        Self { reactor, events: Events::with_capacity(capacity), seen: Vec::new() }
    }

    /// Awaits events until there is one of this kind. A lost wake-up shows as a timeout.
    async fn until(&mut self, what: &str, wanted: impl Fn(&Event) -> bool) {
        while !self.seen.iter().any(&wanted) {
            let polled = timeout(PATIENCE, self.reactor.poll(&mut self.events)).await;
            polled.unwrap_or_else(|_| panic!("lost wake-up: timed out until {what}")).unwrap();
            assert!(!self.events.is_empty(), "a poll has returned without an event");
            self.seen.extend(self.events.iter().cloned());
        }
        self.seen.retain(|event| !wanted(event));
    }

    /// Polls until there is nothing more, and gives up: the runtime has forgotten by then that the
    /// descriptor was readable, so that what follows has to make it readable again.
    async fn settle(&mut self) {
        loop {
            let polled = {
                let mut polled = pin!(self.reactor.poll(&mut self.events));
                poll_fn(|cx| Poll::Ready(polled.as_mut().poll(cx))).await
            };
            match polled {
                Poll::Ready(polled) => polled.unwrap(),
                Poll::Pending => return,
            }
            self.seen.extend(self.events.iter().cloned());
        }
    }

    async fn finished(&mut self, job: JobId) {
        self.until("it is finished", |event| {
            matches!(event, Event::Finished { .. }) && event.job() == Some(job)
        })
        .await;
    }

    /// Reads a tail to its end, each time that it is readable.
    async fn read_to_end(&mut self, tail: TailId) -> Vec<u8> {
        let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            self.until("it is readable", |event| event.tail() == Some(tail)).await;
            loop {
                match self.reactor.read(tail, &mut buffer).unwrap() {
                    Read::Data(length) => bytes.extend_from_slice(&buffer[..length]),
                    Read::UpToDate => break,
                    Read::Ended => return bytes,
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    fn spawn(&mut self, command: &Command) -> JobId {
        self.reactor.spawn(command, Token(1)).unwrap_or_else(|error| panic!("{error}"))
    }
}

/// Does one thing after the other, each of which has to be followed by something.
async fn do_at_random(host: &mut Host, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..rounds(150) {
        host.settle().await;
        match random.u32(..9) {
            0 => {
                let job = host.spawn(&sh("exit 0"));
                host.finished(job).await;
                host.settle().await;
                // Opened on a finished job.
                let tail = host.reactor.tail(job, Position::Start, Token(2)).unwrap();
                assert!(host.read_to_end(tail).await.is_empty());
                host.reactor.remove(job).unwrap();
            }
            1 => {
                let job = host.spawn(&sh("echo one; sleep 0.01; echo two"));
                let tail = host.reactor.tail(job, Position::Start, Token(2)).unwrap();
                assert_eq!(host.read_to_end(tail).await, b"one\ntwo\n");
                host.finished(job).await;
                host.reactor.close(tail).unwrap();
            }
            2 => {
                // Hot enough to be paced by the timer.
                let job = host.spawn(&sh("seq 30000"));
                let tail = host.reactor.tail(job, Position::Start, Token(2)).unwrap();
                assert_eq!(host.read_to_end(tail).await, crate::worker::numbers(30_000));
            }
            3 => {
                let job = host.spawn(&sh("sleep 1000"));
                host.settle().await;
                host.reactor.stop(job).unwrap();
                host.finished(job).await;
            }
            4 => {
                let job = host.spawn(&sh("sleep 1000"));
                host.reactor.freeze(job).unwrap();
                host.until(
                    "it is frozen",
                    |event| matches!(event, Event::Frozen { job: of, .. } if *of == job),
                )
                .await;
                host.settle().await;
                host.reactor.kill(job).unwrap();
                host.finished(job).await;
            }
            5 => {
                // Ended by a deadline alone.
                let mut command = sh("trap '' TERM; while :; do sleep 1000; done");
                let (limit, grace) = (Duration::from_millis(5), Duration::from_millis(5));
                let job = host.spawn(command.time_limit(limit).grace(grace));
                host.finished(job).await;
            }
            6 => {
                let waker = host.reactor.waker();
                let thread = thread::spawn(move || waker.wake().unwrap());
                host.until("it is woken", |event| matches!(event, Event::Woken)).await;
                thread.join().unwrap();
            }
            7 => {
                host.reactor.sweep(Token(3)).unwrap();
                host.until("it is swept", |event| matches!(event, Event::Swept { .. })).await;
            }
            _ => {
                // More than one turn can handle.
                let jobs: Vec<_> = (0..random.usize(1..20)).map(|_| host.spawn(&sh(":"))).collect();
                for job in jobs {
                    host.finished(job).await;
                }
            }
        }
        // What belongs to tails and jobs that are done with.
        host.seen.clear();
    }
}

#[test]
fn a_task_is_woken_whatever_it_has_called_before() {
    for (number, runtime) in runtimes().into_iter().enumerate() {
        for capacity in [1, 64] {
            let Some(place) = place() else { return };
            let reactor = reactor(&place);
            let seed = (number * 2 + capacity) as u64;
            // As a task of its own, which the threads of the runtime may take over.
            let task = runtime.spawn(async move {
                let mut host = Host::new(reactor, capacity);
                do_at_random(&mut host, seed).await;
                tokio::task::spawn_blocking(move || drop(host)).await.unwrap();
            });
            runtime.block_on(task).unwrap();
        }
    }
}

#[test]
fn what_a_reactor_had_before_it_came_to_a_runtime_is_reported_there() {
    for runtime in runtimes() {
        let Some(place) = place() else { return };
        let mut reactor = reactor(&place);
        let job = reactor.spawn(&sh("echo one"), Token(1)).unwrap();
        let tail = reactor.tail(job, Position::Start, Token(2)).unwrap();
        reactor.wait(job).unwrap();
        runtime.block_on(async {
            let mut host = Host::new(reactor, 1);
            assert_eq!(host.read_to_end(tail).await, b"one\n");
            host.finished(job).await;
            // Out of it, and into it again.
            let running = host.spawn(&sh("sleep 0.01"));
            let mut host = Host::new(host.reactor.into_inner(), 1);
            host.finished(running).await;
        });
    }
}

#[test]
fn a_task_is_not_woken_while_nothing_happens() {
    for runtime in runtimes() {
        let Some(place) = place() else { return };
        let reactor = reactor(&place);
        runtime.block_on(async {
            let mut host = Host::new(reactor, 64);
            let job = host.spawn(&sh("echo one; sleep 1000"));
            let tail = host.reactor.tail(job, Position::Start, Token(2)).unwrap();
            host.until("it is readable", |event| event.tail() == Some(tail)).await;
            assert_eq!(host.reactor.read(tail, &mut [0; 8]).unwrap(), Read::Data(4));
            assert_eq!(host.reactor.read(tail, &mut [0; 8]).unwrap(), Read::UpToDate);
            let Host { reactor, events, .. } = &mut host;
            let polls = AtomicUsize::new(0);
            let mut polled = pin!(reactor.poll(events));
            let counted = poll_fn(|cx| {
                polls.fetch_add(1, Ordering::Relaxed);
                polled.as_mut().poll(cx)
            });
            assert!(timeout(Duration::from_millis(300), counted).await.is_err());
            // The first, one for what the kernel may still have had to say of the read, and that of
            // the timeout.
            let polls = polls.load(Ordering::Relaxed);
            assert!(polls <= 5, "polled {polls} times");
        });
    }
}

/// On the one thread that all have; on several, it is the kernel that lets them run.
#[test]
fn a_task_that_always_has_events_lets_others_run() {
    let [runtime, _] = runtimes();
    let Some(place) = place() else { return };
    let path = place.dir.path().join("file");
    fs::write(&path, "bytes").unwrap();
    let mut reactor = reactor(&place);
    for number in 0..2000 {
        reactor.tail_file(&path, Position::Start, Token(number)).unwrap();
    }
    runtime.block_on(async {
        let mut reactor = AsyncReactor::new(reactor).unwrap();
        let mut events = Events::with_capacity(1);
        let turns = Arc::new(AtomicUsize::new(0));
        let other = {
            let turns = Arc::clone(&turns);
            tokio::spawn(async move {
                loop {
                    turns.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
            })
        };
        let mut before = 0;
        for number in 0..2000 {
            reactor.poll(&mut events).await.unwrap();
            let event = events.iter().next().unwrap();
            assert_eq!(event.token(), Some(Token(number)));
            if number == 0 {
                // The first one had to wait for the runtime, all others are there already.
                before = turns.load(Ordering::Relaxed);
            }
        }
        let turns = turns.load(Ordering::Relaxed);
        assert!(turns > before, "the other task has not run since the first event");
        other.abort();
    });
}

#[test]
fn a_reactor_whose_runtime_is_gone_says_so_and_can_move_to_another() {
    let Some(place) = place() else { return };
    let [first, second] = runtimes();
    let mut reactor = first.block_on(async { AsyncReactor::new(reactor(&place)).unwrap() });
    let job = reactor.spawn(&sh("exit 0"), Token(1)).unwrap();
    drop(first);
    let mut events = Events::with_capacity(8);
    let error = second.block_on(reactor.poll(&mut events)).unwrap_err();
    assert!(matches!(error, Error::System(SystemError::Loop { .. })), "{error}");
    second.block_on(async {
        let mut host = Host::new(reactor.into_inner(), 8);
        host.finished(job).await;
    });
}
