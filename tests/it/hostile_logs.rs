//! Defects of the second review about logs and their tails, each under its name: what a job may do
//! to its log must neither stop the host nor deceive a reader.

use std::collections::HashSet;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use jobworker::{Event, Exit, Fill, Output, Position, Read, Stream, TailId, TailOptions, Token};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::skips::skip;
use crate::support::{PATIENCE, World, append, rounds, sh};

/// Whether a descriptor is readable now.
fn is_readable(fd: impl AsFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&now)).unwrap() == 1
}

/// The file system of the logs was trusted: a job put a FIFO in place of its log, and opening a
/// tail waited for a writer of it.
#[test]
fn m3_what_a_job_puts_in_place_of_its_log_is_neither_followed_nor_measured() {
    let Some(mut world) = World::new() else { return };
    for (put, expected) in [
        ("rm \"$log\"; mkfifo \"$log\"", "replaced"),
        ("rm \"$log\"; mkdir \"$log\"", "replaced"),
        ("rm \"$log\"; ln -s /dev/zero \"$log\"", "replaced"),
        ("rm \"$log\"; echo 'of another file' >\"$log\"", "replaced"),
        ("rm \"$log\"", "removed"),
    ] {
        let before = world.footprint();
        let script =
            format!("echo output; log=$(readlink /proc/$$/fd/1); {put}; echo done >&2; sleep 1000");
        let job = world.spawn(sh(&script).output(Output::Split));
        let mut other = TailOptions::new(Position::Start);
        let other = world.tail(job, *other.stream(Stream::Error));
        world.until("it has done that", |world| world.text(other) == "done\n");
        let error = world.reactor.tail(job, Position::Start, Token(0)).unwrap_err();
        assert!(error.to_string().contains(expected), "{put}: {error}");
        world.reactor.kill(job).unwrap();
        let report = world.finish(job);
        let [problem] = &report.problems[..] else { panic!("{put}: {report:?}") };
        assert!(problem.to_string().contains(expected), "{put}: {problem}");
        assert_eq!(report.output_bytes, 0, "{put}");
        world.reactor.remove(job).unwrap();
        world.transcripts.clear();
        assert_eq!(world.footprint().log_files, before.log_files, "{put}");
        assert_eq!(world.footprint().census, before.census, "{put}");
    }
}

/// inotify was read until it was empty, which watches that are armed can prevent for ever.
#[test]
fn m18_one_poll_takes_a_bounded_number_of_inotify_events() {
    const ROUNDS: usize = 5000;
    let Some(mut world) = World::new() else { return };
    let paths = ["first", "second", "quiet"].map(|name| world.place.dir.path().join(name));
    let tails = paths.clone().map(|path| {
        append(&path, "");
        world.tail_file(path, Position::End)
    });
    world.turn(Some(Duration::ZERO));
    world.turn(Some(Duration::ZERO));
    assert!(!is_readable(&world.reactor), "there is no work");
    // The kernel merges an event only with the last one in the queue, so these are two for each
    // round.
    let mut files =
        [&paths[0], &paths[1]].map(|path| File::options().append(true).open(path).unwrap());
    for _ in 0..ROUNDS {
        files.iter_mut().for_each(|file| file.write_all(b"line\n").unwrap());
    }
    append(&paths[2], "quiet\n");
    let mut polls = 0;
    // What is left is work, for a host that polls the descriptor as well.
    while is_readable(&world.reactor) {
        world.turn(Some(Duration::ZERO));
        polls += 1;
    }
    assert!(polls > 2 * ROUNDS / 1024, "{polls} polls have taken {} events", 2 * ROUNDS);
    for tail in [tails[0], tails[1]] {
        assert_eq!(world.transcripts[&tail].bytes, b"line\n".repeat(ROUNDS));
    }
    assert_eq!(world.text(tails[2]), "quiet\n");
}

