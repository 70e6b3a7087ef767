//! Whether following a log slows its writer down. A job writes a million lines of 100 bytes, one
//! write(2) each, and measures itself: followed by nobody, by one tail, by a hundred tails, by a
//! host that works for some time on each event, and by a bare loop on a permanent inotify watch, as
//! one would write it by hand.
//!
//! Invariant: every byte that a tail gets is compared with what was written; a difference ends the
//! program with status 1.

mod common;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use common::{
    LINE, Table, in_role, median, median_ratio, process_cpu, quick, sleeps, thread_cpu, verdict,
};
use jobworker::{Event, Events, Exit, Fill, JobId, Position, Reactor, Token};
use rustix::event::epoll;
use rustix::fs::inotify;

/// After this many lines the text starts over, so that what is expected at any offset is known
/// without keeping it all.
const PERIOD: usize = 1000;

/// How many times as long a followed writer may take as an unfollowed one.
const TARGET: f64 = 1.05;

/// Who follows the writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Followers {
    Nobody,
    Tails(usize),
    /// One tail of a host that works for so many microseconds on each event.
    Working(u64),
    /// epoll_wait, read of an inotify that is always armed, pread.
    BareLoop,
}

const FOLLOWERS: [Followers; 9] = [
    Followers::Nobody,
    Followers::Tails(1),
    Followers::Working(50),
    Followers::Working(150),
    Followers::Working(250),
    Followers::Working(1000),
    Followers::Working(10_000),
    Followers::BareLoop,
    Followers::Tails(100),
];

/// The results of one run.
#[derive(Debug)]
struct Run {
    /// How long the writer took, by its own clock.
    writer: f64,
    /// The CPU time it used meanwhile: what following costs it, whatever else is running.
    writer_cpu: f64,
    cpu: f64,
    wakeups: f64,
}

fn main() -> ExitCode {
    if let Some(role) = common::role() {
        write_lines(role[1].parse().unwrap(), Path::new(&role[2]));
        return ExitCode::SUCCESS;
    }
    let (lines, turns) = if quick() { (100_000, 2) } else { (1_000_000, 9) };
    let expected = Expected::new();
    let mut runs: Vec<Vec<Run>> = FOLLOWERS.iter().map(|_| Vec::new()).collect();
    for turn in common::turns(turns) {
        let mut order: Vec<usize> = (0..FOLLOWERS.len()).collect();
        if turn % 2 == 1 {
            order.reverse();
        }
        for index in order {
            match run(FOLLOWERS[index], lines, &expected) {
                Ok(run) => runs[index].push(run),
                Err(difference) => {
                    eprintln!("{:?}: {difference}", FOLLOWERS[index]);
                    return ExitCode::FAILURE;
                }
            }
        }
    }

    let column =
        |runs: &[Run], value: fn(&Run) -> f64| runs.iter().map(value).collect::<Vec<f64>>();
    let unfollowed = column(&runs[0], |run| run.writer);
    let unfollowed_cpu = column(&runs[0], |run| run.writer_cpu);
    let mut table = Table::new(&[
        "followed by",
        "writer s",
        "of unfollowed",
        "",
        "writer CPU s",
        "of unfollowed",
        "reader CPU s",
        "wake-ups",
    ]);
    for (followers, runs) in FOLLOWERS.iter().zip(&runs) {
        let writer = column(runs, |run| run.writer);
        let writer_cpu = column(runs, |run| run.writer_cpu);
        let slowdown = median_ratio(&writer, &unfollowed);
        table.row(vec![
            match followers {
                Followers::Nobody => "nobody".to_owned(),
                Followers::Tails(1) => "1 tail".to_owned(),
                Followers::Tails(tails) => format!("{tails} tails"),
                Followers::Working(micros) => format!("1 tail, {micros} us of work per event"),
                Followers::BareLoop => "bare loop, watch always armed".to_owned(),
            },
            format!("{:.3}", median(&writer)),
            format!("{slowdown:.3}"),
            match followers {
                Followers::Tails(_) | Followers::Working(_) => verdict(slowdown, TARGET),
                _ => String::new(),
            },
            format!("{:.3}", median(&writer_cpu)),
            format!("{:.3}", median_ratio(&writer_cpu, &unfollowed_cpu)),
            format!("{:.3}", median(&column(runs, |run| run.cpu))),
            format!("{:.0}", median(&column(runs, |run| run.wakeups))),
        ]);
    }
    table.print(&format!(
        "{lines} lines of {LINE} bytes, one write each; medians of {} turns",
        unfollowed.len()
    ));
    println!(
        "every byte of every tail was compared with what was written; logs in {}",
        std::env::temp_dir().display()
    );
    ExitCode::SUCCESS
}

/// The text that the writer repeats.
struct Expected {
    /// Twice, so that any stretch of one period is contiguous.
    twice: Vec<u8>,
}

impl Expected {
    fn new() -> Self {
        let once: Vec<u8> = (0..PERIOD).flat_map(line).collect();
        Self { twice: once.repeat(2) }
    }

    fn check(&self, offset: usize, bytes: &[u8]) -> Result<(), String> {
        for (number, piece) in bytes.chunks(PERIOD * LINE).enumerate() {
            let start = (offset + number * PERIOD * LINE) % (PERIOD * LINE);
            if self.twice[start..start + piece.len()] != *piece {
                return Err(format!(
                    "other bytes than were written within {} bytes from {offset}",
                    bytes.len()
                ));
            }
        }
        Ok(())
    }
}

