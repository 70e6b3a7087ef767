//! Whoever gives up waiting, at whatever point, loses no byte and no event and leaves nothing
//! behind: without a runtime, and in those of tokio.

use std::io::BufRead;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;

use fastrand::Rng;
use jobworker::worker::{JobEvent, JobEvents, Output};
use jobworker::{Fill, Position, Read};

use crate::support::{alone, resident_bytes, rounds, sh};
use crate::worker::{Counts, Threads, held, numbers, until};

/// What a job writes, in bursts of which some are small and one is large.
const SCRIPT: &str = "for i in 1 2 3 4 5; do seq $i; sleep 0.005; done; seq 40000; sleep 0.005; \
                      for i in 1 2 3 4 5; do seq 100; sleep 0.002; done";

fn expected() -> Vec<u8> {
    let mut bytes: Vec<u8> = (1..=5).flat_map(numbers).collect();
    bytes.extend(numbers(40_000));
    bytes.extend(std::iter::repeat_n(numbers(100), 5).flatten());
    bytes
}

/// Reads on by polls that are given up again and again. Returns whether the end was reached.
fn read_a_little(
    output: &mut Output,
    read: &mut Vec<u8>,
    random: &mut Rng,
    cx: &mut Context<'_>,
) -> bool {
    let mut buffer = [0; 5000];
    let room = random.usize(1..buffer.len());
    for _ in 0..random.u32(..3) {
        if random.bool() {
            match output.poll_read(cx, &mut buffer[..room]) {
                Poll::Ready(Ok(Read::Data(length))) => read.extend_from_slice(&buffer[..length]),
                Poll::Ready(Ok(Read::Ended)) => return true,
                Poll::Pending => {}
                other => panic!("{other:?}"),
            }
        } else {
            let length = match output.poll_fill(cx) {
                Poll::Ready(Ok(Fill::Data(bytes))) => {
                    // Not all of what was seen is taken, and sometimes nothing.
                    let length = random.usize(..=bytes.len());
                    read.extend_from_slice(&bytes[..length]);
                    length
                }
                Poll::Ready(Ok(Fill::Ended)) => return true,
                Poll::Pending => 0,
                other => panic!("{other:?}"),
            };
            output.consume(length);
        }
    }
    false
}

/// Takes an event by a poll that is given up if there is none.
fn take_event(events: &mut JobEvents, seen: &mut Vec<JobEvent>, cx: &mut Context<'_>) {
    if let Poll::Ready(Some(event)) = events.poll_next(cx) {
        seen.push(event.unwrap());
    }
}

fn assert_whole(seen: &[JobEvent]) {
    assert!(
        matches!(seen, [JobEvent::Exited(_), JobEvent::Finished(_)]),
        "each event comes once: {seen:?}"
    );
}

#[test]
fn polls_that_are_given_up_at_random_lose_and_leave_nothing() {
    if !alone!() {
        return;
    }
    let Some(threads) = Threads::new() else { return };
    let before = held(&threads);
    let expected = expected();
    let given_up = AtomicUsize::new(0);
    thread::scope(|scope| {
        for seed in 0..8 {
            let (threads, expected, given_up) = (&threads, &expected, &given_up);
            scope.spawn(move || {
                let mut random = Rng::with_seed(seed);
                let counts = Waker::from(Arc::new(Counts::default()));
                for _ in 0..rounds(10) {
                    let job = threads.spawn(&sh(SCRIPT));
                    let mut output = job.output(Position::Start).unwrap();
                    let (mut events, mut seen, mut read) = (job.events(), Vec::new(), Vec::new());
                    loop {
                        // Another waker each time, as of a task that moves.
                        let waker = if random.bool() { &counts } else { Waker::noop() };
                        let mut cx = Context::from_waker(waker);
                        if read_a_little(&mut output, &mut read, &mut random, &mut cx) {
                            break;
                        }
                        take_event(&mut events, &mut seen, &mut cx);
                        // A future that is dropped after one poll.
                        let finished = pin!(job.finished()).poll(&mut cx);
                        assert!(finished.is_pending() || job.report().is_some());
                        if random.u32(..20) == 0 {
                            // Given up for good, and resumed where it was.
                            let position = output.position();
                            assert_eq!(position, read.len() as u64);
                            output = job.output(Position::Offset(position)).unwrap();
                        }
                        given_up.fetch_add(1, Ordering::Relaxed);
                        thread::yield_now();
                    }
                    assert!(read == *expected, "{} bytes", read.len());
                    job.wait().unwrap();
                    while seen.len() < 2 {
                        take_event(&mut events, &mut seen, &mut Context::from_waker(&counts));
                    }
                    assert_whole(&seen);
                }
            });
        }
    });
    let given_up = given_up.into_inner();
    assert!(given_up > rounds(2_000), "given up {given_up} times only");
    until("nothing is left", || held(&threads) == before);
}

