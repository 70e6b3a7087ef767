//! A job survives its host, and the next host of the same name takes it over: with its log, its
//! deadlines and what was asked of it, and with its exit code wherever the kernel tells that.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use jobworker::{
    ByteSize, Command, Config, Containment, EndPolicy, Error, ErrorKind, Event, Events, Exit,
    Found, History, JobError, JobId, Limits, Output, OverLimit, Phase, Position, Reactor, Read,
    Recovered, Report, Signal, SpawnError, Stall, Stallable, Stdin, StopCause, Stream, SystemError,
    TailOptions, Terminal, Token, Worker,
};
use linux_raw_sys::general::{__NR_fsetxattr, __NR_fstatfs, __NR_unlinkat};
use rustix::fs::{XattrFlags, getxattr, removexattr, setxattr};
use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions, waitid, waitpid};

use crate::calls::die_at;
use crate::skips::skip;
use crate::support::{
    PATIENCE, Place, World, alone, append, children, directories, has_exited, is_dead,
    kernel_keeps_exits, markers, members, pidfd, rounds, sh, sweep, wait_for_exit,
};
use crate::worker::{numbers, until};

const RECORD: &str = "user.jobworker";

/// A world of the name `host`.
fn world() -> Option<World> {
    World::with(|config| _ = config.name("host"))
}

fn config(place: &Place) -> Config {
    let mut config = place.config();
    config.name("host");
    config
}

/// Ends the host without a word to its jobs, and takes its place. They stay children of this
/// process, as after an exec.
fn next(world: World) -> World {
    let World { reactor, place, .. } = world;
    drop(reactor);
    World::around(Reactor::with_config(&config(&place)).unwrap(), place)
}

#[track_caller]
fn recover_with(world: &mut World, pidfds: Vec<OwnedFd>) -> Vec<Recovered> {
    let mut recovery = world.reactor.recovery_with(pidfds).unwrap();
    let mut found = Vec::new();
    while let Some(recovered) = world.reactor.recover(&mut recovery, Token(0)).unwrap() {
        found.push(recovered);
    }
    assert_eq!(recovery.left(), 0);
    found
}

#[track_caller]
fn recover(world: &mut World) -> Vec<Recovered> {
    recover_with(world, Vec::new())
}

/// Recovers the only job there is.
#[track_caller]
fn recover_one(world: &mut World) -> Recovered {
    let mut found = recover(world);
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

/// A command that survives.
fn lasting(script: &str) -> Command {
    let mut command = sh(script);
    command.survives(true);
    command
}

fn pid(world: &World, job: JobId) -> u32 {
    world.reactor.status(job).unwrap().pid
}

/// Spawns a job, and waits until it has printed `ready`.
fn spawn_until_ready(world: &mut World, command: &Command) -> JobId {
    let job = world.spawn(command);
    let tail = world.tail(job, Position::Start);
    world.until("the job is ready", |world| world.text(tail).starts_with("ready\n"));
    job
}

/// Removes the job, and checks that nothing of any job is left.
#[track_caller]
fn remove_last(world: &mut World, job: JobId) {
    world.reactor.remove(job).unwrap();
    let cgroup = world.place.cgroup.as_deref().unwrap();
    assert_eq!(directories(cgroup), Vec::<PathBuf>::new());
    assert_eq!(fs::read_dir(world.place.logs()).unwrap().count(), 0);
    assert_eq!(recover(world), []);
}

/// Runs turns until something is so that no event tells.
#[track_caller]
fn polled(world: &mut World, what: &str, condition: impl Fn() -> bool) {
    until(what, || {
        world.turn(Some(Duration::from_millis(2)));
        condition()
    });
}

/// Whether nobody has to wait for a child of this process any more.
fn is_reaped(child: &OwnedFd) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    waitid(WaitId::PidFd(child.as_fd()), options).is_err_and(|errno| errno == Errno::CHILD)
}

fn allocated(log: &Path) -> u64 {
    fs::metadata(log).unwrap().blocks() * 512
}

fn problems(report: &Report) -> Vec<String> {
    report.problems.iter().map(ToString::to_string).collect()
}

/// Another process of this program that is a host until it is killed.
struct Host {
    process: Child,
    output: BufReader<ChildStdout>,
}

impl Host {
    fn start(place: &Place) -> Self {
        Self::start_with(place, "JOBWORKER_TEST_LOGS", &place.logs())
    }

    /// One whose logs are temporary files, in this directory.
    fn start_temporary(place: &Place, directory: &Path) -> Self {
        Self::start_with(place, "TMPDIR", directory)
    }

    fn start_with(place: &Place, variable: &str, directory: &Path) -> Self {
        let mut process = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["survival::a_host", "--exact", "--nocapture", "--test-threads=1"])
            .env("JOBWORKER_TEST_CGROUP", place.cgroup.as_ref().unwrap())
            .env(variable, directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let mut host = Self { process, output };
        host.answer();
        host
    }

    /// Waits for the next line that is meant for us.
    fn answer(&mut self) -> String {
        let mut line = String::new();
        while self.output.read_line(&mut line).unwrap() > 0 {
            // The harness may have begun the line.
            if let Some((_, answer)) = line.trim_end_matches('\n').split_once("host: ") {
                return answer.to_owned();
            }
            line.clear();
        }
        panic!("the host has ended");
    }

    fn ask(&mut self, request: &str) -> String {
        writeln!(self.process.stdin.as_mut().unwrap(), "{request}").unwrap();
        self.answer()
    }

    fn spawn(&mut self, script: &str) -> JobId {
        self.ask(&format!("spawn {script}")).parse().unwrap()
    }

    /// Lets it die in the middle of a spawn, at this system call.
    fn die_in_spawn(self, call: u32) {
        self.die(&format!("die {call}"));
    }

    /// Lets it die in the middle of what it is asked for.
    fn die(mut self, request: &str) {
        writeln!(self.process.stdin.as_mut().unwrap(), "{request}").unwrap();
        assert_eq!(
            self.process.wait().unwrap().signal(),
            Some(rustix::process::Signal::SYS.as_raw())
        );
    }

    /// Lets it end in order.
    fn end(mut self) {
        drop(self.process.stdin.take());
        assert!(self.process.wait().unwrap().success());
    }

    fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// Not a test, but the [`Host`] of others: it does what it reads line by line.
#[test]
fn a_host() {
    let Some(cgroup) = std::env::var_os("JOBWORKER_TEST_CGROUP") else { return };
    let mut config = Config::new();
    config.cgroup_parent(cgroup).name("host");
    if let Some(logs) = std::env::var_os("JOBWORKER_TEST_LOGS") {
        config.log_dir(logs);
    }
    let mut reactor = Reactor::with_config(&config).unwrap();
    println!("host: here");
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let (verb, rest) = line.split_once(' ').unwrap_or((&line, ""));
        match verb {
            "spawn" => println!("host: {}", reactor.spawn(&lasting(rest), Token(0)).unwrap()),
            "spawn-plain" => println!("host: {}", reactor.spawn(&sh(rest), Token(0)).unwrap()),
            "stop" => {
                reactor.stop(rest.parse().unwrap()).unwrap();
                println!("host: asked");
            }
            "wait" => {
                let report = reactor.wait(rest.parse().unwrap()).unwrap();
                println!("host: {}", report.exit);
            }
            "remove" => {
                reactor.remove(rest.parse().unwrap()).unwrap();
                println!("host: removed");
            }
            "own" => {
                let own = std::process::Command::new("sh").args(["-c", "exit 7"]).spawn();
                let own = own.unwrap().id();
                // It stays a zombie, until it is waited for in the end.
                wait_for_exit(pidfd(own));
                println!("host: {own}");
            }
            "wait-own" => {
                let own = Pid::from_raw(rest.parse().unwrap());
                let (_, status) = waitpid(own, WaitOptions::empty()).unwrap().unwrap();
                println!("host: {:?}", status.exit_status());
            }
            "sweep" => println!("host: {}", sweep(&mut reactor).cgroups.len()),
            // No event reports that something was reaped.
            "until-children-are" => {
                let (number, mut events) =
                    (rest.parse::<usize>().unwrap(), Events::with_capacity(8));
                until("there are so many children", || {
                    reactor.poll(&mut events, Some(Duration::from_millis(1))).unwrap();
                    children() == number
                });
                println!("host: there are");
            }
            "die-removing" => {
                let (call, job) = rest.split_once(' ').unwrap();
                die_at(call.parse().unwrap());
                reactor.remove(job.parse().unwrap()).unwrap();
            }
            "die" => {
                die_at(rest.parse().unwrap());
                reactor.spawn(&lasting("echo started; exec sleep 1000"), Token(0)).unwrap();
            }
            "recover" => {
                let mut recovery = reactor.recovery().unwrap();
                let mut found = Vec::new();
                while let Some(recovered) = reactor.recover(&mut recovery, Token(0)).unwrap() {
                    found.push(format!("{}:{:?}", recovered.job, recovered.found));
                }
                println!("host: {}", found.join(" "));
            }
            "exec" => {
                use std::os::unix::process::CommandExt;
                let error = std::process::Command::new("/proc/self/exe")
                    .args(["survival::a_host", "--exact", "--nocapture", "--test-threads=1"])
                    .exec();
                panic!("{error}");
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn a_job_goes_on_when_its_host_is_killed_and_the_next_host_reads_all_of_it() {
    let Some(world) = world() else { return };
    let World { reactor, place, .. } = world;
    drop(reactor);
    let mut host = Host::start(&place);
    let pipe = place.dir.path().join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    let job = host.spawn(&format!("echo one; read line < {}; echo $line; exit 42", pipe.display()));
    host.kill();

    let reactor = Reactor::with_config(&config(&place)).unwrap();
    let mut world = World::around(reactor, place);
    let recovered = recover_one(&mut world);
    assert_eq!((recovered.job, recovered.found), (job, Found::Running));
    assert!(recovered.command.starts_with("/bin/sh -c 'echo one;"), "{}", recovered.command);
    assert_eq!(world.reactor.status(job).unwrap().phase, Phase::Running);
    let (tail, later) = (world.tail(job, Position::Start), world.tail(job, Position::Offset(2)));
    fs::write(&pipe, "two\n").unwrap();
    let report = world.finish(job);
    assert_eq!((world.text(tail).as_str(), world.text(later).as_str()), ("one\ntwo\n", "e\ntwo\n"));
    assert_eq!(report.output_bytes, 8);
    if kernel_keeps_exits() {
        assert_eq!((report.exit, problems(&report)), (Exit::Code(42), Vec::new()));
    } else if report.exit == Exit::Unknown {
        assert!(problems(&report)[0].contains("Linux 6.15"), "{report:?}");
    } else {
        assert_eq!(report.exit, Exit::Code(42));
    }
    remove_last(&mut world, job);
}

#[test]
fn after_an_exec_the_jobs_are_children_still_and_their_exit_is_known_for_certain() {
    let Some(world) = world() else { return };
    let World { reactor, place, .. } = world;
    drop(reactor);
    let mut host = Host::start(&place);
    let running = host.spawn("read line; exec sleep 1000");
    let ended = host.spawn("exit 7");
    let main = host.process.id();
    // It has ended before the exec: its zombie is there.
    let ended_pid = members_and_zombies(main).into_iter().find(|pid| is_zombie(*pid));
    let ended_pid = ended_pid.unwrap_or_else(|| {
        let children = members_and_zombies(main);
        children.iter().for_each(|pid| drop(pidfd(*pid)));
        wait_for_exit(pidfd(*children.last().unwrap()));
        *children.last().unwrap()
    });
    wait_for_exit(pidfd(ended_pid));
    assert_eq!(host.ask("exec"), "here");
    let found = host.ask("recover");
    assert!(found.contains(&format!("{running}:Running")), "{found}");
    assert!(found.contains(&format!("{ended}:Running")), "{found}");
    assert_eq!(host.ask(&format!("wait {ended}")), "exit code 7");
    assert_eq!(host.ask(&format!("stop {running}")), "asked");
    assert_eq!(host.ask(&format!("wait {running}")), "SIGTERM");
    host.kill();

    // Both are finished, but nobody has removed them.
    let reactor = Reactor::with_config(&config(&place)).unwrap();
    let mut world = World::around(reactor, place);
    let found = recover(&mut world);
    assert!(found.len() == 2 && found.iter().all(|found| found.found == Found::Finished));
    for (job, exit) in [(ended, Exit::Code(7)), (running, TERM)] {
        let report = world.finish(job);
        assert_eq!((report.exit, world.exited[&job]), (exit, exit));
    }
    world.reactor.remove(ended).unwrap();
    remove_last(&mut world, running);
}

/// The jobs that the new version does not take over, or whose main process it does not know, are
/// its children as well.
#[test]
fn after_an_exec_no_job_stays_a_zombie_and_the_children_of_the_host_stay() {
    let Some(world) = world() else { return };
    let World { reactor, place, .. } = world;
    drop(reactor);
    let mut host = Host::start(&place);
    let running = host.spawn("exec sleep 1000");
    let damaged = host.spawn("exec sleep 1000");
    for script in ["exec sleep 1000", "exit 3"] {
        host.ask(&format!("spawn-plain {script}"));
    }
    let own = host.ask("own");
    removexattr(place.group(damaged), RECORD).unwrap();
    assert_eq!(host.ask("exec"), "here");
    let found = host.ask("recover");
    assert!(found.contains(&format!("{running}:Running")), "{found}");
    assert!(found.contains(&format!("{damaged}:Damaged")), "{found}");
    host.ask("until-children-are 4");
    assert_eq!(host.ask("sweep"), "2");
    host.ask("until-children-are 2");
    // The job that was taken over has its exit.
    host.ask(&format!("stop {running}"));
    assert_eq!(host.ask(&format!("wait {running}")), "SIGTERM");
    assert_eq!(host.ask(&format!("wait-own {own}")), "Some(7)");
    host.ask("until-children-are 0");
    for job in [running, damaged] {
        host.ask(&format!("wait {job}"));
        host.ask(&format!("remove {job}"));
    }
    host.end();
}

const TERM: Exit = Exit::Signal { signal: Signal::TERM, core_dumped: false };

/// The children of a process, in the order in which it has made them.
fn members_and_zombies(parent: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{parent}/task")).unwrap().flatten();
    let lists = tasks.map(|task| fs::read_to_string(task.path().join("children")).unwrap());
    lists
        .flat_map(|list| {
            list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>()
        })
        .collect()
}

fn is_zombie(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z'))
}

#[test]
fn a_job_is_neither_killed_nor_swept_when_its_reactor_is_dropped() {
    let Some(mut world) = world() else { return };
    let mut command = lasting("echo ready; exec sleep 1000");
    let job = spawn_until_ready(&mut world, command.limits(Limits::new().cgroup_max_depth(3)));
    let limits = world.reactor.limits(job).unwrap();
    let main = pidfd(pid(&world, job));
    let ended = world.spawn(&sh("exec sleep 1000"));
    let World { reactor, place, .. } = world;
    drop(reactor);
    assert!(!place.group(ended).exists(), "another job is ended as ever");
    let mut other = World::around(Reactor::with_config(&place.config()).unwrap(), place);
    let swept = sweep(&mut other.reactor);
    assert!(swept.cgroups.is_empty() && swept.errors.is_empty(), "{swept:?}");
    assert!(!has_exited(&main) && other.place.group(job).exists());

    let mut world = next(other);
    assert_eq!(recover_one(&mut world).found, Found::Running);
    assert_eq!(world.reactor.limits(job).unwrap(), limits, "as they are");
    let stall = Stall::some(Duration::from_millis(200), Duration::from_secs(2));
    match world.reactor.watch_pressure(job, Stallable::Cpu, stall) {
        Ok(()) => {}
        Err(error) => assert!(matches!(error, Error::Job(JobError::NoPressure { .. })), "{error}"),
    }
    world.reactor.kill(job).unwrap();
    let report = world.finish(job);
    assert!(report.killed && problems(&report).is_empty(), "{report:?}");
    assert_eq!(report.stopped_by, Some(StopCause::Kill));
    remove_last(&mut world, job);
}

#[test]
fn a_host_waits_for_its_name_if_it_wants_to() {
    let Some(world) = world() else { return };
    let mut waiting = config(&world.place);
    waiting.wait_for_name(true);
    let World { reactor, place, .. } = world;
    let second = thread::spawn(move || Reactor::with_config(&waiting));
    // One more, which does not wait, still fails while the second one waits.
    let error = Reactor::with_config(&config(&place)).unwrap_err();
    assert!(matches!(error, Error::System(SystemError::NameTaken { .. })), "{error}");
    drop(reactor);
    let second = second.join().unwrap().unwrap();
    let error = Reactor::with_config(&config(&place)).unwrap_err();
    assert!(matches!(error, Error::System(SystemError::NameTaken { .. })), "{error}");
    drop(second);
    assert_eq!(markers(place.cgroup.as_deref().unwrap()), Vec::<PathBuf>::new());
}

#[test]
fn the_events_of_a_job_have_the_token_that_it_was_given_last() {
    let Some(mut world) = world() else { return };
    let mut command = sh("read _");
    let job = world.reactor.spawn(command.stdin(Stdin::Piped), Token(1)).unwrap();
    world.reactor.set_token(job, Token(2)).unwrap();
    drop(world.reactor.take_stdin(job).unwrap());
    let mut events = Events::with_capacity(8);
    let mut tokens = Vec::new();
    while world.reactor.status(job).unwrap().report.is_none() {
        world.reactor.poll(&mut events, Some(PATIENCE)).unwrap();
        tokens.extend(events.iter().filter(|event| event.job() == Some(job)).map(Event::token));
    }
    assert_eq!(tokens, [Some(Token(2)); 2]);
    // As of a job that is found finished, whose events are there at once.
    let finished = world.spawn(&lasting("exit 3"));
    world.finish(finished);
    let mut world = next(world);
    assert_eq!(recover_one(&mut world).found, Found::Finished);
    world.reactor.set_token(finished, Token(4)).unwrap();
    world.reactor.poll(&mut events, Some(PATIENCE)).unwrap();
    let tokens: Vec<_> = events.iter().map(Event::token).collect();
    assert_eq!(tokens, [Some(Token(4)); 2]);
    world.reactor.remove(finished).unwrap();
    let job = finished;
    let error = world.reactor.set_token(job, Token(3)).unwrap_err();
    assert!(matches!(error, Error::Job(JobError::Unknown(_))), "{error}");
}

#[test]
fn a_name_has_one_host_and_is_free_when_that_has_ended() {
    let Some(world) = world() else { return };
    let error = Reactor::with_config(&config(&world.place)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::State, "{error}");
    assert!(matches!(error, Error::System(SystemError::NameTaken { .. })), "{error}");
    let cgroup = world.place.cgroup.clone().unwrap();
    assert!(cgroup.join("jobworker@host").exists());
    // Nothing of the failed attempt is left: the marker of the name, and that of the reactor.
    assert_eq!(markers(&cgroup).len(), 2);
    let other = Reactor::with_config(world.place.config().name("other")).unwrap();
    drop(other);
    let world = next(world);
    let World { reactor, place, .. } = world;
    drop(reactor);
    assert_eq!(markers(&cgroup), Vec::<PathBuf>::new());
    for name in ["", "a/b", "a b", "\u{e4}"] {
        let error = Reactor::with_config(place.config().name(name)).unwrap_err();
        assert!(matches!(error, Error::System(SystemError::Name { .. })), "{error}");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
}

#[test]
fn what_could_not_survive_is_refused_before_anything_is_made() {
    // Descriptors are counted.
    if !alone!() {
        return;
    }
    let refused = |world: &mut World, command: &Command, why: &str| {
        let before = world.footprint();
        let error = world.try_spawn(command).unwrap_err();
        assert!(matches!(error, Error::Spawn(SpawnError::CannotSurvive { .. })), "{error}");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(why), "{error}");
        assert_eq!(world.footprint(), before);
    };
    let Some(mut unnamed) = World::new() else { return };
    refused(&mut unnamed, &lasting("true"), "Config::name");
    let error = unnamed.reactor.recovery().unwrap_err();
    assert!(matches!(error, Error::System(SystemError::NoName { .. })), "{error}");
    let mut world = world().unwrap();
    let terminal = Output::Terminal(Terminal::new(24, 80));
    refused(&mut world, lasting("true").output(terminal), "terminal");
    refused(&mut world, lasting("true").parent_death_signal(Signal::TERM), "parent_death_signal");
    refused(&mut world, lasting("true").label(vec![0; (16 << 10) + 1]), "16 KiB");
    let grouped =
        World::with(|config| _ = config.name("host").containment(Containment::ProcessGroup));
    let mut grouped = grouped.unwrap();
    refused(&mut grouped, &lasting("true"), "process group");
    let error = grouped.reactor.recovery().unwrap_err();
    assert!(matches!(error, Error::System(SystemError::NoName { .. })), "{error}");
}

#[test]
fn a_finished_job_is_reported_by_every_host_until_one_removes_it() {
    let Some(mut world) = world() else { return };
    let job = world.spawn(lasting("echo out; exit 3").label("the label").accounting(true));
    let first = world.finish(job);
    assert!(first.stats.is_some());
    for _ in 0..2 {
        world = next(world);
        let recovered = recover_one(&mut world);
        assert_eq!((recovered.job, recovered.found), (job, Found::Finished));
        assert_eq!(recovered.label, b"the label");
        let report = world.finish(job);
        assert_eq!(world.exited[&job], Exit::Code(3));
        assert_eq!(format!("{report:?}"), format!("{first:?}"), "with usage and statistics");
        let tail = world.tail(job, Position::Start);
        world.drain(tail);
        assert_eq!(world.text(tail), "out\n");
        assert!(world.transcripts[&tail].ended);
    }
    remove_last(&mut world, job);
}

#[test]
fn a_stop_that_was_begun_goes_on_with_what_is_left_of_its_grace_period() {
    let Some(mut world) = world() else { return };
    let script = "trap 'echo asked' TERM; echo ready; while :; do sleep 1000 & wait; done";
    let mut command = lasting(script);
    let job = spawn_until_ready(&mut world, command.grace(Duration::from_secs(1000)));
    let shortened = spawn_until_ready(&mut world, &command);
    let short = spawn_until_ready(&mut world, command.grace(Duration::from_millis(1)));
    let asked_twice = spawn_until_ready(&mut world, &command);
    world.reactor.stop(job).unwrap();
    world.reactor.stop(short).unwrap();
    world.reactor.stop(shortened).unwrap();
    world.reactor.stop_within(shortened, Duration::from_millis(1)).unwrap();
    world.reactor.stop_within(asked_twice, Duration::from_secs(1000)).unwrap();
    world.reactor.stop(asked_twice).unwrap();
    let mut world = next(world);
    assert_eq!(recover(&mut world).len(), 4);
    for ended in [short, shortened] {
        let report = world.finish(ended);
        assert_eq!((report.killed, report.stopped_by), (true, Some(StopCause::Stop)));
        world.reactor.remove(ended).unwrap();
    }
    for other in [job, asked_twice] {
        assert_eq!(world.reactor.status(other).unwrap().phase, Phase::Stopping);
    }
    world.reactor.kill(asked_twice).unwrap();
    world.finish(asked_twice);
    world.reactor.remove(asked_twice).unwrap();
    // The signal was sent once more, and the job is not killed before its time.
    let tail = world.tail(job, Position::Start);
    world.until("the job was asked again", |world| world.text(tail).matches("asked").count() >= 1);
    world.reactor.stop_within(job, Duration::ZERO).unwrap();
    assert!(world.finish(job).killed);
    remove_last(&mut world, job);
}

#[test]
fn a_time_limit_goes_on_while_there_is_no_host() {
    let Some(mut world) = world() else { return };
    let mut command = lasting("echo ready; exec sleep 1000");
    let job = spawn_until_ready(&mut world, command.time_limit(Duration::from_millis(500)));
    let far = spawn_until_ready(&mut world, command.time_limit(Duration::from_secs(1000)));
    let main = pidfd(pid(&world, job));
    let mut world = next(world);
    assert!(!has_exited(&main) || world.turns == 0);
    recover(&mut world);
    let report = world.finish(job);
    assert_eq!(report.stopped_by, Some(StopCause::TimeLimit));
    assert!(report.wall >= Duration::from_millis(500), "{report:?}");
    assert_eq!(world.reactor.status(far).unwrap().phase, Phase::Running);
    world.reactor.kill(far).unwrap();
    world.finish(far);
    world.reactor.remove(far).unwrap();
    remove_last(&mut world, job);
}

#[test]
fn a_frozen_job_is_known_to_be_frozen_and_a_stop_thaws_it() {
    let Some(mut world) = world() else { return };
    let job = spawn_until_ready(&mut world, &lasting("echo ready; exec sleep 1000"));
    world.reactor.freeze(job).unwrap();
    world.until("the job is frozen", |world| !world.resource_events.is_empty());
    let mut world = next(world);
    recover(&mut world);
    assert!(world.reactor.status(job).unwrap().frozen);
    world.reactor.stop(job).unwrap();
    assert_eq!(world.finish(job).exit, TERM);
    remove_last(&mut world, job);
}

#[test]
fn what_the_main_process_leaves_behind_is_treated_as_its_command_says() {
    let Some(mut world) = world() else { return };
    let mut jobs = Vec::new();
    for policy in [EndPolicy::KillRest, EndPolicy::WaitAll, EndPolicy::LeaveRest] {
        let mut command = lasting("sleep 1000 & echo ready; exit 5");
        jobs.push(spawn_until_ready(&mut world, command.end_policy(policy)));
    }
    let [kill, wait, leave] = jobs[..] else { unreachable!() };
    world.finish(kill);
    world.finish(leave);
    world.until("its main process has ended", |world| world.exited.contains_key(&wait));
    let mut world = next(world);
    let found = recover(&mut world);
    let of = |job| found.iter().find(|found| found.job == job).unwrap().found;
    assert_eq!([of(kill), of(wait), of(leave)], [Found::Finished, Found::Exited, Found::Finished]);
    // The exit was recorded before it was reported.
    world.until("the exit is known", |world| world.exited.get(&wait) == Some(&Exit::Code(5)));
    assert_eq!(world.reactor.status(wait).unwrap().phase, Phase::Exited);
    world.reactor.stop(wait).unwrap();
    let report = world.finish(wait);
    assert_eq!((report.exit, problems(&report)), (Exit::Code(5), Vec::new()));
    let left = world.place.group(leave);
    assert_eq!(world.finish(leave).cgroup_left.as_ref(), Some(&left));
    for job in [kill, wait, leave] {
        world.finish(job);
        world.reactor.remove(job).unwrap();
    }
    // It runs on, but is not reported again; when it is empty, the next recovery removes it.
    assert_eq!(recover(&mut world), []);
    let rest: Vec<OwnedFd> = crate::support::members(&left).into_iter().map(pidfd).collect();
    assert_eq!(rest.len(), 1);
    fs::write(left.join("cgroup.kill"), "1").unwrap();
    assert!(is_dead(&rest[0]));
    let mut world = next(world);
    until_unpopulated(&left);
    assert_eq!(recover(&mut world), []);
    assert!(!left.exists());
}

/// Waits until no process is in a group.
fn until_unpopulated(group: &Path) {
    use rustix::event::{PollFd, PollFlags, poll};
    let events = fs::File::open(group.join("cgroup.events")).unwrap();
    while fs::read_to_string(group.join("cgroup.events")).unwrap().contains("populated 1") {
        let timeout = PATIENCE.try_into().unwrap();
        poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&timeout)).unwrap();
    }
}

#[test]
fn a_job_that_ended_while_there_was_no_host_has_an_unknown_exit_with_a_reason() {
    let Some(mut world) = world() else { return };
    let mut command = lasting("echo ready; read line; exit 9");
    let job = spawn_until_ready(&mut world, command.stdin(Stdin::Piped));
    let held = spawn_until_ready(&mut world, command.stdin(Stdin::Piped));
    let pidfds = [job, held].map(|job| world.reactor.pidfd(job).unwrap());
    let World { reactor, place, .. } = world;
    // The end of their input.
    drop(reactor);
    for main in &pidfds {
        assert!(is_dead(main));
        waitid(WaitId::PidFd(main.as_fd()), WaitIdOptions::EXITED).unwrap();
    }
    let reactor = Reactor::with_config(&config(&place)).unwrap();
    let mut world = World::around(reactor, place);
    let [_, of_held] = pidfds;
    let found = recover_with(&mut world, vec![pidfd(std::process::id()), of_held]);
    assert!(found.len() == 2 && found.iter().all(|found| found.found == Found::Exited));
    let report = world.finish(job);
    assert_eq!(report.exit, Exit::Unknown);
    assert!(
        matches!(&report.problems[..], [Error::Job(JobError::ExitUnknown { reason, .. })]
            if reason.contains("no pidfd of it was given")),
        "{report:?}"
    );
    let report = world.finish(held);
    if kernel_keeps_exits() {
        assert_eq!((report.exit, problems(&report)), (Exit::Code(9), Vec::new()));
    } else {
        assert_eq!(report.exit, Exit::Unknown);
        assert!(problems(&report)[0].contains("Linux 6.15"), "{report:?}");
    }
    world.reactor.remove(held).unwrap();
    remove_last(&mut world, job);
}

#[test]
fn a_label_can_be_changed_and_is_there_for_the_next_host() {
    let Some(mut world) = world() else { return };
    let job = spawn_until_ready(&mut world, lasting("echo ready; exec sleep 1000").label([0, 255]));
    assert_eq!(world.reactor.label(job).unwrap(), [0, 255]);
    world.reactor.set_label(job, "second").unwrap();
    let plain = world.spawn(&sh("exit 0"));
    let error = world.reactor.label(plain).unwrap_err();
    assert!(matches!(error, Error::Job(JobError::NotLasting(_))), "{error}");
    let error = world.reactor.set_label(job, vec![0; 20 << 10]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert!(error.to_string().starts_with(&format!("cannot label job {job}: ")), "{error}");
    // No room is left for a longer one: that it was, it stays.
    let group = world.place.group(job);
    for (number, size) in [(0, 60_000), (1, 60_000), (2, 9_000)] {
        let name = format!("user.filler{number}");
        setxattr(&group, name.as_str(), &vec![0; size], XattrFlags::empty()).unwrap();
    }
    let error = world.reactor.set_label(job, vec![1; 10_000]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::NOSPC.raw_os_error()), "{error}");
    let text = error.to_string();
    assert!(text.contains("128 attributes") && !text.contains("file system is full"), "{text}");
    assert_eq!(world.reactor.label(job).unwrap(), b"second");
    let mut world = next(world);
    assert_eq!(recover_one(&mut world).label, b"second");
    // What is asked of the job is done all the same, and its report says so.
    let filler = "user.filler3";
    let fill = |size: usize| setxattr(&group, filler, &vec![0; size], XattrFlags::empty());
    let mut size = 4096;
    while size > 0 {
        match fill(size) {
            Ok(()) => break,
            Err(Errno::NOSPC) => size -= 64,
            Err(errno) => panic!("{errno}"),
        }
    }
    world.reactor.kill(job).unwrap();
    let report = world.finish(job);
    assert!(report.killed);
    let text = problems(&report).join("; ");
    assert!(text.is_empty() || text.contains("write the record of a job"), "{text}");
    for number in 0..4 {
        let _ = removexattr(&group, format!("user.filler{number}").as_str());
    }
    remove_last(&mut world, job);
}

#[test]
fn a_record_that_is_missing_damaged_or_of_another_job_ends_the_job_and_says_so() {
    let Some(mut world) = world() else { return };
    let mut jobs = Vec::new();
    for _ in 0..4 {
        jobs.push(spawn_until_ready(&mut world, &lasting("echo ready; exec sleep 1000")));
    }
    let mains: Vec<OwnedFd> = jobs.iter().map(|job| pidfd(pid(&world, *job))).collect();
    let groups: Vec<PathBuf> = jobs.iter().map(|job| world.place.group(*job)).collect();
    let World { reactor, place, .. } = world;
    drop(reactor);
    let mut record = vec![0; 1 << 16];
    let length = getxattr(&groups[3], RECORD, &mut record).unwrap();
    record.truncate(length);
    removexattr(&groups[0], RECORD).unwrap();
    setxattr(&groups[1], RECORD, &record[..length - 1], XattrFlags::REPLACE).unwrap();
    setxattr(&groups[2], RECORD, &record, XattrFlags::REPLACE).unwrap();

    let reactor = Reactor::with_config(&config(&place)).unwrap();
    let mut world = World::around(reactor, place);
    let found = recover(&mut world);
    for (index, job) in jobs.iter().enumerate() {
        let found = found.iter().find(|found| found.job == *job).unwrap().found;
        let damaged = index < 3;
        assert_eq!(found, if damaged { Found::Damaged } else { Found::Running });
        if damaged {
            let report = world.finish(*job);
            assert_eq!((report.exit, report.killed), (Exit::Unknown, true));
            assert!(problems(&report)[0].contains("missing or was damaged"), "{report:?}");
            assert!(is_dead(&mains[index]));
            assert_eq!(report.stopped_by, Some(StopCause::Drop));
            world.reactor.remove(*job).unwrap();
            assert!(!groups[index].exists());
            // It is not known whether the log was to be kept.
            let log = world.place.logs().join(format!("{job}.log"));
            assert_eq!(fs::read_to_string(&log).unwrap(), "ready\n");
            fs::remove_file(log).unwrap();
            polled(&mut world, "it is reaped", || is_reaped(&mains[index]));
        }
    }
    world.reactor.kill(jobs[3]).unwrap();
    world.finish(jobs[3]);
    remove_last(&mut world, jobs[3]);
}

#[test]
fn a_record_of_a_later_version_is_left_alone() {
    let Some(mut world) = world() else { return };
    let job = spawn_until_ready(&mut world, &lasting("echo ready; exec sleep 1000"));
    let (main, group) = (pidfd(pid(&world, job)), world.place.group(job));
    let World { reactor, place, .. } = world;
    drop(reactor);
    let mut record = vec![0; 1 << 16];
    let length = getxattr(&group, RECORD, &mut record).unwrap();
    let mut later = record[..length].to_vec();
    later["jobworker".len()] += 1;
    setxattr(&group, RECORD, &later, XattrFlags::REPLACE).unwrap();
    let reactor = Reactor::with_config(&config(&place)).unwrap();
    let mut world = World::around(reactor, place);
    let mut recovery = world.reactor.recovery().unwrap();
    let error = world.reactor.recover(&mut recovery, Token(0)).unwrap_err();
    assert!(matches!(error, Error::System(SystemError::Record { .. })), "{error}");
    assert!(error.to_string().contains("version 3"), "{error}");
    assert_eq!(world.reactor.recover(&mut recovery, Token(0)).unwrap(), None);
    assert!(!has_exited(&main));
    // The version that knows it goes on.
    setxattr(&group, RECORD, &record[..length], XattrFlags::REPLACE).unwrap();
    assert_eq!(recover_one(&mut world).found, Found::Running);
    world.reactor.kill(job).unwrap();
    world.finish(job);
    remove_last(&mut world, job);
}

#[test]
fn a_recovery_can_be_repeated_and_given_up() {
    let Some(mut world) = world() else { return };
    let jobs: Vec<JobId> = (0..5).map(|_| world.spawn(&lasting("exec sleep 1000"))).collect();
    let mut world = next(world);
    let mut recovery = world.reactor.recovery().unwrap();
    assert_eq!(recovery.left(), 5);
    world.reactor.recover(&mut recovery, Token(0)).unwrap().unwrap();
    drop(recovery);
    let mut first = world.reactor.recovery().unwrap();
    let mut second = world.reactor.recovery().unwrap();
    let mut count = 1;
    loop {
        let one = world.reactor.recover(&mut first, Token(0)).unwrap();
        let other = world.reactor.recover(&mut second, Token(0)).unwrap();
        count += usize::from(one.is_some()) + usize::from(other.is_some());
        if one.is_none() && other.is_none() {
            break;
        }
    }
    assert_eq!((count, world.reactor.census().jobs), (5, 5));
    let of_another = world.reactor.recovery().unwrap();
    let mut world = next(world);
    let mut of_another = of_another;
    let error = world.reactor.recover(&mut of_another, Token(0)).unwrap_err();
    assert!(matches!(error, Error::System(SystemError::NoName { .. })), "{error}");
    assert_eq!(recover(&mut world).len(), 5);
    for job in &jobs {
        world.reactor.kill(*job).unwrap();
        world.finish(*job);
    }
    for job in &jobs[1..] {
        world.reactor.remove(*job).unwrap();
    }
    remove_last(&mut world, jobs[0]);
}

#[test]
fn logs_in_a_directory_that_a_dead_host_has_made_are_found_and_removed_with_their_jobs() {
    let place = Place::new();
    let Some(cgroup) = place.cgroup_or_skip() else { return };
    let mut config = Config::new();
    config.cgroup_parent(&cgroup).name("host");
    let mut reactor = Reactor::with_config(&config).unwrap();
    let job = reactor.spawn(&lasting("echo hello; exec sleep 1000"), Token(0)).unwrap();
    let log = reactor.status(job).unwrap().output.unwrap();
    drop(reactor);
    assert!(log.exists());
    let mut world = World::around(Reactor::with_config(&config).unwrap(), place);
    assert_eq!(recover_one(&mut world).found, Found::Running);
    assert_eq!(world.reactor.status(job).unwrap().output.as_ref(), Some(&log));
    let tail = world.tail(job, Position::Start);
    world.until("it is read", |world| world.text(tail) == "hello\n");
    world.reactor.kill(job).unwrap();
    world.finish(job);
    world.reactor.remove(job).unwrap();
    drop(Arc::new(world));
    assert!(!log.exists() && !log.parent().unwrap().exists(), "{}", log.display());
}

/// The host dies when it writes the record of a job, whose log it has made.
#[test]
fn nothing_is_left_of_a_spawn_in_which_the_host_has_died_before_there_was_a_record() {
    for with_another in [false, true] {
        let place = Place::new();
        let Some(cgroup) = place.cgroup_or_skip() else { return };
        let temporary = place.dir.path().join("temporary");
        fs::create_dir(&temporary).unwrap();
        let mut host = Host::start_temporary(&place, &temporary);
        let another = with_another.then(|| host.spawn("exec sleep 1000"));
        host.die_in_spawn(__NR_fsetxattr);
        let logs =
            || directories(&temporary).into_iter().flat_map(|path| fs::read_dir(path).unwrap());
        let is_log = |name: &OsStr| Path::new(name).extension().is_some_and(|end| end == "log");
        let left = logs().filter(|entry| is_log(&entry.as_ref().unwrap().file_name())).count();
        assert_eq!(left, 1 + usize::from(with_another), "it has made the log");

        let mut host = Host::start_temporary(&place, &temporary);
        let found = host.ask("recover");
        if let Some(job) = another {
            assert_eq!(found, format!("{job}:Running"));
            host.ask(&format!("stop {job}"));
            host.ask(&format!("wait {job}"));
            assert_eq!(host.ask(&format!("remove {job}")), "removed");
        } else {
            assert_eq!(found, "", "there never was a job");
        }
        host.end();
        assert_eq!(directories(&temporary), Vec::<PathBuf>::new());
        assert_eq!(directories(&cgroup), Vec::<PathBuf>::new());
    }
}

/// The host dies when it looks at the process that it has just cloned, to write down which it is.
#[test]
fn a_job_whose_host_has_died_before_it_knew_the_main_process_goes_on_under_the_next_one() {
    let place = Place::new();
    let Some(cgroup) = place.cgroup_or_skip() else { return };
    Host::start(&place).die_in_spawn(__NR_fstatfs);
    let reactor = Reactor::with_config(&config(&place)).unwrap();
    let mut world = World::around(reactor, place);
    let found = recover_one(&mut world);
    assert_eq!(found.found, Found::Running);
    let status = world.reactor.status(found.job).unwrap();
    assert_eq!(members(&status.cgroup.unwrap()), [status.pid]);
    let tail = world.tail(found.job, Position::Start);
    world.until("it has started", |world| world.text(tail) == "started\n");
    // The next host knows it from the record.
    removexattr(world.place.group(found.job), "user.jobworker.main").unwrap();
    let mut world = next(world);
    assert_eq!(recover_one(&mut world).found, Found::Running);
    world.reactor.stop(found.job).unwrap();
    let report = world.finish(found.job);
    let code = if kernel_keeps_exits() {
        Exit::Signal { signal: Signal::TERM, core_dumped: false }
    } else {
        report.exit
    };
    assert_eq!((report.exit, report.stopped_by), (code, Some(StopCause::Stop)));
    world.reactor.remove(found.job).unwrap();
    drop(world);
    assert_eq!(directories(&cgroup), Vec::<PathBuf>::new());
}

#[test]
fn a_removal_in_which_the_host_has_died_has_happened_as_a_whole_or_not_at_all() {
    for (call, removed) in [(__NR_fsetxattr, false), (__NR_unlinkat, true)] {
        let place = Place::new();
        let Some(cgroup) = place.cgroup_or_skip() else { return };
        let mut host = Host::start(&place);
        let job = host.spawn("echo out; exit 3");
        host.ask(&format!("wait {job}"));
        host.die(&format!("die-removing {call} {job}"));
        let log = place.logs().join(format!("{job}.log"));
        assert!(log.exists(), "it has died before it could remove anything");
        let reactor = Reactor::with_config(&config(&place)).unwrap();
        let mut world = World::around(reactor, place);
        if removed {
            assert_eq!(recover(&mut world).len(), 0);
        } else {
            assert_eq!(recover_one(&mut world).found, Found::Finished);
            let tail = world.tail(job, Position::Start);
            world.drain(tail);
            assert_eq!(world.text(tail), "out\n");
            assert_eq!(world.finish(job).exit, Exit::Code(3));
            world.reactor.remove(job).unwrap();
        }
        assert!(!log.exists());
        drop(world);
        assert_eq!(directories(&cgroup), Vec::<PathBuf>::new());
    }
}

#[test]
fn logs_of_jobs_that_died_with_their_host_are_found() {
    let Some(world) = world() else { return };
    let World { reactor, place, .. } = world;
    drop(reactor);
    let mut host = Host::start(&place);
    let lasting = host.spawn("echo ready; exec sleep 1000");
    let other = host.ask("spawn-plain exec sleep 1000").parse::<JobId>().unwrap();
    host.kill();
    let reactor = Reactor::with_config(&config(&place)).unwrap();
    let mut world = World::around(reactor, place);
    let stray = [world.place.logs().join(format!("{other}.log"))];
    assert_eq!(world.reactor.stray_logs().unwrap(), stray, "the other is yet to be recovered");
    assert_eq!(recover_one(&mut world).job, lasting);
    assert_eq!(world.reactor.stray_logs().unwrap(), stray);
    assert_eq!(sweep(&mut world.reactor).cgroups.len(), 1, "that is swept");
    fs::remove_file(&stray[0]).unwrap();
    world.reactor.kill(lasting).unwrap();
    world.finish(lasting);
    remove_last(&mut world, lasting);
}

/// A recovery took them for jobs of which the earlier host had written nothing or no main process,
/// and killed them.
#[test]
fn jobs_that_other_threads_start_during_a_recovery_are_left_to_them() {
    // Its children hold what other tests in the process take for closed.
    if !alone!() {
        return;
    }
    let place = Place::new();
    let Some(cgroup) = place.cgroup_or_skip() else { return };
    let worker = Worker::with_config(&config(&place)).unwrap();
    let (spawning, found) = (AtomicUsize::new(2), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..rounds(100) {
                    let job = worker.spawn(&lasting("exit 4")).unwrap();
                    let report = job.wait().unwrap();
                    assert_eq!((report.exit, report.killed), (Exit::Code(4), false));
                    job.acknowledge().unwrap();
                }
                spawning.fetch_sub(1, Ordering::Relaxed);
            });
        }
        while spawning.load(Ordering::Relaxed) > 0 {
            let recovered = worker.recover([]).unwrap();
            assert!(recovered.errors.is_empty(), "{recovered:?}");
            found.fetch_add(recovered.jobs.len(), Ordering::Relaxed);
        }
    });
    assert_eq!(found.into_inner(), 0, "no earlier host has left anything");
    drop(worker);
    assert_eq!(directories(&cgroup), Vec::<PathBuf>::new());
}

