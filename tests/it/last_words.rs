//! A shutdown of a worker cuts no reader off: what a job that has finished has written is read to
//! its end without the loop, wherever the reader was.

use std::fs;
use std::io::{self, Read as _};
use std::thread;
use std::time::Duration;

use jobworker::worker::{Job, Output, Shutdown};
use jobworker::{
    ByteSize, Error, Position, Read, Stdin, TailError, TailOptions, Worker, WorkerError,
};

use crate::support::{PATIENCE, Place, end_group, rounds, sh};
use crate::worker::{Threads, log_of, numbers, until};

/// How many numbers a job writes before it is stopped, and how many then: more than the loop keeps
/// for readers.
const FIRST: usize = 10_000;
const LAST: usize = 100_000;

/// A job that has written the first numbers, and writes the last ones when it is stopped.
fn talkative(threads: &Threads) -> Job {
    // The signal is for all processes of the job. A shell that has it just before it reads would
    // read on; wait misses none.
    let last = format!("trap \"\" TERM; seq {LAST}; exit");
    let script = format!("sleep 1000 & trap '{last}' TERM; seq {FIRST}; wait");
    let job = threads.spawn(&sh(&script));
    let (log, length) = (log_of(&job), numbers(FIRST).len() as u64);
    until("the first numbers are written", || fs::metadata(&log).unwrap().len() == length);
    job
}

/// All that the job has written in the end.
fn all() -> Vec<u8> {
    [numbers(FIRST), numbers(LAST)].concat()
}

#[track_caller]
fn read_rest(mut output: Output) -> Vec<u8> {
    let mut rest = Vec::new();
    output.read_to_end(&mut rest).unwrap();
    // And it stays at its end.
    assert_eq!(output.read_timeout(&mut [0], Duration::MAX).unwrap(), Read::Ended);
    assert_eq!(output.try_read(&mut [0]).unwrap(), Read::Ended);
    rest
}

#[track_caller]
fn stop(threads: &Threads) {
    let stopped = threads.worker.shutdown(Shutdown::Stop, PATIENCE).unwrap();
    assert!(stopped.iter().all(|status| status.report.is_some()));
}

/// Reads until there is nothing for now, so that the reader follows what the loop publishes.
fn catch_up(output: &mut Output) {
    while output.try_read(&mut [0; 4096]).unwrap() != Read::UpToDate {}
}

#[test]
fn every_reader_reads_to_the_end_of_a_job_that_a_shutdown_has_stopped() {
    let Some(threads) = Threads::new() else { return };
    let (job, all) = (talkative(&threads), all());
    let open = |position| job.output(position).unwrap();
    let untouched = open(Position::Start);
    let mut begun = open(Position::Start);
    assert_eq!(begun.read_timeout(&mut [0; 10], PATIENCE).unwrap(), Read::Data(10));
    let mut of_feed = [open(Position::Start), open(Position::End)];
    of_feed.iter_mut().for_each(catch_up);
    let mut sent = open(Position::Start);
    let (_receiver, pipe) = io::pipe().unwrap();
    assert_eq!(sent.send_to(&pipe, 100).unwrap(), Read::Data(100));
    let ahead = open(Position::Offset(all.len() as u64 - 3));
    let beyond = open(Position::Offset(all.len() as u64 + 3));
    let mut snapshot = job.output(TailOptions::new(Position::Start).snapshot()).unwrap();
    assert_eq!(snapshot.read_timeout(&mut [0; 10], PATIENCE).unwrap(), Read::Data(10));
    let waiting = thread::spawn({
        let mut output = open(Position::End);
        move || {
            let mut rest = Vec::new();
            output.read_to_end(&mut rest).map(|_| rest)
        }
    });
    stop(&threads);
    let first = numbers(FIRST).len();
    assert!(read_rest(untouched) == all);
    assert!(read_rest(begun) == all[10..]);
    for output in of_feed {
        assert!(read_rest(output) == all[first..]);
    }
    let mut buffer = vec![0; 100];
    sent.read_exact(&mut buffer).unwrap();
    assert_eq!(buffer, all[100..200]);
    assert!(read_rest(sent) == all[200..]);
    assert_eq!(read_rest(ahead), all[all.len() - 3..]);
    assert_eq!(read_rest(beyond), b"");
    assert!(read_rest(snapshot) == all[10..first]);
    assert!(waiting.join().unwrap().unwrap() == all[first..]);
}

#[test]
fn a_reader_of_a_log_that_is_kept_short_hears_what_it_has_missed_and_reads_the_rest() {
    let Some(threads) = Threads::new() else { return };
    let keep = ByteSize::from_bytes(256 * 1024);
    let job = threads.spawn(sh(&format!("read _; seq {LAST}")).stdin(Stdin::Piped).log_keep(keep));
    let mut output = job.output(Position::Start).unwrap();
    drop(job.take_stdin().unwrap());
    job.wait().unwrap();
    let all = numbers(LAST);
    stop(&threads);
    let (mut rest, mut skipped) = (Vec::new(), 0);
    loop {
        match output.read_to_end(&mut rest) {
            Ok(_) => break,
            Err(error) => skipped += Output::skipped(&error).unwrap(),
        }
    }
    assert_eq!(skipped, all.len() as u64 - rest.len() as u64);
    assert!(skipped > 0);
    assert!(all.ends_with(&rest));
}

