//! `poll` itself: how long it waits, what ends the wait, and which events it returns.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

use jobworker::{EndPolicy, Event, Events, Position, Reactor, Stdin, StopCause, TailId, Token};
use rustix::process::kill_process;
use rustix::thread::gettid;

use crate::support::{PATIENCE, World, alone, append, sh};

/// Polls once, and returns the events in short: what happened, and the token.
fn happenings(
    reactor: &mut Reactor,
    events: &mut Events,
    timeout: Option<Duration>,
) -> Vec<String> {
    reactor.poll(events, timeout).unwrap();
    let short = |event: &Event| match event {
        Event::Readable { token, .. } => format!("readable {}", token.0),
        Event::Exited { token, .. } => format!("exited {}", token.0),
        Event::Finished { token, .. } => format!("finished {}", token.0),
        Event::Woken => "woken".to_owned(),
        other => format!("{other:?}"),
    };
    events.iter().map(short).collect()
}

#[test]
fn a_timeout_of_zero_does_not_wait() {
    let Some(mut world) = World::new() else { return };
    // The best of many, because a busy machine delays some of them, but not all. The shortest
    // timeout of epoll_wait is 1 ms.
    let best = (0..1000).map(|_| {
        let before = Instant::now();
        world.turn(Some(Duration::ZERO));
        assert!(world.events.is_empty());
        before.elapsed()
    });
    let best = best.min().unwrap();
    assert!(best < Duration::from_millis(1), "{best:?} at best");
}

#[test]
fn a_poll_never_returns_before_its_timeout_without_an_event() {
    let Some(mut world) = World::new() else { return };
    for micros in [1, 300, 999, 1000, 1001, 2500, 7000] {
        let timeout = Duration::from_micros(micros);
        for _ in 0..20 {
            let before = Instant::now();
            world.turn(Some(timeout));
            assert!(before.elapsed() >= timeout, "{:?} instead of {timeout:?}", before.elapsed());
            assert!(world.events.is_empty());
        }
    }
}

/// What the loop does before it sleeps changes nothing but when it notices.
#[test]
fn a_reactor_that_looks_before_it_sleeps_waits_as_long_and_returns_the_same() {
    let look = |duration| World::with(|config| _ = config.busy_poll(duration));
    for look_for in [Duration::from_micros(1), Duration::from_millis(20), Duration::MAX] {
        let Some(mut world) = look(look_for) else { return };
        for micros in [1, 300, 1000, 2500, 30_000] {
            let timeout = Duration::from_micros(micros);
            let before = Instant::now();
            world.turn(Some(timeout));
            assert!(before.elapsed() >= timeout, "{:?} instead of {timeout:?}", before.elapsed());
            assert!(world.events.is_empty());
        }
        let waker = world.reactor.waker();
        let waking = thread::spawn(move || waker.wake());
        world.until("it is woken", |world| world.woken > 0);
        waking.join().unwrap().unwrap();
        // A deadline is kept while it looks, and while it sleeps afterwards.
        let mut command = sh("exec sleep 1000");
        let (_, report) =
            world.run(command.time_limit(Duration::from_millis(50)).grace(Duration::ZERO));
        assert_eq!(report.stopped_by, Some(StopCause::TimeLimit));
    }
}

/// It reads a few of the logs before the kernel has reported anything of them.
#[test]
fn tails_of_more_logs_than_are_looked_at_get_every_byte_once_and_every_truncation() {
    let looking = World::with(|config| _ = config.busy_poll(Duration::from_millis(20)));
    let Some(mut world) = looking else { return };
    let lines =
        |first: u32| (first..first + 50).map(|line| format!("{line}\n")).collect::<String>();
    let script = "print() { for i in $(seq $1 $2); do echo $i; sleep 0.00$((i % 3)); done; }; \
         print 1 50; read -r line; : > /proc/self/fd/1; print 1001 1050";
    let jobs: Vec<_> = (0..7)
        .map(|_| {
            let job = world.spawn(sh(script).stdin(Stdin::Piped));
            (job, world.reactor.take_stdin(job).unwrap(), world.tail(job, Position::Start))
        })
        .collect();
    for (job, stdin, tail) in jobs {
        let before = lines(1);
        world.until("it has printed", |world| world.text(tail) == before);
        drop(stdin);
        world.finish(job);
        assert_eq!(world.text(tail), before.clone() + &lines(1001));
        assert_eq!(world.transcripts[&tail].truncated_at, [before.len()]);
    }
}

#[test]
fn a_timeout_below_a_millisecond_is_not_rounded_up() {
    let Some(mut world) = World::new() else { return };
    let timeout = Duration::from_micros(50);
    // A busy machine delays some of them, but not all. Even with rounding a few would be quick,
    // where the process was preempted until the timeout had passed, so one is not enough.
    let quick = (0..400).filter(|_| {
        let before = Instant::now();
        world.turn(Some(timeout));
        before.elapsed() < Duration::from_millis(1)
    });
    assert!(quick.count() >= 20);
}

