//! The examples do what their help says. They are run as a user would run them.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::retry_on_intr;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use rustix::pty::{OpenptFlags, openpt, ptsname, unlockpt};
use rustix::termios::Winsize;

use crate::skips::skip;
use crate::support::{PATIENCE, Place, cgroup_mount, directories, is_alive, markers};

/// An example that runs, or has run, in a place of the test's own.
pub(crate) struct Example {
    pub(crate) child: Child,
    pub(crate) place: Place,
}

/// How an example has ended, and what it has printed.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
    place: Place,
}

/// The program of an example. `cargo test` builds it, unless it is told which targets to test, as
/// with `--test it`.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let test = std::env::current_exe().unwrap();
    let program = test.parent()?.parent()?.join("examples").join(name);
    if !program.exists() {
        skip(format_args!("{name} is not built (cargo build --examples --all-features)"));
        return None;
    }
    Some(program)
}

impl Example {
    /// Starts `run` with its standard output in a pipe, or in a file.
    fn run(words: &[&str], piped: bool) -> Option<Self> {
        let place = Place::new();
        let (parent, logs) = (place.cgroup_or_skip()?, place.logs());
        let mut command = Command::new(program("run")?);
        command.arg("--cgroup-parent").arg(parent).arg("--log-dir").arg(logs).args(words);
        Some(Self::start(command, place, piped))
    }

    /// Starts `concurrent`, whose log is in the place.
    fn concurrent(words: &[&str], piped: bool) -> Option<Self> {
        let place = Place::new();
        place.cgroup_or_skip()?;
        let mut command = Command::new(program("concurrent")?);
        command.args(words);
        Some(Self::start(command, place, piped))
    }

    pub(crate) fn start(command: Command, place: Place, piped: bool) -> Self {
        Self::start_reading(Stdio::null(), command, place, piped)
    }

    /// Like [`start`](Self::start), with something on standard input.
    pub(crate) fn start_reading(
        stdin: impl Into<Stdio>,
        mut command: Command,
        place: Place,
        piped: bool,
    ) -> Self {
        let file = |name: &str| File::create(place.dir.path().join(name)).unwrap();
        let stdout = if piped { Stdio::piped() } else { file("stdout").into() };
        command.env("TMPDIR", place.logs()).stdin(stdin).stdout(stdout).stderr(file("stderr"));
        let child = command.spawn().unwrap();
        Self { child, place }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits for the next line on standard output.
    pub(crate) fn line(&mut self) -> String {
        let pipe = self.child.stdout.as_mut().unwrap();
        let (mut line, mut byte) = (Vec::new(), [0]);
        while !line.ends_with(b"\n") {
            assert_eq!(
                patiently(&mut [PollFd::new(pipe, PollFlags::IN)]),
                1,
                "no line was printed"
            );
            assert_eq!(pipe.read(&mut byte).unwrap(), 1, "standard output was closed");
            line.extend(byte);
        }
        String::from_utf8(line).unwrap()
    }

    pub(crate) fn close_stdout(&mut self) {
        drop(self.child.stdout.take());
    }

    /// Waits for the end.
    pub(crate) fn end(mut self) -> Ended {
        let pidfd = pidfd_open(self.pid(), PidfdFlags::empty()).unwrap();
        let ended = patiently(&mut [PollFd::new(&pidfd, PollFlags::IN)]) == 1;
        if !ended {
            self.child.kill().unwrap();
        }
        let status = self.child.wait().unwrap();
        let read = |name| fs::read(self.place.dir.path().join(name)).unwrap_or_default();
        let stderr = String::from_utf8(read("stderr")).unwrap();
        assert!(ended, "it did not end; it printed: {stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
        Ended { status, stdout: read("stdout"), stderr, place: self.place }
    }
}

pub(crate) fn patiently(fds: &mut [PollFd<'_>]) -> usize {
    let timeout = Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
    retry_on_intr(|| poll(fds, Some(&timeout))).unwrap()
}

/// Whether this process, and so every example that it starts, ignores a signal, as it ignores
/// SIGHUP under nohup.
fn is_ignored(signal: Signal) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap() >> (signal.as_raw() - 1) & 1 == 1
}

impl Ended {
    #[track_caller]
    pub(crate) fn expect(self, code: i32, stdout: &[u8]) -> Self {
        assert_eq!(self.status.code(), Some(code), "{:?}: {}", self.status.signal(), self.stderr);
        assert!(
            self.stdout == stdout,
            "printed {:?}: {}",
            String::from_utf8_lossy(&self.stdout),
            self.stderr
        );
        self.expect_nothing_left()
    }

    #[track_caller]
    pub(crate) fn expect_nothing_left(self) -> Self {
        assert_eq!(
            directories(self.place.cgroup.as_ref().unwrap()),
            Vec::<PathBuf>::new(),
            "a cgroup was left"
        );
        assert_eq!(
            markers(self.place.cgroup.as_ref().unwrap()),
            Vec::<PathBuf>::new(),
            "a marker was left"
        );
        assert_eq!(fs::read_dir(self.place.logs()).unwrap().count(), 0, "a log was left");
        self
    }

    #[track_caller]
    fn expect_said(&self, what: &str) {
        assert!(self.stderr.contains(what), "{what:?} is not in: {}", self.stderr);
    }

    /// What follows a name at the beginning of each line of standard error.
    fn said_after(&self, name: &str) -> Vec<&str> {
        self.stderr
            .lines()
            .filter_map(|line| line.trim_start().strip_prefix(name))
            .map(str::trim)
            .collect()
    }
}

/// What follows a name at the beginning of the only line of standard error that has it.
#[track_caller]
fn only<'a>(ended: &'a Ended, name: &str) -> &'a str {
    let found = ended.said_after(name);
    assert_eq!(found.len(), 1, "{name:?} in {}", ended.stderr);
    found[0]
}

