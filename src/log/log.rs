//! Owns [`Log`]: one log from its first byte to its removal, whether or not anybody reads it.
//!
//! Invariants: it has a file open exactly as long as it has tails. What is known about it is kept
//! when the last tail is closed. A log without a place belongs to no job, or to one that was
//! removed, and exists as long as it has tails.

use std::io;
use std::sync::Arc;

use crate::log::file::Identity;
use crate::log::kernel::Kernel;
use crate::log::open_log::OpenLog;
use crate::log::published::Published;
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

    /// The log as its tails see it, if it has any.
    pub(crate) fn open(&self) -> Option<&OpenLog<K::File>> {
        self.open.as_deref()
    }

    /// The log as its tails see it, if it has any.
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

    /// Which lists it is in.
    pub(crate) fn listed(&mut self) -> &mut Listed {
        &mut self.listed
    }

    /// Opens it, for a first tail; the file has `size` bytes.
    pub(crate) fn set_open(&mut self, file: Arc<K::File>, size: u64, window_bytes: usize) {
        self.published.set_file(Some(Arc::clone(&file)));
        let published = Arc::clone(&self.published);
        self.open = Some(Box::new(OpenLog::new(file, published, size, window_bytes)));
    }

    /// Closes it, after the last tail. Its watch has to be gone.
    pub(crate) fn close(&mut self) {
        self.published.set_file(None);
        self.open = None;
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
