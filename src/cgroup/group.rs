//! Owns [`Group`]: the cgroup of one job, by its name in the [`Tree`].
//!
//! Invariant: a group holds no descriptor; each file is opened for a single use, relative to the
//! tree's directory, out of the tree's reserve if the host has no descriptor left. A killed group
//! is never used again. Dropping a `Group` without [`Group::remove`] leaves its directory behind.
//! Knows nothing of the job's state.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{
    Access, AtFlags, FileType, Mode, OFlags, XattrFlags, accessat, fgetxattr, fsetxattr, mkdirat,
    openat,
};
use rustix::io::{Errno, pread, read, write};
use rustix::process::Pid;

use crate::cgroup::content::{gone, read_to_string};
use crate::cgroup::members::{BATCH, Pass, Visit};
use crate::cgroup::removal::Removal;
use crate::cgroup::reserve::Opener;
use crate::cgroup::tree::{BFQ_WEIGHT, IO_WEIGHT, Settings, Tree};
use crate::cgroup::trigger::Trigger;
use crate::cgroup::walk::entries;
use crate::command::{LimitFile, Limits, Setting, Signal};
use crate::error::{Error, LimitsError, Result, WRITE_RECORD};
use crate::event::{Stall, Stallable};
use crate::sys::{Signature, has_exited, send};

/// How many processes are killed by their pidfds at once, besides: for a fraction of a millisecond.
const KILLED_ONE_BY_ONE: usize = 64;

/// The extended attribute of a group that has the record of its job. Those of `user.*` are there
/// since Linux 5.7; who may write to the directory may write them.
const RECORD: &str = "user.jobworker";

/// Writes the record of a job on the directory of its group, in place of the one that is there.
pub(crate) fn write_record(dir: &OwnedFd, record: &[u8]) -> rustix::io::Result<()> {
    fsetxattr(dir, RECORD, record, XattrFlags::empty())
}

/// A cgroup that was made for one job.
#[derive(Debug)]
pub(crate) struct Group {
    tree: Arc<Tree>,
    name: String,
}

impl Group {
    /// Makes the group `name` in `tree`. A group that exists already is an error: it is not ours.
    pub(crate) fn create(tree: &Arc<Tree>, name: String) -> Result<Self> {
        // It may be the only chance, once the host's limit is reached.
        tree.fill_reserve();
        let group = Self::named(tree, name);
        mkdirat(tree.dir(), &group.name, Mode::from_raw_mode(0o755))
            .map_err(|errno| Error::path("create cgroup", group.path())(errno))?;
        Ok(group)
    }

    /// The group `name` in `tree`, which is known to exist.
    pub(crate) fn named(tree: &Arc<Tree>, name: String) -> Self {
        Self { tree: Arc::clone(tree), name }
    }

    /// The name of the group in its tree, which no other group has.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Where the group is in the file system.
    pub(crate) fn path(&self) -> PathBuf {
        self.tree.path().join(&self.name)
    }

