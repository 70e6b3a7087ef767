//! Owns [`LauncherProgram`]: the program file of the launcher, and [`Delivery`], what its process
//! is given to read and to write.
//!
//! Invariant: the file stays the one that was opened, whatever becomes of its path, and a letter
//! cannot be changed once it is written. Knows nothing of what a letter says.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, memfd_create, openat};
use rustix::io::Errno;

/// The seals on a letter.
pub(super) const SEALS: SealFlags =
    SealFlags::SEAL.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::WRITE);

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
    pub(super) fn new(bytes: &[u8]) -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        Ok(Self { letter: letter(bytes)?, reader, writer })
    }
}

fn letter(bytes: &[u8]) -> io::Result<OwnedFd> {
    let create = |flags| {
        memfd_create(c"jobworker-letter", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | flags)
    };
    let file = match create(MemfdFlags::NOEXEC_SEAL) {
        // The kernel is older than 6.3, and has no setting that would demand the flag.
        Err(Errno::INVAL) => create(MemfdFlags::empty()),
        created => created,
    }?;
    let file = File::from(file);
    // The offset, which the launcher shares, stays at the beginning.
    file.write_all_at(bytes, 0)?;
    fcntl_add_seals(&file, SEALS)?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_letter_is_read_from_its_beginning_and_cannot_be_changed() {
        let Delivery { letter, .. } = Delivery::new(b"bytes").unwrap();
        let mut file = File::from(letter);
        let mut read = Vec::new();
        file.read_to_end(&mut read).unwrap();
        assert_eq!(read, b"bytes");
        for offset in [0, 5] {
            let error = file.write_all_at(b"x", offset).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(Errno::PERM.raw_os_error()));
        }
        assert!(file.set_len(0).is_err());
    }
}
