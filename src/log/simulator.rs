//! Owns [`Engine`], through which the fuzzer and the tests drive the logs and tails: the real
//! [`Logs`] over [`Machine`].
//!
//! Invariant: everything but the kernel is the code that a reactor runs. Knows nothing of what is
//! expected.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::event::Events;
use crate::id::{Key, TailId, Token};
use crate::log::excerpt::Excerpt;
use crate::log::kernel::Kernel;
use crate::log::logs::Logs;
use crate::log::machine::{Content, Descriptor, Machine};
use crate::log::options::TailOptions;
use crate::log::published::Known;
use crate::log::queue::Queue;
use crate::log::read::{Fill, Read, ReadError};
use crate::log::retention::Rules;
use crate::log::window::Mark;

/// The logs and tails over the machine, as a reactor would drive them.
#[derive(Debug)]
pub struct Engine {
    pub(super) machine: Machine,
    logs: Logs<Machine>,
    pub(super) queue: Queue,
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

    /// Whether what a reader on another thread is given may be given back to the file system at any
    /// moment; `None` when there is nothing for it.
    #[must_use]
    pub fn may_be_given_back(&self, tail: TailId) -> Option<bool> {
        self.logs.excerpt(tail).map(|excerpt| excerpt.may_be_given_back())
    }

    /// Whether a log was found to be longer than its limit, once.
    pub fn take_exceeded(&mut self, file: usize) -> bool {
        let log = self.log(file);
        std::iter::from_fn(|| self.logs.take_exceeded()).any(|exceeded| exceeded == log)
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
        let last = Mark::of_last(last, offset - last.len() as u64);
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
