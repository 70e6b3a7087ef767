//! Tails of one log: what they are told of, and when; growth, truncation, ends.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use crate::id::TailId;
use crate::log::machine::{Call, Interference, Name, byte};
use crate::log::options::{Position, TailOptions};
use crate::log::place::NotOurLog;
use crate::log::read::{Fill, Read};
use crate::log::simulator::Engine;
use crate::log::tests::{data, drain, engine, fail_next, follow, up_to_date};

/// The last tail of a batch filled the host's buffer, and the used-up batch stayed in the
/// queue, so the next poll did not wait and returned no event.
#[test]
fn nothing_is_left_in_the_queue_when_the_last_event_has_just_fitted() {
    let mut engine = engine(0);
    let tail = follow(&mut engine, Position::Start);
    engine.turn(true);
    assert_eq!(up_to_date(&mut engine, tail), []);
    engine.machine().files[0].append(5);
    engine.deliver(0);
    engine.turn(true);
    assert!(!engine.queue.is_empty());
    assert_eq!(engine.emit(), Some((tail, 0)));
    assert!(engine.queue.is_empty());
}

#[test]
fn a_host_that_reads_ahead_of_its_events_does_not_fill_the_queue() {
    let mut engine = engine(0);
    let tail = follow(&mut engine, Position::Start);
    for _ in 0..10 {
        engine.machine().files[0].append(5);
        engine.deliver(0);
        engine.turn(true);
        assert_eq!(up_to_date(&mut engine, tail).len(), 5);
    }
    // The tail is up to date, so there is nothing to report.
    assert_eq!((engine.queued().count(), engine.emit()), (0, None));
}

#[test]
fn no_event_comes_after_the_end_even_if_it_was_queued_before() {
    let mut engine = engine(5);
    let tail = follow(&mut engine, Position::Start);
    engine.finish(0).unwrap();
    assert_eq!(engine.queued().count(), 1);
    let (bytes, answer) = drain(&mut engine, tail);
    assert_eq!((bytes, answer.unwrap()), (data(0, 0..5), Read::Ended));
    assert_eq!(engine.emit(), None);
}

#[test]
fn a_tail_that_has_ended_is_not_told_of_a_later_truncation() {
    let mut engine = engine(5);
    let (ended, other) =
        (follow(&mut engine, Position::Start), follow(&mut engine, Position::Start));
    engine.finish(0).unwrap();
    assert_eq!(drain(&mut engine, ended).1.unwrap(), Read::Ended);
    engine.machine().files[0].rewrite(3);
    follow(&mut engine, Position::End);
    assert_eq!(engine.read(ended, &mut [0; 9]).unwrap(), Read::Ended);
    assert_eq!(engine.read(other, &mut [0; 9]).unwrap(), Read::Truncated);
}

#[test]
fn a_tail_can_be_read_again_after_a_failure() {
    let mut engine = engine(5);
    let tail = follow(&mut engine, Position::End);
    fail_next(&mut engine);
    engine.turn(true);
    assert!(engine.read(tail, &mut [0; 9]).is_err());
    engine.machine().files[0].append(4);
    engine.turn(true);
    assert_eq!(up_to_date(&mut engine, tail), []);
    engine.turn(true);
    assert_eq!(up_to_date(&mut engine, tail), data(0, 5..9));
}

#[test]
fn a_tail_that_is_opened_on_a_log_that_failed_hears_of_it() {
    let mut engine = engine(5);
    let first = follow(&mut engine, Position::End);
    fail_next(&mut engine);
    engine.turn(true);
    let second = follow(&mut engine, Position::End);
    let events: Vec<TailId> = engine.queued().collect();
    assert_eq!(events, [first, second]);
}

#[test]
fn the_end_that_could_not_be_found_is_looked_for_again() {
    let mut engine = engine(5);
    let tail = follow(&mut engine, Position::Start);
    fail_next(&mut engine);
    assert!(engine.finish(0).is_err());
    let (bytes, answer) = drain(&mut engine, tail);
    assert_eq!(bytes, data(0, 0..5));
    assert!(answer.is_err(), "{answer:?}");
    engine.turn(true);
    assert_eq!(engine.read(tail, &mut [0; 9]).unwrap(), Read::Ended);
}

