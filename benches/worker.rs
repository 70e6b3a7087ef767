//! What handles on other threads cost: how soon a blocking reader has a line, how soon the last of
//! thousands of threads or tasks has it, what they cost in silence and in memory, and how fast
//! threads start jobs while the loop serves readers.
//!
//! What a reader is measured against runs in the same turn: a tail of a reactor, and a bare loop of
//! epoll_wait, read of an inotify and pread. For many readers the bare loop wakes as many threads
//! or tasks through the same wakers, and others read the file every 500 ms. Spawns are measured
//! against those of `std::process::Command` on as many threads, beside the same readers.
//!
//! Invariant: every line that a reader gets is compared with what was written; a difference ends
//! the program with status 1.

mod common;

use std::fs::{self, File, OpenOptions};
use std::future::poll_fn;
use std::io::{Read as _, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use common::{
    BareLoop, LAST, LINE, Table, in_role, line, median, median_ratio, monotonic, process_cpu,
    quantile, quick, stamp, thread_cpu, verdict,
};
use jobworker::worker::{Job, Output};
use jobworker::{Command, Events, Position, Reactor, Read, Stdin, Token, Worker};
use tokio::runtime::{self, Runtime};

/// The largest accepted ratio of a blocking reader's latency to that of a reactor's one tail.
const LATENCY_TARGET: f64 = 1.5;

/// How often those look that poll.
const POLL: Duration = Duration::from_millis(500);

/// The stack of a thread that reads. It is only reserved: what it does not use costs no memory.
const STACK: usize = 128 * 1024;

/// The readers beside which jobs are started.
const SERVED: usize = 1_000;

fn main() -> ExitCode {
    if let Some(role) = common::role() {
        play(&role);
        return ExitCode::SUCCESS;
    }
    let measured =
        one_reader().and_then(|()| many_readers()).and_then(|()| spawns()).map(|()| memory());
    common::finish(measured)
}

/// What a process does that is a part of this benchmark.
fn play(role: &[String]) {
    let number = |index: usize| role[index].parse::<usize>().unwrap();
    match role[0].as_str() {
        "paced" => write_paced(number(1), &role[2..]),
        "asked" => write_when_asked(),
        "chatty" => loop {
            thread::sleep(Duration::from_micros(number(1) as u64));
            print_line(monotonic());
        },
        "memory" => println!("{}", memory_of(&role[1], number(2))),
        other => panic!("no role {other}"),
    }
}

fn print_line(stamp: u64) {
    rustix::io::write(std::io::stdout(), &line(stamp)).unwrap();
}

/// Writes lines to standard output and to these files, with pauses: one to each before the next, in
/// an order that is new each time. Whoever follows on another one with the same code finds it in
/// the caches.
fn write_paced(lines: usize, files: &[String]) {
    let open = |path: &String| OpenOptions::new().append(true).open(path).unwrap();
    let mut files: Vec<File> = files.iter().map(open).collect();
    files.push(std::io::stdout().as_fd().try_clone_to_owned().unwrap().into());
    for number in 0..=lines {
        fastrand::shuffle(&mut files);
        for file in &files {
            pause(1000..2500);
            let stamp = if number == lines { LAST } else { monotonic() };
            rustix::io::write(file, &line(stamp)).unwrap();
        }
    }
}

/// Writes a line for each byte of standard input, and a last one at its end.
fn write_when_asked() {
    while std::io::stdin().read(&mut [0]).unwrap() == 1 {
        print_line(monotonic());
    }
    print_line(LAST);
}

/// Pauses for so many microseconds.
fn pause(range: std::ops::Range<u64>) {
    thread::sleep(Duration::from_micros(fastrand::u64(range)));
}

/// Takes lines out of pieces, and checks them.
#[derive(Default)]
struct Lines {
    /// The beginning of a line whose end has not arrived yet.
    rest: Vec<u8>,
}

impl Lines {
    /// Calls `take` with the time in each line; returns whether the last one has come.
    fn take(&mut self, bytes: &[u8], mut take: impl FnMut(u64)) -> Result<bool, String> {
        self.rest.extend_from_slice(bytes);
        let mut lines = self.rest.chunks_exact(LINE);
        for found in &mut lines {
            let stamp = stamp(found);
            if found != line(stamp) {
                return Err(format!("not a line: {:?}", String::from_utf8_lossy(found)));
            }
            if stamp == LAST {
                return Ok(true);
            }
            take(stamp);
        }
        self.rest = lines.remainder().to_vec();
        Ok(false)
    }
}

/// Who follows alone. What a reader on another thread costs at least is the change of threads, so
/// one is measured that a bare loop wakes.
const FOLLOWERS: [&str; 4] =
    ["blocking reader", "tail of a reactor", "bare loop", "thread that a bare loop wakes"];

/// From the write to the bytes in hand, of one blocking reader.
fn one_reader() -> Result<(), String> {
    let (lines, turns) = if quick() { (40, 1) } else { (200, 9) };
    let turns: Vec<[Vec<f64>; 4]> =
        common::turns(turns).map(|_| follow_alone(lines)).collect::<Result<_, _>>()?;
    let over = |follower: usize, part: f64| -> Vec<f64> {
        turns.iter().map(|turn| quantile(&turn[follower], part) / 1e3).collect()
    };
    let mut table = Table::new(&[
        "one follower",
        "p50 us",
        "p99 us",
        "of the tail",
        "",
        "of floor",
        "of thread",
    ]);
    let (tail, floor, thread) = (over(1, 0.5), over(2, 0.5), over(3, 0.5));
    for (follower, name) in FOLLOWERS.iter().enumerate() {
        let p50 = over(follower, 0.5);
        let ratio = median_ratio(&p50, &tail);
        table.row(vec![
            (*name).to_owned(),
            format!("{:.1}", median(&p50)),
            format!("{:.1}", median(&over(follower, 0.99))),
            format!("{ratio:.2}"),
            if follower == 0 { verdict(ratio, LATENCY_TARGET) } else { String::new() },
            format!("{:.2}", median_ratio(&p50, &floor)),
            format!("{:.2}", median_ratio(&p50, &thread)),
        ]);
    }
    table.print(&format!(
        "A line of {LINE} bytes every 4 to 10 ms for each, {lines} lines a turn, medians of {} \
         turns",
        turns.len()
    ));
    Ok(())
}

/// The latencies of each follower in nanoseconds.
fn follow_alone(lines: usize) -> Result<[Vec<f64>; 4], String> {
    let scratch = tempfile::Builder::new().prefix("jobworker-bench-").tempdir().unwrap();
    let files = ["tail", "floor", "thread"].map(|name| scratch.path().join(name));
    for file in &files {
        File::create(file).unwrap();
    }
    let (tail, floor) = (with_tail(&files[0]), with_bare_loop(&files[1]));
    let thread = with_woken_thread(&files[2]);
    let worker = Worker::new().unwrap();
    let [first, second, third] = files.each_ref().map(|file| file.to_str().unwrap());
    let job = worker.spawn(&in_role(["paced", &lines.to_string(), first, second, third])).unwrap();
    let reader = with_reader(job.output(Position::Start).unwrap());
    let all = [
        reader.join().unwrap()?,
        tail.join().unwrap()?,
        floor.join().unwrap()?,
        thread.join().unwrap()?,
    ];
    // The bare loop keeps one line: a thread that is late, as on a busy machine, misses some.
    match all[..3].iter().find(|latencies| latencies.len() != lines) {
        Some(other) => Err(format!("{} lines instead of {lines}", other.len())),
        None => Ok(all),
    }
}

type Latencies = JoinHandle<Result<Vec<f64>, String>>;

/// Follows the output of a job with a reader that blocks.
fn with_reader(mut output: Output) -> Latencies {
    thread::spawn(move || {
        let (mut found, mut latencies, mut buffer) = (Lines::default(), Vec::new(), [0; 4096]);
        loop {
            let length = output.read(&mut buffer).unwrap();
            let now = monotonic();
            if found.take(&buffer[..length], |stamp| latencies.push((now - stamp) as f64))? {
                return Ok(latencies);
            }
            if length == 0 {
                return Err("the log has ended before its last line".to_owned());
            }
        }
    })
}

/// Follows a file with a tail of a reactor.
fn with_tail(path: &Path) -> Latencies {
    let mut reactor = Reactor::new().unwrap();
    let tail = reactor.tail_file(path, Position::Start, Token(0)).unwrap();
    thread::spawn(move || {
        let (mut found, mut latencies, mut buffer) = (Lines::default(), Vec::new(), [0; 4096]);
        let mut events = Events::with_capacity(8);
        loop {
            reactor.poll(&mut events, None).unwrap();
            // There is nothing else that could happen.
            while let Read::Data(length) = reactor.read(tail, &mut buffer).unwrap() {
                let now = monotonic();
                if found.take(&buffer[..length], |stamp| latencies.push((now - stamp) as f64))? {
                    return Ok(latencies);
                }
            }
        }
    })
}

/// Follows a file by hand.
fn with_bare_loop(path: &Path) -> Latencies {
    let mut follower = BareLoop::new(path);
    thread::spawn(move || {
        let (mut found, mut latencies) = (Lines::default(), Vec::new());
        loop {
            let lines = follower.next();
            let now = monotonic();
            if found.take(lines, |stamp| latencies.push((now - stamp) as f64))? {
                return Ok(latencies);
            }
        }
    })
}

/// Follows a file on a thread that a bare loop wakes.
fn with_woken_thread(path: &Path) -> Latencies {
    let board = Arc::new(Board::new(1));
    let follower = board.follow(path);
    thread::spawn(move || {
        let (mut found, mut latencies) = (Lines::default(), Vec::new());
        let (mut seen, mut buffer) = (0, [0; LINE]);
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut cx = Context::from_waker(&waker);
        loop {
            if board.poll_line(0, &mut seen, &mut cx, &mut buffer).is_pending() {
                thread::park();
                continue;
            }
            let now = monotonic();
            if found.take(&buffer, |stamp| latencies.push((now - stamp) as f64))? {
                follower.join().unwrap();
                return Ok(latencies);
            }
        }
    })
}

/// What reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Threads,
    Tasks,
}

