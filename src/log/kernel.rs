//! Owns [`Kernel`]: what the logs need of the system.
//!
//! The driver implements it over the real system, and the simulator in memory. Knows nothing of
//! windows and tails.

use std::fmt::Debug;
use std::io;

use crate::id::Key;
use crate::log::file::Identity;

/// What the logs need of the system.
///
/// Dropping a `File` closes it. A call that a signal interrupts is repeated by the implementation.
pub(crate) trait Kernel {
    /// Where the log of a job lies, and which file was made there.
    type Place: Debug;
    /// An open log file.
    type File: Debug;
    /// A name that a tail follows, whatever file it leads to.
    type Name: Debug;

    /// Opens the log of a job for reading. When the name does not lead to the file that was made,
    /// the error is a [`NotOurLog`](crate::log::place::NotOurLog).
    fn open(&mut self, place: &Self::Place) -> io::Result<Self::File>;

    /// Opens the log of a job for writing as well, without creating or changing anything. Fails
    /// like [`open`](Self::open).
    fn open_for_writing(&mut self, place: &Self::Place) -> io::Result<Self::File>;

    /// The size of a log that nobody has open. Fails like [`open`](Self::open) when the name does
    /// not lead to the file that was made.
    fn len(&mut self, place: &Self::Place) -> io::Result<u64>;

    /// Removes whatever has the name of the log. A name that is gone already is fine.
    fn unlink(&mut self, place: &Self::Place) -> io::Result<()>;

    /// Which file was made at this place.
    fn identity_of_place(&self, place: &Self::Place) -> Identity;

    /// Which file this is.
    fn identity_of_file(&self, file: &Self::File) -> Identity;

    /// Reads at an offset. Gives fewer bytes than the buffer holds only at the end of the file.
    fn read_at(&mut self, file: &Self::File, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// The size of the file now.
    fn size(&mut self, file: &Self::File) -> io::Result<u64>;

    /// The size of the file now, and how much of the file system it takes.
    fn measure(&mut self, file: &Self::File) -> io::Result<Measured>;

    /// Gives back to the file system what the file has from one offset to another, rounded to whole
    /// blocks: there is a hole then. The file has to be open for writing, and keeps its size.
    fn punch(&mut self, file: &Self::File, from: u64, to: u64) -> io::Result<()>;

    /// The first offset from this one on that is not in a hole of the file; beyond its end if there
    /// is none.
    fn data_from(&mut self, file: &Self::File, offset: u64) -> io::Result<u64>;

    /// Arms or disarms the watch of a log. While it is armed, growth of the file is reported as a
    /// change of `log`. The watch exists after the first successful call, so that later calls
    /// cannot fail because the limit on watches is reached.
    fn set_armed(&mut self, file: &Self::File, log: Key, armed: bool) -> io::Result<()>;

    /// Whether a watch has reported anything that was not passed on to the logs yet. If not, no log
    /// whose watch was armed all the time was truncated since the last report.
    fn has_reports(&mut self) -> bool;

    /// The kernel has removed the watch of a log. The next `set_armed` makes a new one.
    fn watch_lost(&mut self, log: Key);

    /// Removes the watch of a log, if it has one. Called before the file is closed.
    fn unwatch(&mut self, log: Key);

    /// Opens the file that a name leads to; `None` when there is none. Whatever may change that
    /// afterwards is reported as a change of the name of this tail, until it is forgotten, even
    /// after a failure.
    ///
    /// Fails with [`InvalidInput`](io::ErrorKind::InvalidInput) when it leads to something else
    /// than a regular file. Never waits for anybody.
    fn look_up(&mut self, name: &Self::Name, tail: Key) -> io::Result<Option<Seen<Self::File>>>;

    /// Forgets the name of a tail. Without effect if there is none.
    fn forget_name(&mut self, tail: Key);

    /// An empty file to which nobody writes, in place of one that a name does not lead to.
    fn nowhere(&mut self) -> io::Result<Self::File>;
}

/// How large a file is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Measured {
    pub(crate) size: u64,
    /// How many bytes of the file system it takes.
    pub(crate) allocated: u64,
}

/// The file that a name leads to.
#[derive(Debug)]
pub(crate) struct Seen<F> {
    pub(crate) file: F,
    /// There may have been another one since the last look.
    pub(crate) missed: bool,
}
