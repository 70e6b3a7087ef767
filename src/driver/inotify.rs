//! Owns [`Watches`]: the one inotify descriptor of a reactor.
//!
//! Invariant: `sources` has exactly the watches that exist, by the number the kernel gave them, and
//! `numbers` those of files the other way round. An event of any other number is old and dropped. A
//! directory has a watch as long as a followed name is looked up in it.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use inotify::{Inotify, WatchDescriptor, WatchMask};
use rustix::fs::inotify::{ReadFlags, Reader};
use rustix::io::{Errno, ioctl_fionread};

use crate::driver::directories::{Directories, Found};
use crate::driver::source::{Notice, Source};
use crate::error::{Error, Result};
use crate::id::Key;
use crate::log::{LogFile, Seen, Walk};

/// All inotify watches of a reactor.
#[derive(Debug)]
pub(crate) struct Watches {
    inotify: Inotify,
    sources: HashMap<i32, (WatchDescriptor, Source), BuildHasherDefault<NumberHasher>>,
    numbers: HashMap<Source, i32>,
    directories: Directories,
    buffer: Box<[MaybeUninit<u8>]>,
    /// The last call of [`read`](Self::read) may have left events in the queue.
    undrained: bool,
}

/// Enough for 64 events without a name, and for one with the longest name.
const BUFFER_SIZE: usize = 1024;

/// How many full buffers one turn reads at most. Watches that are armed refill the queue meanwhile,
/// from any number of writers at once, so that an unlimited loop might never come to an end.
const READS_PER_TURN: usize = 4;

/// The largest event: 16 bytes and a name of 255 with its NUL.
const LARGEST_EVENT: usize = 16 + 256;

