//! A job gets what its command asks for: each option is checked by what the job itself prints.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::{fs, io};

use jobworker::{
    Command, DEFAULT_PATH, Error, Exit, IoPriority, Position, ProcessGroup, Reactor, Resource,
    Signal, SpawnError, Stage, Token,
};
use rustix::process::{DumpableBehavior, WaitId, WaitIdOptions, getpid, waitid};

use crate::calls::io_priority;
use crate::skips::skip;
use crate::support::{World, alone, assert_arguments_arrive, end_group, pidfd, sh};

/// Runs a program, which must succeed, and returns its output.
#[track_caller]
fn output(world: &mut World, command: &Command) -> String {
    let (text, report) = world.run(command);
    assert_eq!(report.exit, Exit::Code(0), "{command:?}: {text}");
    text
}

/// The value of a line of the job's own /proc/self/status, which the command prints.
#[track_caller]
fn status(world: &mut World, command: &mut Command, name: &str) -> String {
    let text = output(world, command);
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {text}"))
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

fn cat(path: &str) -> Command {
    let mut command = Command::new("/bin/cat");
    command.arg(path);
    command
}

fn make_executable(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn arguments_of_any_bytes_arrive_as_they_are() {
    let Some(mut world) = World::new() else { return };
    let every_byte: Vec<u8> = (1..=255).collect();
    let arguments: [&[u8]; 7] = [
        b"",
        b" two  words ",
        b"$HOME `id` \"'\\*",
        b"line\nline",
        b"\xff\xfe",
        b"-n",
        &every_byte,
    ];
    assert_arguments_arrive(&mut world, &arguments);
}

#[test]
fn a_program_sees_itself_by_the_name_that_was_asked_for() {
    let Some(mut world) = World::new() else { return };
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "echo \"$0\""]);
    assert_eq!(output(&mut world, &command), "/bin/sh\n");
    for name in ["-sh", "/two words/sh"] {
        command.arg0(name);
        assert_eq!(output(&mut world, &command), format!("{name}\n"));
    }
    // The file is found by the program's name.
    let error = world.try_spawn(Command::new("/no/such/program").arg0("/bin/true")).unwrap_err();
    assert!(error.to_string().contains("/no/such/program"), "{error}");
}

#[test]
fn a_command_can_be_used_again_and_its_clone_differs_only_in_what_is_changed() {
    let Some(mut world) = World::new() else { return };
    let mut command = Command::new("/bin/echo");
    command.arg("one");
    let mut other = command.clone();
    other.arg("two");
    for _ in 0..2 {
        assert_eq!(output(&mut world, &command), "one\n");
        assert_eq!(output(&mut world, &other), "one two\n");
    }
}

#[test]
fn the_environment_is_empty_or_exactly_what_was_set() {
    let Some(mut world) = World::new() else { return };
    assert_eq!(output(&mut world, &Command::new("/usr/bin/env")), "");
    let mut command = Command::new("/usr/bin/env");
    command
        .env("B", "overwritten")
        .envs([("A", "1"), ("B", "two words"), ("C", "gone")])
        .env_remove("C")
        .env("E", "");
    let mut lines: Vec<String> = output(&mut world, &command).lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["A=1", "B=two words", "E="]);
}

#[test]
fn an_inherited_environment_is_the_hosts_with_the_changes_that_were_asked_for() {
    let Some(mut world) = World::new() else { return };
    let mut expected: BTreeMap<_, _> = std::env::vars_os().collect();
    let some = expected.keys().next().expect("a test has an environment").clone();
    expected.remove(&some);
    expected.insert("JOBWORKER_ADDED".into(), "1".into());
    let mut command = Command::new("/usr/bin/env");
    command.arg("-0").env("JOBWORKER_ADDED", "1").inherit_env().env_remove(&some);
    let job = world.spawn(&command);
    let tail = world.tail(job, Position::Start);
    world.finish(job);
    let seen: BTreeMap<_, _> = world.transcripts[&tail]
        .bytes
        .split(|byte| *byte == 0)
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let equals = pair.iter().position(|byte| *byte == b'=').unwrap();
            (
                OsStr::from_bytes(&pair[..equals]).to_owned(),
                OsStr::from_bytes(&pair[equals + 1..]).to_owned(),
            )
        })
        .collect();
    assert_eq!(seen, expected);
}

