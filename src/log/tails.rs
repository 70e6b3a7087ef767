//! Owns [`Tails`]: all tails and the logs they read, and the lists of logs that are due for a
//! visit.
//!
//! Invariants: a log exists exactly as long as it has a tail; a file has one log, by device and
//! inode. A tail has one `Readable` in the queue at most, and none that is returned once it has
//! ended. Work is proportional to the tails that are ready, never to all of them. Must not know
//! about jobs or the event loop.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::time::{Duration, Instant};

use crate::event::Event;
use crate::id::{Key, Slots, TailId, Token};
use crate::log::lines::start_of_last_lines;
use crate::log::log::{Kernel, Log, Need};
use crate::log::reading::{Found, look};
use crate::log::tail::{Position, Tail, TailOptions, Until};

/// The events that wait to be returned, oldest first.
pub(crate) type Queue = VecDeque<Event>;

/// Why a tail could not be read.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// There is no such tail.
    Unknown,
    /// The log of this tail failed.
    Io(io::Error),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Trouble> for io::Error {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Unknown => Self::from(io::ErrorKind::NotFound),
            Trouble::Io(error) => error,
        }
    }
}

/// All tails and their logs.
#[derive(Debug)]
pub(crate) struct Tails<K: Kernel> {
    pub(crate) kernel: K,
    pub(super) logs: Slots<Log<K::File>>,
    pub(super) tails: Slots<Tail>,
    pub(super) by_identity: HashMap<(u64, u64), Key>,
    /// Logs to be visited at the next turn.
    pub(super) due: Vec<Key>,
    /// The list of the turn before, empty between turns: kept for its memory.
    pub(super) visiting: Vec<Key>,
    /// Hot logs, to be visited at `pace_at`.
    pub(super) paced: Vec<Key>,
    pub(super) pace_at: Option<Instant>,
    pub(super) pace: Duration,
    pub(super) window_bytes: usize,
    /// What the last `fill_buf` behind a window has read from the file: whose, from which offset,
    /// how much.
    pub(super) behind: Vec<u8>,
    pub(super) behind_of: Option<(Key, u64, usize)>,
}

impl<K: Kernel> Tails<K> {
    pub(crate) fn new(kernel: K, window_bytes: usize, pace: Duration) -> Self {
        Self {
            kernel,
            logs: Slots::new(),
            tails: Slots::new(),
            by_identity: HashMap::new(),
            due: Vec::new(),
            visiting: Vec::new(),
            paced: Vec::new(),
            pace_at: None,
            pace,
            window_bytes,
            behind: Vec::new(),
            behind_of: None,
        }
    }

    /// With ids that another reactor is not likely to have given out: `unique` is a random number.
    pub(crate) fn with_ids_from(mut self, unique: u32) -> Self {
        self.tails = Slots::starting_at(unique);
        self
    }

    /// How many tails there are.
    pub(crate) fn len(&self) -> usize {
        self.tails.len()
    }

    pub(crate) fn log_exists(&self, log: Key) -> bool {
        self.logs.get(log).is_some()
    }

    /// The log of this file: the one that there is already, or a new one without a tail, for
    /// [`open`](Self::open).
    pub(crate) fn log_of(&mut self, file: K::File) -> io::Result<Key> {
        let identity = self.kernel.identity(&file);
        if let Some(log) = self.by_identity.get(&identity) {
            let log = *log;
            self.kernel.close(file);
            return Ok(log);
        }
        let size = match self.kernel.size(&file) {
            Ok(size) => size,
            Err(error) => {
                self.kernel.close(file);
                return Err(error);
            }
        };
        let log = self.logs.insert(Log::new(file, size, self.window_bytes));
        self.by_identity.insert(identity, log);
        Ok(log)
    }

    /// Opens a tail. The offset is fixed here and now, by the size that the file has at this
    /// moment.
    pub(crate) fn open(
        &mut self,
        log: Key,
        options: TailOptions,
        until: Until,
        token: Token,
        queue: &mut Queue,
    ) -> Result<TailId, Trouble> {
        let opened = self.try_open(log, options, until, token, queue);
        match opened {
            Ok(key) => self.announce_or_wait(key, queue),
            Err(_) => self.close_log_without_tails(log),
        }
        Ok(TailId(opened?))
    }

