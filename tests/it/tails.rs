//! Tails: where they begin, and that they get every byte exactly once, or a report that bytes are
//! gone.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use inotify::{EventMask, Inotify, WatchMask};
use jobworker::{
    Bookmark, Command, Config, Containment, EndPolicy, Error, Event, Events, Fill, JobId, Output,
    Position, Reactor, Read, Stream, TailError, TailId, TailOptions, Token,
};
use rustix::fs::{CWD, FileType, Mode};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::skips::{Elsewhere, skip};
use crate::support::{PATIENCE, Place, World, alone, append, sh, wait_for_exit};

const MORE: &str =
    "the rest is longer than all that came before it, by so much that any offset is inside of it\n";

/// A job that writes what the test sends it: `cat`, and the write end of its standard input.
fn typist(world: &mut World) -> (JobId, File) {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let job = world.spawn(Command::new("cat").stdin_fd(read));
    (job, File::from(write))
}

fn file_with(world: &World, content: impl AsRef<[u8]>) -> PathBuf {
    let path = world.place.dir.path().join("file.log");
    fs::write(&path, content).unwrap();
    path
}

fn bytes(world: &World, tail: TailId) -> usize {
    world.transcripts[&tail].bytes.len()
}

/// Bytes in which no sequence repeats.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let byte = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        b'a' + u8::try_from(state % 26).unwrap()
    };
    (0..length).map(byte).collect()
}

/// Positions in `text`, each with what a tail from there reads.
fn positions(text: &str) -> Vec<(Position, &str)> {
    let after = |newlines: usize| {
        let mut starts =
            text.match_indices('\n').map(|(at, _)| at + 1).filter(|at| *at < text.len()).rev();
        &text[starts.nth(newlines - 1).unwrap_or(0)..]
    };
    vec![
        (Position::Start, text),
        (Position::End, ""),
        (Position::Offset(0), text),
        (Position::Offset(4), &text[4..]),
        (Position::Offset(text.len() as u64), ""),
        (Position::LastLines(0), ""),
        (Position::LastLines(1), after(1)),
        (Position::LastLines(2), after(2)),
        (Position::LastLines(99), text),
    ]
}

#[test]
fn a_tail_begins_where_it_was_told_to_on_a_running_job() {
    let Some(mut world) = World::new() else { return };
    let (job, mut input) = typist(&mut world);
    let first = world.tail(job, Position::Start);
    let text = "one\ntwo\n\nthree";
    input.write_all(text.as_bytes()).unwrap();
    world.until("the first tail has it all", |world| bytes(world, first) == text.len());
    let tails: Vec<_> = positions(text)
        .into_iter()
        .map(|(position, rest)| (world.tail(job, position), position, rest))
        .collect();
    let snapshots: Vec<_> = positions(text)
        .into_iter()
        .map(|(position, rest)| {
            (world.tail(job, TailOptions::new(position).snapshot()), position, rest)
        })
        .collect();
    // These wait until the log has grown to their offset.
    let far = world.tail(job, Position::Offset(30));
    let farther = world.tail(job, Position::Offset(1_000_000));
    world.until("every snapshot has ended", |world| {
        snapshots.iter().all(|(tail, ..)| world.transcripts[tail].ended)
    });
    input.write_all(MORE.as_bytes()).unwrap();
    drop(input);
    world.finish(job);
    let whole = format!("{text}{MORE}");
    for (tail, position, rest) in tails {
        assert_eq!(world.text(tail), format!("{rest}{MORE}"), "{position:?}");
        assert!(world.transcripts[&tail].ended, "{position:?}");
    }
    for (tail, position, rest) in snapshots {
        assert_eq!(world.text(tail), rest, "snapshot from {position:?}");
    }
    assert_eq!(world.text(far), &whole[30..]);
    assert_eq!(world.text(farther), "");
    assert!(world.transcripts[&farther].ended);
}

#[test]
fn a_tail_begins_where_it_was_told_to_on_a_finished_job() {
    let Some(mut world) = World::new() else { return };
    for text in ["one\ntwo\n\nthree", "one\ntwo\n\nthree\n"] {
        let job = world.spawn(Command::new("printf").args(["%s", text]));
        world.finish(job);
        let past =
            [(Position::Offset(text.len() as u64 + 1), ""), (Position::Offset(u64::MAX), "")];
        for (position, rest) in positions(text).into_iter().chain(past) {
            for options in [TailOptions::new(position), *TailOptions::new(position).snapshot()] {
                let tail = world.tail(job, options);
                world.until("the tail has ended", |world| world.transcripts[&tail].ended);
                assert_eq!(world.text(tail), rest, "{options:?}");
                assert_eq!(world.transcripts[&tail].events, 1, "{options:?}");
            }
        }
    }
    // The log no longer grows, so it is not watched.
    assert_eq!(world.reactor.census().watches, 0);
}

#[test]
fn each_stream_of_a_split_job_has_tails_of_its_own() {
    let Some(mut world) = World::new() else { return };
    let job = world.spawn(sh("echo out; echo err >&2").output(Output::Split));
    let output = world.tail(job, Position::Start);
    let error = world.tail(job, TailOptions::new(Position::Start).stream(Stream::Error));
    let report = world.finish(job);
    assert_eq!((world.text(output).as_str(), world.text(error).as_str()), ("out\n", "err\n"));
    assert_eq!((report.output_bytes, report.error_bytes), (4, 4));

    let job = world.spawn(&sh("echo both"));
    let options = *TailOptions::new(Position::Start).stream(Stream::Error);
    let refused = world.reactor.tail(job, options, Token(0)).unwrap_err();
    assert!(matches!(refused, Error::Tail(TailError::NoLog { .. })), "{refused:?}");
    assert!(refused.to_string().contains("no log for standard error"), "{refused}");
    world.finish(job);
}

