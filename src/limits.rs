//! Owns [`Limits`], the cgroup limits of a job as plain data, and [`ByteSize`].
//!
//! Invariant: nothing here touches a file; what a value may be is decided by [`Limits::check`] alone, before
//! anything is created. Knows the names of the kernel's interface files, not where they lie.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

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
    /// No limit: what the kernel writes as `max`.
    pub const MAX: Self = Self(u64::MAX);

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
    /// A value outside of the kernel's range.
    #[error("{file} is {value}, but has to lie between {least} and {most}")]
    Range {
        /// The interface file, such as `cpu.weight`.
        file: &'static str,
        /// What was given.
        value: i128,
        /// The least value that the kernel takes.
        least: i128,
        /// The greatest value that the kernel takes.
        most: i128,
    },
    /// A list of processors or memory nodes that is not one.
    #[error("{file} is {text:?}, but has to be a list of numbers and ranges, as in 0-3,8")]
    List {
        /// The interface file, such as `cpuset.cpus`.
        file: &'static str,
        /// What was given.
        text: String,
    },
    /// The name of an interface file that leads out of the cgroup, is none, or is not for setting limits.
    #[error("{file:?} is not the name of a limit's file: it has to be of the form controller.name, without a slash")]
    File {
        /// What was given.
        file: String,
    },
    /// The text is not the number of a block device.
    #[error(
        "{text:?} is not the number of a block device: write it as in /proc/partitions, with a colon, such as 259:0"
    )]
    Device {
        /// What was given.
        text: String,
    },
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
        let numbers = text.split_once(':').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        let (major, minor) = numbers.ok_or_else(|| InvalidLimit::Device { text: text.to_owned() })?;
        Ok(Self { major, minor })
    }
}

/// Writes `major:minor`.
impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// The rates at which a job may use a device; what is `None` is not limited.
///
/// ```
/// use jobworker::{ByteSize, Device, IoRates, Limits};
///
/// let mut rates = IoRates::default();
/// rates.read_bytes = Some(ByteSize::from_bytes(2 << 20));
/// let mut limits = Limits::new();
/// limits.io_max(Device::new(259, 0), rates);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct IoRates {
    /// Bytes read per second.
    pub read_bytes: Option<ByteSize>,
    /// Bytes written per second.
    pub write_bytes: Option<ByteSize>,
    /// Reads per second.
    pub reads: Option<u64>,
    /// Writes per second.
    pub writes: Option<u64>,
}

/// The resource limits of a job; none unless asked for.
///
/// A builder: no value is checked and nothing is written before [`Reactor::spawn`](crate::Reactor::spawn), where each
/// limit is checked by range, written to the job's own cgroup and read back *before* the job's first instruction. A
/// later value for the same file replaces the earlier one.
///
/// What each limit means is told in the kernel's documentation, admin-guide/cgroup-v2.rst, under the name of its file.
///
/// ```
/// use jobworker::{ByteSize, Limits};
///
/// let mut limits = Limits::new();
/// limits.cpu_weight(200).memory_high(ByteSize::from_bytes(100 << 20)).pids_max(64);
/// assert!(!limits.is_empty());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// One for each file, and device where the file has a line for each.
    entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    device: Option<Device>,
    file: String,
    checked: Result<Setting, InvalidLimit>,
}

/// One limit as the kernel takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    /// The controller that has to be enabled for the job's group; the part of the file's name before the first dot.
    pub(crate) controller: String,
    /// The interface file inside the group.
    pub(crate) file: String,
    /// What to write.
    pub(crate) value: String,
    /// What a read gives once the kernel has taken the value.
    pub(crate) kept: Kept,
    /// Set along with another one: where the kernel does not have the file, there is nothing to set.
    pub(crate) optional: bool,
}

/// How a value that the kernel has taken looks when it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// The first line is this text.
    Line(String),
    /// The first line ends with this word.
    Word(String),
    /// It is a list of the same numbers as this one; the kernel joins neighbours into ranges.
    List(String),
    /// Some line begins with this word and has each of these.
    Device(String, Vec<String>),
    /// In a form of the kernel's own, which is not compared.
    Unknown,
}

