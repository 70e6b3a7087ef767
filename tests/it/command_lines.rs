//! The command lines of the examples: what they take, what they say to somebody at a shell, and how
//! they behave in a terminal, with and without a cgroup.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};
use std::time::Instant;

use jobworker::{
    Capabilities, Command, JobId, Output, Position, Stdin, TailId, Terminal, Token, Verdict,
};
use rustix::fs::{CWD, FileType, Mode};

use crate::examples::{Ended, Example, program};
use crate::support::{PATIENCE, Place, World, directories};

/// The names by which the library speaks to hosts, and nobody else.
const API: [&str; 6] =
    ["Config", "Containment", "Reactor", "Command::", "Limits::", "cgroup_parent"];

/// Runs an example without a cgroup, which everybody can.
fn without_cgroup(name: &str, words: &[&str]) -> Option<Ended> {
    let mut command = Process::new(program(name)?);
    command.args(words);
    Some(Example::start(command, Place::new(), false).end())
}

/// Runs `run` without a cgroup, with this on standard input.
fn run_reading(stdin: &[u8], words: &[&str]) -> Option<Ended> {
    let place = Place::new();
    let path = place.dir.path().join("stdin");
    fs::write(&path, stdin).unwrap();
    let mut command = Process::new(program("run")?);
    command.arg("--no-cgroup").args(words);
    let stdin = File::open(path).unwrap();
    Some(Example::start_reading(stdin, command, place, false).end())
}

#[track_caller]
fn speaks_of_flags(text: &str) {
    for name in API {
        assert!(!text.contains(name), "{name} is in: {text}");
    }
}

#[test]
fn what_is_on_standard_input_goes_to_the_job() {
    let Some(ended) = run_reading(b"hello\n", &["cat"]) else { return };
    assert_eq!((ended.status.code(), &*ended.stdout), (Some(0), &b"hello\n"[..]));
    // A terminal of its own changes its output alone.
    let Some(ended) = run_reading(b"hello\n", &["--tty", "cat"]) else { return };
    assert_eq!((ended.status.code(), &*ended.stdout), (Some(0), &b"hello\r\n"[..]));
}

#[test]
fn a_quiet_run_says_nothing_and_a_labelled_one_its_label() {
    let Some(ended) = run_reading(b"", &["--quiet", "--label", "nightly", "echo", "out"]) else {
        return;
    };
    assert_eq!((&*ended.stdout, &*ended.stderr), (&b"out\n"[..], ""));
    let Some(ended) = run_reading(b"", &["--label", "nightly build", "true"]) else { return };
    assert_eq!(ended.stderr.matches("\tLabel\t nightly build\n").count(), 2, "{}", ended.stderr);
}

#[test]
fn the_status_of_a_running_job_has_no_exit_code() {
    let Some(ended) = run_reading(b"", &["true"]) else { return };
    let blocks: Vec<&str> = ended.stderr.split("Job Status").skip(1).collect();
    assert_eq!(blocks.len(), 2, "{}", ended.stderr);
    assert!(blocks[0].contains("Running\t true") && !blocks[0].contains("ExitCode"));
    assert!(blocks[1].contains("Running\t false") && blocks[1].contains("ExitCode 0"));
}

#[test]
fn a_report_goes_to_a_file_and_nothing_is_started_where_it_cannot() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("report");
    let path = file.to_str().unwrap();
    let words = ["--quiet", "--report-file", path, "sh", "-c", "exit 3"];
    let Some(ended) = run_reading(b"", &words) else { return };
    assert_eq!((ended.status.code(), &*ended.stderr), (Some(3), ""));
    let report: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(report["exit_code"], 3);
    run_reading(b"", &["--report-file", path, "--report=human", "true"]);
    assert!(fs::read_to_string(&file).unwrap().starts_with("Report\n"));

    let started = dir.path().join("started");
    let missing = dir.path().join("missing/report");
    let words = ["--report-file", missing.to_str().unwrap(), "touch", started.to_str().unwrap()];
    let Some(ended) = run_reading(b"", &words) else { return };
    assert_eq!(ended.status.code(), Some(125), "{}", ended.stderr);
    assert!(ended.stderr.contains("cannot write the report to"), "{}", ended.stderr);
    assert!(!started.exists());
}

