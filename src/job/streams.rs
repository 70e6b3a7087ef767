//! Owns [`Input`]: a job's standard input, opened for one spawn.
//!
//! Invariant: what is opened here belongs to one spawn, is closed by exec in every other program,
//! and never makes the host wait for somebody. Knows nothing of how streams are connected.

use std::fs::File;
use std::io::{self, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{
    CWD, MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, fcntl_setfl, memfd_create, openat,
};
use rustix::io::Errno;

use crate::command::{Command, Stdin};
use crate::error::{Error, Result, SpawnError, Stage};

/// Standard input, opened.
#[derive(Debug)]
pub(crate) enum Input<'a> {
    Null,
    Opened(OwnedFd),
    Shared(BorrowedFd<'a>),
    /// The job's end of a pipe, and the host's.
    Piped(OwnedFd, PipeWriter),
}

impl<'a> Input<'a> {
    pub(crate) fn open(command: &'a Command) -> Result<Self> {
        let failed = |cause| SpawnError::Failed {
            program: command.program.clone(),
            stage: Stage::StandardStreams,
            path: None,
            cause,
        };
        Ok(match &command.stdin {
            Stdin::Null => Self::Null,
            Stdin::Fd(fd) => Self::Shared(fd.as_fd()),
            Stdin::Bytes(bytes) => Self::Opened(memory_file(bytes).map_err(failed)?),
            Stdin::Piped => {
                let (read, write) = io::pipe().map_err(failed)?;
                Self::Piped(read.into(), write)
            }
            Stdin::File(path) => {
                // A FIFO without a writer would block the host, which must not wait for anybody.
                let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
                let failed = || Error::path("open standard input", path);
                let fd = openat(CWD, path, flags, Mode::empty()).map_err(failed())?;
                // The job shares the open file description, and is to wait for its input.
                fcntl_setfl(&fd, OFlags::empty()).map_err(failed())?;
                Self::Opened(fd)
            }
        })
    }

    /// What the job reads from; `null` if that is nothing.
    pub(crate) fn fd<'b>(&'b self, null: BorrowedFd<'b>) -> BorrowedFd<'b> {
        match self {
            Self::Null => null,
            Self::Opened(fd) | Self::Piped(fd, _) => fd.as_fd(),
            Self::Shared(fd) => *fd,
        }
    }

    /// What the host writes to. Closes everything else.
    pub(crate) fn into_writer(self) -> Option<PipeWriter> {
        match self {
            Self::Piped(_, writer) => Some(writer),
            Self::Null | Self::Opened(_) | Self::Shared(_) => None,
        }
    }
}

/// A file in memory with this content, which nobody can change, at its first byte.
fn memory_file(bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // The sysctl vm.memfd_noexec can demand the flag, which Linux knows since 6.3.
    let made = match memfd_create(c"stdin", flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => memfd_create(c"stdin", flags),
        made => made,
    };
    let file = File::from(made?);
    file.write_all_at(bytes, 0)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    fcntl_add_seals(&file, seals)?;
    Ok(file.into())
}
