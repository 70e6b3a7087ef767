//! Layer 1: handles on other threads wait, read and end as they are told, and leave nothing behind.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use jobworker::worker::{Closer, Job, Output, Shutdown};
use jobworker::{
    Command, Config, Error, ErrorKind, Exit, Phase, Position, Read, Signal, StopCause, Stream,
    TailError, TailOptions, Worker, WorkerError,
};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::support::{PATIENCE, Place, alone, children, directories, markers, rounds, sh};

/// A worker with a place of its own, which is dropped after it.
pub(crate) struct Threads {
    pub(crate) worker: Worker,
    pub(crate) place: Place,
}

impl Threads {
    /// `None` where there is no cgroup.
    pub(crate) fn new() -> Option<Self> {
        let place = Place::new();
        place.cgroup_or_skip()?;
        let worker = Worker::with_config(&place.config()).unwrap();
        Some(Self { worker, place })
    }

    #[track_caller]
    pub(crate) fn spawn(&self, command: &Command) -> Job {
        self.worker.spawn(command).unwrap_or_else(|error| panic!("{error}"))
    }

    /// A job that runs a script, in which `go` waits for the gate.
    pub(crate) fn gated(&self, script: &str) -> (Job, Gate) {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let name = format!("gate-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = self.place.dir.path().join(name);
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        // Opened for both, so that it neither blocks nor ends.
        let gate = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let script = format!("exec 3<>\"$gate\"; go() {{ read _ <&3; }}; {script}");
        (self.spawn(sh(&script).env("gate", &path)), Gate(gate))
    }
}

/// Lets a job go on.
pub(crate) struct Gate(File);

impl Gate {
    pub(crate) fn open(&mut self) {
        self.0.write_all(b"\n").unwrap();
    }
}

/// Waits for what no handle reports.
#[track_caller]
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "timed out waiting until {what}");
        thread::yield_now();
    }
}

pub(crate) fn log_of(job: &Job) -> PathBuf {
    job.status().unwrap().output.unwrap()
}

/// The numbers from 1 on, as `seq` writes them.
pub(crate) fn numbers(last: usize) -> Vec<u8> {
    (1..=last).flat_map(|number| format!("{number}\n").into_bytes()).collect()
}

/// The numbers down to 1, as `seq` writes them.
#[cfg(any(feature = "futures-io", feature = "tokio"))]
pub(crate) fn countdown(first: usize) -> Vec<u8> {
    (1..=first).rev().flat_map(|number| format!("{number}\n").into_bytes()).collect()
}

/// Wakes the thread that waits for a future.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The smallest runtime.
pub(crate) fn block_on<T>(mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        if let Poll::Ready(result) = poll(&mut Context::from_waker(&waker)) {
            return result;
        }
        thread::park();
    }
}

/// Counts how often it is used.
#[derive(Default)]
pub(crate) struct Counts(pub(crate) AtomicUsize);

impl Wake for Counts {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Panics on the thread that uses it.
pub(crate) struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("the waker of a test panics");
    }
}

/// What a reader has read: the bytes of each content, by their checksum and length.
type Contents = Vec<(u32, usize)>;

#[derive(Default)]
struct Transcript {
    done: Contents,
    hash: crc32fast::Hasher,
    length: usize,
}

impl Transcript {
    fn add(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.length += bytes.len();
    }

    fn next(&mut self) {
        let hash = std::mem::take(&mut self.hash).finalize();
        self.done.push((hash, std::mem::take(&mut self.length)));
    }
}

/// The ways to read on to the end.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// `BufRead`, without a copy.
    Buffered,
    /// `io::Read`, with a buffer of this size.
    Plain(usize),
    /// As a task.
    Polled,
    /// With timeouts that are often up.
    Hasty,
}