#[test]
fn a_working_directory_is_the_hosts_or_the_one_that_was_asked_for() {
    let Some(mut world) = World::new() else { return };
    let own = format!("{}\n", std::env::current_dir().unwrap().display());
    let mut command = Command::new("/bin/pwd");
    command.arg("-P");
    assert_eq!(output(&mut world, &command), own);
    let dir = fs::canonicalize(world.place.dir.path()).unwrap();
    assert_eq!(output(&mut world, command.current_dir(&dir)), format!("{}\n", dir.display()));
    if !rustix::process::geteuid().is_root() {
        skip("only root can change the user");
        return;
    }
    // The directory is entered as the job's user, to whom root's private one is closed.
    let error =
        world.try_spawn(command.current_dir(world.place.logs()).uid(65534).gid(65534)).unwrap_err();
    let Error::Spawn(SpawnError::Failed { stage: Stage::CurrentDirectory, cause, .. }) = &error
    else {
        panic!("{error:?}")
    };
    assert_eq!(cause.kind(), io::ErrorKind::PermissionDenied);
}

#[test]
fn a_root_directory_is_changed_before_the_working_directory_and_the_user() {
    let Some(mut world) = World::new() else { return };
    if !rustix::process::geteuid().is_root() {
        skip("only root can change the root directory");
        return;
    }
    // Where /lib and /bin are links into it, /usr has all that its programs need.
    let linked = fs::symlink_metadata("/lib").is_ok_and(|file| file.is_symlink());
    let has = |name| Path::new("/usr").join(name).exists();
    if !linked || !["bin/pwd", "bin/sleep", "lib", "share"].into_iter().all(has) {
        skip("/usr cannot be a root directory here");
        return;
    }
    let mut command = Command::new("pwd");
    command.arg("-P").env("PATH", "/bin").chroot("/usr");
    assert_eq!(output(&mut world, &command), "/\n");
    assert_eq!(output(&mut world, command.current_dir("/share")), "/share\n");
    assert_eq!(output(&mut world, command.current_dir("lib").uid(65534).gid(65534)), "/lib\n");
    let job = world.spawn(Command::new("/bin/sleep").arg("1000").chroot("/usr"));
    let pid = world.reactor.status(job).unwrap().pid;
    assert_eq!(fs::read_link(format!("/proc/{pid}/root")).unwrap(), Path::new("/usr"));
    assert_eq!(fs::read_link("/proc/self/root").unwrap(), Path::new("/"));
    world.reactor.kill(job).unwrap();
    world.finish(job);
    let error = world.try_spawn(Command::new("/bin/true").chroot("/no/such/root")).unwrap_err();
    assert!(error.to_string().contains("root directory /no/such/root failed"), "{error}");
}

#[test]
fn standard_input_is_empty_a_file_or_a_descriptor() {
    let Some(mut world) = World::new() else { return };
    let mut command = Command::new("/bin/cat");
    assert_eq!(output(&mut world, &command), "");
    let file = world.place.dir.path().join("input");
    fs::write(&file, "from a file").unwrap();
    // The file is opened again for each job.
    command.stdin_file(&file);
    assert_eq!(output(&mut world, &command), "from a file");
    assert_eq!(output(&mut world, &command), "from a file");
    let (input, feed) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    rustix::io::write(&feed, b"from a pipe").unwrap();
    drop(feed);
    assert_eq!(output(&mut world, command.stdin_fd(input)), "from a pipe");
    // An open file is read from its current offset on.
    let mut open = fs::File::open(&file).unwrap();
    io::Seek::seek(&mut open, io::SeekFrom::Start(7)).unwrap();
    assert_eq!(output(&mut world, command.stdin_fd(open)), "file");
    let error = world.try_spawn(command.stdin_file("/no/such/input")).unwrap_err();
    assert!(error.to_string().contains("/no/such/input"), "{error}");
}