#[test]
fn a_timeout_too_long_for_any_clock_is_no_timeout() {
    let Some(mut world) = World::new() else { return };
    for timeout in
        [Duration::MAX, Duration::from_secs(86_400 * 365 * 1000), Duration::from_millis(u64::MAX)]
    {
        let waker = world.reactor.waker();
        let waking = thread::spawn(move || waker.wake().unwrap());
        world.turn(Some(timeout));
        assert!(
            matches!(world.events.iter().next(), Some(Event::Woken)),
            "{timeout:?}: {:?}",
            world.events
        );
        waking.join().unwrap();
    }
}

/// Polls while another thread keeps interrupting that with signals, for at most `PATIENCE`, and
/// returns whether a signal has arrived.
fn poll_under_fire(
    world: &mut World,
    timeout: Option<Duration>,
    meanwhile: impl FnOnce() + Send + 'static,
) -> bool {
    let handled = Arc::new(AtomicBool::new(false));
    let signal = signal_hook::consts::SIGUSR1;
    // This handler only notes that it was called.
    let registered = signal_hook::flag::register(signal, Arc::clone(&handled)).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let polling = gettid();
    let fire = {
        let (over, handled) = (Arc::clone(&over), Arc::clone(&handled));
        thread::spawn(move || {
            let until = Instant::now() + PATIENCE;
            let mut meanwhile = Some(meanwhile);
            let mut shots = 0;
            while !over.load(Ordering::Acquire) && Instant::now() < until {
                // The kernel prefers the thread that is named, if that can take the signal.
                kill_process(polling, rustix::process::Signal::USR1).unwrap();
                shots += 1;
                // The interval between signals, not a wait for anything.
                thread::sleep(Duration::from_millis(3));
                if shots >= 20 && handled.load(Ordering::Acquire) {
                    meanwhile.take().into_iter().for_each(|meanwhile| meanwhile());
                }
            }
            !over.load(Ordering::Acquire)
        })
    };
    world.turn(timeout);
    over.store(true, Ordering::Release);
    let gave_up = fire.join().unwrap();
    signal_hook::low_level::unregister(registered);
    assert!(!gave_up, "the interruptions kept the poll from ending");
    handled.load(Ordering::Acquire)
}

#[test]
fn a_signal_to_the_host_neither_ends_nor_prolongs_a_poll() {
    if !alone!() {
        return;
    }
    let Some(mut world) = World::new() else { return };
    for timeout in [Duration::from_millis(100), Duration::from_micros(100_300)] {
        // Tried again, because a busy machine may not run the other thread in all that time.
        let interrupted = (0..100).any(|_| {
            let before = Instant::now();
            let interrupted = poll_under_fire(&mut world, Some(timeout), || {});
            assert!(before.elapsed() >= timeout, "{:?} instead of {timeout:?}", before.elapsed());
            assert!(world.events.is_empty(), "{:?}", world.events);
            interrupted
        });
        assert!(interrupted, "no signal has arrived");
    }
    let waker = world.reactor.waker();
    assert!(poll_under_fire(&mut world, None, move || waker.wake().unwrap()));
    assert_eq!(world.woken, 1);
}

#[test]
fn housekeeping_without_an_event_does_not_prolong_a_poll() {
    let Some(mut world) = World::new() else { return };
    let path = world.place.dir.path().join("file.log");
    fs::write(&path, "").unwrap();
    // A tail that waits for a distant offset in a file that grows all the time causes work, but
    // never an event.
    world.tail_file(&path, Position::Offset(u64::MAX));
    let over = Arc::new(AtomicBool::new(false));
    let writer = {
        let over = Arc::clone(&over);
        thread::spawn(move || {
            let until = Instant::now() + PATIENCE;
            while !over.load(Ordering::Acquire) && Instant::now() < until {
                append(&path, "x");
                // The interval of the writes, not a wait for anything.
                thread::sleep(Duration::from_millis(2));
            }
            !over.load(Ordering::Acquire)
        })
    };
    for timeout in [Duration::from_millis(60), Duration::from_micros(60_300)] {
        let before = Instant::now();
        world.turn(Some(timeout));
        assert!(before.elapsed() >= timeout);
        assert!(world.events.is_empty(), "{:?}", world.events);
    }
    over.store(true, Ordering::Release);
    assert!(!writer.join().unwrap(), "the writes kept the poll from ending");
}

#[test]
fn an_interruption_does_not_start_the_time_anew() {
    let Some(mut world) = World::new() else { return };
    let path = world.place.dir.path().join("file.log");
    fs::write(&path, "").unwrap();
    // A tail that waits for a distant offset: growth causes work, but no event.
    world.tail_file(&path, Position::Offset(u64::MAX));
    let timeout = Duration::from_millis(100);
    let mut waited = || {
        let before = Instant::now();
        let writer = {
            let path = path.clone();
            thread::spawn(move || {
                // The moment of the interruption, not a wait for anything.
                thread::sleep(timeout.mul_f32(0.6));
                append(path, "x");
            })
        };
        world.turn(Some(timeout));
        let waited = before.elapsed();
        writer.join().unwrap();
        assert!(waited >= timeout);
        waited
    };
    // A timeout that started again would take at least 160 ms. A busy machine delays some of the
    // polls, but not all.
    assert_eq!((0..50).filter(|_| waited() < timeout.mul_f32(1.5)).take(3).count(), 3);
}

