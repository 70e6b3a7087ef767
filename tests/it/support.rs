//! The vocabulary of the tests: a [`World`] with a reactor, a cgroup and a directory of its own. It
//! checks the order and number of the events of each job, and when it is dropped, that no process
//! is left in its cgroup.

use std::collections::HashMap;
use std::ffi::{CStr, OsStr};
use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use jobworker::{
    Census, Command, Config, Error, Event, Events, Exit, JobId, Position, Reactor, Read, Report,
    Swept, TailId, TailOptions, Token,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount,
};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tempfile::TempDir;

use crate::skips::{Elsewhere, skip};

/// How long a test waits for something that must happen. It is generous, because it only bounds a
/// failure and measures nothing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(240);

/// How many rounds a test runs: a tenth as many in the VM of tests/vm, whose processor is emulated.
/// The VM is there to test another kernel; the full number runs on the host.
pub(crate) fn rounds(number: usize) -> usize {
    if std::env::var_os("JOBWORKER_VM").is_some() { number / 10 } else { number }
}

/// A launcher: that of the environment variable `JOBWORKER_LAUNCHER`, or this program.
pub(crate) fn launcher() -> PathBuf {
    std::env::var_os("JOBWORKER_LAUNCHER").map_or_else(|| "/proc/self/exe".into(), PathBuf::from)
}

/// `sh -c script` with a PATH.
pub(crate) fn sh(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).env("PATH", "/usr/local/bin:/usr/bin:/bin");
    command
}

/// Everything that one tail has read.
#[derive(Debug, Default, Clone)]
pub(crate) struct Transcript {
    pub(crate) bytes: Vec<u8>,
    /// How often it has reported a truncation of the log, and after how many bytes each time.
    pub(crate) truncated_at: Vec<usize>,
    /// How many bytes were not kept, after how many bytes each time.
    pub(crate) skipped_at: Vec<(usize, u64)>,
    /// How often it has gone on in another file, after how many bytes each time, and whether files
    /// may have been missed.
    pub(crate) replaced_at: Vec<(usize, bool)>,
    /// Whether it has reported the end of the log.
    pub(crate) ended: bool,
    /// How many `Readable` events there were for it.
    pub(crate) events: usize,
}

/// The system resources that a reactor and its process hold. They are the same before and after an
/// operation that leaves nothing behind.
#[derive(Debug, PartialEq, Eq, Clone)]
pub(crate) struct Footprint {
    pub(crate) census: Census,
    pub(crate) fds: usize,
    pub(crate) cgroups: usize,
    pub(crate) log_files: usize,
    pub(crate) children: usize,
}

/// A reactor with a place of its own.
pub(crate) struct World {
    pub(crate) reactor: Reactor,
    pub(crate) events: Events,
    pub(crate) transcripts: HashMap<TailId, Transcript>,
    pub(crate) exited: HashMap<JobId, Exit>,
    pub(crate) finished: HashMap<JobId, Arc<Report>>,
    /// How often `poll` has returned.
    pub(crate) turns: usize,
    pub(crate) woken: usize,
    /// Events about resources: pressure, out of memory, freezing.
    pub(crate) resource_events: Vec<Event>,
    pub(crate) place: Place,
}

/// A cgroup and a directory, which are removed on drop. In a [`World`] this field comes after the
/// reactor, so that the reactor is dropped first.
pub(crate) struct Place {
    pub(crate) cgroup: Option<PathBuf>,
    /// The file system of the logs, if it is another one. Gone before the directory is removed that
    /// it is mounted in.
    mounted: Option<Mounted>,
    pub(crate) dir: TempDir,
}

impl Place {
    /// The directory of the logs.
    pub(crate) fn logs(&self) -> PathBuf {
        self.dir.path().join("logs")
    }

