//! Subscriptions of a worker: what happens to a job and to the system reaches each subscriber once
//! and in order, or it is told how much it has missed, at a bounded cost.

use std::fs;
use std::future::poll_fn;
use std::io::Write;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use jobworker::worker::{Job, JobEvent, JobEvents, Shutdown, WorkerEvent};
use jobworker::{
    ByteSize, Containment, EndPolicy, Error, ErrorKind, Exit, Limits, OomCause, Reactor, Signal,
    Stall, Stallable, Stdin, SystemError, Token, WorkerError,
};

use crate::calls::forked;
use crate::support::{
    PATIENCE, Place, alone, directories, end_group, resident_bytes, sh, skip_outside_vm,
};
use crate::worker::{Counts, Panics, Threads, block_on, held, until};

/// An event in short.
fn short(event: &JobEvent) -> String {
    match event {
        JobEvent::Exited(exit) => format!("exited: {exit}"),
        JobEvent::Finished(report) => format!("finished: {}", report.exit),
        JobEvent::Missed(count) => format!("missed {count}"),
        other => format!("{other:?}").to_lowercase(),
    }
}

/// The next event, which must come.
#[track_caller]
fn next(events: &mut JobEvents) -> String {
    let event = events.wait_timeout(PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    short(&event.expect("an event in time"))
}

/// All events to the last one.
#[track_caller]
fn rest(events: &mut JobEvents) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(event) = events.wait().unwrap_or_else(|error| panic!("{error}")) {
        all.push(short(&event));
    }
    assert!(events.wait_timeout(Duration::MAX).unwrap().is_none(), "the end stays the end");
    all
}

/// Freezes and thaws a job, so that it has twice as many events more.
#[track_caller]
fn shake(job: &Job, times: usize) {
    let mut events = job.events();
    while let Some(event) = events.wait_timeout(Duration::ZERO).unwrap() {
        assert!(matches!(event, JobEvent::Exited(_)), "{event:?}");
    }
    for _ in 0..times {
        job.freeze().unwrap();
        assert_eq!(next(&mut events), "frozen");
        job.thaw().unwrap();
        assert_eq!(next(&mut events), "thawed");
    }
}

#[test]
fn every_subscriber_gets_every_event_in_order_and_then_the_end() {
    let Some(threads) = Threads::new() else { return };
    let (job, mut gate) = threads.gated("go; exit 3");
    let all =
        ["frozen", "thawed", "frozen", "thawed", "exited: exit code 3", "finished: exit code 3"];
    thread::scope(|scope| {
        let readers: Vec<_> = (0..20)
            .map(|number| {
                let mut events = job.events();
                scope.spawn(move || match number % 2 {
                    0 => rest(&mut events),
                    _ => {
                        let (mut all, mut events) = (Vec::new(), events);
                        while let Some(event) = block_on(|cx| events.poll_next(cx)) {
                            all.push(short(&event.unwrap()));
                        }
                        all
                    }
                })
            })
            .collect();
        shake(&job, 2);
        gate.open();
        for reader in readers {
            assert_eq!(reader.join().unwrap(), all);
        }
    });
}

#[test]
fn whoever_subscribes_late_gets_the_exit_and_the_end_that_have_come() {
    let Some(threads) = Threads::new() else { return };
    let gate = threads.place.dir.path().join("fifo");
    let mut command = sh("mkfifo $gate; (read _ <$gate) & exit 4");
    let job = threads.spawn(command.end_policy(EndPolicy::WaitAll).env("gate", &gate));
    let mut early = job.events();
    assert_eq!(next(&mut early), "exited: exit code 4");
    // What has not come is waited for.
    let mut between = job.events();
    assert_eq!(next(&mut between), "exited: exit code 4");
    assert!(between.wait_timeout(Duration::from_millis(1)).unwrap().is_none());
    assert!(between.wait_timeout(Duration::ZERO).unwrap().is_none());
    fs::write(&gate, "go\n").unwrap();
    job.wait().unwrap();
    for mut events in [early, between] {
        assert_eq!(rest(&mut events), ["finished: exit code 4"]);
    }
    for _ in 0..2 {
        let both = ["exited: exit code 4", "finished: exit code 4"];
        assert_eq!(rest(&mut job.events()), both);
    }
    // Also when the worker has ended since.
    threads.worker.shutdown(Shutdown::Kill, PATIENCE).unwrap();
    assert_eq!(rest(&mut job.events()), ["exited: exit code 4", "finished: exit code 4"]);
}

