//! Owns [`Watch`], the one inotify descriptor of a reactor.
//!
//! Invariant: `targets` has exactly the watches that exist, by the number the kernel gave them; a
//! change of any other number is old news and dropped. Must not know what the targets do with a
//! change.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};

use crate::error::{Error, Result};
use crate::id::Key;
use crate::log::{Identity, Kernel, LogFile, Place};

/// What a watch is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A log.
    Log(Key),
    /// The cgroup.events file of the job in this slot.
    Group(usize),
    /// The memory.events file of the job in this slot.
    Memory(usize),
}

/// What was noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Something happened to the target; a hint, whatever the number of events.
    Of(Target),
    /// The kernel has removed the target's watch.
    Lost(Target),
    /// The kernel's queue overflowed: anything may have happened.
    Everything,
}

/// All watches of a reactor.
#[derive(Debug)]
pub(crate) struct Watch {
    inotify: Inotify,
    targets: HashMap<i32, Target>,
    /// The watches of logs, to be removed by the log.
    logs: HashMap<Key, WatchDescriptor>,
    buffer: Box<[u8]>,
    /// Empty between two calls of `changes`: kept for its memory.
    changes: Vec<Change>,
}

/// Enough for 256 events without a name, and for one with the longest name.
const BUFFER_SIZE: usize = 4096;

/// The largest event: 16 bytes and a name of 255 with its NUL.
const LARGEST_EVENT: usize = 16 + 256;

/// Growth and truncation alike.
const ARMED: WatchMask = WatchMask::MODIFY;

/// A mask must have one event; this one cannot come while the log is open.
const DISARMED: WatchMask = WatchMask::DELETE_SELF;

impl Watch {
    pub(crate) fn new() -> Result<Self> {
        let inotify = Inotify::init().map_err(|source| match source.raw_os_error() {
            // EMFILE has two meanings here; see inotify_init1(2).
            Some(24) => Error::Loop {
                operation: "create an inotify instance (fs.inotify.max_user_instances or RLIMIT_NOFILE is reached)",
                source,
            },
            _ => Error::Loop { operation: "create an inotify instance", source },
        })?;
        Ok(Self {
            inotify,
            targets: HashMap::new(),
            logs: HashMap::new(),
            buffer: vec![0; BUFFER_SIZE].into_boxed_slice(),
            changes: Vec::new(),
        })
    }

    /// How many watches there are.
    pub(crate) fn len(&self) -> usize {
        self.targets.len()
    }

    /// Watches the cgroup.events file of a job.
    pub(crate) fn add_group(&mut self, events: &Path, slot: usize) -> io::Result<WatchDescriptor> {
        self.add(events, ARMED, Target::Group(slot))
    }

    /// Watches the memory.events file of a job.
    pub(crate) fn add_memory(&mut self, events: &Path, slot: usize) -> io::Result<WatchDescriptor> {
        self.add(events, ARMED, Target::Memory(slot))
    }

    /// Removes a watch. One that the kernel has removed already is fine.
    pub(crate) fn remove(&mut self, watch: WatchDescriptor) {
        if self.targets.remove(&watch.get_watch_descriptor_id()).is_some() {
            // Queues an IN_IGNORED, which is dropped when it is read.
            let _ = self.inotify.watches().remove(watch);
        }
    }

    fn add(&mut self, path: &Path, mask: WatchMask, target: Target) -> io::Result<WatchDescriptor> {
        let watch = self.inotify.watches().add(path, mask)?;
        self.targets.insert(watch.get_watch_descriptor_id(), target);
        Ok(watch)
    }

    /// Reads all that was noticed; edge-triggered readers have to, or they are not told again. The
    /// list comes back with [`recycle`](Self::recycle).
    pub(crate) fn changes(&mut self) -> io::Result<Vec<Change>> {
        let mut changes = std::mem::take(&mut self.changes);
        loop {
            let events = match self.inotify.read_events(&mut self.buffer) {
                Ok(events) => events,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(changes),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let mut length = 0;
            for event in events {
                length += 16 + event.name.map_or(0, |_| LARGEST_EVENT);
                let number = event.wd.get_watch_descriptor_id();
                if event.mask.contains(EventMask::Q_OVERFLOW) {
                    changes.push(Change::Everything);
                } else if event.mask.contains(EventMask::IGNORED) {
                    if let Some(target) = self.targets.remove(&number) {
                        changes.push(Change::Lost(target));
                    }
                } else if let Some(target) = self.targets.get(&number) {
                    changes.push(Change::Of(*target));
                }
            }
            // The kernel fills the buffer as far as whole events fit: with room left for another,
            // that was all.
            if length + LARGEST_EVENT <= BUFFER_SIZE {
                return Ok(changes);
            }
        }
    }

    /// Takes back a list of changes that were acted on.
    pub(crate) fn recycle(&mut self, mut changes: Vec<Change>) {
        changes.clear();
        self.changes = changes;
    }
}

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.inotify.as_raw_fd()
    }
}

impl Kernel for Watch {
    type Place = Place;
    type File = LogFile;

    fn open(&mut self, place: &Place) -> io::Result<LogFile> {
        place.open()
    }

    fn len(&mut self, place: &Place) -> io::Result<u64> {
        place.size()
    }

    fn unlink(&mut self, place: &Place) -> io::Result<()> {
        place.unlink()
    }

    fn identity_of_place(&self, place: &Place) -> Identity {
        place.identity()
    }

    fn identity_of_file(&self, file: &LogFile) -> Identity {
        file.identity()
    }

    fn read_at(&mut self, file: &LogFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        file.read_at(buffer, offset)
    }

    fn size(&mut self, file: &LogFile) -> io::Result<u64> {
        file.size()
    }

    fn set_armed(&mut self, file: &LogFile, log: Key, armed: bool) -> io::Result<()> {
        let mask = if armed { ARMED } else { DISARMED };
        // For an inode that is watched already, the kernel replaces the mask in place and gives the
        // same number.
        let watch = self.add(file.link(), mask, Target::Log(log))?;
        self.logs.insert(log, watch);
        Ok(())
    }

    fn watch_lost(&mut self, log: Key) {
        self.logs.remove(&log);
    }

    fn unwatch(&mut self, log: Key) {
        if let Some(watch) = self.logs.remove(&log) {
            self.remove(watch);
        }
    }
}