/// Reads to the end, and calls `read` with the total length after each read.
fn read_all(mut output: Output, way: Way, mut read: impl FnMut(usize)) -> Contents {
    let (mut transcript, mut total) = (Transcript::default(), 0);
    let mut buffer = vec![0; if let Way::Plain(size) = way { size } else { 16 * 1024 }];
    loop {
        let next = match way {
            Way::Buffered => match output.fill_buf() {
                Ok([]) => Read::Ended,
                Ok(bytes) => {
                    transcript.add(bytes);
                    let length = bytes.len();
                    total += length;
                    output.consume(length);
                    read(total);
                    continue;
                }
                Err(error) if Output::is_truncation(&error) => Read::Truncated,
                Err(error) => panic!("{error}"),
            },
            Way::Plain(_) => match io::Read::read(&mut output, &mut buffer) {
                Ok(0) => Read::Ended,
                Ok(length) => Read::Data(length),
                Err(error) if Output::is_truncation(&error) => Read::Truncated,
                Err(error) => panic!("{error}"),
            },
            Way::Polled => block_on(|cx| output.poll_read(cx, &mut buffer)).unwrap(),
            Way::Hasty => output.read_timeout(&mut buffer, Duration::from_micros(50)).unwrap(),
        };
        match next {
            Read::Data(length) => {
                transcript.add(&buffer[..length]);
                total += length;
                read(total);
            }
            Read::Truncated => transcript.next(),
            Read::Skipped { .. } => panic!("all of it is kept"),
            Read::Replaced { .. } => panic!("it is not followed by name"),
            Read::UpToDate => {}
            Read::Ended => {
                transcript.next();
                return transcript.done;
            }
        }
    }
}

fn contents(all: &[&[u8]]) -> Contents {
    all.iter().map(|bytes| (crc32fast::hash(bytes), bytes.len())).collect()
}

#[test]
fn two_hundred_threads_have_every_byte_once_across_truncations() {
    let Some(threads) = Threads::new() else { return };
    let (first, second, third) = (numbers(50_000), numbers(30_000), numbers(10));
    let script = "seq 50000; go; truncate -s 0 \"$log\"; seq 30000; go; truncate -s 0 \"$log\"; \
                  seq 10";
    // The job finds its log by its own descriptor.
    let script = format!("log=$(readlink /proc/self/fd/1); go; {script}")
        .replace("$(readlink /proc/self/fd/1)", "$(readlink /proc/$$/fd/1)");
    let (job, mut gate) = threads.gated(&script);
    let readers = rounds(200);
    let at_end = [AtomicUsize::new(0), AtomicUsize::new(0)];
    let ends = [first.len(), first.len() + second.len()];
    let ways = [Way::Buffered, Way::Plain(1000), Way::Polled, Way::Hasty, Way::Plain(65536)];
    thread::scope(|scope| {
        let found: Vec<_> = (0..readers)
            .map(|number| {
                let output = job.output(Position::Start).unwrap();
                let (way, at_end) = (ways[number % ways.len()], &at_end);
                let read = move |total| {
                    if let Some(end) = ends.iter().position(|end| *end == total) {
                        at_end[end].fetch_add(1, Ordering::Relaxed);
                    }
                };
                scope.spawn(move || (way, read_all(output, way, read)))
            })
            .collect();
        gate.open();
        for count in &at_end {
            until("all have read it", || count.load(Ordering::Relaxed) == readers);
            gate.open();
        }
        for reader in found {
            let (way, found) = reader.join().unwrap();
            assert_eq!(found, contents(&[&first, &second, &third]), "{way:?}");
        }
    });
    assert_eq!(job.wait().unwrap().output_bytes, third.len() as u64);
    // They all had one tail, and none is left.
    until("all are closed", || threads.worker.census().unwrap().tails == 0);
}

/// While one reader keeps up, the pieces that others have not read are dropped.
#[test]
fn a_reader_that_was_left_behind_misses_nothing() {
    let Some(threads) = Threads::new() else { return };
    let (job, mut gate) = threads.gated("echo first; go; seq 300000");
    let mut slow: Vec<Output> = (0..5).map(|_| job.output(Position::Start).unwrap()).collect();
    let mut buffer = [0; 64];
    for output in &mut slow {
        assert_eq!(output.read_timeout(&mut buffer, PATIENCE).unwrap(), Read::Data(6));
        // From here on it follows at the end.
        assert_eq!(output.try_read(&mut buffer).unwrap(), Read::UpToDate);
    }
    let fast = job.output(Position::Offset(6)).unwrap();
    gate.open();
    let expected = numbers(300_000);
    assert_eq!(read_all(fast, Way::Plain(4096), |_| {}), contents(&[&expected]));
    job.wait().unwrap();
    for (output, way) in
        slow.into_iter().zip([Way::Buffered, Way::Plain(7777), Way::Polled, Way::Hasty])
    {
        assert_eq!(output.position(), 6);
        assert_eq!(read_all(output, way, |_| {}), contents(&[&expected]), "{way:?}");
    }
}

