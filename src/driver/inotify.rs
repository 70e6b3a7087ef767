//! Owns [`Watches`]: the one inotify descriptor of a reactor.
//!
//! Invariant: `sources` has exactly the watches that exist, by the number the kernel gave them, and
//! `numbers` the same the other way round. An event of any other number is old and dropped.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};

use crate::driver::source::{Notice, Source};
use crate::error::{Error, Result};

/// All inotify watches of a reactor.
#[derive(Debug)]
pub(crate) struct Watches {
    inotify: Inotify,
    sources: HashMap<i32, (WatchDescriptor, Source)>,
    numbers: HashMap<Source, i32>,
    buffer: Box<[u8]>,
}

/// Enough for 256 events without a name, and for one with the longest name.
const BUFFER_SIZE: usize = 4096;

/// The largest event: 16 bytes and a name of 255 with its NUL.
const LARGEST_EVENT: usize = 16 + 256;

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
            sources: HashMap::new(),
            numbers: HashMap::new(),
            buffer: vec![0; BUFFER_SIZE].into_boxed_slice(),
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

    /// Reads all queued events; an edge-triggered reader that does not is not notified again.
    pub(crate) fn read(&mut self, notices: &mut Vec<Notice>) -> io::Result<()> {
        loop {
            let events = match self.inotify.read_events(&mut self.buffer) {
                Ok(events) => events,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let mut length = 0;
            for event in events {
                length += 16 + event.name.map_or(0, |_| LARGEST_EVENT);
                let number = event.wd.get_watch_descriptor_id();
                if event.mask.contains(EventMask::Q_OVERFLOW) {
                    notices.push(Notice::Overflow);
                } else if event.mask.contains(EventMask::IGNORED) {
                    if let Some((_, source)) = self.sources.remove(&number) {
                        self.numbers.remove(&source);
                        notices.push(Notice::WatchLost(source));
                    }
                } else if let Some((_, source)) = self.sources.get(&number) {
                    notices.push(Notice::Changed(*source));
                }
            }
            // The kernel fills the buffer as far as whole events fit: with room left for another,
            // that was all.
            if length + LARGEST_EVENT <= BUFFER_SIZE {
                return Ok(());
            }
        }
    }
}

impl AsRawFd for Watches {
    fn as_raw_fd(&self) -> RawFd {
        self.inotify.as_raw_fd()
    }
}
