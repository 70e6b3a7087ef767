//! The examples `agent` and `keeper`: no job is lost or run twice when the agent is killed, ended
//! or executes itself anew, and the exit of each is known.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use jobworker::{Reactor, Token};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};

use crate::examples::program;
use crate::keeper::await_held;
use crate::support::{Place, directories, is_dead, kernel_keeps_exits, markers, pidfd, sh};

/// An example that prints lines, and is killed when the test fails.
struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// Waits for a line that begins so.
    #[track_caller]
    fn until(&mut self, begin: &str) -> String {
        let mut line = String::new();
        while self.lines.read_line(&mut line).unwrap() > 0 {
            if line.starts_with(begin) {
                return line.trim_end().to_owned();
            }
            line.clear();
        }
        panic!("it has ended before it printed {begin:?}");
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Ends it in order, once it has done what it is at.
    fn end(mut self) {
        self.signal(Signal::TERM);
        assert!(self.child.wait().unwrap().success());
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where an agent works.
struct Site {
    place: Place,
    agent: PathBuf,
}

impl Site {
    fn new() -> Option<Self> {
        let (place, agent) = (Place::new(), program("agent")?);
        place.cgroup_or_skip()?;
        Some(Self { place, agent })
    }

    fn dir(&self) -> PathBuf {
        self.place.dir.path().join("agent")
    }

    fn start(&self, more: &[&str]) -> Running {
        let mut agent = self.begin(more);
        agent.until("agent is here");
        agent
    }

    /// Starts an agent that may have to wait.
    fn begin(&self, more: &[&str]) -> Running {
        let mut command = Command::new(&self.agent);
        command.arg(self.dir()).args(more);
        command.arg("--cgroup-parent").arg(self.place.cgroup.as_ref().unwrap());
        Running::start(command)
    }

    fn enqueue(&self, name: &str, script: &str) {
        let new = self.dir().join("new").join(name);
        fs::write(&new, script).unwrap();
        fs::rename(new, self.dir().join("queue").join(name)).unwrap();
    }

    /// A pipe by which a script is told to go on, and how it waits for that.
    fn gate(&self, name: &str) -> (PathBuf, String) {
        let path = self.place.dir.path().join(name);
        mknodat(CWD, &path, FileType::Fifo, Mode::RWXU, 0).unwrap();
        let wait = format!("read line < {}; echo $line", path.display());
        (path, wait)
    }

    /// The main process of the job that was started last.
    fn mains(&self) -> Vec<OwnedFd> {
        let groups = directories(self.place.cgroup.as_deref().unwrap());
        let members = groups.iter().flat_map(|group| crate::support::members(group));
        members.map(pidfd).collect()
    }

    /// How many files are in a directory of the agent, at any depth.
    fn files(&self, name: &str) -> usize {
        fn count(dir: &Path) -> usize {
            let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
            entries.map(|path| if path.is_dir() { count(&path) } else { 1 }).sum()
        }
        count(&self.dir().join(name))
    }

    fn history(&self) -> Vec<String> {
        let output = Command::new(&self.agent).arg(self.dir()).arg("--history").output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| line.split(" after").next().unwrap().to_owned()).collect()
    }
}

#[test]
fn an_agent_loses_no_job_when_it_is_killed_or_executes_itself_anew() {
    let Some(site) = Site::new() else { return };
    let mut agent = site.start(&[]);
    let (first_gate, first) = site.gate("first");
    let (second_gate, second) = site.gate("second");
    site.enqueue("one", &format!("{first}; exit 3"));
    agent.until("job one is started");
    site.enqueue("short", "exit 5");
    agent.until("job short has finished: exit code 5");
    agent.kill();
    // It waits for the next agent.
    site.enqueue("later", "exit 6");

    let mut agent = site.start(&[]);
    agent.until("job later has finished: exit code 6");
    fs::write(first_gate, "go\n").unwrap();
    let line = agent.until("job one has finished");
    assert!(line.ends_with("exit code 3") || line.ends_with("unknown status"), "{line}");
    site.enqueue("two", &format!("{second}; exit 4"));
    agent.until("job two is started");
    agent.signal(Signal::HUP);
    assert!(agent.until("job two is found").ends_with("Running"));
    agent.until("agent is here");
    fs::write(second_gate, "go\n").unwrap();
    // A child of the process, so for certain.
    agent.until("job two has finished: exit code 4");
    agent.signal(Signal::TERM);
    assert!(agent.child.wait().unwrap().success());

    let names: Vec<String> =
        site.history().iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(names, ["one", "short", "later", "two"], "each once");
    assert_eq!(fs::read_dir(site.dir().join("queue")).unwrap().count(), 0);
    assert_eq!(directories(site.place.cgroup.as_deref().unwrap()), Vec::<PathBuf>::new());
}

#[test]
fn a_new_script_with_the_name_of_a_living_job_is_another_job() {
    let Some(site) = Site::new() else { return };
    let mut agent = site.start(&[]);
    let (gate, wait) = site.gate("gate");
    site.enqueue("one", &format!("{wait}; exit 3"));
    agent.until("job one is started");
    agent.kill();
    site.enqueue("one", "exit 6");

    let mut agent = site.start(&[]);
    agent.until("job one has finished: exit code 6");
    fs::write(gate, "go\n").unwrap();
    agent.until("job one has finished");
    assert_eq!((site.history().len(), site.files("queue"), site.files("starting")), (2, 0, 0));
}

#[test]
fn an_agent_that_dies_between_two_steps_of_a_start_neither_loses_nor_repeats_a_job() {
    let Some(site) = Site::new() else { return };
    site.start(&[]).kill();
    // The job of `a/one` was started, and its file not removed; that of `b/two` was not started.
    let starting = site.dir().join("starting");
    for (dir, name, script) in [("a", "one", "exit 9"), ("b", "two", "exit 5")] {
        fs::create_dir(starting.join(dir)).unwrap();
        fs::write(starting.join(dir).join(name), script).unwrap();
    }
    // Nothing was moved there yet.
    fs::create_dir(starting.join("c")).unwrap();
    let (gate, wait) = site.gate("gate");
    let mut dead = Reactor::with_config(site.place.config().name("agent")).unwrap();
    let mut command = sh(&format!("{wait}; exit 3"));
    dead.spawn(command.survives(true).label("a/one"), Token(0)).unwrap();
    drop(dead);

    let mut agent = site.start(&[]);
    agent.until("job two has finished: exit code 5");
    fs::write(gate, "go\n").unwrap();
    agent.until("job one has finished");
    agent.signal(Signal::TERM);
    agent.child.wait().unwrap();
    assert_eq!(site.history().len(), 2, "{:?}", site.history());
    assert_eq!(fs::read_dir(starting).unwrap().count(), 0);
}

#[test]
fn a_job_that_cannot_be_started_for_now_waits() {
    let Some(site) = Site::new() else { return };
    let mut agent = site.start(&[]);
    let pid = Pid::from_child(&agent.child);
    let before = getrlimit(Resource::Nofile);
    let none = Rlimit { current: Some(0), ..before };
    prlimit(Some(pid), Resource::Nofile, none).unwrap();
    site.enqueue("one", "exit 4");
    agent.until("jobs wait: ");
    prlimit(Some(pid), Resource::Nofile, before).unwrap();
    agent.until("job one has finished: exit code 4");
    assert_eq!((site.history().len(), site.files("queue"), site.files("starting")), (1, 0, 0));
}

#[test]
fn what_is_no_file_is_refused_and_ends_nothing() {
    let Some(site) = Site::new() else { return };
    let mut agent = site.start(&[]);
    let new = site.dir().join("new/dir");
    fs::create_dir(&new).unwrap();
    fs::rename(new, site.dir().join("queue/dir")).unwrap();
    let pipe = site.dir().join("new/pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RWXU, 0).unwrap();
    fs::rename(pipe, site.dir().join("queue/pipe")).unwrap();
    for _ in 0..2 {
        let line = agent.until("/");
        assert!(line.ends_with("is refused: it is no plain file"), "{line}");
    }
    site.enqueue("one", "exit 4");
    agent.until("job one has finished: exit code 4");
}

#[test]
fn an_agent_waits_for_its_name_and_sweeps_up_what_the_dead_have_left() {
    let Some(site) = Site::new() else { return };
    site.start(&[]).kill();
    let first = site.start(&[]);
    let mut second = site.begin(&[]);
    second.until("waiting for the name");
    // One that waits can be ended.
    let mut third = site.begin(&[]);
    third.until("waiting for the name");
    third.signal(Signal::TERM);
    assert!(!third.child.wait().unwrap().success());
    first.kill();
    second.until("agent is here");
    second.until("swept up");
    assert_eq!(markers(site.place.cgroup.as_deref().unwrap()).len(), 2);
}

/// A keeper, by its socket.
fn keeper(socket: &Path) -> Option<Running> {
    let mut command = Command::new(program("keeper")?);
    command.arg(socket).stderr(Stdio::null());
    let mut keeper = Running::start(command);
    keeper.until("keeping descriptors");
    Some(keeper)
}

#[test]
fn an_agent_goes_on_without_its_keeper_and_finds_the_next_one() {
    let Some(site) = Site::new() else { return };
    let socket = site.place.dir.path().join("keeper");
    let flags = ["--keeper", socket.to_str().unwrap()];
    let mut agent = site.start(&flags);
    let (first_gate, first) = site.gate("first");
    site.enqueue("one", &first);
    agent.until("job one is started");
    let Some(running) = keeper(&socket) else { return };
    let (second_gate, second) = site.gate("second");
    site.enqueue("two", &second);
    agent.until("job two is started");
    running.kill();
    site.enqueue("three", "exit 4");
    agent.until("job three has finished: exit code 4");
    let running = keeper(&socket).unwrap();
    let (third_gate, third) = site.gate("third");
    site.enqueue("four", &third);
    agent.until("job four is started");
    for gate in [first_gate, second_gate] {
        fs::write(gate, "go\n").unwrap();
        agent.until("job");
    }
    agent.end();
    await_held(&running.child, 1);
    fs::write(third_gate, "go\n").unwrap();
    let mut agent = site.start(&flags);
    agent.until("job four has finished");
}

#[test]
fn a_keeper_gets_what_another_agent_has_left() {
    let Some(site) = Site::new() else { return };
    let socket = site.place.dir.path().join("keeper");
    let flags = ["--keeper", socket.to_str().unwrap()];
    let mut agent = site.start(&[]);
    let (gate, wait) = site.gate("gate");
    site.enqueue("one", &wait);
    agent.until("job one is started");
    agent.kill();
    let Some(running) = keeper(&socket) else { return };
    site.start(&flags).kill();
    await_held(&running.child, 1);
    fs::write(gate, "go\n").unwrap();
    let mut agent = site.start(&flags);
    agent.until("job one has finished");
    agent.end();
    await_held(&running.child, 0);
}

#[test]
fn with_a_keeper_the_exit_of_what_ends_without_an_agent_is_known() {
    let Some(site) = Site::new() else { return };
    let socket = site.place.dir.path().join("keeper");
    let Some(_keeper) = keeper(&socket) else { return };
    let flags = ["--keeper", socket.to_str().unwrap()];
    let mut agent = site.start(&flags);
    let (gate, wait) = site.gate("gate");
    site.enqueue("one", &format!("{wait}; exit 7"));
    agent.until("job one is started");
    agent.kill();
    let mains = site.mains();
    fs::write(gate, "go\n").unwrap();
    assert!(mains.iter().all(is_dead));

    let mut agent = site.start(&flags);
    let line = agent.until("job one has finished");
    if kernel_keeps_exits() {
        assert!(line.ends_with("exit code 7"), "{line}");
    } else {
        // Unless it was a zombie still.
        assert!(line.ends_with("unknown status") || line.ends_with("exit code 7"), "{line}");
    }
    agent.signal(Signal::TERM);
    agent.child.wait().unwrap();
    assert_eq!(site.history().len(), 1);
}