/// With 20 busy writers a poll took up to 7 s, and a quiet log was read up to 11 s late.
#[test]
fn m18_poll_returns_beside_loud_logs_and_quiet_ones_are_read() {
    let Some(mut world) = World::new() else { return };
    let loud: Vec<_> = (0..20)
        .map(|_| world.spawn(&sh("while :; do echo a line of a log that never ends; done")))
        .collect();
    for job in &loud {
        world.reactor.tail(*job, Position::End, Token(0)).unwrap();
    }
    let quiet: Vec<_> = (0..200)
        .map(|number| {
            let path = world.place.dir.path().join(format!("quiet-{number}"));
            append(&path, "");
            (world.tail_file(&path, Position::End), path)
        })
        .collect();
    let deadline = Instant::now() + PATIENCE;
    let mut longest = Duration::ZERO;
    let mut buffer = vec![0; 64 * 1024];
    for round in 1..=3 {
        quiet.iter().for_each(|(_, path)| append(path, "line\n"));
        let mut missing: HashSet<_> = quiet.iter().map(|(tail, _)| *tail).collect();
        while !missing.is_empty() {
            assert!(Instant::now() < deadline, "{} quiet logs were not read", missing.len());
            let start = Instant::now();
            world.reactor.poll(&mut world.events, Some(Duration::ZERO)).unwrap();
            longest = longest.max(start.elapsed());
            let readable: Vec<_> = world.events.iter().filter_map(Event::tail).collect();
            for tail in readable {
                let mut got = 0;
                while let Read::Data(length) = world.reactor.read(tail, &mut buffer).unwrap() {
                    got += length;
                }
                if missing.remove(&tail) {
                    assert_eq!(got, 5, "round {round}");
                }
            }
        }
    }
    // It is a millisecond or two; the bound is for a machine that has other things to do.
    assert!(longest < Duration::from_secs(5), "a poll took {longest:?}");
    for job in loud {
        world.reactor.kill(job).unwrap();
        world.finish(job);
    }
}

/// A log of 3,000 bytes is truncated to `keep` bytes and written anew, over and over; says how
/// often a reader has got bytes of two contents without `Truncated` in between, and how often it
/// was told of a truncation.
fn torn_reads(world: &mut World, path: &Path, keep: u64, truncations: usize) -> (usize, usize) {
    let mut file = File::options().append(true).create(true).open(path).unwrap();
    file.write_all(&vec![b'-'; usize::try_from(keep).unwrap()]).unwrap();
    let tail = world.reactor.tail_file(path, Position::Start, Token(0)).unwrap();
    let done = AtomicBool::new(false);
    let (mut torn, mut told, mut last) = (0, 0, None);
    thread::scope(|scope| {
        scope.spawn(|| {
            for truncation in 0..truncations {
                // 1 to 200.
                let line = [u8::try_from(truncation % 200).unwrap() + 1; 100];
                file.set_len(keep).unwrap();
                (0..30).for_each(|_| file.write_all(&line).unwrap());
            }
            done.store(true, Ordering::Release);
        });
        let mut buffer = [0; 8192];
        while !done.load(Ordering::Acquire) {
            world.reactor.poll(&mut world.events, Some(Duration::ZERO)).unwrap();
            if world.events.is_empty() {
                continue;
            }
            loop {
                let offset = world.reactor.position(tail).unwrap();
                match world.reactor.read(tail, &mut buffer).unwrap() {
                    Read::Data(length) => {
                        // What is kept is the same in every content.
                        let kept = usize::try_from(keep.saturating_sub(offset)).unwrap();
                        for byte in &buffer[kept.min(length)..length] {
                            torn += usize::from(last.is_some_and(|last| last != *byte));
                            last = Some(*byte);
                        }
                    }
                    Read::Truncated => {
                        told += 1;
                        last = None;
                    }
                    Read::UpToDate => break,
                    Read::Ended | Read::Skipped { .. } | Read::Replaced { .. } => {
                        unreachable!("a file has no end")
                    }
                }
            }
        }
    });
    world.reactor.close(tail).unwrap();
    (torn, told)
}

/// A read that was overtaken by a truncation within a page was taken for growth: on tmpfs once in
/// some ten thousand truncations to nothing, and on ext4 if some bytes were kept.
#[test]
fn m19_a_read_is_not_torn_by_a_truncation() {
    let Some(mut world) = World::new() else { return };
    let shm = Path::new("/dev/shm").is_dir().then(|| {
        tempfile::Builder::new().prefix("jobworker-test-").tempdir_in("/dev/shm").unwrap()
    });
    let here = world.place.dir.path().to_owned();
    for directory in shm.iter().map(|dir| dir.path().to_owned()).chain([here]) {
        for (keep, truncations) in [(0, 100_000), (20, 30_000)] {
            let path = directory.join(format!("torn-{keep}"));
            let (torn, told) = torn_reads(&mut world, &path, keep, rounds(truncations));
            println!("{}: {torn} torn, {told} truncations told", path.display());
            assert_eq!(torn, 0, "bytes of another content at {}", path.display());
            assert!(told > 0);
        }
    }
}

