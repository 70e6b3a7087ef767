//! Owns [`Output`], a reader of a job's log.
//!
//! Invariants: the position moves only over bytes that were handed out, or to the first byte after
//! a truncation was reported; so a read that is given up has lost nothing. Bytes are read, copied
//! and waited for on the thread of the reader. Knows nothing of tails.

use std::io::{self, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use rustix::io::{retry_on_intr, write};

use crate::error::{Error, ErrorKind, Result, TailError};
use crate::id::Key;
use crate::log::{Bookmark, Fill, Mark, Position, Read, TailOptions};
use crate::worker::closer::{Closer, Reader};
use crate::worker::job::Job;
use crate::worker::lines::Lines;
use crate::worker::piece::Piece;
use crate::worker::source::{Asking, Next, Sent, Source};
use crate::worker::wait::block_on;

/// A reader of a job's log, from [`Job::output`]. Where that log is, and whether there is one, is
/// the [`Output`](crate::Output) of the command.
///
/// It gets every byte of the log from its position on, once, in order, then the end, which comes
/// when the job is finished; as a tail of a [`Reactor`](crate::Reactor), with the same proofs. It
/// is [`io::Read`], [`io::BufRead`] and [`io::Seek`], and can be polled by a task. It can be sent
/// to another thread, and waits there.
///
/// # Truncation
/// Should the job truncate its log, a read says so once, in the place where bytes are missing, and
/// the next one goes on at the first byte of what the log is now. [`try_read`](Self::try_read),
/// [`read_timeout`](Self::read_timeout) and [`poll_read`](Self::poll_read) return
/// [`Read::Truncated`]. [`io::Read`] and [`io::BufRead`] fail with an [`io::Error`] that holds a
/// [`TailError::Truncated`], so that no code takes two contents for one; see
/// [`is_truncation`](Self::is_truncation).
///
/// # Bytes that were not kept
/// Of a log that is [kept short](crate::Command::log_keep), a reader that is too far behind hears
/// in the same way how many bytes are gone, and goes on at the first one that was kept:
/// [`Read::Skipped`], or an [`io::Error`] that holds a [`TailError::Skipped`]; see
/// [`skipped`](Self::skipped).
///
/// # What it costs
/// No byte passes through the loop to a single reader. Readers that keep up share their bytes: the
/// loop reads what the log has grown by, copies it once, and wakes those who wait, in one pass.
/// Each copies on its own thread, and asks the loop for nothing. While none waits the loop reads
/// nothing, and while the log is silent nobody is woken. The loop keeps at most 256 KiB of a log
/// for that, and no more than the last piece while all of them keep up with each. A reader
/// that is further behind, one that has just been opened, and a snapshot read the file by
/// themselves, in pieces of up to 64 KiB, each on its own thread; they ask the loop once how far
/// they can read, and again when they are there.
///
/// ```
/// use jobworker::{Command, Position, Worker};
/// use std::io::Read;
///
/// let worker = Worker::new()?;
/// let job = worker.spawn(Command::new("seq").arg("1000"))?;
/// let mut text = String::new();
/// job.output(Position::Start)?.read_to_string(&mut text)?;
/// assert_eq!(text.lines().count(), 1000);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Output {
    reader: Arc<Reader>,
    options: TailOptions,
    source: Source,
    /// The offset of the next byte to hand out. It lies in the piece or at its end.
    position: u64,
    piece: Piece,
    /// The last bytes before the piece, if it has read any: all that it holds while it waits.
    before: Mark,
    /// Dropped after the reader was closed: it keeps the job.
    job: Job,
}

/// What there is to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ready {
    /// Bytes to hand out.
    Bytes,
    /// Bytes to read from the file.
    File,
    Truncated,
    Skipped(u64),
    UpToDate,
    Ended,
}

impl Output {
    pub(super) fn open(job: Job, options: TailOptions) -> Result<Self> {
        Self::open_for(Arc::default(), job, options)
    }

    fn open_for(reader: Arc<Reader>, job: Job, options: TailOptions) -> Result<Self> {
        let (id, of_loop) = (job.id(), Arc::clone(&reader));
        let (key, position) = job
            .client()
            .call(move |engine| engine.outputs.open(&mut engine.reactor, id, options, of_loop))?;
        Ok(Self::new(reader, job, options, (key, position)))
    }

