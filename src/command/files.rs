//! Owns [`LimitFile`] and the one table of them: the interface files of a cgroup that hold limits.
//!
//! Invariant: whatever differs from file to file is said here and nowhere else. From the table are
//! derived how values are checked, written, read back, compared and parsed from text, what an error
//! suggests, which controllers a system is probed for, and the command-line flags of the examples.
//! A new limit is a row here and a setter in [`Limits`](crate::Limits). Knows nothing of where the
//! files are.

/// An interface file of a cgroup that holds a limit, as [`Limits::files`](crate::Limits::files)
/// lists it.
///
/// ```
/// use jobworker::Limits;
///
/// let file = Limits::files().iter().find(|file| file.name() == "memory.max").unwrap();
/// assert_eq!((file.controller(), file.syntax()), ("memory", "SIZE"));
/// ```
#[derive(Debug, PartialEq, Eq)]
pub struct LimitFile {
    name: &'static str,
    shape: Shape,
    /// The least and the greatest value, in the file's own unit, where it has one number.
    range: (i128, i128),
    /// Whether another file of the table shows the same setting, and shows it exactly.
    duplicate: bool,
    /// A flag of the table which, when it is set, makes the kernel refuse this file.
    unless: Option<&'static str>,
    help: &'static str,
    needs: &'static str,
}

/// What an interface file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A share against siblings.
    Weight,
    /// A share in the terms of nice(2).
    Nice,
    /// 0 or 1.
    Flag,
    /// How many of something, or `max`.
    Count,
    /// Bytes in whole pages, or `max`. The pages are those of the machine, or of the size that the
    /// file's name has.
    Bytes,
    /// A time in microseconds.
    Time,
    /// A quota, or `max`, and its period, both in microseconds.
    Quota,
    /// Numbers and ranges of them.
    List,
    /// A default weight and those of single devices, each on its line.
    Weights,
    /// Rates, each device on its line.
    Rates,
    /// A target for the latency, each device on its line.
    Latencies,
}

/// The range of values that have none of their own.
const ANY: (i128, i128) = (0, u64::MAX as i128);
/// A weight is in this range; the kernel's default is 100.
const WEIGHT: (i128, i128) = (1, 10_000);
/// A time that the kernel multiplies by 1000 and keeps in 64 bits, in microseconds.
const MICROS: i128 = u32::MAX as i128 * 1_000;

/// What is said of a file that is not in the table.
const UNKNOWN: &str = "it may be of a newer kernel, of another configuration, or misspelt";
/// What is said of a file that every kernel with the controller has.
const ALWAYS: &str = "every kernel with this controller should have it";

