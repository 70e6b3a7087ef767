//! Owns [`Stats`]: what a job has used and uses, from the interface files of its cgroup.
//!
//! Invariant: what the kernel does not report is `None`, never zero. The parsers are pure; knows
//! nothing of where the content comes from.

use std::time::Duration;

use crate::command::Device;
use crate::error::Result;
use crate::event::pressure::Pressure;

/// What a job has used, and uses, as the kernel accounts it for the job's cgroup and all cgroups
/// below it.
///
/// Each part needs its controller, except for the CPU time, which is always available, and the
/// pressure, which needs PSI.
///
/// ```
/// use jobworker::{Command, Reactor, Token};
///
/// let mut reactor = Reactor::new()?;
/// let job = reactor.spawn(Command::new("sleep").arg("1000").accounting(true), Token(0))?;
/// let stats = reactor.stats(job)?;
/// if let Some(cpu) = stats.cpu {
///     println!("{:?} of CPU time", cpu.user + cpu.system);
/// }
/// match stats.memory {
///     Some(memory) => println!("{} bytes of memory, at most {:?}", memory.current, memory.peak),
///     None => println!("no memory controller here"),
/// }
/// if let Some(pressure) = stats.memory_pressure {
///     println!("stalled for memory in {} % of the last 10 s", pressure.some.avg10);
/// }
/// # Ok::<(), jobworker::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Stats {
    /// CPU time.
    pub cpu: Option<CpuStats>,
    /// Memory.
    pub memory: Option<MemoryStats>,
    /// Input and output, by device.
    pub io: Option<Vec<IoStats>>,
    /// Processes.
    pub pids: Option<PidsStats>,
    /// Stalls for the processor.
    pub cpu_pressure: Option<Pressure>,
    /// Stalls for memory.
    pub memory_pressure: Option<Pressure>,
    /// Stalls for input and output.
    pub io_pressure: Option<Pressure>,
}

/// CPU time, of every process that was ever in the job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[doc(alias = "cpu.stat")]
#[non_exhaustive]
pub struct CpuStats {
    /// In user mode.
    pub user: Duration,
    /// In the kernel.
    pub system: Duration,
    /// How long the job was throttled by its [`cpu_max`](crate::Limits::cpu_max), which needs the
    /// cpu controller.
    pub throttled: Option<Duration>,
    /// The number of periods in which that happened.
    pub throttled_periods: Option<u64>,
}

/// Memory in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct MemoryStats {
    /// In use now, page cache and kernel memory included.
    pub current: u64,
    /// The largest amount that was in use; since Linux 5.19.
    pub peak: Option<u64>,
    /// Swap in use now.
    pub swap: Option<u64>,
    /// How often the job was throttled for being above
    /// [`memory_high`](crate::Limits::memory_high).
    pub high_events: u64,
    /// How often it was about to go above [`memory_max`](crate::Limits::memory_max).
    pub max_events: u64,
    /// How often the limit of the job, or of a cgroup below it, was reached with nothing left to
    /// reclaim.
    pub oom_events: u64,
    /// How many processes were killed because memory ran out, whichever limit was exceeded.
    pub oom_kills: u64,
}

/// Input and output of one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[doc(alias = "io.stat")]
#[non_exhaustive]
pub struct IoStats {
    /// The device.
    pub device: Device,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Read requests.
    pub reads: u64,
    /// Write requests.
    pub writes: u64,
}

/// Processes and threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct PidsStats {
    /// The current number.
    pub current: u64,
    /// The largest number there was; since Linux 6.1.
    pub peak: Option<u64>,
    /// The number of forks that [`pids_max`](crate::Limits::pids_max) has prevented.
    pub refused: u64,
}

