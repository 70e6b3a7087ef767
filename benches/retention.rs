//! What it costs to keep a log short, and how short it is. A job writes a gigabyte in blocks of
//! 4 KiB, one write(2) each, and measures itself: with a whole log, and with one of which the
//! newest 64 MiB are kept, that nobody reads or that one tail reads. It writes as fast as it can,
//! and at 1 GB/s. Then it writes 20 GB at that rate to a log that is kept short and read.
//!
//! The floor is a bare loop that looks at the file each millisecond and gives back the same pieces:
//! the file system lets nobody write to a file while a piece of it is given back.
//!
//! Invariant: every byte that the tail gets is compared with what was written, and every byte that
//! it does not get it is told of; a difference ends the program with status 1.

mod common;

use std::fs::OpenOptions;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{
    LINE, Table, in_role, median, median_ratio, process_cpu, quantile, quick, thread_cpu, verdict,
};
use jobworker::{ByteSize, Event, Events, Exit, Fill, Position, Reactor, Token};
use rustix::fs::{FallocateFlags, fallocate};

/// How many bytes one write has.
const BLOCK: usize = 4096;

/// After this many bytes the text starts over: whole blocks and whole lines.
const PERIOD: usize = 25 * BLOCK;

/// How much is kept.
const KEEP: u64 = 64 << 20;

/// How many times as long the writer of a log that is kept short may take at [`RATE`]. Without a
/// pause, it waits for as long as the file system gives back, whoever asks for that.
const TARGET: f64 = 1.05;

/// How much the floor gives back at a time, as the engine does for so much.
const STEP: u64 = 4 << 20;

/// A job that does not write as fast as it can writes so many bytes per second.
const RATE: u64 = 1_000_000_000;

/// What becomes of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    Whole,
    /// By the engine.
    Short,
    /// By the floor.
    Bare,
}

/// One way to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    kept: Kept,
    read: bool,
    /// How many bytes per second; 0 for as fast as it can.
    rate: u64,
}

/// The first of each rate and kind of reader is what the others are compared with.
const PLANS: [Plan; 10] = [
    Plan { kept: Kept::Whole, read: false, rate: 0 },
    Plan { kept: Kept::Bare, read: false, rate: 0 },
    Plan { kept: Kept::Short, read: false, rate: 0 },
    Plan { kept: Kept::Whole, read: true, rate: 0 },
    Plan { kept: Kept::Short, read: true, rate: 0 },
    Plan { kept: Kept::Whole, read: false, rate: RATE },
    Plan { kept: Kept::Bare, read: false, rate: RATE },
    Plan { kept: Kept::Short, read: false, rate: RATE },
    Plan { kept: Kept::Whole, read: true, rate: RATE },
    Plan { kept: Kept::Short, read: true, rate: RATE },
];

/// The results of one run.
#[derive(Debug)]
struct Run {
    /// How long the writer took, by its own clock, and the CPU time it used meanwhile.
    writer: f64,
    writer_cpu: f64,
    /// The CPU time of the loop.
    cpu: f64,
    /// What the log took of the disk, each millisecond, in MiB.
    disk: Vec<f64>,
    /// How many bytes the tail was told that it has missed.
    skipped: u64,
}