/// How it learns of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// An [`Output`].
    Output,
    /// A bare loop that wakes it.
    Floor,
    /// Reading the file again and again.
    Polling,
}

const CASES: [(Kind, By); 6] = [
    (Kind::Threads, By::Output),
    (Kind::Threads, By::Floor),
    (Kind::Threads, By::Polling),
    (Kind::Tasks, By::Output),
    (Kind::Tasks, By::Floor),
    (Kind::Tasks, By::Polling),
];

/// What was measured of one case, one entry for each turn.
#[derive(Debug, Default)]
struct Served {
    /// From a write until the last reader had the line, the median of the turn in microseconds.
    last: Vec<f64>,
    /// What the process has done in silence, apart from the thread that measures.
    silence: Vec<Activity>,
}

/// From the write until the last of many readers has the bytes; and what they cost in silence.
fn many_readers() -> Result<(), String> {
    let (turns, lines, polled_lines, silence) = if quick() {
        (1, 5, 1, Duration::from_millis(500))
    } else {
        (7, 20, 3, Duration::from_secs(3))
    };
    let mut results: Vec<Served> = CASES.iter().map(|_| Served::default()).collect();
    for turn in common::turns(turns) {
        for ((kind, by), served) in CASES.iter().zip(&mut results) {
            let lines = if *by == By::Polling { polled_lines } else { lines };
            // The silence is long enough to be measured once.
            let silence = if turn == 0 { silence } else { Duration::ZERO };
            serve(*kind, *by, lines, silence, served)?;
        }
    }

    let mut table = Table::new(&[
        "readers",
        "last served ms",
        "of floor",
        "of polling",
        "silence: CPU us/s",
        "context switches/s",
        "",
    ]);
    for (index, (kind, by)) in CASES.iter().enumerate() {
        let [last, floor, polling] =
            [index, index / 3 * 3 + 1, index / 3 * 3 + 2].map(|index| &results[index].last);
        let silent = results[index].silence[0].per_second(silence);
        table.row(vec![
            format!(
                "{} {}, {}",
                count(*kind),
                if *kind == Kind::Threads { "threads" } else { "tasks" },
                match by {
                    By::Output => "worker::Output",
                    By::Floor => "woken by a bare loop",
                    By::Polling => "reading every 500 ms",
                }
            ),
            format!("{:.2}", median(last) / 1e3),
            format!("{:.2}", median_ratio(last, floor)),
            format!("{:.4}", median_ratio(last, polling)),
            format!("{:.0}", silent.cpu.as_secs_f64() * 1e6),
            silent.switches.to_string(),
            if *by == By::Output { verdict(silent.switches as f64, 0.0) } else { String::new() },
        ]);
    }
    table.print(&format!(
        "From the write of a line of {LINE} bytes until the last reader has it, {lines} lines a \
         turn, medians of {} turns; then {silence:?} of silence",
        results[0].last.len()
    ));
    Ok(())
}

