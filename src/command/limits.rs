//! Owns [`Limits`], the cgroup limits of a job as plain data.
//!
//! Invariant: nothing here touches a file; what a value may be is decided by [`Limits::check`]
//! alone, before anything is created. Knows the names of the kernel's interface files, not where
//! they lie.

use std::time::Duration;

use crate::command::setting::{Kept, Setting, exact, in_pages, of_device, setting_for_file};
use crate::command::units::{ByteSize, Device};
use crate::error::InvalidLimit;

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
/// A builder: no value is checked and nothing is written before
/// [`Reactor::spawn`](crate::Reactor::spawn), where each limit is checked by range, written to the
/// job's own cgroup and read back *before* the job's first instruction. A later value for the same
/// file replaces the earlier one.
///
/// What each limit means is told in the kernel's documentation, admin-guide/cgroup-v2.rst, under
/// the name of its file.
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

    /// The same in the terms of nice(2), -20 to 19: coarser, and the other way to set the same
    /// thing.
    #[doc(alias = "cpu.weight.nice")]
    pub fn cpu_weight_nice(&mut self, nice: i32) -> &mut Self {
        self.number("cpu.weight.nice", nice, (-20, 19))
    }

    /// At most `quota` of CPU time in each `period`, over all processors: 150 ms in 100 ms is one
    /// and a half of them.
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

    /// How much unused quota may be saved up for a burst above [`cpu_max`](Self::cpu_max); up to
    /// the quota itself.
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

    /// The memory use above which the kernel throttles the job and reclaims its memory; the job is
    /// not killed for it.
    ///
    /// The kernel rounds down to whole pages, here and for all other sizes of memory.
    #[doc(alias = "memory.high")]
    pub fn memory_high(&mut self, size: ByteSize) -> &mut Self {
        self.memory("memory.high", size)
    }

    /// The memory that the job may use; a job that needs more is killed.
    ///
    /// Unless [`memory_swap_max`](Self::memory_swap_max) says otherwise, the job gets no swap:
    /// without that it would be swapped out instead of being limited.
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

    /// Whether the kernel, when it has to kill one process of the job for want of memory, kills all
    /// of them.
    #[doc(alias = "memory.oom.group")]
    pub fn memory_oom_group(&mut self, together: bool) -> &mut Self {
        self.number("memory.oom.group", u8::from(together), (0, 1))
    }

    /// The job's share of disk time against its siblings, 1 to 10000; the kernel's default is 100.
    ///
    /// It has an effect only on a disk with the cost model (iocost) enabled or the BFQ scheduler;
    /// where there is neither, it is refused.
    #[doc(alias = "io.weight")]
    pub fn io_weight(&mut self, weight: u32) -> &mut Self {
        let file = "io.weight";
        let checked =
            range(file, weight, WEIGHT).map(|weight| exact(file, format!("default {weight}")));
        self.set(None, file, checked)
    }

    /// The job's share of the time of one device.
    #[doc(alias = "io.weight")]
    pub fn io_weight_of(&mut self, device: Device, weight: u32) -> &mut Self {
        let file = "io.weight";
        let checked = range(file, weight, WEIGHT)
            .map(|weight| of_device(file, device, vec![weight.to_string()]));
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
            Some(rate) => range("io.max", rate, (1, i128::from(u64::MAX)))
                .map(|_| exact("io.max", String::new())),
            None => Ok(of_device("io.max", device, parts)),
        };
        self.set(Some(device), "io.max", checked)
    }

    /// The latency that the job's requests to a device should have, at the expense of siblings with
    /// a higher one.
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
        let mut checked = setting_for_file(&file, size.as_bytes().to_string());
        // The kernel names a page of 2 MiB 2MB.
        let page = page
            .strip_suffix('B')
            .and_then(|size| size.parse::<ByteSize>().ok())
            .filter(|page| page.as_bytes() > 0);
        if let (Ok(setting), Some(page)) = (&mut checked, page) {
            setting.kept = in_pages(size, page.as_bytes());
        }
        self.set(None, &file, checked)
    }

    /// Any other interface file, such as `memory.reclaim`; what is read back is not compared with
    /// what was written.
    pub fn raw(&mut self, file: &str, value: &str) -> &mut Self {
        let checked = setting_for_file(file, value.to_owned());
        self.set(None, file, checked)
    }

    /// Checks every value as [`Reactor::spawn`](crate::Reactor::spawn) does first: for a host that
    /// gets its limits from a user, and wants to refuse a wrong one at once.
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

    fn number(
        &mut self,
        file: &'static str,
        value: impl Into<i128>,
        bounds: (i128, i128),
    ) -> &mut Self {
        self.set(None, file, range(file, value, bounds).map(|value| exact(file, value.to_string())))
    }

    fn list(&mut self, file: &'static str, text: &str) -> &mut Self {
        let number = |text: &str| {
            !text.is_empty() && text.len() < 6 && text.bytes().all(|byte| byte.is_ascii_digit())
        };
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
        self.set(None, file, Ok(Setting { kept, ..exact(file, size.as_bytes().to_string()) }))
    }

    fn set(
        &mut self,
        device: Option<Device>,
        file: &str,
        checked: Result<Setting, InvalidLimit>,
    ) -> &mut Self {
        self.entries.retain(|entry| entry.file != file || entry.device != device);
        self.entries.push(Entry { device, file: file.to_owned(), checked });
        self
    }

    /// Gives the limits in the form in which the kernel takes them, or the first that no kernel
    /// would take.
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

