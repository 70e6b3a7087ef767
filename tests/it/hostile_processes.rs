//! Defects of the second review about processes: killing, signalling and awaiting them, each under
//! its name. Whatever a job does, its host kills all of it, and says so only when it has.

use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use jobworker::{Command, Containment, EndPolicy, Exit, JobId, Position, Reactor, Signal, Stdin};
use rustix::fs::inotify;
use rustix::io::dup;
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Uid, WaitOptions, getrlimit, pidfd_open, setrlimit, wait,
    waitpid,
};
use rustix::thread::set_thread_res_uid;

use crate::skips::skip;
use crate::support::{
    Place, World, alone, await_exit, end_group, has_exited, is_dead, members, pidfd, rounds, sh,
};
use crate::worker::until;

/// Lowers the limit of descriptors of this process.
fn limit_descriptors(number: u64) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(number), maximum }).unwrap();
}

/// Takes every descriptor that is left.
fn exhaust_descriptors() -> Vec<OwnedFd> {
    std::iter::from_fn(|| dup(std::io::stdin()).ok()).collect()
}

fn cgroup(world: &World, job: JobId) -> PathBuf {
    world.reactor.status(job).unwrap().cgroup.unwrap()
}

/// Runs turns until a job has this many processes.
#[track_caller]
fn until_members(world: &mut World, job: JobId, number: usize) -> Vec<u32> {
    let cgroup = cgroup(world, job);
    // Each line of the log is an event, so that a turn never waits for nothing.
    world.until("the job has started its processes", |_| members(&cgroup).len() >= number);
    members(&cgroup)
}

#[test]
fn h2_a_host_at_its_descriptor_limit_kills_the_whole_job() {
    if !alone!() {
        return;
    }
    for way in ["kill", "end", "drop"] {
        let Some(mut world) = World::new() else { return };
        limit_descriptors(128);
        let script = "setsid sleep 1000 & setsid sleep 1000 & echo; exec sleep 1000";
        let job = world.spawn(&sh(script));
        let tail = world.tail(job, Position::Start);
        world.until("all are started", |world| world.text(tail) == "\n");
        let pidfds: Vec<OwnedFd> =
            until_members(&mut world, job, 3).into_iter().map(pidfd).collect();
        let cgroup = cgroup(&world, job);
        let taken = exhaust_descriptors();
        assert!(fs::File::open("/dev/null").is_err(), "no descriptor is left");
        match way {
            "kill" => world.reactor.kill(job).unwrap(),
            "end" => world.reactor.signal_main(job, Signal::KILL).unwrap(),
            _ => {
                let World { reactor, place, .. } = world;
                drop(reactor);
                drop(taken);
                assert!(pidfds.iter().all(has_exited), "a process is left running by {way}");
                assert!(!cgroup.exists());
                drop(place);
                continue;
            }
        }
        let report = world.finish(job);
        drop(taken);
        assert!(pidfds.iter().all(has_exited), "a process is left running by {way}: {report:?}");
        assert!(report.killed && report.problems.is_empty(), "{report:?}");
        assert!(!cgroup.exists());
    }
}

#[test]
fn h3_a_job_with_more_processes_than_descriptors_ends_whole() {
    if !alone!() {
        return;
    }
    let processes = 160 + rounds(440);
    let Some(mut world) = World::new() else { return };
    limit_descriptors(128);
    let script = format!(
        "i=0; while [ $i -lt {processes} ]; do chrt -i 0 sleep 1000 & i=$((i + 1)); done; echo; \
         exec sleep 1000"
    );
    for end in [EndPolicy::KillRest, EndPolicy::WaitAll] {
        for exhausted in [false, true] {
            let job = world.spawn(sh(&script).end_policy(end));
            let tail = world.tail(job, Position::Start);
            world.until("all are started", |world| world.text(tail) == "\n");
            let cgroup = cgroup(&world, job);
            let some: Vec<OwnedFd> =
                members(&cgroup).into_iter().rev().take(50).map(pidfd).collect();
            let taken = if exhausted { exhaust_descriptors() } else { Vec::new() };
            match end {
                EndPolicy::KillRest => {
                    world.reactor.signal_main(job, Signal::KILL).unwrap();
                }
                _ => world.reactor.stop(job).unwrap(),
            }
            let report = world.finish(job);
            drop(taken);
            assert!(some.iter().all(is_dead), "{end:?}: a process is left running");
            assert_eq!(report.killed, end == EndPolicy::KillRest, "{report:?}");
            assert!(report.problems.is_empty(), "{report:?}");
            assert!(!cgroup.exists());
            world.reactor.remove(job).unwrap();
        }
    }
}

