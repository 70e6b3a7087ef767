//! A job whose output is a terminal behaves as in one, and its log has every byte once: at the end
//! of short jobs, beside noisy ones, and when the log cannot be written.

use std::fs;
use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use jobworker::worker::Job;
use jobworker::{
    BoundedSpawns, Command, EndPolicy, Error, ErrorKind, Event, Exit, JobError, JobId, Output,
    Position, ProcessGroup, Reactor, Signal, SpawnError, Stdin, TailId, Terminal, Worker,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode, mknodat, statvfs};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::skips::skip;
use crate::support::{
    PATIENCE, Place, World, alone, await_exit, end_group, launcher, pidfd, rounds, sh,
};

/// A shell script on a terminal of 24 lines with 80 characters that changes nothing.
fn raw(script: &str) -> Command {
    let mut command = sh(script);
    command.output(Output::Terminal(Terminal::new(24, 80).raw_output()));
    command
}

/// The same, with the settings that a terminal has by default, from which it reads as well.
fn interactive(script: &str) -> Command {
    let mut command = sh(script);
    command.output(Output::Terminal(Terminal::new(24, 80))).stdin(Stdin::Terminal);
    command
}

fn world_through_launcher() -> Option<World> {
    World::with(|config| _ = config.bounded_spawns(BoundedSpawns::All).launcher(launcher()))
}

#[track_caller]
fn until_text(world: &mut World, tail: TailId, what: &str) {
    world.until(&format!("{what:?} is printed"), |world| world.text(tail).contains(what));
}