#[test]
fn all_of_them_do_without_a_cgroup_and_say_what_it_takes_in_the_words_of_their_flags() {
    for (name, words) in [
        ("run", &["--no-cgroup", "true"][..]),
        ("concurrent", &["--no-cgroup", "3", "true"]),
        ("concurrent", &["--no-cgroup", "--threads", "3", "true"]),
        ("pressure", &["--no-cgroup", "true"]),
        ("doctor", &["--no-cgroup"]),
        ("blocking", &["--no-cgroup", "true"]),
    ] {
        let Some(ended) = without_cgroup(name, words) else { return };
        assert_eq!(ended.status.code(), Some(0), "{name}: {}", ended.stderr);
        speaks_of_flags(&ended.stderr);
    }
    for (name, words) in [
        ("run", &["--cgroup-parent", "/proc", "true"][..]),
        ("concurrent", &["--cgroup-parent", "/proc", "3", "true"]),
        ("concurrent", &["--cgroup-parent", "/proc", "--tasks", "3", "true"]),
        ("pressure", &["--cgroup-parent", "/proc", "true"]),
        ("blocking", &["--cgroup-parent", "/proc", "true"]),
    ] {
        let Some(ended) = without_cgroup(name, words) else { return };
        assert!(!ended.status.success());
        for part in ["/proc is not in a cgroup2", "--cgroup-parent DIR", "--no-cgroup"] {
            assert!(ended.stderr.contains(part), "{name}: {}", ended.stderr);
        }
        speaks_of_flags(&ended.stderr);
    }
    for name in ["run", "pressure"] {
        let words = ["--no-cgroup", "--pids-max", "3", "true"];
        let Some(ended) = without_cgroup(name, &words) else { return };
        assert_eq!(ended.status.code(), Some(125), "{name}: {}", ended.stderr);
        assert!(ended.stderr.contains("limits need a cgroup"), "{}", ended.stderr);
        speaks_of_flags(&ended.stderr);
    }
}

#[test]
fn the_doctor_gives_each_remedy_once_in_80_columns_and_refuses_what_it_does_not_know() {
    let Some(ended) = without_cgroup("doctor", &["--no-cgroup"]) else { return };
    let text = String::from_utf8(ended.stdout).unwrap();
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{line}");
        assert!(!line.contains('\x1b'), "coloured in a file: {line:?}");
    }
    speaks_of_flags(&text);
    let found = Capabilities::probe();
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for check in found.checks.iter().filter(|check| check.verdict != Verdict::Present) {
        assert!(flat.contains(check.name), "{}", check.name);
        let start: String = check.remedy.split(", and pass").next().unwrap().to_owned();
        assert_eq!(flat.matches(&start).count(), 1, "{start}: {text}");
    }

    let Some(ended) = without_cgroup("doctor", &["--no-cgroup", "--json"]) else { return };
    let json: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(json["can_run_jobs"], found.can_run_jobs());
    assert_eq!(json["checks"].as_array().unwrap().len(), found.checks.len());
    speaks_of_flags(&json.to_string());

    let Some(ended) = without_cgroup("doctor", &["--help"]) else { return };
    assert_eq!(ended.status.code(), Some(0));
    assert!(String::from_utf8(ended.stdout).unwrap().contains("Usage: doctor"));
    for words in [&["--jsn"][..], &["one", "two"]] {
        let Some(ended) = without_cgroup("doctor", words) else { return };
        assert_eq!(ended.status.code(), Some(125), "{}", ended.stderr);
    }
}

/// A program in a terminal of its own, which leads the session, and what it has shown.
struct Session {
    world: World,
    job: JobId,
    tail: TailId,
}

