//! Owns [`Outputs`]: all readers of a worker, as the loop sees them, and the tails that serve them.
//!
//! Invariants: each log that is followed at its end has one tail, the front of its feed, whatever
//! the number of readers there; a reader that is elsewhere has a tail of its own. Exactness is that
//! of these tails: a reader moves from one to the other only where both have read the same bytes,
//! and what it has read by itself counts as read by its tail. Work is done only when a reader asks
//! for it, and no call takes more than a feed holds. Knows nothing of jobs and threads.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::Result;
use crate::id::{JobId, Key, Slots, Stream, TailId, Token};
use crate::log::{Excerpt, Fill, Mark, TailOptions};
use crate::worker::closer::{Reader, Rest};
use crate::worker::feed::{Feed, Place, RING, Stopped};
use crate::worker::layer0::{LogFile, Reactor};
use crate::worker::piece::{Memory, PIECE, Piece};
use crate::worker::wait::Woken;

/// One of the logs of a job.
type LogId = (JobId, Stream);

/// All readers, as the loop sees them.
#[derive(Debug)]
pub(super) struct Outputs {
    readers: Slots<Entry>,
    feeds: Slots<Front>,
    /// The feed of each log that has one.
    by_log: HashMap<LogId, Key>,
    /// All tails. The key of each is its token.
    tails: Slots<(TailId, Use)>,
}

/// One of the tails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tail {
    id: TailId,
    key: Key,
}

/// One reader.
#[derive(Debug)]
struct Entry {
    log: LogId,
    follow: bool,
    source: Source,
    reader: Arc<Reader>,
}

/// Where it gets its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// From the file, as far as a tail of its own knows it.
    Own(Tail),
    /// From this feed, the one of its log, without the loop.
    Feed(Key),
    /// It has read everything.
    Ended,
}

/// The tail of the loop at the end of a log, and the feed that it serves.
#[derive(Debug)]
struct Front {
    log: LogId,
    tail: Tail,
    feed: Arc<Feed>,
    readers: usize,
    /// For the next piece.
    memory: Memory,
}

/// What a tail is for.
#[derive(Clone, Copy, Debug)]
enum Use {
    Reader(Key),
    Feed(Key),
}

/// What a reader gets that has a tail of its own.
#[derive(Debug)]
pub(super) enum Own {
    /// There is so much to read by itself.
    Excerpt(Excerpt<LogFile>),
    Piece(Piece),
    Truncated,
    /// It goes on at this offset; so many bytes before that were not kept.
    Skipped(u64, u64),
    /// Nothing yet: it is told when there is something.
    Nothing,
    /// It has caught up: from here on the feed has everything.
    Joined(Arc<Feed>, Place),
    Ended,
}

impl Outputs {
    pub(super) fn new() -> Self {
        Self {
            readers: Slots::new(),
            feeds: Slots::new(),
            by_log: HashMap::new(),
            tails: Slots::new(),
        }
    }

    /// Opens a log for a reader, and returns the offset at which it begins.
    pub(super) fn open(
        &mut self,
        reactor: &mut Reactor,
        job: JobId,
        options: TailOptions,
        reader: Arc<Reader>,
    ) -> Result<(Key, u64)> {
        let key = self.readers.vacant_key();
        let tail = self.add_tail(Use::Reader(key), |token| reactor.tail(job, options, token))?;
        let position = reactor.position(tail.id)?;
        let (log, follow) = ((job, options.stream), options.follow);
        self.readers.insert(Entry { log, follow, source: Source::Own(tail), reader });
        Ok((key, position))
    }

    /// A reader is gone.
    pub(super) fn close(&mut self, reactor: &mut Reactor, key: Key) {
        let Some(entry) = self.readers.remove(key) else { return };
        match entry.source {
            Source::Own(tail) => self.close_tail(reactor, tail),
            Source::Feed(feed) => self.leave_feed(reactor, feed),
            Source::Ended => {}
        }
    }