#[test]
fn a_subscriber_that_does_not_read_is_told_what_it_has_missed_but_never_misses_the_exit() {
    let Some(threads) = Threads::new() else { return };
    let gate = threads.place.dir.path().join("fifo");
    let mut command = sh("mkfifo $gate; sleep 1000 & read _ <$gate; exit 5");
    let job = threads.spawn(command.end_policy(EndPolicy::WaitAll).env("gate", &gate));
    let mut slow = job.events();
    shake(&job, 30);
    let mut other = job.events();
    until("there is a FIFO", || gate.exists());
    fs::write(&gate, "go\n").unwrap();
    assert_eq!(next(&mut other), "exited: exit code 5");
    shake(&job, 50);
    job.kill().unwrap();
    job.wait().unwrap();
    let found = rest(&mut slow);
    // Of 60 events before the exit none is among the newest, and of 100 after it 63 are.
    assert_eq!(found[..3], ["missed 60", "exited: exit code 5", "missed 37"]);
    assert_eq!(found.len(), 3 + 63 + 1);
    assert_eq!(found.last().unwrap(), "finished: exit code 5");
    assert!(found[3..66].iter().all(|event| event == "frozen" || event == "thawed"), "{found:?}");
}

#[test]
fn a_hostile_number_of_events_costs_no_memory() {
    if !alone!() {
        return;
    }
    let Some(threads) = Threads::new() else { return };
    let job = threads.spawn(&sh("sleep 1000"));
    let mut idle: Vec<JobEvents> = (0..50).map(|_| job.events()).collect();
    shake(&job, 40);
    let before = resident_bytes();
    shake(&job, 160);
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 1 << 20, "grown by {grown} bytes");
    for events in &mut idle {
        assert_eq!(next(events), "missed 336");
        assert_eq!(next(events), "frozen");
    }
}

#[test]
fn stalls_come_to_the_subscribers_of_the_job_and_of_the_worker() {
    let Some(threads) = Threads::new() else { return };
    let worker = &threads.worker;
    // Each of the two processes waits while the other one runs.
    let job = threads.spawn(&sh("taskset -p 1 $$ >&2; while :; do :; done & while :; do :; done"));
    // What is frozen does not stall, however busy the machine.
    let other = threads.spawn(&sh("sleep 1000"));
    let mut freezing = other.events();
    other.freeze().unwrap();
    assert_eq!(next(&mut freezing), "frozen");
    // Every host may watch windows of two seconds.
    let stall = Stall::some(Duration::from_millis(150), Duration::from_secs(2));
    let (mut events, mut silent, mut system) = (job.events(), other.events(), worker.events());
    job.watch_pressure(Stallable::Cpu, stall).unwrap();
    other.watch_pressure(Stallable::Cpu, stall).unwrap();
    worker.watch_system_pressure(Stallable::Cpu, stall).unwrap();
    assert_eq!(next(&mut events), "pressure(cpu)");
    let told = system.wait_timeout(PATIENCE).unwrap();
    assert_eq!(told, Some(WorkerEvent::SystemPressure(Stallable::Cpu)));
    assert!(silent.wait_timeout(Duration::ZERO).unwrap().is_none());
    job.unwatch_pressure(Stallable::Cpu).unwrap();
    worker.unwatch_system_pressure(Stallable::Cpu).unwrap();
    while system.wait_timeout(Duration::ZERO).unwrap().is_some() {}
    // For longer than a window.
    assert!(system.wait_timeout(Duration::from_millis(2500)).unwrap().is_none());
    let never = Stall::some(Duration::ZERO, Duration::from_secs(2));
    let refused = worker.watch_system_pressure(Stallable::Cpu, never);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
    job.kill().unwrap();
    let found = rest(&mut events);
    let ends = found.iter().filter(|event| *event != "pressure(cpu)").count();
    assert_eq!(ends, 2, "{found:?}");
    let finished = job.watch_pressure(Stallable::Cpu, stall).unwrap_err();
    assert_eq!(finished.kind(), ErrorKind::State);
}