#[test]
fn a_log_that_was_only_followed_from_its_end_on_is_known_to_be_written_anew() {
    let mut engine = engine(50);
    let tail = follow(&mut engine, Position::End);
    engine.machine().files[0].rewrite(60);
    engine.turn(true);
    assert_eq!(drain(&mut engine, tail).1.unwrap(), Read::Truncated);
    assert_eq!(up_to_date(&mut engine, tail), []);
    engine.turn(true);
    assert_eq!(up_to_date(&mut engine, tail), data(1, 0..32));
}

#[test]
fn a_tail_behind_the_window_gets_no_byte_of_a_log_that_was_written_anew_until_it_is_told() {
    for fill in [false, true] {
        let mut engine = engine(200);
        let tail = follow(&mut engine, Position::Start);
        assert_eq!(engine.read(tail, &mut [0; 9]).unwrap(), Read::Data(9));
        engine.machine().files[0].rewrite(300);
        if fill {
            assert_eq!(engine.fill_buf(tail).unwrap(), Fill::Truncated);
        } else {
            assert_eq!(engine.read(tail, &mut [0; 9]).unwrap(), Read::Truncated);
        }
    }
}

/// A snapshot reads up to an end to which the window has yet to come.
#[test]
fn a_tail_before_the_window_is_told_that_the_log_was_shortened_once_the_window_has_come_to_it() {
    let mut engine = engine(0);
    let first = follow(&mut engine, Position::Start);
    assert_eq!(up_to_date(&mut engine, first), []);
    engine.machine().files[0].append(200);
    let mut options = TailOptions::new(Position::Start);
    let snapshot = engine.open(0, *options.snapshot(), 0).unwrap();
    let mut bytes = [0; 150];
    assert_eq!(engine.read(snapshot, &mut bytes).unwrap(), Read::Data(32));
    assert_eq!(engine.read(snapshot, &mut bytes[32..]).unwrap(), Read::Data(118));
    assert_eq!(bytes, *data(0, 0..150));
    engine.machine().files[0].shorten(100, 200);
    // It has seen nothing of the log before.
    let mut all = Vec::new();
    while all.len() < 160 {
        engine.turn(true);
        all.extend(up_to_date(&mut engine, first));
    }
    assert_eq!(all, [data(0, 0..100), data(1, 100..all.len() as u64)].concat());
    assert_eq!(engine.read(snapshot, &mut bytes).unwrap(), Read::Truncated);
    let (bytes, end) = drain(&mut engine, snapshot);
    let expected = [data(0, 0..100), data(1, 100..200)].concat();
    assert_eq!((bytes, end.unwrap()), (expected, Read::Ended));
}

#[test]
fn a_new_tail_gets_nothing_of_what_the_log_was_before_it() {
    for position in [Position::Start, Position::End] {
        let mut engine = engine(50);
        let old = follow(&mut engine, Position::End);
        engine.machine().files[0].rewrite(30);
        let new = follow(&mut engine, position);
        let expected = if position == Position::Start { data(1, 0..30) } else { Vec::new() };
        assert_eq!(up_to_date(&mut engine, new), expected);
        assert_eq!(drain(&mut engine, old).1.unwrap(), Read::Truncated);
    }
}

#[test]
fn a_truncation_that_a_failed_open_has_noticed_is_reported_to_waiting_tails() {
    let mut engine = engine(50);
    let tail = follow(&mut engine, Position::End);
    engine.turn(true);
    engine.machine().script = VecDeque::from([Interference::Rewrite(0), Interference::Fail(5)]);
    assert!(engine.open(0, TailOptions::new(Position::Start), 1).is_err());
    assert_eq!(engine.queued().collect::<Vec<_>>(), [tail]);
    assert_eq!(drain(&mut engine, tail).1.unwrap(), Read::Truncated);
}