    /// A reader that the loop knows by this key, and that begins at this offset.
    pub(super) fn new(
        reader: Arc<Reader>,
        job: Job,
        options: TailOptions,
        (key, position): (Key, u64),
    ) -> Self {
        let piece = Piece::none(position);
        let before = match options.position {
            Position::After(bookmark) => bookmark.last().copied(),
            _ => None,
        };
        let before = before.unwrap_or(Mark::of_last(&[], position));
        Self { reader, options, source: Source::new(key), position, piece, before, job }
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

    /// Where it is: a later reader can go on there, with
    /// [`Position::After`](crate::Position::After), in another process as well. Unlike a
    /// [`position`](Self::position) alone, it tells if the log was truncated meanwhile.
    ///
    /// Makes no system call, and needs no worker any more.
    #[must_use]
    pub fn bookmark(&self) -> Bookmark {
        Bookmark::behind(self.last())
    }

    /// The last bytes that it has read.
    fn last(&self) -> Mark {
        let read = usize::try_from(self.position - self.piece.offset).unwrap_or(usize::MAX);
        match self.piece.bytes().get(..read) {
            Some(bytes) => self.before.and(bytes, self.piece.offset),
            // They were sent, without coming here.
            None => match self.source.last() {
                Some(sent) if sent.end() == self.position => *sent,
                _ => Mark::of_last(&[], self.position),
            },
        }
    }

    /// Reads without waiting for the job: [`Read::UpToDate`] when the loop knows of nothing more,
    /// which it learns of a write a moment later. May block for a turn or two of the loop.
    ///
    /// # Errors
    /// As for [`poll_read`](Self::poll_read).
    pub fn try_read(&mut self, buffer: &mut [u8]) -> Result<Read> {
        self.job.client().check_may_block()?;
        let next = block_on(None, |cx| self.poll_next(cx, false));
        self.hand_out(next.unwrap_or(Ok(Ready::UpToDate))?, buffer)
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
        self.hand_out(next.unwrap_or(Ok(Ready::UpToDate))?, buffer)
    }

    /// Copies the next bytes for a task, which is woken when there is something: never
    /// [`Read::UpToDate`].
    ///
    /// A task can stop waiting at any time: nothing was taken. Does not wait, but may read the
    /// file.
    ///
    /// # Errors
    /// [`Error::Tail`]: `Closed` once a [`Closer`] was used; `Io` or `WatchLimit` when the log
    /// cannot be read or watched: nothing is skipped, and it can be read again.
    /// [`Error::Worker`] when the worker has ended before the job was finished, or if the log was
    /// truncated and the worker has ended before that was reported.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<Read>> {
        self.job.client().check_process()?;
        let next = ready!(self.poll_next(cx, true))?;
        Poll::Ready(self.hand_out(next, buffer))
    }