/// In this order they are read back, and so set again. It matters where one bounds another, as the
/// quota bounds its burst, or excludes it: an idle group takes no weight.
static FILES: [LimitFile; 21] = [
    row(
        "cpu.idle",
        Shape::Flag,
        ANY,
        "it takes Linux 5.15",
        "Run only when nothing else wants the CPU",
    ),
    LimitFile {
        unless: Some("cpu.idle"),
        ..row(
            "cpu.weight",
            Shape::Weight,
            WEIGHT,
            ALWAYS,
            "Share of the CPU against other jobs, 1 to 10000",
        )
    },
    LimitFile {
        duplicate: true,
        ..row(
            "cpu.weight.nice",
            Shape::Nice,
            (-20, 19),
            ALWAYS,
            "The same as a nice value, -20 to 19",
        )
    },
    row(
        "cpu.max",
        Shape::Quota,
        (1_000, MICROS),
        "it takes CONFIG_CFS_BANDWIDTH",
        "CPU time in each period: 20% is a fifth of one processor, 150% is one and a half, \
         150ms/100ms the same in times; the period is 100ms unless given, and 1s at most",
    ),
    row(
        "cpu.max.burst",
        Shape::Time,
        (0, MICROS),
        "it takes Linux 5.14 and CONFIG_CFS_BANDWIDTH",
        "Unused quota that may be saved up, such as 50ms",
    ),
    row("cpuset.cpus", Shape::List, ANY, ALWAYS, "Processors that may be used, such as 0-3,8"),
    row("cpuset.mems", Shape::List, ANY, ALWAYS, "Memory nodes that may be used, such as 0,1"),
    row("memory.min", Shape::Bytes, ANY, ALWAYS, "Memory that is never reclaimed"),
    row(
        "memory.low",
        Shape::Bytes,
        ANY,
        ALWAYS,
        "Memory that is reclaimed only when others have none to give",
    ),
    row(
        "memory.high",
        Shape::Bytes,
        ANY,
        ALWAYS,
        "Memory above which the job is slowed down, such as 100M",
    ),
    row(
        "memory.max",
        Shape::Bytes,
        ANY,
        ALWAYS,
        "Memory above which the job is killed; unless memory.swap.max is set, it gets no swap",
    ),
    row(
        "memory.swap.max",
        Shape::Bytes,
        ANY,
        "it takes CONFIG_SWAP",
        "Swap, or max for as much as there is",
    ),
    row(
        "memory.zswap.max",
        Shape::Bytes,
        ANY,
        "it takes Linux 5.19 and CONFIG_ZSWAP",
        "Memory of compressed swap",
    ),
    row(
        "memory.oom.group",
        Shape::Flag,
        ANY,
        "it takes Linux 4.19",
        "Kill all of the job when one process is killed because it ran out of memory",
    ),
    row(
        "io.weight",
        Shape::Weights,
        WEIGHT,
        "it takes CONFIG_BLK_CGROUP_IOCOST",
        "Share of disk time against other jobs, 1 to 10000, of all devices or of one",
    ),
    row(
        "io.max",
        Shape::Rates,
        (1, u64::MAX as i128),
        "it takes CONFIG_BLK_DEV_THROTTLING",
        "Rates per second at which a device may be used: rbps, wbps (bytes), riops, wiops \
         (requests), such as 259:0=rbps:2M,wiops:100; a device is not a partition",
    ),
    row(
        "io.latency",
        Shape::Latencies,
        (1, MICROS),
        "it takes CONFIG_BLK_CGROUP_IOLATENCY",
        "Latency that requests should have, such as 8:0=10ms",
    ),
    // The kernel's PIDS_MAX on 64-bit machines is one more than its largest pid.
    row("pids.max", Shape::Count, (1, 4_194_304), ALWAYS, "Processes and threads at a time"),
    row(
        "hugetlb.<size>.max",
        Shape::Bytes,
        ANY,
        "/sys/kernel/mm/hugepages lists the page sizes of this machine",
        "Memory in huge pages of one size, such as 2MB=64M",
    ),
    row(
        "cgroup.max.depth",
        Shape::Count,
        (0, i32::MAX as i128),
        "it takes Linux 4.14",
        "How deep the job may nest groups below its own",
    ),
    row(
        "cgroup.max.descendants",
        Shape::Count,
        (0, i32::MAX as i128),
        "it takes Linux 4.14",
        "How many groups the job may make below its own",
    ),
];

const fn row(
    name: &'static str,
    shape: Shape,
    range: (i128, i128),
    needs: &'static str,
    help: &'static str,
) -> LimitFile {
    LimitFile { name, shape, range, duplicate: false, unless: None, help, needs }
}

