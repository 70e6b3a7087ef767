//! Owns the letter by which a host tells a launcher what to do: its bytes, written and read.
//!
//! Invariant: what was written is read as it was, and bytes that no host of this version has
//! written are refused. Knows nothing of how a letter is delivered.

use std::ffi::CString;

use linux_raw_sys::general as raw;

use crate::command::Signal;
use crate::sys::capabilities::Capabilities;
use crate::sys::plan::{CStringArray, Program, ResourceLimit};

/// What a letter begins with.
const MAGIC: [u8; 8] = *b"jobwork\n";

/// The version of everything that host and launcher have to agree on: letters, the numbers of the
/// stages and the order of the steps. Any change to one of them changes it.
pub(crate) const VERSION: u32 = 2;

/// What a launcher is to do.
#[derive(Debug)]
pub(super) enum Letter {
    /// Tell its version, and exit.
    Probe,
    /// Become a program.
    Start(Box<Order>),
}

/// What a launcher needs to know to become a program.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) program: Program,
    /// The host's process id, to notice its death.
    pub(super) host: i32,
    /// The capabilities of the host.
    pub(super) capabilities: Capabilities,
}

/// The letter that only asks for the version.
pub(super) fn probe() -> Vec<u8> {
    header(0).0
}

/// The letter that starts a program.
pub(super) fn start(program: &Program, host: i32, capabilities: Capabilities) -> Vec<u8> {
    // Exhaustive, so that nothing new can be left out.
    let Program {
        paths,
        argv,
        envp,
        root,
        current_dir,
        uid,
        gid,
        groups,
        umask,
        limits,
        oom_score_adj,
        nice,
        scheduler,
        affinity,
        io_priority,
        new_session_keyring,
        capability_bounding_set,
        securebits,
        no_new_privs,
        parent_death_signal,
    } = program;
    let Capabilities { effective, permitted, inheritable, ambient } = capabilities;
    let mut letter = header(1);
    letter.u32(host.cast_unsigned());
    for set in [effective, permitted, inheritable, ambient] {
        letter.u64(set);
    }
    for strings in [paths.as_slice(), argv.strings(), envp.strings()] {
        letter.list(strings, |letter, string| letter.bytes(string.as_bytes()));
    }
    letter.list(limits, |letter, ResourceLimit { resource, limit }| {
        letter.u32(*resource);
        letter.u64(limit.rlim_cur);
        letter.u64(limit.rlim_max);
    });
    for dir in [root, current_dir] {
        letter.option(dir.as_ref(), |letter, dir| letter.bytes(dir.as_bytes()));
    }
    letter.option(groups.as_ref(), |letter, groups| {
        letter.list(groups, |letter, id| letter.u32(*id));
    });
    for number in [*uid, *gid, *umask, *securebits, nice.map(i32::cast_unsigned)] {
        letter.option(number, Writer::u32);
    }
    letter.option(oom_score_adj.as_ref(), |letter, text| letter.bytes(text.as_bytes()));
    letter.option(*scheduler, |letter, (policy, priority)| {
        letter.u32(policy);
        letter.u32(u32::from(priority));
    });
    letter.option(affinity.as_ref(), |letter, words| {
        letter.list(words, |letter, word| letter.u64(*word as u64));
    });
    letter.option(io_priority.map(u32::from), Writer::u32);
    letter.option(*capability_bounding_set, Writer::u64);
    letter.option(*parent_death_signal, |letter, signal| {
        letter.u32(signal.as_raw().cast_unsigned());
    });
    letter.flag(*new_session_keyring);
    letter.flag(*no_new_privs);
    letter.0
}

/// Reads a letter; `None` for bytes that are not one of this version.
pub(super) fn read(bytes: &[u8]) -> Option<Letter> {
    let mut letter = Reader(bytes);
    if letter.take(MAGIC.len())? != MAGIC || letter.u32()? != VERSION {
        return None;
    }
    let content = match letter.u32()? {
        0 => Letter::Probe,
        1 => Letter::Start(Box::new(letter.order()?)),
        _ => return None,
    };
    letter.0.is_empty().then_some(content)
}

fn header(purpose: u32) -> Writer {
    let mut letter = Writer(MAGIC.to_vec());
    letter.u32(VERSION);
    letter.u32(purpose);
    letter
}

/// Appends values: numbers with their low bytes first, lengths and numbers of elements before
/// what they count.
struct Writer(Vec<u8>);