/// The bytes between are gone with the content that they belonged to.
#[test]
fn a_reader_that_was_left_behind_by_a_truncation_is_told() {
    let Some(threads) = Threads::new() else { return };
    let script = "echo first; go; seq 100000; go; truncate -s 0 /proc/$$/fd/1; seq 70000";
    let (job, mut gate) = threads.gated(script);
    let mut slow = job.output(Position::Start).unwrap();
    let mut buffer = vec![0; 1 << 20];
    assert_eq!(slow.read_timeout(&mut buffer, PATIENCE).unwrap(), Read::Data(6));
    assert_eq!(slow.try_read(&mut buffer).unwrap(), Read::UpToDate);
    let (fast, first) = (job.output(Position::Offset(6)).unwrap(), numbers(100_000).len());
    gate.open();
    let second = numbers(70_000);
    let found = read_all(fast, Way::Buffered, |total| {
        if total == first {
            gate.open();
        }
    });
    assert_eq!(found, contents(&[&numbers(100_000), &second]));
    assert_eq!(slow.try_read(&mut buffer).unwrap(), Read::Truncated);
    assert_eq!(slow.position(), 0);
    assert_eq!(read_all(slow, Way::Plain(5000), |_| {}), contents(&[&second]));
}

#[test]
fn a_log_is_read_from_any_position_and_as_a_snapshot() {
    let Some(threads) = Threads::new() else { return };
    let (job, mut gate) = threads.gated("seq 100000; echo ready >&2; go; echo more; exit 3");
    let all = numbers(100_000);
    let whole = all.len() + 6;
    until("all is written", || fs::metadata(log_of(&job)).unwrap().len() == whole as u64);
    let mut options = TailOptions::new(Position::Start);
    let snapshot = job.output(options.snapshot()).unwrap();
    let found = read_all(snapshot, Way::Plain(9999), |_| {});
    assert_eq!(found, contents(&[&[&all[..], b"ready\n"].concat()]));
    let mut last = job.output(Position::LastLines(2)).unwrap();
    let mut beyond = job.output(Position::Offset(whole as u64 + 2)).unwrap();
    let mut end = job.output(Position::End).unwrap();
    let mut buffer = [0; 64];
    assert_eq!(last.read_timeout(&mut buffer, PATIENCE).unwrap(), Read::Data(13));
    assert_eq!(&buffer[..13], b"100000\nready\n");
    assert_eq!(last.position(), whole as u64);
    for output in [&mut beyond, &mut end, &mut last] {
        assert_eq!(output.try_read(&mut buffer).unwrap(), Read::UpToDate);
    }
    gate.open();
    assert_eq!(job.wait().unwrap().exit, Exit::Code(3));
    for (mut output, text) in [(beyond, "re\n"), (end, "more\n"), (last, "more\n")] {
        assert_eq!(output.read_timeout(&mut buffer, PATIENCE).unwrap(), Read::Data(text.len()));
        assert_eq!(&buffer[..text.len()], text.as_bytes());
        for _ in 0..2 {
            assert_eq!(output.read_timeout(&mut buffer, PATIENCE).unwrap(), Read::Ended);
        }
    }
    let missing = job.output(TailOptions::new(Position::Start).stream(Stream::Error)).unwrap_err();
    assert!(matches!(missing, Error::Tail(TailError::NoLog { .. })), "{missing}");
}

#[test]
fn a_wait_before_during_and_after_the_end_returns_the_report() {
    let Some(threads) = Threads::new() else { return };
    let (job, mut gate) = threads.gated("go; exit 5");
    assert!(job.wait_timeout(Duration::ZERO).unwrap().is_none());
    assert!(job.report().is_none());
    let is_five = |report: &jobworker::Report| assert_eq!(report.exit, Exit::Code(5));
    thread::scope(|scope| {
        for number in 0..40 {
            let job = job.clone();
            scope.spawn(move || match number % 4 {
                0 => is_five(&job.wait().unwrap()),
                1 => is_five(&job.wait_timeout(Duration::MAX).unwrap().unwrap()),
                2 => {
                    let mut finished = pin!(job.finished());
                    is_five(&block_on(|cx| finished.as_mut().poll(cx)).unwrap());
                }
                _ => {
                    // Given up and begun anew, again and again.
                    let waker = Waker::noop();
                    let mut cx = Context::from_waker(waker);
                    until("it is finished", || pin!(job.finished()).poll(&mut cx).is_ready());
                }
            });
        }
        gate.open();
    });
    is_five(&job.wait().unwrap());
    is_five(&job.wait_timeout(Duration::ZERO).unwrap().unwrap());
    is_five(&job.report().unwrap());
    assert!(pin!(job.finished()).poll(&mut Context::from_waker(Waker::noop())).is_ready());
    assert_eq!(job.status().unwrap().phase, Phase::Finished);
}