#[test]
fn user_group_and_groups_are_set_for_good_and_the_hosts_groups_are_not_left_to_another_user() {
    let Some(mut world) = World::new() else { return };
    if !rustix::process::geteuid().is_root() {
        skip("only root can change the user");
        return;
    }
    // To the kernel, groups belong to a thread, so no other thread gets these.
    let own = rustix::process::getgroups().unwrap();
    rustix::thread::set_thread_groups(&[rustix::process::Gid::from_raw(4242)]).unwrap();
    assert_eq!(status(&mut world, &mut cat("/proc/self/status"), "Groups"), "4242");
    let mut command = cat("/proc/self/status");
    command.uid(65534).gid(65533);
    assert_eq!(status(&mut world, &mut command, "Uid"), "65534 65534 65534 65534");
    assert_eq!(status(&mut world, &mut command, "Gid"), "65533 65533 65533 65533");
    assert_eq!(status(&mut world, &mut command, "Groups"), "");
    assert_eq!(status(&mut world, &mut command, "CapEff"), "0000000000000000");
    command.groups([7, 5, 70000]);
    assert_eq!(status(&mut world, &mut command, "Groups"), "5 7 70000");
    let mut command = cat("/proc/self/status");
    command.gid(65533);
    assert_eq!(status(&mut world, &mut command, "Uid"), "0 0 0 0");
    assert_eq!(status(&mut world, &mut command, "Gid"), "65533 65533 65533 65533");
    assert_eq!(status(&mut world, &mut command, "Groups"), "");
    rustix::thread::set_thread_groups(&own).unwrap();
    assert!(
        rustix::process::geteuid().is_root() && rustix::process::getegid().is_root(),
        "the ids of the host have changed"
    );
}

#[test]
fn a_host_that_was_dumpable_stays_so_when_its_threads_start_jobs_as_other_users_at_the_same_time() {
    if !alone!() {
        return;
    }
    // A child that changes its ids while it shares the host's memory clears this flag of the host.
    let dumpable = || rustix::process::dumpable_behavior().unwrap();
    if dumpable() != DumpableBehavior::Dumpable || !rustix::process::geteuid().is_root() {
        skip("not root, or not dumpable to begin with");
        return;
    }
    for _ in 0..5 {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let Some(mut world) = World::new() else { return };
                    for _ in 0..10 {
                        let job = world.spawn(Command::new("/bin/true").uid(65534).gid(65534));
                        world.finish(job);
                    }
                });
            }
        });
        assert_eq!(dumpable(), DumpableBehavior::Dumpable);
    }
}

#[test]
fn the_umask_is_the_hosts_or_the_one_that_was_asked_for() {
    let Some(mut world) = World::new() else { return };
    let host = fs::read_to_string("/proc/self/status").unwrap();
    let own = host.lines().find_map(|line| line.strip_prefix("Umask:")).unwrap().trim().to_owned();
    let mut command = cat("/proc/self/status");
    assert_eq!(status(&mut world, &mut command, "Umask"), own);
    assert_eq!(status(&mut world, command.umask(0o027), "Umask"), "0027");
    assert_eq!(status(&mut world, command.umask(0o777), "Umask"), "0777");
    let after = fs::read_to_string("/proc/self/status").unwrap();
    assert!(after.contains(&format!("Umask:\t{own}\n")), "the host's own mask has changed");
    // The host creates the log, so the job's mask does not decide who can read it.
    assert_eq!(output(&mut world, sh("umask").umask(0o777)), "0777\n");
}

#[test]
fn resource_limits_hold_for_the_job_and_not_for_the_host() {
    let Some(mut world) = World::new() else { return };
    let before = fs::read_to_string("/proc/self/limits").unwrap();
    let mut command = cat("/proc/self/limits");
    command.rlimit(Resource::OpenFiles, Some(64), Some(128)).rlimit(
        Resource::Core,
        Some(0),
        Some(0),
    );
    command.rlimit(Resource::FileSize, Some(1 << 20), None).rlimit(Resource::Cpu, Some(7), Some(8));
    let text = output(&mut world, &command);
    let line = |name: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or_else(|| panic!("{name}: {text}"));
        line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("Max open files"), "64 128");
    assert_eq!(line("Max core file size"), "0 0");
    assert_eq!(line("Max file size"), "1048576 unlimited");
    assert_eq!(line("Max cpu time"), "7 8");
    assert_eq!(fs::read_to_string("/proc/self/limits").unwrap(), before);
    // A job that exceeds one gets a signal from the kernel, which the report names.
    let job = world.spawn(sh("ulimit -c 0; exec head -c 9999 /dev/zero").rlimit(
        Resource::FileSize,
        Some(100),
        Some(100),
    ));
    let report = world.finish(job);
    assert_eq!(
        report.exit,
        Exit::Signal { signal: Signal::from_raw(25).unwrap(), core_dumped: false }
    );
    assert_eq!(report.output_bytes, 100);
}

