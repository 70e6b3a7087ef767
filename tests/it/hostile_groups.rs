//! Defects of the second review about cgroups: ownership, sweeping, nesting, places, each under its
//! name. A hostile or unlucky job or host must not be able to bring any of them back.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use jobworker::{
    Capabilities, Config, Containment, Error, ErrorKind, Event, Exit, LimitValue, Limits, Output,
    Phase, Position, Reactor, Signal, SystemError, Token,
};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FlockOperation, Gid, Uid, XattrFlags, chown, flock, setxattr};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};

use crate::skips::skip;
use crate::support::{
    PATIENCE, Place, World, alone, await_exit, cgroup_mount, directories, end_group, is_alive,
    markers, members, pidfd, rounds, sh, skip_outside_vm, sweep,
};

/// The cgroup that a host of its own is to use; set in the process that is that host.
const PARENT: &str = "JOBWORKER_TEST_HOSTILE_GROUPS";

/// The test of this name again, in a process of its own, as a host that uses this cgroup.
fn host(through: &[&str], test: &str, cgroup: &Path) -> Process {
    let program = std::env::current_exe().unwrap();
    let mut line = through.iter().map(AsRef::as_ref).chain([program.as_os_str()]);
    let mut process = Process::new(line.next().unwrap());
    process.args(line).args([&format!("hostile_groups::{test}"), "--exact", "--nocapture"]);
    process.env(PARENT, cgroup);
    process
}

/// In the process of such a host: a reactor in the cgroup that it is to use.
fn as_host() -> Option<(Reactor, Place)> {
    let cgroup = PathBuf::from(std::env::var_os(PARENT)?);
    let mut place = Place::new();
    // Its logs are in a directory of its own, and its own cgroup is not used.
    fs::remove_dir(place.cgroup.as_ref().unwrap()).unwrap();
    place.cgroup = None;
    let reactor = Reactor::with_config(place.config().cgroup_parent(cgroup)).unwrap();
    Some((reactor, place))
}

/// Starts a host that says "ready" when it has done its work, waits for that and kills the host.
fn kill_when_ready(mut host: Process) {
    let mut child: Child = host.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("ready")), "the host has failed");
    child.kill().unwrap();
    child.wait().unwrap();
}

/// What a host does that is killed when it is ready. Its temporary directory is removed at once,
/// because its destructors never run.
fn ready_to_die(place: &Place) -> ! {
    let _ = fs::remove_dir_all(place.dir.path());
    println!("ready");
    loop {
        thread::park();
    }
}

#[test]
fn h4_a_host_in_a_pid_namespace_without_a_proc_of_its_own_sweeps_no_jobs_of_the_living() {
    if !rustix::process::geteuid().is_root() {
        skip("a pid namespace needs root");
        return;
    }
    if !alone!("unshare", "--pid", "--fork") {
        return;
    }
    assert_eq!(std::process::id(), 1);
    let Some(mut world) = World::new() else { return };
    let job = world.spawn(&sh("sleep 1000"));
    let group = world.reactor.status(job).unwrap().cgroup.unwrap();
    let config = world.place.config();
    let mut other = Reactor::with_config(&config).unwrap();
    for reactor in [&mut world.reactor, &mut other] {
        let swept = sweep(reactor);
        assert!(swept.cgroups.is_empty() && swept.errors.is_empty(), "{swept:?}");
    }
    assert!(fs::read_to_string(group.join("cgroup.events")).unwrap().contains("populated 1"));
}

#[test]
fn h4_a_sweeper_in_other_namespaces_spares_the_jobs_of_a_living_host() {
    const TEST: &str = "h4_a_sweeper_in_other_namespaces_spares_the_jobs_of_a_living_host";
    if let Some((mut reactor, _place)) = as_host() {
        let swept = sweep(&mut reactor);
        assert!(swept.cgroups.is_empty() && swept.errors.is_empty(), "{swept:?}");
        return;
    }
    let Some(mut world) = World::new() else { return };
    if !rustix::process::geteuid().is_root() {
        skip("namespaces need root");
        return;
    }
    let above = world.place.cgroup.clone().unwrap();
    let job = world.spawn(&sh("sleep 1000"));
    let pid = world.reactor.status(job).unwrap().pid;
    for through in [
        &["unshare", "--pid", "--fork"][..],
        &["unshare", "--pid", "--mount-proc", "--fork"],
        &["unshare", "--time", "--boottime", "1000", "--fork"],
        &["env"],
    ] {
        let tried = Process::new(through[0]).args(&through[1..]).arg("true").status();
        if !tried.is_ok_and(|status| status.success()) {
            skip(format_args!("{through:?} does not work here"));
            continue;
        }
        let status = host(through, TEST, &above).status().unwrap();
        assert!(status.success(), "{through:?}");
        assert!(is_alive(pid), "{through:?}");
    }
}