#[test]
fn a_job_finds_a_terminal_of_the_size_that_was_asked_for() {
    let copied = || World::with(|config| _ = config.bounded_spawns(BoundedSpawns::All));
    for world in [World::new, copied, world_through_launcher] {
        let Some(mut world) = world() else { return };
        let script = "for fd in 0 1 2; do [ -t $fd ] && echo terminal $fd; done
            stty size </dev/tty; [ \"$(cut -d ' ' -f 6 /proc/$$/stat)\" = $$ ] && echo leader";
        let (text, report) = world.run(&raw(script));
        assert_eq!(text, "terminal 1\nterminal 2\n24 80\nleader\n");
        assert_eq!(report.output_bytes, text.len() as u64);
        assert!(report.exit.success() && report.problems.is_empty(), "{report:?}");
        let mut command = raw(script);
        command.stdin(Stdin::Terminal);
        assert!(world.run(&command).0.starts_with("terminal 0\nterminal 1\n"));
        // Standard input is what it says.
        let mut command = raw("cat; tty; tty <&2 | sed s/[0-9]*$//");
        assert_eq!(world.run(command.stdin_bytes("input\n")).0, "input\nnot a tty\n/dev/pts/\n");
    }
}

#[test]
fn a_line_feed_becomes_two_characters_unless_the_output_is_raw() {
    let Some(mut world) = World::new() else { return };
    let mut command = sh("printf 'a\\tb\\nc\\n' >&2; stty -onlcr <&2; echo d");
    command.output(Output::Terminal(Terminal::new(0, 0)));
    assert_eq!(world.run(&command).0, "a\tb\r\nc\r\nd\n");
    assert_eq!(world.run(&raw("printf 'a\\tb\\nc\\n'")).0, "a\tb\nc\n");
}

#[test]
fn what_makes_no_sense_is_refused_and_a_job_without_a_terminal_has_none() {
    let Some(mut world) = World::new() else { return };
    let before = world.footprint();
    let mut refused = vec![raw("true"), raw("true"), raw("true"), sh("true")];
    refused[0].process_group(ProcessGroup::Own);
    refused[1].process_group(ProcessGroup::Host);
    refused[2].detached(true);
    refused[3].stdin(Stdin::Terminal);
    for command in refused {
        let error = world.try_spawn(&command).unwrap_err();
        assert!(matches!(error, Error::Spawn(SpawnError::InvalidCommand { .. })), "{error:?}");
        assert!(error.to_string().contains("terminal"), "{error}");
    }
    assert_eq!(world.footprint().census, before.census);
    let job = world.spawn(&sh("exec sleep 1000"));
    for error in [
        world.reactor.resize(job, 1, 1).unwrap_err(),
        world.reactor.terminal_input(job).map(drop).unwrap_err(),
    ] {
        assert!(matches!(error, Error::Job(JobError::NoTerminal(other)) if other == job));
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
    let job = world.spawn(&raw("true"));
    world.finish(job);
    let error = world.reactor.resize(job, 1, 1).unwrap_err();
    assert!(matches!(error, Error::Job(JobError::Finished(_))), "{error:?}");
    world.reactor.remove(job).unwrap();
    assert_eq!(world.reactor.resize(job, 1, 1).unwrap_err().kind(), ErrorKind::StaleId);
}

#[test]
fn a_new_size_is_seen_by_the_job() {
    let Some(mut world) = World::new() else { return };
    let script = "trap 'stty size </dev/tty; exit 3' WINCH; sleep 1000 & echo ready; wait";
    let job = world.spawn(&raw(script));
    let tail = world.tail(job, Position::Start);
    until_text(&mut world, tail, "ready\n");
    let mut rows = 50;
    while !world.finished.contains_key(&job) {
        // A shell that is about to wait can miss a signal.
        rows += 1;
        match world.reactor.resize(job, rows, 132) {
            Err(Error::Job(JobError::Finished(_))) => {}
            resized => resized.unwrap(),
        }
        world.turn_for(Duration::from_millis(20));
        assert!(rows < 5000, "the signal does not arrive");
    }
    let text = world.text(tail);
    // The next signal may arrive before the shell exits.
    let sizes = text.strip_prefix("ready\n").unwrap().lines();
    let seen: Vec<u16> =
        sizes.map(|size| size.strip_suffix(" 132").unwrap().parse().unwrap()).collect();
    assert!(!seen.is_empty() && seen.iter().all(|seen| (51..=rows).contains(seen)), "{text}");
    assert_eq!(world.finish(job).exit, Exit::Code(3));
}

#[test]
fn what_is_typed_is_echoed_read_and_acted_on() {
    let Some(mut world) = World::new() else { return };
    let job = world.spawn(&interactive("echo name; read name; echo hello $name; exec cat"));
    let tail = world.tail(job, Position::Start);
    until_text(&mut world, tail, "name\r\n");
    let input = world.reactor.terminal_input(job).unwrap();
    assert_eq!(input.try_write(b"world\n").unwrap(), 6);
    until_text(&mut world, tail, "world\r\nhello world\r\n");
    // Another one types as well, and the first is not missed.
    drop(input);
    let mut input = world.reactor.terminal_input(job).unwrap();
    input.write_all(b"line\n").unwrap();
    until_text(&mut world, tail, "line\r\nline\r\n");
    input.write_all(b"\x04").unwrap();
    let report = world.finish(job);
    assert_eq!(report.exit, Exit::Code(0));
    assert_eq!(input.try_write(b"x").unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
    assert_eq!(world.text(tail), "name\r\nworld\r\nhello world\r\nline\r\nline\r\n");
}

#[test]
fn ctrl_c_interrupts_the_foreground_process_group() {
    let Some(mut world) = World::new() else { return };
    let job = world.spawn(&interactive("echo ready; sleep 1000 | sleep 1001"));
    let tail = world.tail(job, Position::Start);
    // All of it: the interrupt discards what is still to be printed.
    until_text(&mut world, tail, "ready\r\n");
    world.reactor.terminal_input(job).unwrap().try_write(b"\x03").unwrap();
    let report = world.finish(job);
    assert_eq!(report.exit.signal(), Some(Signal::INT));
    assert_eq!(world.text(tail), "ready\r\n^C");
}

#[test]
fn a_full_terminal_takes_no_more_and_blocks_nobody_who_has_not_asked_for_it() {
    let Some(mut world) = World::new() else { return };
    let gate = world.place.dir.path().join("gate");
    mknodat(CWD, &gate, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let mut command =
        interactive("stty raw -echo; echo ready; read line <\"$GATE\"; head -c 300000 | wc -c");
    let job = world.spawn(command.env("GATE", &gate));
    let tail = world.tail(job, Position::Start);
    until_text(&mut world, tail, "ready");
    let input = world.reactor.terminal_input(job).unwrap();
    let mut typed = 0;
    let error = loop {
        match input.try_write(&[b'x'; 1000]) {
            Ok(count) => typed += count,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    assert!((4000..200_000).contains(&typed), "{typed}");
    // A thread that may wait does so until the job has read.
    let rest = thread::spawn(move || (&input).write_all(&vec![b'x'; 300_000 - typed]));
    fs::write(&gate, "go\n").unwrap();
    world.finish(job);
    rest.join().unwrap().unwrap();
    assert!(world.text(tail).contains("300000"), "{}", world.text(tail));
}

#[test]
fn ten_megabytes_are_the_same_in_the_log() {
    let Some(mut world) = World::new() else { return };
    let mut random = fastrand::Rng::with_seed(11);
    // Every byte, control characters included.
    let bytes: Vec<u8> = (0..10 << 20).map(|_| random.u8(..)).collect();
    let mut command = raw("exec cat");
    let job = world.spawn(command.stdin_bytes(bytes.clone()));
    let tails = [(); 2].map(|()| world.tail(job, Position::Start));
    let report = world.finish(job);
    assert_eq!(report.output_bytes, bytes.len() as u64);
    for tail in tails {
        assert!(world.transcripts[&tail].bytes == bytes && world.transcripts[&tail].ended);
    }
    let path = world.reactor.status(job).unwrap().output.unwrap();
    assert!(fs::read(path).unwrap() == bytes);
}

#[test]
fn short_jobs_lose_nothing_of_what_they_print_before_they_exit() {
    let Some(mut world) = World::new() else { return };
    // Some fill the terminal, and some are gone before the loop hears of them.
    for round in 0..rounds(500) {
        let lines = [1, 3, 200, 2000][round % 4];
        let mut command = Command::new("/usr/bin/seq");
        command.arg(lines.to_string());
        command.output(Output::Terminal(Terminal::new(24, 80).raw_output()));
        command
            .end_policy([EndPolicy::KillRest, EndPolicy::WaitAll, EndPolicy::LeaveRest][round % 3]);
        let job = world.spawn(&command);
        let exited = round % 2 == 0 && lines < 1000;
        if exited {
            let process = pidfd(world.reactor.status(job).unwrap().pid);
            assert!(await_exit(&process, PATIENCE));
        }
        let tail = world.tail(job, Position::Start);
        let report = world.finish(job);
        let expected: String = (1..=lines).map(|line| format!("{line}\n")).collect();
        assert_eq!(world.text(tail), expected, "round {round}");
        assert_eq!(report.output_bytes, expected.len() as u64);
        assert!(report.problems.is_empty() && report.cgroup_left.is_none(), "{report:?}");
        world.reactor.remove(job).unwrap();
    }
}

#[test]
fn what_is_killed_at_the_end_is_in_the_log_up_to_the_last_byte() {
    let Some(mut world) = World::new() else { return };
    for _ in 0..rounds(20) {
        // What the main process leaves behind prints until it is killed, whenever that is.
        let job = world.spawn(&raw("trap '' HUP; (i=0; while :; do echo $i; i=$((i+1)); done) &"));
        let tail = world.tail(job, Position::Start);
        let report = world.finish(job);
        let text = world.text(tail);
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let numbers = whole.lines().map(|line| line.parse::<u64>().unwrap());
        assert!(numbers.eq(0..whole.lines().count() as u64), "{text}");
        assert_eq!(report.output_bytes, text.len() as u64);
        world.reactor.remove(job).unwrap();
    }
}

#[test]
fn a_job_goes_on_printing_until_its_last_process_is_gone() {
    let Some(mut world) = World::new() else { return };
    let gate = world.place.dir.path().join("gate");
    mknodat(CWD, &gate, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let mut command = raw(
        "trap '' HUP; (exec 3>&1 >/dev/null 2>&1; read line <\"$GATE\"; echo late >&3) & echo main",
    );
    command.env("GATE", &gate).end_policy(EndPolicy::WaitAll);
    let job = world.spawn(&command);
    let tail = world.tail(job, Position::Start);
    world.until("the main process has exited", |world| world.exited.contains_key(&job));
    until_text(&mut world, tail, "main\n");
    assert!(!world.finished.contains_key(&job));
    fs::write(&gate, "go\n").unwrap();
    world.finish(job);
    assert_eq!(world.text(tail), "main\nlate\n");
}

#[test]
fn what_a_job_leaves_running_loses_the_terminal_and_adds_nothing_to_the_log() {
    // A process that another test starts has the host's end as well, until it executes its program.
    if !alone!() {
        return;
    }
    let Some(mut world) = World::new() else { return };
    let dir = world.place.dir.path().to_owned();
    let gates = ["gate", "next"].map(|name| dir.join(name));
    for gate in &gates {
        mknodat(CWD, gate, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    }
    let mut command = raw("trap '' HUP; (read line <gate; echo late || echo failed >mark
            read line <next; exec sleep 1000) & echo main");
    command.current_dir(&dir).end_policy(EndPolicy::LeaveRest);
    let job = world.spawn(&command);
    let tail = world.tail(job, Position::Start);
    let report = world.finish(job);
    assert_eq!(world.text(tail), "main\n");
    // The second is not opened before the process has tried to print.
    for gate in &gates {
        fs::write(gate, "go\n").unwrap();
    }
    assert_eq!(fs::read_to_string(dir.join("mark")).unwrap(), "failed\n");
    let path = world.reactor.status(job).unwrap().output.unwrap();
    assert_eq!(fs::read_to_string(path).unwrap(), "main\n");
    end_group(&report.cgroup_left.clone().unwrap());
}

#[test]
fn a_terminal_that_is_closed_and_opened_again_is_still_read() {
    let Some(mut world) = World::new() else { return };
    let mut command = raw("echo first; exec >/dev/null 2>&1; read line; echo second >/dev/tty; \
                           read line; echo third >/dev/tty");
    let job = world.spawn(command.stdin(Stdin::Piped));
    let mut gate = world.reactor.take_stdin(job).unwrap().unwrap();
    let tail = world.tail(job, Position::Start);
    for expected in ["first\n", "second\n"] {
        until_text(&mut world, tail, expected);
        gate.write_all(b"go\n").unwrap();
    }
    world.finish(job);
    assert_eq!(world.text(tail), "first\nsecond\nthird\n");
}

#[test]
fn a_job_that_prints_without_pause_holds_up_no_other() {
    let Some(mut world) = World::new() else { return };
    let noisy: Vec<JobId> = (0..3).map(|_| world.spawn(&raw("exec yes"))).collect();
    let quiet =
        world.spawn(&interactive("stty -echo; echo ready; while read line; do echo $line; done"));
    let plain = world.spawn(&sh("while :; do echo line; sleep 0.01; done"));
    let [tail, lines] = [quiet, plain].map(|job| world.tail(job, Position::Start));
    until_text(&mut world, tail, "ready");
    let input = world.reactor.terminal_input(quiet).unwrap();
    for round in 0..20 {
        input.try_write(format!("{round}\n").as_bytes()).unwrap();
        until_text(&mut world, tail, &format!("\n{round}\r\n"));
    }
    until_text(&mut world, lines, "line\nline\n");
    // One turn copies a bounded amount, however much there is.
    let mut longest = 0;
    for _ in 0..200 {
        let size = |job: &JobId| {
            fs::metadata(world.reactor.status(*job).unwrap().output.unwrap()).unwrap().len()
        };
        let before: u64 = noisy.iter().map(size).sum();
        world.turn(Some(Duration::ZERO));
        let size = |job: &JobId| {
            fs::metadata(world.reactor.status(*job).unwrap().output.unwrap()).unwrap().len()
        };
        longest = longest.max(noisy.iter().map(size).sum::<u64>() - before);
    }
    assert!(longest > 0 && longest <= 3 * 16 * 1024, "{longest} bytes in one turn");
    for job in noisy.into_iter().chain([quiet, plain]) {
        world.reactor.kill(job).unwrap();
        let report = world.finish(job);
        assert!(report.problems.is_empty(), "{report:?}");
        let log = world.reactor.status(job).unwrap().output.unwrap();
        assert_eq!(report.output_bytes, fs::metadata(log).unwrap().len());
    }
}

#[test]
fn the_terminal_of_another_user_is_that_users() {
    if !rustix::process::geteuid().is_root() {
        skip("only root can start jobs of other users");
        return;
    }
    for world in [World::new, world_through_launcher] {
        let Some(mut world) = world() else { return };
        let mut command = raw("stat -L -c '%u %a' /proc/self/fd/1; echo by name >/dev/stderr; \
                               echo by tty >/dev/tty; id -u");
        let (text, _) = world.run(command.uid(61_234).gid(61_235));
        assert_eq!(text, "61234 600\nby name\nby tty\n61234\n");
    }
}

#[test]
fn nothing_is_left_of_a_job_a_failed_spawn_or_a_dropped_reactor() {
    if !alone!() {
        return;
    }
    for world in [World::new, world_through_launcher] {
        let Some(mut world) = world() else { return };
        let before = world.footprint();
        let mut command = raw("exec sleep 1000");
        let job = world.spawn(command.stdin(Stdin::Terminal));
        // The pidfd, the terminal and its log.
        assert_eq!(world.footprint().fds, before.fds + 3);
        assert_eq!(world.footprint().census.sources, before.census.sources + 2);
        let input = world.reactor.terminal_input(job).unwrap();
        assert_eq!(world.footprint().fds, before.fds + 4);
        drop(input);
        world.reactor.kill(job).unwrap();
        world.finish(job);
        assert_eq!(world.footprint().fds, before.fds);
        world.reactor.remove(job).unwrap();
        assert_eq!(world.footprint(), before);
        let mut failing = Command::new("/no/such/program");
        failing.output(Output::Terminal(Terminal::new(24, 80))).stdin(Stdin::Terminal);
        world.try_spawn(&failing).unwrap_err();
        assert_eq!(world.footprint(), before);
        // At the limit of descriptors, each step fails once.
        let limit = getrlimit(Resource::Nofile);
        let mut failures = 0;
        for free in 0.. {
            let least = fs::read_dir("/proc/self/fd").unwrap().count() as u64 - 1 + free;
            let lowered = Rlimit { current: Some(least), maximum: limit.maximum };
            setrlimit(Resource::Nofile, lowered).unwrap();
            let spawned = world.try_spawn(&raw("echo text"));
            setrlimit(Resource::Nofile, limit).unwrap();
            match spawned {
                Ok(job) => {
                    world.finish(job);
                    world.reactor.remove(job).unwrap();
                    break;
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::LimitReached, "{error}"),
            }
            failures += 1;
            assert_eq!(world.footprint(), before, "{free} free");
        }
        assert!(failures > 3, "{failures}");
        let job = world.spawn(&raw("exec yes"));
        let process = pidfd(world.reactor.status(job).unwrap().pid);
        let World { reactor, place, .. } = world;
        drop(reactor);
        assert!(await_exit(&process, Duration::ZERO));
        drop(place);
    }
}

#[test]
fn a_full_disk_holds_the_job_up_until_there_is_room_and_loses_nothing() {
    if !alone!() {
        return;
    }
    let Some(place) = Place::with_logs_on("tmpfs", c"size=256k,mode=0700") else { return };
    let logs = place.logs();
    let reactor = Reactor::with_config(&place.config()).unwrap();
    let mut world = World::around(reactor, place);
    let filler = logs.join("filler");
    fs::write(&filler, vec![b'x'; 128 << 10]).unwrap();
    let job = world.spawn(&raw("seq 40000"));
    let tail = world.tail(job, Position::Start);
    world.until("the disk is full", |_| statvfs(&logs).unwrap().f_bfree == 0);
    world.until("the tail has read that", |world| world.text(tail).len() >= 100 << 10);
    // The loop tries again now and then, and does not spin on it. Where the machine is slow, the
    // disk is just becoming full, which takes wake-ups as well.
    let (begun, mut wakeups) = (Instant::now(), 0);
    while begun.elapsed() < Duration::from_secs(2) {
        let timeout = Timespec { tv_sec: 0, tv_nsec: 500_000_000 };
        wakeups += poll(&mut [PollFd::new(&world.reactor, PollFlags::IN)], Some(&timeout)).unwrap();
        world.turn(Some(Duration::ZERO));
    }
    assert!((1..500).contains(&wakeups), "{wakeups} wake-ups");
    assert!(!world.exited.contains_key(&job), "the job waits");
    let told = |world: &World| {
        let full = |event: &Event| match event {
            Event::LogSpace { full } => Some(*full),
            _ => None,
        };
        world.resource_events.iter().filter_map(full).collect::<Vec<_>>()
    };
    assert_eq!(told(&world), [true]);
    fs::remove_file(&filler).unwrap();
    let report = world.finish(job);
    world.until("it is told that there is room", |world| told(world) == [true, false]);
    let expected: String = (1..=40_000).map(|line| format!("{line}\n")).collect();
    assert!(world.text(tail) == expected, "{} bytes", world.text(tail).len());
    assert_eq!(report.output_bytes, expected.len() as u64);
    let [problem] = &report.problems[..] else { panic!("{report:?}") };
    assert!(problem.to_string().contains("No space left"), "{problem}");
    world.reactor.remove(job).unwrap();
    // What is left when the job is over is lost, and the report says how much that is.
    fs::write(&filler, vec![b'x'; 128 << 10]).unwrap();
    let job = world.spawn(&raw("exec seq 1000000"));
    world.tail(job, Position::Start);
    let path = world.reactor.status(job).unwrap().output.unwrap();
    world.until("the disk is full", |_| statvfs(&logs).unwrap().f_bfree == 0);
    // Once more has come, which does not fit.
    world.turn_for(Duration::from_secs(1));
    world.reactor.kill(job).unwrap();
    let report = world.finish(job);
    assert_eq!(report.output_bytes, fs::metadata(&path).unwrap().len());
    let lost = report.problems.iter().find_map(|problem| match problem {
        Error::Job(JobError::OutputLost { bytes, .. }) => Some(*bytes),
        _ => None,
    });
    assert!((1..64 << 10).contains(&lost.unwrap()), "{report:?}");
    // The lines are whole and in order up to there.
    let text = fs::read_to_string(&path).unwrap();
    let whole = text.rsplit_once('\n').unwrap().0;
    assert!(whole.lines().eq((1..=whole.lines().count()).map(|line| line.to_string())));
    drop(world.reactor);
}

#[test]
fn a_host_at_its_file_size_limit_is_not_ended_and_holds_the_job_up() {
    if !alone!() {
        return;
    }
    let Some(mut world) = World::new() else { return };
    let limit = getrlimit(Resource::Fsize);
    let job = world.spawn(&raw("read line </dev/tty; seq 10000"));
    let tail = world.tail(job, Position::Start);
    let path = world.reactor.status(job).unwrap().output.unwrap();
    let lowered = Rlimit { current: Some(10_000), maximum: limit.maximum };
    setrlimit(Resource::Fsize, lowered).unwrap();
    world.reactor.terminal_input(job).unwrap().try_write(b"go\n").unwrap();
    world.until("the limit is reached", |_| fs::metadata(&path).unwrap().len() == 10_000);
    world.turn_for(Duration::from_millis(50));
    assert!(!world.exited.contains_key(&job));
    setrlimit(Resource::Fsize, limit).unwrap();
    let report = world.finish(job);
    let expected: String = (1..=10_000).map(|line| format!("{line}\n")).collect();
    assert_eq!(world.text(tail), format!("go\n{expected}"));
    assert!(report.problems[0].to_string().contains("RLIMIT_FSIZE"), "{report:?}");
}

#[test]
fn a_worker_types_into_terminals_and_resizes_them_too() {
    let place = Place::new();
    if place.cgroup_or_skip().is_none() {
        return;
    }
    let worker = Worker::with_config(&place.config()).unwrap();
    let mut command = interactive("read a; read b; echo got $a $b; stty size");
    let job: Job = worker.spawn(command.keep_log(true)).unwrap();
    let mut input = job.terminal_input().unwrap();
    job.resize(10, 20).unwrap();
    input.write_all(b"one\ntwo\n").unwrap();
    let mut output = job.output(Position::Start).unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut output, &mut text).unwrap();
    assert!(text.ends_with("got one two\r\n10 20\r\n"), "{text:?}");
    assert_eq!(job.wait().unwrap().output_bytes, text.len() as u64);
    assert_eq!(job.resize(1, 1).unwrap_err().kind(), ErrorKind::State);
    let path = job.status().unwrap().output.unwrap();
    drop((job, output));
    drop(worker);
    assert_eq!(fs::read_to_string(path).unwrap(), text);
}
