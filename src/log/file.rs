//! Owns [`LogFile`], a log that is open for reading and perhaps for writing, and [`Identity`],
//! which tells files apart.
//!
//! Invariant: a `LogFile` is a regular file. Knows nothing of watches.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FallocateFlags, FileType, SeekFrom, Statx, StatxFlags, fallocate, seek, statx,
};
use rustix::io::{Errno, pread, retry_on_intr};

use crate::log::kernel::Measured;

/// Which file it is, whatever its name: two open files with the same identity are the same file.
///
/// An inode number is used again once its file is gone; the birth time, on file systems that keep
/// one, tells the two files apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    pub(crate) device: (u32, u32),
    pub(crate) inode: u64,
    pub(crate) birth: Option<(i64, u32)>,
}

impl Identity {
    /// The fields to request.
    pub(crate) const FLAGS: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

    pub(crate) fn new(stat: &Statx) -> Self {
        let has_birth = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
        Self {
            device: (stat.stx_dev_major, stat.stx_dev_minor),
            inode: stat.stx_ino,
            birth: has_birth.then_some((stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec)),
        }
    }

    /// A file of the simulator.
    #[cfg(any(fuzzing, test))]
    pub(crate) fn simulated(file: usize) -> Self {
        Self { device: (0, 0), inode: file as u64, birth: None }
    }
}

/// For a look at the file system that it is on.
impl AsFd for LogFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// No file has a byte at this offset: offsets are signed.
const LARGEST_OFFSET: u64 = i64::MAX.cast_unsigned();

/// What the blocks of every usual file system are a part of, or made of: the size of a page.
const BLOCK: u64 = 4096;

/// An open log file.
#[derive(Debug)]
pub(crate) struct LogFile {
    file: File,
    path: PathBuf,
    /// Leads to the open file itself, even when its name was changed or removed.
    link: PathBuf,
    identity: Identity,
}

impl LogFile {
    /// Takes an open file; `path` is for messages. Fails when it is not a regular file.
    pub(crate) fn new(file: File, path: PathBuf) -> io::Result<Self> {
        let stat = statx(file.as_fd(), "", AtFlags::EMPTY_PATH, Identity::FLAGS)?;
        if FileType::from_raw_mode(stat.stx_mode.into()) != FileType::RegularFile {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let link = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        Ok(Self { link, identity: Identity::new(&stat), file, path })
    }

    /// The name by which it was opened.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A path to the open file itself, for calls that take no descriptor.
    pub(crate) fn link(&self) -> &Path {
        &self.link
    }

    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    /// Reads at an offset, with `pread`.
    pub(crate) fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match retry_on_intr(|| pread(&self.file, &mut *buffer, offset)) {
            Ok(length) => Ok(length),
            Err(Errno::INVAL) => self.read_at_limit(buffer, offset),
            Err(errno) => Err(errno.into()),
        }
    }

    /// As [`read_at`](Self::read_at), where the buffer reaches beyond the largest possible offset:
    /// the kernel refuses that, even if the file ends before. On tmpfs a log can be so large.
    #[cold]
    fn read_at_limit(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let Some(left) = LARGEST_OFFSET.checked_sub(offset) else { return Ok(0) };
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        Ok(retry_on_intr(|| pread(&self.file, &mut buffer[..length], offset))?)
    }

    /// The first offset from this one on that is not in a hole; beyond the end if there is none.
    ///
    /// This moves the position of the open file, which nobody uses: all reads are at an offset.
    pub(crate) fn data_from(&self, offset: u64) -> io::Result<u64> {
        match seek(&self.file, SeekFrom::Data(offset)) {
            Ok(data) => Ok(data),
            // Nothing but a hole is left, or the file ends before.
            Err(Errno::NXIO) => Ok(u64::MAX),
            // The file system cannot tell: nothing is known to be a hole.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(offset),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The first offset from this one on that is in a hole, or the end if there is none; `None`
    /// when the file ends before, or the file system cannot tell. Moves the position as well.
    pub(crate) fn hole_from(&self, offset: u64) -> io::Result<Option<u64>> {
        match seek(&self.file, SeekFrom::Hole(offset)) {
            Ok(hole) => Ok(Some(hole)),
            Err(Errno::NXIO | Errno::INVAL | Errno::OPNOTSUPP) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The size now, and how much of the file system it takes.
    pub(crate) fn measure(&self) -> io::Result<Measured> {
        let found = self.file.metadata()?;
        // In units of 512 bytes, whatever the block size is.
        Ok(Measured { size: found.len(), allocated: found.blocks().saturating_mul(512) })
    }

    /// Gives back to the file system the whole blocks from one offset to another. Of a block that
    /// is only in part before the second one, nothing is.
    ///
    /// # Kernel trap
    /// XFS, Btrfs and, on older kernels, ext4 first write out what was not written yet of these
    /// bytes, and the call waits for that.
    pub(crate) fn punch(&self, from: u64, to: u64) -> io::Result<()> {
        let whole = |offset: u64| offset - offset % BLOCK;
        let (from, to) = (whole(from), whole(to));
        if from >= to {
            return Ok(());
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(retry_on_intr(|| fallocate(&self.file, flags, from, to - from))?)
    }

    /// Whether the file system can give back parts of a file: found out by trying.
    pub(crate) fn test_punch(&self) -> io::Result<()> {
        self.punch(0, BLOCK)
    }

    /// The size now.
    pub(crate) fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
}
