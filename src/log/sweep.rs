//! Owns the sweep of log directories that dead hosts have left behind.
//!
//! Invariant: a directory is swept only if a host of this user has made it in the directory for
//! temporary files, nobody holds its lock, and no log in it was to outlive that host. Knows nothing
//! of jobs.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RawDir, fstat, lstat, openat, statat, unlinkat,
};
use rustix::io::Errno;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::log::directory::{KEEP, PREFIX, lock, temporary_parent};

/// How long one sweep may take for the directories: what is not removed by then is left for the
/// next one.
const TIME: Duration = Duration::from_secs(1);

/// Removes the log directories of dead hosts, and tells each that was removed or could not be; see
/// [`Reactor::sweep`](crate::Reactor::sweep).
pub(crate) fn sweep_directories(tell: &mut dyn FnMut(Result<PathBuf>)) {
    let until = Instant::now() + TIME;
    let parent = match temporary_parent() {
        Ok(parent) => parent,
        Err(error) => return tell(Err(error)),
    };
    let entries = match fs::read_dir(&parent) {
        Ok(entries) => entries,
        Err(cause) => return tell(Err(Error::path("list", parent)(cause))),
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if !is_ours(&entry.file_name(), &path) {
            continue;
        }
        match remove(&path, until) {
            Ok(true) => tell(Ok(path)),
            Ok(false) => {}
            Err(cause) => tell(Err(Error::path("remove log directory", path)(cause))),
        }
        if Instant::now() >= until {
            return;
        }
    }
}

/// Whether a directory looks like one that a host of this user has made.
fn is_ours(name: &OsStr, path: &Path) -> bool {
    let uuid = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
    uuid.is_some_and(|uuid| Uuid::try_parse(uuid).is_ok_and(|found| found.to_string() == uuid))
        && lstat(path).is_ok_and(|stat| is_private(&stat))
}

fn is_private(stat: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
        && stat.st_uid == rustix::process::geteuid().as_raw()
        && stat.st_mode & 0o7777 == 0o700
}

/// Whether there is a log that was to outlive the host, as far as is recorded.
fn holds_kept_log(dir: &OwnedFd, path: &Path) -> io::Result<bool> {
    match statat(dir, KEEP, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(false),
        found => drop(found?),
    }
    // Its user may have removed all logs since.
    let names = fs::read_dir(path)?;
    Ok(!names.into_iter().flatten().all(|entry| entry.file_name() == KEEP))
}

/// Removes a directory with its logs; `false` when it is in use, or is to be kept.
fn remove(path: &Path, until: Instant) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir: OwnedFd = match openat(CWD, path, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(false),
        opened => opened?,
    };
    if !is_private(&fstat(&dir)?) || !lock(&dir, path)? {
        return Ok(false);
    }
    if holds_kept_log(&dir, path)? {
        return Ok(false);
    }
    let mut listed = Vec::with_capacity(8192);
    let mut entries = RawDir::new(dir.as_fd(), listed.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if [c".", c".."].contains(&name) {
            continue;
        }
        // A job of this user may have put an empty directory in the place of its log.
        match unlinkat(&dir, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => unlinkat(&dir, name, AtFlags::REMOVEDIR)?,
            removed => removed?,
        }
        if Instant::now() >= until {
            return Ok(false);
        }
    }
    fs::remove_dir(path)?;
    Ok(true)
}
