//! The promise of `Event::LogSpace`: a host hears once that the file system of the logs is full,
//! and once that there is room again, and the reports of the jobs in between say that their logs
//! may lack something.

use std::fs;
use std::io::{Read as _, Write};
use std::path::PathBuf;

use jobworker::worker::WorkerEvent;
use jobworker::{Error, Event, Exit, JobError, Position, Reactor, Report, Stdin, Token, Worker};

use crate::support::{PATIENCE, Place, World, alone, sh};

/// A place whose logs are on a small file system, and a file that fills it but for some KiB.
fn small() -> Option<(Place, PathBuf)> {
    let place = Place::with_logs_on("tmpfs", c"size=256k,mode=0700")?;
    let filler = place.logs().join("filler");
    fs::write(&filler, vec![b'x'; 128 << 10]).unwrap();
    Some((place, filler))
}

/// What the events have said: whether it is full.
fn told(world: &World) -> Vec<bool> {
    let full = |event: &Event| match event {
        Event::LogSpace { full } => Some(*full),
        _ => None,
    };
    world.resource_events.iter().filter_map(full).collect()
}

fn is_cut(report: &Report) -> bool {
    let cut = |problem: &Error| matches!(problem, Error::Job(JobError::LogCut { .. }));
    report.problems.iter().any(cut)
}

#[test]
fn the_host_hears_that_a_log_that_it_reads_has_no_room_and_that_it_has_again() {
    if !alone!() {
        return;
    }
    let Some((place, filler)) = small() else { return };
    let mut world = World::around(Reactor::with_config(&place.config()).unwrap(), place);
    let before = world.spawn(&sh("echo before"));
    let early = world.finish(before);
    assert!(!is_cut(&early) && told(&world).is_empty());
    // All of it finds room once the filler is gone: not every seq ends when a write fails.
    let script = "seq 30000 2>/dev/null; read _; seq 3 && exit 7";
    let job = world.spawn(sh(script).stdin(Stdin::Piped));
    let mut stdin = world.reactor.take_stdin(job).unwrap().unwrap();
    let tail = world.tail(job, Position::Start);
    world.until("it is told", |world| told(world) == [true]);
    fs::remove_file(&filler).unwrap();
    world.until("it is told that there is room", |world| told(world) == [true, false]);
    stdin.write_all(b"\n").unwrap();
    let report = world.finish(job);
    assert_eq!(report.exit, Exit::Code(7));
    // The reader has what is there.
    let text = world.text(tail);
    assert!(text.starts_with("1\n2\n") && text.ends_with("1\n2\n3\n"));
    assert_eq!(text.len() as u64, report.output_bytes);
    let [problem] = &report.problems[..] else { panic!("{report:?}") };
    assert!(is_cut(&report) && problem.to_string().contains("its file system was full"));
    // What has run later is whole.
    let job = world.spawn(&sh("echo after"));
    assert!(!is_cut(&world.finish(job)));
    assert_eq!(told(&world), [true, false]);
}

/// A log that is kept short makes room in the turn that finds it too long.
#[test]
fn a_full_disk_is_told_although_the_same_turn_makes_room() {
    if !alone!() {
        return;
    }
    let Some((place, _filler)) = small() else { return };
    let mut world = World::around(Reactor::with_config(&place.config()).unwrap(), place);
    let mut command = sh("seq 100000 2>/dev/null; echo end >&3; read _");
    let (mut printed, end) = std::io::pipe().unwrap();
    command.stdin(Stdin::Piped).log_keep(jobworker::ByteSize::from_kib(64)).pass_fd(3, end);
    let job = world.spawn(&command);
    drop(command);
    // The host does something else meanwhile.
    printed.read_exact(&mut [0; 4]).unwrap();
    drop(world.reactor.take_stdin(job).unwrap());
    let report = world.finish(job);
    assert!(told(&world)[0]);
    assert!(is_cut(&report), "{report:?}");
}

#[test]
fn the_report_of_a_job_that_nobody_reads_says_that_its_log_may_be_cut() {
    if !alone!() {
        return;
    }
    let Some((place, filler)) = small() else { return };
    let mut world = World::around(Reactor::with_config(&place.config()).unwrap(), place);
    let job = world.spawn(&sh("seq 100000 2>/dev/null"));
    let report = world.finish(job);
    assert_ne!(report.exit, Exit::Code(0));
    assert!(is_cut(&report) && told(&world) == [true]);
    fs::remove_file(&filler).unwrap();
    world.until("it is told that there is room", |world| told(world) == [true, false]);
    let job = world.spawn(&sh("true"));
    assert!(!is_cut(&world.finish(job)));
}

/// A host sees a full disk, which has room again when the next host ends the jobs.
#[test]
fn the_next_host_knows_whose_log_may_be_cut() {
    if !alone!() {
        return;
    }
    let Some((place, filler)) = small() else { return };
    let mut config = place.config();
    config.name("host");
    let mut world = World::around(Reactor::with_config(&config).unwrap(), place);
    let lasting = |world: &mut World, script: &str| {
        let job = world.spawn(sh(script).stdin(Stdin::Piped).survives(true));
        (job, world.reactor.take_stdin(job).unwrap().unwrap())
    };
    let before = lasting(&mut world, "seq 30000 2>/dev/null; read _; exit 7");
    world.tail(before.0, Position::Start);
    world.until("it is told", |world| told(world) == [true]);
    let during = lasting(&mut world, "read _; exit 7");
    fs::remove_file(&filler).unwrap();
    world.until("it is told that there is room", |world| told(world) == [true, false]);
    let after = lasting(&mut world, "read _; exit 7");

    let World { reactor, place, .. } = world;
    drop(reactor);
    let mut world = World::around(Reactor::with_config(&config).unwrap(), place);
    let mut recovery = world.reactor.recovery().unwrap();
    while world.reactor.recover(&mut recovery, Token(0)).unwrap().is_some() {}
    for ((job, stdin), is_to_be_cut) in [(before, true), (during, true), (after, false)] {
        drop(stdin);
        let report = world.finish(job);
        assert_eq!(report.exit, Exit::Code(7));
        assert_eq!(is_cut(&report), is_to_be_cut, "{report:?}");
        world.reactor.remove(job).unwrap();
    }
    assert!(told(&world).is_empty());
}

#[test]
fn a_worker_publishes_it() {
    if !alone!() {
        return;
    }
    let Some((place, filler)) = small() else { return };
    let worker = Worker::with_config(&place.config()).unwrap();
    let mut events = worker.events();
    let job = worker.spawn(&sh("seq 100000 2>/dev/null")).unwrap();
    let report = job.wait().unwrap();
    assert!(is_cut(&report));
    for expected in [true, false] {
        let event = events.wait_timeout(PATIENCE).unwrap();
        assert!(
            matches!(event, Some(WorkerEvent::LogSpace { full, .. }) if full == expected),
            "{event:?}"
        );
        let _ = fs::remove_file(&filler);
    }
    drop((job, worker, place));
}
