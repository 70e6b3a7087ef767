//! The report of every job is kept in the history of its host before anybody is told of it, and can
//! be read back by any process.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use jobworker::{Error, Exit, History, Output, Reactor, SystemError, Token};
use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::skips::skip;
use crate::support::{World, sh};

/// A world that keeps a history, and where that is.
fn world() -> Option<(World, PathBuf)> {
    let mut path = PathBuf::new();
    let mut dir = None;
    let world = World::with(|config| {
        let made = tempfile::tempdir().unwrap();
        path = made.path().to_owned();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        config.history(&path);
        dir = Some(made);
    })?;
    // It is removed with what the test leaves in it.
    std::mem::forget(dir);
    Some((world, path))
}

#[test]
fn a_report_is_read_back_as_it_was_and_outlives_job_and_host() {
    let Some((mut world, dir)) = world() else { return };
    let mut command = sh("echo out; echo err >&2; exit 6");
    command.output(Output::Split).accounting(true).label("the label").env("SECRET", "hunter2");
    let job = world.spawn(&command);
    world.until("it is finished", |world| {
        let finished = world.finished.contains_key(&job);
        assert!(!finished || dir.join(format!("{job}.report")).exists(), "before it is told");
        finished
    });
    let status = world.reactor.status(job).unwrap();
    let report = world.finish(job);
    world.reactor.remove(job).unwrap();
    drop(world);

    let history = History::open(&dir).unwrap();
    let entries: Vec<_> = history.entries().unwrap().map(Result::unwrap).collect();
    assert_eq!(entries.len(), 1);
    let entry = &entries[0];
    assert_eq!(
        (entry.job, &entry.label[..], entry.started),
        (job, &b"the label"[..], status.started)
    );
    assert_eq!(entry.command, "/bin/sh -c 'echo out; echo err >&2; exit 6'");
    assert_eq!(format!("{:?}", entry.report), format!("{report:?}"));
    assert_eq!(entry.report.exit, Exit::Code(6));
    assert_eq!((&entry.output, &entry.error), (&status.output, &status.error));
    let file = dir.join(format!("{job}.report"));
    assert!(!String::from_utf8_lossy(&fs::read(file).unwrap()).contains("hunter2"));
    history.remove(job).unwrap();
    history.remove(job).unwrap();
    assert!(history.read(job).unwrap().is_none());
    assert_eq!(history.entries().unwrap().count(), 0);
    fs::remove_dir(&dir).unwrap();
}

#[test]
fn a_report_that_cannot_be_written_is_a_problem_in_the_report() {
    let Some((mut world, dir)) = world() else { return };
    let job = world.spawn(&sh("exit 0"));
    fs::remove_dir(&dir).unwrap();
    let report = world.finish(job);
    assert_eq!(report.exit, Exit::Code(0));
    let [problem] = &report.problems[..] else { panic!("{report:?}") };
    assert!(problem.to_string().starts_with("cannot write report"), "{problem}");
    assert!(problem.to_string().contains(&format!("{job}.report")), "{problem}");
    world.reactor.remove(job).unwrap();
}

#[test]
fn what_is_no_report_is_refused_with_its_name_and_the_rest_is_read() {
    let Some((mut world, dir)) = world() else { return };
    let jobs = [world.spawn(&sh("exit 1")), world.spawn(&sh("exit 2"))];
    for job in jobs {
        world.finish(job);
    }
    let path = |job| dir.join(format!("{job}.report"));
    let whole = fs::read(path(jobs[0])).unwrap();
    let history = History::open(&dir).unwrap();
    let refused = |content: &[u8], why: &str| {
        fs::write(path(jobs[0]), content).unwrap();
        let error = history.read(jobs[0]).unwrap_err();
        assert!(matches!(error, Error::System(SystemError::Record { .. })), "{error}");
        let text = error.to_string();
        assert!(text.contains(why) && text.contains(&jobs[0].to_string()), "{text}");
        let (good, bad): (Vec<_>, Vec<_>) = history.entries().unwrap().partition(Result::is_ok);
        assert_eq!((good.len(), bad.len()), (1, 1));
    };
    refused(b"", "empty");
    refused(&whole[..whole.len() / 2], "cut off");
    refused(b"not a report", "not one of this crate");
    let mut later = whole.clone();
    later[9] += 1;
    refused(&later, "version 3");
    let mut changed = whole.clone();
    changed[40] ^= 1;
    refused(&changed, "damaged");
    refused(&fs::read(path(jobs[1])).unwrap(), "another job");
    // What a host has left that died at it, and files of others, are not reports.
    fs::write(dir.join(format!("{}.report.new", jobs[1])), "half").unwrap();
    fs::write(dir.join("notes"), "mine").unwrap();
    assert_eq!(history.entries().unwrap().count(), 2);
    for job in jobs {
        world.reactor.remove(job).unwrap();
    }
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_host_that_is_killed_at_any_moment_leaves_no_unfinished_report() {
    use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

    let Some((mut world, dir)) = world() else { return };
    let flags = OFlags::TMPFILE | OFlags::WRONLY;
    if openat(CWD, &dir, flags, Mode::RUSR | Mode::WUSR).is_err() {
        skip("the file system has no files without a name");
        return;
    }
    let events = inotify::init(CreateFlags::NONBLOCK).unwrap();
    inotify::add_watch(&events, &dir, WatchFlags::CREATE | WatchFlags::MOVE).unwrap();
    let job = world.spawn(&sh("exit 1"));
    world.finish(job);
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(&events, &mut buffer);
    let mut names = Vec::new();
    while let Ok(event) = reader.next() {
        assert!(!event.events().contains(ReadFlags::QUEUE_OVERFLOW));
        names.push(event.file_name().unwrap().to_str().unwrap().to_owned());
    }
    assert_eq!(names, [format!("{job}.report")], "it has no other name at any moment");
    // What was left where it had one is removed with the report.
    fs::write(dir.join(format!("{job}.report.new")), "half").unwrap();
    History::open(&dir).unwrap().remove(job).unwrap();
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    world.reactor.remove(job).unwrap();
    fs::remove_dir(&dir).unwrap();
}

#[test]
fn a_directory_that_others_may_use_is_no_history() {
    let Some((world, dir)) = world() else { return };
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    let error = Reactor::with_config(world.place.config().history(&dir)).unwrap_err();
    assert!(matches!(error, Error::System(SystemError::HistoryDirectory { .. })), "{error}");
    assert!(error.to_string().contains("as history directory: others may use it"), "{error}");
    assert!(History::open(&dir).is_err());
    let mut reactor = Reactor::with_config(&world.place.config()).unwrap();
    assert!(reactor.spawn(&sh("exit 0"), Token(0)).is_ok());
    fs::remove_dir(&dir).unwrap();
}