impl LimitFile {
    /// All of the table.
    pub(crate) fn all() -> &'static [Self] {
        &FILES
    }

    /// The row of a file, by the name that the kernel gives it.
    pub(crate) fn find(file: &str) -> Option<&'static Self> {
        FILES.iter().find(|row| row.names(file))
    }

    /// What it takes to have a file, in the table or not.
    pub(crate) fn needs(file: &str) -> &'static str {
        Self::find(file).map_or(UNKNOWN, |row| row.needs)
    }

    /// The name of the file, such as `memory.max`. A part in angle brackets stands for something
    /// that differs from machine to machine, as in `hugetlb.<size>.max`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The controller that the limit needs, such as `memory`, or `cgroup` for what needs none.
    #[must_use]
    pub fn controller(&self) -> &'static str {
        self.name.split_once('.').map_or(self.name, |(controller, _)| controller)
    }

    /// How [`Limits::set`](crate::Limits::set) takes a value, in a form for a help text, such as
    /// `SIZE` or `DEVICE=TIME`.
    #[must_use]
    pub fn syntax(&self) -> &'static str {
        match self.shape {
            Shape::Weight | Shape::Nice | Shape::Count => "N",
            Shape::Flag => "0|1",
            Shape::Bytes => "SIZE",
            Shape::Time => "TIME",
            Shape::Quota => "QUOTA[/PERIOD]",
            Shape::List => "LIST",
            Shape::Weights => "[DEVICE=]N",
            Shape::Rates => "DEVICE=RATES",
            Shape::Latencies => "DEVICE=TIME",
        }
    }

    /// One sentence about the limit, for a help text.
    #[must_use]
    pub fn help(&self) -> &'static str {
        self.help
    }

    /// Whether the limit is either on or off.
    #[must_use]
    pub fn is_flag(&self) -> bool {
        self.shape == Shape::Flag
    }

    /// Whether the limit can be set for each device apart, and so more than once.
    #[must_use]
    pub fn is_per_device(&self) -> bool {
        matches!(self.shape, Shape::Weights | Shape::Rates | Shape::Latencies)
    }

    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    pub(crate) fn range(&self) -> (i128, i128) {
        self.range
    }

    pub(crate) fn unless(&self) -> Option<&'static str> {
        self.unless
    }

    /// Whether the file is read to find out what the limits are.
    pub(crate) fn is_read_back(&self) -> bool {
        !self.duplicate
    }

    /// Whether this is the row of a file.
    pub(crate) fn names(&self, file: &str) -> bool {
        self.name == file || self.part(file).is_some()
    }

    /// What stands in a file's name where the row's has angle brackets.
    pub(crate) fn part<'a>(&self, file: &'a str) -> Option<&'a str> {
        let (before, rest) = self.name.split_once('<')?;
        let (_, after) = rest.split_once('>')?;
        let part = file.strip_prefix(before)?.strip_suffix(after)?;
        (!part.is_empty() && !part.contains('.')).then_some(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_file_has_one_row() {
        let names: HashSet<&str> = FILES.iter().map(LimitFile::name).collect();
        assert_eq!(names.len(), FILES.len());
        for row in &FILES {
            let file = row.name.replace("<size>", "2MB");
            assert_eq!(FILES.iter().filter(|row| row.names(&file)).count(), 1, "{file}");
        }
    }

    #[test]
    fn a_page_size_stands_for_one_part_of_a_name() {
        let part = |file| LimitFile::find(file).and_then(|row| row.part(file));
        assert_eq!(part("hugetlb.64KB.max"), Some("64KB"));
        // Reserved huge pages have a limit of their own.
        for file in ["hugetlb.2MB.rsvd.max", "hugetlb.2MB.current", "hugetlb..max", "hugetlb.max"] {
            assert_eq!((part(file), LimitFile::find(file)), (None, None), "{file}");
        }
        assert!(LimitFile::find("memory.max").is_some_and(|row| row.part("memory.max").is_none()));
    }

    #[test]
    fn each_row_says_how_it_is_written_and_what_it_is_for() {
        let helps: HashSet<&str> = FILES.iter().map(LimitFile::help).collect();
        assert_eq!(helps.len(), FILES.len());
        for (file, syntax, per_device) in [
            ("cpu.weight", "N", false),
            ("cpu.idle", "0|1", false),
            ("cpu.max", "QUOTA[/PERIOD]", false),
            ("cpuset.cpus", "LIST", false),
            ("memory.max", "SIZE", false),
            ("io.weight", "[DEVICE=]N", true),
            ("io.max", "DEVICE=RATES", true),
            ("io.latency", "DEVICE=TIME", true),
        ] {
            let row = LimitFile::find(file).unwrap();
            assert_eq!((row.syntax(), row.is_per_device()), (syntax, per_device), "{file}");
            assert!(row.help().len() > 10 && LimitFile::needs(file) == row.needs, "{file}");
        }
        assert_eq!(LimitFile::needs("no.such"), UNKNOWN);
        // Two files for one limit: what is read is the one that says all.
        let read = |file| LimitFile::find(file).unwrap().is_read_back();
        assert!(read("cpu.weight") && !read("cpu.weight.nice"));
    }
}
