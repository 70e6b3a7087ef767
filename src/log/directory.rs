//! Owns [`LogDirectory`]: the private directory in which the jobs' logs lie.
//!
//! Invariant: the directory belongs to this user and to nobody else, and stays the one that was
//! checked: every file in it is named relative to its descriptor. One that we made is locked as
//! long as we live, so that others can tell when it is left. Knows nothing of jobs but the names of
//! their files.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{env, fs};

use rustix::fs::{
    Access, AtFlags, CWD, FileType, FlockOperation, Gid, Mode, OFlags, Stat, Uid, accessat, fchown,
    flock, fstat, fstatvfs, lstat, mkdirat, openat, statx, unlinkat,
};
use rustix::io::Errno;
use uuid::Uuid;

use crate::error::{Error, Result, SystemError};
use crate::log::file::{Identity, LogFile};
use crate::log::place::{NotOurLog, Place};
use crate::log::retention::Rules;

/// What the name of a directory that we made begins with; a UUID follows.
const PREFIX: &str = "jobworker-logs-";

/// An empty file in a directory that is not to be swept, because of a log in it.
pub(super) const KEEP: &str = ".keep";

/// How many directories may be swept away before they are locked. Each takes a sweep of another
/// host within the microseconds between two calls.
const ATTEMPTS: usize = 8;

/// The directory of the logs.
#[derive(Debug)]
pub(crate) struct LogDirectory {
    path: PathBuf,
    dir: OwnedFd,
    /// The process that created it, if it was one of ours, so that it is removed on drop if it is
    /// empty.
    temporary: Option<u32>,
    /// Whether it is known that a log in it outlives the host.
    keeps: AtomicBool,
}

impl LogDirectory {
    /// Makes a directory that is the host's alone, unless there is something of that name.
    pub(crate) fn make(path: &Path) -> Result<()> {
        match mkdirat(CWD, path, Mode::RWXU) {
            // What that is, and whether something is missing above it, is found out on opening it.
            Ok(()) | Err(Errno::EXIST | Errno::NOENT | Errno::NOTDIR) => Ok(()),
            Err(errno) => Err(Error::path("create directory", path)(errno)),
        }
    }