#[test]
fn h4_a_reactor_never_sweeps_its_own_jobs_nor_those_of_its_process() {
    let Some(mut world) = World::new() else { return };
    let above = world.place.cgroup.clone().unwrap();
    let mut other = Reactor::with_config(&world.place.config()).unwrap();
    let own = world.spawn(&sh("sleep 1000"));
    let others = other.spawn(&sh("sleep 1000"), Token(0)).unwrap();
    world.reactor.prepare(&Limits::new(), 2).unwrap();
    for reactor in [&mut world.reactor, &mut other] {
        let swept = sweep(reactor);
        assert!(swept.cgroups.is_empty() && swept.errors.is_empty(), "{swept:?}");
    }
    assert!(is_alive(world.reactor.status(own).unwrap().pid));
    assert!(is_alive(other.status(others).unwrap().pid));
    assert_eq!((directories(&above).len(), markers(&above).len()), (4, 2));
    for marker in markers(&above) {
        let mode = fs::metadata(marker).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o700, "another user could hold the lock");
    }
    drop(other);
    assert_eq!((directories(&above).len(), markers(&above).len()), (3, 1));
}

#[test]
fn h4_a_marker_stays_until_the_group_of_a_detached_job_is_swept() {
    let Some(mut world) = World::new() else { return };
    let above = world.place.cgroup.clone().unwrap();
    let mut other = Reactor::with_config(&world.place.config()).unwrap();
    let job = other.spawn(sh("sleep 1000").detached(true), Token(0)).unwrap();
    let group = other.status(job).unwrap().cgroup.unwrap();
    drop(other);
    assert_eq!((directories(&above).len(), markers(&above).len()), (1, 2));
    let swept = sweep(&mut world.reactor);
    assert!(swept.cgroups.is_empty() && swept.errors.is_empty(), "{swept:?}");
    assert_eq!((directories(&above).len(), markers(&above).len()), (1, 2));
    let processes: Vec<_> = members(&group).into_iter().map(pidfd).collect();
    fs::write(group.join("cgroup.kill"), "1").unwrap();
    assert!(processes.iter().all(|process| await_exit(process, PATIENCE)));
    world.until("the group is empty", |world| {
        let swept = sweep(&mut world.reactor);
        assert!(swept.errors.is_empty(), "{swept:?}");
        swept.cgroups == std::slice::from_ref(&group)
    });
    assert_eq!((directories(&above).len(), markers(&above).len()), (0, 1));
}

#[test]
fn h4_a_marker_that_cannot_be_found_tells_no_death() {
    let Some(mut world) = World::new() else { return };
    let above = world.place.cgroup.clone().unwrap();
    let own = markers(&above);
    let mut other = Reactor::with_config(&world.place.config()).unwrap();
    let job = other.spawn(sh("sleep 1000").detached(true), Token(0)).unwrap();
    let group = other.status(job).unwrap().cgroup.unwrap();
    let marker = markers(&above).into_iter().find(|path| !own.contains(path)).unwrap();
    fs::remove_dir(marker).unwrap();
    drop(other);
    let swept = sweep(&mut world.reactor);
    assert!(swept.cgroups.is_empty() && swept.errors.is_empty(), "{swept:?}");
    end_group(&group);
    let swept = sweep(&mut world.reactor);
    assert!(swept.cgroups.is_empty() && swept.errors.is_empty(), "{swept:?}");
}

