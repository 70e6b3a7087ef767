//! A host whose calls of the kernel may fail.

use std::io;

use rustix::io::Errno;

use crate::id::TailId;
use crate::log::machine::Interference;
use crate::log::read::{Fill, Read};
use crate::log::simulator::Engine;

/// A host that goes on after each failure, and records them all.
pub(super) struct Host {
    pub(super) engine: Engine,
    /// The errno of each failure, and the operation that returned it.
    pub(super) errors: Vec<(i32, &'static str)>,
    /// How often a tail has gone on in another file.
    pub(super) replaced: usize,
    /// Whether a file may have been missed.
    pub(super) missed: bool,
}

impl Host {
    /// The call with the index in `failing` fails.
    pub(super) fn new(files: usize, failing: Option<(usize, Errno)>) -> Self {
        let mut engine = Engine::new(files, 32);
        if let Some((number, errno)) = failing {
            let machine = engine.machine();
            machine.script = std::iter::repeat_n(Interference::Nothing, number).collect();
            machine.script.push_back(Interference::Fail(errno.raw_os_error()));
        }
        Self { engine, errors: Vec::new(), replaced: 0, missed: false }
    }

    pub(super) fn replaced(&mut self, missed: bool) {
        self.replaced += 1;
        self.missed |= missed;
    }

    pub(super) fn note(&mut self, error: &io::Error, from: &'static str) {
        self.errors.push((error.raw_os_error().unwrap(), from));
        assert!(self.errors.len() < 20, "the host cannot go on: {:?}", self.errors);
    }

    pub(super) fn open(
        &mut self,
        mut open: impl FnMut(&mut Engine) -> io::Result<TailId>,
    ) -> TailId {
        loop {
            match open(&mut self.engine) {
                Ok(tail) => return tail,
                Err(error) => self.note(&error, "open"),
            }
        }
    }

    /// Reads all that is there, by `read` and `fill_buf` in alternation.
    pub(super) fn drain(&mut self, tail: TailId) -> (Vec<u8>, Read) {
        let (mut bytes, mut buffer) = (Vec::new(), [0; 7]);
        loop {
            match self.engine.read(tail, &mut buffer) {
                Ok(Read::Data(length)) => bytes.extend_from_slice(&buffer[..length]),
                Ok(Read::Replaced { missed }) => self.replaced(missed),
                Ok(answer) => return (bytes, answer),
                Err(error) => {
                    self.note(&error, "read");
                    self.engine.turn(true);
                }
            }
            match self.engine.fill_buf(tail) {
                Ok(Fill::Data(shown)) => {
                    let length = shown.len().min(5);
                    bytes.extend_from_slice(&shown[..length]);
                    self.engine.consume(tail, length);
                }
                Ok(Fill::UpToDate) => return (bytes, Read::UpToDate),
                Ok(Fill::Truncated) => return (bytes, Read::Truncated),
                Ok(Fill::Skipped { bytes: gone }) => {
                    return (bytes, Read::Skipped { bytes: gone });
                }
                Ok(Fill::Replaced { missed }) => self.replaced(missed),
                Ok(Fill::Ended) => return (bytes, Read::Ended),
                Err(error) => {
                    self.note(&error, "fill");
                    self.engine.turn(true);
                }
            }
        }
    }

    pub(super) fn grow(&mut self, amount: u64) {
        for file in [0, 1] {
            self.engine.machine().files[file].append(amount);
            self.engine.deliver(file);
        }
        self.engine.turn(true);
    }

    pub(super) fn finish(&mut self, file: usize) {
        if let Err(error) = self.engine.finish(file) {
            self.note(&error, "finish");
        }
    }

    pub(super) fn remove(&mut self, file: usize) {
        if let Err(error) = self.engine.remove(file, false) {
            self.note(&error, "remove");
        }
    }
}