#[test]
fn a_file_of_somebody_else_is_followed_line_by_line() {
    let Some(mut world) = World::new() else { return };
    let path = file_with(&world, "old\n");
    let (start, end) =
        (world.tail_file(&path, Position::Start), world.tail_file(&path, Position::End));
    let writer = {
        let path = path.clone();
        thread::spawn(move || {
            let mut file = OpenOptions::new().append(true).open(path).unwrap();
            for line in 0..5000 {
                writeln!(file, "line {line}").unwrap();
            }
        })
    };
    let expected: String = (0..5000).map(|line| format!("line {line}\n")).collect();
    world.until("the tail has every line", |world| bytes(world, end) >= expected.len());
    writer.join().unwrap();
    assert!(world.text(end) == expected);
    world.until("the other tail has every line", |world| bytes(world, start) >= 4 + expected.len());
    assert!(world.text(start) == format!("old\n{expected}"));
    assert!(!world.transcripts[&start].ended, "a file that is followed has no end");
}

#[test]
fn a_file_is_followed_under_another_name_and_without_any() {
    let Some(mut world) = World::new() else { return };
    let path = file_with(&world, "");
    let mut writer = OpenOptions::new().append(true).open(&path).unwrap();
    let tail = world.tail_file(&path, Position::Start);
    let expect = |world: &mut World, text: &str| {
        world.until("the tail has the line", |world| bytes(world, tail) >= text.len());
        assert_eq!(world.text(tail), text);
    };
    writer.write_all(b"1").unwrap();
    expect(&mut world, "1");
    let renamed = path.with_extension("1");
    fs::rename(&path, &renamed).unwrap();
    // A new file of the same name is not followed.
    fs::write(&path, "other").unwrap();
    writer.write_all(b"2").unwrap();
    expect(&mut world, "12");
    fs::remove_file(&renamed).unwrap();
    writer.write_all(b"3").unwrap();
    expect(&mut world, "123");
    // A tail that is opened by the name now is on the new file.
    let other = world.tail_file(&path, Position::Start);
    world.until("the other tail has its bytes", |world| bytes(world, other) == 5);
    writer.write_all(b"4").unwrap();
    expect(&mut world, "1234");
    assert_eq!(world.text(other), "other");
}

#[test]
fn only_regular_files_can_be_followed() {
    let Some(mut world) = World::new() else { return };
    let dir = world.place.dir.path().to_owned();
    let fifo = dir.join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    let before = world.reactor.census();
    for (path, cause) in [
        (dir.join("missing"), "No such file or directory"),
        (dir.clone(), "not a regular file"),
        (fifo, "not a regular file"),
        (PathBuf::from("/dev/null"), "not a regular file"),
        (dir.join("missing/file"), "No such file or directory"),
    ] {
        let error = world.reactor.tail_file(&path, Position::Start, Token(0)).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(path.to_str().unwrap()) && text.contains(cause), "{text}");
        assert_eq!(world.reactor.census(), before, "{text}");
    }
}

#[test]
fn tails_on_one_file_share_one_watch_whatever_they_call_it() {
    let Some(mut world) = World::new() else { return };
    let path = file_with(&world, "");
    let (link, symlink) = (path.with_extension("hard"), path.with_extension("soft"));
    fs::hard_link(&path, &link).unwrap();
    std::os::unix::fs::symlink(&path, &symlink).unwrap();
    let tails: Vec<TailId> =
        [&path, &path, &link, &symlink].map(|path| world.tail_file(path, Position::End)).into();
    assert_eq!(world.reactor.census().watches, 1);
    append(&path, "line\n");
    world.until("every tail has the line", |world| {
        tails.iter().all(|tail| bytes(world, *tail) == 5)
    });
    for (closed, tail) in tails.iter().enumerate() {
        assert_eq!((world.reactor.census().tails, world.reactor.census().watches), (4 - closed, 1));
        world.reactor.close(*tail).unwrap();
    }
    assert_eq!(world.reactor.census().watches, 0);
}

#[test]
fn the_log_of_a_job_can_be_followed_as_a_file_beyond_the_end_of_the_job() {
    let Some(mut world) = World::new() else { return };
    let (job, mut input) = typist(&mut world);
    let path = world.reactor.status(job).unwrap().output.unwrap();
    let by_path = world.tail_file(&path, Position::Start);
    let by_job = world.tail(job, Position::Start);
    assert_eq!(world.reactor.census().watches, 1);
    input.write_all(b"job\n").unwrap();
    drop(input);
    world.finish(job);
    assert!(world.transcripts[&by_job].ended);
    append(&path, "more\n");
    world.until("the tail by path has more", |world| bytes(world, by_path) == 9);
    assert!(!world.transcripts[&by_path].ended);
    // What came after the end of the job is not the job's output.
    let late = world.tail(job, Position::Start);
    world.until("the late tail has ended", |world| world.transcripts[&late].ended);
    assert_eq!((world.text(by_job).as_str(), world.text(late).as_str()), ("job\n", "job\n"));
    world.reactor.remove(job).unwrap();
    assert!(matches!(world.reactor.position(late), Err(Error::Tail(TailError::Unknown(_)))));
    assert_eq!(world.reactor.position(by_path).unwrap(), 9);
    assert!(!path.exists());
}

#[test]
fn fill_buf_shows_the_same_bytes_until_they_are_consumed() {
    // Bytes behind the window come from the file, those inside it from memory.
    for window in [16, 64 * 1024] {
        let Some(mut world) = World::with(|config| {
            config.window_bytes(window);
        }) else {
            return;
        };
        let text = noise(1000);
        let path = file_with(&world, &text);
        let keeps_up = world.tail_file(&path, Position::Start);
        let tail = world.reactor.tail_file(&path, Position::Start, Token(1)).unwrap();
        let other = world.reactor.tail_file(&path, Position::Offset(500), Token(2)).unwrap();
        world.until("somebody has read it all", |world| bytes(world, keeps_up) == 1000);
        let mut seen = Vec::new();
        let mut rounds = 0;
        loop {
            let shown = match world.reactor.fill_buf(tail).unwrap() {
                Fill::Data(bytes) => bytes.to_vec(),
                Fill::UpToDate => break,
                other => panic!("{other:?}"),
            };
            assert!(!shown.is_empty());
            assert!(
                matches!(world.reactor.fill_buf(tail).unwrap(), Fill::Data(again) if again == shown)
            );
            // After another tail has used the buffer for bytes behind the window, there may be more
            // bytes, but not different ones.
            assert!(matches!(world.reactor.fill_buf(other).unwrap(), Fill::Data(_)));
            let again = match world.reactor.fill_buf(tail).unwrap() {
                Fill::Data(bytes) => bytes.to_vec(),
                other => panic!("{other:?}"),
            };
            assert!(again.starts_with(&shown), "window of {window}");
            world.reactor.consume(tail, 0).unwrap();
            let position = world.reactor.position(tail).unwrap();
            assert_eq!(position, seen.len() as u64);
            let part = if rounds % 3 == 0 { shown.len().div_ceil(2) } else { shown.len() };
            seen.extend_from_slice(&shown[..part]);
            world.reactor.consume(tail, part).unwrap();
            assert_eq!(world.reactor.position(tail).unwrap(), seen.len() as u64);
            rounds += 1;
        }
        assert_eq!(seen, text, "window of {window}");
    }
}

