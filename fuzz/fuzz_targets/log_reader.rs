//! Owns the fuzz target `log_reader`: any sequence of what writers, jobs, readers and the kernel
//! can do, against a plain model of what each tail must read.
//!
//! Invariant: the model knows files, not the engine. A tail reads a stretch of one generation of
//! its file, each byte once, and one of a later generation only after `Truncated`. A tail that
//! follows a name reads files that the name has led to, in their order, another one only after
//! `Replaced`, and leaves none before it has read what was in it when a later one had its first
//! byte. When the world is quiet, every tail has read everything.

#![no_main]

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use arbitrary::Arbitrary;
use jobworker::simulator::{Content, Engine, Interference, Link, Name, byte};
use jobworker::{Fill, Position, Read, TailId, TailOptions};
use libfuzzer_sys::fuzz_target;

/// Within this many generations, every byte shows which one it is of.
const MOST_GENERATIONS: u64 = 10;
const MOST_TAILS: usize = 24;
const MOST_OPERATIONS: usize = 400;
const EIO: i32 = 5;
/// How many names there are that tails follow.
const LINKS: usize = 2;
/// Stands for no file.
const NOWHERE: usize = usize::MAX;

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Meddling {
    None,
    Append(u8),
    Rewrite(u8),
    Overtake(u8),
    Splice(u8),
    Replace,
    Unlink,
    Fail,
}

type Script = Option<(Meddling, Meddling, Meddling, Meddling)>;

#[derive(Arbitrary, Debug)]
enum From {
    Start,
    End,
    Offset(u8),
    LastLines(u8),
}

/// What a job does with the name of its log.
#[derive(Arbitrary, Debug)]
enum Naming {
    Own,
    Other,
    Gone,
}

#[derive(Arbitrary, Debug)]
enum Operation {
    Append { file: u8, amount: u8 },
    Rewrite { file: u8, amount: u8 },
    Rename { file: u8, name: Naming },
    Create { file: u8 },
    Open { file: u8, from: From, follow: bool, of_job: bool, script: Script },
    Lead { link: u8, file: Option<u8> },
    OpenName { link: u8, from: From, script: Script },
    DeliverLink { link: u8 },
    Read { tail: u8, size: u8, script: Script },
    Fill { tail: u8, script: Script },
    Consume { tail: u8, amount: u8 },
    Drain { tail: u8, size: u8, script: Script },
    Close { tail: u8 },
    Deliver { file: u8 },
    Turn { wait: bool, script: Script },
    Emit { count: u8 },
    Sleep { micros: u8 },
    Finish { file: u8, script: Script },
    Remove { file: u8, keep: bool, script: Script },
    Overflow,
    LoseWatch { file: u8 },
    Quiet { ignored: u8 },
}

#[derive(Arbitrary, Debug)]
struct Input {
    files: u8,
    window: u8,
    operations: Vec<Operation>,
}

/// What a tail must read.
#[derive(Debug)]
struct Tail {
    id: TailId,
    file: usize,
    of_job: bool,
    /// For a snapshot, the least and the greatest offset at which it may end.
    snapshot: Option<(u64, u64)>,
    start: u64,
    offset: u64,
    /// The generations that it may be reading.
    least: u64,
    most: u64,
    /// The generation that it is reading, once a byte has shown it.
    reading: Option<u64>,
    truncated: bool,
    /// Whether it is up to date, and there was no event since.
    idle: bool,
    ended: bool,
    filled: usize,
    follows: Option<Follows>,
}

/// What is known of a tail that follows a name.
#[derive(Clone, Debug)]
struct Follows {
    link: usize,
    /// The place in the history of the name from which on its next file comes.
    next: usize,
    /// Where it has left the files that it has read.
    left: HashMap<usize, u64>,
}

struct World {
    engine: Engine,
    /// By token.
    tails: Vec<Option<Tail>>,
    /// How the jobs of the files have finished.
    finished: Vec<Option<Finish>>,
    jobs: Vec<Job>,
    /// For each name and each place in its history, the sizes that all files had at least when the
    /// file there had bytes for the first time since it had the name.
    sizes: [Vec<Option<Vec<u64>>>; LINKS],
}