#[test]
fn h3_a_signal_reaches_more_processes_than_there_are_descriptors() {
    if !alone!() {
        return;
    }
    let Some(mut world) = World::new() else { return };
    limit_descriptors(256);
    let script = "i=0; while [ $i -lt 400 ]; do sleep 1000 & i=$((i + 1)); done; echo; wait";
    let job = world.spawn(&sh(script));
    let tail = world.tail(job, Position::Start);
    world.until("all are started", |world| world.text(tail) == "\n");
    until_members(&mut world, job, 401);
    let taken = exhaust_descriptors();
    world.reactor.signal(job, Signal::KILL).unwrap();
    let report = world.finish(job);
    drop(taken);
    assert_eq!(report.exit.signal(), Some(Signal::KILL));
    assert!(report.problems.is_empty(), "{report:?}");
    world.reactor.remove(job).unwrap();
}

#[test]
fn m7_a_process_that_may_not_be_signalled_shields_no_other() {
    if !alone!() {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        skip("only root can change its user");
        return;
    }
    let Some(mut world) = World::new() else { return };
    let script = "trap 'sleep 1001 & sleep 1002 & echo' USR1; echo; while :; do sleep 1000 & wait; \
         done";
    let job = world.spawn(sh(script).uid(65_533).gid(65_533));
    let tail = world.tail(job, Position::Start);
    world.until("it can take the signal", |world| world.text(tail) == "\n");
    let cgroup = cgroup(&world, job);
    let mut other = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    fs::write(cgroup.join("cgroup.procs"), other.id().to_string()).unwrap();
    // As if it were a set-user-ID program's: a process of root's in a job of a host that is not.
    // Others are listed before it and after it.
    world.reactor.signal_main(job, Signal::USR1).unwrap();
    world.until("all are started", |world| world.text(tail) == "\n\n");
    let pids = members(&cgroup);
    let place = pids.iter().position(|pid| *pid == other.id()).unwrap();
    assert!(pids.len() >= 5 && (1..pids.len() - 1).contains(&place), "{pids:?}");
    let pidfds: Vec<(u32, OwnedFd)> = pids.iter().map(|pid| (*pid, pidfd(*pid))).collect();
    become_user(65_533);
    let signalled = world.reactor.signal(job, Signal::KILL);
    let (refused, reached): (Vec<_>, Vec<_>) =
        pidfds.iter().partition(|(pid, _)| *pid == other.id());
    assert!(reached.iter().all(|(_, pidfd)| is_dead(pidfd)), "{} shields some", other.id());
    let error = signalled.expect_err("one may not be signalled").to_string();
    assert!(error.contains("Operation not permitted"), "{error}");
    become_user(0);
    assert!(!has_exited(&refused[0].1));
    let report = world.finish(job);
    assert!(report.killed, "the main process has left one behind: {report:?}");
    other.wait().unwrap();
}

/// Changes the user of this thread, which can be root again later.
fn become_user(uid: u32) {
    let uid = Uid::from_raw(uid);
    set_thread_res_uid(uid, uid, Uid::ROOT).unwrap();
}

