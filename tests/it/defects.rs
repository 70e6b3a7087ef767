//! One test for each defect that was measured in the library that this one replaces.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jobworker::{
    Command, EndPolicy, Error, Exit, JobError, JobId, Phase, Position, Reactor, Read, Report,
    Signal, StopCause, TailError, TailId, Token,
};

use crate::skips::skip;
use crate::support::{
    World, alone, await_exit, directories, has_exited, is_dead, pidfd, resident_bytes, rounds, sh,
};

/// A grace period that no test waits for.
const LONG: Duration = Duration::from_secs(3600);

/// Prints the pids of its four processes, which ignore SIGTERM; three of them are in sessions of
/// their own.
const STUBBORN: &str = "trap '' TERM; echo $$; setsid sleep 1000 & echo $!; \
     setsid sleep 1000 & echo $!; setsid sh -c 'sleep 1000 & echo $!'; echo ready; wait";

/// Spawns a stubborn job, and returns it with pidfds of its processes.
#[track_caller]
fn stubborn(world: &mut World, grace: Duration) -> (JobId, Vec<OwnedFd>) {
    let job = world.spawn(sh(STUBBORN).grace(grace));
    let tail = world.tail(job, Position::Start);
    world.until("the job is ready", |world| world.text(tail).ends_with("ready\n"));
    let text = world.text(tail);
    let pids = text.lines().filter_map(|line| line.parse().ok());
    let processes: Vec<OwnedFd> = pids.map(pidfd).collect();
    assert_eq!(processes.len(), 4);
    (job, processes)
}

fn cgroup(world: &World, job: JobId) -> PathBuf {
    world.place.group(job)
}

fn log(world: &World, job: JobId) -> PathBuf {
    world.place.logs().join(format!("{job}.log"))
}

#[track_caller]
fn assert_whole(world: &World, tails: &[TailId], expected: &str) {
    for tail in tails {
        assert!(world.transcripts[tail].ended);
        let text = world.text(*tail);
        assert!(text == expected, "{} of {} bytes: {text:.200}", text.len(), expected.len());
    }
}

#[test]
fn defect_01_no_tail_loses_anything_at_the_exit_of_its_job() {
    let Some(mut world) = World::new() else { return };
    // A last line, and an exit right after it.
    for _ in 0..rounds(200) {
        let job = world.spawn(&sh("printf 'last line'"));
        let tails = [(); 2].map(|()| world.tail(job, Position::Start));
        world.finish(job);
        assert_whole(&world, &tails, "last line");
        world.reactor.remove(job).unwrap();
    }
    // A hundred tails on a job that prints its lines slowly.
    let job =
        world.spawn(&sh("for i in 1 2 3 4 5 6 7; do echo tick $i; sleep 0.005; done; printf last"));
    let tails: Vec<TailId> = (0..100).map(|_| world.tail(job, Position::Start)).collect();
    world.finish(job);
    let ticks: String = (1..=7).map(|tick| format!("tick {tick}\n")).collect();
    assert_whole(&world, &tails, &(ticks + "last"));
    world.reactor.remove(job).unwrap();
    // Much more than any buffer holds, and an exit right after it.
    let job = world.spawn(&sh("head -c 8000000 /dev/zero | tr '\\0' x; printf end"));
    let tails = [(); 3].map(|()| world.tail(job, Position::Start));
    let report = world.finish(job);
    assert_eq!(report.output_bytes, 8_000_003);
    assert_whole(&world, &tails, &("x".repeat(8_000_000) + "end"));
}

#[test]
fn defect_02_the_end_is_an_end_and_not_an_error() {
    let Some(mut world) = World::new() else { return };
    let job = world.spawn(&sh("echo text"));
    let tails = [(); 10].map(|()| world.tail(job, Position::Start));
    world.finish(job);
    assert_whole(&world, &tails, "text\n");
    for tail in tails {
        for _ in 0..3 {
            assert_eq!(world.reactor.read(tail, &mut [0; 16]).unwrap(), Read::Ended);
            assert_eq!(world.reactor.fill_buf(tail).unwrap(), jobworker::Fill::Ended);
        }
    }
}

