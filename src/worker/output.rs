//! Owns [`Output`], a reader of a job's log, and [`Closer`], which ends it from another thread.
//!
//! Invariants: the position moves only over bytes that were handed out, or to the first byte after
//! a truncation was reported; so a read that is given up has lost nothing. Bytes are copied, and
//! waited for, on the thread of the reader. Knows nothing of tails.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result, TailError};
use crate::id::Key;
use crate::log::{Fill, Read, TailOptions};
use crate::worker::feed::{Feed, Found, Front, Piece, Place};
use crate::worker::job::Job;
use crate::worker::outputs::Own;
use crate::worker::reply::{Receiver, reply};
use crate::worker::wait::{Ticket, Waiter, block_on};

/// A reader of a job's log, from [`Job::output`].
///
/// It gets every byte of the log from its position on, once, in order, then the end, which comes
/// when the job is finished; as a tail of a [`Reactor`](crate::Reactor), with the same proofs. It
/// is [`io::Read`] and [`io::BufRead`], and can be polled by a task. It can be sent to another
/// thread, and waits there.
///
/// # Truncation
/// Should the job truncate its log, a read says so once, in the place where bytes are missing, and
/// the next one goes on at the first byte of what the log is now. [`try_read`](Self::try_read),
/// [`read_timeout`](Self::read_timeout) and [`poll_read`](Self::poll_read) return
/// [`Read::Truncated`]. [`io::Read`] and [`io::BufRead`] fail with an [`io::Error`] that holds a
/// [`TailError::Truncated`], so that no code takes two contents for one; see
/// [`is_truncation`](Self::is_truncation).
///
/// # What it costs
/// Readers that keep up share their bytes: the loop reads what the log has grown by, copies it
/// once, and wakes those who wait, in one pass. Each copies on its own thread, and asks the loop
/// for nothing. While none waits the loop reads nothing, and while the log is silent nobody is
/// woken. The loop keeps at most 256 KiB of a log for that. A reader that is further behind, and
/// one that has just been opened, gets pieces of 64 KiB from the loop, one request each, until it
/// has caught up; so does a snapshot.
///
/// ```
/// use jobworker::{Command, Position, Worker};
/// use std::io::{BufRead, Read};
///
/// let worker = Worker::new()?;
/// let job = worker.spawn(Command::new("seq").arg("1000"))?;
/// let mut text = String::new();
/// job.output(Position::Start)?.read_to_string(&mut text)?;
/// assert_eq!(text.lines().count(), 1000);
///
/// let last = job.output(Position::LastLines(2))?.lines().collect::<Result<Vec<_>, _>>()?;
/// assert_eq!(last, ["999", "1000"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Output {
    key: Key,
    reader: Arc<Reader>,
    source: Source,
    /// The offset of the next byte to hand out. It lies in the piece or at its end.
    position: u64,
    piece: Piece,
    /// Dropped after the reader was closed: it keeps the job.
    job: Job,
}

/// What others know of an [`Output`].
#[derive(Debug, Default)]
pub(super) struct Reader {
    waiter: Arc<Waiter>,
    /// Its own tail has something to read, since it was last asked.
    news: AtomicBool,
    closed: AtomicBool,
}

impl Reader {
    /// Its own tail has something to read.
    pub(super) fn has_news(&self) {
        self.news.store(true, Ordering::Release);
        self.waiter.wake();
    }

    /// The loop has ended: lets the reader ask, to find that out. It has to be woken.
    pub(super) fn lose(&self) -> Arc<Waiter> {
        self.news.store(true, Ordering::Release);
        Arc::clone(&self.waiter)
    }
}

/// Where the bytes come from.
#[derive(Debug)]
enum Source {
    /// A tail of its own, through the loop.
    Own(Request),
    /// The feed of the log.
    Feed(Follow),
    /// A tail of its own is being opened, at the place that the feed does not have any more.
    FallBack(Follow, Receiver<Result<bool>>),
    /// Nowhere: everything was read.
    Ended,
}

/// How far a request for the next piece has come.
#[derive(Debug)]
enum Request {
    /// The loop is to be asked.
    Due,
    /// The loop was asked.
    Asked(Receiver<Result<Own>>),
    /// The loop had nothing, and will say when it does.
    Nothing,
}

/// A feed, and what this reader knows of it.
#[derive(Debug)]
struct Follow {
    feed: Arc<Feed>,
    epoch: u64,
    /// The last failure that was reported.
    failure: u64,
    ticket: Option<Ticket>,
    /// The loop was asked for what it has, by a read that does not wait for more.
    asked: Option<Receiver<()>>,
}

