//! What live jobs cost those beside them: with 10 to 10,000 jobs that sleep, how long another one
//! takes from spawn to `Finished`, how soon a tail has what another one writes, and how much memory
//! and how many descriptors of the host each job has; and the same of as many children of
//! `std::process`, which have neither group nor log.
//!
//! Each measurement is a process of its own, in turns, so that memory is that of one kind alone.
//!
//! Invariant: nothing is left of any of them: no process, group or descriptor. Otherwise the
//! program ends with status 1. What the machine does not allow is said, and is no failure.

#[path = "../../benches/common/mod.rs"]
mod common;
mod plot;

use std::fs;
use std::io::{self, Read as _, Write};
use std::path::Path;
use std::process::{Child, ExitCode, Stdio};

use common::{LINE, Table, cgroup_mount, in_role, line, median, monotonic, quantile, quick, stamp};
use jobworker::{
    Command, Config, Event, Events, Exit, JobId, Position, Reactor, Read, Signal, Stdin, TailId,
    Token,
};
use plot::{Axis, Plot};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, WaitId, WaitIdOptions, getrlimit, setrlimit, waitid};

/// How many descriptors are allowed, where that can be raised.
const DESCRIPTORS: u64 = 1 << 20;

const SLEEPER: [&str; 2] = ["/bin/sleep", "1000000"];

fn main() -> ExitCode {
    let result = match common::role() {
        Some(role) => match role[0].as_str() {
            "echo" => return write_when_asked(),
            "jobs" => measure_jobs(role[1].parse().unwrap(), role[2].parse().unwrap()),
            _ => measure_children(role[1].parse().unwrap(), role[2].parse().unwrap()),
        },
        None => measure(),
    };
    common::finish(result)
}

/// The job that prints: a line for each byte of its standard input.
fn write_when_asked() -> ExitCode {
    while io::stdin().read(&mut [0]).unwrap() == 1 {
        rustix::io::write(io::stdout(), &line(monotonic())).unwrap();
    }
    ExitCode::SUCCESS
}

/// What one process has measured: what it passes on to the one that started it.
#[derive(Debug, Default)]
struct Measured {
    /// How many jobs were live: fewer than asked for if there could not be more.
    live: usize,
    /// Of /bin/true beside them, in microseconds.
    ran: Vec<f64>,
    /// From a write of one of them to its tail, in microseconds.
    read: Vec<f64>,
    /// What each job adds to the host, in bytes and in descriptors.
    resident: f64,
    proportional: f64,
    descriptors: f64,
    why_fewer: Option<String>,
}

impl Measured {
    /// Prints it as the line that [`Measured::parse`] reads.
    fn print(&self) {
        let list =
            |values: &[f64]| values.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        println!(
            "{};{};{};{};{};{};{}",
            self.live,
            list(&self.ran),
            list(&self.read),
            self.resident,
            self.proportional,
            self.descriptors,
            self.why_fewer.as_deref().unwrap_or_default()
        );
    }

    fn parse(text: &str) -> Self {
        let fields: Vec<&str> = text.trim_end().splitn(7, ';').collect();
        let number = |field: usize| fields[field].parse::<f64>().unwrap();
        let list = |field: usize| {
            let values = fields[field].split(',').filter(|value| !value.is_empty());
            values.map(|value| value.parse().unwrap()).collect()
        };
        Self {
            live: fields[0].parse().unwrap(),
            ran: list(1),
            read: list(2),
            resident: number(3),
            proportional: number(4),
            descriptors: number(5),
            why_fewer: Some(fields[6].to_owned()).filter(|why| !why.is_empty()),
        }
    }
}

/// What this process has of the system.
struct Owned {
    resident: f64,
    proportional: f64,
    descriptors: f64,
}

