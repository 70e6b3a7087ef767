//! Random hostile jobs beside well-behaved ones on one reactor, for as long as
//! `JOBWORKER_HOSTILE_SECONDS` says, 3 by default: every byte, exit and limit of the well-behaved
//! ones is checked, each job ends exactly once, and nothing is left behind at the end.
//!
//! The seed is printed; `JOBWORKER_HOSTILE_SEED` runs the same choices again. When the jobs run is
//! up to the kernel.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jobworker::{
    Command, EndPolicy, Error, Event, Events, Exit, Fill, JobId, Limits, Position, Report,
    Resource, TailId, TailOptions, Token,
};
use rustix::process::getuid;

use crate::support::{PATIENCE, Place, World, alone, sh};

/// The user of those jobs that are another user's. Nobody else should have it.
const STRANGER: u32 = 61_240;

/// What a hostile job does, as a script. `$log` is the path of its log.
///
/// None of them can reach beyond its cgroup: this machine may be somebody's.
const HOSTILE: &[(&str, &str)] = &[
    (
        "leaves stubborn sessions behind",
        "for i in 1 2 3 4 5; do (trap '' TERM HUP INT; exec setsid sleep 1000) & done; exit 7",
    ),
    ("has many processes", "i=0; while [ $i -lt 60 ]; do sleep 1000 & i=$((i+1)); done; wait"),
    ("forks until it is stopped", "while :; do (sleep 0.01 &) ; done"),
    ("stops itself", "kill -STOP $$; sleep 1000"),
    (
        "ignores every signal that it can",
        "trap '' TERM HUP INT QUIT USR1 USR2 TSTP; while :; do sleep 1000; done",
    ),
    (
        "truncates its log all the time",
        "i=0; while [ $i -lt 3000 ]; do : >/proc/self/fd/1; echo \"line $i\"; i=$((i+1)); done",
    ),
    ("makes its log sparse", "echo begin; truncate -s 1T /proc/self/fd/1; echo end; sleep 1000"),
    (
        "makes its log huge and small",
        "while :; do truncate -s 8G /proc/self/fd/1; echo x; \
         truncate -s 0 /proc/self/fd/1; echo y; done",
    ),
    (
        "prints without a pause",
        "while :; do echo 'a line that is as long as many lines are in the logs of programs'; done",
    ),
    (
        "prints one endless line",
        "while :; do printf '.............................................'; done",
    ),
    ("removes its log", "rm -f \"$log\"; while :; do echo gone; sleep 0.01; done"),
    (
        "replaces its log by a pipe",
        "rm -f \"$log\"; mkfifo \"$log\"; while :; do echo gone; sleep 0.01; done",
    ),
    (
        "replaces its log by a directory",
        "rm -f \"$log\"; mkdir \"$log\"; echo gone; sleep 0.05; rmdir \"$log\"",
    ),
    (
        "replaces its log by a link",
        "rm -f \"$log\"; ln -s /dev/zero \"$log\"; echo gone; sleep 1000",
    ),
    ("closes its streams", "exec >&- 2>&- </dev/null; sleep 1000"),
    (
        "makes groups below its own",
        "i=0; while [ $i -lt 40 ]; do \
         mkdir \"$group/g$i\" 2>/dev/null && echo $$ >\"$group/g$i/cgroup.procs\" 2>/dev/null; \
         i=$((i+1)); done; sleep 1000 & sleep 1000",
    ),
    (
        "makes groups in groups",
        "d=$group; i=0; while [ $i -lt 40 ]; do \
         d=$d/g; mkdir \"$d\" 2>/dev/null || break; i=$((i+1)); done; \
         echo $$ >\"$d/cgroup.procs\" 2>/dev/null; sleep 1000",
    ),
    ("freezes itself", "echo 1 >\"$group/cgroup.freeze\" 2>/dev/null; sleep 1000"),
    ("dies by a signal", "kill -SEGV $$; sleep 1000"),
    (
        "changes its program again and again",
        "n=${n:-0}; [ $n -lt 200 ] || exit 0; n=$((n+1)); export n; exec sh -c \"$script\"",
    ),
];

