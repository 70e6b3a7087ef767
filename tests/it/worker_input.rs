//! Layer 1: what is asked of a worker that is gone, of a reader that is closed, on the wrong thread
//! or with any timeout has a typed error or its plain result, and never blocks for good.

use std::fs::File;
use std::io::{self, BufRead, Read as _};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use jobworker::worker::{Job, Output, Shutdown};
use jobworker::{
    Command, Error, ErrorKind, Exit, Limits, Position, Reactor, Read, Result, Signal, Stallable,
    StopCause, TailError, Token, Worker, WorkerError, uuid::Uuid,
};

use crate::support::{PATIENCE, end_group, sh};
use crate::worker::Threads;

/// Centuries, and more than any clock can tell.
const LONG: [Duration; 2] = [Duration::from_secs(400 * 366 * 86_400), Duration::MAX];

/// Everything that a job can be asked and that asks the thread, with the error of each.
fn asked(job: &Job) -> Vec<(&'static str, Option<Error>)> {
    vec![
        ("status", job.status().err()),
        ("stop", job.stop().err()),
        ("stop_within", job.stop_within(Duration::ZERO).err()),
        ("kill", job.kill().err()),
        ("signal", job.signal(Signal::TERM).err()),
        ("signal_main", job.signal_main(Signal::TERM).err()),
        ("freeze", job.freeze().err()),
        ("thaw", job.thaw().err()),
        ("set_limits", job.set_limits(&Limits::new()).err()),
        ("limits", job.limits().err()),
        ("stats", job.stats().err()),
        ("pressure", job.pressure(Stallable::Memory).err()),
        ("unwatch_pressure", job.unwatch_pressure(Stallable::Memory).err()),
        ("take_stdin", job.take_stdin().err()),
        ("output", job.output(Position::Start).err()),
    ]
}

/// Everything that a worker can be asked but to shut down.
fn asked_of_worker(worker: &Worker) -> Vec<(&'static str, Option<Error>)> {
    let mut tied = Command::new("true");
    tied.parent_death_signal(Signal::KILL);
    vec![
        ("spawn", worker.spawn(&Command::new("true")).err()),
        ("spawn on the thread", worker.spawn(&tied).err()),
        ("run", worker.run(&Command::new("true"), 1).err()),
        ("census", worker.census().err()),
        ("jobs", worker.jobs().err()),
        ("find", worker.find(Uuid::nil()).err()),
        ("prepare", worker.prepare(&Limits::new(), 1).err()),
        ("sweep", worker.sweep().err()),
        ("unwatch_system_pressure", worker.unwatch_system_pressure(Stallable::Memory).err()),
    ]
}

/// Every way to read, with the error of each.
fn read(output: &mut Output) -> Vec<(&'static str, Option<Error>)> {
    let mut cx = Context::from_waker(Waker::noop());
    let mut buffer = [0; 8];
    let sink = File::options().write(true).open("/dev/null").unwrap();
    let polled = |poll: Poll<Result<()>>| match poll {
        Poll::Ready(result) => result.err(),
        Poll::Pending => None,
    };
    vec![
        ("try_read", output.try_read(&mut buffer).err()),
        ("read_timeout of zero", output.read_timeout(&mut buffer, Duration::ZERO).err()),
        ("read_timeout", output.read_timeout(&mut buffer, PATIENCE).err()),
        ("read", inner(output.read(&mut buffer).err())),
        ("fill_buf", inner(output.fill_buf().err())),
        ("send_to", inner(output.send_to(&sink, 8).err())),
        ("poll_read", polled(output.poll_read(&mut cx, &mut buffer).map_ok(|_| ()))),
        ("poll_fill", polled(output.poll_fill(&mut cx).map_ok(|_| ()))),
    ]
}

/// The error that the traits of `std::io` have wrapped.
fn inner(error: Option<io::Error>) -> Option<Error> {
    error.map(|error| error.downcast::<Error>().expect("an error of this crate"))
}

