//! Owns [`Input`], a job's standard input, opened for one spawn, and [`Passed`], the descriptors
//! that it is given besides its standard streams.
//!
//! Invariant: what is opened here belongs to one spawn, is closed by exec in every other program,
//! and never makes the host wait for somebody. Knows nothing of how streams are connected.

use std::io::{self, PipeWriter};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, fcntl_setfl, openat};
use rustix::io::{Errno, fcntl_dupfd_cloexec};

use crate::command::{Command, Stdin};
use crate::error::{Result, SpawnError, Stage};
use crate::sys::{Descriptor, memory_file};

/// Standard input, opened.
#[derive(Debug)]
pub(crate) enum Input<'a> {
    Null,
    /// The terminal that is the output.
    Terminal,
    Opened(OwnedFd),
    Shared(BorrowedFd<'a>),
    /// The job's end of a pipe, and the host's.
    Piped(OwnedFd, PipeWriter),
}

impl<'a> Input<'a> {
    pub(crate) fn open(command: &'a Command) -> Result<Self> {
        let failed_on = |path: Option<&PathBuf>, cause| SpawnError::Failed {
            program: command.program.clone(),
            stage: Stage::StandardStreams,
            path: path.cloned(),
            cause,
        };
        let failed = |cause| failed_on(None, cause);
        Ok(match &command.stdin {
            Stdin::Null => Self::Null,
            Stdin::Terminal => Self::Terminal,
            Stdin::Fd(fd) => Self::Shared(fd.as_fd()),
            Stdin::Bytes(bytes) => Self::Opened(memory_file(c"stdin", bytes).map_err(failed)?),
            Stdin::Piped => {
                let (read, write) = io::pipe().map_err(failed)?;
                Self::Piped(read.into(), write)
            }
            Stdin::File(path) => {
                // A FIFO without a writer would block the host, which must not wait for anybody.
                let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
                let failed = |errno: Errno| failed_on(Some(path), errno.into());
                let fd = openat(CWD, path, flags, Mode::empty()).map_err(failed)?;
                // The job shares the open file description, and is to wait for its input.
                fcntl_setfl(&fd, OFlags::empty()).map_err(failed)?;
                Self::Opened(fd)
            }
        })
    }

    /// What the job reads from; `null` if that is nothing, and `output` if that is its terminal.
    pub(crate) fn fd<'b>(&'b self, null: BorrowedFd<'b>, output: BorrowedFd<'b>) -> BorrowedFd<'b> {
        match self {
            Self::Null => null,
            Self::Terminal => output,
            Self::Opened(fd) | Self::Piped(fd, _) => fd.as_fd(),
            Self::Shared(fd) => *fd,
        }
    }

    /// What the host writes to. Closes everything else.
    pub(crate) fn into_writer(self) -> Option<PipeWriter> {
        match self {
            Self::Piped(_, writer) => Some(writer),
            Self::Null | Self::Terminal | Self::Opened(_) | Self::Shared(_) => None,
        }
    }
}

/// The descriptors besides the standard streams, where no number that one of them gets in the job
/// is that of another in the host.
#[derive(Debug)]
pub(crate) struct Passed<'a>(Vec<(RawFd, Source<'a>)>);

#[derive(Debug)]
enum Source<'a> {
    Shared(BorrowedFd<'a>),
    /// A duplicate above all numbers that are used in the job.
    Lifted(OwnedFd),
}

impl<'a> Passed<'a> {
    pub(crate) fn new(command: &'a Command) -> Result<Self, SpawnError> {
        let last = command.descriptors.last_key_value().map_or(2, |(number, _)| *number);
        let source = |fd: &'a OwnedFd| -> io::Result<Source<'a>> {
            if fd.as_raw_fd() > last {
                return Ok(Source::Shared(fd.as_fd()));
            }
            Ok(Source::Lifted(fcntl_dupfd_cloexec(fd, last.saturating_add(1))?))
        };
        let pass = |(number, fd): (&RawFd, &'a Arc<OwnedFd>)| match source(fd) {
            Ok(source) => Ok((*number, source)),
            Err(cause) => Err(SpawnError::Failed {
                program: command.program.clone(),
                stage: Stage::Descriptors,
                path: None,
                cause,
            }),
        };
        command.descriptors.iter().map(pass).collect::<Result<_, _>>().map(Self)
    }

    /// In the order of their numbers in the job.
    pub(crate) fn descriptors(&self) -> Vec<Descriptor<'_>> {
        let mut descriptors = Vec::with_capacity(self.0.len());
        for (number, source) in &self.0 {
            let source = match source {
                Source::Shared(fd) => *fd,
                Source::Lifted(fd) => fd.as_fd(),
            };
            descriptors.push(Descriptor { number: *number, source });
        }
        descriptors
    }
}
