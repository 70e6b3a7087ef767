//! Bounded spawns through a launcher: what a job gets and every error are the same as without one,
//! nothing is left, and what is no launcher is refused when the reactor is made.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use jobworker::{
    BoundedSpawns, Capability, Command, Config, Containment, Error, ErrorKind, Exit, IoPriority,
    Position, ProcessGroup, Reactor, Resource, Scheduler, SpawnError, Stage, SystemError,
};
use rustix::process::{Resource as Limit, Rlimit, getrlimit, setrlimit};

use crate::skips::skip;
use crate::support::{
    Place, World, alone, alone_with_capabilities, assert_arguments_arrive, launcher, sh,
};

/// Two worlds in which every spawn is bounded: on a copy of the host, and through a launcher.
fn both() -> [World; 2] {
    let grouped = |change: fn(&mut Config)| {
        let place = Place::new();
        let mut config = place.config();
        config.containment(Containment::ProcessGroup).bounded_spawns(BoundedSpawns::All);
        change(&mut config);
        World::around(
            Reactor::with_config(&config).unwrap_or_else(|error| panic!("{error}")),
            place,
        )
    };
    [grouped(|_| {}), grouped(|config| _ = config.launcher(launcher()))]
}

/// A world in a cgroup in which every spawn goes through a launcher.
fn world() -> Option<World> {
    World::with(|config| _ = config.bounded_spawns(BoundedSpawns::All).launcher(launcher()))
}

fn null() -> fs::File {
    fs::File::open("/dev/null").unwrap()
}

/// The stage and the errno of a start that has failed.
#[track_caller]
fn failure(world: &mut World, command: &Command) -> (Stage, i32) {
    match world.try_spawn(command) {
        Err(Error::Spawn(SpawnError::Failed { stage, cause, .. })) => {
            (stage, cause.raw_os_error().unwrap())
        }
        other => panic!("{command:?}: {other:?}"),
    }
}

#[test]
fn every_failure_is_the_same_as_without_a_launcher_and_leaves_nothing() {
    if !alone!() {
        return;
    }
    let mut worlds = both();
    let command = |program: &str| Command::new(program);
    let dir = worlds[0].place.dir.path().to_owned();
    fs::write(dir.join("garbage"), "neither a script nor a binary").unwrap();
    fs::set_permissions(dir.join("garbage"), PermissionsExt::from_mode(0o755)).unwrap();
    let garbage = dir.join("garbage").to_str().unwrap().to_owned();
    let mut commands = vec![
        command("/no/such/program"),
        command("no-such-program"),
        command("/etc/passwd"),
        command("/"),
        command(&garbage),
        command(&format!("{garbage}/below")),
        command(&"/x".repeat(5000)),
        command("/bin/true").arg("x".repeat(200_000)).clone(),
        command("/bin/true").args(vec!["x".repeat(100_000); 40]).clone(),
        command("/bin/true").current_dir("/no/such").clone(),
        command("/bin/true").current_dir("/etc/passwd").clone(),
        // A stack that leaves no room for these arguments.
        command("/bin/true")
            .rlimit(Resource::Stack, Some(1 << 20), Some(1 << 20))
            .args(vec!["x".repeat(100_000); 8])
            .clone(),
        command("/bin/true")
            .rlimit(Resource::OpenFiles, Some(3), Some(3))
            .oom_score_adj(1000)
            .clone(),
        command("/bin/true").cpu_affinity([60_000]).clone(),
        command("/bin/true").pass_fd(1 << 30, null()).clone(),
        command("/bin/true").uid(61_234).gid(61_234).current_dir(worlds[0].place.logs()).clone(),
    ];
    if !rustix::process::geteuid().is_root() {
        commands.push(command("/bin/true").uid(0).gid(0).clone());
        commands.push(command("/bin/true").nice(-20).clone());
        commands.push(command("/bin/true").securebits(3).clone());
        commands.push(command("/bin/true").capability_bounding_set([Capability::CHOWN]).clone());
        commands.push(command("/bin/true").scheduler(Scheduler::Fifo(1)).clone());
    }
    for command in &commands {
        let [copied, launched] = worlds.each_mut().map(|world| {
            let before = world.footprint();
            let found = failure(world, command);
            assert_eq!(world.footprint(), before);
            found
        });
        assert_eq!(launched, copied, "{:.200}", format!("{command:?}"));
    }
}

