//! Owns [`Pidfds`]: those that were given to a recovery, and how the main process of a job of an
//! earlier host is found with them or without.
//!
//! Invariant: nothing is guessed. A process is the main one of a job only if its number, the time
//! at which it was cloned, its pidfd where the kernel tells, and its cgroup say so. Knows nothing
//! of logs and histories.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::param::clock_ticks_per_second;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::cgroup::{Group, Origin};
use crate::error::{Error, Result};
use crate::event::{Exit, Found, Usage};
use crate::id::JobId;
use crate::job::stored::{KnownBy, Main, Stored};
use crate::sys::{
    NOT_TOLD, Process, Reap, Signature, Stat, is_no_process, is_pidfd, pid_of, pidfd_inode,
};

const ENDED: &str = "its main process ended while no host was there, and no pidfd of it was given \
                     to the recovery (Config::keeper, Reactor::pidfd)";
pub(super) const KNOWN: &str = "an earlier host could not find it out";
pub(super) const INTERRUPTED: &str =
    "the host died while it started the job, and its main process is not there";
pub(super) const DAMAGED: &str = "the record of the job is missing or was damaged";
const ESCAPED: &str = "its main process has left the cgroup of the job, so that it cannot be told \
                       from any other";

/// In a second.
const NANOSECONDS: u128 = 1_000_000_000;

/// Why the exit of a process is unknown, as an earlier host has found it out.
pub(super) fn known_reason(why: &str) -> &'static str {
    let reasons = [ENDED, INTERRUPTED, DAMAGED, ESCAPED, NOT_TOLD];
    reasons.into_iter().find(|reason| *reason == why).unwrap_or(KNOWN)
}

/// Descriptors of processes, which may be main ones.
#[derive(Debug)]
pub(super) struct Pidfds {
    given: Vec<OwnedFd>,
    /// Those of which a keeper says whose they are.
    pub(super) held: HashMap<JobId, OwnedFd>,
}

impl Pidfds {
    pub(super) fn new(given: Vec<OwnedFd>) -> Self {
        Self { given, held: HashMap::new() }
    }

    /// The main process of a job that is not finished, or what is known of its end.
    pub(super) fn find_main(&mut self, stored: &Stored, group: &Group) -> Result<(Process, Found)> {
        let unknown = |reason| past(0, Exit::Unknown, Usage::default(), reason);
        let Some(Main { pid, known_by }) = stored.main else {
            return Ok((unknown(INTERRUPTED)?, Found::Interrupted));
        };
        if let Some(known) = stored.exited {
            // If the earlier host has executed this program before it has reaped it, it is ours.
            if known.exit != Exit::Unknown
                && let Some((pidfd, _)) = still_there(Main { pid, known_by }, group)?
            {
                let zombie = Process::left(pid, pidfd);
                if matches!(zombie.wait(Reap::Peek), Ok(Some(_))) {
                    return Ok((zombie, Found::Exited));
                }
            }
            let why = known.why_unknown.unwrap_or(KNOWN);
            return Ok((past(pid, known.exit, known.usage, why)?, Found::Exited));
        }
        if let Some(given) = self.given(stored) {
            // Of one that is reaped, nobody can tell where it was.
            return match pid_of(&given) {
                None => Ok((Process::left(pid, given), Found::Exited)),
                Some(number) if is_member(number, group)? => {
                    Ok((Process::left(number, given), Found::Running))
                }
                Some(_) => Ok((unknown(ESCAPED)?, Found::Exited)),
            };
        }
        match still_there(Main { pid, known_by }, group)? {
            Some((pidfd, true)) => Ok((Process::left(pid, pidfd), Found::Running)),
            Some((_, false)) => Ok((unknown(ESCAPED)?, Found::Exited)),
            None => Ok((unknown(ENDED)?, Found::Exited)),
        }
    }

    /// The descriptor of a main process, if one was given: it is known by its inode or, before
    /// Linux 6.9, by what /proc tells as long as it is not reaped.
    fn given(&mut self, stored: &Stored) -> Option<OwnedFd> {
        let Main { pid, known_by } = stored.main?;
        let is_it = |given: &OwnedFd| {
            is_pidfd(given)
                && match known_by {
                    KnownBy::Inode(inode) => pidfd_inode(given) == Some(inode),
                    KnownBy::Start(start) => {
                        started_at(pid).ok().flatten() == Some(start) && pid_of(given) == Some(pid)
                    }
                }
        };
        if let Some(held) = self.held.remove(&stored.id).filter(&is_it) {
            return Some(held);
        }
        let place = self.given.iter().position(is_it)?;
        Some(self.given.swap_remove(place))
    }
}