#[test]
fn m9_what_enters_a_job_while_it_is_cleared_is_killed() {
    let Some(mut world) = World::new() else { return };
    for _ in 0..100 {
        let script = "setsid sleep 1000 & echo; exit 0";
        let job = world.spawn(sh(script).end_policy(EndPolicy::WaitAll));
        world.until("the main process is gone", |world| world.exited.contains_key(&job));
        let cgroup = cgroup(&world, job);
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        world.reactor.kill(job).unwrap();
        // Nothing is left of the job to be killed if the last one was dead at once.
        let entered = fs::write(cgroup.join("cgroup.procs"), child.id().to_string()).is_ok();
        let pidfd = pidfd(child.id());
        if !entered {
            child.kill().unwrap();
        }
        let report = world.finish(job);
        assert!(is_dead(&pidfd), "it was waited for, not killed: {report:?}");
        assert!(report.killed && report.problems.is_empty(), "{report:?}");
        child.wait().unwrap();
        world.reactor.remove(job).unwrap();
        if entered {
            return;
        }
    }
    skip("a process cannot be moved into the group of a job here");
}

#[test]
fn m15_the_end_of_a_job_that_waits_for_all_is_not_delayed() {
    let Some(mut world) = World::new() else { return };
    let (mut delayed, mut early) = (0, 0);
    for _ in 0..100 {
        let start = Instant::now();
        // The group has become populated less than 10 ms before, so its notification is delayed.
        let script = "sleep 0.002 & exit 0";
        let job = world.spawn(sh(script).end_policy(EndPolicy::WaitAll));
        world.until("it has exited", |world| world.exited.contains_key(&job));
        // It may be dead already.
        let cgroup = world.reactor.status(job).unwrap().cgroup;
        if let Some((process, notices)) = cgroup.and_then(|cgroup| last_process(&cgroup)) {
            assert!(is_dead(&process));
            let is_delayed = start.elapsed() < Duration::from_millis(8);
            world.finish(job);
            delayed += usize::from(is_delayed);
            early += usize::from(is_delayed && !is_modified(&notices));
        }
        world.finish(job);
        world.reactor.remove(job).unwrap();
    }
    eprintln!("{early} of {delayed} ends were found out early");
    // With the notification alone it is none of them. A busy machine may have but a few.
    assert!(delayed < 10 || early > 0, "none of {delayed} ends was found out early");
}

/// The only process of a cgroup, if there is one, and a watch on the notification of its death.
fn last_process(cgroup: &Path) -> Option<(OwnedFd, OwnedFd)> {
    let notices = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
    let events = cgroup.join("cgroup.events");
    inotify::add_watch(&notices, events, inotify::WatchFlags::MODIFY).ok()?;
    let list = fs::read_to_string(cgroup.join("cgroup.procs")).ok()?;
    let pid = Pid::from_raw(list.lines().next()?.parse().ok()?)?;
    Some((pidfd_open(pid, PidfdFlags::empty()).ok()?, notices))
}

/// Whether something was modified that is watched; that the file is gone does not count.
fn is_modified(notices: &OwnedFd) -> bool {
    let mut buffer = [MaybeUninit::uninit(); 1024];
    let mut notices = inotify::Reader::new(notices, &mut buffer);
    std::iter::from_fn(|| notices.next().ok().map(|notice| notice.events()))
        .any(|events| events.contains(inotify::ReadFlags::MODIFY))
}

/// A thread that reaps every child of this process, until it is dropped.
struct Reaper {
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Reaper {
    fn new() -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&done);
        let thread = std::thread::spawn(move || {
            while !seen.load(Ordering::Relaxed) {
                if wait(WaitOptions::NOHANG).is_err() {
                    std::thread::yield_now();
                }
            }
        });
        Self { done, thread: Some(thread) }
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

/// A process goes on with the threads that are left when its first one has exited.
const LEADERLESS: &str = "
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(1000,)).start()
ctypes.CDLL(None).pthread_exit(None)
";