fn line(number: usize) -> [u8; LINE] {
    let mut line = [b'x'; LINE];
    let name = format!("{:010} ", number % PERIOD);
    line[..name.len()].copy_from_slice(name.as_bytes());
    line[LINE - 1] = b'\n';
    line
}

/// The job: writes the lines, and records in a file how long that took.
fn write_lines(lines: usize, report: &Path) {
    let text: Vec<[u8; LINE]> = (0..PERIOD).map(line).collect();
    let output = std::io::stdout();
    let (start, cpu) = (Instant::now(), process_cpu());
    for number in 0..lines {
        let written = rustix::io::write(&output, &text[number % PERIOD]);
        assert_eq!(written, Ok(LINE));
    }
    let (wall, cpu) = (start.elapsed().as_secs_f64(), (process_cpu() - cpu).as_secs_f64());
    std::fs::write(report, format!("{wall} {cpu}")).unwrap();
}

fn run(followers: Followers, lines: usize, expected: &Expected) -> Result<Run, String> {
    let scratch = tempfile::Builder::new().prefix("jobworker-bench-").tempdir().unwrap();
    let report = scratch.path().join("writer");
    let mut reactor = Reactor::new().unwrap();
    let command = in_role(["write", &lines.to_string(), report.to_str().unwrap()]);
    let mut events = Events::with_capacity(1024);

    let job = reactor.spawn(&command, Token(0)).unwrap();
    let (cpu, wakeups) = (thread_cpu(), sleeps());
    let got = match followers {
        Followers::Nobody => {
            finish(&mut reactor, &mut events);
            vec![lines * LINE]
        }
        Followers::Tails(count) => {
            follow(&mut reactor, job, count, Duration::ZERO, &mut events, expected)?
        }
        Followers::Working(micros) => {
            let work = Duration::from_micros(micros);
            follow(&mut reactor, job, 1, work, &mut events, expected)?
        }
        Followers::BareLoop => {
            let got =
                bare_loop(&reactor.status(job).unwrap().output.unwrap(), lines * LINE, expected)?;
            finish(&mut reactor, &mut events);
            vec![got]
        }
    };
    let (cpu, wakeups) = (thread_cpu() - cpu, sleeps() - wakeups);
    if let Some(got) = got.iter().find(|got| **got != lines * LINE) {
        return Err(format!("{got} bytes instead of {}", lines * LINE));
    }
    let report = std::fs::read_to_string(&report).unwrap();
    let (writer, writer_cpu) = report.split_once(' ').unwrap();
    let (writer, writer_cpu) = (writer.parse().unwrap(), writer_cpu.parse().unwrap());
    Ok(Run { writer, writer_cpu, cpu: cpu.as_secs_f64(), wakeups: wakeups as f64 })
}

fn finish(reactor: &mut Reactor, events: &mut Events) {
    loop {
        reactor.poll(events, None).unwrap();
        for event in &*events {
            if let Event::Finished { report, .. } = event {
                assert_eq!(report.exit, Exit::Code(0), "the writer has failed");
                return;
            }
        }
    }
}

/// Reads the whole log with this many tails, and returns how many bytes each got. Works for some
/// time on each event, as long as the writer runs.
fn follow(
    reactor: &mut Reactor,
    job: JobId,
    count: usize,
    mut work: Duration,
    events: &mut Events,
    expected: &Expected,
) -> Result<Vec<usize>, String> {
    for token in 0..count {
        reactor.tail(job, Position::Start, Token(token)).unwrap();
    }
    let (mut got, mut left) = (vec![0; count], count);
    while left > 0 {
        reactor.poll(events, None).unwrap();
        for event in &*events {
            if let Event::Exited { .. } = event {
                work = Duration::ZERO;
            }
            let Event::Readable { tail, token } = event else { continue };
            let start = Instant::now();
            while start.elapsed() < work {
                std::hint::spin_loop();
            }
            loop {
                let length = match reactor.fill_buf(*tail).unwrap() {
                    Fill::Data(bytes) => {
                        expected.check(got[token.0], bytes)?;
                        bytes.len()
                    }
                    Fill::UpToDate => break,
                    Fill::Ended => {
                        left -= 1;
                        break;
                    }
                    other => return Err(format!("unexpected {other:?}")),
                };
                got[token.0] += length;
                reactor.consume(*tail, length).unwrap();
            }
        }
    }
    Ok(got)
}

/// Follows a log as one would by hand, with a watch that is always armed.
fn bare_loop(path: &Path, length: usize, expected: &Expected) -> Result<usize, String> {
    let file = File::open(path).unwrap();
    let watch =
        inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC).unwrap();
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    epoll::add(&epoll, &watch, epoll::EventData::new_u64(0), epoll::EventFlags::IN).unwrap();
    inotify::add_watch(&watch, path, inotify::WatchFlags::MODIFY).unwrap();
    let (mut hints, mut buffer, mut got) = ([0u8; 4096], vec![0u8; 64 * 1024], 0);
    let mut ready = Vec::with_capacity(8);
    loop {
        loop {
            let read = file.read_at(&mut buffer, got as u64).unwrap();
            expected.check(got, &buffer[..read])?;
            got += read;
            if read < buffer.len() {
                break;
            }
        }
        if got >= length {
            return Ok(got);
        }
        common::wait(&epoll, &mut ready);
        let _ = rustix::io::read(&watch, &mut hints).unwrap();
    }
}