    /// What there is for a reader with a tail of its own, which has `read` so far by itself. If it
    /// is in `doubt`, because the log was not what its excerpt said, the tail reads the next piece
    /// and finds out.
    ///
    /// # Panics
    /// When it has none: a reader asks only for what it was told it has.
    pub(super) fn next(
        &mut self,
        reactor: &mut Reactor,
        key: Key,
        read: Option<(u64, Mark)>,
        doubt: bool,
    ) -> Result<Own> {
        let Source::Own(tail) = self.readers[key].source else {
            unreachable!("the reader was told that it has no tail any more")
        };
        if let Some((offset, last)) = read {
            reactor.was_read(tail.id, offset, last);
        }
        if !doubt && let Some(excerpt) = reactor.excerpt(tail.id) {
            return Ok(Own::Excerpt(excerpt));
        }
        let offset = reactor.position(tail.id)?;
        Ok(match reactor.fill_buf(tail.id)? {
            Fill::Data(bytes) => {
                let bytes = &bytes[..bytes.len().min(PIECE)];
                let (piece, length) = (Piece::copy(offset, bytes, Memory::default()), bytes.len());
                reactor.consume(tail.id, length)?;
                Own::Piece(piece)
            }
            Fill::Truncated => Own::Truncated,
            Fill::Skipped { bytes } => Own::Skipped(offset + bytes, bytes),
            Fill::Replaced { .. } => unreachable!("the log of a job is not followed by name"),
            Fill::UpToDate => match self.join(reactor, key, tail) {
                Some((feed, place)) => Own::Joined(feed, place),
                None => Own::Nothing,
            },
            Fill::Ended => {
                self.readers[key].source = Source::Ended;
                self.close_tail(reactor, tail);
                Own::Ended
            }
        })
    }

    /// Lets a reader whose own tail has nothing more to read go over to the feed of its log, unless
    /// it does not follow, or waits for something else than growth.
    fn join(&mut self, reactor: &mut Reactor, key: Key, tail: Tail) -> Option<(Arc<Feed>, Place)> {
        let Entry { log, follow, .. } = self.readers[key];
        if !follow || !reactor.is_at_end(tail.id) {
            return None;
        }
        let offset = reactor.position(tail.id).ok()?;
        let joined = if let Some(joined) = self.by_log.get(&log).copied() {
            if !reactor.is_at_end(self.feeds[joined].tail.id) {
                // Nobody has wanted more of late. It may be far behind, but not for long.
                self.pump(reactor, joined);
            }
            let front = &mut self.feeds[joined];
            front.readers += 1;
            if reactor.is_at_end(front.tail.id) {
                self.close_tail(reactor, tail);
            } else {
                // Still far behind: it goes on here, and those who have not read as far are behind.
                let before = std::mem::replace(&mut front.tail, tail);
                front.feed.skip_to(offset).wake();
                self.tails[tail.key].1 = Use::Feed(joined);
                self.close_tail(reactor, before);
            }
            joined
        } else {
            let feed = Arc::new(Feed::new(offset));
            let memory = Memory::default();
            let joined = self.feeds.insert(Front { log, tail, feed, readers: 1, memory });
            self.by_log.insert(log, joined);
            self.tails[tail.key].1 = Use::Feed(joined);
            joined
        };
        self.readers[key].source = Source::Feed(joined);
        let feed = Arc::clone(&self.feeds[joined].feed);
        let place = feed.place();
        debug_assert_eq!(place.offset, offset);
        Some((feed, place))
    }

    /// Gives a reader that the feed has left behind a tail of its own again, which has read the
    /// same bytes, the last of which are these. Returns whether there was no truncation meanwhile.
    pub(super) fn fall_back(
        &mut self,
        reactor: &mut Reactor,
        key: Key,
        place: Place,
        last: Mark,
    ) -> Result<bool> {
        let Source::Feed(left) = self.readers[key].source else {
            unreachable!("the reader was not given a feed")
        };
        let front = &self.feeds[left];
        if front.feed.place().epoch != place.epoch {
            return Ok(false);
        }
        let of_feed = front.tail.id;
        let tail = self.add_tail(Use::Reader(key), |token| {
            reactor.branch(of_feed, place.offset, last, token)
        })?;
        self.readers[key].source = Source::Own(tail);
        self.leave_feed(reactor, left);
        Ok(true)
    }