    /// Takes a directory that the host made.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let path = std::path::absolute(path).map_err(Error::path("find", path))?;
        // Nothing is listed in it.
        let (path, dir) = Self::checked(path, OFlags::PATH)?;
        Ok(Self { path, dir, temporary: None, keeps: AtomicBool::new(false) })
    }

    /// The directories that hosts of this user have made in the system's directory for temporary
    /// files, and that are there still.
    pub(crate) fn all_temporary() -> Result<Vec<PathBuf>> {
        let parent = temporary_parent()?;
        let failed = |cause| Error::path("list", &parent)(cause);
        let mut found = Vec::new();
        for entry in fs::read_dir(&parent).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if is_ours(&entry.file_name(), &entry.path()) {
                found.push(entry.path());
            }
        }
        Ok(found)
    }

    /// Takes a directory that an earlier host has used. One that such a host has made is ours from
    /// now on, unless a process still has the lock on it.
    pub(crate) fn reopen(path: &Path) -> Result<Self> {
        let (path, dir) = Self::checked(path.to_owned(), OFlags::RDONLY)?;
        let name = path.file_name().and_then(|name| name.to_str());
        let temporary = name.is_some_and(|name| name.starts_with(PREFIX))
            && path.parent() == temporary_parent().ok().as_deref()
            && lock(&dir, &path).unwrap_or(false);
        let temporary = temporary.then(std::process::id);
        // That is why it is there still.
        Ok(Self { path, dir, temporary, keeps: AtomicBool::new(true) })
    }

    /// Creates a directory with an unused name in the system's directory for temporary files, and
    /// locks it; `unique` gives a new name.
    pub(crate) fn temporary(unique: impl Fn() -> Result<Uuid>) -> Result<Self> {
        let parent = temporary_parent()?;
        for _ in 0..ATTEMPTS {
            let path = parent.join(format!("{PREFIX}{}", unique()?));
            mkdirat(CWD, &path, Mode::RWXU).map_err(Error::path("create log directory", &path))?;
            let locked = Self::checked(path.clone(), OFlags::RDONLY).and_then(|(path, dir)| {
                let locked = lock(&dir, &path).map_err(Error::path("lock log directory", &path))?;
                Ok(locked.then_some((path, dir)))
            });
            if !matches!(locked, Ok(Some(_))) {
                let _ = fs::remove_dir(&path);
            }
            if let Some((path, dir)) = locked? {
                let temporary = Some(std::process::id());
                return Ok(Self { path, dir, temporary, keeps: AtomicBool::new(false) });
            }
        }
        Err(Error::path("lock a log directory in", parent)(Errno::BUSY))
    }

    fn checked(path: PathBuf, access: OFlags) -> Result<(PathBuf, OwnedFd)> {
        let refuse = |reason: String| -> Error {
            SystemError::LogDirectory { path: path.clone(), reason }.into()
        };
        let flags = access | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = openat(CWD, &path, flags, Mode::empty()).map_err(|errno| match errno {
            Errno::NOENT => refuse("it does not exist: create it with mode 0700".to_owned()),
            Errno::LOOP | Errno::NOTDIR => {
                refuse("it is not a directory, or a symbolic link to one".to_owned())
            }
            errno => Error::path("open log directory", &path)(errno),
        })?;
        let stat = fstat(&dir).map_err(Error::path("examine log directory", &path))?;
        let own = rustix::process::geteuid().as_raw();
        if stat.st_uid != own {
            return Err(refuse(format!("it belongs to user {}, not to user {own}", stat.st_uid)));
        }
        if stat.st_mode & 0o077 != 0 {
            let mode = stat.st_mode & 0o777;
            return Err(refuse(format!(
                "others may use it (mode {mode:04o}): set its mode to 0700"
            )));
        }
        match accessat(&dir, ".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS) {
            // Kernels before 5.8 lack the call; if it matters, opening a log fails.
            Ok(()) | Err(Errno::NOSYS) => {}
            Err(errno) => return Err(Error::path("write to log directory", &path)(errno)),
        }
        Ok((path, dir))
    }

    /// Records that a log in this directory is to outlive the host, so that nobody sweeps it.
    pub(crate) fn keep(&self) -> Result<()> {
        if self.temporary.is_none() || self.keeps.load(Ordering::Acquire) {
            return Ok(());
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(&self.dir, KEEP, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| self.create_error(KEEP, errno))?;
        self.keeps.store(true, Ordering::Release);
        Ok(())
    }

    /// What it means that a file cannot be made in this directory.
    fn create_error(&self, name: &str, errno: Errno) -> Error {
        if errno == Errno::NOENT {
            let reason = "it was removed while the reactor was using it: make a new reactor, or \
                          name a directory that nobody cleans up with Config::log_dir"
                .to_owned();
            return SystemError::LogDirectory { path: self.path.clone(), reason }.into();
        }
        Error::path("create log", self.path(name))(errno)
    }

    /// How many bytes users without privileges can still write to its file system; `None` where
    /// that is not known.
    pub(crate) fn available(&self) -> Option<u64> {
        let found = fstatvfs(&self.dir).ok().filter(|found| found.f_blocks > 0)?;
        Some(found.f_bavail.saturating_mul(found.f_frsize))
    }

    /// The full path of a log.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The directory itself, for calls relative to it.
    pub(crate) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Makes a log of a new name, and opens it for appending; `owner` is who will be able to open
    /// it again. With `rules` it is also opened to be kept short.
    ///
    /// A job that writes to /dev/stderr opens its own log by a path under /proc, for which it has
    /// to be its owner.
    pub(crate) fn create(
        self: &Arc<Self>,
        name: &str,
        owner: (Option<u32>, Option<u32>),
        rules: Option<Rules>,
    ) -> Result<(OwnedFd, NewLog)> {
        let flags = OFlags::WRONLY
            | OFlags::APPEND
            | OFlags::CREATE
            | OFlags::EXCL
            | OFlags::NOFOLLOW
            | OFlags::CLOEXEC;
        let log = openat(&self.dir, name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| self.create_error(name, errno))?;
        let stat = match statx(&log, "", AtFlags::EMPTY_PATH, Identity::FLAGS) {
            Ok(stat) => stat,
            Err(errno) => {
                let _ = unlinkat(&self.dir, name, AtFlags::empty());
                return Err(Error::path("examine log", self.path(name))(errno));
            }
        };
        let identity = Identity::new(&stat);
        // Before the file is given away, after which it may be closed to the host.
        let kept = match rules.map(|rules| self.new_kept(name, identity, rules)).transpose() {
            Ok(kept) => kept,
            Err(error) => {
                let _ = unlinkat(&self.dir, name, AtFlags::empty());
                return Err(error);
            }
        };
        if owner != (None, None) {
            // A host that may not give files away may not change the job's user either: that step
            // then reports it.
            let _ = fchown(&log, owner.0.map(Uid::from_raw), owner.1.map(Gid::from_raw));
        }
        let place = Place::new(Arc::clone(self), name.to_owned(), identity);
        Ok((log, NewLog { place, kept }))
    }

    /// Opens a log that another host has made, to be kept short by this one.
    pub(crate) fn reopen_kept(&self, place: &Place, rules: Rules) -> Result<Kept> {
        self.open_kept(place.name(), place.identity(), rules)
    }

    /// Opens a log that was just made, to be kept short, and finds out whether that is possible. It
    /// has no byte yet.
    fn new_kept(&self, name: &str, identity: Identity, rules: Rules) -> Result<Kept> {
        let kept = self.open_kept(name, identity, rules)?;
        let tried = if rules.may_give_back() { kept.file.test_punch() } else { Ok(()) };
        match tried {
            Ok(()) => Ok(kept),
            Err(cause) => Err(SystemError::CannotPunch { path: self.path(name), cause }.into()),
        }
    }

    /// Opens a log to be kept short.
    fn open_kept(&self, name: &str, identity: Identity, rules: Rules) -> Result<Kept> {
        let path = self.path(name);
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.dir, name, flags, Mode::empty())
            .map_err(Error::path("open log", &path))
            .and_then(|file| {
                let file = LogFile::new(File::from(file), path.clone());
                file.map_err(Error::path("examine log", &path))
            })?;
        if file.identity() != identity {
            return Err(Error::path("open log", &path)(NotOurLog::Replaced));
        }
        Ok(Kept { file, rules })
    }
}

