//! Owns [`Logs`]: all logs of a reactor and all their tails, and which of them get an event.
//!
//! Invariants: a file has one log, by its identity. A log is known from `create` to `remove` if it
//! belongs to a job, and as long as it has tails otherwise. Work is proportional to the tails that
//! are ready, never to all of them. Knows nothing of jobs and of the event loop.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::event::{Event, Events};
use crate::id::{Key, Slots, TailId, Token};
use crate::log::awaited::Awaited;
use crate::log::behind::Behind;
use crate::log::bookmark::Bookmark;
use crate::log::excerpt::Excerpt;
use crate::log::file::Identity;
use crate::log::following::Following;
use crate::log::kernel::Kernel;
use crate::log::lines::{Search, SparseFile};
use crate::log::log::Log;
use crate::log::named::Onward;
use crate::log::open_log::{News, OpenLog};
use crate::log::options::{Position, TailOptions};
#[cfg(any(fuzzing, test))]
use crate::log::published::Published;
use crate::log::queue::{Front, Queue};
use crate::log::read::{Fill, Read, ReadError};
use crate::log::retention::{Retention, Rules};
use crate::log::schedule::Schedule;
use crate::log::scratch::Scratch;
use crate::log::tail::{Filled, Kind, Tail, Until};
use crate::log::total::Total;
use crate::log::waiting::Waiting;
use crate::log::window::{Mark, OVERLAP};

/// With less than the window compares at each read, a tail would not get on.
const LEAST_WINDOW: usize = OVERLAP;
/// A window takes three times as much memory once its log is read.
const MOST_WINDOW: usize = 1 << 28;
/// How many logs are dropped in one turn, at a few system calls each, because all logs have too
/// much together.
const DROPS_PER_TURN: usize = 16;
/// A hot log is not read before its pace is over: with more, it would seem dead.
const MOST_PACE: Duration = Duration::from_secs(1);

/// All logs and their tails.
#[derive(Debug)]
pub(crate) struct Logs<K: Kernel> {
    pub(super) logs: Slots<Log<K>>,
    pub(super) tails: Slots<Tail>,
    pub(super) by_identity: HashMap<Identity, Key>,
    schedule: Schedule,
    awaited: Awaited,
    pub(super) scratch: Scratch,
    behind: Behind,
    /// The tails whose place is being looked for, in turns.
    searches: VecDeque<(Key, Search)>,
    /// Those of them for which that has failed with this errno, until they are read.
    failed_searches: HashMap<Key, (Search, i32)>,
    pub(super) following: Following<K::Name, K::File>,
    /// The logs of jobs that have become longer than their limits, until they are taken.
    exceeded: Vec<Key>,
    /// The scouts that have found something; empty but during a call.
    found: Vec<Key>,
    /// What tails read whose name leads nowhere, while there are any.
    pub(super) nowhere: Weak<K::File>,
    window_bytes: usize,
    /// How much all logs of jobs may have together, if that is limited.
    total: Option<Total>,
}

/// Where a new tail begins and ends.
pub(super) struct Prepared {
    offset: u64,
    until: Until,
    /// What is to be gone on with, if it is not known yet where it begins.
    search: Option<Search>,
    /// Its place is in what the log was before a truncation.
    outdated: bool,
}

impl<K: Kernel> Logs<K> {
    /// Without logs. The ids of tails begin at `unique`, a random number, so that another reactor
    /// is not likely to give out the same.
    pub(crate) fn new(
        window_bytes: usize,
        pace: Duration,
        unique: u32,
        total: Option<u64>,
    ) -> Self {
        let window_bytes = window_bytes.clamp(LEAST_WINDOW, MOST_WINDOW);
        Self {
            logs: Slots::new(),
            tails: Slots::starting_at(unique),
            by_identity: HashMap::new(),
            schedule: Schedule::new(pace.min(MOST_PACE)),
            awaited: Awaited::default(),
            scratch: Scratch::new(window_bytes),
            behind: Behind::default(),
            searches: VecDeque::new(),
            failed_searches: HashMap::new(),
            following: Following::new(),
            exceeded: Vec::new(),
            found: Vec::new(),
            nowhere: Weak::new(),
            window_bytes,
            total: total.map(Total::new),
        }
    }

    /// From now on, [`glance`](Self::glance) finds logs that have grown.
    pub(crate) fn turn_on_glances(&mut self) {
        self.awaited.turn_on();
    }

    /// Visits the logs that are waited for, at the cost of a read for each, without waiting for the
    /// kernel to report that they have grown. Returns how many, and whether there is news.
    #[inline(never)]
    pub(crate) fn glance(
        &mut self,
        kernel: &mut K,
        now: Instant,
        queue: &mut Queue,
    ) -> (usize, bool) {
        let mut looks = 0;
        while let Some(log) = self.awaited.logs().get(looks).copied() {
            looks += 1;
            let open = self.logs.get(log).and_then(Log::open);
            if open.is_some_and(OpenLog::awaits_growth) {
                self.visit(kernel, log, now, queue);
            }
        }
        (looks, !queue.is_empty())
    }

    /// How many tails there are.
    pub(crate) fn len(&self) -> usize {
        self.tails.len() - self.following.scouts()
    }