    /// A tail with this token has something to read.
    pub(super) fn readable(&mut self, reactor: &mut Reactor, tail: TailId, Token(token): Token) {
        match self.tails.unpack(token) {
            Some((_, (id, of))) if *id == tail => match *of {
                Use::Reader(key) => self.readers[key].reader.has_news(),
                Use::Feed(key) if self.feeds[key].feed.has_more() => self.pump(reactor, key),
                Use::Feed(_) => {}
            },
            // It was closed by an earlier event of this turn, or is not ours.
            Some(_) | None => {}
        }
    }

    /// A reader wants more than its feed has.
    pub(super) fn wanted(&mut self, reactor: &mut Reactor, key: Key) {
        if let Some(entry) = self.readers.get(key)
            && let Source::Feed(feed) = entry.source
        {
            self.pump(reactor, feed);
        }
    }

    /// Leaves to each reader what is left of the log of a job that has finished, before the loop
    /// ends. Nothing must be done for a reader after that.
    pub(super) fn leave(&self, reactor: &Reactor) {
        for (key, entry) in self.readers.iter() {
            let (tail, epoch) = match entry.source {
                Source::Own(tail) => (tail, 0),
                Source::Feed(feed) => {
                    let front = &self.feeds[feed];
                    (front.tail, front.feed.place().epoch)
                }
                Source::Ended => continue,
            };
            if let Some(excerpt) = reactor.rest(tail.id) {
                entry.reader.leave_rest(Rest { key, epoch, excerpt });
            }
        }
    }

    /// Every reader hears that the loop has ended.
    pub(super) fn lose(&mut self) {
        for (_, front) in self.feeds.iter() {
            front.feed.lose().wake_last();
        }
        Woken::of(self.readers.iter().map(|(_, entry)| entry.reader.lose())).wake_last();
    }

    /// Publishes what the front of a log has, at most what its feed holds. Those who wait are woken
    /// before the tail goes on: that takes time which they need not wait for.
    fn pump(&mut self, reactor: &mut Reactor, key: Key) {
        let Front { tail, feed, readers, memory, .. } = &mut self.feeds[key];
        let mut taken = 0;
        let stopped = loop {
            if taken >= RING {
                break Stopped::Enough;
            }
            match reactor.fill_buf(tail.id) {
                Ok(Fill::Data(bytes)) => {
                    let bytes = &bytes[..bytes.len().min(PIECE)];
                    let (piece, length) =
                        (Piece::copy(0, bytes, std::mem::take(memory)), bytes.len());
                    feed.push(piece, *readers).wake();
                    taken += length;
                    // It fails for a tail that is not there alone, and this one was just read.
                    if let Err(error) = reactor.consume(tail.id, length) {
                        break Stopped::Failed(error);
                    }
                }
                Ok(Fill::UpToDate) => break Stopped::UpToDate,
                Ok(Fill::Truncated) => {
                    feed.truncate().wake();
                    // Counts as a piece: a job that does nothing else must not hold up the loop.
                    taken += PIECE;
                }
                Ok(Fill::Skipped { bytes }) => feed.skip(bytes).wake(),
                Ok(Fill::Replaced { .. }) => {
                    unreachable!("the log of a job is not followed by name")
                }
                Ok(Fill::Ended) => break Stopped::Ended,
                Err(error) => break Stopped::Failed(error),
            }
        };
        feed.stop(stopped, memory).wake();
    }

    fn leave_feed(&mut self, reactor: &mut Reactor, key: Key) {
        let front = &mut self.feeds[key];
        front.readers -= 1;
        if front.readers == 0 {
            let (log, tail) = (front.log, front.tail);
            self.by_log.remove(&log);
            self.feeds.remove(key);
            self.close_tail(reactor, tail);
        }
    }

    /// Makes a tail, with a token that says what it is for.
    fn add_tail(&mut self, of: Use, open: impl FnOnce(Token) -> Result<TailId>) -> Result<Tail> {
        // A table of 2^32 tails would not fit into memory.
        let token = self.tails.vacant_key().pack().unwrap_or(usize::MAX);
        let id = open(Token(token))?;
        Ok(Tail { id, key: self.tails.insert((id, of)) })
    }

    fn close_tail(&mut self, reactor: &mut Reactor, tail: Tail) {
        self.tails.remove(tail.key);
        // It can only be unknown, because its job was removed.
        let _ = reactor.close(tail.id);
    }
}
