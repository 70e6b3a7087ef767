//! Owns [`LimitValue`], the value of one limit, and everything that is done with a value by its
//! shape: check, parse, write, compare.
//!
//! Invariant: pure; what [`LimitValue::lines`] writes, [`LimitValue::from_kernel`] parses to the
//! same value. Knows what the kernel does to a value, not where it is kept.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::command::files::{LimitFile, Shape};
use crate::command::units::{ByteSize, Device, digits, parse_time};
use crate::error::InvalidLimit;

/// The rates at which a job may use a device; what is `None` is not limited.
///
/// ```
/// use jobworker::{ByteSize, Device, IoRates, Limits};
///
/// let mut rates = IoRates::default();
/// rates.read_bytes = Some(ByteSize::from_mib(2));
/// let mut limits = Limits::new();
/// limits.io_max(Device::new(259, 0), rates);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
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

/// The value of one limit, as [`Limits::get`](crate::Limits::get) gives it.
///
/// ```
/// use jobworker::{ByteSize, LimitValue, Limits};
///
/// let mut limits = Limits::new();
/// limits.memory_max(ByteSize::from_mib(100)).set("pids.max", "max")?;
/// assert_eq!(limits.get("memory.max"), Some(&LimitValue::Bytes(ByteSize::from_mib(100))));
/// assert_eq!(limits.get("pids.max"), Some(&LimitValue::Count(None)));
/// # Ok::<(), jobworker::InvalidLimit>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum LimitValue {
    /// A share against siblings, as in `cpu.weight`.
    Weight(u32),
    /// A share in the terms of nice(2), as in `cpu.weight.nice`.
    Nice(i32),
    /// On or off, as in `cpu.idle`.
    Flag(bool),
    /// How many of something, as in `pids.max`; `None` is not limited.
    Count(Option<u32>),
    /// A size, as in `memory.max`; [`ByteSize::MAX`] is not limited.
    Bytes(ByteSize),
    /// A time, as in `cpu.max.burst`; the kernel counts in microseconds.
    Time(Duration),
    /// CPU time per period, as in `cpu.max`.
    Quota {
        /// The CPU time in each period; `None` is not limited.
        quota: Option<Duration>,
        /// The period.
        period: Duration,
    },
    /// A list of numbers and ranges, as in `cpuset.cpus`.
    List(String),
    /// Weights of devices, as in `io.weight`.
    Weights {
        /// The weight on devices that have none of their own.
        default: Option<u32>,
        /// The weights on single devices.
        devices: BTreeMap<Device, u32>,
    },
    /// Rates on devices, as in `io.max`.
    Rates(BTreeMap<Device, IoRates>),
    /// Latencies that requests to devices should have, as in `io.latency`.
    Latencies(BTreeMap<Device, Duration>),
    /// What was given to [`Limits::raw`](crate::Limits::raw).
    Text(String),
}

/// The periods of a CPU quota that the kernel takes, in microseconds.
const PERIODS: (i128, i128) = (1_000, 1_000_000);
/// The period of a CPU quota that is given without one; it is the kernel's default too.
const PERIOD: Duration = Duration::from_millis(100);

impl LimitValue {
    /// Parses what a user writes; see [`Limits::set`](crate::Limits::set).
    pub(crate) fn from_text(shape: Shape, text: &str) -> Result<Self, Unparsed> {
        let number = || text.parse().ok();
        Ok(match shape {
            Shape::Weight => Self::Weight(number().ok_or("a number")?),
            Shape::Nice => Self::Nice(text.parse().map_err(|_| "a number")?),
            Shape::Flag => Self::Flag(flag(text).ok_or("0 or 1")?),
            Shape::Count if text == "max" => Self::Count(None),
            Shape::Count => Self::Count(Some(number().ok_or("a number or max")?)),
            Shape::Bytes if text == "max" => Self::Bytes(ByteSize::MAX),
            Shape::Bytes => Self::Bytes(text.parse()?),
            Shape::Time => Self::Time(time(text)?),
            Shape::Quota => {
                let (quota, period) = match text.split_once('/') {
                    Some((quota, period)) => (quota, time(period)?),
                    None => (text, PERIOD),
                };
                let quota = match quota.strip_suffix('%') {
                    Some(percent) => Some(share(percent, period).ok_or("a percentage")?),
                    None if quota == "max" => None,
                    None => Some(time(quota)?),
                };
                Self::Quota { quota, period }
            }
            Shape::List => Self::List(text.to_owned()),
            Shape::Weights => {
                let weight = |text: &str| text.parse::<u32>().map_err(|_| "a number");
                match text.split_once('=') {
                    Some((device, text)) => Self::Weights {
                        default: None,
                        devices: BTreeMap::from([(device.parse()?, weight(text)?)]),
                    },
                    None => {
                        Self::Weights { default: Some(weight(text)?), devices: BTreeMap::new() }
                    }
                }
            }
            Shape::Rates => {
                let form = "DEVICE=RATES, as in 259:0=rbps:2M,wiops:100";
                let (device, list) = text.split_once('=').ok_or(form)?;
                let mut rates = IoRates::default();
                for item in list.split(',') {
                    rates.set(item.split_once(':').ok_or(form)?)?;
                }
                Self::Rates(BTreeMap::from([(device.parse()?, rates)]))
            }
            Shape::Latencies => {
                let (device, target) = text.split_once('=').ok_or("DEVICE=TIME, as in 8:0=10ms")?;
                Self::Latencies(BTreeMap::from([(device.parse()?, time(target)?)]))
            }
        })
    }

