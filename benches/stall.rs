//! How long hostile jobs can hold up a reactor that also serves a quiet one: the longest call, the
//! longest poll, and how soon the quiet job's lines are read, each beside the same without them.
//!
//! A poll is timed from when the reactor's descriptor is readable: waiting is not counted. Times of
//! the processor are given beside those of the clock, because some of these jobs take both
//! processors of a small machine, which no reactor can help.
//!
//! Words select jobs by their name: `cargo bench --bench stall -- groups`.
//!
//! Invariant: every line of the quiet job arrives, in order; anything else ends the program with
//! status 1.

mod common;

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use common::{
    Table, cgroup_mount, in_role, median, monotonic, quantile, quick, thread_cpu, verdict,
};
use jobworker::{
    Command, Event, Events, Fill, JobId, Position, Reactor, Signal, TailId, TailOptions, Token,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, Rlimit, setrlimit};

/// Milliseconds that no call and no poll may take.
const TARGET: f64 = 2.0;

/// How many times as long as without hostile jobs a line of the quiet job may take.
const LATENCY_TARGET: f64 = 2.0;

const QUIET: Token = Token(usize::MAX);

/// What the hostile jobs do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hostile {
    Nothing,
    Processes(usize),
    Groups(usize),
    Levels(usize),
    SparseLog,
    Truncations,
    /// Followed, or not: what the writers take from the processors is not the reactor's.
    LoudWriters {
        number: usize,
        followed: bool,
    },
    EndsAtOnce(usize),
    Tails {
        logs: usize,
        each: usize,
    },
}

/// One reactor with its quiet job, and what was measured.
struct Host {
    reactor: Reactor,
    events: Events,
    quiet: TailId,
    /// The number of the quiet job's next line.
    next: u64,
    latencies: Vec<f64>,
    /// The longest call and the longest poll, in milliseconds of the clock and of the processor.
    call: (f64, f64, &'static str),
    poll: (f64, f64),
    finished: HashSet<JobId>,
    /// The tail of a job that is to print that it is ready.
    awaited: Option<TailId>,
}

impl Host {
    fn new() -> Self {
        let mut reactor = Reactor::new().unwrap();
        let job = reactor.spawn(&in_role(["quiet"]), QUIET).unwrap();
        let quiet = reactor.tail(job, Position::Start, QUIET).unwrap();
        Self {
            reactor,
            events: Events::with_capacity(1024),
            quiet,
            next: 0,
            latencies: Vec::new(),
            call: (0.0, 0.0, "-"),
            poll: (0.0, 0.0),
            finished: HashSet::new(),
            awaited: None,
        }
    }

    /// Makes a call and times it.
    fn call<T>(&mut self, name: &'static str, call: impl FnOnce(&mut Reactor) -> T) -> T {
        let (cpu, start) = (thread_cpu(), Instant::now());
        let result = call(&mut self.reactor);
        let (wall, cpu) = (milliseconds(start.elapsed()), milliseconds(thread_cpu() - cpu));
        if wall > self.call.0 {
            self.call = (wall, cpu, name);
        }
        result
    }

    /// Waits until there is something to do, at most this long, then polls once.
    fn turn(&mut self, timeout: Duration) {
        let timeout = Timespec::try_from(timeout).unwrap();
        let mut ready = [PollFd::from_borrowed_fd(self.reactor.as_fd(), PollFlags::IN)];
        let _ = poll(&mut ready, Some(&timeout));
        let (cpu, start) = (thread_cpu(), Instant::now());
        self.reactor.poll(&mut self.events, Some(Duration::ZERO)).unwrap();
        let (wall, cpu) = (milliseconds(start.elapsed()), milliseconds(thread_cpu() - cpu));
        if wall > self.poll.0 {
            self.poll = (wall, cpu);
        }
        let mut readable = Vec::new();
        for event in &self.events {
            match event {
                Event::Readable { tail, .. } => readable.push(*tail),
                Event::Finished { job, .. } => drop(self.finished.insert(*job)),
                _ => {}
            }
        }
        // First the quiet one, as a host would that knows what matters to it.
        if let Some(place) = readable.iter().position(|tail| *tail == self.quiet) {
            readable.swap_remove(place);
            self.read_quiet();
        }
        for tail in readable {
            // Also at the end of a job that prints nothing.
            self.awaited = self.awaited.filter(|awaited| *awaited != tail);
            // No more than a piece at a time, from one that may have no end.
            for _ in 0..2 {
                let length = match self.reactor.fill_buf(tail) {
                    Ok(Fill::Data(bytes)) => bytes.len(),
                    Ok(Fill::Truncated | Fill::Skipped { .. } | Fill::Replaced { .. }) => 0,
                    _ => break,
                };
                self.reactor.consume(tail, length).unwrap();
            }
        }
    }

