//! Logs that are kept short.

use std::collections::VecDeque;

use rustix::io::Errno;

use crate::id::TailId;
use crate::log::machine::{Call, Interference};
use crate::log::options::{Position, TailOptions};
use crate::log::read::{Fill, Read};
use crate::log::simulator::Engine;
use crate::log::tests::host::Host;
use crate::log::tests::{data, drain, errnos, follow, up_to_date};

/// A job of which the newest 20 bytes are kept, and at most 10 more, with so many.
fn short(size: u64) -> Engine {
    let mut engine = Engine::new(1, 32);
    engine.create_short(0, 20, 10);
    engine.turn(false);
    write(&mut engine, size);
    engine
}

/// A writer appends so many bytes, and everything is done about it.
fn write(engine: &mut Engine, amount: u64) {
    engine.machine().files[0].append(amount);
    while engine.deliver(0) || engine.has_work() {
        engine.turn(true);
    }
}

/// Reads all that is there, turn by turn.
fn read_on(engine: &mut Engine, tail: TailId) -> Vec<u8> {
    let mut bytes = up_to_date(engine, tail);
    loop {
        write(engine, 0);
        match up_to_date(engine, tail) {
            more if more.is_empty() => return bytes,
            more => bytes.extend(more),
        }
    }
}

#[test]
fn a_log_that_nobody_reads_is_kept_short_and_then_costs_nothing() {
    let mut engine = short(0);
    assert!(engine.machine().files[0].is_armed() && !engine.has_work());
    for (amount, start, size) in [(29, 0, 29), (1, 10, 30), (9, 10, 39), (500, 519, 539)] {
        write(&mut engine, amount);
        assert_eq!(engine.span(0), Some(start..size));
        assert_eq!(engine.machine().files[0].allocated(), size - start);
        assert!(engine.machine().files[0].is_armed() && !engine.has_work());
    }
    engine.machine().calls.clear();
    engine.turn(true);
    assert_eq!(engine.machine().calls, []);
    assert_eq!(engine.finish(0).unwrap(), 539);
    assert_eq!(engine.machine().files[0].open(), 0);
    assert!(!engine.machine().files[0].is_watched());
    engine.remove(0, true).unwrap();
    assert_eq!(engine.logs(), 0);
}

#[test]
fn a_log_that_grows_all_the_time_is_looked_at_by_a_timer() {
    let mut engine = short(0);
    engine.machine().files[0].append(5);
    assert!(engine.deliver(0));
    engine.turn(false);
    for _ in 0..10 {
        engine.machine().files[0].append(100);
        assert!(!engine.deliver(0), "the watch makes its writer slower");
        engine.machine().calls.clear();
        engine.turn(true);
        assert!(!engine.machine().calls.contains(&Call::SetArmed));
        assert!(engine.machine().files[0].allocated() < 30);
    }
}

#[test]
fn a_tail_hears_how_many_bytes_are_gone_and_goes_on_behind_them() {
    for fill in [false, true] {
        let mut engine = short(25);
        let tail = follow(&mut engine, Position::Start);
        assert_eq!(engine.read(tail, &mut [0; 9]).unwrap(), Read::Data(9));
        write(&mut engine, 100);
        let bytes = 105 - 9;
        match fill {
            true => assert_eq!(engine.fill_buf(tail).unwrap(), Fill::Skipped { bytes }),
            false => {
                assert_eq!(engine.read(tail, &mut [0; 9]).unwrap(), Read::Skipped { bytes });
            }
        }
        assert_eq!(up_to_date(&mut engine, tail), data(0, 105..125));
        // Whoever keeps up misses nothing.
        for _ in 0..20 {
            let size = engine.machine().files[0].size;
            write(&mut engine, 7);
            assert_eq!(up_to_date(&mut engine, tail), data(0, size..size + 7));
        }
        assert!(engine.machine().files[0].allocated() < 30);
    }
}

