//! Tails that follow a name.

use std::collections::VecDeque;

use rustix::io::Errno;

use crate::id::TailId;
use crate::log::machine::{Call, Interference, Link};
use crate::log::options::{Position, TailOptions};
use crate::log::read::Read;
use crate::log::simulator::Engine;
use crate::log::tests::host::Host;
use crate::log::tests::{data, drain, errnos, up_to_date};

/// An engine with this many files and one name, which leads to this file.
fn linked(files: usize, target: Option<usize>) -> Engine {
    let mut engine = Engine::new(files, 32);
    engine.machine().links.push(Link::default());
    engine.machine().links[0].history.push(target);
    engine
}

fn follow_name(engine: &mut Engine, position: Position) -> TailId {
    engine.open_name(0, TailOptions::new(position), 0).unwrap()
}

/// Delivers every event, and runs turns until none is due.
fn settle(engine: &mut Engine) {
    for round in 0.. {
        assert!(round < 100, "a busy loop");
        let told = (0..engine.machine.files.len()).any(|file| engine.deliver(file))
            | engine.deliver_link(0);
        if !told && !engine.has_work() {
            return;
        }
        engine.turn(true);
    }
}

fn replaced(engine: &mut Engine, tail: TailId) -> (Vec<u8>, bool) {
    let (bytes, answer) = drain(engine, tail);
    let Read::Replaced { missed } = answer.unwrap() else { panic!("{bytes:?}") };
    (bytes, missed)
}

fn is_clean(engine: &mut Engine) -> bool {
    engine.tails() == 0
        && engine.logs() == 0
        && engine.machine.links[0].followers() == 0
        && engine.machine.nothing.open() == 0
        && engine.machine.files.iter().all(|file| file.open() == 0 && !file.is_watched())
}

#[test]
fn the_old_file_is_read_until_the_new_one_has_a_byte_and_then_to_its_end() {
    let mut engine = linked(2, Some(0));
    engine.machine().files[0].append(5);
    let tail = follow_name(&mut engine, Position::Start);
    assert_eq!(up_to_date(&mut engine, tail), data(0, 0..5));
    engine.machine().links[0].lead_to(Some(1));
    settle(&mut engine);
    // The writer has not opened the new file yet.
    engine.machine().files[0].append(3);
    settle(&mut engine);
    assert_eq!(engine.emit(), Some((tail, 0)));
    assert_eq!(up_to_date(&mut engine, tail), data(0, 5..8));
    settle(&mut engine);
    assert_eq!(engine.emit(), None);
    engine.machine().files[0].append(2);
    engine.machine().files[1].append(4);
    settle(&mut engine);
    assert_eq!(engine.emit(), Some((tail, 0)));
    assert_eq!(engine.emit(), None);
    assert_eq!(replaced(&mut engine, tail), (data(0, 8..10), false));
    assert_eq!((engine.file_of(tail), engine.position(tail)), (Some(1), Some(0)));
    assert_eq!(engine.machine().files[0].open(), 0);
    assert_eq!(up_to_date(&mut engine, tail), data(0, 0..4));
    engine.machine().files[1].append(4);
    settle(&mut engine);
    assert_eq!(up_to_date(&mut engine, tail), data(0, 4..8));
    assert_eq!(engine.tails(), 1);
    engine.close(tail);
    assert!(is_clean(&mut engine));
}

#[test]
fn a_name_that_leads_nowhere_is_read_from_the_first_byte_of_what_comes() {
    for position in [Position::Start, Position::End, Position::LastLines(1)] {
        let mut engine = linked(1, None);
        let tail = follow_name(&mut engine, position);
        assert_eq!(up_to_date(&mut engine, tail), []);
        engine.machine().files[0].append(5);
        engine.machine().links[0].lead_to(Some(0));
        settle(&mut engine);
        assert_eq!(engine.queued().count(), 1);
        assert_eq!(up_to_date(&mut engine, tail), data(0, 0..5));
        assert_eq!(engine.machine().nothing.open(), 0);
        engine.close(tail);
        assert!(is_clean(&mut engine));
    }
}

#[test]
fn a_host_that_does_not_read_gets_every_file_later() {
    let mut engine = linked(6, Some(0));
    let tail = follow_name(&mut engine, Position::Start);
    let other = engine.open_name(0, TailOptions::new(Position::Start), 1).unwrap();
    for file in 0..6 {
        if file > 0 {
            engine.machine().links[0].lead_to(Some(file));
            settle(&mut engine);
        }
        engine.machine().files[file].append(file as u64 * 20);
        settle(&mut engine);
    }
    for tail in [other, tail] {
        for file in 0..5 {
            // The first one has no bytes, and is left when the second one has some.
            assert_eq!(replaced(&mut engine, tail), (data(0, 0..file * 20), false), "{file}");
        }
        assert_eq!(up_to_date(&mut engine, tail), data(0, 0..100));
        assert_eq!(engine.machine().files[2].open(), usize::from(tail == other));
    }
    engine.close(tail);
    engine.close(other);
    assert!(is_clean(&mut engine));
}

