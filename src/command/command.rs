//! Owns [`Command`]: what to run and how, as plain data.
//!
//! Invariant: building a command does no I/O and cannot fail; everything is checked by
//! [`Reactor::spawn`](crate::Reactor::spawn). Knows nothing of cgroups, processes or the loop.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::fd::{OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::command::capability::Capability;
use crate::command::io_priority::IoPriority;
use crate::command::limits::Limits;
use crate::command::quote::Quoted;
use crate::command::signal::Signal;
use crate::command::stdio::{Output, Stdin};
use crate::command::units::ByteSize;
use crate::command::view::CommandView;

/// Where a program name without a slash is searched for if the job's environment has no `PATH`.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program to run as a job, with everything the job starts with.
///
/// It mirrors [`std::process::Command`], is reusable, and does no I/O until
/// [`Reactor::spawn`](crate::Reactor::spawn).
///
/// # Defaults
/// The environment is **empty**, standard input is `/dev/null`, standard output and standard error
/// share one log, and the working directory is the host's. The job leads a session of its own, so
/// it has no controlling terminal unless its output is [one](Output::Terminal), and has no limits
/// and no time limit. Its stop signal is SIGTERM, with a grace period of ten seconds, and it ends
/// with its main process.
///
/// In the child every signal has its default disposition, no signal is blocked, and no file
/// descriptors are open except 0, 1, 2 and those of [`pass_fd`](Self::pass_fd).
///
/// # What is inherited
/// Whatever is not set here is the host's, or that of its thread that spawns the job: user, groups
/// and capabilities, [`umask`](Self::umask), the limits of [`rlimit`](Self::rlimit),
/// [`oom_score_adj`](Self::oom_score_adj), [`nice`](Self::nice) value, scheduling
/// [policy](Self::scheduler) and [processors](Self::cpu_affinity),
/// [`io_priority`](Self::io_priority), [session keyring](Self::new_session_keyring),
/// [bounding set](Self::capability_bounding_set), [`securebits`](Self::securebits), seccomp
/// filters, namespaces and [root directory](Self::chroot). A change of the user changes the user,
/// the groups and the capabilities alone. A host that is protected from the OOM killer or runs with
/// a real-time policy passes that on, unless it sets both for the programs that it does not trust.
///
/// # How the program is found
/// A name with a slash is used as it is, relative to the job's working directory. Any other name is
/// searched for in the `PATH` of the *job's* environment, or in [`DEFAULT_PATH`] if that has none.
/// As with execvp(3), a file that may not be executed does not end the search, but makes the error
/// `EACCES` instead of `ENOENT` if nothing else is found. An entry that is not a directory, is too
/// long or is a loop of symbolic links is passed over.
///
/// ```
/// use jobworker::Command;
/// use std::time::Duration;
///
/// let mut command = Command::new("sh");
/// command.args(["-c", "echo $GREETING"]).env("GREETING", "hello");
/// command.time_limit(Duration::from_secs(5));
/// ```
///
/// # What is printed
/// `Display` writes the program and its arguments, quoted so that they can be pasted into a shell.
/// `Debug` writes everything but the *values* of the environment and the content of
/// [`Stdin::Bytes`], and no error of this crate contains them either: they may be secret.
/// Arguments are printed, and every user of the system can read them in `/proc`.
///
/// ```
/// use jobworker::Command;
///
/// let mut command = Command::new("grep");
/// command.args(["-F", "it's", "notes.txt"]).env("TOKEN", "secret");
/// assert_eq!(command.to_string(), r"grep -F 'it'\''s' notes.txt");
/// assert!(!format!("{command:?}").contains("secret"));
/// ```
#[derive(Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default = "Command::unset", deny_unknown_fields))]
#[must_use = "a command does nothing until it is spawned"]
pub struct Command {
    #[cfg_attr(feature = "serde", serde(with = "crate::portable"))]
    pub(crate) program: OsString,
    #[cfg_attr(feature = "serde", serde(with = "crate::portable"))]
    pub(crate) arg0: Option<OsString>,
    #[cfg_attr(feature = "serde", serde(with = "crate::portable"))]
    pub(crate) args: Vec<OsString>,
    pub(crate) inherit_env: bool,
    /// `None` removes a variable of the host.
    #[cfg_attr(feature = "serde", serde(with = "crate::portable"))]
    pub(crate) env: BTreeMap<OsString, Option<OsString>>,
    #[cfg_attr(feature = "serde", serde(with = "crate::portable"))]
    pub(crate) current_dir: Option<PathBuf>,
    #[cfg_attr(feature = "serde", serde(with = "crate::portable"))]
    pub(crate) chroot: Option<PathBuf>,
    pub(crate) stdin: Stdin,
    pub(crate) output: Output,
    /// Besides the standard streams, by the number that they have in the job.
    #[cfg_attr(feature = "serde", serde(with = "crate::portable"))]
    pub(crate) descriptors: BTreeMap<RawFd, Arc<OwnedFd>>,
    pub(crate) keep_log: bool,
    pub(crate) log_keep: Option<ByteSize>,
    pub(crate) log_limit: Option<(ByteSize, OverLimit)>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) groups: Option<Vec<u32>>,
    pub(crate) umask: Option<u32>,
    pub(crate) rlimits: Vec<(Resource, Option<u64>, Option<u64>)>,
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) nice: Option<i32>,
    pub(crate) scheduler: Option<Scheduler>,
    pub(crate) cpu_affinity: Option<BTreeSet<u32>>,
    pub(crate) io_priority: Option<IoPriority>,
    pub(crate) new_session_keyring: bool,
    /// A bit for each capability that it has.
    pub(crate) capability_bounding_set: Option<u64>,
    pub(crate) securebits: Option<u32>,
    pub(crate) no_new_privs: bool,
    pub(crate) process_group: ProcessGroup,
    pub(crate) parent_death_signal: Option<Signal>,
    pub(crate) detached: bool,
    pub(crate) survives: bool,
    #[cfg_attr(feature = "serde", serde(with = "crate::portable"))]
    pub(crate) label: Arc<[u8]>,
    pub(crate) end_policy: EndPolicy,
    pub(crate) stop_signal: Signal,
    pub(crate) grace: Duration,
    pub(crate) time_limit: Option<Duration>,
    pub(crate) limits: Limits,
    /// `None` means: if there are limits.
    pub(crate) accounting: Option<bool>,
}