#[test]
fn output_appears_byte_for_byte_and_the_status_comes_twice() {
    let script = r"printf 'a\000\377\r\n'; printf err >&2; seq 20000; printf end; exit 3";
    let Some(run) = Example::run(&["sh", "-c", script], false) else { return };
    let numbers: String = (1..=20_000).map(|number| format!("{number}\n")).collect();
    let expected = [b"a\x00\xff\r\nerr".as_slice(), numbers.as_bytes(), b"end"].concat();
    let ended = run.end().expect(3, &expected);
    assert_eq!(ended.said_after("Running"), ["true", "false"]);
    // There is none while the job runs.
    assert_eq!(ended.said_after("ExitCode"), ["3"]);
    let ids = ended.said_after("ID");
    let cgroup = ended.place.cgroup.as_ref().unwrap().join(ids[0]);
    let cgroups = ended.said_after("Cgroup");
    assert!(cgroups[0].starts_with(&format!("{}.", cgroup.display())), "{cgroups:?}");
    assert_eq!(cgroups[0], cgroups[1]);
    assert!(!ended.stderr.contains("Stopped"), "{}", ended.stderr);
}

#[test]
fn output_appears_as_it_is_written() {
    // The job goes on only when a signal says that its line has arrived. The sleep that it waits
    // for ignores that signal from the start.
    let script = "trap '' TERM; sleep 1000 & trap 'echo two; exit 4' TERM; echo one; wait";
    let Some(mut run) = Example::run(&["sh", "-c", script], true) else { return };
    assert_eq!(run.line(), "one\n");
    run.signal(Signal::TERM);
    assert_eq!(run.line(), "two\n");
    run.end().expect(4, b"").expect_said("Stopped job");
}

#[test]
fn the_exit_status_tells_how_the_job_ended_or_why_it_could_not_start() {
    for (words, code, said) in [
        (vec!["true"], 0, "Job Status"),
        (vec!["sh", "-c", "exit 255"], 255, "ExitCode 255"),
        (vec!["sh", "-c", "kill -KILL $$"], 137, "SIGKILL"),
        (vec!["/etc/passwd"], 126, "run: cannot start \"/etc/passwd\""),
        (vec!["/"], 126, "run: cannot start \"/\""),
        (vec!["no-such-program"], 127, "run: cannot start \"no-such-program\""),
        (vec!["--no-such-option", "true"], 125, "--no-such-option"),
        (vec!["--grace", "soon", "true"], 125, "soon"),
        (vec!["--memory-high", "12Q", "true"], 125, "12Q"),
        (vec!["--cpu-weight", "10001", "true"], 125, "10001"),
        (vec!["--no-cgroup", "true"], 125, "--no-cgroup"),
        (vec![], 125, "Usage"),
    ] {
        let Some(run) = Example::run(&words, false) else { return };
        run.end().expect(code, b"").expect_said(said);
    }
}