    /// Returns the next bytes for a task, without copying them, which is woken when there is
    /// something: never [`Fill::UpToDate`]. They stay unread until
    /// [`consume`](io::BufRead::consume). Does not wait, but may read the file.
    ///
    /// # Errors
    /// As for [`poll_read`](Self::poll_read).
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<Fill<'_>>> {
        self.job.client().check_process()?;
        Poll::Ready(Ok(match ready!(self.poll_next(cx, true))? {
            Ready::Bytes | Ready::File => Fill::Data(self.left()),
            Ready::Truncated => Fill::Truncated,
            Ready::Skipped(bytes) => Fill::Skipped { bytes },
            Ready::UpToDate => Fill::UpToDate,
            Ready::Ended => Fill::Ended,
        }))
    }

    /// Sends the next bytes to a descriptor, at most `most`, and says how many. What is in the file
    /// goes there by sendfile(2), without a copy to the memory of the host; what has just come is
    /// in memory already, and is written, and so is a log that is
    /// [kept short](crate::Command::log_keep). [`io::Read`] and [`io::copy`] do the same with a
    /// copy.
    ///
    /// Returns [`Read::Data`] for bytes that were sent, and otherwise what
    /// [`read_timeout`](Self::read_timeout) would return, but never [`Read::UpToDate`].
    ///
    /// # When it blocks
    /// Until there is something to send; then, if the descriptor is in blocking mode, until it has
    /// taken at least one byte, and usually until it has taken all of them: choose `most` so that a
    /// slow receiver is not waited for longer than you like. A file, and a log that is not in
    /// memory, may have to wait for a disk. A [`Closer`] ends the first wait, not the second.
    ///
    /// ```
    /// use jobworker::{Command, Position, Read, Worker};
    /// use std::net::{TcpListener, TcpStream};
    ///
    /// let worker = Worker::new()?;
    /// let job = worker.spawn(Command::new("seq").arg("100000"))?;
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let mut client = TcpStream::connect(listener.local_addr()?)?;
    /// let server = std::thread::spawn(move || -> std::io::Result<()> {
    ///     let (stream, _) = listener.accept()?;
    ///     let mut output = job.output(Position::Start).map_err(std::io::Error::other)?;
    ///     while output.send_to(&stream, 1 << 20)? != Read::Ended {}
    ///     Ok(())
    /// });
    /// assert_eq!(std::io::copy(&mut client, &mut std::io::sink())?, 588_895);
    /// server.join().unwrap()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # What is not guaranteed
    /// A truncation is noticed before bytes are sent, and after. If the job truncates its log in
    /// the very moment in between, what was sent may have bytes of both contents; the next call
    /// returns [`Read::Truncated`].
    ///
    /// # Errors
    /// Those of the descriptor, [`WouldBlock`](io::ErrorKind::WouldBlock) for one that is not in
    /// blocking mode and takes nothing now, and [`BrokenPipe`](io::ErrorKind::BrokenPipe) for a
    /// closed pipe or socket, which sends SIGPIPE as well (Rust programs ignore it). Those of
    /// [`poll_read`](Self::poll_read), in an [`io::Error`]. Nothing is skipped: the same bytes can
    /// be sent again.
    #[doc(alias("sendfile", "splice"))]
    pub fn send_to(&mut self, to: impl AsFd, most: usize) -> io::Result<Read> {
        self.job.client().check_may_block().map_err(into_io)?;
        let sent = block_on(None, |cx| self.poll_send_to(cx, &to, most));
        sent.unwrap_or(Ok(Read::UpToDate))
    }

    /// As [`send_to`](Self::send_to), for a task, which is woken when there is something to send.
    /// It does not wait for that; whether it waits for the descriptor depends on the descriptor's
    /// mode. When that takes nothing more, wait until it is writable and call again.
    ///
    /// # Errors
    /// As for [`send_to`](Self::send_to).
    pub fn poll_send_to(
        &mut self,
        cx: &mut Context<'_>,
        to: impl AsFd,
        most: usize,
    ) -> Poll<io::Result<Read>> {
        if most == 0 {
            return Poll::Ready(Ok(Read::Data(0)));
        }
        self.job.client().check_process().map_err(into_io)?;
        loop {
            let next = ready!(self.poll_source(cx, true)).map_err(into_io)?;
            return Poll::Ready(Ok(match next {
                Ready::Bytes => Read::Data(self.write_to(to.as_fd(), most)?),
                Ready::File => match self.source.send(to.as_fd(), most)? {
                    Sent::Bytes(sent) => {
                        self.position += sent as u64;
                        Read::Data(sent)
                    }
                    Sent::Doubt => continue,
                    Sent::Refused => {
                        self.load().map_err(into_io)?;
                        continue;
                    }
                },
                Ready::Truncated => Read::Truncated,
                Ready::Skipped(bytes) => Read::Skipped { bytes },
                Ready::UpToDate => Read::UpToDate,
                Ready::Ended => Read::Ended,
            }));
        }
    }

    /// Writes what is at hand to a descriptor.
    fn write_to(&mut self, to: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
        let left = self.left();
        let written = retry_on_intr(|| write(to, &left[..left.len().min(most)]))?;
        self.position += written as u64;
        Ok(written)
    }

    /// Reads line by line. A line is returned when it is complete, or in parts of `most` bytes if
    /// it is longer, so that a job cannot make the host collect a line without end.
    ///
    /// It takes the place of [`io::BufRead::lines`], which has no bound. A bound of zero counts as
    /// one.
    ///
    /// ```
    /// use jobworker::{Command, Position, Worker};
    ///
    /// let worker = Worker::new()?;
    /// let job = worker.spawn(Command::new("seq").arg("1000"))?;
    /// job.wait()?;
    /// let mut lines = job.output(Position::LastLines(2))?.lines(64 * 1024);
    /// assert_eq!(lines.next().unwrap()?.text(), "999");
    /// assert_eq!(lines.next().unwrap()?.text(), "1000");
    /// assert!(lines.next().is_none());
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    pub fn lines(self, most: usize) -> Lines {
        Lines::new(self, most)
    }

    /// Returns the next bytes as they are shared by all readers that keep up, without copying them;
    /// none at the end of the log. Blocks until there are any. With the feature `bytes`.
    ///
    /// At most 64 KiB. The memory in which they lie, no more than that, is not freed as long as a
    /// part of them is held.
    ///
    /// # Errors
    /// As those of [`io::Read`] for an output.
    #[cfg(feature = "bytes")]
    pub fn read_bytes(&mut self) -> io::Result<bytes::Bytes> {
        let length = io::BufRead::fill_buf(self)?.len();
        Ok(self.take_bytes(length))
    }

    /// As [`read_bytes`](Self::read_bytes), for a task, which is woken when there is something. A
    /// task can stop waiting at any time: nothing was taken. With the feature `bytes`.
    ///
    /// # Errors
    /// As for [`read_bytes`](Self::read_bytes).
    #[cfg(feature = "bytes")]
    pub fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bytes::Bytes>> {
        self.job.client().check_process().map_err(into_io)?;
        let next = ready!(self.poll_next(cx, true));
        let length = self.show(next)?.len();
        Poll::Ready(Ok(self.take_bytes(length)))
    }

    #[cfg(feature = "bytes")]
    fn take_bytes(&mut self, length: usize) -> bytes::Bytes {
        let taken = crate::worker::shared_bytes::last_of(&self.piece, length);
        self.position += length as u64;
        taken
    }

    /// A handle that ends this reader from any thread.
    #[must_use]
    pub fn closer(&self) -> Closer {
        Closer::new(Arc::clone(&self.reader))
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

    /// How many bytes were not kept, if this error of [`io::Read`] or [`io::BufRead`] reports a gap
    /// in a log that is [kept short](crate::Command::log_keep), after which reading goes on.
    #[must_use]
    pub fn skipped(error: &io::Error) -> Option<u64> {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        match inner {
            Some(Error::Tail(TailError::Skipped { bytes })) => Some(*bytes),
            _ => None,
        }
    }

    /// The bytes that are at hand.
    pub(super) fn left(&self) -> &[u8] {
        let read = usize::try_from(self.position - self.piece.offset).unwrap_or(usize::MAX);
        self.piece.bytes().get(read..).unwrap_or_default()
    }

    fn hand_out(&mut self, ready: Ready, buffer: &mut [u8]) -> Result<Read> {
        Ok(match ready {
            Ready::Bytes | Ready::File => {
                let left = self.left();
                let length = left.len().min(buffer.len());
                buffer[..length].copy_from_slice(&left[..length]);
                self.position += length as u64;
                Read::Data(length)
            }
            Ready::Truncated => Read::Truncated,
            Ready::Skipped(bytes) => Read::Skipped { bytes },
            Ready::UpToDate => Read::UpToDate,
            Ready::Ended => Read::Ended,
        })
    }

    /// The same reader elsewhere.
    fn at(&self, position: Position) -> io::Result<Self> {
        let options = TailOptions { position, ..self.options };
        let reader = Arc::clone(&self.reader);
        Self::open_for(reader, self.job.clone(), options).map_err(into_io)
    }

    /// What [`io::BufRead::fill_buf`] returns.
    fn show(&self, next: Result<Ready>) -> io::Result<&[u8]> {
        match next {
            Ok(Ready::Bytes | Ready::File) => Ok(self.left()),
            Ok(Ready::Truncated) => Err(into_io(TailError::Truncated.into())),
            Ok(Ready::Skipped(bytes)) => Err(into_io(TailError::Skipped { bytes }.into())),
            Ok(Ready::Ended) => Ok(&[]),
            Ok(Ready::UpToDate) => unreachable!("a wait without a timeout has no such end"),
            Err(error) => Err(into_io(error)),
        }
    }

    /// Continues at the first byte of what the log is now.
    fn restart(&mut self) {
        self.position = 0;
        self.piece.clear(0);
        self.before = Mark::of_last(&[], 0);
    }

    /// Finds out what there is to do next, and reads what is in the file: never [`Ready::File`].
    /// With `wait` it is never [`Ready::UpToDate`]; without, it is pending only until the loop has
    /// answered.
    fn poll_next(&mut self, cx: &mut Context<'_>, wait: bool) -> Poll<Result<Ready>> {
        loop {
            let next = ready!(self.poll_source(cx, wait))?;
            if next != Ready::File || self.load()? {
                return Poll::Ready(Ok(next));
            }
        }
    }

    /// As [`poll_next`](Self::poll_next), without reading what is in the file. Whoever calls it has
    /// made sure that the process is the worker's: no thread wakes up in another one.
    fn poll_source(&mut self, cx: &mut Context<'_>, wait: bool) -> Poll<Result<Ready>> {
        self.reader.check_open()?;
        if !self.left().is_empty() {
            return Poll::Ready(Ok(Ready::Bytes));
        }
        // Most reads that wait are woken for this.
        if let Some(piece) = self.source.awaited(self.position) {
            self.piece = piece;
            return Poll::Ready(Ok(Ready::Bytes));
        }
        self.before = self.last();
        self.piece.clear(self.position);
        self.reader.waiter().set(cx.waker());
        self.reader.check_open()?;
        let mut asking = Asking {
            client: self.job.client(),
            reader: &self.reader,
            position: &mut self.position,
            last: self.before,
        };
        let next = self.source.poll(&mut asking, cx, wait);
        if next.is_pending() && self.source.is_at_end() {
            // Whoever waits holds nothing, so that the memory can serve for what it waits for.
            self.piece = Piece::none(self.position);
        }
        Poll::Ready(Ok(match ready!(next)? {
            Next::Piece(piece) => {
                self.piece = piece;
                Ready::Bytes
            }
            Next::File => Ready::File,
            Next::Truncated => {
                self.restart();
                Ready::Truncated
            }
            Next::Skipped(bytes) => {
                // What was read last proves nothing of what comes next.
                self.piece.clear(self.position);
                Ready::Skipped(bytes)
            }
            Next::UpToDate => Ready::UpToDate,
            Next::Ended => {
                self.reader.waiter().clear();
                Ready::Ended
            }
        }))
    }

    /// Reads what is in the file. Says whether there are bytes to hand out now; if not, the log is
    /// not what it was.
    fn load(&mut self) -> Result<bool> {
        self.before = self.last();
        self.source.read(&mut self.piece)
    }
}

