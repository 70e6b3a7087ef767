//! Defects of the second review about starting programs: users, privileges, signals and the wait
//! for exec, each under its name.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jobworker::{
    BoundedSpawns, Capability, Command, Containment, Error, ErrorKind, Exit, IoPriority, JobId,
    Position, ProcessGroup, Reactor, Scheduler, SpawnError, Stage,
};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, openat};
use rustix::pty::{OpenptFlags, openpt, ptsname, unlockpt};

use crate::calls::{close_standard_streams, hold_lease};
use crate::skips::skip;
use crate::support::{
    PATIENCE, Place, World, alone, alone_with_capabilities, launcher, sh, skip_outside_vm,
};

/// A user who owns nothing on this machine.
const SPARE_UID: u32 = 61_234;

/// Another, whose processes are all stopped by one of them.
const STOPPED_UID: u32 = 61_235;

/// A world whose jobs are contained by process group, for hosts that may not make cgroups.
fn grouped() -> World {
    let place = Place::new();
    let mut config = place.config();
    config.containment(Containment::ProcessGroup);
    World::around(Reactor::with_config(&config).unwrap(), place)
}

/// Such a world whose bounded spawns may go through a launcher.
fn grouped_or_launched(with_launcher: bool) -> World {
    let place = Place::new();
    let mut config = place.config();
    config.containment(Containment::ProcessGroup);
    if with_launcher {
        config.bounded_spawns(BoundedSpawns::All).launcher(launcher());
    }
    World::around(Reactor::with_config(&config).unwrap(), place)
}

/// A world in which all spawns are bounded, on a copy of the host or through a launcher.
fn bounded(with_launcher: bool, timeout: Duration) -> Option<World> {
    World::with(|config| {
        config.bounded_spawns(BoundedSpawns::All).spawn_timeout(timeout);
        if with_launcher {
            config.launcher(launcher());
        }
    })
}

/// `cat /proc/self/status`, which is what a job says of itself.
fn status_of_itself() -> Command {
    let mut command = Command::new("/bin/cat");
    command.arg("/proc/self/status");
    command
}

/// The value of a field of /proc/PID/status.
#[track_caller]
fn field(status: &str, name: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
    line.unwrap_or_else(|| panic!("no {name} in {status}")).trim().replace('\t', " ")
}

#[test]
fn h6_a_job_of_another_user_has_neither_the_groups_nor_the_capabilities_of_its_host() {
    if !alone_with_capabilities!("+setuid,+setgid") {
        return;
    }
    for with_launcher in [false, true] {
        h6_in(&mut grouped_or_launched(with_launcher));
    }
}

fn h6_in(world: &mut World) {
    let (own, _) = world.run(&status_of_itself());
    assert_eq!(field(&own, "CapAmb"), "00000000000000c0", "the host has its capabilities");
    let (text, _) = world.run(status_of_itself().uid(SPARE_UID).gid(SPARE_UID));
    assert_eq!(field(&text, "Uid"), "61234 61234 61234 61234");
    assert_eq!(field(&text, "Gid"), "61234 61234 61234 61234");
    assert_eq!(field(&text, "Groups"), "");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(field(&text, set), "0000000000000000", "{set}");
    }
    let mut command = Command::new("/usr/bin/setpriv");
    command.args(["--reuid=0", "id", "-u"]).env("PATH", "/usr/bin:/bin");
    let (text, report) = world.run(command.uid(SPARE_UID).gid(SPARE_UID));
    assert_ne!(report.exit, Exit::Code(0), "the job has become {text}");
    let (text, _) = world.run(status_of_itself().uid(SPARE_UID).gid(SPARE_UID).groups([7]));
    assert_eq!(field(&text, "Groups"), "7");
    let (text, _) = world.run(status_of_itself().gid(SPARE_UID));
    assert_eq!(field(&text, "Groups"), "");
    assert_eq!(field(&text, "CapEff"), "0000000000000000");
}