#[test]
fn a_new_tail_begins_at_the_first_byte_that_was_kept() {
    let mut engine = short(125);
    let snapshot = |position| *TailOptions::new(position).snapshot();
    for (position, skipped, start) in [
        (Position::Start, None, 105),
        (Position::LastLines(1), None, 122),
        (Position::LastLines(2), None, 111),
        (Position::LastLines(9), None, 105),
        (Position::Offset(110), None, 110),
        (Position::Offset(7), Some(98), 105),
    ] {
        let tail = engine.open(0, snapshot(position), 0).unwrap();
        if let Some(bytes) = skipped {
            assert_eq!(engine.read(tail, &mut [0; 9]).unwrap(), Read::Skipped { bytes });
        }
        let (bytes, answer) = drain(&mut engine, tail);
        assert_eq!((bytes, answer.unwrap()), (data(0, start..125), Read::Ended), "{position:?}");
        engine.close(tail);
    }
}

#[test]
fn a_snapshot_of_which_nothing_was_kept_says_so_and_ends() {
    let mut engine = short(25);
    let tail = engine.open(0, *TailOptions::new(Position::Start).snapshot(), 0).unwrap();
    let lines = engine.open(0, *TailOptions::new(Position::LastLines(1)).snapshot(), 0).unwrap();
    let from = engine.position(lines).unwrap();
    write(&mut engine, 1000);
    for (tail, bytes) in [(tail, 25), (lines, 25 - from)] {
        assert_eq!(engine.read(tail, &mut [0; 9]).unwrap(), Read::Skipped { bytes });
        assert_eq!(engine.read(tail, &mut [0; 9]).unwrap(), Read::Ended);
    }
}

#[test]
fn a_log_that_is_kept_short_and_truncated_is_told_of_as_any_other() {
    for read in [false, true] {
        let mut engine = short(125);
        let tail = follow(&mut engine, Position::Start);
        if read {
            assert_eq!(up_to_date(&mut engine, tail), data(0, 105..125));
            engine.turn(true);
        }
        engine.machine().files[0].rewrite(300);
        write(&mut engine, 0);
        assert_eq!(drain(&mut engine, tail).1.unwrap(), Read::Truncated);
        let skipped = Read::Skipped { bytes: 280 };
        assert_eq!(engine.read(tail, &mut [0; 9]).unwrap(), skipped, "read before: {read}");
        assert_eq!(up_to_date(&mut engine, tail), data(1, 280..300));
    }
}

/// What is left of the hole is not read, and everything else that is left is.
#[test]
fn a_log_that_was_only_made_shorter_begins_behind_its_hole() {
    for read in [false, true] {
        // Within the hole, at its end, and behind that.
        for (left, more) in [(3, 9), (50, 0), (50, 40), (105, 5), (110, 0), (110, 9)] {
            let mut engine = short(125);
            let tail = follow(&mut engine, Position::Start);
            if read {
                assert_eq!(up_to_date(&mut engine, tail), data(0, 105..125));
                engine.turn(true);
            }
            let case = format!("{left}, then {more}, read before: {read}");
            engine.machine().files[0].shorten(left, 0);
            write(&mut engine, 0);
            write(&mut engine, more);
            assert_eq!(drain(&mut engine, tail).1.unwrap(), Read::Truncated, "{case}");
            let size = left + more;
            let hole = left.min(105);
            let start = if size - hole < 30 { hole } else { size - 20 };
            assert_eq!(engine.span(0), Some(start..size), "{case}");
            let skipped = engine.read(tail, &mut [0; 9]).unwrap();
            assert_eq!(skipped, Read::Skipped { bytes: start }, "{case}");
            let content = &engine.machine().files[0];
            let expected: Vec<u8> = (start..size).map(|at| content.byte(at)).collect();
            assert!(!expected.contains(&0), "{case}");
            assert_eq!(read_on(&mut engine, tail), expected, "{case}");
            let late = follow(&mut engine, Position::Start);
            assert_eq!(read_on(&mut engine, late), expected, "{case}");
            assert_eq!(engine.published(0).2, 1, "{case}");
        }
    }
}