#[test]
fn a_job_runs_on_the_processors_that_were_asked_for() {
    let Some(mut world) = World::new() else { return };
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim();
    let mut command = cat("/proc/self/status");
    assert_eq!(status(&mut world, &mut command, "Cpus_allowed_list"), own);
    // The last of them, whatever the machine has.
    let last: u32 = own.rsplit([',', '-']).next().unwrap().parse().unwrap();
    command.cpu_affinity([last]);
    assert_eq!(status(&mut world, &mut command, "Cpus_allowed_list"), last.to_string());
    // One that does not exist is left out, and there must be one that does.
    command.cpu_affinity([last, 60_000]);
    assert_eq!(status(&mut world, &mut command, "Cpus_allowed_list"), last.to_string());
    let after = fs::read_to_string("/proc/self/status").unwrap();
    assert!(after.contains(&format!("Cpus_allowed_list:\t{own}\n")), "the host's has changed");
}

#[test]
fn a_job_has_the_io_priority_that_was_asked_for() {
    let Some(mut world) = World::new() else { return };
    let mut expected = vec![(IoPriority::BestEffort(6), 2 << 13 | 6), (IoPriority::Idle, 3 << 13)];
    if rustix::process::geteuid().is_root() {
        expected.push((IoPriority::RealTime(7), 1 << 13 | 7));
    }
    for (priority, number) in expected {
        let job = world.spawn(Command::new("/bin/sleep").arg("1000").io_priority(priority));
        let pid = world.reactor.status(job).unwrap().pid;
        assert_eq!(io_priority(pid), number, "{priority:?}");
        world.reactor.kill(job).unwrap();
        world.finish(job);
    }
    let job = world.spawn(Command::new("/bin/sleep").arg("1000"));
    assert_eq!(io_priority(world.reactor.status(job).unwrap().pid), io_priority(0));
    world.reactor.kill(job).unwrap();
    world.finish(job);
}

#[test]
fn no_new_privileges_is_off_unless_asked_for() {
    let Some(mut world) = World::new() else { return };
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let own =
        own.lines().find_map(|line| line.strip_prefix("NoNewPrivs:")).unwrap().trim().to_owned();
    let mut command = cat("/proc/self/status");
    assert_eq!(status(&mut world, &mut command, "NoNewPrivs"), own);
    assert_eq!(status(&mut world, command.no_new_privs(true), "NoNewPrivs"), "1");
    assert_eq!(status(&mut world, command.no_new_privs(false), "NoNewPrivs"), own);
}

#[test]
fn a_job_leads_a_process_group_or_a_session_or_stays_in_the_hosts() {
    let Some(mut world) = World::new() else { return };
    // The host's own ids are 0 where the leader is outside its PID namespace, which rustix cannot
    // represent.
    let numbers = |stat: &str| {
        let after_name = stat.rsplit_once(')').unwrap().1.split_whitespace().skip(1).take(3);
        after_name.map(|number| number.parse::<i32>().unwrap()).collect::<Vec<_>>()
    };
    let host = numbers(&fs::read_to_string("/proc/self/stat").unwrap());
    let (host_group, host_session) = (host[1], host[2]);
    let mut command = cat("/proc/self/stat");
    for group in [ProcessGroup::Own, ProcessGroup::Session, ProcessGroup::Host] {
        let text = output(&mut world, command.process_group(group));
        let pid = text.split_once(' ').unwrap().0.parse::<i32>().unwrap();
        let found = numbers(&text);
        let (parent, pgrp, session) = (found[0], found[1], found[2]);
        assert_eq!(parent, getpid().as_raw_nonzero().get());
        let expected = match group {
            ProcessGroup::Own => (pid, host_session),
            ProcessGroup::Session => (pid, pid),
            _ => (host_group, host_session),
        };
        assert_eq!((pgrp, session), expected, "{group:?}");
    }
}

#[test]
fn a_parent_death_signal_comes_when_the_thread_that_spawned_the_job_ends() {
    let Some(world) = World::new() else { return };
    let World { reactor, place, .. } = world;
    drop(reactor);
    for signal in [None, Some(Signal::USR1)] {
        let mut command = Command::new("/bin/sleep");
        command.arg("1000").detached(true);
        // A change of the user clears the signal, so it must be set afterwards. Only root can
        // change the user.
        if rustix::process::geteuid().is_root() {
            command.uid(65534).gid(65534);
        }
        if let Some(signal) = signal {
            command.parent_death_signal(signal);
        }
        let config = place.config();
        let host = std::thread::spawn(move || {
            let mut reactor = Reactor::with_config(&config).unwrap();
            let job = reactor.spawn(&command, Token(0)).unwrap();
            let status = reactor.status(job).unwrap();
            (status.pid, status.cgroup.unwrap())
        });
        let (pid, cgroup) = host.join().unwrap();
        let process = pidfd(pid);
        if signal.is_none() {
            end_group(&cgroup);
        }
        let ended = waitid(WaitId::PidFd(process.as_fd()), WaitIdOptions::EXITED).unwrap().unwrap();
        assert_eq!(ended.terminating_signal(), Some(signal.unwrap_or(Signal::KILL).as_raw()));
        if signal.is_some() {
            fs::remove_dir(cgroup).unwrap();
        }
    }
}

