//! Owns [`Tail`]: one reader of a log, and how it reads.
//!
//! Invariants: a tail moves only over bytes that it was given, or to the first byte after it has
//! reported a truncation. It has one `Readable` in the queue at most. Knows nothing of other tails.

use std::io;
use std::sync::Arc;

use crate::event::Event;
use crate::id::{Key, TailId, Token};
use crate::log::behind::Behind;
use crate::log::excerpt::Excerpt;
use crate::log::kernel::Kernel;
use crate::log::open_log::OpenLog;
use crate::log::published::Published;
use crate::log::queue::Queue;
use crate::log::read::Read;
use crate::log::scratch::Scratch;
use crate::log::waiting::Waiting;

/// Where a tail ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// At this offset, known from the start.
    Offset(u64),
    /// Where the job's log ends, once that is known.
    JobEnd,
    /// Nowhere: the log is only a file.
    Never,
}

/// An [`Until`] in one word: thousands of tails are visited for one line, and so should be small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PackedUntil(u64);

impl PackedUntil {
    /// No file is so long.
    const JOB_END: u64 = u64::MAX;
    const NEVER: u64 = u64::MAX - 1;

    fn new(until: Until) -> Self {
        Self(match until {
            Until::Offset(end) => end.min(Self::NEVER - 1),
            Until::JobEnd => Self::JOB_END,
            Until::Never => Self::NEVER,
        })
    }

    fn get(self) -> Until {
        match self.0 {
            Self::JOB_END => Until::JobEnd,
            Self::NEVER => Until::Never,
            end => Until::Offset(end),
        }
    }
}

/// What a tail finds at its offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found<'a> {
    /// Bytes in the log's window, up to the tail's end.
    Window(&'a [u8]),
    /// Bytes that only the file has, so many before the known end.
    File(u64),
    /// Nothing yet.
    UpToDate,
    /// The log was truncated, and the tail has not reported it yet.
    Truncated,
    /// So many bytes were not kept.
    Skipped(u64),
    /// The log has failed, with this errno.
    Failed(i32),
    /// Nothing any more.
    Ended,
}

/// What a `fill` has found: not the bytes, but where they are, so that the caller may act before it
/// borrows them. Good until the next call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filled {
    /// So many bytes from this offset on in the window of this log.
    Window(Key, u64, usize),
    /// So many bytes from this offset of the log on in the scratch buffer.
    Scratch(u64, usize),
    /// As [`Read::UpToDate`].
    UpToDate,
    /// As [`Read::Truncated`].
    Truncated,
    /// As [`Read::Skipped`], with the same number.
    Skipped(u64),
    /// As [`Read::Replaced`], with the same `missed`.
    Replaced(bool),
    /// As [`Read::Ended`].
    Ended,
}

/// What a tail was opened on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A job, with which it is closed.
    OfJob,
    /// A file.
    OfFile,
    /// A name: it goes on from one file to the next.
    OfName,
    /// It only waits, for a tail of a name, until a file has bytes. The host knows nothing of it.
    Scout,
}

/// Whether a tail reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It does.
    Reading,
    /// Its place is still being looked for: until then there is nothing for it.
    Searching,
    /// Its place is in what the log was before a truncation, which it has not reported.
    Outdated,
    /// It has reported its end, and reports nothing else from then on.
    Ended,
}

/// One reader of a log.
#[derive(Debug)]
pub(crate) struct Tail {
    log: Key,
    token: Token,
    /// The next byte to read.
    offset: u64,
    until: PackedUntil,
    /// The number of truncations that this tail has reported.
    truncations: u32,
    kind: Kind,
    /// Whether an event for it is in the queue.
    queued: bool,
    state: State,
    /// How much the last `fill` has shown, and so how much may be consumed.
    filled: u32,
    /// Where it waits for more.
    waiting: Waiting,
}

impl Tail {
    /// A tail of an open log, to which it has to be added.
    pub(crate) fn new<F>(
        key: Key,
        log: &OpenLog<F>,
        offset: u64,
        until: Until,
        kind: Kind,
        token: Token,
    ) -> Self {
        Self {
            log: key,
            token,
            offset,
            until: PackedUntil::new(until),
            truncations: log.published().truncations(),
            kind,
            queued: false,
            state: State::Reading,
            filled: 0,
            waiting: Waiting::No,
        }
    }