/// Whether the file is the log of a job. It is that of one job at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Job {
    NotYet,
    There,
    Removed,
}

/// How the job of a file has finished.
#[derive(Clone, Copy, Debug)]
struct Finish {
    /// Where its output ends according to the report, or `None` if that could not be determined.
    end: Option<u64>,
    /// The size that the file had before that, and its generation.
    size: u64,
    generation: u64,
}

fn held(content: &Content, generation: u64) -> u64 {
    match usize::try_from(generation).ok().and_then(|past| content.past.get(past)) {
        Some(size) => *size,
        None if generation == content.generation => content.size,
        None => 0,
    }
}

impl World {
    fn new(input: &Input) -> Self {
        let files = usize::from(input.files % 3) + 1;
        let mut engine = Engine::new(files, 16 + usize::from(input.window % 64));
        engine.machine().links = (0..LINKS).map(|_| Link::default()).collect();
        let (jobs, finished) = (vec![Job::NotYet; files], vec![None; files]);
        let sizes = [const { Vec::new() }; LINKS];
        Self { engine, tails: Vec::new(), finished, jobs, sizes }
    }

    /// Notes which files have bytes now and had a name without them before; `before` are the sizes
    /// of then.
    fn note_first_bytes(&mut self, before: &[u64]) {
        let machine = self.engine.machine();
        for (link, sizes) in machine.links.iter().zip(&mut self.sizes) {
            sizes.resize(link.history.len(), None);
            for (file, sizes) in link.history.iter().zip(sizes) {
                let has_bytes = file.is_some_and(|file| machine.files[file].size > 0);
                if has_bytes && sizes.is_none() {
                    *sizes = Some(before.to_vec());
                }
            }
        }
    }

    fn sizes_now(&mut self) -> Vec<u64> {
        self.engine.machine().files.iter().map(|content| content.size).collect()
    }

    fn open_name(&mut self, link: usize, from: &From, script: Script) {
        if self.tails.len() >= MOST_TAILS {
            return;
        }
        let position = match from {
            From::Start => Position::Start,
            From::End => Position::End,
            From::Offset(offset) => Position::Offset(u64::from(*offset)),
            From::LastLines(lines) => Position::LastLines(u64::from(*lines % 8)),
        };
        let next = self.engine.machine().links[link].history.len();
        let target = self.engine.machine().links[link].target();
        let least = target.map_or(0, |file| self.content(file).generation);
        let failures = self.engine.machine().failures;
        self.meddle(script);
        let token = self.tails.len();
        let mut options = TailOptions::new(position);
        let Ok(id) = self.engine.open_name(link, *options.by_name(), token) else {
            assert!(self.engine.machine().failures > failures, "a failure without a reason");
            return;
        };
        assert_eq!(self.engine.file_of(id), target);
        let offset = self.engine.position(id).expect("it was just opened");
        let follows = Follows { link, next, left: HashMap::new() };
        self.tails.push(Some(Tail {
            id,
            file: target.unwrap_or(NOWHERE),
            of_job: false,
            snapshot: None,
            start: offset,
            offset,
            least,
            most: u64::MAX,
            reading: None,
            truncated: false,
            idle: true,
            ended: false,
            filled: 0,
            follows: Some(follows),
        }));
    }

    /// A tail may be in the first file that its name has led to, without a report.
    fn follow(&mut self, token: usize) {
        let tail = self.tails[token].as_mut().expect("an open tail");
        if tail.file == NOWHERE && self.engine.file_of(tail.id).is_some() {
            self.move_on(token, 0);
        }
    }

