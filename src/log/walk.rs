//! Owns [`Walk`]: how a path leads to a file, one directory entry after the other.
//!
//! Invariants: each directory is shown to the caller before the name in it is looked up, so that a
//! caller who watches it misses no later change. Nothing but a regular file is opened: a pipe or a
//! device is only looked at. The number of entries is bounded, whatever symbolic links there are.
//! Knows nothing of watches.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path};

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat, readlinkat};
use rustix::io::{Errno, retry_on_intr};

use crate::log::file::LogFile;

/// How many entries one walk looks up at most; `ELOOP` beyond that. The kernel follows 40 links.
const MOST_ENTRIES: usize = 256;

/// Only to look at a file and to look up names in it: nothing is opened by that.
const LOOK: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// One entry on the way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    /// The directory.
    pub(crate) directory: BorrowedFd<'a>,
    /// The name that is looked up in it next.
    pub(crate) name: &'a OsStr,
    /// Whether the path ends with it, if it is not a symbolic link.
    pub(crate) last: bool,
}

/// A path, as far as it was walked.
#[derive(Debug)]
pub(crate) struct Walk {
    directory: OwnedFd,
    /// The components that are left, the next one last.
    left: Vec<OsString>,
    entries: usize,
}

impl Walk {
    /// Walks an absolute path, shows each entry before it is looked up, and opens the file at the
    /// end for reading; `None` when there is no such file now.
    ///
    /// Fails with [`InvalidInput`](io::ErrorKind::InvalidInput) when that is no regular file.
    pub(crate) fn to_file(
        path: &Path,
        mut show: impl FnMut(Entry<'_>) -> io::Result<()>,
    ) -> io::Result<Option<LogFile>> {
        let mut walk = Self { directory: root()?, left: Vec::new(), entries: 0 };
        walk.push(path)?;
        match walk.go(&mut show) {
            Ok(found) => Ok(Some(open(&found, path)?)),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::NOENT | Errno::NOTDIR) => Ok(None),
                _ => Err(error),
            },
        }
    }

    /// Puts a path before the components that are left.
    fn push(&mut self, path: &Path) -> io::Result<()> {
        if path.has_root() {
            self.directory = root()?;
        }
        let names = path.components().rev().filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsString::from("..")),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
        });
        self.left.extend(names);
        Ok(())
    }

    fn go(&mut self, show: &mut impl FnMut(Entry<'_>) -> io::Result<()>) -> io::Result<OwnedFd> {
        while let Some(name) = self.left.pop() {
            self.entries += 1;
            if self.entries > MOST_ENTRIES {
                return Err(Errno::LOOP.into());
            }
            if name != ".." {
                let directory = self.directory.as_fd();
                show(Entry { directory, name: &name, last: self.left.is_empty() })?;
            }
            let found = look(self.directory.as_fd(), &name)?;
            match FileType::from_raw_mode(fstat(&found)?.st_mode) {
                FileType::Symlink => {
                    let target = readlinkat(&found, "", Vec::new())?.into_bytes();
                    self.push(Path::new(&OsString::from_vec(target)))?;
                }
                _ if self.left.is_empty() => return Ok(found),
                _ => self.directory = found,
            }
        }
        // The path, or the link at its end, is the root or nothing.
        self.directory.as_fd().try_clone_to_owned()
    }
}

fn root() -> io::Result<OwnedFd> {
    look(CWD, OsStr::new("/"))
}

fn look(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    Ok(retry_on_intr(|| openat(directory, name, LOOK, Mode::empty()))?)
}

/// Opens what a walk has found for reading.
fn open(found: &OwnedFd, path: &Path) -> io::Result<LogFile> {
    // To open a pipe would release the writer that waits for a reader.
    if FileType::from_raw_mode(fstat(found)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let link = format!("/proc/self/fd/{}", found.as_raw_fd());
    // NONBLOCK, so that the lease of a file server is not waited for.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let file = retry_on_intr(|| openat(CWD, link.as_str(), flags, Mode::empty()))?;
    LogFile::new(File::from(file), path.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn shown(path: &Path) -> (io::Result<bool>, Vec<String>) {
        let mut names = Vec::new();
        let found = Walk::to_file(path, |entry| {
            let mark = if entry.last { "*" } else { "" };
            names.push(format!("{}{mark}", entry.name.to_string_lossy()));
            Ok(())
        });
        (found.map(|file| file.is_some()), names)
    }

    #[test]
    fn every_entry_on_the_way_is_shown_links_included() {
        let dir = tempfile::tempdir().unwrap();
        // The directory itself lies somewhere.
        let above = dir.path().components().count() - 1;
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("releases/5")).unwrap();
        std::fs::write(at("releases/5/log"), "x").unwrap();
        symlink("releases/5", at("current")).unwrap();
        symlink("current/../5/log", at("link")).unwrap();
        symlink(at("loop"), at("loop")).unwrap();
        let walk = |name: &str| {
            let (found, names) = shown(&at(name));
            (found.map_err(|error| error.raw_os_error()), names[above..].join(" "))
        };
        assert_eq!(walk("current/log"), (Ok(true), "current releases 5 log*".into()));
        assert_eq!(walk("link"), (Ok(true), "link* current releases 5 5 log*".into()));
        assert_eq!(walk("./releases/5/none"), (Ok(false), "releases 5 none*".into()));
        assert_eq!(walk("none/log"), (Ok(false), "none".into()));
        assert_eq!(walk("releases/5/log/x"), (Ok(false), "releases 5 log x*".into()));
        assert_eq!(walk("releases"), (Err(None), "releases*".into()));
        assert_eq!(walk("loop").0, Err(Some(Errno::LOOP.raw_os_error())));
    }
}
