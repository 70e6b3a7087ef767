//! Owns [`Report`]: how a child tells its parent how far it has come, and the two ways in which it
//! does, a [`Message`] on memory that both see and [`Words`] through a pipe.
//!
//! Invariant: to report allocates nothing, takes no lock and cannot panic. Knows nothing of the
//! steps.

use std::io::{PipeReader, Read};
use std::os::fd::{AsFd, RawFd};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use rustix::fs::{OFlags, fcntl_setfl};

use crate::error::Stage;
use crate::sys::calls;
use crate::sys::plan::Failure;

/// What the child reports to the parent, on memory that both see whether or not they share an
/// address space.
#[repr(C)]
pub(super) struct Message {
    /// Zero, or the stage that failed.
    stage: AtomicU32,
    errno: AtomicI32,
    /// Zero, or the last stage that was begun.
    begun: AtomicU32,
    /// For the placement probe: how much of `members` was read, or a negative errno.
    pub(super) length: AtomicI32,
    pub(super) members: [u8; 64],
}

impl Message {
    /// Forgets what an earlier child has reported.
    pub(super) fn clear(&self) {
        self.stage.store(0, Ordering::Relaxed);
        self.begun.store(0, Ordering::Relaxed);
    }

    /// What has failed, if anything has.
    pub(super) fn failure(&self) -> Option<Failure> {
        let errno = self.errno.load(Ordering::Relaxed);
        stage(self.stage.load(Ordering::Relaxed)).map(|stage| Failure { stage, errno })
    }

    /// The last step that was begun.
    pub(super) fn begun(&self) -> Option<Stage> {
        stage(self.begun.load(Ordering::Relaxed))
    }
}

/// Where a child reports to.
#[derive(Clone, Copy)]
pub(super) enum Report<'a> {
    Memory(&'a Message),
    /// The end for writing of a pipe, as [`Words`].
    Pipe(RawFd),
}

impl Report<'_> {
    /// Leaves word that a step was begun.
    pub(super) fn begun(self, stage: Stage) {
        match self {
            Self::Memory(message) => message.begun.store(stage as u32, Ordering::Relaxed),
            Self::Pipe(fd) => write(fd, stage as u32, 0),
        }
    }

    /// Leaves word that a step has failed.
    pub(super) fn failed(self, stage: Stage, errno: i32) {
        match self {
            Self::Memory(message) => {
                message.errno.store(errno, Ordering::Relaxed);
                message.stage.store(stage as u32, Ordering::Relaxed);
            }
            Self::Pipe(fd) => write(fd, stage as u32, errno),
        }
    }
}

/// Tells which version of the protocol this is.
pub(super) fn write_version(fd: RawFd, version: u32) {
    write(fd, 0, version.cast_signed());
}

/// One word: the number of a stage, and the errno of its failure or zero for its beginning; with
/// zero for the stage, the version.
fn write(fd: RawFd, number: u32, value: i32) {
    let ([a, b, c, d], [e, f, g, h]) = (number.to_le_bytes(), value.to_le_bytes());
    // A word is written in one piece, and all of them fit into the smallest pipe. A parent that is
    // gone needs none.
    let _ = calls::write(fd, &[a, b, c, d, e, f, g, h]);
}

/// What has come through the pipe.
#[derive(Debug, Default)]
pub(super) struct Words {
    pub(super) version: Option<u32>,
    /// The last step that was begun.
    pub(super) begun: Option<Stage>,
    pub(super) failure: Option<Failure>,
}

impl Words {
    /// Reads what there is now. Does not wait, not even when another process that the host has
    /// forked keeps the pipe open.
    pub(super) fn read(mut pipe: &PipeReader) -> Self {
        let mut words = Self::default();
        // A pipe that would block must not be read at all.
        if fcntl_setfl(pipe.as_fd(), OFlags::NONBLOCK).is_err() {
            return words;
        }
        let mut word = [0; 8];
        while pipe.read_exact(&mut word).is_ok() {
            words.take(word);
        }
        words
    }

    fn take(&mut self, [a, b, c, d, e, f, g, h]: [u8; 8]) {
        let number = u32::from_le_bytes([a, b, c, d]);
        let value = i32::from_le_bytes([e, f, g, h]);
        match stage(number) {
            Some(stage) if value == 0 => self.begun = Some(stage),
            Some(stage) => self.failure = Some(Failure { stage, errno: value }),
            None if number == 0 => self.version = Some(value.cast_unsigned()),
            // No launcher of this version writes such a number.
            None => {}
        }
    }
}

/// The stage with this number, unless that is zero.
fn stage(number: u32) -> Option<Stage> {
    Stage::ALL.into_iter().find(|known| *known as u32 == number)
}

#[cfg(test)]
mod tests {
    use std::io::{Write, pipe};
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn words_arrive_in_their_order_and_nothing_waits_for_more() {
        let (reader, writer) = pipe().unwrap();
        let report = Report::Pipe(writer.as_raw_fd());
        assert!(Words::read(&reader).begun.is_none());
        write_version(writer.as_raw_fd(), u32::MAX);
        report.begun(Stage::Groups);
        report.begun(Stage::UserId);
        let words = Words::read(&reader);
        assert_eq!((words.version, words.begun), (Some(u32::MAX), Some(Stage::UserId)));
        assert!(words.failure.is_none());
        report.failed(Stage::UserId, 11);
        // What no launcher writes is passed over, and so is a part of a word.
        (&writer).write_all(&[0xff; 12]).unwrap();
        drop(writer);
        let words = Words::read(&reader);
        let failure = words.failure.unwrap();
        assert_eq!((failure.stage, failure.errno), (Stage::UserId, 11));
        assert!(words.version.is_none() && words.begun.is_none());
    }
}