/// Reads the next bytes of a tail, by either of the two ways.
fn read_by(world: &mut World, tail: TailId, buffer: &mut [u8], fill: bool) -> Read {
    if !fill {
        return world.reactor.read(tail, buffer).unwrap();
    }
    let read = match world.reactor.fill_buf(tail).unwrap() {
        Fill::Data(shown) => {
            let length = shown.len().min(buffer.len());
            buffer[..length].copy_from_slice(&shown[..length]);
            Read::Data(length)
        }
        Fill::UpToDate => Read::UpToDate,
        Fill::Truncated => Read::Truncated,
        Fill::Skipped { bytes } => Read::Skipped { bytes },
        Fill::Replaced { missed } => Read::Replaced { missed },
        Fill::Ended => Read::Ended,
    };
    world.reactor.consume(tail, buffer.len()).unwrap();
    read
}

/// Behind its window a tail was given the bytes of a log that was written anew, after those of the
/// log before, if only the newest bytes were the same.
#[test]
fn m20_a_tail_behind_the_window_gets_no_mixture_of_two_contents() {
    const SIZE: usize = 488_000;
    let Some(mut world) = World::new() else { return };
    let content = |byte: u8| [vec![byte; SIZE], b"the last line is the same\n".to_vec()].concat();
    for (number, fill) in [false, true].into_iter().enumerate() {
        for snapshot in [false, true] {
            let path = world.place.dir.path().join(format!("log-{number}-{snapshot}"));
            std::fs::write(&path, content(b'a')).unwrap();
            let mut options = TailOptions::new(Position::Start);
            if snapshot {
                options.snapshot();
            }
            let tail = world.reactor.tail_file(&path, options, Token(0)).unwrap();
            let (mut bytes, mut truncated, mut buffer) = (Vec::new(), 0, [0; 4000]);
            loop {
                let read = read_by(&mut world, tail, &mut buffer, fill);
                match read {
                    Read::Data(length) => bytes.extend_from_slice(&buffer[..length]),
                    Read::Truncated => {
                        truncated += 1;
                        assert!(bytes.iter().all(|byte| *byte == b'a'), "{} bytes", bytes.len());
                        bytes.clear();
                    }
                    Read::UpToDate if bytes.is_empty() => {
                        world.reactor.poll(&mut world.events, None).unwrap();
                    }
                    Read::UpToDate | Read::Ended | Read::Skipped { .. } | Read::Replaced { .. } => {
                        break;
                    }
                }
                if bytes.len() == 4000 && truncated == 0 {
                    std::fs::write(&path, content(b'b')).unwrap();
                }
            }
            assert_eq!(truncated, 1, "a truncation went unnoticed");
            assert!(bytes.iter().all(|byte| *byte == b'b'));
            assert_eq!(snapshot, bytes.is_empty());
            world.reactor.close(tail).unwrap();
        }
    }
}