/// The main process of a job whose host has died before it has written down which that is, as the
/// process has signed it; `None` unless it is there still.
pub(super) fn signed(group: &Group) -> Result<Option<Main>> {
    let Some(Signature { pid, at }) = group.read_signature()? else { return Ok(None) };
    let Some(start) = started_at(pid)? else { return Ok(None) };
    let ticks = u128::from(clock_ticks_per_second());
    // Another that has the number was cloned when the one that has signed was gone.
    if u128::from(start) * NANOSECONDS > at.as_nanos() * ticks {
        return Ok(None);
    }
    let Some((pidfd, true)) = still_there(Main { pid, known_by: KnownBy::Start(start) }, group)?
    else {
        return Ok(None);
    };
    let known_by = pidfd_inode(&pidfd).map_or(KnownBy::Start(start), KnownBy::Inode);
    Ok(Some(Main { pid, known_by }))
}

/// The pidfd of a main process that was not reaped, and whether it is in its group.
fn still_there(main: Main, group: &Group) -> Result<Option<(OwnedFd, bool)>> {
    let Main { pid, known_by } = main;
    let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
    let pidfd = match pidfd_open(number, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(errno) if is_no_process(errno) => return Ok(None),
        Err(errno) => return Err(Error::event_loop("open the main process of a job")(errno)),
    };
    let is_member = is_member(pid, group)?;
    // What was read is of the process that was opened, if it has not been reaped since.
    let is_same = match known_by {
        KnownBy::Inode(inode) => pidfd_inode(&pidfd) == Some(inode),
        KnownBy::Start(start) => started_at(pid)? == Some(start),
    };
    let is_same = is_same && pid_of(&pidfd) == Some(pid);
    Ok(is_same.then_some((pidfd, is_member)))
}

/// Whether a process, by its number, is in a group or below it.
fn is_member(pid: u32, group: &Group) -> Result<bool> {
    let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(false) };
    match Origin::of(number) {
        Ok(origin) => Ok(origin.is_within(|name| name == group.name())),
        Err(error) if is_gone(&error) => Ok(false),
        Err(error) => Err(Error::path("read", format!("/proc/{pid}/cgroup"))(error)),
    }
}

/// When the process was cloned that has this number, if there is one.
fn started_at(pid: u32) -> Result<Option<u64>> {
    let stat = Stat::of(pid).map_err(Error::path("read", format!("/proc/{pid}/stat")))?;
    Ok(stat.map(|stat| stat.start))
}

/// A process that has ended.
pub(super) fn past(pid: u32, exit: Exit, usage: Usage, reason: &'static str) -> Result<Process> {
    Process::past(pid, exit, usage, reason).map_err(Error::event_loop("create an eventfd"))
}

