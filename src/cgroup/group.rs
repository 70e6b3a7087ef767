//! Owns [`Cgroup`]: the cgroup of one job, by its directory's file descriptor.
//!
//! Invariant: a killed group is never used again. Whoever drops a `Cgroup` without
//! [`Cgroup::remove`] leaves the directory behind on purpose. Knows nothing of the job's state.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{
    Access, AtFlags, Dir, FileType, Mode, OFlags, accessat, mkdirat, openat, unlinkat,
};
use rustix::io::{Errno, pread, read, write};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::cgroup::tree::Hierarchy;
use crate::command::{Kept, Setting};
use crate::error::{Error, LimitsError, Result};

/// A cgroup that was made for one job.
#[derive(Debug)]
pub(crate) struct Cgroup {
    hierarchy: Arc<Hierarchy>,
    name: String,
    path: PathBuf,
    dir: OwnedFd,
    /// cgroup.events, kept open because every job's start and end look into it.
    events: OwnedFd,
}

impl Cgroup {
    /// Makes the group `name` under `hierarchy`. A group that exists already is an error: it is not
    /// ours.
    pub(crate) fn create(hierarchy: &Arc<Hierarchy>, name: &str) -> Result<Self> {
        let path = hierarchy.path().join(name);
        let parent = hierarchy.dir();
        mkdirat(parent, name, Mode::from_raw_mode(0o755))
            .map_err(Error::path("create cgroup", path))?;
        Self::open(hierarchy, name.to_owned()).inspect_err(|_| {
            let _ = unlinkat(parent, name, AtFlags::REMOVEDIR);
        })
    }

    /// Opens the group `name` under `hierarchy`.
    pub(crate) fn open(hierarchy: &Arc<Hierarchy>, name: String) -> Result<Self> {
        let path = hierarchy.path().join(&name);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = openat(hierarchy.dir(), &name, flags, Mode::empty())
            .map_err(Error::path("open cgroup", &path))?;
        let events = openat(&dir, "cgroup.events", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| Error::path("open", path.join("cgroup.events"))(errno))?;
        Ok(Self { hierarchy: Arc::clone(hierarchy), name, path, dir, events })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Writes each limit and reads it back.
    pub(crate) fn apply(&self, settings: &[Setting]) -> Result<()> {
        for Setting { file, value, kept, optional, .. } in settings {
            let path = self.path.join(file);
            match write_file(&self.dir, file, value) {
                Err(error) if *optional && gone(&error) => continue,
                Err(error) if gone(&error) && self.lacks(file) => {
                    return Err(LimitsError::Unavailable {
                        file: file.clone(),
                        path: self.path.clone(),
                    }
                    .into());
                }
                written => written.map_err(Error::path("set", &path))?,
            }
            if *kept == Kept::Unknown {
                continue;
            }
            let found = read_file(&self.dir, file).map_err(Error::path("read back", path))?;
            if !kept.shows(&found) {
                return Err(LimitsError::NotKept {
                    file: file.clone(),
                    path: self.path.clone(),
                    wrote: value.clone(),
                    found: found.trim_end().to_owned(),
                }
                .into());
            }
        }
        Ok(())
    }

    /// Whether the group is there, but not this file of it.
    fn lacks(&self, file: &str) -> bool {
        let has = |name: &str| accessat(&self.dir, name, Access::EXISTS, AtFlags::empty()).is_ok();
        has("cgroup.procs") && !has(file)
    }

    /// The content of an interface file, or `None` when the group does not have it.
    pub(crate) fn read(&self, file: &str) -> Result<Option<String>> {
        match read_file(&self.dir, file) {
            Ok(content) => Ok(Some(content)),
            Err(error) if gone(&error) => Ok(None),
            Err(error) => Err(Error::path("read", self.path.join(file))(error)),
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
        match pread(&self.events, &mut buffer, 0) {
            Ok(length) => Ok(buffer[..length]
                .split(|byte| *byte == b'\n')
                .any(|line| line == wanted.as_bytes())),
            // The group was removed.
            Err(Errno::NODEV) => Ok(false),
            Err(errno) => Err(Error::path("read", self.path.join("cgroup.events"))(errno)),
        }
    }

    /// Starts to freeze the group, or to thaw it; cgroup.events tells when that is done.
    pub(crate) fn freeze(&self, frozen: bool) -> Result<()> {
        let value = if frozen { "1" } else { "0" };
        write_file(&self.dir, "cgroup.freeze", value).map_err(Error::path(
            if frozen { "freeze" } else { "thaw" },
            self.path.join("cgroup.freeze"),
        ))
    }

    /// Kills every process in the group and below it, also those that are being forked.
    pub(crate) fn kill(&self) -> Result<()> {
        match write_file(&self.dir, "cgroup.kill", "1") {
            Err(error) if !gone(&error) => {
                Err(Error::path("kill (needs Linux 5.14)", self.path.join("cgroup.kill"))(error))
            }
            _ => Ok(()),
        }
    }

    /// A pidfd of every process in the group and below it, each checked to be a member.
    ///
    /// Between reading a number and opening it, the number may have become another process's. So
    /// the list is read again afterwards: a number that is still listed either belongs to the
    /// process that was opened, or that process is gone and a signal to its pidfd has no
    /// effect. See pidfd_open(2).
    pub(crate) fn members(&self) -> Result<Vec<(Pid, OwnedFd)>> {
        let mut opened = Vec::new();
        for pid in self.pids()? {
            match pidfd_open(pid, PidfdFlags::empty()) {
                Ok(pidfd) => opened.push((pid, pidfd)),
                Err(Errno::SRCH | Errno::INVAL) => {}
                Err(errno) => return Err(Error::path("open the processes of", &self.path)(errno)),
            }
        }
        let listed = self.pids()?;
        opened.retain(|(pid, _)| listed.contains(pid));
        Ok(opened)
    }

    fn pids(&self) -> Result<Vec<Pid>> {
        let mut pids = Vec::new();
        collect_pids(&self.dir, &mut pids)
            .map_err(Error::path("list the processes of", &self.path))?;
        Ok(pids)
    }

    /// Removes the group and what the job made below it. To be called once `populated` has said no.
    pub(crate) fn remove(&self) -> Result<()> {
        remove_tree(self.hierarchy.dir(), self.name.as_str())
            .map_err(Error::path("remove cgroup", &self.path))
    }
}

/// Whether the error says that the group does not exist any more: ENOENT by path, ENODEV by an open
/// file.
fn gone(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::NODEV))
}