    /// A directory, and a cgroup if one can be made on this system.
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let dir = tempfile::Builder::new().prefix("jobworker-test-").tempdir().unwrap();
        let logs = dir.path().join("logs");
        fs::create_dir(&logs).unwrap();
        fs::set_permissions(&logs, fs::Permissions::from_mode(0o700)).unwrap();
        let name = format!(
            "jobworker-test-{}-{}",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        );
        let cgroup = cgroup_parents()
            .map(|parent| parent.join(&name))
            .find(|path| fs::create_dir(path).is_ok());
        Self { cgroup, mounted: None, dir }
    }

    /// A place with a cgroup, whose logs are on a file system of this kind that only this thread
    /// and its children see, in a process where it is [`alone`]. Where that is not possible, says
    /// that the test is skipped.
    #[track_caller]
    pub(crate) fn with_logs_on(kind: &str, options: &CStr) -> Option<Self> {
        let mut place = Self::new();
        place.cgroup_or_skip()?;
        place.mounted = Some(private_mount(kind, &place.logs(), options)?);
        Some(place)
    }

    /// The cgroup; `None` where there is none, and then says that the test is skipped.
    #[track_caller]
    pub(crate) fn cgroup_or_skip(&self) -> Option<PathBuf> {
        if self.cgroup.is_none() {
            skip_outside_vm(NO_CGROUP);
        }
        self.cgroup.clone()
    }

    /// The group of a job, or a path at which there is nothing once it is gone.
    pub(crate) fn group(&self, job: JobId) -> PathBuf {
        let above = self.cgroup.as_deref().unwrap();
        let is_its = |path: &PathBuf| path.to_str().unwrap().contains(&job.to_string());
        directories(above).into_iter().find(is_its).unwrap_or_else(|| above.join(job.to_string()))
    }

    /// A configuration that uses this place.
    pub(crate) fn config(&self) -> Config {
        let mut config = Config::new();
        // A machine may be so busy that a program is not executed within the usual time.
        config.log_dir(self.logs()).spawn_timeout(PATIENCE);
        if let Some(cgroup) = &self.cgroup {
            config.cgroup_parent(cgroup);
        }
        config
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(cgroup) = &self.cgroup else { return };
        // Only empty groups can be removed, so a job that was left behind makes this fail.
        for left in all_directories(cgroup) {
            let _ = fs::remove_dir(left);
        }
        let removed = fs::remove_dir(cgroup);
        if !std::thread::panicking() {
            removed.expect("the test left processes in its cgroup");
        }
    }
}

/// Where cgroup2 is mounted.
pub(crate) fn cgroup_mount() -> Option<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let line = table.lines().find(|line| line.contains(" - cgroup2 "))?;
    line.split(' ').nth(4).map(PathBuf::from)
}

/// Where a test may make its cgroup, in order of preference: at the root of the tree, beside its
/// own, or below its own. The last two are for a user to whom a part of the tree was delegated.
fn cgroup_parents() -> impl Iterator<Item = PathBuf> {
    let table = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = table
        .lines()
        .find_map(|line| line.strip_prefix("0::/").map(PathBuf::from))
        .unwrap_or_default();
    let below = [Some(PathBuf::new()), own.parent().map(Path::to_owned), Some(own)];
    cgroup_mount().into_iter().flat_map(move |mount| {
        below.clone().into_iter().flatten().map(move |path| mount.join(path))
    })
}

/// Why most tests are skipped where they are.
const NO_CGROUP: &str = "no cgroup can be made here: it takes root, or a cgroup that is \
                                    this user's";

/// Prints why a test is skipped, for lack of something that the VM of tests/vm has. There it panics
/// instead.
#[track_caller]
pub(crate) fn skip_outside_vm(reason: &str) {
    assert!(
        std::env::var_os("JOBWORKER_VM").is_none(),
        "this must not be skipped in the VM: {reason}"
    );
    skip(reason);
}

/// The directories in a directory. In a cgroup, those of jobs: the marker of a host is not one.
pub(crate) fn directories(path: &Path) -> Vec<PathBuf> {
    let mut directories = all_directories(path);
    directories.retain(|path| !is_marker(path));
    directories
}

