//! Hosts are killed at random moments, in the middle of spawns, reads, stops, ends and recoveries,
//! and executed anew, with and without a keeper; the last one finds everything as it has to be:
//! each line of each log was read once, each job was reported once, with its exit code wherever
//! that can be known, and nothing is left.
//!
//! `JOBWORKER_KILL_ROUNDS` says how many hosts there are, 20 unless it is set.

use std::collections::{HashMap, HashSet};
use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jobworker::{
    Command, Config, EndPolicy, Error, Event, Events, Exit, History, JobId, Position, Reactor,
    Read, Signal, SystemError, TailId, Token,
};

use crate::keeper::Keeping;
use crate::support::{
    PATIENCE, Place, await_exit, directories, kernel_keeps_exits, pidfd, sh, sweep,
};

/// How many jobs run at a time, at most.
const LIVE: usize = 50;

/// What a host exits with that has found its name taken: by a process that an earlier host has
/// cloned just before its death.
const TAKEN: i32 = 75;

fn rounds() -> usize {
    env::var("JOBWORKER_KILL_ROUNDS").map_or(20, |rounds| rounds.parse().unwrap())
}

/// What a job is, by its number.
struct Plan {
    /// How many lines it prints.
    lines: usize,
    code: i32,
    /// How long it sleeps between two groups of lines, in milliseconds.
    pause: usize,
    /// Whether it is stopped by the host that reads its first line.
    stopped: bool,
    /// Whether it leaves a process behind.
    leaves: bool,
}

impl Plan {
    fn of(number: usize) -> Self {
        let mut random = fastrand::Rng::with_seed(number as u64);
        Self {
            lines: random.usize(1..400),
            code: random.i32(0..120),
            pause: random.usize(0..60),
            stopped: number % 7 == 3,
            leaves: number % 5 == 2,
        }
    }

    fn command(&self, number: usize) -> Command {
        let Self { lines, code, pause, stopped, leaves } = self;
        let rest = if *leaves { "sleep 1000 & " } else { "" };
        // One that is stopped does not end by itself.
        let end = if *stopped { "exec sleep 1000".to_owned() } else { format!("exit {code}") };
        let script = format!(
            "{rest}i=0; while [ $i -lt {lines} ]; do echo line $i; i=$((i+1)); \
             [ $((i%40)) -ne 0 ] || sleep 0.{pause:03}; done; {end}"
        );
        let mut command = sh(&script);
        command.survives(true).label(number.to_string()).grace(Duration::from_millis(200));
        if number.is_multiple_of(3) {
            command.end_policy(if *leaves { EndPolicy::KillRest } else { EndPolicy::WaitAll });
        }
        command
    }
}

/// Where hosts remember what they have done. Each line is one write, and so there as a whole.
struct Notes {
    dir: PathBuf,
}

impl Notes {
    fn add(&self, file: &str, line: &str) {
        let file = OpenOptions::new().append(true).create(true).open(self.dir.join(file));
        file.unwrap().write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    fn read(&self, file: &str) -> Vec<Vec<String>> {
        let text = fs::read_to_string(self.dir.join(file)).unwrap_or_default();
        text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
    }

    /// What was read of a log so far: its length is where to go on.
    fn copy(&self, job: JobId) -> PathBuf {
        self.dir.join("read").join(job.to_string())
    }
}

/// A host that is to be killed.
struct Victim {
    notes: Notes,
    reactor: Reactor,
    has_keeper: bool,
    /// The number of each job, if it is known.
    jobs: HashMap<JobId, Option<usize>>,
    tails: HashMap<TailId, JobId>,
    copies: HashMap<JobId, (TailId, File, u64)>,
    stopped: HashSet<JobId>,
    /// What was reported by an earlier host that died before it could remove the job.
    reported: HashSet<String>,
    next: usize,
    last: usize,
}

impl Victim {
    fn new(dir: &Path) -> Self {
        let notes = Notes { dir: dir.to_owned() };
        let mut config = Config::new();
        config.cgroup_parent(env::var_os("JOBWORKER_KILL_CGROUP").unwrap()).name("victim");
        config.log_dir(dir.join("logs")).history(dir.join("history")).history_sync(false);
        let keeper = env::var_os("JOBWORKER_KILL_KEEPER");
        keeper.iter().for_each(|socket| _ = config.keeper(socket));
        let has_keeper = keeper.is_some();
        let reactor = match Reactor::with_config(&config) {
            Err(Error::System(SystemError::NameTaken { .. })) => std::process::exit(TAKEN),
            reactor => reactor.unwrap(),
        };
        let number = |line: &Vec<String>| line[0].parse::<usize>().unwrap() + 1;
        let next = notes.read("begun").iter().map(number).max().unwrap_or(0);
        let reported = notes.read("reported").into_iter().map(|line| line[0].clone()).collect();
        let last = env::var("JOBWORKER_KILL_JOBS").unwrap().parse().unwrap();
        let (jobs, tails, copies) = (HashMap::new(), HashMap::new(), HashMap::new());
        let stopped = HashSet::new();
        Self { notes, reactor, has_keeper, jobs, tails, copies, stopped, reported, next, last }
    }