#[test]
fn everything_after_the_command_belongs_to_it() {
    let Some(run) = Example::run(&["echo", "--timeout", "5", "-x", "--", "--help"], false) else {
        return;
    };
    run.end().expect(0, b"--timeout 5 -x -- --help\n");
}

#[test]
fn a_signal_stops_all_of_a_job_that_ignores_it() {
    let hangup = if is_ignored(Signal::HUP) { None } else { Some(Signal::HUP) };
    for signal in [Signal::TERM, Signal::INT].into_iter().chain(hangup) {
        let script =
            "trap '' TERM INT HUP; sleep 1000 & setsid sleep 1000 & echo $$ $!; wait; sleep 1000";
        let Some(mut run) = Example::run(&["--grace", "0.3", "sh", "-c", script], true) else {
            return;
        };
        let pids: Vec<u32> =
            run.line().split_whitespace().map(|pid| pid.parse().unwrap()).collect();
        run.signal(signal);
        let ended = run.end().expect(137, b"");
        assert_eq!(only(&ended, "Stopped job"), ended.said_after("ID")[0]);
        for pid in pids {
            assert!(!is_alive(pid), "{pid} is still running");
        }
    }
}

#[test]
fn a_second_interrupt_kills_at_once() {
    // A wait for the end of this grace period would time out the test.
    let script = "trap '' TERM; sleep 1000 & trap 'echo told' TERM; echo ready; wait; wait";
    let Some(mut run) = Example::run(&["--grace", "100000", "sh", "-c", script], true) else {
        return;
    };
    assert_eq!(run.line(), "ready\n");
    run.signal(Signal::INT);
    assert_eq!(run.line(), "told\n");
    run.signal(Signal::INT);
    run.end().expect(137, b"").expect_said("Stopped job");
}

#[test]
fn a_time_limit_stops_the_job_with_and_without_a_cgroup() {
    let Some(run) = Example::run(&["--timeout", "0.2", "sleep", "1000"], false) else { return };
    run.end().expect(143, b"").expect_said("at its time limit");
    let (place, Some(program)) = (Place::new(), program("run")) else { return };
    let mut command = Command::new(program);
    command.args(["--no-cgroup", "--timeout", "0.2", "sleep", "1000"]);
    let ended = Example::start(command, place, false).end().expect(143, b"");
    assert!(ended.said_after("Cgroup").is_empty(), "{}", ended.stderr);
}

#[test]
fn the_log_is_left_behind_only_if_asked_for() {
    let Some(run) = Example::run(&["--keep-log", "echo", "kept"], false) else { return };
    let ended = run.end();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    assert_eq!(fs::read(ended.said_after("Log")[0]).unwrap(), b"kept\n");
}

#[test]
fn a_limit_is_kept_or_refused_with_the_name_of_the_controller() {
    let Some(run) = Example::run(&["--cpu-weight", "50", "echo", "limited"], false) else { return };
    let controllers =
        run.place.cgroup.as_ref().unwrap().parent().unwrap().join("cgroup.subtree_control");
    if fs::read_to_string(controllers)
        .unwrap()
        .split_whitespace()
        .any(|controller| controller == "cpu")
    {
        skip("the cpu controller is available");
        run.end();
        return;
    }
    run.end().expect(125, b"").expect_said("the cpu controller is not available");
}

#[test]
fn whoever_stops_reading_stops_the_job() {
    let script = "while :; do echo y; done";
    let run = Example::run(&["sh", "-c", script], true);
    let concurrent = ["", "--threads", "--tasks"].map(|kind| {
        let words = [kind, "3", "sh", "-c", script];
        Example::concurrent(&words[usize::from(kind.is_empty())..], true)
    });
    for example in [run].into_iter().chain(concurrent) {
        let Some(mut example) = example else { return };
        assert!(example.line().ends_with("y\n"));
        example.close_stdout();
        example.end().expect(141, b"");
    }
}

