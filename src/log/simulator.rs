//! Owns [`Engine`], through which the fuzzer drives the logs and tails: the real [`Logs`] over
//! [`Machine`], a kernel in memory.
//!
//! Invariant: everything but the kernel is the code that a reactor runs. A file is described by its
//! generation and size alone, because its content follows from [`byte`]. Compiled only for the
//! fuzzer, and for the tests at its foot, most of which are for failures that the fuzzer has found.
//! Knows nothing of what the fuzzer expects.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::event::Events;
use crate::id::{Key, TailId, Token};
use crate::log::excerpt::Excerpt;
use crate::log::file::Identity;
use crate::log::kernel::{Kernel, Measured, Seen};
use crate::log::logs::Logs;
use crate::log::options::TailOptions;
use crate::log::place::NotOurLog;
use crate::log::published::Known;
use crate::log::queue::Queue;
use crate::log::read::{Fill, Read, ReadError};
use crate::log::retention::Rules;

/// The byte that a file holds at this offset. Consecutive generations differ at every offset, so
/// that a truncation shows in every byte.
#[must_use]
pub fn byte(generation: u64, offset: u64) -> u8 {
    if offset % 11 == generation * 5 % 11 {
        return b'\n';
    }
    let letter = (offset * 7 + generation / 7 * 13 + offset / 32) % 32;
    let kind = (generation % 7 + 1) * 32;
    u8::try_from(kind + letter).unwrap_or(0)
}

/// What happens just before a call of the kernel takes effect, to the file that it concerns.
#[derive(Clone, Copy, Debug)]
pub enum Interference {
    /// Nothing.
    Nothing,
    /// A writer appends this many bytes.
    Append(u64),
    /// A writer truncates the file and writes this many bytes.
    Rewrite(u64),
    /// A writer truncates the file and writes this many bytes during a read, which gets the old
    /// pages and the new size. For any other call it is the same as `Rewrite`.
    Overtake(u64),
    /// As `Overtake`, but what was behind the old bytes is new as well, in the same page too.
    Splice(u64),
    /// The job gives the name of the file to another file.
    Replace,
    /// The job removes the name of the file.
    Unlink,
    /// A writer makes the file shorter, if it has more bytes than this, and appends so many.
    Shorten(u64, u64),
    /// The call fails with this errno.
    Fail(i32),
}

/// What the name of a file refers to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Name {
    /// To the file that was made.
    #[default]
    Own,
    /// To another one, which the job has put there.
    Other,
    /// To nothing.
    Gone,
}

/// The size of a page. A real one is larger, but so are the logs.
const PAGE: u64 = 64;

/// A call of the kernel that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// [`Kernel::open`].
    Open,
    /// [`Kernel::len`].
    Len,
    /// [`Kernel::unlink`].
    Unlink,
    /// [`Kernel::read_at`].
    ReadAt,
    /// [`Kernel::size`].
    Size,
    /// [`Kernel::measure`].
    Measure,
    /// [`Kernel::punch`].
    Punch,
    /// [`Kernel::data_from`].
    DataFrom,
    /// [`Kernel::set_armed`].
    SetArmed,
    /// [`Kernel::look_up`].
    LookUp,
    /// [`Kernel::nowhere`].
    Nowhere,
}

/// A name that tails follow.
#[derive(Debug, Default)]
pub struct Link {
    /// The files that it has led to, by their indices, and when it led to none; the last is what it
    /// leads to now.
    pub history: Vec<Option<usize>>,
    /// The tails that follow it, with how much of the history they have seen, and whether an event
    /// is queued for them.
    followers: BTreeMap<Key, (usize, bool)>,
}

impl Link {
    /// The file that it leads to now.
    #[must_use]
    pub fn target(&self) -> Option<usize> {
        self.history.last().copied().flatten()
    }

    /// Lets the name lead to this file, or to none.
    pub fn lead_to(&mut self, file: Option<usize>) {
        self.history.push(file);
        for (_, hint) in self.followers.values_mut() {
            *hint = true;
        }
    }

    /// How many tails follow it.
    #[must_use]
    pub fn followers(&self) -> usize {
        self.followers.len()
    }
}

/// A file of the machine.
#[derive(Debug, Default)]
pub struct Content {
    /// How often it was truncated.
    pub generation: u64,
    /// How many bytes it holds.
    pub size: u64,
    /// The sizes of the earlier generations.
    pub past: Vec<u64>,
    /// How many of the first bytes of each of them were left when it was truncated.
    pub kept: Vec<u64>,
    /// Where it has holes.
    pub holes: Vec<Range<u64>>,
    /// What its name refers to.
    pub name: Name,
    open: Arc<AtomicUsize>,
    watch: Option<(Key, bool)>,
    /// Whether an event is queued. Several are merged into one.
    hint: bool,
}

impl Content {
    /// How many descriptors are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Whether it has a watch.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.watch.is_some()
    }

    /// Whether it has a watch that reports growth.
    #[must_use]
    pub fn is_armed(&self) -> bool {
        self.watch.is_some_and(|(_, armed)| armed)
    }

    /// A writer appends this many bytes.
    pub fn append(&mut self, amount: u64) {
        self.size += amount;
        self.hint |= amount > 0 && self.is_armed();
    }

    /// A writer truncates the file and writes this many bytes. Truncating an empty file changes
    /// nothing.
    pub fn rewrite(&mut self, amount: u64) {
        self.shorten(0, amount);
    }

    /// A writer makes the file shorter, so that this many bytes are left, and appends some.
    /// Shortening it to what it has changes nothing.
    pub fn shorten(&mut self, left: u64, amount: u64) {
        if self.size > left {
            self.past.push(self.size);
            self.kept.push(left);
            self.generation += 1;
            self.size = left;
            for hole in &mut self.holes {
                hole.end = hole.end.min(left);
            }
            self.holes.retain(|hole| !hole.is_empty());
            self.hint |= self.is_armed();
        }
        self.append(amount);
    }

    /// The byte that a generation had at an offset where it had no hole: that of an earlier one if
    /// it was left.
    #[must_use]
    pub fn byte_of(&self, generation: u64, offset: u64) -> u8 {
        let earlier = self.kept.iter().take(usize::try_from(generation).unwrap_or(usize::MAX));
        let since = earlier.rev().take_while(|kept| offset < **kept).count() as u64;
        byte(generation - since, offset)
    }

    /// The byte at an offset: a NUL in a hole.
    #[must_use]
    pub fn byte(&self, offset: u64) -> u8 {
        let hole = self.holes.iter().any(|hole| hole.contains(&offset));
        if hole { 0 } else { self.byte_of(self.generation, offset) }
    }

    /// How many of its bytes are in no hole.
    #[must_use]
    pub fn allocated(&self) -> u64 {
        (0..self.size).filter(|offset| self.byte(*offset) != 0).count() as u64
    }

    fn descriptor(&self, file: usize) -> Descriptor {
        self.open.fetch_add(1, Ordering::Relaxed);
        Descriptor { file, open: Arc::clone(&self.open) }
    }
}

/// An open file of the machine, by its index.
#[derive(Debug)]
pub struct Descriptor {
    file: usize,
    open: Arc<AtomicUsize>,
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A kernel in memory.
#[derive(Debug)]
pub struct Machine {
    /// The files, which need not be open.
    pub files: Vec<Content>,
    /// The names, by which files can be followed.
    pub links: Vec<Link>,
    /// What stands for no file; nobody writes to it.
    pub nothing: Content,
    /// What happens during the next calls, one entry for each.
    pub script: VecDeque<Interference>,
    /// The calls that were made, so that a test can script each of them to fail.
    pub calls: Vec<Call>,
    /// How many calls have failed.
    pub failures: u64,
}

impl Machine {
    /// A file by its index; the one after all others stands for none.
    fn content(&self, file: usize) -> &Content {
        self.files.get(file).unwrap_or(&self.nothing)
    }

    fn content_mut(&mut self, file: usize) -> &mut Content {
        self.files.get_mut(file).unwrap_or(&mut self.nothing)
    }

    fn called(&mut self, call: Call, file: usize) -> io::Result<()> {
        self.calls.push(call);
        if file >= self.files.len() {
            // Nobody can write to it, or rename it.
            if let Some(Interference::Fail(errno)) = self.script.pop_front() {
                self.failures += 1;
                return Err(io::Error::from_raw_os_error(errno));
            }
            return Ok(());
        }
        let content = &mut self.files[file];
        match self.script.pop_front() {
            None | Some(Interference::Nothing) => {}
            Some(Interference::Append(amount)) => content.append(amount),
            Some(
                Interference::Rewrite(amount)
                | Interference::Overtake(amount)
                | Interference::Splice(amount),
            ) => content.rewrite(amount),
            Some(Interference::Shorten(left, amount)) => content.shorten(left, amount),
            Some(Interference::Replace) => content.name = Name::Other,
            Some(Interference::Unlink) => content.name = Name::Gone,
            Some(Interference::Fail(errno)) => {
                self.failures += 1;
                return Err(io::Error::from_raw_os_error(errno));
            }
        }
        Ok(())
    }

    fn found(&mut self, file: usize) -> io::Result<&Content> {
        let content = &self.files[file];
        let error = match content.name {
            Name::Own => return Ok(content),
            Name::Other => NotOurLog::Replaced,
            Name::Gone => NotOurLog::Removed,
        };
        self.failures += 1;
        Err(error.into())
    }
}

impl Kernel for Machine {
    /// The index of the file.
    type Place = usize;
    type File = Descriptor;
    /// The index of the link.
    type Name = usize;

    fn open(&mut self, place: &usize) -> io::Result<Descriptor> {
        self.called(Call::Open, *place)?;
        Ok(self.found(*place)?.descriptor(*place))
    }

    fn open_for_writing(&mut self, place: &usize) -> io::Result<Descriptor> {
        self.open(place)
    }

    fn len(&mut self, place: &usize) -> io::Result<u64> {
        self.called(Call::Len, *place)?;
        Ok(self.found(*place)?.size)
    }

    fn unlink(&mut self, place: &usize) -> io::Result<()> {
        self.called(Call::Unlink, *place)?;
        self.files[*place].name = Name::Gone;
        Ok(())
    }

    fn identity_of_place(&self, place: &usize) -> Identity {
        Identity::simulated(*place)
    }

    fn identity_of_file(&self, file: &Descriptor) -> Identity {
        Identity::simulated(file.file)
    }

    fn read_at(&mut self, file: &Descriptor, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let content = self.content(file.file);
        let held = content.size;
        let overtaken = matches!(
            self.script.front(),
            Some(Interference::Overtake(_) | Interference::Splice(_))
        );
        let before: Vec<u8> = match overtaken {
            true => (offset..held.min(offset + buffer.len() as u64))
                .map(|offset| content.byte(offset))
                .collect(),
            false => Vec::new(),
        };
        let cached = match self.script.front() {
            Some(Interference::Overtake(_)) => held.next_multiple_of(PAGE),
            Some(Interference::Splice(_)) => held,
            _ => 0,
        };
        self.called(Call::ReadAt, file.file)?;
        let content = self.content(file.file);
        let length = content.size.saturating_sub(offset).min(buffer.len() as u64);
        for (index, byte) in
            buffer.iter_mut().take(usize::try_from(length).unwrap_or(0)).enumerate()
        {
            let at = offset + index as u64;
            *byte = match at {
                _ if at >= cached => content.byte(at),
                _ if at < held => before[index],
                _ => 0,
            };
        }
        Ok(usize::try_from(length).unwrap_or(0))
    }