    fn read_quiet(&mut self) {
        while let Fill::Data(bytes) = self.reactor.fill_buf(self.quiet).unwrap() {
            let (now, mut length) = (monotonic(), 0);
            for line in bytes.split_inclusive(|byte| *byte == b'\n') {
                let Some(line) = line.strip_suffix(b"\n") else { break };
                let text = std::str::from_utf8(line).unwrap();
                let (number, time) = text.split_once(' ').unwrap();
                assert_eq!(number.parse(), Ok(self.next), "a line of the quiet job was lost");
                self.next += 1;
                self.latencies.push((now - time.parse::<u64>().unwrap()) as f64 / 1e3);
                length += line.len() + 1;
            }
            if length == 0 {
                return;
            }
            self.reactor.consume(self.quiet, length).unwrap();
        }
    }

    /// Takes turns until the quiet job has printed so many more lines.
    fn serve(&mut self, lines: u64) {
        let until = self.next + lines;
        while self.next < until {
            self.turn(Duration::from_secs(1));
        }
    }

    /// Spawns a job and takes turns until it prints that it is ready.
    fn spawn_ready(&mut self, words: &[&str]) -> JobId {
        let job = self.call("spawn", |reactor| {
            reactor.spawn(&in_role(words.iter().copied()), Token(0)).unwrap()
        });
        let tail = self.reactor.tail(job, Position::Start, Token(0)).unwrap();
        self.awaited = Some(tail);
        while self.awaited.is_some() {
            self.turn(Duration::from_secs(1));
        }
        self.reactor.close(tail).unwrap();
        job
    }

