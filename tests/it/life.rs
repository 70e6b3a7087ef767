//! The life of a job: its events come once and in order, whatever ends it ends all its processes,
//! and nothing outlives it.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jobworker::{
    Command, EndPolicy, Error, Event, Exit, JobError, JobId, Limits, Output, Phase, Position,
    Reactor, Signal, SpawnError, Stdin, StopCause, TailError, TailOptions, Token,
};
use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use crate::status::block;
use crate::support::{
    PATIENCE, Place, World, alone, await_exit, directories, end_group, has_exited, is_dead,
    members, pidfd, sh,
};

/// A grace period that no test waits for: a job that has ended was not killed at the end of it.
const LONG: Duration = Duration::from_secs(3600);

/// A process that runs until it is ended.
fn sleeper() -> Command {
    let mut command = Command::new("/bin/sleep");
    command.arg("1000").grace(LONG);
    command
}

fn by(signal: Signal) -> Exit {
    Exit::Signal { signal, core_dumped: false }
}

/// Spawns a command, waits until it has printed the line `ready`, and returns what else it has
/// printed.
#[track_caller]
fn spawn_until_ready(world: &mut World, command: &Command) -> (JobId, String) {
    let job = world.spawn(command);
    let tail = world.tail(job, Position::Start);
    world.until("the job is ready", |world| world.text(tail).contains("ready\n"));
    let text = world.text(tail);
    world.reactor.close(tail).unwrap();
    (job, text.replace("ready\n", ""))
}

fn pid(world: &World, job: JobId) -> u32 {
    world.reactor.status(job).unwrap().pid
}

fn cgroup(world: &World, job: JobId) -> PathBuf {
    world.place.group(job)
}

/// Waits, without the reactor, until the main process has exited.
fn await_main(world: &World, job: JobId) {
    assert!(await_exit(&pidfd(pid(world, job)), PATIENCE));
}

#[test]
fn an_exit_is_told_at_once_and_finished_of_a_one_process_job_comes_in_the_next_turn() {
    let Some(mut world) = World::new() else { return };
    for script in ["exit 0", "exec sleep 0.01", "echo text", "kill -9 $$"] {
        for tails in 0..10 {
            let job = world.spawn(&sh(script));
            for _ in 0..tails {
                world.tail(job, Position::Start);
            }
            world.until("the main process is gone", |world| world.exited.contains_key(&job));
            // Nobody has waited for the group to be removed.
            assert!(!world.finished.contains_key(&job), "{script:?}");
            assert!(cgroup(&world, job).exists());
            assert_eq!(world.reactor.status(job).unwrap().phase, Phase::Exited);
            world.turn(Some(Duration::ZERO));
            assert!(world.finished.contains_key(&job), "{script:?} was not finished next");
            assert!(!cgroup(&world, job).exists());
        }
    }
}

/// Ignores SIGTERM, as do its descendants: one in the background, one in a session of its own, one
/// that is in a session of its own and an orphan, and one that is only an orphan. Prints the pids
/// of all five.
const STUBBORN: &str = "trap '' TERM; echo $$; sleep 1000 & echo $!; setsid sleep 1000 & echo $!; \
     setsid sh -c 'sleep 1000 & echo $!'; (sleep 1000 & echo $!); echo ready; wait; wait";

/// Spawns a stubborn job, and returns it with pidfds of its processes.
#[track_caller]
fn stubborn(world: &mut World, command: &Command) -> (JobId, Vec<OwnedFd>) {
    let (job, pids) = spawn_until_ready(world, command);
    let pidfds: Vec<OwnedFd> = pids.lines().map(|pid| pidfd(pid.parse().unwrap())).collect();
    assert_eq!(pidfds.len(), 5);
    (job, pidfds)
}

#[test]
fn a_job_that_forks_setsids_and_ignores_the_stop_signal_is_gone_after_the_grace_period() {
    let Some(mut world) = World::new() else { return };
    let grace = Duration::from_millis(200);
    for policy in [EndPolicy::KillRest, EndPolicy::WaitAll, EndPolicy::LeaveRest] {
        let (job, processes) = stubborn(&mut world, sh(STUBBORN).grace(grace).end_policy(policy));
        let asked = Instant::now();
        world.reactor.stop(job).unwrap();
        let report = world.finish(job);
        assert!(asked.elapsed() >= grace, "the grace period was cut short");
        assert!(processes.iter().all(is_dead), "a process is still running after Finished");
        assert!(!cgroup(&world, job).exists());
        assert_eq!(
            (report.exit, report.stopped_by, report.killed),
            (by(Signal::KILL), Some(StopCause::Stop), true)
        );
        assert!(report.problems.is_empty() && report.cgroup_left.is_none(), "{report:?}");
    }
}

#[test]
fn a_kill_ends_a_stubborn_job_at_once_also_while_it_is_being_stopped() {
    let Some(mut world) = World::new() else { return };
    for stop_first in [false, true] {
        let (job, processes) = stubborn(&mut world, sh(STUBBORN).grace(LONG));
        if stop_first {
            world.reactor.stop(job).unwrap();
        }
        world.reactor.kill(job).unwrap();
        world.reactor.kill(job).unwrap();
        let report = world.finish(job);
        assert!(processes.iter().all(is_dead) && !cgroup(&world, job).exists());
        let cause = if stop_first { StopCause::Stop } else { StopCause::Kill };
        assert_eq!(
            (report.exit, report.stopped_by, report.killed),
            (by(Signal::KILL), Some(cause), true)
        );
    }
}