impl Kept {
    /// Whether this content shows the value.
    pub(crate) fn shows(&self, content: &str) -> bool {
        match self {
            Self::Line(line) => content.lines().next().unwrap_or("") == line,
            Self::Word(word) => content.lines().next().and_then(|line| line.split_whitespace().last()) == Some(word),
            Self::List(list) => ranges(list).is_some_and(|wanted| ranges(content.trim_end()) == Some(wanted)),
            Self::Device(device, parts) => content.lines().any(|line| {
                let mut words = line.split_whitespace();
                words.next() == Some(device)
                    && parts.iter().all(|part| line.split_whitespace().any(|word| word == part))
            }),
            Self::Unknown => true,
        }
    }
}

/// A weight lies in this range; the kernel's default is 100.
const WEIGHT: (i128, i128) = (1, 10_000);

impl Limits {
    /// No limits.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether no limit was asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The job's share of the CPU against its siblings, 1 to 10000; the kernel's default is 100.
    #[doc(alias = "cpu.weight")]
    pub fn cpu_weight(&mut self, weight: u32) -> &mut Self {
        self.number("cpu.weight", weight, WEIGHT)
    }

    /// The same in the terms of nice(2), -20 to 19: coarser, and the other way to set the same thing.
    #[doc(alias = "cpu.weight.nice")]
    pub fn cpu_weight_nice(&mut self, nice: i32) -> &mut Self {
        self.number("cpu.weight.nice", nice, (-20, 19))
    }

    /// At most `quota` of CPU time in each `period`, over all processors: 150 ms in 100 ms is one and a half of them.
    ///
    /// Both from 1 ms on, the period up to 1 s; the kernel counts in microseconds.
    #[doc(alias = "cpu.max")]
    pub fn cpu_max(&mut self, quota: Duration, period: Duration) -> &mut Self {
        let file = "cpu.max";
        let checked = micros(file, quota, (1_000, i128::from(u32::MAX) * 1_000))
            .and_then(|quota| Ok((quota, micros(file, period, (1_000, 1_000_000))?)))
            .map(|(quota, period)| exact(file, format!("{quota} {period}")));
        self.set(None, file, checked)
    }

    /// How much unused quota may be saved up for a burst above [`cpu_max`](Self::cpu_max); up to the quota itself.
    #[doc(alias = "cpu.max.burst")]
    pub fn cpu_max_burst(&mut self, burst: Duration) -> &mut Self {
        let file = "cpu.max.burst";
        let checked = micros(file, burst, (0, i128::from(u32::MAX) * 1_000));
        self.set(None, file, checked.map(|burst| exact(file, burst.to_string())))
    }

    /// Runs the job only when nothing else wants the CPU.
    #[doc(alias = "cpu.idle")]
    pub fn cpu_idle(&mut self, idle: bool) -> &mut Self {
        self.number("cpu.idle", u8::from(idle), (0, 1))
    }

    /// The processors that the job may use, as in `0-3,8`.
    #[doc(alias = "cpuset.cpus")]
    pub fn cpuset_cpus(&mut self, list: &str) -> &mut Self {
        self.list("cpuset.cpus", list)
    }

    /// The memory nodes that the job may use, as in `0,1`.
    #[doc(alias = "cpuset.mems")]
    pub fn cpuset_mems(&mut self, list: &str) -> &mut Self {
        self.list("cpuset.mems", list)
    }

    /// Memory that is never reclaimed from the job.
    #[doc(alias = "memory.min")]
    pub fn memory_min(&mut self, size: ByteSize) -> &mut Self {
        self.memory("memory.min", size)
    }

    /// Memory that is reclaimed from the job only when others have none to give.
    #[doc(alias = "memory.low")]
    pub fn memory_low(&mut self, size: ByteSize) -> &mut Self {
        self.memory("memory.low", size)
    }

    /// The memory use above which the kernel throttles the job and reclaims its memory; the job is not killed for it.
    ///
    /// The kernel rounds down to whole pages, here and for all other sizes of memory.
    #[doc(alias = "memory.high")]
    pub fn memory_high(&mut self, size: ByteSize) -> &mut Self {
        self.memory("memory.high", size)
    }

    /// The memory that the job may use; a job that needs more is killed.
    ///
    /// Unless [`memory_swap_max`](Self::memory_swap_max) says otherwise, the job gets no swap: without that it would be
    /// swapped out instead of being limited.
    #[doc(alias = "memory.max")]
    pub fn memory_max(&mut self, size: ByteSize) -> &mut Self {
        self.memory("memory.max", size)
    }

    /// The swap that the job may use.
    #[doc(alias = "memory.swap.max")]
    pub fn memory_swap_max(&mut self, size: ByteSize) -> &mut Self {
        self.memory("memory.swap.max", size)
    }