    /// Takes turns until all of these are finished, then removes them.
    fn end(&mut self, jobs: &[JobId]) {
        while !jobs.iter().all(|job| self.finished.contains(job)) {
            self.turn(Duration::from_secs(1));
        }
        for job in jobs {
            self.call("remove", |reactor| reactor.remove(*job).unwrap());
        }
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn main() -> ExitCode {
    if let Some(role) = common::role() {
        play(&role);
        return ExitCode::SUCCESS;
    }
    let lines = if quick() { 30 } else { 400 };
    let scale = if quick() { 20 } else { 1 };
    // A thousand jobs and the descriptors of their pidfds.
    let most = Some(8192);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most });
    let scenarios = [
        Hostile::Nothing,
        Hostile::Processes(6000 / scale),
        Hostile::Groups(20_000 / scale),
        Hostile::Levels(1000 / scale),
        Hostile::SparseLog,
        Hostile::Truncations,
        Hostile::LoudWriters { number: 20, followed: false },
        Hostile::LoudWriters { number: 20, followed: true },
        Hostile::EndsAtOnce(1000 / scale),
        Hostile::Tails { logs: 10, each: 5000 / scale },
    ];
    let mut table = Table::new(&[
        "hostile jobs",
        "longest call",
        "ms",
        "CPU ms",
        "",
        "poll ms",
        "CPU ms",
        "",
        "line p50 us",
        "p99",
        "max",
        "p99 ratio",
        "",
    ]);
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let is_wanted = |hostile: &Hostile| {
        let name = name(*hostile);
        wanted.is_empty() || wanted.iter().any(|word| name.contains(word))
    };
    for hostile in scenarios.into_iter().filter(is_wanted) {
        let (host, before) = measure(hostile, lines);
        let ratio = quantile(&host.latencies, 0.99) / quantile(&before, 0.99);
        table.row(vec![
            name(hostile),
            host.call.2.to_owned(),
            format!("{:.2}", host.call.0),
            format!("{:.2}", host.call.1),
            verdict(host.call.1, TARGET),
            format!("{:.2}", host.poll.0),
            format!("{:.2}", host.poll.1),
            verdict(host.poll.1, TARGET),
            format!("{:.0}", median(&host.latencies)),
            format!("{:.0}", quantile(&host.latencies, 0.99)),
            format!("{:.0}", quantile(&host.latencies, 1.0)),
            format!("{ratio:.2}"),
            verdict(ratio, LATENCY_TARGET),
        ]);
        eprintln!("{} done", name(hostile));
    }
    table.print(&format!(
        "A quiet job with a line every 1 to 3 ms, {lines} lines before and {lines} or more beside \
         the hostile jobs"
    ));
    ExitCode::SUCCESS
}

fn name(hostile: Hostile) -> String {
    match hostile {
        Hostile::Nothing => "none".into(),
        Hostile::Processes(number) => format!("{number} processes"),
        Hostile::Groups(number) => format!("{number} groups side by side"),
        Hostile::Levels(number) => format!("{number} levels of groups"),
        Hostile::SparseLog => "a sparse log of 15 TiB".into(),
        Hostile::Truncations => "a truncation storm".into(),
        Hostile::LoudWriters { number, followed: true } => format!("{number} loud writers"),
        Hostile::LoudWriters { number, .. } => format!("{number} loud writers, not followed"),
        Hostile::EndsAtOnce(number) => format!("{number} jobs end at once"),
        Hostile::Tails { logs, each } => format!("{each} tails on each of {logs} logs"),
    }
}

/// Serves the quiet job alone, then beside the hostile ones until they are removed. Returns the
/// host, and the latencies of the time before.
fn measure(hostile: Hostile, lines: u64) -> (Host, Vec<f64>) {
    let mut host = Host::new();
    host.serve(lines / 4);
    host.latencies.clear();
    host.serve(lines);
    let before = std::mem::take(&mut host.latencies);
    host.call = (0.0, 0.0, "-");
    host.poll = (0.0, 0.0);
    match hostile {
        Hostile::Nothing => host.serve(lines),
        Hostile::Processes(number) => {
            let job = host.spawn_ready(&["processes", &number.to_string()]);
            host.serve(lines);
            host.call("signal", |reactor| reactor.signal(job, Signal::CONT).unwrap());
            // What the call has left is done in turns.
            host.serve(lines);
            host.call("stop", |reactor| reactor.stop_within(job, Duration::ZERO).unwrap());
            host.end(&[job]);
        }
        Hostile::Groups(number) | Hostile::Levels(number) => {
            let kind = if matches!(hostile, Hostile::Groups(_)) { "groups" } else { "levels" };
            let job = host.spawn_ready(&[kind, &number.to_string()]);
            host.serve(lines);
            host.call("signal", |reactor| reactor.signal(job, Signal::CONT).unwrap());
            host.call("kill", |reactor| reactor.kill(job).unwrap());
            host.end(&[job]);
        }
        Hostile::SparseLog => {
            let job = host.spawn_ready(&["sparse"]);
            let mut snapshot = TailOptions::new(Position::Start);
            snapshot.snapshot();
            let last = host.call("tail, last lines", |reactor| {
                reactor.tail(job, Position::LastLines(10), Token(1)).unwrap()
            });
            let all = host
                .call("tail, snapshot", |reactor| reactor.tail(job, snapshot, Token(1)).unwrap());
            host.serve(lines);
            host.call("kill", |reactor| reactor.kill(job).unwrap());
            host.serve(1);
            for tail in [last, all] {
                host.call("close", |reactor| reactor.close(tail).unwrap());
            }
            host.end(&[job]);
        }
        Hostile::Truncations | Hostile::LoudWriters { .. } => {
            let (kind, number, followed) = match hostile {
                Hostile::LoudWriters { number, followed } => ("loud", number, followed),
                _ => ("truncations", 1, true),
            };
            let jobs: Vec<JobId> = (0..number).map(|_| host.spawn_ready(&[kind])).collect();
            for job in jobs.iter().filter(|_| followed) {
                host.call("tail", |reactor| {
                    reactor.tail(*job, Position::End, Token(1)).unwrap();
                });
            }
            host.serve(lines);
            for job in &jobs {
                host.call("kill", |reactor| reactor.kill(*job).unwrap());
            }
            host.end(&jobs);
        }
        Hostile::EndsAtOnce(number) => {
            let (input, end) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
            let jobs: Vec<JobId> = (0..number)
                .map(|_| {
                    let input = input.try_clone().unwrap();
                    let mut cat = Command::new("cat");
                    cat.stdin_fd(input);
                    let job = host.call("spawn", |reactor| reactor.spawn(&cat, Token(0)).unwrap());
                    host.turn(Duration::ZERO);
                    job
                })
                .collect();
            drop(input);
            host.serve(lines);
            drop(end);
            host.end(&jobs);
        }
        Hostile::Tails { logs, each } => {
            let jobs: Vec<JobId> = (0..logs).map(|_| host.spawn_ready(&["slow"])).collect();
            for job in jobs.iter().flat_map(|job| std::iter::repeat_n(job, each)) {
                host.call("tail", |reactor| {
                    reactor.tail(*job, Position::End, Token(1)).unwrap();
                });
                host.turn(Duration::ZERO);
            }
            host.serve(lines);
            for job in &jobs {
                host.call("kill", |reactor| reactor.kill(*job).unwrap());
            }
            host.end(&jobs);
        }
    }
    (host, before)
}

/// What the jobs do.
fn play(role: &[String]) {
    let number = || role[1].parse::<usize>().unwrap();
    let mut output = std::io::stdout();
    let mut ready = |text: &str| {
        let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
    };
    match role[0].as_str() {
        "quiet" => {
            let mut random = monotonic() | 1;
            for number in 0u64.. {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                std::thread::sleep(Duration::from_micros(1000 + (random >> 33) % 2000));
                let line = format!("{number} {}\n", monotonic());
                rustix::io::write(std::io::stdout(), line.as_bytes()).unwrap();
            }
        }
        "processes" => {
            for _ in 0..number() {
                let _ = std::process::Command::new("sleep").arg("1000").spawn();
            }
            ready("ready\n");
            sleep();
        }
        kind @ ("groups" | "levels") => {
            let own = fs::read_to_string("/proc/self/cgroup").unwrap();
            let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap().to_owned();
            let mut dir = cgroup_mount().join(own);
            if kind == "levels" {
                // By relative names, because a path has an end.
                std::env::set_current_dir(&dir).unwrap();
                for _ in 0..number() {
                    if fs::create_dir("g").is_err() || std::env::set_current_dir("g").is_err() {
                        break;
                    }
                }
            } else {
                dir.push("g");
                for group in 0..number() {
                    dir.set_file_name(format!("g{group}"));
                    if fs::create_dir(&dir).is_err() {
                        break;
                    }
                }
            }
            ready("ready\n");
            sleep();
        }
        "sparse" => {
            ready("ready\n");
            rustix::fs::ftruncate(std::io::stdout(), 15 << 40).unwrap();
            ready("the end\n");
            sleep();
        }
        "truncations" => loop {
            ready("some line of a log that will not be there for long\n");
            let _ = rustix::fs::ftruncate(std::io::stdout(), 0);
        },
        "loud" => loop {
            ready("a line as they are in logs, of a job that never makes a pause at all\n");
        },
        _ => loop {
            ready("a line\n");
            std::thread::sleep(Duration::from_millis(50));
        },
    }
}

fn sleep() -> ! {
    loop {
        std::thread::park();
    }
}