impl Owned {
    fn now() -> Self {
        let rollup = fs::read_to_string("/proc/self/smaps_rollup").unwrap();
        let bytes = |name: &str| {
            let line = rollup.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|line| line.split_whitespace().next()).unwrap();
            kib.parse::<f64>().unwrap() * 1024.0
        };
        // The one by which the directory is read is always there.
        let descriptors = fs::read_dir("/proc/self/fd").unwrap().count() as f64;
        Self { resident: bytes("Rss:"), proportional: bytes("Pss:"), descriptors }
    }

    /// Adds to a measurement what each of its jobs has added since.
    fn each(&self, now: &Self, measured: &mut Measured) {
        let live = measured.live as f64;
        measured.resident = (now.resident - self.resident) / live;
        measured.proportional = (now.proportional - self.proportional) / live;
        measured.descriptors = (now.descriptors - self.descriptors) / live;
    }
}

/// Allows itself as many descriptors as there may be.
fn raise_limit() {
    let hard = getrlimit(Resource::Nofile).maximum;
    let most = hard.map_or(DESCRIPTORS, |hard| hard.max(DESCRIPTORS));
    let limit = |most| Rlimit { current: most, maximum: most };
    // Beyond the hard limit only as root, and not beyond fs.nr_open.
    if setrlimit(Resource::Nofile, limit(Some(most))).is_err() {
        let _ = setrlimit(Resource::Nofile, limit(hard));
    }
}

/// Fails if a child is left or the descriptors are not as before.
fn nothing_is_left(before: &Owned) -> Result<(), String> {
    match waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
        Err(Errno::CHILD) => {}
        other => return Err(format!("a child is left: {other:?}")),
    }
    let (before, now) = (before.descriptors, Owned::now().descriptors);
    if now == before { Ok(()) } else { Err(format!("{now} descriptors instead of {before}")) }
}

/// In a process of its own: so many jobs, and so many turns beside them.
fn measure_jobs(count: usize, turns: usize) -> Result<(), String> {
    raise_limit();
    let before = Owned::now();
    let made = tempfile::Builder::new().prefix("jobworker-bench-").tempdir_in(cgroup_mount());
    let group = made.map_err(|error| error.to_string())?.keep();
    let measured = beside_jobs(&group, count, turns);
    // Not possible as long as there is a group in it.
    fs::remove_dir(&group).map_err(|error| format!("{}: {error}", group.display()))?;
    nothing_is_left(&before)?;
    measured?.print();
    Ok(())
}

fn beside_jobs(group: &Path, count: usize, turns: usize) -> Result<Measured, String> {
    let mut reactor = Reactor::with_config(Config::new().cgroup_parent(group)).unwrap();
    let mut events = Events::with_capacity(1024);
    let echo = reactor.spawn(in_role(["echo"]).stdin(Stdin::Piped), Token(0)).unwrap();
    let mut ask = reactor.take_stdin(echo).unwrap().unwrap();
    let tail = reactor.tail(echo, Position::Start, Token(0)).unwrap();
    // All that is needed once is there by then.
    run_true(&mut reactor, &mut events)?;
    read_line(&mut reactor, &mut events, tail, &mut ask)?;

    let alone = Owned::now();
    let mut sleeper = Command::new(SLEEPER[0]);
    sleeper.arg(SLEEPER[1]);
    let mut measured = Measured::default();
    let mut jobs: Vec<JobId> = Vec::with_capacity(count);
    while jobs.len() < count {
        match reactor.spawn(&sleeper, Token(1)) {
            Ok(job) => jobs.push(job),
            Err(error) => {
                measured.why_fewer = Some(error.to_string().replace('\n', " "));
                // So that there is room for one beside them.
                let spared = jobs.split_off(jobs.len() - jobs.len() / 20);
                end(&mut reactor, &mut events, &spared)?;
                break;
            }
        }
    }
    measured.live = jobs.len();
    alone.each(&Owned::now(), &mut measured);
    for _ in 0..turns {
        measured.ran.push(run_true(&mut reactor, &mut events)?);
        measured.read.push(read_line(&mut reactor, &mut events, tail, &mut ask)?);
    }
    drop(ask);
    end(&mut reactor, &mut events, &jobs)?;
    let report = reactor.wait(echo).unwrap();
    if report.exit != Exit::Code(0) {
        return Err(format!("the job that prints: {}", report.exit));
    }
    Ok(measured)
}