#[test]
fn no_more_is_consumed_than_was_shown() {
    let Some(mut world) = World::new() else { return };
    let path = file_with(&world, "0123456789");
    let tail = world.reactor.tail_file(&path, Position::Start, Token(0)).unwrap();
    // Nothing was returned by `fill_buf` yet.
    world.reactor.consume(tail, 5).unwrap();
    assert_eq!(world.reactor.position(tail).unwrap(), 0);
    assert_eq!(world.reactor.fill_buf(tail).unwrap(), Fill::Data(b"0123456789"));
    append(&path, "more");
    world.reactor.consume(tail, 4).unwrap();
    world.reactor.consume(tail, usize::MAX).unwrap();
    world.reactor.consume(tail, usize::MAX).unwrap();
    assert_eq!(world.reactor.position(tail).unwrap(), 10);
    assert_eq!(world.reactor.fill_buf(tail).unwrap(), Fill::UpToDate);
    world.reactor.consume(tail, usize::MAX).unwrap();
    assert_eq!(world.reactor.position(tail).unwrap(), 10);
    // After a read, nothing that `fill_buf` has returned is left to consume.
    world.until("there is more", |world| !world.events.is_empty());
    assert_eq!(world.reactor.fill_buf(tail).unwrap(), Fill::Data(b"more"));
    assert_eq!(world.reactor.read(tail, &mut [0; 1]).unwrap(), Read::Data(1));
    world.reactor.consume(tail, 3).unwrap();
    assert_eq!(world.reactor.position(tail).unwrap(), 11);
}

#[test]
fn borrowed_bytes_are_the_bytes_that_read_copies() {
    for window in [100, 64 * 1024] {
        let Some(mut world) = World::with(|config| {
            config.window_bytes(window);
        }) else {
            return;
        };
        let job = world.spawn(&sh(
            "i=0; while [ $i -lt 1000 ]; do echo line $i; i=$((i+1)); done; sleep 0.01; printf end",
        ));
        let copied = world.tail(job, Position::Start);
        let borrowed = world.reactor.tail(job, Position::Start, Token(1)).unwrap();
        let mut bytes = Vec::new();
        let mut ended = false;
        while !ended {
            world.turn(Some(PATIENCE));
            loop {
                let length = match world.reactor.fill_buf(borrowed).unwrap() {
                    Fill::Data(shown) => {
                        bytes.extend_from_slice(shown);
                        shown.len()
                    }
                    Fill::Ended => {
                        ended = true;
                        break;
                    }
                    _ => break,
                };
                world.reactor.consume(borrowed, length).unwrap();
            }
        }
        world.finish(job);
        assert!(bytes == world.transcripts[&copied].bytes, "window of {window}");
    }
}

#[test]
fn a_tail_that_is_read_in_parts_has_its_turn_among_others_and_no_event_without_news() {
    let Some(mut world) = World::new() else { return };
    let content = noise(100_000);
    let path = file_with(&world, &content);
    let tails =
        [1, 2].map(|token| world.reactor.tail_file(&path, Position::Start, Token(token)).unwrap());
    let (mut read, mut turns) = ([0; 2], Vec::new());
    while read.iter().any(|read| *read < content.len()) {
        world.reactor.poll(&mut world.events, Some(PATIENCE)).unwrap();
        assert!(!world.events.is_empty(), "an event that was asked for has not come");
        for event in &world.events {
            let Event::Readable { tail, token } = *event else { panic!("{event:?}") };
            let at = token.0 - 1;
            let mut buffer = [0; 1000];
            // The window is refilled in its turn.
            if let Read::Data(length) = world.reactor.read(tail, &mut buffer).unwrap() {
                assert!(buffer[..length] == content[read[at]..read[at] + length]);
                read[at] += length;
                turns.push(at);
                world.reactor.requeue(tail).unwrap();
                // Once more changes nothing.
                world.reactor.requeue(tail).unwrap();
            }
        }
    }
    assert!(turns.chunks_exact(2).all(|two| two[0] != two[1]), "they take turns");
    world.reactor.poll(&mut world.events, Some(Duration::ZERO)).unwrap();
    assert!(world.events.is_empty(), "there is nothing to read");
    append(&path, "more");
    // One that has an event already gets no second one.
    let mut one = Events::with_capacity(1);
    world.reactor.poll(&mut one, Some(PATIENCE)).unwrap();
    let Some(Event::Readable { tail: first, .. }) = one.iter().next() else { panic!() };
    let other = tails[usize::from(*first == tails[0])];
    world.reactor.requeue(other).unwrap();
    world.reactor.poll(&mut world.events, Some(PATIENCE)).unwrap();
    let told = |event: &Event| matches!(event, Event::Readable { tail, .. } if *tail == other);
    assert!(world.events.iter().count() == 1 && world.events.iter().all(told));
    let mut buffer = [0; 100];
    for tail in tails {
        assert_eq!(world.reactor.read(tail, &mut buffer).unwrap(), Read::Data(4));
        assert_eq!(world.reactor.read(tail, &mut buffer).unwrap(), Read::UpToDate);
        world.reactor.close(tail).unwrap();
    }
    assert!(matches!(
        world.reactor.requeue(tails[0]),
        Err(Error::Tail(TailError::Unknown(unknown))) if unknown == tails[0]
    ));
}