impl Session {
    /// Runs a script of `sh`. `$0` is the directory of the examples, `$1` the cgroup for theirs.
    fn new(rows: u16, columns: u16, script: &str) -> Option<Self> {
        let examples: PathBuf = program("run")?.parent().unwrap().to_owned();
        program("pressure")?;
        let mut world = World::new()?;
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(script).arg(examples).arg(world.place.cgroup.as_ref().unwrap());
        command.inherit_env().env("TERM", "xterm").env("LC_ALL", "C.UTF-8");
        command.env("TMPDIR", world.place.logs());
        command.stdin(Stdin::Terminal).output(Output::Terminal(Terminal::new(rows, columns)));
        let job = world.reactor.spawn(&command, Token(0)).unwrap();
        let tail = world.tail(job, Position::Start);
        Some(Self { world, job, tail })
    }

    fn type_keys(&mut self, keys: &[u8]) {
        let input = self.world.reactor.terminal_input(self.job).unwrap();
        assert_eq!(input.try_write(keys).unwrap(), keys.len());
    }

    /// Waits until this is on the terminal, and returns all that was printed on it.
    #[track_caller]
    fn until_shown(&mut self, what: &str) -> String {
        let tail = self.tail;
        self.world.until(&format!("{what:?} is shown"), |world| world.text(tail).contains(what));
        self.world.text(tail)
    }

    /// Waits for the end, and returns all that was printed.
    fn end(mut self) -> String {
        self.world.finish(self.job);
        self.world.text(self.tail)
    }
}

/// Whether the terminal is as it was: `stty -a` was the last to print on it.
#[track_caller]
fn has_its_settings_back(shown: &str) {
    for setting in ["icanon", "echo", "isig", "opost"] {
        assert!(shown.split_whitespace().any(|word| word == setting), "{setting}: {shown}");
    }
}

#[test]
fn a_terminal_gets_the_size_the_keys_and_the_changes_of_the_users() {
    let script = "\"$0/run\" --cgroup-parent \"$1\" --label inner --tty sh -c '
        stty size; read line; echo \"got $line\"; trap \"stty size\" WINCH; echo ready
        while :; do sleep 0.01; done'
        echo \"status $?\"; stty -a";
    let Some(mut session) = Session::new(30, 90, script) else { return };
    session.until_shown("30 90\r\n");
    session.type_keys(b"a line\r");
    session.until_shown("got a line\r\n");
    session.until_shown("ready\r\n");
    session.world.reactor.resize(session.job, 31, 91).unwrap();
    session.until_shown("31 91\r\n");
    // To the job, as all keys are: the terminal of the job makes it a signal.
    session.type_keys(b"\x03");
    let shown = session.end();
    assert!(shown.contains("status 130\r\n") && shown.contains("Label\t inner"), "{shown}");
    assert!(!shown.contains("Stopped job"), "{shown}");
    // The settings are those of before.
    has_its_settings_back(&shown);
}

#[test]
fn the_keys_after_the_escape_character_stop_and_kill() {
    for (key, status) in [(b's', 143), (b'k', 137)] {
        let script = "\"$0/run\" --cgroup-parent \"$1\" --tty sh -c 'echo ready; exec sleep 1000'
            echo \"status $?\"";
        let Some(mut session) = Session::new(24, 80, script) else { return };
        session.until_shown("ready\r\n");
        session.type_keys(&[0x1d, key]);
        let shown = session.end();
        assert!(shown.contains(&format!("status {status}\r\n")), "{shown}");
    }
}

/// Which of the groups of jobs are to be frozen.
fn frozen(parent: &Path) -> Vec<bool> {
    let files = directories(parent).into_iter().map(|path| path.join("cgroup.freeze"));
    files.map(|path| fs::read_to_string(path).unwrap_or_default().trim() == "1").collect()
}

/// A pipe with a name that a job reads from when it is told to.
fn fifo(path: &Path) -> File {
    rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    File::options().read(true).write(true).open(path).unwrap()
}

