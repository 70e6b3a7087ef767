//! Containment by process group: what it holds, what it cannot hold, and that it needs no
//! privilege.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use jobworker::{
    Command, Containment, EndPolicy, Error, Exit, Limits, Position, ProcessGroup, Reactor, Signal,
    Stdin, StopCause, TailId, Token,
};
use rustix::process::{Pid, kill_process};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::skips::skip;
use crate::support::{Place, World, alone, is_alive, sh};

/// A world whose jobs are contained by process group.
fn grouped() -> World {
    let place = Place::new();
    let mut config = place.config();
    config.containment(Containment::ProcessGroup);
    World::around(Reactor::with_config(&config).unwrap(), place)
}

/// Runs turns until a tail has this many lines, and returns those that are numbers.
#[track_caller]
fn numbers(world: &mut World, tail: TailId, lines: usize) -> Vec<u32> {
    world.until("the job has printed its numbers", |world| {
        world.text(tail).matches('\n').count() >= lines
    });
    world.text(tail).lines().filter_map(|line| line.parse().ok()).collect()
}

#[test]
fn a_job_without_a_cgroup_runs_and_is_followed_to_its_end() {
    let mut world = grouped();
    let job = world.spawn(&sh("echo $$; printf end; exit 3"));
    assert_eq!(world.reactor.status(job).unwrap().cgroup, None);
    let pid = world.reactor.status(job).unwrap().pid;
    let tail = world.tail(job, Position::Start);
    let report = world.finish(job);
    assert_eq!(world.text(tail), format!("{pid}\nend"));
    assert_eq!(report.exit, Exit::Code(3));
    assert_eq!((report.stopped_by, report.killed), (None, false));
    assert_eq!(report.cgroup_left, None);
    assert!(report.problems.is_empty(), "{:?}", report.problems);
}

#[test]
fn what_the_main_process_leaves_in_its_group_is_killed_at_the_end() {
    for group in [ProcessGroup::Own, ProcessGroup::Session] {
        let mut world = grouped();
        let mut command = sh("sleep 1000 & echo $!; (sleep 1001; true) & echo $!");
        let job = world.spawn(command.process_group(group));
        let tail = world.tail(job, Position::Start);
        let report = world.finish(job);
        let rest = numbers(&mut world, tail, 2);
        assert_eq!(rest.len(), 2);
        assert!(rest.iter().all(|pid| !is_alive(*pid)), "{rest:?} are still running");
        assert!(report.killed);
        assert!(report.problems.is_empty(), "{:?}", report.problems);
    }
}

#[test]
fn a_job_that_waits_for_all_lasts_until_the_last_of_its_group_is_gone() {
    let mut world = grouped();
    // The child writes only once the main process is a zombie, or reaped.
    let script = "main=$$; (while grep -qs '^State:.[^Z]' /proc/$main/status; do sleep 0.01; done; \
        echo late) & echo early";
    let job = world.spawn(sh(script).end_policy(EndPolicy::WaitAll));
    let tail = world.tail(job, Position::Start);
    let report = world.finish(job);
    assert_eq!(world.text(tail), "early\nlate\n");
    assert!(world.transcripts[&tail].ended);
    assert!(!report.killed);
}

#[test]
fn the_number_of_the_group_stays_taken_until_the_job_is_finished() {
    let mut world = grouped();
    let job = world.spawn(sh("sleep 1000 & echo $!").end_policy(EndPolicy::WaitAll));
    let pid = world.reactor.status(job).unwrap().pid;
    let tail = world.tail(job, Position::Start);
    world.until("the main process is gone", |world| world.exited.contains_key(&job));
    // The group keeps its number, and so the pid of its leader, from being used again. Before Linux
    // 6.9 a zombie does so, even for a group that has ended.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
    let rest = numbers(&mut world, tail, 1);
    assert!(is_alive(rest[0]));
    world.reactor.kill(job).unwrap();
    world.finish(job);
    assert!(!is_alive(rest[0]));
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "the main process is still a zombie");
}

#[test]
fn a_stop_reaches_every_process_of_the_group() {
    let mut world = grouped();
    let job = world.spawn(&sh("sleep 1000 & echo $!; sleep 1001 & echo $!; wait"));
    let tail = world.tail(job, Position::Start);
    let rest = numbers(&mut world, tail, 2);
    world.reactor.stop(job).unwrap();
    let report = world.finish(job);
    assert_eq!(report.exit, Exit::Signal { signal: Signal::TERM, core_dumped: false });
    assert_eq!(report.stopped_by, Some(StopCause::Stop));
    assert!(rest.iter().all(|pid| !is_alive(*pid)), "{rest:?} are still running");
}

/// Nobody knows who has the signal already.
#[test]
fn what_is_left_of_a_group_in_a_stop_has_the_grace_period_and_no_second_signal() {
    let mut world = grouped();
    let child = "trap 'echo asked' TERM; echo ready; until read _ <&3; do :; done; echo done";
    let mut command = sh(&format!("exec 3<&0; ({child}) & wait"));
    let long = Duration::from_secs(3600);
    let job = world.spawn(command.grace(long).stdin(Stdin::Piped));
    let mut stdin = world.reactor.take_stdin(job).unwrap().unwrap();
    let tail = world.tail(job, Position::Start);
    world.until("the job is ready", |world| world.text(tail) == "ready\n");
    world.reactor.stop(job).unwrap();
    world.until("the shell is gone", |world| world.exited.contains_key(&job));
    // Whatever is done about that is done in these.
    for _ in 0..5 {
        world.turn(Some(Duration::ZERO));
    }
    stdin.write_all(b"\n").unwrap();
    let report = world.finish(job);
    assert_eq!((report.exit.signal(), report.killed), (Some(Signal::TERM), false));
    assert_eq!(world.text(tail), "ready\nasked\ndone\n");
}