/// What there is to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Bytes to hand out.
    Bytes,
    Truncated,
    UpToDate,
    Ended,
}

impl Output {
    pub(super) fn open(job: Job, options: TailOptions) -> Result<Self> {
        let reader: Arc<Reader> = Arc::default();
        let (id, of_loop) = (job.id(), Arc::clone(&reader));
        let (key, position) = job
            .client()
            .call(move |engine| engine.outputs.open(&mut engine.reactor, id, options, of_loop))?;
        let piece = Piece { offset: position, bytes: Arc::default() };
        Ok(Self { key, reader, source: Source::Own(Request::Due), position, piece, job })
    }

    /// The job that it reads.
    #[must_use]
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// The offset in the log of the next byte: a later reader can continue there, with
    /// [`Position::Offset`](crate::Position::Offset).
    ///
    /// With [`Position::LastLines`](crate::Position::LastLines) it may be the end of the log until
    /// the first byte was read.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Reads without waiting for the job: [`Read::UpToDate`] when the loop knows of nothing more,
    /// which it learns of a write a moment later. May block for a turn or two of the loop.
    ///
    /// # Errors
    /// As for [`poll_read`](Self::poll_read).
    pub fn try_read(&mut self, buffer: &mut [u8]) -> Result<Read> {
        self.job.client().check_may_block()?;
        let next = block_on(None, |cx| self.poll_next(cx, false));
        self.hand_out(next.unwrap_or(Ok(Next::UpToDate))?, buffer)
    }

