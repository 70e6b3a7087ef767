//! The promises of `Command::log_keep` and `Command::log_limit`: the newest bytes of a log stay,
//! older ones are given back to the file system, offsets do not change, and every reader that has
//! missed something hears how many bytes, exactly; a job that prints too much is told of once, and
//! stopped, killed or heard no further. And of `Config::logs_total`: what all logs have together is
//! bounded, at the cost of the oldest of finished jobs.

use std::fs::{self, File};
use std::io::{BufRead, Read as _, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use jobworker::worker::Output as Reader;
use jobworker::{
    ByteSize, Command, Config, Error, ErrorKind, Event, Exit, Fill, Output, OverLimit, Position,
    Reactor, Read, Signal, Stdin, StopCause, Stream, SystemError, TailError, TailOptions, Token,
};

use crate::support::{PATIENCE, Place, World, alone, sh};
use crate::worker::{Threads, log_of, numbers, until};

/// What is kept in these tests.
const KEEP: u64 = 64 << 10;

/// What a log of which [`KEEP`] bytes are kept takes at most once all is done about it: the blocks
/// at both ends, and what the file system takes to find them.
const MOST: u64 = KEEP + (64 << 10);

fn short(script: &str) -> Command {
    let mut command = sh(script);
    command.log_keep(ByteSize::from_bytes(KEEP));
    command
}

/// How much of the file system a log takes.
fn allocated(log: &Path) -> u64 {
    fs::metadata(log).unwrap().blocks() * 512
}

/// Polls until a condition holds of which no event tells.
#[track_caller]
fn polled(world: &mut World, what: &str, mut condition: impl FnMut(&mut World) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition(world) {
        assert!(Instant::now() < deadline, "timed out waiting until {what}");
        world.turn(Some(Duration::from_micros(1500)));
    }
}

fn output_of(world: &World, job: jobworker::JobId) -> std::path::PathBuf {
    world.reactor.status(job).unwrap().output.unwrap()
}

/// What `seq` prints up to this number, and where the part begins that is kept of it.
fn printed(last: usize) -> (Vec<u8>, u64) {
    let all = numbers(last);
    let start = all.len() as u64 - KEEP;
    (all, start)
}

fn from(bytes: &[u8], start: u64) -> &[u8] {
    &bytes[usize::try_from(start).unwrap()..]
}

#[test]
fn a_log_that_nobody_reads_takes_no_more_than_is_kept() {
    let Some(mut world) = World::new() else { return };
    let job = world.spawn(&short("seq 1000000"));
    let report = world.finish(job);
    let (all, start) = printed(1_000_000);
    assert_eq!((report.output_bytes, report.problems.len()), (all.len() as u64, 0));
    let log = output_of(&world, job);
    polled(&mut world, "the rest is given back", |_| allocated(&log) <= MOST);
    assert_eq!(fs::metadata(&log).unwrap().len(), all.len() as u64, "offsets do not change");
    let status = world.reactor.status(job).unwrap();
    assert_eq!(status.output_range, Some(start..all.len() as u64));
    assert_eq!(world.reactor.census().watches, 0);
    let tail = world.tail(job, Position::Start);
    world.until("it is read", |world| world.transcripts[&tail].ended);
    let transcript = &world.transcripts[&tail];
    assert!(transcript.bytes == from(&all, start) && transcript.skipped_at.is_empty());
}

#[test]
fn a_log_is_kept_short_while_the_job_runs_whoever_reads_it() {
    let Some(mut world) = World::new() else { return };
    for read in [false, true] {
        let mut command = short("seq 500000; read _; seq 500001 1000000; read _");
        let job = world.spawn(command.stdin(Stdin::Piped));
        let mut stdin = world.reactor.take_stdin(job).unwrap().unwrap();
        let log = output_of(&world, job);
        let tail = read.then(|| world.tail(job, Position::Start));
        for last in [500_000, 1_000_000] {
            let (all, start) = printed(last);
            polled(&mut world, "it is as short as it is to be", |world| {
                let range = world.reactor.status(job).unwrap().output_range.unwrap();
                let length = range.end - range.start;
                range.end == all.len() as u64
                    && (KEEP..2 * KEEP).contains(&length)
                    && range.start <= start
                    && allocated(&log) <= MOST + KEEP
            });
            stdin.write_all(b"\n").unwrap();
        }
        world.finish(job);
        if let Some(tail) = tail {
            let transcript = world.transcripts[&tail].clone();
            let skipped: u64 = transcript.skipped_at.iter().map(|(_, bytes)| bytes).sum();
            let (all, _) = printed(1_000_000);
            assert_eq!(transcript.bytes.len() as u64 + skipped, all.len() as u64);
        }
        world.reactor.remove(job).unwrap();
    }
}

/// What a tail has read is at the offsets that its gaps say.
#[test]
fn a_tail_gets_every_byte_or_hears_exactly_how_many_it_has_missed() {
    let Some(mut world) = World::new() else { return };
    let job = world.spawn(&short("seq 3000000"));
    let tails = [Position::Start, Position::Offset(1_000_000)].map(|from| world.tail(job, from));
    world.finish(job);
    let all = numbers(3_000_000);
    for (tail, begin) in tails.into_iter().zip([0, 1_000_000]) {
        let transcript = &world.transcripts[&tail];
        assert!(transcript.ended && transcript.truncated_at.is_empty());
        let (mut offset, mut read) = (begin, 0);
        let ends = transcript.skipped_at.iter().copied().chain([(transcript.bytes.len(), 0)]);
        for (at, bytes) in ends {
            let piece = &transcript.bytes[read..at];
            assert!(piece == &all[offset..offset + piece.len()], "at {offset}");
            offset += piece.len() + usize::try_from(bytes).unwrap();
            read = at;
        }
        assert_eq!(offset, all.len());
    }
}

#[test]
fn a_tail_that_keeps_up_misses_nothing() {
    let Some(mut world) = World::new() else { return };
    let script = "i=0; while [ $i -lt 100 ]; do seq -w 5000; i=$((i+1)); read _; done";
    let job = world.spawn(short(script).stdin(Stdin::Piped));
    let mut stdin = world.reactor.take_stdin(job).unwrap().unwrap();
    let tail = world.tail(job, Position::Start);
    let part: String = (1..=5000).map(|line| format!("{line:04}\n")).collect();
    for round in 1..=100 {
        let expected = part.len() * round;
        world.until("it is read", |world| world.transcripts[&tail].bytes.len() == expected);
        stdin.write_all(b"\n").unwrap();
    }
    world.finish(job);
    let transcript = &world.transcripts[&tail];
    assert_eq!(transcript.skipped_at, []);
    assert!(transcript.bytes == part.repeat(100).as_bytes());
    let start = world.reactor.status(job).unwrap().output_range.unwrap().start;
    assert_eq!(start, (part.len() * 100) as u64 - KEEP);
}

#[test]
fn every_way_to_read_says_how_much_is_gone() {
    let Some(mut world) = World::new() else { return };
    let job = world.spawn(&short("seq 1000000"));
    let tails = [(); 3].map(|()| world.tail(job, Position::Offset(5)));
    world.transcripts.clear();
    world.finish(job);
    let (all, start) = printed(1_000_000);
    let bytes = start - 5;
    assert_eq!(world.reactor.read(tails[0], &mut [0; 9]).unwrap(), Read::Skipped { bytes });
    assert_eq!(world.reactor.position(tails[0]).unwrap(), start);
    assert_eq!(world.reactor.fill_buf(tails[1]).unwrap(), Fill::Skipped { bytes });
    let chunk = world.reactor.next_chunk(tails[2]).unwrap().unwrap();
    assert_eq!((chunk.skipped, chunk.bytes, chunk.truncated), (bytes, &b""[..], false));
    for tail in tails {
        let mut rest = Vec::new();
        while let Some(chunk) = world.reactor.next_chunk(tail).unwrap() {
            assert_eq!(chunk.skipped, 0);
            rest.extend_from_slice(chunk.bytes);
        }
        assert!(rest == from(&all, start));
    }
}

#[test]
fn a_new_tail_begins_no_earlier_than_what_was_kept() {
    let Some(mut world) = World::new() else { return };
    let job = world.spawn(&short("seq 1000000"));
    world.finish(job);
    let (all, start) = printed(1_000_000);
    let lines = |count: usize| {
        let ends = all.iter().rposition(|_| true).unwrap();
        let newlines = all[..ends].iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
        newlines.map(|(index, _)| index as u64 + 1).nth(count - 1).unwrap()
    };
    for follow in [false, true] {
        for (position, expected) in [
            (Position::Start, start),
            (Position::End, all.len() as u64),
            (Position::LastLines(3), lines(3)),
            (Position::LastLines(999_999), start),
            (Position::Offset(start + 7), start + 7),
        ] {
            let mut options = TailOptions::new(position);
            if !follow {
                options.snapshot();
            }
            let tail = world.tail(job, options);
            world.until("it is read", |world| world.transcripts[&tail].ended);
            let transcript = &world.transcripts[&tail];
            assert!(transcript.bytes == from(&all, expected), "{position:?}");
            assert_eq!(transcript.skipped_at, [], "{position:?}");
        }
    }
}

#[test]
fn a_snapshot_ends_where_it_was_to_end_even_if_that_is_gone() {
    let Some(mut world) = World::new() else { return };
    let job = world.spawn(short("seq 1000; read _; seq 1000000").stdin(Stdin::Piped));
    let mut stdin = world.reactor.take_stdin(job).unwrap().unwrap();
    let log = output_of(&world, job);
    let part = numbers(1000).len() as u64;
    polled(&mut world, "it has printed", |_| fs::metadata(&log).unwrap().len() == part);
    let snapshot = *TailOptions::new(Position::Start).snapshot();
    let tail = world.reactor.tail(job, snapshot, jobworker::Token(0)).unwrap();
    stdin.write_all(b"\n").unwrap();
    world.finish(job);
    let skipped = Read::Skipped { bytes: part };
    assert_eq!(world.reactor.read(tail, &mut [0; 9]).unwrap(), skipped);
    assert_eq!(world.reactor.read(tail, &mut [0; 9]).unwrap(), Read::Ended);
}

#[test]
fn both_logs_of_a_job_are_kept_short() {
    let Some(mut world) = World::new() else { return };
    let job = world.spawn(short("seq 500000; seq 1000000 >&2").output(Output::Split));
    let report = world.finish(job);
    let status = world.reactor.status(job).unwrap();
    let [(output, begin), (error, error_begin)] = [500_000, 1_000_000].map(printed);
    assert_eq!(report.error_bytes, error.len() as u64);
    assert_eq!(status.output_range, Some(begin..output.len() as u64));
    assert_eq!(status.error_range, Some(error_begin..error.len() as u64));
    let logs = [status.output.unwrap(), status.error.unwrap()];
    polled(&mut world, "the rest is given back", |_| logs.iter().all(|log| allocated(log) <= MOST));
    let mut options = TailOptions::new(Position::Start);
    let tail = world.tail(job, options.stream(Stream::Error));
    world.until("it is read", |world| world.transcripts[&tail].ended);
    assert!(world.transcripts[&tail].bytes == from(&error, error_begin));
}

const TRUNCATE: &str = "truncate -s 0 /proc/$$/fd/1";

/// Its log is closed then, and is opened for the tail.
#[test]
fn a_log_that_is_made_shorter_after_the_end_of_its_job_is_read_from_behind_its_hole() {
    let Some(mut world) = World::new() else { return };
    let all = numbers(200_000);
    for shorter in [all.len() - KEEP as usize / 2, all.len() / 2] {
        let job = world.spawn(&short("seq 200000"));
        world.finish(job);
        let log = output_of(&world, job);
        let kept = world.reactor.status(job).unwrap().output_range.unwrap();
        File::options().write(true).open(&log).unwrap().set_len(shorter as u64).unwrap();
        let options = *TailOptions::new(Position::LastLines(u64::MAX)).snapshot();
        let tail = world.reactor.tail_file(&log, options, Token(0)).unwrap();
        let (mut found, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            match world.reactor.read(tail, &mut buffer).unwrap() {
                Read::Data(length) => found.extend_from_slice(&buffer[..length]),
                Read::Ended => break,
                _ => {}
            }
        }
        let begin = shorter - found.len();
        assert!(begin as u64 <= kept.start && found == all[begin..shorter], "{shorter}: {begin}");
        world.reactor.close(tail).unwrap();
        world.reactor.remove(job).unwrap();
    }
}

#[test]
fn what_is_left_of_the_hole_of_a_log_that_was_only_made_shorter_is_not_read() {
    let Some(mut world) = World::new() else { return };
    let all = numbers(200_000);
    let size = all.len() as u64;
    // Within what is kept, at the end of the hole and within that.
    for shorter in [size - KEEP / 2, size - KEEP, size / 2] {
        let shorten = format!("truncate -s {shorter} /proc/$$/fd/1");
        let script = format!("seq 200000; read _; {shorten}; echo more; read _");
        let job = world.spawn(short(&script).stdin(Stdin::Piped));
        let mut stdin = world.reactor.take_stdin(job).unwrap().unwrap();
        let log = output_of(&world, job);
        polled(&mut world, "it is short", |world| {
            let range = world.reactor.status(job).unwrap().output_range.unwrap();
            range.end == size && range.start > 0 && allocated(&log) <= MOST
        });
        let start = world.reactor.status(job).unwrap().output_range.unwrap().start;
        let tails = [Position::Start, Position::End].map(|position| world.tail(job, position));
        world.until("it is read", |world| world.text(tails[0]).ends_with("\n200000\n"));
        stdin.write_all(b"\n").unwrap();
        world.until("it is told", |world| {
            tails.iter().all(|tail| world.text(*tail).ends_with("more\n"))
        });
        let late = world.tail(job, Position::Start);
        world.until("it is read", |world| world.text(late).ends_with("more\n"));
        let expected = |begin: u64| {
            [from(&all[..usize::try_from(shorter).unwrap()], begin), b"more\n"].concat()
        };
        for tail in [tails[0], tails[1], late] {
            let transcript = &world.transcripts[&tail];
            let truncated_at = &transcript.truncated_at[..];
            assert_eq!(truncated_at.len(), usize::from(tail != late), "{shorter}");
            let read = &transcript.bytes[truncated_at.first().copied().unwrap_or(0)..];
            // A block of which a part was to be kept is still there.
            let begin = shorter + 5 - read.len() as u64;
            assert!(begin <= start.min(shorter) && begin + 4096 > start.min(shorter), "{shorter}");
            assert!(read == expected(begin), "{shorter}");
            let skipped: &[_] = &transcript.skipped_at;
            let gap = truncated_at.first().map(|at| (*at, begin));
            assert_eq!(skipped, gap.as_slice(), "{shorter}");
        }
        stdin.write_all(b"\n").unwrap();
        world.finish(job);
        world.reactor.remove(job).unwrap();
    }
}

#[test]
fn a_log_that_is_truncated_begins_again() {
    let Some(mut world) = World::new() else { return };
    for (last, read) in [(10, false), (10, true), (1_000_000, false), (1_000_000, true)] {
        let script = format!("seq 500000; read _; {TRUNCATE}; seq {last} -1 1");
        let job = world.spawn(short(&script).stdin(Stdin::Piped));
        let mut stdin = world.reactor.take_stdin(job).unwrap().unwrap();
        let before = numbers(500_000).len() as u64;
        polled(&mut world, "it is kept short", |world| {
            let range = world.reactor.status(job).unwrap().output_range.unwrap();
            range.end == before && range.start > 0
        });
        let tail = read.then(|| world.tail(job, Position::Start));
        if let Some(tail) = tail {
            world.until("it is read", |world| !world.transcripts[&tail].bytes.is_empty());
        }
        stdin.write_all(b"\n").unwrap();
        let report = world.finish(job);
        let after: String = (1..=last).rev().map(|line| format!("{line}\n")).collect();
        let size = after.len() as u64;
        assert_eq!(report.output_bytes, size);
        let start = size.saturating_sub(KEEP);
        assert_eq!(world.reactor.status(job).unwrap().output_range, Some(start..size));
        let log = output_of(&world, job);
        polled(&mut world, "the rest is given back", |_| allocated(&log) <= MOST);
        if let Some(tail) = tail {
            let transcript = world.transcripts[&tail].clone();
            let [at] = transcript.truncated_at[..] else { panic!("{last}: told once") };
            let skipped: u64 = transcript.skipped_at.iter().map(|(_, bytes)| bytes).sum();
            assert_eq!(transcript.bytes[at..].len() as u64 + skipped, size, "{last}");
            assert!(transcript.bytes.ends_with(from(after.as_bytes(), size - size.min(100))));
        }
        let tail = world.tail(job, Position::Start);
        world.until("it is read", |world| world.transcripts[&tail].ended);
        assert!(world.transcripts[&tail].bytes == from(after.as_bytes(), start), "{last}");
        world.reactor.remove(job).unwrap();
    }
}

/// A job can write where everything was given back, without making its log any longer.
#[test]
fn what_is_written_into_the_hole_is_given_back_again() {
    let Some(mut world) = World::new() else { return };
    let again = "dd if=/dev/zero of=/proc/$$/fd/1 bs=1M count=4 conv=notrunc status=none";
    let script = format!("seq 1000000; read _; {again}; read _");
    let job = world.spawn(short(&script).stdin(Stdin::Piped));
    let mut stdin = world.reactor.take_stdin(job).unwrap().unwrap();
    let log = output_of(&world, job);
    let (all, _) = printed(1_000_000);
    let is_short = |world: &mut World| {
        let range = world.reactor.status(job).unwrap().output_range.unwrap();
        range.end == all.len() as u64 && allocated(&log) <= MOST + KEEP
    };
    polled(&mut world, "it is kept short", is_short);
    let written = fs::metadata(&log).unwrap().modified().unwrap();
    stdin.write_all(b"\n").unwrap();
    polled(&mut world, "it has written there and that is given back", |world| {
        let modified = fs::metadata(&log).unwrap().modified().unwrap() != written;
        modified && is_short(world)
    });
    stdin.write_all(b"\n").unwrap();
    world.finish(job);
    polled(&mut world, "it is kept short", |_| allocated(&log) <= MOST);
}

#[test]
fn a_log_that_the_job_makes_sparse_is_kept_short_at_once() {
    let Some(mut world) = World::new() else { return };
    let log = {
        // ext4 has room for 16 TiB, and some file systems for less. In digits, because not every
        // truncate has letters for so much.
        let truncate = |bytes: u64| format!("truncate -s {bytes} /proc/$$/fd/1");
        let (most, less) = (truncate(15 << 40), truncate(1 << 40));
        let job = world.spawn(&short(&format!("seq 100000; {most} || {less}; printf end")));
        let tail = world.tail(job, Position::Start);
        let report = world.finish(job);
        let transcript = &world.transcripts[&tail];
        let skipped: u64 = transcript.skipped_at.iter().map(|(_, bytes)| bytes).sum();
        assert_eq!(transcript.bytes.len() as u64 + skipped, report.output_bytes);
        assert!(transcript.bytes.ends_with(b"\0end") && skipped > 1 << 39);
        output_of(&world, job)
    };
    polled(&mut world, "the rest is given back", |_| allocated(&log) <= MOST);
}

#[test]
fn where_nothing_can_be_given_back_the_spawn_is_refused_and_leaves_nothing() {
    if !alone!() {
        return;
    }
    let Some(place) = Place::with_logs_on("ramfs", c"mode=0700") else { return };
    let reactor = Reactor::with_config(&place.config()).unwrap();
    let mut world = World::around(reactor, place);
    let before = world.footprint();
    for output in [Output::Combined, Output::Split] {
        let error = world.try_spawn(short("true").output(output)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        let Error::System(SystemError::CannotPunch { path, .. }) = &error else { panic!() };
        assert!(error.to_string().contains(path.to_str().unwrap()));
        assert_eq!(world.footprint(), before);
    }
    // It is not needed by others.
    world.run(&sh("true"));
    let job = world.spawn(short("true").output(Output::Null));
    world.finish(job);
}

#[test]
fn a_job_whose_log_is_kept_short_leaves_nothing() {
    if !alone!() {
        return;
    }
    let Some(mut world) = World::new() else { return };
    let before = world.footprint();
    for script in ["seq 1000000", "true", "rm /proc/$$/fd/1; seq 100000"] {
        for read in [false, true] {
            let job = world.spawn(short(script).output(Output::Split));
            if read {
                world.tail(job, Position::Start);
            }
            world.finish(job);
            world.reactor.remove(job).unwrap();
            assert_eq!(world.footprint(), before, "{script}");
        }
    }
    // A spawn that fails after the logs were made.
    let mut command = short("true");
    command.current_dir("/no/such/directory");
    world.try_spawn(&command).unwrap_err();
    assert_eq!(world.footprint(), before);
}

/// Reads what is left, by the traits of std; the gaps with the number of bytes before each.
fn rest_of(reader: &mut Reader) -> (Vec<u8>, Vec<(usize, u64)>) {
    let (mut bytes, mut gaps) = (Vec::new(), Vec::new());
    loop {
        match reader.read_to_end(&mut bytes) {
            Ok(_) => return (bytes, gaps),
            Err(error) => gaps.push((bytes.len(), Reader::skipped(&error).expect("a gap"))),
        }
    }
}

#[test]
fn a_reader_of_a_worker_hears_of_the_gap_by_every_method() {
    let Some(threads) = Threads::new() else { return };
    let job = threads.spawn(&short("seq 1000000"));
    let readers = [(); 6].map(|()| job.output(Position::Offset(3)).unwrap());
    job.wait().unwrap();
    let (all, start) = printed(1_000_000);
    let gap = Read::Skipped { bytes: start - 3 };
    let [mut first, mut second, mut third, fourth, mut fifth, mut sixth] = readers;
    assert_eq!(first.try_read(&mut [0; 9]).unwrap(), gap);
    assert_eq!(first.position(), start);
    assert_eq!(second.read_timeout(&mut [0; 9], PATIENCE).unwrap(), gap);
    let error = third.fill_buf().unwrap_err();
    assert_eq!(Reader::skipped(&error), Some(start - 3));
    assert!(!Reader::is_truncation(&error) && error.to_string().contains("were not kept"));
    let mut lines = fourth.lines(4096);
    let error = lines.next().unwrap().unwrap_err();
    assert!(matches!(error, Error::Tail(TailError::Skipped { bytes, .. }) if bytes == start - 3));
    assert!(lines.next().unwrap().is_ok());
    let mut copy = tempfile::tempfile().unwrap();
    assert_eq!(fifth.send_to(&copy, 100).unwrap(), gap);
    let mut length = 0;
    while let Read::Data(sent) = fifth.send_to(&copy, 10_000).unwrap() {
        length += sent;
    }
    assert_eq!(length as u64, KEEP);
    let mut sent = Vec::new();
    std::io::Seek::rewind(&mut copy).unwrap();
    copy.read_to_end(&mut sent).unwrap();
    assert!(sent == from(&all, start));
    assert_eq!(rest_of(&mut sixth).1, [(0, start - 3)]);
    for reader in [&mut first, &mut second, &mut third] {
        let (bytes, gaps) = rest_of(reader);
        assert!(bytes == from(&all, start) && gaps.is_empty());
    }
    let mut snapshot = job.output(TailOptions::new(Position::Start).snapshot()).unwrap();
    assert_eq!(rest_of(&mut snapshot).0, from(&all, start));
}

/// The readers share a feed when the log grows, and each falls out of it by itself.
#[test]
fn readers_of_a_worker_that_are_left_behind_miss_what_they_are_told() {
    let Some(threads) = Threads::new() else { return };
    let mut command = short("printf begin; read _; seq 2000000");
    let job = threads.spawn(command.stdin(Stdin::Piped));
    let mut stdin = job.take_stdin().unwrap().unwrap();
    let mut readers = [(); 4].map(|()| job.output(Position::Start).unwrap());
    for reader in &mut readers {
        let mut buffer = [0; 9];
        assert_eq!(reader.read_timeout(&mut buffer, PATIENCE).unwrap(), Read::Data(5));
        // Now it waits, by the feed.
        assert_eq!(reader.try_read(&mut buffer).unwrap(), Read::UpToDate);
    }
    stdin.write_all(b"\n").unwrap();
    let all = [b"begin".to_vec(), numbers(2_000_000)].concat();
    let log = log_of(&job);
    let threads: Vec<_> = readers
        .into_iter()
        .enumerate()
        .map(|(index, mut reader)| {
            let (all, log) = (all.clone(), log.clone());
            std::thread::spawn(move || {
                if index > 0 {
                    // It comes back when the job has long printed more.
                    until("it is far behind", || {
                        fs::metadata(&log).unwrap().len() > index as u64 * 3_000_000
                    });
                }
                let (bytes, gaps) = rest_of(&mut reader);
                let (mut offset, mut read) = (5, 0);
                for (at, gone) in gaps.iter().copied().chain([(bytes.len(), 0)]) {
                    let piece = &bytes[read..at];
                    assert!(piece == &all[offset..offset + piece.len()], "at {offset}");
                    offset += piece.len() + usize::try_from(gone).unwrap();
                    read = at;
                }
                assert_eq!(offset, all.len());
                gaps.len()
            })
        })
        .collect();
    let gaps: Vec<usize> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert!(gaps[3] > 0, "{gaps:?}");
    job.wait().unwrap();
}

/// A command with a limit of 64 KiB on its log.
fn limited(script: &str, then: OverLimit) -> Command {
    let mut command = sh(script);
    command.log_limit(ByteSize::from_bytes(KEEP), then);
    command
}

/// The logs of which an event has said that they are too long.
fn exceeded(world: &World) -> Vec<Stream> {
    let of = |event: &Event| match event {
        Event::LogLimit { stream, .. } => Some(*stream),
        _ => None,
    };
    world.resource_events.iter().filter_map(of).collect()
}

#[test]
fn a_job_that_prints_too_much_is_stopped_or_killed_and_its_report_says_why() {
    for read in [false, true] {
        for then in [OverLimit::Stop, OverLimit::Kill] {
            let Some(mut world) = World::new() else { return };
            let job = world.spawn(&limited("while :; do seq 1000; done", then));
            let tail = read.then(|| world.tail(job, Position::Start));
            let report = world.finish(job);
            assert_eq!(report.stopped_by, Some(StopCause::LogLimit));
            assert!(report.log_limit_exceeded && report.output_bytes > KEEP);
            let signal = if then == OverLimit::Stop { Signal::TERM } else { Signal::KILL };
            assert_eq!(report.exit.signal(), Some(signal));
            assert_eq!(exceeded(&world), [Stream::Output]);
            if let Some(tail) = tail {
                let length = world.transcripts[&tail].bytes.len() as u64;
                assert_eq!(length, report.output_bytes);
            }
            assert_eq!(report.output_discarded, 0);
        }
    }
}

#[test]
fn what_a_job_prints_beyond_its_limit_is_discarded_while_it_goes_on() {
    for read in [false, true] {
        let Some(mut world) = World::new() else { return };
        let mut command = limited("seq 1000000; read _; exit 7", OverLimit::Discard);
        let job = world.spawn(command.stdin(Stdin::Piped));
        let mut stdin = world.reactor.take_stdin(job).unwrap().unwrap();
        let tail = read.then(|| world.tail(job, Position::Start));
        let (log, all) = (output_of(&world, job), numbers(1_000_000));
        polled(&mut world, "all of it is printed, and most discarded", |_| {
            let found = fs::metadata(&log).unwrap();
            found.len() == all.len() as u64 && allocated(&log) <= MOST + (64 << 10)
        });
        assert_eq!(exceeded(&world), [Stream::Output]);
        stdin.write_all(b"\n").unwrap();
        let report = world.finish(job);
        assert_eq!((report.exit, report.stopped_by), (Exit::Code(7), None));
        assert_eq!((report.output_bytes, report.log_limit_exceeded), (KEEP, true));
        assert_eq!(report.output_discarded, all.len() as u64 - KEEP);
        let late = world.tail(job, Position::Start);
        world.until("it is read", |world| world.transcripts[&late].ended);
        for tail in tail.into_iter().chain([late]) {
            let transcript = &world.transcripts[&tail];
            assert!(transcript.bytes == all[..65536] && transcript.ended);
            assert_eq!(transcript.skipped_at, []);
        }
    }
}

#[test]
fn a_tail_at_the_limit_hears_that_the_log_begins_again() {
    let Some(mut world) = World::new() else { return };
    let script = format!("seq 1000000; read _; {TRUNCATE}; seq 3; read _");
    let job = world.spawn(limited(&script, OverLimit::Discard).stdin(Stdin::Piped));
    let mut stdin = world.reactor.take_stdin(job).unwrap().unwrap();
    let tail = world.tail(job, Position::Start);
    world.until("it is read", |world| world.transcripts[&tail].bytes.len() as u64 == KEEP);
    stdin.write_all(b"\n").unwrap();
    world.until("it is told", |world| world.transcripts[&tail].bytes.ends_with(b"1\n2\n3\n"));
    let transcript = &world.transcripts[&tail];
    assert!(transcript.truncated_at == [65536] && transcript.bytes.len() == 65536 + 6);
    stdin.write_all(b"\n").unwrap();
    let report = world.finish(job);
    assert_eq!((report.output_bytes, report.output_discarded), (6, 0));
    assert!(report.log_limit_exceeded && exceeded(&world) == [Stream::Output]);
}

#[test]
fn a_job_that_ends_before_it_was_found_to_print_too_much_is_told_of_all_the_same() {
    let Some(mut world) = World::new() else { return };
    let mut command = limited("seq 100000; seq 100000 >&2", OverLimit::Stop);
    let job = world.spawn(command.output(Output::Split));
    let log = output_of(&world, job);
    let size = numbers(100_000).len() as u64;
    // The loop does nothing meanwhile.
    let error = world.reactor.status(job).unwrap().error.unwrap();
    until("it has ended", || {
        [&log, &error].iter().all(|log| fs::metadata(log).unwrap().len() == size)
    });
    let report = world.finish(job);
    assert!(report.log_limit_exceeded);
    assert_eq!((report.output_bytes, report.error_bytes), (size, size));
    let mut streams = exceeded(&world);
    streams.sort_by_key(|stream| *stream == Stream::Error);
    assert_eq!(streams, [Stream::Output, Stream::Error]);
    // And one within its limit is not.
    let job = world.spawn(&limited("seq 1000", OverLimit::Kill));
    assert!(!world.finish(job).log_limit_exceeded);
}

#[test]
fn a_log_can_be_kept_short_and_limited() {
    let Some(mut world) = World::new() else { return };
    let mut command = short("while :; do seq 100000; done");
    let job = world.spawn(command.log_limit(ByteSize::from_mib(20), OverLimit::Kill));
    let report = world.finish(job);
    assert_eq!(report.stopped_by, Some(StopCause::LogLimit));
    let range = world.reactor.status(job).unwrap().output_range.unwrap();
    assert!(range.end > 20 << 20 && range.end - range.start == KEEP);
}

#[test]
fn the_oldest_logs_of_finished_jobs_are_dropped_when_all_have_too_much() {
    let total = |config: &mut Config| _ = config.logs_total(ByteSize::from_kib(400));
    let Some(mut world) = World::with(total) else { return };
    let printed = numbers(20_000);
    let size = printed.len() as u64;
    // It runs on, and is the oldest.
    let running = world.spawn(sh("seq 20000; read _").stdin(Stdin::Piped));
    let stdin = world.reactor.take_stdin(running).unwrap();
    polled(&mut world, "it is looked at", |world| {
        world.reactor.status(running).unwrap().output_range == Some(0..size)
    });
    let [first, second] = [(); 2].map(|()| {
        let job = world.spawn(&sh("seq 20000"));
        world.finish(job);
        job
    });
    let token = jobworker::Token(0);
    let tails = [first, second].map(|job| world.reactor.tail(job, Position::Start, token).unwrap());
    for tail in tails {
        assert_eq!(world.reactor.read(tail, &mut [0; 100]).unwrap(), Read::Data(100));
    }
    let third = world.spawn(&sh("seq 20000"));
    world.finish(third);
    let range = |world: &World, job| world.reactor.status(job).unwrap().output_range.unwrap();
    polled(&mut world, "the first is dropped", |world| range(world, first) == (size..size));
    for job in [running, second, third] {
        assert_eq!(range(&world, job), 0..size, "only the oldest that has finished");
    }
    let log = output_of(&world, first);
    polled(&mut world, "it is given back", |_| allocated(&log) <= 16 << 10);
    let mut buffer = [0; 4096];
    let gone = Read::Skipped { bytes: size - 100 };
    assert_eq!(world.reactor.read(tails[0], &mut buffer).unwrap(), gone);
    assert_eq!(world.reactor.read(tails[0], &mut buffer).unwrap(), Read::Ended);
    let late = world.reactor.tail(first, Position::Start, token).unwrap();
    assert_eq!(world.reactor.read(late, &mut buffer).unwrap(), Read::Ended);
    let late = world.reactor.tail(first, Position::Offset(7), token).unwrap();
    let gone = Read::Skipped { bytes: size - 7 };
    assert_eq!(world.reactor.read(late, &mut buffer).unwrap(), gone);
    let mut rest = Vec::new();
    while let Some(chunk) = world.reactor.next_chunk(tails[1]).unwrap() {
        rest.extend_from_slice(chunk.bytes);
    }
    assert!(rest == printed[100..]);
    // What is removed makes room.
    world.reactor.remove(third).unwrap();
    let fourth = world.spawn(&sh("seq 20000"));
    world.finish(fourth);
    world.reactor.poll(&mut world.events, Some(Duration::ZERO)).unwrap();
    assert_eq!((range(&world, second), range(&world, fourth)), (0..size, 0..size));
    drop(stdin);
    world.finish(running);
    for job in [first, second, fourth, running] {
        world.reactor.remove(job).unwrap();
    }
    assert_eq!(world.reactor.census().watches, 0);
    assert_eq!(fs::read_dir(world.place.logs()).unwrap().count(), 0);
}

#[test]
fn logs_of_jobs_that_run_are_never_dropped_and_all_are_looked_at() {
    let total = |config: &mut Config| _ = config.logs_total(ByteSize::from_kib(100));
    let Some(mut world) = World::with(total) else { return };
    let job = world.spawn(sh("seq 100000; read _; seq 100000").stdin(Stdin::Piped));
    let mut stdin = world.reactor.take_stdin(job).unwrap().unwrap();
    let done = world.spawn(&sh("echo done"));
    world.finish(done);
    let size = numbers(100_000).len() as u64;
    polled(&mut world, "the other is dropped", |world| {
        world.reactor.status(done).unwrap().output_range == Some(5..5)
    });
    let range = world.reactor.status(job).unwrap().output_range;
    assert!(range.is_some_and(|range| range.start == 0));
    stdin.write_all(b"\n").unwrap();
    world.finish(job);
    // Now it is too long by itself.
    polled(&mut world, "it is dropped", |world| {
        world.reactor.status(job).unwrap().output_range == Some(2 * size..2 * size)
    });
}
