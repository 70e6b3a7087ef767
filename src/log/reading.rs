//! Owns how a tail is read: what it finds at its offset, and the bytes, copied or shown where they
//! lie.
//!
//! Invariant: a tail moves only over bytes that it was given, or to the first byte after it was
//! told of a truncation.

use std::io;

use crate::id::{Key, TailId};
use crate::log::log::{Kernel, Log};
use crate::log::tail::{Fill, Read, Tail, Until};
use crate::log::tails::{Queue, Tails, Trouble, tail_log};

/// What a tail finds at its offset.
pub(crate) enum Found<'a> {
    /// Bytes in the log's window, up to the tail's end.
    Window(&'a [u8]),
    /// Bytes that only the file has, so many before the known end.
    File(u64),
    UpToDate,
    Truncated,
    /// The log has failed, with this errno.
    Fault(i32),
    Ended,
}

impl<K: Kernel> Tails<K> {
    /// Copies the next bytes of a tail.
    pub(crate) fn read(
        &mut self,
        id: TailId,
        buffer: &mut [u8],
        queue: &mut Queue,
    ) -> Result<Read, Trouble> {
        let key = id.0;
        loop {
            let tail = self.tails.get_mut(key).ok_or(Trouble::Unknown)?;
            let log = self.logs.get(tail.log).ok_or(Trouble::Unknown)?;
            let copied = match look(tail, log) {
                Found::UpToDate => {
                    self.wait(key);
                    return Ok(Read::UpToDate);
                }
                Found::Truncated => {
                    self.behind_of = None;
                    return Ok(Read::Truncated);
                }
                Found::Ended => {
                    tail.ended = true;
                    return Ok(Read::Ended);
                }
                Found::Fault(errno) => return Err(self.fault(key, errno)),
                Found::Window(bytes) => {
                    let copied = bytes.len().min(buffer.len());
                    buffer[..copied].copy_from_slice(&bytes[..copied]);
                    copied
                }
                Found::File(available) => {
                    let most = usize::try_from(available).unwrap_or(usize::MAX).min(buffer.len());
                    let copied =
                        self.kernel.read_at(&log.file, &mut buffer[..most], tail.offset)?;
                    if copied < most || !log.is_intact(&mut self.kernel)? {
                        // These bytes were there once.
                        self.truncated(tail_log(&self.tails, key), queue);
                        continue;
                    }
                    copied
                }
            };
            tail.offset += copied as u64;
            tail.filled = 0;
            return Ok(Read::Data(copied));
        }
    }