fn count(kind: Kind) -> usize {
    match kind {
        Kind::Threads => 2_000,
        Kind::Tasks => 5_000,
    }
}

fn tokio_runtime() -> Runtime {
    runtime::Builder::new_multi_thread().enable_time().build().unwrap()
}

/// One turn of one case.
fn serve(
    kind: Kind,
    by: By,
    lines: usize,
    silence: Duration,
    served: &mut Served,
) -> Result<(), String> {
    let count = count(kind);
    let worker = Worker::new().unwrap();
    let job = worker.spawn(in_role(["asked"]).stdin(Stdin::Piped)).unwrap();
    let mut ask = job.take_stdin().unwrap().unwrap();
    let path = job.status().unwrap().output.unwrap();
    let (round, done) = Round::new(count);
    let board = Arc::new(Board::new(count));
    let file = Arc::new(File::open(&path).unwrap());
    let floor = (by == By::Floor).then(|| board.follow(&path));
    let source = |index| match by {
        By::Output => Source::Output(Box::new(job.output(Position::Start).unwrap())),
        By::Floor => Source::Board(Arc::clone(&board), index, 0),
        By::Polling => Source::File(Arc::clone(&file), index as u32, 0),
    };
    let runtime = tokio_runtime();
    let (mut threads, mut tasks) = (Vec::new(), Vec::new());
    for index in 0..count {
        let (source, round) = (source(index), Arc::clone(&round));
        match kind {
            Kind::Threads => {
                let builder = thread::Builder::new().stack_size(STACK);
                threads.push(builder.spawn(move || source.read_as_thread(&round)).unwrap());
            }
            Kind::Tasks => tasks.push(runtime.spawn(source.read_as_task(round))),
        }
    }

    let mut latencies = Vec::new();
    for _ in 0..lines {
        // So that all of them wait again.
        pause(50_000..60_000);
        ask.write_all(b"\n").unwrap();
        latencies.push(done.recv().unwrap()? as f64 / 1e3);
    }
    served.last.push(median(&latencies));
    if !silence.is_zero() {
        thread::sleep(Duration::from_millis(300));
        let before = Activity::now();
        thread::sleep(silence);
        served.silence.push(Activity::now().since(before));
    }
    drop(ask);
    for thread in threads {
        thread.join().unwrap();
    }
    for task in tasks {
        runtime.block_on(task).unwrap();
    }
    if let Some(floor) = floor {
        floor.join().unwrap();
    }
    Ok(())
}