    /// A tail is in the next file of its name, at this offset.
    fn move_on(&mut self, token: usize, offset: u64) {
        let tail = self.tails[token].as_mut().expect("an open tail");
        let file = self.engine.file_of(tail.id).expect("a tail moves to a file");
        let follows = tail.follows.as_mut().expect("only a tail of a name moves");
        let history = &self.engine.machine().links[follows.link].history;
        let place = history.iter().skip(follows.next).position(|other| *other == Some(file));
        let place = place.unwrap_or_else(|| panic!("{file} is not in {history:?} after that"));
        follows.next += place + 1;
        tail.file = file;
        tail.offset = offset;
        (tail.least, tail.most, tail.reading) = (0, u64::MAX, None);
        (tail.truncated, tail.filled, tail.idle) = (false, 0, false);
    }

    fn replaced(&mut self, token: usize, missed: bool) {
        let tail = self.tails[token].as_ref().expect("an open tail");
        let file = self.engine.file_of(tail.id).expect("a tail moves to a file");
        let start = self.engine.position(tail.id).expect("an open tail");
        let follows = tail.follows.as_ref().expect("only a tail of a name moves");
        if tail.file == NOWHERE {
            // In one call, it has gone through a file without bytes, silently as for the first one.
            assert_eq!(start, 0, "{tail:?} goes on in {file}");
            return self.move_on(token, start);
        }
        let sizes = self.sizes[follows.link].iter().skip(follows.next).flatten();
        let least = sizes.map(|sizes| sizes[tail.file]).min();
        let least = least.unwrap_or_else(|| panic!("no later file has bytes: {tail:?}"));
        if self.engine.machine().files[tail.file].past.is_empty() {
            assert!(tail.offset >= least, "{tail:?} has left its file before {least}");
        }
        let again = follows.left.get(&file).copied().unwrap_or(0);
        // It may have been opened behind the end that the file had when it was left.
        let same = start == again || start < again && again == tail.start;
        assert!(missed || start == 0 || same, "{tail:?} goes on at {start} of {file}");
        assert!(
            missed || same || !self.engine.machine().files[file].past.is_empty(),
            "{tail:?} reads {file} again"
        );
        let tail = self.tails[token].as_mut().expect("an open tail");
        let (left, offset) = (tail.file, tail.offset);
        tail.follows.as_mut().expect("as above").left.insert(left, offset);
        self.move_on(token, start);
    }

    fn file(&self, file: u8) -> usize {
        usize::from(file) % self.finished.len()
    }

    fn content(&mut self, file: usize) -> &mut Content {
        &mut self.engine.machine().files[file]
    }

    /// A tail that is open, if there is any.
    fn tail(&self, tail: u8) -> Option<usize> {
        let open: Vec<usize> =
            (0..self.tails.len()).filter(|token| self.tails[*token].is_some()).collect();
        (!open.is_empty()).then(|| open[usize::from(tail) % open.len()])
    }

    fn meddle(&mut self, script: Script) {
        let Some((a, b, c, d)) = script else { return };
        let machine = self.engine.machine();
        machine.script = [a, b, c, d]
            .into_iter()
            .map(|meddling| match meddling {
                Meddling::Append(amount) => Interference::Append(u64::from(amount)),
                Meddling::Rewrite(amount) => Interference::Rewrite(u64::from(amount)),
                Meddling::Overtake(amount) => Interference::Overtake(u64::from(amount)),
                Meddling::Splice(amount) => Interference::Splice(u64::from(amount)),
                Meddling::Replace => Interference::Replace,
                Meddling::Unlink => Interference::Unlink,
                Meddling::Fail => Interference::Fail(EIO),
                Meddling::None => Interference::Nothing,
            })
            .collect();
        if machine.files.iter().any(|content| content.generation + 4 > MOST_GENERATIONS) {
            machine.script.retain(|interference| {
                !matches!(
                    interference,
                    Interference::Rewrite(_) | Interference::Overtake(_) | Interference::Splice(_)
                )
            });
        }
    }

    fn do_one(&mut self, operation: &Operation) {
        let before = self.sizes_now();
        self.perform(operation);
        self.engine.machine().script.clear();
        self.note_first_bytes(&before);
    }