#[test]
fn a_handle_does_to_its_job_what_the_reactor_would() {
    let Some(threads) = Threads::new() else { return };
    let (job, _gate) = threads.gated(r"printf 'ready\nmore\n'; go");
    let mut output = job.output(Position::Start).unwrap();
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let status = job.status().unwrap();
    assert_eq!((status.id, status.pid, status.phase), (job.id(), job.pid(), Phase::Running));
    assert!(job.stats().unwrap().cpu.is_some());
    job.set_limits(jobworker::Limits::new().cgroup_max_depth(3)).unwrap();
    assert!(job.limits().unwrap().get("cgroup.max.depth").is_some());
    job.freeze().unwrap();
    assert!(job.status().unwrap().frozen);
    job.thaw().unwrap();
    job.signal_main(Signal::USR1).unwrap();
    assert_eq!(job.wait().unwrap().exit.signal(), Some(Signal::USR1));
    line.clear();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "more\n");
    let exited = job.signal_main(Signal::USR1).unwrap_err();
    assert_eq!(exited.kind(), ErrorKind::State);
    let error = threads.worker.spawn(&Command::new("/no/such/program")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(threads.worker.census().unwrap().jobs, 1);
}

#[test]
fn a_read_into_a_buffer_without_room_does_not_wait() {
    let Some(threads) = Threads::new() else { return };
    let (job, _gate) = threads.gated("go");
    let mut output = job.output(Position::Start).unwrap();
    let (closer, (sender, receiver)) = (output.closer(), mpsc::channel());
    let reader = thread::spawn(move || sender.send(io::Read::read(&mut output, &mut []).ok()));
    let read = receiver.recv_timeout(PATIENCE);
    closer.close();
    assert_eq!(read, Ok(Some(0)));
    reader.join().unwrap().unwrap();
}

#[test]
fn a_closed_output_ends_the_read_that_blocks() {
    let Some(threads) = Threads::new() else { return };
    let (job, _gate) = threads.gated("echo one; go");
    let is_closed = |error: &io::Error| {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        matches!(inner, Some(Error::Tail(TailError::Closed)))
    };
    let mut closers = Vec::new();
    let readers: Vec<_> = (0..20)
        .map(|number| {
            // Some follow at the end, some wait for the log to come so far.
            let position = if number % 2 == 0 { Position::Start } else { Position::Offset(1000) };
            let mut output = job.output(position).unwrap();
            closers.push(output.closer());
            thread::spawn(move || {
                let mut bytes = Vec::new();
                let error = io::Read::read_to_end(&mut output, &mut bytes).unwrap_err();
                (error, output)
            })
        })
        .collect();
    for closer in closers.iter().chain(&closers) {
        closer.close();
    }
    for reader in readers {
        let (error, mut output) = reader.join().unwrap();
        assert!(is_closed(&error), "{error}");
        let error = output.try_read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::State);
    }
}

#[test]
fn a_shutdown_ends_everybody_who_blocks_and_says_what_it_has_stopped() {
    let Some(threads) = Threads::new() else { return };
    let worker = threads.worker.clone();
    let (polite, _gate) = threads.gated("go");
    let stubborn = threads.spawn(&sh("trap '' TERM; echo ready; while :; do sleep 1000; done"));
    let mut line = String::new();
    stubborn.output(Position::Start).unwrap().read_line(&mut line).unwrap();
    let finished = threads.spawn(&sh("exit 0"));
    finished.wait().unwrap();
    let blocked: Vec<_> = (0..10)
        .map(|number| {
            let job = if number % 2 == 0 { polite.clone() } else { stubborn.clone() };
            let mut output = job.output(Position::End).unwrap();
            thread::spawn(move || {
                let read = output.read_timeout(&mut [0; 8], Duration::MAX);
                (read, job.wait())
            })
        })
        .collect();
    let stopped = thread::scope(|scope| {
        let both: Vec<_> = [Shutdown::StopWithin(Duration::from_millis(50)), Shutdown::Stop]
            .into_iter()
            .map(|how| (how, worker.clone()))
            .map(|(how, worker)| scope.spawn(move || worker.shutdown(how, PATIENCE).unwrap()))
            .collect();
        both.into_iter().map(|one| one.join().unwrap()).collect::<Vec<_>>()
    });
    let ids = |stopped: &[jobworker::Status]| -> HashSet<_> {
        stopped.iter().map(|status| status.id).collect()
    };
    let expected = HashSet::from([polite.id(), stubborn.id()]);
    // The second may come when the first is done.
    assert!(stopped.iter().any(|stopped| ids(stopped) == expected));
    for status in stopped.iter().flatten() {
        let report = status.report.as_ref().unwrap();
        assert_eq!(report.stopped_by, Some(StopCause::Stop));
        assert_eq!(report.killed, status.id == stubborn.id());
    }
    for thread in blocked {
        let (read, waited) = thread.join().unwrap();
        assert_eq!(read.unwrap(), Read::Ended);
        assert!(waited.is_ok(), "{waited:?}");
    }
    assert_eq!(directories(threads.place.cgroup.as_deref().unwrap()).len(), 0);
    assert!(worker.shutdown(Shutdown::Kill, Duration::MAX).unwrap().is_empty());
}

