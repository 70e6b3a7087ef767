//! Owns [`History`]: the final reports of jobs, as files in a directory, and [`HistoryEntry`], one
//! of them.
//!
//! Invariant: a report is there as a whole or not at all: it is written to a file without a name,
//! or with another one where the file system has none such, and named then. A file that is none of
//! a job is never touched. Knows nothing of jobs that run.

use std::fs;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, fdatasync, fsync, linkat, openat, renameat, unlinkat,
};
use rustix::io::Errno;

use crate::error::{Error, Result, SystemError};
use crate::event::Report;
use crate::id::JobId;
use crate::job::format::{decode, encode};
use crate::job::stored::Stored;
use crate::log::LogDirectory;

/// What follows the id of the job in the name of a file.
const SUFFIX: &str = ".report";

/// The same for a moment, where a report cannot get its name at once.
const UNFINISHED: &str = ".report.new";

/// More than any report has: a file that is longer is not one.
const MOST: u64 = 1 << 20;

/// The final reports of jobs that a host has kept with
/// [`Config::history`](crate::Config::history), to read and to remove them.
///
/// Any process of the same user can read a history, while the host runs or not. It holds one
/// descriptor.
///
/// ```
/// use jobworker::{Command, Config, History, Reactor, Token};
/// # let dir = tempfile::tempdir().unwrap();
/// # let dir = dir.path();
/// # use std::os::unix::fs::PermissionsExt;
/// # std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)).unwrap();
///
/// let mut reactor = Reactor::with_config(Config::new().history(dir))?;
/// let job = reactor.spawn(Command::new("sh").args(["-c", "exit 3"]), Token(1))?;
/// reactor.wait(job)?;
/// reactor.remove(job)?;
///
/// let history = History::open(dir)?;
/// for entry in history.entries()? {
///     let entry = entry?;
///     println!("{}: {}", entry.command, entry.report.exit); // sh -c 'exit 3': exit code 3
///     history.remove(entry.job)?;
/// }
/// # Ok::<(), jobworker::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct History {
    directory: Arc<LogDirectory>,
}

/// What a [`History`] has of a job.
#[derive(Debug)]
#[non_exhaustive]
pub struct HistoryEntry {
    /// The job.
    pub job: JobId,
    /// The [`label`](crate::Command::label) of its command, or what it was changed to.
    pub label: Vec<u8>,
    /// What was run, as its command prints it, without the environment; cut after 8 KiB.
    pub command: String,
    /// When it was started, by the wall clock.
    pub started: SystemTime,
    /// How it has ended. Of many problems, the first 16 are kept, as
    /// [`Error::Recorded`](crate::Error::Recorded).
    pub report: Report,
    /// Where its log was, or that of standard output, if it had one.
    pub output: Option<PathBuf>,
    /// Where the log of standard error was, if that was separate.
    pub error: Option<PathBuf>,
}