    /// How many logs there are.
    #[cfg(any(fuzzing, test))]
    pub(crate) fn logs(&self) -> usize {
        self.logs.len()
    }

    /// How many tails an open log has in its list, closed ones included.
    #[cfg(any(fuzzing, test))]
    pub(crate) fn subscribed(&self, log: Key) -> usize {
        self.logs[log].open().map_or(0, |open| open.subscribed().len())
    }

    /// The log of a new job, which lies at `place`.
    pub(crate) fn create(&mut self, kernel: &mut K, place: K::Place) -> Key {
        let identity = kernel.identity_of_place(&place);
        if let Some(key) = self.by_identity.get(&identity)
            && let log = &mut self.logs[*key]
            && log.place().is_none()
        {
            // The file was followed before the job was registered.
            log.set_place(place);
            return *key;
        }
        // A log of this identity that belongs to another job has lost its file: inode numbers are
        // used again.
        let key = self.logs.insert(Log::new(identity, Some(place)));
        self.by_identity.insert(identity, key);
        key
    }

    /// The log of a job of an earlier host begins at this offset: what lies before was given back.
    pub(crate) fn begin_at(&mut self, log: Key, start: u64) {
        self.logs[log].set_start(start);
    }

    /// Keeps the log of a new job short, which is open for writing as `file`.
    pub(crate) fn keep_short(&mut self, log: Key, file: K::File, rules: Rules) {
        let file = Arc::new(file);
        let entry = &mut self.logs[log];
        if !entry.is_open() {
            // Whatever the job has written already comes after this.
            entry.set_open(Arc::clone(&file), 0, self.window_bytes);
        }
        entry.set_retention(Retention::new(file, rules));
        self.schedule.add_due(log, entry.listed());
    }

    /// What could not be given back of the log of a job, and why, if that was not asked before.
    pub(crate) fn take_problem(&mut self, log: Key) -> Option<io::Error> {
        self.logs[log].take_problem()
    }

    /// How many bytes of the log of a job were discarded, because they were beyond its limit.
    pub(crate) fn beyond(&self, log: Key) -> u64 {
        self.logs[log].beyond()
    }

    /// Whether this log has become longer than its limit, as of a call since the last turn.
    pub(crate) fn take_exceeded_of(&mut self, log: Key) -> bool {
        let before = self.exceeded.len();
        self.exceeded.retain(|other| *other != log);
        self.exceeded.len() < before
    }

    /// The next log of a job that has become longer than its limit, which each becomes once.
    pub(crate) fn take_exceeded(&mut self) -> Option<Key> {
        self.exceeded.pop()
    }

    /// The offsets between which the log of a job lies, as far as they are known.
    pub(crate) fn span(&self, log: Key) -> Option<Range<u64>> {
        self.logs[log].span()
    }

    /// Where the log of a job lies.
    ///
    /// # Panics
    /// When it was removed.
    pub(crate) fn place(&self, log: Key) -> &K::Place {
        let Some(place) = self.logs[log].place() else { unreachable!("not the log of a job") };
        place
    }

    /// What is known of a log, for any thread.
    #[cfg(any(fuzzing, test))]
    pub(crate) fn published(&self, log: Key) -> std::sync::Arc<Published<K::File>> {
        std::sync::Arc::clone(self.logs[log].published())
    }

    /// The job of this log has finished: fixes where its output ends, notifies the waiting tails,
    /// and returns that end. Opens nothing when nobody reads the log.
    ///
    /// After a failure, tails that have read everything known are given the error, and the end is
    /// looked up again.
    pub(crate) fn finish(
        &mut self,
        kernel: &mut K,
        log: Key,
        queue: &mut Queue,
    ) -> io::Result<u64> {
        let end = self.logs[log].finish(kernel);
        self.notify_waiting(log, queue);
        self.finished(kernel, log, None);
        end
    }

    /// Counts what a log has, if the total is limited.
    fn count(&mut self, log: Key) {
        if let Some(total) = &mut self.total
            && let Some(log) = self.logs.get_mut(log)
        {
            total.add(log.count());
        }
    }

    /// Keeps nothing of the oldest logs of finished jobs, as long as all have too much together: a
    /// bounded number of them in one turn.
    #[cold]
    fn hold_total(&mut self, kernel: &mut K, queue: &mut Queue) {
        for _ in 0..DROPS_PER_TURN {
            let Some(oldest) = self.total.as_mut().and_then(Total::next) else { return };
            if self.logs.get(oldest).is_some_and(|log| log.place().is_some()) {
                // Its job has reported already. If it cannot be opened, the next one is dropped.
                let _ = self.keep_nothing(kernel, oldest, queue);
                self.count(oldest);
            }
        }
    }

    /// Keeps nothing of the log of a finished job.
    fn keep_nothing(&mut self, kernel: &mut K, key: Key, queue: &mut Queue) -> io::Result<()> {
        let file = Arc::new(kernel.open_for_writing(self.place(key))?);
        if !self.logs[key].is_open() {
            self.open(kernel, key, Arc::clone(&file))?;
        }
        let open = self.logs[key].opened();
        open.set_retention(Retention::of_nothing(file));
        open.shorten(kernel);
        self.notify_waiting(key, queue);
        self.check_kept_short(kernel, key);
        Ok(())
    }