/// Notices when all readers have a line.
struct Round {
    readers: usize,
    served: AtomicUsize,
    /// From the write of a line until the last of them had it, or what one of them got instead.
    done: mpsc::Sender<Result<u64, String>>,
}

impl Round {
    fn new(readers: usize) -> (Arc<Self>, mpsc::Receiver<Result<u64, String>>) {
        let (done, latencies) = mpsc::channel();
        (Arc::new(Self { readers, served: AtomicUsize::new(0), done }), latencies)
    }

    /// A reader has some bytes; returns whether the last line was among them.
    fn take(&self, found: &mut Lines, bytes: &[u8]) -> bool {
        let taken = found.take(bytes, |stamp| {
            let served = self.served.fetch_add(1, Ordering::AcqRel) + 1;
            if served.is_multiple_of(self.readers) {
                self.done.send(Ok(monotonic() - stamp)).unwrap();
            }
        });
        taken.unwrap_or_else(|difference| {
            // This ends the program.
            self.done.send(Err(difference)).unwrap();
            true
        })
    }
}

/// Where a reader gets its lines.
enum Source {
    Output(Box<Output>),
    /// What a bare loop has, the number of the reader, and how many lines it has seen.
    Board(Arc<Board>, usize, u64),
    /// The log, the number of the reader, and how much of it was read.
    File(Arc<File>, u32, u64),
}

