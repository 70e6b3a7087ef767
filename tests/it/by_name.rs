//! Tails that follow a name, point by point against what GNU `tail -F` (coreutils 9.1) does:
//!
//! | what happens to the name | `tail -F` | here |
//! |---|---|---|
//! | renamed, and made anew | goes on in the new file | the same, after `Replaced` |
//! | the writer keeps the old file for a while | loses that | reads it before `Replaced` |
//! | another file is renamed over it | goes on in that file | the same, after `Replaced` |
//! | copied and truncated | goes on at the first byte | the same, after `Truncated` |
//! | removed, and made anew later | waits, by polling | waits for an event, then `Replaced` |
//! | missing at the start | waits, by polling | waits for an event; no report |
//! | a symbolic link that is switched | noticed by polling each second | at once |
//! | on the way to it, a link is switched | noticed by polling each second | at once |
//! | its directory is renamed and made anew | polls from then on | noticed at once |
//! | a directory on the way is missing at first | polls | noticed at once |
//! | a file on another file system | goes on in it | the same, after `Replaced` |
//! | a directory or a pipe takes the name | gives up on it, or says so | an error, once |
//! | a loop of links takes the name | says so | an error, once |
//! | renamed away and back | read again from the first byte | nothing; nothing twice |
//! | two files have it in turns | each time from the first byte | each byte once |
//! | the queue of inotify overflows | what happened is lost | looked up again |
//!
//! And what `tail -F` has no word for: tails that are read late, how many descriptors and watches
//! there are, and directories in which others make names.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jobworker::{
    Chunk, Containment, ErrorKind, Fill, Position, Reactor, Read, TailId, TailOptions, Token,
};
use rustix::fs::{CWD, Mode, inotify, mkfifoat};

use crate::support::{Place, World, alone, append, rounds};

/// A world that needs no cgroup.
fn world() -> World {
    let place = Place::new();
    let mut config = place.config();
    config.containment(Containment::ProcessGroup);
    World::around(Reactor::with_config(&config).unwrap(), place)
}

fn world_and_path() -> (World, PathBuf) {
    let world = world();
    let path = world.place.dir.path().join("app.log");
    (world, path)
}

fn by_name(position: Position) -> TailOptions {
    *TailOptions::new(position).by_name()
}

/// Runs turns until a tail of this world has read this text, and nothing else.
#[track_caller]
fn reads(world: &mut World, tail: TailId, text: &str) {
    world.until(&format!("{text:?} is read"), |world| {
        let found = world.text(tail);
        assert!(text.starts_with(&found), "{found:?} instead of {text:?}");
        found == text
    });
}

/// Runs turns that do not wait, until whatever has happened is handled.
fn settle(world: &mut World) {
    for _ in 0..20 {
        world.turn(Some(Duration::ZERO));
    }
}

fn replaced(world: &World, tail: TailId) -> Vec<(usize, bool)> {
    world.transcripts[&tail].replaced_at.clone()
}

#[test]
fn a_file_that_is_renamed_and_made_anew_is_read_to_its_end_and_then_the_new_one() {
    let (mut world, path) = world_and_path();
    let old = path.with_extension("1");
    fs::write(&path, "one\n").unwrap();
    let tail = world.tail_file(&path, by_name(Position::Start));
    reads(&mut world, tail, "one\n");
    let mut writer = File::options().append(true).open(&path).unwrap();
    fs::rename(&path, &old).unwrap();
    settle(&mut world);
    // Until the writer is told to open it anew, it writes to the old file: before the name is
    // there again, and after that.
    writer.write_all(b"two\n").unwrap();
    reads(&mut world, tail, "one\ntwo\n");
    File::create(&path).unwrap();
    settle(&mut world);
    writer.write_all(b"three\n").unwrap();
    reads(&mut world, tail, "one\ntwo\nthree\n");
    assert_eq!(replaced(&world, tail), []);
    writer.write_all(b"four\n").unwrap();
    append(&path, "five\n");
    reads(&mut world, tail, "one\ntwo\nthree\nfour\nfive\n");
    assert_eq!(replaced(&world, tail), [(19, false)]);
    assert_eq!(world.reactor.position(tail).unwrap(), 5);
    // What comes to the old file now is not read: the new one has the word.
    writer.write_all(b"late\n").unwrap();
    append(&path, "six\n");
    reads(&mut world, tail, "one\ntwo\nthree\nfour\nfive\nsix\n");
}