/// What a job says of itself that a launcher could change.
fn description(world: &mut World, command: &mut Command) -> String {
    let script = "grep -E '^(Umask|Uid|Gid|Groups|Sig[BIC]|.*Pnd|Cap|NoNew|Seccomp|Cpus_a)' \
                  /proc/self/status; cat /proc/self/limits /proc/self/oom_score_adj; umask; pwd; \
                  ls /proc/self/fd; cut -d' ' -f 19,40,41 /proc/self/stat; env";
    let (text, report) = world.run(command.args(["-c", script]));
    assert_eq!(report.exit, Exit::Code(0), "{text}");
    assert!(text.contains("CapAmb") && text.contains("SigIgn"), "{text}");
    text
}

#[test]
fn a_job_is_the_same_as_without_a_launcher() {
    let [mut copied, mut launched] = both();
    let shell = || Command::new("/bin/sh").env("PATH", "/usr/bin:/bin").clone();
    let mut commands = vec![
        shell(),
        shell().process_group(ProcessGroup::Own).umask(0o27).no_new_privs(true).clone(),
        shell().rlimit(Resource::Core, Some(0), Some(0)).oom_score_adj(900).nice(19).clone(),
        shell().rlimit(Resource::AddressSpace, Some(64 << 20), None).current_dir("/usr").clone(),
        shell().pass_fd(3, null()).pass_fd(6, null()).pass_fd(300, null()).clone(),
        shell().cpu_affinity([0]).io_priority(IoPriority::Idle).arg0("another").clone(),
        shell().rlimit(Resource::Processes, Some(0), None).scheduler(Scheduler::Batch).clone(),
    ];
    if rustix::process::geteuid().is_root() {
        commands.extend([
            shell().uid(61_234).gid(61_235).groups([7, 5]).clone(),
            shell().gid(61_235).clone(),
            shell().chroot("/").io_priority(IoPriority::RealTime(3)).clone(),
            shell().capability_bounding_set([Capability::CHOWN]).clone(),
            shell().securebits(0x3).clone(),
        ]);
    }
    for mut command in commands {
        // Some need more than this machine or this container allows; they do so in both ways.
        let expected = match copied.try_spawn(command.clone().args(["-c", "exit"])) {
            Ok(_) => description(&mut copied, &mut command.clone()),
            Err(error) => {
                skip(format_args!("{error}"));
                continue;
            }
        };
        assert_eq!(description(&mut launched, &mut command), expected);
    }
}

#[test]
fn arguments_and_environment_of_any_bytes_and_length_arrive_as_they_are() {
    let Some(mut world) = world() else { return };
    let every_byte: Vec<u8> = (1..=255).collect();
    let long = vec![b'y'; 100 * 1024];
    let arguments: [&[u8]; 6] = [b"", b" two  words ", b"\xff\xfe", b"", &every_byte, &long];
    assert_arguments_arrive(&mut world, &arguments);

    let mut command = Command::new("/usr/bin/env");
    command.arg("-0");
    assert_eq!(world.run(&command).0, "");
    // What a privileged process must not listen to passes through it unheard.
    command
        .env("A", "")
        .env(OsStr::from_bytes(b"B\xff"), OsStr::from_bytes(&every_byte))
        .env("GLIBC_TUNABLES", "glibc.malloc.check=3")
        .env("LD_BIND_NOW", "1")
        .env("Z", OsStr::from_bytes(&long));
    let job = world.spawn(&command);
    let tail = world.tail(job, Position::Start);
    world.finish(job);
    let pairs: [&[u8]; 5] = [
        b"A=",
        &[b"B\xff=".as_slice(), &every_byte].concat(),
        b"GLIBC_TUNABLES=glibc.malloc.check=3",
        b"LD_BIND_NOW=1",
        &[b"Z=".as_slice(), &long].concat(),
    ];
    let expected: Vec<u8> = pairs.iter().flat_map(|pair| [*pair, b"\0"].concat()).collect();
    assert_eq!(world.transcripts[&tail].bytes, expected);
}

/// A copy of a program in the directory of a world or a place.
fn copy(dir: &Path, program: &Path, name: &str) -> PathBuf {
    let path = dir.join(name);
    fs::copy(program, &path).unwrap();
    path
}

