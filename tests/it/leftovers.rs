//! After any number of jobs, and of spawns that fail at every stage, nothing is left on the system.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use jobworker::{
    Command, Containment, EndPolicy, Error, JobId, Limits, LimitsError, Output, Position,
    ProcessGroup, Reactor, Resource, SpawnError, Stage, SystemError, TailId, Token,
};
use rustix::process::{Gid, Uid};

use crate::skips::skip;
use crate::support::{Footprint, Place, World, alone, remove_parent, resident_bytes, rounds, sh};

/// Spawns that fail, each at another stage.
struct Failures {
    /// A world in which groups can be made, but no process can be cloned into them.
    invalid: World,
    /// A reactor whose parent group was removed.
    orphaned: Reactor,
    /// Where it keeps its logs.
    orphaned_place: Place,
    garbage: PathBuf,
    plain: PathBuf,
    controller: bool,
}

impl Failures {
    fn new(world: &World) -> Option<Self> {
        let place = Place::new();
        let parent = place.cgroup_or_skip()?;
        let reactor = Reactor::with_config(&place.config()).unwrap();
        // A group below a threaded one is "domain invalid" until it is threaded as well, and no
        // process can be cloned into it.
        fs::write(parent.join("cgroup.type"), "threaded").unwrap();
        let invalid = World::around(reactor, place);
        let mut orphaned_place = Place::new();
        let orphaned = Reactor::with_config(&orphaned_place.config()).unwrap();
        remove_parent(&orphaned_place.cgroup.take().unwrap());

        let [garbage, plain] = ["garbage", "plain"].map(|name| world.place.dir.path().join(name));
        for (path, mode) in [(&garbage, 0o755), (&plain, 0o644)] {
            fs::write(path, "neither a script nor a binary").unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let controllers =
            fs::read_to_string(world.place.cgroup.as_ref().unwrap().join("cgroup.controllers"))
                .unwrap();
        let controller = controllers.split_whitespace().any(|name| name == "cpu");
        Some(Self { invalid, orphaned, orphaned_place, garbage, plain, controller })
    }

    /// Fails once at every stage that can be made to fail.
    fn fail_everywhere(&mut self, world: &mut World) {
        let run = || Command::new("/bin/true");
        let null = || fs::File::open("/dev/null").unwrap();
        for (stage, errno, command) in [
            (Stage::Exec, 2, Command::new("/no/such/program")),
            (Stage::Exec, 2, Command::new("no-such-program")),
            (Stage::Exec, 13, Command::new(&self.plain)),
            (Stage::Exec, 13, Command::new("/")),
            (Stage::Exec, 8, Command::new(&self.garbage)),
            (Stage::CurrentDirectory, 2, run().current_dir("/no/such/directory").clone()),
            (Stage::CurrentDirectory, 20, run().current_dir("/bin/true").clone()),
            (
                Stage::CurrentDirectory,
                13,
                run().current_dir(world.place.logs()).uid(65534).gid(65534).clone(),
            ),
            // More descriptors than the sysctl fs.nr_open allows, and more groups than the kernel
            // allows.
            (
                Stage::ResourceLimits,
                1,
                run().rlimit(Resource::OpenFiles, Some(1 << 40), Some(1 << 40)).clone(),
            ),
            (Stage::Affinity, 22, run().cpu_affinity([60_000]).clone()),
            (Stage::RootDirectory, 2, run().chroot("/no/such/directory").clone()),
            (Stage::RootDirectory, 20, run().chroot("/bin/true").current_dir("/").clone()),
            // Just below the limit that fcntl takes, and so above any limit of open files.
            (Stage::Descriptors, 22, run().pass_fd(1 << 30, null()).clone()),
            (Stage::Groups, 22, run().groups(0..70_000).output(Output::Split).clone()),
        ] {
            let error = world.try_spawn(&command).unwrap_err();
            let Error::Spawn(SpawnError::Failed { stage: failed, .. }) = &error else {
                panic!("{error:?}")
            };
            assert_eq!((*failed, error.raw_os_error()), (stage, Some(errno)), "{error}");
        }
        let error = self.invalid.try_spawn(&run()).unwrap_err();
        assert!(
            matches!(error, Error::Spawn(SpawnError::Failed { stage: Stage::Clone, .. })),
            "{error:?}"
        );
        let error = self.orphaned.spawn(&run(), Token(0)).unwrap_err();
        assert!(
            matches!(error, Error::System(SystemError::Path { operation: "create cgroup", .. })),
            "{error:?}"
        );
        // These fail before there is a process.
        let error = world.try_spawn(&Command::new("")).unwrap_err();
        assert!(matches!(error, Error::Spawn(SpawnError::InvalidCommand { .. })), "{error:?}");
        let error = world.try_spawn(run().arg("a\0b")).unwrap_err();
        assert!(matches!(error, Error::Spawn(SpawnError::InvalidCommand { .. })), "{error:?}");
        let error = world.try_spawn(run().stdin_file("/no/such/input")).unwrap_err();
        assert!(
            matches!(error, Error::Spawn(SpawnError::Failed { stage: Stage::StandardStreams, .. })),
            "{error:?}"
        );
        let error = world.try_spawn(run().limits(Limits::new().cpu_weight(0))).unwrap_err();
        assert!(matches!(error, Error::Limits(LimitsError::Invalid(_))), "{error:?}");
        if !self.controller {
            let error = world.try_spawn(run().limits(Limits::new().cpu_weight(100))).unwrap_err();
            assert!(
                matches!(error, Error::Limits(LimitsError::ControllerUnavailable { .. })),
                "{error:?}"
            );
        }
    }

    fn assert_nothing_is_left(&self) {
        let groups = crate::support::directories(self.invalid.place.cgroup.as_ref().unwrap()).len();
        let logs = [self.invalid.place.logs(), self.orphaned_place.logs()]
            .map(|dir| fs::read_dir(dir).unwrap().count());
        assert_eq!((groups, logs), (0, [0, 0]));
    }
}

/// One of the commands that the jobs run.
struct Kind {
    command: Command,
    /// Whether it runs until it is ended.
    endless: bool,
}

fn kinds() -> Vec<Kind> {
    let ends = |command: &Command| Kind { command: command.clone(), endless: false };
    let endless = |command: &Command| Kind { command: command.clone(), endless: true };
    let (echo, sleep) = (
        Command::new("/bin/echo").arg("text").clone(),
        Command::new("/bin/sleep").arg("1000").clone(),
    );
    let late = sh("(echo late) & exit 0");
    let limit = Duration::from_millis(2);
    vec![
        ends(&Command::new("/bin/true")),
        ends(&echo),
        ends(echo.clone().output(Output::Split)),
        ends(Command::new("/bin/false").output(Output::Null)),
        ends(&sh("echo last; kill -9 $$")),
        ends(&late),
        ends(late.clone().end_policy(EndPolicy::WaitAll)),
        ends(&sh("sleep 1000 & sleep 1000 & echo text")),
        ends(sleep.clone().time_limit(limit)),
        ends(Command::new("/bin/true").uid(65534).gid(65534).process_group(ProcessGroup::Session)),
        endless(sleep.clone().grace(Duration::from_secs(3600))),
        endless(sh("trap '' TERM; setsid sleep 1000 & sleep 1000").grace(limit)),
    ]
}

/// Runs this many jobs, a few at a time, and removes them all.
fn run_jobs(world: &mut World, failures: &mut Failures, kinds: &[Kind], number: usize) {
    const ALIVE: usize = 16;
    let mut running: Vec<(JobId, Option<TailId>)> = Vec::new();
    for index in 0..number + ALIVE {
        if index < number {
            let kind = &kinds[index % kinds.len()];
            let job = world.spawn(&kind.command);
            let has_log = world.reactor.status(job).unwrap().output.is_some();
            // By turns, the tail is read to the end, it is closed early, or another one is left
            // unread until the job is removed.
            let tail = has_log.then(|| world.tail(job, Position::Start));
            if let (Some(tail), 1) = (tail, index % 3) {
                world.reactor.close(tail).unwrap();
                world.transcripts.remove(&tail);
            }
            if has_log && index % 3 == 2 {
                world.reactor.tail(job, Position::End, Token(0)).unwrap();
            }
            running.push((job, tail));
            if kind.endless {
                if index % 2 == 0 { world.reactor.stop(job) } else { world.reactor.kill(job) }
                    .unwrap();
            }
            if index % 50 == 0 {
                failures.fail_everywhere(world);
            }
        }
        if index >= ALIVE.min(number) && !running.is_empty() {
            let (job, tail) = running.remove(0);
            let report = world.finish(job);
            assert!(report.problems.is_empty() && report.cgroup_left.is_none(), "{report:?}");
            world.reactor.remove(job).unwrap();
            // The memory that the test itself uses must not be counted.
            world.exited.remove(&job);
            world.finished.remove(&job);
            if let Some(tail) = tail {
                world.transcripts.remove(&tail);
            }
        }
    }
    assert!(running.is_empty() && world.transcripts.is_empty() && world.finished.is_empty());
    world.turn(Some(Duration::ZERO));
}

#[test]
fn five_thousand_jobs_and_failing_starts_of_every_stage_leave_nothing_behind() {
    if !alone!() {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        skip("only root can reach the stages that change the user");
        return;
    }
    let Some(mut world) = World::new() else { return };
    let Some(mut failures) = Failures::new(&world) else { return };
    let kinds = kinds();
    let before: Footprint = world.footprint();
    // After a child that was a copy of this process, pages that are written to are resident twice
    // until the first is given up: it takes some of them until that has settled.
    run_jobs(&mut world, &mut failures, &kinds, rounds(2000));
    assert_eq!(world.footprint(), before);
    let resident = resident_bytes();
    run_jobs(&mut world, &mut failures, &kinds, rounds(3000));
    assert_eq!(world.footprint(), before);
    failures.assert_nothing_is_left();
    let grown = resident_bytes().saturating_sub(resident);
    assert!(grown < 1024 * 1024, "the later jobs have leaked {grown} bytes");
    eprintln!("the later jobs have grown the resident set by {grown} bytes");
}

#[test]
fn a_host_without_privileges_is_told_which_one_it_lacks_and_nothing_is_left() {
    if !alone!() {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        skip("only root can give up privileges");
        return;
    }
    // To the kernel, ids belong to a thread: this one gives up its own, and the others keep theirs.
    let unprivileged = std::thread::spawn(|| {
        let (user, group) = (Uid::from_raw(65534), Gid::from_raw(65534));
        rustix::thread::set_thread_groups(&[]).unwrap();
        rustix::thread::set_thread_res_gid(group, group, group).unwrap();
        rustix::thread::set_thread_res_uid(user, user, user).unwrap();
        let place = Place::new();
        let mut world = World::around(
            Reactor::with_config(place.config().containment(Containment::ProcessGroup)).unwrap(),
            place,
        );
        let run = || Command::new("/bin/true");
        let before = world.footprint();
        for _ in 0..100 {
            for (stage, command) in [
                // Groups are dropped before the ids change, even if they change to what they are.
                (Stage::Groups, run().uid(0).gid(0).clone()),
                (Stage::Groups, run().uid(65534).gid(65534).clone()),
                (Stage::Groups, run().gid(0).clone()),
                (Stage::Groups, run().groups([0]).clone()),
                (Stage::ResourceLimits, run().rlimit(Resource::Nice, Some(40), Some(40)).clone()),
            ] {
                let error = world.try_spawn(&command).unwrap_err();
                let Error::Spawn(SpawnError::Failed { stage: failed, .. }) = &error else {
                    panic!("{error:?}")
                };
                assert_eq!((*failed, error.raw_os_error()), (stage, Some(1)), "{error}");
                assert!(error.to_string().contains("CAP_"), "{error}");
            }
        }
        assert_eq!(world.footprint(), before);
        // A job that needs no privilege can be run.
        let (text, _) = world.run(Command::new("/usr/bin/id").arg("-u"));
        assert_eq!(text, "65534\n");
        assert_eq!(world.footprint(), before);
    });
    unprivileged.join().unwrap();
}
