//! Owns [`Config`]: how a reactor is set up.
//!
//! Plain data; everything is checked when the reactor is created.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::command::ByteSize;
use crate::job::{BoundedSpawns, Containment};

/// How a [`Reactor`](crate::Reactor) is set up.
///
/// ```
/// use jobworker::{Config, Reactor};
/// use std::time::Duration;
///
/// let mut config = Config::new();
/// config.pace(Duration::from_micros(500)).window_bytes(256 * 1024);
/// let reactor = Reactor::with_config(&config)?;
/// # drop(reactor);
/// # Ok::<(), jobworker::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a configuration does nothing until a reactor is created with it"]
pub struct Config {
    pub(crate) containment: Containment,
    pub(crate) cgroup_parent: Option<PathBuf>,
    pub(crate) name: Option<String>,
    pub(crate) wait_for_name: bool,
    pub(crate) host_leaf: Option<String>,
    pub(crate) log_dir: Option<PathBuf>,
    pub(crate) logs_total: Option<ByteSize>,
    pub(crate) history: Option<PathBuf>,
    pub(crate) history_sync: bool,
    pub(crate) keeper: Option<PathBuf>,
    pub(crate) bounded_spawns: BoundedSpawns,
    pub(crate) spawn_timeout: Duration,
    pub(crate) reap_orphans: bool,
    pub(crate) launcher: Option<PathBuf>,
    pub(crate) pace: Duration,
    pub(crate) window_bytes: usize,
    pub(crate) busy_poll: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            containment: Containment::Cgroup,
            cgroup_parent: None,
            name: None,
            wait_for_name: false,
            host_leaf: None,
            log_dir: None,
            logs_total: None,
            history: None,
            history_sync: true,
            keeper: None,
            bounded_spawns: BoundedSpawns::ChangingIds,
            spawn_timeout: Duration::from_secs(10),
            reap_orphans: false,
            launcher: None,
            pace: Duration::from_micros(200),
            window_bytes: 64 * 1024,
            busy_poll: Duration::ZERO,
        }
    }
}

impl Config {
    /// The defaults: jobs in cgroups, below a parent that suits the system, and logs in a new
    /// temporary directory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how the processes of a job are contained.
    pub fn containment(&mut self, containment: Containment) -> &mut Self {
        self.containment = containment;
        self
    }

    /// Sets the cgroup below which a cgroup is created for each job; it must exist.
    ///
    /// The default is the host's own cgroup if that was delegated (systemd marks it so for
    /// `Delegate=`), otherwise the root of the cgroup2 tree if that is writable, otherwise the
    /// host's own cgroup.
    pub fn cgroup_parent(&mut self, dir: impl AsRef<Path>) -> &mut Self {
        self.cgroup_parent = Some(dir.as_ref().to_owned());
        self
    }

    /// Names the host, so that jobs that [survive](crate::Command::survives) it are found by the
    /// next one of the same name: see [`Reactor::recover`](crate::Reactor::recover).
    ///
    /// There is one host of a name below a [`cgroup_parent`](Self::cgroup_parent): it holds
    /// flock(2) on a cgroup `jobworker@<name>` there, accessible to its user alone, and the kernel
    /// drops that with the host. At most 64 letters and digits of ASCII, `-`, `_` and `.`.
    ///
    /// # Errors
    /// Of [`Reactor::with_config`](crate::Reactor::with_config):
    /// [`SystemError::Name`](crate::SystemError::Name), and
    /// [`SystemError::NameTaken`](crate::SystemError::NameTaken) while another host has the name.
    pub fn name(&mut self, name: &str) -> &mut Self {
        self.name = Some(name.to_owned());
        self
    }

    /// Sets whether [`Reactor::with_config`](crate::Reactor::with_config) waits until the
    /// [name](Self::name) is free, however long another host has it, instead of failing.
    ///
    /// The kernel frees the name of a host that was killed when it has torn that down, shortly
    /// after the host's parent was told. So a host that is restarted waits for a moment; one that
    /// is started beside another takes over when that has ended. A signal handler that was
    /// installed without `SA_RESTART` ends the wait, with `EINTR`.
    #[doc(alias = "flock")]
    pub fn wait_for_name(&mut self, wait: bool) -> &mut Self {
        self.wait_for_name = wait;
        self
    }