#[test]
fn h6_a_user_without_a_group_is_refused() {
    let mut world = grouped();
    let before = world.footprint();
    let error = world.try_spawn(Command::new("/bin/true").uid(SPARE_UID)).unwrap_err();
    assert!(matches!(error, Error::Spawn(SpawnError::InvalidCommand { .. })), "{error:?}");
    assert!(error.to_string().contains("set the group id as well"), "{error}");
    assert_eq!(world.footprint().log_files, before.log_files);
}

#[test]
fn h5_a_job_has_a_session_of_its_own_and_no_terminal() {
    let Some(mut world) = World::new() else { return };
    let session = |stat: &str| {
        let fields = stat.rsplit_once(')').unwrap().1;
        fields.split_whitespace().nth(3).unwrap().parse::<u32>().unwrap()
    };
    let host = session(&fs::read_to_string("/proc/self/stat").unwrap());
    let mut command = Command::new("/bin/cat");
    command.arg("/proc/self/stat");
    let (text, _) = world.run(&command);
    let pid: u32 = text.split_once(' ').unwrap().0.parse().unwrap();
    assert_eq!(session(&text), pid);
    let (text, _) = world.run(command.process_group(ProcessGroup::Own));
    assert_eq!(session(&text), host);
    // ENXIO, whatever the terminal of the host.
    let (text, report) = world.run(&sh("LC_ALL=C; export LC_ALL; : </dev/tty"));
    assert_ne!(report.exit, Exit::Code(0));
    assert!(text.contains("No such device or address"), "{text}");
}

#[test]
fn h5_a_job_cannot_open_the_terminal_of_its_host_unless_it_shares_the_session() {
    if !fs::exists("/usr/bin/setsid").unwrap() {
        return skip_outside_vm("setsid is needed");
    }
    // A host that leads a session, so that the first terminal that it opens controls it.
    if !alone!("setsid", "--wait") {
        return;
    }
    let Ok(controller) = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY) else {
        return skip_outside_vm("no terminal can be made here");
    };
    unlockpt(&controller).unwrap();
    let name = ptsname(&controller, Vec::new()).unwrap();
    let terminal = openat(CWD, &name, OFlags::RDWR, Mode::empty()).unwrap();
    // The host's own, so that what follows shows something.
    fs::File::open("/dev/tty").unwrap();
    let mut world = grouped();
    let open = sh("LC_ALL=C; export LC_ALL; : </dev/tty && echo opened");
    let (text, report) = world.run(&open);
    assert_ne!(report.exit, Exit::Code(0));
    assert!(text.contains("No such device or address"), "{text}");
    let (text, _) = world.run(open.clone().process_group(ProcessGroup::Own));
    assert_eq!(text, "opened\n");
    drop(terminal);
    // Its end would be a SIGHUP to this process: not before the exit.
    std::mem::forget(controller);
}

/// Whether this test may run jobs as another user; prints why it is skipped otherwise.
fn changes_users() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip("only root can change the user");
    }
    root
}

#[test]
fn h1_a_user_who_stops_every_child_of_the_host_does_not_hold_it() {
    const TIMEOUT: Duration = Duration::from_millis(100);
    if !alone!() || !changes_users() {
        return;
    }
    for with_launcher in [false, true] {
        let Some(world) = bounded(with_launcher, TIMEOUT) else { return };
        h1_beside_a_stopper(world, TIMEOUT);
    }
}

