//! Fan-out and fairness: ten thousand tails need no more watches and threads than one, and a loud
//! job does not starve a quiet one.

use std::fs::{self, File};
use std::io::Write;
use std::time::Duration;

use jobworker::{Command, Exit, Position, TailId};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::retry_on_intr;

use crate::support::{World, alone, append};

const TAILS: usize = 10_000;

/// How often this thread has gone to sleep so far.
fn sleeps() -> u64 {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).unwrap();
    line.rsplit('\t').next().unwrap().parse().unwrap()
}

fn count(directory: &str) -> usize {
    fs::read_dir(directory).unwrap().count()
}

#[test]
fn ten_thousand_tails_on_one_job_cost_two_descriptors_one_thread_and_no_wake_up_in_silence() {
    if !alone!() {
        return;
    }
    // Ten lines, each written less than a pace after the last, make the log hot. Its pacing must
    // end as well.
    let Some(mut world) = World::with(|config| {
        config.pace(Duration::from_millis(100));
    }) else {
        return;
    };
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let mut input = File::from(write);
    // From here on only `cat` holds the read end.
    let job = world.spawn(Command::new("cat").stdin_fd(read));
    let mut tails: Vec<TailId> = vec![world.tail(job, Position::Start)];
    let (fds, threads) = (count("/proc/self/fd"), count("/proc/self/task"));
    tails.extend((1..TAILS).map(|_| world.tail(job, Position::Start)));

    let mut expected = String::new();
    for line in 0..10 {
        let text = format!("line {line}\n");
        input.write_all(text.as_bytes()).unwrap();
        expected.push_str(&text);
        world.until("every tail has the line", |world| {
            tails.iter().all(|tail| world.transcripts[tail].bytes.len() == expected.len())
        });
    }
    assert!(
        count("/proc/self/fd") <= fds + 2,
        "{} descriptors instead of {fds}",
        count("/proc/self/fd")
    );
    assert_eq!(count("/proc/self/task"), threads);
    assert_eq!((world.reactor.census().tails, world.reactor.census().watches), (TAILS, 1));

    // For the work that is left after the last line, such as finding that a hot log is quiet again.
    world.turn(Some(Duration::from_millis(500)));
    assert!(world.events.is_empty(), "{:?}", world.events);
    let outer = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    epoll::add(&outer, &world.reactor, epoll::EventData::new_u64(0), epoll::EventFlags::IN)
        .unwrap();
    let before = sleeps();
    let mut ready = Vec::with_capacity(1);
    let timeout = Timespec { tv_sec: 3, tv_nsec: 0 };
    retry_on_intr(|| epoll::wait(&outer, spare_capacity(&mut ready), Some(&timeout))).unwrap();
    assert!(ready.is_empty(), "woken in silence");
    // One is the wait itself; others are the kernel's own, such as for a page that has to be read.
    assert!(
        sleeps() - before <= 3,
        "slept {} times in three seconds of silence",
        sleeps() - before
    );
    // The same when the reactor itself waits.
    let before = sleeps();
    world.turn(Some(Duration::from_secs(1)));
    assert!(world.events.is_empty());
    assert!(sleeps() - before <= 3, "slept {} times in one second of silence", sleeps() - before);

    input.write_all(b"end").unwrap();
    expected.push_str("end");
    drop(input);
    world.finish(job);
    world.until("every tail has ended", |world| {
        tails.iter().all(|tail| world.transcripts[tail].ended)
    });
    for tail in &tails {
        assert!(
            world.transcripts[tail].bytes == expected.as_bytes(),
            "{:?} has other bytes",
            world.text(*tail)
        );
    }
    world.reactor.remove(job).unwrap();
    assert_eq!(world.reactor.census().tails, 0);
}

#[test]
fn a_job_that_never_pauses_does_not_starve_a_quiet_log() {
    const WINDOW: usize = 4096;
    for pace in [Duration::ZERO, Duration::from_micros(200)] {
        let Some(mut world) = World::with(|config| {
            config.window_bytes(WINDOW).pace(pace);
        }) else {
            return;
        };
        let path = world.place.dir.path().join("quiet.log");
        fs::write(&path, "").unwrap();
        let quiet = world.tail_file(&path, Position::End);
        let job = world.spawn(&Command::new("yes"));
        let loud = world.tail(job, Position::Start);
        let loudness = |world: &World| world.transcripts[&loud].bytes.len();
        world.until("the job is loud", |world| loudness(world) > 10 * WINDOW);
        let before = loudness(&world);
        for line in 1..=50 {
            append(&path, "line\n");
            let mut turns = 0;
            while world.transcripts[&quiet].bytes.len() < 5 * line {
                let loud_before = loudness(&world);
                world.turn(Some(Duration::from_secs(5)));
                // No turn reads more of the loud log than its budget.
                assert!(
                    loudness(&world) - loud_before <= WINDOW,
                    "{}",
                    loudness(&world) - loud_before
                );
                turns += 1;
                // Without pacing, one of the next turns has it; with pacing, it can take all turns
                // until the pace is over.
                assert!(
                    !pace.is_zero() || turns <= 3,
                    "the quiet log had to wait for {turns} turns"
                );
                assert!(turns < 10_000, "the quiet log starves");
            }
        }
        world.until("the loud job goes on too", |world| loudness(world) > before + 10 * WINDOW);
        // What is written until the kill is left unread, because it may be a lot.
        world.reactor.close(loud).unwrap();
        world.reactor.kill(job).unwrap();
        let report = world.finish(job);
        assert!(matches!(report.exit, Exit::Signal { .. }));
        world.reactor.remove(job).unwrap();
    }
}