/// The markers of hosts in a cgroup.
pub(crate) fn markers(cgroup: &Path) -> Vec<PathBuf> {
    let mut markers = all_directories(cgroup);
    markers.retain(|path| is_marker(path));
    markers
}

/// Removes a cgroup that a reactor uses, with the reactor's marker in it.
pub(crate) fn remove_parent(cgroup: &Path) {
    for marker in markers(cgroup) {
        fs::remove_dir(marker).unwrap();
    }
    fs::remove_dir(cgroup).unwrap();
}

fn all_directories(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

fn is_marker(path: &Path) -> bool {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let of_owner = name.strip_prefix("jobworker-");
    of_owner.is_some_and(|rest| rest.parse::<uuid::Uuid>().is_ok())
        || name.starts_with("jobworker@")
}

impl World {
    /// A world with the default configuration. Where no cgroup can be made, prints why the test is
    /// skipped and returns `None`.
    pub(crate) fn new() -> Option<Self> {
        Self::with(|_| {})
    }

    /// Like [`new`](Self::new), with a configuration that `change` has changed.
    pub(crate) fn with(change: impl FnOnce(&mut Config)) -> Option<Self> {
        let place = Place::new();
        if place.cgroup.is_none() {
            skip_outside_vm(NO_CGROUP);
            return None;
        }
        let mut config = place.config();
        change(&mut config);
        let reactor = Reactor::with_config(&config).unwrap_or_else(|error| panic!("{error}"));
        Some(Self::around(reactor, place))
    }

    /// A world around a reactor.
    pub(crate) fn around(reactor: Reactor, place: Place) -> Self {
        Self {
            reactor,
            events: Events::with_capacity(256),
            transcripts: HashMap::new(),
            exited: HashMap::new(),
            finished: HashMap::new(),
            turns: 0,
            woken: 0,
            resource_events: Vec::new(),
            place,
        }
    }

    /// Whether these controllers are available to the jobs of this world. If not, prints why the
    /// test is skipped.
    #[track_caller]
    pub(crate) fn has_controllers(&self, names: &[&str]) -> bool {
        let cgroup = self.place.cgroup.as_ref().expect("a world with a cgroup");
        let available = fs::read_to_string(cgroup.join("cgroup.controllers")).unwrap();
        let has_all =
            names.iter().all(|name| available.split_whitespace().any(|other| other == *name));
        if !has_all {
            skip_outside_vm(&format!(
                "the controllers {names:?} are needed, only these are available: {available:?}"
            ));
        }
        has_all
    }

    pub(crate) fn try_spawn(&mut self, command: &Command) -> Result<JobId, Error> {
        self.reactor.spawn(command, Token(0))
    }

    #[track_caller]
    pub(crate) fn spawn(&mut self, command: &Command) -> JobId {
        self.try_spawn(command).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Opens a tail that this world reads whenever it is readable.
    #[track_caller]
    pub(crate) fn tail(&mut self, job: JobId, options: impl Into<TailOptions>) -> TailId {
        let tail =
            self.reactor.tail(job, options, Token(0)).unwrap_or_else(|error| panic!("{error}"));
        self.transcripts.insert(tail, Transcript::default());
        tail
    }

    /// Opens a tail on any file, which this world reads whenever it is readable.
    #[track_caller]
    pub(crate) fn tail_file(
        &mut self,
        path: impl AsRef<Path>,
        options: impl Into<TailOptions>,
    ) -> TailId {
        let tail = self
            .reactor
            .tail_file(path, options, Token(0))
            .unwrap_or_else(|error| panic!("{error}"));
        self.transcripts.insert(tail, Transcript::default());
        tail
    }

    /// Polls once, reads every tail of this world that is readable, and checks the order of each
    /// job's events.
    pub(crate) fn turn(&mut self, timeout: Option<Duration>) {
        self.reactor.poll(&mut self.events, timeout).unwrap_or_else(|error| panic!("{error}"));
        self.turns += 1;
        let mut readable = Vec::new();
        for event in &self.events {
            match event {
                Event::Readable { tail, .. } => readable.push(*tail),
                Event::Exited { job, exit, .. } => {
                    assert_eq!(self.exited.insert(*job, *exit), None, "a second Exited of {job}");
                    assert!(!self.finished.contains_key(job), "Exited of {job} after Finished");
                }
                Event::Finished { job, report, .. } => {
                    assert!(self.exited.contains_key(job), "Finished of {job} before Exited");
                    assert!(
                        self.finished.insert(*job, Arc::clone(report)).is_none(),
                        "a second Finished of {job}"
                    );
                }
                Event::Woken => self.woken += 1,
                Event::Pressure { .. }
                | Event::SystemPressure { .. }
                | Event::Oom { .. }
                | Event::LogLimit { .. }
                | Event::LogSpace { .. }
                | Event::Frozen { .. }
                | Event::Thawed { .. } => self.resource_events.push(event.clone()),
                other => panic!("unexpected {other:?}"),
            }
        }
        for tail in readable {
            if let Some(transcript) = self.transcripts.get_mut(&tail) {
                transcript.events += 1;
                self.drain(tail);
            }
        }
    }

    /// Reads a tail until it has nothing more.
    pub(crate) fn drain(&mut self, tail: TailId) {
        let transcript = self.transcripts.get_mut(&tail).expect("a tail of this world");
        let mut buffer = [0; 4096];
        loop {
            match self.reactor.read(tail, &mut buffer).unwrap_or_else(|error| panic!("{error}")) {
                Read::Data(length) => {
                    assert!(length > 0 && !transcript.ended, "data after the end");
                    transcript.bytes.extend_from_slice(&buffer[..length]);
                }
                Read::Truncated => transcript.truncated_at.push(transcript.bytes.len()),
                Read::Skipped { bytes } => {
                    transcript.skipped_at.push((transcript.bytes.len(), bytes));
                }
                Read::Replaced { missed } => {
                    transcript.replaced_at.push((transcript.bytes.len(), missed));
                }
                Read::Ended => {
                    transcript.ended = true;
                    return;
                }
                Read::UpToDate => {
                    assert!(!transcript.ended, "up to date after the end");
                    return;
                }
            }
        }
    }

    /// Runs turns until a condition holds, and panics when that takes too long.
    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, mut condition: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition(self) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "timed out waiting until {what}");
            self.turn(Some(left));
        }
    }

    /// Runs turns for a length of time, for what is measured over an interval.
    pub(crate) fn turn_for(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while let Some(left) =
            until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
        {
            self.turn(Some(left));
        }
    }

    /// Runs turns until a job is finished, and returns its report. By then every tail that this
    /// world has on the job has been read to its end.
    #[track_caller]
    pub(crate) fn finish(&mut self, job: JobId) -> Arc<Report> {
        self.until("the job is finished", |world| world.finished.contains_key(&job));
        Arc::clone(&self.finished[&job])
    }

    /// Runs a command to its end, and returns its whole output and its report.
    #[track_caller]
    pub(crate) fn run(&mut self, command: &Command) -> (String, Arc<Report>) {
        let job = self.spawn(command);
        let tail = self.tail(job, Position::Start);
        let report = self.finish(job);
        let text = self.text(tail);
        assert!(self.transcripts[&tail].ended, "the tail has not ended with the job");
        self.reactor.remove(job).unwrap();
        (text, report)
    }

    /// What a tail has read so far.
    pub(crate) fn text(&self, tail: TailId) -> String {
        String::from_utf8_lossy(&self.transcripts[&tail].bytes).into_owned()
    }

    /// The system resources that are held now.
    pub(crate) fn footprint(&self) -> Footprint {
        Footprint {
            census: self.reactor.census(),
            fds: fs::read_dir("/proc/self/fd").unwrap().count(),
            cgroups: self.place.cgroup.as_deref().map_or(0, |path| directories(path).len()),
            log_files: fs::read_dir(self.place.logs()).unwrap().count(),
            children: children(),
        }
    }
}