#[test]
fn a_shutdown_whose_time_is_up_kills_what_is_left() {
    let Some(threads) = Threads::new() else { return };
    let (job, _gate) = threads.gated("trap '' TERM; echo ready; while :; do go; done");
    let mut output = job.output(Position::Start).unwrap();
    output.read_line(&mut String::new()).unwrap();
    let stopped = threads.worker.shutdown(Shutdown::Stop, Duration::ZERO).unwrap();
    assert_eq!(stopped.len(), 1);
    let report = stopped[0].report.as_ref().unwrap();
    assert_eq!((report.killed, report.stopped_by), (true, Some(StopCause::Stop)));
    assert_eq!(job.wait().unwrap().exit.signal(), Some(Signal::KILL));
    assert_eq!(output.read_timeout(&mut [0], Duration::MAX).unwrap(), Read::Ended);
    assert_eq!(directories(threads.place.cgroup.as_deref().unwrap()).len(), 0);
}

#[test]
fn whatever_is_used_after_a_shutdown_says_so() {
    let Some(threads) = Threads::new() else { return };
    let worker = &threads.worker;
    let job = threads.spawn(&sh("echo one; echo two"));
    let mut output = job.output(Position::Start).unwrap();
    assert_eq!(output.read_timeout(&mut [0; 4], PATIENCE).unwrap(), Read::Data(4));
    job.wait().unwrap();
    let running = threads.spawn(&sh("sleep 1000"));
    worker.shutdown(Shutdown::Kill, PATIENCE).unwrap();
    let errors = [
        worker.spawn(&sh("exit 0")).err(),
        worker.spawn(sh("exit 0").parent_death_signal(Signal::KILL)).err(),
        worker.census().err(),
        job.status().err(),
        job.stop().err(),
        job.stats().err(),
        job.output(Position::Start).err(),
    ];
    for error in errors {
        let error = error.unwrap();
        assert_eq!(error.kind(), ErrorKind::State, "{error}");
        assert_eq!(error.to_string(), "the worker was shut down");
    }
    // What was known before stays.
    assert_eq!(job.wait().unwrap().exit, Exit::Code(0));
    assert_eq!(running.wait().unwrap().stopped_by, Some(StopCause::Kill));
    let mut finished = pin!(running.finished());
    assert!(block_on(|cx| finished.as_mut().poll(cx)).is_ok());
}

/// The launcher was held by the handles, and with it the marker in the cgroup and the directory of
/// the logs: a host that returned from `main` beside a thread with a handle left both behind.
#[test]
fn a_shutdown_leaves_nothing_to_be_removed_by_handles() {
    let place = Place::new();
    let Some(cgroup) = &place.cgroup_or_skip() else { return };
    let worker = Worker::with_config(Config::new().cgroup_parent(cgroup)).unwrap();
    let job = worker.spawn(&sh("echo one")).unwrap();
    let directory = log_of(&job).parent().unwrap().to_owned();
    assert!(directory.exists() && markers(cgroup).len() == 1);
    job.wait().unwrap();
    worker.shutdown(Shutdown::Stop, PATIENCE).unwrap();
    assert!(!directory.exists(), "{} was left", directory.display());
    assert_eq!(markers(cgroup), Vec::<PathBuf>::new());
    assert_eq!(job.wait().unwrap().exit, Exit::Code(0));
}