#[test]
fn a_reader_that_does_not_read_does_not_keep_a_signal_waiting() {
    // The job holds a FIFO open, so that the test notices its end without reading standard output.
    let place = Place::new();
    let (Some(program), Some(parent)) = (program("run"), place.cgroup_or_skip()) else { return };
    let alive = place.dir.path().join("alive");
    rustix::fs::mknodat(CWD, &alive, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let mut held = File::from(
        rustix::fs::open(&alive, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()).unwrap(),
    );
    let mut command = Command::new(program);
    command
        .arg("--cgroup-parent")
        .arg(parent)
        .args(["sh", "-c", "exec 3>\"$0\"; exec yes"])
        .arg(&alive);
    let mut run = Example::start(command, place, true);
    assert_eq!(run.line(), "y\n");
    // There is no event for a full pipe, so the test polls. It is full when its write end is not
    // writable, however few bytes are in each of its pages.
    let writer =
        File::options().write(true).open(format!("/proc/{}/fd/1", run.child.id())).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while retry_on_intr(|| {
        poll(&mut [PollFd::new(&writer, PollFlags::OUT)], Some(&Timespec::default()))
    })
    .unwrap()
        > 0
    {
        assert!(Instant::now() < deadline, "the pipe was not filled");
        std::thread::yield_now();
    }
    drop(writer);
    run.signal(Signal::TERM);
    assert_eq!(patiently(&mut [PollFd::new(&held, PollFlags::IN)]), 1, "the job was not stopped");
    assert_eq!(held.read(&mut [0]).unwrap(), 0);
    run.close_stdout();
    run.end().expect(141, b"").expect_said("Stopped job");
}

#[test]
fn every_reader_prints_every_line_under_its_number() {
    for kind in ["--quiet", "--threads", "--tasks"] {
        let words = [kind, "3", "printf", r"one\n\377\nend"];
        let words = if kind == "--quiet" { &words[1..] } else { &words[..] };
        let Some(run) = Example::concurrent(words, false) else { return };
        let ended = run.end();
        let mut lines: Vec<&[u8]> = ended.stdout.split_inclusive(|byte| *byte == b'\n').collect();
        lines.sort();
        let mut expected = Vec::new();
        for number in 1..=3 {
            for line in [b"end\n".as_slice(), b"one\n", b"\xff\n"] {
                expected.push([format!("Reader {number}: ").as_bytes(), line].concat());
            }
        }
        assert_eq!(lines, expected, "{kind}");
        assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
        ended.expect_nothing_left();
    }
}

#[test]
fn threads_and_tasks_get_the_same_bytes() {
    for (kind, name) in [("--threads", "thread"), ("--tasks", "task")] {
        let words = [kind, "100", "--quiet", "seq", "10000"];
        let Some(run) = Example::concurrent(&words, false) else { return };
        let ended = run.end().expect(0, b"");
        assert_eq!(only(&ended, &format!("Reader {name}s")), "100");
        assert_eq!(only(&ended, &format!("Bytes per {name}")), "48894");
        assert_eq!(only(&ended, "Bytes in all"), "4889400");
        let threads: usize = only(&ended, "Threads").parse().unwrap();
        assert_eq!(threads > 100, name == "thread", "{threads}");
        assert!(only(&ended, "Same bytes").starts_with("yes"), "{}", ended.stderr);
    }
}

/// Standard output is a pipe that nobody reads: the readers that print block, and no signal waits.
#[test]
fn a_second_signal_gives_up_what_readers_on_threads_cannot_print() {
    for kind in ["--threads", "--tasks"] {
        let words = [kind, "3", "sh", "-c", "yes | head -c 300000; echo >&2; exec sleep 1000"];
        let Some(mut run) = Example::concurrent(&words, true) else { return };
        assert_eq!(run.line().split(": ").nth(1), Some("y\n"));
        // The job is stopped by the first one. Any other gives up once that has ended.
        let pidfd = pidfd_open(run.pid(), PidfdFlags::empty()).unwrap();
        let deadline = Instant::now() + PATIENCE;
        let moment = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
        while retry_on_intr(|| poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&moment)))
            .unwrap()
            == 0
        {
            assert!(Instant::now() < deadline, "{kind}: the signals were not obeyed");
            run.signal(Signal::INT);
        }
        let ended = run.end();
        assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
        assert!(only(&ended, "Same bytes").starts_with("yes"), "{}", ended.stderr);
        ended.expect_nothing_left();
    }
}