#[test]
fn a_worker_recovers_jobs_and_reports_them_until_they_are_acknowledged() {
    let place = Place::new();
    if place.cgroup_or_skip().is_none() {
        return;
    }
    let worker = Worker::with_config(&config(&place)).unwrap();
    let job = worker.spawn(lasting("echo out; read line; exit 4").stdin(Stdin::Piped)).unwrap();
    let label = worker.spawn(lasting("exec sleep 1000").label("one")).unwrap();
    label.set_label("two").unwrap();
    let pidfd = job.pidfd().unwrap();
    let (id, of_label) = (job.id(), label.id());
    drop((job, label, worker));

    let worker = Worker::with_config(&config(&place)).unwrap();
    let found = worker.recover([pidfd]).unwrap();
    assert!(found.errors.is_empty() && found.jobs.len() == 2, "{found:?}");
    for (recovered, job) in found.jobs {
        if recovered.job == of_label {
            assert_eq!(
                (&recovered.label[..], &job.label().unwrap()[..]),
                (&b"two"[..], &b"two"[..])
            );
            let error = job.acknowledge().unwrap_err();
            assert!(matches!(error, Error::Job(JobError::NotFinished(_))), "{error}");
            job.kill().unwrap();
            job.wait().unwrap();
            job.acknowledge().unwrap();
        } else {
            // Its input has ended with the worker. Nobody has acknowledged it.
            assert_eq!(job.wait().unwrap().exit, Exit::Code(4));
        }
    }
    drop(worker);
    let worker = Worker::with_config(&config(&place)).unwrap();
    let mut found = worker.recover([]).unwrap();
    assert_eq!(found.jobs.len(), 1, "{found:?}");
    let (recovered, job) = found.jobs.remove(0);
    assert_eq!((recovered.job, recovered.found), (id, Found::Finished));
    assert_eq!(job.wait().unwrap().exit, Exit::Code(4));
    job.acknowledge().unwrap();
    drop(job);
    assert_eq!(worker.recover([]).unwrap().jobs.len(), 0);
    drop(worker);
    assert_eq!(directories(place.cgroup.as_deref().unwrap()), Vec::<PathBuf>::new());
}