    /// Does not look after a log any more, and closes it unless it is read.
    fn drop_retention(&mut self, kernel: &mut K, log: Key) {
        self.logs[log].drop_retention();
        self.close_unused(kernel, log);
    }

    /// Closes a log whose job has finished once it is as short as it is to be, unless it is read.
    fn check_kept_short(&mut self, kernel: &mut K, log: Key) {
        let (is_open, ended) = (self.logs[log].is_open(), self.logs[log].final_end().is_some());
        if !is_open {
            return;
        }
        if self.logs[log].opened().take_exceeded() {
            self.exceeded.push(log);
        }
        if ended && self.logs[log].opened().is_kept_short() {
            self.logs[log].drop_retention();
        }
        let (open, listed) = self.logs[log].opened_and_listed();
        self.schedule.serve(log, open.need(), listed);
        self.close_unused(kernel, log);
    }

    /// The job of this log was finished by an earlier host, at this time since the system was
    /// booted, and ends where that has found.
    pub(crate) fn finish_at(&mut self, kernel: &mut K, log: Key, end: u64, at: Duration) {
        self.logs[log].finish_at(kernel, end);
        self.finished(kernel, log, Some(at));
    }

    fn finished(&mut self, kernel: &mut K, log: Key, earlier: Option<Duration>) {
        self.check_kept_short(kernel, log);
        if let Some(total) = &mut self.total
            && !self.logs[log].is_dropped()
        {
            let logs = &self.logs;
            total.finished(log, earlier, logs.len(), |log| logs.get(log).is_some());
        }
        self.count(log);
    }

    /// As long as this is there, logs of an earlier host are being found, which come before those
    /// that are known: nothing is dropped because all have too much together.
    pub(crate) fn wait_for(&mut self, search: Weak<()>) {
        if let Some(total) = &mut self.total {
            total.wait_for(search);
        }
    }

    /// The job of this log is removed: closes the tails that were opened on it, removes the file
    /// unless it is to be kept, and forgets the log, unless somebody follows it as a file.
    ///
    /// A failure is one to remove the file: everything else is done all the same.
    pub(crate) fn remove(&mut self, kernel: &mut K, log: Key, keep: bool) -> io::Result<()> {
        if let Some(open) = self.logs[log].open() {
            let of_job = |key: &Key| self.tails.get(*key).is_some_and(Tail::is_of_job);
            let tails: Vec<Key> = open.subscribed().iter().copied().filter(of_job).collect();
            for key in tails {
                self.close(kernel, TailId(key));
            }
        }
        let Some(place) = self.logs[log].take_place() else { unreachable!("not the log of a job") };
        // It is counted no more.
        self.count(log);
        self.logs[log].drop_retention();
        if self.logs[log].is_open() {
            self.close_unused(kernel, log);
        } else {
            self.forget_unused(log);
        }
        if keep { Ok(()) } else { kernel.unlink(&place) }
    }

    /// Opens a tail on the log of a job. The offset is fixed here and now, by the size that the
    /// file has at this moment.
    ///
    /// A tail on a finished job sees the job's output, even if the file has grown since; if the end
    /// of the output could not be found before, it is looked up again.
    pub(crate) fn open_tail(
        &mut self,
        kernel: &mut K,
        log: Key,
        options: TailOptions,
        token: Token,
        queue: &mut Queue,
    ) -> io::Result<TailId> {
        if !self.logs[log].is_open() {
            let file = kernel.open(self.place(log))?;
            self.open(kernel, log, Arc::new(file))?;
        }
        if self.logs[log].is_end_due() {
            // If that fails again, reading the tail gives the error.
            let _ = self.logs[log].finish(kernel);
        }
        self.subscribe(kernel, log, options, Kind::OfJob, token, queue)
    }

    /// Opens a tail on a file, which may be the log of a job. The offset is fixed here and now, by
    /// the size that the file has at this moment.
    pub(crate) fn open_file(
        &mut self,
        kernel: &mut K,
        file: K::File,
        options: TailOptions,
        token: Token,
        queue: &mut Queue,
    ) -> io::Result<TailId> {
        let log = self.open_log_of(kernel, Arc::new(file))?;
        self.subscribe(kernel, log, options, Kind::OfFile, token, queue)
    }

    /// The log of a file, open, to which a tail has to be added.
    pub(super) fn open_log_of(&mut self, kernel: &mut K, file: Arc<K::File>) -> io::Result<Key> {
        let identity = kernel.identity_of_file(&file);
        let log = match self.by_identity.get(&identity) {
            Some(log) => *log,
            None => {
                let log = self.logs.insert(Log::new(identity, None));
                self.by_identity.insert(identity, log);
                log
            }
        };
        if !self.logs[log].is_open() {
            self.open(kernel, log, file)?;
        }
        Ok(log)
    }

    /// The bytes that are there for a tail, for a reader on another thread; `None` when there are
    /// none, and [`fill`](Self::fill) says why.
    pub(crate) fn excerpt(&self, tail: TailId) -> Option<Excerpt<K::File>> {
        let key = tail.0;
        let tail = self.tails.get(key)?;
        tail.excerpt(key, self.logs[tail.log()].open()?, &self.behind)
    }