fn main() -> ExitCode {
    if let Some(role) = common::role() {
        write_blocks(role[1].parse().unwrap(), role[2].parse().unwrap(), Path::new(&role[3]));
        return ExitCode::SUCCESS;
    }
    let (size, long, turns) =
        if quick() { (100 << 20, 1_000_000_000, 2) } else { (1 << 30, 20_000_000_000, 9) };
    let twice = text().repeat(2);
    let mut runs: Vec<Vec<Run>> = PLANS.iter().map(|_| Vec::new()).collect();
    for turn in common::turns(turns) {
        let mut order: Vec<usize> = (0..PLANS.len()).collect();
        if turn % 2 == 1 {
            order.reverse();
        }
        for index in order {
            match run(PLANS[index], size, &twice) {
                Ok(run) => runs[index].push(run),
                Err(difference) => return fail(&difference),
            }
        }
    }
    let last = match run(PLANS[PLANS.len() - 1], long, &twice) {
        Ok(run) => run,
        Err(difference) => return fail(&difference),
    };

    let column =
        |runs: &[Run], value: fn(&Run) -> f64| runs.iter().map(value).collect::<Vec<f64>>();
    let mut table = Table::new(&[
        "log",
        "writer s",
        "of whole",
        "",
        "writer CPU s",
        "of whole",
        "loop CPU s",
        "disk MiB",
        "skipped MiB",
    ]);
    for (index, (plan, runs_of)) in PLANS.iter().zip(&runs).enumerate() {
        let same = |other: &Plan| (other.read, other.rate) == (plan.read, plan.rate);
        let whole = &runs[PLANS.iter().position(same).unwrap_or(index)];
        let (writer, writer_cpu) =
            (column(runs_of, |run| run.writer), column(runs_of, |run| run.writer_cpu));
        let slowdown = median_ratio(&writer, &column(whole, |run| run.writer));
        let slowdown_cpu = median_ratio(&writer_cpu, &column(whole, |run| run.writer_cpu));
        table.row(vec![
            format!(
                "{}, {}, {}",
                match plan.kept {
                    Kept::Whole => "whole",
                    Kept::Short => "kept short",
                    Kept::Bare => "bare loop",
                },
                if plan.read { "1 tail" } else { "nobody reads" },
                if plan.rate == 0 { "full speed" } else { "1 GB/s" },
            ),
            format!("{:.3}", median(&writer)),
            format!("{slowdown:.3}"),
            match plan.kept {
                Kept::Short if plan.rate > 0 => verdict(slowdown, TARGET),
                _ => String::new(),
            },
            format!("{:.3}", median(&writer_cpu)),
            format!("{slowdown_cpu:.3}"),
            format!("{:.3}", median(&column(runs_of, |run| run.cpu))),
            format!("{:.0}", median(&column(runs_of, |run| quantile(&run.disk, 1.0)))),
            format!("{:.0}", median(&column(runs_of, |run| run.skipped as f64 / 1e6))),
        ]);
    }
    table.print(&format!(
        "{} MiB in blocks of {BLOCK} bytes, one write each; medians of {} turns; disk: the most",
        size >> 20,
        runs[0].len()
    ));
    let rate = long as f64 / last.writer;
    println!(
        "\n{:.0} GB with a tail, at {:.2} GB/s: disk {:.1} MiB in the median, {:.1} at 99 %, {:.1} \
         at most of {} kept; {} bytes skipped; loop {:.2} s of CPU in {:.2} s",
        long as f64 / 1e9,
        rate / 1e9,
        median(&last.disk),
        quantile(&last.disk, 0.99),
        quantile(&last.disk, 1.0),
        KEEP >> 20,
        last.skipped,
        last.cpu,
        last.writer,
    );
    println!(
        "every byte of every tail was compared with what was written; logs in {}",
        std::env::temp_dir().display()
    );
    ExitCode::SUCCESS
}

fn fail(difference: &str) -> ExitCode {
    eprintln!("{difference}");
    ExitCode::FAILURE
}

/// The text that the writer repeats.
fn text() -> Vec<u8> {
    let line = |number: usize| {
        let mut line = [b'x'; LINE];
        line[..11].copy_from_slice(format!("{number:010} ").as_bytes());
        line[LINE - 1] = b'\n';
        line
    };
    (0..PERIOD / LINE).flat_map(line).collect()
}

