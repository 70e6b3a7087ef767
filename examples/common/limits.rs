//! Every limit of a job as a flag of the command line.
//!
//! Invariant: a flag is one row of [`FLAGS`], which says how it reads and which setter of
//! [`Limits`] it stands for. A value that no kernel would take is a usage error that names the
//! flag, before anything is created.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use jobworker::{ByteSize, Device, IoRates, Limits};

/// The limits that the flags have asked for.
pub(crate) struct LimitFlags(pub(crate) Limits);

struct Flag {
    name: &'static str,
    kind: Kind,
    help: &'static str,
    set: fn(&mut Limits, &str) -> anyhow::Result<()>,
}

/// Whether a flag takes a value, which is called so in the help, and how often it may be given.
enum Kind {
    Switch,
    Once(&'static str),
    Often(&'static str),
}
use Kind::{Often, Once, Switch};

const fn flag(
    name: &'static str,
    kind: Kind,
    help: &'static str,
    set: fn(&mut Limits, &str) -> anyhow::Result<()>,
) -> Flag {
    Flag { name, kind, help, set }
}

/// In this order they are set, which matters where one bounds another, as the quota bounds its
/// burst.
const FLAGS: [Flag; 20] = [
    flag(
        "cpu-weight",
        Once("N"),
        "Share of the CPU against other jobs, 1 to 10000",
        |limits, text| done(limits.cpu_weight(text.parse()?)),
    ),
    flag("cpu-weight-nice", Once("N"), "The same as a nice value, -20 to 19", |limits, text| {
        done(limits.cpu_weight_nice(text.parse()?))
    }),
    flag(
        "cpu-max",
        Once("QUOTA[/PERIOD]"),
        "CPU time in each period: 20% is a fifth of one processor, 150% is one and a half, 150ms/100ms the same in \
         times; the period is 100ms unless given, and 1s at most",
        |limits, text| {
            let (quota, period) = text.split_once('/').unwrap_or((text, "100ms"));
            let period = duration(period)?;
            let quota = match quota.strip_suffix('%') {
                Some(percent) => Duration::try_from_secs_f64(
                    period.as_secs_f64() * percent.parse::<f64>()? / 100.0,
                )?,
                None => duration(quota)?,
            };
            done(limits.cpu_max(quota, period))
        },
    ),
    flag(
        "cpu-max-burst",
        Once("TIME"),
        "Unused quota that may be saved up, such as 50ms",
        |limits, text| done(limits.cpu_max_burst(duration(text)?)),
    ),
    flag("cpu-idle", Switch, "Run only when nothing else wants the CPU", |limits, _| {
        done(limits.cpu_idle(true))
    }),
    flag(
        "cpuset-cpus",
        Once("LIST"),
        "Processors that may be used, such as 0-3,8",
        |limits, text| done(limits.cpuset_cpus(text)),
    ),
    flag(
        "cpuset-mems",
        Once("LIST"),
        "Memory nodes that may be used, such as 0,1",
        |limits, text| done(limits.cpuset_mems(text)),
    ),
    flag("memory-min", Once("SIZE"), "Memory that is never reclaimed", |limits, text| {
        done(limits.memory_min(size(text)?))
    }),
    flag(
        "memory-low",
        Once("SIZE"),
        "Memory that is reclaimed only when others have none to give",
        |limits, text| done(limits.memory_low(size(text)?)),
    ),
    flag(
        "memory-high",
        Once("SIZE"),
        "Memory above which the job is slowed down, such as 100M",
        |limits, text| done(limits.memory_high(size(text)?)),
    ),
    flag(
        "memory-max",
        Once("SIZE"),
        "Memory above which the job is killed; without --memory-swap-max it gets no swap",
        |limits, text| done(limits.memory_max(size(text)?)),
    ),
    flag(
        "memory-swap-max",
        Once("SIZE"),
        "Swap, or max for as much as there is",
        |limits, text| done(limits.memory_swap_max(size(text)?)),
    ),
    flag("memory-zswap-max", Once("SIZE"), "Memory of compressed swap", |limits, text| {
        done(limits.memory_zswap_max(size(text)?))
    }),
    flag(
        "memory-oom-group",
        Switch,
        "Kill all of the job when one process is killed for want of memory",
        |limits, _| done(limits.memory_oom_group(true)),
    ),
    flag(
        "io-weight",
        Often("[DEVICE=]N"),
        "Share of disk time against other jobs, 1 to 10000, of all devices or of one",
        |limits, text| match text.rsplit_once('=') {
            Some((name, weight)) => done(limits.io_weight_of(device(name)?, weight.parse()?)),
            None => done(limits.io_weight(text.parse()?)),
        },
    ),
    flag(
        "io-max",
        Often("DEVICE=RATES"),
        "Rates per second at which a device may be used: rbps, wbps (bytes), riops, wiops (requests), such as \
         /dev/nvme0n1=rbps:2M,wiops:100; a device is a path or its numbers, such as 259:0, and not a partition",
        |limits, text| {
            let (name, list) =
                text.split_once('=').context("write it as DEVICE=rbps:2M,wbps:1M")?;
            done(limits.io_max(device(name)?, rates(list)?))
        },
    ),
    flag(
        "io-latency",
        Often("DEVICE=TIME"),
        "Latency that requests should have, such as 8:0=10ms",
        |limits, text| {
            let (name, target) =
                text.split_once('=').context("write it as DEVICE=TIME, as in 8:0=10ms")?;
            done(limits.io_latency(device(name)?, duration(target)?))
        },
    ),
    flag("pids-max", Once("N"), "Processes and threads at a time", |limits, text| {
        done(limits.pids_max(text.parse()?))
    }),
    flag(
        "hugetlb",
        Often("PAGE=SIZE"),
        "Memory in huge pages of one size, such as 2MB=64M",
        |limits, text| {
            let (page, most) =
                text.split_once('=').context("write it as PAGE=SIZE, as in 2MB=64M")?;
            done(limits.hugetlb_max(page, size(most)?))
        },
    ),
    flag(
        "limit",
        Often("FILE=VALUE"),
        "Any other interface file of the cgroup, as it is",
        |limits, text| {
            let (file, value) =
                text.split_once('=').context("write it as FILE=VALUE, as in memory.high=100M")?;
            done(limits.raw(file, value))
        },
    ),
];

impl Args for LimitFlags {
    fn augment_args(command: Command) -> Command {
        command.args(FLAGS.iter().map(|flag| {
            let arg = Arg::new(flag.name).long(flag.name).help(flag.help).help_heading("Limits");
            match flag.kind {
                Switch => arg.action(ArgAction::SetTrue),
                // A nice value may be negative.
                Once(value) => arg.value_name(value).allow_negative_numbers(true),
                Often(value) => arg.value_name(value).action(ArgAction::Append),
            }
        }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for LimitFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self(Limits::new());
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for Flag { name, kind, set, .. } in &FLAGS {
            let values: Vec<&str> = match kind {
                Switch => matches.get_flag(name).then_some("").into_iter().collect(),
                _ => matches
                    .get_many::<String>(name)
                    .into_iter()
                    .flatten()
                    .map(String::as_str)
                    .collect(),
            };
            for value in values {
                set(&mut self.0, value).and_then(|()| Ok(self.0.validate()?)).map_err(|error| {
                    let text = format!("invalid value '{value}' for '--{name}': {error:#}");
                    clap::Error::raw(ErrorKind::ValueValidation, text)
                })?;
            }
        }
        Ok(())
    }
}

/// For what a setter gives back.
#[allow(clippy::unnecessary_wraps)]
fn done(_: &mut Limits) -> anyhow::Result<()> {
    Ok(())
}

fn size(text: &str) -> anyhow::Result<ByteSize> {
    Ok(if text == "max" { ByteSize::MAX } else { text.parse()? })
}

/// A number with its unit: `us`, `ms` or `s`.
pub(crate) fn duration(text: &str) -> anyhow::Result<Duration> {
    let (number, unit) =
        text.split_at(text.find(|letter: char| letter.is_ascii_alphabetic()).unwrap_or(text.len()));
    let scale = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        _ => bail!("write a time with its unit, us, ms or s, as in 150ms"),
    };
    let number: f64 = number.parse().with_context(|| format!("{number:?} is not a number"))?;
    Ok(Duration::try_from_secs_f64(number * scale)?)
}

/// A block device by its numbers, or by the path of its device file.
fn device(text: &str) -> anyhow::Result<Device> {
    if !text.contains('/') {
        return text
            .parse()
            .with_context(|| format!("give a device by path or by numbers, not as {text:?}"));
    }
    let file = fs::metadata(text).with_context(|| text.to_owned())?;
    if !file.file_type().is_block_device() {
        bail!("{text} is not a block device");
    }
    Ok(Device::new(rustix::fs::major(file.rdev()), rustix::fs::minor(file.rdev())))
}

fn rates(list: &str) -> anyhow::Result<IoRates> {
    let mut rates = IoRates::default();
    for item in list.split(',') {
        let (name, rate) =
            item.split_once(':').with_context(|| format!("{item:?} is no rate: write rbps:2M"))?;
        // What is not limited is what is not said.
        let bytes = || if rate == "max" { Ok(None) } else { rate.parse().map(Some) };
        let number = || if rate == "max" { Ok(None) } else { rate.parse().map(Some) };
        match name {
            "rbps" => rates.read_bytes = bytes()?,
            "wbps" => rates.write_bytes = bytes()?,
            "riops" => rates.reads = number()?,
            "wiops" => rates.writes = number()?,
            _ => bail!("{name:?} is no rate: there are rbps, wbps, riops and wiops"),
        }
    }
    Ok(rates)
}
