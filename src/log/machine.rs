//! Owns [`Machine`], a kernel in memory, with its files, names and what happens to them.
//!
//! Invariant: a file is described by its generation and size alone, because its content follows
//! from [`byte`]. Compiled only for the fuzzer and the tests. Knows nothing of logs and tails.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::id::Key;
use crate::log::file::Identity;
use crate::log::kernel::{Kernel, Measured, Seen};
use crate::log::place::NotOurLog;

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
    pub(super) followers: BTreeMap<Key, (usize, bool)>,
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
    pub(super) watch: Option<(Key, bool)>,
    /// Whether an event is queued. Several are merged into one.
    pub(super) hint: bool,
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

    pub(super) fn descriptor(&self, file: usize) -> Descriptor {
        self.open.fetch_add(1, Ordering::Relaxed);
        Descriptor { file, open: Arc::clone(&self.open) }
    }
}

/// An open file of the machine, by its index.
#[derive(Debug)]
pub struct Descriptor {
    pub(super) file: usize,
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