#[test]
fn defect_03_a_tail_that_is_opened_during_or_after_the_exit_ends() {
    let Some(mut world) = World::new() else { return };
    for _ in 0..50 {
        let job = world.spawn(&sh("echo text"));
        // The process has exited, which the reactor does not know yet.
        assert!(await_exit(
            &pidfd(world.reactor.status(job).unwrap().pid),
            crate::support::PATIENCE
        ));
        let during = world.tail(job, Position::Start);
        world.finish(job);
        let after = [Position::Start, Position::Offset(0), Position::LastLines(1)]
            .map(|at| world.tail(job, at));
        world.until("all tails are at their end", |world| {
            after.iter().chain([&during]).all(|tail| world.transcripts[tail].ended)
        });
        assert_whole(&world, &after, "text\n");
        assert_whole(&world, &[during], "text\n");
        world.reactor.remove(job).unwrap();
    }
}

#[test]
fn defect_04_no_child_survives_a_stop_be_it_in_another_session_or_deaf_to_sigterm() {
    let Some(mut world) = World::new() else { return };
    for _ in 0..10 {
        let (job, processes) = stubborn(&mut world, Duration::from_millis(10));
        world.reactor.stop(job).unwrap();
        let report = world.finish(job);
        assert!(report.killed && report.problems.is_empty(), "{report:?}");
        assert!(processes.iter().all(is_dead), "a process has survived");
        assert!(!cgroup(&world, job).exists());
    }
}

#[test]
fn defect_05_a_host_that_is_too_impatient_for_the_grace_period_finds_nothing_half_done() {
    let Some(mut world) = World::new() else { return };
    let (job, processes) = stubborn(&mut world, LONG);
    world.reactor.stop(job).unwrap();
    world.turn(Some(Duration::from_millis(10)));
    // As long as it runs, all that belongs to it is there.
    assert_eq!(world.reactor.status(job).unwrap().phase, Phase::Stopping);
    assert!(!processes.iter().any(has_exited));
    assert!(log(&world, job).exists() && cgroup(&world, job).exists());
    assert!(matches!(world.reactor.remove(job), Err(Error::Job(JobError::NotFinished(_)))));
    // Without a grace period, it is ended as a whole.
    world.reactor.stop_within(job, Duration::ZERO).unwrap();
    world.finish(job);
    assert!(processes.iter().all(is_dead) && !cgroup(&world, job).exists());
    assert!(log(&world, job).exists());
    world.reactor.remove(job).unwrap();
    assert!(!log(&world, job).exists());
}

#[test]
fn defect_06_finished_never_comes_before_a_killed_job_is_dead_and_its_cgroup_is_removed() {
    let Some(mut world) = World::new() else { return };
    for _ in 0..25 {
        let (job, processes) = stubborn(&mut world, LONG);
        world.reactor.kill(job).unwrap();
        let report = world.finish(job);
        assert!(processes.iter().all(is_dead), "a process is still running");
        assert!(!cgroup(&world, job).exists(), "its cgroup is left behind");
        assert_eq!((report.exit, report.cgroup_left.as_ref()), (by(Signal::KILL), None));
    }
}

#[test]
fn defect_07_of_many_stops_none_hangs_and_none_waits_for_the_grace_period_of_a_job_that_is_gone() {
    let Some(mut world) = World::new() else { return };
    for _ in 0..20 {
        // With an hour of grace, a stop that waited for its end would time out the test.
        let job = world.spawn(Command::new("/bin/sleep").arg("1000").grace(LONG));
        for _ in 0..5 {
            world.reactor.stop(job).unwrap();
        }
        world.turn(Some(Duration::ZERO));
        world.reactor.stop(job).unwrap();
        let report = world.finish(job);
        world.reactor.stop(job).unwrap();
        assert_eq!((report.exit, report.stopped_by), (by(Signal::TERM), Some(StopCause::Stop)));
        assert!(!report.killed);
    }
}