#[test]
fn a_read_without_room_takes_nothing() {
    let Some(mut world) = World::new() else { return };
    let path = file_with(&world, "bytes");
    let tail = world.reactor.tail_file(&path, Position::Start, Token(0)).unwrap();
    assert_eq!(world.reactor.read(tail, &mut []).unwrap(), Read::Data(0));
    assert_eq!(world.reactor.position(tail).unwrap(), 0);
    assert_eq!(world.reactor.read(tail, &mut [0; 9]).unwrap(), Read::Data(5));
    assert_eq!(world.reactor.read(tail, &mut []).unwrap(), Read::UpToDate);
}

#[test]
fn a_closed_tail_is_gone_at_once_with_its_events() {
    let Some(mut world) = World::new() else { return };
    let path = file_with(&world, "bytes");
    let (closed, kept) =
        (world.tail_file(&path, Position::Start), world.tail_file(&path, Position::Start));
    // Both have an event in the queue now.
    world.reactor.close(closed).unwrap();
    assert_eq!(world.reactor.census().tails, 1);
    // The slot may be used again, but not the id.
    let next = world.tail_file(&path, Position::End);
    let mut told = Vec::new();
    for _ in 0..3 {
        world.turn(Some(Duration::ZERO));
        told.extend(world.events.iter().filter_map(|event| match event {
            Event::Readable { tail, .. } => Some(*tail),
            _ => None,
        }));
    }
    assert_eq!(told, [kept]);
    append(&path, "more");
    world.until("the others have more", |world| bytes(world, kept) == 9 && bytes(world, next) == 4);
    assert_eq!(bytes(&world, closed), 0);
    for outcome in [
        world.reactor.read(closed, &mut [0; 8]).map(drop),
        world.reactor.fill_buf(closed).map(drop),
        world.reactor.consume(closed, 1),
        world.reactor.position(closed).map(drop),
        world.reactor.close(closed),
    ] {
        let error = outcome.unwrap_err();
        assert!(matches!(error, Error::Tail(TailError::Unknown(_))), "{error:?}");
        assert!(error.to_string().contains("no such tail"), "{error}");
    }
}

#[test]
fn a_tail_of_one_reactor_is_unknown_to_another() {
    let (Some(mut one), Some(mut other)) = (World::new(), World::new()) else { return };
    let (path, other_path) = (file_with(&one, "one"), file_with(&other, "other"));
    let tail = one.tail_file(path, Position::Start);
    other.tail_file(other_path, Position::Start);
    assert!(matches!(
        other.reactor.read(tail, &mut [0; 8]),
        Err(Error::Tail(TailError::Unknown(_)))
    ));
}

#[test]
fn a_slow_tail_beside_a_fast_one_gets_every_byte() {
    for window in [0, 16, 1000] {
        let Some(mut world) = World::with(|config| {
            config.window_bytes(window);
        }) else {
            return;
        };
        let job = world.spawn(&sh("i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done"));
        let fast = world.tail(job, Position::Start);
        let slow = world.reactor.tail(job, Position::Start, Token(1)).unwrap();
        let mut bytes = Vec::new();
        let mut buffer = [0; 7];
        let mut ended = false;
        while !ended {
            if !world.finished.contains_key(&job) {
                world.turn(Some(PATIENCE));
            }
            // Seven bytes a turn, until the job is gone.
            match world.reactor.read(slow, &mut buffer).unwrap() {
                Read::Data(length) => bytes.extend_from_slice(&buffer[..length]),
                Read::Ended => ended = true,
                Read::UpToDate => {}
                other => panic!("{other:?}"),
            }
        }
        let expected: String = (0..2000).map(|line| format!("line {line}\n")).collect();
        assert!(
            bytes == expected.as_bytes(),
            "the slow tail has other bytes, with a window of {window}"
        );
        assert!(
            world.text(fast) == expected,
            "the fast tail has other bytes, with a window of {window}"
        );
    }
}

#[test]
fn the_smallest_window_and_any_pace_lose_nothing() {
    for (window, pace) in [(16, 200), (0, 0), (64 * 1024, 0), (64 * 1024, 50_000), (4096, 200)] {
        let Some(mut world) = World::with(|config| {
            config.window_bytes(window).pace(Duration::from_micros(pace));
        }) else {
            return;
        };
        let job = world.spawn(&sh("head -c 100000 /dev/zero | tr '\\0' x; seq 1 5000; printf end"));
        let tails: Vec<TailId> = (0..3).map(|_| world.tail(job, Position::Start)).collect();
        let report = world.finish(job);
        let numbers: String = (1..=5000).map(|number| format!("{number}\n")).collect();
        let expected = format!("{}{numbers}end", "x".repeat(100_000));
        assert_eq!(report.output_bytes, expected.len() as u64);
        for tail in tails {
            assert!(world.transcripts[&tail].ended);
            assert!(
                world.text(tail) == expected,
                "other bytes with a window of {window} and a pace of {pace} us"
            );
        }
    }
}

#[test]
fn the_last_lines_of_a_long_log_are_found() {
    let Some(mut world) = World::new() else { return };
    let job = world.spawn(&sh("seq 1 20000; printf end"));
    world.finish(job);
    let tail = world.tail(job, Position::LastLines(1000));
    world.until("the tail has ended", |world| world.transcripts[&tail].ended);
    let expected: String = (19_002..=20_000).map(|number| format!("{number}\n")).collect();
    assert!(world.text(tail) == format!("{expected}end"));
}

/// Truncates a file to `length` bytes, as another process would.
fn truncate(path: &Path, length: u64) {
    OpenOptions::new().write(true).open(path).unwrap().set_len(length).unwrap();
}

/// A reactor for files.
fn without_cgroup() -> Reactor {
    let mut config = Config::new();
    Reactor::with_config(config.containment(Containment::ProcessGroup)).unwrap()
}