#[test]
fn a_grace_period_of_zero_kills_at_once_and_a_second_stop_can_only_shorten_it() {
    let Some(mut world) = World::new() else { return };
    let (job, processes) = stubborn(&mut world, &sh(STUBBORN));
    world.reactor.stop_within(job, Duration::ZERO).unwrap();
    assert_eq!(world.finish(job).exit, by(Signal::KILL));
    assert!(processes.iter().all(is_dead));

    let (job, processes) = stubborn(&mut world, sh(STUBBORN).grace(LONG));
    world.reactor.stop(job).unwrap();
    world.turn(Some(Duration::ZERO));
    assert_eq!(world.reactor.status(job).unwrap().phase, Phase::Stopping);
    assert!(!processes.iter().any(has_exited), "the stop signal is ignored");
    world.reactor.stop_within(job, Duration::from_millis(20)).unwrap();
    world.reactor.stop_within(job, LONG).unwrap();
    let report = world.finish(job);
    assert_eq!((report.exit, report.killed), (by(Signal::KILL), true));
    assert!(processes.iter().all(is_dead));
}

#[test]
fn a_stop_signals_every_process_of_the_job_and_is_over_as_soon_as_they_are() {
    let Some(mut world) = World::new() else { return };
    let script = STUBBORN.replace("trap '' TERM;", "");
    for policy in [EndPolicy::KillRest, EndPolicy::WaitAll, EndPolicy::LeaveRest] {
        // With an hour of grace, only the signal itself can end them in the time of a test.
        let (job, processes) = stubborn(&mut world, sh(&script).grace(LONG).end_policy(policy));
        world.reactor.stop(job).unwrap();
        let report = world.finish(job);
        assert!(processes.iter().all(is_dead) && !cgroup(&world, job).exists());
        assert_eq!((report.exit, report.stopped_by), (by(Signal::TERM), Some(StopCause::Stop)));
        assert!(
            !report.killed || policy == EndPolicy::KillRest,
            "{policy:?} has killed processes that would have exited"
        );
    }
}

#[test]
fn a_stop_of_a_job_that_waits_for_all_gives_the_ones_left_behind_their_grace_period() {
    let Some(mut world) = World::new() else { return };
    let script =
        "(trap 'echo last words; exit' TERM; echo ready; while :; do sleep 0.01; done) & exit 3";
    let job = world.spawn(sh(script).grace(LONG).end_policy(EndPolicy::WaitAll));
    let tail = world.tail(job, Position::Start);
    world.until("the main process is gone", |world| {
        world.exited.contains_key(&job) && world.text(tail).contains("ready")
    });
    let status = world.reactor.status(job).unwrap();
    assert_eq!((status.phase, status.exit), (Phase::Exited, Some(Exit::Code(3))));
    world.reactor.stop(job).unwrap();
    let report = world.finish(job);
    assert_eq!(
        (report.exit, report.stopped_by, report.killed),
        (Exit::Code(3), Some(StopCause::Stop), false)
    );
    // The shell may print a message about the sleep, which the signal has ended as well.
    let text = world.text(tail);
    assert!(text.starts_with("ready\n") && text.ends_with("last words\n"), "{text}");
}

#[test]
fn stopping_twice_during_exit_and_after_the_end_is_harmless() {
    let Some(mut world) = World::new() else { return };
    // Twice.
    let job = world.spawn(&sleeper());
    world.reactor.stop(job).unwrap();
    world.reactor.stop(job).unwrap();
    world.turn(Some(Duration::ZERO));
    world.reactor.stop(job).unwrap();
    let report = world.finish(job);
    assert_eq!((report.exit, report.stopped_by), (by(Signal::TERM), Some(StopCause::Stop)));
    // During exit: the process is a zombie that the reactor has not seen yet.
    for kill in [false, true] {
        let job = world.spawn(sh("exit 4").grace(LONG));
        await_main(&world, job);
        if kill { world.reactor.kill(job) } else { world.reactor.stop(job) }.unwrap();
        assert_eq!(world.finish(job).exit, Exit::Code(4), "the exit that came first counts");
    }
    // After the end.
    let job = world.spawn(&sh("exit 5"));
    world.finish(job);
    world.reactor.stop(job).unwrap();
    world.reactor.stop_within(job, Duration::ZERO).unwrap();
    world.reactor.kill(job).unwrap();
    world.reactor.signal(job, Signal::KILL).unwrap();
    world.turn(Some(Duration::ZERO));
    let report = world.reactor.status(job).unwrap().report.unwrap();
    assert_eq!((report.exit, report.stopped_by, report.killed), (Exit::Code(5), None, false));
}