/// A world in which every spawn goes through the program at a path.
fn through(path: &Path, place: Place) -> World {
    let mut config = place.config();
    config.containment(Containment::ProcessGroup).bounded_spawns(BoundedSpawns::All);
    World::around(Reactor::with_config(config.launcher(path)).unwrap(), place)
}

#[test]
fn the_launcher_is_the_file_that_was_found_whatever_becomes_of_its_path() {
    let place = Place::new();
    let path = copy(place.dir.path(), &launcher(), "launcher");
    let mut world = through(&path, place);
    let other = copy(world.place.dir.path(), Path::new("/bin/false"), "other");
    for replace in [true, false] {
        if replace {
            fs::rename(&other, &path).unwrap();
        } else {
            fs::remove_file(&path).unwrap();
        }
        let (text, report) = world.run(&sh("echo on; exit 3"));
        assert_eq!((text.as_str(), report.exit), ("on\n", Exit::Code(3)));
    }
}

#[test]
fn a_launcher_that_is_written_over_is_an_error_with_its_stage() {
    if !alone!() {
        return;
    }
    let place = Place::new();
    let path = copy(place.dir.path(), &launcher(), "launcher");
    let mut world = through(&path, place);
    let before = world.footprint();
    // A program that ends without a word, and none at all.
    for (content, errno) in [
        (fs::read("/bin/false").unwrap(), rustix::io::Errno::NOEXEC),
        (b"neither a script nor a binary".to_vec(), rustix::io::Errno::NOEXEC),
    ] {
        fs::write(&path, content).unwrap();
        let found = failure(&mut world, &Command::new("/bin/true"));
        assert_eq!(found, (Stage::Launcher, errno.raw_os_error()));
        assert_eq!(world.footprint(), before);
    }
}

#[test]
fn what_is_no_launcher_is_refused_when_the_reactor_is_made() {
    if !alone!() {
        return;
    }
    let place = Place::new();
    let dir = place.dir.path();
    let script = dir.join("script");
    fs::write(&script, "#!/bin/sh\nexit 0\n").unwrap();
    let children = crate::support::children();
    let fds = fs::read_dir("/proc/self/fd").unwrap().count();
    let refused = |path: &Path| {
        let mut config = place.config();
        config.containment(Containment::ProcessGroup).launcher(path);
        let error = Reactor::with_config(&config).map(drop).unwrap_err();
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        assert_eq!(crate::support::children(), children, "{error}");
        assert_eq!(fs::read_dir("/proc/self/fd").unwrap().count(), fds, "{error}");
        error
    };
    // A program that ends at once, and one that waits for its input, which is empty.
    for program in ["/bin/true", "/bin/cat"] {
        let error = refused(Path::new(program));
        assert!(matches!(error, Error::System(SystemError::Launcher { .. })), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("jobworker::run_launcher"), "{error}");
    }
    for (path, kind) in [
        (Path::new("/no/such/launcher"), ErrorKind::NotFound),
        (Path::new("/etc/passwd"), ErrorKind::PermissionDenied),
        (dir, ErrorKind::PermissionDenied),
        (&script, ErrorKind::PermissionDenied),
    ] {
        let error = refused(path);
        assert!(matches!(error, Error::System(SystemError::Path { .. })), "{error:?}");
        assert_eq!(error.kind(), kind, "{error}");
    }
    fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    let error = refused(&script);
    assert!(error.to_string().contains("it is a script"), "{error}");
    // The part of this program that is a launcher answers so under this name.
    let own = std::env::current_exe().unwrap();
    let error = refused(&copy(dir, &own, "launcher-of-another-release"));
    assert!(matches!(error, Error::System(SystemError::Launcher { .. })), "{error:?}");
    assert!(error.to_string().contains("speaks version 4711"), "{error}");
}

#[test]
fn a_launcher_that_is_started_by_hand_goes_on_as_the_program_that_it_is() {
    // There is no letter. To the harness of the tests, the argument is the name of none of them.
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    let output = command.arg0("jobworker-launcher").arg("jobworker:launch").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("running 0 tests"), "{output:?}");
}