    /// Finds the next bytes of a tail, for [`shown`](Self::shown): in the window without a copy,
    /// behind it after one read of the file.
    pub(crate) fn fill(&mut self, id: TailId, queue: &mut Queue) -> Result<Fill<'static>, Trouble> {
        let key = id.0;
        loop {
            let tail = self.tails.get_mut(key).ok_or(Trouble::Unknown)?;
            let log = self.logs.get(tail.log).ok_or(Trouble::Unknown)?;
            match look(tail, log) {
                Found::UpToDate => {
                    self.wait(key);
                    return Ok(Fill::UpToDate);
                }
                Found::Truncated => {
                    self.behind_of = None;
                    return Ok(Fill::Truncated);
                }
                Found::Ended => {
                    tail.ended = true;
                    return Ok(Fill::Ended);
                }
                Found::Fault(errno) => return Err(self.fault(key, errno)),
                Found::Window(bytes) => tail.filled = bytes.len(),
                Found::File(available) => match self.fill_from_file(key, available)? {
                    Some(length) => {
                        self.tails.get_mut(key).ok_or(Trouble::Unknown)?.filled = length;
                    }
                    None => {
                        self.truncated(tail_log(&self.tails, key), queue);
                        continue;
                    }
                },
            }
            return Ok(Fill::Data(&[]));
        }
    }

    /// The bytes that the last [`fill`](Self::fill) of this tail has found.
    pub(crate) fn shown(&self, id: TailId) -> &[u8] {
        let bytes = self.tails.get(id.0).and_then(|tail| self.found(id, tail.offset, tail.filled));
        bytes.unwrap_or(&[])
    }

    /// The same bytes, over which the tail moves on.
    pub(crate) fn take_shown(&mut self, id: TailId) -> &[u8] {
        let Some(tail) = self.tails.get_mut(id.0) else { return &[] };
        let (offset, length) = (tail.offset, std::mem::take(&mut tail.filled));
        tail.offset += length as u64;
        self.found(id, offset, length).unwrap_or(&[])
    }

    /// Bytes of a tail that [`fill`](Self::fill) has found, in the window or behind it.
    fn found(&self, id: TailId, offset: u64, filled: usize) -> Option<&[u8]> {
        let window = &self.logs.get(self.tails.get(id.0)?.log)?.window;
        let bytes = match window.from(offset) {
            Some(bytes) => bytes,
            None => {
                let (_, start, length) = self.behind_of.filter(|(owner, ..)| *owner == id.0)?;
                self.behind.get(usize::try_from(offset.checked_sub(start)?).ok()?..length)?
            }
        };
        bytes.get(..filled)
    }

    /// Makes `behind` hold the bytes at the tail's offset and says how many; `None` when the file
    /// has lost them.
    fn fill_from_file(&mut self, key: Key, available: u64) -> Result<Option<usize>, Trouble> {
        let tail = self.tails.get(key).ok_or(Trouble::Unknown)?;
        let log = self.logs.get(tail.log).ok_or(Trouble::Unknown)?;
        let available = usize::try_from(available).unwrap_or(usize::MAX);
        if let Some((owner, start, length)) = self.behind_of
            && owner == key
            && (start..start + length as u64).contains(&tail.offset)
        {
            let rest = start + length as u64 - tail.offset;
            return Ok(Some(usize::try_from(rest).unwrap_or(0).min(available)));
        }
        self.behind_of = None;
        self.behind.resize(self.window_bytes, 0);
        let most = available.min(self.behind.len());
        let length = self.kernel.read_at(&log.file, &mut self.behind[..most], tail.offset)?;
        if length < most || !log.is_intact(&mut self.kernel)? {
            return Ok(None);
        }
        self.behind_of = Some((key, tail.offset, length));
        Ok(Some(length))
    }

    /// Moves a tail on, by no more than its last `fill` has shown.
    pub(crate) fn consume(&mut self, id: TailId, amount: usize) -> Result<(), Trouble> {
        let tail = self.tails.get_mut(id.0).ok_or(Trouble::Unknown)?;
        let amount = amount.min(tail.filled);
        tail.filled -= amount;
        tail.offset += amount as u64;
        Ok(())
    }

    /// The error of a tail whose log has failed. The visit forgets the fault, so that whoever tries
    /// again does so in earnest.
    fn fault(&mut self, key: Key, errno: i32) -> Trouble {
        if let Some(log) = tail_log(&self.tails, key) {
            self.changed(log);
        }
        Trouble::Io(io::Error::from_raw_os_error(errno))
    }
}

/// What a tail finds at its offset. A truncation is told once, and moves it to the first byte.
pub(crate) fn look<'a, F>(tail: &mut Tail, log: &'a Log<F>) -> Found<'a> {
    if tail.ended {
        return Found::Ended;
    }
    if tail.truncations != log.truncations {
        tail.truncations = log.truncations;
        tail.offset = 0;
        tail.filled = 0;
        if let Until::Offset(end) = &mut tail.until {
            // What it was to read is gone.
            *end = 0;
        }
        return Found::Truncated;
    }
    let bound = match tail.until {
        Until::Offset(end) => Some(end),
        Until::JobEnd => log.job_end,
        Until::Never => None,
    };
    let known = bound.unwrap_or(log.window.end());
    if tail.offset < known {
        let left = known - tail.offset;
        return match log.window.from(tail.offset) {
            Some(bytes) => {
                let most = usize::try_from(left).unwrap_or(usize::MAX);
                Found::Window(bytes.get(..most).unwrap_or(bytes))
            }
            None => Found::File(left),
        };
    }
    match log.fault {
        _ if bound.is_some() => Found::Ended,
        Some(errno) => Found::Fault(errno),
        None => Found::UpToDate,
    }
}