/// Runs /bin/true as a job to its end; in microseconds.
fn run_true(reactor: &mut Reactor, events: &mut Events) -> Result<f64, String> {
    let start = monotonic();
    let job = reactor.spawn(&Command::new("/bin/true"), Token(2)).unwrap();
    loop {
        reactor.poll(events, None).unwrap();
        let now = monotonic();
        for event in &*events {
            if let Event::Finished { report, token: Token(2), .. } = event {
                reactor.remove(job).unwrap();
                return match report.exit {
                    Exit::Code(0) => Ok((now - start) as f64 / 1e3),
                    other => Err(format!("/bin/true: {other}")),
                };
            }
        }
    }
}

/// Has a line printed, and reads it; in microseconds from the write.
fn read_line(
    reactor: &mut Reactor,
    events: &mut Events,
    tail: TailId,
    ask: &mut impl Write,
) -> Result<f64, String> {
    ask.write_all(b"x").unwrap();
    let (mut found, mut buffer) = (Vec::new(), [0; 4096]);
    while found.len() < LINE {
        reactor.poll(events, None).unwrap();
        while let Read::Data(length) = reactor.read(tail, &mut buffer).unwrap() {
            found.extend_from_slice(&buffer[..length]);
        }
    }
    let (now, then) = (monotonic(), stamp(&found));
    if found != line(then) {
        return Err(format!("not a line: {:?}", String::from_utf8_lossy(&found)));
    }
    Ok((now - then) as f64 / 1e3)
}

/// Kills jobs and waits until nothing is left of them.
fn end(reactor: &mut Reactor, events: &mut Events, jobs: &[JobId]) -> Result<(), String> {
    for job in jobs {
        reactor.kill(*job).unwrap();
    }
    let mut left = jobs.len();
    while left > 0 {
        reactor.poll(events, None).unwrap();
        for event in &*events {
            let Event::Finished { job, report, token: Token(1) } = event else { continue };
            if report.exit.signal() != Some(Signal::KILL) || !report.problems.is_empty() {
                return Err(format!("{job}: {}, {:?}", report.exit, report.problems));
            }
            reactor.remove(*job).unwrap();
            left -= 1;
        }
    }
    Ok(())
}