impl Source {
    /// The next bytes, into a buffer that has room for a line at least. Of a file, this may be
    /// none.
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<usize> {
        match self {
            Self::Output(output) => output.poll_read(cx, buffer).map(|read| match read.unwrap() {
                Read::Data(length) => length,
                other => panic!("unexpected {other:?}"),
            }),
            Self::Board(board, index, seen) => board.poll_line(*index, seen, cx, buffer),
            Self::File(file, _, offset) => {
                let length = file.read_at(buffer, *offset).unwrap();
                *offset += length as u64;
                Poll::Ready(length)
            }
        }
    }

    /// How long a reader of a file waits before it looks for the first time, so that not all of
    /// them look at once.
    fn phase(&self) -> Option<Duration> {
        match self {
            Self::File(_, index, _) => Some(POLL * (*index % 500) / 500),
            _ => None,
        }
    }

    fn read_as_thread(mut self, round: &Round) {
        let (mut found, mut buffer) = (Lines::default(), [0; 256]);
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let phase = self.phase();
        if let Some(phase) = phase {
            thread::sleep(phase);
        }
        loop {
            let length = match &mut self {
                // As most threads would.
                Self::Output(output) => output.read(&mut buffer).unwrap(),
                other => loop {
                    match other.poll_read(&mut Context::from_waker(&waker), &mut buffer) {
                        Poll::Ready(length) => break length,
                        Poll::Pending => thread::park(),
                    }
                },
            };
            if round.take(&mut found, &buffer[..length]) {
                return;
            }
            if length == 0 && phase.is_some() {
                thread::sleep(POLL);
            }
        }
    }