    /// Moves the host itself into a cgroup of this name, below the one it is in, when the reactor
    /// is created.
    ///
    /// A cgroup that contains processes cannot enable controllers for the cgroups below it. If jobs
    /// are created below the host's own cgroup, as in a delegated one, limits therefore need the
    /// host to move out of it. The whole process moves. Other processes in the same cgroup are not
    /// moved, and still prevent limits. Moving takes some milliseconds.
    ///
    /// A host that is in a cgroup of this name already, because an earlier reactor has moved it
    /// there, is not moved again: the cgroup above that counts as its own. A cgroup that was
    /// delegated to the host is never taken for such a leaf.
    pub fn host_leaf(&mut self, name: &str) -> &mut Self {
        self.host_leaf = Some(name.to_owned());
        self
    }

    /// Sets the directory of the logs. It is made if it is missing, but not what is above it; one
    /// that is there must belong to the host's user, and be accessible to nobody else (mode 0700).
    ///
    /// It is not locked: hosts may share one, if none of them asks for
    /// [`stray_logs`](crate::Reactor::stray_logs). A [name](Self::name) keeps other hosts out only
    /// below the same cgroup parent.
    ///
    /// The default is a new directory `jobworker-logs-<uuid>` in [`std::env::temp_dir`], which is
    /// removed with the reactor unless logs are kept in it. The reactor holds flock(2) on it, so
    /// that [`Reactor::sweep`](crate::Reactor::sweep) can tell the directories of dead hosts, and
    /// systemd-tmpfiles leaves it alone.
    ///
    /// If the directory is removed while the reactor uses it, every later spawn of a job with a log
    /// is an error ([`SystemError::LogDirectory`](crate::SystemError::LogDirectory)); jobs that run
    /// already go on.
    pub fn log_dir(&mut self, dir: impl AsRef<Path>) -> &mut Self {
        self.log_dir = Some(dir.as_ref().to_owned());
        self
    }

    /// Sets how much the logs of all jobs may have together; by default that is not limited.
    ///
    /// If they have more, the logs of finished jobs are dropped, those first whose jobs have
    /// finished first, until it is enough: their bytes are given back to the file system, and tails
    /// that have not read them return [`Read::Skipped`](crate::Read::Skipped) with their number,
    /// and then the end. The log of a job that runs is never dropped: limit it by
    /// [`Command::log_keep`](crate::Command::log_keep) or
    /// [`Command::log_limit`](crate::Command::log_limit). Logs of removed jobs do not count.
    ///
    /// All logs are looked at for that, read or not, as the chapter on
    /// [retention](crate::guide::retention) says: it takes a descriptor and an inotify watch for
    /// each log of a running job, and a file system that can give back parts of a file.
    pub fn logs_total(&mut self, bytes: ByteSize) -> &mut Self {
        self.logs_total = Some(bytes);
        self
    }

    /// Keeps the final report of each job as a small file in this directory, `<job>.report`, for
    /// [`History`](crate::History) to read. It is made if it is missing, as the
    /// [`log_dir`](Self::log_dir) is, which it may be as well; one that is there must belong to the
    /// host's user, and be accessible to nobody else (mode 0700). The default is to keep none.
    ///
    /// A report is written and synced, and gets its name as a whole, before
    /// [`Event::Finished`](crate::Event::Finished) is reported, so that whoever knows of the end of
    /// a job finds its report, whatever happens afterwards. One that cannot be written is a problem
    /// in the report, and written again by a [recovery](crate::Reactor::recover) of the job. A host
    /// that is killed while it writes leaves nothing behind, unless the file system has no files
    /// without a name (`O_TMPFILE`), or a report is replaced: then a `<job>.report.new`, which the
    /// next report of the job and [`History::remove`](crate::History::remove) remove. The files are
    /// the host's to remove.
    ///
    /// # When it blocks
    /// The turn of the loop in which a job finishes waits for the disk, once for the file and once
    /// for the directory: from 0.1 ms on a good solid-state disk to some 20 ms on one that turns.
    /// Everything else waits meanwhile. A host that cannot afford that has its history in memory
    /// (tmpfs), or does without the [sync](Self::history_sync).
    pub fn history(&mut self, dir: impl AsRef<Path>) -> &mut Self {
        self.history = Some(dir.as_ref().to_owned());
        self
    }

    /// Sets whether each report of the [history](Self::history) is synced to the disk; the default
    /// is to do so.
    ///
    /// Without it, a report outlives the host in any case, but may be lost, or found damaged, when
    /// the whole system crashes within the next half minute or so.
    pub fn history_sync(&mut self, sync: bool) -> &mut Self {
        self.history_sync = sync;
        self
    }