/// What a tail reads up to what it finds next that is no data.
fn read_on(reactor: &mut Reactor, tail: TailId) -> (Vec<u8>, Read) {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match reactor.read(tail, &mut buffer).unwrap() {
            Read::Data(length) => bytes.extend_from_slice(&buffer[..length]),
            other => return (bytes, other),
        }
    }
}

/// A bookmark of a tail that has read so much of a file, as it is written down.
fn bookmark_at(reactor: &mut Reactor, path: &Path, length: usize) -> String {
    let tail = reactor.tail_file(path, Position::Start, Token(0)).unwrap();
    let mut buffer = vec![0; length];
    if length > 0 {
        assert_eq!(reactor.read(tail, &mut buffer).unwrap(), Read::Data(length));
    }
    let bookmark = reactor.bookmark(tail).unwrap();
    assert_eq!(bookmark.offset(), length as u64);
    reactor.close(tail).unwrap();
    bookmark.to_string()
}

fn after(bookmark: &str) -> Position {
    Position::After(bookmark.parse().unwrap())
}

#[test]
fn a_tail_goes_on_at_a_bookmark_unless_the_log_was_truncated_meanwhile() {
    let mut reactor = without_cgroup();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let text = noise(100);
    for length in [0, 1, 15, 16, 17, 99, 100] {
        let longer = vec![b'-'; 150];
        // What the file has then, and whether that is another content.
        let mut same = text.clone();
        same.extend_from_slice(b"more");
        for (content, other) in [
            (text.clone(), false),
            (same, false),
            (longer, length > 0),
            (text[..length].to_vec(), false),
            (text[..length / 2].to_vec(), length > 0),
            (Vec::new(), length > 0),
        ] {
            fs::write(&path, &text).unwrap();
            let bookmark = bookmark_at(&mut reactor, &path, length);
            fs::write(&path, &content).unwrap();
            for follow in [true, false] {
                let mut options = TailOptions::new(after(&bookmark));
                if !follow {
                    options.snapshot();
                }
                let end = if follow { Read::UpToDate } else { Read::Ended };
                let tail = reactor.tail_file(&path, options, Token(0)).unwrap();
                let mut start = length;
                if other {
                    assert_eq!(read_on(&mut reactor, tail), (Vec::new(), Read::Truncated));
                    start = 0;
                }
                let rest = content[start..].to_vec();
                assert_eq!(read_on(&mut reactor, tail), (rest, end), "{bookmark} {other}");
                reactor.close(tail).unwrap();
            }
        }
    }
}

#[test]
fn a_bookmark_of_a_tail_that_was_not_told_of_a_truncation_tells_the_next_one() {
    let mut reactor = without_cgroup();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    fs::write(&path, noise(100)).unwrap();
    let tail = reactor.tail_file(&path, Position::Start, Token(0)).unwrap();
    assert_eq!(reactor.read(tail, &mut [0; 50]).unwrap(), Read::Data(50));
    fs::write(&path, MORE).unwrap();
    let bookmark: Bookmark = reactor.bookmark(tail).unwrap();
    assert_eq!(bookmark.to_string(), "50:gone");
    // Nor does it get lost for the tail itself.
    for tail in [tail, reactor.tail_file(&path, Position::After(bookmark), Token(0)).unwrap()] {
        assert_eq!(read_on(&mut reactor, tail), (Vec::new(), Read::Truncated));
        assert_eq!(read_on(&mut reactor, tail).0, MORE.as_bytes());
    }
    reactor.close(tail).unwrap();
    let error = reactor.bookmark(tail).unwrap_err();
    assert!(matches!(error, Error::Tail(TailError::Unknown(_))), "{error}");
}

#[test]
fn a_truncation_is_reported_to_every_tail_that_is_caught_up() {
    let Some(mut world) = World::new() else { return };
    for (length, regrow) in
        [(0, ""), (40, ""), (0, "short"), (0, MORE), (40, MORE), (0, &MORE.repeat(50))]
    {
        let path = file_with(&world, noise(100));
        let (start, end) =
            (world.tail_file(&path, Position::Start), world.tail_file(&path, Position::End));
        world.until("the tail has caught up", |world| bytes(world, start) == 100);
        world.turn(Some(Duration::ZERO));
        // Both between two reads.
        truncate(&path, length);
        append(&path, regrow);
        let expected =
            [&noise(100)[..usize::try_from(length).unwrap()], regrow.as_bytes()].concat();
        let what = format!("truncated to {length} and grown by {}", regrow.len());
        world.until(&what, |world| {
            [start, end].iter().all(|tail| world.transcripts[tail].truncated_at.len() == 1)
                && bytes(world, start) == 100 + expected.len()
                && bytes(world, end) == expected.len()
        });
        assert_eq!(world.transcripts[&start].bytes[100..], expected, "{what}");
        assert_eq!(world.transcripts[&end].bytes, expected, "{what}");
        assert_eq!(world.transcripts[&start].truncated_at, [100], "{what}");
        assert_eq!(world.transcripts[&end].truncated_at, [0], "{what}");
        // The tails go on as before.
        append(&path, "!");
        world.until(&what, |world| bytes(world, end) == expected.len() + 1);
        for tail in [start, end] {
            world.reactor.close(tail).unwrap();
        }
    }
}

#[test]
fn a_truncation_before_the_first_read_is_reported() {
    let Some(mut world) = World::new() else { return };
    for regrow in ["", "short", MORE] {
        let path = file_with(&world, noise(64));
        let end = world.tail_file(&path, Position::End);
        truncate(&path, 0);
        append(&path, regrow);
        world.until("the tail has reported it and has the new bytes", |world| {
            world.transcripts[&end].truncated_at == [0] && bytes(world, end) == regrow.len()
        });
        assert_eq!(world.text(end), regrow);
        world.reactor.close(end).unwrap();
    }
}