    async fn read_as_task(mut self, round: Arc<Round>) {
        let (mut found, mut buffer) = (Lines::default(), [0; 256]);
        let phase = self.phase();
        if let Some(phase) = phase {
            tokio::time::sleep(phase).await;
        }
        loop {
            let length = poll_fn(|cx| self.poll_read(cx, &mut buffer)).await;
            if round.take(&mut found, &buffer[..length]) {
                return;
            }
            if length == 0 && phase.is_some() {
                tokio::time::sleep(POLL).await;
            }
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The least that wakes many readers for a line: the line, its number, and a waker for each.
struct Board {
    number: AtomicU64,
    line: RwLock<[u8; LINE]>,
    wakers: Vec<Mutex<Option<Waker>>>,
}

impl Board {
    fn new(readers: usize) -> Self {
        let wakers = (0..readers).map(|_| Mutex::default()).collect();
        Self { number: AtomicU64::new(0), line: RwLock::new([0; LINE]), wakers }
    }

    /// Wakes the readers for each line of a file, on a thread of its own, up to the last line.
    fn follow(self: &Arc<Self>, path: &Path) -> JoinHandle<()> {
        let (board, mut follower) = (Arc::clone(self), BareLoop::new(path));
        thread::spawn(move || {
            loop {
                for line in follower.next().chunks_exact(LINE) {
                    board.line.write().unwrap().copy_from_slice(line);
                    board.number.fetch_add(1, Ordering::AcqRel);
                    for waker in &board.wakers {
                        let waker = waker.lock().unwrap().take();
                        waker.into_iter().for_each(Waker::wake);
                    }
                    if stamp(line) == LAST {
                        return;
                    }
                }
            }
        })
    }

    fn poll_line(
        &self,
        reader: usize,
        seen: &mut u64,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<usize> {
        *self.wakers[reader].lock().unwrap() = Some(cx.waker().clone());
        let number = self.number.load(Ordering::Acquire);
        if number == *seen {
            return Poll::Pending;
        }
        *seen = number;
        buffer[..LINE].copy_from_slice(&*self.line.read().unwrap());
        Poll::Ready(LINE)
    }
}

/// What this process has done, apart from the thread that asks.
#[derive(Clone, Copy, Debug)]
struct Activity {
    cpu: Duration,
    switches: u64,
}

impl Activity {
    fn now() -> Self {
        let own = fs::read_link("/proc/thread-self").unwrap();
        let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
        let others = tasks.filter(|task| Some(&*task.file_name()) != own.file_name());
        // A thread may end meanwhile.
        let of = |task: fs::DirEntry| fs::read_to_string(task.path().join("status"));
        let switches = others.filter_map(|task| Some(switches(&of(task).ok()?))).sum();
        Self { cpu: process_cpu().saturating_sub(thread_cpu()), switches }
    }

    fn since(self, before: Self) -> Self {
        let (cpu, switches) = (self.cpu.saturating_sub(before.cpu), self.switches);
        Self { cpu, switches: switches.saturating_sub(before.switches) }
    }

    fn per_second(self, time: Duration) -> Self {
        let switches = (self.switches as f64 / time.as_secs_f64()).ceil() as u64;
        Self { cpu: self.cpu.div_f64(time.as_secs_f64()), switches }
    }
}

/// The context switches of a thread, voluntary or not, by its status.
fn switches(status: &str) -> u64 {
    let lines = status.lines().filter_map(|line| line.split_once("ctxt_switches:"));
    lines.map(|(_, number)| number.trim().parse::<u64>().unwrap()).sum()
}

/// Who starts processes, and on how many threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spawner {
    Nobody,
    Worker(usize),
    Std(usize),
}

const SPAWNERS: [Spawner; 5] =
    [Spawner::Nobody, Spawner::Worker(1), Spawner::Std(1), Spawner::Worker(8), Spawner::Std(8)];

/// What was measured while somebody has started processes, one entry for each turn.
#[derive(Debug, Default)]
struct Spawned {
    per_second: Vec<f64>,
    /// How long the loop took to answer, in microseconds, of all turns.
    answers: Vec<f64>,
    /// From the write of a line until a reader had it, in microseconds, of all turns.
    lines: Vec<f64>,
    /// The longest of any reader.
    longest: f64,
}

/// How many jobs threads start in a second, beside readers that the loop serves.
fn spawns() -> Result<(), String> {
    let (turns, time) =
        if quick() { (1, Duration::from_millis(500)) } else { (7, Duration::from_secs(1)) };
    let worker = Worker::new().unwrap();
    let chatty = worker.spawn(&in_role(["chatty", "5000"])).unwrap();
    let runtime = tokio_runtime();
    let watch = Arc::new(Watch::default());
    let readers: Vec<_> = (0..SERVED)
        .map(|index| {
            let output = chatty.output(Position::End).unwrap();
            runtime.spawn(watch_lines(output, index == 0, Arc::clone(&watch)))
        })
        .collect();
    let mut results: Vec<Spawned> = SPAWNERS.iter().map(|_| Spawned::default()).collect();
    for _ in common::turns(turns) {
        for (spawner, spawned) in SPAWNERS.iter().zip(&mut results) {
            watch.begin();
            spawned.per_second.push(start_for(*spawner, &worker, time, &mut spawned.answers));
            let (lines, longest) = watch.end();
            spawned.lines.extend(lines);
            spawned.longest = spawned.longest.max(longest);
        }
    }
    chatty.kill().unwrap();
    for reader in readers {
        runtime.block_on(reader).unwrap()?;
    }

    let mut table = Table::new(&[
        "spawns by",
        "per s",
        "of 1 thread",
        "of std",
        "answer p50 us",
        "p99",
        "longest",
        "line p50 us",
        "p99",
        "longest of any reader",
    ]);
    let rate = |spawner: Spawner| {
        let place = SPAWNERS.iter().position(|other| *other == spawner).unwrap();
        &results[place].per_second
    };
    for (spawner, spawned) in SPAWNERS.iter().zip(&results) {
        let (name, of_one, of_std) = match spawner {
            Spawner::Nobody => ("nobody".to_owned(), None, None),
            Spawner::Worker(threads) => (
                format!("{threads} threads, Worker"),
                Some(rate(Spawner::Worker(1))),
                Some(rate(Spawner::Std(*threads))),
            ),
            Spawner::Std(threads) => {
                (format!("{threads} threads, std::process"), Some(rate(Spawner::Std(1))), None)
            }
        };
        let own = &spawned.per_second;
        let ratio = |of: Option<&Vec<f64>>| {
            of.map_or(String::new(), |of| format!("{:.2}", median_ratio(own, of)))
        };
        table.row(vec![
            name,
            format!("{:.0}", median(own)),
            ratio(of_one),
            ratio(of_std),
            format!("{:.0}", median(&spawned.answers)),
            format!("{:.0}", quantile(&spawned.answers, 0.99)),
            format!("{:.0}", quantile(&spawned.answers, 1.0)),
            format!("{:.0}", median(&spawned.lines)),
            format!("{:.0}", quantile(&spawned.lines, 0.99)),
            format!("{:.0}", spawned.longest),
        ]);
    }
    table.print(&format!(
        "/bin/true, started and awaited, beside {SERVED} tasks that read a line every 5 ms; \
         medians of {} turns",
        results[0].per_second.len()
    ));
    println!(
        "std makes no group and no log; answer: how long the loop takes to answer a census, asked \
         every 2 ms; longest: in all turns"
    );
    Ok(())
}

/// Starts processes for a while, and returns how many in a second. Asks the loop meanwhile.
fn start_for(spawner: Spawner, worker: &Worker, time: Duration, answers: &mut Vec<f64>) -> f64 {
    let (until, started) = (Instant::now() + time, AtomicUsize::new(0));
    let threads = match spawner {
        Spawner::Nobody => 0,
        Spawner::Worker(threads) | Spawner::Std(threads) => threads,
    };
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while Instant::now() < until {
                    match spawner {
                        Spawner::Worker(_) => {
                            let job = worker.spawn(&Command::new("/bin/true")).unwrap();
                            assert!(job.wait().unwrap().exit.success());
                        }
                        _ => {
                            let mut command = std::process::Command::new("/bin/true");
                            command.env_clear().stdin(Stdio::null()).stdout(Stdio::null());
                            command.stderr(Stdio::null());
                            assert!(command.spawn().unwrap().wait().unwrap().success());
                        }
                    }
                    started.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        while Instant::now() < until {
            let asked = monotonic();
            worker.census().unwrap();
            answers.push((monotonic() - asked) as f64 / 1e3);
            thread::sleep(Duration::from_millis(2));
        }
    });
    started.into_inner() as f64 / time.as_secs_f64()
}

/// The latencies that readers have seen since [`Watch::begin`].
#[derive(Default)]
struct Watch {
    one: Mutex<Vec<f64>>,
    longest: AtomicU64,
}

impl Watch {
    fn begin(&self) {
        self.end();
    }

    /// Those of one reader, and the longest of any, in microseconds.
    fn end(&self) -> (Vec<f64>, f64) {
        let longest = self.longest.swap(0, Ordering::Relaxed) as f64 / 1e3;
        (std::mem::take(&mut self.one.lock().unwrap()), longest)
    }
}

async fn watch_lines(mut output: Output, one: bool, watch: Arc<Watch>) -> Result<(), String> {
    let (mut found, mut buffer) = (Lines::default(), [0; 1024]);
    loop {
        let length = match poll_fn(|cx| output.poll_read(cx, &mut buffer)).await.unwrap() {
            Read::Data(length) => length,
            Read::Ended => return Ok(()),
            other => return Err(format!("unexpected {other:?}")),
        };
        let now = monotonic();
        found.take(&buffer[..length], |stamp| {
            watch.longest.fetch_max(now - stamp, Ordering::Relaxed);
            if one {
                watch.one.lock().unwrap().push((now - stamp) as f64 / 1e3);
            }
        })?;
    }
}

/// What a reader costs that waits.
fn memory() {
    let mut table = Table::new(&["waiting readers", "resident bytes each"]);
    for (name, kind, count) in [
        ("worker::Output, alone", "outputs", 5_000),
        ("task with a buffer of 256 bytes", "tasks", 5_000),
        ("thread with its stack", "threads", 2_000),
    ] {
        // In a process of its own, that has freed nothing that could be used again.
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--role", "memory", kind, &count.to_string()]);
        let output = command.stderr(Stdio::inherit()).output().unwrap();
        assert!(output.status.success(), "the process that measures memory has failed");
        let bytes = String::from_utf8(output.stdout).unwrap();
        table.row(vec![format!("{count} x {name}"), bytes.trim().to_owned()]);
    }
    table.print("Memory of readers that wait at the end of a log");
}

/// By how much the resident memory grows with each reader.
fn memory_of(kind: &str, count: usize) -> usize {
    let worker = Worker::new().unwrap();
    let job = worker.spawn(in_role(["asked"]).stdin(Stdin::Piped)).unwrap();
    let ask = job.take_stdin().unwrap().unwrap();
    let runtime = tokio_runtime();
    let (round, _done) = Round::new(count);
    let open = |job: &Job| Source::Output(Box::new(job.output(Position::Start).unwrap()));
    let (mut outputs, mut threads, mut tasks) = (Vec::new(), Vec::new(), Vec::new());
    // All that is needed once is there by then.
    outputs.push(open(&job));
    runtime.block_on(runtime.spawn(async {})).unwrap();
    let before = resident();
    for _ in 0..count {
        let (source, round) = (open(&job), Arc::clone(&round));
        match kind {
            "outputs" => outputs.push(source),
            "tasks" => tasks.push(runtime.spawn(source.read_as_task(round))),
            _ => {
                let builder = thread::Builder::new().stack_size(STACK);
                threads.push(builder.spawn(move || source.read_as_thread(&round)).unwrap());
            }
        }
    }
    // All of them follow at the end once there is but one tail.
    loop {
        for output in &mut outputs {
            let mut cx = Context::from_waker(Waker::noop());
            assert!(output.poll_read(&mut cx, &mut [0; 256]).is_pending());
        }
        if worker.census().unwrap().tails == 1 {
            break;
        }
    }
    let each = resident().saturating_sub(before) / count;
    drop(ask);
    for thread in threads {
        thread.join().unwrap();
    }
    for task in tasks {
        runtime.block_on(task).unwrap();
    }
    each
}

/// The resident memory of this process in bytes.
fn resident() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * rustix::param::page_size()
}
