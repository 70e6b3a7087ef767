//! Owns [`Writer`] and [`Reader`]: the fields of which the format of records consists.
//!
//! Invariant: what was written is read back as the same by the method of that name, and whatever
//! else is refused; nothing that is read panics or allocates more than its own length. Pure. Knows
//! nothing of what the fields mean.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::command::Signal;

/// The version of the format: which fields there are, and in which order.
pub(super) const VERSION: u8 = 2;

/// Why something cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("it is empty")]
    Empty,
    #[error("it is not one of this crate's")]
    Foreign,
    #[error("it has version {0} of the format, and this host knows those up to {VERSION}")]
    Version(u8),
    #[error("it is cut off")]
    Truncated,
    #[error("it was damaged: its checksum is wrong")]
    Damaged,
    #[error("it makes no sense: {0}")]
    Nonsense(&'static str),
}

/// What was written so far.
#[derive(Debug)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn i32(&mut self, value: i32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn i64(&mut self, value: i64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn flag(&mut self, value: bool) {
        self.u8(value.into());
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.flag(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }

    pub(super) fn duration(&mut self, time: Duration) {
        self.u64(time.as_secs());
        self.u32(time.subsec_nanos());
    }

    /// A moment before 1970 becomes 1970.
    pub(super) fn time(&mut self, time: SystemTime) {
        self.duration(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
    }

    /// One of all choices, by its place; one that is missing there becomes the first.
    pub(super) fn one_of<T: PartialEq>(&mut self, all: &[T], one: &T) {
        let place = all.iter().position(|other| other == one).unwrap_or_default();
        self.u8(u8::try_from(place).unwrap_or_default());
    }
}

/// What is still to be read.
#[derive(Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Refused> {
        let nonsense = Refused::Nonsense("a field reaches beyond its end");
        let (taken, rest) = self.0.split_at_checked(length).ok_or(nonsense)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Refused> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Refused> {
        let [byte] = self.array().map_err(|_| Refused::Truncated)?;
        Ok(byte)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Refused> {
        self.array().map(u32::from_le_bytes).map_err(|_| Refused::Truncated)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Refused> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32, Refused> {
        self.array().map(i32::from_le_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, Refused> {
        self.array().map(i64::from_le_bytes)
    }

    pub(super) fn flag(&mut self) -> Result<bool, Refused> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Refused::Nonsense("a flag is neither set nor clear")),
        }
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Refused> {
        let length = self.u32()?;
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }

    pub(super) fn text(&mut self) -> Result<String, Refused> {
        let text = std::str::from_utf8(self.bytes()?);
        text.map(str::to_owned).map_err(|_| Refused::Nonsense("a text is not UTF-8"))
    }

    pub(super) fn path(&mut self) -> Result<PathBuf, Refused> {
        Ok(OsString::from_vec(self.bytes()?.to_vec()).into())
    }

    pub(super) fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Refused>,
    ) -> Result<Option<T>, Refused> {
        if self.flag()? { read(self).map(Some) } else { Ok(None) }
    }

    pub(super) fn duration(&mut self) -> Result<Duration, Refused> {
        let (seconds, nanoseconds) = (self.u64()?, self.u32()?);
        if nanoseconds >= 1_000_000_000 {
            return Err(Refused::Nonsense("a second has too many nanoseconds"));
        }
        Ok(Duration::new(seconds, nanoseconds))
    }

    pub(super) fn time(&mut self) -> Result<SystemTime, Refused> {
        let time = SystemTime::UNIX_EPOCH.checked_add(self.duration()?);
        time.ok_or(Refused::Nonsense("a time is later than any"))
    }

    pub(super) fn one_of<T: Copy>(&mut self, all: &[T]) -> Result<T, Refused> {
        let one = all.get(usize::from(self.u8()?)).copied();
        one.ok_or(Refused::Nonsense("a choice is none of those there are"))
    }

    pub(super) fn signal(&mut self) -> Result<Signal, Refused> {
        Signal::from_raw(self.i32()?).ok_or(Refused::Nonsense("there is no such signal"))
    }
}
