//! Follows one job with any number of tails, all on one thread, and reports what that has cost.
//!
//! `cargo run --release --example concurrent -- 10 bash -c 'while true; do echo hello; sleep 1;
//! done'`, then Ctrl-C.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::process::ExitCode;

use clap::Parser;
use crc32fast::Hasher;
use jobworker::{Config, Event, Events, Fill, Position, TailId, Token};
use rustix::time::{ClockId, clock_gettime};
use signal_hook::consts::SIGPIPE;

use crate::common::{Host, Stdout, failed, say};

mod common;

/// Runs CMD as a job that N tails follow from its first byte to its last.
///
/// Each line appears on standard output once for every tail, as in `Reader 7: line`. At the end, or
/// after SIGINT (Ctrl-C), SIGTERM or SIGHUP, a table on standard error says what it has cost. CMD
/// has the environment and the working directory of this process, and /dev/null as standard input.
///
/// The exit status is 0 when every tail got the same bytes, all that CMD has written, and 1 when
/// not, whatever the status of CMD; 125 when the job could not be set up, 126 when CMD cannot be
/// run, 127 when it is not found, and 141 when nobody reads standard output any more.
#[derive(Parser)]
#[command(name = "concurrent", override_usage = "concurrent N [--quiet] CMD [ARGS]...")]
struct Options {
    /// How many tails.
    #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    tails: u32,
    /// Print no lines, only the table.
    #[arg(long)]
    quiet: bool,
    /// The program, and its arguments.
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// A reader of the job's output.
struct Reader {
    tail: TailId,
    bytes: u64,
    checksum: Hasher,
    /// The beginning of a line whose end has not arrived yet.
    line: Vec<u8>,
}

impl Reader {
    fn take(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.checksum.update(bytes);
    }

    /// Prints the complete lines, and keeps what follows them.
    fn print(&mut self, number: usize, bytes: &[u8], stdout: &mut Stdout) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend(piece);
            if piece.ends_with(b"\n") {
                self.end_line(number, stdout);
            }
        }
    }

    fn end_line(&mut self, number: usize, stdout: &mut Stdout) {
        stdout.print(format!("Reader {number}: ").as_bytes());
        stdout.print(&self.line);
        self.line.clear();
    }
}

fn main() -> ExitCode {
    let options: Options = match common::parse() {
        Ok(options) => options,
        Err(status) => return status,
    };
    run(&options).unwrap_or_else(|error| failed(&error))
}

fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let mut host = Host::new(&Config::new())?;
    let job = host.reactor.spawn(&common::command(&options.command), Token(0))?;
    let rss_before = process_status("VmRSS:")?;
    let mut readers = Vec::with_capacity(options.tails as usize);
    for index in 0..options.tails as usize {
        // The token leads from an event to its reader.
        let tail = host.reactor.tail(job, Position::Start, Token(index))?;
        readers.push(Reader { tail, bytes: 0, checksum: Hasher::new(), line: Vec::new() });
    }

    let mut events = Events::with_capacity(1024);
    let mut readable = VecDeque::new();
    let (mut report, mut running, mut broken_pipe) = (None, readers.len(), false);
    while report.is_none() || !(host.given_up || running == 0 && host.stdout.is_empty()) {
        for signal in host.turn(&mut events, !readable.is_empty())? {
            broken_pipe |= signal == SIGPIPE;
            host.obey(signal, job)?;
        }
        for event in &events {
            match event {
                Event::Readable { token, .. } => readable.push_back(token.0),
                Event::Finished { report: last, .. } => report = Some(last.clone()),
                _ => {}
            }
        }
        // Each reader takes one piece and queues up again, so that neither another reader nor a
        // signal has to wait.
        for _ in 0..readable.len() {
            if !host.stdout.has_room() {
                break;
            }
            let Some(index) = readable.pop_front() else { break };
            let reader = &mut readers[index];
            match host.reactor.fill_buf(reader.tail)? {
                Fill::Data(bytes) => {
                    let length = bytes.len();
                    reader.take(bytes);
                    if !options.quiet && host.stdout.open {
                        reader.print(index + 1, bytes, &mut host.stdout);
                    }
                    host.reactor.consume(reader.tail, length)?;
                    readable.push_back(index);
                }
                Fill::UpToDate => {}
                Fill::Ended => {
                    running -= 1;
                    if !reader.line.is_empty() {
                        reader.line.push(b'\n');
                        reader.end_line(index + 1, &mut host.stdout);
                    }
                }
                // The job has truncated its log. What it writes from now on follows.
                Fill::Truncated | Fill::Replaced { .. } => readable.push_back(index),
            }
        }
    }

    let same =
        print_table(&host, &readers, rss_before, report.map_or(0, |report| report.output_bytes))?;
    host.reactor.remove(job)?;
    Ok(ExitCode::from(if !same {
        1
    } else if broken_pipe {
        141
    } else {
        0
    }))
}

/// Prints what it has cost, and returns whether every tail got the same bytes, at least as many as
/// are in the log.
fn print_table(
    host: &Host,
    readers: &[Reader],
    rss_before: u64,
    written: u64,
) -> anyhow::Result<bool> {
    let count = readers.len() as u64;
    let results =
        || readers.iter().map(|reader| (reader.bytes, reader.checksum.clone().finalize()));
    let (fewest, most) = (results().min().unwrap_or_default(), results().max().unwrap_or_default());
    let same = fewest == most && fewest.0 >= written;
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    let rss_per_tail = process_status("VmRSS:")?.saturating_sub(rss_before) * 1024 / count;
    // The directory itself is open while it is listed.
    let open_fds = fs::read_dir("/proc/self/fd")?.count() - 1;
    let rows = [
        ("Tails", count.to_string()),
        (
            "Bytes per tail",
            if same { most.0.to_string() } else { format!("{} to {}", fewest.0, most.0) },
        ),
        ("Bytes in all", readers.iter().map(|reader| reader.bytes).sum::<u64>().to_string()),
        ("Threads", process_status("Threads:")?.to_string()),
        ("Open fds", open_fds.to_string()),
        ("RSS per tail", format!("{rss_per_tail} B")),
        ("Wake-ups", host.wake_ups.to_string()),
        ("CPU time", format!("{}.{:03} s", cpu.tv_sec, cpu.tv_nsec / 1_000_000)),
        ("Same bytes", if same { format!("yes (CRC-32 {:08x})", most.1) } else { "NO".to_owned() }),
    ];
    for (name, value) in rows {
        say(format_args!("{name:<16}{value}"));
    }
    Ok(same)
}

/// A figure from /proc/self/status.
fn process_status(name: &str) -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| anyhow::anyhow!("no {name} in /proc/self/status"))
}
