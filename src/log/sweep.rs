//! Owns [`DirectorySweep`]: the removal of log directories that dead hosts have left behind, step
//! by step.
//!
//! Invariant: a directory is swept only if a host of this user has made it in the directory for
//! temporary files, nobody holds its lock, and no log in it was to outlive that host. A step makes
//! a bounded number of calls. Knows nothing of jobs or the loop.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::{fs, io};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, fstat, openat, statat, unlinkat};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::log::directory::{KEEP, is_ours, is_private, lock, temporary_parent};

/// A sweep of log directories that is going on. Dropping it gives all locks back; the next sweep
/// does the rest.
#[derive(Debug)]
pub(crate) struct DirectorySweep {
    /// What is still to be searched.
    entries: fs::ReadDir,
    /// The one that is swept now.
    current: Option<Current>,
}

/// A directory of a dead host.
#[derive(Debug)]
struct Current {
    path: PathBuf,
    /// Open and locked.
    dir: OwnedFd,
    logs: fs::ReadDir,
}

impl DirectorySweep {
    /// Begins to sweep the system's directory for temporary files.
    pub(crate) fn begin() -> Result<Self> {
        let parent = temporary_parent()?;
        let entries = fs::read_dir(&parent).map_err(Error::path("list", parent))?;
        Ok(Self { entries, current: None })
    }

    /// Does the next piece, and tells of each directory that was removed or could not be; `false`
    /// once it is done.
    pub(crate) fn step(&mut self, tell: &mut dyn FnMut(Result<PathBuf>)) -> bool {
        if let Some(mut current) = self.current.take() {
            match current.remove_next() {
                Ok(true) => self.current = Some(current),
                Ok(false) => tell(Ok(current.path)),
                Err(cause) => tell(Err(Error::path("remove log directory", current.path)(cause))),
            }
            return true;
        }
        let Some(entry) = self.entries.next() else { return false };
        // Others come and go in this directory.
        let Ok(entry) = entry else { return true };
        let path = entry.path();
        if is_ours(&entry.file_name(), &path) {
            match Current::begin(&path) {
                Ok(current) => self.current = current,
                Err(cause) => tell(Err(Error::path("examine log directory", path)(cause))),
            }
        }
        true
    }
}

impl Current {
    /// Locks a directory; `None` when it is in use, or is to be kept.
    fn begin(path: &Path) -> io::Result<Option<Self>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir: OwnedFd = match openat(CWD, path, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            opened => opened?,
        };
        if !is_private(&fstat(&dir)?) || !lock(&dir, path)? || holds_kept_log(&dir, path)? {
            return Ok(None);
        }
        let logs = fs::read_dir(path)?;
        Ok(Some(Self { path: path.to_owned(), dir, logs }))
    }

    /// Removes one log, or the directory once it is empty; `true` if there is more.
    fn remove_next(&mut self) -> io::Result<bool> {
        let Some(log) = self.logs.next() else {
            fs::remove_dir(&self.path)?;
            return Ok(false);
        };
        let name = log?.file_name();
        match unlinkat(&self.dir, &name, AtFlags::empty()) {
            // A job of this user may have put an empty directory in the place of its log.
            Err(Errno::ISDIR) => unlinkat(&self.dir, &name, AtFlags::REMOVEDIR)?,
            Err(Errno::NOENT) => {}
            removed => removed?,
        }
        Ok(true)
    }
}

/// Whether there is a log that was to outlive the host, as far as is recorded.
fn holds_kept_log(dir: &OwnedFd, path: &Path) -> io::Result<bool> {
    match statat(dir, KEEP, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(false),
        found => drop(found?),
    }
    // Its user may have removed all logs since.
    Ok(!fs::read_dir(path)?.flatten().all(|entry| entry.file_name() == KEEP))
}