/// Tries to change the records of all groups beside its own, and of its own; prints how it went.
const FORGER: &str = r#"
import os, sys
own = next(l.strip()[3:] for l in open("/proc/self/cgroup") if l.startswith("0::"))
parent = os.path.dirname(sys.argv[1] + own)
def attempt(what, act):
    try: act(); print(what, "done")
    except OSError as error: print(what, os.strerror(error.errno))
for name in sorted(os.listdir(parent)):
    group = os.path.join(parent, name)
    if "@host" not in name or name.startswith("jobworker"): continue
    whose = "own" if group.endswith(os.path.basename(own)) else "other"
    attempt(whose + " write", lambda: os.setxattr(group, "user.jobworker", b"forged"))
    attempt(whose + " remove", lambda: os.removexattr(group, "user.jobworker"))
    attempt(whose + " rename", lambda: os.rename(group, group + "x"))
attempt("make", lambda: os.mkdir(os.path.join(parent, "0d8f7a3c-51b6-4e02-8a57-c4f1de90ab12@host")))
print("ready", flush=True)
import time
time.sleep(1000)
"#;

/// Starts a forger beside another job, and returns what it has printed.
fn forge(world: &mut World, uid: Option<u32>) -> Option<(JobId, JobId, String)> {
    if !fs::exists("/usr/bin/python3").unwrap() {
        skip("python3 is needed");
        return None;
    }
    let victim = spawn_until_ready(world, &lasting("echo ready; exec sleep 1000"));
    let mount = crate::support::cgroup_mount().unwrap();
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", FORGER]).arg(mount).survives(true);
    uid.into_iter().for_each(|uid| _ = command.uid(uid).gid(uid));
    let forger = world.spawn(&command);
    let tail = world.tail(forger, Position::Start);
    world.until("it has tried", |world| world.text(tail).ends_with("ready\n"));
    Some((victim, forger, world.text(tail)))
}

