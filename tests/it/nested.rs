//! A reactor in another event loop: its one descriptor is readable exactly when `poll(.., ZERO)`
//! has work, for every kind of outer loop. Each scenario is driven by the outer loop alone: a lost
//! wake-up shows as a timeout, a busy loop as too many turns or as readiness without work.

use std::cell::Cell;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;
use std::{fs, io, thread};

use jobworker::{Command, Config, Events, Exit, JobId, Position, Read, StopCause, TailId, Token};
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, epoll};

use crate::support::{PATIENCE, World, append, sh};

/// Long enough for work that was left undone to show: every timer of the reactor is shorter.
const SILENCE: Duration = Duration::from_millis(200);

/// The loop of a host, in which the reactor is one descriptor among others.
pub(crate) enum Outer {
    Level(OwnedFd),
    Edge(OwnedFd),
    Mio(mio::Poll, mio::Events),
    /// poll(2), which registers nothing between two waits: the descriptor is asked for at the first
    /// wait, not before.
    Poll,
}

/// The kinds of outer loops.
pub(crate) const KINDS: [&str; 4] =
    ["level-triggered epoll", "edge-triggered epoll", "mio", "poll(2)"];

impl Outer {
    fn around(kind: &str, world: &mut World) -> Self {
        let epoll_with = |flags| {
            let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
            epoll::add(&epoll, &world.reactor, epoll::EventData::new_u64(1), flags).unwrap();
            epoll
        };
        match kind {
            "level-triggered epoll" => Self::Level(epoll_with(epoll::EventFlags::IN)),
            "edge-triggered epoll" => {
                Self::Edge(epoll_with(epoll::EventFlags::IN | epoll::EventFlags::ET))
            }
            "mio" => {
                let poll = mio::Poll::new().unwrap();
                poll.registry()
                    .register(&mut world.reactor, mio::Token(1), mio::Interest::READABLE)
                    .unwrap();
                Self::Mio(poll, mio::Events::with_capacity(8))
            }
            _ => Self::Poll,
        }
    }

    /// Waits until the reactor's descriptor is readable, and returns `false` when the timeout has
    /// passed.
    fn wait(&mut self, world: &World, timeout: Duration) -> bool {
        loop {
            match self.try_wait(world, timeout) {
                // The process was stopped and continued, so the wait starts again.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other.unwrap(),
            }
        }
    }

    fn try_wait(&mut self, world: &World, timeout: Duration) -> io::Result<bool> {
        let timespec = Timespec::try_from(timeout).unwrap();
        match self {
            Self::Level(epoll) | Self::Edge(epoll) => {
                let mut ready = Vec::with_capacity(8);
                epoll::wait(&*epoll, spare_capacity(&mut ready), Some(&timespec))?;
                Ok(!ready.is_empty())
            }
            Self::Mio(poll, ready) => {
                poll.poll(ready, Some(timeout))?;
                Ok(!ready.is_empty())
            }
            Self::Poll => {
                let mut fds = [PollFd::from_borrowed_fd(world.reactor.as_fd(), PollFlags::IN)];
                Ok(rustix::event::poll(&mut fds, Some(&timespec))? > 0)
            }
        }
    }
}

/// A world in an outer loop.
pub(crate) struct Nested {
    pub(crate) world: World,
    outer: Outer,
    kind: &'static str,
    /// How often the descriptor became readable.
    wake_ups: usize,
}

impl Nested {
    /// A world in a loop of this kind.
    pub(crate) fn inside(kind: &'static str, change: impl FnOnce(&mut Config)) -> Option<Self> {
        let mut world = World::with(change)?;
        let outer = Outer::around(kind, &mut world);
        Some(Self { world, outer, kind, wake_ups: 0 })
    }

    /// Runs turns, each only once the descriptor is readable, until a condition holds.
    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, mut condition: impl FnMut(&mut World) -> bool) {
        while !condition(&mut self.world) {
            assert!(
                self.outer.wait(&self.world, PATIENCE),
                "{}: lost wake-up: timed out waiting until {what}",
                self.kind
            );
            self.wake_ups += 1;
            self.world.turn(Some(Duration::ZERO));
        }
    }

    /// Runs turns, at least one, until there is an event.
    #[track_caller]
    fn event(&mut self, what: &str) {
        self.world.events = Events::with_capacity(self.world.events.capacity());
        self.until(what, |world| !world.events.is_empty());
    }

    #[track_caller]
    pub(crate) fn finish(&mut self, job: JobId) {
        self.until("the job is finished", |world| world.finished.contains_key(&job));
    }

    /// Runs turns while there is internal work, and checks that the descriptor is not readable
    /// afterwards.
    #[track_caller]
    fn silent(&mut self) {
        let mut housekeeping = 0;
        while self.outer.wait(&self.world, SILENCE) {
            housekeeping += 1;
            assert!(housekeeping < 20, "{}: readable again and again without an event", self.kind);
            self.world.turn(Some(Duration::ZERO));
            assert!(
                self.world.events.is_empty(),
                "{}: unexpected {:?}",
                self.kind,
                self.world.events
            );
        }
    }
}