    fn perform(&mut self, operation: &Operation) {
        match operation {
            Operation::Lead { link, file } => {
                let file = file.map(|file| self.file(file));
                let link = &mut self.engine.machine().links[usize::from(*link) % LINKS];
                if link.history.len() < 64 {
                    link.lead_to(file);
                }
            }
            Operation::OpenName { link, from, script } => {
                self.open_name(usize::from(*link) % LINKS, from, *script);
            }
            Operation::DeliverLink { link } => {
                self.engine.deliver_link(usize::from(*link) % LINKS);
            }
            Operation::Append { file, amount } => {
                let file = self.file(*file);
                self.content(file).append(u64::from(*amount));
            }
            Operation::Rewrite { file, amount } => {
                let file = self.file(*file);
                let content = self.content(file);
                if content.generation < MOST_GENERATIONS {
                    content.rewrite(u64::from(*amount));
                }
            }
            Operation::Rename { file, name } => {
                let file = self.file(*file);
                self.content(file).name = match name {
                    Naming::Own => Name::Own,
                    Naming::Other => Name::Other,
                    Naming::Gone => Name::Gone,
                };
            }
            Operation::Create { file } => {
                let file = self.file(*file);
                if self.jobs[file] == Job::NotYet {
                    self.jobs[file] = Job::There;
                    self.engine.create(file);
                }
            }
            Operation::Open { file, from, follow, of_job, script } => {
                let file = self.file(*file);
                self.open(file, from, *follow, *of_job, *script);
            }
            Operation::Read { tail, size, script } => {
                if let Some(token) = self.tail(*tail) {
                    self.meddle(*script);
                    self.read(token, usize::from(*size) + 1);
                }
            }
            Operation::Fill { tail, script } => {
                if let Some(token) = self.tail(*tail) {
                    self.meddle(*script);
                    self.fill(token);
                }
            }
            Operation::Consume { tail, amount } => {
                if let Some(token) = self.tail(*tail) {
                    self.consume(token, usize::from(*amount));
                }
            }
            Operation::Drain { tail, size, script } => {
                if let Some(token) = self.tail(*tail) {
                    self.meddle(*script);
                    self.drain(token, usize::from(*size) + 1);
                }
            }
            Operation::Close { tail } => {
                if let Some(token) = self.tail(*tail) {
                    self.close(token);
                }
            }
            Operation::Deliver { file } => {
                let file = self.file(*file);
                self.engine.deliver(file);
            }
            Operation::Turn { wait, script } => {
                self.meddle(*script);
                self.engine.turn(*wait);
            }
            Operation::Emit { count } => self.emit(usize::from(*count) + 1),
            Operation::Sleep { micros } => {
                self.engine.sleep(Duration::from_micros(u64::from(*micros)))
            }
            Operation::Finish { file, script } => {
                let file = self.file(*file);
                self.finish(file, *script);
            }
            Operation::Remove { file, keep, script } => {
                let file = self.file(*file);
                self.remove(file, *keep, *script);
            }
            Operation::Overflow => self.engine.overflow(),
            Operation::LoseWatch { file } => {
                let file = self.file(*file);
                self.engine.lose_watch(file);
            }
            Operation::Quiet { ignored } => self.quiet(*ignored),
        }
    }