#[test]
fn hostile_a_job_of_another_user_can_change_no_record() {
    let Some(mut world) = world() else { return };
    if !rustix::process::geteuid().is_root() {
        skip("only root can run a job as another user");
        return;
    }
    let Some((victim, forger, tried)) = forge(&mut world, Some(65534)) else { return };
    assert_eq!(tried.matches("Permission denied").count(), 7, "{tried}");
    assert_eq!(tried.matches("done").count(), 0, "{tried}");
    let mut world = next(world);
    let found = recover(&mut world);
    assert!(found.len() == 2 && found.iter().all(|found| found.found == Found::Running));
    for job in [victim, forger] {
        world.reactor.kill(job).unwrap();
        world.finish(job);
    }
    world.reactor.remove(victim).unwrap();
    remove_last(&mut world, forger);
}

#[test]
fn hostile_a_job_of_the_hosts_user_can_destroy_records_and_is_ended_for_it() {
    let Some(mut world) = world() else { return };
    let Some((victim, forger, tried)) = forge(&mut world, None) else { return };
    for (what, count) in [("own write done", 1), ("other remove done", 1), ("rename", 2)] {
        assert_eq!(tried.matches(what).count(), count, "{tried}");
    }
    assert!(!tried.contains("rename done") && tried.contains("make done"), "{tried}");
    let mains = [victim, forger].map(|job| pidfd(pid(&world, job)));
    let mut world = next(world);
    let found = recover(&mut world);
    let count = |wanted| found.iter().filter(|found| found.found == wanted).count();
    // The third is the group that it has made, which is like one whose host has died at once.
    assert_eq!((count(Found::Damaged), found.len()), (2, 2), "what it has made was removed");
    for Recovered { job, found, .. } in found {
        let report = world.finish(job);
        assert_eq!(report.exit, Exit::Unknown);
        assert_eq!(report.killed, found == Found::Damaged, "only what was there was killed");
        assert_eq!(report.stopped_by.is_some(), report.killed);
        world.reactor.remove(job).unwrap();
    }
    for main in &mains {
        assert!(is_dead(main), "nothing gets away by removing its record");
        polled(&mut world, "it is reaped", || is_reaped(main));
    }
    assert_eq!(world.reactor.stray_logs().unwrap().len(), 2, "their logs are kept");
    assert_eq!(directories(world.place.cgroup.as_deref().unwrap()), Vec::<PathBuf>::new());
}