/// Runs a scenario in each kind of outer loop.
pub(crate) fn in_every_loop(change: impl Fn(&mut Config), scenario: impl Fn(&mut Nested)) {
    for kind in KINDS {
        let Some(mut nested) = Nested::inside(kind, &change) else { return };
        scenario(&mut nested);
        nested.silent();
        // A descriptor that was not readable must still become readable.
        let waker = nested.world.reactor.waker();
        thread::spawn(move || waker.wake().unwrap()).join().unwrap();
        let woken = nested.world.woken;
        nested.until("it was woken", |world| world.woken > woken);
    }
}

fn file_with(world: &World, content: &str) -> PathBuf {
    let path = world.place.dir.path().join("file.log");
    fs::write(&path, content).unwrap();
    path
}

fn bytes(world: &World, tail: TailId) -> usize {
    world.transcripts[&tail].bytes.len()
}

#[test]
fn a_reactor_without_work_is_not_readable() {
    in_every_loop(|_| {}, Nested::silent);
}

#[test]
fn a_job_that_prints_line_by_line_is_followed_to_its_end() {
    in_every_loop(
        |_| {},
        |nested| {
            let job =
                nested.world.spawn(&sh("for i in 1 2 3; do echo $i; sleep 0.02; done; printf end"));
            let tail = nested.world.tail(job, Position::Start);
            nested.finish(job);
            nested.until("the tail has ended", |world| world.transcripts[&tail].ended);
            assert_eq!(nested.world.text(tail), "1\n2\n3\nend");
            assert!(nested.wake_ups < 100, "{}: {} wake-ups", nested.kind, nested.wake_ups);
        },
    );
}

#[test]
fn a_hot_log_is_followed_to_its_end_with_and_without_pacing() {
    const LINES: usize = 3000;
    for pace in [Duration::ZERO, Duration::from_micros(200), Duration::from_millis(20)] {
        in_every_loop(
            |config| {
                config.pace(pace);
            },
            |nested| {
                let job = nested
                    .world
                    .spawn(&sh("i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done"));
                let tail = nested.world.tail(job, Position::Start);
                nested.finish(job);
                nested.until("the tail has ended", |world| world.transcripts[&tail].ended);
                let expected: String = (0..LINES).map(|line| format!("line {line}\n")).collect();
                assert!(
                    nested.world.text(tail) == expected,
                    "{}: other bytes than were written",
                    nested.kind
                );
                // A line can cost one wake-up that reads it and one that finds the log quiet again.
                assert!(
                    nested.wake_ups < 2 * LINES + 100,
                    "{}: {} wake-ups",
                    nested.kind,
                    nested.wake_ups
                );
            },
        );
    }
}

#[test]
fn a_hot_log_that_goes_quiet_is_silent_but_not_forgotten() {
    in_every_loop(
        |config| {
            config.pace(Duration::from_millis(50));
        },
        |nested| {
            let path = file_with(&nested.world, "");
            let tail = nested.world.tail_file(&path, Position::Start);
            for round in 1..=3 {
                // Each less than a pace after the last, which makes the log hot.
                for line in 1..=6 {
                    append(&path, "line\n");
                    nested.until("the line is there", |world| {
                        bytes(world, tail) == 5 * (7 * (round - 1) + line)
                    });
                }
                nested.silent();
                append(&path, "line\n");
                nested.until("the line after the silence is there", |world| {
                    bytes(world, tail) == 35 * round
                });
            }
        },
    );
}

#[test]
fn a_grace_period_that_ends_is_reported() {
    in_every_loop(
        |_| {},
        |nested| {
            let job =
                nested.world.spawn(&sh("trap '' TERM; echo ready; while :; do sleep 100; done"));
            let tail = nested.world.tail(job, Position::Start);
            nested.until("the job ignores the signal", |world| bytes(world, tail) > 0);
            // Outside of `poll`, as from the host's own code.
            nested.world.reactor.stop_within(job, Duration::from_millis(30)).unwrap();
            nested.finish(job);
            assert!(nested.world.finished[&job].killed);
            assert_eq!(nested.world.finished[&job].stopped_by, Some(StopCause::Stop));
            assert!(nested.wake_ups < 50, "{}: {} wake-ups", nested.kind, nested.wake_ups);
        },
    );
}

#[test]
fn a_time_limit_that_ends_is_reported() {
    in_every_loop(
        |_| {},
        |nested| {
            let mut command = Command::new("sleep");
            command.arg("100").time_limit(Duration::from_micros(30_500));
            let job = nested.world.spawn(&command);
            nested.finish(job);
            assert_eq!(nested.world.finished[&job].stopped_by, Some(StopCause::TimeLimit));
            assert!(nested.wake_ups < 20, "{}: {} wake-ups", nested.kind, nested.wake_ups);
        },
    );
}