fn h1_beside_a_stopper(mut world: World, timeout: Duration) {
    let as_user = |command: &mut Command| command.uid(STOPPED_UID).gid(STOPPED_UID).clone();
    let stopper =
        in_time(&mut world, &as_user(&mut sh("echo on; while :; do kill -STOP -1; done")));
    let tail = world.tail(stopper, Position::Start);
    world.until("the stopper runs", |world| world.text(tail) == "on\n");
    let before = world.footprint();
    let (mut late, mut stopped) = (0, 0);
    for _ in 0..50 {
        let start = Instant::now();
        let result = world.try_spawn(&as_user(&mut Command::new("/bin/true")));
        // The child may take a second to die, and the machine may be busy.
        assert!(start.elapsed() < timeout + Duration::from_secs(5), "{:?}", start.elapsed());
        match result {
            Ok(job) => {
                // It may have been stopped after it was executed.
                world.reactor.kill(job).unwrap();
                world.finish(job);
                world.reactor.remove(job).unwrap();
            }
            Err(error) => {
                late += 1;
                assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
                let Error::Spawn(SpawnError::TimedOut { program, stage, left, .. }) = &error else {
                    panic!("{error:?}")
                };
                assert_eq!((program.to_str(), *left), (Some("/bin/true"), None), "{error}");
                // On a busy machine it may not have come so far that it could be stopped.
                stopped += usize::from(stage.is_some_and(|stage| stage >= Stage::UserId));
                assert!(error.to_string().contains("have stopped the child"), "{error}");
            }
        }
        assert_eq!(world.footprint(), before);
    }
    eprintln!("{late} of 50 spawns have timed out, {stopped} of them where it can be stopped");
    world.reactor.kill(stopper).unwrap();
    world.finish(stopper);
    // The user is free again, and so is everything that the host has used.
    let id = in_time(&mut world, &as_user(Command::new("/usr/bin/id").arg("-u")));
    let tail = world.tail(id, Position::Start);
    world.finish(id);
    assert_eq!(world.text(tail), format!("{STOPPED_UID}\n"));
}

/// Starts a job that nobody stops, however often the machine is too busy to do that in time.
fn in_time(world: &mut World, command: &Command) -> JobId {
    loop {
        match world.try_spawn(command) {
            Err(error) if error.kind() == ErrorKind::TimedOut => {}
            spawned => return spawned.unwrap(),
        }
    }
}

#[test]
fn h1_a_bounded_spawn_runs_what_an_unbounded_one_runs() {
    for with_launcher in [false, true] {
        let Some(world) = bounded(with_launcher, PATIENCE) else { return };
        h1_runs_the_same(world);
    }
}

fn h1_runs_the_same(mut world: World) {
    let before = world.footprint();
    let (text, report) = world.run(sh("echo $0; ls /proc/self/fd | wc -l; exit 3").arg("name"));
    // 0 to 2, and what ls lists with.
    assert_eq!((text.as_str(), report.exit), ("name\n4\n", Exit::Code(3)));
    for (stage, command) in [
        (Stage::Exec, Command::new("/no/such/program")),
        (Stage::CurrentDirectory, Command::new("/bin/true").current_dir("/no/such").clone()),
    ] {
        let error = world.try_spawn(&command).unwrap_err();
        let Error::Spawn(SpawnError::Failed { stage: failed, .. }) = &error else {
            panic!("{error:?}")
        };
        assert_eq!((*failed, error.raw_os_error()), (stage, Some(2)));
    }
    assert_eq!(world.footprint().cgroups, before.cgroups);
    assert_eq!(world.footprint().log_files, before.log_files);
}

/// A lease on the program file makes exec wait for its holder, as a file system that does not
/// answer would.
#[test]
fn h1_a_program_file_that_cannot_be_opened_for_now_does_not_hold_the_host() {
    if !alone!() {
        return;
    }
    // What tells the holder that somebody waits, and would end it.
    let told = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGIO, Arc::clone(&told)).unwrap();
    for with_launcher in [false, true] {
        // On a slow machine the child needs longer to come as far as the program.
        for timeout in [0.2, 5.0, 20.0].map(Duration::from_secs_f64) {
            let Some(world) = bounded(with_launcher, timeout) else { return };
            if h1_beside_a_lease(world, timeout, &told) == Some(Stage::Exec) {
                break;
            }
            assert!(timeout < Duration::from_secs(20), "the lease is not what holds the spawn");
        }
    }
}