/// What a tail has read last is no proof any more when it is given back.
#[test]
fn a_tail_that_was_nearly_left_behind_reads_on() {
    let mut engine = Engine::new(1, 32);
    engine.create_short(0, 60, 10);
    engine.turn(false);
    write(&mut engine, 200);
    assert_eq!(engine.span(0), Some(140..200));
    let tail = follow(&mut engine, Position::Start);
    assert_eq!(engine.read(tail, &mut [0; 12]).unwrap(), Read::Data(12));
    write(&mut engine, 10);
    assert_eq!(engine.span(0), Some(150..210));
    assert_eq!(up_to_date(&mut engine, tail), data(0, 152..200));
    write(&mut engine, 0);
    assert_eq!(up_to_date(&mut engine, tail), data(0, 200..210));
}

#[test]
fn nothing_is_kept_of_the_oldest_finished_log_when_all_have_too_much() {
    for read in [false, true] {
        let mut engine = Engine::with_total(3, 32, Some(250));
        (0..3).for_each(|file| {
            engine.create(file);
            engine.machine().files[file].append(100);
        });
        let start = TailOptions::new(Position::Start);
        let tail = read.then(|| engine.open(1, start, 0).unwrap());
        if let Some(tail) = tail {
            assert_eq!(engine.read(tail, &mut [0; 7]).unwrap(), Read::Data(7));
        }
        // The first one runs on.
        for file in [1, 2] {
            engine.finish(file).unwrap();
        }
        engine.turn(true);
        assert!(!engine.has_work(), "there is room for both");
        engine.finish(0).unwrap();
        while engine.has_work() {
            engine.turn(true);
        }
        assert_eq!([0, 1, 2].map(|file| engine.span(file).unwrap().start), [0, 100, 0]);
        // But for the bytes by which it is known again.
        assert_eq!(engine.machine().files[1].allocated(), 16);
        if let Some(tail) = tail {
            assert_eq!(engine.read(tail, &mut [0; 9]).unwrap(), Read::Skipped { bytes: 93 });
            assert_eq!(engine.read(tail, &mut [0; 9]).unwrap(), Read::Ended);
            engine.close(tail);
        }
        let late = engine.open(1, TailOptions::new(Position::Offset(50)), 0).unwrap();
        assert_eq!(engine.read(late, &mut [0; 9]).unwrap(), Read::Skipped { bytes: 50 });
        assert_eq!(engine.read(late, &mut [0; 9]).unwrap(), Read::Ended);
        engine.close(late);
        assert_eq!(engine.machine().files[1].open(), 0);
        (0..3).for_each(|file| engine.remove(file, false).unwrap());
        assert_eq!(engine.logs(), 0);
    }
}

/// What is given back by a call that a truncation has overtaken is a part of the new content.
#[test]
fn what_is_given_back_of_another_content_is_told() {
    for size in [3, 15, 50, 200] {
        let mut engine = short(0);
        let tail = follow(&mut engine, Position::Start);
        engine.machine().files[0].append(60);
        engine.deliver(0);
        engine.machine().calls.clear();
        let mut probe = short(0);
        follow(&mut probe, Position::Start);
        probe.machine().files[0].append(60);
        probe.deliver(0);
        probe.machine().calls.clear();
        probe.turn(false);
        let punch = probe.machine().calls.iter().position(|call| *call == Call::Punch).unwrap();
        let mut script: VecDeque<_> = std::iter::repeat_n(Interference::Nothing, punch).collect();
        script.push_back(Interference::Rewrite(size));
        engine.machine().script = script;
        engine.turn(false);
        write(&mut engine, 0);
        assert_eq!(drain(&mut engine, tail).1.unwrap(), Read::Truncated, "{size}");
        let start = engine.span(0).unwrap().start;
        if start > 0 {
            let skipped = engine.read(tail, &mut [0; 9]).unwrap();
            assert_eq!(skipped, Read::Skipped { bytes: start }, "{size}");
        }
        assert_eq!(read_on(&mut engine, tail), data(1, start..size));
    }
}

