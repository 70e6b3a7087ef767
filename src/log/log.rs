//! Owns [`Log`]: one log from its first byte to its removal, whether or not anybody reads it.
//!
//! Invariants: it has a file open exactly as long as it has tails or is kept short. What is known
//! about it is kept when the last tail is closed. A log without a place belongs to no job, or to
//! one that was removed, and exists as long as it has tails.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::log::file::Identity;
use crate::log::kernel::Kernel;
use crate::log::open_log::OpenLog;
use crate::log::published::Published;
use crate::log::retention::{Retention, Rules};
use crate::log::schedule::Listed;

/// One log.
#[derive(Debug)]
pub(crate) struct Log<K: Kernel> {
    identity: Identity,
    /// Where it lies, if it belongs to a job.
    place: Option<K::Place>,
    published: Arc<Published<K::File>>,
    open: Option<Box<OpenLog<K::File>>>,
    /// Whether its job has finished.
    finished: bool,
    /// What could not be given back, and why, for the report of its job.
    problem: Option<io::Error>,
    /// How many bytes beyond its limit were discarded.
    beyond: u64,
    /// It is read no further than this, whatever the file has.
    cap: u64,
    /// How many bytes of it are counted as used.
    counted: u64,
    /// An earlier host has given back all of it that can be, so that it is not counted.
    dropped: bool,
    listed: Listed,
}

impl<K: Kernel> Log<K> {
    /// A log that nobody reads; `place` when it belongs to a job.
    pub(crate) fn new(identity: Identity, place: Option<K::Place>) -> Self {
        Self {
            identity,
            place,
            published: Arc::new(Published::new()),
            open: None,
            finished: false,
            problem: None,
            beyond: 0,
            cap: u64::MAX,
            counted: 0,
            dropped: false,
            listed: Listed::default(),
        }
    }

    /// Which file it is.
    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    /// Where it lies, if it belongs to a job.
    pub(crate) fn place(&self) -> Option<&K::Place> {
        self.place.as_ref()
    }

    pub(crate) fn set_place(&mut self, place: K::Place) {
        self.place = Some(place);
    }

    /// Makes it the log of no job.
    pub(crate) fn take_place(&mut self) -> Option<K::Place> {
        self.place.take()
    }

    /// Whether an earlier host has given back all of it that can be.
    pub(crate) fn is_dropped(&self) -> bool {
        self.dropped
    }

    /// How many bytes are counted as used: as many as it has, or none once it belongs to no job.
    /// Returns how many were before, and are now.
    pub(crate) fn count(&mut self) -> (u64, u64) {
        let length = self.span().filter(|_| self.place.is_some() && !self.dropped);
        let length = length.map_or(0, |span| span.end - span.start);
        (std::mem::replace(&mut self.counted, length), length)
    }

    /// An earlier host has given back what lies before this offset.
    pub(crate) fn set_start(&self, start: u64) {
        self.published.set_start(start);
    }

    /// The offset of the first byte that was kept.
    pub(crate) fn start(&self) -> u64 {
        self.published.start()
    }

    /// The offsets between which it lies, as far as they are known: nobody looks at a log that is
    /// neither read nor kept short, unless its job has finished.
    pub(crate) fn span(&self) -> Option<Range<u64>> {
        let end = match (self.published.final_end(), &self.open) {
            (Some(end), _) => end,
            (None, Some(open)) => open.last_size(),
            (None, None) => return None,
        };
        Some(self.published.start().min(end)..end)
    }

    /// What is known of it, for any thread.
    #[cfg(any(fuzzing, test))]
    pub(crate) fn published(&self) -> &Arc<Published<K::File>> {
        &self.published
    }

    /// What is known of where the job's output ends.
    pub(crate) fn final_end(&self) -> Option<u64> {
        self.published.final_end()
    }

    /// Whether the job has finished, but its output's end could not be found yet.
    pub(crate) fn is_end_due(&self) -> bool {
        self.finished && self.published.final_end().is_none()
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// The log as its tails see it, if it is open.
    pub(crate) fn open(&self) -> Option<&OpenLog<K::File>> {
        self.open.as_deref()
    }

    /// The log as its tails see it, if it is open.
    pub(crate) fn open_mut(&mut self) -> Option<&mut OpenLog<K::File>> {
        self.open.as_deref_mut()
    }

    /// The log as its tails see it, for one of them.
    ///
    /// # Panics
    /// When it is not open, and so has no tails.
    pub(crate) fn opened(&mut self) -> &mut OpenLog<K::File> {
        self.opened_and_listed().0
    }

    /// As [`opened`](Self::opened), with the lists that it is in.
    pub(crate) fn opened_and_listed(&mut self) -> (&mut OpenLog<K::File>, &mut Listed) {
        let Some(open) = &mut self.open else { unreachable!("a log with a tail is open") };
        (open, &mut self.listed)
    }

    /// Keeps it short, as it is open. A visit has to follow.
    pub(crate) fn set_retention(&mut self, retention: Retention<K::File>) {
        self.cap = retention.cap();
        let open = self.opened();
        open.set_cap(retention.cap());
        open.set_retention(retention);
    }

    /// Does not keep it short any more.
    pub(crate) fn drop_retention(&mut self) {
        self.problem = self.take_problem();
        self.beyond = self.beyond();
        if let Some(open) = &mut self.open {
            open.drop_retention();
        }
    }

    /// What could not be given back, and why, if that was not asked before.
    pub(crate) fn take_problem(&mut self) -> Option<io::Error> {
        self.problem.take().or_else(|| self.open.as_mut()?.take_problem())
    }

    /// How many bytes beyond its limit were discarded.
    pub(crate) fn beyond(&self) -> u64 {
        self.beyond.max(self.open.as_ref().map_or(0, |open| open.beyond()))
    }

    /// Which lists it is in.
    pub(crate) fn listed(&mut self) -> &mut Listed {
        &mut self.listed
    }

    /// Opens it, for a first tail or to be kept short; the file has `size` bytes.
    pub(crate) fn set_open(&mut self, file: Arc<K::File>, size: u64, window_bytes: usize) {
        self.published.set_file(Some(Arc::clone(&file)));
        let published = Arc::clone(&self.published);
        let size = size.min(self.cap);
        self.open = Some(Box::new(OpenLog::new(file, published, size, self.cap, window_bytes)));
    }

    /// Closes it, when nobody needs it open. Its watch has to be gone.
    pub(crate) fn close(&mut self) {
        self.published.set_file(None);
        self.open = None;
    }

    /// An earlier host has found that the job's output ends here.
    pub(crate) fn finish_at(&mut self, kernel: &mut K, end: u64) {
        self.finished = true;
        self.published.set_final_end(end);
        self.dropped = Rules::nothing().is_met(self.published.start(), end);
        if let Some(open) = &mut self.open {
            open.end_retention(kernel);
        }
    }

    /// The job has finished: fixes where its output ends. Opens nothing when nobody reads it.
    pub(crate) fn finish(&mut self, kernel: &mut K) -> io::Result<u64> {
        self.finished = true;
        match (&mut self.open, &self.place) {
            (Some(open), _) => open.finish(kernel),
            (None, Some(place)) => {
                let end = kernel.len(place)?;
                self.published.set_final_end(end);
                Ok(end)
            }
            (None, None) => unreachable!("a log that nobody reads belongs to a job"),
        }
    }
}
