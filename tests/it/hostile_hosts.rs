//! Hosts that misbehave or live in unusual surroundings: forks, reaped children, containers, closed
//! standard streams. Each case is defined, and shown here.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use jobworker::{
    BoundedSpawns, Command, Containment, Error, ErrorKind, Exit, Position, Reactor, SpawnError,
    Stage, SystemError, Token,
};

use crate::calls::{forked, reap_any_child, refuse_clone3};
use crate::support::{Place, World, alone, rounds, sh};

/// Runs `with` while another thread of this process reaps every child that it can get.
fn beside_a_thread_that_reaps_all(with: impl FnOnce()) {
    /// Ends the thread when `with` panics, too.
    struct Done<'a>(&'a AtomicBool);
    impl Drop for Done<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let (done, reaped) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                if reap_any_child() {
                    reaped.fetch_add(1, Ordering::Relaxed);
                } else {
                    thread::yield_now();
                }
            }
        });
        let done = Done(&done);
        with();
        drop(done);
    });
    assert!(reaped.load(Ordering::Relaxed) > 0, "it has got no child");
}

#[test]
fn m16_a_thread_that_waits_for_any_child_disturbs_no_reactor_and_no_failed_start() {
    if !alone!() {
        return;
    }
    let place = Place::new();
    if place.cgroup_or_skip().is_none() {
        return;
    }
    beside_a_thread_that_reaps_all(|| {
        for _ in 0..rounds(200) {
            let reactor = Reactor::with_config(&place.config());
            assert!(reactor.is_ok(), "{:?}", reactor.err());
        }
    });
    drop(place);
    for bounded in [BoundedSpawns::None, BoundedSpawns::All] {
        let Some(mut world) = World::with(|config| _ = config.bounded_spawns(bounded)) else {
            return;
        };
        let before = world.footprint();
        beside_a_thread_that_reaps_all(|| {
            for _ in 0..rounds(200) {
                let error = world.try_spawn(&Command::new("/no/such/program")).unwrap_err();
                let Error::Spawn(SpawnError::Failed { stage, .. }) = &error else {
                    panic!("{error:?}")
                };
                assert_eq!((*stage, error.raw_os_error()), (Stage::Exec, Some(2)), "{error}");
            }
        });
        assert_eq!(world.footprint(), before);
    }
}

#[test]
fn m8_where_clone3_is_refused_jobs_run_in_process_groups_and_cgroups_are_an_error() {
    if !alone!() {
        return;
    }
    // What the default seccomp profile of a container does.
    refuse_clone3();
    let place = Place::new();
    if place.cgroup.is_some() {
        let error = Reactor::with_config(&place.config()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        let placement = Error::Spawn(match error {
            Error::Spawn(error @ SpawnError::Placement { .. }) => error,
            other => panic!("{other:?}"),
        });
        assert!(placement.to_string().contains("a seccomp filter that allows it"), "{placement}");
    }
    for bounded in [BoundedSpawns::None, BoundedSpawns::All] {
        let mut config = place.config();
        config.containment(Containment::ProcessGroup).bounded_spawns(bounded);
        let mut world = World::around(Reactor::with_config(&config).unwrap(), Place::new());
        // No handler and nothing that the host ignores or blocks is left to the job.
        let (text, report) = world.run(Command::new("/bin/cat").arg("/proc/self/status"));
        assert_eq!(report.exit, Exit::Code(0));
        for set in ["SigBlk", "SigIgn", "SigCgt"] {
            assert!(text.contains(&format!("\n{set}:\t0000000000000000\n")), "{text}");
        }
        let error = world.try_spawn(&Command::new("/no/such/program")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(2), "{error}");
    }
}

#[test]
fn m1_a_process_that_the_host_forks_can_only_drop_the_reactor_and_ends_nothing() {
    if !alone!() {
        return;
    }
    let Some(mut world) = World::new() else { return };
    let (input, feed) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let job = world.spawn(sh("echo on; read line; echo $line").stdin_fd(input));
    let tail = world.tail(job, Position::Start);
    world.until("the job runs", |world| world.text(tail) == "on\n");
    let before = world.footprint();
    let mut world = Some(world);
    let ran = forked(|| {
        let World { mut reactor, mut events, place, .. } = world.take().unwrap();
        let errors = [
            reactor.poll(&mut events, None).unwrap_err(),
            reactor.spawn(&Command::new("/bin/true"), Token(0)).unwrap_err(),
            reactor.tail(job, Position::Start, Token(0)).unwrap_err(),
            reactor.read(tail, &mut [0; 8]).unwrap_err(),
            reactor.kill(job).unwrap_err(),
            reactor.stop(job).unwrap_err(),
            reactor.wait(job).unwrap_err(),
            reactor.remove(job).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::State, "{error}");
            assert!(matches!(error, Error::System(SystemError::Forked { .. })), "{error}");
        }
        drop(reactor);
        // The place is the host's as well.
        std::mem::forget(place);
    });
    assert!(ran, "the forked process has failed");
    let mut world = world.expect("only the forked process has taken it");
    assert_eq!(world.footprint(), before);
    rustix::io::write(&feed, b"still here\n").unwrap();
    let report = world.finish(job);
    assert_eq!((world.text(tail).as_str(), report.exit), ("on\nstill here\n", Exit::Code(0)));
}