#[test]
fn an_end_that_was_read_while_the_log_was_written_anew_is_not_taken_for_the_end() {
    let mut engine = engine(20);
    let tail = follow(&mut engine, Position::Start);
    assert_eq!(engine.read(tail, &mut [0; 5]).unwrap(), Read::Data(5));
    engine.machine().files[0].append(10);
    engine.machine().script = VecDeque::from([Interference::Overtake(25)]);
    assert_eq!(engine.finish(0).unwrap(), 25);
    assert_eq!(drain(&mut engine, tail).1.unwrap(), Read::Truncated);
    let (bytes, answer) = drain(&mut engine, tail);
    assert_eq!((bytes, answer.unwrap()), (data(1, 0..25), Read::Ended));
}

#[test]
fn a_tail_on_a_finished_job_whose_log_has_shrunk_ends_with_the_log() {
    let mut engine = engine(60);
    engine.finish(0).unwrap();
    engine.machine().files[0].size = 40;
    let tail = follow(&mut engine, Position::Start);
    let (bytes, answer) = drain(&mut engine, tail);
    assert_eq!((bytes, answer.unwrap()), (data(0, 0..40), Read::Ended));
}

/// Mutation testing: no test failed when the watch stayed armed, so that every further write
/// woke the reactor for nobody.
#[test]
fn a_watch_that_nobody_waits_for_is_disarmed_by_its_next_event() {
    let mut engine = engine(0);
    let tail = follow(&mut engine, Position::Start);
    engine.turn(true);
    assert!(engine.machine().files[0].is_armed());
    for armed in [true, false] {
        engine.machine().files[0].append(5);
        assert!(engine.deliver(0));
        engine.turn(false);
        assert_eq!(engine.machine().files[0].is_armed(), armed);
    }
    engine.machine().files[0].append(5);
    assert!(!engine.deliver(0), "a disarmed watch has reported growth");
    assert_eq!(up_to_date(&mut engine, tail), data(0, 0..5));
    engine.turn(false);
    assert!(engine.machine().files[0].is_armed());
    assert_eq!(up_to_date(&mut engine, tail), data(0, 5..15));
}

/// A log was hot only if it grew within one pace, so that the watch of a busy log stayed armed
/// beside a host that worked for longer than that on each event, and its writer took twice as
/// long.
#[test]
fn m17_a_busy_log_is_paced_whatever_time_the_host_takes() {
    for work in [50, 150, 250, 1000, 10_000, 100_000].map(Duration::from_micros) {
        let mut engine = Engine::new(1, 64 * 1024);
        engine.create(0);
        let tail = follow(&mut engine, Position::End);
        engine.turn(true);
        let mut armed = Vec::new();
        for _ in 0..10 {
            // A line of 100 bytes each microsecond.
            engine.machine().files[0].append(100 * u64::try_from(work.as_micros()).unwrap());
            engine.deliver(0);
            engine.turn(true);
            engine.sleep(work);
            up_to_date(&mut engine, tail);
            armed.push(engine.machine().files[0].is_armed());
        }
        let times = armed.iter().filter(|armed| **armed).count();
        assert!(times <= 3 && !armed[9], "{work:?}: {armed:?}");
    }
}

#[test]
fn m17_a_quiet_log_stays_armed_and_costs_one_read_for_each_line() {
    let mut engine = Engine::new(1, 64 * 1024);
    engine.create(0);
    let tail = follow(&mut engine, Position::End);
    engine.turn(true);
    up_to_date(&mut engine, tail);
    for line in [100, 120, 30] {
        engine.machine().calls.clear();
        engine.sleep(Duration::from_millis(1));
        engine.machine().files[0].append(line);
        assert!(engine.deliver(0));
        engine.turn(true);
        assert_eq!(up_to_date(&mut engine, tail).len() as u64, line);
        assert_eq!(engine.machine().calls, [Call::ReadAt]);
    }
}