/// The wakers of the host's tasks are the only code on the thread that is not the library's.
#[test]
fn a_panic_on_the_thread_reaches_everybody_who_waits() {
    let Some(threads) = Threads::new() else { return };
    let (job, mut gate) = threads.gated("go");
    let (other, _other_gate) = threads.gated("go");
    let waker = Waker::from(Arc::new(Panics));
    let mut finished = job.finished();
    assert!(pin!(&mut finished).poll(&mut Context::from_waker(&waker)).is_pending());
    let began = Barrier::new(11);
    thread::scope(|scope| {
        let blocked: Vec<_> = (0..10)
            .map(|number| {
                let (other, began) = (&other, &began);
                let mut output = other.output(Position::Start).unwrap();
                scope.spawn(move || {
                    began.wait();
                    match number % 2 {
                        0 => other.wait().unwrap_err(),
                        _ => output.read_timeout(&mut [0; 8], Duration::MAX).unwrap_err(),
                    }
                })
            })
            .collect();
        began.wait();
        gate.open();
        for thread in blocked {
            let error = thread.join().unwrap();
            let told = error.to_string().contains("the waker of a test panics");
            assert!(
                told && matches!(error, Error::Worker(WorkerError::Panicked { .. })),
                "{error}"
            );
        }
    });
    // That one was finished before.
    assert!(job.wait().is_ok());
    let error = threads.worker.shutdown(Shutdown::Stop, PATIENCE).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Other);
    let (error, pid) = (other.status().unwrap_err(), other.pid());
    assert!(matches!(error, Error::Worker(WorkerError::Panicked { .. })), "{error}");
    drop((finished, job, other));
    until("its jobs are killed", || !Path::new(&format!("/proc/{pid}")).exists());
    let Threads { worker, place } = threads;
    drop(worker);
    assert_eq!(directories(place.cgroup.as_deref().unwrap()).len(), 0);
}

/// Panics on the thread that uses it, and again when what the panic leaves is dropped.
struct PanicsTwice;

impl Wake for PanicsTwice {
    fn wake(self: Arc<Self>) {
        std::mem::forget(self);
        std::panic::panic_any(Self);
    }
}

impl Drop for PanicsTwice {
    fn drop(&mut self) {
        panic!("what the panic of a test has left panics");
    }
}

#[test]
fn a_panic_that_leaves_another_one_ends_the_worker_and_nobody_hangs() {
    let Some(threads) = Threads::new() else { return };
    let (job, mut gate) = threads.gated("go");
    let (other, _other_gate) = threads.gated("go");
    let waker = Waker::from(Arc::new(PanicsTwice));
    let mut finished = job.finished();
    assert!(pin!(&mut finished).poll(&mut Context::from_waker(&waker)).is_pending());
    std::mem::forget(waker);
    gate.open();
    for error in [other.wait().unwrap_err(), other.kill().unwrap_err()] {
        assert!(matches!(error, Error::Worker(WorkerError::Panicked { .. })), "{error}");
    }
}