    /// The memory of compressed swap that the job may use.
    #[doc(alias = "memory.zswap.max")]
    pub fn memory_zswap_max(&mut self, size: ByteSize) -> &mut Self {
        self.memory("memory.zswap.max", size)
    }

    /// Whether the kernel, when it has to kill one process of the job for want of memory, kills all of them.
    #[doc(alias = "memory.oom.group")]
    pub fn memory_oom_group(&mut self, together: bool) -> &mut Self {
        self.number("memory.oom.group", u8::from(together), (0, 1))
    }

    /// The job's share of disk time against its siblings, 1 to 10000; the kernel's default is 100.
    ///
    /// It has an effect only on a disk with the cost model (iocost) enabled or the BFQ scheduler; where there is
    /// neither, it is refused.
    #[doc(alias = "io.weight")]
    pub fn io_weight(&mut self, weight: u32) -> &mut Self {
        let file = "io.weight";
        let checked = range(file, weight, WEIGHT).map(|weight| exact(file, format!("default {weight}")));
        self.set(None, file, checked)
    }

    /// The job's share of the time of one device.
    #[doc(alias = "io.weight")]
    pub fn io_weight_of(&mut self, device: Device, weight: u32) -> &mut Self {
        let file = "io.weight";
        let checked = range(file, weight, WEIGHT).map(|weight| of_device(file, device, vec![weight.to_string()]));
        self.set(Some(device), file, checked)
    }

    /// The rates at which the job may use a device.
    #[doc(alias = "io.max")]
    pub fn io_max(&mut self, device: Device, rates: IoRates) -> &mut Self {
        let IoRates { read_bytes, write_bytes, reads, writes } = rates;
        let bytes = |size: Option<ByteSize>| size.map(ByteSize::as_bytes);
        let rate = |name: &str, rate: Option<u64>| match rate {
            Some(rate) => format!("{name}={rate}"),
            None => format!("{name}=max"),
        };
        let parts = vec![
            rate("rbps", bytes(read_bytes)),
            rate("wbps", bytes(write_bytes)),
            rate("riops", reads),
            rate("wiops", writes),
        ];
        let limited = [bytes(read_bytes), bytes(write_bytes), reads, writes];
        let checked = match limited.into_iter().flatten().find(|rate| *rate == 0) {
            Some(rate) => range("io.max", rate, (1, i128::from(u64::MAX))).map(|_| exact("io.max", String::new())),
            None => Ok(of_device("io.max", device, parts)),
        };
        self.set(Some(device), "io.max", checked)
    }

    /// The latency that the job's requests to a device should have, at the expense of siblings with a higher one.
    #[doc(alias = "io.latency")]
    pub fn io_latency(&mut self, device: Device, target: Duration) -> &mut Self {
        let file = "io.latency";
        let checked = micros(file, target, (1, i128::from(u32::MAX) * 1_000));
        let setting = |target| of_device(file, device, vec![format!("target={target}")]);
        self.set(Some(device), file, checked.map(setting))
    }

    /// How many processes and threads the job may have at a time.
    #[doc(alias = "pids.max")]
    pub fn pids_max(&mut self, most: u32) -> &mut Self {
        // The kernel's PIDS_MAX on 64-bit machines is one more than its largest pid.
        self.number("pids.max", most, (1, 4_194_304))
    }

    /// How much memory in huge pages of one size, such as `2MB` or `1GB`, the job may use.
    #[doc(alias = "hugetlb.2MB.max")]
    pub fn hugetlb_max(&mut self, page: &str, size: ByteSize) -> &mut Self {
        let file = format!("hugetlb.{page}.max");
        let mut checked = setting_for_file(&file, size.0.to_string());
        // The kernel names a page of 2 MiB 2MB.
        let page = page.strip_suffix('B').and_then(|size| size.parse::<ByteSize>().ok()).filter(|page| page.0 > 0);
        if let (Ok(setting), Some(page)) = (&mut checked, page) {
            setting.kept = in_pages(size, page.0);
        }
        self.set(None, &file, checked)
    }

    /// Any other interface file, such as `memory.reclaim`; what is read back is not compared with what was written.
    pub fn raw(&mut self, file: &str, value: &str) -> &mut Self {
        let checked = setting_for_file(file, value.to_owned());
        self.set(None, file, checked)
    }

