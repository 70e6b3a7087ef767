//! Follows one job with any number of readers, and reports what that has cost: tails, all on one
//! thread; threads; or tasks of a runtime.
//!
//! `cargo run --release --example concurrent -- 10 bash -c 'while true; do echo hello; sleep 1;
//! done'`, then Ctrl-C; the same with `--threads 10` or `--tasks 10`.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::future::poll_fn;
use std::io::{self, BufRead, PipeReader, PipeWriter};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::task::{Poll, ready};
use std::thread;

use anyhow::Context;
use clap::Parser;
use crc32fast::Hasher;
use jobworker::worker::{Job, Output};
use jobworker::{Error, Event, Events, Fill, JobError, Position, Signal, Token, Worker};
use rustix::event::{PollFd, PollFlags};
use rustix::io::{Errno, retry_on_intr};
use rustix::time::{ClockId, clock_gettime};
use signal_hook::consts::{SIGINT, SIGPIPE, SIGTSTP};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;
use tokio::runtime;
use tokio::sync::mpsc;

use crate::common::place::PlaceFlags;
use crate::common::{Host, failed, say, warn};

mod common;

/// The stack of a thread that reads. It is only reserved: what it does not use costs no memory.
const STACK: usize = 128 * 1024;

/// Runs CMD as a job that N readers follow from its first byte to its last.
///
/// The readers are tails of a reactor, all on one thread, unless they are to be threads or tasks.
/// Each line appears on standard output once for every reader, as in `Reader 7: line`. At the end,
/// or after SIGINT (Ctrl-C), SIGTERM or SIGHUP, a table on standard error says what it has cost.
/// CMD has the environment, the working directory and the standard input of this process, unless
/// that is a terminal: then its standard input is /dev/null. Ctrl-Z freezes it, and fg thaws it.
///
/// The exit status is 0 when every reader got the same bytes, all that CMD has written, and 1 when
/// not, whatever the status of CMD; 125 when the job could not be set up, 126 when CMD cannot be
/// run, 127 when it is not found, and 141 when nobody reads standard output any more.
#[derive(Parser)]
#[command(
    name = "concurrent",
    override_usage = "concurrent [OPTIONS] N CMD [ARGS]...",
    max_term_width = 100
)]
struct Options {
    /// Each reader is a thread that blocks.
    #[arg(long)]
    threads: bool,
    /// Each reader is a task of a tokio runtime.
    #[arg(long, conflicts_with = "threads")]
    tasks: bool,
    /// How many readers.
    #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    readers: u32,
    /// Print no lines, only the table.
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    place: PlaceFlags,
    /// The program, and its arguments.
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// A reader of the job's output.
struct Reader {
    number: usize,
    bytes: u64,
    checksum: Hasher,
    /// The beginning of a line whose end has not arrived yet.
    line: Vec<u8>,
}

impl Reader {
    fn new(index: usize) -> Self {
        Self { number: index + 1, bytes: 0, checksum: Hasher::new(), line: Vec::new() }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.checksum.update(bytes);
    }

    /// The complete lines, as they are printed. Keeps what follows them.
    fn lines(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut lines = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend(piece);
            if piece.ends_with(b"\n") {
                self.end_line(&mut lines);
            }
        }
        lines
    }

    /// What follows the last newline, as it is printed.
    fn last_line(&mut self) -> Vec<u8> {
        let mut line = Vec::new();
        if !self.line.is_empty() {
            self.line.push(b'\n');
            self.end_line(&mut line);
        }
        line
    }

    fn end_line(&mut self, lines: &mut Vec<u8>) {
        lines.extend(format!("Reader {}: ", self.number).as_bytes());
        lines.append(&mut self.line);
    }
}

/// What a reader is.
#[derive(Clone, Copy)]
enum Kind {
    Tail,
    Thread,
    Task,
}