    /// Names the socket of a [`Keeper`](crate::Keeper), of the type `SOCK_SEQPACKET`, which holds a
    /// pidfd of each job that [survives](crate::Command::survives) this host, so that the next host
    /// knows how a job has ended while there was none. It takes Linux 6.15 or later; before, it
    /// costs and changes nothing. The default is to have none.
    ///
    /// The pidfd of such a job is handed over before [`spawn`](crate::Reactor::spawn) returns, or
    /// [`recover`](crate::Reactor::recover), unless its main process has ended, and the keeper lets
    /// go of it when the job is [removed](crate::Reactor::remove).
    /// [`recovery`](crate::Reactor::recovery) asks for what it holds, in addition to the pidfds
    /// that [`recovery_with`](crate::Reactor::recovery_with) is given. Once a recovery has come to
    /// its end without an error, the keeper lets go of all that belongs to no job of this host: so
    /// each host has a keeper of its own. A host without a [name](Self::name), or without cgroups,
    /// has no jobs that survive it, and does not connect.
    ///
    /// # When the keeper is not there
    /// Nothing fails because of it, and nothing waits for it but a recovery that has jobs to find,
    /// for two seconds at most. Whatever is spawned, adopted or removed then tries to connect, for
    /// the cost of a connect(2), and the next keeper gets the pidfds of all jobs.
    /// [`Reactor::keeper_problem`](crate::Reactor::keeper_problem) says what is wrong. The exit of
    /// what ends while there is neither a host nor a keeper is
    /// [`Unknown`](crate::Exit::Unknown).
    ///
    /// ```
    /// use jobworker::{Config, Reactor};
    ///
    /// let mut config = Config::new();
    /// config.name(&format!("example-{}", std::process::id())).keeper("/run/agent/keeper");
    /// let reactor = Reactor::with_config(&config)?;
    /// # drop(reactor);
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    ///
    /// # Errors
    /// Of [`Reactor::with_config`](crate::Reactor::with_config):
    /// [`SystemError::Keeper`](crate::SystemError::Keeper) for a path of more than 107 bytes, as
    /// seen from the root.
    pub fn keeper(&mut self, socket: impl AsRef<Path>) -> &mut Self {
        self.keeper = Some(socket.as_ref().to_owned());
        self
    }

    /// Sets which spawns take no longer than the [`spawn_timeout`](Self::spawn_timeout); the
    /// default is those that change the user or group.
    pub fn bounded_spawns(&mut self, which: BoundedSpawns) -> &mut Self {
        self.bounded_spawns = which;
        self
    }

    /// Sets how long a [bounded](Self::bounded_spawns) spawn may wait for the child to execute its
    /// program; the default is ten seconds.
    ///
    /// When it has passed, the child is killed, and the spawn fails with
    /// [`SpawnError::TimedOut`](crate::SpawnError::TimedOut). It may wait another second for the
    /// child to die. Time that the kernel takes to make the child is not counted.
    pub fn spawn_timeout(&mut self, timeout: Duration) -> &mut Self {
        self.spawn_timeout = timeout;
        self
    }

    /// Sets whether the zombies that jobs leave behind are reaped; the default is not to.
    ///
    /// Only a host that is process 1 of its PID namespace, or a subreaper
    /// (`PR_SET_CHILD_SUBREAPER`), becomes the parent of the processes whose own parent has exited,
    /// and so has to reap them. It may have other children, which it waits for by itself: those are
    /// left alone. A child is reaped only if the kernel says that it was in the cgroup of a job
    /// that has ended, or below it. A child that the host has moved there itself counts as the
    /// job's.
    ///
    /// When a job has ended, the turns of the loop that follow look through the children of the
    /// host, about 100 in each, and reap what the job has left; no event reports that. Dropping the
    /// reactor waits for it. A turn takes about a millisecond longer meanwhile; living jobs cost
    /// next to nothing, other children of the host some 10 µs each.
    ///
    /// # What is not reaped
    /// * What exits while its job goes on is reaped when that ends.
    /// * Processes that run on when their job is finished: those of
    ///   [`EndPolicy::LeaveRest`](crate::EndPolicy::LeaveRest) and of
    ///   [detached](crate::Command::detached) jobs that outlive the reactor.
    /// * A process that has left the cgroup, or that was in one whose path is longer than 4,095
    ///   bytes, which the kernel does not tell.
    /// * With [`Containment::ProcessGroup`], a process that has left the process group and, before
    ///   Linux 6.9, any.
    ///
    /// It needs a kernel with `CONFIG_PROC_CHILDREN`, as distributions have it; otherwise creating
    /// the reactor fails with [`SystemError::Path`](crate::SystemError::Path).
    ///
    /// ```
    /// use jobworker::{Config, Reactor};
    ///
    /// let mut config = Config::new();
    /// // The first process of a container.
    /// config.reap_orphans(std::process::id() == 1);
    /// let reactor = Reactor::with_config(&config)?;
    /// # drop(reactor);
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    #[doc(alias = "subreaper")]
    pub fn reap_orphans(&mut self, reap: bool) -> &mut Self {
        self.reap_orphans = reap;
        self
    }