/// Hashes the numbers of watches. The kernel counts them up, so that nobody can choose them to
/// collide; and there is a look-up for each event.
#[derive(Debug, Default)]
struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn write(&mut self, _: &[u8]) {
        unreachable!("a number is written as one")
    }

    fn write_i32(&mut self, number: i32) {
        // 2^64 divided by the golden ratio spreads the numbers over the high bits as well, which
        // the map uses.
        self.0 = u64::from(number.cast_unsigned()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// What is reported of a directory: that a name in it may lead somewhere else, or that it may be
/// possible to open now what it leads to.
const ENTRIES: WatchMask = WatchMask::CREATE
    .union(WatchMask::MOVED_TO)
    .union(WatchMask::MOVED_FROM)
    .union(WatchMask::DELETE)
    .union(WatchMask::ATTRIB)
    .union(WatchMask::ONLYDIR);

/// What a watch reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watching {
    /// Every change of the content or the size.
    Changes,
    /// Nothing: the watch only keeps its place, so that arming it cannot fail because the limit is
    /// reached.
    Nothing,
}

impl Watching {
    fn mask(self) -> WatchMask {
        match self {
            Self::Changes => WatchMask::MODIFY,
            // A mask must have one event; this one cannot come while the file is open.
            Self::Nothing => WatchMask::DELETE_SELF,
        }
    }
}

impl Watches {
    pub(crate) fn new() -> Result<Self> {
        let inotify = Inotify::init().map_err(|cause| match cause.raw_os_error() {
            // EMFILE has two meanings here; see inotify_init1(2).
            Some(24) => Error::event_loop(
                "create an inotify instance \
                 (fs.inotify.max_user_instances or RLIMIT_NOFILE is reached)",
            )(cause),
            _ => Error::event_loop("create an inotify instance")(cause),
        })?;
        Ok(Self {
            inotify,
            sources: HashMap::default(),
            numbers: HashMap::new(),
            directories: Directories::default(),
            buffer: Box::new_uninit_slice(BUFFER_SIZE),
            undrained: false,
        })
    }

    /// How many watches there are.
    pub(crate) fn len(&self) -> usize {
        self.sources.len()
    }

    /// Watches a file for a source. If the source watches it already, the kernel replaces what is
    /// reported in place. A file can be watched for one source only: for another one it is EEXIST.
    pub(crate) fn set(
        &mut self,
        path: &Path,
        watching: Watching,
        source: Source,
    ) -> io::Result<()> {
        let mut mask = watching.mask();
        if !self.numbers.contains_key(&source) {
            mask |= WatchMask::MASK_CREATE;
        }
        let descriptor = self.inotify.watches().add(path, mask)?;
        let number = descriptor.get_watch_descriptor_id();
        self.sources.insert(number, (descriptor, source));
        self.numbers.insert(source, number);
        Ok(())
    }

    /// Removes the watch of a source. None, or one that the kernel has removed already, is fine.
    pub(crate) fn remove(&mut self, source: Source) {
        if let Some(number) = self.numbers.remove(&source)
            && let Some((descriptor, _)) = self.sources.remove(&number)
        {
            // Queues an IN_IGNORED, which is dropped when it is read.
            let _ = self.inotify.watches().remove(descriptor);
        }
    }

    /// Walks to the file that a tail follows by its name, and watches every directory on the way,
    /// so that it is reported when the name may lead to another one.
    ///
    /// A directory that may be passed through, but not read, cannot be watched. On the way that is
    /// accepted; at its end it is an error.
    pub(crate) fn look_up(&mut self, path: &Path, tail: Key) -> io::Result<Option<Seen<LogFile>>> {
        let mut steps = Vec::new();
        let found = Walk::to_file(path, |entry| {
            match self.watch_directory(entry.directory) {
                Ok(number) => steps.push((number, OsString::from(entry.name))),
                Err(error)
                    if Errno::from_io_error(&error) == Some(Errno::ACCESS) && !entry.last => {}
                Err(error) => return Err(error),
            }
            Ok(())
        });
        let led = match &found {
            Ok(Some(_)) => Found::File,
            Ok(None) => Found::Nothing,
            Err(_) => Found::Failure,
        };
        let (missed, unused) = self.directories.set_steps(tail, steps, led);
        self.remove_directories(unused);
        Ok(found?.map(|file| Seen { file, missed }))
    }

    /// Forgets the name that a tail follows.
    pub(crate) fn forget_name(&mut self, tail: Key) {
        let unused = self.directories.remove(tail);
        self.remove_directories(unused);
    }

    /// Watches a directory. If it is watched already, the kernel gives the same number again.
    fn watch_directory(&mut self, directory: BorrowedFd<'_>) -> io::Result<i32> {
        let link = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
        let descriptor = self.inotify.watches().add(link, ENTRIES)?;
        let number = descriptor.get_watch_descriptor_id();
        self.sources.insert(number, (descriptor, Source::Directory));
        Ok(number)
    }

    fn remove_directories(&mut self, unused: Vec<i32>) {
        for number in unused {
            if let Some((descriptor, _)) = self.sources.remove(&number) {
                // Queues an IN_IGNORED, which is dropped when it is read.
                let _ = self.inotify.watches().remove(descriptor);
            }
        }
    }

    /// Whether there is any event in the queue now.
    ///
    /// A truncation queues its event before it releases the lock of the file, which every write
    /// takes. So whoever has read bytes that were written after a truncation finds the event here,
    /// unless it was read before those bytes were.
    pub(crate) fn has_events(&self) -> bool {
        // It does not fail for an inotify.
        ioctl_fionread(self.inotify.as_fd()).map_or(true, |bytes| bytes > 0)
    }

    /// Whether the last read has left events in the queue. An edge-triggered epoll does not report
    /// them again: [`read`](Self::read) has to be called in the next turn.
    pub(crate) fn is_undrained(&self) -> bool {
        self.undrained
    }

    /// Reads the queued events, a bounded number of them; see
    /// [`is_undrained`](Self::is_undrained).
    ///
    /// The events are read by rustix, whose system call is inline: there is one for each line of a
    /// log, and `read` of the C library costs 0.2 us more after a sleep, in a process with threads.
    pub(crate) fn read(&mut self, notices: &mut Vec<Notice>) -> io::Result<()> {
        let mut events = Reader::new(self.inotify.as_fd(), &mut self.buffer);
        // An error leaves the queue as it is; the loop is not to spin on it.
        self.undrained = false;
        for _ in 0..READS_PER_TURN {
            let mut length = 0;
            loop {
                let event = match events.next() {
                    Ok(event) => event,
                    Err(Errno::AGAIN) => return Ok(()),
                    Err(Errno::INTR) => continue,
                    Err(errno) => return Err(errno.into()),
                };
                let number = event.wd();
                length += 16;
                if let Some(name) = event.file_name() {
                    // Of a directory: only these have names.
                    length += LARGEST_EVENT;
                    let name = OsStr::from_bytes(name.to_bytes());
                    let arrival = ReadFlags::CREATE.union(ReadFlags::MOVED_TO);
                    let arrived = event.events().intersects(arrival)
                        && !event.events().contains(ReadFlags::ISDIR);
                    let tails = self.directories.changed(number, name, arrived);
                    notices.extend(tails.map(|tail| Notice::Changed(Source::Name(tail))));
                } else if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                    self.directories.lost_count();
                    notices.push(Notice::Overflow);
                } else if event.events().contains(ReadFlags::IGNORED) {
                    match self.sources.remove(&number) {
                        Some((_, Source::Directory)) => {
                            let tails = self.directories.lost(number);
                            notices.extend(tails.map(|tail| Notice::Changed(Source::Name(tail))));
                        }
                        Some((_, source)) => {
                            self.numbers.remove(&source);
                            notices.push(Notice::WatchLost(source));
                        }
                        None => {}
                    }
                } else if let Some((_, source)) = self.sources.get(&number) {
                    notices.push(Notice::Changed(*source));
                }
                if events.is_buffer_empty() {
                    break;
                }
            }
            // The kernel fills the buffer as far as whole events fit: with room left for another,
            // that was all.
            if length + LARGEST_EVENT <= BUFFER_SIZE {
                return Ok(());
            }
        }
        self.undrained = true;
        Ok(())
    }
}

impl AsRawFd for Watches {
    fn as_raw_fd(&self) -> RawFd {
        self.inotify.as_raw_fd()
    }
}