/// It was taken for one of which everything was given back already: it was truncated when that
/// was looked for, and had the same size at the next look.
#[test]
fn a_log_that_is_written_anew_to_the_same_size_between_two_looks_is_kept_short() {
    let mut engine = short(0);
    engine.machine().files[0].append(60);
    engine.deliver(0);
    let (measure, skip) = (Interference::Nothing, Interference::Nothing);
    engine.machine().script = VecDeque::from([measure, skip, Interference::Rewrite(0)]);
    engine.turn(false);
    assert_eq!(engine.machine().files[0].size, 0);
    engine.machine().files[0].append(60);
    write(&mut engine, 0);
    assert_eq!(engine.machine().files[0].allocated(), 20);
}

#[test]
fn what_cannot_be_given_back_is_tried_again_later_and_is_a_problem_of_the_job() {
    let mut engine = short(25);
    engine.machine().files[0].append(100);
    engine.deliver(0);
    for _ in 0..50 {
        engine.machine().script = std::iter::repeat_n(Interference::Fail(5), 9).collect();
        engine.turn(false);
    }
    assert!(engine.machine().files[0].allocated() > 100);
    engine.machine().script.clear();
    write(&mut engine, 0);
    assert_eq!(engine.machine().files[0].allocated(), 20);
    assert_eq!(engine.finish(0).unwrap(), 125);
    assert_eq!(engine.problem(0).unwrap().raw_os_error(), Some(5));
    assert!(engine.problem(0).is_none());
}

#[test]
fn a_log_that_cannot_be_watched_is_looked_at_by_the_timer() {
    let mut engine = Engine::new(1, 32);
    engine.create_short(0, 20, 10);
    for _ in 0..9 {
        engine.machine().files[0].append(50);
        let measure = [Interference::Nothing, Interference::Fail(28)];
        engine.machine().script = measure.into_iter().cycle().take(20).collect();
        engine.turn(true);
        engine.machine().script.clear();
        engine.turn(true);
        assert!(engine.has_work());
    }
    assert!(engine.machine().files[0].allocated() < 30);
    assert_eq!(engine.problem(0).unwrap().raw_os_error(), Some(28));
}

/// Sending cannot check what it has taken from the file.
#[test]
fn whoever_reads_a_log_elsewhere_knows_whether_bytes_may_be_given_back() {
    let mut engine = short(15);
    let tail = follow(&mut engine, Position::Start);
    assert_eq!(engine.may_be_given_back(tail), Some(true));
    let mut engine = Engine::new(1, 32);
    engine.create(0);
    write(&mut engine, 15);
    let tail = follow(&mut engine, Position::Start);
    assert_eq!(engine.may_be_given_back(tail), Some(false));
}

#[test]
fn a_limit_is_exceeded_by_one_byte_more_and_is_told_once() {
    for (amount, exceeded) in [(40, false), (41, true)] {
        let mut engine = Engine::new(1, 32);
        engine.create_limited(0, u64::MAX, 10, Some(40));
        engine.turn(false);
        write(&mut engine, amount);
        assert_eq!(engine.take_exceeded(0), exceeded, "{amount}");
        assert!(!engine.take_exceeded(0));
        write(&mut engine, 1);
        assert_eq!(engine.take_exceeded(0), !exceeded, "{amount} and one more");
    }
}

/// The watch of a log makes each write of its job slower.
#[test]
fn a_log_beyond_its_limit_is_watched_no_more_while_it_grows() {
    let mut engine = Engine::new(1, 32);
    engine.create_limited(0, u64::MAX, 10, Some(40));
    let tail = follow(&mut engine, Position::Start);
    engine.turn(false);
    write(&mut engine, 40);
    up_to_date(&mut engine, tail);
    assert!(engine.machine().files[0].is_armed());
    engine.machine().files[0].append(5);
    while engine.deliver(0) {
        engine.turn(false);
    }
    assert!(!engine.machine().files[0].is_armed());
}