    /// Checks every value as [`Reactor::spawn`](crate::Reactor::spawn) does first: for a host that gets its limits from a
    /// user, and wants to refuse a wrong one at once.
    ///
    /// Whether this system can enforce the limits is another matter, which only the spawn decides.
    ///
    /// ```
    /// use jobworker::{InvalidLimit, Limits};
    ///
    /// assert_eq!(Limits::new().cpu_weight(100).validate(), Ok(()));
    /// assert!(matches!(Limits::new().cpu_weight(0).validate(), Err(InvalidLimit::Range { file: "cpu.weight", .. })));
    /// ```
    ///
    /// # Errors
    /// The first limit that no kernel would take.
    pub fn validate(&self) -> Result<(), InvalidLimit> {
        self.check().map(drop)
    }

    fn number(&mut self, file: &'static str, value: impl Into<i128>, bounds: (i128, i128)) -> &mut Self {
        self.set(None, file, range(file, value, bounds).map(|value| exact(file, value.to_string())))
    }

    fn list(&mut self, file: &'static str, text: &str) -> &mut Self {
        let number = |text: &str| !text.is_empty() && text.len() < 6 && text.bytes().all(|byte| byte.is_ascii_digit());
        let item = |item: &str| match item.split_once('-') {
            Some((first, last)) => number(first) && number(last),
            None => number(item),
        };
        let checked = if text.split(',').all(item) {
            Ok(Setting { kept: Kept::List(text.to_owned()), ..exact(file, text.to_owned()) })
        } else {
            Err(InvalidLimit::List { file, text: text.to_owned() })
        };
        self.set(None, file, checked)
    }

    fn memory(&mut self, file: &'static str, size: ByteSize) -> &mut Self {
        let kept = in_pages(size, rustix::param::page_size() as u64);
        self.set(None, file, Ok(Setting { kept, ..exact(file, size.0.to_string()) }))
    }

    fn set(&mut self, device: Option<Device>, file: &str, checked: Result<Setting, InvalidLimit>) -> &mut Self {
        self.entries.retain(|entry| entry.file != file || entry.device != device);
        self.entries.push(Entry { device, file: file.to_owned(), checked });
        self
    }

    /// Gives the limits in the form in which the kernel takes them, or the first that no kernel would take.
    pub(crate) fn check(&self) -> Result<Vec<Setting>, InvalidLimit> {
        let mut settings = Vec::with_capacity(self.entries.len() + 1);
        for entry in &self.entries {
            settings.push(entry.checked.clone()?);
        }
        let has = |file: &str| self.entries.iter().any(|entry| entry.file == file);
        if has("memory.max") && !has("memory.swap.max") {
            settings.push(Setting { optional: true, ..exact("memory.swap.max", "0".to_owned()) });
        }
        Ok(settings)
    }
}

fn range(file: &'static str, value: impl Into<i128>, (least, most): (i128, i128)) -> Result<i128, InvalidLimit> {
    let value = value.into();
    if (least..=most).contains(&value) { Ok(value) } else { Err(InvalidLimit::Range { file, value, least, most }) }
}

fn micros(file: &'static str, time: Duration, bounds: (i128, i128)) -> Result<i128, InvalidLimit> {
    range(file, i128::try_from(time.as_micros()).unwrap_or(i128::MAX), bounds)
}

/// A setting that reads back as it is written.
fn exact(file: &str, value: String) -> Setting {
    let controller = file.split('.').next().unwrap_or(file).to_owned();
    Setting { controller, file: file.to_owned(), kept: Kept::Line(value.clone()), value, optional: false }
}

/// The kernel counts in pages and gives back the multiple that it kept; past the largest count it says max.
fn in_pages(size: ByteSize, page: u64) -> Kept {
    let most = i64::MAX as u64 / page;
    Kept::Line(if size.0 / page >= most { "max".to_owned() } else { (size.0 / page * page).to_string() })
}

/// The numbers of a list such as `0-3,8`, as ranges that do not touch; `None` if it is none.
fn ranges(list: &str) -> Option<Vec<(u32, u32)>> {
    let mut found: Vec<(u32, u32)> = Vec::new();
    for item in list.split(',') {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        found.push((first.parse().ok()?, last.parse().ok()?));
    }
    found.sort_unstable();
    let mut joined: Vec<(u32, u32)> = Vec::new();
    for (first, last) in found {
        match joined.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => joined.push((first, last)),
        }
    }
    Some(joined)
}

/// A setting that has a line of its own for each device.
fn of_device(file: &str, device: Device, parts: Vec<String>) -> Setting {
    let value = format!("{device} {}", parts.join(" "));
    Setting { kept: Kept::Device(device.to_string(), parts), ..exact(file, value) }
}