#[test]
fn a_tail_that_is_behind_is_told_of_a_truncation_and_given_no_zeros() {
    for window in [16, 64 * 1024] {
        let Some(mut world) = World::with(|config| {
            config.window_bytes(window);
        }) else {
            return;
        };
        for regrow in ["", "short", MORE] {
            let path = file_with(&world, noise(80));
            let caught_up = world.tail_file(&path, Position::Start);
            let behind = world.reactor.tail_file(&path, Position::Start, Token(1)).unwrap();
            world.until("the tail has caught up", |world| bytes(world, caught_up) == 80);
            world.turn(Some(Duration::ZERO));
            assert_eq!(world.reactor.read(behind, &mut [0; 10]).unwrap(), Read::Data(10));
            truncate(&path, 0);
            append(&path, regrow);
            world.until("the other tail has reported it", |world| {
                world.transcripts[&caught_up].truncated_at.len() == 1
            });
            assert_eq!(world.reactor.read(behind, &mut [0; 10]).unwrap(), Read::Truncated);
            assert_eq!(world.reactor.position(behind).unwrap(), 0);
            world.transcripts.insert(behind, Default::default());
            world.drain(behind);
            world.until("both have the new bytes", |world| {
                bytes(world, behind) == regrow.len() && bytes(world, caught_up) == 80 + regrow.len()
            });
            assert_eq!(world.text(behind), regrow, "window of {window}");
            assert_eq!(world.transcripts[&behind].truncated_at.len(), 0, "reported twice");
            world.reactor.close(behind).unwrap();
            world.reactor.close(caught_up).unwrap();
        }
    }
}

#[test]
fn a_tail_that_reads_the_file_itself_is_told_that_it_was_cut_off() {
    let Some(mut world) = World::new() else { return };
    let path = file_with(&world, noise(1000));
    let tail = world.reactor.tail_file(&path, Position::Start, Token(0)).unwrap();
    assert_eq!(world.reactor.read(tail, &mut [0; 100]).unwrap(), Read::Data(100));
    truncate(&path, 50);
    assert_eq!(world.reactor.read(tail, &mut [0; 100]).unwrap(), Read::Truncated);
    world.transcripts.insert(tail, Default::default());
    world.drain(tail);
    world.until("it has what is there now", |world| bytes(world, tail) == 50);
    assert_eq!(world.transcripts[&tail].bytes, noise(50));
    // The same with `fill_buf`.
    world.reactor.close(tail).unwrap();
    let path = file_with(&world, noise(1000));
    let tail = world.reactor.tail_file(&path, Position::Start, Token(0)).unwrap();
    truncate(&path, 50);
    assert_eq!(world.reactor.fill_buf(tail).unwrap(), Fill::Truncated);
}

#[test]
fn what_was_cut_off_is_not_shown_to_a_tail_that_was_opened_afterwards() {
    let Some(mut world) = World::new() else { return };
    let path = file_with(&world, noise(100));
    let first = world.tail_file(&path, Position::Start);
    world.until("the tail has caught up", |world| bytes(world, first) == 100);
    world.turn(Some(Duration::ZERO));
    truncate(&path, 0);
    append(&path, "new");
    let (start, end) =
        (world.tail_file(&path, Position::Start), world.tail_file(&path, Position::End));
    world.until("the tails have what is there now", |world| {
        bytes(world, start) >= 3 && bytes(world, first) >= 103
    });
    append(&path, "er");
    world.until("the tails have the rest", |world| {
        bytes(world, start) >= 5 && bytes(world, end) >= 2
    });
    assert_eq!((world.text(start).as_str(), world.text(end).as_str()), ("newer", "er"));
    assert!(world.transcripts[&start].truncated_at.is_empty());
}

#[test]
fn a_tail_on_a_finished_job_is_told_that_the_log_was_cut_off() {
    let Some(mut world) = World::new() else { return };
    let job = world.spawn(Command::new("printf").arg(String::from_utf8(noise(1000)).unwrap()));
    world.finish(job);
    let path = world.reactor.status(job).unwrap().output.unwrap();
    for length in [50, 0] {
        let tail = world.reactor.tail(job, Position::Offset(10), Token(0)).unwrap();
        truncate(&path, length);
        assert_eq!(world.reactor.read(tail, &mut [0; 100]).unwrap(), Read::Truncated);
        assert_eq!(world.reactor.read(tail, &mut [0; 100]).unwrap(), Read::Ended);
        world.reactor.close(tail).unwrap();
        truncate(&path, 1000);
    }
}

