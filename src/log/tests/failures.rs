//! Each call of the kernel fails once, at each place.

use std::time::Duration;

use rustix::io::Errno;

use crate::log::machine::Call;
use crate::log::options::{Position, TailOptions};
use crate::log::read::Read;
use crate::log::tests::host::Host;
use crate::log::tests::{data, errnos};

/// Runs three jobs with every kind of tail. The call with the index in `failing` fails.
fn live(failing: Option<(usize, Errno)>) -> (Vec<Call>, Vec<(i32, &'static str)>) {
    let mut host = Host::new(3, failing);
    (0..3).for_each(|file| host.engine.create(file));
    let start = |position| TailOptions::new(position);
    host.engine.machine().files[0].append(200);
    host.engine.machine().files[1].append(5);
    host.engine.machine().files[2].append(7);
    // One log with a single tail, and one with several.
    let other = host.open(|engine| engine.open(1, start(Position::Start), 0));
    let behind = host.open(|engine| engine.open(0, start(Position::Start), 1));
    let lines = host.open(|engine| engine.open(0, start(Position::LastLines(2)), 2));
    let part = host.open(|engine| engine.open(0, *start(Position::Offset(190)).snapshot(), 3));
    let file = host.open(|engine| engine.open_file(0, start(Position::End), 4));
    let from = host.engine.position(lines).unwrap();
    let tails = [(other, 1, 0), (behind, 0, 0), (lines, 0, from), (file, 0, 200)];
    let mut found = [const { Vec::new() }; 4];
    let mut collect = |host: &mut Host, expected: Read| {
        for ((tail, ..), found) in tails.iter().zip(&mut found) {
            let (bytes, answer) = host.drain(*tail);
            found.extend(bytes);
            let of_file = *tail == file;
            assert_eq!(answer, if of_file { Read::UpToDate } else { expected });
        }
    };
    collect(&mut host, Read::UpToDate);
    // Single lines, then so many that the logs are paced, then more than a window holds.
    for amount in [3, 3, 3, 3, 3, 3, 3, 0, 0, 0, 3, 100, 0] {
        host.grow(amount);
        collect(&mut host, Read::UpToDate);
        host.engine.sleep(Duration::from_micros(if amount == 0 { 1000 } else { 1 }));
    }
    // Growth that was not noticed before the jobs finish.
    for file in [0, 1] {
        host.engine.machine().files[file].append(50);
    }
    (0..3).for_each(|job| host.finish(job));
    collect(&mut host, Read::Ended);
    let (bytes, answer) = host.drain(part);
    assert_eq!((bytes, answer), (data(0, 190..200), Read::Ended));
    for ((_, file, from), found) in tails.into_iter().zip(found) {
        let size = host.engine.machine().files[file].size;
        assert_eq!(found, data(0, from..size), "{failing:?}");
    }
    for tail in [behind, lines, part] {
        assert!(host.engine.close(tail));
    }
    let late = host.open(|engine| engine.open(2, start(Position::Start), 5));
    assert_eq!(host.drain(late), (data(0, 0..7), Read::Ended));
    (0..3).for_each(|job| host.remove(job));
    assert_eq!(host.engine.tails(), 1, "{failing:?}");
    host.engine.machine().files[0].append(3);
    host.engine.deliver(0);
    host.engine.turn(true);
    let (mut bytes, _) = host.drain(file);
    // After a failure, the next turn finds the rest.
    host.engine.turn(true);
    bytes.extend(host.drain(file).0);
    assert_eq!(bytes.len(), 3, "{failing:?}");
    assert!(host.engine.close(file));
    while host.engine.has_work() {
        host.engine.turn(true);
    }
    assert_eq!((host.engine.tails(), host.engine.logs()), (0, 0));
    assert_eq!(host.engine.emit(), None);
    for content in &host.engine.machine().files {
        assert_eq!((content.open(), content.is_watched()), (0, false), "{failing:?}");
    }
    (std::mem::take(&mut host.engine.machine().calls), host.errors)
}

#[test]
fn every_call_may_fail_once_anywhere_and_nothing_is_lost_or_kept() {
    let (calls, errors) = live(None);
    assert_eq!(errors, []);
    for (number, call) in calls.iter().enumerate() {
        for errno in errnos(*call) {
            let (again, errors) = live(Some((number, *errno)));
            assert_eq!(again[..=number], calls[..=number]);
            let is_told = errors.iter().all(|(told, _)| *told == errno.raw_os_error());
            assert!(is_told && !errors.is_empty(), "{errno} of {call:?}: {errors:?}");
            // It is returned by the operation that made the call.
            let callers: &[&str] = match call {
                Call::Open => &["open"],
                Call::Len => &["finish"],
                Call::Unlink => &["remove"],
                Call::Size => &["open", "finish", "read", "fill"],
                Call::ReadAt | Call::DataFrom | Call::SetArmed => {
                    &["open", "finish", "read", "fill"]
                }
                Call::Measure | Call::Punch => unreachable!("no log is kept short"),
                Call::LookUp | Call::Nowhere => unreachable!("no name is followed"),
            };
            let (_, caller) = errors[0];
            assert!(callers.contains(&caller), "{errno} of {call:?} from {caller}");
        }
    }
    for call in [Call::Open, Call::Len, Call::Unlink, Call::ReadAt, Call::Size, Call::SetArmed] {
        assert!(calls.contains(&call), "{call:?} was not tried");
    }
}
