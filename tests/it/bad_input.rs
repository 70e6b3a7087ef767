//! Bad input and exhausted systems: the error names the operation, its object, the cause and, where
//! known, a remedy, and nothing is left behind.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jobworker::{
    ByteSize, Command, Containment, Error, ErrorKind, Exit, InvalidLimit, JobError, Limits,
    LimitsError, Output, Position, ProcessGroup, Reactor, Resource, SpawnError, SystemError, Token,
};
use rustix::mount::{MountFlags, mount_remount};
use rustix::process::{Pid, PidfdFlags, Rlimit, getrlimit, pidfd_open, setrlimit};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::skips::skip;
use crate::support::{
    Place, World, alone, cgroup_mount, directories, remove_parent, sh, wait_for_exit,
};

/// Panics unless the text contains all of these parts.
#[track_caller]
fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

/// A world whose jobs are contained by process group.
fn grouped() -> World {
    let place = Place::new();
    let mut config = place.config();
    config.containment(Containment::ProcessGroup);
    World::around(Reactor::with_config(&config).unwrap(), place)
}

/// Makes this thread, which is the one that starts jobs, run as a user without privileges. Where
/// that is not possible, prints why and returns `false`.
fn become_user(uid: u32) -> bool {
    if !rustix::process::geteuid().is_root() {
        skip("only root can change its user");
        return false;
    }
    let (gid, uid) = (rustix::process::Gid::from_raw(uid), rustix::process::Uid::from_raw(uid));
    set_thread_groups(&[]).unwrap();
    set_thread_res_gid(gid, gid, gid).unwrap();
    set_thread_res_uid(uid, uid, uid).unwrap();
    true
}