/// A mounted file system, which is unmounted on drop.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        // Detached, because files on it may still be open.
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

#[track_caller]
fn private_mount(kind: &str, path: &Path, options: &CStr) -> Option<Mounted> {
    // Deprecated because unsharing the descriptor table affects the I/O safety of other threads;
    // this unshares only mounts.
    #[allow(deprecated)]
    let unshared = rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNS);
    let private = || mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC);
    let mounted = || mount(kind, path, kind, MountFlags::empty(), options);
    if let Err(errno) = unshared.and_then(|()| private()).and_then(|()| mounted()) {
        skip(format_args!("no file system can be mounted here: {errno}"));
        return None;
    }
    Some(Mounted(path.to_owned()))
}

/// Sweeps, and returns what was removed. Other events that come meanwhile are dropped.
#[track_caller]
pub(crate) fn sweep(reactor: &mut Reactor) -> Arc<Swept> {
    reactor.sweep(Token(99)).unwrap_or_else(|error| panic!("{error}"));
    let mut events = Events::with_capacity(64);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "timed out waiting for a sweep");
        reactor.poll(&mut events, Some(left)).unwrap_or_else(|error| panic!("{error}"));
        for event in &events {
            if let Event::Swept { token: Token(99), swept } = event {
                return Arc::clone(swept);
            }
        }
    }
}