#[test]
fn defect_08_a_stop_after_the_exit_does_not_hit_a_stranger_that_has_the_number_now() {
    const LAST: &str = "/proc/sys/kernel/ns_last_pid";
    let Some(mut world) = World::new() else { return };
    for attempt in 0..100 {
        let job = world.spawn(Command::new("/bin/true").grace(Duration::ZERO));
        let number = world.reactor.status(job).unwrap().pid;
        world.finish(job);
        // Makes the kernel give the pid that has just become free to the next process, unless
        // another one is started in between.
        if fs::write(LAST, (number - 1).to_string()).is_err() {
            skip(format_args!("{LAST} cannot be written here"));
            return;
        }
        let mut stranger =
            std::process::Command::new("/bin/sleep").arg("1000").process_group(0).spawn().unwrap();
        let same = stranger.id() == number;
        for _ in 0..2 {
            world.reactor.stop(job).unwrap();
            world.reactor.stop_within(job, Duration::ZERO).unwrap();
            world.reactor.kill(job).unwrap();
            world.reactor.signal(job, Signal::KILL).unwrap();
            assert!(matches!(
                world.reactor.signal_main(job, Signal::KILL),
                Err(Error::Job(JobError::Exited(_)))
            ));
            world.turn(Some(Duration::ZERO));
        }
        world.reactor.remove(job).unwrap();
        let alive = stranger.try_wait().unwrap().is_none();
        stranger.kill().unwrap();
        stranger.wait().unwrap();
        assert!(alive, "another process with the pid of a finished job was killed");
        if same {
            return;
        }
        eprintln!("attempt {attempt}: another process got the pid");
    }
    skip("other processes got the pid in every attempt");
}

#[test]
fn defect_09_an_exit_without_a_stop_cleans_up_and_the_output_stays_until_the_job_is_removed() {
    let Some(mut world) = World::new() else { return };
    for _ in 0..50 {
        let job = world.spawn(&sh("echo output"));
        world.finish(job);
        assert!(!cgroup(&world, job).exists());
        // A stop does not remove the output either.
        world.reactor.stop(job).unwrap();
        let tail = world.tail(job, Position::Start);
        world.until("the tail is at its end", |world| world.transcripts[&tail].ended);
        assert_whole(&world, &[tail], "output\n");
        world.reactor.remove(job).unwrap();
        assert!(!log(&world, job).exists());
    }
}

#[test]
fn defect_10_a_start_that_fails_leaves_nothing_behind() {
    if !alone!() {
        return;
    }
    let Some(mut world) = World::new() else { return };
    let script = world.place.dir.path().join("script");
    fs::write(&script, "#!/bin/sh\n").unwrap();
    let limit = jobworker::Limits::new().cpu_weight(0).clone();
    let before = world.footprint();
    for _ in 0..100 {
        assert!(world.try_spawn(&Command::new("/no/such/command")).is_err());
        assert!(world.try_spawn(&Command::new(&script)).is_err(), "the script is not executable");
        assert!(
            world.try_spawn(Command::new("/bin/true").limits(&limit)).is_err(),
            "the limit is out of range"
        );
    }
    assert_eq!(world.footprint(), before);
}