/// Ctrl-Z stops the example as a shell expects, and its job is frozen until `fg`.
#[test]
fn a_suspended_example_has_frozen_its_job_and_thaws_it_when_it_goes_on() {
    let commands = [
        "\"$0/run\" --cgroup-parent \"$1\"",
        "\"$0/run\" --cgroup-parent \"$1\" --tty",
        "\"$0/concurrent\" --cgroup-parent \"$1\" 1",
        "\"$0/concurrent\" --cgroup-parent \"$1\" --threads 1",
        "\"$0/pressure\" --cgroup-parent \"$1\"",
        "\"$0/run\" --no-cgroup",
        "\"$0/concurrent\" --no-cgroup --tasks 1",
    ];
    let dir = tempfile::tempdir().unwrap();
    for (number, command) in commands.into_iter().enumerate() {
        let path = dir.path().join(number.to_string());
        let mut go_on = fifo(&path);
        let script = format!(
            "set -m
             {command} sh -c 'echo pid $$. the job is ready; read line < {}; echo \"got $line\"'
             echo suspended with $?; read line; fg; echo ended with $?",
            path.display()
        );
        let Some(mut session) = Session::new(24, 80, &script) else { return };
        let parent = session.world.place.cgroup.clone().unwrap();
        session.until_shown("the job is ready");
        let keys: &[u8] = if command.contains("--tty") { b"\x1dz" } else { b"\x1a" };
        session.type_keys(keys);
        session.until_shown("suspended with ");
        session.until_shown("\n");
        let shown = session.world.text(session.tail);
        // By a signal.
        assert!(shown.contains("suspended with 14"), "{command}: {shown}");
        // The group of this test's job, which is not, and that of the example's.
        let has_cgroup = usize::from(!command.contains("--no-cgroup"));
        // There is no event for that here; the request came before anything was shown.
        let deadline = Instant::now() + PATIENCE;
        while frozen(&parent).into_iter().filter(|frozen| *frozen).count() != has_cgroup {
            assert!(Instant::now() < deadline, "{command}: the job is not frozen");
            std::thread::yield_now();
        }
        if has_cgroup == 0 {
            let shown = session.world.text(session.tail);
            let pid = shown.split("pid ").nth(1).unwrap().split('.').next().unwrap();
            let stat = format!("/proc/{pid}/stat");
            while !fs::read_to_string(&stat).unwrap().contains(") T ") {
                assert!(Instant::now() < deadline, "{command}: the job is not stopped");
                std::thread::yield_now();
            }
        }
        go_on.write_all(b"a line\n").unwrap();
        session.type_keys(b"\r");
        let shown = session.end();
        assert!(shown.contains("got a line"), "{command}: {shown}");
        assert!(shown.contains("ended with 0"), "{command}: {shown}");
    }
}

/// The lines of the last picture that was drawn, without escape sequences.
fn last_picture(shown: &str) -> Vec<String> {
    let begin = shown.rfind("\x1b[1m$ ").expect("a picture");
    console::strip_ansi_codes(&shown[begin..])
        .lines()
        .map(|line| line.trim_end_matches('\r').to_owned())
        .collect()
}