/// Hostile jobs of another user, who may signal all processes of that user.
const STRANGERS: &[(&str, &str)] = &[
    ("stops every process of its user", "while :; do kill -STOP -1 2>/dev/null; done"),
    ("kills every process of its user", "while :; do kill -KILL -1 2>/dev/null; done"),
    ("forks as far as its user may", "f() { f | f & }; while :; do f 2>/dev/null; done"),
];

/// A job whose output and exit are known.
struct Expected {
    text: String,
    exit: Exit,
    tails: Vec<(TailId, Vec<u8>, bool)>,
}

/// A job that does what it likes.
struct Hostile {
    what: &'static str,
    tails: Vec<TailId>,
}

/// All jobs of a run.
struct Arena {
    world: World,
    random: fastrand::Rng,
    events: Events,
    good: HashMap<JobId, Expected>,
    bad: HashMap<JobId, Hostile>,
    reports: HashMap<JobId, Arc<Report>>,
    /// The log of one turn's reads of hostile tails, which are not kept.
    discarded: u64,
    started: [usize; 2],
}

/// How many jobs of each kind run at a time.
const AT_A_TIME: usize = 5;

impl Arena {
    fn new(world: World, seed: u64) -> Self {
        Self {
            world,
            random: fastrand::Rng::with_seed(seed),
            events: Events::with_capacity(64),
            good: HashMap::new(),
            bad: HashMap::new(),
            reports: HashMap::new(),
            discarded: 0,
            started: [0; 2],
        }
    }

    /// Starts a job that prints lines, quickly or slowly, and exits with a code.
    fn spawn_good(&mut self) {
        let (lines, code) = (self.random.u32(1..200), self.random.u8(0..100));
        let pause = *self.random.choice(&["", "", "sleep 0.001;"]).expect("there are some");
        let lines = if pause.is_empty() { lines } else { lines.min(20) };
        let name = self.random.u32(..);
        let script = format!(
            "i=0; while [ $i -lt {lines} ]; do echo \"{name} line $i\"; {pause} i=$((i+1)); done; \
             exit {code}"
        );
        let mut text = String::new();
        for line in 0..lines {
            writeln!(text, "{name} line {line}").unwrap();
        }
        let mut command = sh(&script);
        let soft = self.random.u64(100..200);
        command.rlimit(Resource::OpenFiles, Some(soft), Some(soft));
        let job = self.world.reactor.spawn(&command, Token(0)).expect("a well-behaved job");
        self.started[0] += 1;
        let limits = std::fs::read_to_string(format!(
            "/proc/{}/limits",
            self.world.reactor.status(job).unwrap().pid
        ));
        if let Some(line) = limits
            .ok()
            .as_deref()
            .and_then(|text| text.lines().find_map(|line| line.strip_prefix("Max open files")))
        {
            // The process is a zombie without limits once it has exited.
            let value = line.split_whitespace().next().unwrap_or_default();
            assert_eq!(value, soft.to_string(), "the limit of job {job}");
        }
        let tails = (0..self.random.usize(1..4))
            .map(|_| {
                let tail = self.world.reactor.tail(job, Position::Start, Token(1)).unwrap();
                (tail, Vec::new(), false)
            })
            .collect();
        self.good.insert(job, Expected { text, exit: Exit::Code(i32::from(code)), tails });
    }

