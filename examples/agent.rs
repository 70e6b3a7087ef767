//! An agent that may die at any moment: it runs jobs from a queue, which is a directory, and loses
//! none of them when it is killed, crashes or is replaced by a new version.
//!
//! ```sh
//! cargo run --release --example agent -- ~/agent &
//! echo 'for i in $(seq 100); do echo $i; sleep 1; done' > ~/agent/new/count
//! mv ~/agent/new/count ~/agent/queue/ # in one step, so that it is whole
//! kill -KILL %1 # or kill -HUP: the agent executes itself anew
//! cargo run --release --example agent -- ~/agent &
//! cargo run --release --example agent -- ~/agent --history
//! ```
//!
//! # The directory
//! | name | what is there |
//! |---|---|
//! | `new/` | where a file is written before it is moved to `queue` |
//! | `queue/` | scripts, to be run by `sh`: plain files, whose names are those of the jobs |
//! | `starting/` | what has left the queue and is not known to be started, each in a directory |
//! | `log/` | the output of each job, as `<id>.log` |
//! | `history/` | how each job has ended, as `--history` prints it |
//!
//! # What to look at
//! * **No state of its own.** What the agent knows is in its directory, in the records of the jobs
//!   and in the history.
//! * **Exactly once.** A file is moved to `starting/<unique>/<name>` before its job is started, and
//!   removed afterwards. That path is the label of the job: if the agent dies in between, the next
//!   one finds the job with that label, and does not start it again, whatever else has the name. If
//!   it dies within the start, the job is `Interrupted`, which is known: it is ended and started
//!   again.
//! * **A shortage passes.** A job that cannot be started because of a limit waits until something
//!   has ended, or for a second.
//! * **A job is removed last.** When it has finished, its report is in the history already; until
//!   it is removed, every new agent is told of it again.
//! * **The jobs are none of its own.** SIGTERM ends the agent and leaves the jobs running. SIGHUP
//!   executes the program anew: the jobs stay children of the process, and their exit is known for
//!   certain.
//! * **`--keeper`** names the socket of the example `keeper`, by which the exit of a job is known
//!   that ends while there is no agent. Without it, or when it dies, the agent goes on.
//! * **The dead are swept up.** Each agent that was killed leaves a marker in the cgroup tree, and
//!   perhaps more: the next one sweeps.