    fn size(&mut self, file: &Descriptor) -> io::Result<u64> {
        self.called(Call::Size, file.file)?;
        Ok(self.content(file.file).size)
    }

    fn measure(&mut self, file: &Descriptor) -> io::Result<Measured> {
        self.called(Call::Measure, file.file)?;
        let content = self.content(file.file);
        Ok(Measured { size: content.size, allocated: content.allocated() })
    }

    fn punch(&mut self, file: &Descriptor, from: u64, to: u64) -> io::Result<()> {
        self.called(Call::Punch, file.file)?;
        let content = self.content_mut(file.file);
        let hole = from..to.min(content.size);
        if !hole.is_empty() {
            content.holes.push(hole);
            // As with the real kernel.
            content.hint |= content.is_armed();
        }
        Ok(())
    }

    fn data_from(&mut self, file: &Descriptor, offset: u64) -> io::Result<u64> {
        self.called(Call::DataFrom, file.file)?;
        let content = self.content(file.file);
        let mut data = offset;
        while let Some(hole) = content.holes.iter().find(|hole| hole.contains(&data)) {
            data = hole.end;
        }
        Ok(if data < content.size { data } else { u64::MAX })
    }

    fn set_armed(&mut self, file: &Descriptor, log: Key, armed: bool) -> io::Result<()> {
        self.called(Call::SetArmed, file.file)?;
        self.content_mut(file.file).watch = Some((log, armed));
        Ok(())
    }

    fn has_reports(&mut self) -> bool {
        self.files.iter().any(|content| content.hint)
    }

    fn watch_lost(&mut self, _: Key) {}

    fn unwatch(&mut self, log: Key) {
        let watched =
            |content: &&mut Content| content.watch.is_some_and(|(watched, _)| watched == log);
        for content in self.files.iter_mut().filter(watched) {
            content.watch = None;
            content.hint = false;
        }
        self.nothing.watch = self.nothing.watch.filter(|(watched, _)| *watched != log);
    }

    fn look_up(&mut self, name: &usize, tail: Key) -> io::Result<Option<Seen<Descriptor>>> {
        let history = &self.links[*name].history;
        let (before, now) = (self.links[*name].target(), history.len());
        // As with the real kernel, the watch is there before the look.
        let old = self.links[*name].followers.insert(tail, (now, false));
        let seen = old.map_or(now, |(seen, _)| seen);
        let called = self.called(Call::LookUp, before.unwrap_or(self.files.len()));
        let Some(file) = before.filter(|_| called.is_ok()) else {
            // What came since the last file was found counts.
            self.links[*name].followers.insert(tail, (seen, false));
            return called.map(|()| None);
        };
        let missed = self.links[*name].history[seen..].iter().flatten().count() > 1;
        Ok(Some(Seen { file: self.files[file].descriptor(file), missed }))
    }

    fn forget_name(&mut self, tail: Key) {
        for link in &mut self.links {
            link.followers.remove(&tail);
        }
    }

    fn nowhere(&mut self) -> io::Result<Descriptor> {
        let nothing = self.files.len();
        self.called(Call::Nowhere, nothing)?;
        Ok(self.nothing.descriptor(nothing))
    }
}

/// The logs and tails over the machine, as a reactor would drive them.
#[derive(Debug)]
pub struct Engine {
    machine: Machine,
    logs: Logs<Machine>,
    queue: Queue,
    now: Instant,
    /// The log of each file that belongs to a job.
    of_jobs: Vec<Option<Key>>,
    /// What other threads are reading.
    excerpts: HashMap<TailId, Excerpt<Descriptor>>,
}

impl Engine {
    /// An engine without tails, on this many empty files.
    #[must_use]
    pub fn new(files: usize, window_bytes: usize) -> Self {
        Self::with_total(files, window_bytes, None)
    }

    /// As [`new`](Self::new), where all logs of jobs may have so much together.
    #[must_use]
    pub fn with_total(files: usize, window_bytes: usize, total: Option<u64>) -> Self {
        let of_jobs = vec![None; files];
        let files = (0..files).map(|_| Content::default()).collect();
        let mut logs = Logs::new(window_bytes, Duration::from_micros(200), 0, total);
        logs.turn_on_glances();
        Self {
            machine: Machine {
                files,
                links: Vec::new(),
                nothing: Content::default(),
                script: VecDeque::new(),
                calls: Vec::new(),
                failures: 0,
            },
            logs,
            queue: Queue::new(),
            now: Instant::now(),
            of_jobs,
            excerpts: HashMap::new(),
        }
    }

    /// The kernel.
    pub fn machine(&mut self) -> &mut Machine {
        &mut self.machine
    }

    /// Starts a job whose log is this file.
    pub fn create(&mut self, file: usize) {
        self.of_jobs[file] = Some(self.logs.create(&mut self.machine, file));
    }

    /// Starts a job whose log is this file, of which the newest `keep` bytes are kept, and at most
    /// `step` more.
    pub fn create_short(&mut self, file: usize, keep: u64, step: u64) {
        self.create_limited(file, keep, step, None);
    }

    /// As [`create_short`](Self::create_short), and what comes beyond `limit` is discarded.
    pub fn create_limited(&mut self, file: usize, keep: u64, step: u64, limit: Option<u64>) {
        self.create(file);
        let descriptor = self.machine.files[file].descriptor(file);
        self.logs.keep_short(
            self.log(file),
            descriptor,
            Rules::simulated(keep, limit, limit.is_some(), step),
        );
    }

    /// What could not be given back of the log of this job, and why.
    pub fn problem(&mut self, file: usize) -> Option<io::Error> {
        let log = self.log(file);
        self.logs.take_problem(log)
    }

    /// The offsets between which the log of this job lies, as far as they are known.
    #[must_use]
    pub fn span(&self, file: usize) -> Option<Range<u64>> {
        self.logs.span(self.log(file))
    }

    /// Opens a tail on the job whose log this file is.
    ///
    /// # Errors
    /// When a call of the kernel fails.
    pub fn open(&mut self, file: usize, options: TailOptions, token: usize) -> io::Result<TailId> {
        let (log, token) = (self.log(file), Token(token));
        self.logs.open_tail(&mut self.machine, log, options, token, &mut self.queue)
    }

    /// Opens a tail on this file.
    ///
    /// # Errors
    /// When a call of the kernel fails.
    pub fn open_file(
        &mut self,
        file: usize,
        options: TailOptions,
        token: usize,
    ) -> io::Result<TailId> {
        let (file, token) = (self.machine.files[file].descriptor(file), Token(token));
        self.logs.open_file(&mut self.machine, file, options, token, &mut self.queue)
    }

    /// Opens a tail that follows this link.
    ///
    /// # Errors
    /// When a call of the kernel fails.
    pub fn open_name(
        &mut self,
        link: usize,
        options: TailOptions,
        token: usize,
    ) -> io::Result<TailId> {
        self.logs.open_name(&mut self.machine, link, options, Token(token), &mut self.queue)
    }

    /// The file that a tail reads, by its index; `None` when its name has led to none yet.
    #[must_use]
    pub fn file_of(&self, tail: TailId) -> Option<usize> {
        let file = self.logs.file_of(tail)?.file;
        (file < self.machine.files.len()).then_some(file)
    }

    /// Delivers the queued events of this link, and returns whether there was one.
    pub fn deliver_link(&mut self, link: usize) -> bool {
        let mut told = false;
        for (tail, (_, hint)) in &mut self.machine.links[link].followers {
            if std::mem::take(hint) {
                self.logs.name_changed(*tail);
                told = true;
            }
        }
        told
    }

    /// The position of a tail.
    #[must_use]
    pub fn position(&self, tail: TailId) -> Option<u64> {
        let position = self.logs.position(tail)?;
        Some(self.excerpts.get(&tail).map_or(position, Excerpt::offset))
    }

    /// Reads the next bytes of a tail as a reader on another thread does: from an excerpt, whatever
    /// the logs do in between, and as [`read`](Self::read) when it has none or it is refused.
    ///
    /// # Errors
    /// When a call of the kernel fails.
    pub fn read_elsewhere(&mut self, tail: TailId, buffer: &mut [u8]) -> io::Result<Read> {
        let by_name = self.logs.name_of(tail).is_some();
        if !self.excerpts.contains_key(&tail)
            && !by_name
            && let Some(excerpt) = self.logs.excerpt(tail)
        {
            self.excerpts.insert(tail, excerpt);
        }
        let Some(excerpt) = self.excerpts.get_mut(&tail) else { return self.read(tail, buffer) };
        let length = buffer.len().min(usize::try_from(excerpt.left()).unwrap_or(usize::MAX));
        let (machine, file) = (&mut self.machine, Arc::clone(excerpt.file()));
        let read = |buffer: &mut [u8], offset| machine.read_at(&file, buffer, offset);
        if !excerpt.read(&mut buffer[..length], read)? {
            return self.read(tail, buffer);
        }
        if excerpt.left() == 0 {
            self.come_back(tail);
        }
        Ok(Read::Data(length))
    }

    /// The logs hear how far another thread has read a tail.
    fn come_back(&mut self, tail: TailId) {
        // A read that has failed was none.
        if let Some(excerpt) = self.excerpts.remove(&tail)
            && let Some(last) = excerpt.last()
            && self.logs.position(tail) != Some(excerpt.offset())
        {
            self.logs.was_read(tail, excerpt.offset(), *last);
        }
    }

    /// Opens another tail on the log of a tail, which has read only up to `offset`, where the bytes
    /// `last` end.
    pub fn branch(
        &mut self,
        tail: TailId,
        offset: u64,
        last: &[u8],
        token: usize,
    ) -> Option<TailId> {
        self.logs.branch(tail, (offset, last), Token(token), &mut self.queue)
    }

    /// Like `Reactor::read`.
    ///
    /// # Errors
    /// When a call of the kernel fails.
    pub fn read(&mut self, tail: TailId, buffer: &mut [u8]) -> io::Result<Read> {
        self.come_back(tail);
        self.logs.read(&mut self.machine, tail, buffer, &mut self.queue).map_err(into_error)
    }

    /// Like `Reactor::fill_buf`.
    ///
    /// # Errors
    /// When a call of the kernel fails.
    pub fn fill_buf(&mut self, tail: TailId) -> io::Result<Fill<'_>> {
        self.come_back(tail);
        let filled = self.logs.fill(&mut self.machine, tail, &mut self.queue);
        filled.map(|filled| self.logs.show(filled)).map_err(into_error)
    }

    /// Like `Reactor::consume`.
    pub fn consume(&mut self, tail: TailId, amount: usize) {
        self.come_back(tail);
        let _ = self.logs.consume(tail, amount);
    }

    /// Closes a tail, and returns whether it was open.
    pub fn close(&mut self, tail: TailId) -> bool {
        self.excerpts.remove(&tail);
        self.logs.close(&mut self.machine, tail).is_some()
    }

    /// Finishes the job of this log.
    ///
    /// # Errors
    /// When a call of the kernel fails.
    pub fn finish(&mut self, file: usize) -> io::Result<u64> {
        let log = self.log(file);
        self.logs.finish(&mut self.machine, log, &mut self.queue)
    }

    /// Removes the job of this log.
    ///
    /// # Errors
    /// When a call of the kernel fails.
    pub fn remove(&mut self, file: usize, keep: bool) -> io::Result<()> {
        let log = self.log(file);
        self.of_jobs[file] = None;
        let removed = self.logs.remove(&mut self.machine, log, keep);
        self.excerpts.retain(|tail, _| self.logs.position(*tail).is_some());
        removed
    }

