//! Owns [`ByteSize`] and [`Device`], in which limits are expressed, and how a time is written.
//!
//! Invariant: plain data; what is printed parses to itself. Knows nothing of limits.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::error::InvalidLimit;

/// A number of bytes that reads and prints with the suffixes K, M, G and T (powers of 1024).
///
/// ```
/// use jobworker::ByteSize;
///
/// let size: ByteSize = "100M".parse()?;
/// assert_eq!(size, ByteSize::from_mib(100));
/// assert_eq!(size, ByteSize::from(100 * 1024 * 1024));
/// assert_eq!(size.to_string(), "100M");
/// assert!("12Q".parse::<ByteSize>().is_err());
/// # Ok::<(), jobworker::InvalidLimit>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

/// The suffixes, largest first, with the power of two each stands for.
const SUFFIXES: [(char, u32); 4] = [('T', 40), ('G', 30), ('M', 20), ('K', 10)];

impl ByteSize {
    /// No limit: what the kernel writes as `max`.
    pub const MAX: Self = Self(u64::MAX);

    /// A size of exactly this many bytes.
    #[must_use]
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// So many units of 1024 bytes; [`MAX`](Self::MAX) if that is too large for a `u64`.
    ///
    /// ```
    /// use jobworker::ByteSize;
    ///
    /// const LIMIT: ByteSize = ByteSize::from_gib(4);
    /// assert_eq!(LIMIT, ByteSize::from_mib(4096));
    /// assert_eq!(LIMIT, ByteSize::from_kib(4096 * 1024));
    /// assert_eq!(ByteSize::from_tib(u64::MAX), ByteSize::MAX);
    /// ```
    #[must_use]
    pub const fn from_kib(count: u64) -> Self {
        Self(count.saturating_mul(1 << 10))
    }

    /// So many units of 1024 KiB; [`MAX`](Self::MAX) if that is too large for a `u64`.
    #[must_use]
    pub const fn from_mib(count: u64) -> Self {
        Self(count.saturating_mul(1 << 20))
    }

    /// So many units of 1024 MiB; [`MAX`](Self::MAX) if that is too large for a `u64`.
    #[must_use]
    pub const fn from_gib(count: u64) -> Self {
        Self(count.saturating_mul(1 << 30))
    }

    /// So many units of 1024 GiB; [`MAX`](Self::MAX) if that is too large for a `u64`.
    #[must_use]
    pub const fn from_tib(count: u64) -> Self {
        Self(count.saturating_mul(1 << 40))
    }

    /// The number of bytes.
    #[must_use]
    pub const fn as_bytes(self) -> u64 {
        self.0
    }
}

/// A size of exactly this many bytes.
impl From<u64> for ByteSize {
    fn from(bytes: u64) -> Self {
        Self(bytes)
    }
}

/// The number of bytes.
impl From<ByteSize> for u64 {
    fn from(size: ByteSize) -> Self {
        size.0
    }
}

/// Parses digits with at most one suffix out of K, M, G and T, in either case.
impl FromStr for ByteSize {
    type Err = InvalidLimit;

    fn from_str(text: &str) -> Result<Self, InvalidLimit> {
        let invalid = || InvalidLimit::Size { text: text.to_owned() };
        let last = text.chars().next_back().ok_or_else(invalid)?.to_ascii_uppercase();
        let (number, shift) = match SUFFIXES.iter().find(|(suffix, _)| *suffix == last) {
            Some((_, shift)) => (&text[..text.len() - 1], *shift),
            None => (text, 0),
        };
        let number: u64 = digits(number).ok_or_else(invalid)?;
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

/// A number that consists of digits alone: `from_str` would accept a leading plus sign.
pub(crate) fn digits<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// A block device, by its numbers.
///
/// ```
/// use jobworker::Device;
///
/// let disk: Device = "259:0".parse()?;
/// assert_eq!(disk, Device::new(259, 0));
/// # Ok::<(), jobworker::InvalidLimit>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Device {
    major: u32,
    minor: u32,
}

impl Device {
    /// The device with these numbers, as in /proc/partitions.
    #[must_use]
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }
}

/// Parses `major:minor`.
impl FromStr for Device {
    type Err = InvalidLimit;

    fn from_str(text: &str) -> Result<Self, InvalidLimit> {
        let numbers =
            text.split_once(':').and_then(|(major, minor)| Some((digits(major)?, digits(minor)?)));
        let (major, minor) =
            numbers.ok_or_else(|| InvalidLimit::Device { text: text.to_owned() })?;
        Ok(Self { major, minor })
    }
}

/// Writes `major:minor`.
impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// A number with its unit: `us`, `ms` or `s`.
pub(crate) fn parse_time(text: &str) -> Option<Duration> {
    let (number, scale) = if let Some(number) = text.strip_suffix("us") {
        (number, 1e-6)
    } else if let Some(number) = text.strip_suffix("ms") {
        (number, 1e-3)
    } else {
        (text.strip_suffix('s')?, 1.0)
    };
    // `f64::from_str` would accept a sign, an exponent, and words such as inf.
    if !number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return None;
    }
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * scale).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_number_with_its_unit() {
        for (text, time) in [
            ("150ms", Duration::from_millis(150)),
            ("0us", Duration::ZERO),
            ("1.5s", Duration::from_millis(1500)),
            ("20us", Duration::from_micros(20)),
        ] {
            assert_eq!(parse_time(text), Some(time), "{text}");
        }
        for text in ["", "5", "s", "5m", "5 s", "-1s", "infs", "1e3s", "5 parsecs", "1.2.3s"] {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_parse_in_powers_of_1024() {
        for (text, bytes) in [
            ("0", 0),
            ("1", 1),
            ("1k", 1 << 10),
            ("100M", 100 << 20),
            ("3G", 3 << 30),
            ("2T", 2 << 40),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "",
            "M",
            "12Q",
            "-1",
            "+1",
            "1.5M",
            "1MM",
            " 1",
            "18446744073709551616",
            "16777216T",
            "1é",
        ] {
            assert_eq!(
                text.parse::<ByteSize>(),
                Err(InvalidLimit::Size { text: text.to_owned() }),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_device_is_refused() {
        for text in ["", ":", "8", "8:", ":0", "+8:0", "8:+0", "-8:0", "8:0:0", "8:4294967296"] {
            assert_eq!(
                text.parse::<Device>(),
                Err(InvalidLimit::Device { text: text.to_owned() }),
                "{text}"
            );
        }
    }

    #[test]
    fn a_printed_size_parses_to_itself() {
        let powers = (0..64).map(|shift| 1 << shift);
        let around =
            powers.flat_map(|power: u64| [power - 1, power, power + 1, power | power >> 1]);
        for bytes in around.chain([1000, 100 << 20, u64::MAX]) {
            assert_eq!(ByteSize(bytes).to_string().parse(), Ok(ByteSize(bytes)));
        }
    }

    #[test]
    fn a_size_is_written_with_the_largest_suffix_that_loses_nothing() {
        for (bytes, text) in [
            (0, "0"),
            (1, "1"),
            (1023, "1023"),
            (1024, "1K"),
            (1025, "1025"),
            (3 << 20, "3M"),
            (1 << 40, "1T"),
        ] {
            let size = ByteSize::from(bytes);
            assert_eq!((size.to_string().as_str(), u64::from(size)), (text, bytes));
        }
    }
}