/// A tail that was behind was told of truncations without end, or went on with the bytes of the log
/// before, when it came to a window that a job had written anew up to its last bytes.
#[test]
fn m20_a_tail_that_comes_to_the_window_gets_no_mixture_of_two_contents() {
    const SIZE: usize = 100_000;
    let Some(mut world) = World::with(|config| {
        config.window_bytes(4096);
    }) else {
        return;
    };
    let content = |byte: u8| [vec![byte; SIZE], b"the last line is the same\n".to_vec()].concat();
    let whole = content(b'b');
    for (number, length) in [1, 16, 100, 1000, 4000, 4096, 10_000, SIZE].into_iter().enumerate() {
        for fill in [false, true] {
            let path = world.place.dir.path().join(format!("log-{number}-{fill}"));
            std::fs::write(&path, b"").unwrap();
            let first = world.tail_file(&path, Position::Start);
            append(&path, content(b'a'));
            world.until("the log is read", |world| {
                world.transcripts[&first].bytes.len() == whole.len()
            });
            let tail = world.reactor.tail_file(&path, Position::Start, Token(0)).unwrap();
            std::fs::write(&path, &whole).unwrap();
            let (mut bytes, mut truncated, mut buffer) = (Vec::new(), 0, vec![0; length]);
            loop {
                let read = read_by(&mut world, tail, &mut buffer, fill);
                match read {
                    Read::Data(length) => bytes.extend_from_slice(&buffer[..length]),
                    Read::Truncated => {
                        truncated += 1;
                        assert!(truncated < 3, "a truncation is told again and again");
                        assert!(bytes.iter().all(|byte| *byte == b'b'));
                        bytes.clear();
                    }
                    Read::UpToDate if bytes.len() < whole.len() => {
                        world.reactor.poll(&mut world.events, None).unwrap();
                    }
                    Read::UpToDate => break,
                    other => panic!("{other:?}"),
                }
            }
            assert!(bytes == whole, "{length} at a time, after {truncated} truncations");
            world.reactor.close(tail).unwrap();
            world.reactor.close(first).unwrap();
        }
    }
}

/// The loop read a whole hole, 64 KiB in each turn, because a tail waited behind it.
#[test]
fn m14_a_hole_that_no_tail_waits_for_is_not_read() {
    const OFFSET: u64 = 1 << 42;
    let Some(mut world) = World::new() else { return };
    let path = world.place.dir.path().join("log");
    append(&path, "begin\n");
    let ahead = world.tail_file(&path, Position::Offset(OFFSET));
    world.turn(Some(Duration::ZERO));
    world.turn(Some(Duration::ZERO));
    File::options().write(true).open(&path).unwrap().set_len(OFFSET).unwrap();
    let mut turns = 0;
    while is_readable(&world.reactor) {
        world.turn(Some(Duration::ZERO));
        turns += 1;
        assert!(turns < 1000, "the loop goes on");
    }
    append(&path, "end\n");
    world.until("the tail has its line", |world| world.text(ahead) == "end\n");
}

/// One ftruncate by a job made `tail` read for hours.
#[test]
fn m4_the_last_lines_of_a_sparse_log_are_found_at_once() {
    let Some(mut world) = World::new() else { return };
    let path = world.place.dir.path().join("log");
    append(&path, "first\nsecond\n");
    let file = File::options().append(true).open(&path).unwrap();
    // The largest file of ext4 has 16 TiB; elsewhere it may be less.
    let size = [15 << 40, 1 << 40, 1 << 31].into_iter().find(|size| file.set_len(*size).is_ok());
    let size = size.expect("a sparse file");
    append(&path, "last\n");
    // The hole belongs to the line behind it.
    for (lines, offset) in [(0, size + 5), (1, 13), (2, 6), (9, 0)] {
        for snapshot in [false, true] {
            let mut options = TailOptions::new(Position::LastLines(lines));
            if snapshot {
                options.snapshot();
            }
            let start = Instant::now();
            let tail = world.reactor.tail_file(&path, options, Token(0)).unwrap();
            let deadline = Instant::now() + PATIENCE;
            let took = start.elapsed();
            // Some microseconds. Reading the hole takes seconds for each GiB.
            assert!(took < Duration::from_secs(1), "it took {took:?}");
            while world.reactor.position(tail).unwrap() != offset {
                assert!(Instant::now() < deadline, "the last {lines} lines were not found");
                world.reactor.poll(&mut world.events, Some(Duration::ZERO)).unwrap();
            }
            world.reactor.close(tail).unwrap();
        }
    }
}

/// The search goes on in turns, in which everything else is served.
#[test]
fn m4_a_long_search_for_the_last_lines_does_not_keep_others_waiting() {
    let Some(mut world) = World::new() else { return };
    let dir = world.place.dir.path().to_owned();
    let text = "a line of the log\n".repeat(400_000);
    std::fs::write(dir.join("long"), &text).unwrap();
    append(dir.join("quiet"), "");
    let long = world.tail_file(dir.join("long"), Position::LastLines(399_999));
    world.drain(long);
    assert_eq!(world.text(long), "");
    let quiet = world.tail_file(dir.join("quiet"), Position::End);
    append(dir.join("quiet"), "line\n");
    world.until("the quiet log was read", |world| world.text(quiet) == "line\n");
    assert_eq!(world.text(long), "", "the search takes longer than that");
    assert!(is_readable(&world.reactor), "the search is work");
    let expected = &text[18..];
    world.until("the lines were read", |world| {
        world.transcripts[&long].bytes.len() == expected.len()
    });
    assert_eq!(world.text(long), expected);
}