/// What the readers have done, and what that has cost.
struct Outcome {
    kind: Kind,
    readers: Vec<Reader>,
    /// How many bytes are in the log.
    written: u64,
    /// The resident memory before there were readers, and with them, in KiB.
    rss: (u64, u64),
    threads: u64,
    open_fds: usize,
    /// How often a thread has waited and was woken.
    wake_ups: u64,
    broken_pipe: bool,
}

fn main() -> ExitCode {
    let options: Options = match common::parse() {
        Ok(options) => options,
        Err(status) => return status,
    };
    run(&options).unwrap_or_else(|error| failed(&error))
}

fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let outcome = if options.threads || options.tasks {
        follow_by_worker(options)?
    } else {
        follow_by_tails(options)?
    };
    let same = print_table(&outcome)?;
    Ok(ExitCode::from(match same {
        false => 1,
        true if outcome.broken_pipe => 141,
        true => 0,
    }))
}

/// Follows the job with tails, in an event loop.
fn follow_by_tails(options: &Options) -> anyhow::Result<Outcome> {
    let mut host = Host::new(&options.place)?;
    let job = host.spawn(&common::command(&options.command)?)?;
    let rss_before = process_status("VmRSS:")?;
    let mut readers = Vec::with_capacity(options.readers as usize);
    let mut tails = Vec::with_capacity(readers.capacity());
    for index in 0..options.readers as usize {
        // The token leads from an event to its reader.
        tails.push(host.reactor.tail(job, Position::Start, Token(index))?);
        readers.push(Reader::new(index));
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
            let (reader, tail) = (&mut readers[index], tails[index]);
            match host.reactor.fill_buf(tail)? {
                Fill::Data(bytes) => {
                    let length = bytes.len();
                    reader.take(bytes);
                    if !options.quiet && host.stdout.open {
                        host.stdout.print(&reader.lines(bytes));
                    }
                    host.reactor.consume(tail, length)?;
                    readable.push_back(index);
                }
                Fill::UpToDate => {}
                Fill::Ended => {
                    running -= 1;
                    host.stdout.print(&reader.last_line());
                }
                // The job has truncated its log. What it writes from now on follows.
                Fill::Truncated | Fill::Skipped { .. } | Fill::Replaced { .. } => {
                    readable.push_back(index);
                }
            }
        }
    }

    host.reactor.remove(job)?;
    let written = report.map_or(0, |report| report.output_bytes);
    let rss = (rss_before, process_status("VmRSS:")?);
    Ok(Outcome {
        kind: Kind::Tail,
        readers,
        written,
        rss,
        threads: process_status("Threads:")?,
        open_fds: open_fds()?,
        wake_ups: host.wake_ups,
        broken_pipe,
    })
}

/// Follows the job with threads or tasks, while this thread waits for its end.
fn follow_by_worker(options: &Options) -> anyhow::Result<Outcome> {
    // Handled before anything is created, so that no signal can leave anything behind.
    let mut handled = common::signals::to_handle()?;
    handled.extend(common::signals::to_suspend()?);
    let signals = Signals::new(handled)?;
    let worker = Worker::with_config(&options.place.config_or_group())?;
    let job = worker.spawn(&common::command(&options.command)?)?;
    if let Some(note) = options.place.note(worker.containment()) {
        warn(note);
    }
    let (printer, give_up) = Printer::new(options.quiet, job.clone())?;
    let handle = signals.handle();
    let obeying = {
        let job = job.clone();
        thread::spawn(move || obey(signals, &job, give_up))
    };

    let rss_before = process_status("VmRSS:")?;
    let readers = (0..options.readers as usize).map(|index| {
        let output = job.output(Position::Start)?;
        anyhow::Ok((output, Reader::new(index), Arc::clone(&printer)))
    });
    let (kind, (readers, threads)) = if options.threads {
        (Kind::Thread, read_with_threads(&job, readers)?)
    } else {
        (Kind::Task, read_with_tasks(readers)?)
    };
    let written = job.wait()?.output_bytes;
    // The readers have ended: this is the most that there was.
    let rss = (rss_before, process_status("VmHWM:")?);
    let wake_ups = printer.wake_ups.load(Ordering::Relaxed) + sleeps_of_all()?;
    let open_fds = open_fds()?;
    handle.close();
    obeying.join().expect("nothing panics there");
    let broken_pipe = printer.broken_pipe.load(Ordering::Relaxed);
    Ok(Outcome { kind, readers, written, rss, threads, open_fds, wake_ups, broken_pipe })
}