impl History {
    /// Opens the directory of a history. It must belong to this user, and be accessible to nobody
    /// else (mode 0700).
    ///
    /// # Errors
    /// [`Error::System`] (`HistoryDirectory` or `Path`) when the directory cannot be used.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        // The same is asked of it as of one for logs.
        let opened = LogDirectory::open(dir.as_ref()).map_err(|error| match error {
            Error::System(SystemError::LogDirectory { path, reason }) => {
                SystemError::HistoryDirectory { path, reason }.into()
            }
            error => error,
        });
        Ok(Self { directory: Arc::new(opened?) })
    }

    /// All entries, in no particular order. Each is read when the iterator comes to it.
    ///
    /// # Errors
    /// [`Error::System`] (`Path`) when the directory cannot be listed. Of an item: `Record` for a
    /// file that has the name of a report, but is none, or one of a later version of this crate;
    /// `Path` when it cannot be read. Both name the file, and the next item is another one.
    pub fn entries(&self) -> Result<impl Iterator<Item = Result<HistoryEntry>> + use<'_>> {
        let path = self.directory.path("");
        let listed = fs::read_dir(&path).map_err(Error::path("list history", &path))?;
        Ok(listed.filter_map(move |entry| {
            let name = match entry {
                Ok(entry) => entry.file_name(),
                Err(cause) => return Some(Err(Error::path("list history", &path)(cause))),
            };
            let job = name.to_str()?.strip_suffix(SUFFIX)?.parse().ok()?;
            // One that was removed meanwhile is none.
            self.read(job).transpose()
        }))
    }

    /// The entry of a job, or `None` when there is none.
    ///
    /// # Errors
    /// As for an item of [`entries`](Self::entries).
    pub fn read(&self, job: JobId) -> Result<Option<HistoryEntry>> {
        let Some((stored, report)) = self.kept(job)? else { return Ok(None) };
        let [output, error] = stored.logs;
        let log = |suffix: &str| stored.directory.join(format!("{job}.{suffix}"));
        Ok(Some(HistoryEntry {
            job,
            label: stored.label,
            command: stored.command,
            started: stored.started,
            report,
            output: output.map(|_| log("log")),
            error: error.map(|_| log("err.log")),
        }))
    }

    /// All that is kept of a job.
    pub(crate) fn kept(&self, job: JobId) -> Result<Option<(Stored, Report)>> {
        let (name, path) = (file_name(job), self.directory.path(&file_name(job)));
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = match openat(self.directory.dir(), &name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            opened => fs::File::from(opened.map_err(Error::path("open report", &path))?),
        };
        let mut content = Vec::new();
        file.take(MOST).read_to_end(&mut content).map_err(Error::path("read report", &path))?;
        let refuse =
            |reason: String| -> Error { SystemError::Record { path: path.clone(), reason }.into() };
        let (stored, report) = decode(&content).map_err(|refused| refuse(refused.to_string()))?;
        let report = report.ok_or_else(|| refuse("it has no report".to_owned()))?;
        if stored.id != job {
            return Err(refuse("it is the report of another job".to_owned()));
        }
        Ok(Some((stored, report)))
    }

    /// Removes the entry of a job; one that is not there is fine.
    ///
    /// # Errors
    /// [`Error::System`] (`Path`).
    pub fn remove(&self, job: JobId) -> Result<()> {
        // What a host has left that died before it has given that its name.
        for name in [unfinished_name(job), file_name(job)] {
            forget(self.directory.dir(), &name)
                .map_err(|errno| Error::path("remove report", self.directory.path(&name))(errno))?;
        }
        Ok(())
    }

    /// Writes the report of a job, in place of one that is there. With `sync`, it is on the disk
    /// when this returns.
    pub(crate) fn write(&self, stored: &Stored, report: &Report, sync: bool) -> Result<()> {
        let name = file_name(stored.id);
        let written = self.replace(&name, stored, report, sync);
        written.map_err(Error::path("write report", self.directory.path(&name)))
    }

    fn replace(&self, name: &str, stored: &Stored, report: &Report, sync: bool) -> io::Result<()> {
        let (dir, new) = (self.directory.dir(), unfinished_name(stored.id));
        let (file, mut is_named) = open_new(dir, &new)?;
        let mut write = || -> io::Result<()> {
            let mut left = &encode(stored, Some(report))[..];
            while !left.is_empty() {
                let written = rustix::io::retry_on_intr(|| rustix::io::write(&file, left))?;
                left = left.get(written..).unwrap_or_default();
            }
            if sync {
                fdatasync(&file)?;
            }
            if !is_named {
                match link(&file, dir, name) {
                    // A link replaces nothing: a rename does.
                    Err(Errno::EXIST) => {
                        forget(dir, &new)?;
                        link(&file, dir, &new)?;
                        is_named = true;
                    }
                    linked => linked?,
                }
            }
            if is_named {
                renameat(dir, &new, dir, name)?;
            }
            if sync {
                fsync(self.listed()?.as_fd())?;
            }
            Ok(())
        };
        let written = write();
        if written.is_err() && is_named {
            let _ = forget(dir, &new);
        }
        written
    }

    /// The directory, open for more than paths.
    fn listed(&self) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(self.directory.dir(), ".", flags, Mode::empty())
    }
}

fn file_name(job: JobId) -> String {
    format!("{job}{SUFFIX}")
}

fn unfinished_name(job: JobId) -> String {
    format!("{job}{UNFINISHED}")
}

/// Makes a file without a name, or with this one where the file system has none such; says whether
/// it has one.
fn open_new(dir: BorrowedFd<'_>, new: &str) -> rustix::io::Result<(OwnedFd, bool)> {
    let (flags, mode) = (OFlags::WRONLY | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR);
    match openat(dir, ".", flags | OFlags::TMPFILE, mode) {
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {}
        opened => return Ok((opened?, false)),
    }
    // What is there may be from a host that has died at it.
    let flags = flags | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW;
    Ok((openat(dir, new, flags, mode)?, true))
}

/// Gives a name to a file without one.
fn link(file: &OwnedFd, dir: BorrowedFd<'_>, name: &str) -> rustix::io::Result<()> {
    // Anybody may do this; AT_EMPTY_PATH takes a capability.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    linkat(CWD, path, dir, name, AtFlags::SYMLINK_FOLLOW)
}

/// Removes a file, if it is there.
fn forget(dir: BorrowedFd<'_>, name: &str) -> rustix::io::Result<()> {
    match unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        removed => removed,
    }
}