#[test]
fn low_a_host_killed_amid_spawns_leaves_no_group_that_is_not_swept() {
    const TEST: &str = "low_a_host_killed_amid_spawns_leaves_no_group_that_is_not_swept";
    if let Some((mut reactor, place)) = as_host() {
        let _ = fs::remove_dir_all(place.dir.path());
        let mut command = sh("sleep 1000");
        command.output(Output::Null);
        for number in 0.. {
            reactor.prepare(&Limits::new(), 3).unwrap();
            let job = reactor.spawn(&command, Token(0)).unwrap();
            reactor.kill(job).unwrap();
            if number == 3 {
                println!("ready");
            }
        }
        return;
    }
    let Some(mut world) = World::new() else { return };
    let above = world.place.cgroup.clone().unwrap();
    for _ in 0..rounds(20) {
        let own = markers(&above);
        kill_when_ready(host(&["env"], TEST, &above));
        // A child that it was just cloning keeps the lock until it executes its program.
        for marker in markers(&above).iter().filter(|marker| !own.contains(marker)) {
            flock(fs::File::open(marker).unwrap(), FlockOperation::LockExclusive).unwrap();
        }
        let left = directories(&above).len();
        let swept = sweep(&mut world.reactor);
        assert!(swept.errors.is_empty(), "{:?}", swept.errors);
        assert_eq!((swept.cgroups.len(), directories(&above).len()), (left, 0));
        assert_eq!(markers(&above).len(), 1, "that of the sweeper");
    }
}

/// Covers a directory by an empty file system, in a mount namespace of this process's own.
fn mount_tmpfs(path: &Path) {
    mount("none", path, "tmpfs", MountFlags::empty(), c"").unwrap();
}

/// A host that leaves jobs behind, because it is killed.
fn leave_jobs(test: &str, cgroup: &Path) {
    kill_when_ready(host(&["env"], test, cgroup));
}

#[test]
fn low_two_sweeps_at_once_share_the_work() {
    if let Some((mut reactor, place)) = as_host() {
        for _ in 0..10 {
            reactor.spawn(&sh("sleep 1000"), Token(0)).unwrap();
        }
        ready_to_die(&place);
    }
    let Some(mut world) = World::new() else { return };
    let above = world.place.cgroup.clone().unwrap();
    for _ in 0..rounds(20).max(3) {
        for _ in 0..2 {
            leave_jobs("low_two_sweeps_at_once_share_the_work", &above);
        }
        let mut other = Reactor::with_config(&world.place.config()).unwrap();
        let mut expected = directories(&above);
        let (one, two) = thread::scope(|scope| {
            let other = scope.spawn(|| sweep(&mut other));
            (sweep(&mut world.reactor), other.join().unwrap())
        });
        assert!(one.errors.is_empty() && two.errors.is_empty(), "{one:?} {two:?}");
        let mut swept = [&one.cgroups[..], &two.cgroups].concat();
        swept.sort();
        expected.sort();
        assert_eq!(swept, expected, "each once");
        assert_eq!((directories(&above).len(), markers(&above).len()), (0, 2));
    }
}

#[test]
fn low_a_group_that_cannot_be_removed_hides_no_other() {
    const TEST: &str = "low_a_group_that_cannot_be_removed_hides_no_other";
    if let Some((mut reactor, place)) = as_host() {
        for _ in 0..5 {
            reactor.spawn(&sh("sleep 1000"), Token(0)).unwrap();
        }
        ready_to_die(&place);
    }
    if !rustix::process::geteuid().is_root() {
        skip("a mount needs root");
        return;
    }
    if !alone!("unshare", "--mount") {
        return;
    }
    let Some(mut world) = World::new() else { return };
    let above = world.place.cgroup.clone().unwrap();
    leave_jobs(TEST, &above);
    // A mount point cannot be removed.
    let bad = directories(&above).remove(0);
    fs::create_dir(bad.join("below")).unwrap();
    mount_tmpfs(&bad.join("below"));
    let swept = sweep(&mut world.reactor);
    assert_eq!((swept.cgroups.len(), swept.errors.len()), (4, 1), "{swept:?}");
    assert!(swept.errors[0].to_string().contains(bad.to_str().unwrap()), "{:?}", swept.errors);
    assert_eq!((directories(&above), markers(&above).len()), (vec![bad.clone()], 2));
    unmount(bad.join("below"), UnmountFlags::empty()).unwrap();
    let swept = sweep(&mut world.reactor);
    assert!(swept.cgroups == [bad] && swept.errors.is_empty(), "{swept:?}");
    assert_eq!((directories(&above).len(), markers(&above).len()), (0, 1));
}