use std::collections::{HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use jobworker::{Command, Config, Event, Events, Found, History, Reactor, SystemError, Token};
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fs::inotify;
use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

#[path = "common/words.rs"]
mod words;

/// Runs the scripts that are moved into a directory, and loses no job when it dies.
///
/// SIGINT (Ctrl-C) or SIGTERM end the agent and leave its jobs running. SIGHUP executes the program
/// anew.
#[derive(Parser)]
#[command(name = "agent")]
struct Options {
    /// The directory of the agent, which is made if it does not exist.
    dir: PathBuf,
    /// Print how the jobs have ended, and exit.
    #[arg(long)]
    history: bool,
    /// Name of the agent. There is one of each name at a time.
    #[arg(long, default_value = "agent")]
    name: String,
    /// Socket of a keeper, which holds descriptors while there is no agent.
    #[arg(long, value_name = "SOCKET")]
    keeper: Option<PathBuf>,
    /// Cgroup in which those of the jobs are made.
    #[arg(long, value_name = "DIR")]
    cgroup_parent: Option<PathBuf>,
}

// What the loop knows its sources by.
const SIGNALS: u64 = 0;
const QUEUE: u64 = 1;
const REACTOR: u64 = 2;

// The tokens of the reactor.
const JOBS: Token = Token(0);
const SWEEP: Token = Token(1);

/// After which time jobs that wait are tried again.
const RETRY: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    for name in ["", "new", "queue", "starting", "log", "history"] {
        let dir = options.dir.join(name);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        made.with_context(|| dir.display().to_string())?;
    }
    if options.history {
        return print_history(&options.dir.join("history"));
    }
    // Each signal writes a byte, which the loop reads.
    let (mut ending, write_end) = UnixStream::pair()?;
    let (mut renewing, write_anew) = UnixStream::pair()?;
    pipe::register(SIGHUP, write_anew)?;
    // Before the other two, which end it at once as long as it waits for its name.
    let mut agent = Agent::new(&options)?;
    for signal in [SIGINT, SIGTERM] {
        pipe::register(signal, write_end.try_clone()?)?;
    }
    ending.set_nonblocking(true)?;
    renewing.set_nonblocking(true)?;

    let queue = agent.watch()?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let add = |fd: &dyn AsFd, source: u64| {
        epoll::add(&epoll, fd.as_fd(), EventData::new_u64(source), EventFlags::IN)
    };
    add(&ending, SIGNALS)?;
    add(&renewing, SIGNALS)?;
    add(&queue, QUEUE)?;
    add(&agent.reactor, REACTOR)?;
    // What was there before it was watched.
    agent.recover()?;
    agent.start_all()?;
    println!("agent is here");

    let (mut ready, mut events) = (Vec::with_capacity(16), Events::with_capacity(256));
    loop {
        agent.look_for_keeper();
        ready.clear();
        let retry = agent.stalled.then_some(&RETRY);
        match epoll::wait(&epoll, spare_capacity(&mut ready), retry) {
            Err(Errno::INTR) => {}
            other => drop(other?),
        }
        if ready.is_empty() {
            agent.start_all()?;
        }
        for event in &ready {
            match event.data.u64() {
                REACTOR => agent.turn(&mut events)?,
                QUEUE => {
                    // Whatever has happened: the queue is looked through.
                    let mut buffer = [MaybeUninit::uninit(); 4096];
                    let mut happened = inotify::Reader::new(&queue, &mut buffer);
                    while happened.next().is_ok() {}
                    agent.start_all()?;
                }
                _ if ending.read(&mut [0; 16]).is_ok() => return Ok(()),
                _ if renewing.read(&mut [0; 16]).is_ok() => {
                    let mut words = std::env::args_os();
                    let program = words.next().context("it has no name")?;
                    // Comes back only when it cannot be executed: then this one goes on.
                    let error = Process::new(&program).args(words).exec();
                    eprintln!("cannot execute {}: {error}", program.display());
                }
                _ => {}
            }
        }
    }
}

struct Agent {
    dir: PathBuf,
    reactor: Reactor,
    history: History,
    /// Whether it was said that there is no keeper.
    alone: bool,
    /// The labels of files in `starting` whose jobs are to be started.
    waiting: VecDeque<OsString>,
    /// Whether they wait for a shortage to pass, which was said then.
    stalled: bool,
    /// What is in the queue and is no plain file, which was said.
    refused: HashSet<OsString>,
}

impl Agent {
    fn new(options: &Options) -> anyhow::Result<Self> {
        let dir = options.dir.clone();
        let mut config = Config::new();
        config.name(&options.name).log_dir(dir.join("log")).history(dir.join("history"));
        options.cgroup_parent.iter().for_each(|parent| _ = config.cgroup_parent(parent));
        options.keeper.iter().for_each(|socket| _ = config.keeper(socket));
        Ok(Self {
            reactor: reactor(&mut config)?,
            history: History::open(dir.join("history"))?,
            dir,
            alone: false,
            waiting: VecDeque::new(),
            stalled: false,
            refused: HashSet::new(),
        })
    }

    /// Watches the queue for files that are moved there.
    fn watch(&self) -> anyhow::Result<OwnedFd> {
        let queue = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        inotify::add_watch(&queue, self.dir.join("queue"), inotify::WatchFlags::MOVED_TO)?;
        Ok(queue)
    }

    /// Takes over what an earlier agent has left.
    fn recover(&mut self) -> anyhow::Result<()> {
        let mut recovery = self.reactor.recovery()?;
        let (mut started, mut undecided) = (HashSet::new(), HashSet::new());
        let mut all_known = true;
        loop {
            let found = match self.reactor.recover(&mut recovery, JOBS) {
                Ok(Some(found)) => found,
                Ok(None) => break,
                Err(error) => {
                    eprintln!("{error}");
                    all_known = false;
                    continue;
                }
            };
            println!("job {} is found: {:?}", name(&found.label), found.found);
            let label = OsStr::from_bytes(&found.label).to_owned();
            match found.found {
                Found::Running | Found::Exited => started.insert(label),
                // It may have been interrupted, and ended by an agent that has died then: `turn`
                // finds out.
                _ => undecided.insert(label),
            };
        }
        for label in self.starting()? {
            if started.contains(&label) {
                self.forget(&label)?;
            } else if undecided.contains(&label) {
                // Until it has finished.
            } else if all_known {
                self.waiting.push_back(label);
            } else {
                // It may be the job that could not be looked at: for the next agent.
                eprintln!("{} is left, as it may run", self.path(&label).display());
            }
        }
        Ok(self.reactor.sweep(SWEEP)?)
    }