/// A file with this content and mode.
fn file(world: &World, name: &str, content: &str, mode: u32) -> PathBuf {
    let path = world.place.dir.path().join(name);
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

#[test]
fn a_command_that_cannot_be_started_says_why_and_leaves_nothing() {
    if !alone!() {
        return;
    }
    let Some(mut world) = World::new() else { return };
    let plain = file(&world, "plain", "#!/bin/sh\n", 0o644);
    let text = file(&world, "text", "echo no interpreter is named\n", 0o755);
    let orphan = file(&world, "orphan", "#!/no/such/interpreter\n", 0o755);
    let dir = world.place.dir.path().to_owned();
    let mut limits = Limits::new();
    let mut weight = |weight| limits.cpu_weight(weight).clone();
    let weights = [weight(0), weight(10_001)];
    let io_weight = Limits::new().io_weight(10_001).clone();

    // The kernel checks the privilege before the argument.
    let groups = if rustix::process::geteuid().is_root() {
        "Invalid argument"
    } else {
        "Operation not permitted"
    };
    let bad_groups = &["setting supplementary groups failed", groups];
    let missing: &[&str] = &["exec failed", "No such file or directory", "interpreter is missing"];
    let denied: &[&str] =
        &["exec failed", "Permission denied", "not executable by the job's user, a directory"];
    let cases: Vec<(Command, &[&str])> = vec![
        (Command::new("/no/such/program"), missing),
        (Command::new("no-such-program-anywhere"), missing),
        (Command::new(&orphan), missing),
        (Command::new(&plain), denied),
        (Command::new(&dir), denied),
        (
            Command::new(&text),
            &["exec failed", "Exec format error", "neither a binary of this machine nor a script"],
        ),
        (Command::new(plain.join("below")), &["exec failed", "Not a directory"]),
        (Command::new(""), &["the program is an empty string"]),
        (Command::new("a\0b"), &["the program contains a NUL byte"]),
        (Command::new("true").arg("a\0b").clone(), &["an argument contains a NUL byte"]),
        (
            Command::new("true").env("A", "\0").clone(),
            &["an environment variable contains a NUL byte"],
        ),
        (
            Command::new("true").env("A=B", "").clone(),
            &["environment variable is empty or contains '='"],
        ),
        (
            Command::new("true").env("", "").clone(),
            &["environment variable is empty or contains '='"],
        ),
        (
            Command::new("true").current_dir("\0").clone(),
            &["the working directory contains a NUL byte"],
        ),
        (
            Command::new("true").current_dir("/no/such/dir").clone(),
            &["entering the working directory /no/such/dir failed", "No such file or directory"],
        ),
        (
            Command::new("true").current_dir(&plain).clone(),
            &["entering the working directory", "/plain failed", "Not a directory"],
        ),
        (
            Command::new("true").stdin_file("/no/such/input").clone(),
            &["connecting standard input, output and error /no/such/input failed", "No such file"],
        ),
        (
            Command::new("true").uid(u32::MAX).clone(),
            &["the user or group id 4294967295 is not one"],
        ),
        (
            Command::new("true").gid(u32::MAX).clone(),
            &["the user or group id 4294967295 is not one"],
        ),
        (Command::new("true").groups([u32::MAX]).clone(), bad_groups),
        (
            Command::new("true").rlimit(Resource::OpenFiles, Some(2), Some(1)).clone(),
            &["a soft resource limit is above its hard limit"],
        ),
        (
            Command::new("true").rlimit(Resource::OpenFiles, None, None).clone(),
            &["setting resource limits failed", "Operation not permitted", "CAP_SYS_RESOURCE"],
        ),
        (
            Command::new("true").limits(&weights[0]).clone(),
            &["cpu.weight is 0", "between 1 and 10000"],
        ),
        (
            Command::new("true").limits(&weights[1]).clone(),
            &["cpu.weight is 10001", "between 1 and 10000"],
        ),
        (
            Command::new("true").limits(&io_weight).clone(),
            &["io.weight is 10001", "between 1 and 10000"],
        ),
    ];
    let before = world.footprint();
    for (command, parts) in cases {
        for output in [Output::Combined, Output::Split, Output::Null] {
            let error = world.try_spawn(command.clone().output(output.clone())).unwrap_err();
            says(&error.to_string(), parts);
            assert!(error.is_about_command(), "{error:?}");
            says(&error.to_string(), &["cannot ", &subject(&error)]);
            assert!(
                std::error::Error::source(&error).is_none(),
                "the cause is printed twice: {error:?}"
            );
            assert_eq!(world.footprint(), before, "left behind by: {error}");
        }
    }
    // The reactor still works after all these failures.
    assert_eq!(world.run(&sh("echo fine")).0, "fine\n");
    assert_eq!(world.footprint(), before);
}

/// What the error names as its object.
fn subject(error: &Error) -> String {
    match error {
        Error::Spawn(
            SpawnError::Failed { program, .. } | SpawnError::InvalidCommand { program, .. },
        ) => format!("{program:?}"),
        Error::Limits(LimitsError::Invalid(invalid)) => invalid.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_size_with_an_unknown_suffix_is_refused_by_its_text() {
    for text in ["12Q", "", "M", "-1", "1.5G", "99999999999T"] {
        let error = text.parse::<ByteSize>().unwrap_err();
        assert!(matches!(&error, InvalidLimit::Size { text: told, .. } if told == text));
        says(&error.to_string(), &[&format!("{text:?} is not a size"), "K, M, G or T", "100M"]);
    }
}

#[test]
fn a_limit_without_its_controller_is_refused_by_name() {
    if !alone!() {
        return;
    }
    let Some(mut world) = World::new() else { return };
    let parent = world.place.cgroup.clone().unwrap();
    let available = fs::read_to_string(parent.join("cgroup.controllers")).unwrap();
    let before = world.footprint();
    let limits = [
        ("cpu", "cpu.weight", Limits::new().cpu_weight(50).clone()),
        ("memory", "memory.high", Limits::new().memory_high(ByteSize::from_bytes(1 << 30)).clone()),
        ("io", "io.weight", Limits::new().io_weight(50).clone()),
    ];
    for (controller, name, limits) in limits {
        if available.split_whitespace().any(|available| available == controller) {
            skip(format_args!("the {controller} controller is available here"));
            continue;
        }
        let error = world.try_spawn(Command::new("true").limits(&limits)).unwrap_err();
        assert!(
            matches!(error, Error::Limits(LimitsError::ControllerUnavailable { .. })),
            "{error:?}"
        );
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let available = if available.trim().is_empty() { "none" } else { available.trim() };
        let text = error.to_string();
        says(
            &text,
            &[
                &format!("cannot set {name}"),
                &format!("the {controller} controller is not available in {}", parent.display()),
                &format!("(available: {available})"),
            ],
        );
        // The error names the way to enable it that this system needs.
        assert!(
            text.contains("cgroup_no_v1=") || text.contains("cgroup.subtree_control"),
            "{text}"
        );
        assert_eq!(world.footprint(), before, "left behind by: {text}");
    }
}

#[test]
fn what_only_a_cgroup_can_do_is_refused_without_one() {
    let mut world = grouped();
    let error =
        world.try_spawn(Command::new("true").limits(Limits::new().cpu_weight(50))).unwrap_err();
    assert!(matches!(error, Error::Limits(LimitsError::NeedCgroup)), "{error:?}");
    says(&error.to_string(), &["cannot set limits", "by process group, which has no limits"]);
    let error =
        world.try_spawn(Command::new("true").process_group(ProcessGroup::Host)).unwrap_err();
    says(&error.to_string(), &["cannot start \"true\"", "cannot stay in the host's"]);
    assert_eq!(world.reactor.census().jobs, 0);
}

#[test]
fn a_user_without_privileges_is_told_what_it_takes() {
    if !alone!() || !become_user(65_534) {
        return;
    }
    let mut world = grouped();
    let before = world.footprint();
    let needs = "(the host needs root, or CAP_SETUID and CAP_SETGID)";
    let cases: [(Command, &[&str]); 4] = [
        (
            Command::new("true").uid(0).gid(0).clone(),
            &["setting supplementary groups failed", "Operation not permitted", needs],
        ),
        (
            Command::new("true").gid(0).clone(),
            &["setting supplementary groups failed", "Operation not permitted", needs],
        ),
        (
            Command::new("true").groups([0]).clone(),
            &["setting supplementary groups failed", "Operation not permitted", needs],
        ),
        (
            Command::new("true").rlimit(Resource::OpenFiles, Some(1), Some(1 << 30)).clone(),
            &["setting resource limits failed", "Operation not permitted", "CAP_SYS_RESOURCE"],
        ),
    ];
    for (command, parts) in cases {
        let error = world.try_spawn(&command).unwrap_err();
        says(&error.to_string(), &["cannot start \"true\""]);
        says(&error.to_string(), parts);
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert_eq!(world.footprint(), before, "left behind by: {error}");
    }
    let Some(mount) = cgroup_mount() else { return };
    for parent in [None, Some(mount)] {
        let mut config = world.place.config();
        config.containment(Containment::Cgroup);
        if let Some(parent) = &parent {
            config.cgroup_parent(parent);
        }
        let error = Reactor::with_config(&config).unwrap_err();
        says(
            &error.to_string(),
            &[
                "no usable cgroup v2 tree",
                "is not writable for this user",
                "Delegate=yes",
                "Config::cgroup_parent",
                "Containment::ProcessGroup",
            ],
        );
        assert_eq!(world.footprint(), before, "left behind by: {error}");
    }
}

/// How many descriptors this process has open, and how many groups and logs there are in the place.
fn held(place: &Place) -> (usize, usize, usize) {
    let count = |path: &Path| fs::read_dir(path).unwrap().count();
    let groups = place.cgroup.as_deref().map_or(0, |group| directories(group).len());
    (count(Path::new("/proc/self/fd")), groups, count(&place.logs()))
}

#[test]
fn a_log_directory_that_is_not_private_is_refused_with_what_to_do() {
    if !alone!() {
        return;
    }
    let place = Place::new();
    let make = |name: &str, mode: u32| {
        let path = place.dir.path().join(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    let (group, world) = (make("group", 0o750), make("world", 0o701));
    let theirs = make("theirs", 0o700);
    let plain = place.dir.path().join("plain");
    fs::write(&plain, "").unwrap();
    let link = place.dir.path().join("link");
    symlink(place.logs(), &link).unwrap();
    let mut cases = vec![
        (place.dir.path().join("missing/logs"), "it does not exist: create it with mode 0700"),
        (plain, "it is not a directory, or a symbolic link to one"),
        (link, "it is not a directory, or a symbolic link to one"),
        (group, "others may use it (mode 0750): set its mode to 0700"),
        (world, "others may use it (mode 0701): set its mode to 0700"),
    ];
    if chown(&theirs, Some(65_534), None).is_ok() {
        cases.push((theirs, "it belongs to user 65534, not to user 0"));
    }
    let before = held(&place);
    let mut config = place.config();
    if place.cgroup.is_none() {
        // So that the directory is all that there is to be refused.
        config.containment(Containment::ProcessGroup);
    }
    for (path, reason) in cases {
        let error = Reactor::with_config(config.log_dir(&path)).unwrap_err();
        assert!(matches!(error, Error::System(SystemError::LogDirectory { .. })), "{error:?}");
        says(
            &error.to_string(),
            &[&format!("cannot use {} as log directory: {reason}", path.display())],
        );
        assert_eq!(held(&place), before, "left behind by: {error}");
    }
    // One that is missing is made, and so is that of the history.
    let made = ["new", "reports"].map(|name| place.dir.path().join(name));
    drop(Reactor::with_config(config.log_dir(&made[0]).history(&made[1])).unwrap());
    for path in made {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o7777, 0o700);
    }
}

#[test]
fn a_full_or_read_only_disk_is_reported_where_it_is_met() {
    if !alone!() {
        return;
    }
    let options = c"size=64k,nr_inodes=12,mode=0700";
    let Some(place) = Place::with_logs_on("tmpfs", options) else { return };
    let logs = place.logs();
    let mut world = World::around(Reactor::with_config(&place.config()).unwrap(), place);

    // No room for another file: the spawn fails.
    let fillers: Vec<PathBuf> = (0..64)
        .map(|number| logs.join(format!("filler{number}")))
        .take_while(|path| fs::write(path, "").is_ok())
        .collect();
    assert!(fillers.len() < 64);
    for output in [Output::Combined, Output::Split] {
        let before = world.footprint();
        let error = world.try_spawn(Command::new("true").output(output.clone())).unwrap_err();
        says(
            &error.to_string(),
            &["cannot create log", logs.to_str().unwrap(), "No space left on device", "free"],
        );
        assert_eq!(world.footprint(), before, "left behind by: {error}");
        // Room for one of two files is not enough for both streams.
        fs::remove_file(&fillers[0]).unwrap();
        if matches!(output, Output::Combined) {
            let error = world.try_spawn(Command::new("true").output(Output::Split)).unwrap_err();
            says(&error.to_string(), &["cannot create log", ".err.log", "No space left on device"]);
        }
        fs::write(&fillers[0], "").unwrap();
        assert_eq!(world.footprint(), before);
    }
    fillers.iter().for_each(|path| fs::remove_file(path).unwrap());

    // No room for data: the job's own writes fail, and its tails get what was written.
    let mut filler = File::create(logs.join("filler")).unwrap();
    while filler.write_all(&[0; 4096]).is_ok() {}
    let (output, report) = world.run(&sh("echo hello 2>/dev/null || exit 9"));
    assert_eq!((output.as_str(), report.exit), ("", Exit::Code(9)));
    let [problem] = &report.problems[..] else { panic!("{:?}", report.problems) };
    assert!(matches!(problem, Error::Job(JobError::LogCut { .. })), "{problem}");
    drop(filler);
    fs::remove_file(logs.join("filler")).unwrap();
    let (output, report) = world.run(&sh("while echo 0123456789 2>/dev/null; do :; done; exit 9"));
    assert_eq!(report.exit, Exit::Code(9));
    assert_eq!(output.len() as u64, report.output_bytes);
    assert!(output.len() > 4096 && output.starts_with("0123456789\n0123456789\n"));

    // Read-only: no job can be started, and a log that cannot be removed is reported once.
    let job = world.spawn(&Command::new("true"));
    world.finish(job);
    let before = world.footprint();
    mount_remount(&logs, MountFlags::RDONLY, c"").unwrap();
    let error = world.try_spawn(&Command::new("true")).unwrap_err();
    says(
        &error.to_string(),
        &["cannot create log", "Read-only file system", "is mounted read-only)"],
    );
    assert_eq!(world.footprint(), before, "left behind by: {error}");
    let error = Reactor::with_config(&world.place.config()).unwrap_err();
    says(
        &error.to_string(),
        &["cannot write to log directory", logs.to_str().unwrap(), "is mounted read-only)"],
    );
    assert_eq!(world.footprint(), before, "left behind by: {error}");
    let error = world.reactor.remove(job).unwrap_err();
    says(&error.to_string(), &["cannot remove log", &job.to_string(), "is mounted read-only)"]);
    assert!(matches!(world.reactor.remove(job), Err(Error::Job(JobError::Unknown(_)))));
}

/// Lowers the limit on open files and opens files until it is reached. Dropping one of them
/// releases one descriptor.
struct Exhausted {
    fillers: Vec<OwnedFd>,
    before: Rlimit,
    low: u64,
}

impl Exhausted {
    fn new() -> Self {
        let before = getrlimit(rustix::process::Resource::Nofile);
        let low = fs::read_dir("/proc/self/fd").unwrap().count() as u64 + 40;
        let mut exhausted = Self { fillers: Vec::new(), before, low };
        exhausted.set(true);
        while let Ok(file) = File::open("/dev/null") {
            exhausted.fillers.push(file.into());
        }
        exhausted
    }

    fn set(&self, low: bool) {
        let current = if low { Some(self.low) } else { self.before.current };
        setrlimit(
            rustix::process::Resource::Nofile,
            Rlimit { current, maximum: self.before.maximum },
        )
        .unwrap();
    }

    /// Runs `act` with only the released descriptors available.
    fn with<T>(&self, act: impl FnOnce() -> T) -> T {
        self.set(true);
        let result = act();
        self.set(false);
        result
    }
}

#[test]
fn a_job_with_more_processes_than_the_host_has_descriptors_is_signalled_all_the_same() {
    if !alone!() {
        return;
    }
    let Some(mut world) = World::new() else { return };
    // Exits only once the signal has ended all of its children. The children report themselves
    // ready, because until they have executed a program they have the shell's trap.
    let script = "trap : TERM; i=0; while [ $i -lt 200 ]; do \
                  sh -c 'echo ready; exec sleep 1000' & i=$((i+1)); done; \
                  until wait; do :; done; exit 7";
    let job = world.spawn(sh(script).grace(Duration::from_secs(3600)));
    let tail = world.tail(job, Position::Start);
    world.until("all children are there", |world| world.text(tail).lines().count() == 200);
    let mut exhausted = Exhausted::new();
    // For the directory, its list of processes, and one process at a time.
    exhausted.fillers.truncate(exhausted.fillers.len() - 3);
    exhausted.with(|| world.reactor.stop(job)).unwrap();
    drop(exhausted);
    assert_eq!(world.finish(job).exit, Exit::Code(7));
}

#[test]
fn a_reached_limit_on_descriptors_is_reported_whatever_step_it_stops() {
    if !alone!() {
        return;
    }
    let Some(mut world) = World::new() else { return };
    let input = file(&world, "input", "", 0o600);
    let mut commands = Vec::new();
    for output in [Output::Combined, Output::Split, Output::Null] {
        commands.push(sh("true").output(output.clone()).clone());
        commands.push(sh("true").output(output).stdin_file(&input).clone());
    }
    for command in commands {
        let mut exhausted = Exhausted::new();
        let mut failures = 0;
        let job = loop {
            exhausted.set(false);
            let before = world.footprint();
            let error = match exhausted.with(|| world.try_spawn(&command)) {
                Ok(job) => break job,
                Err(error) => error,
            };
            says(
                &error.to_string(),
                &[
                    "cannot ",
                    "Too many open files",
                    "(raise RLIMIT_NOFILE, or remove finished jobs)",
                ],
            );
            assert_eq!(error.kind(), ErrorKind::LimitReached);
            assert_eq!(world.footprint(), before, "left behind by: {error}");
            failures += 1;
            assert!(failures <= 12, "a spawn takes more than twelve descriptors: {error}");
            exhausted.fillers.pop();
        };
        // One for the group, one for the process, and others for what the command asked for.
        assert!(failures >= 2, "{failures}");
        drop(exhausted);
        world.finish(job);
        world.reactor.remove(job).unwrap();
    }

    // A tail needs one descriptor, and the error names the limit.
    let job = world.spawn(&sh("echo hi"));
    world.finish(job);
    let mut exhausted = Exhausted::new();
    exhausted.set(false);
    let before = world.footprint();
    let error = exhausted.with(|| world.reactor.tail(job, Position::Start, Token(0))).unwrap_err();
    says(&error.to_string(), &["cannot follow log", &job.to_string(), "raise RLIMIT_NOFILE"]);
    let error =
        exhausted.with(|| world.reactor.tail_file(&input, Position::Start, Token(0))).unwrap_err();
    says(&error.to_string(), &["cannot open log", input.to_str().unwrap(), "raise RLIMIT_NOFILE"]);
    assert_eq!(world.footprint(), before);
    exhausted.fillers.pop();
    exhausted.with(|| world.reactor.tail(job, Position::Start, Token(0))).unwrap();

    // The same for making a reactor, at each of its steps.
    drop(exhausted);
    for containment in [Containment::Cgroup, Containment::ProcessGroup] {
        let mut exhausted = Exhausted::new();
        let mut failures = 0;
        loop {
            exhausted.set(false);
            let before = world.footprint();
            let made = exhausted
                .with(|| Reactor::with_config(world.place.config().containment(containment)));
            let Err(error) = made else { break };
            says(&error.to_string(), &["Too many open files"]);
            assert!(error.to_string().contains("RLIMIT_NOFILE"), "{error}");
            assert_eq!(world.footprint(), before, "left behind by: {error}");
            failures += 1;
            assert!(failures <= 20, "a reactor takes more than twenty descriptors: {error}");
            exhausted.fillers.pop();
        }
        assert!(failures >= 4, "{failures}");
    }
}

impl Drop for Exhausted {
    fn drop(&mut self) {
        self.set(false);
    }
}

#[test]
fn a_reached_limit_on_processes_is_reported() {
    // A user without any other process, because the limit counts all processes of the user.
    if !alone!() || !become_user(54_321) {
        return;
    }
    let mut world = grouped();
    let before = world.footprint();
    let limit = getrlimit(rustix::process::Resource::Nproc);
    let low = Rlimit { current: Some(1), maximum: limit.maximum };
    setrlimit(rustix::process::Resource::Nproc, low).unwrap();
    let error = world.try_spawn(&Command::new("true")).unwrap_err();
    setrlimit(rustix::process::Resource::Nproc, limit).unwrap();
    says(
        &error.to_string(),
        &[
            "cannot start \"true\": clone3 failed",
            "Resource temporarily unavailable",
            "(pids.max of a cgroup or the user's process limit is reached)",
        ],
    );
    assert_eq!(error.kind(), ErrorKind::LimitReached);
    assert_eq!(world.footprint(), before);
    assert_eq!(world.run(&Command::new("true")).1.exit, Exit::Code(0));
}

#[test]
fn a_place_that_cannot_hold_jobs_is_refused_by_what_is_wrong_with_it() {
    if !alone!() {
        return;
    }
    let place = Place::new();
    let Some(cgroup) = place.cgroup_or_skip() else { return };
    let before = held(&place);
    let refused = |parent: &Path, reason: &str| {
        let error = Reactor::with_config(place.config().cgroup_parent(parent)).unwrap_err();
        assert!(matches!(error, Error::System(SystemError::NoCgroup { .. })), "{error:?}");
        says(
            &error.to_string(),
            &["no usable cgroup v2 tree", parent.to_str().unwrap(), reason, "cgroup_parent"],
        );
    };
    refused(place.dir.path(), "is not in a cgroup2 file system");
    refused(&cgroup.join("missing"), "cannot be opened: No such file or directory");
    refused(&cgroup.join("cgroup.procs"), "cannot be opened: Not a directory");
    let (threaded, invalid) = (cgroup.join("threaded"), cgroup.join("invalid"));
    fs::create_dir(&threaded).unwrap();
    fs::create_dir(&invalid).unwrap();
    if fs::write(threaded.join("cgroup.type"), "threaded").is_ok() {
        refused(&threaded, "its cgroup.type is \"threaded\"");
        refused(&invalid, "its cgroup.type is \"domain invalid\"");
        refused(&cgroup, "its cgroup.type is \"domain threaded\"");
    } else {
        skip("no threaded group can be made here");
    }
    fs::remove_dir(threaded).unwrap();
    fs::remove_dir(invalid).unwrap();
    assert_eq!(held(&place), before);
}

#[test]
fn a_parent_group_that_somebody_removed_is_named() {
    if !alone!() {
        return;
    }
    let Some(mut world) = World::new() else { return };
    let parent = world.place.cgroup.clone().unwrap();
    remove_parent(&parent);
    let before = world.footprint();
    let error = world.try_spawn(&Command::new("true")).unwrap_err();
    says(
        &error.to_string(),
        &["cannot create cgroup", parent.to_str().unwrap(), "No such file or directory"],
    );
    assert_eq!(world.footprint(), before);
    // The place removes it at the end of this test.
    fs::create_dir(&parent).unwrap();
}

#[test]
fn a_job_whose_group_was_removed_by_somebody_finishes_all_the_same() {
    if !alone!() {
        return;
    }
    let Some(mut world) = World::new() else { return };
    let before = world.footprint();
    let job = world.spawn(&sh("printf end"));
    let status = world.reactor.status(job).unwrap();
    let group = status.cgroup.unwrap();
    // Only a zombie is left, which does not keep its group from being removed.
    let pid = Pid::from_raw(i32::try_from(status.pid).unwrap()).unwrap();
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    wait_for_exit(&pidfd);
    drop(pidfd);
    fs::remove_dir(&group).unwrap();
    let tail = world.tail(job, Position::Start);
    let report = world.finish(job);
    assert_eq!((report.exit, world.text(tail).as_str()), (Exit::Code(0), "end"));
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    assert_eq!(report.cgroup_left, None);
    world.reactor.remove(job).unwrap();
    assert_eq!(world.footprint(), before);
    // The next job is not affected.
    assert_eq!(world.run(&sh("echo next")).0, "next\n");
}

/// The kernel cuts off the name of a process after 15 bytes, which can be within a character.
#[test]
fn a_host_whose_name_is_not_utf_8_can_have_a_reactor() {
    if !alone!() {
        return;
    }
    std::fs::write("/proc/self/comm", b"a) Z 1 \xc3").unwrap();
    let Some(mut world) = World::new() else { return };
    assert_eq!(world.run(&sh("echo there")).0, "there\n");
}