#[test]
fn a_job_that_nobody_stopped_says_so_and_a_kill_of_what_it_left_behind_is_reported() {
    let Some(mut world) = World::new() else { return };
    let job = world.spawn(&sh("sleep 1000 & exit 0"));
    let report = world.finish(job);
    assert_eq!((report.exit, report.stopped_by, report.killed), (Exit::Code(0), None, true));
    let job = world.spawn(&sh("exit 0"));
    let report = world.finish(job);
    assert_eq!((report.exit, report.stopped_by, report.killed), (Exit::Code(0), None, false));
}

#[test]
fn a_signal_goes_to_every_process_or_to_the_main_one_alone() {
    let Some(mut world) = World::new() else { return };
    let child = "trap 'echo child' USR1; echo up; while :; do sleep 0.01; done";
    let script = format!("trap 'echo main' USR1; sh -c \"{child}\" & while :; do sleep 0.01; done");
    let job = world.spawn(&sh(&script));
    let tail = world.tail(job, Position::Start);
    // The main process has set its trap before it started the child.
    world.until("the child is up", |world| world.text(tail) == "up\n");
    world.reactor.signal_main(job, Signal::USR1).unwrap();
    world.until("the main process was signalled", |world| world.text(tail).contains("main\n"));
    world.reactor.signal(job, Signal::USR1).unwrap();
    // The signal also ends the sleep of each shell, which does not trap it, and the loops go on.
    world.until("both were signalled", |world| {
        let text = world.text(tail);
        text.matches("main\n").count() == 2 && text.matches("child\n").count() == 1
    });
    world.reactor.kill(job).unwrap();
    world.finish(job);
    let text = world.text(tail);
    assert_eq!((text.matches("main\n").count(), text.matches("child\n").count()), (2, 1), "{text}");
}

#[test]
fn the_main_process_of_a_job_cannot_be_signalled_once_it_is_gone() {
    let Some(mut world) = World::new() else { return };
    let job = world.spawn(sh("sleep 1000 & exit 0").end_policy(EndPolicy::WaitAll));
    world.until("the main process is gone", |world| world.exited.contains_key(&job));
    assert!(
        matches!(world.reactor.signal_main(job, Signal::TERM), Err(Error::Job(JobError::Exited(id)))
            if id == job)
    );
    world.reactor.signal(job, Signal::TERM).unwrap();
    let report = world.finish(job);
    assert_eq!((report.exit, report.stopped_by, report.killed), (Exit::Code(0), None, false));
    assert!(
        matches!(world.reactor.signal_main(job, Signal::TERM), Err(Error::Job(JobError::Exited(id)))
            if id == job)
    );
}

#[test]
fn a_stopped_job_can_be_stopped_for_good() {
    let Some(mut world) = World::new() else { return };
    let (job, _) = spawn_until_ready(&mut world, sh("echo ready; exec sleep 1000").grace(LONG));
    world.reactor.signal(job, Signal::STOP).unwrap();
    // The kernel reports to the parent, which is this process, that the job has stopped.
    let main = pidfd(pid(&world, job));
    let options = WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT;
    assert!(waitid(WaitId::PidFd(main.as_fd()), options).unwrap().unwrap().stopped());
    world.turn(Some(Duration::ZERO));
    assert!(world.exited.is_empty(), "stopped is not exited");
    world.reactor.stop(job).unwrap();
    assert_eq!(world.finish(job).exit, by(Signal::TERM));
}

/// As a shell that has run a program, and dies of the signal.
#[test]
fn what_a_main_process_leaves_behind_in_a_stop_has_the_grace_period() {
    let Some(mut world) = World::new() else { return };
    for policy in [EndPolicy::KillRest, EndPolicy::WaitAll, EndPolicy::LeaveRest] {
        let script = "(trap 'read _; echo cleaned up; exit' TERM; echo ready; read _) <&3 & wait";
        let mut command = sh(&format!("exec 3<&0; {script}"));
        let job = world.spawn(command.grace(LONG).end_policy(policy).stdin(Stdin::Piped));
        let stdin = world.reactor.take_stdin(job).unwrap();
        let tail = world.tail(job, Position::Start);
        world.until("the job is ready", |world| world.text(tail) == "ready\n");
        world.reactor.stop(job).unwrap();
        world.until("the shell is gone", |world| world.exited.contains_key(&job));
        assert_eq!(world.reactor.status(job).unwrap().phase, Phase::Exited);
        drop(stdin);
        let report = world.finish(job);
        assert_eq!((report.exit, report.killed), (by(Signal::TERM), false), "{policy:?}");
        assert_eq!(world.text(tail), "ready\ncleaned up\n");
    }
}

#[test]
fn what_is_forked_after_the_stop_signal_has_it_once_the_main_process_is_gone() {
    let Some(mut world) = World::new() else { return };
    // A shell that has not become the program yet takes a signal for itself.
    let fork = "sleep 1000 & until grep -q sleep /proc/$!/comm; do :; done";
    let script = format!("trap 'read _; {fork}; exit 3' TERM; echo ready; read _");
    let job = world.spawn(sh(&script).grace(LONG).stdin(Stdin::Piped));
    let stdin = world.reactor.take_stdin(job).unwrap();
    let tail = world.tail(job, Position::Start);
    world.until("the job is ready", |world| world.text(tail) == "ready\n");
    world.reactor.stop(job).unwrap();
    drop(stdin);
    let report = world.finish(job);
    assert_eq!((report.exit, report.killed), (Exit::Code(3), false));
}

