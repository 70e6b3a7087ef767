//! Owns [`Figures`]: what a job is stalled for and what it uses, as numbers and words to show.
//!
//! Invariant: what is not known is `None`, never zero. Knows nothing of how it is shown.

use std::fs;
use std::time::Duration;

use indicatif::HumanBytes;
use jobworker::{Pressure, Stallable, Stalled, Stats};

pub(crate) const RESOURCES: [Stallable; 3] = [Stallable::Cpu, Stallable::Memory, Stallable::Io];

pub(crate) struct Figures {
    /// Those of the [`RESOURCES`].
    pub(crate) rows: [Row; 3],
    pub(crate) processes: Option<String>,
    /// Why some figures are not known.
    pub(crate) remarks: Vec<String>,
}

/// Those of a resource.
pub(crate) struct Row {
    pub(crate) some: Option<Stalls>,
    pub(crate) full: Option<Stalls>,
    pub(crate) used: Option<Used>,
}

pub(crate) struct Stalls {
    /// Of the last ten seconds.
    pub(crate) percent: f32,
    /// Since the figures before.
    pub(crate) growth: Duration,
    /// That growth, as a percentage of the time.
    pub(crate) now: f32,
}

/// What the job uses of a resource.
pub(crate) struct Used {
    /// In a unit of the resource's own.
    pub(crate) amount: f64,
    pub(crate) short: String,
    /// What is worth adding where there is room, most important first.
    pub(crate) more: Vec<String>,
}

impl Figures {
    /// The figures now, `time` after those before. `limits` are those that the job was given.
    pub(crate) fn new(
        now: &Stats,
        before: &Stats,
        time: Duration,
        limits: &[(String, String)],
    ) -> Self {
        let seconds = time.as_secs_f64().max(0.001);
        let row = |resource: Stallable, used: Option<Used>| {
            let (now, before) = (pressure(now, resource), pressure(before, resource));
            let before = before.unwrap_or_default();
            let stalls = |now: Stalled, before: Stalled| {
                let growth = now.total.saturating_sub(before.total);
                let share = (growth.as_secs_f64() / seconds * 100.0).min(100.0);
                Stalls { percent: now.avg10, growth, now: share as f32 }
            };
            let some = now.map(|now| stalls(now.some, before.some));
            let full = now.and_then(|now| Some(stalls(now.full?, before.full.unwrap_or_default())));
            Row { some, full, used }
        };
        let of = |file: &str| {
            let limit = limits.iter().rev().find(|(other, _)| other == file);
            limit.map_or(String::new(), |(_, value)| format!(" of {value}"))
        };
        let cpu = now.cpu.map(|cpu| {
            let past = before.cpu.unwrap_or_default();
            let used = (cpu.user + cpu.system).saturating_sub(past.user + past.system);
            let amount = used.as_secs_f64() / seconds * 100.0;
            Used { amount, short: format!("{amount:.0} %"), more: Vec::new() }
        });
        let memory = now.memory.map(|memory| {
            let peak =
                memory.peak.map_or(String::new(), |peak| format!(" (peak {})", HumanBytes(peak)));
            Used {
                amount: memory.current as f64,
                short: HumanBytes(memory.current).to_string(),
                more: vec![of("memory.max"), peak],
            }
        });
        let io = now.io.as_ref().map(|_| {
            let amount = bytes(now).saturating_sub(bytes(before)) as f64 / seconds;
            let more = vec![format!(" (in all {})", HumanBytes(bytes(now)))];
            Used { amount, short: format!("{}/s", HumanBytes(amount as u64)), more }
        });
        let processes = now.pids.map(|pids| format!("{}{}", pids.current, of("pids.max")));
        Self {
            remarks: remarks(now),
            rows: [
                row(Stallable::Cpu, cpu),
                row(Stallable::Memory, memory),
                row(Stallable::Io, io),
            ],
            processes,
        }
    }
}

/// What the whole system is stalled for: all that is known of a job without a cgroup.
pub(crate) fn of_the_system() -> Stats {
    let read = |resource: Stallable| {
        fs::read_to_string(format!("/proc/pressure/{resource}")).ok()?.parse::<Pressure>().ok()
    };
    let mut stats = Stats::default();
    stats.cpu_pressure = read(Stallable::Cpu);
    stats.memory_pressure = read(Stallable::Memory);
    stats.io_pressure = read(Stallable::Io);
    stats
}

fn pressure(stats: &Stats, resource: Stallable) -> Option<Pressure> {
    match resource {
        Stallable::Cpu => stats.cpu_pressure,
        Stallable::Memory => stats.memory_pressure,
        _ => stats.io_pressure,
    }
}

fn bytes(stats: &Stats) -> u64 {
    stats.io.iter().flatten().map(|device| device.read_bytes + device.written_bytes).sum()
}

fn remarks(stats: &Stats) -> Vec<String> {
    let mut remarks = Vec::new();
    if RESOURCES.iter().any(|resource| pressure(stats, *resource).is_none()) {
        remarks.push("no pressure: boot with psi=1".to_owned());
    }
    // The time of processors is always known, if there is a cgroup.
    if stats.cpu.is_none() {
        remarks.push("no cgroup: stalls of the whole system".to_owned());
        return remarks;
    }
    let controllers = [
        ("memory", stats.memory.is_some()),
        ("io", stats.io.is_some()),
        ("pids", stats.pids.is_some()),
    ];
    let missing: Vec<&str> =
        controllers.iter().filter(|(_, known)| !known).map(|(name, _)| *name).collect();
    if !missing.is_empty() {
        remarks.push(format!("without controller: {}", missing.join(", ")));
    }
    remarks
}