/// A read that was overtaken by a truncation gave old bytes and then new ones, without a word.
#[test]
fn m19_a_read_that_a_truncation_has_overtaken_gives_no_mixture() {
    for (known, held, after) in [(5, 7, 9), (40, 50, 70), (64, 70, 90)] {
        for armed in [false, true] {
            let mut engine = engine(known);
            let tail = follow(&mut engine, Position::Start);
            assert_eq!(up_to_date(&mut engine, tail), data(0, 0..known));
            if armed {
                engine.turn(true);
            }
            engine.machine().files[0].append(held - known);
            engine.deliver(0);
            engine.machine().script = match armed {
                true => VecDeque::from([Interference::Splice(after)]),
                // The first call arms the watch.
                false => VecDeque::from([Interference::Nothing, Interference::Splice(after)]),
            };
            engine.turn(true);
            let case = format!("{known} known of {held}, then {after}, armed before: {armed}");
            let (bytes, answer) = drain(&mut engine, tail);
            assert_eq!((bytes, answer.unwrap()), (Vec::new(), Read::Truncated), "{case}");
            up_to_date(&mut engine, tail);
            while engine.deliver(0) || engine.has_work() {
                engine.turn(true);
            }
            assert_eq!(up_to_date(&mut engine, tail), data(1, 0..after.min(32)), "{case}");
        }
    }
}

/// The loop read everything up to where the tail waited, of a log that may be a hole of any
/// size.
#[test]
fn m14_what_no_tail_waits_for_is_not_read() {
    let mut engine = engine(5);
    let ahead = follow(&mut engine, Position::Offset(1 << 50));
    engine.turn(true);
    engine.machine().files[0].append(1 << 40);
    engine.deliver(0);
    engine.machine().calls.clear();
    while engine.has_work() {
        engine.turn(true);
        assert!(engine.machine().calls.len() < 20, "it reads on and on");
    }
    assert!(engine.machine().files[0].is_armed());
    let size = engine.machine().files[0].size;
    assert_eq!(engine.published(0).1, size);
    engine.machine().files[0].append((1 << 50) + 3 - size);
    while engine.deliver(0) || engine.has_work() {
        engine.turn(true);
        assert!(engine.machine().calls.len() < 40, "it reads on and on");
    }
    assert_eq!(up_to_date(&mut engine, ahead), data(0, 1 << 50..(1 << 50) + 3));
}

/// The call read everything, of a log that may be a hole of any size.
#[test]
fn m4_the_last_lines_are_found_in_turns() {
    const SIZE: u64 = 2_000_000;
    let begin = |lines: u64| {
        let mut newlines = (0..SIZE - 1).rev().filter(|offset| byte(0, *offset) == b'\n');
        newlines.nth(usize::try_from(lines - 1).unwrap()).unwrap() + 1
    };
    for snapshot in [false, true] {
        let mut engine = engine(SIZE);
        let mut options = TailOptions::new(Position::LastLines(170_000));
        if snapshot {
            options.snapshot();
        }
        engine.machine().calls.clear();
        let tail = engine.open(0, options, 7).unwrap();
        let other = follow(&mut engine, Position::End);
        assert!(engine.machine().calls.len() < 30, "{}", engine.machine().calls.len());
        assert_eq!(up_to_date(&mut engine, tail), []);
        let mut turns = 0;
        while engine.queued().all(|queued| queued != tail) {
            assert!(engine.has_work());
            assert_eq!(up_to_date(&mut engine, tail), [], "before its place is known");
            engine.machine().calls.clear();
            engine.turn(false);
            assert!(engine.machine().calls.len() < 30, "{}", engine.machine().calls.len());
            turns += 1;
        }
        assert!(turns > 2, "{turns} turns");
        assert_eq!(engine.emit(), Some((tail, 7)));
        assert_eq!(engine.position(tail), Some(begin(170_000)));
        let (bytes, answer) = drain(&mut engine, tail);
        assert_eq!(bytes, data(0, begin(170_000)..SIZE));
        assert_eq!(answer.unwrap(), if snapshot { Read::Ended } else { Read::UpToDate });
        assert!(engine.close(tail) && engine.close(other));
        engine.turn(true);
        assert!(!engine.has_work());
    }
}

#[test]
fn m4_a_log_that_is_truncated_while_its_last_lines_are_looked_for_is_told() {
    for rewritten in [0, 100, 3_000_000] {
        let mut engine = engine(2_000_000);
        let tail = follow(&mut engine, Position::LastLines(u64::MAX));
        engine.turn(false);
        engine.machine().files[0].rewrite(rewritten);
        while engine.queued().all(|queued| queued != tail) {
            assert!(engine.has_work());
            engine.turn(false);
        }
        assert_eq!(drain(&mut engine, tail).1.unwrap(), Read::Truncated);
        up_to_date(&mut engine, tail);
    }
}

