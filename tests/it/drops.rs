//! Layer 1: whatever is dropped, in whatever state and order, leaves nothing behind.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, Read as _};
use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context, Waker};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use jobworker::worker::{Closer, Finished, Job, JobEvents, Output, Shutdown, WorkerEvents};
use jobworker::{Census, Position, Read, TailOptions, Worker};

use crate::support::{PATIENCE, alone, rounds, sh};
use crate::worker::{Gate, Threads, held, log_of, until};

/// How often a job writes more than the loop keeps for its readers.
const SURGES: usize = 60;

/// Anything that can be dropped.
enum Handle {
    /// A clone of the worker.
    Clone(Worker),
    /// Another worker, with what it has.
    Worker(Worker, Vec<Handle>),
    Job(Job),
    Finished(Finished),
    Events(JobEvents),
    WorkerEvents(WorkerEvents),
    Output(Box<Output>),
    /// A reader that blocks on a thread of its own.
    Blocked(Closer, JoinHandle<Output>),
}

/// The states of a reader that is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    New,
    Snapshot,
    /// A read was given up, wherever that was.
    Halfway,
    /// Some bytes were read.
    Begun,
    /// It waits for growth, as a task.
    Waiting,
    Closed,
    Blocked,
    /// More was written than the loop keeps.
    Behind,
    Ended,
}

const STATES: [State; 7] = [
    State::New,
    State::Snapshot,
    State::Halfway,
    State::Begun,
    State::Waiting,
    State::Closed,
    State::Blocked,
];

/// Makes handles, and counts what it has dropped.
struct Dropper {
    random: fastrand::Rng,
    dropped: usize,
    /// How many readers there were in each state.
    states: BTreeMap<State, usize>,
}

impl Dropper {
    /// A reader of a job in a random state.
    fn reader(&mut self, job: &Job) -> Handle {
        let state = self.random.choice(STATES).unwrap();
        self.count(state);
        let mut cx = Context::from_waker(Waker::noop());
        let mut buffer = [0; 4096];
        let mut options = TailOptions::new(Position::Start);
        if state == State::Snapshot {
            options.snapshot();
        }
        let mut output = job.output(options).unwrap();
        match state {
            State::New | State::Snapshot | State::Behind | State::Ended => {}
            State::Halfway => {
                for _ in 0..self.random.u32(1..4) {
                    let _ = output.poll_read(&mut cx, &mut buffer).is_ready();
                }
            }
            State::Begun => {
                let _ = output.try_read(&mut buffer[..2]).unwrap();
            }
            State::Waiting => wait(&mut output),
            State::Closed => {
                let _ = output.poll_fill(&mut cx).is_ready();
                output.closer().close();
                assert!(output.try_read(&mut buffer).is_err());
            }
            State::Blocked => {
                let (closer, (sender, began)) = (output.closer(), mpsc::channel());
                let thread = thread::spawn(move || {
                    sender.send(()).unwrap();
                    // To the end, or to its close.
                    while let Ok(length @ 1..) = output.fill_buf().map(<[u8]>::len) {
                        output.consume(length);
                    }
                    output
                });
                began.recv().unwrap();
                return Handle::Blocked(closer, thread);
            }
        }
        Handle::Output(Box::new(output))
    }

    /// A worker of its own, with running jobs and handles of them.
    fn other_worker(&mut self, threads: &Threads) -> Handle {
        let worker = Worker::with_config(&threads.place.config()).unwrap();
        let mut handles = Vec::new();
        for _ in 0..self.random.u32(1..3) {
            let job = worker.spawn(&sh("echo one; sleep 1000")).unwrap();
            for _ in 0..self.random.u32(0..5) {
                handles.push(self.reader(&job));
            }
            handles.push(Handle::Finished(self.finished(&job)));
            handles.push(Handle::Job(job));
        }
        Handle::Worker(worker, handles)
    }

    /// A future of the end of a job, polled or not.
    fn finished(&mut self, job: &Job) -> Finished {
        let mut finished = job.finished();
        if self.random.bool() {
            let mut cx = Context::from_waker(Waker::noop());
            let _ = Pin::new(&mut finished).poll(&mut cx).is_ready();
        }
        finished
    }

    /// A subscription, polled or not.
    fn events(&mut self, job: &Job) -> JobEvents {
        let mut events = job.events();
        if self.random.bool() {
            let mut cx = Context::from_waker(Waker::noop());
            let _ = events.poll_next(&mut cx).is_ready();
        }
        events
    }

    fn count(&mut self, state: State) {
        *self.states.entry(state).or_default() += 1;
    }

    fn drop(&mut self, handle: Handle) {
        self.dropped += 1;
        match handle {
            Handle::Worker(worker, mut handles) => {
                // All at once, or with all that it has.
                if self.random.bool() {
                    worker.shutdown(Shutdown::Kill, Duration::ZERO).unwrap();
                }
                self.random.shuffle(&mut handles);
                let last = handles.split_off(self.random.usize(..=handles.len()));
                for handle in handles {
                    self.drop(handle);
                }
                drop(worker);
                for handle in last {
                    self.drop(handle);
                }
            }
            // Jobs that nobody can stop any more would stay to the end. The worker may be gone.
            Handle::Job(job) => drop(job.kill()),
            Handle::Blocked(closer, thread) => {
                closer.close();
                drop(thread.join().unwrap());
            }
            Handle::Clone(worker) => drop(worker),
            Handle::Finished(finished) => drop(finished),
            Handle::Events(events) => drop(events),
            Handle::WorkerEvents(events) => drop(events),
            Handle::Output(output) => drop(output),
        }
    }
}