#[test]
fn a_job_may_use_its_stop_signal_for_last_words_and_an_exit_code_and_they_are_delivered() {
    let Some(mut world) = World::new() else { return };
    for signal in [Signal::TERM, Signal::INT, Signal::USR2] {
        let script = format!("trap 'printf bye; exit 9' {}; echo ready; read _", signal.as_raw());
        let mut command = sh(&script);
        let job = world.spawn(command.stop_signal(signal).grace(LONG).stdin(Stdin::Piped));
        let stdin = world.reactor.take_stdin(job).unwrap();
        let tail = world.tail(job, Position::Start);
        world.until("the job is ready", |world| world.text(tail) == "ready\n");
        world.reactor.stop(job).unwrap();
        // A shell that has the signal just before it reads would read on.
        drop(stdin);
        let report = world.finish(job);
        assert_eq!((report.exit, report.stopped_by), (Exit::Code(9), Some(StopCause::Stop)));
        assert_eq!(world.text(tail), "ready\nbye");
        assert!(world.transcripts[&tail].ended);
    }
}

#[test]
fn a_time_limit_stops_a_job_and_is_named_in_the_report() {
    let Some(mut world) = World::new() else { return };
    let limit = Duration::from_millis(50);
    let job = world.spawn(sleeper().time_limit(limit));
    let report = world.finish(job);
    assert_eq!(report.stopped_by, Some(StopCause::TimeLimit));
    assert_eq!((report.exit, report.killed), (by(Signal::TERM), false));
    assert!(report.wall >= limit, "{:?}", report.wall);
    // One that ignores the stop signal. How far it gets until then depends on the machine.
    let job = world.spawn(sh(STUBBORN).time_limit(limit).grace(limit));
    let report = world.finish(job);
    assert_eq!(report.stopped_by, Some(StopCause::TimeLimit));
    assert!(report.problems.is_empty() && !cgroup(&world, job).exists());
    // One whose main process has usually exited by then.
    let job = world.spawn(
        sh("sleep 1000 & exit 1").time_limit(limit).grace(LONG).end_policy(EndPolicy::WaitAll),
    );
    let report = world.finish(job);
    assert_eq!((report.stopped_by, report.killed), (Some(StopCause::TimeLimit), false));
    assert!([Exit::Code(1), by(Signal::TERM)].contains(&report.exit), "{report:?}");
    // A limit that was not reached leaves no trace.
    let job = world.spawn(sh("exit 2").time_limit(LONG));
    let report = world.finish(job);
    assert_eq!((report.exit, report.stopped_by), (Exit::Code(2), None));
}

#[test]
fn the_report_tells_code_signal_time_and_use() {
    let Some(mut world) = World::new() else { return };
    for code in [0, 1, 127, 255] {
        let job = world.spawn(&sh(&format!("exit {code}")));
        let report = world.finish(job);
        assert_eq!(report.exit, Exit::Code(code));
        assert_eq!((report.exit.code(), report.exit.signal()), (Some(code), None));
    }
    for signal in [Signal::TERM, Signal::KILL, Signal::HUP] {
        let job = world.spawn(&sh(&format!("kill -{} $$", signal.as_raw())));
        assert_eq!(world.finish(job).exit, by(signal), "no core is dumped by {signal}");
    }
    // Measurable work: a loop in user mode, and children that were waited for.
    let script =
        "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; /bin/true; /bin/true; echo done";
    let job = world.spawn(&sh(script));
    let report = world.finish(job);
    assert!(report.wall > Duration::ZERO);
    assert!(report.usage.user + report.usage.system > Duration::ZERO, "{:?}", report.usage);
    assert!(
        report.usage.max_rss > 100 * 1024 && report.usage.minor_faults > 0,
        "{:?}",
        report.usage
    );
    assert_eq!((report.output_bytes, report.error_bytes), (5, 0));
    assert!(report.problems.is_empty() && report.cgroup_left.is_none(), "{report:?}");
}

#[test]
fn the_status_follows_the_life_of_a_job() {
    let Some(mut world) = World::new() else { return };
    let mut command = sh("trap 'exit 3' TERM; echo ready; read _");
    let job = world.spawn(command.grace(LONG).stdin(Stdin::Piped));
    let stdin = world.reactor.take_stdin(job).unwrap();
    let tail = world.tail(job, Position::Start);
    let log = world.place.logs().join(format!("{job}.log"));
    let status = world.reactor.status(job).unwrap();
    let running = format!("job {job}: running as pid {} for ", status.pid);
    assert!(status.to_string().starts_with(&running), "{status}");
    assert_eq!((status.id, status.phase, status.exit), (job, Phase::Running, None));
    assert_eq!(status.cgroup, Some(cgroup(&world, job)));
    assert_eq!((status.output, status.error), (Some(log.clone()), None));
    assert!(status.report.is_none());
    assert_eq!(members(&cgroup(&world, job)).first(), Some(&status.pid));
    world.until("the job is ready", |world| world.text(tail) == "ready\n");
    world.reactor.stop(job).unwrap();
    assert_eq!(world.reactor.status(job).unwrap().phase, Phase::Stopping);
    // A shell that has the signal just before it reads would read on.
    drop(stdin);
    world.finish(job);
    let status = world.reactor.status(job).unwrap();
    let text = status.to_string();
    assert!(text.starts_with(&format!("job {job}: finished after ")), "{text}");
    assert!(text.ends_with(": exit code 3"), "{text}");
    assert_eq!(
        (status.phase, status.exit, status.cgroup),
        (Phase::Finished, Some(Exit::Code(3)), None)
    );
    assert_eq!(status.output, Some(log));
    assert_eq!(status.elapsed, status.report.unwrap().wall);

    let job = world.spawn(&sh("kill -9 $$"));
    world.finish(job);
    let text = world.reactor.status(job).unwrap().to_string();
    assert!(text.ends_with(": SIGKILL"), "{text}");
    let text = block(&world.reactor.status(job).unwrap(), None, None, None);
    assert!(text.ends_with("\tRunning\t false\n\tExitCode 137\n\tSignal\t SIGKILL"), "{text}");
}