/// What nobody has proved is not handed out.
#[test]
fn a_log_that_was_written_anew_before_the_shutdown_is_not_read_on_with() {
    let Some(threads) = Threads::new() else { return };
    let (job, mut gate) = threads.gated("seq 10; go; truncate -s 0 /proc/$$/fd/1; seq 100 200");
    let mut output = job.output(Position::Start).unwrap();
    assert_eq!(output.read_timeout(&mut [0; 4], PATIENCE).unwrap(), Read::Data(4));
    gate.open();
    job.wait().unwrap();
    stop(&threads);
    // What was in memory before is of one content, and the rest of another.
    let mut buffer = [0; 4096];
    loop {
        match output.read_timeout(&mut buffer, PATIENCE) {
            Ok(Read::Data(length)) => {
                assert!(numbers(10).windows(length).any(|part| part == &buffer[..length]));
            }
            Err(Error::Worker(WorkerError::ShutDown)) => break,
            other => panic!("{other:?}"),
        }
    }
}

/// Whoever starts a job while another thread shuts down has all of its output, or no job.
#[test]
fn a_job_that_is_started_with_its_reader_is_read_whatever_comes_in_between() {
    for round in 0..rounds(40) {
        let Some(threads) = Threads::new() else { return };
        let starters: Vec<_> = (0..4)
            .map(|_| {
                let worker = threads.worker.clone();
                thread::spawn(move || {
                    let mut started = 0;
                    loop {
                        match worker.spawn_with_output(&sh("echo hello"), Position::Start) {
                            Ok((job, mut output)) => {
                                let mut text = String::new();
                                output.read_to_string(&mut text).unwrap();
                                let whole = text == "hello\n";
                                assert!(whole || job.wait().unwrap().stopped_by.is_some());
                                started += 1;
                            }
                            Err(Error::Worker(WorkerError::ShutDown)) => return started,
                            Err(error) => panic!("{error}"),
                        }
                    }
                })
            })
            .collect();
        until("a job was started", || !threads.worker.jobs().unwrap().is_empty() || round > 0);
        threads.worker.shutdown(Shutdown::Stop, PATIENCE).unwrap();
        let started: usize = starters.into_iter().map(|one| one.join().unwrap()).sum();
        assert!(started > 0 || round > 0);
    }
}

#[test]
fn a_job_whose_output_cannot_be_opened_is_killed_and_removed() {
    let place = Place::new();
    if place.cgroup_or_skip().is_none() {
        return;
    }
    let worker = Worker::with_config(place.config().name("host")).unwrap();
    for survives in [false, true] {
        let mut command = sh("exec sleep 1000");
        command.output(jobworker::Output::Null).survives(survives);
        let error = worker.spawn_with_output(&command, Position::Start).unwrap_err();
        assert!(matches!(error, Error::Tail(TailError::NoLog { .. })), "{error:?}");
        until("it is gone", || worker.census().unwrap().jobs == 0);
    }
}

#[test]
fn a_reader_of_a_job_that_goes_on_hears_of_the_shutdown() {
    let Some(threads) = Threads::new() else { return };
    let mut command = sh("echo ready; exec sleep 1000");
    let opened = threads.worker.spawn_with_output(command.detached(true), Position::Start);
    let (job, mut output) = opened.unwrap();
    assert_eq!(output.read_timeout(&mut [0; 6], PATIENCE).unwrap(), Read::Data(6));
    threads.worker.shutdown(Shutdown::Stop, Duration::ZERO).unwrap();
    let error = output.read_timeout(&mut [0], PATIENCE).unwrap_err();
    assert!(matches!(error, Error::Worker(WorkerError::ShutDown)), "{error}");
    end_group(&threads.place.group(job.id()));
}

/// As of a job that ignores the signal, with a timeout that is as long as its grace period.
#[test]
fn a_reader_of_a_job_that_was_killed_in_the_end_reads_all_of_it() {
    let Some(threads) = Threads::new() else { return };
    let mut command = sh("trap '' TERM; seq 100000; while :; do sleep 1000; done");
    let grace = Duration::from_millis(20);
    let (job, mut output) =
        threads.worker.spawn_with_output(command.grace(grace), Position::Start).unwrap();
    let (log, length) = (log_of(&job), numbers(LAST).len() as u64);
    until("the numbers are written", || fs::metadata(&log).unwrap().len() == length);
    let stopped = threads.worker.shutdown(Shutdown::Stop, grace).unwrap();
    assert!(stopped[0].report.as_ref().unwrap().killed);
    let mut all = Vec::new();
    output.read_to_end(&mut all).unwrap();
    assert!(all == numbers(LAST));
    assert!(job.wait().unwrap().killed);
}