#[test]
fn a_file_that_has_the_name_again_is_not_read_twice() {
    let mut engine = linked(2, Some(0));
    engine.machine().files[0].append(40);
    let tail = follow_name(&mut engine, Position::Start);
    assert_eq!(up_to_date(&mut engine, tail), data(0, 0..40));
    for (target, grown) in [(None, 0), (Some(0), 0), (Some(1), 0), (Some(0), 0), (Some(1), 3)] {
        engine.machine().links[0].lead_to(target);
        if let Some(file) = target {
            engine.machine().files[file].append(grown);
        }
        settle(&mut engine);
    }
    assert_eq!(replaced(&mut engine, tail), (Vec::new(), false));
    assert_eq!(up_to_date(&mut engine, tail), data(0, 0..3));
    engine.machine().files[0].append(2);
    engine.machine().links[0].lead_to(Some(0));
    settle(&mut engine);
    assert_eq!(replaced(&mut engine, tail), (Vec::new(), false));
    assert_eq!(engine.position(tail), Some(40));
    assert_eq!(up_to_date(&mut engine, tail), data(0, 40..42));
    // But it is, if it was written anew.
    engine.machine().links[0].lead_to(Some(1));
    engine.machine().files[1].append(1);
    settle(&mut engine);
    assert_eq!(replaced(&mut engine, tail), (Vec::new(), false));
    engine.machine().files[0].rewrite(50);
    engine.machine().links[0].lead_to(Some(0));
    settle(&mut engine);
    assert_eq!(replaced(&mut engine, tail), (data(0, 3..4), false));
    assert_eq!(up_to_date(&mut engine, tail), data(1, 0..50));
}

#[test]
fn a_file_that_was_written_anew_before_it_was_superseded_is_read_anew() {
    let mut engine = linked(2, Some(0));
    engine.machine().files[0].append(40);
    let tail = follow_name(&mut engine, Position::Start);
    assert_eq!(up_to_date(&mut engine, tail), data(0, 0..40));
    engine.machine().files[0].rewrite(30);
    engine.machine().files[1].append(3);
    engine.machine().links[0].lead_to(Some(1));
    engine.deliver_link(0);
    engine.turn(false);
    assert_eq!(engine.read(tail, &mut [0; 7]).unwrap(), Read::Truncated);
    assert_eq!(replaced(&mut engine, tail), (data(1, 0..30), false));
    assert_eq!(up_to_date(&mut engine, tail), data(0, 0..3));
}

/// Where the returned file was left was only compared when the name returned to it.
#[test]
fn a_file_that_returns_is_read_anew_if_it_is_written_anew_before_the_tail_gets_there() {
    let mut engine = linked(2, Some(0));
    engine.machine().files[0].append(40);
    let tail = follow_name(&mut engine, Position::Start);
    assert_eq!(up_to_date(&mut engine, tail), data(0, 0..40));
    for file in [1, 0] {
        engine.machine().links[0].lead_to(Some(file));
        engine.machine().files[file].append(3);
        settle(&mut engine);
    }
    engine.machine().files[0].rewrite(90);
    settle(&mut engine);
    assert_eq!(replaced(&mut engine, tail), (Vec::new(), false));
    assert_eq!(replaced(&mut engine, tail), (data(0, 0..3), false));
    assert_eq!(engine.position(tail), Some(0));
    assert_eq!(up_to_date(&mut engine, tail), data(1, 0..90));
}

/// The number of truncations was taken for that of a log that was opened again.
#[test]
fn a_superseded_file_that_is_written_anew_before_the_tail_gets_there_is_a_gap() {
    for size in [10, 200] {
        let mut engine = linked(3, Some(0));
        let tail = follow_name(&mut engine, Position::Start);
        for file in 0..3 {
            engine.machine().links[0].lead_to(Some(file));
            engine.machine().files[file].append(100);
            settle(&mut engine);
        }
        engine.machine().files[1].rewrite(size);
        settle(&mut engine);
        assert_eq!(replaced(&mut engine, tail), (data(0, 0..100), true));
        assert_eq!(replaced(&mut engine, tail), (Vec::new(), false));
        assert_eq!(up_to_date(&mut engine, tail), data(0, 0..100));
    }
}