    /// Opens the directory of the group, as clone3 and extended attributes need it.
    pub(crate) fn open_dir(&self) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(self.tree.dir(), &self.name, flags, Mode::empty())
            .map_err(|errno| Error::path("open cgroup", self.path())(errno))
    }

    /// Writes the record of a job on its group, in place of the one that is there.
    pub(crate) fn write_record(&self, record: &[u8]) -> Result<()> {
        self.with_dir(|dir| write_record(dir, record))
            .map_err(Error::path(WRITE_RECORD, self.path()))
    }

    /// The record on the group, or `None` when it has none.
    pub(crate) fn read_record(&self) -> Result<Option<Vec<u8>>> {
        // As large as the kernel lets an attribute be.
        let mut content = vec![0; 1 << 16];
        match self.with_dir(|dir| fgetxattr(dir, RECORD, &mut content)) {
            Ok(length) => {
                content.truncate(length);
                Ok(Some(content))
            }
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NODATA) => Ok(None),
            Err(error) => {
                Err(Error::path("read the record of a job on cgroup", self.path())(error))
            }
        }
    }

    /// What the main process of its job has signed, if it has.
    pub(crate) fn read_signature(&self) -> Result<Option<Signature>> {
        let mut bytes = [0; Signature::SIZE];
        match self.with_dir(|dir| fgetxattr(dir, Signature::NAME, &mut bytes)) {
            Ok(Signature::SIZE) => Ok(Some(Signature::decode(bytes))),
            Ok(_) => Ok(None),
            Err(error) => match Errno::from_io_error(&error) {
                // Larger than one.
                Some(Errno::NODATA | Errno::RANGE) => Ok(None),
                _ => Err(Error::path("read what a job has signed on cgroup", self.path())(error)),
            },
        }
    }

    /// Whether there is such a group.
    pub(crate) fn exists(&self) -> bool {
        accessat(self.tree.dir(), &self.name, Access::EXISTS, AtFlags::empty()).is_ok()
    }

    fn with_dir<T>(&self, mut act: impl FnMut(&OwnedFd) -> rustix::io::Result<T>) -> io::Result<T> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut opener = self.tree.opener();
        let dir =
            opener.open(|| openat(self.tree.dir(), self.name.as_str(), flags, Mode::empty()))?;
        Ok(act(&dir)?)
    }

    /// Opens an interface file for a single use.
    fn open(&self, file: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        openat(self.tree.dir(), self.file(file), flags | OFlags::CLOEXEC, Mode::empty())
    }

    /// The path of an interface file, relative to the tree's directory.
    fn file(&self, file: &str) -> String {
        format!("{}/{file}", self.name)
    }

    fn read_file(&self, file: &str) -> io::Result<String> {
        let mut opener = self.tree.opener();
        read_to_string(opener.open(|| self.open(file, OFlags::RDONLY))?)
    }

    fn write_file(&self, file: &str, value: &str) -> io::Result<()> {
        // NONBLOCK: from about Linux 6.16 on, lowering a memory limit then does not reclaim memory
        // within the write.
        let mut opener = self.tree.opener();
        let flags = OFlags::WRONLY | OFlags::NONBLOCK;
        write(opener.open(|| self.open(file, flags))?, value.as_bytes())?;
        Ok(())
    }

    /// Arms a trigger on one of the group's pressure files.
    pub(crate) fn arm_trigger(&self, resource: Stallable, stall: Stall) -> Result<Trigger> {
        let file = Path::new(&self.name).join(resource.file());
        Trigger::arm(self.tree.dir(), &file, self.path().join(resource.file()), stall)
    }

    /// Whether the group may have an interface file: not if its controller was never enabled.
    pub(crate) fn may_have(&self, file: &str) -> bool {
        !file.starts_with("memory.") || self.tree.has_memory()
    }

    /// Changes the limits of a group that is in use.
    pub(crate) fn set_limits(&self, limits: &Limits) -> Result<()> {
        self.apply(&self.tree.require(limits)?)
    }

    /// Writes each limit and reads it back.
    pub(crate) fn apply(&self, settings: &Settings) -> Result<()> {
        settings.iter().try_for_each(|setting| self.apply_one(setting))
    }

    fn apply_one(&self, setting: &Setting) -> Result<()> {
        let file = setting.file();
        let lines = setting.lines();
        for line in &lines {
            match self.write_file(file, line) {
                Err(error) if setting.is_optional() && gone(&error) => return Ok(()),
                Err(error) if gone(&error) && self.lacks(file) => {
                    return Err(LimitsError::Unavailable {
                        file: file.to_owned(),
                        path: self.path(),
                        needs: setting.needs(),
                    }
                    .into());
                }
                written => {
                    written.map_err(|error| Error::path("set", self.path().join(file))(error))?;
                }
            }
        }
        if !setting.is_compared() {
            return Ok(());
        }
        let found = self
            .read_file(file)
            .map_err(|error| Error::path("read back", self.path().join(file))(error))?;
        if setting.is_shown_by(&found) {
            return Ok(());
        }
        Err(LimitsError::NotKept {
            file: file.to_owned(),
            path: self.path(),
            wrote: lines.join("\n"),
            found: found.trim_end().to_owned(),
        }
        .into())
    }

    /// The limits of the table that the kernel enforces for the group.
    pub(crate) fn limits(&self) -> Result<Limits> {
        let failed = |source: io::Error| Error::path("list the files of", self.path())(source);
        let names = entries(self.open_dir()?, FileType::RegularFile).map_err(failed)?;
        let mut names: Vec<&str> = names.iter().filter_map(|name| name.to_str().ok()).collect();
        names.sort_unstable();
        let mut limits = Limits::new();
        for row in Limits::files().iter().filter(|row| row.is_read_back()) {
            if row.name() == IO_WEIGHT {
                // Of two files that weight io work, at most one has an effect.
                let weights = names.iter().any(|name| [IO_WEIGHT, BFQ_WEIGHT].contains(name));
                if let Some(file) = self.tree.io_weight_file().filter(|_| weights) {
                    self.read_limit(&mut limits, row, IO_WEIGHT, file)?;
                }
                continue;
            }
            for name in names.iter().filter(|name| row.names(name)) {
                self.read_limit(&mut limits, row, name, name)?;
            }
        }
        Ok(limits)
    }

    /// Adds the limit `name` as `file` shows it, if the group still has that.
    fn read_limit(
        &self,
        limits: &mut Limits,
        row: &LimitFile,
        name: &str,
        file: &str,
    ) -> Result<()> {
        let Some(content) = self.read(file)? else { return Ok(()) };
        if limits.put_shown(row, name, &content) {
            return Ok(());
        }
        let reason = format!("it shows {:?}, which is not a limit", content.trim_end());
        Err(Error::path("read", self.path().join(file))(io::Error::other(reason)))
    }

    /// Whether the group exists, but not this file.
    fn lacks(&self, file: &str) -> bool {
        let has = |name: &str| {
            accessat(self.tree.dir(), self.file(name), Access::EXISTS, AtFlags::empty()).is_ok()
        };
        has("cgroup.procs") && !has(file)
    }

    /// The content of an interface file, or `None` when the group does not have it.
    pub(crate) fn read(&self, file: &str) -> Result<Option<String>> {
        match self.read_file(file) {
            Ok(content) => Ok(Some(content)),
            Err(error) if gone(&error) => Ok(None),
            Err(error) => Err(Error::path("read", self.path().join(file))(error)),
        }
    }

    /// Whether any process is in the group or below it. A group that is gone has none.
    pub(crate) fn populated(&self) -> Result<bool> {
        self.event("populated 1")
    }

    /// Whether everything in the group is frozen, by its own setting or that of a group above it.
    pub(crate) fn frozen(&self) -> Result<bool> {
        self.event("frozen 1")
    }

    fn event(&self, wanted: &str) -> Result<bool> {
        let mut buffer = [0; 128];
        let mut opener = self.tree.opener();
        let mut read_events = || -> io::Result<bool> {
            let events = opener.open(|| self.open("cgroup.events", OFlags::RDONLY))?;
            // The whole file fits, so one read gives all of it.
            let length = read(events, &mut buffer)?;
            Ok(buffer[..length].split(|byte| *byte == b'\n').any(|line| line == wanted.as_bytes()))
        };
        match read_events() {
            // The group was removed.
            Err(error) if gone(&error) => Ok(false),
            found => {
                found.map_err(|error| Error::path("read", self.path().join("cgroup.events"))(error))
            }
        }
    }

    /// Starts to freeze the group, or to thaw it; cgroup.events shows when that is done.
    pub(crate) fn freeze(&self, frozen: bool) -> Result<()> {
        let value = if frozen { "1" } else { "0" };
        self.write_file("cgroup.freeze", value).map_err(Error::path(
            if frozen { "freeze" } else { "thaw" },
            self.path().join("cgroup.freeze"),
        ))
    }

    /// Kills every process in the group and below it, also those that are being forked.
    ///
    /// # Kernel trap
    /// `cgroup.kill` signals the leading thread of each process (`__cgroup_kill` in
    /// kernel/cgroup/cgroup.c), and one that has exited cannot be signalled: a process whose other
    /// threads go on without it is not killed by that, but by its pidfd. What such a one has forked
    /// meanwhile is killed by the second write. Of a job with more processes than are visited, the
    /// rest has its turn when those are gone and the job is looked at again.
    pub(crate) fn kill(&self) -> Result<()> {
        self.kill_by_leaders()?;
        let mut budget = KILLED_ONE_BY_ONE;
        // What cannot be opened or signalled is left to the first write.
        let _ = self.for_each_member(
            &mut Pass::default(),
            &mut budget,
            |_| true,
            |_, pidfd| {
                let _ = send(&pidfd, Signal::KILL);
                Ok(ControlFlow::Continue(()))
            },
        );
        if budget < KILLED_ONE_BY_ONE { self.kill_by_leaders() } else { Ok(()) }
    }

    fn kill_by_leaders(&self) -> Result<()> {
        match self.write_file("cgroup.kill", "1") {
            Err(error) if !gone(&error) => {
                let threaded = Errno::from_io_error(&error) == Some(Errno::OPNOTSUPP);
                let operation = if threaded {
                    "kill at once (the job has made its cgroup threaded)"
                } else {
                    "kill (needs Linux 5.14)"
                };
                Err(Error::path(operation, self.path().join("cgroup.kill"))(error))
            }
            _ => Ok(()),
        }
    }

    /// Visits the processes in the group and below it whose number is wanted, with a pidfd, for as
    /// long as the budget lasts: each process and each group takes one off, and listing 25 does.
    /// Breaks when it is used up; the next call with the same `pass` goes on from there.
    ///
    /// Each process is checked to be a member; only a few are open at a time, however many there
    /// are. `visit` must not keep them, and must not open anything in the tree: they may come from
    /// the reserve.
    pub(crate) fn for_each_member(
        &self,
        pass: &mut Pass,
        budget: &mut usize,
        wanted: impl Fn(Pid) -> bool,
        visit: impl FnMut(Pid, OwnedFd) -> Result<ControlFlow<()>>,
    ) -> Result<ControlFlow<()>> {
        self.visit(self.tree.opener(), BATCH, visit).go_on(pass, budget, wanted)
    }

    /// At most so many of the processes in the group and below it that have not exited, with pidfds
    /// that the caller may keep. Fewer when there are not enough descriptors.
    ///
    /// Since Linux 6.19 a process may be listed after its pidfd has reported its exit.
    pub(crate) fn members(&self, most: usize) -> Result<Vec<(Pid, OwnedFd)>> {
        let mut members = Vec::new();
        let visit = |pid, pidfd| {
            if !has_exited(&pidfd) {
                members.push((pid, pidfd));
            }
            let enough = members.len() >= most;
            Ok(if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        };
        let (mut pass, mut budget) = (Pass::default(), usize::MAX);
        let (opener, batch) = (Opener::without_reserve(), most.min(BATCH));
        let visited = self.visit(opener, batch, visit).go_on(&mut pass, &mut budget, |_| true);
        if members.is_empty() {
            visited.map(drop)?;
        }
        Ok(members)
    }

    fn visit<'a, F>(&'a self, opener: Opener<'a>, batch: usize, visit: F) -> Visit<'a, F> {
        Visit { tree: &self.tree, name: &self.name, opener, batch, visit }
    }

    /// Removes the group and what the job made below it. Must be called only once `populated` has
    /// returned `false`.
    pub(crate) fn remove(&self) -> Result<()> {
        self.remove_some(&mut Removal::default(), usize::MAX).map(drop)
    }

    /// Like [`remove`](Self::remove), but at most so many groups in this call; `false` when it is
    /// to be continued, with the same `removal`.
    pub(crate) fn remove_some(&self, removal: &mut Removal, most: usize) -> Result<bool> {
        removal
            .go_on(self.tree.dir(), &self.name, most, &mut self.tree.opener())
            .map_err(|source| Error::path("remove cgroup", self.path())(source))
    }

    /// Removes a group whose processes were all reaped. Since Linux 6.19 a process may leave its
    /// group only after that, which is waited for, no longer than this.
    pub(crate) fn remove_when_left(&self, patience: Duration) -> Result<()> {
        let removed = self.remove();
        match &removed {
            Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => {}
            _ => return removed,
        }
        self.await_left(Instant::now() + patience)
            .map_err(|source| Error::path("watch", self.path().join("cgroup.events"))(source))?;
        self.remove()
    }

    /// Waits until no process is in the group, or it is gone.
    fn await_left(&self, until: Instant) -> io::Result<()> {
        let mut opener = self.tree.opener();
        let events = opener.open(|| self.open("cgroup.events", OFlags::RDONLY))?;
        let mut buffer = [0; 128];
        loop {
            // A priority event means that the file has changed since it was last read.
            let length = match pread(&events, &mut buffer, 0) {
                Err(Errno::NODEV) => return Ok(()),
                length => length?,
            };
            let left = until.saturating_duration_since(Instant::now());
            let populated =
                buffer[..length].split(|byte| *byte == b'\n').any(|line| line == b"populated 1");
            if !populated || left.is_zero() {
                return Ok(());
            }
            match poll(&mut [PollFd::new(&events, PollFlags::PRI)], left.try_into().ok().as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::sys::random_uuid;

    #[test]
    #[expect(clippy::print_stderr, reason = "says why it is skipped")]
    fn m10_a_group_is_removed_once_its_process_has_left_it() {
        let Ok(tree) = Tree::locate(None, None) else {
            eprintln!("skipped: there is no cgroup tree here");
            return;
        };
        let group = Group::create(&Arc::new(tree), random_uuid().unwrap().to_string()).unwrap();
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let moved = fs::write(group.path().join("cgroup.procs"), child.id().to_string());
        let early = group.remove();
        // It exits at the end of its input, which takes longer than the next call's first attempt.
        drop(child.stdin.take());
        let removed = group.remove_when_left(Duration::from_secs(60));
        child.wait().unwrap();
        if moved.is_err() {
            eprintln!("skipped: a process cannot be moved into a group here");
            return;
        }
        assert_eq!(early.unwrap_err().raw_os_error(), Some(Errno::BUSY.raw_os_error()));
        removed.unwrap();
        assert!(!group.path().exists());
    }
}