#[test]
fn a_stop_outside_of_poll_is_followed_by_the_end() {
    in_every_loop(
        |_| {},
        |nested| {
            let job = nested.world.spawn(Command::new("sleep").arg("100"));
            nested.silent();
            nested.world.reactor.stop(job).unwrap();
            nested.finish(job);
            assert!(matches!(nested.world.exited[&job], Exit::Signal { .. }));
        },
    );
}

#[test]
fn events_that_found_no_room_are_reported_at_once() {
    in_every_loop(
        |_| {},
        |nested| {
            nested.world.events = Events::with_capacity(1);
            let path = file_with(&nested.world, "");
            let tails: Vec<TailId> =
                (0..50).map(|_| nested.world.tail_file(&path, Position::End)).collect();
            nested.silent();
            for round in 1..=3 {
                append(&path, "line\n");
                nested.until("every tail has the line", |world| {
                    tails.iter().all(|tail| bytes(world, *tail) == round * 5)
                });
            }
            assert!(nested.wake_ups < 400, "{}: {} wake-ups", nested.kind, nested.wake_ups);
        },
    );
}

#[test]
fn a_tail_that_becomes_up_to_date_outside_of_poll_hears_of_the_next_line() {
    in_every_loop(
        |_| {},
        |nested| {
            let path = file_with(&nested.world, "old\n");
            // A tail that the world does not read by itself.
            let tail = nested.world.reactor.tail_file(&path, Position::Start, Token(7)).unwrap();
            let mut buffer = [0; 64];
            for round in 0..20 {
                nested.event("the tail is readable");
                assert_eq!(
                    nested.world.reactor.read(tail, &mut buffer).unwrap(),
                    Read::Data(4),
                    "round {round}"
                );
                // Written before the reactor knows that the tail waits, or after.
                if round % 2 == 0 {
                    append(&path, "new\n");
                }
                assert_eq!(
                    nested.world.reactor.read(tail, &mut buffer).unwrap(),
                    Read::UpToDate,
                    "round {round}"
                );
                if round % 2 == 1 {
                    append(&path, "new\n");
                }
            }
            nested.event("the tail is readable");
        },
    );
}

#[test]
fn a_tail_opened_outside_of_poll_is_reported() {
    in_every_loop(
        |_| {},
        |nested| {
            let path = file_with(&nested.world, "");
            nested.silent();
            let waits = nested.world.tail_file(&path, Position::End);
            append(&path, "after\n");
            nested.until("the waiting tail has its line", |world| bytes(world, waits) == 6);
            nested.silent();
            let reads = nested.world.tail_file(&path, Position::Start);
            nested
                .until("the tail on the full file has its line", |world| bytes(world, reads) == 6);
        },
    );
}

#[test]
fn a_closed_tail_leaves_no_readiness_behind() {
    in_every_loop(
        |_| {},
        |nested| {
            let path = file_with(&nested.world, "bytes\n");
            for _ in 0..20 {
                let tail =
                    nested.world.reactor.tail_file(&path, Position::Start, Token(0)).unwrap();
                nested.world.reactor.close(tail).unwrap();
            }
            nested.silent();
        },
    );
}

#[test]
fn work_from_before_the_descriptor_was_asked_for_is_reported() {
    for kind in KINDS {
        for what in ["a tail", "a time limit"] {
            let Some(mut world) = World::new() else { return };
            let path = file_with(&world, "bytes\n");
            let (tail, job) = (Cell::new(None), Cell::new(None));
            if what == "a tail" {
                tail.set(Some(world.tail_file(&path, Position::Start)));
            } else {
                job.set(Some(world.spawn(
                    Command::new("sleep").arg("100").time_limit(Duration::from_millis(20)),
                )));
            }
            let outer = Outer::around(kind, &mut world);
            let mut nested = Nested { world, outer, kind, wake_ups: 0 };
            nested.until(what, |world| {
                tail.get().is_none_or(|tail| bytes(world, tail) == 6)
                    && job.get().is_none_or(|job| world.finished.contains_key(&job))
            });
            nested.silent();
        }
    }
}

#[test]
fn a_descriptor_that_was_registered_anew_works_as_before() {
    let Some(mut world) = World::new() else { return };
    let mut outer = Outer::around("mio", &mut world);
    let Outer::Mio(poll, _) = &mut outer else { unreachable!() };
    poll.registry().reregister(&mut world.reactor, mio::Token(2), mio::Interest::READABLE).unwrap();
    poll.registry().deregister(&mut world.reactor).unwrap();
    poll.registry().register(&mut world.reactor, mio::Token(3), mio::Interest::READABLE).unwrap();
    let mut nested = Nested { world, outer, kind: "mio", wake_ups: 0 };
    let job = nested.world.spawn(&Command::new("true"));
    nested.finish(job);
    nested.silent();
}
