//! Owns the fuzz target `log_reader`: any sequence of what writers, jobs, readers and the kernel
//! can do, against a plain model of what each tail must read.
//!
//! Invariant: the model knows files, not the engine. A tail reads a stretch of one generation of
//! its file, each byte once, and one of a later generation only after `Truncated`. Of a log that is
//! kept short it reads no NUL, which no file has but in a hole, and misses exactly what `Skipped`
//! says, none of which is among the bytes that are to be kept. A tail that
//! follows a name reads files that the name has led to, in their order, another one only after
//! `Replaced`, and leaves none before it has read what was in it when a later one had its first
//! byte. When the world is quiet, every tail has read everything.

#![no_main]

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use arbitrary::Arbitrary;
use jobworker::simulator::{Content, Engine, Interference, Link, Name};
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
    Shorten(u8, u8),
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
    Shorten { file: u8, left: u8, amount: u8 },
    Rename { file: u8, name: Naming },
    Create { file: u8 },
    CreateShort { file: u8, keep: u8, step: u8, limit: Option<u8> },
    Open { file: u8, from: From, follow: bool, of_job: bool, script: Script },
    Lead { link: u8, file: Option<u8> },
    OpenName { link: u8, from: From, script: Script },
    DeliverLink { link: u8 },
    Read { tail: u8, size: u8, script: Script },
    Fill { tail: u8, script: Script },
    Consume { tail: u8, amount: u8 },
    Drain { tail: u8, size: u8, script: Script },
    ReadElsewhere { tail: u8, size: u8, script: Script },
    Branch { tail: u8, back: u8 },
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
    Glance { script: Script },
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
    /// How much of each file is kept, with the step, if it is the log of a job that is kept short.
    short: Vec<Option<(u64, u64)>>,
    /// How much of each file is read at most.
    limits: Vec<u64>,
    /// Whether a file may have been truncated during a call of the engine.
    overtaken: bool,
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

/// The last generation in which everything is left that an earlier one had before this offset.
fn last_with(content: &Content, generation: u64, offset: u64) -> u64 {
    let generation = generation.min(content.generation);
    let later = content.kept.iter().skip(usize::try_from(generation).expect("few"));
    generation + later.take_while(|kept| offset <= **kept).count() as u64
}