#[test]
fn low_a_sweep_sleeps_while_the_killed_die() {
    const TEST: &str = "low_a_sweep_sleeps_while_the_killed_die";
    if let Some((mut reactor, place)) = as_host() {
        let job = sh("for i in $(seq 400); do sleep 1000 & done; echo; wait");
        let job = reactor.spawn(&job, Token(0)).unwrap();
        let group = reactor.status(job).unwrap().cgroup.unwrap();
        while members(&group).len() <= 400 {
            thread::yield_now();
        }
        ready_to_die(&place);
    }
    if !alone!() {
        return;
    }
    let Some(mut world) = World::new() else { return };
    let above = world.place.cgroup.clone().unwrap();
    leave_jobs(TEST, &above);
    // The calls that read, of this process.
    let reads = || -> Option<u64> {
        let io = fs::read_to_string("/proc/self/io").ok()?;
        io.lines().find_map(|line| line.strip_prefix("syscr: "))?.parse().ok()
    };
    let Some(before) = reads() else {
        skip_outside_vm("this kernel does not count calls (CONFIG_TASK_IO_ACCOUNTING)");
        return;
    };
    let swept = sweep(&mut world.reactor);
    assert!(swept.cgroups.len() == 1 && swept.errors.is_empty(), "{swept:?}");
    let reads = reads().unwrap() - before;
    // At most one for each notification, of which there is one in 10 ms.
    assert!(reads < 100, "{reads} reads");
}

/// The cgroup of this process.
fn own_cgroup() -> PathBuf {
    let table = fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = table.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
    cgroup_mount().unwrap().join(own)
}

/// Moves this process to another cgroup.
fn move_to(cgroup: &Path) {
    fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string()).unwrap();
}

/// In which cgroup a reactor makes those of its jobs.
fn parent_of_jobs(config: &Config) -> PathBuf {
    let mut reactor = Reactor::with_config(config).unwrap_or_else(|error| panic!("{error}"));
    let job = reactor.spawn(&sh("true"), Token(0)).unwrap();
    let cgroup = reactor.status(job).unwrap().cgroup.unwrap();
    cgroup.parent().unwrap().to_owned()
}

#[test]
fn m12_a_second_reactor_with_a_leaf_makes_its_jobs_where_the_first_does() {
    if !alone!() {
        return;
    }
    let place = Place::new();
    let Some(own) = place.cgroup_or_skip() else { return };
    let before = own_cgroup();
    move_to(&own);
    // As systemd does for Delegate=yes.
    setxattr(&own, "user.delegate", b"1", XattrFlags::empty()).unwrap();
    let mut config = Config::new();
    config.log_dir(place.logs()).host_leaf("host");
    for _ in 0..3 {
        assert_eq!(parent_of_jobs(&config), own);
        assert_eq!(own_cgroup(), own.join("host"));
    }
    // A leaf of another name is made in the one that it is in, which is nobody's leaf then.
    config.host_leaf("below");
    parent_of_jobs(&config);
    assert_eq!(own_cgroup(), own.join("host/below"));
    // A group that was delegated is no leaf, even if it has the name of one.
    move_to(&own);
    fs::remove_dir(own.join("host/below")).unwrap();
    config.host_leaf(own.file_name().unwrap().to_str().unwrap());
    assert_eq!(parent_of_jobs(&config), own);
    assert_eq!(own_cgroup(), own.join(own.file_name().unwrap()));
    move_to(&before);
}

/// A script that makes groups below the job's own: as many as it can side by side at `wide`, and as
/// deep as it can at `deep`, with a process in each, and then waits.
const MAKE_GROUPS: &str = r#"
    own=$CGROUP$(sed -n 's/^0:://p' /proc/self/cgroup)
    enter() { sh -c 'echo $$ > "$0/cgroup.procs"; exec sleep 1000' "$1" & }
    deep=$own depth=0 wide=0
    while [ $depth -lt 100 ] && mkdir $deep/d 2>/dev/null; do
        deep=$deep/d depth=$((depth + 1)); enter $deep
    done
    while [ $wide -lt 2000 ] && mkdir $own/w$wide 2>/dev/null; do
        enter $own/w$wide; wide=$((wide + 1))
    done
    echo $depth $wide
    wait
"#;

