//! Owns the fuzz target `parsers`: the parsers of the kernel's files, of the names of groups and of
//! text from users.
//!
//! Invariant: each check states a property, never only that nothing panics. A file that is written
//! from values as the kernel writes it parses to these values; what is printed parses to itself;
//! what is accepted has only one meaning.

#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use arbitrary::Arbitrary;
use jobworker::simulator::parsers;
use jobworker::{ByteSize, Device, IoStats, Pressure};
use libfuzzer_sys::fuzz_target;

/// A piece of the text of a user or a file, such that few mutations lead to text that is almost
/// valid.
#[derive(Arbitrary, Debug)]
enum Piece {
    Number(u64),
    Small(u8),
    Byte(u8),
    Word(u8),
    Any(String),
}

const WORDS: [&str; 30] = [
    "+",
    "-",
    ":",
    ",",
    ".",
    " ",
    "\n",
    "=",
    "K",
    "m",
    "G",
    "t",
    "0",
    "max",
    "nan",
    "inf",
    "some ",
    "full ",
    "avg10=",
    "avg60=",
    "avg300=",
    "total=",
    "0.00",
    "detached",
    "attached",
    "rbytes=",
    "\\",
    "\\040",
    ")",
    "4294967295",
];

#[derive(Arbitrary, Debug)]
struct Text(Vec<Piece>);

impl Text {
    fn text(&self) -> String {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Number(number) => write!(text, "{number}").unwrap(),
                Piece::Small(number) => write!(text, "{number}").unwrap(),
                Piece::Byte(byte) => text.push(char::from(*byte)),
                Piece::Word(word) => text.push_str(WORDS[usize::from(*word) % WORDS.len()]),
                Piece::Any(any) => text.push_str(any),
            }
        }
        text
    }
}

/// One line of a pressure file, with its shares in hundredths of a percent.
#[derive(Arbitrary, Debug)]
struct Line {
    shares: [u16; 3],
    total: u64,
}

#[derive(Arbitrary, Debug)]
struct Disk {
    major: u32,
    minor: u32,
    /// Bytes and requests read and written; a disk that was never used has none.
    counts: Option<[u64; 4]>,
    more: bool,
}

#[derive(Arbitrary, Debug)]
struct Mount {
    root: Vec<u8>,
    point: Vec<u8>,
    source: Vec<u8>,
    optional: u8,
    kind: u8,
}

/// A byte, or a backslash and three bytes that may be digits.
#[derive(Arbitrary, Debug)]
enum Escape {
    Byte(u8),
    Backslash([u8; 3]),
}

#[derive(Arbitrary, Debug)]
enum Input {
    Size(u64),
    SizeOf(Text),
    Device(u32, u32),
    DeviceOf(Text),
    List(Vec<(u8, u8)>),
    ListOf(Text),
    Keyed { memory: [u64; 6], cpu: [u64; 5], pids: [u64; 3], first: u8 },
    KeyedOf(Text, u8),
    Disks(Vec<Disk>),
    DisksOf(Text),
    Pressure(Line, Option<Line>),
    PressureOf(Text),
    Mounts(Vec<Mount>),
    MountsOf(Vec<u8>),
    Unescape(Vec<Escape>),
    Process { name: Vec<u8>, state: u8, group: u32, start: u64, other: [i64; 3] },
    ProcessOf(Vec<u8>),
    GroupName { job: u128, owner: u128, detached: bool },
    NameOf(Text),
}

