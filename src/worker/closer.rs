//! Owns [`Reader`], what others know of a reader of a log, and [`Closer`], which ends it from any
//! thread.
//!
//! Invariant: whoever sets a flag wakes the reader after it. Knows nothing of what is read.

use std::sync::Arc;

use crate::error::{Result, TailError};
use crate::id::Key;
use crate::log::{Excerpt, Mark};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::worker::layer0::LogFile;
use crate::worker::wait::{Waiter, lock};

/// What others know of an [`Output`](crate::worker::Output).
#[derive(Debug, Default)]
pub(super) struct Reader {
    waiter: Arc<Waiter>,
    /// Its own tail has something to read, since it was last asked.
    news: AtomicBool,
    closed: AtomicBool,
    /// Boxed, because nobody has one before the end.
    rest: Mutex<Option<Box<Rest>>>,
}

/// What the loop leaves to a reader when it ends: the log of a job that has finished.
#[derive(Debug)]
pub(super) struct Rest {
    /// What the loop knows the reader by: it may have been opened anew, elsewhere.
    pub(super) key: Key,
    /// The content that it is of, in the feed of the log, for a reader that has that.
    pub(super) epoch: u64,
    pub(super) excerpt: Excerpt<LogFile>,
}

impl Reader {
    /// Who waits.
    pub(super) fn waiter(&self) -> &Arc<Waiter> {
        &self.waiter
    }

    /// Its own tail has something to read.
    pub(super) fn has_news(&self) {
        self.news.store(true, Ordering::Release);
        self.waiter.wake();
    }

    /// Takes the news, if there are any.
    pub(super) fn take_news(&self) -> bool {
        self.news.swap(false, Ordering::AcqRel)
    }

    /// The loop has ended: lets the reader ask, to find that out. It has to be woken.
    pub(super) fn lose(&self) -> Arc<Waiter> {
        self.news.store(true, Ordering::Release);
        Arc::clone(&self.waiter)
    }

    /// Leaves it what it can read without the loop, before that ends.
    pub(super) fn leave_rest(&self, rest: Rest) {
        *lock(&self.rest) = Some(Box::new(rest));
    }

    /// What the loop has left to the reader of this key, which has read up to this offset, where
    /// the bytes of the mark end, and of this content, if it has read it in the feed.
    pub(super) fn rest(
        &self,
        key: Key,
        epoch: Option<u64>,
        offset: u64,
        last: Mark,
    ) -> Option<Excerpt<LogFile>> {
        let rest = lock(&self.rest);
        let rest = rest.as_deref().filter(|rest| rest.key == key)?;
        let same = epoch.is_none_or(|epoch| rest.epoch == epoch);
        same.then(|| rest.excerpt.from(offset, last))
    }

    /// Fails once it was closed.
    pub(super) fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(TailError::Closed.into()) } else { Ok(()) }
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.waiter.wake();
    }
}

/// Ends an [`Output`](crate::worker::Output) from any thread.
///
/// ```
/// use jobworker::{Command, Error, Position, TailError, Worker};
/// use std::time::Duration;
///
/// let worker = Worker::new()?;
/// let job = worker.spawn(Command::new("sleep").arg("1000"))?;
/// let mut output = job.output(Position::Start)?;
/// let closer = output.closer();
/// let reader = std::thread::spawn(move || output.read_timeout(&mut [0; 64], Duration::MAX));
/// closer.close();
/// let result = reader.join().unwrap();
/// assert!(matches!(result, Err(Error::Tail(TailError::Closed))));
/// # Ok::<(), jobworker::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Closer {
    reader: Arc<Reader>,
}

impl Closer {
    pub(super) fn new(reader: Arc<Reader>) -> Self {
        Self { reader }
    }

    /// Lets the read that blocks now, if one does, and every later one, fail with
    /// [`TailError::Closed`](crate::TailError::Closed). What the output holds is released when it
    /// is dropped. Does not block.
    pub fn close(&self) {
        self.reader.close();
    }
}

#[cfg(all(test, jobworker_loom))]
mod models {
    use std::task::Poll;

    use super::*;
    use crate::sync::{check, thread};
    use crate::worker::wait::block_on;

    /// Waits as a reader does; whether it was closed.
    fn wait(reader: &Reader) -> bool {
        let closed = block_on(None, |cx| {
            reader.waiter().set(cx.waker());
            match (reader.check_open().is_err(), reader.take_news()) {
                (false, false) => Poll::Pending,
                (closed, _) => Poll::Ready(closed),
            }
        });
        closed.unwrap()
    }

    #[test]
    fn a_reader_that_waits_hears_of_news_once() {
        check(None, || {
            let reader: Arc<Reader> = Arc::default();
            let of_loop = Arc::clone(&reader);
            let thread = thread::spawn(move || of_loop.has_news());
            assert!(!wait(&reader));
            thread.join().unwrap();
            assert!(!reader.take_news());
        });
    }

    #[test]
    fn a_reader_that_waits_hears_that_it_is_closed_whatever_else_it_hears() {
        check(Some(3), || {
            let reader: Arc<Reader> = Arc::default();
            let of_loop = Arc::clone(&reader);
            let of_loop = thread::spawn(move || of_loop.has_news());
            let closer = Closer::new(Arc::clone(&reader));
            let closer = thread::spawn(move || closer.close());
            while !wait(&reader) {}
            of_loop.join().unwrap();
            closer.join().unwrap();
        });
    }

    #[test]
    fn a_reader_that_waits_hears_that_the_loop_has_ended() {
        check(None, || {
            let reader: Arc<Reader> = Arc::default();
            let of_loop = Arc::clone(&reader);
            let thread = thread::spawn(move || of_loop.lose().wake());
            assert!(!wait(&reader));
            thread.join().unwrap();
        });
    }
}