#[test]
fn defect_11_a_closed_tail_is_forgotten_at_once() {
    if !alone!() {
        return;
    }
    let Some(mut world) = World::new() else { return };
    let job = world.spawn(&sh("echo text; exec sleep 1000"));
    let before = world.footprint();
    let open_and_close = |world: &mut World, number: usize| {
        for index in 0..number {
            let tail = world.reactor.tail(job, Position::Start, Token(0)).unwrap();
            assert_eq!(world.reactor.census().tails, 1);
            world.reactor.close(tail).unwrap();
            assert!(matches!(
                world.reactor.read(tail, &mut [0; 1]),
                Err(Error::Tail(TailError::Unknown(_)))
            ));
            // The next poll drops the queued event of a closed tail.
            if index % 10 == 0 {
                world.turn(Some(Duration::ZERO));
            }
        }
    };
    open_and_close(&mut world, rounds(1000));
    // A leak grows each time. The allocator may keep the memory of a window once.
    let grown = (0..3).map(|_| {
        let resident = resident_bytes();
        open_and_close(&mut world, rounds(10_000));
        resident_bytes().saturating_sub(resident)
    });
    let grown = grown.min().unwrap();
    assert!(grown < 128 * 1024, "closed tails have leaked {grown} bytes");
    assert_eq!(world.footprint(), before);
    world.reactor.kill(job).unwrap();
    world.finish(job);
}

/// A script that prints three lines, the second and the third each after it has read a line, and
/// the two ends of a pipe for its input. `how` redirects the second line.
fn step_by_step(how: &str) -> (String, OwnedFd, OwnedFd) {
    let (input, feed) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    (format!("echo A; read go; echo B {how}; read go; echo C"), input, feed)
}

#[test]
fn defect_12_a_job_that_opens_its_own_log_may_do_so_and_what_it_does_to_the_log_is_reported() {
    let Some(mut world) = World::new() else { return };
    // Only root can start a job as another user.
    let users = if rustix::process::geteuid().is_root() { 2 } else { 1 };
    for uid in [None, Some(65534)].into_iter().take(users) {
        let as_user = |command: &mut Command| {
            command.current_dir("/").env("PATH", "/usr/bin:/bin");
            uid.map(|uid| command.uid(uid).gid(uid));
        };
        // The shell opens /dev/stderr with O_TRUNC: the job truncates its own log, which is what
        // the test is about.
        let (script, input, feed) = step_by_step(">/dev/stderr");
        let mut command = sh(&script);
        as_user(command.stdin_fd(input));
        let job = world.spawn(&command);
        let tail = world.tail(job, Position::Start);
        world.until("A is read", |world| world.text(tail) == "A\n");
        rustix::io::write(&feed, b"\n").unwrap();
        world.until("B is read", |world| world.text(tail) == "A\nB\n");
        rustix::io::write(&feed, b"\n").unwrap();
        let report = world.finish(job);
        assert_eq!(report.exit, Exit::Code(0));
        assert_whole(&world, &[tail], "A\nB\nC\n");
        assert_eq!(
            world.transcripts[&tail].truncated_at,
            [2],
            "the truncation was not reported where it happened"
        );
        assert_eq!(report.output_bytes, 4);

        // The same with a tail that was opened after all earlier ones were closed: all that is
        // known of the log then is its size, which is the same again after the truncation. The
        // first version lost B without reporting it.
        let (script, input, feed) = step_by_step(">/dev/stderr");
        let mut command = sh(&script);
        as_user(command.stdin_fd(input));
        let job = world.spawn(&command);
        let first = world.tail(job, Position::Start);
        world.until("A is there", |world| world.text(first) == "A\n");
        world.reactor.close(first).unwrap();
        let tail = world.tail(job, Position::Start);
        world.until("A is read", |world| world.text(tail) == "A\n");
        rustix::io::write(&feed, b"\n").unwrap();
        world.until("B is read", |world| world.text(tail) == "A\nB\n");
        rustix::io::write(&feed, b"\n").unwrap();
        world.finish(job);
        assert_whole(&world, &[tail], "A\nB\nC\n");
        assert_eq!(world.transcripts[&tail].truncated_at, [2]);

        // Without synchronisation: however much of A a tail has read, it gets the final content of
        // the log, and nothing twice.
        for _ in 0..20 {
            let mut command = sh("echo A; echo B >/dev/stderr; echo C");
            as_user(&mut command);
            let job = world.spawn(&command);
            let tail = world.tail(job, Position::Start);
            let report = world.finish(job);
            assert_eq!((report.exit, report.output_bytes), (Exit::Code(0), 4));
            let transcript = &world.transcripts[&tail];
            let seen = transcript.truncated_at.last().copied().unwrap_or(0);
            assert_eq!(transcript.bytes[seen..], *b"B\nC\n");
            assert!(b"A\n".starts_with(&transcript.bytes[..seen]), "{transcript:?}");
            assert_eq!(fs::read(log(&world, job)).unwrap(), b"B\nC\n");
        }

        // Opening the log for appending truncates nothing.
        let mut command = sh("echo A; echo B >>/dev/stderr; echo C");
        as_user(&mut command);
        let job = world.spawn(&command);
        let tail = world.tail(job, Position::Start);
        assert_eq!(world.finish(job).output_bytes, 6);
        assert_whole(&world, &[tail], "A\nB\nC\n");
        assert!(world.transcripts[&tail].truncated_at.is_empty());
    }
}

