//! Every tail gets every byte of its job exactly once, and the end exactly once, whenever it was
//! opened and whichever process wrote last.

use std::collections::HashMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jobworker::{
    Command, EndPolicy, Error, Event, Events, Exit, Fill, JobId, Output, Position, Read, Report,
    Stream, TailError, TailId, TailOptions, Token,
};

use crate::support::{PATIENCE, World, end_group, has_exited, is_dead, pidfd, rounds, sh};

/// How a tail is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// By `read` until there is no more, on each event.
    Greedy,
    /// By `fill_buf` and `consume`, a part of the bytes at a time.
    Borrowing,
    /// By `next_chunk` until there is none.
    Chunks,
    /// By `read`, a hundred bytes per turn.
    Slow,
}

/// One tail and what it has read.
#[derive(Debug)]
struct Reader {
    manner: Manner,
    /// Where in the log it began.
    start: u64,
    bytes: Vec<u8>,
    ended: usize,
    /// Whether there was an event for it since it was last up to date.
    ready: bool,
}

/// Readers of all manners on one reactor, which check the order and number of their events.
struct Library {
    world: World,
    events: Events,
    readers: HashMap<TailId, Reader>,
    exits: HashMap<JobId, Exit>,
    reports: HashMap<JobId, Arc<Report>>,
}

impl Library {
    fn new() -> Option<Self> {
        let world = World::new()?;
        let (readers, exits, reports) = (HashMap::new(), HashMap::new(), HashMap::new());
        Some(Self { world, events: Events::with_capacity(256), readers, exits, reports })
    }

    #[track_caller]
    fn tail(&mut self, job: JobId, options: impl Into<TailOptions>, manner: Manner) -> TailId {
        let tail = self
            .world
            .reactor
            .tail(job, options, Token(0))
            .unwrap_or_else(|error| panic!("{error}"));
        let start = self.world.reactor.position(tail).unwrap();
        self.readers
            .insert(tail, Reader { manner, start, bytes: Vec::new(), ended: 0, ready: false });
        tail
    }

    /// Polls once, and lets the readers that have an event read.
    fn turn(&mut self) {
        let busy = self.readers.values().any(|reader| reader.ready);
        let timeout = if busy { Duration::ZERO } else { PATIENCE };
        self.world.reactor.poll(&mut self.events, Some(timeout)).unwrap();
        for event in &self.events {
            match event {
                Event::Readable { tail, .. } => {
                    let reader =
                        self.readers.get_mut(tail).expect("an event of a tail that is open");
                    assert_eq!(reader.ended, 0, "an event after the end");
                    assert!(!reader.ready, "a second event before the tail was up to date");
                    reader.ready = true;
                }
                Event::Exited { job, exit, .. } => assert_eq!(self.exits.insert(*job, *exit), None),
                Event::Finished { job, report, .. } => {
                    assert!(self.exits.contains_key(job), "Finished before Exited");
                    assert!(
                        self.reports.insert(*job, Arc::clone(report)).is_none(),
                        "a second Finished"
                    );
                }
                other => panic!("unexpected {other:?}"),
            }
        }
        for (tail, reader) in self.readers.iter_mut().filter(|(_, reader)| reader.ready) {
            reader.work(*tail, &mut self.world);
        }
    }

    #[track_caller]
    fn until(&mut self, what: &str, mut condition: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition(self) {
            assert!(Instant::now() < deadline, "timed out waiting until {what}");
            self.turn();
        }
    }

    /// Runs turns until the job is finished and all readers are at the end, and returns the report.
    #[track_caller]
    fn finish(&mut self, job: JobId) -> Arc<Report> {
        self.until("the job is finished and every reader is at the end", |library| {
            library.reports.contains_key(&job)
                && library.readers.values().all(|reader| reader.ended > 0)
        });
        Arc::clone(&self.reports[&job])
    }

    /// Closes a tail that is at its end, and returns what it has read.
    #[track_caller]
    fn close(&mut self, tail: TailId) -> Reader {
        let reader = self.readers.remove(&tail).unwrap();
        assert_eq!(reader.ended, 1, "the end was not reported exactly once");
        assert_eq!(
            self.world.reactor.read(tail, &mut [0; 8]).unwrap(),
            Read::Ended,
            "the end is not final"
        );
        self.world.reactor.close(tail).unwrap();
        reader
    }