/// Like [`next`], for a host that keeps a history.
fn next_with_history(world: World) -> (World, History) {
    let World { reactor, place, .. } = world;
    drop(reactor);
    let dir = place.dir.path().join("history");
    fs::DirBuilder::new().mode(0o700).recursive(true).create(&dir).unwrap();
    let mut config = config(&place);
    config.history(&dir);
    let reactor = Reactor::with_config(&config).unwrap();
    (World::around(reactor, place), History::open(&dir).unwrap())
}

fn read_record(group: &Path) -> Vec<u8> {
    let mut record = vec![0; 1 << 16];
    let length = getxattr(group, RECORD, &mut record).unwrap();
    record.truncate(length);
    record
}

#[test]
fn an_exit_that_the_history_knows_outlives_the_record() {
    let Some(world) = world() else { return };
    let (mut world, history) = next_with_history(world);
    let mut command = lasting("echo ready; read line; exit 3");
    command.stdin(Stdin::Piped).label("mine");
    let jobs = [0; 4].map(|_| spawn_until_ready(&mut world, &command));
    let [unchanged, removed, damaged, entered] = jobs;
    let groups = jobs.map(|job| world.place.group(job));
    let running = read_record(&groups[0]);
    for job in jobs {
        drop(world.reactor.take_stdin(job).unwrap());
        assert_eq!(world.finish(job).exit, Exit::Code(3));
    }
    // As if it could not be changed since the job was started.
    setxattr(&groups[0], RECORD, &running, XattrFlags::REPLACE).unwrap();
    removexattr(&groups[1], RECORD).unwrap();
    setxattr(&groups[2], RECORD, b"nonsense", XattrFlags::REPLACE).unwrap();
    removexattr(&groups[3], RECORD).unwrap();
    let mut stranger = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    fs::write(groups[3].join("cgroup.procs"), stranger.id().to_string()).unwrap();

    let (mut world, _) = next_with_history(world);
    let found = recover(&mut world);
    for Recovered { job, label, found, .. } in &found {
        let wanted = if *job == entered { Found::Damaged } else { Found::Finished };
        assert_eq!((*found, &label[..]), (wanted, &b"mine"[..]));
    }
    assert_eq!(found.len(), 4);
    for job in jobs {
        let report = world.finish(job);
        assert_eq!((report.exit, world.exited[&job]), (Exit::Code(3), Exit::Code(3)));
        assert_eq!((report.killed, report.output_bytes), (job == entered, 6), "{report:?}");
        let entry = history.read(job).unwrap().unwrap();
        assert_eq!((entry.report.exit, &entry.label[..]), (Exit::Code(3), &b"mine"[..]));
    }
    stranger.wait().unwrap();
    for job in [unchanged, removed, damaged] {
        world.reactor.remove(job).unwrap();
    }
    remove_last(&mut world, entered);
}