impl World {
    fn new(input: &Input) -> Self {
        let files = usize::from(input.files % 3) + 1;
        let mut engine = Engine::new(files, 16 + usize::from(input.window % 64));
        engine.machine().links = (0..LINKS).map(|_| Link::default()).collect();
        let (jobs, finished) = (vec![Job::NotYet; files], vec![None; files]);
        let (short, sizes) = (vec![None; files], [const { Vec::new() }; LINKS]);
        let limits = vec![u64::MAX; files];
        let overtaken = false;
        Self { engine, tails: Vec::new(), finished, jobs, short, limits, overtaken, sizes }
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
        // Whether it was written anew since then cannot be told when what it had was not kept.
        let content = &self.engine.machine().files[file];
        let unknown = self.short[file].is_some() && !content.past.is_empty();
        let known = start == 0 || same || unknown;
        assert!(missed || known, "{tail:?} goes on at {start} of {file}");
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

    /// How much of a file is read.
    fn size(&mut self, file: usize) -> u64 {
        self.content(file).size.min(self.limits[file])
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
                Meddling::Shorten(left, amount) => {
                    Interference::Shorten(u64::from(left), u64::from(amount))
                }
                Meddling::Replace => Interference::Replace,
                Meddling::Unlink => Interference::Unlink,
                Meddling::Fail => Interference::Fail(EIO),
                Meddling::None => Interference::Nothing,
            })
            .collect();
        let truncates = |interference: &Interference| {
            matches!(
                interference,
                Interference::Rewrite(_)
                    | Interference::Overtake(_)
                    | Interference::Splice(_)
                    | Interference::Shorten(..)
            )
        };
        if machine.files.iter().any(|content| content.generation + 4 > MOST_GENERATIONS) {
            machine.script.retain(|interference| !truncates(interference));
        }
        self.overtaken |= machine.script.iter().any(truncates);
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
                if file.is_some_and(|file| self.limits[file] < u64::MAX) {
                    return;
                }
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
            Operation::Shorten { file, left, amount } => {
                let file = self.file(*file);
                let content = self.content(file);
                if content.generation < MOST_GENERATIONS {
                    content.shorten(u64::from(*left), u64::from(*amount));
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
            Operation::CreateShort { file, keep, step, limit } => {
                let file = self.file(*file);
                // What is beyond the limit is no part of the log, but of the file that has a name.
                let links = &self.engine.machine().links;
                let has_name = links.iter().any(|link| link.history.contains(&Some(file)));
                // And nobody has read any of it before the job was there.
                let is_read = self.engine.machine().files[file].open() > 0;
                let limit = limit.filter(|_| !has_name && !is_read).map(u64::from);
                if self.jobs[file] == Job::NotYet {
                    self.jobs[file] = Job::There;
                    // At least as much as proves that a log is the same.
                    let (keep, step) = (16 + u64::from(*keep % 64), 1 + u64::from(*step % 32));
                    self.short[file] = Some((keep, step));
                    self.limits[file] = limit.unwrap_or(u64::MAX);
                    self.engine.create_limited(file, keep, step, limit);
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
            Operation::ReadElsewhere { tail, size, script } => {
                if let Some(token) = self.tail(*tail) {
                    self.meddle(*script);
                    self.read_by(token, usize::from(*size) + 1, Engine::read_elsewhere);
                }
            }
            Operation::Branch { tail, back } => {
                if let Some(token) = self.tail(*tail) {
                    self.branch(token, u64::from(*back));
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
            Operation::Glance { script } => {
                self.meddle(*script);
                self.engine.glance();
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
        let (generation, size) = (self.content(file).generation, self.size(file));
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
        let (most, after) = (self.content(file).generation, self.size(file));
        let rewritten = most != generation;
        let (low, high) = match finished {
            _ if rewritten => (0, u64::MAX),
            // When it was opened before, and is not that of a job any more.
            _ if self.jobs[file] == Job::Removed && self.limits[file] < u64::MAX => (0, u64::MAX),
            None => (size, after),
            Some(Finish { end: Some(end), .. }) => (size.min(end), after.min(end)),
            // The end was determined at some time since then, or is now.
            Some(finish) if finish.generation == generation => (size.min(finish.size), after),
            Some(_) => (0, after),
        };
        let start = self.engine.position(id).expect("it was just opened");
        match position {
            Position::Start if self.short[file].is_some() => {
                assert!(rewritten || start <= after);
            }
            Position::Start => assert_eq!(start, 0),
            Position::Offset(offset) => assert_eq!(start, offset),
            Position::End => {
                assert!((low..=high).contains(&start), "{start} is not within {low}..={high}")
            }
            Position::LastLines(lines) if low == high && self.short[file].is_none() => {
                let content = self.content(file);
                let ends = |at: u64| content.byte_of(generation, at) == b'\n' && at + 1 < low;
                let newlines = (0..low).filter(|at| ends(*at));
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
        // When the job is removed, its log is a file as any other, with a hole.
        let removed = self.jobs[tail.file] == Job::Removed;
        let is_byte = |generation: u64, found: u8, offset: u64| {
            let hole = removed && content.generation == generation && content.byte(offset) == 0;
            found == if hole { 0 } else { content.byte_of(generation, offset) }
        };
        let is = |generation: u64| {
            end <= held(content, generation)
                && bytes
                    .iter()
                    .zip(tail.offset..)
                    .all(|(found, offset)| is_byte(generation, *found, offset))
        };
        assert!(!tail.ended, "bytes after the end");
        assert!(!bytes.is_empty(), "no bytes");
        let generations = match tail.reading {
            // What it has read last was given back, and proves nothing: it may go on in another
            // one, if that has as much as the log has looked at.
            Some(reading) if tail.offset > 0 && content.byte(tail.offset - 1) == 0 => {
                reading..=last_with(content, reading, 1)
            }
            // One of which all that it has read was left goes on as the next one.
            Some(reading) => reading..=last_with(content, reading, tail.offset),
            // Of which nothing was read: as far as the log can tell.
            None => tail.least..=last_with(content, tail.most, 1),
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
        // That the file was only made shorter may show late: after bytes were read that came then,
        // or when the tail was opened.
        let reading = tail.reading.unwrap_or(tail.least);
        let earlier = &content.kept[..usize::try_from(reading).expect("few")];
        let before = reading - earlier.iter().rev().take_while(|kept| **kept > 0).count() as u64;
        assert!(
            content.generation > before,
            "{tail:?} has reported a truncation that never happened"
        );
        tail.least = tail.least.max(before + 1);
        tail.most = u64::MAX;
        tail.reading = None;
        tail.truncated = true;
        tail.offset = 0;
        tail.filled = 0;
        tail.idle = false;
    }

    /// Bytes were not kept: so many, of a log that is kept short, and not of the newest.
    fn skipped(&mut self, token: usize, bytes: u64) {
        let tail = self.tails[token].as_mut().expect("an open tail");
        let content = &self.engine.machine().files[tail.file];
        let (keep, _) = self.short[tail.file].expect("a log that is kept short");
        assert!(!tail.ended && bytes > 0, "skipped after the end");
        // It goes on in whichever has all that it has read, of which nothing proves which it was.
        if let Some(reading) = tail.reading.take() {
            (tail.least, tail.most) = (reading, last_with(content, reading, tail.offset));
        }
        tail.offset += bytes;
        let generations = tail.least..=last_with(content, tail.most, 1);
        // What was given back by a call that a truncation has overtaken may be any of what came
        // after it.
        let most =
            generations.clone().map(|generation| held(content, generation)).max().unwrap_or(0);
        let is_hole = (0..tail.offset.min(content.size)).all(|offset| content.byte(offset) == 0);
        // Of one that was only made shorter, the hole may have been all before this, until it was
        // written anew.
        let kept = |generation: u64| {
            generation.checked_sub(1).map(|last| content.kept[usize::try_from(last).expect("few")])
        };
        let was_hole = generations
            .filter(|generation| *generation < content.generation)
            .any(|generation| kept(generation).is_some_and(|kept| tail.offset <= kept));
        assert!(
            self.overtaken || is_hole || was_hole || tail.offset + keep <= most,
            "{bytes} bytes were to be kept: {tail:?} of {content:?}"
        );
        assert!(tail.offset <= most.max(tail.start) || self.overtaken, "{bytes} bytes: {tail:?}");
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

    /// Opens another tail on the log of one, as if that had read `back` bytes less of what it is
    /// reading.
    fn branch(&mut self, token: usize, back: u64) {
        if self.tails.len() >= MOST_TAILS {
            return;
        }
        let tail = self.tails[token].as_ref().expect("an open tail");
        let start = if tail.truncated { 0 } else { tail.start };
        let Some(generation) = tail.reading else { return };
        if tail.ended || tail.follows.is_some() || tail.offset < start + back {
            return;
        }
        let offset = tail.offset - back;
        let last: Vec<u8> = (start.max(offset.saturating_sub(16))..offset)
            .map(|at| self.engine.machine().files[tail.file].byte_of(generation, at))
            .collect();
        let mut branch = Tail { offset, filled: 0, idle: true, follows: None, ..*tail };
        if last.is_empty() {
            // It has read nothing that would prove what it goes on in.
            return;
        }
        branch.id = self.engine.branch(tail.id, offset, &last, self.tails.len()).expect("open");
        self.tails.push(Some(branch));
        self.check_position(self.tails.len() - 1);
    }

    /// Returns whether there may be more at once.
    fn read(&mut self, token: usize, size: usize) -> bool {
        self.read_by(token, size, Engine::read)
    }

    fn read_by(
        &mut self,
        token: usize,
        size: usize,
        read: impl Fn(&mut Engine, TailId, &mut [u8]) -> std::io::Result<Read>,
    ) -> bool {
        let id = self.tails[token].as_ref().expect("an open tail").id;
        let mut buffer = vec![0; size];
        let before = self.sizes_now();
        let read = read(&mut self.engine, id, &mut buffer);
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
            Ok(Read::Skipped { bytes }) => {
                self.skipped(token, bytes);
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
            Fill::Skipped { bytes } => (Vec::new(), Fill::Skipped { bytes }),
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
            Ok((_, Fill::Skipped { bytes })) => {
                self.skipped(token, bytes);
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
        let (generation, size) = (self.content(file).generation, self.size(file));
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
        self.check_short();
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
            let (generation, size, last) = {
                let machine = self.engine.machine();
                let (file, limit) = (&machine.files[tail.file], self.limits[tail.file]);
                let read = tail.reading.map_or((tail.most, 1), |reading| (reading, tail.offset));
                let last = last_with(file, read.0, read.1);
                (file.generation, file.size.min(limit), last)
            };
            assert!(tail.snapshot.is_none(), "a snapshot without an end: {tail:?}");
            assert!(
                !tail.of_job || self.finished[tail.file].is_none(),
                "a finished job's tail without an end: {tail:?}"
            );
            let beyond = self.limits[tail.file] < u64::MAX;
            let everything =
                tail.offset >= size && (tail.offset == size || beyond || tail.reading.is_none());
            let newest = size == 0 || last >= generation;
            assert!(
                everything && newest,
                "a lost wake-up: {tail:?}, generation {generation} of {size} bytes"
            );
        }
    }

    /// A log that is kept short is short when nothing is left to be done.
    fn check_short(&mut self) {
        for file in 0..self.finished.len() {
            let Some((keep, step)) = self.short[file] else { continue };
            if self.jobs[file] == Job::There && self.finished[file].is_none() {
                let allocated = self.content(file).allocated();
                let content = &self.engine.machine().files[file];
                assert!(allocated <= keep + 3 * step, "{allocated} of {keep}: {content:?}");
            }
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
            let there = self.jobs[file] == Job::There;
            // Until its job has finished, and then until enough was given back.
            let may_be_kept = there && self.short[file].is_some();
            let content = self.content(file);
            let (open, watched) = (content.open(), content.is_watched());
            // Tails that follow names hold files that they will read.
            let right = if may_be_kept { open <= 2 } else { open == usize::from(used) };
            assert!(by_name || right, "descriptors");
            assert!(by_name || used || may_be_kept || !watched, "a watch that nobody needs");
            logs += usize::from(used || there);
            let exactly = !by_name && !may_be_kept;
            self.check_published(file, exactly.then_some(used));
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
        let short = self.short[file].is_some();
        let content = self.content(file);
        let most = content.past.iter().max().copied().unwrap_or(0).max(content.size);
        assert!(start <= most && end <= most, "{start}..{end} of {content:?}");
        assert!(start == 0 || short, "{start}..{end} of {content:?}");
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