/// Which process group and session the job starts in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum ProcessGroup {
    /// A new session led by the job, and so a new process group. It has no controlling terminal,
    /// and opening `/dev/tty` fails with `ENXIO`, unless the job's output is a terminal of its own
    /// ([`Output::Terminal`]).
    #[default]
    Session,
    /// A new process group led by the job, in the host's session.
    ///
    /// # Kernel trap
    /// The job has the host's controlling terminal, if there is one: it can open `/dev/tty`,
    /// whoever its user is, read what is typed there, and, where the kernel allows `TIOCSTI`
    /// (before Linux 6.2, or with the sysctl `dev.tty.legacy_tiocsti`), type commands into the
    /// shell that started the host. Only for programs that are trusted with that.
    Own,
    /// The host's process group and session: what a terminal sends to the host reaches the job as
    /// well. The job has the host's controlling terminal, with the same dangers as in
    /// [`Own`](Self::Own).
    Host,
}

/// When a job ends, and what happens to the processes that its main process leaves behind.
///
/// ```
/// use jobworker::{Command, EndPolicy};
///
/// // The server's start script returns at once; the job is the server.
/// let mut command = Command::new("/usr/local/bin/start-server");
/// command.end_policy(EndPolicy::WaitAll);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum EndPolicy {
    /// The job ends with its main process. What that leaves behind is killed without a grace
    /// period, then the job is finished. In a job that is being [stopped](crate::Reactor::stop),
    /// what is left has the grace period all the same.
    #[default]
    KillRest,
    /// The job continues, and its tails follow it, until its last process is gone.
    WaitAll,
    /// The job ends with its main process. What that leaves behind keeps running in the job's
    /// cgroup, which is then not removed.
    ///
    /// For every tail the log ends at the size that it has when the job finishes. What is written
    /// afterwards is in the file, but is not part of this job's output. A
    /// [`stop`](crate::Reactor::stop) or a time limit stops those processes as well.
    LeaveRest,
}

/// What happens to a job whose log becomes longer than its
/// [`log_limit`](Command::log_limit).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum OverLimit {
    /// It is stopped, with its grace period, as by [`Reactor::stop`](crate::Reactor::stop).
    Stop,
    /// It is killed.
    Kill,
    /// It goes on, and what it prints beyond the limit is given back to the file system as it
    /// comes. Its tails wait at the limit, and end there.
    Discard,
}

/// A resource whose use the kernel limits per process; see getrlimit(2).
///
/// ```
/// use jobworker::{Command, Resource};
///
/// let mut command = Command::new("cc");
/// command.rlimit(Resource::OpenFiles, Some(1024), Some(4096));
/// command.rlimit(Resource::Core, Some(0), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[doc(alias = "RLIMIT_NOFILE")]
#[non_exhaustive]
pub enum Resource {
    /// CPU time in seconds.
    Cpu,
    /// Largest file in bytes.
    FileSize,
    /// Data segment in bytes.
    Data,
    /// Stack in bytes.
    Stack,
    /// Core dump in bytes.
    Core,
    /// Number of processes of the user.
    Processes,
    /// One more than the highest file descriptor number.
    OpenFiles,
    /// Locked memory in bytes.
    LockedMemory,
    /// Address space in bytes.
    AddressSpace,
    /// Number of queued signals of the user.
    PendingSignals,
    /// Bytes in POSIX message queues of the user.
    MessageQueues,
    /// Ceiling of the nice value.
    Nice,
    /// Ceiling of the real-time priority.
    RealtimePriority,
    /// CPU time in microseconds of a real-time process without a blocking call.
    RealtimeTime,
}