#[test]
fn m4_a_search_for_the_last_lines_that_fails_is_told_and_goes_on() {
    let mut engine = engine(2_000_000);
    let tail = follow(&mut engine, Position::LastLines(u64::MAX));
    engine.turn(false);
    fail_next(&mut engine);
    engine.turn(false);
    assert!(engine.queued().any(|queued| queued == tail));
    engine.turn(true);
    assert!(!engine.has_work(), "nobody has read of the failure");
    assert_eq!(engine.read(tail, &mut [0; 9]).unwrap_err().raw_os_error(), Some(5));
    assert_eq!(up_to_date(&mut engine, tail), []);
    while engine.has_work() {
        engine.turn(false);
    }
    assert_eq!(engine.position(tail), Some(0));
    assert!(engine.queued().any(|queued| queued == tail));
    let closed = follow(&mut engine, Position::LastLines(u64::MAX));
    assert!(engine.close(closed) && engine.close(tail));
    engine.turn(true);
    engine.turn(true);
    assert!(!engine.has_work());
}

/// All tails of all logs were searched for those of the job.
#[test]
fn low_a_log_knows_its_tails_and_forgets_closed_ones() {
    let mut engine = Engine::new(2, 32);
    engine.create(0);
    engine.create(1);
    let start = TailOptions::new(Position::Start);
    let stay: Vec<TailId> = (0..10)
        .flat_map(|token| [0, 1].map(|file| engine.open(file, start, token).unwrap()))
        .collect();
    for token in 0..1000 {
        let tail = engine.open(0, start, token).unwrap();
        assert!(engine.close(tail));
    }
    let known = engine.subscribed(0);
    assert!(known < 40, "{known} tails are known of 10");
    engine.finish(0).unwrap();
    engine.remove(0, false).unwrap();
    for (index, tail) in stay.into_iter().enumerate() {
        assert_eq!(engine.position(tail).is_some(), index % 2 == 1);
    }
    assert_eq!(engine.tails(), 10);
}

/// Mutation testing: no test failed when this growth was announced, and the host read nothing.
#[test]
fn a_tail_is_not_told_of_growth_that_ends_where_it_begins_to_read() {
    let mut engine = engine(5);
    let ahead = follow(&mut engine, Position::Offset(10));
    let tail = follow(&mut engine, Position::End);
    engine.turn(true);
    engine.machine().files[0].append(5);
    engine.deliver(0);
    engine.turn(true);
    assert_eq!(engine.queued().collect::<Vec<_>>(), [tail]);
    assert_eq!(up_to_date(&mut engine, tail), data(0, 5..10));
    engine.machine().files[0].append(1);
    engine.deliver(0);
    engine.turn(true);
    assert_eq!(engine.queued().collect::<Vec<_>>(), [tail, ahead]);
    assert_eq!(up_to_date(&mut engine, ahead), data(0, 10..11));
}

#[test]
fn a_log_that_nobody_reads_is_not_open_and_its_end_is_known_all_the_same() {
    let mut engine = engine(0);
    for closed in 1..=2 {
        engine.machine().files[0].append(7);
        assert_eq!(engine.machine().files[0].open(), 0);
        assert!(!engine.machine().files[0].is_watched());
        let tail = follow(&mut engine, Position::Start);
        assert_eq!(engine.machine().files[0].open(), 1);
        assert!(engine.machine().files[0].is_watched());
        assert!(engine.publishes_file(0));
        assert_eq!(up_to_date(&mut engine, tail), data(0, 0..7 * closed));
        engine.close(tail);
        assert!(!engine.publishes_file(0));
        assert_eq!(engine.published(0), (0, 7 * closed, 0, None));
    }
    engine.machine().files[0].append(7);
    assert_eq!(engine.finish(0).unwrap(), 21);
    assert_eq!(engine.published(0), (0, 21, 0, Some(21)));
    assert_eq!(engine.machine().calls.last(), Some(&Call::Len));
    engine.machine().files[0].append(7);
    let tail = follow(&mut engine, Position::Start);
    let (bytes, answer) = drain(&mut engine, tail);
    assert_eq!((bytes, answer.unwrap()), (data(0, 0..21), Read::Ended));
}