/// A task may own what it waits for, as one that is boxed does.
#[test]
fn what_a_waker_owns_is_released_once_it_was_told_the_end() {
    #[derive(Default)]
    struct Owns(Mutex<Vec<Box<dyn Send>>>, Counts);

    impl Wake for Owns {
        fn wake(self: Arc<Self>) {
            self.1.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    let Some(threads) = Threads::new() else { return };
    let (job, mut gate) = threads.gated("go");
    let owner = Arc::new(Owns::default());
    let waker = Waker::from(Arc::clone(&owner));
    let mut cx = Context::from_waker(&waker);
    let (mut finished, mut events) = (Box::pin(job.finished()), Box::new(job.events()));
    let mut output = Box::new(job.output(Position::Start).unwrap());
    gate.open();
    until("the job is finished", || finished.as_mut().poll(&mut cx).is_ready());
    until("there are no more events", || matches!(events.poll_next(&mut cx), Poll::Ready(None)));
    until("the output has ended", || {
        matches!(output.poll_read(&mut cx, &mut [0; 64]), Poll::Ready(Ok(Read::Ended)))
    });
    owner.0.lock().unwrap().extend([Box::new(finished) as Box<dyn Send>, events, output]);
    let left = Arc::downgrade(&owner);
    drop((waker, owner));
    assert!(left.upgrade().is_none());
}

/// A waker may use what it waits by when it is dropped, which is when another takes its place.
#[test]
fn a_waker_that_closes_its_reader_when_it_is_dropped_does_not_wait_for_itself() {
    struct Closes(Closer);

    impl Wake for Closes {
        fn wake(self: Arc<Self>) {}
    }

    impl Drop for Closes {
        fn drop(&mut self) {
            self.0.close();
        }
    }

    let Some(threads) = Threads::new() else { return };
    let (job, _gate) = threads.gated("go");
    let mut output = job.output(Position::Start).unwrap();
    let waker = Waker::from(Arc::new(Closes(output.closer())));
    until("it waits", || {
        output.poll_read(&mut Context::from_waker(&waker), &mut [0; 64]).is_pending()
    });
    drop(waker);
    let mut poll = || output.poll_read(&mut Context::from_waker(Waker::noop()), &mut [0; 64]);
    until("it is closed", || matches!(poll(), Poll::Ready(Err(Error::Tail(TailError::Closed)))));
}

/// A waker that blocks would wait for itself.
#[test]
fn a_call_on_the_thread_of_the_worker_fails_instead_of_blocking() {
    struct Blocks(Job, mpsc::Sender<[bool; 3]>);
    impl Wake for Blocks {
        fn wake(self: Arc<Self>) {
            let own = |error| matches!(error, Some(Error::Worker(WorkerError::OwnThread)));
            let status = own(self.0.status().err());
            let wait = own(self.0.wait().err());
            self.1.send([status, wait, own(self.0.output(Position::Start).err())]).unwrap();
        }
    }
    let Some(threads) = Threads::new() else { return };
    let (job, mut gate) = threads.gated("go");
    let (sender, results) = mpsc::channel();
    let waker = Waker::from(Arc::new(Blocks(job.clone(), sender)));
    let mut finished = job.finished();
    assert!(pin!(&mut finished).poll(&mut Context::from_waker(&waker)).is_pending());
    gate.open();
    assert_eq!(results.recv_timeout(PATIENCE).unwrap(), [true; 3]);
    assert!(job.wait().is_ok());
}

#[test]
fn eight_threads_start_jobs_at_once() {
    let Some(threads) = Threads::new() else { return };
    let worker = &threads.worker;
    thread::scope(|scope| {
        for number in 0..8 {
            scope.spawn(move || {
                for round in 0..rounds(20) {
                    let text = format!("{number} {round}");
                    let job = worker.spawn(&sh(&format!("echo {text}; exit {number}"))).unwrap();
                    let mut output = String::new();
                    let mut reader = job.output(Position::Start).unwrap();
                    io::Read::read_to_string(&mut reader, &mut output).unwrap();
                    assert_eq!(output, format!("{text}\n"));
                    assert_eq!(job.wait().unwrap().exit, Exit::Code(number));
                }
            });
        }
    });
    until("all are removed", || threads.worker.census().unwrap().jobs == 0);
}

/// The kernel sends the signal when the thread that has forked the process exits.
#[test]
fn a_parent_death_signal_is_tied_to_the_worker_and_not_to_the_caller() {
    let Some(threads) = Threads::new() else { return };
    let worker = threads.worker.clone();
    let path = threads.place.dir.path().join("fifo");
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    // For both, so that the test does not block if the job is dead.
    let gate = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let mut command = sh("read _ <\"$gate\"; exit 3");
    command.env("gate", &path).parent_death_signal(Signal::KILL);
    let job = thread::spawn(move || worker.spawn(&command).unwrap()).join().unwrap();
    // Kept until the job has opened it, or what is written would be lost.
    let mut gate = Gate(gate);
    gate.open();
    assert_eq!(job.wait().unwrap().exit, Exit::Code(3));
    drop(gate);
}

#[test]
fn a_job_without_handles_runs_on_and_is_removed_when_it_is_finished() {
    let Some(threads) = Threads::new() else { return };
    let (job, mut gate) = threads.gated("go; touch \"$gate.done\"");
    let (log, output) = (log_of(&job), job.output(Position::Start).unwrap());
    drop(job);
    // A reader keeps it as a handle does.
    assert_eq!(output.job().status().unwrap().phase, Phase::Running);
    drop(output);
    assert_eq!(threads.worker.census().unwrap().jobs, 1);
    gate.open();
    until("it is removed", || threads.worker.census().unwrap().jobs == 0);
    assert!(!log.exists());
    let done = fs::read_dir(threads.place.dir.path()).unwrap();
    assert!(done.flatten().any(|entry| entry.file_name().to_str().unwrap().ends_with(".done")));
}

/// Says how often the thread of the worker has gone to sleep.
pub(crate) fn sleeps_of_the_thread() -> u64 {
    fn field<'a>(status: &'a str, name: &str) -> &'a str {
        let value = status.lines().find_map(|line| line.strip_prefix(name));
        value.expect("a field of every task").trim()
    }
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    tasks
        .map(|task| fs::read_to_string(task.path().join("status")).unwrap())
        .filter(|status| field(status, "Name:") == "jobworker")
        .map(|status| field(&status, "voluntary_ctxt_switches:").parse::<u64>().unwrap())
        .sum()
}

