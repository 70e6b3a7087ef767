//! How soon a reader has a line that was written, beside others who follow files: a bare loop of
//! epoll_wait, read of an inotify and pread; linemux; and readers that look every 10 and 500 ms.
//! Then what a line costs with 1 to 1,000 readers of one log.
//!
//! Each kind of reader is a process of its own, so that the CPU time of its threads counts. The
//! writer is a job, and writes to its log and to the files of the others in turn, with pauses.
//!
//! Invariant: every reader gets every line, in order; a difference ends the program with status 1.
//! What a kind of reader cannot do is said, and is no failure.

#[path = "../../benches/common/mod.rs"]
mod common;
mod plot;

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, ChildStdout, ExitCode, Stdio};
use std::thread;
use std::time::Duration;

use common::{
    BareLoop, LAST, LINE, Table, in_role, line, median, median_ratio, monotonic, process_cpu,
    quantile, quick, stamp,
};
use jobworker::{Event, Events, Exit, Position, Reactor, Token};
use linemux::MuxedLines;
use plot::{Axis, Plot};
use tokio::task::JoinSet;

/// The path by which the writer finds the log of its job.
const LOG: &str = "/dev/stdout";

/// The stack of a thread that reads. It is only reserved: what it does not use costs no memory.
const STACK: usize = 128 * 1024;

/// After this time without a line, some were lost: the writer pauses for milliseconds.
const LOST: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Tails of a reactor, on the log of its job.
    Job,
    Bare,
    Linemux,
    Poll10,
    Poll500,
}

impl Kind {
    /// The one that starts the writer is last.
    const ALL: [Self; 5] = [Self::Bare, Self::Linemux, Self::Poll10, Self::Poll500, Self::Job];

    fn name(self) -> &'static str {
        match self {
            Self::Job => "jobworker",
            Self::Bare => "bare loop",
            Self::Linemux => "linemux",
            Self::Poll10 => "read every 10 ms",
            Self::Poll500 => "read every 500 ms",
        }
    }
}

fn main() -> ExitCode {
    let result = match common::role() {
        Some(role) => match role[0].as_str() {
            "write" => {
                write_paced(role[1].parse().unwrap(), &role[2..]);
                Ok(())
            }
            name => {
                let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name).unwrap();
                follow(kind, role[1].parse().unwrap(), role[2].parse().unwrap(), &role[3..])
            }
        },
        None => latencies().and_then(|()| costs()),
    };
    common::finish(result)
}

/// The writer: lines in turn to these files, with pauses.
fn write_paced(lines: usize, files: &[String]) {
    let open = |path: &String| OpenOptions::new().append(true).open(path).unwrap();
    let files: Vec<File> = files.iter().map(open).collect();
    for number in 0..=lines {
        for file in &files {
            thread::sleep(Duration::from_micros(fastrand::u64(1000..2500)));
            let stamp = if number == lines { LAST } else { monotonic() };
            rustix::io::write(file, &line(stamp)).unwrap();
        }
    }
}

/// Ends a file whose writer has failed.
fn write_last(path: &str) {
    let mut file = OpenOptions::new().append(true).open(path).unwrap();
    file.write_all(&line(LAST)).unwrap();
}

/// What one reader has read.
#[derive(Debug)]
struct Reader {
    /// The beginning of a line whose end has not arrived yet.
    rest: Vec<u8>,
    /// What follows the time in each line.
    filling: [u8; LINE],
    lines: usize,
    latest: u64,
    /// From each write, in nanoseconds.
    latencies: Vec<f64>,
}

impl Reader {
    fn new() -> Self {
        let filling = line(LAST);
        Self { rest: Vec::new(), filling, lines: 0, latest: LAST, latencies: Vec::new() }
    }

    /// Takes lines out of pieces, and checks them. Returns whether the last one has come.
    fn take(&mut self, bytes: &[u8]) -> Result<bool, String> {
        let now = monotonic();
        if self.rest.is_empty() {
            let rest = self.take_lines(bytes, now)?;
            self.rest.extend_from_slice(rest);
        } else {
            let mut all = std::mem::take(&mut self.rest);
            all.extend_from_slice(bytes);
            self.rest = self.take_lines(&all, now)?.to_vec();
        }
        Ok(self.latest == u64::MAX)
    }

    /// Returns what is not a whole line.
    fn take_lines<'a>(&mut self, bytes: &'a [u8], now: u64) -> Result<&'a [u8], String> {
        let mut lines = bytes.chunks_exact(LINE);
        for found in &mut lines {
            let stamp = stamp(found);
            let in_order = stamp > self.latest || stamp == LAST;
            if found[20..] != self.filling[20..] || !in_order {
                return Err(format!("not the line: {:?}", String::from_utf8_lossy(found)));
            }
            if stamp == LAST {
                self.latest = u64::MAX;
            } else {
                self.latest = stamp;
                self.lines += 1;
                self.latencies.push((now - stamp) as f64);
            }
        }
        Ok(lines.remainder())
    }
}