    fn recover(&mut self) {
        let mut recovery = self.reactor.recovery().unwrap();
        while let Some(found) = self.reactor.recover(&mut recovery, Token(0)).unwrap() {
            let number = String::from_utf8(found.label).unwrap().parse().ok();
            self.notes.add("found", &format!("{}\t{:?}", found.job, found.found));
            self.follow(found.job, number);
        }
    }

    /// Reads the log of a job on from where it was read to.
    fn follow(&mut self, job: JobId, number: Option<usize>) {
        self.jobs.insert(job, number);
        if self.reactor.status(job).unwrap().output.is_none() {
            return;
        }
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        let copy = options.open(self.notes.copy(job)).unwrap();
        let offset = copy.metadata().unwrap().len();
        // An earlier host has died between the removal of the log and that of the job.
        let Ok(tail) = self.reactor.tail(job, Position::Offset(offset), Token(0)) else {
            assert!(self.reported.contains(&job.to_string()), "the log of {job} is gone");
            return;
        };
        self.tails.insert(tail, job);
        self.copies.insert(job, (tail, copy, offset));
        self.read(job);
    }

    fn read(&mut self, job: JobId) {
        let Some((tail, copy, offset)) = self.copies.get_mut(&job) else { return };
        let mut buffer = [0; 1000];
        loop {
            match self.reactor.read(*tail, &mut buffer).unwrap() {
                Read::Data(length) => {
                    copy.write_all_at(&buffer[..length], *offset).unwrap();
                    *offset += length as u64;
                }
                Read::UpToDate | Read::Ended => break,
                other => panic!("{other:?}"),
            }
        }
        let number = self.jobs[&job];
        let is_due = number.is_some_and(|number| Plan::of(number).stopped) && *offset > 0;
        if is_due && self.stopped.insert(job) {
            self.reactor.stop(job).unwrap();
        }
    }

    fn spawn(&mut self) {
        let number = self.next;
        self.next += 1;
        self.notes.add("begun", &number.to_string());
        let job = self.reactor.spawn(&Plan::of(number).command(number), Token(0)).unwrap();
        self.notes.add("done", &format!("{number}\t{job}"));
        if self.has_keeper && self.reactor.keeper_problem().is_none() {
            self.notes.add("kept", &job.to_string());
        }
        self.follow(job, Some(number));
    }

    fn turn(&mut self, events: &mut Events) {
        self.reactor.poll(events, Some(Duration::from_millis(5))).unwrap();
        let happened: Vec<Event> = events.iter().cloned().collect();
        for event in happened {
            match event {
                Event::Readable { tail, .. } => {
                    if let Some(job) = self.tails.get(&tail) {
                        self.read(*job);
                    }
                }
                Event::Finished { job, report, .. } => {
                    self.read(job);
                    let problems: Vec<String> =
                        report.problems.iter().map(ToString::to_string).collect();
                    let number = self.jobs.remove(&job).unwrap();
                    let number = number.map_or_else(String::new, |number| number.to_string());
                    let (exit, bytes) = (report.exit, report.output_bytes);
                    let problems = problems.join("; ");
                    let line = format!("{job}\t{number}\t{exit}\t{bytes}\t{problems}");
                    if self.reported.insert(job.to_string()) {
                        self.notes.add("reported", &line);
                    }
                    self.reactor.remove(job).unwrap();
                    if let Some((tail, ..)) = self.copies.remove(&job) {
                        self.tails.remove(&tail);
                    }
                }
                _ => {}
            }
        }
    }