fn read_file(dir: impl AsFd, name: &str) -> io::Result<String> {
    let file = openat(dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut content = Vec::new();
    let mut chunk = [0u8; 4096];
    loop {
        let length = read(&file, &mut chunk)?;
        content.extend_from_slice(&chunk[..length]);
        if length == 0 {
            break;
        }
    }
    String::from_utf8(content).map_err(|_| io::ErrorKind::InvalidData.into())
}

fn write_file(dir: impl AsFd, name: &str, value: &str) -> io::Result<()> {
    // NONBLOCK: from about Linux 6.16 on, lowering a memory limit then does not reclaim in our
    // time.
    let file =
        openat(dir, name, OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
    write(&file, value.as_bytes())?;
    Ok(())
}

/// The names of the directories in `dir`, without following links, which cgroup2 does not have.
fn children(dir: impl AsFd) -> io::Result<Vec<std::ffi::CString>> {
    let listed =
        openat(dir, c".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut names = Vec::new();
    for entry in Dir::new(listed)? {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type() == FileType::Directory && name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

fn collect_pids(dir: impl AsFd, pids: &mut Vec<Pid>) -> io::Result<()> {
    let content = match read_file(&dir, "cgroup.procs") {
        Err(error) if gone(&error) => return Ok(()),
        // A threaded group below the job's lists its processes at the domain above it.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::OPNOTSUPP) => String::new(),
        other => other?,
    };
    // A process of another pid namespace is listed as 0.
    pids.extend(content.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)));
    for name in children(&dir)? {
        match openat(&dir, &name, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        {
            Ok(child) => collect_pids(child, pids)?,
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn remove_tree(parent: impl AsFd, name: impl rustix::path::Arg + Copy) -> io::Result<()> {
    match unlinkat(&parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // Not a loop on EBUSY: with no process left, it means that the job has made groups of its
        // own below.
        Err(Errno::BUSY) => {}
        Err(errno) => return Err(errno.into()),
    }
    let dir =
        openat(&parent, name, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    for child in children(&dir)? {
        remove_tree(&dir, child.as_c_str())?;
    }
    unlinkat(&parent, name, AtFlags::REMOVEDIR)?;
    Ok(())
}
