//! What a terminal costs against a plain log: how long a job takes to print, in lines and in large
//! pieces; how long one line takes to a tail; and how long a turn of the loop takes beside jobs
//! that print on their terminals without pause.
//!
//! Invariant: every log has as many bytes as were printed; a difference ends the program with
//! status 1.

mod common;

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use common::{LINE, Table, in_role, median, median_ratio, monotonic, quantile, quick, thread_cpu};
use jobworker::{Command, Event, Events, Output, Position, Reactor, Terminal, Token};

/// How many bytes a large piece has.
const PIECE: usize = 64 * 1024;

/// Between two lines whose way is timed.
const PAUSE: Duration = Duration::from_millis(2);

fn main() -> ExitCode {
    if let Some(role) = common::role() {
        match role[0].as_str() {
            "print" => print(role[1].parse().unwrap(), role[2].parse().unwrap()),
            _ => stamp(role[1].parse().unwrap()),
        }
        return ExitCode::SUCCESS;
    }
    let (bytes, lines, turns) = if quick() { (5_000_000, 200, 2) } else { (50_000_000, 2_000, 7) };
    let mut sizes = Table::new(&["", "plain MB/s", "terminal MB/s", "times as long", "loop CPU"]);
    for (name, piece) in [("lines of 100 bytes", LINE), ("pieces of 64 KiB", PIECE)] {
        let mut times: [Vec<f64>; 2] = Default::default();
        let mut cpu = Vec::new();
        for _ in common::turns(turns) {
            for (on_terminal, times) in times.iter_mut().enumerate() {
                let before = thread_cpu();
                let Some(time) = throughput(on_terminal == 1, bytes, piece) else {
                    eprintln!("a log has another size than what was printed");
                    return ExitCode::FAILURE;
                };
                times.push(time);
                if on_terminal == 1 {
                    cpu.push((thread_cpu() - before).as_secs_f64());
                }
            }
        }
        let [plain, terminal] = times;
        let rate = |times: &[f64]| format!("{:.0}", bytes as f64 / median(times) / 1e6);
        let per_slice = median(&cpu) / (bytes as f64 / (16.0 * 1024.0)) * 1e6;
        sizes.row(vec![
            name.to_owned(),
            rate(&plain),
            rate(&terminal),
            format!("{:.1}", median_ratio(&terminal, &plain)),
            format!("{per_slice:.0} us per 16 KiB"),
        ]);
    }
    sizes.print(&format!("{} MB printed by one job, followed by nobody", bytes / 1_000_000));

    let mut latency = Table::new(&["", "p50 us", "p99 us"]);
    for (name, on_terminal) in [("plain log", false), ("terminal", true)] {
        let times = line_times(on_terminal, lines);
        latency.row(vec![
            name.to_owned(),
            format!("{:.1}", median(&times)),
            format!("{:.1}", quantile(&times, 0.99)),
        ]);
    }
    latency.print("before the write to after the read by a tail, a line every 2 ms");

    let mut longest = Table::new(&["jobs that print", "p50 us", "p99 us", "longest us, CPU"]);
    for jobs in [1, 8, 100] {
        let times = turn_times(jobs, if quick() { 500 } else { 5_000 });
        longest.row(vec![
            jobs.to_string(),
            format!("{:.0}", median(&times)),
            format!("{:.0}", quantile(&times, 0.99)),
            format!("{:.0}", quantile(&times, 1.0)),
        ]);
    }
    longest.print("one poll, CPU time of the loop");
    ExitCode::SUCCESS
}

/// Prints so many bytes, in pieces of this size.
fn print(bytes: usize, piece: usize) {
    let mut text = vec![b'x'; piece];
    text[piece - 1] = b'\n';
    let mut output = std::fs::File::from(rustix::io::dup(std::io::stdout()).expect("a descriptor"));
    for start in (0..bytes).step_by(piece) {
        output.write_all(&text[..piece.min(bytes - start)]).expect("standard output");
    }
}

/// Prints so many lines with the time.
fn stamp(lines: usize) {
    let mut output = std::fs::File::from(rustix::io::dup(std::io::stdout()).expect("a descriptor"));
    for _ in 0..lines {
        std::thread::sleep(PAUSE);
        let line = format!("{}\n", monotonic());
        output.write_all(line.as_bytes()).expect("standard output");
    }
}

fn on(terminal: bool, mut command: Command) -> Command {
    if terminal {
        command.output(Output::Terminal(Terminal::new(24, 80).raw_output()));
    }
    command
}

/// How many seconds a job takes to print; `None` if anything is missing.
fn throughput(terminal: bool, bytes: usize, piece: usize) -> Option<f64> {
    let mut reactor = Reactor::new().expect("a reactor");
    let words = ["print", &bytes.to_string(), &piece.to_string()];
    let job = reactor.spawn(&on(terminal, in_role(words)), Token(0)).expect("a job");
    let report = reactor.wait(job).expect("a report");
    let complete = report.exit.success() && report.output_bytes == bytes as u64;
    complete.then(|| report.wall.as_secs_f64())
}

/// How many microseconds each line takes to a tail.
fn line_times(terminal: bool, lines: usize) -> Vec<f64> {
    let mut reactor = Reactor::new().expect("a reactor");
    let words = ["stamp", &lines.to_string()];
    let job = reactor.spawn(&on(terminal, in_role(words)), Token(0)).expect("a job");
    let tail = reactor.tail(job, Position::Start, Token(0)).expect("a tail");
    let mut events = Events::with_capacity(64);
    let mut times = Vec::new();
    loop {
        reactor.poll(&mut events, None).expect("events");
        for event in &events {
            if matches!(event, Event::Finished { .. }) {
                assert_eq!(times.len(), lines, "each line is read by itself");
                return times;
            }
            while let Some(chunk) = reactor.next_chunk(tail).expect("the tail") {
                let now = monotonic();
                let text = std::str::from_utf8(chunk.bytes).expect("numbers");
                for line in text.lines() {
                    let stamp: u64 = line.parse().expect("a number");
                    times.push((now - stamp) as f64 / 1000.0);
                }
            }
        }
    }
}

/// How many microseconds each of so many polls takes, beside jobs that print without pause.
fn turn_times(jobs: usize, polls: usize) -> Vec<f64> {
    let mut reactor = Reactor::new().expect("a reactor");
    for _ in 0..jobs {
        let command = on(true, in_role(["print", "1000000000000", &LINE.to_string()]));
        reactor.spawn(&command, Token(0)).expect("a job");
    }
    let mut events = Events::with_capacity(64);
    let (mut times, end) = (Vec::new(), Instant::now() + Duration::from_secs(20));
    while times.len() < polls && Instant::now() < end {
        let before = thread_cpu();
        reactor.poll(&mut events, Some(Duration::ZERO)).expect("events");
        times.push((thread_cpu() - before).as_secs_f64() * 1e6);
    }
    times
}
