//! Owns [`Contained`]: what holds the processes of one job together, a cgroup or, if the host
//! chooses so, a process group.
//!
//! Invariant: a process group is signalled by the pidfd of its leader or, before Linux 6.9, by its
//! number while the leader is kept as a zombie, so that it cannot be somebody else's. Knows nothing
//! of the job's state.

use std::fs;
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::cgroup::{Group, Removal};
use crate::command::Signal;
use crate::error::{Error, Result};
use crate::job::delivery::{Delivery, needs_continue, number};
use crate::sys::{Process, Stat};

/// How many groups that a job has made below its own are removed in one call. Each takes about 25
/// us.
const REMOVED: usize = 30;

/// How a reactor holds the processes of a job together.
///
/// ```
/// use jobworker::{Config, Containment, Reactor};
///
/// let reactor = Reactor::with_config(Config::new().containment(Containment::ProcessGroup))?;
/// # drop(reactor);
/// # Ok::<(), jobworker::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Containment {
    /// A cgroup for each job. Nothing the job starts can leave it unless it is privileged to do so.
    #[default]
    Cgroup,
    /// A cgroup for each job where there can be one, otherwise a process group.
    ///
    /// [`Reactor::containment`](crate::Reactor::containment) says what it came to. Where it came to
    /// process groups, whatever is said there does not hold, and a command with limits is refused:
    /// a host that relies on either should insist on cgroups.
    BestAvailable,
    /// The job's own process group, for hosts without a usable cgroup tree. Never chosen unless it
    /// is asked for.
    ///
    /// # What it cannot do
    /// * A process that calls setsid or setpgid leaves the job: it is not signalled, not killed and
    ///   not waited for. If it still holds the log, what it writes after the job is finished is in
    ///   the file, but not in the job's output.
    /// * There are no resource limits.
    /// * A job whose main process leaves others behind costs passes over `/proc` at its end,
    ///   1 to 4 ms each, however many processes the system has; before Linux 6.9 every job does.
    /// * Before Linux 6.9, if the host ignores SIGCHLD or waits for any child, what the main
    ///   process leaves behind is neither killed nor waited for: nothing refers to the group for
    ///   certain once its leader was reaped.
    ProcessGroup,
}

/// The processes of one job.
#[derive(Debug)]
pub(crate) enum Contained {
    Cgroup(Group),
    /// The group that is led by the job's main process.
    ProcessGroup {
        /// That of the leader.
        number: u32,
        /// Whether the kernel signals the group by the pidfd of its leader.
        by_pidfd: bool,
    },
}

impl Contained {
    /// The process group that is led by this process.
    pub(crate) fn process_group(leader: &Process) -> Self {
        let by_pidfd = leader.signals_group_by_pidfd();
        Self::ProcessGroup { number: leader.pid(), by_pidfd }
    }

    /// Whether the zombie of the main process is still needed once its end is known.
    pub(crate) fn needs_leader(&self) -> bool {
        matches!(self, Self::ProcessGroup { by_pidfd: false, .. })
    }

    pub(crate) fn path(&self) -> Option<PathBuf> {
        match self {
            Self::Cgroup(cgroup) => Some(cgroup.path()),
            Self::ProcessGroup { .. } => None,
        }
    }

    /// Whether any process but an exited leader is left.
    pub(crate) fn populated(&self, main: &Process) -> Result<bool> {
        match self {
            Self::Cgroup(cgroup) => cgroup.populated(),
            Self::ProcessGroup { number, by_pidfd } => {
                Ok(!living_members(*number, *by_pidfd, main)?.is_empty())
            }
        }
    }

    /// Starts to freeze the processes, or to thaw them.
    pub(crate) fn freeze(&self, freeze: bool) -> Result<()> {
        match self {
            Self::Cgroup(cgroup) => cgroup.freeze(freeze),
            // Never frozen.
            Self::ProcessGroup { .. } => Ok(()),
        }
    }

    /// Whether every process is frozen.
    pub(crate) fn frozen(&self) -> Result<bool> {
        match self {
            Self::Cgroup(cgroup) => cgroup.frozen(),
            Self::ProcessGroup { .. } => Ok(false),
        }
    }

    /// The content of an interface file, or `None` where there is none.
    pub(crate) fn read(&self, file: &str) -> Result<Option<String>> {
        match self {
            Self::Cgroup(cgroup) => cgroup.read(file),
            Self::ProcessGroup { .. } => Ok(None),
        }
    }