#[test]
fn what_comes_beyond_a_limit_is_discarded_and_not_read() {
    for read in [false, true] {
        let mut engine = Engine::new(1, 32);
        engine.create_limited(0, u64::MAX, 10, Some(40));
        engine.turn(false);
        let tail = read.then(|| follow(&mut engine, Position::Start));
        let mut bytes = Vec::new();
        for _ in 0..20 {
            write(&mut engine, 9);
            bytes.extend(tail.map_or(Vec::new(), |tail| up_to_date(&mut engine, tail)));
            assert!(engine.machine().files[0].allocated() < 40 + 10);
        }
        assert!(!engine.has_work() && engine.machine().files[0].is_armed());
        assert_eq!(engine.span(0), Some(0..40));
        if read {
            assert_eq!(bytes, data(0, 0..40));
        }
        assert_eq!(engine.finish(0).unwrap(), 40);
        let late = follow(&mut engine, Position::Start);
        for tail in tail.into_iter().chain([late]) {
            let (rest, answer) = drain(&mut engine, tail);
            assert_eq!(answer.unwrap(), Read::Ended);
            assert!(tail != late || rest == data(0, 0..40));
            engine.close(tail);
        }
        assert_eq!(engine.machine().files[0].open(), 0);
    }
}

/// Runs a job of which little is kept, with a tail that is read now and then. The call with
/// the index in `failing` fails.
fn live_short(failing: Option<(usize, Errno)>) -> Vec<Call> {
    let mut host = Host::new(1, failing);
    host.engine.create_short(0, 20, 10);
    let tail = host.open(|engine| engine.open(0, TailOptions::new(Position::Start), 0));
    let mut offset = 0;
    let mut read = |host: &mut Host, expected: &[Read]| loop {
        let (bytes, answer) = host.drain(tail);
        let end = offset + bytes.len() as u64;
        assert_eq!(bytes, data(0, offset..end), "{failing:?}");
        offset = end;
        match answer {
            Read::Skipped { bytes } => offset += bytes,
            answer => break assert!(expected.contains(&answer), "{failing:?}: {answer:?}"),
        }
    };
    let grow = |host: &mut Host, amount: u64| {
        host.engine.machine().files[0].append(amount);
        host.engine.deliver(0);
        host.engine.turn(true);
    };
    for (amount, is_read) in
        [(5, true), (40, false), (3, true), (3, true), (300, true), (0, true), (100, false)]
    {
        grow(&mut host, amount);
        grow(&mut host, 0);
        if is_read {
            read(&mut host, &[Read::UpToDate]);
        }
    }
    host.finish(0);
    read(&mut host, &[Read::Ended]);
    assert_eq!(offset, 451, "{failing:?}");
    assert!(host.engine.close(tail));
    while host.engine.has_work() {
        host.engine.turn(true);
    }
    if !host.errors.iter().any(|(_, from)| *from == "finish") {
        let least = host.engine.machine().files[0].allocated();
        assert!(least == 20 || host.engine.problem(0).is_some(), "{failing:?}: {least}");
    }
    host.remove(0);
    assert_eq!((host.engine.tails(), host.engine.logs()), (0, 0));
    let content = &host.engine.machine().files[0];
    assert_eq!((content.open(), content.is_watched()), (0, false), "{failing:?}");
    std::mem::take(&mut host.engine.machine().calls)
}

#[test]
fn every_call_for_a_log_that_is_kept_short_may_fail_once() {
    let calls = live_short(None);
    for (number, call) in calls.iter().enumerate() {
        for errno in errnos(*call) {
            let again = live_short(Some((number, *errno)));
            assert_eq!(again[..=number], calls[..=number]);
        }
    }
    for call in [Call::Measure, Call::Punch, Call::DataFrom, Call::ReadAt, Call::SetArmed] {
        assert!(calls.contains(&call), "{call:?} was not tried");
    }
}

#[test]
fn a_finished_log_is_as_short_as_it_is_to_be() {
    for read in [false, true] {
        let mut engine = short(28);
        let tail = read.then(|| follow(&mut engine, Position::Start));
        assert_eq!(engine.finish(0).unwrap(), 28);
        assert_eq!(engine.span(0), Some(8..28));
        assert_eq!(engine.machine().files[0].allocated(), 20);
        if let Some(tail) = tail {
            assert_eq!(engine.read(tail, &mut [0; 9]).unwrap(), Read::Skipped { bytes: 8 });
            assert_eq!(drain(&mut engine, tail).0, data(0, 8..28));
            engine.close(tail);
        }
        assert_eq!(engine.machine().files[0].open(), 0);
        assert!(!engine.has_work());
    }
}
