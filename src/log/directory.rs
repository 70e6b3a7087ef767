//! Owns [`LogDirectory`]: the private directory in which the jobs' logs lie.
//!
//! Invariant: the directory belongs to this user and to nobody else, and stays the one that was
//! checked: every file in it is named relative to its descriptor. Knows nothing of jobs but the
//! names of their files.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{
    Access, AtFlags, CWD, Gid, Mode, OFlags, Uid, accessat, fchown, fstat, mkdirat, openat, statx,
    unlinkat,
};
use rustix::io::Errno;
use uuid::Uuid;

use crate::error::{Error, Result, SystemError};
use crate::log::file::Identity;
use crate::log::place::Place;

/// The directory of the logs.
#[derive(Debug)]
pub(crate) struct LogDirectory {
    path: PathBuf,
    dir: OwnedFd,
    /// Whether we created it, so that it is removed on drop if it is empty.
    temporary: bool,
}

impl LogDirectory {
    /// Takes a directory that the host made.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let path = std::path::absolute(path).map_err(Error::path("find", path))?;
        Self::checked(path, false)
    }

    /// Creates a directory with an unused name in the system's directory for temporary files.
    pub(crate) fn temporary(unique: Uuid) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("jobworker-{unique}"));
        mkdirat(CWD, &path, Mode::RWXU).map_err(Error::path("create log directory", &path))?;
        Self::checked(path, true)
    }

    fn checked(path: PathBuf, temporary: bool) -> Result<Self> {
        let refuse = |reason: String| -> Error {
            SystemError::LogDirectory { path: path.clone(), reason }.into()
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
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
        Ok(Self { path, dir, temporary })
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
    /// it again.
    ///
    /// A job that writes to /dev/stderr opens its own log by a path under /proc, for which it has
    /// to be its owner.
    pub(crate) fn create(
        self: &Arc<Self>,
        name: &str,
        owner: (Option<u32>, Option<u32>),
    ) -> Result<(OwnedFd, Place)> {
        let flags = OFlags::WRONLY
            | OFlags::APPEND
            | OFlags::CREATE
            | OFlags::EXCL
            | OFlags::NOFOLLOW
            | OFlags::CLOEXEC;
        let log = openat(&self.dir, name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(Error::path("create log", self.path(name)))?;
        let stat = match statx(&log, "", AtFlags::EMPTY_PATH, Identity::FLAGS) {
            Ok(stat) => stat,
            Err(errno) => {
                let _ = unlinkat(&self.dir, name, AtFlags::empty());
                return Err(Error::path("examine log", self.path(name))(errno));
            }
        };
        if owner != (None, None) {
            // A host that may not give files away may not change the job's user either: that step
            // then reports it.
            let _ = fchown(&log, owner.0.map(Uid::from_raw), owner.1.map(Gid::from_raw));
        }
        let place = Place::new(Arc::clone(self), name.to_owned(), Identity::new(&stat));
        Ok((log, place))
    }
}

impl Drop for LogDirectory {
    fn drop(&mut self) {
        if self.temporary {
            // Not empty when logs were to be kept.
            let _ = std::fs::remove_dir(&self.path);
        }
    }
}