    fn open(&mut self, file: usize, from: &From, follow: bool, of_job: bool, script: Script) {
        if self.tails.len() >= MOST_TAILS || of_job && self.jobs[file] != Job::There {
            return;
        }
        let position = match from {
            From::Start => Position::Start,
            From::End => Position::End,
            From::Offset(offset) => Position::Offset(u64::from(*offset)),
            From::LastLines(lines) => Position::LastLines(u64::from(*lines % 8)),
        };
        let mut options = TailOptions::new(position);
        if !follow {
            options.snapshot();
        }
        let (generation, size) = (self.content(file).generation, self.content(file).size);
        let finished = self.finished[file].filter(|_| of_job);
        let failures = self.engine.machine().failures;
        self.meddle(script);
        let token = self.tails.len();
        let opened = if of_job {
            self.engine.open(file, options, token)
        } else {
            self.engine.open_file(file, options, token)
        };
        let Ok(id) = opened else {
            assert!(self.engine.machine().failures > failures, "{opened:?}");
            return;
        };
        let content = self.content(file);
        let (most, rewritten) = (content.generation, content.generation != generation);
        let (low, high) = match finished {
            _ if rewritten => (0, u64::MAX),
            None => (size, content.size),
            Some(Finish { end: Some(end), .. }) => (size.min(end), content.size.min(end)),
            // The end was determined at some time since then, or is now.
            Some(finish) if finish.generation == generation => {
                (size.min(finish.size), content.size)
            }
            Some(_) => (0, content.size),
        };
        let start = self.engine.position(id).expect("it was just opened");
        match position {
            Position::Start => assert_eq!(start, 0),
            Position::Offset(offset) => assert_eq!(start, offset),
            Position::End => {
                assert!((low..=high).contains(&start), "{start} is not within {low}..={high}")
            }
            Position::LastLines(lines) if low == high => {
                let newlines = (0..low)
                    .filter(|offset| byte(generation, *offset) == b'\n' && *offset + 1 < low);
                let begins: Vec<u64> =
                    std::iter::once(0).chain(newlines.map(|offset| offset + 1)).collect();
                let expected = match lines {
                    0 => low,
                    lines => {
                        begins[begins.len().saturating_sub(usize::try_from(lines).expect("few"))]
                    }
                };
                assert_eq!(start, expected, "the last {lines} lines");
            }
            _ => {}
        }
        // The generation of a byte that was not there yet is not known.
        let known = start > 0 && start <= size && !rewritten;
        self.tails.push(Some(Tail {
            id,
            file,
            of_job,
            snapshot: (!follow || finished.is_some_and(|finish| finish.end.is_some()))
                .then_some((low, high)),
            start,
            offset: start,
            least: generation,
            most: if known { most } else { u64::MAX },
            reading: None,
            truncated: false,
            // Unless there is an event for it already, it must get one for whatever comes.
            idle: true,
            ended: false,
            filled: 0,
            follows: None,
        }));
    }

    /// Checks bytes at the tail's offset against the model.
    fn check(&mut self, token: usize, bytes: &[u8]) {
        let tail = self.tails[token].as_mut().expect("an open tail");
        let content = &self.engine.machine().files[tail.file];
        let end = tail.offset + bytes.len() as u64;
        let is = |generation: u64| {
            end <= held(content, generation)
                && bytes
                    .iter()
                    .zip(tail.offset..)
                    .all(|(found, offset)| *found == byte(generation, offset))
        };
        assert!(!tail.ended, "bytes after the end");
        assert!(!bytes.is_empty(), "no bytes");
        let generations = match tail.reading {
            Some(generation) => generation..=generation,
            None => tail.least..=tail.most.min(content.generation),
        };
        let found = generations.clone().find(|generation| is(*generation));
        assert!(
            found.is_some(),
            "{bytes:?} are not of {generations:?} of {content:?}, read by {tail:?}"
        );
        tail.reading = found;
        if let Some((_, most)) = tail.snapshot {
            assert!(end <= most, "bytes beyond the end of a snapshot");
        }
    }

    fn truncated(&mut self, token: usize) {
        let tail = self.tails[token].as_mut().expect("an open tail");
        let content = &self.engine.machine().files[tail.file];
        assert!(!tail.ended, "truncated after the end");
        let before = tail.reading.unwrap_or(tail.least);
        assert!(
            content.generation > before,
            "{tail:?} has reported a truncation that never happened"
        );
        tail.least = before + 1;
        tail.most = u64::MAX;
        tail.reading = None;
        tail.truncated = true;
        tail.offset = 0;
        tail.filled = 0;
        tail.idle = false;
    }