/// Why a kind of reader has not read everything.
enum Failure {
    Wrong(String),
    Impossible(String),
}

impl From<String> for Failure {
    fn from(difference: String) -> Self {
        Self::Wrong(difference)
    }
}

fn impossible(error: impl std::fmt::Display) -> Failure {
    Failure::Impossible(error.to_string())
}

/// The process of one kind of reader. Prints that it follows, and at the end what it took and how
/// late the last of its readers was.
fn follow(kind: Kind, readers: usize, lines: usize, files: &[String]) -> Result<(), String> {
    let followed = match kind {
        Kind::Job => follow_job(readers, lines, files),
        Kind::Bare => follow_by_hand(Path::new(&files[0])),
        Kind::Linemux => follow_with_linemux(readers, &files[0]),
        Kind::Poll10 => follow_by_polling(readers, Path::new(&files[0]), Duration::from_millis(10)),
        Kind::Poll500 => {
            follow_by_polling(readers, Path::new(&files[0]), Duration::from_millis(500))
        }
    };
    let (before, all) = match followed {
        Ok(followed) => followed,
        Err(Failure::Impossible(reason)) => {
            println!("impossible: {reason}");
            return Ok(());
        }
        Err(Failure::Wrong(difference)) => return Err(format!("{}: {difference}", kind.name())),
    };
    let cpu = (process_cpu() - before).as_nanos();
    if let Some(reader) = all.iter().find(|reader| reader.lines != lines) {
        return Err(format!("{}: {} lines of {lines}", kind.name(), reader.lines));
    }
    let last = &all.last().expect("a reader").latencies;
    let latencies: Vec<String> = last.iter().map(ToString::to_string).collect();
    println!("{cpu};{}", latencies.join(","));
    Ok(())
}

/// Says that everybody follows, and returns what they have taken so far.
fn ready() -> Duration {
    println!("ready");
    process_cpu()
}

type Followed = Result<(Duration, Vec<Reader>), Failure>;

fn follow_job(readers: usize, lines: usize, files: &[String]) -> Followed {
    let mut reactor = Reactor::new().unwrap();
    let mut events = Events::with_capacity(1024);
    let lines = lines.to_string();
    let words = ["write", &lines, LOG].into_iter().chain(files.iter().map(String::as_str));
    let job = reactor.spawn(&in_role(words), Token(0)).unwrap();
    for token in 0..readers {
        reactor.tail(job, Position::Start, Token(token)).unwrap();
    }
    let mut all: Vec<Reader> = (0..readers).map(|_| Reader::new()).collect();
    let before = ready();
    loop {
        reactor.poll(&mut events, None).unwrap();
        for event in &events {
            match event {
                Event::Readable { tail, token } => {
                    while let Some(chunk) = reactor.next_chunk(*tail).unwrap() {
                        all[token.0].take(chunk.bytes)?;
                    }
                }
                Event::Finished { report, .. } if report.exit == Exit::Code(0) => {
                    return Ok((before, all));
                }
                Event::Finished { report, .. } => Err(report.exit.to_string())?,
                _ => {}
            }
        }
    }
}

fn follow_by_hand(path: &Path) -> Followed {
    let (mut bare, mut reader) = (BareLoop::new(path), Reader::new());
    let before = ready();
    while !reader.take(bare.next())? {}
    Ok((before, vec![reader]))
}

/// One after the other in one thread; linemux has threads of its own.
fn follow_with_linemux(readers: usize, path: &str) -> Followed {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut opened = Vec::with_capacity(readers);
        for number in 0..readers {
            let which = |error| impossible(format!("reader {}: {error}", number + 1));
            let mut lines = MuxedLines::new().map_err(which)?;
            lines.add_file(path).await.map_err(which)?;
            opened.push(lines);
        }
        let before = ready();
        let mut tasks = JoinSet::new();
        for lines in opened {
            tasks.spawn(read_with_linemux(lines));
        }
        let mut all = Vec::with_capacity(readers);
        while let Some(read) = tasks.join_next().await {
            all.push(read.unwrap()?);
        }
        Ok((before, all))
    })
}

async fn read_with_linemux(mut lines: MuxedLines) -> Result<Reader, Failure> {
    let mut reader = Reader::new();
    loop {
        let next = tokio::time::timeout(LOST, lines.next_line()).await;
        let next = next.map_err(|_| impossible("lines were lost"))?.map_err(impossible)?;
        let next = next.ok_or_else(|| impossible("it follows no file any more"))?;
        // It gives what it has of a line whose end it does not see yet, too, and never the end.
        let whole = reader.rest.len() + next.line().len() + 1 == LINE;
        let end = if whole { "\n" } else { "" };
        if reader.take(format!("{}{end}", next.line()).as_bytes())? {
            return Ok(reader);
        }
    }
}