    /// What is left of a tail up to the end of its log, for a reader that goes on without it;
    /// `None` as long as the end is not known, or when a truncation is to be reported first.
    pub(crate) fn rest(&self, tail: TailId) -> Option<Excerpt<K::File>> {
        let key = tail.0;
        let tail = self.tails.get(key)?;
        tail.rest(key, self.logs[tail.log()].open()?, &self.behind)
    }

    /// A tail was read by its excerpt, up to `offset`, where the bytes of the mark end.
    pub(crate) fn was_read(&mut self, tail: TailId, offset: u64, last: Mark) {
        if let Some(reading) = self.tails.get_mut(tail.0) {
            reading.skip_to(offset);
            self.behind.was_read(tail.0, last);
        }
    }

    /// Opens another tail on the log of a tail, as that would be had it read only up to `offset`,
    /// where the bytes `last` end: what was truncated since is reported by both.
    pub(crate) fn branch(
        &mut self,
        tail: TailId,
        (offset, last): (u64, Mark),
        token: Token,
        queue: &mut Queue,
    ) -> Option<TailId> {
        let tail = self.tails.get(tail.0)?;
        let log = tail.log();
        let key = self.tails.insert(tail.branch(offset, token));
        let open = self.logs[log].opened();
        open.add_tail(key, |tail| self.tails.get(tail).is_some());
        if last.end() == offset && !last.bytes().is_empty() {
            self.behind.was_read(key, last);
        }
        if self.tails[key].has_news(open) {
            self.tails[key].announce(key, queue);
        } else {
            self.wait(key);
        }
        Some(TailId(key))
    }

    /// Whether a tail has read exactly what is known of its log.
    pub(crate) fn is_at_end(&self, tail: TailId) -> bool {
        let open = |tail: &Tail| self.logs[tail.log()].open().map(|open| tail.is_at_end(open));
        self.tails.get(tail.0).and_then(open).unwrap_or(false)
    }

    /// Copies the next bytes of a tail.
    pub(crate) fn read(
        &mut self,
        kernel: &mut K,
        tail: TailId,
        buffer: &mut [u8],
        queue: &mut Queue,
    ) -> Result<Read, ReadError> {
        let key = tail.0;
        let tail = self.tails.get_mut(key).ok_or(ReadError::Unknown)?;
        let log = tail.log();
        let (open, listed) = self.logs[log].opened_and_listed();
        let read = tail.read(key, open, kernel, buffer, &mut self.behind);
        match &read {
            Ok(Read::Data(_)) => {}
            Ok(Read::Ended) => {
                self.behind.forget(key);
                match self.go_on(kernel, key, queue)? {
                    Onward::Ended => {}
                    Onward::Replaced(missed) => return Ok(Read::Replaced { missed }),
                    Onward::Silent => return self.read(kernel, TailId(key), buffer, queue),
                }
            }
            Ok(Read::UpToDate) if tail.is_searching() => self.report_search(key)?,
            Ok(Read::UpToDate) => {
                self.behind.forget(key);
                tail.wait(key, open);
                self.schedule.serve(log, open.need(), listed);
                self.awaited.add(log);
            }
            // A read never replaces the file itself.
            Ok(Read::Replaced { .. }) => {}
            Ok(Read::Skipped { .. }) => self.behind.forget(key),
            Ok(Read::Truncated) => {
                self.behind.forget(key);
                self.restarted(key);
                self.notify_waiting(log, queue);
            }
            Err(_) => self.failed(log),
        }
        Ok(read?)
    }

    /// Finds the next bytes of a tail, for [`show`](Self::show): in the window without a copy,
    /// behind it after one read of the file.
    pub(crate) fn fill(
        &mut self,
        kernel: &mut K,
        tail: TailId,
        queue: &mut Queue,
    ) -> Result<Filled, ReadError> {
        let key = tail.0;
        let tail = self.tails.get_mut(key).ok_or(ReadError::Unknown)?;
        let log = tail.log();
        let (open, listed) = self.logs[log].opened_and_listed();
        let filled = tail.fill(key, open, kernel, &mut self.scratch, &mut self.behind);
        match &filled {
            Ok(Filled::Window(..) | Filled::Scratch(..)) => {}
            Ok(Filled::Ended) => {
                self.behind.forget(key);
                match self.go_on(kernel, key, queue)? {
                    Onward::Ended => {}
                    Onward::Replaced(missed) => return Ok(Filled::Replaced(missed)),
                    Onward::Silent => return self.fill(kernel, TailId(key), queue),
                }
            }
            Ok(Filled::UpToDate) if tail.is_searching() => self.report_search(key)?,
            Ok(Filled::UpToDate) => {
                self.behind.forget(key);
                tail.wait(key, open);
                self.schedule.serve(log, open.need(), listed);
                self.awaited.add(log);
            }
            // A read never replaces the file itself.
            Ok(Filled::Replaced(_)) => {}
            Ok(Filled::Skipped(_)) => self.behind.forget(key),
            Ok(Filled::Truncated) => {
                self.behind.forget(key);
                self.restarted(key);
                self.notify_waiting(log, queue);
            }
            Err(_) => self.failed(log),
        }
        Ok(filled?)
    }