#[test]
fn waits_that_are_given_up_cost_no_memory() {
    if !alone!() {
        return;
    }
    let Some(threads) = Threads::new() else { return };
    let job = threads.spawn(&sh("sleep 1000"));
    let mut output = job.output(Position::Start).unwrap();
    assert_eq!(output.try_read(&mut [0; 8]).unwrap(), Read::UpToDate);
    let give_up = |output: &mut Output, times: usize| {
        for _ in 0..times {
            // Each is another task.
            let waker = Waker::from(Arc::new(Counts::default()));
            let mut cx = Context::from_waker(&waker);
            assert!(pin!(job.finished()).poll(&mut cx).is_pending());
            assert!(job.events().poll_next(&mut cx).is_pending());
            assert!(threads.worker.events().poll_next(&mut cx).is_pending());
            assert!(output.poll_read(&mut cx, &mut [0; 8]).is_pending());
        }
    };
    give_up(&mut output, 1_000);
    let before = resident_bytes();
    give_up(&mut output, rounds(100_000));
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 1 << 20, "grown by {grown} bytes");
}

/// The same with what a host would write in tokio.
#[cfg(feature = "tokio")]
mod in_tokio {
    use std::future::poll_fn;
    use std::time::Duration;

    use jobworker::worker::Job;
    use jobworker::{AsyncReactor, Event, Events, Exit, JobId, Reactor, TailId, Token};
    use tokio::io::AsyncReadExt;
    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::support::{Footprint, PATIENCE, Place, World};
    use crate::tokio_io::runtimes;

    async fn next(events: &mut JobEvents) -> Option<JobEvent> {
        poll_fn(|cx| events.poll_next(cx)).await.map(Result::unwrap)
    }

    /// Opens what tokio has once in a process, as its first runtime does.
    fn open_for_signals() {
        drop(runtimes());
    }

    /// A length of time within which a read may or may not have something.
    fn moment(random: &mut Rng) -> Duration {
        Duration::from_micros(random.u64(..300))
    }

    /// Reads a job to its end, by calls that are dropped at random. Returns how many were.
    async fn read_hastily(job: Job, seed: u64, expected: Arc<Vec<u8>>) -> usize {
        let mut random = Rng::with_seed(seed);
        let mut output = job.output(Position::Start).unwrap();
        let (mut events, mut seen, mut read) = (job.events(), Vec::new(), Vec::new());
        let (mut buffer, mut given_up, mut ended) = (vec![0; 5000], 0, false);
        while !ended || seen.len() < 2 {
            let room = random.usize(1..buffer.len());
            let until = moment(&mut random);
            match random.u32(..4) {
                0 => tokio::select! {
                    length = output.read(&mut buffer[..room]), if !ended => {
                        let length = length.unwrap();
                        read.extend_from_slice(&buffer[..length]);
                        ended = length == 0;
                    }
                    Some(event) = next(&mut events), if seen.len() < 2 => seen.push(event),
                    () = sleep(until) => given_up += 1,
                    else => {}
                },
                1 => match timeout(until, output.read_buf(&mut read)).await {
                    Ok(length) => ended = length.unwrap() == 0,
                    Err(_) => given_up += 1,
                },
                // Takes what it has copied, and no more.
                2 => {
                    let copy = tokio::io::copy_buf(&mut output, &mut read);
                    match timeout(until, copy).await {
                        Ok(copied) => {
                            copied.unwrap();
                            ended = true;
                        }
                        Err(_) => given_up += 1,
                    }
                }
                _ => tokio::select! {
                    report = job.finished() => assert!(report.unwrap().exit.success()),
                    () = sleep(until) => given_up += 1,
                },
            }
            assert_eq!(output.position(), read.len() as u64);
        }
        assert!(read == *expected, "{} bytes", read.len());
        assert_whole(&seen);
        given_up
    }