fuzz_target!(|input: Input| {
    match input {
        Input::Size(bytes) => {
            let size = ByteSize::from_bytes(bytes);
            assert_eq!(size.to_string().parse(), Ok(size));
        }
        Input::SizeOf(text) => size_of(&text.text()),
        Input::Device(major, minor) => {
            let device = Device::new(major, minor);
            assert_eq!(device.to_string().parse(), Ok(device));
        }
        Input::DeviceOf(text) => device_of(&text.text()),
        Input::List(items) => list(&items),
        Input::ListOf(text) => list_of(&text.text()),
        Input::Keyed { memory, cpu, pids, first } => keyed(memory, cpu, pids, first),
        Input::KeyedOf(text, key) => keyed_of(&text.text(), key),
        Input::Disks(disks) => self::disks(disks),
        Input::DisksOf(text) => disks_of(&text.text()),
        Input::Pressure(some, full) => pressure(&some, full.as_ref()),
        Input::PressureOf(text) => pressure_of(&text.text()),
        Input::Mounts(mounts) => self::mounts(mounts),
        Input::MountsOf(table) => {
            if let Some(point) = parsers::mount_point(&table) {
                let field = |field: &[u8]| parsers::unescape(field) == point.as_os_str().as_bytes();
                assert!(
                    table.split(|byte| b" \n".contains(byte)).any(field),
                    "the mount point is not in the table"
                );
            }
        }
        Input::Unescape(escapes) => unescape(&escapes),
        Input::Process { name, state, group, start, other } => {
            process(name, state, group, start, other);
        }
        Input::ProcessOf(content) => {
            if let Some((state, group)) = parsers::stat(&content) {
                // What precedes the last parenthesis has no influence.
                let end = content.iter().rposition(|byte| *byte == b')').unwrap();
                let again = [b"1 (", &content[end..]].concat();
                assert_eq!(parsers::stat(&again), Some((state, group)));
            }
        }
        Input::GroupName { job, owner, detached } => {
            let uuid = |number: u128| {
                let hex = format!("{number:032x}");
                [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
            };
            let end = if detached { ".detached" } else { "" };
            let name = format!("{}.{}{end}", uuid(job), uuid(owner));
            assert_eq!(parsers::group_name(&name), Some(name));
        }
        Input::NameOf(text) => {
            let text = text.text();
            // A name decides what is killed, so only text that was written as one is accepted.
            if let Some(name) = parsers::group_name(&text) {
                assert_eq!(name, text);
            }
        }
    }
});

/// Only digits, with at most one suffix, are a size.
fn size_of(text: &str) {
    let (digits, shift) = match text.as_bytes() {
        [digits @ .., b'k' | b'K'] => (digits, 10),
        [digits @ .., b'm' | b'M'] => (digits, 20),
        [digits @ .., b'g' | b'G'] => (digits, 30),
        [digits @ .., b't' | b'T'] => (digits, 40),
        digits => (digits, 0),
    };
    let mut expected = (!digits.is_empty()).then_some(0u128);
    for digit in digits {
        expected = match (expected, digit) {
            // Once it is too large, it stays too large.
            (Some(number), b'0'..=b'9') => {
                Some((number * 10 + u128::from(digit - b'0')).min(1 << 80))
            }
            _ => None,
        };
    }
    let expected = expected.and_then(|number| u64::try_from(number * (1 << shift)).ok());
    assert_eq!(text.parse::<ByteSize>().ok().map(ByteSize::as_bytes), expected, "{text:?}");
}

fn device_of(text: &str) {
    if let Ok(device) = text.parse::<Device>() {
        assert!(text.bytes().all(|byte| byte.is_ascii_digit() || byte == b':'), "{text:?}");
        assert_eq!(device.to_string().parse(), Ok(device));
    }
}

/// A list of single numbers and ranges, as cpuset.cpus has them.
fn list(items: &[(u8, u8)]) {
    let mut numbers = BTreeSet::new();
    let mut texts = Vec::new();
    for (first, length) in items {
        let last = u32::from(*first) + u32::from(length % 8);
        numbers.extend(u32::from(*first)..=last);
        texts.push(if last == u32::from(*first) {
            first.to_string()
        } else {
            format!("{first}-{last}")
        });
    }
    let ranges = parsers::ranges(&texts.join(","));
    if items.is_empty() {
        assert_eq!(ranges, None);
        return;
    }
    let ranges = ranges.expect("a list");
    check_ranges(&ranges);
    let found: BTreeSet<u32> = ranges.iter().flat_map(|(first, last)| *first..=*last).collect();
    assert_eq!(found, numbers);
}

fn list_of(text: &str) {
    if let Some(ranges) = parsers::ranges(text) {
        check_ranges(&ranges);
        let fit = |byte: u8| byte.is_ascii_digit() || b",-".contains(&byte);
        assert!(text.bytes().all(fit), "{text:?}");
    }
}

/// Checks that ranges ascend, do not touch, and parse to themselves when they are printed.
fn check_ranges(ranges: &[(u32, u32)]) {
    assert!(ranges.iter().all(|(first, last)| first <= last), "{ranges:?}");
    assert!(ranges.windows(2).all(|pair| pair[0].1 < pair[1].0 - 1), "{ranges:?}");
    let texts: Vec<String> = ranges.iter().map(|(first, last)| format!("{first}-{last}")).collect();
    assert_eq!(parsers::ranges(&texts.join(",")).as_deref(), Some(ranges));
}

/// Files with a key and a value on each line, in any order of the lines.
fn keyed(memory: [u64; 6], cpu: [u64; 5], pids: [u64; 3], first: u8) {
    let file = |keys: &[&str], values: &[u64]| {
        let mut lines: Vec<String> =
            keys.iter().zip(values).map(|(key, value)| format!("{key} {value}\n")).collect();
        let middle = usize::from(first) % lines.len();
        lines.rotate_left(middle);
        lines.concat()
    };
    let files = BTreeMap::from([
        ("memory.current", "4096\n".to_owned()),
        (
            "memory.events",
            file(&["oom_group_kill", "low", "high", "max", "oom", "oom_kill"], &memory),
        ),
        (
            "cpu.stat",
            file(
                &["usage_usec", "user_usec", "system_usec", "nr_throttled", "throttled_usec"],
                &cpu,
            ),
        ),
        ("pids.current", format!("{}\n", pids[0])),
        ("pids.peak", format!("{}\n", pids[1])),
        ("pids.events", file(&["max_reached", "max"], &[7, pids[2]])),
    ]);
    let stats = parsers::stats(|name| files.get(name).cloned()).expect("files that can be read");
    let found = stats.memory.expect("memory");
    assert_eq!(
        [found.high_events, found.max_events, found.oom_events, found.oom_kills],
        memory[2..],
    );
    assert_eq!((found.current, found.peak, found.swap), (4096, None, None));
    let found = stats.cpu.expect("cpu");
    let micros = Duration::from_micros;
    assert_eq!((found.user, found.system), (micros(cpu[1]), micros(cpu[2])));
    assert_eq!((found.throttled_periods, found.throttled), (Some(cpu[3]), Some(micros(cpu[4]))));
    let found = stats.pids.expect("pids");
    assert_eq!([found.current, found.peak.expect("a peak"), found.refused], pids);
    assert_eq!((stats.io, stats.cpu_pressure), (None, None));
}

/// A key has a value only if some line consists of both.
fn keyed_of(text: &str, key: u8) {
    let key = WORDS[usize::from(key) % WORDS.len()];
    let found = parsers::keyed(text, key);
    if found != 0 {
        let line =
            |line: &str| line.starts_with(key) && line.trim().ends_with(found.to_string().as_str());
        assert!(text.lines().any(line), "{key:?} in {text:?}");
    }
    // A line before or after with a longer key changes nothing.
    let more = format!("{key}_more 1\n{text}\n{key}_more 1\n");
    assert_eq!(parsers::keyed(&more, key), found, "{key:?} in {text:?}");
}

fn disks(disks: Vec<Disk>) {
    let mut content = String::new();
    let mut expected = Vec::new();
    for Disk { major, minor, counts, more } in disks {
        write!(content, "{major}:{minor}").unwrap();
        let [read, written, reads, writes] = counts.unwrap_or_default();
        if counts.is_some() {
            if more {
                content.push_str(" xrbytes=9 cost.wios=9");
            }
            write!(
                content,
                " rbytes={read} wbytes={written} rios={reads} wios={writes} dbytes=9 dios=9"
            )
            .unwrap();
            if more {
                content.push_str(" cost.vrate=100.00 cost.usage=9");
            }
        } else {
            content.push(' ');
        }
        content.push('\n');
        expected.push((Device::new(major, minor), [read, written, reads, writes]));
    }
    let found = io_stats(&content);
    let of = |io: &IoStats| (io.device, [io.read_bytes, io.written_bytes, io.reads, io.writes]);
    assert_eq!(found.iter().map(of).collect::<Vec<_>>(), expected, "{content}");
}

fn disks_of(text: &str) {
    let found = io_stats(text);
    let devices = found.iter().map(|io| io.device);
    let first_words = text.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok());
    assert!(devices.eq(first_words), "{text:?}");
}

