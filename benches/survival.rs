//! What it costs that a job survives its host, and how long the next host takes to find it.
//!
//! `/bin/true` is run with and without a record on its group, alternately, by the same reactor.
//! Then a host starts jobs that sleep, and is killed; another one recovers them.
//!
//! Invariant: every job is found running, with its label, and nothing is left of any of them; a
//! difference ends the program with status 1.

mod common;

use std::collections::HashSet;
use std::fs::Permissions;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::Instant;

use common::{Table, median, median_ratio, quantile, quick, thread_cpu, verdict};
use jobworker::{Command, Config, Event, Events, Exit, Found, Reactor, Signal, Token};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How many times as long the spawn of a job that survives may take.
const TARGET: f64 = 1.05;

fn main() -> ExitCode {
    raise_limit();
    if let Some(role) = common::role() {
        start_and_wait(Path::new(&role[1]), role[2].parse().unwrap());
        return ExitCode::SUCCESS;
    }
    common::finish(spawns().and_then(|()| recovery()))
}

/// A reactor of the host that is killed, or of the next one.
fn reactor(dir: &Path) -> Reactor {
    let name = format!("bench-{}", dir.file_name().unwrap().to_str().unwrap().replace('.', ""));
    Reactor::with_config(Config::new().name(&name).log_dir(dir)).unwrap()
}

/// Each job takes a descriptor.
fn raise_limit() {
    let hard = getrlimit(Resource::Nofile).maximum;
    let _ = setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard });
}

/// A directory that nobody else can use, as one of logs has to be.
fn scratch() -> tempfile::TempDir {
    let mut builder = tempfile::Builder::new();
    builder.prefix("jobworker-bench-").permissions(Permissions::from_mode(0o700));
    builder.tempdir().unwrap()
}

/// How long the call of `spawn` takes, the way to `Finished`, and the removal, in microseconds.
#[derive(Debug, Default)]
struct Times {
    spawn: Vec<f64>,
    finished: Vec<f64>,
    removed: Vec<f64>,
}

fn spawns() -> Result<(), String> {
    let turns = if quick() { 60 } else { 2_000 };
    let dir = scratch();
    let mut reactor = reactor(dir.path());
    let mut events = Events::with_capacity(64);
    let plain = Command::new("/bin/true");
    let mut lasting = plain.clone();
    lasting.survives(true).label("a job of the benchmark");
    let mut times = [Times::default(), Times::default()];
    for turn in common::turns(turns) {
        for place in 0..2 {
            let which = (turn + place) % 2;
            let command = if which == 0 { &plain } else { &lasting };
            run(&mut reactor, &mut events, command, &mut times[which])?;
        }
    }
    drop(reactor);
    let [plain, lasting] = &times;
    let mut table =
        Table::new(&["/bin/true", "plain us", "p99", "survives us", "p99", "ratio", ""]);
    for (name, plain, lasting) in [
        ("spawn", &plain.spawn, &lasting.spawn),
        ("to Finished", &plain.finished, &lasting.finished),
        ("and removed", &plain.removed, &lasting.removed),
    ] {
        let ratio = median_ratio(lasting, plain);
        table.row(vec![
            name.to_owned(),
            format!("{:.0}", median(plain)),
            format!("{:.0}", quantile(plain, 0.99)),
            format!("{:.0}", median(lasting)),
            format!("{:.0}", quantile(lasting, 0.99)),
            format!("{ratio:.3}"),
            if name == "spawn" { verdict(ratio, TARGET) } else { String::new() },
        ]);
    }
    table.print(&format!("With and without a record on the group; {} turns", plain.spawn.len()));
    Ok(())
}

fn run(
    reactor: &mut Reactor,
    events: &mut Events,
    command: &Command,
    times: &mut Times,
) -> Result<(), String> {
    let start = Instant::now();
    let microseconds = || start.elapsed().as_nanos() as f64 / 1e3;
    let job = reactor.spawn(command, Token(0)).unwrap();
    times.spawn.push(microseconds());
    loop {
        reactor.poll(events, None).unwrap();
        let finished = events.iter().find_map(|event| match event {
            Event::Finished { report, .. } => Some(report),
            _ => None,
        });
        let Some(report) = finished else { continue };
        times.finished.push(microseconds());
        if report.exit != Exit::Code(0) || !report.problems.is_empty() {
            return Err(format!("{report:?}"));
        }
        reactor.remove(job).unwrap();
        times.removed.push(microseconds());
        return Ok(());
    }
}