    pub(super) fn try_open(
        &mut self,
        key: Key,
        options: TailOptions,
        until: Until,
        token: Token,
        queue: &mut Queue,
    ) -> Result<Key, Trouble> {
        let log = self.logs.get_mut(key).ok_or(Trouble::Unknown)?;
        // By what the file is now: what the window holds may be gone, and is not for a tail that
        // begins after that.
        let known = (log.truncations, log.window.end());
        let size = log.size_now(&mut self.kernel);
        if known != (log.truncations, log.window.end()) {
            self.wake(key, queue);
        }
        let size = size?;
        let log = self.logs.get_mut(key).ok_or(Trouble::Unknown)?;
        // A tail on a finished job sees the job's output, even if the file has grown since.
        let end = match until {
            Until::Offset(end) => end.min(size),
            Until::JobEnd | Until::Never => size,
        };
        let until = match until {
            Until::JobEnd | Until::Never if options.follow => until,
            _ => Until::Offset(end),
        };
        let offset = match options.position {
            Position::Start => 0,
            Position::End => end,
            Position::Offset(offset) => offset,
            Position::LastLines(lines) => {
                let (kernel, file) = (&mut self.kernel, &log.file);
                start_of_last_lines(end, lines, |buffer, offset| {
                    kernel.read_at(file, buffer, offset)
                })?
            }
        };
        if !matches!(until, Until::Offset(_)) && log.waiting.is_empty() && log.tails == 0 {
            // Makes the watch, so that the limit on watches is met here, where somebody can be
            // told.
            self.kernel.set_armed(&mut log.file, key, false)?;
        }
        log.tails += 1;
        let tail = Tail {
            log: key,
            token,
            offset,
            until,
            truncations: log.truncations,
            filled: 0,
            waiting: None,
            queued: false,
            ended: false,
        };
        Ok(self.tails.insert(tail))
    }

    pub(super) fn announce_or_wait(&mut self, key: Key, queue: &mut Queue) {
        let Some(tail) = self.tails.get_mut(key) else { return };
        let Some(log) = self.logs.get(tail.log) else { return };
        match look(tail, log) {
            Found::UpToDate => self.wait(key),
            // A failure is something to hear of, too.
            _ => announce(key, tail, queue),
        }
    }

    /// Closes a tail; its slot is free at once. Closing the last tail of a log closes the log.
    pub(crate) fn close(&mut self, id: TailId) -> Option<()> {
        self.stop_waiting(id.0);
        let tail = self.tails.remove(id.0)?;
        if let Some(log) = self.logs.get_mut(tail.log) {
            log.tails -= 1;
        }
        self.close_log_without_tails(tail.log);
        Some(())
    }

    /// Closes the tails of this log that end with the job.
    pub(crate) fn close_tails_of_job(&mut self, log: Key) {
        let of_job = |tail: &Tail| tail.log == log && tail.until != Until::Never;
        let tails: Vec<Key> =
            self.tails.iter().filter(|(_, tail)| of_job(tail)).map(|(key, _)| key).collect();
        for key in tails {
            self.close(TailId(key));
        }
    }

    pub(super) fn close_log_without_tails(&mut self, key: Key) {
        if self.logs.get(key).is_some_and(|log| log.tails == 0)
            && let Some(log) = self.logs.remove(key)
        {
            self.by_identity.remove(&self.kernel.identity(&log.file));
            self.kernel.close(log.file);
        }
    }

    /// An event of this tail has left the queue: whether it still means anything.
    pub(crate) fn take_event(&mut self, id: TailId) -> bool {
        self.tails.get_mut(id.0).is_some_and(|tail| {
            tail.queued = false;
            !tail.ended
        })
    }

    /// The file that a tail reads.
    pub(crate) fn file_of(&self, id: TailId) -> Option<&K::File> {
        Some(&self.logs.get(self.tails.get(id.0)?.log)?.file)
    }

    /// The offset of the byte that the tail reads next.
    pub(crate) fn position(&self, id: TailId) -> Option<u64> {
        self.tails.get(id.0).map(|tail| tail.offset)
    }

    /// Lets a tail that is up to date wait for more.
    pub(super) fn wait(&mut self, key: Key) {
        let Some(tail) = self.tails.get_mut(key) else { return };
        let Some(log) = self.logs.get_mut(tail.log) else { return };
        if tail.waiting.is_none() {
            tail.waiting = Some(u32::try_from(log.waiting.len()).unwrap_or(u32::MAX));
            log.waiting.push(key);
            if log.need() != Need::Nothing {
                let log = tail.log;
                self.serve(log);
            }
        }
    }

    /// Puts a log that somebody waits for into the list that it needs to be in.
    pub(super) fn serve(&mut self, key: Key) {
        let Some(log) = self.logs.get_mut(key) else { return };
        match log.need() {
            Need::Nothing => {}
            Need::Visit if log.visit_due => {}
            Need::Visit => {
                log.visit_due = true;
                self.due.push(key);
            }
            Need::Pace if log.pace_due => {}
            Need::Pace => {
                log.pace_due = true;
                self.paced.push(key);
            }
        }
    }

    pub(super) fn stop_waiting(&mut self, key: Key) {
        let Some(tail) = self.tails.get_mut(key) else { return };
        let (Some(place), Some(log)) = (tail.waiting.take(), self.logs.get_mut(tail.log)) else {
            return;
        };
        log.waiting.swap_remove(place as usize);
        if let Some(moved) =
            log.waiting.get(place as usize).and_then(|moved| self.tails.get_mut(*moved))
        {
            moved.waiting = Some(place);
        }
    }

    /// The watch of a log has told that something happened to its file.
    pub(crate) fn changed(&mut self, key: Key) {
        if let Some(log) = self.logs.get_mut(key)
            && !log.visit_due
        {
            log.visit_due = true;
            self.due.push(key);
        }
    }