#[track_caller]
fn expect(errors: Vec<(&'static str, Option<Error>)>, kind: ErrorKind, text: &str) {
    for (name, error) in errors {
        let error = error.unwrap_or_else(|| panic!("{name} has no error"));
        assert_eq!(error.kind(), kind, "{name}: {error}");
        assert!(error.to_string().contains(text), "{name}: {error}");
    }
}

#[test]
fn every_call_after_a_shutdown_says_that_there_was_one() {
    let Some(threads) = Threads::new() else { return };
    // One that a shutdown leaves running, so that it is not finished for the handles.
    let job = threads.spawn(sh("echo one; exec sleep 1000").detached(true));
    let group = threads.place.group(job.id());
    let mut output = job.output(Position::Start).unwrap();
    assert_eq!(output.read_timeout(&mut [0; 8], PATIENCE).unwrap(), Read::Data(4));
    let mut unread = job.output(Position::Start).unwrap();
    threads.worker.shutdown(Shutdown::Stop, Duration::ZERO).unwrap();
    let text = "the worker was shut down";
    expect(asked(&job), ErrorKind::State, text);
    expect(asked_of_worker(&threads.worker), ErrorKind::State, text);
    expect(vec![("wait", job.wait().err())], ErrorKind::State, text);
    for timeout in LONG.into_iter().chain([Duration::ZERO]) {
        let waited = job.wait_timeout(timeout).err();
        expect(vec![("wait_timeout", waited)], ErrorKind::State, text);
        // Again and again, with whatever time there is.
        for how in [Shutdown::Stop, Shutdown::StopWithin(timeout), Shutdown::Kill] {
            assert!(threads.worker.shutdown(how, timeout).unwrap().is_empty());
        }
    }
    assert!(job.report().is_none() && job.pid() > 0);
    for reader in [&mut output, &mut unread] {
        expect(read(reader), ErrorKind::State, text);
        // Nothing is lost by the failures.
        assert!(reader.position() == 4 || reader.position() == 0);
    }
    end_group(&group);
    drop(threads);
    // The last handles, after the end.
    drop((job, output, unread));
}

#[test]
fn a_closed_reader_says_so_in_every_way_to_read() {
    let Some(threads) = Threads::new() else { return };
    let (job, _gate) = threads.gated("echo one; go");
    let finished = threads.spawn(&sh("echo one"));
    finished.wait().unwrap();
    for (job, begun) in [(&job, false), (&job, true), (&finished, false), (&finished, true)] {
        let mut output = job.output(Position::Start).unwrap();
        if begun {
            // Half of a line is at hand, which is not handed out any more.
            assert_eq!(output.read_timeout(&mut [0; 2], PATIENCE).unwrap(), Read::Data(2));
        }
        let (position, closer) = (output.position(), output.closer());
        for _ in 0..2 {
            closer.close();
            let errors = read(&mut output);
            for (name, error) in &errors {
                let closed = matches!(error, Some(Error::Tail(TailError::Closed)));
                assert!(closed, "{name}: {error:?}");
            }
            expect(errors, ErrorKind::State, "closed");
        }
        // Where another reader can go on.
        assert_eq!(output.position(), position);
        let mut other = output.job().output(Position::Offset(position)).unwrap();
        let length = 4 - usize::try_from(position).unwrap();
        assert_eq!(other.read_timeout(&mut [0; 8], PATIENCE).unwrap(), Read::Data(length));
        drop(output);
        // It closes what is not there any more.
        closer.close();
    }
}

#[test]
fn timeouts_of_zero_do_not_wait_and_those_of_centuries_end_with_what_they_wait_for() {
    let Some(threads) = Threads::new() else { return };
    for long in LONG {
        let (job, mut gate) = threads.gated("go; echo one; go; exit 3");
        let mut output = job.output(Position::Start).unwrap();
        let mut buffer = [0; 8];
        assert_eq!(output.read_timeout(&mut buffer, Duration::ZERO).unwrap(), Read::UpToDate);
        assert!(job.wait_timeout(Duration::ZERO).unwrap().is_none());
        let waiting = {
            let job = job.clone();
            thread::spawn(move || job.wait_timeout(long).unwrap().unwrap().exit)
        };
        gate.open();
        assert_eq!(output.read_timeout(&mut buffer, long).unwrap(), Read::Data(4));
        gate.open();
        assert_eq!(output.read_timeout(&mut buffer, long).unwrap(), Read::Ended);
        assert_eq!(output.read_timeout(&mut buffer, Duration::ZERO).unwrap(), Read::Ended);
        assert_eq!(waiting.join().unwrap(), Exit::Code(3));

        // A grace period of centuries can be shortened, and a kill does not wait for it.
        let (job, _gate) = threads.gated("trap '' TERM; echo ready; while :; do go; done");
        let mut output = job.output(Position::Start).unwrap();
        assert_eq!(output.read_timeout(&mut buffer, long).unwrap(), Read::Data(6));
        job.stop_within(long).unwrap();
        assert!(job.wait_timeout(Duration::from_millis(1)).unwrap().is_none());
        job.stop_within(Duration::ZERO).unwrap();
        let report = job.wait().unwrap();
        assert_eq!((report.stopped_by, report.killed), (Some(StopCause::Stop), true));
    }
    for long in LONG {
        // That of a shutdown is for the slowest job.
        let worker = Worker::with_config(&threads.place.config()).unwrap();
        let mut limited = sh("exec sleep 1000");
        let job = worker.spawn(limited.time_limit(long).grace(long)).unwrap();
        let stopped = worker.shutdown(Shutdown::StopWithin(long), long).unwrap();
        assert_eq!(stopped.len(), 1);
        assert_eq!(job.wait_timeout(long).unwrap().unwrap().exit.signal(), Some(Signal::TERM));
    }
}

/// A shutdown that would take centuries is ended by another one.
#[test]
fn a_second_shutdown_ends_the_first_sooner() {
    let Some(threads) = Threads::new() else { return };
    let (job, _gate) = threads.gated("trap '' TERM; echo ready; while :; do go; done");
    let mut output = job.output(Position::Start).unwrap();
    assert_eq!(output.read_timeout(&mut [0; 8], PATIENCE).unwrap(), Read::Data(6));
    let first = {
        let worker = threads.worker.clone();
        thread::spawn(move || worker.shutdown(Shutdown::StopWithin(Duration::MAX), Duration::MAX))
    };
    // No job can be started once it has begun.
    let deadline = Instant::now() + PATIENCE;
    while threads.worker.spawn(&Command::new("true")).is_ok() {
        assert!(Instant::now() < deadline, "the shutdown has not begun");
    }
    let second = threads.worker.shutdown(Shutdown::Kill, PATIENCE).unwrap();
    let stopped = first.join().unwrap().unwrap();
    for stopped in [&stopped, &second] {
        let status = stopped.iter().find(|status| status.id == job.id()).unwrap();
        assert!(status.report.as_ref().unwrap().killed);
    }
}

/// A handle keeps its job, so that it is never unknown; one of a reactor that was removed has no
/// handle.
#[test]
fn a_job_with_a_handle_is_never_unknown() {
    let Some(threads) = Threads::new() else { return };
    let mut reactor = Reactor::with_config(&threads.place.config()).unwrap();
    let removed = reactor.spawn(&Command::new("true"), Token(0)).unwrap();
    let kept = reactor.spawn(&Command::new("true"), Token(0)).unwrap();
    reactor.wait(removed).unwrap();
    reactor.remove(removed).unwrap();
    let (worker, jobs) = reactor.into_worker().unwrap();
    assert_eq!(jobs.iter().map(Job::id).collect::<Vec<_>>(), [kept]);
    jobs[0].wait().unwrap();
    // Finished long ago, and still there.
    for _ in 0..3 {
        assert_eq!(jobs[0].status().unwrap().exit, Some(Exit::Code(0)));
        let gone = jobs[0].signal_main(Signal::TERM).unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::State, "{gone}");
    }
    let output = jobs[0].output(Position::Start).unwrap();
    drop(jobs);
    assert_eq!(output.job().status().unwrap().id, kept);
    drop((output, worker));
}