impl Stats {
    /// Reads all there is, by a function that gives the content of an interface file, or `None`
    /// where there is none.
    ///
    /// Twelve files at most. `cpu.stat` and `io.stat` make the kernel collect its per-processor
    /// counters.
    pub(crate) fn collect(mut read: impl FnMut(&str) -> Result<Option<String>>) -> Result<Self> {
        let cpu = read("cpu.stat")?.map(|content| CpuStats::parse(&content));
        let memory = match (read("memory.current")?, read("memory.events")?) {
            (Some(current), Some(events)) => {
                let mut memory = MemoryStats {
                    current: number(&current).unwrap_or(0),
                    ..MemoryStats::default()
                };
                memory.take_events(&events);
                memory.peak = read("memory.peak")?.as_deref().and_then(number);
                memory.swap = read("memory.swap.current")?.as_deref().and_then(number);
                Some(memory)
            }
            _ => None,
        };
        let pids = match read("pids.current")? {
            Some(current) => Some(PidsStats {
                current: number(&current).unwrap_or(0),
                peak: read("pids.peak")?.as_deref().and_then(number),
                refused: read("pids.events")?.map_or(0, |events| keyed(&events, "max")),
            }),
            None => None,
        };
        let io =
            read("io.stat")?.map(|content| content.lines().filter_map(IoStats::parse).collect());
        let mut pressure = |file| -> Result<Option<Pressure>> {
            Ok(read(file)?.and_then(|content| content.parse().ok()))
        };
        let (cpu_pressure, memory_pressure) =
            (pressure("cpu.pressure")?, pressure("memory.pressure")?);
        let io_pressure = pressure("io.pressure")?;
        Ok(Self { cpu, memory, io, pids, cpu_pressure, memory_pressure, io_pressure })
    }
}

impl CpuStats {
    fn parse(content: &str) -> Self {
        Self {
            user: Duration::from_micros(keyed(content, "user_usec")),
            system: Duration::from_micros(keyed(content, "system_usec")),
            throttled: find(content, "throttled_usec").map(Duration::from_micros),
            throttled_periods: find(content, "nr_throttled"),
        }
    }
}

impl MemoryStats {
    fn take_events(&mut self, events: &str) {
        self.high_events = keyed(events, "high");
        self.max_events = keyed(events, "max");
        self.oom_events = keyed(events, "oom");
        self.oom_kills = keyed(events, "oom_kill");
    }
}

impl IoStats {
    /// A line such as `8:16 rbytes=1459200 wbytes=314773504 rios=192 wios=353 dbytes=0 dios=0`.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let device = words.next()?.parse().ok()?;
        let field = |name: &str| {
            let value =
                line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            value.and_then(number).unwrap_or(0)
        };
        Some(Self {
            device,
            read_bytes: field("rbytes"),
            written_bytes: field("wbytes"),
            reads: field("rios"),
            writes: field("wios"),
        })
    }
}

/// The value of a key in a file with a key and a value on each line; zero when it is not there.
pub(crate) fn keyed(content: &str, key: &str) -> u64 {
    find(content, key).unwrap_or(0)
}

fn find(content: &str, key: &str) -> Option<u64> {
    content.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')).and_then(number)
}

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_is_is_parsed_and_what_is_not_is_none() {
        let files = [
            (
                "cpu.stat",
                "usage_usec 30\nuser_usec 10\nsystem_usec 20\nnr_throttled 2\nthrottled_usec 7\n",
            ),
            ("memory.current", "4096\n"),
            ("memory.events", "low 0\nhigh 3\nmax 4\noom 1\noom_kill 2\noom_group_kill 0\n"),
            ("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n253:0 \n"),
            ("cpu.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=5\n"),
        ];
        let content = |name: &str| {
            files.iter().find(|(file, _)| *file == name).map(|(_, content)| (*content).to_owned())
        };
        let stats = Stats::collect(|name| Ok(content(name))).unwrap();
        let cpu = stats.cpu.unwrap();
        assert_eq!((cpu.user.as_micros(), cpu.system.as_micros()), (10, 20));
        assert_eq!((cpu.throttled.unwrap().as_micros(), cpu.throttled_periods), (7, Some(2)));
        let cpu = CpuStats::parse("usage_usec 30\nuser_usec 10\nsystem_usec 20\n");
        assert_eq!((cpu.throttled, cpu.throttled_periods), (None, None));
        let memory = stats.memory.unwrap();
        assert_eq!(
            (memory.current, memory.peak, memory.oom_events, memory.oom_kills),
            (4096, None, 1, 2)
        );
        let io = stats.io.unwrap();
        assert_eq!((io.len(), io[0].read_bytes, io[0].writes, io[1].reads), (2, 1, 4, 0));
        assert_eq!(stats.cpu_pressure.unwrap().some.total.as_micros(), 5);
        assert_eq!((stats.pids, stats.memory_pressure), (None, None));
    }
}