#[test]
fn a_name_that_cannot_be_looked_up_is_an_error_once_and_then_the_tail_reads_on() {
    let mut engine = linked(2, Some(0));
    engine.machine().files[0].append(5);
    let tail = follow_name(&mut engine, Position::Start);
    assert_eq!(engine.emit(), Some((tail, 0)));
    assert_eq!(up_to_date(&mut engine, tail), data(0, 0..5));
    settle(&mut engine);
    engine.machine().files[0].append(2);
    engine.machine().links[0].lead_to(Some(1));
    engine.deliver_link(0);
    engine.machine().script = VecDeque::from([Interference::Fail(Errno::ACCESS.raw_os_error())]);
    engine.turn(true);
    assert_eq!(engine.queued().count(), 1);
    let (mut bytes, answer) = drain(&mut engine, tail);
    assert_eq!(answer.unwrap_err().raw_os_error(), Some(Errno::ACCESS.raw_os_error()));
    // It waits again, which finds what has come meanwhile.
    bytes.extend(up_to_date(&mut engine, tail));
    settle(&mut engine);
    assert_eq!(engine.emit(), Some((tail, 0)));
    bytes.extend(up_to_date(&mut engine, tail));
    assert_eq!(bytes, data(0, 5..7));
    engine.machine().files[1].append(2);
    engine.machine().links[0].lead_to(Some(1));
    settle(&mut engine);
    assert_eq!(replaced(&mut engine, tail), (Vec::new(), true));
    assert_eq!(up_to_date(&mut engine, tail), data(0, 0..2));
}

/// Two tails follow a name through four files. The call with the index in `failing` fails.
fn live_by_name(failing: Option<(usize, Errno)>) -> (Vec<Call>, Vec<(i32, &'static str)>) {
    let mut host = Host::new(4, failing);
    host.engine.machine().links.push(Link::default());
    host.engine.machine().links[0].history.push(None);
    let options = TailOptions::new(Position::Start);
    let tails = [0, 1].map(|token| host.open(|engine| engine.open_name(0, options, token)));
    let mut found = [const { Vec::new() }; 2];
    let mut expected = Vec::new();
    for file in 0..4 {
        let machine = host.engine.machine();
        // The old file grows until the new one has its first byte; one of them is empty then.
        if file > 0 {
            machine.files[file - 1].append(3);
        }
        machine.links[0].lead_to((file != 2).then_some(file));
        settle(&mut host.engine);
        if file > 0 {
            host.engine.machine().files[file - 1].append(40);
            let size = host.engine.machine().files[file - 1].size;
            expected.extend(data(0, 0..size));
        }
        host.engine.machine().links[0].lead_to(Some(file));
        settle(&mut host.engine);
        host.engine.machine().files[file].append(5);
        // The second tail is only read at every other file.
        for index in 0..=file % 2 {
            // A failure takes a few turns more.
            for _ in 0..5 {
                settle(&mut host.engine);
                let (bytes, answer) = host.drain(tails[index]);
                assert_eq!(answer, Read::UpToDate);
                found[index].extend(bytes);
            }
        }
    }
    expected.extend(data(0, 0..5));
    for found in found {
        // Nobody has read the failure to open a file, and then another one had its name.
        assert!(found == expected || host.missed, "{failing:?}: {found:?}");
    }
    assert!(host.replaced == 6 || host.missed && host.replaced == 5, "{failing:?}");
    assert!(failing.is_some() || !host.missed);
    for tail in tails {
        assert!(host.engine.close(tail));
    }
    assert!(is_clean(&mut host.engine), "{failing:?}");
    (std::mem::take(&mut host.engine.machine().calls), host.errors)
}

#[test]
fn every_call_of_a_tail_that_follows_a_name_may_fail_once() {
    let (calls, errors) = live_by_name(None);
    assert_eq!(errors, []);
    let mut told = 0;
    for (number, call) in calls.iter().enumerate() {
        for errno in errnos(*call) {
            let (again, errors) = live_by_name(Some((number, *errno)));
            assert_eq!(again[..=number], calls[..=number]);
            let is_told = errors.iter().all(|(told, _)| *told == errno.raw_os_error());
            assert!(is_told, "{number}: {errno} of {call:?}: {errors:?}");
            told += errors.len();
        }
    }
    // One that is over before the host reads again is not reported, as nothing came of it.
    assert!(told > calls.len(), "{told} failures of {} calls", calls.len());
    for call in [Call::LookUp, Call::Nowhere, Call::Size, Call::ReadAt, Call::SetArmed] {
        assert!(calls.contains(&call), "{call:?} was not tried");
    }
}