    fn ended(&mut self, token: usize) {
        let tail = self.tails[token].as_mut().expect("an open tail");
        let content = &self.engine.machine().files[tail.file];
        if !tail.ended {
            match (tail.snapshot, self.finished[tail.file]) {
                (Some(_), _) if tail.truncated => {
                    assert_eq!(tail.offset, 0, "a truncated snapshot has more bytes")
                }
                (Some((least, most)), _) => {
                    let most = most.max(tail.start);
                    assert!(
                        tail.offset >= least && tail.offset <= most,
                        "{tail:?} has ended within {content:?}"
                    );
                }
                (None, Some(finish)) if tail.of_job => {
                    let complete = match finish.end {
                        Some(end) => tail.offset == end.max(tail.start),
                        None => tail.offset >= finish.size,
                    };
                    let gone = content.generation > finish.generation && tail.truncated;
                    let known = tail.truncated && finish.end.is_none_or(|end| tail.offset == end);
                    // The end could not be read, and the file was written anew before the next
                    // attempt.
                    let anew = finish.end.is_none()
                        && content.generation > finish.generation
                        && tail.reading.is_none_or(|read| read > finish.generation);
                    assert!(
                        complete || gone || known || anew,
                        "{tail:?} has ended before {finish:?}"
                    );
                }
                _ => panic!("{tail:?} has ended"),
            }
        }
        tail.ended = true;
        tail.idle = false;
    }

    fn up_to_date(&mut self, token: usize) {
        let tail = self.tails[token].as_mut().expect("an open tail");
        assert!(!tail.ended && tail.snapshot.is_none(), "{tail:?} is up to date, but has to end");
        tail.idle = true;
    }

    /// Returns whether there may be more at once.
    fn read(&mut self, token: usize, size: usize) -> bool {
        let id = self.tails[token].as_ref().expect("an open tail").id;
        let mut buffer = vec![0; size];
        let before = self.sizes_now();
        let read = self.engine.read(id, &mut buffer);
        self.note_first_bytes(&before);
        if !matches!(read, Ok(Read::Replaced { .. })) {
            self.follow(token);
        }
        let more = match read {
            Ok(Read::Data(length)) => {
                self.check(token, &buffer[..length]);
                let tail = self.tails[token].as_mut().expect("an open tail");
                tail.offset += length as u64;
                tail.filled = 0;
                tail.idle = false;
                true
            }
            Ok(Read::Truncated) => {
                self.truncated(token);
                true
            }
            Ok(Read::Replaced { missed }) => {
                self.replaced(token, missed);
                true
            }
            Ok(Read::Ended) => {
                self.ended(token);
                false
            }
            Ok(Read::UpToDate) => {
                self.up_to_date(token);
                false
            }
            Err(_) => self.failed(token),
        };
        self.check_position(token);
        more
    }

    fn failed(&mut self, token: usize) -> bool {
        let tail = self.tails[token].as_mut().expect("an open tail");
        assert!(!tail.ended, "a failure after the end");
        assert!(self.engine.machine().failures > 0, "a failure without a reason");
        tail.idle = false;
        false
    }

    fn fill(&mut self, token: usize) -> bool {
        let id = self.tails[token].as_ref().expect("an open tail").id;
        let before = self.sizes_now();
        let filled = self.engine.fill_buf(id).map(|fill| match fill {
            Fill::Data(bytes) => (bytes.to_vec(), Fill::Data(&[])),
            Fill::UpToDate => (Vec::new(), Fill::UpToDate),
            Fill::Truncated => (Vec::new(), Fill::Truncated),
            Fill::Replaced { missed } => (Vec::new(), Fill::Replaced { missed }),
            Fill::Ended => (Vec::new(), Fill::Ended),
        });
        self.note_first_bytes(&before);
        if !matches!(filled, Ok((_, Fill::Replaced { .. }))) {
            self.follow(token);
        }
        let more = match filled {
            Ok((bytes, Fill::Data(_))) => {
                self.check(token, &bytes);
                let tail = self.tails[token].as_mut().expect("an open tail");
                tail.filled = bytes.len();
                tail.idle = false;
                true
            }
            Ok((_, Fill::Truncated)) => {
                self.truncated(token);
                true
            }
            Ok((_, Fill::Replaced { missed })) => {
                self.replaced(token, missed);
                true
            }
            Ok((_, Fill::Ended)) => {
                self.ended(token);
                false
            }
            Ok((_, Fill::UpToDate)) => {
                self.up_to_date(token);
                false
            }
            Err(_) => self.failed(token),
        };
        self.check_position(token);
        more
    }