#[test]
fn a_hundred_tails_on_one_thread_get_the_same_bytes() {
    let Some(run) = Example::concurrent(&["100", "--quiet", "seq", "10000"], false) else { return };
    let ended = run.end().expect(0, b"");
    assert_eq!(only(&ended, "Tails"), "100");
    assert_eq!(only(&ended, "Bytes per tail"), "48894");
    assert_eq!(only(&ended, "Bytes in all"), "4889400");
    assert_eq!(only(&ended, "Threads"), "1");
    assert!(only(&ended, "Same bytes").starts_with("yes"), "{}", ended.stderr);
    for name in ["Open fds", "RSS per tail", "Wake-ups", "CPU time"] {
        only(&ended, name);
    }
}

#[test]
fn an_interrupt_stops_what_the_tails_follow_and_the_table_is_printed() {
    let Some(mut run) = Example::concurrent(&["2", "sh", "-c", "echo ready; sleep 1000"], true)
    else {
        return;
    };
    assert!(run.line().ends_with(": ready\n"));
    run.signal(Signal::INT);
    let ended = run.end();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    assert_eq!(only(&ended, "Bytes per tail"), "6");
}

#[test]
fn the_report_is_one_json_object_or_a_table() {
    let Some(run) = Example::run(&["--report=json", "sh", "-c", "echo four; exit 3"], false) else {
        return;
    };
    let ended = run.end().expect(3, b"four\n");
    let line =
        ended.stderr.lines().find(|line| line.starts_with('{')).expect("a line with the report");
    let report: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!((report["exit_code"].as_i64(), report["output_bytes"].as_u64()), (Some(3), Some(5)));
    assert!(report["wall_seconds"].as_f64().unwrap() > 0.0 && report["cpu"].is_object(), "{line}");

    let Some(run) = Example::run(&["--report", "sh", "-c", "kill -KILL $$"], false) else { return };
    let ended = run.end().expect(137, b"");
    assert!(
        ended.stderr.contains("Report\n") && ended.stderr.contains("SIGKILL"),
        "{}",
        ended.stderr
    );
}

/// Each flag for a limit, with a value that is accepted, one that is not, and the interface file.
const LIMIT_FLAGS: [(&str, &str, &str, &str); 21] = [
    ("--cpu-weight", "5", "0", "cpu.weight"),
    ("--cpu-weight-nice", "5", "20", "cpu.weight.nice"),
    ("--cpu-max", "20%", "20", "cpu.max"),
    ("--cpu-max-burst", "5ms", "5 parsecs", "cpu.max.burst"),
    ("--cpuset-cpus", "0", "0-", "cpuset.cpus"),
    ("--cpuset-mems", "0", "a", "cpuset.mems"),
    ("--memory-min", "4K", "-1", "memory.min"),
    ("--memory-low", "4K", "1.5M", "memory.low"),
    ("--memory-high", "100M", "12Q", "memory.high"),
    ("--memory-max", "100M", "M", "memory.max"),
    ("--memory-swap-max", "1M", "1MM", "memory.swap.max"),
    ("--memory-zswap-max", "1M", "", "memory.zswap.max"),
    ("--io-weight", "5", "10001", "io.weight"),
    ("--io-weight", "8:0=5", "8=5", "io.weight"),
    ("--io-max", "8:0=rbps:1M", "8:0=speed:1", "io.max"),
    ("--io-latency", "8:0=5ms", "8:0=0", "io.latency"),
    ("--pids-max", "5", "many", "pids.max"),
    ("--hugetlb", "3MB=4M", "4M", "hugetlb.3MB.max"),
    ("--cgroup-max-depth", "2", "-1", "cgroup.max.depth"),
    ("--cgroup-max-descendants", "2", "4294967295", "cgroup.max.descendants"),
    ("--limit", "misc.max=none 1", "../memory.max=1", "misc.max"),
];