/// What a waker does runs on the thread of the worker, which would wait for itself.
#[test]
fn whatever_blocks_fails_on_the_thread_of_the_worker() {
    type Errors = Vec<(&'static str, Option<Error>)>;
    struct Blocks(Worker, Job, Mutex<Output>, mpsc::Sender<Errors>);
    impl Wake for Blocks {
        fn wake(self: Arc<Self>) {
            let Self(worker, job, output, errors) = &*self;
            let mut all = asked(job);
            all.extend(asked_of_worker(worker));
            all.push(("shutdown", worker.shutdown(Shutdown::Kill, Duration::ZERO).err()));
            all.push(("wait", job.wait().err()));
            all.push(("wait_timeout", job.wait_timeout(Duration::ZERO).err()));
            all.push(("events of a job", job.events().wait().err()));
            all.push(("events", worker.events().wait_timeout(Duration::ZERO).err()));
            // Whatever polls does not block, and has its plain result.
            let polls = ["poll_read", "poll_fill"];
            let read = read(&mut output.lock().unwrap());
            all.extend(read.into_iter().filter(|(name, _)| !polls.contains(name)));
            errors.send(all).unwrap();
        }
    }
    let Some(threads) = Threads::new() else { return };
    let (job, mut gate) = threads.gated("go");
    let output = Mutex::new(job.output(Position::Start).unwrap());
    let (sender, errors) = mpsc::channel();
    let blocks = Blocks(threads.worker.clone(), job.clone(), output, sender);
    let waker = Waker::from(Arc::new(blocks));
    let mut finished = job.finished();
    assert!(Pin::new(&mut finished).poll(&mut Context::from_waker(&waker)).is_pending());
    gate.open();
    let errors = errors.recv_timeout(PATIENCE).unwrap();
    for (name, error) in &errors {
        let own = matches!(error, Some(Error::Worker(WorkerError::OwnThread)));
        assert!(own, "{name}: {error:?}");
    }
    expect(errors, ErrorKind::State, "on the thread of the worker");
    // It goes on as if nothing had been asked.
    assert_eq!(job.wait().unwrap().exit, Exit::Code(0));
    let mut finished = pin!(job.finished());
    assert!(finished.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
}