    /// Another tail of the same log, as this one would be had it read only up to `offset`: it knows
    /// the same truncations, and has to be added to the log.
    pub(crate) fn branch(&self, offset: u64, token: Token) -> Self {
        Self {
            token,
            offset,
            queued: false,
            state: State::Reading,
            filled: 0,
            waiting: Waiting::No,
            ..*self
        }
    }

    /// The log was truncated before the tail was opened, which it is to report first.
    pub(crate) fn set_outdated(&mut self) {
        self.state = State::Outdated;
    }

    /// The log that it reads.
    pub(crate) fn log(&self) -> Key {
        self.log
    }

    /// The offset of the next byte to read.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether it was opened on a job.
    pub(crate) fn is_of_job(&self) -> bool {
        self.kind == Kind::OfJob
    }

    /// Whether it follows a name.
    pub(crate) fn is_of_name(&self) -> bool {
        self.kind == Kind::OfName
    }

    /// Whether it only waits for a tail of a name.
    pub(crate) fn is_scout(&self) -> bool {
        self.kind == Kind::Scout
    }

    /// Lets it end at this offset, or nowhere: then it reads on, even if it has ended.
    pub(crate) fn set_end(&mut self, end: Option<u64>) {
        self.until = PackedUntil::new(end.map_or(Until::Never, Until::Offset));
        if end.is_none() {
            self.set_reading();
        }
    }

    /// Lets it read on, if it has ended.
    pub(crate) fn set_reading(&mut self) {
        if self.state == State::Ended {
            self.state = State::Reading;
        }
    }

    /// Goes on in another log, to which it has to be added; it must not wait in the old one.
    pub(crate) fn move_to<F>(&mut self, key: Key, log: &OpenLog<F>, offset: u64, until: Until) {
        self.log = key;
        self.offset = offset;
        self.until = PackedUntil::new(until);
        self.truncations = log.published().truncations();
        self.state = State::Reading;
        self.filled = 0;
        self.waiting = Waiting::No;
    }

    /// Its place is not known yet.
    pub(crate) fn set_searching(&mut self) {
        self.state = State::Searching;
    }

    /// Whether its place is still being looked for.
    pub(crate) fn is_searching(&self) -> bool {
        self.state == State::Searching
    }

    /// It begins to read here.
    pub(crate) fn set_found(&mut self, offset: u64) {
        self.offset = offset;
        self.state = State::Reading;
    }

    /// Whether its log was truncated, which it has not reported.
    pub(crate) fn is_outdated<F>(&self, log: &OpenLog<F>) -> bool {
        self.state == State::Outdated || self.truncations != log.published().truncations()
    }

    /// Whether it reads, and has read exactly what is known of the log.
    pub(crate) fn is_at_end<F>(&self, log: &OpenLog<F>) -> bool {
        self.state == State::Reading
            && !self.is_outdated(log)
            && self.offset == log.published().end()
    }

    /// Where it waits for more.
    pub(crate) fn waiting(&self) -> Waiting {
        self.waiting
    }

    pub(crate) fn set_waiting(&mut self, waiting: Waiting) {
        self.waiting = waiting;
    }

    /// Lets it wait for more, unless it does already.
    pub(crate) fn wait<F>(&mut self, key: Key, log: &mut OpenLog<F>) {
        if !log.is_waiting(self.waiting) {
            // If it already has an event in the queue, it must not get a second one with the batch.
            // And the batch of a log that it has left may be of the same round as one of this log.
            let apart = self.queued | matches!(self.kind, Kind::OfName | Kind::Scout);
            self.waiting = log.add_waiting(key, self.offset, apart);
        }
    }

    /// Whether a read would give something other than `UpToDate`.
    pub(crate) fn has_news<F>(&self, log: &OpenLog<F>) -> bool {
        self.find(log) != Found::UpToDate
    }

    /// Queues an event, unless there is one in the queue already: a host may have read ahead of it.
    pub(crate) fn announce(&mut self, key: Key, queue: &mut Queue) {
        if !self.queued {
            self.queued = true;
            queue.push(Event::Readable { tail: TailId(key), token: self.token });
        }
    }

    /// Takes its event out of the queue; returns whether the event is still valid.
    pub(crate) fn take_event(&mut self) -> bool {
        self.queued = false;
        self.state != State::Ended
    }

    /// Takes its event from the batch of this round: the token, unless it is not in that batch any
    /// more.
    pub(crate) fn take_turn(&mut self, round: u32) -> Option<Token> {
        if !self.waiting.is_in_round(round) {
            return None;
        }
        self.waiting = Waiting::No;
        (self.state != State::Ended).then_some(self.token)
    }

