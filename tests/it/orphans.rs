//! A host that is process 1 or a subreaper can have the zombies reaped that its jobs leave, and
//! keeps its own children.

use std::process::{Child, Command as Process};
use std::thread;
use std::time::{Duration, Instant};

use jobworker::{Config, Containment, EndPolicy, Reactor, Token};

use crate::calls::become_subreaper;
use crate::skips::skip;
use crate::support::{PATIENCE, Place, World, alone, children, rounds, sh};

/// A world whose reactor reaps.
fn reaping_world() -> Option<World> {
    World::with(|config| _ = config.reap_orphans(true))
}

fn own(script: &str) -> Child {
    Process::new("/bin/sh").args(["-c", script]).spawn().unwrap()
}

/// Runs turns until this process has so many children.
#[track_caller]
fn until_children_are(world: &mut World, number: usize) {
    run_until(world, |_| children() == number);
}

/// Runs turns until a condition is met. No event reports that something was reaped, so no turn may
/// wait for one.
#[track_caller]
fn run_until(world: &mut World, condition: impl Fn(&World) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition(world) {
        assert!(Instant::now() < deadline, "there are {} children", children());
        world.turn(Some(Duration::from_millis(1)));
    }
}

#[test]
fn jobs_leave_no_zombie_and_the_children_of_the_host_stay() {
    if !alone!() {
        return;
    }
    become_subreaper();
    let Some(mut world) = reaping_world() else { return };
    let mut ended = own("exit 7");
    let mut running = own("exec sleep 1000");
    let mut of_a_thread = thread::spawn(|| own("exit 9")).join().unwrap();
    let before = world.footprint();
    // Some are killed, and some exit by themselves: before their job does, or after it.
    let scripts = [
        "sleep 1000 & sleep 1000 &",
        "(true &) ; (true &) ; sleep 0.01",
        "(sleep 0.01 &) ; true &",
    ];
    for script in scripts {
        let mut command = sh(script);
        command.end_policy(EndPolicy::KillRest);
        let jobs: Vec<_> = (0..rounds(50)).map(|_| world.spawn(&command)).collect();
        let last = jobs.len() - 1;
        for job in &jobs[..last] {
            world.finish(*job);
        }
        // The last one is killed.
        world.reactor.kill(jobs[last]).unwrap();
        world.finish(jobs[last]);
        until_children_are(&mut world, 3);
        for job in jobs {
            world.reactor.remove(job).unwrap();
        }
    }
    // The last pass may have a list open.
    run_until(&mut world, |world| world.footprint() == before);
    running.kill().unwrap();
    assert_eq!(ended.wait().unwrap().code(), Some(7));
    assert_eq!(running.wait().unwrap().code(), None);
    assert_eq!(of_a_thread.wait().unwrap().code(), Some(9));
}

#[test]
fn zombies_are_left_to_a_host_that_does_not_ask() {
    if !alone!() {
        return;
    }
    become_subreaper();
    let Some(mut world) = World::new() else { return };
    let job = world.spawn(&sh("sleep 1000 & sleep 1000 &"));
    world.finish(job);
    for _ in 0..100 {
        world.turn(Some(Duration::ZERO));
    }
    assert_eq!(children(), 2);
}

#[test]
fn thousands_of_zombies_are_reaped_in_turns() {
    if !alone!() {
        return;
    }
    become_subreaper();
    let Some(mut world) = reaping_world() else { return };
    let mut own_before: Vec<Child> = (0..20).map(|code| own(&format!("exit {code}"))).collect();
    // Another job goes on, with a zombie of its own.
    let other = world.spawn(&sh("(true &) ; echo; exec sleep 1000"));
    let count = rounds(3_000);
    let job =
        world.spawn(&sh(&format!("i=0; while [ $i -lt {count} ]; do (:&); i=$((i+1)); done")));
    world.finish(job);
    let mut own_behind: Vec<Child> = (20..40).map(|code| own(&format!("exit {code}"))).collect();
    // Those of the host, the other main process, and its zombie.
    until_children_are(&mut world, 42);
    world.reactor.kill(other).unwrap();
    world.finish(other);
    until_children_are(&mut world, 40);
    for (code, child) in own_before.iter_mut().chain(&mut own_behind).enumerate() {
        assert_eq!(child.wait().unwrap().code(), i32::try_from(code).ok());
    }
}

#[test]
fn dropping_the_reactor_reaps_as_well() {
    if !alone!() {
        return;
    }
    become_subreaper();
    let Some(mut world) = reaping_world() else { return };
    for _ in 0..10 {
        world.spawn(&sh("sleep 1000 & sleep 1000 & wait"));
    }
    drop(world);
    assert_eq!(children(), 0);
}

#[test]
fn process_1_of_a_pid_namespace_keeps_no_zombie() {
    let tried = Process::new("unshare").args(["-pf", "--mount-proc", "true"]).status();
    if !tried.is_ok_and(|status| status.success()) {
        skip("unshare does not work here");
        return;
    }
    if !alone!("unshare", "-pf", "--mount-proc") {
        return;
    }
    assert_eq!(std::process::id(), 1);
    let Some(mut world) = reaping_world() else { return };
    let mut child = own("exit 7");
    for _ in 0..rounds(50) {
        let job = world.spawn(&sh("sleep 1000 & sleep 1000 &"));
        world.finish(job);
    }
    until_children_are(&mut world, 1);
    assert_eq!(child.wait().unwrap().code(), Some(7));
}

#[test]
fn what_stays_in_a_process_group_is_reaped_where_the_kernel_names_groups_by_pidfd() {
    if !alone!() {
        return;
    }
    become_subreaper();
    let mut config = Config::new();
    config.containment(Containment::ProcessGroup).reap_orphans(true);
    let place = Place::new();
    config.log_dir(place.logs());
    let mut world = World::around(Reactor::with_config(&config).unwrap(), place);
    let mut child = own("exit 7");
    // Where the kernel does not, a zombie stays.
    let probe = world.reactor.spawn(&sh("sleep 1000 &"), Token(0)).unwrap();
    world.finish(probe);
    let deadline = Instant::now() + Duration::from_secs(1);
    while children() != 1 && Instant::now() < deadline {
        world.turn(Some(Duration::from_millis(1)));
    }
    if children() != 1 {
        skip("this kernel does not signal process groups by pidfd");
        child.wait().unwrap();
        return;
    }
    for _ in 0..rounds(50) {
        let job = world.spawn(&sh("sleep 1000 & sleep 1000 &"));
        world.finish(job);
    }
    until_children_are(&mut world, 1);
    assert_eq!(child.wait().unwrap().code(), Some(7));
}