    /// What is published to other threads about the log of this job: start, end, truncations and
    /// final end.
    #[must_use]
    pub fn published(&self, file: usize) -> (u64, u64, u32, Option<u64>) {
        let Known { start, end, truncations, final_end, .. } =
            self.logs.published(self.log(file)).known();
        (start, end, truncations, final_end)
    }

    /// Whether the open file of the log of this job is published to other threads.
    #[must_use]
    pub fn publishes_file(&self, file: usize) -> bool {
        self.logs.published(self.log(file)).file().is_some()
    }

    fn log(&self, file: usize) -> Key {
        let Some(log) = self.of_jobs[file] else { unreachable!("no job has this log") };
        log
    }

    /// Delivers the queued event of this file, and returns whether there was one.
    pub fn deliver(&mut self, file: usize) -> bool {
        let content = &mut self.machine.files[file];
        let told = std::mem::take(&mut content.hint);
        if told && let Some((log, _)) = content.watch {
            self.logs.changed(log);
        }
        told
    }

    /// The queue of the kernel overflows, and the kernel reports it.
    pub fn overflow(&mut self) {
        for content in &mut self.machine.files {
            content.hint = false;
        }
        for link in &mut self.machine.links {
            for (_, hint) in link.followers.values_mut() {
                *hint = false;
            }
        }
        self.logs.everything_changed();
    }

    /// The kernel removes the watch of this file, and reports it.
    pub fn lose_watch(&mut self, file: usize) {
        let content = &mut self.machine.files[file];
        content.hint = false;
        if let Some((log, _)) = content.watch.take() {
            self.logs.watch_lost(&mut self.machine, log);
        }
    }

    /// Runs one turn. With `wait`, it takes so long that the pace timer fires, if that is set.
    pub fn turn(&mut self, wait: bool) {
        let now = self.now;
        let at = self.logs.pace_at(|| now);
        self.now += Duration::from_micros(10);
        if wait && let Some(at) = at {
            self.now = self.now.max(at);
        }
        self.logs.visit_due(&mut self.machine, self.now, &mut self.queue);
    }

    /// Looks at the logs that are waited for, as a busy reactor does before it sleeps.
    pub fn glance(&mut self) {
        if !self.logs.has_work() && self.queue.is_empty() {
            self.now += Duration::from_micros(1);
            self.logs.glance(&mut self.machine, self.now, &mut self.queue);
        }
    }

    /// Advances the clock.
    pub fn sleep(&mut self, time: Duration) {
        self.now += time;
    }

    /// Whether a turn has something to do, now or when the pace timer fires.
    pub fn has_work(&mut self) -> bool {
        let now = self.now;
        self.logs.has_work() || self.logs.pace_at(|| now).is_some()
    }

    /// The tails for which [`emit`](Self::emit) would return an event, in no particular order.
    pub fn queued(&self) -> impl Iterator<Item = TailId> {
        self.logs.queued(&self.queue)
    }

    /// Takes the next event out of the queue, as a poll returns it to the host: its tail and token.
    pub fn emit(&mut self) -> Option<(TailId, usize)> {
        let mut events = Events::with_capacity(1);
        self.logs.emit(&mut self.queue, &mut events, |_| true);
        let event = events.iter().next()?;
        Some((event.tail()?, event.token()?.0))
    }

    /// How many tails there are.
    #[must_use]
    pub fn tails(&self) -> usize {
        self.logs.len()
    }

    /// How many tails the log of this job has in its list, closed ones included.
    #[must_use]
    pub fn subscribed(&self, file: usize) -> usize {
        self.logs.subscribed(self.log(file))
    }

    /// How many logs there are, those of jobs included.
    #[must_use]
    pub fn logs(&self) -> usize {
        self.logs.logs()
    }
}