    /// Starts a job that does its worst.
    fn spawn_bad(&mut self) {
        let strangers = if getuid().is_root() { STRANGERS } else { &[] };
        let choice = self.random.usize(..HOSTILE.len() + strangers.len());
        let (what, script) = *HOSTILE.iter().chain(strangers).nth(choice).expect("in range");
        let prelude = "log=$(readlink /proc/$$/fd/1); \
                       mount=$(sed -n \
                       's/^[^ ]* [^ ]* [^ ]* [^ ]* \\([^ ]*\\) .* - cgroup2 .*/\\1/p' \
                       /proc/self/mountinfo); \
                       group=$mount$(sed -n 's/^0:://p' /proc/self/cgroup);";
        let mut command: Command = sh(&format!("{prelude} {script}"));
        command.env("script", script).current_dir(self.world.place.dir.path());
        command.grace(Duration::from_millis(self.random.u64(0..200)));
        if self.random.bool() {
            command.time_limit(Duration::from_millis(self.random.u64(1..1500)));
        }
        if self.random.u8(..4) == 0 {
            command.end_policy(EndPolicy::WaitAll);
        }
        if self.random.u8(..8) == 0 {
            let mut limits = Limits::new();
            limits.pids_max(200);
            command.limits(&limits);
        }
        // However much it prints, the disk is not full.
        command.rlimit(Resource::FileSize, Some(1 << 41), Some(1 << 41));
        if choice >= HOSTILE.len() {
            command.uid(STRANGER).gid(STRANGER);
            command.rlimit(Resource::Processes, Some(50), Some(50));
        }
        let job = match self.world.reactor.spawn(&command, Token(2)) {
            Ok(job) => job,
            // Another job of the same user may have stopped or killed it before it ran, and without
            // the controller there is no limit.
            Err(error @ (Error::Spawn(_) | Error::Limits(_))) => {
                assert!(
                    choice >= HOSTILE.len() || matches!(error, Error::Limits(_)),
                    "{what}: {error}"
                );
                return;
            }
            Err(error) => panic!("{what}: {error}"),
        };
        self.started[1] += 1;
        self.bad.insert(job, Hostile { what, tails: Vec::new() });
    }

    /// Does something to a hostile job that a host would do.
    fn disturb(&mut self) {
        let jobs: Vec<JobId> = self.bad.keys().copied().collect();
        let Some(job) = self.random.choice(&jobs).copied() else { return };
        let reactor = &mut self.world.reactor;
        // Any of these may be refused: the job is finished, or has removed its log.
        match self.random.u8(..8) {
            0 => drop(reactor.stop(job)),
            1 => drop(reactor.kill(job)),
            2 => drop(reactor.signal(job, jobworker::Signal::USR1)),
            3 => drop(reactor.freeze(job)),
            4 => drop(reactor.thaw(job)),
            _ => {
                let position = match self.random.u8(..4) {
                    0 => Position::Start,
                    1 => Position::End,
                    2 => Position::LastLines(self.random.u64(0..100)),
                    _ => Position::Offset(self.random.u64(0..1 << 40)),
                };
                let mut options = TailOptions::new(position);
                if self.random.bool() {
                    options.snapshot();
                }
                if let Ok(tail) = reactor.tail(job, options, Token(3)) {
                    self.bad.get_mut(&job).expect("just chosen").tails.push(tail);
                }
            }
        }
    }

    /// Polls once and handles all events.
    fn turn(&mut self, timeout: Duration) {
        self.world.reactor.poll(&mut self.events, Some(timeout)).unwrap();
        let mut readable = Vec::new();
        for event in &self.events {
            match event {
                Event::Readable { tail, .. } => readable.push(*tail),
                Event::Finished { job, report, .. } => {
                    let before = self.reports.insert(*job, Arc::clone(report));
                    assert!(before.is_none(), "a second Finished of {job}");
                }
                _ => {}
            }
        }
        for tail in readable {
            self.read(tail);
        }
        for (job, report) in std::mem::take(&mut self.reports) {
            self.finished(job, &report);
        }
    }