fn io_stats(content: &str) -> Vec<IoStats> {
    let file = |name: &str| (name == "io.stat").then(|| content.to_owned());
    parsers::stats(file).and_then(|stats| stats.io).expect("a file")
}

fn pressure(some: &Line, full: Option<&Line>) {
    let mut content = String::new();
    let lines = [("some", Some(some)), ("full", full)];
    for (kind, Line { shares, total }) in
        lines.into_iter().filter_map(|(kind, line)| Some((kind, line?)))
    {
        let share = |share: u16| format!("{}.{:02}", share / 100, share % 100);
        let [tens, minutes, longest] = shares.map(share);
        writeln!(content, "{kind} avg10={tens} avg60={minutes} avg300={longest} total={total}")
            .unwrap();
    }
    let found: Pressure = content.parse().unwrap_or_else(|error| panic!("{error}"));
    let found = [Some(found.some), found.full];
    for (found, line) in found.into_iter().zip([Some(some), full]) {
        let (Some(found), Some(line)) = (found, line) else {
            assert_eq!(found.is_some(), line.is_some());
            continue;
        };
        let shares = [found.avg10, found.avg60, found.avg300];
        let hundredths = shares.map(|share| (f64::from(share) * 100.0).round() as u16);
        assert_eq!(hundredths, line.shares);
        assert_eq!(found.total, Duration::from_micros(line.total));
    }
}