    /// Kills every process.
    pub(crate) fn kill(&self, main: &Process) -> Result<()> {
        match self {
            Self::Cgroup(cgroup) => cgroup.kill(),
            Self::ProcessGroup { by_pidfd, .. } => signal_group(main, *by_pidfd, Signal::KILL),
        }
    }

    /// Goes on with sending a signal to every process once. Stopped processes are continued after
    /// it, so that they can act on it. The main process gets it even if it has moved itself
    /// elsewhere.
    pub(crate) fn deliver(&self, delivery: &mut Delivery, main: &Process) -> Result<()> {
        let signal = delivery.signal();
        match self {
            Self::Cgroup(group) => delivery.go_on(group, main),
            Self::ProcessGroup { by_pidfd, .. } => {
                delivery.end();
                if delivery.is_for_late_ones() {
                    return Ok(());
                }
                signal_group(main, *by_pidfd, signal)?;
                if needs_continue(signal) {
                    signal_group(main, *by_pidfd, Signal::CONT)
                } else {
                    Ok(())
                }
            }
        }
    }

    /// At most so many of the processes that have not exited.
    pub(crate) fn members(&self, main: &Process, most: usize) -> Result<Vec<Process>> {
        let mut members = Vec::new();
        match self {
            Self::Cgroup(cgroup) => {
                let opened = cgroup.members(most)?.into_iter();
                members.extend(opened.map(|(pid, pidfd)| Process::new(number(pid), pidfd)));
            }
            Self::ProcessGroup { number: group, by_pidfd } => {
                for pid in living_members(*group, *by_pidfd, main)?.into_iter().take(most) {
                    let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
                        Ok(pidfd) => pidfd,
                        Err(errno @ (Errno::MFILE | Errno::NFILE)) if members.is_empty() => {
                            return Err(Error::path("open a process of", "/proc")(errno));
                        }
                        Err(_) => continue,
                    };
                    // The number may have changed hands before it was opened, but not since.
                    if is_living_member(pid, *group) {
                        members.push(Process::new(number(pid), pidfd));
                    }
                }
            }
        }
        Ok(members)
    }

    /// Goes on with removing what `populated` has found empty; `false` when there is more to do.
    pub(crate) fn remove(&self, removal: &mut Removal) -> Result<bool> {
        match self {
            Self::Cgroup(cgroup) => cgroup.remove_some(removal, REMOVED),
            Self::ProcessGroup { .. } => Ok(true),
        }
    }
}

fn signal_group(leader: &Process, by_pidfd: bool, signal: Signal) -> Result<()> {
    let sent = match by_pidfd {
        true => leader.signal_group(Some(signal)),
        false => leader.signal_group_by_number(Some(signal)),
    };
    // It fails only if no member may be signalled.
    sent.map(drop).map_err(Error::path("signal process group", format!("{}", leader.pid())))
}

/// Whether the group has any process, zombies included, so that its number is its own.
fn is_group(leader: &Process, by_pidfd: bool) -> bool {
    let found = match by_pidfd {
        true => leader.signal_group(None),
        false => leader.signal_group_by_number(None),
    };
    // One that may not be signalled is one.
    found.unwrap_or(true)
}

/// The members of a process group that have not exited, from /proc.
fn living_members(group: u32, by_pidfd: bool, leader: &Process) -> Result<Vec<Pid>> {
    // The usual end of a job: no pass over /proc is needed.
    if !is_group(leader, by_pidfd) {
        return Ok(Vec::new());
    }
    let members = listed_members(group)?;
    // If the group has ended meanwhile, they may be those of another one with its number.
    Ok(if members.is_empty() || is_group(leader, by_pidfd) { members } else { Vec::new() })
}

fn listed_members(group: u32) -> Result<Vec<Pid>> {
    let mut members = Vec::new();
    for entry in fs::read_dir("/proc").map_err(Error::path("list processes in", "/proc"))? {
        let Ok(entry) = entry else { continue };
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw)
        else {
            continue;
        };
        if is_living_member(pid, group) {
            members.push(pid);
        }
    }
    Ok(members)
}

/// Whether a process belongs to a group and has not exited. One that is gone counts as exited.
///
/// Not by getpgid(2), which answers 0 for a group whose leader is outside of our PID namespace:
/// rustix has no such number.
fn is_living_member(pid: Pid, group: u32) -> bool {
    let pid = pid.as_raw_nonzero().get().unsigned_abs();
    let stat = Stat::of(pid).ok().flatten();
    stat.is_some_and(|stat| stat.process_group == group && !matches!(stat.state, b'Z' | b'X'))
}