/// Has a job print its arguments, and compares them.
#[track_caller]
pub(crate) fn assert_arguments_arrive(world: &mut World, arguments: &[&[u8]]) {
    let mut command = Command::new("/usr/bin/printf");
    command.arg("<%s>").args(arguments.iter().copied().map(OsStr::from_bytes));
    let job = world.spawn(&command);
    let tail = world.tail(job, Position::Start);
    world.finish(job);
    let expected = arguments.iter().map(|argument| [b"<", *argument, b">"].concat());
    assert_eq!(world.transcripts[&tail].bytes, expected.collect::<Vec<_>>().concat());
}

/// Runs the calling test again in a process of its own, and returns `true` there: resources such as
/// descriptors can only be counted where no other test runs.
///
/// Use it as `if !alone!() { return; }` at the beginning of a test. With arguments, the process is
/// started through that command, as in `alone!("env", "NAME=value")`, for what it could not safely
/// change itself.
macro_rules! alone {
    ($($through:expr),*) => {{
        fn here() {}
        $crate::support::run_alone(std::any::type_name_of_val(&here), &[$($through),*])
    }};
}
pub(crate) use alone;

/// As [`alone`], for a host that is not root and has these capabilities as ambient ones; `false`
/// also where there can be none.
macro_rules! alone_with_capabilities {
    ($capabilities:literal) => {{
        fn here() {}
        let here = std::any::type_name_of_val(&here);
        $crate::support::run_with_capabilities(here, $capabilities)
    }};
}
pub(crate) use alone_with_capabilities;

/// See [`alone_with_capabilities`].
pub(crate) fn run_with_capabilities(here: &str, capabilities: &str) -> bool {
    const USER: u32 = 61_233;
    let user = rustix::process::geteuid();
    if !user.is_root() && user.as_raw() != USER {
        skip("only root can give capabilities to another user");
        return false;
    }
    if !fs::exists("/usr/bin/setpriv").unwrap() {
        skip_outside_vm("setpriv is needed");
        return false;
    }
    let through = [
        "setpriv".to_owned(),
        format!("--reuid={USER}"),
        format!("--regid={USER}"),
        format!("--groups=4,{USER}"),
        format!("--inh-caps={capabilities}"),
        format!("--ambient-caps={capabilities}"),
    ];
    run_alone(here, &through.each_ref().map(String::as_str))
}