#[test]
fn defect_12_a_log_is_closed_to_others_and_lies_in_a_directory_that_is_as_well() {
    let Some(mut world) = World::new() else { return };
    let mode = |path: &PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    let secret = world.spawn(sh("umask 0; echo secret").umask(0));
    let tail = world.tail(secret, Position::Start);
    world.finish(secret);
    assert_whole(&world, &[tail], "secret\n");
    let path = world.reactor.status(secret).unwrap().output.unwrap();
    assert_eq!((mode(&path), mode(&path.parent().unwrap().to_owned())), (0o600, 0o700));
    if rustix::process::geteuid().is_root() {
        let (text, report) = world
            .run(sh(&format!("cat {}", path.display())).uid(65534).gid(65534).current_dir("/"));
        assert!(report.exit != Exit::Code(0) && text.contains("Permission denied"), "{text}");
    }

    // The directory that a reactor makes for itself is just as private.
    let mut config = jobworker::Config::new();
    let mut reactor =
        Reactor::with_config(config.cgroup_parent(world.place.cgroup.as_ref().unwrap())).unwrap();
    let job = reactor.spawn(Command::new("/bin/sleep").arg("1000"), Token(0)).unwrap();
    let path = reactor.status(job).unwrap().output.unwrap();
    let dir = path.parent().unwrap().to_owned();
    assert_eq!((mode(&path), mode(&dir)), (0o600, 0o700));
    assert_eq!(fs::metadata(&dir).unwrap().uid(), rustix::process::geteuid().as_raw());
    assert_ne!(dir, std::env::temp_dir());
    drop(reactor);
    assert!(!dir.exists());
}

#[test]
fn defect_13_every_line_of_a_daemonised_child_is_delivered() {
    let Some(mut world) = World::new() else { return };
    let daemon = "i=1; while [ $i -le 57 ]; do echo line $i; i=$((i+1)); done";
    let script = format!("(setsid sh -c 'sleep 0.01; {daemon}' &)");
    let whole: String = (1..=57).map(|number| format!("line {number}\n")).collect();
    for _ in 0..10 {
        let job = world.spawn(sh(&script).end_policy(EndPolicy::WaitAll));
        let tails = [(); 3].map(|()| world.tail(job, Position::Start));
        let report = world.finish(job);
        assert!(!report.killed);
        assert_whole(&world, &tails, &whole);
        world.reactor.remove(job).unwrap();
    }
}

