//! Owns [`Limits`], the cgroup limits of a job as plain data.
//!
//! Invariant: nothing here touches a file, and a setter takes whatever it is given; a value is
//! checked by [`Limits::set`], [`Limits::validate`] and wherever limits are put in force, always by
//! the table of `files`. Knows the names of the kernel's interface files, not where they are.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::command::files::LimitFile;
use crate::command::setting::Setting;
use crate::command::units::{ByteSize, Device};
use crate::command::value::{IoRates, LimitValue, Unparsed};
use crate::error::InvalidLimit;

/// The resource limits of a job; none unless asked for, except two.
///
/// So that a job cannot keep its host busy with groups, it may make at most 256 of them below its
/// own, nested at most 32 deep. That is enough for a container manager, or for systemd in a
/// container, within a job. Other values, or `max`, are set like any limit; see
/// [`cgroup_max_depth`](Self::cgroup_max_depth) and
/// [`cgroup_max_descendants`](Self::cgroup_max_descendants). The kernel has these files since
/// Linux 4.14; where it has none, there are no such limits.
///
/// A builder: its methods take any value. [`Reactor::spawn`](crate::Reactor::spawn) first checks
/// all values by range, then writes each to the job's own cgroup and reads it back, all *before*
/// the job's first instruction; [`validate`](Self::validate) only checks. A later value for the
/// same file replaces the earlier one, or that of the same device where the file has a value for
/// each device. Values are written in the order in which they were given.
///
/// [`Reactor::limits`](crate::Reactor::limits) gives the limits that are in force for a job, in the
/// same form: they can be given to another job, or again to the same.
///
/// The kernel's documentation, admin-guide/cgroup-v2.rst, describes each limit under the name of
/// its file.
///
/// ```
/// use jobworker::{ByteSize, Limits};
///
/// let mut limits = Limits::new();
/// limits.cpu_weight(200).memory_high(ByteSize::from_mib(100)).pids_max(64);
/// assert!(!limits.is_empty());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// One for each file.
    entries: Vec<(Cow<'static, str>, LimitValue)>,
}

/// What a job is limited to unless its command says otherwise.
const DEFAULTS: [(&str, u32); 2] = [("cgroup.max.depth", 32), ("cgroup.max.descendants", 256)];

impl Limits {
    /// No limits but the default ones.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether no limit was asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value for an interface file, such as `memory.max`, if there is one here.
    ///
    /// ```
    /// use jobworker::{Limits, LimitValue};
    ///
    /// let mut limits = Limits::new();
    /// limits.cpu_weight(200);
    /// assert_eq!(limits.get("cpu.weight"), Some(&LimitValue::Weight(200)));
    /// assert_eq!(limits.get("memory.max"), None);
    /// ```
    #[must_use]
    pub fn get(&self, file: &str) -> Option<&LimitValue> {
        self.entries.iter().find(|(other, _)| other == file).map(|(_, value)| value)
    }