#[test]
fn a_log_that_its_job_has_replaced_or_removed_is_an_error_and_no_other_file_is_read() {
    let Some(mut world) = World::new() else { return };
    let secret = file_with(&world, "not for this tail");
    type Naming = fn(&Path, &Path);
    let cases: [(&str, Naming); 5] = [
        ("replaced", |log, secret| fs::rename(secret, log).unwrap()),
        ("replaced", |log, _| symlink("/etc/passwd", log).unwrap()),
        // Opening a FIFO for reading blocks until there is a writer, unless O_NONBLOCK is given.
        ("replaced", |log, _| {
            rustix::fs::mknodat(CWD, log, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        }),
        ("replaced", |log, _| drop(UnixListener::bind(log).unwrap())),
        ("removed", |_, _| {}),
    ];
    for (expected, give_name_away) in cases {
        let (job, input) = typist(&mut world);
        let log = world.reactor.status(job).unwrap().output.unwrap();
        fs::remove_file(&log).unwrap();
        give_name_away(&log, &secret);
        let told = |error: &Error| {
            let text = error.to_string();
            assert!(text.contains(expected) && text.contains(&*log.to_string_lossy()), "{text}");
        };
        told(&world.reactor.tail(job, Position::Start, Token(0)).unwrap_err());
        drop(input);
        let report = world.finish(job);
        let [problem] = &report.problems[..] else { panic!("{report:?}") };
        told(problem);
        told(&world.reactor.tail(job, Position::Start, Token(0)).unwrap_err());
        world.reactor.remove(job).unwrap();
        assert!(fs::symlink_metadata(&log).is_err(), "{expected}: the name is left");
        assert_eq!(world.reactor.census().watches, 0);
    }
}

#[test]
fn a_log_that_is_open_stays_the_one_that_was_made_whatever_becomes_of_its_name() {
    let Some(mut world) = World::new() else { return };
    let (job, mut input) = typist(&mut world);
    let log = world.reactor.status(job).unwrap().output.unwrap();
    let tail = world.tail(job, Position::Start);
    fs::remove_file(&log).unwrap();
    fs::write(&log, "another file").unwrap();
    let late = world.tail(job, Position::Start);
    input.write_all(b"the log\n").unwrap();
    drop(input);
    let report = world.finish(job);
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    assert_eq!((world.text(tail).as_str(), world.text(late).as_str()), ("the log\n", "the log\n"));
}

#[test]
fn a_job_that_truncates_its_own_log_is_followed_all_the_same() {
    let Some(mut world) = World::new() else { return };
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let mut input = File::from(write);
    let mut command = sh("echo before; read line; : > /dev/stderr; echo after; read line");
    let job = world.spawn(command.stdin_fd(read));
    let tail = world.tail(job, Position::Start);
    world.until("it has the first line", |world| bytes(world, tail) == 7);
    input.write_all(b"go\n").unwrap();
    world.until("it has the second line", |world| bytes(world, tail) == 13);
    drop(input);
    let report = world.finish(job);
    assert_eq!(world.text(tail), "before\nafter\n");
    assert_eq!(world.transcripts[&tail].truncated_at, [7]);
    assert_eq!(report.output_bytes, 6);
}

#[test]
fn the_loop_of_the_guide_reads_on_behind_a_truncation() {
    for window in [16, 64 * 1024] {
        let Some(mut world) = World::with(|config| {
            config.window_bytes(window);
        }) else {
            return;
        };
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let (mut input, mut asked) = (Some(File::from(write)), false);
        let before = String::from_utf8(noise(100)).unwrap();
        let script =
            format!("printf {before}; read line; : > /dev/stderr; printf after; read line");
        let reactor = &mut world.reactor;
        let job = reactor.spawn(sh(&script).stdin_fd(read), Token(1)).unwrap();
        reactor.tail(job, Position::Start, Token(2)).unwrap();

        let mut events = Events::with_capacity(16);
        let (mut output, mut truncated_at) = (Vec::new(), Vec::new());
        let report = 'running: loop {
            reactor.poll(&mut events, Some(PATIENCE)).unwrap();
            assert!(!events.is_empty(), "timed out after {} bytes", output.len());
            for event in &events {
                match event {
                    Event::Readable { tail, .. } => {
                        while let Some(chunk) = reactor.next_chunk(*tail).unwrap() {
                            if chunk.truncated {
                                truncated_at.push(output.len());
                            }
                            output.extend_from_slice(chunk.bytes);
                        }
                    }
                    Event::Finished { report, .. } => break 'running report.clone(),
                    _ => {}
                }
            }
            match output.len() {
                // The first part is read, so the job may truncate its log.
                100 if !asked => {
                    asked = true;
                    input.as_mut().unwrap().write_all(b"go\n").unwrap();
                }
                // The second part is read, although the job has not ended yet.
                105 => input = None,
                _ => {}
            }
        };
        assert_eq!(output, format!("{before}after").as_bytes());
        assert_eq!(truncated_at, [100]);
        assert_eq!(report.output_bytes, 5);
    }
}

/// Sets a sysctl until it is dropped. A lock on the file lets only one exist at a time, across all
/// test processes.
struct Sysctl {
    file: File,
    path: &'static str,
    before: String,
}

impl Sysctl {
    fn set(path: &'static str, value: &str) -> Option<Self> {
        let Ok(file) = OpenOptions::new().read(true).write(true).open(path) else {
            skip(format_args!("{path} cannot be written here"));
            return None;
        };
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let before = fs::read_to_string(path).unwrap();
        let sysctl = Self { file, path, before };
        if fs::write(path, value).is_err() {
            skip(format_args!("{path} cannot be written here"));
            return None;
        }
        Some(sysctl)
    }
}

impl Drop for Sysctl {
    fn drop(&mut self) {
        fs::write(self.path, &self.before).unwrap();
        let _ = rustix::fs::flock(&self.file, rustix::fs::FlockOperation::Unlock);
    }
}

#[test]
fn no_byte_and_no_job_is_lost_when_the_kernel_drops_events() {
    if !alone!() {
        return;
    }
    // An inotify instance keeps the limit that it was made with, so the limit is low only for a
    // moment.
    let Some(lowered) = Sysctl::set("/proc/sys/fs/inotify/max_queued_events", "16") else { return };
    let world = World::new();
    let mut witness = Inotify::init().unwrap();
    drop(lowered);
    let Some(mut world) = world else { return };

    let dir = world.place.dir.path().to_owned();
    let paths: Vec<PathBuf> = (0..40).map(|number| dir.join(format!("{number}.log"))).collect();
    let mut tails = Vec::new();
    for path in &paths {
        fs::write(path, "").unwrap();
        witness.watches().add(path, WatchMask::MODIFY).unwrap();
        tails.push(world.tail_file(path, Position::End));
    }
    // A job that waits for a process whose end only the watch on its cgroup reports.
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let mut command = sh("exec 3<&0; cat <&3 >/dev/null & exit");
    let job = world.spawn(command.end_policy(EndPolicy::WaitAll).stdin_fd(read));
    world.until("the main process is gone", |world| world.exited.contains_key(&job));
    world.turn(Some(Duration::ZERO));

    let rest = cgroup_members(&world, job);
    for line in ["one\n", "two\n", "three\n"] {
        for path in &paths {
            append(path, line);
        }
    }
    drop(write);
    assert_eq!(rest.len(), 1);
    rest.iter().for_each(wait_for_exit);

    world.until("every tail has every line", |world| {
        tails.iter().all(|tail| bytes(world, *tail) == 14)
    });
    assert!(tails.iter().all(|tail| world.text(*tail) == "one\ntwo\nthree\n"));
    world.finish(job);
    // Everything goes on as before.
    append(&paths[39], "four\n");
    world.until("the tail has the line", |world| bytes(world, tails[39]) == 19);

    let mut buffer = [0; 8192];
    let overflowed = witness
        .read_events(&mut buffer)
        .unwrap()
        .any(|event| event.mask.contains(EventMask::Q_OVERFLOW));
    assert!(overflowed, "nothing was dropped: the test has shown nothing");
}