/// The kernel refuses to read beyond the largest offset, even if the file ends there: the tails of
/// such a log failed with EINVAL.
#[test]
fn low_a_log_of_the_largest_size_is_read() {
    let Some(mut world) = World::new() else { return };
    let Ok(dir) = tempfile::Builder::new().prefix("jobworker-test-").tempdir_in("/dev/shm") else {
        skip("no /dev/shm");
        return;
    };
    let path = dir.path().join("log");
    append(&path, "first\n");
    let size = i64::MAX.cast_unsigned();
    let before = world.tail_file(&path, Position::End);
    world.turn(Some(Duration::ZERO));
    if let Err(error) = File::options().write(true).open(&path).unwrap().set_len(size) {
        skip(format_args!("no file can be so large: {error}"));
        return;
    }
    let mut buffer = [1; 100];
    for (position, offset) in [
        (Position::End, size),
        (Position::Offset(size - 10), size - 10),
        (Position::LastLines(1), 6),
        (Position::Offset(u64::MAX), u64::MAX),
    ] {
        let tail = world.reactor.tail_file(&path, position, Token(0)).unwrap();
        let length = usize::try_from(size.saturating_sub(offset)).unwrap().min(buffer.len());
        let expected = if length == 0 { Read::UpToDate } else { Read::Data(length) };
        let deadline = Instant::now() + PATIENCE;
        while world.reactor.position(tail).unwrap() != offset
            || world.reactor.read(tail, &mut buffer).unwrap() != expected
        {
            assert!(Instant::now() < deadline, "{position:?}");
            world.reactor.poll(&mut world.events, Some(Duration::ZERO)).unwrap();
        }
        assert!(buffer[..length].iter().all(|byte| *byte == 0));
        world.reactor.close(tail).unwrap();
    }
    let read = world.reactor.read(before, &mut buffer).unwrap();
    assert!(matches!(read, Read::Data(_)), "{read:?}");
}

#[test]
fn low_the_largest_window_and_pace_are_limited() {
    let Some(mut world) = World::with(|config| {
        config.window_bytes(usize::MAX).pace(Duration::MAX);
    }) else {
        return;
    };
    // So many lines that the log is paced, and then a last one after a pause.
    let job = world.spawn(&sh("for i in 1 2 3 4 5 6 7 8 9; do echo $i; done; read x; echo end"));
    let tail = world.tail(job, Position::Start);
    let report = world.finish(job);
    assert_eq!(report.exit, Exit::Code(0));
    assert_eq!(world.text(tail), "1\n2\n3\n4\n5\n6\n7\n8\n9\nend\n");
    assert!(world.transcripts[&tail].ended);
    let path = world.place.dir.path().join("log");
    append(&path, "");
    let tail = world.tail_file(&path, Position::Start);
    for _ in 0..20 {
        append(&path, "line\n");
        world.turn(Some(Duration::ZERO));
    }
    world.until("the hot log was read", |world| world.text(tail) == "line\n".repeat(20));
}

/// A snapshot has an end, as the tails of the job have, and was closed with them.
#[test]
fn low_a_snapshot_of_the_file_of_a_log_outlives_its_job() {
    let Some(mut world) = World::new() else { return };
    let job = world.spawn(&sh("echo one line"));
    world.finish(job);
    let path = world.reactor.status(job).unwrap().output.unwrap();
    let snapshot = *TailOptions::new(Position::Start).snapshot();
    let of_file = world.tail_file(&path, snapshot);
    let of_job = world.tail(job, snapshot);
    world.reactor.remove(job).unwrap();
    assert!(world.reactor.position(of_job).is_err());
    world.drain(of_file);
    assert_eq!(world.text(of_file), "one line\n");
    assert!(world.transcripts[&of_file].ended);
}