#[test]
fn defect_14_no_descriptor_of_the_host_or_of_other_jobs_leaks_into_a_job() {
    if !alone!() {
        return;
    }
    let Some(mut world) = World::new() else { return };
    // Descriptors of both kinds, with FD_CLOEXEC and without.
    let open: Vec<fs::File> = (0..200).map(|_| fs::File::open("/dev/null").unwrap()).collect();
    for file in open.iter().step_by(2) {
        rustix::io::fcntl_setfd(file, rustix::io::FdFlags::empty()).unwrap();
    }
    let jobs: Vec<(JobId, TailId)> = (0..100)
        .map(|_| {
            let job = world.spawn(Command::new("/bin/ls").arg("/proc/self/fd"));
            (job, world.tail(job, Position::Start))
        })
        .collect();
    for (job, tail) in jobs {
        world.finish(job);
        // The fourth is the one with which ls reads the directory.
        assert_whole(&world, &[tail], "0\n1\n2\n3\n");
    }
}

#[test]
fn defect_15_a_status_waits_for_nobody_and_asks_nobody() {
    let Some(mut world) = World::new() else { return };
    let job = world.spawn(&sh("seq 20000; exec sleep 1000"));
    let tails: Vec<TailId> = (0..100).map(|_| world.tail(job, Position::Start)).collect();
    // While a hundred tails are behind and being read.
    let mut buffer = [0; 1000];
    for tail in &tails {
        while let Read::Data(_) = world.reactor.read(*tail, &mut buffer).unwrap() {
            let status = world.reactor.status(job).unwrap();
            assert_eq!((status.phase, status.exit), (Phase::Running, None));
        }
    }
    // The status comes from memory: the system would give other answers by now.
    let status = world.reactor.status(job).unwrap();
    world.reactor.kill(job).unwrap();
    assert!(await_exit(&pidfd(status.pid), crate::support::PATIENCE));
    fs::remove_file(status.output.as_ref().unwrap()).unwrap();
    let after = world.reactor.status(job).unwrap();
    assert_eq!((after.phase, after.exit), (Phase::Stopping, None));
    assert_eq!((after.pid, after.cgroup, after.output), (status.pid, status.cgroup, status.output));
    for tail in tails {
        world.transcripts.remove(&tail);
    }
    world.until("the job is finished", |world| world.finished.contains_key(&job));
    assert_eq!(world.reactor.status(job).unwrap().exit, Some(by(Signal::KILL)));
}

fn by(signal: Signal) -> Exit {
    Exit::Signal { signal, core_dumped: false }
}

#[test]
fn defect_16_deaths_by_different_signals_are_told_apart_and_differ_from_every_code() {
    let Some(mut world) = World::new() else { return };
    let end = |world: &mut World, script: &str| -> Arc<Report> {
        let job = world.spawn(&sh(&format!("ulimit -c 0; {script}")));
        world.finish(job)
    };
    for signal in [Signal::KILL, Signal::TERM, Signal::SEGV] {
        let report = end(&mut world, &format!("kill -{} $$", signal.as_raw()));
        assert_eq!(report.exit, by(signal));
        assert_eq!((report.exit.code(), report.exit.shell_code()), (None, 128 + signal.as_raw()));
        let code = end(&mut world, &format!("exit {}", 128 + signal.as_raw()));
        assert_eq!((code.exit.code(), code.exit.signal()), (Some(128 + signal.as_raw()), None));
    }
}

#[test]
fn defect_16_a_line_of_any_length_is_read_like_any_other() {
    let Some(mut world) = World::new() else { return };
    let length = 300 * 1024;
    let job = world.spawn(&sh(&format!(
        "echo short; head -c {length} /dev/zero | tr '\\0' x; echo; echo after"
    )));
    let tail = world.tail(job, Position::Start);
    world.finish(job);
    let last = world.tail(job, Position::LastLines(2));
    world.until("the last lines are read", |world| world.transcripts[&last].ended);
    let long = "x".repeat(length);
    assert_whole(&world, &[tail], &format!("short\n{long}\nafter\n"));
    assert_whole(&world, &[last], &format!("{long}\nafter\n"));
    assert_eq!(directories(world.place.cgroup.as_deref().unwrap()).len(), 0);
}