fn follow_by_polling(readers: usize, path: &Path, period: Duration) -> Followed {
    let files: Vec<File> = (0..readers).map(|_| File::open(path).unwrap()).collect();
    let before = ready();
    let threads: Vec<_> = files
        .into_iter()
        .enumerate()
        .map(|(number, file)| {
            // So that not all of them look at once.
            let phase = period.mul_f64(number as f64 / readers as f64);
            let builder = thread::Builder::new().stack_size(STACK);
            builder.spawn(move || poll_file(&file, phase, period)).map_err(impossible)
        })
        .collect::<Result<_, _>>()?;
    let all = threads.into_iter().map(|thread| thread.join().unwrap());
    Ok((before, all.collect::<Result<_, _>>()?))
}

fn poll_file(file: &File, phase: Duration, period: Duration) -> Result<Reader, String> {
    let (mut reader, mut buffer, mut offset) = (Reader::new(), [0; 64 * LINE], 0);
    thread::sleep(phase);
    loop {
        match file.read_at(&mut buffer, offset).unwrap() {
            0 => thread::sleep(period),
            length => {
                offset += length as u64;
                if reader.take(&buffer[..length])? {
                    return Ok(reader);
                }
            }
        }
    }
}

/// A process of one kind of reader.
struct Follower {
    kind: Kind,
    child: Child,
    output: BufReader<ChildStdout>,
    /// Its last line, if it has come instead of the first.
    instead: Option<String>,
}

/// What a kind of reader has taken.
#[derive(Debug)]
struct Measured {
    cpu: Duration,
    /// In microseconds.
    latencies: Vec<f64>,
}

impl Follower {
    /// Starts the process, and waits until it follows; that of a job starts the writer.
    fn start(kind: Kind, readers: usize, lines: usize, files: &[&str]) -> Self {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--role", kind.name(), &readers.to_string(), &lines.to_string()]).args(files);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        output.read_line(&mut first).unwrap();
        let instead = (first != "ready\n").then_some(first);
        Self { kind, child, output, instead }
    }

    /// What it has measured, or why it could not.
    fn end(mut self) -> Result<Result<Measured, String>, String> {
        let mut text = String::new();
        match self.instead {
            Some(instead) => text = instead,
            None => drop(self.output.read_line(&mut text).unwrap()),
        }
        let status = self.child.wait().unwrap();
        if !status.success() {
            return Err(format!("{}: {status}", self.kind.name()));
        }
        if let Some(reason) = text.strip_prefix("impossible: ") {
            return Ok(Err(reason.trim_end().to_owned()));
        }
        let (cpu, latencies) = text.trim_end().split_once(';').expect("its measurements");
        let numbers = latencies.split(',').map(|number| number.parse::<f64>().unwrap() / 1e3);
        let cpu = Duration::from_nanos(cpu.parse().unwrap());
        Ok(Ok(Measured { cpu, latencies: numbers.collect() }))
    }
}

/// From the write to one reader's bytes in hand.
fn latencies() -> Result<(), String> {
    let (lines, turns) = if quick() { (40, 1) } else { (200, 9) };
    let mut all: Vec<(Kind, Vec<Measured>)> = Kind::ALL.map(|kind| (kind, Vec::new())).into();
    let mut impossible = Vec::new();
    for _ in common::turns(turns) {
        let scratch = tempfile::Builder::new().prefix("jobworker-bench-").tempdir().unwrap();
        let paths = Kind::ALL.map(|kind| scratch.path().join(kind.name()));
        let others = &paths[..Kind::ALL.len() - 1];
        others.iter().for_each(|path| drop(File::create(path).unwrap()));
        let others: Vec<&str> = others.iter().map(|path| path.to_str().unwrap()).collect();
        let mut followers: Vec<Follower> = Kind::ALL
            .iter()
            .enumerate()
            .map(|(place, kind)| {
                let files = others.get(place).map_or(&others[..], std::slice::from_ref);
                Follower::start(*kind, 1, lines, files)
            })
            .collect();
        let job = followers.pop().expect("a follower of each kind").end();
        if job.is_err() {
            // The writer has ended with it, and the others wait for its last line.
            others.iter().for_each(|path| write_last(path));
        }
        // All of them, so that no process is left if one has failed.
        let ended: Vec<_> = followers.into_iter().map(Follower::end).chain([job]).collect();
        for ((kind, measured), ended) in all.iter_mut().zip(ended) {
            match ended? {
                Ok(turn) => measured.push(turn),
                Err(reason) => impossible.push(format!("{}: {reason}", kind.name())),
            }
        }
    }

    let p50 = |measured: &[Measured], part: f64| -> Vec<f64> {
        measured.iter().map(|turn| quantile(&turn.latencies, part)).collect()
    };
    let floor = p50(&all[0].1, 0.5);
    let mut table = Table::new(&[
        "one reader",
        "p50 us",
        "p99 us",
        "of the bare loop",
        "CPU ms per 1,000 lines",
    ]);
    for (kind, measured) in &all {
        let cpu: Vec<f64> = measured.iter().map(|turn| turn.cpu.as_secs_f64() * 1e6).collect();
        table.row(vec![
            kind.name().to_owned(),
            format!("{:.1}", median(&p50(measured, 0.5))),
            format!("{:.1}", median(&p50(measured, 0.99))),
            format!("{:.2}", median_ratio(&p50(measured, 0.5), &floor)),
            format!("{:.1}", median(&cpu) / lines as f64),
        ]);
    }
    table.print(&format!(
        "A line of {LINE} bytes every 5 to 12 ms for each, {lines} lines a turn, medians of {} \
         turns",
        floor.len()
    ));
    println!("CPU: of all threads of the reader's process");
    impossible.iter().for_each(|reason| println!("{reason}"));
    Ok(())
}