fn is_gone(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::SRCH))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::process::{Command, Stdio};
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use rustix::fs::{XattrFlags, fsetxattr};

    use super::*;
    use crate::cgroup::{HostName, Owner, Tree};
    use crate::command::Command as Program;
    use crate::id::JobId;
    use crate::job::format::encode;
    use crate::job::record::Policies;
    use crate::job::recovery::{Find, Recovery};
    use crate::job::stored::KnownExit;
    use crate::log::LogDirectory;
    use crate::sys::{boot_time, random_uuid};

    /// An owner of a name of its own, and where it has its logs.
    fn owner() -> Option<(Owner, Arc<LogDirectory>)> {
        let tree = Tree::locate(None, None).ok()?;
        let mut owner = Owner::new(&Arc::new(tree)).ok()?;
        let name = format!("test-{}", random_uuid().unwrap());
        owner.take_name(HostName::new(&name).unwrap(), false).unwrap();
        Some((owner, Arc::new(LogDirectory::temporary(random_uuid).unwrap())))
    }

    fn stored(id: JobId) -> Stored {
        let mut command = Program::new("true");
        command.survives(true).label("mine");
        let (moment, policies) = ((SystemTime::now(), boot_time()), Policies::of(&command));
        Stored { label: b"mine".to_vec(), ..Stored::new(id, moment, policies, PathBuf::new()) }
    }

    /// A group with this record, what it is found as, and what is known of its main process.
    fn found(
        (owner, logs): &(Owner, Arc<LogDirectory>),
        change: impl FnOnce(&mut Stored, &Group),
        pidfds: Vec<OwnedFd>,
    ) -> (Found, Option<&'static str>) {
        let id = JobId::new(random_uuid().unwrap());
        let group = owner.create_lasting(id.uuid()).unwrap().unwrap();
        let mut stored = stored(id);
        change(&mut stored, &group);
        group.write_record(&encode(&stored, None)).unwrap();
        let mut recovery = Recovery::begin(Some(owner), (logs, false), None, pidfds).unwrap();
        let Find { launched, recovered } = recovery.next(|_| false).unwrap().unwrap();
        assert_eq!((recovered.job, &recovered.label[..]), (id, &b"mine"[..]));
        let process = launched.process().unwrap();
        let known = (recovered.found, process.why_unknown());
        drop(launched);
        assert!(group.exists(), "what is not adopted stays");
        group.remove_when_left(Duration::from_secs(60)).unwrap();
        known
    }

    fn main_of(pid: u32) -> Main {
        let pidfd = pidfd_open(Pid::from_raw(pid.cast_signed()).unwrap(), PidfdFlags::empty());
        let inode = pidfd_inode(&pidfd.unwrap()).map(KnownBy::Inode);
        let start = KnownBy::Start(started_at(pid).unwrap().unwrap());
        Main { pid, known_by: inode.unwrap_or(start) }
    }

    #[test]
    #[expect(clippy::print_stderr, reason = "says why it is skipped")]
    fn a_process_is_the_main_one_only_if_all_that_is_known_of_it_agrees() {
        let Some(place) = owner() else {
            eprintln!("skipped: there is no cgroup tree here");
            return;
        };
        let nothing = |_: &mut Stored, _: &Group| {};
        assert_eq!(found(&place, nothing, vec![]), (Found::Interrupted, Some(INTERRUPTED)));
        let known = |stored: &mut Stored, _: &Group| {
            let (exit, usage, wall) = (Exit::Unknown, Usage::default(), Duration::ZERO);
            let why_unknown = Some(ENDED);
            stored.main = Some(Main { pid: 1, known_by: KnownBy::Start(0) });
            stored.exited = Some(KnownExit { exit, usage, wall, killed: false, why_unknown });
        };
        assert_eq!(found(&place, known, vec![]), (Found::Exited, Some(ENDED)));

        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let main = main_of(child.id());
        let enter = |group: &Group| {
            let entered = std::fs::write(group.path().join("cgroup.procs"), main.pid.to_string());
            entered.is_ok()
        };
        let of = |change: &dyn Fn(&mut Main), inside: bool| {
            let change = |stored: &mut Stored, group: &Group| {
                let mut main = main;
                change(&mut main);
                stored.main = Some(main);
                if inside {
                    assert!(enter(group), "a process can be moved into a group");
                }
            };
            // It leaves the group again, so that that can be removed.
            let id = JobId::new(random_uuid().unwrap());
            let group = place.0.create_lasting(id.uuid()).unwrap().unwrap();
            let mut kept = stored(id);
            change(&mut kept, &group);
            group.write_record(&encode(&kept, None)).unwrap();
            let mut recovery =
                Recovery::begin(Some(&place.0), (&place.1, false), None, vec![]).unwrap();
            let find = recovery.next(|_| false).unwrap().unwrap();
            let (found, process) = (find.recovered.found, find.launched.process().unwrap());
            let known = (found, process.why_unknown(), process.is_process());
            let root = place.0.tree().path().join("cgroup.procs");
            std::fs::write(root, main.pid.to_string()).unwrap();
            group.remove_when_left(Duration::from_secs(60)).unwrap();
            known
        };
        let (same, ended) = (|_: &mut Main| {}, (Found::Exited, Some(ENDED), false));
        assert_eq!(of(&same, false), (Found::Exited, Some(ESCAPED), false));
        let (found_as, _, is_process) = of(&same, true);
        assert_eq!((found_as, is_process), (Found::Running, true));
        let start = started_at(main.pid).unwrap().unwrap();
        let by_start = |start: u64| move |main: &mut Main| main.known_by = KnownBy::Start(start);
        let (found_as, _, is_process) = of(&by_start(start), true);
        assert_eq!((found_as, is_process), (Found::Running, true));
        assert_eq!(of(&by_start(start + 1), true), ended);
        assert_eq!(of(&|main| main.pid = std::process::id(), true), ended);
        assert_eq!(of(&|main| main.pid = u32::MAX, true), ended);
        // A thread that leads no process has the number.
        let thread = std::thread::spawn(|| {
            std::thread::park();
        });
        let threads = std::fs::read_dir("/proc/self/task").unwrap();
        let number = |entry: std::io::Result<std::fs::DirEntry>| {
            entry.unwrap().file_name().to_str().unwrap().parse::<u32>().unwrap()
        };
        let led = threads.map(number).find(|number| *number != std::process::id()).unwrap();
        assert_eq!(of(&|main| main.pid = led, true), ended);
        thread.thread().unpark();
        thread.join().unwrap();
        let by_inode = matches!(main.known_by, KnownBy::Inode(_));
        let other = |main: &mut Main| {
            if let KnownBy::Inode(inode) = &mut main.known_by {
                *inode += 1;
            }
        };
        if by_inode {
            assert_eq!(of(&other, true), ended);
        }

        // With its descriptor, it is known even when it is gone.
        let held = pidfd_open(Pid::from_raw(main.pid.cast_signed()).unwrap(), PidfdFlags::empty());
        let (held, own) =
            (held.unwrap(), pidfd_open(rustix::process::getpid(), PidfdFlags::empty()));
        drop(child.stdin.take());
        // A zombie whose exit is known is there to be reaped.
        assert!(
            Process::left(main.pid, held.try_clone().unwrap())
                .await_end(Duration::from_secs(60))
                .is_some()
        );
        let known = |stored: &mut Stored, _: &Group| {
            let (exit, usage, wall) = (Exit::Code(0), Usage::default(), Duration::ZERO);
            stored.main = Some(main);
            let why_unknown = None;
            stored.exited = Some(KnownExit { exit, usage, wall, killed: false, why_unknown });
        };
        assert_eq!(found(&place, known, vec![]), (Found::Exited, Some(NOT_TOLD)));
        child.wait().unwrap();
        assert_eq!(found(&place, known, vec![]), (Found::Exited, Some(KNOWN)));
        if by_inode {
            let change = |stored: &mut Stored, _: &Group| stored.main = Some(main);
            let (found_as, why) = found(&place, change, vec![own.unwrap(), held]);
            assert_eq!((found_as, why != Some(ENDED)), (Found::Exited, true));
        }
        let change = |stored: &mut Stored, _: &Group| stored.main = Some(main);
        assert_eq!(found(&place, change, vec![]), (Found::Exited, Some(ENDED)));
    }

    /// As a child does it for which the host dies before it has written down that there is one.
    #[test]
    #[expect(clippy::print_stderr, reason = "says why it is skipped")]
    fn a_process_that_has_signed_is_the_main_one_only_if_it_is_the_same_and_in_the_group() {
        let Some((owner, _)) = owner() else {
            eprintln!("skipped: there is no cgroup tree here");
            return;
        };
        let group = owner.create_lasting(random_uuid().unwrap()).unwrap().unwrap();
        let dir = group.open_dir().unwrap();
        let sign = |bytes: &[u8]| {
            fsetxattr(&dir, Signature::NAME, bytes, XattrFlags::empty()).unwrap();
        };
        let before = boot_time() - Duration::from_secs(1);
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pid = child.id();
        let now = Signature::encode(pid, boot_time());
        let enter = |path: PathBuf| std::fs::write(path.join("cgroup.procs"), pid.to_string());

        assert_eq!(signed(&group).unwrap(), None, "nobody has signed");
        sign(&now);
        assert_eq!(signed(&group).unwrap(), None, "it is elsewhere");
        enter(group.path()).unwrap();
        assert_eq!(signed(&group).unwrap(), Some(main_of(pid)));
        for other in [&Signature::encode(pid, before)[..], &now[1..], &[&now[..], &[0]].concat()] {
            sign(other);
            assert_eq!(signed(&group).unwrap(), None, "{other:?}");
        }
        sign(&Signature::encode(u32::MAX, boot_time()));
        assert_eq!(signed(&group).unwrap(), None);
        sign(&now);
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(signed(&group).unwrap(), None, "it is gone");
        group.remove_when_left(Duration::from_secs(60)).unwrap();
    }
}