#[test]
fn a_silent_log_and_readers_that_do_not_wait_cause_no_wakeups() {
    if !alone!() {
        return;
    }
    let Some(threads) = Threads::new() else { return };
    let (job, mut gate) = threads.gated("echo first; while go; do echo more; done");
    let mut outputs: Vec<Output> = (0..100).map(|_| job.output(Position::Start).unwrap()).collect();
    let counts = Arc::new(Counts::default());
    let waker = Waker::from(Arc::clone(&counts));
    let mut buffer = [0; 64];
    for output in &mut outputs {
        assert_eq!(block_on(|cx| output.poll_read(cx, &mut buffer)).unwrap(), Read::Data(6));
        assert_eq!(output.try_read(&mut buffer).unwrap(), Read::UpToDate);
        assert!(output.poll_read(&mut Context::from_waker(&waker), &mut buffer).is_pending());
    }
    threads.worker.census().unwrap();
    let before = sleeps_of_the_thread();
    // Silence, in which nobody asks for anything.
    assert!(job.wait_timeout(Duration::from_millis(300)).unwrap().is_none());
    // It may have gone to sleep after the last request only now.
    assert!(sleeps_of_the_thread() <= before + 1);
    assert_eq!(counts.0.load(Ordering::Relaxed), 0);

    // One growth wakes each of them once, and then nobody waits.
    let log = log_of(&job);
    gate.open();
    until("all are woken", || counts.0.load(Ordering::Relaxed) == 100);
    threads.worker.census().unwrap();
    let before = sleeps_of_the_thread();
    for round in 2..=50 {
        gate.open();
        let written = 6 + 5 * round;
        until("it is written", || fs::metadata(&log).unwrap().len() == written);
    }
    // The watch has fired once, and was not armed again.
    let sleeps = sleeps_of_the_thread() - before;
    assert!(sleeps <= 5, "{sleeps} wake-ups for 49 lines that nobody has waited for");
    assert_eq!(counts.0.load(Ordering::Relaxed), 100);
    for output in &mut outputs {
        let mut bytes = 0;
        while bytes < 50 * 5 {
            match output.read_timeout(&mut buffer, PATIENCE).unwrap() {
                Read::Data(length) => bytes += length,
                other => panic!("{other:?} after {bytes}"),
            }
        }
        assert_eq!(output.try_read(&mut buffer).unwrap(), Read::UpToDate);
    }
}

/// What the process and the worker hold.
pub(crate) fn held(threads: &Threads) -> (usize, usize, usize, usize, jobworker::Census) {
    (
        fs::read_dir("/proc/self/fd").unwrap().count(),
        fs::read_dir("/proc/self/task").unwrap().count(),
        directories(threads.place.cgroup.as_deref().unwrap()).len(),
        children(),
        threads.worker.census().unwrap(),
    )
}

/// Whichever handle is the last one ends the thread, and what it holds.
#[test]
fn the_last_handle_ends_the_thread_whatever_it_is() {
    if !alone!() {
        return;
    }
    let place = Place::new();
    if place.cgroup_or_skip().is_none() {
        return;
    }
    let counts = || {
        let count = |path| fs::read_dir(path).unwrap().count();
        let groups = directories(place.cgroup.as_deref().unwrap()).len();
        (count("/proc/self/fd"), count("/proc/self/task"), groups, children())
    };
    let before = counts();
    for last in 0..4 {
        let worker = Worker::with_config(&place.config()).unwrap();
        let job = worker.spawn(&sh("sleep 1000")).unwrap();
        let mut output = job.output(Position::Start).unwrap();
        assert_eq!(output.try_read(&mut [0; 8]).unwrap(), Read::UpToDate);
        let finished = job.finished();
        match last {
            0 => drop((job, output, finished, worker)),
            1 => drop((worker, output, finished, job)),
            2 => drop((finished, job, worker, output)),
            _ => drop((output, job, worker, finished)),
        }
        // The kernel lists a thread for a moment after it can be joined.
        until(&format!("nothing is left of {last}"), || counts() == before);
    }
}