#[test]
fn the_id_of_a_removed_job_is_stale_and_never_another_jobs() {
    let Some(mut world) = World::new() else { return };
    let old = world.spawn(&sh("exit 0"));
    let tail = world.tail(old, Position::Start);
    world.finish(old);
    world.reactor.remove(old).unwrap();
    // It uses the slot of the old one.
    let new = world.spawn(&sleeper());
    let stale = |result: Result<(), Error>| {
        assert!(matches!(result, Err(Error::Job(JobError::Unknown(id))) if id == old));
    };
    stale(world.reactor.stop(old));
    stale(world.reactor.stop_within(old, Duration::ZERO));
    stale(world.reactor.kill(old));
    stale(world.reactor.signal(old, Signal::KILL));
    stale(world.reactor.signal_main(old, Signal::KILL));
    stale(world.reactor.remove(old));
    stale(world.reactor.status(old).map(drop));
    stale(world.reactor.tail(old, Position::Start, Token(0)).map(drop));
    assert!(matches!(
        world.reactor.read(tail, &mut [0; 1]),
        Err(Error::Tail(TailError::Unknown(_)))
    ));
    assert_eq!(world.reactor.find(old.uuid()), None);
    assert_eq!(world.reactor.find(new.uuid()), Some(new));
    world.turn(Some(Duration::ZERO));
    assert_eq!(
        world.reactor.status(new).unwrap().phase,
        Phase::Running,
        "a stale id has reached the new job"
    );
    // A job of one reactor is unknown to another.
    let Some(mut other) = World::new() else { return };
    stale(other.reactor.kill(old));
    assert!(matches!(other.reactor.kill(new), Err(Error::Job(JobError::Unknown(_)))));
    world.reactor.kill(new).unwrap();
    world.finish(new);
}

#[test]
fn a_running_job_cannot_be_removed_and_a_finished_one_is_readable_until_it_is() {
    let Some(mut world) = World::new() else { return };
    let job = world.spawn(sh("printf text; exec sleep 1000").grace(LONG));
    let following = world.tail(job, Position::Start);
    assert!(
        matches!(world.reactor.remove(job), Err(Error::Job(JobError::NotFinished(id))) if id == job)
    );
    world.until("the text is there", |world| world.text(following) == "text");
    world.reactor.stop(job).unwrap();
    assert!(matches!(world.reactor.remove(job), Err(Error::Job(JobError::NotFinished(_)))));
    world.finish(job);
    // Following or not, a tail on a finished job ends.
    for options in
        [TailOptions::new(Position::Start), *TailOptions::new(Position::Offset(2)).snapshot()]
    {
        let late = world.tail(job, options);
        world.until("the late tail is at its end", |world| world.transcripts[&late].ended);
        assert!("text".ends_with(&world.text(late)) && world.text(late).len() >= 2);
    }
    let (open, unread) = (world.tail(job, Position::Start), world.tail(job, Position::End));
    world.transcripts.remove(&unread);
    let log = world.place.logs().join(format!("{job}.log"));
    assert!(log.exists());
    world.reactor.remove(job).unwrap();
    assert!(!log.exists());
    for tail in [following, open, unread] {
        assert!(
            matches!(
                world.reactor.read(tail, &mut [0; 8]),
                Err(Error::Tail(TailError::Unknown(_)))
            ),
            "a tail has outlived its job"
        );
    }
    let turns = world.transcripts[&open].events;
    world.turn(Some(Duration::ZERO));
    assert_eq!(world.transcripts[&open].events, turns, "an event for a closed tail");
    let census = world.reactor.census();
    assert_eq!((census.jobs, census.tails, census.watches), (0, 0, 0));
}

#[test]
fn a_log_that_is_to_be_kept_outlives_job_and_reactor() {
    let Some(mut world) = World::new() else { return };
    let job = world.spawn(sh("printf kept").keep_log(true));
    world.finish(job);
    let log = world.reactor.status(job).unwrap().output.unwrap();
    world.reactor.remove(job).unwrap();
    assert_eq!(fs::read(&log).unwrap(), b"kept");
    drop(world.reactor);
    assert_eq!(fs::read(&log).unwrap(), b"kept");
}