impl Writer {
    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn flag(&mut self, value: bool) {
        self.u32(u32::from(value));
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.u64(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn list<T>(&mut self, elements: &[T], write: impl Fn(&mut Self, &T)) {
        self.u64(elements.len() as u64);
        for element in elements {
            write(self, element);
        }
    }

    fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.flag(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }
}

/// Takes values from the front; `None` when there are too few bytes, or those of no such value.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn order(&mut self) -> Option<Order> {
        let host = self.u32()?.cast_signed();
        let capabilities = Capabilities {
            effective: self.u64()?,
            permitted: self.u64()?,
            inheritable: self.u64()?,
            ambient: self.u64()?,
        };
        let program = Program {
            paths: self.list(Self::string)?,
            argv: CStringArray::new(self.list(Self::string)?),
            envp: CStringArray::new(self.list(Self::string)?),
            limits: self.list(|letter| {
                let resource = letter.u32()?;
                let limit = raw::rlimit64 { rlim_cur: letter.u64()?, rlim_max: letter.u64()? };
                Some(ResourceLimit { resource, limit })
            })?,
            root: self.option(Self::string)?,
            current_dir: self.option(Self::string)?,
            groups: self.option(|letter| letter.list(Self::u32))?,
            uid: self.option(Self::u32)?,
            gid: self.option(Self::u32)?,
            umask: self.option(Self::u32)?,
            securebits: self.option(Self::u32)?,
            nice: self.option(Self::u32)?.map(u32::cast_signed),
            oom_score_adj: self.option(|letter| String::from_utf8(letter.bytes()?.into()).ok())?,
            scheduler: self
                .option(|letter| Some((letter.u32()?, u8::try_from(letter.u32()?).ok()?)))?,
            affinity: self
                .option(|letter| letter.list(|letter| usize::try_from(letter.u64()?).ok()))?,
            io_priority: self.option(|letter| u16::try_from(letter.u32()?).ok())?,
            capability_bounding_set: self.option(Self::u64)?,
            parent_death_signal: self
                .option(|letter| Signal::from_raw(letter.u32()?.cast_signed()))?,
            new_session_keyring: self.flag()?,
            no_new_privs: self.flag()?,
        };
        Some(Order { program, host, capabilities })
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.u32()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.u64()?;
        self.take(usize::try_from(length).ok()?)
    }

    fn string(&mut self) -> Option<CString> {
        CString::new(self.bytes()?).ok()
    }

    /// Elements are read one by one, and each takes some bytes, so a wrong number of them makes
    /// nobody allocate more than the letter is long.
    fn list<T>(&mut self, read: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let length = self.u64()?;
        (0..length).map(|_| read(self)).collect()
    }

    fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        if self.flag()? { Some(Some(read(self)?)) } else { Some(None) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(words: &[&[u8]]) -> Vec<CString> {
        words.iter().map(|word| CString::new(*word).unwrap()).collect()
    }

    /// A program with a value other than the default in every field.
    fn full() -> Program {
        Program {
            paths: strings(&[b"/bin/x", b"./\xff"]),
            argv: CStringArray::new(strings(&[b"x", b"", b"\xfe\n"])),
            envp: CStringArray::new(strings(&[b"A=", b"B=\xff"])),
            root: Some(c"/srv".to_owned()),
            current_dir: Some(c"/tmp".to_owned()),
            uid: Some(1),
            gid: Some(u32::MAX - 1),
            groups: Some(vec![3, 4]),
            umask: Some(0o27),
            limits: vec![ResourceLimit {
                resource: 7,
                limit: raw::rlimit64 { rlim_cur: 5, rlim_max: u64::MAX },
            }],
            oom_score_adj: Some("-17".to_owned()),
            nice: Some(-20),
            scheduler: Some((2, 99)),
            affinity: Some(vec![5, usize::MAX]),
            io_priority: Some(0x4003),
            new_session_keyring: true,
            capability_bounding_set: Some(1 << 40),
            securebits: Some(3),
            no_new_privs: true,
            parent_death_signal: Some(Signal::USR1),
        }
    }

    const SETS: Capabilities =
        Capabilities { effective: 1, permitted: 3, inheritable: 7, ambient: u64::MAX };

    #[test]
    fn a_letter_is_read_as_it_was_written() {
        let array = |words| CStringArray::new(strings(words));
        let bare = Program::new(strings(&[b"/bin/true"]), array(&[b"true"]), array(&[]));
        for program in [bare, full()] {
            let bytes = start(&program, 4321, SETS);
            let Some(Letter::Start(order)) = read(&bytes) else { panic!("{bytes:?}") };
            let Order { program: read, host, capabilities } = *order;
            assert_eq!((host, capabilities), (4321, SETS));
            assert_eq!(start(&read, host, capabilities), bytes);
            // The arrays of pointers differ, and nothing else.
            let debug = |program: &Program| {
                let Program { paths, limits, current_dir, groups, nice, scheduler, .. } = program;
                format!("{paths:?} {limits:?} {current_dir:?} {groups:?} {nice:?} {scheduler:?}")
            };
            assert_eq!(debug(&read), debug(&program));
            assert_eq!(read.argv.strings(), program.argv.strings());
            assert_eq!(read.envp.strings(), program.envp.strings());
        }
        assert!(matches!(read(&probe()), Some(Letter::Probe)));
    }

    #[test]
    fn what_is_not_a_letter_is_refused() {
        let whole = start(&full(), 1, SETS);
        for length in 0..whole.len() {
            assert!(read(&whole[..length]).is_none(), "cut off after {length}");
        }
        assert!(read(&[whole.as_slice(), b"\0"].concat()).is_none());
        // Whatever one byte is changed to, it is read or refused.
        for index in 0..whole.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut changed = whole.clone();
                changed[index] = value;
                let read = read(&changed);
                assert!(index >= 12 || changed == whole || read.is_none(), "byte {index}");
            }
        }
    }

    /// If this fails, host and launcher of two releases would misunderstand each other: give the
    /// protocol its next version, and the test the numbers that it has found.
    #[test]
    fn what_the_version_stands_for_has_not_changed() {
        let stages: Vec<String> =
            crate::error::Stage::ALL.iter().map(|stage| format!("{stage:?}")).collect();
        let stages = stages.join(" ");
        let sum =
            start(&full(), 1, SETS).iter().chain(stages.as_bytes()).fold(0u64, |sum, byte| {
                sum.wrapping_mul(0x0100_0000_01b3).wrapping_add(u64::from(*byte) + 1)
            });
        assert_eq!((VERSION, sum), (2, 13_527_817_612_915_126_604), "{stages}");
    }
}