/// One that reads, with what it needs.
type Reading = (Output, Reader, Arc<Printer>);

/// Has each reader read on a thread of its own. Returns how many threads there are then, too.
fn read_with_threads(
    job: &Job,
    readers: impl Iterator<Item = anyhow::Result<Reading>>,
) -> anyhow::Result<(Vec<Reader>, u64)> {
    let start = |reading: anyhow::Result<Reading>, gate: Arc<RwLock<()>>| {
        let (output, reader, printer) = reading?;
        let builder = thread::Builder::new().stack_size(STACK);
        anyhow::Ok(builder.spawn(move || {
            drop(gate.read());
            read(output, reader, &printer)
        })?)
    };
    // None begins before the last one is there.
    let gate = Arc::new(RwLock::new(()));
    let (closed, mut threads, mut count) = (gate.write(), Vec::new(), Ok(0));
    for reading in readers {
        match start(reading, Arc::clone(&gate)) {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                // Those who have begun must have an end.
                job.kill()?;
                count = Err(error);
                break;
            }
        }
    }
    let count = count.and_then(|_: u64| process_status("Threads:"));
    drop(closed);
    let joined = threads.into_iter().map(|thread| thread.join().expect("nothing panics there"));
    let read: anyhow::Result<Vec<Reader>> = joined.collect();
    Ok((read?, count?))
}

/// Reads to the end, and blocks meanwhile.
fn read(mut output: Output, mut reader: Reader, printer: &Printer) -> anyhow::Result<Reader> {
    loop {
        let length = match output.fill_buf() {
            Ok([]) => break,
            Ok(bytes) => {
                reader.take(bytes);
                if printer.prints() {
                    printer.print(&reader.lines(bytes))?;
                }
                bytes.len()
            }
            // The job has truncated its log. What it writes from now on follows.
            Err(error) if Output::is_truncation(&error) => 0,
            Err(error) => return Err(error.into()),
        };
        output.consume(length);
    }
    printer.print(&reader.last_line())?;
    printer.wake_ups.fetch_add(sleeps("/proc/thread-self/status")?, Ordering::Relaxed);
    Ok(reader)
}

/// Has each reader read as a task. Returns how many threads there are then, too.
fn read_with_tasks(
    readers: impl Iterator<Item = anyhow::Result<Reading>>,
) -> anyhow::Result<(Vec<Reader>, u64)> {
    let runtime = runtime::Builder::new_multi_thread().build()?;
    // Standard output may take nothing for a while: no task waits for it, but for room in here.
    let (lines, mut to_print) = mpsc::channel::<(Vec<u8>, Arc<Printer>)>(64);
    let printing = runtime.spawn_blocking(move || {
        while let Some((lines, printer)) = to_print.blocking_recv() {
            printer.print(&lines)?;
        }
        anyhow::Ok(())
    });
    let start = |reading: anyhow::Result<Reading>| {
        let (output, reader, printer) = reading?;
        anyhow::Ok(runtime.spawn(read_as_task(output, reader, printer, lines.clone())))
    };
    let tasks: Vec<_> = readers.map(start).collect::<anyhow::Result<_>>()?;
    drop(lines);
    let count = process_status("Threads:")?;
    let joined = tasks.into_iter().map(|task| runtime.block_on(task)?);
    let read: anyhow::Result<Vec<Reader>> = joined.collect();
    runtime.block_on(printing)??;
    Ok((read?, count))
}