/// A log that was made.
#[derive(Debug)]
pub(crate) struct NewLog {
    pub(crate) place: Place,
    pub(crate) kept: Option<Kept>,
}

/// A log that is to be kept short.
#[derive(Debug)]
pub(crate) struct Kept {
    /// Open for writing.
    pub(crate) file: LogFile,
    pub(crate) rules: Rules,
}

impl Drop for LogDirectory {
    fn drop(&mut self) {
        if self.temporary != Some(std::process::id()) {
            return;
        }
        if self.keeps.load(Ordering::Acquire) {
            let mut names = fs::read_dir(&self.path).into_iter().flatten().flatten();
            if !names.all(|entry| entry.file_name() == KEEP) {
                return;
            }
            let _ = unlinkat(&self.dir, KEEP, AtFlags::empty());
        }
        // It is not empty when a log could not be removed.
        let _ = fs::remove_dir(&self.path);
    }
}

/// The system's directory for temporary files. A relative one counts from the working directory of
/// this moment, which the host may change later.
pub(super) fn temporary_parent() -> Result<PathBuf> {
    let parent = env::temp_dir();
    std::path::absolute(&parent).map_err(Error::path("find", parent))
}

/// Whether a directory looks like one that a host of this user has made.
pub(super) fn is_ours(name: &OsStr, path: &Path) -> bool {
    let uuid = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
    uuid.is_some_and(|uuid| Uuid::try_parse(uuid).is_ok_and(|found| found.to_string() == uuid))
        && lstat(path).is_ok_and(|stat| is_private(&stat))
}

pub(super) fn is_private(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
        && stat.st_uid == rustix::process::geteuid().as_raw()
        && stat.st_mode & 0o7777 == 0o700
}

/// Locks a directory that is open; `false` when somebody else holds the lock, or it is not the one
/// at `path` any more.
pub(super) fn lock(dir: &OwnedFd, path: &Path) -> rustix::io::Result<bool> {
    match flock(dir, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => return Ok(false),
        locked => locked?,
    }
    // Whoever held the lock before may have removed it.
    let opened = fstat(dir)?;
    match lstat(path) {
        Err(Errno::NOENT) => Ok(false),
        found => {
            let found = found?;
            Ok((found.st_dev, found.st_ino) == (opened.st_dev, opened.st_ino))
        }
    }
}