/// `cgroup.kill` alone left it running for ever.
#[test]
fn a_process_whose_leading_thread_has_exited_is_killed_as_any_other() {
    let python = "/usr/bin/python3";
    if !fs::exists(python).unwrap() {
        skip("python3 is needed");
        return;
    }
    for how in ["kill", "exit", "drop"] {
        let Some(mut world) = World::new() else { return };
        // More than are killed one by one at once; the others are listed before it or behind it.
        let others = "i=0; while [ $i -lt 100 ]; do sleep 1000 & i=$((i+1)); done; ";
        let mut command = sh(&format!("{others} \"$1\" -c \"$2\" & {others} read line"));
        command.args(["sh", python, LEADERLESS]).stdin(Stdin::Piped);
        let job = world.spawn(&command);
        let group = world.place.group(job);
        let is_leaderless = |pid: &u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
            stat.contains(") Z ") && threads > 1
        };
        let find = || members(&group).into_iter().find(is_leaderless);
        until("its leading thread has exited", || find().is_some());
        until("all are there", || members(&group).len() == 202);
        let process = pidfd(find().unwrap());
        match how {
            "kill" => world.reactor.kill(job).unwrap(),
            "exit" => drop(world.reactor.take_stdin(job).unwrap()),
            _ => {
                let World { reactor, place: _place, .. } = world;
                drop(reactor);
                assert!(is_dead(&process) && !group.exists(), "the reactor was dropped");
                continue;
            }
        }
        world.finish(job);
        assert!(is_dead(&process), "{how}");
    }
}

#[test]
fn m2_a_group_whose_leader_was_reaped_by_somebody_else_is_still_the_jobs_own() {
    if !alone!() {
        return;
    }
    let place = Place::new();
    let mut config = place.config();
    config.containment(Containment::ProcessGroup);
    let mut world = World::around(Reactor::with_config(&config).unwrap(), place);
    let _reaper = Reaper::new();
    for policy in [EndPolicy::KillRest, EndPolicy::WaitAll] {
        // A group that has ended: its number is free, and nothing may be sent to it.
        let job = world.spawn(sh("exit 3").end_policy(policy));
        let report = world.finish(job);
        assert!(!report.killed && report.problems.is_empty(), "{report:?}");
        world.reactor.remove(job).unwrap();
        // One that lives on without its leader.
        let job = world.spawn(sh("sleep 1000 & echo $!; exit 3").end_policy(policy));
        let tail = world.tail(job, Position::Start);
        world.until("the main process is gone", |world| {
            world.exited.contains_key(&job) && world.text(tail).contains('\n')
        });
        if !is_linux(6, 9) {
            skip("this kernel signals groups only by number");
            return;
        }
        let rest = world.text(tail).trim_end().parse().unwrap();
        let pidfd = Pid::from_raw(rest).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        world.reactor.kill(job).unwrap();
        let report = world.finish(job);
        assert!(pidfd.is_none_or(|pidfd| has_exited(&pidfd)), "{rest} runs on: {report:?}");
        assert!(report.killed && report.problems.is_empty(), "{report:?}");
        world.reactor.remove(job).unwrap();
    }
}

/// The number of a process that was reaped is soon that of another one, which may lead a group of
/// its own.
#[test]
fn m2_a_stranger_that_has_got_the_number_of_a_reaped_leader_is_left_alone() {
    const LAST_PID: &str = "/proc/sys/kernel/ns_last_pid";
    let mut inside = std::process::Command::new("unshare");
    let inside = inside.args(["--pid", "--mount-proc", "--fork", "cat", LAST_PID]).output();
    if !inside.is_ok_and(|output| output.status.success()) {
        skip("the next process's number cannot be chosen here");
        return;
    }
    // A namespace in which nothing else starts processes.
    if !alone!("unshare", "--pid", "--mount-proc", "--fork") {
        return;
    }
    let place = Place::new();
    let mut config = place.config();
    config.containment(Containment::ProcessGroup);
    let mut world = World::around(Reactor::with_config(&config).unwrap(), place);
    for policy in [EndPolicy::KillRest, EndPolicy::WaitAll] {
        let job = world.spawn(sh("exit 3").end_policy(policy));
        let leader = world.reactor.status(job).unwrap().pid;
        let pid = Pid::from_raw(i32::try_from(leader).unwrap());
        waitpid(pid, WaitOptions::empty()).unwrap();
        fs::write(LAST_PID, (leader - 1).to_string()).unwrap();
        let mut stranger = std::process::Command::new("sleep");
        let mut stranger = stranger.arg("1000").process_group(0).spawn().unwrap();
        assert_eq!(stranger.id(), leader);
        if policy == EndPolicy::WaitAll {
            world.reactor.kill(job).unwrap();
        }
        let report = world.finish(job);
        let ended = stranger.try_wait().unwrap();
        stranger.kill().unwrap();
        stranger.wait().unwrap();
        assert_eq!(ended, None, "{report:?}");
        world.reactor.remove(job).unwrap();
    }
}

