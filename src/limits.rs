//! Owns [`Limits`], the cgroup limits of a job as plain data, and [`ByteSize`].
//!
//! Invariant: nothing here touches a file; what a value may be is decided by [`Limits::check`] alone, before
//! anything is created. Knows the names of the kernel's interface files, not where they lie.

use std::fmt;
use std::str::FromStr;

/// A number of bytes that reads and prints with the suffixes K, M, G and T (powers of 1024).
///
/// ```
/// use jobworker::ByteSize;
///
/// let size: ByteSize = "100M".parse()?;
/// assert_eq!(size, ByteSize::from_bytes(100 * 1024 * 1024));
/// assert_eq!(size.to_string(), "100M");
/// assert!("12Q".parse::<ByteSize>().is_err());
/// # Ok::<(), jobworker::InvalidLimit>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

/// The suffixes, largest first, with the power of two each stands for.
const SUFFIXES: [(char, u32); 4] = [('T', 40), ('G', 30), ('M', 20), ('K', 10)];

impl ByteSize {
    /// A size of exactly this many bytes.
    #[must_use]
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The number of bytes.
    #[must_use]
    pub const fn as_bytes(self) -> u64 {
        self.0
    }
}

/// Parses digits with at most one suffix out of K, M, G and T, in either case.
impl FromStr for ByteSize {
    type Err = InvalidLimit;

    fn from_str(text: &str) -> Result<Self, InvalidLimit> {
        let invalid = || InvalidLimit::Size { text: text.to_owned() };
        let last = text.chars().next_back().ok_or_else(invalid)?.to_ascii_uppercase();
        let (digits, shift) = match SUFFIXES.iter().find(|(suffix, _)| *suffix == last) {
            Some((_, shift)) => (&text[..text.len() - 1], *shift),
            None => (text, 0),
        };
        // `u64::from_str` would accept a leading plus sign.
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(invalid());
        }
        let number: u64 = digits.parse().map_err(|_| invalid())?;
        number.checked_mul(1 << shift).map(Self).ok_or_else(invalid)
    }
}

/// Writes the size with the largest suffix that loses nothing.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = |shift: u32| self.0 != 0 && self.0.trailing_zeros() >= shift;
        match SUFFIXES.iter().find(|(_, shift)| exact(*shift)) {
            Some((suffix, shift)) => write!(f, "{}{suffix}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

/// A limit that no kernel would accept, found before anything was created.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidLimit {
    /// The text is not digits with at most one of the suffixes K, M, G and T, or does not fit into 64 bits.
    #[error("{text:?} is not a size: write bytes as digits, with K, M, G or T for powers of 1024, as in 100M")]
    Size {
        /// What was given.
        text: String,
    },
    /// A weight outside of the kernel's range.
    #[error("{file} is {value}, but a weight lies between 1 and 10000 (the kernel's default is 100)")]
    Weight {
        /// The interface file, such as `cpu.weight`.
        file: &'static str,
        /// What was given.
        value: u32,
    },
}

/// The resource limits of a job; none unless asked for.
///
/// A builder: no value is checked and nothing is written before [`Reactor::spawn`](crate::Reactor::spawn), where each
/// limit is checked by range, written to the job's own cgroup and read back *before* the job's first instruction.
///
/// ```
/// use jobworker::{ByteSize, Limits};
///
/// let mut limits = Limits::new();
/// limits.cpu_weight(200).memory_high(ByteSize::from_bytes(100 << 20));
/// assert!(!limits.is_empty());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    cpu_weight: Option<u32>,
    memory_high: Option<ByteSize>,
    io_weight: Option<u32>,
}

/// One limit as the kernel takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    /// The controller that has to be enabled for the job's group.
    pub(crate) controller: &'static str,
    /// The interface file inside the group.
    pub(crate) file: &'static str,
    /// What to write.
    pub(crate) value: String,
    /// What a read gives once the kernel has taken the value.
    pub(crate) read_back: String,
}

impl Limits {
    /// No limits.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The job's share of the CPU against its siblings, 1 to 10000; the kernel's default is 100.
    #[doc(alias = "cpu.weight")]
    pub fn cpu_weight(&mut self, weight: u32) -> &mut Self {
        self.cpu_weight = Some(weight);
        self
    }

    /// The memory use above which the kernel throttles the job and reclaims its memory; the job is not killed for it.
    ///
    /// The kernel rounds down to whole pages.
    #[doc(alias = "memory.high")]
    pub fn memory_high(&mut self, size: ByteSize) -> &mut Self {
        self.memory_high = Some(size);
        self
    }

    /// The job's share of disk time against its siblings, 1 to 10000; the kernel's default is 100.
    ///
    /// It has an effect only where the disk's cost model (iocost) is enabled.
    #[doc(alias = "io.weight")]
    pub fn io_weight(&mut self, weight: u32) -> &mut Self {
        self.io_weight = Some(weight);
        self
    }

    /// Whether no limit was asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Checks every value by its range and gives the limits in the form in which the kernel takes them.
    pub(crate) fn check(&self) -> Result<Vec<Setting>, InvalidLimit> {
        let weight = |controller, file, value: u32, default: &str| {
            if !(1..=10_000).contains(&value) {
                return Err(InvalidLimit::Weight { file, value });
            }
            let text = format!("{default}{value}");
            Ok(Setting { controller, file, value: text.clone(), read_back: text })
        };
        let mut settings = Vec::new();
        if let Some(value) = self.cpu_weight {
            settings.push(weight("cpu", "cpu.weight", value, "")?);
        }
        if let Some(ByteSize(bytes)) = self.memory_high {
            // The kernel counts in pages and gives back the multiple that it kept; past the largest count it says max.
            let page = rustix::param::page_size() as u64;
            let read_back = if bytes / page >= (i64::MAX as u64) / page {
                "max".to_owned()
            } else {
                (bytes / page * page).to_string()
            };
            settings.push(Setting { controller: "memory", file: "memory.high", value: bytes.to_string(), read_back });
        }
        if let Some(value) = self.io_weight {
            settings.push(weight("io", "io.weight", value, "default ")?);
        }
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_parse_in_powers_of_1024() {
        for (text, bytes) in
            [("0", 0), ("1", 1), ("1k", 1 << 10), ("100M", 100 << 20), ("3G", 3 << 30), ("2T", 2 << 40)]
        {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "M", "12Q", "-1", "+1", "1.5M", "1MM", " 1", "18446744073709551616", "16777216T", "1é"] {
            assert_eq!(text.parse::<ByteSize>(), Err(InvalidLimit::Size { text: text.to_owned() }), "{text}");
        }
    }

    #[test]
    fn a_printed_size_parses_to_itself() {
        for bytes in [0, 1, 1000, 1024, 1536, 100 << 20, u64::MAX, 1 << 40] {
            assert_eq!(ByteSize(bytes).to_string().parse(), Ok(ByteSize(bytes)));
        }
    }

    #[test]
    fn weights_are_checked_by_range() {
        for (value, good) in [(0, false), (1, true), (10_000, true), (10_001, false)] {
            assert_eq!(Limits::new().cpu_weight(value).check().is_ok(), good, "{value}");
            assert_eq!(Limits::new().io_weight(value).check().is_ok(), good, "{value}");
        }
    }

    #[test]
    fn memory_reads_back_in_whole_pages() {
        let settings = Limits::new().memory_high(ByteSize(5000)).check().unwrap();
        assert_eq!((settings[0].value.as_str(), settings[0].read_back.as_str()), ("5000", "4096"));
    }
}