/// The fuzzer found that the earlier end was still assumed, so that the tail reported a
/// truncation that was older than itself.
#[test]
fn a_log_that_shrank_while_nobody_read_it_is_what_it_is_now() {
    for size in [0, 20] {
        let mut engine = engine(40);
        let tail = follow(&mut engine, Position::Start);
        assert_eq!(up_to_date(&mut engine, tail), data(0, 0..40));
        engine.close(tail);
        engine.machine().files[0].rewrite(size);
        let tail = follow(&mut engine, Position::Start);
        assert_eq!(up_to_date(&mut engine, tail), data(1, 0..size));
        assert_eq!(engine.published(0), (0, size, 1, None));
    }
}

#[test]
fn a_tail_that_follows_the_log_of_a_job_as_a_file_outlives_the_job() {
    let mut engine = engine(5);
    let snapshot = *TailOptions::new(Position::Start).snapshot();
    let of_job = [follow(&mut engine, Position::Start), engine.open(0, snapshot, 1).unwrap()];
    let of_file = engine.open_file(0, TailOptions::new(Position::Start), 2).unwrap();
    let part = engine.open_file(0, snapshot, 3).unwrap();
    assert_eq!((engine.machine().files[0].open(), engine.logs()), (1, 1));
    engine.finish(0).unwrap();
    engine.remove(0, false).unwrap();
    assert_eq!(engine.machine().files[0].name, Name::Gone);
    for tail in of_job {
        assert_eq!(engine.position(tail), None);
    }
    engine.machine().files[0].append(3);
    assert_eq!(up_to_date(&mut engine, of_file), data(0, 0..5));
    engine.turn(true);
    assert_eq!(up_to_date(&mut engine, of_file), data(0, 5..8));
    let (bytes, answer) = drain(&mut engine, part);
    assert_eq!((bytes, answer.unwrap()), (data(0, 0..5), Read::Ended));
    assert_eq!((engine.machine().files[0].open(), engine.logs()), (1, 1));
    engine.close(of_file);
    engine.close(part);
    assert_eq!((engine.machine().files[0].open(), engine.logs()), (0, 0));
    assert!(!engine.machine().files[0].is_watched());
}

#[test]
fn a_file_that_is_followed_before_it_is_known_as_a_log_of_a_job_has_one_log() {
    let mut engine = Engine::new(1, 32);
    let of_file = engine.open_file(0, TailOptions::new(Position::Start), 0).unwrap();
    engine.create(0);
    let of_job = follow(&mut engine, Position::Start);
    assert_eq!((engine.machine().files[0].open(), engine.logs()), (1, 1));
    engine.close(of_file);
    engine.close(of_job);
    assert_eq!((engine.machine().files[0].open(), engine.logs()), (0, 1));
    engine.finish(0).unwrap();
    engine.remove(0, true).unwrap();
    assert_eq!((engine.machine().files[0].name, engine.logs()), (Name::Own, 0));
}

#[test]
fn a_log_whose_name_the_job_has_taken_is_not_opened_and_removed_all_the_same() {
    let cases =
        [(Interference::Replace, NotOurLog::Replaced), (Interference::Unlink, NotOurLog::Removed)];
    for (meddling, expected) in cases {
        let check = |error: io::Error| {
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
            let inner = error.into_inner().unwrap().downcast::<NotOurLog>().unwrap();
            assert_eq!(*inner, expected);
        };
        let mut engine = engine(5);
        let tail = follow(&mut engine, Position::Start);
        engine.machine().script = VecDeque::from([meddling]);
        // The file is open, so its name does not matter.
        assert_eq!(up_to_date(&mut engine, tail), data(0, 0..5));
        assert_eq!(up_to_date(&mut engine, tail), []);
        engine.turn(true);
        let other = follow(&mut engine, Position::Start);
        engine.close(tail);
        engine.close(other);
        check(engine.open(0, TailOptions::new(Position::Start), 0).unwrap_err());
        check(engine.finish(0).unwrap_err());
        engine.remove(0, false).unwrap();
        assert_eq!(engine.machine().files[0].name, Name::Gone);
        assert_eq!((engine.machine().files[0].open(), engine.logs()), (0, 0));
    }
}