#[test]
fn a_kill_for_lack_of_memory_comes_to_the_subscribers() {
    let Some(threads) = Threads::new() else { return };
    let above = threads.place.cgroup.as_ref().unwrap();
    let controllers = fs::read_to_string(above.join("cgroup.controllers")).unwrap();
    if !controllers.split_whitespace().any(|name| name == "memory") {
        skip_outside_vm("the controller memory is needed");
        return;
    }
    let mut limits = Limits::new();
    limits.memory_max(ByteSize::from_mib(32));
    let mut command = sh("read _; exec dd if=/dev/zero of=/dev/null bs=64M count=1");
    let job = threads.spawn(command.limits(&limits).stdin(Stdin::Piped));
    let (mut events, mut kills) = (job.events(), 0);
    job.take_stdin().unwrap().unwrap().write_all(b"\n").unwrap();
    while let Some(event) = events.wait().unwrap() {
        if let JobEvent::Oom { kills: more, cause, .. } = event {
            assert_eq!(cause, OomCause::Job);
            kills += more;
        }
    }
    assert_eq!(kills, 1);
}

#[test]
fn nobody_is_woken_while_nothing_happens_and_everybody_once_when_something_does() {
    let Some(threads) = Threads::new() else { return };
    let job = threads.spawn(&sh("sleep 1000"));
    let counts = Arc::new(Counts::default());
    let waker = Waker::from(Arc::clone(&counts));
    let mut cx = Context::from_waker(&waker);
    let mut subscribers: Vec<JobEvents> = (0..100).map(|_| job.events()).collect();
    let ends = Arc::new(Counts::default());
    let end = Waker::from(Arc::clone(&ends));
    let mut finished = pin!(job.finished());
    assert!(finished.as_mut().poll(&mut Context::from_waker(&end)).is_pending());
    for events in &mut subscribers {
        // However often it is polled, and given up, before.
        for _ in 0..3 {
            assert!(events.poll_next(&mut cx).is_pending());
        }
    }
    assert!(job.wait_timeout(Duration::from_millis(100)).unwrap().is_none());
    assert_eq!(counts.0.load(Ordering::Relaxed), 0);
    job.freeze().unwrap();
    until("all are woken", || counts.0.load(Ordering::Relaxed) == 100);
    job.thaw().unwrap();
    assert!(!job.status().unwrap().frozen);
    // Nobody has asked again, so nobody waits.
    assert_eq!(counts.0.load(Ordering::Relaxed), 100);
    assert_eq!(ends.0.load(Ordering::Relaxed), 0, "who waits for the end is woken by the end");
    for events in &mut subscribers {
        assert!(matches!(events.poll_next(&mut cx), Poll::Ready(Some(Ok(JobEvent::Frozen)))));
    }
    job.kill().unwrap();
    until("it is finished", || ends.0.load(Ordering::Relaxed) == 1);
}