#[test]
fn a_program_is_looked_for_in_the_path_of_the_job() {
    let Some(mut world) = World::new() else { return };
    let dir = world.place.dir.path().to_owned();
    let [first, second, third] = ["first", "second", "third"].map(|name| dir.join(name));
    for dir in [&first, &second, &third] {
        fs::create_dir(dir).unwrap();
    }
    fs::write(first.join("tool"), "not executable").unwrap();
    make_executable(&second.join("tool"), "#!/bin/sh\necho second $0\n");
    make_executable(&third.join("tool"), "#!/bin/sh\necho third $0\n");
    make_executable(&third.join("other"), "#!/bin/sh\necho other $0\n");
    let path = |dirs: &[&Path]| {
        dirs.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(":")
    };
    let missing = dir.join("missing");

    // The first file that can be executed is run; one that cannot does not end the search.
    let mut command = Command::new("tool");
    command.env("PATH", path(&[&missing, &first, &second, &third]));
    assert_eq!(output(&mut world, &command), format!("second {}/tool\n", second.display()));
    // If no file can be executed, it turns the error into one of permission.
    let refused = |world: &mut World, command: &Command| match world.try_spawn(command) {
        Err(Error::Spawn(SpawnError::Failed { stage: Stage::Exec, cause, .. })) => cause.kind(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        refused(&mut world, command.env("PATH", path(&[&first, &missing]))),
        io::ErrorKind::PermissionDenied
    );
    assert_eq!(
        refused(&mut world, command.env("PATH", path(&[&missing]))),
        io::ErrorKind::NotFound
    );
    // The host's path is not searched, nor is the working directory unless the path names it.
    command.current_dir(&third);
    assert_eq!(refused(&mut world, command.env_remove("PATH")), io::ErrorKind::NotFound);
    for with_empty in ["", ":/missing", "/missing:", "/missing::/missing"] {
        assert_eq!(
            output(&mut world, command.env("PATH", with_empty)),
            "third ./tool\n",
            "{with_empty:?}"
        );
    }
    // A relative entry and a name with a slash are relative to the job's directory.
    command.current_dir(&dir).env("PATH", "third");
    assert_eq!(output(&mut world, &command), "third third/tool\n");
    let mut command = Command::new("./other");
    assert_eq!(output(&mut world, command.current_dir(&third)), "other ./other\n");
    // A job without a path gets the default one.
    assert!(DEFAULT_PATH.split(':').any(|dir| dir == "/bin"));
    assert_eq!(output(&mut world, Command::new("echo").arg("found")), "found\n");
}

#[test]
fn a_program_that_is_missing_and_one_that_may_not_be_run_are_told_apart() {
    let Some(mut world) = World::new() else { return };
    let dir = world.place.dir.path().to_owned();
    let file = dir.join("file");
    fs::write(&file, "text").unwrap();
    let garbage = dir.join("garbage");
    make_executable(&garbage, "neither a script nor a binary");
    let lost = dir.join("lost");
    make_executable(&lost, "#!/no/such/interpreter\n");
    for (program, errno) in [
        (dir.join("missing"), rustix::io::Errno::NOENT),
        (file.join("below"), rustix::io::Errno::NOTDIR),
        (file, rustix::io::Errno::ACCESS),
        (dir, rustix::io::Errno::ACCESS),
        (garbage, rustix::io::Errno::NOEXEC),
        (lost, rustix::io::Errno::NOENT),
    ] {
        let error = world.try_spawn(&Command::new(&program)).unwrap_err();
        assert!(
            matches!(error, Error::Spawn(SpawnError::Failed { stage: Stage::Exec, .. })),
            "{error:?}"
        );
        assert_eq!(error.raw_os_error(), Some(errno.raw_os_error()), "{error}");
        assert!(error.to_string().contains(program.to_str().unwrap()), "{error}");
    }
}