#[test]
fn a_report_that_the_history_lacks_is_written_by_the_next_host_and_one_it_has_is_left() {
    let Some(mut world) = world() else { return };
    let job = world.spawn(lasting("exit 3").label("first"));
    world.finish(job);
    let (mut world, history) = next_with_history(world);
    assert_eq!(recover_one(&mut world).found, Found::Finished);
    let entry = history.read(job).unwrap().unwrap();
    assert_eq!((entry.report.exit, &entry.label[..]), (Exit::Code(3), &b"first"[..]));
    assert!(problems(&world.finish(job)).is_empty());

    let file = world.place.dir.path().join("history").join(format!("{job}.report"));
    let before = fs::metadata(&file).unwrap().ino();
    let held = fs::File::open(&file).unwrap();
    let (mut world, _) = next_with_history(world);
    assert_eq!(recover_one(&mut world).found, Found::Finished);
    assert_eq!(fs::metadata(&file).unwrap().ino(), before);
    drop(held);
    // The label of a finished job is one of its history as well.
    world.reactor.set_label(job, "second").unwrap();
    assert_eq!(history.read(job).unwrap().unwrap().label, b"second");
    // All or nothing.
    let dir = file.parent().unwrap();
    fs::rename(&file, dir.join("away")).unwrap();
    fs::create_dir(&file).unwrap();
    let error = world.reactor.set_label(job, "third").unwrap_err();
    assert!(error.to_string().contains("write report"), "{error}");
    assert_eq!(world.reactor.label(job).unwrap(), b"second");
    assert_eq!(fs::read_dir(dir).unwrap().count(), 2, "nothing unfinished is left");
    let mut world = next(world);
    assert_eq!(recover_one(&mut world).label, b"second");
    remove_last(&mut world, job);
}

#[test]
fn a_group_without_a_record_is_damaged_if_it_was_used_and_its_log_is_kept() {
    let Some(mut world) = world() else { return };
    let jobs = [0; 3].map(|_| world.spawn(&lasting("echo text; exit 3")));
    let groups = jobs.map(|job| {
        world.finish(job);
        world.place.group(job)
    });
    for group in &groups {
        removexattr(group, RECORD).unwrap();
    }
    // One like those that a host makes which dies at once, and one with a child.
    for group in &groups[1..] {
        fs::remove_dir(group).unwrap();
        fs::create_dir(group).unwrap();
    }
    fs::create_dir(groups[2].join("child")).unwrap();
    let mut world = next(world);
    let found = recover(&mut world);
    let log = |world: &World, job| world.place.logs().join(format!("{job}.log"));
    assert!(!log(&world, jobs[1]).exists() && !groups[1].exists(), "there never was a job");
    assert_eq!(found.len(), 2);
    for job in [jobs[0], jobs[2]] {
        let found = found.iter().find(|found| found.job == job).unwrap().found;
        assert_eq!(found, Found::Damaged);
        let report = world.finish(job);
        assert_eq!((report.exit, report.killed, report.stopped_by), (Exit::Unknown, false, None));
        world.reactor.remove(job).unwrap();
        assert!(log(&world, job).exists());
    }
    assert_eq!(world.reactor.stray_logs().unwrap().len(), 2);
    assert_eq!(directories(world.place.cgroup.as_deref().unwrap()), Vec::<PathBuf>::new());
}

#[test]
fn a_log_that_is_kept_short_stays_short_and_its_hole_is_never_read() {
    let Some(mut world) = world() else { return };
    let keep = ByteSize::from_kib(64);
    let mut command = lasting("seq 1000000; echo ready >&2; read line; seq 1000000");
    command.stdin(Stdin::Piped).output(Output::Split).log_keep(keep);
    let job = world.spawn(&command);
    let mut done = lasting("seq 1000000");
    let done = world.spawn(done.log_keep(keep));
    world.finish(done);
    let mut options = TailOptions::new(Position::Offset(0));
    let mut errors = options;
    errors.stream(Stream::Error);
    let tail = world.tail(job, errors);
    world.until("the first half is printed", |world| world.text(tail) == "ready\n");
    // It goes on at the end of its input, while there is no host.
    let mut world = next(world);
    let mut recovery = world.reactor.recovery().unwrap();
    while let Some(found) = world.reactor.recover(&mut recovery, Token(0)).unwrap() {
        let tail = world.reactor.tail(found.job, options.snapshot(), Token(0)).unwrap();
        let mut buffer = [0; 4096];
        // Before anything else happens.
        let Read::Skipped { bytes } = world.reactor.read(tail, &mut buffer).unwrap() else {
            panic!("what was given back cannot be read")
        };
        assert!(bytes > 1 << 20, "{bytes}");
        let Read::Data(length) = world.reactor.read(tail, &mut buffer).unwrap() else { panic!() };
        assert!(!buffer[..length].contains(&0), "{:?}", &buffer[..length]);
        world.reactor.close(tail).unwrap();
    }
    let report = world.finish(job);
    let whole: u64 = (1..=1_000_000u32).map(|number| number.to_string().len() as u64 + 1).sum();
    assert_eq!(report.output_bytes, 2 * whole);
    let output = world.reactor.status(job).unwrap().output.unwrap();
    polled(&mut world, "it is as short as it is to be", || allocated(&output) < 200_000);
    world.reactor.remove(done).unwrap();
    remove_last(&mut world, job);
}

/// By its offset alone, a reader would go on in the middle of what the log is now.
#[test]
fn a_bookmark_tells_a_reader_of_a_truncation_while_there_was_no_host() {
    let Some(mut world) = world() else { return };
    let text = numbers(1000);
    for (more, is_anew) in [("more", false), ("", false), ("x", true), ("", true)] {
        let job = world.spawn(&lasting("seq 1000; exec sleep 1000"));
        let tail = world.tail(job, Position::Start);
        world.until("everything is read", |world| world.transcripts[&tail].bytes == text);
        let bookmark = world.reactor.bookmark(tail).unwrap().to_string();
        let output = world.reactor.status(job).unwrap().output.unwrap();
        world = next(world);
        let expected = if is_anew { more.repeat(10_000) } else { more.to_owned() };
        if is_anew {
            fs::write(&output, &expected).unwrap();
        } else {
            append(&output, &expected);
        }
        assert_eq!(recover_one(&mut world).job, job);
        let position = Position::After(bookmark.parse().unwrap());
        let tail = world.reactor.tail(job, position, Token(0)).unwrap();
        let (mut buffer, mut found) = (vec![0; 1 << 16], Vec::new());
        if is_anew {
            assert_eq!(world.reactor.read(tail, &mut buffer).unwrap(), Read::Truncated);
        }
        world.reactor.kill(job).unwrap();
        world.finish(job);
        while let Read::Data(length) = world.reactor.read(tail, &mut buffer).unwrap() {
            found.extend_from_slice(&buffer[..length]);
        }
        assert_eq!(String::from_utf8(found).unwrap(), expected);
        // Of a job that has finished as well.
        let tail = world.reactor.tail(job, position, Token(0)).unwrap();
        let first = world.reactor.read(tail, &mut buffer).unwrap();
        match (is_anew, expected.len()) {
            (true, _) => assert_eq!(first, Read::Truncated),
            (false, 0) => assert_eq!(first, Read::Ended),
            (false, length) => assert_eq!(first, Read::Data(length)),
        }
        remove_last(&mut world, job);
    }
}

/// Its command says nothing of that, so the record does not either.
#[test]
fn a_log_that_was_given_back_for_others_is_not_read_as_zeros_by_the_next_host() {
    let total = |config: &mut Config| _ = config.name("host").logs_total(ByteSize::from_kib(150));
    let Some(mut world) = World::with(total) else { return };
    let [first, second] = [(); 2].map(|()| {
        let job = world.spawn(&lasting("seq 20000"));
        world.finish(job);
        job
    });
    let range = |world: &World, job| world.reactor.status(job).unwrap().output_range.unwrap();
    let size = range(&world, second).end;
    world.until("the first is given back", |world| range(world, first) == (size..size));
    let mut world = next(world);
    assert_eq!(recover(&mut world).len(), 2);
    let mut buffer = [0; 4096];
    let options = *TailOptions::new(Position::Offset(0)).snapshot();
    let tail = world.reactor.tail(first, options, Token(0)).unwrap();
    let skipped = world.reactor.read(tail, &mut buffer).unwrap();
    assert!(matches!(skipped, Read::Skipped { bytes } if bytes > size / 2), "{skipped:?}");
    while let Read::Data(length) = world.reactor.read(tail, &mut buffer).unwrap() {
        assert!(!buffer[..length].contains(&0));
    }
    assert_eq!(range(&world, second), 0..size);
    world.reactor.remove(first).unwrap();
    remove_last(&mut world, second);
}