    /// Follows a file by its path until it holds what is expected.
    #[track_caller]
    fn await_in_file(&mut self, file: &Path, expected: &[u8]) {
        let tail = self.world.reactor.tail_file(file, Position::Start, Token(0)).unwrap();
        let reader =
            Reader { manner: Manner::Greedy, start: 0, bytes: Vec::new(), ended: 0, ready: false };
        self.readers.insert(tail, reader);
        self.until("the file holds what was written", |library| {
            library.readers[&tail].bytes.len() >= expected.len()
        });
        assert!(
            self.readers.remove(&tail).unwrap().bytes == expected,
            "the file holds something else"
        );
        self.world.reactor.close(tail).unwrap();
    }

    fn log(&self, job: JobId) -> PathBuf {
        self.world.reactor.status(job).unwrap().output.expect("the job has a log")
    }
}

impl Reader {
    fn work(&mut self, tail: TailId, world: &mut World) {
        match self.manner {
            Manner::Greedy => while self.read(tail, world, 4096) {},
            Manner::Chunks => {
                while let Some(chunk) = world.reactor.next_chunk(tail).unwrap() {
                    assert!(!chunk.bytes.is_empty() && !chunk.truncated, "{chunk:?}");
                    self.bytes.extend_from_slice(chunk.bytes);
                }
                // Finds out whether that was the end; by now there may be more.
                self.read(tail, world, 4096);
            }
            Manner::Slow => _ = self.read(tail, world, 100),
            Manner::Borrowing => while self.borrow(tail, world) {},
        }
    }

    /// Reads once, and returns whether there may be more.
    fn read(&mut self, tail: TailId, world: &mut World, length: usize) -> bool {
        let mut buffer = [0; 4096];
        match world.reactor.read(tail, &mut buffer[..length]).unwrap() {
            Read::Data(read) => self.bytes.extend_from_slice(&buffer[..read]),
            Read::UpToDate => self.ready = false,
            Read::Ended => self.end(),
            Read::Truncated | Read::Skipped { .. } | Read::Replaced { .. } => {
                panic!("all of it is there")
            }
        }
        self.ready
    }

    /// Consumes two thirds of the bytes and leaves the rest for the next time. Returns whether
    /// there may be more.
    fn borrow(&mut self, tail: TailId, world: &mut World) -> bool {
        let consumed = match world.reactor.fill_buf(tail).unwrap() {
            Fill::Data(bytes) => {
                assert!(!bytes.is_empty());
                let consumed = bytes.len() - bytes.len() / 3;
                self.bytes.extend_from_slice(&bytes[..consumed]);
                consumed
            }
            Fill::UpToDate => {
                self.ready = false;
                0
            }
            Fill::Truncated | Fill::Skipped { .. } | Fill::Replaced { .. } => {
                panic!("all of it is there")
            }
            Fill::Ended => {
                self.end();
                0
            }
        };
        world.reactor.consume(tail, consumed).unwrap();
        self.ready
    }

    fn end(&mut self) {
        self.ended += 1;
        self.ready = false;
    }
}