#[test]
fn a_file_that_another_one_is_renamed_over_is_read_to_its_end() {
    let (mut world, path) = world_and_path();
    let new = path.with_extension("new");
    fs::write(&path, "one\n").unwrap();
    let tail = world.tail_file(&path, by_name(Position::Start));
    reads(&mut world, tail, "one\n");
    for number in 1..=5 {
        append(&path, "more\n");
        fs::write(&new, format!("{number}\n")).unwrap();
        fs::rename(&new, &path).unwrap();
        let mut expected = "one\n".to_owned();
        for number in 1..=number {
            expected += &format!("more\n{number}\n");
        }
        reads(&mut world, tail, &expected);
        assert_eq!(replaced(&world, tail).len(), number);
    }
}

#[test]
fn a_file_that_is_copied_and_truncated_is_reported_as_truncated() {
    let (mut world, path) = world_and_path();
    fs::write(&path, "one\n").unwrap();
    let tail = world.tail_file(&path, by_name(Position::Start));
    reads(&mut world, tail, "one\n");
    fs::copy(&path, path.with_extension("1")).unwrap();
    File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    append(&path, "2\n");
    reads(&mut world, tail, "one\n2\n");
    assert_eq!(world.transcripts[&tail].truncated_at, [4]);
    assert_eq!(replaced(&world, tail), []);
}

#[test]
fn a_file_that_is_removed_is_waited_for() {
    let (mut world, path) = world_and_path();
    fs::write(&path, "one\n").unwrap();
    let tail = world.tail_file(&path, by_name(Position::Start));
    let mut writer = File::options().append(true).open(&path).unwrap();
    reads(&mut world, tail, "one\n");
    fs::remove_file(&path).unwrap();
    settle(&mut world);
    // Nobody can open it any more, but who has it open can write to it.
    writer.write_all(b"two\n").unwrap();
    reads(&mut world, tail, "one\ntwo\n");
    fs::write(&path, "three\n").unwrap();
    reads(&mut world, tail, "one\ntwo\nthree\n");
    assert_eq!(replaced(&world, tail), [(8, false)]);
}