/// Closes the reader for the loop, without waiting for it: a task may drop it.
impl Drop for Output {
    fn drop(&mut self) {
        let key = self.source.key();
        let client = self.job.client();
        if client.check_process().is_err() {
            // A lock may be held by a thread that is not there.
            return;
        }
        self.source.leave();
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

/// Blocks until there is something to read. What readers that keep up are given are the bytes that
/// all of them share: nothing is copied.
impl io::BufRead for Output {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.job.client().check_may_block().map_err(into_io)?;
        let next = block_on(None, |cx| self.poll_next(cx, true));
        self.show(next.unwrap_or(Ok(Ready::UpToDate)))
    }

    fn consume(&mut self, amount: usize) {
        self.position += amount.min(self.left().len()) as u64;
    }
}

/// Opens the log anew, at another offset. Blocks for a turn or two of the loop.
///
/// An offset past the end is one to wait for. The end, for [`SeekFrom::End`], is the one that the
/// log has at the call, and so is the end of a snapshot from then on. A [`Closer`] stays valid.
///
/// # Errors
/// As for [`Job::output`], in an [`io::Error`]; [`InvalidInput`](io::ErrorKind::InvalidInput) for
/// an offset before the first byte or beyond the largest one. The reader stays where it is.
impl io::Seek for Output {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let (base, delta) = match to {
            SeekFrom::Start(offset) => (offset, 0),
            SeekFrom::Current(delta) => (self.position, delta),
            SeekFrom::End(delta) => (self.at(Position::End)?.position, delta),
        };
        let outside = || {
            let reason = match delta {
                ..0 => "seek before the first byte",
                _ => "seek beyond the largest offset",
            };
            io::Error::new(io::ErrorKind::InvalidInput, reason)
        };
        let offset = base.checked_add_signed(delta).ok_or_else(outside)?;
        *self = self.at(Position::Offset(offset))?;
        Ok(offset)
    }