    fn consume(&mut self, token: usize, amount: usize) {
        let tail = self.tails[token].as_mut().expect("an open tail");
        self.engine.consume(tail.id, amount);
        let amount = amount.min(tail.filled);
        tail.filled -= amount;
        tail.offset += amount as u64;
        self.check_position(token);
    }

    fn check_position(&self, token: usize) {
        let tail = self.tails[token].as_ref().expect("an open tail");
        assert_eq!(self.engine.position(tail.id), Some(tail.offset));
    }

    /// Reads a tail until there is no more, by `read` and `fill_buf` in alternation.
    fn drain(&mut self, token: usize, size: usize) {
        for round in 0.. {
            assert!(round < 100_000, "reading a tail has no end");
            let more = if (round + size) % 3 == 0 {
                let more = self.fill(token);
                self.consume(token, size);
                more
            } else {
                self.read(token, size)
            };
            if !more {
                break;
            }
        }
    }

    fn close(&mut self, token: usize) {
        let Some(tail) = self.tails[token].take() else { return };
        assert!(self.engine.close(tail.id));
        assert!(!self.engine.close(tail.id), "it was closed twice");
    }

    fn emit(&mut self, count: usize) {
        for _ in 0..count {
            let Some((id, token)) = self.engine.emit() else { return };
            let tail = self.tails[token].as_mut().expect("no event for a closed tail");
            assert_eq!(tail.id, id);
            assert!(!tail.ended, "an event after the end");
            tail.idle = false;
        }
    }

    fn finish(&mut self, file: usize, script: Script) {
        if self.jobs[file] != Job::There || self.finished[file].is_some() {
            return;
        }
        self.meddle(script);
        let (generation, size) = (self.content(file).generation, self.content(file).size);
        let failures = self.engine.machine().failures;
        let end = match self.engine.finish(file) {
            Ok(end) => Some(end),
            Err(_) => {
                assert!(self.engine.machine().failures > failures, "a failure without a reason");
                None
            }
        };
        let most =
            self.content(file).past.iter().max().copied().unwrap_or(0).max(self.content(file).size);
        assert!(end.is_none_or(|end| end <= most), "an end beyond all that the file ever was");
        self.finished[file] = Some(Finish { end, size, generation });
    }

    fn remove(&mut self, file: usize, keep: bool, script: Script) {
        if self.jobs[file] != Job::There || self.finished[file].is_none() {
            return;
        }
        self.meddle(script);
        let failures = self.engine.machine().failures;
        let removed = self.engine.remove(file, keep);
        self.jobs[file] = Job::Removed;
        match removed {
            Ok(()) => assert!(keep || self.content(file).name == Name::Gone, "its name is left"),
            Err(_) => {
                assert!(self.engine.machine().failures > failures, "a failure without a reason")
            }
        }
        for tail in &mut self.tails {
            if tail.as_ref().is_some_and(|tail| tail.file == file && tail.of_job) {
                *tail = None;
            }
        }
    }