/// In a process of its own: so many children of `std::process`, and so many turns beside them.
fn measure_children(count: usize, turns: usize) -> Result<(), String> {
    raise_limit();
    let command = |words: &[&str]| {
        let mut command = std::process::Command::new(words[0]);
        command.args(&words[1..]).env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let run_true = || {
        let start = monotonic();
        let status = command(&["/bin/true"]).spawn().unwrap().wait().unwrap();
        let time = (monotonic() - start) as f64 / 1e3;
        if status.success() { Ok(time) } else { Err(format!("/bin/true: {status}")) }
    };
    let before = Owned::now();
    run_true()?;
    let alone = Owned::now();
    let mut measured = Measured::default();
    let mut children: Vec<Child> = Vec::with_capacity(count);
    while children.len() < count {
        match command(&SLEEPER).spawn() {
            Ok(child) => children.push(child),
            Err(error) => {
                measured.why_fewer = Some(error.to_string());
                let spared = children.split_off(children.len() - children.len() / 20);
                end_children(spared);
                break;
            }
        }
    }
    measured.live = children.len();
    alone.each(&Owned::now(), &mut measured);
    for _ in 0..turns {
        measured.ran.push(run_true()?);
    }
    end_children(children);
    nothing_is_left(&before)?;
    measured.print();
    Ok(())
}

fn end_children(mut children: Vec<Child>) {
    for child in &mut children {
        child.kill().unwrap();
    }
    for child in &mut children {
        child.wait().unwrap();
    }
}

/// All measurements of one kind and number of jobs.
#[derive(Debug)]
struct Case {
    kind: &'static str,
    asked: usize,
    turns: Vec<Measured>,
}

impl Case {
    fn over(&self, value: impl Fn(&Measured) -> f64) -> f64 {
        median(&self.turns.iter().map(value).collect::<Vec<_>>())
    }

    fn live(&self) -> usize {
        self.turns.iter().map(|turn| turn.live).min().unwrap_or(0)
    }
}

fn measure() -> Result<(), String> {
    let (sizes, rounds, turns): (&[usize], _, _) =
        if quick() { (&[10, 100, 1_000], 1, 30) } else { (&[10, 100, 1_000, 10_000], 3, 200) };
    let kinds = ["jobs", "children"];
    let mut cases: Vec<Case> = Vec::new();
    for kind in kinds {
        cases.extend(sizes.iter().map(|size| Case { kind, asked: *size, turns: Vec::new() }));
    }
    for _ in 0..rounds {
        for size in 0..sizes.len() {
            for kind in 0..kinds.len() {
                let case = &mut cases[kind * sizes.len() + size];
                case.turns.push(run(case.kind, case.asked, turns)?);
            }
        }
    }

    let mut table = Table::new(&[
        "live",
        "/bin/true p50 us",
        "p99",
        "of first",
        "write to tail p50 us",
        "p99",
        "of first",
        "RSS each",
        "PSS each",
        "descriptors each",
    ]);
    for (place, case) in cases.iter().enumerate() {
        let first = &cases[place / sizes.len() * sizes.len()];
        let ran = |part| move |turn: &Measured| quantile(&turn.ran, part);
        let read = |part| move |turn: &Measured| quantile(&turn.read, part);
        let has_tail = case.kind == "jobs";
        let cell = |value: f64, digits: usize| {
            if has_tail { format!("{value:.digits$}") } else { String::new() }
        };
        table.row(vec![
            format!("{} {}", case.live(), case.kind),
            format!("{:.0}", case.over(ran(0.5))),
            format!("{:.0}", case.over(ran(0.99))),
            format!("{:.2}", case.over(ran(0.5)) / first.over(ran(0.5))),
            cell(case.over(read(0.5)), 1),
            cell(case.over(read(0.99)), 1),
            cell(case.over(read(0.5)) / first.over(read(0.5)), 2),
            format!("{:.0}", case.over(|turn| turn.resident)),
            format!("{:.0}", case.over(|turn| turn.proportional)),
            format!("{:.2}", case.over(|turn| turn.descriptors)),
        ]);
    }
    table.print(&format!(
        "Beside live jobs, and beside children of std::process; medians of {rounds} processes with \
         {turns} turns each"
    ));
    println!("each: bytes and descriptors that the host has for each job; nothing was left");
    for case in &cases {
        if let Some(why) = case.turns.iter().find_map(|turn| turn.why_fewer.as_ref()) {
            println!("{} {} were not possible here: {why}", case.asked, case.kind);
        }
    }
    draw(&cases);
    Ok(())
}

/// Starts a process for one measurement.
fn run(kind: &str, count: usize, turns: usize) -> Result<Measured, String> {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--role", kind, &count.to_string(), &turns.to_string()]);
    let output = command.stderr(Stdio::inherit()).output().unwrap();
    if !output.status.success() {
        return Err(format!("{count} {kind}: {}", output.status));
    }
    Ok(Measured::parse(&String::from_utf8(output.stdout).unwrap()))
}

fn draw(cases: &[Case]) {
    let line = |name: &str, kind: &str, value: fn(&Measured) -> f64| {
        let cases = cases.iter().filter(|case| case.kind == kind);
        let points = cases.map(|case| (case.live() as f64, case.over(value))).collect();
        (name.to_owned(), points)
    };
    Plot {
        title: "Beside live jobs",
        x: Axis { name: "live jobs or children", logarithmic: true },
        y: Axis { name: "microseconds, median", logarithmic: true },
        lines: vec![
            line("jobworker: spawn to Finished", "jobs", |turn| median(&turn.ran)),
            line("std::process: spawn to end", "children", |turn| median(&turn.ran)),
            line("jobworker: write to tail", "jobs", |turn| median(&turn.read)),
        ],
        marked: true,
    }
    .write("scale");
}