/// How the kernel schedules a job's threads; see sched(7).
///
/// ```
/// use jobworker::{Command, Scheduler};
///
/// let mut command = Command::new("updatedb");
/// command.scheduler(Scheduler::Idle);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[doc(alias = "SCHED_FIFO")]
#[non_exhaustive]
pub enum Scheduler {
    /// The default policy, by [`nice`](Command::nice) value.
    #[doc(alias = "SCHED_OTHER")]
    Normal,
    /// As the default policy, for work that is not interactive.
    Batch,
    /// Only when nothing else is to run.
    Idle,
    /// Real-time, first in, first out, with a priority of 1 to 99. A job that does not sleep takes
    /// its processor from everything of a lower priority, its host included.
    Fifo(u8),
    /// Real-time, in turns with others of the same priority of 1 to 99.
    RoundRobin(u8),
}

impl Command {
    /// A command that runs `program` with no arguments and the defaults above.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            arg0: None,
            args: Vec::new(),
            inherit_env: false,
            env: BTreeMap::new(),
            current_dir: None,
            chroot: None,
            stdin: Stdin::Null,
            output: Output::Combined,
            descriptors: BTreeMap::new(),
            keep_log: false,
            log_keep: None,
            log_limit: None,
            uid: None,
            gid: None,
            groups: None,
            umask: None,
            rlimits: Vec::new(),
            oom_score_adj: None,
            nice: None,
            scheduler: None,
            cpu_affinity: None,
            io_priority: None,
            new_session_keyring: false,
            capability_bounding_set: None,
            securebits: None,
            no_new_privs: false,
            process_group: ProcessGroup::Session,
            parent_death_signal: None,
            detached: false,
            survives: false,
            label: Arc::default(),
            end_policy: EndPolicy::KillRest,
            stop_signal: Signal::TERM,
            grace: Duration::from_secs(10),
            time_limit: None,
            limits: Limits::new(),
            accounting: None,
        }
    }

    /// What the fields have that were not serialized.
    #[cfg(feature = "serde")]
    fn unset() -> Self {
        Self::new("")
    }

    /// What was set, for reading.
    ///
    /// ```
    /// use jobworker::Command;
    ///
    /// let mut command = Command::new("make");
    /// command.args(["-j", "4"]).uid(1000).gid(1000);
    /// let view = command.view();
    /// assert_eq!(view.program(), "make");
    /// assert!(view.args().eq(["-j", "4"]));
    /// assert_eq!(view.uid(), Some(1000));
    /// ```
    #[must_use]
    pub fn view(&self) -> CommandView<'_> {
        CommandView::new(self)
    }

    /// Sets `argv[0]`, the name by which the program sees itself; without it, that is the program
    /// as it was given. A shell takes a leading hyphen as the sign of a login shell, for example.
    /// Which file is executed does not depend on it.
    ///
    /// ```
    /// use jobworker::{Command, Position, Reactor, Token};
    ///
    /// let mut reactor = Reactor::new()?;
    /// let mut command = Command::new("/bin/sh");
    /// command.arg0("-name").args(["-c", "echo $0"]);
    /// let job = reactor.spawn(&command, Token(1))?;
    /// reactor.wait(job)?;
    /// let tail = reactor.tail(job, Position::Start, Token(2))?;
    /// assert_eq!(reactor.next_chunk(tail)?.unwrap().bytes, b"-name\n");
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    pub fn arg0(&mut self, name: impl AsRef<OsStr>) -> &mut Self {
        self.arg0 = Some(name.as_ref().to_owned());
        self
    }

    /// Adds one argument. It is passed as it is, without a shell.
    pub fn arg(&mut self, arg: impl AsRef<OsStr>) -> &mut Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args<I, S>(&mut self, args: I) -> &mut Self
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets a variable of the job's environment.
    pub fn env(&mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Self {
        self.env.insert(key.as_ref().to_owned(), Some(value.as_ref().to_owned()));
        self
    }

    /// Sets variables of the job's environment.
    pub fn envs<I, K, V>(&mut self, variables: I) -> &mut Self
    where
        I: IntoIterator<Item = (K, V)>,
        K: AsRef<OsStr>,
        V: AsRef<OsStr>,
    {
        for (key, value) in variables {
            self.env(key, value);
        }
        self
    }

    /// Removes a variable from the job's environment, whether it was set here or is inherited.
    pub fn env_remove(&mut self, key: impl AsRef<OsStr>) -> &mut Self {
        self.env.insert(key.as_ref().to_owned(), None);
        self
    }

    /// Starts from the host's environment at the time of the spawn, instead of from an empty one.
    pub fn inherit_env(&mut self) -> &mut Self {
        self.inherit_env = true;
        self
    }

    /// Makes this directory, which is relative to the host's working directory, the job's root
    /// directory. Needs `CAP_SYS_CHROOT`.
    ///
    /// It is entered before the user changes. The [working directory](Self::current_dir), which is
    /// `/` unless it is set, and the program with its interpreter and libraries are found below the
    /// new root, and `PATH` is searched there. Whatever else the program needs, such as a mounted
    /// `/proc`, must be there too. The log and a [`stdin_file`](Self::stdin_file) are opened by the
    /// host, outside.
    ///
    /// # Kernel trap
    /// A changed root directory is no sandbox: a process that has `CAP_SYS_CHROOT` itself, as root
    /// does, leaves it at will. Set a [`uid`](Self::uid), or a
    /// [bounding set](Self::capability_bounding_set) without that capability.
    ///
    /// ```
    /// use jobworker::Command;
    ///
    /// let mut command = Command::new("/bin/server");
    /// command.chroot("/srv/jail").current_dir("/data").uid(1000).gid(1000);
    /// ```
    pub fn chroot(&mut self, dir: impl AsRef<Path>) -> &mut Self {
        self.chroot = Some(dir.as_ref().to_owned());
        self
    }

    /// Sets the job's working directory. It is entered with the job's own user and groups, after
    /// the root directory was [changed](Self::chroot).
    pub fn current_dir(&mut self, dir: impl AsRef<Path>) -> &mut Self {
        self.current_dir = Some(dir.as_ref().to_owned());
        self
    }

    /// Sets where standard input comes from; the default is [`Stdin::Null`].
    pub fn stdin(&mut self, stdin: Stdin) -> &mut Self {
        self.stdin = stdin;
        self
    }

    /// Reads standard input from this file, which the *host* opens at each spawn.
    ///
    /// The host does not wait for the file. A FIFO is opened whether or not somebody has it open
    /// for writing; if nobody has, the job reads the end of the input at once. To keep a FIFO open
    /// until a writer comes, open it for reading and writing, and pass it to
    /// [`stdin_fd`](Self::stdin_fd). Reads of the job itself do wait.
    pub fn stdin_file(&mut self, path: impl AsRef<Path>) -> &mut Self {
        self.stdin(Stdin::File(path.as_ref().to_owned()))
    }

    /// Reads standard input from this file descriptor, such as one end of a pipe.
    ///
    /// All jobs that are spawned from this command and its clones share the descriptor. It is
    /// closed when the last of these commands is dropped.
    pub fn stdin_fd(&mut self, fd: impl Into<OwnedFd>) -> &mut Self {
        self.stdin(Stdin::fd(fd))
    }

    /// Reads these bytes from standard input, the same for each job; see [`Stdin::Bytes`].
    ///
    /// ```
    /// use jobworker::{Command, Position, Reactor, Token};
    ///
    /// let mut reactor = Reactor::new()?;
    /// let job = reactor.spawn(Command::new("sort").stdin_bytes("b\na\n"), Token(1))?;
    /// let tail = reactor.tail(job, Position::Start, Token(2))?;
    /// reactor.wait(job)?;
    /// assert_eq!(reactor.next_chunk(tail)?.unwrap().bytes, b"a\nb\n");
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    #[doc(alias = "memfd_create")]
    pub fn stdin_bytes(&mut self, bytes: impl Into<Vec<u8>>) -> &mut Self {
        self.stdin(Stdin::bytes(bytes))
    }

    /// Sets where standard output and standard error go.
    pub fn output(&mut self, output: Output) -> &mut Self {
        self.output = output;
        self
    }

    /// Gives the job a descriptor under this number, at least 3; of two under the same number, the
    /// later.
    ///
    /// The job has exactly these besides its standard streams, whatever numbers they have in the
    /// host, and whatever else the host has open. As with [`stdin_fd`](Self::stdin_fd), all jobs of
    /// this command and its clones share the open file, which is closed when the last of them is
    /// gone. The spawn refuses a number below 3, and fails at [`Stage::Descriptors`] if a number is
    /// not at least 8 below the host's `RLIMIT_NOFILE`.
    ///
    /// # Socket activation
    /// A program that understands the protocol of systemd, see sd_listen_fds(3), takes as many
    /// sockets as `LISTEN_FDS` says, from 3 on, if `LISTEN_PID` is its own process id. A shell that
    /// becomes the program knows that:
    ///
    /// ```
    /// use jobworker::Command;
    /// use std::net::TcpListener;
    ///
    /// let mut command = Command::new("sh");
    /// command.args(["-c", r#"export LISTEN_PID=$$; exec "$@""#, "sh"]);
    /// command.args(["my-server", "--quiet"]);
    /// command.env("LISTEN_FDS", "2").env("LISTEN_FDNAMES", "http:admin");
    /// command.pass_fd(3, TcpListener::bind("127.0.0.1:0")?);
    /// command.pass_fd(4, TcpListener::bind("127.0.0.1:0")?);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// [`Stage::Descriptors`]: crate::Stage::Descriptors
    #[doc(alias = "LISTEN_FDS")]
    pub fn pass_fd(&mut self, number: RawFd, fd: impl Into<OwnedFd>) -> &mut Self {
        self.descriptors.insert(number, Arc::new(fd.into()));
        self
    }

    /// Leaves the log file on disk when the job is removed or the reactor is dropped. Unless
    /// [`Config::log_dir`](crate::Config::log_dir) is set, an empty file `.keep` beside it records
    /// that, for [`Reactor::sweep`](crate::Reactor::sweep).
    pub fn keep_log(&mut self, keep: bool) -> &mut Self {
        self.keep_log = keep;
        self
    }

    /// Keeps the newest bytes of each log of the job, so many at least, and gives older ones back
    /// to the file system, however long the job prints. Less than 64 KiB counts as 64 KiB.
    ///
    /// Offsets do not change: the log begins later. A tail that has not read what is gone returns
    /// [`Read::Skipped`](crate::Read::Skipped) with the exact number of bytes;
    /// [`Position::Start`](crate::Position::Start) is the first byte that was kept, which need not
    /// begin a line. The chapter on [retention](crate::guide::retention) says how much more than
    /// this a log can take for a moment, and on which file systems it works. Other programs read
    /// what is gone as NULs, also in a log that is [kept](Self::keep_log) after the job.
    ///
    /// It takes one descriptor and one inotify watch for each log, even if nobody reads it, and
    /// nothing while the job prints nothing. It has no effect on a job without a log.
    ///
    /// ```
    /// use jobworker::{ByteSize, Command, Position, Reactor, Read, Token};
    ///
    /// let mut reactor = Reactor::new()?;
    /// let mut command = Command::new("seq");
    /// command.arg("100000").log_keep(ByteSize::from_kib(64));
    /// let job = reactor.spawn(&command, Token(1))?;
    /// let report = reactor.wait(job)?;
    /// let begin = report.output_bytes - 65536;
    /// let tail = reactor.tail(job, Position::Offset(0), Token(2))?;
    /// let mut buffer = [0; 4096];
    /// assert_eq!(reactor.read(tail, &mut buffer)?, Read::Skipped { bytes: begin });
    /// assert_eq!(reactor.read(tail, &mut buffer)?, Read::Data(4096));
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`SystemError::CannotPunch`](crate::SystemError::CannotPunch) at the spawn, if the file
    /// system of the logs cannot give back parts of a file.
    #[doc(alias("fallocate", "FALLOC_FL_PUNCH_HOLE"))]
    pub fn log_keep(&mut self, bytes: ByteSize) -> &mut Self {
        self.log_keep = Some(bytes);
        self
    }

    /// Sets how long each log of the job may become, and what happens if one becomes longer:
    /// [`Event::LogLimit`](crate::Event::LogLimit) comes once for each log, the report says so, and
    /// the job is stopped or killed, or prints on for nobody.
    ///
    /// The length is that of what was printed, whatever is [kept](Self::log_keep) of it; a job that
    /// truncates its log begins again. A job is noticed while it writes, without being slowed down:
    /// the log can become longer by what it prints in 10 ms before that. The chapter on
    /// [retention](crate::guide::retention) says what this costs.
    ///
    /// ```
    /// use jobworker::{ByteSize, Command, OverLimit, Reactor, StopCause, Token};
    ///
    /// let mut reactor = Reactor::new()?;
    /// let mut command = Command::new("yes");
    /// command.log_limit(ByteSize::from_kib(64), OverLimit::Kill);
    /// let job = reactor.spawn(&command, Token(1))?;
    /// let report = reactor.wait(job)?;
    /// assert_eq!(report.stopped_by, Some(StopCause::LogLimit));
    /// assert!(report.log_limit_exceeded && report.output_bytes > 65536);
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    ///
    /// # Errors
    /// With [`OverLimit::Discard`] as for [`log_keep`](Self::log_keep).
    pub fn log_limit(&mut self, bytes: ByteSize, then: OverLimit) -> &mut Self {
        self.log_limit = Some((bytes, then));
        self
    }

    /// Runs the job as this user: real, effective and saved user id.
    ///
    /// The [`gid`](Self::gid) must be set as well: without it, the job would stay in the host's
    /// group. The job has the supplementary [`groups`](Self::groups) that are given, or none, and
    /// no ambient or inheritable capabilities, so that a user other than root has none at all. For
    /// all of this the host must be root, or have `CAP_SETUID` and `CAP_SETGID`, even if the ids
    /// are its own.
    #[doc(alias = "setresuid")]
    pub fn uid(&mut self, uid: u32) -> &mut Self {
        self.uid = Some(uid);
        self
    }

    /// Runs the job with this group: real, effective and saved group id.
    ///
    /// As with [`uid`](Self::uid), the job has no supplementary groups other than those given, and
    /// no ambient or inheritable capabilities.
    #[doc(alias = "setresgid")]
    pub fn gid(&mut self, gid: u32) -> &mut Self {
        self.gid = Some(gid);
        self
    }

    /// Runs the job with exactly these supplementary groups.
    #[doc(alias = "setgroups")]
    pub fn groups(&mut self, groups: impl IntoIterator<Item = u32>) -> &mut Self {
        self.groups = Some(groups.into_iter().collect());
        self
    }

    /// Sets the job's file mode creation mask; only the lowest nine bits count. Without it the job
    /// has the host's. It does not apply to the log, which the host creates.
    pub fn umask(&mut self, mask: u32) -> &mut Self {
        self.umask = Some(mask);
        self
    }

    /// Limits a resource for each of the job's processes; `None` is no limit.
    ///
    /// Limits are set before the user changes, so a privileged host can raise them.
    #[doc(alias = "setrlimit")]
    pub fn rlimit(
        &mut self,
        resource: Resource,
        soft: Option<u64>,
        hard: Option<u64>,
    ) -> &mut Self {
        self.rlimits.push((resource, soft, hard));
        self
    }

    /// Sets how willing the OOM killer is to choose the job's processes: from -1000, never, to
    /// 1000, first. Without it they are as protected as the host.
    ///
    /// It is set before the user changes. A lower value than the host's can need
    /// `CAP_SYS_RESOURCE`. A `/proc` of the host's PID namespace must be mounted.
    pub fn oom_score_adj(&mut self, adjustment: i32) -> &mut Self {
        self.oom_score_adj = Some(adjustment);
        self
    }

    /// Sets the job's nice value, from -20, most favored, to 19.
    ///
    /// It is set before the user changes. A lower value than the host's needs `CAP_SYS_NICE`, or
    /// `RLIMIT_NICE`.
    ///
    /// # Kernel trap
    /// The job has its value before its program executes, which the host waits for in
    /// [`spawn`](crate::Reactor::spawn). On a busy machine, a high value prolongs that wait, and so
    /// does [`Scheduler::Idle`].
    #[doc(alias = "setpriority")]
    pub fn nice(&mut self, nice: i32) -> &mut Self {
        self.nice = Some(nice);
        self
    }

    /// Sets the scheduling policy of the job, before the user changes. Without it the job has that
    /// of the thread that spawns it, real-time ones included.
    ///
    /// A real-time policy, and leaving [`Scheduler::Idle`], need `CAP_SYS_NICE`, or `RLIMIT_RTPRIO`
    /// and `RLIMIT_NICE`.
    #[doc(alias = "sched_setscheduler")]
    pub fn scheduler(&mut self, scheduler: Scheduler) -> &mut Self {
        self.scheduler = Some(scheduler);
        self
    }

    /// Sets the processors that the job may run on, by number, before the user changes. Without it,
    /// they are those of the thread that spawns the job.
    ///
    /// The kernel leaves out processors that do not exist or that the cpuset of the job's cgroup
    /// does not have, and fails with `EINVAL` if none is left. A job can set another affinity for
    /// itself; [`Limits::cpuset_cpus`] binds it.
    ///
    /// ```
    /// use jobworker::Command;
    ///
    /// let mut command = Command::new("render");
    /// command.cpu_affinity([0, 2, 3]);
    /// ```
    #[doc(alias = "sched_setaffinity")]
    #[doc(alias = "taskset")]
    pub fn cpu_affinity(&mut self, processors: impl IntoIterator<Item = u32>) -> &mut Self {
        self.cpu_affinity = Some(processors.into_iter().collect());
        self
    }

    /// Sets how the job's requests to disks are served beside those of others, before the user
    /// changes. Without it, the job has the priority of the thread that spawns it.
    ///
    /// A level above 7 is refused by the spawn.
    #[doc(alias = "ioprio_set")]
    #[doc(alias = "ionice")]
    pub fn io_priority(&mut self, priority: IoPriority) -> &mut Self {
        self.io_priority = Some(priority);
        self
    }

    /// Gives the job a new, empty session keyring. Without it the job has the host's, and with it
    /// the use of every key there, such as those of encrypted directories and of Kerberos, whatever
    /// the job's user is.
    ///
    /// The keyring is made before the user changes, so it counts towards the key quota of the
    /// host's user. The kernel removes it some time after the last process that has it.
    #[doc(alias = "KEYCTL_JOIN_SESSION_KEYRING")]
    pub fn new_session_keyring(&mut self, on: bool) -> &mut Self {
        self.new_session_keyring = on;
        self
    }

    /// Sets the capabilities that the job and its children can have at most, even as root or
    /// through set-user-ID files.
    ///
    /// The others are dropped from the bounding set, and the job has no ambient or inheritable
    /// capabilities. A job that stays root has exactly those that are given and that the host's own
    /// bounding set has. Dropping any needs `CAP_SETPCAP`.
    ///
    /// ```
    /// use jobworker::{Capability, Command};
    ///
    /// // Root, but only to bind to ports below 1024.
    /// let mut command = Command::new("/usr/sbin/dnsmasq");
    /// command.capability_bounding_set([Capability::NET_BIND_SERVICE]);
    /// ```
    #[doc(alias = "PR_CAPBSET_DROP")]
    pub fn capability_bounding_set(
        &mut self,
        capabilities: impl IntoIterator<Item = Capability>,
    ) -> &mut Self {
        let bits = capabilities.into_iter().fold(0, |bits, one| bits | 1 << one.as_raw());
        self.capability_bounding_set = Some(bits);
        self
    }

    /// Sets the secure bits, as linux/securebits.h numbers them: `0x3`, for example, is
    /// `SECBIT_NOROOT` with its lock, so that root has no capabilities by its user id, nor has a
    /// set-user-ID program of root. Needs `CAP_SETPCAP`; see capabilities(7).
    #[doc(alias = "PR_SET_SECUREBITS")]
    pub fn securebits(&mut self, bits: u32) -> &mut Self {
        self.securebits = Some(bits);
        self
    }

    /// Prevents the job and its children from gaining privileges by exec, such as through a
    /// set-user-ID file.
    #[doc(alias = "PR_SET_NO_NEW_PRIVS")]
    pub fn no_new_privs(&mut self, on: bool) -> &mut Self {
        self.no_new_privs = on;
        self
    }

    /// Sets the process group and session in which the job starts.
    #[doc(alias = "setsid")]
    #[doc(alias = "setpgid")]
    pub fn process_group(&mut self, group: ProcessGroup) -> &mut Self {
        self.process_group = group;
        self
    }

    /// Sets a signal that the kernel sends to the main process when the host dies, for any reason.
    ///
    /// # Kernel trap
    /// "The host" is the **thread** that called [`spawn`](crate::Reactor::spawn): the signal is
    /// sent when that thread exits, even if the process does not. The kernel clears the setting
    /// when the job executes a set-user-ID program. See `PR_SET_PDEATHSIG` in prctl(2).
    #[doc(alias = "PR_SET_PDEATHSIG")]
    pub fn parent_death_signal(&mut self, signal: Signal) -> &mut Self {
        self.parent_death_signal = Some(signal);
        self
    }

    /// Keeps the job running, with its cgroup and its log, when the reactor is dropped.
    ///
    /// It remains a child of the host's process. If that continues without the reactor, it has to
    /// reap the job itself. A job whose output is a [terminal](Output::Terminal) cannot be
    /// detached.
    pub fn detached(&mut self, on: bool) -> &mut Self {
        self.detached = on;
        self
    }

    /// Lets the job survive its host, in whatever way that ends: it is neither killed nor swept,
    /// and the next host of the same [name](crate::Config::name) takes it over with
    /// [`recover`](crate::Reactor::recover), until one has [removed](crate::Reactor::remove) it.
    ///
    /// Its record lies on its cgroup, and its output in its log. It costs a few writes of an
    /// extended attribute, some 10 µs each: two at the spawn, one at the exit, one at the end.
    ///
    /// Whether it is [detached](Self::detached) as well makes no difference.
    ///
    /// The host needs a [name](crate::Config::name) and cgroups, and the job an
    /// [`Output`](crate::Output) other than a terminal, which would end with the host. A standard
    /// input that is [piped](Stdin::Piped) ends with the host. See the chapter
    /// [`survival`](crate::guide::survival) of the guide.
    pub fn survives(&mut self, on: bool) -> &mut Self {
        self.survives = on;
        self
    }

    /// Sets bytes of the host's own that are part of the record of a job that
    /// [survives](Self::survives): what the next host needs to know of it. At most 16 KiB.
    pub fn label(&mut self, label: impl Into<Vec<u8>>) -> &mut Self {
        self.label = label.into().into();
        self
    }

    /// Sets when the job ends, and what happens to the processes that its main process leaves
    /// behind.
    pub fn end_policy(&mut self, policy: EndPolicy) -> &mut Self {
        self.end_policy = policy;
        self
    }

    /// Sets the signal that [`stop`](crate::Reactor::stop) sends to every process of the job.
    pub fn stop_signal(&mut self, signal: Signal) -> &mut Self {
        self.stop_signal = signal;
        self
    }

    /// Sets the time between a [`stop`](crate::Reactor::stop) and the kill of what is left; zero
    /// kills at once.
    pub fn grace(&mut self, grace: Duration) -> &mut Self {
        self.grace = grace;
        self
    }

    /// Stops the job, as [`stop`](crate::Reactor::stop) does, when it has run for this long.
    pub fn time_limit(&mut self, limit: Duration) -> &mut Self {
        self.time_limit = Some(limit);
        self
    }

    /// Sets whether the final report says what the job's cgroup has used. The default is to do so
    /// if the job has [`limits`](Self::limits).
    ///
    /// It costs reading up to a dozen small files when the job finishes, some microseconds each.
    /// The first job with `accounting(true)` makes the reactor enable the cpu, memory, io and pids
    /// controllers for jobs, where available. What needs a controller that is not available is
    /// `None` in [`Stats`](crate::Stats).
    pub fn accounting(&mut self, on: bool) -> &mut Self {
        self.accounting = Some(on);
        self
    }

    /// Sets the resource limits of the job's cgroup.
    pub fn limits(&mut self, limits: &Limits) -> &mut Self {
        self.limits = limits.clone();
        self
    }
}