/// Reads to the end.
async fn read_as_task(
    mut output: Output,
    mut reader: Reader,
    printer: Arc<Printer>,
    to_print: mpsc::Sender<(Vec<u8>, Arc<Printer>)>,
) -> anyhow::Result<Reader> {
    loop {
        let read = poll_fn(|cx| {
            let taken = match ready!(output.poll_fill(cx))? {
                Fill::Data(bytes) => {
                    reader.take(bytes);
                    let lines = if printer.prints() { reader.lines(bytes) } else { Vec::new() };
                    Some((bytes.len(), lines))
                }
                Fill::Ended => None,
                // The job has truncated its log. What it writes from now on follows.
                Fill::Truncated | Fill::Skipped { .. } | Fill::Replaced { .. } | Fill::UpToDate => {
                    Some((0, Vec::new()))
                }
            };
            Poll::Ready(Ok::<_, jobworker::Error>(taken))
        });
        let Some((length, lines)) = read.await? else { break };
        output.consume(length);
        if !lines.is_empty() {
            // Nobody prints any more after a failure, which is reported where it has happened.
            let _ = to_print.send((lines, Arc::clone(&printer))).await;
        }
    }
    let last = reader.last_line();
    if !last.is_empty() {
        let _ = to_print.send((last, printer)).await;
    }
    Ok(reader)
}

/// Standard output for all readers.
struct Printer {
    quiet: bool,
    /// Is stopped when nobody reads standard output any more.
    job: Job,
    /// Held while something is printed, so that lines stay whole.
    printing: Mutex<()>,
    /// At its end once the rest is not to be printed.
    given_up: PipeReader,
    broken_pipe: AtomicBool,
    /// How often the threads that have ended have waited and were woken.
    wake_ups: AtomicU64,
}

impl Printer {
    /// Prints until the writer is dropped.
    fn new(quiet: bool, job: Job) -> io::Result<(Arc<Self>, PipeWriter)> {
        let (given_up, give_up) = io::pipe()?;
        let (broken_pipe, wake_ups) = (AtomicBool::new(false), AtomicU64::new(0));
        let printing = Mutex::new(());
        let printer = Self { quiet, job, printing, given_up, broken_pipe, wake_ups };
        Ok((Arc::new(printer), give_up))
    }

    /// Whether anybody wants to see lines.
    fn prints(&self) -> bool {
        !self.quiet && !self.broken_pipe.load(Ordering::Relaxed)
    }

    /// Blocks while standard output takes nothing: other readers that print wait as well, but
    /// neither the job nor a signal does.
    fn print(&self, mut lines: &[u8]) -> anyhow::Result<()> {
        let _printing = self.printing.lock().unwrap_or_else(PoisonError::into_inner);
        let stdout = io::stdout();
        while !lines.is_empty() && !self.broken_pipe.load(Ordering::Relaxed) {
            let mut ready =
                [PollFd::new(&stdout, PollFlags::OUT), PollFd::new(&self.given_up, PollFlags::IN)];
            retry_on_intr(|| rustix::event::poll(&mut ready, None))?;
            if !ready[1].revents().is_empty() {
                break;
            }
            let length = lines.len().min(common::CHUNK);
            match retry_on_intr(|| rustix::io::write(&stdout, &lines[..length])) {
                Ok(written) => lines = &lines[written..],
                Err(Errno::PIPE) => {
                    self.broken_pipe.store(true, Ordering::Relaxed);
                    self.job.stop()?;
                }
                Err(error) => return Err(error).context("cannot write to standard output"),
            }
        }
        Ok(())
    }
}

