//! A job's standard streams are what its command says, and what the host holds of them is released.

use std::fs::{self, File};
use std::io::{self, PipeReader, Read, Write};
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use jobworker::{
    BoundedSpawns, Command, Error, ErrorKind, JobError, JobId, Output, Position, SpawnError, Stage,
    Stdin, Stream, TailError, TailOptions, Token,
};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use crate::skips::Elsewhere;
use crate::support::{World, alone, pidfd, sh, wait_for_exit};

#[test]
fn bytes_are_the_whole_input_of_every_job_of_the_command() {
    let Some(mut world) = World::new() else { return };
    let text: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
    for bytes in [Vec::new(), b"from memory\0\xff".to_vec(), text] {
        let mut command = Command::new("/bin/cat");
        command.stdin_bytes(bytes.clone());
        for _ in 0..2 {
            let job = world.spawn(&command);
            let tail = world.tail(job, Position::Start);
            assert!(world.finish(job).exit.success());
            assert!(world.transcripts[&tail].bytes == bytes, "{} bytes", bytes.len());
        }
    }
    // A job starts at the first byte wherever another one is, and none can change what is there.
    let mut command = sh("head -c 3 >/dev/null; cat
        (echo x >/dev/stdin) 2>/dev/null || echo sealed");
    command.stdin_bytes("abcdef\n");
    for _ in 0..2 {
        assert_eq!(world.run(&command).0, "def\nsealed\n");
    }
}

#[test]
fn a_piped_input_goes_to_the_job_and_ends_when_the_writer_is_dropped() {
    let Some(mut world) = World::new() else { return };
    let mut command = Command::new("/bin/cat");
    command.stdin(Stdin::Piped);
    let jobs = [world.spawn(&command), world.spawn(&command)];
    let tails = jobs.map(|job| world.tail(job, Position::Start));
    let mut writers = jobs.map(|job| world.reactor.take_stdin(job).unwrap().unwrap());
    for (index, writer) in writers.iter_mut().enumerate() {
        writeln!(writer, "to {index}").unwrap();
    }
    world.until("the input came back", |world| {
        tails.iter().enumerate().all(|(index, tail)| world.text(*tail) == format!("to {index}\n"))
    });
    for job in jobs {
        assert!(world.reactor.take_stdin(job).unwrap().is_none(), "taken twice");
    }
    // Each has a pipe of its own.
    let [first, second] = writers;
    drop(first);
    assert!(world.finish(jobs[0]).exit.success());
    assert!(!world.finished.contains_key(&jobs[1]));
    drop(second);
    assert!(world.finish(jobs[1]).exit.success());
    let other = world.spawn(&Command::new("/bin/true"));
    assert!(world.reactor.take_stdin(other).unwrap().is_none(), "it has no pipe");
    world.finish(other);
    world.reactor.remove(other).unwrap();
    let error = world.reactor.take_stdin(other).unwrap_err();
    assert!(matches!(error, jobworker::Error::Job(JobError::Unknown(_))), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::StaleId);
}

#[test]
fn a_write_to_a_job_that_is_gone_fails_though_its_command_and_its_reactor_live_on() {
    // A child that another test has just cloned has the other end until its exec.
    if !alone!() {
        return;
    }
    let Some(mut world) = World::new() else { return };
    let mut command = sh("exec sleep 1000");
    command.stdin(Stdin::Piped);
    let job = world.spawn(&command);
    let mut writer = world.reactor.take_stdin(job).unwrap().unwrap();
    writer.write_all(b"into the pipe").unwrap();
    world.reactor.kill(job).unwrap();
    world.finish(job);
    assert_eq!(writer.write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    assert!(world.reactor.take_stdin(job).unwrap().is_none(), "the job is finished");
    drop(command);
}

#[test]
fn a_full_pipe_blocks_no_host_that_has_asked_for_that() {
    let Some(mut world) = World::new() else { return };
    // The job's end is not affected: it waits for its input, which it reads once it is let to.
    let gate = world.place.dir.path().join("gate");
    mknodat(CWD, &gate, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let mut command = sh("read line <\"$GATE\"; cat | wc -c");
    let job = world.spawn(command.env("GATE", &gate).stdin(Stdin::Piped));
    let tail = world.tail(job, Position::Start);
    let mut writer = world.reactor.take_stdin(job).unwrap().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    let mut written = 0;
    let error = loop {
        match writer.write(&[b'x'; 4096]) {
            Ok(count) => written += count,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    drop(writer);
    fs::write(&gate, "go\n").unwrap();
    world.finish(job);
    assert_eq!(world.text(tail).trim(), written.to_string());
}

#[test]
fn an_input_that_nobody_takes_is_released() {
    if !alone!() {
        return;
    }
    let Some(mut world) = World::new() else { return };
    let before = world.footprint();
    // With the end of the job.
    let job = world.spawn(Command::new("/bin/true").stdin(Stdin::Piped));
    world.finish(job);
    world.reactor.remove(job).unwrap();
    assert_eq!(world.footprint(), before);
    // By a wait, which would otherwise never end.
    let job = world.spawn(Command::new("/bin/cat").stdin(Stdin::Piped));
    assert!(world.reactor.wait(job).unwrap().exit.success());
    world.finish(job);
    world.reactor.remove(job).unwrap();
    assert_eq!(world.footprint(), before);
    // And when the job does not start.
    for stdin in [Stdin::Piped, Stdin::bytes("x")] {
        world.try_spawn(Command::new("/no/such/program").stdin(stdin)).unwrap_err();
        assert_eq!(world.footprint(), before);
    }
    let job = world.spawn(Command::new("/bin/cat").stdin(Stdin::bytes("x")));
    world.finish(job);
    world.reactor.remove(job).unwrap();
    assert_eq!(world.footprint(), before);
}

#[test]
fn a_detached_job_reads_the_end_of_its_input_when_the_reactor_is_dropped() {
    let Some(mut world) = World::new() else { return };
    let mark = world.place.dir.path().join("mark");
    let mut command = sh("cat; echo ended >\"$MARK\"");
    command.env("MARK", &mark).detached(true).stdin(Stdin::Piped);
    let job = world.spawn(&command);
    let status = world.reactor.status(job).unwrap();
    let process = pidfd(status.pid);
    let World { reactor, place, .. } = world;
    drop(reactor);
    wait_for_exit(&process);
    assert_eq!(fs::read_to_string(mark).unwrap(), "ended\n");
    waitid(WaitId::PidFd(process.as_fd()), WaitIdOptions::EXITED).unwrap().unwrap();
    fs::remove_dir(status.cgroup.unwrap()).unwrap();
    drop(place);
}

/// Checks that a job has no log, whichever stream is asked for.
#[track_caller]
fn has_no_log(world: &mut World, job: JobId) {
    for stream in [Stream::Output, Stream::Error] {
        let mut options = TailOptions::new(Position::Start);
        let error = world.reactor.tail(job, options.stream(stream), Token(0)).unwrap_err();
        assert!(matches!(error, Error::Tail(TailError::NoLog { .. })), "{error:?}");
        assert!(error.to_string().contains("chose another Output"), "{error}");
    }
    let status = world.reactor.status(job).unwrap();
    assert_eq!((status.output, status.error), (None, None));
}

#[test]
fn output_to_descriptors_goes_there_and_leaves_no_log() {
    let Some(mut world) = World::new() else { return };
    let before = world.footprint().log_files;
    let script = sh("echo to output; echo to error >&2");
    let read = |mut pipe: PipeReader| {
        let mut text = String::new();
        pipe.read_to_string(&mut text).unwrap();
        text
    };
    // One descriptor for both.
    let (reader, writer) = io::pipe().unwrap();
    let mut command = script.clone();
    command.output(Output::fd(writer));
    for _ in 0..2 {
        let job = world.spawn(&command);
        has_no_log(&mut world, job);
        let report = world.finish(job);
        assert!(report.exit.success() && report.output_bytes == 0, "{report:?}");
    }
    drop(command);
    assert_eq!(read(reader), "to output\nto error\n".repeat(2));
    // One for each.
    let ((output, to_output), (error, to_error)) = (io::pipe().unwrap(), io::pipe().unwrap());
    let mut command = script.clone();
    command.output(Output::fds(to_output, to_error)).keep_log(true);
    let job = world.spawn(&command);
    world.finish(job);
    drop(command);
    assert_eq!((read(output), read(error)), ("to output\n".to_owned(), "to error\n".to_owned()));
    assert_eq!(world.footprint().log_files, before);
}

#[test]
fn output_that_is_inherited_goes_where_the_hosts_own_goes() {
    const MARK: &str = "JOBWORKER_TEST_INHERITS";
    if std::env::var_os(MARK).is_some() {
        let Some(mut world) = World::new() else { return };
        let mut script = sh("echo job to output; echo job to error >&2");
        let job = world.spawn(script.output(Output::Inherit));
        has_no_log(&mut world, job);
        assert!(world.finish(job).exit.success());
        eprintln!("the host is done");
        return;
    }
    let name = "stdio::output_that_is_inherited_goes_where_the_hosts_own_goes";
    let mut again = std::process::Command::new(std::env::current_exe().unwrap());
    let skips = Elsewhere::told_by(&mut again);
    let run = again.args([name, "--exact", "--nocapture"]).env(MARK, "1").output().unwrap();
    skips.count(name);
    let (output, error) =
        (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{output}{error}");
    if !error.contains("the host is done") {
        // It has said why.
        eprintln!("{error}");
        return;
    }
    assert!(output.contains("job to output\n") && !output.contains("job to error"), "{output}");
    assert!(error.contains("job to error\n") && !error.contains("job to output"), "{error}");
}

/// The descriptors above the standard streams that a job has, each with the name of its file.
#[track_caller]
fn passed(world: &mut World, command: &mut Command) -> Vec<(RawFd, String)> {
    // What the shell reads the directory by is closed when the loop begins.
    let script = "for fd in /proc/$$/fd/*; do
            if [ -h $fd ] && [ ${fd##*/} -gt 2 ]; then printf '%s ' ${fd##*/}; readlink $fd; fi
        done";
    let (text, report) = world.run(command.args(["-c", script]));
    assert!(report.exit.success(), "{text}");
    let parse = |line: &str| {
        let (number, name) = line.split_once(' ').unwrap();
        (number.parse().unwrap(), name.rsplit('/').next().unwrap().to_owned())
    };
    let mut passed: Vec<_> = text.lines().map(parse).collect();
    passed.sort();
    passed
}

#[test]
fn a_job_has_exactly_the_descriptors_that_it_was_given_under_their_numbers() {
    if !alone!() {
        return;
    }
    for bounded in [BoundedSpawns::None, BoundedSpawns::All] {
        let Some(mut world) = World::with(|config| _ = config.bounded_spawns(bounded)) else {
            return;
        };
        let dir = world.place.dir.path().to_owned();
        let open = |name: &str| File::create(dir.join(name)).unwrap();
        // What exec does not close, as other code in a host may have it.
        let leaky = open("leaky");
        let _leaky: Vec<_> = (0..30).map(|_| rustix::io::dup(&leaky).unwrap()).collect();
        let before = world.footprint();
        let shell = || Command::new("/bin/sh").env("PATH", "/usr/bin:/bin").clone();
        assert_eq!(passed(&mut world, &mut shell()), []);
        // With a gap below, between and, as the host has others open, above.
        let mut command = shell();
        command.pass_fd(5, open("five")).pass_fd(9, open("nine")).pass_fd(6, open("gone"));
        command.pass_fd(6, open("six"));
        let expected = [(5, "five"), (6, "six"), (9, "nine")];
        let expected = expected.map(|(number, name)| (number, name.to_owned()));
        for _ in 0..2 {
            assert_eq!(passed(&mut world, &mut command.clone()), expected);
        }
        drop(command);
        // Every number of one in the host is that of another in the job.
        let files: Vec<File> = (0..20).map(|index| open(&index.to_string())).collect();
        let numbers: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
        let mut command = shell();
        let mut expected = Vec::new();
        for (index, file) in files.into_iter().enumerate() {
            let number = numbers[(index + 7) % numbers.len()];
            command.pass_fd(number, file);
            expected.push((number, index.to_string()));
        }
        expected.sort();
        assert_eq!(passed(&mut world, &mut command), expected);
        drop(command);
        // The same file twice, a high number, and where the host may have something else.
        let file = open("both");
        let again = file.try_clone().unwrap();
        let mut command = shell();
        command.pass_fd(3, file).pass_fd(600, again);
        let both = || "both".to_owned();
        assert_eq!(passed(&mut world, &mut command), [(3, both()), (600, both())]);
        drop(command);
        // One that is not below the limit of the host's open files.
        let error = world.try_spawn(shell().pass_fd(1 << 30, open("high"))).unwrap_err();
        let Error::Spawn(SpawnError::Failed { stage: Stage::Descriptors, .. }) = &error else {
            panic!("{error:?}")
        };
        assert!(error.to_string().contains("RLIMIT_NOFILE"), "{error}");
        let error = world.try_spawn(shell().pass_fd(2, open("low"))).unwrap_err();
        assert!(matches!(error, Error::Spawn(SpawnError::InvalidCommand { .. })), "{error:?}");
        world.transcripts.clear();
        assert_eq!(world.footprint(), before);
    }
}

#[test]
fn a_listening_socket_is_handed_to_a_program_as_systemd_would() {
    let Some(mut world) = World::new() else { return };
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = sh("export LISTEN_PID=$$; exec \"$@\"");
    command.args(["sh", "/bin/sh", "-c"]);
    command.arg("[ $LISTEN_PID = $$ ] && [ $LISTEN_FDS = 1 ] && readlink /proc/$$/fd/3");
    command.env("LISTEN_FDS", "1").pass_fd(3, socket);
    let (text, report) = world.run(&command);
    assert!(report.exit.success() && text.starts_with("socket:["), "{text}");
}