fn cgroup_members(world: &World, job: JobId) -> Vec<OwnedFd> {
    let cgroup = world.reactor.status(job).unwrap().cgroup.unwrap();
    let pids = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap();
    let open =
        |line: &str| pidfd_open(Pid::from_raw(line.parse().ok()?)?, PidfdFlags::empty()).ok();
    pids.lines().filter_map(open).collect()
}

#[test]
fn a_reached_limit_on_watches_is_named_and_leaves_nothing_behind() {
    const MARK: &str = "JOBWORKER_TEST_USER_NAMESPACE";
    if !alone!() {
        return;
    }
    if std::env::var_os(MARK).is_none() {
        // The limit of a user namespace of its own disturbs nobody. A thread cannot enter one
        // alone, so this takes a new process.
        let mut inside = std::process::Command::new("unshare");
        let skips = Elsewhere::told_by(&mut inside);
        let inside = inside
            .args(["--user", "--map-root-user"])
            .arg(std::env::current_exe().unwrap())
            .args([
                "tails::a_reached_limit_on_watches_is_named_and_leaves_nothing_behind",
                "--exact",
                "--nocapture",
            ])
            .env(MARK, "1")
            .status();
        skips.count("tails::a_reached_limit_on_watches_is_named_and_leaves_nothing_behind");
        match inside {
            Ok(status) if status.code() == Some(1) => {
                skip("no user namespace can be made here");
            }
            Ok(status) => {
                assert!(status.success(), "the test has failed in a user namespace of its own");
            }
            Err(error) => skip(format_args!("unshare cannot be run: {error}")),
        }
        return;
    }
    let place = Place::new();
    let mut config = place.config();
    // So that it does not matter whether cgroups can be made in here.
    config.containment(Containment::ProcessGroup);
    let mut world = World::around(Reactor::with_config(&config).unwrap(), place);
    fs::write("/proc/sys/user/max_inotify_watches", "2").unwrap();

    let dir = world.place.dir.path().to_owned();
    let paths: Vec<PathBuf> = (0..3).map(|number| dir.join(format!("{number}.log"))).collect();
    paths.iter().for_each(|path| fs::write(path, "bytes\n").unwrap());
    let tails = [&paths[0], &paths[1]].map(|path| world.tail_file(path, Position::Start));
    let before = world.footprint();
    let error = world.reactor.tail_file(&paths[2], Position::Start, Token(0)).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(paths[2].to_str().unwrap()), "{text}");
    assert!(text.contains("raise the sysctl fs.inotify.max_user_watches"), "{text}");
    assert!(!text.contains("No space"), "it has nothing to do with a disk: {text}");
    // Nor can the directories on the way to a file.
    let by_name = *TailOptions::new(Position::Start).by_name();
    let error = world.reactor.tail_file(&paths[1], by_name, Token(0)).unwrap_err();
    assert_eq!(error.kind(), jobworker::ErrorKind::LimitReached);
    assert!(error.to_string().contains("fs.inotify.max_user_watches"), "{error}");
    assert_eq!(world.footprint(), before);
    // A snapshot needs no watch, nor does a second tail on a file that is watched.
    let snapshot = world.tail_file(&paths[2], TailOptions::new(Position::Start).snapshot());
    let second = world.tail_file(&paths[1], Position::Start);
    world.until("they have their bytes", |world| {
        [snapshot, second].iter().all(|tail| bytes(world, *tail) == 6)
    });
    // A job runs to its end, but cannot be followed meanwhile.
    let job = world.spawn(&sh("echo hi; sleep 0.01 & exit"));
    let error = world.reactor.tail(job, Position::Start, Token(0)).unwrap_err();
    assert!(error.to_string().contains("fs.inotify.max_user_watches"), "{error}");
    world.finish(job);
    let tail = world.tail(job, Position::Start);
    world.until("the finished job is read", |world| world.transcripts[&tail].ended);
    assert_eq!(world.text(tail), "hi\n");
    world.reactor.remove(job).unwrap();
    // Once a watch is free again, another file can be followed.
    world.reactor.close(tails[0]).unwrap();
    let tail = world.tail_file(&paths[2], Position::End);
    append(&paths[2], "more\n");
    world.until("the tail has the line", |world| bytes(world, tail) == 5);
}

#[test]
fn a_window_of_no_bytes_and_one_without_bound_are_taken_for_the_least_and_the_greatest() {
    for bytes in [0, 1, 17, usize::MAX] {
        let Some(mut world) = World::with(|config| {
            config.window_bytes(bytes);
        }) else {
            return;
        };
        let job = world.spawn(&sh("seq 500"));
        world.finish(job);
        let tail = world.reactor.tail(job, Position::Start, Token(0)).unwrap();
        let mut found = Vec::new();
        while let Some(chunk) = world.reactor.next_chunk(tail).unwrap() {
            assert!(!chunk.bytes.is_empty());
            found.extend_from_slice(chunk.bytes);
        }
        let expected: String = (1..=500).map(|number| format!("{number}\n")).collect();
        assert_eq!(String::from_utf8(found).unwrap(), expected);
        world.reactor.remove(job).unwrap();
    }
}

#[test]
fn an_interface_file_of_a_cgroup_is_not_followed_as_a_log() {
    let Some(mut world) = World::new() else { return };
    let job = world.spawn(&sh("exec sleep 1000"));
    let events = world.reactor.status(job).unwrap().cgroup.unwrap().join("cgroup.events");
    let error = world.reactor.tail_file(&events, Position::Start, Token(0)).unwrap_err();
    assert!(error.to_string().contains("interface file of a cgroup"), "{error}");
    // Following the file would have taken over the reactor's own watch on it.
    world.reactor.freeze(job).unwrap();
    world.reactor.kill(job).unwrap();
    world.finish(job);
    world.reactor.remove(job).unwrap();
}