/// How far a spawn came that has timed out because of a lease.
fn h1_beside_a_lease(mut world: World, timeout: Duration, told: &AtomicBool) -> Option<Stage> {
    // A program of many names goes by its own.
    let path = world.place.dir.path().join("true");
    fs::copy("/bin/true", &path).unwrap();
    let file = fs::File::open(&path).unwrap();
    let before = world.footprint();
    told.store(false, Ordering::Relaxed);
    hold_lease(&file);
    let start = Instant::now();
    // It would succeed once the kernel takes the lease away, which is after 45 s.
    let error = world.try_spawn(&Command::new(&path)).unwrap_err();
    assert!(start.elapsed() >= timeout);
    let Error::Spawn(SpawnError::TimedOut { stage, left, timeout: had, .. }) = &error else {
        panic!("{error:?}")
    };
    assert_eq!((*left, *had), (None, timeout), "{error}");
    if *stage == Some(Stage::Exec) {
        assert!(told.load(Ordering::Relaxed), "nobody waits for the lease");
        assert!(error.to_string().contains("came as far as exec"), "{error}");
    }
    assert_eq!(world.footprint(), before);
    // Without the lease, it is in time at some point.
    drop(file);
    let job = std::iter::repeat_with(|| world.try_spawn(&Command::new(&path)));
    let job = job.filter_map(Result::ok).next().unwrap();
    assert_eq!(world.finish(job).exit, Exit::Code(0));
    *stage
}

#[test]
fn h1_a_bounded_spawn_works_in_a_host_without_standard_streams() {
    if !alone!() {
        return;
    }
    close_standard_streams();
    for with_launcher in [false, true] {
        let Some(world) = bounded(with_launcher, PATIENCE) else { return };
        h1_without_streams(world);
    }
}

fn h1_without_streams(mut world: World) {
    for _ in 0..3 {
        let (text, report) = world.run(sh("echo $0; ls /proc/self/fd | wc -l; exit 3").arg("name"));
        assert_eq!((text.as_str(), report.exit), ("name\n4\n", Exit::Code(3)));
        let error = world.try_spawn(&Command::new("/no/such/program")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(2), "{error}");
    }
}

#[test]
fn low_a_fifo_as_standard_input_does_not_hold_the_host() {
    let mut world = grouped();
    let fifo = world.place.dir.path().join("fifo");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let mut command = Command::new("/bin/cat");
    // Nobody has it open for writing.
    let (text, report) = world.run(command.stdin_file(&fifo));
    assert_eq!((text.as_str(), report.exit), ("", Exit::Code(0)));
    // The host does not wait for a writer, but the job waits for what one writes.
    let writer = fs::File::options().read(true).write(true).open(&fifo).unwrap();
    let (text, _) = world.run(sh("cat /proc/self/fdinfo/0").stdin_file(&fifo));
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
    let flags = u32::from_str_radix(flags, 8).unwrap();
    assert_eq!(flags & OFlags::NONBLOCK.bits(), 0, "{text}");
    let job = world.spawn(&command);
    let tail = world.tail(job, Position::Start);
    (&writer).write_all(b"late").unwrap();
    world.until("what was written late", |world| world.text(tail) == "late");
    drop(writer);
    assert_eq!(world.finish(job).exit, Exit::Code(0));
}