/// Whether the kernel is at least of this version.
fn is_linux(major: u32, minor: u32) -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(major), Some(minor))
}

#[test]
fn low_how_a_job_ended_is_known_although_somebody_else_reaps_it() {
    if !alone!() {
        return;
    }
    if !is_linux(6, 15) {
        skip("this kernel forgets how a process ended once it is reaped");
        return;
    }
    let Some(mut world) = World::new() else { return };
    let _reaper = Reaper::new();
    // It was asked too early in about one of 500.
    for _ in 0..rounds(2_000) {
        let job = world.spawn(Command::new("/bin/sh").args(["-c", "exit 3"]));
        let report = world.finish(job);
        assert_eq!(report.exit, Exit::Code(3));
        world.reactor.remove(job).unwrap();
    }
}

/// How many processes the jobs of the tests of budgets have, their main process not counted: for
/// some turns in the VM as well, where starting them takes longest.
fn many() -> usize {
    250 + rounds(1_750)
}

/// Starts a job of many processes, which all die of SIGUSR1 but the main one.
#[track_caller]
fn spawn_many(world: &mut World, command: impl FnOnce(&mut Command)) -> (JobId, PathBuf) {
    let number = many();
    let script = format!(
        "trap '' USR1; i=0; while [ $i -lt {number} ]; do env --default-signal=USR1 sleep 1000 & \
         i=$((i + 1)); done; echo; while :; do wait; done"
    );
    let mut crowd = sh(&script);
    command(&mut crowd);
    let job = world.spawn(&crowd);
    let tail = world.tail(job, Position::Start);
    world.until("all are started", |world| world.text(tail) == "\n");
    let cgroup = cgroup(world, job);
    // Each has forked before it has set its signals.
    let ready = || members(&cgroup).into_iter().filter(|pid| is_sleep(*pid)).count();
    let begun = Instant::now();
    while ready() < number {
        assert!(begun.elapsed() < Duration::from_secs(60), "{} are ready", ready());
        std::thread::yield_now();
    }
    (job, cgroup)
}

fn is_sleep(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n")
}