#[test]
fn m6_a_job_can_make_only_so_many_groups_and_stop_leaves_none_of_them() {
    let Some(mut world) = World::new() else { return };
    let above = world.place.cgroup.clone().unwrap();
    let mut command = sh(MAKE_GROUPS);
    command.env("CGROUP", cgroup_mount().unwrap());
    let job = world.spawn(&command);
    let tail = world.tail(job, Position::Start);
    world.until("the job has made its groups", |world| world.text(tail).ends_with('\n'));
    assert_eq!(world.text(tail), "32 224\n");
    let group = world.reactor.status(job).unwrap().cgroup.unwrap();
    assert_eq!(directories(&group).len(), 225);
    world.reactor.stop(job).unwrap();
    let report = world.finish(job);
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    world.reactor.remove(job).unwrap();
    assert_eq!(directories(&above), Vec::<PathBuf>::new());
}

#[test]
fn m6_the_groups_of_a_job_are_removed_in_turns_before_it_is_finished() {
    let Some(mut world) = World::new() else { return };
    let mut limits = Limits::new();
    limits.cgroup_max_descendants(150);
    let script = r#"
        own=$CGROUP$(sed -n 's/^0:://p' /proc/self/cgroup)
        i=0; while [ $i -lt 150 ]; do i=$((i + 1)); mkdir $own/$i; done
        echo; exec sleep 1000
    "#;
    let mut command = sh(script);
    command.env("CGROUP", cgroup_mount().unwrap()).limits(&limits);
    let job = world.spawn(&command);
    let tail = world.tail(job, Position::Start);
    world.until("the job has made its groups", |world| world.text(tail) == "\n");
    let group = world.reactor.status(job).unwrap().cgroup.unwrap();
    let mut left = directories(&group).len();
    assert_eq!(left, 150);
    world.reactor.kill(job).unwrap();
    // One turn at a time: a poll that waits takes as many as there are until the next event.
    let until = Instant::now() + PATIENCE;
    while directories(&group).len() == left {
        assert!(Instant::now() < until, "none is removed");
        world.turn(Some(Duration::ZERO));
    }
    // The job counts as exited meanwhile, and no call disturbs it.
    let status = world.reactor.status(job).unwrap();
    assert_eq!((status.phase, status.cgroup), (Phase::Exited, None));
    world.reactor.kill(job).unwrap();
    world.reactor.stop(job).unwrap();
    world.reactor.signal(job, Signal::TERM).unwrap();
    for error in [
        world.reactor.remove(job).unwrap_err(),
        world.reactor.freeze(job).unwrap_err(),
        world.reactor.stats(job).unwrap_err(),
        world.reactor.set_limits(job, &limits).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::State, "{error}");
    }
    while !world.finished.contains_key(&job) {
        assert!(group.exists());
        left = directories(&group).len();
        world.turn(Some(Duration::ZERO));
        let removed = left - directories(&group).len();
        assert!(removed <= 50, "{removed} in one turn");
    }
    assert!(!group.exists());
    let report = &world.finished[&job];
    assert!(report.problems.is_empty() && report.cgroup_left.is_none(), "{report:?}");
}

#[test]
fn m6_the_number_of_groups_can_be_changed_and_stays_as_it_was_set() {
    let Some(mut world) = World::new() else { return };
    let mut limits = Limits::new();
    limits.cgroup_max_descendants(5).set("cgroup.max.depth", "max").unwrap();
    world.reactor.prepare(&limits, 1).unwrap();
    for _ in 0..2 {
        let mut command = sh(MAKE_GROUPS);
        command.env("CGROUP", cgroup_mount().unwrap()).limits(&limits);
        let job = world.spawn(&command);
        let tail = world.tail(job, Position::Start);
        world.until("the job has made its groups", |world| world.text(tail).ends_with('\n'));
        assert_eq!(world.text(tail), "5 0\n");
        // A change of another limit does not bring the default back.
        world.reactor.set_limits(job, Limits::new().cgroup_max_descendants(6)).unwrap();
        let found = world.reactor.limits(job).unwrap();
        assert_eq!(found.get("cgroup.max.depth"), Some(&LimitValue::Count(None)));
        world.reactor.kill(job).unwrap();
        world.finish(job);
        world.reactor.remove(job).unwrap();
    }
}

/// The log directories that reactors have made in a directory.
fn log_dirs(parent: &Path) -> Vec<PathBuf> {
    let mut found = directories(parent);
    found.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with("jobworker-logs-"));
    found.sort();
    found
}