    /// Blocks until there is something to read, for at most `timeout`: then it returns
    /// [`Read::UpToDate`]. A timeout that is longer than the clock can tell never ends.
    ///
    /// ```
    /// use jobworker::{Command, Position, Read, Worker};
    /// use std::time::Duration;
    ///
    /// let worker = Worker::new()?;
    /// let job = worker.spawn(Command::new("sh").args(["-c", "echo hello; sleep 1000"]))?;
    /// let mut output = job.output(Position::Start)?;
    /// let mut buffer = [0; 64];
    /// assert_eq!(output.read_timeout(&mut buffer, Duration::MAX)?, Read::Data(6));
    /// assert_eq!(output.read_timeout(&mut buffer, Duration::from_millis(1))?, Read::UpToDate);
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`poll_read`](Self::poll_read).
    pub fn read_timeout(&mut self, buffer: &mut [u8], timeout: Duration) -> Result<Read> {
        if timeout.is_zero() {
            return self.try_read(buffer);
        }
        self.job.client().check_may_block()?;
        let until = Instant::now().checked_add(timeout);
        let next = block_on(until, |cx| self.poll_next(cx, true));
        self.hand_out(next.unwrap_or(Ok(Next::UpToDate))?, buffer)
    }

    /// Copies the next bytes for a task, which is woken when there is something: never
    /// [`Read::UpToDate`].
    ///
    /// A task can stop waiting at any time: nothing was taken. Does not block.
    ///
    /// # Errors
    /// [`Error::Tail`]: `Closed` once a [`Closer`] was used; `Io` or `WatchLimit` when the log
    /// cannot be read or watched: nothing is skipped, and it can be read again.
    /// [`Error::Worker`] when the worker has ended before everything was read.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<Read>> {
        let next = ready!(self.poll_next(cx, true))?;
        Poll::Ready(self.hand_out(next, buffer))
    }

    /// Returns the next bytes for a task, without copying them, which is woken when there is
    /// something: never [`Fill::UpToDate`]. They stay unread until
    /// [`consume`](io::BufRead::consume). Does not block.
    ///
    /// # Errors
    /// As for [`poll_read`](Self::poll_read).
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<Fill<'_>>> {
        Poll::Ready(Ok(match ready!(self.poll_next(cx, true))? {
            Next::Bytes => Fill::Data(self.left()),
            Next::Truncated => Fill::Truncated,
            Next::UpToDate => Fill::UpToDate,
            Next::Ended => Fill::Ended,
        }))
    }

    /// A handle that ends this reader from any thread.
    #[must_use]
    pub fn closer(&self) -> Closer {
        Closer { reader: Arc::clone(&self.reader) }
    }

    /// Whether this error of [`io::Read`] or [`io::BufRead`] reports a truncation of the log, after
    /// which reading goes on.
    ///
    /// ```
    /// use jobworker::worker::Output;
    /// use std::io::Read;
    ///
    /// /// Reads to the end, and counts how often the log was truncated.
    /// fn read_all(output: &mut Output, bytes: &mut Vec<u8>) -> std::io::Result<usize> {
    ///     let mut truncations = 0;
    ///     loop {
    ///         match output.read_to_end(bytes) {
    ///             Ok(_) => return Ok(truncations),
    ///             Err(error) if Output::is_truncation(&error) => truncations += 1,
    ///             Err(error) => return Err(error),
    ///         }
    ///     }
    /// }
    /// # let _ = read_all;
    /// ```
    #[must_use]
    pub fn is_truncation(error: &io::Error) -> bool {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        matches!(inner, Some(Error::Tail(TailError::Truncated)))
    }

    /// The bytes that are at hand.
    fn left(&self) -> &[u8] {
        let read = usize::try_from(self.position - self.piece.offset).unwrap_or(usize::MAX);
        self.piece.bytes.get(read..).unwrap_or_default()
    }

    fn hand_out(&mut self, next: Next, buffer: &mut [u8]) -> Result<Read> {
        Ok(match next {
            Next::Bytes => {
                let left = self.left();
                let length = left.len().min(buffer.len());
                buffer[..length].copy_from_slice(&left[..length]);
                self.position += length as u64;
                Read::Data(length)
            }
            Next::Truncated => Read::Truncated,
            Next::UpToDate => Read::UpToDate,
            Next::Ended => Read::Ended,
        })
    }

    /// Continues at the first byte of what the log is now.
    fn restart(&mut self) {
        self.position = 0;
        self.piece = Piece { offset: 0, bytes: Arc::default() };
    }

    /// Finds out what there is to do next. With `wait` it is never [`Next::UpToDate`]; without, it
    /// is pending only until the loop has answered.
    fn poll_next(&mut self, cx: &mut Context<'_>, wait: bool) -> Poll<Result<Next>> {
        let (key, client) = (self.key, self.job.client());
        client.check_process()?;
        self.reader.waiter.set(cx.waker());
        if self.reader.closed.load(Ordering::Acquire) {
            return Poll::Ready(Err(TailError::Closed.into()));
        }
        if !self.left().is_empty() {
            return Poll::Ready(Ok(Next::Bytes));
        }
        loop {
            match &mut self.source {
                Source::Ended => return Poll::Ready(Ok(Next::Ended)),
                Source::Own(request @ Request::Due) => {
                    self.reader.news.store(false, Ordering::Release);
                    let (sender, receiver) = reply();
                    client.post(move |engine| {
                        sender.send(engine.outputs.next(&mut engine.reactor, key));
                    })?;
                    *request = Request::Asked(receiver);
                }
                Source::Own(request @ Request::Nothing) => {
                    if self.reader.news.swap(false, Ordering::AcqRel) {
                        *request = Request::Due;
                    } else if wait {
                        return Poll::Pending;
                    } else {
                        return Poll::Ready(Ok(Next::UpToDate));
                    }
                }
                Source::Own(request @ Request::Asked(_)) => {
                    let Request::Asked(receiver) = request else { unreachable!("just matched") };
                    let answer = ready!(receiver.poll(cx));
                    *request = Request::Due;
                    match answer.ok_or_else(|| client.why())?? {
                        Own::Piece(piece) => {
                            self.position = piece.offset;
                            self.piece = piece;
                            return Poll::Ready(Ok(Next::Bytes));
                        }
                        Own::Truncated => {
                            self.restart();
                            return Poll::Ready(Ok(Next::Truncated));
                        }
                        Own::Nothing => *request = Request::Nothing,
                        Own::Joined(feed, place) => {
                            self.position = place.offset;
                            self.source = Source::Feed(Follow::new(feed, place.epoch));
                        }
                        Own::Ended => self.source = Source::Ended,
                    }
                }
                Source::Feed(follow) => {
                    if let Some(asked) = &mut follow.asked {
                        let _ = ready!(asked.poll(cx));
                        follow.asked = None;
                    }
                    let place = Place { epoch: follow.epoch, offset: self.position };
                    match follow.look(place, wait.then_some(&self.reader.waiter)) {
                        Found::Piece(piece) => {
                            self.piece = piece;
                            return Poll::Ready(Ok(Next::Bytes));
                        }
                        Found::Truncated(place) => {
                            follow.epoch = place.epoch;
                            self.restart();
                            return Poll::Ready(Ok(Next::Truncated));
                        }
                        Found::Nothing(front) if wait => {
                            if front == Front::Stalled {
                                client.post(move |engine| {
                                    engine.outputs.wanted(&mut engine.reactor, key);
                                })?;
                            }
                            return Poll::Pending;
                        }
                        Found::Nothing(Front::Armed) => return Poll::Ready(Ok(Next::UpToDate)),
                        Found::Nothing(Front::Stalled | Front::Asked) => {
                            let (sender, receiver) = reply();
                            client.post(move |engine| {
                                engine.outputs.wanted(&mut engine.reactor, key);
                                sender.send(());
                            })?;
                            follow.asked = Some(receiver);
                        }
                        Found::Behind => {
                            follow.feed.leave(follow.ticket.take());
                            let (sender, receiver) = reply();
                            // What was read last, for the proof that the log is still the same.
                            let last = Arc::clone(&self.piece.bytes);
                            client.post(move |engine| {
                                let (outputs, reactor) = (&mut engine.outputs, &mut engine.reactor);
                                sender.send(outputs.fall_back(reactor, key, place, &last));
                            })?;
                            let follow = Follow::new(Arc::clone(&follow.feed), follow.epoch);
                            self.source = Source::FallBack(follow, receiver);
                        }
                        Found::Failed(number, error) => {
                            follow.failure = number;
                            return Poll::Ready(Err(error));
                        }
                        Found::Ended => {
                            // Nothing has to be kept for it any more, unless the loop has ended.
                            let _ = client.post(move |engine| {
                                engine.outputs.close(&mut engine.reactor, key);
                            });
                            self.source = Source::Ended;
                        }
                        Found::Lost => return Poll::Ready(Err(client.why())),
                    }
                }
                Source::FallBack(_, receiver) => {
                    let answer = ready!(receiver.poll(cx));
                    let answer = answer.ok_or_else(|| client.why()).flatten();
                    let before = std::mem::replace(&mut self.source, Source::Own(Request::Due));
                    if let (Source::FallBack(follow, _), Ok(false) | Err(_)) = (before, &answer) {
                        // The log was truncated meanwhile, which the feed tells.
                        self.source = Source::Feed(follow);
                    }
                    answer?;
                }
            }
        }
    }
}