/// A setting of a file that was named by the host.
fn setting_for_file(file: &str, value: String) -> Result<Setting, InvalidLimit> {
    let proper = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let named = file.split_once('.').is_some_and(|(controller, name)| !controller.is_empty() && !name.is_empty());
    // The core's files move, kill and freeze processes, which is the engine's business; its maxima are limits.
    let ours = file.starts_with("cgroup.") && !file.starts_with("cgroup.max.");
    if !named || ours || file.contains("..") || !file.bytes().all(proper) {
        return Err(InvalidLimit::File { file: file.to_owned() });
    }
    Ok(Setting { kept: Kept::Unknown, ..exact(file, value) })
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
        assert_eq!((settings[0].value.as_str(), &settings[0].kept), ("5000", &Kept::Line("4096".to_owned())));
    }

    #[test]
    fn a_memory_limit_takes_the_swap_away_unless_told_otherwise() {
        let files = |limits: &Limits| -> Vec<String> {
            limits.check().unwrap().into_iter().map(|setting| format!("{}={}", setting.file, setting.value)).collect()
        };
        let mut limits = Limits::new();
        limits.memory_max(ByteSize(4096));
        assert_eq!(files(&limits), ["memory.max=4096", "memory.swap.max=0"]);
        limits.memory_swap_max(ByteSize(8192));
        assert_eq!(files(&limits), ["memory.max=4096", "memory.swap.max=8192"]);
    }

    #[test]
    fn a_later_value_replaces_the_earlier_one_for_the_same_file_and_device() {
        let (disk, other) = (Device::new(8, 0), Device::new(8, 16));
        let mut limits = Limits::new();
        limits
            .cpu_weight(0)
            .cpu_weight(5)
            .io_weight(10)
            .io_weight_of(disk, 20)
            .io_weight_of(disk, 30)
            .io_weight_of(other, 40);
        let values: Vec<String> = limits.check().unwrap().into_iter().map(|setting| setting.value).collect();
        assert_eq!(values, ["5", "default 10", "8:0 30", "8:16 40"]);
    }

    #[test]
    fn what_lies_outside_of_the_kernels_range_is_refused() {
        let ms = Duration::from_millis;
        let bad: [fn(&mut Limits) -> &mut Limits; 6] = [
            |limits| limits.cpu_weight_nice(20),
            |limits| limits.pids_max(0),
            |limits| limits.cpuset_cpus("0-"),
            |limits| limits.cpuset_mems("a"),
            |limits| limits.raw("../memory.max", "1"),
            |limits| limits.raw("cgroup/procs", "1"),
        ];
        for set in bad {
            assert!(set(&mut Limits::new()).check().is_err());
        }
        assert!(Limits::new().cpu_max(ms(20), ms(2000)).check().is_err());
        assert!(Limits::new().cpu_max(ms(20), ms(100)).check().is_ok());
        assert!(
            Limits::new().io_max(Device::new(8, 0), IoRates { reads: Some(0), ..IoRates::default() }).check().is_err()
        );
    }

    #[test]
    fn a_list_reads_back_however_the_kernel_writes_it() {
        let kept = Kept::List("8,0-2,3,1".to_owned());
        assert!(kept.shows("0-3,8\n") && kept.shows("0-3,8"));
        for other in ["", "0-3", "0-3,8-9", "0-2,8", "x"] {
            assert!(!kept.shows(other), "{other:?}");
        }
    }

    #[test]
    fn huge_pages_read_back_as_whole_ones() {
        for (page, size, kept) in [("2MB", 5 << 20, "4194304"), ("1GB", 1 << 20, "0"), ("64KB", 65_537, "65536")] {
            let settings = Limits::new().hugetlb_max(page, ByteSize(size)).check().unwrap();
            assert_eq!(settings[0].kept, Kept::Line(kept.to_owned()), "{page}");
        }
    }

    #[test]
    fn a_line_for_a_device_is_found_among_others() {
        let kept = of_device("io.max", Device::new(8, 16), vec!["rbps=1".to_owned(), "wbps=max".to_owned()]).kept;
        assert!(kept.shows("8:0 rbps=2 wbps=max\n8:16 rbps=1 wbps=max riops=max wiops=max\n"));
        assert!(!kept.shows("8:16 rbps=2 wbps=max\n"));
        assert!(!kept.shows(""));
    }
}
