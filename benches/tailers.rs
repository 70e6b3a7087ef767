//! How soon after a write the last of 1, 100, 1,000 or 10,000 tails has the line, and what each
//! tail costs.
//!
//! A job writes lines with the time in them, alternately to its log and to a file that a thread of
//! this program follows with the fewest system calls that can do it: epoll_wait, read of an
//! inotify, pread. Both are thus measured under the same load. The floor of the CPU time per tail
//! and line is what that loop takes, divided by the number of tails, plus a copy of the line.
//!
//! Invariant: every tail is compared with the first; a difference ends the program with status 1.

mod common;

use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::thread::JoinHandle;
use std::time::Duration;

use common::{
    BareLoop, LAST, LINE, Table, in_role, line, median, median_ratio, monotonic, quantile, quick,
    sleeps, stamp, thread_cpu, verdict,
};
use jobworker::{Config, Event, Events, Fill, Position, Reactor, Read, Token};

/// The numbers of tails.
const SIZES: [usize; 4] = [1, 100, 1_000, 10_000];

/// The largest accepted ratio of a single tail's latency to that of the bare loop.
const LATENCY_TARGET: f64 = 1.2;

/// The same of a reactor that looks for events instead of sleeping.
const BUSY_TARGET: f64 = 0.4;

/// The largest accepted cost in nanoseconds per tail and line, from a thousand tails on.
const COST_TARGET: f64 = 60.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Read,
    FillBuf,
    /// As `Read`, of a reactor that looks for events instead of sleeping.
    Busy,
}

/// The results of one turn, with times in nanoseconds.
#[derive(Debug)]
struct Turn {
    /// From each write until the last tail had the line.
    latencies: Vec<f64>,
    floor_latencies: Vec<f64>,
    /// CPU time per tail and line.
    cost: f64,
    floor_cost: f64,
    /// Wake-ups while the job was silent.
    idle: u64,
}

fn main() -> ExitCode {
    if let Some(role) = common::role() {
        let number = |index: usize| role[index].parse::<u64>().unwrap();
        match role[0].as_str() {
            "paced" => {
                write_paced(number(1), Duration::from_millis(number(2)), Path::new(&role[3]));
            }
            _ => write_hot(number(1)),
        }
        return ExitCode::SUCCESS;
    }
    let (lines, turns, silence) = if quick() { (40, 1, 300) } else { (150, 7, 3000) };
    let mut failed = false;
    let mut check = |result: Result<Turn, String>| match result {
        Ok(turn) => Some(turn),
        Err(difference) => {
            eprintln!("{difference}");
            failed = true;
            None
        }
    };

    let mut cases: Vec<(usize, By, Vec<Turn>)> = Vec::new();
    for tails in SIZES {
        cases.extend([By::Read, By::FillBuf].map(|by| (tails, by, Vec::new())));
    }
    cases.push((1, By::Busy, Vec::new()));
    for number in common::turns(turns) {
        for (tails, by, results) in &mut cases {
            // The silence is the same however the lines before it were read.
            let silence = if number == 0 && *by == By::Read { silence } else { 0 };
            results.extend(check(run(*tails, *by, lines, silence)));
        }
    }
    let hot: Vec<Turn> = (0..turns).filter_map(|_| check(run_hot(lines * 200))).collect();
    if failed {
        return ExitCode::FAILURE;
    }

    let mut table = Table::new(&[
        "tails",
        "p50 us",
        "p99 us",
        "floor p50",
        "floor p99",
        "p50 ratio",
        "",
        "ns/tail/line",
        "floor",
        "",
        "of it per further tail",
        "idle wake-ups",
    ]);
    let alone: Vec<f64> = cases[0].2.iter().map(|turn| turn.cost).collect();
    for (tails, by, turns) in &cases {
        let over = |value: &dyn Fn(&Turn) -> f64| turns.iter().map(value).collect::<Vec<f64>>();
        let p50 = over(&|turn| median(&turn.latencies) / 1e3);
        let floor_p50 = over(&|turn| median(&turn.floor_latencies) / 1e3);
        let (ratio, cost) = (median_ratio(&p50, &floor_p50), median(&over(&|turn| turn.cost)));
        // Without the wake-up and the three system calls, which all tails share.
        let added = (cost * *tails as f64 - median(&alone)) / (*tails - 1) as f64;
        let idle: u64 = turns.iter().map(|turn| turn.idle).sum();
        table.row(vec![
            match by {
                By::Read => format!("{tails}, by read"),
                By::FillBuf => format!("{tails}, by fill_buf"),
                By::Busy => format!("{tails}, busy_poll"),
            },
            format!("{:.1}", median(&p50)),
            format!("{:.1}", median(&over(&|turn| quantile(&turn.latencies, 0.99) / 1e3))),
            format!("{:.1}", median(&floor_p50)),
            format!("{:.1}", median(&over(&|turn| quantile(&turn.floor_latencies, 0.99) / 1e3))),
            format!("{ratio:.2}"),
            match by {
                By::Busy => verdict(ratio, BUSY_TARGET),
                By::Read | By::FillBuf if *tails == 1 => verdict(ratio, LATENCY_TARGET),
                By::Read | By::FillBuf => String::new(),
            },
            format!("{cost:.0}"),
            format!("{:.0}", median(&over(&|turn| turn.floor_cost))),
            if *tails >= 1000 { verdict(cost, COST_TARGET) } else { String::new() },
            if *tails > 1 { format!("{added:.0}") } else { String::new() },
            if *by == By::Read {
                format!("{idle} {}", verdict(idle as f64, 0.0))
            } else {
                String::new()
            },
        ]);
    }
    table.print(&format!(
        "A line of {LINE} bytes every 2 to 5 ms, {lines} lines a turn, medians of {} turns; then \
         {silence} ms of silence",
        cases[0].2.len()
    ));
    let over = |part: f64| {
        median(&hot.iter().map(|turn| quantile(&turn.latencies, part) / 1e3).collect::<Vec<f64>>())
    };
    println!(
        "\n1 tail on a log that grows every 5 us (paced by design): p50 {:.1} us, p99 {:.1} us, \
         {:.0} ns of CPU time per line",
        over(0.5),
        over(0.99),
        median(&hot.iter().map(|turn| turn.cost).collect::<Vec<f64>>()),
    );
    ExitCode::SUCCESS
}