    /// Sets the program through which [bounded](Self::bounded_spawns) spawns go, so that their cost
    /// does not depend on the size of the host; by default they run on a copy of it.
    ///
    /// This is `jobworker-launcher`, a program of a package of its own, or any that calls
    /// [`run_launcher`](crate::run_launcher) first, the host included; of the same release of this
    /// crate as the host. It is opened, started and asked for its version when the reactor is
    /// created. Afterwards the open file is executed, whatever becomes of the path: one descriptor
    /// is held for it. Whoever can write to the file can do what the host can.
    ///
    /// The child executes it with an empty environment, the job's standard streams, and the host's
    /// ids and capabilities; it takes orders from a sealed descriptor alone. A host that is not
    /// root passes its capabilities on as ambient ones, which the launcher takes back before it
    /// does anything else; those that the host's bounding set lacks are lost. The memory that it
    /// uses until it executes the program, a fraction of a megabyte, counts for the job.
    ///
    /// ```no_run
    /// use jobworker::{Config, Reactor};
    ///
    /// let mut config = Config::new();
    /// config.launcher("/usr/libexec/jobworker-launcher");
    /// let reactor = Reactor::with_config(&config)?;
    /// # drop(reactor);
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    ///
    /// # Errors
    /// What is wrong with it is an error of [`Reactor::with_config`](crate::Reactor::with_config):
    /// [`SystemError::Launcher`](crate::SystemError::Launcher) for a program that is no launcher,
    /// or one of another version, and [`SystemError::Path`](crate::SystemError::Path) for one that
    /// cannot be opened or executed. There is no fallback to the copy.
    pub fn launcher(&mut self, program: impl AsRef<Path>) -> &mut Self {
        self.launcher = Some(program.as_ref().to_owned());
        self
    }

    /// Sets the time between two reads of a log that grows without a pause; the default is 200 µs.
    ///
    /// A log counts as hot after it has grown four times, each within one pace of the time before,
    /// or after fewer growths of many bytes, which a host finds that works between its polls.
    /// Growth after a pause is always noticed at once. Zero disables pacing: each growth then wakes
    /// the reactor, and slows the writer down. More than a second counts as a second.
    pub fn pace(&mut self, pace: Duration) -> &mut Self {
        self.pace = pace;
        self
    }

    /// Sets how many of a log's newest bytes its tails share in memory, and how many are read in
    /// one turn. The default is 64 KiB; less than 16 bytes counts as 16, more than 256 MiB as that.
    ///
    /// A log with tails uses up to three times as much memory. A tail that is further behind reads
    /// from the file.
    pub fn window_bytes(&mut self, bytes: usize) -> &mut Self {
        self.window_bytes = bytes;
        self
    }

    /// Sets how long [`poll`](crate::Reactor::poll) looks for events again and again before it goes
    /// to sleep; by default it sleeps at once.
    ///
    /// A processor that sleeps needs 10 to 100 µs to wake up, which is most of what a line or an
    /// exit takes from the job to the host. What comes while the reactor looks is noticed within a
    /// few microseconds. It reads the four logs that were waited for last at their ends, without
    /// waiting until the kernel reports them, and asks for everything else in between. From the
    /// write to one tail, the `tailers` benchmark has measured 5 µs (p50), a third to a half of
    /// what a bare loop takes that sleeps. This costs a processor: each call of `poll` that has to
    /// wait uses it for this long, and a host whose events come more often than that never gives it
    /// up.
    ///
    /// It has no effect on a host that watches the reactor's descriptor in a loop of its own, and
    /// polls it with a timeout of zero. The thread of a [`Worker`](crate::Worker) looks as well;
    /// its readers sleep.
    ///
    /// ```
    /// use jobworker::{Config, Reactor};
    /// use std::time::Duration;
    ///
    /// let mut config = Config::new();
    /// config.busy_poll(Duration::from_micros(500));
    /// let reactor = Reactor::with_config(&config)?;
    /// # drop(reactor);
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    #[doc(alias("spin", "SO_BUSY_POLL"))]
    pub fn busy_poll(&mut self, duration: Duration) -> &mut Self {
        self.busy_poll = duration;
        self
    }
}