    /// Copies the next bytes into `buffer`.
    pub(crate) fn read<K: Kernel>(
        &mut self,
        key: Key,
        log: &mut OpenLog<K::File>,
        kernel: &mut K,
        buffer: &mut [u8],
        behind: &mut Behind,
    ) -> io::Result<Read> {
        if !self.comes_to_window(key, log, kernel, behind)? {
            self.restart(log);
            return Ok(Read::Truncated);
        }
        let copied = match self.find(log) {
            Found::Window(bytes) => {
                let copied = bytes.len().min(buffer.len());
                buffer[..copied].copy_from_slice(&bytes[..copied]);
                copied
            }
            Found::File(left) => {
                let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                let (buffer, mark) = (&mut buffer[..most], behind.mark(key));
                if !log.read_behind(kernel, mark, buffer, self.offset)? {
                    self.restart(log);
                    return Ok(Read::Truncated);
                }
                behind.has_read(key, buffer, self.offset);
                most
            }
            Found::UpToDate => return Ok(Read::UpToDate),
            Found::Truncated => {
                self.restart(log);
                return Ok(Read::Truncated);
            }
            Found::Skipped(bytes) => {
                self.skip(bytes);
                return Ok(Read::Skipped { bytes });
            }
            Found::Failed(errno) => return Err(io::Error::from_raw_os_error(errno)),
            Found::Ended => {
                self.state = State::Ended;
                return Ok(Read::Ended);
            }
        };
        self.offset += copied as u64;
        self.filled = 0;
        Ok(Read::Data(copied))
    }

    /// Finds the next bytes: in the window without a copy, behind it after one read of the file.
    pub(crate) fn fill<K: Kernel>(
        &mut self,
        key: Key,
        log: &mut OpenLog<K::File>,
        kernel: &mut K,
        scratch: &mut Scratch,
        behind: &mut Behind,
    ) -> io::Result<Filled> {
        if !self.comes_to_window(key, log, kernel, behind)? {
            self.restart(log);
            return Ok(Filled::Truncated);
        }
        match self.find(log) {
            Found::Window(bytes) => {
                self.set_filled(bytes.len());
                Ok(Filled::Window(self.log, self.offset, bytes.len()))
            }
            Found::File(left) => {
                let read = |buffer: &mut [u8]| {
                    let good = log.read_behind(kernel, behind.mark(key), buffer, self.offset)?;
                    if good {
                        behind.has_read(key, buffer, self.offset);
                    }
                    Ok(good)
                };
                let owner = (key, self.truncations);
                if let Some(length) = scratch.fetch(owner, self.offset, left, read)? {
                    self.set_filled(length);
                    Ok(Filled::Scratch(self.offset, length))
                } else {
                    self.restart(log);
                    Ok(Filled::Truncated)
                }
            }
            Found::UpToDate => Ok(Filled::UpToDate),
            Found::Truncated => {
                self.restart(log);
                Ok(Filled::Truncated)
            }
            Found::Skipped(bytes) => {
                self.skip(bytes);
                Ok(Filled::Skipped(bytes))
            }
            Found::Failed(errno) => Err(io::Error::from_raw_os_error(errno)),
            Found::Ended => {
                self.state = State::Ended;
                Ok(Filled::Ended)
            }
        }
    }

    /// Looks, if it was behind and is to read from the window now, whether that goes on behind what
    /// it has read. The window does not notice that the log was made shorter behind its end and
    /// longer again, nor that it was written anew up to its last bytes.
    fn comes_to_window<K: Kernel>(
        &self,
        key: Key,
        log: &mut OpenLog<K::File>,
        kernel: &mut K,
        behind: &mut Behind,
    ) -> io::Result<bool> {
        let Some(last) = behind.mark(key) else { return Ok(true) };
        if !matches!(self.find(log), Found::Window(_)) {
            return Ok(true);
        }
        let good = log.joins(kernel, last, self.offset)?;
        // It is not behind any more.
        behind.forget(key);
        Ok(good)
    }