#[test]
fn a_file_that_does_not_exist_yet_is_waited_for_from_any_position() {
    let (mut world, path) = world_and_path();
    let positions = [Position::Start, Position::End, Position::LastLines(1), Position::Offset(3)];
    let tails = positions.map(|position| world.tail_file(&path, by_name(position)));
    settle(&mut world);
    for tail in tails {
        assert_eq!(world.reactor.read(tail, &mut [0; 8]).unwrap(), Read::UpToDate);
        assert_eq!(world.reactor.position(tail).unwrap(), 0);
    }
    fs::write(&path, "one\ntwo\n").unwrap();
    for tail in tails {
        reads(&mut world, tail, "one\ntwo\n");
        assert_eq!(replaced(&world, tail), []);
    }
    // A snapshot is of what is there now.
    let snapshot = world.tail_file(&path, *TailOptions::new(Position::Start).by_name().snapshot());
    world.until("the snapshot ends", |world| world.transcripts[&snapshot].ended);
    fs::remove_file(&path).unwrap();
    let options = *TailOptions::new(Position::Start).snapshot().by_name();
    let error = world.reactor.tail_file(&path, options, Token(0)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn an_existing_file_is_read_from_the_position_and_the_next_one_from_its_start() {
    let (mut world, path) = world_and_path();
    fs::write(&path, "one\ntwo\n").unwrap();
    let end = world.tail_file(&path, by_name(Position::End));
    let last = world.tail_file(&path, by_name(Position::LastLines(1)));
    let offset = world.tail_file(&path, by_name(Position::Offset(100)));
    reads(&mut world, last, "two\n");
    fs::rename(&path, path.with_extension("1")).unwrap();
    fs::write(&path, "three\n").unwrap();
    reads(&mut world, end, "three\n");
    reads(&mut world, last, "two\nthree\n");
    reads(&mut world, offset, "three\n");
}

#[test]
fn a_symbolic_link_that_is_switched_leads_to_the_next_file() {
    let (mut world, path) = world_and_path();
    let dir = path.parent().unwrap();
    fs::write(dir.join("a"), "one\n").unwrap();
    symlink("a", &path).unwrap();
    let tail = world.tail_file(&path, by_name(Position::Start));
    reads(&mut world, tail, "one\n");
    fs::write(dir.join("b"), "two\n").unwrap();
    symlink("b", dir.join("new")).unwrap();
    fs::rename(dir.join("new"), &path).unwrap();
    reads(&mut world, tail, "one\ntwo\n");
    // To a file on another file system, which is not there yet.
    let Ok(other) = tempfile::tempdir_in("/dev/shm") else { return };
    fs::remove_file(&path).unwrap();
    symlink(other.path().join("c"), &path).unwrap();
    settle(&mut world);
    fs::write(other.path().join("c"), "three\n").unwrap();
    reads(&mut world, tail, "one\ntwo\nthree\n");
    // And the file that the link leads to is replaced.
    fs::rename(other.path().join("c"), other.path().join("d")).unwrap();
    fs::write(other.path().join("c"), "four\n").unwrap();
    reads(&mut world, tail, "one\ntwo\nthree\nfour\n");
    assert_eq!(replaced(&world, tail).len(), 3);
}

#[test]
fn what_happens_to_the_directories_on_the_way_is_noticed() {
    let (mut world, _) = world_and_path();
    let at = |name: &str| world.place.dir.path().join(name);
    let (current, app, old) = (at("current"), at("releases/5/app"), at("releases/5/old"));
    let (releases, six) = (at("releases"), at("releases/6/app"));
    let path = current.join("app/app.log");
    // Nothing of it is there at first.
    let tail = world.tail_file(&path, by_name(Position::Start));
    settle(&mut world);
    fs::create_dir_all(&app).unwrap();
    settle(&mut world);
    symlink("releases/5", &current).unwrap();
    settle(&mut world);
    fs::write(&path, "one\n").unwrap();
    reads(&mut world, tail, "one\n");
    // Its directory is renamed, and made anew.
    fs::rename(&app, &old).unwrap();
    append(old.join("app.log"), "two\n");
    settle(&mut world);
    fs::create_dir(&app).unwrap();
    settle(&mut world);
    fs::write(&path, "three\n").unwrap();
    reads(&mut world, tail, "one\ntwo\nthree\n");
    // Its directory is removed, and comes back.
    fs::remove_dir_all(&app).unwrap();
    settle(&mut world);
    fs::create_dir(&app).unwrap();
    fs::write(&path, "four\n").unwrap();
    reads(&mut world, tail, "one\ntwo\nthree\nfour\n");
    // A link on the way is switched.
    fs::create_dir_all(&six).unwrap();
    fs::write(six.join("app.log"), "five\n").unwrap();
    fs::remove_file(&current).unwrap();
    symlink(releases.join("6"), &current).unwrap();
    reads(&mut world, tail, "one\ntwo\nthree\nfour\nfive\n");
    let reports = replaced(&world, tail);
    assert_eq!(reports.len(), 3, "{reports:?}");
}

#[test]
fn what_is_no_regular_file_is_an_error_once_and_the_tail_goes_on() {
    let (mut world, path) = world_and_path();
    let away = path.with_extension("1");
    type Make = fn(&Path);
    let fifo = |path: &Path| mkfifoat(CWD, path, Mode::from_raw_mode(0o600)).unwrap();
    let cases: [(&str, Make, Make); 3] = [
        ("not a regular file", fifo, |path| fs::remove_file(path).unwrap()),
        (
            "not a regular file",
            |path| fs::create_dir(path).unwrap(),
            |path| {
                fs::remove_dir(path).unwrap();
            },
        ),
        (
            "symbolic links",
            |path| symlink(path, path).unwrap(),
            |path| {
                fs::remove_file(path).unwrap();
            },
        ),
    ];
    for (text, make, remove) in cases {
        make(&path);
        let error = world.reactor.tail_file(&path, by_name(Position::Start), Token(0)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert_eq!(world.reactor.census().watches, 0);
        remove(&path);

        fs::write(&path, "one\n").unwrap();
        let tail = world.reactor.tail_file(&path, by_name(Position::Start), Token(0)).unwrap();
        let mut buffer = [0; 16];
        let mut read = |world: &mut World| world.reactor.read(tail, &mut buffer);
        assert_eq!(read(&mut world).unwrap(), Read::Data(4));
        assert_eq!(read(&mut world).unwrap(), Read::UpToDate);
        fs::rename(&path, &away).unwrap();
        make(&path);
        append(&away, "two\n");
        settle(&mut world);
        let mut found = 0;
        let error = loop {
            match read(&mut world) {
                Ok(Read::Data(length)) => found += length,
                Ok(Read::UpToDate) => world.turn(None),
                Ok(other) => panic!("{other:?}"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        let said = error.to_string();
        assert!(said.contains(text) && said.contains(path.to_str().unwrap()), "{error}");
        // It is said once, and the old file is read on.
        append(&away, "3\n");
        while found < 6 {
            match read(&mut world).unwrap() {
                Read::Data(length) => found += length,
                Read::UpToDate => world.turn(None),
                other => panic!("{other:?}"),
            }
        }
        remove(&path);
        settle(&mut world);
        assert_eq!(read(&mut world).unwrap(), Read::UpToDate);
        fs::write(&path, "four\n").unwrap();
        world.turn(None);
        assert!(matches!(read(&mut world).unwrap(), Read::Replaced { .. }));
        assert_eq!(read(&mut world).unwrap(), Read::Data(5));
        world.reactor.close(tail).unwrap();
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_pipe_that_takes_the_name_is_not_opened() {
    let (mut world, path) = world_and_path();
    fs::write(&path, "one\n").unwrap();
    let tail = world.reactor.tail_file(&path, by_name(Position::End), Token(0)).unwrap();
    fs::remove_file(&path).unwrap();
    mkfifoat(CWD, &path, Mode::from_raw_mode(0o600)).unwrap();
    let inotify = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
    inotify::add_watch(&inotify, &path, inotify::WatchFlags::OPEN).unwrap();
    settle(&mut world);
    assert!(world.reactor.read(tail, &mut [0; 8]).is_err());
    // A reader, even for a moment, would have released a writer that waits for one. Before Linux
    // 6.10, to look at a file counts as opening it.
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let (major, minor) = (numbers.next().unwrap().unwrap(), numbers.next().unwrap().unwrap());
    if (major, minor) >= (6, 10) {
        let opened = rustix::io::read(&inotify, &mut [0; 64]);
        assert_eq!(opened, Err(rustix::io::Errno::AGAIN));
    }
}

#[test]
fn a_file_that_is_renamed_away_and_back_is_read_once() {
    let (mut world, path) = world_and_path();
    let away = path.with_extension("1");
    fs::write(&path, "one\n").unwrap();
    let tail = world.tail_file(&path, by_name(Position::Start));
    reads(&mut world, tail, "one\n");
    for settles in [true, false] {
        fs::rename(&path, &away).unwrap();
        if settles {
            settle(&mut world);
            // An empty file has the name for a while.
            fs::write(&path, "").unwrap();
            settle(&mut world);
        }
        fs::rename(&away, &path).unwrap();
        settle(&mut world);
    }
    append(&path, "two\n");
    reads(&mut world, tail, "one\ntwo\n");
    assert_eq!(replaced(&world, tail), []);
    // Two files have the name in turns, and each continues where it was left.
    let mut expected = "one\ntwo\n".to_owned();
    let (link, new) = (path.with_extension("link"), path.with_extension("new"));
    symlink(&path, &link).unwrap();
    let by_link = world.tail_file(&link, by_name(Position::Start));
    let other = path.with_extension("2");
    for number in 0..6 {
        let target = if number % 2 == 0 { &other } else { &path };
        append(target, format!("{number}\n"));
        symlink(target, &new).unwrap();
        fs::rename(&new, &link).unwrap();
        expected += &format!("{number}\n");
        reads(&mut world, by_link, &expected);
    }
    assert_eq!(replaced(&world, by_link).len(), 6);
}

#[test]
fn a_host_that_does_not_read_gets_every_file_later_or_hears_of_a_gap() {
    let (mut world, path) = world_and_path();
    for (files, gap) in [(10, false), (40, true)] {
        let _ = fs::remove_file(&path);
        fs::write(&path, "0\n").unwrap();
        let tail = world.reactor.tail_file(&path, by_name(Position::Start), Token(0)).unwrap();
        for number in 1..=files {
            fs::remove_file(&path).unwrap();
            fs::write(&path, format!("{number}\n")).unwrap();
            settle(&mut world);
        }
        assert!(fs::read_dir("/proc/self/fd").unwrap().count() < 1000);
        let (mut text, mut gaps) = (Vec::new(), 0);
        while let Some(Chunk { bytes, replaced, missed, .. }) =
            world.reactor.next_chunk(tail).unwrap()
        {
            assert!(bytes.is_empty() == replaced && replaced >= missed);
            text.extend_from_slice(bytes);
            gaps += usize::from(missed);
        }
        let text = String::from_utf8(text).unwrap();
        let numbers: Vec<usize> = text.lines().map(|line| line.parse().unwrap()).collect();
        if gap {
            assert_eq!(gaps, 1, "{text}");
            assert!(numbers.is_sorted() && numbers.first() == Some(&0));
            assert_eq!(numbers.last(), Some(&files));
        } else {
            assert_eq!((gaps, numbers), (0, (0..=files).collect()));
        }
        world.reactor.close(tail).unwrap();
    }
}

#[test]
fn a_file_that_came_and_went_between_two_polls_is_a_gap_that_is_reported() {
    let (mut world, path) = world_and_path();
    fs::write(&path, "one\n").unwrap();
    let tail = world.tail_file(&path, by_name(Position::Start));
    reads(&mut world, tail, "one\n");
    for text in ["two\n", "three\n"] {
        fs::remove_file(&path).unwrap();
        fs::write(&path, text).unwrap();
    }
    reads(&mut world, tail, "one\nthree\n");
    assert_eq!(replaced(&world, tail), [(4, true)]);
    // Also if nothing was there when the reactor looked.
    fs::remove_file(&path).unwrap();
    fs::write(&path, "four\n").unwrap();
    fs::remove_file(&path).unwrap();
    settle(&mut world);
    fs::write(&path, "five\n").unwrap();
    reads(&mut world, tail, "one\nthree\nfive\n");
    assert_eq!(replaced(&world, tail), [(4, true), (10, true)]);
}

#[test]
fn fill_buf_and_next_chunk_go_on_behind_the_report() {
    let (mut world, path) = world_and_path();
    fs::write(&path, "one\n").unwrap();
    let tail = world.reactor.tail_file(&path, by_name(Position::Start), Token(0)).unwrap();
    let other = world.reactor.tail_file(&path, by_name(Position::Start), Token(1)).unwrap();
    assert_eq!(world.reactor.fill_buf(tail).unwrap(), Fill::Data(b"one\n"));
    world.reactor.consume(tail, 3).unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, "two\n").unwrap();
    settle(&mut world);
    assert_eq!(world.reactor.fill_buf(tail).unwrap(), Fill::Data(b"\n"));
    world.reactor.consume(tail, 1).unwrap();
    assert_eq!(world.reactor.fill_buf(tail).unwrap(), Fill::Replaced { missed: false });
    assert_eq!(world.reactor.fill_buf(tail).unwrap(), Fill::Data(b"two\n"));
    world.reactor.consume(tail, 4).unwrap();
    assert_eq!(world.reactor.fill_buf(tail).unwrap(), Fill::UpToDate);
    let mut chunks = Vec::new();
    while let Some(chunk) = world.reactor.next_chunk(other).unwrap() {
        assert!(!chunk.truncated && !chunk.missed);
        chunks.push((String::from_utf8_lossy(chunk.bytes).into_owned(), chunk.replaced));
    }
    let expected = [("one\n", false), ("", true), ("two\n", false)];
    assert_eq!(chunks, expected.map(|(text, replaced)| (text.to_owned(), replaced)));
}

#[test]
fn a_tail_that_is_far_behind_reads_all_of_the_old_file_first() {
    let (mut world, path) = world_and_path();
    // Its first bytes are behind the window, and at the offsets of the next file's.
    let long = vec![b'a'; 60_000];
    fs::write(&path, &long).unwrap();
    let behind = world.reactor.tail_file(&path, by_name(Position::Start), Token(0)).unwrap();
    let Fill::Data(_) = world.reactor.fill_buf(behind).unwrap() else { panic!() };
    world.reactor.consume(behind, 10).unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, vec![b'b'; 400_000]).unwrap();
    settle(&mut world);
    let mut found = vec![b'a'; 10];
    while let Some(chunk) = world.reactor.next_chunk(behind).unwrap() {
        if chunk.replaced {
            assert_eq!(found, long);
            found.clear();
        }
        found.extend_from_slice(chunk.bytes);
    }
    assert_eq!(found, vec![b'b'; 400_000]);
}

#[test]
fn a_name_is_looked_up_again_when_the_queue_of_events_has_overflowed() {
    let (mut world, path) = world_and_path();
    fs::write(&path, "one\n").unwrap();
    let tail = world.tail_file(&path, by_name(Position::Start));
    reads(&mut world, tail, "one\n");
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let limit: usize = limit.trim().parse().unwrap();
    let names = [path.with_extension("x"), path.with_extension("y")];
    File::create(&names[0]).unwrap();
    for _ in 0..limit {
        fs::rename(&names[0], &names[1]).unwrap();
        fs::rename(&names[1], &names[0]).unwrap();
    }
    fs::remove_file(&path).unwrap();
    fs::write(&path, "two\n").unwrap();
    reads(&mut world, tail, "one\ntwo\n");
    // Nobody knows what was lost.
    assert_eq!(replaced(&world, tail), [(4, true)]);
}

#[test]
fn names_that_others_make_in_the_directory_keep_nobody_from_being_served() {
    let (mut world, path) = world_and_path();
    fs::write(&path, "0\n").unwrap();
    let tail = world.tail_file(&path, by_name(Position::Start));
    let busy = path.with_extension("busy");
    let names = rounds(100_000);
    std::thread::scope(|scope| {
        let maker = scope.spawn(|| {
            for number in 0..names {
                // Of another length each time, so that the events are not merged.
                let name = busy.with_extension(format!("{}", number % 10_000));
                File::create(&name).unwrap();
                fs::remove_file(&name).unwrap();
            }
        });
        let mut expected = "0\n".to_owned();
        let mut number = 0;
        while !maker.is_finished() {
            number += 1;
            if number % 50 == 0 {
                fs::rename(&path, path.with_extension("old")).unwrap();
            }
            append(&path, format!("{number}\n"));
            expected += &format!("{number}\n");
            reads(&mut world, tail, &expected);
        }
        assert!(number > 1);
    });
}

#[test]
fn watches_and_descriptors_are_shared_and_go_back_to_where_they_were() {
    if !alone!() {
        return;
    }
    let (mut world, path) = world_and_path();
    let dirs = path.components().count() - 1;
    let before = world.footprint();
    fs::write(&path, "one\n").unwrap();
    let first = world.tail_file(&path, by_name(Position::Start));
    // One watch for each directory on the way, and one for the file.
    assert_eq!(world.reactor.census().watches, dirs + 1);
    let mut tails: Vec<TailId> =
        (0..9).map(|_| world.tail_file(&path, by_name(Position::Start))).collect();
    tails.push(first);
    assert_eq!(world.reactor.census().watches, dirs + 1);
    let (missing, other) = (path.with_extension("missing"), path.with_extension("other"));
    tails.extend(
        [&missing, &missing, &other].map(|path| world.tail_file(path, by_name(Position::Start))),
    );
    // And one for the file that stands for none.
    assert_eq!(world.reactor.census().watches, dirs + 2);
    assert_eq!(world.footprint().fds, before.fds + 2);
    assert_eq!(world.reactor.census().tails, 13);
    for _ in 0..3 {
        fs::remove_file(&path).unwrap();
        File::create(&path).unwrap();
        settle(&mut world);
        // All of them hold the new file by one descriptor while it is empty.
        assert_eq!(world.footprint().fds, before.fds + 3);
        assert_eq!(world.reactor.census().watches, dirs + 3);
        assert_eq!(world.reactor.census().tails, 13);
        append(&path, "more\n");
        world.until("all have gone on", |world| {
            tails[..10].iter().all(|tail| world.text(*tail).ends_with("more\n"))
        });
        settle(&mut world);
        assert_eq!(world.footprint().fds, before.fds + 2);
    }
    fs::remove_file(&path).unwrap();
    File::create(&path).unwrap();
    settle(&mut world);
    for tail in tails {
        world.reactor.close(tail).unwrap();
    }
    assert_eq!(world.footprint(), before);
}

#[test]
fn a_failed_attempt_leaves_nothing_behind() {
    if !alone!() {
        return;
    }
    let (mut world, path) = world_and_path();
    let before = world.footprint();
    fs::create_dir(&path).unwrap();
    let too_long = path.join("x".repeat(300));
    for path in [path.clone(), too_long, PathBuf::from("/proc/self/status/x/"), "/".into()] {
        let opened = world.reactor.tail_file(&path, by_name(Position::Start), Token(0));
        if let Ok(tail) = opened {
            world.reactor.close(tail).unwrap();
        }
        assert_eq!(world.footprint(), before, "{}", path.display());
    }
}

#[test]
fn a_tail_is_resumed_in_its_file_or_hears_of_a_gap() {
    let (mut world, path) = world_and_path();
    fs::write(&path, "one\ntwo\n").unwrap();
    let tail = world.reactor.tail_file(&path, by_name(Position::Start), Token(0)).unwrap();
    assert_eq!(world.reactor.read(tail, &mut [0; 4]).unwrap(), Read::Data(4));
    let file = world.reactor.file_id(tail).unwrap().unwrap();
    let options = TailOptions::resume(file, world.reactor.position(tail).unwrap());
    world.reactor.close(tail).unwrap();
    assert!(world.reactor.file_id(tail).is_err());

    let same = world.tail_file(&path, options);
    reads(&mut world, same, "two\n");
    assert_eq!(world.reactor.file_id(same).unwrap(), Some(file));
    // The file has no name at first, and then its own again.
    let away = path.with_extension("1");
    fs::rename(&path, &away).unwrap();
    let later = world.tail_file(&path, options);
    settle(&mut world);
    assert_eq!(world.reactor.file_id(later).unwrap(), None);
    fs::rename(&away, &path).unwrap();
    reads(&mut world, later, "two\n");
    // It is shorter now.
    let truncated = world.tail_file(&path, TailOptions::resume(file, 100));
    reads(&mut world, truncated, "one\ntwo\n");
    for tail in [same, later, truncated] {
        assert_eq!(replaced(&world, tail), []);
    }
    // Another file has the name, or gets it.
    fs::remove_file(&path).unwrap();
    let waits = world.tail_file(&path, options);
    settle(&mut world);
    fs::write(&path, "three\n").unwrap();
    let other = world.tail_file(&path, options);
    for tail in [waits, other] {
        reads(&mut world, tail, "three\n");
        assert_eq!(replaced(&world, tail), [(0, true)]);
        assert_eq!(world.reactor.position(tail).unwrap(), 6);
    }
}

/// How a random log is rotated.
#[derive(Clone, Copy, Debug)]
enum Rotation {
    /// Renamed and made anew; the writer notices later.
    Create,
    /// Another file is renamed over it.
    Over,
    /// Removed, and made anew by the writer's next line.
    Remove,
    /// Its link is switched.
    Switch,
    /// Its directory is renamed, and made anew.
    Directory,
    /// Copied and truncated.
    Truncate,
}

/// Writes a few lines, each with its number.
fn write_lines(writer: &mut File, random: &mut fastrand::Rng, all: &mut String) {
    for _ in 0..random.usize(0..8) {
        let line = format!("{}\n", all.len());
        writer.write_all(line.as_bytes()).unwrap();
        *all += &line;
    }
}

#[test]
fn every_line_of_a_log_that_is_rotated_at_random_is_read_once() {
    use Rotation::{Create, Directory, Over, Remove, Switch, Truncate};
    for seed in 0..rounds(60).max(3) as u64 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut world = world();
        let root = world.place.dir.path().join("root");
        let dir = root.join("logs");
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("app.log");
        fs::write(&path, "").unwrap();
        let tails = [0, 1].map(|_| world.tail_file(&path, by_name(Position::Start)));
        // A third one is read only now and then.
        let late = world.reactor.tail_file(&path, by_name(Position::Start), Token(0)).unwrap();
        let (mut found, mut expected) = (Vec::new(), String::new());
        let mut gaps = 0;
        let mut read_late = |world: &mut World| {
            while let Some(chunk) = world.reactor.next_chunk(late).unwrap() {
                gaps += usize::from(chunk.missed);
                found.extend_from_slice(chunk.bytes);
            }
            found.len()
        };
        let mut writer = File::options().append(true).open(&path).unwrap();
        let mut story = Vec::new();
        for number in 0..40 {
            write_lines(&mut writer, &mut random, &mut expected);
            if random.bool() {
                settle(&mut world);
            }
            let away = root.join(format!("{number}"));
            let rotation =
                *random.choice(&[Create, Over, Remove, Switch, Directory, Truncate]).unwrap();
            story.push(rotation);
            match rotation {
                Create => {
                    fs::rename(&path, &away).unwrap();
                    write_lines(&mut writer, &mut random, &mut expected);
                    File::create(&path).unwrap();
                }
                Over => {
                    File::create(&away).unwrap();
                    fs::rename(&away, &path).unwrap();
                }
                Remove => fs::remove_file(&path).unwrap(),
                Switch => {
                    let target = root.join(format!("{number}.target"));
                    File::create(&target).unwrap();
                    symlink(&target, &away).unwrap();
                    fs::rename(&away, &path).unwrap();
                }
                Directory => {
                    fs::rename(&dir, &away).unwrap();
                    settle(&mut world);
                    fs::create_dir(&dir).unwrap();
                }
                Truncate => {
                    let length = expected.len();
                    world.until("everything is read before it goes", |world| {
                        let late = read_late(world);
                        let mut read = tails.iter().map(|tail| world.text(*tail).len());
                        read.all(|read| read == length) && late == length
                    });
                    writer.set_len(0).unwrap();
                    // A log that has grown again by the next read, past its old end and with the
                    // same bytes before it, would not be told from one that was not truncated.
                    settle(&mut world);
                    read_late(&mut world);
                }
            }
            write_lines(&mut writer, &mut random, &mut expected);
            settle(&mut world);
            if !matches!(rotation, Truncate) {
                write_lines(&mut writer, &mut random, &mut expected);
                writer = File::options().append(true).create(true).open(&path).unwrap();
                // Two files must not have the name between two polls.
                settle(&mut world);
            }
            if random.usize(0..6) == 0 {
                read_late(&mut world);
            }
        }
        writer.write_all(b"end\n").unwrap();
        expected += "end\n";
        world.until("everything is read", |world| {
            read_late(world) >= expected.len()
                && tails.iter().all(|tail| world.text(*tail).len() >= expected.len())
        });
        for tail in tails {
            assert_eq!(world.text(tail), expected, "{seed}: {story:?}");
        }
        // As many files as one tail holds may be read late, and no more.
        let found = String::from_utf8(found).unwrap();
        assert!(found == expected || gaps > 0, "{seed}: {story:?}: {found}\n{expected}");
    }
}