/// See [`alone`]; `here` is the path of a function inside the test.
pub(crate) fn run_alone(here: &str, through: &[&str]) -> bool {
    const MARK: &str = "JOBWORKER_TEST_ALONE";
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let path = here.trim_end_matches("::here");
    let name = path.split_once("::").expect("a path below the crate").1;
    let program = std::env::current_exe().unwrap();
    let mut line = through.iter().map(OsStr::new).chain([program.as_os_str()]);
    let mut command = std::process::Command::new(line.next().expect("the program at least"));
    command.args(line).args([name, "--exact", "--nocapture", "--test-threads=1"]).env(MARK, "1");
    let skips = Elsewhere::told_by(&mut command);
    let status = command.status().unwrap();
    skips.count(name);
    assert!(status.success(), "{name} failed in a process of its own");
    false
}

/// Appends to a file, like a program that knows nothing of its readers.
#[track_caller]
pub(crate) fn append(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
    let mut file = fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
    file.write_all(bytes.as_ref()).unwrap();
}

/// Waits until a process has exited, without reaping it.
#[track_caller]
pub(crate) fn wait_for_exit(pidfd: impl AsFd) {
    let timeout = PATIENCE.try_into().unwrap();
    let wait = || rustix::event::poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout));
    assert_eq!(retry_on_intr(wait).unwrap(), 1, "the process did not exit");
}

/// How many children this process has, zombies included.
pub(crate) fn children() -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let lists =
        tasks.map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default());
    lists.map(|list| list.split_whitespace().count()).sum()
}

/// Whether a process with this pid exists and is not a zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .and_then(|rest| rest.split_whitespace().next())
        .is_some_and(|state| state != "Z")
}

/// A pidfd of a running process or a zombie. Unlike the pid, it never refers to another process.
#[track_caller]
pub(crate) fn pidfd(pid: u32) -> OwnedFd {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    pidfd_open(pid, PidfdFlags::empty()).unwrap_or_else(|error| panic!("process {pid:?}: {error}"))
}

/// Whether a process has exited. A dying process closes its files and leaves its cgroup shortly
/// before its pidfd becomes readable, so this waits; one that was not killed runs far longer than
/// that.
pub(crate) fn is_dead(process: &OwnedFd) -> bool {
    await_exit(process, PATIENCE)
}

/// Whether the process behind a pidfd has exited.
pub(crate) fn has_exited(pidfd: &OwnedFd) -> bool {
    await_exit(pidfd, Duration::ZERO)
}

/// Waits until the process behind a pidfd has exited, and returns whether it has.
pub(crate) fn await_exit(pidfd: &OwnedFd, timeout: Duration) -> bool {
    let timeout = Timespec::try_from(timeout).unwrap();
    poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&timeout)).unwrap() == 1
}

/// The pids of the processes in a cgroup.
pub(crate) fn members(cgroup: &Path) -> Vec<u32> {
    let list = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap();
    list.lines().map(|line| line.parse().unwrap()).collect()
}

/// Kills what a test has left running in a cgroup on purpose, waits until it is gone, and removes
/// the group.
#[track_caller]
pub(crate) fn end_group(cgroup: &Path) {
    let pids = members(cgroup);
    let pidfds: Vec<OwnedFd> = pids.into_iter().map(pidfd).collect();
    fs::write(cgroup.join("cgroup.kill"), "1").unwrap();
    for pidfd in &pidfds {
        assert!(await_exit(pidfd, PATIENCE), "a killed process is still running");
    }
    fs::remove_dir(cgroup)
        .unwrap_or_else(|error| panic!("cannot remove {}: {error}", cgroup.display()));
}

/// How much memory of its own this process uses, in bytes. The count of all resident pages would
/// grow with each piece of the program that runs for the first time, and is not exact.
pub(crate) fn resident_bytes() -> usize {
    let sums = fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let anonymous = sums.lines().find_map(|line| line.strip_prefix("Anonymous:"));
    let kib: usize = anonymous.unwrap().trim().trim_end_matches(" kB").parse().unwrap();
    kib * 1024
}

/// Whether the kernel keeps how a process has ended for whoever has its pidfd: since Linux 6.15.
pub(crate) fn kernel_keeps_exits() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse().unwrap_or(0));
    let version: (u32, u32) = (numbers.next().unwrap(), numbers.next().unwrap());
    version >= (6, 15)
}