    /// The bytes that the last call, a [`fill`](Self::fill), has found.
    ///
    /// # Panics
    /// When there was another call since, which may have moved them.
    pub(crate) fn show(&self, filled: Filled) -> Fill<'_> {
        let (bytes, length) = match filled {
            Filled::Window(log, offset, length) => {
                (self.logs[log].open().and_then(|open| open.window().from(offset)), length)
            }
            Filled::Scratch(offset, length) => (self.scratch.from(offset), length),
            Filled::UpToDate => return Fill::UpToDate,
            Filled::Truncated => return Fill::Truncated,
            Filled::Skipped(bytes) => return Fill::Skipped { bytes },
            Filled::Replaced(missed) => return Fill::Replaced { missed },
            Filled::Ended => return Fill::Ended,
        };
        let Some(bytes) = bytes.and_then(|bytes| bytes.get(..length)) else {
            unreachable!("the bytes are where they were found")
        };
        Fill::Data(bytes)
    }

    /// Moves a tail on, by no more than its last `fill` has shown.
    pub(crate) fn consume(&mut self, tail: TailId, amount: usize) -> Result<(), ReadError> {
        self.tails.get_mut(tail.0).ok_or(ReadError::Unknown)?.consume(amount);
        Ok(())
    }

    /// Queues an event for a tail if there is something to read, behind those that are queued;
    /// otherwise it waits.
    pub(crate) fn requeue(&mut self, tail: TailId, queue: &mut Queue) -> Result<(), ReadError> {
        let key = tail.0;
        let tail = self.tails.get_mut(key).ok_or(ReadError::Unknown)?;
        if tail.is_searching() {
            // It has an event when its place is found.
            return Ok(());
        }
        match tail.waiting() {
            Waiting::No if tail.has_news(self.logs[tail.log()].opened()) => {
                tail.announce(key, queue);
            }
            Waiting::No => self.wait(key),
            // It has an event in a batch, or will have one.
            _ => {}
        }
        Ok(())
    }

    /// The offset of the byte that the tail reads next.
    pub(crate) fn position(&self, tail: TailId) -> Option<u64> {
        self.tails.get(tail.0).map(Tail::offset)
    }

    /// Where a tail is, with the last bytes before that.
    pub(crate) fn bookmark(
        &mut self,
        kernel: &mut K,
        tail: TailId,
        queue: &mut Queue,
    ) -> Result<Bookmark, ReadError> {
        let tail = self.tails.get(tail.0).ok_or(ReadError::Unknown)?;
        let (log, offset) = (tail.log(), tail.offset());
        let open = self.logs[log].opened();
        if tail.is_outdated(open) {
            return Ok(Bookmark::of_gone(offset));
        }
        let last = open.last_before(kernel, offset);
        self.notify_waiting(log, queue);
        let last = last.map_err(ReadError::Io)?;
        Ok(last.map_or(Bookmark::of_gone(offset), Bookmark::behind))
    }

    /// Which file a tail reads; `None` for one whose name has led to none yet.
    pub(crate) fn identity_of(&self, tail: TailId) -> Option<Option<Identity>> {
        let log = self.tails.get(tail.0)?.log();
        let nowhere = self.following.get(tail.0).is_some_and(|tail| tail.current.nowhere);
        Some((!nowhere).then(|| self.logs[log].identity()))
    }

    /// The file that a tail reads.
    pub(crate) fn file_of(&self, tail: TailId) -> Option<&K::File> {
        let tail = self.tails.get(tail.0)?;
        self.logs[tail.log()].open().map(|open| &**open.file())
    }

    /// The name that a tail follows, if it follows one.
    pub(crate) fn name_of(&self, tail: TailId) -> Option<&K::Name> {
        self.following.get(tail.0).map(|follower| &follower.name)
    }

    /// Closes a tail; its slot is free at once. Closing the last tail of a log closes its file.
    pub(crate) fn close(&mut self, kernel: &mut K, tail: TailId) -> Option<()> {
        let key = tail.0;
        if self.tails.get(key)?.is_of_name() {
            kernel.forget_name(key);
            self.dismiss_scout(kernel, key);
            self.following.remove(key);
        }
        self.close_any(kernel, key)
    }

    /// Closes a tail, which may be a scout. A name is no longer followed for it.
    pub(super) fn close_any(&mut self, kernel: &mut K, key: Key) -> Option<()> {
        let tail = self.tails.remove(key)?;
        self.behind.forget(key);
        if tail.is_searching() {
            self.searches.retain(|(searching, _)| *searching != key);
            self.failed_searches.remove(&key);
        }
        self.leave(kernel, tail.log(), tail.waiting());
        Some(())
    }

    /// Takes a tail that waits there out of its log.
    pub(super) fn leave(&mut self, kernel: &mut K, log: Key, waiting: Waiting) {
        let open = self.logs[log].opened();
        if let Some(moved) = open.waiting().remove(waiting) {
            self.tails[moved].set_waiting(waiting);
        }
        open.remove_tail();
        self.close_unused(kernel, log);
    }

    /// Takes events out of the queue as long as there is room for them. Those that mean nothing any
    /// more are dropped: of a tail that was closed or has ended since, and whatever else is not
    /// `wanted`.
    pub(crate) fn emit(
        &mut self,
        queue: &mut Queue,
        events: &mut Events,
        wanted: impl Fn(&Event) -> bool,
    ) {
        while !events.is_full()
            && let Some(front) = queue.front()
        {
            match front {
                Front::One(key, round) => {
                    let tail = self.tails.get_mut(key);
                    if let Some(token) = tail.and_then(|tail| tail.take_turn(round)) {
                        events.push(Event::Readable { tail: TailId(key), token });
                    }
                }
                Front::Batch(batch) => {
                    // There may be thousands in one turn, hence a tight loop that builds each event
                    // from parts that fit into registers.
                    while !events.is_full()
                        && let Some(key) = batch.take()
                    {
                        let tail = self.tails.get_mut(key);
                        if let Some(token) = tail.and_then(|tail| tail.take_turn(batch.round())) {
                            events.push(Event::Readable { tail: TailId(key), token });
                        }
                    }
                }
                Front::Event(Event::Readable { tail, token }) => {
                    if self.tails.get_mut(tail.0).is_some_and(Tail::take_event) {
                        events.push(Event::Readable { tail, token });
                    }
                }
                Front::Event(event) if wanted(&event) => events.push(event),
                Front::Event(_) => {}
            }
        }
        // Otherwise the next poll would not wait, and find nothing.
        queue.drop_used_up();
    }

    /// The tails in the queue for which [`emit`](Self::emit) would return an event, in no
    /// particular order.
    #[cfg(any(fuzzing, test))]
    pub(crate) fn queued<'a>(&'a self, queue: &'a Queue) -> impl Iterator<Item = TailId> {
        let of_batches = queue.batches().filter_map(|(key, round)| {
            let tail = self.tails.get(key)?;
            tail.waiting().is_in_round(round).then_some(TailId(key))
        });
        of_batches.chain(queue.events().filter_map(Event::tail))
    }

    /// The watch of a log has reported something. The event may be an old one, of a log that was
    /// closed or removed since.
    pub(crate) fn changed(&mut self, log: Key) {
        if let Some(entry) = self.logs.get_mut(log)
            && entry.is_open()
        {
            self.schedule.add_due(log, entry.listed());
        }
    }

    /// The kernel has removed the watch of a log.
    pub(crate) fn watch_lost(&mut self, kernel: &mut K, log: Key) {
        kernel.watch_lost(log);
        if let Some(entry) = self.logs.get_mut(log)
            && let Some(open) = entry.open_mut()
        {
            open.watch_lost();
        }
        self.changed(log);
    }

    /// The kernel's queue of events overflowed: any log may have changed.
    pub(crate) fn everything_changed(&mut self) {
        let all: Vec<Key> = self.logs.iter().map(|(key, _)| key).collect();
        for key in all {
            self.changed(key);
        }
        self.following.add_all();
    }

    /// The name that this tail follows may lead to another file now. It may have been closed since.
    pub(crate) fn name_changed(&mut self, tail: Key) {
        self.following.add_due(tail);
    }

    /// Whether there are logs that a turn may find grown, without a notice of that.
    pub(crate) fn may_have_grown(&self) -> bool {
        self.schedule.has_due() || self.schedule.has_paced()
    }

    /// Whether a visit is due now, or a tail's place or name is to be looked for.
    pub(crate) fn has_work(&self) -> bool {
        self.schedule.has_due()
            || !self.searches.is_empty()
            || self.following.has_due()
            || self.total.as_ref().is_some_and(Total::is_exceeded)
    }

    /// Whether a visit is due later.
    pub(crate) fn has_paced(&self) -> bool {
        self.schedule.has_paced()
    }

    /// When the hot logs are to be visited next: one pace after the first of them was listed.
    pub(crate) fn pace_at(&mut self, now: impl Fn() -> Instant) -> Option<Instant> {
        self.schedule.pace_at(now)
    }

    /// Visits every log that is due, once, and queues an event for each tail that has something to
    /// read.
    pub(crate) fn visit_due(&mut self, kernel: &mut K, now: Instant, queue: &mut Queue) {
        while let Some(log) = self.schedule.end_pace(now) {
            if let Some(entry) = self.logs.get_mut(log) {
                entry.listed().taken_from_paced();
            }
            self.changed(log);
        }
        while let Some(log) = self.schedule.end_slow_pace(now) {
            if let Some(entry) = self.logs.get_mut(log) {
                entry.listed().taken_from_slow();
            }
            self.changed(log);
        }
        let visiting = self.schedule.begin_turn();
        for log in &visiting {
            self.visit(kernel, *log, now, queue);
        }
        self.schedule.end_turn(visiting);
        if self.total.as_ref().is_some_and(Total::is_exceeded) {
            self.hold_total(kernel, queue);
        }
        if !self.searches.is_empty() {
            self.search(kernel, queue);
        }
        if self.following.has_due() {
            self.look_up_names(kernel, queue);
        }
        // Set here, not only before a sleep: with logs always due there is none.
        self.schedule.pace_at(|| now);
    }

    /// Goes on looking for the place of one tail, for one step; the next one has its step in the
    /// next turn.
    #[cold]
    fn search(&mut self, kernel: &mut K, queue: &mut Queue) {
        let Some((key, mut search)) = self.searches.pop_front() else { return };
        let log = self.tails[key].log();
        let open = self.logs[log].opened();
        let start = open.published().start();
        let step = search.go_on(start, &mut Reading { kernel, file: open.file() });
        // What was read has to be of the content that the tail was opened on.
        let step = step.and_then(|found| open.check(kernel).map(|()| found));
        self.notify_waiting(log, queue);
        let (tail, open) = (&mut self.tails[key], self.logs[log].opened());
        match step {
            Ok(found) if found.is_some() || tail.is_outdated(open) => {
                tail.set_found(found.unwrap_or(0));
                if tail.has_news(open) {
                    tail.announce(key, queue);
                } else {
                    self.wait(key);
                }
            }
            Ok(_) => self.searches.push_back((key, search)),
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(Errno::IO.raw_os_error());
                self.failed_searches.insert(key, (search, errno));
                tail.announce(key, queue);
            }
        }
    }

    /// A tail was read whose place is being looked for: returns why that has failed, if it has, and
    /// lets it go on.
    #[cold]
    fn report_search(&mut self, key: Key) -> io::Result<()> {
        let Some((search, errno)) = self.failed_searches.remove(&key) else { return Ok(()) };
        self.searches.push_back((key, search));
        Err(io::Error::from_raw_os_error(errno))
    }

    #[inline]
    fn visit(&mut self, kernel: &mut K, key: Key, now: Instant, queue: &mut Queue) {
        // Closed or removed since it was listed, unless there is something to visit.
        let Some(log) = self.logs.get_mut(key) else { return };
        log.listed().taken_from_due();
        if !log.is_open() {
            return;
        }
        let end_due = log.is_end_due();
        let (open, listed) = log.opened_and_listed();
        if end_due {
            // A failure is reported to the tails.
            let _ = open.finish(kernel);
        } else {
            open.visit(kernel, key, now, self.schedule.pace());
        }
        notify(open, &mut self.tails, queue, &mut self.found);
        self.schedule.serve(key, open.need(), listed);
        let ended = open.has_ended_retention();
        let (exceeded, done) = (open.take_exceeded(), open.is_done());
        if !self.found.is_empty() {
            self.take_found();
        }
        if exceeded {
            self.exceeded.push(key);
        }
        self.count(key);
        if done {
            self.drop_retention(kernel, key);
        } else if ended {
            self.check_kept_short(kernel, key);
        }
    }

    /// Lets the names be looked up for which a scout has found something.
    #[cold]
    fn take_found(&mut self) {
        for scout in self.found.drain(..) {
            self.following.reported(scout);
        }
    }

    /// Queues an event for a tail, if it waits.
    pub(super) fn wake(&mut self, key: Key, queue: &mut Queue) {
        let (log, waiting) = (self.tails[key].log(), self.tails[key].waiting());
        let open = self.logs[log].opened();
        if open.is_waiting(waiting) {
            if let Some(moved) = open.waiting().remove(waiting) {
                self.tails[moved].set_waiting(waiting);
            }
            self.tails[key].set_waiting(Waiting::No);
            self.tails[key].announce(key, queue);
        }
    }

    /// Opens a log for its first tail, which has to be added next.
    fn open(&mut self, kernel: &mut K, key: Key, file: Arc<K::File>) -> io::Result<()> {
        match kernel.size(&file) {
            Ok(size) => {
                self.logs[key].set_open(file, size, self.window_bytes);
                Ok(())
            }
            Err(error) => {
                self.forget_unused(key);
                Err(error)
            }
        }
    }

    /// Adds a tail to an open log, which is closed again when that fails and it has no other.
    pub(super) fn subscribe(
        &mut self,
        kernel: &mut K,
        key: Key,
        options: TailOptions,
        kind: Kind,
        token: Token,
        queue: &mut Queue,
    ) -> io::Result<TailId> {
        let until = match kind {
            Kind::OfJob => self.logs[key].final_end().map_or(Until::JobEnd, Until::Offset),
            Kind::OfFile | Kind::OfName | Kind::Scout => Until::Never,
        };
        let prepared = self.prepare(kernel, key, options, until, queue);
        let Prepared { offset, until, search, outdated } = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                self.close_unused(kernel, key);
                return Err(error);
            }
        };
        let open = self.logs[key].opened();
        let tail = self.tails.insert(Tail::new(key, open, offset, until, kind, token));
        match kind {
            Kind::OfJob | Kind::OfFile => {
                open.add_tail(tail, |tail| self.tails.get(tail).is_some());
            }
            Kind::OfName | Kind::Scout => open.count_tail(),
        }
        if outdated {
            self.tails[tail].set_outdated();
        }
        if let Some(search) = search {
            self.tails[tail].set_searching();
            self.searches.push_back((tail, search));
        } else if self.tails[tail].has_news(open) && kind == Kind::Scout {
            // It does not wait, which its owner sees.
        } else if self.tails[tail].has_news(open) {
            // The waiting tails are notified of a failure as well.
            self.tails[tail].announce(tail, queue);
        } else {
            self.wait(tail);
        }
        Ok(TailId(tail))
    }

    /// Finds out where a new tail begins and ends. Where it begins may take longer; then the search
    /// is to be continued.
    pub(super) fn prepare(
        &mut self,
        kernel: &mut K,
        key: Key,
        options: TailOptions,
        until: Until,
        queue: &mut Queue,
    ) -> io::Result<Prepared> {
        let open = self.logs[key].opened();
        // From the current content of the file: what the window holds may be gone.
        let size = open.catch_up(kernel).and_then(|()| open.size_now(kernel));
        self.notify_waiting(key, queue);
        let size = size?;
        let open = self.logs[key].opened();
        let end = match until {
            Until::Offset(end) => end.min(size),
            Until::JobEnd | Until::Never => size,
        };
        let until = match until {
            Until::JobEnd | Until::Never if options.follow => until,
            _ => Until::Offset(end),
        };
        let (mut unfinished, mut outdated) = (None, false);
        let offset = match options.position {
            Position::Start => open.published().start(),
            Position::End => end,
            Position::Offset(offset) => offset,
            Position::After(bookmark) => {
                let last = bookmark.last();
                outdated = !last.map_or(Ok(false), |last| open.has_read(kernel, last))?;
                bookmark.offset()
            }
            Position::LastLines(lines) => {
                let mut search = Search::new(end, lines);
                let start = open.published().start();
                let found = search.go_on(start, &mut Reading { kernel, file: open.file() })?;
                if found.is_none() {
                    unfinished = Some(search);
                }
                found.unwrap_or(end)
            }
        };
        if !matches!(until, Until::Offset(_)) {
            open.watch(kernel, key)?;
        }
        Ok(Prepared { offset, until, search: unfinished, outdated })
    }

    /// Closes the file of a log that has no tails and is not kept short, and forgets the log if it
    /// belongs to no job.
    pub(super) fn close_unused(&mut self, kernel: &mut K, key: Key) {
        let (open, listed) = self.logs[key].opened_and_listed();
        if open.has_tails() {
            return;
        }
        if open.is_used() {
            return self.schedule.serve(key, open.need(), listed);
        }
        kernel.unwatch(key);
        self.logs[key].close();
        self.forget_unused(key);
    }

    /// Forgets a log that nobody reads and that belongs to no job.
    fn forget_unused(&mut self, key: Key) {
        let log = &self.logs[key];
        if log.is_open() || log.place().is_some() {
            return;
        }
        let identity = log.identity();
        if self.by_identity.get(&identity) == Some(&key) {
            self.by_identity.remove(&identity);
        }
        self.logs.remove(key);
    }

    /// Lets a tail that is up to date wait for more.
    fn wait(&mut self, key: Key) {
        let tail = &mut self.tails[key];
        let log = tail.log();
        let (open, listed) = self.logs[log].opened_and_listed();
        tail.wait(key, open);
        self.schedule.serve(log, open.need(), listed);
        self.awaited.add(log);
    }

    /// A tail was given an error. If it is the fault of the log, the next visit clears it and tries
    /// again.
    fn failed(&mut self, log: Key) {
        if self.logs[log].opened().fault().is_some() {
            self.changed(log);
        }
    }

    /// Queues events for the waiting tails of a log, if it has any; see [`notify`].
    pub(super) fn notify_waiting(&mut self, key: Key, queue: &mut Queue) {
        if let Some(open) = self.logs[key].open_mut() {
            notify(open, &mut self.tails, queue, &mut self.found);
        }
        if !self.found.is_empty() {
            self.take_found();
        }
    }
}

