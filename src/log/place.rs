//! Owns [`Place`]: where the log of a job lies, and which file was made there.
//!
//! Invariant: only the file that was made is opened or measured. The job may have given its name to
//! any other file, a pipe or a symbolic link included. Knows nothing of jobs.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, statx, unlinkat};
use rustix::io::{Errno, retry_on_intr};

use crate::log::directory::LogDirectory;
use crate::log::file::{Identity, LogFile};
use crate::log::retention::zeros;

/// The name of a log does not lead to the file that was made for the job.
///
/// Carried by an [`io::Error`] whose kind is [`NotFound`](io::ErrorKind::NotFound).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotOurLog {
    /// The name is another file's.
    #[error("the job has replaced its log by another file")]
    Replaced,
    /// The name is gone.
    #[error("the job has removed its log")]
    Removed,
}

impl From<NotOurLog> for io::Error {
    fn from(error: NotOurLog) -> Self {
        Self::new(io::ErrorKind::NotFound, error)
    }
}

/// Where the log of a job lies.
#[derive(Debug)]
pub(crate) struct Place {
    directory: Arc<LogDirectory>,
    name: String,
    identity: Identity,
}

impl Place {
    pub(crate) fn new(directory: Arc<LogDirectory>, name: String, identity: Identity) -> Self {
        Self { directory, name, identity }
    }

    /// Where a log lies whose name alone is known: whatever regular file has it is taken for the
    /// one that was made. `None` when there is none.
    pub(crate) fn of_name(directory: &Arc<LogDirectory>, name: String) -> Option<Self> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let stat = statx(directory.dir(), name.as_str(), flags, Identity::FLAGS).ok()?;
        let is_file = FileType::from_raw_mode(stat.stx_mode.into()) == FileType::RegularFile;
        is_file.then(|| Self::new(Arc::clone(directory), name, Identity::new(&stat)))
    }

    /// The full path.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path(&self.name)
    }

    /// Its name in the directory.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Which file was made here.
    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    /// Opens the log for reading. Never blocks, whatever has its name now.
    pub(crate) fn open(&self) -> io::Result<LogFile> {
        self.open_as(OFlags::RDONLY)
    }

    /// As [`open`](Self::open), for writing as well.
    pub(crate) fn open_for_writing(&self) -> io::Result<LogFile> {
        self.open_as(OFlags::RDWR)
    }

    fn open_as(&self, access: OFlags) -> io::Result<LogFile> {
        let flags = access | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        // A pipe or device is opened before anybody can see what it is; without effect, with these
        // flags. A socket cannot be opened at all (ENXIO).
        let opened = retry_on_intr(|| {
            openat(self.directory.dir(), self.name.as_str(), flags, Mode::empty())
        });
        let file = match opened {
            Ok(file) => LogFile::new(File::from(file), self.path()),
            Err(Errno::NOENT) => return Err(NotOurLog::Removed.into()),
            Err(Errno::LOOP | Errno::NXIO | Errno::ISDIR) => return Err(NotOurLog::Replaced.into()),
            Err(errno) => return Err(errno.into()),
        };
        match file {
            Ok(file) if file.identity() == self.identity => Ok(file),
            Err(error) if error.kind() != io::ErrorKind::InvalidInput => Err(error),
            _ => Err(NotOurLog::Replaced.into()),
        }
    }

    /// The offset of the first byte behind the hole with which the log begins, if it does.
    pub(crate) fn first_byte(&self) -> io::Result<u64> {
        let file = self.open()?;
        let data = file.data_from(0)?.min(file.size()?);
        let rest = if data > 0 { zeros(|buffer| file.read_at(buffer, data))? } else { 0 };
        Ok(data + rest)
    }

    /// The offset at which the log has a hole behind data, if it has one.
    pub(crate) fn inner_hole(&self) -> io::Result<Option<u64>> {
        let file = self.open()?;
        let (data, size) = (file.data_from(0)?, file.size()?);
        Ok(file.hole_from(data)?.filter(|hole| data < size && *hole < size))
    }

    /// The size of the log in bytes, without opening it.
    pub(crate) fn size(&self) -> io::Result<u64> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        match statx(self.directory.dir(), self.name.as_str(), flags, Identity::FLAGS) {
            Ok(stat) if Identity::new(&stat) == self.identity => Ok(stat.stx_size),
            Ok(_) => Err(NotOurLog::Replaced.into()),
            Err(Errno::NOENT) => Err(NotOurLog::Removed.into()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Removes whatever has the name of the log, an empty directory included; a name that is gone
    /// already is fine.
    pub(crate) fn unlink(&self) -> io::Result<()> {
        let remove = |flags| unlinkat(self.directory.dir(), self.name.as_str(), flags);
        let removed = match remove(AtFlags::empty()) {
            // The job has put it there.
            Err(Errno::ISDIR) => remove(AtFlags::REMOVEDIR),
            other => other,
        };
        match removed {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}
