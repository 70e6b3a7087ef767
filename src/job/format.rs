//! Owns the format of what is [`Stored`] of a job, with its report once it has one: on its cgroup
//! while it exists, and in a history afterwards.
//!
//! ```text
//! "jobworker" version length content checksum
//!          9       1      4  length        8    bytes
//! ```
//! The content has its fields in a fixed order, numbers in little-endian order, and texts after
//! their length. The checksum is the 64-bit FNV-1a of all that is before it: it tells what was torn
//! by a crash, not what was forged.
//!
//! Invariants: what was encoded is decoded as the same; whatever else is refused, and nothing that
//! is decoded panics or allocates more than a small multiple of its own length. Pure.

use std::os::unix::ffi::OsStrExt;

use uuid::Uuid;

use crate::command::{EndPolicy, OverLimit};
use crate::event::Report;
use crate::id::JobId;
use crate::job::fields::{Reader, Refused, VERSION, Writer};
use crate::job::found_process::known_reason;
use crate::job::record::Policies;
use crate::job::report_format::{
    CAUSES, read_exit, read_report, read_usage, write_exit, write_report, write_usage,
};
use crate::job::stored::{KnownBy, KnownExit, MOST_LABEL, Main, Stop, Stored, Until};
use crate::log::Identity;

const MAGIC: &[u8; 9] = b"jobworker";
/// Since this version there is whether the file system of the logs was full, and when the job was
/// finished.
const WITH_LOG_CUT: u8 = 2;
/// Of what is before the content.
const HEAD: usize = MAGIC.len() + 1 + 4;
const CHECKSUM: usize = 8;

/// Writes down a job, with its report once it has one.
pub(crate) fn encode(stored: &Stored, report: Option<&Report>) -> Vec<u8> {
    let mut to = Writer(Vec::with_capacity(512));
    to.0.extend_from_slice(MAGIC);
    to.u8(VERSION);
    to.u32(0);
    write_stored(&mut to, stored);
    to.option(report, write_report);
    let length = u32::try_from(to.0.len() - HEAD).unwrap_or(u32::MAX);
    if let Some(place) = to.0.get_mut(MAGIC.len() + 1..HEAD) {
        place.copy_from_slice(&length.to_le_bytes());
    }
    let checksum = checksum(&to.0);
    to.u64(checksum);
    to.0
}

/// Reads what [`encode`] has written.
pub(crate) fn decode(bytes: &[u8]) -> Result<(Stored, Option<Report>), Refused> {
    if bytes.is_empty() {
        return Err(Refused::Empty);
    }
    let magic = bytes.get(..MAGIC.len()).ok_or(Refused::Foreign)?;
    if magic != MAGIC {
        return Err(Refused::Foreign);
    }
    let mut from = Reader(bytes.get(MAGIC.len()..).unwrap_or_default());
    let version = from.u8()?;
    if !(1..=VERSION).contains(&version) {
        return Err(Refused::Version(version));
    }
    let length = usize::try_from(from.u32()?).map_err(|_| Refused::Truncated)?;
    let end = HEAD.checked_add(length).ok_or(Refused::Truncated)?;
    let (whole, rest) = bytes.split_at_checked(end).ok_or(Refused::Truncated)?;
    let Ok(found) = <[u8; CHECKSUM]>::try_from(rest) else {
        return Err(if rest.len() < CHECKSUM { Refused::Truncated } else { Refused::Damaged });
    };
    if checksum(whole) != u64::from_le_bytes(found) {
        return Err(Refused::Damaged);
    }
    let mut from = Reader(whole.get(HEAD..).unwrap_or_default());
    let stored = read_stored(&mut from, version)?;
    let report = from.option(read_report)?;
    match from.0 {
        [] => Ok((stored, report)),
        _ => Err(Refused::Nonsense("there is more than there can be")),
    }
}