/// Runs turns that do not wait until all but so many processes of a group are gone; returns the
/// number of turns.
#[track_caller]
fn turns_until_left(world: &mut World, cgroup: &Path, left: usize) -> usize {
    let begun = Instant::now();
    for turn in 0.. {
        if members(cgroup).len() <= left {
            return turn;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{} are left", members(cgroup).len());
        world.turn(Some(Duration::ZERO));
    }
    unreachable!()
}

#[test]
fn budget_a_signal_to_many_processes_is_sent_in_turns() {
    if !alone!() {
        return;
    }
    let Some(mut world) = World::new() else { return };
    let (job, cgroup) = spawn_many(&mut world, |_| {});
    let quiet = world.spawn(&sh("while read line; do echo \"$line\"; done; exec sleep 1000"));
    let tail = world.tail(quiet, Position::Start);
    world.turn_for(Duration::from_millis(1));
    let before = world.footprint().fds;

    world.reactor.signal(job, Signal::USR1).unwrap();
    assert_eq!(world.footprint().fds, before, "a descriptor is held between turns");
    assert!(members(&cgroup).len() > many() - 150, "{} are left", members(&cgroup).len());
    // The end of another job comes meanwhile.
    let other = world.spawn(&sh("exit 0"));
    let exited = pidfd(world.reactor.status(other).unwrap().pid);
    assert!(is_dead(&exited));
    let mut turns = 0;
    while !world.finished.contains_key(&other) {
        world.turn(Some(Duration::ZERO));
        turns += 1;
    }
    assert!(turns < 5, "{turns} turns until another job was finished");
    assert!(members(&cgroup).len() > many() / 2, "{} are left", members(&cgroup).len());

    let turns = turns_until_left(&mut world, &cgroup, 1);
    assert!(turns >= 10, "all were signalled in {turns} turns");
    assert_eq!(world.text(tail), "");
    // Once it has reached all, nothing keeps a turn from waiting.
    world.turn_for(Duration::from_millis(50));
    let begun = world.turns;
    world.turn(Some(Duration::from_millis(20)));
    assert_eq!(world.turns, begun + 1);

    for job in [job, quiet] {
        world.reactor.kill(job).unwrap();
        let report = world.finish(job);
        assert!(report.problems.is_empty(), "{report:?}");
    }
    assert!(!cgroup.exists());
    for job in [job, quiet, other] {
        world.reactor.remove(job).unwrap();
    }
    assert_eq!(world.footprint().log_files, 0);
}

#[test]
fn budget_a_host_that_polls_the_descriptor_is_woken_until_all_are_signalled() {
    if !alone!() {
        return;
    }
    let Some(mut world) = World::new() else { return };
    // From now on the reactor keeps the descriptor readable while there is work.
    let _ = world.reactor.as_fd();
    let (job, cgroup) = spawn_many(&mut world, |_| {});
    while is_readable(&world.reactor, Duration::ZERO) {
        world.turn(Some(Duration::ZERO));
    }
    world.reactor.signal(job, Signal::USR1).unwrap();
    let mut turns = 0;
    while is_readable(&world.reactor, Duration::ZERO) {
        world.turn(Some(Duration::ZERO));
        turns += 1;
    }
    assert!((many() / 150..many()).contains(&turns), "{turns} turns");
    turns_until_left(&mut world, &cgroup, 1);
    world.reactor.kill(job).unwrap();
    world.finish(job);
    world.reactor.remove(job).unwrap();
}

/// Whether the descriptor of a reactor is readable within this time.
fn is_readable(reactor: &Reactor, timeout: Duration) -> bool {
    await_exit(&reactor.as_fd().try_clone_to_owned().unwrap(), timeout)
}

#[test]
fn budget_a_stop_of_many_processes_ends_them_within_the_grace() {
    if !alone!() {
        return;
    }
    let Some(mut world) = World::new() else { return };
    let (job, cgroup) = spawn_many(&mut world, |command| {
        command.end_policy(EndPolicy::WaitAll);
    });
    let begun = Instant::now();
    world.reactor.stop_within(job, Duration::from_secs(30)).unwrap();
    assert!(members(&cgroup).len() > many() - 150);
    // The host only waits.
    let report = world.finish(job);
    assert!(begun.elapsed() < Duration::from_secs(30));
    assert_eq!(report.exit.signal(), Some(Signal::TERM));
    assert!(!report.killed && report.problems.is_empty(), "{report:?}");
    assert!(!cgroup.exists());

    // The grace begins at the call, whatever is left to be signalled.
    let (job, cgroup) = spawn_many(&mut world, |command| {
        command.end_policy(EndPolicy::WaitAll);
    });
    world.reactor.stop_within(job, Duration::from_nanos(1)).unwrap();
    let report = world.finish(job);
    assert!(report.killed && report.problems.is_empty(), "{report:?}");
    assert!(!cgroup.exists());
}

#[test]
fn budget_a_signal_is_overtaken_by_a_kill_and_followed_by_another_signal() {
    if !alone!() {
        return;
    }
    let Some(mut world) = World::new() else { return };
    let (job, cgroup) = spawn_many(&mut world, |_| {});
    world.reactor.signal(job, Signal::USR1).unwrap();
    world.reactor.kill(job).unwrap();
    let report = world.finish(job);
    assert_eq!(report.exit.signal(), Some(Signal::KILL));
    assert!(report.problems.is_empty() && !cgroup.exists(), "{report:?}");

    // SIGWINCH is ignored by all: what follows it is not lost, and waits.
    let (job, cgroup) = spawn_many(&mut world, |_| {});
    world.reactor.signal(job, Signal::from_raw(28).unwrap()).unwrap();
    for _ in 0..3 {
        world.reactor.signal(job, Signal::USR1).unwrap();
    }
    assert_eq!(members(&cgroup).len(), many() + 1);
    turns_until_left(&mut world, &cgroup, 1);
    world.reactor.signal(job, Signal::KILL).unwrap();
    let report = world.finish(job);
    assert_eq!(report.exit.signal(), Some(Signal::KILL));
    assert!(report.problems.is_empty() && !cgroup.exists(), "{report:?}");
    for job in world.reactor.jobs().collect::<Vec<_>>() {
        world.reactor.remove(job).unwrap();
    }
}

#[test]
fn budget_a_job_that_exits_while_it_is_signalled_is_ended_by_its_policy() {
    if !alone!() {
        return;
    }
    let Some(mut world) = World::new() else { return };
    for policy in [EndPolicy::KillRest, EndPolicy::WaitAll, EndPolicy::LeaveRest] {
        let (job, cgroup) = spawn_many(&mut world, |command| {
            command.end_policy(policy);
        });
        world.reactor.signal(job, Signal::USR1).unwrap();
        world.reactor.signal_main(job, Signal::KILL).unwrap();
        // What is left running has got the signal as well.
        let report = world.finish(job);
        assert!(report.problems.is_empty(), "{report:?}");
        if policy == EndPolicy::LeaveRest {
            assert!(!report.killed, "{report:?}");
            // They are dying, if they are not dead.
            let begun = Instant::now();
            while cgroup.exists() && !members(&cgroup).is_empty() {
                assert!(begun.elapsed() < Duration::from_secs(30), "some have not got the signal");
                std::thread::yield_now();
            }
        } else {
            assert!(!cgroup.exists(), "{policy:?}");
        }
        world.reactor.remove(job).unwrap();
        if cgroup.exists() {
            fs::remove_dir(&cgroup).unwrap();
        }
    }
}

#[test]
fn budget_a_signal_reaches_all_of_a_detached_job_although_the_reactor_is_dropped() {
    if !alone!() {
        return;
    }
    let Some(mut world) = World::new() else { return };
    let (job, cgroup) = spawn_many(&mut world, |command| {
        command.detached(true);
    });
    world.reactor.signal(job, Signal::USR1).unwrap();
    let World { reactor, place, .. } = world;
    drop(reactor);
    let begun = Instant::now();
    while members(&cgroup).len() > 1 {
        assert!(begun.elapsed() < Duration::from_secs(30), "{} are left", members(&cgroup).len());
        std::thread::yield_now();
    }
    end_group(&cgroup);
    drop(place);
}

#[test]
fn budget_a_process_that_may_not_be_signalled_in_a_later_turn_is_reported() {
    if !alone!() {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        skip("only root can change its user");
        return;
    }
    let Some(mut world) = World::new() else { return };
    let (job, cgroup) = spawn_many(&mut world, |command| {
        command.uid(65_533).gid(65_533);
    });
    let mut other = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    fs::write(cgroup.join("cgroup.procs"), other.id().to_string()).unwrap();
    let place = members(&cgroup).iter().position(|pid| *pid == other.id()).unwrap();
    if place < 200 {
        skip("this kernel lists a process that has moved first");
    }
    become_user(65_533);
    let signalled = world.reactor.signal(job, Signal::USR1);
    turns_until_left(&mut world, &cgroup, 2);
    become_user(0);
    assert!(other.try_wait().unwrap().is_none());
    world.reactor.kill(job).unwrap();
    let report = world.finish(job);
    let problems: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    if place >= 200 {
        signalled.unwrap();
        assert!(problems.len() == 1 && problems[0].contains("not permitted"), "{problems:?}");
    }
    other.wait().unwrap();
    world.reactor.remove(job).unwrap();
}