/// Reads on until there is nothing more, and begins to wait for it.
fn wait(output: &mut Output) {
    let mut buffer = [0; 4096];
    while let Read::Data(_) = output.try_read(&mut buffer).unwrap() {}
    let mut cx = Context::from_waker(Waker::noop());
    let _ = output.poll_read(&mut cx, &mut buffer).is_ready();
}

/// Lets a job write more than the loop keeps for readers, while one reads it and others do not.
/// Returns all of them.
fn surge(dropper: &mut Dropper, job: &Job, gate: &mut Gate) -> Vec<Handle> {
    let mut slow: Vec<Output> = (0..3).map(|_| job.output(Position::End).unwrap()).collect();
    for output in &mut slow {
        // Each follows at the end.
        assert_eq!(output.try_read(&mut [0; 8]).unwrap(), Read::UpToDate);
        dropper.count(State::Behind);
    }
    let mut fast = job.output(Position::End).unwrap();
    let (begin, length) = (fast.position(), SURGE.len() as u64);
    gate.open();
    let mut buffer = vec![0; 1 << 16];
    while fast.position() < begin + length {
        assert!(matches!(fast.read_timeout(&mut buffer, PATIENCE), Ok(Read::Data(_))));
    }
    slow.push(fast);
    slow.into_iter().map(|output| Handle::Output(Box::new(output))).collect()
}

/// What a job writes at once: more than 256 KiB.
const SURGE: &[u8; 400_000] = &[b'x'; 400_000];

/// What there is, and what the kernel and the file system say.
fn everything(threads: &Threads) -> (usize, usize, usize, usize, Census, usize, usize) {
    let (fds, tasks, groups, children, census) = held(threads);
    let infos = fs::read_dir("/proc/self/fdinfo").unwrap().flatten();
    let infos = infos.filter_map(|info| fs::read_to_string(info.path()).ok());
    let watches = infos.map(|info| info.matches("inotify wd:").count()).sum();
    let logs = fs::read_dir(threads.place.logs()).unwrap().count();
    (fds, tasks, groups, children, census, watches, logs)
}

#[test]
fn ten_thousand_drops_in_random_order_leave_nothing() {
    if !alone!() {
        return;
    }
    let Some(threads) = Threads::new() else { return };
    let script = format!("while go; do head -c {} /dev/zero; done", SURGE.len());
    let (flood, mut gate) = threads.gated(&script);
    let ended = threads.spawn(&sh("seq 100"));
    ended.wait().unwrap();
    let before = everything(&threads);

    let all = rounds(10_000);
    let random = fastrand::Rng::with_seed(7);
    let mut dropper = Dropper { random, dropped: 0, states: BTreeMap::new() };
    let (mut handles, mut surges) = (Vec::new(), 0);
    while dropper.dropped < all {
        if surges * all < dropper.dropped * SURGES {
            surges += 1;
            handles.extend(surge(&mut dropper, &flood, &mut gate));
        }
        let is_job = |handle: &&Handle| matches!(handle, Handle::Job(_));
        let jobs: Vec<&Handle> = handles.iter().filter(is_job).collect();
        let job = match dropper.random.choice(jobs) {
            Some(Handle::Job(job)) => Some(job.clone()),
            _ => None,
        };
        let new = match (dropper.random.u32(..100), job) {
            (0..10, _) => Handle::Clone(threads.worker.clone()),
            (10..35, Some(job)) => Handle::Job(job),
            (35..75, Some(job)) => dropper.reader(&job),
            (75..80, Some(job)) => Handle::Finished(dropper.finished(&job)),
            (80..84, Some(job)) => Handle::Events(dropper.events(&job)),
            (84, _) => Handle::WorkerEvents(threads.worker.events()),
            (85..88, _) => {
                let mut output = ended.output(Position::Start).unwrap();
                output.read_to_end(&mut Vec::new()).unwrap();
                dropper.count(State::Ended);
                Handle::Output(Box::new(output))
            }
            (88, _) => dropper.other_worker(&threads),
            _ => {
                let scripts = ["seq 1000", "exit 1", "echo one; sleep 1000", "seq 20000"];
                let script = dropper.random.choice(scripts).unwrap();
                Handle::Job(threads.spawn(&sh(script)))
            }
        };
        handles.push(new);
        while handles.len() > 40 || (handles.len() > 10 && dropper.random.bool()) {
            let handle = handles.swap_remove(dropper.random.usize(..handles.len()));
            dropper.drop(handle);
        }
    }
    for handle in handles {
        dropper.drop(handle);
    }
    // Every state was among them, each often.
    for state in STATES.into_iter().chain([State::Behind, State::Ended]) {
        let count = dropper.states.get(&state).copied().unwrap_or_default();
        assert!(count >= all / 100, "{count} readers were {state:?}: {:?}", dropper.states);
    }
    // What a reader of the flood has read was not thrown away.
    let written = fs::metadata(log_of(&flood)).unwrap().len();
    assert_eq!(written, (surges * SURGE.len()) as u64);
    let settled = || {
        let now = everything(&threads);
        (now.1, now.2, now.4, now.6) == (before.1, before.2, before.4, before.6)
    };
    until("all jobs are removed", settled);
    assert_eq!(everything(&threads), before);
}