#[test]
fn two_thousand_jobs_that_exit_right_after_their_last_line_lose_no_byte_of_it() {
    const ALIVE: usize = 50;
    struct Running {
        job: JobId,
        number: usize,
        first: TailId,
        midway: Option<TailId>,
        /// How many turns ago it was started.
        age: usize,
    }
    let Some(mut library) = Library::new() else { return };
    let jobs = rounds(2000);
    let (mut running, mut started, mut complete) = (Vec::<Running>::new(), 0, 0);
    while complete < jobs {
        while started < jobs && running.len() < ALIVE {
            let job =
                library.world.spawn(&sh(&format!("echo first; printf 'last line of {started}'")));
            let first = library.tail(job, Position::Start, Manner::Greedy);
            running.push(Running { job, number: started, first, midway: None, age: 0 });
            started += 1;
        }
        library.turn();
        for mut one in std::mem::take(&mut running) {
            // The mid-way tail is opened at another moment for each job: after some turns, or at
            // its first bytes.
            let due = if one.number % 2 == 0 {
                one.age >= one.number % 7
            } else {
                !library.readers[&one.first].bytes.is_empty()
            };
            if one.midway.is_none() && (due || library.reports.contains_key(&one.job)) {
                let manner = [Manner::Borrowing, Manner::Greedy, Manner::Chunks][one.number % 3];
                one.midway = Some(library.tail(one.job, Position::Start, manner));
            }
            one.age += 1;
            let at_end = |tail: TailId| library.readers[&tail].ended > 0;
            let (Some(midway), true) = (one.midway, library.reports.contains_key(&one.job)) else {
                running.push(one);
                continue;
            };
            if !at_end(one.first) || !at_end(midway) {
                running.push(one);
                continue;
            }
            let late = library.tail(one.job, Position::Start, Manner::Greedy);
            library.until("the tail that was opened after the exit is at its end", |library| {
                library.readers[&late].ended > 0
            });
            let expected = format!("first\nlast line of {}", one.number);
            for (tail, which) in [(one.first, "first"), (midway, "mid-way"), (late, "late")] {
                let reader = library.close(tail);
                assert_eq!(String::from_utf8_lossy(&reader.bytes), expected, "the {which} tail");
            }
            let report = &library.reports[&one.job];
            assert_eq!((report.exit, report.output_bytes), (Exit::Code(0), expected.len() as u64));
            assert!(report.problems.is_empty() && report.cgroup_left.is_none(), "{report:?}");
            library.world.reactor.remove(one.job).unwrap();
            complete += 1;
        }
    }
    assert_eq!(library.reports.len(), jobs);
}

/// The main process leaves a child behind that writes 300 lines and the words "the end", and then
/// runs `then`.
fn with_a_late_writer(then: &str, policy: EndPolicy) -> Command {
    let script = format!(
        "echo main; (i=0; while [ $i -lt 300 ]; do echo \"late $i\"; i=$((i+1)); done; printf \
         'the end'; {then}) &"
    );
    let mut command = sh(&script);
    command.end_policy(policy);
    command
}

/// Runs a hundred such jobs, ten at a time, with two tails each, and calls `check` for each of them
/// with what its tails have read.
fn run_late_writers(command: &Command, mut check: impl FnMut(&mut Library, JobId, &Report, &[u8])) {
    let Some(mut library) = Library::new() else { return };
    for _ in 0..10 {
        let jobs: Vec<_> = (0..10)
            .map(|_| {
                let job = library.world.spawn(command);
                (
                    job,
                    [Manner::Greedy, Manner::Borrowing]
                        .map(|manner| library.tail(job, Position::Start, manner)),
                )
            })
            .collect();
        for (job, tails) in jobs {
            let report = library.finish(job);
            assert_eq!(report.exit, Exit::Code(0));
            assert!(report.problems.is_empty(), "{report:?}");
            let [one, other] = tails.map(|tail| library.close(tail));
            assert!(one.bytes == other.bytes, "two tails of one job differ");
            let late = library.tail(job, Position::Start, Manner::Greedy);
            library
                .until("the late tail is at its end", |library| library.readers[&late].ended > 0);
            assert!(
                library.close(late).bytes == one.bytes,
                "a tail that was opened after the end differs"
            );
            assert_eq!(report.output_bytes, one.bytes.len() as u64);
            check(&mut library, job, &report, &one.bytes);
            library.world.reactor.remove(job).unwrap();
        }
    }
}

fn everything() -> String {
    let lines: String = (0..300).map(|number| format!("late {number}\n")).collect();
    format!("main\n{lines}the end")
}

#[test]
fn what_a_killed_grandchild_wrote_until_its_death_is_delivered_and_is_all_that_the_file_has() {
    run_late_writers(
        &with_a_late_writer("exec sleep 1000", EndPolicy::KillRest),
        |library, job, report, bytes| {
            assert!(report.cgroup_left.is_none());
            assert!(
                fs::read(library.log(job)).unwrap() == bytes,
                "the file differs from what the tails got"
            );
            assert!(everything().as_bytes().starts_with(bytes), "a gap or a repetition");
        },
    );
}

