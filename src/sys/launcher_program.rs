//! Owns [`LauncherProgram`]: the program file of the launcher, and [`Delivery`], what its process
//! is given to read and to write.
//!
//! Invariant: the file stays the one that was opened, whatever becomes of its path, and a letter
//! cannot be changed once it is written. Knows nothing of what a letter says.

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::error::Stage;
use crate::sys::memory_file::memory_file;
use crate::sys::plan::Failure;

/// The program file of the launcher.
#[derive(Debug)]
pub(crate) struct LauncherProgram {
    file: OwnedFd,
}

impl LauncherProgram {
    /// Opens the file, to be executed by its descriptor.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())? })
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A letter for a launcher, and the pipe for its answer.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) letter: OwnedFd,
    /// The host's end. The launcher's is closed by exec and by exit.
    pub(super) reader: PipeReader,
    pub(super) writer: PipeWriter,
}

impl Delivery {
    pub(super) fn new(bytes: &[u8]) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure {
            stage: Stage::Launcher,
            errno: error.raw_os_error().unwrap_or(0),
        };
        let (reader, writer) = io::pipe().map_err(failed)?;
        let letter = memory_file(c"jobworker-letter", bytes).map_err(failed)?;
        Ok(Self { letter, reader, writer })
    }
}