/// The job: writes lines alternately to the log and to the other file, with pauses, and then
/// nothing.
fn write_paced(lines: u64, silence: Duration, other: &Path) {
    let other = OpenOptions::new().append(true).open(other).unwrap();
    let mut random = monotonic() | 1;
    let mut pause = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        std::thread::sleep(Duration::from_micros(1000 + random % 1500));
    };
    for _ in 0..lines {
        pause();
        rustix::io::write(std::io::stdout(), &line(monotonic())).unwrap();
        pause();
        rustix::io::write(&other, &line(monotonic())).unwrap();
    }
    rustix::io::write(&other, &line(LAST)).unwrap();
    std::thread::sleep(silence);
}

/// A job that never pauses for longer than 5 us.
fn write_hot(lines: u64) {
    for _ in 0..lines {
        let now = monotonic();
        rustix::io::write(std::io::stdout(), &line(now)).unwrap();
        while monotonic() < now + 5_000 {
            std::hint::spin_loop();
        }
    }
}

fn run(tails: usize, by: By, lines: usize, silence: u64) -> Result<Turn, String> {
    let scratch = tempfile::Builder::new().prefix("jobworker-bench-").tempdir().unwrap();
    let other = scratch.path().join("floor");
    File::create(&other).unwrap();
    let floor = bare_loop(&other);
    // A job that is to be silent is killed once it was silent for long enough.
    let hold = if silence == 0 { 0 } else { 60_000 };
    let job = in_role(["paced", &lines.to_string(), &hold.to_string(), other.to_str().unwrap()]);
    let turn = follow(&job, tails, by, lines, silence);
    if turn.is_err() {
        // The job may not have written the last line, which the bare loop waits for.
        let mut other = OpenOptions::new().append(true).open(&other).unwrap();
        other.write_all(&line(LAST)).unwrap();
    }
    let (floor_latencies, floor_cpu) = floor.join().unwrap();
    let floor_cost = floor_cpu.as_nanos() as f64 / (tails * lines) as f64 + copy_cost(tails, lines);
    Ok(Turn { floor_latencies, floor_cost, ..turn? })
}

fn run_hot(lines: usize) -> Result<Turn, String> {
    follow(&in_role(["hot", &lines.to_string()]), 1, By::Read, lines, 0)
}