#[test]
fn a_job_that_waits_for_all_delivers_everything_that_a_grandchild_writes_after_the_main_process() {
    run_late_writers(&with_a_late_writer("exit 7", EndPolicy::WaitAll), |_, _, report, bytes| {
        assert!(report.cgroup_left.is_none() && !report.killed);
        assert!(everything().as_bytes() == bytes, "something is missing");
    });
}

#[test]
fn a_job_that_leaves_the_rest_delivers_exactly_its_output_and_the_rest_writes_on() {
    run_late_writers(
        &with_a_late_writer("exec sleep 1000", EndPolicy::LeaveRest),
        |library, job, report, bytes| {
            assert!(!report.killed);
            let cgroup =
                report.cgroup_left.as_deref().expect("the cgroup in which the grandchild runs on");
            assert!(everything().as_bytes().starts_with(bytes), "a gap or a repetition");
            let file = library.log(job);
            library.await_in_file(&file, everything().as_bytes());
            assert_eq!(
                library.world.reactor.status(job).unwrap().report.unwrap().output_bytes,
                bytes.len() as u64
            );
            end_group(cgroup);
        },
    );
}

#[test]
fn what_is_written_after_a_job_that_leaves_the_rest_is_in_the_file_but_not_in_its_tails() {
    let Some(mut library) = Library::new() else { return };
    let (input, feed) = rustix::pipe::pipe().unwrap();
    let mut command =
        sh("exec 3<&0; (read line <&3; echo $line; exec sleep 1000) & printf 'of the job;'");
    let job = library.world.spawn(command.stdin_fd(input).end_policy(EndPolicy::LeaveRest));
    let open = library.tail(job, Position::Start, Manner::Greedy);
    let report = library.finish(job);
    rustix::io::write(&feed, b"of the rest\n").unwrap();
    let file = library.log(job);
    library.await_in_file(&file, b"of the job;of the rest\n");
    for position in [Position::Start, Position::LastLines(1)] {
        let late = library.tail(job, position, Manner::Greedy);
        library.finish(job);
        assert_eq!(library.close(late).bytes, b"of the job;");
    }
    let at_end = library.tail(job, Position::End, Manner::Greedy);
    library.finish(job);
    assert_eq!(library.close(at_end).bytes, b"");
    assert_eq!(library.close(open).bytes, b"of the job;");
    end_group(report.cgroup_left.as_deref().unwrap());
}

#[test]
fn twenty_tails_opened_at_different_times_and_positions_get_a_chatty_job_whole() {
    let Some(mut library) = Library::new() else { return };
    // Two commands, so that the job goes on for a while after its first bytes.
    let job = library.world.spawn(&sh("seq 100000; seq 100001 200000"));
    let whole: String = (1..=200_000).map(|number| format!("{number}\n")).collect();
    let manners = [Manner::Greedy, Manner::Borrowing, Manner::Slow];
    let position = |number: usize| match number % 4 {
        0 => Position::Start,
        1 => Position::End,
        2 => Position::Offset(1000 * number as u64),
        _ => Position::LastLines(10 * number as u64),
    };
    let mut tails = Vec::new();
    for number in 0..20 {
        let tail = library.tail(job, position(number), manners[number % 3]);
        tails.push(tail);
        library.turn();
    }
    let report = library.finish(job);
    assert_eq!((report.exit, report.output_bytes), (Exit::Code(0), whole.len() as u64));
    // Some more on the finished job.
    for number in 0..4 {
        tails.push(library.tail(job, position(number), Manner::Greedy));
    }
    library.finish(job);
    for tail in tails {
        let reader = library.close(tail);
        let start = usize::try_from(reader.start).unwrap();
        assert!(
            reader.bytes == whole.as_bytes()[start..],
            "a {:?} tail from {start} did not get every byte",
            reader.manner
        );
    }
    assert!(fs::read(library.log(job)).unwrap() == whole.as_bytes());
}

#[test]
fn a_tail_that_is_a_snapshot_gets_what_there_was_and_ends_while_the_job_runs() {
    let Some(mut library) = Library::new() else { return };
    let (input, feed) = rustix::pipe::pipe().unwrap();
    let job =
        library.world.spawn(sh("printf before; read line; printf \" $line\"").stdin_fd(input));
    let follower = library.tail(job, Position::Start, Manner::Greedy);
    library
        .until("the first word is there", |library| library.readers[&follower].bytes == b"before");
    let snapshot = library.tail(job, TailOptions::new(Position::Start).snapshot(), Manner::Greedy);
    library.until("the snapshot is at its end", |library| library.readers[&snapshot].ended > 0);
    assert_eq!(library.close(snapshot).bytes, b"before");
    assert!(library.exits.is_empty(), "the job runs on");
    rustix::io::write(&feed, b"after\n").unwrap();
    library.finish(job);
    assert_eq!(library.close(follower).bytes, b"before after");
}