    #[test]
    fn reads_that_are_dropped_at_random_lose_and_leave_nothing() {
        if !alone!() {
            return;
        }
        let Some(threads) = Threads::new() else { return };
        open_for_signals();
        let before = held(&threads);
        let expected = Arc::new(expected());
        let mut given_up = 0;
        for (number, runtime) in runtimes().into_iter().enumerate() {
            for round in 0..rounds(20) {
                let job = threads.spawn(&sh(SCRIPT));
                let tasks: Vec<_> = (0..10)
                    .map(|task| {
                        let seed = (number * 1000 + round * 10 + task) as u64;
                        let task = read_hastily(job.clone(), seed, Arc::clone(&expected));
                        runtime.spawn(task)
                    })
                    .collect();
                // Tasks that are dropped as a whole, wherever they are.
                let mut random = Rng::with_seed(round as u64);
                let aborted = runtime.spawn(read_hastily(job, 1, Arc::clone(&expected)));
                runtime.block_on(async {
                    sleep(moment(&mut random) * 100).await;
                    aborted.abort();
                    // It may have come to its end before.
                    let aborted = aborted.await;
                    assert!(aborted.is_ok() || aborted.unwrap_err().is_cancelled());
                    for task in tasks {
                        given_up += task.await.unwrap();
                    }
                });
            }
        }
        assert!(given_up > rounds(2_000), "given up {given_up} times only");
        until("nothing is left", || held(&threads) == before);
    }

    /// A host that polls a reactor beside something else.
    struct Hasty {
        reactor: AsyncReactor,
        events: Events,
        read: Vec<u8>,
        seen: Vec<(JobId, Option<Exit>)>,
        given_up: usize,
    }

    impl Hasty {
        async fn turn(&mut self, random: &mut Rng, tail: TailId) {
            let until = moment(random);
            let polled = tokio::select! {
                polled = self.reactor.poll(&mut self.events) => Some(polled),
                () = sleep(until) => None,
            };
            let Some(polled) = polled else {
                assert!(self.events.is_empty());
                self.given_up += 1;
                return;
            };
            polled.unwrap();
            for event in &self.events {
                match event {
                    Event::Readable { .. } => {
                        while let Some(chunk) = self.reactor.next_chunk(tail).unwrap() {
                            self.read.extend_from_slice(chunk.bytes);
                        }
                    }
                    Event::Exited { job, exit, .. } => self.seen.push((*job, Some(*exit))),
                    Event::Finished { job, .. } => self.seen.push((*job, None)),
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    #[test]
    fn polls_of_a_reactor_that_are_dropped_at_random_lose_and_leave_nothing() {
        if !alone!() {
            return;
        }
        let place = Place::new();
        if place.cgroup_or_skip().is_none() {
            return;
        }
        open_for_signals();
        let mut world = World::around(Reactor::with_config(&place.config()).unwrap(), place);
        let before: Footprint = world.footprint();
        let (expected, mut given_up) = (expected(), 0);
        for runtime in runtimes() {
            let World { reactor, place, .. } = world;
            let reactor = runtime.block_on(async {
                let reactor = AsyncReactor::new(reactor).unwrap();
                let mut host = Hasty {
                    reactor,
                    events: Events::with_capacity(2),
                    read: Vec::new(),
                    seen: Vec::new(),
                    given_up: 0,
                };
                let mut random = Rng::with_seed(11);
                for _ in 0..rounds(30) {
                    let job = host.reactor.spawn(&sh(SCRIPT), Token(1)).unwrap();
                    let tail = host.reactor.tail(job, Position::Start, Token(2)).unwrap();
                    let all = async {
                        while host.seen.len() < 2 {
                            host.turn(&mut random, tail).await;
                        }
                    };
                    timeout(PATIENCE, all).await.expect("a lost wake-up");
                    assert_eq!(host.seen, [(job, Some(Exit::Code(0))), (job, None)]);
                    assert_eq!(host.reactor.read(tail, &mut [0; 1]).unwrap(), Read::Ended);
                    assert!(host.read == expected, "{} bytes", host.read.len());
                    host.reactor.remove(job).unwrap();
                    host.seen.clear();
                    host.read.clear();
                }
                given_up += host.given_up;
                host.reactor.into_inner()
            });
            drop(runtime);
            world = World::around(reactor, place);
        }
        assert!(given_up > rounds(400), "given up {given_up} times only");
        // The reactor has what it had, and its descriptor is registered with nobody.
        assert_eq!(world.footprint(), before);
    }
}