    /// Works until every job is finished.
    fn run(mut self) {
        // How often the loop turns until the program executes itself anew, if it is to.
        let left: usize = env::var("JOBWORKER_KILL_EXECS").map_or(0, |left| left.parse().unwrap());
        let mut turns = if left > 0 { fastrand::usize(0..25) } else { usize::MAX };
        self.recover();
        let mut events = Events::with_capacity(64);
        while self.next < self.last || !self.jobs.is_empty() {
            if self.next < self.last && self.jobs.len() < LIVE {
                self.spawn();
            }
            self.turn(&mut events);
            if turns == 0 {
                let error =
                    host_command().env("JOBWORKER_KILL_EXECS", (left - 1).to_string()).exec();
                panic!("{error}");
            }
            turns -= 1;
        }
        sweep(&mut self.reactor);
    }
}

fn host_command() -> std::process::Command {
    let mut command = std::process::Command::new("/proc/self/exe");
    command.args(["survival_kill::a_victim", "--exact", "--nocapture", "--test-threads=1"]);
    command
}

/// Not a test, but the host that others kill.
#[test]
fn a_victim() {
    let Some(dir) = env::var_os("JOBWORKER_KILL_DIR") else { return };
    Victim::new(Path::new(&dir)).run();
}

/// How hosts come to their ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Killed,
    KilledWithKeeper,
    ExecutedAnew,
}