/// Does what the signals ask for, as [`Host::obey`] does: the first one stops the job, and a
/// further SIGINT kills it. When the job is finished, and only printing the rest of its output
/// takes a while, a second signal gives that up. SIGTSTP (Ctrl-Z) suspends this process, with the
/// job.
fn obey(mut signals: Signals, job: &Job, give_up: PipeWriter) {
    let (mut stopping, mut give_up) = (false, Some(give_up));
    for signal in &mut signals.forever() {
        // A request can only fail because the worker has ended, and with it the job.
        if signal == SIGTSTP {
            let _ = freeze(job, true);
            let _ = emulate_default_handler(signal);
            let _ = freeze(job, false);
        } else if !std::mem::replace(&mut stopping, true) {
            let _ = job.stop();
        } else if job.report().is_some() {
            drop(give_up.take());
        } else if signal == SIGINT {
            let _ = job.kill();
        }
    }
}

/// Freezes a job or lets it go on, as [`Host::freeze`] does.
fn freeze(job: &Job, frozen: bool) -> jobworker::Result<()> {
    match if frozen { job.freeze() } else { job.thaw() } {
        Err(Error::Job(JobError::NotInCgroup(_))) => {
            job.signal(if frozen { Signal::STOP } else { Signal::CONT })
        }
        other => other,
    }
}

/// Prints what it has cost, and returns whether every reader got the same bytes, at least as many
/// as are in the log.
fn print_table(outcome: &Outcome) -> anyhow::Result<bool> {
    let Outcome { kind, readers, written, rss, threads, open_fds, wake_ups, .. } = outcome;
    let count = readers.len() as u64;
    let results =
        || readers.iter().map(|reader| (reader.bytes, reader.checksum.clone().finalize()));
    let (fewest, most) = (results().min().unwrap_or_default(), results().max().unwrap_or_default());
    let same = fewest == most && fewest.0 >= *written;
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    let rss_each = rss.1.saturating_sub(rss.0) * 1024 / count;
    let (all, each) = match kind {
        Kind::Tail => ("Tails", "tail"),
        Kind::Thread => ("Reader threads", "thread"),
        Kind::Task => ("Reader tasks", "task"),
    };
    let rows = [
        (all.to_owned(), count.to_string()),
        (
            format!("Bytes per {each}"),
            if same { most.0.to_string() } else { format!("{} to {}", fewest.0, most.0) },
        ),
        ("Bytes in all".into(), readers.iter().map(|reader| reader.bytes).sum::<u64>().to_string()),
        ("Threads".into(), threads.to_string()),
        ("Open fds".into(), open_fds.to_string()),
        (format!("RSS per {each}"), format!("{rss_each} B")),
        ("Wake-ups".into(), wake_ups.to_string()),
        ("CPU time".into(), format!("{}.{:03} s", cpu.tv_sec, cpu.tv_nsec / 1_000_000)),
        (
            "Same bytes".into(),
            if same { format!("yes (CRC-32 {:08x})", most.1) } else { "NO".to_owned() },
        ),
    ];
    for (name, value) in rows {
        say(format_args!("{name:<18}{value}"));
    }
    Ok(same)
}

/// A figure from /proc/self/status.
fn process_status(name: &str) -> anyhow::Result<u64> {
    status_field("/proc/self/status", name)
}

/// How often a thread has waited.
fn sleeps(status: &str) -> anyhow::Result<u64> {
    status_field(status, "voluntary_ctxt_switches:")
}

/// How often all threads that there are have waited.
fn sleeps_of_all() -> anyhow::Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir("/proc/self/task").context("cannot list this process's threads")? {
        // A thread may end meanwhile, and does not count then.
        sum += sleeps(&task?.path().join("status").to_string_lossy()).unwrap_or_default();
    }
    Ok(sum)
}

fn open_fds() -> io::Result<usize> {
    // The directory itself is open while it is listed.
    Ok(fs::read_dir("/proc/self/fd")?.count() - 1)
}

fn status_field(path: &str, name: &str) -> anyhow::Result<u64> {
    let status = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| anyhow::anyhow!("no {name} in {path}"))
}