#[test]
fn the_end_of_the_worker_reaches_every_subscriber() {
    for panics in [false, true] {
        let Some(threads) = Threads::new() else { return };
        let (job, mut gate) = threads.gated("go");
        // No shutdown ends it.
        let stubborn = threads.spawn(sh("exec sleep 1000").detached(true));
        let group = threads.place.group(stubborn.id());
        let is_end = move |error: &Error| match error {
            Error::Worker(WorkerError::ShutDown) => !panics,
            Error::Worker(WorkerError::Panicked { .. }) => panics,
            _ => false,
        };
        let waker = Waker::from(Arc::new(Panics));
        let mut trap = job.events();
        thread::scope(|scope| {
            let mut blocked = Vec::new();
            for _ in 0..5 {
                let (mut events, mut system) = (stubborn.events(), threads.worker.events());
                blocked.push(scope.spawn(move || {
                    let error = loop {
                        match events.wait() {
                            Ok(event) => assert!(event.is_some()),
                            Err(error) => break error,
                        }
                    };
                    assert!(events.wait().unwrap().is_none());
                    error
                }));
                blocked.push(scope.spawn(move || {
                    let error = system.wait().unwrap_err();
                    assert!(system.wait().unwrap().is_none());
                    error
                }));
            }
            if panics {
                assert!(trap.poll_next(&mut Context::from_waker(&waker)).is_pending());
                gate.open();
            } else {
                threads.worker.shutdown(Shutdown::Stop, Duration::ZERO).unwrap();
            }
            for thread in blocked {
                let error = thread.join().unwrap();
                assert!(is_end(&error), "{error}");
            }
        });
        // Whoever comes later.
        let error = stubborn.events().wait_timeout(Duration::ZERO).unwrap_err();
        assert!(is_end(&error), "{error}");
        let error = block_on(|cx| threads.worker.events().poll_next(cx)).unwrap().unwrap_err();
        assert!(is_end(&error), "{error}");
        end_group(&group);
    }
}

#[test]
fn a_subscription_keeps_its_job_and_releases_it_wherever_it_is_dropped() {
    let Some(threads) = Threads::new() else { return };
    let jobs = || threads.worker.census().unwrap().jobs;
    let mut random = fastrand::Rng::with_seed(3);
    let mut cx = Context::from_waker(Waker::noop());
    for round in 0..40 {
        let job = threads.spawn(&sh(if round % 2 == 0 { "exit 0" } else { "sleep 1000" }));
        let mut subscribers: Vec<JobEvents> = (0..5).map(|_| job.events()).collect();
        for events in &mut subscribers {
            for _ in 0..random.u32(..4) {
                if random.bool() {
                    let _ = events.poll_next(&mut cx).is_ready();
                } else {
                    events.wait_timeout(Duration::from_micros(random.u64(..200))).unwrap();
                }
            }
        }
        job.kill().unwrap();
        job.wait().unwrap();
        drop(job);
        random.shuffle(&mut subscribers);
        while let Some(mut events) = subscribers.pop() {
            assert_eq!(jobs(), 1);
            assert!(events.job().status().unwrap().report.is_some());
            if random.bool() {
                assert!(rest(&mut events).len() <= 2);
            }
        }
        until("it is removed", || jobs() == 0);
    }
}

#[test]
fn a_process_that_the_host_forks_can_only_drop_subscriptions() {
    if !alone!() {
        return;
    }
    let Some(threads) = Threads::new() else { return };
    let (job, mut gate) = threads.gated("go");
    let mut events = Some(job.events());
    let mut system = Some(threads.worker.events());
    let ran = forked(|| {
        let (mut events, mut system) = (events.take().unwrap(), system.take().unwrap());
        let is_forked =
            |error| assert!(matches!(error, Error::System(SystemError::Forked { .. })), "{error}");
        is_forked(events.wait().unwrap_err());
        is_forked(job.events().wait().unwrap_err());
        is_forked(system.wait().unwrap_err());
        is_forked(threads.worker.events().wait().unwrap_err());
        is_forked(threads.worker.jobs().unwrap_err());
        is_forked(threads.worker.prepare(&Limits::new(), 1).unwrap_err());
        is_forked(threads.worker.sweep().unwrap_err());
    });
    assert!(ran, "the forked process has failed");
    gate.open();
    assert_eq!(rest(&mut events.unwrap()).len(), 2);
}

