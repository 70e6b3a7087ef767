//! Owns the format of a [`Report`] and of the figures in it.
//!
//! Invariant: a report is never too long for one extended attribute: of what can be of any length,
//! a bounded part is written. Pure. Knows nothing of the record that it is a part of.

use std::os::unix::ffi::OsStrExt;

use crate::command::Device;
use crate::error::{Error, ErrorKind, RecordedError};
use crate::event::{
    CpuStats, Exit, IoStats, MemoryStats, OomCause, PidsStats, Pressure, Report, Stalled, Stats,
    StopCause, Usage,
};
use crate::job::fields::{Reader, Refused, Writer};

/// How many problems of a report are kept, and how many bytes of each, so that all of it fits into
/// one extended attribute.
const MOST_PROBLEMS: usize = 16;
const MOST_MESSAGE: usize = 512;
/// The same of the devices in its statistics.
const MOST_DEVICES: usize = 256;

pub(super) fn write_exit(to: &mut Writer, exit: Exit) {
    match exit {
        Exit::Code(code) => {
            to.u8(0);
            to.i32(code);
        }
        Exit::Signal { signal, core_dumped } => {
            to.u8(1);
            to.i32(signal.as_raw());
            to.flag(core_dumped);
        }
        Exit::Unknown => to.u8(2),
    }
}

pub(super) fn write_usage(to: &mut Writer, usage: &Usage) {
    let Usage {
        user,
        system,
        max_rss,
        minor_faults,
        major_faults,
        blocks_in,
        blocks_out,
        voluntary_switches,
        involuntary_switches,
    } = usage;
    to.duration(*user);
    to.duration(*system);
    for count in [max_rss, minor_faults, major_faults, blocks_in, blocks_out] {
        to.u64(*count);
    }
    to.u64(*voluntary_switches);
    to.u64(*involuntary_switches);
}

pub(super) fn write_report(to: &mut Writer, report: &Report) {
    let Report {
        exit,
        wall,
        usage,
        stopped_by,
        killed,
        oom,
        stats,
        output_bytes,
        error_bytes,
        log_limit_exceeded,
        output_discarded,
        error_discarded,
        cgroup_left,
        problems,
    } = report;
    write_exit(to, *exit);
    to.duration(*wall);
    write_usage(to, usage);
    to.option(stopped_by.as_ref(), |to, cause| to.one_of(&CAUSES, cause));
    to.flag(*killed);
    to.option(oom.as_ref(), |to, cause| to.one_of(&OOMS, cause));
    to.option(stats.as_ref(), write_stats);
    to.u64(*output_bytes);
    to.u64(*error_bytes);
    to.flag(*log_limit_exceeded);
    to.u64(*output_discarded);
    to.u64(*error_discarded);
    let left = cgroup_left.as_ref();
    to.option(left, |to, path| to.bytes(path.as_os_str().as_bytes()));
    let problems = problems.get(..MOST_PROBLEMS).unwrap_or(problems);
    to.u8(u8::try_from(problems.len()).unwrap_or(u8::MAX));
    problems.iter().for_each(|problem| write_problem(to, problem));
}

fn write_problem(to: &mut Writer, problem: &Error) {
    let message = problem.to_string();
    let end = (0..=message.len().min(MOST_MESSAGE)).rev();
    let end = end.into_iter().find(|end| message.is_char_boundary(*end));
    to.bytes(message.get(..end.unwrap_or_default()).unwrap_or_default().as_bytes());
    to.one_of(&KINDS, &problem.kind());
    to.option(problem.raw_os_error(), Writer::i32);
}

fn write_stats(to: &mut Writer, stats: &Stats) {
    let Stats { cpu, memory, io, pids, cpu_pressure, memory_pressure, io_pressure } = stats;
    to.option(cpu.as_ref(), |to, cpu| {
        let CpuStats { user, system, throttled, throttled_periods } = cpu;
        to.duration(*user);
        to.duration(*system);
        to.option(*throttled, Writer::duration);
        to.option(*throttled_periods, Writer::u64);
    });
    to.option(memory.as_ref(), |to, memory| {
        let MemoryStats { current, peak, swap, high_events, max_events, .. } = memory;
        to.u64(*current);
        to.option(*peak, Writer::u64);
        to.option(*swap, Writer::u64);
        for count in [high_events, max_events, &memory.oom_events, &memory.oom_kills] {
            to.u64(*count);
        }
    });
    to.option(io.as_ref(), |to, devices| {
        let devices = devices.get(..MOST_DEVICES).unwrap_or(devices);
        to.u32(u32::try_from(devices.len()).unwrap_or(u32::MAX));
        for IoStats { device, read_bytes, written_bytes, reads, writes } in devices {
            to.bytes(device.to_string().as_bytes());
            for count in [read_bytes, written_bytes, reads, writes] {
                to.u64(*count);
            }
        }
    });
    to.option(pids.as_ref(), |to, PidsStats { current, peak, refused }| {
        to.u64(*current);
        to.option(*peak, Writer::u64);
        to.u64(*refused);
    });
    for pressure in [cpu_pressure, memory_pressure, io_pressure] {
        to.option(pressure.as_ref(), |to, Pressure { some, full }| {
            write_stalled(to, some);
            to.option(full.as_ref(), write_stalled);
        });
    }
}

fn write_stalled(to: &mut Writer, Stalled { avg10, avg60, avg300, total }: &Stalled) {
    for average in [avg10, avg60, avg300] {
        to.u32(average.to_bits());
    }
    to.duration(*total);
}