/// Without its record, nobody knows how long it was to become.
#[test]
fn a_log_of_which_the_rest_was_discarded_is_read_up_to_the_hole_without_its_record() {
    let Some(mut world) = world() else { return };
    let mut command = lasting("seq 1000000; echo ready >&2; exec sleep 1000");
    command.output(Output::Split).log_limit(ByteSize::from_kib(64), OverLimit::Discard);
    let job = world.spawn(&command);
    let mut errors = TailOptions::new(Position::Start);
    let tail = world.tail(job, *errors.stream(Stream::Error));
    world.until("it is printed", |world| world.text(tail) == "ready\n");
    let log = world.reactor.status(job).unwrap().output.unwrap();
    polled(&mut world, "the rest is discarded", || allocated(&log) < 300_000);
    setxattr(world.place.group(job), RECORD, b"nonsense", XattrFlags::REPLACE).unwrap();

    let mut world = next(world);
    assert_eq!(recover_one(&mut world).found, Found::Damaged);
    let tails = [Position::Start, Position::LastLines(1)].map(|from| world.tail(job, from));
    let report = world.finish(job);
    let [at] = report
        .problems
        .iter()
        .filter_map(|problem| match problem {
            Error::Job(JobError::LogHole { path, at, .. }) if *path == log => Some(*at),
            _ => None,
        })
        .collect::<Vec<_>>()[..]
    else {
        panic!("{report:?}")
    };
    assert!((64 << 10..72 << 10).contains(&at), "{at}");
    let all = numbers(1_000_000);
    assert_eq!(report.output_bytes, at);
    assert_eq!(report.output_discarded, all.len() as u64 - at);
    assert_eq!(report.error_bytes, 6);
    let late = world.tail(job, Position::Start);
    world.until("it is read", |world| world.transcripts[&late].ended);
    let text = &all[..usize::try_from(at).unwrap()];
    for tail in [tails[0], late] {
        assert!(world.transcripts[&tail].bytes == text);
    }
    assert!(text.ends_with(&world.transcripts[&tails[1]].bytes));
    world.reactor.remove(job).unwrap();
    // It is kept as it was.
    assert_eq!(fs::metadata(&log).unwrap().len(), all.len() as u64);
    assert_eq!(world.reactor.stray_logs().unwrap().len(), 2);
}

/// A total for so many logs of `seq 20000` and half of another one.
fn total_of(logs: u64) -> impl Fn(&mut Config) {
    let size = numbers(20_000).len() as u64;
    move |config| _ = config.name("host").logs_total(ByteSize::from_bytes(logs * size + size / 2))
}

fn next_with_total(world: World, logs: u64) -> World {
    let World { reactor, place, .. } = world;
    drop(reactor);
    let mut config = place.config();
    total_of(logs)(&mut config);
    World::around(Reactor::with_config(&config).unwrap(), place)
}

/// Takes over jobs one by one, with turns in between.
fn recover_in_turns(world: &mut World) -> Vec<JobId> {
    let (mut recovery, mut found) = (world.reactor.recovery().unwrap(), Vec::new());
    while let Some(recovered) = world.reactor.recover(&mut recovery, Token(0)).unwrap() {
        found.push(recovered.job);
        world.turn(Some(Duration::ZERO));
        world.turn(Some(Duration::ZERO));
    }
    world.turn(Some(Duration::ZERO));
    world.turn(Some(Duration::ZERO));
    found
}

/// In whatever order they are found.
#[test]
fn the_logs_that_are_dropped_after_a_recovery_are_those_of_the_jobs_that_have_finished_first() {
    let Some(mut world) = world() else { return };
    let mut command = lasting("read line; seq 20000");
    command.stdin(Stdin::Piped);
    let jobs = [(); 5].map(|()| world.spawn(&command));
    let mut stdins: Vec<_> =
        jobs.iter().map(|job| (*job, world.reactor.take_stdin(*job).unwrap())).collect();
    // The one that is found first finishes last.
    let cgroup = world.place.cgroup.clone().unwrap();
    let names: Vec<String> = directories(&cgroup)
        .into_iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    let place = |job: JobId| names.iter().position(|name| name.starts_with(&job.to_string()));
    stdins.sort_by_key(|(job, _)| place(*job).unwrap());
    let mut finished = Vec::new();
    for (job, stdin) in stdins {
        drop(stdin);
        world.finish(job);
        finished.push(job);
    }
    let mut world = next_with_total(world, 3);
    let mut found = recover_in_turns(&mut world);
    found.reverse();
    assert_eq!(found, finished, "that would not show in which order they are dropped");
    let size = numbers(20_000).len() as u64;
    let range = |world: &World, job| world.reactor.status(job).unwrap().output_range.unwrap();
    let (dropped, kept) = finished.split_at(2);
    for job in dropped {
        assert_eq!(range(&world, *job), size..size);
    }
    for job in kept {
        assert_eq!(range(&world, *job), 0..size);
    }

    // What is left of those that are dropped cannot be given back, and is not counted again.
    let mut world = next_with_total(world, 3);
    recover_in_turns(&mut world);
    let before: Vec<_> = finished.iter().map(|job| range(&world, *job)).collect();
    assert!(before[..2].iter().all(|left| (1..4200).contains(&(left.end - left.start))));
    // With that it would be too much.
    let more = world.spawn(&lasting("printf %52000d 1"));
    world.finish(more);
    world.turn(Some(Duration::ZERO));
    let after: Vec<_> = finished.iter().map(|job| range(&world, *job)).collect();
    assert_eq!(after, before);
    for job in finished {
        world.reactor.remove(job).unwrap();
    }
    remove_last(&mut world, more);
}

#[test]
fn a_log_that_was_made_shorter_while_no_host_was_there_is_read_without_its_hole() {
    let Some(mut world) = world() else { return };
    let script = "seq 200000; echo ready >&2; read line; truncate -s 900000 /proc/$$/fd/1; \
                  echo more; echo done >&2; read line";
    let mut command = lasting(script);
    command.stdin(Stdin::Piped).output(Output::Split).log_keep(ByteSize::from_kib(64));
    let job = world.spawn(&command);
    let mut stdin = world.reactor.take_stdin(job).unwrap().unwrap();
    let mut errors = TailOptions::new(Position::Start);
    let tail = world.tail(job, *errors.stream(Stream::Error));
    world.until("it is printed", |world| world.text(tail) == "ready\n");
    let log = world.reactor.status(job).unwrap().output.unwrap();
    polled(&mut world, "it is short", || allocated(&log) < 300_000);
    let World { reactor, place, .. } = world;
    drop(reactor);
    stdin.write_all(b"\n").unwrap();
    let err = log.with_extension("err.log");
    until("it is made shorter", || fs::read_to_string(&err).unwrap().ends_with("done\n"));
    let mut world = World::around(Reactor::with_config(&config(&place)).unwrap(), place);
    assert_eq!(recover_one(&mut world).found, Found::Running);
    let tail = world.tail(job, Position::Start);
    drop(stdin);
    world.finish(job);
    let text = world.text(tail);
    assert!(!text.contains('\0') && text.ends_with("more\n"), "{} bytes", text.len());
    remove_last(&mut world, job);
}

#[test]
fn a_job_that_was_finished_ends_where_it_did_for_the_next_host_as_well() {
    let Some(mut world) = world() else { return };
    let mut command = lasting("echo one; (read line <$gate; echo two; echo >$gate) & exit 2");
    let gate = world.place.dir.path().join("gate");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &gate,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    let mut go_on = fs::OpenOptions::new().read(true).write(true).open(&gate).unwrap();
    let job = world.spawn(command.end_policy(EndPolicy::LeaveRest).env("gate", &gate));
    assert_eq!(world.finish(job).output_bytes, 4);
    go_on.write_all(b"\n").unwrap();
    let log = world.reactor.status(job).unwrap().output.unwrap();
    until("the rest is printed", || fs::metadata(&log).unwrap().len() == 8);
    let mut world = next(world);
    assert_eq!(recover_one(&mut world).found, Found::Finished);
    let tail = world.tail(job, Position::Start);
    world.until("it has ended", |world| world.transcripts[&tail].ended);
    assert_eq!(world.text(tail), "one\n");
    remove_last(&mut world, job);
}