/// Writes the command line, quoted for a POSIX shell: pasted into `sh`, it runs the same program
/// with the same arguments, unless it is named like a builtin of that shell.
///
/// Control characters, invisible ones and bytes that are not UTF-8 are written by their octal
/// numbers, as in `"$(printf '\377')"`; a line feed is written as it is, in quotes. Where the
/// program is searched for, and everything else that the job starts with, is not part of it.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Quoted::program(&self.program).fmt(f)?;
        self.args.iter().try_for_each(|arg| write!(f, " {}", Quoted::argument(arg)))
    }
}

/// Writes all fields, but of the environment only the names; see
/// [What is printed](Self#what-is-printed).
impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without `..`, so that a new field is not forgotten here.
        let Self {
            program,
            arg0,
            args,
            inherit_env,
            env,
            current_dir,
            chroot,
            stdin,
            output,
            descriptors,
            keep_log,
            log_keep,
            log_limit,
            uid,
            gid,
            groups,
            umask,
            rlimits,
            oom_score_adj,
            nice,
            scheduler,
            cpu_affinity,
            io_priority,
            new_session_keyring,
            capability_bounding_set,
            securebits,
            no_new_privs,
            process_group,
            parent_death_signal,
            detached,
            survives,
            label,
            end_policy,
            stop_signal,
            grace,
            time_limit,
            limits,
            accounting,
        } = self;
        f.debug_struct("Command")
            .field("program", program)
            .field("arg0", arg0)
            .field("args", args)
            .field("inherit_env", inherit_env)
            .field("env", &Names(env))
            .field("current_dir", current_dir)
            .field("chroot", chroot)
            .field("stdin", stdin)
            .field("output", output)
            .field("descriptors", descriptors)
            .field("keep_log", keep_log)
            .field("log_keep", log_keep)
            .field("log_limit", log_limit)
            .field("uid", uid)
            .field("gid", gid)
            .field("groups", groups)
            .field("umask", umask)
            .field("rlimits", rlimits)
            .field("oom_score_adj", oom_score_adj)
            .field("nice", nice)
            .field("scheduler", scheduler)
            .field("cpu_affinity", cpu_affinity)
            .field("io_priority", io_priority)
            .field("new_session_keyring", new_session_keyring)
            .field("capability_bounding_set", capability_bounding_set)
            .field("securebits", securebits)
            .field("no_new_privs", no_new_privs)
            .field("process_group", process_group)
            .field("parent_death_signal", parent_death_signal)
            .field("detached", detached)
            .field("survives", survives)
            .field("label", label)
            .field("end_policy", end_policy)
            .field("stop_signal", stop_signal)
            .field("grace", grace)
            .field("time_limit", time_limit)
            .field("limits", limits)
            .field("accounting", accounting)
            .finish()
    }
}

/// The names of variables, with whether each is set or removed.
struct Names<'a>(&'a BTreeMap<OsString, Option<OsString>>);

impl fmt::Debug for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = |value: &Option<_>| if value.is_some() { "set" } else { "removed" };
        f.debug_map().entries(self.0.iter().map(|(name, value)| (name, what(value)))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_reusable_plain_data() {
        let mut command = Command::new("sh");
        command.args(["-c", "true"]).env("A", "1").env_remove("A");
        let copy = command.clone();
        assert_eq!(copy.args, command.args);
        assert_eq!(copy.env[OsStr::new("A")], None);
    }
}