fn into_error(error: ReadError) -> io::Error {
    match error {
        ReadError::Unknown => io::Error::from(io::ErrorKind::NotFound),
        ReadError::Io(error) => error,
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;
    use crate::log::options::Position;

    fn engine(size: u64) -> Engine {
        let mut engine = Engine::new(1, 32);
        engine.create(0);
        engine.machine().files[0].append(size);
        engine
    }

    fn follow(engine: &mut Engine, position: Position) -> TailId {
        engine.open(0, TailOptions::new(position), 0).unwrap()
    }

    fn data(generation: u64, offsets: std::ops::Range<u64>) -> Vec<u8> {
        offsets.map(|offset| byte(generation, offset)).collect()
    }

    /// Reads all that is there, and returns the bytes and the result that came instead of more.
    fn drain(engine: &mut Engine, tail: TailId) -> (Vec<u8>, io::Result<Read>) {
        let (mut bytes, mut buffer) = (Vec::new(), [0; 7]);
        loop {
            match engine.read(tail, &mut buffer) {
                Ok(Read::Data(length)) => bytes.extend_from_slice(&buffer[..length]),
                other => return (bytes, other),
            }
        }
    }

    fn up_to_date(engine: &mut Engine, tail: TailId) -> Vec<u8> {
        let (bytes, answer) = drain(engine, tail);
        assert_eq!(answer.unwrap(), Read::UpToDate);
        bytes
    }

    fn fail_next(engine: &mut Engine) {
        engine.machine().script = VecDeque::from([Interference::Fail(5)]);
    }

    /// The last tail of a batch filled the host's buffer, and the used-up batch stayed in the
    /// queue, so the next poll did not wait and returned no event.
    #[test]
    fn nothing_is_left_in_the_queue_when_the_last_event_has_just_fitted() {
        let mut engine = engine(0);
        let tail = follow(&mut engine, Position::Start);
        engine.turn(true);
        assert_eq!(up_to_date(&mut engine, tail), []);
        engine.machine().files[0].append(5);
        engine.deliver(0);
        engine.turn(true);
        assert!(!engine.queue.is_empty());
        assert_eq!(engine.emit(), Some((tail, 0)));
        assert!(engine.queue.is_empty());
    }

    #[test]
    fn a_host_that_reads_ahead_of_its_events_does_not_fill_the_queue() {
        let mut engine = engine(0);
        let tail = follow(&mut engine, Position::Start);
        for _ in 0..10 {
            engine.machine().files[0].append(5);
            engine.deliver(0);
            engine.turn(true);
            assert_eq!(up_to_date(&mut engine, tail).len(), 5);
        }
        // The tail is up to date, so there is nothing to report.
        assert_eq!((engine.queued().count(), engine.emit()), (0, None));
    }

    #[test]
    fn no_event_comes_after_the_end_even_if_it_was_queued_before() {
        let mut engine = engine(5);
        let tail = follow(&mut engine, Position::Start);
        engine.finish(0).unwrap();
        assert_eq!(engine.queued().count(), 1);
        let (bytes, answer) = drain(&mut engine, tail);
        assert_eq!((bytes, answer.unwrap()), (data(0, 0..5), Read::Ended));
        assert_eq!(engine.emit(), None);
    }

    #[test]
    fn a_tail_that_has_ended_is_not_told_of_a_later_truncation() {
        let mut engine = engine(5);
        let (ended, other) =
            (follow(&mut engine, Position::Start), follow(&mut engine, Position::Start));
        engine.finish(0).unwrap();
        assert_eq!(drain(&mut engine, ended).1.unwrap(), Read::Ended);
        engine.machine().files[0].rewrite(3);
        follow(&mut engine, Position::End);
        assert_eq!(engine.read(ended, &mut [0; 9]).unwrap(), Read::Ended);
        assert_eq!(engine.read(other, &mut [0; 9]).unwrap(), Read::Truncated);
    }

    #[test]
    fn a_tail_can_be_read_again_after_a_failure() {
        let mut engine = engine(5);
        let tail = follow(&mut engine, Position::End);
        fail_next(&mut engine);
        engine.turn(true);
        assert!(engine.read(tail, &mut [0; 9]).is_err());
        engine.machine().files[0].append(4);
        engine.turn(true);
        assert_eq!(up_to_date(&mut engine, tail), []);
        engine.turn(true);
        assert_eq!(up_to_date(&mut engine, tail), data(0, 5..9));
    }

    #[test]
    fn a_tail_that_is_opened_on_a_log_that_failed_hears_of_it() {
        let mut engine = engine(5);
        let first = follow(&mut engine, Position::End);
        fail_next(&mut engine);
        engine.turn(true);
        let second = follow(&mut engine, Position::End);
        let events: Vec<TailId> = engine.queued().collect();
        assert_eq!(events, [first, second]);
    }

    #[test]
    fn the_end_that_could_not_be_found_is_looked_for_again() {
        let mut engine = engine(5);
        let tail = follow(&mut engine, Position::Start);
        fail_next(&mut engine);
        assert!(engine.finish(0).is_err());
        let (bytes, answer) = drain(&mut engine, tail);
        assert_eq!(bytes, data(0, 0..5));
        assert!(answer.is_err(), "{answer:?}");
        engine.turn(true);
        assert_eq!(engine.read(tail, &mut [0; 9]).unwrap(), Read::Ended);
    }

    #[test]
    fn a_log_that_was_only_followed_from_its_end_on_is_known_to_be_written_anew() {
        let mut engine = engine(50);
        let tail = follow(&mut engine, Position::End);
        engine.machine().files[0].rewrite(60);
        engine.turn(true);
        assert_eq!(drain(&mut engine, tail).1.unwrap(), Read::Truncated);
        assert_eq!(up_to_date(&mut engine, tail), []);
        engine.turn(true);
        assert_eq!(up_to_date(&mut engine, tail), data(1, 0..32));
    }

    #[test]
    fn a_tail_behind_the_window_gets_no_byte_of_a_log_that_was_written_anew_until_it_is_told() {
        for fill in [false, true] {
            let mut engine = engine(200);
            let tail = follow(&mut engine, Position::Start);
            assert_eq!(engine.read(tail, &mut [0; 9]).unwrap(), Read::Data(9));
            engine.machine().files[0].rewrite(300);
            if fill {
                assert_eq!(engine.fill_buf(tail).unwrap(), Fill::Truncated);
            } else {
                assert_eq!(engine.read(tail, &mut [0; 9]).unwrap(), Read::Truncated);
            }
        }
    }

    #[test]
    fn a_new_tail_gets_nothing_of_what_the_log_was_before_it() {
        for position in [Position::Start, Position::End] {
            let mut engine = engine(50);
            let old = follow(&mut engine, Position::End);
            engine.machine().files[0].rewrite(30);
            let new = follow(&mut engine, position);
            let expected = if position == Position::Start { data(1, 0..30) } else { Vec::new() };
            assert_eq!(up_to_date(&mut engine, new), expected);
            assert_eq!(drain(&mut engine, old).1.unwrap(), Read::Truncated);
        }
    }

    #[test]
    fn a_truncation_that_a_failed_open_has_noticed_is_reported_to_waiting_tails() {
        let mut engine = engine(50);
        let tail = follow(&mut engine, Position::End);
        engine.turn(true);
        engine.machine().script = VecDeque::from([Interference::Rewrite(0), Interference::Fail(5)]);
        assert!(engine.open(0, TailOptions::new(Position::Start), 1).is_err());
        assert_eq!(engine.queued().collect::<Vec<_>>(), [tail]);
        assert_eq!(drain(&mut engine, tail).1.unwrap(), Read::Truncated);
    }

    #[test]
    fn an_end_that_was_read_while_the_log_was_written_anew_is_not_taken_for_the_end() {
        let mut engine = engine(20);
        let tail = follow(&mut engine, Position::Start);
        assert_eq!(engine.read(tail, &mut [0; 5]).unwrap(), Read::Data(5));
        engine.machine().files[0].append(10);
        engine.machine().script = VecDeque::from([Interference::Overtake(25)]);
        assert_eq!(engine.finish(0).unwrap(), 25);
        assert_eq!(drain(&mut engine, tail).1.unwrap(), Read::Truncated);
        let (bytes, answer) = drain(&mut engine, tail);
        assert_eq!((bytes, answer.unwrap()), (data(1, 0..25), Read::Ended));
    }

    #[test]
    fn a_tail_on_a_finished_job_whose_log_has_shrunk_ends_with_the_log() {
        let mut engine = engine(60);
        engine.finish(0).unwrap();
        engine.machine().files[0].size = 40;
        let tail = follow(&mut engine, Position::Start);
        let (bytes, answer) = drain(&mut engine, tail);
        assert_eq!((bytes, answer.unwrap()), (data(0, 0..40), Read::Ended));
    }

    /// Mutation testing: no test failed when the watch stayed armed, so that every further write
    /// woke the reactor for nobody.
    #[test]
    fn a_watch_that_nobody_waits_for_is_disarmed_by_its_next_event() {
        let mut engine = engine(0);
        let tail = follow(&mut engine, Position::Start);
        engine.turn(true);
        assert!(engine.machine().files[0].is_armed());
        for armed in [true, false] {
            engine.machine().files[0].append(5);
            assert!(engine.deliver(0));
            engine.turn(false);
            assert_eq!(engine.machine().files[0].is_armed(), armed);
        }
        engine.machine().files[0].append(5);
        assert!(!engine.deliver(0), "a disarmed watch has reported growth");
        assert_eq!(up_to_date(&mut engine, tail), data(0, 0..5));
        engine.turn(false);
        assert!(engine.machine().files[0].is_armed());
        assert_eq!(up_to_date(&mut engine, tail), data(0, 5..15));
    }

    /// A log was hot only if it grew within one pace, so that the watch of a busy log stayed armed
    /// beside a host that worked for longer than that on each event, and its writer took twice as
    /// long.
    #[test]
    fn m17_a_busy_log_is_paced_whatever_time_the_host_takes() {
        for work in [50, 150, 250, 1000, 10_000, 100_000].map(Duration::from_micros) {
            let mut engine = Engine::new(1, 64 * 1024);
            engine.create(0);
            let tail = follow(&mut engine, Position::End);
            engine.turn(true);
            let mut armed = Vec::new();
            for _ in 0..10 {
                // A line of 100 bytes each microsecond.
                engine.machine().files[0].append(100 * u64::try_from(work.as_micros()).unwrap());
                engine.deliver(0);
                engine.turn(true);
                engine.sleep(work);
                up_to_date(&mut engine, tail);
                armed.push(engine.machine().files[0].is_armed());
            }
            let times = armed.iter().filter(|armed| **armed).count();
            assert!(times <= 3 && !armed[9], "{work:?}: {armed:?}");
        }
    }

    #[test]
    fn m17_a_quiet_log_stays_armed_and_costs_one_read_for_each_line() {
        let mut engine = Engine::new(1, 64 * 1024);
        engine.create(0);
        let tail = follow(&mut engine, Position::End);
        engine.turn(true);
        up_to_date(&mut engine, tail);
        for line in [100, 120, 30] {
            engine.machine().calls.clear();
            engine.sleep(Duration::from_millis(1));
            engine.machine().files[0].append(line);
            assert!(engine.deliver(0));
            engine.turn(true);
            assert_eq!(up_to_date(&mut engine, tail).len() as u64, line);
            assert_eq!(engine.machine().calls, [Call::ReadAt]);
        }
    }

    /// A read that was overtaken by a truncation gave old bytes and then new ones, without a word.
    #[test]
    fn m19_a_read_that_a_truncation_has_overtaken_gives_no_mixture() {
        for (known, held, after) in [(5, 7, 9), (40, 50, 70), (64, 70, 90)] {
            for armed in [false, true] {
                let mut engine = engine(known);
                let tail = follow(&mut engine, Position::Start);
                assert_eq!(up_to_date(&mut engine, tail), data(0, 0..known));
                if armed {
                    engine.turn(true);
                }
                engine.machine().files[0].append(held - known);
                engine.deliver(0);
                engine.machine().script = match armed {
                    true => VecDeque::from([Interference::Splice(after)]),
                    // The first call arms the watch.
                    false => VecDeque::from([Interference::Nothing, Interference::Splice(after)]),
                };
                engine.turn(true);
                let case = format!("{known} known of {held}, then {after}, armed before: {armed}");
                let (bytes, answer) = drain(&mut engine, tail);
                assert_eq!((bytes, answer.unwrap()), (Vec::new(), Read::Truncated), "{case}");
                up_to_date(&mut engine, tail);
                while engine.deliver(0) || engine.has_work() {
                    engine.turn(true);
                }
                assert_eq!(up_to_date(&mut engine, tail), data(1, 0..after.min(32)), "{case}");
            }
        }
    }

    /// The loop read everything up to where the tail waited, of a log that may be a hole of any
    /// size.
    #[test]
    fn m14_what_no_tail_waits_for_is_not_read() {
        let mut engine = engine(5);
        let ahead = follow(&mut engine, Position::Offset(1 << 50));
        engine.turn(true);
        engine.machine().files[0].append(1 << 40);
        engine.deliver(0);
        engine.machine().calls.clear();
        while engine.has_work() {
            engine.turn(true);
            assert!(engine.machine().calls.len() < 20, "it reads on and on");
        }
        assert!(engine.machine().files[0].is_armed());
        let size = engine.machine().files[0].size;
        assert_eq!(engine.published(0).1, size);
        engine.machine().files[0].append((1 << 50) + 3 - size);
        while engine.deliver(0) || engine.has_work() {
            engine.turn(true);
            assert!(engine.machine().calls.len() < 40, "it reads on and on");
        }
        assert_eq!(up_to_date(&mut engine, ahead), data(0, 1 << 50..(1 << 50) + 3));
    }

    /// The call read everything, of a log that may be a hole of any size.
    #[test]
    fn m4_the_last_lines_are_found_in_turns() {
        const SIZE: u64 = 2_000_000;
        let begin = |lines: u64| {
            let mut newlines = (0..SIZE - 1).rev().filter(|offset| byte(0, *offset) == b'\n');
            newlines.nth(usize::try_from(lines - 1).unwrap()).unwrap() + 1
        };
        for snapshot in [false, true] {
            let mut engine = engine(SIZE);
            let mut options = TailOptions::new(Position::LastLines(170_000));
            if snapshot {
                options.snapshot();
            }
            engine.machine().calls.clear();
            let tail = engine.open(0, options, 7).unwrap();
            let other = follow(&mut engine, Position::End);
            assert!(engine.machine().calls.len() < 30, "{}", engine.machine().calls.len());
            assert_eq!(up_to_date(&mut engine, tail), []);
            let mut turns = 0;
            while engine.queued().all(|queued| queued != tail) {
                assert!(engine.has_work());
                assert_eq!(up_to_date(&mut engine, tail), [], "before its place is known");
                engine.machine().calls.clear();
                engine.turn(false);
                assert!(engine.machine().calls.len() < 30, "{}", engine.machine().calls.len());
                turns += 1;
            }
            assert!(turns > 2, "{turns} turns");
            assert_eq!(engine.emit(), Some((tail, 7)));
            assert_eq!(engine.position(tail), Some(begin(170_000)));
            let (bytes, answer) = drain(&mut engine, tail);
            assert_eq!(bytes, data(0, begin(170_000)..SIZE));
            assert_eq!(answer.unwrap(), if snapshot { Read::Ended } else { Read::UpToDate });
            assert!(engine.close(tail) && engine.close(other));
            engine.turn(true);
            assert!(!engine.has_work());
        }
    }

    #[test]
    fn m4_a_log_that_is_truncated_while_its_last_lines_are_looked_for_is_told() {
        for rewritten in [0, 100, 3_000_000] {
            let mut engine = engine(2_000_000);
            let tail = follow(&mut engine, Position::LastLines(u64::MAX));
            engine.turn(false);
            engine.machine().files[0].rewrite(rewritten);
            while engine.queued().all(|queued| queued != tail) {
                assert!(engine.has_work());
                engine.turn(false);
            }
            assert_eq!(drain(&mut engine, tail).1.unwrap(), Read::Truncated);
            up_to_date(&mut engine, tail);
        }
    }

    #[test]
    fn m4_a_search_for_the_last_lines_that_fails_is_told_and_goes_on() {
        let mut engine = engine(2_000_000);
        let tail = follow(&mut engine, Position::LastLines(u64::MAX));
        engine.turn(false);
        fail_next(&mut engine);
        engine.turn(false);
        assert!(engine.queued().any(|queued| queued == tail));
        engine.turn(true);
        assert!(!engine.has_work(), "nobody has read of the failure");
        assert_eq!(engine.read(tail, &mut [0; 9]).unwrap_err().raw_os_error(), Some(5));
        assert_eq!(up_to_date(&mut engine, tail), []);
        while engine.has_work() {
            engine.turn(false);
        }
        assert_eq!(engine.position(tail), Some(0));
        assert!(engine.queued().any(|queued| queued == tail));
        let closed = follow(&mut engine, Position::LastLines(u64::MAX));
        assert!(engine.close(closed) && engine.close(tail));
        engine.turn(true);
        engine.turn(true);
        assert!(!engine.has_work());
    }

    /// All tails of all logs were searched for those of the job.
    #[test]
    fn low_a_log_knows_its_tails_and_forgets_closed_ones() {
        let mut engine = Engine::new(2, 32);
        engine.create(0);
        engine.create(1);
        let start = TailOptions::new(Position::Start);
        let stay: Vec<TailId> = (0..10)
            .flat_map(|token| [0, 1].map(|file| engine.open(file, start, token).unwrap()))
            .collect();
        for token in 0..1000 {
            let tail = engine.open(0, start, token).unwrap();
            assert!(engine.close(tail));
        }
        let known = engine.subscribed(0);
        assert!(known < 40, "{known} tails are known of 10");
        engine.finish(0).unwrap();
        engine.remove(0, false).unwrap();
        for (index, tail) in stay.into_iter().enumerate() {
            assert_eq!(engine.position(tail).is_some(), index % 2 == 1);
        }
        assert_eq!(engine.tails(), 10);
    }

    /// Mutation testing: no test failed when this growth was announced, and the host read nothing.
    #[test]
    fn a_tail_is_not_told_of_growth_that_ends_where_it_begins_to_read() {
        let mut engine = engine(5);
        let ahead = follow(&mut engine, Position::Offset(10));
        let tail = follow(&mut engine, Position::End);
        engine.turn(true);
        engine.machine().files[0].append(5);
        engine.deliver(0);
        engine.turn(true);
        assert_eq!(engine.queued().collect::<Vec<_>>(), [tail]);
        assert_eq!(up_to_date(&mut engine, tail), data(0, 5..10));
        engine.machine().files[0].append(1);
        engine.deliver(0);
        engine.turn(true);
        assert_eq!(engine.queued().collect::<Vec<_>>(), [tail, ahead]);
        assert_eq!(up_to_date(&mut engine, ahead), data(0, 10..11));
    }

    #[test]
    fn a_log_that_nobody_reads_is_not_open_and_its_end_is_known_all_the_same() {
        let mut engine = engine(0);
        for closed in 1..=2 {
            engine.machine().files[0].append(7);
            assert_eq!(engine.machine().files[0].open(), 0);
            assert!(!engine.machine().files[0].is_watched());
            let tail = follow(&mut engine, Position::Start);
            assert_eq!(engine.machine().files[0].open(), 1);
            assert!(engine.machine().files[0].is_watched());
            assert!(engine.publishes_file(0));
            assert_eq!(up_to_date(&mut engine, tail), data(0, 0..7 * closed));
            engine.close(tail);
            assert!(!engine.publishes_file(0));
            assert_eq!(engine.published(0), (0, 7 * closed, 0, None));
        }
        engine.machine().files[0].append(7);
        assert_eq!(engine.finish(0).unwrap(), 21);
        assert_eq!(engine.published(0), (0, 21, 0, Some(21)));
        assert_eq!(engine.machine().calls.last(), Some(&Call::Len));
        engine.machine().files[0].append(7);
        let tail = follow(&mut engine, Position::Start);
        let (bytes, answer) = drain(&mut engine, tail);
        assert_eq!((bytes, answer.unwrap()), (data(0, 0..21), Read::Ended));
    }

    /// The fuzzer found that the earlier end was still assumed, so that the tail reported a
    /// truncation that was older than itself.
    #[test]
    fn a_log_that_shrank_while_nobody_read_it_is_what_it_is_now() {
        for size in [0, 20] {
            let mut engine = engine(40);
            let tail = follow(&mut engine, Position::Start);
            assert_eq!(up_to_date(&mut engine, tail), data(0, 0..40));
            engine.close(tail);
            engine.machine().files[0].rewrite(size);
            let tail = follow(&mut engine, Position::Start);
            assert_eq!(up_to_date(&mut engine, tail), data(1, 0..size));
            assert_eq!(engine.published(0), (0, size, 1, None));
        }
    }

    #[test]
    fn a_tail_that_follows_the_log_of_a_job_as_a_file_outlives_the_job() {
        let mut engine = engine(5);
        let snapshot = *TailOptions::new(Position::Start).snapshot();
        let of_job = [follow(&mut engine, Position::Start), engine.open(0, snapshot, 1).unwrap()];
        let of_file = engine.open_file(0, TailOptions::new(Position::Start), 2).unwrap();
        let part = engine.open_file(0, snapshot, 3).unwrap();
        assert_eq!((engine.machine().files[0].open(), engine.logs()), (1, 1));
        engine.finish(0).unwrap();
        engine.remove(0, false).unwrap();
        assert_eq!(engine.machine().files[0].name, Name::Gone);
        for tail in of_job {
            assert_eq!(engine.position(tail), None);
        }
        engine.machine().files[0].append(3);
        assert_eq!(up_to_date(&mut engine, of_file), data(0, 0..5));
        engine.turn(true);
        assert_eq!(up_to_date(&mut engine, of_file), data(0, 5..8));
        let (bytes, answer) = drain(&mut engine, part);
        assert_eq!((bytes, answer.unwrap()), (data(0, 0..5), Read::Ended));
        assert_eq!((engine.machine().files[0].open(), engine.logs()), (1, 1));
        engine.close(of_file);
        engine.close(part);
        assert_eq!((engine.machine().files[0].open(), engine.logs()), (0, 0));
        assert!(!engine.machine().files[0].is_watched());
    }

    #[test]
    fn a_file_that_is_followed_before_it_is_known_as_a_log_of_a_job_has_one_log() {
        let mut engine = Engine::new(1, 32);
        let of_file = engine.open_file(0, TailOptions::new(Position::Start), 0).unwrap();
        engine.create(0);
        let of_job = follow(&mut engine, Position::Start);
        assert_eq!((engine.machine().files[0].open(), engine.logs()), (1, 1));
        engine.close(of_file);
        engine.close(of_job);
        assert_eq!((engine.machine().files[0].open(), engine.logs()), (0, 1));
        engine.finish(0).unwrap();
        engine.remove(0, true).unwrap();
        assert_eq!((engine.machine().files[0].name, engine.logs()), (Name::Own, 0));
    }

    #[test]
    fn a_log_whose_name_the_job_has_taken_is_not_opened_and_removed_all_the_same() {
        let cases = [
            (Interference::Replace, NotOurLog::Replaced),
            (Interference::Unlink, NotOurLog::Removed),
        ];
        for (meddling, expected) in cases {
            let check = |error: io::Error| {
                assert_eq!(error.kind(), io::ErrorKind::NotFound);
                let inner = error.into_inner().unwrap().downcast::<NotOurLog>().unwrap();
                assert_eq!(*inner, expected);
            };
            let mut engine = engine(5);
            let tail = follow(&mut engine, Position::Start);
            engine.machine().script = VecDeque::from([meddling]);
            // The file is open, so its name does not matter.
            assert_eq!(up_to_date(&mut engine, tail), data(0, 0..5));
            assert_eq!(up_to_date(&mut engine, tail), []);
            engine.turn(true);
            let other = follow(&mut engine, Position::Start);
            engine.close(tail);
            engine.close(other);
            check(engine.open(0, TailOptions::new(Position::Start), 0).unwrap_err());
            check(engine.finish(0).unwrap_err());
            engine.remove(0, false).unwrap();
            assert_eq!(engine.machine().files[0].name, Name::Gone);
            assert_eq!((engine.machine().files[0].open(), engine.logs()), (0, 0));
        }
    }

    /// A job of which the newest 20 bytes are kept, and at most 10 more, with so many.
    fn short(size: u64) -> Engine {
        let mut engine = Engine::new(1, 32);
        engine.create_short(0, 20, 10);
        engine.turn(false);
        write(&mut engine, size);
        engine
    }

    /// A writer appends so many bytes, and everything is done about it.
    fn write(engine: &mut Engine, amount: u64) {
        engine.machine().files[0].append(amount);
        while engine.deliver(0) || engine.has_work() {
            engine.turn(true);
        }
    }

    /// Reads all that is there, turn by turn.
    fn read_on(engine: &mut Engine, tail: TailId) -> Vec<u8> {
        let mut bytes = up_to_date(engine, tail);
        loop {
            write(engine, 0);
            match up_to_date(engine, tail) {
                more if more.is_empty() => return bytes,
                more => bytes.extend(more),
            }
        }
    }

    #[test]
    fn a_log_that_nobody_reads_is_kept_short_and_then_costs_nothing() {
        let mut engine = short(0);
        assert!(engine.machine().files[0].is_armed() && !engine.has_work());
        for (amount, start, size) in [(29, 0, 29), (1, 10, 30), (9, 10, 39), (500, 519, 539)] {
            write(&mut engine, amount);
            assert_eq!(engine.span(0), Some(start..size));
            assert_eq!(engine.machine().files[0].allocated(), size - start);
            assert!(engine.machine().files[0].is_armed() && !engine.has_work());
        }
        engine.machine().calls.clear();
        engine.turn(true);
        assert_eq!(engine.machine().calls, []);
        assert_eq!(engine.finish(0).unwrap(), 539);
        assert_eq!(engine.machine().files[0].open(), 0);
        assert!(!engine.machine().files[0].is_watched());
        engine.remove(0, true).unwrap();
        assert_eq!(engine.logs(), 0);
    }

    #[test]
    fn a_log_that_grows_all_the_time_is_looked_at_by_a_timer() {
        let mut engine = short(0);
        engine.machine().files[0].append(5);
        assert!(engine.deliver(0));
        engine.turn(false);
        for _ in 0..10 {
            engine.machine().files[0].append(100);
            assert!(!engine.deliver(0), "the watch makes its writer slower");
            engine.machine().calls.clear();
            engine.turn(true);
            assert!(!engine.machine().calls.contains(&Call::SetArmed));
            assert!(engine.machine().files[0].allocated() < 30);
        }
    }

    #[test]
    fn a_tail_hears_how_many_bytes_are_gone_and_goes_on_behind_them() {
        for fill in [false, true] {
            let mut engine = short(25);
            let tail = follow(&mut engine, Position::Start);
            assert_eq!(engine.read(tail, &mut [0; 9]).unwrap(), Read::Data(9));
            write(&mut engine, 100);
            let bytes = 105 - 9;
            match fill {
                true => assert_eq!(engine.fill_buf(tail).unwrap(), Fill::Skipped { bytes }),
                false => {
                    assert_eq!(engine.read(tail, &mut [0; 9]).unwrap(), Read::Skipped { bytes });
                }
            }
            assert_eq!(up_to_date(&mut engine, tail), data(0, 105..125));
            // Whoever keeps up misses nothing.
            for _ in 0..20 {
                let size = engine.machine().files[0].size;
                write(&mut engine, 7);
                assert_eq!(up_to_date(&mut engine, tail), data(0, size..size + 7));
            }
            assert!(engine.machine().files[0].allocated() < 30);
        }
    }

    #[test]
    fn a_new_tail_begins_at_the_first_byte_that_was_kept() {
        let mut engine = short(125);
        let snapshot = |position| *TailOptions::new(position).snapshot();
        for (position, skipped, start) in [
            (Position::Start, None, 105),
            (Position::LastLines(1), None, 122),
            (Position::LastLines(2), None, 111),
            (Position::LastLines(9), None, 105),
            (Position::Offset(110), None, 110),
            (Position::Offset(7), Some(98), 105),
        ] {
            let tail = engine.open(0, snapshot(position), 0).unwrap();
            if let Some(bytes) = skipped {
                assert_eq!(engine.read(tail, &mut [0; 9]).unwrap(), Read::Skipped { bytes });
            }
            let (bytes, answer) = drain(&mut engine, tail);
            assert_eq!(
                (bytes, answer.unwrap()),
                (data(0, start..125), Read::Ended),
                "{position:?}"
            );
            engine.close(tail);
        }
    }

    #[test]
    fn a_snapshot_of_which_nothing_was_kept_says_so_and_ends() {
        let mut engine = short(25);
        let tail = engine.open(0, *TailOptions::new(Position::Start).snapshot(), 0).unwrap();
        let lines =
            engine.open(0, *TailOptions::new(Position::LastLines(1)).snapshot(), 0).unwrap();
        let from = engine.position(lines).unwrap();
        write(&mut engine, 1000);
        for (tail, bytes) in [(tail, 25), (lines, 25 - from)] {
            assert_eq!(engine.read(tail, &mut [0; 9]).unwrap(), Read::Skipped { bytes });
            assert_eq!(engine.read(tail, &mut [0; 9]).unwrap(), Read::Ended);
        }
    }

    #[test]
    fn a_log_that_is_kept_short_and_truncated_is_told_of_as_any_other() {
        for read in [false, true] {
            let mut engine = short(125);
            let tail = follow(&mut engine, Position::Start);
            if read {
                assert_eq!(up_to_date(&mut engine, tail), data(0, 105..125));
                engine.turn(true);
            }
            engine.machine().files[0].rewrite(300);
            write(&mut engine, 0);
            assert_eq!(drain(&mut engine, tail).1.unwrap(), Read::Truncated);
            let skipped = Read::Skipped { bytes: 280 };
            assert_eq!(engine.read(tail, &mut [0; 9]).unwrap(), skipped, "read before: {read}");
            assert_eq!(up_to_date(&mut engine, tail), data(1, 280..300));
        }
    }

    /// What is left of the hole is not read, and everything else that is left is.
    #[test]
    fn a_log_that_was_only_made_shorter_begins_behind_its_hole() {
        for read in [false, true] {
            // Within the hole, at its end, and behind that.
            for (left, more) in [(3, 9), (50, 0), (50, 40), (105, 5), (110, 0), (110, 9)] {
                let mut engine = short(125);
                let tail = follow(&mut engine, Position::Start);
                if read {
                    assert_eq!(up_to_date(&mut engine, tail), data(0, 105..125));
                    engine.turn(true);
                }
                let case = format!("{left}, then {more}, read before: {read}");
                engine.machine().files[0].shorten(left, 0);
                write(&mut engine, 0);
                write(&mut engine, more);
                assert_eq!(drain(&mut engine, tail).1.unwrap(), Read::Truncated, "{case}");
                let size = left + more;
                let hole = left.min(105);
                let start = if size - hole < 30 { hole } else { size - 20 };
                assert_eq!(engine.span(0), Some(start..size), "{case}");
                let skipped = engine.read(tail, &mut [0; 9]).unwrap();
                assert_eq!(skipped, Read::Skipped { bytes: start }, "{case}");
                let content = &engine.machine().files[0];
                let expected: Vec<u8> = (start..size).map(|at| content.byte(at)).collect();
                assert!(!expected.contains(&0), "{case}");
                assert_eq!(read_on(&mut engine, tail), expected, "{case}");
                let late = follow(&mut engine, Position::Start);
                assert_eq!(read_on(&mut engine, late), expected, "{case}");
                assert_eq!(engine.published(0).2, 1, "{case}");
            }
        }
    }

    /// What a tail has read last is no proof any more when it is given back.
    #[test]
    fn a_tail_that_was_nearly_left_behind_reads_on() {
        let mut engine = Engine::new(1, 32);
        engine.create_short(0, 60, 10);
        engine.turn(false);
        write(&mut engine, 200);
        assert_eq!(engine.span(0), Some(140..200));
        let tail = follow(&mut engine, Position::Start);
        assert_eq!(engine.read(tail, &mut [0; 12]).unwrap(), Read::Data(12));
        write(&mut engine, 10);
        assert_eq!(engine.span(0), Some(150..210));
        assert_eq!(up_to_date(&mut engine, tail), data(0, 152..200));
        write(&mut engine, 0);
        assert_eq!(up_to_date(&mut engine, tail), data(0, 200..210));
    }

    #[test]
    fn nothing_is_kept_of_the_oldest_finished_log_when_all_have_too_much() {
        for read in [false, true] {
            let mut engine = Engine::with_total(3, 32, Some(250));
            (0..3).for_each(|file| {
                engine.create(file);
                engine.machine().files[file].append(100);
            });
            let start = TailOptions::new(Position::Start);
            let tail = read.then(|| engine.open(1, start, 0).unwrap());
            if let Some(tail) = tail {
                assert_eq!(engine.read(tail, &mut [0; 7]).unwrap(), Read::Data(7));
            }
            // The first one runs on.
            for file in [1, 2] {
                engine.finish(file).unwrap();
            }
            engine.turn(true);
            assert!(!engine.has_work(), "there is room for both");
            engine.finish(0).unwrap();
            while engine.has_work() {
                engine.turn(true);
            }
            assert_eq!([0, 1, 2].map(|file| engine.span(file).unwrap().start), [0, 100, 0]);
            // But for the bytes by which it is known again.
            assert_eq!(engine.machine().files[1].allocated(), 16);
            if let Some(tail) = tail {
                assert_eq!(engine.read(tail, &mut [0; 9]).unwrap(), Read::Skipped { bytes: 93 });
                assert_eq!(engine.read(tail, &mut [0; 9]).unwrap(), Read::Ended);
                engine.close(tail);
            }
            let late = engine.open(1, TailOptions::new(Position::Offset(50)), 0).unwrap();
            assert_eq!(engine.read(late, &mut [0; 9]).unwrap(), Read::Skipped { bytes: 50 });
            assert_eq!(engine.read(late, &mut [0; 9]).unwrap(), Read::Ended);
            engine.close(late);
            assert_eq!(engine.machine().files[1].open(), 0);
            (0..3).for_each(|file| engine.remove(file, false).unwrap());
            assert_eq!(engine.logs(), 0);
        }
    }

    /// What is given back by a call that a truncation has overtaken is a part of the new content.
    #[test]
    fn what_is_given_back_of_another_content_is_told() {
        for size in [3, 15, 50, 200] {
            let mut engine = short(0);
            let tail = follow(&mut engine, Position::Start);
            engine.machine().files[0].append(60);
            engine.deliver(0);
            engine.machine().calls.clear();
            let mut probe = short(0);
            follow(&mut probe, Position::Start);
            probe.machine().files[0].append(60);
            probe.deliver(0);
            probe.machine().calls.clear();
            probe.turn(false);
            let punch = probe.machine().calls.iter().position(|call| *call == Call::Punch).unwrap();
            let mut script: VecDeque<_> =
                std::iter::repeat_n(Interference::Nothing, punch).collect();
            script.push_back(Interference::Rewrite(size));
            engine.machine().script = script;
            engine.turn(false);
            write(&mut engine, 0);
            assert_eq!(drain(&mut engine, tail).1.unwrap(), Read::Truncated, "{size}");
            let start = engine.span(0).unwrap().start;
            if start > 0 {
                let skipped = engine.read(tail, &mut [0; 9]).unwrap();
                assert_eq!(skipped, Read::Skipped { bytes: start }, "{size}");
            }
            assert_eq!(read_on(&mut engine, tail), data(1, start..size));
        }
    }

    /// It was taken for one of which everything was given back already: it was truncated when that
    /// was looked for, and had the same size at the next look.
    #[test]
    fn a_log_that_is_written_anew_to_the_same_size_between_two_looks_is_kept_short() {
        let mut engine = short(0);
        engine.machine().files[0].append(60);
        engine.deliver(0);
        let (measure, skip) = (Interference::Nothing, Interference::Nothing);
        engine.machine().script = VecDeque::from([measure, skip, Interference::Rewrite(0)]);
        engine.turn(false);
        assert_eq!(engine.machine().files[0].size, 0);
        engine.machine().files[0].append(60);
        write(&mut engine, 0);
        assert_eq!(engine.machine().files[0].allocated(), 20);
    }

    #[test]
    fn what_cannot_be_given_back_is_tried_again_later_and_is_a_problem_of_the_job() {
        let mut engine = short(25);
        engine.machine().files[0].append(100);
        engine.deliver(0);
        for _ in 0..50 {
            engine.machine().script = std::iter::repeat_n(Interference::Fail(5), 9).collect();
            engine.turn(false);
        }
        assert!(engine.machine().files[0].allocated() > 100);
        engine.machine().script.clear();
        write(&mut engine, 0);
        assert_eq!(engine.machine().files[0].allocated(), 20);
        assert_eq!(engine.finish(0).unwrap(), 125);
        assert_eq!(engine.problem(0).unwrap().raw_os_error(), Some(5));
        assert!(engine.problem(0).is_none());
    }

    #[test]
    fn a_log_that_cannot_be_watched_is_looked_at_by_the_timer() {
        let mut engine = Engine::new(1, 32);
        engine.create_short(0, 20, 10);
        for _ in 0..9 {
            engine.machine().files[0].append(50);
            let measure = [Interference::Nothing, Interference::Fail(28)];
            engine.machine().script = measure.into_iter().cycle().take(20).collect();
            engine.turn(true);
            engine.machine().script.clear();
            engine.turn(true);
            assert!(engine.has_work());
        }
        assert!(engine.machine().files[0].allocated() < 30);
        assert_eq!(engine.problem(0).unwrap().raw_os_error(), Some(28));
    }

    #[test]
    fn what_comes_beyond_a_limit_is_discarded_and_not_read() {
        for read in [false, true] {
            let mut engine = Engine::new(1, 32);
            engine.create_limited(0, u64::MAX, 10, Some(40));
            engine.turn(false);
            let tail = read.then(|| follow(&mut engine, Position::Start));
            let mut bytes = Vec::new();
            for _ in 0..20 {
                write(&mut engine, 9);
                bytes.extend(tail.map_or(Vec::new(), |tail| up_to_date(&mut engine, tail)));
                assert!(engine.machine().files[0].allocated() < 40 + 10);
            }
            assert!(!engine.has_work() && engine.machine().files[0].is_armed());
            assert_eq!(engine.span(0), Some(0..40));
            if read {
                assert_eq!(bytes, data(0, 0..40));
            }
            assert_eq!(engine.finish(0).unwrap(), 40);
            let late = follow(&mut engine, Position::Start);
            for tail in tail.into_iter().chain([late]) {
                let (rest, answer) = drain(&mut engine, tail);
                assert_eq!(answer.unwrap(), Read::Ended);
                assert!(tail != late || rest == data(0, 0..40));
                engine.close(tail);
            }
            assert_eq!(engine.machine().files[0].open(), 0);
        }
    }

    /// Runs a job of which little is kept, with a tail that is read now and then. The call with
    /// the index in `failing` fails.
    fn live_short(failing: Option<(usize, Errno)>) -> Vec<Call> {
        let mut host = Host::new(1, failing);
        host.engine.create_short(0, 20, 10);
        let tail = host.open(|engine| engine.open(0, TailOptions::new(Position::Start), 0));
        let mut offset = 0;
        let mut read = |host: &mut Host, expected: &[Read]| loop {
            let (bytes, answer) = host.drain(tail);
            let end = offset + bytes.len() as u64;
            assert_eq!(bytes, data(0, offset..end), "{failing:?}");
            offset = end;
            match answer {
                Read::Skipped { bytes } => offset += bytes,
                answer => break assert!(expected.contains(&answer), "{failing:?}: {answer:?}"),
            }
        };
        let grow = |host: &mut Host, amount: u64| {
            host.engine.machine().files[0].append(amount);
            host.engine.deliver(0);
            host.engine.turn(true);
        };
        for (amount, is_read) in
            [(5, true), (40, false), (3, true), (3, true), (300, true), (0, true), (100, false)]
        {
            grow(&mut host, amount);
            grow(&mut host, 0);
            if is_read {
                read(&mut host, &[Read::UpToDate]);
            }
        }
        host.finish(0);
        read(&mut host, &[Read::Ended]);
        assert_eq!(offset, 451, "{failing:?}");
        assert!(host.engine.close(tail));
        while host.engine.has_work() {
            host.engine.turn(true);
        }
        if !host.errors.iter().any(|(_, from)| *from == "finish") {
            let least = host.engine.machine().files[0].allocated();
            assert!(least == 20 || host.engine.problem(0).is_some(), "{failing:?}: {least}");
        }
        host.remove(0);
        assert_eq!((host.engine.tails(), host.engine.logs()), (0, 0));
        let content = &host.engine.machine().files[0];
        assert_eq!((content.open(), content.is_watched()), (0, false), "{failing:?}");
        std::mem::take(&mut host.engine.machine().calls)
    }

    #[test]
    fn every_call_for_a_log_that_is_kept_short_may_fail_once() {
        let calls = live_short(None);
        for (number, call) in calls.iter().enumerate() {
            for errno in errnos(*call) {
                let again = live_short(Some((number, *errno)));
                assert_eq!(again[..=number], calls[..=number]);
            }
        }
        for call in [Call::Measure, Call::Punch, Call::DataFrom, Call::ReadAt, Call::SetArmed] {
            assert!(calls.contains(&call), "{call:?} was not tried");
        }
    }

    #[test]
    fn a_finished_log_is_as_short_as_it_is_to_be() {
        for read in [false, true] {
            let mut engine = short(28);
            let tail = read.then(|| follow(&mut engine, Position::Start));
            assert_eq!(engine.finish(0).unwrap(), 28);
            assert_eq!(engine.span(0), Some(8..28));
            assert_eq!(engine.machine().files[0].allocated(), 20);
            if let Some(tail) = tail {
                assert_eq!(engine.read(tail, &mut [0; 9]).unwrap(), Read::Skipped { bytes: 8 });
                assert_eq!(drain(&mut engine, tail).0, data(0, 8..28));
                engine.close(tail);
            }
            assert_eq!(engine.machine().files[0].open(), 0);
            assert!(!engine.has_work());
        }
    }

    /// The errors with which a call can fail.
    fn errnos(call: Call) -> &'static [Errno] {
        match call {
            Call::Open => {
                &[Errno::IO, Errno::MFILE, Errno::NFILE, Errno::ACCESS, Errno::STALE, Errno::NOENT]
            }
            Call::Len | Call::Unlink => &[Errno::IO, Errno::ACCESS, Errno::STALE, Errno::NOENT],
            Call::ReadAt | Call::Size | Call::Measure | Call::DataFrom => {
                &[Errno::IO, Errno::STALE]
            }
            Call::Punch => &[Errno::IO, Errno::NOSPC, Errno::PERM],
            Call::SetArmed => &[Errno::NOSPC, Errno::NOMEM, Errno::ACCESS, Errno::NOENT],
            Call::LookUp => &[Errno::IO, Errno::MFILE, Errno::NOSPC, Errno::NOMEM, Errno::STALE],
            Call::Nowhere => &[Errno::MFILE, Errno::NFILE, Errno::NOMEM],
        }
    }

    /// A host that goes on after each failure, and records them all.
    struct Host {
        engine: Engine,
        /// The errno of each failure, and the operation that returned it.
        errors: Vec<(i32, &'static str)>,
        /// How often a tail has gone on in another file.
        replaced: usize,
        /// Whether a file may have been missed.
        missed: bool,
    }

    impl Host {
        /// The call with the index in `failing` fails.
        fn new(files: usize, failing: Option<(usize, Errno)>) -> Self {
            let mut engine = Engine::new(files, 32);
            if let Some((number, errno)) = failing {
                let machine = engine.machine();
                machine.script = std::iter::repeat_n(Interference::Nothing, number).collect();
                machine.script.push_back(Interference::Fail(errno.raw_os_error()));
            }
            Self { engine, errors: Vec::new(), replaced: 0, missed: false }
        }

        fn replaced(&mut self, missed: bool) {
            self.replaced += 1;
            self.missed |= missed;
        }

        fn note(&mut self, error: &io::Error, from: &'static str) {
            self.errors.push((error.raw_os_error().unwrap(), from));
            assert!(self.errors.len() < 20, "the host cannot go on: {:?}", self.errors);
        }

        fn open(&mut self, mut open: impl FnMut(&mut Engine) -> io::Result<TailId>) -> TailId {
            loop {
                match open(&mut self.engine) {
                    Ok(tail) => return tail,
                    Err(error) => self.note(&error, "open"),
                }
            }
        }

        /// Reads all that is there, by `read` and `fill_buf` in alternation.
        fn drain(&mut self, tail: TailId) -> (Vec<u8>, Read) {
            let (mut bytes, mut buffer) = (Vec::new(), [0; 7]);
            loop {
                match self.engine.read(tail, &mut buffer) {
                    Ok(Read::Data(length)) => bytes.extend_from_slice(&buffer[..length]),
                    Ok(Read::Replaced { missed }) => self.replaced(missed),
                    Ok(answer) => return (bytes, answer),
                    Err(error) => {
                        self.note(&error, "read");
                        self.engine.turn(true);
                    }
                }
                match self.engine.fill_buf(tail) {
                    Ok(Fill::Data(shown)) => {
                        let length = shown.len().min(5);
                        bytes.extend_from_slice(&shown[..length]);
                        self.engine.consume(tail, length);
                    }
                    Ok(Fill::UpToDate) => return (bytes, Read::UpToDate),
                    Ok(Fill::Truncated) => return (bytes, Read::Truncated),
                    Ok(Fill::Skipped { bytes: gone }) => {
                        return (bytes, Read::Skipped { bytes: gone });
                    }
                    Ok(Fill::Replaced { missed }) => self.replaced(missed),
                    Ok(Fill::Ended) => return (bytes, Read::Ended),
                    Err(error) => {
                        self.note(&error, "fill");
                        self.engine.turn(true);
                    }
                }
            }
        }

        fn grow(&mut self, amount: u64) {
            for file in [0, 1] {
                self.engine.machine().files[file].append(amount);
                self.engine.deliver(file);
            }
            self.engine.turn(true);
        }

        fn finish(&mut self, file: usize) {
            if let Err(error) = self.engine.finish(file) {
                self.note(&error, "finish");
            }
        }

        fn remove(&mut self, file: usize) {
            if let Err(error) = self.engine.remove(file, false) {
                self.note(&error, "remove");
            }
        }
    }

    /// Runs three jobs with every kind of tail. The call with the index in `failing` fails.
    fn live(failing: Option<(usize, Errno)>) -> (Vec<Call>, Vec<(i32, &'static str)>) {
        let mut host = Host::new(3, failing);
        (0..3).for_each(|file| host.engine.create(file));
        let start = |position| TailOptions::new(position);
        host.engine.machine().files[0].append(200);
        host.engine.machine().files[1].append(5);
        host.engine.machine().files[2].append(7);
        // One log with a single tail, and one with several.
        let other = host.open(|engine| engine.open(1, start(Position::Start), 0));
        let behind = host.open(|engine| engine.open(0, start(Position::Start), 1));
        let lines = host.open(|engine| engine.open(0, start(Position::LastLines(2)), 2));
        let part = host.open(|engine| engine.open(0, *start(Position::Offset(190)).snapshot(), 3));
        let file = host.open(|engine| engine.open_file(0, start(Position::End), 4));
        let from = host.engine.position(lines).unwrap();
        let tails = [(other, 1, 0), (behind, 0, 0), (lines, 0, from), (file, 0, 200)];
        let mut found = [const { Vec::new() }; 4];
        let mut collect = |host: &mut Host, expected: Read| {
            for ((tail, ..), found) in tails.iter().zip(&mut found) {
                let (bytes, answer) = host.drain(*tail);
                found.extend(bytes);
                let of_file = *tail == file;
                assert_eq!(answer, if of_file { Read::UpToDate } else { expected });
            }
        };
        collect(&mut host, Read::UpToDate);
        // Single lines, then so many that the logs are paced, then more than a window holds.
        for amount in [3, 3, 3, 3, 3, 3, 3, 0, 0, 0, 3, 100, 0] {
            host.grow(amount);
            collect(&mut host, Read::UpToDate);
            host.engine.sleep(Duration::from_micros(if amount == 0 { 1000 } else { 1 }));
        }
        // Growth that was not noticed before the jobs finish.
        for file in [0, 1] {
            host.engine.machine().files[file].append(50);
        }
        (0..3).for_each(|job| host.finish(job));
        collect(&mut host, Read::Ended);
        let (bytes, answer) = host.drain(part);
        assert_eq!((bytes, answer), (data(0, 190..200), Read::Ended));
        for ((_, file, from), found) in tails.into_iter().zip(found) {
            let size = host.engine.machine().files[file].size;
            assert_eq!(found, data(0, from..size), "{failing:?}");
        }
        for tail in [behind, lines, part] {
            assert!(host.engine.close(tail));
        }
        let late = host.open(|engine| engine.open(2, start(Position::Start), 5));
        assert_eq!(host.drain(late), (data(0, 0..7), Read::Ended));
        (0..3).for_each(|job| host.remove(job));
        assert_eq!(host.engine.tails(), 1, "{failing:?}");
        host.engine.machine().files[0].append(3);
        host.engine.deliver(0);
        host.engine.turn(true);
        let (mut bytes, _) = host.drain(file);
        // After a failure, the next turn finds the rest.
        host.engine.turn(true);
        bytes.extend(host.drain(file).0);
        assert_eq!(bytes.len(), 3, "{failing:?}");
        assert!(host.engine.close(file));
        while host.engine.has_work() {
            host.engine.turn(true);
        }
        assert_eq!((host.engine.tails(), host.engine.logs()), (0, 0));
        assert_eq!(host.engine.emit(), None);
        for content in &host.engine.machine().files {
            assert_eq!((content.open(), content.is_watched()), (0, false), "{failing:?}");
        }
        (std::mem::take(&mut host.engine.machine().calls), host.errors)
    }

    #[test]
    fn every_call_may_fail_once_anywhere_and_nothing_is_lost_or_kept() {
        let (calls, errors) = live(None);
        assert_eq!(errors, []);
        for (number, call) in calls.iter().enumerate() {
            for errno in errnos(*call) {
                let (again, errors) = live(Some((number, *errno)));
                assert_eq!(again[..=number], calls[..=number]);
                let is_told = errors.iter().all(|(told, _)| *told == errno.raw_os_error());
                assert!(is_told && !errors.is_empty(), "{errno} of {call:?}: {errors:?}");
                // It is returned by the operation that made the call.
                let callers: &[&str] = match call {
                    Call::Open => &["open"],
                    Call::Len => &["finish"],
                    Call::Unlink => &["remove"],
                    Call::Size => &["open", "finish", "read", "fill"],
                    Call::ReadAt | Call::DataFrom | Call::SetArmed => {
                        &["open", "finish", "read", "fill"]
                    }
                    Call::Measure | Call::Punch => unreachable!("no log is kept short"),
                    Call::LookUp | Call::Nowhere => unreachable!("no name is followed"),
                };
                let (_, caller) = errors[0];
                assert!(callers.contains(&caller), "{errno} of {call:?} from {caller}");
            }
        }
        for call in [Call::Open, Call::Len, Call::Unlink, Call::ReadAt, Call::Size, Call::SetArmed]
        {
            assert!(calls.contains(&call), "{call:?} was not tried");
        }
    }

    /// An engine with this many files and one name, which leads to this file.
    fn linked(files: usize, target: Option<usize>) -> Engine {
        let mut engine = Engine::new(files, 32);
        engine.machine().links.push(Link::default());
        engine.machine().links[0].history.push(target);
        engine
    }

    fn follow_name(engine: &mut Engine, position: Position) -> TailId {
        engine.open_name(0, TailOptions::new(position), 0).unwrap()
    }

    /// Delivers every event, and runs turns until none is due.
    fn settle(engine: &mut Engine) {
        for round in 0.. {
            assert!(round < 100, "a busy loop");
            let told = (0..engine.machine.files.len()).any(|file| engine.deliver(file))
                | engine.deliver_link(0);
            if !told && !engine.has_work() {
                return;
            }
            engine.turn(true);
        }
    }

    fn replaced(engine: &mut Engine, tail: TailId) -> (Vec<u8>, bool) {
        let (bytes, answer) = drain(engine, tail);
        let Read::Replaced { missed } = answer.unwrap() else { panic!("{bytes:?}") };
        (bytes, missed)
    }

    fn is_clean(engine: &mut Engine) -> bool {
        engine.tails() == 0
            && engine.logs() == 0
            && engine.machine.links[0].followers() == 0
            && engine.machine.nothing.open() == 0
            && engine.machine.files.iter().all(|file| file.open() == 0 && !file.is_watched())
    }

    #[test]
    fn the_old_file_is_read_until_the_new_one_has_a_byte_and_then_to_its_end() {
        let mut engine = linked(2, Some(0));
        engine.machine().files[0].append(5);
        let tail = follow_name(&mut engine, Position::Start);
        assert_eq!(up_to_date(&mut engine, tail), data(0, 0..5));
        engine.machine().links[0].lead_to(Some(1));
        settle(&mut engine);
        // The writer has not opened the new file yet.
        engine.machine().files[0].append(3);
        settle(&mut engine);
        assert_eq!(engine.emit(), Some((tail, 0)));
        assert_eq!(up_to_date(&mut engine, tail), data(0, 5..8));
        settle(&mut engine);
        assert_eq!(engine.emit(), None);
        engine.machine().files[0].append(2);
        engine.machine().files[1].append(4);
        settle(&mut engine);
        assert_eq!(engine.emit(), Some((tail, 0)));
        assert_eq!(engine.emit(), None);
        assert_eq!(replaced(&mut engine, tail), (data(0, 8..10), false));
        assert_eq!((engine.file_of(tail), engine.position(tail)), (Some(1), Some(0)));
        assert_eq!(engine.machine().files[0].open(), 0);
        assert_eq!(up_to_date(&mut engine, tail), data(0, 0..4));
        engine.machine().files[1].append(4);
        settle(&mut engine);
        assert_eq!(up_to_date(&mut engine, tail), data(0, 4..8));
        assert_eq!(engine.tails(), 1);
        engine.close(tail);
        assert!(is_clean(&mut engine));
    }

    #[test]
    fn a_name_that_leads_nowhere_is_read_from_the_first_byte_of_what_comes() {
        for position in [Position::Start, Position::End, Position::LastLines(1)] {
            let mut engine = linked(1, None);
            let tail = follow_name(&mut engine, position);
            assert_eq!(up_to_date(&mut engine, tail), []);
            engine.machine().files[0].append(5);
            engine.machine().links[0].lead_to(Some(0));
            settle(&mut engine);
            assert_eq!(engine.queued().count(), 1);
            assert_eq!(up_to_date(&mut engine, tail), data(0, 0..5));
            assert_eq!(engine.machine().nothing.open(), 0);
            engine.close(tail);
            assert!(is_clean(&mut engine));
        }
    }

    #[test]
    fn a_host_that_does_not_read_gets_every_file_later() {
        let mut engine = linked(6, Some(0));
        let tail = follow_name(&mut engine, Position::Start);
        let other = engine.open_name(0, TailOptions::new(Position::Start), 1).unwrap();
        for file in 0..6 {
            if file > 0 {
                engine.machine().links[0].lead_to(Some(file));
                settle(&mut engine);
            }
            engine.machine().files[file].append(file as u64 * 20);
            settle(&mut engine);
        }
        for tail in [other, tail] {
            for file in 0..5 {
                // The first one has no bytes, and is left when the second one has some.
                assert_eq!(replaced(&mut engine, tail), (data(0, 0..file * 20), false), "{file}");
            }
            assert_eq!(up_to_date(&mut engine, tail), data(0, 0..100));
            assert_eq!(engine.machine().files[2].open(), usize::from(tail == other));
        }
        engine.close(tail);
        engine.close(other);
        assert!(is_clean(&mut engine));
    }

    #[test]
    fn a_file_that_has_the_name_again_is_not_read_twice() {
        let mut engine = linked(2, Some(0));
        engine.machine().files[0].append(40);
        let tail = follow_name(&mut engine, Position::Start);
        assert_eq!(up_to_date(&mut engine, tail), data(0, 0..40));
        for (target, grown) in [(None, 0), (Some(0), 0), (Some(1), 0), (Some(0), 0), (Some(1), 3)] {
            engine.machine().links[0].lead_to(target);
            if let Some(file) = target {
                engine.machine().files[file].append(grown);
            }
            settle(&mut engine);
        }
        assert_eq!(replaced(&mut engine, tail), (Vec::new(), false));
        assert_eq!(up_to_date(&mut engine, tail), data(0, 0..3));
        engine.machine().files[0].append(2);
        engine.machine().links[0].lead_to(Some(0));
        settle(&mut engine);
        assert_eq!(replaced(&mut engine, tail), (Vec::new(), false));
        assert_eq!(engine.position(tail), Some(40));
        assert_eq!(up_to_date(&mut engine, tail), data(0, 40..42));
        // But it is, if it was written anew.
        engine.machine().links[0].lead_to(Some(1));
        engine.machine().files[1].append(1);
        settle(&mut engine);
        assert_eq!(replaced(&mut engine, tail), (Vec::new(), false));
        engine.machine().files[0].rewrite(50);
        engine.machine().links[0].lead_to(Some(0));
        settle(&mut engine);
        assert_eq!(replaced(&mut engine, tail), (data(0, 3..4), false));
        assert_eq!(up_to_date(&mut engine, tail), data(1, 0..50));
    }

    #[test]
    fn a_file_that_was_written_anew_before_it_was_superseded_is_read_anew() {
        let mut engine = linked(2, Some(0));
        engine.machine().files[0].append(40);
        let tail = follow_name(&mut engine, Position::Start);
        assert_eq!(up_to_date(&mut engine, tail), data(0, 0..40));
        engine.machine().files[0].rewrite(30);
        engine.machine().files[1].append(3);
        engine.machine().links[0].lead_to(Some(1));
        engine.deliver_link(0);
        engine.turn(false);
        assert_eq!(engine.read(tail, &mut [0; 7]).unwrap(), Read::Truncated);
        assert_eq!(replaced(&mut engine, tail), (data(1, 0..30), false));
        assert_eq!(up_to_date(&mut engine, tail), data(0, 0..3));
    }

    /// Where the returned file was left was only compared when the name returned to it.
    #[test]
    fn a_file_that_returns_is_read_anew_if_it_is_written_anew_before_the_tail_gets_there() {
        let mut engine = linked(2, Some(0));
        engine.machine().files[0].append(40);
        let tail = follow_name(&mut engine, Position::Start);
        assert_eq!(up_to_date(&mut engine, tail), data(0, 0..40));
        for file in [1, 0] {
            engine.machine().links[0].lead_to(Some(file));
            engine.machine().files[file].append(3);
            settle(&mut engine);
        }
        engine.machine().files[0].rewrite(90);
        settle(&mut engine);
        assert_eq!(replaced(&mut engine, tail), (Vec::new(), false));
        assert_eq!(replaced(&mut engine, tail), (data(0, 0..3), false));
        assert_eq!(engine.position(tail), Some(0));
        assert_eq!(up_to_date(&mut engine, tail), data(1, 0..90));
    }

    /// The number of truncations was taken for that of a log that was opened again.
    #[test]
    fn a_superseded_file_that_is_written_anew_before_the_tail_gets_there_is_a_gap() {
        for size in [10, 200] {
            let mut engine = linked(3, Some(0));
            let tail = follow_name(&mut engine, Position::Start);
            for file in 0..3 {
                engine.machine().links[0].lead_to(Some(file));
                engine.machine().files[file].append(100);
                settle(&mut engine);
            }
            engine.machine().files[1].rewrite(size);
            settle(&mut engine);
            assert_eq!(replaced(&mut engine, tail), (data(0, 0..100), true));
            assert_eq!(replaced(&mut engine, tail), (Vec::new(), false));
            assert_eq!(up_to_date(&mut engine, tail), data(0, 0..100));
        }
    }

    #[test]
    fn a_name_that_cannot_be_looked_up_is_an_error_once_and_then_the_tail_reads_on() {
        let mut engine = linked(2, Some(0));
        engine.machine().files[0].append(5);
        let tail = follow_name(&mut engine, Position::Start);
        assert_eq!(engine.emit(), Some((tail, 0)));
        assert_eq!(up_to_date(&mut engine, tail), data(0, 0..5));
        settle(&mut engine);
        engine.machine().files[0].append(2);
        engine.machine().links[0].lead_to(Some(1));
        engine.deliver_link(0);
        engine.machine().script =
            VecDeque::from([Interference::Fail(Errno::ACCESS.raw_os_error())]);
        engine.turn(true);
        assert_eq!(engine.queued().count(), 1);
        let (mut bytes, answer) = drain(&mut engine, tail);
        assert_eq!(answer.unwrap_err().raw_os_error(), Some(Errno::ACCESS.raw_os_error()));
        // It waits again, which finds what has come meanwhile.
        bytes.extend(up_to_date(&mut engine, tail));
        settle(&mut engine);
        assert_eq!(engine.emit(), Some((tail, 0)));
        bytes.extend(up_to_date(&mut engine, tail));
        assert_eq!(bytes, data(0, 5..7));
        engine.machine().files[1].append(2);
        engine.machine().links[0].lead_to(Some(1));
        settle(&mut engine);
        assert_eq!(replaced(&mut engine, tail), (Vec::new(), true));
        assert_eq!(up_to_date(&mut engine, tail), data(0, 0..2));
    }

    /// Two tails follow a name through four files. The call with the index in `failing` fails.
    fn live_by_name(failing: Option<(usize, Errno)>) -> (Vec<Call>, Vec<(i32, &'static str)>) {
        let mut host = Host::new(4, failing);
        host.engine.machine().links.push(Link::default());
        host.engine.machine().links[0].history.push(None);
        let options = TailOptions::new(Position::Start);
        let tails = [0, 1].map(|token| host.open(|engine| engine.open_name(0, options, token)));
        let mut found = [const { Vec::new() }; 2];
        let mut expected = Vec::new();
        for file in 0..4 {
            let machine = host.engine.machine();
            // The old file grows until the new one has its first byte; one of them is empty then.
            if file > 0 {
                machine.files[file - 1].append(3);
            }
            machine.links[0].lead_to((file != 2).then_some(file));
            settle(&mut host.engine);
            if file > 0 {
                host.engine.machine().files[file - 1].append(40);
                let size = host.engine.machine().files[file - 1].size;
                expected.extend(data(0, 0..size));
            }
            host.engine.machine().links[0].lead_to(Some(file));
            settle(&mut host.engine);
            host.engine.machine().files[file].append(5);
            // The second tail is only read at every other file.
            for index in 0..=file % 2 {
                // A failure takes a few turns more.
                for _ in 0..5 {
                    settle(&mut host.engine);
                    let (bytes, answer) = host.drain(tails[index]);
                    assert_eq!(answer, Read::UpToDate);
                    found[index].extend(bytes);
                }
            }
        }
        expected.extend(data(0, 0..5));
        for found in found {
            // Nobody has read the failure to open a file, and then another one had its name.
            assert!(found == expected || host.missed, "{failing:?}: {found:?}");
        }
        assert!(host.replaced == 6 || host.missed && host.replaced == 5, "{failing:?}");
        assert!(failing.is_some() || !host.missed);
        for tail in tails {
            assert!(host.engine.close(tail));
        }
        assert!(is_clean(&mut host.engine), "{failing:?}");
        (std::mem::take(&mut host.engine.machine().calls), host.errors)
    }

    #[test]
    fn every_call_of_a_tail_that_follows_a_name_may_fail_once() {
        let (calls, errors) = live_by_name(None);
        assert_eq!(errors, []);
        let mut told = 0;
        for (number, call) in calls.iter().enumerate() {
            for errno in errnos(*call) {
                let (again, errors) = live_by_name(Some((number, *errno)));
                assert_eq!(again[..=number], calls[..=number]);
                let is_told = errors.iter().all(|(told, _)| *told == errno.raw_os_error());
                assert!(is_told, "{number}: {errno} of {call:?}: {errors:?}");
                told += errors.len();
            }
        }
        // One that is over before the host reads again is not reported, as nothing came of it.
        assert!(told > calls.len(), "{told} failures of {} calls", calls.len());
        for call in [Call::LookUp, Call::Nowhere, Call::Size, Call::ReadAt, Call::SetArmed] {
            assert!(calls.contains(&call), "{call:?} was not tried");
        }
    }
}