fn follow(
    command: &jobworker::Command,
    tails: usize,
    by: By,
    lines: usize,
    silence: u64,
) -> Result<Turn, String> {
    let mut config = Config::new();
    if by == By::Busy {
        // Longer than any pause of the job.
        config.busy_poll(Duration::from_millis(10));
    }
    let mut reactor = Reactor::with_config(&config).unwrap();
    let mut events = Events::with_capacity(1024);
    let job = reactor.spawn(command, Token(0)).unwrap();
    for token in 0..tails {
        reactor.tail(job, Position::Start, Token(token)).unwrap();
    }
    let mut readers = Readers {
        log: Vec::with_capacity(lines * LINE),
        offsets: vec![0; tails],
        served: 0,
        at: 0,
    };
    let mut latencies = Vec::with_capacity(lines);
    let mut buffer = [0u8; 4096];
    let (mut finished, cpu) = (false, thread_cpu());
    while latencies.len() < lines {
        reactor.poll(&mut events, None).unwrap();
        for event in &events {
            let Event::Readable { tail, token } = event else {
                finished |= matches!(event, Event::Finished { .. });
                continue;
            };
            loop {
                let length = match by {
                    By::Read | By::Busy => match reactor.read(*tail, &mut buffer).unwrap() {
                        Read::Data(length) => {
                            readers.take(token.0, &buffer[..length])?;
                            length
                        }
                        Read::UpToDate | Read::Ended => break,
                        other => return Err(format!("unexpected {other:?}")),
                    },
                    By::FillBuf => match reactor.fill_buf(*tail).unwrap() {
                        Fill::Data(bytes) => {
                            readers.take(token.0, bytes)?;
                            bytes.len()
                        }
                        Fill::UpToDate | Fill::Ended => break,
                        other => return Err(format!("unexpected {other:?}")),
                    },
                };
                if by == By::FillBuf {
                    reactor.consume(*tail, length).unwrap();
                }
            }
        }
        if finished && readers.log.len() < lines * LINE {
            return Err(format!("the job has ended after {} bytes", readers.log.len()));
        }
        if readers.served == tails * readers.log.len() {
            for line in readers.log.chunks_exact(LINE).skip(latencies.len()) {
                latencies.push((readers.at - stamp(line)) as f64);
            }
        }
    }
    let cost = (thread_cpu() - cpu).as_nanos() as f64 / (tails * lines) as f64;

    let mut idle = 0;
    if silence > 0 {
        let before = sleeps();
        reactor.poll(&mut events, Some(Duration::from_millis(silence))).unwrap();
        if !events.is_empty() {
            return Err(format!("{} events in silence", events.len()));
        }
        // One sleep is the wait itself.
        idle = (sleeps() - before).saturating_sub(1);
        reactor.kill(job).unwrap();
    }
    while !finished {
        reactor.poll(&mut events, None).unwrap();
        finished = events.iter().any(|event| matches!(event, Event::Finished { .. }));
    }
    Ok(Turn { latencies, floor_latencies: Vec::new(), cost, floor_cost: 0.0, idle })
}

/// What the tails have read.
struct Readers {
    /// The log up to the position of the foremost tail.
    log: Vec<u8>,
    offsets: Vec<usize>,
    served: usize,
    /// When the last of them had all of it.
    at: u64,
}

impl Readers {
    fn take(&mut self, tail: usize, bytes: &[u8]) -> Result<(), String> {
        let start = self.offsets[tail];
        let end = start + bytes.len();
        self.served += bytes.len();
        // What follows checks the tails, and is not theirs.
        if self.served == self.offsets.len() * self.log.len().max(end) {
            self.at = monotonic();
        }
        if end > self.log.len() {
            self.log.extend_from_slice(&bytes[self.log.len() - start..]);
        }
        if self.log[start..end] != *bytes {
            return Err(format!("tail {tail} got other bytes than the first at {start}"));
        }
        self.offsets[tail] = end;
        Ok(())
    }
}

/// Follows a file by hand on a thread of its own until its last line. Returns the latency of each
/// line, and the CPU time for all of them.
fn bare_loop(path: &Path) -> JoinHandle<(Vec<f64>, Duration)> {
    let mut follower = BareLoop::new(path);
    std::thread::spawn(move || {
        let mut latencies = Vec::new();
        loop {
            let lines = follower.next();
            let now = monotonic();
            for line in lines.chunks_exact(LINE) {
                match stamp(line) {
                    LAST => return (latencies, thread_cpu()),
                    stamp => latencies.push((now - stamp) as f64),
                }
            }
        }
    })
}

/// What it costs to give a line to a tail without a library: to find the tail, to copy, and to
/// compare, as above.
fn copy_cost(tails: usize, lines: usize) -> f64 {
    let log: Vec<u8> = (0..lines).flat_map(|number| line(number as u64)).collect();
    let mut readers = Readers { log: log.clone(), offsets: vec![0; tails], served: 0, at: 0 };
    let mut buffer = [0u8; 4096];
    let start = thread_cpu();
    for line in log.chunks_exact(LINE) {
        for tail in 0..tails {
            buffer[..LINE].copy_from_slice(black_box(line));
            readers.take(tail, black_box(&buffer[..LINE])).unwrap();
        }
    }
    (thread_cpu() - start).as_nanos() as f64 / (tails * lines) as f64
}