/// The host that is killed: starts so many jobs, says so, and does nothing more.
fn start_and_wait(dir: &Path, jobs: usize) {
    let mut reactor = reactor(dir);
    for job in 0..jobs {
        let mut command = Command::new("/bin/sleep");
        command.arg("1000000").survives(true).label(job.to_string());
        reactor.spawn(&command, Token(job)).unwrap();
    }
    println!("started");
    loop {
        std::thread::park();
    }
}

fn recovery() -> Result<(), String> {
    let (sizes, turns): (&[usize], _) = if quick() { (&[20], 1) } else { (&[10, 100, 1_000], 3) };
    let mut table =
        Table::new(&["jobs", "ms", "us of each", "CPU us of each", "longest call us", "first us"]);
    for jobs in sizes {
        let (mut whole, mut cpu, mut longest, mut first) = (vec![], vec![], vec![], vec![]);
        for _ in common::turns(turns) {
            let dir = scratch();
            kill_a_host(dir.path(), *jobs);
            let (start, cpu_before) = (Instant::now(), thread_cpu());
            let mut reactor = reactor(dir.path());
            let mut recovery = reactor.recovery().unwrap();
            first.push(start.elapsed().as_secs_f64());
            let mut labels = HashSet::new();
            let mut most = 0.0f64;
            loop {
                let call = Instant::now();
                let found = reactor.recover(&mut recovery, Token(0)).unwrap();
                most = most.max(call.elapsed().as_secs_f64());
                let Some(found) = found else { break };
                if found.found != Found::Running {
                    return Err(format!("{found:?}"));
                }
                labels.insert(found.label);
            }
            whole.push(start.elapsed().as_secs_f64());
            cpu.push((thread_cpu() - cpu_before).as_secs_f64());
            longest.push(most);
            if labels.len() != *jobs {
                return Err(format!("{} of {jobs} jobs were found", labels.len()));
            }
            end_all(&mut reactor)?;
        }
        let each = *jobs as f64;
        table.row(vec![
            jobs.to_string(),
            format!("{:.1}", median(&whole) * 1e3),
            format!("{:.0}", median(&whole) * 1e6 / each),
            format!("{:.0}", median(&cpu) * 1e6 / each),
            format!("{:.0}", median(&longest) * 1e6),
            format!("{:.0}", median(&first) * 1e6),
        ]);
    }
    table.print("A host with sleeping jobs was killed; first: the new reactor and its recovery");
    Ok(())
}

fn kill_a_host(dir: &Path, jobs: usize) {
    let jobs = jobs.to_string();
    let mut host = std::process::Command::new(std::env::current_exe().unwrap());
    host.args(["--role", "host", dir.to_str().unwrap(), &jobs]);
    host.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut host = host.spawn().unwrap();
    let mut started = String::new();
    BufReader::new(host.stdout.take().unwrap()).read_line(&mut started).unwrap();
    assert_eq!(started, "started\n", "the host has failed");
    host.kill().unwrap();
    host.wait().unwrap();
}

/// Ends and removes every job, and what the hosts have left to mark themselves.
fn end_all(reactor: &mut Reactor) -> Result<(), String> {
    let jobs: Vec<_> = reactor.jobs().collect();
    for job in &jobs {
        reactor.kill(*job).unwrap();
    }
    for job in jobs {
        let report = reactor.wait(job).unwrap();
        reactor.remove(job).unwrap();
        if !matches!(report.exit, Exit::Signal { signal: Signal::KILL, .. }) {
            return Err(format!("{report:?}"));
        }
    }
    reactor.sweep(Token(1)).unwrap();
    let mut events = Events::with_capacity(64);
    while !events.iter().any(|event| matches!(event, Event::Swept { .. })) {
        reactor.poll(&mut events, None).unwrap();
    }
    Ok(())
}