    /// The kernel has removed the watch of a log.
    pub(crate) fn watch_lost(&mut self, key: Key) {
        if let Some(log) = self.logs.get_mut(key) {
            log.watch_lost(&mut self.kernel);
        }
        self.changed(key);
    }

    /// The kernel's queue of events overflowed: any log may have changed.
    pub(crate) fn everything_changed(&mut self) {
        let all: Vec<Key> = self.logs.iter().map(|(key, _)| key).collect();
        for key in all {
            self.changed(key);
        }
    }

    /// Whether a visit is due now.
    pub(crate) fn has_work(&self) -> bool {
        !self.due.is_empty()
    }

    /// Whether a visit is due later.
    pub(crate) fn has_paced(&self) -> bool {
        !self.paced.is_empty()
    }

    /// When the hot logs are to be visited next. They are served from the first moment that
    /// somebody waits for one.
    pub(crate) fn pace_at(&mut self, now: impl FnOnce() -> Instant) -> Option<Instant> {
        if self.paced.is_empty() {
            self.pace_at = None;
        } else if self.pace_at.is_none() {
            self.pace_at = now().checked_add(self.pace);
        }
        self.pace_at
    }

    /// Visits every log that is due, once, and queues an event for each tail that has something to
    /// read.
    pub(crate) fn visit_due(&mut self, now: Instant, queue: &mut Queue) {
        if self.pace_at.is_some_and(|at| at <= now) {
            self.pace_at = None;
            while let Some(key) = self.paced.pop() {
                if let Some(log) = self.logs.get_mut(key) {
                    log.pace_due = false;
                }
                self.changed(key);
            }
        }
        // What becomes due during the visits has its turn after everybody else's.
        let mut visiting = std::mem::take(&mut self.visiting);
        std::mem::swap(&mut self.due, &mut visiting);
        for key in visiting.drain(..) {
            self.visit(key, now, queue);
        }
        self.visiting = visiting;
        // Set here, not only before a sleep: with logs always due there is none.
        self.pace_at(|| now);
    }

    pub(super) fn visit(&mut self, key: Key, now: Instant, queue: &mut Queue) {
        let Some(log) = self.logs.get_mut(key) else { return };
        log.visit_due = false;
        let visited = if log.end_due {
            log.fix_end(&mut self.kernel).map(|_| true)
        } else {
            log.reconcile(&mut self.kernel, key, now, self.pace)
        };
        match visited {
            Ok(news) => {
                log.fault = None;
                if news {
                    self.wake(key, queue);
                }
            }
            Err(error) => {
                log.fault = Some(error.raw_os_error().unwrap_or(0));
                self.wake(key, queue);
            }
        }
        if self.logs.get(key).is_some_and(|log| log.fault.is_none() && !log.waiting.is_empty()) {
            self.serve(key);
        }
    }

    /// Queues an event for each waiting tail for which there is something.
    pub(super) fn wake(&mut self, key: Key, queue: &mut Queue) {
        let Some(log) = self.logs.get_mut(key) else { return };
        let (truncations, end) = (log.truncations, log.window.end());
        let everyone = log.fault.is_some();
        let ended = log.job_end.is_some();
        let mut still_waiting = 0;
        let mut waiting = std::mem::take(&mut log.waiting);
        waiting.retain(|key| {
            let Some(tail) = self.tails.get_mut(*key) else { return false };
            let news = tail.offset < end
                || tail.truncations != truncations
                || everyone
                || (ended && tail.until == Until::JobEnd);
            if news {
                tail.waiting = None;
                announce(*key, tail, queue);
            } else {
                tail.waiting = Some(still_waiting);
                still_waiting += 1;
            }
            !news
        });
        if let Some(log) = self.logs.get_mut(key) {
            log.waiting = waiting;
        }
    }

    pub(super) fn truncated(&mut self, log: Option<Key>, queue: &mut Queue) {
        let Some(key) = log else { return };
        if let Some(log) = self.logs.get_mut(key) {
            log.truncated();
        }
        self.wake(key, queue);
    }

    /// The job of this log is finished: fixes where its output ends, and tells the waiting tails.
    pub(crate) fn finish(&mut self, key: Key, queue: &mut Queue) -> io::Result<u64> {
        let Some(log) = self.logs.get_mut(key) else { return Ok(0) };
        let end = log.fix_end(&mut self.kernel);
        if let Err(error) = &end {
            // The tails are told why they will not get the rest.
            log.fault = Some(error.raw_os_error().unwrap_or(0));
        }
        self.wake(key, queue);
        end
    }
}

/// Queues the event of a tail, unless it is there already: a host may have read ahead of it.
fn announce(key: Key, tail: &mut Tail, queue: &mut Queue) {
    if !tail.queued {
        tail.queued = true;
        queue.push_back(Event::Readable { tail: TailId(key), token: tail.token });
    }
}

pub(super) fn tail_log(tails: &Slots<Tail>, key: Key) -> Option<Key> {
    tails.get(key).map(|tail| tail.log)
}