/// The job: writes so many bytes, at a rate, and records in a file how long that took.
fn write_blocks(size: u64, rate: u64, report: &Path) {
    let text = text();
    let output = std::io::stdout();
    let (start, cpu) = (Instant::now(), process_cpu());
    let mut written = 0;
    while written < size {
        let from = written as usize % PERIOD;
        assert_eq!(rustix::io::write(&output, &text[from..from + BLOCK]), Ok(BLOCK));
        written += BLOCK as u64;
        if rate > 0 && written.is_multiple_of(1 << 20) {
            let due = start + Duration::from_secs_f64(written as f64 / rate as f64);
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }
    let (wall, cpu) = (start.elapsed().as_secs_f64(), (process_cpu() - cpu).as_secs_f64());
    std::fs::write(report, format!("{wall} {cpu}")).unwrap();
}

/// The floor: gives back what is not to be kept, until it is told to end.
fn give_back(log: &Path, over: &AtomicBool) {
    let file = OpenOptions::new().write(true).open(log).unwrap();
    let mut start = 0;
    while !over.load(Ordering::Relaxed) {
        let end = file.metadata().unwrap().len().saturating_sub(KEEP) / BLOCK as u64 * BLOCK as u64;
        if end >= start + STEP {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fallocate(&file, flags, start, end - start).unwrap();
            start = end;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn run(plan: Plan, size: u64, twice: &[u8]) -> Result<Run, String> {
    let scratch = tempfile::Builder::new().prefix("jobworker-bench-").tempdir().unwrap();
    let report = scratch.path().join("writer");
    let mut reactor = Reactor::new().unwrap();
    let (bytes, rate) = (size.to_string(), plan.rate.to_string());
    let mut command = in_role(["write", &bytes, &rate, report.to_str().unwrap()]);
    if plan.kept == Kept::Short {
        command.log_keep(ByteSize::from_bytes(KEEP));
    }
    let job = reactor.spawn(&command, Token(0)).unwrap();
    let log = reactor.status(job).unwrap().output.unwrap();
    if plan.read {
        reactor.tail(job, Position::Start, Token(1)).unwrap();
    }
    let cpu = thread_cpu();
    let over = AtomicBool::new(false);
    let (got, skipped, disk) = thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            let mut disk = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let blocks = std::fs::metadata(&log).map_or(0, |found| found.blocks());
                disk.push(blocks as f64 * 512.0 / f64::from(1 << 20));
                thread::sleep(Duration::from_millis(1));
            }
            disk
        });
        if plan.kept == Kept::Bare {
            scope.spawn(|| give_back(&log, &over));
        }
        let read = follow(&mut reactor, plan.read, twice);
        over.store(true, Ordering::Relaxed);
        let disk = sampler.join().unwrap();
        read.map(|(got, skipped)| (got, skipped, disk))
    })?;
    let cpu = (thread_cpu() - cpu).as_secs_f64();
    if plan.read && got + skipped != size.next_multiple_of(BLOCK as u64) {
        return Err(format!("{got} bytes and {skipped} skipped instead of {size}"));
    }
    let report = std::fs::read_to_string(&report).unwrap();
    let (writer, writer_cpu) = report.split_once(' ').unwrap();
    let (writer, writer_cpu) = (writer.parse().unwrap(), writer_cpu.parse().unwrap());
    Ok(Run { writer, writer_cpu, cpu, disk, skipped })
}

/// Polls until the job is finished and its log is read, if it is; how many bytes were read, and
/// how many skipped.
fn follow(reactor: &mut Reactor, read: bool, twice: &[u8]) -> Result<(u64, u64), String> {
    let mut events = Events::with_capacity(64);
    let (mut got, mut skipped, mut finished, mut ended) = (0, 0, false, !read);
    while !finished || !ended {
        reactor.poll(&mut events, None).unwrap();
        for event in &events {
            let tail = match event {
                Event::Readable { tail, .. } => *tail,
                Event::Finished { report, .. } => {
                    assert_eq!(report.exit, Exit::Code(0), "the writer has failed");
                    assert!(report.problems.is_empty(), "{:?}", report.problems);
                    finished = true;
                    continue;
                }
                _ => continue,
            };
            loop {
                let length = match reactor.fill_buf(tail).unwrap() {
                    Fill::Data(bytes) => {
                        for (number, piece) in bytes.chunks(PERIOD).enumerate() {
                            let offset = got + skipped + (number * PERIOD) as u64;
                            let from = usize::try_from(offset % PERIOD as u64).unwrap();
                            if twice[from..from + piece.len()] != *piece {
                                return Err(format!("other bytes than were written at {offset}"));
                            }
                        }
                        bytes.len()
                    }
                    Fill::Skipped { bytes } => {
                        skipped += bytes;
                        continue;
                    }
                    Fill::UpToDate => break,
                    Fill::Ended => {
                        ended = true;
                        break;
                    }
                    other => return Err(format!("unexpected {other:?}")),
                };
                got += length as u64;
                reactor.consume(tail, length).unwrap();
            }
        }
    }
    Ok((got, skipped))
}