impl Follow {
    fn new(feed: Arc<Feed>, epoch: u64) -> Self {
        Self { feed, epoch, failure: 0, ticket: None, asked: None }
    }

    fn look(&mut self, place: Place, waiter: Option<&Arc<Waiter>>) -> Found {
        match waiter {
            Some(waiter) => self.feed.look_or_wait(place, self.failure, &mut self.ticket, waiter),
            None => self.feed.look(place, self.failure),
        }
    }
}

/// Closes the reader for the loop.
impl Drop for Output {
    fn drop(&mut self) {
        let key = self.key;
        let client = self.job.client();
        if client.check_process().is_err() {
            // A lock may be held by a thread that is not there.
            return;
        }
        if let Source::Feed(follow) = &self.source {
            follow.feed.leave(follow.ticket);
        }
        // When the thread has ended, there is nothing to close.
        let _ = client.post(move |engine| engine.outputs.close(&mut engine.reactor, key));
    }
}

/// Blocks until there is something to read, unless the buffer has no room. Zero is the end of the
/// log otherwise.
impl io::Read for Output {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let left = io::BufRead::fill_buf(self)?;
        let length = left.len().min(buffer.len());
        buffer[..length].copy_from_slice(&left[..length]);
        io::BufRead::consume(self, length);
        Ok(length)
    }
}

/// Blocks until there is something to read. The bytes are those that all readers share: nothing is
/// copied.
impl io::BufRead for Output {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.job.client().check_may_block().map_err(into_io)?;
        match block_on(None, |cx| self.poll_next(cx, true)).unwrap_or(Ok(Next::UpToDate)) {
            Ok(Next::Bytes) => Ok(self.left()),
            Ok(Next::Truncated) => Err(into_io(TailError::Truncated.into())),
            Ok(Next::Ended) => Ok(&[]),
            Ok(Next::UpToDate) => unreachable!("a wait without a timeout has no such end"),
            Err(error) => Err(into_io(error)),
        }
    }

    fn consume(&mut self, amount: usize) {
        self.position += amount.min(self.left().len()) as u64;
    }
}

/// The same error for the traits of `std::io`, which holds it.
fn into_io(error: Error) -> io::Error {
    let kind = match error.kind() {
        ErrorKind::InvalidInput => io::ErrorKind::InvalidInput,
        ErrorKind::NotFound => io::ErrorKind::NotFound,
        ErrorKind::PermissionDenied => io::ErrorKind::PermissionDenied,
        ErrorKind::Unsupported => io::ErrorKind::Unsupported,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

/// Ends an [`Output`] from any thread.
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
    /// Lets the read that blocks now, if one does, and every later one, fail with
    /// [`TailError::Closed`]. What the output holds is released when it is dropped. Does not block.
    pub fn close(&self) {
        self.reader.closed.store(true, Ordering::Release);
        self.reader.waiter.wake();
    }
}