/// A configuration for jobs in process groups, whose logs are in the default place.
fn without_cgroups() -> Config {
    let mut config = Config::new();
    config.containment(Containment::ProcessGroup);
    config
}

#[test]
fn low_log_directories_of_dead_hosts_are_swept_unless_a_log_was_to_be_kept() {
    const TEST: &str = "low_log_directories_of_dead_hosts_are_swept_unless_a_log_was_to_be_kept";
    const KIND: &str = "JOBWORKER_TEST_KIND";
    if let Some(kind) = std::env::var_os(KIND) {
        let mut reactor = Reactor::with_config(&without_cgroups()).unwrap();
        if kind == "sweeper" {
            let swept = sweep(&mut reactor);
            assert!(swept.errors.is_empty() && !swept.log_dirs.is_empty(), "{swept:?}");
            return;
        }
        let mut command = sh("echo something");
        command.keep_log(kind == "kept").detached(kind == "detached");
        for _ in 0..3 {
            let job = reactor.spawn(&command, Token(0)).unwrap();
            reactor.wait(job).unwrap();
        }
        println!("ready");
        loop {
            thread::park();
        }
    }
    let temp = tempfile::tempdir().unwrap();
    let of_kind = |kind: &str| {
        let mut host = host(&["env"], TEST, Path::new(""));
        host.env(KIND, kind).env("TMPDIR", temp.path());
        host
    };
    let mut expected = Vec::new();
    for kind in ["plain", "kept", "detached"] {
        let before = log_dirs(temp.path());
        kill_when_ready(of_kind(kind));
        let mut made = log_dirs(temp.path());
        made.retain(|path| !before.contains(path));
        assert_eq!(made.len(), 1);
        if kind != "plain" {
            expected.append(&mut made);
        }
    }
    expected.sort();
    // What looks different is somebody else's.
    let foreign = temp.path().join("jobworker-logs-6f1b7e52-2a0c-4c5e-9d0a-3f1f0c9c2b11");
    fs::create_dir(&foreign).unwrap();
    fs::set_permissions(&foreign, fs::Permissions::from_mode(0o755)).unwrap();
    let named = temp.path().join("jobworker-logs-mine");
    fs::create_dir(&named).unwrap();
    fs::set_permissions(&named, fs::Permissions::from_mode(0o700)).unwrap();
    // A host that lives.
    let mut living = of_kind("plain").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(living.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("ready")));
    expected.extend([foreign, named]);
    let known = expected.clone();
    expected.extend(log_dirs(temp.path()).into_iter().filter(|path| {
        !known.contains(path)
            && fs::File::open(path)
                .is_ok_and(|dir| flock(dir, FlockOperation::NonBlockingLockExclusive).is_err())
    }));
    assert_eq!(expected.len(), 5, "two kept, two of others, one of the living");
    expected.sort();

    assert!(of_kind("sweeper").status().unwrap().success());
    assert_eq!(log_dirs(temp.path()), expected);
    living.kill().unwrap();
    living.wait().unwrap();
    // Logs that were kept may be removed at any time, and nothing is left then.
    for dir in log_dirs(temp.path()) {
        for log in fs::read_dir(dir).unwrap().flatten() {
            if log.file_name().to_str().unwrap().ends_with("log") {
                fs::remove_file(log.path()).unwrap();
            }
        }
    }
    assert!(of_kind("sweeper").status().unwrap().success());
    assert_eq!(log_dirs(temp.path()).len(), 2, "only those of others");
}

#[test]
fn low_a_relative_directory_for_temporary_files_is_found_from_any_working_directory() {
    let elsewhere = "cd /tmp && TMPDIR=. exec \"$0\" \"$@\"";
    if !alone!("sh", "-c", elsewhere) {
        return;
    }
    let mut reactor = Reactor::with_config(&without_cgroups()).unwrap();
    std::env::set_current_dir("/").unwrap();
    let job = reactor.spawn(&sh("echo here"), Token(0)).unwrap();
    reactor.wait(job).unwrap();
    let log = reactor.status(job).unwrap().output.unwrap();
    assert!(log.is_absolute(), "{}", log.display());
    assert_eq!(fs::read_to_string(&log).unwrap(), "here\n");
    drop(reactor);
    assert!(!log.parent().unwrap().exists());
}