#[test]
fn a_group_that_ignores_the_stop_signal_is_killed_after_the_grace_period() {
    let mut world = grouped();
    let script = "trap '' TERM; (while :; do sleep 1000; done) & echo $!; echo ready; while :; \
        do sleep 1000; done";
    let job = world.spawn(sh(script).grace(Duration::from_millis(50)));
    let tail = world.tail(job, Position::Start);
    let rest = numbers(&mut world, tail, 2);
    world.reactor.stop(job).unwrap();
    let report = world.finish(job);
    assert_eq!(report.exit, Exit::Signal { signal: Signal::KILL, core_dumped: false });
    assert!(report.killed);
    assert!(!is_alive(rest[0]));
}

/// A process that no longer belongs to a job. It is killed on drop.
struct Stray(u32);

impl Drop for Stray {
    fn drop(&mut self) {
        let _ = kill_process(
            Pid::from_raw(i32::try_from(self.0).unwrap()).unwrap(),
            rustix::process::Signal::KILL,
        );
    }
}

#[test]
fn a_process_that_left_the_group_is_left_alone_and_does_not_hold_the_job() {
    let mut world = grouped();
    let mark = world.place.dir.path().join("escaped");
    let script = format!(
        "setsid sh -c 'echo $$; echo > {mark}; exec sleep 1000' & while [ ! -e {mark} ]; do \
         sleep 0.01; done",
        mark = mark.display()
    );
    for policy in [EndPolicy::KillRest, EndPolicy::WaitAll] {
        let job = world.spawn(sh(&script).end_policy(policy));
        let tail = world.tail(job, Position::Start);
        let stray = Stray(numbers(&mut world, tail, 1)[0]);
        let report = world.finish(job);
        assert!(is_alive(stray.0), "{policy:?} has killed a process that had left");
        assert!(!report.killed);
        assert!(world.transcripts[&tail].ended);
        fs::remove_file(&mark).unwrap();
    }
}

#[test]
fn dropping_the_reactor_kills_the_groups() {
    let mut world = grouped();
    let job = world.spawn(&sh("sleep 1000 & echo $$; echo $!; wait"));
    let tail = world.tail(job, Position::Start);
    let pids = numbers(&mut world, tail, 2);
    assert_eq!(pids[0], world.reactor.status(job).unwrap().pid);
    drop(world);
    assert!(pids.iter().all(|pid| !is_alive(*pid)), "{pids:?} are still running");
}

#[test]
fn a_user_without_any_privilege_or_cgroup_can_run_jobs() {
    if !alone!() {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        skip("only root can change its user");
        return;
    }
    // Only this thread, which is the one that starts the jobs.
    set_thread_groups(&[]).unwrap();
    let nobody = 65_534;
    let (gid, uid) =
        (rustix::process::Gid::from_raw(nobody), rustix::process::Uid::from_raw(nobody));
    set_thread_res_gid(gid, gid, gid).unwrap();
    set_thread_res_uid(uid, uid, uid).unwrap();

    let place = Place::new();
    assert_eq!(place.cgroup, None, "the user nobody has no cgroup tree here");
    let mut config = place.config();
    config.containment(Containment::ProcessGroup);
    let mut world = World::around(Reactor::with_config(&config).unwrap(), place);
    let before = world.footprint();
    let (output, report) = world.run(&sh("id -u; sleep 1000 & exit 7"));
    assert_eq!(output, "65534\n");
    assert_eq!(report.exit, Exit::Code(7));
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    let job = world.spawn(Command::new("sleep").arg("1000"));
    world.reactor.stop(job).unwrap();
    world.finish(job);
    world.reactor.remove(job).unwrap();
    assert_eq!(world.footprint(), before);
}

#[test]
fn the_best_available_containment_is_a_cgroup_where_there_can_be_one() {
    let place = Place::new();
    let mut config = place.config();
    config.containment(Containment::BestAvailable);
    let reactor = Reactor::with_config(&config).unwrap();
    let expected = match place.cgroup {
        Some(_) => Containment::Cgroup,
        None => Containment::ProcessGroup,
    };
    assert_eq!(reactor.containment(), expected);
    drop(reactor);

    // No cgroup tree at all.
    config.cgroup_parent("/proc");
    let mut reactor = Reactor::with_config(&config).unwrap();
    assert_eq!(reactor.containment(), Containment::ProcessGroup);
    let error = reactor.spawn(sh("true").limits(Limits::new().pids_max(10)), Token(0)).unwrap_err();
    assert!(matches!(error, Error::Limits(_)), "{error}");
    let job = reactor.spawn(&sh("exit 4"), Token(0)).unwrap();
    assert_eq!(reactor.wait(job).unwrap().exit, Exit::Code(4));
}