fn survive(fate: Fate) {
    let place = Place::new();
    let Some(cgroup) = place.cgroup_or_skip() else { return };
    let dir = place.dir.path().to_owned();
    for name in ["read", "history", "other"] {
        fs::create_dir(dir.join(name)).unwrap();
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o700)).unwrap();
    }
    // A job of another name, which nobody is to touch.
    let mut config = Config::new();
    config.cgroup_parent(&cgroup).name("other").log_dir(dir.join("other"));
    let mut other = Reactor::with_config(&config).unwrap();
    let bystander = other.spawn(sh("exec sleep 1000").survives(true), Token(0)).unwrap();
    let bystander_group = other.status(bystander).unwrap().cgroup.unwrap();
    drop(other);
    let record = |group: &Path| {
        let mut bytes = vec![0; 1 << 16];
        let length = rustix::fs::getxattr(group, "user.jobworker", &mut bytes).unwrap();
        bytes.truncate(length);
        bytes
    };
    let before = record(&bystander_group);

    let rounds = rounds();
    let keeper = (fate == Fate::KilledWithKeeper).then(|| Keeping::start(&dir.join("keeper")));
    let host = |jobs: usize| {
        let mut command = host_command();
        command.env("JOBWORKER_KILL_DIR", &dir).env("JOBWORKER_KILL_CGROUP", &cgroup);
        command.env("JOBWORKER_KILL_JOBS", jobs.to_string()).stdout(std::process::Stdio::null());
        if let Some(keeper) = &keeper {
            command.env("JOBWORKER_KILL_KEEPER", &keeper.socket);
        }
        command
    };
    let (mut kills, mut taken) = (0, 0);
    let jobs = 8 * rounds;
    if fate == Fate::ExecutedAnew {
        let status = host(jobs).env("JOBWORKER_KILL_EXECS", rounds.to_string()).status().unwrap();
        assert!(status.success(), "{status}");
    } else {
        while kills < rounds {
            let mut victim = host(jobs).spawn().unwrap();
            let ended = pidfd(victim.id());
            // More often in the first moments, with the recovery in them.
            let moment = 200.0 * fastrand::f64().powi(2);
            if await_exit(&ended, Duration::from_secs_f64(moment / 1000.0)) {
                let status = victim.wait().unwrap();
                match status.code() {
                    Some(TAKEN) => taken += 1,
                    // All jobs were done before it was killed.
                    Some(0) => break,
                    _ => panic!("a host has failed: {status}"),
                }
            } else {
                victim.kill().unwrap();
                kills += usize::from(victim.wait().unwrap().code().is_none());
            }
        }
        // The last one is left alone.
        let until = Instant::now() + PATIENCE;
        loop {
            let status = host(jobs).status().unwrap();
            if status.code() != Some(TAKEN) {
                assert!(status.success(), "{status}");
                break;
            }
            assert!(Instant::now() < until, "the name is never free");
        }
    }
    if let Some(keeper) = keeper {
        keeper.await_held(0);
    }

    // What has come of it.
    let notes = Notes { dir: dir.clone() };
    let reported = notes.read("reported");
    let ids: HashSet<&str> = reported.iter().map(|line| &line[0][..]).collect();
    assert_eq!(ids.len(), reported.len(), "each job is reported once");
    let done = notes.read("done");
    let kept: HashSet<String> =
        notes.read("kept").into_iter().map(|line| line[0].clone()).collect();
    let by_id: HashMap<&str, &Vec<String>> =
        reported.iter().map(|line| (&line[0][..], line)).collect();
    let (mut unknown, mut stopped) = (0, 0);
    for line in &done {
        let (number, job) = (line[0].parse::<usize>().unwrap(), &line[1]);
        let plan = Plan::of(number);
        let found = by_id.get(&job[..]).unwrap_or_else(|| panic!("job {number} was lost"));
        assert_eq!(found[1], line[0], "the label");
        let (exit, bytes, problems) = (&found[2], found[3].parse::<u64>().unwrap(), &found[4]);
        let text = fs::read_to_string(notes.copy(job.parse().unwrap())).unwrap();
        assert_eq!(
            text.len() as u64,
            bytes,
            "job {number}: what was read, and the size of the log"
        );
        let lines: Vec<&str> = text.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            assert_eq!(*line, format!("line {index}"), "job {number}");
        }
        if !plan.stopped {
            assert_eq!(lines.len(), plan.lines, "job {number}: {found:?}");
        }
        let right = if plan.stopped {
            stopped += 1;
            [Exit::Signal { signal: Signal::TERM, core_dumped: false }, KILLED]
                .map(|exit| exit.to_string())
        } else {
            [Exit::Code(plan.code).to_string(), String::new()]
        };
        if exit == "unknown status" {
            unknown += 1;
            assert!(problems.contains("the exit status of job"), "{found:?}");
            let unkept = fate == Fate::KilledWithKeeper && !kept.contains(job);
            let absent = problems.contains("while no host was there");
            let told = (fate == Fate::Killed || unkept) && absent;
            assert!(told || !kernel_keeps_exits() && fate != Fate::ExecutedAnew, "{found:?}");
        } else {
            assert!(right.contains(exit) && problems.is_empty(), "job {number}: {found:?}");
        }
    }
    let history: HashSet<String> = History::open(dir.join("history"))
        .unwrap()
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().job.to_string())
        .collect();
    assert!(history.iter().all(|job| ids.contains(&job[..])) && history.len() == ids.len());
    let begun = notes.read("begun").len();
    let recovered = notes.read("found").len();
    println!(
        "{fate:?}: {kills} kills, the name was taken {taken} times, {begun} jobs begun, \
         {} started, {} reported, {recovered} times recovered, {stopped} stopped, \
         {unknown} exits unknown",
        done.len(),
        reported.len(),
    );
    assert_eq!(fs::read_dir(dir.join("logs")).unwrap().count(), 0, "no log is left");
    assert_eq!(record(&bystander_group), before);
    assert_eq!(directories(&cgroup), [bystander_group], "nothing but the job of another name");

    let mut other = Reactor::with_config(&config).unwrap();
    let mut recovery = other.recovery().unwrap();
    let found = other.recover(&mut recovery, Token(0)).unwrap().unwrap();
    assert_eq!((found.job, found.found), (bystander, jobworker::Found::Running));
    other.kill(bystander).unwrap();
    other.wait(bystander).unwrap();
    other.remove(bystander).unwrap();
}

const KILLED: Exit = Exit::Signal { signal: Signal::KILL, core_dumped: false };

#[test]
fn hosts_that_are_killed_at_any_moment_lose_nothing() {
    survive(Fate::Killed);
}

#[test]
fn with_a_keeper_hosts_that_are_killed_lose_no_exit_code_either() {
    survive(Fate::KilledWithKeeper);
}

#[test]
fn a_host_that_executes_itself_anew_at_any_turn_loses_nothing() {
    survive(Fate::ExecutedAnew);
}