pub(super) fn read_exit(from: &mut Reader<'_>) -> Result<Exit, Refused> {
    Ok(match from.u8()? {
        0 => Exit::Code(from.i32()?),
        1 => Exit::Signal { signal: from.signal()?, core_dumped: from.flag()? },
        2 => Exit::Unknown,
        _ => return Err(Refused::Nonsense("a process ended in no known way")),
    })
}

pub(super) fn read_usage(from: &mut Reader<'_>) -> Result<Usage, Refused> {
    Ok(Usage {
        user: from.duration()?,
        system: from.duration()?,
        max_rss: from.u64()?,
        minor_faults: from.u64()?,
        major_faults: from.u64()?,
        blocks_in: from.u64()?,
        blocks_out: from.u64()?,
        voluntary_switches: from.u64()?,
        involuntary_switches: from.u64()?,
    })
}

pub(super) fn read_report(from: &mut Reader<'_>) -> Result<Report, Refused> {
    Ok(Report {
        exit: read_exit(from)?,
        wall: from.duration()?,
        usage: read_usage(from)?,
        stopped_by: from.option(|from| from.one_of(&CAUSES))?,
        killed: from.flag()?,
        oom: from.option(|from| from.one_of(&OOMS))?,
        stats: from.option(read_stats)?,
        output_bytes: from.u64()?,
        error_bytes: from.u64()?,
        log_limit_exceeded: from.flag()?,
        output_discarded: from.u64()?,
        error_discarded: from.u64()?,
        cgroup_left: from.option(Reader::path)?,
        problems: (0..from.u8()?).map(|_| read_problem(from)).collect::<Result<_, _>>()?,
    })
}

fn read_problem(from: &mut Reader<'_>) -> Result<Error, Refused> {
    let message = from.text()?;
    let kind = from.one_of(&KINDS)?;
    let raw_os_error = from.option(Reader::i32)?;
    Ok(Error::Recorded(RecordedError { message, kind, raw_os_error }))
}

fn read_stats(from: &mut Reader<'_>) -> Result<Stats, Refused> {
    Ok(Stats {
        cpu: from.option(|from| {
            Ok(CpuStats {
                user: from.duration()?,
                system: from.duration()?,
                throttled: from.option(Reader::duration)?,
                throttled_periods: from.option(Reader::u64)?,
            })
        })?,
        memory: from.option(|from| {
            Ok(MemoryStats {
                current: from.u64()?,
                peak: from.option(Reader::u64)?,
                swap: from.option(Reader::u64)?,
                high_events: from.u64()?,
                max_events: from.u64()?,
                oom_events: from.u64()?,
                oom_kills: from.u64()?,
            })
        })?,
        io: from.option(|from| (0..from.u32()?).map(|_| read_device(from)).collect())?,
        pids: from.option(|from| {
            Ok(PidsStats {
                current: from.u64()?,
                peak: from.option(Reader::u64)?,
                refused: from.u64()?,
            })
        })?,
        cpu_pressure: from.option(read_pressure)?,
        memory_pressure: from.option(read_pressure)?,
        io_pressure: from.option(read_pressure)?,
    })
}

fn read_device(from: &mut Reader<'_>) -> Result<IoStats, Refused> {
    let device: Result<Device, _> = from.text()?.parse();
    Ok(IoStats {
        device: device.map_err(|_| Refused::Nonsense("a device has no number"))?,
        read_bytes: from.u64()?,
        written_bytes: from.u64()?,
        reads: from.u64()?,
        writes: from.u64()?,
    })
}

fn read_pressure(from: &mut Reader<'_>) -> Result<Pressure, Refused> {
    Ok(Pressure { some: read_stalled(from)?, full: from.option(read_stalled)? })
}

fn read_stalled(from: &mut Reader<'_>) -> Result<Stalled, Refused> {
    let mut average = || from.u32().map(f32::from_bits);
    let (avg10, avg60, avg300) = (average()?, average()?, average()?);
    Ok(Stalled { avg10, avg60, avg300, total: from.duration()? })
}

// What a number stands for, by its place. New ones come at the end.

pub(super) const CAUSES: [StopCause; 5] =
    [StopCause::Stop, StopCause::Kill, StopCause::TimeLimit, StopCause::Drop, StopCause::LogLimit];
pub(super) const OOMS: [OomCause; 3] = [OomCause::Job, OomCause::Ancestor, OomCause::System];
pub(super) const KINDS: [ErrorKind; 9] = [
    // First, so that one that is missing here becomes it.
    ErrorKind::Other,
    ErrorKind::InvalidInput,
    ErrorKind::NotFound,
    ErrorKind::PermissionDenied,
    ErrorKind::Unsupported,
    ErrorKind::LimitReached,
    ErrorKind::State,
    ErrorKind::TimedOut,
    ErrorKind::StaleId,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_with_many_problems_fits_into_an_attribute() {
        let mut report = Report::of(Exit::Unknown);
        for _ in 0..1000 {
            let problem = RecordedError {
                message: "\u{e4}".repeat(10_000),
                kind: ErrorKind::Other,
                raw_os_error: None,
            };
            report.problems.push(problem.into());
        }
        let mut to = Writer(Vec::new());
        write_report(&mut to, &report);
        assert!(to.0.len() < 20_000, "{}", to.0.len());
        let read = read_report(&mut Reader(&to.0)).unwrap();
        assert_eq!(read.problems.len(), MOST_PROBLEMS);
    }
}