/// What is left of a job: its main process, its cgroup and its log.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    process: bool,
    cgroup: bool,
    log: bool,
}

fn left(place: &Place, job: JobId, main: &OwnedFd) -> Left {
    Left {
        process: !has_exited(main),
        cgroup: place.group(job).exists(),
        log: place.logs().join(format!("{job}.log")).exists(),
    }
}

/// One job of each kind: stubborn, with a child, waiting for all, finished, being stopped; and one
/// that is detached.
fn one_of_each(world: &mut World) -> (Vec<(JobId, OwnedFd)>, (JobId, OwnedFd)) {
    let mut jobs = Vec::new();
    for script in [STUBBORN, "sleep 1000 & echo ready; wait"] {
        let (job, _) = spawn_until_ready(world, sh(script).grace(LONG));
        jobs.push((job, pidfd(pid(world, job))));
    }
    let waiting =
        sh("sleep 1000 & echo ready; wait").grace(LONG).end_policy(EndPolicy::WaitAll).clone();
    let (job, _) = spawn_until_ready(world, &waiting);
    jobs.push((job, pidfd(pid(world, job))));
    let job = world.spawn(&sh("exit 0"));
    let main = pidfd(pid(world, job));
    world.finish(job);
    jobs.push((job, main));
    let (job, _) = spawn_until_ready(world, sh(STUBBORN).grace(LONG));
    world.reactor.stop(job).unwrap();
    jobs.push((job, pidfd(pid(world, job))));
    let (job, _) = spawn_until_ready(world, sh("echo ready; exec sleep 1000").detached(true));
    let detached = (job, pidfd(pid(world, job)));
    (jobs, detached)
}

/// Checks that nothing is left of the attached jobs and everything of the detached one, and ends
/// that one.
#[track_caller]
fn assert_only_the_detached_one_is_left(
    place: &Place,
    jobs: &[(JobId, OwnedFd)],
    detached: &(JobId, OwnedFd),
) {
    for (job, main) in jobs {
        assert_eq!(left(place, *job, main), Left { process: false, cgroup: false, log: false });
    }
    let (job, main) = detached;
    assert_eq!(left(place, *job, main), Left { process: true, cgroup: true, log: true });
    let groups = directories(place.cgroup.as_deref().unwrap());
    assert_eq!(groups.len(), 1);
    end_group(&groups[0]);
    // Its reactor is gone, so this process, its parent, has to reap it.
    waitid(WaitId::PidFd(main.as_fd()), WaitIdOptions::EXITED).unwrap();
}

#[test]
fn dropping_the_reactor_ends_every_job_that_is_not_detached_and_removes_cgroup_and_log() {
    let Some(mut world) = World::new() else { return };
    let (jobs, detached) = one_of_each(&mut world);
    drop(world.reactor);
    assert_only_the_detached_one_is_left(&world.place, &jobs, &detached);
}

#[test]
fn a_panic_of_the_host_ends_every_job_that_is_not_detached_and_removes_cgroup_and_log() {
    let Some(world) = World::new() else { return };
    let World { reactor, place, .. } = world;
    drop(reactor);
    let mut told = None;
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        // Unwinding removes the place of this world, so it is not the one that the reactor uses.
        let mut world = World::around(Reactor::with_config(&place.config()).unwrap(), Place::new());
        told = Some(one_of_each(&mut world));
        resume_unwind(Box::new("the host panics"));
    }));
    assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&"the host panics"));
    let (jobs, detached) = told.unwrap();
    assert_only_the_detached_one_is_left(&place, &jobs, &detached);
}

/// Sets `g` to the path of the job's own cgroup, in a shell script.
fn own_group(mount: &Path) -> String {
    format!("g={}$(sed -n 's/^0:://p' /proc/self/cgroup)", mount.display())
}

#[test]
fn the_groups_that_a_job_makes_inside_of_its_own_are_emptied_and_removed_with_it() {
    let Some(mut world) = World::new() else { return };
    let mount = crate::support::cgroup_mount().unwrap();
    let script = format!(
        "{}; mkdir -p $g/a/b $g/c; sh -c 'echo $$ >$1/a/b/cgroup.procs; echo $$; \
         exec sleep 1000' - $g & sh -c 'echo $$ >$1/c/cgroup.procs; echo $$; \
         exec setsid sleep 1000' - $g & read line; exit 2",
        own_group(&mount)
    );
    // It ends by itself, or is stopped while its children are in groups below its own.
    for stop in [false, true] {
        let (input, feed) = rustix::pipe::pipe().unwrap();
        let job = world.spawn(sh(&script).stdin_fd(input).grace(LONG));
        let tail = world.tail(job, Position::Start);
        world.until("both children have moved", |world| world.text(tail).lines().count() == 2);
        let group = cgroup(&world, job);
        assert_eq!((members(&group.join("a/b")).len(), members(&group.join("c")).len()), (1, 1));
        let processes: Vec<OwnedFd> =
            world.text(tail).lines().map(|pid| pidfd(pid.parse().unwrap())).collect();
        if stop {
            world.reactor.stop(job).unwrap();
        } else {
            drop(feed);
        }
        let report = world.finish(job);
        assert_eq!(report.exit, if stop { by(Signal::TERM) } else { Exit::Code(2) });
        assert!(report.problems.is_empty() && report.cgroup_left.is_none(), "{report:?}");
        assert!(!group.exists() && processes.iter().all(is_dead));
    }
}