    /// Whether this is a value for a file of this shape; a file that is not in the table has none.
    #[cfg(feature = "serde")]
    pub(super) fn fits(&self, shape: Option<Shape>) -> bool {
        let own = match self {
            Self::Weight(_) => Shape::Weight,
            Self::Nice(_) => Shape::Nice,
            Self::Flag(_) => Shape::Flag,
            Self::Count(_) => Shape::Count,
            Self::Bytes(_) => Shape::Bytes,
            Self::Time(_) => Shape::Time,
            Self::Quota { .. } => Shape::Quota,
            Self::List(_) => Shape::List,
            Self::Weights { .. } => Shape::Weights,
            Self::Rates(_) => Shape::Rates,
            Self::Latencies(_) => Shape::Latencies,
            Self::Text(_) => return true,
        };
        shape == Some(own)
    }

    /// Parses what the kernel shows in a file of this shape; `None` if it is something else.
    pub(crate) fn from_kernel(shape: Shape, content: &str) -> Option<Self> {
        let line = content.trim_end();
        Some(match shape {
            Shape::Weight => Self::Weight(line.parse().ok()?),
            Shape::Nice => Self::Nice(line.parse().ok()?),
            Shape::Flag => Self::Flag(flag(line)?),
            Shape::Count => Self::Count(or_max(line)?),
            Shape::Bytes => Self::Bytes(or_max(line)?.map_or(ByteSize::MAX, ByteSize::from_bytes)),
            Shape::Time => Self::Time(Duration::from_micros(line.parse().ok()?)),
            Shape::Quota => {
                let (quota, period) = line.split_once(' ')?;
                Self::Quota {
                    quota: or_max(quota)?.map(Duration::from_micros),
                    period: Duration::from_micros(period.parse().ok()?),
                }
            }
            Shape::List => {
                if !line.is_empty() {
                    ranges(line)?;
                }
                Self::List(line.to_owned())
            }
            Shape::Weights => {
                let (mut default, mut devices) = (None, BTreeMap::new());
                for line in content.lines() {
                    match line.split_once(' ') {
                        Some(("default", weight)) => default = Some(weight.parse().ok()?),
                        Some((device, weight)) => {
                            devices.insert(device.parse().ok()?, weight.parse().ok()?);
                        }
                        // Of BFQ in older kernels.
                        None => default = Some(line.parse().ok()?),
                    }
                }
                Self::Weights { default, devices }
            }
            Shape::Rates => Self::Rates(of_devices(content, |words| {
                let mut rates = IoRates::default();
                for word in words {
                    rates.set_exactly(word.split_once('=')?)?;
                }
                Some(rates)
            })?),
            Shape::Latencies => Self::Latencies(of_devices(content, |mut words| {
                let target = words.next()?.strip_prefix("target=")?;
                Some(Duration::from_micros(target.parse().ok()?))
            })?),
        })
    }