#[test]
fn low_an_entry_of_path_that_cannot_be_followed_does_not_end_the_search() {
    let mut world = grouped();
    let dir = world.place.dir.path().to_owned();
    let [one, other] = [dir.join("one"), dir.join("other")];
    symlink(&one, &other).unwrap();
    symlink(&other, &one).unwrap();
    let long = format!("/{}", "x".repeat(300));
    let longer = "/x".repeat(5000);
    for entry in [one.to_str().unwrap(), &long, &longer] {
        let mut command = Command::new("true");
        command.env("PATH", format!("{entry}:/usr/bin:/bin"));
        let (_, report) = world.run(&command);
        assert_eq!(report.exit, Exit::Code(0));
        let error = world.try_spawn(command.env("PATH", format!("{entry}:/x"))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        // Of a path that was given, it is the cause.
        let error = world.try_spawn(&Command::new(format!("{entry}/true"))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
}

/// A world in which every spawn runs on the host's memory, or in which every spawn runs on a copy.
fn grouped_with(spawns: BoundedSpawns) -> World {
    let place = Place::new();
    let mut config = place.config();
    config.containment(Containment::ProcessGroup).bounded_spawns(spawns);
    World::around(Reactor::with_config(&config).unwrap(), place)
}

/// Whether the host has this capability, as root in a container may not; prints why a part of the
/// test is skipped otherwise.
fn has(capability: Capability) -> bool {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let effective = u64::from_str_radix(&field(&status, "CapEff"), 16).unwrap();
    let has = effective & 1 << capability.as_raw() != 0;
    if !has {
        skip(format_args!("the host lacks {capability:?}"));
    }
    has
}

/// Nice value, real-time priority and policy in the content of /proc/PID/stat.
fn scheduling(stat: &str) -> (i32, i32, i32) {
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let field = |number: usize| fields[number - 3].parse().unwrap();
    (field(19), field(40), field(41))
}

#[test]
fn low_what_protects_the_host_from_the_oom_killer_need_not_protect_its_jobs() {
    let host = || fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    let before = host();
    let mut command = Command::new("/bin/cat");
    command.arg("/proc/self/oom_score_adj");
    for spawns in [BoundedSpawns::None, BoundedSpawns::All] {
        let mut world = grouped_with(spawns);
        assert_eq!(world.run(&command).0, before);
        for value in [1000, 987] {
            let (text, _) = world.run(command.clone().oom_score_adj(value));
            assert_eq!(text, format!("{value}\n"));
        }
        assert_eq!(host(), before, "the host's own has changed");
        if changes_users() && has(Capability::SYS_RESOURCE) {
            let (text, _) = world.run(
                command.clone().oom_score_adj(-5).uid(SPARE_UID).gid(SPARE_UID).no_new_privs(true),
            );
            assert_eq!(text, "-5\n");
        }
        let error = world.try_spawn(command.clone().oom_score_adj(-1001)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
}

#[test]
fn low_a_job_has_the_nice_value_and_the_policy_that_are_set() {
    let host = || scheduling(&fs::read_to_string("/proc/thread-self/stat").unwrap());
    let before = host();
    let mut cat = Command::new("/bin/cat");
    cat.arg("/proc/self/stat");
    let mut world = grouped();
    assert_eq!(scheduling(&world.run(&cat).0), before);
    assert_eq!(scheduling(&world.run(cat.clone().nice(19)).0), (19, 0, before.2));
    assert_eq!(scheduling(&world.run(cat.clone().scheduler(Scheduler::Idle)).0).2, 5);
    let (text, _) = world.run(cat.clone().scheduler(Scheduler::Batch).nice(17));
    assert_eq!(scheduling(&text), (17, 0, 3));
    if changes_users() && has(Capability::SYS_NICE) {
        let as_user = |command: &mut Command| command.uid(SPARE_UID).gid(SPARE_UID).clone();
        let (text, _) = world.run(&as_user(cat.clone().nice(-7)));
        assert_eq!(scheduling(&text).0, -7);
        for (scheduler, policy) in [(Scheduler::Fifo(3), 1), (Scheduler::RoundRobin(3), 2)] {
            match world.try_spawn(&as_user(cat.clone().scheduler(scheduler))) {
                Ok(job) => {
                    let tail = world.tail(job, Position::Start);
                    world.finish(job);
                    let found = scheduling(&world.text(tail));
                    assert_eq!((found.1, found.2), (3, policy));
                }
                // Groups of processes may have no real-time runtime.
                Err(error) => skip(format_args!("{error}")),
            }
        }
    }
    assert_eq!(host(), before, "the host's own have changed");
    for wrong in [cat.clone().nice(20), cat.clone().scheduler(Scheduler::Fifo(100))] {
        let error = world.try_spawn(wrong).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
}

#[test]
fn low_a_job_of_another_user_can_have_a_session_keyring_of_its_own() {
    if !changes_users() {
        return;
    }
    if !fs::exists("/proc/keys").unwrap() {
        return skip_outside_vm("the kernel has no keyrings");
    }
    let mut world = grouped();
    // The numbers of the session keyrings that the job can see: as another user, its own.
    let seen = |world: &mut World, command: &mut Command| {
        let command = command.args(["-w", "_ses:", "/proc/keys"]).uid(SPARE_UID).gid(SPARE_UID);
        let (text, _) = world.run(command);
        text.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let hosts = seen(&mut world, &mut Command::new("grep"));
    let mut own = Vec::new();
    for _ in 0..2 {
        let found = seen(&mut world, Command::new("grep").new_session_keyring(true));
        assert_eq!(found.len(), 1, "{found:?}");
        own.extend(found);
    }
    assert!(own[0] != own[1] && !own.iter().any(|key| hosts.contains(key)), "{own:?} {hosts:?}");
    assert_eq!(seen(&mut world, &mut Command::new("grep")), hosts, "the host's own has changed");
}

#[test]
fn low_a_job_that_stays_root_has_no_capability_outside_of_its_bounding_set() {
    if !changes_users() || !has(Capability::SETPCAP) {
        return;
    }
    let mut world = grouped();
    let (before, _) = world.run(&status_of_itself());
    let set = [Capability::CHOWN, Capability::NET_BIND_SERVICE];
    let (text, _) = world.run(status_of_itself().capability_bounding_set(set));
    for name in ["CapBnd", "CapPrm", "CapEff"] {
        assert_eq!(field(&text, name), "0000000000000401", "{name}");
    }
    for name in ["CapInh", "CapAmb"] {
        assert_eq!(field(&text, name), "0000000000000000", "{name}");
    }
    let (text, _) = world.run(status_of_itself().capability_bounding_set([]).uid(1).gid(1));
    assert_eq!(field(&text, "CapBnd"), "0000000000000000");
    assert_eq!(field(&text, "Uid"), "1 1 1 1");
    let (after, _) = world.run(&status_of_itself());
    assert_eq!(field(&after, "CapBnd"), field(&before, "CapBnd"), "the host's own has changed");
}

#[test]
fn low_root_without_its_privileges_has_no_capabilities() {
    if !changes_users() || !has(Capability::SETPCAP) {
        return;
    }
    let mut world = grouped();
    // SECBIT_NOROOT and its lock.
    let (text, _) = world.run(status_of_itself().securebits(0x3));
    assert_eq!(field(&text, "Uid"), "0 0 0 0");
    assert_eq!(field(&text, "CapEff"), "0000000000000000");
    let (text, _) = world.run(&status_of_itself());
    assert_ne!(field(&text, "CapEff"), "0000000000000000");
    if fs::exists("/usr/bin/setpriv").unwrap() {
        let (text, _) = world.run(Command::new("/usr/bin/setpriv").arg("--dump").securebits(0x3));
        assert!(text.contains("noroot,noroot_locked"), "{text}");
    }
}

#[test]
fn low_what_the_host_may_not_set_is_named_with_its_stage() {
    let user = rustix::process::geteuid();
    if !user.is_root() && user.as_raw() != SPARE_UID - 1 {
        skip("only root can become another user");
        return;
    }
    if !fs::exists("/usr/bin/setpriv").unwrap() {
        return skip_outside_vm("setpriv is needed");
    }
    if !alone!("setpriv", "--reuid=61233", "--regid=61233", "--clear-groups") {
        return;
    }
    for with_launcher in [false, true] {
        low_names_the_stage(&mut grouped_or_launched(with_launcher));
    }
}

fn low_names_the_stage(world: &mut World) {
    let command = || Command::new("/bin/true");
    let before = world.footprint();
    for (stage, remedy, command) in [
        (Stage::OomScore, "CAP_SYS_RESOURCE", command().oom_score_adj(-1000).clone()),
        (Stage::Scheduling, "CAP_SYS_NICE", command().nice(-20).clone()),
        (Stage::Scheduling, "CAP_SYS_NICE", command().scheduler(Scheduler::Fifo(1)).clone()),
        (Stage::IoPriority, "CAP_SYS_NICE", command().io_priority(IoPriority::RealTime(0)).clone()),
        (Stage::RootDirectory, "CAP_SYS_CHROOT", command().chroot("/").clone()),
        (Stage::BoundingSet, "CAP_SETPCAP", command().capability_bounding_set([]).clone()),
        (Stage::SecureBits, "CAP_SETPCAP", command().securebits(0x3).clone()),
    ] {
        let error = world.try_spawn(&command).unwrap_err();
        assert!(error.to_string().contains(remedy), "{error}");
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        let Error::Spawn(SpawnError::Failed { stage: failed, .. }) = error else {
            panic!("{error:?}")
        };
        assert_eq!(failed, stage);
        assert_eq!(world.footprint(), before);
    }
}