#[test]
fn a_job_is_found_by_its_uuid_and_in_the_list_whether_or_not_it_has_a_handle() {
    let Some(threads) = Threads::new() else { return };
    let worker = &threads.worker;
    let (job, mut gate) = threads.gated("go; exit 6");
    let uuid = job.id().uuid();
    assert_eq!(worker.containment(), Containment::Cgroup);
    drop(job);
    let ids = || worker.jobs().unwrap().iter().map(|job| job.id().uuid()).collect::<Vec<_>>();
    assert_eq!(ids(), [uuid]);
    assert!(worker.find(uuid::Uuid::nil()).unwrap().is_none());
    let (first, second) =
        (worker.find(uuid).unwrap().unwrap(), worker.find(uuid).unwrap().unwrap());
    gate.open();
    assert_eq!(first.wait().unwrap().exit, Exit::Code(6));
    // Each handle that was found keeps it.
    drop(first);
    assert_eq!(ids(), [uuid]);
    assert_eq!(second.status().unwrap().exit, Some(Exit::Code(6)));
    drop(second);
    until("it is removed", || worker.census().unwrap().jobs == 0);
    assert!(worker.find(uuid).unwrap().is_none());
    assert!(ids().is_empty());
}

#[test]
fn the_events_of_a_reactor_are_not_lost_and_not_repeated_when_it_becomes_a_worker() {
    let place = Place::new();
    if place.cgroup_or_skip().is_none() {
        return;
    }
    let mut reactor = Reactor::with_config(&place.config()).unwrap();
    let mut command = sh("sleep 1000 & exit 7");
    let exited = reactor.spawn(command.end_policy(EndPolicy::WaitAll), Token(1)).unwrap();
    let finished = reactor.spawn(&sh("exit 8"), Token(2)).unwrap();
    // Their events stay in the queue.
    reactor.wait(finished).unwrap();
    while reactor.status(exited).unwrap().exit.is_none() {
        reactor.wait_timeout(exited, Duration::from_millis(1)).unwrap();
    }
    let (worker, jobs) = reactor.into_worker().unwrap();
    let of = |id| jobs.iter().find(|job| job.id() == id).unwrap();
    let mut events = of(exited).events();
    assert_eq!(next(&mut events), "exited: exit code 7");
    of(exited).signal(Signal::KILL).unwrap();
    assert_eq!(rest(&mut events), ["finished: exit code 7"]);
    let both = ["exited: exit code 8", "finished: exit code 8"];
    assert_eq!(rest(&mut of(finished).events()), both);
    drop(worker);
}

#[test]
fn groups_that_were_prepared_are_taken_and_a_sweep_reports_what_it_has_removed() {
    let Some(threads) = Threads::new() else { return };
    let worker = &threads.worker;
    let above = threads.place.cgroup.as_deref().unwrap();
    worker.prepare(&Limits::new(), 3).unwrap();
    assert_eq!(directories(above).len(), 3);
    let job = threads.spawn(&sh("sleep 1000"));
    assert_eq!(directories(above).len(), 3);
    // Two at once, of a worker whose reactor was asked for one before.
    let mut reactor = Reactor::with_config(&threads.place.config()).unwrap();
    reactor.sweep(Token(0)).unwrap();
    let (other, _) = reactor.into_worker().unwrap();
    thread::scope(|scope| {
        for worker in [worker, &other, &other] {
            scope.spawn(move || {
                let swept = worker.sweep().unwrap();
                assert!(swept.cgroups.is_empty(), "{swept:?}");
            });
        }
    });
    job.kill().unwrap();
    worker.shutdown(Shutdown::Kill, PATIENCE).unwrap();
    assert_eq!(worker.sweep().unwrap_err().kind(), ErrorKind::State);
    assert_eq!(worker.prepare(&Limits::new(), 1).unwrap_err().kind(), ErrorKind::State);
}

/// A future as a host would write it without any crate.
#[test]
fn a_subscription_is_awaited_without_a_runtime_and_leaves_nothing() {
    if !alone!() {
        return;
    }
    let Some(threads) = Threads::new() else { return };
    let before = held(&threads);
    for _ in 0..20 {
        let job = threads.spawn(&sh("exit 0"));
        let mut last = pin!(async {
            let mut events = job.events();
            let mut last = None;
            while let Some(event) = poll_fn(|cx| events.poll_next(cx)).await {
                last = Some(short(&event.unwrap()));
            }
            last
        });
        let last = block_on(|cx| last.as_mut().poll(cx));
        assert_eq!(last.as_deref(), Some("finished: exit code 0"));
    }
    until("all are removed", || held(&threads) == before);
}