    /// Checks the value by the range of its file.
    pub(crate) fn check(&self, file: &LimitFile) -> Result<(), InvalidLimit> {
        let within = |value: i128, (least, most): (i128, i128)| {
            if (least..=most).contains(&value) {
                Ok(())
            } else {
                Err(InvalidLimit::Range { file: file.name(), value, least, most })
            }
        };
        let range = file.range();
        match self {
            Self::Weight(weight) => within(i128::from(*weight), range),
            Self::Nice(nice) => within(i128::from(*nice), range),
            Self::Count(Some(count)) => within(i128::from(*count), range),
            Self::Time(time) => within(micros(*time), range),
            Self::Quota { quota, period } => {
                quota.map_or(Ok(()), |quota| within(micros(quota), range))?;
                within(micros(*period), PERIODS)
            }
            Self::List(list) => match ranges(list) {
                Some(_) => Ok(()),
                None => Err(InvalidLimit::List { file: file.name(), text: list.clone() }),
            },
            Self::Weights { default, devices } => default
                .iter()
                .chain(devices.values())
                .try_for_each(|weight| within(i128::from(*weight), range)),
            Self::Rates(devices) => devices
                .values()
                .flat_map(|rates| rates.named().into_iter().filter_map(|(_, rate)| rate))
                .try_for_each(|rate| within(i128::from(rate), range)),
            Self::Latencies(devices) => {
                devices.values().try_for_each(|target| within(micros(*target), range))
            }
            Self::Flag(_) | Self::Count(None) | Self::Bytes(_) | Self::Text(_) => Ok(()),
        }
    }

    /// What to write into the file, each line by a write of its own.
    pub(crate) fn lines(&self) -> Vec<String> {
        match self {
            Self::Weight(weight) => vec![weight.to_string()],
            Self::Nice(nice) => vec![nice.to_string()],
            Self::Flag(on) => vec![u8::from(*on).to_string()],
            Self::Count(count) => vec![max_or(count.map(u64::from))],
            Self::Bytes(size) => {
                vec![max_or((*size != ByteSize::MAX).then_some(size.as_bytes()))]
            }
            Self::Time(time) => vec![micros(*time).to_string()],
            Self::Quota { quota: None, period } => vec![format!("max {}", micros(*period))],
            Self::Quota { quota: Some(quota), period } => {
                vec![format!("{} {}", micros(*quota), micros(*period))]
            }
            Self::List(text) | Self::Text(text) => vec![text.clone()],
            Self::Weights { default, devices } => {
                let default = default.map(|weight| format!("default {weight}"));
                let single = devices.iter().map(|(device, weight)| format!("{device} {weight}"));
                default.into_iter().chain(single).collect()
            }
            Self::Rates(devices) => devices
                .iter()
                .map(|(device, rates)| {
                    let rates =
                        rates.named().map(|(name, rate)| format!("{name}={}", max_or(rate)));
                    format!("{device} {}", rates.join(" "))
                })
                .collect(),
            Self::Latencies(devices) => devices
                .iter()
                .map(|(device, target)| format!("{device} target={}", micros(*target)))
                .collect(),
        }
    }

    /// Whether the kernel, when it shows `found`, has taken this value: sizes are kept in whole
    /// pages, lists are rewritten, and other devices keep what they had.
    pub(crate) fn is_kept_as(&self, found: &Self, page: u64) -> bool {
        match (self, found) {
            (Self::Bytes(size), Self::Bytes(found)) => in_pages(*size, page) == *found,
            (Self::Time(time), Self::Time(found)) => micros(*time) == micros(*found),
            (
                Self::Quota { quota, period },
                Self::Quota { quota: found_quota, period: found_period },
            ) => {
                quota.map(micros) == found_quota.map(micros)
                    && micros(*period) == micros(*found_period)
            }
            (Self::List(list), Self::List(found)) => {
                ranges(list).is_some_and(|wanted| ranges(found) == Some(wanted))
            }
            (
                Self::Weights { default, devices },
                Self::Weights { default: found_default, devices: found_devices },
            ) => {
                default.is_none_or(|weight| *found_default == Some(weight))
                    && devices.iter().all(|(device, weight)| {
                        // The kernel forgets a device's own weight when it is the default.
                        found_devices.get(device).or(found_default.as_ref()) == Some(weight)
                    })
            }
            // There is no line for a device that is not limited.
            (Self::Rates(devices), Self::Rates(found)) => devices
                .iter()
                .all(|(device, rates)| found.get(device).copied().unwrap_or_default() == *rates),
            (Self::Latencies(devices), Self::Latencies(found)) => {
                devices.iter().all(|(device, target)| {
                    found.get(device).is_some_and(|found| micros(*found) == micros(*target))
                })
            }
            (wanted, found) => wanted == found,
        }
    }

    /// Whether this is what the kernel shows where nothing is set, and cannot be set.
    pub(crate) fn is_unset(&self) -> bool {
        match self {
            Self::List(list) => list.is_empty(),
            Self::Rates(devices) => devices.is_empty(),
            Self::Latencies(devices) => devices.is_empty(),
            Self::Weights { default, devices } => default.is_none() && devices.is_empty(),
            _ => false,
        }
    }