    /// The bytes that are there for it, for a reader on another thread; `None` when there are none.
    pub(crate) fn excerpt<F>(
        &self,
        key: Key,
        log: &OpenLog<F>,
        behind: &Behind,
    ) -> Option<Excerpt<F>> {
        let left = match self.find(log) {
            Found::Window(bytes) => bytes.len() as u64,
            Found::File(left) => left,
            _ => return None,
        };
        let files = (Arc::clone(log.file()), Arc::clone(log.shared()));
        let (newest, last) = (log.window().mark(), behind.mark(key));
        let last = last.filter(|last| last.offset() >= log.published().start());
        Some(Excerpt::new(files, (self.offset, self.offset + left), newest, last.copied()))
    }

    /// What is left up to the end of the log, if only nothing, for a reader that goes on without
    /// the tail; `None` as long as the end is not known, or when a truncation is to be reported
    /// first.
    pub(crate) fn rest<F>(
        &self,
        key: Key,
        log: &OpenLog<F>,
        behind: &Behind,
    ) -> Option<Excerpt<F>> {
        let published = log.published();
        let reading = matches!(self.state, State::Reading | State::Ended);
        let end = self.bound(published)?;
        if !reading || self.truncations != published.truncations() {
            return None;
        }
        let files = (Arc::clone(log.file()), Arc::clone(log.shared()));
        let (newest, last) = (log.window().mark(), behind.mark(key));
        Some(Excerpt::new(files, (self.offset.min(end), end), newest, last.copied()))
    }

    /// Goes on at the offset to which it was read elsewhere, by an excerpt.
    pub(crate) fn skip_to(&mut self, offset: u64) {
        self.offset = offset;
        self.filled = 0;
    }

    /// Moves on, by no more than the last `fill` has shown.
    pub(crate) fn consume(&mut self, amount: usize) {
        let amount = u32::try_from(amount).unwrap_or(u32::MAX).min(self.filled);
        self.filled -= amount;
        self.offset += u64::from(amount);
    }

    fn set_filled(&mut self, length: usize) {
        // A window or a scratch buffer has far fewer bytes than 2^32.
        self.filled = u32::try_from(length).unwrap_or(u32::MAX);
    }

    /// What lies at the offset.
    fn find<'a, F>(&self, log: &'a OpenLog<F>) -> Found<'a> {
        match self.state {
            State::Reading => {}
            State::Searching => return Found::UpToDate,
            State::Outdated => return Found::Truncated,
            State::Ended => return Found::Ended,
        }
        let published = log.published();
        if self.truncations != published.truncations() {
            return Found::Truncated;
        }
        let bound = self.bound(published);
        let known = bound.unwrap_or_else(|| published.end());
        if self.offset < known {
            let start = published.start().min(known);
            if self.offset < start {
                return Found::Skipped(start - self.offset);
            }
            let left = known - self.offset;
            return match log.window().from(self.offset) {
                Some(bytes) => {
                    let most = usize::try_from(left).unwrap_or(usize::MAX);
                    Found::Window(bytes.get(..most).unwrap_or(bytes))
                }
                None => Found::File(left),
            };
        }
        match log.fault() {
            _ if bound.is_some() => Found::Ended,
            Some(errno) => Found::Failed(errno),
            None => Found::UpToDate,
        }
    }

    /// Where it ends, if that is known.
    fn bound<F>(&self, published: &Published<F>) -> Option<u64> {
        match self.until.get() {
            Until::Offset(end) => Some(end),
            Until::JobEnd => published.final_end_now(),
            Until::Never => None,
        }
    }

    /// Goes on behind bytes that were not kept.
    fn skip(&mut self, bytes: u64) {
        self.offset += bytes;
        self.filled = 0;
    }

    /// Marks the log's truncations as reported and continues at the first byte.
    fn restart<F>(&mut self, log: &OpenLog<F>) {
        let truncations = log.published().truncations();
        let before = std::mem::replace(&mut self.truncations, truncations);
        self.state = State::Reading;
        self.offset = 0;
        self.filled = 0;
        if before != truncations
            && let Until::Offset(_) = self.until.get()
        {
            // Its remaining bytes are gone.
            self.until = PackedUntil::new(Until::Offset(0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_in_one_word_is_the_same_end() {
        for until in [Until::Offset(0), Until::Offset(1 << 62), Until::JobEnd, Until::Never] {
            assert_eq!(PackedUntil::new(until).get(), until);
        }
    }

    /// A read by thousands of tails touches all of them.
    #[test]
    fn a_tail_fits_into_a_cache_line_with_its_generation() {
        assert!(size_of::<(u32, Option<Tail>)>() <= 64);
    }
}