#[test]
fn keys_freeze_and_kill_the_job_whose_pressure_is_shown() {
    for (columns, keys) in [(40, b'k'), (80, b's'), (200, 0x03)] {
        // The shell gets the signal of Ctrl-C as well, and goes on.
        let script =
            "trap : INT; CLICOLOR_FORCE=1 \"$0/pressure\" --cgroup-parent \"$1\" --timeout 900 \
                      --cgroup-max-depth 3 sh -c 'printf \"a line %0300d\" 7; exec sleep 1000'
                      echo \"status $?\"; stty -a";
        let Some(mut session) = Session::new(24, columns, script) else { return };
        session.until_shown("running");
        session.until_shown("f freeze");
        session.until_shown("a line");
        session.type_keys(b"f");
        session.until_shown("frozen");
        session.type_keys(&[keys]);
        session.until_shown("status");
        let shown = session.end();
        let picture = last_picture(&shown);
        let ended = if keys == b'k' { "SIGKILL" } else { "SIGTERM" };
        assert!(picture[0].starts_with("$ sh -c") && picture[0].contains(ended), "{picture:#?}");
        assert!(picture[1].starts_with("cgroup.max.depth 3, time 900 s"), "{picture:#?}");
        for (line, name) in picture[3..].iter().zip(["cpu", "memory", "io"]) {
            assert!(line.starts_with(name), "{picture:#?}");
        }
        // Nothing is left of a key, and the next line begins where the picture has ended.
        let end = picture.iter().position(|line| line.starts_with("Job ")).expect("the last line");
        let fits = |line: &String| line.chars().count() < usize::from(columns);
        assert!(picture[..end].iter().all(fits), "{columns}: {picture:#?}");
        assert!(picture[end - 1].starts_with("output a line"), "{picture:#?}");
        assert!(!shown.split("status").next().unwrap().contains("^C"), "{shown}");
        has_its_settings_back(&shown);
    }
}

/// A signal interrupts even calls that do not wait.
#[test]
fn signals_that_arrive_at_every_moment_end_nothing() {
    for name in ["pressure", "run --tty --quiet"] {
        let script = format!(
            "(while kill -WINCH 0; do :; done) & storm=$!
             \"$0/\"{name} --cgroup-parent \"$1\" sh -c 'sleep 2; exit 3'
             echo \"status $?\"; kill -KILL $storm; stty -a"
        );
        let Some(mut session) = Session::new(24, 80, &script) else { return };
        session.until_shown("status");
        let shown = session.end();
        assert!(shown.contains("status 3"), "{name}: {shown}");
        has_its_settings_back(&shown);
    }
}

#[test]
fn help_is_as_wide_as_the_terminal_and_has_its_options_in_groups() {
    for (columns, name) in [(60, "run"), (60, "pressure"), (60, "concurrent"), (60, "doctor")] {
        let script = format!("\"$0/{name}\" --help");
        let Some(session) = Session::new(24, columns, &script) else { return };
        let shown = session.end();
        let text = console::strip_ansi_codes(&shown);
        for line in text.lines() {
            // A name that is longer than that is not broken.
            let fits = line.trim_end().chars().count() <= usize::from(columns);
            assert!(fits || line.split_whitespace().count() <= 3, "{name}: {line}");
        }
        assert!(text.contains("\nWhere:") && text.contains("--no-cgroup"), "{text}");
        assert!(text.contains("\nLimits:") || !["run", "pressure"].contains(&name), "{text}");
    }
}

/// Whoever names no place for jobs gets one, or is told what became of that.
#[test]
fn where_no_cgroup_can_be_made_the_job_runs_without_one_and_that_is_said() {
    let Some(program) = program("run") else { return };
    // A user without any right; whoever runs the tests as one is that already.
    let root = rustix::process::geteuid().is_root();
    let mut words = vec!["setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups"];
    if !root {
        words.clear();
    }
    let logs = Place::new();
    let copy = std::env::temp_dir().join(format!("jobworker-test-run-{}", std::process::id()));
    // The directory of the build may be closed to that user.
    fs::copy(program, &copy).unwrap();
    let copied = copy.to_str().unwrap().to_owned();
    words.extend([&*copied, "sh", "-c", "echo done"]);
    let mut command = Process::new(words[0]);
    command.args(&words[1..]).current_dir("/").stdin(Stdio::null()).env("TMPDIR", "/tmp");
    // Another thread of this process may have been forking while the copy was open for writing.
    let output = loop {
        match command.output() {
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {}
            output => break output,
        }
    };
    fs::remove_file(copy).unwrap();
    drop(logs);
    let output = output.unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    if !root && error.contains("Cgroup") {
        return crate::skips::skip("this user has a cgroup");
    }
    assert!(output.status.success(), "{error}");
    assert_eq!(output.stdout, b"done\n");
    assert!(error.starts_with("run: no cgroup can be made here"), "{error}");
    speaks_of_flags(&error);
}