#[test]
fn a_limit_that_cannot_be_enforced_is_named_by_its_file() {
    let available = fs::read_to_string(cgroup_mount().unwrap().join("cgroup.controllers")).unwrap();
    for (flag, good, _, file) in LIMIT_FLAGS {
        // A hybrid system has this controller, and a test should not enable it from the root down.
        if flag == "--hugetlb" && std::env::var_os("JOBWORKER_VM").is_none() {
            continue;
        }
        let Some(run) = Example::run(&[flag, good, "true"], false) else { return };
        // With its controller available, most limits can be enforced.
        let controller = file.split('.').next().unwrap();
        let possible =
            controller == "cgroup" || available.split_whitespace().any(|name| name == controller);
        let ended = run.end();
        let ended =
            if ended.status.success() { ended.expect(0, b"") } else { ended.expect(125, b"") };
        assert!(
            possible || !ended.status.success(),
            "{flag} {good} was accepted without its controller"
        );
        assert!(
            ended.status.success() || ended.stderr.contains(file),
            "{flag} {good}: {}",
            ended.stderr
        );
    }
}

#[test]
fn a_wrong_value_names_its_flag() {
    for (flag, _, bad, _) in LIMIT_FLAGS {
        let words = [flag, bad];
        let Some(run) = Example::run(&[words[0], words[1], "true"], false) else { return };
        let ended = run.end().expect(125, b"");
        let named = format!("invalid value '{}' for '{}", words[1], words[0]);
        assert!(ended.stderr.contains(&named), "{words:?}: {}", ended.stderr);
    }
}

fn pressure(words: &[&str]) -> Option<Example> {
    let place = Place::new();
    place.cgroup_or_skip()?;
    let mut command = Command::new(program("pressure")?);
    command.args(words);
    Some(Example::start(command, place, true))
}

#[test]
fn pressure_prints_lines_and_ends_with_its_job() {
    let script = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; exit 4";
    let Some(mut run) = pressure(&["sh", "-c", script]) else { return };
    let line = run.line();
    assert!(line.contains("cpu some") && line.contains("memory some"), "{line}");
    run.end().expect(4, b"");
}

#[test]
fn pressure_is_drawn_on_a_terminal_of_any_size() {
    for columns in [0, 1, 200] {
        let place = Place::new();
        let (Some(_), Some(program)) = (place.cgroup_or_skip(), program("pressure")) else {
            return;
        };
        let near = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        unlockpt(&near).unwrap();
        // Not as the controlling terminal of this process, which a hangup would then kill.
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let far =
            rustix::fs::open(ptsname(&near, Vec::new()).unwrap(), flags, Mode::empty()).unwrap();
        let size = Winsize { ws_row: columns / 2, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&near, size).unwrap();
        let mut command = Command::new(program);
        command
            .args(["sh", "-c", "echo a line; sleep 0.6; exit 4"])
            .env("TMPDIR", place.logs())
            .stdout(far);
        command.stdin(Stdio::null()).stderr(File::create(place.dir.path().join("stderr")).unwrap());
        let child = command.spawn().unwrap();
        // Closes the last descriptor of the terminal besides the child's.
        drop(command);
        let mut shown = Vec::new();
        // The read ends with an error once nobody has the other side open.
        let _ = File::from(near).read_to_end(&mut shown);
        let ended = Example { child, place }.end().expect(4, b"");
        let shown = String::from_utf8_lossy(&shown);
        // One column is too narrow for anything; it just must not fail.
        let drawn = shown.contains("\x1b[") && shown.contains("a line");
        assert!(drawn || columns == 1, "{columns} columns: {shown:?}: {}", ended.stderr);
    }
}

#[test]
fn a_signal_stops_the_job_whose_pressure_is_shown() {
    let Some(mut run) = pressure(&["sleep", "1000"]) else { return };
    run.line();
    run.signal(Signal::TERM);
    run.end().expect(143, b"");
}