    /// The labels of the files in `starting`.
    fn starting(&self) -> io::Result<Vec<OsString>> {
        let mut labels = Vec::new();
        for dir in fs::read_dir(self.path(OsStr::new("")))? {
            let dir = dir?;
            let before = labels.len();
            for file in fs::read_dir(dir.path())? {
                labels.push(Path::new(&dir.file_name()).join(file?.file_name()).into_os_string());
            }
            if labels.len() == before {
                fs::remove_dir(dir.path())?;
            }
        }
        Ok(labels)
    }

    /// Where the file lies whose job has this label.
    fn path(&self, label: &OsStr) -> PathBuf {
        self.dir.join("starting").join(label)
    }

    /// Starts what waits, and what is in the queue, unless there is not enough of something.
    fn start_all(&mut self) -> anyhow::Result<()> {
        match self.try_start_all() {
            Err(error) if is_shortage(&error) => {
                if !self.stalled {
                    println!("jobs wait: {error:#}");
                }
                self.stalled = true;
                Ok(())
            }
            done => {
                self.stalled = false;
                done
            }
        }
    }

    fn try_start_all(&mut self) -> anyhow::Result<()> {
        self.start_waiting()?;
        let mut refused = HashSet::new();
        for entry in fs::read_dir(self.dir.join("queue"))? {
            let (entry, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
            match fs::symlink_metadata(&entry) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Ok(found) if !found.is_file() => {
                    if !self.refused.contains(&name) {
                        println!("{} is refused: it is no plain file", entry.display());
                    }
                    refused.insert(name);
                }
                _ => match self.take(&name) {
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    taken => {
                        let label = taken.with_context(|| entry.display().to_string())?;
                        self.waiting.push_back(label);
                        self.start_waiting()?;
                    }
                },
            }
        }
        self.refused = refused;
        Ok(())
    }

    fn start_waiting(&mut self) -> anyhow::Result<()> {
        while let Some(label) = self.waiting.front().cloned() {
            self.start(&label)?;
            self.waiting.pop_front();
        }
        Ok(())
    }

    /// Takes a file out of the queue, under a label that no other job has ever had.
    fn take(&self, name: &OsStr) -> io::Result<OsString> {
        let unique = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
        let label = Path::new(unique.trim_end()).join(name).into_os_string();
        let dir = self.path(OsStr::new(unique.trim_end()));
        fs::create_dir(&dir)?;
        fs::rename(self.dir.join("queue").join(name), self.path(&label)).inspect_err(|_| {
            let _ = fs::remove_dir(dir);
        })?;
        Ok(label)
    }

    /// Starts a job. An error means that it can be tried again.
    fn start(&mut self, label: &OsStr) -> anyhow::Result<()> {
        let name = name(label.as_bytes());
        let script = fs::read_to_string(self.path(label)).map_err(anyhow::Error::from);
        let started = script.and_then(|script| {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", &script]).inherit_env().keep_log(true);
            Ok(self.reactor.spawn(command.survives(true).label(label.as_bytes()), JOBS)?)
        });
        match started {
            // Whoever reads this may rely on its exit being known, if there is a keeper.
            Ok(job) => println!("job {name} is started: {job}"),
            Err(error) if is_shortage(&error) => return Err(error.context(format!("job {name}"))),
            // It never can be.
            Err(error) => eprintln!("job {name} cannot be started: {error}"),
        }
        // If that fails, it is done when the job has finished, which is remembered until then.
        if let Err(error) = self.forget(label) {
            eprintln!("{error:#}");
        }
        Ok(())
    }