#[test]
fn many_wakes_before_a_poll_are_one_event() {
    let Some(mut world) = World::new() else { return };
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let waker = world.reactor.waker();
            thread::spawn(move || (0..1000).for_each(|_| waker.wake().unwrap()))
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    world.turn(None);
    assert_eq!((world.woken, world.events.len()), (1, 1));
    for _ in 0..3 {
        world.turn(Some(Duration::ZERO));
        assert!(world.events.is_empty());
    }
}

#[test]
fn no_wake_is_lost_between_two_polls() {
    let Some(mut world) = World::new() else { return };
    let waker = world.reactor.waker();
    let (to_thread, from_here) = std::sync::mpsc::channel::<()>();
    let thread = thread::spawn(move || {
        while from_here.recv().is_ok() {
            waker.wake().unwrap();
        }
    });
    for round in 1..=2000 {
        // The wake comes before the poll or during it.
        to_thread.send(()).unwrap();
        world.until("it was woken", |world| world.woken == round);
    }
    drop(to_thread);
    thread.join().unwrap();
}

#[test]
fn a_waker_outlives_its_reactor() {
    let Some(world) = World::new() else { return };
    let waker = world.reactor.waker();
    drop(world);
    waker.wake().unwrap();
}

#[test]
fn what_has_no_room_comes_with_the_next_poll_oldest_first() {
    let Some(mut world) = World::new() else { return };
    let path = world.place.dir.path().join("file.log");
    fs::write(&path, "bytes").unwrap();
    for number in 0..10 {
        world.reactor.tail_file(&path, Position::Start, Token(number)).unwrap();
    }
    let mut events = Events::with_capacity(3);
    let mut all = Vec::new();
    for expected in [3, 3, 3, 1] {
        // Without a timeout, because queued events must be returned without waiting.
        let some = happenings(&mut world.reactor, &mut events, None);
        assert_eq!(some.len(), expected);
        all.extend(some);
    }
    assert_eq!(all, (0..10).map(|number| format!("readable {number}")).collect::<Vec<_>>());
    assert!(happenings(&mut world.reactor, &mut events, Some(Duration::ZERO)).is_empty());
}

#[test]
fn events_have_room_for_one_at_least() {
    let Some(mut world) = World::new() else { return };
    let mut events = Events::with_capacity(0);
    assert_eq!(events.capacity(), 1);
    let path = world.place.dir.path().join("file.log");
    fs::write(&path, "bytes").unwrap();
    for number in 0..3 {
        world.reactor.tail_file(&path, Position::Start, Token(number)).unwrap();
    }
    for number in 0..3 {
        assert_eq!(
            happenings(&mut world.reactor, &mut events, None),
            [format!("readable {number}")]
        );
    }
}

#[test]
fn the_events_of_a_job_come_in_the_documented_order() {
    let Some(mut world) = World::new() else { return };
    // The child writes once the end of the main process was reported.
    let fifo = world.place.dir.path().join("fifo");
    let mut command = sh("echo first; mkfifo \"$fifo\"; (read go <\"$fifo\"; echo last) &");
    command.end_policy(EndPolicy::WaitAll).env("fifo", &fifo);
    let job = world.reactor.spawn(&command, Token(1)).unwrap();
    let tail = world.reactor.tail(job, Position::Start, Token(2)).unwrap();
    let mut events = Events::with_capacity(1);
    let mut seen: Vec<String> = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while seen.last().is_none_or(|last| last != "finished 1") {
        assert!(Instant::now() < deadline, "{seen:?}");
        seen.extend(happenings(&mut world.reactor, &mut events, Some(PATIENCE)));
        drain(&mut world.reactor, tail);
        if seen.last().is_some_and(|last| last == "exited 1") {
            fs::write(&fifo, "go\n").unwrap();
        }
    }
    assert_eq!(seen.iter().filter(|event| *event == "exited 1").count(), 1, "{seen:?}");
    let exited = seen.iter().position(|event| event == "exited 1").unwrap();
    let last_readable = seen.iter().rposition(|event| event == "readable 2").unwrap();
    // Output that follows the exit of the main process is reported between `Exited` and `Finished`.
    assert!(exited < last_readable, "{seen:?}");
    assert!(
        happenings(&mut world.reactor, &mut events, Some(Duration::from_millis(50))).is_empty()
    );
}

fn drain(reactor: &mut Reactor, tail: TailId) {
    let mut buffer = [0; 64];
    while let jobworker::Read::Data(_) = reactor.read(tail, &mut buffer).unwrap() {}
}