#[test]
fn groups_nested_deeper_than_a_path_can_name_are_emptied_and_removed() {
    let Some(mut world) = World::new() else { return };
    // Exits by itself only once the signal has reached its child. The child reports itself ready,
    // because until it has executed a program it has the shell's trap.
    let script = "trap : TERM; sh -c 'echo $$; echo ready; exec sleep 1000' & \
                  until wait; do :; done; exit 7";
    let mut limits = Limits::new();
    limits.set("cgroup.max.depth", "max").unwrap();
    limits.set("cgroup.max.descendants", "max").unwrap();
    let (job, child) = spawn_until_ready(&mut world, sh(script).grace(LONG).limits(&limits));
    let group = cgroup(&world, job);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut dir = openat(CWD, &group, flags, Mode::empty()).unwrap();
    // A path has at most 4096 bytes.
    for _ in 0..500 {
        mkdirat(&dir, "nested-group", Mode::RWXU).unwrap();
        dir = openat(&dir, "nested-group", flags, Mode::empty()).unwrap();
    }
    let procs = openat(&dir, "cgroup.procs", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
    rustix::io::write(procs.unwrap(), child.trim_end().as_bytes()).unwrap();
    drop(dir);
    world.reactor.stop(job).unwrap();
    let report = world.finish(job);
    assert_eq!(report.exit, Exit::Code(7));
    assert!(report.problems.is_empty() && report.cgroup_left.is_none(), "{report:?}");
    assert!(!group.exists());
}

#[test]
fn a_main_process_that_moves_itself_to_another_cgroup_is_still_ended() {
    let Some(mut world) = World::new() else { return };
    let other = world.place.cgroup.as_deref().unwrap().join("other");
    fs::create_dir(&other).unwrap();
    let script = format!(
        "echo $$ >{}/cgroup.procs; sleep 1000 & echo ready; exec sleep 1000",
        other.display()
    );
    for kill in [true, false] {
        let (job, _) = spawn_until_ready(&mut world, sh(&script).grace(LONG));
        assert_eq!(members(&other).len(), 2);
        if kill { world.reactor.kill(job) } else { world.reactor.stop(job) }.unwrap();
        let report = world.finish(job);
        // The stop signal reaches it, so nothing is left to kill.
        assert!(report.killed == kill && report.problems.is_empty(), "{report:?}");
        assert_eq!(report.exit, by(if kill { Signal::KILL } else { Signal::TERM }));
        assert!(!cgroup(&world, job).exists());
        // A process that a privileged job moves out of its group is out of reach, except for the
        // main process.
        assert_eq!(members(&other).len(), 1);
        end_group(&other);
        fs::create_dir(&other).unwrap();
    }
}

#[test]
fn a_cgroup_that_somebody_removes_or_freezes_does_not_hang_the_end_of_a_job() {
    let Some(mut world) = World::new() else { return };
    // A frozen job is killed all the same.
    let (job, processes) = stubborn(&mut world, sh(STUBBORN).grace(Duration::from_millis(20)));
    fs::write(cgroup(&world, job).join("cgroup.freeze"), "1").unwrap();
    world.reactor.stop(job).unwrap();
    let report = world.finish(job);
    assert!(
        processes.iter().all(is_dead) && report.killed && report.problems.is_empty(),
        "{report:?}"
    );
    // Anybody can remove the group of a job whose exit the reactor has not seen yet.
    let job = world.spawn(&sh("exit 6"));
    await_main(&world, job);
    fs::remove_dir(cgroup(&world, job)).unwrap();
    let report = world.finish(job);
    assert_eq!(report.exit, Exit::Code(6));
    assert!(report.problems.is_empty() && report.cgroup_left.is_none(), "{report:?}");
}

#[test]
fn a_host_that_ignores_the_death_of_children_runs_jobs_like_any_other() {
    if !alone!("env", "--ignore-signal=CHLD") {
        return;
    }
    let Some(mut world) = World::new() else { return };
    // The kernel reaps the children of such a host by itself. Since Linux 6.15 their status is
    // available all the same.
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    let known = (numbers.next(), numbers.next()) >= (Some(6), Some(15));
    let expected = |exit| if known { exit } else { Exit::Unknown };
    for _ in 0..50 {
        let job = world.spawn(&sh("sleep 1000 & printf text; exit 3"));
        let tail = world.tail(job, Position::Start);
        let report = world.finish(job);
        assert_eq!(report.exit, expected(Exit::Code(3)));
        assert!(report.problems.is_empty(), "{report:?}");
        assert_eq!(world.text(tail), "text");
        assert!(!cgroup(&world, job).exists());
    }
    let job = world.spawn(&sleeper());
    world.reactor.stop(job).unwrap();
    assert_eq!(world.finish(job).exit, expected(by(Signal::TERM)));
    assert!(matches!(
        world.try_spawn(&Command::new("/no/such/program")),
        Err(Error::Spawn(SpawnError::Failed { .. }))
    ));
}

#[test]
fn the_environment_descriptors_and_signals_of_the_host_are_not_seen_by_a_job() {
    if !alone!(
        "env",
        "--ignore-signal=USR1,PIPE,HUP",
        "--block-signal=USR2,TERM",
        "HOST_SECRET=secret"
    ) {
        return;
    }
    // The host has what the job must not see.
    assert_eq!(std::env::var("HOST_SECRET").as_deref(), Ok("secret"));
    let of_host = fs::read_to_string("/proc/thread-self/status").unwrap();
    let set = |status: &str, name: &str| {
        let line =
            status.lines().find_map(|line| line.strip_prefix(name)).expect("a set of signals");
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    let bit = |signal: Signal| 1u64 << (signal.as_raw() - 1);
    assert_ne!(set(&of_host, "SigBlk:") & bit(Signal::USR2), 0);
    for signal in [Signal::USR1, Signal::PIPE, Signal::HUP] {
        assert_ne!(set(&of_host, "SigIgn:") & bit(signal), 0);
    }
    let open = fs::File::open("/dev/zero").unwrap();
    rustix::io::fcntl_setfd(&open, rustix::io::FdFlags::empty()).unwrap();

    let Some(mut world) = World::new() else { return };
    let (environment, _) = world.run(Command::new("/bin/cat").arg("/proc/self/environ"));
    assert_eq!(environment, "");
    let (status, _) = world.run(Command::new("/bin/cat").arg("/proc/self/status"));
    for name in ["SigBlk:", "SigIgn:", "SigCgt:", "SigPnd:", "ShdPnd:"] {
        assert_eq!(set(&status, name), 0, "{name} {status}");
    }
    // The fourth is the one with which ls reads the directory.
    let (list, _) = world.run(Command::new("/bin/ls").arg("/proc/self/fd"));
    assert_eq!(list, "0\n1\n2\n3\n");
    // A blocked SIGTERM would not end it.
    let job = world.spawn(&sleeper());
    world.reactor.stop(job).unwrap();
    assert_eq!(world.finish(job).exit, by(Signal::TERM));
}

#[test]
fn events_that_find_no_room_come_with_the_next_poll_and_in_order() {
    let Some(mut world) = World::new() else { return };
    let mut events = jobworker::Events::with_capacity(1);
    let jobs: Vec<JobId> = (0..5).map(|_| world.spawn(sh("echo x").output(Output::Null))).collect();
    for job in &jobs {
        await_main(&world, *job);
    }
    let mut seen = Vec::new();
    for _ in 0..10 {
        world.reactor.poll(&mut events, Some(PATIENCE)).unwrap();
        assert_eq!(events.len(), 1);
        for event in &events {
            match event {
                Event::Exited { job, .. } => seen.push((*job, "exited")),
                Event::Finished { job, .. } => seen.push((*job, "finished")),
                other => panic!("unexpected {other:?}"),
            }
        }
    }
    for job in jobs {
        let of_job: Vec<&str> =
            seen.iter().filter(|(id, _)| *id == job).map(|(_, what)| *what).collect();
        assert_eq!(of_job, ["exited", "finished"]);
    }
    world.reactor.poll(&mut events, Some(Duration::ZERO)).unwrap();
    assert!(events.is_empty());
}

#[test]
fn removing_a_job_before_its_last_events_were_taken_withdraws_them() {
    let Some(mut world) = World::new() else { return };
    let mut events = jobworker::Events::with_capacity(1);
    let job = world.spawn(&sh("exit 0"));
    let tail = world.reactor.tail(job, Position::Start, Token(0)).unwrap();
    world.reactor.poll(&mut events, Some(PATIENCE)).unwrap();
    assert!(matches!(events.iter().next(), Some(Event::Exited { .. })), "{events:?}");
    world.reactor.poll(&mut events, Some(PATIENCE)).unwrap();
    assert!(matches!(events.iter().next(), Some(Event::Readable { .. })), "{events:?}");
    // The host was not told that it is finished, but may know that.
    assert_eq!(world.reactor.status(job).unwrap().phase, Phase::Finished);
    world.reactor.remove(job).unwrap();
    world.reactor.poll(&mut events, Some(Duration::ZERO)).unwrap();
    assert!(events.is_empty(), "{events:?}");
    assert!(matches!(
        world.reactor.read(tail, &mut [0; 1]),
        Err(Error::Tail(TailError::Unknown(_)))
    ));
}

/// The clock used to start when the spawn returned, and so missed the start of the program.
#[test]
fn the_time_of_a_job_runs_from_the_spawn_on() {
    let Some(mut world) = World::new() else { return };
    // The test may be preempted between two readings of the clock, so it tries again; a clock that
    // starts late is late each time.
    let includes_the_start = (0..100).any(|_| {
        let before = Instant::now();
        let job = world.spawn(&sh("exit 0"));
        let took = before.elapsed();
        let elapsed = world.reactor.status(job).unwrap().elapsed;
        world.finish(job);
        elapsed * 10 >= took * 9
    });
    assert!(includes_the_start, "the time of the job does not include the start of the program");
}