    /// Removes the file of a job that was started; one that is removed already is fine.
    fn forget(&self, label: &OsStr) -> anyhow::Result<()> {
        // The label of a job that was interrupted at its very beginning is empty.
        let Some(dir) = Path::new(label).parent().filter(|dir| !dir.as_os_str().is_empty()) else {
            return Ok(());
        };
        let dir = self.path(dir.as_os_str());
        for removed in [fs::remove_file(self.path(label)), fs::remove_dir(&dir)] {
            match removed {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                other => other.with_context(|| format!("cannot remove {}", dir.display()))?,
            }
        }
        Ok(())
    }

    /// Handles what has happened to the jobs.
    fn turn(&mut self, events: &mut Events) -> anyhow::Result<()> {
        self.reactor.poll(events, Some(Duration::ZERO))?;
        for event in &*events {
            let (job, report) = match event {
                Event::Finished { job, report, .. } => (*job, report),
                Event::Swept { swept, .. } => {
                    swept.errors.iter().for_each(|error| eprintln!("{error}"));
                    println!("swept up {} cgroups of dead agents", swept.cgroups.len());
                    continue;
                }
                _ => continue,
            };
            let label = OsStr::from_bytes(self.reactor.label(job)?).to_owned();
            let name = name(label.as_bytes());
            println!("job {name} has finished: {}", report.exit);
            report.problems.iter().for_each(|problem| eprintln!("job {name}: {problem}"));
            // An agent has died before it knew the main process.
            let again = self.reactor.status(job)?.pid == 0 && self.path(&label).is_file();
            if again {
                self.history.remove(job)?;
            } else {
                self.forget(&label)?;
            }
            self.reactor.remove(job)?;
            if again {
                self.waiting.push_back(label);
            }
            if again || self.stalled {
                self.start_all()?;
            }
        }
        Ok(())
    }

    /// Says once when there is no keeper.
    fn look_for_keeper(&mut self) {
        let problem = self.reactor.keeper_problem();
        if let Some(problem) = problem.filter(|_| !self.alone) {
            println!("going on without the keeper: {problem}");
        }
        self.alone = problem.is_some();
    }
}

/// The reactor, as soon as its name is free: an agent that was killed may not be dead yet, nor a
/// process that it has just cloned.
fn reactor(config: &mut Config) -> anyhow::Result<Reactor> {
    match Reactor::with_config(config) {
        Err(jobworker::Error::System(error @ SystemError::NameTaken { .. })) => {
            println!("waiting for the name: {error}");
        }
        Err(jobworker::Error::System(SystemError::NoCgroup { reason, .. })) => anyhow::bail!(
            "no cgroup can be made: {reason}. Jobs that outlive the agent need one: name one that \
             you may write to with --cgroup-parent DIR"
        ),
        made => return made.map_err(words::spoken),
    }
    Reactor::with_config(config.wait_for_name(true)).map_err(words::spoken)
}

/// The name of a job, by its label.
fn name(label: &[u8]) -> String {
    let name = Path::new(OsStr::from_bytes(label)).file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Whether something could not be done because there was not enough of something, which may pass.
fn is_shortage(error: &anyhow::Error) -> bool {
    match error.downcast_ref::<io::Error>().map(Errno::from_io_error) {
        Some(Some(errno)) => matches!(
            errno,
            Errno::MFILE | Errno::NFILE | Errno::NOSPC | Errno::DQUOT | Errno::NOMEM | Errno::AGAIN
        ),
        _ => error
            .downcast_ref::<jobworker::Error>()
            .is_some_and(|error| error.kind() == jobworker::ErrorKind::LimitReached),
    }
}

/// One line for each job that has ended.
fn print_history(dir: &Path) -> anyhow::Result<()> {
    let mut entries = Vec::new();
    for entry in History::open(dir)?.entries()? {
        match entry {
            Ok(entry) => entries.push(entry),
            Err(error) => eprintln!("{error}"),
        }
    }
    entries.sort_by_key(|entry| entry.started);
    for entry in entries {
        let (name, report) = (name(&entry.label), &entry.report);
        println!("{name} {} after {:.2?}, {} bytes", report.exit, report.wall, report.output_bytes);
    }
    Ok(())
}