fn range(
    file: &'static str,
    value: impl Into<i128>,
    (least, most): (i128, i128),
) -> Result<i128, InvalidLimit> {
    let value = value.into();
    if (least..=most).contains(&value) {
        Ok(value)
    } else {
        Err(InvalidLimit::Range { file, value, least, most })
    }
}

fn micros(file: &'static str, time: Duration, bounds: (i128, i128)) -> Result<i128, InvalidLimit> {
    range(file, i128::try_from(time.as_micros()).unwrap_or(i128::MAX), bounds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_checked_by_range() {
        for (value, good) in [(0, false), (1, true), (10_000, true), (10_001, false)] {
            assert_eq!(Limits::new().cpu_weight(value).check().is_ok(), good, "{value}");
            assert_eq!(Limits::new().io_weight(value).check().is_ok(), good, "{value}");
        }
    }

    #[test]
    fn memory_reads_back_in_whole_pages() {
        let settings = Limits::new().memory_high(ByteSize::from_bytes(5000)).check().unwrap();
        assert_eq!(
            (settings[0].value.as_str(), &settings[0].kept),
            ("5000", &Kept::Line("4096".to_owned()))
        );
    }

    #[test]
    fn a_memory_limit_takes_the_swap_away_unless_told_otherwise() {
        let files = |limits: &Limits| -> Vec<String> {
            limits
                .check()
                .unwrap()
                .into_iter()
                .map(|setting| format!("{}={}", setting.file, setting.value))
                .collect()
        };
        let mut limits = Limits::new();
        limits.memory_max(ByteSize::from_bytes(4096));
        assert_eq!(files(&limits), ["memory.max=4096", "memory.swap.max=0"]);
        limits.memory_swap_max(ByteSize::from_bytes(8192));
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
        let values: Vec<String> =
            limits.check().unwrap().into_iter().map(|setting| setting.value).collect();
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
            Limits::new()
                .io_max(Device::new(8, 0), IoRates { reads: Some(0), ..IoRates::default() })
                .check()
                .is_err()
        );
    }

    #[test]
    fn huge_pages_read_back_as_whole_ones() {
        for (page, size, kept) in
            [("2MB", 5 << 20, "4194304"), ("1GB", 1 << 20, "0"), ("64KB", 65_537, "65536")]
        {
            let settings =
                Limits::new().hugetlb_max(page, ByteSize::from_bytes(size)).check().unwrap();
            assert_eq!(settings[0].kept, Kept::Line(kept.to_owned()), "{page}");
        }
    }
}