/// Whatever is accepted has shares that are finite and not negative.
fn pressure_of(text: &str) {
    let mut candidates = vec![text.to_owned()];
    // Random text rarely has all the fields, so it is also put into one field of a valid line at a
    // time.
    for field in ["avg10=", "avg60=", "avg300=", "total="] {
        let whole = "some avg10=1.00 avg60=2.00 avg300=3.00 total=4\n";
        candidates.push(whole.replace(field, &format!("{field}{text} x")));
    }
    for candidate in candidates {
        let Ok(found) = candidate.parse::<Pressure>() else { continue };
        for stalled in [Some(found.some), found.full].into_iter().flatten() {
            for share in [stalled.avg10, stalled.avg60, stalled.avg300] {
                assert!(share.is_finite() && share.is_sign_positive(), "{candidate:?}");
            }
        }
    }
}

/// Writes a path or a name as the kernel does: `mangle` in fs/proc_namespace.c.
fn mangled(bytes: &[u8]) -> Vec<u8> {
    let mut field = Vec::new();
    for byte in bytes {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' | b'#' => {
                field.extend(format!("\\{byte:03o}").into_bytes());
            }
            _ => field.push(*byte),
        }
    }
    field
}

fn mounts(mounts: Vec<Mount>) {
    const KINDS: [&[u8]; 4] = [b"cgroup2", b"cgroup", b"sysfs", b"fuse.cgroup2"];
    let mut table = Vec::new();
    let mut expected = None;
    for Mount { root, point, source, optional, kind } in mounts {
        let kind = KINDS[usize::from(kind) % KINDS.len()];
        // No path or name can have a NUL; a path begins with a slash.
        let path = |bytes: Vec<u8>| {
            let bytes = bytes.into_iter().filter(|byte| *byte != 0);
            std::iter::once(b'/').chain(bytes).collect::<Vec<u8>>()
        };
        let (root, point) = (path(root), path(point));
        let source: Vec<u8> = source.into_iter().filter(|byte| *byte != 0).collect();
        table.extend_from_slice(b"30 22 0:26 ");
        table.extend(mangled(&root));
        table.push(b' ');
        table.extend(mangled(&point));
        table.extend_from_slice(b" rw,nosuid");
        for number in 0..optional % 4 {
            table.extend(format!(" shared:{number}").into_bytes());
        }
        table.extend_from_slice(b" - ");
        table.extend_from_slice(kind);
        table.push(b' ');
        table.extend(mangled(&source));
        table.extend_from_slice(b" rw,nsdelegate\n");
        if kind == b"cgroup2" {
            expected = expected.or(Some(point));
        }
    }
    let found = parsers::mount_point(&table);
    let expected = expected.as_deref().map(|point| Path::new(OsStr::from_bytes(point)));
    assert_eq!(found.as_deref(), expected);
}

fn unescape(escapes: &[Escape]) {
    const DIGITS: &[u8; 16] = b"0123456701234+-8";
    let mut field = Vec::new();
    for escape in escapes {
        match escape {
            Escape::Byte(byte) => field.push(*byte),
            Escape::Backslash(digits) => {
                field.push(b'\\');
                field.extend(digits.map(|digit| DIGITS[usize::from(digit % 16)]));
            }
        }
    }
    assert_eq!(parsers::unescape(&field), unescaped(&field), "{field:?}");
}

/// A backslash and three octal digits of at most 0o377 are a byte; everything else is unchanged.
fn unescaped(field: &[u8]) -> Vec<u8> {
    match field {
        [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', rest @ ..] => {
            let byte = (a - b'0') * 64 + (b - b'0') * 8 + (c - b'0');
            [&[byte], unescaped(rest).as_slice()].concat()
        }
        [first, rest @ ..] => [&[*first], unescaped(rest).as_slice()].concat(),
        [] => Vec::new(),
    }
}

fn process(name: Vec<u8>, state: u8, group: u32, start: u64, other: [i64; 3]) {
    const STATES: &[u8] = b"RSDZTtXI";
    let state = STATES[usize::from(state) % STATES.len()];
    let [a, b, c] = other;
    let mut content = b"42 (".to_vec();
    content.extend(name);
    let numbers = format!(
        ") {} {a} {group} {b} {c} -1 4194304 {a} {b} {c} 0 1 2 3 4 20 0 1 0 {start} {a} {b} {c}\n",
        char::from(state)
    );
    content.extend(numbers.into_bytes());
    assert_eq!(parsers::stat(&content), Some((state, group)));
}