#[test]
fn a_host_at_its_file_size_limit_gets_an_error_that_names_it() {
    if !alone!() {
        return;
    }
    let mut worlds = both();
    let limit = getrlimit(Limit::Fsize);
    let at_most = |current| {
        setrlimit(Limit::Fsize, Rlimit { current, maximum: limit.maximum }).unwrap();
    };
    let (mut input, mut long) = (Command::new("/bin/cat"), Command::new("/bin/true"));
    input.stdin_bytes([b'x'; 5000]);
    long.env("A", "x".repeat(5000));
    for (index, world) in worlds.iter_mut().enumerate() {
        let before = world.footprint();
        at_most(Some(4000));
        let (refused, started) = (world.try_spawn(&input), world.try_spawn(&long));
        at_most(limit.current);
        let mut errors = vec![(refused.unwrap_err(), Stage::StandardStreams)];
        // A copy of the host needs no letter.
        match started {
            Ok(job) => {
                assert_eq!((index, world.finish(job).exit), (0, Exit::Code(0)));
                world.reactor.remove(job).unwrap();
            }
            Err(error) => errors.push((error, Stage::Launcher)),
        }
        assert_eq!(errors.len(), index + 1);
        for (error, expected) in errors {
            assert!(error.to_string().contains("RLIMIT_FSIZE"), "{error}");
            let Error::Spawn(SpawnError::Failed { stage, .. }) = error else { panic!("{error:?}") };
            assert_eq!(stage, expected);
        }
        assert_eq!(world.footprint(), before);
    }
}

#[test]
fn at_its_descriptor_limit_the_host_gets_an_error_and_nothing_is_left() {
    if !alone!() {
        return;
    }
    let Some(mut world) = world() else { return };
    let limit = getrlimit(Limit::Nofile);
    let at_most = |current: u64| {
        setrlimit(Limit::Nofile, Rlimit { current: Some(current), maximum: limit.maximum })
            .unwrap();
    };
    at_most(100);
    // No number below the limit is free.
    let mut filled = Vec::new();
    while let Ok(file) = fs::File::open("/dev/null") {
        filled.push(file);
    }
    setrlimit(Limit::Nofile, limit).unwrap();
    let before = world.footprint();
    let (mut refused, mut started) = (0, 0);
    for free in 0..16 {
        at_most(100 + free);
        let result = world.try_spawn(&Command::new("/bin/true"));
        setrlimit(Limit::Nofile, limit).unwrap();
        match result {
            Ok(job) => {
                started += 1;
                assert_eq!(world.finish(job).exit, Exit::Code(0));
                world.reactor.remove(job).unwrap();
            }
            Err(error) => {
                refused += 1;
                assert_eq!(error.kind(), ErrorKind::LimitReached, "{error}");
                assert_eq!(started, 0, "with fewer descriptors it has started: {error}");
            }
        }
        assert_eq!(world.footprint(), before, "{free} free");
    }
    assert!(refused > 3 && started > 3, "{refused} refused, {started} started");
}

#[test]
fn a_host_that_is_not_root_keeps_its_capabilities_for_the_launcher_and_gives_none_to_the_job() {
    // A job without ids gets the same.
    if !alone_with_capabilities!("+setuid,+setgid,+sys_nice") {
        return;
    }
    // From here on they are permitted and effective alone, and no job inherits them.
    rustix::thread::clear_ambient_capability_set().unwrap();
    let [mut copied, mut launched] = both();
    let shell = || Command::new("/bin/sh").env("PATH", "/usr/bin:/bin").clone();
    let expected = description(&mut copied, &mut shell());
    assert!(expected.contains("CapAmb:\t0000000000000000"), "{expected}");
    assert!(expected.contains("CapEff:\t0000000000000000"), "{expected}");
    assert_eq!(description(&mut launched, &mut shell()), expected);
    let mut as_user = shell();
    as_user.uid(61_234).gid(61_234).nice(-3);
    let expected = description(&mut copied, &mut as_user.clone());
    assert!(expected.contains("CapPrm:\t0000000000000000"), "{expected}");
    assert_eq!(description(&mut launched, &mut as_user), expected);
    // What it does not have is missing here as well.
    let command = Command::new("/bin/true").oom_score_adj(-1000).clone();
    assert_eq!(failure(&mut launched, &command), failure(&mut copied, &command));
}