    /// Adds what a later value for the same file leaves as it is: other devices.
    pub(crate) fn or_else(self, earlier: Self) -> Self {
        match (earlier, self) {
            (
                Self::Weights { default, mut devices },
                Self::Weights { default: later_default, devices: later },
            ) => {
                devices.extend(later);
                Self::Weights { default: later_default.or(default), devices }
            }
            (Self::Rates(mut devices), Self::Rates(later)) => {
                devices.extend(later);
                Self::Rates(devices)
            }
            (Self::Latencies(mut devices), Self::Latencies(later)) => {
                devices.extend(later);
                Self::Latencies(devices)
            }
            (_, later) => later,
        }
    }
}

impl IoRates {
    /// The rates by the names that the kernel gives them.
    fn named(&self) -> [(&'static str, Option<u64>); 4] {
        let bytes = |size: Option<ByteSize>| size.map(ByteSize::as_bytes);
        [
            ("rbps", bytes(self.read_bytes)),
            ("wbps", bytes(self.write_bytes)),
            ("riops", self.reads),
            ("wiops", self.writes),
        ]
    }

    /// Sets one rate as a user writes it, with the suffixes of a size where it is one.
    fn set(&mut self, (name, rate): (&str, &str)) -> Result<(), Unparsed> {
        let bytes = matches!(name, "rbps" | "wbps") && rate != "max";
        let size =
            if bytes { rate.parse::<ByteSize>()?.as_bytes().to_string() } else { rate.into() };
        let known = "one of the rates rbps, wbps, riops and wiops, with a number or max";
        Ok(self.set_exactly((name, &size)).ok_or(known)?)
    }

    /// Sets one rate as the kernel writes it.
    fn set_exactly(&mut self, (name, rate): (&str, &str)) -> Option<()> {
        let rate = or_max::<u64>(rate)?;
        match name {
            "rbps" => self.read_bytes = rate.map(ByteSize::from_bytes),
            "wbps" => self.write_bytes = rate.map(ByteSize::from_bytes),
            "riops" => self.reads = rate,
            "wiops" => self.writes = rate,
            _ => return None,
        }
        Some(())
    }
}

/// Why a text is no value.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unparsed {
    /// It has to be this.
    Expected(&'static str),
    /// A part of it is no size or device.
    Part(InvalidLimit),
}

impl From<&'static str> for Unparsed {
    fn from(expected: &'static str) -> Self {
        Self::Expected(expected)
    }
}

impl From<InvalidLimit> for Unparsed {
    fn from(part: InvalidLimit) -> Self {
        Self::Part(part)
    }
}

fn time(text: &str) -> Result<Duration, Unparsed> {
    let form = "a time with its unit, us, ms or s, as in 150ms";
    parse_time(text).ok_or(Unparsed::Expected(form))
}

/// A percentage of a period.
fn share(percent: &str, period: Duration) -> Option<Duration> {
    let percent: f64 = percent.parse().ok()?;
    Duration::try_from_secs_f64(period.as_secs_f64() * percent / 100.0).ok()
}

fn flag(text: &str) -> Option<bool> {
    match text {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    }
}

fn micros(time: Duration) -> i128 {
    i128::try_from(time.as_micros()).unwrap_or(i128::MAX)
}

fn max_or(number: Option<u64>) -> String {
    number.map_or_else(|| "max".to_owned(), |number| number.to_string())
}

/// A number, or `None` for `max`.
fn or_max<T: std::str::FromStr>(text: &str) -> Option<Option<T>> {
    if text == "max" { Some(None) } else { text.parse().ok().map(Some) }
}

/// The lines of a file that has one for each device.
fn of_devices<T>(
    content: &str,
    parse: impl Fn(std::str::SplitWhitespace<'_>) -> Option<T>,
) -> Option<BTreeMap<Device, T>> {
    let of_device = |line: &str| {
        let mut words = line.split_whitespace();
        Some((words.next()?.parse().ok()?, parse(words)?))
    };
    content.lines().map(of_device).collect()
}

/// The kernel counts in pages and keeps whole ones; past the largest count it does not limit.
fn in_pages(size: ByteSize, page: u64) -> ByteSize {
    let most = i64::MAX as u64 / page;
    if size.as_bytes() / page >= most {
        ByteSize::MAX
    } else {
        ByteSize::from_bytes(size.as_bytes() / page * page)
    }
}

/// The numbers of a list such as `0-3,8`, as ranges that do not touch; `None` if it is none.
pub(crate) fn ranges(list: &str) -> Option<Vec<(u32, u32)>> {
    let mut found: Vec<(u32, u32)> = Vec::new();
    for item in list.split(',') {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        let (first, last) = (digits(first)?, digits(last)?);
        if first > last {
            return None;
        }
        found.push((first, last));
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