#[test]
fn the_streams_of_a_split_job_come_apart_and_each_is_whole() {
    let Some(mut library) = Library::new() else { return };
    let script = "i=0; while [ $i -lt 2000 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done; \
        printf bye >&2";
    let job = library.world.spawn(sh(script).output(Output::Split));
    let output = library.tail(job, Position::Start, Manner::Greedy);
    let error = library.tail(
        job,
        TailOptions::new(Position::Start).stream(Stream::Error),
        Manner::Borrowing,
    );
    let report = library.finish(job);
    let lines =
        |word: &str| (0..2000).map(|number| format!("{word} {number}\n")).collect::<String>();
    let (out, err) = (lines("out"), lines("err") + "bye");
    assert_eq!((report.output_bytes, report.error_bytes), (out.len() as u64, err.len() as u64));
    let late = library.tail(
        job,
        TailOptions::new(Position::LastLines(1)).stream(Stream::Error),
        Manner::Greedy,
    );
    library.finish(job);
    assert!(library.close(output).bytes == out.as_bytes());
    assert!(library.close(error).bytes == err.as_bytes());
    assert_eq!(library.close(late).bytes, b"bye");
}

#[test]
fn a_job_without_output_has_no_log_and_says_so() {
    let Some(mut library) = Library::new() else { return };
    let job = library.world.spawn(sh("echo nobody; echo hears >&2; exit 3").output(Output::Null));
    for stream in [Stream::Output, Stream::Error] {
        let refused = library.world.reactor.tail(
            job,
            TailOptions::new(Position::Start).stream(stream),
            Token(0),
        );
        assert!(matches!(refused, Err(Error::Tail(TailError::NoLog { .. }))), "{refused:?}");
    }
    let report = library.finish(job);
    assert_eq!((report.exit, report.output_bytes, report.error_bytes), (Exit::Code(3), 0, 0));
    let status = library.world.reactor.status(job).unwrap();
    assert_eq!((status.output, status.error), (None, None));
    assert_eq!(fs::read_dir(library.world.place.logs()).unwrap().count(), 0);
    // A job with one log for both streams has none for standard error alone.
    let job = library.world.spawn(&Command::new("/bin/true"));
    let refused = library.world.reactor.tail(
        job,
        TailOptions::new(Position::Start).stream(Stream::Error),
        Token(0),
    );
    assert!(matches!(refused, Err(Error::Tail(TailError::NoLog { .. }))), "{refused:?}");
    library.finish(job);
}

#[test]
fn a_grandchild_in_a_session_of_its_own_is_waited_for_to_its_last_byte() {
    let Some(mut library) = Library::new() else { return };
    let script = "setsid sh -c 'echo $$; read line; printf \"$line\"' <&3 & exec 3<&-; exit 5";
    let (input, feed) = rustix::pipe::pipe().unwrap();
    let mut command = sh(&format!("exec 3<&0; {script}"));
    command.stdin_fd(input).end_policy(EndPolicy::WaitAll);
    let job = library.world.spawn(&command);
    let tail = library.tail(job, Position::Start, Manner::Greedy);
    library.until("the grandchild is alone", |library| {
        library.exits.contains_key(&job) && library.readers[&tail].bytes.ends_with(b"\n")
    });
    let text = String::from_utf8_lossy(&library.readers[&tail].bytes).into_owned();
    let grandchild: OwnedFd = pidfd(text.trim().parse().unwrap());
    assert!(library.reports.is_empty() && !has_exited(&grandchild));
    rustix::io::write(&feed, b"last words\n").unwrap();
    let report = library.finish(job);
    assert!(is_dead(&grandchild));
    assert_eq!(report.exit, Exit::Code(5));
    assert_eq!(String::from_utf8_lossy(&library.close(tail).bytes), text + "last words");
}
