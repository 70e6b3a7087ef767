//! Owns how the logs reach the system: their [`Kernel`], with its watches on the driver's inotify.
//!
//! Invariant: the watch of a log is armed through its open file, so that it is on that very file
//! whatever has become of its name.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use rustix::fs::{MemfdFlags, memfd_create};

use crate::cgroup::Tree;
use crate::driver::driver::Driver;
use crate::driver::inotify::Watching;
use crate::driver::source::Source;
use crate::id::Key;
use crate::log::{Identity, Kernel, LogFile, Measured, Place, Seen};

impl Kernel for Driver {
    type Place = Place;
    type File = LogFile;
    /// An absolute path.
    type Name = PathBuf;

    fn open(&mut self, place: &Place) -> io::Result<LogFile> {
        place.open()
    }

    fn open_for_writing(&mut self, place: &Place) -> io::Result<LogFile> {
        place.open_for_writing()
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

    fn measure(&mut self, file: &LogFile) -> io::Result<Measured> {
        file.measure()
    }

    fn punch(&mut self, file: &LogFile, from: u64, to: u64) -> io::Result<()> {
        file.punch(from, to)
    }

    fn data_from(&mut self, file: &LogFile, offset: u64) -> io::Result<u64> {
        file.data_from(offset)
    }

    fn set_armed(&mut self, file: &LogFile, log: Key, armed: bool) -> io::Result<()> {
        let watching = if armed { Watching::Changes } else { Watching::Nothing };
        self.watch(file.link(), watching, Source::Log(log))
    }

    fn has_reports(&mut self) -> bool {
        Driver::has_reports(self)
    }

    fn watch_lost(&mut self, _: Key) {
        // The driver has forgotten the watch when it gave the notice.
    }

    fn unwatch(&mut self, log: Key) {
        Driver::unwatch(self, Source::Log(log));
    }

    fn look_up(&mut self, name: &PathBuf, tail: Key) -> io::Result<Option<Seen<LogFile>>> {
        let seen = Driver::look_up(self, name, tail)?;
        if seen.as_ref().is_some_and(|seen| Tree::contains(&seen.file)) {
            // Such a file changes in place, and an inotify watch of it may be a job's.
            return Err(io::Error::other("an interface file of a cgroup is not a log"));
        }
        Ok(seen)
    }

    fn forget_name(&mut self, tail: Key) {
        Driver::forget_name(self, tail);
    }

    fn nowhere(&mut self) -> io::Result<LogFile> {
        let file = memfd_create("jobworker-nowhere", MemfdFlags::CLOEXEC)?;
        LogFile::new(File::from(file), PathBuf::from("nowhere"))
    }
}