/// An open log, for a search.
struct Reading<'a, K: Kernel> {
    kernel: &'a mut K,
    file: &'a K::File,
}

impl<K: Kernel> SparseFile for Reading<'_, K> {
    fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.kernel.read_at(self.file, buffer, offset)
    }

    fn data_from(&mut self, offset: u64) -> io::Result<u64> {
        self.kernel.data_from(self.file, offset)
    }
}

/// Queues an event for each waiting tail for which there is something, if anything was found since
/// the last call. Tails that have read everything are notified as one batch, not one by one.
///
/// Scouts get no event; those that would get one are added to `found`.
fn notify<F>(
    open: &mut OpenLog<F>,
    tails: &mut Slots<Tail>,
    queue: &mut Queue,
    found: &mut Vec<Key>,
) {
    match open.take_news() {
        News::None => return,
        News::CaughtUp => {
            let (caught_up, round) = open.waiting().end_round();
            queue.push_batch(caught_up, round);
        }
        News::Some => open.waiting().split(),
    }
    if !open.waiting().has_apart() {
        return;
    }
    let end = open.published().end();
    let (mut still_waiting, mut ahead) = (0, true);
    let mut apart = open.waiting().take_apart();
    apart.retain(|key| {
        let tail = &mut tails[*key];
        let news = tail.has_news(open);
        if news {
            tail.set_waiting(Waiting::No);
            if tail.is_scout() {
                found.push(*key);
            } else {
                tail.announce(*key, queue);
            }
        } else {
            tail.set_waiting(Waiting::Apart { place: still_waiting });
            still_waiting += 1;
            ahead &= tail.offset() > end;
        }
        !news
    });
    open.waiting().set_apart(apart, ahead);
}
