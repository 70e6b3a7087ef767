//! How many file descriptors a job needs: one while it runs, and one for its log while somebody
//! reads it.

use std::fs::{self, File};
use std::iter;
use std::path::PathBuf;

use jobworker::{ByteSize, ErrorKind, Found, Position, Reactor, Signal, Stdin, Token};
use rustix::fs::removexattr;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::{Place, World, alone, markers, rounds, sh};

fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn nine_hundred_jobs_run_within_the_usual_limit_of_1024_descriptors() {
    if !alone!() {
        return;
    }
    let Some(mut world) = World::new() else { return };
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(1024), maximum }).unwrap();
    let before = open_descriptors();
    let number = rounds(900);
    let jobs: Vec<_> = (0..number).map(|_| world.spawn(&sh("exec sleep 1000"))).collect();
    assert_eq!(open_descriptors(), before + number, "one for each job");
    // With all of them running, they can still be signalled and killed.
    for (index, job) in jobs.iter().enumerate() {
        match index % 2 {
            0 => world.reactor.signal(*job, Signal::KILL).unwrap(),
            _ => world.reactor.kill(*job).unwrap(),
        }
    }
    for job in jobs {
        let report = world.finish(job);
        assert_eq!(report.exit.signal(), Some(Signal::KILL));
        assert!(report.problems.is_empty() && report.cgroup_left.is_none(), "{report:?}");
        world.reactor.remove(job).unwrap();
    }
    assert_eq!(open_descriptors(), before);
}

#[test]
fn a_reactor_that_cannot_be_made_for_lack_of_descriptors_leaves_nothing_behind() {
    if !alone!() {
        return;
    }
    let place = Place::new();
    let Some(cgroup) = &place.cgroup_or_skip() else { return };
    let (open, maximum) = (open_descriptors(), getrlimit(Resource::Nofile).maximum);
    let limit = |current| setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
    let mut refused = 0;
    for more in 0.. {
        // The list of descriptors, which is counted, is closed by now.
        limit(Some((open - 1 + more) as u64));
        let started = Reactor::with_config(&place.config());
        limit(maximum);
        let Err(error) = started else { break };
        assert_eq!(error.kind(), ErrorKind::LimitReached, "{error}");
        assert!(error.to_string().contains("raise RLIMIT_NOFILE"), "{error}");
        assert_eq!(open_descriptors(), open);
        assert_eq!(markers(cgroup), Vec::<PathBuf>::new(), "{more} more: {error}");
        refused += 1;
    }
    assert!(refused > 5);
}

#[test]
fn a_log_is_open_while_somebody_reads_it_and_no_longer() {
    if !alone!() {
        return;
    }
    let Some(mut world) = World::new() else { return };
    let before = open_descriptors();
    let job = world.spawn(&sh("echo line; exec sleep 1000"));
    assert_eq!(open_descriptors(), before + 1);
    let first = world.tail(job, Position::Start);
    let second = world.tail(job, Position::Start);
    world.until("the line is read", |world| world.text(first) == "line\n");
    assert_eq!(open_descriptors(), before + 2, "one for all tails");
    world.reactor.close(first).unwrap();
    assert_eq!(open_descriptors(), before + 2);
    world.reactor.close(second).unwrap();
    assert_eq!(open_descriptors(), before + 1);
    // A later tail reads the log from its first byte on.
    let third = world.tail(job, Position::Start);
    world.until("the line is read again", |world| world.text(third) == "line\n");
    world.reactor.kill(job).unwrap();
    world.finish(job);
    world.reactor.remove(job).unwrap();
    assert_eq!(open_descriptors(), before);
}

/// A job is left as it is by a recovery that lacks descriptors, and found whole by a later one,
/// also if its log lies elsewhere, or its record is gone.
#[test]
fn a_recovery_without_descriptors_fails_and_a_later_one_finds_everything() {
    if !alone!() {
        return;
    }
    for record in [true, false] {
        let Some(mut world) = World::with(|config| _ = config.name("host")) else { return };
        let mut command = sh("echo ready; read _; seq 1000");
        command.survives(true).stdin(Stdin::Piped).log_keep(ByteSize::from_bytes(1 << 20));
        let job = world.spawn(&command);
        let tail = world.tail(job, Position::Start);
        world.until("the job is ready", |world| world.text(tail) == "ready\n");
        let World { reactor, place, .. } = world;
        drop(reactor);
        let elsewhere = Place::new();
        let mut config = place.config();
        config.name("host");
        if record {
            config.log_dir(elsewhere.logs());
        } else {
            removexattr(place.group(job), "user.jobworker").unwrap();
        }
        let mut reactor = Reactor::with_config(&config).unwrap();
        let (open, maximum) = (open_descriptors(), getrlimit(Resource::Nofile).maximum);
        let limit = |current| setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
        let mut failed = 0;
        let found = loop {
            let mut recovery = reactor.recovery().unwrap();
            limit(Some(open as u64 + 40));
            let mut all: Vec<_> = iter::from_fn(|| File::open("/dev/null").ok()).collect();
            all.truncate(all.len() - failed);
            let found = reactor.recover(&mut recovery, Token(1));
            drop(all);
            limit(maximum);
            match found {
                Ok(found) => break found.unwrap(),
                Err(error) => assert_eq!(error.kind(), ErrorKind::LimitReached, "{error}"),
            }
            failed += 1;
        };
        assert!(failed > 0);
        let expected = if record { Found::Running } else { Found::Damaged };
        assert_eq!((found.job, found.found), (job, expected));
        let mut world = World::around(reactor, place);
        let tail = world.tail(job, Position::Start);
        let report = world.finish(job);
        if record {
            assert!(report.problems.is_empty(), "{report:?}");
            let lines = (1..=1000).map(|line| format!("{line}\n"));
            let whole: String = ["ready\n".to_owned()].into_iter().chain(lines).collect();
            assert_eq!(world.text(tail), whole);
        } else {
            assert!(world.text(tail).starts_with("ready\n") && report.output_bytes > 0);
        }
        world.reactor.remove(job).unwrap();
    }
}