#[test]
fn low_a_log_directory_that_was_removed_is_named_with_a_remedy() {
    let mut reactor = Reactor::with_config(&without_cgroups()).unwrap();
    let running = reactor.spawn(&sh("read line"), Token(0)).unwrap();
    let log = reactor.status(running).unwrap().output.unwrap();
    let dir = log.parent().unwrap();
    fs::remove_dir_all(dir).unwrap();
    for keep in [false, true] {
        let error = reactor.spawn(sh("true").keep_log(keep), Token(0)).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::System(SystemError::LogDirectory { .. })), "{text}");
        for part in [dir.to_str().unwrap(), "was removed", "Config::log_dir"] {
            assert!(text.contains(part), "{text}");
        }
    }
    // What needs no log is started.
    let job = reactor.spawn(sh("exit 3").output(Output::Null), Token(0)).unwrap();
    assert_eq!(reactor.wait(job).unwrap().exit, Exit::Code(3));
}

/// What a reactor with this configuration says when there can be none.
#[track_caller]
fn refusal(config: &Config) -> String {
    match Reactor::with_config(config) {
        Err(error @ Error::System(SystemError::NoCgroup { .. })) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn low_a_cgroup_tree_that_is_mounted_read_only_is_named_as_that() {
    if !rustix::process::geteuid().is_root() {
        skip("a mount needs root");
        return;
    }
    if !alone!("unshare", "--mount") {
        return;
    }
    let place = Place::new();
    let Some(mount) = cgroup_mount() else { return };
    mount_remount(&mount, MountFlags::BIND | MountFlags::RDONLY, "").unwrap();
    let mut by_default = Config::new();
    by_default.log_dir(place.logs());
    for config in [by_default, place.config()] {
        let text = refusal(&config);
        assert!(text.contains("read-only") && text.contains("writable-cgroups"), "{text}");
        assert!(!text.contains("run as root"), "{text}");
        let report = Capabilities::probe_with(&config);
        assert!(!report.can_run_jobs() && report.to_string().contains("read-only"), "{report}");
    }
    mount_remount(&mount, MountFlags::BIND, "").unwrap();
}

#[test]
fn low_a_host_without_proc_is_told_what_is_missing() {
    if !rustix::process::geteuid().is_root() {
        skip("a mount needs root");
        return;
    }
    if !alone!("unshare", "--mount") {
        return;
    }
    let place = Place::new();
    let mut by_default = Config::new();
    by_default.log_dir(place.logs());
    let explicit = place.config();
    mount_tmpfs(Path::new("/proc"));
    let text = refusal(&by_default);
    // Who names a cgroup needs no /proc.
    let found = place.cgroup.as_ref().map(|_| Reactor::with_config(&explicit).map(drop));
    unmount("/proc", UnmountFlags::empty()).unwrap();
    assert!(text.contains("/proc/self/mountinfo") && text.contains("mount the proc"), "{text}");
    if let Some(found) = found {
        found.unwrap();
    }
}

#[test]
fn low_a_host_outside_of_its_delegated_subtree_is_told_so() {
    if !alone!() {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        skip("only root can give up privileges");
        return;
    }
    let place = Place::new();
    let Some(delegated) = place.cgroup_or_skip() else { return };
    let (user, group) = (Uid::from_raw(65534), Gid::from_raw(65534));
    for path in [place.dir.path(), &place.logs(), &delegated, &delegated.join("cgroup.procs")] {
        chown(path, Some(user), Some(group)).unwrap();
    }
    let config = place.config();
    // To the kernel, ids belong to a thread: this one gives up its own.
    let unprivileged = thread::spawn(move || {
        rustix::thread::set_thread_groups(&[]).unwrap();
        rustix::thread::set_thread_res_gid(group, group, group).unwrap();
        rustix::thread::set_thread_res_uid(user, user, user).unwrap();
        refusal(&config)
    });
    let text = unprivileged.join().unwrap();
    let own = own_cgroup();
    for part in ["the host runs in", own.to_str().unwrap(), "outside of", "cgroup.procs", "Start"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(text.contains(delegated.to_str().unwrap()) && !text.contains("probe"), "{text}");
    assert_eq!(directories(&delegated).len() + markers(&delegated).len(), 0);
}

#[test]
fn low_a_sweep_returns_at_once_and_goes_on_in_turns_whenever_the_descriptor_is_readable() {
    const TEST: &str =
        "low_a_sweep_returns_at_once_and_goes_on_in_turns_whenever_the_descriptor_is_readable";
    if let Some((mut reactor, place)) = as_host() {
        for _ in 0..200 {
            reactor.spawn(sh("sleep 1000").output(Output::Null), Token(0)).unwrap();
        }
        ready_to_die(&place);
    }
    let Some(mut world) = World::new() else { return };
    let above = world.place.cgroup.clone().unwrap();
    leave_jobs(TEST, &above);
    world.reactor.sweep(Token(1)).unwrap();
    world.reactor.sweep(Token(2)).unwrap();
    assert_eq!(directories(&above).len(), 200, "nothing was done within the call");
    let mut done = Vec::new();
    let mut turns = 0;
    while done.len() < 2 {
        let timeout = PATIENCE.try_into().unwrap();
        let mut readable = [PollFd::new(&world.reactor, PollFlags::IN)];
        assert_eq!(poll(&mut readable, Some(&timeout)).unwrap(), 1, "not readable");
        world.reactor.poll(&mut world.events, Some(Duration::ZERO)).unwrap();
        turns += 1;
        for event in &world.events {
            let Event::Swept { token, swept } = event else { panic!("{event:?}") };
            assert!(swept.errors.is_empty(), "{swept:?}");
            done.push((*token, swept.cgroups.len()));
        }
    }
    assert_eq!(done, [(Token(1), 200), (Token(2), 0)]);
    assert!(turns > 3, "{turns} turns");
    assert_eq!((directories(&above).len(), markers(&above).len()), (0, 1));
    assert_eq!(world.reactor.census().sources, 0);
}

#[test]
fn low_a_sweep_that_is_broken_off_leaves_the_rest_to_the_next() {
    if let Some((mut reactor, place)) = as_host() {
        for _ in 0..100 {
            reactor.spawn(sh("sleep 1000").output(Output::Null), Token(0)).unwrap();
        }
        ready_to_die(&place);
    }
    let Some(mut world) = World::new() else { return };
    let above = world.place.cgroup.clone().unwrap();
    leave_jobs("low_a_sweep_that_is_broken_off_leaves_the_rest_to_the_next", &above);
    let mut other = Reactor::with_config(&world.place.config()).unwrap();
    other.sweep(Token(1)).unwrap();
    for _ in 0..3 {
        other.poll(&mut world.events, Some(Duration::ZERO)).unwrap();
    }
    // While it holds the locks, nobody else touches these groups.
    let swept = sweep(&mut world.reactor);
    assert!(swept.errors.is_empty(), "{swept:?}");
    drop(other);
    let left = directories(&above).len();
    let swept = sweep(&mut world.reactor);
    assert!(swept.errors.is_empty() && swept.cgroups.len() == left, "{swept:?}");
    assert_eq!((directories(&above).len(), markers(&above).len()), (0, 1));
}

/// `cgroup.kill` and `cgroup.procs` are refused in a threaded group, so that nothing ended the job.
#[test]
fn a_root_job_that_makes_its_own_group_threaded_is_killed() {
    let Some(mut world) = World::new() else { return };
    let mount = cgroup_mount().expect("a world has a cgroup").display().to_string();
    let mut command = sh(&format!(
        "cd {mount}$(sed -n 's/^0:://p' /proc/self/cgroup); echo 0 > ../../cgroup.procs; \
         echo threaded > cgroup.type; echo 0 > ../cgroup.procs; echo 0 > cgroup.procs; \
         sleep 100 & echo on; wait"
    ));
    let job = world.spawn(command.inherit_env());
    let group = world.reactor.status(job).unwrap().cgroup.expect("a job with a cgroup");
    let tail = world.tail(job, jobworker::Position::Start);
    world.until("it has done what it can", |world| world.text(tail).contains("on\n"));
    if fs::read_to_string(group.join("cgroup.type")).unwrap() != "threaded\n" {
        eprintln!("the group cannot be made threaded by this user");
    }
    world.reactor.kill(job).unwrap();
    let report = world.finish(job);
    assert!(report.killed && report.cgroup_left.is_none(), "{report:?}");
}