    /// All files that have a value here, in the order in which they are written.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &LimitValue)> {
        self.entries.iter().map(|(file, value)| (file.as_ref(), value))
    }

    /// The interface files for which this type has a method: for hosts that offer all of them to a
    /// user, as flags of a command line, for example.
    #[must_use]
    pub fn files() -> &'static [LimitFile] {
        LimitFile::all()
    }

    /// Sets the value for an interface file from a text, and checks it: for hosts that get limits
    /// from a user.
    ///
    /// A size is written as for [`ByteSize`], or as `max`; a count as a number or `max`; a time
    /// with its unit, as `150ms`; a flag as `0` or `1`; a quota as `150ms/100ms`, `150%` or
    /// `150%/10ms`, with a period of 100 ms unless given; a device by its numbers, as in
    /// `8:0=10ms` or `8:0=rbps:2M,wiops:100`. [`LimitFile::syntax`] says which of these forms a
    /// file takes.
    ///
    /// ```
    /// use jobworker::{ByteSize, InvalidLimit, Limits};
    ///
    /// let mut limits = Limits::new();
    /// limits.set("memory.max", "100M")?.set("cpu.max", "150%")?;
    /// let ms = std::time::Duration::from_millis;
    /// let mut same = Limits::new();
    /// same.memory_max(ByteSize::from_mib(100)).cpu_max(ms(150), ms(100));
    /// assert_eq!(limits, same);
    /// assert!(matches!(limits.set("pids.max", "many"), Err(InvalidLimit::Value { .. })));
    /// # Ok::<(), InvalidLimit>(())
    /// ```
    ///
    /// # Errors
    /// [`InvalidLimit::Unknown`] for a file that is not one of [`files`](Self::files);
    /// [`InvalidLimit::Value`], [`InvalidLimit::Size`] or [`InvalidLimit::Device`] for a text that
    /// cannot be parsed; and those of [`validate`](Self::validate). Nothing is changed then.
    pub fn set(&mut self, file: &str, text: &str) -> Result<&mut Self, InvalidLimit> {
        let Some(row) = LimitFile::find(file) else {
            return Err(InvalidLimit::Unknown { file: file.to_owned() });
        };
        let value = LimitValue::from_text(row.shape(), text).map_err(|error| match error {
            Unparsed::Part(part) => part,
            Unparsed::Expected(expected) => {
                InvalidLimit::Value { file: file.to_owned(), text: text.to_owned(), expected }
            }
        })?;
        let file: Cow<'static, str> = Cow::Owned(file.to_owned());
        Setting::check(file.clone(), &value)?;
        Ok(self.put(file, value))
    }

    /// The job's share of the CPU against its siblings, 1 to 10000; the kernel's default is 100.
    #[doc(alias = "cpu.weight")]
    pub fn cpu_weight(&mut self, weight: u32) -> &mut Self {
        self.put("cpu.weight", LimitValue::Weight(weight))
    }

    /// The same in the terms of nice(2), -20 to 19: coarser, and the other way to set the same
    /// thing.
    #[doc(alias = "cpu.weight.nice")]
    pub fn cpu_weight_nice(&mut self, nice: i32) -> &mut Self {
        self.put("cpu.weight.nice", LimitValue::Nice(nice))
    }

    /// At most `quota` of CPU time in each `period`, over all processors: 150 ms in 100 ms is one
    /// and a half of them.
    ///
    /// Both from 1 ms on, the period up to 1 s; the kernel counts in microseconds.
    #[doc(alias = "cpu.max")]
    pub fn cpu_max(&mut self, quota: Duration, period: Duration) -> &mut Self {
        self.put("cpu.max", LimitValue::Quota { quota: Some(quota), period })
    }

    /// How much unused quota may be saved up for a burst above [`cpu_max`](Self::cpu_max); up to
    /// the quota itself.
    #[doc(alias = "cpu.max.burst")]
    pub fn cpu_max_burst(&mut self, burst: Duration) -> &mut Self {
        self.put("cpu.max.burst", LimitValue::Time(burst))
    }

    /// Runs the job only when nothing else wants the CPU.
    #[doc(alias = "cpu.idle")]
    pub fn cpu_idle(&mut self, idle: bool) -> &mut Self {
        self.put("cpu.idle", LimitValue::Flag(idle))
    }

    /// The processors that the job may use, as in `0-3,8`.
    #[doc(alias = "cpuset.cpus")]
    pub fn cpuset_cpus(&mut self, list: &str) -> &mut Self {
        self.put("cpuset.cpus", LimitValue::List(list.to_owned()))
    }

    /// The memory nodes that the job may use, as in `0,1`.
    #[doc(alias = "cpuset.mems")]
    pub fn cpuset_mems(&mut self, list: &str) -> &mut Self {
        self.put("cpuset.mems", LimitValue::List(list.to_owned()))
    }

    /// Memory that is never reclaimed from the job.
    #[doc(alias = "memory.min")]
    pub fn memory_min(&mut self, size: ByteSize) -> &mut Self {
        self.put("memory.min", LimitValue::Bytes(size))
    }

    /// Memory that is reclaimed from the job only when others have none to give.
    #[doc(alias = "memory.low")]
    pub fn memory_low(&mut self, size: ByteSize) -> &mut Self {
        self.put("memory.low", LimitValue::Bytes(size))
    }

    /// The memory use above which the kernel throttles the job and reclaims its memory; the job is
    /// not killed for it.
    ///
    /// The kernel rounds down to whole pages, here and for all other sizes of memory.
    #[doc(alias = "memory.high")]
    pub fn memory_high(&mut self, size: ByteSize) -> &mut Self {
        self.put("memory.high", LimitValue::Bytes(size))
    }

    /// The memory that the job may use; a job that needs more is killed.
    ///
    /// Unless [`memory_swap_max`](Self::memory_swap_max) says otherwise, the job gets no swap:
    /// without that it would be swapped out instead of being limited.
    #[doc(alias = "memory.max")]
    pub fn memory_max(&mut self, size: ByteSize) -> &mut Self {
        self.put("memory.max", LimitValue::Bytes(size))
    }

    /// The swap that the job may use.
    #[doc(alias = "memory.swap.max")]
    pub fn memory_swap_max(&mut self, size: ByteSize) -> &mut Self {
        self.put("memory.swap.max", LimitValue::Bytes(size))
    }

    /// The memory of compressed swap that the job may use.
    #[doc(alias = "memory.zswap.max")]
    pub fn memory_zswap_max(&mut self, size: ByteSize) -> &mut Self {
        self.put("memory.zswap.max", LimitValue::Bytes(size))
    }

    /// Whether the kernel kills all processes of the job when it has to kill one of them because it
    /// ran out of memory.
    #[doc(alias = "memory.oom.group")]
    pub fn memory_oom_group(&mut self, together: bool) -> &mut Self {
        self.put("memory.oom.group", LimitValue::Flag(together))
    }

    /// The job's share of disk time against its siblings, 1 to 10000; the kernel's default is 100.
    ///
    /// It has an effect only on a disk with the cost model (iocost) enabled or the BFQ scheduler;
    /// where there is neither, it is refused.
    #[doc(alias = "io.weight")]
    pub fn io_weight(&mut self, weight: u32) -> &mut Self {
        self.put(
            "io.weight",
            LimitValue::Weights { default: Some(weight), devices: BTreeMap::new() },
        )
    }

    /// The job's share of the time of one device.
    #[doc(alias = "io.weight")]
    pub fn io_weight_of(&mut self, device: Device, weight: u32) -> &mut Self {
        let devices = BTreeMap::from([(device, weight)]);
        self.put("io.weight", LimitValue::Weights { default: None, devices })
    }

    /// The rates at which the job may use a device.
    #[doc(alias = "io.max")]
    pub fn io_max(&mut self, device: Device, rates: IoRates) -> &mut Self {
        self.put("io.max", LimitValue::Rates(BTreeMap::from([(device, rates)])))
    }

    /// The latency that the job's requests to a device should have, at the expense of siblings with
    /// a higher one.
    #[doc(alias = "io.latency")]
    pub fn io_latency(&mut self, device: Device, target: Duration) -> &mut Self {
        self.put("io.latency", LimitValue::Latencies(BTreeMap::from([(device, target)])))
    }

    /// How many processes and threads the job may have at a time.
    #[doc(alias = "pids.max")]
    pub fn pids_max(&mut self, most: u32) -> &mut Self {
        self.put("pids.max", LimitValue::Count(Some(most)))
    }

    /// How much memory in huge pages of one size, such as `2MB` or `1GB`, the job may use.
    #[doc(alias = "hugetlb.2MB.max")]
    pub fn hugetlb_max(&mut self, page: &str, size: ByteSize) -> &mut Self {
        self.put(format!("hugetlb.{page}.max"), LimitValue::Bytes(size))
    }

    /// How deep the job may nest groups below its own; 0 allows none. The default is 32, and
    /// `set("cgroup.max.depth", "max")` lifts it.
    ///
    /// The kernel refuses what goes deeper with `EAGAIN`. A process that may write to the files of
    /// the job's own cgroup, as one of root or of the host's user can, is able to raise this.
    #[doc(alias = "cgroup.max.depth")]
    pub fn cgroup_max_depth(&mut self, most: u32) -> &mut Self {
        self.put("cgroup.max.depth", LimitValue::Count(Some(most)))
    }

    /// How many groups the job may make below its own, at any depth. The default is 256, and
    /// `set("cgroup.max.descendants", "max")` lifts it.
    ///
    /// The host lists the groups to signal and stop the job, and removes them when it ends, each in
    /// one go: for 256 groups either takes about 5 ms, for 10,000 about 200 ms. What is said of
    /// [`cgroup_max_depth`](Self::cgroup_max_depth) applies here too.
    #[doc(alias = "cgroup.max.descendants")]
    pub fn cgroup_max_descendants(&mut self, most: u32) -> &mut Self {
        self.put("cgroup.max.descendants", LimitValue::Count(Some(most)))
    }

    /// Any other interface file, such as `memory.reclaim`; what is read back is not compared with
    /// what was written.
    pub fn raw(&mut self, file: &str, value: &str) -> &mut Self {
        self.put(file.to_owned(), LimitValue::Text(value.to_owned()))
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
    /// let wrong = Limits::new().cpu_weight(0).validate();
    /// assert!(matches!(wrong, Err(InvalidLimit::Range { file: "cpu.weight", .. })));
    /// ```
    ///
    /// # Errors
    /// The first limit that no kernel would take.
    pub fn validate(&self) -> Result<(), InvalidLimit> {
        self.check().map(drop)
    }

    pub(super) fn put(
        &mut self,
        file: impl Into<Cow<'static, str>>,
        value: LimitValue,
    ) -> &mut Self {
        let file = file.into();
        let earlier = self.entries.iter().position(|(other, _)| *other == file);
        let value = match earlier.map(|place| self.entries.remove(place)) {
            Some((_, earlier)) => value.or_else(earlier),
            None => value,
        };
        self.entries.push((file, value));
        self
    }

    /// Adds what the kernel shows in a file of the table; `false` if it is not a value of it.
    pub(crate) fn put_shown(&mut self, row: &LimitFile, file: &str, content: &str) -> bool {
        let Some(value) = LimitValue::from_kernel(row.shape(), content) else { return false };
        let refused = row.unless().and_then(|flag| self.get(flag)) == Some(&LimitValue::Flag(true));
        if !refused && !value.is_unset() {
            self.put(file.to_owned(), value);
        }
        true
    }

    /// Like [`check`](Self::check), with the limits that a new job has by default.
    pub(crate) fn check_for_new(&self) -> Result<Vec<Setting>, InvalidLimit> {
        let mut settings = self.check()?;
        for (file, most) in DEFAULTS {
            if self.get(file).is_none() {
                settings.push(Setting::by_default(file, most));
            }
        }
        Ok(settings)
    }

    /// Gives the limits in the form in which the kernel takes them, or the first that no kernel
    /// would take.
    pub(crate) fn check(&self) -> Result<Vec<Setting>, InvalidLimit> {
        let mut settings = Vec::with_capacity(self.entries.len() + 1);
        for (file, value) in &self.entries {
            settings.push(Setting::check(file.clone(), value)?);
        }
        if self.get("memory.max").is_some() && self.get("memory.swap.max").is_none() {
            settings.push(Setting::no_swap());
        }
        Ok(settings)
    }
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
    fn a_memory_limit_takes_the_swap_away_unless_swap_is_set() {
        let files = |limits: &Limits| -> Vec<String> {
            limits
                .check()
                .unwrap()
                .into_iter()
                .map(|setting| format!("{}={}", setting.file(), setting.lines().join(";")))
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
        let values: Vec<String> = limits.check().unwrap().iter().flat_map(Setting::lines).collect();
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

    /// Something that the kernel may show, for each file of the table.
    const SHOWN: [(&str, &str); 21] = [
        ("cpu.idle", "1\n"),
        ("cpu.weight", "7\n"),
        ("cpu.weight.nice", "-5\n"),
        ("cpu.max", "50000 200000\n"),
        ("cpu.max.burst", "20000\n"),
        ("cpuset.cpus", "0-3,8\n"),
        ("cpuset.mems", "0\n"),
        ("memory.min", "4096\n"),
        ("memory.low", "8192\n"),
        ("memory.high", "1073741824\n"),
        ("memory.max", "max\n"),
        ("memory.swap.max", "0\n"),
        ("memory.zswap.max", "4096\n"),
        ("memory.oom.group", "1\n"),
        ("io.weight", "default 10\n8:0 20\n"),
        (
            "io.max",
            "8:0 rbps=max wbps=1073741824 riops=1000 wiops=max\n\
             8:16 rbps=5 wbps=max riops=max wiops=max\n",
        ),
        ("io.latency", "8:0 target=20000\n"),
        ("pids.max", "50\n"),
        ("hugetlb.<size>.max", "4194304\n"),
        ("cgroup.max.depth", "max\n"),
        ("cgroup.max.descendants", "3\n"),
    ];

    #[test]
    fn what_the_kernel_shows_can_be_set_again_and_shows_the_same() {
        let files: Vec<&str> = Limits::files().iter().map(LimitFile::name).collect();
        assert_eq!(SHOWN.map(|(file, _)| file), files[..], "every file of the table is here");
        for (name, content) in SHOWN {
            let file = name.replace("<size>", "2MB");
            let mut limits = Limits::new();
            assert!(limits.put_shown(LimitFile::find(&file).unwrap(), &file, content), "{file}");
            let settings = limits.check().unwrap();
            assert!(settings[0].is_shown_by(content), "{file}");
            assert_eq!(settings[0].lines().join("\n") + "\n", content, "{file}");
        }
    }

    #[test]
    fn what_the_kernel_shows_where_nothing_is_set_is_no_limit() {
        for (file, content) in [("cpuset.cpus", "\n"), ("io.max", ""), ("io.latency", "")] {
            let mut limits = Limits::new();
            assert!(limits.put_shown(LimitFile::find(file).unwrap(), file, content), "{file}");
            assert!(limits.is_empty(), "{file}");
        }
    }

    #[test]
    fn an_idle_group_has_no_weight_whatever_the_kernel_shows() {
        let shown = |limits: &mut Limits, file: &str, content: &str| {
            assert!(limits.put_shown(LimitFile::find(file).unwrap(), file, content));
        };
        // Older kernels show 0 and newer ones 1, and neither can be written.
        for (idle, weight, is_there) in
            [("1\n", "0\n", false), ("1\n", "1\n", false), ("0\n", "1\n", true)]
        {
            let mut limits = Limits::new();
            shown(&mut limits, "cpu.idle", idle);
            shown(&mut limits, "cpu.weight", weight);
            assert_eq!(limits.get("cpu.weight").is_some(), is_there, "{idle:?} {weight:?}");
        }
        let order = |file| Limits::files().iter().position(|row| row.name() == file);
        for row in Limits::files() {
            assert!(row.unless().is_none_or(|flag| order(flag) < order(row.name())), "{row:?}");
        }
    }

    #[test]
    fn content_that_no_kernel_shows_is_no_value() {
        for row in Limits::files() {
            for content in ["x\n", "8:0 x\n", "1 2 3\n", "-\n"] {
                assert!(!Limits::new().put_shown(row, row.name(), content), "{row:?} {content:?}");
            }
        }
    }

    #[test]
    fn a_text_sets_the_same_as_the_method() {
        let ms = Duration::from_millis;
        let disk = Device::new(8, 0);
        let mut by_method = Limits::new();
        by_method
            .cpu_idle(true)
            .cpu_weight(5)
            .cpu_weight_nice(-5)
            .cpu_max(ms(20), ms(100))
            .cpu_max_burst(ms(5))
            .cpuset_cpus("0-3,8")
            .memory_max(ByteSize::MAX)
            .io_weight(5)
            .io_weight_of(disk, 7)
            .io_max(
                disk,
                IoRates {
                    read_bytes: Some(ByteSize::from_bytes(2 << 20)),
                    writes: Some(100),
                    ..IoRates::default()
                },
            )
            .io_latency(disk, ms(10))
            .pids_max(9)
            .hugetlb_max("2MB", ByteSize::from_bytes(64 << 20))
            .cgroup_max_depth(3)
            .cgroup_max_descendants(0);
        let mut by_text = Limits::new();
        for (file, text) in [
            ("cpu.idle", "1"),
            ("cpu.weight", "5"),
            ("cpu.weight.nice", "-5"),
            ("cpu.max", "20%"),
            ("cpu.max.burst", "5ms"),
            ("cpuset.cpus", "0-3,8"),
            ("memory.max", "max"),
            ("io.weight", "5"),
            ("io.weight", "8:0=7"),
            ("io.max", "8:0=rbps:2M,wiops:100,wbps:max"),
            ("io.latency", "8:0=10ms"),
            ("pids.max", "9"),
            ("hugetlb.2MB.max", "64M"),
            ("cgroup.max.depth", "3"),
            ("cgroup.max.descendants", "0"),
        ] {
            by_text.set(file, text).unwrap();
        }
        assert_eq!(by_text, by_method);
    }

    #[test]
    fn a_text_that_is_no_value_changes_nothing() {
        let mut limits = Limits::new();
        for (file, text) in [
            ("cpu.weight", "many"),
            ("cpu.weight", "0"),
            ("cpu.idle", "yes"),
            ("cpu.max", "20"),
            ("cpu.max", "20%/2s"),
            ("cpu.max", "-5%"),
            ("cpu.max", "10ms/"),
            ("cpu.max.burst", "5"),
            ("cpuset.mems", "a"),
            ("memory.max", "12Q"),
            ("io.weight", "8=5"),
            ("io.weight", "8:0="),
            ("io.max", "8:0"),
            ("io.max", "8:0=speed:1"),
            ("io.max", "8:0=rbps:0"),
            ("io.latency", "8:0=0"),
            ("pids.max", ""),
            ("pids.max", "0"),
            ("hugetlb.2/MB.max", "1"),
            ("hugetlb.max", "1"),
            ("cgroup.max.depth", "4294967295"),
            ("cgroup.procs", "1"),
            ("misc.max", "none 1"),
        ] {
            assert!(limits.set(file, text).is_err(), "{file} {text}");
        }
        assert!(limits.is_empty());
    }
}