fn checksum(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

fn write_stored(to: &mut Writer, stored: &Stored) {
    // Without `..`, so that a new field is not forgotten here.
    let Stored {
        id,
        label,
        command,
        started,
        booted,
        policies,
        directory,
        logs,
        log_keep,
        log_limit,
        main,
        stop,
        exited,
        log_cut,
        finished,
        removed,
    } = stored;
    to.0.extend_from_slice(id.uuid().as_bytes());
    to.bytes(label);
    to.bytes(command.as_bytes());
    to.time(*started);
    to.duration(*booted);
    write_policies(to, policies);
    to.bytes(directory.as_os_str().as_bytes());
    for log in logs {
        to.option(log.as_ref(), write_identity);
    }
    to.option(*log_keep, Writer::u64);
    to.option(*log_limit, Writer::u64);
    to.option(main.as_ref(), |to, Main { pid, known_by }| {
        to.u32(*pid);
        let (kind, value) = match known_by {
            KnownBy::Inode(inode) => (0, inode),
            KnownBy::Start(start) => (1, start),
        };
        to.u8(kind);
        to.u64(*value);
    });
    to.option(stop.as_ref(), |to, Stop { cause, until }| {
        to.one_of(&CAUSES, cause);
        match until {
            Until::Now => to.u8(0),
            Until::Boot(at) => {
                to.u8(1);
                to.duration(*at);
            }
            Until::Never => to.u8(2),
        }
    });
    to.option(exited.as_ref(), |to, KnownExit { exit, usage, wall, killed, why_unknown }| {
        write_exit(to, *exit);
        write_usage(to, usage);
        to.duration(*wall);
        to.flag(*killed);
        to.option(*why_unknown, |to, why| to.bytes(why.as_bytes()));
    });
    to.flag(*log_cut);
    to.option(*finished, Writer::duration);
    to.flag(*removed);
}

fn write_policies(to: &mut Writer, policies: &Policies) {
    let Policies {
        end,
        stop_signal,
        grace,
        time_limit,
        detached,
        survives,
        keep_log,
        over_limit,
        has_terminal,
        accounting,
    } = policies;
    to.one_of(&ENDS, end);
    to.i32(stop_signal.as_raw());
    to.duration(*grace);
    to.option(*time_limit, Writer::duration);
    for flag in [detached, survives, keep_log, has_terminal, accounting] {
        to.flag(*flag);
    }
    to.option(over_limit.as_ref(), |to, then| to.one_of(&OVER_LIMITS, then));
}

fn write_identity(to: &mut Writer, identity: &Identity) {
    let Identity { device: (major, minor), inode, birth } = identity;
    to.u32(*major);
    to.u32(*minor);
    to.u64(*inode);
    to.option(*birth, |to, (seconds, nanoseconds)| {
        to.i64(seconds);
        to.u32(nanoseconds);
    });
}

fn read_stored(from: &mut Reader<'_>, version: u8) -> Result<Stored, Refused> {
    let id = JobId::new(Uuid::from_bytes(from.array()?));
    let label = from.bytes()?.to_vec();
    if label.len() > MOST_LABEL {
        return Err(Refused::Nonsense("the label is too long"));
    }
    Ok(Stored {
        id,
        label,
        command: from.text()?,
        started: from.time()?,
        booted: from.duration()?,
        policies: read_policies(from)?,
        directory: from.path()?,
        logs: [from.option(read_identity)?, from.option(read_identity)?],
        log_keep: from.option(Reader::u64)?,
        log_limit: from.option(Reader::u64)?,
        main: from.option(|from| {
            let (pid, kind, value) = (from.u32()?, from.u8()?, from.u64()?);
            let known_by = match kind {
                0 => KnownBy::Inode(value),
                1 => KnownBy::Start(value),
                _ => return Err(Refused::Nonsense("a process is known by nothing")),
            };
            Ok(Main { pid, known_by })
        })?,
        stop: from.option(|from| {
            let cause = from.one_of(&CAUSES)?;
            let until = match from.u8()? {
                0 => Until::Now,
                1 => Until::Boot(from.duration()?),
                2 => Until::Never,
                _ => return Err(Refused::Nonsense("a stop ends in no known way")),
            };
            Ok(Stop { cause, until })
        })?,
        exited: from.option(|from| {
            let (exit, usage) = (read_exit(from)?, read_usage(from)?);
            let (wall, killed) = (from.duration()?, from.flag()?);
            let why_unknown = from.option(Reader::text)?.map(|why| known_reason(&why));
            Ok(KnownExit { exit, usage, wall, killed, why_unknown })
        })?,
        log_cut: version >= WITH_LOG_CUT && from.flag()?,
        finished: if version >= WITH_LOG_CUT { from.option(Reader::duration)? } else { None },
        removed: from.flag()?,
    })
}

fn read_policies(from: &mut Reader<'_>) -> Result<Policies, Refused> {
    Ok(Policies {
        end: from.one_of(&ENDS)?,
        stop_signal: from.signal()?,
        grace: from.duration()?,
        time_limit: from.option(Reader::duration)?,
        detached: from.flag()?,
        survives: from.flag()?,
        keep_log: from.flag()?,
        has_terminal: from.flag()?,
        accounting: from.flag()?,
        over_limit: from.option(|from| from.one_of(&OVER_LIMITS))?,
    })
}

fn read_identity(from: &mut Reader<'_>) -> Result<Identity, Refused> {
    Ok(Identity {
        device: (from.u32()?, from.u32()?),
        inode: from.u64()?,
        birth: from.option(|from| Ok((from.i64()?, from.u32()?)))?,
    })
}

// What a number stands for, by its place. New ones come at the end.

const OVER_LIMITS: [OverLimit; 3] = [OverLimit::Stop, OverLimit::Kill, OverLimit::Discard];
const ENDS: [EndPolicy; 3] = [EndPolicy::KillRest, EndPolicy::WaitAll, EndPolicy::LeaveRest];

/// Content in a frame that fits it, for tests and the fuzzer.
#[cfg(any(fuzzing, test))]
pub(crate) fn framed(content: &[u8]) -> Vec<u8> {
    framed_as(VERSION, content)
}

#[cfg(any(fuzzing, test))]
fn framed_as(version: u8, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap_or(u32::MAX).to_le_bytes();
    let mut bytes = [&MAGIC[..], &[version], &length, content].concat();
    let checksum = checksum(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

/// What is accepted, written again.
#[cfg(any(fuzzing, test))]
pub(crate) fn rewritten(bytes: &[u8]) -> Option<Vec<u8>> {
    let (stored, report) = decode(bytes).ok()?;
    Some(encode(&stored, report.as_ref()))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;
    use std::path::PathBuf;
    use std::time::{Duration, SystemTime};

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::command::{Device, Signal};
    use crate::error::{Error, RecordedError};
    use crate::event::{
        CpuStats, Exit, IoStats, MemoryStats, PidsStats, Pressure, Stalled, Stats, StopCause, Usage,
    };
    use crate::job::report_format::{KINDS, OOMS};

    fn time() -> impl Strategy<Value = Duration> {
        (0..1u64 << 40, 0..1_000_000_000u32)
            .prop_map(|(seconds, nanos)| Duration::new(seconds, nanos))
    }

    fn signal() -> impl Strategy<Value = Signal> {
        (1..=64).prop_map(|number| Signal::from_raw(number).unwrap())
    }

    fn exit() -> impl Strategy<Value = Exit> {
        let killed = (signal(), any::<bool>());
        prop_oneof![
            (0..256).prop_map(Exit::Code),
            killed.prop_map(|(signal, core_dumped)| Exit::Signal { signal, core_dumped }),
            Just(Exit::Unknown),
        ]
    }

    fn usage() -> impl Strategy<Value = Usage> {
        (time(), any::<u64>()).prop_map(|(user, count)| Usage {
            user,
            system: user / 2,
            max_rss: count,
            involuntary_switches: !count,
            ..Usage::default()
        })
    }

    fn cause() -> impl Strategy<Value = StopCause> {
        proptest::sample::select(&CAUSES[..])
    }

    fn stats() -> impl Strategy<Value = Stats> {
        (any::<u64>(), time(), any::<[bool; 5]>()).prop_map(|(count, time, has)| {
            let [cpu, memory, io, pids, pressure] = has;
            let some = Stalled { avg10: 1.5, avg60: 0.0, avg300: 100.0, total: time };
            Stats {
                cpu: cpu.then_some(CpuStats {
                    user: time,
                    system: time,
                    throttled: memory.then_some(time),
                    throttled_periods: io.then_some(count),
                }),
                memory: memory.then_some(MemoryStats {
                    current: count,
                    peak: cpu.then_some(count),
                    swap: io.then_some(1),
                    oom_kills: 3,
                    ..MemoryStats::default()
                }),
                io: io.then(|| {
                    vec![IoStats {
                        device: Device::new(8, 16),
                        read_bytes: count,
                        written_bytes: 1,
                        reads: 2,
                        writes: 3,
                    }]
                }),
                pids: pids.then_some(PidsStats { current: 0, peak: Some(count), refused: 9 }),
                cpu_pressure: pressure.then_some(Pressure { some, full: io.then_some(some) }),
                memory_pressure: None,
                io_pressure: None,
            }
        })
    }

    fn report() -> impl Strategy<Value = Report> {
        use proptest::option::of;
        let kind = proptest::sample::select(&KINDS[..]);
        let problem =
            (".{0,40}", kind, of(any::<i32>())).prop_map(|(message, kind, raw_os_error)| {
                Error::Recorded(RecordedError { message, kind, raw_os_error })
            });
        let how = (exit(), time(), usage(), of(cause()), any::<bool>());
        let what = (of(proptest::sample::select(&OOMS[..])), of(stats()), any::<(u64, u64)>());
        let rest = (of(Just(PathBuf::from("/some/group"))), vec(problem, 0..4));
        (how, what, rest).prop_map(|(how, what, rest)| {
            let (exit, wall, usage, stopped_by, killed) = how;
            let (oom, stats, (output_bytes, error_bytes)) = what;
            let (cgroup_left, problems) = rest;
            Report {
                exit,
                wall,
                usage,
                stopped_by,
                killed,
                oom,
                stats,
                output_bytes,
                error_bytes,
                log_limit_exceeded: killed,
                output_discarded: output_bytes / 2,
                error_discarded: error_bytes / 3,
                cgroup_left,
                problems,
            }
        })
    }

    fn identity() -> impl Strategy<Value = Identity> {
        let birth = proptest::option::of(any::<(i64, u32)>());
        (any::<(u32, u32)>(), any::<u64>(), birth).prop_map(|(device, inode, birth)| Identity {
            device,
            inode,
            birth,
        })
    }

    fn policies() -> impl Strategy<Value = Policies> {
        let flags = any::<[bool; 4]>();
        let end = proptest::sample::select(&ENDS[..]);
        (end, signal(), time(), proptest::option::of(time()), flags).prop_map(
            |(end, stop_signal, grace, time_limit, [detached, survives, keep_log, accounting])| {
                Policies {
                    end,
                    stop_signal,
                    grace,
                    time_limit,
                    detached,
                    survives,
                    keep_log,
                    has_terminal: keep_log,
                    over_limit: accounting.then_some(OverLimit::Discard),
                    accounting,
                }
            },
        )
    }

    fn stored() -> impl Strategy<Value = Stored> {
        use proptest::option::of;
        let until = prop_oneof![Just(Until::Now), time().prop_map(Until::Boot), Just(Until::Never)];
        let known_by = prop_oneof![
            any::<u64>().prop_map(KnownBy::Inode),
            any::<u64>().prop_map(KnownBy::Start),
        ];
        let main = (any::<u32>(), known_by).prop_map(|(pid, known_by)| Main { pid, known_by });
        let stop = (cause(), until).prop_map(|(cause, until)| Stop { cause, until });
        let exited =
            (exit(), usage(), time(), any::<bool>()).prop_map(|(exit, usage, wall, killed)| {
                let why_unknown = killed.then_some(known_reason(""));
                KnownExit { exit, usage, wall, killed, why_unknown }
            });
        let texts = (vec(any::<u8>(), 0..40), ".{0,20}", vec(any::<u8>(), 0..40));
        let facts = (any::<u128>(), time(), time(), policies(), any::<bool>());
        let states = ([of(identity()), of(identity())], of(main), of(stop), of(exited));
        (texts, facts, states).prop_map(|(texts, facts, states)| {
            let (label, command, directory) = texts;
            let (id, started, booted, policies, removed) = facts;
            let (logs, main, stop, exited) = states;
            Stored {
                id: JobId::new(Uuid::from_u128(id)),
                label,
                command,
                started: SystemTime::UNIX_EPOCH + started,
                booted,
                policies,
                directory: OsString::from_vec(directory).into(),
                logs,
                log_keep: removed.then_some(1 << 20),
                log_limit: main.map(|_| 7),
                main,
                stop,
                exited,
                log_cut: booted.subsec_nanos() % 2 == 0,
                finished: removed.then_some(booted),
                removed,
            }
        })
    }

    fn config() -> ProptestConfig {
        ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
    }

    proptest! {
        #![proptest_config(config())]

        #[test]
        fn what_was_written_is_read_back(
            stored in stored(),
            report in proptest::option::of(report()),
        ) {
            let bytes = encode(&stored, report.as_ref());
            let (read, read_report) = decode(&bytes).unwrap();
            prop_assert_eq!(read, stored);
            prop_assert_eq!(rewritten(&bytes), Some(bytes));
            prop_assert_eq!(format!("{read_report:?}"), format!("{report:?}"));
        }

        #[test]
        fn what_an_earlier_version_has_written_is_read(stored in stored()) {
            let expected = Stored { log_cut: false, finished: None, ..stored };
            let bytes = encode(&expected, None);
            let content = &bytes[HEAD..bytes.len() - CHECKSUM];
            let (before, after) = content.split_at(content.len() - 4);
            let earlier = framed_as(1, &[before, &after[2..]].concat());
            prop_assert_eq!(decode(&earlier).unwrap().0, expected);
        }

        #[test]
        fn what_is_cut_off_lengthened_or_changed_is_refused(
            stored in stored(),
            place in any::<proptest::sample::Index>(),
            bit in 0..8,
        ) {
            let bytes = encode(&stored, None);
            let place = place.index(bytes.len());
            prop_assert!(decode(&bytes[..place]).is_err());
            prop_assert_eq!(decode(&[&bytes[..], b"x"].concat()).unwrap_err(), Refused::Damaged);
            let mut changed = bytes;
            changed[place] ^= 1u8 << bit;
            prop_assert!(decode(&changed).is_err());
        }

        /// With the right frame, so that it comes to the fields.
        #[test]
        fn no_content_makes_it_panic(content in vec(any::<u8>(), 0..400)) {
            let _ = decode(&framed(&content));
        }
    }

    #[test]
    fn it_is_said_why_something_is_refused() {
        let refused = |bytes: &[u8]| decode(bytes).unwrap_err();
        assert_eq!(refused(b""), Refused::Empty);
        assert_eq!(refused(b"jobwork"), Refused::Foreign);
        assert_eq!(refused(b"{\"job\": 1, \"pid\": 42}"), Refused::Foreign);
        // Before anything else of it is looked at.
        assert_eq!(refused(&[&MAGIC[..], &[3]].concat()), Refused::Version(3));
        assert_eq!(refused(&[&MAGIC[..], &[0]].concat()), Refused::Version(0));
        let mut later = framed(b"anything");
        later[MAGIC.len()] += 1;
        assert_eq!(refused(&later), Refused::Version(VERSION + 1));
        assert_eq!(refused(&[&MAGIC[..], &[VERSION, 9, 0]].concat()), Refused::Truncated);
        let reach = [0; 16].into_iter().chain([0xff; 4]).collect::<Vec<u8>>();
        let refused = refused(&framed(&reach));
        assert!(refused.to_string().contains("beyond its end"), "{refused}");
    }
}