/// What a line costs with many readers of one log.
fn costs() -> Result<(), String> {
    let (sizes, lines, turns): (&[usize], _, _) =
        if quick() { (&[1, 100], 100, 1) } else { (&[1, 10, 100, 1_000], 500, 5) };
    let kinds = [Kind::Job, Kind::Linemux, Kind::Poll10, Kind::Poll500];
    let mut all: Vec<(usize, Kind, Vec<Measured>)> = Vec::new();
    for size in sizes {
        all.extend(kinds.map(|kind| (*size, kind, Vec::new())));
    }
    let mut impossible: Vec<(usize, Kind, String)> = Vec::new();
    for _ in common::turns(turns) {
        for (size, kind, measured) in &mut all {
            if impossible.iter().any(|(at, which, _)| (at, which) == (size, kind)) {
                continue;
            }
            match with_readers(*kind, *size, lines)? {
                Ok(turn) => measured.push(turn),
                Err(reason) => impossible.push((*size, *kind, reason)),
            }
        }
    }

    // In microseconds.
    let per_line = |measured: &[Measured]| -> f64 {
        let each = measured.iter().map(|turn| turn.cpu.as_secs_f64() * 1e6 / lines as f64);
        median(&each.collect::<Vec<_>>())
    };
    let measured = || all.iter().filter(|(_, _, measured)| !measured.is_empty());
    let mut table = Table::new(&[
        "readers of one log",
        "CPU us per line",
        "ns per line and reader",
        "the last one's p50 us",
        "p99",
    ]);
    for (size, kind, measured) in measured() {
        let latency = |part: f64| {
            let turns = measured.iter().map(|turn| quantile(&turn.latencies, part));
            median(&turns.collect::<Vec<_>>())
        };
        table.row(vec![
            format!("{size} x {}", kind.name()),
            format!("{:.1}", per_line(measured)),
            format!("{:.0}", per_line(measured) * 1e3 / *size as f64),
            format!("{:.0}", latency(0.5)),
            format!("{:.0}", latency(0.99)),
        ]);
    }
    table.print(&format!(
        "A line of {LINE} bytes every 1 to 2.5 ms, {lines} lines a turn, medians of {} turns",
        all[0].2.len()
    ));
    for (size, kind, reason) in &impossible {
        println!("{size} x {} is not possible here: {reason}", kind.name());
    }
    let line = |kind: Kind| {
        let own = measured().filter(|(_, which, _)| *which == kind);
        let points = own.map(|(size, _, measured)| (*size as f64, per_line(measured)));
        (kind.name().to_owned(), points.collect())
    };
    Plot {
        title: "CPU time of the host per line, by the readers of one log",
        x: Axis { name: "readers", logarithmic: true },
        y: Axis { name: "microseconds per line, all readers", logarithmic: true },
        lines: kinds.map(line).into(),
        marked: true,
    }
    .write("tails");
    Ok(())
}

fn with_readers(
    kind: Kind,
    readers: usize,
    lines: usize,
) -> Result<Result<Measured, String>, String> {
    let scratch = tempfile::Builder::new().prefix("jobworker-bench-").tempdir().unwrap();
    let path = scratch.path().join("log");
    File::create(&path).unwrap();
    if kind == Kind::Job {
        return Follower::start(kind, readers, lines, &[]).end();
    }
    let path = path.to_str().unwrap();
    let follower = Follower::start(kind, readers, lines, &[path]);
    if follower.instead.is_none() {
        let mut writer = std::process::Command::new(std::env::current_exe().unwrap());
        let written = writer.args(["--role", "write", &lines.to_string(), path]).status().unwrap();
        if !written.success() {
            write_last(path);
        }
    }
    follower.end()
}