    fn stream_position(&mut self) -> io::Result<u64> {
        Ok(self.position)
    }
}

/// The same error for the traits of `std::io`, which holds it.
pub(super) fn into_io(error: Error) -> io::Error {
    let kind = match error.kind() {
        ErrorKind::InvalidInput => io::ErrorKind::InvalidInput,
        ErrorKind::NotFound => io::ErrorKind::NotFound,
        ErrorKind::PermissionDenied => io::ErrorKind::PermissionDenied,
        ErrorKind::Unsupported => io::ErrorKind::Unsupported,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

#[cfg(all(test, jobworker_loom))]
mod models {
    use std::io::Read as _;

    use super::*;
    use crate::log::Position;
    use crate::sync::{check, thread};
    use crate::worker::model::{Failure, Kernel, Reactor};
    use crate::worker::shutdown::Shutdown;

    /// An output of a running job, and what happens to that.
    fn output(position: Position) -> (Output, Arc<Kernel>) {
        let (reactor, kernel) = Reactor::of_model(1);
        let (_, mut jobs) = reactor.into_worker().unwrap();
        (jobs.remove(0).output(position).unwrap(), kernel)
    }

    /// What a reader gets of a job that writes `a` and `bc`, and exits.
    fn read_from(position: Position) -> Vec<u8> {
        let (mut output, kernel) = output(position);
        let id = output.job().id();
        let thread = thread::spawn(move || {
            let mut bytes = Vec::new();
            output.read_to_end(&mut bytes).map(|_| bytes)
        });
        kernel.write(id, b"a");
        kernel.write(id, b"bc");
        kernel.exit(id);
        thread.join().unwrap().unwrap()
    }

    #[test]
    fn a_read_that_blocks_ends_when_it_is_closed() {
        check(Some(2), || {
            let (mut output, _kernel) = output(Position::Start);
            let closer = output.closer();
            let thread = thread::spawn(move || output.read_timeout(&mut [0], Duration::MAX));
            closer.close();
            assert!(matches!(thread.join().unwrap(), Err(Error::Tail(TailError::Closed))));
        });
    }

    #[test]
    fn a_reader_gets_each_byte_and_the_end_once_the_job_has_ended() {
        check(Some(2), || assert_eq!(read_from(Position::Start), b"abc"));
    }

    #[test]
    fn a_reader_that_begins_ahead_of_the_log_is_told_when_that_has_come_so_far() {
        check(Some(2), || assert_eq!(read_from(Position::Offset(2)), b"c"));
    }

    #[test]
    fn a_shutdown_cuts_no_reader_off() {
        check(Some(2), || {
            let (reactor, kernel) = Reactor::of_model(1);
            let (worker, mut jobs) = reactor.into_worker().unwrap();
            let mut output = jobs.remove(0).output(Position::Start).unwrap();
            let id = output.job().id();
            let thread = thread::spawn(move || {
                let mut bytes = Vec::new();
                output.read_to_end(&mut bytes).map(|_| bytes)
            });
            kernel.write(id, b"a");
            worker.shutdown(Shutdown::Kill, Duration::MAX).unwrap();
            assert_eq!(thread.join().unwrap().unwrap(), b"a");
        });
    }

    #[test]
    fn a_reader_hears_of_the_end_of_the_loop() {
        check(Some(2), || {
            let (mut output, kernel) = output(Position::Start);
            let thread = thread::spawn(move || output.read_timeout(&mut [0], Duration::MAX));
            kernel.fail(Failure::Panic);
            assert!(matches!(thread.join().unwrap(), Err(Error::Worker(_))));
        });
    }
}