    /// Stops all writing, serves every tail but those that the host ignores, and checks that none
    /// has missed anything.
    fn quiet(&mut self, ignored: u8) {
        let ignored = |token: usize| ignored >> (token % 8) & 1 == 1;
        self.engine.machine().script.clear();
        for round in 0.. {
            assert!(round < 1000, "a busy loop");
            self.emit(usize::MAX);
            let mut busy = false;
            for token in 0..self.tails.len() {
                if self.tails[token].as_ref().is_some_and(|tail| !tail.idle && !tail.ended)
                    && !ignored(token)
                {
                    busy = true;
                    self.drain(token, 1 + token * 5);
                }
            }
            for file in 0..self.finished.len() {
                busy |= self.engine.deliver(file);
            }
            for link in 0..LINKS {
                busy |= self.engine.deliver_link(link);
            }
            if self.engine.has_work() {
                busy = true;
                self.engine.turn(true);
            }
            self.check_queue();
            if !busy {
                break;
            }
        }
        for (token, tail) in self.tails.iter().enumerate() {
            let Some(tail) = tail else { continue };
            if ignored(token) || tail.ended {
                continue;
            }
            if let Some(follows) = &tail.follows {
                let machine = self.engine.machine();
                let target = machine.links[follows.link].target();
                if tail.file == NOWHERE {
                    assert_eq!(target, None, "a name that is not followed: {tail:?}");
                    continue;
                }
                if let Some(target) = target {
                    let left = follows.left.get(&target).copied().unwrap_or(0);
                    let grown = machine.files[target].size > left;
                    assert!(!grown || tail.file == target, "{tail:?} is not in {target}");
                }
            }
            // Copied, because the model is borrowed.
            let (generation, size) = {
                let machine = self.engine.machine();
                (machine.files[tail.file].generation, machine.files[tail.file].size)
            };
            assert!(tail.snapshot.is_none(), "a snapshot without an end: {tail:?}");
            assert!(
                !tail.of_job || self.finished[tail.file].is_none(),
                "a finished job's tail without an end: {tail:?}"
            );
            let everything = tail.offset >= size && (tail.offset == size || tail.reading.is_none());
            let newest = size == 0
                || tail.reading.map_or(tail.most >= generation, |reading| reading == generation);
            assert!(
                everything && newest,
                "a lost wake-up: {tail:?}, generation {generation} of {size} bytes"
            );
        }
    }

    fn check_queue(&self) {
        let mut seen = HashSet::new();
        for id in self.engine.queued() {
            assert!(seen.insert(id), "two events for one tail in the queue");
        }
    }

    fn check_machine(&mut self) {
        self.check_queue();
        let open = self.tails.iter().flatten().count();
        assert_eq!(self.engine.tails(), open);
        let by_name = self.tails.iter().flatten().any(|tail| tail.follows.is_some());
        let mut logs = 0;
        for file in 0..self.finished.len() {
            let used = self.tails.iter().flatten().any(|tail| tail.file == file);
            let content = self.content(file);
            // Tails that follow names hold files that they will read.
            assert!(by_name || content.open() == usize::from(used), "descriptors");
            assert!(by_name || used || !content.is_watched(), "a watch that nobody needs");
            logs += usize::from(used || self.jobs[file] == Job::There);
            self.check_published(file, (!by_name).then_some(used));
        }
        assert!(by_name || self.engine.logs() == logs, "logs");
        let machine = self.engine.machine();
        assert!(by_name || machine.nothing.open() == 0, "a descriptor of nothing");
        let following: usize = machine.links.iter().map(Link::followers).sum();
        assert!(by_name || following == 0, "a name that nobody follows");
    }

    /// What is published to other threads must never exceed what was true.
    fn check_published(&mut self, file: usize, used: Option<bool>) {
        if self.jobs[file] != Job::There {
            return;
        }
        assert!(used.is_none_or(|used| self.engine.publishes_file(file) == used));
        let (start, end, truncations, final_end) = self.engine.published(file);
        let content = self.content(file);
        let most = content.past.iter().max().copied().unwrap_or(0).max(content.size);
        assert!(start == 0 && end <= most, "{start}..{end} of {content:?}");
        assert!(u64::from(truncations) <= content.generation, "{truncations} of {content:?}");
        match self.finished[file] {
            Some(Finish { end: Some(end), .. }) => assert_eq!(final_end, Some(end)),
            Some(_) => {}
            None => assert_eq!(final_end, None),
        }
    }
}

fuzz_target!(|input: Input| {
    let mut world = World::new(&input);
    for operation in input.operations.iter().take(MOST_OPERATIONS) {
        world.do_one(operation);
        world.check_machine();
    }
    world.quiet(0);
    for token in 0..world.tails.len() {
        world.close(token);
    }
    world.check_machine();
});
