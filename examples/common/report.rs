//! A job's final report, for people and for programs.
//!
//! Invariant: what is not known is left out for people and null for programs, never zero.

use std::fmt::Write;
use std::time::Duration;

use indicatif::HumanBytes;
use jobworker::{Exit, JobId, OomCause, Pressure, Report, Stallable, Stats, StopCause};
use serde_json::{Value, json};

/// The format of a report.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Form {
    /// Lines with names, for people.
    Human,
    /// One JSON object on one line; times are in seconds, sizes in bytes, and what is not known is
    /// null.
    Json,
}

impl Form {
    pub(crate) fn render(self, job: JobId, report: &Report) -> String {
        match self {
            Self::Human => human(report),
            Self::Json => json(job, report).to_string(),
        }
    }
}

fn human(report: &Report) -> String {
    let unknown = Stats::default();
    let stats = report.stats.as_ref().unwrap_or(&unknown);
    let mut text = "Report".to_owned();
    let mut row = |name: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n\t{name:<18} {value}");
    };
    row("Exit", report.exit.to_string());
    row("Wall", seconds(report.wall));
    let (whose, user, system) = match &stats.cpu {
        Some(cpu) => ("", cpu.user, cpu.system),
        None => (" (of the main process)", report.usage.user, report.usage.system),
    };
    row("CPU", format!("{} user, {} system{whose}", seconds(user), seconds(system)));
    if let Some((time, periods)) =
        stats.cpu.and_then(|cpu| cpu.throttled.zip(cpu.throttled_periods))
        && periods > 0
    {
        row("CPU throttled", format!("{} in {periods} periods", seconds(time)));
    }
    row("Stopped by", report.stopped_by.map_or("nobody", by).replace('_', " "));
    row("Killed", if report.killed { "yes" } else { "no" }.to_owned());
    if let Some(cause) = report.oom {
        let verdict = match cause {
            OomCause::Job => "the job's own memory limit was met",
            OomCause::Ancestor => "the memory limit of a cgroup above the job's was met",
            _ => "the system was out of memory, or somebody asked for the kill",
        };
        let kills =
            stats.memory.map_or(String::new(), |memory| format!("; killed: {}", memory.oom_kills));
        row("Out of memory", verdict.to_owned() + &kills);
    }
    if let Some(peak) = stats.memory.and_then(|memory| memory.peak) {
        row("Memory peak", HumanBytes(peak).to_string());
    }
    if let Some(pids) = &stats.pids {
        if let Some(peak) = pids.peak {
            row("Processes peak", peak.to_string());
        }
        if pids.refused > 0 {
            row("Forks refused", pids.refused.to_string());
        }
    }
    for io in stats.io.iter().flatten().filter(|io| io.reads + io.writes > 0) {
        let (read, written) = (HumanBytes(io.read_bytes), HumanBytes(io.written_bytes));
        row(
            &format!("IO {}", io.device),
            format!("{read} read in {} requests, {written} written in {}", io.reads, io.writes),
        );
    }
    for (resource, pressure) in pressures(stats) {
        let full =
            pressure.full.map_or(String::new(), |full| format!(", full {}", seconds(full.total)));
        row(
            &format!("Stalled for {resource}"),
            format!("some {}{full}", seconds(pressure.some.total)),
        );
    }
    row("Output", format!("{} bytes", report.output_bytes));
    if report.error_bytes > 0 {
        row("Error output", format!("{} bytes", report.error_bytes));
    }
    if let Some(path) = &report.cgroup_left {
        row("Cgroup left", path.display().to_string());
    }
    for problem in &report.problems {
        row("Problem", problem.to_string());
    }
    text
}

fn json(job: JobId, report: &Report) -> Value {
    let unknown = Stats::default();
    let stats = report.stats.as_ref().unwrap_or(&unknown);
    let (user, system) = (report.usage.user.as_secs_f64(), report.usage.system.as_secs_f64());
    let problems: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    let pressure: serde_json::Map<String, Value> = pressures(stats)
        .map(|(resource, Pressure { some, full, .. })| {
            let full = full.map(|full| full.total.as_secs_f64());
            (
                resource.to_string(),
                json!({ "some_seconds": some.total.as_secs_f64(), "full_seconds": full }),
            )
        })
        .collect();
    json!({
        "job": job.to_string(),
        "exit_code": report.exit.code(),
        "signal": report.exit.signal().map(|signal| signal.to_string()),
        "core_dumped": matches!(report.exit, Exit::Signal { core_dumped: true, .. }),
        "shell_code": report.exit.shell_code(),
        "wall_seconds": report.wall.as_secs_f64(),
        "main_process": {
            "user_seconds": user,
            "system_seconds": system,
            "max_rss_bytes": report.usage.max_rss,
        },
        "stopped_by": report.stopped_by.map(by),
        "killed": report.killed,
        "out_of_memory": report.oom.map(|cause| match cause {
            OomCause::Job => "job",
            OomCause::Ancestor => "ancestor",
            _ => "system",
        }),
        "cpu": stats.cpu.map(|cpu| json!({
            "user_seconds": cpu.user.as_secs_f64(),
            "system_seconds": cpu.system.as_secs_f64(),
            "throttled_seconds": cpu.throttled.map(|time| time.as_secs_f64()),
            "throttled_periods": cpu.throttled_periods,
        })),
        "memory": stats.memory.map(|memory| json!({
            "peak_bytes": memory.peak,
            "high_events": memory.high_events,
            "max_events": memory.max_events,
            "oom_events": memory.oom_events,
            "oom_kills": memory.oom_kills,
        })),
        "pids": stats.pids.map(|pids| json!({ "peak": pids.peak, "refused": pids.refused })),
        "io": stats.io.as_ref().map(|devices| devices.iter().map(|io| json!({
            "device": io.device.to_string(),
            "read_bytes": io.read_bytes,
            "written_bytes": io.written_bytes,
            "reads": io.reads,
            "writes": io.writes,
        })).collect::<Vec<_>>()),
        "pressure": pressure,
        "output_bytes": report.output_bytes,
        "error_bytes": report.error_bytes,
        "cgroup_left": report.cgroup_left.as_ref().map(|path| path.display().to_string()),
        "problems": problems,
    })
}

/// The pressures that are known.
fn pressures(stats: &Stats) -> impl Iterator<Item = (Stallable, Pressure)> {
    let all = [
        (Stallable::Cpu, stats.cpu_pressure),
        (Stallable::Memory, stats.memory_pressure),
        (Stallable::Io, stats.io_pressure),
    ];
    all.into_iter().filter_map(|(resource, pressure)| Some((resource, pressure?)))
}

fn by(cause: StopCause) -> &'static str {
    match cause {
        StopCause::TimeLimit => "time_limit",
        StopCause::LogLimit => "log_limit",
        StopCause::Kill => "kill",
        StopCause::Drop => "drop",
        // Nothing else stops a job so far.
        _ => "stop",
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.3} s", time.as_secs_f64())
}