    /// Reads a tail: all of a well-behaved job's, some of a hostile one's.
    fn read(&mut self, tail: TailId) {
        for expected in self.good.values_mut() {
            if let Some((_, bytes, ended)) =
                expected.tails.iter_mut().find(|(other, ..)| *other == tail)
            {
                loop {
                    match self.world.reactor.fill_buf(tail).unwrap() {
                        Fill::Data(data) => {
                            let length = data.len();
                            bytes.extend_from_slice(data);
                            self.world.reactor.consume(tail, length).unwrap();
                        }
                        Fill::UpToDate => return,
                        Fill::Ended => {
                            *ended = true;
                            return;
                        }
                        Fill::Truncated | Fill::Skipped { .. } | Fill::Replaced { .. } => {
                            panic!("nobody has truncated this log")
                        }
                    }
                }
            }
        }
        for _ in 0..4 {
            match self.world.reactor.fill_buf(tail) {
                Ok(Fill::Data(data)) => {
                    let length = data.len();
                    self.discarded += length as u64;
                    self.world.reactor.consume(tail, length).unwrap();
                }
                Ok(Fill::Truncated | Fill::Skipped { .. } | Fill::Replaced { .. }) => {}
                Ok(Fill::UpToDate | Fill::Ended) | Err(_) => return,
            }
        }
    }

    /// Checks a finished job and removes it.
    fn finished(&mut self, job: JobId, report: &Report) {
        if let Some(expected) = self.good.remove(&job) {
            assert_eq!(report.exit, expected.exit, "{job}");
            assert_eq!(report.output_bytes, expected.text.len() as u64, "{job}");
            assert!(report.problems.is_empty() && !report.killed, "{job}: {report:?}");
            for (tail, bytes, ended) in expected.tails {
                assert_eq!(String::from_utf8_lossy(&bytes), expected.text, "{job}");
                assert!(ended, "the tail {tail:?} has not ended");
            }
        } else {
            let hostile = self.bad.remove(&job).expect("a job that was started");
            assert_eq!(report.cgroup_left, None, "a job that {}", hostile.what);
        }
        self.world.reactor.remove(job).unwrap();
    }

    fn run(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            while self.good.len() < AT_A_TIME {
                self.spawn_good();
            }
            while self.bad.len() < AT_A_TIME {
                self.spawn_bad();
                // Where each attempt is stopped by another job, some have to go first.
                self.turn(Duration::ZERO);
            }
            if self.random.u8(..8) == 0 {
                self.disturb();
            }
            let timeout = Duration::from_millis(self.random.u64(0..20));
            self.turn(timeout);
        }
        // The well-behaved jobs end by themselves, however their neighbours behave.
        let patience = Instant::now() + PATIENCE;
        while !self.good.is_empty() {
            assert!(Instant::now() < patience, "a well-behaved job does not end");
            self.turn(Duration::from_millis(100));
        }
        for job in self.bad.keys() {
            self.world.reactor.kill(*job).unwrap();
        }
        while !self.bad.is_empty() {
            let left = self.bad.values().map(|job| job.what).collect::<Vec<_>>();
            assert!(Instant::now() < patience, "killed jobs do not end: {left:?}");
            self.turn(Duration::from_millis(100));
        }
    }
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect(name))
}

#[test]
fn hostile_jobs_harm_neither_their_host_nor_their_neighbours() {
    if !alone!() {
        return;
    }
    let Some(world) = World::new() else { return };
    let seed = from_environment("JOBWORKER_HOSTILE_SEED").unwrap_or_else(|| fastrand::u64(..));
    let seconds = from_environment("JOBWORKER_HOSTILE_SECONDS").unwrap_or(3);
    println!("JOBWORKER_HOSTILE_SEED={seed} JOBWORKER_HOSTILE_SECONDS={seconds}");
    let before = world.footprint();
    let mut arena = Arena::new(world, seed);
    arena.run(Duration::from_secs(seconds));
    let [good, bad] = arena.started;
    println!("{good} well-behaved and {bad} hostile jobs, {} bytes discarded", arena.discarded);
    assert!(good > 0 && bad > 0);
    let left = left_in_logs(&arena.world.place);
    assert_eq!(left, Vec::<String>::new());
    assert_eq!(arena.world.footprint(), before);
}

/// What hostile jobs have left where their logs were; it would be the host's to clean up.
fn left_in_logs(place: &Place) -> Vec<String> {
    let entries = std::fs::read_dir(place.logs()).unwrap().flatten();
    entries.map(|entry| format!("{}: {:?}", entry.path().display(), entry.file_type())).collect()
}
